/* test_fixture_decode.c - predictions to detections as mmdetection makes them */
#include "decode.h"

/* "name.0" .. as one map: N C H W to our N H W C. */
static gfli_map load_map(fx_case *one, const char *name) {
    gfli_map m;
    fx_tensor level[GFL_LEVELS];
    memset(&m, 0, sizeof m);
    for (; m.levels < GFL_LEVELS; m.levels++) {
        const int l = m.levels;
        level[l] = fx_load_optional(one, fx_name(name, l, -1));
        if (!level[l].data) break;
        m.n = (int)level[l].shape[0];
        m.c = (int)level[l].shape[1];
        m.h[l] = (int)level[l].shape[2];
        m.w[l] = (int)level[l].shape[3];
    }
    m.data = (float *)malloc(gfli_map_count(&m) * sizeof(float));
    float *out = m.data;
    for (int l = 0; l < m.levels; l++) {
        const size_t plane = (size_t)(m.h[l] * m.w[l]);
        for (int i = 0; i < m.n; i++)
            for (size_t p = 0; p < plane; p++)
                for (int c = 0; c < m.c; c++)
                    *out++ = (float)level[l].data[(size_t)(i * m.c + c) * plane + p];
        free(level[l].data);
    }
    return m;
}

static void check_decode(fx_case *one) {
    gfli_map cls = load_map(one, "cls_score"), reg = load_map(one, "bbox_pred");
    const fx_json *config = fx_get(&one->json, "test_cfg"), *images = fx_get(&one->json, "images");
    CHECK(cls.levels > 0 && reg.levels == cls.levels && images && images->n == cls.n);
    for (int i = 0; i < cls.n; i++) {
        const fx_json *image = fx_at(images, i), *shape = fx_get(image, "img_shape");
        const fx_json *scale = fx_get(image, "scale_factor");
        gfli_decode_opts o;
        memset(&o, 0, sizeof o);
        o.min_score = (float)fx_number(config, "score_thr", 0);
        o.nms_iou = (float)fx_number(config, "nms_iou", 0);
        o.max_per_level = fx_int(config, "nms_pre", 0);
        o.max_detections = fx_int(config, "max_per_img", 0);
        o.n_classes = fx_int(&one->json, "num_classes", 0);
        o.n_bins = reg.c / 4;
        for (int l = 0; l < GFL_LEVELS; l++) o.stride[l] = gfli_level_stride(l);
        o.height = (int)fx_at(shape, 0)->number;
        o.width = (int)fx_at(shape, 1)->number;
        o.scale_x = fx_at(scale, 0)->number;
        o.scale_y = fx_at(scale, 1)->number;
        CHECK(o.n_classes == cls.c && o.max_detections > 0);
        check_candidates(one, &cls, &reg, i, &o, false);
        check_detections(one, &cls, &reg, i, &o, false);
    }
    free(cls.data);
    free(reg.data);
}

static void check_nms(fx_case *one) {
    fx_tensor boxes = fx_load(one, "boxes"), scores = fx_load(one, "scores");
    fx_tensor labels = fx_load(one, "labels"), want = fx_load(one, "keep");
    const size_t n = scores.count;
    gfli_decoded *in = (gfli_decoded *)calloc(n, sizeof *in);
    int *keep = (int *)malloc(n * sizeof *keep);
    uint64_t *ranks = (uint64_t *)malloc(n * sizeof *ranks);
    float *scratch = (float *)malloc(n * GFLI_NMS_FLOATS * sizeof *scratch);
    for (size_t i = 0; i < n; i++) {
        gfl_detection *d = &in[i].detection;
        d->x1 = (float)boxes.data[4 * i];
        d->y1 = (float)boxes.data[4 * i + 1];
        d->x2 = (float)boxes.data[4 * i + 2];
        d->y2 = (float)boxes.data[4 * i + 3];
        d->score = (float)scores.data[i];
        d->label = (int)labels.data[i];
    }
    gfli_decode_opts o;
    memset(&o, 0, sizeof o);
    o.nms_iou = (float)fx_number(&one->json, "iou_threshold", 0);
    const int kept = gfli_nms(in, (int)n, &o, (int)n, keep, ranks, scratch);
    near(kept, (double)want.count, 0, "survivors", -1);
    for (int i = 0; i < kept && (size_t)i < want.count; i++)
        near(keep[i], want.data[i], 0, "survivor", i);
    free(boxes.data), free(scores.data), free(labels.data), free(want.data);
    free(in), free(keep), free(ranks), free(scratch);
}

static void decode_agrees_with_the_fixtures(void) {
    fx_case one;
    int n_decode = 0, n_nms = 0;
    for (fx_list list = fx_open("decode"); fx_next(&list, &one);) {
        fx_tensor boxes = fx_load_optional(&one, "boxes"); /* straight into suppression */
        if (boxes.data) {
            check_nms(&one);
            n_nms++;
        } else {
            check_decode(&one);
            n_decode++;
        }
        free(boxes.data);
        fx_free_case(&one);
    }
    if (!test_skips) printf("%d cases from logits, %d from boxes\n", n_decode, n_nms);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(decode_agrees_with_the_fixtures), {0}};
    return test_main(argc, argv, cases);
}
