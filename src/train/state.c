/* state.c - training state: what resuming needs beside the weights */
#pragma once

/* ---- the description as text ----------------------------------------------------------------- */

enum { GFLI_STATE_FIELDS = 19, GFLI_STATE_TEXT = 128 };

/* One field of what must be the same for training to go on as if nothing had happened. */
typedef struct gfli_state_field {
    const char *key;
    char value[GFLI_STATE_TEXT];
} gfli_state_field;

typedef struct gfli_state_fields {
    gfli_state_field fields[GFLI_STATE_FIELDS];
    int n;
} gfli_state_fields;

static void gfli_put_integer(gfli_state_fields *f, const char *key, int64_t value) {
    gfli_state_field *field = &f->fields[f->n++];
    field->key = key;
    snprintf(field->value, sizeof field->value, "%lld", (long long)value);
}

static void gfli_put_real(gfli_state_fields *f, const char *key, double value) {
    gfli_state_field *field = &f->fields[f->n++];
    field->key = key;
    gfli_json_format(value, field->value);
}

static void gfli_put_text(gfli_state_fields *f, const char *key, const char *value) {
    gfli_state_field *field = &f->fields[f->n++];
    field->key = key;
    snprintf(field->value, sizeof field->value, "%s", value);
}

static void gfli_put_milestones(gfli_state_fields *f, const gfl_trainer_desc *d) {
    gfli_state_field *field = &f->fields[f->n++];
    size_t used = 0;
    field->key = "milestones";
    field->value[0] = 0;
    for (int i = 0; i < d->n_milestones; i++) {
        int n = snprintf(field->value + used, sizeof field->value - used, i > 0 ? ",%d" : "%d",
                         d->milestones[i]);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* Not the number of loaders: it changes nothing. */
static void gfli_describe_training(const gfl_trainer *trainer, const gfl_trainer_desc *d,
                                   gfli_state_fields *f) {
    f->n = 0;
    gfli_put_text(f, "dialect", gfli_dialect_get(trainer->model->arch.dialect)->name);
    gfli_put_integer(f, "batch", d->batch);
    gfli_put_integer(f, "accumulate", d->accumulate);
    gfli_put_integer(f, "epochs", d->epochs);
    gfli_put_milestones(f, d);
    gfli_put_real(f, "lr", d->lr);
    gfli_put_real(f, "momentum", d->momentum);
    gfli_put_real(f, "weight_decay", d->weight_decay);
    gfli_put_integer(f, "warmup", d->warmup);
    gfli_put_real(f, "clip_norm", d->clip_norm);
    gfli_put_integer(f, "frozen_stages", d->frozen_stages);
    gfli_put_integer(f, "scale_long", d->scale_long);
    gfli_put_integer(f, "scale_short", d->scale_short);
    gfli_put_integer(f, "scale_short_min", d->scale_short_min);
    gfli_put_integer(f, "no_flip", d->no_flip != 0);
    gfli_put_integer(f, "drop_empty", d->drop_empty != 0);
    gfli_put_integer(f, "no_grouping", d->no_grouping != 0);
    gfli_put_integer(f, "seed", (int64_t)d->seed);
}

/* ---- saving ---------------------------------------------------------------------------------- */

static gfl_status gfli_put_number(gfli_blob_writer *w, const char *key, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return gfli_blob_put_meta(w, key, text);
}

static gfl_status gfli_put_state_meta(const gfl_trainer *trainer, gfli_blob_writer *w) {
    gfli_state_fields f;
    uint64_t weights_hash;
    char hash[24];
    int epoch, batch;
    (void)gfli_trainer_position(trainer, &epoch, &batch);
    GFLI_TRY(gfli_blob_put_meta(w, "gfl_state", "1"));
    GFLI_TRY(gfli_blob_put_meta(w, "gfl_version", GFL_VERSION_TEXT));
    GFLI_TRY(gfli_put_number(w, "step", trainer->learner.updates));
    GFLI_TRY(gfli_put_number(w, "epoch", epoch));
    GFLI_TRY(gfli_put_number(w, "batch_in_epoch", batch));
    GFLI_TRY(gfli_hash_model(trainer->model, &weights_hash));
    gfli_hash_format(weights_hash, hash);
    GFLI_TRY(gfli_blob_put_meta(w, "weights", hash));
    gfli_hash_format(gfli_hash_dataset(trainer->dataset), hash);
    GFLI_TRY(gfli_blob_put_meta(w, "data", hash));
    gfli_describe_training(trainer, &trainer->plan.desc, &f);
    for (int i = 0; i < f.n; i++)
        GFLI_TRY(gfli_blob_put_meta(w, f.fields[i].key, f.fields[i].value));
    return GFL_OK;
}

static void gfli_momentum_name(const gfli_param *param, char out[160]) {
    snprintf(out, 160, "momentum.%s", param->name);
}

/* buffer: room for twice the largest parameter. */
static gfl_status gfli_put_momentum(const gfl_trainer *trainer, gfli_blob_writer *w,
                                    float *buffer) {
    const gfli_learner *l = &trainer->learner;
    const gfl_model *model = trainer->model;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        char name[160];
        if (l->layout.offset[i] == GFLI_NO_GRADIENT) continue;
        gfli_momentum_name(p, name);
        GFLI_TRY(gfli_blob_declare(w, name, GFLI_F32, p->rank, p->shape));
    }
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        if (l->layout.offset[i] == GFLI_NO_GRADIENT) continue;
        float *kept = p->rank == 4 ? buffer + p->count : buffer;
        GFLI_TRY(gfli_fetch(model, l->momentum + l->layout.offset[i], p->count, kept));
        if (p->rank == 4) gfli_reorder_weight(p, kept, buffer, true);
        GFLI_TRY(gfli_blob_write(w, buffer, p->count * sizeof(float)));
    }
    return GFL_OK;
}

