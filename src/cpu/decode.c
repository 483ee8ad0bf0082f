/* decode.c - from logits to boxes: threshold, top-k, integral of the distributions, clip */
#pragma once
/* Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section "Method". */

static float gfli_integral_cpu(const float *logits, int n_bins, float *p) {
    float largest = logits[0], sum = 0.0f, mean = 0.0f;
    for (int k = 1; k < n_bins; k++) largest = logits[k] > largest ? logits[k] : largest;
    for (int k = 0; k < n_bins; k++) {
        p[k] = expf(logits[k] - largest);
        sum += p[k];
    }
    for (int k = 0; k < n_bins; k++) {
        p[k] /= sum;
        mean += (float)k * p[k];
    }
    return mean;
}

/* ---- the best pairs of location and class ---------------------------------------------------- */

/* A logit whose sigmoid is certainly below the score, by a margin that covers rounding. */
static float gfli_logit_below(float score) {
    const double s = score < 0.9999999f ? (double)score : 0.9999999;
    return (float)(log(s / (1.0 - s)) - 0.01 - 4e-7 / (1.0 - s));
}

static bool gfli_any_above(const float *x, int n, float bound) {
    int above = 0;
    for (int i = 0; i < n; i++) above |= x[i] > bound;
    return above != 0;
}

/* Pairs seen so far: the best `most`, a heap once there are that many. */
typedef struct gfli_selection {
    uint64_t *ranks;
    size_t n, most;
    float min_score, bound; /* logits up to bound need no exact look */
} gfli_selection;

static void gfli_select(gfli_selection *s, float logit, uint64_t index) {
    const float score = gfli_sigmoid(logit);
    if (!(score > s->min_score)) return;
    const uint64_t rank = gfli_rank(score, index);
    if (s->n < s->most) {
        s->ranks[s->n++] = rank;
        if (s->n < s->most) return;
        gfli_heap_make(s->ranks, s->n);
    } else {
        if (rank > s->ranks[0]) return;
        gfli_heap_replace(s->ranks, s->n, rank);
    }
    s->bound = gfli_logit_below(gfli_rank_score(s->ranks[0]));
}

typedef struct gfli_decode_task {
    const gfli_map *cls, *reg;
    const gfli_decode_opts *opts;
    int index;
    uint64_t *ranks[GFL_LEVELS]; /* of each level's pairs, sorted */
    int counts[GFL_LEVELS], first[GFL_LEVELS];
    int n;
    gfli_decoded *out;
} gfli_decode_task;

static const float *gfli_decode_plane(const gfli_map *map, int level, int index) {
    const size_t points = (size_t)map->h[level] * (size_t)map->w[level];
    return map->data + (gfli_points_before(map, level) + (size_t)index * points) * (size_t)map->c;
}

static void gfli_select_level(void *arg, int level, int slot) {
    gfli_decode_task *t = (gfli_decode_task *)arg;
    const int classes = t->opts->n_classes;
    const size_t points = (size_t)t->cls->h[level] * (size_t)t->cls->w[level];
    const float *x = gfli_decode_plane(t->cls, level, t->index);
    gfli_selection s;
    (void)slot;
    s.ranks = t->ranks[level];
    s.n = 0;
    s.most = gfli_max_candidates(t->cls, t->opts, level);
    s.min_score = t->opts->min_score;
    s.bound = gfli_logit_below(s.min_score);
    for (size_t p = 0; p < points; p++, x += (size_t)t->cls->c) {
        if (!gfli_any_above(x, classes, s.bound)) continue;
        for (int c = 0; c < classes; c++) {
            if (x[c] > s.bound)
                gfli_select(&s, x[c], (uint64_t)p * (uint64_t)classes + (uint64_t)c);
        }
    }
    gfli_sort_ranks(s.ranks, s.n);
    t->counts[level] = (int)s.n;
}

/* ---- boxes ----------------------------------------------------------------------------------- */

enum { GFLI_DECODE_BOXES = 32 };

/* A value that is no number stays so and is dropped with the boxes that have no area. */
static float gfli_clamp_side(float v, int limit) {
    if (v < 0.0f) return 0.0f;
    return v > (float)limit ? (float)limit : v;
}

static void gfli_decode_pair(const gfli_decode_task *t, int level, uint64_t rank,
                             gfli_decoded *out) {
    const gfli_decode_opts *o = t->opts;
    const uint64_t index = gfli_rank_index(rank), cell = index / (uint64_t)o->n_classes;
    const float *logits =
        gfli_decode_plane(t->reg, level, t->index) + (size_t)cell * (size_t)t->reg->c;
    float p[GFL_MAX_BINS], d[4];
    for (int side = 0; side < 4; side++) {
        const float mean = gfli_integral_cpu(logits + side * o->n_bins, o->n_bins, p);
        d[side] = gfli_rounded(mean * (float)o->stride[level]);
    }
    out->level = level;
    out->y = (int)(cell / (uint64_t)t->cls->w[level]);
    out->x = (int)(cell % (uint64_t)t->cls->w[level]);
    const float x = (float)(out->x * o->stride[level]), y = (float)(out->y * o->stride[level]);
    out->detection.x1 = gfli_clamp_side(x - d[0], o->width);
    out->detection.y1 = gfli_clamp_side(y - d[1], o->height);
    out->detection.x2 = gfli_clamp_side(x + d[2], o->width);
    out->detection.y2 = gfli_clamp_side(y + d[3], o->height);
    out->detection.score = gfli_rank_score(rank);
    out->detection.label = (int)(index % (uint64_t)o->n_classes);
}

