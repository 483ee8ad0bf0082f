/* map.h - a map is a pyramid: up to five levels in one allocation */
#pragma once

/* What a map holds; anything but floats on GPUs alone. */
typedef enum gfli_element {
    GFLI_MAP_F32,
    GFLI_MAP_BF16,
    GFLI_MAP_FP16,
    GFLI_ELEMENTS
} gfli_element;

/* Images of a map; so many statistics of all norms of a training plan still fit an int. */
enum { GFLI_MAX_BATCH = 65536 };

/* Level after level, each [n][h[l]][w[l]][c].  An ordinary feature map has one level. */
typedef struct gfli_map {
    float *data; /* of another type where element says so */
    gfli_element element;
    int n, c, levels;
    int h[GFL_LEVELS], w[GFL_LEVELS];
} gfli_map;

/* Positions of one level, of the levels before one, of all levels (each counted for all n). */
static inline size_t gfli_level_points(const gfli_map *m, int level) {
    return (size_t)m->n * (size_t)m->h[level] * (size_t)m->w[level];
}

static inline size_t gfli_points_before(const gfli_map *m, int level) {
    size_t points = 0;
    for (int l = 0; l < level; l++) points += gfli_level_points(m, l);
    return points;
}

static inline size_t gfli_points(const gfli_map *m) {
    return gfli_points_before(m, m->levels);
}

/* Elements, and the bytes they take. */
static inline size_t gfli_map_count(const gfli_map *m) {
    return gfli_points(m) * (size_t)m->c;
}

static inline size_t gfli_element_bytes(gfli_element element) {
    return element == GFLI_MAP_F32 ? 4 : 2;
}

static inline size_t gfli_map_bytes(const gfli_map *m) {
    return gfli_map_count(m) * gfli_element_bytes(m->element);
}

/* Where element `at` of a map begins. */
static inline float *gfli_map_at(const gfli_map *m, size_t at) {
    return (float *)(void *)((unsigned char *)m->data + at * gfli_element_bytes(m->element));
}

/* One level of a pyramid as a map of its own; it shares the memory. */
static inline gfli_map gfli_map_level(const gfli_map *m, int level) {
    gfli_map one = *m;
    one.data = m->data ? gfli_map_at(m, gfli_points_before(m, level) * (size_t)m->c) : NULL;
    one.levels = 1;
    one.h[0] = m->h[level];
    one.w[0] = m->w[level];
    return one;
}
