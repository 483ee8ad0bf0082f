/* gemm.c - register-blocked matrix kernels and the implicit product they serve */
#pragma once

enum {
    GFLI_ROWS_PER_TASK = 192, /* a multiple of GFLI_MR; this many rows of x stay in the L2 cache */
    GFLI_COLS_PER_TASK = 512
};

/* y (+)= sum for a part of a row: the slow way, for edges and for plain C. */
static void gfli_gemm_store(const gfli_tile *t, int row, int col, const float *sum, int n) {
    float *y = t->y + t->out[row] + col;
    const float *residual = t->residual ? t->residual + t->out[row] + col : NULL;
    for (int j = 0; j < n; j++) {
        float v = sum[j];
        if (!t->first) v += y[j];
        if (t->first && t->bias) v += t->bias[col + j];
        if (t->first && residual) v += residual[j];
        y[j] = t->relu && v < 0.0f ? 0.0f : v;
    }
}

/* Ask for what the sums will be added to while they are being formed. */
static inline void gfli_tile_prefetch(const gfli_tile *t) {
    const float *add = t->first ? t->residual : t->y;
    for (int r = 0; add && r < GFLI_MR; r++) {
        __builtin_prefetch(add + t->out[r]);
        __builtin_prefetch(add + t->out[r] + t->n - 1);
    }
}

static void gfli_tile_portable(const gfli_tile *t) {
    for (int col = 0; col < t->n; col += 8) {
        float sum[GFLI_MR][8] = {{0.0f}};
        const float *b = t->b + (size_t)(col / GFLI_NR) * t->panel + col % GFLI_NR;
        for (int s = 0; s < t->n_segs; s++) {
            const float *const *rows = t->rows + s * GFLI_MR;
            for (int k = 0; k < t->len; k++, b += GFLI_NR) {
                for (int r = 0; r < GFLI_MR; r++) {
                    float a = rows[r][t->row_offset + k];
                    for (int j = 0; j < 8; j++) sum[r][j] += a * b[j];
                }
            }
        }
        for (int r = 0; r < t->m; r++) {
            gfli_gemm_store(t, r, col, sum[r], gfli_min(8, t->n - col));
        }
    }
}

#if defined(__x86_64__)

GFLI_AVX2 static inline void gfli_store_avx2(const gfli_tile *t, int row, __m256 v0, __m256 v1) {
    if (row >= t->m) return;
    if (t->n < GFLI_NR) {
        float sum[GFLI_NR];
        _mm256_storeu_ps(sum, v0);
        _mm256_storeu_ps(sum + 8, v1);
        gfli_gemm_store(t, row, 0, sum, t->n);
        return;
    }
    float *y = t->y + t->out[row];
    if (t->first) {
        if (t->bias) {
            v0 = _mm256_add_ps(v0, _mm256_loadu_ps(t->bias));
            v1 = _mm256_add_ps(v1, _mm256_loadu_ps(t->bias + 8));
        }
        if (t->residual) {
            const float *residual = t->residual + t->out[row];
            v0 = _mm256_add_ps(v0, _mm256_loadu_ps(residual));
            v1 = _mm256_add_ps(v1, _mm256_loadu_ps(residual + 8));
        }
    } else {
        v0 = _mm256_add_ps(v0, _mm256_loadu_ps(y));
        v1 = _mm256_add_ps(v1, _mm256_loadu_ps(y + 8));
    }
    if (t->relu) {
        v0 = _mm256_max_ps(_mm256_setzero_ps(), v0);
        v1 = _mm256_max_ps(_mm256_setzero_ps(), v1);
    }
    _mm256_storeu_ps(y, v0);
    _mm256_storeu_ps(y + 8, v1);
}

