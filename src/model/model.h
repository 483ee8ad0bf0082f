/* model.h - the model as the implementation sees it */
#pragma once

struct gfl_model {
    gfl_context *context;
    const gfli_backend *backend;
    gfl_arch arch;
    gfl_preprocess preprocess;
    gfl_class *classes;
    gfli_param *params;
    int n_params;
    gfli_layer *layers;
    int n_layers;
    float *scales;      /* [GFL_LEVELS], copied by packing */
    float *norms;       /* gamma and beta of the group norms, copied by packing: [n_norms][2][head_channels] */
    bool trainable;
    gfl_tensor_report *reports;
    int n_reports;
};

/* Build the plan of an input size (height and width multiples of 32).  Allocates from context. */
gfl_status gfli_plan_create(gfl_context *context, const gfl_model *model, int batch, int height,
                            int width, bool training, gfli_plan *out);
void gfli_plan_destroy(gfl_context *context, gfli_plan *plan);

/* Give every slot its place in workspace [plan->workspace_floats]. */
void gfli_plan_bind(gfli_plan *plan, float *workspace);

/* Run all steps.  stats [plan->stats_floats], scratch [plan->scratch_bytes]. */
void gfli_plan_forward(gfl_context *context, const gfl_model *model, const gfli_plan *plan,
                       float *stats, void *scratch);

/* Fold batch norm and pack every layer from the parameters (all, or those of stage >= first). */
gfl_status gfli_model_pack(gfl_model *model, int first_stage);

/* The parameter of a name, or -1. */
int gfli_model_find(const gfl_model *model, const char *name);

/* Size of the resized image (spec 7.2) and of the padded input. */
void gfli_resized_size(int width, int height, int scale_long, int scale_short, int *out_width,
                       int *out_height);
static inline int gfli_pad32(int size) {
    return (size + 31) / 32 * 32;
}
