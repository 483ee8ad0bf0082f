/* trainer.h - gfl_trainer as the implementation sees it */
#pragma once

/* A plan with its backward pass, for one batch shape. */
typedef struct gfli_train_plan {
    gfli_plan plan;
    gfli_backward backward;
} gfli_train_plan;

/* What learns: a model with gradients and momentum, and the memory of a step.  It knows neither
 * data nor schedule, so tests can feed it. */
typedef struct gfli_learner {
    gfl_context *context;
    gfl_model *model;
    const gfli_train_ops *ops;
    int frozen_stages;
    gfli_gradients layout;
    int64_t updates;
    int n_batches, n_summed; /* of this update; those of them that total has */
    gfl_status failed;       /* what kept this rank from doing a batch of it */

    /* Memory of the device. */
    float *gradients, *momentum; /* [layout.floats] */
    float *total;                /* [layout.floats] sum over batches; NULL while there was one */
    gfli_update_part *parts;     /* [n_parts] one for each trained parameter */
    int n_parts;
    gfli_losses *losses; /* [n_batches] */
    gfli_verdict *verdict;

    gfli_train_plan plans[GFLI_PLANS];
    gfli_train_plan *current;
    gfli_recent recent;
    float *stats;
    uint8_t *workspace, *scratch, *packing, *block;
    gfli_truths truths; /* of the current batch, in block */
    int32_t *gt;
    int *n_pos;
    size_t workspace_size, stats_size, scratch_size, packed_size, gt_size, n_pos_size;
    size_t block_size, losses_size;

    uint8_t *staging; /* of the host: what goes to block */
    size_t staging_size;
} gfli_learner;

/* What one image of a batch is to teach. */
typedef struct gfli_target {
    const float *boxes;  /* [n][4] x1 y1 x2 y2 in the resized image's pixels */
    const int *labels;   /* [n] */
    int n, pad_h, pad_w; /* as in gfli_truth */
} gfli_target;

gfl_status gfli_learner_create(gfl_context *context, gfl_model *model, int frozen_stages,
                               gfli_learner *out);
void gfli_learner_destroy(gfli_learner *learner);

/* A plan for batches of this padded size, which is not one of the learner's own yet. */
void gfli_train_plan_free(gfli_learner *learner, gfli_train_plan *plan);
gfl_status gfli_train_plan_create(gfli_learner *learner, int n, int height, int width,
                                  gfli_train_plan *out);

/* Begin an update over so many batches, from 1.  After one over as many it needs no memory. */
gfl_status gfli_learner_begin(gfli_learner *learner, int n_batches);

/* Make ready for a batch of this padded size; the caller fills *input.  Then for its targets. */
gfl_status gfli_learner_input(gfli_learner *learner, int n, int height, int width, gfli_map *input);
gfl_status gfli_learner_targets(gfli_learner *learner, const gfli_target *targets);

/* Losses and gradients of the batch that was made ready, the update's batch number `batch`.  All
 * ranks call it for every batch: `ready` is what kept this one from making it ready, and none of
 * them does the update then.  Queued: what is not finite shows at the update. */
gfl_status gfli_train_gradients(gfli_learner *learner, int batch, gfl_status ready);

/* Add the gradients to those of the batches before, for an update over several. */
void gfli_learner_accumulate(gfli_learner *learner);

/* How an update moves the parameters; clip <= 0: no clipping. */
typedef struct gfli_sgd_opts {
    double lr, momentum, decay, clip;
} gfli_sgd_opts;

/* One SGD step with the gradients (the mean over the accumulated batches of all ranks).  *norm is
 * theirs, before clipping; losses [n_batches] are those of the batches, added up over the ranks.
 * Where a loss or a gradient is not finite, or where a parameter or its momentum would not stay so,
 * nothing changes, the status is GFL_E_NONFINITE, and the text says what it is.  Nor does anything
 * where a rank lacked a batch: there the status is what it lacked it for, on the others
 * GFL_E_RANK. */
