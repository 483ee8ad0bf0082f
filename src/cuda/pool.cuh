/* pool.cuh - max pooling and upsampling */
#pragma once

static __global__ void gfli_max_pool_kernel(const void *x, const GFLI_GRID_CONSTANT gfli_sizes in,
                                            void *y, const GFLI_GRID_CONSTANT gfli_sizes out,
                                            int element) {
    gfli_place p;
    const size_t index = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (!gfli_place_of(&out, index, element, &p)) return;
    const int h = in.h[p.level], w = in.w[p.level];
    const size_t image = in.before[p.level] + (size_t)p.image * (size_t)h * (size_t)w;
    float best[8], v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) best[i] = -INFINITY;
    for (int tap = 0; tap < 9; tap++) {
        const int yy = p.y * 2 - 1 + tap / 3, xx = p.x * 2 - 1 + tap % 3;
        if (yy < 0 || xx < 0 || yy >= h || xx >= w) continue;
        const size_t at = image + (size_t)yy * (size_t)w + (size_t)xx;
        gfli_read_chunk(x, at * (size_t)in.c + (size_t)p.c, p.count, p.vector, element, v);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (i < p.count) best[i] = v[i] > best[i] || v[i] != v[i] ? v[i] : best[i];
        }
    }
    gfli_write_chunk(y, p.at, p.count, p.vector, element, best);
}

static void gfli_max_pool_cuda(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    if (!gfli_cuda_ready(context)) return;
    GFLI_LAUNCH((gfli_max_pool_kernel), gfli_pointwise_blocks(y), GFLI_POINTWISE_THREADS, 0,
                gfli_cuda_of(context)->stream, x->data, gfli_sizes_of(x), y->data, gfli_sizes_of(y),
                (int)y->element);
    gfli_cuda_launched(context, "max pooling");
}

/* ---- upsample -------------------------------------------------------------------------------- */

static __global__ void gfli_upsample_add_kernel(const void *x,
                                                const GFLI_GRID_CONSTANT gfli_sizes in, void *y,
                                                const GFLI_GRID_CONSTANT gfli_sizes out,
                                                int element) {
    gfli_place p;
    const size_t index = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (!gfli_place_of(&out, index, element, &p)) return;
    const int h = in.h[p.level], w = in.w[p.level];
    const int yy = gfli_nearest(p.y, h, out.h[p.level]);
    const int xx = gfli_nearest(p.x, w, out.w[p.level]);
    const size_t at =
        in.before[p.level] + ((size_t)p.image * (size_t)h + (size_t)yy) * (size_t)w + (size_t)xx;
    float a[8], b[8];
    gfli_read_chunk(x, at * (size_t)in.c + (size_t)p.c, p.count, p.vector, element, a);
    gfli_read_chunk(y, p.at, p.count, p.vector, element, b);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i < p.count) b[i] += a[i];
    }
    gfli_write_chunk(y, p.at, p.count, p.vector, element, b);
}

static void gfli_upsample_add_cuda(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    if (!gfli_cuda_ready(context)) return;
    GFLI_LAUNCH((gfli_upsample_add_kernel), gfli_pointwise_blocks(y), GFLI_POINTWISE_THREADS, 0,
                gfli_cuda_of(context)->stream, x->data, gfli_sizes_of(x), y->data, gfli_sizes_of(y),
                (int)y->element);
    gfli_cuda_launched(context, "upsampling");
}
