/* assign.h - what ATSS asks of a box and a cell (spec 4) */
#pragma once

/* Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
 * Training Sample Selection", CVPR 2020, arXiv:1912.02424, Algorithm 1 */

enum {
    GFLI_ATSS_NEAREST = 9,
    GFLI_ATSS_MOST = GFLI_ATSS_NEAREST * GFL_LEVELS,
    GFLI_ATSS_FAR = 8192 /* pixels outside the map beyond which rounding makes distances equal */
};

/* The nearest cells of a level so far, nearest first, equals by their number. */
typedef struct gfli_atss_list {
    float distance[GFLI_ATSS_NEAREST];
    int y[GFLI_ATSS_NEAREST], x[GFLI_ATSS_NEAREST];
    int n;
} gfli_atss_list;

GFLI_HD static inline void gfli_atss_list_add(gfli_atss_list *list, float distance, int y, int x) {
    int at = list->n;
    if (at == GFLI_ATSS_NEAREST && !(distance < list->distance[at - 1])) return;
    if (at == GFLI_ATSS_NEAREST)
        at--;
    else
        list->n++;
    for (; at > 0 && distance < list->distance[at - 1]; at--) {
        list->distance[at] = list->distance[at - 1];
        list->y[at] = list->y[at - 1];
        list->x[at] = list->x[at - 1];
    }
    list->distance[at] = distance;
    list->y[at] = y;
    list->x[at] = x;
}

/* Cells that can be among the nearest nine along one axis: any cell outside has nine nearer ones
 * between itself and the centre, unless the centre is so far that rounding makes them equal. */
GFLI_HD static inline void gfli_atss_window(float centre, int stride, int cells, int *first,
                                            int *last) {
    const double at = (double)centre / stride, far_cells = (double)GFLI_ATSS_FAR / stride;
    *first = 0;
    *last = cells - 1;
    if (!(at > -far_cells && at < (double)cells + far_cells)) return;
    const int middle = gfli_clamp((int)(floor)(at + 0.5), 0, cells - 1);
    *first = gfli_max(middle - GFLI_ATSS_NEAREST, 0);
    *last = gfli_min(middle + GFLI_ATSS_NEAREST, cells - 1);
}

/* Distances are rounded step by step as float arithmetic would (products in double are exact), so
 * that no compiler may fuse them and turn a tie into a difference. */
GFLI_HD static inline float gfli_atss_distance(float dx, float dy) {
    const float xx = (float)((double)dx * (double)dx), yy = (float)((double)dy * (double)dy);
    const float sum = (float)((double)xx + (double)yy);
    return (float)(sqrt)((double)sum);
}

GFLI_HD static inline float gfli_atss_area(float w, float h) {
    return (float)((double)w * (double)h);
}

/* IoU of the anchor (8 strides square) around (cx, cy) and a box, in float like the distances. */
GFLI_HD static inline float gfli_atss_iou(float cx, float cy, int stride, int inclusive,
                                          const float *box) {
    const float side = (float)(8 * stride), one = (float)inclusive, half = 0.5f * (side - one);
    const float x1 = fmaxf(cx - half, box[0]), y1 = fmaxf(cy - half, box[1]);
    const float x2 = fminf(cx + half, box[2]), y2 = fminf(cy + half, box[3]);
    const float inter = gfli_atss_area(fmaxf(x2 - x1 + one, 0), fmaxf(y2 - y1 + one, 0));
    const float area = gfli_atss_area(box[2] - box[0] + one, box[3] - box[1] + one);
    const float both = (float)((double)gfli_atss_area(side, side) + (double)area);
    return inter / fmaxf((float)((double)both - (double)inter), 1e-6f);
}

/* Mean plus unbiased standard deviation, or what nothing reaches of fewer than two. */
GFLI_HD static inline float gfli_atss_threshold(const float *iou, int n) {
    double mean = 0, square = 0;
    if (n < 2) return FLT_MAX;
    for (int i = 0; i < n; i++) mean += (double)iou[i];
    mean /= n;
    for (int i = 0; i < n; i++) {
        const double d = (double)iou[i] - mean;
        volatile double squared = d * d; /* rounded, as in gfli_rounded */
        square += squared;
    }
    return (float)mean + (float)(sqrt)(square / (n - 1));
}

/* Whether a centre lies far enough inside the box to be positive. */
GFLI_HD static inline bool gfli_atss_inside(float x, float y, const float *box) {
    return fminf(fminf(x - box[0], y - box[1]), fminf(box[2] - x, box[3] - y)) > 0.01f;
}
