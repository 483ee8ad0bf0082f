/* test_trainer.c - steps, accumulation, clipping, freezing, and what happens when they fail */
#include "arrays.h"
#include "train.h"

typedef struct setup {
    gfl_context *context;
    gfl_model *model;
    gfl_dataset *dataset;
    gfl_trainer *trainer;
} setup;

static gfl_trainer_desc small_desc(void) {
    gfl_trainer_desc d;
    memset(&d, 0, sizeof d);
    d.batch = 2;
    d.epochs = 2;
    d.lr = 0.01;
    d.warmup = -1;
    d.loaders = -1;
    d.frozen_stages = -1;
    return d;
}

static void open_setup(setup *s, int n_images, const gfl_trainer_desc *desc, int n_threads,
                       gfl_pixel_source read, void *user) {
    gfl_model_desc model;
    train_micro_desc(&model, 18, 2);
    memset(s, 0, sizeof *s);
    s->context = test_context(n_threads);
    s->dataset = train_dataset(s->context, n_images, read, user);
    model.classes = gfl_dataset_get_classes(s->dataset);
    s->model = train_model(s->context, &model);
    CHECK_OK(s->context, gfl_trainer_create(s->context, s->model, s->dataset, desc, &s->trainer));
}

static void close_setup(setup *s) {
    gfl_trainer_destroy(s->trainer);
    gfl_model_destroy(s->model);
    gfl_dataset_destroy(s->dataset);
    gfl_context_destroy(s->context);
}

/* All parameters one after another, as a copy. */
static float *weights(const gfl_model *model, size_t *count) {
    size_t n = 0;
    for (int i = 0; i < model->n_params; i++) n += model->params[i].count;
    float *all = (float *)malloc(n * sizeof *all);
    *count = n;
    n = 0;
    for (int i = 0; i < model->n_params; i++) {
        memcpy(all + n, model->params[i].data, model->params[i].count * sizeof *all);
        n += model->params[i].count;
    }
    return all;
}

static bool same_weights(const gfl_model *a, const float *b) {
    size_t n;
    float *all = weights(a, &n);
    bool same = memcmp(all, b, n * sizeof *all) == 0;
    free(all);
    return same;
}

static void a_plan_says_what_will_happen(void) {
    gfl_trainer_desc d = small_desc();
    gfl_trainer_info plan;
    setup s;
    d.accumulate = 2;
    d.drop_empty = 1;
    open_setup(&s, 10, &d, 1, NULL, NULL);
    gfl_trainer_get_info(s.trainer, &plan);
    CHECK(plan.n_images == 8 && plan.n_dropped_images == 2);
    CHECK(plan.steps_per_epoch == 2 && plan.n_steps == 4);
    CHECK(plan.desc.scale_long == 96 && plan.desc.momentum == 0.9);
    CHECK(plan.workspace_bytes > 100000 && plan.workspace_bytes < 100000000);
    size_t bound = plan.workspace_bytes;
    gfl_step_report r;
    do CHECK_OK(s.context, gfl_trainer_step(s.trainer, &r));
    while (!r.training_done && r.step > 0);
    const gfli_learner *l = &s.trainer->learner;
    size_t used = l->workspace_size + (l->stats_size + 3 * l->layout.floats) * sizeof(float) +
                  l->scratch_size + l->packed_size;
    CHECK(used <= bound);
    close_setup(&s);
}

/* Images that are left out are not there: of five pictures one is empty. */
static void a_small_set_is_one_small_batch(void) {
    for (int drop = 0; drop < 2; drop++) {
        gfl_trainer_desc d = small_desc();
        gfl_trainer_info plan;
        gfl_step_report r;
        setup s;
        d.batch = 16;
        d.accumulate = 3;
        d.lr = 0;
        d.drop_empty = drop;
        open_setup(&s, 5, &d, 1, NULL, NULL);
        gfl_trainer_get_info(s.trainer, &plan);
        CHECK(plan.desc.batch == 5 - drop && plan.desc.accumulate == 1);
        CHECK(plan.n_images == 5 - drop && plan.steps_per_epoch == 1 && plan.n_steps == 2);
        CHECK_NEAR(plan.desc.lr, 0.01 * (5 - drop) / 16, 1e-15);
        CHECK_OK(s.context, gfl_trainer_step(s.trainer, &r));
        CHECK(r.n_images == 5 - drop && r.lr == plan.desc.lr && r.epoch_done);
        close_setup(&s);
    }
}

