/* test_long_deform.c - a narrow deformable model learns on ../shared/data/bccd, and resumes */
#include "train.h"
#include <sys/stat.h>

enum { EPOCHS = 6, RESUME_AT = 20, RESUME_STEPS = 3, BATCH = 4 };

static const char *weight_path = "long_deform.safetensors", *state_path = "long_deform.state";

static const char *folder(void) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/../data/bccd", fx_root());
    return path;
}

static gfl_dataset *load(gfl_context *context, const char *part) {
    char json[1200], images[1200];
    gfl_dataset_desc opts;
    gfl_dataset *data = NULL;
    memset(&opts, 0, sizeof opts);
    snprintf(json, sizeof json, "%s/annotations/instances_%s.json", folder(), part);
    snprintf(images, sizeof images, "%s/%s", folder(), part);
    opts.image_dir = images;
    CHECK_OK(context, gfl_dataset_load_coco(context, json, &opts, &data));
    return data;
}

static double measure(gfl_context *context, const gfl_model *model, const gfl_dataset *data) {
    gfl_detector *detector = NULL;
    gfl_evaluator *evaluator = NULL;
    gfl_eval_result result;
    gfl_detect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.no_clip = 1;
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &detector));
    CHECK_OK(context, gfl_evaluator_create(context, data, NULL, &evaluator));
    for (int i = 0; i < gfl_dataset_count_images(data); i++) {
        gfl_pixels pixels;
        gfl_detection_list found;
        gfl_image image;
        CHECK_OK(context, gfl_dataset_read(context, data, i, &pixels));
        image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height);
        CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &found));
        CHECK_OK(context, gfl_evaluator_add_detections(evaluator, i, found.items, found.count));
        gfl_pixels_free(context, &pixels);
    }
    CHECK_OK(context, gfl_evaluator_run(evaluator, &result));
    gfl_evaluator_destroy(evaluator);
    gfl_detector_destroy(detector);
    return result.ap;
}

static gfl_trainer_desc recipe(void) {
    gfl_trainer_desc d;
    memset(&d, 0, sizeof d);
    d.batch = BATCH;
    d.epochs = EPOCHS;
    d.milestones[0] = EPOCHS - 1;
    d.lr = 0.02;
    d.warmup = 50;
    d.clip_norm = 10;
    d.frozen_stages = -1;
    d.seed = 3;
    return d;
}

/* Resumed from the files of step RESUME_AT, the run makes the same steps to the bit. */
static void check_resume(const gfl_dataset *data, const gfl_step_report *want) {
    const gfl_trainer_desc d = recipe();
    gfl_context *context = test_context(1);
    gfl_load_desc opts = {1, GFL_DIALECT_DEFAULT};
    gfl_model *model = NULL;
    gfl_trainer *trainer = NULL;
    CHECK_OK(context, gfl_model_load(context, weight_path, &opts, &model));
    CHECK_OK(context, gfl_trainer_create(context, model, data, &d, &trainer));
    CHECK_OK(context, gfl_trainer_load_state(trainer, state_path));
    for (int i = 0; i < RESUME_STEPS; i++) {
        gfl_step_report got;
        CHECK_OK(context, gfl_trainer_step(trainer, &got));
        CHECK(got.step == want[i].step && got.loss_cls == want[i].loss_cls);
        CHECK(got.loss_bbox == want[i].loss_bbox && got.loss_dfl == want[i].loss_dfl);
        CHECK(got.grad_norm == want[i].grad_norm);
    }
    gfl_trainer_destroy(trainer);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
}

static void a_deformable_model_learns(void) {
    struct stat info;
    if (stat(folder(), &info) != 0) {
        printf("skipped: no folder %s\n", folder());
        test_skips++;
        return;
    }
    const gfl_trainer_desc d = recipe();
    const double start = gfli_seconds();
    gfl_context *context = test_context(2);
    gfl_dataset *train = load(context, "train"), *val = load(context, "val");
    gfl_model_desc desc;
    gfl_trainer *trainer = NULL;
    gfl_step_report r, after[RESUME_STEPS];
    memset(&desc, 0, sizeof desc);
    desc.arch.depth = 50;
    desc.arch.base_channels = 16;
    desc.arch.fpn_channels = desc.arch.head_channels = 64;
    desc.arch.stacked_convs = 2;
    desc.arch.deform = 2;
    desc.arch.n_classes = gfl_dataset_count_classes(train);
    desc.classes = gfl_dataset_get_classes(train);
    desc.preprocess.scale_long = 320;
    desc.preprocess.scale_short = 240;
    desc.seed = 1;
    gfl_model *model = train_model(context, &desc);
    const double before = measure(context, model, val);
    CHECK_OK(context, gfl_trainer_create(context, model, train, &d, &trainer));
    do {
        CHECK_OK(context, gfl_trainer_step(trainer, &r));
        if (r.step == RESUME_AT) {
            CHECK_OK(context, gfl_model_save(model, weight_path));
            CHECK_OK(context, gfl_trainer_save_state(trainer, state_path));
        }
        if (r.step > RESUME_AT && r.step <= RESUME_AT + RESUME_STEPS)
            after[r.step - RESUME_AT - 1] = r;
        if (r.epoch_done)
            printf("  epoch %d: loss %.3f, %.0f s\n", r.epoch + 1, r.loss, gfli_seconds() - start);
    } while (r.step > 0 && !r.training_done);
    CHECK_OK(context, gfl_model_sync(model));
    const double ap = measure(context, model, val);
    printf("  AP %.3f, then %.3f\n", before, ap);
    CHECK(before < 0.01 && ap > 0.1);
    check_resume(train, after);
    gfl_trainer_destroy(trainer);
    gfl_model_destroy(model);
    gfl_dataset_destroy(train);
    gfl_dataset_destroy(val);
    gfl_context_destroy(context);
    remove(weight_path);
    remove(state_path);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(a_deformable_model_learns), {0}};
    return test_main(argc, argv, cases);
}
