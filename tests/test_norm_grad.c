/* test_norm_grad.c - gradients of group norm with ReLU, and of level scales, against differences */
#include "ops.h"

typedef struct norm_case {
    gfli_map x, y, dy, dx;
    int groups;
    float *gamma, *beta, *stats, *dgamma, *dbeta;
} norm_case;

/* Forward in double, from x with one element moved; y, stats and the weighted sum of outputs. */
static double forward(const norm_case *t, const double *x, const double *gamma, const double *beta,
                      float *y, float *stats) {
    const int c = t->x.c, width = c / t->groups;
    double sum = 0;
    size_t plane = 0;
    for (int l = 0; l < t->x.levels; l++) {
        const int area = t->x.h[l] * t->x.w[l];
        for (int i = 0; i < t->x.n; i++, plane++) {
            const size_t at = (gfli_points_before(&t->x, l) + (size_t)(i * area)) * (size_t)c;
            for (int g = 0; g < t->groups; g++) {
                double mean = 0, var = 0;
                for (int p = 0; p < area; p++)
                    for (int k = 0; k < width; k++)
                        mean += x[at + (size_t)(p * c + g * width + k)] / (area * width);
                for (int p = 0; p < area; p++)
                    for (int k = 0; k < width; k++)
                        var +=
                            pow(x[at + (size_t)(p * c + g * width + k)] - mean, 2) / (area * width);
                const double r = 1 / sqrt(var + 1e-5);
                if (stats) stats[(plane * (size_t)t->groups + (size_t)g) * 2] = (float)mean;
                if (stats) stats[(plane * (size_t)t->groups + (size_t)g) * 2 + 1] = (float)r;
                for (int p = 0; p < area; p++) {
                    for (int k = g * width; k < (g + 1) * width; k++) {
                        const size_t e = at + (size_t)(p * c + k);
                        const double v = fmax(gamma[k] * (x[e] - mean) * r + beta[k], 0);
                        if (y) y[e] = (float)v;
                        sum += v * (double)t->dy.data[e];
                    }
                }
            }
        }
    }
    return sum;
}

static void norm_open(norm_case *t, int n, int c, int groups, int levels, const int (*sizes)[2],
                      double mean) {
    memset(t, 0, sizeof *t);
    t->x = test_uniform_map(n, c, levels, sizes, mean - 2, mean + 2, 1);
    t->y = test_uniform_map(n, c, levels, sizes, 0, 1, 2);
    t->dy = test_uniform_map(n, c, levels, sizes, -1, 1, 3);
    t->dx = test_uniform_map(n, c, levels, sizes, 7, 8, 4);
    t->groups = groups;
    t->gamma = test_uniform((size_t)c, 0.5, 1.5, 5);
    t->beta = test_uniform((size_t)c, -0.3, 0.3, 6);
    t->dgamma = test_uniform((size_t)c, 7, 8, 7);
    t->dbeta = test_uniform((size_t)c, 7, 8, 8);
    t->stats = test_uniform((size_t)(levels * n * groups * 2), 0, 1, 9);
}

static void norm_close(norm_case *t) {
    free(t->x.data);
    free(t->y.data);
    free(t->dy.data);
    free(t->dx.data);
    free(t->gamma);
    free(t->beta);
    free(t->dgamma);
    free(t->dbeta);
    free(t->stats);
}

static void norm_run(norm_case *t, const gfli_map *dx, int threads) {
    gfl_context *context = test_context(threads);
    host_group_norm_grad(context, &t->x, &t->y, t->groups, t->gamma, t->stats, &t->dy, dx,
                         t->dgamma, t->dbeta);
    gfl_context_destroy(context);
}

static double *doubles(const float *x, size_t n) {
    double *d = (double *)malloc((n + 1) * sizeof *d);
    for (size_t i = 0; i < n; i++) d[i] = (double)x[i];
    return d;
}

/* Derivatives by moving one of n numbers at a time; steps over them in strides of `every`. */
static double worst_difference(const norm_case *t, double *moved, size_t n, size_t every,
                               const double *x, const double *gamma, const double *beta,
                               const float *got) {
    const double step = 1e-5;
    double worst = 0;
    for (size_t i = 0; i < n; i += every) {
        const double was = moved[i];
        moved[i] = was + step;
        const double up = forward(t, x, gamma, beta, NULL, NULL);
        moved[i] = was - step;
        const double down = forward(t, x, gamma, beta, NULL, NULL);
        moved[i] = was;
        worst = fmax(worst, fabs((up - down) / (2 * step) - (double)got[i]));
    }
    return worst;
}

