/* trainer.c - gfl_trainer: batches in, updates out */
#pragma once

/* ---- creation -------------------------------------------------------------------------------- */

/* Labels are indices, so the model's classes must be the data's, unless it was made without. */
static gfl_status gfli_check_classes(gfl_context *context, const gfl_model *model,
                                     const gfl_dataset *dataset) {
    char mine[GFLI_QUOTED], theirs[GFLI_QUOTED];
    int n = gfl_dataset_count_classes(dataset);
    const gfl_class *classes = gfl_dataset_get_classes(dataset);
    bool named = false;
    GFLI_TRY(gfli_dataset_check_names(context, dataset));
    if (n != model->arch.n_classes)
        return gfli_error(context, GFL_E_MISMATCH,
                          "the model has %d classes, but the data set has %d; create the model "
                          "with gfl_dataset_get_classes",
                          model->arch.n_classes, n);
    for (int i = 0; i < n && !named; i++) {
        char fallback[32];
        snprintf(fallback, sizeof fallback, "class %d", i);
        named = strcmp(model->classes[i].name, fallback) != 0;
    }
    for (int i = 0; i < n && named; i++)
        if (strcmp(model->classes[i].name, classes[i].name) != 0)
            return gfli_error(context, GFL_E_MISMATCH,
                              "class %d is %s in the model and %s in the data set; create "
                              "the model with gfl_dataset_get_classes",
                              i, gfli_quote(model->classes[i].name, mine, sizeof mine),
                              gfli_quote(classes[i].name, theirs, sizeof theirs));
    return GFL_OK;
}

/* The padded size that holds every image of the set.  A batch of what is left at an epoch's end
 * may have both portraits and landscapes. */
static void gfli_largest_size(const gfl_trainer *trainer, int *height, int *width) {
    const gfl_trainer_desc *d = &trainer->plan.desc;
    *height = *width = 32;
    for (int i = 0; i < gfl_dataset_count_images(trainer->dataset); i++) {
        gfl_image_info info;
        int w = d->scale_long, h = d->scale_long;
        if (gfl_dataset_get_image(trainer->dataset, i, &info) != GFL_OK) continue;
        if (info.width > 0 && info.height > 0)
            gfli_resized_size(info.width, info.height, d->scale_long, d->scale_short, &w, &h);
        *width = gfli_max(*width, gfli_pad32(w));
        *height = gfli_max(*height, gfli_pad32(h));
    }
}

static gfl_status gfli_measure_training(gfl_trainer *trainer) {
    gfl_trainer_info *plan = &trainer->plan;
    gfli_train_plan largest;
    int height, width;
    memset(&largest, 0, sizeof largest);
    gfli_largest_size(trainer, &height, &width);
    GFLI_TRY(gfli_train_plan_create(&trainer->learner, plan->desc.batch, height, width, &largest));
    plan->workspace_bytes = largest.plan.workspace_bytes +
                            largest.plan.stats_floats * sizeof(float) +
                            largest.backward.scratch_bytes + largest.backward.packed_bytes;
    plan->workspace_bytes +=
        (plan->desc.accumulate > 1 ? 3 : 2) * trainer->learner.layout.floats * sizeof(float);
    gfli_train_plan_free(&trainer->learner, &largest);
    return GFL_OK;
}

static gfl_status gfli_trainer_start_loader(gfl_trainer *trainer) {
    const gfl_trainer_desc *d = &trainer->asked;
    gfli_loader_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.batch = d->batch;
    opts.seed = d->seed;
    opts.scale_long = d->scale_long;
    opts.scale_short = d->scale_short;
    opts.scale_short_min = d->scale_short_min;
    opts.bgr = trainer->model->preprocess.bgr != 0;
    opts.inclusive = gfli_dialect_get(trainer->model->arch.dialect)->inclusive;
    opts.one_scale = gfli_dialect_get(trainer->model->arch.dialect)->one_scale;
    opts.no_flip = d->no_flip != 0;
    opts.drop_empty = d->drop_empty != 0;
    opts.no_grouping = d->no_grouping != 0;
    opts.n_threads = gfli_max(d->loaders, 0);
    return gfli_loader_create(trainer->context, trainer->dataset, &opts, &trainer->loader);
}

