/* network.c - seconds of a whole network: detection of one size, or training steps
 *
 *     network detect MODEL WIDTH HEIGHT BATCH THREADS REPEATS [KERNEL]
 *     network train  MODEL WIDTH HEIGHT BATCH THREADS REPEATS [KERNEL]
 *
 * Prints one line per repeat: seconds.  KERNEL: avx2, say, where AVX-512 is there too.  The network
 * alone is timed for "detect" (no resizing, no decoding), the full step with losses and update for
 * "train". */
#ifndef GFL_INTERNAL
#    define GFL_INTERNAL
#endif
#include "gfl.h"

static int fail(gfl_context *context, const char *what) {
    fprintf(stderr, "%s: %s\n", what, gfl_context_get_error(context));
    return 1;
}

static void make_desc(const char *name, int width, int height, gfl_model_desc *desc) {
    memset(desc, 0, sizeof *desc);
    gfl_arch_find_preset(NULL, name, &desc->arch);
    desc->preprocess.scale_long = width > height ? width : height;
    desc->preprocess.scale_short = width > height ? height : width;
    desc->preprocess.mean[0] = desc->preprocess.mean[1] = desc->preprocess.mean[2] = 117;
    desc->preprocess.std[0] = desc->preprocess.std[1] = desc->preprocess.std[2] = 58;
    desc->seed = 1;
}

static int time_forward(gfl_context *context, const gfl_model_desc *desc, int width, int height,
                        int batch, int repeats) {
    gfl_model *model;
    gfli_plan plan;
    float *workspace, *stats;
    void *scratch;
    if (gfl_model_create(context, desc, &model) != GFL_OK ||
        gfli_plan_create(context, model, batch, gfli_pad32(height), gfli_pad32(width), false,
                         &plan) != GFL_OK ||
        gfli_calloc(context, plan.workspace_bytes, 1, "workspace", &workspace) != GFL_OK ||
        gfli_calloc(context, plan.stats_floats, 4, "statistics", &stats) != GFL_OK ||
        gfli_calloc(context, plan.scratch_bytes, 1, "scratch", &scratch) != GFL_OK)
        return fail(context, "detect");
    gfli_plan_bind(&plan, workspace);
    gfli_map *input = &plan.maps[plan.input].map;
    gfli_rng rng = gfli_rng_make(1, 0, 0, 0);
    for (int i = -1; i < repeats; i++) {
        for (size_t k = 0; k < gfli_map_count(input); k++)
            input->data[k] = (float)gfli_rng_uniform(&rng);
        double start = gfli_seconds();
        gfli_plan_forward(context, model, &plan, stats, scratch);
        if (i >= 0) printf("%.6f\n", gfli_seconds() - start);
    }
    gfli_free(context, scratch);
    gfli_free(context, stats);
    gfli_free(context, workspace);
    gfli_plan_destroy(context, &plan);
    gfl_model_destroy(model);
    return 0;
}

static int picture_width, picture_height;
static gfl_status read_noise(void *user, gfl_context *context, int image, gfl_pixels *out) {
    (void)user;
    gfl_status status = gfl_pixels_alloc(context, picture_width, picture_height, out);
    gfli_rng rng = gfli_rng_make(2, 0, (uint64_t)image, 0);
    for (int i = 0; status == GFL_OK && i < picture_width * picture_height * 3; i++)
        out->rgb[i] = (uint8_t)gfli_rng_next(&rng);
    return status;
}

/* A data set of `batch` pictures with ten boxes each. */
static char *make_annotations(int batch) {
    char *text = (char *)malloc(4096 + (size_t)batch * 2000), *p = text;
    p += sprintf(p, "{\"images\":[");
    for (int i = 0; i < batch; i++)
        p += sprintf(p, "%s{\"id\":%d,\"file_name\":\"%d\",\"width\":%d,\"height\":%d}",
                     i ? "," : "", i + 1, i, picture_width, picture_height);
    p += sprintf(p, "],\"annotations\":[");
    for (int i = 0; i < batch * 10; i++)
        p += sprintf(p,
                     "%s{\"id\":%d,\"image_id\":%d,\"category_id\":%d,\"iscrowd\":0,\"area\":1000,"
                     "\"bbox\":[%d,%d,%d,%d]}",
                     i ? "," : "", i + 1, i / 10 + 1, i % 80 + 1, 10 + 20 * (i % 10),
                     10 + 15 * (i % 7), 30 + 5 * (i % 9), 30 + 7 * (i % 5));
    p += sprintf(p, "],\"categories\":[");
    for (int i = 1; i <= 80; i++)
        p += sprintf(p, "%s{\"id\":%d,\"name\":\"c%d\"}", i > 1 ? "," : "", i, i);
    sprintf(p, "]}");
    return text;
}

static int time_training(gfl_context *context, const gfl_model_desc *desc, int batch, int repeats) {
    char *json = make_annotations(batch);
    gfl_dataset_desc data_opts;
    gfl_model_desc trainable = *desc;
    gfl_trainer_desc train;
    memset(&data_opts, 0, sizeof data_opts);
    memset(&train, 0, sizeof train);
    data_opts.read_image = read_noise;
    trainable.trainable = 1;
    train.batch = batch;
    train.epochs = repeats + 2;
    train.n_milestones = -1;
    train.frozen_stages = 1;
    gfl_dataset *data;
    gfl_model *model;
    gfl_trainer *trainer;
    gfl_step_report report;
    if (gfl_dataset_load_coco_memory(context, json, strlen(json), &data_opts, &data) != GFL_OK ||
        gfl_model_create(context, &trainable, &model) != GFL_OK ||
        gfl_trainer_create(context, model, data, &train, &trainer) != GFL_OK)
        return fail(context, "train");
    for (int i = -1; i < repeats; i++) {
        if (gfl_trainer_step(trainer, &report) != GFL_OK) return fail(context, "step");
        if (i >= 0) printf("%.6f\n", report.seconds);
    }
    gfl_trainer_destroy(trainer);
    gfl_model_destroy(model);
    gfl_dataset_destroy(data);
    free(json);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 8 || argc > 9) {
        fputs("usage: network detect|train MODEL WIDTH HEIGHT BATCH THREADS REPEATS [KERNEL]\n",
              stderr);
        return 2;
    }
    int width = atoi(argv[3]), height = atoi(argv[4]), batch = atoi(argv[5]);
    int repeats = atoi(argv[7]);
    gfl_context_desc context_desc;
    gfl_context *context;
    gfl_model_desc desc;
    memset(&context_desc, 0, sizeof context_desc);
    context_desc.n_threads = atoi(argv[6]);
    if (argc > 8) context_desc.kernel = argv[8];
    if (gfl_context_create(&context_desc, &context) != GFL_OK) return 1;
    make_desc(argv[2], width, height, &desc);
    picture_width = width;
    picture_height = height;
    int status = !strcmp(argv[1], "train")
                     ? time_training(context, &desc, batch, repeats)
                     : time_forward(context, &desc, width, height, batch, repeats);
    gfl_context_destroy(context);
    return status;
}