static void check_norm(int n, int c, int groups, int levels, const int (*sizes)[2], double mean,
                       size_t every) {
    norm_case t;
    norm_open(&t, n, c, groups, levels, sizes, mean);
    const size_t count = gfli_map_count(&t.x);
    double *x = doubles(t.x.data, count);
    double *gamma = doubles(t.gamma, (size_t)c), *beta = doubles(t.beta, (size_t)c);
    forward(&t, x, gamma, beta, t.y.data, t.stats);
    norm_run(&t, &t.dx, 1);
    double scale = 0, largest = 0;
    for (int k = 0; k < c; k++) scale = fmax(scale, fabs((double)t.dgamma[k]));
    for (size_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)t.dx.data[i]));
    CHECK_NEAR(worst_difference(&t, x, count, every, x, gamma, beta, t.dx.data), 0,
               3e-5 * fmax(largest, 1));
    CHECK_NEAR(worst_difference(&t, gamma, (size_t)c, 1, x, gamma, beta, t.dgamma), 0,
               1e-5 * (scale + 1));
    CHECK_NEAR(worst_difference(&t, beta, (size_t)c, 1, x, gamma, beta, t.dbeta), 0,
               1e-5 * (scale + 1));
    free(x);
    free(gamma);
    free(beta);
    norm_close(&t);
}

static void group_norm_grad_is_the_difference(void) {
    static const int sizes[3][2] = {{9, 7}, {3, 5}, {1, 1}};
    static const int wide[1][2] = {{11, 37}};
    check_norm(2, 6, 3, 3, sizes, 0, 1);
    check_norm(1, 32, 32, 2, sizes, 0, 7);
    check_norm(1, 96, 32, 1, sizes, 0, 29);
    check_norm(1, 8, 2, 1, wide, 0, 31);
    check_norm(1, 8, 2, 1, wide, 30, 31); /* a mean far from zero */
}

static void group_norm_grad_may_be_in_place_on_any_threads(void) {
    static const int sizes[2][2] = {{23, 31}, {12, 16}};
    norm_case t;
    norm_open(&t, 3, 70, 35, 2, sizes, 0);
    const size_t count = gfli_map_count(&t.x);
    double *x = doubles(t.x.data, count);
    double *gamma = doubles(t.gamma, 70), *beta = doubles(t.beta, 70);
    forward(&t, x, gamma, beta, t.y.data, t.stats);
    norm_run(&t, &t.dx, 1);
    float *dy = (float *)malloc(count * sizeof *dy);
    float dgamma[70], dbeta[70];
    memcpy(dy, t.dy.data, count * sizeof *dy);
    memcpy(dgamma, t.dgamma, sizeof dgamma);
    memcpy(dbeta, t.dbeta, sizeof dbeta);
    for (int threads = 1; threads <= 3; threads++) {
        memcpy(t.dy.data, dy, count * sizeof *dy);
        norm_run(&t, &t.dy, threads);
        CHECK(!memcmp(t.dy.data, t.dx.data, count * sizeof *dy));
        CHECK(!memcmp(t.dgamma, dgamma, sizeof dgamma));
        CHECK(!memcmp(t.dbeta, dbeta, sizeof dbeta));
    }
    free(dy);
    free(x);
    free(gamma);
    free(beta);
    norm_close(&t);
}

static void level_scale_grad_is_right_on_any_threads(void) {
    static const int sizes[4][2] = {{19, 23}, {5, 4}, {1, 3}, {1, 1}};
    static const float scale[4] = {0.5f, 2, -1.5f, 3};
    const gfli_map x = test_uniform_map(2, 3, 4, sizes, -1, 1, 1),
                   dy = test_uniform_map(2, 3, 4, sizes, -1, 1, 2);
    const gfli_map dx = test_uniform_map(2, 3, 4, sizes, 7, 8, 3);
    const size_t count = gfli_map_count(&x);
    float dscale[4];
    gfl_context *context = test_context(1);
    host_level_scale_grad(context, &x, scale, &dy, &dx, dscale);
    gfl_context_destroy(context);
    for (int l = 0; l < 4; l++) {
        const size_t at = gfli_points_before(&x, l) * 3, n = gfli_level_points(&x, l) * 3;
        double sum = 0;
        for (size_t i = at; i < at + n; i++) {
            sum += (double)x.data[i] * (double)dy.data[i];
            CHECK(dx.data[i] == scale[l] * dy.data[i]);
        }
        CHECK_NEAR(dscale[l], sum, 1e-6 * (1 + fabs(sum)));
    }
    float *kept = (float *)malloc(count * sizeof *kept);
    memcpy(kept, dy.data, count * sizeof *kept);
    for (int threads = 1; threads <= 3; threads++) {
        float again[4];
        context = test_context(threads);
        memcpy(dy.data, kept, count * sizeof *kept);
        host_level_scale_grad(context, &x, scale, &dy, &dy, again); /* in place */
        CHECK(!memcmp(again, dscale, sizeof again));
        CHECK(!memcmp(dy.data, dx.data, count * sizeof *kept));
        gfl_context_destroy(context);
    }
    free(kept);
    free(x.data);
    free(dy.data);
    free(dx.data);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST_TRAIN(group_norm_grad_is_the_difference),
                                      TEST_TRAIN(group_norm_grad_may_be_in_place_on_any_threads),
                                      TEST_TRAIN(level_scale_grad_is_right_on_any_threads),
                                      {0}};
    return test_main(argc, argv, cases);
}
