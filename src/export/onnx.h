/* onnx.h - an ONNX graph being written */
#pragma once

/* Tensor types of ONNX. */
enum { GFLI_ONNX_F32 = 1, GFLI_ONNX_U8 = 2, GFLI_ONNX_I64 = 7 };

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
    gfli_bytes nodes, ends; /* NodeProtos; the graph's inputs and outputs */
    gfli_onnx_const *consts;
    int n_consts;
    size_t const_capacity;
    gfli_onnx_name *values; /* [n_slots * GFL_LEVELS] which value a level of a slot holds now */
    gfl_status status;
} gfli_onnx;
