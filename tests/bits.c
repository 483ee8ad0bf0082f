/* bits.c - a few steps of training and a detection, as a hash of everything that comes out
 *
 * check_bits.sh compiles it with the library in one unit, as users do, in several ways.  It prints
 * a line for each instruction set: all must be equal. */
#define GFL_IMPLEMENTATION
#include "gfl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGES = 4, WIDE = 96, HIGH = 64, STEPS = 3 };

static unsigned char noise(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return (unsigned char)(*state >> 24);
}

static gfl_status read_picture(void *user, gfl_context *context, int image, gfl_pixels *out) {
    unsigned state = 1 + (unsigned)image;
    gfl_status status = gfl_pixels_alloc(context, WIDE, HIGH, out);
    (void)user;
    for (int i = 0; status == GFL_OK && i < WIDE * HIGH * 3; i++) {
        const int x = i / 3 % WIDE, y = i / 3 / WIDE;
        const int inside = x >= 10 + 5 * image && x < 50 + 5 * image && y >= 8 && y < 48;
        out->rgb[i] = (unsigned char)(noise(&state) / 4 + (inside ? 150 : 40));
    }
    return status;
}

static unsigned long long hash(unsigned long long h, const void *bytes, size_t size) {
    const unsigned char *p = (const unsigned char *)bytes;
    for (size_t i = 0; i < size; i++) h = (h ^ p[i]) * 0x100000001b3ull;
    return h;
}

static unsigned long long hash_file(unsigned long long h, const char *path) {
    static unsigned char bytes[1 << 16];
    FILE *f = fopen(path, "rb");
    size_t n;
    while (f && (n = fread(bytes, 1, sizeof bytes, f)) > 0) h = hash(h, bytes, n);
    if (f) fclose(f);
    return h;
}

static const char *annotations(void) {
    static char text[2000];
    size_t n = (size_t)snprintf(text, sizeof text,
                                "{\"categories\": [{\"id\": 1, \"name\": \"a\"}], "
                                "\"images\": [");
    for (int i = 0; i < IMAGES; i++)
        n +=
            (size_t)snprintf(text + n, sizeof text - n,
                             "%s{\"id\": %d, \"file_name\": \"%d\", \"width\": %d, \"height\": %d}",
                             i ? ", " : "", i + 1, i, WIDE, HIGH);
    n += (size_t)snprintf(text + n, sizeof text - n, "], \"annotations\": [");
    for (int i = 0; i < IMAGES; i++)
        n +=
            (size_t)snprintf(text + n, sizeof text - n,
                             "%s{\"id\": %d, \"image_id\": %d, \"category_id\": 1, \"iscrowd\": 0, "
                             "\"area\": 1600, \"bbox\": [%d, 8, 40, 40]}",
                             i ? ", " : "", i + 1, i + 1, 10 + 5 * i);
    snprintf(text + n, sizeof text - n, "]}");
    return text;
}

static int fail(gfl_context *context, const char *what) {
    fprintf(stderr, "%s: %s\n", what, gfl_context_get_error(context));
    return 1;
}

static gfl_status make_model(gfl_context *context, int depth, gfl_model **out) {
    gfl_model_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.trainable = 1;
    desc.arch.depth = depth;
    desc.arch.base_channels = 8;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.stacked_convs = 1;
    desc.arch.n_classes = 1;
    if (depth == 50) desc.arch.deform = 2;
    desc.preprocess.scale_long = WIDE;
    desc.preprocess.scale_short = HIGH;
    for (int i = 0; i < 3; i++) {
        desc.preprocess.mean[i] = 101.3f;
        desc.preprocess.std[i] = 57.1f;
    }
    return gfl_model_create(context, &desc, out);
}

/* Losses, weights, momentum and detections after a few steps. */
static int run(gfl_context *context, const gfl_dataset *data, int depth, unsigned long long *h) {
    gfl_model *model = NULL;
    gfl_trainer *trainer = NULL;
    gfl_detector *detector = NULL;
    gfl_trainer_desc recipe;
    gfl_detect_opts opts;
    gfl_detector_desc sides;
    gfl_step_report step;
    gfl_pixels pixels;
    gfl_image image;
    gfl_detection_list found;
    memset(&recipe, 0, sizeof recipe);
    memset(&opts, 0, sizeof opts);
    recipe.batch = 2;
    recipe.frozen_stages = -1;
    recipe.loaders = -1;
    opts.min_score = 0.001f;
    memset(&sides, 0, sizeof sides);
    sides.distributions = 1;
    if (make_model(context, depth, &model) != GFL_OK ||
        gfl_trainer_create(context, model, data, &recipe, &trainer) != GFL_OK)
        return fail(context, "making");
    for (int i = 0; i < STEPS; i++) {
        if (gfl_trainer_step(trainer, &step) != GFL_OK) return fail(context, "a step");
        const double numbers[] = {step.loss, step.loss_cls, step.loss_bbox, step.loss_dfl,
                                  step.grad_norm};
        *h = hash(*h, numbers, sizeof numbers);
    }
    if (gfl_trainer_save_state(trainer, "bits.state") != GFL_OK ||
        gfl_model_save(model, "bits.safetensors") != GFL_OK)
        return fail(context, "saving");
    *h = hash_file(hash_file(*h, "bits.state"), "bits.safetensors");
    if (gfl_model_sync(model) != GFL_OK ||
        gfl_detector_create(context, model, &sides, &detector) != GFL_OK ||
        gfl_dataset_read(context, data, 0, &pixels) != GFL_OK)
        return fail(context, "reading");
    image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height);
    if (gfl_detect(detector, &image, 1, &opts, &found) != GFL_OK || found.count == 0)
        return fail(context, "detecting");
    *h = hash(*h, found.items, (size_t)found.count * sizeof *found.items);
    *h = hash(*h, found.distributions, (size_t)found.count * sizeof *found.distributions);
    gfl_pixels_free(context, &pixels);
    gfl_detector_destroy(detector);
    gfl_trainer_destroy(trainer);
    gfl_model_destroy(model);
    return 0;
}

int main(void) {
    const char *json = annotations();
    gfl_dataset_desc where;
    memset(&where, 0, sizeof where);
    where.read_image = read_picture;
    for (int row = 0; gfl_cpu_get_kernel(row); row++) {
        unsigned long long h = 0xcbf29ce484222325ull;
        gfl_context *context = NULL;
        gfl_dataset *data = NULL;
        gfl_context_desc desc;
        memset(&desc, 0, sizeof desc);
        desc.n_threads = 1;
        desc.kernel = gfl_cpu_get_kernel(row);
        if (gfl_context_create(&desc, &context) != GFL_OK ||
            gfl_dataset_load_coco_memory(context, json, strlen(json), &where, &data) != GFL_OK)
            return fail(context, "opening");
        if (run(context, data, 18, &h) || run(context, data, 50, &h)) return 1;
        printf("%s %016llx\n", desc.kernel, h);
        gfl_dataset_destroy(data);
        gfl_context_destroy(context);
    }
    return 0;
}
