/* test_deform.c - deformable convolution and its gradients against plain loops in double */
#include "ops.h"

typedef struct deform_case {
    gfli_conv_shape s;
    int version, n, levels;
    int h[GFL_LEVELS], w[GFL_LEVELS];
} deform_case;

static const deform_case deform_cases[] = {
    {{1, 1, 3, 1, 1, 1}, 1, 1, 1, {1}, {1}},
    {{5, 7, 3, 1, 1, 1}, 2, 2, 1, {7}, {5}},
    {{16, 16, 3, 2, 1, 1}, 1, 2, 1, {9}, {10}},
    {{40, 33, 3, 1, 1, 1}, 2, 1, 1, {13}, {17}},
    {{64, 64, 3, 2, 1, 32}, 2, 1, 1, {11}, {7}},
    {{128, 128, 3, 1, 1, 32}, 2, 2, 1, {8}, {9}},
    {{96, 192, 3, 1, 1, 8}, 1, 1, 1, {6}, {11}},
    {{12, 12, 3, 1, 1, 12}, 2, 1, 1, {6}, {6}},
    {{72, 48, 3, 2, 1, 3}, 2, 1, 1, {5}, {6}},
    {{300, 20, 3, 1, 1, 1}, 2, 1, 1, {5}, {4}},
    {{544, 544, 3, 1, 1, 1}, 1, 1, 1, {3}, {4}},
    {{1056, 1056, 3, 1, 1, 32}, 2, 1, 1, {3}, {3}},
    {{24, 16, 3, 1, 1, 1}, 2, 2, 3, {8, 4, 1}, {7, 3, 1}},
    {{8, 12, 3, 1, 1, 1}, 2, 2, 1, {41}, {40}},
};

typedef struct deform_data {
    const deform_case *c;
    gfli_map x, offset, y;
    size_t nx, n_offset, ny, nw;
    float *weight, *scale, *bias, *old;
    double *want_y, *want_dx, *want_doffset, *want_dweight, *want_dbias;
} deform_data;

/* Offsets on a grid of quarters meet whole numbers often; some go where nothing is, some to the
 * very edges, and some are no numbers. */
static void set_offsets(deform_data *d, uint64_t seed) {
    const gfli_conv_shape *s = &d->c->s;
    gfli_rng rng = gfli_rng_make(seed, 0, 0, 1);
    float *p = d->offset.data;
    for (int l = 0; l < d->x.levels; l++) {
        for (int n = 0; n < d->x.n; n++) {
            for (int at = 0; at < d->offset.h[l] * d->offset.w[l]; at++, p += d->offset.c) {
                for (int k = 0; k < 18; k++) {
                    const int tap = k % 2 ? k / 2 % 3 : k / 6;
                    const int cell = k % 2 ? at % d->offset.w[l] : at / d->offset.w[l];
                    const int origin = cell * s->stride - s->pad + tap;
                    const int size = k % 2 ? d->x.w[l] : d->x.h[l];
                    const double u = gfli_rng_uniform(&rng), v = gfli_rng_uniform(&rng);
                    p[k] = (float)(6 * v - 3);
                    if (u < 0.4) p[k] = floorf((float)(24 * v - 12)) / 4;
                    if (u < 0.10) p[k] = (float)(-1 - origin);
                    if (u < 0.07) p[k] = (float)(size - origin);
                    if (u < 0.04) p[k] = (float)(size - 1 - origin);
                    if (u < 0.02)
                        p[k] = v < 0.3 ? NAN : v < 0.5 ? INFINITY : v < 0.7 ? 3e9f : -3e38f;
                }
                for (int k = 18; k < d->offset.c; k++)
                    p[k] = (float)(8 * gfli_rng_uniform(&rng) - 4);
            }
        }
    }
}

static float *uniform(gfli_map *map, uint64_t seed) {
    map->data = test_uniform(gfli_map_count(map), -1, 1, seed);
    return map->data;
}

