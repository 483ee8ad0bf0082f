/* load.c - weights into a model: does it fit, and what became of each tensor */
#pragma once

gfli_shape_text gfli_shape(int rank, const int64_t *shape) {
    gfli_shape_text out;
    size_t used = 1;
    snprintf(out.text, sizeof out.text, "(");
    for (int i = 0; i < rank && used < sizeof out.text; i++) {
        int n = snprintf(out.text + used, sizeof out.text - used, i ? ", %lld" : "%lld",
                         (long long)shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < sizeof out.text) snprintf(out.text + used, sizeof out.text - used, ")");
    return out;
}

/* ---- reports --------------------------------------------------------------------------------- */

void gfli_clear_reports(gfl_model *model) {
    for (int i = 0; i < model->n_reports; i++) {
        gfli_free(model->context, (void *)(uintptr_t)model->reports[i].name);
        gfli_free(model->context, (void *)(uintptr_t)model->reports[i].why);
    }
    gfli_free(model->context, model->reports);
    model->reports = NULL;
    model->n_reports = 0;
}

gfl_status gfli_open_reports(gfl_model *model, size_t n) {
    gfli_clear_reports(model);
    return gfli_calloc(model->context, n, sizeof *model->reports, "load report", &model->reports);
}

gfl_status gfli_report(gfl_model *model, const char *name, gfl_fate fate, int rank,
                       const int64_t *shape, const char *why) {
    char *own_name = NULL, *own_why = NULL;
    GFLI_TRY(gfli_strdup(model->context, name, &own_name));
    gfl_status status = gfli_strdup(model->context, why, &own_why);
    if (status != GFL_OK) {
        gfli_free(model->context, own_name);
        return status;
    }
    gfl_tensor_report *r = &model->reports[model->n_reports++];
    r->name = own_name;
    r->why = own_why;
    r->fate = fate;
    r->rank = gfli_min(rank, 4);
    for (int i = 0; i < r->rank; i++) r->shape[i] = shape[i];
    return GFL_OK;
}

int gfl_model_count_reports(const gfl_model *model) {
    return model ? model->n_reports : 0;
}

gfl_status gfl_model_get_report(const gfl_model *model, int i, gfl_tensor_report *out) {
    if (out) memset(out, 0, sizeof *out);
    if (!out || i < 0 || i >= gfl_model_count_reports(model)) return GFL_E_ARG;
    *out = model->reports[i];
    return GFL_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* A scalar may be stored without dimensions or with a single one. */
bool gfli_same_shape(const gfli_param *param, const gfli_tensor *tensor) {
    if (param->rank == 0 && tensor->rank == 1) return tensor->shape[0] == 1;
    if (param->rank != tensor->rank) return false;
    for (int i = 0; i < param->rank; i++)
        if (param->shape[i] != tensor->shape[i]) return false;
    return true;
}

/* One of the values is no number: the first. */
static gfl_status gfli_refuse_number(const gfli_weights *w, const gfli_tensor *tensor,
                                     const float *raw) {
    size_t i = 0;
    uint32_t bits;
    while (gfli_all_finite(&raw[i], 1)) i++;
    memcpy(&bits, &raw[i], sizeof bits);
    return gfli_error(w->context, GFL_E_FORMAT,
                      "%s: %s: element %zu is %s; the file is damaged or its training diverged",
                      w->blob.path, tensor->name, i, bits << 9 ? "NaN" : "infinite");
}

gfl_status gfli_read_values(gfli_weights *w, const gfli_param *param, const gfli_tensor *tensor,
                            float *out) {
    float *raw = out;
    if (param->rank == 4) {
        GFLI_TRY(gfli_reserve(w->context, &w->raw, &w->raw_capacity, param->count, sizeof(float),
                              "tensor"));
        raw = w->raw;
    }
    GFLI_TRY(gfli_blob_read_f32(&w->blob, tensor, raw));
    if (!gfli_all_finite(raw, param->count)) return gfli_refuse_number(w, tensor, raw);
    const size_t bad = gfli_bad_variance(param, raw);
    if (bad < param->count)
        return gfli_error(w->context, GFL_E_FORMAT,
                          "%s: %s: element %zu is %g, a variance below zero", w->blob.path,
                          tensor->name, bad, (double)raw[bad]);
    if (param->rank == 4) gfli_reorder_weight(param, raw, out, false);
    return GFL_OK;
}

static gfl_status gfli_fill_from_file(void *arg, gfl_model *model, int index, float *to) {
    gfli_weights *w = (gfli_weights *)arg;
    gfli_param *param = &model->params[index];
    param->loaded = true;
    return gfli_read_values(w, param, gfli_weights_find(w, param->name), to);
}

/* Does every parameter have its tensor? */
static gfl_status gfli_check_params(gfli_weights *w, const gfl_model *model) {
    const char *missing = NULL, *path = w->blob.path;
    int n_missing = 0;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        const gfli_tensor *t = gfli_weights_find(w, p->name);
        char name[32];
        if (t && gfli_same_shape(p, t)) continue;
        if (!t && n_missing++ == 0) missing = p->name;
        if (!t) continue;
        gfli_arch_name(model->context, &model->arch, name);
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: %s has shape %s; the network that the other shapes describe (%s) "
                          "needs %s",
                          path, t->name, gfli_shape(t->rank, t->shape).text, name,
                          gfli_shape(p->rank, p->shape).text);
    }
    if (n_missing > 1)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the tensor %s and %d more are missing; the file is incomplete", path,
                          missing, n_missing - 1);
    if (n_missing == 1)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the tensor %s is missing; the file is incomplete", path, missing);
    return GFL_OK;
}

