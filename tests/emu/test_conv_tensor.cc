/* test_conv_tensor.cc - the tensor-core convolution against the CPU's, and its instructions against
 * the PTX manual */
#include "conv.h"

#include "device.h"

typedef struct conv_case {
    gfli_conv_shape s;
    int n, levels;
    int h[GFL_LEVELS], w[GFL_LEVELS];
} conv_case;

static const conv_case conv_cases[] = {
    {{1, 1, 1, 1, 0, 1}, 1, 1, {1}, {1}},
    {{3, 64, 7, 2, 3, 1}, 2, 1, {18}, {23}},
    {{40, 68, 3, 1, 1, 1}, 2, 2, {9, 1}, {8, 2}},
    {{32, 80, 3, 1, 1, 1}, 1, 5, {9, 4, 2, 1, 1}, {8, 4, 2, 2, 1}},
    {{17, 31, 3, 2, 1, 1}, 2, 1, {13}, {8}},
    {{24, 33, 1, 2, 0, 1}, 2, 1, {9}, {12}},
    {{32, 48, 3, 2, 1, 1}, 1, 2, {7, 10}, {9, 4}},
    {{264, 40, 1, 1, 0, 1}, 1, 1, {4}, {7}},
    {{64, 256, 1, 1, 0, 1}, 1, 1, {10}, {14}},
    {{128, 128, 3, 1, 1, 32}, 1, 1, {6}, {9}},
    {{256, 256, 3, 2, 1, 32}, 1, 1, {5}, {6}},
    {{512, 512, 3, 1, 1, 32}, 1, 1, {1}, {2}},
    {{128, 128, 3, 1, 1, 2}, 1, 1, {3}, {2}},
    {{32, 32, 3, 1, 1, 32}, 1, 1, {6}, {6}},
    {{72, 48, 3, 1, 1, 3}, 1, 1, {5}, {6}},
};

static const char *const element_names[] = {"tf32", "bf16", "fp16"};
/* Half a unit in the last place, relative: tf32 has 10 bits of mantissa, bf16 7, fp16 10. */
static const double units[] = {1.0 / 2048, 1.0 / 256, 1.0 / 2048};

/* The emulated device; on a GPU the real one, with the kernels that only it can run. */
static gfli_conv_device device;

static float rounded(float v, int element) {
    return element_float(element_bits(v, element), element);
}

static float *uniform_rounded(size_t n, uint64_t seed, int element) {
    float *x = test_uniform(n, -1, 1, seed);
    for (size_t i = 0; i < n; i++) x[i] = rounded(x[i], element);
    return x;
}

static float *magnitudes(const float *x, size_t n) {
    float *y = test_uniform(n, 0, 1, 1);
    for (size_t i = 0; i < n; i++) y[i] = fabsf(x[i]);
    return y;
}

static void *upload(const float *x, size_t n, int element) {
    const size_t size = element == GFLI_MAP_F32 ? 4 : 2;
    void *device = NULL, *host = malloc(n * size + 1);
    for (size_t i = 0; i < n; i++) element_put(host, i, x[i], element);
    CHECK(cudaMalloc(&device, n * size + 1) == cudaSuccess);
    CHECK(cudaMemcpy(device, host, n * size, cudaMemcpyHostToDevice) == cudaSuccess);
    free(host);
    return device;
}

static void *device_bytes(size_t n, int value) {
    void *p = NULL;
    CHECK(cudaMalloc(&p, n + 1) == cudaSuccess);
    CHECK(cudaMemset(p, value, n) == cudaSuccess);
    return p;
}

static float *download(const void *device, size_t n, int element) {
    const size_t size = element == GFLI_MAP_F32 ? 4 : 2;
    void *host = malloc(n * size + 1);
    float *x = (float *)malloc(n * sizeof(float) + 1);
    CHECK(cudaMemcpy(host, device, n * size, cudaMemcpyDeviceToHost) == cudaSuccess);
    for (size_t i = 0; i < n; i++) x[i] = element_at(host, i, element);
    free(host);
    return x;
}

