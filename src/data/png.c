/* png.c - PNG */
#pragma once

typedef struct gfli_png {
    gfli_image_file *file;
    int depth, type, channels; /* bits of a sample; colour type; samples of a pixel */
    bool interlaced;
    const uint8_t *palette, *data; /* bodies of the chunks; data: of the first */
    int n_palette;                 /* colours */
    bool data_ended;               /* another chunk stood behind the data */
    size_t n_rows;                 /* bytes of all rows of all passes, with their filters */
    uint8_t *rows;
} gfli_png;

/* A picture, or every so many pixels of it. */
typedef struct gfli_png_pass {
    int x, y, step_x, step_y, width, height;
} gfli_png_pass;

static gfli_png_pass gfli_png_get_pass(const gfli_png *png, int number) {
    static const uint8_t passes[7][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                         {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    static const uint8_t whole[4] = {0, 0, 1, 1};
    const uint8_t *p = png->interlaced ? passes[number] : whole;
    gfli_png_pass pass = {p[0], p[1], p[2], p[3], 0, 0};
    pass.width = (png->file->width - pass.x + pass.step_x - 1) / pass.step_x;
    pass.height = (png->file->height - pass.y + pass.step_y - 1) / pass.step_y;
    return pass;
}

/* Bytes of a row without its filter. */
static size_t gfli_png_row(const gfli_png *png, int width) {
    return ((size_t)width * (size_t)(png->channels * png->depth) + 7) / 8;
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static gfl_status gfli_png_header(gfli_png *png, const uint8_t *p, uint32_t length) {
    static const int channels[7] = {1, 0, 3, 1, 2, 0, 4};
    /* Bit depths 1, 2, 4, 8, 16 of a colour type, as a sum of the depths. */
    static const int depths[7] = {31, 0, 24, 15, 24, 0, 24};
    gfli_image_file *f = png->file;
    if (length != 13) return gfli_image_damaged(f, "damaged PNG: its header is not 13 bytes");
    GFLI_TRY(gfli_image_size(f, gfli_big32(p), gfli_big32(p + 4)));
    int depth = p[8], type = p[9];
    if (type > 6 || depth < 1 || depth > 16 || (depth & (depth - 1)) || !(depths[type] & depth))
        return gfli_image_damaged(f, "damaged PNG: an impossible colour type or bit depth");
    if (p[10] != 0 || p[11] != 0 || p[12] > 1)
        return gfli_image_damaged(f, "damaged PNG: an unknown compression, filter or interlace");
    f->bits = png->depth = depth;
    png->type = type;
    png->channels = channels[type];
    png->interlaced = p[12] != 0;
    for (int i = 0; i < (png->interlaced ? 7 : 1); i++) {
        gfli_png_pass pass = gfli_png_get_pass(png, i);
        if (pass.width > 0 && pass.height > 0)
            png->n_rows += (gfli_png_row(png, pass.width) + 1) * (size_t)pass.height;
    }
    return gfli_image_allow(f, png->n_rows);
}

static gfl_status gfli_png_palette(gfli_png *png, const uint8_t *p, uint32_t length) {
    if (length % 3 || length < 3 || length > 768 || png->palette)
        return gfli_image_damaged(png->file, "damaged PNG: an impossible palette");
    png->palette = p;
    png->n_palette = (int)(length / 3);
    return GFL_OK;
}

/* One chunk whose checksum is right.  Sets *end at the last. */
static gfl_status gfli_png_chunk(gfli_png *png, const uint8_t *type, uint32_t length, bool *end) {
    gfli_image_file *f = png->file;
    const uint8_t *body = type + 4;
    if (memcmp(type, "CgBI", 4) == 0) return gfli_image_unsupported(f, "Apple's private PNG");
    bool header = memcmp(type, "IHDR", 4) == 0, data = memcmp(type, "IDAT", 4) == 0;
    if (header && f->width) return gfli_image_damaged(f, "damaged PNG: two headers");
    if (!header && !f->width)
        return gfli_image_damaged(f, "damaged PNG: it does not begin with its header");
    if (data && png->type == 3 && !png->palette)
        return gfli_image_damaged(f, "damaged PNG: its palette is missing");
    if (data && png->data_ended)
        return gfli_image_damaged(f, "damaged PNG: its data is in several places");
    if (!data && png->data) png->data_ended = true;
    *end = memcmp(type, "IEND", 4) == 0;
    if (header) return gfli_png_header(png, body, length);
    if (memcmp(type, "PLTE", 4) == 0) return gfli_png_palette(png, body, length);
    if (data && !png->data) png->data = body;
    if (memcmp(type, "eXIf", 4) == 0 && !f->orientation)
        f->orientation = gfli_exif_orientation(body, length);
    if (!data && !*end && !(type[0] & 32)) /* one that must be understood */
        return gfli_image_unsupported(f, "a PNG with a chunk of an unknown kind");
    return GFL_OK;
}

static gfl_status gfli_png_chunks(gfli_png *png) {
    gfli_image_file *f = png->file;
    uint32_t tables[8][256];
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
        GFLI_TRY(gfli_png_chunk(png, p + 4, length, &end));
        at += 12 + (size_t)length;
    }
    return png->data ? GFL_OK : gfli_image_damaged(f, "damaged PNG: it holds no pixels");
}

/* ---- pixels ---------------------------------------------------------------------------------- */

static int gfli_png_paeth(int left, int above, int corner) {
    int a = above - corner, b = left - corner, c = a + b;
    if (a < 0) a = -a;
    if (b < 0) b = -b;
    if (c < 0) c = -c;
    return a <= b && a <= c ? left : b <= c ? above : corner;
}

/* Undo a row's filter in place; above is NULL for the first row of a pass. */
static bool gfli_png_unfilter(int filter, uint8_t *row, const uint8_t *above, size_t n,
                              size_t back) {
    if (filter == 1)
        for (size_t i = back; i < n; i++) row[i] = (uint8_t)(row[i] + row[i - back]);
    if (filter == 2)
        for (size_t i = 0; above && i < n; i++) row[i] = (uint8_t)(row[i] + above[i]);
    for (size_t i = 0; filter > 2 && i < n; i++) {
        int left = i >= back ? row[i - back] : 0, up = above ? above[i] : 0;
        int corner = above && i >= back ? above[i - back] : 0;
        int guess = filter == 3 ? (left + up) / 2 : gfli_png_paeth(left, up, corner);
        row[i] = (uint8_t)(row[i] + guess);
    }
    return filter <= 4;
}

/* The sample's byte: the high one of 16 bits, fewer than 8 as they are. */
static unsigned gfli_png_sample(const gfli_png *png, const uint8_t *row, size_t sample) {
    if (png->depth >= 8) return row[sample * (size_t)(png->depth / 8)];
    size_t bit = sample * (size_t)png->depth;
    unsigned byte = row[bit / 8];
    return byte >> (8 - png->depth - (int)(bit % 8)) & ((1u << png->depth) - 1);
}

/* Pixel x of a row as RGB; false: a colour that the palette does not have. */
static bool gfli_png_pixel(const gfli_png *png, const uint8_t *row, size_t x, uint8_t *rgb) {
    unsigned v = gfli_png_sample(png, row, x * (size_t)png->channels);
    if (png->type == 3) {
        if (v >= (unsigned)png->n_palette) return false;
        memcpy(rgb, png->palette + 3 * v, 3);
    } else if (png->type & 2) {
        rgb[0] = (uint8_t)v;
        for (size_t c = 1; c < 3; c++)
            rgb[c] = (uint8_t)gfli_png_sample(png, row, x * (size_t)png->channels + c);
    } else {
        if (png->depth < 8) v = v * 255 / ((1u << png->depth) - 1);
        rgb[0] = rgb[1] = rgb[2] = (uint8_t)v;
    }
    return true;
}

/* The rows of a pass, from p on.  Without out only what could be wrong with them is looked at. */
static gfl_status gfli_png_pass_rows(const gfli_png *png, const gfli_png_pass *pass, uint8_t *p,
                                     gfl_pixels *out) {
    const size_t n = gfli_png_row(png, pass->width);
    const size_t back = (size_t)gfli_max(1, png->channels * png->depth / 8);
    for (int y = 0; y < pass->height; y++, p += n + 1) {
        uint8_t aside[3];
        if (!gfli_png_unfilter(p[0], p + 1, y ? p - n : NULL, n, back))
            return gfli_image_damaged(png->file, "damaged PNG: an impossible filter");
        for (int x = 0; x < pass->width && (out || png->type == 3); x++) {
            size_t at = (size_t)(pass->y + y * pass->step_y) * (size_t)png->file->width +
                        (size_t)(pass->x + x * pass->step_x);
            if (!gfli_png_pixel(png, p + 1, (size_t)x, out ? out->rgb + 3 * at : aside))
                return gfli_image_damaged(png->file,
                                          "damaged PNG: a colour that its palette does not have");
        }
    }
    return GFL_OK;
}

static gfl_status gfli_png_decode(gfli_png *png, gfl_pixels *out) {
    gfli_image_file *f = png->file;
    gfli_inflate *z;
    GFLI_TRY(gfli_alloc(f->context, png->n_rows, 1, "the rows of a PNG", &png->rows));
    GFLI_TRY(gfli_calloc(f->context, 1, sizeof *z, "the codes of a PNG", &z));
    z->at = png->data;
    z->end = png->data + gfli_big32(png->data - 8);
    z->file_end = f->bytes + f->size;
    z->out = png->rows;
    z->room = png->n_rows;
    const char *why = gfli_inflate_all(z);
    gfli_free(f->context, z);
    if (why) return gfli_image_damaged(f, why);
    if (out) GFLI_TRY(gfl_pixels_alloc(f->context, f->width, f->height, out));
    uint8_t *p = png->rows;
    for (int i = 0; i < (png->interlaced ? 7 : 1); i++) {
        gfli_png_pass pass = gfli_png_get_pass(png, i);
        if (pass.width < 1 || pass.height < 1) continue;
        GFLI_TRY(gfli_png_pass_rows(png, &pass, p, out));
        p += (gfli_png_row(png, pass.width) + 1) * (size_t)pass.height;
    }
    return GFL_OK;
}

gfl_status gfli_png_read(gfli_image_file *f, gfl_pixels *out) {
    gfli_png png;
    memset(&png, 0, sizeof png);
    png.file = f;
    GFLI_TRY(gfli_png_chunks(&png));
    gfl_status status = gfli_png_decode(&png, out);
    gfli_free(f->context, png.rows);
    return status;
}
