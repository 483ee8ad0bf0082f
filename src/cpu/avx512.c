/* avx512.c - kernels for x86-64 with AVX-512 */
#pragma once

#if GFLI_X86_KERNELS

/* The first n of sixteen elements, or all where there are more. */
static inline __mmask16 gfli_first_avx512(int n) {
    return (__mmask16)(n < 16 ? (1u << n) - 1u : 0xffffu);
}

GFLI_AVX512 static inline void gfli_tile_store_avx512(const gfli_tile *t, int row, int col,
                                                      __m512 v) {
    if (row >= t->m || col >= t->n) return;
    const int left = t->n - col;
    const __mmask16 mask = gfli_first_avx512(left);
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
        gfli_tile_store_avx512(t, i, 0, s##i##0);                                                  \
        if (panels > 1) gfli_tile_store_avx512(t, i, GFLI_NR, s##i##1)

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
            const __mmask16 m = gfli_first_avx512(left);
            __m512 v = _mm512_mul_ps(w0, _mm512_maskz_loadu_ps(m, c[0] + i));
            v = _mm512_fmadd_ps(w1, _mm512_maskz_loadu_ps(m, c[1] + i), v);
            v = _mm512_fmadd_ps(w2, _mm512_maskz_loadu_ps(m, c[2] + i), v);
            v = _mm512_fmadd_ps(w3, _mm512_maskz_loadu_ps(m, c[3] + i), v);
            _mm512_mask_storeu_ps(out + i, m, v);
        }
    }
}

GFLI_AVX512 static inline void gfli_outer_store_avx512(const gfli_outer *t, int row, int col,
                                                       __m512 v) {
    if (row >= t->m || col >= t->n) return;
    const int left = t->n - col;
    const __mmask16 mask = gfli_first_avx512(left);
    float *c = t->c + (size_t)row * t->stride + col;
    if (!t->first) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, c));
    _mm512_mask_storeu_ps(c, mask, v);
}

#    define GFLI_OUTER_ROW(i)                                                                      \
        v = _mm512_set1_ps(a[i]);                                                                  \
        s##i##0 = _mm512_fmadd_ps(v, b0, s##i##0);                                                 \
        if (panels > 1) s##i##1 = _mm512_fmadd_ps(v, b1, s##i##1)

#    define GFLI_STORE_ROW(i)                                                                      \
        gfli_outer_store_avx512(t, i, 0, s##i##0);                                                 \
        if (panels > 1) gfli_outer_store_avx512(t, i, GFLI_NR, s##i##1)

/* panels is a constant where this is called: 1 or 2. */
GFLI_AVX512 static inline __attribute__((__always_inline__)) void
gfli_outer_panels_avx512(const gfli_outer *t, const int panels) {
    __m512 s00 = _mm512_setzero_ps(), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
    __m512 s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
    const float *a = t->a, *b = t->b;
    const ptrdiff_t width = t->width;
    gfli_outer_prefetch(t);
    for (int k = 0; k < t->len; k++, a += GFLI_MR, b += width) {
        __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + (panels - 1) * GFLI_NR), v;
        GFLI_OUTER_ROW(0);
        GFLI_OUTER_ROW(1);
        GFLI_OUTER_ROW(2);
        GFLI_OUTER_ROW(3);
        GFLI_OUTER_ROW(4);
        GFLI_OUTER_ROW(5);
    }
    GFLI_STORE_ROW(0);
    GFLI_STORE_ROW(1);
    GFLI_STORE_ROW(2);
    GFLI_STORE_ROW(3);
    GFLI_STORE_ROW(4);
    GFLI_STORE_ROW(5);
}

GFLI_AVX512 static void gfli_outer_avx512(const gfli_outer *t) {
    if (t->n > GFLI_NR) {
        gfli_outer_panels_avx512(t, 2);
    } else {
        gfli_outer_panels_avx512(t, 1);
    }
}

#    undef GFLI_OUTER_ROW
#    undef GFLI_STORE_ROW

/* The sum of both halves. */
GFLI_AVX512 static inline __m256 gfli_halves_avx512(__m512 v) {
    /* maskz: g++ takes the plain forms for unset */
    const __m512d d = _mm512_castps_pd(v);
    return _mm256_add_ps(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, d, 0)),
                         _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, d, 1)));
}

/* The sums of the elements of four vectors. */
GFLI_AVX512 static inline __m128 gfli_sum4_avx512(const __m512 d[4]) {
    const __m256 ab = _mm256_hadd_ps(gfli_halves_avx512(d[0]), gfli_halves_avx512(d[1]));
    const __m256 cd = _mm256_hadd_ps(gfli_halves_avx512(d[2]), gfli_halves_avx512(d[3]));
    const __m256 v = _mm256_hadd_ps(ab, cd);
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

GFLI_AVX512 static void gfli_scatter_avx512(const gfli_scatter *t) {
    const int n0 = gfli_min(t->n, 16), n1 = t->n - n0;
    const __mmask16 m0 = gfli_first_avx512(n0);
    const __mmask16 m1 = gfli_first_avx512(n1);
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
        _mm_storeu_ps(dot, gfli_sum4_avx512(d));
        gfli_scatter_sums(t, p, weight, dot, t->sums + (ptrdiff_t)r * t->values);
    }
}

GFLI_AVX512 static void gfli_qfl_negative_avx512(const float *z, int n, float scale, float *loss,
                                                 float *dz) {
    gfli_qfl_negatives(z, n, scale, loss, dz);
}

static bool gfli_has_avx512(void) {
    return gfli_avx2.available() && __builtin_cpu_supports("avx512f");
}

const gfli_kernels gfli_avx512 = {
    "avx512",
    "AVX-512",
    gfli_has_avx512,
    2,
    gfli_tile_avx512,
    gfli_sampling_avx512,
    gfli_outer_avx512,
    gfli_scatter_avx512,
    gfli_qfl_negative_avx512,
};

#endif
