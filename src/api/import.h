/* import.h - other people's checkpoints and backbones, and models made from models */
#pragma once

/* What the caller knows of a checkpoint.  Zero means the default of each field. */
typedef struct gfl_import_desc {
    int trainable;       /* as in gfl_load_desc */
    gfl_dialect dialect; /* as in gfl_load_desc */
    gfl_style style;     /* demanded: a file that says another one is refused */
    /* Used instead of what the file says, which may be nothing: mean, std and bgr together unless
     * std is 0, and each side of the scale unless it is 0.  Borrowed; NULL: the file's. */
    const gfl_preprocess *preprocess;
    const gfl_class *classes; /* [n_classes] instead of the file's; borrowed; NULL: the file's */
    int n_classes;            /* must be what the tensors have */
} gfl_import_desc;

/* What a backbone file is. */
typedef struct gfl_backbone_info {
    gfl_arch arch;             /* what the backbone decides; the rest is 0 */
    gfl_preprocess preprocess; /* that it was trained with */
    gfl_origin style, input;   /* who said arch.style, and preprocess */
    int stages;                /* 1..4; files may end before the last */
} gfl_backbone_info;

/* A class that has another name in the new list. */
typedef struct gfl_rename {
    const char *from, *to; /* its name in the source, and in the new list */
} gfl_rename;

/* How a model becomes one of other classes. */
typedef struct gfl_transfer_desc {
    const gfl_class *classes; /* [n_classes] of the new model, copied */
    int n_classes;            /* how many it has */
    /* [n_classes] the label of the source that each class starts from; -1: it starts afresh.  NULL:
     * classes are matched by name. */
    const int *map;
    const gfl_preprocess *preprocess; /* NULL: the source's */
    uint64_t seed;                    /* of what starts afresh */
} gfl_transfer_desc;

/* gfl_model_import - a model from a checkpoint of PyTorch, or from anyone's safetensors.
 *
 * It reads what gfl_model_load reads and, in addition, .pth files of both containers, which it
 * tells apart by their content.  Names may be those of implus/GFocal or of mmdetection 1 to 3, with
 * a wrapper's "module." or "model." in front.  The architecture, deformable stages included,
 * follows from the tensors.  The dialect follows from the file, or it has to be given.  Where a
 * file has 80 classes and does not name them, or has COCO's names without ids, they become COCO's
 * names and category ids.  gfl_model_get_info tells in origins what was said and what was assumed,
 * and gfl_model_get_report tells what became of each tensor.
 *
 * The text of mmdetection's configuration, which its checkpoints hold, is read, too, and never
 * executed.  Mean, std, channel order, style, scale and class names come from it.  It is an error
 * where it asks for what gfl does not have, or where it contradicts the tensors.  Test settings
 * that differ from gfl's are a warning to the logger.  What nobody says is assumed; gfl_model_save
 * writes down that it was, so that a later load still reports GFL_ORIGIN_DEFAULT.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   desc  NULL or zeroed to take all from the file; borrowed
 *   out   set to the model, which you own, or to NULL on error
 *
 * Errors    As gfl_model_load, and in addition
 *           GFL_E_MISMATCH  the file contradicts desc, or its configuration contradicts its tensors
 *           GFL_E_UNSUPPORTED  the configuration asks for another network, or the .pth is
 *                         compressed, encrypted or big-endian
 *           GFL_E_FORMAT  the .pth is damaged or hostile
 * Memory    Tensors are read one by one.  Whatever a file says, reading it takes at most 80 times
 *           its bytes and some megabytes, the model included, and time in proportion to its bytes.
 * Threads   As gfl_model_create.
 * Example
 *     gfl_model_import(context, "gfl_r50_fpn_1x_coco.pth", NULL, &model); */
GFL_API gfl_status gfl_model_import(gfl_context *context, const char *path,
                                    const gfl_import_desc *desc, gfl_model **out);

/* gfl_backbone_describe - which model a backbone file asks for, without loading it.
 *
 * The file, safetensors or .pth, may be a backbone of torchvision, timm or OpenMMLab, one of MSRA's
 * "caffe" ones with metadata, or a detector with its backbone.  A model that is made as described
 * can load the file with gfl_model_load_backbone.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   desc  NULL, or style and preprocess for a file that does not say them; borrowed
 *   out   set by the call; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_IO, GFL_E_FORMAT   as gfl_model_import
 *           GFL_E_MISMATCH  it is not a ResNet with these names, or desc contradicts the file
 *           GFL_E_UNSUPPORTED  a depth or width that gfl does not have
 * Example
 *     gfl_backbone_describe(context, path, NULL, &backbone);
 *     desc.arch = backbone.arch;
 *     desc.preprocess = backbone.preprocess;
 *     desc.trainable = 1;
 *     gfl_model_create(context, &desc, &model);
 *     gfl_model_load_backbone(model, path); */
