/* tensor.cuh - tensor-core convolution: packed weights, the choice of a kernel, launches */
#pragma once

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
