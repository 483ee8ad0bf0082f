/* backend.c - the CPU as a device, and its table of inference operations */
#pragma once

static gfl_status gfli_open_cpu(gfl_context *context, const gfl_context_desc *desc) {
    if (desc->device_index != 0)
        return gfli_error(context, GFL_E_DEVICE, "device_index is %d; the CPU has only index 0",
                          desc->device_index);
    if (desc->precision != GFL_PRECISION_FP32)
        return gfli_error(context, GFL_E_UNSUPPORTED, "the CPU computes in fp32 only");
    GFLI_TRY(gfli_choose_kernels(context, desc->kernel));
    snprintf(context->device_name, sizeof context->device_name, "CPU, %s, %d threads",
             gfli_kernels_of(context)->title, context->n_threads);
    return GFL_OK;
}

static void gfli_close_cpu(gfl_context *context) {
    (void)context;
}

static void gfli_copy_cpu(gfl_context *context, void *to, const void *from, size_t bytes) {
    (void)context;
    memcpy(to, from, bytes);
}

static void gfli_zero_cpu(gfl_context *context, void *to, size_t bytes) {
    (void)context;
    if (bytes > 0) memset(to, 0, bytes);
}

static gfl_status gfli_finish_cpu(gfl_context *context) {
    (void)context;
    return GFL_OK;
}

const gfli_backend gfli_cpu = {
    GFL_ABI,
    GFLI_BACKEND_VERSION,
    "cpu",
    false,
    {
        gfli_open_cpu,
        gfli_close_cpu,
        gfli_alloc,
        gfli_free,
        gfli_alloc,
        gfli_free,
        NULL,
        gfli_copy_cpu,
        gfli_copy_cpu,
        gfli_zero_cpu,
        gfli_finish_cpu,
        NULL,
    },
    NULL,
    {
        gfli_conv_packed_size_cpu,
        gfli_conv_pack_cpu,
        gfli_fold_norm_cpu,
        gfli_conv_prepare_cpu,
        gfli_conv_cpu,
        gfli_max_pool_cpu,
        gfli_upsample_add_cpu,
        gfli_group_norm_cpu,
        gfli_level_scale_cpu,
        gfli_resize_scratch_cpu,
        gfli_resize_cpu,
        gfli_normalise_cpu,
        gfli_decode_scratch_cpu,
        gfli_decode_cpu,
    },
    NULL,
};
