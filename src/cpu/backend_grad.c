/* backend_grad.c - the CPU's table of training operations */
#pragma once

const gfli_train_ops *gfli_train_ops_of(const gfl_context *context) {
    return context->backend == &gfli_cpu ? &gfli_cpu_train : context->backend->train;
}

const gfli_train_ops gfli_cpu_train = {
    GFLI_BACKEND_VERSION,
    gfli_conv_grad_packed_size_cpu,
    gfli_conv_grad_pack_cpu,
    gfli_conv_grad_scratch_cpu,
    gfli_conv_grad_input_cpu,
    gfli_conv_grad_weight_cpu,
    gfli_deform_conv_grad_packed_size_cpu,
    gfli_deform_conv_grad_pack_cpu,
    gfli_deform_conv_grad_scratch_cpu,
    gfli_deform_conv_grad_cpu,
    gfli_unfold_cpu,
    gfli_relu_grad_cpu,
    gfli_max_pool_grad_cpu,
    gfli_upsample_grad_cpu,
    gfli_group_norm_grad_scratch_cpu,
    gfli_group_norm_grad_cpu,
    gfli_level_scale_grad_cpu,
    gfli_assign_scratch_cpu,
    gfli_assign_cpu,
    gfli_losses_scratch_cpu,
    gfli_loss_sums_cpu,
    gfli_losses_cpu,
    gfli_accumulate_cpu,
    gfli_check_update_cpu,
    gfli_update_cpu,
};
