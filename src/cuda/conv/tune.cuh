/* tune.cuh - the fastest kernel of a convolution, found by running those that apply */
#pragma once

/* A convolution is timed once a context, when a plan first has it, on random numbers in memory of
 * its own: multiplying zeros takes less power, and so runs at another clock.  What is measured
 * twice may differ: results are the same bits within a context, not between two. */

enum { GFLI_TUNE_WARM = 2, GFLI_TUNE_RUNS = 5 };

/* What the time depends on; compared as bytes. */
typedef struct gfli_tune_key {
    gfli_conv_shape shape;
    int n_sides, out_c[GFLI_CONV_SIDES];
    int n, levels, h[GFL_LEVELS], w[GFL_LEVELS];
    int element, offset_c, norm_width, relu, wide, residual;
} gfli_tune_key;

typedef struct gfli_tuned {
    gfli_tune_key key;
    gfli_conv_choice choice;
} gfli_tuned;

static gfli_tune_key gfli_tune_key_of(const gfli_conv_request *r, bool residual) {
    gfli_tune_key k;
    memset(&k, 0, sizeof k);
    k.shape = *r->shape;
    k.n_sides = r->n_sides;
    memcpy(k.out_c, r->out_c, sizeof k.out_c);
    k.n = r->x->n;
    k.levels = r->x->levels;
    memcpy(k.h, r->x->h, (size_t)k.levels * sizeof *k.h);
    memcpy(k.w, r->x->w, (size_t)k.levels * sizeof *k.w);
    k.element = r->element;
    k.offset_c = r->offset_c;
    k.norm_width = r->norm_width;
    k.relu = r->relu;
    k.wide = r->wide;
    k.residual = residual;
    return k;
}

static bool gfli_tune_recall(const gfli_cuda *d, const gfli_tune_key *key, gfli_conv_choice *out) {
    for (size_t i = 0; i < d->n_tuned; i++) {
        if (memcmp(&d->tuned[i].key, key, sizeof *key) != 0) continue;
        *out = d->tuned[i].choice;
        return true;
    }
    return false;
}

/* ---- operands -------------------------------------------------------------------------------- */

/* Operands in one piece of memory; with base NULL it only measures.  Returns the bytes. */
static size_t gfli_tune_operands(const gfli_conv_request *r, bool residual, size_t scratch,
                                 unsigned char *base, gfli_conv_operands sides[GFLI_CONV_SIDES],
                                 void **out_scratch) {
    gfli_cutter c = {base, 0};
    const size_t size = r->element == GFLI_MAP_F32 ? 4 : 2;
    size_t points = 0;
    for (int l = 0; l < r->x->levels; l++)
        points += (size_t)r->x->n * (size_t)gfli_conv_out(r->shape, r->x->h[l]) *
                  (size_t)gfli_conv_out(r->shape, r->x->w[l]);
    memset(sides, 0, GFLI_CONV_SIDES * sizeof *sides);
    for (int i = 0; i < r->n_sides; i++) {
        const size_t out_c = (size_t)r->out_c[i];
        gfli_conv_shape own = *r->shape;
        own.out_c = r->out_c[i];
        sides[i].x = gfli_cut(&c, gfli_map_bytes(r->x));
        sides[i].packing = gfli_cut(&c, gfli_conv_tensor_packed_size(&own, r->element));
        sides[i].bias = (const float *)gfli_cut(&c, out_c * sizeof(float));
        sides[i].y = gfli_cut(&c, points * out_c * (r->wide ? 4 : size));
        if (residual) sides[i].residual = gfli_cut(&c, points * out_c * size);
        if (r->offset_c > 0)
            sides[i].offset =
                (const float *)gfli_cut(&c, points * (size_t)r->offset_c * sizeof(float));
        if (r->norm_width > 0)
            sides[i].stats = (float *)gfli_cut(&c, (size_t)(r->x->levels * r->x->n) * out_c /
                                                       (size_t)r->norm_width * 2 * sizeof(float));
    }
    *out_scratch = gfli_cut(&c, scratch);
    return c.used;
}

/* Bits that are numbers of both signs whatever the element: 1 to 2 in fp16; of all sizes from 2^-7
 * to 2 in bf16 and float, so that deformable samples lie where real ones do. */
static __global__ void gfli_tune_fill_kernel(unsigned *to, size_t n) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        unsigned bits = (unsigned)i * 0x9e3779b1u;
        bits = (bits ^ bits >> 15) * 0x85ebca77u;
        bits = (bits ^ bits >> 13) * 0xc2b2ae3du;
        to[i] = ((bits ^ bits >> 16) & 0x83ff83ffu) | 0x3c003c00u;
    }
}

