/* image.c - image files through stb_image, with our own checks */
#pragma once

/* stb_image is lenient: it returns pixels for files that end too early, knows no checksum, and
 * takes CMYK for RGB.  So a file is first walked through here, from its first to its last byte,
 * and decoded only when it is whole and of a kind that stb_image gets right. */

/* A file no camera makes; it also keeps every size an int. */
#define GFLI_IMAGE_FILE_LIMIT ((size_t)1 << 30)

typedef struct gfli_image_file {
    gfl_context *context;
    const char *name;
    const uint8_t *bytes;
    size_t size;
    int width, height; /* stored, before the orientation */
    int orientation;
} gfli_image_file;

gfl_status gfl_pixels_alloc(gfl_context *context, int width, int height, gfl_pixels *out) {
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, out);
    memset(out, 0, sizeof *out);
    if (width < 1 || height < 1 || width > GFL_MAX_SIDE || height > GFL_MAX_SIDE)
        return gfli_error(context, GFL_E_ARG, "an image of %d x %d; sides are 1..%d", width, height,
                          GFL_MAX_SIDE);
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

static gfl_status gfli_image_damaged(const gfli_image_file *f, const char *why) {
    return gfli_error(f->context, GFL_E_FORMAT, "%s: %s", f->name, why);
}

static gfl_status gfli_image_unsupported(const gfli_image_file *f, const char *what) {
    return gfli_error(f->context, GFL_E_UNSUPPORTED,
                      "%s: %s; convert it to an 8-bit RGB JPEG or PNG", f->name, what);
}

static gfl_status gfli_image_size(gfli_image_file *f, uint32_t width, uint32_t height) {
    if (width < 1 || height < 1 || width > GFL_MAX_SIDE || height > GFL_MAX_SIDE)
        return gfli_error(f->context, GFL_E_FORMAT, "%s: %lu x %lu pixels; sides are 1..%d",
                          f->name, (unsigned long)width, (unsigned long)height, GFL_MAX_SIDE);
    f->width = (int)width;
    f->height = (int)height;
    return GFL_OK;
}

