/* operations.cuh - the kernels of pointwise.cuh as operations */
#pragma once

static void gfli_max_pool_cuda(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    if (!gfli_cuda_ready(context)) return;
    GFLI_LAUNCH((gfli_max_pool_kernel), gfli_pointwise_blocks(y), GFLI_POINTWISE_THREADS, 0,
                gfli_cuda_of(context)->stream, x->data, gfli_sizes_of(x), y->data, gfli_sizes_of(y),
                (int)y->element);
    gfli_cuda_launched(context, "max pooling");
}

static void gfli_upsample_add_cuda(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    if (!gfli_cuda_ready(context)) return;
    GFLI_LAUNCH((gfli_upsample_add_kernel), gfli_pointwise_blocks(y), GFLI_POINTWISE_THREADS, 0,
                gfli_cuda_of(context)->stream, x->data, gfli_sizes_of(x), y->data, gfli_sizes_of(y),
                (int)y->element);
    gfli_cuda_launched(context, "upsampling");
}

static void gfli_norm_stats_cuda(gfl_context *context, const gfli_map *x, int groups, float eps,
                                 float *stats) {
    GFLI_LAUNCH((gfli_norm_stats_kernel), (unsigned)(x->levels * x->n * groups),
                GFLI_POINTWISE_THREADS, 0, gfli_cuda_of(context)->stream, x->data, gfli_sizes_of(x),
                groups, eps, stats, (int)x->element);
    gfli_cuda_launched(context, "group norm's statistics");
}

static void gfli_group_norm_cuda(gfl_context *context, const gfli_map *x, int groups, float eps,
                                 const float *gamma, const float *beta, const gfli_map *y,
                                 float *stats, bool given) {
    if (!gfli_cuda_ready(context)) return;
    if (!given) gfli_norm_stats_cuda(context, x, groups, eps, stats);
    GFLI_LAUNCH((gfli_norm_apply_kernel), gfli_pointwise_blocks(x), GFLI_POINTWISE_THREADS, 0,
                gfli_cuda_of(context)->stream, x->data, gfli_sizes_of(x), groups, gamma, beta,
                stats, y->data, (int)x->element);
    gfli_cuda_launched(context, "group norm");
}

static void gfli_level_scale_cuda(gfl_context *context, const gfli_map *x, const float *scale,
                                  const gfli_map *y) {
    if (!gfli_cuda_ready(context)) return;
    GFLI_LAUNCH((gfli_level_scale_kernel), gfli_pointwise_blocks(y), GFLI_POINTWISE_THREADS, 0,
                gfli_cuda_of(context)->stream, x->data, gfli_sizes_of(x), scale, y->data,
                (int)y->element);
    gfli_cuda_launched(context, "level scales");
}