#    define GFLI_TILE_ROW(i)                                                                       \
        a = _mm256_broadcast_ss(a##i + k);                                                         \
        s##i##0 = _mm256_fmadd_ps(a, b0, s##i##0);                                                 \
        s##i##1 = _mm256_fmadd_ps(a, b1, s##i##1)

GFLI_AVX2 static void gfli_tile_avx2(const gfli_tile *t) {
    __m256 s00 = _mm256_setzero_ps(), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
    __m256 s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
    const float *b = t->b;
    const ptrdiff_t len = t->len;
    gfli_tile_prefetch(t);
    for (int s = 0; s < t->n_segs; s++) {
        const float *const *rows = t->rows + s * GFLI_MR;
        const float *a0 = rows[0] + t->row_offset, *a1 = rows[1] + t->row_offset;
        const float *a2 = rows[2] + t->row_offset, *a3 = rows[3] + t->row_offset;
        const float *a4 = rows[4] + t->row_offset, *a5 = rows[5] + t->row_offset;
        for (ptrdiff_t k = 0; k < len; k++, b += GFLI_NR) {
            __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8), a;
            GFLI_TILE_ROW(0);
            GFLI_TILE_ROW(1);
            GFLI_TILE_ROW(2);
            GFLI_TILE_ROW(3);
            GFLI_TILE_ROW(4);
            GFLI_TILE_ROW(5);
        }
    }
    gfli_store_avx2(t, 0, s00, s01);
    gfli_store_avx2(t, 1, s10, s11);
    gfli_store_avx2(t, 2, s20, s21);
    gfli_store_avx2(t, 3, s30, s31);
    gfli_store_avx2(t, 4, s40, s41);
    gfli_store_avx2(t, 5, s50, s51);
}

#    undef GFLI_TILE_ROW

GFLI_AVX512 static inline void gfli_store_avx512(const gfli_tile *t, int row, int col, __m512 v) {
    if (row >= t->m || col >= t->n) return;
    const int left = t->n - col;
    const __mmask16 mask = (__mmask16)(left < 16 ? (1u << left) - 1u : 0xffffu);
    float *y = t->y + t->out[row] + col;
    if (t->first) {
        if (t->bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, t->bias + col));
        if (t->residual) {
            const float *residual = t->residual + t->out[row] + col;
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, residual));
        }
    } else {
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, y));
    }
    /* The masked form: the other makes g++ 12 warn of its own header. */
    if (t->relu) v = _mm512_maskz_max_ps(mask, _mm512_setzero_ps(), v);
    _mm512_mask_storeu_ps(y, mask, v);
}

