/* pointwise.cuh - what stands between convolutions: pooling, upsampling, GroupNorm, level scales */
#pragma once

/* A thread takes a chunk of 16 bytes of one position where channels fill chunks, fewer elements
 * where they do not.  Arithmetic is float whatever the maps hold. */

enum { GFLI_POINTWISE_THREADS = 256 };

/* Chunks of a position, and of that chunk `i` the first channel and how many. */
static __host__ __device__ __forceinline__ int gfli_chunks_of(int c, int element) {
    const int width = element == GFLI_MAP_F32 ? 4 : 8;
    return (c + width - 1) / width;
}

/* Pyramids as kernels see them. */
typedef struct gfli_sizes {
    int n, c, levels;
    int h[GFL_LEVELS], w[GFL_LEVELS];
    size_t before[GFL_LEVELS + 1]; /* positions */
} gfli_sizes;

static gfli_sizes gfli_sizes_of(const gfli_map *m) {
    gfli_sizes s;
    memset(&s, 0, sizeof s);
    s.n = m->n;
    s.c = m->c;
    s.levels = m->levels;
    for (int l = 0; l < m->levels; l++) {
        s.h[l] = m->h[l];
        s.w[l] = m->w[l];
        s.before[l] = gfli_points_before(m, l);
    }
    s.before[m->levels] = gfli_points(m);
    return s;
}

/* The chunk of thread `index`. */
typedef struct gfli_place {
    int level, image, y, x;
    int c, count; /* channels */
    size_t at;    /* of channel c, in elements */
    bool vector;
} gfli_place;

static __device__ __forceinline__ bool gfli_place_of(const gfli_sizes *s, size_t index, int element,
                                                     gfli_place *p) {
    const int chunks = gfli_chunks_of(s->c, element), width = element == GFLI_MAP_F32 ? 4 : 8;
    const size_t position = index >> 32 ? index / (size_t)chunks /* slow where it can be avoided */
                                        : (unsigned)index / (unsigned)chunks;
    if (position >= s->before[s->levels]) return false;
    p->level = 0;
    while (position >= s->before[p->level + 1]) p->level++;
    const int w = s->w[p->level], h = s->h[p->level];
    const int in_level = (int)(position - s->before[p->level]);
    p->image = in_level / (h * w);
    p->y = in_level % (h * w) / w;
    p->x = in_level % w;
    p->c = (int)(index - position * (size_t)chunks) * width;
    p->count = s->c - p->c < width ? s->c - p->c : width;
    p->at = position * (size_t)s->c + (size_t)p->c;
    p->vector = s->c % width == 0;
    return true;
}

static unsigned gfli_pointwise_blocks(const gfli_map *m) {
    const size_t n = gfli_points(m) * (size_t)gfli_chunks_of(m->c, (int)m->element);
    return (unsigned)((n + GFLI_POINTWISE_THREADS - 1) / GFLI_POINTWISE_THREADS);
}

/* ---- max pool -------------------------------------------------------------------------------- */

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

/* ---- GroupNorm ------------------------------------------------------------------------------- */

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
