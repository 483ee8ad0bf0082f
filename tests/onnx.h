/* onnx.h - reads an ONNX file and runs it, operator by operator, in double precision
 *
 * Written from the specification of protocol buffers and of ONNX's operators, as plainly as can
 * be; only what this project's exports use.  Anything else ends the program. */
#ifndef GFL_TEST_ONNX_H
#define GFL_TEST_ONNX_H

#include "data.h"

enum { OX_NAME = 96, OX_RANK = 4, OX_INPUTS = 8, OX_ATTRIBUTES = 6 };

typedef struct ox_tensor {
    char name[OX_NAME];
    int type, rank;
    int64_t dims[OX_RANK];
    size_t count;
    double *v;
    int uses;
} ox_tensor;

typedef struct ox_attribute {
    char name[40], text[40];
    int n;
    int64_t ints[OX_RANK]; /* a single number too */
    double real;
} ox_attribute;

typedef struct ox_node {
    char op[32], in[OX_INPUTS][OX_NAME], out[2][OX_NAME];
    int n_in, n_out, n_attributes;
    ox_attribute attributes[OX_ATTRIBUTES];
} ox_node;

typedef struct ox_end {
    char name[OX_NAME], free[OX_RANK][32]; /* free: the name of a size that is not fixed */
    int type, rank;
    int64_t dims[OX_RANK];
} ox_end;

typedef struct ox_model {
    int ir, opset, n_nodes, n_consts, n_inputs, n_outputs, n_values;
    ox_node *nodes;
    ox_tensor *values; /* the constants first; then the inputs, and what nodes made */
    ox_end inputs[2], outputs[12];
    char props[16][2][400];
    int n_props;
} ox_model;

static inline void ox_die(const char *what, const char *where) {
    printf("onnx: %s: %s\n", what, where);
    exit(1);
}

/* ---- protocol buffers ------------------------------------------------------------------------ */

typedef struct ox_reader {
    const uint8_t *p, *end;
} ox_reader;

static inline uint64_t ox_varint(ox_reader *r) {
    uint64_t x = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (r->p >= r->end) ox_die("file", "cut");
        const uint8_t byte = *r->p++;
        x |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return x;
    }
    ox_die("varint", "too long");
    return 0;
}

/* The next field: its number, and its value or its bytes.  0 at the end. */
static inline int ox_field(ox_reader *r, uint64_t *value, ox_reader *bytes) {
    if (r->p == r->end) return 0;
    const uint64_t tag = ox_varint(r);
    *value = 0;
    bytes->p = bytes->end = r->p;
    if ((tag & 7) == 0) {
        *value = ox_varint(r);
    } else if ((tag & 7) == 2 || (tag & 7) == 5) {
        const uint64_t n = (tag & 7) == 5 ? 4 : ox_varint(r);
        if (n > (uint64_t)(r->end - r->p)) ox_die("field", "longer than its message");
        bytes->p = r->p;
        bytes->end = r->p = r->p + n;
    } else {
        ox_die("field", "wire type");
    }
    return (int)(tag >> 3);
}

static inline void ox_text(ox_reader r, char *out, size_t size) {
    const size_t n = (size_t)(r.end - r.p);
    if (n >= size) ox_die("text", "too long");
    memcpy(out, r.p, n);
    out[n] = 0;
}

/* ---- the messages ---------------------------------------------------------------------------- */

static inline ox_attribute ox_read_attribute(ox_reader r) {
    ox_attribute a;
    ox_reader bytes;
    uint64_t value;
    float real;
    memset(&a, 0, sizeof a);
    for (int field; (field = ox_field(&r, &value, &bytes)) != 0;) {
        if (field == 1) ox_text(bytes, a.name, sizeof a.name);
        if (field == 4) ox_text(bytes, a.text, sizeof a.text);
        if (field == 3 || field == 8) a.ints[a.n++ % OX_RANK] = (int64_t)value;
        if (field != 2) continue;
        memcpy(&real, bytes.p, 4);
        a.real = (double)real;
    }
    return a;
}