static deform_data make_data(const deform_case *c, uint64_t seed) {
    deform_data d;
    memset(&d, 0, sizeof d);
    d.c = c;
    d.x = test_map(c->n, c->s.in_c, c->levels, c->h, c->w);
    d.y = test_conv_output(&c->s, &d.x);
    d.offset = d.y;
    d.offset.c = c->version == 2 ? 27 : 18;
    d.nx = gfli_map_count(&d.x);
    d.ny = gfli_map_count(&d.y);
    d.n_offset = gfli_map_count(&d.offset);
    d.nw = gfli_conv_weights(&c->s);
    uniform(&d.x, seed);
    uniform(&d.y, seed + 1); /* the gradient of y */
    uniform(&d.offset, seed + 2);
    set_offsets(&d, seed + 3);
    d.weight = test_uniform(d.nw, -1, 1, seed + 4);
    d.scale = test_uniform((size_t)c->s.out_c, 0.5, 1.5, seed + 5);
    d.bias = test_uniform((size_t)c->s.out_c, -1, 1, seed + 6);
    d.old = test_uniform(d.nx, -1, 1, seed + 7);
    d.want_y = (double *)calloc(d.ny, sizeof(double));
    d.want_dx = (double *)calloc(d.nx, sizeof(double));
    d.want_doffset = (double *)calloc(d.n_offset, sizeof(double));
    d.want_dweight = (double *)calloc(d.nw, sizeof(double));
    d.want_dbias = (double *)calloc((size_t)c->s.out_c, sizeof(double));
    return d;
}

static void free_data(deform_data *d) {
    float *floats[] = {d->x.data, d->y.data, d->offset.data, d->weight, d->scale, d->bias, d->old};
    double *doubles[] = {d->want_y, d->want_dx, d->want_doffset, d->want_dweight, d->want_dbias};
    for (size_t i = 0; i < GFLI_COUNT(floats); i++) free(floats[i]);
    for (size_t i = 0; i < GFLI_COUNT(doubles); i++) free(doubles[i]);
}

/* One sample as the specification has it: the float coordinates, then everything in double. */
typedef struct spot {
    bool counts, on_map[4];
    size_t at[4]; /* positions */
    double weight[4], by_y[4], by_x[4];
    double mask;
} spot;

static spot find_spot(const deform_data *d, const float *offset, int level, size_t image, int oy,
                      int ox, int k) {
    const gfli_conv_shape *s = &d->c->s;
    const int h = d->x.h[level], w = d->x.w[level];
    const float y = (float)(oy * s->stride - s->pad + k / 3) + offset[2 * k];
    const float x = (float)(ox * s->stride - s->pad + k % 3) + offset[2 * k + 1];
    spot p;
    memset(&p, 0, sizeof p);
    p.mask = d->offset.c == 27 ? 1 / (1 + exp(-(double)offset[18 + k])) : 1;
    p.counts = y > -1 && x > -1 && y < (float)h && x < (float)w;
    if (!p.counts) return p;
    const double fy = (double)y - floor((double)y), fx = (double)x - floor((double)x);
    for (int i = 0; i < 4; i++) {
        const int cy = (int)floor((double)y) + i / 2, cx = (int)floor((double)x) + i % 2;
        const double wy = i / 2 ? fy : 1 - fy, wx = i % 2 ? fx : 1 - fx;
        p.on_map[i] = cy >= 0 && cy < h && cx >= 0 && cx < w;
        p.at[i] = p.on_map[i] ? image + (size_t)cy * (size_t)w + (size_t)cx : 0;
        p.weight[i] = wy * wx;
        p.by_y[i] = i / 2 ? wx : -wx;
        p.by_x[i] = i % 2 ? wy : -wy;
    }
    return p;
}

/* One tap of one output position: everything that it adds to anything. */
static void add_tap(deform_data *d, const spot *p, size_t at, int k) {
    const gfli_conv_shape *s = &d->c->s;
    const int in = s->in_c / s->groups, out = s->out_c / s->groups;
    double by_mask = 0, by_y = 0, by_x = 0;
    for (int c = 0; c < s->in_c && p->counts; c++) {
        double value = 0, vy = 0, vx = 0, grad = 0;
        for (int i = 0; i < 4; i++) {
            const double v =
                p->on_map[i] ? (double)d->x.data[p->at[i] * (size_t)s->in_c + (size_t)c] : 0;
            value += p->weight[i] * v;
            vy += p->by_y[i] * v;
            vx += p->by_x[i] * v;
        }
        for (int o = c / in * out; o < (c / in + 1) * out; o++) {
            const size_t wi = (size_t)((o * 9 + k) * in + c % in),
                         yi = at * (size_t)s->out_c + (size_t)o;
            const double weight = (double)(d->scale[o] * d->weight[wi]), dy = (double)d->y.data[yi];
            d->want_y[yi] += weight * p->mask * value;
            d->want_dweight[wi] += dy * p->mask * value;
            grad += weight * dy;
        }
        for (int i = 0; i < 4; i++)
            if (p->on_map[i])
                d->want_dx[p->at[i] * (size_t)s->in_c + (size_t)c] += p->weight[i] * p->mask * grad;
        by_mask += grad * value;
        by_y += grad * p->mask * vy;
        by_x += grad * p->mask * vx;
    }
    double *doffset = d->want_doffset + at * (size_t)d->offset.c;
    doffset[2 * k] = by_y;
    doffset[2 * k + 1] = by_x;
    if (d->offset.c == 27) doffset[18 + k] = by_mask * p->mask * (1 - p->mask);
}

