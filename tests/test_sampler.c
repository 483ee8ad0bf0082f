/* test_sampler.c - the order of images: each once an epoch, kinds together, the same every time */
#include "test.h"

#include "../src/data/dataset.h"

#include "../src/train/loader.h"

enum { N = 1000, BATCH = 16 };
static int order[N], again[N], scratch[N + 2 * BATCH];
static bool portrait[N];

static void paint_kinds(double share) {
    gfli_rng rng = gfli_rng_make(5, 0, 0, 0);
    for (int i = 0; i < N; i++) portrait[i] = gfli_rng_uniform(&rng) < share;
}

static bool each_once(const int *x, int n) {
    bool seen[N] = {false};
    for (int i = 0; i < n; i++) {
        if (x[i] < 0 || x[i] >= n || seen[x[i]]) return false;
        seen[x[i]] = true;
    }
    return true;
}

static void every_image_appears_once(void) {
    paint_kinds(0.4);
    for (int epoch = 0; epoch < 5; epoch++)
        for (int n = 1; n <= N; n += 111) {
            gfli_sampler_order(1, epoch, n, BATCH, NULL, order, scratch);
            CHECK(each_once(order, n));
            gfli_sampler_order(1, epoch, n, BATCH, portrait, order, scratch);
            CHECK(each_once(order, n));
        }
}

static void order_depends_on_seed_and_epoch_alone(void) {
    gfli_sampler_order(7, 3, N, BATCH, NULL, order, scratch);
    gfli_sampler_order(7, 4, N, BATCH, NULL, again, scratch);
    CHECK(memcmp(order, again, sizeof order) != 0);
    gfli_sampler_order(8, 3, N, BATCH, NULL, again, scratch);
    CHECK(memcmp(order, again, sizeof order) != 0);
    memset(scratch, 0x55, sizeof scratch);
    gfli_sampler_order(7, 3, N, BATCH, NULL, again, scratch);
    CHECK(memcmp(order, again, sizeof order) == 0);
}

/* A saved run must find its place again with a later version: these numbers are for ever. */
static void order_never_changes(void) {
    static const int want[10] = {7, 4, 8, 3, 0, 6, 1, 5, 2, 9};
    gfli_sampler_order(2024, 1, 10, 4, NULL, order, scratch);
    for (int i = 0; i < 10; i++) CHECK(order[i] == want[i]);
    if (memcmp(order, want, sizeof want) != 0)
        for (int i = 0; i < 10; i++) printf("%d, ", order[i]);
}

static void all_places_are_equally_likely(void) {
    enum { SMALL = 8, ROUNDS = 8000 };
    int counts[SMALL][SMALL] = {{0}};
    for (int epoch = 0; epoch < ROUNDS; epoch++) {
        gfli_sampler_order(3, epoch, SMALL, 2, NULL, order, scratch);
        for (int i = 0; i < SMALL; i++) counts[i][order[i]]++;
    }
    double chi = 0, expected = (double)ROUNDS / (int)SMALL;
    for (int i = 0; i < SMALL; i++)
        for (int j = 0; j < SMALL; j++)
            chi += (counts[i][j] - expected) * (counts[i][j] - expected) / expected;
    printf("chi squared %.1f of 49 degrees of freedom\n", chi);
    CHECK(chi > 20 && chi < 100);
}

/* The rule told another way: walk the shuffled list; a kind's k-th group of BATCH is complete when
 * its last member comes, and groups are in the order of those moments. */
static void kinds_are_together_in_the_order_of_completion(void) {
    static const double shares[] = {0, 0.02, 0.4, 1};
    for (size_t s = 0; s < GFLI_COUNT(shares); s++) {
        paint_kinds(shares[s]);
        int shuffled[N], want[N], n = 0, count[2] = {0, 0};
        gfli_sampler_order(11, 2, N, BATCH, NULL, shuffled, scratch);
        gfli_sampler_order(11, 2, N, BATCH, portrait, order, scratch);
        for (int i = 0; i < N; i++) {
            int kind = portrait[shuffled[i]];
            if (++count[kind] % BATCH) continue;
            int start = n += BATCH;
            for (int j = i, k = BATCH; k > 0; j--) /* backwards from its last member */
                if (portrait[shuffled[j]] == (kind != 0)) want[--start] = shuffled[j], k--;
        }
        for (int kind = 1; kind >= 0; kind--)
            for (int i = 0, c = 0; i < N; i++)
                if (portrait[shuffled[i]] == (kind != 0) && ++c > count[kind] / BATCH * BATCH)
                    want[n++] = shuffled[i];
        CHECK(n == N && memcmp(order, want, sizeof want) == 0);
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(every_image_appears_once),
                                      TEST(order_depends_on_seed_and_epoch_alone),
                                      TEST(order_never_changes),
                                      TEST(all_places_are_equally_likely),
                                      TEST(kinds_are_together_in_the_order_of_completion),
                                      {0}};
    return test_main(argc, argv, cases);
}
