/* test_conv.c - convolution and its gradients against plain loops in double precision */
#include "ops.h"

typedef struct conv_case {
    gfli_conv_shape s;
    int n, levels;
    int h[GFL_LEVELS], w[GFL_LEVELS];
} conv_case;

static const conv_case conv_cases[] = {
    {{1, 1, 1, 1, 0, 1}, 1, 1, {1}, {1}},
    {{3, 64, 7, 2, 3, 1}, 2, 1, {30}, {37}},
    {{3, 20, 7, 2, 3, 1}, 1, 1, {5}, {3}},
    {{3, 8, 3, 1, 1, 1}, 1, 2, {4, 1}, {5, 1}},
    {{64, 64, 1, 1, 0, 1}, 2, 1, {9}, {11}},
    {{40, 68, 3, 1, 1, 1}, 2, 3, {10, 5, 3}, {12, 6, 3}},
    {{256, 80, 3, 1, 1, 1}, 1, 5, {8, 4, 2, 1, 1}, {7, 4, 2, 1, 1}},
    {{17, 31, 3, 2, 1, 1}, 2, 1, {13}, {8}},
    {{24, 33, 1, 2, 0, 1}, 2, 1, {9}, {12}},
    {{32, 48, 3, 2, 1, 1}, 1, 2, {7, 10}, {9, 4}},
    {{300, 17, 1, 1, 0, 1}, 1, 1, {5}, {5}},
    {{530, 40, 1, 1, 0, 1}, 1, 1, {4}, {7}},
    {{64, 64, 3, 1, 1, 16}, 2, 1, {9}, {7}},
    {{128, 128, 3, 1, 1, 32}, 1, 1, {6}, {9}},
    {{64, 64, 3, 2, 1, 8}, 1, 1, {9}, {10}},
    {{96, 96, 3, 1, 1, 6}, 1, 1, {6}, {5}},
    {{64, 64, 3, 2, 1, 2}, 1, 1, {6}, {7}},
    {{128, 128, 3, 1, 1, 2}, 1, 1, {5}, {5}},
    {{72, 48, 3, 1, 1, 3}, 1, 1, {5}, {6}},
    {{12, 12, 3, 1, 1, 12}, 1, 1, {6}, {6}},
    {{33, 33, 3, 1, 1, 33}, 2, 1, {5}, {7}},
    {{19, 19, 3, 2, 1, 19}, 1, 1, {9}, {8}},
    {{40, 40, 7, 2, 3, 40}, 1, 1, {9}, {6}},
    {{10, 30, 3, 1, 1, 10}, 1, 2, {6, 3}, {5, 4}},
    {{5, 7, 3, 2, 0, 1}, 2, 1, {8}, {9}},
    {{20, 9, 7, 1, 3, 1}, 1, 1, {6}, {8}},
    {{8, 200, 3, 1, 1, 1}, 1, 1, {20}, {31}},
    {{16, 24, 3, 3, 1, 1}, 1, 1, {10}, {11}},
};

/* Calls visit(a, b, weight index) for every product: y[a] += x[b] * weight. */
typedef struct naive {
    const float *x, *weight, *dy;
    double *y, *dx, *dweight;
} naive;

static void naive_point(const conv_case *c, naive *v, size_t y_at, size_t x_image, int level,
                        int oy, int ox) {
    const gfli_conv_shape *s = &c->s;
    const int in = s->in_c / s->groups, out = s->out_c / s->groups;
    for (int ky = 0; ky < s->kernel; ky++) {
        for (int kx = 0; kx < s->kernel; kx++) {
            const int iy = oy * s->stride - s->pad + ky, ix = ox * s->stride - s->pad + kx;
            if (iy < 0 || iy >= c->h[level] || ix < 0 || ix >= c->w[level]) continue;
            const size_t x_at =
                x_image + ((size_t)iy * (size_t)c->w[level] + (size_t)ix) * (size_t)s->in_c;
            for (int o = 0; o < s->out_c; o++) {
                const size_t xi = x_at + (size_t)(o / out * in);
                const size_t wi = (size_t)((o * s->kernel + ky) * s->kernel + kx) * (size_t)in;
                for (size_t i = 0; i < (size_t)in; i++) {
                    const size_t yi = y_at + (size_t)o;
                    if (v->y) v->y[yi] += (double)v->x[xi + i] * (double)v->weight[wi + i];
                    if (v->dx) v->dx[xi + i] += (double)v->dy[yi] * (double)v->weight[wi + i];
                    if (v->dweight) v->dweight[wi + i] += (double)v->dy[yi] * (double)v->x[xi + i];
                }
            }
        }
    }
}

