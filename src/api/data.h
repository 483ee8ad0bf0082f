/* data.h - gfl_dataset: COCO annotations, image files */
#pragma once

typedef struct gfl_dataset gfl_dataset;

/* An id as the file has it: a number, or a text. */
typedef struct gfl_id {
    int64_t number;   /* when text is NULL */
    const char *text; /* UTF-8, or NULL */
} gfl_id;

typedef struct gfl_annotation {
    double x, y, w, h; /* as annotated, pixels: corner and size */
    double area;       /* the area field, or w * h */
    int label;         /* index into the classes */
    int image;         /* index into the images */
    int crowd;         /* iscrowd */
    int ignore;        /* the ignore field */
    gfl_id id;
} gfl_annotation;

typedef struct gfl_image_info {
    gfl_id id;
    const char *file_name; /* as in the file */
    int width, height;     /* as in the file; 0 when it does not say */
    const gfl_annotation *annotations; /* [n_annotations], in file order */
    int n_annotations;
} gfl_image_info;

/* What was found while reading; every count that is not 0 deserves a warning. */
typedef struct gfl_dataset_summary {
    int n_images, n_classes, n_annotations, n_empty_images; /* empty: no annotation at all */
    int n_crowd, n_missing_iscrowd, n_missing_area;
    int n_degenerate;          /* boxes under one pixel in a direction, or of no area: not trained on */
    int n_outside;             /* boxes wholly outside their image: not trained on */
    int n_partly_outside;      /* boxes that reach over the border by more than a pixel */
    int n_duplicate_ids;       /* annotation ids used more than once */
    int n_zero_ids;            /* annotations with id 0 (pycocotools mis-scores them) */
} gfl_dataset_summary;

/* Decoded pixels: RGB, 8 bit, EXIF orientation applied. */
typedef struct gfl_pixels {
    uint8_t *rgb; /* u8 [height][width][3]; free with gfl_pixels_free */
    int width, height;
} gfl_pixels;

/* A caller's own source of pixels: fill out->rgb with memory from gfl_pixels_alloc.  Called from
 * loader threads, several at once. */
typedef gfl_status (*gfl_read_image)(void *user, gfl_context *context, int image,
                                     gfl_pixels *out);

typedef struct gfl_dataset_opts {
    const char *image_dir;     /* where file_name is looked up; NULL: the folder of the JSON file */
    gfl_read_image read_image; /* instead of files */
    void *user;
} gfl_dataset_opts;

GFL_API gfl_status gfl_dataset_load_coco(gfl_context *context, const char *json_path,
                                         const gfl_dataset_opts *opts, gfl_dataset **out);
GFL_API gfl_status gfl_dataset_load_coco_memory(gfl_context *context, const char *json, size_t size,
                                                const gfl_dataset_opts *opts, gfl_dataset **out);
GFL_API void gfl_dataset_destroy(gfl_dataset *dataset);

GFL_API void gfl_dataset_get_summary(const gfl_dataset *dataset, gfl_dataset_summary *out);
GFL_API int gfl_dataset_n_images(const gfl_dataset *dataset);
GFL_API int gfl_dataset_n_classes(const gfl_dataset *dataset);
GFL_API const gfl_class *gfl_dataset_classes(const gfl_dataset *dataset);
GFL_API gfl_status gfl_dataset_get_image(const gfl_dataset *dataset, int image, gfl_image_info *out);

/* gfl_dataset_read - decode image i of the set. */
GFL_API gfl_status gfl_dataset_read(gfl_context *context, const gfl_dataset *dataset, int image, gfl_pixels *out);

/* gfl_image_read - decode a JPEG, PNG, BMP or PNM file (through stb_image, with our own checks). */
GFL_API gfl_status gfl_image_read(gfl_context *context, const char *path, gfl_pixels *out);
GFL_API gfl_status gfl_image_read_memory(gfl_context *context, const void *bytes, size_t size,
                                         const char *name, gfl_pixels *out);
GFL_API gfl_status gfl_pixels_alloc(gfl_context *context, int width, int height, gfl_pixels *out);
GFL_API void gfl_pixels_free(gfl_context *context, gfl_pixels *pixels);