/* Everything of one convolution: operands that the element can hold exactly, what the CPU makes of
 * them, and of their magnitudes. */
typedef struct example {
    const conv_case *c;
    int element;
    gfli_map x, y;
    size_t nx, ny, nw;
    float *xs, *ws, *bias, *residual, *want, *size;
    void *dx, *dresidual, *dy, *packing;
    float *dbias;
} example;

static void run_cpu(const example *e, const float *x, const float *w, const float *bias,
                    const float *residual, bool relu, float *out) {
    gfl_context *context = test_context(1);
    gfli_map in = e->x, y = e->y, r = e->y;
    in.data = (float *)(uintptr_t)x;
    r.data = (float *)(uintptr_t)residual;
    y.data = out;
    gfli_conv_call call = test_conv_call(&e->c->s, &in, &y, bias, relu);
    call.residual = residual ? &r : NULL;
    test_convolve(context, call, w, NULL);
    gfl_context_destroy(context);
}

static void make_example(example *e, const conv_case *c, int element, bool residual, bool relu) {
    memset(e, 0, sizeof *e);
    e->c = c;
    e->element = element;
    e->x = test_map(c->n, c->s.in_c, c->levels, c->h, c->w);
    e->y = test_conv_output(&c->s, &e->x);
    e->nx = gfli_map_count(&e->x);
    e->ny = gfli_map_count(&e->y);
    e->nw = gfli_conv_weights(&c->s);
    e->xs = uniform_rounded(e->nx, 1, element);
    e->ws = uniform_rounded(e->nw, 2, element);
    e->bias = test_uniform((size_t)c->s.out_c, -1, 1, 3);
    if (residual) e->residual = uniform_rounded(e->ny, 4, element);
    e->want = test_uniform(e->ny, 0, 1, 5);
    e->size = test_uniform(e->ny, 0, 1, 5);
    run_cpu(e, e->xs, e->ws, e->bias, e->residual, relu, e->want);
    float *ax = magnitudes(e->xs, e->nx), *aw = magnitudes(e->ws, e->nw);
    float *ab = magnitudes(e->bias, (size_t)c->s.out_c);
    float *ar = residual ? magnitudes(e->residual, e->ny) : NULL;
    run_cpu(e, ax, aw, ab, ar, false, e->size);
    free(ax);
    free(aw);
    free(ab);
    free(ar);
    e->dx = upload(e->xs, e->nx, element);
    if (residual) e->dresidual = upload(e->residual, e->ny, element);
    e->dbias = (float *)upload(e->bias, (size_t)c->s.out_c, GFLI_MAP_F32);
    e->packing = device_bytes(gfli_conv_tensor_packed_size(&c->s, element), 0xff);
    float *weight = (float *)upload(e->ws, e->nw, GFLI_MAP_F32);
    CHECK(gfli_conv_tensor_pack(0, &c->s, element, weight, NULL, e->packing) == cudaSuccess);
    cudaFree(weight);
    e->dy = device_bytes(e->ny * 4, 0xff);
}

static void free_example(example *e) {
    free(e->xs);
    free(e->ws);
    free(e->bias);
    free(e->residual);
    free(e->want);
    free(e->size);
    cudaFree(e->dx);
    cudaFree(e->dresidual);
    cudaFree(e->dy);
    cudaFree(e->packing);
    cudaFree(e->dbias);
}

static gfli_conv_request request_of(const example *e, bool relu, bool wide) {
    gfli_conv_request r;
    memset(&r, 0, sizeof r);
    r.shape = &e->c->s;
    r.x = &e->x;
    r.n_sides = 1;
    r.out_c[0] = e->c->s.out_c;
    r.element = e->element;
    r.relu = relu;
    r.wide = wide;
    return r;
}

