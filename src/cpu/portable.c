/* portable.c - kernels in plain C */
#pragma once

void gfli_store_tile_row(const gfli_tile *t, int row, int col, const float *sum, int n) {
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
            gfli_store_tile_row(t, r, col, sum[r], gfli_min(8, t->n - col));
        }
    }
}

void gfli_sampling_portable(const gfli_sampling *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        float *out = t->out + r * t->stride;
        const float *c[4];
        float w[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, c, w);
        for (int i = 0; i < 4; i++) w[i] *= p->mask;
        for (int i = 0; i < t->n; i++)
            out[i] = gfli_corner_sum(w, c[0][i], c[1][i], c[2][i], c[3][i]);
    }
}

void gfli_store_outer_row(const gfli_outer *t, int row, int col, const float *sum, int n) {
    float *c = t->c + (size_t)row * t->stride + col;
    for (int j = 0; j < n; j++) c[j] = t->first ? sum[j] : c[j] + sum[j];
}

static void gfli_outer_portable(const gfli_outer *t) {
    for (int col = 0; col < t->n; col += 8) {
        float sum[GFLI_MR][8] = {{0.0f}};
        const float *a = t->a, *b = t->b + col;
        for (int k = 0; k < t->len; k++, a += GFLI_MR, b += t->width) {
            for (int r = 0; r < GFLI_MR; r++) {
                for (int j = 0; j < 8; j++) sum[r][j] += a[r] * b[j];
            }
        }
        for (int r = 0; r < t->m; r++) {
            gfli_store_outer_row(t, r, col, sum[r], gfli_min(8, t->n - col));
        }
    }
}

void gfli_scatter_portable(const gfli_scatter *t) {
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

void gfli_qfl_negative_portable(const float *z, int n, float scale, float *loss, float *dz) {
    gfli_qfl_negatives(z, n, scale, loss, dz);
}

static bool gfli_has_portable(void) {
    return true;
}

const gfli_kernels gfli_portable = {
    "portable",
    "plain C",
    gfli_has_portable,
    1,
    gfli_tile_portable,
    gfli_sampling_portable,
    gfli_outer_portable,
    gfli_scatter_portable,
    gfli_qfl_negative_portable,
};
