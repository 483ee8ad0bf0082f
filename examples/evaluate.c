/* evaluate.c - COCO's twelve numbers of a model: evaluate WEIGHTS DATA.json PICTURES */
#include "gfl.h"
#include <stdio.h>
#include <string.h>

/* Labels are places in a list of classes: those of the model must be those of the data. */
static int same_classes(const gfl_model *model, const gfl_dataset *data) {
    const gfl_class *classes = gfl_dataset_get_classes(data);
    gfl_model_info info;
    gfl_model_get_info(model, &info);
    int same = info.arch.n_classes == gfl_dataset_count_classes(data);
    for (int k = 0; same && k < info.arch.n_classes; k++)
        same = !strcmp(info.classes[k].name, classes[k].name);
    if (!same) fputs("evaluate: the model has other classes than the data\n", stderr);
    return same;
}

static gfl_status add_image(gfl_context *context, gfl_detector *detector, const gfl_dataset *data,
                            int i, gfl_evaluator *evaluator) {
    gfl_pixels pixels;
    gfl_detections found;
    gfl_detect_opts opts = {0};
    opts.no_clip = 1; /* as COCO results are */
    gfl_status status = gfl_dataset_read(context, data, i, &pixels);
    if (status != GFL_OK) return status;
    gfl_image image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height);
    status = gfl_detect(detector, &image, 1, &opts, &found);
    if (status == GFL_OK)
        status = gfl_evaluator_add_detections(evaluator, i, found.items, found.count);
    gfl_pixels_free(context, &pixels);
    return status;
}

int main(int argc, char **argv) {
    gfl_context *context = NULL;
    gfl_dataset *data = NULL;
    gfl_model *model = NULL;
    gfl_detector *detector = NULL;
    gfl_evaluator *evaluator = NULL;
    gfl_dataset_desc where = {0};
    gfl_eval_result result;
    char text[2048];
    if (argc != 4) return fputs("usage: evaluate WEIGHTS DATA.json PICTURES\n", stderr), 2;

    where.image_dir = argv[3];
    int ok = gfl_context_create(NULL, &context) == GFL_OK &&
             gfl_model_load(context, argv[1], NULL, &model) == GFL_OK &&
             gfl_dataset_load_coco(context, argv[2], &where, &data) == GFL_OK &&
             gfl_detector_create(context, model, NULL, &detector) == GFL_OK &&
             gfl_evaluator_create(context, data, NULL, &evaluator) == GFL_OK;
    const int same = ok && same_classes(model, data);
    for (int i = 0; ok && same && i < gfl_dataset_count_images(data); i++)
        ok = add_image(context, detector, data, i, evaluator) == GFL_OK;
    ok = ok && (!same || gfl_evaluator_run(evaluator, &result) == GFL_OK);
    if (ok && same) {
        gfl_evaluator_get_summary(evaluator, text, sizeof text);
        fputs(text, stdout);
    } else if (!ok) {
        fprintf(stderr, "evaluate: %s\n", gfl_context_get_error(context));
    }

    gfl_evaluator_destroy(evaluator);
    gfl_detector_destroy(detector);
    gfl_dataset_destroy(data);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return ok && same && fflush(stdout) == 0 ? 0 : 1;
}
