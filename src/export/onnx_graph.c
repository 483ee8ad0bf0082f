/* onnx_graph.c - nodes, constants and names of an ONNX graph */
#pragma once

/* ---- nodes ----------------------------------------------------------------------------------- */

size_t gfli_onnx_open(gfli_onnx *g, const char *op, const char *out, const char *a, const char *b,
                      const char *c) {
    const char *const inputs[] = {a, b, c};
    const size_t start = gfli_pb_open(&g->nodes, GFLI_ONNX_GRAPH_NODE);
    for (size_t i = 0; i < GFLI_COUNT(inputs); i++)
        if (inputs[i]) gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_INPUT, inputs[i]);
    gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_OUTPUT, out);
    gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_NAME, out);
    gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_OP, op);
    return start;
}

void gfli_onnx_close(gfli_onnx *g, size_t start) {
    gfli_pb_close(&g->nodes, start);
}

void gfli_onnx_node(gfli_onnx *g, const char *op, const char *out, const char *a, const char *b,
                    const char *c) {
    gfli_onnx_close(g, gfli_onnx_open(g, op, out, a, b, c));
}

enum { GFLI_ONNX_FLOAT = 1, GFLI_ONNX_INT = 2, GFLI_ONNX_STRING = 3, GFLI_ONNX_INTS = 7 };

static size_t gfli_onnx_attribute(gfli_onnx *g, const char *name, int type) {
    const size_t start = gfli_pb_open(&g->nodes, GFLI_ONNX_NODE_ATTRIBUTE);
    gfli_pb_text(&g->nodes, GFLI_ONNX_ATTRIBUTE_NAME, name);
    gfli_pb_int(&g->nodes, GFLI_ONNX_ATTRIBUTE_TYPE, type);
    return start;
}

void gfli_onnx_int(gfli_onnx *g, const char *name, int64_t value) {
    const size_t start = gfli_onnx_attribute(g, name, GFLI_ONNX_INT);
    gfli_pb_int(&g->nodes, GFLI_ONNX_ATTRIBUTE_I, value);
    gfli_pb_close(&g->nodes, start);
}

void gfli_onnx_float(gfli_onnx *g, const char *name, float value) {
    const size_t start = gfli_onnx_attribute(g, name, GFLI_ONNX_FLOAT);
    gfli_pb_float(&g->nodes, GFLI_ONNX_ATTRIBUTE_F, value);
    gfli_pb_close(&g->nodes, start);
}

void gfli_onnx_text(gfli_onnx *g, const char *name, const char *value) {
    const size_t start = gfli_onnx_attribute(g, name, GFLI_ONNX_STRING);
    gfli_pb_text(&g->nodes, GFLI_ONNX_ATTRIBUTE_S, value);
    gfli_pb_close(&g->nodes, start);
}

void gfli_onnx_ints(gfli_onnx *g, const char *name, const int64_t *values, int n) {
    const size_t start = gfli_onnx_attribute(g, name, GFLI_ONNX_INTS);
    for (int i = 0; i < n; i++) gfli_pb_int(&g->nodes, GFLI_ONNX_ATTRIBUTE_INTS, values[i]);
    gfli_pb_close(&g->nodes, start);
}

void gfli_onnx_transpose(gfli_onnx *g, const char *out, const char *in, const int64_t *order,
                         int n) {
    const size_t node = gfli_onnx_open(g, "Transpose", out, in, NULL, NULL);
    gfli_onnx_ints(g, "perm", order, n);
    gfli_onnx_close(g, node);
}

void gfli_onnx_cast(gfli_onnx *g, const char *out, const char *in) {
    const size_t node = gfli_onnx_open(g, "Cast", out, in, NULL, NULL);
    gfli_onnx_int(g, "to", GFLI_ONNX_F32);
    gfli_onnx_close(g, node);
}

/* ---- constants ------------------------------------------------------------------------------- */

gfli_onnx_const *gfli_onnx_new_const(gfli_onnx *g, const char *name, int type, int rank,
                                     const int64_t *shape) {
    if (g->status == GFL_OK)
        g->status = gfli_grow(g->context, &g->consts, &g->const_capacity, (size_t)g->n_consts + 1,
                              sizeof *g->consts, "the graph's constants");
    if (g->status != GFL_OK) return NULL;
    gfli_onnx_const *c = &g->consts[g->n_consts++];
    memset(c, 0, sizeof *c);
    snprintf(c->name.text, sizeof c->name.text, "%s", name);
    c->type = type;
    c->rank = rank;
    c->bytes = type == GFLI_ONNX_I64 ? sizeof(int64_t) : sizeof(float);
    for (int i = 0; i < rank; i++) {
        c->shape[i] = shape[i];
        c->bytes *= (uint64_t)shape[i];
    }
    c->layer = -1;
    return c;
}

