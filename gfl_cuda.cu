/* Generated from src/gfl_cuda.cu by "make amalgamate".  Edit src/, not this file. */
/* gfl_cuda.cu - Generalized Focal Loss on NVIDIA GPUs
 *
 * SPDX-License-Identifier: MIT
 *
 * Compile it with nvcc, beside gfl.h, into a program that has gfl.h's implementation:
 *
 *     nvcc -O3 -arch=sm_90a -c gfl_cuda.cu
 *
 * and give gfl_cuda() to gfl_context_create.  libcuda is not linked: a program with this file in it
 * starts where there is no driver, and gfl_context_create says so there.
 */
#ifndef GFL_INTERNAL
#define GFL_INTERNAL
#endif
#include "gfl.h"
#if GFL_VERSION != 200
#    error "this file is of gfl 0.2.0 and gfl.h is not: take both from one release"
#endif

/* ===============================================================================================
 * src/cuda/std.h - CUDA's headers for the GPU backend
 * ============================================================================================ */

#include <cudaTypedefs.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

GFLI_HIDDEN_BEGIN

/* ===============================================================================================
 * src/cuda/gpu.cuh - launches, shared memory and the instructions that CUDA C++ has no words for
 * ============================================================================================ */

/* The only place for these, besides conv/wgmma.cuh.  A host compiler gets the same names from
 * tests/emu, which runs the kernels on the CPU; nothing else differs there. */
#ifdef __CUDACC__

/* GFLI_LAUNCH((kernel), grid, block, shared bytes, stream, arguments) */
#    define GFLI_UNPAREN(...) __VA_ARGS__
#    define GFLI_LAUNCH(kernel, grid, block, shared, stream, ...)                                  \
        GFLI_UNPAREN kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
/* T name dims; for example GFLI_SHARED(float, part, [32]) */
#    define GFLI_SHARED(T, name, dims) __shared__ T name dims
/* The launch's dynamic shared memory; the alignment is what the copy engine's swizzle wants. */
#    define GFLI_DYN_SHARED(T, name)                                                               \
        extern __shared__ __align__(1024) unsigned char gfli_dyn_shared[];                         \
        T *name = (T *)(void *)gfli_dyn_shared
#    define GFLI_GRID_CONSTANT __grid_constant__

