/* onnx.h - an ONNX graph being written */
#pragma once

/* Tensor types of ONNX. */
enum { GFLI_ONNX_F32 = 1, GFLI_ONNX_U8 = 2, GFLI_ONNX_I64 = 7 };

/* Fields of ONNX's messages (onnx.proto). */
enum {
    GFLI_ONNX_NODE_INPUT = 1,
    GFLI_ONNX_NODE_OUTPUT = 2,
    GFLI_ONNX_NODE_NAME = 3,
    GFLI_ONNX_NODE_OP = 4,
    GFLI_ONNX_NODE_ATTRIBUTE = 5,
    GFLI_ONNX_ATTRIBUTE_NAME = 1,
    GFLI_ONNX_ATTRIBUTE_F = 2,
    GFLI_ONNX_ATTRIBUTE_I = 3,
    GFLI_ONNX_ATTRIBUTE_S = 4,
    GFLI_ONNX_ATTRIBUTE_INTS = 8,
    GFLI_ONNX_ATTRIBUTE_TYPE = 20,
    GFLI_ONNX_TENSOR_DIMS = 1,
    GFLI_ONNX_TENSOR_TYPE = 2,
    GFLI_ONNX_TENSOR_NAME = 8,
    GFLI_ONNX_TENSOR_RAW = 9,
    GFLI_ONNX_GRAPH_NODE = 1,
    GFLI_ONNX_GRAPH_NAME = 2,
    GFLI_ONNX_GRAPH_CONST = 5,
    GFLI_ONNX_GRAPH_INPUT = 11,
    GFLI_ONNX_GRAPH_OUTPUT = 12
};

typedef struct gfli_onnx_name {
    char text[96];
} gfli_onnx_name;

/* A constant of the graph: owned bytes, or the weights of a layer with its batch norm folded in,
 * which are made when they are written. */
typedef struct gfli_onnx_const {
    gfli_onnx_name name;
    int type, rank;
    int64_t shape[4];
    uint64_t bytes;
    void *data; /* NULL: of the layer */
    int layer;
} gfli_onnx_const;

/* The first failure sticks. */
typedef struct gfli_onnx {
    gfl_context *context;
    const gfl_model *model;
    gfl_export_opts opts;
    gfli_plan plan;
    gfli_buffer nodes, ends; /* NodeProtos; the graph's inputs and outputs */
    gfli_onnx_const *consts;
    int n_consts;
    size_t const_capacity;
    gfli_onnx_name *values; /* [n_slots * GFL_LEVELS] which value a level of a slot holds now */
    gfl_status status;
} gfli_onnx;

/* ---- nodes, constants and names (onnx_graph.c) ----------------------------------------------- */

/* A node: open, more inputs and attributes, close.  Inputs that are NULL are not there.  The node
 * is named after its output. */
size_t gfli_onnx_open(gfli_onnx *g, const char *op, const char *out, const char *a, const char *b,
                      const char *c);
void gfli_onnx_close(gfli_onnx *g, size_t start);
/* A node without attributes. */
void gfli_onnx_node(gfli_onnx *g, const char *op, const char *out, const char *a, const char *b,
                    const char *c);
void gfli_onnx_int(gfli_onnx *g, const char *name, int64_t value);
void gfli_onnx_float(gfli_onnx *g, const char *name, float value);
void gfli_onnx_text(gfli_onnx *g, const char *name, const char *value);
void gfli_onnx_ints(gfli_onnx *g, const char *name, const int64_t *values, int n);
void gfli_onnx_transpose(gfli_onnx *g, const char *out, const char *in, const int64_t *order,
                         int n);
void gfli_onnx_cast(gfli_onnx *g, const char *out, const char *in);
gfli_onnx_const *gfli_onnx_new_const(gfli_onnx *g, const char *name, int type, int rank,
                                     const int64_t *shape);
/* Numbers of each tap of the deformable convolutions: 2, with masks 3; 0 where there are none. */
int gfli_onnx_tap_values(const gfli_onnx *g);
/* Room for the values of a new constant, or NULL. */
void *gfli_onnx_room(gfli_onnx *g, const char *name, int type, int rank, const int64_t *shape);
void gfli_onnx_floats(gfli_onnx *g, const char *name, int rank, const int64_t *shape,
                      const float *values);
/* Values that lie on the device. */
void gfli_onnx_placed(gfli_onnx *g, const char *name, int rank, const int64_t *shape,
                      const float *values);
/* One value: of rank 0, so that it also serves as an index that drops its axis. */
void gfli_onnx_number(gfli_onnx *g, const char *name, float value);
void gfli_onnx_integers(gfli_onnx *g, const char *name, int rank, int n, const int64_t *values);
/* A parameter of one value per channel, shaped to act on [N, C, H, W]. */
void gfli_onnx_channels(gfli_onnx *g, const gfli_param *p);
/* An input or output of the graph.  A size below 1 is free, and named by `names`. */
void gfli_onnx_end(gfli_onnx *g, int field, const char *name, int type, int rank,
                   const int64_t *sizes, const char *const *names);
gfli_onnx_name gfli_onnx_join(const char *a, const char *b);
/* "bbox_pred.2": of a level. */
gfli_onnx_name gfli_onnx_at(const char *name, int level);
/* "backbone.bn1" of "backbone.bn1.weight", with the level behind it where there are several. */
gfli_onnx_name gfli_onnx_module(const gfli_onnx *g, int param, int level, int levels);
/* The value that a level of a slot holds at this step. */
gfli_onnx_name *gfli_onnx_value(gfli_onnx *g, int slot, int level);

/* ---- the network (onnx_steps.c) -------------------------------------------------------------- */

void gfli_onnx_conv_attributes(gfli_onnx *g, const gfli_conv_shape *s);
void gfli_onnx_step(gfli_onnx *g, const gfli_step *step);
/* Constants that several steps use. */
void gfli_onnx_common(gfli_onnx *g);

/* ---- what stands before and behind it (onnx_ends.c) ------------------------------------------ */

void gfli_onnx_begin(gfli_onnx *g);
void gfli_onnx_finish(gfli_onnx *g);
