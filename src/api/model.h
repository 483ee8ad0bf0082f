/* model.h - gfl_model: architecture and weights */
#pragma once

/* An architecture with its weights. */
typedef struct gfl_model gfl_model;

/* The two published families of GFL differ in geometry and constants.  Weights that were trained in
 * one dialect give wrong boxes in the other. */
typedef enum gfl_dialect {
    GFL_DIALECT_DEFAULT = 0, /* for a new model: mmdet; for a file: what it says */
    GFL_DIALECT_MMDET = 1,   /* mmdetection 2.18 and later */
    GFL_DIALECT_GFOCAL = 2   /* the authors' repository, implus/GFocal, 2020 */
} gfl_dialect;

/* Where bottlenecks have their stride, which no tensor shows. */
typedef enum gfl_style {
    GFL_STYLE_DEFAULT = 0, /* for a new model: pytorch; for a file: what it says, else pytorch */
    GFL_STYLE_PYTORCH = 1, /* in the 3x3: torchvision, OpenMMLab, every published GFL model */
    GFL_STYLE_CAFFE = 2    /* in the first 1x1: MSRA */
} gfl_style;

/* Stages of the backbone, as bits. */
enum { GFL_C2 = 1, GFL_C3 = 2, GFL_C4 = 4, GFL_C5 = 8 };

/* What the network is.  Zero means the default of each field. */
typedef struct gfl_arch {
    int depth;           /* 18, 34, 50 or 101; 0 means 50 */
    int groups;          /* of the 3x3 convolutions of bottlenecks; 0 means 1; 32 in ResNeXt */
    int base_width;      /* channels per group in the first stage; 0 means 4, or 0 without groups */
    int base_channels;   /* of the stem; 0 means 64 */
    int fpn_channels;    /* 0 means 256 */
    int head_channels;   /* a multiple of 32 (GroupNorm has 32 groups); 0 means 256 */
    int stacked_convs;   /* convolutions in each head tower; 0 means 4 */
    int n_classes;       /* 1..GFL_MAX_CLASSES; 0 means 80 */
    int reg_max;         /* last bin of a side's distribution, 1..GFL_MAX_BINS-1; 0 means 16 */
    gfl_dialect dialect; /* what is computed from these tensors */
    /* Which 3x3 convolutions of bottlenecks are deformable.  0: none; 1: those of deform_stages,
     * with offsets alone (v1); 2: the same, with offsets and a mask (v2). */
    int deform;
    int deform_stages; /* of GFL_C2 | GFL_C3 | GFL_C4 | GFL_C5; 0 means C3 to C5 if deform is set */
    gfl_style style;   /* where its bottlenecks have their stride */
} gfl_arch;

/* How pixels become network input, and back. */
typedef struct gfl_preprocess {
    float mean[3], std[3]; /* per channel, in the network's order of channels, of values 0..255 */
    int bgr;               /* 1: the network's first channel is blue */
    int scale_long;        /* the long side of the resized image is at most this ... */
    int scale_short;       /* ... and its short side at most this; the aspect ratio is kept */
} gfl_preprocess;

/* A kind of object. */
typedef struct gfl_class {
    const char *name; /* UTF-8 */
    int64_t id;       /* category id of the data set; label k is the k-th ascending id */
} gfl_class;

/* A new model.  Zero means the default of each field. */
typedef struct gfl_model_desc {
    gfl_arch arch;             /* what the network is */
    gfl_preprocess preprocess; /* all zero: RGB, ImageNet's mean and std, 1333x800 */
    const gfl_class *classes;  /* [arch.n_classes], copied; NULL: "class 0" and so on, ids from 1 */
    uint64_t seed;             /* of the initial weights */
    int trainable; /* 1: keep the parameters beside the packed weights, to train or save them */
} gfl_model_desc;

/* How a weight file is loaded.  Zero means the default of each field. */
typedef struct gfl_load_desc {
    int trainable; /* 1: keep the parameters beside the packed weights, to train or save them */
    /* The dialect that the weights must be of.  A file that says another one is refused.  A file
     * that says none, because it has neither metadata nor a buffer whose name tells it, is taken to
     * be of this one.  GFL_DIALECT_DEFAULT: what the file says; one that says none is refused. */
    gfl_dialect dialect;
} gfl_load_desc;

/* What became of a tensor. */
typedef enum gfl_fate {
    GFL_FATE_LOADED = 0,      /* from the file into the model */
    GFL_FATE_INITIALISED = 1, /* the file has no such tensor, or one of another shape */
    GFL_FATE_LEFT_OVER = 2    /* the model has no such tensor */
} gfl_fate;

