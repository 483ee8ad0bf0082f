/* network.cuh - a plan on the tensor cores: tf32, bf16 or fp16 from the input to the logits */
#pragma once

/* Weights are packed once, in the precision's layout.  Maps hold elements, except the logits and
 * the offsets of deformable convolutions, which stay float; GroupNorm takes the statistics that
 * the convolution before it leaves.  Nothing is allocated after creation, and every launch is in
 * one stream, so a run can be captured. */

typedef struct gfli_network_layer {
    void *packed;
    float *bias;
} gfli_network_layer;

typedef struct gfli_network {
    gfl_context *context;
    const gfl_model *model;
    const gfli_plan *plan;
    int element;
    gfli_network_layer *layers;
    float **params;            /* of GroupNorm, on the device; NULL for others */
    gfli_conv_choice *choices; /* of each step that convolves; variant -1 elsewhere */
    bool *wide;                /* slots that hold float */
    unsigned char *arena;
    float *stats;
    void *scratch;
    int *arrived;
} gfli_network;

static gfl_status gfli_cuda_check(gfl_context *context, cudaError_t e, const char *what) {
    if (e == cudaSuccess) return GFL_OK;
    return gfli_error(context, e == cudaErrorMemoryAllocation ? GFL_E_MEMORY : GFL_E_DEVICE,
                      "CUDA: %s: %s", what, cudaGetErrorString(e));
}

static gfl_status gfli_cuda_upload(gfl_context *context, const float *x, size_t n, float **out) {
    GFLI_TRY(gfli_cuda_check(context, cudaMalloc((void **)out, n * sizeof *x), "parameters"));
    return gfli_cuda_check(context, cudaMemcpy(*out, x, n * sizeof *x, cudaMemcpyHostToDevice),
                           "copy of parameters");
}

static void *gfli_network_slot(const gfli_network *net, int slot) {
    const gfli_slot *s = &net->plan->slots[slot];
    if (s->parent < 0) return net->arena + s->offset * sizeof(float);
    const gfli_map *parent = &net->plan->slots[s->parent].map;
    const size_t size = net->wide[s->parent] || net->element == GFLI_ELEMENT_TF32 ? 4 : 2;
    return (unsigned char *)gfli_network_slot(net, s->parent) +
           gfli_points_before(parent, s->level) * (size_t)parent->c * size;
}

/* ---- choices --------------------------------------------------------------------------------- */

static bool gfli_step_convolves(const gfli_step *s) {
    return s->op == GFLI_OP_CONV || s->op == GFLI_OP_DEFORM_CONV;
}

/* The GroupNorm that follows a convolution directly. */
static bool gfli_norm_follows(const gfli_plan *plan, int step) {
    const gfli_step *s = &plan->steps[step];
    return step + 1 < plan->n_steps && s[1].op == GFLI_OP_GROUP_NORM && s[1].in == s->out;
}

static gfli_conv_request gfli_network_request(const gfli_network *net, int step) {
    const gfli_step *s = &net->plan->steps[step];
    gfli_conv_request r;
    memset(&r, 0, sizeof r);
    r.shape = &net->model->layers[s->layer].shape;
    r.x = &net->plan->slots[s->in].map;
    r.n_sides = 1;
    r.out_c[0] = r.shape->out_c;
    r.element = net->element;
    r.relu = s->relu;
    r.wide = net->wide[s->out];
    if (s->op == GFLI_OP_DEFORM_CONV) r.offset_c = net->plan->slots[s->offset].map.c;
    if (gfli_norm_follows(net->plan, step)) r.norm_width = r.shape->out_c / GFLI_GN_GROUPS;
    return r;
}

/* The kernel of each convolution; where none can leave statistics, GroupNorm gathers its own. */
static gfl_status gfli_network_choose(gfli_network *net, const gfli_conv_device *device,
                                      size_t *scratch) {
    *scratch = 0;
    for (int i = 0; i < net->plan->n_steps; i++) {
        const gfli_step *s = &net->plan->steps[i];
        net->choices[i].variant = -1;
        net->choices[i].splits = 0; /* becomes the number of splits, or -that without statistics */
        if (!gfli_step_convolves(s)) continue;
        gfli_conv_request r = gfli_network_request(net, i);
        bool found = gfli_conv_choose(&r, device, &net->choices[i]);
        if (!found && r.norm_width > 0) {
            r.norm_width = 0;
            found = gfli_conv_choose(&r, device, &net->choices[i]);
            if (found) net->choices[i].splits = -net->choices[i].splits;
        }
        if (!found)
            return gfli_error(net->context, GFL_E_UNSUPPORTED,
                              "no tensor-core kernel for a convolution of %d to %d channels in %d "
                              "groups; use fp32",
                              r.shape->in_c, r.shape->out_c, r.shape->groups);
        gfli_conv_choice choice = net->choices[i];
        if (choice.splits < 0) choice.splits = -choice.splits;
        const size_t need = gfli_conv_tensor_scratch(&r, choice);
        if (need > *scratch) *scratch = need;
    }
    return GFL_OK;
}

