/* test_decode.c - integral, candidates, suppression, and all of decoding */
#include "ops.h"

enum { CLASSES = 4, BINS = 17 };

/* A pyramid of sizes first, first / 2, ... with c channels. */
static gfli_map pyramid(int n, int c, int first) {
    gfli_map m;
    memset(&m, 0, sizeof m);
    m.n = n;
    m.c = c;
    m.levels = GFL_LEVELS;
    for (int l = 0; l < GFL_LEVELS; l++) m.h[l] = m.w[l] = first >> l;
    m.data = (float *)calloc(gfli_map_count(&m), sizeof(float));
    return m;
}

static float *cell(const gfli_map *m, int l, int i, int y, int x) {
    const size_t row = (size_t)(i * m->h[l] + y) * (size_t)m->w[l] + (size_t)x;
    return m->data + (gfli_points_before(m, l) + row) * (size_t)m->c;
}

static gfli_decode_opts usual(int height, int width) {
    gfli_decode_opts o;
    memset(&o, 0, sizeof o);
    o.min_score = 0.05f;
    o.nms_iou = 0.6f;
    o.max_per_level = 1000;
    o.max_detections = 100;
    o.n_classes = CLASSES;
    o.n_bins = BINS;
    for (int l = 0; l < GFL_LEVELS; l++) o.stride[l] = gfli_level_stride(l);
    o.height = height;
    o.width = width;
    o.scale_x = o.scale_y = 1;
    return o;
}

static int decode(int threads, const gfli_map *cls, const gfli_map *reg, int index,
                  const gfli_decode_opts *o, gfli_decoded *out) {
    gfl_context *context = test_context(threads);
    const int n = host_decode(context, cls, reg, index, o, out);
    gfl_context_destroy(context);
    return n;
}

/* ---- integral -------------------------------------------------------------------------------- */

static void integral_of_a_flat_row_is_the_middle(void) {
    float logits[GFL_MAX_BINS], p[GFL_MAX_BINS];
    for (int bins = 2; bins <= GFL_MAX_BINS; bins++) {
        for (int k = 0; k < bins; k++) logits[k] = -90;
        CHECK_NEAR((double)gfli_integral(logits, bins, p), (bins - 1) / 2.0, 1e-5);
        for (int k = 0; k < bins; k++) CHECK_NEAR((double)p[k], 1.0 / bins, 1e-7);
    }
}

static void integral_of_a_spike_is_its_bin(void) {
    float logits[BINS] = {0}, p[BINS];
    for (int k = 0; k < BINS; k++) {
        logits[k] = 300;
        CHECK(gfli_integral(logits, BINS, p) == (float)k);
        CHECK(p[k] == 1);
        logits[k] = 0;
    }
}

static void integral_is_the_mean_of_the_softmax(void) {
    float *logits = test_uniform(BINS * 200, -12, 12, 1), p[BINS];
    for (int r = 0; r < 200; r++) {
        double sum = 0, mean = 0;
        for (int k = 0; k < BINS; k++) sum += exp((double)logits[BINS * r + k]);
        for (int k = 0; k < BINS; k++) mean += k * exp((double)logits[BINS * r + k]) / sum;
        CHECK_NEAR((double)gfli_integral(logits + BINS * r, BINS, p), mean, 4e-6);
    }
    free(logits);
}

/* ---- suppression ----------------------------------------------------------------------------- */

static gfli_decoded box(float x1, float y1, float x2, float y2, float score, int label) {
    gfli_decoded d;
    memset(&d, 0, sizeof d);
    d.detection.x1 = x1;
    d.detection.y1 = y1;
    d.detection.x2 = x2;
    d.detection.y2 = y2;
    d.detection.score = score;
    d.detection.label = label;
    return d;
}

