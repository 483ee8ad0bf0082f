/* decode.c - from logits to boxes: threshold, top-k, integral of the distributions, clip */
#pragma once
/* Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section "Method". */

/* ---- the best pairs of location and class ---------------------------------------------------- */

/* A logit whose sigmoid is certainly below the score, by a margin that covers rounding. */
static float gfli_logit_below(float score) {
    const double s = score < 0.9999999f ? (double)score : 0.9999999;
    return (float)((log)(s / (1.0 - s)) - 0.01 - 4e-7 / (1.0 - s));
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
    if (!(score > s->min_score) || !gfli_is_finite((double)score)) return;
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

static size_t gfli_decode_points(const gfli_map *map, int level) {
    return (size_t)map->h[level] * (size_t)map->w[level];
}

static const float *gfli_decode_plane(const gfli_map *map, int level, int index) {
    const size_t points = gfli_decode_points(map, level);
    return map->data + (gfli_points_before(map, level) + (size_t)index * points) * (size_t)map->c;
}

static gfli_selection gfli_selection_make(const gfli_decode_task *t, int level, size_t most) {
    gfli_selection s;
    s.ranks = t->ranks[level];
    s.n = 0;
    s.most = most;
    s.min_score = t->opts->min_score;
    s.bound = gfli_logit_below(s.min_score);
    return s;
}

static void gfli_select_pairs(gfli_decode_task *t, int level) {
    const int classes = t->opts->n_classes;
    const size_t points = gfli_decode_points(t->cls, level);
    const float *x = gfli_decode_plane(t->cls, level, t->index);
    gfli_selection s = gfli_selection_make(t, level, gfli_max_candidates(t->cls, t->opts, level));
    for (size_t p = 0; p < points; p++, x += (size_t)t->cls->c) {
        if (!gfli_any_above(x, classes, s.bound)) continue;
        for (int c = 0; c < classes; c++) {
            if (x[c] > s.bound && gfli_wants(t->opts->wanted, c))
                gfli_select(&s, x[c], (uint64_t)p * (uint64_t)classes + (uint64_t)c);
        }
    }
    gfli_sort_ranks(s.ranks, s.n);
    t->counts[level] = (int)s.n;
}

/* Replace n locations by their pairs above the threshold, in the same memory: the locations are
 * moved to its end, where the pairs, at most `classes` for each, cannot overtake them. */
static size_t gfli_select_classes(const gfli_decode_task *t, int level, size_t n) {
    const int classes = t->opts->n_classes;
    const float *plane = gfli_decode_plane(t->cls, level, t->index);
    uint64_t *ranks = t->ranks[level], *from = ranks + n * (size_t)(classes - 1);
    size_t n_pairs = 0;
    memmove(from, ranks, n * sizeof *ranks);
    for (size_t i = 0; i < n; i++) {
        const uint64_t p = gfli_rank_index(from[i]);
        const float *x = plane + (size_t)p * (size_t)t->cls->c;
        for (int c = 0; c < classes; c++) {
            const float score = gfli_sigmoid(x[c]);
            if (score > t->opts->min_score && gfli_wants(t->opts->wanted, c))
                ranks[n_pairs++] = gfli_rank(score, p * (uint64_t)classes + (uint64_t)c);
        }
    }
    return n_pairs;
}

/* Locations below the threshold have no pairs and come after all others, so they need no place. */
static void gfli_select_locations(gfli_decode_task *t, int level) {
    const int classes = t->opts->n_classes;
    const size_t points = gfli_decode_points(t->cls, level);
    const float *x = gfli_decode_plane(t->cls, level, t->index);
    const bool cut = points > (size_t)t->opts->max_per_level;
    /* uncut, one more than there can be: a full selection would lose its order */
    gfli_selection s =
        gfli_selection_make(t, level, cut ? (size_t)t->opts->max_per_level : points + 1);
    for (size_t p = 0; p < points; p++, x += (size_t)t->cls->c) {
        if (!gfli_any_above(x, classes, s.bound)) continue;
        gfli_select(&s, gfli_best_wanted(x, classes, t->opts->wanted), p);
    }
    if (cut) gfli_sort_ranks(s.ranks, s.n);
    t->counts[level] = (int)gfli_select_classes(t, level, s.n);
}

static void gfli_select_level(void *arg, int level, int slot) {
    gfli_decode_task *t = (gfli_decode_task *)arg;
    (void)slot;
    if (t->opts->by_location)
        gfli_select_locations(t, level);
    else
        gfli_select_pairs(t, level);
}

/* ---- boxes ----------------------------------------------------------------------------------- */

enum { GFLI_DECODE_BOXES = 32 };

static void gfli_decode_pair(const gfli_decode_task *t, int level, uint64_t rank,
                             gfli_decoded *out) {
    const gfli_decode_opts *o = t->opts;
    const uint64_t index = gfli_rank_index(rank), cell = index / (uint64_t)o->n_classes;
    const float *logits =
        gfli_decode_plane(t->reg, level, t->index) + (size_t)cell * (size_t)t->reg->c;
    float p[GFL_MAX_BINS];
    out->level = level;
    out->y = (int)(cell / (uint64_t)t->cls->w[level]);
    out->x = (int)(cell % (uint64_t)t->cls->w[level]);
    gfli_box_around(out->x, out->y, logits, o->n_bins, p, o->stride[level], o->inclusive,
                    o->width - o->inclusive, o->height - o->inclusive, &out->detection);
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

static size_t gfli_decode_scratch_cpu(const gfli_map *cls, const gfli_decode_opts *opts) {
    return gfli_all_candidates(cls, opts) * (sizeof(uint64_t) + sizeof(gfli_decoded)) +
           (size_t)gfli_most_detections(cls, opts) *
               (sizeof(int) + GFLI_NMS_FLOATS * sizeof(float));
}

/* To the pixels of the original image; boxes without area go (of pixels, each has one).  Returns
 * how many stay. */
static int gfli_rescale_boxes(const gfli_decode_opts *opts, gfli_decoded *boxes, int n) {
    const float x = gfli_rescale_factor(opts->divide, opts->scale_x);
    const float y = gfli_rescale_factor(opts->divide, opts->scale_y);
    int kept = 0;
    for (int i = 0; i < n; i++) {
        gfli_decoded b = boxes[i];
        gfli_rescale_box(&b.detection, x, y, opts->divide);
        if (gfli_has_area(&b.detection, (float)opts->inclusive)) boxes[kept++] = b;
    }
    return kept;
}

static int gfli_decode_image(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                             int index, const gfli_decode_opts *opts, gfli_decoded *out,
                             void *scratch) {
    const size_t most = gfli_all_candidates(cls, opts);
    uint64_t *ranks = (uint64_t *)scratch;
    gfli_decoded *boxes = (gfli_decoded *)(void *)(ranks + most);
    float *moved = (float *)(void *)(boxes + most);
    const int max_keep = gfli_most_detections(cls, opts);
    int *keep = (int *)(void *)(moved + (size_t)max_keep * GFLI_NMS_FLOATS);
    int counts[GFL_LEVELS];
    int n = gfli_candidates(context, cls, reg, index, opts, boxes, counts, ranks);
    n = gfli_rescale_boxes(opts, boxes, n);
    n = gfli_nms(boxes, n, opts, max_keep, keep, ranks, moved);
    for (int i = 0; i < n; i++) out[i] = boxes[keep[i]];
    return n;
}

static void gfli_decode_cpu(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                            const gfli_decode_opts *opts, const gfli_found *out, void *scratch) {
    const size_t c = (size_t)reg->c;
    for (int image = 0; image < cls->n; image++) {
        const size_t first = (size_t)image * (size_t)out->most;
        const gfli_decoded *at = out->items + first;
        const int n =
            gfli_decode_image(context, cls, reg, image, &opts[image], out->items + first, scratch);
        out->count[image] = n;
        for (int i = 0; i < n && out->logits; i++) {
            const size_t cell = (size_t)at[i].y * (size_t)reg->w[at[i].level] + (size_t)at[i].x;
            memcpy(out->logits + (first + (size_t)i) * c,
                   gfli_decode_plane(reg, at[i].level, image) + cell * c, c * sizeof(float));
        }
    }
}
