/* train.h - what tests of training share: internal headers, small models, data without files */
#ifndef GFL_TEST_TRAIN_H
#define GFL_TEST_TRAIN_H

#include "fixture.h"

/* Not in the shipped gfl.h: declared in gfl_train.c alone. */
#include "../src/train/loader.h"
#include "../src/train/backward.h"
#include "../src/train/trainer.h"

static inline gfl_model *train_model(gfl_context *context, const gfl_model_desc *desc) {
    gfl_model_desc trainable = *desc;
    gfl_model *model = NULL;
    trainable.trainable = 1;
    CHECK_OK(context, gfl_model_create(context, &trainable, &model));
    return model;
}

/* The smallest network with everything in it: 32 channels, one convolution in each tower. */
static inline void train_micro_desc(gfl_model_desc *desc, int depth, int n_classes) {
    memset(desc, 0, sizeof *desc);
    desc->arch.depth = depth;
    desc->arch.base_channels = 4;
    desc->arch.fpn_channels = 32;
    desc->arch.head_channels = 32;
    desc->arch.stacked_convs = 1;
    desc->arch.n_classes = n_classes;
    desc->preprocess.scale_long = 96;
    desc->preprocess.scale_short = 64;
    for (int i = 0; i < 3; i++) {
        desc->preprocess.mean[i] = 127.0f;
        desc->preprocess.std[i] = 50.0f;
    }
}

/* Where OHWI memory has element i of an OIHW tensor. */
static inline size_t train_place(const gfli_param *p, size_t i) {
    if (p->rank != 4) return i;
    size_t in = (size_t)p->shape[1], area = (size_t)(p->shape[2] * p->shape[3]);
    size_t o = i / (in * area), c = i / area % in, k = i % area;
    return (o * area + k) * in + c;
}

/* ---- pictures of rectangles ------------------------------------------------------------------ */

/* Image i of a set is a grey field with rectangles; label 0 is light, 1 is dark.  Every third
 * image is a portrait, and every fifth one is empty. */
enum { TRAIN_BOXES = 3 };

typedef struct train_picture {
    int width, height, n;
    int box[TRAIN_BOXES][4], label[TRAIN_BOXES]; /* x, y, w, h */
} train_picture;

static inline train_picture train_make_picture(int i) {
    train_picture p;
    gfli_rng rng = gfli_rng_make(77, 0, (uint64_t)i, 0);
    memset(&p, 0, sizeof p);
    p.width = i % 3 == 2 ? 60 : 90;
    p.height = i % 3 == 2 ? 90 : 60;
    p.n = i % 5 == 4 ? 0 : 1 + gfli_rng_below(&rng, TRAIN_BOXES);
    for (int k = 0; k < p.n; k++) {
        p.box[k][2] = 14 + gfli_rng_below(&rng, 30);
        p.box[k][3] = 14 + gfli_rng_below(&rng, 30);
        p.box[k][0] = gfli_rng_below(&rng, p.width - p.box[k][2]);
        p.box[k][1] = gfli_rng_below(&rng, p.height - p.box[k][3]);
        p.label[k] = gfli_rng_below(&rng, 2);
    }
    return p;
}

static inline gfl_status train_draw_picture(train_picture p, gfl_context *context,
                                            gfl_pixels *out) {
    gfl_status status = gfl_pixels_alloc(context, p.width, p.height, out);
    if (status != GFL_OK) return status;
    for (int y = 0; y < p.height; y++) {
        for (int x = 0; x < p.width; x++) {
            int value = 120 + (x * 7 + y * 13) % 16;
            for (int k = 0; k < p.n; k++) {
                int dx = x - p.box[k][0], dy = y - p.box[k][1];
                if (dx >= 0 && dy >= 0 && dx < p.box[k][2] && dy < p.box[k][3])
                    value = p.label[k] ? 20 : 230;
            }
            for (int c = 0; c < 3; c++)
                out->rgb[(y * p.width + x) * 3 + c] = (uint8_t)(value - 5 * c);
        }
    }
    return GFL_OK;
}

static inline gfl_status train_read_picture(void *user, gfl_context *context, int image,
                                            gfl_pixels *out) {
    (void)user;
    return train_draw_picture(train_make_picture(image), context, out);
}

/* n pictures that make describes and read draws. */
static inline gfl_dataset *train_dataset_of(gfl_context *context, int n, train_picture (*make)(int),
                                            gfl_pixel_source read, void *user) {
    size_t capacity = 256 + (size_t)n * 600, used = 0;
    char *json = (char *)malloc(capacity);
    const char *sep = "";
    gfl_dataset_desc opts;
    gfl_dataset *dataset = NULL;
    memset(&opts, 0, sizeof opts);
    opts.read_image = read;
    opts.user = user;
    used += (size_t)sprintf(json + used, "{\"images\":[");
    for (int i = 0; i < n; i++) {
        train_picture p = make(i);
        used += (size_t)sprintf(
            json + used, "%s{\"id\":%d,\"file_name\":\"p%d.png\",\"width\":%d,\"height\":%d}",
            i ? "," : "", i + 1, i, p.width, p.height);
    }
    used += (size_t)sprintf(json + used, "],\"annotations\":[");
    for (int i = 0, id = 1; i < n; i++) {
        train_picture p = make(i);
        for (int k = 0; k < p.n; k++, sep = ",")
            used += (size_t)sprintf(
                json + used,
                "%s{\"id\":%d,\"image_id\":%d,\"category_id\":%d,\"bbox\":[%d,%d,%d,%d],"
                "\"area\":%d,\"iscrowd\":0}",
                sep, id++, i + 1, p.label[k] + 1, p.box[k][0], p.box[k][1], p.box[k][2],
                p.box[k][3], p.box[k][2] * p.box[k][3]);
    }
    used += (size_t)sprintf(json + used, "],\"categories\":[{\"id\":1,\"name\":\"light\"},"
                                         "{\"id\":2,\"name\":\"dark\"}]}");
    CHECK_OK(context, gfl_dataset_load_coco_memory(context, json, used, &opts, &dataset));
    free(json);
    return dataset;
}

/* Those above; read NULL: as they are. */
static inline gfl_dataset *train_dataset(gfl_context *context, int n, gfl_pixel_source read,
                                         void *user) {
    return train_dataset_of(context, n, train_make_picture, read ? read : train_read_picture, user);
}

#endif