static cudaError_t gfli_tune_fill(const gfli_cuda *d, void *memory, size_t bytes) {
    GFLI_LAUNCH((gfli_tune_fill_kernel), 8u * (unsigned)d->conv.n_sms, GFLI_THREADS, 0, d->stream,
                (unsigned *)memory, bytes / sizeof(unsigned));
    return cudaGetLastError();
}

/* ---- timing ---------------------------------------------------------------------------------- */

/* Milliseconds of GFLI_TUNE_RUNS runs, or a negative number. */
static float gfli_tune_time(const gfli_cuda *d, const gfli_conv_request *r, gfli_conv_choice choice,
                            const gfli_conv_operands *sides, void *scratch,
                            const cudaEvent_t events[2]) {
    float ms = -1.0f;
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < GFLI_TUNE_WARM + GFLI_TUNE_RUNS && e == cudaSuccess; i++) {
        if (i == GFLI_TUNE_WARM) e = cudaEventRecord(events[0], d->stream);
        if (e == cudaSuccess)
            e = gfli_conv_tensor_run(d->stream, &d->conv, r, choice, sides, GFLI_NORM_EPS,
                                     scratch);
    }
    if (e == cudaSuccess) e = cudaEventRecord(events[1], d->stream);
    if (e == cudaSuccess) e = cudaEventSynchronize(events[1]);
    if (e == cudaSuccess) e = cudaEventElapsedTime(&ms, events[0], events[1]);
    return e == cudaSuccess ? ms : -1.0f;
}

/* Candidates: of every variant that applies, what the model thinks best, and no splits. */
static int gfli_tune_candidates(const gfli_conv_request *r, const gfli_conv_device *device,
                                gfli_conv_choice out[2 * GFLI_CONV_VARIANTS]) {
    int n = 0;
    for (int variant = 0; variant < GFLI_CONV_VARIANTS; variant++) {
        gfli_conv_choice choice;
        if (!gfli_conv_choose(r, device, variant, &choice)) continue;
        out[n++] = choice;
        if (choice.splits == 1) continue;
        choice.splits = 1;
        out[n++] = choice;
    }
    return n;
}

static bool gfli_tune_race(gfl_context *context, const gfli_conv_request *r, bool residual,
                           gfli_conv_choice *out) {
    gfli_conv_choice candidates[2 * GFLI_CONV_VARIANTS];
    gfli_conv_operands sides[GFLI_CONV_SIDES];
    const gfli_cuda *d = gfli_cuda_of(context);
    const int n = gfli_tune_candidates(r, &d->conv, candidates);
    cudaEvent_t events[2] = {NULL, NULL};
    size_t scratch = 0;
    unsigned char *memory = NULL;
    void *spare = NULL;
    float best = -1.0f;
    for (int i = 0; i < n; i++) {
        const size_t need = gfli_conv_tensor_scratch(r, candidates[i]);
        if (need > scratch) scratch = need;
    }
    const size_t bytes = gfli_tune_operands(r, residual, scratch, NULL, sides, &spare);
    if (n == 0 || cudaMalloc((void **)&memory, bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    (void)gfli_tune_operands(r, residual, scratch, memory, sides, &spare);
    if (gfli_tune_fill(d, memory, bytes) == cudaSuccess &&
        cudaEventCreate(&events[0]) == cudaSuccess && cudaEventCreate(&events[1]) == cudaSuccess) {
        for (int i = 0; i < n; i++) {
            const float ms = gfli_tune_time(d, r, candidates[i], sides, spare, events);
            if (ms < 0.0f || (best >= 0.0f && ms >= best)) continue;
            best = ms;
            *out = candidates[i];
        }
    }
    for (int i = 0; i < 2; i++)
        if (events[i]) (void)cudaEventDestroy(events[i]);
    (void)gfli_cuda_note(context, cudaGetLastError(), "timing kernels");
    (void)cudaFree(memory);
    return best >= 0.0f;
}

/* The measured choice; false where nothing could be measured, and the model has to do. */
static bool gfli_conv_tune(gfl_context *context, const gfli_conv_request *r, bool residual,
                           gfli_conv_choice *out) {
    gfli_cuda *d = gfli_cuda_of(context);
    const gfli_tune_key key = gfli_tune_key_of(r, residual);
    if (gfli_tune_recall(d, &key, out)) return true;
    if (!gfli_cuda_ready(context) || !gfli_tune_race(context, r, residual, out)) return false;
    if (gfli_grow(context, &d->tuned, &d->tuned_capacity, d->n_tuned + 1, sizeof *d->tuned,
                  "timings") != GFL_OK)
        return true;
    d->tuned[d->n_tuned].key = key;
    d->tuned[d->n_tuned++].choice = *out;
    return true;
}
