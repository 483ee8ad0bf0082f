/* model.h - gfl_model: architecture and weights */
#pragma once

typedef struct gfl_model gfl_model;

typedef enum gfl_dialect {
    GFL_DIALECT_MMDET = 0 /* mmdetection 2.18 and later */
} gfl_dialect;

/* What the network is.  Zero means the default of each field. */
typedef struct gfl_arch {
    int depth;         /* 18, 34, 50 or 101; 0 means 50 */
    int groups;        /* of the 3x3 convolutions of bottlenecks; 0 means 1; 32 in ResNeXt */
    int base_width;    /* channels a group in the first stage, groups > 1 only; 0 means 4 */
    int base_channels; /* of the stem; 0 means 64 */
    int fpn_channels;  /* 0 means 256 */
    int head_channels; /* a multiple of 32 (GroupNorm has 32 groups); 0 means 256 */
    int stacked_convs; /* convolutions in each head tower; 0 means 4 */
    int n_classes;     /* 1..GFL_MAX_CLASSES; 0 means 80 */
    int reg_max;       /* last bin of a side's distribution, 1..GFL_MAX_BINS-1; 0 means 16 */
    gfl_dialect dialect;
} gfl_arch;

/* How pixels become network input, and back. */
typedef struct gfl_preprocess {
    float mean[3], std[3]; /* per channel, in the network's channel order, on 0..255 */
    int bgr;               /* 1: the network's first channel is blue */
    int scale_long;        /* the resized image's long side is at most this ... */
    int scale_short;       /* ... and its short side at most this, aspect ratio kept */
} gfl_preprocess;

typedef struct gfl_class {
    const char *name; /* UTF-8 */
    int64_t id;       /* category id of the data set; label k is the k-th ascending id */
} gfl_class;

typedef struct gfl_model_desc {
    gfl_arch arch;
    gfl_preprocess preprocess; /* all zero: RGB, ImageNet mean and std, 1333x800 */
    const gfl_class *classes;  /* [arch.n_classes], copied; NULL: "class 0", ids 1.. */
    uint64_t seed;             /* of the initial weights */
} gfl_model_desc;

typedef struct gfl_model_opts {
    int trainable; /* 1: keep the parameters beside the packed weights, as a trainer needs */
    /* Used where a file does not say (mmdetection names without our metadata); zero: refuse. */
    int assume_dialect_mmdet;
} gfl_model_opts;

typedef enum gfl_fate {
    GFL_FATE_LOADED = 0,
    GFL_FATE_INITIALISED = 1, /* the file has no such tensor, or one of another shape */
    GFL_FATE_LEFT_OVER = 2    /* the model has no such tensor */
} gfl_fate;

/* What became of one tensor of a weight file or of the model. */
typedef struct gfl_tensor_report {
    const char *name;
    gfl_fate fate;
    int rank;
    int64_t shape[4];
    const char *why; /* "" when loaded */
} gfl_tensor_report;

typedef struct gfl_model_info {
    gfl_arch arch; /* every field resolved */
    gfl_preprocess preprocess;
    int64_t n_parameters;     /* without batch norm's running statistics, as papers count */
    int64_t n_trainable;      /* with stem and first stage frozen */
    const gfl_class *classes; /* [arch.n_classes], owned by the model */
} gfl_model_info;

/* What a forward pass of one input size costs. */
typedef struct gfl_model_cost {
    int64_t macs;             /* multiply-adds */
    size_t weight_bytes;      /* packed */
    size_t workspace_bytes;   /* activations and scratch of one detector */
    int n_steps, points;      /* steps of the plan, locations of all levels */
} gfl_model_cost;

/* gfl_arch_preset - the architecture of a name: r18, r34, r50, r101.
 * Errors    GFL_E_ARG     no such name */
GFL_API gfl_status gfl_arch_preset(const char *name, gfl_arch *out);

/* gfl_model_create - a model with fresh weights (spec 1.4, 2, 3 of the paper's configuration). */
GFL_API gfl_status gfl_model_create(gfl_context *context, const gfl_model_desc *desc,
                                    const gfl_model_opts *opts, gfl_model **out);

/* gfl_model_load - a model from a safetensors file of gfl's own or with mmdetection 3 names. */
GFL_API gfl_status gfl_model_load(gfl_context *context, const char *path,
                                  const gfl_model_opts *opts, gfl_model **out);
GFL_API gfl_status gfl_model_load_memory(gfl_context *context, const void *bytes, size_t size,
                                         const gfl_model_opts *opts, gfl_model **out);

/* gfl_model_load_backbone - fill the backbone of a trainable model from an ImageNet file
 * (torchvision's names).  Ask gfl_model_report what was loaded. */
GFL_API gfl_status gfl_model_load_backbone(gfl_model *model, const char *path);

/* gfl_model_save - write the weights; needs a trainable model. */
GFL_API gfl_status gfl_model_save(const gfl_model *model, const char *path);

GFL_API void gfl_model_destroy(gfl_model *model);

GFL_API void gfl_model_get_info(const gfl_model *model, gfl_model_info *out);
GFL_API gfl_status gfl_model_get_cost(gfl_model *model, int width, int height, int batch,
                                      gfl_model_cost *out);

/* gfl_model_report - tensor i of the last load; returns 0 when there is no i-th. */
GFL_API int gfl_model_report(const gfl_model *model, int i, gfl_tensor_report *out);
