/* backbone.c - backbones trained on ImageNet: what they are, into a model, out of a model */
#pragma once

/* What the file asks of a model; the description says what it does not say. */
static gfl_status gfli_describe_backbone(gfli_weights *w, const gfl_import_desc *how,
                                         gfl_backbone_info *out) {
    GFLI_TRY(gfli_config_refuse(w, false, false));
    GFLI_TRY(gfli_deduce_backbone(w, &out->arch, &out->stages));
    GFLI_TRY(gfli_config_compare(w, &out->arch, false));
    GFLI_TRY(gfli_read_style(w, how->style, &out->arch.style, &out->style));
    GFLI_TRY(gfli_check_labels(w, &out->arch));
    GFLI_TRY(gfli_read_preprocess(w, &out->preprocess, &out->input));
    return gfli_override(w, how->preprocess, &out->preprocess, &out->input);
}

static gfl_status gfli_open_backbone(gfl_context *context, const char *path, gfli_weights *w) {
    int n_backbone = 0;
    memset(w, 0, sizeof *w);
    GFLI_TRY(gfli_ckpt_open(context, path, &w->blob));
    gfl_status status = gfli_weights_begin(context, w);
    for (int i = 0; i < w->n_entries; i++)
        n_backbone += strncmp(w->entries[i].name, "backbone.", 9) == 0;
    if (status == GFL_OK && n_backbone == 0)
        status = gfli_error(context, GFL_E_MISMATCH,
                            "%s: none of its %d tensors belongs to a backbone; torchvision's names "
                            "are expected: conv1.weight, layer1.0.conv1.weight and so on",
                            path, w->blob.n_tensors);
    if (status != GFL_OK) gfli_weights_end(w);
    return status;
}

gfl_status gfl_backbone_describe(gfl_context *context, const char *path,
                                 const gfl_import_desc *desc, gfl_backbone_info *out) {
    gfli_weights w;
    gfl_import_desc how;
    memset(&how, 0, sizeof how);
    if (desc) how = *desc;
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, path);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfli_open_backbone(context, path, &w));
    gfl_status status = gfli_describe_backbone(&w, &how, out);
    gfli_weights_end(&w);
    if (status != GFL_OK) memset(out, 0, sizeof *out);
    return status;
}

/* ---- into a model ---------------------------------------------------------------------------- */

static gfl_status gfli_check_input(const gfli_weights *w, const gfl_model *model,
                                   const gfl_preprocess *p) {
    const gfl_preprocess *m = &model->preprocess;
    bool same = !gfli_order_key(w) || p->bgr == m->bgr;
    for (int i = 0; i < 3 && gfli_blob_meta(&w->blob, "mean"); i++)
        same =
            same && fabsf(p->mean[i] - m->mean[i]) < 0.01f && fabsf(p->std[i] - m->std[i]) < 0.01f;
    if (same) return GFL_OK;
    return gfli_error(
        w->context, GFL_E_MISMATCH,
        "%s: the backbone expects %s input with mean %g, %g, %g, the model gives %s with %g, %g, "
        "%g; create the model with the backbone's preprocessing (gfl_backbone_describe)",
        w->blob.path, p->bgr ? "BGR" : "RGB", (double)p->mean[0], (double)p->mean[1],
        (double)p->mean[2], m->bgr ? "BGR" : "RGB", (double)m->mean[0], (double)m->mean[1],
        (double)m->mean[2]);
}

/* Tensors of another shape, and in the residual stages such that have no place at all (biases,
 * attention), show that the file is of another network. */
static gfl_status gfli_check_stages(gfli_weights *w, const gfl_model *model) {
    const gfli_backbone *kind = gfli_backbone_in(w);
    for (int i = 0; i < w->n_entries; i++) {
        const gfli_tensor *t = w->entries[i].tensor;
        int index = gfli_model_find(model, w->entries[i].name);
        if (index < 0 && strncmp(w->entries[i].name, kind->stages, strlen(kind->stages)) == 0)
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: %s %s has no place in %s; this is a backbone of another kind",
                              w->blob.path, t->name, gfli_shape(t->rank, t->shape).text,
                              kind->family);
        if (index < 0 || model->params[index].stage == GFLI_STAGE_HEAD) continue;
        const gfli_param *p = &model->params[index];
        if (!gfli_same_shape(p, t))
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: %s has shape %s; the network that the other shapes describe "
                              "needs %s",
                              w->blob.path, t->name, gfli_shape(t->rank, t->shape).text,
                              gfli_shape(p->rank, p->shape).text);
    }
    return GFL_OK;
}

/* A backbone of another shape, or trained on other inputs or with other strides, would load in part
 * or wholly, and then detect nothing. */
