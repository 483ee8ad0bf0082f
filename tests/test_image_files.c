/* test_image_files.c - every kind of image file to the right pixels, or refused */
#include "data.h"

static gfl_context *context;

/* ---- against pixels that OpenCV decoded ------------------------------------------------------ */

static bool same(const gfl_pixels *p, int w, int h, uint64_t hash) {
    return p->rgb && p->width == w && p->height == h &&
           data_fnv1a64(p->rgb, 3 * (size_t)w * (size_t)h) == hash;
}

/* The names of PngSuite's basic files end with their bits a sample, as basn0g04.png's does. */
static void check_bits(const char *name, int bits) {
    int said = 0;
    if (sscanf(name, "bas%*c%*d%*c%d", &said) == 1) CHECK(bits == said);
    if (strstr(name, "16.png")) CHECK(bits == 16);
    if (strstr(name, ".bmp")) CHECK(bits == 8);
}

/* Lines "name width height hash" or "name refused" of a table, for the files of a folder. */
static void check_table(const char *table, const char *folder, int least, int least_refused) {
    FILE *f = fopen(table, "r");
    char line[256], name[128], path[1300];
    int n = 0, n_refused = 0;
    CHECK(f != NULL);
    while (f && fgets(line, sizeof line, f)) {
        int w = 0, h = 0;
        unsigned long long hash = 0;
        int fields = sscanf(line, "%127s %d %d %llx", name, &w, &h, &hash);
        snprintf(path, sizeof path, "%s/%s", folder, name);
        gfl_pixels p;
        gfl_status status = gfl_image_read(context, path, &p);
        if (fields == 4) {
            n++;
            if (status != GFL_OK) printf("%s\n", gfl_context_get_error(context));
            if (status == GFL_OK && !same(&p, w, h, hash)) printf("%s: other pixels\n", name);
            CHECK(status == GFL_OK && same(&p, w, h, hash));
            check_bits(name, p.bits);
        } else {
            n_refused++;
            CHECK(status == GFL_E_FORMAT && strstr(gfl_context_get_error(context), name));
            CHECK(p.rgb == NULL);
        }
        gfl_pixels_free(context, &p);
    }
    if (f) fclose(f);
    printf("%d images, %d refused\n", n, n_refused);
    CHECK(n >= least && n_refused >= least_refused);
}

static void png_and_bmp_have_the_right_pixels(void) {
    check_table(data_path("images/lossless.txt"), data_path("images"), 10, 0);
}

static void png_suite_has_the_right_pixels(void) {
    const char *folder = data_shared("data/images/pngsuite");
    char one[1300];
    snprintf(one, sizeof one, "%s/basn0g01.png", folder);
    if (!data_exists(one)) {
        printf("skipped: no %s\n", one);
        test_skips++;
        return;
    }
    check_table(data_path("pngsuite.txt"), folder, 161, 14);
}

static double difference(const gfl_pixels *a, const gfl_pixels *b, int *worst) {
    size_t n = 3 * (size_t)a->width * (size_t)a->height;
    double sum = 0;
    *worst = 256;
    if (a->width != b->width || a->height != b->height || !a->rgb || !b->rgb) return 256;
    *worst = 0;
    for (size_t i = 0; i < n; i++) {
        int d = abs((int)a->rgb[i] - (int)b->rgb[i]);
        sum += d;
        if (d > *worst) *worst = d;
    }
    return sum / (double)n;
}

/* Two JPEG decoders may differ by a little. */
static void jpeg_is_close_to_the_reference(void) {
    static const char *const names[] = {"rgb.jpg", "grey.jpg", "progressive.jpg"};
    for (size_t i = 0; i < GFLI_COUNT(names); i++) {
        char name[64], reference[64];
        gfl_pixels got, want;
        int worst;
        snprintf(name, sizeof name, "images/%s", names[i]);
        snprintf(reference, sizeof reference, "images/%s.ppm", names[i]);
        CHECK_OK(context, gfl_image_read(context, data_path(name), &got));
        CHECK_OK(context, gfl_image_read(context, data_path(reference), &want));
        double mean = difference(&got, &want, &worst);
        printf("%s: mean %.3f, at most %d\n", names[i], mean, worst);
        CHECK(mean < 0.6 && worst <= 12);
        gfl_pixels_free(context, &got);
        gfl_pixels_free(context, &want);
    }
}