static void reports_count_steps_and_epochs(void) {
    gfl_trainer_desc d = small_desc();
    gfl_step_report r;
    setup s;
    d.warmup = 3;
    d.milestones[0] = 1;
    open_setup(&s, 5, &d, 1, NULL, NULL);
    for (int i = 0; i < 6; i++) {
        CHECK_OK(s.context, gfl_trainer_step(s.trainer, &r));
        CHECK(r.step == i + 1 && r.epoch == i / 3 && r.step_in_epoch == i % 3);
        CHECK(r.steps_per_epoch == 3);
        CHECK(r.epoch_done == (i % 3 == 2) && r.training_done == (i == 5));
        CHECK(r.n_images == 2);
        CHECK(r.loss > 0 && isfinite(r.loss) && r.grad_norm > 0);
        CHECK_NEAR(r.loss, r.loss_cls + r.loss_bbox + r.loss_dfl, 1e-12);
        CHECK_NEAR(r.lr, 0.01 * (i == 0 ? 0.001 : i == 1 ? 0.5005 : i == 2 ? 1 : 0.1), 1e-12);
        CHECK(r.seconds >= r.data_seconds && r.data_seconds >= 0);
    }
    CHECK_ERROR(s.context, gfl_trainer_step(s.trainer, &r), GFL_E_ARG, "done");
    CHECK(r.step == 0);
    close_setup(&s);
}

/* The gradients of the next batch of a trainer's loader, as a copy. */
static float *next_gradients(gfli_learner *learner, gfl_trainer *trainer) {
    const gfli_batch *batch;
    gfli_map input;
    CHECK_OK(trainer->context, gfli_loader_next(trainer->loader, &batch));
    CHECK_OK(trainer->context,
             gfli_learner_input(learner, batch->n, batch->height, batch->width, &input));
    gfli_target truths[8];
    for (int i = 0; i < batch->n; i++) {
        const gfli_sample *x = &batch->samples[i];
        const gfl_preprocess *p = &trainer->model->preprocess;
        gfli_cpu.infer.normalise(trainer->context, x->pixels, x->width, x->height, p->mean, p->std,
                                 x->flip, &input, i);
        truths[i].boxes = x->boxes;
        truths[i].labels = x->labels;
        truths[i].n = x->n_boxes;
        truths[i].pad_h = gfli_pad32(x->height);
        truths[i].pad_w = gfli_pad32(x->width);
    }
    CHECK_OK(trainer->context, gfli_learner_targets(learner, truths));
    CHECK_OK(trainer->context, gfli_train_gradients(learner, 0, GFL_OK));
    float *copy = (float *)malloc(learner->layout.floats * sizeof(float));
    memcpy(copy, learner->gradients, learner->layout.floats * sizeof(float));
    return copy;
}

/* One update over n batches against the formula. */
static void check_update(const gfl_trainer_desc *d, int n_images, int n_batches) {
    gfli_learner learner;
    gfl_step_report r;
    setup s;
    size_t count;
    open_setup(&s, n_images, d, 2, NULL, NULL);
    float *before = weights(s.model, &count);
    CHECK_OK(s.context, gfli_learner_create(s.context, s.model, d->frozen_stages, &learner));
    CHECK_OK(s.context, gfli_loader_start(s.trainer->loader, 0, 0));
    size_t floats = learner.layout.floats;
    float *mean = (float *)calloc(floats, sizeof(float));
    for (int i = 0; i < n_batches; i++) {
        float *g = next_gradients(&learner, s.trainer);
        for (size_t k = 0; k < floats; k++) mean[k] += g[k] / (float)n_batches;
        free(g);
    }
    double norm = 0, worst = 0;
    for (size_t k = 0; k < floats; k++) norm += (double)mean[k] * (double)mean[k];
    norm = sqrt(norm);
    CHECK_OK(s.context, gfl_trainer_step(s.trainer, &r));
    CHECK_NEAR(r.grad_norm, norm, 1e-5 * norm);
    double clip = d->clip_norm > 0 && norm > d->clip_norm ? d->clip_norm / norm : 1;
    double decay = d->weight_decay < 0 ? 0 : 1e-4;
    size_t at = 0;
    for (int i = 0; i < s.model->n_params; i++) {
        const gfli_param *p = &s.model->params[i];
        size_t offset = learner.layout.offset[i];
        for (size_t k = 0; k < p->count; k++) {
            double was = (double)before[at + k], want = was;
            if (offset != GFLI_NO_GRADIENT)
                want -= r.lr * (clip * (double)mean[offset + k] + decay * was);
            worst = fmax(worst, fabs((double)p->data[k] - want) / fmax(1, fabs(want)));
        }
        at += p->count;
    }
    CHECK_NEAR(worst, 0, 3e-7);
    free(mean);
    free(before);
    gfli_learner_destroy(&learner);
    close_setup(&s);
}

static void an_update_is_the_formula(void) {
    gfl_trainer_desc d = small_desc();
    check_update(&d, 4, 1);
    d.weight_decay = -1;
    d.lr = 1;
    check_update(&d, 4, 1);
    d.clip_norm = 0.01;
    check_update(&d, 4, 1);
    d.clip_norm = 1e6; /* does not bind */
    check_update(&d, 4, 1);
}

static void accumulated_batches_are_averaged(void) {
    gfl_trainer_desc d = small_desc();
    d.accumulate = 2;
    check_update(&d, 4, 2);
    d.accumulate = 4; /* more than the three batches of the epoch */
    d.weight_decay = -1;
    d.clip_norm = 0.01;
    check_update(&d, 5, 3);
}