static gfl_status gfli_check_backbone(gfli_weights *w, const gfl_model *model) {
    gfl_backbone_info b;
    gfl_import_desc none;
    memset(&none, 0, sizeof none);
    memset(&b, 0, sizeof b);
    GFLI_TRY(gfli_describe_backbone(w, &none, &b));
    GFLI_TRY(gfli_backbone_in(w)->compare(w, &b, &model->arch));
    GFLI_TRY(gfli_check_stages(w, model));
    return gfli_check_input(w, model, &b.preprocess); /* of that as much as the file says */
}

/* Read every tensor; into the model only when commit. */
static gfl_status gfli_read_backbone(gfli_weights *w, gfl_model *model, bool commit) {
    for (int i = 0; i < model->n_params; i++) {
        gfli_param *p = &model->params[i];
        if (p->stage == GFLI_STAGE_HEAD) continue;
        const gfli_tensor *t = gfli_weights_find(w, p->name);
        GFLI_TRY(gfli_reserve(w->context, &w->ready, &w->ready_capacity, p->count, sizeof(float),
                              "tensor"));
        if (t) GFLI_TRY(gfli_read_values(w, p, t, w->ready));
        if (!commit) continue;
        if (!t) gfli_param_init(p, model->seed, i, w->ready);
        gfli_param_store(model, i, w->ready);
        p->loaded = t != NULL;
    }
    return GFL_OK;
}

static gfl_status gfli_report_backbone(gfl_model *model, const gfli_weights *w) {
    GFLI_TRY(gfli_open_reports(model, (size_t)model->n_params + (size_t)w->n_entries));
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        bool there = gfli_weights_find(w, p->name) != NULL;
        if (p->stage == GFLI_STAGE_HEAD) continue;
        GFLI_TRY(gfli_report(model, p->name, there ? GFL_FATE_LOADED : GFL_FATE_INITIALISED,
                             p->rank, p->shape, there ? "" : "the file has no such tensor"));
    }
    for (int i = 0; i < w->n_entries; i++) {
        const gfli_tensor *t = w->entries[i].tensor;
        int index = gfli_model_find(model, w->entries[i].name);
        if (index >= 0 && model->params[index].stage != GFLI_STAGE_HEAD) continue;
        GFLI_TRY(gfli_report(model, t->name, GFL_FATE_LEFT_OVER, t->rank, t->shape,
                             "the backbone has no such tensor"));
    }
    return GFL_OK;
}

static gfl_status gfli_load_backbone(gfli_weights *w, gfl_model *model) {
    GFLI_TRY(gfli_check_backbone(w, model));
    GFLI_TRY(gfli_read_backbone(w, model, false));
    GFLI_TRY(gfli_report_backbone(model, w));
    gfli_model_changed(model, 0);
    GFLI_TRY(gfli_read_backbone(w, model, true));
    return gfli_model_pack(model);
}

gfl_status gfl_model_load_backbone(gfl_model *model, const char *path) {
    gfli_weights w;
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, path);
    GFLI_TRAINABLE(model->context, model);
    GFLI_TRY(gfli_open_backbone(model->context, path, &w));
    gfl_status status = gfli_load_backbone(&w, model);
    gfli_weights_end(&w);
    return status;
}

/* ---- out of a model -------------------------------------------------------------------------- */

static gfl_status gfli_put_backbone_metadata(const gfl_model *model, int stages,
                                             gfli_blob_writer *w) {
    const gfl_arch *a = &model->arch;
    const gfli_backbone *kind = gfli_backbone_of(model->context, a->depth);
    char name[48];
    kind->file_name(a, name);
    GFLI_TRY(gfli_blob_put_meta(w, "arch", name));
    GFLI_TRY(gfli_put_input(model, gfli_meta_to_blob, w, "input"));
    GFLI_TRY(gfli_blob_put_meta(w, "style", gfli_style_name(a)));
    snprintf(name, sizeof name, "%s%d", kind->stages + strlen("backbone."), stages + 1);
    return stages < 4 ? gfli_blob_put_meta(w, "missing", name) : GFL_OK;
}

gfl_status gfl_model_save_backbone(const gfl_model *model, int stages, const char *path) {
    gfli_blob_writer *w = NULL;
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, path);
    GFLI_TRAINABLE(model->context, model);
    GFLI_DEMAND(model->context, stages >= 1 && stages <= 4,
                "gfl_model_save_backbone: stages is %d; it must be 1..4", stages);
    GFLI_TRY(gfli_blob_create(model->context, gfli_to_file(path), &w));
    gfl_status status = gfli_put_backbone_metadata(model, stages, w);
    if (status == GFL_OK) status = gfli_put_params(model, w, stages, strlen("backbone."));
    if (status == GFL_OK) return gfli_blob_finish(w);
    gfli_blob_abandon(w);
    return status;
}