/* d (16x8, float) += a (16x16) times b (16x8, columns): a warp holds one fragment of each. */
static __device__ __forceinline__ void gfli_mma_bf16(float d[4], const unsigned a[4],
                                                     const unsigned b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void gfli_mma_fp16(float d[4], const unsigned a[4],
                                                     const unsigned b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* d (16x8) += a (16x8) times b (8x8, columns). */
static __device__ __forceinline__ void gfli_mma_tf32(float d[4], const unsigned a[4],
                                                     const unsigned b[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* A float's bits with 10 bits of mantissa, rounded to nearest, ties away from zero. */
static __device__ __forceinline__ unsigned gfli_to_tf32(unsigned bits) {
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(r) : "f"(__uint_as_float(bits)));
    return r;
}

/* Four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8. */
static __device__ __forceinline__ void gfli_ldmatrix_x4(unsigned r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}

/* 16 bytes from global to shared memory, some time before the wait; only the first `bytes` (0 or
 * 16) are read, the others become zero. */
static __device__ __forceinline__ void gfli_cp_async16(void *to, const void *from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(
                     (unsigned)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(bytes)
                 : "memory");
}

/* Close a group of copies; wait until at most n of the thread's groups are under way. */
static __device__ __forceinline__ void gfli_cp_commit(void) {
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
#    define gfli_cp_wait(n) asm volatile("cp.async.wait_group %0;\n" ::"n"(n) : "memory")

#endif /* __CUDACC__ */

/* ===============================================================================================
 * src/cuda/map.cuh - maps as kernels see them: elements, chunks and positions
 * ============================================================================================ */

/* Between convolutions a thread takes a chunk of 16 bytes of one position where channels fill
 * chunks, fewer elements where they do not.  Arithmetic is float whatever the maps hold. */
enum { GFLI_CHUNK_BYTES = 16, GFLI_POINTWISE_THREADS = 256 };

static __device__ __forceinline__ int gfli_element_size(int element) {
    return element == GFLI_MAP_F32 ? 4 : 2;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static __device__ __forceinline__ float gfli_from_bits(unsigned bits, int element) {
    if (element == GFLI_MAP_BF16) return __uint_as_float(bits << 16);
    if (element == GFLI_MAP_FP16) return __half2float(__ushort_as_half((unsigned short)bits));
    return __uint_as_float(bits);
}

static __device__ __forceinline__ unsigned gfli_to_bits(float v, int element) {
    if (element == GFLI_MAP_BF16) return __bfloat16_as_ushort(__float2bfloat16_rn(v));
    if (element == GFLI_MAP_FP16) return __half_as_ushort(__float2half_rn(v));
    return __float_as_uint(v);
}

static __device__ __forceinline__ float gfli_read_element(const void *p, size_t i, int element) {
    if (element == GFLI_MAP_F32) return ((const float *)p)[i];
    return gfli_from_bits(((const unsigned short *)p)[i], element);
}

static __device__ __forceinline__ void gfli_write_element(void *p, size_t i, float v, int element) {
    if (element == GFLI_MAP_F32)
        ((float *)p)[i] = v;
    else
        ((unsigned short *)p)[i] = (unsigned short)gfli_to_bits(v, element);
}

/* The elements of one 16-byte chunk: four floats or eight halves. */
static __device__ __forceinline__ void gfli_unpack_chunk(uint4 chunk, int element, float v[8]) {
    const unsigned w[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (element == GFLI_MAP_F32) {
            v[i] = __uint_as_float(w[i]);
        } else {
            v[2 * i] = gfli_from_bits(w[i] & 0xffffu, element);
            v[2 * i + 1] = gfli_from_bits(w[i] >> 16, element);
        }
    }
}

static __device__ __forceinline__ uint4 gfli_pack_chunk(const float v[8], int element) {
    unsigned w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (element == GFLI_MAP_F32)
            w[i] = __float_as_uint(v[i]);
        else
            w[i] = gfli_to_bits(v[2 * i], element) | gfli_to_bits(v[2 * i + 1], element) << 16;
    }
    return make_uint4(w[0], w[1], w[2], w[3]);
}

/* `count` elements from p + at, no more than a chunk has; the vector form where the address allows
 * it.  Loops have a constant number of turns, so that v stays in registers. */
static __device__ __forceinline__ void gfli_read_chunk(const void *p, size_t at, int count,
                                                       bool vector, int element, float v[8]) {
    const int size = gfli_element_size(element), width = GFLI_CHUNK_BYTES / size;
    if (vector && count == width) {
        const unsigned char *from = (const unsigned char *)p + at * (size_t)size;
        gfli_unpack_chunk(*(const uint4 *)(const void *)from, element, v);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = i < count ? gfli_read_element(p, at + (size_t)i, element) : 0.0f;
}

static __device__ __forceinline__ void gfli_write_chunk(void *p, size_t at, int count, bool vector,
                                                        int element, const float v[8]) {
    const int size = gfli_element_size(element), width = GFLI_CHUNK_BYTES / size;
    if (vector && count == width) {
        unsigned char *to = (unsigned char *)p + at * (size_t)size;
        *(uint4 *)(void *)to = gfli_pack_chunk(v, element);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i < count) gfli_write_element(p, at + (size_t)i, v[i], element);
    }
}

/* ---- positions ------------------------------------------------------------------------------- */

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

/* ===============================================================================================
 * src/cuda/conv/tile.cuh - how a convolution is cut into tiles, and what becomes of a finished one
 * ============================================================================================ */

/* The tensor cores multiply what maps hold, floats as tf32; sums are float always.
 *
 * A row of an operand in shared memory is 128 bytes, eight chunks of 16, whatever the type; chunk
 * c of row r is stored at place c ^ r % 8.  That is the 128-byte swizzle of the copy engine and of
 * wgmma, and no eight neighbouring rows meet in a bank. */
enum {
    GFLI_ROW_BYTES = 128,
    GFLI_ROW_CHUNKS = 8,
    GFLI_CONV_SIDES = 2,
    GFLI_TILE_PAD = 8,    /* floats at the end of a row of sums, against bank conflicts */
    GFLI_PATCH_WIDTH = 16 /* of the patches of a deformable convolution */
};

/* One level of the pyramid.  A tile is a run of positions of one image of one level, or a patch of
 * GFLI_PATCH_WIDTH columns: it never straddles images. */
typedef struct gfli_tile_level {
    int first, per_image; /* tiles: number of the first, and how many an image has */
    int patch_cols;       /* patches from left to right; 0: runs */
    int in_h, in_w, out_h, out_w;
    size_t in, out; /* positions before the level, all images */
} gfli_tile_level;

/* One of up to two convolutions of equal geometry in a launch: the head's two towers. */
typedef struct gfli_conv_side {
    const void *x, *residual;
    const void *weight;  /* as gfli_conv_tensor_pack made them */
    const float *offset; /* deformable: [positions][offset_c], or NULL */
    const float *bias;   /* [out_c] or NULL */
    void *y;
    float *moments; /* [row tiles][out_c / norm_width][mean, sum of squares around it], or NULL */
    int out_c;
    int group_rows; /* rows of a packed group: its output channels rounded up */
} gfli_conv_side;

typedef struct gfli_conv_job {
    gfli_tile_level level[GFL_LEVELS];
    gfli_conv_side side[GFLI_CONV_SIDES];
    int n, levels, n_sides, n_splits;
    int row_tiles, col_tiles;
    int in_c, kernel, stride, pad;
    int group_in, group_out; /* channels of a group, after merging */
    int group_tiles;         /* column tiles of a group */
    int k_blocks;            /* rows of 128 bytes along the sum */
    int offset_c;            /* 18 or 27 where the convolution is deformable */
    int norm_width;          /* channels of a GroupNorm group */
    bool relu;
    bool wide;      /* y is float, whatever the element */
    float *partial; /* [tiles][n_splits][tile] */
    int *arrived;   /* [tiles], zero before and after */
} gfli_conv_job;

/* The piece of work of one block. */
typedef struct gfli_conv_tile {
    int level, side;
    int row_tile, split, image;
    int y, x;         /* of the first position; runs have y = 0 and count x through the image */
    int group, first; /* column tile: the group and its first output channel therein */
    int n_cols;       /* that exist */
} gfli_conv_tile;

static __device__ __forceinline__ int gfli_swizzle(int row, int chunk) {
    return row * GFLI_ROW_BYTES + ((chunk ^ (row & 7)) << 4);
}

/* Blocks that share rows of x are neighbours, so that the second finds them in the L2 cache. */
static __device__ __forceinline__ gfli_conv_tile gfli_tile_of_block(const gfli_conv_job *job,
                                                                    int rows, int cols) {
    gfli_conv_tile t;
    const int block = (int)blockIdx.x, number = block / job->n_splits;
    const int col_tile = number % job->col_tiles;
    t.side = number / job->col_tiles % job->n_sides;
    t.split = block % job->n_splits;
    t.row_tile = number / (job->col_tiles * job->n_sides);
    t.level = 0;
    while (t.level + 1 < job->levels && t.row_tile >= job->level[t.level + 1].first) t.level++;
    const gfli_tile_level *l = &job->level[t.level];
    const int in_level = t.row_tile - l->first;
    t.image = in_level / l->per_image;
    const int in_image = in_level % l->per_image;
    if (l->patch_cols > 0) {
        t.y = in_image / l->patch_cols * (rows / GFLI_PATCH_WIDTH);
        t.x = in_image % l->patch_cols * GFLI_PATCH_WIDTH;
    } else {
        t.y = 0;
        t.x = in_image * rows;
    }
    t.group = col_tile / job->group_tiles;
    t.first = col_tile % job->group_tiles * cols;
    const int left = (job->n_sides > 1 ? job->side[t.side].out_c : job->group_out) - t.first;
    t.n_cols = left < cols ? left : cols;
    return t;
}

/* Output position of a row of the tile within its image, or -1. */
static __device__ __forceinline__ int gfli_tile_position(const gfli_conv_job *job,
                                                         const gfli_conv_tile *t, int row) {
    const gfli_tile_level *l = &job->level[t->level];
    if (l->patch_cols == 0) {
        const int at = t->x + row;
        return at < l->out_h * l->out_w ? at : -1;
    }
    const int y = t->y + row / GFLI_PATCH_WIDTH, x = t->x + row % GFLI_PATCH_WIDTH;
    return y < l->out_h && x < l->out_w ? y * l->out_w + x : -1;
}

/* ---- a finished tile ------------------------------------------------------------------------- */

/* Sums is float [rows][cols + GFLI_TILE_PAD] in shared memory, complete at the call. */

/* Where the sum is split: every block leaves its part, the last one to arrive adds them up in the
 * order of the splits, whoever it is.  True in that block. */
static __device__ __forceinline__ bool gfli_tile_merge(const gfli_conv_job *job,
                                                       const gfli_conv_tile *t, float *sums,
                                                       int *last, int rows, int cols) {
    const int stride = cols + GFLI_TILE_PAD, step = (int)blockDim.x * 4;
    const size_t size = (size_t)(rows * cols);
    const int number = (int)blockIdx.x / job->n_splits;
    float *parts = job->partial + (size_t)number * (size_t)job->n_splits * size;
    float *own = parts + (size_t)t->split * size;
    for (int i = (int)threadIdx.x * 4; i < rows * cols; i += step)
        *(float4 *)&own[i] = *(const float4 *)&sums[i / cols * stride + i % cols];
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) *last = atomicAdd(&job->arrived[number], 1) == job->n_splits - 1;
    __syncthreads();
    if (!*last) return false;
    __threadfence();
    for (int i = (int)threadIdx.x * 4; i < rows * cols; i += step) {
        float4 a = *(const float4 *)&parts[i];
        for (int s = 1; s < job->n_splits; s++) {
            const float4 b = *(const float4 *)&parts[(size_t)s * size + (size_t)i];
            a.x += b.x;
            a.y += b.y;
            a.z += b.z;
            a.w += b.w;
        }
        *(float4 *)&sums[i / cols * stride + i % cols] = a;
    }
    if (threadIdx.x == 0) job->arrived[number] = 0;
    __syncthreads();
    return true;
}

/* `width` sums, four or eight, from an address of whole vectors. */
static __device__ __forceinline__ void gfli_read_sums(const float *sums, int width, float v[8]) {
#pragma unroll
    for (int j = 0; j < width; j += 4) {
        const float4 four = *(const float4 *)(const void *)&sums[j];
        v[j] = four.x;
        v[j + 1] = four.y;
        v[j + 2] = four.z;
        v[j + 3] = four.w;
    }
}

static __device__ __forceinline__ void gfli_write_sums(float *sums, int width, const float v[8]) {
#pragma unroll
    for (int j = 0; j < width; j += 4)
        *(float4 *)(void *)&sums[j] = make_float4(v[j], v[j + 1], v[j + 2], v[j + 3]);
}

/* `count` floats of a wide map; fours: they are whole vectors at addresses of such. */
static __device__ __forceinline__ void gfli_write_wide(float *y, int count, bool fours, int width,
                                                       const float v[8]) {
#pragma unroll
    for (int j = 0; j < width; j++) {
        if (j >= count) continue;
        if (!fours)
            y[j] = v[j];
        else if (j % 4 == 0)
            *(float4 *)(void *)&y[j] = make_float4(v[j], v[j + 1], v[j + 2], v[j + 3]);
    }
}

/* y = relu?(sums + bias + residual); where statistics follow, sums becomes what y holds.  The
 * threads of a block are a multiple of the chunks of a row, so each has a column of its own. */
static __device__ __forceinline__ void gfli_tile_store(const gfli_conv_job *job,
                                                       const gfli_conv_tile *t, float *sums,
                                                       int rows, int cols, int element) {
    const int width = GFLI_CHUNK_BYTES / gfli_element_size(element);
    const int stride = cols + GFLI_TILE_PAD, vectors = cols / width;
    const gfli_conv_side *side = &job->side[t->side];
    const int channel = t->group * job->group_out + t->first;
    const bool vector = side->out_c % width == 0 && channel % width == 0;
    const size_t image =
        job->level[t->level].out +
        (size_t)t->image * (size_t)(job->level[t->level].out_h * job->level[t->level].out_w);
    const int col = (int)(threadIdx.x % (unsigned)vectors) * width;
    const int count = t->n_cols - col < width ? t->n_cols - col : width;
    const bool fours = side->out_c % 4 == 0 && channel % 4 == 0 && count % 4 == 0;
    if (count <= 0) return;
    float bias[8];
#pragma unroll
    for (int j = 0; j < width; j++)
        bias[j] = side->bias && j < count ? side->bias[channel + col + j] : 0.0f;
#pragma unroll 1
    for (int row = (int)(threadIdx.x / (unsigned)vectors); row < rows;
         row += (int)(blockDim.x / (unsigned)vectors)) {
        const int position = gfli_tile_position(job, t, row);
        if (position < 0) continue;
        const size_t at =
            (image + (size_t)position) * (size_t)side->out_c + (size_t)(channel + col);
        float *sum = &sums[row * stride + col], r[8], v[8];
        if (side->residual) gfli_read_chunk(side->residual, at, count, vector, element, r);
        gfli_read_sums(sum, width, v);
#pragma unroll
        for (int j = 0; j < width; j++) {
            v[j] += bias[j];
            if (side->residual) v[j] += r[j];
            if (job->relu) v[j] = v[j] < 0.0f ? 0.0f : v[j]; /* a NaN stays one */
        }
        if (job->wide && element != GFLI_MAP_F32)
            gfli_write_wide((float *)side->y + at, count, fours, width, v);
        else
            gfli_write_chunk(side->y, at, count, vector, element, v);
        if (!side->moments) continue;
#pragma unroll
        for (int j = 0; j < width; j++) {
            if (!job->wide) v[j] = gfli_from_bits(gfli_to_bits(v[j], element), element);
        }
        gfli_write_sums(sum, width, v);
    }
}

/* Mean of each GroupNorm group over the tile, and the sum of squares around it: the variance of a
 * tile far from zero loses nothing.  A thread sums a column (or a part of it) downwards, so the
 * order never changes. */
static __device__ __forceinline__ void gfli_tile_moments(const gfli_conv_job *job,
                                                         const gfli_conv_tile *t, const float *sums,
                                                         float *columns, int rows, int cols) {
    const int stride = cols + GFLI_TILE_PAD, width = job->norm_width;
    const int parts = (int)blockDim.x > cols ? (int)(blockDim.x / (unsigned)cols) : 1;
    const int part = (int)(threadIdx.x / (unsigned)cols), col = (int)(threadIdx.x % (unsigned)cols);
    const int left = job->level[t->level].out_h * job->level[t->level].out_w - t->x;
    const int n_rows = left < rows ? left : rows;
    const int from = n_rows * part / parts, to = n_rows * (part + 1) / parts;
    const int group = col / width, n_groups = job->side[t->side].out_c / width;
    const bool own = part < parts && (group + 1) * width <= t->n_cols;
    float sum = 0.0f, squares = 0.0f, mean = 0.0f;
    for (int row = from; own && row < to; row++) sum += sums[row * stride + col];
    if (part < parts) columns[part * cols + col] = sum;
    __syncthreads();
    if (own) {
        for (int p = 0; p < parts; p++)
            for (int j = 0; j < width; j++) mean += columns[p * cols + group * width + j];
        mean /= (float)(n_rows * width);
    }
    __syncthreads();
    for (int row = from; own && row < to; row++) {
        const float d = sums[row * stride + col] - mean;
        squares += d * d;
    }
    if (part < parts) columns[part * cols + col] = squares;
    __syncthreads();
    if (own && part == 0 && col % width == 0) {
        const int channel = t->group * job->group_out + t->first + col;
        float all = 0.0f;
        for (int p = 0; p < parts; p++)
            for (int j = 0; j < width; j++) all += columns[p * cols + col + j];
        float *out = job->side[t->side].moments +
                     ((size_t)t->row_tile * (size_t)n_groups + (size_t)(channel / width)) * 2;
        out[0] = mean;
        out[1] = all;
    }
}

/* All of it.  columns: one float a thread. */
static __device__ __forceinline__ void gfli_tile_finish(const gfli_conv_job *job,
                                                        const gfli_conv_tile *t, float *sums,
                                                        float *columns, int rows, int cols,
                                                        int element) {
    if (job->n_splits > 1 && !gfli_tile_merge(job, t, sums, (int *)(void *)columns, rows, cols))
        return;
    gfli_tile_store(job, t, sums, rows, cols, element);
    if (!job->side[t->side].moments) return;
    __syncthreads();
    gfli_tile_moments(job, t, sums, columns, rows, cols);
}

/* ===============================================================================================
 * src/cuda/conv/mma.cuh - implicit-GEMM convolution on the tensor cores by mma.sync, sm_80 and later
 * ============================================================================================ */

/* A block of 256 threads computes rows x cols sums.  Both operands pass through shared memory in
 * blocks of one 128-byte row along the sum, several blocks deep; a block of the sum is one filter
 * tap of one 128-byte run of channels, taps innermost, so that neighbouring blocks touch the same
 * pixels.  The bodies are inlined into kernels that give every size as a literal. */

enum {
    GFLI_CONV_THREADS = 256,
    GFLI_CONV_STAGES = 3,
    GFLI_MAX_ROWS_A_THREAD = 4 /* 128 rows, 32 at a time */
};

/* How the rows of x come into shared memory. */
enum {
    GFLI_LOAD_CHUNKS,   /* asynchronous copies of 16 bytes: channels of a group fill chunks */
    GFLI_LOAD_ELEMENTS, /* one by one, the sum runs through taps and channels: any shape */
    GFLI_LOAD_DEFORMED, /* bilinear samples */
    GFLI_LOAD_ENGINE    /* by the copy engine (wgmma.cuh) */
};

/* One deformable sample: where its four corners are, clamped into the map, and their weights,
 * times the mask; 0 outside. */
typedef struct gfli_sample_weights {
    float weight[4];
} gfli_sample_weights;

/* The rows that a thread loads, and how far along the sum it is. */
typedef struct gfli_conv_load {
    const unsigned char *x;         /* the image, from the group's first channel on */
    const unsigned char *weight;    /* of the column tile, the next block */
    int y[GFLI_MAX_ROWS_A_THREAD];  /* of the input under tap 0, far outside for rows that */
    int x0[GFLI_MAX_ROWS_A_THREAD]; /* are not there */
    int block, run, ky, kx;         /* next block of the sum */
    const gfli_sample_weights *samples; /* [taps][rows] */
    const int *corners;             /* [taps][rows] */
} gfli_conv_load;

static __device__ __forceinline__ void gfli_load_begin(gfli_conv_load *s, const gfli_conv_job *job,
                                                       const gfli_conv_tile *t, int rows,
                                                       int element, int first_block) {
    const gfli_tile_level *l = &job->level[t->level];
    const size_t image = l->in + (size_t)t->image * (size_t)(l->in_h * l->in_w);
    const size_t size = (size_t)gfli_element_size(element);
    const int taps = job->kernel * job->kernel;
    s->x = (const unsigned char *)job->side[t->side].x +
           (image * (size_t)job->in_c + (size_t)(t->group * job->group_in)) * size;
    s->weight = (const unsigned char *)job->side[t->side].weight +
                (((size_t)t->group * (size_t)job->k_blocks + (size_t)first_block) *
                     (size_t)job->side[t->side].group_rows +
                 (size_t)t->first) *
                    GFLI_ROW_BYTES;
    s->block = first_block;
    s->run = first_block / taps;
    s->ky = first_block % taps / job->kernel;
    s->kx = first_block % taps % job->kernel;
    s->samples = NULL;
    s->corners = NULL;
#pragma unroll
    for (int i = 0; i < rows / 32; i++) {
        const int position =
            gfli_tile_position(job, t, (int)(threadIdx.x / GFLI_ROW_CHUNKS) + 32 * i);
        s->y[i] = position < 0 ? -32768 : position / l->out_w * job->stride - job->pad;
        s->x0[i] = position < 0 ? 0 : position % l->out_w * job->stride - job->pad;
    }
}

static __device__ __forceinline__ void gfli_load_next(gfli_conv_load *s, const gfli_conv_job *job,
                                                      const gfli_conv_tile *t) {
    s->block++;
    s->weight += (size_t)job->side[t->side].group_rows * GFLI_ROW_BYTES;
    if (++s->kx < job->kernel) return;
    s->kx = 0;
    if (++s->ky < job->kernel) return;
    s->ky = 0;
    s->run++;
}

static __device__ __forceinline__ void
gfli_load_chunks(const gfli_conv_load *s, const gfli_conv_job *job, const gfli_conv_tile *t,
                 unsigned char *stage, int rows, int element) {
    const gfli_tile_level *l = &job->level[t->level];
    const int size = gfli_element_size(element), chunk = (int)(threadIdx.x % GFLI_ROW_CHUNKS);
    const int c = (s->run * GFLI_ROW_BYTES + chunk * GFLI_CHUNK_BYTES) / size;
#pragma unroll
    for (int i = 0; i < rows / 32; i++) {
        const int row = (int)(threadIdx.x / GFLI_ROW_CHUNKS) + 32 * i;
        const int y = s->y[i] + s->ky, x = s->x0[i] + s->kx;
        const bool inside =
            c < job->group_in && (unsigned)y < (unsigned)l->in_h && (unsigned)x < (unsigned)l->in_w;
        const size_t at =
            inside ? ((size_t)(y * l->in_w + x) * (size_t)job->in_c + (size_t)c) * (size_t)size : 0;
        gfli_cp_async16(stage + gfli_swizzle(row, chunk), s->x + at, inside ? 16 : 0);
    }
}

static __device__ __forceinline__ void
gfli_load_elements(const gfli_conv_load *s, const gfli_conv_job *job, const gfli_conv_tile *t,
                   unsigned char *stage, int rows, int element) {
    const gfli_tile_level *l = &job->level[t->level];
    const int size = gfli_element_size(element), width = GFLI_CHUNK_BYTES / size;
    const int chunk = (int)(threadIdx.x % GFLI_ROW_CHUNKS);
    const int first = (s->block * GFLI_ROW_CHUNKS + chunk) * width;
    const int end = job->kernel * job->kernel * job->group_in;
    const int first_ky = first / job->group_in / job->kernel;
    const int first_kx = first / job->group_in % job->kernel, first_c = first % job->group_in;
#pragma unroll
    for (int i = 0; i < rows / 32; i++) {
        int y = s->y[i] + first_ky, x = s->x0[i] + first_kx, c = first_c;
        const int past = s->x0[i] + job->kernel;
        float v[8];
#pragma unroll
        for (int j = 0; j < width; j++) {
            const bool inside = first + j < end && (unsigned)y < (unsigned)l->in_h &&
                                (unsigned)x < (unsigned)l->in_w;
            const size_t at = (size_t)(y * l->in_w + x) * (size_t)job->in_c + (size_t)c;
            v[j] = inside ? gfli_read_element(s->x, at, element) : 0.0f;
            if (++c < job->group_in) continue;
            c = 0;
            if (++x < past) continue;
            x = s->x0[i];
            y++;
        }
        const int row = (int)(threadIdx.x / GFLI_ROW_CHUNKS) + 32 * i;
        *(uint4 *)(void *)(stage + gfli_swizzle(row, chunk)) = gfli_pack_chunk(v, element);
    }
}

/* The samples of every row and tap of the tile (spec 1.5), before the first block. */
static __device__ __forceinline__ void gfli_sample_rows(const gfli_conv_job *job,
                                                        const gfli_conv_tile *t,
                                                        gfli_sample_weights *samples, int *corners,
                                                        int rows) {
    const gfli_tile_level *l = &job->level[t->level];
    const int taps = job->kernel * job->kernel;
    const size_t image = l->out + (size_t)t->image * (size_t)(l->out_h * l->out_w);
    for (int i = (int)threadIdx.x; i < rows * taps; i += (int)blockDim.x) {
        const int tap = i / rows, position = gfli_tile_position(job, t, i % rows);
        gfli_sample_weights s = {{0.0f, 0.0f, 0.0f, 0.0f}};
        int corner = 0;
        if (position >= 0) {
            const float *o =
                job->side[t->side].offset + (image + (size_t)position) * (size_t)job->offset_c;
            const int oy = position / l->out_w * job->stride - job->pad + tap / job->kernel;
            const int ox = position % l->out_w * job->stride - job->pad + tap % job->kernel;
            const float y = (float)oy + o[2 * tap], x = (float)ox + o[2 * tap + 1];
            const gfli_between p = gfli_between_at(l->in_h, l->in_w, y, x);
            if (p.corners) {
                const float mask =
                    job->offset_c > 2 * taps ? gfli_sigmoid(o[2 * taps + tap]) : 1.0f;
                gfli_corner_weights(p.down, p.right, s.weight);
#pragma unroll
                for (int k = 0; k < 4; k++)
                    s.weight[k] = p.corners >> k & 1 ? s.weight[k] * mask : 0.0f;
                const int cy = gfli_max(p.top, 0), cx = gfli_max(p.left, 0);
                const int below = p.top >= 0 && p.top + 1 < l->in_h;
                const int beside = p.left >= 0 && p.left + 1 < l->in_w;
                corner = (cy * l->in_w + cx) * 4 + below * 2 + beside;
            }
        }
        samples[i] = s;
        corners[i] = corner;
    }
}

static __device__ __forceinline__ void
gfli_load_deformed(const gfli_conv_load *s, const gfli_conv_job *job, const gfli_conv_tile *t,
                   unsigned char *stage, int rows, int element) {
    const int size = gfli_element_size(element), width = GFLI_CHUNK_BYTES / size;
    const int chunk = (int)(threadIdx.x % GFLI_ROW_CHUNKS);
    const int c = s->run * (GFLI_ROW_BYTES / size) + chunk * width;
    const int left = job->group_in - c, count = left < width ? left : width;
    const bool vector = job->in_c % width == 0 && job->group_in % width == 0;
    const int tap = s->ky * job->kernel + s->kx;
#pragma unroll
    for (int i = 0; i < rows / 32; i++) {
        const int row = (int)(threadIdx.x / GFLI_ROW_CHUNKS) + 32 * i;
        const gfli_sample_weights sample = s->samples[tap * rows + row];
        const int corner = s->corners[tap * rows + row];
        const int step[2] = {corner % 2 ? 1 : 0, corner / 2 % 2 ? job->level[t->level].in_w : 0};
        float sum[8], v[8];
#pragma unroll
        for (int j = 0; j < width; j++) sum[j] = 0.0f;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (count <= 0 || sample.weight[k] == 0.0f) continue; /* also off the map */
            const int cell = corner / 4 + k % 2 * step[0] + k / 2 * step[1];
            gfli_read_chunk(s->x, (size_t)cell * (size_t)job->in_c + (size_t)c, count, vector,
                            element, v);
#pragma unroll
            for (int j = 0; j < width; j++) sum[j] += sample.weight[k] * v[j];
        }
        *(uint4 *)(void *)(stage + gfli_swizzle(row, chunk)) = gfli_pack_chunk(sum, element);
    }
}

/* The next block of both operands into a stage.  Packed weights are the image of the stage. */
static __device__ __forceinline__ void gfli_load_block(gfli_conv_load *s, const gfli_conv_job *job,
                                                       const gfli_conv_tile *t,
                                                       unsigned char *stage, int rows, int cols,
                                                       int element, int load) {
    if (load == GFLI_LOAD_CHUNKS) gfli_load_chunks(s, job, t, stage, rows, element);
    if (load == GFLI_LOAD_ELEMENTS) gfli_load_elements(s, job, t, stage, rows, element);
    if (load == GFLI_LOAD_DEFORMED) gfli_load_deformed(s, job, t, stage, rows, element);
    unsigned char *right = stage + rows * GFLI_ROW_BYTES;
#pragma unroll
    for (int i = 0; i < cols / 32; i++) {
        const int at = ((int)threadIdx.x + i * GFLI_CONV_THREADS) * GFLI_CHUNK_BYTES;
        gfli_cp_async16(right + at, s->weight + at, 16);
    }
    gfli_load_next(s, job, t);
}

/* One block of the sum: a warp multiplies its rows and columns of the stage.  A 32-byte step along
 * the sum is one instruction's depth for every element type, and so are the fragments' addresses:
 * a row of an 8x8 matrix of halves is as long as four floats. */
static __device__ __forceinline__ void gfli_multiply_block(const unsigned char *stage, int rows,
                                                           int row, int col, int m_tiles,
                                                           int n_tiles, int element,
                                                           float sums[4][4][4]) {
    const unsigned char *right = stage + rows * GFLI_ROW_BYTES;
    const int lane = (int)(threadIdx.x % 32);
#pragma unroll
    for (int step = 0; step < GFLI_ROW_BYTES / 32; step++) {
        unsigned a[4][4], b[4][2];
#pragma unroll
        for (int i = 0; i < m_tiles; i++) {
            gfli_ldmatrix_x4(a[i],
                             stage + gfli_swizzle(row + i * 16 + lane % 16, step * 2 + lane / 16));
            if (element == GFLI_MAP_F32) {
#pragma unroll
                for (int k = 0; k < 4; k++) a[i][k] = gfli_to_tf32(a[i][k]);
            }
        }
#pragma unroll
        for (int j = 0; j < n_tiles; j += 2) {
            unsigned two[4];
            gfli_ldmatrix_x4(two, right + gfli_swizzle(col + j * 8 + lane / 16 * 8 + lane % 8,
                                                       step * 2 + lane / 8 % 2));
            b[j][0] = two[0];
            b[j][1] = two[1];
            b[j + 1][0] = two[2];
            b[j + 1][1] = two[3];
        }
#pragma unroll
        for (int i = 0; i < m_tiles; i++) {
#pragma unroll
            for (int j = 0; j < n_tiles; j++) {
                if (element == GFLI_MAP_BF16) gfli_mma_bf16(sums[i][j], a[i], b[j]);
                if (element == GFLI_MAP_FP16) gfli_mma_fp16(sums[i][j], a[i], b[j]);
                if (element == GFLI_MAP_F32) gfli_mma_tf32(sums[i][j], a[i], b[j]);
            }
        }
    }
}

static __device__ __forceinline__ void gfli_keep_sums(float *tile, int cols, int row, int col,
                                                      int m_tiles, int n_tiles,
                                                      const float sums[4][4][4]) {
    const int lane = (int)(threadIdx.x % 32), stride = cols + GFLI_TILE_PAD;
#pragma unroll
    for (int i = 0; i < m_tiles; i++) {
#pragma unroll
        for (int j = 0; j < n_tiles; j++) {
            float *at = &tile[(row + i * 16 + lane / 4) * stride + col + j * 8 + lane % 4 * 2];
            *(float2 *)at = make_float2(sums[i][j][0], sums[i][j][1]);
            *(float2 *)(at + 8 * stride) = make_float2(sums[i][j][2], sums[i][j][3]);
        }
    }
}

/* The blocks of the sum that a split takes: as even as they come. */
static __device__ __forceinline__ int gfli_split_begin(const gfli_conv_job *job, int split) {
    return (int)((long long)job->k_blocks * split / job->n_splits);
}

static __device__ __forceinline__ void gfli_conv_mma(const gfli_conv_job *job, int rows, int cols,
                                                     int warp_rows, int element, int load) {
    GFLI_DYN_SHARED(unsigned char, shared);
    const int stage_bytes = (rows + cols) * GFLI_ROW_BYTES;
    const gfli_conv_tile t = gfli_tile_of_block(job, rows, cols);
    if (t.n_cols <= 0) return;
    const int begin = gfli_split_begin(job, t.split), end = gfli_split_begin(job, t.split + 1);
    gfli_conv_load s;
    gfli_load_begin(&s, job, &t, rows, element, begin);
    if (load == GFLI_LOAD_DEFORMED) {
        const int taps = job->kernel * job->kernel;
        gfli_sample_weights *samples =
            (gfli_sample_weights *)(void *)(shared + GFLI_CONV_STAGES * stage_bytes);
        int *corners = (int *)(void *)(samples + rows * taps);
        gfli_sample_rows(job, &t, samples, corners, rows);
        s.samples = samples;
        s.corners = corners;
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < GFLI_CONV_STAGES - 1; i++) {
        if (begin + i < end)
            gfli_load_block(&s, job, &t, shared + i * stage_bytes, rows, cols, element, load);
        gfli_cp_commit();
    }
    const unsigned warp = threadIdx.x / 32;
    const unsigned warp_cols = (unsigned)(GFLI_CONV_THREADS / 32 / warp_rows);
    const int m_tiles = rows / warp_rows / 16, n_tiles = cols / (int)warp_cols / 8;
    const int row = (int)(warp / warp_cols) * (m_tiles * 16);
    const int col = (int)(warp % warp_cols) * (n_tiles * 8);
    float sums[4][4][4] = {};
    int filled = GFLI_CONV_STAGES - 1, ready = 0;
    for (int block = begin; block < end; block++) {
        gfli_cp_wait(GFLI_CONV_STAGES - 2);
        __syncthreads(); /* the stage is full, and nobody reads the one before it any more */
        if (s.block < end)
            gfli_load_block(&s, job, &t, shared + filled * stage_bytes, rows, cols, element, load);
        gfli_cp_commit();
        gfli_multiply_block(shared + ready * stage_bytes, rows, row, col, m_tiles, n_tiles, element,
                            sums);
        filled = ready;
        ready = ready + 1 < GFLI_CONV_STAGES ? ready + 1 : 0;
    }
    gfli_cp_wait(0);
    __syncthreads();
    float *tile = (float *)(void *)shared;
    gfli_keep_sums(tile, cols, row, col, m_tiles, n_tiles, sums);
    __syncthreads();
    gfli_tile_finish(job, &t, tile, tile + rows * (cols + GFLI_TILE_PAD), rows, cols, element);
}

#define GFLI_CONV_MMA(name, rows, cols, warp_rows, element, load, resident)                        \
    static __global__ void __launch_bounds__(GFLI_CONV_THREADS, resident)                          \
        gfli_conv_##name##_kernel(const GFLI_GRID_CONSTANT gfli_conv_job job) {                    \
        gfli_conv_mma(&job, rows, cols, warp_rows, element, load);                                 \
    }

#define GFLI_CONV_MMA_ELEMENTS(name, rows, cols, warp_rows, load, resident)                        \
    GFLI_CONV_MMA(name##_tf32, rows, cols, warp_rows, GFLI_MAP_F32, load, resident)                \
    GFLI_CONV_MMA(name##_bf16, rows, cols, warp_rows, GFLI_MAP_BF16, load, resident)               \
    GFLI_CONV_MMA(name##_fp16, rows, cols, warp_rows, GFLI_MAP_FP16, load, resident)

GFLI_CONV_MMA_ELEMENTS(128x128, 128, 128, 2, GFLI_LOAD_CHUNKS, 2)
GFLI_CONV_MMA_ELEMENTS(128x64, 128, 64, 4, GFLI_LOAD_CHUNKS, 2)
GFLI_CONV_MMA_ELEMENTS(64x128, 64, 128, 2, GFLI_LOAD_CHUNKS, 2)
GFLI_CONV_MMA_ELEMENTS(64x64, 64, 64, 2, GFLI_LOAD_CHUNKS, 2)
GFLI_CONV_MMA_ELEMENTS(elements_128x64, 128, 64, 4, GFLI_LOAD_ELEMENTS, 1)
GFLI_CONV_MMA_ELEMENTS(deformed_64x128, 64, 128, 2, GFLI_LOAD_DEFORMED, 2)
GFLI_CONV_MMA_ELEMENTS(deformed_64x64, 64, 64, 2, GFLI_LOAD_DEFORMED, 2)

/* ===============================================================================================
 * src/cuda/conv/wgmma.cuh - the same convolution by wgmma and the copy engine, sm_90a
 * ============================================================================================ */

/* Twin of mma.cuh: the same tiles, the same packed weights, the same finish; only how the
 * operands arrive and which instruction multiplies them differ.  Two warpgroups multiply, 64 rows
 * each, and one more warp asks the copy engine for blocks; shared memory is a ring of blocks whose
 * barriers say full and empty.
 *
 * Compiled for sm_90a and NEVER RUN: the emulator knows neither wgmma nor the copy engine, and no
 * GPU was at hand.  gfl_context_desc.kernel "mma" does without it. */

enum { GFLI_WGMMA_ASKS = 256, GFLI_WGMMA_THREADS = 288, GFLI_WGMMA_ROWS = 128 };

/* Narrow tiles leave room for a second block on a multiprocessor: one multiplies while the other
 * fills its ring or stores its tile. */
static __host__ __device__ constexpr int gfli_wgmma_resident(int cols) {
    return cols > 128 ? 1 : 2;
}

static __host__ __device__ constexpr int gfli_wgmma_stages(int cols) {
    return cols == 128 ? 3 : 4;
}

/* One for each side and level: pixels of x in the order of the tile's rows. */
typedef struct gfli_conv_maps {
    CUtensorMap map[GFLI_CONV_SIDES][GFL_LEVELS];
} gfli_conv_maps;

typedef void (*gfli_wgmma_kernel)(gfli_conv_job job, gfli_conv_maps maps);

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

static __device__ __forceinline__ unsigned gfli_shared_address(const void *p) {
    return (unsigned)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void gfli_barrier_init(unsigned barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

static __device__ __forceinline__ void gfli_barrier_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}

static __device__ __forceinline__ void gfli_barrier_expect(unsigned barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier),
                 "r"(bytes)
                 : "memory");
}

static __device__ __forceinline__ void gfli_barrier_wait(unsigned barrier, int parity) {
    unsigned done = 0;
    while (!done) {
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n"
                     "}\n"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    }
}

/* Pixels of x under tap (kx, ky), GFLI_WGMMA_ROWS of them from (x, y) of the bounding box on. */
static __device__ __forceinline__ void gfli_copy_pixels(unsigned to, const CUtensorMap *map,
                                                        unsigned barrier, int c, int x, int y,
                                                        int image, int kx, int ky) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3, %4, %5}], [%6], {%7, %8};\n" ::"r"(to),
        "l"(map), "r"(c), "r"(x), "r"(y), "r"(image), "r"(barrier), "h"((unsigned short)kx),
        "h"((unsigned short)ky)
        : "memory");
}