static void frozen_parameters_and_statistics_stay(void) {
    for (int frozen = -1; frozen <= 4; frozen++) {
        gfl_trainer_desc d = small_desc();
        gfl_step_report r;
        setup s;
        size_t count, at = 0;
        d.frozen_stages = frozen;
        open_setup(&s, 4, &d, 1, NULL, NULL);
        fx_fill_model(s.model); /* a fresh model's residual branches learn nothing at first */
        float *before = weights(s.model, &count);
        for (int i = 0; i < 2; i++) CHECK_OK(s.context, gfl_trainer_step(s.trainer, &r));
        for (int i = 0; i < s.model->n_params; at += s.model->params[i++].count) {
            const gfli_param *p = &s.model->params[i];
            bool stays = p->is_buffer || p->stage <= frozen;
            bool same = memcmp(p->data, before + at, p->count * sizeof(float)) == 0;
            if (stays != same) test_fail(__FILE__, __LINE__, p->name);
        }
        free(before);
        close_setup(&s);
    }
}

/* What a detector says of a grey picture. */
static gfl_status detect_grey(gfl_detector *detector, gfl_detection_list *found) {
    static uint8_t grey[60 * 90];
    gfl_image image;
    gfl_detect_opts opts;
    for (int i = 0; i < 60 * 90; i++) grey[i] = (uint8_t)(i * 37 % 251);
    memset(&image, 0, sizeof image);
    memset(&opts, 0, sizeof opts);
    image.pixels = grey;
    image.width = 90;
    image.height = 60;
    image.format = GFL_FORMAT_GREY;
    opts.min_score = 1e-6f;
    return gfl_detect(detector, &image, 1, &opts, found);
}

/* A detector never runs on weights from before a step, whoever made them, and says what to do; nor
 * does the export, which folds batch norms into the weights.  Other files need no packed
 * weights. */
static void stale_weights_are_refused(void) {
    const char *path = "test_trainer.stale";
    gfl_trainer_desc d = small_desc();
    gfl_trainer *second;
    gfl_detector *detector;
    gfl_detection_list found;
    setup s;
    open_setup(&s, 4, &d, 1, NULL, NULL);
    d.frozen_stages = 4;
    CHECK_OK(s.context, gfl_trainer_create(s.context, s.model, s.dataset, &d, &second));
    CHECK_OK(s.context, gfl_detector_create(s.context, s.model, NULL, &detector));
    CHECK_OK(s.context, detect_grey(detector, &found));
    for (int round = 0; round < 2; round++) {
        CHECK_OK(s.context, gfl_trainer_step(s.trainer, NULL)); /* the second moves less */
        if (round == 1) CHECK_OK(s.context, gfl_trainer_step(second, NULL));
        CHECK_ERROR(s.context, detect_grey(detector, &found), GFL_E_ARG, "gfl_model_sync first");
        CHECK(found.count == 0);
        CHECK_ERROR(s.context, gfl_model_export(s.model, GFL_EXPORT_ONNX, NULL, path), GFL_E_ARG,
                    "gfl_model_sync first");
        CHECK_OK(s.context, gfl_model_export(s.model, GFL_EXPORT_PTH, NULL, path));
        CHECK_OK(s.context, gfl_model_save(s.model, path));
        CHECK_OK(s.context, gfl_model_sync(s.model));
        CHECK_OK(s.context, detect_grey(detector, &found));
        CHECK_OK(s.context, gfl_model_export(s.model, GFL_EXPORT_ONNX, NULL, path));
    }
    gfl_detector_destroy(detector);
    gfl_trainer_destroy(second);
    close_setup(&s);
    remove(path);
}