static void run(const gfli_conv_request *r, gfli_conv_choice choice, gfli_conv_operands *sides) {
    void *scratch = device_bytes(gfli_conv_tensor_scratch(r, choice), 0xff);
    static int zeros[GFLI_MAX_SPLIT_TILES];
    int arrived[GFLI_MAX_SPLIT_TILES];
    CHECK(gfli_conv_tensor_run(0, &device, r, choice, sides, 1e-5f, scratch) == cudaSuccess);
    CHECK(cudaMemcpy(arrived, device.arrived, sizeof arrived, cudaMemcpyDeviceToHost) ==
          cudaSuccess);
    CHECK(memcmp(arrived, zeros, sizeof zeros) == 0);
    cudaFree(scratch);
}

/* The products are exact in float, so all that differs from the CPU is the order of n additions
 * (n 2^-24 of the magnitudes, on each side), and the rounding of y. */
static void check_example(const example *e, const float *got, bool wide, const char *what) {
    const gfli_conv_shape *s = &e->c->s;
    const double n = s->kernel * s->kernel * (s->in_c / s->groups) + 2;
    const double unit = wide || e->element == GFLI_MAP_F32 ? 0 : units[e->element];
    double worst = 0;
    for (size_t i = 0; i < e->ny; i++) {
        const double want = (double)e->want[i],
                     allowed =
                         unit * fabs(want) + (2 + unit) * n * 0x1p-24 * (double)e->size[i] + 1e-7;
        const double off = fabs((double)got[i] - want) / allowed;
        if (!(off <= worst)) worst = off;
    }
    if (!(worst <= 1)) {
        printf("%s %s, %d to %d channels: %.3g times the allowed error\n", what,
               element_names[e->element], s->in_c, s->out_c, worst);
        CHECK(!"as the CPU");
    } else {
        CHECK(true);
    }
}

/* Which half of the kernels a case runs; the other half meets the next element or the next case. */
static bool has_turn(size_t i, int element, int nth, int n_applicable) {
    return n_applicable < 2 || (i + (size_t)element + (size_t)nth) % 2 == 0;
}

static void every_kernel_matches_the_cpu(void) {
    for (size_t i = 0; i < GFLI_COUNT(conv_cases); i++) {
        for (int element = 0; element < GFLI_ELEMENTS; element++) {
            const bool extra = (i / 2 + (size_t)element) % 2 == 0, wide = i % 3 == 0;
            example e;
            make_example(&e, &conv_cases[i], element, extra, extra);
            const gfli_conv_request r = request_of(&e, extra, wide);
            int ran = 0, nth = 0, n_applicable = 0;
            for (int v = 0; v < GFLI_CONV_VARIANTS; v++)
                n_applicable += gfli_conv_applies(&r, v, &device);
            for (int v = 0; v < GFLI_CONV_VARIANTS; v++) {
                if (!gfli_conv_applies(&r, v, &device)) continue;
                if (!has_turn(i, element, nth++, n_applicable)) continue;
                const gfli_conv_choice choice = {v, (v + (int)i) % 3 == 0 ? 3 : 1};
                gfli_conv_operands op;
                memset(&op, 0, sizeof op);
                op.x = e.dx;
                op.residual = e.dresidual;
                op.packing = e.packing;
                op.bias = e.dbias;
                op.y = e.dy;
                CHECK(cudaMemset(e.dy, 0xff, e.ny * 4) == cudaSuccess);
                run(&r, choice, &op);
                float *got = download(e.dy, e.ny, wide ? GFLI_MAP_F32 : element);
                check_example(&e, got, wide, gfli_conv_variants[v].name);
                free(got);
                ran++;
            }
            CHECK(ran > 0);
            free_example(&e);
        }
    }
}

/* Statistics of what y holds, in double. */
static void check_stats(const gfli_map *y, const float *got_y, int width, const float *stats) {
    const int groups = y->c / width;
    for (int plane = 0; plane < y->levels * y->n; plane++) {
        const int l = plane / y->n, area = y->h[l] * y->w[l];
        const size_t from = gfli_points_before(y, l) + (size_t)(plane % y->n * area);
        for (int g = 0; g < groups; g++) {
            double sum = 0, squares = 0, n = (double)area * width;
            for (int i = 0; i < area * width; i++)
                sum += (double)got_y[(from + (size_t)(i / width)) * (size_t)y->c +
                                     (size_t)(g * width + i % width)];
            for (int i = 0; i < area * width; i++) {
                const double d = (double)got_y[(from + (size_t)(i / width)) * (size_t)y->c +
                                               (size_t)(g * width + i % width)] -
                                 sum / n;
                squares += d * d;
            }
            const float *s = &stats[2 * (plane * groups + g)];
            CHECK_NEAR((double)s[0], sum / n, 1e-6 * (1 + fabs(sum / n)));
            CHECK_NEAR((double)s[1] * sqrt(squares / n + 1e-5), 1, 4e-6);
        }
    }
}

