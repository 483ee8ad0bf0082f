/* image.c - image files of every kind that is read, by their content */
#pragma once

gfl_status gfl_pixels_alloc(gfl_context *context, int width, int height, gfl_pixels *out) {
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, out);
    memset(out, 0, sizeof *out);
    if (width < 1 || height < 1 || width > GFL_MAX_SIDE || height > GFL_MAX_SIDE)
        return gfli_error(context, GFL_E_ARG, "the image is %d x %d; each side must be 1..%d",
                          width, height, GFL_MAX_SIDE);
    GFLI_TRY(gfli_alloc(context, (size_t)width * (size_t)height, 3, "an image", &out->rgb));
    out->width = width;
    out->height = height;
    return GFL_OK;
}

void gfl_pixels_free(gfl_context *context, gfl_pixels *pixels) {
    if (!context || !pixels) return;
    gfli_free(context, pixels->rgb);
    memset(pixels, 0, sizeof *pixels);
}

gfl_status gfli_image_damaged(const gfli_image_file *f, const char *why) {
    return gfli_error(f->context, GFL_E_FORMAT, "%s: %s", f->name, why);
}

gfl_status gfli_image_unsupported(const gfli_image_file *f, const char *what) {
    return gfli_error(f->context, GFL_E_UNSUPPORTED,
                      "%s: %s; convert it to an 8-bit RGB JPEG or PNG", f->name, what);
}

gfl_status gfli_image_size(gfli_image_file *f, uint32_t width, uint32_t height) {
    if (width < 1 || height < 1 || width > GFL_MAX_SIDE || height > GFL_MAX_SIDE)
        return gfli_error(f->context, GFL_E_FORMAT,
                          "%s: it has %lu x %lu pixels; each side must be 1..%d", f->name,
                          (unsigned long)width, (unsigned long)height, GFL_MAX_SIDE);
    f->width = (int)width;
    f->height = (int)height;
    return GFL_OK;
}

gfl_status gfli_image_allow(const gfli_image_file *f, uint64_t working) {
    uint64_t limit = f->context->image_memory,
             pixels = 3 * (uint64_t)f->width * (uint64_t)f->height;
    uint64_t need = f->size + working + 2 * pixels; /* twice: turned upright */
    if (limit == 0) limit = GFLI_IMAGE_MEMORY;
    if (need <= limit) return GFL_OK;
    return gfli_error(
        f->context, GFL_E_UNSUPPORTED,
        "%s: decoding its %d x %d pixels takes %.3g MB, more than the limit of %.3g MB "
        "(image_memory); make it smaller, or raise the limit",
        f->name, f->width, f->height, (double)need * 1e-6, (double)limit * 1e-6);
}

/* ---- PNM: easily read here, and stb_image swaps the bytes of 16-bit samples --- */

/* The next number of the header, or 0: comments and blanks before it are stepped over. */
static uint32_t gfli_pnm_number(const gfli_image_file *f, size_t *at) {
    uint32_t v = 0;
    size_t i = *at;
    while (i < f->size) {
        uint8_t c = f->bytes[i];
        if (c == '#')
            while (i < f->size && f->bytes[i] != '\n') i++;
        else if (c == ' ' || (c >= '\t' && c <= '\r'))
            i++;
        else
            break;
    }
    for (; i < f->size && f->bytes[i] >= '0' && f->bytes[i] <= '9' && v < 1000000; i++)
        v = v * 10 + (uint32_t)(f->bytes[i] - '0');
    *at = i;
    return v;
}

/* A sample of 0..most as a byte: the high one of 16 bits, otherwise to scale. */
static uint8_t gfli_pnm_sample(uint32_t v, uint32_t most) {
    if (most == 65535) return (uint8_t)(v >> 8);
    return (uint8_t)((gfli_min((int)v, (int)most) * 255 + (int)most / 2) / (int)most);
}