static gfl_status gfli_trainer_init(gfl_trainer *trainer, const gfl_trainer_desc *desc) {
    gfl_context *context = trainer->context;
    const gfl_trainer_desc *d = &trainer->plan.desc;
    GFLI_TRY(gfli_train_resolve(context, trainer->model, desc, &trainer->asked));
    GFLI_TRY(gfli_check_classes(context, trainer->model, trainer->dataset));
    GFLI_TRY(gfli_trainer_start_loader(trainer));
    trainer->plan.desc = trainer->asked;
    gfli_train_fit(&trainer->plan, gfli_loader_images(trainer->loader), context->ranks.n_ranks);
    trainer->plan.n_dropped_images =
        gfl_dataset_count_images(trainer->dataset) - trainer->plan.n_images;
    GFLI_TRY(gfli_alloc(context, (size_t)d->batch * (size_t)d->accumulate, sizeof(int), "batch",
                        &trainer->images));
    GFLI_TRY(gfli_alloc(context, (size_t)d->batch, sizeof *trainer->targets, "batch",
                        &trainer->targets));
    GFLI_TRY(gfli_alloc(context, (size_t)d->accumulate + 1, sizeof(int), "batch", &trainer->first));
    GFLI_TRY(gfli_alloc(context, (size_t)d->accumulate, sizeof *trainer->losses, "batch",
                        &trainer->losses));
    GFLI_TRY(gfli_learner_create(context, trainer->model, d->frozen_stages, &trainer->learner));
    GFLI_TRY(gfli_learner_begin(&trainer->learner, d->accumulate));
    return gfli_measure_training(trainer);
}

gfl_status gfl_trainer_create(gfl_context *context, gfl_model *model, const gfl_dataset *dataset,
                              const gfl_trainer_desc *desc, gfl_trainer **out) {
    gfl_trainer *trainer;
    gfl_trainer_desc d;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, model);
    GFLI_NOT_NULL(context, dataset);
    GFLI_NOT_NULL(context, out);
    GFLI_TRAINABLE(context, model);
    GFLI_TRY(gfli_calloc(context, 1, sizeof *trainer, "trainer", &trainer));
    trainer->context = context;
    trainer->model = model;
    trainer->dataset = dataset;
    gfl_status status =
        (context->backend->device.alloc)(context, GFLI_DESK, 1, "trainer", &trainer->desk);
    if (status == GFL_OK) status = gfli_trainer_join(trainer, gfli_trainer_init(trainer, &d));
    if (status != GFL_OK) {
        gfl_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return GFL_OK;
}

void gfl_trainer_destroy(gfl_trainer *trainer) {
    if (!trainer) return;
    gfl_context *context = trainer->context;
    gfli_loader_destroy(trainer->loader);
    (void)gfli_model_pack(trainer->model);
    gfli_learner_destroy(&trainer->learner);
    gfli_free(context, trainer->images);
    gfli_free(context, trainer->targets);
    gfli_free(context, trainer->first);
    gfli_free(context, trainer->losses);
    (context->backend->device.free)(context, trainer->pixels);
    (context->backend->device.free)(context, trainer->desk);
    gfli_free(context, trainer);
}

void gfl_trainer_get_info(const gfl_trainer *trainer, gfl_trainer_info *out) {
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (!trainer) return;
    *out = trainer->plan;
    out->n_done = trainer->learner.updates;
}

/* ---- one step -------------------------------------------------------------------------------- */

