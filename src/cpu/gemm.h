/* gemm.h - the matrix product behind convolutions and their gradients */
#pragma once

enum {
    GFLI_MAX_TAPS = 49,
    GFLI_K_BLOCK = 256,      /* a panel of this many rows stays in the L1 cache */
    GFLI_ROWS_PER_TASK = 192 /* a multiple of GFLI_MR; this many rows of x stay in the L2 cache */
};

/* A convolution, or one phase of the gradient of one, as a matrix product whose left matrix is
 * never stored: row r of it is n_segs runs of seg_len floats of x, zeros where that is padding.
 * The grid (i, j) of every image gives the rows; row (i, j) begins at x[i * in_step + seg_y]
 * [j * in_step + seg_x] and goes to y[out_y + i * out_step][out_x + j * out_step]. */
typedef struct gfli_igemm {
    int groups, group_in, group_out; /* independent products and their channels */
    int n_segs, seg_len;
    int seg_taps; /* neighbours along x that make one run: 1, or more when channels are few */
    int seg_y[GFLI_MAX_TAPS], seg_x[GFLI_MAX_TAPS];
    int in_step, out_step, out_y, out_x;
    const float *packing; /* [groups][panels of group_out][n_segs * seg_len][GFLI_NR] */
    const float *bias;    /* [y->c] or NULL */
    const gfli_map *x, *y, *residual;
    bool relu;
} gfli_igemm;

size_t gfli_igemm_packed_size(const gfli_igemm *g);
size_t gfli_igemm_scratch(const gfl_context *context, const gfli_igemm *g);
void gfli_igemm_run(gfl_context *context, const gfli_igemm *g, void *scratch);

/* The rows of the left matrix, for products of other forms: how many; and of n rows from `first`
 * on, rows[r / GFLI_MR][segment][r % GFLI_MR] the runs and offsets[r] where y is.  zeros is as
 * long as a row of x or a run; copies has room for n runs of all segments, each row's rounded up
 * to gfli_igemm_copy floats.  rows and offsets are filled up to a multiple of GFLI_MR. */
size_t gfli_igemm_rows(const gfli_igemm *g);
size_t gfli_igemm_copy(const gfli_igemm *g);
void gfli_igemm_gather(const gfli_igemm *g, size_t first, int n, const float *zeros,
                       const float **rows, ptrdiff_t *offsets, float *copies);

static inline size_t gfli_round_64(size_t bytes) {
    return (bytes + 63) & ~(size_t)63;
}

/* ---- for products whose rows are not in memory ----------------------------------------------- */

/* Where a row of the product is. */
typedef struct gfli_row {
    int level, image, i, j;
    int grid_h, grid_w;
} gfli_row;

gfli_row gfli_row_at(const gfli_igemm *g, size_t index);
/* n rows further, within the line or to the next line's begin; it must exist. */
void gfli_row_skip(const gfli_igemm *g, gfli_row *r, int n);

/* A block of the inner dimension: whole segments, or a part of one. */
typedef struct gfli_k_block {
    int seg, n_segs, first, len;
} gfli_k_block;

/* The block after b (seg < 0: the first); false when there is none. */
bool gfli_next_block(const gfli_igemm *g, int size, gfli_k_block *b);

/* Scratch: zeros for padding, then for each slot the pointers and offsets of a task's rows and,
 * where several neighbours make a run, copies of the runs that padding interrupts. */
typedef struct gfli_igemm_layout {
    size_t zeros, rows, offsets, copies, slot; /* bytes of each part */
} gfli_igemm_layout;

typedef struct gfli_igemm_task {
    const gfli_igemm *g;
    gfli_igemm_layout layout;
    const gfli_kernels *kernels;
    size_t n_rows;
    int rows_per_task, row_tasks, panels_per_task, col_tasks, n_panels;
    float *zeros;
    char *room;
} gfli_igemm_task;

/* What a task computes: n rows from `first` on, and some panels. */
typedef struct gfli_part {
    size_t first;
    int n, panel0, panel1;
} gfli_part;

/* All of a task but its scratch. */
void gfli_igemm_prepare(const gfl_context *context, const gfli_igemm *g, gfli_igemm_task *t);
gfli_part gfli_igemm_part(const gfli_igemm_task *t, int task);
/* All tiles of a task's rows over one block of the inner dimension; the rows begin at channel
 * `origin` of x. */
void gfli_igemm_block(const gfli_igemm_task *t, const gfli_k_block *k, int panel0, int panel1,
                      int n_rows, const float *const *rows, const ptrdiff_t *offsets, int origin);

/* ---- convolutions ---------------------------------------------------------------------------- */

/* A convolution as such a product, without its data. */
void gfli_conv_igemm(const gfli_conv_shape *s, gfli_igemm *g);
