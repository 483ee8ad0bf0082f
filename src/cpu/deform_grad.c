/* deform_grad.c - gradients of deformable convolution */
#pragma once

/* The gradients of the input and of the offsets begin with the gradient of the sampled values: a
 * tile of it at a time, dy times the transposed weights.  A task owns some channels of an image, so
 * that what it scatters meets no other task, and has sums of its own for the offsets; how channels
 * are cut depends on the shape alone. */
enum {
    GFLI_DEFORM_ROWS = 96,   /* positions of a tile; a multiple of GFLI_MR */
    GFLI_DEFORM_STRIP = 32,  /* channels of a tile: two panels */
    GFLI_DEFORM_PARTS = 16,  /* of the channels, at most */
    GFLI_DEFORM_BLOCK = 1024 /* positions of a task that needs no tiles */
};

/* ---- from the gradient of sampled values to those of the map and the points ------------------ */

/* One tap of some positions, channels first .. + n; positions are GFLI_DEFORM_TAPS points and
 * `values` sums apart. */
typedef struct gfli_scatter {
    const gfli_map *x;
    const float *zeros, *grad; /* grad [rows][GFLI_DEFORM_STRIP], of value times mask */
    const gfli_point *points;
    int rows, first, n;
    float *dx; /* as x->data, or NULL */
    float
        *sums; /* [rows][values]: of this tap dy and dx (apart from each other), and of the mask */
    int values, mask_at; /* where the mask's is, from dy's; 0: there are no masks */
    bool first_sum;
} gfli_scatter;

typedef void (*gfli_scatter_fn)(const gfli_scatter *t);

/* From the products of grad with the four corners. */
static inline void gfli_scatter_sums(const gfli_scatter *t, const gfli_point *p,
                                     const float weight[4], const float dot[4], float *sums) {
    const float up = 1.0f - p->down, left = 1.0f - p->right;
    const float down_sum = left * (dot[2] - dot[0]) + p->right * (dot[3] - dot[1]);
    const float right_sum = up * (dot[1] - dot[0]) + p->down * (dot[3] - dot[2]);
    const float value =
        weight[0] * dot[0] + weight[1] * dot[1] + weight[2] * dot[2] + weight[3] * dot[3];
    const bool first = t->first_sum;
    sums[0] = (first ? 0.0f : sums[0]) + p->mask * down_sum;
    sums[1] = (first ? 0.0f : sums[1]) + p->mask * right_sum;
    if (t->mask_at) sums[t->mask_at] = (first ? 0.0f : sums[t->mask_at]) + value;
}

/* Where a corner's channels are in dx. */
static inline float *gfli_scatter_to(const gfli_scatter *t, const gfli_point *p, int corner) {
    const ptrdiff_t at = p->at + (corner & 1) + (ptrdiff_t)(corner >> 1) * p->width;
    return t->dx + at * t->x->c + t->first;
}

static void gfli_scatter_portable(const gfli_scatter *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        const float *grad = t->grad + r * GFLI_DEFORM_STRIP, *corner[4];
        float weight[4], dot[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, corner, weight);
        for (int k = 0; k < 4; k++) {
            float sum = 0.0f;
            for (int i = 0; i < t->n; i++) sum += grad[i] * corner[k][i];
            dot[k] = sum;
            if (!t->dx || !(p->corners >> k & 1)) continue;
            float *to = gfli_scatter_to(t, p, k);
            const float w = weight[k] * p->mask;
            for (int i = 0; i < t->n; i++) to[i] += w * grad[i];
        }
        gfli_scatter_sums(t, p, weight, dot, t->sums + (ptrdiff_t)r * t->values);
    }
}

#if defined(__x86_64__)

