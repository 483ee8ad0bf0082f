/* evaluate.c - COCO's twelve numbers of a model: evaluate WEIGHTS DATA.json PICTURES */
#include "gfl.h"
#include <stdio.h>

static gfl_status add_image(gfl_context *context, gfl_detector *detector, const gfl_dataset *data,
                            int i, gfl_evaluator *evaluator) {
    gfl_pixels pixels;
    gfl_detections found;
    gfl_image image = {0};
    gfl_detect_opts opts = {0};
    opts.no_clip = 1; /* as COCO results are */
    gfl_status status = gfl_dataset_read(context, data, i, &pixels);
    if (status != GFL_OK) return status;
    image.pixels = pixels.rgb;
    image.width = pixels.width;
    image.height = pixels.height;
    status = gfl_detect(detector, &image, 1, &opts, &found);
    if (status == GFL_OK) status = gfl_evaluator_add(evaluator, i, found.items, found.count);
    gfl_pixels_free(context, &pixels);
    return status;
}

int main(int argc, char **argv) {
    gfl_context *context = NULL;
    gfl_dataset *data = NULL;
    gfl_model *model = NULL;
    gfl_detector *detector = NULL;
    gfl_evaluator *evaluator = NULL;
    gfl_dataset_opts where = {0};
    gfl_eval_result result;
    char text[2048];
    if (argc != 4) return fputs("usage: evaluate WEIGHTS DATA.json PICTURES\n", stderr), 2;

    where.image_dir = argv[3];
    int ok = gfl_context_create(NULL, &context) == GFL_OK &&
             gfl_model_load(context, argv[1], NULL, &model) == GFL_OK &&
             gfl_dataset_load_coco(context, argv[2], &where, &data) == GFL_OK &&
             gfl_detector_create(context, model, 0, &detector) == GFL_OK &&
             gfl_evaluator_create(context, data, NULL, &evaluator) == GFL_OK;
    for (int i = 0; ok && i < gfl_dataset_n_images(data); i++)
        ok = add_image(context, detector, data, i, evaluator) == GFL_OK;
    ok = ok && gfl_evaluator_run(evaluator, &result) == GFL_OK;
    if (ok) {
        gfl_evaluator_summary(evaluator, text, sizeof text);
        fputs(text, stdout);
    } else {
        fprintf(stderr, "evaluate: %s\n", gfl_context_error(context));
    }

    gfl_evaluator_destroy(evaluator);
    gfl_detector_destroy(detector);
    gfl_dataset_destroy(data);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return ok ? 0 : 1;
}