static void statistics_are_those_of_the_output(void) {
    static const conv_case c = {{16, 96, 1, 1, 0, 1}, 2, 3, {13, 4, 1}, {11, 5, 2}};
    static const int widths[] = {1, 8, 32};
    for (int k = 0; k < 3; k++) {
        const int element = k, width = widths[k], groups = c.s.out_c / width;
        example e;
        make_example(&e, &c, element, false, false);
        for (int i = 0; i < 2; i++) e.bias[i] = 50; /* a mean far from zero */
        cudaFree(e.dbias);
        e.dbias = (float *)upload(e.bias, (size_t)c.s.out_c, GFLI_MAP_F32);
        gfli_conv_request r = request_of(&e, false, false);
        r.norm_width = width;
        float *stats = (float *)device_bytes((size_t)(c.levels * c.n * groups * 2) * 4, 0xff);
        for (int v = 0; v < GFLI_CONV_VARIANTS; v++) {
            if (!gfli_conv_applies(&r, v, &device)) continue;
            const gfli_conv_choice choice = {v, 1 + v % 2};
            gfli_conv_operands op;
            memset(&op, 0, sizeof op);
            op.x = e.dx;
            op.packing = e.packing;
            op.bias = e.dbias;
            op.y = e.dy;
            op.stats = stats;
            run(&r, choice, &op);
            float *y = download(e.dy, e.ny, element);
            check_stats(&e.y, y, width, stats);
            free(y);
        }
        cudaFree(stats);
        free_example(&e);
    }
}

/* The head's towers: equal geometry, other weights, other numbers of outputs. */
static void two_convolutions_share_a_launch(void) {
    static const conv_case pair[2] = {{{32, 80, 3, 1, 1, 1}, 1, 2, {7, 3}, {9, 2}},
                                      {{32, 136, 3, 1, 1, 1}, 1, 2, {7, 3}, {9, 2}}};
    for (int splits = 1; splits < 4; splits += 2) {
        example e[2];
        gfli_conv_operands op[2];
        memset(op, 0, sizeof op);
        for (int i = 0; i < 2; i++) {
            make_example(&e[i], &pair[i], GFLI_MAP_BF16, false, false);
            op[i].x = e[i].dx;
            op[i].packing = e[i].packing;
            op[i].bias = e[i].dbias;
            op[i].y = e[i].dy;
        }
        gfli_conv_request r = request_of(&e[0], false, true);
        r.n_sides = 2;
        r.out_c[1] = pair[1].s.out_c;
        for (int v = 0; v < GFLI_CONV_VARIANTS; v++) {
            if (!gfli_conv_applies(&r, v, &device)) continue;
            const gfli_conv_choice choice = {v, splits};
            run(&r, choice, op);
            for (int i = 0; i < 2; i++) {
                float *got = download(e[i].dy, e[i].ny, GFLI_MAP_F32);
                check_example(&e[i], got, true, "of two");
                free(got);
                CHECK(cudaMemset(e[i].dy, 0xff, e[i].ny * 4) == cudaSuccess);
            }
        }
        free_example(&e[0]);
        free_example(&e[1]);
    }
}

