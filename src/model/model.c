/* model.c - gfl_model: creation, packing */
#pragma once

static gfl_status gfli_copy_classes(gfl_model *model, const gfl_class *classes) {
    int n = model->arch.n_classes;
    GFLI_TRY(
        gfli_calloc(model->context, (size_t)n, sizeof *model->classes, "classes", &model->classes));
    for (int i = 0; i < n; i++) {
        char fallback[32], *name = NULL;
        snprintf(fallback, sizeof fallback, "class %d", i);
        if (classes && !classes[i].name)
            return gfli_error(model->context, GFL_E_ARG, "class %d has no name", i);
        if (classes && i > 0 && classes[i].id <= classes[i - 1].id)
            return gfli_error(model->context, GFL_E_ARG,
                              "class %d (%s) has id %lld after id %lld; order the classes by "
                              "ascending id",
                              i, classes[i].name, (long long)classes[i].id,
                              (long long)classes[i - 1].id);
        GFLI_TRY(gfli_strdup(model->context, classes ? classes[i].name : fallback, &name));
        model->classes[i].name = name;
        model->classes[i].id = classes ? classes[i].id : i + 1;
    }
    return GFL_OK;
}

gfl_status gfli_model_new(gfl_context *context, const gfl_arch *arch,
                          const gfl_preprocess *preprocess, const gfl_class *classes,
                          bool trainable, gfl_model **out) {
    gfl_model *m;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *m, "model", &m));
    m->context = context;
    m->backend = context->backend;
    m->trainable = trainable;
    gfl_status status = gfli_arch_resolve(context, arch, &m->arch);
    if (status == GFL_OK) status = gfli_preprocess_resolve(context, preprocess, &m->preprocess);
    if (status == GFL_OK) status = gfli_copy_classes(m, classes);
    if (status == GFL_OK) status = gfli_model_describe(m);
    if (status != GFL_OK) {
        gfl_model_destroy(m);
        return status;
    }
    *out = m;
    return GFL_OK;
}

void gfl_model_destroy(gfl_model *model) {
    if (!model) return;
    gfl_context *context = model->context;
    for (int i = 0; model->classes && i < model->arch.n_classes; i++)
        gfli_free(context, (void *)(uintptr_t)model->classes[i].name);
    for (int i = 0; i < model->n_layers; i++)
        (model->backend->device.free)(context, model->layers[i].packing);
    (model->backend->device.free)(context, model->values);
    (model->backend->device.free)(context, model->folded);
    gfli_clear_reports(model);
    gfli_free(context, model->classes);
    gfli_model_undescribe(model);
    gfli_free(context, model);
}

/* ---- packing --------------------------------------------------------------------------------- */

static gfl_status gfli_pack_layer(gfl_model *model, gfli_layer *layer) {
    const gfli_infer_ops *ops = &model->backend->infer;
    const gfli_param *params = model->params;
    if (!layer->packing)
        GFLI_TRY(model->backend->device.alloc(model->context,
                                              ops->conv_packed_size(model->context, &layer->shape),
                                              1, "packed weights", &layer->packing));
    if (layer->bn_gamma >= 0) {
        const gfli_norm_fold fold = {params[layer->bn_gamma].data,
                                     params[layer->bn_beta].data,
                                     params[layer->bn_mean].data,
                                     params[layer->bn_var].data,
                                     GFLI_NORM_EPS,
                                     layer->folded_scale,
                                     layer->folded_bias,
                                     layer->shape.out_c};
        ops->fold_norm(model->context, &fold);
    }
    ops->conv_pack(model->context, &layer->shape, params[layer->weight].data, layer->folded_scale,
                   layer->packing);
    return GFL_OK;
}

void gfli_model_changed(gfl_model *model, int first_stage) {
    if (model->stale == 0 || model->stale > first_stage + 1) model->stale = first_stage + 1;
}

gfl_status gfli_model_pack(gfl_model *model) {
    if (model->stale == 0) return GFL_OK;
    for (int i = 0; i < model->n_layers; i++)
        if (model->layers[i].stage >= model->stale - 1)
            GFLI_TRY(gfli_pack_layer(model, &model->layers[i]));
    model->stale = 0;
    return GFL_OK;
}

gfl_status gfl_model_sync(gfl_model *model) {
    GFLI_NOT_NULL(NULL, model);
    return gfli_model_pack(model);
}

gfl_status gfli_model_check_packed(gfl_context *context, const gfl_model *model, const char *what) {
    if (model->stale == 0) return GFL_OK;
    return gfli_error(context, GFL_E_ARG,
                      "%s: the model's parameters have changed since they were packed for "
                      "detection; call gfl_model_sync first",
                      what);
}