static void naive_conv(const conv_case *c, naive *v) {
    const gfli_map x = test_map(c->n, c->s.in_c, c->levels, c->h, c->w);
    const gfli_map y = test_conv_output(&c->s, &x);
    size_t y_at = 0;
    for (int l = 0; l < c->levels; l++) {
        for (int n = 0; n < c->n; n++) {
            const size_t image =
                (gfli_points_before(&x, l) + (size_t)n * (size_t)(x.h[l] * x.w[l])) * (size_t)x.c;
            for (int oy = 0; oy < y.h[l]; oy++) {
                for (int ox = 0; ox < y.w[l]; ox++, y_at += (size_t)y.c) {
                    naive_point(c, v, y_at, image, l, oy, ox);
                }
            }
        }
    }
}

static void close_to(const char *what, int index, int row, const float *got, const double *want,
                     size_t n) {
    double worst = 0, scale = 1;
    for (size_t i = 0; i < n; i++) {
        const double e = fabs((double)got[i] - want[i]);
        if (!(e <= worst)) worst = e;
        if (fabs(want[i]) > scale) scale = fabs(want[i]);
    }
    if (!(worst <= 3e-6 * scale))
        printf("case %d, row %d, %s: off by %g of %g\n", index, row, what, worst, scale);
    CHECK(worst <= 3e-6 * scale);
}

static float *copy_of(const float *x, size_t n) {
    float *copy = (float *)malloc((n + 1) * sizeof *copy);
    memcpy(copy, x, n * sizeof *copy);
    return copy;
}

/* scale * weight, as floats: what conv_pack multiplies. */
static float *scaled_weight(const gfli_conv_shape *s, const float *weight, const float *scale) {
    float *w = copy_of(weight, gfli_conv_weights(s));
    const size_t per = gfli_conv_weights(s) / (size_t)s->out_c;
    for (size_t i = 0; i < gfli_conv_weights(s); i++) w[i] *= scale[i / per];
    return w;
}

typedef struct conv_data {
    conv_case c;
    gfli_map x, y;
    size_t nx, ny, nw;
    float *px, *weight, *scale, *scaled, *bias, *residual, *dy;
} conv_data;

static conv_data make_data(const conv_case *c, uint64_t seed) {
    conv_data d;
    d.c = *c;
    d.x = test_map(c->n, c->s.in_c, c->levels, c->h, c->w);
    d.y = test_conv_output(&c->s, &d.x);
    d.nx = gfli_map_count(&d.x);
    d.ny = gfli_map_count(&d.y);
    d.nw = gfli_conv_weights(&c->s);
    d.px = test_uniform(d.nx, -1, 1, seed);
    d.weight = test_uniform(d.nw, -1, 1, seed + 1);
    d.scale = test_uniform((size_t)c->s.out_c, 0.5, 1.5, seed + 2);
    d.scaled = scaled_weight(&c->s, d.weight, d.scale);
    d.bias = test_uniform((size_t)c->s.out_c, -1, 1, seed + 3);
    d.residual = test_uniform(d.ny, -1, 1, seed + 4);
    d.dy = test_uniform(d.ny, -1, 1, seed + 5);
    d.x.data = d.px;
    return d;
}

static void free_data(conv_data *d) {
    free(d->px);
    free(d->weight);
    free(d->scale);
    free(d->scaled);
    free(d->bias);
    free(d->residual);
    free(d->dy);
}

enum { PLAIN, WITH_ALL, RESIDUAL_IS_Y, MODES };

