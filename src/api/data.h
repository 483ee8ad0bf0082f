/* data.h - gfl_dataset: COCO annotations, image files */
#pragma once

/* Annotations, and where the pixels of their images come from. */
typedef struct gfl_dataset gfl_dataset;

/* An id as the file has it: a number, or a text. */
typedef struct gfl_id {
    int64_t number;   /* when text is NULL */
    const char *text; /* UTF-8, or NULL */
} gfl_id;

/* What training makes of an annotation.  Where more than one reason holds, it is the first. */
typedef enum gfl_annotation_use {
    GFL_ANNOTATION_TRAINED = 0, /* its box is learnt */
    GFL_ANNOTATION_SMALL = 1,   /* left out: less than a pixel wide or high */
    GFL_ANNOTATION_NO_AREA = 2, /* left out: its area is not above 0 */
    GFL_ANNOTATION_OUTSIDE = 3, /* left out: it does not touch its image */
    GFL_ANNOTATION_CROWD = 4,   /* left out; its region is trained as background, as in the paper */
    GFL_ANNOTATION_IGNORED = 5  /* left out because of its ignore field, likewise */
} gfl_annotation_use;

/* One box of an image. */
typedef struct gfl_annotation {
    double x, y, w, h;      /* corner and size in pixels, as annotated */
    double area;            /* the area field, or w * h */
    int label;              /* index into the classes */
    int image;              /* index into the images */
    int crowd;              /* iscrowd */
    int ignore;             /* the ignore field */
    gfl_id id;              /* its own */
    gfl_annotation_use use; /* found by the library */
} gfl_annotation;

/* What a data set says about one of its images. */
typedef struct gfl_image_info {
    gfl_id id;                         /* its own */
    const char *file_name;             /* as in the file; "" when it does not say */
    int width, height;                 /* as in the file; 0 when it does not say */
    const gfl_annotation *annotations; /* [n_annotations], in file order */
    int n_annotations;                 /* how many it has */
    int unreadable; /* 1: gfl_dataset_check found that it cannot be read, with skip_unreadable */
} gfl_image_info;

/* What was found while reading.  Every count after those of the first line deserves a warning. */
typedef struct gfl_dataset_summary {
    int n_images, n_classes, n_annotations, n_crowd; /* crowd boxes among the annotations */
    int n_empty_images;                              /* without any annotation */
    int n_missing_iscrowd, n_missing_area;           /* taken as 0 and as w * h */
    int n_degenerate;     /* boxes under a pixel in a direction or without area: not trained on */
    int n_outside;        /* boxes wholly outside their image: not trained on */
    int n_partly_outside; /* boxes that reach over the border by more than a pixel */
    int n_duplicate_ids;  /* annotations whose id an earlier one has */
    int n_zero_ids;       /* annotations with id 0 (pycocotools mis-scores them) */
    int n_strays;         /* annotations left out by skip_strays */
    int n_mistakes;       /* reported to desc.found; what is wrong was left out */
    int n_unnumbered;     /* annotations without an id, numbered after the others */
    /* Annotations that write an id as another type than its image or class does: "1" and 1 are the
     * same id. */
    int n_mixed_ids;
    int n_from_polygons;   /* boxes made by boxes_from_polygons */
    int n_duplicate_names; /* classes whose name another one has: a trainer refuses them */
    int n_empty_classes;   /* classes that no annotation has; left out by drop_empty_classes */
    /* Categories that were left out because no annotation has them and they are the supercategory
     * of others: exporters add such a root to their classes. */
    int n_parents;
} gfl_dataset_summary;

/* Decoded pixels: RGB, 8 bits, turned upright as EXIF says. */
typedef struct gfl_pixels {
    uint8_t *rgb;      /* u8 [height][width][3]; free with gfl_pixels_free */
    int width, height; /* upright */
    /* Bits per sample in the file; of 16, the lower 8 were dropped.  0: not from a file. */
    int bits;
} gfl_pixels;

/* A caller's own source of pixels.  It fills *out, whose memory comes from gfl_pixels_alloc.
 * Several loader threads call it at once, each with a context of its own. */
typedef gfl_status (*gfl_pixel_source)(void *user, gfl_context *context, int image,
                                       gfl_pixels *out);

