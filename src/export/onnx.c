/* onnx.c - a model as an ONNX file: the graph's parts put together */
#pragma once

static gfl_status gfli_onnx_check(gfl_context *context, const gfl_export_opts *o) {
    const int step = o->pixels ? 1 : 32;
    if (o->batch < 0)
        return gfli_error(context, GFL_E_ARG, "batch is %d; it must be positive, or 0 for any",
                          o->batch);
    if ((o->width == 0) != (o->height == 0) || o->width < 0 || o->height < 0 ||
        o->width > GFL_MAX_SIDE || o->height > GFL_MAX_SIDE || o->width % step != 0 ||
        o->height % step != 0)
        return gfli_error(context, GFL_E_ARG,
                          "width is %d and height is %d; both must be %s up to %d, or 0 for any",
                          o->width, o->height, o->pixels ? "positive" : "multiples of 32",
                          GFL_MAX_SIDE);
    return GFL_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Everything of a constant before its bytes. */
static void gfli_onnx_const_head(const gfli_onnx_const *c, gfli_buffer *b) {
    const size_t tensor = gfli_pb_open(b, GFLI_ONNX_GRAPH_CONST);
    for (int i = 0; i < c->rank; i++) gfli_pb_int(b, GFLI_ONNX_TENSOR_DIMS, c->shape[i]);
    gfli_pb_int(b, GFLI_ONNX_TENSOR_TYPE, c->type);
    gfli_pb_text(b, GFLI_ONNX_TENSOR_NAME, c->name.text);
    gfli_pb_head(b, GFLI_ONNX_TENSOR_RAW, c->bytes);
    gfli_pb_close_before(b, tensor, c->bytes);
}

/* The bytes of a constant; those of a layer's weights are made here. */
static gfl_status gfli_onnx_const_data(const gfli_onnx *g, const gfli_onnx_const *c,
                                       gfli_values *values, const void **out) {
    const float *weights;
    *out = c->data;
    if (c->layer < 0) return GFL_OK;
    const gfli_layer *layer = &g->model->layers[c->layer];
    GFLI_TRY(gfli_param_values(g->model, layer->weight, values, &weights));
    *out = weights;
    if (layer->bn_gamma < 0) return GFL_OK;
    const size_t out_c = (size_t)layer->shape.out_c;
    const size_t per_output = gfli_conv_weights(&layer->shape) / out_c;
    float *scale;
    GFLI_TRY(gfli_alloc(g->context, out_c, sizeof *scale, "a scale", &scale));
    const gfl_status status = gfli_fetch(g->model, layer->folded_scale, out_c, scale);
    for (size_t o = 0; o < out_c && status == GFL_OK; o++)
        for (size_t i = 0; i < per_output; i++) values->data[o * per_output + i] *= scale[o];
    gfli_free(g->context, scale);
    return status;
}

static gfl_status gfli_meta_to_onnx(void *to, const char *key, const char *value) {
    enum { MODEL_METADATA = 14, ENTRY_KEY = 1, ENTRY_VALUE = 2 };
    gfli_buffer *b = (gfli_buffer *)to;
    const size_t start = gfli_pb_open(b, MODEL_METADATA);
    gfli_pb_text(b, ENTRY_KEY, key);
    gfli_pb_text(b, ENTRY_VALUE, value);
    gfli_pb_close(b, start);
    return b->status;
}

/* Everything before the graph's nodes; `graph` is the graph's size without its name. */
static gfl_status gfli_onnx_head(const gfli_onnx *g, uint64_t graph, gfli_buffer *b) {
    enum { IR_VERSION = 1, PRODUCER = 2, PRODUCER_VERSION = 3, GRAPH = 7, OPSET = 8 };
    enum { OPSET_DOMAIN = 1, OPSET_VERSION = 2 };
    const bool deform = gfli_onnx_tap_values(g) > 0;
    char text[32];
    gfli_arch_name(g->context, &g->model->arch, text);
    gfli_pb_int(b, IR_VERSION, deform ? 9 : 8);
    gfli_pb_text(b, PRODUCER, "gfl");
    gfli_pb_text(b, PRODUCER_VERSION, GFL_VERSION_TEXT);
    const size_t opset = gfli_pb_open(b, OPSET);
    gfli_pb_text(b, OPSET_DOMAIN, "");
    gfli_pb_int(b, OPSET_VERSION, deform ? 19 : 17);
    gfli_pb_close(b, opset);
    GFLI_TRY(gfli_model_metadata(g->model, gfli_meta_to_onnx, b));
    const size_t start = gfli_pb_open(b, GRAPH);
    gfli_pb_text(b, GFLI_ONNX_GRAPH_NAME, text);
    gfli_pb_close_before(b, start, graph);
    return b->status;
}

/* Protocol buffers end at 2 GB. */
static gfl_status gfli_onnx_size(const gfli_onnx *g, gfli_buffer *b, uint64_t *graph) {
    *graph = g->nodes.n + g->ends.n;
    for (int i = 0; i < g->n_consts; i++) {
        b->n = 0;
        gfli_onnx_const_head(&g->consts[i], b);
        *graph += b->n + g->consts[i].bytes;
    }
    b->n = 0;
    GFLI_TRY(b->status);
    if (*graph < INT32_MAX - (1 << 24)) return GFL_OK;
    return gfli_error(g->context, GFL_E_UNSUPPORTED,
                      "an ONNX file can have at most 2 GB, and this model needs %.1f GB",
                      (double)*graph * 1e-9);
}

static gfl_status gfli_onnx_put(const gfli_onnx *g, gfli_buffer *b, gfli_values *values,
                                gfli_file *file) {
    uint64_t graph;
    GFLI_TRY(gfli_onnx_size(g, b, &graph));
    GFLI_TRY(gfli_onnx_head(g, graph, b));
    GFLI_TRY(gfli_file_write(file, b->data, b->n));
    GFLI_TRY(gfli_file_write(file, g->nodes.data, g->nodes.n));
    for (int i = 0; i < g->n_consts; i++) {
        const void *data;
        b->n = 0;
        gfli_onnx_const_head(&g->consts[i], b);
        GFLI_TRY(b->status);
        GFLI_TRY(gfli_file_write(file, b->data, b->n));
        GFLI_TRY(gfli_onnx_const_data(g, &g->consts[i], values, &data));
        GFLI_TRY(gfli_file_write(file, data, (size_t)g->consts[i].bytes));
    }
    return gfli_file_write(file, g->ends.data, g->ends.n);
}

static gfl_status gfli_onnx_write(const gfli_onnx *g, gfli_sink to) {
    gfli_file file;
    gfli_buffer b;
    gfli_values values = {NULL, 0};
    memset(&b, 0, sizeof b);
    b.context = g->context;
    GFLI_TRY(gfli_file_create(g->context, to, &file));
    gfl_status status = gfli_onnx_put(g, &b, &values, &file);
    gfli_buffer_free(&b);
    gfli_free(g->context, values.data);
    if (status == GFL_OK) return gfli_file_commit(&file);
    gfli_file_abandon(&file);
    return status;
}

/* ---- the graph ------------------------------------------------------------------------------- */

static gfl_status gfli_onnx_build(gfli_onnx *g) {
    enum { ANY_SIZE = 128 }; /* nothing in the graph depends on it */
    const int height = g->opts.height > 0 ? gfli_pad32(g->opts.height) : ANY_SIZE;
    const int width = g->opts.width > 0 ? gfli_pad32(g->opts.width) : ANY_SIZE;
    GFLI_TRY(gfli_plan_create(g->context, g->model, 1, height, width, false, &g->plan));
    GFLI_TRY(gfli_calloc(g->context, (size_t)g->plan.n_slots * GFL_LEVELS, sizeof *g->values,
                         "the graph's names", &g->values));
    gfli_onnx_common(g);
    gfli_onnx_begin(g);
    for (int i = 0; i < g->plan.n_steps; i++) gfli_onnx_step(g, &g->plan.steps[i]);
    gfli_onnx_finish(g);
    GFLI_TRY(g->status);
    GFLI_TRY(g->nodes.status);
    return g->ends.status;
}

gfl_status gfli_export_onnx(const gfl_model *model, const gfl_export_opts *opts, gfli_sink to) {
    gfli_onnx g;
    memset(&g, 0, sizeof g);
    g.context = g.nodes.context = g.ends.context = model->context;
    g.model = model;
    if (opts) g.opts = *opts;
    GFLI_TRY(gfli_onnx_check(model->context, &g.opts));
    GFLI_TRY(gfli_model_check_packed(model->context, model, "gfl_model_export"));
    gfl_status status = gfli_onnx_build(&g);
    if (status == GFL_OK) status = gfli_onnx_write(&g, to);
    for (int i = 0; i < g.n_consts; i++) gfli_free(g.context, g.consts[i].data);
    gfli_free(g.context, g.consts);
    gfli_free(g.context, g.values);
    gfli_plan_destroy(g.context, &g.plan);
    gfli_buffer_free(&g.nodes);
    gfli_buffer_free(&g.ends);
    return status;
}