/* ---- creation -------------------------------------------------------------------------------- */

static void gfli_network_destroy(gfli_network *net) {
    gfl_context *context = net->context;
    for (int i = 0; net->layers && i < net->model->n_layers; i++) {
        (void)cudaFree(net->layers[i].packed);
        (void)cudaFree(net->layers[i].bias);
    }
    for (int i = 0; net->params && i < net->model->n_params; i++) (void)cudaFree(net->params[i]);
    (void)cudaFree(net->arena);
    (void)cudaFree(net->stats);
    (void)cudaFree(net->scratch);
    (void)cudaFree(net->arrived);
    gfli_free(context, net->layers);
    gfli_free(context, net->params);
    gfli_free(context, net->choices);
    gfli_free(context, net->wide);
    memset(net, 0, sizeof *net);
}

/* Layer i from the model's own parameters: the model must be trainable, which keeps them. */
static gfl_status gfli_network_layer_load(gfli_network *net, int i) {
    const gfli_layer *l = &net->model->layers[i];
    gfli_network_layer *out = &net->layers[i];
    const size_t out_c = (size_t)l->shape.out_c;
    float *weight = NULL, *scale = NULL;
    gfl_context *context = net->context;
    if (l->folded_bias) GFLI_TRY(gfli_cuda_upload(context, l->folded_bias, out_c, &out->bias));
    GFLI_TRY(gfli_cuda_check(
        context, cudaMalloc(&out->packed, gfli_conv_tensor_packed_size(&l->shape, net->element)),
        "packed weights"));
    gfl_status status = gfli_cuda_upload(context, net->model->params[l->weight].data,
                                         gfli_conv_weights(&l->shape), &weight);
    if (status == GFL_OK && l->folded_scale)
        status = gfli_cuda_upload(context, l->folded_scale, out_c, &scale);
    if (status == GFL_OK)
        status = gfli_cuda_check(
            context, gfli_conv_tensor_pack(0, &l->shape, net->element, weight, scale, out->packed),
            "packing weights");
    if (status == GFL_OK) status = gfli_cuda_check(context, cudaDeviceSynchronize(), "packing");
    (void)cudaFree(weight);
    (void)cudaFree(scale);
    return status;
}

static gfl_status gfli_network_load(gfli_network *net) {
    for (int i = 0; i < net->model->n_layers; i++) GFLI_TRY(gfli_network_layer_load(net, i));
    for (int i = 0; i < net->plan->n_steps; i++) {
        const gfli_step *s = &net->plan->steps[i];
        if (s->op != GFLI_OP_GROUP_NORM) continue;
        for (int k = 0; k < 2; k++) {
            const int p = k ? s->beta : s->gamma;
            GFLI_TRY(gfli_cuda_upload(net->context, net->model->params[p].data,
                                      net->model->params[p].count, &net->params[p]));
        }
    }
    return GFL_OK;
}

static gfl_status gfli_network_allocate(gfli_network *net, const gfli_conv_device *device) {
    gfl_context *context = net->context;
    const gfli_plan *plan = net->plan;
    const size_t counters = GFLI_MAX_SPLIT_TILES * sizeof(int);
    size_t scratch;
    GFLI_TRY(gfli_calloc(context, (size_t)net->model->n_layers, sizeof *net->layers, "layers",
                         &net->layers));
    GFLI_TRY(gfli_calloc(context, (size_t)net->model->n_params, sizeof *net->params, "parameters",
                         &net->params));
    GFLI_TRY(gfli_calloc(context, (size_t)plan->n_steps, sizeof *net->choices, "kernels",
                         &net->choices));
    GFLI_TRY(gfli_calloc(context, (size_t)plan->n_slots, sizeof *net->wide, "maps", &net->wide));
    net->wide[plan->cls] = net->wide[plan->reg] = true;
    for (int i = 0; i < plan->n_steps; i++) {
        if (plan->steps[i].offset >= 0) net->wide[plan->steps[i].offset] = true;
        if (plan->steps[i].op == GFLI_OP_LEVEL_SCALE) net->wide[plan->steps[i].in] = true;
    }
    GFLI_TRY(gfli_network_choose(net, device, &scratch));
    GFLI_TRY(gfli_cuda_check(context, cudaMalloc((void **)&net->arena, plan->workspace_floats * 4),
                             "maps"));
    GFLI_TRY(gfli_cuda_check(
        context, cudaMalloc((void **)&net->stats, (plan->stats_floats + 1) * 4), "statistics"));
    GFLI_TRY(gfli_cuda_check(context, cudaMalloc(&net->scratch, scratch + 1), "scratch"));
    GFLI_TRY(
        gfli_cuda_check(context, cudaMalloc((void **)&net->arrived, counters), "split counters"));
    return gfli_cuda_check(context, cudaMemset(net->arrived, 0, counters), "split counters");
}

