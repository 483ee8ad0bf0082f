/* test_norm.c - GroupNorm and the level scales, against definitions in double */
#include "ops.h"

/* Straight from the definition: the mean, then the mean of squares around it. */
static void naive_norm(const gfli_map *x, int groups, double eps, const float *gamma,
                       const float *beta, float *y, float *stats) {
    const int per = x->c / groups;
    for (int l = 0; l < x->levels; l++) {
        const size_t points = (size_t)(x->h[l] * x->w[l]);
        for (int i = 0; i < x->n; i++) {
            const size_t at = (gfli_points_before(x, l) + (size_t)i * points) * (size_t)x->c;
            for (int g = 0; g < groups; g++) {
                double mean = 0, var = 0;
                for (size_t p = 0; p < points * (size_t)per; p++)
                    mean += (double)x->data[at + p / (size_t)per * (size_t)x->c +
                                            (size_t)(g * per) + p % (size_t)per];
                mean /= (double)points * per;
                for (size_t p = 0; p < points * (size_t)per; p++) {
                    double d = (double)x->data[at + p / (size_t)per * (size_t)x->c +
                                               (size_t)(g * per) + p % (size_t)per] -
                               mean;
                    var += d * d;
                }
                var /= (double)points * per;
                const double r = 1 / sqrt(var + eps);
                *stats++ = (float)mean;
                *stats++ = (float)r;
                for (size_t p = 0; p < points * (size_t)per; p++) {
                    const size_t c = (size_t)(g * per) + p % (size_t)per;
                    const size_t k = at + p / (size_t)per * (size_t)x->c + c;
                    const double v = ((double)x->data[k] - mean) * r * (double)gamma[c];
                    y[k] = (float)fmax(0, v + (double)beta[c]);
                }
            }
        }
    }
}

/* Random maps of c channels whose values lie around `offset`; both in place and not. */
static void compare_norm(int c, int groups, double offset, double tolerance) {
    const int h[] = {37, 7, 3, 1}, w[] = {29, 9, 5, 1};
    gfli_map x = test_map(2, c, 4, h, w), y = x;
    const size_t n = gfli_map_count(&x), n_stats = (size_t)(4 * 2 * groups * 2);
    float *data = test_uniform(n, offset - 2, offset + 2, (uint64_t)c);
    float *gamma = test_uniform((size_t)c, -1, 2, 5), *beta = test_uniform((size_t)c, -1, 1, 6);
    float *want = test_uniform(n, 0, 1, 7), *got = test_uniform(n, 0, 1, 8);
    float *want_stats = test_uniform(n_stats, 0, 1, 9), *stats = test_uniform(n_stats, 0, 1, 10);
    float *first = test_uniform(n, 0, 1, 11);
    x.data = data;
    naive_norm(&x, groups, 1e-5, gamma, beta, want, want_stats);
    for (int threads = 1; threads <= 3; threads++) {
        gfl_context *context = test_context(threads);
        y.data = got;
        host_group_norm(context, &x, groups, 1e-5f, gamma, beta, &y, stats);
        CHECK_CLOSE(stats, want_stats, n_stats, 2e-6);
        CHECK_CLOSE(got, want, n, tolerance);
        if (threads == 1) memcpy(first, got, n * sizeof *first);
        CHECK(memcmp(first, got, n * sizeof *first) == 0);
        memcpy(got, data, n * sizeof *got);
        host_group_norm(context, &y, groups, 1e-5f, gamma, beta, &y, stats);
        CHECK(memcmp(first, got, n * sizeof *first) == 0);
        gfl_context_destroy(context);
    }
    free(data), free(gamma), free(beta), free(want), free(got);
    free(want_stats), free(stats), free(first);
}

static void group_norm_is_its_definition_for_any_width_of_groups(void) {
    compare_norm(32, 32, 0, 1e-5);
    compare_norm(64, 32, 0, 1e-5);
    compare_norm(96, 32, 0, 1e-5);
    compare_norm(256, 32, 0, 1e-5);
    compare_norm(20, 4, 0, 1e-5);
    compare_norm(40, 1, 0, 1e-5);
    compare_norm(280, 140, 0, 1e-5); /* more groups than are done at once */
    compare_norm(600, 2, 0, 1e-5);   /* 300 channels a group: more than are done at once */
}

/* Far from zero the squares would drown the variance if they were summed as such: 1e6 in float32
 * would lose it all. */