/* The sums of the elements of four vectors. */
GFLI_AVX2 static inline __m128 gfli_sum4_avx2(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 v = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

GFLI_AVX2 static void gfli_scatter_avx2(const gfli_scatter *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        const float *grad = t->grad + r * GFLI_DEFORM_STRIP, *corner[4];
        const int whole = t->n / 8 * 8;
        float weight[4], dot[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, corner, weight);
        __m256 d0 = _mm256_setzero_ps(), d1 = d0, d2 = d0, d3 = d0;
        for (int i = 0; i < whole; i += 8) {
            const __m256 g = _mm256_loadu_ps(grad + i);
            d0 = _mm256_fmadd_ps(g, _mm256_loadu_ps(corner[0] + i), d0);
            d1 = _mm256_fmadd_ps(g, _mm256_loadu_ps(corner[1] + i), d1);
            d2 = _mm256_fmadd_ps(g, _mm256_loadu_ps(corner[2] + i), d2);
            d3 = _mm256_fmadd_ps(g, _mm256_loadu_ps(corner[3] + i), d3);
        }
        _mm_storeu_ps(dot, gfli_sum4_avx2(d0, d1, d2, d3));
        for (int k = 0; k < 4; k++) {
            for (int i = whole; i < t->n; i++) dot[k] += grad[i] * corner[k][i];
            if (!t->dx || !(p->corners >> k & 1)) continue;
            float *to = gfli_scatter_to(t, p, k);
            const float w = weight[k] * p->mask;
            const __m256 ww = _mm256_set1_ps(w);
            for (int i = 0; i < whole; i += 8) {
                const __m256 g = _mm256_loadu_ps(grad + i);
                _mm256_storeu_ps(to + i, _mm256_fmadd_ps(ww, g, _mm256_loadu_ps(to + i)));
            }
            for (int i = whole; i < t->n; i++) to[i] += w * grad[i];
        }
        gfli_scatter_sums(t, p, weight, dot, t->sums + (ptrdiff_t)r * t->values);
    }
}

/* The sum of both halves. */
GFLI_AVX512 static inline __m256 gfli_halves_avx512(__m512 v) {
    /* maskz: g++ takes the plain forms for unset */
    const __m512d d = _mm512_castps_pd(v);
    return _mm256_add_ps(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, d, 0)),
                         _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, d, 1)));
}

GFLI_AVX512 static void gfli_scatter_avx512(const gfli_scatter *t) {
    const int n0 = gfli_min(t->n, 16), n1 = t->n - n0;
    const __mmask16 m0 = (__mmask16)(n0 < 16 ? (1u << n0) - 1u : 0xffffu);
    const __mmask16 m1 = (__mmask16)(n1 < 16 ? (1u << n1) - 1u : 0xffffu);
    const int second = n1 > 0 ? 16 : 0; /* a place that may be read when there is nothing more */
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        const float *grad = t->grad + r * GFLI_DEFORM_STRIP, *corner[4];
        float weight[4], dot[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, corner, weight);
        const __m512 g0 = _mm512_maskz_loadu_ps(m0, grad);
        const __m512 g1 = _mm512_maskz_loadu_ps(m1, grad + second);
        __m512 d[4];
        for (int k = 0; k < 4; k++) {
            d[k] = _mm512_mul_ps(g0, _mm512_maskz_loadu_ps(m0, corner[k]));
            d[k] = _mm512_fmadd_ps(g1, _mm512_maskz_loadu_ps(m1, corner[k] + second), d[k]);
            if (!t->dx || !(p->corners >> k & 1)) continue;
            float *to = gfli_scatter_to(t, p, k);
            const __m512 w = _mm512_set1_ps(weight[k] * p->mask);
            const __m512 v0 = _mm512_fmadd_ps(w, g0, _mm512_maskz_loadu_ps(m0, to));
            _mm512_mask_storeu_ps(to, m0, v0);
            if (n1 <= 0) continue;
            const __m512 v1 = _mm512_fmadd_ps(w, g1, _mm512_maskz_loadu_ps(m1, to + 16));
            _mm512_mask_storeu_ps(to + 16, m1, v1);
        }
        _mm_storeu_ps(dot, gfli_sum4_avx2(gfli_halves_avx512(d[0]), gfli_halves_avx512(d[1]),
                                          gfli_halves_avx512(d[2]), gfli_halves_avx512(d[3])));
        gfli_scatter_sums(t, p, weight, dot, t->sums + (ptrdiff_t)r * t->values);
    }
}

#endif

static gfli_scatter_fn gfli_scatter_of(const gfl_context *context) {
#if defined(__x86_64__)
    if (gfli_has_avx512(context)) return gfli_scatter_avx512;
    if (gfli_has_avx2(context)) return gfli_scatter_avx2;
#endif
    (void)context;
    return gfli_scatter_portable;
}

/* ---- weights for the gradient of the sampled values ------------------------------------------ */

/* dy's channels of a group are the inner dimension, x's are the columns; packed
 * [groups][panels of group_out][taps][group_in][GFLI_NR]. */