GFL_API gfl_status gfl_backbone_describe(gfl_context *context, const char *path,
                                         const gfl_import_desc *desc, gfl_backbone_info *out);

/* gfl_model_load_backbone - start a model from a backbone trained on ImageNet.
 *
 * It takes what fits, by the names that gfl_backbone_describe knows.  The rest of the backbone is
 * initialised afresh; neck and head stay as they are.  Files may end before the last stage, and may
 * lack the offset convolutions of deformable stages, which then start at 0.  gfl_model_get_report
 * tells what was loaded, initialised and left over.
 *
 *   model  created or loaded with desc.trainable
 *   path   safetensors or .pth; the system's bytes, on Windows UTF-8; borrowed until the call
 *          returns
 *
 * Errors    GFL_E_ARG     an argument is NULL, or the model is not trainable
 *           GFL_E_IO, GFL_E_FORMAT   as gfl_model_import
 *           GFL_E_MISMATCH  nothing fits, or the depth, width, style or preprocessing is not that
 *                         of the model
 *           GFL_E_UNSUPPORTED  gfl has no such depth or width
 *           The model is unchanged after an error.
 * Threads   As the model's context.  No detector may run the model during the call. */
GFL_API gfl_status gfl_model_load_backbone(gfl_model *model, const char *path);

/* gfl_model_save_backbone - write the stem and the first stages of a model as safetensors with
 * torchvision's names, which gfl_model_load_backbone and Python read.
 *
 * Style, channel order, mean and std go into the metadata.  A file of that name is replaced whole
 * or not at all.
 *
 *   model   made with desc.trainable
 *   stages  how many stages, 1..4
 *   path    the system's bytes, on Windows UTF-8; borrowed until the call returns
 *
 * Errors    GFL_E_ARG     an argument is NULL, the model is not trainable, or stages is out of
 *                         range
 *           GFL_E_IO      the file cannot be written
 *           GFL_E_MEMORY  there is no room for one tensor */
GFL_API gfl_status gfl_model_save_backbone(const gfl_model *model, int stages, const char *path);

/* gfl_match_classes - which class of one list is which of another, by name.
 *
 *   from, to  [n_from] the old list, [n_to] the new one
 *   renames   [n_renames]; `from` of each names a class of the old list, `to` one of the new list;
 *             they come before equal names
 *   map       [n_to] set to the label in the old list for each class of the new one, or to -1
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_MISMATCH  a rename names a class that is not in its list, or two renames name the
 *                         same class */
GFL_API gfl_status gfl_match_classes(gfl_context *context, const gfl_class *from, int n_from,
                                     const gfl_class *to, int n_to, const gfl_rename *renames,
                                     int n_renames, int *map);

/* gfl_model_create_from - a model with another's weights and another class list.
 *
 * The rows of the classifier that the map names are copied bit for bit; the others start as in a
 * new model.  Everything else is kept: architecture, dialect, and all other weights.
 * gfl_model_get_report tells what became of each tensor.  The new model is trainable and
 * independent of the source.
 *
 *   source  made with desc.trainable; borrowed until the call returns
 *   desc    borrowed; its texts are copied
 *   out     set to the model, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, the source is not trainable, or classes or map are
 *                         out of range
 *           GFL_E_MEMORY  the weights do not fit into memory
 * Memory, Threads   As gfl_model_create.
 * Example
 *     gfl_import_desc from = {0};
 *     gfl_transfer_desc to = {0};
 *     from.trainable = 1;
 *     to.classes = gfl_dataset_get_classes(data);
 *     to.n_classes = gfl_dataset_count_classes(data);
 *     gfl_model_import(context, "gfl_r50_fpn_1x_coco.pth", &from, &published);
 *     gfl_model_create_from(context, published, &to, &model);
 *     gfl_model_destroy(published); */
GFL_API gfl_status gfl_model_create_from(gfl_context *context, const gfl_model *source,
                                         const gfl_transfer_desc *desc, gfl_model **out);
