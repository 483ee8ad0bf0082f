/* train.h - gfl_trainer: one step after another */
#pragma once

typedef struct gfl_trainer gfl_trainer;

enum { GFL_MAX_MILESTONES = 8 };

/* Zero means the default, which is the paper's recipe (spec 8). */
typedef struct gfl_train_desc {
    int batch;            /* images a step; 0 means 16 */
    int accumulate;       /* batches whose gradients are summed into one update; 0 means 1 */
    int epochs;           /* 0 means 12 */
    int milestones[GFL_MAX_MILESTONES]; /* learning rate / 10 after so many epochs; all 0: 8, 11 of 12, scaled */
    int n_milestones;     /* -1: none */
    double lr;            /* 0 means 0.01 * batch * accumulate / 16 */
    double momentum;      /* 0 means 0.9; negative: none */
    double weight_decay;  /* 0 means 0.0001; negative: none */
    int warmup;           /* steps; 0 means 500; negative: none */
    double clip_norm;     /* largest L2 norm of all gradients; 0: no clipping */
    int frozen_stages;    /* 0..4: stem and so many stages stay as they are; -1: not even the stem is frozen */
    int scale_long;       /* 0: as the model's preprocess */
    int scale_short, scale_short_min; /* multi-scale: short side drawn from [min, scale_short]; 0: no */
    int no_flip;          /* 1: no horizontal flips */
    int drop_empty;       /* 1: images without annotations are left out, as the official recipe does */
    int no_grouping;      /* 1: batches may mix landscape and portrait */
    int loaders;          /* threads that decode ahead; 0 means 2; -1: none, decode in the step */
    uint64_t seed;
} gfl_train_desc;

typedef struct gfl_step_report {
    int64_t step;        /* 1 after the first update */
    int epoch;           /* 0-based, of the batch */
    int step_in_epoch, steps_per_epoch;
    double lr, loss, loss_cls, loss_bbox, loss_dfl, grad_norm; /* grad_norm before clipping */
    int n_positives, n_images;
    double data_seconds, seconds; /* waiting for data; all of the step */
    int epoch_done;      /* 1 after the last step of an epoch */
    int training_done;   /* 1 after the last step of all */
} gfl_step_report;

/* gfl_trainer_create - train a trainable model on a data set; both are borrowed.
 * Threads   the model must not be used by others while a step runs. */
GFL_API gfl_status gfl_trainer_create(gfl_context *context, gfl_model *model, const gfl_dataset *dataset,
                                      const gfl_train_desc *desc, gfl_trainer **out);
GFL_API void gfl_trainer_destroy(gfl_trainer *trainer);

/* gfl_trainer_step - one update.  Weights change only when it returns GFL_OK; with GFL_E_NONFINITE the
 * error text names the images and the model is as before the step. */
GFL_API gfl_status gfl_trainer_step(gfl_trainer *trainer, gfl_step_report *out);

/* gfl_trainer_sync - make the model's packed weights follow its parameters, before detecting with it or saving. */
GFL_API gfl_status gfl_trainer_sync(gfl_trainer *trainer);

/* gfl_trainer_save_state / load_state - momentum, counters and the description, apart from the weights. */
GFL_API gfl_status gfl_trainer_save_state(const gfl_trainer *trainer, const char *path);
GFL_API gfl_status gfl_trainer_load_state(gfl_trainer *trainer, const char *path);

typedef struct gfl_train_plan {
    gfl_train_desc desc;  /* every field resolved */
    int n_images, n_dropped_images, steps_per_epoch;
    int64_t n_steps;
    size_t workspace_bytes; /* at the largest batch shape that the scale allows */
} gfl_train_plan;
GFL_API void gfl_trainer_get_plan(const gfl_trainer *trainer, gfl_train_plan *out);
