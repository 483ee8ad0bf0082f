/* fp32.cuh - convolution in plain float32: an implicit product of matrices, tile by tile */
#pragma once

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
