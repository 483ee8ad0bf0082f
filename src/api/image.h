/* image.h - gfl_image: pixels that belong to the caller */
#pragma once

/* The bytes of a pixel, in the order in which they lie in memory. */
typedef enum gfl_format {
    GFL_FORMAT_RGB = 0,  /* 3 bytes per pixel */
    GFL_FORMAT_BGR = 1,  /* 3 */
    GFL_FORMAT_RGBA = 2, /* 4; alpha is ignored, not blended */
    GFL_FORMAT_BGRA = 3, /* 4, likewise */
    GFL_FORMAT_GREY = 4  /* 1, used for all three channels */
} gfl_format;

/* A picture to find objects in; borrowed by the call that gets it. */
typedef struct gfl_image {
    const uint8_t *pixels; /* u8 [height][width][channels of the format] */
    int width, height;     /* pixels, 1..GFL_MAX_SIDE */
    ptrdiff_t stride;      /* bytes from one row to the next, may be negative; 0 means no gap */
    gfl_format format;     /* of the pixels */
} gfl_image;

/* gfl_image_from_rgb - an image of 8-bit RGB pixels without gaps between the rows, as a gfl_pixels
 * holds them.
 *
 *   pixels         u8 [height][width][3], borrowed as long as the image is used
 *   width, height  1..GFL_MAX_SIDE; gfl_detect refuses others
 *
 * Errors    None.
 * Memory    None.
 * Threads   Any.
 * Example
 *     gfl_image image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height); */
GFL_INLINE gfl_image gfl_image_from_rgb(const uint8_t *pixels, int width, int height) {
    gfl_image image;
    image.pixels = pixels;
    image.width = width;
    image.height = height;
    image.stride = 0;
    image.format = GFL_FORMAT_RGB;
    return image;
}