static int suppress_across(bool agnostic, const gfli_decoded *boxes, int n, int most, int *keep) {
    uint64_t *ranks = (uint64_t *)malloc((size_t)n * sizeof *ranks);
    float *scratch = (float *)malloc((size_t)most * GFLI_NMS_FLOATS * sizeof *scratch);
    gfli_decode_opts o = usual(100, 100);
    o.agnostic = agnostic;
    const int kept = gfli_nms(boxes, n, &o, most, keep, ranks, scratch);
    free(ranks);
    free(scratch);
    return kept;
}

static int suppress(const gfli_decoded *boxes, int n, int most, int *keep) {
    return suppress_across(false, boxes, n, most, keep);
}

static void nms_keeps_the_better_of_two_and_other_classes(void) {
    const gfli_decoded boxes[] = {box(0, 0, 10, 10, 0.5f, 0), box(0, 0, 10, 9, 0.7f, 0),
                                  box(0, 0, 10, 10, 0.4f, 1), box(0, 0, 10, 6, 0.3f, 1),
                                  box(3, 3, 3, 3, 0.2f, 1),   box(3, 3, 3, 3, 0.2f, 1)};
    int keep[6];
    /* Box 3 meets box 2 with an IoU of just 0.6, which does not suppress; points never do. */
    CHECK(suppress(boxes, 6, 6, keep) == 5);
    CHECK(keep[0] == 1 && keep[1] == 2 && keep[2] == 3 && keep[3] == 4 && keep[4] == 5);
    CHECK(suppress(boxes, 6, 2, keep) == 2);
    CHECK(keep[0] == 1 && keep[1] == 2);
}

/* No IoU is above 1, so that a limit of 1 keeps even what is there twice. */
static void nms_at_an_iou_of_one_keeps_everything(void) {
    const gfli_decoded boxes[] = {box(2, 2, 10, 10, 0.5f, 0), box(2, 2, 10, 10, 0.7f, 0),
                                  box(2, 2, 10, 10, 0.6f, 0)};
    uint64_t ranks[3];
    float scratch[3 * GFLI_NMS_FLOATS];
    int keep[3];
    gfli_decode_opts o = usual(100, 100);
    o.nms_iou = 1;
    CHECK(gfli_nms(boxes, 3, &o, 3, keep, ranks, scratch) == 3);
    CHECK(keep[0] == 1 && keep[1] == 2 && keep[2] == 0);
    o.nms_iou = 0.9999999f;
    CHECK(gfli_nms(boxes, 3, &o, 3, keep, ranks, scratch) == 1);
}

/* Everything shifted in float32 and compared with everything; -ffp-contract is off for tests. */
static int naive_nms(const gfli_decoded *boxes, int n, int *keep) {
    float largest = 0;
    int kept = 0;
    bool *gone = (bool *)calloc((size_t)n, sizeof *gone);
    float(*b)[4] = (float(*)[4])malloc((size_t)n * sizeof *b);
    for (int i = 0; i < n; i++) memcpy(b[i], &boxes[i].detection, sizeof *b);
    for (int i = 0; i < 4 * n; i++) largest = fmaxf(largest, b[i / 4][i % 4]);
    for (int i = 0; i < 4 * n; i++)
        b[i / 4][i % 4] += (float)boxes[i / 4].detection.label * (largest + 1);
    for (;;) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (!gone[i] && (best < 0 || boxes[i].detection.score > boxes[best].detection.score))
                best = i;
        if (best < 0) break;
        keep[kept++] = best;
        gone[best] = true;
        const float *p = b[best];
        for (int i = 0; i < n; i++) {
            const float *q = b[i];
            const float w = fmaxf(0, fminf(p[2], q[2]) - fmaxf(p[0], q[0]));
            const float h = fmaxf(0, fminf(p[3], q[3]) - fmaxf(p[1], q[1]));
            const float inter = w * h, ap = (p[2] - p[0]) * (p[3] - p[1]);
            if (inter / (ap + (q[2] - q[0]) * (q[3] - q[1]) - inter) > 0.6f) gone[i] = true;
        }
    }
    free(gone);
    free(b);
    return kept;
}

/* Integer corners make equal boxes, exact IoUs and, with few scores, many ties; the last rounds
 * have so many classes that float32 lets their shifted boxes meet. */
