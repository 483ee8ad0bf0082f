/* optim.c - sums of gradients, what stands against an update, and stochastic gradient descent */
#pragma once

enum {
    GFLI_SGD_CHUNK = 16384,
    GFLI_MEASURE_PARTS = 256 /* at most; fixed by n alone, so that threads change nothing */
};

/* How large numbers are. */
typedef struct gfli_extent {
    double squares; /* their sum, in double, in a fixed order */
    float largest;  /* magnitude; NaN counts as more than infinity; 0 of none */
} gfli_extent;

typedef struct gfli_measure {
    const float *x;
    size_t n;
    int parts;
    double sums[GFLI_MEASURE_PARTS];
    int32_t largest[GFLI_MEASURE_PARTS]; /* magnitudes' bits, which order them, NaN above all */
} gfli_measure;

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

static gfli_extent gfli_measure_of(gfl_context *context, const float *x, size_t n) {
    gfli_extent extent;
    gfli_measure t;
    int32_t largest = 0;
    const size_t parts = (n + GFLI_SGD_CHUNK - 1) / GFLI_SGD_CHUNK;
    t.x = x;
    t.n = n;
    t.parts = parts < GFLI_MEASURE_PARTS ? (int)parts : (int)GFLI_MEASURE_PARTS;
    gfli_parallel_for(context, t.parts, gfli_measure_part, &t);
    extent.squares = 0;
    for (int p = 0; p < t.parts; p++) {
        extent.squares += t.sums[p];
        largest = gfli_max(largest, t.largest[p]);
    }
    memcpy(&extent.largest, &largest, sizeof largest);
    return extent;
}

/* ---- may it be done? ------------------------------------------------------------------------- */

static int gfli_bad_gradient(gfl_context *context, const gfli_update *u) {
    for (int i = 0; i < u->n_parts; i++) {
        const gfli_update_part *part = &u->parts[i];
        const gfli_extent g = gfli_measure_of(context, u->gradients + part->first, part->count);
        if (!gfli_is_finite(g.largest)) return i;
    }
    return -1;
}

/* Does part i stay finite?  largest: the largest gradient of all parts, which settles most
 * cases. */
static bool gfli_part_fits(gfl_context *context, const gfli_update *u, int i, double largest,
                           gfli_verdict *out) {
    const gfli_update_part *part = &u->parts[i];
    const size_t old = u->first ? 0 : part->count;
    const double p = (double)gfli_measure_of(context, u->params + part->first, part->count).largest;
    const double v = (double)gfli_measure_of(context, u->momentum + part->first, old).largest;
    double g = out->share * largest;
    if (gfli_update_fits(u, part, p, v, g)) {
        if (p > out->parameter) out->parameter = p;
        if (v > out->momentum) out->momentum = v;
        return true;
    }
    g = out->share *
        (double)gfli_measure_of(context, u->gradients + part->first, part->count).largest;
    if (gfli_update_fits(u, part, p, v, g)) return true;
    out->parameter = p;
    out->momentum = v;
    out->gradient = g;
    out->where = i;
    out->fault = !gfli_is_finite(p)   ? GFLI_FAULT_PARAMETER
                 : !gfli_is_finite(v) ? GFLI_FAULT_MOMENTUM
                                      : GFLI_FAULT_OVERFLOW;
    return false;
}

static void gfli_check_update_cpu(gfl_context *context, const gfli_update *u, gfli_verdict *out) {
    const gfli_extent all = gfli_measure_of(context, u->gradients, u->n);
    memset(out, 0, sizeof *out);
    out->share = u->share;
    out->norm = u->share * (sqrt)(all.squares);
    out->fault = gfli_bad_batch(u, &out->where);
    if (out->fault != GFLI_FAULT_NONE) return;
    if (!gfli_is_finite(out->norm)) {
        out->fault = GFLI_FAULT_GRADIENT;
        out->where = gfli_bad_gradient(context, u);
        return;
    }
    if (u->clip > 0 && out->norm > u->clip) out->share *= u->clip / (out->norm + 1e-6);
    out->gradient = out->share * (double)all.largest;
    for (int i = 0; i < u->n_parts; i++)
        if (!gfli_part_fits(context, u, i, (double)all.largest, out)) return;
}

/* ---- the update ------------------------------------------------------------------------------ */

typedef struct gfli_sgd {
    float *p, *v;
    const float *g;
    size_t n;
    float lr, momentum, decay, share;
} gfli_sgd;

static void gfli_sgd_chunk(void *arg, int task, int slot) {
    const gfli_sgd *t = (const gfli_sgd *)arg;
    const size_t first = (size_t)task * GFLI_SGD_CHUNK;
    const size_t rest = t->n - first, most = GFLI_SGD_CHUNK, n = rest < most ? rest : most;
    float *GFLI_RESTRICT p = t->p + first;
    float *GFLI_RESTRICT v = t->v + first;
    const float *GFLI_RESTRICT g = t->g + first;
    const float lr = t->lr, momentum = t->momentum, decay = t->decay, share = t->share;
    (void)slot;
    for (size_t i = 0; i < n; i++) gfli_sgd_step(&p[i], &v[i], g[i], lr, momentum, decay, share);
}

static void gfli_update_cpu(gfl_context *context, const gfli_update *u,
                            const gfli_verdict *verdict) {
    if (verdict->fault != GFLI_FAULT_NONE) return;
    /* Whatever momentum holds before the first step must not count, not even a NaN. */
    if (u->first && u->n) memset(u->momentum, 0, u->n * sizeof *u->momentum);
    for (int i = 0; i < u->n_parts; i++) {
        const gfli_update_part *part = &u->parts[i];
        gfli_sgd t = {u->params + part->first,         u->momentum + part->first,
                      u->gradients + part->first,      part->count,
                      (float)(u->lr * part->lr),       (float)u->momentum_factor,
                      (float)(u->decay * part->decay), (float)verdict->share};
        gfli_parallel_for(context, (int)((t.n + GFLI_SGD_CHUNK - 1) / GFLI_SGD_CHUNK),
                          gfli_sgd_chunk, &t);
    }
}

typedef struct gfli_accumulate_task {
    float *sum;
    const float *x;
    size_t n;
} gfli_accumulate_task;

static void gfli_accumulate_chunk(void *arg, int task, int slot) {
    const gfli_accumulate_task *t = (const gfli_accumulate_task *)arg;
    const size_t first = (size_t)task * GFLI_SGD_CHUNK;
    const size_t last = t->n - first < GFLI_SGD_CHUNK ? t->n : first + GFLI_SGD_CHUNK;
    (void)slot;
    for (size_t i = first; i < last; i++) t->sum[i] += t->x[i];
}

static void gfli_accumulate_cpu(gfl_context *context, float *sum, const float *x, size_t n) {
    gfli_accumulate_task t = {sum, x, n};
    gfli_parallel_for(context, (int)((n + GFLI_SGD_CHUNK - 1) / GFLI_SGD_CHUNK),
                      gfli_accumulate_chunk, &t);
}
