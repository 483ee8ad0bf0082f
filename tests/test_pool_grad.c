/* test_pool_grad.c - gradients of max pooling, upsampling and ReLU, and sums of maps */
#include "ops.h"

static void relu_grad_stops_where_the_output_is_not_positive(void) {
    static const int sizes[2][2] = {{3, 2}, {1, 1}};
    gfl_context *context = test_context(2);
    const gfli_map y = test_uniform_map(1, 1, 2, sizes, 1, 2, 1),
                   dy = test_uniform_map(1, 1, 2, sizes, 1, 2, 2);
    static const float of_y[7] = {0, -0.0f, 1, 1e-40f, -1, 3, 5};
    static const float want[7] = {0, 0, 3, 4, 0, 6, 7};
    for (int i = 0; i < 7; i++) {
        y.data[i] = of_y[i];
        dy.data[i] = (float)i + 1;
    }
    host_relu_grad(context, &y, &dy);
    for (int i = 0; i < 7; i++) CHECK(dy.data[i] == want[i]);
    free(y.data);
    free(dy.data);
    gfl_context_destroy(context);
}

static void long_maps_are_done_to_the_end(void) {
    static const int sizes[2][2] = {{90, 91}, {33, 7}};
    const gfli_map s = test_uniform_map(2, 5, 2, sizes, -1, 1, 1);
    const size_t n = gfli_map_count(&s);
    for (int threads = 1; threads <= 3; threads++) {
        gfl_context *context = test_context(threads);
        const gfli_map d = test_uniform_map(2, 5, 2, sizes, -1, 1, 2);
        float *was = test_uniform(n, -1, 1, 2);
        host_relu_grad(context, &s, &d);
        for (size_t i = 0; i < n; i++) CHECK(d.data[i] == (s.data[i] > 0 ? was[i] : 0));
        free(was);
        free(d.data);
        gfl_context_destroy(context);
    }
    free(s.data);
}

/* The gradient by definition: each output's to the first of its window's largest. */
static void ref_pool(const gfli_map *x, const gfli_map *dy, double *dx) {
    for (int n = 0; n < x->n; n++) {
        for (int oy = 0; oy < dy->h[0]; oy++) {
            for (int ox = 0; ox < dy->w[0]; ox++) {
                for (int k = 0; k < x->c; k++) {
                    int best = -1;
                    for (int t = 0; t < 9; t++) {
                        const int iy = 2 * oy - 1 + t / 3, ix = 2 * ox - 1 + t % 3;
                        if (iy < 0 || ix < 0 || iy >= x->h[0] || ix >= x->w[0]) continue;
                        const int at = ((n * x->h[0] + iy) * x->w[0] + ix) * x->c + k;
                        if (best < 0 || x->data[at] > x->data[best]) best = at;
                    }
                    dx[best] += (double)dy->data[((n * dy->h[0] + oy) * dy->w[0] + ox) * dy->c + k];
                }
            }
        }
    }
}

static void max_pool_grad_goes_to_the_first_maximum(void) {
    static const int sizes[6][2] = {{8, 8}, {7, 9}, {1, 1}, {1, 6}, {13, 2}, {16, 11}};
    for (int s = 0; s < 6; s++) {
        const int half[1][2] = {{(sizes[s][0] + 1) / 2, (sizes[s][1] + 1) / 2}};
        const gfli_map x = test_uniform_map(2, 21, 1, &sizes[s], 0, 1, 1);
        const gfli_map dy = test_uniform_map(2, 21, 1, half, -1, 1, 2);
        const size_t n = gfli_map_count(&x);
        if (s % 2) /* a few values only, so that windows are full of ties */
            for (size_t i = 0; i < n; i++) x.data[i] = floorf(3 * x.data[i]) - 1;
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            double *want = (double *)calloc(n, sizeof *want);
            for (int threads = 1; threads <= 3; threads++) {
                gfl_context *context = test_context(threads);
                const gfli_map dx = test_uniform_map(2, 21, 1, &sizes[s], -1, 1, 3);
                for (size_t i = 0; i < n; i++) want[i] = accumulate ? (double)dx.data[i] : 0;
                ref_pool(&x, &dy, want);
                host_max_pool_grad(context, &x, &dy, accumulate, &dx);
                for (size_t i = 0; i < n; i++) CHECK_NEAR(dx.data[i], want[i], 1e-6);
                free(dx.data);
                gfl_context_destroy(context);
            }
            free(want);
        }
        free(x.data);
        free(dy.data);
    }
}

static void upsample_grad_sums_over_the_copies(void) {
    static const int in[5][2] = {{4, 6}, {5, 3}, {1, 1}, {7, 13}, {6, 4}};
    static const int out[5][2] = {{8, 12}, {13, 7}, {3, 2}, {13, 25}, {3, 4}};
    for (int s = 0; s < 5; s++) {
        const gfli_map dy = test_uniform_map(2, 3, 1, &out[s], -1, 1, 1);
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            for (int threads = 1; threads <= 3; threads++) {
                gfl_context *context = test_context(threads);
                const gfli_map dx = test_uniform_map(2, 3, 1, &in[s], -1, 1, 2);
                const size_t n = gfli_map_count(&dx);
                double *want = (double *)calloc(n, sizeof *want);
                for (size_t i = 0; i < n; i++) want[i] = accumulate ? (double)dx.data[i] : 0;
                for (int i = 0; i < 2 * out[s][0] * out[s][1] * 3; i++) {
                    const int k = i % 3, x = i / 3 % out[s][1], y = i / 3 / out[s][1] % out[s][0];
                    const int from_y = y * in[s][0] / out[s][0], from_x = x * in[s][1] / out[s][1];
                    const int image = i / 3 / out[s][1] / out[s][0];
                    want[((image * in[s][0] + from_y) * in[s][1] + from_x) * 3 + k] +=
                        (double)dy.data[i];
                }
                host_upsample_grad(context, &dy, accumulate, &dx);
                for (size_t i = 0; i < n; i++) CHECK_NEAR(dx.data[i], want[i], 1e-5);
                free(want);
                free(dx.data);
                gfl_context_destroy(context);
            }
        }
        free(dy.data);
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST_TRAIN(relu_grad_stops_where_the_output_is_not_positive),
                                      TEST_TRAIN(long_maps_are_done_to_the_end),
                                      TEST_TRAIN(max_pool_grad_goes_to_the_first_maximum),
                                      TEST_TRAIN(upsample_grad_sums_over_the_copies),
                                      {0}};
    return test_main(argc, argv, cases);
}