static void group_norm_keeps_the_variance_of_values_far_from_zero(void) {
    /* a GPU's mean is a float: half a unit of 1000, by gamma, by at most 1 / sqrt(eps) */
    const double tolerance = test_backend ? 3.1e-5 * 2 * 316 : 2e-5;
    compare_norm(64, 32, 1000, tolerance);
    compare_norm(600, 2, 1000, tolerance);
}

static void group_norm_of_a_flat_map_is_beta(void) {
    const int h = 5, w = 6;
    gfli_map x = test_map(1, 32, 1, &h, &w);
    float *data = test_uniform(gfli_map_count(&x), 3, 4, 1), stats[64], gamma[32], beta[32];
    gfl_context *context = test_context(1);
    for (size_t i = 0; i < gfli_map_count(&x); i++) data[i] = (float)(i % 32);
    for (int c = 0; c < 32; c++) {
        gamma[c] = 2;
        beta[c] = (float)(c - 16);
    }
    x.data = data;
    host_group_norm(context, &x, 32, 1e-5f, gamma, beta, &x, stats);
    for (size_t i = 0; i < gfli_map_count(&x); i++)
        CHECK_NEAR((double)data[i], fmax(0, (double)(i % 32) - 16), 0);
    CHECK_NEAR((double)stats[2 * 7], 7, 0);
    CHECK_NEAR((double)stats[2 * 7 + 1], 1 / sqrt((double)1e-5f), 1e-4);
    gfl_context_destroy(context);
    free(data);
}

static void group_norm_of_a_spike_follows_from_its_height(void) {
    /* One 1 among n values: mean 1/n, variance (n - 1) / n^2. */
    const int h = 9, w = 11, n = 99;
    gfli_map x = test_map(1, 32, 1, &h, &w);
    float *data = (float *)calloc(gfli_map_count(&x), sizeof *data), stats[64], gamma[32];
    float beta[32] = {0};
    gfl_context *context = test_context(1);
    for (int c = 0; c < 32; c++) {
        gamma[c] = 1;
        data[(size_t)c * 33 % (size_t)n * 32 + (size_t)c] = 1;
    }
    x.data = data;
    host_group_norm(context, &x, 32, 1e-5f, gamma, beta, &x, stats);
    const double mean = 1.0 / n, r = 1 / sqrt((n - 1.0) / n / n + (double)1e-5f);
    for (int c = 0; c < 32; c++) {
        CHECK_NEAR((double)stats[2 * c], mean, 1e-8);
        CHECK_NEAR((double)stats[2 * c + 1], r, 1e-5);
        const size_t at = (size_t)c * 33 % (size_t)n * 32 + (size_t)c;
        CHECK_NEAR((double)data[at], (1 - mean) * r, 1e-5);
        CHECK_NEAR((double)data[(at + 32) % gfli_map_count(&x)], 0, 0);
    }
    gfl_context_destroy(context);
    free(data);
}

static void level_scale_multiplies_each_level_by_its_own(void) {
    const int h[] = {60, 3, 1}, w[] = {50, 5, 1};
    const float scale[] = {0.5f, 3, -1};
    gfli_map x = test_map(2, 68, 3, h, w), y = x;
    const size_t n = gfli_map_count(&x);
    gfl_context *context = test_context(2);
    x.data = test_uniform(n, -1, 1, 3);
    y.data = test_uniform(n, -1, 1, 4);
    host_level_scale(context, &x, scale, &y);
    for (size_t i = 0; i < n; i++) {
        const size_t p = i / 68;
        const int l = p >= gfli_points_before(&x, 2) ? 2 : (p >= gfli_points_before(&x, 1) ? 1 : 0);
        CHECK(y.data[i] == scale[l] * x.data[i]);
    }
    host_level_scale(context, &x, scale, &x);
    CHECK(memcmp(x.data, y.data, n * sizeof(float)) == 0);
    gfl_context_destroy(context);
    free(x.data), free(y.data);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(group_norm_is_its_definition_for_any_width_of_groups),
                                      TEST(group_norm_keeps_the_variance_of_values_far_from_zero),
                                      TEST(group_norm_of_a_flat_map_is_beta),
                                      TEST(group_norm_of_a_spike_follows_from_its_height),
                                      TEST(level_scale_multiplies_each_level_by_its_own),
                                      {0}};
    return test_main(argc, argv, cases);
}