/* Parameter by parameter one model becomes another: its file, its detections, its next step. */
static void parameters_that_are_set_make_the_other_model(void) {
    gfl_trainer_desc d = small_desc();
    gfl_detector *detector;
    gfl_detection_list found, want;
    gfl_parameter p;
    gfl_step_report r[2];
    gfl_bytes bytes[2];
    setup a, b;
    int64_t count = 0;
    open_setup(&a, 4, &d, 1, NULL, NULL);
    open_setup(&b, 4, &d, 1, NULL, NULL);
    CHECK_OK(b.context, gfl_trainer_step(b.trainer, NULL));
    CHECK_OK(a.context, gfl_trainer_step(a.trainer, NULL));
    CHECK_OK(b.context, gfl_trainer_step(b.trainer, NULL));
    CHECK_OK(a.context, gfl_model_sync(a.model));
    CHECK_OK(b.context, gfl_model_sync(b.model));
    CHECK_OK(a.context, gfl_detector_create(a.context, a.model, NULL, &detector));
    for (int i = 0; gfl_model_describe_parameter(b.model, i, &p) == GFL_OK; i++) {
        float *values = (float *)malloc(p.count * sizeof *values);
        CHECK_OK(b.context, gfl_model_get_parameter(b.model, p.name, values, p.count));
        CHECK_OK(a.context, gfl_model_set_parameter(a.model, p.name, values, p.count));
        CHECK_ERROR(a.context, detect_grey(detector, &found), GFL_E_ARG, "gfl_model_sync first");
        count += p.is_statistic ? 0 : (int64_t)p.count;
        free(values);
    }
    gfl_model_info info;
    gfl_model_get_info(a.model, &info);
    CHECK(count == info.n_parameters);
    CHECK_OK(a.context, gfl_model_sync(a.model));
    CHECK_OK(a.context, detect_grey(detector, &found));
    float *kept = (float *)malloc((size_t)found.count * sizeof(gfl_detection));
    memcpy(kept, found.items, (size_t)found.count * sizeof(gfl_detection));
    const int n = found.count;
    gfl_detector_destroy(detector);
    CHECK_OK(b.context, gfl_detector_create(b.context, b.model, NULL, &detector));
    CHECK_OK(b.context, detect_grey(detector, &want));
    CHECK(n == want.count && n > 0 && !memcmp(kept, want.items, (size_t)n * sizeof *want.items));
    free(kept);
    gfl_detector_destroy(detector);
    for (int i = 0; i < 2; i++) {
        setup *s = i ? &b : &a;
        CHECK_OK(s->context, gfl_model_save_memory(s->model, &bytes[i]));
    }
    CHECK(bytes[0].size == bytes[1].size && !memcmp(bytes[0].data, bytes[1].data, bytes[0].size));
    gfl_bytes_free(a.context, &bytes[0]);
    gfl_bytes_free(b.context, &bytes[1]);
    /* the same batch of another training: the model is what the losses come from */
    gfl_trainer_destroy(a.trainer);
    gfl_trainer_destroy(b.trainer);
    CHECK_OK(a.context, gfl_trainer_create(a.context, a.model, a.dataset, &d, &a.trainer));
    CHECK_OK(b.context, gfl_trainer_create(b.context, b.model, b.dataset, &d, &b.trainer));
    CHECK_OK(a.context, gfl_trainer_step(a.trainer, &r[0]));
    CHECK_OK(b.context, gfl_trainer_step(b.trainer, &r[1]));
    CHECK(r[0].loss == r[1].loss && r[0].grad_norm == r[1].grad_norm);
    close_setup(&a);
    close_setup(&b);
}

static void wrong_parameters_are_refused_by_name(void) {
    gfl_trainer_desc d = small_desc();
    gfl_model_desc packed;
    gfl_model *model;
    gfl_parameter p;
    setup s;
    float x[3] = {1, 2, 3}, variances[4];
    open_setup(&s, 2, &d, 1, NULL, NULL);
    CHECK(gfl_model_describe_parameter(s.model, -1, &p) == GFL_E_ARG && !p.name);
    CHECK(gfl_model_describe_parameter(s.model, s.model->n_params, &p) == GFL_E_ARG);
    CHECK(gfl_model_describe_parameter(NULL, 0, &p) == GFL_E_ARG);
    CHECK(gfl_model_count_parameters(NULL) == 0);
    CHECK_ERROR(s.context, gfl_model_get_parameter(s.model, "head", x, 3), GFL_E_ARG,
                "no parameter \"head\"");
    CHECK_ERROR(s.context, gfl_model_get_parameter(s.model, "backbone.bn1.bias", x, 3), GFL_E_ARG,
                "has 4 values, not 3");
    x[0] = NAN;
    CHECK_ERROR(s.context, gfl_model_set_parameter(s.model, "bbox_head.scales.1.scale", x, 1),
                GFL_E_ARG, "is not finite");
    for (int k = 0; k < 4; k++) variances[k] = 1.0f - (float)k / 2; /* the last is -0.5 */
    CHECK_ERROR(s.context,
                gfl_model_set_parameter(s.model, "backbone.bn1.running_var", variances, 4),
                GFL_E_ARG, "backbone.bn1.running_var is a variance below zero");
    train_micro_desc(&packed, 18, 2);
    CHECK_OK(s.context, gfl_model_create(s.context, &packed, &model));
    CHECK_ERROR(s.context, gfl_model_get_parameter(model, "backbone.bn1.bias", x, 4), GFL_E_ARG,
                "trainable");
    CHECK_ERROR(s.context, gfl_model_set_parameter(model, "backbone.bn1.bias", x, 4), GFL_E_ARG,
                "trainable");
    CHECK(gfl_model_describe_parameter(model, 0, &p) == GFL_OK && p.rank == 4 && p.shape[2] == 7);
    gfl_model_destroy(model);
    close_setup(&s);
}

