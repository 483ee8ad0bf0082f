/* cmd_draw.c - boxes and labels into pixels, pixels into files */
#include "cmd_files.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory of stb_image_write --------------------------------------------------------------- */

/* It ends the program, or writes to where nothing is, when there is no memory: so its blocks are
 * kept in a list, and the first that cannot be had leads back to who called it. */
typedef union block {
    struct {
        union block *next, *before;
    } link;
    max_align_t align;
} block;

static block held;
static jmp_buf without_memory;

static void *hold(size_t n) {
    block *b = malloc(sizeof *b + n);
    if (!b) longjmp(without_memory, 1);
    b->link.next = held.link.next;
    b->link.before = &held;
    if (b->link.next) b->link.next->link.before = b;
    held.link.next = b;
    return b + 1;
}

static void let_go(void *p) {
    block *b = p ? (block *)p - 1 : NULL;
    if (!b) return;
    b->link.before->link.next = b->link.next;
    if (b->link.next) b->link.next->link.before = b->link.before;
    free(b);
}

static void *hold_more(void *p, size_t old, size_t n) {
    void *more = hold(n);
    if (p) memcpy(more, p, old);
    let_go(p);
    return more;
}

#define STBIW_MALLOC(n)                hold((size_t)(n))
#define STBIW_REALLOC_SIZED(p, old, n) hold_more(p, (size_t)(old), (size_t)(n))
#define STBIW_FREE(p)                  let_go(p)
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#if defined(__GNUC__)
#    pragma GCC diagnostic push
#    pragma GCC diagnostic ignored "-Wunused-function"
#endif
#if !defined(__has_include)
#    include <stb/stb_image_write.h>
#elif __has_include(<stb/stb_image_write.h>)
#    include <stb/stb_image_write.h>
#elif __has_include("stb_image_write.h")
#    include "stb_image_write.h"
#else
#    error "gfl: stb_image_write.h: install libstb-dev, or put it beside cmd_draw.c"
#endif
#if defined(__GNUC__)
#    pragma GCC diagnostic pop
#endif

/* ---- boxes and labels ------------------------------------------------------------------------ */

enum { GLYPH_W = 5, GLYPH_H = 7 };

/* Rows from the top, the leftmost pixel in bit 4.  Small letters are drawn as capitals. */
static const struct {
    char c;
    uint8_t rows[GLYPH_H];
} font[] = {
    {'0', {14, 17, 19, 21, 25, 17, 14}}, {'1', {4, 12, 4, 4, 4, 4, 14}},
    {'2', {14, 17, 1, 6, 8, 16, 31}},    {'3', {14, 17, 1, 6, 1, 17, 14}},
    {'4', {2, 6, 10, 18, 31, 2, 2}},     {'5', {31, 16, 30, 1, 1, 17, 14}},
    {'6', {6, 8, 16, 30, 17, 17, 14}},   {'7', {31, 1, 2, 4, 4, 8, 8}},
    {'8', {14, 17, 17, 14, 17, 17, 14}}, {'9', {14, 17, 17, 15, 1, 2, 12}},
    {'A', {4, 10, 17, 17, 31, 17, 17}},  {'B', {30, 17, 17, 30, 17, 17, 30}},
    {'C', {14, 17, 16, 16, 16, 17, 14}}, {'D', {28, 18, 17, 17, 17, 18, 28}},
    {'E', {31, 16, 16, 30, 16, 16, 31}}, {'F', {31, 16, 16, 30, 16, 16, 16}},
    {'G', {14, 17, 16, 19, 17, 17, 15}}, {'H', {17, 17, 17, 31, 17, 17, 17}},
    {'I', {14, 4, 4, 4, 4, 4, 14}},      {'J', {7, 2, 2, 2, 2, 18, 12}},
    {'K', {17, 18, 20, 24, 20, 18, 17}}, {'L', {16, 16, 16, 16, 16, 16, 31}},
    {'M', {17, 27, 21, 21, 17, 17, 17}}, {'N', {17, 25, 21, 19, 17, 17, 17}},
    {'O', {14, 17, 17, 17, 17, 17, 14}}, {'P', {30, 17, 17, 30, 16, 16, 16}},
    {'Q', {14, 17, 17, 17, 21, 18, 13}}, {'R', {30, 17, 17, 30, 20, 18, 17}},
    {'S', {15, 16, 16, 14, 1, 1, 30}},   {'T', {31, 4, 4, 4, 4, 4, 4}},
    {'U', {17, 17, 17, 17, 17, 17, 14}}, {'V', {17, 17, 17, 17, 10, 10, 4}},
    {'W', {17, 17, 17, 21, 21, 27, 17}}, {'X', {17, 10, 4, 4, 4, 10, 17}},
    {'Y', {17, 17, 10, 4, 4, 4, 4}},     {'Z', {31, 1, 2, 4, 8, 16, 31}},
    {'.', {0, 0, 0, 0, 0, 12, 12}},      {'-', {0, 0, 0, 14, 0, 0, 0}},
    {'_', {0, 0, 0, 0, 0, 0, 31}},       {':', {0, 12, 12, 0, 12, 12, 0}},
    {'/', {1, 1, 2, 4, 8, 16, 16}},      {' ', {0, 0, 0, 0, 0, 0, 0}},
    {'?', {14, 17, 1, 2, 4, 0, 4}},
};

static const uint8_t *glyph(char c) {
    const size_t n = sizeof font / sizeof font[0];
    const char upper = (char)toupper((unsigned char)c);
    for (size_t i = 0; i < n; i++)
        if (font[i].c == upper) return font[i].rows;
    return font[n - 1].rows;
}

