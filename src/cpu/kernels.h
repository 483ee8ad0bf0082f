/* kernels.h - the CPU's kernels: a row of functions for each instruction set */
#pragma once

/* A context chooses its row when it is opened, and the operations call what the row holds.  All
 * rows take the same packed weights and scratch, so that a model may be used by contexts of
 * different rows.  The functions of one instruction set stand in one file: portable.c, avx2.c,
 * avx512.c, neon.c.  A new instruction set is one more file and its line in kernels.c. */

/* GCC for Windows spills vectors to a stack that it does not align for them (its bug 54412). */
#if defined(__x86_64__) && defined(__GNUC__) && (!defined(_WIN32) || defined(__clang__))
#    define GFLI_X86_KERNELS 1
#    define GFLI_AVX2        __attribute__((__target__("avx2,fma")))
#    define GFLI_AVX512      __attribute__((__target__("avx512f,avx2,fma")))
#else
#    define GFLI_X86_KERNELS 0
#endif
#if defined(__aarch64__)
#    define GFLI_NEON_KERNELS 1
#else
#    define GFLI_NEON_KERNELS 0
#endif

/* ---- what kernels are given ------------------------------------------------------------------ */

/* A panel is GFLI_NR columns of the right matrix, row after row; a tile is GFLI_MR rows of the
 * result by one or more panels.  Sizes are the same for every instruction set, so that packed
 * weights are too. */
enum { GFLI_MR = 6, GFLI_NR = 16 };

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

/* c[m][n] (=/+=) the sum over k of a[k][GFLI_MR] x b[k][width], n <= width. */
typedef struct gfli_outer {
    const float *a, *b;
    int len, width, m, n;
    float *c;
    size_t stride; /* floats from a row of c to the next */
    bool first;
} gfli_outer;

enum { GFLI_DEFORM_TAPS = 9 };

/* The point between four positions of x at which one tap of one output position looks. */
typedef struct gfli_point {
    int32_t at;        /* the top left one among all positions of x; it may be off the map */
    int32_t width;     /* positions from a line to the next */
    int corners;       /* which are on the map: 1 top left, 2 top right, 4, 8 below; 0: no sample */
    float down, right; /* from the top left one, 0 to 1 */
    float mask;
} gfli_point;

/* out[r * stride .. + n] = the value at points[r * GFLI_DEFORM_TAPS] of channels first .. + n. */
typedef struct gfli_sampling {
    const gfli_map *x;
    const float *zeros; /* [x->c] */
    const gfli_point *points;
    int rows, first, n;
    float *out;
    ptrdiff_t stride;
} gfli_sampling;

enum { GFLI_DEFORM_STRIP = 32 }; /* channels of a tile of gradients: two panels */

/* One tap of some positions, channels first .. + n; positions are GFLI_DEFORM_TAPS points and
 * `values` sums apart. */
typedef struct gfli_scatter {
    const gfli_map *x;
    const float *zeros, *grad; /* grad [rows][GFLI_DEFORM_STRIP], of value times mask */
    const gfli_point *points;
    int rows, first, n;
    float *dx; /* as x->data, or NULL */
    /* [rows][values]: of this tap dy and dx, side by side, and of the mask. */
    float *sums;
    int values, mask_at; /* where the mask's is, from dy's; 0: there are no masks */
    bool first_sum;
} gfli_scatter;

/* ---- rows ------------------------------------------------------------------------------------ */

typedef struct gfli_kernels {
    const char *name;  /* in gfl_context_desc.kernel and gfl_plan_step.kernel */
    const char *title; /* in gfl_context_get_device */
    bool (*available)(void);
    int tile_panels; /* that tile takes at a time, at most */
    void (*tile)(const gfli_tile *t);
    void (*sampling)(const gfli_sampling *t);
    /* What only training asks for. */
    void (*outer)(const gfli_outer *t);
    void (*scatter)(const gfli_scatter *t);
    void (*qfl_negative)(const float *z, int n, float scale, float *loss, float *dz);
} gfli_kernels;

