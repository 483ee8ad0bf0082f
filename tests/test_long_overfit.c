/* test_long_overfit.c - a few pictures, learnt by heart */
#include "train.h"

enum { IMAGES = 4, STEPS = 200 };

static float overlap(const gfl_detection *d, const int box[4]) {
    float x1 = fmaxf(d->x1, (float)box[0]), y1 = fmaxf(d->y1, (float)box[1]);
    float x2 = fminf(d->x2, (float)(box[0] + box[2])), y2 = fminf(d->y2, (float)(box[1] + box[3]));
    float both = fmaxf(x2 - x1, 0) * fmaxf(y2 - y1, 0);
    return both / ((d->x2 - d->x1) * (d->y2 - d->y1) + (float)(box[2] * box[3]) - both);
}

/* Every rectangle is found, with its label, tightly and surely, and nothing else is. */
static void check_image(gfl_context *context, gfl_detector *detector, int i) {
    train_picture p = train_make_picture(i);
    gfl_pixels pixels;
    gfl_detection_list found;
    gfl_image image;
    gfl_detect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.min_score = 0.4f;
    CHECK_OK(context, train_read_picture(NULL, context, i, &pixels));
    image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height);
    CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &found));
    for (int k = 0; k < p.n; k++) {
        float best = 0;
        for (int j = 0; j < found.count; j++)
            if (found.items[j].label == p.label[k])
                best = fmaxf(best, overlap(&found.items[j], p.box[k]));
        printf("  image %d, box %d: IoU %.3f\n", i, k, (double)best);
        CHECK(best > 0.85f);
    }
    printf("  image %d: %d boxes, %d found\n", i, p.n, found.count);
    CHECK(found.count == p.n);
    gfl_pixels_free(context, &pixels);
}

static void a_few_pictures_are_learnt_by_heart(void) {
    gfl_context *context = test_context(2);
    gfl_dataset *dataset = train_dataset(context, IMAGES, NULL, NULL);
    gfl_model_desc desc;
    gfl_trainer_desc train;
    gfl_trainer *trainer;
    gfl_step_report r;
    train_micro_desc(&desc, 18, 2);
    desc.arch.base_channels = 16;
    desc.arch.fpn_channels = desc.arch.head_channels = 64;
    desc.classes = gfl_dataset_get_classes(dataset);
    desc.seed = 5;
    gfl_model *model = train_model(context, &desc);
    memset(&train, 0, sizeof train);
    train.batch = IMAGES;
    train.no_grouping = train.no_flip = 1;
    train.epochs = STEPS;
    train.lr = 0.02;
    train.warmup = 30;
    train.clip_norm = 10;
    train.milestones[0] = STEPS * 3 / 4;
    train.frozen_stages = -1;
    train.weight_decay = -1;
    CHECK_OK(context, gfl_trainer_create(context, model, dataset, &train, &trainer));
    double start = gfli_seconds();
    do {
        CHECK_OK(context, gfl_trainer_step(trainer, &r));
        if (r.step % 50 == 1 || r.training_done)
            printf("  step %lld: cls %.4f bbox %.4f dfl %.4f, norm %.3f\n", (long long)r.step,
                   r.loss_cls, r.loss_bbox, r.loss_dfl, r.grad_norm);
    } while (r.step > 0 && !r.training_done);
    printf("  %.1f s\n", gfli_seconds() - start);
    CHECK(r.loss_cls < 0.01);
    CHECK(r.loss_bbox < 0.05);
    CHECK(r.loss_dfl < 0.15); /* not zero: a side between two bins costs their entropy */
    gfl_trainer_destroy(trainer);
    gfl_detector *detector;
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &detector));
    for (int i = 0; i < IMAGES; i++) check_image(context, detector, i);
    gfl_detector_destroy(detector);
    gfl_model_destroy(model);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(a_few_pictures_are_learnt_by_heart), {0}};
    return test_main(argc, argv, cases);
}