gfl_status gfli_train_update(gfli_learner *learner, const gfli_sgd_opts *opts, double *norm,
                             gfli_losses *losses);

/* ---- schedule -------------------------------------------------------------------------------- */

/* Check every field, and replace zeros by defaults where these do not depend on the data. */
gfl_status gfli_train_resolve(gfl_context *context, const gfl_model *model,
                              const gfl_trainer_desc *in, gfl_trainer_desc *out);
/* What the resolved plan->desc comes to with so many images, at least one: the batches of all ranks
 * have no more images, and an update no more batches, than there are. */
void gfli_train_fit(gfl_trainer_info *plan, int n_images, int n_ranks);
double gfli_default_rate(int64_t batch, int accumulate); /* batch: of all ranks */
/* The learning rate of update `step` (from 0) of a fitted description. */
double gfli_train_rate(const gfl_trainer_desc *desc, const gfli_dialect *dialect,
                       int steps_per_epoch, int64_t step);

/* ---- trainer --------------------------------------------------------------------------------- */

struct gfl_trainer {
    gfl_context *context;
    gfl_model *model;
    const gfl_dataset *dataset;
    gfl_trainer_desc asked; /* resolved, before it was fitted to the data */
    gfl_trainer_info plan;
    gfli_learner learner;
    gfli_loader *loader;
    bool positioned; /* the loader's next batch is that of the next step */
    int *images;     /* [batch * accumulate] of this step */
    int n_images;
    int *first;           /* [accumulate + 1] the first of these of each batch */
    gfli_target *targets; /* [batch] */
    gfli_losses *losses;  /* [accumulate] */
    uint8_t *pixels;      /* of an image, on the device */
    size_t pixels_size;
    void *desk; /* [GFLI_DESK] bytes on the device, for what ranks tell each other */
};

/* Where the loader must stand for the next update, and how many batches belong to it: the last of
 * an epoch may have fewer. */
int gfli_trainer_position(const gfl_trainer *trainer, int *epoch, int *first);

enum { GFLI_DESK = 4096, GFLI_STATE_FIELDS = 18, GFLI_STATE_TEXT = 128 };

/* One field of what must be the same for training to go on as if nothing had happened, and on all
 * ranks. */
typedef struct gfli_state_field {
    const char *key;
    char value[GFLI_STATE_TEXT];
} gfli_state_field;

typedef struct gfli_state_fields {
    gfli_state_field fields[GFLI_STATE_FIELDS];
    int n;
} gfli_state_fields;

void gfli_describe_training(const gfl_trainer *trainer, const gfl_trainer_desc *d,
                            gfli_state_fields *f);

/* Collective calls of all ranks (ranks.c).  agree: `mine` where this rank has failed, GFL_E_RANK
 * where another has.  compare: a text of lines that must be rank 0's.  share: weights, momentum and
 * position become rank 0's.  join: all of that, after a trainer was created or not. */
gfl_status gfli_trainer_agree(const gfl_trainer *trainer, gfl_status mine, const char *what);
gfl_status gfli_trainer_compare(const gfl_trainer *trainer, gfl_status mine,
                                const char text[GFLI_DESK], const char *what);
gfl_status gfli_trainer_share(gfl_trainer *trainer);
gfl_status gfli_trainer_join(gfl_trainer *trainer, gfl_status mine);

/* What gfl_trainer_load_state does with an open file. */
gfl_status gfli_state_load(gfl_trainer *trainer, gfli_blob *blob);

/* Fingerprints: of all parameters, of their names and shapes, of everything the data set says. */
gfl_status gfli_hash_model(const gfl_model *model, uint64_t *out);
uint64_t gfli_hash_network(const gfl_model *model);
uint64_t gfli_hash_dataset(const gfl_dataset *dataset);
void gfli_hash_format(uint64_t hash, char out[24]);