static gfl_status gfli_alloc_largest(const gfl_model *model, gfl_context *context, float **out) {
    return gfli_alloc(context, 2 * gfli_largest_param(model), sizeof(float), "tensor", out);
}

gfl_status gfl_trainer_save_state(const gfl_trainer *trainer, const char *path) {
    gfli_blob_writer *w = NULL;
    float *buffer;
    GFLI_NOT_NULL(NULL, trainer);
    GFLI_NOT_NULL(trainer->context, path);
    GFLI_TRY(gfli_alloc_largest(trainer->model, trainer->context, &buffer));
    gfl_status status = gfli_blob_create(trainer->context, path, &w);
    if (status == GFL_OK) {
        status = gfli_put_state_meta(trainer, w);
        if (status == GFL_OK) status = gfli_put_momentum(trainer, w, buffer);
        if (status == GFL_OK)
            status = gfli_blob_finish(w);
        else
            gfli_blob_abandon(w);
    }
    gfli_free(trainer->context, buffer);
    return status;
}

/* ---- loading --------------------------------------------------------------------------------- */

/* Whatever a file says, reading it takes memory for its header, and beside that the momentum once
 * more and one tensor; nothing is allocated for numbers before every tensor was found to fit. */

static gfl_status gfli_check_state_kind(const gfli_blob *blob) {
    const char *kind = gfli_blob_meta(blob, "gfl_state");
    char quoted[GFLI_QUOTED];
    if (!kind)
        return gfli_error(blob->context, GFL_E_FORMAT,
                          "%s: it is not a training state: its metadata has no \"gfl_state\"%s",
                          blob->path,
                          gfli_blob_meta(blob, "gfl_format") ? "; it is a weight file" : "");
    if (strcmp(kind, "1") != 0)
        return gfli_error(blob->context, GFL_E_UNSUPPORTED,
                          "%s: it is a training state of format %s; this version reads format 1",
                          blob->path, gfli_quote(kind, quoted, sizeof quoted));
    return GFL_OK;
}

/* How long to train and when to lower the rate may be decided anew. */
static bool gfli_may_change(const char *key) {
    return strcmp(key, "epochs") == 0 || strcmp(key, "milestones") == 0;
}

/* Version 0.1.0 did not count: a batch larger than the data set was called as large as it had been
 * asked for, and its default rate was that of so many images. */
static void gfli_describe_uncounted(const gfl_trainer *trainer, gfli_state_fields *f) {
    gfl_trainer_desc d = trainer->plan.desc;
    d.batch = trainer->asked.batch;
    d.accumulate = trainer->asked.accumulate;
    if (trainer->asked.lr == 0) d.lr = gfli_default_rate(d.batch, d.accumulate);
    gfli_describe_training(trainer, &d, f);
}

