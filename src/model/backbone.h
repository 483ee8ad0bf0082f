/* backbone.h - a kind of backbone: one row, and all that the library knows of it */
#pragma once

/* What names in files become (names.c): the first rule that fits, until none does. */
typedef struct gfli_name_rule {
    const char *from, *to;
    bool anywhere; /* not only at the front */
} gfli_name_rule;

/* Tensors of networks that look like gfl's and are not: what a name begins with and holds. */
typedef struct gfli_relative {
    const char *front, *inside, *what;
} gfli_relative;

/* A value that a configuration of mmdetection must have. */
typedef struct gfli_config_row {
    const char *path;
    const char *wanted; /* as gfli_py_shown_as has it; several are separated by "|" */
} gfli_config_row;

/* Rows are `struct gfli_backbone`; context.h declares the name.  Lists end with a zero. */
struct gfli_backbone {
    const char *family; /* in messages: "a ResNet" */

    /* Architectures: the values of gfl_arch.depth that mean this kind; defaults and limits of the
     * fields that are its own; its presets, with those fields alone; "R50", and what files of a
     * backbone alone say for it; its description (network.h). */
    const int *depths;
    gfl_status (*resolve)(gfl_context *context, gfl_arch *arch);
    int n_presets;
    void (*preset)(int i, gfl_preset *out);
    void (*name)(const gfl_arch *arch, char out[32]);
    void (*file_name)(const gfl_arch *arch, char out[48]);
    void (*describe)(gfli_describer *d, int features[4]);

    /* Files: the tensor that shows this kind; what the names of a stage's tensors begin with,
     * before its number; what the depth stands behind in the names above; other names. */
    const char *stem, *stages;
    const char *const *before_depth;
    const gfli_name_rule *rules;
    const gfli_relative *relatives;
    const gfli_config_row *config;
    /* The architecture that the shapes describe, of the stages that there are; stages NULL: all
     * four must be there. */
    gfl_status (*deduce)(gfli_weights *w, gfl_arch *arch, int *stages);
    /* An error where a model cannot take the backbone of a file. */
    gfl_status (*compare)(const gfli_weights *w, const gfl_backbone_info *file,
                          const gfl_arch *model);
};

extern const gfli_backbone gfli_resnet;

/* The kinds that there are: the context's, or the library's.  Context may be NULL. */
const gfli_backbone *const *gfli_backbones(const gfl_context *context);
/* The kind of a depth, NULL if none; of a file, the first if none. */
const gfli_backbone *gfli_backbone_of(const gfl_context *context, int depth);
const gfli_backbone *gfli_backbone_in(const gfli_weights *w);
