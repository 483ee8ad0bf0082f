/* state.c - training state: what resuming needs beside the weights */
#pragma once

/* ---- the description as text ----------------------------------------------------------------- */

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
void gfli_describe_training(const gfl_trainer *trainer, const gfl_trainer_desc *d,
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

static gfl_status gfli_put_state_meta(const gfl_trainer *trainer, const char *weights_hash,
                                      gfli_blob_writer *w) {
    gfli_state_fields f;
    char hash[24];
    int epoch, batch;
    (void)gfli_trainer_position(trainer, &epoch, &batch);
    GFLI_TRY(gfli_blob_put_meta(w, "gfl_state", "1"));
    GFLI_TRY(gfli_blob_put_meta(w, "gfl_version", GFL_VERSION_TEXT));
    GFLI_TRY(gfli_put_number(w, "step", trainer->learner.updates));
    GFLI_TRY(gfli_put_number(w, "epoch", epoch));
    GFLI_TRY(gfli_put_number(w, "batch_in_epoch", batch));
    if (trainer->context->ranks.n_ranks > 1)
        GFLI_TRY(gfli_put_number(w, "ranks", trainer->context->ranks.n_ranks));
    GFLI_TRY(gfli_blob_put_meta(w, "weights", weights_hash));
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

static gfl_status gfli_state_write(const gfl_trainer *trainer, const char *weights_hash,
                                   gfli_sink to) {
    gfli_blob_writer *w = NULL;
    float *buffer;
    GFLI_TRY(gfli_alloc_largest(trainer->model, trainer->context, &buffer));
    gfl_status status = gfli_blob_create(trainer->context, to, &w);
    if (status == GFL_OK) {
        status = gfli_put_state_meta(trainer, weights_hash, w);
        if (status == GFL_OK) status = gfli_put_momentum(trainer, w, buffer);
        if (status == GFL_OK)
            status = gfli_blob_finish(w);
        else
            gfli_blob_abandon(w);
    }
    gfli_free(trainer->context, buffer);
    return status;
}

/* Rank 0 alone reads and writes, so that the others need not say where.  Who lacks it fails with
 * all the others, who would wait otherwise. */
static gfl_status gfli_check_place(const gfl_trainer *trainer, const void *place,
                                   const char *what) {
    GFLI_DEMAND(trainer->context, place || trainer->context->ranks.rank > 0,
                "%s: its path, or the place of its bytes, is NULL", what);
    return GFL_OK;
}

/* Ranks whose weights have come apart, by a fault of a machine or of the program, save nothing. */
static gfl_status gfli_state_save(const gfl_trainer *trainer, const void *place, gfli_sink to) {
    static const char *const what = "saving the state of a training";
    char hash[24], text[GFLI_DESK];
    uint64_t weights = 0;
    gfl_status status = gfli_check_place(trainer, place, what);
    if (status == GFL_OK) status = gfli_hash_model(trainer->model, &weights);
    gfli_hash_format(weights, hash);
    snprintf(text, sizeof text, "fingerprint of the weights = %s\n", hash);
    GFLI_TRY(gfli_trainer_compare(trainer, status, text, what));
    if (trainer->context->ranks.rank == 0) status = gfli_state_write(trainer, hash, to);
    status = gfli_trainer_agree(trainer, status, what);
    if (status != GFL_OK) gfl_bytes_free(trainer->context, to.bytes);
    return status;
}

gfl_status gfl_trainer_save_state(const gfl_trainer *trainer, const char *path) {
    GFLI_NOT_NULL(NULL, trainer);
    return gfli_state_save(trainer, path, gfli_to_file(path));
}

gfl_status gfl_trainer_save_state_memory(const gfl_trainer *trainer, gfl_bytes *out) {
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(NULL, trainer);
    return gfli_state_save(trainer, out, gfli_to_memory(out));
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

/* How the updates of a state were made up: a file that names no ranks comes from one. */
typedef struct gfli_state_origin {
    int64_t ranks, batch, accumulate;
    bool regrouped; /* by other ranks than the trainer's */
    bool resized;   /* ... and from another number of images */
} gfli_state_origin;

/* Other ranks may go on in the same way, or in another one when an epoch ends: the order of its
 * images depends on how many a batch of all ranks has. */
static gfl_status gfli_read_origin(const gfl_trainer *trainer, const gfli_blob *blob,
                                   gfli_state_origin *out) {
    const int n_ranks = trainer->context->ranks.n_ranks;
    const int64_t per_update = trainer->plan.images_per_update;
    int64_t in_epoch;
    memset(out, 0, sizeof *out);
    out->ranks = 1;
    if (gfli_blob_meta(blob, "ranks")) GFLI_TRY(gfli_state_number(blob, "ranks", &out->ranks));
    GFLI_TRY(gfli_state_number(blob, "batch", &out->batch));
    GFLI_TRY(gfli_state_number(blob, "accumulate", &out->accumulate));
    GFLI_TRY(gfli_state_number(blob, "batch_in_epoch", &in_epoch));
    if (out->ranks > 65536 || out->batch > 65536 || out->accumulate > 65536)
        return gfli_error(blob->context, GFL_E_FORMAT,
                          "%s: ranks, batch and accumulate of its metadata are beyond all limits",
                          blob->path);
    const int64_t saved = out->ranks * out->batch * out->accumulate;
    out->regrouped = out->ranks != n_ranks;
    out->resized = out->regrouped && saved != per_update;
    const int64_t together = out->ranks * out->batch;
    const bool alike = together == (int64_t)n_ranks * trainer->plan.desc.batch && !out->resized;
    if (!out->regrouped || alike || in_epoch == 0) return GFL_OK;
    return gfli_error(
        trainer->context, GFL_E_MISMATCH,
        "%s: saved amid an epoch by %lld ranks with %lld images per update, here are "
        "%d with %lld; choose batch and accumulate so that ranks * batch is %lld and accumulate "
        "is %lld, or go on from the end of an epoch",
        blob->path, (long long)out->ranks, (long long)saved, n_ranks, (long long)per_update,
        (long long)together, (long long)out->accumulate);
}

/* What follows from the number of images may change with it. */
static bool gfli_may_resize(const gfli_state_origin *origin, const char *key) {
    static const char *const keys[] = {"batch", "accumulate", "lr", "warmup"};
    for (size_t i = 0; i < GFLI_COUNT(keys) && origin->resized; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

/* What comes to the same.  Other ranks had other batches; and version 0.1.0 did not count: a batch
 * larger than the data set was called as large as it had been asked for, and its default rate was
 * that of so many images. */
static gfl_trainer_desc gfli_describe_otherwise(const gfl_trainer *trainer,
                                                const gfli_state_origin *origin) {
    gfl_trainer_desc d = trainer->plan.desc;
    d.batch = origin->regrouped ? (int)origin->batch : trainer->asked.batch;
    d.accumulate = origin->regrouped ? (int)origin->accumulate : trainer->asked.accumulate;
    if (trainer->asked.lr == 0) d.lr = gfli_default_rate(origin->ranks * d.batch, d.accumulate);
    return d;
}

/* *lr: the rate to go on with. */
static gfl_status gfli_check_state_desc(const gfl_trainer *trainer, const gfli_blob *blob,
                                        const gfli_state_origin *origin, double *lr) {
    const gfl_trainer_desc otherwise = gfli_describe_otherwise(trainer, origin);
    gfli_state_fields f, other;
    char quoted[GFLI_QUOTED];
    gfli_describe_training(trainer, &trainer->plan.desc, &f);
    gfli_describe_training(trainer, &otherwise, &other);
    *lr = trainer->plan.desc.lr;
    for (int i = 0; i < f.n; i++) {
        const char *key = f.fields[i].key, *saved = gfli_blob_meta(blob, key);
        if (!saved)
            return gfli_error(trainer->context, GFL_E_FORMAT, "%s: its metadata has no \"%s\"",
                              blob->path, key);
        if (strcmp(saved, f.fields[i].value) == 0 || gfli_may_change(key)) continue;
        if (gfli_may_resize(origin, key)) continue;
        if (strcmp(saved, other.fields[i].value) != 0)
            return gfli_error(trainer->context, GFL_E_MISMATCH,
                              "%s: it was saved with %s = %s, but the trainer has %s; create the "
                              "trainer with the description that the state was saved with",
                              blob->path, key, gfli_quote(saved, quoted, sizeof quoted),
                              f.fields[i].value);
        if (strcmp(key, "lr") == 0) *lr = otherwise.lr;
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

static gfl_status gfli_read_position(const gfl_trainer *trainer, const gfli_blob *blob,
                                     const gfli_state_origin *origin, int64_t *out) {
    const gfl_trainer_info *plan = &trainer->plan;
    const int64_t spe = plan->steps_per_epoch;
    int64_t step, epoch, batch;
    GFLI_TRY(gfli_state_number(blob, "step", &step));
    GFLI_TRY(gfli_state_number(blob, "epoch", &epoch));
    GFLI_TRY(gfli_state_number(blob, "batch_in_epoch", &batch));
    if (origin->resized && epoch <= plan->desc.epochs) step = epoch * spe;
    if (step > plan->n_steps || epoch > plan->desc.epochs)
        return gfli_error(
            trainer->context, GFL_E_MISMATCH,
            "%s: %lld steps are done, but the %d epochs of the trainer have only %lld", blob->path,
            (long long)step, plan->desc.epochs, (long long)plan->n_steps);
    if (epoch != step / spe || batch != step % spe * origin->accumulate)
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
    gfli_state_origin origin;
    double lr;
    GFLI_TRY(gfli_check_state_kind(blob));
    GFLI_TRY(gfli_read_origin(trainer, blob, &origin));
    GFLI_TRY(gfli_check_state_desc(trainer, blob, &origin, &lr));
    GFLI_TRY(gfli_check_state_hashes(trainer, blob));
    GFLI_TRY(gfli_read_position(trainer, blob, &origin, &step));
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

/* From the file of a path, or from bytes. */
static gfl_status gfli_state_read(gfl_trainer *trainer, const char *path, const void *bytes,
                                  size_t size) {
    gfli_blob blob;
    GFLI_TRY(path ? gfli_blob_open(trainer->context, path, &blob)
                  : gfli_blob_open_memory(trainer->context, bytes, size,
                                          "the state of a training in memory", &blob));
    gfl_status status = gfli_state_load(trainer, &blob);
    gfli_blob_close(&blob);
    return status;
}

static gfl_status gfli_state_share(gfl_trainer *trainer, const char *path, const void *bytes,
                                   size_t size) {
    static const char *const what = "loading the state of a training";
    gfl_status status = gfli_check_place(trainer, path ? path : bytes, what);
    if (status == GFL_OK && trainer->context->ranks.rank == 0)
        status = gfli_state_read(trainer, path, bytes, size);
    GFLI_TRY(gfli_trainer_agree(trainer, status, what));
    return gfli_trainer_share(trainer);
}

gfl_status gfl_trainer_load_state(gfl_trainer *trainer, const char *path) {
    GFLI_NOT_NULL(NULL, trainer);
    return gfli_state_share(trainer, path, NULL, 0);
}

gfl_status gfl_trainer_load_state_memory(gfl_trainer *trainer, const void *bytes, size_t size) {
    GFLI_NOT_NULL(NULL, trainer);
    return gfli_state_share(trainer, NULL, bytes, size);
}
