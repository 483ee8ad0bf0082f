/* train.c - train a small detector: train DATA.json PICTURES OUT.safetensors */
#include "gfl.h"
#include <stdio.h>

static gfl_status make_model(gfl_context *context, const gfl_dataset *data, gfl_model **out) {
    gfl_model_desc desc = {0};
    gfl_arch_find_preset(context, "r18", &desc.arch);
    desc.arch.base_channels = 16; /* a quarter of the published width */
    desc.arch.fpn_channels = desc.arch.head_channels = 64;
    desc.arch.stacked_convs = 2;
    desc.arch.n_classes = gfl_dataset_count_classes(data);
    desc.classes = gfl_dataset_get_classes(data);
    desc.trainable = 1;
    return gfl_model_create(context, &desc, out);
}

int main(int argc, char **argv) {
    gfl_context *context = NULL;
    gfl_dataset *data = NULL;
    gfl_model *model = NULL;
    gfl_trainer *trainer = NULL;
    gfl_dataset_desc where = {0};
    gfl_trainer_desc recipe = {0};
    gfl_step_report step = {0};
    if (argc != 4) return fputs("usage: train DATA.json PICTURES OUT.safetensors\n", stderr), 2;

    where.image_dir = argv[2];
    recipe.batch = 8;
    recipe.frozen_stages = -1; /* nothing is pretrained, so everything learns */
    recipe.scale_long = 320;
    recipe.scale_short = 240;
    int ok = gfl_context_create(NULL, &context) == GFL_OK &&
             gfl_dataset_load_coco(context, argv[1], &where, &data) == GFL_OK &&
             make_model(context, data, &model) == GFL_OK &&
             gfl_trainer_create(context, model, data, &recipe, &trainer) == GFL_OK;
    while (ok && !step.training_done) {
        ok = gfl_trainer_step(trainer, &step) == GFL_OK;
        if (ok && step.epoch_done) printf("epoch %d: loss %.3f\n", step.epoch + 1, step.loss);
    }
    ok = ok && gfl_model_save(model, argv[3]) == GFL_OK;
    if (!ok) fprintf(stderr, "train: %s\n", gfl_context_get_error(context));

    gfl_trainer_destroy(trainer);
    gfl_model_destroy(model);
    gfl_dataset_destroy(data);
    gfl_context_destroy(context);
    return ok && fflush(stdout) == 0 ? 0 : 1;
}
