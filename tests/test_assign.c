/* test_assign.c - ATSS against a search of all cells, with boxes of every odd kind */
#include "truth.h"

typedef struct cell {
    float distance, iou;
    int y, x;
    bool inside;
} cell;

/* Every step rounded to float, by volatile: the tie rule depends on the last bit. */
static float rounded(double x) {
    volatile float f = (float)x;
    return f;
}

static int by_distance(const void *a, const void *b) {
    const cell *p = (const cell *)a, *q = (const cell *)b;
    if (p->distance != q->distance) return p->distance < q->distance ? -1 : 1;
    if (p->y != q->y) return p->y < q->y ? -1 : 1;
    return (p->x > q->x) - (p->x < q->x);
}

/* The cells of one level by their distance from the middle of a box; returns how many are valid. */
static int ref_level(const float *box, int h, int w, int stride, cell *out) {
    const float cx = rounded((double)rounded((double)box[0] + (double)box[2]) / 2);
    const float cy = rounded((double)rounded((double)box[1] + (double)box[3]) / 2);
    int n = 0;
    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++, n++) {
            const double px = x * stride, py = y * stride, r = 4 * stride;
            const double dx = (double)rounded(px - (double)cx),
                         dy = (double)rounded(py - (double)cy);
            cell *c = &out[n];
            c->y = y;
            c->x = x;
            c->distance =
                rounded(sqrt((double)rounded((double)rounded(dx * dx) + (double)rounded(dy * dy))));
            const double iw = fmax(
                (double)rounded(fmin(px + r, (double)box[2]) - fmax(px - r, (double)box[0])), 0);
            const double ih = fmax(
                (double)rounded(fmin(py + r, (double)box[3]) - fmax(py - r, (double)box[1])), 0);
            const double inter = (double)rounded(iw * ih);
            const double area = (double)rounded((double)rounded((double)box[2] - (double)box[0]) *
                                                (double)rounded((double)box[3] - (double)box[1]));
            const double both = (double)rounded(4 * r * r + area);
            c->iou = rounded(inter / (double)fmaxf(rounded(both - inter), 1e-6f));
            const double in = fmin(fmin(px - (double)box[0], py - (double)box[1]),
                                   fmin((double)box[2] - px, (double)box[3] - py));
            c->inside = rounded(in) > 0.01f;
        }
    }
    qsort(out, (size_t)n, sizeof *out, by_distance);
    return n;
}

static void ref_assign(const gfli_map *m, const int *stride, const test_truth *truths, int32_t *gt,
                       int *n_pos) {
    float *best = (float *)calloc(gfli_points(m) + 1, sizeof *best);
    cell *cells = (cell *)malloc((gfli_points(m) + 1) * sizeof *cells);
    for (int i = 0; i < m->n; i++) {
        int valid[GFL_LEVELS][2];
        n_pos[i] = 0;
        for (int l = 0; l < m->levels; l++) {
            int32_t *at = gt + gfli_points_before(m, l) + (size_t)(i * m->h[l] * m->w[l]);
            valid[l][0] = gfli_min(m->h[l], (truths[i].pad_h + stride[l] - 1) / stride[l]);
            valid[l][1] = gfli_min(m->w[l], (truths[i].pad_w + stride[l] - 1) / stride[l]);
            for (int k = 0; k < m->h[l] * m->w[l]; k++)
                at[k] = k / m->w[l] < valid[l][0] && k % m->w[l] < valid[l][1] ? -1 : -2;
        }
        for (int b = 0; b < truths[i].n; b++) {
            cell chosen[9 * GFL_LEVELS];
            size_t point[9 * GFL_LEVELS];
            int n = 0;
            for (int l = 0; l < m->levels; l++) {
                const int all =
                    ref_level(truths[i].boxes + 4 * b, valid[l][0], valid[l][1], stride[l], cells);
                for (int k = 0; k < all && k < 9; k++, n++) {
                    chosen[n] = cells[k];
                    point[n] = gfli_points_before(m, l) +
                               (size_t)((i * m->h[l] + cells[k].y) * m->w[l] + cells[k].x);
                }
            }
            double mean = 0, square = 0;
            for (int k = 0; k < n; k++) mean += (double)chosen[k].iou / n;
            for (int k = 0; k < n; k++) square += pow((double)chosen[k].iou - mean, 2);
            const float threshold =
                rounded((double)rounded(mean) + (double)rounded(sqrt(square / (n - 1))));
            for (int k = 0; k < n; k++) {
                if (n < 2 || !chosen[k].inside || !(chosen[k].iou >= threshold)) continue;
                int32_t *g = &gt[point[k]];
                if (*g >= 0 && best[point[k]] >= chosen[k].iou) continue;
                n_pos[i] += *g < 0;
                *g = b;
                best[point[k]] = chosen[k].iou;
            }
        }
    }
    free(best);
    free(cells);
}

static const int strides[GFL_LEVELS] = {8, 16, 32, 64, 128};
static const gfli_assign_opts mmdet = {{8, 16, 32, 64, 128}, 0};