void *gfli_onnx_room(gfli_onnx *g, const char *name, int type, int rank, const int64_t *shape) {
    gfli_onnx_const *c = gfli_onnx_new_const(g, name, type, rank, shape);
    if (!c) return NULL;
    g->status = gfli_alloc(g->context, (size_t)c->bytes, 1, name, &c->data);
    return c->data;
}

void gfli_onnx_floats(gfli_onnx *g, const char *name, int rank, const int64_t *shape,
                      const float *values) {
    void *room = gfli_onnx_room(g, name, GFLI_ONNX_F32, rank, shape);
    if (room) memcpy(room, values, (size_t)g->consts[g->n_consts - 1].bytes);
}

void gfli_onnx_placed(gfli_onnx *g, const char *name, int rank, const int64_t *shape,
                      const float *values) {
    float *room = (float *)gfli_onnx_room(g, name, GFLI_ONNX_F32, rank, shape);
    const size_t n = room ? (size_t)g->consts[g->n_consts - 1].bytes / sizeof *room : 0;
    if (room) g->status = gfli_fetch(g->model, values, n, room);
}

void gfli_onnx_number(gfli_onnx *g, const char *name, float value) {
    gfli_onnx_floats(g, name, 0, NULL, &value);
}

void gfli_onnx_integers(gfli_onnx *g, const char *name, int rank, int n, const int64_t *values) {
    const int64_t shape = n;
    void *room = gfli_onnx_room(g, name, GFLI_ONNX_I64, rank, &shape);
    if (room) memcpy(room, values, (size_t)n * sizeof *values);
}

void gfli_onnx_channels(gfli_onnx *g, const gfli_param *p) {
    const int64_t shape[3] = {p->shape[0], 1, 1};
    gfli_onnx_placed(g, p->name, 3, shape, p->data);
}

/* ---- inputs and outputs ---------------------------------------------------------------------- */

void gfli_onnx_end(gfli_onnx *g, int field, const char *name, int type, int rank,
                   const int64_t *sizes, const char *const *names) {
    enum { INFO_NAME = 1, INFO_TYPE = 2, TYPE_TENSOR = 1, TENSOR_TYPE = 1, TENSOR_SHAPE = 2 };
    enum { SHAPE_DIM = 1, DIM_VALUE = 1, DIM_NAME = 2 };
    gfli_buffer *b = &g->ends;
    const size_t info = gfli_pb_open(b, field);
    gfli_pb_text(b, INFO_NAME, name);
    const size_t outer = gfli_pb_open(b, INFO_TYPE), tensor = gfli_pb_open(b, TYPE_TENSOR);
    gfli_pb_int(b, TENSOR_TYPE, type);
    const size_t shape = gfli_pb_open(b, TENSOR_SHAPE);
    for (int i = 0; i < rank; i++) {
        const size_t dim = gfli_pb_open(b, SHAPE_DIM);
        if (sizes[i] > 0)
            gfli_pb_int(b, DIM_VALUE, sizes[i]);
        else
            gfli_pb_text(b, DIM_NAME, names[i]);
        gfli_pb_close(b, dim);
    }
    gfli_pb_close(b, shape);
    gfli_pb_close(b, tensor);
    gfli_pb_close(b, outer);
    gfli_pb_close(b, info);
}

/* ---- names ----------------------------------------------------------------------------------- */

gfli_onnx_name gfli_onnx_join(const char *a, const char *b) {
    gfli_onnx_name name;
    snprintf(name.text, sizeof name.text, "%.70s%.20s", a, b);
    return name;
}

gfli_onnx_name gfli_onnx_at(const char *name, int level) {
    gfli_onnx_name full;
    snprintf(full.text, sizeof full.text, "%.80s.%d", name, level);
    return full;
}

gfli_onnx_name gfli_onnx_module(const gfli_onnx *g, int param, int level, int levels) {
    const char *full = g->model->params[param].name, *dot = strrchr(full, '.');
    gfli_onnx_name name;
    snprintf(name.text, sizeof name.text, "%.*s", dot ? (int)(dot - full) : 80, full);
    return levels > 1 ? gfli_onnx_at(name.text, level) : name;
}

gfli_onnx_name *gfli_onnx_value(gfli_onnx *g, int slot, int level) {
    const gfli_slot *s = &g->plan.maps[slot];
    return &g->values[s->parent >= 0 ? s->parent * GFL_LEVELS + s->level
                                     : slot * GFL_LEVELS + level];
}

int gfli_onnx_tap_values(const gfli_onnx *g) {
    int values = 0;
    for (int i = 0; i < g->plan.n_steps; i++)
        if (g->plan.steps[i].offset >= 0)
            values = gfli_max(values, g->plan.maps[g->plan.steps[i].offset].map.c / 9);
    return values;
}