/* ---- EXIF ------------------------------------------------------------------------------------ */

/* The file with an APP1 segment of this orientation behind its first marker. */
static uint8_t *with_exif(const uint8_t *jpeg, size_t size, int orientation, bool big,
                          size_t *out_size) {
    static const uint8_t little[] = {0xFF, 0xE1, 0, 34, 'E', 'x', 'i', 'f', 0,    0, 'I', 'I',
                                     42,   0,    8, 0,  0,   0,   1,   0,   0x12, 1, 3,   0,
                                     1,    0,    0, 0,  0,   0,   0,   0,   0,    0, 0,   0};
    static const uint8_t great[] = {0xFF, 0xE1, 0, 34, 'E', 'x', 'i', 'f', 0,    0,    'M', 'M',
                                    0,    42,   0, 0,  0,   8,   0,   1,   0x01, 0x12, 0,   3,
                                    0,    0,    0, 1,  0,   0,   0,   0,   0,    0,    0,   0};
    size_t n = sizeof little;
    uint8_t *out = (uint8_t *)malloc(size + n);
    memcpy(out, jpeg, 2);
    memcpy(out + 2, big ? great : little, n);
    out[2 + (big ? 29 : 28)] = (uint8_t)orientation;
    memcpy(out + 2 + n, jpeg + 2, size - 2);
    *out_size = size + n;
    return out;
}

/* Where the upright picture's pixel (x, y) is stored, by the definition of each orientation: which
 * side of the stored rows and columns is the picture's top and left. */
static size_t stored_at(int orientation, int w, int h, int x, int y) {
    int sx[9] = {x, x, w - 1 - x, w - 1 - x, x, y, y, w - 1 - y, w - 1 - y};
    int sy[9] = {y, y, y, h - 1 - y, h - 1 - y, x, h - 1 - x, h - 1 - x, x};
    return 3 * ((size_t)sy[orientation] * (size_t)w + (size_t)sx[orientation]);
}

static void every_orientation_is_turned_upright(void) {
    size_t size, turned_size;
    uint8_t *jpeg = data_read(data_path("images/rgb.jpg"), &size);
    gfl_pixels plain, turned;
    CHECK_OK(context, gfl_image_read_memory(context, jpeg, size, "plain", &plain));
    for (int o = 0; o <= 8; o++)
        for (int big = 0; big <= 1; big++) {
            uint8_t *bytes = with_exif(jpeg, size, o, big != 0, &turned_size);
            CHECK_OK(context,
                     gfl_image_read_memory(context, bytes, turned_size, "turned", &turned));
            int w = plain.width, h = plain.height, wrong = 0;
            CHECK(turned.width == (o >= 5 ? h : w) && turned.height == (o >= 5 ? w : h));
            for (int y = 0; y < turned.height; y++)
                for (int x = 0; x < turned.width; x++)
                    wrong += memcmp(turned.rgb + 3 * (y * turned.width + x),
                                    plain.rgb + stored_at(o, w, h, x, y), 3) != 0;
            CHECK(wrong == 0);
            gfl_pixels_free(context, &turned);
            free(bytes);
        }
    gfl_pixels_free(context, &plain);
    free(jpeg);
}

static void the_eighteen_example_files_all_look_alike(void) {
    static const char *const kinds[] = {"Landscape", "Portrait"};
    for (int kind = 0; kind < 2; kind++) {
        gfl_pixels upright, other;
        char name[128];
        int worst;
        snprintf(name, sizeof name, "data/images/exif/%s_1.jpg", kinds[kind]);
        if (!data_exists(data_shared(name))) {
            printf("skipped: no %s\n", data_shared(name));
            test_skips++;
            return;
        }
        CHECK_OK(context, gfl_image_read(context, data_shared(name), &upright));
        CHECK((upright.width > upright.height) == (kind == 0));
        for (int o = 0; o <= 8; o++) {
            snprintf(name, sizeof name, "data/images/exif/%s_%d.jpg", kinds[kind], o);
            CHECK_OK(context, gfl_image_read(context, data_shared(name), &other));
            double mean = difference(&upright, &other, &worst);
            if (!(mean < 8)) printf("%s: mean difference %.2f\n", name, mean);
            CHECK(mean < 8); /* each was compressed on its own, and says its number in a corner */
            gfl_pixels_free(context, &other);
        }
        gfl_pixels_free(context, &upright);
    }
}

