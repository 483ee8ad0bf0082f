/* norm.cuh - GroupNorm and level scales */
#pragma once

/* The statistics of a map that no convolution left: a block an image of a level and group, which
 * reads it twice; the second time tells how far off the mean of the first is.  Threads add in a
 * fixed order, then in pairs. */
static __device__ __forceinline__ float gfli_block_sum(float v, float *part) {
    const int lane = (int)(threadIdx.x % 32), warp = (int)(threadIdx.x / 32);
    for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    __syncthreads();
    if (lane == 0) part[warp] = v;
    __syncthreads();
    v = 0.0f;
    for (int i = 0; i < GFLI_POINTWISE_THREADS / 32; i++) v += part[i];
    return v;
}

static __global__ void gfli_norm_stats_kernel(const void *x, const GFLI_GRID_CONSTANT gfli_sizes s,
                                              int groups, float eps, float *stats, int element) {
    GFLI_SHARED(float, part, [GFLI_POINTWISE_THREADS / 32]);
    const int item = (int)blockIdx.x, width = s.c / groups, group = item % groups;
    const int plane = item / groups, level = plane / s.n, area = s.h[level] * s.w[level];
    const size_t first = s.before[level] + (size_t)(plane % s.n) * (size_t)area;
    const float n = (float)(area * width);
    float sum = 0.0f, squares = 0.0f;
    for (int i = (int)threadIdx.x; i < area * width; i += GFLI_POINTWISE_THREADS)
        sum += gfli_read_element(
            x, (first + (size_t)(i / width)) * (size_t)s.c + (size_t)(group * width + i % width),
            element);
    const float mean = gfli_block_sum(sum, part) / n;
    sum = 0.0f;
    for (int i = (int)threadIdx.x; i < area * width; i += GFLI_POINTWISE_THREADS) {
        const float d = gfli_read_element(x,
                                          (first + (size_t)(i / width)) * (size_t)s.c +
                                              (size_t)(group * width + i % width),
                                          element) -
                        mean;
        sum += d;
        squares += d * d;
    }
    const float off = gfli_block_sum(sum, part) / n;
    const float variance = gfli_block_sum(squares, part) / n - off * off;
    if (threadIdx.x > 0) return;
    stats[2 * item] = mean + off;
    stats[2 * item + 1] = 1.0f / sqrtf((variance > 0.0f ? variance : 0.0f) + eps);
}

static void gfli_norm_stats_cuda(gfl_context *context, const gfli_map *x, int groups, float eps,
                                 float *stats) {
    GFLI_LAUNCH((gfli_norm_stats_kernel), (unsigned)(x->levels * x->n * groups),
                GFLI_POINTWISE_THREADS, 0, gfli_cuda_of(context)->stream, x->data, gfli_sizes_of(x),
                groups, eps, stats, (int)x->element);
    gfli_cuda_launched(context, "group norm's statistics");
}

/* relu(gamma * (x - mean) / deviation + beta) with the statistics of gfli_conv_stats_kernel. */
static __global__ void gfli_norm_apply_kernel(const void *x, const GFLI_GRID_CONSTANT gfli_sizes s,
                                              int groups, const float *gamma, const float *beta,
                                              const float *stats, void *y, int element) {
    gfli_place p;
    const size_t index = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (!gfli_place_of(&s, index, element, &p)) return;
    const int width = s.c / groups;
    const float *plane = stats + (size_t)(p.level * s.n + p.image) * (size_t)groups * 2;
    float v[8];
    gfli_read_chunk(x, p.at, p.count, p.vector, element, v);
    const float *of_group = plane + p.c / width * 2;
    int left = width - p.c % width; /* channels of that group */
    float mean = of_group[0], rate = of_group[1];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i >= p.count) continue;
        if (left == 0) {
            of_group += 2;
            left = width;
            mean = of_group[0];
            rate = of_group[1];
        }
        left--;
        v[i] = (v[i] - mean) * (rate * gamma[p.c + i]) + beta[p.c + i];
        v[i] = v[i] < 0.0f ? 0.0f : v[i];
    }
    gfli_write_chunk(y, p.at, p.count, p.vector, element, v);
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

/* ---- level scale ----------------------------------------------------------------------------- */

static __global__ void gfli_level_scale_kernel(const void *x, const GFLI_GRID_CONSTANT gfli_sizes s,
                                               const float *scale,
                                               void *y, int element) {
    gfli_place p;
    const size_t index = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (!gfli_place_of(&s, index, element, &p)) return;
    float v[8];
    gfli_read_chunk(x, p.at, p.count, p.vector, element, v);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] *= scale[p.level * GFLI_BLOCK_STEP];
    gfli_write_chunk(y, p.at, p.count, p.vector, element, v);
}

static void gfli_level_scale_cuda(gfl_context *context, const gfli_map *x, const float *scale,
                                  const gfli_map *y) {
    if (!gfli_cuda_ready(context)) return;
    GFLI_LAUNCH((gfli_level_scale_kernel), gfli_pointwise_blocks(y), GFLI_POINTWISE_THREADS, 0,
                gfli_cuda_of(context)->stream, x->data, gfli_sizes_of(x), scale, y->data,
                (int)y->element);
    gfli_cuda_launched(context, "level scales");
}
