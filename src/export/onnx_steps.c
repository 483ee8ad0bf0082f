/* onnx_steps.c - each step of a plan as nodes */
#pragma once

static void gfli_onnx_relu(gfli_onnx *g, gfli_onnx_name *value) {
    const gfli_onnx_name out = gfli_onnx_join(value->text, ".relu");
    gfli_onnx_node(g, "Relu", out.text, value->text, NULL, NULL);
    *value = out;
}

static void gfli_onnx_add(gfli_onnx *g, gfli_onnx_name *value, const char *other) {
    const gfli_onnx_name out = gfli_onnx_join(value->text, ".sum");
    gfli_onnx_node(g, "Add", out.text, value->text, other, NULL);
    *value = out;
}

/* The weights and the bias of a layer, batch norm folded in.  Returns whether it has a bias. */
static bool gfli_onnx_weights(gfli_onnx *g, int index, gfli_onnx_name *bias) {
    const gfli_layer *layer = &g->model->layers[index];
    const gfli_param *weight = &g->model->params[layer->weight];
    gfli_onnx_const *c =
        gfli_onnx_new_const(g, weight->name, GFLI_ONNX_F32, weight->rank, weight->shape);
    if (c) c->layer = index;
    *bias = gfli_onnx_join(gfli_onnx_module(g, layer->weight, 0, 1).text, ".bias");
    const float *values =
        layer->bias >= 0 ? g->model->params[layer->bias].data : layer->folded_bias;
    if (!values) return false;
    const int64_t shape = layer->shape.out_c;
    gfli_onnx_placed(g, bias->text, 1, &shape, values);
    return true;
}

void gfli_onnx_conv_attributes(gfli_onnx *g, const gfli_conv_shape *s) {
    const int64_t kernel[2] = {s->kernel, s->kernel}, strides[2] = {s->stride, s->stride};
    const int64_t pads[4] = {s->pad, s->pad, s->pad, s->pad};
    gfli_onnx_ints(g, "kernel_shape", kernel, 2);
    gfli_onnx_ints(g, "strides", strides, 2);
    gfli_onnx_ints(g, "pads", pads, 4);
    gfli_onnx_int(g, "group", s->groups);
}

static void gfli_onnx_conv(gfli_onnx *g, const gfli_step *step) {
    const gfli_layer *layer = &g->model->layers[step->layer];
    const char *weight = g->model->params[layer->weight].name;
    const int levels = g->plan.maps[step->out].map.levels;
    gfli_onnx_name bias;
    const bool biased = gfli_onnx_weights(g, step->layer, &bias);
    for (int l = 0; l < levels; l++) {
        gfli_onnx_name out = gfli_onnx_module(g, layer->weight, l, levels);
        if (step->out == g->plan.cls) out = gfli_onnx_at("cls_score", l);
        const size_t node =
            gfli_onnx_open(g, "Conv", out.text, gfli_onnx_value(g, step->in, l)->text, weight,
                           biased ? bias.text : NULL);
        gfli_onnx_conv_attributes(g, &layer->shape);
        gfli_onnx_close(g, node);
        if (step->residual >= 0)
            gfli_onnx_add(g, &out, gfli_onnx_value(g, step->residual, l)->text);
        if (step->relu) gfli_onnx_relu(g, &out);
        *gfli_onnx_value(g, step->out, l) = out;
    }
}

/* The operator has the offsets' order of the files: for each tap y, then x.  Masks it takes as they
 * are, files have their logits. */
static void gfli_onnx_deform(gfli_onnx *g, const gfli_step *step) {
    const gfli_layer *layer = &g->model->layers[step->layer];
    const bool masked = g->plan.maps[step->offset].map.c > 18;
    const gfli_onnx_name *from = gfli_onnx_value(g, step->offset, 0);
    const gfli_onnx_name logits = gfli_onnx_join(from->text, ".logits");
    const gfli_onnx_name mask = gfli_onnx_join(from->text, ".mask");
    gfli_onnx_name out = gfli_onnx_module(g, layer->weight, 0, 1), offset = *from, bias;
    const bool biased = gfli_onnx_weights(g, step->layer, &bias);
    if (masked) {
        offset = gfli_onnx_join(from->text, ".offset");
        const size_t split =
            gfli_onnx_open(g, "Split", offset.text, from->text, "deform.split", NULL);
        gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_OUTPUT, logits.text);
        gfli_onnx_int(g, "axis", 1);
        gfli_onnx_close(g, split);
        gfli_onnx_node(g, "Sigmoid", mask.text, logits.text, NULL, NULL);
    }
    const size_t node =
        gfli_onnx_open(g, "DeformConv", out.text, gfli_onnx_value(g, step->in, 0)->text,
                       g->model->params[layer->weight].name, offset.text);
    gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_INPUT, biased ? bias.text : "");
    if (masked) gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_INPUT, mask.text);
    gfli_onnx_conv_attributes(g, &layer->shape);
    gfli_onnx_close(g, node);
    if (step->relu) gfli_onnx_relu(g, &out);
    *gfli_onnx_value(g, step->out, 0) = out;
}

