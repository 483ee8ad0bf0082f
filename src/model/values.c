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
