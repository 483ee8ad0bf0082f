/* train.h - gfl_trainer: one step after another */
#pragma once

/* A model being trained on a data set. */
typedef struct gfl_trainer gfl_trainer;

enum { GFL_MAX_MILESTONES = 8 };

/* How to train.  Zero means the default of each field.  All defaults together are the paper's
 * recipe, which is gfl_r50_fpn_1x_coco of MMDetection, with these differences:
 *
 *     drop_empty      images without annotations are kept; the recipe has 1
 *     frozen_stages   only the stem stays as it is; the recipe has 1, the first stage too
 *     lr              follows the images per update; the recipe has 0.01, as 16 images give
 *     warmup          is at most an epoch; the recipe has 500
 *
 * The command `gfl train` has one default of its own: it trains everything where weights start
 * afresh, and has frozen_stages = 1 where they come from a file.  --recipe paper sets all of it. */
typedef struct gfl_trainer_desc {
    /* Images per batch and rank, whose losses are normalised together; 0 means 16.  It is at most
     * the number of images that there are per rank.  The last batch of an epoch has as many, too:
     * it is filled up from the epoch's first images. */
    int batch;
    /* Batches whose gradients are averaged into one update; 0 means 1.  It is at most the number of
     * batches of an epoch. */
    int accumulate;
    int epochs; /* passes over the images; 0 means 12 */
    /* The learning rate is divided by 10 after each of these numbers of epochs, which ascend.  All
     * zero: after 8/12 and 11/12 of the epochs, rounded down, but not before the first epoch
     * ends. */
    int milestones[GFL_MAX_MILESTONES];
    int n_milestones; /* 0: those that are not zero; negative: none, so that the rate stays */
    /* Learning rate; 0 means 0.01 * images per update / 16.  The images per update are batch *
     * accumulate * ranks, after the limits above. */
    double lr;
    double momentum; /* 0 means 0.9; negative: none */
    /* Of all trained parameters, in dialect gfocal of all except biases, which have twice the rate;
     * 0 means 0.0001; negative: none. */
    double weight_decay;
    /* Updates in which the rate grows to lr, from lr / 1000, or from lr / 3 in dialect gfocal.  0
     * means 500, or an epoch where that is shorter; negative: none. */
    int warmup;
    double clip_norm; /* largest L2 norm of all gradients together; 0 and negative: no clipping */
    /* 0..4: the stem and this number of stages stay as they are; negative: all are trained. */
    int frozen_stages;
    int scale_long;      /* images are resized to fit into this ... */
    int scale_short;     /* ... by this, aspect ratio kept; both 0: as the model's preprocess */
    int scale_short_min; /* the short bound is drawn from [this, scale_short]; 0: it is fixed */
    int no_flip;         /* 1: no horizontal flips; 0: half of the images, chosen at random */
    int drop_empty;      /* 1: leave out images without annotations, as the official recipe does */
    int no_grouping;     /* 1: a batch may mix landscape and portrait images */
    int loaders;   /* threads that decode ahead; 0 means 2; negative: none, the step decodes */
    uint64_t seed; /* of the order, the flips and the scales */
} gfl_trainer_desc;

/* What a step did.  Losses are means over the accumulated batches of all ranks. */
typedef struct gfl_step_report {
    int64_t step;        /* updates done: 1 after the first */
    int epoch;           /* of the step's batches, from 0 */
    int step_in_epoch;   /* from 0 */
    int steps_per_epoch; /* the last one has fewer batches where accumulate does not divide them */
    double lr;           /* of this update */
    double loss;         /* the sum of the three */
    double loss_cls, loss_bbox, loss_dfl; /* of classes, boxes and distributions, weighted */
    double grad_norm;                     /* L2, of all gradients together, before clipping */
    int n_positives;                      /* locations that learnt a box, on all ranks */
    int n_images;                         /* of all ranks */
    double data_seconds;                  /* of waiting for images */
    double seconds;                       /* all of the step */
    int epoch_done;                       /* 1 after the last step of an epoch */
    int training_done;                    /* 1 after the last step of all */
} gfl_step_report;

