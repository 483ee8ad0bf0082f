/* main.c - what a project of other people does: on the GPU where there is one, else on the CPU
 *
 * check_package.sh compiles it as C and as C++, with copies of the files and with what is
 * installed. It prints what it ran on. */
#include "gfl.h"

#include <stdio.h>
#include <string.h>

static unsigned char grey[64 * 48];

/* A narrow untrained model looks at a grey picture. */
static int detects(gfl_context *context) {
    gfl_model_desc desc;
    gfl_model *model = NULL;
    gfl_detector *detector = NULL;
    gfl_image image;
    gfl_detect_opts opts;
    gfl_detection_list found;
    int good;
    memset(grey, 128, sizeof grey);
    memset(&image, 0, sizeof image);
    image.pixels = grey;
    image.width = 64;
    image.height = 48;
    image.format = GFL_FORMAT_GREY;
    memset(&opts, 0, sizeof opts);
    opts.scale_long = 64;
    opts.scale_short = 48;
    opts.min_score = 0.001f; /* below what an untrained model says of everything */
    memset(&desc, 0, sizeof desc);
    desc.arch.depth = 18;
    desc.arch.base_channels = 8;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.n_classes = 3;
    good = gfl_model_create(context, &desc, &model) == GFL_OK &&
           gfl_detector_create(context, model, NULL, &detector) == GFL_OK &&
           gfl_detect(detector, &image, 1, &opts, &found) == GFL_OK && found.count > 0;
    if (!good) fprintf(stderr, "nothing detected: %s\n", gfl_context_get_error(context));
    gfl_detector_destroy(detector);
    gfl_model_destroy(model);
    return good;
}

int main(void) {
    char error[300] = "";
    gfl_context_desc desc;
    gfl_context *context = NULL;
    int good;
    memset(&desc, 0, sizeof desc);
    desc.backend = gfl_cuda();
    desc.error = error;
    desc.error_size = sizeof error;
    if (gfl_context_create(&desc, &context) == GFL_E_DEVICE) {
        printf("no GPU: %s\n", error);
        desc.backend = NULL;
        if (gfl_context_create(&desc, &context) != GFL_OK) return 1;
    }
    if (!context) return 1;
    printf("on %s\n", gfl_context_get_device(context));
    good = detects(context);
    gfl_context_destroy(context);
    return good ? 0 : 1;
}