static void gfli_deform_grad_igemm(const gfli_conv_shape *s, gfli_igemm *g) {
    const gfli_groups merged = gfli_merge_groups(s, GFLI_NR);
    memset(g, 0, sizeof *g);
    g->groups = merged.n;
    g->group_in = merged.out;
    g->group_out = merged.in;
    g->n_segs = GFLI_DEFORM_TAPS;
    g->seg_taps = 1;
    g->seg_len = g->group_in;
}

static size_t gfli_deform_conv_grad_packed_size_cpu(const gfli_conv_shape *s) {
    gfli_igemm g;
    gfli_deform_grad_igemm(s, &g);
    return gfli_igemm_packed_size(&g);
}

static void gfli_deform_conv_grad_pack_cpu(gfl_context *context, const gfli_conv_shape *s,
                                           const float *weight, const float *scale, void *packing) {
    gfli_grad_pack_task t;
    t.s = s;
    t.weight = weight;
    t.scale = scale;
    t.packing = (float *)packing;
    gfli_deform_grad_igemm(s, &t.g);
    for (int k = 0; k < GFLI_DEFORM_TAPS; k++) t.tap[k] = k;
    const int parts = gfli_ceil_div(t.g.group_in, GFLI_PACK_ROWS);
    gfli_parallel_for(context, t.g.groups * t.g.n_segs * parts, gfli_grad_pack_rows, &t);
}

/* ---- input and offsets ----------------------------------------------------------------------- */

/* Scratch: zeros and the points of all positions, which both passes use; then the first pass's
 * sums and slots in the place of the second one's scratch. */
typedef struct gfli_deform_grad_task {
    const gfli_conv_shape *s;
    gfli_igemm g;
    const gfli_map *x, *offset, *dy, *dx, *doffset;
    size_t positions;
    int parts, part_panels, n_panels, tile_panels;
    gfli_tile_fn tile;
    gfli_scatter_fn scatter;
    float *zeros, *sums; /* sums [parts][positions][offset->c] */
    gfli_point *points;
    const float *packing;
    char *room;
    size_t at_samples, at_rest, at_slots, pointers, slot, scratch; /* bytes */
} gfli_deform_grad_task;

static void gfli_deform_grad_plan(const gfl_context *context, const gfli_conv_shape *s,
                                  const gfli_map *offset, gfli_deform_grad_task *t) {
    const size_t f = sizeof(float), rows = GFLI_DEFORM_ROWS;
    memset(t, 0, sizeof *t);
    t->s = s;
    t->offset = offset;
    gfli_deform_grad_igemm(s, &t->g);
    t->positions = gfli_points(offset);
    t->n_panels = t->g.groups * gfli_ceil_div(t->g.group_out, GFLI_NR);
    t->part_panels = gfli_max(gfli_ceil_div(t->n_panels, GFLI_DEFORM_PARTS), 2);
    t->parts = gfli_ceil_div(t->n_panels, t->part_panels);
    t->at_samples = gfli_grad_round((size_t)gfli_max(s->in_c, s->out_c) * f);
    t->at_rest =
        t->at_samples + gfli_grad_round(t->positions * GFLI_DEFORM_TAPS * sizeof(gfli_point));
    t->at_slots =
        t->at_rest + gfli_grad_round((size_t)t->parts * t->positions * (size_t)offset->c * f);
    t->pointers = gfli_grad_round(rows * (sizeof(const float *) + sizeof(ptrdiff_t)));
    t->slot = t->pointers + rows * GFLI_DEFORM_STRIP * f;
    t->scratch = t->at_slots + t->slot * (size_t)context->n_threads;
}

static void gfli_deform_find(void *arg, int block, int slot) {
    const gfli_deform_grad_task *t = (const gfli_deform_grad_task *)arg;
    const size_t first = (size_t)block * GFLI_DEFORM_BLOCK, left = t->positions - first;
    const int n = left < GFLI_DEFORM_BLOCK ? (int)left : GFLI_DEFORM_BLOCK;
    (void)slot;
    gfli_find_points(t->s, t->x, t->offset, first, n, t->points + first * GFLI_DEFORM_TAPS);
}

/* A strip: up to two panels, whose channels lie together. */
typedef struct gfli_deform_strip {
    int panel, n_panels, channel, channels;
} gfli_deform_strip;

