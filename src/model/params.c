/* params.c - the tables of parameters and layers, and fresh weights */
#pragma once

/* Appends to a model's tables; the first failure sticks. */
typedef struct gfli_describer {
    gfl_model *model;
    size_t param_capacity, layer_capacity;
    gfl_status status;
    int stage;
} gfli_describer;

/* name + suffix with up to four dimensions (0 ends them); returns the index. */
static int gfli_add_param(gfli_describer *d, const char *name, const char *suffix, gfli_init init,
                          int d0, int d1, int d2, int d3) {
    gfl_model *m = d->model;
    char full[128];
    if (d->status != GFL_OK) return -1;
    d->status = gfli_grow(m->context, &m->params, &d->param_capacity, (size_t)m->n_params + 1,
                          sizeof *m->params, "parameter table");
    if (d->status != GFL_OK) return -1;
    gfli_param *p = &m->params[m->n_params];
    memset(p, 0, sizeof *p);
    snprintf(full, sizeof full, "%s%s", name, suffix);
    d->status = gfli_strdup(m->context, full, &p->name);
    if (d->status != GFL_OK) return -1;
    const int dims[4] = {d0, d1, d2, d3};
    p->count = 1;
    for (int i = 0; i < 4 && dims[i] > 0; i++) {
        p->shape[p->rank++] = dims[i];
        p->count *= (size_t)dims[i];
    }
    p->init = init;
    p->stage = d->stage;
    return m->n_params++;
}

/* One that steps read as it is. */
static int gfli_add_direct(gfli_describer *d, const char *name, const char *suffix, gfli_init init,
                           int d0) {
    const int index = gfli_add_param(d, name, suffix, init, d0, 0, 0, 0);
    if (index >= 0) d->model->params[index].direct = true;
    return index;
}

static gfli_layer *gfli_add_layer(gfli_describer *d, const char *name, gfli_init init, int in_c,
                                  int out_c, int kernel, int stride, int groups) {
    gfl_model *m = d->model;
    int weight = gfli_add_param(d, name, ".weight", init, out_c, in_c / groups, kernel, kernel);
    if (d->status == GFL_OK)
        d->status = gfli_grow(m->context, &m->layers, &d->layer_capacity, (size_t)m->n_layers + 1,
                              sizeof *m->layers, "layer table");
    if (d->status != GFL_OK) return NULL;
    gfli_layer *layer = &m->layers[m->n_layers++];
    memset(layer, 0, sizeof *layer);
    layer->shape.in_c = in_c;
    layer->shape.out_c = out_c;
    layer->shape.kernel = kernel;
    layer->shape.stride = stride;
    layer->shape.pad = kernel / 2;
    layer->shape.groups = groups;
    layer->weight = weight;
    layer->offset = layer->bias = -1;
    layer->bn_gamma = layer->bn_beta = layer->bn_mean = layer->bn_var = -1;
    layer->gn_gamma = layer->gn_beta = -1;
    layer->stage = d->stage;
    return layer;
}

/* The batch norm of a layer; zero_gamma: the last of a residual branch. */
static void gfli_add_bn(gfli_describer *d, int layer, const char *bn, bool zero_gamma) {
    if (d->status != GFL_OK) return;
    gfli_layer *l = &d->model->layers[layer];
    int c = l->shape.out_c;
    gfli_init gamma = zero_gamma ? GFLI_INIT_ZERO : GFLI_INIT_ONE;
    l->bn_gamma = gfli_add_param(d, bn, ".weight", gamma, c, 0, 0, 0);
    l->bn_beta = gfli_add_param(d, bn, ".bias", GFLI_INIT_ZERO, c, 0, 0, 0);
    l->bn_mean = gfli_add_param(d, bn, ".running_mean", GFLI_INIT_ZERO, c, 0, 0, 0);
    l->bn_var = gfli_add_param(d, bn, ".running_var", GFLI_INIT_ONE, c, 0, 0, 0);
    if (d->status != GFL_OK) return;
    d->model->params[l->bn_mean].is_buffer = true;
    d->model->params[l->bn_var].is_buffer = true;
}

