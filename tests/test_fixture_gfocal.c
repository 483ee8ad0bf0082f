/* test_fixture_gfocal.c - the original repository's dialect: heads, detections, suppression */
#include "decode.h"
#include "head.h"

/* ---- predictions from formulas --------------------------------------------------------------- */

static double number(const fx_case *one, const char *key) {
    return fx_number(fx_get(&one->json, "inputs"), key, NAN);
}

static uint64_t hash_of(const fx_case *one, const char *name, int level) {
    char full[64];
    snprintf(full, sizeof full, "%s%s.%d", fx_string(fx_get(&one->json, "inputs"), "name_prefix"),
             name, level);
    return fx_fnv1a64(full);
}

static bool is_hot(const fx_case *one, int n, int c, uint64_t hash, size_t i) {
    const fx_json *inputs = fx_get(&one->json, "inputs");
    const fx_json *classes = fx_get(inputs, "hot_classes"), *p = fx_get(inputs, "hot_p");
    for (int k = 0; k < classes->n; k++)
        if ((int)fx_at(classes, k)->number == c)
            return fx_u(hash, i) < fx_at(p, p->n > 1 ? n : 0)->number;
    return false;
}

static void fill_cls(const fx_case *one, const gfli_map *cls) {
    const double scale = number(one, "cls_scale"), shift = number(one, "cls_shift");
    const double hot = number(one, "cls_shift_hot"), cold = number(one, "cls_shift_cold");
    for (int l = 0; l < cls->levels; l++) {
        const size_t area = (size_t)(cls->h[l] * cls->w[l]), c = (size_t)cls->c;
        const uint64_t hash = hash_of(one, "cls_score", l), heat = hash_of(one, "hot", l);
        for (size_t i = 0; i < (size_t)cls->n * c * area; i++) {
            double move = shift;
            if (isnan(shift))
                move =
                    is_hot(one, (int)(i / (c * area)), (int)(i / area % c), heat, i) ? hot : cold;
            cls->data[nchw(cls, l, i)] = (float)(scale * fx_s(hash, i) + move);
        }
    }
}

static void fill_reg(const fx_case *one, const gfli_map *reg) {
    const double low = number(one, "peak_lo"), n = number(one, "peak_n");
    const double height = number(one, "peak_height");
    for (int l = 0; l < reg->levels; l++) {
        const size_t area = (size_t)(reg->h[l] * reg->w[l]);
        const uint64_t hash = hash_of(one, "bbox_pred", l), peaks = hash_of(one, "peak", l);
        for (size_t i = 0; i < (size_t)reg->n * 68 * area; i++) {
            const size_t image = i / (68 * area), channel = i / area % 68, at = i % area;
            const double u = fx_u(peaks, (image * 4 + channel / 17) * area + at);
            const bool peak = (int)(channel % 17) == (int)(low + floor(n * u));
            reg->data[nchw(reg, l, i)] = (float)(3 * fx_s(hash, i) + (peak ? height : 0));
        }
    }
}

/* The file's own sums, before anything else. */
static void check_inputs(const fx_case *one, const gfli_map *map, const char *key) {
    const fx_json *want = fx_get(&one->json, key);
    CHECK(want && want->n == map->levels);
    for (int l = 0; l < map->levels; l++) {
        const gfli_map level = gfli_map_level(map, l);
        double sum = 0, sum_abs = 0;
        for (size_t i = 0; i < gfli_map_count(&level); i++) {
            sum += (double)level.data[i];
            sum_abs += fabs((double)level.data[i]);
        }
        CHECK_NEAR(sum, fx_number(fx_at(want, l), "sum", NAN), 1e-9 * sum_abs);
        CHECK_NEAR(sum_abs, fx_number(fx_at(want, l), "sum_abs", NAN), 1e-9 * sum_abs);
    }
}

static void fill(const fx_case *one, head *t) {
    fill_cls(one, &t->cls);
    fill_reg(one, &t->reg);
    check_inputs(one, &t->cls, "check_cls");
    check_inputs(one, &t->reg, "check_bbox");
}

