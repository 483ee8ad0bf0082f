/* host_fast_math.c - a host program in one unit, compiled with -ffast-math: the compiler may take
 * it that no number is NaN or infinite, and what has to refuse such numbers refuses them all the
 * same */
#define _POSIX_C_SOURCE 200809L
#define GFL_IMPLEMENTATION
#define GFL_INTERNAL
#include "gfl.h"

#ifndef __FAST_MATH__
#    error "this test is about -ffast-math"
#endif

static int failures;
static gfl_context *context;
static const char path[] = "host_fast_math.safetensors";

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%d: failed: %s (%s)\n", __LINE__, #condition, gfl_context_get_error(context)); \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

static gfl_model *new_model(void) {
    gfl_model_desc desc;
    gfl_model *model = NULL;
    memset(&desc, 0, sizeof desc);
    desc.trainable = 1;
    desc.arch.depth = 18;
    desc.arch.base_channels = 4;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.stacked_convs = 1;
    desc.arch.n_classes = 2;
    CHECK(gfl_model_create(context, &desc, &model) == GFL_OK);
    return model;
}

/* Bits, since the compiler may not be asked for such a number. */
static float number_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* One value of one tensor is replaced in the file. */
static gfl_status load_with(uint32_t bits) {
    gfl_model *model = new_model(), *loaded = NULL;
    memcpy(&model->params[7].data[1], &bits, sizeof bits);
    CHECK(gfl_model_save(model, path) == GFL_OK);
    gfl_model_destroy(model);
    const gfl_status status = gfl_model_load(context, path, NULL, &loaded);
    gfl_model_destroy(loaded);
    remove(path);
    return status;
}

static void detect_with(float min_score, float nms_iou, gfl_status want) {
    static uint8_t pixels[64 * 64 * 3];
    gfl_model *model = new_model();
    gfl_detector *detector = NULL;
    gfl_detection_list found;
    gfl_detect_opts opts;
    const gfl_image image = {pixels, 64, 64, 0, GFL_FORMAT_RGB};
    memset(&opts, 0, sizeof opts);
    opts.min_score = min_score;
    opts.nms_iou = nms_iou;
    CHECK(gfl_detector_create(context, model, NULL, &detector) == GFL_OK);
    CHECK(gfl_detect(detector, &image, 1, &opts, &found) == want);
    for (int i = 0; want == GFL_OK && i < found.count; i++)
        CHECK(found.items[i].score > 0 && found.items[i].score < 1);
    if (want == GFL_OK) CHECK(found.count > 0);
    gfl_detector_destroy(detector);
    gfl_model_destroy(model);
}

int main(void) {
    static const uint32_t nan = 0x7FC00000, other_nan = 0xFF800001, infinite = 0x7F800000,
                          minus_infinite = 0xFF800000, half = 0x3F000000;
    if (gfl_context_create(NULL, &context) != GFL_OK) return 1;
    CHECK(load_with(nan) == GFL_E_FORMAT && strstr(gfl_context_get_error(context), "NaN"));
    CHECK(load_with(other_nan) == GFL_E_FORMAT && strstr(gfl_context_get_error(context), "NaN"));
    CHECK(load_with(infinite) == GFL_E_FORMAT &&
          strstr(gfl_context_get_error(context), "infinite"));
    CHECK(load_with(minus_infinite) == GFL_E_FORMAT);
    CHECK(load_with(half) == GFL_OK);
    detect_with(number_of(nan), 0, GFL_E_ARG);
    detect_with(0, number_of(nan), GFL_E_ARG);
    detect_with(1e-6f, 0, GFL_OK);
    gfl_context_destroy(context);
    printf("%d failures\n", failures);
    return failures != 0;
}