static __device__ __forceinline__ void gfli_copy_bytes(unsigned to, const void *from, int bytes,
                                                       unsigned barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1], %2, [%3];\n" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

/* Rows of 128 bytes, swizzled, eight of them every 1024 bytes. */
static __device__ __forceinline__ unsigned long long gfli_operand(unsigned address) {
    return (unsigned long long)(address >> 4 & 0x3fffu) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

#    define GFLI_SUMS8(d, i)                                                                       \
        "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]),                \
            "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#    define GFLI_SUMS32(d, i)                                                                      \
        GFLI_SUMS8(d, i), GFLI_SUMS8(d, i + 8), GFLI_SUMS8(d, i + 16), GFLI_SUMS8(d, i + 24)
#    define GFLI_NAMES32                                                                           \
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%"      \
        "23,%24,"                                                                                  \
        "%25,%26,%27,%28,%29,%30,%31"
#    define GFLI_NAMES64                                                                           \
        GFLI_NAMES32                                                                               \
        ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%"       \
        "52,%53,%54,"                                                                              \
        "%55,%56,%57,%58,%59,%60,%61,%62,%63"

/* d [n / 2] += 64 rows of a times n rows of b, 16 deep: a quarter of a block. */
static __device__ __forceinline__ void gfli_wgmma_64(float *d, unsigned long long a,
                                                     unsigned long long b, int element) {
    if (element == GFLI_MAP_BF16)
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" GFLI_NAMES32
                     "}, %32, %33, 1, 1, 1, 0, 0;\n"
                     : GFLI_SUMS32(d, 0)
                     : "l"(a), "l"(b));
    else
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" GFLI_NAMES32
                     "}, %32, %33, 1, 1, 1, 0, 0;\n"
                     : GFLI_SUMS32(d, 0)
                     : "l"(a), "l"(b));
}

static __device__ __forceinline__ void gfli_wgmma_128(float *d, unsigned long long a,
                                                      unsigned long long b, int element) {
    if (element == GFLI_MAP_BF16)
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" GFLI_NAMES64
                     "}, %64, %65, 1, 1, 1, 0, 0;\n"
                     : GFLI_SUMS32(d, 0), GFLI_SUMS32(d, 32)
                     : "l"(a), "l"(b));
    else
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" GFLI_NAMES64
                     "}, %64, %65, 1, 1, 1, 0, 0;\n"
                     : GFLI_SUMS32(d, 0), GFLI_SUMS32(d, 32)
                     : "l"(a), "l"(b));
}

/* The warp that asks: one thread of it does. */
static __device__ __forceinline__ void
gfli_wgmma_copy(const gfli_conv_job *job, const gfli_conv_tile *t, const CUtensorMap *map,
                unsigned shared, unsigned full, unsigned empty, int cols, int begin, int end) {
    const int stage_bytes = (GFLI_WGMMA_ROWS + cols) * GFLI_ROW_BYTES;
    const int taps = job->kernel * job->kernel, run = GFLI_ROW_BYTES / 2;
    const int y = t->x / job->level[t->level].out_w * job->stride - job->pad;
    const int x = t->x % job->level[t->level].out_w * job->stride - job->pad;
    const size_t block_bytes = (size_t)job->side[t->side].group_rows * GFLI_ROW_BYTES;
    const unsigned char *weight =
        (const unsigned char *)job->side[t->side].weight +
        ((size_t)t->group * (size_t)job->k_blocks + (size_t)begin) * block_bytes +
        (size_t)t->first * GFLI_ROW_BYTES;
    int run_first = t->group * job->group_in + begin / taps * run;
    int kx = begin % taps % job->kernel, ky = begin % taps / job->kernel, stage = 0, lap = 0;
    for (int block = begin; block < end; block++, weight += block_bytes) {
        const unsigned to = shared + (unsigned)(stage * stage_bytes);
        const unsigned barrier = full + (unsigned)(stage * 8);
        gfli_barrier_wait(empty + (unsigned)(stage * 8), lap ^ 1);
        gfli_barrier_expect(barrier, stage_bytes);
        gfli_copy_pixels(to, map, barrier, run_first, x, y, t->image, kx, ky);
        gfli_copy_bytes(to + GFLI_WGMMA_ROWS * GFLI_ROW_BYTES, weight, cols * GFLI_ROW_BYTES,
                        barrier);
        if (++kx == job->kernel) {
            kx = 0;
            ky++;
        }
        if (ky == job->kernel) {
            ky = 0;
            run_first += run;
        }
        if (++stage < gfli_wgmma_stages(cols)) continue;
        stage = 0;
        lap ^= 1;
    }
}

/* A warpgroup that multiplies rows [row, row + 64) of every block.  One product is in flight while
 * the next is issued, so a block is given back one turn late. */
static __device__ __forceinline__ void gfli_wgmma_multiply(unsigned shared, unsigned full,
                                                           unsigned empty, int row, int cols,
                                                           int element, int n_blocks, float *sums) {
    const int stage_bytes = (GFLI_WGMMA_ROWS + cols) * GFLI_ROW_BYTES;
    int stage = 0, lap = 0, before = 0;
    for (int block = 0; block < n_blocks; block++) {
        const unsigned at = shared + (unsigned)(stage * stage_bytes);
        const unsigned right = at + GFLI_WGMMA_ROWS * GFLI_ROW_BYTES;
        gfli_barrier_wait(full + (unsigned)(stage * 8), lap);
        asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#    pragma unroll
        for (int step = 0; step < GFLI_ROW_BYTES / 32; step++) {
            const unsigned long long a =
                gfli_operand(at + (unsigned)(row * GFLI_ROW_BYTES + step * 32));
            const unsigned long long b = gfli_operand(right + (unsigned)(step * 32));
            if (cols == 64) {
                gfli_wgmma_64(sums, a, b, element);
            } else {
                gfli_wgmma_128(sums, a, b, element);
                if (cols == 256)
                    gfli_wgmma_128(
                        sums + 64, a,
                        gfli_operand(right + (unsigned)(128 * GFLI_ROW_BYTES + step * 32)),
                        element);
            }
        }
        asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 1;\n" ::: "memory");
        if (block > 0 && threadIdx.x % 32 == 0) /* what this warp has read, its wait says */
            gfli_barrier_arrive(empty + (unsigned)(before * 8));
        before = stage;
        if (++stage < gfli_wgmma_stages(cols)) continue;
        stage = 0;
        lap ^= 1;
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;\n" ::: "memory");
}

static __device__ __forceinline__ void
gfli_conv_wgmma(const gfli_conv_job *job, const gfli_conv_maps *maps, int cols, int element) {
    GFLI_DYN_SHARED(unsigned char, shared);
    const int stage_bytes = (GFLI_WGMMA_ROWS + cols) * GFLI_ROW_BYTES;
    const gfli_conv_tile t = gfli_tile_of_block(job, GFLI_WGMMA_ROWS, cols);
    if (t.n_cols <= 0) return;
    const int begin = gfli_split_begin(job, t.split), end = gfli_split_begin(job, t.split + 1);
    const unsigned base = gfli_shared_address(shared);
    const unsigned full = base + (unsigned)(gfli_wgmma_stages(cols) * stage_bytes);
    const unsigned empty = full + gfli_wgmma_stages(cols) * 8;
    if (threadIdx.x == 0) {
        for (int i = 0; i < gfli_wgmma_stages(cols); i++) {
            gfli_barrier_init(full + (unsigned)(i * 8), 1);
            gfli_barrier_init(empty + (unsigned)(i * 8), GFLI_WGMMA_ASKS / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
        asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
    }
    __syncthreads();
    const int group = (int)(threadIdx.x / 128); /* of the warps that multiply: 0 and 1 */
    float sums[128] = {};                       /* cols / 2 of them are used */
    if (threadIdx.x == GFLI_WGMMA_ASKS)
        gfli_wgmma_copy(job, &t, &maps->map[t.side][t.level], base, full, empty, cols, begin, end);
    if (threadIdx.x < GFLI_WGMMA_ASKS)
        gfli_wgmma_multiply(base, full, empty, group * 64, cols, element, end - begin, sums);
    __syncthreads();
    float *tile = (float *)(void *)shared;
    if (threadIdx.x < GFLI_WGMMA_ASKS) {
        const int lane = (int)(threadIdx.x % 32), stride = cols + GFLI_TILE_PAD;
        const int row = group * 64 + (int)(threadIdx.x % 128) / 32 * 16 + lane / 4;
#    pragma unroll
        for (int j = 0; j < cols / 8; j++) {
            float *at = &tile[row * stride + j * 8 + lane % 4 * 2];
            *(float2 *)at = make_float2(sums[4 * j], sums[4 * j + 1]);
            *(float2 *)(at + 8 * stride) = make_float2(sums[4 * j + 2], sums[4 * j + 3]);
        }
    }
    __syncthreads();
    gfli_tile_finish(job, &t, tile, tile + GFLI_WGMMA_ROWS * (cols + GFLI_TILE_PAD),
                     GFLI_WGMMA_ROWS, cols, element);
}

#    define GFLI_CONV_WGMMA_BODY(cols, element) gfli_conv_wgmma(&job, &maps, cols, element)
#else
#    define GFLI_CONV_WGMMA_BODY(cols, element) (void)job, (void)maps
#endif

#define GFLI_CONV_WGMMA(name, cols, element)                                                       \
    static __global__ void __launch_bounds__(GFLI_WGMMA_THREADS, gfli_wgmma_resident(cols))        \
        gfli_conv_wgmma_##name##_kernel(const GFLI_GRID_CONSTANT gfli_conv_job job,                \
                                        const GFLI_GRID_CONSTANT gfli_conv_maps maps) {            \
        GFLI_CONV_WGMMA_BODY(cols, element);                                                       \
    }

GFLI_CONV_WGMMA(64_bf16, 64, GFLI_MAP_BF16)
GFLI_CONV_WGMMA(64_fp16, 64, GFLI_MAP_FP16)
GFLI_CONV_WGMMA(128_bf16, 128, GFLI_MAP_BF16)
GFLI_CONV_WGMMA(128_fp16, 128, GFLI_MAP_FP16)
GFLI_CONV_WGMMA(256_bf16, 256, GFLI_MAP_BF16)
GFLI_CONV_WGMMA(256_fp16, 256, GFLI_MAP_FP16)

/* Whether this build has their code for the device: 1 or 0 into *answer. */
static __global__ void gfli_has_wgmma_kernel(int *answer) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    *answer = 1;
#else
    *answer = 0;
#endif
}

static int gfli_wgmma_shared_bytes(int cols) {
    return gfli_wgmma_stages(cols) * ((GFLI_WGMMA_ROWS + cols) * GFLI_ROW_BYTES + 2 * 8);
}

typedef PFN_cuTensorMapEncodeIm2col_v12000 gfli_encode;

/* The driver's function, without linking the driver: NULL where it has none. */
static gfli_encode gfli_find_encode(void) {
    void *entry = NULL;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeIm2col", &entry, 12000,
                                                           cudaEnableDefault, &found);
    if (e != cudaSuccess || found != cudaDriverEntryPointSuccess) return NULL;
    return (gfli_encode)entry;
}