/* y of one context and mode; the caller frees it. */
static float *run_conv(gfl_context *context, const conv_data *d, int mode) {
    gfli_map y = d->y, residual = d->y;
    y.data = copy_of(d->residual, d->ny);
    residual.data = mode == RESIDUAL_IS_Y ? y.data : d->residual;
    if (mode != RESIDUAL_IS_Y) memset(y.data, 0xff, d->ny * sizeof(float));
    gfli_conv_call call =
        test_conv_call(&d->c.s, &d->x, &y, mode == PLAIN ? NULL : d->bias, mode != PLAIN);
    call.residual = mode == PLAIN ? NULL : &residual;
    host_convolve(context, call, d->weight, mode == PLAIN ? NULL : d->scale);
    return y.data;
}

static void naive_forward(const conv_data *d, int mode, double *want) {
    naive v;
    memset(&v, 0, sizeof v);
    v.x = d->px;
    v.weight = mode == PLAIN ? d->weight : d->scaled;
    v.y = want;
    memset(want, 0, d->ny * sizeof *want);
    naive_conv(&d->c, &v);
    for (size_t i = 0; mode != PLAIN && i < d->ny; i++) {
        want[i] += (double)d->bias[i % (size_t)d->c.s.out_c] + (double)d->residual[i];
        if (want[i] < 0) want[i] = 0;
    }
}

/* What a row of kernels gives with 1 to 3 threads, the same each time; the caller frees it. */
static float *run_row(const conv_data *d, int mode, int row) {
    float *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        gfl_context *context = test_context_of(threads, row);
        float *y = run_conv(context, d, mode);
        if (first) CHECK(memcmp(first, y, d->ny * sizeof *y) == 0);
        if (first)
            free(y);
        else
            first = y;
        gfl_context_destroy(context);
    }
    return first;
}

static void forward_case(int index) {
    conv_data d = make_data(&conv_cases[index], (uint64_t)index * 100);
    double *want = (double *)malloc(d.ny * sizeof *want);
    double *fastest = (double *)malloc(d.ny * sizeof *fastest);
    for (int mode = 0; mode < MODES; mode++) {
        naive_forward(&d, mode, want);
        for (int row = 0; row < test_count_kernels(); row++) {
            float *y = run_row(&d, mode, row);
            close_to("y", index, row, y, want, d.ny);
            for (size_t i = 0; i < d.ny && row == 0; i++) fastest[i] = (double)y[i];
            close_to("y beside the fastest kernels'", index, row, y, fastest, d.ny);
            free(y);
        }
    }
    free(want);
    free(fastest);
    free_data(&d);
}

static void convolution_equals_the_plain_loop(void) {
    for (int i = 0; i < (int)GFLI_COUNT(conv_cases); i++) forward_case(i);
}

/* dx (onto old when that is given), dweight and dbias of one context; the caller frees them. */
static void run_grad(gfl_context *context, const conv_data *d, const float *old, float **dx,
                     float **dweight, float **dbias) {
    const gfli_conv_shape *s = &d->c.s;
    gfli_map dy = d->y, mdx = d->x;
    dy.data = d->dy;
    *dx = copy_of(old ? old : d->px, d->nx);
    *dweight = (float *)malloc((d->nw + 1) * sizeof(float));
    *dbias = (float *)malloc((size_t)s->out_c * sizeof(float));
    if (!old) memset(*dx, 0xff, d->nx * sizeof(float));
    memset(*dweight, 0xff, d->nw * sizeof(float));
    memset(*dbias, 0xff, (size_t)s->out_c * sizeof(float));
    mdx.data = *dx;
    host_conv_grad_input(context, s, d->weight, d->scale, &dy, old != NULL, &mdx);
    host_conv_grad_weight(context, s, &d->x, &dy, *dweight, *dbias);
}

static void check_grad(int index, int row, const conv_data *d, const float *old, const float *dx,
                       const float *dweight, const float *dbias) {
    naive v;
    memset(&v, 0, sizeof v);
    v.x = d->px;
    v.weight = d->scaled;
    v.dy = d->dy;
    v.dx = (double *)calloc(d->nx, sizeof(double));
    v.dweight = (double *)calloc(d->nw, sizeof(double));
    double *want = (double *)calloc((size_t)d->c.s.out_c, sizeof(double));
    for (size_t i = 0; old && i < d->nx; i++) v.dx[i] = (double)old[i];
    for (size_t i = 0; i < d->ny; i++) want[i % (size_t)d->c.s.out_c] += (double)d->dy[i];
    naive_conv(&d->c, &v);
    close_to(old ? "accumulated dx" : "dx", index, row, dx, v.dx, d->nx);
    close_to("dweight", index, row, dweight, v.dweight, d->nw);
    close_to("dbias", index, row, dbias, want, (size_t)d->c.s.out_c);
    free(v.dx);
    free(v.dweight);
    free(want);
}

