/* evaluate.c - COCO's twelve numbers of a model: evaluate WEIGHTS DATA.json PICTURES */
#include "gfl.h"
#include <stdio.h>

int main(int argc, char **argv) {
    gfl_context *context = NULL;
    gfl_dataset *data = NULL;
    gfl_model *model = NULL;
    gfl_evaluator *evaluator = NULL;
    gfl_dataset_desc where = {0};
    gfl_eval_result result;
    char text[2048];
    if (argc != 4) return fputs("usage: evaluate WEIGHTS DATA.json PICTURES\n", stderr), 2;

    where.image_dir = argv[3];
    int ok = gfl_context_create(NULL, &context) == GFL_OK &&
             gfl_model_load(context, argv[1], NULL, &model) == GFL_OK &&
             gfl_dataset_load_coco(context, argv[2], &where, &data) == GFL_OK &&
             gfl_evaluator_create(context, data, NULL, &evaluator) == GFL_OK &&
             gfl_evaluator_add_model(evaluator, model, NULL) == GFL_OK &&
             gfl_evaluator_run(evaluator, &result) == GFL_OK;
    if (ok) {
        gfl_evaluator_get_summary(evaluator, text, sizeof text);
        fputs(text, stdout);
    } else {
        fprintf(stderr, "evaluate: %s\n", gfl_context_get_error(context));
    }

    gfl_evaluator_destroy(evaluator);
    gfl_dataset_destroy(data);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return ok && fflush(stdout) == 0 ? 0 : 1;
}
