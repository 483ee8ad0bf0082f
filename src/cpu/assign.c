/* assign.c - ATSS: which positions learn which box */
#pragma once

/* Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
 * Training Sample Selection", CVPR 2020, arXiv:1912.02424, Algorithm 1 */

enum {
    GFLI_ATSS_NEAREST = 9,
    GFLI_ATSS_MOST = GFLI_ATSS_NEAREST * GFL_LEVELS,
    GFLI_ATSS_FAR = 8192 /* pixels outside the map beyond which rounding makes distances equal */
};

/* The positives among one box's candidates. */
typedef struct gfli_atss_box {
    size_t point[GFLI_ATSS_MOST];
    float iou[GFLI_ATSS_MOST];
    int n;
} gfli_atss_box;

typedef struct gfli_atss {
    const gfli_map *shape;
    const gfli_assign_opts *opts;
    const gfli_truths *truths;
    const gfli_assignment *out;
    int max_boxes;
    float *best;          /* [points]: IoU of the box that has the position */
    gfli_atss_box *boxes; /* [n][max_boxes] */
} gfli_atss;

/* The nearest cells of a level so far, nearest first, equals by their number. */
typedef struct gfli_atss_list {
    float distance[GFLI_ATSS_NEAREST];
    int y[GFLI_ATSS_NEAREST], x[GFLI_ATSS_NEAREST];
    int n;
} gfli_atss_list;