static void gfli_decode_part(void *arg, int task, int slot) {
    const gfli_decode_task *t = (const gfli_decode_task *)arg;
    const int from = task * GFLI_DECODE_BOXES, end = gfli_min(t->n, from + GFLI_DECODE_BOXES);
    int level = 0;
    (void)slot;
    for (int i = from; i < end; i++) {
        while (i >= t->first[level] + t->counts[level]) level++;
        gfli_decode_pair(t, level, t->ranks[level][i - t->first[level]], &t->out[i]);
    }
}

size_t gfli_max_candidates(const gfli_map *cls, const gfli_decode_opts *opts, int level) {
    const size_t points = (size_t)cls->h[level] * (size_t)cls->w[level];
    const size_t pairs = points * (size_t)opts->n_classes;
    return pairs < (size_t)opts->max_per_level ? pairs : (size_t)opts->max_per_level;
}

int gfli_candidates(gfl_context *context, const gfli_map *cls, const gfli_map *reg, int index,
                    const gfli_decode_opts *opts, gfli_decoded *out, int *counts, uint64_t *ranks) {
    gfli_decode_task t;
    memset(&t, 0, sizeof t);
    t.cls = cls;
    t.reg = reg;
    t.opts = opts;
    t.index = index;
    t.out = out;
    for (int l = 0; l < cls->levels; l++) {
        t.ranks[l] = ranks;
        ranks += gfli_max_candidates(cls, opts, l);
    }
    gfli_parallel_for(context, cls->levels, gfli_select_level, &t);
    for (int l = 0; l < cls->levels; l++) {
        t.first[l] = t.n;
        t.n += t.counts[l];
        counts[l] = t.counts[l];
    }
    gfli_parallel_for(context, gfli_ceil_div(t.n, GFLI_DECODE_BOXES), gfli_decode_part, &t);
    return t.n;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static size_t gfli_all_candidates(const gfli_map *cls, const gfli_decode_opts *opts) {
    size_t n = 0;
    for (int l = 0; l < cls->levels; l++) n += gfli_max_candidates(cls, opts, l);
    return n;
}

static size_t gfli_decode_scratch_cpu(const gfli_map *cls, const gfli_decode_opts *opts) {
    const size_t n = gfli_all_candidates(cls, opts);
    const size_t most = (size_t)opts->max_detections, kept = n < most ? n : most;
    return n * (sizeof(uint64_t) + sizeof(gfli_decoded)) +
           kept * (sizeof(int) + GFLI_NMS_FLOATS * sizeof(float));
}

/* To the pixels of the original image; boxes without area go.  Returns how many stay. */
static int gfli_rescale_boxes(const gfli_decode_opts *opts, gfli_decoded *boxes, int n) {
    const float sx = (float)(1.0 / opts->scale_x), sy = (float)(1.0 / opts->scale_y);
    int kept = 0;
    for (int i = 0; i < n; i++) {
        gfli_decoded b = boxes[i];
        gfl_detection *d = &b.detection;
        d->x1 = gfli_rounded(d->x1 * sx);
        d->y1 = gfli_rounded(d->y1 * sy);
        d->x2 = gfli_rounded(d->x2 * sx);
        d->y2 = gfli_rounded(d->y2 * sy);
        if (d->x2 - d->x1 > 0.0f && d->y2 - d->y1 > 0.0f) boxes[kept++] = b;
    }
    return kept;
}

static int gfli_decode_cpu(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                           int index, const gfli_decode_opts *opts, gfli_decoded *out,
                           void *scratch) {
    const size_t most = gfli_all_candidates(cls, opts);
    uint64_t *ranks = (uint64_t *)scratch;
    gfli_decoded *boxes = (gfli_decoded *)(void *)(ranks + most);
    float *moved = (float *)(void *)(boxes + most);
    const int max_keep = gfli_min((int)most, opts->max_detections);
    int *keep = (int *)(void *)(moved + (size_t)max_keep * GFLI_NMS_FLOATS);
    int counts[GFL_LEVELS];
    int n = gfli_candidates(context, cls, reg, index, opts, boxes, counts, ranks);
    n = gfli_rescale_boxes(opts, boxes, n);
    n = gfli_nms(boxes, n, opts->nms_iou, max_keep, keep, ranks, moved);
    for (int i = 0; i < n; i++) out[i] = boxes[keep[i]];
    return n;
}

static void gfli_location_logits_cpu(gfl_context *context, const gfli_map *reg, int index,
                                     const gfli_decoded *at, int n, float *logits) {
    const size_t c = (size_t)reg->c;
    (void)context;
    for (int i = 0; i < n; i++, logits += c) {
        const size_t cell = (size_t)at[i].y * (size_t)reg->w[at[i].level] + (size_t)at[i].x;
        memcpy(logits, gfli_decode_plane(reg, at[i].level, index) + cell * c, c * sizeof *logits);
    }
}
