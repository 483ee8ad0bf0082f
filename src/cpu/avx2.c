/* avx2.c - kernels for x86-64 with AVX2 and FMA */
#pragma once

#if GFLI_X86_KERNELS

GFLI_AVX2 static inline void gfli_tile_store_avx2(const gfli_tile *t, int row, __m256 v0,
                                                  __m256 v1) {
    if (row >= t->m) return;
    if (t->n < GFLI_NR) {
        float sum[GFLI_NR];
        _mm256_storeu_ps(sum, v0);
        _mm256_storeu_ps(sum + 8, v1);
        gfli_store_tile_row(t, row, 0, sum, t->n);
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
    gfli_tile_store_avx2(t, 0, s00, s01);
    gfli_tile_store_avx2(t, 1, s10, s11);
    gfli_tile_store_avx2(t, 2, s20, s21);
    gfli_tile_store_avx2(t, 3, s30, s31);
    gfli_tile_store_avx2(t, 4, s40, s41);
    gfli_tile_store_avx2(t, 5, s50, s51);
}

#    undef GFLI_TILE_ROW

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
        for (; i < t->n; i++) out[i] = gfli_corner_sum(w, c[0][i], c[1][i], c[2][i], c[3][i]);
    }
}

GFLI_AVX2 static inline void gfli_outer_store_avx2(const gfli_outer *t, int row, int col, __m256 v0,
                                                   __m256 v1) {
    if (row >= t->m) return;
    if (t->n - col < GFLI_NR) {
        float sum[GFLI_NR];
        _mm256_storeu_ps(sum, v0);
        _mm256_storeu_ps(sum + 8, v1);
        gfli_store_outer_row(t, row, col, sum, t->n - col);
        return;
    }
    float *c = t->c + (size_t)row * t->stride + col;
    if (!t->first) {
        v0 = _mm256_add_ps(v0, _mm256_loadu_ps(c));
        v1 = _mm256_add_ps(v1, _mm256_loadu_ps(c + 8));
    }
    _mm256_storeu_ps(c, v0);
    _mm256_storeu_ps(c + 8, v1);
}

#    define GFLI_OUTER_ROW(i)                                                                      \
        v = _mm256_broadcast_ss(a + i);                                                            \
        s##i##0 = _mm256_fmadd_ps(v, b0, s##i##0);                                                 \
        s##i##1 = _mm256_fmadd_ps(v, b1, s##i##1)

GFLI_AVX2 static inline void gfli_outer_half_avx2(const gfli_outer *t, int col) {
    __m256 s00 = _mm256_setzero_ps(), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
    __m256 s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
    const float *a = t->a, *b = t->b + col;
    for (int k = 0; k < t->len; k++, a += GFLI_MR, b += t->width) {
        __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8), v;
        GFLI_OUTER_ROW(0);
        GFLI_OUTER_ROW(1);
        GFLI_OUTER_ROW(2);
        GFLI_OUTER_ROW(3);
        GFLI_OUTER_ROW(4);
        GFLI_OUTER_ROW(5);
    }
    gfli_outer_store_avx2(t, 0, col, s00, s01);
    gfli_outer_store_avx2(t, 1, col, s10, s11);
    gfli_outer_store_avx2(t, 2, col, s20, s21);
    gfli_outer_store_avx2(t, 3, col, s30, s31);
    gfli_outer_store_avx2(t, 4, col, s40, s41);
    gfli_outer_store_avx2(t, 5, col, s50, s51);
}

GFLI_AVX2 static void gfli_outer_avx2(const gfli_outer *t) {
    gfli_outer_prefetch(t);
    gfli_outer_half_avx2(t, 0);
    if (t->n > GFLI_NR) gfli_outer_half_avx2(t, GFLI_NR);
}

#    undef GFLI_OUTER_ROW

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

GFLI_AVX2 static void gfli_qfl_negative_avx2(const float *z, int n, float scale, float *loss,
                                             float *dz) {
    gfli_qfl_negatives(z, n, scale, loss, dz);
}

static bool gfli_has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const gfli_kernels gfli_avx2 = {
    "avx2",
    "AVX2",
    gfli_has_avx2,
    1,
    gfli_tile_avx2,
    gfli_sampling_avx2,
    gfli_outer_avx2,
    gfli_scatter_avx2,
    gfli_qfl_negative_avx2,
};

#endif