/* What became of one tensor of a weight file or of the model. */
typedef struct gfl_tensor_report {
    const char *name; /* as the model has it, or for one that is left over as the file has it */
    gfl_fate fate;    /* what became of it */
    int rank;         /* how many sizes its shape has */
    int64_t shape[4]; /* [rank] as files have it, outputs first */
    const char *why;  /* why it was not loaded; "" when it was */
} gfl_tensor_report;

/* Who said what cannot be seen in the tensors. */
typedef enum gfl_origin {
    GFL_ORIGIN_GIVEN = 0,  /* the caller */
    GFL_ORIGIN_FILE = 1,   /* the weight file */
    GFL_ORIGIN_DEFAULT = 2 /* neither; the usual value was assumed */
} gfl_origin;

/* The same for all that a model needs beside its tensors. */
typedef struct gfl_origins {
    gfl_origin dialect, style; /* gfl_arch's */
    gfl_origin preprocess;     /* mean, std and the order of channels */
    gfl_origin scale;          /* scale_long and scale_short */
    gfl_origin classes;        /* their names and ids */
} gfl_origins;

/* What a model is. */
typedef struct gfl_model_info {
    gfl_arch arch;             /* every field resolved */
    gfl_preprocess preprocess; /* likewise */
    int64_t n_parameters;      /* without batch norm's running statistics, as papers count */
    int64_t n_trainable;       /* of them when the stem and the first stage are frozen */
    const gfl_class *classes;  /* [arch.n_classes], owned by the model */
    gfl_origins origins;       /* of a loaded or imported model; all zero for a new one */
} gfl_model_info;

/* What a forward pass of one input size costs. */
typedef struct gfl_model_cost {
    int64_t macs;           /* multiply-adds */
    size_t weight_bytes;    /* packed */
    size_t workspace_bytes; /* of a detector without distributions, for images of this size */
    int n_steps, points;    /* steps of the plan; locations of all levels */
    int64_t n_parameters;   /* as in gfl_model_info */
} gfl_model_cost;

/* gfl_arch_find_preset - the architecture of a name.
 *
 *   context  receives the error text; may be NULL
 *   name     "r18", "r34", "r50", "r101", "r101-dcnv1", "r101-dcnv2", "x101-32x4d", "x101-32x8d",
 *            "x101-32x4d-dcnv1" (C4 and C5, as mmdetection), "x101-32x4d-dcnv2" or
 *            "x101-32x8d-dcnv2" (C3 to C5, as the original)
 *   out      set to the architecture, every field filled, with 80 classes
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such name
 * Threads   Any. */
GFL_API gfl_status gfl_arch_find_preset(gfl_context *context, const char *name, gfl_arch *out);

/* A preset, and what was published about it. */
typedef struct gfl_preset {
    const char *name; /* as gfl_arch_find_preset takes it */
    gfl_arch arch;    /* with 80 classes */
    double ap; /* on COCO val2017, by whoever published it, not by this library; 0: by nobody */
    const char *published; /* by whom, and with which schedule; "": by nobody */
} gfl_preset;

/* gfl_arch_count_presets, gfl_arch_get_preset - how many presets there are, and preset i with every
 * field of its architecture filled.
 *
 *   out  set to the preset, whose texts last for ever; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such preset; there is no error text
 * Threads   Any.
 * Source    Li et al. 2020 and the tables of implus/GFocal, mmdetection and LD (Zheng et al. 2022).
 * Example
 *     gfl_preset p;
 *     for (int i = 0; gfl_arch_get_preset(i, &p) == GFL_OK; i++) puts(p.name); */
GFL_API int gfl_arch_count_presets(void);
GFL_API gfl_status gfl_arch_get_preset(int i, gfl_preset *out);

/* gfl_model_create - a model with fresh weights.
 *
 * The convolutions of the backbone are Kaiming normal, and the last batch norm of every block
 * starts at 0.  The neck is Xavier uniform.  The head is normal with a standard deviation of 0.01,
 * and class scores start at 0.01.  The same seed gives the same weights on every machine.
 *
 *   desc  NULL or zeroed for the defaults (R50, 80 classes, RGB, 1333x800), and for a model that
 *         only detects; borrowed
 *   out   set to the model, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, a field is out of range, or class ids do not ascend
 *           GFL_E_MEMORY  the weights do not fit into memory
 * Memory    Destroy the model with gfl_model_destroy, before the context.
 * Threads   As the context.  Once it is made, only a trainer, gfl_model_load_backbone and
 *           gfl_model_set_parameter change a model.  As long as they do not, any number of
 *           detectors in any number of threads may run it at once. */
GFL_API gfl_status gfl_model_create(gfl_context *context, const gfl_model_desc *desc,
                                    gfl_model **out);