/* Does the operation, on 1 to 3 threads, agree with the search?  Returns the positives. */
static int compare(const gfli_map *m, const test_truth *truths, const char *what) {
    const size_t points = gfli_points(m);
    int32_t *want = (int32_t *)malloc((points + 1) * sizeof *want);
    int *n_want = (int *)malloc(((size_t)m->n + 1) * sizeof *n_want);
    int positives = 0;
    ref_assign(m, strides, truths, want, n_want);
    for (int threads = 1; threads <= 3; threads++) {
        gfl_context *context = test_context(threads);
        gfli_assignment got;
        got.gt = (int32_t *)malloc((points + 1) * sizeof *got.gt);
        got.n_pos = (int *)malloc(((size_t)m->n + 1) * sizeof *got.n_pos);
        for (size_t i = 0; i < points; i++) got.gt[i] = 12345;
        truth_assign(context, m, &mmdet, truths, &got);
        size_t wrong = 0;
        for (size_t i = 0; i < points; i++) wrong += got.gt[i] != want[i];
        for (int i = 0; i < m->n; i++) wrong += got.n_pos[i] != n_want[i];
        if (wrong) printf("%s, %d threads: %zu differ\n", what, threads, wrong);
        CHECK(wrong == 0);
        free(got.gt);
        free(got.n_pos);
        gfl_context_destroy(context);
    }
    for (int i = 0; i < m->n; i++) positives += n_want[i];
    free(want);
    free(n_want);
    return positives;
}

/* A pyramid for a batch of this size in pixels. */
static gfli_map pyramid(int n, int height, int width) {
    gfli_map m;
    memset(&m, 0, sizeof m);
    m.n = n;
    m.c = 1;
    m.levels = GFL_LEVELS;
    for (int l = 0; l < GFL_LEVELS; l++) {
        m.h[l] = (height + strides[l] - 1) / strides[l];
        m.w[l] = (width + strides[l] - 1) / strides[l];
    }
    return m;
}

static test_truth truth_of(const float *boxes, int n, int pad_h, int pad_w) {
    test_truth t;
    t.boxes = boxes;
    t.labels = NULL;
    t.n = n;
    t.pad_h = pad_h;
    t.pad_w = pad_w;
    return t;
}

enum { BOXES = 40 };

/* Random corners, in whole pixels or not, over an image and some way beyond it. */
static void random_boxes(gfli_rng *rng, float (*boxes)[4], bool whole, int height, int width) {
    for (int i = 0; i < BOXES; i++) {
        for (int k = 0; k < 2; k++) {
            const double side = k ? height : width;
            double a = side * (1.3 * gfli_rng_uniform(rng) - 0.15);
            double size = side * pow(gfli_rng_uniform(rng), 3);
            if (whole) a = floor(a);
            if (whole) size = floor(size);
            boxes[i][k] = (float)a;
            boxes[i][k + 2] = (float)(a + size);
        }
    }
    memcpy(boxes[BOXES - 1], boxes[0], sizeof boxes[0]); /* identical: the first wins */
}

static void random_images_agree_with_the_search(void) {
    static const int sizes[5][4] = {/* batch, image */ {192, 256, 160, 256},
                                    {64, 64, 64, 64},
                                    {320, 96, 320, 96},
                                    {256, 416, 256, 32},
                                    {512, 512, 224, 480}};
    gfli_rng rng = gfli_rng_make(1, 0, 0, 0);
    for (int round = 0; round < 4; round++) {
        for (int s = 0; s < 5; s++) {
            float boxes[2][BOXES][4];
            const gfli_map m = pyramid(2, sizes[s][0], sizes[s][1]);
            test_truth truths[2];
            for (int i = 0; i < 2; i++)
                random_boxes(&rng, boxes[i], round % 2, sizes[s][0], sizes[s][1]);
            truths[0] = truth_of(boxes[0][0], BOXES, sizes[s][2], sizes[s][3]);
            truths[1] = truth_of(boxes[1][0], 7, sizes[s][0], sizes[s][1]);
            CHECK(compare(&m, truths, round % 2 ? "whole pixels" : "fractions") > 10);
        }
    }
}

/* Ties at the cut are everywhere when a box's middle is on or between cells. */
static void ties_go_to_the_lowest_cell(void) {
    const gfli_map m = pyramid(1, 256, 256);
    for (int at = 0; at < 16; at++) {
        float boxes[9][4];
        for (int i = 0; i < 9; i++) {
            const float x = (float)(8 * at + 4 * (i % 3)), y = (float)(100 + 4 * (i / 3));
            boxes[i][0] = x - 24;
            boxes[i][1] = y - 24;
            boxes[i][2] = x + 24;
            boxes[i][3] = y + 24;
        }
        const test_truth truth = truth_of(boxes[0], 9, 256, 256);
        compare(&m, &truth, "ties");
    }
}