/* "a.jpg (id 3), b.jpg (id 7) and 14 more" of the step's images first..end. */
static void gfli_name_images(const gfl_trainer *trainer, int first, int end, char *out,
                             size_t capacity) {
    size_t used = 0;
    out[0] = 0;
    for (int i = first; i < end; i++) {
        char id[GFLI_ID_TEXT], one[400];
        gfl_image_info info;
        if (gfl_dataset_get_image(trainer->dataset, trainer->images[i], &info) != GFL_OK) continue;
        int n = snprintf(one, sizeof one, "%s%.200s (id %s)", i > first ? ", " : "", info.file_name,
                         gfli_id_text(info.id, id));
        if (n < 0 || used + (size_t)n + 32 > capacity) {
            snprintf(out + used, capacity - used, " and %d more", end - i);
            return;
        }
        memcpy(out + used, one, (size_t)n + 1);
        used += (size_t)n;
    }
}

/* The learner's text says what is not finite.  Where it is the loss of a batch, its images are
 * named. */
static gfl_status gfli_not_finite(gfl_trainer *trainer, int n_batches, const gfli_losses *losses) {
    char names[500], what[320];
    int batch = 0;
    while (batch < n_batches && !gfli_bad_loss_name(&losses[batch])) batch++;
    const bool all = batch == n_batches;
    snprintf(what, sizeof what, "%.300s", trainer->context->error);
    gfli_name_images(trainer, all ? 0 : trainer->first[batch],
                     all ? trainer->n_images : trainer->first[batch + 1], names, sizeof names);
    return gfli_error(trainer->context, GFL_E_NONFINITE,
                      "step %lld: %s; the model is as before the step.  Images%s: %s.  "
                      "Look at their boxes, or lower lr, lengthen the warm-up or set clip_norm",
                      (long long)trainer->learner.updates + 1, what,
                      trainer->context->ranks.n_ranks > 1 ? " of this rank" : "", names);
}

/* One piece of the device's memory serves all images: each is used up in order. */
static gfl_status gfli_normalise_batch(gfl_trainer *trainer, const gfli_batch *batch,
                                       const gfli_map *input) {
    const gfl_preprocess *p = &trainer->model->preprocess;
    const gfli_backend *backend = trainer->model->backend;
    for (int i = 0; i < batch->n; i++) {
        const gfli_sample *s = &batch->samples[i];
        gfli_target *target = &trainer->targets[i];
        const size_t bytes = (size_t)s->width * (size_t)s->height * 3;
        GFLI_TRY(gfli_reserve_device(trainer->context, &trainer->pixels, &trainer->pixels_size,
                                     bytes, 1, "pixels"));
        backend->device.upload(trainer->context, trainer->pixels, s->pixels, bytes);
        backend->infer.normalise(trainer->context, trainer->pixels, s->width, s->height, p->mean,
                                 p->std, s->flip, input, i);
        target->boxes = s->boxes;
        target->labels = s->labels;
        target->n = s->n_boxes;
        target->pad_h = gfli_pad32(s->height);
        target->pad_w = gfli_pad32(s->width);
        trainer->images[trainer->n_images++] = s->image;
    }
    return GFL_OK;
}

/* Make ready for the loader's next batch: all of a step that can fail. */
static gfl_status gfli_trainer_ready(gfl_trainer *trainer, int number, gfl_step_report *out) {
    const gfli_batch *batch;
    gfli_map input;
    double start = gfli_seconds();
    GFLI_TRY(gfli_loader_next(trainer->loader, &batch));
    out->data_seconds += gfli_seconds() - start;
    GFLI_TRY(gfli_learner_input(&trainer->learner, batch->n, batch->height, batch->width, &input));
    GFLI_TRY(gfli_normalise_batch(trainer, batch, &input));
    trainer->first[number + 1] = trainer->n_images;
    out->n_images += batch->n * trainer->context->ranks.n_ranks;
    return gfli_learner_targets(&trainer->learner, trainer->targets);
}