/* After a sync a detector sees the weights that would be saved. */
static void synced_weights_detect_as_saved_ones(void) {
    const char *path = "test_trainer.safetensors";
    gfl_trainer_desc d = small_desc();
    gfl_step_report r;
    setup s;
    gfl_detection_list found[3];
    gfl_detector *detector[3];
    gfl_model *again;
    open_setup(&s, 4, &d, 1, NULL, NULL);
    for (int i = 0; i < 3; i++) CHECK_OK(s.context, gfl_trainer_step(s.trainer, &r));
    CHECK_OK(s.context, gfl_model_sync(s.model));
    CHECK_OK(s.context, gfl_model_save(s.model, path));
    CHECK_OK(s.context, gfl_model_load(s.context, path, NULL, &again));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(s.context,
                 gfl_detector_create(s.context, i ? again : s.model, NULL, &detector[i]));
        CHECK_OK(s.context, detect_grey(detector[i], &found[i]));
    }
    CHECK(found[0].count > 0 && found[0].count == found[1].count);
    CHECK(!memcmp(found[0].items, found[1].items, (size_t)found[0].count * sizeof *found[0].items));
    /* destroying a trainer syncs too */
    CHECK_OK(s.context, gfl_trainer_step(s.trainer, &r));
    gfl_trainer_destroy(s.trainer);
    s.trainer = NULL;
    CHECK_OK(s.context, gfl_model_save(s.model, path));
    gfl_detector_destroy(detector[1]);
    gfl_model_destroy(again);
    CHECK_OK(s.context, gfl_model_load(s.context, path, NULL, &again));
    CHECK_OK(s.context, gfl_detector_create(s.context, again, NULL, &detector[1]));
    for (int i = 0; i < 2; i++) CHECK_OK(s.context, detect_grey(detector[i], &found[i]));
    CHECK(found[0].count > 0 && found[0].count == found[1].count);
    CHECK(!memcmp(found[0].items, found[1].items, (size_t)found[0].count * sizeof *found[0].items));
    gfl_detector_destroy(detector[0]);
    gfl_detector_destroy(detector[1]);
    gfl_model_destroy(again);
    close_setup(&s);
    remove(path);
}

/* ---- failures -------------------------------------------------------------------------------- */

static void diverging_steps_leave_the_model_alone(void) {
    gfl_trainer_desc d = small_desc();
    gfl_step_report r;
    setup s;
    size_t count;
    d.lr = 1e30;
    open_setup(&s, 2, &d, 1, NULL, NULL);
    CHECK_OK(s.context, gfl_trainer_step(s.trainer, &r));
    float *before = weights(s.model, &count);
    for (int i = 0; i < 2; i++) {
        CHECK_ERROR(s.context, gfl_trainer_step(s.trainer, &r), GFL_E_NONFINITE, "step 2: loss_");
        CHECK(strstr(gfl_context_get_error(s.context), "p0.png (id 1)") != NULL);
        CHECK(strstr(gfl_context_get_error(s.context), "p1.png (id 2)") != NULL);
        CHECK(same_weights(s.model, before));
        CHECK(s.trainer->learner.updates == 1);
    }
    free(before);
    close_setup(&s);
}

/* A huge weight that the losses survive and the gradients do not: the check before the update. */
static void gradients_are_checked_too(void) {
    gfl_trainer_desc d = small_desc();
    gfl_step_report r;
    setup s;
    size_t count;
    open_setup(&s, 2, &d, 1, NULL, NULL);
    gfli_learner *l = &s.trainer->learner;
    gfli_sgd_opts opts = {0.1, 0.9, 0, 0};
    gfli_losses losses;
    double norm;
    CHECK_OK(s.context, gfl_trainer_step(s.trainer, &r));
    float *before = weights(s.model, &count);
    float *momentum = (float *)malloc(l->layout.floats * sizeof(float));
    memcpy(momentum, l->momentum, l->layout.floats * sizeof(float));
    for (int i = 0; i < 2; i++) {
        l->gradients[l->layout.floats / 2] = i ? NAN : INFINITY;
        CHECK_ERROR(s.context, gfli_train_update(l, &opts, &norm, &losses), GFL_E_NONFINITE,
                    "the gradients of ");
        CHECK(same_weights(s.model, before));
        CHECK(memcmp(momentum, l->momentum, l->layout.floats * sizeof(float)) == 0);
        CHECK(l->updates == 1);
    }
    free(before);
    free(momentum);
    close_setup(&s);
}

/* Everything of a trainer that a step changes. */
typedef struct snapshot {
    float *weights, *momentum;
    size_t n;
    int64_t updates;
} snapshot;

static snapshot take_snapshot(const setup *s) {
    const gfli_learner *l = &s->trainer->learner;
    snapshot t;
    t.weights = weights(s->model, &t.n);
    t.n = l->layout.floats * sizeof(float);
    t.momentum = (float *)malloc(t.n);
    memcpy(t.momentum, l->momentum, t.n);
    t.updates = l->updates;
    return t;
}

static void check_unchanged(const setup *s, snapshot *t) {
    CHECK(same_weights(s->model, t->weights));
    CHECK(memcmp(t->momentum, s->trainer->learner.momentum, t->n) == 0);
    CHECK(t->updates == s->trainer->learner.updates);
    free(t->weights);
    free(t->momentum);
}

