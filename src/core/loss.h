/* loss.h - the losses of single logits and boxes, and their gradients (spec 5) */
#pragma once

/* Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, sections 3.1 to 3.3.
 * Positives are few, so that double is cheap for them; a NaN among the logits shows. */

/* What sums of losses are multiplied with, and the terms of their gradients. */
typedef struct gfli_loss_scales {
    double cls, bbox, dfl;
} gfli_loss_scales;

/* The normalisers of a batch with their clamps (spec 5.4). */
GFLI_HD static inline gfli_loss_scales gfli_loss_scales_of(const gfli_losses *sums,
                                                           const gfli_loss_opts *opts) {
    gfli_loss_scales s;
    double weight_sum = opts->share * sums->weight_sum;
    /* A NaN among the weights has to show in the losses, hence no fmax. */
    if (weight_sum < opts->min_weight_sum) weight_sum = opts->min_weight_sum;
    /* Without weights the losses are 0, not 0 / 0. */
    if (weight_sum < (double)FLT_MIN) weight_sum = INFINITY;
    s.cls = 1 / ((fmax)(opts->share * sums->avg_pos, 1.0) + opts->mean_eps);
    s.bbox = 2 / (1 + opts->mean_eps) / weight_sum;
    s.dfl = 0.25 / (4 + opts->mean_eps) / weight_sum;
    return s;
}

/* ---- quality focal loss (spec 5.2) ----------------------------------------------------------- */

GFLI_HD static inline double gfli_exact_sigmoid(double z) {
    return z < 0 ? (exp)(z) / (1 + (exp)(z)) : 1 / (1 + (exp)(-z));
}

/* A logit v without a target: sigmoid(v)^2 * softplus(v), and scale times its derivative.  Straight
 * arithmetic in place of expf and log1pf, and masks in place of branches, so that compilers turn a
 * loop of it into vector code: there are 80 logits at each of 22,400 positions.  Good to a few
 * units in the last place; a NaN stays one. */
GFLI_HD static inline float gfli_qfl_negative(float v, float scale, float *dv) {
    const float magnitude = fabsf(v);
    /* x = min(|z|, 87): magnitudes are ordered as their bits are */
    int32_t x_bits;
    float x;
    memcpy(&x_bits, &magnitude, sizeof x_bits);
    x_bits = x_bits < 0x42ae0000 ? x_bits : 0x42ae0000;
    memcpy(&x, &x_bits, sizeof x);
    /* e = exp(-x) = 2^k exp(r), k from adding 1.5 * 2^23 and taking it away */
    const float biased = x * -1.44269504f + 12582912.0f, k = biased - 12582912.0f;
    const float r = (k * -0.693359375f - x) + k * 2.12194440e-4f;
    float p = 1.98756915e-4f;
    p = p * r + 1.39819994e-3f;
    p = p * r + 8.33345205e-3f;
    p = p * r + 4.16657962e-2f;
    p = p * r + 1.66666651e-1f;
    p = p * r + 5.00000012e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits, sign, e_bits;
    float power, one_or_e;
    memcpy(&bits, &biased, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&power, &bits, sizeof power);
    const float e = p * power;
    /* log(1 + e) = 2 artanh(t), t = e / (2 + e) <= 1/3 */
    const float t = e / (2.0f + e), t2 = t * t;
    float q = 1.0f / 15.0f;
    q = q * t2 + 1.0f / 13.0f;
    q = q * t2 + 1.0f / 11.0f;
    q = q * t2 + 1.0f / 9.0f;
    q = q * t2 + 1.0f / 7.0f;
    q = q * t2 + 1.0f / 5.0f;
    q = q * t2 + 1.0f / 3.0f;
    q = (q * t2 + 1.0f) * (t + t);
    /* sigmoid: e / (1 + e) below zero, 1 / (1 + e) above */
    memcpy(&sign, &v, sizeof sign);
    memcpy(&e_bits, &e, sizeof e_bits);
    sign = 0u - (sign >> 31);
    bits = (e_bits & sign) | (0x3f800000u & ~sign);
    memcpy(&one_or_e, &bits, sizeof one_or_e);
    const float both = 1.0f / (1.0f + e), s = one_or_e * both;
    const float rest = (1.0f + e - one_or_e) * both;
    const float softplus = 0.5f * (v + magnitude) + q;
    *dv = scale * (s * s) * (s + 2.0f * rest * softplus);
    return s * s * softplus;
}