int gfli_trainer_position(const gfl_trainer *trainer, int *epoch, int *first) {
    const gfl_trainer_info *plan = &trainer->plan;
    int64_t step = trainer->learner.updates;
    *epoch = (int)(step / plan->steps_per_epoch);
    *first = (int)(step % plan->steps_per_epoch) * plan->desc.accumulate;
    return gfli_min(plan->desc.accumulate, gfli_loader_batches(trainer->loader, *epoch) - *first);
}

static gfl_status gfli_trainer_update(gfl_trainer *trainer, gfl_step_report *out) {
    const gfl_trainer_desc *d = &trainer->plan.desc;
    gfli_sgd_opts opts;
    opts.lr = out->lr;
    opts.momentum = d->momentum < 0 ? 0 : d->momentum;
    opts.decay = d->weight_decay < 0 ? 0 : d->weight_decay;
    opts.clip = d->clip_norm;
    const int n = trainer->learner.n_batches;
    gfl_status status =
        gfli_train_update(&trainer->learner, &opts, &out->grad_norm, trainer->losses);
    if (status == GFL_E_NONFINITE) return gfli_not_finite(trainer, n, trainer->losses);
    for (int i = 0; i < n; i++) {
        for (int l = 0; l < GFL_LEVELS; l++) {
            out->loss_cls += trainer->losses[i].cls[l];
            out->loss_bbox += trainer->losses[i].bbox[l];
            out->loss_dfl += trainer->losses[i].dfl[l];
        }
        out->n_positives += (int)trainer->losses[i].n_pos;
    }
    return status;
}

static gfl_status gfli_trainer_run(gfl_trainer *trainer, gfl_step_report *out) {
    int epoch, first, n = gfli_trainer_position(trainer, &epoch, &first);
    const int n_shares = n * trainer->context->ranks.n_ranks;
    gfl_status mine = GFL_OK;
    if (!trainer->positioned) mine = gfli_loader_start(trainer->loader, epoch, first);
    trainer->positioned = false; /* until the step has succeeded */
    trainer->n_images = 0;
    trainer->first[0] = 0;
    GFLI_TRY(gfli_learner_begin(&trainer->learner, n));
    for (int i = 0; i < n; i++) {
        if (mine == GFL_OK) mine = gfli_trainer_ready(trainer, i, out);
        GFLI_TRY(gfli_train_gradients(&trainer->learner, i, mine));
        if (n > 1) gfli_learner_accumulate(&trainer->learner);
    }
    out->epoch = epoch;
    out->step_in_epoch = first / trainer->plan.desc.accumulate;
    out->steps_per_epoch = trainer->plan.steps_per_epoch;
    out->lr = gfli_train_rate(&trainer->plan.desc, gfli_dialect_get(trainer->model->arch.dialect),
                              trainer->plan.steps_per_epoch, trainer->learner.updates);
    GFLI_TRY(gfli_trainer_update(trainer, out));
    trainer->positioned = true;
    out->loss_cls /= n_shares;
    out->loss_bbox /= n_shares;
    out->loss_dfl /= n_shares;
    out->loss = out->loss_cls + out->loss_bbox + out->loss_dfl;
    return GFL_OK;
}

gfl_status gfl_trainer_step(gfl_trainer *trainer, gfl_step_report *out) {
    gfl_step_report report;
    memset(&report, 0, sizeof report);
    if (out) *out = report;
    GFLI_NOT_NULL(NULL, trainer);
    double start = gfli_seconds();
    if (trainer->learner.updates >= trainer->plan.n_steps)
        return gfli_error(trainer->context, GFL_E_ARG,
                          "gfl_trainer_step: training is done, after %lld steps",
                          (long long)trainer->plan.n_steps);
    GFLI_TRY(gfli_trainer_run(trainer, &report));
    report.step = trainer->learner.updates;
    report.epoch_done = report.step_in_epoch == report.steps_per_epoch - 1;
    report.training_done = report.step == trainer->plan.n_steps;
    report.seconds = gfli_seconds() - start;
    if (out) *out = report;
    return GFL_OK;
}