/* A convolution of the backbone with its batch norm. */
static void gfli_add_conv_bn(gfli_describer *d, const char *conv, const char *bn, bool zero_gamma,
                             int in_c, int out_c, int kernel, int stride, int groups) {
    int layer = d->model->n_layers;
    (void)gfli_add_layer(d, conv, GFLI_INIT_KAIMING, in_c, out_c, kernel, stride, groups);
    gfli_add_bn(d, layer, bn, zero_gamma);
}

static void gfli_add_conv_bias(gfli_describer *d, const char *conv, gfli_init init,
                               gfli_init bias_init, int in_c, int out_c, int kernel, int stride) {
    gfli_layer *layer = gfli_add_layer(d, conv, init, in_c, out_c, kernel, stride, 1);
    if (layer) layer->bias = gfli_add_direct(d, conv, ".bias", bias_init, out_c);
}

/* A deformable 3x3, the ordinary convolution that gives its offsets, and its batch norm. */
static void gfli_add_deform_bn(gfli_describer *d, const char *conv, const char *bn, int width,
                               int stride, int groups) {
    char offset[96];
    int layer = d->model->n_layers, values = d->model->arch.deform == 2 ? 3 : 2;
    snprintf(offset, sizeof offset, "%s.conv_offset", conv);
    (void)gfli_add_layer(d, conv, GFLI_INIT_DEFORM, width, width, 3, stride, groups);
    gfli_add_conv_bias(d, offset, GFLI_INIT_ZERO, GFLI_INIT_ZERO, width, values * 9, 3, stride);
    if (d->status == GFL_OK) d->model->layers[layer].offset = layer + 1;
    gfli_add_bn(d, layer, bn, false);
}

static void gfli_describe_block(gfli_describer *d, int stage, int block, int in_c) {
    const gfl_arch *arch = &d->model->arch;
    bool bottleneck = gfli_arch_depth(arch->depth)->bottleneck;
    int out_c = gfli_stage_out(arch, stage), width = gfli_stage_width(arch, stage);
    int stride = stage > 1 && block == 0 ? 2 : 1;
    const bool caffe = arch->style == GFL_STYLE_CAFFE;
    int first = caffe ? stride : 1, second = caffe ? 1 : stride;
    char conv[64], bn[64];
    for (int i = 1; i <= (bottleneck ? 3 : 2); i++) {
        snprintf(conv, sizeof conv, "backbone.layer%d.%d.conv%d", stage, block, i);
        snprintf(bn, sizeof bn, "backbone.layer%d.%d.bn%d", stage, block, i);
        if (!bottleneck)
            gfli_add_conv_bn(d, conv, bn, i == 2, i == 1 ? in_c : width, width, 3,
                             i == 1 ? stride : 1, 1);
        else if (i == 2 && gfli_is_deformable(arch, stage))
            gfli_add_deform_bn(d, conv, bn, width, second, arch->groups);
        else if (i == 2)
            gfli_add_conv_bn(d, conv, bn, false, width, width, 3, second, arch->groups);
        else
            gfli_add_conv_bn(d, conv, bn, i == 3, i == 1 ? in_c : width, i == 1 ? width : out_c, 1,
                             i == 1 ? first : 1, 1);
    }
    if (block == 0 && (stride != 1 || in_c != out_c)) {
        snprintf(conv, sizeof conv, "backbone.layer%d.%d.downsample.0", stage, block);
        snprintf(bn, sizeof bn, "backbone.layer%d.%d.downsample.1", stage, block);
        gfli_add_conv_bn(d, conv, bn, false, in_c, out_c, 1, stride, 1);
    }
}

static void gfli_describe_tower(gfli_describer *d, const char *tower) {
    const gfl_arch *arch = &d->model->arch;
    int c = arch->head_channels;
    for (int i = 0; i < arch->stacked_convs; i++) {
        char conv[64], gn[64];
        snprintf(conv, sizeof conv, "bbox_head.%s.%d.conv", tower, i);
        snprintf(gn, sizeof gn, "bbox_head.%s.%d.gn", tower, i);
        gfli_layer *layer =
            gfli_add_layer(d, conv, GFLI_INIT_NORMAL, i == 0 ? arch->fpn_channels : c, c, 3, 1, 1);
        if (!layer) return;
        layer->gn_gamma = gfli_add_direct(d, gn, ".weight", GFLI_INIT_ONE, c);
        layer->gn_beta = gfli_add_direct(d, gn, ".bias", GFLI_INIT_ZERO, c);
    }
}

