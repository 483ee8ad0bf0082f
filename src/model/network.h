/* network.h - the one description of a network: parameters, plans, names, costs and files follow */
#pragma once

enum { GFLI_GN_GROUPS = 32, GFLI_STAGE_HEAD = 5 };

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
    size_t offset;    /* floats from the start of the model's block */
    float *data;      /* its place there, memory of the device; NULL: released after packing */
    bool direct;      /* steps read it as it is, beside packed weights, so it is never released */
    bool is_buffer;   /* running statistics: no gradient */
    bool is_variance; /* ... the variance, the last of a batch norm in a state dict */
    int stage;        /* 0 stem, 1..4 residual stages, 5 neck and head: for frozen_stages */
    bool loaded;      /* from a file; otherwise initialised */
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

/* What a step does; one operation of the backend table each. */
typedef enum gfli_op {
    GFLI_OP_CONV,         /* out = relu?(conv(in) + bias + residual), and its twin's */
    GFLI_OP_DEFORM_CONV,  /* out = relu?(deform_conv(in, offset) + bias) */
    GFLI_OP_MAX_POOL,     /* out = max pool of in */
    GFLI_OP_UPSAMPLE_ADD, /* out += upsample(in): out is also read */
    GFLI_OP_GROUP_NORM,   /* out = relu(group_norm(in)) */
    GFLI_OP_LEVEL_SCALE   /* out = scale[level] * in */
} gfli_op;

/* A convolution computed beside a step's, of the same geometry: one of the head's towers. */
typedef struct gfli_twin {
    int in, out, layer, stats; /* as the step's own; layer -1: there is none */
} gfli_twin;

/* A step of a network, between its maps; in a plan of it, between the plan's slots. */
typedef struct gfli_step {
    gfli_op op;
    int in, out, residual; /* residual -1: none */
    int offset;            /* of GFLI_OP_DEFORM_CONV; otherwise -1 */
    int layer;             /* GFLI_OP_CONV and GFLI_OP_DEFORM_CONV */
    bool relu;
    int gamma, beta; /* GFLI_OP_GROUP_NORM: parameters */
    int scale;       /* GFLI_OP_LEVEL_SCALE: first of GFL_LEVELS consecutive parameters */
    int stage;       /* as gfli_param.stage */
    int pair;        /* the step of the head's other side that may run beside this one, or -1 */
    /* What a plan says of it. */
    gfli_twin twin; /* of GFLI_OP_CONV, where the backend fuses */
    int stats;      /* of out, for group norm: floats from the start of the plan's stats; or -1 */
    bool given;     /* GFLI_OP_GROUP_NORM: a convolution has left them there */
    int64_t macs;
    gfli_conv_means means; /* of convolutions */
} gfli_step;

/* A map before it has a size. */
typedef struct gfli_net_map {
    int c, stride;     /* stride: pixels of the input along a side of one of its cells */
    int parent, level; /* the pyramid whose level this is; -1: none */
    int over;          /* the map whose place this one takes unless the plan is for training; -1 */
    bool taken;        /* its place, by another: no later step reads this one */
    const char *name;  /* "C3", "P5", "cls_score" and so on, or NULL */
} gfli_net_map;

typedef struct gfli_network {
    gfli_net_map *maps;
    gfli_step *steps;
    int n_maps, n_steps;
    int input, cls, reg; /* maps: network input, class logits, scaled box logits (pyramids) */
    int scale;           /* the first of the GFL_LEVELS parameters bbox_head.scales.l.scale */
    int classifier;      /* the layer whose output channels are the classes */
} gfli_network;

/* ---- describing ------------------------------------------------------------------------------ */

/* Appends to a model's tables: parameters and layers in the order of files (gfli_add_), then the
 * steps that use them in the order of time (gfli_run_).  The first failure sticks. */
typedef struct gfli_describer {
    gfl_model *model;
    size_t param_capacity, layer_capacity, map_capacity, step_capacity;
    gfl_status status;
    int stage;
    char prefix[64];
} gfli_describer;

/* What is added from here on belongs to this stage; stages ascend. */
void gfli_describe_stage(gfli_describer *d, int stage);
/* What the names of parameters begin with from here on. */
void gfli_describe_names(gfli_describer *d, const char *format, ...) GFLI_PRINTF(2, 3);

/* Convolutions, each with its weights; they return the layer.  Padding keeps the size. */
int gfli_add_conv(gfli_describer *d, const char *conv, gfli_init init, int in_c, int out_c,
                  int kernel, int stride, int groups);
/* ... of a backbone, with its batch norm; zero_gamma: the last of a residual branch. */
int gfli_add_conv_bn(gfli_describer *d, const char *conv, const char *bn, bool zero_gamma, int in_c,
                     int out_c, int kernel, int stride, int groups);
/* ... deformable, 3x3, with the ordinary one that gives its offsets, of 2 or 3 numbers a tap. */
int gfli_add_deform_bn(gfli_describer *d, const char *conv, const char *bn, int values, int width,
                       int stride, int groups);
int gfli_add_conv_bias(gfli_describer *d, const char *conv, gfli_init init, gfli_init bias_init,
                       int in_c, int out_c, int kernel, int stride);
int gfli_add_conv_gn(gfli_describer *d, const char *conv, const char *gn, int in_c, int out_c);
/* A factor that steps read as it is. */
int gfli_add_scale(gfli_describer *d, const char *name);

/* The channels of a map. */
int gfli_map_channels(const gfli_describer *d, int map);
void gfli_name_map(gfli_describer *d, int map, const char *name);
/* A pyramid of c channels, and its level l, which is then the output of a convolution. */
int gfli_add_pyramid(gfli_describer *d, int c, const char *name);
int gfli_add_level(gfli_describer *d, int pyramid, int level, const char *name);

/* Steps; they return their output map.  The residual, and the input of a norm or a scale, is not
 * read by any later step: but for training the output takes its place. */
int gfli_run_conv(gfli_describer *d, int layer, int in, bool relu);
int gfli_run_residual_conv(gfli_describer *d, int layer, int in, int residual);
void gfli_run_level_conv(gfli_describer *d, int layer, int in, int level);
int gfli_run_max_pool(gfli_describer *d, int in);
void gfli_run_upsample_add(gfli_describer *d, int in, int out);
int gfli_run_group_norm(gfli_describer *d, int layer, int in);
int gfli_run_level_scale(gfli_describer *d, int in, int scale);

/* ---- parts ----------------------------------------------------------------------------------- */

/* Each describes itself from model->arch.  A backbone (backbone.h) ends with the maps of strides 4,
 * 8, 16 and 32, in stages 1 to 4; the neck makes the pyramid of the last three. */
int gfli_describe_neck(gfli_describer *d, const int features[4]);
void gfli_describe_head(gfli_describer *d, int pyramid);