static void odd_boxes_agree_with_the_search(void) {
    static const float boxes[][4] = {
        {50, 50, 50, 50},           {60, 40, 40, 60},         {0, 0, 0, 0},
        {-1e4f, -1e4f, 2e4f, 2e4f}, {-300, 20, -100, 60},     {1000, 2000, 1500, 2500},
        {1e5f, 10, 1.2e5f, 30},     {1e7f, 1e7f, 2e7f, 2e7f}, {-1e9f, 0, -9e8f, 40},
        {-9000, 10, -8990, 20},     {9000, 10, 9200, 20},     {10, -8300, 20, -8200},
        {-3e38f, 0, 3e38f, 100},    {100, 100, 100.01f, 300}, {127.99f, 127.99f, 128.03f, 128.03f}};
    static const int sizes[5][2] = {{256, 256}, {32, 32}, {32, 1024}, {1024, 32}, {64, 128}};
    for (int s = 0; s < 5; s++) {
        const gfli_map m = pyramid(1, sizes[s][0], sizes[s][1]);
        for (size_t i = 0; i < GFLI_COUNT(boxes); i++) {
            const test_truth truth = truth_of(boxes[i], 1, sizes[s][0], sizes[s][1]);
            compare(&m, &truth, "odd box");
        }
    }
}

/* No data set has such boxes.  Whatever they get is counted, and nothing else is written. */
static void infinities_and_nans_are_survived(void) {
    static const float boxes[6][4] = {
        {NAN, NAN, NAN, NAN}, {0, 0, INFINITY, 10},    {-INFINITY, -INFINITY, INFINITY, INFINITY},
        {100, 90, 150, 170},  {-INFINITY, 0, 10, 256}, {0, 0, NAN, 10}};
    const gfli_map m = pyramid(1, 256, 256);
    gfl_context *context = test_context(1);
    int32_t *gt = (int32_t *)malloc(gfli_points(&m) * sizeof *gt);
    for (int n = 1; n <= 6; n++) {
        const test_truth truth = truth_of(boxes[0], n, 256, 256);
        int n_pos = -1, positives = 0, others = 0;
        const gfli_assignment got = {gt, &n_pos};
        for (size_t k = 0; k < gfli_points(&m); k++) gt[k] = 12345;
        truth_assign(context, &m, &mmdet, &truth, &got);
        for (size_t k = 0; k < gfli_points(&m); k++) {
            positives += gt[k] >= 0;
            others += gt[k] < -1 || gt[k] >= n;
        }
        CHECK(positives == n_pos && others == 0);
    }
    free(gt);
    gfl_context_destroy(context);
}

/* Spec 4: a centre counts when it is more than 0.01 pixels inside, on each side.  The centres at
 * the corners are just outside of these boxes, or just inside where one side is moved; at 0, by
 * what is just a hundredth in float. */
static void centres_are_inside_by_more_than_a_hundredth(void) {
    const gfli_map m = pyramid(1, 256, 256);
    for (int k = 0; k < 6; k++) {
        const int side = k % 4;
        const float by[4] = {0, k < 4 ? 0.009f : 0.01f, 0.011f, 0.1f};
        int n[4];
        for (int i = 0; i < 4; i++) {
            float box[4] = {32, 32, 48, 48};
            for (int j = 0; j < 4 && k >= 4; j++) box[j] -= 32;
            box[side] += side < 2 ? -by[i] : by[i];
            const test_truth truth = truth_of(box, 1, 256, 256);
            n[i] = compare(&m, &truth, "a centre on the border");
        }
        CHECK(n[0] > 0 && n[1] == n[0] && n[2] > n[1] && n[3] == n[2]);
    }
}

/* A single anchor has no deviation, so no threshold: nothing is positive. */
static void one_anchor_alone_is_never_positive(void) {
    static const float box[4] = {-40, -40, 40, 40};
    gfli_map m = pyramid(1, 8, 8);
    m.levels = 1;
    const test_truth truth = truth_of(box, 1, 8, 8);
    CHECK(compare(&m, &truth, "one anchor") == 0);
    gfli_map two = pyramid(1, 8, 16);
    two.levels = 1;
    const test_truth same = truth_of(box, 1, 8, 16);
    CHECK(compare(&two, &same, "two anchors") == 2); /* equal IoU is the threshold itself */
}

static void no_boxes_and_no_valid_cells(void) {
    static const float box[4] = {10, 10, 200, 200};
    const gfli_map m = pyramid(2, 256, 256);
    test_truth truths[2];
    truths[0] = truth_of(NULL, 0, 256, 256);
    truths[1] = truth_of(NULL, 0, 32, 64);
    CHECK(compare(&m, truths, "no boxes") == 0);
    truths[0] = truth_of(box, 1, 0, 0);
    truths[1] = truth_of(box, 1, 256, 256);
    CHECK(compare(&m, truths, "no valid cells") > 0);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST_TRAIN(random_images_agree_with_the_search),
                                      TEST_TRAIN(ties_go_to_the_lowest_cell),
                                      TEST_TRAIN(odd_boxes_agree_with_the_search),
                                      TEST_TRAIN(infinities_and_nans_are_survived),
                                      TEST_TRAIN(centres_are_inside_by_more_than_a_hundredth),
                                      TEST_TRAIN(one_anchor_alone_is_never_positive),
                                      TEST_TRAIN(no_boxes_and_no_valid_cells),
                                      {0}};
    return test_main(argc, argv, cases);
}
