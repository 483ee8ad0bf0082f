/* test_fixture_dcn.c - deformable convolution and all its gradients, beside automatic
 * differentiation in double precision */
#include "ops.h"
#include "fixture.h"

/* A case's layer in the library's layouts. */
typedef struct layer {
    gfl_context *context;
    gfli_conv_shape s, offset_shape;
    gfli_map x, offset, y, dy, dx, doffset;
    float *weight, *dweight, *offset_weight, *offset_dweight, *offset_bias, *offset_dbias;
    bool whole, masked;
} layer;

static gfli_map new_map(int n, int c, int h, int w) {
    gfli_map m = test_map(n, c, 1, &h, &w);
    m.data = (float *)malloc(gfli_map_count(&m) * sizeof(float));
    for (size_t i = 0; i < gfli_map_count(&m); i++) m.data[i] = NAN;
    return m;
}

/* The index in NCHW of channel c of position `at` of a map with `channels` in the file. */
static size_t nchw(const gfli_map *m, int channels, size_t at, int c) {
    const size_t area = (size_t)m->h[0] * (size_t)m->w[0];
    return (at / area * (size_t)channels + (size_t)c) * area + at % area;
}

/* Channels first .. of the map from a file's tensor. */
static void load_map(fx_case *one, const char *name, const gfli_map *m, int first) {
    fx_tensor t = fx_load(one, name);
    const int channels = (int)t.shape[1];
    for (size_t at = 0; at < gfli_points(m); at++)
        for (int c = 0; c < channels; c++)
            m->data[at * (size_t)m->c + (size_t)(first + c)] =
                (float)t.data[nchw(m, channels, at, c)];
    free(t.data);
}

static void load_weight(fx_case *one, const char *name, const gfli_conv_shape *s, float *out) {
    fx_tensor t = fx_load(one, name);
    const size_t in = (size_t)(s->in_c / s->groups);
    CHECK(t.count == gfli_conv_weights(s));
    for (size_t i = 0; i < t.count; i++) /* OIHW -> OHWI */
        out[(i / (in * 9) * 9 + i % 9) * in + i / 9 % in] = (float)t.data[i];
    free(t.data);
}

static void *buffer(size_t bytes) {
    return calloc(bytes + 64, 1);
}

static layer open_layer(fx_case *one, int row, int threads) {
    const fx_json *j = &one->json, *in = fx_get(j, "map_hw"), *out = fx_get(j, "out_hw");
    const int n = fx_int(j, "images", 1), h = (int)fx_at(in, 0)->number,
              w = (int)fx_at(in, 1)->number;
    const int oh = (int)fx_at(out, 0)->number, ow = (int)fx_at(out, 1)->number;
    layer l;
    memset(&l, 0, sizeof l);
    l.context = test_context_of(threads, row);
    l.whole = fx_int(j, "whole_layer", 0) != 0;
    fx_tensor mask = fx_load_optional(one, "mask_logit");
    l.masked = l.whole || mask.data;
    free(mask.data);
    l.s.in_c = fx_int(j, "in_channels", 0);
    l.s.out_c = fx_int(j, "out_channels", 0);
    l.s.kernel = 3;
    l.s.stride = fx_int(j, "stride", 1);
    l.s.pad = 1;
    l.s.groups = fx_int(j, "groups", 1);
    l.offset_shape = l.s;
    l.offset_shape.groups = 1;
    l.offset_shape.out_c = l.masked ? 27 : 18;
    l.x = new_map(n, l.s.in_c, h, w);
    l.dx = new_map(n, l.s.in_c, h, w);
    l.offset = new_map(n, l.offset_shape.out_c, oh, ow);
    l.doffset = new_map(n, l.offset_shape.out_c, oh, ow);
    l.y = new_map(n, l.s.out_c, oh, ow);
    l.dy = new_map(n, l.s.out_c, oh, ow);
    l.weight = (float *)buffer(gfli_conv_weights(&l.s) * 4);
    l.dweight = (float *)buffer(gfli_conv_weights(&l.s) * 4);
    l.offset_weight = (float *)buffer(gfli_conv_weights(&l.offset_shape) * 4);
    l.offset_dweight = (float *)buffer(gfli_conv_weights(&l.offset_shape) * 4);
    l.offset_bias = (float *)buffer(27 * 4);
    l.offset_dbias = (float *)buffer(27 * 4);
    load_map(one, "x", &l.x, 0);
    load_map(one, "grad_out", &l.dy, 0);
    load_weight(one, "weight", &l.s, l.weight);
    return l;
}

static void close_layer(layer *l) {
    gfli_map *maps[] = {&l->x, &l->dx, &l->offset, &l->doffset, &l->y, &l->dy};
    for (size_t i = 0; i < GFLI_COUNT(maps); i++) free(maps[i]->data);
    free(l->weight);
    free(l->dweight);
    free(l->offset_weight);
    free(l->offset_dweight);
    free(l->offset_bias);
    free(l->offset_dbias);
    gfl_context_destroy(l->context);
}