static void compute_wanted(deform_data *d) {
    size_t at = 0;
    for (int l = 0; l < d->x.levels; l++) {
        for (int n = 0; n < d->x.n; n++) {
            const size_t image =
                gfli_points_before(&d->x, l) + (size_t)n * (size_t)(d->x.h[l] * d->x.w[l]);
            for (int oy = 0; oy < d->y.h[l]; oy++) {
                for (int ox = 0; ox < d->y.w[l]; ox++, at++) {
                    const float *offset = d->offset.data + at * (size_t)d->offset.c;
                    for (int k = 0; k < 9; k++) {
                        const spot p = find_spot(d, offset, l, image, oy, ox, k);
                        add_tap(d, &p, at, k);
                    }
                }
            }
        }
    }
    for (size_t i = 0; i < d->ny; i++)
        d->want_dbias[i % (size_t)d->c->s.out_c] += (double)d->y.data[i];
}

static void close_to(const char *what, int index, const float *got, const double *want, size_t n) {
    double worst = 0, scale = 1;
    for (size_t i = 0; i < n; i++) {
        const double e = fabs((double)got[i] - want[i]);
        worst = isnan(e) ? INFINITY : fmax(worst, e);
        scale = fmax(scale, fabs(want[i]));
    }
    if (!(worst <= 4e-6 * scale))
        printf("case %d, %s: off by %g of %g\n", index, what, worst, scale);
    CHECK(worst <= 4e-6 * scale);
}

enum { Y, RELU_Y, DX, ADDED_DX, DOFFSET, DWEIGHT, DBIAS, ALONE_DOFFSET, RESULTS };

typedef struct results {
    float *data[RESULTS];
    size_t n[RESULTS];
} results;

static float *fresh(results *r, int what, size_t n) {
    r->data[what] = (float *)malloc(n * sizeof(float));
    memset(r->data[what], 0xff, n * sizeof(float));
    r->n[what] = n;
    return r->data[what];
}

static void run_forward(gfl_context *context, const deform_data *d, results *r) {
    const gfli_conv_shape *s = &d->c->s;
    gfli_map y = d->y;
    for (int relu = 0; relu < 2; relu++) {
        gfli_conv_call call = test_conv_call(s, &d->x, &y, relu ? d->bias : NULL, relu);
        call.offset = &d->offset;
        y.data = fresh(r, relu ? RELU_Y : Y, d->ny);
        host_convolve(context, call, d->weight, d->scale);
    }
}

static void run_backward(gfl_context *context, const deform_data *d, results *r) {
    const gfli_conv_shape *s = &d->c->s;
    gfli_map dx = d->x, doffset = d->offset;
    float *dweight = fresh(r, DWEIGHT, d->nw), *dbias = fresh(r, DBIAS, (size_t)s->out_c);
    doffset.data = fresh(r, ALONE_DOFFSET, d->n_offset);
    host_deform_conv_grad(context, s, d->weight, d->scale, &d->x, &d->offset, &d->y, false, NULL,
                          &doffset, dweight, NULL);
    doffset.data = fresh(r, DOFFSET, d->n_offset);
    dx.data = fresh(r, ADDED_DX, d->nx);
    memcpy(dx.data, d->old, d->nx * sizeof(float));
    host_deform_conv_grad(context, s, d->weight, d->scale, &d->x, &d->offset, &d->y, true, &dx,
                          &doffset, dweight, dbias);
    dx.data = fresh(r, DX, d->nx);
    host_deform_conv_grad(context, s, d->weight, d->scale, &d->x, &d->offset, &d->y, false, &dx,
                          &doffset, dweight, dbias);
}

static void compare_forward(int index, const deform_data *d, const results *r) {
    double *with_bias = (double *)malloc(d->ny * sizeof(double));
    for (size_t i = 0; i < d->ny; i++)
        with_bias[i] = fmax(0, d->want_y[i] + (double)d->bias[i % (size_t)d->c->s.out_c]);
    close_to("y", index, r->data[Y], d->want_y, d->ny);
    close_to("y after ReLU", index, r->data[RELU_Y], with_bias, d->ny);
    free(with_bias);
}

