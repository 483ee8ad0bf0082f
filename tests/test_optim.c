/* test_optim.c - stochastic gradient descent against its formula, sums of squares */
#include "test.h"

static void sgd_follows_its_formula(void) {
    const size_t n = 40001; /* three chunks */
    float *p0 = test_uniform(n, -1, 1, 1), *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        gfl_context *context = test_context(threads);
        float *p = test_uniform(n, -1, 1, 1), *v = test_uniform(n, 5, 9, 2);
        double *wp = (double *)malloc(n * sizeof *wp), *wv = (double *)calloc(n, sizeof *wv);
        for (size_t i = 0; i < n; i++) wp[i] = (double)p0[i];
        v[7] = NAN; /* before the first step the buffer means nothing */
        for (int step = 0; step < 4; step++) {
            const double lr = 0.02 / (step + 1), clip = step == 2 ? 0.25 : 1;
            float *g = test_uniform(n, -2, 2, 10 + (uint64_t)step);
            gfli_cpu_train.sgd(context, p, v, g, n, lr, 0.9, 1e-2, clip, step == 0);
            for (size_t i = 0; i < n; i++) {
                const double gradient = clip * (double)g[i] + 1e-2 * wp[i];
                wv[i] = step ? 0.9 * wv[i] + gradient : gradient;
                wp[i] -= lr * wv[i];
            }
            free(g);
        }
        double worst = 0;
        for (size_t i = 0; i < n; i++) {
            worst = fmax(worst, fabs((double)p[i] - wp[i]) + fabs((double)v[i] - wv[i]));
            if (isnan(v[i])) worst = INFINITY;
        }
        CHECK_NEAR(worst, 0, 2e-6);
        if (first) CHECK(!memcmp(first, p, n * sizeof *p));
        free(wp);
        free(wv);
        free(v);
        if (first)
            free(p);
        else
            first = p;
        gfl_context_destroy(context);
    }
    free(first);
    free(p0);
}

/* One parameter, numbers by hand: p = 1, g = 2, lr 0.5, momentum 0.5, decay 0.25. */
static void sgd_of_one_parameter(void) {
    gfl_context *context = test_context(1);
    float p = 1, v = -77, g = 2;
    gfli_cpu_train.sgd(context, &p, &v, &g, 1, 0.5, 0.5, 0.25, 1, true);
    CHECK(v == 2.25f && p == -0.125f);
    gfli_cpu_train.sgd(context, &p, &v, &g, 1, 0.25, 0.5, 0.25, 0.5, false);
    CHECK(v == 2.09375f && p == -0.6484375f);
    gfli_cpu_train.sgd(context, NULL, NULL, NULL, 0, 0.25, 0.5, 0.25, 0.5, true);
    gfl_context_destroy(context);
}

static void sum_squares_is_exact_enough_on_any_threads(void) {
    static const size_t sizes[7] = {0, 1, 5, 16384, 16385, 100003, 4200001};
    for (int s = 0; s < 7; s++) {
        float *x = test_uniform(sizes[s], -3, 3, 1);
        long double want = 0;
        double got[3];
        for (size_t i = 0; i < sizes[s]; i++) want += (long double)x[i] * (long double)x[i];
        for (int threads = 1; threads <= 3; threads++) {
            gfl_context *context = test_context(threads);
            got[threads - 1] = gfli_cpu_train.sum_squares(context, x, sizes[s]);
            gfl_context_destroy(context);
        }
        CHECK_NEAR(got[0], (double)want, 1e-12 * (double)want);
        CHECK(!memcmp(&got[0], &got[1], sizeof got[0]));
        CHECK(!memcmp(&got[0], &got[2], sizeof got[0]));
        free(x);
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(sgd_follows_its_formula),
                                      TEST(sgd_of_one_parameter),
                                      TEST(sum_squares_is_exact_enough_on_any_threads),
                                      {0}};
    return test_main(argc, argv, cases);
}
