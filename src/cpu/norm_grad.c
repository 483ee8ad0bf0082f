/* norm_grad.c - gradients of group normalisation with its ReLU, and of the level scales */
#pragma once

/* Wu and He, "Group Normalization", ECCV 2018, arXiv:1803.08494 */

enum {
    GFLI_GN_ROWS = 128, /* positions whose sums are kept in float before they go to double */
    GFLI_GN_CHANNELS = 64,
    GFLI_SCALE_PARTS = 64 /* parts of a level's sum: fixed, so that threads change nothing */
};

typedef struct gfli_gn_grad {
    const gfli_map *x, *y, *dy, *dx;
    int groups;
    const float *gamma, *stats;
    int n_tasks[GFL_LEVELS]; /* chunks of one image of a level */
    float *partial;          /* [task][2][c]: sums of g and of g * (x - mean), g = dy where y > 0 */
    double *sums;            /* [level][n][2][c]: of g and of g * xhat, of the whole image */
    float *coef;             /* [level][n][4][c]: dx = c0 * g + c1 * (x - c3) + c2 */
} gfli_gn_grad;

/* Chunk `task` is of which level, image and positions? */
typedef struct gfli_gn_chunk {
    int plane; /* level * n + image */
    size_t first;
    int rows;
} gfli_gn_chunk;

static gfli_gn_chunk gfli_gn_find(const gfli_gn_grad *t, int task) {
    gfli_gn_chunk chunk;
    int level = 0;
    while (task >= t->n_tasks[level] * t->x->n) task -= t->n_tasks[level++] * t->x->n;
    const int image = task / t->n_tasks[level], at = task % t->n_tasks[level];
    const int area = t->x->h[level] * t->x->w[level];
    chunk.plane = level * t->x->n + image;
    chunk.first =
        gfli_points_before(t->x, level) + (size_t)image * (size_t)area + (size_t)at * GFLI_GN_ROWS;
    chunk.rows = gfli_min(GFLI_GN_ROWS, area - at * GFLI_GN_ROWS);
    return chunk;
}

/* dy where y > 0, else 0: by a mask, because compilers do not vectorise the branch. */
static inline float gfli_relu_pass(float y, float dy) {
    uint32_t bits;
    memcpy(&bits, &dy, sizeof bits);
    bits &= 0u - (uint32_t)(y > 0);
    memcpy(&dy, &bits, sizeof dy);
    return dy;
}

/* Sums over one chunk, of g and of g * (x - mean); the deviation follows once per group. */
static void gfli_gn_grad_sums(void *arg, int task, int slot) {
    const gfli_gn_grad *t = (const gfli_gn_grad *)arg;
    const gfli_gn_chunk chunk = gfli_gn_find(t, task);
    const int c = t->x->c;
    float *partial = t->partial + (size_t)task * 2 * (size_t)c;
    const float *mean = t->coef + ((size_t)chunk.plane * 4 + 3) * (size_t)c;
    const size_t at = chunk.first * (size_t)c;
    const float *x = t->x->data + at, *y = t->y->data + at, *dy = t->dy->data + at;
    (void)slot;
    memset(partial, 0, 2 * (size_t)c * sizeof *partial);
    float *GFLI_RESTRICT s0 = partial;
    float *GFLI_RESTRICT s1 = partial + c;
    for (int i = 0; i < chunk.rows; i++, x += c, y += c, dy += c) {
        for (int k = 0; k < c; k++) {
            const float g = gfli_relu_pass(y[k], dy[k]);
            s0[k] += g;
            s1[k] += g * (x[k] - mean[k]);
        }
    }
}

