/* sample.h - which values of a picture or a map one of another size, or off its grid, is made of */
#pragma once

/* ---- pictures -------------------------------------------------------------------------------- */

enum { GFLI_FORMATS = 5 };

static inline int gfli_pixel_bytes(gfl_format format) {
    static const int bytes[GFLI_FORMATS] = {3, 3, 4, 4, 1};
    return bytes[(int)format];
}

/* Bytes from a row of a picture to the next. */
static inline ptrdiff_t gfli_pixel_pitch(const gfl_image *image) {
    return image->stride ? image->stride
                         : (ptrdiff_t)image->width * gfli_pixel_bytes(image->format);
}

/* Where red, green and blue, or blue, green and red, are in a pixel. */
static inline void gfli_pixel_channels(gfl_format format, bool bgr, int channel[3]) {
    const bool stored_bgr = format == GFL_FORMAT_BGR || format == GFL_FORMAT_BGRA;
    for (int k = 0; k < 3; k++)
        channel[k] = format == GFL_FORMAT_GREY ? 0 : (stored_bgr == bgr ? k : 2 - k);
}

/* ---- resizing (spec 7.2) --------------------------------------------------------------------- */

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

/* A value between two of a row, which OpenCV keeps in 16 bits, and one between two rows of those.
 * Weights add up to GFLI_RESIZE_ONE, so that all factors below fit 15 bits: compilers may use the
 * high half of 16-bit products. */
GFLI_HD static inline uint16_t gfli_blend_across(int first, int second, int weight, int rest) {
    return (uint16_t)((first * weight + second * rest) >> 4);
}

GFLI_HD static inline uint8_t gfli_blend_down(uint16_t upper, uint16_t lower, int16_t weight,
                                              int16_t rest) {
    const int high = ((int16_t)upper * weight) >> 16, low = ((int16_t)lower * rest) >> 16;
    const int v = (high + low + 2) >> 2;
    return (uint8_t)(v > 255 ? 255 : v);
}

/* What the network gets of a value of a pixel (spec 7.4). */
GFLI_HD static inline float gfli_normalised(uint8_t value, float mean, float std) {
    return ((float)value - mean) / std;
}

/* ---- upsampling (spec 2) --------------------------------------------------------------------- */

/* The source of a destination in upsampling; float32 as in PyTorch, whose choice it repeats. */
GFLI_HD static inline int gfli_nearest(int at, int in, int out) {
    const float scale = (float)in / (float)out;
    const int from = (int)((float)at * scale);
    return from < in - 1 ? from : in - 1;
}

/* ---- deformable convolution (spec 1.5) ------------------------------------------------------- */

/* A point between four positions of a map: top left, top right, bottom left, bottom right. */
typedef struct gfli_between {
    int top, left;     /* of the first one; it may be off the map */
    int corners;       /* bit k: corner k is on the map; 0: the point counts as 0 */
    float down, right; /* of the point from the first corner, 0 to 1 */
} gfli_between;

/* It counts when -1 < coordinate < size on both axes, which no NaN is. */
GFLI_HD static inline gfli_between gfli_between_at(int h, int w, float y, float x) {
    gfli_between p = {0, 0, 0, 0.0f, 0.0f};
    if (!(y > -1.0f && x > -1.0f && y < (float)h && x < (float)w)) return p;
    p.top = gfli_whole_below(y);
    p.left = gfli_whole_below(x);
    const int above = p.top >= 0 ? 3 : 0, below = p.top + 1 < h ? 12 : 0;
    const int before = p.left >= 0 ? 5 : 0, after = p.left + 1 < w ? 10 : 0;
    p.corners = (above | below) & (before | after);
    p.down = y - (float)p.top;
    p.right = x - (float)p.left;
    return p;
}

/* What the corners count for, those off the map too. */
GFLI_HD static inline void gfli_corner_weights(float down, float right, float weight[4]) {
    weight[0] = (1.0f - down) * (1.0f - right);
    weight[1] = (1.0f - down) * right;
    weight[2] = down * (1.0f - right);
    weight[3] = down * right;
}

/* The value of a point whose corners have these. */
GFLI_HD static inline float gfli_corner_sum(const float weight[4], float a, float b, float c,
                                            float d) {
    return weight[0] * a + weight[1] * b + weight[2] * c + weight[3] * d;
}

/* Its derivatives downwards and to the right; at a position itself, the right-sided ones. */
GFLI_HD static inline void gfli_corner_slopes(float down, float right, const float corner[4],
                                              float *downwards, float *rightwards) {
    const float up = 1.0f - down, left = 1.0f - right;
    *downwards = left * (corner[2] - corner[0]) + right * (corner[3] - corner[1]);
    *rightwards = up * (corner[1] - corner[0]) + down * (corner[3] - corner[2]);
}