/* Of UTF-8: a character, whatever it is, has one glyph. */
static bool is_continuation(char c) {
    return ((unsigned char)c & 0xC0) == 0x80;
}

static int count_characters(const char *text) {
    int n = 0;
    for (; *text; text++) n += !is_continuation(*text);
    return n;
}

static void fill(gfl_pixels *p, int x1, int y1, int x2, int y2, const uint8_t colour[3]) {
    if (x1 < 0) x1 = 0;
    if (y1 < 0) y1 = 0;
    if (x2 > p->width) x2 = p->width;
    if (y2 > p->height) y2 = p->height;
    for (int y = y1; y < y2; y++)
        for (int x = x1; x < x2; x++)
            memcpy(p->rgb + ((size_t)y * (size_t)p->width + (size_t)x) * 3, colour, 3);
}

/* Hues a golden angle apart: neighbours in the list of classes look different. */
static void class_colour(int label, uint8_t out[3]) {
    const double hue = fmod(label * 137.50776, 360.0) / 60.0;
    for (int c = 0; c < 3; c++) {
        const double t = fabs(fmod(hue + 2.0 * c, 6.0) - 3.0) - 1.0;
        out[c] = (uint8_t)(40 + 215 * fmax(0.0, fmin(1.0, t)));
    }
}

/* A coordinate as a pixel, whatever the number; kept close to the image so that ints hold it. */
static int pixel(double v, int size) {
    if (!(v > -1.0)) return -1;
    return v > size + 1.0 ? size + 1 : (int)floor(v + 0.5);
}

void draw_box(gfl_pixels *p, double x1, double y1, double x2, double y2, int label,
              const char *text) {
    const int small = p->width < p->height ? p->width : p->height;
    const int line = 1 + small / 300, zoom = 1 + small / 400;
    const int left = pixel(x1, p->width), right = pixel(x2, p->width);
    const int top = pixel(y1, p->height), bottom = pixel(y2, p->height);
    const uint8_t black[3] = {0, 0, 0};
    uint8_t colour[3];
    class_colour(label, colour);
    fill(p, left, top, right, top + line, colour);
    fill(p, left, bottom - line, right, bottom, colour);
    fill(p, left, top, left + line, bottom, colour);
    fill(p, right - line, top, right, bottom, colour);
    const int length = count_characters(text);
    const int w = (length * (GLYPH_W + 1) + 1) * zoom, h = (GLYPH_H + 2) * zoom;
    int x = left < 0 ? 0 : left, y = top >= h ? top - h : top + line;
    if (x + w > p->width) x = p->width > w ? p->width - w : 0;
    if (!length) return;
    fill(p, x, y, x + w, y + h, colour);
    for (int i = 0; *text; text++) {
        if (is_continuation(*text)) continue;
        const uint8_t *rows = glyph(*text);
        for (int r = 0; r < GLYPH_H * GLYPH_W; r++) {
            if (!(rows[r / GLYPH_W] >> (GLYPH_W - 1 - r % GLYPH_W) & 1)) continue;
            const int gx = x + (1 + i * (GLYPH_W + 1) + r % GLYPH_W) * zoom;
            const int gy = y + (1 + r / GLYPH_W) * zoom;
            fill(p, gx, gy, gx + zoom, gy + zoom, black);
        }
        i++;
    }
}

void draw_detections(gfl_pixels *pixels, const gfl_detection *items, int n,
                     const gfl_class *classes) {
    char text[64];
    for (int i = n - 1; i >= 0; i--) { /* the surest on top */
        const gfl_detection *d = &items[i];
        snprintf(text, sizeof text, "%.40s %.2f", classes[d->label].name, (double)d->score);
        draw_box(pixels, (double)d->x1, (double)d->y1, (double)d->x2, (double)d->y2, d->label,
                 text);
    }
}

/* ---- files ----------------------------------------------------------------------------------- */

typedef struct sink {
    FILE *f;
    bool good;
} sink;

static void write_bytes(void *context, void *data, int size) {
    sink *s = context;
    s->good = s->good && fwrite(data, 1, (size_t)size, s->f) == (size_t)size;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    if (n < m) return false;
    for (size_t i = 0; i < m; i++)
        if (tolower((unsigned char)s[n - m + i]) != end[i]) return false;
    return true;
}

static bool is_jpeg(const char *path) {
    return ends_with(path, ".jpg") || ends_with(path, ".jpeg") || ends_with(path, ".jpe") ||
           ends_with(path, ".jfif");
}

/* Apart, so that longjmp leaves a function whose variables nobody needs. */
#if defined(__GNUC__)
__attribute__((noinline))
#endif
static void
encode_pixels(sink *s, const gfl_pixels *p, bool jpeg) {
    if (jpeg)
        stbi_write_jpg_to_func(write_bytes, s, p->width, p->height, 3, p->rgb, 92);
    else
        stbi_write_png_to_func(write_bytes, s, p->width, p->height, 3, p->rgb, p->width * 3);
}

/* false: there is no memory. */
static bool encode(sink *s, const gfl_pixels *p, bool jpeg) {
    if (setjmp(without_memory)) {
        while (held.link.next) let_go(held.link.next + 1);
        return false;
    }
    encode_pixels(s, p, jpeg);
    return true;
}

bool write_picture(const char *path, const gfl_pixels *p) {
    out_file out;
    if (!out_open(&out, path)) return false;
    sink s = {out.f, true};
    if (encode(&s, p, is_jpeg(path))) return out_commit(&out);
    errno = ENOMEM;
    report_errno("%s cannot be written", path);
    out_abandon(&out);
    return false;
}