static void gfli_atss_list_add(gfli_atss_list *list, float distance, int y, int x) {
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
static void gfli_atss_window(float centre, int stride, int cells, int *first, int *last) {
    const double at = (double)centre / stride, far_cells = (double)GFLI_ATSS_FAR / stride;
    *first = 0;
    *last = cells - 1;
    if (!(at > -far_cells && at < (double)cells + far_cells)) return;
    const int middle = gfli_min(gfli_max((int)(floor)(at + 0.5), 0), cells - 1);
    *first = gfli_max(middle - GFLI_ATSS_NEAREST, 0);
    *last = gfli_min(middle + GFLI_ATSS_NEAREST, cells - 1);
}

/* Distances are rounded step by step as float arithmetic would (products in double are exact), so
 * that no compiler may fuse them and turn a tie into a difference. */
static float gfli_atss_distance(float dx, float dy) {
    const float xx = (float)((double)dx * (double)dx), yy = (float)((double)dy * (double)dy);
    const float sum = (float)((double)xx + (double)yy);
    return (float)(sqrt)((double)sum);
}

static float gfli_atss_area(float w, float h) {
    return (float)((double)w * (double)h);
}

/* IoU of the anchor (8 strides square) around (cx, cy) and a box, in float like the distances. */
static float gfli_atss_iou(float cx, float cy, int stride, int inclusive, const float *box) {
    const float side = (float)(8 * stride), one = (float)inclusive, half = 0.5f * (side - one);
    const float x1 = fmaxf(cx - half, box[0]), y1 = fmaxf(cy - half, box[1]);
    const float x2 = fminf(cx + half, box[2]), y2 = fminf(cy + half, box[3]);
    const float inter = gfli_atss_area(fmaxf(x2 - x1 + one, 0), fmaxf(y2 - y1 + one, 0));
    const float area = gfli_atss_area(box[2] - box[0] + one, box[3] - box[1] + one);
    const float both = (float)((double)gfli_atss_area(side, side) + (double)area);
    return inter / fmaxf((float)((double)both - (double)inter), 1e-6f);
}

/* Mean plus unbiased standard deviation, or what nothing reaches of fewer than two. */
static float gfli_atss_threshold(const float *iou, int n) {
    double mean = 0, square = 0;
    if (n < 2) return FLT_MAX;
    for (int i = 0; i < n; i++) mean += (double)iou[i];
    mean /= n;
    for (int i = 0; i < n; i++) square += ((double)iou[i] - mean) * ((double)iou[i] - mean);
    return (float)mean + (float)(sqrt)(square / (n - 1));
}

static void gfli_atss_nearest(const gfli_atss *t, const gfli_truth *truth, int level, float cx,
                              float cy, gfli_atss_list *out) {
    const int stride = t->opts->stride[level], inclusive = t->opts->inclusive;
    const float first = gfli_position(0, stride, inclusive);
    const int h = gfli_min(gfli_ceil_div(truth->pad_h, stride), t->shape->h[level]);
    const int w = gfli_min(gfli_ceil_div(truth->pad_w, stride), t->shape->w[level]);
    int y0, y1, x0, x1;
    out->n = 0;
    gfli_atss_window(cy - first, stride, h, &y0, &y1);
    gfli_atss_window(cx - first, stride, w, &x0, &x1);
    for (int y = y0; y <= y1; y++)
        for (int x = x0; x <= x1; x++)
            gfli_atss_list_add(out,
                               gfli_atss_distance(gfli_position(x, stride, inclusive) - cx,
                                                  gfli_position(y, stride, inclusive) - cy),
                               y, x);
}

/* Candidates of one box on all levels, and which of them are positive. */
static void gfli_atss_do(void *arg, int task, int slot) {
    const gfli_atss *t = (const gfli_atss *)arg;
    const int image = task / t->max_boxes, index = task % t->max_boxes;
    const gfli_truth *truth = &t->truths->images[image];
    gfli_atss_box *out = &t->boxes[task];
    (void)slot;
    out->n = 0;
    if (index >= truth->n) return;
    const float *box = t->truths->boxes + 4 * (truth->first + index);
    const float cx = (box[0] + box[2]) / 2, cy = (box[1] + box[3]) / 2;
    size_t point[GFLI_ATSS_MOST];
    float iou[GFLI_ATSS_MOST];
    bool inside[GFLI_ATSS_MOST];
    int n = 0;
    for (int l = 0; l < t->shape->levels; l++) {
        gfli_atss_list near9;
        const int stride = t->opts->stride[l], inclusive = t->opts->inclusive;
        const int h = t->shape->h[l], w = t->shape->w[l];
        const size_t before = gfli_points_before(t->shape, l) + (size_t)image * (size_t)(h * w);
        gfli_atss_nearest(t, truth, l, cx, cy, &near9);
        for (int i = 0; i < near9.n; i++, n++) {
            const float x = gfli_position(near9.x[i], stride, inclusive);
            const float y = gfli_position(near9.y[i], stride, inclusive);
            point[n] = before + (size_t)near9.y[i] * (size_t)w + (size_t)near9.x[i];
            iou[n] = gfli_atss_iou(x, y, stride, inclusive, box);
            inside[n] = fminf(fminf(x - box[0], y - box[1]), fminf(box[2] - x, box[3] - y)) > 0.01f;
        }
    }
    const float threshold = gfli_atss_threshold(iou, n);
    for (int i = 0; i < n; i++) {
        if (!inside[i] || !(iou[i] >= threshold)) continue;
        out->point[out->n] = point[i];
        out->iou[out->n++] = iou[i];
    }
}

/* Background inside the valid area, nothing outside it, then the boxes in their order. */
static void gfli_atss_image(void *arg, int image, int slot) {
    const gfli_atss *t = (const gfli_atss *)arg;
    const gfli_truth *truth = &t->truths->images[image];
    int32_t *gt = t->out->gt;
    int positives = 0;
    (void)slot;
    for (int l = 0; l < t->shape->levels; l++) {
        const int h = t->shape->h[l], w = t->shape->w[l], stride = t->opts->stride[l];
        const int valid_h = gfli_ceil_div(truth->pad_h, stride);
        const int valid_w = gfli_ceil_div(truth->pad_w, stride);
        size_t at = gfli_points_before(t->shape, l) + (size_t)image * (size_t)(h * w);
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++, at++) gt[at] = y < valid_h && x < valid_w ? -1 : -2;
    }
    for (int b = 0; b < truth->n; b++) {
        const gfli_atss_box *box = &t->boxes[(size_t)image * (size_t)t->max_boxes + (size_t)b];
        for (int i = 0; i < box->n; i++) {
            const size_t at = box->point[i];
            if (gt[at] >= 0 && !(box->iou[i] > t->best[at])) continue;
            if (gt[at] < 0) positives++;
            gt[at] = b;
            t->best[at] = box->iou[i];
        }
    }
    t->out->n_pos[image] = positives;
}

static size_t gfli_assign_scratch_cpu(const gfl_context *context, const gfli_map *shape,
                                      int max_boxes) {
    (void)context;
    return (size_t)shape->n * (size_t)max_boxes * sizeof(gfli_atss_box) +
           gfli_points(shape) * sizeof(float);
}

static void gfli_assign_cpu(gfl_context *context, const gfli_map *shape,
                            const gfli_assign_opts *opts, const gfli_truths *truths,
                            const gfli_assignment *out, void *scratch) {
    gfli_atss t;
    t.shape = shape;
    t.opts = opts;
    t.truths = truths;
    t.out = out;
    t.max_boxes = truths->most;
    t.boxes = (gfli_atss_box *)scratch;
    t.best = (float *)(t.boxes + (size_t)shape->n * (size_t)t.max_boxes);
    gfli_parallel_for(context, shape->n * t.max_boxes, gfli_atss_do, &t);
    gfli_parallel_for(context, shape->n, gfli_atss_image, &t);
}
