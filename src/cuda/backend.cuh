/* backend.cuh - CUDA's table of inference operations */
#pragma once

static const gfli_record_ops gfli_record_table = {
    gfli_record_cuda,
    gfli_recorded_cuda,
    gfli_replay_cuda,
    gfli_forget_cuda,
};

static const gfli_backend gfli_cuda_table = {
    GFL_ABI,
    GFLI_BACKEND_VERSION,
    "cuda",
    true,
    {
        gfli_open_cuda,
        gfli_close_cuda,
        gfli_alloc_cuda,
        gfli_free_cuda,
        gfli_host_alloc_cuda,
        gfli_host_free_cuda,
        gfli_owns_cuda,
        gfli_upload_cuda,
        gfli_download_cuda,
        gfli_zero_cuda,
        gfli_finish_cuda,
        gfli_mark_cuda,
    },
    &gfli_record_table,
    {
    gfli_conv_packed_size_cuda,
    gfli_conv_pack_cuda,
    gfli_fold_norm_cuda,
    gfli_conv_prepare_cuda,
    gfli_conv_cuda,
    gfli_max_pool_cuda,
    gfli_upsample_add_cuda,
    gfli_group_norm_cuda,
    gfli_level_scale_cuda,
    gfli_resize_scratch_cuda,
    gfli_resize_cuda,
    gfli_normalise_cuda,
    gfli_decode_scratch_cuda,
    gfli_decode_cuda,
    },
    NULL,
};

const gfl_backend *gfl_cuda(void) {
    return &gfli_cuda_table;
}
