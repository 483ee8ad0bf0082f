/* test_optim.c - stochastic gradient descent against its formula, extents */
#include "test.h"

#include <float.h>

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

static gfli_extent measure(int threads, const float *x, size_t n) {
    gfl_context *context = test_context(threads);
    gfli_extent extent = {-1, -1};
    gfli_cpu_train.measure(context, x, n, &extent);
    gfl_context_destroy(context);
    return extent;
}

static void sums_of_squares_are_exact_enough_on_any_threads(void) {
    static const size_t sizes[7] = {0, 1, 5, 16384, 16385, 100003, 4200001};
    for (int s = 0; s < 7; s++) {
        float *x = test_uniform(sizes[s], -3, 3, 1), largest = 0;
        long double want = 0;
        for (size_t i = 0; i < sizes[s]; i++) want += (long double)x[i] * (long double)x[i];
        for (size_t i = 0; i < sizes[s]; i++) largest = fmaxf(largest, fabsf(x[i]));
        const gfli_extent got = measure(1, x, sizes[s]);
        CHECK_NEAR(got.squares, (double)want, 1e-12 * (double)want);
        CHECK(got.largest == largest);
        for (int threads = 2; threads <= 3; threads++) {
            const gfli_extent same = measure(threads, x, sizes[s]);
            CHECK(same.squares == got.squares && same.largest == got.largest);
        }
        free(x);
    }
}

/* Wherever it stands, and whatever its sign; NaN is never hidden by infinity. */
static void the_largest_number_is_found_anywhere(void) {
    static const size_t places[] = {0, 1, 2, 3, 4, 16383, 16384, 33333, 40005, 40006};
    const size_t n = 40007;
    float *x = test_uniform(n, -1, 1, 3);
    for (size_t i = 0; i < GFLI_COUNT(places); i++) {
        const float keep = x[places[i]];
        x[places[i]] = -FLT_MAX;
        CHECK(measure(2, x, n).largest == FLT_MAX);
        x[places[i]] = -INFINITY;
        CHECK(measure(2, x, n).largest == INFINITY);
        x[places[i]] = i % 2 ? NAN : -NAN;
        CHECK(isnan(measure(2, x, n).largest));
        x[(places[i] + 5) % n] = INFINITY;
        CHECK(isnan(measure(2, x, n).largest));
        x[(places[i] + 5) % n] = 0;
        x[places[i]] = keep;
    }
    CHECK(measure(1, x, n).largest < 1);
    CHECK(measure(1, NULL, 0).largest == 0 && measure(1, NULL, 0).squares == 0);
    free(x);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(sgd_follows_its_formula),
                                      TEST(sgd_of_one_parameter),
                                      TEST(sums_of_squares_are_exact_enough_on_any_threads),
                                      TEST(the_largest_number_is_found_anywhere),
                                      {0}};
    return test_main(argc, argv, cases);
}
