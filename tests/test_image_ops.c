/* test_image_ops.c - resizing bit for bit, normalisation and padding */
#include "ops.h"

/* Resize with as many threads as said; the caller frees the pixels. */
static uint8_t *resized(const gfl_image *image, bool bgr, int w, int h, int threads) {
    gfl_context *context = test_context(threads);
    uint8_t *out = (uint8_t *)malloc((size_t)w * (size_t)h * 3);
    memset(out, 77, (size_t)w * (size_t)h * 3);
    host_resize(context, image, bgr, w, h, out);
    gfl_context_destroy(context);
    return out;
}

/* Pixel by pixel as the specification (7.2) puts it. */
static int weight_of(float f) {
    return (int)lrint((double)f * 2048); /* halves to even */
}

static int across(const uint8_t *row, int sx, float f, int w, int c) {
    if (sx < 0) sx = 0, f = 0;
    if (sx >= w - 1) sx = w - 1, f = 0;
    const int next = sx + 1 < w ? row[(sx + 1) * 3 + c] : 0;
    return row[sx * 3 + c] * weight_of(1 - f) + next * weight_of(f);
}

static int naive_pixel(const uint8_t *rgb, int w, int h, int ow, int oh, int x, int y, int c) {
    const double scale_x = 1 / ((double)ow / w), scale_y = 1 / ((double)oh / h);
    const float fx = (float)((x + 0.5) * scale_x - 0.5), fy = (float)((y + 0.5) * scale_y - 0.5);
    const int sx = (int)floorf(fx), sy = (int)floorf(fy);
    const float rx = fx - (float)sx, ry = fy - (float)sy;
    const int y0 = sy < 0 ? 0 : (sy > h - 1 ? h - 1 : sy);
    const int y1 = sy + 1 < 0 ? 0 : (sy + 1 > h - 1 ? h - 1 : sy + 1);
    const int a = across(rgb + (size_t)(y0 * w) * 3, sx, rx, w, c);
    const int b = across(rgb + (size_t)(y1 * w) * 3, sx, rx, w, c);
    const int v =
        (((weight_of(1 - ry) * (a >> 4)) >> 16) + ((weight_of(ry) * (b >> 4)) >> 16) + 2) >> 2;
    return v > 255 ? 255 : v;
}

static void resize_follows_the_specification_to_the_bit(void) {
    static const int sizes[][4] = {{40, 30, 67, 50}, {40, 30, 20, 15},
                                   {61, 47, 33, 20}, {1, 1, 5, 4},
                                   {3, 2, 1, 1},     {33, 17, 33, 40},
                                   {9, 50, 100, 51}, {128, 5, 37, 80},
                                   {2, 2, 4096, 3}}; /* the last: weights at exact halves */
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int w = sizes[s][0], h = sizes[s][1], ow = sizes[s][2], oh = sizes[s][3];
        uint8_t *rgb = (uint8_t *)malloc((size_t)(w * h) * 3);
        gfli_rng rng = gfli_rng_make(s, 0, 0, 1);
        for (int i = 0; i < w * h * 3; i++) {
            /* Extremes as well: they are what could overflow. */
            const int v = gfli_rng_below(&rng, 400);
            rgb[i] = (uint8_t)(v > 255 ? (v & 1) * 255 : v);
        }
        const gfl_image image = {rgb, w, h, 0, GFL_FORMAT_RGB};
        for (int threads = 1; threads <= 3; threads++) {
            uint8_t *out = resized(&image, false, ow, oh, threads);
            for (int k = 0; k < ow * oh * 3; k++)
                CHECK(out[k] == naive_pixel(rgb, w, h, ow, oh, k / 3 % ow, k / 3 / ow, k % 3));
            free(out);
        }
        free(rgb);
    }
}

/* Computed by OpenCV. */
static void resize_gives_the_golden_values(void) {
    static const uint8_t up[3 * 7] = {9,   49, 155, 22,  62,  168, 43,  83,  190, 64, 105,
                                      211, 85, 125, 220, 106, 147, 143, 120, 160, 96};
    static const uint8_t across_8[8 * 3] = {11,  16,  24,  45,  72,  107, 153, 187,
                                            61,  65,  74,  94,  122, 156, 203, 237,
                                            110, 114, 123, 144, 171, 205, 132, 72};
    uint8_t grey[20];
    for (int i = 0; i < 20; i++) grey[i] = (uint8_t)(37 * (i / 5) + 11 * (i % 5) * (i % 5) + 5);
    const gfl_image image = {grey, 5, 4, 0, GFL_FORMAT_GREY};
    uint8_t *out = resized(&image, false, 3, 7, 1);
    for (int i = 0; i < 3 * 3 * 7; i++) CHECK(out[i] == up[i / 3]);
    free(out);
    out = resized(&image, true, 8, 3, 2);
    for (int i = 0; i < 3 * 8 * 3; i++) CHECK(out[i] == across_8[i / 3]);
    free(out);
}

static void resize_to_the_same_size_copies(void) {
    uint8_t rgb[3 * 256];
    for (int i = 0; i < 3 * 256; i++) rgb[i] = (uint8_t)(i % 256);
    const gfl_image image = {rgb, 16, 16, 0, GFL_FORMAT_RGB};
    uint8_t *out = resized(&image, false, 16, 16, 1);
    CHECK(memcmp(out, rgb, sizeof rgb) == 0);
    free(out);
}

