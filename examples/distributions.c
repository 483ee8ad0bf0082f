/* distributions.c - how sure the detector is of each side: distributions WEIGHTS PICTURE
 *
 * GFL predicts a distribution over the distance to every side of a box.  Its standard deviation
 * tells blurred or hidden edges from sharp ones, which a tracker or a measurement can weigh. */
#include "gfl.h"
#include <stdio.h>

static void print_sides(const gfl_detection *d, const gfl_distribution *p) {
    static const char *const sides[4] = {"left", "top", "right", "bottom"};
    const float edge[4] = {d->x1, d->y1, d->x2, d->y2};
    printf("label %d, score %.3f\n", d->label, (double)d->score);
    for (int k = 0; k < 4; k++)
        printf("  %-6s at %7.1f, give or take %5.1f pixels\n", sides[k], (double)edge[k],
               (double)p->stddev[k]);
}

int main(int argc, char **argv) {
    gfl_context *context = NULL;
    gfl_model *model = NULL;
    gfl_detector *detector = NULL;
    gfl_pixels pixels = {0};
    gfl_detection_list found;
    gfl_detect_opts opts = {0};
    gfl_detector_desc desc = {0};
    if (argc != 3) return fputs("usage: distributions WEIGHTS PICTURE\n", stderr), 2;

    opts.min_score = 0.3f;
    desc.distributions = 1;
    int ok = gfl_context_create(NULL, &context) == GFL_OK &&
             gfl_model_load(context, argv[1], NULL, &model) == GFL_OK &&
             gfl_detector_create(context, model, &desc, &detector) == GFL_OK &&
             gfl_image_read(context, argv[2], &pixels) == GFL_OK;
    gfl_image image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height);
    ok = ok && gfl_detect(detector, &image, 1, &opts, &found) == GFL_OK;
    for (int i = 0; ok && i < found.count; i++)
        print_sides(&found.items[i], &found.distributions[i]);
    if (!ok) fprintf(stderr, "distributions: %s\n", gfl_context_get_error(context));

    gfl_pixels_free(context, &pixels);
    gfl_detector_destroy(detector);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return ok && fflush(stdout) == 0 ? 0 : 1;
}