/* One update with a gradient of g in one place, a parameter p and momentum v there, zeros else. */
static gfl_status update_of(setup *s, int param, float p, float v, float g,
                            const gfli_sgd_opts *opts) {
    gfli_learner *l = &s->trainer->learner;
    const size_t at = l->layout.offset[param];
    gfli_losses losses;
    double norm;
    for (int i = 0; i < s->model->n_params; i++)
        memset(s->model->params[i].data, 0, s->model->params[i].count * sizeof(float));
    memset(l->gradients, 0, l->layout.floats * sizeof(float));
    memset(l->momentum, 0, l->layout.floats * sizeof(float));
    s->model->params[param].data[1] = p;
    l->gradients[at + 1] = g;
    l->momentum[at + 1] = v;
    snapshot before = take_snapshot(s);
    const gfl_status status = gfli_train_update(l, opts, &norm, &losses);
    if (status == GFL_OK) {
        free(before.weights);
        free(before.momentum);
        CHECK(isfinite(s->model->params[param].data[1]) && isfinite(l->momentum[at + 1]));
        CHECK(l->updates == before.updates + 1);
    } else {
        CHECK(status == GFL_E_NONFINITE);
        check_unchanged(s, &before);
    }
    return status;
}

/* What an update comes to, before a weight moves: at the edge of float's range it goes through, and
 * beyond it is refused, by weights, momentum, gradients, decay, clipping and rate alike. */
static void updates_that_would_overflow_are_refused(void) {
    static const struct {
        float p, v, g;
        gfli_sgd_opts opts; /* lr, momentum, decay, clip */
        bool fits;
    } table[] = {
        {3e38f, 0, -1e38f, {0.3, 0.9, 0, 0}, true},
        {3e38f, 0, -1e38f, {0.5, 0.9, 0, 0}, false},
        {-3e38f, 0, 1e38f, {0.5, 0.9, 0, 0}, false},
        {0, 3e38f, 1e38f, {0.1, 0.7, 0, 0}, true},
        {0, 3e38f, 1e38f, {0.1, 0.9, 0, 0}, false}, /* of the momentum */
        {0, 0, 1e30f, {1e9, 0.9, 0, 0}, false},
        {0, 0, 1e30f, {1e9, 0.9, 0, 1}, true}, /* clipped to 1 */
        {0, 0, 1e30f, {1e39, 0.9, 0, 1}, false},
        {1e30f, 0, 0, {1e-3, 0.9, 1e8, 0}, true},
        {1e30f, 0, 0, {1e-3, 0.9, 1e9, 0}, false}, /* decay, of a weight */
        {NAN, 0, 0, {0.1, 0.9, 0, 0}, false},
        {INFINITY, 0, 0, {0.1, 0.9, 0, 0}, false},
        {0, NAN, 0, {0.1, 0.9, 0, 0}, false},
        {0, -INFINITY, 0, {0.1, 0.9, 0, 0}, false},
        {0, 0, 0, {INFINITY, 0.9, 0, 0}, false}, /* infinity x 0 */
        {0, 0, 0, {0.1, 0.9, 1e39, 0}, false},
    };
    gfl_trainer_desc d = small_desc();
    setup s;
    open_setup(&s, 2, &d, 1, NULL, NULL);
    const int weight = gfli_model_find(s.model, "neck.fpn_convs.0.conv.weight");
    s.trainer->learner.updates = 1;
    for (size_t i = 0; i < GFLI_COUNT(table); i++) {
        const gfl_status status =
            update_of(&s, weight, table[i].p, table[i].v, table[i].g, &table[i].opts);
        if ((status == GFL_OK) != table[i].fits) {
            printf("case %d\n", (int)i);
            CHECK(0);
        }
        if (status != GFL_OK && table[i].opts.lr < 1e38 && table[i].opts.decay < 1e38)
            CHECK(strstr(gfl_context_get_error(s.context), " of neck.fpn_convs.0.conv.weight ") !=
                  NULL);
    }
    /* before the first update the buffer means nothing, not even a NaN */
    s.trainer->learner.updates = 0;
    const gfli_sgd_opts usual = {0.1, 0.9, 0, 0};
    CHECK(update_of(&s, weight, 1, NAN, 1, &usual) == GFL_OK);
    /* in dialect gfocal biases have twice the rate and no decay */
    const int bias = gfli_model_find(s.model, "neck.fpn_convs.0.conv.bias");
    const gfli_sgd_opts fast = {0.9, 0.9, 0, 0}, decay = {0.1, 0.9, 1e9, 0};
    CHECK(update_of(&s, bias, 0, 0, 3e38f, &fast) == GFL_OK);
    CHECK(update_of(&s, bias, 1e30f, 0, 0, &decay) == GFL_E_NONFINITE);
    gfli_learner *l = &s.trainer->learner;
    const int frozen = l->frozen_stages;
    gfli_learner_destroy(l);
    s.model->arch.dialect = GFL_DIALECT_GFOCAL;
    CHECK_OK(s.context, gfli_learner_create(s.context, s.model, frozen, l));
    CHECK(update_of(&s, bias, 0, 0, 3e38f, &fast) == GFL_E_NONFINITE);
    CHECK(update_of(&s, weight, 0, 0, 3e38f, &fast) == GFL_OK);
    CHECK(update_of(&s, bias, 1e30f, 0, 0, &decay) == GFL_OK);
    close_setup(&s);
}

