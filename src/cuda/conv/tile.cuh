/* tile.cuh - how a convolution is cut into tiles, and what becomes of a finished one */
#pragma once

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