static inline ox_node ox_read_node(ox_reader r) {
    ox_node n;
    ox_reader bytes;
    uint64_t value;
    memset(&n, 0, sizeof n);
    for (int field; (field = ox_field(&r, &value, &bytes)) != 0;) {
        if (n.n_in == OX_INPUTS || n.n_out > 2 || n.n_attributes == OX_ATTRIBUTES)
            ox_die("node", "too large");
        if (field == 1) ox_text(bytes, n.in[n.n_in++], OX_NAME);
        if (field == 2) ox_text(bytes, n.out[n.n_out++], OX_NAME);
        if (field == 4) ox_text(bytes, n.op, sizeof n.op);
        if (field == 5) n.attributes[n.n_attributes++] = ox_read_attribute(bytes);
    }
    return n;
}

static inline void ox_shape(ox_tensor *t, int rank, const int64_t *dims) {
    t->rank = rank;
    t->count = 1;
    for (int i = 0; i < rank; i++) {
        t->dims[i] = dims[i];
        t->count *= (size_t)dims[i];
    }
    t->v = (double *)calloc(t->count + 1, sizeof *t->v);
}

static inline ox_tensor ox_read_tensor(ox_reader r) {
    ox_tensor t;
    ox_reader bytes, raw = {NULL, NULL};
    uint64_t value;
    int64_t dims[OX_RANK];
    int rank = 0;
    memset(&t, 0, sizeof t);
    for (int field; (field = ox_field(&r, &value, &bytes)) != 0;) {
        if (field == 1 && rank < OX_RANK) dims[rank++] = (int64_t)value;
        if (field == 2) t.type = (int)value;
        if (field == 8) ox_text(bytes, t.name, OX_NAME);
        if (field == 9) raw = bytes;
    }
    ox_shape(&t, rank, dims);
    const size_t size = t.type == 7 ? 8 : 4;
    if ((t.type != 1 && t.type != 7) || (size_t)(raw.end - raw.p) != t.count * size)
        ox_die("constant", t.name);
    for (size_t i = 0; i < t.count; i++) {
        float real;
        int64_t whole;
        memcpy(&whole, raw.p + 8 * (t.type == 7 ? i : 0), t.type == 7 ? 8 : 0);
        memcpy(&real, raw.p + 4 * (t.type == 1 ? i : 0), 4);
        t.v[i] = t.type == 7 ? (double)whole : (double)real;
    }
    return t;
}

static inline ox_end ox_read_end(ox_reader r) {
    ox_end e;
    ox_reader type, tensor, shape, dim, bytes;
    uint64_t value;
    memset(&e, 0, sizeof e);
    for (int a; (a = ox_field(&r, &value, &type)) != 0;) {
        if (a == 1) ox_text(type, e.name, OX_NAME);
        while (a == 2 && ox_field(&type, &value, &tensor) == 1)
            for (int b; (b = ox_field(&tensor, &value, &shape)) != 0;) {
                if (b == 1) e.type = (int)value;
                while (b == 2 && ox_field(&shape, &value, &dim) == 1) {
                    const int field = ox_field(&dim, &value, &bytes);
                    if (e.rank == OX_RANK) ox_die("rank", e.name);
                    if (field == 2) ox_text(bytes, e.free[e.rank], sizeof e.free[0]);
                    e.dims[e.rank++] = field == 1 ? (int64_t)value : 0;
                }
            }
    }
    return e;
}

static inline ox_tensor *ox_find(ox_model *m, const char *name) {
    for (int i = 0; i < m->n_values; i++)
        if (!strcmp(m->values[i].name, name)) return &m->values[i];
    return NULL;
}

static inline ox_tensor *ox_add(ox_model *m, ox_tensor t) {
    if (ox_find(m, t.name)) ox_die("made twice", t.name);
    m->values = (ox_tensor *)realloc(m->values, (size_t)(m->n_values + 1) * sizeof t);
    m->values[m->n_values] = t;
    return &m->values[m->n_values++];
}

