/* detect.c - find the objects in a picture: detect WEIGHTS PICTURE */
#include "gfl.h"
#include <stdio.h>

int main(int argc, char **argv) {
    gfl_context *context = NULL;
    gfl_model *model = NULL;
    gfl_detector *detector = NULL;
    gfl_pixels pixels = {0};
    gfl_detection_list found;
    if (argc != 3) return fputs("usage: detect WEIGHTS PICTURE\n", stderr), 2;

    int ok = gfl_context_create(NULL, &context) == GFL_OK &&
             gfl_model_load(context, argv[1], NULL, &model) == GFL_OK &&
             gfl_detector_create(context, model, NULL, &detector) == GFL_OK &&
             gfl_image_read(context, argv[2], &pixels) == GFL_OK;
    gfl_image image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height);
    ok = ok && gfl_detect(detector, &image, 1, NULL, &found) == GFL_OK;
    for (int i = 0; ok && i < found.count; i++) {
        const gfl_detection *d = &found.items[i];
        char name[80]; /* what a file says may hold what a terminal obeys */
        gfl_text_show(gfl_model_get_class(model, d->label)->name, name, sizeof name);
        printf("%-20s %.3f  %.1f %.1f %.1f %.1f\n", name, (double)d->score, (double)d->x1,
               (double)d->y1, (double)d->x2, (double)d->y2);
    }
    if (!ok) fprintf(stderr, "detect: %s\n", gfl_context_get_error(context));

    gfl_pixels_free(context, &pixels);
    gfl_detector_destroy(detector);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return ok && fflush(stdout) == 0 ? 0 : 1;
}
