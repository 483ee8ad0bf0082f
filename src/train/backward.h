/* backward.h - the backward pass over a plan */
#pragma once

/* Gradients and momentum lie as the parameters do in the model's block, from the first trained one
 * on. */
typedef struct gfli_gradients {
    size_t first;   /* floats of the block before it */
    size_t floats;  /* of all that is trained */
    size_t *offset; /* [n_params] from the first; GFLI_NO_GRADIENT: frozen, or a statistic */
} gfli_gradients;

#define GFLI_NO_GRADIENT SIZE_MAX

gfl_status gfli_gradients_create(gfl_context *context, const gfl_model *model, int frozen_stages,
                                 gfli_gradients *out);
void gfli_gradients_destroy(gfl_context *context, gfli_gradients *gradients);

typedef struct gfli_backward_step {
    bool runs; /* the step has parameters to train, or comes after such */
    bool dx;   /* the gradient of in is wanted */
    bool add;  /* ... and something else has contributed to it before */
} gfli_backward_step;

/* The steps of a training plan are run in reverse.  Maps and their gradients share one workspace:
 * each has its place only while it is needed, so creating this moves the plan's slots. */
typedef struct gfli_backward {
    gfli_backward_step *steps; /* [n_steps] */
    gfli_map *grads;           /* [n_slots] of those that have a gradient */
    int *piece;           /* [n_slots] of the plan, for a gradient; -1: none.  Of parents only */
    size_t scratch_bytes; /* for the forward pass too */
    size_t packed_bytes;  /* one layer's weights as the gradient of its input wants them */
} gfli_backward;

/* plan->workspace_bytes becomes the size of the common workspace. */
gfl_status gfli_backward_create(gfl_context *context, const gfl_model *model,
                                const gfli_train_ops *ops, gfli_plan *plan, int frozen_stages,
                                gfli_backward *out);
void gfli_backward_destroy(gfl_context *context, gfli_backward *backward);

/* After gfli_plan_bind to the same workspace. */
void gfli_backward_bind(const gfli_plan *plan, gfli_backward *backward, void *workspace);

/* The pass's surroundings. */
typedef struct gfli_pass {
    gfl_context *context;
    const gfl_model *model;
    const gfli_train_ops *ops;
    const gfli_plan *plan;
    const gfli_backward *backward;
    const gfli_gradients *layout;
    float *gradients; /* [layout->floats], those of all trained parameters are overwritten */
    float *stats;     /* as the forward pass left them */
    void *packing, *scratch;
} gfli_pass;

/* Forward done, gradients of plan->cls and plan->reg in their maps. */
void gfli_backward_run(const gfli_pass *pass);
