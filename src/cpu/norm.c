/* norm.c - GroupNorm with ReLU, statistics per image and level; the level scales */
#pragma once

/* Statistics are gathered over about GFLI_NORM_VALUES values at a time, few enough to be in the
 * cache when their mean is known and the squares around it are summed, then merged in double.
 * A plane (an image of a level) is cut into at most GFLI_NORM_PARTS parts, whatever the threads. */
enum {
    GFLI_NORM_VALUES = 16384,
    GFLI_NORM_CHANNELS = 256,
    GFLI_NORM_PARTS = 16,
    GFLI_NORM_GROUPS = 64
};

static void gfli_sum_channels(const float *GFLI_RESTRICT x, size_t c, int points, int width,
                              float *GFLI_RESTRICT sum) {
    for (int j = 0; j < width; j++) sum[j] = 0.0f;
    for (int p = 0; p < points; p++, x += c) {
        for (int j = 0; j < width; j++) sum[j] += x[j];
    }
}

/* Sums of the distances from a centre and of their squares. */
static void gfli_sum_around(const float *GFLI_RESTRICT x, size_t c, int points, int width,
                            const float *GFLI_RESTRICT centre, float *GFLI_RESTRICT sum,
                            float *GFLI_RESTRICT squares) {
    for (int j = 0; j < width; j++) sum[j] = squares[j] = 0.0f;
    for (int p = 0; p < points; p++, x += c) {
        for (int j = 0; j < width; j++) {
            const float d = x[j] - centre[j];
            sum[j] += d;
            squares[j] += d * d;
        }
    }
}

/* A few positions of `width` channels, which are whole groups or a part of one, into m. */
static void gfli_add_moments(const float *x, size_t c, int points, int width, int per_group,
                             gfli_moments *m) {
    float sum[GFLI_NORM_CHANNELS], centre[GFLI_NORM_CHANNELS], squares[GFLI_NORM_CHANNELS];
    const double n = (double)points * per_group;
    gfli_sum_channels(x, c, points, width, sum);
    for (int from = 0; from < width; from += per_group) {
        double total = 0;
        for (int j = from; j < from + per_group; j++) total += (double)sum[j];
        for (int j = from; j < from + per_group; j++) centre[j] = (float)(total / n);
    }
    /* The first sums are only as good as float32 is far from zero; these are of small numbers. */
    gfli_sum_around(x, c, points, width, centre, sum, squares);
    for (int from = 0; from < width; from += per_group, m++) {
        double off = 0, total = 0;
        for (int j = from; j < from + per_group; j++) {
            off += (double)sum[j];
            total += (double)squares[j];
        }
        off /= n;
        gfli_merge_moments(m, n, (double)centre[from] + off, total - n * off * off);
    }
}

/* One image of one level, and of that up to GFLI_NORM_GROUPS groups. */
typedef struct gfli_norm_task {
    const float *x;
    float *y;
    size_t c, points;
    int width, per_group; /* channels, from x and y on */
    int parts;
    const float *gamma, *beta, *stats;
    gfli_moments m[GFLI_NORM_PARTS][GFLI_NORM_GROUPS]; /* the first row ends as that of all parts */
} gfli_norm_task;

static size_t gfli_norm_part(const gfli_norm_task *t, int part) {
    return t->points * (size_t)part / (size_t)t->parts;
}

/* From channel `from` on, how many to take at once: whole groups, or a part of a wide one. */
static int gfli_norm_span(const gfli_norm_task *t, int from) {
    const int per_group = t->per_group;
    if (per_group > GFLI_NORM_CHANNELS)
        return gfli_min(GFLI_NORM_CHANNELS, per_group - from % per_group);
    return gfli_min(GFLI_NORM_CHANNELS / per_group * per_group, t->width - from);
}

static void gfli_norm_gather(void *arg, int part, int slot) {
    gfli_norm_task *t = (gfli_norm_task *)arg;
    const size_t end = gfli_norm_part(t, part + 1);
    const size_t step = (size_t)gfli_max(16, GFLI_NORM_VALUES / t->width);
    gfli_moments *m = t->m[part];
    (void)slot;
    memset(m, 0, sizeof t->m[part]);
    for (size_t at = gfli_norm_part(t, part); at < end; at += step) {
        const int points = (int)(end - at < step ? end - at : step);
        const float *x = t->x + at * t->c;
        for (int j = 0, n; j < t->width; j += n) {
            n = gfli_norm_span(t, j);
            gfli_add_moments(x + j, t->c, points, n, gfli_min(n, t->per_group),
                             &m[j / t->per_group]);
        }
    }
}

