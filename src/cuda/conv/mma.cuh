/* mma.cuh - implicit-GEMM convolution on the tensor cores by mma.sync, sm_80 and later */
#pragma once

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
