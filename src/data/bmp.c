/* bmp.c - BMP, uncompressed */
#pragma once

typedef struct gfli_bmp {
    gfli_image_file *file;
    bool top_down;
    int bits;          /* of a pixel */
    uint32_t masks[3]; /* red, green, blue, of 16 and 32 bits */
    const uint8_t *palette, *pixels;
    uint32_t n_palette;
    size_t colour, row; /* bytes of a colour of the palette, of a row */
} gfli_bmp;

/* Do the mask's bits stand together? */
static bool gfli_bmp_mask(uint32_t mask) {
    uint32_t low = mask & (0u - mask);
    return mask != 0 && (mask / low & (mask / low + 1)) == 0;
}

/* The bits of a mask as a byte: the eight highest, or fewer repeated. */
static uint8_t gfli_bmp_channel(uint32_t value, uint32_t mask) {
    int bits = 0, shift = 0;
    while (!(mask >> shift & 1)) shift++;
    while (shift + bits < 32 && mask >> (shift + bits) & 1) bits++;
    uint32_t v = (value & mask) >> shift, byte = 0;
    if (bits >= 8) return (uint8_t)(v >> (bits - 8));
    v <<= 8 - bits;
    for (int n = 0; n < 8; n += bits) byte |= v >> n;
    return (uint8_t)byte;
}

/* A header of 40 bytes or more: sizes, masks, palette. */
static gfl_status gfli_bmp_header(gfli_bmp *b, uint32_t header, uint32_t *width, uint32_t *height) {
    gfli_image_file *f = b->file;
    const uint8_t *p = f->bytes;
    if (header < 40 || header > 124 || f->size < 14 + (size_t)header + (header < 52 ? 12 : 0))
        return gfli_image_damaged(f, "truncated or damaged BMP: an impossible header");
    *width = gfli_little32(p + 18);
    *height = gfli_little32(p + 22);
    b->top_down = *height > INT32_MAX;
    if (b->top_down) *height = 0u - *height;
    b->bits = p[28] | p[29] << 8;
    uint32_t compression = gfli_little32(p + 30);
    bool masked = compression == 3 && (b->bits == 16 || b->bits == 32);
    if (compression != 0 && !masked) return gfli_image_unsupported(f, "a compressed BMP");
    b->masks[0] = b->bits == 16 ? 0x7C00 : 0xFF0000;
    b->masks[1] = b->bits == 16 ? 0x03E0 : 0x00FF00;
    b->masks[2] = b->bits == 16 ? 0x001F : 0x0000FF;
    for (int i = 0; masked && i < 3; i++) {
        b->masks[i] = gfli_little32(p + 54 + 4 * i);
        if (!gfli_bmp_mask(b->masks[i]))
            return gfli_image_damaged(f, "damaged BMP: an impossible mask");
    }
    b->n_palette = gfli_little32(p + 46);
    return GFL_OK;
}

/* Where palette and pixels are, and whether they are there. */
static gfl_status gfli_bmp_place(gfli_bmp *b, uint32_t offset, uint32_t header) {
    gfli_image_file *f = b->file;
    if (b->bits != 1 && b->bits != 4 && b->bits != 8 && b->bits != 16 && b->bits != 24 &&
        b->bits != 32)
        return gfli_image_damaged(f, "damaged BMP: an impossible number of bits a pixel");
    size_t used = ((size_t)f->width * (size_t)b->bits + 7) / 8;
    b->row = (used + 3) / 4 * 4;
    if (offset < 14 + header || offset > f->size ||
        b->row * (size_t)(f->height - 1) + used > f->size - offset)
        return gfli_image_damaged(f, "truncated BMP: pixels are missing");
    b->pixels = f->bytes + offset;
    b->palette = f->bytes + 14 + header;
    if (b->bits > 8) return GFL_OK;
    uint32_t there = (offset - 14 - header) / (uint32_t)b->colour, most = 1u << b->bits;
    if (b->n_palette == 0 || b->n_palette > most) b->n_palette = most;
    if (b->n_palette > there) b->n_palette = there;
    return b->n_palette ? GFL_OK : gfli_image_damaged(f, "damaged BMP: its palette is missing");
}

static gfl_status gfli_bmp_open(gfli_bmp *b) {
    gfli_image_file *f = b->file;
    const uint8_t *p = f->bytes;
    if (f->size < 26) return gfli_image_damaged(f, "truncated BMP: its header is cut off");
    uint32_t offset = gfli_little32(p + 10), header = gfli_little32(p + 14);
    uint32_t width = p[18] | (uint32_t)p[19] << 8, height = p[20] | (uint32_t)p[21] << 8;
    b->colour = header == 12 ? 3 : 4;
    b->bits = p[24] | p[25] << 8;
    if (header != 12) GFLI_TRY(gfli_bmp_header(b, header, &width, &height));
    if (header == 12 && (b->bits == 16 || b->bits == 32))
        return gfli_image_unsupported(f, "a BMP of OS/2 with 16 or 32 bits a pixel");
    GFLI_TRY(gfli_image_size(f, width, height));
    GFLI_TRY(gfli_bmp_place(b, offset, header));
    return gfli_image_allow(f, 0);
}

/* Pixel x of a row as RGB; false: a colour that the palette does not have. */
static bool gfli_bmp_pixel(const gfli_bmp *b, const uint8_t *row, size_t x, uint8_t *rgb) {
    const uint8_t *p = row + x * (size_t)(b->bits / 8);
    if (b->bits == 16 || b->bits == 32) {
        uint32_t v = b->bits == 16 ? p[0] | (uint32_t)p[1] << 8 : gfli_little32(p);
        for (int c = 0; c < 3; c++) rgb[c] = gfli_bmp_channel(v, b->masks[c]);
        return true;
    }
    if (b->bits < 24) {
        size_t bit = x * (size_t)b->bits;
        uint32_t byte = row[bit / 8];
        uint32_t v = byte >> (8 - b->bits - (int)(bit % 8)) & ((1u << b->bits) - 1);
        if (v >= b->n_palette) return false;
        p = b->palette + v * b->colour;
    }
    for (int c = 0; c < 3; c++) rgb[c] = p[2 - c];
    return true;
}

gfl_status gfli_bmp_read(gfli_image_file *f, gfl_pixels *out) {
    gfli_bmp b;
    memset(&b, 0, sizeof b);
    b.file = f;
    GFLI_TRY(gfli_bmp_open(&b));
    if (out) GFLI_TRY(gfl_pixels_alloc(f->context, f->width, f->height, out));
    for (int y = 0; y < f->height && (out || b.bits <= 8); y++) {
        const uint8_t *row = b.pixels + b.row * (size_t)(b.top_down ? y : f->height - 1 - y);
        uint8_t *rgb = out ? out->rgb + 3 * (size_t)y * (size_t)f->width : NULL, aside[3];
        for (int x = 0; x < f->width; x++)
            if (!gfli_bmp_pixel(&b, row, (size_t)x, rgb ? rgb + 3 * x : aside))
                return gfli_image_damaged(f,
                                          "damaged BMP: a colour that its palette does not have");
    }
    return GFL_OK;
}
