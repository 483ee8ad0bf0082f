/* pool.c - max pooling and nearest upsampling */
#pragma once

typedef struct gfli_pool_task {
    const gfli_map *x, *y;
} gfli_pool_task;

/* Row number `row` of y, level after level, image after image. */
static void gfli_pool_find(const gfli_map *y, int row, int *level, int *image, int *at) {
    int l = 0;
    for (; row >= y->n * y->h[l]; l++) row -= y->n * y->h[l];
    *level = l;
    *image = row / y->h[l];
    *at = row % y->h[l];
}

static const float *gfli_pool_source(const gfli_map *x, int level, int image, int row) {
    const size_t before = gfli_points_before(x, level);
    const size_t rows = (size_t)image * (size_t)x->h[level] + (size_t)row;
    return x->data + (before + rows * (size_t)x->w[level]) * (size_t)x->c;
}

static void gfli_max_of_nine(const float *const row[3], const size_t at[3], size_t c,
                             float *GFLI_RESTRICT y) {
    const float *a0 = row[0] + at[0], *a1 = row[0] + at[1], *a2 = row[0] + at[2];
    const float *b0 = row[1] + at[0], *b1 = row[1] + at[1], *b2 = row[1] + at[2];
    const float *c0 = row[2] + at[0], *c1 = row[2] + at[1], *c2 = row[2] + at[2];
    for (size_t i = 0; i < c; i++) {
        float a = a0[i] > a1[i] ? a0[i] : a1[i];
        float b = b0[i] > b1[i] ? b0[i] : b1[i];
        float d = c0[i] > c1[i] ? c0[i] : c1[i];
        a = a > a2[i] ? a : a2[i];
        b = b > b2[i] ? b : b2[i];
        d = d > c2[i] ? d : c2[i];
        a = a > b ? a : b;
        y[i] = a > d ? a : d;
    }
}

static void gfli_max_pool_row(void *arg, int task, int slot) {
    const gfli_pool_task *t = (const gfli_pool_task *)arg;
    const size_t c = (size_t)t->x->c;
    int level, image, row;
    (void)slot;
    gfli_pool_find(t->y, task, &level, &image, &row);
    /* Beyond the edge the nearest cell stands in: it is in the window already. */
    const int bottom = t->x->h[level] - 1, right = t->x->w[level] - 1;
    const float *rows[3];
    for (int k = 0; k < 3; k++) {
        const int y = gfli_clamp(2 * row + k - 1, 0, bottom);
        rows[k] = gfli_pool_source(t->x, level, image, y);
    }
    float *out = t->y->data + (gfli_pool_source(t->y, level, image, row) - t->y->data);
    for (int x = 0; x < t->y->w[level]; x++, out += c) {
        size_t at[3];
        for (int k = 0; k < 3; k++) at[k] = (size_t)gfli_clamp(2 * x + k - 1, 0, right) * c;
        gfli_max_of_nine(rows, at, c, out);
    }
}

static int gfli_pool_rows(const gfli_map *y) {
    int rows = 0;
    for (int l = 0; l < y->levels; l++) rows += y->n * y->h[l];
    return rows;
}

static void gfli_max_pool_cpu(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    gfli_pool_task t;
    t.x = x;
    t.y = y;
    gfli_parallel_for(context, gfli_pool_rows(y), gfli_max_pool_row, &t);
}

/* ---- upsampling ------------------------------------------------------------------------------ */

static void gfli_upsample_row(void *arg, int task, int slot) {
    const gfli_pool_task *t = (const gfli_pool_task *)arg;
    const int c = t->x->c;
    int level, image, row;
    (void)slot;
    gfli_pool_find(t->y, task, &level, &image, &row);
    const int from = gfli_nearest(row, t->x->h[level], t->y->h[level]);
    const float *in = gfli_pool_source(t->x, level, image, from);
    float *out = t->y->data + (gfli_pool_source(t->y, level, image, row) - t->y->data);
    for (int x = 0; x < t->y->w[level]; x++, out += c) {
        const float *GFLI_RESTRICT s =
            in + (size_t)gfli_nearest(x, t->x->w[level], t->y->w[level]) * (size_t)c;
        for (int i = 0; i < c; i++) out[i] += s[i];
    }
}

static void gfli_upsample_add_cpu(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    gfli_pool_task t;
    t.x = x;
    t.y = y;
    gfli_parallel_for(context, gfli_pool_rows(y), gfli_upsample_row, &t);
}