/* gfl_model_load - a model from a safetensors file with mmdetection's names.
 *
 * The architecture follows from the shapes of the tensors.  Classes, preprocessing, dialect and
 * style follow from the file's metadata, which gfl_model_save writes.  Where there is none, classes
 * are "class 0" and so on, and the input is RGB with ImageNet's mean and std, at 1333x800.
 * gfl_model_get_report tells what became of each tensor.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   desc  NULL or zeroed for a model that only detects; borrowed
 *   out   set to the model, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_IO      the file cannot be read
 *           GFL_E_FORMAT  the file is not safetensors or is truncated, weights are not finite, or
 *                         the metadata is broken
 *           GFL_E_MISMATCH  a tensor is missing, has the wrong shape, or has no place in the
 *                           network; metadata contradicts the tensors; or nothing says which
 *                           dialect the weights are of
 *           GFL_E_UNSUPPORTED  this version cannot run such a network or dialect
 *           GFL_E_MEMORY  the weights do not fit into memory
 * Memory    Tensors are read one by one.  Without desc->trainable each is freed once it is packed.
 * Threads   As gfl_model_create. */
GFL_API gfl_status gfl_model_load(gfl_context *context, const char *path, const gfl_load_desc *desc,
                                  gfl_model **out);

/* gfl_model_load_memory - gfl_model_load from the bytes of such a file.
 *
 *   bytes  [size], borrowed until the call returns
 *
 * Errors, Memory, Threads   As gfl_model_load. */
GFL_API gfl_status gfl_model_load_memory(gfl_context *context, const void *bytes, size_t size,
                                         const gfl_load_desc *desc, gfl_model **out);

/* gfl_model_save - write weights and metadata as safetensors.
 *
 * gfl_model_load reads the file back bit for bit, and Python opens it as it is.  A file of that
 * name is replaced whole or not at all.
 *
 *   model  made with desc.trainable; other models have freed their parameters
 *   path   the system's bytes, on Windows UTF-8; borrowed until the call returns
 *
 * Errors    GFL_E_ARG     an argument is NULL, or the model is not trainable
 *           GFL_E_IO      the file cannot be written
 *           GFL_E_MEMORY  there is no room for one tensor */
GFL_API gfl_status gfl_model_save(const gfl_model *model, const char *path);

/* gfl_model_save_memory - the bytes of the file that gfl_model_save would write, for
 * gfl_model_load_memory.
 *
 *   model  made with desc.trainable; other models have freed their parameters
 *   out    set to the bytes; free them with gfl_bytes_free and the model's context; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or the model is not trainable
 *           GFL_E_MEMORY  there is no room for the bytes and one tensor
 * Threads   As the model's context. */
GFL_API gfl_status gfl_model_save_memory(const gfl_model *model, gfl_bytes *out);

/* gfl_model_destroy - give the model's memory back; NULL is allowed.  Destroy its detectors and
 * trainers first. */
GFL_API void gfl_model_destroy(gfl_model *model);

/* gfl_model_get_info - architecture, preprocessing, classes and sizes; zeros for a NULL model.
 *
 * Memory    The classes belong to the model.
 * Threads   Any. */
GFL_API void gfl_model_get_info(const gfl_model *model, gfl_model_info *out);

/* gfl_model_get_class - the class of a label: its name, and its id in the data set.
 *
 * It is never NULL: where there is no model or no such label, the name is "" and the id is 0.
 *
 * Memory    The class belongs to the model.
 * Threads   Any.
 * Example
 *     puts(gfl_model_get_class(model, found.items[0].label)->name); */
GFL_API const gfl_class *gfl_model_get_class(const gfl_model *model, int label);

/* gfl_model_get_cost - what a batch costs a detector, without running it.
 *
 *   width, height  size of the resized images; padded to multiples of 32 as a detector does
 *   batch          number of images in the batch
 *   out            set to the cost
 *
 * Errors    GFL_E_ARG     an argument is NULL, or a size is out of range
 *           GFL_E_MEMORY  the workspace would be so large that its size does not fit a number
 * Threads   As the model's context. */
GFL_API gfl_status gfl_model_get_cost(gfl_model *model, int width, int height, int batch,
                                      gfl_model_cost *out);

/* gfl_arch_get_cost - the same for a network that has not been made, so without its weights.
 *
 *   arch                  a field that is 0 has its default; borrowed until the call returns
 *   width, height, batch  as for gfl_model_get_cost
 *
 * Errors    As gfl_model_get_cost.  It is GFL_E_ARG, too, when there can be no such architecture.
 * Threads   As the context. */
GFL_API gfl_status gfl_arch_get_cost(gfl_context *context, const gfl_arch *arch, int width,
                                     int height, int batch, gfl_model_cost *out);