/* Level `level` of a side's x.  The bounding box holds the top left corners of all windows. */
static cudaError_t gfli_conv_map(gfli_encode encode, const gfli_conv_job *job, int side, int level,
                                 int element, CUtensorMap *map) {
    const gfli_tile_level *l = &job->level[level];
    const cuuint64_t c = (cuuint64_t)job->in_c, w = (cuuint64_t)l->in_w, h = (cuuint64_t)l->in_h;
    const cuuint64_t size[4] = {c, w, h, (cuuint64_t)job->n};
    const cuuint64_t stride[3] = {c * 2, c * 2 * w, c * 2 * w * h};
    const int low[2] = {-job->pad, -job->pad};
    const int high[2] = {job->pad - job->kernel + 1, job->pad - job->kernel + 1};
    const cuuint32_t step[4] = {1, (cuuint32_t)job->stride, (cuuint32_t)job->stride, 1};
    unsigned char *x = (unsigned char *)(uintptr_t)job->side[side].x + l->in * c * 2;
    const CUresult e =
        encode(map,
               element == GFLI_MAP_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                        : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
               4, x, size, stride, low, high, GFLI_ROW_BYTES / 2, GFLI_WGMMA_ROWS, step,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return e == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/* All maps of a job. */
static cudaError_t gfli_conv_describe(gfli_encode encode, const gfli_conv_job *job, int element,
                                      gfli_conv_maps *maps) {
    memset(maps, 0, sizeof *maps);
    for (int i = 0; i < job->n_sides * job->levels; i++) {
        const int side = i / job->levels, level = i % job->levels;
        const cudaError_t e =
            gfli_conv_map(encode, job, side, level, element, &maps->map[side][level]);
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}

static cudaError_t gfli_conv_wgmma_run(cudaStream_t stream, gfli_encode encode,
                                       gfli_wgmma_kernel kernel, const gfli_conv_job *job, int cols,
                                       int element, int n_blocks) {
    const int bytes = gfli_wgmma_shared_bytes(cols);
    gfli_conv_maps maps;
    cudaError_t e = gfli_conv_describe(encode, job, element, &maps);
    if (e == cudaSuccess)
        e = cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 bytes);
    if (e != cudaSuccess) return e;
    GFLI_LAUNCH((kernel), (unsigned)n_blocks, GFLI_WGMMA_THREADS, (size_t)bytes, stream, *job,
                maps);
    return cudaGetLastError();
}

/* ===============================================================================================
 * src/cuda/conv/tensor.cuh - tensor-core convolution: packed weights, the choice of a kernel, launches
 * ============================================================================================ */

/* A convolution as products of tiles.  Groups are merged into blocks of up to 64 channels: what a
 * block-diagonal matrix multiplies in vain costs less than the bytes of the map (ResNeXt). */
typedef struct gfli_conv_geometry {
    int groups, group_in, group_out;
    int group_rows, k_blocks;
    bool chunks; /* GFLI_LOAD_CHUNKS applies; otherwise taps and channels are one run */
} gfli_conv_geometry;

static gfli_conv_geometry gfli_conv_geometry_of(const gfli_conv_shape *s, int element) {
    const int size = element == GFLI_MAP_F32 ? 4 : 2, run = GFLI_ROW_BYTES / size;
    const int taps = s->kernel * s->kernel;
    const gfli_groups merged = gfli_merge_groups(s, 64);
    gfli_conv_geometry g;
    g.groups = merged.n;
    g.group_in = merged.in;
    g.group_out = merged.out;
    g.group_rows = g.group_out <= 64 ? 64 : (g.group_out + 127) / 128 * 128;
    g.chunks = g.group_in * size % GFLI_CHUNK_BYTES == 0;
    g.k_blocks =
        g.chunks ? (g.group_in + run - 1) / run * taps : (g.group_in * taps + run - 1) / run;
    return g;
}

/* ---- weights --------------------------------------------------------------------------------- */

/* [groups][k_blocks][group_rows] rows of 128 bytes, swizzled as a stage wants them. */
static size_t gfli_conv_tensor_packed_size(const gfli_conv_shape *s, int element) {
    const gfli_conv_geometry g = gfli_conv_geometry_of(s, element);
    return (size_t)g.groups * (size_t)g.k_blocks * (size_t)g.group_rows * GFLI_ROW_BYTES;
}

/* One thread an element; weight is OHWI in float. */
static __global__ void gfli_conv_pack_kernel(const float *weight, const float *scale,
                                             unsigned char *packing, gfli_conv_shape s,
                                             gfli_conv_geometry g, int element, size_t n) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const int size = gfli_element_size(element), run = GFLI_ROW_BYTES / size;
    const int in_run = (int)(i % (size_t)run);
    const size_t line = i / (size_t)run;
    const int row = (int)(line % (size_t)g.group_rows);
    const int block = (int)(line / (size_t)g.group_rows % (size_t)g.k_blocks);
    const int group = (int)(line / (size_t)g.group_rows / (size_t)g.k_blocks);
    const int taps = s.kernel * s.kernel, flat = block * run + in_run;
    const int tap = g.chunks ? block % taps : flat / g.group_in;
    const int c = g.chunks ? block / taps * run + in_run : flat % g.group_in;
    const int in = s.in_c / s.groups, out = s.out_c / s.groups;
    const int o = group * g.group_out + row, channel = group * g.group_in + c;
    float v = 0.0f;
    if (row < g.group_out && c < g.group_in && tap < taps && channel / in == o / out) {
        v = weight[gfli_weight_at(taps, in, o, tap, channel % in)];
        if (scale) v *= scale[o];
    }
    const int at = in_run * size;
    unsigned char *to = packing + (line - (size_t)row) * GFLI_ROW_BYTES +
                        gfli_swizzle(row, at / GFLI_CHUNK_BYTES) + at % GFLI_CHUNK_BYTES;
    if (element == GFLI_MAP_F32)
        *(unsigned *)(void *)to = gfli_to_tf32(__float_as_uint(v));
    else
        *(unsigned short *)(void *)to = (unsigned short)gfli_to_bits(v, element);
}

static cudaError_t gfli_conv_tensor_pack(cudaStream_t stream, const gfli_conv_shape *s, int element,
                                         const float *weight, const float *scale, void *packing) {
    const gfli_conv_geometry g = gfli_conv_geometry_of(s, element);
    const size_t n = gfli_conv_tensor_packed_size(s, element) / (element == GFLI_MAP_F32 ? 4 : 2);
    GFLI_LAUNCH((gfli_conv_pack_kernel), (unsigned)((n + 255) / 256), 256, 0, stream, weight, scale,
                (unsigned char *)packing, *s, g, element, n);
    return cudaGetLastError();
}

/* ---- which kernel ---------------------------------------------------------------------------- */

typedef void (*gfli_conv_kernel)(gfli_conv_job job);

typedef struct gfli_conv_variant {
    int rows, cols, load;
    double speed; /* of a large tile, on a full machine, against 128x128 */
    int resident; /* blocks that a multiprocessor holds at once */
    const char *name;
    gfli_conv_kernel kernel[GFLI_ELEMENTS];
    gfli_wgmma_kernel wgmma[GFLI_ELEMENTS]; /* where load is GFLI_LOAD_ENGINE */
} gfli_conv_variant;

#define GFLI_MMA_VARIANT(kernel, rows, cols, load, speed, resident)                                \
    {                                                                                              \
        rows, cols, load, speed, resident, #kernel,                                                \
            {gfli_conv_##kernel##_tf32_kernel, gfli_conv_##kernel##_bf16_kernel,                   \
             gfli_conv_##kernel##_fp16_kernel},                                                    \
        {                                                                                          \
            NULL, NULL, NULL                                                                       \
        }                                                                                          \
    }
#define GFLI_WGMMA_VARIANT(cols, speed)                                                            \
    {                                                                                              \
        GFLI_WGMMA_ROWS, cols, GFLI_LOAD_ENGINE, speed, gfli_wgmma_resident(cols),                 \
            "wgmma_128x" #cols, {NULL, NULL, NULL}, {                                              \
            NULL, gfli_conv_wgmma_##cols##_bf16_kernel, gfli_conv_wgmma_##cols##_fp16_kernel       \
        }                                                                                          \
    }

/* Speeds are estimates from shared-memory traffic a product, to be replaced by measured ones:
 * bench/gpu prints every variant of every layer. */
static const gfli_conv_variant gfli_conv_variants[] = {
    GFLI_MMA_VARIANT(128x128, 128, 128, GFLI_LOAD_CHUNKS, 1.0, 2),
    GFLI_MMA_VARIANT(128x64, 128, 64, GFLI_LOAD_CHUNKS, 0.8, 2),
    GFLI_MMA_VARIANT(64x128, 64, 128, GFLI_LOAD_CHUNKS, 0.8, 2),
    GFLI_MMA_VARIANT(64x64, 64, 64, GFLI_LOAD_CHUNKS, 0.65, 2),
    GFLI_MMA_VARIANT(elements_128x64, 128, 64, GFLI_LOAD_ELEMENTS, 0.3, 1),
    GFLI_MMA_VARIANT(deformed_64x128, 64, 128, GFLI_LOAD_DEFORMED, 0.4, 2),
    GFLI_MMA_VARIANT(deformed_64x64, 64, 64, GFLI_LOAD_DEFORMED, 0.3, 2),
    GFLI_WGMMA_VARIANT(256, 1.6),
    GFLI_WGMMA_VARIANT(128, 1.5),
    GFLI_WGMMA_VARIANT(64, 1.0),
};
enum {
    GFLI_CONV_VARIANTS = (int)(sizeof gfli_conv_variants / sizeof *gfli_conv_variants),
    GFLI_MAX_SPLITS = 16,
    GFLI_MAX_SPLIT_TILES = 4096 /* so many counters there are */
};

/* What is to be computed; the second out_c only where two convolutions share a launch. */
typedef struct gfli_conv_request {
    const gfli_conv_shape *shape;
    const gfli_map *x; /* its sizes */
    int n_sides, out_c[GFLI_CONV_SIDES];
    int element;
    int offset_c;   /* 0: not deformable */
    int norm_width; /* channels of a GroupNorm group whose statistics are wanted, or 0 */
    bool relu, wide;
} gfli_conv_request;

/* What the choice knows of the device. */
typedef struct gfli_conv_device {
    int n_sms, shared_limit; /* multiprocessors; bytes a block may have */
    int wgmma;               /* whether this build has those kernels for the device */
    gfli_encode encode;      /* where they can be used, or NULL */
    int *arrived;            /* [GFLI_MAX_SPLIT_TILES] zeros between launches */
} gfli_conv_device;

/* Of the current device, by its stream.  wgmma: ask for its kernels too, which are there with a
 * driver that describes maps to the copy engine. */
static cudaError_t gfli_conv_device_query(bool wgmma, cudaStream_t stream, gfli_conv_device *out) {
    int id = 0, *answer = NULL;
    memset(out, 0, sizeof *out);
    cudaError_t e = cudaGetDevice(&id);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&out->n_sms, cudaDevAttrMultiProcessorCount, id);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&out->shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, id);
    if (e != cudaSuccess || !wgmma) return e;
    e = cudaMalloc((void **)&answer, sizeof *answer);
    if (e != cudaSuccess) return e;
    GFLI_LAUNCH((gfli_has_wgmma_kernel), 1, 1, 0, stream, answer);
    e = cudaGetLastError();
    if (e == cudaSuccess)
        e = cudaMemcpyAsync(&out->wgmma, answer, sizeof *answer, cudaMemcpyDeviceToHost, stream);
    if (e == cudaSuccess) e = cudaStreamSynchronize(stream);
    if (e == cudaSuccess && out->wgmma == 1) out->encode = gfli_find_encode();
    (void)cudaFree(answer);
    return e;
}

typedef struct gfli_conv_choice {
    int variant, splits; /* of the sum */
} gfli_conv_choice;

static int gfli_conv_shared_bytes(const gfli_conv_variant *v, int taps) {
    if (v->load == GFLI_LOAD_ENGINE) return gfli_wgmma_shared_bytes(v->cols);
    int bytes = GFLI_CONV_STAGES * (v->rows + v->cols) * GFLI_ROW_BYTES;
    if (v->load == GFLI_LOAD_DEFORMED)
        bytes += v->rows * taps * (int)(sizeof(gfli_sample_weights) + sizeof(int));
    return bytes;
}

/* Sizes and tiles of the launch; the pointers stay NULL. */
static void gfli_conv_job_of(const gfli_conv_request *r, gfli_conv_choice choice,
                             gfli_conv_job *job) {
    const gfli_conv_variant *v = &gfli_conv_variants[choice.variant];
    const gfli_conv_shape *s = r->shape;
    const gfli_conv_geometry g = gfli_conv_geometry_of(s, r->element);
    memset(job, 0, sizeof *job);
    job->n = r->x->n;
    job->levels = r->x->levels;
    size_t out = 0;
    for (int i = 0; i < job->levels; i++) {
        gfli_tile_level *l = &job->level[i];
        l->first = job->row_tiles;
        l->in_h = r->x->h[i];
        l->in_w = r->x->w[i];
        l->out_h = gfli_conv_out(s, l->in_h);
        l->out_w = gfli_conv_out(s, l->in_w);
        l->per_image = (l->out_h * l->out_w + v->rows - 1) / v->rows;
        if (v->load == GFLI_LOAD_DEFORMED) {
            const int high = v->rows / GFLI_PATCH_WIDTH;
            l->patch_cols = (l->out_w + GFLI_PATCH_WIDTH - 1) / GFLI_PATCH_WIDTH;
            l->per_image = l->patch_cols * ((l->out_h + high - 1) / high);
        }
        l->in = gfli_points_before(r->x, i);
        l->out = out;
        out += (size_t)job->n * (size_t)l->out_h * (size_t)l->out_w;
        job->row_tiles += l->per_image * job->n;
    }
    int widest = g.group_out;
    job->n_sides = r->n_sides;
    for (int i = 0; i < r->n_sides; i++) {
        gfli_conv_shape own = *s;
        own.out_c = r->out_c[i];
        const gfli_conv_geometry og = gfli_conv_geometry_of(&own, r->element);
        job->side[i].out_c = r->out_c[i];
        job->side[i].group_rows = og.group_rows;
        if (og.group_out > widest) widest = og.group_out;
    }
    job->group_tiles = (widest + v->cols - 1) / v->cols;
    job->col_tiles = job->group_tiles * g.groups;
    job->n_splits = choice.splits;
    job->in_c = s->in_c;
    job->kernel = s->kernel;
    job->stride = s->stride;
    job->pad = s->pad;
    job->group_in = g.group_in;
    job->group_out = g.group_out;
    job->k_blocks = g.k_blocks;
    job->offset_c = r->offset_c;
    job->norm_width = r->norm_width;
    job->relu = r->relu;
    job->wide = r->wide;
}

static int gfli_conv_tiles(const gfli_conv_job *job) {
    return job->row_tiles * job->n_sides * job->col_tiles;
}

/* Whether the driver describes the request's maps to the copy engine, tried at an address of the
 * context's own.  Where it refuses one, this request alone does without the engine. */
static bool gfli_conv_describes(const gfli_conv_request *r, int variant,
                                const gfli_conv_device *device) {
    const gfli_conv_choice choice = {variant, 1};
    gfli_conv_job job;
    gfli_conv_maps maps;
    gfli_conv_job_of(r, choice, &job);
    for (int i = 0; i < job.n_sides; i++) job.side[i].x = device->arrived;
    return gfli_conv_describe(device->encode, &job, r->element, &maps) == cudaSuccess;
}

/* Can this variant do it at all? */
static bool gfli_conv_applies(const gfli_conv_request *r, int variant,
                              const gfli_conv_device *device) {
    const gfli_conv_variant *v = &gfli_conv_variants[variant];
    const gfli_conv_shape *s = r->shape;
    const bool deformable = r->offset_c > 0;
    const gfli_conv_geometry g = gfli_conv_geometry_of(r->shape, r->element);
    const int taps = s->kernel * s->kernel;
    if (gfli_conv_shared_bytes(v, taps) > device->shared_limit) return false;
    if (r->norm_width > 0 && (deformable || v->cols % r->norm_width != 0)) return false;
    for (int i = 0; i < r->n_sides; i++) {
        gfli_conv_shape own = *r->shape;
        own.out_c = r->out_c[i];
        if (gfli_conv_geometry_of(&own, r->element).group_rows % v->cols != 0) return false;
    }
    if (deformable) return v->load == GFLI_LOAD_DEFORMED && g.chunks;
    /* The engine's boxes are 64 channels wide: they must not reach into another group, where a
     * NaN times a weight of zero would not be zero, nor past the last channel. */
    if (v->load == GFLI_LOAD_ENGINE)
        return device->encode && r->element != GFLI_MAP_F32 && g.group_in % 64 == 0 &&
               s->stride <= 8 && s->pad < s->kernel && s->kernel <= 128 &&
               gfli_conv_describes(r, variant, device);
    return v->load == (g.chunks ? GFLI_LOAD_CHUNKS : GFLI_LOAD_ELEMENTS);
}

/* Time in blocks of the sum of a 128x128 tile, from rough ratios: a multiprocessor's blocks share
 * its tensor cores; a tile's sums leave through the epilogue once, while another resident block
 * multiplies, and twice more for each split. */
static double gfli_conv_cost(const gfli_conv_job *job, const gfli_conv_variant *v,
                             const gfli_conv_device *device) {
    const double area = (double)(v->rows * v->cols) / (128.0 * 128.0), splits = job->n_splits;
    const int blocks = gfli_conv_tiles(job) * job->n_splits;
    const int share = (blocks + device->n_sms - 1) / device->n_sms;
    const double waves = (double)((share + v->resident - 1) / v->resident);
    const double sum = (double)((job->k_blocks + job->n_splits - 1) / job->n_splits);
    double cost = share * sum * area / v->speed + waves * (1.0 + 3.0 * area);
    if (job->n_splits > 1) cost += area * 3.5 * (waves + splits);
    return cost;
}