static void nms_is_what_comparing_all_with_all_gives(void) {
    enum { N = 300 };
    for (uint64_t round = 0; round < 24; round++) {
        gfli_rng rng = gfli_rng_make(round, 0, 0, 0);
        gfli_decoded boxes[N];
        int got[N], want[N];
        const int classes = round < 12 ? 1 + (int)round : (round < 20 ? 80 : 60000);
        for (int i = 0; i < N; i++) {
            const float x = (float)gfli_rng_below(&rng, 30), y = (float)gfli_rng_below(&rng, 30);
            const float unit = round % 2 ? 1 : 33.37f;
            const float w = (float)gfli_rng_below(&rng, 12), h = (float)gfli_rng_below(&rng, 12);
            const int label = classes - 1 - gfli_rng_below(&rng, classes < 5 ? classes : 5);
            boxes[i] = box(x * unit, y * unit, (x + w) * unit, (y + h) * unit,
                           (float)(1 + gfli_rng_below(&rng, 40)) / 40, label);
        }
        const int n = naive_nms(boxes, N, want);
        CHECK(suppress(boxes, N, N, got) == n);
        CHECK(memcmp(got, want, (size_t)n * sizeof *got) == 0);
        CHECK(suppress(boxes, N, 7, got) == 7);
        CHECK(memcmp(got, want, 7 * sizeof *got) == 0);
        /* across classes: as if all were of one */
        const int across = suppress_across(true, boxes, N, N, got);
        for (int i = 0; i < N; i++) boxes[i].detection.label = 0;
        CHECK(across == naive_nms(boxes, N, want) && (across < n || classes == 1));
        CHECK(memcmp(got, want, (size_t)across * sizeof *got) == 0);
    }
}

/* ---- candidates ------------------------------------------------------------------------------ */

