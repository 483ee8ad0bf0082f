/* norm.c - GroupNorm with ReLU, statistics per image and level; the level scales */
#pragma once

/* Statistics are gathered over GFLI_NORM_POINTS positions at a time, few enough to be in the cache
 * when their mean is known and the squares around it are summed; the parts are merged in double. */
enum { GFLI_NORM_POINTS = 64, GFLI_NORM_CHANNELS = 64, GFLI_NORM_BLOCK = 32 };

/* How many values a group has so far, their mean and the sum of squares around it. */
typedef struct gfli_moments {
    double n, mean, squares;
} gfli_moments;

static void gfli_merge_moments(gfli_moments *a, double n, double mean, double squares) {
    const double total = a->n + n, d = mean - a->mean;
    a->mean += d * n / total;
    a->squares += squares + d * d * a->n * n / total;
    a->n = total;
}

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

typedef struct gfli_norm_task {
    const gfli_map *x, *y;
    int groups, blocks; /* blocks of groups: one task each per level and image */
    float eps;
    const float *gamma, *beta;
    float *stats;
} gfli_norm_task;

/* Channels [from, from + width) of one image of one level, and where its statistics go. */
typedef struct gfli_norm_part {
    const float *x;
    float *y, *stats;
    size_t c, points;
    int from, width, per_group;
} gfli_norm_part;

static gfli_norm_part gfli_norm_find(const gfli_norm_task *t, int task) {
    const gfli_map *x = t->x;
    const int plane = task / t->blocks, block = task % t->blocks;
    const int level = plane / x->n, image = plane % x->n;
    const int first = (int)((long long)block * t->groups / t->blocks);
    const int last = (int)((long long)(block + 1) * t->groups / t->blocks);
    gfli_norm_part p;
    p.c = (size_t)x->c;
    p.points = (size_t)x->h[level] * (size_t)x->w[level];
    p.per_group = x->c / t->groups;
    p.from = first * p.per_group;
    p.width = (last - first) * p.per_group;
    const size_t at = (gfli_points_before(x, level) + (size_t)image * p.points) * p.c;
    p.x = x->data + at;
    p.y = t->y->data + at;
    p.stats = t->stats + ((size_t)plane * (size_t)t->groups + (size_t)first) * 2;
    return p;
}

/* The moments of up to GFLI_NORM_CHANNELS groups. */
static void gfli_norm_moments(const gfli_norm_part *p, gfli_moments *m) {
    memset(m, 0, (size_t)(p->width / p->per_group) * sizeof *m);
    for (size_t at = 0; at < p->points; at += GFLI_NORM_POINTS) {
        const size_t left = p->points - at;
        const int points = left < GFLI_NORM_POINTS ? (int)left : (int)GFLI_NORM_POINTS;
        const float *x = p->x + at * p->c + p->from;
        if (p->width <= GFLI_NORM_CHANNELS) {
            gfli_add_moments(x, p->c, points, p->width, p->per_group, m);
            continue;
        }
        for (int j = 0; j < p->width; j += GFLI_NORM_CHANNELS) {
            const int width = gfli_min(GFLI_NORM_CHANNELS, p->width - j);
            gfli_add_moments(x + j, p->c, points, width, width, m);
        }
    }
}

static void gfli_norm_apply(const gfli_norm_part *part, const gfli_norm_task *t,
                            const gfli_moments *m, int from, int width) {
    float mean[GFLI_NORM_CHANNELS], scale[GFLI_NORM_CHANNELS], shift[GFLI_NORM_CHANNELS];
    float row[GFLI_NORM_CHANNELS];
    const float *x = part->x + from;
    float *y = part->y + from;
    for (int j = 0; j < width; j++) {
        const int g = (from + j - part->from) / part->per_group;
        const float r = part->stats[2 * g + 1];
        mean[j] = part->stats[2 * g];
        scale[j] = t->gamma[from + j] * r;
        /* What rounding took from the mean, so that a mean far from zero costs nothing. */
        const double lost = m[g].mean - (double)mean[j];
        shift[j] = (float)((double)t->beta[from + j] - lost * (double)scale[j]);
    }
    for (size_t p = 0; p < part->points; p++, x += part->c, y += part->c) {
        /* y may be x: a detour through `row` lets compilers vectorise all the same. */
        for (int j = 0; j < width; j++) {
            const float v = (x[j] - mean[j]) * scale[j] + shift[j];
            row[j] = v < 0.0f ? 0.0f : v;
        }
        memcpy(y, row, (size_t)width * sizeof(float));
    }
}

static void gfli_norm_block(void *arg, int task, int slot) {
    const gfli_norm_task *t = (const gfli_norm_task *)arg;
    const gfli_norm_part p = gfli_norm_find(t, task);
    gfli_moments m[GFLI_NORM_CHANNELS];
    (void)slot;
    gfli_norm_moments(&p, m);
    for (int g = 0; g < p.width / p.per_group; g++) {
        p.stats[2 * g] = (float)m[g].mean;
        p.stats[2 * g + 1] = (float)(1.0 / sqrt(m[g].squares / m[g].n + (double)t->eps));
    }
    for (int j = 0; j < p.width; j += GFLI_NORM_CHANNELS)
        gfli_norm_apply(&p, t, m, p.from + j, gfli_min(GFLI_NORM_CHANNELS, p.width - j));
}

static void gfli_group_norm_cpu(gfl_context *context, const gfli_map *x, int groups, float eps,
                                const float *gamma, const float *beta, const gfli_map *y,
                                float *stats) {
    gfli_norm_task t;
    /* Every block is whole groups: about GFLI_NORM_BLOCK channels, or a single group. */
    const int together = gfli_max(1, GFLI_NORM_BLOCK / (x->c / groups));
    t.x = x;
    t.y = y;
    t.groups = groups;
    t.blocks = gfli_ceil_div(groups, together);
    t.eps = eps;
    t.gamma = gamma;
    t.beta = beta;
    t.stats = stats;
    gfli_parallel_for(context, x->levels * x->n * t.blocks, gfli_norm_block, &t);
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
        t.scale = scale[l];
        t.n = gfli_level_points(x, l) * (size_t)x->c;
        const size_t tasks = (t.n + GFLI_SCALE_FLOATS - 1) / GFLI_SCALE_FLOATS;
        gfli_parallel_for(context, (int)tasks, gfli_scale_part, &t);
    }
}
