/* conv_grad.h - what the gradients of both kinds of convolution share */
#pragma once

/* Weights as the right matrix of the input's gradient. */
typedef struct gfli_grad_pack_task {
    const gfli_conv_shape *s;
    gfli_igemm g;
    int tap[GFLI_MAX_TAPS];
    const float *weight, *scale;
    float *packing;
} gfli_grad_pack_task;

enum { GFLI_PACK_ROWS = 32 };

/* Some rows of all panels of a group: the weights of one output channel and tap lie together. */
void gfli_grad_pack_rows(void *arg, int task, int slot);

/* The gradient of the weights and of the bias. */
typedef struct gfli_grad_task {
    const gfli_conv_shape *s;
    gfli_igemm g;
    const gfli_map *dy;
    const gfli_point *points; /* of a deformable convolution, or NULL */
    const gfli_kernels *kernels;
    size_t n_rows, rows_per_chunk;
    int rows_per_block;                         /* positions that are packed together */
    int chunks;                                 /* of the positions */
    int n_strips, strips_per_task, strip_tasks; /* of the implicit matrix, all groups */
    int out_tasks;                              /* of a group's output channels */
    size_t n_weights;                           /* of one sum, with the merged groups' zeros */
    bool direct;                                /* the only sum is dweight */
    float *zeros, *sums, *dweight, *dbias;
    double *bias_sums;
    char *room;
    size_t pointers, offsets, copies, dy_panels, slot; /* bytes of the parts of a slot */
    size_t scratch;                                    /* bytes */
} gfli_grad_task;

void gfli_grad_plan(const gfl_context *context, const gfli_conv_shape *s, const gfli_igemm *g,
                    const gfli_map *dy, gfli_grad_task *t);
/* Once t is planned, and given its points if it has some. */
void gfli_grad_weight(gfl_context *context, gfli_grad_task *t, const gfli_map *x, float *dweight,
                      float *dbias, void *scratch);