/* The cheapest by the model above: a function of sizes and the number of multiprocessors alone, so
 * that the same device gives the same bits; of `only` where that is no -1.  False: none applies. */
static bool gfli_conv_choose(const gfli_conv_request *r, const gfli_conv_device *device, int only,
                             gfli_conv_choice *out) {
    static const int splits[] = {1, 2, 3, 4, 6, 8, 12, GFLI_MAX_SPLITS};
    double best = 0;
    bool found = false;
    for (int variant = 0; variant < GFLI_CONV_VARIANTS; variant++) {
        if (only >= 0 && variant != only) continue;
        if (!gfli_conv_applies(r, variant, device)) continue;
        for (int i = 0; i < (int)(sizeof splits / sizeof *splits); i++) {
            gfli_conv_choice choice = {variant, splits[i]};
            gfli_conv_job job;
            gfli_conv_job_of(r, choice, &job);
            if (splits[i] > 1 &&
                (job.k_blocks < 2 * splits[i] || gfli_conv_tiles(&job) > GFLI_MAX_SPLIT_TILES))
                break;
            const double cost = gfli_conv_cost(&job, &gfli_conv_variants[variant], device);
            if (found && cost >= best) continue;
            best = cost;
            *out = choice;
            found = true;
        }
    }
    return found;
}

/* ---- statistics ------------------------------------------------------------------------------ */

/* From the tiles' moments to mean and 1 / deviation: a warp for each image of a level and group,
 * lane by lane and then lanes in pairs, so the order is fixed.
 * stats [levels][n][groups][2], as group_norm's. */
static __global__ void gfli_conv_stats_kernel(const GFLI_GRID_CONSTANT gfli_conv_job job, int side,
                                              int rows, float eps, float *stats) {
    const int n_groups = job.side[side].out_c / job.norm_width, lane = (int)(threadIdx.x % 32);
    const int item = ((int)blockIdx.x * (int)blockDim.x + (int)threadIdx.x) / 32;
    if (item >= job.levels * job.n * n_groups) return;
    const gfli_tile_level *l = &job.level[item / n_groups / job.n];
    const int image = item / n_groups % job.n, group = item % n_groups;
    const int area = l->out_h * l->out_w;
    gfli_moments all = {0, 0, 0};
    for (int i = lane; i < l->per_image; i += 32) {
        const float *m =
            job.side[side].moments +
            ((size_t)(l->first + image * l->per_image + i) * (size_t)n_groups + (size_t)group) * 2;
        const int left = area - i * rows, n_rows = left < rows ? left : rows;
        gfli_merge_moments(&all, (double)(n_rows * job.norm_width), (double)m[0], (double)m[1]);
    }
    for (int step = 16; step > 0; step /= 2) {
        const double n = __shfl_down_sync(0xffffffffu, all.n, (unsigned)step);
        const double mean = __shfl_down_sync(0xffffffffu, all.mean, (unsigned)step);
        const double squares = __shfl_down_sync(0xffffffffu, all.squares, (unsigned)step);
        if (lane < step && n > 0) gfli_merge_moments(&all, n, mean, squares);
    }
    if (lane > 0) return;
    gfli_finish_moments(&all, eps, &stats[2 * item]);
}

/* ---- launch ---------------------------------------------------------------------------------- */

typedef struct gfli_conv_operands {
    const void *x, *residual, *packing;
    const float *offset, *bias;
    void *y;
    float *stats; /* [levels][n][groups][2] or NULL */
} gfli_conv_operands;

/* Bytes that a launch wants besides its operands: parts of split sums, moments of tiles. */
static size_t gfli_conv_tensor_scratch(const gfli_conv_request *r, gfli_conv_choice choice) {
    const gfli_conv_variant *v = &gfli_conv_variants[choice.variant];
    gfli_conv_job job;
    gfli_conv_job_of(r, choice, &job);
    size_t floats = 0;
    if (choice.splits > 1)
        floats +=
            (size_t)gfli_conv_tiles(&job) * (size_t)choice.splits * (size_t)(v->rows * v->cols);
    if (r->norm_width > 0)
        for (int i = 0; i < r->n_sides; i++)
            floats += (size_t)job.row_tiles * (size_t)(r->out_c[i] / r->norm_width) * 2;
    return floats * sizeof(float);
}

static cudaError_t gfli_conv_launch(cudaStream_t stream, const gfli_conv_device *device,
                                    const gfli_conv_variant *v, const gfli_conv_job *job,
                                    int element) {
    const int n_blocks = gfli_conv_tiles(job) * job->n_splits;
    if (v->load == GFLI_LOAD_ENGINE)
        return gfli_conv_wgmma_run(stream, device->encode, v->wgmma[element], job, v->cols, element,
                                   n_blocks);
    const gfli_conv_kernel kernel = v->kernel[element];
    const int bytes = gfli_conv_shared_bytes(v, job->kernel * job->kernel);
    const cudaError_t e = cudaFuncSetAttribute((const void *)kernel,
                                               cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess) return e;
    GFLI_LAUNCH((kernel), (unsigned)n_blocks, GFLI_CONV_THREADS, (size_t)bytes, stream, *job);
    return cudaGetLastError();
}

static cudaError_t gfli_conv_tensor_run(cudaStream_t stream, const gfli_conv_device *device,
                                        const gfli_conv_request *r, gfli_conv_choice choice,
                                        const gfli_conv_operands *sides, float eps,
                                        void *scratch) {
    const gfli_conv_variant *v = &gfli_conv_variants[choice.variant];
    float *spare = (float *)scratch;
    gfli_conv_job job;
    gfli_conv_job_of(r, choice, &job);
    if (choice.splits > 1) {
        job.partial = spare;
        job.arrived = device->arrived;
        spare +=
            (size_t)gfli_conv_tiles(&job) * (size_t)choice.splits * (size_t)(v->rows * v->cols);
    }
    for (int i = 0; i < r->n_sides; i++) {
        gfli_conv_side *side = &job.side[i];
        side->x = sides[i].x;
        side->residual = sides[i].residual;
        side->weight = sides[i].packing;
        side->offset = sides[i].offset;
        side->bias = sides[i].bias;
        side->y = sides[i].y;
        if (r->norm_width == 0) continue;
        side->moments = spare;
        spare += (size_t)job.row_tiles * (size_t)(r->out_c[i] / r->norm_width) * 2;
    }
    const cudaError_t e = gfli_conv_launch(stream, device, v, &job, r->element);
    if (e != cudaSuccess) return e;
    for (int i = 0; i < r->n_sides && r->norm_width > 0; i++) {
        const int items = job.levels * job.n * (r->out_c[i] / r->norm_width);
        GFLI_LAUNCH((gfli_conv_stats_kernel), (unsigned)((items + 7) / 8), 256, 0, stream, job, i,
                    v->rows, eps, sides[i].stats);
    }
    return cudaGetLastError();
}

/* ===============================================================================================
 * src/cuda/device.cuh - a GPU as the device of a context: its stream, its memory, its failures
 * ============================================================================================ */

/* Everything of a context happens in one stream.  The first failure is kept: from then on nothing
 * is asked of the device but to take memory back, and gfli_finish_cuda tells. */
typedef struct gfli_cuda {
    int index;
    cudaStream_t stream;
    bool borrowed; /* the stream is the caller's */
    cudaError_t failed;
    const char *during;
    gfli_conv_device conv; /* what its tensor cores can do; not asked for in fp32 */
    int preferred;         /* of gfli_conv_variants, or -1 */
    bool tune;             /* time kernels rather than estimate them */
    struct gfli_tuned *tuned;
    size_t n_tuned, tuned_capacity;
} gfli_cuda;

enum { GFLI_CUDA_LOWEST = 8, GFLI_THREADS = 256 };

static gfli_cuda *gfli_cuda_of(const gfl_context *context) {
    return (gfli_cuda *)context->device;
}

/* Whether the device may be used; every operation begins with it. */
static bool gfli_cuda_ready(const gfl_context *context) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (d->failed == cudaSuccess) {
        d->failed = cudaSetDevice(d->index);
        d->during = "choosing the device";
    }
    return d->failed == cudaSuccess;
}

static bool gfli_cuda_note(const gfl_context *context, cudaError_t e, const char *during) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (e == cudaSuccess || d->failed != cudaSuccess) return e == cudaSuccess;
    d->failed = e;
    d->during = during;
    return false;
}

/* After a launch. */
static void gfli_cuda_launched(const gfl_context *context, const char *during) {
    (void)gfli_cuda_note(context, cudaGetLastError(), during);
}

static unsigned gfli_blocks(size_t n) {
    return (unsigned)((n + GFLI_THREADS - 1) / GFLI_THREADS);
}

static gfl_status gfli_finish_cuda(gfl_context *context) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (gfli_cuda_ready(context))
        (void)gfli_cuda_note(context, cudaStreamSynchronize(d->stream), "waiting for the network");
    if (d->failed == cudaSuccess) return GFL_OK;
    return gfli_error(context, GFL_E_DEVICE,
                      "%s: CUDA failed in %s: %s; this context cannot be used any more: destroy it "
                      "and what was made with it",
                      context->device_name, d->during, cudaGetErrorString(d->failed));
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Of the device, or page-locked of the host. */
static gfl_status gfli_cuda_take(gfl_context *context, bool host, size_t count, size_t size,
                                 const char *what, void *out_pointer) {
    void *p = NULL;
    size_t bytes, available = 0, total = 0;
    memcpy(out_pointer, &p, sizeof p);
    if (!gfli_mul(count, size, &bytes))
        return gfli_error(context, GFL_E_MEMORY,
                          "%s: %zu elements of %zu bytes are more than memory can hold", what,
                          count, size);
    if (!gfli_cuda_ready(context)) return gfli_finish_cuda(context);
    if (bytes == 0) bytes = 1;
    const cudaError_t e = host ? cudaMallocHost(&p, bytes) : cudaMalloc(&p, bytes);
    if (e == cudaSuccess) {
        memcpy(out_pointer, &p, sizeof p);
        return GFL_OK;
    }
    (void)cudaGetLastError(); /* a refused allocation leaves the device as it was */
    if (e != cudaErrorMemoryAllocation) {
        (void)gfli_cuda_note(context, e, what);
        return gfli_finish_cuda(context);
    }
    if (host)
        return gfli_error(context, GFL_E_MEMORY,
                          "out of page-locked host memory: %s wanted %zu bytes", what, bytes);
    (void)cudaMemGetInfo(&available, &total);
    return gfli_error(context, GFL_E_MEMORY,
                      "out of memory on %s: %s wanted %zu bytes, %zu of %zu are free",
                      context->device_name, what, bytes, available, total);
}

static gfl_status gfli_alloc_cuda(gfl_context *context, size_t count, size_t size, const char *what,
                                  void *out_pointer) {
    return gfli_cuda_take(context, false, count, size, what, out_pointer);
}

static gfl_status gfli_host_alloc_cuda(gfl_context *context, size_t count, size_t size,
                                       const char *what, void *out_pointer) {
    return gfli_cuda_take(context, true, count, size, what, out_pointer);
}

/* Also after a failure: what can be given back is. */
static void gfli_host_free_cuda(gfl_context *context, void *pointer) {
    if (!pointer) return;
    (void)cudaSetDevice(gfli_cuda_of(context)->index);
    (void)gfli_cuda_note(context, cudaFreeHost(pointer), "freeing memory");
}

static void gfli_free_cuda(gfl_context *context, void *pointer) {
    if (!pointer) return;
    (void)cudaSetDevice(gfli_cuda_of(context)->index);
    (void)gfli_cuda_note(context, cudaFree(pointer), "freeing memory");
}

/* Waits, so that the caller may change `from` at once even where it is page-locked. */
static void gfli_upload_cuda(gfl_context *context, void *to, const void *from, size_t bytes) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (bytes == 0 || !gfli_cuda_ready(context)) return;
    if (gfli_cuda_note(context, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, d->stream),
                       "a copy to the device"))
        (void)gfli_cuda_note(context, cudaStreamSynchronize(d->stream), "a copy to the device");
}

static void gfli_download_cuda(gfl_context *context, void *to, const void *from, size_t bytes) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (bytes > 0 && gfli_cuda_ready(context))
        (void)gfli_cuda_note(context,
                             cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d->stream),
                             "a copy to the host");
}

static void gfli_zero_cuda(gfl_context *context, void *to, size_t bytes) {
    if (bytes > 0 && gfli_cuda_ready(context))
        (void)gfli_cuda_note(context, cudaMemsetAsync(to, 0, bytes, gfli_cuda_of(context)->stream),
                             "clearing memory");
}

/* Managed memory is the device's as well. */
static bool gfli_owns_cuda(gfl_context *context, const void *pointer) {
    cudaPointerAttributes a;
    if (!gfli_cuda_ready(context)) return false;
    if (cudaPointerGetAttributes(&a, pointer) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    return a.type == cudaMemoryTypeManaged ||
           (a.type == cudaMemoryTypeDevice && a.device == gfli_cuda_of(context)->index);
}

/* ---- events and recordings ------------------------------------------------------------------- */

static void gfli_mark_cuda(gfl_context *context, void *event) {
    if (gfli_cuda_ready(context))
        (void)gfli_cuda_note(context,
                             cudaEventRecord((cudaEvent_t)event, gfli_cuda_of(context)->stream),
                             "recording the caller's event");
}

static bool gfli_record_cuda(gfl_context *context) {
    if (!gfli_cuda_ready(context)) return false;
    const bool began = cudaStreamBeginCapture(gfli_cuda_of(context)->stream,
                                              cudaStreamCaptureModeThreadLocal) == cudaSuccess;
    if (!began) (void)cudaGetLastError();
    return began;
}

/* What fails in a capture was not done, so it is no failure of the device. */
static void *gfli_recorded_cuda(gfl_context *context) {
    gfli_cuda *d = gfli_cuda_of(context);
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    bool good = cudaStreamEndCapture(d->stream, &graph) == cudaSuccess && graph != NULL;
    good = good && d->failed == cudaSuccess;
    good = good && cudaGraphInstantiate(&ready, graph, 0) == cudaSuccess;
    if (graph) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    d->failed = cudaSuccess;
    return good ? (void *)ready : NULL;
}

static void gfli_replay_cuda(gfl_context *context, void *recording) {
    if (gfli_cuda_ready(context))
        (void)gfli_cuda_note(
            context, cudaGraphLaunch((cudaGraphExec_t)recording, gfli_cuda_of(context)->stream),
            "the network");
}

static void gfli_forget_cuda(gfl_context *context, void *recording) {
    (void)cudaSetDevice(gfli_cuda_of(context)->index);
    (void)cudaGraphExecDestroy((cudaGraphExec_t)recording);
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Without a driver this fails and leaves n alone. */
static gfl_status gfli_cuda_find(gfl_context *context) {
    int n = 0;
    const cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaErrorInsufficientDriver || e == cudaErrorStubLibrary)
        return gfli_error(context, GFL_E_DEVICE,
                          "no NVIDIA driver that CUDA %d.%d can use (%s): install one, or use the "
                          "CPU",
                          CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, cudaGetErrorString(e));
    if (e != cudaSuccess || n < 1)
        return gfli_error(context, GFL_E_DEVICE, "no NVIDIA GPU here (%s): use the CPU",
                          e == cudaSuccess ? "the driver sees none" : cudaGetErrorString(e));
    if (context->device_index >= n)
        return gfli_error(context, GFL_E_DEVICE,
                          "there is no GPU %d: the driver sees %d, counted from 0",
                          context->device_index, n);
    return GFL_OK;
}

/* Hopper's own instructions are in no build for sm_90, which only looks as if it were meant. */
static const char *gfli_cuda_arch(const cudaDeviceProp *p, char text[16]) {
    snprintf(text, 16, "sm_%d%d%s", p->major, p->minor, p->major == 9 ? "a" : "");
    return text;
}

static __global__ void gfli_probe_kernel(void) {
}

/* Whether this build has code for the device; a kernel that cannot be loaded says so. */
static gfl_status gfli_cuda_probe(gfl_context *context, const cudaDeviceProp *p) {
    char arch[16];
    cudaFuncAttributes unused;
    const cudaError_t e = cudaFuncGetAttributes(&unused, (const void *)gfli_probe_kernel);
    if (p->major >= GFLI_CUDA_LOWEST && e == cudaSuccess) return GFL_OK;
    (void)cudaGetLastError();
    if (p->major < GFLI_CUDA_LOWEST)
        return gfli_error(context, GFL_E_DEVICE,
                          "%s has compute capability %d.%d; %d.0 or later is needed", p->name,
                          p->major, p->minor, GFLI_CUDA_LOWEST);
    return gfli_error(context, GFL_E_DEVICE,
                      "this build has no kernels for %s, compute capability %d.%d (%s): build "
                      "gfl_cuda.cu with -arch=%s",
                      p->name, p->major, p->minor, cudaGetErrorString(e), gfli_cuda_arch(p, arch));
}

/* The variant that the caller prefers: its name must be one, or "mma". */
static gfl_status gfli_cuda_prefer(gfl_context *context, const char *name, int *out) {
    char names[512] = "mma, ";
    *out = -1;
    if (!name || strcmp(name, "mma") == 0) return GFL_OK;
    for (int i = 0; i < GFLI_CONV_VARIANTS; i++) {
        const size_t used = strlen(names);
        if (strcmp(name, gfli_conv_variants[i].name) == 0) *out = i;
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                 gfli_conv_variants[i].name);
    }
    if (*out >= 0) return GFL_OK;
    return gfli_error(context, GFL_E_ARG, "there is no kernel \"%.40s\"; there are %s", name,
                      names);
}