#    define GFLI_TILE_ROW(i)                                                                       \
        a = _mm512_set1_ps(a##i[k]);                                                               \
        s##i##0 = _mm512_fmadd_ps(a, b0, s##i##0);                                                 \
        if (panels > 1) s##i##1 = _mm512_fmadd_ps(a, b1, s##i##1)

#    define GFLI_STORE_ROW(i)                                                                      \
        gfli_store_avx512(t, i, 0, s##i##0);                                                       \
        if (panels > 1) gfli_store_avx512(t, i, GFLI_NR, s##i##1)

/* panels is a constant where this is called: 1 or 2. */
GFLI_AVX512 static inline __attribute__((__always_inline__)) void
gfli_tile_panels_avx512(const gfli_tile *t, const int panels) {
    __m512 s00 = _mm512_setzero_ps(), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
    __m512 s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
    const float *b = t->b;
    const size_t panel = panels > 1 ? t->panel : 0;
    const ptrdiff_t len = t->len;
    gfli_tile_prefetch(t);
    for (int s = 0; s < t->n_segs; s++) {
        const float *const *rows = t->rows + s * GFLI_MR;
        const float *a0 = rows[0] + t->row_offset, *a1 = rows[1] + t->row_offset;
        const float *a2 = rows[2] + t->row_offset, *a3 = rows[3] + t->row_offset;
        const float *a4 = rows[4] + t->row_offset, *a5 = rows[5] + t->row_offset;
        for (ptrdiff_t k = 0; k < len; k++, b += GFLI_NR) {
            __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + panel), a;
            GFLI_TILE_ROW(0);
            GFLI_TILE_ROW(1);
            GFLI_TILE_ROW(2);
            GFLI_TILE_ROW(3);
            GFLI_TILE_ROW(4);
            GFLI_TILE_ROW(5);
        }
    }
    GFLI_STORE_ROW(0);
    GFLI_STORE_ROW(1);
    GFLI_STORE_ROW(2);
    GFLI_STORE_ROW(3);
    GFLI_STORE_ROW(4);
    GFLI_STORE_ROW(5);
}

GFLI_AVX512 static void gfli_tile_avx512(const gfli_tile *t) {
    if (t->n > GFLI_NR) {
        gfli_tile_panels_avx512(t, 2);
    } else {
        gfli_tile_panels_avx512(t, 1);
    }
}

#    undef GFLI_TILE_ROW
#    undef GFLI_STORE_ROW

#elif defined(__aarch64__)

/* Eight columns at a time: twice that many sums and their operands do not fit 32 registers. */
#    define GFLI_TILE_ROW(i)                                                                       \
        a = a##i[k];                                                                               \
        s##i##0 = vfmaq_n_f32(s##i##0, b0, a);                                                     \
        s##i##1 = vfmaq_n_f32(s##i##1, b1, a)

static inline void gfli_store_neon(const gfli_tile *t, int row, int col, float32x4_t v0,
                                   float32x4_t v1) {
    float sum[8];
    if (row >= t->m) return;
    vst1q_f32(sum, v0);
    vst1q_f32(sum + 4, v1);
    gfli_gemm_store(t, row, col, sum, gfli_min(8, t->n - col));
}

static inline void gfli_tile_half_neon(const gfli_tile *t, int col) {
    float32x4_t s00 = vdupq_n_f32(0), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
    float32x4_t s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
    const float *b = t->b + col;
    const ptrdiff_t len = t->len;
    for (int s = 0; s < t->n_segs; s++) {
        const float *const *rows = t->rows + s * GFLI_MR;
        const float *a0 = rows[0] + t->row_offset, *a1 = rows[1] + t->row_offset;
        const float *a2 = rows[2] + t->row_offset, *a3 = rows[3] + t->row_offset;
        const float *a4 = rows[4] + t->row_offset, *a5 = rows[5] + t->row_offset;
        for (ptrdiff_t k = 0; k < len; k++, b += GFLI_NR) {
            const float32x4_t b0 = vld1q_f32(b), b1 = vld1q_f32(b + 4);
            float a;
            GFLI_TILE_ROW(0);
            GFLI_TILE_ROW(1);
            GFLI_TILE_ROW(2);
            GFLI_TILE_ROW(3);
            GFLI_TILE_ROW(4);
            GFLI_TILE_ROW(5);
        }
    }
    gfli_store_neon(t, 0, col, s00, s01);
    gfli_store_neon(t, 1, col, s10, s11);
    gfli_store_neon(t, 2, col, s20, s21);
    gfli_store_neon(t, 3, col, s30, s31);
    gfli_store_neon(t, 4, col, s40, s41);
    gfli_store_neon(t, 5, col, s50, s51);
}

static void gfli_tile_neon(const gfli_tile *t) {
    gfli_tile_prefetch(t);
    gfli_tile_half_neon(t, 0);
    if (t->n > 8) gfli_tile_half_neon(t, 8);
}

#    undef GFLI_TILE_ROW

#endif

/* ---- the implicit product -------------------------------------------------------------------- */

size_t gfli_igemm_packed_size(const gfli_igemm *g) {
    return (size_t)g->groups * (size_t)gfli_ceil_div(g->group_out, GFLI_NR) * GFLI_NR *
           (size_t)g->n_segs * (size_t)g->seg_len * sizeof(float);
}

/* Scratch: zeros for padding, then for each slot the pointers and offsets of a task's rows and,
 * where several neighbours make a run, copies of the runs that padding interrupts. */
typedef struct gfli_igemm_layout {
    size_t zeros, rows, offsets, copies, slot; /* bytes of each part */
} gfli_igemm_layout;

static size_t gfli_round_64(size_t bytes) {
    return (bytes + 63) & ~(size_t)63;
}

static gfli_igemm_layout gfli_igemm_plan(const gfli_igemm *g) {
    gfli_igemm_layout l;
    const size_t rows = GFLI_ROWS_PER_TASK, segs = (size_t)g->n_segs;
    l.zeros = gfli_round_64((size_t)gfli_max(g->groups * g->group_in, g->seg_len) * sizeof(float));
    l.rows = gfli_round_64(rows * segs * sizeof(const float *));
    l.offsets = gfli_round_64(rows * sizeof(ptrdiff_t));
    l.copies = rows * gfli_igemm_copy(g) * sizeof(float);
    l.slot = l.rows + l.offsets + l.copies;
    return l;
}

size_t gfli_igemm_scratch(const gfl_context *context, const gfli_igemm *g) {
    gfli_igemm_layout l = gfli_igemm_plan(g);
    return l.zeros + l.slot * (size_t)context->n_threads;
}

typedef struct gfli_igemm_task {
    const gfli_igemm *g;
    gfli_igemm_layout layout;
    gfli_tile_fn tile;
    int tile_panels, k_block;
    size_t n_rows;
    int rows_per_task, row_tasks, panels_per_task, col_tasks, n_panels;
    float *zeros;
    char *room;
} gfli_igemm_task;

static int gfli_grid(int size, int first, int step) {
    return size > first ? gfli_ceil_div(size - first, step) : 0;
}

size_t gfli_igemm_rows(const gfli_igemm *g) {
    size_t rows = 0;
    for (int l = 0; l < g->y->levels; l++) {
        rows += (size_t)g->y->n * (size_t)gfli_grid(g->y->h[l], g->out_y, g->out_step) *
                (size_t)gfli_grid(g->y->w[l], g->out_x, g->out_step);
    }
    return rows;
}

/* Where a row of the product is. */
typedef struct gfli_row {
    int level, image, i, j;
    int grid_h, grid_w;
} gfli_row;

static void gfli_row_level(const gfli_igemm *g, gfli_row *r) {
    r->grid_h = gfli_grid(g->y->h[r->level], g->out_y, g->out_step);
    r->grid_w = gfli_grid(g->y->w[r->level], g->out_x, g->out_step);
}

static gfli_row gfli_row_at(const gfli_igemm *g, size_t index) {
    gfli_row r = {0, 0, 0, 0, 0, 0};
    for (;; r.level++) {
        gfli_row_level(g, &r);
        size_t rows = (size_t)g->y->n * (size_t)r.grid_h * (size_t)r.grid_w;
        if (index < rows) break;
        index -= rows;
    }
    size_t width = (size_t)r.grid_w, image = (size_t)r.grid_h * width;
    r.image = (int)(index / image);
    r.i = (int)(index % image / width);
    r.j = (int)(index % width);
    return r;
}

/* n rows further, within the line or to the next line's begin; it must exist. */
static void gfli_row_skip(const gfli_igemm *g, gfli_row *r, int n) {
    r->j += n;
    if (r->j < r->grid_w) return;
    r->j = 0;
    if (++r->i < r->grid_h) return;
    r->i = 0;
    if (++r->image < g->y->n) return;
    r->image = 0;
    do {
        r->level++;
        gfli_row_level(g, r);
    } while (r->grid_h * r->grid_w == 0);
}

/* The run of x that begins at column ix of one line, zeros where it leaves the line. */
static void gfli_copy_run(const float *line, int ix, int taps, int width, int c, float *out) {
    for (int t = 0; t < taps; t++, out += c) {
        if (ix + t >= 0 && ix + t < width) {
            memcpy(out, line + (ptrdiff_t)(ix + t) * c, (size_t)c * sizeof(float));
        } else {
            memset(out, 0, (size_t)c * sizeof(float));
        }
    }
}

/* Pointers of the runs of segment s for n rows of a line; at: which of GFLI_MR the first is. */
static void gfli_line_pointers(const gfli_igemm *g, const gfli_row *r, int s, int n,
                               const float *zeros, float *copy, const float **rows, int at) {
    const gfli_map *x = g->x;
    const int h = x->h[r->level], w = x->w[r->level], c = x->c, last = w - g->seg_taps;
    const int iy = r->i * g->in_step + g->seg_y[s];
    const size_t copy_step = gfli_igemm_copy(g);
    const bool inside = iy >= 0 && iy < h;
    const size_t y = ((size_t)r->image * (size_t)h + (size_t)(inside ? iy : 0)) * (size_t)w;
    const float *line = x->data + (gfli_points_before(x, r->level) + y) * (size_t)c;
    int ix = r->j * g->in_step + g->seg_x[s];
    for (int k = 0; k < n; k++, ix += g->in_step) {
        if (inside && ix >= 0 && ix <= last) {
            rows[at] = line + (ptrdiff_t)ix * c;
        } else if (!inside || ix + g->seg_taps <= 0 || ix >= w) {
            rows[at] = zeros;
        } else {
            float *out = copy + (size_t)k * copy_step + (ptrdiff_t)s * g->seg_len;
            gfli_copy_run(line, ix, g->seg_taps, w, c, out);
            rows[at] = out;
        }
        if (++at == GFLI_MR) {
            at = 0;
            rows += GFLI_MR * g->n_segs;
        }
    }
}

size_t gfli_igemm_copy(const gfli_igemm *g) {
    if (g->seg_taps <= 1) return 0;
    return gfli_round_64((size_t)(g->n_segs * g->seg_len) * sizeof(float)) / sizeof(float);
}

void gfli_igemm_gather(const gfli_igemm *g, size_t first, int n, const float *zeros,
                       const float **rows, ptrdiff_t *offsets, float *copies) {
    const gfli_map *y = g->y;
    gfli_row r = gfli_row_at(g, first);
    for (int k = 0, line; k < n; k += line) {
        line = gfli_min(n - k, r.grid_w - r.j);
        const float **block = rows + (ptrdiff_t)(k / GFLI_MR) * GFLI_MR * g->n_segs;
        for (int s = 0; s < g->n_segs; s++) {
            gfli_line_pointers(g, &r, s, line, zeros, copies + (size_t)k * gfli_igemm_copy(g),
                               block + s * GFLI_MR, k % GFLI_MR);
        }
        const int h = y->h[r.level], w = y->w[r.level];
        const int oy = g->out_y + r.i * g->out_step, ox = g->out_x + r.j * g->out_step;
        const size_t point = gfli_points_before(y, r.level) +
                             ((size_t)r.image * (size_t)h + (size_t)oy) * (size_t)w + (size_t)ox;
        for (int j = 0; j < line; j++) {
            offsets[k + j] = ((ptrdiff_t)point + j * g->out_step) * y->c;
        }
        if (k + line < n) gfli_row_skip(g, &r, line);
    }
    for (int k = n; k % GFLI_MR != 0; k++) { /* the last tile computes its last row again */
        const float **block = rows + (ptrdiff_t)(k / GFLI_MR) * GFLI_MR * g->n_segs + k % GFLI_MR;
        for (int s = 0; s < g->n_segs; s++) block[s * GFLI_MR] = block[s * GFLI_MR - 1];
        offsets[k] = offsets[k - 1];
    }
}

/* A block of the inner dimension: whole segments, or a part of one. */
typedef struct gfli_k_block {
    int seg, n_segs, first, len;
} gfli_k_block;

/* The block after b (seg < 0: the first); false when there is none. */
static bool gfli_next_block(const gfli_igemm *g, int size, gfli_k_block *b) {
    if (g->seg_len > size) {
        const int len = gfli_ceil_div(g->seg_len, gfli_ceil_div(g->seg_len, size));
        b->first = b->seg < 0 ? 0 : b->first + b->len;
        if (b->seg < 0) b->seg = 0;
        if (b->first >= g->seg_len) {
            b->first = 0;
            b->seg++;
        }
        b->n_segs = 1;
        b->len = gfli_min(len, g->seg_len - b->first);
        return b->seg < g->n_segs;
    }
    const int blocks = gfli_ceil_div(g->n_segs * g->seg_len, size);
    const int segs = gfli_ceil_div(g->n_segs, blocks);
    b->seg = b->seg < 0 ? 0 : b->seg + b->n_segs;
    b->n_segs = gfli_min(segs, g->n_segs - b->seg);
    b->first = 0;
    b->len = g->seg_len;
    return b->seg < g->n_segs;
}

/* All tiles of a task's rows over one block of the inner dimension; the rows begin at channel
 * `origin` of x. */
static void gfli_igemm_block(const gfli_igemm_task *t, const gfli_k_block *k, int panel0,
                             int panel1, int n_rows, const float *const *rows,
                             const ptrdiff_t *offsets, int origin) {
    const gfli_igemm *g = t->g;
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR);
    const size_t panel = (size_t)g->n_segs * (size_t)g->seg_len * GFLI_NR;
    gfli_tile tile;
    tile.n_segs = k->n_segs;
    tile.len = k->len;
    tile.panel = panel;
    tile.first = k->seg == 0 && k->first == 0;
    tile.relu = g->relu && k->seg + k->n_segs == g->n_segs && k->first + k->len == g->seg_len;
    for (int p = panel0, n; p < panel1; p += n) {
        const int group = p / group_panels, in_group = p % group_panels;
        n = gfli_min(gfli_min(t->tile_panels, panel1 - p), group_panels - in_group);
        const int col = group * g->group_out + in_group * GFLI_NR;
        tile.b = g->packing + (size_t)p * panel +
                 ((size_t)k->seg * (size_t)g->seg_len + (size_t)k->first) * GFLI_NR;
        tile.n = gfli_min(n * GFLI_NR, g->group_out - in_group * GFLI_NR);
        tile.row_offset = group * g->group_in + k->first - origin;
        tile.y = g->y->data + col;
        tile.residual = g->residual ? g->residual->data + col : NULL;
        tile.bias = g->bias ? g->bias + col : NULL;
        for (int r = 0; r < n_rows; r += GFLI_MR) {
            tile.rows = rows + (ptrdiff_t)r * g->n_segs + (ptrdiff_t)k->seg * GFLI_MR;
            tile.out = offsets + r;
            tile.m = gfli_min(GFLI_MR, n_rows - r);
            t->tile(&tile);
        }
    }
}

/* What a task computes: n rows from `first` on, and some panels. */
typedef struct gfli_part {
    size_t first;
    int n, panel0, panel1;
} gfli_part;

static gfli_part gfli_igemm_part(const gfli_igemm_task *t, int task) {
    gfli_part part;
    part.first = (size_t)(task % t->row_tasks) * (size_t)t->rows_per_task;
    part.panel0 = task / t->row_tasks * t->panels_per_task;
    part.panel1 = gfli_min(part.panel0 + t->panels_per_task, t->n_panels);
    const size_t left = t->n_rows - part.first;
    part.n = left < (size_t)t->rows_per_task ? (int)left : t->rows_per_task;
    return part;
}

static void gfli_igemm_do(void *arg, int task, int slot) {
    const gfli_igemm_task *t = (const gfli_igemm_task *)arg;
    char *memory = t->room + (size_t)slot * t->layout.slot;
    const float **rows = (const float **)(void *)memory;
    ptrdiff_t *offsets = (ptrdiff_t *)(void *)(memory + t->layout.rows);
    float *copies = (float *)(void *)(memory + t->layout.rows + t->layout.offsets);
    const gfli_part part = gfli_igemm_part(t, task);
    gfli_igemm_gather(t->g, part.first, part.n, t->zeros, rows, offsets, copies);
    gfli_k_block k = {-1, 0, 0, 0};
    while (gfli_next_block(t->g, t->k_block, &k)) {
        gfli_igemm_block(t, &k, part.panel0, part.panel1, part.n, rows, offsets, 0);
    }
}

/* How the result is cut into tasks; nothing in it changes a sum. */
static void gfli_igemm_cut(const gfl_context *context, gfli_igemm_task *t) {
    const gfli_igemm *g = t->g;
    t->n_rows = gfli_igemm_rows(g);
    t->n_panels = g->groups * gfli_ceil_div(g->group_out, GFLI_NR);
    t->row_tasks = (int)((t->n_rows + GFLI_ROWS_PER_TASK - 1) / GFLI_ROWS_PER_TASK);
    const size_t even =
        t->row_tasks ? (t->n_rows + (size_t)t->row_tasks - 1) / (size_t)t->row_tasks : 0;
    t->rows_per_task = gfli_ceil_div((int)even, GFLI_MR) * GFLI_MR;
    if (t->rows_per_task) {
        t->row_tasks = (int)((t->n_rows + (size_t)t->rows_per_task - 1) / (size_t)t->rows_per_task);
    }
    int cols = gfli_ceil_div(t->n_panels * GFLI_NR, GFLI_COLS_PER_TASK);
    const int want = context->n_threads > 1 ? 4 * context->n_threads : 1;
    while (cols * t->row_tasks < want && t->n_panels / (cols + 1) >= 4) cols++;
    t->panels_per_task = gfli_ceil_div(gfli_ceil_div(t->n_panels, cols), 4) * 4;
    t->col_tasks = gfli_ceil_div(t->n_panels, t->panels_per_task);
}

gfli_tile_fn gfli_tile_of(const gfl_context *context, int *panels) {
    *panels = 1;
#if defined(__x86_64__)
    if (gfli_has_avx512(context)) {
        *panels = 2;
        return gfli_tile_avx512;
    }
    if (gfli_has_avx2(context)) return gfli_tile_avx2;
#elif defined(__aarch64__)
    if (!context->portable) return gfli_tile_neon;
#endif
    (void)context;
    return gfli_tile_portable;
}

/* All but the scratch. */
static void gfli_igemm_prepare(const gfl_context *context, const gfli_igemm *g,
                               gfli_igemm_task *t) {
    memset(t, 0, sizeof *t);
    t->g = g;
    t->layout = gfli_igemm_plan(g);
    t->tile = gfli_tile_of(context, &t->tile_panels);
    t->k_block = GFLI_K_BLOCK;
    gfli_igemm_cut(context, t);
}

void gfli_igemm_run(gfl_context *context, const gfli_igemm *g, void *scratch) {
    gfli_igemm_task t;
    gfli_igemm_prepare(context, g, &t);
    t.zeros = (float *)scratch;
    t.room = (char *)scratch + t.layout.zeros;
    memset(t.zeros, 0, t.layout.zeros);
    gfli_parallel_for(context, t.row_tasks * t.col_tasks, gfli_igemm_do, &t);
}
