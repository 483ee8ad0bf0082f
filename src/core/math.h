/* math.h - formulas of numbers that the CPU and the GPU share */
#pragma once

/* By the bits of the exponent, and those read from memory: under a host's -ffast-math compilers
 * take it that values they compute, and arguments, are never NaN or infinite, whatever is asked of
 * them. */
GFLI_HD static inline bool gfli_is_finite(double x) {
    const volatile double stored = x;
    const double loaded = stored;
    uint64_t bits;
    memcpy(&bits, &loaded, sizeof bits);
    return (bits >> 52 & 0x7FF) != 0x7FF;
}

GFLI_HD static inline bool gfli_all_finite(const float *x, size_t n) {
    bool good = true;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        good = good && (bits >> 23 & 0xFF) != 0xFF;
    }
    return good;
}

/* The largest whole number that is not above v; v is within the range of ints. */
GFLI_HD static inline int gfli_whole_below(float v) {
    const int whole = (int)v;
    return (float)whole > v ? whole - 1 : whole;
}

/* The value as rounded to float32: compilers may fuse a product into the sum that takes it, and
 * whether two boxes overlap by just 0.6 must not depend on that. */
GFLI_HD static inline float gfli_rounded(float value) {
    volatile float stored = value;
    return stored;
}

GFLI_HD static inline float gfli_sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

/* A batch norm of running statistics as the scale and the bias of the convolution before it. */
GFLI_HD static inline void gfli_fold_channel(float gamma, float beta, float mean, float var,
                                             float eps, float *scale, float *bias) {
    const double a = (double)gamma / (sqrt)((double)var + (double)eps);
    *scale = (float)a;
    *bias = (float)((double)beta - a * (double)mean);
}

/* How many values there are so far, their mean and the sum of squares around it. */
typedef struct gfli_moments {
    double n, mean, squares;
} gfli_moments;

/* Those of more values; n is not 0. */
GFLI_HD static inline void gfli_merge_moments(gfli_moments *a, double n, double mean,
                                              double squares) {
    const double total = a->n + n, d = mean - a->mean;
    a->mean += d * n / total;
    a->squares += squares + d * d * a->n * n / total;
    a->n = total;
}

/* A group's statistics: mean and 1 / deviation. */
GFLI_HD static inline void gfli_finish_moments(const gfli_moments *m, float eps, float stats[2]) {
    stats[0] = (float)m->mean;
    stats[1] = (float)(1.0 / (sqrt)(m->squares / m->n + (double)eps));
}

/* The sum of k * p[k], p = softmax of the logits.  p [n_bins] is written, or NULL. */
GFLI_HD static inline float gfli_integral(const float *logits, int n_bins, float *p) {
    float largest = logits[0], sum = 0.0f, mean = 0.0f;
    for (int k = 1; k < n_bins; k++) largest = logits[k] > largest ? logits[k] : largest;
    for (int k = 0; k < n_bins; k++) {
        const float e = expf(logits[k] - largest);
        if (p) p[k] = e;
        sum += e;
    }
    for (int k = 0; k < n_bins; k++) {
        const float share = (p ? p[k] : expf(logits[k] - largest)) / sum;
        if (p) p[k] = share;
        mean += (float)k * share;
    }
    return mean;
}