/* ---- building -------------------------------------------------------------------------------- */

/* Values pass through the host one parameter at a time.  A model that only detects has a layer's
 * sources on the device only until they are packed, in `staging`. */
typedef struct gfli_builder {
    gfl_model *model;
    gfli_fill fill;
    void *arg;
    float *host;    /* [the largest parameter] */
    float *staging; /* [the largest layer's sources]; NULL where the model is trainable */
    size_t used;    /* of the staging */
} gfli_builder;

static void gfli_layer_sources(const gfli_layer *layer, int out[6]) {
    const int sources[6] = {layer->weight,  layer->bias,    layer->bn_gamma,
                            layer->bn_beta, layer->bn_mean, layer->bn_var};
    memcpy(out, sources, sizeof sources);
}

static size_t gfli_staging_size(const gfl_model *model) {
    size_t most = 0;
    for (int i = 0; i < model->n_layers; i++) {
        int sources[6];
        size_t floats = gfli_block_size((size_t)model->layers[i].shape.out_c); /* the scale */
        gfli_layer_sources(&model->layers[i], sources);
        for (int k = 0; k < 6; k++)
            if (sources[k] >= 0) floats += gfli_block_size(model->params[sources[k]].count);
        if (floats > most) most = floats;
    }
    return most;
}

static float *gfli_stage(gfli_builder *b, size_t count) {
    float *place = b->staging + b->used;
    b->used += gfli_block_size(count);
    return place;
}

static gfl_status gfli_fill_param(gfli_builder *b, int index) {
    if (index < 0) return GFL_OK;
    gfli_param *param = &b->model->params[index];
    if (!param->data) param->data = gfli_stage(b, param->count);
    GFLI_TRY(b->fill(b->arg, b->model, index, b->host));
    gfli_param_store(b->model, index, b->host);
    return GFL_OK;
}

static gfl_status gfli_build_layer(gfli_builder *b, gfli_layer *layer) {
    int sources[6];
    gfli_layer_sources(layer, sources);
    b->used = 0;
    for (int k = 0; k < 6; k++) GFLI_TRY(gfli_fill_param(b, sources[k]));
    GFLI_TRY(gfli_fill_param(b, layer->gn_gamma));
    GFLI_TRY(gfli_fill_param(b, layer->gn_beta));
    if (layer->bn_gamma >= 0 && !layer->folded_scale)
        layer->folded_scale = gfli_stage(b, (size_t)layer->shape.out_c);
    GFLI_TRY(gfli_pack_layer(b->model, layer));
    if (!b->staging) return GFL_OK;
    layer->folded_scale = NULL;
    for (int k = 0; k < 6; k++)
        if (sources[k] >= 0 && !b->model->params[sources[k]].direct)
            b->model->params[sources[k]].data = NULL;
    return GFL_OK;
}

static gfl_status gfli_build_all(gfli_builder *b) {
    gfl_model *model = b->model;
    const gfli_device_ops *device = &model->backend->device;
    GFLI_TRY(
        gfli_alloc(model->context, gfli_largest_param(model), sizeof(float), "a tensor", &b->host));
    if (!model->trainable)
        GFLI_TRY(device->alloc(model->context, gfli_staging_size(model), sizeof(float),
                               "weights to pack", &b->staging));
    for (int i = 0; i < model->n_layers; i++) GFLI_TRY(gfli_build_layer(b, &model->layers[i]));
    for (int l = 0; l < GFL_LEVELS; l++) GFLI_TRY(gfli_fill_param(b, model->network.scale + l));
    return device->finish(model->context);
}

gfl_status gfli_model_build(gfl_model *model, gfli_fill fill, void *arg) {
    gfli_builder b = {model, fill, arg, NULL, NULL, 0};
    GFLI_TRY(gfli_model_place(model));
    const gfl_status status = gfli_build_all(&b);
    gfli_free(model->context, b.host);
    (model->backend->device.free)(model->context, b.staging);
    return status;
}

static gfl_status gfli_fill_fresh(void *arg, gfl_model *model, int index, float *to) {
    (void)arg;
    gfli_param_init(&model->params[index], model->seed, index, to);
    return GFL_OK;
}

gfl_status gfl_model_create(gfl_context *context, const gfl_model_desc *desc, gfl_model **out) {
    gfl_model_desc d;
    gfl_model *model = NULL;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfli_model_new(context, &d.arch, &d.preprocess, d.classes, d.trainable != 0, &model));
    model->seed = d.seed;
    gfl_status status = gfli_model_build(model, gfli_fill_fresh, NULL);
    if (status != GFL_OK) {
        gfl_model_destroy(model);
        return status;
    }
    *out = model;
    return GFL_OK;
}
