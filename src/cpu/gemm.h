/* gemm.h - register-blocked matrix kernels, shared by convolution and its gradients */
#pragma once

#if defined(__x86_64__)
#    define GFLI_AVX2   __attribute__((__target__("avx2,fma")))
#    define GFLI_AVX512 __attribute__((__target__("avx512f,avx2,fma")))
#endif

/* A panel is GFLI_NR columns of the right matrix, row after row; a tile is GFLI_MR rows of the
 * result by one or more panels.  Sizes are the same for every instruction set, so that packed
 * weights are too. */
enum { GFLI_MR = 6, GFLI_NR = 16, GFLI_MAX_TAPS = 49 };

/* A panel of this many rows stays in the L1 cache. */
enum { GFLI_K_BLOCK = 256 };

/* One tile: y[m rows][n columns] (+)= rows * panels over a block of the inner dimension. */
typedef struct gfli_tile {
    const float *const *rows; /* [n_segs][GFLI_MR] */
    ptrdiff_t row_offset;     /* floats from those pointers to the block */
    int n_segs, len;
    const float *b;
    size_t panel; /* floats from a panel to the next */
    float *y;
    const ptrdiff_t *out; /* [GFLI_MR] offsets of the rows in y and residual */
    const float *bias, *residual;
    int m, n;
    bool first, relu; /* first: overwrite y (with bias and residual); else add to it */
} gfli_tile;

typedef void (*gfli_tile_fn)(const gfli_tile *tile);
/* The fastest one, and how many panels it takes at a time. */
gfli_tile_fn gfli_tile_of(const gfl_context *context, int *panels);

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

/* A convolution as such a product, without its data. */
void gfli_conv_igemm(const gfli_conv_shape *s, gfli_igemm *g);