static int gfli_panel_channel(const gfli_igemm *g, int panel) {
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR);
    return panel / group_panels * g->group_out + panel % group_panels * GFLI_NR;
}

/* grad = dy times the weights of one tap, for n rows at `rows` and a strip's channels. */
static void gfli_deform_grad_tile(const gfli_deform_grad_task *t, const gfli_deform_strip *strip,
                                  int tap, int n, const float *const *rows, const ptrdiff_t *out,
                                  float *grad) {
    const gfli_igemm *g = &t->g;
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR);
    gfli_tile tile;
    memset(&tile, 0, sizeof tile);
    tile.n_segs = 1;
    tile.panel = (size_t)g->n_segs * (size_t)g->seg_len * GFLI_NR;
    for (int p = strip->panel, end = p + strip->n_panels, together; p < end; p += together) {
        const int group = p / group_panels, in_group = p % group_panels;
        together = gfli_min(gfli_min(t->tile_panels, end - p), group_panels - in_group);
        tile.n = gfli_min(together * GFLI_NR, g->group_out - in_group * GFLI_NR);
        tile.y = grad + gfli_panel_channel(g, p) - strip->channel;
        for (int k = 0; k < g->group_in; k += GFLI_K_BLOCK) {
            tile.len = gfli_min(GFLI_K_BLOCK, g->group_in - k);
            tile.first = k == 0;
            tile.row_offset = group * g->group_in + k;
            tile.b = t->packing + (size_t)p * tile.panel +
                     ((size_t)tap * (size_t)g->seg_len + (size_t)k) * GFLI_NR;
            for (int r = 0; r < n; r += GFLI_MR) {
                tile.rows = rows + r;
                tile.out = out + r;
                tile.m = gfli_min(GFLI_MR, n - r);
                t->tile(&tile);
            }
        }
    }
}

/* Some positions and all channels of a part. */
static void gfli_deform_grad_rows(const gfli_deform_grad_task *t, int part, size_t first, int n,
                                  char *memory) {
    const float **rows = (const float **)(void *)memory;
    ptrdiff_t *out = (ptrdiff_t *)(void *)(rows + GFLI_DEFORM_ROWS);
    float *grad = (float *)(void *)(memory + t->pointers);
    const int begin = part * t->part_panels, end = gfli_min(begin + t->part_panels, t->n_panels);
    for (int r = 0; r < gfli_ceil_div(n, GFLI_MR) * GFLI_MR; r++) {
        const int row = gfli_min(r, n - 1);
        rows[r] = t->dy->data + (first + (size_t)row) * (size_t)t->dy->c;
        out[r] = (ptrdiff_t)row * GFLI_DEFORM_STRIP;
    }
    gfli_scatter s;
    s.x = t->x;
    s.zeros = t->zeros;
    s.grad = grad;
    s.rows = n;
    s.dx = t->dx ? t->dx->data : NULL;
    s.values = t->offset->c;
    float *sums = t->sums + ((size_t)part * t->positions + first) * (size_t)s.values;
    for (int p = begin; p < end; p += 2) {
        gfli_deform_strip strip;
        strip.panel = p;
        strip.n_panels = gfli_min(2, end - p);
        strip.channel = gfli_panel_channel(&t->g, p);
        strip.channels =
            (p + strip.n_panels == t->n_panels ? t->s->in_c
                                               : gfli_panel_channel(&t->g, p + strip.n_panels)) -
            strip.channel;
        s.first = strip.channel;
        s.n = strip.channels;
        s.first_sum = p == begin;
        for (int tap = 0; tap < GFLI_DEFORM_TAPS; tap++) {
            gfli_deform_grad_tile(t, &strip, tap, n, rows, out, grad);
            s.points = t->points + first * GFLI_DEFORM_TAPS + tap;
            s.sums = sums + 2 * tap;
            s.mask_at = s.values > 2 * GFLI_DEFORM_TAPS ? 2 * GFLI_DEFORM_TAPS - tap : 0;
            t->scatter(&s);
        }
    }
}