/* The row that a context on the CPU uses. */
static inline const gfli_kernels *gfli_kernels_of(const gfl_context *context) {
    return (const gfli_kernels *)context->device;
}

/* Of the rows that this machine can run, the i-th, fastest first, or NULL. */
const gfli_kernels *gfli_kernels_at(int i);
/* Let a context use the row of a name, or the fastest one (NULL). */
gfl_status gfli_choose_kernels(gfl_context *context, const char *name);

extern const gfli_kernels gfli_portable, gfli_avx2, gfli_avx512, gfli_neon;

/* ---- what rows share ------------------------------------------------------------------------- */

/* y (+)= sum for n columns of a row of a tile from `col` on: the slow way, for edges and for
 * plain C; the same of an outer product. */
void gfli_store_tile_row(const gfli_tile *t, int row, int col, const float *sum, int n);
void gfli_store_outer_row(const gfli_outer *t, int row, int col, const float *sum, int n);

/* For rows that have none of their own. */
void gfli_sampling_portable(const gfli_sampling *t);
void gfli_scatter_portable(const gfli_scatter *t);
void gfli_qfl_negative_portable(const float *z, int n, float scale, float *loss, float *dz);

/* Ask for what the sums will be added to while they are being formed. */
static inline void gfli_tile_prefetch(const gfli_tile *t) {
    const float *add = t->first ? t->residual : t->y;
    for (int r = 0; add && r < GFLI_MR; r++) {
        __builtin_prefetch(add + t->out[r]);
        __builtin_prefetch(add + t->out[r] + t->n - 1);
    }
}

/* Ask for what the sums will be added to while they are being formed. */
static inline void gfli_outer_prefetch(const gfli_outer *t) {
    for (int r = 0; r < t->m && !t->first; r++) {
        __builtin_prefetch(t->c + (size_t)r * t->stride);
        __builtin_prefetch(t->c + (size_t)r * t->stride + t->n - 1);
    }
}

/* The four positions' channels from `first` on, zeros for those off the map, and their weights
 * without the mask. */
static inline void gfli_point_corners(const gfli_point *p, const gfli_map *x, const float *zeros,
                                      int first, const float *corner[4], float weight[4]) {
    const ptrdiff_t c = x->c;
    const float *base = x->data + first;
    corner[0] = p->corners & 1 ? base + p->at * c : zeros;
    corner[1] = p->corners & 2 ? base + (p->at + 1) * c : zeros;
    corner[2] = p->corners & 4 ? base + (p->at + p->width) * c : zeros;
    corner[3] = p->corners & 8 ? base + (p->at + p->width + 1) * c : zeros;
    gfli_corner_weights(p->down, p->right, weight);
}

/* From the products of grad with the four corners. */
static inline void gfli_scatter_sums(const gfli_scatter *t, const gfli_point *p,
                                     const float weight[4], const float dot[4], float *sums) {
    const float value = gfli_corner_sum(weight, dot[0], dot[1], dot[2], dot[3]);
    float down_sum, right_sum;
    gfli_corner_slopes(p->down, p->right, dot, &down_sum, &right_sum);
    const bool first = t->first_sum;
    sums[0] = (first ? 0.0f : sums[0]) + p->mask * down_sum;
    sums[1] = (first ? 0.0f : sums[1]) + p->mask * right_sum;
    if (t->mask_at) sums[t->mask_at] = (first ? 0.0f : sums[t->mask_at]) + value;
}

/* Where a corner's channels are in dx. */
static inline float *gfli_scatter_to(const gfli_scatter *t, const gfli_point *p, int corner) {
    const ptrdiff_t at = p->at + (corner & 1) + (ptrdiff_t)(corner >> 1) * p->width;
    return t->dx + at * t->x->c + t->first;
}

/* Logits without a target, one after the other: the loop that is vectorised. */
static inline void gfli_qfl_negatives(const float *GFLI_RESTRICT z, int n, float scale,
                                      float *GFLI_RESTRICT loss, float *GFLI_RESTRICT dz) {
    for (int i = 0; i < n; i++) loss[i] = gfli_qfl_negative(z[i], scale, &dz[i]);
}
