/* backend.c - the CPU's table of inference operations */
#pragma once

const gfli_backend gfli_cpu = {
    GFLI_BACKEND_VERSION,
    "cpu",
    gfli_conv_packed_size_cpu,
    gfli_conv_pack_cpu,
    gfli_conv_scratch_cpu,
    gfli_conv_cpu,
    gfli_deform_conv_scratch_cpu,
    gfli_deform_conv_cpu,
    gfli_max_pool_cpu,
    gfli_upsample_add_cpu,
    gfli_group_norm_cpu,
    gfli_level_scale_cpu,
    gfli_resize_scratch_cpu,
    gfli_resize_cpu,
    gfli_normalise_cpu,
    gfli_decode_scratch_cpu,
    gfli_decode_cpu,
    gfli_integral_cpu,
};