/* What a description means for a model and a data set. */
typedef struct gfl_trainer_info {
    /* With every default filled in, and batch and accumulate limited to the data set.  Negative
     * fields still mean none. */
    gfl_trainer_desc desc;
    int n_images;         /* that are trained on */
    int n_dropped_images; /* that are left out: small ones, or those without annotations */
    int steps_per_epoch;  /* updates */
    int64_t n_steps;      /* of all epochs */
    int64_t n_done;       /* updates so far, including those before load_state */
    /* The most that maps, gradients and momentum take, at the largest shape of a batch. */
    size_t workspace_bytes;
    int64_t images_per_update; /* batch * accumulate * ranks */
} gfl_trainer_info;

/* gfl_trainer_create - train a model on a data set.
 *
 * It does stochastic gradient descent with momentum.  The running statistics of batch norms stay as
 * they are.  Every epoch has its own random order, and its last batch is filled up from its first
 * images.  Nothing is read or computed before the first step.
 *
 * In a context with ranks, all ranks create a trainer, take the same steps, save and load; those
 * calls wait for the other ranks.  The ranks share the images of every batch and move their weights
 * alike.  They begin with the weights of rank 0.  Models, data sets and descriptions (except for
 * loaders) must be the same on all ranks.  batch is that of one rank: R ranks of b images learn
 * what one rank of R * b images would, except for rounding, provided that the images have one size
 * and the sum of box weights is not below the least that is divided by (spec 5.4).
 *
 *   context  gives the memory and the threads, and receives the error text
 *   model    made with desc.trainable; borrowed, and changed by every step
 *   dataset  borrowed; its classes must be the model's, by name, unless the model was made without
 *            classes
 *   desc     NULL or zeroed for the defaults; copied
 *   out      set to the trainer, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, a field is out of range, or the model is not
 *                         trainable
 *           GFL_E_MISMATCH  the data set has other classes than the model; or the description, the
 *                         data set or the network is not that of rank 0; the text says what differs
 *           GFL_E_RANK    another rank failed, or did not answer within its limit: so the others
 *                         hear of a rank whose arguments are wrong, or that has no memory to begin
 *           GFL_E_DATA    there is no image to train on
 *           GFL_E_MEMORY  the gradients do not fit into memory, or no batch of this size could
 *           GFL_E_DEVICE  a loader thread could not be started
 *           GFL_E_UNSUPPORTED  the context is on a GPU, while training needs one on the CPU
 * Memory    Gradients and momentum are allocated at once, maps as the batches need them: at most
 *           workspace_bytes of gfl_trainer_info, and the images of up to three batches.  Destroy
 *           the trainer with gfl_trainer_destroy, before the model, the data set and the context.
 * Threads   As the context.  While a step runs, nobody else may use the model.
 * Source    Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section 4.
 *           Schedule and defaults are those of MMDetection 3, gfl_r50_fpn_1x_coco, or in dialect
 *           gfocal those of implus/GFocal.
 * Example
 *     gfl_step_report r;
 *     do status = gfl_trainer_step(trainer, &r);
 *     while (status == GFL_OK && !r.training_done); */
GFL_API gfl_status gfl_trainer_create(gfl_context *context, gfl_model *model,
                                      const gfl_dataset *dataset, const gfl_trainer_desc *desc,
                                      gfl_trainer **out);

/* gfl_trainer_destroy - free a trainer, and make its model detect as by gfl_model_sync; NULL is
 * allowed. */
GFL_API void gfl_trainer_destroy(gfl_trainer *trainer);

/* gfl_trainer_get_info - the description with its defaults, and what it means; zeros for NULL.
 *
 * Threads   Any, between steps. */
GFL_API void gfl_trainer_get_info(const gfl_trainer *trainer, gfl_trainer_info *out);

/* gfl_trainer_step - one update: read the next batches, compute losses and gradients, move the
 * weights.
 *
 * The same description, data, weights and number of steps give the same weights to the bit,
 * whatever the number of loaders and threads.
 *
 *   out  set to what the step did, zeroed on error; may be NULL
 *
 * Errors    After an error the weights are as before the step, and the next call tries the same
 *           step again.  When one rank fails, all ranks do.
 *           GFL_E_ARG     an argument is NULL, or all steps are done
 *           GFL_E_NONFINITE  a loss or a gradient is NaN or infinite, or the update would make a
 *                         weight so; the text says which, and names the images
 *           GFL_E_IO, GFL_E_FORMAT, GFL_E_UNSUPPORTED, GFL_E_DATA  an image cannot be used; the
 *                         text names it
 *           GFL_E_MEMORY  the maps of this batch do not fit into memory
 *           GFL_E_RANK    another rank failed, and says there why; or it did not answer, and then
 *                         the ranks cannot go on
 * Threads   As gfl_trainer_create. */
