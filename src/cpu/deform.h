/* deform.h - where a deformable convolution looks, and how it loads from there */
#pragma once

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

typedef void (*gfli_sampling_fn)(const gfli_sampling *t);
gfli_sampling_fn gfli_sampling_of(const gfl_context *context);

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
    weight[0] = (1.0f - p->down) * (1.0f - p->right);
    weight[1] = (1.0f - p->down) * p->right;
    weight[2] = p->down * (1.0f - p->right);
    weight[3] = p->down * p->right;
}

/* points [n][GFLI_DEFORM_TAPS] of the output positions from `first` on. */
void gfli_find_points(const gfli_conv_shape *s, const gfli_map *x, const gfli_map *offset,
                      size_t first, int n, gfli_point *points);

/* The convolution as a matrix product, a segment for each tap. */
void gfli_deform_igemm(const gfli_conv_shape *s, gfli_igemm *g);
