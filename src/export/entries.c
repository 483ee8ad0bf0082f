/* entries.c - a model as PyTorch's state dict, and as safetensors of it */
#pragma once

static gfli_state_entry *gfli_state_add(gfli_state_entry *entries, int *n, const char *name,
                                        size_t length, const char *suffix, gfli_dtype dtype,
                                        int param) {
    gfli_state_entry *e = &entries[(*n)++];
    memset(e, 0, sizeof *e);
    snprintf(e->name, sizeof e->name, "%.*s%s", (int)length, name, suffix);
    e->dtype = dtype;
    e->param = param;
    e->count = 1;
    return e;
}

gfl_status gfli_state_entries(const gfl_model *model, gfli_state_entry **out, int *n_out) {
    gfli_state_entry *entries;
    int n = 0;
    GFLI_TRY(gfli_alloc(model->context, 2 * (size_t)model->n_params + 1, sizeof *entries,
                        "a state dict", &entries));
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        size_t length = strlen(p->name);
        gfli_state_entry *e = gfli_state_add(entries, &n, p->name, length, "", GFLI_F32, i);
        e->rank = p->rank;
        e->count = p->count;
        memcpy(e->shape, p->shape, sizeof e->shape);
        if (p->is_variance) /* steps of training: nobody reads it */
            (void)gfli_state_add(entries, &n, p->name, length - strlen("running_var"),
                                 "num_batches_tracked", GFLI_I64, -1);
    }
    const char *project = gfli_dialect_get(model->arch.dialect)->project;
    gfli_state_entry *e = gfli_state_add(entries, &n, project, strlen(project), "", GFLI_F32, -1);
    e->rank = 1;
    e->count = (size_t)model->arch.reg_max + 1;
    e->shape[0] = model->arch.reg_max + 1;
    *out = entries;
    *n_out = n;
    return GFL_OK;
}

size_t gfli_state_bytes(const gfli_state_entry *e) {
    return e->count * (e->dtype == GFLI_I64 ? sizeof(int64_t) : sizeof(float));
}

gfl_status gfli_state_values(const gfl_model *model, const gfli_state_entry *e, gfli_values *values,
                             const void **out) {
    static const int64_t none = 0;
    const float *data;
    if (e->param >= 0) {
        GFLI_TRY(gfli_param_values(model, e->param, values, &data));
        *out = data;
        return GFL_OK;
    }
    *out = &none;
    if (e->dtype == GFLI_I64) return GFL_OK;
    GFLI_TRY(gfli_reserve(model->context, &values->data, &values->capacity, e->count, sizeof(float),
                          "tensor"));
    for (size_t i = 0; i < e->count; i++) values->data[i] = (float)i;
    *out = values->data;
    return GFL_OK;
}

static gfl_status gfli_put_state(const gfl_model *model, const gfli_state_entry *entries, int n,
                                 gfli_values *values, gfli_blob_writer *w) {
    GFLI_TRY(gfli_model_metadata(model, gfli_meta_to_blob, w));
    for (int i = 0; i < n; i++)
        GFLI_TRY(gfli_blob_declare(w, entries[i].name, entries[i].dtype, entries[i].rank,
                                   entries[i].shape));
    for (int i = 0; i < n; i++) {
        const void *data;
        GFLI_TRY(gfli_state_values(model, &entries[i], values, &data));
        GFLI_TRY(gfli_blob_write(w, data, gfli_state_bytes(&entries[i])));
    }
    return GFL_OK;
}

gfl_status gfli_export_mmdet(const gfl_model *model, gfli_sink to) {
    gfli_state_entry *entries;
    gfli_blob_writer *w = NULL;
    gfli_values values = {NULL, 0};
    int n;
    if (model->arch.dialect == GFL_DIALECT_GFOCAL)
        return gfli_error(model->context, GFL_E_UNSUPPORTED,
                          "weights of dialect gfocal give wrong boxes in mmdetection; export them "
                          "as .pth, for implus/GFocal");
    GFLI_TRY(gfli_state_entries(model, &entries, &n));
    gfl_status status = gfli_blob_create(model->context, to, &w);
    if (status == GFL_OK) status = gfli_put_state(model, entries, n, &values, w);
    gfli_free(model->context, values.data);
    gfli_free(model->context, entries);
    if (status == GFL_OK) return gfli_blob_finish(w);
    gfli_blob_abandon(w);
    return status;
}