static void resize_of_a_flat_image_is_flat(void) {
    uint8_t grey[35];
    for (int v = 0; v < 256; v += 5) {
        memset(grey, v, sizeof grey);
        const gfl_image image = {grey, 7, 5, 0, GFL_FORMAT_GREY};
        uint8_t *out = resized(&image, false, 23, 11, 1);
        for (int i = 0; i < 23 * 11 * 3; i++) CHECK(out[i] == v);
        free(out);
    }
}

/* The same picture in every format, with gaps between rows, upside down in memory, must give the
 * same pixels. */
static void resize_reads_every_format_and_stride(void) {
    enum { W = 13, H = 9, OW = 20, OH = 6 };
    static const int bytes[] = {3, 3, 4, 4, 1};
    uint8_t rgb[H * W * 3];
    gfli_rng rng = gfli_rng_make(3, 0, 0, 1);
    for (int format = 0; format < 5; format++) {
        const int b = bytes[format];
        const bool swapped = format == GFL_FORMAT_BGR || format == GFL_FORMAT_BGRA;
        for (int i = 0; i < H * W; i++)
            for (int c = 0; c < 3; c++)
                rgb[3 * i + c] = c && b == 1 ? rgb[3 * i] : (uint8_t)gfli_rng_below(&rng, 256);
        const gfl_image plain = {rgb, W, H, 0, GFL_FORMAT_RGB};
        uint8_t *want = resized(&plain, false, OW, OH, 1);
        for (int kind = 0; kind < 3; kind++) {
            const int row = W * b + (kind ? 5 : 0);
            uint8_t *memory = (uint8_t *)malloc((size_t)(row * H));
            memset(memory, 200, (size_t)(row * H));
            for (int i = 0; i < H * W; i++) {
                const int y = kind == 2 ? H - 1 - i / W : i / W;
                for (int c = 0; c < (b == 1 ? 1 : 3); c++)
                    memory[y * row + i % W * b + c] = rgb[3 * i + (swapped ? 2 - c : c)];
            }
            const gfl_image image = {kind == 2 ? memory + (H - 1) * row : memory, W, H,
                                     kind == 0 ? 0 : (kind == 1 ? row : -row), (gfl_format)format};
            uint8_t *got = resized(&image, false, OW, OH, 2);
            CHECK(memcmp(got, want, OW * OH * 3) == 0);
            free(got);
            got = resized(&image, true, OW, OH, 1);
            for (int i = 0; i < OW * OH * 3; i++) CHECK(got[i] == want[i / 3 * 3 + 2 - i % 3]);
            free(got);
            free(memory);
        }
        free(want);
    }
}

/* ---- normalisation --------------------------------------------------------------------------- */

static const float mean[3] = {123.675f, 116.28f, 103.53f},
                   deviation[3] = {58.395f, 57.12f, 57.375f};

static void normalise_gives_the_golden_values(void) {
    static const uint8_t pixels[9] = {0, 0, 0, 128, 128, 128, 255, 255, 255};
    static const float want[9] = {-2.117904f, -2.0357144f, -1.8044444f, 0.07406451f, 0.2051821f,
                                  0.4264924f, 2.2489083f,  2.4285715f,  2.64f};
    float data[9];
    gfli_map y = {data, GFLI_MAP_F32, 1, 3, 1, {1}, {3}};
    gfl_context *context = test_context(1);
    host_normalise(context, pixels, 3, 1, mean, deviation, false, &y, 0);
    for (int i = 0; i < 9; i++) CHECK(fabsf(data[i] - want[i]) <= 2e-7f * fabsf(want[i]));
    gfl_context_destroy(context);
}

static void normalise_flips_the_image_and_clears_the_rest(void) {
    enum { W = 7, H = 5, PW = 12, PH = 8 };
    uint8_t pixels[W * H * 3];
    float data[2 * PW * PH * 3];
    gfli_map y = {data, GFLI_MAP_F32, 2, 3, 1, {PH}, {PW}};
    for (int i = 0; i < W * H * 3; i++) pixels[i] = (uint8_t)(i * 2 + 1);
    for (int flip = 0; flip < 2; flip++) {
        gfl_context *context = test_context(1 + flip);
        for (int i = 0; i < 2 * PW * PH * 3; i++) data[i] = 9;
        host_normalise(context, pixels, W, H, mean, deviation, flip != 0, &y, 1);
        for (int i = 0; i < PW * PH * 3; i++) {
            const int c = i % 3, x = i / 3 % PW, v = i / 3 / PW;
            const int from = flip ? W - 1 - x : x;
            float want = 0;
            if (x < W && v < H)
                want = ((float)pixels[(v * W + from) * 3 + c] - mean[c]) / deviation[c];
            CHECK(data[PW * PH * 3 + i] == want);
            CHECK(data[i] == 9); /* the other image of the batch */
        }
        gfl_context_destroy(context);
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(resize_follows_the_specification_to_the_bit),
                                      TEST(resize_gives_the_golden_values),
                                      TEST(resize_to_the_same_size_copies),
                                      TEST(resize_of_a_flat_image_is_flat),
                                      TEST(resize_reads_every_format_and_stride),
                                      TEST(normalise_gives_the_golden_values),
                                      TEST(normalise_flips_the_image_and_clears_the_rest),
                                      {0}};
    return test_main(argc, argv, cases);
}