/* A step whose update would make infinite weights: the state that it leaves is good. */
static void an_overflowing_step_leaves_a_good_state(void) {
    gfl_trainer_desc d = small_desc();
    setup s;
    d.lr = 3e38;
    d.weight_decay = 10;
    open_setup(&s, 2, &d, 1, NULL, NULL);
    snapshot before = take_snapshot(&s);
    CHECK_ERROR(s.context, gfl_trainer_step(s.trainer, NULL), GFL_E_NONFINITE, "would overflow");
    CHECK(strstr(gfl_context_get_error(s.context), "step 1: the update of backbone.") != NULL);
    CHECK(strstr(gfl_context_get_error(s.context), "p0.png (id 1)") != NULL);
    check_unchanged(&s, &before);
    close_setup(&s);
}

typedef struct flaky {
    int image, failures; /* this image fails so many times */
} flaky;

static gfl_status read_flaky(void *user, gfl_context *context, int image, gfl_pixels *out) {
    flaky *f = (flaky *)user;
    if (image == f->image && f->failures > 0) {
        f->failures--;
        return gfli_error(context, GFL_E_IO, "p%d.png: gone for now", image);
    }
    return train_read_picture(NULL, context, image, out);
}

/* After a failure in the middle of an accumulated step, trying again gives the same bits. */
static void a_failed_step_can_be_tried_again(void) {
    gfl_trainer_desc d = small_desc();
    gfl_step_report r, want[4];
    setup plain, s;
    d.accumulate = 2;
    open_setup(&plain, 8, &d, 1, NULL, NULL);
    for (int i = 0; i < 4; i++) CHECK_OK(plain.context, gfl_trainer_step(plain.trainer, &want[i]));
    size_t count;
    float *end = weights(plain.model, &count);
    for (int image = 0; image < 8; image++) {
        flaky f = {image, 2};
        int failed = 0;
        open_setup(&s, 8, &d, 1, read_flaky, &f);
        for (int i = 0; i < 4 && failed < 10;) {
            size_t n;
            float *before = weights(s.model, &n);
            gfl_status status = gfl_trainer_step(s.trainer, &r);
            if (status == GFL_OK) {
                CHECK(r.loss == want[i].loss && r.grad_norm == want[i].grad_norm);
                i++;
            } else {
                char name[32];
                snprintf(name, sizeof name, "p%d.png", image);
                CHECK(status == GFL_E_IO && strstr(gfl_context_get_error(s.context), name));
                CHECK(r.step == 0 && same_weights(s.model, before));
                failed++;
            }
            free(before);
        }
        CHECK(failed == 2);
        CHECK(same_weights(s.model, end));
        close_setup(&s);
    }
    free(end);
    close_setup(&plain);
}

static void loaders_and_threads_change_nothing(void) {
    float *want = NULL;
    double loss = 0;
    for (int i = 0; i < 6; i++) {
        gfl_trainer_desc d = small_desc();
        gfl_step_report r;
        setup s;
        size_t count;
        d.loaders = i % 3 - 1;
        if (d.loaders == 0) d.loaders = 2;
        d.scale_long = 96;
        d.scale_short = 64;
        d.scale_short_min = 40;
        open_setup(&s, 7, &d, 1 + i / 3, NULL, NULL);
        for (int k = 0; k < 8; k++) CHECK_OK(s.context, gfl_trainer_step(s.trainer, &r));
        CHECK(r.training_done);
        if (!want) {
            want = weights(s.model, &count);
            loss = r.loss;
        }
        CHECK(same_weights(s.model, want) && r.loss == loss);
        close_setup(&s);
    }
    free(want);
}

/* The same annotations from a file and from arrays: the same steps, and as good a model. */
static void arrays_train_to_the_bits_of_a_file(void) {
    gfl_trainer_desc d = small_desc();
    gfl_dataset_desc how;
    gfl_step_report want, got;
    setup plain, s;
    size_t n;
    memset(&how, 0, sizeof how);
    how.read_image = train_read_picture;
    open_setup(&plain, 5, &d, 1, NULL, NULL);
    open_setup(&s, 5, &d, 1, NULL, NULL);
    gfl_trainer_destroy(s.trainer);
    gfl_dataset_destroy(s.dataset);
    CHECK_OK(s.context, arrays_copy(s.context, plain.dataset, &how, &s.dataset));
    CHECK_OK(s.context, gfl_trainer_create(s.context, s.model, s.dataset, &d, &s.trainer));
    for (int i = 0; i < 4; i++) {
        CHECK_OK(plain.context, gfl_trainer_step(plain.trainer, &want));
        CHECK_OK(s.context, gfl_trainer_step(s.trainer, &got));
        CHECK(got.loss == want.loss && got.n_positives == want.n_positives && got.n_positives > 0);
    }
    float *end = weights(plain.model, &n);
    CHECK(same_weights(s.model, end));
    free(end);
    close_setup(&s);
    close_setup(&plain);
}