/* One part of the channels of one image. */
static void gfli_deform_grad_do(void *arg, int task, int slot) {
    const gfli_deform_grad_task *t = (const gfli_deform_grad_task *)arg;
    const int part = task % t->parts, level = task / t->parts / t->x->n;
    const int image = task / t->parts % t->x->n;
    const size_t area = (size_t)t->offset->h[level] * (size_t)t->offset->w[level];
    const size_t first = gfli_points_before(t->offset, level) + (size_t)image * area;
    for (size_t done = 0; done < area; done += GFLI_DEFORM_ROWS) {
        const int n = area - done < GFLI_DEFORM_ROWS ? (int)(area - done) : GFLI_DEFORM_ROWS;
        gfli_deform_grad_rows(t, part, first + done, n, t->room + (size_t)slot * t->slot);
    }
}

/* doffset: the parts' sums in order; a mask is the sigmoid m of its logit, so m (1 - m). */
static void gfli_deform_grad_sum(void *arg, int block, int slot) {
    const gfli_deform_grad_task *t = (const gfli_deform_grad_task *)arg;
    const int values = t->offset->c, mask_at = 2 * GFLI_DEFORM_TAPS;
    const size_t first = (size_t)block * GFLI_DEFORM_BLOCK;
    (void)slot;
    for (size_t i = first; i < first + GFLI_DEFORM_BLOCK && i < t->positions; i++) {
        float *out = t->doffset->data + i * (size_t)values;
        const gfli_point *points = t->points + i * GFLI_DEFORM_TAPS;
        for (int part = 0; part < t->parts; part++) {
            const float *sums = t->sums + ((size_t)part * t->positions + i) * (size_t)values;
            for (int v = 0; v < values; v++) out[v] = part ? out[v] + sums[v] : sums[v];
        }
        for (int v = mask_at; v < values; v++) {
            const float m = points[v - mask_at].mask;
            out[v] *= m * (1.0f - m);
        }
    }
}

/* Of what a layer with such an input and offsets gives. */
static gfli_map gfli_deform_dy(const gfli_conv_shape *s, const gfli_map *offset) {
    gfli_map dy = *offset;
    dy.c = s->out_c;
    return dy;
}

static size_t gfli_deform_conv_grad_scratch_cpu(const gfl_context *context,
                                                const gfli_conv_shape *s, const gfli_map *offset) {
    const gfli_map dy = gfli_deform_dy(s, offset);
    gfli_deform_grad_task t;
    gfli_igemm g;
    gfli_grad_task weights;
    gfli_deform_grad_plan(context, s, offset, &t);
    gfli_deform_igemm(s, &g);
    gfli_grad_plan(context, s, &g, &dy, &weights);
    const size_t second = t.at_rest + weights.scratch;
    return t.scratch > second ? t.scratch : second;
}

static void gfli_deform_conv_grad_cpu(gfl_context *context, const gfli_conv_shape *s,
                                      const void *packing, const gfli_map *x,
                                      const gfli_map *offset, const gfli_map *dy, bool accumulate,
                                      const gfli_map *dx, const gfli_map *doffset, float *dweight,
                                      float *dbias, void *scratch) {
    gfli_deform_grad_task t;
    gfli_deform_grad_plan(context, s, offset, &t);
    t.x = x;
    t.dy = dy;
    t.dx = dx;
    t.doffset = doffset;
    t.packing = (const float *)packing;
    t.zeros = (float *)scratch;
    t.points = (gfli_point *)(void *)((char *)scratch + t.at_samples);
    t.sums = (float *)(void *)((char *)scratch + t.at_rest);
    t.room = (char *)scratch + t.at_slots;
    t.tile = gfli_tile_of(context, &t.tile_panels);
    t.scatter = gfli_scatter_of(context);
    memset(t.zeros, 0, t.at_samples);
    if (dx && !accumulate) memset(dx->data, 0, gfli_map_count(dx) * sizeof(float));
    const int blocks = (int)((t.positions + GFLI_DEFORM_BLOCK - 1) / GFLI_DEFORM_BLOCK);
    gfli_parallel_for(context, blocks, gfli_deform_find, &t);
    gfli_parallel_for(context, x->levels * x->n * t.parts, gfli_deform_grad_do, &t);
    gfli_parallel_for(context, blocks, gfli_deform_grad_sum, &t);
    gfli_grad_task weights;
    gfli_igemm g;
    gfli_deform_igemm(s, &g);
    gfli_grad_plan(context, s, &g, dy, &weights);
    weights.points = t.points;
    gfli_grad_weight(context, &weights, x, dweight, dbias, (char *)scratch + t.at_rest);
}