static inline void ox_read_graph(ox_model *m, ox_reader r) {
    ox_reader bytes;
    uint64_t value;
    for (int field; (field = ox_field(&r, &value, &bytes)) != 0;) {
        if (field == 1) {
            m->nodes = (ox_node *)realloc(m->nodes, (size_t)(m->n_nodes + 1) * sizeof *m->nodes);
            m->nodes[m->n_nodes++] = ox_read_node(bytes);
        }
        if (field == 5) ox_add(m, ox_read_tensor(bytes));
        if (field == 11 && m->n_inputs < 2) m->inputs[m->n_inputs++] = ox_read_end(bytes);
        if (field == 12 && m->n_outputs < 12) m->outputs[m->n_outputs++] = ox_read_end(bytes);
    }
    m->n_consts = m->n_values;
}

static inline ox_model ox_open(const char *path) {
    ox_model m;
    ox_reader r, bytes, inner, part;
    uint64_t value;
    size_t size;
    uint8_t *file = data_read(path, &size);
    memset(&m, 0, sizeof m);
    r.p = file;
    r.end = file + size;
    for (int field; (field = ox_field(&r, &value, &bytes)) != 0;) {
        if (field == 1) m.ir = (int)value;
        if (field == 7) ox_read_graph(&m, bytes);
        inner = bytes;
        for (int k; field == 8 && (k = ox_field(&inner, &value, &part)) != 0;)
            if (k == 2) m.opset = (int)value;
        for (int k; field == 14 && m.n_props < 16 && (k = ox_field(&inner, &value, &part)) != 0;)
            ox_text(part, m.props[m.n_props][k - 1], sizeof m.props[0][0]);
        m.n_props += field == 14;
    }
    free(file);
    return m;
}

static inline void ox_close(ox_model *m) {
    for (int i = 0; i < m->n_values; i++) free(m->values[i].v);
    free(m->values);
    free(m->nodes);
}

static inline const char *ox_prop(const ox_model *m, const char *key) {
    for (int i = 0; i < m->n_props; i++)
        if (!strcmp(m->props[i][0], key)) return m->props[i][1];
    return "";
}

/* ---- operators ------------------------------------------------------------------------------- */

static inline const ox_attribute *ox_attribute_of(const ox_node *n, const char *name) {
    for (int i = 0; i < n->n_attributes; i++)
        if (!strcmp(n->attributes[i].name, name)) return &n->attributes[i];
    ox_die(n->out[0], name);
    return NULL;
}

static inline int64_t ox_int(const ox_node *n, const char *name) {
    return ox_attribute_of(n, name)->ints[0];
}

static inline double ox_apply(const char *op, double a, double b) {
    if (!strcmp(op, "Add")) return a + b;
    if (!strcmp(op, "Sub")) return a - b;
    if (!strcmp(op, "Mul")) return a * b;
    if (!strcmp(op, "Div")) return a / b;
    if (!strcmp(op, "Mod")) return a - b * floor(a / b);
    if (!strcmp(op, "Relu")) return a > 0 ? a : 0;
    if (!strcmp(op, "Neg")) return -a;
    if (!strcmp(op, "Sigmoid")) return 1 / (1 + exp(-a));
    if (!strcmp(op, "Cast")) return (double)(float)a;
    ox_die("no such operator", op);
    return 0;
}

/* Where element i of a tensor of y's shape lies in x, which is broadcast to it. */
static inline size_t ox_broadcast(const ox_tensor *y, const ox_tensor *x, size_t i) {
    size_t at = 0, step = 1;
    for (int k = 1; k <= y->rank; k++) {
        const int64_t own = k <= x->rank ? x->dims[x->rank - k] : 1;
        const size_t index = i % (size_t)y->dims[y->rank - k];
        i /= (size_t)y->dims[y->rank - k];
        if (own != 1) at += index * step;
        step *= (size_t)own;
    }
    return at;
}

static inline void ox_each(const ox_node *n, const ox_tensor *a, const ox_tensor *b, ox_tensor *y) {
    int64_t dims[OX_RANK];
    const int rank = b && b->rank > a->rank ? b->rank : a->rank;
    for (int k = 1; k <= rank; k++) {
        const int64_t da = k <= a->rank ? a->dims[a->rank - k] : 1;
        const int64_t db = b && k <= b->rank ? b->dims[b->rank - k] : 1;
        if (da != db && da != 1 && db != 1) ox_die("shapes", n->out[0]);
        dims[rank - k] = da > db ? da : db;
    }
    ox_shape(y, rank, dims);
    for (size_t i = 0; i < y->count; i++)
        y->v[i] = ox_apply(n->op, a->v[ox_broadcast(y, a, i)], b ? b->v[ox_broadcast(y, b, i)] : 0);
}