/* What convolutions on the tensor cores need.  wgmma: may be asked for. */
static gfl_status gfli_cuda_open_tensor(gfl_context *context, gfli_cuda *d,
                                        const cudaDeviceProp *p, bool wgmma) {
    char arch[16];
    const size_t bytes = GFLI_MAX_SPLIT_TILES * sizeof *d->conv.arrived;
    static const gfli_element elements[] = {GFLI_MAP_F32, GFLI_MAP_F32, GFLI_MAP_BF16,
                                            GFLI_MAP_FP16};
    context->element = elements[(int)context->precision];
    if (context->precision == GFL_PRECISION_FP32) return GFL_OK;
    if (!gfli_cuda_note(context, gfli_conv_device_query(wgmma, d->stream, &d->conv),
                        "asking the device"))
        return gfli_finish_cuda(context);
    if (wgmma && p->major == 9 && context->element != GFLI_MAP_F32 && !d->conv.wgmma)
        gfli_log(context, GFL_LOG_WARNING,
                 "%s: this build is without the faster convolutions of that GPU (wgmma): build "
                 "gfl_cuda.cu with -arch=%s",
                 context->device_name, gfli_cuda_arch(p, arch));
    GFLI_TRY(gfli_alloc_cuda(context, bytes, 1, "counters", &d->conv.arrived));
    (void)gfli_cuda_note(context, cudaMemsetAsync(d->conv.arrived, 0, bytes, d->stream),
                         "counters");
    return gfli_finish_cuda(context);
}

static gfl_status gfli_open_cuda(gfl_context *context, const gfl_context_desc *desc) {
    gfli_cuda *d;
    cudaDeviceProp p;
    int preferred;
    if ((int)desc->precision < 0 || (int)desc->precision > (int)GFL_PRECISION_FP16)
        return gfli_error(context, GFL_E_UNSUPPORTED,
                          "precision is %d, which is not a gfl_precision",
                          (int)desc->precision);
    GFLI_TRY(gfli_cuda_prefer(context, desc->kernel, &preferred));
    GFLI_TRY(gfli_cuda_find(context));
    GFLI_TRY(gfli_calloc(context, 1, sizeof *d, "the device", &d));
    d->preferred = preferred;
    d->tune = desc->tune != 0;
    d->index = context->device_index;
    d->during = "opening the device";
    context->device = d;
    snprintf(context->device_name, sizeof context->device_name, "cuda:%d", d->index);
    d->failed = cudaSetDevice(d->index);
    if (d->failed == cudaSuccess) d->failed = cudaGetDeviceProperties(&p, d->index);
    if (d->failed != cudaSuccess) return gfli_finish_cuda(context);
    GFLI_TRY(gfli_cuda_probe(context, &p));
    snprintf(context->device_name, sizeof context->device_name,
             "cuda:%d, %.100s, sm_%d%d, %.1f GiB", d->index, p.name, p.major, p.minor,
             (double)p.totalGlobalMem / 1073741824.0);
    d->borrowed = desc->stream != NULL;
    if (d->borrowed)
        d->stream = (cudaStream_t)desc->stream;
    else
        d->failed = cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking);
    GFLI_TRY(gfli_finish_cuda(context));
    return gfli_cuda_open_tensor(context, d, &p, !desc->kernel || strcmp(desc->kernel, "mma") != 0);
}

static void gfli_close_cuda(gfl_context *context) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (!d) return;
    (void)cudaSetDevice(d->index);
    if (d->stream && !d->borrowed) (void)cudaStreamDestroy(d->stream);
    gfli_free(context, d->tuned);
    (void)cudaFree(d->conv.arrived);
    gfli_free(context, d);
    context->device = NULL;
}

/* ===============================================================================================
 * src/cuda/fold.cuh - a frozen batch norm as scale and bias
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/cuda/pool.cuh - max pooling and upsampling
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/cuda/norm.cuh - GroupNorm and level scales
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/cuda/conv/fp32.cuh - convolution in plain float32: an implicit product of matrices, tile by tile
 * ============================================================================================ */

/* A block computes GFLI_FP32_TILE positions times as many output channels, a thread 4 x 4 of them.
 * Groups are merged into blocks of up to a tile's channels, with zeros beside the diagonal.  The
 * sum runs over taps, then channels, always in this order. */
enum {
    GFLI_FP32_TILE = 64,
    GFLI_FP32_STEP = 16, /* of the sum between two barriers */
    GFLI_FP32_SIDE = 4,
    GFLI_FP32_PITCH = 68, /* floats of a tile's row: keeps vectors aligned and banks apart */
    GFLI_FP32_TAPS = 9    /* of a deformable convolution */
};

typedef struct gfli_fp32_job {
    gfli_conv_shape s;
    int groups, group_in, group_out; /* after merging */
    gfli_sizes x, y;
    const float *in, *packing, *bias, *residual, *offset;
    int offset_c;
    float *out;
    bool relu;
} gfli_fp32_job;

/* ---- weights: [groups][taps][group_in][group_out] -------------------------------------------- */

static void gfli_fp32_merge(gfli_fp32_job *job) {
    const gfli_groups merged = gfli_merge_groups(&job->s, GFLI_FP32_TILE);
    job->groups = merged.n;
    job->group_in = merged.in;
    job->group_out = merged.out;
}

static size_t gfli_fp32_packed_size(const gfli_conv_shape *s) {
    gfli_fp32_job job;
    job.s = *s;
    gfli_fp32_merge(&job);
    return (size_t)job.groups * (size_t)(s->kernel * s->kernel) * (size_t)job.group_in *
           (size_t)job.group_out * sizeof(float);
}

/* Channels are those of a whole group after merging; of other groups of the file comes zero.  One
 * thread per element. */
static __global__ void gfli_fp32_pack_kernel(const float *weight, const float *scale,
                                             float *packing,
                                             const GFLI_GRID_CONSTANT gfli_fp32_job job, size_t n) {
    const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= n) return;
    const int o = (int)(at % (size_t)job.group_out);
    const size_t line = at / (size_t)job.group_out;
    const int i = (int)(line % (size_t)job.group_in), taps = job.s.kernel * job.s.kernel;
    const int tap = (int)(line / (size_t)job.group_in % (size_t)taps);
    const int group = (int)(line / (size_t)job.group_in / (size_t)taps);
    const int in = job.s.in_c / job.s.groups, out = job.s.out_c / job.s.groups;
    const int row = group * job.group_out + o;
    float v = 0.0f;
    if (i / in == o / out)
        v = (scale ? scale[row] : 1.0f) * weight[gfli_weight_at(taps, in, row, tap, i % in)];
    packing[at] = v;
}

static cudaError_t gfli_fp32_pack(cudaStream_t stream, const gfli_conv_shape *s,
                                  const float *weight, const float *scale, float *packing) {
    gfli_fp32_job job;
    memset(&job, 0, sizeof job);
    job.s = *s;
    gfli_fp32_merge(&job);
    const size_t n = gfli_fp32_packed_size(s) / sizeof *packing;
    GFLI_LAUNCH((gfli_fp32_pack_kernel), (unsigned)((n + 255) / 256), 256, 0, stream, weight, scale,
                packing, job, n);
    return cudaGetLastError();
}

/* ---- positions ------------------------------------------------------------------------------- */

/* An output position: where its window begins, and its image. */
typedef struct gfli_fp32_row {
    int top, left, h, w;
    size_t image; /* position of the image's first value in x */
    bool exists;
} gfli_fp32_row;

static __device__ __forceinline__ gfli_fp32_row gfli_fp32_row_of(const gfli_fp32_job *job,
                                                                 size_t position) {
    gfli_fp32_row r;
    const gfli_sizes *y = &job->y;
    r.exists = position < y->before[y->levels];
    r.top = r.left = r.h = r.w = 0;
    r.image = 0;
    if (!r.exists) return r;
    int level = 0;
    while (position >= y->before[level + 1]) level++;
    const int w = y->w[level], area = y->h[level] * w, at = (int)(position - y->before[level]);
    r.h = job->x.h[level];
    r.w = job->x.w[level];
    r.top = at % area / w * job->s.stride - job->s.pad;
    r.left = at % w * job->s.stride - job->s.pad;
    r.image = job->x.before[level] + (size_t)(at / area) * (size_t)r.h * (size_t)r.w;
    return r;
}

/* Where one tap of a deformable convolution looks (spec 1.5), and with which weights. */
typedef struct gfli_fp32_point {
    int at;          /* the top left position from the image's first; it may be off the map */
    float weight[4]; /* of the corners, with the mask; those off the map have 0 */
} gfli_fp32_point;

static __device__ __forceinline__ gfli_fp32_point gfli_fp32_point_of(const gfli_fp32_row *r,
                                                                     const float *offset, int tap,
                                                                     bool masked) {
    gfli_fp32_point p;
    const float y = (float)(r->top + tap / 3) + offset[2 * tap];
    const float x = (float)(r->left + tap % 3) + offset[2 * tap + 1];
    const gfli_between b = gfli_between_at(r->h, r->w, y, x);
    const float mask = masked && b.corners ? gfli_sigmoid(offset[2 * GFLI_FP32_TAPS + tap]) : 1.0f;
    p.at = b.top * r->w + b.left;
    gfli_corner_weights(b.down, b.right, p.weight);
    for (int i = 0; i < 4; i++) p.weight[i] = b.corners >> i & 1 ? p.weight[i] * mask : 0.0f;
    return p;
}

static __device__ __forceinline__ float gfli_fp32_sample(const gfli_fp32_job *job,
                                                         const gfli_fp32_row *r,
                                                         const gfli_fp32_point *p, int c) {
    const long long first = (long long)r->image + p->at;
    const long long at[4] = {first, first + 1, first + r->w, first + r->w + 1};
    float v = 0.0f;
    for (int i = 0; i < 4; i++)
        if (p->weight[i] != 0.0f) v += p->weight[i] * job->in[at[i] * job->s.in_c + c];
    return v;
}

static __device__ __forceinline__ float gfli_fp32_read(const gfli_fp32_job *job,
                                                       const gfli_fp32_row *r, int tap, int c) {
    const int y = r->top + tap / job->s.kernel, x = r->left + tap % job->s.kernel;
    if (y < 0 || x < 0 || y >= r->h || x >= r->w) return 0.0f;
    const size_t at = r->image + (size_t)y * (size_t)r->w + (size_t)x;
    return job->in[at * (size_t)job->s.in_c + (size_t)c];
}

/* ---- the product ----------------------------------------------------------------------------- */

static __device__ __forceinline__ void gfli_fp32_multiply(const float *a, const float *b,
                                                          float sum[4][4]) {
    for (int k = 0; k < GFLI_FP32_STEP; k++, a += GFLI_FP32_PITCH, b += GFLI_FP32_PITCH) {
        const float4 p = *(const float4 *)(const void *)a, q = *(const float4 *)(const void *)b;
        const float rows[4] = {p.x, p.y, p.z, p.w}, cols[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int i = 0; i < GFLI_FP32_SIDE; i++)
#pragma unroll
            for (int j = 0; j < GFLI_FP32_SIDE; j++) sum[i][j] += rows[i] * cols[j];
    }
}

static __device__ __forceinline__ void gfli_fp32_store(const gfli_fp32_job *job, size_t first,
                                                       int channel, int end, float sum[4][4]) {
    for (int i = 0; i < GFLI_FP32_SIDE; i++) {
        const size_t position = first + (size_t)i;
        if (position >= job->y.before[job->y.levels]) return;
        for (int j = 0; j < GFLI_FP32_SIDE && channel + j < end; j++) {
            const size_t at = position * (size_t)job->s.out_c + (size_t)(channel + j);
            float v = sum[i][j];
            if (job->bias) v += job->bias[channel + j];
            if (job->residual) v += job->residual[at];
            job->out[at] = job->relu && v < 0.0f ? 0.0f : v;
        }
    }
}

template <bool deformed>
static __global__ void __launch_bounds__(GFLI_THREADS)
    gfli_fp32_kernel(const GFLI_GRID_CONSTANT gfli_fp32_job job) {
    GFLI_SHARED(float4, a4, [GFLI_FP32_STEP * GFLI_FP32_PITCH / 4]);
    GFLI_SHARED(float4, b4, [GFLI_FP32_STEP * GFLI_FP32_PITCH / 4]);
    GFLI_SHARED(gfli_fp32_point, points, [deformed ? GFLI_FP32_TILE * GFLI_FP32_TAPS : 1]);
    float *a = (float *)(void *)a4, *b = (float *)(void *)b4;
    const int thread = (int)threadIdx.x, group = (int)blockIdx.z, column = (int)blockIdx.y;
    const int taps = job.s.kernel * job.s.kernel, terms = taps * job.group_in;
    /* A thread loads one position's terms k, k + 4 and so on, and 4 rows of one weight column. */
    const int row = thread % GFLI_FP32_TILE, part = thread / GFLI_FP32_TILE;
    const size_t tile = (size_t)blockIdx.x * GFLI_FP32_TILE;
    const gfli_fp32_row r = gfli_fp32_row_of(&job, tile + (size_t)row);
    const int out = column * GFLI_FP32_TILE + row;
    const float *weight = job.packing + (size_t)group * (size_t)terms * (size_t)job.group_out;
    const int sum_row = thread / 16 * GFLI_FP32_SIDE, sum_col = thread % 16 * GFLI_FP32_SIDE;
    float sum[GFLI_FP32_SIDE][GFLI_FP32_SIDE] = {};
    if (deformed) {
        const float *offset = job.offset + (tile + (size_t)row) * (size_t)job.offset_c;
        for (int tap = part; tap < GFLI_FP32_TAPS && r.exists; tap += 4)
            points[row * GFLI_FP32_TAPS + tap] =
                gfli_fp32_point_of(&r, offset, tap, job.offset_c > 2 * GFLI_FP32_TAPS);
        __syncthreads();
    }
    for (int first = 0; first < terms; first += GFLI_FP32_STEP) {
        for (int k = part; k < GFLI_FP32_STEP; k += 4) {
            const int term = first + k, tap = term / job.group_in;
            const int c = group * job.group_in + term - tap * job.group_in;
            float v = 0.0f;
            if (term < terms && r.exists)
                v = deformed ? gfli_fp32_sample(&job, &r, &points[row * GFLI_FP32_TAPS + tap], c)
                             : gfli_fp32_read(&job, &r, tap, c);
            a[k * GFLI_FP32_PITCH + row] = v;
            b[k * GFLI_FP32_PITCH + row] =
                term < terms && out < job.group_out
                    ? weight[(size_t)term * (size_t)job.group_out + (size_t)out]
                    : 0.0f;
        }
        __syncthreads();
        gfli_fp32_multiply(a + sum_row, b + sum_col, sum);
        __syncthreads();
    }
    gfli_fp32_store(&job, tile + (size_t)sum_row,
                    group * job.group_out + column * GFLI_FP32_TILE + sum_col,
                    (group + 1) * job.group_out, sum);
}

static void gfli_fp32_conv(gfl_context *context, const gfli_conv_call *call) {
    gfli_fp32_job job;
    memset(&job, 0, sizeof job);
    job.s = *call->shape;
    gfli_fp32_merge(&job);
    job.x = gfli_sizes_of(call->x);
    job.y = gfli_sizes_of(call->y);
    job.in = call->x->data;
    job.packing = (const float *)call->packing;
    job.bias = call->bias;
    job.residual = call->residual ? call->residual->data : NULL;
    job.offset = call->offset ? call->offset->data : NULL;
    job.offset_c = call->offset ? call->offset->c : 0;
    job.out = call->y->data;
    job.relu = call->relu;
    const dim3 grid((unsigned)((gfli_points(call->y) + GFLI_FP32_TILE - 1) / GFLI_FP32_TILE),
                    (unsigned)gfli_ceil_div(job.group_out, GFLI_FP32_TILE), (unsigned)job.groups);
    cudaStream_t stream = gfli_cuda_of(context)->stream;
    if (job.offset)
        GFLI_LAUNCH((gfli_fp32_kernel<true>), grid, GFLI_THREADS, 0, stream, job);
    else
        GFLI_LAUNCH((gfli_fp32_kernel<false>), grid, GFLI_THREADS, 0, stream, job);
    gfli_cuda_launched(context, "a convolution");
}

/* ===============================================================================================
 * src/cuda/conv/tune.cuh - the fastest kernel of a convolution, found by running those that apply
 * ============================================================================================ */

/* A convolution is timed once a context, when a plan first has it, on random numbers in memory of
 * its own: multiplying zeros takes less power, and so runs at another clock.  What is measured
 * twice may differ: results are the same bits within a context, not between two. */

enum { GFLI_TUNE_WARM = 2, GFLI_TUNE_RUNS = 5 };

/* What the time depends on; compared as bytes. */
typedef struct gfli_tune_key {
    gfli_conv_shape shape;
    int n_sides, out_c[GFLI_CONV_SIDES];
    int n, levels, h[GFL_LEVELS], w[GFL_LEVELS];
    int element, offset_c, norm_width, relu, wide, residual;
} gfli_tune_key;

typedef struct gfli_tuned {
    gfli_tune_key key;
    gfli_conv_choice choice;
} gfli_tuned;

static gfli_tune_key gfli_tune_key_of(const gfli_conv_request *r, bool residual) {
    gfli_tune_key k;
    memset(&k, 0, sizeof k);
    k.shape = *r->shape;
    k.n_sides = r->n_sides;
    memcpy(k.out_c, r->out_c, sizeof k.out_c);
    k.n = r->x->n;
    k.levels = r->x->levels;
    memcpy(k.h, r->x->h, (size_t)k.levels * sizeof *k.h);
    memcpy(k.w, r->x->w, (size_t)k.levels * sizeof *k.w);
    k.element = r->element;
    k.offset_c = r->offset_c;
    k.norm_width = r->norm_width;
    k.relu = r->relu;
    k.wide = r->wide;
    k.residual = residual;
    return k;
}

static bool gfli_tune_recall(const gfli_cuda *d, const gfli_tune_key *key, gfli_conv_choice *out) {
    for (size_t i = 0; i < d->n_tuned; i++) {
        if (memcmp(&d->tuned[i].key, key, sizeof *key) != 0) continue;
        *out = d->tuned[i].choice;
        return true;
    }
    return false;
}

/* ---- operands -------------------------------------------------------------------------------- */

