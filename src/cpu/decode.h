/* decode.h - what decoding and suppression share: candidates and their order */
#pragma once

/* The value as rounded to float32: compilers may fuse a product into the sum that takes it, and
 * whether two boxes overlap by just 0.6 must not depend on that. */
GFLI_HD static inline float gfli_rounded(float value) {
    volatile float stored = value;
    return stored;
}

/* Sorts ascending: higher scores (0..1) first, then lower indices (below 2^34). */
GFLI_HD static inline uint64_t gfli_rank(float score, uint64_t index) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return (uint64_t)(0x3f800000u - bits) << 34 | index;
}

GFLI_HD static inline uint64_t gfli_rank_index(uint64_t rank) {
    return rank & (((uint64_t)1 << 34) - 1);
}

GFLI_HD static inline float gfli_rank_score(uint64_t rank) {
    const uint32_t bits = 0x3f800000u - (uint32_t)(rank >> 34);
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

/* Heaps with the largest rank at the root; sorting takes any order. */
void gfli_heap_make(uint64_t *ranks, size_t n);
void gfli_heap_replace(uint64_t *heap, size_t n, uint64_t rank); /* the root is dropped */
void gfli_sort_ranks(uint64_t *ranks, size_t n);

/* Class-wise suppression of candidates in any order; widths are x2 - x1 + pixel.  keep [max_keep]
 * gets the indices of the survivors, best first, equal scores by index; returns how many.
 * ranks [n]; scratch has GFLI_NMS_FLOATS floats for each of keep's. */
enum { GFLI_NMS_FLOATS = 6 };
int gfli_nms(const gfli_decoded *boxes, int n, float iou, int inclusive, int max_keep, int *keep,
             uint64_t *ranks, float *scratch);

/* The candidates of one image before suppression: level after level (counts [levels]), best first
 * (by_location: location by location, best first where a level is cut, else in their order),
 * decoded and clipped, in pixels of the resized image.  Returns how many.  out and ranks have room
 * for gfli_max_candidates. */
size_t gfli_max_candidates(const gfli_map *cls, const gfli_decode_opts *opts, int level);
/* More detections than that an image cannot have. */
int gfli_most_detections(const gfli_map *cls, const gfli_decode_opts *opts);
int gfli_candidates(gfl_context *context, const gfli_map *cls, const gfli_map *reg, int index,
                    const gfli_decode_opts *opts, gfli_decoded *out, int *counts, uint64_t *ranks);