/* The logit of a positive's own class, target y. */
GFLI_HD static inline double gfli_qfl_positive(double z, double y, double *dz) {
    const double s = gfli_exact_sigmoid(z), d = s - y;
    const double bce = (z > 0 ? z : 0) - z * y + (log1p)((exp)(-(fabs)(z)));
    *dz = (fabs)(d) * (fabs)(d)*d + 2 * d * s * (1 - s) * bce;
    return d * d * bce;
}

/* Weight of a positive's box losses: its best class score. */
GFLI_HD static inline double gfli_loss_weight(const float *z, int n_classes) {
    float best = z[0];
    for (int k = 1; k < n_classes; k++)
        if (!(z[k] <= best)) best = z[k];
    return gfli_exact_sigmoid((double)best);
}

/* ---- GIoU loss (spec 5.3) -------------------------------------------------------------------- */

/* Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, arXiv:1902.09630 */

/* Half of a tie goes to each argument of a minimum or maximum (as PyTorch does). */
GFLI_HD static inline double gfli_share(double mine, double other) {
    return mine > other ? 1 : mine < other ? 0 : 0.5;
}

/* An area that is divided by, and its derivative with respect to that area. */
GFLI_HD static inline double gfli_guarded(double area, double eps, bool add, double *slope) {
    *slope = add ? 1 : gfli_share(area, eps);
    return add ? area + eps : (fmax)(area, eps);
}

/* IoU of b with the target g, 1 - GIoU, and the derivative of that with respect to b. */
GFLI_HD static inline double gfli_giou(const gfli_loss_opts *opts, const double b[4],
                                       const double g[4], double *loss, double db[4]) {
    const double eps = 1e-6, one = opts->inclusive;
    const double w = (fmin)(b[2], g[2]) - (fmax)(b[0], g[0]) + one;
    const double h = (fmin)(b[3], g[3]) - (fmax)(b[1], g[1]) + one;
    const double iw = w > 0 ? w : 0, ih = h > 0 ? h : 0, inter = iw * ih;
    const double bw = b[2] - b[0] + one, bh = b[3] - b[1] + one;
    const double raw_u = bw * bh + (g[2] - g[0] + one) * (g[3] - g[1] + one) - inter;
    const double outer_w = (fmax)(b[2], g[2]) - (fmin)(b[0], g[0]) + one;
    const double outer_h = (fmax)(b[3], g[3]) - (fmin)(b[1], g[1]) + one;
    const double ew = outer_w > 0 ? outer_w : 0, eh = outer_h > 0 ? outer_h : 0;
    double u_share, e_share, ignored;
    const double u = gfli_guarded(raw_u, eps, opts->add_eps, &u_share);
    const double e = gfli_guarded(ew * eh, eps, opts->add_eps, &e_share);
    const double iw_on = w >= 0 ? ih : 0, ih_on = h >= 0 ? iw : 0;
    const double ew_on = outer_w >= 0 ? eh : 0, eh_on = outer_h >= 0 ? ew : 0;
    const double di[4] = {-gfli_share(b[0], g[0]) * iw_on, -gfli_share(b[1], g[1]) * ih_on,
                          gfli_share(g[2], b[2]) * iw_on, gfli_share(g[3], b[3]) * ih_on};
    const double da[4] = {-bh, -bw, bh, bw};
    const double de[4] = {-gfli_share(g[0], b[0]) * ew_on, -gfli_share(g[1], b[1]) * eh_on,
                          gfli_share(b[2], g[2]) * ew_on, gfli_share(b[3], g[3]) * eh_on};
    for (int k = 0; k < 4; k++)
        db[k] = -di[k] / u + (inter / (u * u) - 1 / e) * u_share * (da[k] - di[k]) +
                u / (e * e) * e_share * de[k];
    *loss = 2 - inter / u - u / e;
    return inter / gfli_guarded(raw_u, opts->quality_eps, opts->add_eps, &ignored);
}

