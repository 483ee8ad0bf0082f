/* test_optim.c - stochastic gradient descent against its formula, and what stands against it */
#include "ops.h"

#include <float.h>

/* An update of one part with the usual momentum. */
static gfli_update update_of(float *p, float *v, const float *g, size_t n,
                             const gfli_update_part *part) {
    gfli_update u;
    memset(&u, 0, sizeof u);
    u.params = p;
    u.momentum = v;
    u.gradients = g;
    u.n = n;
    u.parts = part;
    u.n_parts = 1;
    u.momentum_factor = 0.9;
    u.share = 1;
    return u;
}

/* As the verdict of a check that found nothing. */
static void update_with(gfl_context *context, const gfli_update *u, double share) {
    gfli_verdict verdict;
    memset(&verdict, 0, sizeof verdict);
    verdict.share = share;
    host_update(context, u, &verdict);
}

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
            const gfli_update_part whole = {0, n, 2, 0.5}; /* factors */
            gfli_update u = update_of(p, v, g, n, &whole);
            u.lr = lr / 2;
            u.decay = 2e-2;
            u.first = step == 0;
            update_with(context, &u, clip);
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
    const gfli_update_part part = {0, 1, 1, 1};
    gfli_update u = update_of(&p, &v, &g, 1, &part);
    u.lr = u.momentum_factor = 0.5;
    u.decay = 0.25;
    u.first = true;
    update_with(context, &u, 1);
    CHECK(v == 2.25f && p == -0.125f);
    u.lr = 0.25;
    u.first = false;
    update_with(context, &u, 0.5);
    CHECK(v == 2.09375f && p == -0.6484375f);
    gfli_verdict fault;
    memset(&fault, 0, sizeof fault);
    fault.fault = GFLI_FAULT_LOSS;
    host_update(context, &u, &fault);
    CHECK(v == 2.09375f && p == -0.6484375f); /* nothing moves where something was found */
    u.n = 0;
    u.n_parts = 0;
    update_with(context, &u, 1);
    gfl_context_destroy(context);
}

/* What the check says of gradients alone, in two halves. */
static gfli_verdict check(int threads, const float *g, size_t n) {
    gfl_context *context = test_context(threads);
    const gfli_update_part halves[2] = {{0, n / 2, 1, 1}, {n / 2, n - n / 2, 1, 1}};
    float *zeros = (float *)calloc(n + 1, sizeof *zeros);
    gfli_update u = update_of(zeros, zeros, g, n, halves);
    u.n_parts = 2;
    u.lr = 0.1;
    const gfli_verdict verdict = host_check_update(context, &u);
    free(zeros);
    gfl_context_destroy(context);
    return verdict;
}

static void norms_are_exact_enough_on_any_threads(void) {
    static const size_t sizes[7] = {0, 1, 5, 16384, 16385, 100003, 4200001};
    for (int s = 0; s < 7; s++) {
        float *x = test_uniform(sizes[s], -3, 3, 1), largest = 0;
        long double want = 0;
        for (size_t i = 0; i < sizes[s]; i++) want += (long double)x[i] * (long double)x[i];
        for (size_t i = 0; i < sizes[s]; i++) largest = fmaxf(largest, fabsf(x[i]));
        const gfli_verdict got = check(1, x, sizes[s]);
        CHECK_NEAR(got.norm * got.norm, (double)want, 1e-12 * (double)want);
        CHECK(got.gradient == (double)largest && got.fault == GFLI_FAULT_NONE);
        for (int threads = 2; threads <= 3; threads++) {
            const gfli_verdict same = check(threads, x, sizes[s]);
            CHECK(same.norm == got.norm && same.gradient == got.gradient);
        }
        free(x);
    }
}

static void clipping_lowers_the_share(void) {
    static const float g[3] = {3, 0, -4};
    const gfli_update_part part = {0, 3, 1, 1};
    gfl_context *context = test_context(1);
    float p[3] = {0}, v[3] = {0};
    gfli_update u = update_of(p, v, g, 3, &part);
    u.share = 0.5;
    u.clip = 1;
    gfli_verdict verdict = host_check_update(context, &u);
    CHECK_NEAR(verdict.norm, 2.5, 1e-12);
    CHECK_NEAR(verdict.share, 0.5 / 2.5, 1e-6);
    u.clip = 3;
    verdict = host_check_update(context, &u);
    CHECK(verdict.share == 0.5);
    gfl_context_destroy(context);
}

/* Wherever it stands, and whatever its sign; NaN is never hidden by infinity. */
static void what_is_not_finite_is_found_anywhere(void) {
    static const size_t places[] = {0, 1, 2, 3, 4, 16383, 16384, 33333, 40005, 40006};
    const size_t n = 40007;
    float *x = test_uniform(n, -1, 1, 3);
    for (size_t i = 0; i < GFLI_COUNT(places); i++) {
        const float keep = x[places[i]];
        const int half = places[i] >= n / 2;
        x[places[i]] = -FLT_MAX;
        gfli_verdict got = check(2, x, n);
        CHECK(got.fault == GFLI_FAULT_OVERFLOW && got.where == half);
        CHECK(got.gradient == (double)FLT_MAX);
        x[places[i]] = -INFINITY;
        got = check(2, x, n);
        CHECK(got.fault == GFLI_FAULT_GRADIENT && got.where == half);
        x[places[i]] = i % 2 ? NAN : -NAN;
        got = check(2, x, n);
        CHECK(got.fault == GFLI_FAULT_GRADIENT && got.where == half && isnan(got.norm));
        x[places[i]] = keep;
    }
    CHECK(check(1, x, n).fault == GFLI_FAULT_NONE);
    free(x);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST_TRAIN(sgd_follows_its_formula),
                                      TEST_TRAIN(sgd_of_one_parameter),
                                      TEST_TRAIN(norms_are_exact_enough_on_any_threads),
                                      TEST_TRAIN(clipping_lowers_the_share),
                                      TEST_TRAIN(what_is_not_finite_is_found_anywhere),
                                      {0}};
    return test_main(argc, argv, cases);
}