static void forward(layer *l) {
    if (l->whole)
        host_convolve(l->context,
                      test_conv_call(&l->offset_shape, &l->x, &l->offset, l->offset_bias, 0),
                      l->offset_weight, NULL);
    gfli_conv_call call = test_conv_call(&l->s, &l->x, &l->y, NULL, 0);
    call.offset = &l->offset;
    host_convolve(l->context, call, l->weight, NULL);
}

static void backward(layer *l) {
    host_deform_conv_grad(l->context, &l->s, l->weight, NULL, &l->x, &l->offset, &l->dy, false,
                          &l->dx, &l->doffset, l->dweight, NULL);
    if (!l->whole) return;
    host_conv_grad_weight(l->context, &l->offset_shape, &l->x, &l->doffset, l->offset_dweight,
                          l->offset_dbias);
    host_conv_grad_input(l->context, &l->offset_shape, l->offset_weight, NULL, &l->doffset, true,
                         &l->dx);
}

static void near(const char *name, double worst, double scale) {
    printf("  %-20s off by %.2g of %.3g\n", name, worst, scale);
    if (!(worst <= 2e-6 * scale)) test_fail(__FILE__, __LINE__, name);
    test_checks++;
}

static void check_map(fx_case *one, const char *name, const gfli_map *m, int first) {
    fx_tensor t = fx_load(one, name);
    const int channels = (int)t.shape[1];
    double worst = 0, scale = 1;
    for (size_t at = 0; at < gfli_points(m); at++) {
        for (int c = 0; c < channels; c++) {
            const double want = t.data[nchw(m, channels, at, c)];
            const double e = fabs((double)m->data[at * (size_t)m->c + (size_t)(first + c)] - want);
            worst = isnan(e) ? INFINITY : fmax(worst, e);
            scale = fmax(scale, fabs(want));
        }
    }
    near(name, worst, scale);
    free(t.data);
}

static void check_weight(fx_case *one, const char *name, const gfli_conv_shape *s,
                         const float *got) {
    fx_tensor t = fx_load(one, name);
    float *want = (float *)malloc(t.count * sizeof *want);
    double worst = 0, scale = 1;
    load_weight(one, name, s, want);
    for (size_t i = 0; i < t.count; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
        scale = fmax(scale, fabs((double)want[i]));
    }
    near(name, worst, scale);
    free(want);
    free(t.data);
}

static void check_backward(fx_case *one, layer *l) {
    backward(l);
    check_map(one, "grad_x", &l->dx, 0);
    check_weight(one, "grad_weight", &l->s, l->dweight);
    if (l->whole) {
        check_weight(one, "grad_offset_weight", &l->offset_shape, l->offset_dweight);
        fx_tensor bias = fx_load(one, "grad_offset_bias");
        for (int i = 0; i < 27; i++) CHECK_NEAR((double)l->offset_dbias[i], bias.data[i], 1e-5);
        free(bias.data);
    } else {
        check_map(one, "grad_offset", &l->doffset, 0);
        if (l->masked) check_map(one, "grad_mask_logit", &l->doffset, 18);
    }
}

static void run_case(fx_case *one, int row, int threads) {
    layer l = open_layer(one, row, threads);
    if (l.whole) {
        load_weight(one, "offset_weight", &l.offset_shape, l.offset_weight);
        fx_tensor bias = fx_load(one, "offset_bias");
        for (int i = 0; i < 27; i++) l.offset_bias[i] = (float)bias.data[i];
        free(bias.data);
    } else {
        load_map(one, "offset", &l.offset, 0);
        if (l.masked) load_map(one, "mask_logit", &l.offset, 18);
    }
    forward(&l);
    check_map(one, "out", &l.y, 0);
    if (l.whole) check_map(one, "offset", &l.offset, 0);
    if (gfli_train_ops_of(l.context)) check_backward(one, &l);
    close_layer(&l);
}

static void operator_and_gradients_are_those_of_the_formulas(void) {
    int covered = 0, missing = 0;
    fx_case one;
    for (fx_list list = fx_open("dcn"); fx_next(&list, &one);) {
        if (fx_int(&one.json, "offset_groups", 1) != 1 || fx_int(&one.json, "dilation", 1) != 1) {
            printf("  not covered: no model has several offset groups or dilation\n");
            missing++;
        } else {
            for (int row = 0; row < test_count_kernels(); row++) run_case(&one, row, 1 + row % 2);
            covered++;
        }
        fx_free_case(&one);
    }
    printf("%d cases covered, %d not\n", covered, missing);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(operator_and_gradients_are_those_of_the_formulas), {0}};
    return test_main(argc, argv, cases);
}
