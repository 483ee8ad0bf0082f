/* image.h - what the readers of image files share */
#pragma once

/* A file no camera makes; it also keeps every size an int. */
#define GFLI_IMAGE_FILE_LIMIT ((size_t)1 << 30)

/* What decoding may take where the context does not say. */
#define GFLI_IMAGE_MEMORY ((uint64_t)4 << 30)

typedef struct gfli_image_file {
    gfl_context *context;
    const char *name;
    const uint8_t *bytes;
    size_t size;
    int width, height; /* stored, before the orientation */
    int bits;          /* of a sample; 0: 8 */
    int orientation;   /* of EXIF; 0: the file does not give one */
} gfli_image_file;

/* Statuses with a text that names the file. */
gfl_status gfli_image_damaged(const gfli_image_file *f, const char *why);
gfl_status gfli_image_unsupported(const gfli_image_file *f, const char *what);

/* Take the size that a header gives, if it is one. */
gfl_status gfli_image_size(gfli_image_file *f, uint32_t width, uint32_t height);

/* May decoding take so much memory, beside the file and the pixels that it ends in? */
gfl_status gfli_image_allow(const gfli_image_file *f, uint64_t working);

/* An image file's pixels, its size and its EXIF orientation.  Without out the file is checked only:
 * what decoding would refuse is refused, and no pixels are made. */
gfl_status gfli_image_load(gfl_context *context, const char *path, gfl_pixels *out,
                           gfli_image_file *facts);

static inline uint32_t gfli_big32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t gfli_little32(const uint8_t *p) {
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* ---- the kinds (bmp.c, jpeg.c, png.c, exif.c) ------------------------------------------------ */

gfl_status gfli_bmp_read(gfli_image_file *f, gfl_pixels *out);
gfl_status gfli_png_read(gfli_image_file *f, gfl_pixels *out);
/* Is the file whole and of a kind that is read?  *out, which the caller frees, is what stb_image is
 * to decode; NULL to check only. */
gfl_status gfli_jpeg_check(gfli_image_file *f, uint8_t **out, size_t *n_out);

/* The orientation, 1..8, of a TIFF block as EXIF holds it; 1 when there is none or it is damaged,
 * as other readers do. */
int gfli_exif_orientation(const uint8_t *tiff, size_t size);
/* out = in turned upright; from orientation 5 on out is in_h wide and in_w high. */
void gfli_exif_apply(const uint8_t *in, int in_w, int in_h, int orientation, uint8_t *out);

/* ---- checksums (crc.c) ----------------------------------------------------------------------- */

/* Table k gives the effect of a byte that k more bytes follow: eight bytes take one step. */
void gfli_crc32_tables(uint32_t tables[8][256]);
/* Of more bytes behind those whose checksum is crc; 0 at the start. */
uint32_t gfli_crc32(uint32_t tables[8][256], uint32_t crc, const uint8_t *p, size_t n);
