/* deform.c - deformable convolution: the matrix product of gemm.c over rows that are sampled */
#pragma once

enum {
    GFLI_DEFORM_RUN = 32 /* channels of several groups that are worth being sampled together */
};

/* ---- sampling -------------------------------------------------------------------------------- */

void gfli_find_points(const gfli_conv_shape *s, const gfli_map *x, const gfli_map *offset,
                      size_t first, int n, gfli_point *points) {
    const bool masked = offset->c > 2 * GFLI_DEFORM_TAPS;
    const float *at = offset->data + first * (size_t)offset->c;
    gfli_igemm grid;
    memset(&grid, 0, sizeof grid);
    grid.y = offset;
    grid.out_step = 1;
    gfli_row r = gfli_row_at(&grid, first);
    for (int i = 0; i < n; i++, at += offset->c) {
        const int h = x->h[r.level], w = x->w[r.level];
        const ptrdiff_t image =
            (ptrdiff_t)gfli_points_before(x, r.level) + (ptrdiff_t)r.image * h * w;
        for (int k = 0; k < GFLI_DEFORM_TAPS; k++, points++) {
            const float y = (float)(r.i * s->stride - s->pad + k / 3) + at[2 * k];
            const float xx = (float)(r.j * s->stride - s->pad + k % 3) + at[2 * k + 1];
            const gfli_between p = gfli_between_at(h, w, y, xx);
            points->at = (int32_t)(image + (ptrdiff_t)p.top * w + p.left);
            points->width = w;
            points->corners = p.corners;
            points->down = p.down;
            points->right = p.right;
            points->mask = masked ? gfli_sigmoid(at[2 * GFLI_DEFORM_TAPS + k]) : 1.0f;
        }
        if (i + 1 < n) gfli_row_skip(&grid, &r, 1);
    }
}

/* ---- the product ----------------------------------------------------------------------------- */

void gfli_deform_igemm(const gfli_conv_shape *s, gfli_igemm *g) {
    gfli_conv_igemm(s, g);
    g->n_segs = GFLI_DEFORM_TAPS;
    g->seg_taps = 1;
    g->seg_len = g->group_in;
}

/* Groups whose channels are sampled in one go. */
static int gfli_deform_groups(const gfli_igemm *g) {
    return gfli_max(1, gfli_min(g->groups, GFLI_DEFORM_RUN / g->seg_len));
}

/* Scratch: zeros, then for each slot the points, pointers and offsets of a task's rows and the
 * tile of values that the points have in a block of the inner dimension. */
typedef struct gfli_deform_layout {
    size_t zeros, points, rows, offsets, tile, slot; /* bytes of each part */
} gfli_deform_layout;

static gfli_deform_layout gfli_deform_plan(const gfli_igemm *g) {
    gfli_deform_layout l;
    gfli_k_block k = {-1, 0, 0, 0};
    const size_t rows = GFLI_ROWS_PER_TASK, taps = GFLI_DEFORM_TAPS;
    (void)gfli_next_block(g, GFLI_K_BLOCK, &k);
    l.zeros = gfli_round_64((size_t)(g->groups * g->group_in) * sizeof(float));
    l.points = gfli_round_64(rows * taps * sizeof(gfli_point));
    l.rows = gfli_round_64(rows * taps * sizeof(const float *));
    l.offsets = gfli_round_64(rows * sizeof(ptrdiff_t));
    l.tile =
        gfli_round_64(rows * (size_t)(k.n_segs * k.len * gfli_deform_groups(g)) * sizeof(float));
    l.slot = l.points + l.rows + l.offsets + l.tile;
    return l;
}

size_t gfli_deform_conv_scratch(const gfl_context *context, const gfli_conv_shape *s) {
    gfli_igemm g;
    gfli_deform_igemm(s, &g);
    const gfli_deform_layout l = gfli_deform_plan(&g);
    return l.zeros + l.slot * (size_t)context->n_threads;
}

typedef struct gfli_deform_task {
    const gfli_conv_shape *s;
    const gfli_map *offset;
    gfli_igemm_task product;
    gfli_deform_layout layout;
} gfli_deform_task;

/* Sample the block k of the channels from t->first on, and point to the values. */
static void gfli_deform_sample(const gfli_deform_task *t, const gfli_k_block *k, gfli_sampling part,
                               const gfli_point *points, const float **rows) {
    const int n_segs = t->product.g->n_segs, n = part.rows;
    float *tile = part.out;
    part.stride = (ptrdiff_t)k->n_segs * part.n;
    for (int s = 0; s < k->n_segs; s++) {
        part.points = points + k->seg + s;
        part.out = tile + (ptrdiff_t)s * part.n;
        t->product.kernels->sampling(&part);
        for (int r = 0; r < gfli_ceil_div(n, GFLI_MR) * GFLI_MR; r++) {
            const float **block = rows + (ptrdiff_t)(r / GFLI_MR * n_segs + k->seg + s) * GFLI_MR;
            block[r % GFLI_MR] = part.out + gfli_min(r, n - 1) * part.stride;
        }
    }
}

static void gfli_deform_do(void *arg, int task, int slot) {
    const gfli_deform_task *t = (const gfli_deform_task *)arg;
    const gfli_igemm *g = t->product.g;
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR), together = gfli_deform_groups(g);
    char *memory = t->product.room + (size_t)slot * t->layout.slot;
    gfli_point *points = (gfli_point *)(void *)memory;
    const float **rows = (const float **)(void *)(memory + t->layout.points);
    ptrdiff_t *offsets = (ptrdiff_t *)(void *)(memory + t->layout.points + t->layout.rows);
    const gfli_part part = gfli_igemm_part(&t->product, task);
    gfli_find_points(t->s, g->x, t->offset, part.first, part.n, points);
    for (int r = 0; r < gfli_ceil_div(part.n, GFLI_MR) * GFLI_MR; r++)
        offsets[r] = ((ptrdiff_t)part.first + gfli_min(r, part.n - 1)) * g->y->c;
    for (int p = part.panel0, end; p < part.panel1; p = end) {
        const int group = p / group_panels;
        end = gfli_min(part.panel1, (group + together) * group_panels);
        const int groups = gfli_ceil_div(end, group_panels) - group;
        gfli_k_block k = {-1, 0, 0, 0};
        while (gfli_next_block(g, GFLI_K_BLOCK, &k)) {
            gfli_sampling one;
            one.x = g->x;
            one.zeros = t->product.zeros;
            one.rows = part.n;
            one.first = group * g->group_in + k.first;
            one.n = groups * k.len;
            one.out = (float *)(void *)((char *)offsets + t->layout.offsets);
            gfli_deform_sample(t, &k, one, points, rows);
            gfli_igemm_block(&t->product, &k, p, end, part.n, rows, offsets, one.first);
        }
    }
}

void gfli_deform_conv(gfl_context *context, const gfli_conv_call *call, void *scratch) {
    gfli_deform_task t;
    gfli_igemm g;
    gfli_deform_igemm(call->shape, &g);
    g.packing = (const float *)call->packing;
    g.bias = call->bias;
    g.x = call->x;
    g.y = call->y;
    g.relu = call->relu;
    t.s = call->shape;
    t.offset = call->offset;
    t.layout = gfli_deform_plan(&g);
    gfli_igemm_prepare(context, &g, &t.product);
    t.product.zeros = (float *)scratch;
    t.product.room = (char *)scratch + t.layout.zeros;
    memset(t.product.zeros, 0, t.layout.zeros);
    gfli_parallel_for(context, t.product.row_tasks * t.product.col_tasks, gfli_deform_do, &t);
}
