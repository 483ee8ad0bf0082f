/* conv.c - one line for each shape: convolution and its gradients in GFLOP/s
 *
 * Deformable ones ("dcn") have all their gradients in one number.
 *
 *     conv [threads] [seconds per line] [part of a name] [avx512 | avx2 | neon | portable]
 *     conv list
 */
#define GFL_INTERNAL
#include "gfl.h"

typedef struct bench_case {
    const char *name;
    gfli_conv_shape s;
    int n, h, w;
    bool train;
    int deform; /* version, or 0 */
} bench_case;

static const bench_case bench_cases[] = {
    {"stem 640", {3, 64, 7, 2, 3, 1}, 1, 640, 640, false, 0},
    {"1x1 64>64 160", {64, 64, 1, 1, 0, 1}, 1, 160, 160, false, 0},
    {"1x1 64>256 160", {64, 256, 1, 1, 0, 1}, 1, 160, 160, false, 0},
    {"1x1 256>64 160", {256, 64, 1, 1, 0, 1}, 1, 160, 160, false, 0},
    {"3x3 64>64 160", {64, 64, 3, 1, 1, 1}, 1, 160, 160, false, 0},
    {"3x3s2 128>128 160", {128, 128, 3, 2, 1, 1}, 1, 160, 160, false, 0},
    {"1x1s2 256>512 160", {256, 512, 1, 2, 0, 1}, 1, 160, 160, false, 0},
    {"3x3 128>128 80", {128, 128, 3, 1, 1, 1}, 1, 80, 80, false, 0},
    {"1x1 512>128 80", {512, 128, 1, 1, 0, 1}, 1, 80, 80, false, 0},
    {"1x1 128>512 80", {128, 512, 1, 1, 0, 1}, 1, 80, 80, false, 0},
    {"3x3 256>256 40", {256, 256, 3, 1, 1, 1}, 1, 40, 40, false, 0},
    {"1x1 1024>256 40", {1024, 256, 1, 1, 0, 1}, 1, 40, 40, false, 0},
    {"1x1 256>1024 40", {256, 1024, 1, 1, 0, 1}, 1, 40, 40, false, 0},
    {"3x3 512>512 20", {512, 512, 3, 1, 1, 1}, 1, 20, 20, false, 0},
    {"1x1 2048>512 20", {2048, 512, 1, 1, 0, 1}, 1, 20, 20, false, 0},
    {"1x1 512>2048 20", {512, 2048, 1, 1, 0, 1}, 1, 20, 20, false, 0},
    {"3x3 256>256 80", {256, 256, 3, 1, 1, 1}, 1, 80, 80, false, 0},
    {"3x3 256>256 10", {256, 256, 3, 1, 1, 1}, 1, 10, 10, false, 0},
    {"3x3 256>80 80", {256, 80, 3, 1, 1, 1}, 1, 80, 80, false, 0},
    {"3x3 256>68 80", {256, 68, 3, 1, 1, 1}, 1, 80, 80, false, 0},
    {"3x3 128 g32 160", {128, 128, 3, 1, 1, 32}, 1, 160, 160, false, 0},
    {"3x3 256 g32 80", {256, 256, 3, 1, 1, 32}, 1, 80, 80, false, 0},
    {"3x3 512 g32 40", {512, 512, 3, 1, 1, 32}, 1, 40, 40, false, 0},
    {"3x3 1024 g32 20", {1024, 1024, 3, 1, 1, 32}, 1, 20, 20, false, 0},
    {"3x3s2 256 g32 160", {256, 256, 3, 2, 1, 32}, 1, 160, 160, false, 0},
    {"3x3 512 g32 80", {512, 512, 3, 1, 1, 32}, 1, 80, 80, false, 0},
    {"3x3 2048 g32 20", {2048, 2048, 3, 1, 1, 32}, 1, 20, 20, false, 0},
    {"stem 320x240 x4", {3, 64, 7, 2, 3, 1}, 4, 240, 320, true, 0},
    {"3x3 64>64 80x60 x4", {64, 64, 3, 1, 1, 1}, 4, 60, 80, true, 0},
    {"3x3s2 64>128 80x60 x4", {64, 128, 3, 2, 1, 1}, 4, 60, 80, true, 0},
    {"1x1s2 64>128 80x60 x4", {64, 128, 1, 2, 0, 1}, 4, 60, 80, true, 0},
    {"3x3 128>128 40x30 x4", {128, 128, 3, 1, 1, 1}, 4, 30, 40, true, 0},
    {"3x3 256>256 20x15 x4", {256, 256, 3, 1, 1, 1}, 4, 15, 20, true, 0},
    {"3x3 512>512 10x8 x4", {512, 512, 3, 1, 1, 1}, 4, 8, 10, true, 0},
    {"1x1 512>256 10x8 x4", {512, 256, 1, 1, 0, 1}, 4, 8, 10, true, 0},
    {"3x3 256>256 40x30 x4", {256, 256, 3, 1, 1, 1}, 4, 30, 40, true, 0},
    {"3x3 256>80 40x30 x4", {256, 80, 3, 1, 1, 1}, 4, 30, 40, true, 0},
    {"3x3 128 g32 40x30 x4", {128, 128, 3, 1, 1, 32}, 4, 30, 40, true, 0},
    {"3x3 256 g32 40x30 x4", {256, 256, 3, 1, 1, 32}, 4, 30, 40, true, 0},
    {"3x3 512 g32 40x30 x4", {512, 512, 3, 1, 1, 32}, 4, 30, 40, true, 0},
    {"3x3 1024 g32 10x8 x4", {1024, 1024, 3, 1, 1, 32}, 4, 8, 10, true, 0},
    {"3x3 2048 g32 10x8 x4", {2048, 2048, 3, 1, 1, 32}, 4, 8, 10, true, 0},
    {"dcn1 128 80", {128, 128, 3, 1, 1, 1}, 1, 80, 80, false, 1},
    {"dcn2 128 80", {128, 128, 3, 1, 1, 1}, 1, 80, 80, false, 2},
    {"dcn2s2 128 160", {128, 128, 3, 2, 1, 1}, 1, 160, 160, false, 2},
    {"dcn2 256 40", {256, 256, 3, 1, 1, 1}, 1, 40, 40, false, 2},
    {"dcn2 512 20", {512, 512, 3, 1, 1, 1}, 1, 20, 20, false, 2},
    {"dcn2 256 g32 80", {256, 256, 3, 1, 1, 32}, 1, 80, 80, false, 2},
    {"dcn2 512 g32 40", {512, 512, 3, 1, 1, 32}, 1, 40, 40, false, 2},
    {"dcn2 1024 g32 20", {1024, 1024, 3, 1, 1, 32}, 1, 20, 20, false, 2},
    {"dcn2 128 40x30 x4", {128, 128, 3, 1, 1, 1}, 4, 30, 40, true, 2},
    {"dcn2 256 20x15 x4", {256, 256, 3, 1, 1, 1}, 4, 15, 20, true, 2},
    {"dcn2 512 10x8 x4", {512, 512, 3, 1, 1, 1}, 4, 8, 10, true, 2},
    {"dcn2 512 g32 20x15 x4", {512, 512, 3, 1, 1, 32}, 4, 15, 20, true, 2},
};