static void compare_backward(int index, const deform_data *d, const results *r) {
    double *added = (double *)malloc(d->nx * sizeof(double));
    for (size_t i = 0; i < d->nx; i++) added[i] = d->want_dx[i] + (double)d->old[i];
    close_to("dx", index, r->data[DX], d->want_dx, d->nx);
    close_to("accumulated dx", index, r->data[ADDED_DX], added, d->nx);
    close_to("doffset", index, r->data[DOFFSET], d->want_doffset, d->n_offset);
    close_to("doffset without dx", index, r->data[ALONE_DOFFSET], d->want_doffset, d->n_offset);
    close_to("dweight", index, r->data[DWEIGHT], d->want_dweight, d->nw);
    close_to("dbias", index, r->data[DBIAS], d->want_dbias, (size_t)d->c->s.out_c);
    free(added);
}

/* One direction of all cases; the bits are the same on any number of threads. */
static void all_cases(int row, bool backward) {
    for (int i = 0; i < (int)GFLI_COUNT(deform_cases); i++) {
        deform_data d = make_data(&deform_cases[i], (uint64_t)i * 100);
        results first;
        compute_wanted(&d);
        for (int threads = 1; threads <= 4; threads++) {
            results r;
            gfl_context *context = test_context_of(threads, row);
            memset(&r, 0, sizeof r);
            if (backward)
                run_backward(context, &d, &r);
            else
                run_forward(context, &d, &r);
            if (threads == 1) first = r;
            for (int k = 0; k < RESULTS && threads > 1; k++) {
                if (r.n[k]) CHECK(!memcmp(first.data[k], r.data[k], r.n[k] * sizeof(float)));
                free(r.data[k]);
            }
            gfl_context_destroy(context);
        }
        (backward ? compare_backward : compare_forward)(i, &d, &first);
        for (int k = 0; k < RESULTS; k++) free(first.data[k]);
        free_data(&d);
    }
}

static void operator_equals_the_plain_loop(void) {
    for (int row = 0; row < test_count_kernels(); row++) all_cases(row, false);
}

static void gradients_equal_the_plain_loop(void) {
    for (int row = 0; row < test_count_kernels(); row++) all_cases(row, true);
}

/* With offsets of zero and masks of one half it is half the ordinary convolution. */
static void zero_offsets_give_the_ordinary_convolution(void) {
    static const deform_case c = {{24, 40, 3, 2, 1, 4}, 2, 2, 1, {9}, {12}};
    gfl_context *context = test_context(2);
    deform_data d = make_data(&c, 5);
    results r;
    memset(d.offset.data, 0, d.n_offset * sizeof(float));
    run_forward(context, &d, &r);
    gfli_map y = d.y;
    y.data = (float *)malloc(d.ny * sizeof(float));
    host_convolve(context, test_conv_call(&c.s, &d.x, &y, NULL, 0), d.weight, d.scale);
    for (size_t i = 0; i < d.ny; i++) y.data[i] *= 0.5f;
    CHECK_CLOSE(r.data[Y], y.data, d.ny, 1e-5);
    free(r.data[Y]);
    free(r.data[RELU_Y]);
    free(y.data);
    free_data(&d);
    gfl_context_destroy(context);
}

/* What lies off the map is zero even beside infinite values, and does not touch them. */
static void nothing_is_read_beyond_the_edge(void) {
    static const deform_case c = {{4, 4, 3, 1, 1, 1}, 1, 1, 1, {2}, {2}};
    gfl_context *context = test_context(1);
    deform_data d = make_data(&c, 6);
    results r;
    for (size_t i = 0; i < d.nx; i++) d.x.data[i] = INFINITY;
    for (size_t i = 0; i < d.n_offset; i++) d.offset.data[i] = 100.0f;
    run_forward(context, &d, &r);
    for (size_t i = 0; i < d.ny; i++) CHECK(r.data[Y][i] == 0.0f);
    free(r.data[Y]);
    free(r.data[RELU_Y]);
    free_data(&d);
    gfl_context_destroy(context);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(operator_equals_the_plain_loop),
        TEST_TRAIN(gradients_equal_the_plain_loop),
        TEST(zero_offsets_give_the_ordinary_convolution),
        TEST(nothing_is_read_beyond_the_edge),
        {0},
    };
    return test_main(argc, argv, cases);
}