/* ---- PNM ------------------------------------------------------------------------------------- */

static void check_pnm(const char *header, const uint8_t *samples, size_t n, const uint8_t *want,
                      size_t n_want) {
    uint8_t bytes[256];
    gfl_pixels p;
    size_t length = strlen(header);
    memcpy(bytes, header, length);
    memcpy(bytes + length, samples, n);
    CHECK_OK(context, gfl_image_read_memory(context, bytes, length + n, "a.pnm", &p));
    CHECK(p.rgb && 3 * (size_t)p.width * (size_t)p.height == n_want &&
          memcmp(p.rgb, want, n_want) == 0);
    CHECK(p.bits == (strstr(header, "65535") ? 16 : 8));
    gfl_pixels_free(context, &p);
    CHECK_ERROR(context, gfl_image_read_memory(context, bytes, length + n - 1, "a.pnm", &p),
                GFL_E_FORMAT, "a.pnm");
}

static void pnm_of_8_and_16_bits(void) {
    static const uint8_t deep[] = {0, 0, 0x10, 0, 0x80, 0, 0xFF, 0xFF};
    static const uint8_t deep_want[] = {0, 0, 0, 16, 16, 16, 128, 128, 128, 255, 255, 255};
    check_pnm("P5 4 1 65535\n", deep, sizeof deep, deep_want, sizeof deep_want);
    static const uint8_t rgb[] = {1, 2, 3, 4, 5, 6};
    check_pnm("P6\n# a comment\n1 2\n255\n", rgb, sizeof rgb, rgb, sizeof rgb);
    static const uint8_t few[] = {0, 1, 2, 3},
                         few_want[] = {0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255};
    check_pnm("P5 2 2 3 ", few, sizeof few, few_want, sizeof few_want);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void cut_files_are_refused_at_every_length(void) {
    static const char *const names[] = {"rgb.jpg",  "progressive.jpg", "grey.jpg",    "rgb.png",
                                        "rgba.png", "palette.png",     "palette.bmp", "rgb.bmp"};
    for (size_t i = 0; i < GFLI_COUNT(names); i++) {
        char name[64];
        size_t size;
        int accepted = 0;
        snprintf(name, sizeof name, "images/%s", names[i]);
        uint8_t *bytes = data_read(data_path(name), &size);
        for (size_t n = 0; n < size; n++) {
            gfl_pixels p;
            uint8_t *cut = (uint8_t *)malloc(n ? n : 1); /* its end is seen by a sanitizer */
            memcpy(cut, bytes, n);
            accepted += gfl_image_read_memory(context, cut, n, names[i], &p) == GFL_OK;
            CHECK(strstr(gfl_context_get_error(context), names[i]) != NULL);
            free(cut);
        }
        /* The last row of a BMP may lack its padding. */
        CHECK(accepted <= (strstr(name, ".bmp") ? 3 : 0));
        free(bytes);
    }
}

static void png_with_any_bit_flipped_is_refused(void) {
    size_t size;
    uint8_t *bytes = data_read(data_path("images/palette.png"), &size);
    for (size_t i = 0; i < size; i++) {
        gfl_pixels p;
        bytes[i] ^= 0x10;
        CHECK(gfl_image_read_memory(context, bytes, size, "x", &p) != GFL_OK && !p.rgb);
        bytes[i] ^= 0x10;
    }
    free(bytes);
}

static void what_is_no_image_is_refused_by_name(void) {
    gfl_pixels p;
    CHECK_ERROR(context, gfl_image_read_memory(context, "", 0, "none.jpg", &p), GFL_E_FORMAT,
                "none.jpg: the file is empty");
    CHECK_ERROR(context, gfl_image_read_memory(context, "<html>", 6, "a.jpg", &p), GFL_E_FORMAT,
                "a.jpg: it is not a JPEG");
    CHECK_ERROR(context, gfl_image_read_memory(context, "GIF89a", 6, "a.gif", &p), GFL_E_FORMAT,
                "a.gif");
    CHECK_ERROR(context, gfl_image_read(context, data_path("images/absent.jpg"), &p), GFL_E_IO,
                "absent.jpg");
    CHECK_ERROR(context, gfl_image_read(context, data_path("images/cmyk.jpg"), &p),
                GFL_E_UNSUPPORTED, "CMYK");
    CHECK_ERROR(context, gfl_image_read_memory(context, "P2 1 1 1 1", 10, "a.pgm", &p),
                GFL_E_UNSUPPORTED, "a.pgm");
}

static void giants_are_refused_before_decoding(void) {
    size_t size;
    gfl_pixels p;
    uint8_t *jpeg = data_read(data_path("images/rgb.jpg"), &size);
    for (size_t i = 0; i + 9 < size; i++)
        if (jpeg[i] == 0xFF && jpeg[i + 1] == 0xC0) jpeg[i + 5] = jpeg[i + 7] = 0xFF;
    CHECK_ERROR(context, gfl_image_read_memory(context, jpeg, size, "big.jpg", &p), GFL_E_FORMAT,
                "big.jpg: it has 65");
    free(jpeg);
    CHECK_ERROR(context, gfl_image_read_memory(context, "P6 99999 1 255\n", 15, "b.ppm", &p),
                GFL_E_FORMAT, "99999 x 1");
    CHECK_ERROR(context, gfl_pixels_alloc(context, GFL_MAX_SIDE + 1, 1, &p), GFL_E_ARG, "16385");
}

/* The first bytes as the formats' standards have them, whatever the file is called. */
static void a_file_is_known_by_its_first_bytes(void) {
    static const struct {
        const char *bytes;
        size_t n;
        const char *kind;
        int readable;
    } cases[] = {
        {"\xFF\xD8\xFF\xE0\0\x10JFIF", 10, "JPEG", 1},
        {"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16, "PNG", 1},
        {"BM\x36\x10\0\0", 6, "BMP", 1},
        {"P6\n160 120\n255\n", 15, "PNM", 1},
        {"P5 2 2 255 ", 11, "PNM", 1},
        {"P6x", 3, NULL, 0},
        {"Picture", 7, NULL, 0},
        {"GIF89a", 6, "GIF", 0},
        {"RIFF\x4a\x09\0\0WEBPVP8 ", 16, "WebP", 0},
        {"RIFF\x4a\x09\0\0WAVEfmt ", 16, NULL, 0},
        {"II*\0\x08\0\0\0", 8, "TIFF", 0},
        {"MM\0*\0\0\0\x08", 8, "TIFF", 0},
        {"\0\0\0\x18"
         "ftypheic\0\0\0\0",
         16, "HEIF", 0},
        {"\0\0\0\x1c"
         "ftypavif\0\0\0\0",
         16, "AVIF", 0},
        {"\0\0\0\x20"
         "ftypisom\0\0\2\0",
         16, NULL, 0}, /* a film */
        {"\0\0\0\x0cjP  \r\n\x87\n", 12, "JPEG 2000", 0},
        {"{\"images\": []}", 14, NULL, 0},
        {"\xFF", 1, NULL, 0},
        {"", 0, NULL, 0},
    };
    gfl_pixels pixels;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int readable = 7;
        const char *kind = gfl_image_get_kind(cases[i].bytes, cases[i].n, &readable);
        const bool same = kind ? cases[i].kind && !strcmp(kind, cases[i].kind) : !cases[i].kind;
        if (!same) printf("case %zu: %s\n", i, kind ? kind : "nothing");
        CHECK(same && readable == cases[i].readable);
    }
    CHECK(gfl_image_get_kind(NULL, 0, NULL) == NULL);
    CHECK_ERROR(context, gfl_image_read_memory(context, cases[8].bytes, 16, "a.jpg", &pixels),
                GFL_E_FORMAT, "a.jpg: it is not a JPEG, PNG, BMP or PNM file but WebP");
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(png_and_bmp_have_the_right_pixels),
                                      TEST(png_suite_has_the_right_pixels),
                                      TEST(jpeg_is_close_to_the_reference),
                                      TEST(every_orientation_is_turned_upright),
                                      TEST(the_eighteen_example_files_all_look_alike),
                                      TEST(pnm_of_8_and_16_bits),
                                      TEST(a_file_is_known_by_its_first_bytes),
                                      TEST(cut_files_are_refused_at_every_length),
                                      TEST(png_with_any_bit_flipped_is_refused),
                                      TEST(what_is_no_image_is_refused_by_name),
                                      TEST(giants_are_refused_before_decoding),
                                      {0}};
    context = test_context(1);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