typedef struct bench_run {
    gfl_context *context;
    const bench_case *c;
    gfli_map x, y, dx, offset, doffset;
    float *weight, *dweight, *bias;
    void *packing, *grad_packed, *scratch;
} bench_run;

static float *bench_floats(gfl_context *context, size_t n) {
    float *p = NULL;
    if (gfli_alloc(context, n, sizeof *p, "numbers", &p) != GFL_OK) exit(1);
    for (size_t i = 0; i < n; i++) p[i] = (float)(i * 2654435761u % 1000) / 500.0f - 1.0f;
    return p;
}

static gfli_conv_call bench_call(const bench_run *r) {
    gfli_conv_call call;
    memset(&call, 0, sizeof call);
    call.shape = &r->c->s;
    call.packing = r->packing;
    call.bias = r->bias;
    call.x = &r->x;
    call.y = &r->y;
    call.offset = r->c->deform ? &r->offset : NULL;
    call.relu = true;
    return call;
}

static bench_run bench_open(gfl_context *context, const bench_case *c) {
    bench_run r;
    memset(&r, 0, sizeof r);
    r.context = context;
    r.c = c;
    r.x.n = r.y.n = c->n;
    r.x.levels = r.y.levels = 1;
    r.x.c = c->s.in_c;
    r.y.c = c->s.out_c;
    r.x.h[0] = c->h;
    r.x.w[0] = c->w;
    r.y.h[0] = gfli_conv_out(&c->s, c->h);
    r.y.w[0] = gfli_conv_out(&c->s, c->w);
    r.dx = r.x;
    r.x.data = bench_floats(context, gfli_map_count(&r.x));
    r.dx.data = bench_floats(context, gfli_map_count(&r.dx));
    r.y.data = bench_floats(context, gfli_map_count(&r.y));
    r.weight = bench_floats(context, gfli_conv_weights(&c->s));
    r.dweight = bench_floats(context, gfli_conv_weights(&c->s));
    r.bias = bench_floats(context, (size_t)c->s.out_c);
    r.offset = r.doffset = r.y;
    r.offset.c = r.doffset.c = c->deform == 1 ? 18 : 27;
    r.offset.data = bench_floats(context, gfli_map_count(&r.offset));
    r.doffset.data = bench_floats(context, gfli_map_count(&r.offset));
    gfli_conv_means means;
    const gfli_conv_call call = bench_call(&r);
    if (gfli_cpu.infer.conv_prepare(context, &call, 1, &means) != GFL_OK) exit(1);
    const size_t needs[] = {means.scratch, gfli_cpu_train.conv_grad_scratch(context, &c->s, &r.x),
                            gfli_cpu_train.deform_conv_grad_scratch(context, &c->s, &r.offset)};
    size_t bytes = 0;
    for (size_t i = 0; i < GFLI_COUNT(needs); i++)
        if (needs[i] > bytes) bytes = needs[i];
    r.scratch = bench_floats(context, bytes / sizeof(float) + 1);
    r.packing =
        bench_floats(context, gfli_cpu.infer.conv_packed_size(context, &c->s) / sizeof(float));
    bytes = c->deform ? gfli_cpu_train.deform_conv_grad_packed_size(&c->s)
                      : gfli_cpu_train.conv_grad_packed_size(&c->s);
    r.grad_packed = bench_floats(context, bytes / sizeof(float));
    return r;
}