static inline double ox_pixel(const ox_tensor *x, int64_t plane, int64_t y, int64_t at) {
    const int64_t h = x->dims[2], w = x->dims[3];
    return y < 0 || at < 0 || y >= h || at >= w ? 0 : x->v[(plane * h + y) * w + at];
}

/* A point between pixels; outside the map are zeros. */
static inline double ox_between(const ox_tensor *x, int64_t plane, double y, double at) {
    const double fy = floor(y), fx = floor(at), dy = y - fy, dx = at - fx;
    const int64_t iy = (int64_t)fy, ix = (int64_t)fx;
    return (1 - dy) *
               ((1 - dx) * ox_pixel(x, plane, iy, ix) + dx * ox_pixel(x, plane, iy, ix + 1)) +
           dy * ((1 - dx) * ox_pixel(x, plane, iy + 1, ix) +
                 dx * ox_pixel(x, plane, iy + 1, ix + 1));
}

/* One tap of a kernel, for the output at (y, x) of an image. */
typedef struct ox_window {
    const ox_tensor *in, *offset, *mask;
    int64_t kernel, stride, pad, image;
} ox_window;

static inline double ox_tap(const ox_window *w, int64_t channel, int64_t tap, int64_t y,
                            int64_t x) {
    const int64_t iy = y * w->stride - w->pad + tap / w->kernel;
    const int64_t ix = x * w->stride - w->pad + tap % w->kernel;
    const int64_t plane = w->image * w->in->dims[1] + channel;
    if (!w->offset) return ox_pixel(w->in, plane, iy, ix);
    const int64_t first = w->image * w->offset->dims[1];
    const double dy = ox_pixel(w->offset, first + 2 * tap, y, x);
    const double dx = ox_pixel(w->offset, first + 2 * tap + 1, y, x);
    const double m = w->mask ? ox_pixel(w->mask, w->image * w->mask->dims[1] + tap, y, x) : 1;
    return m * ox_between(w->in, plane, (double)iy + dy, (double)ix + dx);
}

static inline void ox_conv(const ox_node *n, const ox_tensor *weight, const ox_tensor *bias,
                           ox_window *w, ox_tensor *y) {
    const ox_tensor *x = w->in;
    const int64_t groups = ox_int(n, "group"), out = weight->dims[0], in = weight->dims[1];
    const int64_t taps = weight->dims[2] * weight->dims[3];
    w->kernel = ox_int(n, "kernel_shape");
    w->stride = ox_int(n, "strides");
    w->pad = ox_int(n, "pads");
    if (weight->dims[2] != w->kernel || x->dims[1] != in * groups) ox_die("weights", n->out[0]);
    const int64_t dims[4] = {x->dims[0], out, (x->dims[2] + 2 * w->pad - w->kernel) / w->stride + 1,
                             (x->dims[3] + 2 * w->pad - w->kernel) / w->stride + 1};
    const int64_t points = dims[2] * dims[3], own = out / groups;
    double *column = (double *)malloc((size_t)(in * taps) * sizeof *column);
    ox_shape(y, 4, dims);
    for (int64_t i = 0; i < dims[0] * groups * points; i++) {
        const int64_t at = i % points, group = i / points % groups;
        w->image = i / points / groups;
        for (int64_t k = 0; k < in * taps; k++)
            column[k] = ox_tap(w, group * in + k / taps, k % taps, at / dims[3], at % dims[3]);
        for (int64_t o = group * own; o < (group + 1) * own; o++) {
            double sum = bias ? bias->v[o] : 0;
            for (int64_t k = 0; k < in * taps; k++) sum += weight->v[o * in * taps + k] * column[k];
            y->v[(w->image * out + o) * points + at] = sum;
        }
    }
    free(column);
}