/* Called with a mistake in an annotation file.  The text is like that of an error: file, line,
 * column, which annotation of which image, what was found and what is wanted.  It is valid until
 * the function returns.  The annotation, image or category is left out, or only its field where the
 * rest can be used.  Return 0 to go on; a non-zero return makes the mistake the error of the call
 * that reads the file.  A file that is not JSON, or not of COCO's form, is an error in any case. */
typedef int (*gfl_mistake_found)(void *user, const char *text);

/* How an annotation file is read.  Zero means the default of each field. */
typedef struct gfl_dataset_desc {
    /* The folder that file_name is relative to, a path as json_path is.  NULL: that of the JSON
     * file. */
    const char *image_dir;
    gfl_pixel_source read_image; /* called instead of reading files; NULL: files are read */
    void *user;                  /* handed to read_image */
    /* 1: annotations of images or classes that are not listed are left out; 0: they are an
     * error. */
    int skip_strays;
    /* 1: images whose size is not the annotated one are read, too; 0: they are an error, since
     * their boxes are most likely wrong. */
    int trust_boxes;
    int boxes_from_polygons; /* 1: an annotation without a bbox gets the one around its polygons */
    int drop_empty_classes;  /* 1: leave out classes that no annotation has */
    /* Called with each mistake, after which reading goes on.  NULL: the first one is an error. */
    gfl_mistake_found found;
    void *found_user; /* handed to found */
    /* 1: images that cannot be read do not end a call.  An evaluation leaves out those that
     * gfl_dataset_check finds.  In training, the next image of the data set stands in for each,
     * even for one that turns up in the middle of a run, which the logger is told.  So the order of
     * an epoch, and a resumed run, do not depend on which images can be read.  0: they are an
     * error. */
    int skip_unreadable;
} gfl_dataset_desc;

/* gfl_dataset_load_coco - read an annotation file in COCO's format.
 *
 * Keys and sections may come in any order, and ids may be numbers or texts.  Keys that are not
 * needed are skipped, even where their values are NaN or Infinity.  An id is the same as a number
 * and as a text, unless the file has both.
 *
 * Label k is the k-th category by ascending id, numbers before texts.  A category is left out, and
 * not counted, when no annotation has it and it is the supercategory of others, or with
 * drop_empty_classes whenever no annotation has it.  The logger is told which are left out.
 *
 * The images themselves are not opened.
 *
 *   context    the context that the data set is made with
 *   json_path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   desc       NULL, or zeroed with the fields set that you care about; copied
 *   out        set to the data set, which you own, or to NULL on error
 *
 * Errors    GFL_E_IO      the file cannot be read
 *           GFL_E_FORMAT  it is not JSON; the text says at which line and column (in bytes), and
 *                         what the file is instead
 *           GFL_E_DATA    it contradicts itself: an id is used twice or is unknown, or a box is not
 *                         a box; with skip_strays, too, when no annotation at all fits
 *           GFL_E_MEMORY  the allocator returned NULL
 * Memory    It grows with the number of images, annotations and classes, and is at most 32 bytes
 *           per byte of the file, and 256 kB.  Destroy the data set with gfl_dataset_destroy,
 *           before the context.
 * Threads   The data set is read-only once it is loaded: any number of threads may use it, each
 *           with a context of its own.
 */
GFL_API gfl_status gfl_dataset_load_coco(gfl_context *context, const char *json_path,
                                         const gfl_dataset_desc *desc, gfl_dataset **out);

/* gfl_dataset_load_coco_memory - the same from the file's bytes, borrowed until the call returns.
 * Without image_dir, file names are relative to the working directory.
 *
 * Errors, Memory, Threads   As gfl_dataset_load_coco, except that nothing is read. */
GFL_API gfl_status gfl_dataset_load_coco_memory(gfl_context *context, const char *json, size_t size,
                                                const gfl_dataset_desc *desc, gfl_dataset **out);

