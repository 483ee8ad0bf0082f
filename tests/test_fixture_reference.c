/* test_fixture_reference.c - the official implementation's trained model detects the same here */
#include "fixture.h"

enum { IMAGES = 10 };

typedef struct expected {
    double x1, y1, x2, y2, score;
    int id;
    bool taken;
} expected;

static double overlap(const gfl_detection *d, const expected *e) {
    double w = fmin((double)d->x2, e->x2) - fmax((double)d->x1, e->x1);
    double h = fmin((double)d->y2, e->y2) - fmax((double)d->y1, e->y1);
    if (w <= 0 || h <= 0) return 0;
    double area = (double)(d->x2 - d->x1) * (double)(d->y2 - d->y1);
    return w * h / (area + (e->x2 - e->x1) * (e->y2 - e->y1) - w * h);
}

static int detections_of(const fx_json *all, int64_t image, expected *out, int capacity) {
    int n = 0;
    for (int i = 0; i < all->n && n < capacity; i++) {
        const fx_json *d = &all->items[i], *box = fx_get(d, "bbox");
        if (fx_int(d, "image_id", -1) != image) continue;
        expected *e = &out[n++];
        e->x1 = fx_at(box, 0)->number;
        e->y1 = fx_at(box, 1)->number;
        e->x2 = e->x1 + fx_at(box, 2)->number;
        e->y2 = e->y1 + fx_at(box, 3)->number;
        e->score = fx_number(d, "score", 0);
        e->id = fx_int(d, "category_id", -1);
        e->taken = false;
    }
    return n;
}

/* How many of ours above 0.3 have a counterpart; the other direction is counted by the caller. */
static int match(const gfl_detection_list *found, const gfl_class *classes, expected *want,
                 int n_want, int *n_sure) {
    int matched = 0;
    for (int i = 0; i < found->count; i++) {
        const gfl_detection *d = &found->items[i];
        if (d->score <= 0.3f) continue;
        ++*n_sure;
        for (int k = 0; k < n_want; k++) {
            if (want[k].taken || want[k].id != (int)classes[d->label].id) continue;
            if (fabs(want[k].score - (double)d->score) >= 0.02) continue;
            if (overlap(d, &want[k]) <= 0.95) continue;
            want[k].taken = true;
            matched++;
            break;
        }
    }
    return matched;
}

static bool is_there(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

/* The first pictures of a data set, beside the official results. */
static void compare_detections(gfl_context *context, gfl_detector *detector,
                               const gfl_dataset *data, const gfl_class *classes,
                               const fx_json *all) {
    gfl_detect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.scale_long = 320, opts.scale_short = 240;
    opts.no_clip = 1;
    int sure = 0, matched = 0, expected_sure = 0, missed = 0;
    for (int i = 0; i < IMAGES && i < gfl_dataset_count_images(data); i++) {
        gfl_image_info about;
        gfl_pixels pixels;
        gfl_detection_list found;
        expected want[128];
        CHECK_OK(context, gfl_dataset_get_image(data, i, &about));
        CHECK_OK(context, gfl_dataset_read(context, data, i, &pixels));
        gfl_image image = {pixels.rgb, pixels.width, pixels.height, 0, GFL_FORMAT_RGB};
        CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &found));
        int n = detections_of(all, about.id.number, want, 128);
        CHECK(n == found.count);
        matched += match(&found, classes, want, n, &sure);
        for (int k = 0; k < n; k++) {
            expected_sure += want[k].score > 0.32;
            missed += want[k].score > 0.32 && !want[k].taken;
        }
        gfl_pixels_free(context, &pixels);
    }
    printf("%d of our %d detections above 0.3 matched; %d of %d official ones above 0.32 missed\n",
           matched, sure, missed, expected_sure);
    CHECK(sure > 50);
    CHECK(matched >= 0.97 * sure);
    CHECK(missed <= 0.03 * expected_sure);
}

