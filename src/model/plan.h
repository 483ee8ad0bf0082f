/* plan.h - a network compiled for an input size: a flat list of steps over maps */
#pragma once

enum { GFLI_GN_GROUPS = 32, GFLI_STAGE_HEAD = 5 };

/* What a step does; one operation of the backend table each. */
typedef enum gfli_op {
    GFLI_OP_CONV,         /* out = relu?(conv(in) + bias + residual), and its twin's */
    GFLI_OP_DEFORM_CONV,  /* out = relu?(deform_conv(in, offset) + bias) */
    GFLI_OP_MAX_POOL,     /* out = max pool of in */
    GFLI_OP_UPSAMPLE_ADD, /* out += upsample(in): out is also read */
    GFLI_OP_GROUP_NORM,   /* out = relu(group_norm(in)) */
    GFLI_OP_LEVEL_SCALE   /* out = scale[level] * in */
} gfli_op;

/* How a parameter starts without a file (spec 1.4, 2, 3). */
typedef enum gfli_init {
    GFLI_INIT_ZERO,
    GFLI_INIT_ONE,
    GFLI_INIT_KAIMING, /* normal, fan out, gain of ReLU */
    GFLI_INIT_XAVIER,  /* uniform */
    GFLI_INIT_DEFORM,  /* uniform, +-1 / sqrt(in_channels * 9) whatever the groups */
    GFLI_INIT_NORMAL,  /* standard deviation 0.01 */
    GFLI_INIT_PRIOR    /* the class logit of probability 0.01 */
} gfli_init;

/* A parameter of the model as files know it.  Conv weights are kept OHWI, files have OIHW. */
typedef struct gfli_param {
    char *name; /* mmdetection's, e.g. backbone.layer1.0.conv1.weight */
    int rank;
    int64_t shape[4]; /* OIHW for convolutions */
    size_t count;
    size_t offset;  /* floats from the start of the model's block */
    float *data;    /* its place there, memory of the device; NULL: released after packing */
    bool direct;    /* steps read it as it is, beside packed weights, so it is never released */
    bool is_buffer; /* running statistics: no gradient */
    int stage;      /* 0 stem, 1..4 residual stages, 5 neck and head: for frozen_stages */
    bool loaded;    /* from a file; otherwise initialised */
    gfli_init init;
} gfli_param;

/* One convolution with what is folded into it; indices into the model's parameters, -1: none. */
typedef struct gfli_layer {
    gfli_conv_shape shape;
    int offset; /* the layer that gives the offsets of this deformable convolution, -1: none */
    int weight, bias; /* bias: only convolutions without batch norm */
    int bn_gamma, bn_beta, bn_mean, bn_var;
    int gn_gamma, gn_beta; /* of the group norm that follows; a step of its own */
    /* Memory of the device. */
    void *packing;       /* of the folded weights */
    float *folded_bias;  /* [out_c] beta - a * mean; NULL without batch norm */
    float *folded_scale; /* [out_c] a = gamma / sqrt(var + eps); NULL without bn or training */
    int stage;
} gfli_layer;

/* A map of the plan.  Views (levels of a pyramid) share the memory of their parent. */
typedef struct gfli_slot {
    gfli_map map;    /* data is NULL until the plan is bound to memory */
    int parent;      /* slot whose level this is, or -1 */
    int level;       /* of the parent */
    size_t offset;   /* floats from the start of the workspace (parents only) */
    size_t size;     /* floats of that; 0 of a view */
    int placed;      /* while maps are placed: the slot that was placed as the i-th, this being i */
    int first, last; /* steps during which the contents matter */
    const char *name; /* "C3", "P5", "cls_score" and so on, or NULL */
} gfli_slot;

/* A convolution computed beside a step's, of the same geometry: one of the head's towers. */
typedef struct gfli_twin {
    int in, out, layer, stats; /* as the step's own; layer -1: there is none */
} gfli_twin;

typedef struct gfli_step {
    gfli_op op;
    int in, out, residual; /* slots; residual -1: none */
    int offset;            /* slot of GFLI_OP_DEFORM_CONV; otherwise -1 */
    int layer;             /* GFLI_OP_CONV and GFLI_OP_DEFORM_CONV */
    gfli_twin twin;        /* of GFLI_OP_CONV, where the backend fuses */
    bool relu;
    int gamma, beta; /* GFLI_OP_GROUP_NORM: parameters */
    int scale;       /* GFLI_OP_LEVEL_SCALE: first of GFL_LEVELS consecutive parameters */
    int stats;       /* of out, for group norm: floats from the start of the plan's stats; or -1 */
    bool given;      /* GFLI_OP_GROUP_NORM: a convolution has left them there */
    int stage;       /* as gfli_param.stage */
    int64_t macs;
    gfli_conv_means means; /* of convolutions */
} gfli_step;

typedef struct gfli_plan {
    int batch, height, width; /* padded input */
    bool training;            /* keeps every map; inference reuses memory by liveness */
    gfli_slot *maps;
    int n_slots;
    gfli_step *steps;
    int n_steps;
    size_t slot_capacity, step_capacity;
    int input, cls, reg;     /* slots: network input, class logits, scaled box logits (pyramids) */
    size_t workspace_floats; /* all slots */
    size_t stats_floats;
    size_t scratch_bytes;
    int64_t macs;
} gfli_plan;
