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

static void gfli_sampling_portable(const gfli_sampling *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        float *out = t->out + r * t->stride;
        const float *c[4];
        float w[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, c, w);
        for (int i = 0; i < 4; i++) w[i] *= p->mask;
        for (int i = 0; i < t->n; i++)
            out[i] = w[0] * c[0][i] + w[1] * c[1][i] + w[2] * c[2][i] + w[3] * c[3][i];
    }
}

#if defined(__x86_64__)

GFLI_AVX2 static void gfli_sampling_avx2(const gfli_sampling *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        float *out = t->out + r * t->stride;
        const float *c[4];
        float w[4];
        int i = 0;
        gfli_point_corners(p, t->x, t->zeros, t->first, c, w);
        for (int k = 0; k < 4; k++) w[k] *= p->mask;
        const __m256 w0 = _mm256_set1_ps(w[0]), w1 = _mm256_set1_ps(w[1]);
        const __m256 w2 = _mm256_set1_ps(w[2]), w3 = _mm256_set1_ps(w[3]);
        for (; i + 8 <= t->n; i += 8) {
            __m256 v = _mm256_mul_ps(w0, _mm256_loadu_ps(c[0] + i));
            v = _mm256_fmadd_ps(w1, _mm256_loadu_ps(c[1] + i), v);
            v = _mm256_fmadd_ps(w2, _mm256_loadu_ps(c[2] + i), v);
            v = _mm256_fmadd_ps(w3, _mm256_loadu_ps(c[3] + i), v);
            _mm256_storeu_ps(out + i, v);
        }
        for (; i < t->n; i++)
            out[i] = w[0] * c[0][i] + w[1] * c[1][i] + w[2] * c[2][i] + w[3] * c[3][i];
    }
}

GFLI_AVX512 static void gfli_sampling_avx512(const gfli_sampling *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        float *out = t->out + r * t->stride;
        const float *c[4];
        float w[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, c, w);
        for (int k = 0; k < 4; k++) w[k] *= p->mask;
        const __m512 w0 = _mm512_set1_ps(w[0]), w1 = _mm512_set1_ps(w[1]);
        const __m512 w2 = _mm512_set1_ps(w[2]), w3 = _mm512_set1_ps(w[3]);
        for (int i = 0; i < t->n; i += 16) {
            const int left = t->n - i;
            const __mmask16 m = (__mmask16)(left < 16 ? (1u << left) - 1u : 0xffffu);
            __m512 v = _mm512_mul_ps(w0, _mm512_maskz_loadu_ps(m, c[0] + i));
            v = _mm512_fmadd_ps(w1, _mm512_maskz_loadu_ps(m, c[1] + i), v);
            v = _mm512_fmadd_ps(w2, _mm512_maskz_loadu_ps(m, c[2] + i), v);
            v = _mm512_fmadd_ps(w3, _mm512_maskz_loadu_ps(m, c[3] + i), v);
            _mm512_mask_storeu_ps(out + i, m, v);
        }
    }
}

#endif

gfli_sampling_fn gfli_sampling_of(const gfl_context *context) {
#if defined(__x86_64__)
    if (gfli_has_avx512(context)) return gfli_sampling_avx512;
    if (gfli_has_avx2(context)) return gfli_sampling_avx2;
#endif
    (void)context;
    return gfli_sampling_portable;
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

static size_t gfli_deform_conv_scratch(const gfl_context *context, const gfli_conv_shape *s) {
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
    gfli_sampling_fn sampling;
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
        t->sampling(&part);
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

static void gfli_deform_conv(gfl_context *context, const gfli_conv_call *call, void *scratch) {
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
    t.sampling = gfli_sampling_of(context);
    gfli_igemm_prepare(context, &g, &t.product);
    t.product.zeros = (float *)scratch;
    t.product.room = (char *)scratch + t.layout.zeros;
    memset(t.product.zeros, 0, t.layout.zeros);
    gfli_parallel_for(context, t.product.row_tasks * t.product.col_tasks, gfli_deform_do, &t);
}

/* ---- the operation --------------------------------------------------------------------------- */

static gfl_status gfli_conv_prepare_cpu(gfl_context *context, const gfli_conv_call *calls, int n,
                                        gfli_conv_means *out) {
    memset(out, 0, sizeof *out);
    out->kernel = "portable";
    if (gfli_has_avx2(context)) out->kernel = "avx2";
    if (gfli_has_avx512(context)) out->kernel = "avx512";
    out->splits = 1;
    for (int i = 0; i < n; i++) {
        const size_t scratch = calls[i].offset ? gfli_deform_conv_scratch(context, calls[i].shape)
                                               : gfli_plain_conv_scratch(context, calls[i].shape);
        if (scratch > out->scratch) out->scratch = scratch;
    }
    return GFL_OK;
}

static void gfli_conv_cpu(gfl_context *context, const gfli_conv_call *calls, int n,
                          const gfli_conv_means *means, void *scratch) {
    (void)means;
    for (int i = 0; i < n; i++) {
        if (calls[i].offset)
            gfli_deform_conv(context, &calls[i], scratch);
        else
            gfli_plain_conv(context, &calls[i], scratch);
    }
}