/* From the sums of one image of one level to what its dx needs. */
static void gfli_gn_grad_plane(void *arg, int plane, int slot) {
    const gfli_gn_grad *t = (const gfli_gn_grad *)arg;
    const int n = t->x->n, c = t->x->c, level = plane / n, width = c / t->groups;
    int first = plane % n * t->n_tasks[level];
    for (int l = 0; l < level; l++) first += n * t->n_tasks[l];
    double *s0 = t->sums + (size_t)plane * 2 * (size_t)c, *s1 = s0 + c;
    float *coef = t->coef + (size_t)plane * 4 * (size_t)c;
    (void)slot;
    memset(s0, 0, 2 * (size_t)c * sizeof *s0);
    for (int i = 0; i < t->n_tasks[level]; i++) {
        const float *p = t->partial + (size_t)(first + i) * 2 * (size_t)c;
        for (int k = 0; k < 2 * c; k++) s0[k] += (double)p[k];
    }
    const double count = (double)width * t->x->h[level] * t->x->w[level];
    for (int group = 0; group < t->groups; group++) {
        const double r =
            (double)t->stats[((size_t)plane * (size_t)t->groups + (size_t)group) * 2 + 1];
        double m0 = 0, m1 = 0;
        for (int k = group * width; k < (group + 1) * width; k++) {
            s1[k] *= r;
            m0 += (double)t->gamma[k] * s0[k];
            m1 += (double)t->gamma[k] * s1[k];
        }
        for (int k = group * width; k < (group + 1) * width; k++) {
            coef[k] = (float)(r * (double)t->gamma[k]);
            coef[c + k] = (float)(-r * r * m1 / count);
            coef[2 * c + k] = (float)(-r * m0 / count);
        }
    }
}

static void gfli_gn_grad_apply(void *arg, int task, int slot) {
    const gfli_gn_grad *t = (const gfli_gn_grad *)arg;
    const gfli_gn_chunk chunk = gfli_gn_find(t, task);
    const int c = t->x->c;
    const float *c0 = t->coef + (size_t)chunk.plane * 4 * (size_t)c;
    const float *c1 = c0 + c, *c2 = c1 + c, *mean = c2 + c;
    const size_t at = chunk.first * (size_t)c;
    const float *x = t->x->data + at, *y = t->y->data + at, *dy = t->dy->data + at;
    float *dx = t->dx->data + at;
    (void)slot;
    for (int i = 0; i < chunk.rows; i++, x += c, y += c, dy += c, dx += c) {
        for (int first = 0; first < c; first += GFLI_GN_CHANNELS) {
            const int last = gfli_min(first + GFLI_GN_CHANNELS, c);
            float out[GFLI_GN_CHANNELS]; /* dx may be dy: a copy lets the compiler vectorise */
            for (int k = first; k < last; k++) {
                const float g = gfli_relu_pass(y[k], dy[k]);
                out[k - first] = c0[k] * g + (c1[k] * (x[k] - mean[k]) + c2[k]);
            }
            memcpy(dx + first, out, (size_t)(last - first) * sizeof *dx);
        }
    }
}

static size_t gfli_group_norm_grad_scratch_cpu(const gfl_context *context, const gfli_map *x) {
    const size_t c = (size_t)x->c, planes = (size_t)(x->levels * x->n);
    size_t tasks = 0;
    (void)context;
    for (int l = 0; l < x->levels; l++)
        tasks += (size_t)(x->n * gfli_ceil_div(x->h[l] * x->w[l], GFLI_GN_ROWS));
    return planes * 2 * c * sizeof(double) + (planes * 4 + tasks * 2) * c * sizeof(float);
}