static void bench_close(bench_run *r) {
    gfli_free(r->context, r->x.data);
    gfli_free(r->context, r->dx.data);
    gfli_free(r->context, r->y.data);
    gfli_free(r->context, r->offset.data);
    gfli_free(r->context, r->doffset.data);
    gfli_free(r->context, r->weight);
    gfli_free(r->context, r->dweight);
    gfli_free(r->context, r->bias);
    gfli_free(r->context, r->scratch);
    gfli_free(r->context, r->packing);
    gfli_free(r->context, r->grad_packed);
}

/* Of both kinds. */
static void bench_forward(bench_run *r) {
    const gfli_conv_call call = bench_call(r);
    gfli_cpu.infer.conv(r->context, &call, 1, NULL, r->scratch);
}

static void bench_grad_input(bench_run *r) {
    gfli_cpu_train.conv_grad_input(r->context, &r->c->s, r->grad_packed, &r->y, false, &r->dx,
                                   r->scratch);
}

static void bench_grad_weight(bench_run *r) {
    gfli_cpu_train.conv_grad_weight(r->context, &r->c->s, &r->x, &r->y, r->dweight, r->bias,
                                    r->scratch);
}

/* All gradients at once. */
static void bench_deform_grad(bench_run *r) {
    gfli_cpu_train.deform_conv_grad(r->context, &r->c->s, r->grad_packed, &r->x, &r->offset, &r->y,
                                    false, &r->dx, &r->doffset, r->dweight, r->bias, r->scratch);
}

static void bench_pack(bench_run *r) {
    gfli_cpu.infer.conv_pack(r->context, &r->c->s, r->weight, NULL, r->packing);
    if (r->c->deform)
        gfli_cpu_train.deform_conv_grad_pack(r->context, &r->c->s, r->weight, NULL, r->grad_packed);
    else
        gfli_cpu_train.conv_grad_pack(r->context, &r->c->s, r->weight, NULL, r->grad_packed);
}

/* Seconds of the fastest call. */
static double bench_time(bench_run *r, void (*fn)(bench_run *r), double seconds) {
    double best = 1e9, start = gfli_seconds(), now = start;
    fn(r);
    do {
        const double before = gfli_seconds();
        fn(r);
        now = gfli_seconds();
        if (now - before < best) best = now - before;
    } while (now - start < seconds);
    return best;
}

static int bench_list(void) {
    for (size_t i = 0; i < GFLI_COUNT(bench_cases); i++) {
        const bench_case *c = &bench_cases[i];
        printf("%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", c->name, c->s.in_c, c->s.out_c,
               c->s.kernel, c->s.stride, c->s.pad, c->s.groups, c->n, c->h, c->w, c->train,
               c->deform);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "list") == 0) return bench_list();
    gfl_context_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = argc > 1 ? atoi(argv[1]) : 2;
    const double seconds = argc > 2 ? atof(argv[2]) : 0.2;
    if (argc > 4) desc.kernel = argv[4];
    gfl_context *context = NULL;
    if (gfl_context_create(&desc, &context) != GFL_OK) return 1;
    printf("%-24s %10s %10s %10s %10s %10s %8s\n", "", "GFLOP", "forward ms", "forward", "dx", "dw",
           "pack ms");
    for (size_t i = 0; i < GFLI_COUNT(bench_cases); i++) {
        const bench_case *c = &bench_cases[i];
        if (argc > 3 && !strstr(c->name, argv[3])) continue;
        bench_run r = bench_open(context, c);
        const double work = 2e-9 * (double)gfli_points(&r.y) * (double)gfli_conv_weights(&c->s);
        const double forward = bench_time(&r, bench_forward, seconds);
        printf("%-24s %10.3f %10.3f %10.1f", c->name, work, forward * 1e3, work / forward);
        if (c->train) {
            const double pack = bench_time(&r, bench_pack, seconds) * 1e3;
            if (c->deform)
                printf(" %10s %10.1f", "", 2 * work / bench_time(&r, bench_deform_grad, seconds));
            else
                printf(" %10.1f %10.1f", work / bench_time(&r, bench_grad_input, seconds),
                       work / bench_time(&r, bench_grad_weight, seconds));
            printf(" %8.3f", pack);
        }
        printf("\n");
        bench_close(&r);
    }
    gfl_context_destroy(context);
    return 0;
}