/* One step of a forward pass. */
typedef struct gfl_plan_step {
    const char *op;                          /* "conv", "deform_conv", "max_pool" ... */
    const char *weights;                     /* the parameter it multiplies by, or "" */
    const char *twin;                        /* that of a second convolution at once, or "" */
    const char *kernel;                      /* what computes a convolution, or "" */
    int splits;                              /* how many partial sums are added at the end */
    int in_channels, in_height, in_width;    /* of the first level, where a map is a pyramid */
    int out_channels, out_height, out_width; /* likewise; the channels include those of the twin */
    int levels;                              /* of what it writes */
    int64_t macs;                            /* multiply-adds */
    size_t out_bytes;                        /* of what it writes */
    size_t live_bytes;                       /* of all maps that matter during the step */
} gfl_plan_step;

/* One parameter: weights, or running statistics of a batch norm. */
typedef struct gfl_parameter {
    const char *name; /* mmdetection's; it belongs to the model */
    int rank;         /* how many sizes its shape has */
    int64_t shape[4]; /* [rank]; of a convolution: out, in / groups, height, width */
    size_t count;     /* how many numbers it has */
    int is_statistic; /* 1: a running statistic of a batch norm, which training does not change */
} gfl_parameter;

/* gfl_model_count_parameters, gfl_model_describe_parameter - how many parameters a model has, and
 * what parameter i is.
 *
 *   out  set by the call; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such parameter; there is no error
 *                         text
 * Threads   Any. */
GFL_API int gfl_model_count_parameters(const gfl_model *model);
GFL_API gfl_status gfl_model_describe_parameter(const gfl_model *model, int i, gfl_parameter *out);

/* gfl_model_get_parameter - the values of a parameter, as a file of the model has them.
 *
 *   model  made with desc.trainable; other models have freed their parameters
 *   name   one of those that gfl_model_describe_parameter gives
 *   out    [n] set to the values; n must be the parameter's count
 *
 * Errors    GFL_E_ARG     an argument is NULL, the model is not trainable, it has no parameter of
 *                         that name, or n is not its count
 *           GFL_E_MEMORY  there is no room for the tensor a second time
 *           GFL_E_DEVICE  the GPU failed
 * Threads   As the model's context. */
GFL_API gfl_status gfl_model_get_parameter(const gfl_model *model, const char *name, float *out,
                                           size_t n);

/* gfl_model_set_parameter - replace the values of a parameter.
 *
 * A trainer uses the new values from its next step on.  Detectors and the export to ONNX refuse the
 * model until gfl_model_sync has been called; one call is enough for several parameters.
 *
 *   values  [n], borrowed until the call returns, in the order of gfl_model_get_parameter
 *
 * Errors    As gfl_model_get_parameter.  It is GFL_E_ARG, too, when a value is not finite, or is
 *           a variance below zero.  The parameter is as before, except after GFL_E_DEVICE.
 * Threads   As the model's context.  Nobody else may use the model during the call. */
GFL_API gfl_status gfl_model_set_parameter(gfl_model *model, const char *name, const float *values,
                                           size_t n);

/* gfl_model_sync - make a model detect with the parameters that it has now.
 *
 * Training and gfl_model_set_parameter change parameters; detectors and the export to ONNX use
 * weights that are packed from them.  Call this before a detector's next run: until then gfl_detect
 * refuses the model.  gfl_model_save does not need it.
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_MEMORY  there is no room for a packed layer
 * Threads   As gfl_model_set_parameter. */
GFL_API gfl_status gfl_model_sync(gfl_model *model);

/* gfl_model_get_plan - the steps of a forward pass, in order.
 *
 *   width, height, batch  as for gfl_model_get_cost
 *   visit                 called once per step; the step is valid until it returns
 *   user                  handed to visit
 *
 * Errors    As gfl_model_get_cost.
 * Threads   As the model's context. */
GFL_API gfl_status gfl_model_get_plan(gfl_model *model, int width, int height, int batch,
                                      void (*visit)(void *user, const gfl_plan_step *step),
                                      void *user);

/* gfl_model_count_reports, gfl_model_get_report - how many tensors the last load saw, and what
 * became of tensor i.
 *
 *   out  set to the report, whose texts belong to the model and are valid until the next load;
 *        zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such tensor; there is no error text
 * Threads   Any, except while something is loaded into the model.
 * Example
 *     gfl_tensor_report r;
 *     for (int i = 0; gfl_model_get_report(model, i, &r) == GFL_OK; i++)
 *         if (r.fate != GFL_FATE_LOADED) printf("%s: %s\n", r.name, r.why); */
GFL_API int gfl_model_count_reports(const gfl_model *model);
GFL_API gfl_status gfl_model_get_report(const gfl_model *model, int i, gfl_tensor_report *out);