/* ---- distributions (spec 5.3) ---------------------------------------------------------------- */

/* p = softmax(x); returns the expected bin, and log(sum(exp(x))) in *lse. */
GFLI_HD static inline double gfli_bins(const float *x, int n, double *p, double *lse) {
    double top = (double)x[0], sum = 0, mean = 0;
    for (int k = 1; k < n; k++)
        if (!((double)x[k] <= top)) top = (double)x[k];
    for (int k = 0; k < n; k++) sum += p[k] = (exp)((double)x[k] - top);
    for (int k = 0; k < n; k++) mean += k * (p[k] /= sum);
    *lse = top + (log)(sum);
    return mean;
}

/* The distance to a side in units of the stride, as a target of a distribution. */
GFLI_HD static inline double gfli_dfl_target(double distance, int n_bins) {
    return (fmin)((fmax)(distance, 0.0), n_bins - 1 - 0.1);
}

/* lse: log(sum(exp(x))). */
GFLI_HD static inline double gfli_dfl(const float *x, double lse, double target) {
    const int low = (int)target;
    const double high_part = target - low, low_part = 1 - high_part;
    return low_part * (lse - (double)x[low]) + high_part * (lse - (double)x[low + 1]);
}

/* What the target asks of bin k; softmax minus that is the loss's derivative. */
GFLI_HD static inline double gfli_dfl_share(double target, int k) {
    const int low = (int)target;
    const double high_part = target - low;
    return k == low ? 1 - high_part : k == low + 1 ? high_part : 0;
}

/* ---- a positive ------------------------------------------------------------------------------ */

/* A cell of a level, what the network says of its box, and the box that it is assigned. */
typedef struct gfli_positive {
    int x, y, stride;
    const float *reg;   /* [4][n_bins] logits */
    const float *truth; /* x1 y1 x2 y2 in pixels */
    double weight;
} gfli_positive;

/* Adds its losses, not yet scaled, to the sums, and writes their gradient dreg [4][n_bins].
 * Returns the quality: the predicted box's IoU with the target.
 *
 *     distances d   the mean bins of the sides' distributions        (units of the stride)
 *     box b         cell - d, cell + d;  g: the truth                 -> GIoU, dloss/db
 *     dloss/dd      -dloss/db of the left and upper side, else dloss/db
 *     dloss/dreg    dloss/dd p_k (k - d), of the mean bin; plus what DFL says */
GFLI_HD static inline double gfli_box_losses(const gfli_loss_opts *opts,
                                             const gfli_loss_scales *scales,
                                             const gfli_positive *at, double *bbox, double *dfl,
                                             float *dreg) {
    const int n = opts->n_bins;
    const double stride = at->stride, middle = opts->inclusive * (stride - 1) / 2 / stride;
    double p[4][GFL_MAX_BINS], d[4], lse[4], b[4], g[4], target[4], db[4], giou;
    for (int s = 0; s < 4; s++) {
        const double cell = (s % 2 ? at->y : at->x) + middle;
        d[s] = gfli_bins(at->reg + s * n, n, p[s], &lse[s]);
        g[s] = (double)at->truth[s] / stride;
        b[s] = s < 2 ? cell - d[s] : cell + d[s];
        target[s] = gfli_dfl_target(s < 2 ? cell - g[s] : g[s] - cell, n);
    }
    const double quality = gfli_giou(opts, b, g, &giou, db);
    *bbox += at->weight * giou;
    for (int s = 0; s < 4; s++) {
        const double dd = at->weight * scales->bbox * (s < 2 ? -db[s] : db[s]);
        const double df = at->weight * scales->dfl;
        *dfl += at->weight * gfli_dfl(at->reg + s * n, lse[s], target[s]);
        for (int k = 0; k < n; k++)
            dreg[s * n + k] =
                (float)(dd * p[s][k] * (k - d[s]) + df * (p[s][k] - gfli_dfl_share(target[s], k)));
    }
    return quality;
}
