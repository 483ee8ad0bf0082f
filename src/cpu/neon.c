/* neon.c - kernels for 64-bit ARM */
#pragma once

#if GFLI_NEON_KERNELS

/* Eight columns at a time: twice that many sums and their operands do not fit 32 registers. */
#    define GFLI_TILE_ROW(i)                                                                       \
        a = a##i[k];                                                                               \
        s##i##0 = vfmaq_n_f32(s##i##0, b0, a);                                                     \
        s##i##1 = vfmaq_n_f32(s##i##1, b1, a)

static inline void gfli_tile_store_neon(const gfli_tile *t, int row, int col, float32x4_t v0,
                                        float32x4_t v1) {
    float sum[8];
    if (row >= t->m) return;
    vst1q_f32(sum, v0);
    vst1q_f32(sum + 4, v1);
    gfli_store_tile_row(t, row, col, sum, gfli_min(8, t->n - col));
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
    gfli_tile_store_neon(t, 0, col, s00, s01);
    gfli_tile_store_neon(t, 1, col, s10, s11);
    gfli_tile_store_neon(t, 2, col, s20, s21);
    gfli_tile_store_neon(t, 3, col, s30, s31);
    gfli_tile_store_neon(t, 4, col, s40, s41);
    gfli_tile_store_neon(t, 5, col, s50, s51);
}

static void gfli_tile_neon(const gfli_tile *t) {
    gfli_tile_prefetch(t);
    gfli_tile_half_neon(t, 0);
    if (t->n > 8) gfli_tile_half_neon(t, 8);
}

#    undef GFLI_TILE_ROW

#    define GFLI_OUTER_ROW(i)                                                                      \
        s##i##0 = vfmaq_n_f32(s##i##0, b0, a[i]);                                                  \
        s##i##1 = vfmaq_n_f32(s##i##1, b1, a[i])

static inline void gfli_outer_store_neon(const gfli_outer *t, int row, int col, float32x4_t v0,
                                         float32x4_t v1) {
    float sum[8];
    if (row >= t->m) return;
    vst1q_f32(sum, v0);
    vst1q_f32(sum + 4, v1);
    gfli_store_outer_row(t, row, col, sum, gfli_min(8, t->n - col));
}

static void gfli_outer_neon(const gfli_outer *t) {
    gfli_outer_prefetch(t);
    for (int col = 0; col < t->n; col += 8) {
        float32x4_t s00 = vdupq_n_f32(0), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
        float32x4_t s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
        const float *a = t->a, *b = t->b + col;
        for (int k = 0; k < t->len; k++, a += GFLI_MR, b += t->width) {
            const float32x4_t b0 = vld1q_f32(b), b1 = vld1q_f32(b + 4);
            GFLI_OUTER_ROW(0);
            GFLI_OUTER_ROW(1);
            GFLI_OUTER_ROW(2);
            GFLI_OUTER_ROW(3);
            GFLI_OUTER_ROW(4);
            GFLI_OUTER_ROW(5);
        }
        gfli_outer_store_neon(t, 0, col, s00, s01);
        gfli_outer_store_neon(t, 1, col, s10, s11);
        gfli_outer_store_neon(t, 2, col, s20, s21);
        gfli_outer_store_neon(t, 3, col, s30, s31);
        gfli_outer_store_neon(t, 4, col, s40, s41);
        gfli_outer_store_neon(t, 5, col, s50, s51);
    }
}

#    undef GFLI_OUTER_ROW

static bool gfli_has_neon(void) {
    return true;
}

const gfli_kernels gfli_neon = {
    "neon",
    "NEON",
    gfli_has_neon,
    1,
    gfli_tile_neon,
    gfli_sampling_portable,
    gfli_outer_neon,
    gfli_scatter_portable,
    gfli_qfl_negative_portable,
};

#endif