static void gfli_group_norm_grad_cpu(gfl_context *context, const gfli_map *x, const gfli_map *y,
                                     int groups, const float *gamma, const float *stats,
                                     const gfli_map *dy, const gfli_map *dx, float *dgamma,
                                     float *dbeta, void *scratch) {
    const int c = x->c, planes = x->levels * x->n, width = c / groups;
    gfli_gn_grad t;
    int tasks = 0;
    memset(&t, 0, sizeof t);
    t.x = x;
    t.y = y;
    t.dy = dy;
    t.dx = dx;
    t.groups = groups;
    t.gamma = gamma;
    t.stats = stats;
    for (int l = 0; l < x->levels; l++) {
        t.n_tasks[l] = gfli_ceil_div(x->h[l] * x->w[l], GFLI_GN_ROWS);
        tasks += t.n_tasks[l] * x->n;
    }
    t.sums = (double *)scratch;
    t.coef = (float *)(t.sums + (size_t)planes * 2 * (size_t)c);
    t.partial = t.coef + (size_t)planes * 4 * (size_t)c;
    for (int p = 0; p < planes; p++)
        for (int k = 0; k < c; k++)
            t.coef[((size_t)p * 4 + 3) * (size_t)c + (size_t)k] =
                stats[((size_t)p * (size_t)groups + (size_t)(k / width)) * 2];
    gfli_parallel_for(context, tasks, gfli_gn_grad_sums, &t);
    gfli_parallel_for(context, planes, gfli_gn_grad_plane, &t);
    gfli_parallel_for(context, tasks, gfli_gn_grad_apply, &t);
    for (int k = 0; k < c; k++) {
        double beta = 0, scale = 0;
        for (int p = 0; p < planes; p++) {
            beta += t.sums[(size_t)p * 2 * (size_t)c + (size_t)k];
            scale += t.sums[((size_t)p * 2 + 1) * (size_t)c + (size_t)k];
        }
        dbeta[k] = (float)beta;
        dgamma[k] = (float)scale;
    }
}

/* ---- level scales ---------------------------------------------------------------------------- */

typedef struct gfli_scale_grad {
    const gfli_map *x, *dy, *dx;
    const float *scale;
    double sums[GFL_LEVELS][GFLI_SCALE_PARTS];
} gfli_scale_grad;

static void gfli_scale_grad_part(void *arg, int task, int slot) {
    gfli_scale_grad *t = (gfli_scale_grad *)arg;
    const int level = task / GFLI_SCALE_PARTS, part = task % GFLI_SCALE_PARTS;
    const size_t n = gfli_level_points(t->x, level) * (size_t)t->x->c;
    const size_t first = n * (size_t)part / GFLI_SCALE_PARTS;
    const size_t last = n * (size_t)(part + 1) / GFLI_SCALE_PARTS;
    const size_t before = gfli_points_before(t->x, level) * (size_t)t->x->c;
    const float *x = t->x->data + before, *dy = t->dy->data + before;
    float *dx = t->dx->data + before;
    const float scale = t->scale[level * GFLI_BLOCK_STEP];
    double sum[4] = {0, 0, 0, 0}; /* four, so that additions need not wait for one another */
    size_t i = first;
    (void)slot;
    for (; i + 4 <= last; i += 4) {
        float out[4]; /* dx may be dy */
        for (int k = 0; k < 4; k++) {
            sum[k] += (double)x[i + (size_t)k] * (double)dy[i + (size_t)k];
            out[k] = scale * dy[i + (size_t)k];
        }
        memcpy(dx + i, out, sizeof out);
    }
    for (; i < last; i++) {
        sum[0] += (double)x[i] * (double)dy[i];
        dx[i] = scale * dy[i];
    }
    t->sums[level][part] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void gfli_level_scale_grad_cpu(gfl_context *context, const gfli_map *x, const float *scale,
                                      const gfli_map *dy, const gfli_map *dx, float *dscale) {
    gfli_scale_grad t;
    t.x = x;
    t.dy = dy;
    t.dx = dx;
    t.scale = scale;
    gfli_parallel_for(context, x->levels * GFLI_SCALE_PARTS, gfli_scale_grad_part, &t);
    for (int l = 0; l < x->levels; l++) {
        double sum = 0;
        for (int p = 0; p < GFLI_SCALE_PARTS; p++) sum += t.sums[l][p];
        dscale[l * GFLI_BLOCK_STEP] = (float)sum;
    }
}
