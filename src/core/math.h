/* math.h - formulas of single values that the CPU and the GPU share */
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

/* Weights of the resize are in units of 1 / GFLI_RESIZE_ONE. */
enum { GFLI_RESIZE_ONE = 2048 };

/* A destination lies between the sources at and at + 1: a fraction of the way to the second. */
typedef struct gfli_tap {
    int at;
    float fraction;
} gfli_tap;

GFLI_HD static inline gfli_tap gfli_tap_of(int to, int in, int out) {
    const double scale = 1.0 / ((double)out / (double)in);
    /* volatile: fused into the subtraction, the product would not be rounded as OpenCV's is. */
    volatile double product = ((double)to + 0.5) * scale;
    const float f = (float)(product - 0.5);
    gfli_tap t;
    t.at = (int)floorf(f);
    t.fraction = f - (float)t.at;
    return t;
}

/* The tap of a column, where OpenCV drops the fraction beyond the border. */
GFLI_HD static inline gfli_tap gfli_column_tap(int to, int in, int out) {
    gfli_tap t = gfli_tap_of(to, in, out);
    if (t.at < 0) {
        t.at = 0;
        t.fraction = 0.0f;
    }
    if (t.at >= in - 1) {
        t.at = in - 1;
        t.fraction = 0.0f;
    }
    return t;
}

/* fraction * 2048 to the nearest integer, halves to the even one, in any rounding mode. */
GFLI_HD static inline int gfli_tap_weight(float fraction) {
    const float v = fraction * (float)GFLI_RESIZE_ONE;
    const int below = (int)v;
    const float rest = v - (float)below;
    return below + (rest > 0.5f || (rest == 0.5f && (below & 1)));
}

/* The largest whole number that is not above v; v is within the range of ints. */
GFLI_HD static inline int gfli_whole_below(float v) {
    const int whole = (int)v;
    return (float)whole > v ? whole - 1 : whole;
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

/* The source of a destination in upsampling; float32 as in PyTorch, whose choice it repeats. */
GFLI_HD static inline int gfli_nearest(int at, int in, int out) {
    const float scale = (float)in / (float)out;
    const int from = (int)((float)at * scale);
    return from < in - 1 ? from : in - 1;
}
