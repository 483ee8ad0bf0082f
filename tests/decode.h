/* decode.h - comparing detections with those of a fixture */
#ifndef GFL_TEST_DECODE_H
#define GFL_TEST_DECODE_H

#include "fixture.h"
#include "ops.h"

static void near(double got, double want, double tolerance, const char *what, int at) {
    if (fabs(got - want) <= tolerance) {
        test_checks++;
        return;
    }
    char text[160];
    snprintf(text, sizeof text, "%s %d is %.9g, wanted %.9g", what, at, got, want);
    test_fail(__FILE__, __LINE__, text);
}

/* What a list of ours is compared with; location is NULL where it is not known. */
typedef struct expected {
    fx_tensor boxes, scores, labels, location;
} expected;

static void free_expected(expected *e) {
    free(e->boxes.data), free(e->scores.data), free(e->labels.data), free(e->location.data);
}

static bool same_place(const gfli_decoded *got, const expected *want, size_t i, int width) {
    const gfl_detection *d = &got->detection;
    const float b[4] = {d->x1, d->y1, d->x2, d->y2};
    if (got->detection.label != (int)want->labels.data[i]) return false;
    if (want->location.data && got->y * width + got->x != (int)want->location.data[i]) return false;
    for (int k = 0; k < 4; k++)
        if (!(fabs((double)b[k] - want->boxes.data[4 * i + (size_t)k]) <= 1e-3)) return false;
    return fabs((double)got->detection.score - want->scores.data[i]) <= 1e-6;
}

/* In the same order, except that items whose scores differ by less than 1e-6 may change places. */
static void compare(const gfli_decoded *got, int n, const expected *want, int width,
                    const char *what) {
    const size_t count = want->scores.count;
    int swapped = 0;
    near(n, (double)count, 0, what, -1);
    if ((size_t)n != count) return;
    bool *used = (bool *)calloc(count + 1, sizeof *used);
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (size_t k = 0; k < count; k++) {
            const size_t j = (i + k) % count; /* its own place first */
            if (fabs(want->scores.data[j] - want->scores.data[i]) >= 1e-6 || used[j]) continue;
            if (!same_place(&got[i], want, j, width)) continue;
            used[j] = true;
            at = j;
            break;
        }
        swapped += at != i;
        if (!used[at] || !same_place(&got[i], want, at, width)) {
            char text[200];
            snprintf(text, sizeof text, "%s: number %d, label %d, score %.9g, is not as wanted",
                     what, (int)i, got[i].detection.label, (double)got[i].detection.score);
            test_fail(__FILE__, __LINE__, text);
        }
        test_checks++;
    }
    if (swapped) printf("%s: %d of %d among equals changed places\n", what, swapped, n);
    free(used);
}

/* Best first. */
static void sort_expected(expected *e) {
    const size_t n = e->scores.count;
    for (size_t i = 1; i < n; i++) {
        for (size_t j = i; j > 0 && e->scores.data[j] > e->scores.data[j - 1]; j--) {
            fx_tensor *all[4] = {&e->boxes, &e->scores, &e->labels, &e->location};
            for (int t = 0; t < 4; t++) {
                const size_t width = t == 0 ? 4 : 1;
                for (size_t k = 0; all[t]->data && k < width; k++) {
                    double *a = &all[t]->data[j * width + k], *b = a - width, keep = *a;
                    *a = *b;
                    *b = keep;
                }
            }
        }
    }
}

static int by_score(const void *a, const void *b) {
    const float x = ((const gfli_decoded *)a)->detection.score;
    const float y = ((const gfli_decoded *)b)->detection.score;
    return (x < y) - (x > y);
}

/* sets: the fixture's order means nothing. */
static void check_candidates(fx_case *one, const gfli_map *cls, const gfli_map *reg, int image,
                             const gfli_decode_opts *o, bool sets) {
    size_t most = 0;
    int counts[GFL_LEVELS] = {0}, at = 0;
    for (int l = 0; l < cls->levels; l++) most += gfli_max_candidates(cls, o, l);
    gfli_decoded *got = (gfli_decoded *)malloc(most * sizeof *got);
    uint64_t *ranks = (uint64_t *)malloc(most * sizeof *ranks);
    gfli_candidates(one->context, cls, reg, image, o, got, counts, ranks);
    for (int l = 0; l < cls->levels; l++) {
        char what[64];
        expected want;
        snprintf(what, sizeof what, "candidates of image %d level %d", image, l);
        want.boxes = fx_load(one, fx_name("cand_box", image, l));
        want.scores = fx_load(one, fx_name("cand_score", image, l));
        want.labels = fx_load(one, fx_name("cand_label", image, l));
        want.location = fx_load(one, fx_name("cand_location", image, l));
        if (sets) sort_expected(&want);
        if (sets && counts[l] > 0) qsort(got + at, (size_t)counts[l], sizeof *got, by_score);
        compare(got + at, counts[l], &want, cls->w[l], what);
        at += counts[l];
        free_expected(&want);
    }
    free(got);
    free(ranks);
}

static void check_detections(fx_case *one, const gfli_map *cls, const gfli_map *reg, int image,
                             const gfli_decode_opts *o, bool sets) {
    gfli_decoded *got = (gfli_decoded *)calloc((size_t)o->max_detections, sizeof *got);
    gfli_decoded *first = (gfli_decoded *)calloc((size_t)o->max_detections, sizeof *first);
    for (int threads = 1; threads <= 3; threads++) {
        gfl_context *context = test_context(threads);
        const int n = host_decode(context, cls, reg, image, o, got);
        if (threads == 1) {
            expected want;
            memset(&want, 0, sizeof want);
            want.boxes = fx_load(one, fx_name("det_boxes", image, -1));
            want.scores = fx_load(one, fx_name("det_scores", image, -1));
            want.labels = fx_load(one, fx_name("det_labels", image, -1));
            if (sets) sort_expected(&want);
            compare(got, n, &want, 0, "detections");
            free_expected(&want);
            memcpy(first, got, (size_t)n * sizeof *got);
        }
        CHECK(memcmp(first, got, (size_t)n * sizeof *got) == 0);
        gfl_context_destroy(context);
    }
    free(got);
    free(first);
}

#endif
