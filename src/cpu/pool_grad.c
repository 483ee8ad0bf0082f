/* pool_grad.c - gradients of max pooling, nearest upsampling and ReLU */
#pragma once

enum {
    GFLI_POOL_CHANNELS = 16, /* channels a task of max_pool_grad owns */
    GFLI_MAP_CHUNK = 16384   /* floats a task of an element-wise operation owns */
};

/* ---- element by element ---------------------------------------------------------------------- */

typedef struct gfli_map_pair {
    const float *source;
    float *out;
    size_t n;
} gfli_map_pair;

static int gfli_map_chunks(size_t n) {
    return (int)((n + GFLI_MAP_CHUNK - 1) / GFLI_MAP_CHUNK);
}

static size_t gfli_map_chunk(size_t rest) {
    const size_t most = GFLI_MAP_CHUNK;
    return rest < most ? rest : most;
}

static void gfli_relu_grad_chunk(void *arg, int task, int slot) {
    const gfli_map_pair *t = (const gfli_map_pair *)arg;
    const size_t first = (size_t)task * GFLI_MAP_CHUNK;
    const size_t n = gfli_map_chunk(t->n - first);
    const float *GFLI_RESTRICT y = t->source + first;
    float *GFLI_RESTRICT dy = t->out + first;
    (void)slot;
    for (size_t i = 0; i < n; i++) dy[i] = y[i] > 0 ? dy[i] : 0;
}

static void gfli_relu_grad_cpu(gfl_context *context, const gfli_map *y, const gfli_map *dy) {
    gfli_map_pair t = {y->data, dy->data, gfli_map_count(y)};
    gfli_parallel_for(context, gfli_map_chunks(t.n), gfli_relu_grad_chunk, &t);
}

/* ---- max pooling ----------------------------------------------------------------------------- */

/* Windows overlap, so that a task owns a few channels of an image rather than some of its rows. */
typedef struct gfli_pool_grad {
    gfli_map x, dy, dx; /* one level */
    bool accumulate;
} gfli_pool_grad;

static void gfli_pool_grad_window(const gfli_pool_grad *t, int image, int oy, int ox, int first,
                                  int count) {
    const int h = t->x.h[0], w = t->x.w[0], c = t->x.c;
    const int y0 = gfli_max(2 * oy - 1, 0), y1 = gfli_min(2 * oy + 1, h - 1);
    const int x0 = gfli_max(2 * ox - 1, 0), x1 = gfli_min(2 * ox + 1, w - 1);
    const size_t plane = (size_t)image * (size_t)h;
    const float *dy =
        t->dy.data +
        (((size_t)image * (size_t)t->dy.h[0] + (size_t)oy) * (size_t)t->dy.w[0] + (size_t)ox) *
            (size_t)c +
        first;
    float best[GFLI_POOL_CHANNELS];
    size_t winner[GFLI_POOL_CHANNELS];
    for (int y = y0; y <= y1; y++) {
        for (int x = x0; x <= x1; x++) {
            const size_t at =
                ((plane + (size_t)y) * (size_t)w + (size_t)x) * (size_t)c + (size_t)first;
            const bool start = y == y0 && x == x0;
            for (int k = 0; k < count; k++) {
                const float v = t->x.data[at + (size_t)k];
                if (start || v > best[k]) {
                    best[k] = v;
                    winner[k] = at + (size_t)k;
                }
            }
        }
    }
    for (int k = 0; k < count; k++) t->dx.data[winner[k]] += dy[k];
}

static void gfli_pool_grad_do(void *arg, int task, int slot) {
    const gfli_pool_grad *t = (const gfli_pool_grad *)arg;
    const int blocks = gfli_ceil_div(t->x.c, GFLI_POOL_CHANNELS);
    const int image = task / blocks, first = task % blocks * GFLI_POOL_CHANNELS;
    const int count = gfli_min(GFLI_POOL_CHANNELS, t->x.c - first);
    const size_t area = (size_t)t->x.h[0] * (size_t)t->x.w[0];
    (void)slot;
    if (!t->accumulate) {
        float *dx = t->dx.data + (size_t)image * area * (size_t)t->x.c + first;
        for (size_t i = 0; i < area; i++, dx += t->x.c) memset(dx, 0, (size_t)count * sizeof *dx);
    }
    for (int oy = 0; oy < t->dy.h[0]; oy++)
        for (int ox = 0; ox < t->dy.w[0]; ox++)
            gfli_pool_grad_window(t, image, oy, ox, first, count);
}

static void gfli_max_pool_grad_cpu(gfl_context *context, const gfli_map *x, const gfli_map *dy,
                                   bool accumulate, const gfli_map *dx) {
    for (int l = 0; l < x->levels; l++) {
        gfli_pool_grad t;
        t.x = gfli_map_level(x, l);
        t.dy = gfli_map_level(dy, l);
        t.dx = gfli_map_level(dx, l);
        t.accumulate = accumulate;
        gfli_parallel_for(context, x->n * gfli_ceil_div(x->c, GFLI_POOL_CHANNELS),
                          gfli_pool_grad_do, &t);
    }
}

/* ---- nearest upsampling ---------------------------------------------------------------------- */

typedef struct gfli_upsample_grad {
    gfli_map dy, dx; /* one level */
    bool accumulate;
} gfli_upsample_grad;

/* One row of dx, from the rows of dy that were copied from it. */
static void gfli_upsample_grad_row(void *arg, int task, int slot) {
    const gfli_upsample_grad *t = (const gfli_upsample_grad *)arg;
    const int in_h = t->dx.h[0], in_w = t->dx.w[0], out_h = t->dy.h[0], out_w = t->dy.w[0];
    const int c = t->dx.c, image = task / in_h, row = task % in_h;
    float *dx = t->dx.data + (size_t)task * (size_t)in_w * (size_t)c;
    (void)slot;
    if (!t->accumulate) memset(dx, 0, (size_t)in_w * (size_t)c * sizeof *dx);
    for (int y = 0; y < out_h; y++) {
        if (gfli_nearest(y, in_h, out_h) != row) continue;
        const float *dy =
            t->dy.data + ((size_t)image * (size_t)out_h + (size_t)y) * (size_t)out_w * (size_t)c;
        for (int x = 0; x < out_w; x++, dy += c) {
            float *d = dx + (size_t)gfli_nearest(x, in_w, out_w) * (size_t)c;
            for (int k = 0; k < c; k++) d[k] += dy[k];
        }
    }
}

static void gfli_upsample_grad_cpu(gfl_context *context, const gfli_map *dy, bool accumulate,
                                   const gfli_map *dx) {
    for (int l = 0; l < dx->levels; l++) {
        gfli_upsample_grad t;
        t.dy = gfli_map_level(dy, l);
        t.dx = gfli_map_level(dx, l);
        t.accumulate = accumulate;
        gfli_parallel_for(context, dx->n * dx->h[l], gfli_upsample_grad_row, &t);
    }
}
