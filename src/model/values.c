/* values.c - where the values of a model's parameters lie: one block of the device's memory */
#pragma once

/* What is trained comes first, running statistics behind it.  A model that only detects keeps what
 * its steps read. */
static void gfli_lay_out(gfl_model *model) {
    size_t at = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < model->n_params; i++) {
            gfli_param *p = &model->params[i];
            if (p->is_buffer != (pass == 1) || (!model->trainable && !p->direct)) continue;
            p->offset = at;
            at += gfli_block_size(p->count);
        }
        if (pass == 0) model->n_trained = at;
    }
    model->n_values = at;
}

static size_t gfli_folded_size(const gfl_model *model) {
    size_t floats = 0;
    for (int i = 0; i < model->n_layers; i++)
        if (model->layers[i].bn_gamma >= 0)
            floats += (model->trainable ? 2 : 1) * (size_t)model->layers[i].shape.out_c;
    return floats;
}

gfl_status gfli_model_place(gfl_model *model) {
    const gfli_device_ops *device = &model->backend->device;
    gfli_lay_out(model);
    GFLI_TRY(device->alloc(model->context, model->n_values, sizeof(float), "parameters",
                           &model->values));
    GFLI_TRY(device->alloc(model->context, gfli_folded_size(model), sizeof(float),
                           "folded batch norms", &model->folded));
    /* The gaps between parameters count where the block is read as a whole. */
    device->zero(model->context, model->values, model->n_values * sizeof(float));
    for (int i = 0; i < model->n_params; i++)
        if (model->trainable || model->params[i].direct)
            model->params[i].data = model->values + model->params[i].offset;
    float *at = model->folded;
    for (int i = 0; i < model->n_layers; i++) {
        gfli_layer *layer = &model->layers[i];
        if (layer->bn_gamma < 0) continue;
        layer->folded_bias = at;
        at += layer->shape.out_c;
        if (!model->trainable) continue;
        layer->folded_scale = at;
        at += layer->shape.out_c;
    }
    return GFL_OK;
}

bool gfli_is_trained(const gfli_param *param, int frozen_stages) {
    return !param->is_buffer && param->stage > frozen_stages;
}

size_t gfli_first_trained(const gfl_model *model, int frozen_stages) {
    for (int i = 0; i < model->n_params; i++)
        if (gfli_is_trained(&model->params[i], frozen_stages)) return model->params[i].offset;
    return model->n_trained;
}

gfl_status gfli_fetch(const gfl_model *model, const float *from, size_t n, float *out) {
    const gfli_device_ops *device = &model->backend->device;
    device->download(model->context, out, from, n * sizeof *out);
    return device->finish(model->context);
}

gfl_status gfli_param_fetch(const gfl_model *model, int index, float *out) {
    return gfli_fetch(model, model->params[index].data, model->params[index].count, out);
}

void gfli_param_store(const gfl_model *model, int index, const float *values) {
    const gfli_param *p = &model->params[index];
    model->backend->device.upload(model->context, p->data, values, p->count * sizeof *values);
}

size_t gfli_bad_variance(const gfli_param *p, const float *values) {
    size_t i = p->is_variance ? 0 : p->count;
    while (i < p->count && values[i] + GFLI_NORM_EPS > 0) i++;
    return i;
}

void gfli_reorder_weight(const gfli_param *p, const float *from, float *to, bool to_file) {
    const int out = (int)p->shape[0], in = (int)p->shape[1];
    const int taps = (int)(p->shape[2] * p->shape[3]);
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++)
            for (int k = 0; k < taps; k++) {
                const size_t file = gfli_file_weight_at(taps, in, o, k, i);
                const size_t kept = gfli_weight_at(taps, in, o, k, i);
                to[to_file ? file : kept] = from[to_file ? kept : file];
            }
}

size_t gfli_largest_param(const gfl_model *model) {
    size_t most = 1;
    for (int i = 0; i < model->n_params; i++)
        if (model->params[i].count > most) most = model->params[i].count;
    return most;
}

/* ---- for the host ---------------------------------------------------------------------------- */

int gfl_model_count_parameters(const gfl_model *model) {
    return model ? model->n_params : 0;
}

gfl_status gfl_model_describe_parameter(const gfl_model *model, int i, gfl_parameter *out) {
    if (out) memset(out, 0, sizeof *out);
    if (!out || i < 0 || i >= gfl_model_count_parameters(model)) return GFL_E_ARG;
    const gfli_param *p = &model->params[i];
    out->name = p->name;
    out->rank = p->rank;
    memcpy(out->shape, p->shape, sizeof out->shape);
    out->count = p->count;
    out->is_statistic = p->is_buffer;
    return GFL_OK;
}

/* The parameter of a call. */
static gfl_status gfli_param_of_call(const gfl_model *model, const char *name, size_t n,
                                     int *index) {
    char quoted[GFLI_QUOTED];
    *index = gfli_model_find(model, name);
    GFLI_DEMAND(model->context, *index >= 0, "the model has no parameter %s",
                gfli_quote(name, quoted, sizeof quoted));
    const gfli_param *p = &model->params[*index];
    GFLI_DEMAND(model->context, p->count == n, "%s has %zu values, not %zu", p->name, p->count, n);
    return GFL_OK;
}

/* Room for a parameter in the order that it is kept in; NULL where a file has the same order. */
static gfl_status gfli_param_room(const gfl_model *model, int index, float **out) {
    const gfli_param *p = &model->params[index];
    *out = NULL;
    return p->rank == 4 ? gfli_alloc(model->context, p->count, sizeof(float), "tensor", out)
                        : GFL_OK;
}

gfl_status gfl_model_get_parameter(const gfl_model *model, const char *name, float *out, size_t n) {
    int i;
    float *kept;
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, name);
    GFLI_NOT_NULL(model->context, out);
    GFLI_TRAINABLE(model->context, model);
    GFLI_TRY(gfli_param_of_call(model, name, n, &i));
    GFLI_TRY(gfli_param_room(model, i, &kept));
    const gfl_status status = gfli_param_fetch(model, i, kept ? kept : out);
    if (kept && status == GFL_OK) gfli_reorder_weight(&model->params[i], kept, out, true);
    gfli_free(model->context, kept);
    return status;
}

gfl_status gfl_model_set_parameter(gfl_model *model, const char *name, const float *values,
                                   size_t n) {
    int i;
    float *kept;
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, name);
    GFLI_NOT_NULL(model->context, values);
    GFLI_TRAINABLE(model->context, model);
    GFLI_TRY(gfli_param_of_call(model, name, n, &i));
    GFLI_DEMAND(model->context, gfli_all_finite(values, n), "a value for %s is not finite", name);
    GFLI_DEMAND(model->context, gfli_bad_variance(&model->params[i], values) == n,
                "a value for %s is a variance below zero", name);
    GFLI_TRY(gfli_param_room(model, i, &kept));
    if (kept) gfli_reorder_weight(&model->params[i], values, kept, false);
    gfli_param_store(model, i, kept ? kept : values);
    gfli_free(model->context, kept);
    gfli_model_changed(model, model->params[i].stage);
    return model->backend->device.finish(model->context);
}
