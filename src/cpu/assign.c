/* assign.c - ATSS: which positions learn which box */
#pragma once

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
            inside[n] = gfli_atss_inside(x, y, box);
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
