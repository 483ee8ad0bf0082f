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
    gfli_network network;
    /* All parameters, gradients and momentum have this layout: n_trained floats of parameters, then
     * running statistics up to n_values.  Memory of the device. */
    float *values;
    size_t n_trained, n_values;
    float *folded; /* the layers' folded_bias and folded_scale */
    bool trainable;
    int stale;     /* 1 + the first stage that is packed from older parameters; 0: none */
    uint64_t seed; /* of weights that no file gave */
    gfl_origins origins;
    gfl_tensor_report *reports;
    int n_reports;
};

/* Build the plan of an input size (height and width multiples of 32).  Allocates from context. */
gfl_status gfli_plan_create(gfl_context *context, const gfl_model *model, int batch, int height,
                            int width, bool training, gfli_plan *out);
/* The same in the memory of another plan, which is zeroed or made; gfli_plan_reserve gives a plan
 * what any of the model's needs. */
gfl_status gfli_plan_recreate(gfl_context *context, const gfl_model *model, int batch, int height,
                              int width, bool training, gfli_plan *out);
gfl_status gfli_plan_reserve(gfl_context *context, const gfl_model *model, gfli_plan *plan);
void gfli_plan_destroy(gfl_context *context, gfli_plan *plan);

/* The device memory of a detector without distributions for images of this size, in a plan of
 * it; model's backend. */
size_t gfli_detector_bytes(const gfl_model *model, const gfli_plan *plan, int width, int height);

/* Give every slot its place in workspace [plan->workspace_bytes]. */
void gfli_plan_bind(gfli_plan *plan, void *workspace);

/* What has the memory of a slot: itself, or what it is a view of. */
int gfli_plan_root(const gfli_plan *plan, int slot);
/* The slot, or -1 for none, is needed at this moment too. */
void gfli_plan_need(gfli_plan *plan, int slot, int moment);
/* Start anew with what the forward pass needs: step i is moment i, the outputs are read at
 * n_steps. */
void gfli_plan_live(gfli_plan *plan);
/* Place the pieces after their lives have changed. */
gfl_status gfli_plan_place(gfl_context *context, gfli_plan *plan);

/* Run one step, or all of them.  stats [plan->stats_floats], scratch [plan->scratch_bytes]. */
void gfli_plan_run_step(gfl_context *context, const gfl_model *model, const gfli_plan *plan,
                        int step, float *stats, void *scratch);
void gfli_plan_forward(gfl_context *context, const gfl_model *model, const gfli_plan *plan,
                       float *stats, void *scratch);

/* Replace zeros by defaults and check every field. */
gfl_status gfli_arch_resolve(gfl_context *context, const gfl_arch *in, gfl_arch *out);
void gfli_default(int *value, int when_zero);
gfl_status gfli_check_range(gfl_context *context, const char *what, int value, int low, int high);
gfl_status gfli_preprocess_resolve(gfl_context *context, const gfl_preprocess *in,
                                   gfl_preprocess *out);
/* "R50", "X101-32x4d-DCNv2": what papers call it. */
void gfli_arch_name(const gfl_context *context, const gfl_arch *arch, char out[32]);

/* The tables of parameters and layers of model->arch, without data, in a state dict's order. */
gfl_status gfli_model_describe(gfl_model *model);
void gfli_model_undescribe(gfl_model *model);
/* Fresh values of a parameter, to the host; a function of seed and index alone. */
void gfli_param_init(gfli_param *param, uint64_t seed, int index, float *out);

/* The block of all values, and where each parameter lies in it. */
gfl_status gfli_model_place(gfl_model *model);
/* The values of one parameter, as the model keeps them, between its place and the host. */
gfl_status gfli_param_fetch(const gfl_model *model, int index, float *out);
void gfli_param_store(const gfl_model *model, int index, const float *values);
/* The first of a parameter's values that is no variance, where all must be; its count: none. */
size_t gfli_bad_variance(const gfli_param *p, const float *values);
/* The weights of a convolution from the order of the model, OHWI, to that of files, OIHW, or
 * back. */
void gfli_reorder_weight(const gfli_param *p, const float *from, float *to, bool to_file);
/* n floats of the device. */
gfl_status gfli_fetch(const gfl_model *model, const float *from, size_t n, float *out);
/* Floats of the largest parameter. */
size_t gfli_largest_param(const gfl_model *model);
/* Which parameters learn, and where the first of them begins: they are the rest of n_trained. */
bool gfli_is_trained(const gfli_param *param, int frozen_stages);
size_t gfli_first_trained(const gfl_model *model, int frozen_stages);

/* Give parameter index its values, on the host. */
typedef gfl_status (*gfli_fill)(void *arg, gfl_model *model, int index, float *to);
/* Fill and pack everything; a model that is not trainable holds one layer's sources at a time. */
gfl_status gfli_model_build(gfl_model *model, gfli_fill fill, void *arg);
/* A model with tables but no values; classes NULL: the default names. */
gfl_status gfli_model_new(gfl_context *context, const gfl_arch *arch,
                          const gfl_preprocess *preprocess, const gfl_class *classes,
                          bool trainable, gfl_model **out);

/* Parameters of this stage or later ones have changed: nothing may read what is packed from them
 * until gfli_model_pack has folded the batch norms and packed anew what is stale. */
void gfli_model_changed(gfl_model *model, int first_stage);
gfl_status gfli_model_pack(gfl_model *model);
/* GFL_E_ARG, in the name of `what`, where something is stale. */
gfl_status gfli_model_check_packed(gfl_context *context, const gfl_model *model, const char *what);

/* The parameter of a name, or -1. */
int gfli_model_find(const gfl_model *model, const char *name);

/* What an image is resized by to fit (spec 7.2); its size then; the size of the padded input. */
double gfli_resize_factor(int width, int height, int scale_long, int scale_short);
void gfli_resized_size(int width, int height, int scale_long, int scale_short, int *out_width,
                       int *out_height);
static inline int gfli_pad32(int size) {
    return (size + 31) / 32 * 32;
}

/* What a public function demands that reads or changes a model's parameters. */
#define GFLI_TRAINABLE(context, model)                                                             \
    GFLI_DEMAND(context, (model)->trainable,                                                       \
                "%s: the model's weights were released after packing; create or load it "          \
                "with trainable = 1 in its description",                                           \
                __func__)