static void the_same_twice_is_the_same_bits(void) {
    static const conv_case c = {{64, 64, 3, 1, 1, 1}, 2, 1, {9}, {8}};
    example e;
    make_example(&e, &c, GFLI_MAP_BF16, false, false);
    const gfli_conv_request r = request_of(&e, false, true);
    gfli_conv_operands op;
    memset(&op, 0, sizeof op);
    op.x = e.dx;
    op.packing = e.packing;
    op.y = e.dy;
    const gfli_conv_choice choice = {3, 4};
    CHECK(gfli_conv_applies(&r, choice.variant, &device));
    float *first = NULL;
    for (int order = 0; order < 3; order++) {
        emulated_order(order, 7);
        run(&r, choice, &op);
        float *y = download(e.dy, e.ny, GFLI_MAP_F32);
        if (first) CHECK(memcmp(first, y, e.ny * sizeof *y) == 0);
        if (first) free(y);
        if (!first) first = y;
    }
    emulated_order(EMULATED_RANDOM, 1);
    free(first);
    free_example(&e);
}

/* Spec 1.5, in double, one sample after the other. */
static double sample(const example *e, const float *x, int level, int image, double h, double w,
                     int c) {
    const gfli_map *m = &e->x;
    const int height = m->h[level], width = m->w[level];
    if (!(h > -1 && w > -1 && h < height && w < width)) return 0;
    const int h0 = (int)floor(h), w0 = (int)floor(w);
    const double lh = h - h0, lw = w - w0;
    double sum = 0;
    for (int k = 0; k < 4; k++) {
        const int yy = h0 + k / 2, xx = w0 + k % 2;
        if (yy < 0 || xx < 0 || yy >= height || xx >= width) continue;
        const size_t at = gfli_points_before(m, level) +
                          ((size_t)image * (size_t)height + (size_t)yy) * (size_t)width +
                          (size_t)xx;
        sum += (k / 2 ? lh : 1 - lh) * (k % 2 ? lw : 1 - lw) *
               (double)x[at * (size_t)m->c + (size_t)c];
    }
    return sum;
}

static void deformed_position(const example *e, const float *offsets, int offset_c, size_t at,
                              int level, int image, int oy, int ox, double *want, double *size) {
    const gfli_conv_shape *s = &e->c->s;
    const int in = s->in_c / s->groups, out = s->out_c / s->groups;
    const float *o = &offsets[at * (size_t)offset_c];
    for (int channel = 0; channel < s->out_c; channel++) {
        double sum = (double)e->bias[channel], all = fabs(sum);
        for (int tap = 0; tap < 9; tap++) {
            const float h = (float)(oy * s->stride - s->pad + tap / 3) + o[2 * tap];
            const float w = (float)(ox * s->stride - s->pad + tap % 3) + o[2 * tap + 1];
            const double mask = offset_c == 27 ? 1 / (1 + exp(-(double)o[18 + tap])) : 1;
            for (int i = 0; i < in; i++) {
                const double v = mask * sample(e, e->xs, level, image, (double)h, (double)w,
                                               channel / out * in + i);
                const double k =
                    (double)e->ws[((size_t)channel * 9 + (size_t)tap) * (size_t)in + (size_t)i];
                sum += v * k;
                all += fabs(v * k);
            }
        }
        want[channel] = sum;
        size[channel] = all;
    }
}

/* A sample is rounded to the element before it is multiplied: one unit of the magnitudes, besides
 * what float additions cost. */
static void check_deformed(const example *e, const float *offsets, int offset_c, const float *got) {
    const gfli_map *y = &e->y;
    double want[256], size[256], worst = 0;
    for (int l = 0; l < y->levels; l++) {
        for (int p = 0; p < y->n * y->h[l] * y->w[l]; p++) {
            const int area = y->h[l] * y->w[l];
            const size_t at = gfli_points_before(y, l) + (size_t)p;
            deformed_position(e, offsets, offset_c, at, l, p / area, p % area / y->w[l],
                              p % y->w[l], want, size);
            for (int c = 0; c < y->c; c++) {
                const double off = fabs((double)got[at * (size_t)y->c + (size_t)c] - want[c]) /
                                   ((units[e->element] + 1e-5) * size[c] + 1e-6);
                if (!(off <= worst)) worst = off;
            }
        }
    }
    if (!(worst <= 1)) printf("deformable: %.3g times the allowed error\n", worst);
    CHECK(worst <= 1);
}