/* *lr: the rate to go on with. */
static gfl_status gfli_check_state_desc(const gfl_trainer *trainer, const gfli_blob *blob,
                                        double *lr) {
    gfli_state_fields f, uncounted;
    char quoted[GFLI_QUOTED];
    gfli_describe_training(trainer, &trainer->plan.desc, &f);
    gfli_describe_uncounted(trainer, &uncounted);
    *lr = trainer->plan.desc.lr;
    for (int i = 0; i < f.n; i++) {
        const char *key = f.fields[i].key, *saved = gfli_blob_meta(blob, key);
        if (!saved)
            return gfli_error(trainer->context, GFL_E_FORMAT, "%s: its metadata has no \"%s\"",
                              blob->path, key);
        if (strcmp(saved, f.fields[i].value) == 0 || gfli_may_change(key)) continue;
        if (strcmp(saved, uncounted.fields[i].value) != 0)
            return gfli_error(trainer->context, GFL_E_MISMATCH,
                              "%s: it was saved with %s = %s, but the trainer has %s; create the "
                              "trainer with the description that the state was saved with",
                              blob->path, key, gfli_quote(saved, quoted, sizeof quoted),
                              f.fields[i].value);
        if (strcmp(key, "lr") == 0)
            *lr = gfli_default_rate(trainer->asked.batch, trainer->asked.accumulate);
    }
    return GFL_OK;
}

static gfl_status gfli_check_state_hashes(const gfl_trainer *trainer, const gfli_blob *blob) {
    uint64_t weights_hash;
    char hash[24], quoted[GFLI_QUOTED];
    const char *weights = gfli_blob_meta(blob, "weights"), *data = gfli_blob_meta(blob, "data");
    if (!weights || !data)
        return gfli_error(trainer->context, GFL_E_FORMAT, "%s: its metadata has no fingerprints",
                          blob->path);
    gfli_hash_format(gfli_hash_dataset(trainer->dataset), hash);
    if (strcmp(data, hash) != 0)
        return gfli_error(trainer->context, GFL_E_MISMATCH,
                          "%s: it was saved with another data set (fingerprint %s, here %s); "
                          "images, boxes and classes must be the same",
                          blob->path, gfli_quote(data, quoted, sizeof quoted), hash);
    GFLI_TRY(gfli_hash_model(trainer->model, &weights_hash));
    gfli_hash_format(weights_hash, hash);
    if (strcmp(weights, hash) != 0)
        return gfli_error(trainer->context, GFL_E_MISMATCH,
                          "%s: the model's weights are not those of this state (fingerprint %s, "
                          "here %s); load the weight file saved at the same step",
                          blob->path, gfli_quote(weights, quoted, sizeof quoted), hash);
    return GFL_OK;
}

/* A counter of the metadata. */
static gfl_status gfli_state_number(const gfli_blob *blob, const char *key, int64_t *out) {
    const char *text = gfli_blob_meta(blob, key), *p = text;
    char quoted[GFLI_QUOTED];
    int64_t value = 0;
    for (; p && *p >= '0' && *p <= '9' && value < INT64_MAX / 10 - 1; p++)
        value = value * 10 + (*p - '0');
    if (!p || p == text || *p)
        return gfli_error(blob->context, GFL_E_FORMAT,
                          "%s: \"%s\" is %s in its metadata, not a count", blob->path, key,
                          text ? gfli_quote(text, quoted, sizeof quoted) : "missing");
    *out = value;
    return GFL_OK;
}

static gfl_status gfli_read_position(const gfl_trainer *trainer, const gfli_blob *blob,
                                     int64_t *out) {
    const gfl_trainer_info *plan = &trainer->plan;
    const int64_t spe = plan->steps_per_epoch;
    int64_t step, epoch, batch;
    GFLI_TRY(gfli_state_number(blob, "step", &step));
    GFLI_TRY(gfli_state_number(blob, "epoch", &epoch));
    GFLI_TRY(gfli_state_number(blob, "batch_in_epoch", &batch));
    if (step > plan->n_steps)
        return gfli_error(
            trainer->context, GFL_E_MISMATCH,
            "%s: %lld steps are done, but the %d epochs of the trainer have only %lld", blob->path,
            (long long)step, plan->desc.epochs, (long long)plan->n_steps);
    if (epoch != step / spe || batch != step % spe * plan->desc.accumulate)
        return gfli_error(trainer->context, GFL_E_FORMAT,
                          "%s: step %lld, epoch %lld and batch %lld of its metadata do not go "
                          "together",
                          blob->path, (long long)step, (long long)epoch, (long long)batch);
    *out = step;
    return GFL_OK;
}