/* gfl_dataset_create - a data set from what a program has in memory.
 *
 * It is checked, counted and used as a file with the same content would be.  This function takes
 * what gfl_dataset_get_classes and gfl_dataset_get_image return, so that a program can change the
 * annotations of a file or leave out some of its images.
 *
 *   context    the context that the data set is made with
 *   classes    [n_classes], copied; ids ascend, or are all 0 where there are several, which means
 *              1, 2, 3 ...; the label of an annotation is an index into it
 *   images     [n_images], copied with all annotations and texts.  Ids differ, or are all 0 where
 *              there are several, which means 1, 2, 3 ...; file_name may be NULL where
 *              desc->read_image needs none; width and height may be 0 where they are not known;
 *              unreadable is not looked at.
 *              Of an annotation, image and use are not looked at, an area of 0 means w * h, and an
 *              id of 0 means that it is numbered after the others.
 *   desc       NULL, or zeroed with the fields set that you care about; copied.  Without
 *              image_dir, file names are relative to the working directory; skip_strays and
 *              boxes_from_polygons have no effect.
 *   out        set to the data set, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, a number is out of range, a class has no name in
 *                         UTF-8, an id is a text that is not UTF-8, or class ids do not ascend
 *           GFL_E_DATA    two images have the same id; without desc->found, too, a box or an area
 *                         is not a number, or a label is that of no class; the text says which
 *                         annotation of which image
 *           GFL_E_MEMORY  the allocator returned NULL
 * Memory    Destroy the data set with gfl_dataset_destroy, before the context.
 * Threads   As gfl_dataset_load_coco.
 * Example
 *     gfl_class classes[2] = {{"cat", 1}, {"dog", 2}};
 *     gfl_annotation boxes[1] = {0};
 *     gfl_image_info images[1] = {0};
 *     boxes[0].x = 10, boxes[0].y = 20, boxes[0].w = 200, boxes[0].h = 100, boxes[0].label = 1;
 *     images[0].file_name = "dog.jpg";
 *     images[0].annotations = boxes, images[0].n_annotations = 1;
 *     status = gfl_dataset_create(context, classes, 2, images, 1, NULL, &dataset); */
GFL_API gfl_status gfl_dataset_create(gfl_context *context, const gfl_class *classes, int n_classes,
                                      const gfl_image_info *images, int n_images,
                                      const gfl_dataset_desc *desc, gfl_dataset **out);

/* gfl_dataset_destroy - free a data set; NULL is allowed. */
GFL_API void gfl_dataset_destroy(gfl_dataset *dataset);

/* gfl_dataset_get_summary - counts of what is in the file, and of what looks wrong. */
GFL_API void gfl_dataset_get_summary(const gfl_dataset *dataset, gfl_dataset_summary *out);

/* gfl_dataset_count_images, gfl_dataset_count_classes - sizes; images are in file order. */
GFL_API int gfl_dataset_count_images(const gfl_dataset *dataset);
GFL_API int gfl_dataset_count_classes(const gfl_dataset *dataset);

/* gfl_dataset_get_classes - the classes, [n_classes], owned by the data set.  Where a category id
 * of the file is a text that is not a number, the id of every class is its label plus 1. */
GFL_API const gfl_class *gfl_dataset_get_classes(const gfl_dataset *dataset);

/* gfl_dataset_get_image - what the file says about an image; the texts and annotations are owned
 * by the data set.
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such image; there is no error text,
 *                         so that threads may share the data set
 */
GFL_API gfl_status gfl_dataset_get_image(const gfl_dataset *dataset, int image,
                                         gfl_image_info *out);

/* gfl_dataset_read - decode an image of the set, from its file or through read_image.
 *
 * An image whose size is not the one that the annotation file gives is refused, since its boxes
 * were made for other pixels.  gfl_dataset_desc.trust_boxes allows it.
 *
 * Errors    As gfl_image_read.  Where there is no file of that name, the text names a similar one
 *           that there is: with / for \\, without %20 and the like, or in the image folder itself.
 *           GFL_E_DATA    the annotation file gives no name, or a size that the image does not
 *                         have; the text says whether width and height are exchanged, and whether
 *                         EXIF turned the image
 * Memory    Free the pixels with gfl_pixels_free.
 */
GFL_API gfl_status gfl_dataset_read(gfl_context *context, const gfl_dataset *dataset, int image,
                                    gfl_pixels *out);

/* Who is told of a check.  NULL: nobody. */
typedef struct gfl_dataset_check_opts {
    /* Called with each image that cannot be read, in the order of the data set. */
    void (*found)(void *user, int image, gfl_status status, const char *text);
    /* Called now and then with the number of images looked at and the total.  A non-zero return
     * stops the check. */
    int (*progress)(void *user, int done, int total);
    void *user; /* handed to both */
} gfl_dataset_check_opts;