static void gfli_onnx_max_pool(gfli_onnx *g, const gfli_step *step) {
    static const int64_t kernel[2] = {3, 3}, strides[2] = {2, 2}, pads[4] = {1, 1, 1, 1};
    const gfli_onnx_name out = gfli_onnx_join("backbone.maxpool", "");
    const size_t node =
        gfli_onnx_open(g, "MaxPool", out.text, gfli_onnx_value(g, step->in, 0)->text, NULL, NULL);
    gfli_onnx_ints(g, "kernel_shape", kernel, 2);
    gfli_onnx_ints(g, "strides", strides, 2);
    gfli_onnx_ints(g, "pads", pads, 4);
    gfli_onnx_close(g, node);
    *gfli_onnx_value(g, step->out, 0) = out;
}

/* Inputs are multiples of 32, so that every level is exactly twice the next. */
static void gfli_onnx_upsample_add(gfli_onnx *g, const gfli_step *step) {
    const gfli_onnx_name *in = gfli_onnx_value(g, step->in, 0);
    const gfli_onnx_name up = gfli_onnx_join(in->text, ".up");
    const size_t node = gfli_onnx_open(g, "Resize", up.text, in->text, "", "twice");
    gfli_onnx_text(g, "mode", "nearest");
    gfli_onnx_text(g, "coordinate_transformation_mode", "asymmetric");
    gfli_onnx_text(g, "nearest_mode", "floor");
    gfli_onnx_close(g, node);
    gfli_onnx_add(g, gfli_onnx_value(g, step->out, 0), up.text);
}

/* Opset 17 has no group norm, and that of 18 has one gamma a group: instance norm of each group as
 * one channel, then gamma and beta. */
static void gfli_onnx_group_norm(gfli_onnx *g, const gfli_step *step) {
    const gfli_param *gamma = &g->model->params[step->gamma];
    const gfli_param *beta = &g->model->params[step->beta];
    const int levels = g->plan.maps[step->out].map.levels;
    gfli_onnx_channels(g, gamma);
    gfli_onnx_channels(g, beta);
    for (int l = 0; l < levels; l++) {
        const char *in = gfli_onnx_value(g, step->in, l)->text;
        gfli_onnx_name out = gfli_onnx_module(g, step->gamma, l, levels);
        const gfli_onnx_name shape = gfli_onnx_join(out.text, ".shape");
        const gfli_onnx_name groups = gfli_onnx_join(out.text, ".groups");
        const gfli_onnx_name norm = gfli_onnx_join(out.text, ".norm");
        const gfli_onnx_name back = gfli_onnx_join(out.text, ".back");
        const gfli_onnx_name scaled = gfli_onnx_join(out.text, ".scaled");
        gfli_onnx_node(g, "Shape", shape.text, in, NULL, NULL);
        gfli_onnx_node(g, "Reshape", groups.text, in, "groups.shape", NULL);
        const size_t node = gfli_onnx_open(g, "InstanceNormalization", norm.text, groups.text,
                                           "groups.ones", "groups.zeros");
        gfli_onnx_float(g, "epsilon", GFLI_NORM_EPS);
        gfli_onnx_close(g, node);
        gfli_onnx_node(g, "Reshape", back.text, norm.text, shape.text, NULL);
        gfli_onnx_node(g, "Mul", scaled.text, back.text, gamma->name, NULL);
        gfli_onnx_node(g, "Add", out.text, scaled.text, beta->name, NULL);
        if (step->relu) gfli_onnx_relu(g, &out);
        *gfli_onnx_value(g, step->out, l) = out;
    }
}

static void gfli_onnx_level_scale(gfli_onnx *g, const gfli_step *step) {
    for (int l = 0; l < GFL_LEVELS; l++) {
        const gfli_param *scale = &g->model->params[step->scale + l];
        const gfli_onnx_name out = gfli_onnx_at("bbox_pred", l);
        gfli_onnx_placed(g, scale->name, 0, NULL, scale->data);
        gfli_onnx_node(g, "Mul", out.text, gfli_onnx_value(g, step->in, l)->text, scale->name,
                       NULL);
        *gfli_onnx_value(g, step->out, l) = out;
    }
}

void gfli_onnx_step(gfli_onnx *g, const gfli_step *step) {
    switch (step->op) {
    case GFLI_OP_CONV: gfli_onnx_conv(g, step); break;
    case GFLI_OP_DEFORM_CONV: gfli_onnx_deform(g, step); break;
    case GFLI_OP_MAX_POOL: gfli_onnx_max_pool(g, step); break;
    case GFLI_OP_UPSAMPLE_ADD: gfli_onnx_upsample_add(g, step); break;
    case GFLI_OP_GROUP_NORM: gfli_onnx_group_norm(g, step); break;
    case GFLI_OP_LEVEL_SCALE: gfli_onnx_level_scale(g, step); break;
    }
}

void gfli_onnx_common(gfli_onnx *g) {
    static const int64_t groups[3] = {0, GFLI_GN_GROUPS, -1}, four = 4, n = GFLI_GN_GROUPS;
    static const int64_t split[2] = {18, 9};
    static const float twice[4] = {1, 1, 2, 2};
    float ones[GFLI_GN_GROUPS], zeros[GFLI_GN_GROUPS];
    for (int i = 0; i < GFLI_GN_GROUPS; i++) ones[i] = 1, zeros[i] = 0;
    gfli_onnx_floats(g, "twice", 1, &four, twice);
    gfli_onnx_integers(g, "groups.shape", 1, 3, groups);
    gfli_onnx_floats(g, "groups.ones", 1, &n, ones);
    gfli_onnx_floats(g, "groups.zeros", 1, &n, zeros);
    if (gfli_onnx_tap_values(g) == 3) gfli_onnx_integers(g, "deform.split", 1, 2, split);
}
