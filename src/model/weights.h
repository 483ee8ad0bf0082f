/* weights.h - a weight file under the model's names, on its way into a model */
#pragma once

/* One tensor of a file, and what the model calls it. */
typedef struct gfli_entry {
    char *name;                /* the model's */
    const gfli_tensor *tensor; /* the blob's, under the file's name */
} gfli_entry;

typedef struct gfli_weights {
    gfl_context *context;
    gfli_blob blob;
    gfli_entry *entries; /* all that are not counters or constants, sorted by name */
    int n_entries;
    float *raw, *ready; /* one tensor as the file has it, and as the model wants it */
    size_t raw_capacity, ready_capacity;
    gfl_class *classes; /* that were read; names owned */
    int n_classes;
    bool has_ids; /* of the classes, in the metadata */
} gfli_weights;

/* Bring the tensors of w->blob, already open, under the model's names (names.c).  The blob belongs
 * to w then; end it also after a failure. */
gfl_status gfli_weights_begin(gfl_context *context, gfli_weights *w);
void gfli_weights_end(gfli_weights *w);
const gfli_tensor *gfli_weights_find(const gfli_weights *w, const char *name); /* or NULL */

/* The architecture that the shapes describe (deduce.c): of a detector, or of a backbone, which may
 * end early; stages: how many it has, NULL where all must be there. */
gfl_status gfli_deduce_detector(gfli_weights *w, gfl_arch *arch);
gfl_status gfli_deduce_backbone(gfli_weights *w, gfl_arch *arch, int *stages);
gfl_status gfli_deduce_neck(gfli_weights *w, gfl_arch *arch);
gfl_status gfli_deduce_head(gfli_weights *w, gfl_arch *arch);
/* Dimension `axis` of a convolution's weights. */
gfl_status gfli_deduce_dim(gfli_weights *w, const char *name, int axis, int *out);
/* How many tensors there are whose names have a number between these, counting from 0. */
int gfli_count_numbered(const gfli_weights *w, const char *before, const char *after);

/* What the metadata says (metadata.c).  A demanded dialect or style must not contradict it; the
 * default demands nothing. */
gfl_status gfli_read_dialect(gfli_weights *w, gfl_dialect wanted, gfl_dialect *out,
                             gfl_origin *origin);
gfl_status gfli_read_style(gfli_weights *w, gfl_style wanted, gfl_style *out, gfl_origin *origin);
const char *gfli_style_name(const gfl_arch *arch);
gfl_status gfli_read_preprocess(gfli_weights *w, gfl_preprocess *out, gfl_origin *origin);
gfl_origin gfli_scale_origin(const gfli_weights *w);
const char *gfli_order_key(const gfli_weights *w); /* of the channel order, NULL: not said */
gfl_status gfli_read_classes(gfli_weights *w, int n, const gfl_class **out, gfl_origin *origin);
gfl_status gfli_check_labels(gfli_weights *w, const gfl_arch *arch);

/* The values of a tensor of the parameter's shape, checked, in the model's layout. */
bool gfli_same_shape(const gfli_param *param, const gfli_tensor *tensor);
gfl_status gfli_read_values(gfli_weights *w, const gfli_param *param, const gfli_tensor *tensor,
                            float *out);

/* The model that a detector's file describes, but for its classes.  Then the model itself: every
 * parameter must have its tensor, and every tensor of the network its parameter. */
gfl_status gfli_describe_weights(gfli_weights *w, gfl_dialect dialect, gfl_style style,
                                 gfl_model_desc *desc, gfl_origins *origins);
gfl_status gfli_load_weights(gfli_weights *w, const gfl_model_desc *desc,
                             const gfl_origins *origins, bool trainable, gfl_model **out);

bool gfli_ends_with(const char *text, const char *end);

/* What messages say of a tensor's shape. */
typedef struct gfli_shape_text {
    char text[96];
} gfli_shape_text;
gfli_shape_text gfli_shape(int rank, const int64_t *shape);

/* Room for n reports in place of those before; then one after the other. */
gfl_status gfli_open_reports(gfl_model *model, size_t n);
gfl_status gfli_report(gfl_model *model, const char *name, gfl_fate fate, int rank,
                       const int64_t *shape, const char *why);
void gfli_clear_reports(gfl_model *model);

/* What a weight file says about the model, one key after the other; its mean, std and channel
 * order alone. */
typedef gfl_status (*gfli_put_meta)(void *to, const char *key, const char *value);
gfl_status gfli_model_metadata(const gfl_model *model, gfli_put_meta put, void *to);
gfl_status gfli_put_input(const gfl_model *model, gfli_put_meta put, void *to,
                          const char *order_key);
gfl_status gfli_meta_to_blob(void *writer, const char *key, const char *value);

/* A buffer that grows to the largest tensor put in it. */
typedef struct gfli_values {
    float *data;
    size_t capacity;
} gfli_values;

/* A parameter's values in the order of files: OIHW, where the model has OHWI. */
gfl_status gfli_param_values(const gfl_model *model, int index, gfli_values *values,
                             const float **out);

/* The parameters of the stages up to last_stage, their names without the first `skip` letters. */
gfl_status gfli_put_params(const gfl_model *model, gfli_blob_writer *w, int last_stage,
                           size_t skip);