/* A result could not say which of the two it means. */
static void two_classes_of_one_name_are_refused_before_training(void) {
    static const char json[] =
        "{\"images\":[{\"id\":1,\"width\":90,\"height\":60}],\"categories\":["
        "{\"id\":3,\"name\":\"RBC\"},{\"id\":7,\"name\":\"RBC\"}],\"annotations\":["
        "{\"id\":1,\"image_id\":1,\"category_id\":3,\"bbox\":[5,5,30,30]},"
        "{\"id\":2,\"image_id\":1,\"category_id\":7,\"bbox\":[9,9,30,30]}]}";
    gfl_context *context = test_context(1);
    gfl_dataset *dataset = NULL;
    gfl_trainer_desc d = small_desc();
    gfl_model_desc desc;
    gfl_trainer *trainer;
    CHECK_OK(context, gfl_dataset_load_coco_memory(context, json, sizeof json - 1, NULL, &dataset));
    train_micro_desc(&desc, 18, 2);
    desc.classes = gfl_dataset_get_classes(dataset);
    gfl_model *model = train_model(context, &desc);
    CHECK_ERROR(context, gfl_trainer_create(context, model, dataset, &d, &trainer), GFL_E_DATA,
                "the categories 3 and 7 are both named \"RBC\"");
    CHECK(trainer == NULL);
    gfl_model_destroy(model);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
}

static void wrong_arguments_are_refused(void) {
    gfl_context *context = test_context(1);
    gfl_dataset *dataset = train_dataset(context, 3, NULL, NULL);
    gfl_trainer_desc d = small_desc();
    gfl_model_desc desc;
    gfl_trainer *trainer;
    gfl_class classes[2] = {{"light", 1}, {"murky", 2}};
    train_micro_desc(&desc, 18, 3);
    gfl_model *three = train_model(context, &desc), *frozen = NULL;
    CHECK_ERROR(context, gfl_trainer_create(context, three, dataset, &d, &trainer), GFL_E_MISMATCH,
                "3 classes");
    CHECK(trainer == NULL);
    train_micro_desc(&desc, 18, 2);
    gfl_model *unnamed = train_model(context, &desc);
    CHECK_OK(context, gfl_trainer_create(context, unnamed, dataset, &d, &trainer));
    gfl_trainer_destroy(trainer);
    CHECK_OK(context, gfl_trainer_create(context, unnamed, dataset, NULL, &trainer));
    gfl_trainer_destroy(trainer);
    desc.classes = classes;
    gfl_model *other = train_model(context, &desc);
    CHECK_ERROR(context, gfl_trainer_create(context, other, dataset, &d, &trainer), GFL_E_MISMATCH,
                "\"murky\"");
    CHECK_OK(context, gfl_model_create(context, &desc, &frozen));
    CHECK_ERROR(context, gfl_trainer_create(context, frozen, dataset, &d, &trainer), GFL_E_ARG,
                "trainable");
    CHECK_ERROR(context, gfl_trainer_create(context, unnamed, NULL, &d, &trainer), GFL_E_ARG,
                "dataset");
    CHECK(gfl_trainer_create(NULL, unnamed, dataset, &d, &trainer) == GFL_E_ARG);
    CHECK(gfl_trainer_step(NULL, NULL) == GFL_E_ARG);
    CHECK(gfl_model_sync(NULL) == GFL_E_ARG);
    d.batch = -4;
    CHECK_ERROR(context, gfl_trainer_create(context, unnamed, dataset, &d, &trainer), GFL_E_ARG,
                "batch");
    gfl_trainer_destroy(NULL);
    gfl_model_destroy(three);
    gfl_model_destroy(unnamed);
    gfl_model_destroy(other);
    gfl_model_destroy(frozen);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(a_plan_says_what_will_happen),
        TEST(a_small_set_is_one_small_batch),
        TEST(reports_count_steps_and_epochs),
        TEST(an_update_is_the_formula),
        TEST(accumulated_batches_are_averaged),
        TEST(frozen_parameters_and_statistics_stay),
        TEST(stale_weights_are_refused),
        TEST(parameters_that_are_set_make_the_other_model),
        TEST(wrong_parameters_are_refused_by_name),
        TEST(synced_weights_detect_as_saved_ones),
        TEST(diverging_steps_leave_the_model_alone),
        TEST(gradients_are_checked_too),
        TEST(updates_that_would_overflow_are_refused),
        TEST(an_overflowing_step_leaves_a_good_state),
        TEST(a_failed_step_can_be_tried_again),
        TEST(loaders_and_threads_change_nothing),
        TEST(arrays_train_to_the_bits_of_a_file),
        TEST(two_classes_of_one_name_are_refused_before_training),
        TEST(wrong_arguments_are_refused),
        {0},
    };
    return test_main(argc, argv, cases);
}