/* device: gfli_conv_device_query's.  model and plan are borrowed until the network is destroyed. */
static gfl_status gfli_network_create(gfl_context *context, const gfl_model *model,
                                      const gfli_plan *plan, int element,
                                      const gfli_conv_device *device, gfli_network *out) {
    memset(out, 0, sizeof *out);
    out->context = context;
    out->model = model;
    out->plan = plan;
    out->element = element;
    gfl_status status = gfli_network_allocate(out, device);
    if (status == GFL_OK) status = gfli_network_load(out);
    if (status != GFL_OK) gfli_network_destroy(out);
    return status;
}

/* ---- run ------------------------------------------------------------------------------------- */

static cudaError_t gfli_network_conv(const gfli_network *net, int step, cudaStream_t stream) {
    const gfli_step *s = &net->plan->steps[step];
    gfli_conv_request r = gfli_network_request(net, step);
    gfli_conv_choice choice = net->choices[step];
    gfli_conv_operands op;
    if (choice.splits < 0) {
        choice.splits = -choice.splits;
        r.norm_width = 0;
    }
    memset(&op, 0, sizeof op);
    op.x = gfli_network_slot(net, s->in);
    op.residual = s->residual < 0 ? NULL : gfli_network_slot(net, s->residual);
    op.packed = net->layers[s->layer].packed;
    op.bias = net->layers[s->layer].bias;
    op.offset =
        s->op == GFLI_OP_DEFORM_CONV ? (const float *)gfli_network_slot(net, s->offset) : NULL;
    op.y = gfli_network_slot(net, s->out);
    op.stats = r.norm_width > 0 ? net->stats + s[1].stats : NULL;
    return gfli_conv_tensor_run(stream, &r, choice, &op, GFLI_NORM_EPS, net->scratch, net->arrived);
}

static void gfli_network_norm(const gfli_network *net, int step, cudaStream_t stream) {
    const gfli_step *s = &net->plan->steps[step];
    const gfli_map *x = &net->plan->slots[s->in].map;
    const gfli_sizes sizes = gfli_sizes_of(x);
    const void *in = gfli_network_slot(net, s->in);
    float *stats = net->stats + s->stats;
    const bool left = step > 0 && gfli_step_convolves(&s[-1]) && s[-1].out == s->in &&
                      net->choices[step - 1].splits > 0;
    if (!left)
        GFLI_LAUNCH((gfli_norm_stats_kernel), (unsigned)(x->levels * x->n * GFLI_GN_GROUPS),
                    GFLI_POINTWISE_THREADS, 0, stream, in, sizes, (int)GFLI_GN_GROUPS,
                    GFLI_NORM_EPS, stats, net->element);
    GFLI_LAUNCH((gfli_norm_apply_kernel), gfli_pointwise_blocks(x, net->element),
                GFLI_POINTWISE_THREADS, 0, stream, in, sizes, (int)GFLI_GN_GROUPS,
                net->params[s->gamma], net->params[s->beta], stats, gfli_network_slot(net, s->out),
                net->element);
}

static void gfli_network_pointwise(const gfli_network *net, int step, cudaStream_t stream) {
    const gfli_step *s = &net->plan->steps[step];
    const gfli_map *x = &net->plan->slots[s->in].map, *y = &net->plan->slots[s->out].map;
    const gfli_sizes in = gfli_sizes_of(x), out = gfli_sizes_of(y);
    const void *from = gfli_network_slot(net, s->in);
    void *to = gfli_network_slot(net, s->out);
    const unsigned blocks = gfli_pointwise_blocks(y, net->element);
    if (s->op == GFLI_OP_MAX_POOL) {
        GFLI_LAUNCH((gfli_max_pool_kernel), blocks, GFLI_POINTWISE_THREADS, 0, stream, from, in, to,
                    out, net->element);
    } else if (s->op == GFLI_OP_UPSAMPLE_ADD) {
        GFLI_LAUNCH((gfli_upsample_add_kernel), blocks, GFLI_POINTWISE_THREADS, 0, stream, from, in,
                    to, out, net->element);
    } else {
        gfli_level_scales by;
        memcpy(by.scale, net->model->scales, sizeof by.scale);
        GFLI_LAUNCH((gfli_level_scale_kernel), gfli_pointwise_blocks(y, GFLI_ELEMENT_TF32),
                    GFLI_POINTWISE_THREADS, 0, stream, from, out, by, to, (int)GFLI_ELEMENT_TF32);
    }
}

static gfl_status gfli_network_step(const gfli_network *net, int step, cudaStream_t stream) {
    const gfli_step *s = &net->plan->steps[step];
    cudaError_t e = cudaSuccess;
    if (gfli_step_convolves(s))
        e = gfli_network_conv(net, step, stream);
    else if (s->op == GFLI_OP_GROUP_NORM)
        gfli_network_norm(net, step, stream);
    else
        gfli_network_pointwise(net, step, stream);
    if (e == cudaSuccess) e = cudaGetLastError();
    return gfli_cuda_check(net->context, e, "a step of the network");
}

/* The input is in its slot; the logits will be in theirs, when the stream is there. */
static gfl_status gfli_network_run(const gfli_network *net, cudaStream_t stream) {
    for (int i = 0; i < net->plan->n_steps; i++) GFLI_TRY(gfli_network_step(net, i, stream));
    return GFL_OK;
}