/* Does every tensor of the network have its parameter?  Others (optimizers, averages) may be there
 * and are left over. */
static gfl_status gfli_check_entries(gfli_weights *w, const gfl_model *model) {
    static const char *const parts[] = {"backbone.", "neck.", "bbox_head."};
    for (int i = 0; i < w->n_entries; i++) {
        const gfli_entry *e = &w->entries[i];
        bool ours = false;
        for (size_t k = 0; k < GFLI_COUNT(parts); k++)
            ours = ours || strncmp(e->name, parts[k], strlen(parts[k])) == 0;
        if (ours && gfli_model_find(model, e->name) < 0)
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: %s %s has no place in the network that the other tensors "
                              "describe; without it the detections would be wrong",
                              w->blob.path, e->tensor->name,
                              gfli_shape(e->tensor->rank, e->tensor->shape).text);
    }
    return GFL_OK;
}

static gfl_status gfli_report_load(gfl_model *model, const gfli_weights *w) {
    GFLI_TRY(gfli_open_reports(model, (size_t)model->n_params + (size_t)w->n_entries));
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        GFLI_TRY(gfli_report(model, p->name, GFL_FATE_LOADED, p->rank, p->shape, ""));
    }
    for (int i = 0; i < w->n_entries; i++) {
        const gfli_tensor *t = w->entries[i].tensor;
        if (gfli_model_find(model, w->entries[i].name) < 0)
            GFLI_TRY(gfli_report(model, t->name, GFL_FATE_LEFT_OVER, t->rank, t->shape,
                                 "the network has no such tensor"));
    }
    return GFL_OK;
}

/* ---- loading --------------------------------------------------------------------------------- */

gfl_status gfli_describe_weights(gfli_weights *w, gfl_dialect dialect, gfl_style style,
                                 gfl_model_desc *desc, gfl_origins *origins) {
    memset(desc, 0, sizeof *desc);
    memset(origins, 0, sizeof *origins);
    gfl_arch *arch = &desc->arch;
    GFLI_TRY(gfli_deduce_detector(w, arch));
    GFLI_TRY(gfli_read_style(w, style, &arch->style, &origins->style));
    if (gfli_arch_resolve(w->context, arch, arch) != GFL_OK)
        return gfli_error_in(w->context, GFL_E_MISMATCH, w->blob.path);
    GFLI_TRY(gfli_check_labels(w, arch));
    GFLI_TRY(gfli_read_dialect(w, dialect, &arch->dialect, &origins->dialect));
    origins->scale = gfli_scale_origin(w);
    return gfli_read_preprocess(w, &desc->preprocess, &origins->preprocess);
}

gfl_status gfli_load_weights(gfli_weights *w, const gfl_model_desc *desc,
                             const gfl_origins *origins, bool trainable, gfl_model **out) {
    GFLI_TRY(
        gfli_model_new(w->context, &desc->arch, &desc->preprocess, desc->classes, trainable, out));
    gfl_model *model = *out;
    model->origins = *origins;
    gfl_status status = gfli_check_params(w, model);
    if (status == GFL_OK) status = gfli_check_entries(w, model);
    if (status == GFL_OK) status = gfli_model_build(model, gfli_fill_from_file, w);
    if (status == GFL_OK) status = gfli_report_load(model, w);
    if (status == GFL_OK) return GFL_OK;
    gfl_model_destroy(model);
    *out = NULL;
    return status;
}

static gfl_status gfli_load_model(gfli_weights *w, const gfl_load_desc *how, gfl_model **out) {
    gfl_model_desc desc;
    gfl_origins origins;
    GFLI_TRY(gfli_describe_weights(w, how ? how->dialect : GFL_DIALECT_DEFAULT, GFL_STYLE_DEFAULT,
                                   &desc, &origins));
    GFLI_TRY(gfli_read_classes(w, desc.arch.n_classes, &desc.classes, &origins.classes));
    return gfli_load_weights(w, &desc, &origins, how && how->trainable, out);
}

gfl_status gfl_model_load(gfl_context *context, const char *path, const gfl_load_desc *desc,
                          gfl_model **out) {
    gfli_weights w;
    memset(&w, 0, sizeof w);
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, path);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfli_blob_open(context, path, &w.blob));
    gfl_status status = gfli_weights_begin(context, &w);
    if (status == GFL_OK) status = gfli_load_model(&w, desc, out);
    gfli_weights_end(&w);
    return status;
}

gfl_status gfl_model_load_memory(gfl_context *context, const void *bytes, size_t size,
                                 const gfl_load_desc *desc, gfl_model **out) {
    gfli_weights w;
    memset(&w, 0, sizeof w);
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, bytes);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfli_blob_open_memory(context, bytes, size, "weights in memory", &w.blob));
    gfl_status status = gfli_weights_begin(context, &w);
    if (status == GFL_OK) status = gfli_load_model(&w, desc, out);
    gfli_weights_end(&w);
    return status;
}