static void deformable_kernels_sample_as_the_spec_says(void) {
    static const conv_case cases[] = {
        {{64, 64, 3, 1, 1, 1}, 1, 1, {5}, {19}},
        {{64, 72, 3, 2, 1, 1}, 1, 2, {7, 1}, {9, 2}},
        {{128, 128, 3, 1, 1, 32}, 1, 1, {4}, {5}},
        {{16, 24, 3, 2, 1, 2}, 1, 1, {6}, {5}},
    };
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        for (int element = 0; element < GFLI_ELEMENTS; element++) {
            example e;
            make_example(&e, &cases[i], element, false, false);
            const int offset_c = (i + (size_t)element) % 2 ? 18 : 27;
            const size_t n = gfli_points(&e.y) * (size_t)offset_c;
            float *offsets = test_uniform(n, -2.5, 2.5, 9);
            for (size_t k = 0; k < n; k += 7) offsets[k] = (float)((int)(k % 5) - 2); /* on cells */
            float *doffsets = (float *)upload(offsets, n, GFLI_MAP_F32);
            float *weight = (float *)upload(e.ws, e.nw, GFLI_MAP_F32);
            void *packing = device_bytes(gfli_conv_tensor_packed_size(&e.c->s, element), 0xff);
            CHECK(gfli_conv_tensor_pack(0, &e.c->s, element, weight, NULL, packing) == cudaSuccess);
            gfli_conv_request r = request_of(&e, false, true);
            r.offset_c = offset_c;
            gfli_conv_operands op;
            memset(&op, 0, sizeof op);
            op.x = e.dx;
            op.packing = packing;
            op.offset = doffsets;
            op.bias = e.dbias;
            op.y = e.dy;
            int ran = 0;
            for (int v = 0; v < GFLI_CONV_VARIANTS; v++) {
                if (!gfli_conv_applies(&r, v, &device)) continue;
                const gfli_conv_choice choice = {v, 1 + v % 2};
                run(&r, choice, &op);
                float *got = download(e.dy, e.ny, GFLI_MAP_F32);
                check_deformed(&e, offsets, offset_c, got);
                free(got);
                ran++;
            }
            CHECK(ran > 0);
            free(offsets);
            cudaFree(doffsets);
            cudaFree(weight);
            cudaFree(packing);
            free_example(&e);
        }
    }
}

/* ---- the driver, which describes maps to the copy engine ------------------------------------- */

static int refused_width; /* maps so wide are */

