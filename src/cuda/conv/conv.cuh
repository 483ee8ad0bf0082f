/* conv.cuh - convolution as an operation: in plain float32, or on the tensor cores */
#pragma once

static bool gfli_cuda_on_tensor(const gfl_context *context) {
    return context->precision != GFL_PRECISION_FP32;
}

/* ---- weights --------------------------------------------------------------------------------- */

static size_t gfli_conv_packed_size_cuda(const gfl_context *context, const gfli_conv_shape *s) {
    return gfli_cuda_on_tensor(context) ? gfli_conv_tensor_packed_size(s, (int)context->element)
                                        : gfli_fp32_packed_size(s);
}

static void gfli_conv_pack_cuda(gfl_context *context, const gfli_conv_shape *s, const float *weight,
                                const float *scale, void *packing) {
    if (!gfli_cuda_ready(context)) return;
    const cudaStream_t stream = gfli_cuda_of(context)->stream;
    (void)gfli_cuda_note(
        context,
        gfli_cuda_on_tensor(context)
            ? gfli_conv_tensor_pack(stream, s, (int)context->element, weight, scale, packing)
            : gfli_fp32_pack(stream, s, weight, scale, (float *)packing),
        "packing weights");
}

/* ---- the operation --------------------------------------------------------------------------- */

static gfli_conv_request gfli_conv_request_of(const gfli_conv_call *calls, int n, bool apart) {
    gfli_conv_request r;
    memset(&r, 0, sizeof r);
    r.shape = calls[0].shape;
    r.x = calls[0].x;
    r.n_sides = n;
    for (int i = 0; i < n; i++) r.out_c[i] = calls[i].shape->out_c;
    r.element = (int)calls[0].x->element;
    r.offset_c = calls[0].offset ? calls[0].offset->c : 0;
    if (calls[0].norm_groups > 0 && !apart) r.norm_width = r.out_c[0] / calls[0].norm_groups;
    r.relu = calls[0].relu;
    r.wide = calls[0].y->element == GFLI_MAP_F32;
    return r;
}

/* The preferred variant, or the fastest; with the statistics, or with a kernel of their own. */
static bool gfli_conv_find(gfl_context *context, const gfli_conv_call *calls, int n,
                           gfli_conv_choice *out, bool *apart) {
    const gfli_cuda *d = gfli_cuda_of(context);
    const bool residual = calls[0].residual != NULL;
    for (int attempt = 0; attempt < 4; attempt++) {
        const int only = attempt < 2 ? d->preferred : -1;
        *apart = attempt % 2 != 0;
        if (attempt < 2 && only < 0) continue;
        const gfli_conv_request r = gfli_conv_request_of(calls, n, *apart);
        if (only < 0 && d->tune && gfli_conv_tune(context, &r, residual, out)) return true;
        if (gfli_conv_choose(&r, &d->conv, only, out)) return true;
    }
    return false;
}

static gfl_status gfli_conv_prepare_cuda(gfl_context *context, const gfli_conv_call *calls, int n,
                                         gfli_conv_means *out) {
    gfli_conv_choice choice;
    const gfli_conv_shape *s = calls[0].shape;
    memset(out, 0, sizeof *out);
    if (!gfli_cuda_on_tensor(context)) {
        out->kernel = calls[0].offset ? "fp32_deformed_64x64" : "fp32_64x64";
        out->variant = -1;
        out->splits = 1;
        out->apart = true;
        return GFL_OK;
    }
    if (!gfli_conv_find(context, calls, n, &choice, &out->apart))
        return gfli_error(context, GFL_E_UNSUPPORTED,
                          "no tensor-core kernel for a %s of %d to %d channels in %d groups; use "
                          "GFL_PRECISION_FP32",
                          calls[0].offset ? "deformable convolution" : "convolution", s->in_c,
                          s->out_c, s->groups);
    const gfli_conv_request r = gfli_conv_request_of(calls, n, out->apart);
    out->kernel = gfli_conv_variants[choice.variant].name;
    out->variant = choice.variant;
    out->splits = choice.splits;
    out->scratch = gfli_conv_tensor_scratch(&r, choice);
    return GFL_OK;
}

static void gfli_tensor_conv(gfl_context *context, const gfli_conv_call *calls, int n,
                             const gfli_conv_means *means, void *scratch) {
    const gfli_cuda *d = gfli_cuda_of(context);
    const gfli_conv_choice choice = {means->variant, means->splits};
    const gfli_conv_request r = gfli_conv_request_of(calls, n, means->apart);
    gfli_conv_operands sides[GFLI_CONV_SIDES];
    memset(sides, 0, sizeof sides);
    for (int i = 0; i < n; i++) {
        sides[i].x = calls[i].x->data;
        sides[i].residual = calls[i].residual ? calls[i].residual->data : NULL;
        sides[i].packing = calls[i].packing;
        sides[i].offset = calls[i].offset ? calls[i].offset->data : NULL;
        sides[i].bias = calls[i].bias;
        sides[i].y = calls[i].y->data;
        sides[i].stats = calls[i].stats;
    }
    (void)gfli_cuda_note(context,
                         gfli_conv_tensor_run(d->stream, &d->conv, &r, choice, sides, calls[0].eps,
                                              scratch),
                         "a convolution");
}

static void gfli_conv_cuda(gfl_context *context, const gfli_conv_call *calls, int n,
                           const gfli_conv_means *means, void *scratch) {
    if (!gfli_cuda_ready(context)) return;
    if (gfli_cuda_on_tensor(context))
        gfli_tensor_conv(context, calls, n, means, scratch);
    else
        for (int i = 0; i < n; i++) gfli_fp32_conv(context, &calls[i]);
    for (int i = 0; i < n && means->apart; i++)
        if (calls[i].norm_groups > 0 && gfli_cuda_ready(context))
            gfli_norm_stats_cuda(context, calls[i].y, calls[i].norm_groups, calls[i].eps,
                                 calls[i].stats);
}