static void grad_case(const conv_case *c, int index, int row) {
    conv_data d = make_data(c, (uint64_t)index * 100 + 50);
    float *first[3] = {NULL, NULL, NULL};
    for (int i = 0; i < 4; i++) { /* 1 to 3 threads, then accumulating */
        float *got[3];
        const float *old = i == 3 ? d.px : NULL;
        gfl_context *context = test_context_of(i % 3 + 1, row);
        run_grad(context, &d, old, &got[0], &got[1], &got[2]);
        if (i == 0 || i == 3) check_grad(index, row, &d, old, got[0], got[1], got[2]);
        if (i == 0) memcpy(first, got, sizeof first);
        if (i != 3) CHECK(memcmp(first[0], got[0], d.nx * sizeof(float)) == 0);
        CHECK(memcmp(first[1], got[1], d.nw * sizeof(float)) == 0);
        CHECK(memcmp(first[2], got[2], (size_t)c->s.out_c * sizeof(float)) == 0);
        for (int k = 0; k < 3 && i; k++) free(got[k]);
        gfl_context_destroy(context);
    }
    for (int k = 0; k < 3; k++) free(first[k]);
    free_data(&d);
}

/* Enough positions for several sums, and more outputs than one task takes. */
static const conv_case grad_cases[] = {
    {{8, 12, 3, 1, 1, 1}, 2, 2, {40, 20}, {41, 20}},
    {{16, 16, 3, 2, 1, 4}, 3, 1, {60}, {61}},
    {{12, 400, 1, 1, 0, 1}, 1, 1, {9}, {9}},
    {{3, 10, 7, 2, 3, 1}, 2, 1, {64}, {70}},
};

static void gradients_equal_the_plain_loop(void) {
    for (int row = 0; row < test_count_kernels(); row++) {
        for (int i = 0; i < (int)GFLI_COUNT(conv_cases); i++) grad_case(&conv_cases[i], i, row);
        for (int i = 0; i < (int)GFLI_COUNT(grad_cases); i++)
            grad_case(&grad_cases[i], 100 + i, row);
    }
}

/* The sum of y * dy: linear in x and in the weights, so differences of it are exact but for
 * rounding, however large the step. */
static double objective(gfl_context *context, conv_data *d) {
    float *y = run_conv(context, d, PLAIN);
    double sum = 0;
    for (size_t i = 0; i < d->ny; i++) sum += (double)y[i] * (double)d->dy[i];
    free(y);
    return sum;
}

static void gradients_equal_differences(void) {
    gfl_context *context = test_context(2);
    const int indices[] = {1, 5, 12, 14};
    for (size_t i = 0; i < GFLI_COUNT(indices); i++) {
        conv_data d = make_data(&conv_cases[indices[i]], 7000 + i);
        for (int o = 0; o < d.c.s.out_c; o++) d.scale[o] = 1.0f;
        float *dx, *dweight, *dbias;
        run_grad(context, &d, NULL, &dx, &dweight, &dbias);
        const double base = objective(context, &d);
        for (size_t k = 0; k < 12; k++) {
            float *at = k % 2 ? &d.px[k * 977 % d.nx] : &d.weight[k * 977 % d.nw];
            const float old = *at;
            *at = old + 4.0f;
            const double slope = (objective(context, &d) - base) / 4;
            *at = old;
            CHECK_NEAR((double)(k % 2 ? dx[k * 977 % d.nx] : dweight[k * 977 % d.nw]), slope, 2e-3);
        }
        free(dx);
        free(dweight);
        free(dbias);
        free_data(&d);
    }
    gfl_context_destroy(context);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(convolution_equals_the_plain_loop),
        TEST_TRAIN(gradients_equal_the_plain_loop),
        TEST_TRAIN(gradients_equal_differences),
        {0},
    };
    return test_main(argc, argv, cases);
}
