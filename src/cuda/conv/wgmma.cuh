/* wgmma.cuh - the same convolution by wgmma and the copy engine, sm_90a */
#pragma once

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