static inline void ox_max_pool(const ox_node *n, const ox_tensor *x, ox_tensor *y) {
    const int64_t kernel = ox_int(n, "kernel_shape"), stride = ox_int(n, "strides");
    const int64_t pad = ox_int(n, "pads"), h = x->dims[2], w = x->dims[3];
    const int64_t dims[4] = {x->dims[0], x->dims[1], (h + 2 * pad - kernel) / stride + 1,
                             (w + 2 * pad - kernel) / stride + 1};
    ox_shape(y, 4, dims);
    for (int64_t i = 0; i < (int64_t)y->count; i++) {
        const int64_t top = i / dims[3] % dims[2] * stride - pad, left = i % dims[3] * stride - pad;
        y->v[i] = -INFINITY;
        for (int64_t k = 0; k < kernel * kernel; k++) {
            const int64_t at = left + k % kernel, row = top + k / kernel;
            if (row < 0 || at < 0 || row >= h || at >= w) continue;
            y->v[i] = fmax(y->v[i], ox_pixel(x, i / dims[3] / dims[2], row, at));
        }
    }
}

static inline void ox_resize(const ox_node *n, const ox_tensor *x, const ox_tensor *scales,
                             ox_tensor *y) {
    const int64_t dims[4] = {x->dims[0], x->dims[1], 2 * x->dims[2], 2 * x->dims[3]};
    if (scales->count != 4 || scales->v[0] != 1 || scales->v[1] != 1 || scales->v[2] != 2 ||
        scales->v[3] != 2 || strcmp(ox_attribute_of(n, "mode")->text, "nearest") != 0 ||
        strcmp(ox_attribute_of(n, "nearest_mode")->text, "floor") != 0 ||
        strcmp(ox_attribute_of(n, "coordinate_transformation_mode")->text, "asymmetric") != 0)
        ox_die("Resize", n->out[0]);
    ox_shape(y, 4, dims);
    for (int64_t i = 0; i < (int64_t)y->count; i++)
        y->v[i] = ox_pixel(x, i / dims[3] / dims[2], i / dims[3] % dims[2] / 2, i % dims[3] / 2);
}

static inline void ox_instance_norm(const ox_node *n, const ox_tensor *x, const ox_tensor *scale,
                                    const ox_tensor *bias, ox_tensor *y) {
    const size_t planes = (size_t)(x->dims[0] * x->dims[1]), size = x->count / planes;
    ox_shape(y, x->rank, x->dims);
    for (size_t p = 0; p < planes; p++) {
        const double *v = x->v + p * size;
        double mean = 0, squares = 0;
        for (size_t i = 0; i < size; i++) mean += v[i] / (double)size;
        for (size_t i = 0; i < size; i++) squares += (v[i] - mean) * (v[i] - mean);
        const double d = sqrt(squares / (double)size + ox_attribute_of(n, "epsilon")->real);
        const size_t c = p % (size_t)x->dims[1];
        for (size_t i = 0; i < size; i++)
            y->v[p * size + i] = (v[i] - mean) / d * scale->v[c] + bias->v[c];
    }
}

static inline void ox_reshape(const ox_node *n, const ox_tensor *x, const ox_tensor *shape,
                              ox_tensor *y) {
    int64_t dims[OX_RANK], known = 1;
    int open = -1;
    for (int i = 0; i < (int)shape->count; i++) {
        dims[i] = (int64_t)shape->v[i];
        if (dims[i] == 0) dims[i] = x->dims[i];
        if (dims[i] < 0)
            open = i;
        else
            known *= dims[i];
    }
    if (open >= 0) dims[open] = (int64_t)x->count / known;
    ox_shape(y, (int)shape->count, dims);
    if (y->count != x->count) ox_die("Reshape", n->out[0]);
    memcpy(y->v, x->v, x->count * sizeof *x->v);
}