static void gfli_describe_neck_and_head(gfli_describer *d) {
    const gfl_arch *arch = &d->model->arch;
    int fpn = arch->fpn_channels, head = arch->head_channels;
    char name[64];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "neck.lateral_convs.%d.conv", i);
        gfli_add_conv_bias(d, name, GFLI_INIT_XAVIER, GFLI_INIT_ZERO, gfli_stage_out(arch, i + 2),
                           fpn, 1, 1);
    }
    for (int i = 0; i < GFL_LEVELS; i++) {
        snprintf(name, sizeof name, "neck.fpn_convs.%d.conv", i);
        gfli_add_conv_bias(d, name, GFLI_INIT_XAVIER, GFLI_INIT_ZERO, fpn, fpn, 3, i < 3 ? 1 : 2);
    }
    gfli_describe_tower(d, "cls_convs");
    gfli_describe_tower(d, "reg_convs");
    gfli_add_conv_bias(d, "bbox_head.gfl_cls", GFLI_INIT_NORMAL, GFLI_INIT_PRIOR, head,
                       arch->n_classes, 3, 1);
    gfli_add_conv_bias(d, "bbox_head.gfl_reg", GFLI_INIT_NORMAL, GFLI_INIT_ZERO, head,
                       4 * (arch->reg_max + 1), 3, 1);
    for (int i = 0; i < GFL_LEVELS; i++) {
        snprintf(name, sizeof name, "bbox_head.scales.%d.scale", i);
        int index = gfli_add_direct(d, name, "", GFLI_INIT_ONE, 0);
        if (i == 0) d->model->scale = index;
    }
}

gfl_status gfli_model_describe(gfl_model *model) {
    gfli_describer d;
    memset(&d, 0, sizeof d);
    d.model = model;
    const gfli_depth *depth = gfli_arch_depth(model->arch.depth);
    int c = model->arch.base_channels;
    gfli_add_conv_bn(&d, "backbone.conv1", "backbone.bn1", false, 3, c, 7, 2, 1);
    for (int stage = 1; stage <= 4; stage++) {
        d.stage = stage;
        for (int block = 0; block < depth->blocks[stage - 1]; block++) {
            gfli_describe_block(&d, stage, block, c);
            c = gfli_stage_out(&model->arch, stage);
        }
    }
    d.stage = GFLI_STAGE_HEAD;
    gfli_describe_neck_and_head(&d);
    return d.status;
}

int gfli_model_find(const gfl_model *model, const char *name) {
    for (int i = 0; i < model->n_params; i++)
        if (strcmp(model->params[i].name, name) == 0) return i;
    return -1;
}

void gfli_param_init(gfli_param *param, uint64_t seed, int index, float *out) {
    enum { PURPOSE = 0x696e6974 };
    gfli_rng rng = gfli_rng_make(seed, 0, (uint64_t)index, PURPOSE);
    double area = (double)(param->shape[2] * param->shape[3]);
    double fan_in = (double)param->shape[1] * area, fan_out = (double)param->shape[0] * area;
    double constant = 0, spread = 0;
    if (param->init == GFLI_INIT_ONE) constant = 1;
    if (param->init == GFLI_INIT_PRIOR) constant = -(log)((1 - 0.01) / 0.01);
    if (param->init == GFLI_INIT_KAIMING) spread = (sqrt)(2 / fan_out);
    if (param->init == GFLI_INIT_XAVIER) spread = (sqrt)(6 / (fan_in + fan_out));
    if (param->init == GFLI_INIT_NORMAL) spread = 0.01;
    if (param->init == GFLI_INIT_DEFORM) spread = 1 / (sqrt)((double)param->shape[0] * area);
    for (size_t i = 0; i < param->count; i++) {
        if (spread == 0)
            out[i] = (float)constant;
        else if (param->init == GFLI_INIT_XAVIER || param->init == GFLI_INIT_DEFORM)
            out[i] = (float)(spread * (2 * gfli_rng_uniform(&rng) - 1));
        else
            out[i] = (float)(spread * gfli_rng_normal(&rng));
    }
    param->loaded = false;
}
