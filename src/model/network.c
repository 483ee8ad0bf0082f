/* network.c - describing a network: its parameters, layers, maps and steps; fresh weights */
#pragma once

static gfl_status gfli_refuse_network(gfli_describer *d, const char *what) {
    if (d->status == GFL_OK)
        d->status =
            gfli_error(d->model->context, GFL_E_ARG,
                       "the description of the network is wrong at %s*: %s", d->prefix, what);
    return d->status;
}

/* Room for one more of a table. */
static bool gfli_room(gfli_describer *d, void *table, size_t *capacity, int n, size_t size) {
    if (d->status == GFL_OK)
        d->status = gfli_grow(d->model->context, table, capacity, (size_t)n + 1, size,
                              "tables of a network");
    return d->status == GFL_OK;
}

void gfli_describe_stage(gfli_describer *d, int stage) {
    if (stage < d->stage) gfli_refuse_network(d, "stages must ascend");
    d->stage = stage;
}

void gfli_describe_names(gfli_describer *d, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(d->prefix, sizeof d->prefix, format, list);
    va_end(list);
}

/* ---- parameters and layers ------------------------------------------------------------------- */

/* name + suffix with up to four dimensions (0 ends them); returns the index. */
static int gfli_add_param(gfli_describer *d, const char *name, const char *suffix, gfli_init init,
                          int d0, int d1, int d2, int d3) {
    gfl_model *m = d->model;
    const int dims[4] = {d0, d1, d2, d3};
    char full[128];
    if (!gfli_room(d, &m->params, &d->param_capacity, m->n_params, sizeof *m->params)) return -1;
    gfli_param *p = &m->params[m->n_params];
    memset(p, 0, sizeof *p);
    snprintf(full, sizeof full, "%s%s%s", d->prefix, name, suffix);
    d->status = gfli_strdup(m->context, full, &p->name);
    if (d->status != GFL_OK) return -1;
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

static int gfli_add_statistic(gfli_describer *d, const char *bn, const char *suffix, gfli_init init,
                              int d0) {
    const int index = gfli_add_param(d, bn, suffix, init, d0, 0, 0, 0);
    if (index >= 0) d->model->params[index].is_buffer = true;
    return index;
}

int gfli_add_scale(gfli_describer *d, const char *name) {
    return gfli_add_direct(d, name, "", GFLI_INIT_ONE, 0);
}

int gfli_add_conv(gfli_describer *d, const char *conv, gfli_init init, int in_c, int out_c,
                  int kernel, int stride, int groups) {
    gfl_model *m = d->model;
    if (d->status == GFL_OK && (in_c % groups != 0 || out_c % groups != 0))
        gfli_refuse_network(d, "groups must divide the channels");
    if (d->status != GFL_OK) return -1;
    const int weight =
        gfli_add_param(d, conv, ".weight", init, out_c, in_c / groups, kernel, kernel);
    if (!gfli_room(d, &m->layers, &d->layer_capacity, m->n_layers, sizeof *m->layers)) return -1;
    gfli_layer *layer = &m->layers[m->n_layers];
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
    return m->n_layers++;
}

static void gfli_add_bn(gfli_describer *d, int layer, const char *bn, bool zero_gamma) {
    const gfli_init first = zero_gamma ? GFLI_INIT_ZERO : GFLI_INIT_ONE;
    if (d->status != GFL_OK) return;
    gfli_layer *l = &d->model->layers[layer];
    const int c = l->shape.out_c;
    l->bn_gamma = gfli_add_param(d, bn, ".weight", first, c, 0, 0, 0);
    l->bn_beta = gfli_add_param(d, bn, ".bias", GFLI_INIT_ZERO, c, 0, 0, 0);
    l->bn_mean = gfli_add_statistic(d, bn, ".running_mean", GFLI_INIT_ZERO, c);
    l->bn_var = gfli_add_statistic(d, bn, ".running_var", GFLI_INIT_ONE, c);
    if (d->status == GFL_OK) d->model->params[l->bn_var].is_variance = true;
}

int gfli_add_conv_bn(gfli_describer *d, const char *conv, const char *bn, bool zero_gamma, int in_c,
                     int out_c, int kernel, int stride, int groups) {
    const int layer =
        gfli_add_conv(d, conv, GFLI_INIT_KAIMING, in_c, out_c, kernel, stride, groups);
    gfli_add_bn(d, layer, bn, zero_gamma);
    return layer;
}

int gfli_add_conv_bias(gfli_describer *d, const char *conv, gfli_init init, gfli_init bias_init,
                       int in_c, int out_c, int kernel, int stride) {
    const int layer = gfli_add_conv(d, conv, init, in_c, out_c, kernel, stride, 1);
    const int bias = gfli_add_direct(d, conv, ".bias", bias_init, out_c);
    if (d->status == GFL_OK) d->model->layers[layer].bias = bias;
    return layer;
}

int gfli_add_deform_bn(gfli_describer *d, const char *conv, const char *bn, int values, int width,
                       int stride, int groups) {
    char name[64];
    const int layer = gfli_add_conv(d, conv, GFLI_INIT_DEFORM, width, width, 3, stride, groups);
    snprintf(name, sizeof name, "%s.conv_offset", conv);
    const int offset =
        gfli_add_conv_bias(d, name, GFLI_INIT_ZERO, GFLI_INIT_ZERO, width, values * 9, 3, stride);
    if (d->status == GFL_OK) d->model->layers[layer].offset = offset;
    gfli_add_bn(d, layer, bn, false);
    return layer;
}

int gfli_add_conv_gn(gfli_describer *d, const char *conv, const char *gn, int in_c, int out_c) {
    const int layer = gfli_add_conv(d, conv, GFLI_INIT_NORMAL, in_c, out_c, 3, 1, 1);
    const int gamma = gfli_add_direct(d, gn, ".weight", GFLI_INIT_ONE, out_c);
    const int beta = gfli_add_direct(d, gn, ".bias", GFLI_INIT_ZERO, out_c);
    if (d->status != GFL_OK) return -1;
    d->model->layers[layer].gn_gamma = gamma;
    d->model->layers[layer].gn_beta = beta;
    return layer;
}

/* ---- maps and steps -------------------------------------------------------------------------- */

static int gfli_add_map(gfli_describer *d, int c, int stride, int over) {
    gfli_network *net = &d->model->network;
    if (!gfli_room(d, &net->maps, &d->map_capacity, net->n_maps, sizeof *net->maps)) return 0;
    gfli_net_map *map = &net->maps[net->n_maps];
    memset(map, 0, sizeof *map);
    map->c = c;
    map->stride = stride;
    map->parent = -1;
    map->over = over;
    return net->n_maps++;
}

int gfli_map_channels(const gfli_describer *d, int map) {
    return d->status == GFL_OK ? d->model->network.maps[map].c : 0;
}

void gfli_name_map(gfli_describer *d, int map, const char *name) {
    if (d->status == GFL_OK) d->model->network.maps[map].name = name;
}

int gfli_add_pyramid(gfli_describer *d, int c, const char *name) {
    const int map = gfli_add_map(d, c, 0, -1);
    gfli_name_map(d, map, name);
    return map;
}

int gfli_add_level(gfli_describer *d, int pyramid, int level, const char *name) {
    const int map = gfli_add_map(d, gfli_map_channels(d, pyramid), 8 << level, -1);
    if (d->status != GFL_OK) return 0;
    d->model->network.maps[map].parent = pyramid;
    d->model->network.maps[map].level = level;
    d->model->network.maps[map].name = name;
    return map;
}

static void gfli_read_map(gfli_describer *d, int map) {
    if (d->status == GFL_OK && map >= 0 && d->model->network.maps[map].taken)
        gfli_refuse_network(d, "a step reads a map whose place an earlier one has taken");
}

static gfli_step *gfli_add_step(gfli_describer *d, gfli_op op, int in, int out) {
    gfli_network *net = &d->model->network;
    gfli_read_map(d, in);
    if (op == GFLI_OP_UPSAMPLE_ADD) gfli_read_map(d, out);
    if (!gfli_room(d, &net->steps, &d->step_capacity, net->n_steps, sizeof *net->steps))
        return NULL;
    gfli_step *step = &net->steps[net->n_steps++];
    memset(step, 0, sizeof *step);
    step->op = op;
    step->in = in;
    step->out = out;
    step->residual = step->offset = step->pair = -1;
    step->layer = step->gamma = step->beta = step->scale = step->stats = -1;
    step->twin.in = step->twin.out = step->twin.layer = step->twin.stats = -1;
    step->stage = d->stage;
    return step;
}

/* A step whose output is like its input and takes its place. */
static gfli_step *gfli_add_step_over(gfli_describer *d, gfli_op op, int in) {
    if (d->status != GFL_OK) return NULL;
    const int out =
        gfli_add_map(d, gfli_map_channels(d, in), d->model->network.maps[in].stride, in);
    gfli_step *step = gfli_add_step(d, op, in, out);
    if (step) d->model->network.maps[in].taken = true;
    return step;
}

/* Does what a layer computes from `in` have the channels of `in` and the cells of `out`? */
static bool gfli_layer_fits(const gfli_describer *d, int layer, int in, int out) {
    const gfli_conv_shape *s = &d->model->layers[layer].shape;
    const gfli_net_map *from = &d->model->network.maps[in], *to = &d->model->network.maps[out];
    return s->in_c == from->c && s->out_c == to->c && s->stride * from->stride == to->stride;
}

/* out -1: a map of its own.  The offsets of a deformable convolution come before it. */
static int gfli_run_any_conv(gfli_describer *d, int layer, int in, int residual, bool relu,
                             int out) {
    if (d->status != GFL_OK) return 0;
    const gfli_layer *l = &d->model->layers[layer];
    const int offset = l->offset < 0 ? -1 : gfli_run_conv(d, l->offset, in, false);
    if (out < 0 && d->status == GFL_OK)
        out = gfli_add_map(d, l->shape.out_c, d->model->network.maps[in].stride * l->shape.stride,
                           residual);
    gfli_read_map(d, residual);
    gfli_step *step = gfli_add_step(d, offset < 0 ? GFLI_OP_CONV : GFLI_OP_DEFORM_CONV, in, out);
    if (!step) return 0;
    step->residual = residual;
    step->offset = offset;
    step->layer = layer;
    step->relu = relu;
    if (in == residual || !gfli_layer_fits(d, layer, in, out) ||
        (residual >= 0 && !gfli_layer_fits(d, layer, in, residual)))
        gfli_refuse_network(d, "a convolution does not fit its maps");
    if (residual >= 0) d->model->network.maps[residual].taken = true;
    return out;
}

int gfli_run_conv(gfli_describer *d, int layer, int in, bool relu) {
    return gfli_run_any_conv(d, layer, in, -1, relu, -1);
}

int gfli_run_residual_conv(gfli_describer *d, int layer, int in, int residual) {
    return gfli_run_any_conv(d, layer, in, residual, true, -1);
}

void gfli_run_level_conv(gfli_describer *d, int layer, int in, int level) {
    (void)gfli_run_any_conv(d, layer, in, -1, false, level);
}

int gfli_run_max_pool(gfli_describer *d, int in) {
    if (d->status != GFL_OK) return 0;
    const gfli_net_map from = d->model->network.maps[in];
    const int out = gfli_add_map(d, from.c, 2 * from.stride, -1);
    (void)gfli_add_step(d, GFLI_OP_MAX_POOL, in, out);
    return out;
}

void gfli_run_upsample_add(gfli_describer *d, int in, int out) {
    if (d->status != GFL_OK) return;
    const gfli_net_map *from = &d->model->network.maps[in], *to = &d->model->network.maps[out];
    if (from->c != to->c || from->stride != 2 * to->stride)
        gfli_refuse_network(d, "maps to be added do not fit");
    (void)gfli_add_step(d, GFLI_OP_UPSAMPLE_ADD, in, out);
}

int gfli_run_group_norm(gfli_describer *d, int layer, int in) {
    gfli_step *step = gfli_add_step_over(d, GFLI_OP_GROUP_NORM, in);
    if (!step) return 0;
    step->relu = true;
    step->gamma = d->model->layers[layer].gn_gamma;
    step->beta = d->model->layers[layer].gn_beta;
    return step->out;
}

int gfli_run_level_scale(gfli_describer *d, int in, int scale) {
    gfli_step *step = gfli_add_step_over(d, GFLI_OP_LEVEL_SCALE, in);
    if (!step) return 0;
    step->scale = scale;
    return step->out;
}

/* ---- the whole ------------------------------------------------------------------------------- */

gfl_status gfli_model_describe(gfl_model *model) {
    static const char *const names[] = {"C2", "C3", "C4", "C5"};
    int features[4] = {0, 0, 0, 0};
    gfli_describer d;
    memset(&d, 0, sizeof d);
    d.model = model;
    model->network.input = gfli_add_map(&d, 3, 1, -1);
    gfli_name_map(&d, model->network.input, "input");
    gfli_backbone_of(model->context, model->arch.depth)->describe(&d, features);
    for (int i = 0; i < 4; i++) {
        gfli_name_map(&d, features[i], names[i]);
        if (d.status == GFL_OK && model->network.maps[features[i]].stride != 4 << i)
            gfli_refuse_network(&d, "the strides of the stages must be 4, 8, 16 and 32");
    }
    gfli_describe_stage(&d, GFLI_STAGE_HEAD);
    gfli_describe_head(&d, gfli_describe_neck(&d, features));
    return d.status;
}

void gfli_model_undescribe(gfl_model *model) {
    for (int i = 0; i < model->n_params; i++) gfli_free(model->context, model->params[i].name);
    gfli_free(model->context, model->params);
    gfli_free(model->context, model->layers);
    gfli_free(model->context, model->network.maps);
    gfli_free(model->context, model->network.steps);
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
