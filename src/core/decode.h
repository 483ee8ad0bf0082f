/* decode.h - the order of candidates, and how many there can be */
#pragma once

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

/* Is the class among those that detections are wanted of? */
GFLI_HD static inline bool gfli_wants(const uint8_t *wanted, int label) {
    return !wanted || wanted[label];
}

/* The largest of a location's logits [n] of classes that are wanted. */
GFLI_HD static inline float gfli_best_wanted(const float *logits, int n, const uint8_t *wanted) {
    int c = 0;
    while (!gfli_wants(wanted, c)) c++;
    float best = logits[c];
    for (c++; c < n; c++)
        if (gfli_wants(wanted, c) && logits[c] > best) best = logits[c];
    return best;
}

/* Candidates of one image that a level can give, and all levels together. */
static inline size_t gfli_max_candidates(const gfli_map *cls, const gfli_decode_opts *opts,
                                         int level) {
    const size_t points = (size_t)cls->h[level] * (size_t)cls->w[level];
    const size_t most = (size_t)opts->max_per_level, classes = (size_t)opts->n_classes;
    if (opts->by_location) return (points < most ? points : most) * classes;
    return points * classes < most ? points * classes : most;
}

static inline size_t gfli_all_candidates(const gfli_map *cls, const gfli_decode_opts *opts) {
    size_t n = 0;
    for (int l = 0; l < cls->levels; l++) n += gfli_max_candidates(cls, opts, l);
    return n;
}

/* More detections than that an image cannot have. */
static inline int gfli_most_detections(const gfli_map *cls, const gfli_decode_opts *opts) {
    const size_t n = gfli_all_candidates(cls, opts), most = (size_t)opts->max_detections;
    return (int)(n < most ? n : most);
}