static bool gfli_fits_param(const gfli_tensor *t, const gfli_param *p) {
    bool fits = t->dtype == GFLI_F32 && t->rank == p->rank;
    for (int k = 0; fits && k < p->rank; k++) fits = t->shape[k] == p->shape[k];
    return fits;
}

/* The momentum of every trained parameter, and nothing else. */
static gfl_status gfli_check_momentum(const gfl_trainer *trainer, const gfli_blob *blob) {
    const gfl_model *model = trainer->model;
    int n = 0;
    for (int i = 0; i < model->n_params; i++) {
        char name[160];
        if (trainer->learner.layout.offset[i] == GFLI_NO_GRADIENT) continue;
        gfli_momentum_name(&model->params[i], name);
        const gfli_tensor *tensor = gfli_blob_find(blob, name);
        if (!tensor || !gfli_fits_param(tensor, &model->params[i]))
            return gfli_error(trainer->context, GFL_E_MISMATCH, "%s: %s is %s", blob->path, name,
                              tensor ? "of another shape or type" : "missing");
        n++;
    }
    if (blob->n_tensors != n)
        return gfli_error(trainer->context, GFL_E_MISMATCH,
                          "%s: it holds %d tensors, but the state of this model has %d", blob->path,
                          blob->n_tensors, n);
    return GFL_OK;
}

static gfl_status gfli_read_momentum(const gfl_trainer *trainer, gfli_blob *blob, float *momentum,
                                     float *buffer) {
    const gfl_model *model = trainer->model;
    const gfli_learner *l = &trainer->learner;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        char name[160];
        if (l->layout.offset[i] == GFLI_NO_GRADIENT) continue;
        gfli_momentum_name(p, name);
        float *to = momentum + l->layout.offset[i];
        GFLI_TRY(gfli_blob_read_f32(blob, gfli_blob_find(blob, name), p->rank == 4 ? buffer : to));
        if (p->rank == 4) gfli_reorder_weight(p, buffer, to, false);
        if (!gfli_all_finite(to, p->count))
            return gfli_error(trainer->context, GFL_E_FORMAT,
                              "%s: %s is not finite: the file is damaged, or was written after the "
                              "training had failed; go on from an earlier state",
                              blob->path, name);
    }
    return GFL_OK;
}

gfl_status gfli_state_load(gfl_trainer *trainer, gfli_blob *blob) {
    gfli_learner *l = &trainer->learner;
    float *momentum, *buffer = NULL;
    int64_t step = 0;
    double lr;
    GFLI_TRY(gfli_check_state_kind(blob));
    GFLI_TRY(gfli_check_state_desc(trainer, blob, &lr));
    GFLI_TRY(gfli_check_state_hashes(trainer, blob));
    GFLI_TRY(gfli_read_position(trainer, blob, &step));
    GFLI_TRY(gfli_check_momentum(trainer, blob));
    GFLI_TRY(gfli_calloc(trainer->context, l->layout.floats, sizeof(float), "momentum", &momentum));
    gfl_status status = gfli_alloc_largest(trainer->model, trainer->context, &buffer);
    if (status == GFL_OK) status = gfli_read_momentum(trainer, blob, momentum, buffer);
    gfli_free(trainer->context, buffer);
    if (status == GFL_OK)
        trainer->model->backend->device.upload(trainer->context, l->momentum, momentum,
                                               l->layout.floats * sizeof *momentum);
    gfli_free(trainer->context, momentum);
    GFLI_TRY(status);
    l->updates = step;
    trainer->plan.desc.lr = lr;
    trainer->positioned = false;
    return GFL_OK;
}

gfl_status gfl_trainer_load_state(gfl_trainer *trainer, const char *path) {
    gfli_blob blob;
    GFLI_NOT_NULL(NULL, trainer);
    GFLI_NOT_NULL(trainer->context, path);
    GFLI_TRY(gfli_blob_open(trainer->context, path, &blob));
    gfl_status status = gfli_state_load(trainer, &blob);
    gfli_blob_close(&blob);
    return status;
}