static gfl_status gfli_pnm_read(gfli_image_file *f, gfl_pixels *out) {
    size_t at = 2, channels = f->bytes[1] == '6' ? 3 : 1;
    if (f->bytes[1] != '5' && f->bytes[1] != '6')
        return gfli_image_unsupported(f, "a PNM that is neither binary grey (P5) nor RGB (P6)");
    uint32_t width = gfli_pnm_number(f, &at), height = gfli_pnm_number(f, &at);
    uint32_t most = gfli_pnm_number(f, &at);
    GFLI_TRY(gfli_image_size(f, width, height));
    if (most < 1 || most > 65535)
        return gfli_image_damaged(f, "damaged PNM: an impossible largest value");
    size_t bytes = most > 255 ? 2 : 1, n = (size_t)width * height;
    f->bits = 8 * (int)bytes;
    if (at >= f->size || f->size - at - 1 < n * channels * bytes)
        return gfli_image_damaged(f, "truncated PNM: pixels are missing");
    GFLI_TRY(gfli_image_allow(f, 0));
    if (!out) return GFL_OK;
    GFLI_TRY(gfl_pixels_alloc(f->context, f->width, f->height, out));
    const uint8_t *p = f->bytes + at + 1;
    for (size_t i = 0; i < n * channels; i++, p += bytes) {
        uint8_t v = gfli_pnm_sample(bytes == 2 ? (uint32_t)p[0] << 8 | p[1] : p[0], most);
        uint8_t *o = out->rgb + (channels == 3 ? i : 3 * i);
        o[0] = v;
        if (channels == 1) o[1] = o[2] = v;
    }
    return GFL_OK;
}

/* ---- stb_image, which reads JPEG ------------------------------------------------------------- */

#ifndef GFL_NO_STB_IMAGE

/* Where stb_image's memory comes from while a thread decodes: the caller's context.  What it asks
 * for is known from the size of the picture; more is refused. */
typedef struct gfli_stb_memory {
    gfl_context *context;
    uint64_t left;
    gfl_status status; /* why it got none */
} gfli_stb_memory;

static GFLI_THREAD_LOCAL gfli_stb_memory *gfli_stb_current;

static void *gfli_stb_alloc(size_t size) {
    gfli_stb_memory *m = gfli_stb_current;
    void *p = NULL;
    if (size > m->left) {
        m->status = GFL_E_FORMAT;
        return NULL;
    }
    m->left -= size;
    /* Cleared: what a file leaves out must not become chance pixels. */
    m->status = gfli_calloc(m->context, size, 1, "decoding a JPEG", &p);
    return p;
}

static void *gfli_stb_realloc(void *p, size_t old_size, size_t size) {
    void *grown = gfli_stb_alloc(size);
    if (grown && p) memcpy(grown, p, old_size < size ? old_size : size);
    if (grown) gfli_free(gfli_stb_current->context, p);
    return grown;
}

static void gfli_stb_free(void *p) {
    gfli_free(gfli_stb_current->context, p);
}

/* The file anew, to pixels from the context's allocator. */
static gfl_status gfli_stb_load(const gfli_image_file *f, const uint8_t *bytes, size_t size,
                                uint8_t **rgb) {
    /* Three planes and their coefficients of whole units, four rows of each, pixels. */
    uint64_t across = (uint64_t)f->width + 32, down = (uint64_t)f->height + 32;
    gfli_stb_memory memory = {f->context, across * down * 12 + across * 24 + 65536, GFL_OK};
    int width = 0, height = 0, channels = 0;
    gfli_stb_current = &memory;
    *rgb = stbi_load_from_memory(bytes, (int)size, &width, &height, &channels, 3);
    if (*rgb && (width != f->width || height != f->height)) {
        gfli_stb_free(*rgb);
        *rgb = NULL;
    }
    gfli_stb_current = NULL;
    if (*rgb) return GFL_OK;
    if (memory.status == GFL_E_MEMORY) return memory.status;
    return gfli_error(f->context, GFL_E_FORMAT, "%s: damaged JPEG: %s", f->name,
                      memory.status == GFL_OK ? stbi_failure_reason()
                                              : "it wants more memory than its size can need");
}

#else

