/* test_odd_images.c - files that cameras fill up and that attackers blow up: the pixels of every
 * other decoder or an error, in bounded memory */
#include "data.h"
#include "meter.h"

/* ---- a context that counts what it gives ----------------------------------------------------- */

static meter counted;
static gfl_context *context;

static gfl_context *open_context(size_t image_memory) {
    gfl_context_desc d;
    gfl_context *out;
    memset(&d, 0, sizeof d);
    d.n_threads = 1;
    d.allocator.alloc = meter_alloc;
    d.allocator.free = meter_free;
    d.allocator.user = &counted;
    d.image_memory = image_memory;
    if (gfl_context_create(&d, &out) != GFL_OK) exit(1);
    return out;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

typedef struct bytes {
    uint8_t *p;
    size_t n;
} bytes;

/* Room is a power of two: bytes that come one by one do not move each time. */
static void put(bytes *b, const void *p, size_t n) {
    size_t room = 64, had;
    while (room < b->n) room *= 2;
    for (had = room; room < b->n + n;) room *= 2;
    if (!b->p || room > had) b->p = (uint8_t *)realloc(b->p, room);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void put_text(bytes *b, const char *hex) {
    for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2) {
        uint8_t one = (uint8_t)byte;
        put(b, &one, 1);
        while (hex[2] == ' ') hex++;
    }
}

static bytes read_file(const char *name) {
    bytes b;
    b.p = data_read(data_path(name), &b.n);
    return b;
}

/* The file with n bytes put in (or, negative, taken out) at a place. */
static bytes changed(const bytes *b, size_t at, const void *more, size_t n_more, size_t drop) {
    bytes out = {NULL, 0};
    put(&out, b->p, at);
    put(&out, more, n_more);
    put(&out, b->p + at + drop, b->n - at - drop);
    return out;
}

static gfl_status read_bytes(const bytes *b, gfl_pixels *out) {
    uint8_t *exact = (uint8_t *)malloc(b->n ? b->n : 1); /* its end is seen by a sanitizer */
    memcpy(exact, b->p, b->n);
    gfl_status status = gfl_image_read_memory(context, exact, b->n, "odd", out);
    free(exact);
    return status;
}

/* Does it decode to the very pixels of that file? */
static bool same_as(bytes b, const char *name) {
    gfl_pixels got, want;
    gfl_status status = read_bytes(&b, &got);
    if (status != GFL_OK) printf("%s\n", gfl_context_get_error(context));
    CHECK_OK(context, gfl_image_read(context, data_path(name), &want));
    bool same = status == GFL_OK && got.width == want.width && got.height == want.height &&
                !memcmp(got.rgb, want.rgb, 3 * (size_t)got.width * (size_t)got.height);
    gfl_pixels_free(context, &got);
    gfl_pixels_free(context, &want);
    free(b.p);
    return same;
}

static bool refused(bytes b, gfl_status want, const char *text) {
    gfl_pixels p;
    gfl_status status = read_bytes(&b, &p);
    bool good = status == want && !p.rgb && strstr(gfl_context_get_error(context), text);
    if (!good) printf("%s: %s\n", gfl_status_get_name(status), gfl_context_get_error(context));
    gfl_pixels_free(context, &p);
    free(b.p);
    return good;
}

/* ---- JPEG: segments that are missing or too many --------------------------------------------- */

/* Where the n-th segment of a kind begins, and its length with the marker; 0: there is none. */
static size_t segment(const bytes *b, int marker, int n, size_t *length) {
    *length = 0;
    for (size_t at = 2; at + 4 < b->n; at += *length) {
        *length = 2 + (size_t)(b->p[at + 2] << 8 | b->p[at + 3]);
        if (b->p[at + 1] == marker && n-- == 0) return at;
        if (b->p[at + 1] == 0xDA) break;
    }
    return 0;
}

static bytes without_code_tables(const char *name) {
    bytes b = read_file(name);
    size_t length;
    for (size_t at; (at = segment(&b, 0xC4, 0, &length)) > 0;) {
        bytes less = changed(&b, at, "", 0, length);
        free(b.p);
        b = less;
    }
    return b;
}

static void frames_of_films_use_the_tables_of_the_standard(void) {
    CHECK(same_as(without_code_tables("images/rgb.jpg"), "images/rgb.jpg"));
    CHECK(same_as(without_code_tables("images/grey.jpg"), "images/grey.jpg"));
    CHECK(refused(without_code_tables("images/progressive.jpg"), GFL_E_FORMAT, "code table"));
}

static void what_is_behind_the_last_block_is_passed_over(void) {
    static const char padding[] = "\0D\x11\"3\xFF\0D\x11\"3\xFF\0\xFF\xD3\xFF\xFF";
    static const char *const names[] = {"images/rgb.jpg", "images/grey.jpg",
                                        "images/progressive.jpg"};
    for (size_t i = 0; i < GFLI_COUNT(names); i++) {
        bytes b = read_file(names[i]);
        CHECK(same_as(changed(&b, b.n - 2, padding, sizeof padding - 1, 0), names[i]));
        CHECK(same_as(changed(&b, b.n, "more of it", 10, 0), names[i]));
        free(b.p);
    }
    /* A picture that is complete is not changed by another behind it. */
    bytes b = read_file("images/rgb.jpg");
    CHECK(same_as(changed(&b, b.n - 2, b.p, b.n - 2, 0), "images/rgb.jpg"));
    free(b.p);
}

static void bytes_between_segments_are_passed_over_but_not_between_scans(void) {
    bytes b = read_file("images/rgb.jpg");
    size_t length, at = segment(&b, 0xDB, 0, &length);
    CHECK(at > 0 && same_as(changed(&b, at, "\0\1\2", 3, 0), "images/rgb.jpg"));
    free(b.p);
    b = read_file("images/progressive.jpg");
    for (at = b.n - 4; !(b.p[at] == 0xFF && b.p[at + 1] == 0xC4); at--) {
    }
    CHECK(same_as(changed(&b, at, "\0\0", 2, 0), "images/progressive.jpg"));
    CHECK(refused(changed(&b, at, "\x12\x34", 2, 0), GFL_E_FORMAT, "left over"));
    free(b.p);
}

/* The standard begins at 1.  What such a table makes of the largest codes does not fit a number. */
static void a_quantiser_of_zero_is_refused(void) {
    bytes b = read_file("images/rgb.jpg");
    size_t length, at = segment(&b, 0xDB, 0, &length);
    CHECK(at > 0 &&
          refused(changed(&b, at + 5 + 17, "\0", 1, 1), GFL_E_FORMAT, "quantiser of zero"));
    free(b.p);
}

static void a_restart_marker_in_the_midst_of_pixels_is_refused(void) {
    bytes b = read_file("images/rgb.jpg");
    size_t length, at = segment(&b, 0xDA, 0, &length);
    CHECK(at > 0 && refused(changed(&b, at + length + 200, "\xFF\xD0", 2, 0), GFL_E_FORMAT, ""));
    free(b.p);
}

/* Data that ends anywhere, with a proper end behind it: stb_image 2.30 takes it for whole. */
static void pixels_that_end_too_early_are_refused_at_every_byte(void) {
    static const char *const names[] = {"images/rgb.jpg", "images/grey.jpg"};
    for (size_t i = 0; i < GFLI_COUNT(names); i++) {
        bytes b = read_file(names[i]);
        size_t length, at = segment(&b, 0xDA, 0, &length);
        at += length;
        for (size_t n = at; n + 3 < b.n; n++)
            CHECK(refused(changed(&b, n, "", 0, b.n - 2 - n), GFL_E_FORMAT, "odd: "));
        free(b.p);
    }
}

static void channels_mean_what_jfif_and_adobe_say(void) {
    /* With names R, G and B it is RGB, unless JFIF says that it is not. */
    bytes b = read_file("images/rgb.jpg");
    size_t length, frame = segment(&b, 0xC0, 0, &length), scan = segment(&b, 0xDA, 0, &length);
    gfl_pixels p;
    for (size_t i = 0; i < 3; i++)
        b.p[frame + 10 + 3 * i] = b.p[scan + 5 + 2 * i] = (uint8_t) "RGB"[i];
    CHECK(same_as(changed(&b, b.n, "", 0, 0), "images/rgb.jpg"));
    size_t jfif = segment(&b, 0xE0, 0, &length);
    bytes raw = changed(&b, jfif, "", 0, length);
    static const char adobe[] = "\xFF\xEE\0\x0E"
                                "Adobe\0\x64\0\0\0\0\1";
    CHECK(same_as(changed(&raw, 2, adobe, sizeof adobe - 1, 0), "images/rgb.jpg"));
    CHECK_OK(context, read_bytes(&raw, &p));
    gfl_pixels_free(context, &p);
    CHECK(!same_as(raw, "images/rgb.jpg"));
    free(b.p);
}

/* ---- JPEG: work ------------------------------------------------------------------------------ */

/* A grey picture of a block, whose coefficients come one by one, and bit by bit from `low` on. */
static bytes many_scans(int low) {
    bytes b = {NULL, 0};
    put_text(&b, "FFD8 FFDB0043 00");
    for (int i = 0; i < 64; i++) put(&b, "\1", 1);
    put_text(&b, "FFC2000B 08 0008 0008 01 011100"
                 "FFC40014 00 01000000 00000000 00000000 00000000 00"
                 "FFC40014 10 01000000 00000000 00000000 00000000 00"
                 "FFDA0008 01 0100 000000 7F");
    for (int bit = low; bit >= 0; bit--)
        for (int k = 1; k < 64; k++) {
            uint8_t scan[11] = {0xFF, 0xDA, 0, 8, 1, 1, 0, (uint8_t)k, (uint8_t)k, 0, 0x7F};
            scan[9] = (uint8_t)(bit == low ? bit : (bit + 1) << 4 | bit);
            put(&b, scan, sizeof scan);
        }
    put_text(&b, "FFD9");
    return b;
}

static void the_scans_of_a_jpeg_are_limited(void) {
    gfl_pixels p;
    bytes b = many_scans(1); /* 127 */
    CHECK_OK(context, read_bytes(&b, &p));
    CHECK(p.width == 8 && p.rgb && p.rgb[0] == 128);
    gfl_pixels_free(context, &p);
    free(b.p);
    CHECK(refused(many_scans(2), GFL_E_UNSUPPORTED, "more than 128 scans"));
}

static void a_scan_that_comes_again_is_refused(void) {
    bytes b = many_scans(0), again = changed(&b, b.n - 2, b.p + b.n - 13, 11, 0);
    free(b.p);
    CHECK(refused(again, GFL_E_FORMAT, "gives again"));
}

/* ---- PNG ------------------------------------------------------------------------------------- */

static uint32_t crc(const uint8_t *p, size_t n) {
    uint32_t c = 0xFFFFFFFFu;
    for (; n > 0; n--) {
        c ^= *p++;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
    }
    return ~c;
}

static void put_number(bytes *b, uint32_t v) {
    const uint8_t four[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    put(b, four, 4);
}

static void put_chunk(bytes *b, const char *type, const void *body, size_t n) {
    bytes c = {NULL, 0};
    put(&c, type, 4);
    put(&c, body, n);
    put_number(b, (uint32_t)n);
    put(b, c.p, c.n);
    put_number(b, crc(c.p, c.n));
    free(c.p);
}

/* A PNG of this header and data as it stands. */
static bytes png(uint32_t width, uint32_t height, int depth, int type, int interlaced,
                 const void *palette, size_t n_palette, const bytes *data) {
    bytes b = {NULL, 0}, header = {NULL, 0};
    const uint8_t rest[5] = {(uint8_t)depth, (uint8_t)type, 0, 0, (uint8_t)interlaced};
    put(&b, "\x89PNG\r\n\x1a\n", 8);
    put_number(&header, width);
    put_number(&header, height);
    put(&header, rest, 5);
    put_chunk(&b, "IHDR", header.p, header.n);
    if (palette) put_chunk(&b, "PLTE", palette, n_palette);
    put_chunk(&b, "IDAT", data->p, data->n);
    put_chunk(&b, "IEND", "", 0);
    free(header.p);
    return b;
}

/* zlib's form of n zeros: a zero, copies of 258 of it, the end. */
static bytes zeros(size_t n) {
    bytes b = {NULL, 0};
    unsigned held = 0;
    int bits = 0;
    put(&b, "\x78\x9c", 2);
    /* Fixed codes: 3 bits of block header, 8 for the 0, 8 + 5 for each copy, 7 for the end; codes
     * are given from their first bit on. */
    for (size_t i = 0; i <= n / 258 + 1; i++) {
        unsigned code = i == 0 ? 3 | 0x0Cu << 3 : i <= n / 258 ? 0xA3 : 0;
        int length = i == 0 ? 11 : i <= n / 258 ? 13 : 7;
        held |= code << bits;
        for (bits += length; bits >= 8; bits -= 8, held >>= 8) {
            uint8_t byte = (uint8_t)held;
            put(&b, &byte, 1);
        }
    }
    uint8_t last[5] = {(uint8_t)held, 0, 0, 0, 0};
    put(&b, last, 5);
    return b;
}

static void a_png_inflates_to_no_more_than_its_rows_need(void) {
    size_t exact = 43 * 258 + 1; /* of 1 + 1 * 258 * 43 bytes: width 11094 in grey, one row */
    bytes data = zeros(exact), far = zeros((size_t)1 << 26);
    bytes good = png(11094, 1, 8, 0, 0, NULL, 0, &data);
    gfl_pixels p;
    CHECK_OK(context, read_bytes(&good, &p));
    CHECK(p.width == 11094 && p.height == 1 && p.rgb[0] == 0);
    gfl_pixels_free(context, &p);
    counted.peak = counted.held;
    size_t before = counted.held;
    CHECK(refused(png(11094, 1, 8, 0, 0, NULL, 0, &far), GFL_E_FORMAT, "far more data"));
    printf("%zu bytes for %zu of file\n", counted.peak - before, far.n);
    CHECK(counted.peak - before < 100000);
    CHECK(refused(png(11095, 1, 8, 0, 0, NULL, 0, &data), GFL_E_FORMAT, "pixels are missing"));
    free(good.p);
    free(data.p);
    free(far.p);
}

static bytes stored(const void *rows, size_t n) {
    bytes b = {NULL, 0};
    const uint8_t head[7] = {
        0x78, 0x01, 1, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n, (uint8_t)(~n >> 8)};
    put(&b, head, 7);
    put(&b, rows, n);
    put(&b, "\0\0\0\0", 4);
    return b;
}

static void a_colour_that_the_palette_lacks_is_refused(void) {
    bytes few = stored("\0\0\1", 3), far = stored("\0\0\2", 3);
    bytes good = png(2, 1, 8, 3, 0, "abcdef", 6, &few);
    gfl_pixels p;
    CHECK_OK(context, read_bytes(&good, &p));
    CHECK(p.rgb && !memcmp(p.rgb, "abcdef", 6));
    gfl_pixels_free(context, &p);
    CHECK(refused(png(2, 1, 8, 3, 0, "abcdef", 6, &far), GFL_E_FORMAT, "palette"));
    free(good.p);
    free(few.p);
    free(far.p);
    bytes b = read_file("images/palette.bmp");
    b.p[46] = 3; /* colours used */
    CHECK(refused(b, GFL_E_FORMAT, "palette"));
}

static void a_filter_that_is_none_is_refused(void) {
    bytes bad = stored("\5\0\1", 3);
    CHECK(refused(png(2, 1, 8, 0, 0, NULL, 0, &bad), GFL_E_FORMAT, "filter"));
    free(bad.p);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static const char *const kinds[] = {
    "images/rgb.jpg",       "images/progressive.jpg", "images/grey.jpg", "images/rgba.png",
    "images/rgb16.png",     "images/palette.png",     "images/rgb.bmp",  "images/rgb.jpg.ppm",
    "fuzz_image/exif6.jpg", "fuzz_image/basi6a16.png"};

/* Tables aside, the most that decoding takes is in proportion to the picture. */
static void memory_is_in_proportion_to_pixels_and_file(void) {
    for (size_t i = 0; i < GFLI_COUNT(kinds); i++) {
        bytes b = read_file(kinds[i]);
        gfl_pixels p;
        size_t before = counted.peak = counted.held;
        CHECK_OK(context, read_bytes(&b, &p));
        size_t across = (size_t)p.width + 32, down = (size_t)p.height + 32;
        CHECK(counted.peak - before <= 3 * b.n + 18 * across * down + 64000);
        gfl_pixels_free(context, &p);
        CHECK(counted.held == before);
        free(b.p);
    }
}

static void a_hosts_limit_is_told_from_damage_and_from_lack_of_memory(void) {
    gfl_context *usual = context;
    context = open_context(4000);
    for (size_t i = 0; i < GFLI_COUNT(kinds); i++)
        CHECK(refused(read_file(kinds[i]), GFL_E_UNSUPPORTED, "image_memory"));
    gfl_context_destroy(context);
    context = usual;
    for (size_t i = 0; i < GFLI_COUNT(kinds); i++) {
        counted.limit = counted.held + 3000;
        CHECK(refused(read_file(kinds[i]), GFL_E_MEMORY, "out of memory"));
        counted.limit = SIZE_MAX;
    }
}

static gfl_status read_one(gfl_context *c) {
    for (size_t i = 0; i < GFLI_COUNT(kinds); i++) {
        gfl_pixels p;
        gfl_status status = gfl_image_read(c, data_path(kinds[i]), &p);
        gfl_pixels_free(c, &p);
        if (status != GFL_OK) return status;
    }
    return GFL_OK;
}

static void every_allocation_may_fail(void) {
    data_sweep(read_one);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(frames_of_films_use_the_tables_of_the_standard),
        TEST(what_is_behind_the_last_block_is_passed_over),
        TEST(bytes_between_segments_are_passed_over_but_not_between_scans),
        TEST(a_quantiser_of_zero_is_refused),
        TEST(a_restart_marker_in_the_midst_of_pixels_is_refused),
        TEST(pixels_that_end_too_early_are_refused_at_every_byte),
        TEST(channels_mean_what_jfif_and_adobe_say),
        TEST(the_scans_of_a_jpeg_are_limited),
        TEST(a_scan_that_comes_again_is_refused),
        TEST(a_png_inflates_to_no_more_than_its_rows_need),
        TEST(a_colour_that_the_palette_lacks_is_refused),
        TEST(a_filter_that_is_none_is_refused),
        TEST(memory_is_in_proportion_to_pixels_and_file),
        TEST(a_hosts_limit_is_told_from_damage_and_from_lack_of_memory),
        TEST(every_allocation_may_fail),
        {0}};
    counted.limit = SIZE_MAX;
    context = open_context(0);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
