/* decode.cuh - from logits to boxes on the device: threshold, top-k, integral, clip, suppression */
#pragma once
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