static inline void ox_transpose(const ox_node *n, const ox_tensor *x, ox_tensor *y) {
    const ox_attribute *perm = ox_attribute_of(n, "perm");
    int64_t dims[OX_RANK];
    for (int i = 0; i < x->rank; i++) dims[i] = x->dims[perm->ints[i]];
    ox_shape(y, x->rank, dims);
    for (size_t i = 0; i < y->count; i++) {
        int64_t index[OX_RANK] = {0}, at = 0;
        size_t rest = i;
        for (int k = x->rank - 1; k >= 0; k--) {
            index[perm->ints[k]] = (int64_t)(rest % (size_t)dims[k]);
            rest /= (size_t)dims[k];
        }
        for (int k = 0; k < x->rank; k++) at = at * x->dims[k] + index[k];
        y->v[i] = x->v[at];
    }
}

/* Elements behind one index of an axis. */
static inline size_t ox_inner(const ox_tensor *x, int64_t axis) {
    size_t inner = 1;
    for (int k = (int)axis + 1; k < x->rank; k++) inner *= (size_t)x->dims[k];
    return inner;
}

static inline void ox_softmax(const ox_node *n, const ox_tensor *x, ox_tensor *y) {
    const int64_t axis = ox_int(n, "axis");
    const size_t inner = ox_inner(x, axis), size = (size_t)x->dims[axis];
    ox_shape(y, x->rank, x->dims);
    for (size_t i = 0; i < x->count / size; i++) {
        const size_t at = i / inner * inner * size + i % inner;
        double sum = 0;
        for (size_t k = 0; k < size; k++) sum += exp(x->v[at + k * inner]);
        for (size_t k = 0; k < size; k++) y->v[at + k * inner] = exp(x->v[at + k * inner]) / sum;
    }
}

static inline void ox_concat(const ox_node *n, ox_tensor *const *x, ox_tensor *y) {
    const int64_t axis = ox_int(n, "axis");
    const size_t inner = ox_inner(x[0], axis);
    int64_t dims[OX_RANK];
    memcpy(dims, x[0]->dims, sizeof dims);
    for (int k = 1; k < n->n_in; k++) dims[axis] += x[k]->dims[axis];
    ox_shape(y, x[0]->rank, dims);
    size_t before = 0;
    for (int k = 0; k < n->n_in; before += (size_t)x[k++]->dims[axis] * inner) {
        const size_t run = (size_t)x[k]->dims[axis] * inner;
        for (size_t i = 0; i < x[k]->count; i++)
            y->v[i / run * (size_t)dims[axis] * inner + before + i % run] = x[k]->v[i];
    }
}

static inline void ox_gather(const ox_node *n, const ox_tensor *x, const ox_tensor *index,
                             ox_tensor *y) {
    const int64_t axis = n->n_attributes ? ox_int(n, "axis") : 0;
    const size_t inner = ox_inner(x, axis), size = (size_t)x->dims[axis];
    int64_t dims[OX_RANK];
    int rank = 0;
    for (int k = 0; k < x->rank; k++) {
        if (k != axis)
            dims[rank++] = x->dims[k];
        else if (index->rank == 1)
            dims[rank++] = index->dims[0];
    }
    ox_shape(y, rank, dims);
    for (size_t i = 0; i < y->count; i++) {
        const size_t run = index->count * inner, which = i % run / inner;
        y->v[i] = x->v[(i / run * size + (size_t)index->v[which]) * inner + i % inner];
    }
}

static inline void ox_pad(const ox_tensor *x, const ox_tensor *pads, ox_tensor *y) {
    int64_t dims[OX_RANK];
    for (int k = 0; k < x->rank; k++) {
        if (pads->v[k] != 0) ox_die("Pad", x->name);
        dims[k] = x->dims[k] + (int64_t)pads->v[x->rank + k];
    }
    ox_shape(y, x->rank, dims);
    for (size_t i = 0; i < y->count; i++) {
        const size_t w = (size_t)dims[3], h = (size_t)dims[2];
        y->v[i] = ox_pixel(x, (int64_t)(i / w / h), (int64_t)(i / w % h), (int64_t)(i % w));
    }
}

/* The part of the channels that is output `which`. */
static inline void ox_split(const ox_tensor *x, const ox_tensor *sizes, int which, ox_tensor *y) {
    const int64_t dims[4] = {x->dims[0], (int64_t)sizes->v[which], x->dims[2], x->dims[3]};
    const size_t run = (size_t)(dims[1] * dims[2] * dims[3]), plane = (size_t)(dims[2] * dims[3]);
    const size_t skip = which ? (size_t)sizes->v[0] * plane : 0;
    ox_shape(y, 4, dims);
    for (size_t i = 0; i < y->count; i++)
        y->v[i] = x->v[i / run * (size_t)x->dims[1] * plane + skip + i % run];
}

