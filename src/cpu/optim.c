/* optim.c - the extent of gradients and parameters, and stochastic gradient descent */
#pragma once

enum {
    GFLI_SGD_CHUNK = 16384,
    GFLI_MEASURE_PARTS = 256 /* at most; fixed by n alone, so that threads change nothing */
};

typedef struct gfli_measure {
    const float *x;
    size_t n;
    int parts;
    double sums[GFLI_MEASURE_PARTS];
    int32_t largest[GFLI_MEASURE_PARTS]; /* magnitudes' bits, which order them, NaN above all */
} gfli_measure;

static inline int32_t gfli_larger_bits(int32_t a, float x) {
    int32_t b;
    memcpy(&b, &x, sizeof b);
    b &= INT32_MAX;
    return a > b ? a : b;
}

static void gfli_measure_part(void *arg, int part, int slot) {
    gfli_measure *t = (gfli_measure *)arg;
    const size_t chunk = t->n / (size_t)t->parts, rest = t->n % (size_t)t->parts;
    const size_t first = chunk * (size_t)part + (size_t)gfli_min(part, (int)rest);
    const size_t last = first + chunk + ((size_t)part < rest ? 1 : 0);
    const float *x = t->x;
    double sum[4] = {0, 0, 0, 0}; /* four, so that additions need not wait for one another */
    int32_t largest[4] = {0, 0, 0, 0};
    size_t i = first;
    (void)slot;
    for (; i + 4 <= last; i += 4)
        for (int k = 0; k < 4; k++) {
            const float value = x[i + (size_t)k];
            sum[k] += (double)value * (double)value;
            largest[k] = gfli_larger_bits(largest[k], value);
        }
    for (; i < last; i++) {
        sum[0] += (double)x[i] * (double)x[i];
        largest[0] = gfli_larger_bits(largest[0], x[i]);
    }
    t->sums[part] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    t->largest[part] = gfli_max(gfli_max(largest[0], largest[1]), gfli_max(largest[2], largest[3]));
}

static void gfli_measure_cpu(gfl_context *context, const float *x, size_t n, gfli_extent *out) {
    gfli_measure t;
    int32_t largest = 0;
    const size_t parts = (n + GFLI_SGD_CHUNK - 1) / GFLI_SGD_CHUNK;
    t.x = x;
    t.n = n;
    t.parts = parts < GFLI_MEASURE_PARTS ? (int)parts : (int)GFLI_MEASURE_PARTS;
    gfli_parallel_for(context, t.parts, gfli_measure_part, &t);
    out->squares = 0;
    for (int p = 0; p < t.parts; p++) {
        out->squares += t.sums[p];
        largest = gfli_max(largest, t.largest[p]);
    }
    memcpy(&out->largest, &largest, sizeof largest);
}

typedef struct gfli_sgd {
    float *p, *v;
    const float *g;
    size_t n;
    float lr, momentum, decay, clip;
} gfli_sgd;

static void gfli_sgd_chunk(void *arg, int task, int slot) {
    const gfli_sgd *t = (const gfli_sgd *)arg;
    const size_t first = (size_t)task * GFLI_SGD_CHUNK;
    const size_t rest = t->n - first, most = GFLI_SGD_CHUNK, n = rest < most ? rest : most;
    float *GFLI_RESTRICT p = t->p + first;
    float *GFLI_RESTRICT v = t->v + first;
    const float *GFLI_RESTRICT g = t->g + first;
    const float lr = t->lr, momentum = t->momentum, decay = t->decay, clip = t->clip;
    (void)slot;
    for (size_t i = 0; i < n; i++) {
        const float buffer = momentum * v[i] + (clip * g[i] + decay * p[i]);
        v[i] = buffer;
        p[i] -= lr * buffer;
    }
}

static void gfli_sgd_cpu(gfl_context *context, float *p, float *v, const float *g, size_t n,
                         double lr, double momentum, double decay, double clip, bool first) {
    gfli_sgd t = {p, v, g, n, (float)lr, (float)momentum, (float)decay, (float)clip};
    /* Whatever v holds before the first step must not count, not even a NaN. */
    if (first && n) memset(v, 0, n * sizeof *v);
    gfli_parallel_for(context, (int)((n + GFLI_SGD_CHUNK - 1) / GFLI_SGD_CHUNK), gfli_sgd_chunk,
                      &t);
}
