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