/* Operands in one piece of memory; with base NULL it only measures.  Returns the bytes. */
static size_t gfli_tune_operands(const gfli_conv_request *r, bool residual, size_t scratch,
                                 unsigned char *base, gfli_conv_operands sides[GFLI_CONV_SIDES],
                                 void **out_scratch) {
    gfli_cutter c = {base, 0};
    const size_t size = r->element == GFLI_MAP_F32 ? 4 : 2;
    size_t points = 0;
    for (int l = 0; l < r->x->levels; l++)
        points += (size_t)r->x->n * (size_t)gfli_conv_out(r->shape, r->x->h[l]) *
                  (size_t)gfli_conv_out(r->shape, r->x->w[l]);
    memset(sides, 0, GFLI_CONV_SIDES * sizeof *sides);
    for (int i = 0; i < r->n_sides; i++) {
        const size_t out_c = (size_t)r->out_c[i];
        gfli_conv_shape own = *r->shape;
        own.out_c = r->out_c[i];
        sides[i].x = gfli_cut(&c, gfli_map_bytes(r->x));
        sides[i].packing = gfli_cut(&c, gfli_conv_tensor_packed_size(&own, r->element));
        sides[i].bias = (const float *)gfli_cut(&c, out_c * sizeof(float));
        sides[i].y = gfli_cut(&c, points * out_c * (r->wide ? 4 : size));
        if (residual) sides[i].residual = gfli_cut(&c, points * out_c * size);
        if (r->offset_c > 0)
            sides[i].offset =
                (const float *)gfli_cut(&c, points * (size_t)r->offset_c * sizeof(float));
        if (r->norm_width > 0)
            sides[i].stats = (float *)gfli_cut(&c, (size_t)(r->x->levels * r->x->n) * out_c /
                                                       (size_t)r->norm_width * 2 * sizeof(float));
    }
    *out_scratch = gfli_cut(&c, scratch);
    return c.used;
}

/* Bits that are numbers of both signs whatever the element: 1 to 2 in fp16; of all sizes from 2^-7
 * to 2 in bf16 and float, so that deformable samples lie where real ones do. */
static __global__ void gfli_tune_fill_kernel(unsigned *to, size_t n) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        unsigned bits = (unsigned)i * 0x9e3779b1u;
        bits = (bits ^ bits >> 15) * 0x85ebca77u;
        bits = (bits ^ bits >> 13) * 0xc2b2ae3du;
        to[i] = ((bits ^ bits >> 16) & 0x83ff83ffu) | 0x3c003c00u;
    }
}

static cudaError_t gfli_tune_fill(const gfli_cuda *d, void *memory, size_t bytes) {
    GFLI_LAUNCH((gfli_tune_fill_kernel), 8u * (unsigned)d->conv.n_sms, GFLI_THREADS, 0, d->stream,
                (unsigned *)memory, bytes / sizeof(unsigned));
    return cudaGetLastError();
}

/* ---- timing ---------------------------------------------------------------------------------- */

/* Milliseconds of GFLI_TUNE_RUNS runs, or a negative number. */
static float gfli_tune_time(const gfli_cuda *d, const gfli_conv_request *r, gfli_conv_choice choice,
                            const gfli_conv_operands *sides, void *scratch,
                            const cudaEvent_t events[2]) {
    float ms = -1.0f;
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < GFLI_TUNE_WARM + GFLI_TUNE_RUNS && e == cudaSuccess; i++) {
        if (i == GFLI_TUNE_WARM) e = cudaEventRecord(events[0], d->stream);
        if (e == cudaSuccess)
            e = gfli_conv_tensor_run(d->stream, &d->conv, r, choice, sides, GFLI_NORM_EPS,
                                     scratch);
    }
    if (e == cudaSuccess) e = cudaEventRecord(events[1], d->stream);
    if (e == cudaSuccess) e = cudaEventSynchronize(events[1]);
    if (e == cudaSuccess) e = cudaEventElapsedTime(&ms, events[0], events[1]);
    return e == cudaSuccess ? ms : -1.0f;
}

/* Candidates: of every variant that applies, what the model thinks best, and no splits. */
static int gfli_tune_candidates(const gfli_conv_request *r, const gfli_conv_device *device,
                                gfli_conv_choice out[2 * GFLI_CONV_VARIANTS]) {
    int n = 0;
    for (int variant = 0; variant < GFLI_CONV_VARIANTS; variant++) {
        gfli_conv_choice choice;
        if (!gfli_conv_choose(r, device, variant, &choice)) continue;
        out[n++] = choice;
        if (choice.splits == 1) continue;
        choice.splits = 1;
        out[n++] = choice;
    }
    return n;
}

static bool gfli_tune_race(gfl_context *context, const gfli_conv_request *r, bool residual,
                           gfli_conv_choice *out) {
    gfli_conv_choice candidates[2 * GFLI_CONV_VARIANTS];
    gfli_conv_operands sides[GFLI_CONV_SIDES];
    const gfli_cuda *d = gfli_cuda_of(context);
    const int n = gfli_tune_candidates(r, &d->conv, candidates);
    cudaEvent_t events[2] = {NULL, NULL};
    size_t scratch = 0;
    unsigned char *memory = NULL;
    void *spare = NULL;
    float best = -1.0f;
    for (int i = 0; i < n; i++) {
        const size_t need = gfli_conv_tensor_scratch(r, candidates[i]);
        if (need > scratch) scratch = need;
    }
    const size_t bytes = gfli_tune_operands(r, residual, scratch, NULL, sides, &spare);
    if (n == 0 || cudaMalloc((void **)&memory, bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    (void)gfli_tune_operands(r, residual, scratch, memory, sides, &spare);
    if (gfli_tune_fill(d, memory, bytes) == cudaSuccess &&
        cudaEventCreate(&events[0]) == cudaSuccess && cudaEventCreate(&events[1]) == cudaSuccess) {
        for (int i = 0; i < n; i++) {
            const float ms = gfli_tune_time(d, r, candidates[i], sides, spare, events);
            if (ms < 0.0f || (best >= 0.0f && ms >= best)) continue;
            best = ms;
            *out = candidates[i];
        }
    }
    for (int i = 0; i < 2; i++)
        if (events[i]) (void)cudaEventDestroy(events[i]);
    (void)gfli_cuda_note(context, cudaGetLastError(), "timing kernels");
    (void)cudaFree(memory);
    return best >= 0.0f;
}

/* The measured choice; false where nothing could be measured, and the model has to do. */
static bool gfli_conv_tune(gfl_context *context, const gfli_conv_request *r, bool residual,
                           gfli_conv_choice *out) {
    gfli_cuda *d = gfli_cuda_of(context);
    const gfli_tune_key key = gfli_tune_key_of(r, residual);
    if (gfli_tune_recall(d, &key, out)) return true;
    if (!gfli_cuda_ready(context) || !gfli_tune_race(context, r, residual, out)) return false;
    if (gfli_grow(context, &d->tuned, &d->tuned_capacity, d->n_tuned + 1, sizeof *d->tuned,
                  "timings") != GFL_OK)
        return true;
    d->tuned[d->n_tuned].key = key;
    d->tuned[d->n_tuned++].choice = *out;
    return true;
}

/* ===============================================================================================
 * src/cuda/conv/conv.cuh - convolution as an operation: in plain float32, or on the tensor cores
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/cuda/image.cuh - the CPU's resize, bit for bit, and normalisation
 * ============================================================================================ */

/* As kernels see an image: `size` bytes a pixel, `pitch` from a row to the next, may be
 * negative. */
typedef struct gfli_source {
    const uint8_t *pixels;
    ptrdiff_t pitch;
    int w, h, size;
    int channel[3]; /* where red, green and blue (or blue .. red) are in a pixel */
} gfli_source;

static size_t gfli_resize_scratch_cuda(const gfl_context *context, int in_w, int in_h, int out_w,
                                       int out_h) {
    (void)context;
    (void)out_w;
    (void)out_h;
    return (size_t)in_w * (size_t)in_h * 4;
}

/* One value of the horizontal pass. */
static __device__ __forceinline__ uint16_t gfli_resize_across_one(const gfli_source *s, int row,
                                                             int from, int next, int a, int b,
                                                             int channel) {
    const uint8_t *p = s->pixels + (ptrdiff_t)row * s->pitch + channel;
    return gfli_blend_across(p[from * s->size], p[next * s->size], a, b);
}

static __global__ void gfli_resize_kernel(const GFLI_GRID_CONSTANT gfli_source s, int out_w,
                                          int out_h, uint8_t *out) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)out_w * (size_t)out_h) return;
    const int x = (int)(i % (size_t)out_w), y = (int)(i / (size_t)out_w);
    const gfli_tap across = gfli_column_tap(x, s.w, out_w), down = gfli_tap_of(y, s.h, out_h);
    const int next = gfli_min(across.at + 1, s.w - 1);
    const int a = gfli_tap_weight(1.0f - across.fraction), b = gfli_tap_weight(across.fraction);
    const int wa = gfli_tap_weight(1.0f - down.fraction), wb = gfli_tap_weight(down.fraction);
    const int y0 = gfli_clamp(down.at, 0, s.h - 1), y1 = gfli_clamp(down.at + 1, 0, s.h - 1);
    for (int k = 0; k < 3; k++) {
        const uint16_t upper = gfli_resize_across_one(&s, y0, across.at, next, a, b, s.channel[k]);
        const uint16_t lower = gfli_resize_across_one(&s, y1, across.at, next, a, b, s.channel[k]);
        out[i * 3 + (size_t)k] = gfli_blend_down(upper, lower, (int16_t)wa, (int16_t)wb);
    }
}

/* The rows as they lie in memory, without what is between them; not of an image that is there. */
static void gfli_upload_image(gfl_context *context, const gfl_image *image, bool on_device,
                              gfli_source *s, void *to) {
    gfli_cuda *d = gfli_cuda_of(context);
    const int size = gfli_pixel_bytes(image->format);
    const size_t row = (size_t)image->width * (size_t)size;
    const ptrdiff_t stride = gfli_pixel_pitch(image);
    const ptrdiff_t last = (ptrdiff_t)(image->height - 1);
    const uint8_t *first = image->pixels;
    s->pixels = image->pixels;
    s->pitch = stride;
    s->w = image->width;
    s->h = image->height;
    s->size = size;
    if (on_device) return;
    s->pixels = (const uint8_t *)to + (stride < 0 ? last * (ptrdiff_t)row : 0);
    s->pitch = stride < 0 ? -(ptrdiff_t)row : (ptrdiff_t)row;
    if (stride < 0) first += last * stride;
    const size_t pitch = (size_t)(stride < 0 ? -stride : stride);
    (void)gfli_cuda_note(context,
                         cudaMemcpy2DAsync(to, row, first, pitch, row, (size_t)image->height,
                                           cudaMemcpyHostToDevice, d->stream),
                         "the upload of an image");
}

static void gfli_resize_cuda(gfl_context *context, const gfl_image *image, bool on_device, bool bgr,
                             int out_w, int out_h, uint8_t *out, void *scratch) {
    gfli_source s;
    if (!gfli_cuda_ready(context)) return;
    gfli_upload_image(context, image, on_device, &s, scratch);
    gfli_pixel_channels(image->format, bgr, s.channel);
    GFLI_LAUNCH((gfli_resize_kernel), gfli_blocks((size_t)out_w * (size_t)out_h), GFLI_THREADS, 0,
                gfli_cuda_of(context)->stream, s, out_w, out_h, out);
    gfli_cuda_launched(context, "resizing");
}

/* ---- normalisation --------------------------------------------------------------------------- */

typedef struct gfli_normalisation {
    const uint8_t *pixels;
    int w, h, out_w, out_h, c;
    bool flip;
    float mean[3], std[3];
    void *out; /* of one image */
    int element;
} gfli_normalisation;

static __global__ void gfli_normalise_kernel(const GFLI_GRID_CONSTANT gfli_normalisation t) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)t.out_w * (size_t)t.out_h) return;
    const int x = (int)(i % (size_t)t.out_w), y = (int)(i / (size_t)t.out_w);
    const bool inside = x < t.w && y < t.h;
    const size_t from = (size_t)y * (size_t)t.w + (size_t)(t.flip ? t.w - 1 - x : x);
    for (int k = 0; k < t.c; k++)
        gfli_write_element(
            t.out, i * (size_t)t.c + (size_t)k,
            inside && k < 3 ? gfli_normalised(t.pixels[from * 3 + (size_t)k], t.mean[k], t.std[k])
                            : 0.0f,
            t.element);
}

static void gfli_normalise_cuda(gfl_context *context, const uint8_t *pixels, int w, int h,
                                const float mean[3], const float std[3], bool flip,
                                const gfli_map *y, int index) {
    const size_t area = (size_t)y->w[0] * (size_t)y->h[0];
    gfli_normalisation t;
    if (!gfli_cuda_ready(context)) return;
    t.pixels = pixels;
    t.w = w;
    t.h = h;
    t.out_w = y->w[0];
    t.out_h = y->h[0];
    t.c = y->c;
    t.flip = flip;
    memcpy(t.mean, mean, sizeof t.mean);
    memcpy(t.std, std, sizeof t.std);
    t.out = gfli_map_at(y, (size_t)index * area * (size_t)y->c);
    t.element = (int)y->element;
    GFLI_LAUNCH((gfli_normalise_kernel), gfli_blocks(area), GFLI_THREADS, 0,
                gfli_cuda_of(context)->stream, t);
    gfli_cuda_launched(context, "normalisation");
}

/* ===============================================================================================
 * src/cuda/decode.cuh - from logits to boxes on the device: threshold, top-k, integral, clip, suppression
 * ============================================================================================ */

/* Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section "Method". */

/* Pairs above the score are collected in any order; what follows orders them by rank, which no two
 * share, so the result never depends on who came first.  Suppression takes GFLI_NMS_CHUNK boxes at
 * a time: against all that are kept, then, by one warp, among themselves. */
enum {
    GFLI_SORT_THREADS = 512,
    GFLI_SORT_SHARED = 4096, /* keys that are sorted in shared memory */
    GFLI_NMS_CHUNK = 256,
    GFLI_NMS_WORDS = GFLI_NMS_CHUNK / 32,
    GFLI_RADIX = 256,
    GFLI_DECODE_IMAGES = 8, /* at a time */
    GFLI_LOGIT_THREADS = 128
};

typedef struct gfli_decode_level {
    const float *cls, *reg; /* of the first image */
    uint64_t *ranks;        /* [what is ranked, rounded up to a power of two]: pairs or locations */
    int cells, w, stride;
    int keep;        /* at most so many ranks */
    int first, most; /* of the candidates: the number of the first, and at most how many */
} gfli_decode_level;

typedef struct gfli_decode_frame {
    int right, bottom;      /* the last coordinates */
    float scale_x, scale_y; /* what boxes are multiplied with, or divided by */
} gfli_decode_frame;

/* Some images of a batch.  ranks, order, boxes and kept are the first one's, those of each other
 * image `scratch` bytes behind those of the one before. */
typedef struct gfli_decode_job {
    gfli_decode_level level[GFL_LEVELS];
    gfli_decode_frame frame[GFLI_DECODE_IMAGES];
    size_t scratch;
    int images, levels, n_classes, cls_c, reg_c, n_bins;
    int inclusive; /* as in gfli_decode_opts, as are the next four */
    bool by_location, divide, agnostic;
    const uint8_t *wanted;
    int most; /* candidates of all levels */
    int max_keep;
    float min_score, nms_iou;
    int *found;          /* [images][GFL_LEVELS + 1] ranks above the score; last the candidates */
    uint64_t *order;     /* [most rounded up to a power of two] */
    gfli_decoded *boxes; /* [most] */
    gfli_apart *kept;    /* [max_keep] */
    gfli_found out;      /* of the first image */
} gfli_decode_job;

template <typename T>
static __device__ __forceinline__ T *gfli_of_image(const gfli_decode_job *job, T *of_first,
                                                   int image) {
    return (T *)(void *)((unsigned char *)of_first + (size_t)image * job->scratch);
}

static __device__ __forceinline__ int *gfli_found_by(const gfli_decode_job *job, int image,
                                                     int level) {
    return job->found + image * (GFL_LEVELS + 1) + level;
}

/* The logits of a location. */
static __device__ __forceinline__ const float *gfli_logits_at(const float *of_first, int cells,
                                                              int c, int image, size_t cell) {
    return of_first + ((size_t)image * (size_t)cells + cell) * (size_t)c;
}

/* ---- ranks ----------------------------------------------------------------------------------- */

static __global__ void gfli_select_kernel(const GFLI_GRID_CONSTANT gfli_decode_job job) {
    const gfli_decode_level *l = &job.level[blockIdx.y];
    const int image = (int)blockIdx.z;
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    const size_t classes = (size_t)job.n_classes, ranked = job.by_location ? 1 : classes;
    if (i >= (size_t)l->cells * ranked) return;
    const int label = (int)(i % ranked); /* of a pair */
    if (!job.by_location && !gfli_wants(job.wanted, label)) return;
    const float *logits = gfli_logits_at(l->cls, l->cells, job.cls_c, image, i / ranked);
    const float score = gfli_sigmoid(
        job.by_location ? gfli_best_wanted(logits, job.n_classes, job.wanted) : logits[label]);
    if (score > job.min_score)
        gfli_of_image(&job, l->ranks,
                      image)[atomicAdd(gfli_found_by(&job, image, (int)blockIdx.y), 1)] =
            gfli_rank(score, (uint64_t)i);
}

/* A power of two of keys, ascending; complete at the call and after it. */
static __device__ __forceinline__ void gfli_sort_keys(uint64_t *keys, int size) {
    for (int run = 2; run <= size; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            for (int i = (int)threadIdx.x; i < size / 2; i += (int)blockDim.x) {
                const int low = i / step * 2 * step + i % step, high = low + step;
                const bool up = (low & run) == 0;
                const uint64_t a = keys[low], b = keys[high];
                if ((a > b) == up) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
            __syncthreads();
        }
    }
}

