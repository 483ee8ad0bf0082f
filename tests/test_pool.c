/* test_pool.c - max pooling and nearest upsampling, against definitions */
#include "ops.h"

static gfli_map new_map(int n, int c, int levels, const int *h, const int *w) {
    gfli_map m = test_map(n, c, levels, h, w);
    m.data = test_uniform(gfli_map_count(&m), -5, -1, (uint64_t)(c + levels));
    return m;
}

static float at(const gfli_map *m, int l, int i, int y, int x, int c) {
    const size_t row = (size_t)(i * m->h[l] + y) * (size_t)m->w[l] + (size_t)x;
    return m->data[(gfli_points_before(m, l) + row) * (size_t)m->c + (size_t)c];
}

static void check_pooled(const gfli_map *x, const gfli_map *y) {
    for (int l = 0; l < y->levels; l++) {
        for (int k = 0; k < y->n * y->h[l] * y->w[l] * y->c; k++) {
            const int c = k % y->c, ox = k / y->c % y->w[l], oy = k / y->c / y->w[l] % y->h[l];
            const int i = k / y->c / y->w[l] / y->h[l];
            float want = -INFINITY;
            for (int ty = 2 * oy - 1; ty <= 2 * oy + 1; ty++) {
                for (int tx = 2 * ox - 1; tx <= 2 * ox + 1; tx++) {
                    if (ty < 0 || tx < 0 || ty >= x->h[l] || tx >= x->w[l]) continue;
                    want = fmaxf(want, at(x, l, i, ty, tx, c));
                }
            }
            CHECK(at(y, l, i, oy, ox, c) == want);
        }
    }
}

/* All values are negative: a zero from padding would win. */
static void max_pool_takes_the_largest_of_each_window(void) {
    const int h[] = {9, 8, 1, 2}, w[] = {7, 12, 1, 1}, oh[] = {5, 4, 1, 1}, ow[] = {4, 6, 1, 1};
    gfli_map x = new_map(2, 19, 4, h, w), y = new_map(2, 19, 4, oh, ow);
    for (int threads = 1; threads <= 3; threads++) {
        gfl_context *context = test_context(threads);
        memset(y.data, 0, gfli_map_count(&y) * sizeof(float));
        host_max_pool(context, &x, &y);
        check_pooled(&x, &y);
        gfl_context_destroy(context);
    }
    free(x.data), free(y.data);
}

static void max_pool_of_a_flat_map_is_flat(void) {
    const int h = 6, w = 6, oh = 3, ow = 3;
    gfli_map x = new_map(1, 4, 1, &h, &w), y = new_map(1, 4, 1, &oh, &ow);
    gfl_context *context = test_context(1);
    for (size_t i = 0; i < gfli_map_count(&x); i++) x.data[i] = -2.5f;
    host_max_pool(context, &x, &y);
    for (size_t i = 0; i < gfli_map_count(&y); i++) CHECK(y.data[i] == -2.5f);
    gfl_context_destroy(context);
    free(x.data), free(y.data);
}

/* Indices as torch.nn.functional.interpolate(mode="nearest") gives them. */
static void upsample_add_takes_the_source_that_pytorch_takes(void) {
    static const struct {
        int in, out, source[13];
    } rows[] = {{3, 6, {0, 0, 1, 1, 2, 2}},
                {1, 4, {0, 0, 0, 0}},
                {5, 5, {0, 1, 2, 3, 4}},
                {2, 3, {0, 0, 1}},
                {7, 13, {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6}}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        for (int threads = 1; threads <= 3; threads++) {
            const int ih = rows[r].in, oh = rows[r].out, iw = 2, ow = 4, c = 5;
            gfli_map x = new_map(2, c, 1, &ih, &iw), y = new_map(2, c, 1, &oh, &ow);
            gfli_map before = new_map(2, c, 1, &oh, &ow);
            gfl_context *context = test_context(threads);
            host_upsample_add(context, &x, &y);
            for (int k = 0; k < 2 * oh * ow * c; k++) {
                const int i = k / (oh * ow * c), v = k / (ow * c) % oh, u = k / c % ow;
                const float add = at(&x, 0, i, rows[r].source[v], u / 2, k % c);
                CHECK(at(&y, 0, i, v, u, k % c) == at(&before, 0, i, v, u, k % c) + add);
            }
            gfl_context_destroy(context);
            free(x.data), free(y.data), free(before.data);
        }
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(max_pool_takes_the_largest_of_each_window),
                                      TEST(max_pool_of_a_flat_map_is_flat),
                                      TEST(upsample_add_takes_the_source_that_pytorch_takes),
                                      {0}};
    return test_main(argc, argv, cases);
}
