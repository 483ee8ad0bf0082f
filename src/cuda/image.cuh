/* image.cuh - the CPU's resize, bit for bit, and normalisation */
#pragma once

/* As kernels see an image: `size` bytes a pixel, `pitch` from a row to the next, may be
 * negative. */
typedef struct gfli_source {
    const uint8_t *pixels;
    ptrdiff_t pitch;
    int w, h, size;
    int channel[3]; /* where red, green and blue (or blue .. red) are in a pixel */
} gfli_source;

static size_t gfli_resize_scratch_cuda(const gfl_context *context, int in_w, int in_h, int out_w,
                                       int out_h) {
    (void)context;
    (void)out_w;
    (void)out_h;
    return (size_t)in_w * (size_t)in_h * 4;
}

/* One value of the horizontal pass. */
static __device__ __forceinline__ uint16_t gfli_resize_across_one(const gfli_source *s, int row,
                                                             int from, int next, int a, int b,
                                                             int channel) {
    const uint8_t *p = s->pixels + (ptrdiff_t)row * s->pitch + channel;
    return gfli_blend_across(p[from * s->size], p[next * s->size], a, b);
}

static __global__ void gfli_resize_kernel(const GFLI_GRID_CONSTANT gfli_source s, int out_w,
                                          int out_h, uint8_t *out) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)out_w * (size_t)out_h) return;
    const int x = (int)(i % (size_t)out_w), y = (int)(i / (size_t)out_w);
    const gfli_tap across = gfli_column_tap(x, s.w, out_w), down = gfli_tap_of(y, s.h, out_h);
    const int next = gfli_min(across.at + 1, s.w - 1);
    const int a = gfli_tap_weight(1.0f - across.fraction), b = gfli_tap_weight(across.fraction);
    const int wa = gfli_tap_weight(1.0f - down.fraction), wb = gfli_tap_weight(down.fraction);
    const int y0 = gfli_clamp(down.at, 0, s.h - 1), y1 = gfli_clamp(down.at + 1, 0, s.h - 1);
    for (int k = 0; k < 3; k++) {
        const uint16_t upper = gfli_resize_across_one(&s, y0, across.at, next, a, b, s.channel[k]);
        const uint16_t lower = gfli_resize_across_one(&s, y1, across.at, next, a, b, s.channel[k]);
        out[i * 3 + (size_t)k] = gfli_blend_down(upper, lower, (int16_t)wa, (int16_t)wb);
    }
}

/* The rows as they lie in memory, without what is between them; not of an image that is there. */
static void gfli_upload_image(gfl_context *context, const gfl_image *image, bool on_device,
                              gfli_source *s, void *to) {
    gfli_cuda *d = gfli_cuda_of(context);
    const int size = gfli_pixel_bytes(image->format);
    const size_t row = (size_t)image->width * (size_t)size;
    const ptrdiff_t stride = gfli_pixel_pitch(image);
    const ptrdiff_t last = (ptrdiff_t)(image->height - 1);
    const uint8_t *first = image->pixels;
    s->pixels = image->pixels;
    s->pitch = stride;
    s->w = image->width;
    s->h = image->height;
    s->size = size;
    if (on_device) return;
    s->pixels = (const uint8_t *)to + (stride < 0 ? last * (ptrdiff_t)row : 0);
    s->pitch = stride < 0 ? -(ptrdiff_t)row : (ptrdiff_t)row;
    if (stride < 0) first += last * stride;
    const size_t pitch = (size_t)(stride < 0 ? -stride : stride);
    (void)gfli_cuda_note(context,
                         cudaMemcpy2DAsync(to, row, first, pitch, row, (size_t)image->height,
                                           cudaMemcpyHostToDevice, d->stream),
                         "the upload of an image");
}

static void gfli_resize_cuda(gfl_context *context, const gfl_image *image, bool on_device, bool bgr,
                             int out_w, int out_h, uint8_t *out, void *scratch) {
    gfli_source s;
    if (!gfli_cuda_ready(context)) return;
    gfli_upload_image(context, image, on_device, &s, scratch);
    gfli_pixel_channels(image->format, bgr, s.channel);
    GFLI_LAUNCH((gfli_resize_kernel), gfli_blocks((size_t)out_w * (size_t)out_h), GFLI_THREADS, 0,
                gfli_cuda_of(context)->stream, s, out_w, out_h, out);
    gfli_cuda_launched(context, "resizing");
}

/* ---- normalisation --------------------------------------------------------------------------- */

typedef struct gfli_normalisation {
    const uint8_t *pixels;
    int w, h, out_w, out_h, c;
    bool flip;
    float mean[3], std[3];
    void *out; /* of one image */
    int element;
} gfli_normalisation;

static __global__ void gfli_normalise_kernel(const GFLI_GRID_CONSTANT gfli_normalisation t) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)t.out_w * (size_t)t.out_h) return;
    const int x = (int)(i % (size_t)t.out_w), y = (int)(i / (size_t)t.out_w);
    const bool inside = x < t.w && y < t.h;
    const size_t from = (size_t)y * (size_t)t.w + (size_t)(t.flip ? t.w - 1 - x : x);
    for (int k = 0; k < t.c; k++)
        gfli_write_element(
            t.out, i * (size_t)t.c + (size_t)k,
            inside && k < 3 ? gfli_normalised(t.pixels[from * 3 + (size_t)k], t.mean[k], t.std[k])
                            : 0.0f,
            t.element);
}

static void gfli_normalise_cuda(gfl_context *context, const uint8_t *pixels, int w, int h,
                                const float mean[3], const float std[3], bool flip,
                                const gfli_map *y, int index) {
    const size_t area = (size_t)y->w[0] * (size_t)y->h[0];
    gfli_normalisation t;
    if (!gfli_cuda_ready(context)) return;
    t.pixels = pixels;
    t.w = w;
    t.h = h;
    t.out_w = y->w[0];
    t.out_h = y->h[0];
    t.c = y->c;
    t.flip = flip;
    memcpy(t.mean, mean, sizeof t.mean);
    memcpy(t.std, std, sizeof t.std);
    t.out = gfli_map_at(y, (size_t)index * area * (size_t)y->c);
    t.element = (int)y->element;
    GFLI_LAUNCH((gfli_normalise_kernel), gfli_blocks(area), GFLI_THREADS, 0,
                gfli_cuda_of(context)->stream, t);
    gfli_cuda_launched(context, "normalisation");
}