static gfl_status gfli_stb_load(const gfli_image_file *f, const uint8_t *bytes, size_t size,
                                uint8_t **rgb) {
    (void)bytes;
    (void)size;
    *rgb = NULL;
    return gfli_error(f->context, GFL_E_UNSUPPORTED,
                      "%s: it is a JPEG, and this library was built with GFL_NO_STB_IMAGE, without "
                      "a reader of JPEG; convert it, or give the data set a read_image",
                      f->name);
}

#endif

static gfl_status gfli_jpeg_read(gfli_image_file *f, gfl_pixels *out) {
    uint8_t *anew = NULL;
    size_t size = 0;
    if (!out) return gfli_jpeg_check(f, NULL, NULL);
    GFLI_TRY(gfli_jpeg_check(f, &anew, &size));
    gfl_status status = gfli_stb_load(f, anew, size, &out->rgb);
    gfli_free(f->context, anew);
    if (status != GFL_OK) return status;
    out->width = f->width;
    out->height = f->height;
    return GFL_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* The picture turned upright. */
static gfl_status gfli_image_turn(gfli_image_file *f, gfl_pixels *out) {
    gfl_pixels stored = *out;
    bool swap = f->orientation >= 5;
    gfl_status status = gfl_pixels_alloc(f->context, swap ? stored.height : stored.width,
                                         swap ? stored.width : stored.height, out);
    if (status == GFL_OK)
        gfli_exif_apply(stored.rgb, stored.width, stored.height, f->orientation, out->rgb);
    gfl_pixels_free(f->context, &stored);
    return status;
}

enum { GFLI_IMAGE_FOREIGN, GFLI_IMAGE_JPEG, GFLI_IMAGE_PNG, GFLI_IMAGE_BMP, GFLI_IMAGE_PNM };

typedef struct gfli_image_magic {
    const char *kind;
    int reader; /* one of the above */
    size_t at, n;
    const char *bytes;
} gfli_image_magic;

/* What the first bytes say, or NULL. */
static const gfli_image_magic *gfli_image_find(const uint8_t *p, size_t size) {
    static const gfli_image_magic known[] = {
        {"JPEG", GFLI_IMAGE_JPEG, 0, 3, "\xFF\xD8\xFF"},
        {"PNG", GFLI_IMAGE_PNG, 0, 8, "\x89PNG\r\n\x1a\n"},
        {"BMP", GFLI_IMAGE_BMP, 0, 2, "BM"},
        {"PNM", GFLI_IMAGE_PNM, 0, 1, "P"},
        {"GIF", GFLI_IMAGE_FOREIGN, 0, 4, "GIF8"},
        {"WebP", GFLI_IMAGE_FOREIGN, 8, 4, "WEBP"},
        {"TIFF", GFLI_IMAGE_FOREIGN, 0, 4, "II*\0"},
        {"TIFF", GFLI_IMAGE_FOREIGN, 0, 4, "MM\0*"},
        {"TIFF", GFLI_IMAGE_FOREIGN, 0, 4, "II+\0"},
        {"HEIF", GFLI_IMAGE_FOREIGN, 4, 7, "ftyphei"},
        {"HEIF", GFLI_IMAGE_FOREIGN, 4, 8, "ftypmif1"},
        {"AVIF", GFLI_IMAGE_FOREIGN, 4, 8, "ftypavif"},
        {"JPEG XL", GFLI_IMAGE_FOREIGN, 0, 2, "\xFF\x0A"},
        {"JPEG XL", GFLI_IMAGE_FOREIGN, 4, 4, "JXL "},
        {"JPEG 2000", GFLI_IMAGE_FOREIGN, 4, 4, "jP  "},
        {"JPEG 2000", GFLI_IMAGE_FOREIGN, 0, 4, "\xFF\x4F\xFF\x51"},
        {"OpenEXR", GFLI_IMAGE_FOREIGN, 0, 4, "\x76\x2F\x31\x01"},
        {"Photoshop", GFLI_IMAGE_FOREIGN, 0, 4, "8BPS"},
    };
    for (size_t i = 0; i < GFLI_COUNT(known); i++) {
        const gfli_image_magic *m = &known[i];
        if (size < m->at + m->n || memcmp(p + m->at, m->bytes, m->n) != 0) continue;
        /* "P" and a digit begin words too: a space has to follow. */
        if (m->reader == GFLI_IMAGE_PNM && (size < 3 || p[1] < '1' || p[1] > '7' || p[2] > ' '))
            continue;
        return m;
    }
    return NULL;
}

const char *gfl_image_get_kind(const void *bytes, size_t size, int *readable) {
    const gfli_image_magic *m = gfli_image_find((const uint8_t *)bytes, bytes ? size : 0);
#ifdef GFL_NO_STB_IMAGE
    if (readable) *readable = m && m->reader != GFLI_IMAGE_FOREIGN && m->reader != GFLI_IMAGE_JPEG;
#else
    if (readable) *readable = m && m->reader != GFLI_IMAGE_FOREIGN;
#endif
    return m ? m->kind : NULL;
}

static gfl_status gfli_image_foreign(const gfli_image_file *f, const char *kind) {
    if (!kind) return gfli_image_damaged(f, "it is not a JPEG, PNG, BMP or PNM file");
    return gfli_error(
        f->context, GFL_E_FORMAT,
        "%s: it is not a JPEG, PNG, BMP or PNM file but %s, which is not read; convert it", f->name,
        kind);
}

/* Without out the file is checked only. */
static gfl_status gfli_image_decode_file(gfli_image_file *f, gfl_pixels *out) {
    const uint8_t *p = f->bytes;
    if (f->size == 0) return gfli_image_damaged(f, "the file is empty");
    if (f->size > GFLI_IMAGE_FILE_LIMIT) return gfli_image_damaged(f, "the file is over 1 GB");
    const gfli_image_magic *m = gfli_image_find(p, f->size);
    gfl_status status;
    switch (m ? m->reader : GFLI_IMAGE_FOREIGN) {
    case GFLI_IMAGE_JPEG: status = gfli_jpeg_read(f, out); break;
    case GFLI_IMAGE_PNG: status = gfli_png_read(f, out); break;
    case GFLI_IMAGE_BMP: status = gfli_bmp_read(f, out); break;
    case GFLI_IMAGE_PNM: status = gfli_pnm_read(f, out); break;
    default: return gfli_image_foreign(f, m ? m->kind : NULL);
    }
    if (status == GFL_OK && out && f->orientation > 1) status = gfli_image_turn(f, out);
    if (status != GFL_OK && out) gfl_pixels_free(f->context, out);
    if (status == GFL_OK && out) out->bits = f->bits ? f->bits : 8;
    return status;
}

gfl_status gfl_image_read_memory(gfl_context *context, const void *bytes, size_t size,
                                 const char *name, gfl_pixels *out) {
    gfli_image_file f;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, out);
    memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(context, bytes);
    memset(&f, 0, sizeof f);
    f.context = context;
    f.name = name ? name : "an image in memory";
    f.bytes = (const uint8_t *)bytes;
    f.size = size;
    return gfli_image_decode_file(&f, out);
}

gfl_status gfli_image_load(gfl_context *context, const char *path, gfl_pixels *out,
                           gfli_image_file *facts) {
    uint8_t *bytes;
    memset(facts, 0, sizeof *facts);
    if (out) memset(out, 0, sizeof *out);
    GFLI_TRY(gfli_file_read(context, path, GFLI_IMAGE_FILE_LIMIT, &bytes, &facts->size));
    facts->context = context;
    facts->name = path;
    facts->bytes = bytes;
    gfl_status status = gfli_image_decode_file(facts, out);
    gfli_free(context, bytes);
    facts->bytes = NULL;
    return status;
}

gfl_status gfl_image_read(gfl_context *context, const char *path, gfl_pixels *out) {
    gfli_image_file facts;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, out);
    memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(context, path);
    return gfli_image_load(context, path, out, &facts);
}