GFL_API gfl_status gfl_trainer_step(gfl_trainer *trainer, gfl_step_report *out);

/* gfl_trainer_save_state - write what is needed beside the weights to continue later.
 *
 * It is a safetensors file with the momentum of every parameter, and as metadata the position, the
 * description, and fingerprints of data and weights.  Save the weights with gfl_model_save at the
 * same step.  With ranks, all of them call this and rank 0 writes; gfl_model_save is for rank 0
 * alone.  A file of that name is replaced whole or not at all.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns; may be NULL on all
 *         ranks except the first
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_IO      the file cannot be written
 *           GFL_E_MEMORY  there is no room for one tensor
 *           GFL_E_MISMATCH  the weights of this rank are no longer those of rank 0
 *           GFL_E_RANK    another rank failed, or does not answer */
GFL_API gfl_status gfl_trainer_save_state(const gfl_trainer *trainer, const char *path);

/* gfl_trainer_save_state_memory - the bytes of the file that gfl_trainer_save_state would write,
 * for gfl_trainer_load_state_memory.
 *
 *   out  set to the bytes; free them with gfl_bytes_free and the trainer's context; zeroed on
 *        error, and on all ranks except the first, where it may be NULL
 *
 * Errors    As gfl_trainer_save_state, except GFL_E_IO.  It is GFL_E_MEMORY, too, when there is no
 *           room for the bytes.
 * Threads   As gfl_trainer_create. */
GFL_API gfl_status gfl_trainer_save_state_memory(const gfl_trainer *trainer, gfl_bytes *out);

/* gfl_trainer_load_state - continue where gfl_trainer_save_state was called.
 *
 * The model must have the weights that were saved with the state.  The trainer must have the same
 * data and the same description, except for loaders, epochs and milestones.  The pixels of images
 * are not compared.  The next step then gives the same bits as it would have given.  Other epochs
 * or milestones hold as if they had been set from the beginning, except for the steps already done.
 *
 * With ranks, all of them call this and rank 0 reads.  Another number of ranks than that which
 * saved the state may continue at any step if ranks * batch and accumulate are the same, but with
 * other bits.  Otherwise it may continue at the end of an epoch, and where the images per update
 * are others, with the rate and warm-up of the trainer.
 *
 * A state that was written before batches were limited to the size of the data set continues with
 * the learning rate that it began with.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns; may be NULL on all
 *         ranks except the first
 *
 * Errors    After an error other than GFL_E_RANK the trainer is as before.
 *           GFL_E_ARG     an argument is NULL
 *           GFL_E_IO      the file cannot be read
 *           GFL_E_FORMAT  it is not a training state, or it is damaged: a counter is not a number,
 *                         or a momentum is not finite
 *           GFL_E_MISMATCH  the description, the data set or the network is another, or the weights
 *                         are of another step; the text says what differs
 *           GFL_E_UNSUPPORTED  a newer version has written it
 *           GFL_E_MEMORY  there is no room for the momentum twice
 *           GFL_E_RANK    another rank failed, or does not answer
 * Memory    Until it returns, it takes the momentum a second time, one tensor, and what the file's
 *           header takes, at most 40 times its bytes. */
GFL_API gfl_status gfl_trainer_load_state(gfl_trainer *trainer, const char *path);

/* gfl_trainer_load_state_memory - gfl_trainer_load_state from the bytes of such a file.
 *
 *   bytes  [size], borrowed until the call returns; may be NULL on all ranks except the first
 *
 * Errors, Memory, Threads   As gfl_trainer_load_state. */
GFL_API gfl_status gfl_trainer_load_state_memory(gfl_trainer *trainer, const void *bytes,
                                                 size_t size);
