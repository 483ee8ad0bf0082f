/* image.c - OpenCV's bilinear resize, normalisation and padding */
#pragma once

/* Rows of the horizontal pass keep 4 bits less than it gives, as OpenCV does on the way to the
 * vertical pass. */
enum { GFLI_RESIZE_ROWS = 16 };

/* One destination column: byte offsets of its two source pixels and their weights. */
typedef struct gfli_column {
    int from, next;
    uint16_t weight, next_weight;
} gfli_column;

static void gfli_fill_columns(gfli_column *columns, int in, int out, int bytes) {
    for (int x = 0; x < out; x++) {
        const gfli_tap t = gfli_column_tap(x, in, out);
        columns[x].from = t.at * bytes;
        columns[x].next = gfli_min(t.at + 1, in - 1) * bytes;
        columns[x].weight = (uint16_t)gfli_tap_weight(1.0f - t.fraction);
        columns[x].next_weight = (uint16_t)gfli_tap_weight(t.fraction);
    }
}

typedef struct gfli_resize_task {
    const gfl_image *image;
    ptrdiff_t stride;
    int channel[3]; /* where red, green and blue (or blue .. red) are in a pixel */
    int out_w, out_h;
    uint8_t *out;
    const gfli_column *columns;
    uint16_t *rows; /* two of the horizontal pass for each slot */
    size_t row_size;
} gfli_resize_task;

static void gfli_resize_across(const gfli_resize_task *t, int row, uint16_t *GFLI_RESTRICT out) {
    const uint8_t *source = t->image->pixels + (ptrdiff_t)row * t->stride;
    const uint8_t *s0 = source + t->channel[0], *s1 = source + t->channel[1];
    const uint8_t *s2 = source + t->channel[2];
    for (int x = 0; x < t->out_w; x++, out += 3) {
        const gfli_column c = t->columns[x];
        const int a = c.weight, b = c.next_weight;
        out[0] = gfli_blend_across(s0[c.from], s0[c.next], a, b);
        out[1] = gfli_blend_across(s1[c.from], s1[c.next], a, b);
        out[2] = gfli_blend_across(s2[c.from], s2[c.next], a, b);
    }
}

static void gfli_resize_down(const uint16_t *GFLI_RESTRICT upper,
                             const uint16_t *GFLI_RESTRICT lower, int a, int b, int n,
                             uint8_t *GFLI_RESTRICT out) {
    const int16_t wa = (int16_t)a, wb = (int16_t)b;
    for (int i = 0; i < n; i++) out[i] = gfli_blend_down(upper[i], lower[i], wa, wb);
}

static void gfli_resize_rows(void *arg, int task, int slot) {
    const gfli_resize_task *t = (const gfli_resize_task *)arg;
    const int first = task * GFLI_RESIZE_ROWS, n = t->out_w * 3;
    const int end = gfli_min(t->out_h, first + GFLI_RESIZE_ROWS), last = t->image->height - 1;
    uint16_t *upper = t->rows + (size_t)slot * 2 * t->row_size, *lower = upper + t->row_size;
    int upper_is = -1, lower_is = -1;
    for (int y = first; y < end; y++) {
        const gfli_tap tap = gfli_tap_of(y, t->image->height, t->out_h);
        const int y0 = gfli_clamp(tap.at, 0, last);
        const int y1 = gfli_clamp(tap.at + 1, 0, last);
        if (upper_is != y0 && lower_is == y0) {
            uint16_t *swapped = upper;
            upper = lower;
            lower = swapped;
            lower_is = upper_is;
            upper_is = y0;
        }
        if (upper_is != y0) gfli_resize_across(t, y0, upper);
        if (lower_is != y1) gfli_resize_across(t, y1, lower);
        upper_is = y0;
        lower_is = y1;
        gfli_resize_down(upper, lower, gfli_tap_weight(1.0f - tap.fraction),
                         gfli_tap_weight(tap.fraction), n, t->out + (size_t)y * (size_t)n);
    }
}

/* Rounded up so that slots do not share cache lines. */
static size_t gfli_resize_row_size(int out_w) {
    return ((size_t)out_w * 3 + 63) / 32 * 32;
}

static size_t gfli_resize_columns_size(int out_w) {
    return ((size_t)out_w * sizeof(gfli_column) + 63) / 64 * 64;
}

static size_t gfli_resize_scratch_cpu(const gfl_context *context, int in_w, int in_h, int out_w,
                                      int out_h) {
    const size_t rows = 2 * (size_t)gfli_max(context->n_threads, 1);
    (void)in_w;
    (void)in_h;
    (void)out_h;
    return gfli_resize_columns_size(out_w) + rows * gfli_resize_row_size(out_w) * sizeof(uint16_t);
}

static void gfli_resize_cpu(gfl_context *context, const gfl_image *image, bool on_device, bool bgr,
                            int out_w, int out_h, uint8_t *out, void *scratch) {
    gfli_column *columns = (gfli_column *)scratch;
    gfli_resize_task t;
    (void)on_device;
    gfli_fill_columns(columns, image->width, out_w, gfli_pixel_bytes(image->format));
    t.image = image;
    t.stride = gfli_pixel_pitch(image);
    gfli_pixel_channels(image->format, bgr, t.channel);
    t.out_w = out_w;
    t.out_h = out_h;
    t.out = out;
    t.columns = columns;
    t.rows = (uint16_t *)(void *)((uint8_t *)scratch + gfli_resize_columns_size(out_w));
    t.row_size = gfli_resize_row_size(out_w);
    gfli_parallel_for(context, gfli_ceil_div(out_h, GFLI_RESIZE_ROWS), gfli_resize_rows, &t);
}

/* ---- normalisation --------------------------------------------------------------------------- */

typedef struct gfli_normalise_task {
    const uint8_t *pixels;
    int w, h;
    bool flip;
    float value[3][256];
    const gfli_map *y;
    int index;
} gfli_normalise_task;

static void gfli_normalise_row(void *arg, int row, int slot) {
    const gfli_normalise_task *t = (const gfli_normalise_task *)arg;
    const size_t c = (size_t)t->y->c, width = (size_t)t->y->w[0];
    float *out = t->y->data + ((size_t)t->index * (size_t)t->y->h[0] + (size_t)row) * width * c;
    const int filled = row < t->h ? t->w : 0;
    const uint8_t *in = t->pixels + (size_t)row * (size_t)t->w * 3;
    (void)slot;
    memset(out + (size_t)filled * c, 0, (width - (size_t)filled) * c * sizeof(float));
    for (int x = 0; x < filled; x++, out += c) {
        const uint8_t *rgb = in + 3 * (t->flip ? filled - 1 - x : x);
        out[0] = t->value[0][rgb[0]];
        out[1] = t->value[1][rgb[1]];
        out[2] = t->value[2][rgb[2]];
        for (size_t k = 3; k < c; k++) out[k] = 0.0f;
    }
}

static void gfli_normalise_cpu(gfl_context *context, const uint8_t *pixels, int w, int h,
                               const float mean[3], const float std[3], bool flip,
                               const gfli_map *y, int index) {
    gfli_normalise_task t;
    t.pixels = pixels;
    t.w = w;
    t.h = h;
    t.flip = flip;
    t.y = y;
    t.index = index;
    for (int k = 0; k < 3; k++) {
        for (int v = 0; v < 256; v++) t.value[k][v] = gfli_normalised((uint8_t)v, mean[k], std[k]);
    }
    gfli_parallel_for(context, y->h[0], gfli_normalise_row, &t);
}