/* gfl_dataset_check - look at every image file of a data set before hours depend on them.
 *
 * Each file is opened and looked through as gfl_dataset_read would do it, except that no pixels are
 * made.  Every code of a JPEG is followed, the checksums of a PNG are compared and its data is
 * inflated, BMP and PNM must have as many bytes as their size needs, and the size must be the
 * annotated one.  So everything that reading would refuse is found, in about a third of the time.
 * Where the data set has a read_image, that is called instead.
 *
 * Images that cannot be read are an error of the call.  Where the data set was loaded with
 * skip_unreadable, they are marked instead (gfl_image_info.unreadable), until they can be read
 * again.  Evaluators that are created afterwards leave them out, and in training the next image
 * stands in for each.
 *
 *   context       its threads do the work
 *   dataset       no other thread may use it during the call
 *   opts          NULL, or zeroed with the fields set that you care about; its functions are called
 *                 by the calling thread
 *   n_unreadable  set to the number of images that cannot be read; may be NULL
 *
 * Errors    GFL_E_DATA     without skip_unreadable, some images cannot be read; the text says how
 *                          many, and why the first cannot
 *           GFL_E_MEMORY   the allocator returned NULL, which says nothing about an image
 *           GFL_E_STOPPED  opts->progress asked to stop
 *           GFL_E_ARG      an argument is NULL
 * Memory    For each thread, what decoding one image takes, without its pixels.
 */
GFL_API gfl_status gfl_dataset_check(gfl_context *context, gfl_dataset *dataset,
                                     const gfl_dataset_check_opts *opts, int *n_unreadable);

/* gfl_image_read - decode a JPEG, PNG, BMP or binary PNM file to RGB.
 *
 * EXIF orientation is applied, grey is replicated, alpha is dropped without blending, and of 16-bit
 * samples the high byte is taken.  Damaged and truncated files are refused, and so are those larger
 * than GFL_MAX_SIDE.  The codes of a JPEG are followed to the last block before anything is
 * decoded.  Frames of Motion JPEG use the standard's code tables, and bytes behind the last block
 * are skipped.  What is not understood is refused, never decoded to something else.
 *
 *   context  receives the error text, which names the file
 *   path     the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   out      set by the call; zeroed on error
 *
 * Errors    GFL_E_IO           the file cannot be read
 *           GFL_E_FORMAT       it is not an image, or is damaged
 *           GFL_E_UNSUPPORTED  it is an image of a kind that is not read (CMYK, or a JPEG of more
 *                              than 128 scans), it would take more memory than
 *                              gfl_context_desc.image_memory, or it is a JPEG and the library was
 *                              built with GFL_NO_STB_IMAGE
 *           GFL_E_MEMORY       the allocator returned NULL
 * Memory    Free the pixels with gfl_pixels_free.  Decoding takes the file, and up to 18 bytes per
 *           pixel that its header declares, whatever its data says: most for a progressive JPEG,
 *           and for a PNG its rows as they are stored.  The time is in proportion to pixels and
 *           file.
 */
GFL_API gfl_status gfl_image_read(gfl_context *context, const char *path, gfl_pixels *out);

/* gfl_image_read_memory - the same from a file's bytes; name is for the error text.
 *
 * Errors, Memory   As gfl_image_read, except GFL_E_IO. */
GFL_API gfl_status gfl_image_read_memory(gfl_context *context, const void *bytes, size_t size,
                                         const char *name, gfl_pixels *out);

/* gfl_image_get_kind - what kind of picture a file is, by its first bytes; its name is not looked
 * at.
 *
 *   bytes     [size] the beginning of the file; 16 bytes suffice
 *   readable  set to 1 where gfl_image_read of this build reads pictures of this kind, else to
 *             0; may be NULL
 *
 * It returns "JPEG", "PNG", "BMP", "PNM", "GIF", "WebP", "TIFF" and so on, or NULL where the bytes
 * do not begin a picture of a kind that the library knows.
 *
 * Errors    None.
 * Memory    None.
 * Threads   Any.
 */
GFL_API const char *gfl_image_get_kind(const void *bytes, size_t size, int *readable);

/* gfl_pixels_alloc - memory for an image of this size, from the context's allocator.
 *
 * Errors    GFL_E_ARG     a side is not in 1..GFL_MAX_SIDE
 *           GFL_E_MEMORY  the allocator returned NULL
 */
GFL_API gfl_status gfl_pixels_alloc(gfl_context *context, int width, int height, gfl_pixels *out);

/* gfl_pixels_free - give the pixels back and zero the struct; a second call does no harm. */
GFL_API void gfl_pixels_free(gfl_context *context, gfl_pixels *pixels);
