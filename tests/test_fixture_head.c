/* test_fixture_head.c - assignment, losses and gradients of mmdetection, every case of head/ */
#include "head.h"

/* "3*s("cls_score.l", i) - 2, ...": the shift stands in the prose. */
static double shift_of(const fx_case *one) {
    const char *prose = fx_string(fx_get(&one->json, "inputs"), "cls_score");
    if (strncmp(prose, "3*s(\"cls_score.l\", i) - ", 24) != 0) fx_die("unknown formula", prose);
    const double shift = strtod(prose + 24, NULL);
    CHECK(shift == 2 || shift == 7);
    return shift;
}

static void fill_inputs(const fx_case *one, head *t) {
    const double shift = shift_of(one);
    const char *prose = fx_string(fx_get(&one->json, "inputs"), "bbox_pred");
    if (strncmp(prose, "3*s(\"bbox_pred.l\", i) + 6*max(0, 1 - |j - m|/1.5), ", 51) != 0 ||
        !strstr(prose, "m = 1 + 8*u(\"bbox_peak.l\", k)"))
        fx_die("unknown formula", prose);
    for (int l = 0; l < t->cls.levels; l++) {
        const size_t area = (size_t)(t->cls.h[l] * t->cls.w[l]), points = area * (size_t)t->cls.n;
        uint64_t hash = fx_fnv1a64(fx_name("cls_score", l, -1));
        for (size_t i = 0; i < points * (size_t)t->cls.c; i++)
            t->cls.data[nchw(&t->cls, l, i)] = (float)(3 * fx_s(hash, i) - shift);
        hash = fx_fnv1a64(fx_name("bbox_pred", l, -1));
        const uint64_t peaks = fx_fnv1a64(fx_name("bbox_peak", l, -1));
        for (size_t i = 0; i < points * 68; i++) {
            const size_t n = i / (68 * area), channel = i / area % 68, at = i % area;
            const double m = 1 + 8 * fx_u(peaks, (n * 4 + channel / 17) * area + at);
            const double peak = fmax(0, 1 - fabs((double)(channel % 17) - m) / 1.5);
            t->reg.data[nchw(&t->reg, l, i)] = (float)(3 * fx_s(hash, i) + 6 * peak);
        }
    }
}

static void every_case_agrees(void) {
    fx_case one;
    int cases = 0;
    for (fx_list list = fx_open("head"); fx_next(&list, &one);) {
        head_check(&one, GFL_DIALECT_MMDET, fill_inputs);
        fx_free_case(&one);
        cases++;
    }
    printf("%d cases, %d boxes, %d positives\n", cases, boxes_seen / 3, positives_seen);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST_TRAIN(every_case_agrees), {0}};
    return test_main(argc, argv, cases);
}
