/* fold.cuh - a frozen batch norm as scale and bias */
#pragma once

static __global__ void gfli_fold_norm_kernel(const GFLI_GRID_CONSTANT gfli_norm_fold f) {
    const int o = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (o < f.channels)
        gfli_fold_channel(f.gamma[o], f.beta[o], f.mean[o], f.var[o], f.eps, &f.scale[o],
                          &f.bias[o]);
}

static void gfli_fold_norm_cuda(gfl_context *context, const gfli_norm_fold *f) {
    if (!gfli_cuda_ready(context)) return;
    GFLI_LAUNCH((gfli_fold_norm_kernel), gfli_blocks((size_t)f->channels), GFLI_THREADS, 0,
                gfli_cuda_of(context)->stream, *f);
    gfli_cuda_launched(context, "folding batch norm");
}