static int by_rank(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Against a full sort, with logits from a small set of values so that the cut falls among ties. */
static void candidates_are_the_best_pairs_of_each_level(void) {
    gfli_map cls = pyramid(2, CLASSES, 32), reg = pyramid(2, 4 * BINS, 32);
    gfli_rng rng = gfli_rng_make(8, 0, 0, 0);
    for (size_t i = 0; i < gfli_map_count(&cls); i++)
        cls.data[i] = (float)gfli_rng_below(&rng, 90) * 0.1f - 7;
    for (int most = 1; most <= 3000; most = most * 3 + 1) {
        gfli_decode_opts o = usual(256, 256);
        o.max_per_level = most;
        gfli_decoded *got = (gfli_decoded *)malloc(sizeof *got * 6000);
        uint64_t *ranks = (uint64_t *)malloc(6000 * sizeof *ranks);
        uint64_t *want = (uint64_t *)malloc(5000 * sizeof *want);
        int counts[GFL_LEVELS], at = 0;
        gfl_context *context = test_context(2);
        const int n = gfli_candidates(context, &cls, &reg, 1, &o, got, counts, ranks);
        for (int l = 0; l < GFL_LEVELS; l++) {
            int pairs = 0;
            for (int k = 0; k < cls.h[l] * cls.w[l] * CLASSES; k++) {
                const float x = cell(&cls, l, 1, 0, 0)[k], s = 1 / (1 + expf(-x));
                if (s > 0.05f) want[pairs++] = gfli_rank(s, (uint64_t)k);
            }
            qsort(want, (size_t)pairs, sizeof *want, by_rank);
            CHECK(counts[l] == gfli_min(pairs, most));
            for (int i = 0; i < counts[l]; i++, at++) {
                const int k = (int)gfli_rank_index(want[i]);
                CHECK(got[at].level == l && got[at].detection.label == k % CLASSES);
                CHECK(got[at].y * cls.w[l] + got[at].x == k / CLASSES);
                CHECK(got[at].detection.score == gfli_rank_score(want[i]));
            }
        }
        CHECK(n == at);
        gfl_context_destroy(context);
        free(got), free(ranks), free(want);
    }
    free(cls.data), free(reg.data);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void decode_wants_more_than_the_threshold(void) {
    gfli_map cls = pyramid(1, CLASSES, 16), reg = pyramid(1, 4 * BINS, 16);
    gfli_decode_opts o = usual(128, 128);
    gfli_decoded out[100];
    for (size_t i = 0; i < gfli_map_count(&cls); i++) cls.data[i] = -20;
    o.min_score = 0.5f;
    *cell(&cls, 1, 0, 3, 5) = 0; /* a score of exactly 0.5 */
    CHECK(decode(1, &cls, &reg, 0, &o, out) == 0);
    cell(&cls, 1, 0, 4, 5)[2] = 3e-7f;
    CHECK(decode(1, &cls, &reg, 0, &o, out) == 1);
    CHECK(out[0].level == 1 && out[0].y == 4 && out[0].x == 5 && out[0].detection.label == 2);
    /* Flat distributions: 8 bins of 16 pixels around (80, 64), clipped to the image. */
    CHECK(out[0].detection.x1 == 0 && out[0].detection.y1 == 0);
    CHECK(out[0].detection.x2 == 128 && out[0].detection.y2 == 128);
    o.min_score = 0.9999999f;
    cell(&cls, 1, 0, 4, 5)[2] = 60; /* the score is 1 */
    CHECK(decode(1, &cls, &reg, 0, &o, out) == 1 && out[0].detection.score == 1);
    free(cls.data), free(reg.data);
}

/* No box scores, and all are small: a test raises the scores that it is about. */
static void small_and_unlikely(const gfli_map *cls, const gfli_map *reg) {
    for (size_t i = 0; i < gfli_map_count(cls); i++) cls->data[i] = -20;
    for (size_t i = 0; i < gfli_map_count(reg); i += BINS) reg->data[i + 1] = 30;
}

static void decode_breaks_ties_by_level_then_place_then_class(void) {
    gfli_map cls = pyramid(1, CLASSES, 16), reg = pyramid(1, 4 * BINS, 16);
    gfli_decode_opts o = usual(128, 128);
    gfli_decoded out[100];
    small_and_unlikely(&cls, &reg);
    cell(&cls, 2, 0, 0, 1)[1] = cell(&cls, 0, 0, 9, 2)[0] = cell(&cls, 0, 0, 3, 12)[3] = 1;
    cell(&cls, 0, 0, 3, 12)[1] = 1;
    cell(&cls, 3, 0, 1, 1)[2] = 2;
    CHECK(decode(1, &cls, &reg, 0, &o, out) == 5);
    CHECK(out[0].level == 3);
    CHECK(out[1].y == 3 && out[1].detection.label == 1);
    CHECK(out[2].y == 3 && out[2].detection.label == 3);
    CHECK(out[3].y == 9 && out[4].level == 2);
    o.max_detections = 2;
    CHECK(decode(1, &cls, &reg, 0, &o, out) == 2 && out[1].detection.label == 1);
    free(cls.data), free(reg.data);
}

/* A location in the padding: its box is clipped to nothing, and what is no number goes too. */
static void decode_drops_boxes_without_area_and_without_numbers(void) {
    gfli_map cls = pyramid(1, CLASSES, 16), reg = pyramid(1, 4 * BINS, 16);
    gfli_decode_opts o = usual(128, 64);
    gfli_decoded out[100];
    small_and_unlikely(&cls, &reg);
    cell(&cls, 0, 0, 2, 12)[0] = 3; /* from x = 88 to 104 */
    cell(&cls, 0, 0, 5, 5)[0] = 2;
    cell(&cls, 0, 0, 6, 2)[0] = 1;
    cell(&cls, 0, 0, 6, 3)[0] = NAN;
    cell(&reg, 0, 0, 5, 5)[3] = NAN;
    CHECK(decode(1, &cls, &reg, 0, &o, out) == 1);
    CHECK(out[0].y == 6 && out[0].x == 2);
    CHECK(out[0].detection.x1 == 8 && out[0].detection.x2 == 24);
    CHECK(out[0].detection.y1 == 40 && out[0].detection.y2 == 56);
    o.scale_x = 2, o.scale_y = 0.5;
    CHECK(decode(1, &cls, &reg, 0, &o, out) == 1);
    CHECK(out[0].detection.x1 == 4 && out[0].detection.x2 == 12);
    CHECK(out[0].detection.y1 == 80 && out[0].detection.y2 == 112);
    free(cls.data), free(reg.data);
}

/* So few are kept of a level that the other classes would take all the places.  Whether the rule of
 * a dialect counts pairs or locations, the logits of classes that are not wanted may as well be so
 * low that nothing is found of them. */
static void classes_that_are_not_wanted_take_no_place(void) {
    static const uint8_t wanted[CLASSES] = {0, 1, 0, 1};
    gfli_map cls = pyramid(2, CLASSES, 32), reg = pyramid(2, 4 * BINS, 32);
    gfli_rng rng = gfli_rng_make(5, 0, 0, 0);
    gfli_decoded all[100], got[100], want[100];
    for (size_t i = 0; i < gfli_map_count(&cls); i++)
        cls.data[i] = (float)gfli_rng_below(&rng, 90) * 0.1f - (i % 2 ? 7 : 3);
    for (size_t i = 0; i < gfli_map_count(&reg); i++)
        reg.data[i] = (float)gfli_rng_uniform(&rng) * 4 - 2;
    for (int rule = 0; rule < 2; rule++) {
        gfli_decode_opts o = usual(256, 256);
        int of_others = 0;
        memset(got, 0, sizeof got);
        memset(want, 0, sizeof want);
        o.by_location = rule == 1;
        o.inclusive = rule;
        o.max_per_level = 12;
        const int n_all = decode(1, &cls, &reg, 1, &o, all);
        for (int i = 0; i < n_all; i++) of_others += !wanted[all[i].detection.label];
        o.wanted = wanted;
        const int n = decode(1, &cls, &reg, 1, &o, got);
        gfli_map low = cls;
        low.data = (float *)malloc(gfli_map_count(&cls) * sizeof(float));
        for (size_t i = 0; i < gfli_map_count(&cls); i++)
            low.data[i] = wanted[i % CLASSES] ? cls.data[i] : -90;
        o.wanted = NULL;
        CHECK(decode(1, &low, &reg, 1, &o, want) == n && n > 10 && of_others > n_all / 2);
        CHECK(memcmp(got, want, sizeof got) == 0);
        free(low.data);
    }
    free(cls.data), free(reg.data);
}

/* Two classes of one location have one box: each is found, or the better one alone. */
static void across_classes_a_box_is_found_once(void) {
    gfli_map cls = pyramid(1, CLASSES, 16), reg = pyramid(1, 4 * BINS, 16);
    gfli_decode_opts o = usual(128, 128);
    gfli_decoded out[100];
    small_and_unlikely(&cls, &reg);
    cell(&cls, 0, 0, 3, 12)[0] = 1;
    cell(&cls, 0, 0, 3, 12)[3] = 2;
    cell(&cls, 0, 0, 9, 2)[1] = 0;
    CHECK(decode(1, &cls, &reg, 0, &o, out) == 3);
    o.agnostic = true;
    CHECK(decode(1, &cls, &reg, 0, &o, out) == 2);
    CHECK(out[0].detection.label == 3 && out[0].y == 3 && out[1].detection.label == 1);
    free(cls.data), free(reg.data);
}

/* The generator of the specification's golden numbers, appendix A. */
static float next_golden(uint64_t *x, double from, double by) {
    *x = (1103515245 * *x + 12345) % 2147483648u;
    return (float)(from + by * ((double)*x / 2147483648.0));
}

static void fill_golden(const gfli_map *m, uint64_t seed, double from, double by) {
    for (int l = 0; l < GFL_LEVELS; l++) {
        uint64_t x = seed + (uint64_t)l;
        for (int c = 0; c < m->c; c++)
            for (int k = 0; k < m->h[l] * m->w[l]; k++)
                cell(m, l, 0, 0, 0)[(size_t)k * (size_t)m->c + (size_t)c] =
                    next_golden(&x, from, by);
    }
}

static void check_detection(const gfl_detection *d, double x1, double y1, double x2, double y2,
                            double score, int label) {
    CHECK_NEAR((double)d->x1, x1, 1e-4);
    CHECK_NEAR((double)d->y1, y1, 1e-4);
    CHECK_NEAR((double)d->x2, x2, 1e-4);
    CHECK_NEAR((double)d->y2, y2, 1e-4);
    CHECK_NEAR((double)d->score, score, 2e-7);
    CHECK(d->label == label);
}

static void decode_gives_the_golden_numbers(void) {
    static const int want_counts[GFL_LEVELS] = {1000, 413, 94, 25, 8};
    gfli_map cls = pyramid(1, CLASSES, 32), reg = pyramid(1, 4 * BINS, 32);
    gfli_decode_opts o = usual(250, 240);
    gfli_decoded out[1000], first[1000], *boxes = (gfli_decoded *)malloc(5000 * sizeof *boxes);
    uint64_t ranks[5000];
    int counts[GFL_LEVELS];
    double sum = 0;
    memset(first, 0, sizeof first);
    fill_golden(&cls, 1000, -6, 5);
    fill_golden(&reg, 2000, -2, 4);
    o.scale_x = 1.25;
    o.scale_y = 1.28;
    gfl_context *context = test_context(1);
    CHECK(gfli_candidates(context, &cls, &reg, 0, &o, boxes, counts, ranks) == 1540);
    CHECK(memcmp(counts, want_counts, sizeof counts) == 0);
    gfl_context_destroy(context);
    for (int threads = 1; threads <= 3; threads++) {
        memset(out, 0, sizeof out);
        CHECK(decode(threads, &cls, &reg, 0, &o, out) == 100);
        if (threads == 1) memcpy(first, out, sizeof first);
        CHECK(memcmp(first, out, sizeof first) == 0);
    }
    check_detection(&out[0].detection, 60.538906, 8.087108, 170.687988, 88.867798, 0.26889452, 0);
    check_detection(&out[1].detection, 0, 0, 148.693588, 135.472198, 0.26886675, 1);
    check_detection(&out[2].detection, 59.927856, 30.206234, 152.450912, 117.946205, 0.26871535, 2);
    check_detection(&out[99].detection, 0, 11.213430, 71.220497, 115.370796, 0.22769915, 1);
    for (int i = 0; i < 100; i++) sum += (double)out[i].detection.score;
    CHECK_NEAR(sum, 25.38873376, 1e-6);
    o.max_detections = 1000;
    CHECK(decode(1, &cls, &reg, 0, &o, out) == 221);
    o.max_per_level = 2000;
    CHECK(decode(1, &cls, &reg, 0, &o, out) > 221);
    free(cls.data), free(reg.data), free(boxes);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST_CPU(integral_of_a_flat_row_is_the_middle),
                                      TEST_CPU(integral_of_a_spike_is_its_bin),
                                      TEST_CPU(integral_is_the_mean_of_the_softmax),
                                      TEST_CPU(nms_keeps_the_better_of_two_and_other_classes),
                                      TEST_CPU(nms_at_an_iou_of_one_keeps_everything),
                                      TEST_CPU(nms_is_what_comparing_all_with_all_gives),
                                      TEST_CPU(candidates_are_the_best_pairs_of_each_level),
                                      TEST(decode_wants_more_than_the_threshold),
                                      TEST(decode_breaks_ties_by_level_then_place_then_class),
                                      TEST(decode_drops_boxes_without_area_and_without_numbers),
                                      TEST(classes_that_are_not_wanted_take_no_place),
                                      TEST(across_classes_a_box_is_found_once),
                                      TEST(decode_gives_the_golden_numbers),
                                      {0}};
    return test_main(argc, argv, cases);
}