static uint32_t gfli_big32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t gfli_little32(const uint8_t *p) {
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* ---- JPEG ------------------------------------------------------------------------------------ */

/* What the segments have said so far. */
typedef struct gfli_jpeg {
    int channels;
    uint8_t id[3], quantiser[3]; /* of each channel */
    unsigned quantisers;         /* bits of the tables that are there */
    unsigned scanned;            /* bits of the channels that a scan has held */
} gfli_jpeg;

static gfl_status gfli_jpeg_frame(gfli_image_file *f, int marker, const uint8_t *p, size_t length,
                                  gfli_jpeg *jpeg) {
    if (f->width) return gfli_image_unsupported(f, "a JPEG of several frames");
    if (length < 8) return gfli_image_damaged(f, "damaged JPEG: its frame header is too short");
    if (marker != 0xC0 && marker != 0xC1 && marker != 0xC2)
        return gfli_image_unsupported(f, "a lossless, hierarchical or arithmetic-coded JPEG");
    if (p[2] != 8) return gfli_image_unsupported(f, "a JPEG of more than 8 bits");
    uint32_t height = (uint32_t)p[3] << 8 | p[4], width = (uint32_t)p[5] << 8 | p[6];
    if (height == 0) return gfli_image_unsupported(f, "a JPEG that gives its height at the end");
    if (p[7] == 4) return gfli_image_unsupported(f, "a CMYK or YCCK JPEG");
    if (p[7] != 1 && p[7] != 3)
        return gfli_image_unsupported(f, "a JPEG of neither 1 nor 3 channels");
    if (length != 8 + 3 * (size_t)p[7])
        return gfli_image_damaged(f, "damaged JPEG: its frame header has the wrong length");
    jpeg->channels = p[7];
    for (int i = 0; i < jpeg->channels; i++) {
        jpeg->id[i] = p[8 + 3 * i];
        jpeg->quantiser[i] = p[10 + 3 * i] & 3;
    }
    return gfli_image_size(f, width, height);
}

static gfl_status gfli_jpeg_quantisers(gfli_image_file *f, const uint8_t *p, size_t length,
                                       gfli_jpeg *jpeg) {
    for (size_t at = 2, size; at < length; at += size) {
        size = p[at] >> 4 ? 129 : 65;
        if (size > length - at)
            return gfli_image_damaged(f, "damaged JPEG: a quantisation table is cut off");
        jpeg->quantisers |= 1u << (p[at] & 3);
    }
    return GFL_OK;
}

/* stb_image 2.27 believes the counts of a Huffman table: more than 256 codes overrun its memory.
 * No table needs even 255, and the code of all ones is forbidden. */
static gfl_status gfli_jpeg_codes(gfli_image_file *f, const uint8_t *p, size_t length) {
    for (size_t at = 2; at < length;) {
        unsigned n = 0, code = 0;
        if (length - at < 17) return gfli_image_damaged(f, "damaged JPEG: a code table is cut off");
        for (unsigned bits = 1; bits <= 16; bits++) {
            unsigned count = p[at + bits];
            n += count;
            code = 2 * code + count;
            if ((count > 0 && code >= 1u << bits) || code > 1u << 16)
                return gfli_image_damaged(f, "damaged JPEG: an impossible code table");
        }
        at += 17 + (size_t)n;
        if (n > 255 || at > length)
            return gfli_image_damaged(f, "damaged JPEG: an impossible code table");
    }
    return GFL_OK;
}

static gfl_status gfli_jpeg_scan(gfli_image_file *f, const uint8_t *p, size_t length,
                                 gfli_jpeg *jpeg) {
    if (!f->width) return gfli_image_damaged(f, "damaged JPEG: pixels before their size");
    if (length < 3 || length != 6 + 2 * (size_t)p[2] || p[2] < 1 || p[2] > jpeg->channels)
        return gfli_image_damaged(f, "damaged JPEG: a scan header has the wrong length");
    for (int k = 0; k < p[2]; k++) {
        int i = 0;
        while (i < jpeg->channels && jpeg->id[i] != p[3 + 2 * k]) i++;
        if (i == jpeg->channels || !(jpeg->quantisers >> jpeg->quantiser[i] & 1))
            return gfli_image_damaged(f, "damaged JPEG: a scan lacks its channel or table");
        jpeg->scanned |= 1u << i;
    }
    return GFL_OK;
}

static gfl_status gfli_jpeg_segment(gfli_image_file *f, int marker, const uint8_t *p, size_t length,
                                    gfli_jpeg *jpeg) {
    enum { APP1 = 0xE1, SOS = 0xDA, DQT = 0xDB, DHT = 0xC4, JPG = 0xC8, DAC = 0xCC };
    if (marker == APP1 && length >= 8 && memcmp(p + 2, "Exif\0\0", 6) == 0 && !f->orientation)
        f->orientation = gfli_exif_orientation(p + 8, length - 8);
    if (marker == SOS) return gfli_jpeg_scan(f, p, length, jpeg);
    if (marker == DQT) return gfli_jpeg_quantisers(f, p, length, jpeg);
    if (marker == DHT) return gfli_jpeg_codes(f, p, length);
    if (marker >= 0xC0 && marker <= 0xCF && marker != JPG && marker != DAC)
        return gfli_jpeg_frame(f, marker, p, length, jpeg);
    return GFL_OK;
}

/* From marker to marker; what is between a scan's header and the next marker is its data. */
static gfl_status gfli_jpeg_check(gfli_image_file *f) {
    enum { EOI = 0xD9 };
    const uint8_t *end = f->bytes + f->size, *p = f->bytes + 2;
    gfli_jpeg jpeg;
    memset(&jpeg, 0, sizeof jpeg);
    for (;;) {
        p = p < end ? (const uint8_t *)memchr(p, 0xFF, (size_t)(end - p)) : NULL;
        while (p && p < end && *p == 0xFF) p++;
        if (!p || p >= end)
            return gfli_image_damaged(f, "truncated JPEG: the end of the image is missing");
        int marker = *p++;
        if (marker == EOI) break;
        if (marker <= 1 || (marker >= 0xD0 && marker <= 0xD8)) continue; /* no segment follows */
        size_t left = (size_t)(end - p), length = left < 2 ? 0 : (size_t)p[0] << 8 | p[1];
        if (length < 2 || length > left)
            return gfli_image_damaged(f, "truncated JPEG: a segment is cut off");
        GFLI_TRY(gfli_jpeg_segment(f, marker, p, length, &jpeg));
        p += length;
    }
    if (!f->width || jpeg.scanned != (1u << jpeg.channels) - 1)
        return gfli_image_damaged(f, "damaged JPEG: pixels of some channel are missing");
    /* A block's brightness takes a bit at least: so few bytes cannot hold so large a picture. */
    size_t blocks = (size_t)gfli_ceil_div(f->width, 8) * (size_t)gfli_ceil_div(f->height, 8);
    if (blocks / 8 > f->size) return gfli_image_damaged(f, "truncated JPEG: pixels are missing");
    return GFL_OK;
}

/* ---- PNG ------------------------------------------------------------------------------------- */

typedef struct gfli_png {
    bool palette;
    uint64_t data, most; /* bytes of pixel data, and how many an image of this size can need */
} gfli_png;

static gfl_status gfli_png_header(gfli_image_file *f, const uint8_t *p, uint32_t length,
                                  gfli_png *png) {
    static const int channels[7] = {1, 0, 3, 1, 2, 0, 4};
    /* Bit depths 1, 2, 4, 8, 16 of a colour type, as a sum of the depths. */
    static const int depths[7] = {31, 0, 24, 15, 24, 0, 24};
    if (length != 13) return gfli_image_damaged(f, "damaged PNG: its header is not 13 bytes");
    GFLI_TRY(gfli_image_size(f, gfli_big32(p), gfli_big32(p + 4)));
    int depth = p[8], type = p[9];
    if (type > 6 || depth < 1 || depth > 16 || (depth & (depth - 1)) || !(depths[type] & depth))
        return gfli_image_damaged(f, "damaged PNG: an impossible colour type or bit depth");
    if (p[10] != 0 || p[11] != 0 || p[12] > 1)
        return gfli_image_damaged(f, "damaged PNG: an unknown compression, filter or interlace");
    uint64_t row = ((uint64_t)f->width * (uint64_t)(channels[type] * depth) + 7) / 8 + 1;
    png->palette = type == 3;
    png->most = 2 * row * (uint64_t)f->height + 65536;
    return GFL_OK;
}

/* One chunk whose checksum is right.  Sets *end at the last. */
static gfl_status gfli_png_chunk(gfli_image_file *f, const uint8_t *type, uint32_t length,
                                 gfli_png *png, bool *end) {
    const uint8_t *body = type + 4;
    if (memcmp(type, "CgBI", 4) == 0) return gfli_image_unsupported(f, "Apple's private PNG");
    if (memcmp(type, "IHDR", 4) == 0) {
        if (f->width) return gfli_image_damaged(f, "damaged PNG: two headers");
        return gfli_png_header(f, body, length, png);
    }
    if (!f->width) return gfli_image_damaged(f, "damaged PNG: it does not begin with its header");
    if (memcmp(type, "PLTE", 4) == 0) png->palette = false;
    if (memcmp(type, "eXIf", 4) == 0 && !f->orientation)
        f->orientation = gfli_exif_orientation(body, length);
    if (memcmp(type, "IDAT", 4) == 0) {
        if (png->palette) return gfli_image_damaged(f, "damaged PNG: its palette is missing");
        png->data += length;
    }
    *end = memcmp(type, "IEND", 4) == 0;
    return GFL_OK;
}

static gfl_status gfli_png_check(gfli_image_file *f) {
    uint32_t tables[8][256];
    gfli_png png = {false, 0, 0};
    bool end = false;
    gfli_crc32_tables(tables);
    for (size_t at = 8; !end;) {
        if (f->size - at < 12) return gfli_image_damaged(f, "truncated PNG: its end is missing");
        const uint8_t *p = f->bytes + at;
        uint32_t length = gfli_big32(p);
        if (length > f->size - at - 12)
            return gfli_image_damaged(f, "truncated PNG: a chunk is cut off");
        if (gfli_crc32(tables, 0, p + 4, (size_t)length + 4) != gfli_big32(p + 8 + length))
            return gfli_image_damaged(f, "damaged PNG: a checksum is wrong");
        GFLI_TRY(gfli_png_chunk(f, p + 4, length, &png, &end));
        at += 12 + (size_t)length;
    }
    if (png.data == 0) return gfli_image_damaged(f, "damaged PNG: it holds no pixels");
    /* What does not compress grows by a trifle; far more can only be meant to exhaust memory. */
    if (png.data > png.most)
        return gfli_image_damaged(f, "damaged PNG: far more data than its size can need");
    return GFL_OK;
}

/* ---- BMP ------------------------------------------------------------------------------------- */

static gfl_status gfli_bmp_check(gfli_image_file *f) {
    const uint8_t *p = f->bytes;
    if (f->size < 26) return gfli_image_damaged(f, "truncated BMP: its header is cut off");
    uint32_t offset = gfli_little32(p + 10), header = gfli_little32(p + 14), compression = 0;
    uint32_t width = p[18] | (uint32_t)p[19] << 8, height = p[20] | (uint32_t)p[21] << 8;
    int bits = p[24] | p[25] << 8;
    if (header != 12) {
        if (f->size < 54 || header < 40)
            return gfli_image_damaged(f, "truncated BMP: its header is cut off");
        width = gfli_little32(p + 18);
        height = gfli_little32(p + 22);
        if (height > INT32_MAX) height = 0u - height; /* rows from the top */
        bits = p[28] | p[29] << 8;
        compression = gfli_little32(p + 30);
    }
    GFLI_TRY(gfli_image_size(f, width, height));
    if (compression != 0 && !(compression == 3 && (bits == 16 || bits == 32)))
        return gfli_image_unsupported(f, "a compressed BMP");
    if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32)
        return gfli_image_damaged(f, "damaged BMP: an impossible number of bits a pixel");
    uint64_t used = ((uint64_t)width * (uint64_t)bits + 7) / 8, row = (used + 3) / 4 * 4;
    if (offset < 14 + header || offset > f->size || row * (height - 1) + used > f->size - offset)
        return gfli_image_damaged(f, "truncated BMP: pixels are missing");
    return GFL_OK;
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
    if (at >= f->size || f->size - at - 1 < n * channels * bytes)
        return gfli_image_damaged(f, "truncated PNM: pixels are missing");
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

/* ---- all of them ----------------------------------------------------------------------------- */

#ifndef GFL_NO_STB_IMAGE

static uint8_t *gfli_stb_load(const gfli_image_file *f, int *width, int *height) {
    int channels;
    uint8_t *rgb = stbi_load_from_memory(f->bytes, (int)f->size, width, height, &channels, 3);
    if (!rgb)
        (void)gfli_error(f->context, GFL_E_FORMAT, "%s: damaged image: %s", f->name,
                         stbi_failure_reason());
    return rgb;
}

static void gfli_stb_free(uint8_t *rgb) {
    stbi_image_free(rgb);
}

enum { GFLI_STB_FAILURE = GFL_E_FORMAT };

#else

static uint8_t *gfli_stb_load(const gfli_image_file *f, int *width, int *height) {
    *width = *height = 0;
    (void)gfli_error(f->context, GFL_E_UNSUPPORTED,
                     "%s: this library was built with GFL_NO_STB_IMAGE; give the data set a "
                     "read_image",
                     f->name);
    return NULL;
}

static void gfli_stb_free(uint8_t *rgb) {
    (void)rgb;
}

enum { GFLI_STB_FAILURE = GFL_E_UNSUPPORTED };

#endif

static gfl_status gfli_image_decode(gfli_image_file *f, gfl_pixels *out) {
    int width, height;
    uint8_t *rgb = gfli_stb_load(f, &width, &height);
    if (!rgb) return (gfl_status)GFLI_STB_FAILURE;
    gfl_status status = GFL_OK;
    if (width != f->width || height != f->height)
        status = gfli_image_damaged(f, "damaged image: it has two sizes");
    bool swap = f->orientation >= 5;
    if (status == GFL_OK)
        status = gfl_pixels_alloc(f->context, swap ? height : width, swap ? width : height, out);
    if (status == GFL_OK)
        gfli_exif_apply(rgb, width, height, gfli_max(1, f->orientation), out->rgb);
    gfli_stb_free(rgb);
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

const char *gfl_image_kind(const void *bytes, size_t size, int *readable) {
    const gfli_image_magic *m = gfli_image_find((const uint8_t *)bytes, bytes ? size : 0);
#ifdef GFL_NO_STB_IMAGE
    if (readable) *readable = m && m->reader == GFLI_IMAGE_PNM;
#else
    if (readable) *readable = m && m->reader != GFLI_IMAGE_FOREIGN;
#endif
    return m ? m->kind : NULL;
}

static gfl_status gfli_image_foreign(const gfli_image_file *f, const char *kind) {
    if (!kind) return gfli_image_damaged(f, "not a JPEG, PNG, BMP or PNM file");
    return gfli_error(f->context, GFL_E_FORMAT,
                      "%s: not a JPEG, PNG, BMP or PNM file but %s, which is not read; convert it",
                      f->name, kind);
}

static gfl_status gfli_image_read(gfli_image_file *f, gfl_pixels *out) {
    const uint8_t *p = f->bytes;
    if (f->size == 0) return gfli_image_damaged(f, "the file is empty");
    if (f->size > GFLI_IMAGE_FILE_LIMIT) return gfli_image_damaged(f, "the file is over 1 GB");
    const gfli_image_magic *m = gfli_image_find(p, f->size);
    switch (m ? m->reader : GFLI_IMAGE_FOREIGN) {
    case GFLI_IMAGE_JPEG: GFLI_TRY(gfli_jpeg_check(f)); break;
    case GFLI_IMAGE_PNG: GFLI_TRY(gfli_png_check(f)); break;
    case GFLI_IMAGE_BMP: GFLI_TRY(gfli_bmp_check(f)); break;
    case GFLI_IMAGE_PNM: return gfli_pnm_read(f, out);
    default: return gfli_image_foreign(f, m ? m->kind : NULL);
    }
    return gfli_image_decode(f, out);
}

static gfl_status gfli_image_read_bytes(gfl_context *context, const void *bytes, size_t size,
                                        const char *name, gfl_pixels *out, int *orientation) {
    gfli_image_file f;
    memset(&f, 0, sizeof f);
    f.context = context;
    f.name = name ? name : "an image in memory";
    f.bytes = (const uint8_t *)bytes;
    f.size = size;
    gfl_status status = gfli_image_read(&f, out);
    *orientation = f.orientation;
    return status;
}

gfl_status gfl_image_read_memory(gfl_context *context, const void *bytes, size_t size,
                                 const char *name, gfl_pixels *out) {
    int orientation;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, out);
    memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(context, bytes);
    return gfli_image_read_bytes(context, bytes, size, name, out, &orientation);
}

gfl_status gfli_image_load(gfl_context *context, const char *path, gfl_pixels *out,
                           int *orientation) {
    uint8_t *bytes;
    size_t size;
    GFLI_TRY(gfli_file_read(context, path, GFLI_IMAGE_FILE_LIMIT, &bytes, &size));
    gfl_status status = gfli_image_read_bytes(context, bytes, size, path, out, orientation);
    gfli_free(context, bytes);
    return status;
}

gfl_status gfl_image_read(gfl_context *context, const char *path, gfl_pixels *out) {
    int orientation;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, out);
    memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(context, path);
    return gfli_image_load(context, path, out, &orientation);
}