static CUresult CUDAAPI describe_map(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                                     void *address, const cuuint64_t *size,
                                     const cuuint64_t *stride, const int *low, const int *high,
                                     cuuint32_t channels, cuuint32_t pixels,
                                     const cuuint32_t *step, CUtensorMapInterleave interleave,
                                     CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                     CUtensorMapFloatOOBfill fill) {
    (void)map, (void)type, (void)rank, (void)address, (void)stride, (void)low, (void)high;
    (void)channels, (void)pixels, (void)step, (void)interleave, (void)swizzle, (void)promotion;
    (void)fill;
    return (int)size[1] == refused_width ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* How many kernels of the copy engine apply on a Hopper to a 3x3 convolution of two levels; what is
 * chosen applies. */
static int engine_kernels(int in_c, int groups, int w) {
    const gfli_conv_device hopper = {132, 232448, 1, describe_map, NULL};
    const gfli_conv_shape s = {in_c, in_c, 3, 1, 1, groups};
    const int h[] = {50, 25}, widths[] = {w, 20};
    const gfli_map x = test_map(1, in_c, 2, h, widths);
    gfli_conv_request r;
    gfli_conv_choice choice;
    memset(&r, 0, sizeof r);
    r.shape = &s;
    r.x = &x;
    r.n_sides = 1;
    r.out_c[0] = in_c;
    r.element = GFLI_MAP_BF16;
    CHECK(gfli_conv_choose(&r, &hopper, -1, &choice));
    CHECK(gfli_conv_applies(&r, choice.variant, &hopper));
    int n = 0;
    for (int v = 0; v < GFLI_CONV_VARIANTS; v++)
        n += gfli_conv_variants[v].load == GFLI_LOAD_ENGINE && gfli_conv_applies(&r, v, &hopper);
    return n;
}

static void the_copy_engine_takes_whole_runs_of_64_channels(void) {
    CHECK(engine_kernels(64, 1, 42) == 1);
    CHECK(engine_kernels(256, 1, 42) == 3);
    CHECK(engine_kernels(128, 2, 42) == 1);
    CHECK(engine_kernels(128, 32, 42) == 1); /* groups of 4 merge to 64 */
    CHECK(engine_kernels(32, 1, 42) == 0);
    CHECK(engine_kernels(96, 1, 42) == 0);
    CHECK(engine_kernels(192, 2, 42) == 0);
}

static void a_map_that_the_driver_refuses_is_refused_for_one_request(void) {
    for (int twice = 0; twice < 2; twice++) {
        refused_width = 42;
        CHECK(engine_kernels(256, 1, 42) == 0);
        CHECK(engine_kernels(256, 1, 41) == 3);
        refused_width = 20; /* of the second level */
        CHECK(engine_kernels(256, 1, 42) == 0);
        refused_width = 0;
    }
}

/* Real layers: whatever is chosen applies, fits and is the same every time. */
static void a_choice_is_a_function_of_the_sizes(void) {
    static const gfli_conv_shape shapes[] = {
        {3, 64, 7, 2, 3, 1},     {256, 256, 3, 1, 1, 1},    {2048, 512, 1, 1, 0, 1},
        {512, 2048, 1, 1, 0, 1}, {1024, 1024, 3, 1, 1, 32}, {256, 80, 3, 1, 1, 1},
    };
    const gfli_conv_device devices[] = {{108, 166912, 0, NULL, NULL},
                                        {132, 232448, 0, NULL, NULL},
                                        {132, 232448, 1, describe_map, NULL},
                                        {188, 101376, 0, NULL, NULL}};
    for (size_t i = 0; i < GFLI_COUNT(shapes); i++) {
        for (size_t d = 0; d < GFLI_COUNT(devices); d++) {
            static const int h = 25, w = 42;
            const gfli_map x = test_map(1, shapes[i].in_c, 1, &h, &w);
            gfli_conv_request r;
            memset(&r, 0, sizeof r);
            r.shape = &shapes[i];
            r.x = &x;
            r.n_sides = 1;
            r.out_c[0] = shapes[i].out_c;
            r.element = GFLI_MAP_BF16;
            gfli_conv_choice a = {-1, 0}, b = {-1, 0};
            CHECK(gfli_conv_choose(&r, &devices[d], -1, &a) &&
                  gfli_conv_choose(&r, &devices[d], -1, &b));
            CHECK(a.variant == b.variant && a.splits == b.splits);
            CHECK(gfli_conv_applies(&r, a.variant, &devices[d]));
            CHECK(a.splits >= 1 && a.splits <= GFLI_MAX_SPLITS);
        }
    }
    CHECK(!strcmp(gfli_conv_variants[0].name, "128x128"));
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(every_kernel_matches_the_cpu),
        TEST(statistics_are_those_of_the_output),
        TEST(two_convolutions_share_a_launch),
        TEST(the_same_twice_is_the_same_bits),
        TEST(deformable_kernels_sample_as_the_spec_says),
        TEST(the_copy_engine_takes_whole_runs_of_64_channels),
        TEST(a_map_that_the_driver_refuses_is_refused_for_one_request),
        TEST(a_choice_is_a_function_of_the_sizes),
        {NULL, NULL, TEST_EVERYWHERE},
    };
    const int absent = device_absent();
    if (absent) return absent;
    emulated_order(EMULATED_RANDOM, 1);
    CHECK(gfli_conv_device_query(true, 0, &device) == cudaSuccess);
    device.arrived = (int *)device_bytes(GFLI_MAX_SPLIT_TILES * sizeof(int), 0);
    const int status = test_main(argc, argv, cases);
    cudaFree(device.arrived);
    return emulated_errors() > 0 ? 1 : status;
}
