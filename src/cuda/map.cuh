/* map.cuh - maps as kernels see them: elements, chunks and positions */
#pragma once

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