static inline void ox_lists(const ox_node *n, ox_tensor *const *x, ox_tensor *y) {
    const bool range = !strcmp(n->op, "Range");
    const int64_t dim = range ? (int64_t)x[1]->v[0] : x[0]->rank;
    ox_shape(y, 1, &dim);
    for (int64_t i = 0; i < dim; i++) y->v[i] = range ? (double)i : (double)x[0]->dims[i];
}

static inline void ox_expand(const ox_tensor *x, const ox_tensor *shape, ox_tensor *y) {
    int64_t dims[OX_RANK];
    for (int k = 0; k < (int)shape->count; k++) dims[k] = (int64_t)shape->v[k];
    ox_shape(y, (int)shape->count, dims);
    for (size_t i = 0; i < y->count; i++) y->v[i] = x->v[ox_broadcast(y, x, i)];
}

/* x[i] is NULL where an optional input is left out. */
static inline void ox_node_run(const ox_node *n, ox_tensor *const *x, int which, ox_tensor *y) {
    const char *op = n->op;
    ox_window w;
    memset(&w, 0, sizeof w);
    w.in = x[0];
    if (!strcmp(op, "Conv")) {
        ox_conv(n, x[1], x[2], &w, y);
    } else if (!strcmp(op, "DeformConv")) {
        w.offset = x[2];
        w.mask = x[4];
        ox_conv(n, x[1], x[3], &w, y);
    } else if (!strcmp(op, "MaxPool"))
        ox_max_pool(n, x[0], y);
    else if (!strcmp(op, "Resize"))
        ox_resize(n, x[0], x[2], y);
    else if (!strcmp(op, "InstanceNormalization"))
        ox_instance_norm(n, x[0], x[1], x[2], y);
    else if (!strcmp(op, "Reshape"))
        ox_reshape(n, x[0], x[1], y);
    else if (!strcmp(op, "Transpose"))
        ox_transpose(n, x[0], y);
    else if (!strcmp(op, "Softmax"))
        ox_softmax(n, x[0], y);
    else if (!strcmp(op, "Concat"))
        ox_concat(n, x, y);
    else if (!strcmp(op, "Gather"))
        ox_gather(n, x[0], x[1], y);
    else if (!strcmp(op, "Pad"))
        ox_pad(x[0], x[1], y);
    else if (!strcmp(op, "Split"))
        ox_split(x[0], x[1], which, y);
    else if (!strcmp(op, "Range") || !strcmp(op, "Shape"))
        ox_lists(n, x, y);
    else if (!strcmp(op, "Expand"))
        ox_expand(x[0], x[1], y);
    else
        ox_each(n, x[0], x[1], y);
}

/* Give an input its values. */
static inline double *ox_feed(ox_model *m, const char *name, const int64_t dims[4]) {
    ox_tensor t;
    memset(&t, 0, sizeof t);
    snprintf(t.name, sizeof t.name, "%s", name);
    ox_shape(&t, 4, dims);
    return ox_add(m, t)->v;
}

/* Every node in the order of the file: what it reads must be there. */
static inline void ox_run(ox_model *m) {
    for (int i = 0; i < m->n_nodes; i++) {
        const ox_node *n = &m->nodes[i];
        for (int which = 0; which < n->n_out; which++) {
            ox_tensor *x[OX_INPUTS] = {NULL}, y;
            memset(&y, 0, sizeof y);
            for (int k = 0; k < n->n_in; k++) {
                if (!n->in[k][0]) continue;
                x[k] = ox_find(m, n->in[k]);
                if (!x[k]) ox_die("read before it is made", n->in[k]);
                x[k]->uses++;
            }
            ox_node_run(n, x, which, &y);
            snprintf(y.name, sizeof y.name, "%s", n->out[which]);
            ox_add(m, y);
        }
    }
}

#endif