/* Channels [from, from + width) of the positions [at, end). */
static void gfli_norm_channels(const gfli_norm_task *t, size_t at, size_t end, int from,
                               int width) {
    float mean[GFLI_NORM_CHANNELS], scale[GFLI_NORM_CHANNELS], shift[GFLI_NORM_CHANNELS];
    float row[GFLI_NORM_CHANNELS];
    for (int j = 0; j < width; j++) {
        const int g = (from + j) / t->per_group;
        mean[j] = t->stats[2 * g];
        scale[j] = t->gamma[from + j] * t->stats[2 * g + 1];
        /* What rounding took from the mean, so that a mean far from zero costs nothing. */
        const double lost = t->m[0][g].mean - (double)mean[j];
        shift[j] = (float)((double)t->beta[from + j] - lost * (double)scale[j]);
    }
    const float *x = t->x + at * t->c + from;
    float *y = t->y + at * t->c + from;
    for (; at < end; at++, x += t->c, y += t->c) {
        /* y may be x: a detour through `row` lets compilers vectorise all the same. */
        for (int j = 0; j < width; j++) {
            const float v = (x[j] - mean[j]) * scale[j] + shift[j];
            row[j] = v < 0.0f ? 0.0f : v;
        }
        memcpy(y, row, (size_t)width * sizeof(float));
    }
}

static void gfli_norm_apply(void *arg, int part, int slot) {
    const gfli_norm_task *t = (const gfli_norm_task *)arg;
    const size_t at = gfli_norm_part(t, part), end = gfli_norm_part(t, part + 1);
    (void)slot;
    for (int j = 0, n; j < t->width; j += n) {
        n = gfli_norm_span(t, j);
        gfli_norm_channels(t, at, end, j, n);
    }
}

/* t->m is filled; stats gets each group's mean and 1 / deviation. */
static void gfli_norm_finish(gfli_norm_task *t, float eps, float *stats) {
    for (int g = 0; g * t->per_group < t->width; g++) {
        gfli_moments *all = &t->m[0][g];
        for (int part = 1; part < t->parts; part++) {
            const gfli_moments *m = &t->m[part][g];
            gfli_merge_moments(all, m->n, m->mean, m->squares);
        }
        gfli_finish_moments(all, eps, &stats[2 * g]);
    }
    t->stats = stats;
}

static void gfli_group_norm_cpu(gfl_context *context, const gfli_map *x, int groups, float eps,
                                const float *gamma, const float *beta, const gfli_map *y,
                                float *stats, bool given) {
    gfli_norm_task t;
    size_t at = 0;
    (void)given; /* it never is: this backend does not fuse */
    t.c = (size_t)x->c;
    t.per_group = x->c / groups;
    for (int plane = 0; plane < x->levels * x->n; plane++, at += t.points * t.c) {
        const int level = plane / x->n;
        t.points = (size_t)x->h[level] * (size_t)x->w[level];
        const size_t rows = (size_t)x->h[level];
        t.parts = rows < GFLI_NORM_PARTS ? (int)rows : (int)GFLI_NORM_PARTS;
        for (int g = 0, n; g < groups; g += n, stats += 2 * n) {
            n = gfli_min(groups - g, GFLI_NORM_GROUPS);
            const int from = g * t.per_group;
            t.x = x->data + at + from;
            t.y = y->data + at + from;
            t.gamma = gamma + from;
            t.beta = beta + from;
            t.width = n * t.per_group;
            gfli_parallel_for(context, t.parts, gfli_norm_gather, &t);
            gfli_norm_finish(&t, eps, stats);
            gfli_parallel_for(context, t.parts, gfli_norm_apply, &t);
        }
    }
}

/* ---- level scale ----------------------------------------------------------------------------- */

enum { GFLI_SCALE_FLOATS = 65536 };

typedef struct gfli_scale_task {
    const float *x;
    float *y;
    float scale;
    size_t n;
} gfli_scale_task;

static void gfli_scale_part(void *arg, int task, int slot) {
    const gfli_scale_task *t = (const gfli_scale_task *)arg;
    const size_t from = (size_t)task * GFLI_SCALE_FLOATS;
    const size_t end = t->n - from < GFLI_SCALE_FLOATS ? t->n : from + GFLI_SCALE_FLOATS;
    (void)slot;
    const float scale = t->scale, *x = t->x;
    float *y = t->y;
    if (x == y) {
        for (size_t i = from; i < end; i++) y[i] *= scale;
    } else {
        for (size_t i = from; i < end; i++) y[i] = scale * x[i];
    }
}

static void gfli_level_scale_cpu(gfl_context *context, const gfli_map *x, const float *scale,
                                 const gfli_map *y) {
    for (int l = 0; l < x->levels; l++) {
        const size_t at = gfli_points_before(x, l) * (size_t)x->c;
        gfli_scale_task t;
        t.x = x->data + at;
        t.y = y->data + at;
        t.scale = scale[l * GFLI_BLOCK_STEP];
        t.n = gfli_level_points(x, l) * (size_t)x->c;
        const size_t tasks = (t.n + GFLI_SCALE_FLOATS - 1) / GFLI_SCALE_FLOATS;
        gfli_parallel_for(context, (int)tasks, gfli_scale_part, &t);
    }
}