static void heads_agree(void) {
    fx_case one;
    int cases = 0;
    for (fx_list list = fx_open("gfocal/head"); fx_next(&list, &one);) {
        head_check(&one, GFL_DIALECT_GFOCAL, fill);
        fx_free_case(&one);
        cases++;
    }
    printf("%d cases, %d boxes, %d positives\n", cases, boxes_seen / 3, positives_seen);
}

/* ---- detections ------------------------------------------------------------------------------ */

static void check_image(fx_case *one, const gfli_map *cls, const gfli_map *reg, int i) {
    const fx_json *config = fx_get(&one->json, "test_cfg");
    const fx_json *image = fx_at(fx_get(&one->json, "images"), i);
    const fx_json *shape = fx_get(image, "img_shape");
    gfl_arch arch;
    gfli_decode_opts o;
    memset(&arch, 0, sizeof arch);
    arch.n_classes = cls->c;
    arch.reg_max = 16;
    arch.dialect = GFL_DIALECT_GFOCAL;
    gfli_decode_opts_init(&arch, &o);
    o.min_score = (float)fx_number(config, "score_thr", 0);
    o.nms_iou = (float)fx_number(config, "nms_iou", 0);
    o.max_per_level = fx_int(config, "nms_pre", 0);
    o.max_detections = fx_int(config, "max_per_img", 0);
    o.height = (int)fx_at(shape, 0)->number;
    o.width = (int)fx_at(shape, 1)->number;
    o.scale_x = o.scale_y = fx_number(image, "scale_factor", 0);
    check_candidates(one, cls, reg, i, &o, true);
    check_detections(one, cls, reg, i, &o, true);
}

/* Suppression alone: rows of x1 y1 x2 y2 score, and who is left, in the order of the rows. */
static void check_rule(const fx_case *one) {
    gfli_decode_opts o;
    memset(&o, 0, sizeof o);
    o.nms_iou = (float)fx_number(&one->json, "iou_thr", 0);
    o.inclusive = 1;
    const fx_json *cases = fx_get(&one->json, "cases");
    for (int i = 0; i < cases->n; i++) {
        const fx_json *rows = fx_get(fx_at(cases, i), "dets");
        const fx_json *want = fx_get(fx_at(cases, i), "keep_gpu");
        gfli_decoded boxes[16];
        int keep[16], wrong = 0;
        uint64_t ranks[16];
        float scratch[16 * GFLI_NMS_FLOATS];
        if (rows->n > 16) fx_die("too many boxes", one->name);
        memset(boxes, 0, sizeof boxes);
        for (int k = 0; k < rows->n; k++) {
            const fx_json *row = fx_at(rows, k);
            gfl_detection *d = &boxes[k].detection;
            d->x1 = (float)fx_at(row, 0)->number;
            d->y1 = (float)fx_at(row, 1)->number;
            d->x2 = (float)fx_at(row, 2)->number;
            d->y2 = (float)fx_at(row, 3)->number;
            d->score = (float)fx_at(row, 4)->number;
        }
        const int n = gfli_nms(boxes, rows->n, &o, rows->n, keep, ranks, scratch);
        CHECK(n == want->n);
        for (int k = 0; k < want->n; k++) {
            bool found = false;
            for (int j = 0; j < n; j++) found |= keep[j] == (int)fx_at(want, k)->number;
            wrong += !found;
        }
        CHECK(wrong == 0);
    }
    printf("%d cases of suppression alone\n", cases->n);
}

static void detections_agree(void) {
    fx_case one;
    for (fx_list list = fx_open("gfocal/decode"); fx_next(&list, &one); fx_free_case(&one)) {
        if (fx_get(&one.json, "cases")) {
            check_rule(&one);
            continue;
        }
        gfli_map cls = head_map(&one, fx_int(&one.json, "num_classes", 0));
        gfli_map reg = head_map(&one, 68);
        fill_cls(&one, &cls);
        fill_reg(&one, &reg);
        check_inputs(&one, &cls, "check_cls");
        check_inputs(&one, &reg, "check_bbox");
        for (int i = 0; i < cls.n; i++) check_image(&one, &cls, &reg, i);
        free(cls.data);
        free(reg.data);
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST_TRAIN(heads_agree), TEST(detections_agree), {0}};
    return test_main(argc, argv, cases);
}