static void detections_are_the_official_ones(void) {
    char weights[1024], results[1024], annotations[1024], images[1024];
    snprintf(weights, sizeof weights, "%s/reference/bccd_r18.safetensors", fx_root());
    snprintf(results, sizeof results, "%s/reference/bccd_r18_val.bbox.json", fx_root());
    snprintf(annotations, sizeof annotations, "%s/../data/bccd/annotations/instances_val.json",
             fx_root());
    snprintf(images, sizeof images, "%s/../data/bccd/val", fx_root());
    if (!is_there(weights) || !is_there(annotations)) {
        printf("skipped: no %s\n", is_there(weights) ? annotations : weights);
        test_skips++;
        return;
    }
    gfl_context *context = test_context(2);
    gfl_model *model = NULL;
    gfl_detector *detector = NULL;
    gfl_dataset *data = NULL;
    gfl_dataset_desc data_opts;
    gfl_model_info info;
    fx_json all = fx_read_json(results);
    memset(&data_opts, 0, sizeof data_opts);
    data_opts.image_dir = images;
    CHECK_OK(context, gfl_model_load(context, weights, NULL, &model));
    CHECK_OK(context, gfl_dataset_load_coco(context, annotations, &data_opts, &data));
    if (!model || !data) return;
    CHECK_OK(context, gfl_detector_create(context, model, with_distributions(), &detector));
    gfl_model_get_info(model, &info);
    CHECK(info.arch.depth == 18 && info.arch.n_classes == 3);
    CHECK(strcmp(info.classes[1].name, "WBC") == 0 && info.classes[1].id == 2);
    compare_detections(context, detector, data, info.classes, &all);
    fx_free_json(&all);
    gfl_detector_destroy(detector);
    gfl_dataset_destroy(data);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
}

/* MSRA's backbone: the model that its file describes takes it as it is, others refuse it. */
static void load_caffe(gfl_context *context, const char *path) {
    gfl_backbone_info b;
    gfl_model_desc desc;
    gfl_model *model = NULL;
    gfl_tensor_report r;
    gfli_blob file;
    memset(&desc, 0, sizeof desc);
    desc.trainable = 1;
    CHECK_OK(context, gfl_backbone_describe(context, path, NULL, &b));
    CHECK(b.arch.depth == 50 && b.arch.style == GFL_STYLE_CAFFE && b.stages == 3);
    CHECK(b.preprocess.bgr == 1 && b.preprocess.mean[0] == 103.939f && b.preprocess.std[2] == 1);
    desc.arch = b.arch;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.style = GFL_STYLE_PYTORCH;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    CHECK_ERROR(context, gfl_model_load_backbone(model, path), GFL_E_MISMATCH, "arch.style");
    gfl_model_destroy(model);
    desc.arch.style = GFL_STYLE_CAFFE;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    CHECK_ERROR(context, gfl_model_load_backbone(model, path), GFL_E_MISMATCH, "expects BGR");
    gfl_model_destroy(model);
    desc.preprocess = b.preprocess;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    CHECK_OK(context, gfl_model_load_backbone(model, path));
    for (int i = 0; gfl_model_get_report(model, i, &r) == GFL_OK; i++)
        CHECK(r.fate == (strstr(r.name, "layer4.") ? GFL_FATE_INITIALISED : GFL_FATE_LOADED));
    CHECK_OK(context, gfli_blob_open(context, path, &file));
    float bias[256];
    CHECK_OK(context, gfli_blob_read_f32(&file, gfli_blob_find(&file, "layer2.3.bn1.bias"), bias));
    int at = gfli_model_find(model, "backbone.layer2.3.bn1.bias");
    CHECK(memcmp(model->params[at].data, bias, model->params[at].count * 4) == 0);
    gfli_blob_close(&file);
    gfl_model_destroy(model);
}

/* The two backbones of the development data: one that fits, one of the other style. */
static void imagenet_backbones_load_or_say_why_not(void) {
    char good[1024], caffe[1024];
    snprintf(good, sizeof good, "%s/../data/weights/resnet18_to_c4.safetensors", fx_root());
    snprintf(caffe, sizeof caffe, "%s/../data/weights/resnet50_caffe_to_c4.safetensors", fx_root());
    if (!is_there(good) || !is_there(caffe)) {
        printf("skipped: no %s\n", is_there(good) ? caffe : good);
        test_skips++;
        return;
    }
    gfl_context *context = test_context(1);
    gfl_model *model = NULL;
    gfl_model_desc desc;
    gfl_tensor_report r;
    int fates[3] = {0, 0, 0};
    memset(&desc, 0, sizeof desc);
    desc.trainable = 1;
    desc.arch.depth = 18;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    CHECK_ERROR(context, gfl_model_load_backbone(model, caffe), GFL_E_MISMATCH, "R50");
    CHECK_OK(context, gfl_model_load_backbone(model, good));
    for (int i = 0; gfl_model_get_report(model, i, &r) == GFL_OK; i++) {
        fates[r.fate]++;
        bool last_stage = strstr(r.name, "layer4.") != NULL;
        CHECK(r.fate == (last_stage ? GFL_FATE_INITIALISED : GFL_FATE_LOADED));
    }
    CHECK(fates[GFL_FATE_LOADED] == 75 && fates[GFL_FATE_INITIALISED] == 25);
    gfl_model_destroy(model);
    load_caffe(context, caffe);
    gfl_context_destroy(context);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(detections_are_the_official_ones), TEST(imagenet_backbones_load_or_say_why_not), {0}};
    return test_main(argc, argv, cases);
}