/* Ascending, by one block; keys has room for the power of two above n, shared for as many as are
 * sorted there, where no step waits for memory. */
static __device__ void gfli_sort_block(uint64_t *keys, int n, uint64_t *shared) {
    int size = 1;
    while (size < n) size *= 2;
    const bool fits = size <= GFLI_SORT_SHARED;
    for (int i = (int)threadIdx.x; i < size; i += (int)blockDim.x) {
        if (fits)
            shared[i] = i < n ? keys[i] : ~(uint64_t)0;
        else if (i >= n)
            keys[i] = ~(uint64_t)0;
    }
    __syncthreads();
    if (!fits) {
        gfli_sort_keys(keys, size);
        return;
    }
    gfli_sort_keys(shared, size);
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) keys[i] = shared[i];
    __syncthreads();
}

/* The k smallest of n different keys to the front, in any order: digit by digit, from the highest,
 * the block finds the k-th smallest. */
static __device__ void gfli_keep_smallest(uint64_t *keys, int n, int k, int *histogram) {
    uint64_t prefix = 0, mask = 0;
    int left = k; /* the key sought is the left-th of those that begin with prefix */
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = (int)threadIdx.x; i < GFLI_RADIX; i += (int)blockDim.x) histogram[i] = 0;
        __syncthreads();
        for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
            if ((keys[i] & mask) == prefix)
                atomicAdd(&histogram[(int)(keys[i] >> shift & (GFLI_RADIX - 1))], 1);
        __syncthreads();
        int digit = 0;
        while (left > histogram[digit]) left -= histogram[digit++];
        __syncthreads();
        prefix |= (uint64_t)digit << shift;
        mask |= (uint64_t)(GFLI_RADIX - 1) << shift;
    }
    /* Keys are read before the round in which anybody writes as far as there. */
    if (threadIdx.x == 0) histogram[0] = 0;
    __syncthreads();
    for (int first = 0; first < n; first += (int)blockDim.x) {
        const int i = first + (int)threadIdx.x;
        const uint64_t key = i < n ? keys[i] : ~(uint64_t)0;
        __syncthreads();
        if (i < n && key <= prefix) keys[atomicAdd(&histogram[0], 1)] = key;
        __syncthreads();
    }
}

/* A block a level and image: its best ranks, in order. */
static __global__ void gfli_top_kernel(const GFLI_GRID_CONSTANT gfli_decode_job job) {
    GFLI_SHARED(int, histogram, [GFLI_RADIX]);
    GFLI_SHARED(uint64_t, keys, [GFLI_SORT_SHARED]);
    const gfli_decode_level *l = &job.level[blockIdx.x];
    const int image = (int)blockIdx.y, found = *gfli_found_by(&job, image, (int)blockIdx.x);
    uint64_t *ranks = gfli_of_image(&job, l->ranks, image);
    if (found > l->keep) gfli_keep_smallest(ranks, found, l->keep, histogram);
    gfli_sort_block(ranks, found < l->keep ? found : l->keep, keys);
}

/* ---- boxes ----------------------------------------------------------------------------------- */

static __device__ __forceinline__ gfli_decoded gfli_box_of(const gfli_decode_job *job, int image,
                                                           int level, uint64_t rank) {
    const gfli_decode_level *l = &job->level[level];
    const gfli_decode_frame *f = &job->frame[image];
    const uint64_t index = gfli_rank_index(rank);
    const int cell = (int)(index / (uint64_t)job->n_classes);
    const float *logits = gfli_logits_at(l->reg, l->cells, job->reg_c, image, (size_t)cell);
    gfli_decoded b;
    b.level = level;
    b.y = cell / l->w;
    b.x = cell % l->w;
    gfli_box_around(b.x, b.y, logits, job->n_bins, NULL, l->stride, job->inclusive, f->right,
                    f->bottom, &b.detection);
    gfli_rescale_box(&b.detection, f->scale_x, f->scale_y, job->divide);
    b.detection.score = gfli_rank_score(rank);
    b.detection.label = (int)(index % (uint64_t)job->n_classes);
    return b;
}

/* The rank of candidate i of a level; false where there is none.  Of a level's locations, all where
 * they are few enough, else the best, each class that is above the score is a candidate. */
static __device__ __forceinline__ bool gfli_candidate(const gfli_decode_job *job, int image,
                                                      int level, int i, uint64_t *rank) {
    const gfli_decode_level *l = &job->level[level];
    const uint64_t *ranks = gfli_of_image(job, l->ranks, image);
    const int at = job->by_location ? i / job->n_classes : i;
    const bool listed = !job->by_location || l->cells > l->keep;
    if (listed && at >= *gfli_found_by(job, image, level)) return false;
    if (!job->by_location) {
        *rank = ranks[i];
        return true;
    }
    const int label = i % job->n_classes;
    if (!gfli_wants(job->wanted, label)) return false;
    const uint64_t cell = listed ? gfli_rank_index(ranks[at]) : (uint64_t)at;
    const float score =
        gfli_sigmoid(gfli_logits_at(l->cls, l->cells, job->cls_c, image, (size_t)cell)[label]);
    *rank = gfli_rank(score, cell * (uint64_t)job->n_classes + (uint64_t)label);
    return score > job->min_score;
}

/* Thread i makes candidate i, and puts it among those to be ordered if its box has an area. */
static __global__ void gfli_boxes_kernel(const GFLI_GRID_CONSTANT gfli_decode_job job) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x), image = (int)blockIdx.y;
    if (i >= job.most) return;
    int level = 0;
    while (level + 1 < job.levels && i >= job.level[level + 1].first) level++;
    uint64_t rank;
    if (!gfli_candidate(&job, image, level, i - job.level[level].first, &rank)) return;
    const gfli_decoded b = gfli_box_of(&job, image, level, rank);
    gfli_of_image(&job, job.boxes, image)[i] = b;
    if (gfli_has_area(&b.detection, (float)job.inclusive))
        gfli_of_image(&job, job.order,
                      image)[atomicAdd(gfli_found_by(&job, image, GFL_LEVELS), 1)] =
            gfli_rank(b.detection.score, (uint64_t)i);
}

/* ---- suppression ----------------------------------------------------------------------------- */

/* The largest of all threads' values, which are not negative; part has a float a warp. */
static __device__ __forceinline__ float gfli_block_largest(float v, float *part) {
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, v, step);
        v = other > v ? other : v;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    for (int i = 0; i < (int)blockDim.x / 32; i++) v = part[i] > v ? part[i] : v;
    return v;
}

/* What the first warp decides about a chunk: dead [words] are those that a kept box suppresses. */
static __device__ void gfli_settle_chunk(const gfli_decode_job *job, int first, int n, int n_kept,
                                         const gfli_apart *chunk, const unsigned *dead,
                                         const unsigned (*hits)[GFLI_NMS_WORDS], int *total) {
    const int lane = (int)threadIdx.x, image = (int)blockIdx.x;
    const uint64_t *order = gfli_of_image(job, job->order, image);
    const gfli_decoded *boxes = gfli_of_image(job, job->boxes, image);
    gfli_apart *kept = gfli_of_image(job, job->kept, image);
    gfli_decoded *out = job->out.items + (size_t)image * (size_t)job->out.most;
    unsigned word = lane < GFLI_NMS_WORDS ? dead[lane] : 0;
    for (int i = 0; i < n && n_kept < job->max_keep; i++) {
        const unsigned of_box = __shfl_sync(0xffffffffu, word, i / 32);
        if (of_box >> (i % 32) & 1) continue;
        if (lane < GFLI_NMS_WORDS) word |= hits[i][lane];
        if (lane == 0) {
            kept[n_kept] = chunk[i];
            out[n_kept] = boxes[gfli_rank_index(order[first + i])];
        }
        n_kept++;
    }
    if (lane == 0) *total = n_kept;
}

/* A block an image: all candidates by rank, then who suppresses whom. */
static __global__ void gfli_suppress_kernel(const GFLI_GRID_CONSTANT gfli_decode_job job) {
    GFLI_SHARED(uint64_t, keys, [GFLI_SORT_SHARED]);
    GFLI_SHARED(gfli_apart, chunk, [GFLI_NMS_CHUNK]);
    GFLI_SHARED(unsigned, hits, [GFLI_NMS_CHUNK][GFLI_NMS_WORDS]);
    GFLI_SHARED(unsigned, dead, [GFLI_NMS_WORDS]);
    GFLI_SHARED(float, part, [GFLI_NMS_CHUNK / 32]);
    GFLI_SHARED(int, total, [1]);
    const int thread = (int)threadIdx.x, image = (int)blockIdx.x;
    const int n_candidates = *gfli_found_by(&job, image, GFL_LEVELS);
    const gfli_decoded *boxes = gfli_of_image(&job, job.boxes, image);
    const gfli_apart *kept = gfli_of_image(&job, job.kept, image);
    uint64_t *order = gfli_of_image(&job, job.order, image);
    const float inclusive = (float)job.inclusive;
    float largest = 0.0f;
    gfli_sort_block(order, n_candidates, keys);
    for (int i = thread; i < n_candidates; i += (int)blockDim.x) {
        const gfl_detection *d = &boxes[gfli_rank_index(order[i])].detection;
        largest = d->x2 > largest ? d->x2 : largest;
        largest = d->y2 > largest ? d->y2 : largest;
    }
    largest = gfli_block_largest(largest, part);
    const float step = job.agnostic ? 0.0f : largest + 1.0f;
    if (thread == 0) total[0] = 0;
    __syncthreads();
    for (int first = 0; first < n_candidates; first += GFLI_NMS_CHUNK) {
        const int i = first + thread, n_kept = total[0];
        const bool exists = i < n_candidates;
        const int n = __syncthreads_count(exists);
        if (n_kept >= job.max_keep) break;
        if (thread < GFLI_NMS_WORDS) dead[thread] = 0;
        if (exists) { /* in two steps: gcc hides from the emulator's checks what a call stores */
            const gfli_apart mine =
                gfli_move_apart(&boxes[gfli_rank_index(order[i])].detection, step, inclusive);
            chunk[thread] = mine;
        }
        __syncthreads();
        bool suppressed = false;
        for (int k = 0; k < n_kept && exists && !suppressed; k++)
            suppressed = gfli_overlaps(&kept[k], &chunk[thread], job.nms_iou, inclusive);
        if (suppressed) atomicOr(&dead[thread / 32], 1u << (thread % 32));
        for (int word = 0; word < GFLI_NMS_WORDS && exists; word++) {
            unsigned bits = 0;
            for (int k = 0; k < 32; k++) {
                const int other = word * 32 + k;
                if (other > thread && other < n &&
                    gfli_overlaps(&chunk[thread], &chunk[other], job.nms_iou, inclusive))
                    bits |= 1u << k;
            }
            hits[thread][word] = bits;
        }
        __syncthreads();
        if (thread < 32) gfli_settle_chunk(&job, first, n, n_kept, chunk, dead, hits, total);
        __syncthreads();
    }
    if (thread == 0) job.out.count[image] = total[0];
}

/* A block a detection: the logits of its location. */
static __global__ void gfli_logits_kernel(const GFLI_GRID_CONSTANT gfli_decode_job job) {
    const int i = (int)blockIdx.x, image = (int)blockIdx.y;
    if (i >= job.out.count[image]) return;
    const size_t at = (size_t)image * (size_t)job.out.most + (size_t)i;
    const gfli_decoded *b = &job.out.items[at];
    const gfli_decode_level *l = &job.level[b->level];
    const size_t cell = (size_t)b->y * (size_t)l->w + (size_t)b->x;
    const float *from = gfli_logits_at(l->reg, l->cells, job.reg_c, image, cell);
    for (int k = (int)threadIdx.x; k < job.reg_c; k += (int)blockDim.x)
        job.out.logits[at * (size_t)job.reg_c + (size_t)k] = from[k];
}

/* ---- launches -------------------------------------------------------------------------------- */

static size_t gfli_power_above(size_t n) {
    size_t size = 1;
    while (size < n) size *= 2;
    return size;
}

/* Everything but logits and frames, for up to GFLI_DECODE_IMAGES images; bytes of scratch. */
static size_t gfli_decode_lay_out(const gfli_map *cls, const gfli_decode_opts *opts, void *scratch,
                                  gfli_decode_job *job) {
    gfli_cutter c = {(unsigned char *)scratch, 0};
    memset(job, 0, sizeof *job);
    job->images = cls->n < GFLI_DECODE_IMAGES ? cls->n : GFLI_DECODE_IMAGES;
    job->levels = cls->levels;
    job->found = (int *)gfli_cut(&c, (size_t)(job->images * (GFL_LEVELS + 1)) * sizeof(int));
    const size_t before = c.used;
    for (int i = 0; i < cls->levels; i++) {
        gfli_decode_level *l = &job->level[i];
        l->w = cls->w[i];
        l->cells = cls->h[i] * cls->w[i];
        l->stride = opts->stride[i];
        const size_t classes = (size_t)opts->n_classes;
        const size_t ranked = (size_t)l->cells * (opts->by_location ? 1 : classes);
        l->keep = ranked < (size_t)opts->max_per_level ? (int)ranked : opts->max_per_level;
        l->most = l->keep * (opts->by_location ? opts->n_classes : 1);
        l->first = job->most;
        job->most += l->most;
        l->ranks = (uint64_t *)gfli_cut(&c, gfli_power_above(ranked) * sizeof(uint64_t));
    }
    job->max_keep = gfli_most_detections(cls, opts);
    job->order = (uint64_t *)gfli_cut(&c, gfli_power_above((size_t)job->most) * sizeof(uint64_t));
    job->boxes = (gfli_decoded *)gfli_cut(&c, (size_t)job->most * sizeof(gfli_decoded));
    job->kept = (gfli_apart *)gfli_cut(&c, (size_t)job->max_keep * sizeof(gfli_apart));
    job->scratch = c.used - before;
    return before + (size_t)job->images * job->scratch;
}

static size_t gfli_decode_scratch_cuda(const gfli_map *cls, const gfli_decode_opts *opts) {
    gfli_decode_job job;
    return gfli_decode_lay_out(cls, opts, NULL, &job);
}

static const float *gfli_plane_of(const gfli_map *map, int level, int index) {
    const size_t points = (size_t)map->h[level] * (size_t)map->w[level];
    return map->data + (gfli_points_before(map, level) + (size_t)index * points) * (size_t)map->c;
}

static void gfli_decode_launch(gfl_context *context, const gfli_decode_job *job) {
    cudaStream_t stream = gfli_cuda_of(context)->stream;
    const size_t classes = job->by_location ? 1 : (size_t)job->n_classes;
    const unsigned images = (unsigned)job->images, levels = (unsigned)job->levels;
    size_t ranked = 0;
    for (int i = 0; i < job->levels; i++) {
        const size_t of_level = (size_t)job->level[i].cells * classes;
        if (of_level > ranked) ranked = of_level;
    }
    (void)gfli_cuda_note(context,
                         cudaMemsetAsync(job->found, 0,
                                         (size_t)(job->images * (GFL_LEVELS + 1)) * sizeof(int),
                                         stream),
                         "decoding");
    GFLI_LAUNCH((gfli_select_kernel), dim3(gfli_blocks(ranked), levels, images), GFLI_THREADS, 0,
                stream, *job);
    GFLI_LAUNCH((gfli_top_kernel), dim3(levels, images), GFLI_SORT_THREADS, 0, stream, *job);
    GFLI_LAUNCH((gfli_boxes_kernel), dim3(gfli_blocks((size_t)job->most), images), GFLI_THREADS, 0,
                stream, *job);
    GFLI_LAUNCH((gfli_suppress_kernel), images, GFLI_NMS_CHUNK, 0, stream, *job);
    if (job->out.logits)
        GFLI_LAUNCH((gfli_logits_kernel), dim3((unsigned)job->max_keep, images), GFLI_LOGIT_THREADS,
                    0, stream, *job);
    gfli_cuda_launched(context, "decoding");
}

static gfli_decode_frame gfli_frame_of(const gfli_decode_opts *opts) {
    gfli_decode_frame f;
    f.right = opts->width - opts->inclusive;
    f.bottom = opts->height - opts->inclusive;
    f.scale_x = gfli_rescale_factor(opts->divide, opts->scale_x);
    f.scale_y = gfli_rescale_factor(opts->divide, opts->scale_y);
    return f;
}

static void gfli_decode_cuda(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                             const gfli_decode_opts *opts, const gfli_found *out, void *scratch) {
    gfli_decode_job job;
    (void)gfli_decode_lay_out(cls, opts, scratch, &job);
    job.n_classes = opts->n_classes;
    job.n_bins = opts->n_bins;
    job.cls_c = cls->c;
    job.reg_c = reg->c;
    job.inclusive = opts->inclusive;
    job.by_location = opts->by_location;
    job.divide = opts->divide;
    job.agnostic = opts->agnostic;
    job.wanted = opts->wanted;
    job.min_score = opts->min_score;
    job.nms_iou = opts->nms_iou;
    job.out.most = out->most;
    for (int first = 0; first < cls->n && gfli_cuda_ready(context); first += GFLI_DECODE_IMAGES) {
        const size_t room = (size_t)first * (size_t)out->most;
        job.images = cls->n - first < GFLI_DECODE_IMAGES ? cls->n - first : GFLI_DECODE_IMAGES;
        for (int i = 0; i < job.images; i++) job.frame[i] = gfli_frame_of(&opts[first + i]);
        for (int l = 0; l < cls->levels; l++) {
            job.level[l].cls = gfli_plane_of(cls, l, first);
            job.level[l].reg = gfli_plane_of(reg, l, first);
        }
        job.out.count = out->count + first;
        job.out.items = out->items + room;
        job.out.logits = out->logits ? out->logits + room * (size_t)reg->c : NULL;
        gfli_decode_launch(context, &job);
    }
}

/* ===============================================================================================
 * src/cuda/backend.cuh - CUDA's table of inference operations
 * ============================================================================================ */

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

GFLI_HIDDEN_END
