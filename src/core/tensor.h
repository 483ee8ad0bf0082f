/* tensor.h - a map is a pyramid: up to five levels in one allocation */
#pragma once

/* f32, level after level, each [n][h[l]][w[l]][c].  An ordinary feature map has one level. */
typedef struct gfli_map {
    float *data;
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

static inline size_t gfli_map_floats(const gfli_map *m) {
    return gfli_points(m) * (size_t)m->c;
}

/* One level of a pyramid as a map of its own; it shares the memory. */
static inline gfli_map gfli_map_level(const gfli_map *m, int level) {
    gfli_map one = *m;
    one.data = m->data ? m->data + gfli_points_before(m, level) * (size_t)m->c : NULL;
    one.levels = 1;
    one.h[0] = m->h[level];
    one.w[0] = m->w[level];
    return one;
}
