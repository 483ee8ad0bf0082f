/* Generated from src/gfl_train.c by "make amalgamate".  Edit src/, not this file. */
/* gfl_train.c - training, data sets and COCO evaluation for gfl.h
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef GFL_INTERNAL
#define GFL_INTERNAL
#endif
#include "gfl.h"
#if GFL_VERSION != 200
#    error "this file is of gfl 0.2.0 and gfl.h is not: take both from one release"
#endif

/* ===============================================================================================
 * src/data/std.h - stb_image, private to this file: the system's, or the program's own
 * ============================================================================================ */

#ifndef GFL_NO_STB_IMAGE
#    ifdef __cplusplus
extern "C" {
#    endif
/* Memory for stb_image: data/image.c. */
static void *gfli_stb_alloc(size_t size);
static void *gfli_stb_realloc(void *p, size_t old_size, size_t size);
static void gfli_stb_free(void *p);
#    ifdef __cplusplus
}
#    endif
#    define STB_IMAGE_STATIC
#    define STB_IMAGE_IMPLEMENTATION
#    define STBI_MAX_DIMENSIONS              GFL_MAX_SIDE
#    define STBI_MALLOC(size)                gfli_stb_alloc(size)
#    define STBI_REALLOC_SIZED(p, old, size) gfli_stb_realloc(p, old, size)
#    define STBI_FREE(p)                     gfli_stb_free(p)
#    define STBI_ASSERT(condition)           ((void)0) /* a file never ends the process */
#    define STBI_NO_STDIO
/* Only JPEG is given to it.  Its PNG stays, as it declares functions that it would not define. */
#    define STBI_NO_BMP
#    define STBI_NO_HDR
#    define STBI_NO_LINEAR
#    define STBI_NO_PIC
#    define STBI_NO_PNM
#    define STBI_NO_PSD
#    define STBI_NO_GIF
#    define STBI_NO_TGA
/* stb_image declares the first name and defines the second. */
#    define stbi__unpremultiply_on_load_thread stbi_set_unpremultiply_on_load_thread
#    if defined(__GNUC__)
#        pragma GCC diagnostic push
#        pragma GCC diagnostic ignored "-Wunused-function"
#        if !defined(__clang__) /* of readers by callback, which are not used */
#            pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#        endif
#    endif
/* Names of its own that hosts have macros for. */
#    pragma push_macro("L")
#    pragma push_macro("abs")
#    undef L
#    undef abs
#    if !defined(__has_include)
#        include <stb/stb_image.h>
#    elif __has_include(<stb/stb_image.h>)
#        include <stb/stb_image.h>
#    elif __has_include("stb_image.h")
#        include "stb_image.h"
#    else
#        error                                                                                     \
            "gfl: stb_image.h: install libstb-dev, put it beside this, or define GFL_NO_STB_IMAGE"
#    endif
#    pragma pop_macro("abs")
#    pragma pop_macro("L")
#    undef stbi__unpremultiply_on_load_thread
#    if defined(__GNUC__)
#        pragma GCC diagnostic pop
#    endif
#endif

GFLI_BEGIN

/* ===============================================================================================
 * src/data/image.h - what the readers of image files share
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/data/inflate.h - the compressed data of a PNG
 * ============================================================================================ */

/* A table of codes as RFC 1951 has them: the first bit of a code is the lowest of what comes. */
typedef struct gfli_inflate_codes {
    uint16_t fast[512]; /* by the next 9 bits: length << 12 | symbol; 0: the code is longer */
    uint16_t count[16]; /* of codes of a length */
    uint16_t symbols[288];
} gfli_inflate_codes;

typedef struct gfli_inflate {
    const uint8_t *at, *end; /* of the chunk at hand */
    const uint8_t *file_end;
    uint64_t bits;
    int n_bits;
    uint8_t *out;
    size_t n_out, room;
    const char *why; /* of the first failure */
    gfli_inflate_codes literals, distances;
} gfli_inflate;

/* From the first byte of the first chunk to the end of the stream; why not, or NULL. */
const char *gfli_inflate_all(gfli_inflate *z);

/* ===============================================================================================
 * src/data/dataset.h - gfl_dataset as the implementation sees it
 * ============================================================================================ */

typedef struct gfli_text_block gfli_text_block;

struct gfl_dataset {
    gfl_context *context;
    char *name;      /* of the JSON file, for messages */
    char *image_dir; /* "" means the working directory */
    gfl_pixel_source read_image;
    void *user;
    bool trust_boxes; /* whatever size the file says that its images have */
    bool skip_unreadable;
    gfl_image_info *images;
    gfl_annotation *annotations; /* by image, in file order within one */
    gfl_class *classes;
    gfl_id *class_ids; /* as the file has them */
    int n_images, n_annotations, n_classes;
    gfl_dataset_summary summary;
    int twins[2];           /* labels of two classes of one name, where there are such */
    gfli_text_block *texts; /* names and textual ids */
};

/* A copy that lives as long as the data set. */
gfl_status gfli_dataset_text(gfl_dataset *set, const char *text, size_t length, const char **out);

/* Ascending: numbers before texts, texts by their bytes. */
int gfli_id_compare(gfl_id a, gfl_id b);

/* The id as an error text shows it: 17, or "17" for a text. */
enum { GFLI_ID_TEXT = 96 };
const char *gfli_id_text(gfl_id id, char out[GFLI_ID_TEXT]);

/* Ids in ascending order with the places they come from. */
typedef struct gfli_id_entry {
    gfl_id id;
    int index;
} gfli_id_entry;

/* Stable. */
gfl_status gfli_id_sort(gfl_context *context, gfli_id_entry *entries, int n);
/* Where an id stands in sorted entries (the first of equal ones), or -1. */
int gfli_id_place(const gfli_id_entry *entries, int n, gfl_id id);
/* The same id as the other type, 1 as "1" and "1" as 1; false where a text is not a number. */
bool gfli_id_other(gfl_id id, char text[24], gfl_id *out);
/* Where an id stands, or where it is not there its other type; *other: it was the latter. */
int gfli_id_place_of_either(const gfli_id_entry *entries, int n, gfl_id id, bool *other);

/* Whether a reading's failure is the image's own: not memory, the host's wish or a wrong call. */
bool gfli_is_unreadable(gfl_status status);

/* GFL_E_DATA with a text where two classes have one name: nothing could tell them apart. */
gfl_status gfli_dataset_check_names(gfl_context *context, const gfl_dataset *dataset);

/* Is the annotation a box to train on?  (Spec 7.5, which tests the area field, not w * h.) */
gfl_annotation_use gfli_annotation_use_of(const gfl_image_info *image, const gfl_annotation *a);

/* ===============================================================================================
 * src/data/coco.h - an annotation file while it is read
 * ============================================================================================ */

/* Sizes and corners beyond this are slips of the pen; it also keeps sums of them exact enough. */
#define GFLI_COCO_HUGE 1e9

typedef struct gfli_coco_annotation {
    gfl_annotation a;
    gfl_id image_id, class_id;
    int index;         /* in the file's list */
    long line, column; /* of its beginning */
    bool has_id, has_area, has_crowd, from_polygons;
} gfli_coco_annotation;

typedef struct gfli_coco_class {
    gfl_id id;
    const char *name, *supercategory; /* the latter may be NULL */
} gfli_coco_class;

typedef struct gfli_coco {
    gfl_context *context;
    gfl_dataset *set;
    gfli_json *json;
    gfl_dataset_desc desc;
    bool has_images, has_annotations, has_classes; /* sections seen */
    gfli_coco_annotation *annotations;
    gfli_coco_class *classes;
    size_t n_images, n_annotations, n_classes;
    size_t cap_images, cap_annotations, cap_classes;
    gfli_id_entry *image_ids, *class_ids; /* sorted, leading to images and labels */
    bool *parents;                        /* [n_classes] by label: supercategory of another */
    /* The object being read: its place in the list and in the file; the first mistake in it. */
    int index;
    long line, column;
    bool faulty;
    long fault_line, fault_column;
    char fault[400];
} gfli_coco;

/* With an empty set of this name; file: the images are in the folder of this path. */
gfl_status gfli_coco_begin(gfli_coco *c, gfl_context *context, const char *path, bool file,
                           const gfl_dataset_desc *desc);
/* When images, annotations and classes have been read, or have not been, for which reason status
 * stands: the data set, or an error. */
gfl_status gfli_coco_finish(gfli_coco *c, gfl_status status, gfl_dataset **out);

/* A mistake with a whole text: an error, or told to desc.found, after which reading goes on. */
gfl_status gfli_coco_report(gfli_coco *c, const char *format, ...) GFLI_PRINTF(2, 3);

/* "annotation 7", or "annotations[6]" where it has no id. */
const char *gfli_coco_name(const char *what, const char *list, bool has_id, gfl_id id, int index,
                           char out[GFLI_ID_TEXT + 32]);

/* After the file was read: who belongs to whom, labels, counts (coco_resolve.c). */
gfl_status gfli_coco_resolve(gfli_coco *c);

/* ===============================================================================================
 * src/eval/evaluator.h - gfl_evaluator as the implementation sees it
 * ============================================================================================ */

/* COCO's axes: IoU thresholds, recall thresholds, areas (all, small, medium, large), max_dets. */
enum { GFLI_EVAL_T = 10, GFLI_EVAL_R = 101, GFLI_EVAL_A = 4, GFLI_EVAL_M = 3 };

/* A result as it came.  Boxes are kept as x, y, w, h in double, as files have them, since the
 * numbers must be those of an evaluation of the saved file. */
typedef struct gfli_eval_box {
    double x, y, w, h, score;
    int image, label;
} gfli_eval_box;

/* What the twelve numbers need of one class, for every area and max_dets. */
typedef struct gfli_eval_sums {
    double precision[GFLI_EVAL_A][GFLI_EVAL_M];   /* over thresholds and recalls */
    double precision50[GFLI_EVAL_A][GFLI_EVAL_M]; /* at IoU 0.5, over recalls */
    double precision75[GFLI_EVAL_A][GFLI_EVAL_M];
    double recall[GFLI_EVAL_A][GFLI_EVAL_M]; /* over thresholds */
    bool present[GFLI_EVAL_A];               /* is there any ground truth to find? */
} gfli_eval_sums;

struct gfl_evaluator {
    gfl_context *context;
    const gfl_dataset *dataset;
    int max_dets[GFLI_EVAL_M]; /* ascending */
    bool ignore_classes, compatible;
    gfli_id_entry *image_ids, *class_ids; /* ascending, to find what a file names */
    gfli_id_entry *names, *bases;         /* [n_names] file names, once a result has one */
    int n_names;
    bool labelled;   /* the ids of all classes are words: 1, 2, ... are those of gfl_class */
    int *image_rank; /* [n_images] place by ascending id; -1: not evaluated */
    int *rank_image; /* [n_ranks] */
    int *class_slot; /* [n_classes] place among those evaluated, or -1 */
    int n_ranks, n_slots;
    gfli_eval_box *boxes;
    size_t n_boxes, capacity;
    gfl_eval_notes notes;
    gfli_eval_sums *sums; /* [gfli_eval_k], after a run */
    bool done;
    gfl_eval_result result;
};

/* Classes on the K axis: one for all with ignore_classes. */
static inline int gfli_eval_k(const gfl_evaluator *e) {
    return e->ignore_classes ? 1 : e->n_slots;
}

/* A number to sort by, and what it belongs to. */
typedef struct gfli_eval_item {
    uint64_t key;
    uint32_t index;
    uint32_t group; /* of a result: which of the class's images it belongs to */
} gfli_eval_item;

/* Ascending by key, stable; n items of scratch. */
void gfli_eval_sort(gfli_eval_item *items, gfli_eval_item *scratch, size_t n);
/* A key that is smaller for a higher score. */
uint64_t gfli_eval_score_key(double score);

/* Of the 40 pairs of area and IoU threshold a mask has one bit each: area * 10 + threshold. */
typedef struct gfli_eval_truth {
    double x1, y1, x2, y2, area; /* area: of the box */
    uint64_t ignored, taken;
    int rank; /* of the image */
    bool crowd, uncounted;
} gfli_eval_truth;

typedef struct gfli_eval_outcome {
    uint64_t hit, miss; /* true and false positives; neither: ignored */
    double score;
    int place; /* among the image's detections of the class */
} gfli_eval_outcome;

/* What an image has of the class at hand. */
typedef struct gfli_eval_group {
    int begin, end; /* its ground truth */
    int seen;       /* its detections so far */
} gfli_eval_group;

typedef struct gfli_eval_candidate {
    double iou;
    int truth;
    uint32_t reached; /* thresholds */
} gfli_eval_candidate;

/* The ignored bits of a box by its area. */
uint64_t gfli_eval_outside(double area);
/* Detections of an image come best score first; scratch holds group->end - group->begin. */
void gfli_eval_match(gfli_eval_truth *truths, const gfli_eval_group *group,
                     const gfli_eval_box *box, gfli_eval_candidate *scratch,
                     gfli_eval_outcome *out);

/* COCOeval's arrays, for tests: precision and scores [T][R][K][A][M], recall [T][K][A][M]. */
gfl_status gfli_evaluator_arrays(gfl_evaluator *evaluator, double *precision, double *recall,
                                 double *scores);

/* One more result. */
gfl_status gfli_eval_push(gfl_evaluator *e, const gfli_eval_box *box);

/* ===============================================================================================
 * src/train/loader.h - batches: sampling, augmentation, decoding ahead
 * ============================================================================================ */

/* One image as a step wants it: resized, not yet mirrored and not yet normalised.  The boxes are
 * already those of the mirrored image when flip is set. */
typedef struct gfli_sample {
    int image;         /* index into the data set */
    int width, height; /* resized */
    bool flip;         /* mirror the columns while normalising */
    uint8_t *pixels;   /* u8 [height][width][3], RGB or BGR */
    float *boxes;      /* [n_boxes][4] x1 y1 x2 y2, resized pixels */
    int *labels;       /* [n_boxes] */
    int n_boxes;
} gfli_sample;

typedef struct gfli_batch {
    gfli_sample *samples;
    int n;
    int height, width; /* of the padded input: multiples of 32 */
    int epoch, index;
} gfli_batch;

typedef struct gfli_loader_opts {
    int batch; /* of each rank; or as many images as there are for it */
    uint64_t seed;
    int scale_long, scale_short;
    int scale_short_min; /* > 0: the short side is drawn from [min, scale_short] */
    bool bgr;
    int inclusive;  /* as in gfli_decode_opts */
    bool one_scale; /* as in gfli_dialect */
    bool no_flip;
    bool drop_empty;  /* leave out images without any annotation, or under 32 pixels */
    bool no_grouping; /* batches may mix landscape and portrait */
    int n_threads;    /* that decode ahead; 0: decode in gfli_loader_next */
} gfli_loader_opts;

/* Each rank's share of a batch, of n images at most together; batches of an epoch of n images. */
static inline int gfli_rank_batch(int batch, int n, int n_ranks) {
    return gfli_min(batch, gfli_ceil_div(n, n_ranks));
}

static inline int gfli_epoch_batches(int n, int rank_batch, int n_ranks) {
    return gfli_ceil_div(n, n_ranks * rank_batch);
}

typedef struct gfli_loader gfli_loader;

/* The data set is borrowed; its summary says why when no image is left to train on (GFL_E_DATA). */
gfl_status gfli_loader_create(gfl_context *context, const gfl_dataset *dataset,
                              const gfli_loader_opts *opts, gfli_loader **out);
void gfli_loader_destroy(gfli_loader *loader); /* NULL is allowed */

/* Images that are trained on, and batches of an epoch (the same for every epoch). */
int gfli_loader_images(const gfli_loader *loader);
int gfli_loader_batches(const gfli_loader *loader, int epoch);

/* Make the batch (epoch, index) the next one; any position, at any time.  Batches depend on the
 * options, the epoch, the index and the context's rank alone, whatever the number of threads: the
 * ranks share the images that one rank with larger batches would have in the same place. */
gfl_status gfli_loader_start(gfli_loader *loader, int epoch, int index);

/* The next batch, valid until the next call; after an epoch's last one comes the next epoch.  A
 * file that cannot be read is an error that names it; the loader stays at that batch. */
gfl_status gfli_loader_next(gfli_loader *loader, const gfli_batch **out);

/* What a stream of random numbers is for; part of every saved training run, so never renumbered. */
enum { GFLI_DRAW_ORDER = 1, GFLI_DRAW_SCALE = 2, GFLI_DRAW_FLIP = 3 };

/* The images of an epoch, batch after batch: order[i * batch..] are batch i of all ranks, the last
 * of which the loader fills up.  With portrait given, an image goes to the bucket of its kind, a
 * full bucket is a batch, and what is left in the two at the end is cut into batches together,
 * portraits first.
 * (Source: MMDetection 3, AspectRatioBatchSampler.)
 *
 *   portrait  [n], or NULL: no buckets
 *   order     [n], written; values 0..n-1
 *   scratch   [n + 2 * batch]
 */
void gfli_sampler_order(uint64_t seed, int epoch, int n, int batch, const bool *portrait,
                        int *order, int *scratch);

/* ===============================================================================================
 * src/train/backward.h - the backward pass over a plan
 * ============================================================================================ */

/* Gradients and momentum lie as the parameters do in the model's block, from the first trained one
 * on. */
typedef struct gfli_gradients {
    size_t first;   /* floats of the block before it */
    size_t floats;  /* of all that is trained */
    size_t *offset; /* [n_params] from the first; GFLI_NO_GRADIENT: frozen, or a statistic */
} gfli_gradients;

#define GFLI_NO_GRADIENT SIZE_MAX

gfl_status gfli_gradients_create(gfl_context *context, const gfl_model *model, int frozen_stages,
                                 gfli_gradients *out);
void gfli_gradients_destroy(gfl_context *context, gfli_gradients *gradients);

typedef struct gfli_backward_step {
    bool runs; /* the step has parameters to train, or comes after such */
    bool dx;   /* the gradient of in is wanted */
    bool add;  /* ... and something else has contributed to it before */
} gfli_backward_step;

/* The steps of a training plan are run in reverse.  Maps and their gradients share one workspace:
 * each has its place only while it is needed, so creating this moves the plan's slots. */
typedef struct gfli_backward {
    gfli_backward_step *steps; /* [n_steps] */
    gfli_map *grads;           /* [n_slots] of those that have a gradient */
    int *piece;           /* [n_slots] of the plan, for a gradient; -1: none.  Of parents only */
    size_t scratch_bytes; /* for the forward pass too */
    size_t packed_bytes;  /* one layer's weights as the gradient of its input wants them */
} gfli_backward;

/* plan->workspace_bytes becomes the size of the common workspace. */
gfl_status gfli_backward_create(gfl_context *context, const gfl_model *model,
                                const gfli_train_ops *ops, gfli_plan *plan, int frozen_stages,
                                gfli_backward *out);
void gfli_backward_destroy(gfl_context *context, gfli_backward *backward);

/* After gfli_plan_bind to the same workspace. */
void gfli_backward_bind(const gfli_plan *plan, gfli_backward *backward, void *workspace);

/* The pass's surroundings. */
typedef struct gfli_pass {
    gfl_context *context;
    const gfl_model *model;
    const gfli_train_ops *ops;
    const gfli_plan *plan;
    const gfli_backward *backward;
    const gfli_gradients *layout;
    float *gradients; /* [layout->floats], those of all trained parameters are overwritten */
    float *stats;     /* as the forward pass left them */
    void *packing, *scratch;
} gfli_pass;

/* Forward done, gradients of plan->cls and plan->reg in their maps. */
void gfli_backward_run(const gfli_pass *pass);

/* ===============================================================================================
 * src/train/trainer.h - gfl_trainer as the implementation sees it
 * ============================================================================================ */

/* A plan with its backward pass, for one batch shape. */
typedef struct gfli_train_plan {
    gfli_plan plan;
    gfli_backward backward;
} gfli_train_plan;

/* What learns: a model with gradients and momentum, and the memory of a step.  It knows neither
 * data nor schedule, so tests can feed it. */
typedef struct gfli_learner {
    gfl_context *context;
    gfl_model *model;
    const gfli_train_ops *ops;
    int frozen_stages;
    gfli_gradients layout;
    int64_t updates;
    int n_batches, n_summed; /* of this update; those of them that total has */
    gfl_status failed;       /* what kept this rank from doing a batch of it */

    /* Memory of the device. */
    float *gradients, *momentum; /* [layout.floats] */
    float *total;                /* [layout.floats] sum over batches; NULL while there was one */
    gfli_update_part *parts;     /* [n_parts] one for each trained parameter */
    int n_parts;
    gfli_losses *losses; /* [n_batches] */
    gfli_verdict *verdict;

    gfli_train_plan plans[GFLI_PLANS];
    gfli_train_plan *current;
    gfli_recent recent;
    float *stats;
    uint8_t *workspace, *scratch, *packing, *block;
    gfli_truths truths; /* of the current batch, in block */
    int32_t *gt;
    int *n_pos;
    size_t workspace_size, stats_size, scratch_size, packed_size, gt_size, n_pos_size;
    size_t block_size, losses_size;

    uint8_t *staging; /* of the host: what goes to block */
    size_t staging_size;
} gfli_learner;

/* What one image of a batch is to teach. */
typedef struct gfli_target {
    const float *boxes;  /* [n][4] x1 y1 x2 y2 in the resized image's pixels */
    const int *labels;   /* [n] */
    int n, pad_h, pad_w; /* as in gfli_truth */
} gfli_target;

gfl_status gfli_learner_create(gfl_context *context, gfl_model *model, int frozen_stages,
                               gfli_learner *out);
void gfli_learner_destroy(gfli_learner *learner);

/* A plan for batches of this padded size, which is not one of the learner's own yet. */
void gfli_train_plan_free(gfli_learner *learner, gfli_train_plan *plan);
gfl_status gfli_train_plan_create(gfli_learner *learner, int n, int height, int width,
                                  gfli_train_plan *out);

/* Begin an update over so many batches, from 1.  After one over as many it needs no memory. */
gfl_status gfli_learner_begin(gfli_learner *learner, int n_batches);

/* Make ready for a batch of this padded size; the caller fills *input.  Then for its targets. */
gfl_status gfli_learner_input(gfli_learner *learner, int n, int height, int width, gfli_map *input);
gfl_status gfli_learner_targets(gfli_learner *learner, const gfli_target *targets);

/* Losses and gradients of the batch that was made ready, the update's batch number `batch`.  All
 * ranks call it for every batch: `ready` is what kept this one from making it ready, and none of
 * them does the update then.  Queued: what is not finite shows at the update. */
gfl_status gfli_train_gradients(gfli_learner *learner, int batch, gfl_status ready);

/* Add the gradients to those of the batches before, for an update over several. */
void gfli_learner_accumulate(gfli_learner *learner);

/* How an update moves the parameters; clip <= 0: no clipping. */
typedef struct gfli_sgd_opts {
    double lr, momentum, decay, clip;
} gfli_sgd_opts;

/* One SGD step with the gradients (the mean over the accumulated batches of all ranks).  *norm is
 * theirs, before clipping; losses [n_batches] are those of the batches, added up over the ranks.
 * Where a loss or a gradient is not finite, or where a parameter or its momentum would not stay so,
 * nothing changes, the status is GFL_E_NONFINITE, and the text says what it is.  Nor does anything
 * where a rank lacked a batch: there the status is what it lacked it for, on the others
 * GFL_E_RANK. */
gfl_status gfli_train_update(gfli_learner *learner, const gfli_sgd_opts *opts, double *norm,
                             gfli_losses *losses);

/* ---- schedule -------------------------------------------------------------------------------- */

/* Check every field, and replace zeros by defaults where these do not depend on the data. */
gfl_status gfli_train_resolve(gfl_context *context, const gfl_model *model,
                              const gfl_trainer_desc *in, gfl_trainer_desc *out);
/* What the resolved plan->desc comes to with so many images, at least one: the batches of all ranks
 * have no more images, and an update no more batches, than there are. */
void gfli_train_fit(gfl_trainer_info *plan, int n_images, int n_ranks);
double gfli_default_rate(int64_t batch, int accumulate); /* batch: of all ranks */
/* The learning rate of update `step` (from 0) of a fitted description. */
double gfli_train_rate(const gfl_trainer_desc *desc, const gfli_dialect *dialect,
                       int steps_per_epoch, int64_t step);

/* ---- trainer --------------------------------------------------------------------------------- */

struct gfl_trainer {
    gfl_context *context;
    gfl_model *model;
    const gfl_dataset *dataset;
    gfl_trainer_desc asked; /* resolved, before it was fitted to the data */
    gfl_trainer_info plan;
    gfli_learner learner;
    gfli_loader *loader;
    bool positioned; /* the loader's next batch is that of the next step */
    int *images;     /* [batch * accumulate] of this step */
    int n_images;
    int *first;           /* [accumulate + 1] the first of these of each batch */
    gfli_target *targets; /* [batch] */
    gfli_losses *losses;  /* [accumulate] */
    uint8_t *pixels;      /* of an image, on the device */
    size_t pixels_size;
    void *desk; /* [GFLI_DESK] bytes on the device, for what ranks tell each other */
};

/* Where the loader must stand for the next update, and how many batches belong to it: the last of
 * an epoch may have fewer. */
int gfli_trainer_position(const gfl_trainer *trainer, int *epoch, int *first);

enum { GFLI_DESK = 4096, GFLI_STATE_FIELDS = 18, GFLI_STATE_TEXT = 128 };

/* One field of what must be the same for training to go on as if nothing had happened, and on all
 * ranks. */
typedef struct gfli_state_field {
    const char *key;
    char value[GFLI_STATE_TEXT];
} gfli_state_field;

typedef struct gfli_state_fields {
    gfli_state_field fields[GFLI_STATE_FIELDS];
    int n;
} gfli_state_fields;

void gfli_describe_training(const gfl_trainer *trainer, const gfl_trainer_desc *d,
                            gfli_state_fields *f);

/* Collective calls of all ranks (ranks.c).  agree: `mine` where this rank has failed, GFL_E_RANK
 * where another has.  compare: a text of lines that must be rank 0's.  share: weights, momentum and
 * position become rank 0's.  join: all of that, after a trainer was created or not. */
gfl_status gfli_trainer_agree(const gfl_trainer *trainer, gfl_status mine, const char *what);
gfl_status gfli_trainer_compare(const gfl_trainer *trainer, gfl_status mine,
                                const char text[GFLI_DESK], const char *what);
gfl_status gfli_trainer_share(gfl_trainer *trainer);
gfl_status gfli_trainer_join(gfl_trainer *trainer, gfl_status mine);

/* What gfl_trainer_load_state does with an open file. */
gfl_status gfli_state_load(gfl_trainer *trainer, gfli_blob *blob);

/* Fingerprints: of all parameters, of their names and shapes, of everything the data set says. */
gfl_status gfli_hash_model(const gfl_model *model, uint64_t *out);
uint64_t gfli_hash_network(const gfl_model *model);
uint64_t gfli_hash_dataset(const gfl_dataset *dataset);
void gfli_hash_format(uint64_t hash, char out[24]);

/* ===============================================================================================
 * src/export/export.h - what the writers of other programs' files share
 * ============================================================================================ */

/* Bytes that grow; the first failure sticks. */
typedef struct gfli_buffer {
    gfl_context *context;
    uint8_t *data;
    size_t n, capacity;
    gfl_status status;
} gfli_buffer;

/* One tensor of a PyTorch state dict: a parameter, or a constant that such files hold too. */
typedef struct gfli_state_entry {
    char name[128];
    int param; /* -1: a constant */
    gfli_dtype dtype;
    int rank;
    int64_t shape[4];
    size_t count;
} gfli_state_entry;

/* ---- bytes (bytes.c) ------------------------------------------------------------------------- */

void gfli_buffer_put(gfli_buffer *b, const void *data, size_t n);
void gfli_buffer_text(gfli_buffer *b, const char *text);
void gfli_buffer_number(gfli_buffer *b, uint64_t value, int n_bytes);
void gfli_buffer_free(gfli_buffer *b);

/* ---- a state dict (entries.c) ---------------------------------------------------------------- */

/* In the order of a state dict.  The caller frees *out. */
gfl_status gfli_state_entries(const gfl_model *model, gfli_state_entry **out, int *n_out);
size_t gfli_state_bytes(const gfli_state_entry *e);
gfl_status gfli_state_values(const gfl_model *model, const gfli_state_entry *e, gfli_values *values,
                             const void **out);

/* ---- protocol buffers (protobuf.c) ----------------------------------------------------------- */

void gfli_pb_int(gfli_buffer *b, int field, int64_t value);
void gfli_pb_float(gfli_buffer *b, int field, float value);
/* What stands before `size` bytes of a text, of bytes or of a message. */
void gfli_pb_head(gfli_buffer *b, int field, uint64_t size);
void gfli_pb_text(gfli_buffer *b, int field, const char *text);
/* A message: open, its fields, close with what open gave.  Its length is put in at the end;
 * `more` bytes of it come after. */
size_t gfli_pb_open(gfli_buffer *b, int field);
void gfli_pb_close_before(gfli_buffer *b, size_t start, uint64_t more);
void gfli_pb_close(gfli_buffer *b, size_t start);

/* ---- the formats (entries.c, pth.c, onnx.c) -------------------------------------------------- */

gfl_status gfli_export_mmdet(const gfl_model *model, gfli_sink to);
gfl_status gfli_export_pth(const gfl_model *model, gfli_sink to);
gfl_status gfli_export_onnx(const gfl_model *model, const gfl_export_opts *opts, gfli_sink to);

/* ===============================================================================================
 * src/export/onnx.h - an ONNX graph being written
 * ============================================================================================ */

/* Tensor types of ONNX. */
enum { GFLI_ONNX_F32 = 1, GFLI_ONNX_U8 = 2, GFLI_ONNX_I64 = 7 };

/* Fields of ONNX's messages (onnx.proto). */
enum {
    GFLI_ONNX_NODE_INPUT = 1,
    GFLI_ONNX_NODE_OUTPUT = 2,
    GFLI_ONNX_NODE_NAME = 3,
    GFLI_ONNX_NODE_OP = 4,
    GFLI_ONNX_NODE_ATTRIBUTE = 5,
    GFLI_ONNX_ATTRIBUTE_NAME = 1,
    GFLI_ONNX_ATTRIBUTE_F = 2,
    GFLI_ONNX_ATTRIBUTE_I = 3,
    GFLI_ONNX_ATTRIBUTE_S = 4,
    GFLI_ONNX_ATTRIBUTE_INTS = 8,
    GFLI_ONNX_ATTRIBUTE_TYPE = 20,
    GFLI_ONNX_TENSOR_DIMS = 1,
    GFLI_ONNX_TENSOR_TYPE = 2,
    GFLI_ONNX_TENSOR_NAME = 8,
    GFLI_ONNX_TENSOR_RAW = 9,
    GFLI_ONNX_GRAPH_NODE = 1,
    GFLI_ONNX_GRAPH_NAME = 2,
    GFLI_ONNX_GRAPH_CONST = 5,
    GFLI_ONNX_GRAPH_INPUT = 11,
    GFLI_ONNX_GRAPH_OUTPUT = 12
};

typedef struct gfli_onnx_name {
    char text[96];
} gfli_onnx_name;

/* A constant of the graph: owned bytes, or the weights of a layer with its batch norm folded in,
 * which are made when they are written. */
typedef struct gfli_onnx_const {
    gfli_onnx_name name;
    int type, rank;
    int64_t shape[4];
    uint64_t bytes;
    void *data; /* NULL: of the layer */
    int layer;
} gfli_onnx_const;

/* The first failure sticks. */
typedef struct gfli_onnx {
    gfl_context *context;
    const gfl_model *model;
    gfl_export_opts opts;
    gfli_plan plan;
    gfli_buffer nodes, ends; /* NodeProtos; the graph's inputs and outputs */
    gfli_onnx_const *consts;
    int n_consts;
    size_t const_capacity;
    gfli_onnx_name *values; /* [n_slots * GFL_LEVELS] which value a level of a slot holds now */
    gfl_status status;
} gfli_onnx;

/* ---- nodes, constants and names (onnx_graph.c) ----------------------------------------------- */

/* A node: open, more inputs and attributes, close.  Inputs that are NULL are not there.  The node
 * is named after its output. */
size_t gfli_onnx_open(gfli_onnx *g, const char *op, const char *out, const char *a, const char *b,
                      const char *c);
void gfli_onnx_close(gfli_onnx *g, size_t start);
/* A node without attributes. */
void gfli_onnx_node(gfli_onnx *g, const char *op, const char *out, const char *a, const char *b,
                    const char *c);
void gfli_onnx_int(gfli_onnx *g, const char *name, int64_t value);
void gfli_onnx_float(gfli_onnx *g, const char *name, float value);
void gfli_onnx_text(gfli_onnx *g, const char *name, const char *value);
void gfli_onnx_ints(gfli_onnx *g, const char *name, const int64_t *values, int n);
void gfli_onnx_transpose(gfli_onnx *g, const char *out, const char *in, const int64_t *order,
                         int n);
void gfli_onnx_cast(gfli_onnx *g, const char *out, const char *in);
gfli_onnx_const *gfli_onnx_new_const(gfli_onnx *g, const char *name, int type, int rank,
                                     const int64_t *shape);
/* Numbers of each tap of the deformable convolutions: 2, with masks 3; 0 where there are none. */
int gfli_onnx_tap_values(const gfli_onnx *g);
/* Room for the values of a new constant, or NULL. */
void *gfli_onnx_room(gfli_onnx *g, const char *name, int type, int rank, const int64_t *shape);
void gfli_onnx_floats(gfli_onnx *g, const char *name, int rank, const int64_t *shape,
                      const float *values);
/* Values that lie on the device. */
void gfli_onnx_placed(gfli_onnx *g, const char *name, int rank, const int64_t *shape,
                      const float *values);
/* One value: of rank 0, so that it also serves as an index that drops its axis. */
void gfli_onnx_number(gfli_onnx *g, const char *name, float value);
void gfli_onnx_integers(gfli_onnx *g, const char *name, int rank, int n, const int64_t *values);
/* A parameter of one value per channel, shaped to act on [N, C, H, W]. */
void gfli_onnx_channels(gfli_onnx *g, const gfli_param *p);
/* An input or output of the graph.  A size below 1 is free, and named by `names`. */
void gfli_onnx_end(gfli_onnx *g, int field, const char *name, int type, int rank,
                   const int64_t *sizes, const char *const *names);
gfli_onnx_name gfli_onnx_join(const char *a, const char *b);
/* "bbox_pred.2": of a level. */
gfli_onnx_name gfli_onnx_at(const char *name, int level);
/* "backbone.bn1" of "backbone.bn1.weight", with the level behind it where there are several. */
gfli_onnx_name gfli_onnx_module(const gfli_onnx *g, int param, int level, int levels);
/* The value that a level of a slot holds at this step. */
gfli_onnx_name *gfli_onnx_value(gfli_onnx *g, int slot, int level);

/* ---- the network (onnx_steps.c) -------------------------------------------------------------- */

void gfli_onnx_conv_attributes(gfli_onnx *g, const gfli_conv_shape *s);
void gfli_onnx_step(gfli_onnx *g, const gfli_step *step);
/* Constants that several steps use. */
void gfli_onnx_common(gfli_onnx *g);

/* ---- what stands before and behind it (onnx_ends.c) ------------------------------------------ */

void gfli_onnx_begin(gfli_onnx *g);
void gfli_onnx_finish(gfli_onnx *g);

/* ===============================================================================================
 * src/ckpt/ckpt.h - checkpoints of PyTorch: the archive, the pickle inside, the tensors it tells of
 * ============================================================================================ */

/* ---- zip: what torch.save writes since 1.6 -------------------------------------------------- */

typedef struct gfli_zip_record {
    char *name;
    uint64_t offset, size; /* of the stored bytes, from the start of the file */
    uint32_t crc;
    bool compressed, checked;
} gfli_zip_record;

typedef struct gfli_zip {
    gfli_blob *blob;
    gfli_zip_record *records; /* sorted by name */
    int n_records;
    size_t capacity;
    uint32_t crc_table[8][256];
} gfli_zip;

/* The directory of an archive; what it says of records is checked against the file's size. */
gfl_status gfli_zip_open(gfli_blob *blob, gfli_zip *out);
void gfli_zip_close(gfli_zip *zip);
gfli_zip_record *gfli_zip_find(const gfli_zip *zip, const char *name); /* NULL: absent */
/* Once a record: that its bytes are there, stored as they are, and fit their checksum.  `use` says
 * in an error what they are wanted for. */
gfl_status gfli_zip_check(gfli_zip *zip, gfli_zip_record *record, const char *use);
/* A number of a zip file, its lowest byte first. */
uint64_t gfli_zip_number(const uint8_t *at, int n_bytes);
gfl_status gfli_zip_broken(const gfli_zip *zip, const char *what);

/* ---- pickle ---------------------------------------------------------------------------------- */

/* Values are numbers of nodes; node 0 is None. */
typedef enum gfli_pickle_kind {
    GFLI_PICKLE_NONE,
    GFLI_PICKLE_BOOL,    /* n */
    GFLI_PICKLE_INT,     /* n */
    GFLI_PICKLE_LONG,    /* an integer beyond 64 bits: n is where its bytes are in texts */
    GFLI_PICKLE_OTHER,   /* not kept: floats, long texts */
    GFLI_PICKLE_TEXT,    /* n is where it is in texts */
    GFLI_PICKLE_LIST,    /* or tuple, or set: cells a to b, n of them */
    GFLI_PICKLE_DICT,    /* pairs a to b, n of them */
    GFLI_PICKLE_CELL,    /* value a, next b */
    GFLI_PICKLE_PAIR,    /* key a, value n, next b */
    GFLI_PICKLE_NAME,    /* of a function or class, "module.name": n is where in texts */
    GFLI_PICKLE_STORAGE, /* a: its persistent id */
    GFLI_PICKLE_TENSOR,  /* a: the arguments of its function, n: 2 with requires_grad, 1 without */
    GFLI_PICKLE_OPAQUE   /* made from a name that is not known, n as in NAME; stepped over */
} gfli_pickle_kind;

typedef struct gfli_pickle_node {
    gfli_pickle_kind kind;
    uint32_t a, b;
    int64_t n;
} gfli_pickle_node;

/* An unpickler that calls nothing: names become values of our own or opaque ones.  Its memory is at
 * most 80 times the bytes of the pickle, whatever these say, and its work in proportion too. */
typedef struct gfli_pickle {
    gfl_context *context;
    gfli_blob *blob;
    const char *where;       /* in messages: "data.pkl", "the second pickle" */
    uint64_t start, at, end; /* bytes of the file: of this pickle, next, where it must end */
    uint64_t earlier;        /* how long the pickles before it are together */
    uint8_t buffer[4096];
    uint64_t buffer_at;
    size_t buffered;
    gfli_pickle_node *nodes;
    uint32_t *stack, *marks, *memo;
    char *texts;
    size_t n_nodes, n_stack, n_marks, n_memo, n_texts;
    size_t node_capacity, stack_capacity, mark_capacity, memo_capacity, text_capacity;
} gfli_pickle;

void gfli_pickle_init(gfli_blob *blob, gfli_pickle *out);
void gfli_pickle_free(gfli_pickle *p);
/* The pickle that starts at byte `at` and ends by itself before `end`; p->at is then behind it.
 * Nodes of earlier pickles stay. */
gfl_status gfli_pickle_read(gfli_pickle *p, const char *where, uint64_t at, uint64_t end,
                            uint32_t *root);
/* The text of a node, or NULL where it is none. */
const char *gfli_pickle_text(const gfli_pickle *p, uint32_t node);
/* The value of a key, or 0 (None) where there is none; of equal keys the last. */
uint32_t gfli_pickle_get(const gfli_pickle *p, uint32_t dict, const char *key);
/* Item i of a list, or 0. */
uint32_t gfli_pickle_item(const gfli_pickle *p, uint32_t list, int i);

/* ---- Python literals: the text of a configuration ------------------------------------------- */

typedef enum gfli_py_kind {
    GFLI_PY_UNKNOWN, /* no literal, or an unknown name's value; node 0 too */
    GFLI_PY_NONE,
    GFLI_PY_BOOL,   /* first */
    GFLI_PY_NUMBER, /* first is where it is in texts */
    GFLI_PY_TEXT,   /* the same */
    GFLI_PY_LIST,   /* or tuple: items first to last */
    GFLI_PY_DICT,   /* dict(a=1) or {'a': 1}: entries first to last, those without key "**" */
    GFLI_PY_SAME    /* another name of value first */
} gfli_py_kind;

typedef struct gfli_py_node {
    gfli_py_kind kind;
    uint32_t key; /* of an entry: where in texts */
    uint32_t first, last, next;
} gfli_py_node;

/* A text of assignments.  Memory is in proportion to the text, and so is the time of all lookups
 * together: once `steps` is 0 they find nothing more. */
typedef struct gfli_py {
    gfl_context *context;
    const char *at;
    gfli_py_node *nodes; /* 1: a dictionary of what was assigned, one name perhaps several times */
    char *texts;
    size_t n_nodes, node_capacity, n_texts, steps;
} gfli_py;

/* Whatever is no literal - calls, sums, imports - is unknown or passed over; only lack of memory is
 * an error, after which py needs no freeing. */
gfl_status gfli_py_read(gfl_context *context, const char *text, gfli_py *py);
void gfli_py_free(gfli_py *py);
/* The value of "a.b.c", or 0.  As configurations inherit, what a later assignment to the same name
 * does not say is looked up in the earlier ones, unless it says _delete_. */
uint32_t gfli_py_find(gfli_py *py, const char *path);
uint32_t gfli_py_get(gfli_py *py, uint32_t dict, const char *key); /* or 0 */
/* The value itself where a node is only another name of it. */
uint32_t gfli_py_target(const gfli_py *py, uint32_t node);
/* Items of a list: 0 behind the last, and where it is no list. */
uint32_t gfli_py_first(const gfli_py *py, uint32_t list);
uint32_t gfli_py_next(const gfli_py *py, uint32_t item);
const char *gfli_py_text(const gfli_py *py, uint32_t node); /* or NULL */
bool gfli_py_bool(const gfli_py *py, uint32_t node, bool otherwise);
bool gfli_py_number(const gfli_py *py, uint32_t node, double *out); /* finite; else false */
/* The value as Python's print() has it, a tuple as a list; cut where it is long or deep. */
const char *gfli_py_shown_as(const gfli_py *py, uint32_t node, char *out, size_t size);

/* ---- checkpoints ----------------------------------------------------------------------------- */

/* Fill a bare blob with the tensors of the checkpoint that its bytes are, named as the file names
 * them: those of "state_dict", or of another dictionary known to hold a model's, or of the
 * outermost. Metadata "classes" (a JSON array), "cfg" (the text of mmdetection's configuration),
 * "epoch" and "iter" are there where the file has them, and what gfl_model_export said of the
 * model. */
gfl_status gfli_pth_read(gfli_blob *blob);

/* ---- configurations (config.c) --------------------------------------------------------------- */

/* Metadata "cfg" as metadata that metadata.c reads, where the file does not say it itself. */
gfl_status gfli_config_read(gfli_blob *blob);
/* An error where the configuration wants what gfl does not have, in the backbone or anywhere; a
 * warning where detections of another setting are a little different. */
gfl_status gfli_config_refuse(const gfli_weights *w, bool detector, bool scale_given);
/* An error where it contradicts the tensors, whose architecture this is. */
gfl_status gfli_config_compare(const gfli_weights *w, const gfl_arch *arch, bool detector);

/* A weight file of any kind, told by its content; on error out needs no closing. */
gfl_status gfli_ckpt_open(gfl_context *context, const char *path, gfli_blob *out);

/* Put what the caller knows of the input in place of what the file says. */
gfl_status gfli_override(gfli_weights *w, const gfl_preprocess *given, gfl_preprocess *p,
                         gfl_origin *origin);

/* ===============================================================================================
 * src/cpu/conv_grad.h - what the gradients of both kinds of convolution share
 * ============================================================================================ */

/* Weights as the right matrix of the input's gradient. */
typedef struct gfli_grad_pack_task {
    const gfli_conv_shape *s;
    gfli_igemm g;
    int tap[GFLI_MAX_TAPS];
    const float *weight, *scale;
    float *packing;
} gfli_grad_pack_task;

enum { GFLI_PACK_ROWS = 32 };

/* Some rows of all panels of a group: the weights of one output channel and tap lie together. */
void gfli_grad_pack_rows(void *arg, int task, int slot);

/* The gradient of the weights and of the bias. */
typedef struct gfli_grad_task {
    const gfli_conv_shape *s;
    gfli_igemm g;
    const gfli_map *dy;
    const gfli_point *points; /* of a deformable convolution, or NULL */
    const gfli_kernels *kernels;
    size_t n_rows, rows_per_chunk;
    int rows_per_block;                         /* positions that are packed together */
    int chunks;                                 /* of the positions */
    int n_strips, strips_per_task, strip_tasks; /* of the implicit matrix, all groups */
    int out_tasks;                              /* of a group's output channels */
    size_t n_weights;                           /* of one sum, with the merged groups' zeros */
    bool direct;                                /* the only sum is dweight */
    float *zeros, *sums, *dweight, *dbias;
    double *bias_sums;
    char *room;
    size_t pointers, offsets, copies, dy_panels, slot; /* bytes of the parts of a slot */
    size_t scratch;                                    /* bytes */
} gfli_grad_task;

void gfli_grad_plan(const gfl_context *context, const gfli_conv_shape *s, const gfli_igemm *g,
                    const gfli_map *dy, gfli_grad_task *t);
/* Once t is planned, and given its points if it has some. */
void gfli_grad_weight(gfl_context *context, gfli_grad_task *t, const gfli_map *x, float *dweight,
                      float *dbias, void *scratch);

/* ===============================================================================================
 * src/cpu/fold_grad.c - gradients of a batch norm that was folded into the convolution before it
 * ============================================================================================ */

enum { GFLI_UNFOLD_CHANNELS = 16 };

/* The convolution ran with W' = a W and b' = beta - a mean, a = gamma r, r = 1 / sqrt(var + eps):
 * dW = a dW', dgamma = r (sum of W dW' - mean db'), dbeta = db'. */
static void gfli_unfold_channels(void *arg, int task, int slot) {
    const gfli_unfold *t = (const gfli_unfold *)arg;
    const int out_c = t->shape->out_c;
    const size_t row = gfli_conv_weights(t->shape) / (size_t)out_c;
    const int end = gfli_min((task + 1) * GFLI_UNFOLD_CHANNELS, out_c);
    (void)slot;
    for (int o = task * GFLI_UNFOLD_CHANNELS; o < end; o++) {
        const float *w = t->weight + (size_t)o * row;
        float *dw = t->dweight + (size_t)o * row;
        double sum = 0, mean = (double)t->mean[o];
        for (size_t i = 0; i < row; i++) {
            sum += (double)w[i] * (double)dw[i];
            dw[i] *= t->scale[o];
        }
        const double var = (double)t->var[o] + (double)t->eps;
        t->dgamma[o] = (float)((sum - mean * (double)t->dbeta[o]) / (sqrt)(var));
    }
}

static void gfli_unfold_cpu(gfl_context *context, const gfli_unfold *call) {
    gfli_unfold t = *call;
    gfli_parallel_for(context, gfli_ceil_div(t.shape->out_c, GFLI_UNFOLD_CHANNELS),
                      gfli_unfold_channels, &t);
}

/* ===============================================================================================
 * src/cpu/conv_grad.c - gradients of convolution with respect to its input and its weights
 * ============================================================================================ */

/* ---- input ----------------------------------------------------------------------------------- */

/* With a stride, the input's positions fall into stride x stride phases, each of which sees its own
 * taps of the kernel: phase (py, px) is a convolution of dy with stride 1.  tap[segment] is the
 * tap's index in the kernel. */
static void gfli_grad_phase(const gfli_conv_shape *s, int py, int px, gfli_igemm *g,
                            int tap[GFLI_MAX_TAPS]) {
    const gfli_groups merged = gfli_merge_groups(s, GFLI_NR);
    memset(g, 0, sizeof *g);
    g->groups = merged.n;
    g->group_in = merged.out;
    g->group_out = merged.in;
    g->seg_taps = 1;
    g->seg_len = g->group_in;
    g->in_step = 1;
    g->out_step = s->stride;
    g->out_y = py;
    g->out_x = px;
    for (int ky = 0; ky < s->kernel; ky++) {
        for (int kx = 0; kx < s->kernel; kx++) {
            const int y = py + s->pad - ky, x = px + s->pad - kx;
            if (y % s->stride || x % s->stride) continue;
            tap[g->n_segs] = ky * s->kernel + kx;
            g->seg_y[g->n_segs] = y / s->stride;
            g->seg_x[g->n_segs++] = x / s->stride;
        }
    }
}

static size_t gfli_conv_grad_packed_size_cpu(const gfli_conv_shape *s) {
    size_t size = 0;
    for (int phase = 0; phase < s->stride * s->stride; phase++) {
        gfli_igemm g;
        int tap[GFLI_MAX_TAPS];
        gfli_grad_phase(s, phase / s->stride, phase % s->stride, &g, tap);
        size += gfli_igemm_packed_size(&g);
    }
    return size;
}

void gfli_grad_pack_rows(void *arg, int task, int slot) {
    const gfli_grad_pack_task *t = (const gfli_grad_pack_task *)arg;
    const gfli_conv_shape *s = t->s;
    const gfli_igemm *g = &t->g;
    const int c = s->in_c / s->groups, out_per_group = s->out_c / s->groups;
    const int parts = gfli_ceil_div(g->group_in, GFLI_PACK_ROWS), part = task % parts;
    const int seg = task / parts % g->n_segs, group = task / parts / g->n_segs;
    const int panels = gfli_ceil_div(g->group_out, GFLI_NR);
    const size_t panel = (size_t)(g->n_segs * g->seg_len) * GFLI_NR;
    const int last_k = gfli_min((part + 1) * GFLI_PACK_ROWS, g->group_in);
    (void)slot;
    for (int k = part * GFLI_PACK_ROWS; k < last_k; k++) {
        const int o = group * g->group_in + k, own = o / out_per_group * c - group * g->group_out;
        const float scale = t->scale ? t->scale[o] : 1.0f;
        const float *w = t->weight + gfli_weight_at(s->kernel * s->kernel, c, o, t->tap[seg], 0);
        float *out = t->packing + (size_t)group * (size_t)panels * panel +
                     (size_t)(seg * g->seg_len + k) * GFLI_NR;
        for (int first = 0; first < g->group_out; first += GFLI_NR, out += panel) {
            const int lo = gfli_max(first, own), hi = gfli_min(first + GFLI_NR, own + c);
            if (hi - lo < GFLI_NR) memset(out, 0, GFLI_NR * sizeof(float));
            for (int i = lo; i < hi; i++) out[i - first] = scale * w[i - own];
        }
    }
}

static void gfli_conv_grad_pack_cpu(gfl_context *context, const gfli_conv_shape *s,
                                    const float *weight, const float *scale, void *packing) {
    gfli_grad_pack_task t;
    t.s = s;
    t.weight = weight;
    t.scale = scale;
    t.packing = (float *)packing;
    for (int phase = 0; phase < s->stride * s->stride; phase++) {
        gfli_grad_phase(s, phase / s->stride, phase % s->stride, &t.g, t.tap);
        if (!t.g.n_segs) continue;
        const int parts = gfli_ceil_div(t.g.group_in, GFLI_PACK_ROWS);
        gfli_parallel_for(context, t.g.groups * t.g.n_segs * parts, gfli_grad_pack_rows, &t);
        t.packing += gfli_igemm_packed_size(&t.g) / sizeof(float);
    }
}

static void gfli_conv_grad_input_cpu(gfl_context *context, const gfli_conv_shape *s,
                                     const void *packing, const gfli_map *dy, bool accumulate,
                                     const gfli_map *dx, void *scratch) {
    const float *weights = (const float *)packing;
    if (s->stride > s->kernel && !accumulate) { /* there are positions that no tap reaches */
        memset(dx->data, 0, gfli_map_count(dx) * sizeof(float));
    }
    for (int phase = 0; phase < s->stride * s->stride; phase++) {
        gfli_igemm g;
        int tap[GFLI_MAX_TAPS];
        gfli_grad_phase(s, phase / s->stride, phase % s->stride, &g, tap);
        if (!g.n_segs) continue;
        g.packing = weights;
        g.x = dy;
        g.y = dx;
        g.residual = accumulate ? dx : NULL;
        gfli_igemm_run(context, &g, scratch);
        weights += gfli_igemm_packed_size(&g) / sizeof(float);
    }
}

/* ---- weights --------------------------------------------------------------------------------- */

/* dweight [out][taps * in] is the sum over all positions of the outer products of dy and the rows
 * of the implicit matrix of gemm.c: here positions are the inner dimension.
 *
 * 1. Positions are cut into chunks by the shapes alone: one for every GFLI_GRAD_CHUNK positions,
 *    but at most GFLI_GRAD_CHUNKS, and no more than have sums of GFLI_GRAD_PARTIAL bytes together.
 *    Each chunk has a sum of its own.  A single chunk adds up in dweight itself, unless groups are
 *    merged and the sum has the zeros between them.
 * 2. Weights are cut into tasks: GFLI_GRAD_OUT output channels by some strips, which are GFLI_STRIP
 *    columns of one tap.  How many strips depends on the threads, and changes no sum.
 * 3. A task goes through its chunk in blocks of at most GFLI_GRAD_ROWS positions.  It packs dy of
 *    the block as panels of GFLI_MR channels; then, for one strip after the other, it packs the
 *    columns (those of a deformable convolution are sampled) and adds the products to the sum, in
 *    tiles of GFLI_MR channels by a strip.
 * 4. The chunks' sums are added in their order, without the zeros of merged groups.
 *
 * dbias is added up in double, over blocks of GFLI_BIAS_ROWS positions and then in their order. */
enum {
    GFLI_GRAD_ROWS = 252, /* positions that are packed together, at most; a multiple of GFLI_MR */
    GFLI_STRIP = 2 * GFLI_NR, /* columns of the implicit matrix that are packed together */
    GFLI_GRAD_OUT = 384,      /* output channels of a task; a multiple of GFLI_MR */
    GFLI_GRAD_CHUNK = 768,    /* positions worth a sum of their own */
    GFLI_GRAD_CHUNKS = 16,
    GFLI_GRAD_PARTIAL = 4 << 20, /* bytes that all the sums may take */
    GFLI_BIAS_ROWS = 1024
};

/* Positions into chunks (by the shapes alone), weights into tasks (which changes no sum). */
static void gfli_grad_cut(const gfl_context *context, gfli_grad_task *t) {
    const gfli_conv_shape *s = t->s;
    t->n_rows = gfli_igemm_rows(&t->g);
    t->n_strips = t->g.groups * t->g.n_segs * gfli_ceil_div(t->g.seg_len, GFLI_STRIP);
    t->n_weights = (size_t)s->out_c * (size_t)(t->g.n_segs * t->g.seg_len);
    const size_t fit = GFLI_GRAD_PARTIAL / (t->n_weights * sizeof(float));
    size_t chunks = t->n_rows / GFLI_GRAD_CHUNK;
    if (chunks > fit) chunks = fit;
    if (chunks > GFLI_GRAD_CHUNKS) chunks = GFLI_GRAD_CHUNKS;
    t->chunks = gfli_max((int)chunks, 1);
    t->rows_per_chunk = (t->n_rows + (size_t)t->chunks - 1) / (size_t)t->chunks;
    const int blocks = (int)((t->rows_per_chunk + GFLI_GRAD_ROWS - 1) / GFLI_GRAD_ROWS);
    t->rows_per_block = gfli_ceil_div((int)t->rows_per_chunk, gfli_max(blocks, 1));
    t->direct = t->chunks == 1 && t->g.groups == s->groups;
    t->out_tasks = gfli_ceil_div(t->g.group_out, GFLI_GRAD_OUT);
    t->strips_per_task = gfli_min(t->n_strips, 9);
    const int others = t->chunks * t->out_tasks, want = 4 * context->n_threads;
    while (context->n_threads > 1 && t->strips_per_task > 2 &&
           others * gfli_ceil_div(t->n_strips, t->strips_per_task) < want) {
        t->strips_per_task--;
    }
    t->strip_tasks = gfli_ceil_div(t->n_strips, t->strips_per_task);
}

/* The parts of the scratch, which may be NULL; returns the bytes. */
static size_t gfli_grad_lay_out(const gfl_context *context, gfli_grad_task *t, void *scratch) {
    gfli_cutter c = {(unsigned char *)scratch, 0};
    const size_t f = sizeof(float), sums = t->direct ? 0 : (size_t)t->chunks * t->n_weights;
    const size_t blocks = (t->n_rows + GFLI_BIAS_ROWS - 1) / GFLI_BIAS_ROWS;
    t->zeros = (float *)gfli_cut(&c, (size_t)gfli_max(t->s->in_c, t->g.seg_len) * f);
    if (scratch) memset(t->zeros, 0, c.used);
    t->sums = (float *)gfli_cut(&c, sums * f);
    t->bias_sums = (double *)gfli_cut(&c, blocks * (size_t)t->s->out_c * sizeof(double));
    t->room = (char *)gfli_cut(&c, t->slot * (size_t)context->n_threads);
    return c.used;
}

void gfli_grad_plan(const gfl_context *context, const gfli_conv_shape *s, const gfli_igemm *g,
                    const gfli_map *dy, gfli_grad_task *t) {
    const size_t rows = GFLI_GRAD_ROWS, f = sizeof(float);
    memset(t, 0, sizeof *t);
    t->s = s;
    t->g = *g;
    t->g.y = dy;
    t->dy = dy;
    gfli_grad_cut(context, t);
    t->pointers = gfli_round_64(rows * (size_t)t->g.n_segs * sizeof(const float *));
    t->offsets = gfli_round_64(rows * sizeof(ptrdiff_t));
    t->copies = rows * gfli_igemm_copy(&t->g) * f;
    t->dy_panels = gfli_round_64(rows * (GFLI_GRAD_OUT + GFLI_MR) * f);
    t->slot = t->pointers + t->offsets + t->copies + t->dy_panels + rows * GFLI_STRIP * f;
    t->scratch = gfli_grad_lay_out(context, t, NULL);
}

/* dy of n positions and `out` channels as panels [out / GFLI_MR][n][GFLI_MR], zero-filled. */
static void gfli_grad_pack_dy(const float *dy, const ptrdiff_t *offsets, int n, int out,
                              float *panel) {
    for (int o = 0; o < out; o += GFLI_MR) {
        const int width = gfli_min(GFLI_MR, out - o);
        for (int k = 0; k < n; k++, panel += GFLI_MR) {
            const float *row = dy + offsets[k] + o;
            if (width == GFLI_MR) {
                memcpy(panel, row, GFLI_MR * sizeof(float));
            } else {
                for (int r = 0; r < GFLI_MR; r++) panel[r] = r < width ? row[r] : 0.0f;
            }
        }
    }
}

/* A strip [n][padded] of the implicit matrix: `width` floats of every run, then zeros. */
static void gfli_grad_pack_x(const float *const *rows, int n_segs, ptrdiff_t offset, int n,
                             int width, int padded, float *strip) {
    for (int k = 0; k < n; k++, strip += padded) {
        const float *row = rows[(ptrdiff_t)(k / GFLI_MR) * GFLI_MR * n_segs + k % GFLI_MR] + offset;
        if (width == GFLI_STRIP) {
            memcpy(strip, row, GFLI_STRIP * sizeof(float));
        } else {
            memcpy(strip, row, (size_t)width * sizeof(float));
            memset(strip + width, 0, (size_t)(padded - width) * sizeof(float));
        }
    }
}

/* The same of a tap's points. */
static void gfli_grad_sample_x(const gfli_grad_task *t, const gfli_point *points, int first, int n,
                               int width, int padded, float *strip) {
    gfli_sampling one;
    one.x = t->g.x;
    one.zeros = t->zeros;
    one.points = points;
    one.rows = n;
    one.first = first;
    one.n = width;
    one.out = strip;
    one.stride = padded;
    t->kernels->sampling(&one);
    for (int k = 0; k < n && width < padded; k++, strip += padded)
        memset(strip + width, 0, (size_t)(padded - width) * sizeof(float));
}

typedef struct gfli_grad_part {
    int chunk, strip0, strip1, out0, out1; /* output channels within a group */
    size_t row;
    int n; /* positions */
} gfli_grad_part;

/* Add the products of part->n positions. */
static void gfli_grad_block(const gfli_grad_task *t, const gfli_grad_part *part, char *memory) {
    const gfli_igemm *g = &t->g;
    const float **rows = (const float **)(void *)memory;
    ptrdiff_t *offsets = (ptrdiff_t *)(void *)(memory + t->pointers);
    float *copies = (float *)(void *)(memory + t->pointers + t->offsets);
    float *dy = copies + t->copies / sizeof(float), *x = dy + t->dy_panels / sizeof(float);
    const int k_size = g->n_segs * g->seg_len;
    const int group_strips = g->n_segs * gfli_ceil_div(g->seg_len, GFLI_STRIP);
    float *sum = t->direct ? t->dweight : t->sums + (size_t)part->chunk * t->n_weights;
    if (t->points)
        for (int k = 0; k < part->n; k++) offsets[k] = ((ptrdiff_t)part->row + k) * t->dy->c;
    else
        gfli_igemm_gather(g, part->row, part->n, t->zeros, rows, offsets, copies);
    gfli_outer o;
    o.b = x;
    o.len = part->n;
    o.stride = (size_t)k_size;
    o.first = part->row == (size_t)part->chunk * t->rows_per_chunk;
    for (int p = part->strip0, packed_group = -1; p < part->strip1; p++) {
        const int group = p / group_strips, seg = p % g->n_segs;
        const int col = p % group_strips / g->n_segs * GFLI_STRIP;
        const int out = group * g->group_out + part->out0;
        if (group != packed_group) {
            gfli_grad_pack_dy(t->dy->data + out, offsets, part->n, part->out1 - part->out0, dy);
            packed_group = group;
        }
        o.n = gfli_min(GFLI_STRIP, g->seg_len - col);
        o.width = gfli_ceil_div(o.n, GFLI_NR) * GFLI_NR;
        if (t->points)
            gfli_grad_sample_x(t, t->points + part->row * GFLI_DEFORM_TAPS + seg,
                               group * g->group_in + col, part->n, o.n, o.width, x);
        else
            gfli_grad_pack_x(rows + (ptrdiff_t)seg * GFLI_MR, g->n_segs, group * g->group_in + col,
                             part->n, o.n, o.width, x);
        for (int r = 0; r < part->out1 - part->out0; r += GFLI_MR) {
            o.a = dy + (ptrdiff_t)r * part->n;
            o.m = gfli_min(GFLI_MR, part->out1 - part->out0 - r);
            o.c = sum + (size_t)(out + r) * (size_t)k_size + (size_t)(seg * g->seg_len + col);
            t->kernels->outer(&o);
        }
    }
}

static void gfli_grad_do(void *arg, int task, int slot) {
    const gfli_grad_task *t = (const gfli_grad_task *)arg;
    const int out_task = task % t->out_tasks, strip_task = task / t->out_tasks % t->strip_tasks;
    gfli_grad_part part;
    part.chunk = task / t->out_tasks / t->strip_tasks;
    part.strip0 = strip_task * t->strips_per_task;
    part.strip1 = gfli_min(part.strip0 + t->strips_per_task, t->n_strips);
    part.out0 = out_task * GFLI_GRAD_OUT;
    part.out1 = gfli_min(part.out0 + GFLI_GRAD_OUT, t->g.group_out);
    const size_t first = (size_t)part.chunk * t->rows_per_chunk;
    const size_t last =
        first + t->rows_per_chunk < t->n_rows ? first + t->rows_per_chunk : t->n_rows;
    for (part.row = first; part.row < last; part.row += (size_t)t->rows_per_block) {
        const size_t left = last - part.row;
        part.n = left < (size_t)t->rows_per_block ? (int)left : t->rows_per_block;
        gfli_grad_block(t, &part, t->room + (size_t)slot * t->slot);
    }
}

/* dweight of one output channel: the chunks' sums in order, without the merged groups' zeros. */
static void gfli_grad_sum(void *arg, int o, int slot) {
    const gfli_grad_task *t = (const gfli_grad_task *)arg;
    const gfli_conv_shape *s = t->s;
    const int c = s->in_c / s->groups, taps = s->kernel * s->kernel;
    const int at = o / (s->out_c / s->groups) * c % t->g.group_in;
    const size_t row = t->n_weights / (size_t)s->out_c, run = row / (size_t)taps;
    (void)slot;
    for (int chunk = 0; chunk < t->chunks; chunk++) {
        const float *sum = t->sums + (size_t)chunk * t->n_weights + (size_t)o * row + at;
        for (int k = 0; k < taps; k++, sum += run) {
            float *w = t->dweight + gfli_weight_at(taps, c, o, k, 0);
            for (int i = 0; i < c; i++) w[i] = chunk ? w[i] + sum[i] : sum[i];
        }
    }
}

static void gfli_grad_bias(void *arg, int block, int slot) {
    const gfli_grad_task *t = (const gfli_grad_task *)arg;
    const size_t c = (size_t)t->s->out_c, first = (size_t)block * GFLI_BIAS_ROWS;
    const size_t left = t->n_rows - first, rows = GFLI_BIAS_ROWS;
    const size_t n = left < rows ? left : rows;
    double *sums = t->bias_sums + (size_t)block * c;
    (void)slot;
    for (size_t col = 0; col < c; col += 32) {
        const size_t width = c - col < 32 ? c - col : 32;
        const float *dy = t->dy->data + first * c + col;
        double sum[32] = {0.0};
        for (size_t r = 0; r < n; r++, dy += c) {
            for (size_t j = 0; j < width; j++) sum[j] += (double)dy[j];
        }
        memcpy(sums + col, sum, width * sizeof(double));
    }
}

static void gfli_conv_grad_bias(gfl_context *context, gfli_grad_task *t) {
    const int blocks = (int)((t->n_rows + GFLI_BIAS_ROWS - 1) / GFLI_BIAS_ROWS);
    const int c = t->s->out_c;
    gfli_parallel_for(context, blocks, gfli_grad_bias, t);
    for (int o = 0; o < c; o++) {
        double sum = 0.0;
        for (int b = 0; b < blocks; b++) sum += t->bias_sums[(ptrdiff_t)b * c + o];
        t->dbias[o] = (float)sum;
    }
}

static gfli_map gfli_grad_dy(const gfli_conv_shape *s, const gfli_map *x) {
    gfli_map dy = *x;
    dy.c = s->out_c;
    for (int l = 0; l < x->levels; l++) {
        dy.h[l] = gfli_conv_out(s, x->h[l]);
        dy.w[l] = gfli_conv_out(s, x->w[l]);
    }
    return dy;
}

static size_t gfli_conv_grad_scratch_cpu(const gfl_context *context, const gfli_conv_shape *s,
                                         const gfli_map *x) {
    const gfli_map dy = gfli_grad_dy(s, x);
    gfli_grad_task t;
    gfli_igemm whole;
    gfli_conv_igemm(s, &whole);
    gfli_grad_plan(context, s, &whole, &dy, &t);
    size_t size = t.scratch;
    for (int phase = 0; phase < s->stride * s->stride; phase++) {
        gfli_igemm g;
        int tap[GFLI_MAX_TAPS];
        gfli_grad_phase(s, phase / s->stride, phase % s->stride, &g, tap);
        const size_t need = gfli_igemm_scratch(context, &g);
        if (need > size) size = need;
    }
    return size;
}

void gfli_grad_weight(gfl_context *context, gfli_grad_task *t, const gfli_map *x, float *dweight,
                      float *dbias, void *scratch) {
    t->g.x = x;
    t->dweight = dweight;
    t->dbias = dbias;
    (void)gfli_grad_lay_out(context, t, scratch);
    t->kernels = gfli_kernels_of(context);
    if (dbias) gfli_conv_grad_bias(context, t);
    if (!t->n_rows) {
        memset(dweight, 0, gfli_conv_weights(t->s) * sizeof(float));
        return;
    }
    gfli_parallel_for(context, t->chunks * t->strip_tasks * t->out_tasks, gfli_grad_do, t);
    if (!t->direct) gfli_parallel_for(context, t->s->out_c, gfli_grad_sum, t);
}

static void gfli_conv_grad_weight_cpu(gfl_context *context, const gfli_conv_shape *s,
                                      const gfli_map *x, const gfli_map *dy, float *dweight,
                                      float *dbias, void *scratch) {
    gfli_grad_task t;
    gfli_igemm g;
    gfli_conv_igemm(s, &g);
    gfli_grad_plan(context, s, &g, dy, &t);
    gfli_grad_weight(context, &t, x, dweight, dbias, scratch);
}

/* ===============================================================================================
 * src/cpu/deform_grad.c - gradients of deformable convolution
 * ============================================================================================ */

/* Spec 1.5, backward.
 *
 *     find      the points of all positions and taps, which both passes use
 *     for each image and part of the channels, a task each:
 *         for each tile of positions, strip of channels and tap:
 *             grad   = dy times the transposed weights of the tap: d loss / d (sample * mask)
 *             scatter: dx at the four corners += weight * mask * grad; and with the products of
 *                      grad and the corners, summed over the strip, this task's own sums for the
 *                      offsets (their slopes) and for the mask (their weighted sum)
 *     doffset   the tasks' sums in order; of a mask's logit, times mask * (1 - mask)
 *     dweight   as of any convolution (conv_grad.c), the rows being the samples times the mask
 *
 * A task owns its channels of an image, so that what it scatters meets no other task.  How channels
 * are cut depends on the shape alone. */
enum {
    GFLI_DEFORM_ROWS = 96,   /* positions of a tile; a multiple of GFLI_MR */
    GFLI_DEFORM_PARTS = 16,  /* of the channels, at most */
    GFLI_DEFORM_BLOCK = 1024 /* positions of a task that needs no tiles */
};

/* ---- weights for the gradient of the sampled values ------------------------------------------ */

/* dy's channels of a group are the inner dimension, x's are the columns; packed
 * [groups][panels of group_out][taps][group_in][GFLI_NR]. */
static void gfli_deform_grad_igemm(const gfli_conv_shape *s, gfli_igemm *g) {
    const gfli_groups merged = gfli_merge_groups(s, GFLI_NR);
    memset(g, 0, sizeof *g);
    g->groups = merged.n;
    g->group_in = merged.out;
    g->group_out = merged.in;
    g->n_segs = GFLI_DEFORM_TAPS;
    g->seg_taps = 1;
    g->seg_len = g->group_in;
}

static size_t gfli_deform_conv_grad_packed_size_cpu(const gfli_conv_shape *s) {
    gfli_igemm g;
    gfli_deform_grad_igemm(s, &g);
    return gfli_igemm_packed_size(&g);
}

static void gfli_deform_conv_grad_pack_cpu(gfl_context *context, const gfli_conv_shape *s,
                                           const float *weight, const float *scale, void *packing) {
    gfli_grad_pack_task t;
    t.s = s;
    t.weight = weight;
    t.scale = scale;
    t.packing = (float *)packing;
    gfli_deform_grad_igemm(s, &t.g);
    for (int k = 0; k < GFLI_DEFORM_TAPS; k++) t.tap[k] = k;
    const int parts = gfli_ceil_div(t.g.group_in, GFLI_PACK_ROWS);
    gfli_parallel_for(context, t.g.groups * t.g.n_segs * parts, gfli_grad_pack_rows, &t);
}

/* ---- input and offsets ----------------------------------------------------------------------- */

/* Scratch: zeros and the points of all positions, which both passes use; then the first pass's
 * sums and slots in the place of the second one's scratch. */
typedef struct gfli_deform_grad_task {
    const gfli_conv_shape *s;
    gfli_igemm g;
    const gfli_map *x, *offset, *dy, *dx, *doffset;
    size_t positions;
    int parts, part_panels, n_panels;
    const gfli_kernels *kernels;
    float *zeros, *sums; /* sums [parts][positions][offset->c] */
    gfli_point *points;
    const float *packing;
    char *room;
    void *rest;            /* the second pass's scratch */
    size_t pointers, slot; /* bytes */
} gfli_deform_grad_task;

/* The parts of the scratch, which may be NULL; second: bytes for the second pass.  Returns the
 * bytes. */
static size_t gfli_deform_grad_lay_out(const gfl_context *context, gfli_deform_grad_task *t,
                                       size_t second, void *scratch) {
    const size_t f = sizeof(float), points = t->positions * GFLI_DEFORM_TAPS;
    gfli_cutter c = {(unsigned char *)scratch, 0};
    t->zeros = (float *)gfli_cut(&c, (size_t)gfli_max(t->s->in_c, t->s->out_c) * f);
    if (scratch) memset(t->zeros, 0, c.used);
    t->points = (gfli_point *)gfli_cut(&c, points * sizeof *t->points);
    t->rest = gfli_cut(&c, 0);
    second += c.used;
    t->sums = (float *)gfli_cut(&c, (size_t)t->parts * t->positions * (size_t)t->offset->c * f);
    t->room = (char *)gfli_cut(&c, t->slot * (size_t)context->n_threads);
    return c.used > second ? c.used : second;
}

static void gfli_deform_grad_plan(const gfli_conv_shape *s, const gfli_map *offset,
                                  gfli_deform_grad_task *t) {
    const size_t f = sizeof(float), rows = GFLI_DEFORM_ROWS;
    memset(t, 0, sizeof *t);
    t->s = s;
    t->offset = offset;
    gfli_deform_grad_igemm(s, &t->g);
    t->positions = gfli_points(offset);
    t->n_panels = t->g.groups * gfli_ceil_div(t->g.group_out, GFLI_NR);
    t->part_panels = gfli_max(gfli_ceil_div(t->n_panels, GFLI_DEFORM_PARTS), 2);
    t->parts = gfli_ceil_div(t->n_panels, t->part_panels);
    t->pointers = gfli_round_64(rows * (sizeof(const float *) + sizeof(ptrdiff_t)));
    t->slot = t->pointers + rows * GFLI_DEFORM_STRIP * f;
}

static void gfli_deform_find(void *arg, int block, int slot) {
    const gfli_deform_grad_task *t = (const gfli_deform_grad_task *)arg;
    const size_t first = (size_t)block * GFLI_DEFORM_BLOCK, left = t->positions - first;
    const int n = left < GFLI_DEFORM_BLOCK ? (int)left : GFLI_DEFORM_BLOCK;
    (void)slot;
    gfli_find_points(t->s, t->x, t->offset, first, n, t->points + first * GFLI_DEFORM_TAPS);
}

/* A strip: up to two panels, whose channels lie together. */
typedef struct gfli_deform_strip {
    int panel, n_panels, channel, channels;
} gfli_deform_strip;

static int gfli_panel_channel(const gfli_igemm *g, int panel) {
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR);
    return panel / group_panels * g->group_out + panel % group_panels * GFLI_NR;
}

/* grad = dy times the weights of one tap, for n rows at `rows` and a strip's channels. */
static void gfli_deform_grad_tile(const gfli_deform_grad_task *t, const gfli_deform_strip *strip,
                                  int tap, int n, const float *const *rows, const ptrdiff_t *out,
                                  float *grad) {
    const gfli_igemm *g = &t->g;
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR);
    gfli_tile tile;
    memset(&tile, 0, sizeof tile);
    tile.n_segs = 1;
    tile.panel = (size_t)g->n_segs * (size_t)g->seg_len * GFLI_NR;
    for (int p = strip->panel, end = p + strip->n_panels, together; p < end; p += together) {
        const int group = p / group_panels, in_group = p % group_panels;
        together = gfli_min(gfli_min(t->kernels->tile_panels, end - p), group_panels - in_group);
        tile.n = gfli_min(together * GFLI_NR, g->group_out - in_group * GFLI_NR);
        tile.y = grad + gfli_panel_channel(g, p) - strip->channel;
        for (int k = 0; k < g->group_in; k += GFLI_K_BLOCK) {
            tile.len = gfli_min(GFLI_K_BLOCK, g->group_in - k);
            tile.first = k == 0;
            tile.row_offset = group * g->group_in + k;
            tile.b = t->packing + (size_t)p * tile.panel +
                     ((size_t)tap * (size_t)g->seg_len + (size_t)k) * GFLI_NR;
            for (int r = 0; r < n; r += GFLI_MR) {
                tile.rows = rows + r;
                tile.out = out + r;
                tile.m = gfli_min(GFLI_MR, n - r);
                t->kernels->tile(&tile);
            }
        }
    }
}

/* Some positions and all channels of a part. */
static void gfli_deform_grad_rows(const gfli_deform_grad_task *t, int part, size_t first, int n,
                                  char *memory) {
    const float **rows = (const float **)(void *)memory;
    ptrdiff_t *out = (ptrdiff_t *)(void *)(rows + GFLI_DEFORM_ROWS);
    float *grad = (float *)(void *)(memory + t->pointers);
    const int begin = part * t->part_panels, end = gfli_min(begin + t->part_panels, t->n_panels);
    for (int r = 0; r < gfli_ceil_div(n, GFLI_MR) * GFLI_MR; r++) {
        const int row = gfli_min(r, n - 1);
        rows[r] = t->dy->data + (first + (size_t)row) * (size_t)t->dy->c;
        out[r] = (ptrdiff_t)row * GFLI_DEFORM_STRIP;
    }
    gfli_scatter s;
    s.x = t->x;
    s.zeros = t->zeros;
    s.grad = grad;
    s.rows = n;
    s.dx = t->dx ? t->dx->data : NULL;
    s.values = t->offset->c;
    float *sums = t->sums + ((size_t)part * t->positions + first) * (size_t)s.values;
    for (int p = begin; p < end; p += 2) {
        gfli_deform_strip strip;
        strip.panel = p;
        strip.n_panels = gfli_min(2, end - p);
        strip.channel = gfli_panel_channel(&t->g, p);
        strip.channels =
            (p + strip.n_panels == t->n_panels ? t->s->in_c
                                               : gfli_panel_channel(&t->g, p + strip.n_panels)) -
            strip.channel;
        s.first = strip.channel;
        s.n = strip.channels;
        s.first_sum = p == begin;
        for (int tap = 0; tap < GFLI_DEFORM_TAPS; tap++) {
            gfli_deform_grad_tile(t, &strip, tap, n, rows, out, grad);
            s.points = t->points + first * GFLI_DEFORM_TAPS + tap;
            s.sums = sums + 2 * tap;
            s.mask_at = s.values > 2 * GFLI_DEFORM_TAPS ? 2 * GFLI_DEFORM_TAPS - tap : 0;
            t->kernels->scatter(&s);
        }
    }
}

/* One part of the channels of one image. */
static void gfli_deform_grad_do(void *arg, int task, int slot) {
    const gfli_deform_grad_task *t = (const gfli_deform_grad_task *)arg;
    const int part = task % t->parts, level = task / t->parts / t->x->n;
    const int image = task / t->parts % t->x->n;
    const size_t area = (size_t)t->offset->h[level] * (size_t)t->offset->w[level];
    const size_t first = gfli_points_before(t->offset, level) + (size_t)image * area;
    for (size_t done = 0; done < area; done += GFLI_DEFORM_ROWS) {
        const int n = area - done < GFLI_DEFORM_ROWS ? (int)(area - done) : GFLI_DEFORM_ROWS;
        gfli_deform_grad_rows(t, part, first + done, n, t->room + (size_t)slot * t->slot);
    }
}

/* doffset: the parts' sums in order; a mask is the sigmoid m of its logit, so m (1 - m). */
static void gfli_deform_grad_sum(void *arg, int block, int slot) {
    const gfli_deform_grad_task *t = (const gfli_deform_grad_task *)arg;
    const int values = t->offset->c, mask_at = 2 * GFLI_DEFORM_TAPS;
    const size_t first = (size_t)block * GFLI_DEFORM_BLOCK;
    (void)slot;
    for (size_t i = first; i < first + GFLI_DEFORM_BLOCK && i < t->positions; i++) {
        float *out = t->doffset->data + i * (size_t)values;
        const gfli_point *points = t->points + i * GFLI_DEFORM_TAPS;
        for (int part = 0; part < t->parts; part++) {
            const float *sums = t->sums + ((size_t)part * t->positions + i) * (size_t)values;
            for (int v = 0; v < values; v++) out[v] = part ? out[v] + sums[v] : sums[v];
        }
        for (int v = mask_at; v < values; v++) {
            const float m = points[v - mask_at].mask;
            out[v] *= m * (1.0f - m);
        }
    }
}

/* Of what a layer with such an input and offsets gives. */
static gfli_map gfli_deform_dy(const gfli_conv_shape *s, const gfli_map *offset) {
    gfli_map dy = *offset;
    dy.c = s->out_c;
    return dy;
}

static size_t gfli_deform_conv_grad_scratch_cpu(const gfl_context *context,
                                                const gfli_conv_shape *s, const gfli_map *offset) {
    const gfli_map dy = gfli_deform_dy(s, offset);
    gfli_deform_grad_task t;
    gfli_igemm g;
    gfli_grad_task weights;
    gfli_deform_grad_plan(s, offset, &t);
    gfli_deform_igemm(s, &g);
    gfli_grad_plan(context, s, &g, &dy, &weights);
    return gfli_deform_grad_lay_out(context, &t, weights.scratch, NULL);
}

static void gfli_deform_conv_grad_cpu(gfl_context *context, const gfli_conv_shape *s,
                                      const void *packing, const gfli_map *x,
                                      const gfli_map *offset, const gfli_map *dy, bool accumulate,
                                      const gfli_map *dx, const gfli_map *doffset, float *dweight,
                                      float *dbias, void *scratch) {
    gfli_deform_grad_task t;
    gfli_deform_grad_plan(s, offset, &t);
    t.x = x;
    t.dy = dy;
    t.dx = dx;
    t.doffset = doffset;
    t.packing = (const float *)packing;
    (void)gfli_deform_grad_lay_out(context, &t, 0, scratch);
    t.kernels = gfli_kernels_of(context);
    if (dx && !accumulate) memset(dx->data, 0, gfli_map_count(dx) * sizeof(float));
    const int blocks = (int)((t.positions + GFLI_DEFORM_BLOCK - 1) / GFLI_DEFORM_BLOCK);
    gfli_parallel_for(context, blocks, gfli_deform_find, &t);
    gfli_parallel_for(context, x->levels * x->n * t.parts, gfli_deform_grad_do, &t);
    gfli_parallel_for(context, blocks, gfli_deform_grad_sum, &t);
    gfli_grad_task weights;
    gfli_igemm g;
    gfli_deform_igemm(s, &g);
    gfli_grad_plan(context, s, &g, dy, &weights);
    weights.points = t.points;
    gfli_grad_weight(context, &weights, x, dweight, dbias, t.rest);
}

/* ===============================================================================================
 * src/cpu/norm_grad.c - gradients of group normalisation with its ReLU, and of the level scales
 * ============================================================================================ */

/* Wu and He, "Group Normalization", ECCV 2018, arXiv:1803.08494 */

enum {
    GFLI_GN_ROWS = 128, /* positions whose sums are kept in float before they go to double */
    GFLI_GN_CHANNELS = 64,
    GFLI_SCALE_PARTS = 64 /* parts of a level's sum: fixed, so that threads change nothing */
};

typedef struct gfli_gn_grad {
    const gfli_map *x, *y, *dy, *dx;
    int groups;
    const float *gamma, *stats;
    int n_tasks[GFL_LEVELS]; /* chunks of one image of a level */
    float *partial;          /* [task][2][c]: sums of g and of g * (x - mean), g = dy where y > 0 */
    double *sums;            /* [level][n][2][c]: of g and of g * xhat, of the whole image */
    float *coef;             /* [level][n][4][c]: dx = c0 * g + c1 * (x - c3) + c2 */
} gfli_gn_grad;

/* Chunk `task` is of which level, image and positions? */
typedef struct gfli_gn_chunk {
    int plane; /* level * n + image */
    size_t first;
    int rows;
} gfli_gn_chunk;

static gfli_gn_chunk gfli_gn_find(const gfli_gn_grad *t, int task) {
    gfli_gn_chunk chunk;
    int level = 0;
    while (task >= t->n_tasks[level] * t->x->n) task -= t->n_tasks[level++] * t->x->n;
    const int image = task / t->n_tasks[level], at = task % t->n_tasks[level];
    const int area = t->x->h[level] * t->x->w[level];
    chunk.plane = level * t->x->n + image;
    chunk.first =
        gfli_points_before(t->x, level) + (size_t)image * (size_t)area + (size_t)at * GFLI_GN_ROWS;
    chunk.rows = gfli_min(GFLI_GN_ROWS, area - at * GFLI_GN_ROWS);
    return chunk;
}

/* dy where y > 0, else 0: by a mask, because compilers do not vectorise the branch. */
static inline float gfli_relu_pass(float y, float dy) {
    uint32_t bits;
    memcpy(&bits, &dy, sizeof bits);
    bits &= 0u - (uint32_t)(y > 0);
    memcpy(&dy, &bits, sizeof dy);
    return dy;
}

/* Sums over one chunk, of g and of g * (x - mean); the deviation follows once per group. */
static void gfli_gn_grad_sums(void *arg, int task, int slot) {
    const gfli_gn_grad *t = (const gfli_gn_grad *)arg;
    const gfli_gn_chunk chunk = gfli_gn_find(t, task);
    const int c = t->x->c;
    float *partial = t->partial + (size_t)task * 2 * (size_t)c;
    const float *mean = t->coef + ((size_t)chunk.plane * 4 + 3) * (size_t)c;
    const size_t at = chunk.first * (size_t)c;
    const float *x = t->x->data + at, *y = t->y->data + at, *dy = t->dy->data + at;
    (void)slot;
    memset(partial, 0, 2 * (size_t)c * sizeof *partial);
    float *GFLI_RESTRICT s0 = partial;
    float *GFLI_RESTRICT s1 = partial + c;
    for (int i = 0; i < chunk.rows; i++, x += c, y += c, dy += c) {
        for (int k = 0; k < c; k++) {
            const float g = gfli_relu_pass(y[k], dy[k]);
            s0[k] += g;
            s1[k] += g * (x[k] - mean[k]);
        }
    }
}

/* From the sums of one image of one level to what its dx needs. */
static void gfli_gn_grad_plane(void *arg, int plane, int slot) {
    const gfli_gn_grad *t = (const gfli_gn_grad *)arg;
    const int n = t->x->n, c = t->x->c, level = plane / n, width = c / t->groups;
    int first = plane % n * t->n_tasks[level];
    for (int l = 0; l < level; l++) first += n * t->n_tasks[l];
    double *s0 = t->sums + (size_t)plane * 2 * (size_t)c, *s1 = s0 + c;
    float *coef = t->coef + (size_t)plane * 4 * (size_t)c;
    (void)slot;
    memset(s0, 0, 2 * (size_t)c * sizeof *s0);
    for (int i = 0; i < t->n_tasks[level]; i++) {
        const float *p = t->partial + (size_t)(first + i) * 2 * (size_t)c;
        for (int k = 0; k < 2 * c; k++) s0[k] += (double)p[k];
    }
    const double count = (double)width * t->x->h[level] * t->x->w[level];
    for (int group = 0; group < t->groups; group++) {
        const double r =
            (double)t->stats[((size_t)plane * (size_t)t->groups + (size_t)group) * 2 + 1];
        double m0 = 0, m1 = 0;
        for (int k = group * width; k < (group + 1) * width; k++) {
            s1[k] *= r;
            m0 += (double)t->gamma[k] * s0[k];
            m1 += (double)t->gamma[k] * s1[k];
        }
        for (int k = group * width; k < (group + 1) * width; k++) {
            coef[k] = (float)(r * (double)t->gamma[k]);
            coef[c + k] = (float)(-r * r * m1 / count);
            coef[2 * c + k] = (float)(-r * m0 / count);
        }
    }
}

static void gfli_gn_grad_apply(void *arg, int task, int slot) {
    const gfli_gn_grad *t = (const gfli_gn_grad *)arg;
    const gfli_gn_chunk chunk = gfli_gn_find(t, task);
    const int c = t->x->c;
    const float *c0 = t->coef + (size_t)chunk.plane * 4 * (size_t)c;
    const float *c1 = c0 + c, *c2 = c1 + c, *mean = c2 + c;
    const size_t at = chunk.first * (size_t)c;
    const float *x = t->x->data + at, *y = t->y->data + at, *dy = t->dy->data + at;
    float *dx = t->dx->data + at;
    (void)slot;
    for (int i = 0; i < chunk.rows; i++, x += c, y += c, dy += c, dx += c) {
        for (int first = 0; first < c; first += GFLI_GN_CHANNELS) {
            const int last = gfli_min(first + GFLI_GN_CHANNELS, c);
            float out[GFLI_GN_CHANNELS]; /* dx may be dy: a copy lets the compiler vectorise */
            for (int k = first; k < last; k++) {
                const float g = gfli_relu_pass(y[k], dy[k]);
                out[k - first] = c0[k] * g + (c1[k] * (x[k] - mean[k]) + c2[k]);
            }
            memcpy(dx + first, out, (size_t)(last - first) * sizeof *dx);
        }
    }
}

static size_t gfli_group_norm_grad_scratch_cpu(const gfl_context *context, const gfli_map *x) {
    const size_t c = (size_t)x->c, planes = (size_t)(x->levels * x->n);
    size_t tasks = 0;
    (void)context;
    for (int l = 0; l < x->levels; l++)
        tasks += (size_t)(x->n * gfli_ceil_div(x->h[l] * x->w[l], GFLI_GN_ROWS));
    return planes * 2 * c * sizeof(double) + (planes * 4 + tasks * 2) * c * sizeof(float);
}

static void gfli_group_norm_grad_cpu(gfl_context *context, const gfli_map *x, const gfli_map *y,
                                     int groups, const float *gamma, const float *stats,
                                     const gfli_map *dy, const gfli_map *dx, float *dgamma,
                                     float *dbeta, void *scratch) {
    const int c = x->c, planes = x->levels * x->n, width = c / groups;
    gfli_gn_grad t;
    int tasks = 0;
    memset(&t, 0, sizeof t);
    t.x = x;
    t.y = y;
    t.dy = dy;
    t.dx = dx;
    t.groups = groups;
    t.gamma = gamma;
    t.stats = stats;
    for (int l = 0; l < x->levels; l++) {
        t.n_tasks[l] = gfli_ceil_div(x->h[l] * x->w[l], GFLI_GN_ROWS);
        tasks += t.n_tasks[l] * x->n;
    }
    t.sums = (double *)scratch;
    t.coef = (float *)(t.sums + (size_t)planes * 2 * (size_t)c);
    t.partial = t.coef + (size_t)planes * 4 * (size_t)c;
    for (int p = 0; p < planes; p++)
        for (int k = 0; k < c; k++)
            t.coef[((size_t)p * 4 + 3) * (size_t)c + (size_t)k] =
                stats[((size_t)p * (size_t)groups + (size_t)(k / width)) * 2];
    gfli_parallel_for(context, tasks, gfli_gn_grad_sums, &t);
    gfli_parallel_for(context, planes, gfli_gn_grad_plane, &t);
    gfli_parallel_for(context, tasks, gfli_gn_grad_apply, &t);
    for (int k = 0; k < c; k++) {
        double beta = 0, scale = 0;
        for (int p = 0; p < planes; p++) {
            beta += t.sums[(size_t)p * 2 * (size_t)c + (size_t)k];
            scale += t.sums[((size_t)p * 2 + 1) * (size_t)c + (size_t)k];
        }
        dbeta[k] = (float)beta;
        dgamma[k] = (float)scale;
    }
}

/* ---- level scales ---------------------------------------------------------------------------- */

typedef struct gfli_scale_grad {
    const gfli_map *x, *dy, *dx;
    const float *scale;
    double sums[GFL_LEVELS][GFLI_SCALE_PARTS];
} gfli_scale_grad;

static void gfli_scale_grad_part(void *arg, int task, int slot) {
    gfli_scale_grad *t = (gfli_scale_grad *)arg;
    const int level = task / GFLI_SCALE_PARTS, part = task % GFLI_SCALE_PARTS;
    const size_t n = gfli_level_points(t->x, level) * (size_t)t->x->c;
    const size_t first = n * (size_t)part / GFLI_SCALE_PARTS;
    const size_t last = n * (size_t)(part + 1) / GFLI_SCALE_PARTS;
    const size_t before = gfli_points_before(t->x, level) * (size_t)t->x->c;
    const float *x = t->x->data + before, *dy = t->dy->data + before;
    float *dx = t->dx->data + before;
    const float scale = t->scale[level * GFLI_BLOCK_STEP];
    double sum[4] = {0, 0, 0, 0}; /* four, so that additions need not wait for one another */
    size_t i = first;
    (void)slot;
    for (; i + 4 <= last; i += 4) {
        float out[4]; /* dx may be dy */
        for (int k = 0; k < 4; k++) {
            sum[k] += (double)x[i + (size_t)k] * (double)dy[i + (size_t)k];
            out[k] = scale * dy[i + (size_t)k];
        }
        memcpy(dx + i, out, sizeof out);
    }
    for (; i < last; i++) {
        sum[0] += (double)x[i] * (double)dy[i];
        dx[i] = scale * dy[i];
    }
    t->sums[level][part] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void gfli_level_scale_grad_cpu(gfl_context *context, const gfli_map *x, const float *scale,
                                      const gfli_map *dy, const gfli_map *dx, float *dscale) {
    gfli_scale_grad t;
    t.x = x;
    t.dy = dy;
    t.dx = dx;
    t.scale = scale;
    gfli_parallel_for(context, x->levels * GFLI_SCALE_PARTS, gfli_scale_grad_part, &t);
    for (int l = 0; l < x->levels; l++) {
        double sum = 0;
        for (int p = 0; p < GFLI_SCALE_PARTS; p++) sum += t.sums[l][p];
        dscale[l * GFLI_BLOCK_STEP] = (float)sum;
    }
}

/* ===============================================================================================
 * src/cpu/pool_grad.c - gradients of max pooling, nearest upsampling and ReLU
 * ============================================================================================ */

enum {
    GFLI_POOL_CHANNELS = 16, /* channels a task of max_pool_grad owns */
    GFLI_MAP_CHUNK = 16384   /* floats a task of an element-wise operation owns */
};

/* ---- element by element ---------------------------------------------------------------------- */

typedef struct gfli_map_pair {
    const float *source;
    float *out;
    size_t n;
} gfli_map_pair;

static int gfli_map_chunks(size_t n) {
    return (int)((n + GFLI_MAP_CHUNK - 1) / GFLI_MAP_CHUNK);
}

static size_t gfli_map_chunk(size_t rest) {
    const size_t most = GFLI_MAP_CHUNK;
    return rest < most ? rest : most;
}

static void gfli_relu_grad_chunk(void *arg, int task, int slot) {
    const gfli_map_pair *t = (const gfli_map_pair *)arg;
    const size_t first = (size_t)task * GFLI_MAP_CHUNK;
    const size_t n = gfli_map_chunk(t->n - first);
    const float *GFLI_RESTRICT y = t->source + first;
    float *GFLI_RESTRICT dy = t->out + first;
    (void)slot;
    for (size_t i = 0; i < n; i++) dy[i] = y[i] > 0 ? dy[i] : 0;
}

static void gfli_relu_grad_cpu(gfl_context *context, const gfli_map *y, const gfli_map *dy) {
    gfli_map_pair t = {y->data, dy->data, gfli_map_count(y)};
    gfli_parallel_for(context, gfli_map_chunks(t.n), gfli_relu_grad_chunk, &t);
}

/* ---- max pooling ----------------------------------------------------------------------------- */

/* Windows overlap, so that a task owns a few channels of an image rather than some of its rows. */
typedef struct gfli_pool_grad {
    gfli_map x, dy, dx; /* one level */
    bool accumulate;
} gfli_pool_grad;

static void gfli_pool_grad_window(const gfli_pool_grad *t, int image, int oy, int ox, int first,
                                  int count) {
    const int h = t->x.h[0], w = t->x.w[0], c = t->x.c;
    const int y0 = gfli_max(2 * oy - 1, 0), y1 = gfli_min(2 * oy + 1, h - 1);
    const int x0 = gfli_max(2 * ox - 1, 0), x1 = gfli_min(2 * ox + 1, w - 1);
    const size_t plane = (size_t)image * (size_t)h;
    const float *dy =
        t->dy.data +
        (((size_t)image * (size_t)t->dy.h[0] + (size_t)oy) * (size_t)t->dy.w[0] + (size_t)ox) *
            (size_t)c +
        first;
    float best[GFLI_POOL_CHANNELS];
    size_t winner[GFLI_POOL_CHANNELS];
    for (int y = y0; y <= y1; y++) {
        for (int x = x0; x <= x1; x++) {
            const size_t at =
                ((plane + (size_t)y) * (size_t)w + (size_t)x) * (size_t)c + (size_t)first;
            const bool start = y == y0 && x == x0;
            for (int k = 0; k < count; k++) {
                const float v = t->x.data[at + (size_t)k];
                if (start || v > best[k]) {
                    best[k] = v;
                    winner[k] = at + (size_t)k;
                }
            }
        }
    }
    for (int k = 0; k < count; k++) t->dx.data[winner[k]] += dy[k];
}

static void gfli_pool_grad_do(void *arg, int task, int slot) {
    const gfli_pool_grad *t = (const gfli_pool_grad *)arg;
    const int blocks = gfli_ceil_div(t->x.c, GFLI_POOL_CHANNELS);
    const int image = task / blocks, first = task % blocks * GFLI_POOL_CHANNELS;
    const int count = gfli_min(GFLI_POOL_CHANNELS, t->x.c - first);
    const size_t area = (size_t)t->x.h[0] * (size_t)t->x.w[0];
    (void)slot;
    if (!t->accumulate) {
        float *dx = t->dx.data + (size_t)image * area * (size_t)t->x.c + first;
        for (size_t i = 0; i < area; i++, dx += t->x.c) memset(dx, 0, (size_t)count * sizeof *dx);
    }
    for (int oy = 0; oy < t->dy.h[0]; oy++)
        for (int ox = 0; ox < t->dy.w[0]; ox++)
            gfli_pool_grad_window(t, image, oy, ox, first, count);
}

static void gfli_max_pool_grad_cpu(gfl_context *context, const gfli_map *x, const gfli_map *dy,
                                   bool accumulate, const gfli_map *dx) {
    for (int l = 0; l < x->levels; l++) {
        gfli_pool_grad t;
        t.x = gfli_map_level(x, l);
        t.dy = gfli_map_level(dy, l);
        t.dx = gfli_map_level(dx, l);
        t.accumulate = accumulate;
        gfli_parallel_for(context, x->n * gfli_ceil_div(x->c, GFLI_POOL_CHANNELS),
                          gfli_pool_grad_do, &t);
    }
}

/* ---- nearest upsampling ---------------------------------------------------------------------- */

typedef struct gfli_upsample_grad {
    gfli_map dy, dx; /* one level */
    bool accumulate;
} gfli_upsample_grad;

/* One row of dx, from the rows of dy that were copied from it. */
static void gfli_upsample_grad_row(void *arg, int task, int slot) {
    const gfli_upsample_grad *t = (const gfli_upsample_grad *)arg;
    const int in_h = t->dx.h[0], in_w = t->dx.w[0], out_h = t->dy.h[0], out_w = t->dy.w[0];
    const int c = t->dx.c, image = task / in_h, row = task % in_h;
    float *dx = t->dx.data + (size_t)task * (size_t)in_w * (size_t)c;
    (void)slot;
    if (!t->accumulate) memset(dx, 0, (size_t)in_w * (size_t)c * sizeof *dx);
    for (int y = 0; y < out_h; y++) {
        if (gfli_nearest(y, in_h, out_h) != row) continue;
        const float *dy =
            t->dy.data + ((size_t)image * (size_t)out_h + (size_t)y) * (size_t)out_w * (size_t)c;
        for (int x = 0; x < out_w; x++, dy += c) {
            float *d = dx + (size_t)gfli_nearest(x, in_w, out_w) * (size_t)c;
            for (int k = 0; k < c; k++) d[k] += dy[k];
        }
    }
}

static void gfli_upsample_grad_cpu(gfl_context *context, const gfli_map *dy, bool accumulate,
                                   const gfli_map *dx) {
    for (int l = 0; l < dx->levels; l++) {
        gfli_upsample_grad t;
        t.dy = gfli_map_level(dy, l);
        t.dx = gfli_map_level(dx, l);
        t.accumulate = accumulate;
        gfli_parallel_for(context, dx->n * dx->h[l], gfli_upsample_grad_row, &t);
    }
}

/* ===============================================================================================
 * src/cpu/assign.c - ATSS: which positions learn which box
 * ============================================================================================ */

/* The positives among one box's candidates. */
typedef struct gfli_atss_box {
    size_t point[GFLI_ATSS_MOST];
    float iou[GFLI_ATSS_MOST];
    int n;
} gfli_atss_box;

typedef struct gfli_atss {
    const gfli_map *shape;
    const gfli_assign_opts *opts;
    const gfli_truths *truths;
    const gfli_assignment *out;
    int max_boxes;
    float *best;          /* [points]: IoU of the box that has the position */
    gfli_atss_box *boxes; /* [n][max_boxes] */
} gfli_atss;

static void gfli_atss_nearest(const gfli_atss *t, const gfli_truth *truth, int level, float cx,
                              float cy, gfli_atss_list *out) {
    const int stride = t->opts->stride[level], inclusive = t->opts->inclusive;
    const float first = gfli_position(0, stride, inclusive);
    const int h = gfli_min(gfli_ceil_div(truth->pad_h, stride), t->shape->h[level]);
    const int w = gfli_min(gfli_ceil_div(truth->pad_w, stride), t->shape->w[level]);
    int y0, y1, x0, x1;
    out->n = 0;
    gfli_atss_window(cy - first, stride, h, &y0, &y1);
    gfli_atss_window(cx - first, stride, w, &x0, &x1);
    for (int y = y0; y <= y1; y++)
        for (int x = x0; x <= x1; x++)
            gfli_atss_list_add(out,
                               gfli_atss_distance(gfli_position(x, stride, inclusive) - cx,
                                                  gfli_position(y, stride, inclusive) - cy),
                               y, x);
}

/* Candidates of one box on all levels, and which of them are positive. */
static void gfli_atss_do(void *arg, int task, int slot) {
    const gfli_atss *t = (const gfli_atss *)arg;
    const int image = task / t->max_boxes, index = task % t->max_boxes;
    const gfli_truth *truth = &t->truths->images[image];
    gfli_atss_box *out = &t->boxes[task];
    (void)slot;
    out->n = 0;
    if (index >= truth->n) return;
    const float *box = t->truths->boxes + 4 * (truth->first + index);
    const float cx = (box[0] + box[2]) / 2, cy = (box[1] + box[3]) / 2;
    size_t point[GFLI_ATSS_MOST];
    float iou[GFLI_ATSS_MOST];
    bool inside[GFLI_ATSS_MOST];
    int n = 0;
    for (int l = 0; l < t->shape->levels; l++) {
        gfli_atss_list near9;
        const int stride = t->opts->stride[l], inclusive = t->opts->inclusive;
        const int h = t->shape->h[l], w = t->shape->w[l];
        const size_t before = gfli_points_before(t->shape, l) + (size_t)image * (size_t)(h * w);
        gfli_atss_nearest(t, truth, l, cx, cy, &near9);
        for (int i = 0; i < near9.n; i++, n++) {
            const float x = gfli_position(near9.x[i], stride, inclusive);
            const float y = gfli_position(near9.y[i], stride, inclusive);
            point[n] = before + (size_t)near9.y[i] * (size_t)w + (size_t)near9.x[i];
            iou[n] = gfli_atss_iou(x, y, stride, inclusive, box);
            inside[n] = gfli_atss_inside(x, y, box);
        }
    }
    const float threshold = gfli_atss_threshold(iou, n);
    for (int i = 0; i < n; i++) {
        if (!inside[i] || !(iou[i] >= threshold)) continue;
        out->point[out->n] = point[i];
        out->iou[out->n++] = iou[i];
    }
}

/* Background inside the valid area, nothing outside it, then the boxes in their order. */
static void gfli_atss_image(void *arg, int image, int slot) {
    const gfli_atss *t = (const gfli_atss *)arg;
    const gfli_truth *truth = &t->truths->images[image];
    int32_t *gt = t->out->gt;
    int positives = 0;
    (void)slot;
    for (int l = 0; l < t->shape->levels; l++) {
        const int h = t->shape->h[l], w = t->shape->w[l], stride = t->opts->stride[l];
        const int valid_h = gfli_ceil_div(truth->pad_h, stride);
        const int valid_w = gfli_ceil_div(truth->pad_w, stride);
        size_t at = gfli_points_before(t->shape, l) + (size_t)image * (size_t)(h * w);
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++, at++) gt[at] = y < valid_h && x < valid_w ? -1 : -2;
    }
    for (int b = 0; b < truth->n; b++) {
        const gfli_atss_box *box = &t->boxes[(size_t)image * (size_t)t->max_boxes + (size_t)b];
        for (int i = 0; i < box->n; i++) {
            const size_t at = box->point[i];
            if (gt[at] >= 0 && !(box->iou[i] > t->best[at])) continue;
            if (gt[at] < 0) positives++;
            gt[at] = b;
            t->best[at] = box->iou[i];
        }
    }
    t->out->n_pos[image] = positives;
}

static size_t gfli_assign_scratch_cpu(const gfl_context *context, const gfli_map *shape,
                                      int max_boxes) {
    (void)context;
    return (size_t)shape->n * (size_t)max_boxes * sizeof(gfli_atss_box) +
           gfli_points(shape) * sizeof(float);
}

static void gfli_assign_cpu(gfl_context *context, const gfli_map *shape,
                            const gfli_assign_opts *opts, const gfli_truths *truths,
                            const gfli_assignment *out, void *scratch) {
    gfli_atss t;
    t.shape = shape;
    t.opts = opts;
    t.truths = truths;
    t.out = out;
    t.max_boxes = truths->most;
    t.boxes = (gfli_atss_box *)scratch;
    t.best = (float *)(t.boxes + (size_t)shape->n * (size_t)t.max_boxes);
    gfli_parallel_for(context, shape->n * t.max_boxes, gfli_atss_do, &t);
    gfli_parallel_for(context, shape->n, gfli_atss_image, &t);
}

/* ===============================================================================================
 * src/cpu/losses.c - quality focal loss, GIoU and distribution focal loss with their gradients
 * ============================================================================================ */

enum {
    GFLI_LOSS_ENTRIES = 16384, /* logits a task looks at, roughly */
    GFLI_LOSS_RUN = 256        /* logits whose losses are summed together */
};

/* What one task adds to the losses of its level. */
typedef struct gfli_loss_part {
    double cls, bbox, dfl, weight;
    int n_pos;
} gfli_loss_part;

typedef struct gfli_loss {
    const gfli_map *cls, *reg, *dcls, *dreg;
    const gfli_truths *truths;
    const int32_t *gt;
    const gfli_loss_opts *opts;
    gfli_loss_part *parts;
    int points, tasks[GFL_LEVELS]; /* points a task has; tasks of a level */
    gfli_loss_scales scales;
    const gfli_kernels *kernels;
} gfli_loss;

/* ---- negatives ------------------------------------------------------------------------------- */

static double gfli_qfl_run(const gfli_loss *t, size_t first, size_t last) {
    const float scale = (float)t->scales.cls;
    double sum = 0;
    float loss[GFLI_LOSS_RUN];
    while (first < last) {
        const size_t rest = last - first, most = GFLI_LOSS_RUN;
        const int n = (int)(rest < most ? rest : most);
        const float *z = t->cls->data + first;
        float *dz = t->dcls->data + first;
        t->kernels->qfl_negative(z, n, scale, loss, dz);
        double s[4] = {0, 0, 0, 0};
        int i = 0;
        for (; i + 4 <= n; i += 4)
            for (int k = 0; k < 4; k++) s[k] += (double)loss[i + k];
        for (; i < n; i++) s[0] += (double)loss[i];
        sum += (s[0] + s[1]) + (s[2] + s[3]);
        first += (size_t)n;
    }
    return sum;
}

/* ---- tasks ----------------------------------------------------------------------------------- */

/* Points first..last of a level, counted over all maps, belong to one task. */
typedef struct gfli_loss_range {
    int level;
    size_t before, first, last;
} gfli_loss_range;

static gfli_loss_range gfli_loss_find(const gfli_loss *t, int task) {
    gfli_loss_range r;
    r.level = 0;
    while (task >= t->tasks[r.level]) task -= t->tasks[r.level++];
    r.before = gfli_points_before(t->cls, r.level);
    r.first = r.before + (size_t)task * (size_t)t->points;
    const size_t end = r.before + gfli_level_points(t->cls, r.level);
    r.last = end - r.first < (size_t)t->points ? end : r.first + (size_t)t->points;
    return r;
}

/* First pass: the sum of weights, by which the box losses are divided. */
static void gfli_loss_weigh(void *arg, int task, int slot) {
    const gfli_loss *t = (const gfli_loss *)arg;
    const gfli_loss_range r = gfli_loss_find(t, task);
    const int n_classes = t->cls->c;
    gfli_loss_part *part = &t->parts[task];
    (void)slot;
    memset(part, 0, sizeof *part);
    for (size_t i = r.first; i < r.last; i++) {
        if (t->gt[i] < 0) continue;
        part->weight += gfli_loss_weight(t->cls->data + i * (size_t)n_classes, n_classes);
        part->n_pos++;
    }
}

/* Second pass: all losses and gradients of a task's points. */
static void gfli_loss_do(void *arg, int task, int slot) {
    const gfli_loss *t = (const gfli_loss *)arg;
    const gfli_loss_range r = gfli_loss_find(t, task);
    const size_t n_classes = (size_t)t->cls->c, n_reg = (size_t)t->reg->c;
    const size_t w = (size_t)t->cls->w[r.level], area = w * (size_t)t->cls->h[r.level];
    gfli_loss_part *part = &t->parts[task];
    size_t run = r.first * n_classes; /* from here on, logits without a target */
    (void)slot;
    memset(t->dreg->data + r.first * n_reg, 0, (r.last - r.first) * n_reg * sizeof(float));
    for (size_t i = r.first; i < r.last; i++) {
        const size_t at = i * n_classes;
        if (t->gt[i] == -1 || (t->gt[i] < 0 && t->opts->outside_counts)) continue;
        if (t->gt[i] < 0) {
            part->cls += gfli_qfl_run(t, run, at);
            memset(t->dcls->data + at, 0, n_classes * sizeof(float));
            run = at + n_classes;
            continue;
        }
        const int box = t->truths->images[(i - r.before) / area].first + t->gt[i];
        const size_t cell = (i - r.before) % area;
        const size_t own = at + (size_t)t->truths->labels[box];
        gfli_positive p;
        double dz;
        p.x = (int)(cell % w);
        p.y = (int)(cell / w);
        p.stride = t->opts->stride[r.level];
        p.reg = t->reg->data + i * n_reg;
        p.truth = t->truths->boxes + 4 * box;
        p.weight = gfli_loss_weight(t->cls->data + at, (int)n_classes);
        const double quality = gfli_box_losses(t->opts, &t->scales, &p, &part->bbox, &part->dfl,
                                               t->dreg->data + i * n_reg);
        part->cls += gfli_qfl_run(t, run, own);
        part->cls += gfli_qfl_positive((double)t->cls->data[own], quality, &dz);
        t->dcls->data[own] = (float)(t->scales.cls * dz);
        run = own + 1;
    }
    part->cls += gfli_qfl_run(t, run, r.last * n_classes);
}

/* Cut the levels into tasks, by their sizes alone; returns how many there are. */
static int gfli_loss_cut(const gfli_map *cls, int *points, int tasks[GFL_LEVELS]) {
    int total = 0;
    *points = gfli_max(GFLI_LOSS_ENTRIES / cls->c, 1);
    for (int l = 0; l < cls->levels; l++) {
        const size_t n = gfli_level_points(cls, l);
        tasks[l] = (int)((n + (size_t)*points - 1) / (size_t)*points);
        total += tasks[l];
    }
    return total;
}

static size_t gfli_losses_scratch_cpu(const gfl_context *context, const gfli_map *cls,
                                      const gfli_loss_opts *opts) {
    int points, tasks[GFL_LEVELS];
    (void)context;
    (void)opts;
    return (size_t)gfli_loss_cut(cls, &points, tasks) * sizeof(gfli_loss_part);
}

static int gfli_loss_begin(const gfli_map *cls, const gfli_assignment *assigned,
                           const gfli_loss_opts *opts, void *scratch, gfli_loss *t) {
    memset(t, 0, sizeof *t);
    t->cls = cls;
    t->gt = assigned->gt;
    t->opts = opts;
    t->parts = (gfli_loss_part *)scratch;
    return gfli_loss_cut(cls, &t->points, t->tasks);
}

static void gfli_loss_sums_cpu(gfl_context *context, const gfli_map *cls,
                               const gfli_assignment *assigned, const gfli_loss_opts *opts,
                               gfli_losses *out, void *scratch) {
    gfli_loss t;
    const int tasks = gfli_loss_begin(cls, assigned, opts, scratch, &t);
    memset(out, 0, sizeof *out);
    gfli_parallel_for(context, tasks, gfli_loss_weigh, &t);
    for (int i = 0; i < tasks; i++) {
        out->weight_sum += t.parts[i].weight;
        out->n_pos += t.parts[i].n_pos;
    }
    for (int i = 0; i < cls->n; i++) out->avg_pos += gfli_max(assigned->n_pos[i], 1);
}

static void gfli_losses_cpu(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                            const gfli_truths *truths, const gfli_assignment *assigned,
                            const gfli_loss_opts *opts, const gfli_map *dcls, const gfli_map *dreg,
                            gfli_losses *out, void *scratch) {
    gfli_loss t;
    const int tasks = gfli_loss_begin(cls, assigned, opts, scratch, &t);
    t.reg = reg;
    t.dcls = dcls;
    t.dreg = dreg;
    t.truths = truths;
    t.kernels = gfli_kernels_of(context);
    t.scales = gfli_loss_scales_of(out, opts);
    for (int i = 0; i < tasks; i++) memset(&t.parts[i], 0, sizeof t.parts[i]);
    gfli_parallel_for(context, tasks, gfli_loss_do, &t);
    const gfli_loss_part *part = t.parts;
    for (int l = 0; l < cls->levels; l++) {
        out->cls[l] = out->bbox[l] = out->dfl[l] = 0;
        for (int i = 0; i < t.tasks[l]; i++, part++) {
            out->cls[l] += part->cls * t.scales.cls;
            out->bbox[l] += part->bbox * t.scales.bbox;
            out->dfl[l] += part->dfl * t.scales.dfl;
        }
    }
    out->bad = gfli_bad_loss_name(out) ? 1 : 0;
    out->bad_rank = out->bad * opts->rank;
}

/* ===============================================================================================
 * src/cpu/optim.c - sums of gradients, what stands against an update, and stochastic gradient descent
 * ============================================================================================ */

enum {
    GFLI_SGD_CHUNK = 16384,
    GFLI_MEASURE_PARTS = 256 /* at most; fixed by n alone, so that threads change nothing */
};

/* How large numbers are. */
typedef struct gfli_extent {
    double squares; /* their sum, in double, in a fixed order */
    float largest;  /* magnitude; NaN counts as more than infinity; 0 of none */
} gfli_extent;

typedef struct gfli_measure {
    const float *x;
    size_t n;
    int parts;
    double sums[GFLI_MEASURE_PARTS];
    int32_t largest[GFLI_MEASURE_PARTS]; /* magnitudes' bits, which order them, NaN above all */
} gfli_measure;

static void gfli_measure_part(void *arg, int part, int slot) {
    gfli_measure *t = (gfli_measure *)arg;
    const size_t chunk = t->n / (size_t)t->parts, rest = t->n % (size_t)t->parts;
    const size_t first = chunk * (size_t)part + (size_t)gfli_min(part, (int)rest);
    const size_t last = first + chunk + ((size_t)part < rest ? 1 : 0);
    const float *x = t->x;
    double sum[4] = {0, 0, 0, 0}; /* four, so that additions need not wait for one another */
    int32_t largest[4] = {0, 0, 0, 0};
    size_t i = first;
    (void)slot;
    for (; i + 4 <= last; i += 4)
        for (int k = 0; k < 4; k++) {
            const float value = x[i + (size_t)k];
            sum[k] += (double)value * (double)value;
            largest[k] = gfli_larger_bits(largest[k], value);
        }
    for (; i < last; i++) {
        sum[0] += (double)x[i] * (double)x[i];
        largest[0] = gfli_larger_bits(largest[0], x[i]);
    }
    t->sums[part] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    t->largest[part] = gfli_max(gfli_max(largest[0], largest[1]), gfli_max(largest[2], largest[3]));
}

static gfli_extent gfli_measure_of(gfl_context *context, const float *x, size_t n) {
    gfli_extent extent;
    gfli_measure t;
    int32_t largest = 0;
    const size_t parts = (n + GFLI_SGD_CHUNK - 1) / GFLI_SGD_CHUNK;
    t.x = x;
    t.n = n;
    t.parts = parts < GFLI_MEASURE_PARTS ? (int)parts : (int)GFLI_MEASURE_PARTS;
    gfli_parallel_for(context, t.parts, gfli_measure_part, &t);
    extent.squares = 0;
    for (int p = 0; p < t.parts; p++) {
        extent.squares += t.sums[p];
        largest = gfli_max(largest, t.largest[p]);
    }
    memcpy(&extent.largest, &largest, sizeof largest);
    return extent;
}

/* ---- may it be done? ------------------------------------------------------------------------- */

static int gfli_bad_gradient(gfl_context *context, const gfli_update *u) {
    for (int i = 0; i < u->n_parts; i++) {
        const gfli_update_part *part = &u->parts[i];
        const gfli_extent g = gfli_measure_of(context, u->gradients + part->first, part->count);
        if (!gfli_is_finite(g.largest)) return i;
    }
    return -1;
}

/* Does part i stay finite?  largest: the largest gradient of all parts, which settles most
 * cases. */
static bool gfli_part_fits(gfl_context *context, const gfli_update *u, int i, double largest,
                           gfli_verdict *out) {
    const gfli_update_part *part = &u->parts[i];
    const size_t old = u->first ? 0 : part->count;
    const double p = (double)gfli_measure_of(context, u->params + part->first, part->count).largest;
    const double v = (double)gfli_measure_of(context, u->momentum + part->first, old).largest;
    double g = out->share * largest;
    if (gfli_update_fits(u, part, p, v, g)) {
        if (p > out->parameter) out->parameter = p;
        if (v > out->momentum) out->momentum = v;
        return true;
    }
    g = out->share *
        (double)gfli_measure_of(context, u->gradients + part->first, part->count).largest;
    if (gfli_update_fits(u, part, p, v, g)) return true;
    out->parameter = p;
    out->momentum = v;
    out->gradient = g;
    out->where = i;
    out->fault = !gfli_is_finite(p)   ? GFLI_FAULT_PARAMETER
                 : !gfli_is_finite(v) ? GFLI_FAULT_MOMENTUM
                                      : GFLI_FAULT_OVERFLOW;
    return false;
}

static void gfli_check_update_cpu(gfl_context *context, const gfli_update *u, gfli_verdict *out) {
    const gfli_extent all = gfli_measure_of(context, u->gradients, u->n);
    memset(out, 0, sizeof *out);
    out->share = u->share;
    out->norm = u->share * (sqrt)(all.squares);
    out->fault = gfli_bad_batch(u, &out->where);
    if (out->fault != GFLI_FAULT_NONE) return;
    if (!gfli_is_finite(out->norm)) {
        out->fault = GFLI_FAULT_GRADIENT;
        out->where = gfli_bad_gradient(context, u);
        return;
    }
    if (u->clip > 0 && out->norm > u->clip) out->share *= u->clip / (out->norm + 1e-6);
    out->gradient = out->share * (double)all.largest;
    for (int i = 0; i < u->n_parts; i++)
        if (!gfli_part_fits(context, u, i, (double)all.largest, out)) return;
}

/* ---- the update ------------------------------------------------------------------------------ */

typedef struct gfli_sgd {
    float *p, *v;
    const float *g;
    size_t n;
    float lr, momentum, decay, share;
} gfli_sgd;

static void gfli_sgd_chunk(void *arg, int task, int slot) {
    const gfli_sgd *t = (const gfli_sgd *)arg;
    const size_t first = (size_t)task * GFLI_SGD_CHUNK;
    const size_t rest = t->n - first, most = GFLI_SGD_CHUNK, n = rest < most ? rest : most;
    float *GFLI_RESTRICT p = t->p + first;
    float *GFLI_RESTRICT v = t->v + first;
    const float *GFLI_RESTRICT g = t->g + first;
    const float lr = t->lr, momentum = t->momentum, decay = t->decay, share = t->share;
    (void)slot;
    for (size_t i = 0; i < n; i++) gfli_sgd_step(&p[i], &v[i], g[i], lr, momentum, decay, share);
}

static void gfli_update_cpu(gfl_context *context, const gfli_update *u,
                            const gfli_verdict *verdict) {
    if (verdict->fault != GFLI_FAULT_NONE) return;
    /* Whatever momentum holds before the first step must not count, not even a NaN. */
    if (u->first && u->n) memset(u->momentum, 0, u->n * sizeof *u->momentum);
    for (int i = 0; i < u->n_parts; i++) {
        const gfli_update_part *part = &u->parts[i];
        gfli_sgd t = {u->params + part->first,         u->momentum + part->first,
                      u->gradients + part->first,      part->count,
                      (float)(u->lr * part->lr),       (float)u->momentum_factor,
                      (float)(u->decay * part->decay), (float)verdict->share};
        gfli_parallel_for(context, (int)((t.n + GFLI_SGD_CHUNK - 1) / GFLI_SGD_CHUNK),
                          gfli_sgd_chunk, &t);
    }
}

typedef struct gfli_accumulate_task {
    float *sum;
    const float *x;
    size_t n;
} gfli_accumulate_task;

static void gfli_accumulate_chunk(void *arg, int task, int slot) {
    const gfli_accumulate_task *t = (const gfli_accumulate_task *)arg;
    const size_t first = (size_t)task * GFLI_SGD_CHUNK;
    const size_t last = t->n - first < GFLI_SGD_CHUNK ? t->n : first + GFLI_SGD_CHUNK;
    (void)slot;
    for (size_t i = first; i < last; i++) t->sum[i] += t->x[i];
}

static void gfli_accumulate_cpu(gfl_context *context, float *sum, const float *x, size_t n) {
    gfli_accumulate_task t = {sum, x, n};
    gfli_parallel_for(context, (int)((n + GFLI_SGD_CHUNK - 1) / GFLI_SGD_CHUNK),
                      gfli_accumulate_chunk, &t);
}

/* ===============================================================================================
 * src/cpu/backend_grad.c - the CPU's table of training operations
 * ============================================================================================ */

const gfli_train_ops *gfli_train_ops_of(const gfl_context *context) {
    return context->backend == &gfli_cpu ? &gfli_cpu_train : context->backend->train;
}

const gfli_train_ops gfli_cpu_train = {
    GFLI_BACKEND_VERSION,
    gfli_conv_grad_packed_size_cpu,
    gfli_conv_grad_pack_cpu,
    gfli_conv_grad_scratch_cpu,
    gfli_conv_grad_input_cpu,
    gfli_conv_grad_weight_cpu,
    gfli_deform_conv_grad_packed_size_cpu,
    gfli_deform_conv_grad_pack_cpu,
    gfli_deform_conv_grad_scratch_cpu,
    gfli_deform_conv_grad_cpu,
    gfli_unfold_cpu,
    gfli_relu_grad_cpu,
    gfli_max_pool_grad_cpu,
    gfli_upsample_grad_cpu,
    gfli_group_norm_grad_scratch_cpu,
    gfli_group_norm_grad_cpu,
    gfli_level_scale_grad_cpu,
    gfli_assign_scratch_cpu,
    gfli_assign_cpu,
    gfli_losses_scratch_cpu,
    gfli_loss_sums_cpu,
    gfli_losses_cpu,
    gfli_accumulate_cpu,
    gfli_check_update_cpu,
    gfli_update_cpu,
};

/* ===============================================================================================
 * src/data/crc.c - the checksum of PNG and zip
 * ============================================================================================ */

void gfli_crc32_tables(uint32_t tables[8][256]) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
        tables[0][i] = c;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++)
            tables[k][i] = tables[0][tables[k - 1][i] & 255] ^ tables[k - 1][i] >> 8;
}

uint32_t gfli_crc32(uint32_t tables[8][256], uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        const uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                                    (uint32_t)p[3] << 24);
        crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^
              tables[4][low >> 24] ^ tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^
              tables[0][p[7]];
    }
    for (; n > 0; n--, p++) crc = tables[0][(crc ^ *p) & 255] ^ crc >> 8;
    return ~crc;
}

/* ===============================================================================================
 * src/data/exif.c - the orientation tag of EXIF
 * ============================================================================================ */

static unsigned gfli_exif_number(const uint8_t *p, int bytes, bool big) {
    unsigned v = 0;
    for (int i = 0; i < bytes; i++) v |= (unsigned)p[i] << (8 * (big ? bytes - 1 - i : i));
    return v;
}

int gfli_exif_orientation(const uint8_t *tiff, size_t size) {
    enum { ORIENTATION = 0x0112, SHORT = 3, LONG = 4, ENTRY = 12 };
    if (size < 8) return 1;
    bool big = memcmp(tiff, "MM\0*", 4) == 0;
    if (!big && memcmp(tiff, "II*\0", 4) != 0) return 1;
    size_t at = gfli_exif_number(tiff + 4, 4, big);
    if (at > size - 2) return 1;
    size_t n = gfli_exif_number(tiff + at, 2, big);
    for (at += 2; n > 0 && size - at >= ENTRY; n--, at += ENTRY) {
        if (gfli_exif_number(tiff + at, 2, big) != ORIENTATION) continue;
        unsigned type = gfli_exif_number(tiff + at + 2, 2, big);
        if (type != SHORT && type != LONG) return 1;
        unsigned value = gfli_exif_number(tiff + at + 8, type == SHORT ? 2 : 4, big);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

void gfli_exif_apply(const uint8_t *in, int in_w, int in_h, int orientation, uint8_t *out) {
    /* The viewer's axes as steps through the stored image. */
    static const struct {
        bool swap, left, up; /* x runs along the columns; x (or y) of the stored image backwards */
    } turns[8] = {{false, false, false}, {false, true, false}, {false, true, true},
                  {false, false, true},  {true, false, false}, {true, false, true},
                  {true, true, true},    {true, true, false}};
    bool swap = turns[orientation - 1].swap;
    bool left = turns[orientation - 1].left, up = turns[orientation - 1].up;
    ptrdiff_t right = left ? -3 : 3, down = (up ? -3 : 3) * (ptrdiff_t)in_w;
    const uint8_t *corner =
        in + (left ? 3 * ((ptrdiff_t)in_w - 1) : 0) + (up ? 3 * (ptrdiff_t)in_w * (in_h - 1) : 0);
    ptrdiff_t step_x = swap ? down : right, step_y = swap ? right : down;
    int out_w = swap ? in_h : in_w, out_h = swap ? in_w : in_h;
    for (int y = 0; y < out_h; y++) {
        const uint8_t *p = corner + y * step_y;
        for (int x = 0; x < out_w; x++, p += step_x, out += 3) {
            out[0] = p[0];
            out[1] = p[1];
            out[2] = p[2];
        }
    }
}

/* ===============================================================================================
 * src/data/jpeg.c - JPEG: every code of a file is followed, and written anew for stb_image
 * ============================================================================================ */

/* stb_image believes what it is given: it returns pixels for data that ends too early or does not
 * fit its tables, does not know the standard's own tables, and stops at bytes between segments.  So
 * a file is first followed here, code by code, to the last block of its last scan.  What decoding
 * needs is written anew, without all that other programs have put between and behind it. */

enum {
    GFLI_JPEG_MAX_SCANS = 128, /* encoders write about ten; each visits every block again */
    GFLI_JPEG_EXTRA = 512      /* what the file anew may have more: the standard's tables, an end */
};

/* A table of Huffman codes. */
typedef struct gfli_jpeg_codes {
    bool there;
    uint8_t symbols[256];
    uint16_t fast[512];     /* by the next 9 bits: length << 8 | symbol; 0: the code is longer */
    uint32_t limit[17];     /* of a length: what 16 bits are below that begin with such a code */
    int32_t symbols_of[17]; /* of a length: to be added to a code for its place in symbols */
} gfli_jpeg_codes;

typedef struct gfli_jpeg_channel {
    uint8_t id, h, v, quantiser;
    int across, down; /* blocks, without those that only fill up */
    bool scanned;
    int dc, ac;        /* its tables in the scan at hand */
    int32_t last;      /* brightness of the block before */
    int8_t lowest[64]; /* progressive: the lowest bit that is known of a coefficient; -1: none */
    uint64_t *present; /* progressive: of each block, which coefficients are not 0 */
} gfli_jpeg_channel;

typedef struct gfli_jpeg {
    gfli_image_file *file;
    uint8_t *out; /* the file anew, or NULL */
    size_t n_out;
    bool progressive, jfif;
    int adobe; /* the colour transform that Adobe's segment gives, or -1 */
    int n_channels, n_scans, interval, across, down; /* the last two: units of all channels */
    gfli_jpeg_channel channels[3];
    gfli_jpeg_codes codes[2][4]; /* of brightness (DC), of the other coefficients (AC) */
    uint16_t quantisers[4][64];  /* as the file has them, in zigzag order */
    unsigned quantisers_there;   /* bits */

    gfli_jpeg_channel *scan[3]; /* the scan at hand */
    int n_scan, first, final, high, low;
    int run; /* blocks that are still to be ended */
    const uint8_t *at, *end;
    uint64_t bits; /* the next ones, from the top */
    int n_bits;
} gfli_jpeg;

/* ---- codes ----------------------------------------------------------------------------------- */

/* Annex K.3 of ITU T.81: counts by length, then symbols; AC symbols as the standard lists them. */
static const uint8_t gfli_jpeg_dc_counts[2][16] = {
    {0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0},
    {0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0}};
static const uint8_t gfli_jpeg_ac_counts[2][16] = {
    {0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125},
    {0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119}};
/* The symbols of the long codes are all others that there are, in ascending order. */
static const uint8_t gfli_jpeg_ac_short[2][43] = {
    {0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13,
     0x51, 0x61, 0x07, 0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42,
     0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82},
    {0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61,
     0x71, 0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33,
     0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1}};
enum { GFLI_JPEG_AC_SYMBOLS = 162 };

static void gfli_jpeg_put(gfli_jpeg *j, const void *bytes, size_t n) {
    if (!j->out) return;
    memcpy(j->out + j->n_out, bytes, n);
    j->n_out += n;
}

static void gfli_jpeg_put_marker(gfli_jpeg *j, int marker) {
    const uint8_t bytes[2] = {0xFF, (uint8_t)marker};
    gfli_jpeg_put(j, bytes, 2);
}

/* How many codes a table has, or -1: codes run out, or that of all ones is used, which is forbidden
 * (and more than 256 codes would overrun stb_image 2.27). */
static int gfli_jpeg_count_codes(const uint8_t counts[16]) {
    unsigned n = 0, code = 0;
    for (unsigned bits = 1; bits <= 16; bits++) {
        n += counts[bits - 1];
        code = 2 * code + counts[bits - 1];
        if ((counts[bits - 1] > 0 && code >= 1u << bits) || code > 1u << 16) return -1;
    }
    return n > 255 ? -1 : (int)n;
}

static void gfli_jpeg_set_codes(gfli_jpeg_codes *c, const uint8_t counts[16],
                                const uint8_t *symbols, int n) {
    uint32_t code = 0;
    memset(c, 0, sizeof *c);
    memcpy(c->symbols, symbols, (size_t)n);
    c->there = true;
    for (int length = 1, k = 0; length <= 16; length++) {
        code *= 2;
        c->symbols_of[length] = k - (int32_t)code;
        for (int i = 0; i < counts[length - 1]; i++, k++, code++)
            for (uint32_t f = 0; length <= 9 && f < 1u << (9 - length); f++)
                c->fast[(code << (9 - length)) + f] = (uint16_t)(length << 8 | symbols[k]);
        c->limit[length] = code << (16 - length);
    }
}

static gfl_status gfli_jpeg_tables(gfli_jpeg *j, const uint8_t *p, size_t length) {
    for (size_t at = 2; at < length;) {
        int n = length - at < 17 ? -1 : gfli_jpeg_count_codes(p + at + 1);
        if (n < 0 || p[at] >> 4 > 1 || (p[at] & 15) > 3 || length - at < 17 + (size_t)n)
            return gfli_image_damaged(j->file, "damaged JPEG: an impossible code table");
        gfli_jpeg_set_codes(&j->codes[p[at] >> 4][p[at] & 15], p + at + 1, p + at + 17, n);
        at += 17 + (size_t)n;
    }
    gfli_jpeg_put_marker(j, 0xC4);
    gfli_jpeg_put(j, p, length);
    return GFL_OK;
}

static int gfli_jpeg_standard_symbols(bool ac, int table, uint8_t out[GFLI_JPEG_AC_SYMBOLS]) {
    bool taken[256] = {false};
    int n_short = table ? 43 : 37, n = 0;
    if (!ac) {
        for (; n < 12; n++) out[n] = (uint8_t)n;
        return n;
    }
    for (; n < n_short; n++) {
        out[n] = gfli_jpeg_ac_short[table][n];
        taken[out[n]] = true;
    }
    for (int run = 0; run < 16; run++)
        for (int bits = 1; bits <= 10; bits++)
            if (!taken[run << 4 | bits]) out[n++] = (uint8_t)(run << 4 | bits);
    return n;
}

/* Cameras leave the standard's tables out of the frames of a film (Motion JPEG); they are meant
 * where a table is missing. */
static bool gfli_jpeg_standard_table(gfli_jpeg *j, bool ac, int table) {
    uint8_t segment[2 + 17 + GFLI_JPEG_AC_SYMBOLS];
    if (j->codes[ac][table].there) return true;
    if (j->progressive || table > 1) return false;
    memcpy(segment + 3, ac ? gfli_jpeg_ac_counts[table] : gfli_jpeg_dc_counts[table], 16);
    int n = gfli_jpeg_standard_symbols(ac, table, segment + 19);
    segment[0] = 0;
    segment[1] = (uint8_t)(19 + n);
    segment[2] = (uint8_t)((ac ? 16 : 0) + table);
    return gfli_jpeg_tables(j, segment, 19 + (size_t)n) == GFL_OK;
}

/* ---- bits ------------------------------------------------------------------------------------ */

/* As many bits as there is room for, up to the next marker. */
static void gfli_jpeg_fill(gfli_jpeg *j) {
    while (j->n_bits <= 56 && j->at < j->end) {
        uint8_t byte = *j->at;
        if (byte == 0xFF && (j->end - j->at < 2 || j->at[1] != 0)) return;
        j->at += byte == 0xFF ? 2 : 1;
        j->bits |= (uint64_t)byte << (56 - j->n_bits);
        j->n_bits += 8;
    }
}

static inline bool gfli_jpeg_skip(gfli_jpeg *j, int n) {
    if (n > j->n_bits) gfli_jpeg_fill(j);
    if (n > j->n_bits) return false;
    j->bits <<= n;
    j->n_bits -= n;
    return true;
}

/* The next n bits, at most 16, as a number; -1 when they are not there. */
static int gfli_jpeg_take(gfli_jpeg *j, int n) {
    if (n > j->n_bits) gfli_jpeg_fill(j);
    int value = n ? (int)(j->bits >> (64 - n)) : 0;
    return gfli_jpeg_skip(j, n) ? value : -1;
}

/* The next symbol, or -1: no code of the table, or no more bits. */
static int gfli_jpeg_symbol(gfli_jpeg *j, const gfli_jpeg_codes *c) {
    if (j->n_bits < 32) gfli_jpeg_fill(j);
    const uint32_t next = (uint32_t)(j->bits >> 48);
    int length = c->fast[next >> 7] >> 8, symbol = c->fast[next >> 7] & 255;
    if (!length) {
        for (length = 10; length <= 16 && next >= c->limit[length];) length++;
        if (length > 16) return -1;
        symbol = c->symbols[(int32_t)(next >> (16 - length)) + c->symbols_of[length]];
    }
    return gfli_jpeg_skip(j, length) ? symbol : -1;
}

/* Back to the first byte that no bit has been taken of. */
static void gfli_jpeg_align(gfli_jpeg *j) {
    for (int unread = j->n_bits / 8; unread > 0; unread--)
        j->at -= j->at[-1] == 0 && j->at[-2] == 0xFF ? 2 : 1;
    j->bits = 0;
    j->n_bits = 0;
}

/* ---- blocks: what their codes say, as far as later codes depend on it ------------------------ */

/* Is a coefficient of this magnitude one that a picture can have?  Beyond 1024 and half a step
 * there is none; twice as much is allowed for, twice again as only the bits of most are known.
 * Decoders keep to 16 bits and differ in what becomes of more. */
static inline bool gfli_jpeg_fits(const gfli_jpeg *j, const gfli_jpeg_channel *c, int k,
                                  int magnitude) {
    int64_t step = j->quantisers[c->quantiser][k];
    return ((int64_t)magnitude << j->low) * step <= 4096 + 2 * step;
}

static bool gfli_jpeg_brightness(gfli_jpeg *j, gfli_jpeg_channel *c) {
    if (j->high > 0) return gfli_jpeg_skip(j, 1);
    int bits = gfli_jpeg_symbol(j, &j->codes[0][c->dc]);
    if (bits < 0 || bits > 15) return false;
    int value = gfli_jpeg_take(j, bits);
    if (value < 0) return false;
    if (bits > 0 && value < 1 << (bits - 1)) value -= (1 << bits) - 1;
    c->last += value;
    return gfli_jpeg_fits(j, c, 0, c->last < 0 ? -c->last : c->last);
}

static bool gfli_jpeg_block(gfli_jpeg *j, gfli_jpeg_channel *c) {
    const gfli_jpeg_codes *codes = &j->codes[1][c->ac];
    if (!gfli_jpeg_brightness(j, c)) return false;
    for (int k = 1; k < 64; k++) {
        int symbol = gfli_jpeg_symbol(j, codes), bits = symbol & 15;
        if (symbol < 0) return false;
        if (bits == 0 && symbol != 0xF0) return true;
        k += symbol >> 4;
        if (bits == 0) continue;
        if (k > 63 || !gfli_jpeg_fits(j, c, k, (1 << bits) - 1) || !gfli_jpeg_skip(j, bits))
            return false;
    }
    return true;
}

static bool gfli_jpeg_begin_run(gfli_jpeg *j, int symbol) {
    int more = gfli_jpeg_take(j, symbol >> 4);
    j->run = (1 << (symbol >> 4)) + more;
    return more >= 0;
}

/* The first bits of some coefficients. */
static bool gfli_jpeg_band(gfli_jpeg *j, gfli_jpeg_channel *c, uint64_t *present) {
    for (int k = j->first; j->run == 0 && k <= j->final; k++) {
        int symbol = gfli_jpeg_symbol(j, &j->codes[1][c->ac]), bits = symbol & 15;
        if (symbol < 0) return false;
        if (bits == 0 && symbol != 0xF0) {
            if (!gfli_jpeg_begin_run(j, symbol)) return false;
            break;
        }
        k += symbol >> 4;
        if (bits == 0) continue;
        if (k > j->final || !gfli_jpeg_fits(j, c, k, (1 << bits) - 1) || !gfli_jpeg_skip(j, bits))
            return false;
        *present |= (uint64_t)1 << k;
    }
    if (j->run > 0) j->run--;
    return true;
}

/* A bit of each that is not 0 among the coefficients from k on, until `zeros` more of the others
 * have been passed; the place behind, or -1. */
static int gfli_jpeg_refine_to(gfli_jpeg *j, uint64_t present, int k, int zeros) {
    for (; k <= j->final; k++) {
        if (!(present >> k & 1)) {
            if (zeros-- == 0) break;
        } else if (!gfli_jpeg_skip(j, 1)) {
            return -1;
        }
    }
    return k;
}

/* One more bit of some coefficients. */
static bool gfli_jpeg_refine(gfli_jpeg *j, gfli_jpeg_channel *c, uint64_t *present) {
    uint64_t now = *present;
    int k = j->first;
    for (; j->run == 0 && k <= j->final; k++) {
        int symbol = gfli_jpeg_symbol(j, &j->codes[1][c->ac]), bits = symbol & 15;
        if (symbol < 0 || bits > 1) return false;
        if (bits == 0 && symbol != 0xF0) {
            if (!gfli_jpeg_begin_run(j, symbol)) return false;
            break;
        }
        if (!gfli_jpeg_skip(j, bits)) return false; /* the sign */
        k = gfli_jpeg_refine_to(j, *present, k, symbol >> 4);
        if (k < 0 || (bits && k > j->final)) return false;
        if (bits) now |= (uint64_t)1 << k;
    }
    if (j->run > 0) {
        if (gfli_jpeg_refine_to(j, *present, k, 64) < 0) return false;
        j->run--;
    }
    *present = now;
    return true;
}

/* ---- a scan ---------------------------------------------------------------------------------- */

static bool gfli_jpeg_unit(gfli_jpeg *j, size_t number) {
    if (j->progressive && j->first > 0) {
        gfli_jpeg_channel *c = j->scan[0];
        return j->high ? gfli_jpeg_refine(j, c, &c->present[number])
                       : gfli_jpeg_band(j, c, &c->present[number]);
    }
    for (int i = 0; i < j->n_scan; i++) {
        gfli_jpeg_channel *c = j->scan[i];
        for (int n = j->n_scan == 1 ? 1 : c->h * c->v; n > 0; n--)
            if (!(j->progressive ? gfli_jpeg_brightness(j, c) : gfli_jpeg_block(j, c)))
                return false;
    }
    return true;
}

static void gfli_jpeg_restart(gfli_jpeg *j) {
    j->run = 0;
    for (int i = 0; i < j->n_channels; i++) j->channels[i].last = 0;
}

/* What stands behind an interval but for its end: nothing, or bytes that only fill up. */
static bool gfli_jpeg_expect_restart(gfli_jpeg *j, size_t number) {
    while (j->at < j->end && *j->at == 0) j->at++;
    while (j->end - j->at >= 2 && j->at[0] == 0xFF && j->at[1] == 0xFF) j->at++;
    if (j->end - j->at < 2 || j->at[0] != 0xFF || j->at[1] != (0xD0 | (number & 7))) return false;
    j->at += 2;
    return true;
}

/* All units of the scan, whose data begins at p. */
static gfl_status gfli_jpeg_data(gfli_jpeg *j, const uint8_t *p) {
    const gfli_jpeg_channel *only = j->scan[0];
    size_t across = (size_t)(j->n_scan == 1 ? only->across : j->across);
    size_t units = across * (size_t)(j->n_scan == 1 ? only->down : j->down);
    size_t left = j->interval ? (size_t)j->interval : units, n_restarts = 0;
    const uint8_t *begin = p;
    j->at = p;
    j->bits = 0;
    j->n_bits = 0;
    gfli_jpeg_restart(j);
    for (size_t i = 0; i < units; i++, left--) {
        if (left == 0) {
            gfli_jpeg_align(j);
            gfli_jpeg_put(j, begin, (size_t)(j->at - begin));
            if (!gfli_jpeg_expect_restart(j, n_restarts++))
                return gfli_image_damaged(j->file, "damaged JPEG: a restart marker is missing");
            gfli_jpeg_put(j, j->at - 2, 2);
            begin = j->at;
            left = (size_t)j->interval;
            gfli_jpeg_restart(j);
        }
        if (!gfli_jpeg_unit(j, i))
            return gfli_image_damaged(
                j->file, j->n_bits < 16 ? "truncated or damaged JPEG: pixels end too early"
                                        : "damaged JPEG: its pixels do not fit its code tables");
    }
    gfli_jpeg_align(j);
    gfli_jpeg_put(j, begin, (size_t)(j->at - begin));
    return GFL_OK;
}

/* May this scan come after those before?  Notes what is known then. */
static bool gfli_jpeg_progress(gfli_jpeg *j, gfli_jpeg_channel *c) {
    for (int k = j->first; k <= j->final; k++) {
        if (c->lowest[k] != (j->high ? j->high : -1)) return false;
        c->lowest[k] = (int8_t)j->low;
    }
    return j->first == 0 || c->lowest[0] >= 0;
}

/* Does the scan ask for what the kind of JPEG allows?  A sequential one has no choice, and what is
 * in its header does not matter. */
static bool gfli_jpeg_set_bands(gfli_jpeg *j, const uint8_t *p) {
    j->first = j->progressive ? p[0] : 0;
    j->final = j->progressive ? p[1] : 63;
    j->high = j->progressive ? p[2] >> 4 : 0;
    j->low = j->progressive ? p[2] & 15 : 0;
    if (!j->progressive) return true;
    return j->final <= 63 && j->first <= j->final && j->low <= 13 &&
           (j->high == 0 || j->high == j->low + 1) && (j->first > 0 || j->final == 0) &&
           (j->first == 0 || j->n_scan == 1);
}

static gfl_status gfli_jpeg_scan_channel(gfli_jpeg *j, const uint8_t *p, int i) {
    int k = 0;
    while (k < j->n_channels && j->channels[k].id != p[0]) k++;
    if (k == j->n_channels || !(j->quantisers_there >> j->channels[k].quantiser & 1))
        return gfli_image_damaged(j->file, "damaged JPEG: a scan lacks its channel or table");
    gfli_jpeg_channel *c = j->scan[i] = &j->channels[k];
    bool needs_dc = j->first == 0 && j->high == 0, needs_ac = !j->progressive || j->first > 0;
    c->dc = needs_dc ? p[1] >> 4 : 0;
    c->ac = needs_ac ? p[1] & 15 : 0;
    if (c->dc > 3 || c->ac > 3 || (needs_dc && !gfli_jpeg_standard_table(j, false, c->dc)) ||
        (needs_ac && !gfli_jpeg_standard_table(j, true, c->ac)))
        return gfli_image_damaged(j->file, "damaged JPEG: a scan lacks its code table");
    if (j->progressive ? !gfli_jpeg_progress(j, c) : c->scanned)
        return gfli_image_damaged(j->file, "damaged JPEG: a scan gives again what others gave");
    c->scanned = true;
    return GFL_OK;
}

/* The scan's header anew; channels are numbered as gfli_jpeg_put_frame names them. */
static void gfli_jpeg_put_scan(gfli_jpeg *j, bool rgb) {
    uint8_t header[4 + 6 + 4] = {0xFF, 0xDA, 0, (uint8_t)(6 + 2 * j->n_scan), (uint8_t)j->n_scan};
    uint8_t *p = header + 5;
    for (int i = 0; i < j->n_scan; i++) {
        int k = (int)(j->scan[i] - j->channels);
        *p++ = (uint8_t)(rgb ? "RGB"[k] : k + 1);
        *p++ = (uint8_t)(j->scan[i]->dc << 4 | j->scan[i]->ac);
    }
    *p++ = (uint8_t)j->first;
    *p++ = (uint8_t)j->final;
    *p++ = (uint8_t)(j->high << 4 | j->low);
    gfli_jpeg_put(j, header, (size_t)(p - header));
}

/* The channels' meaning is decided here, by the rules of JFIF, then Adobe's, then their names, and
 * written as names that stb_image takes so. */
static bool gfli_jpeg_is_rgb(const gfli_jpeg *j) {
    const gfli_jpeg_channel *c = j->channels;
    if (j->n_channels != 3 || j->jfif) return false;
    if (j->adobe >= 0) return j->adobe == 0;
    return c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B';
}

static void gfli_jpeg_put_frame(gfli_jpeg *j, bool rgb) {
    const int w = j->file->width, h = j->file->height;
    uint8_t header[10 + 9] = {0xFF,       (uint8_t)(j->progressive ? 0xC2 : 0xC1),
                              0,          (uint8_t)(8 + 3 * j->n_channels),
                              8,          (uint8_t)(h >> 8),
                              (uint8_t)h, (uint8_t)(w >> 8),
                              (uint8_t)w, (uint8_t)j->n_channels};
    for (int i = 0; i < j->n_channels; i++) {
        const gfli_jpeg_channel *c = &j->channels[i];
        header[10 + 3 * i] = (uint8_t)(rgb ? "RGB"[i] : i + 1);
        header[11 + 3 * i] = (uint8_t)(c->h << 4 | c->v);
        header[12 + 3 * i] = c->quantiser;
    }
    gfli_jpeg_put(j, header, 10 + 3 * (size_t)j->n_channels);
}

static gfl_status gfli_jpeg_scan(gfli_jpeg *j, const uint8_t *p, size_t length) {
    gfli_image_file *f = j->file;
    if (!f->width) return gfli_image_damaged(f, "damaged JPEG: pixels before their size");
    if (length < 6 || length != 6 + 2 * (size_t)p[2] || p[2] < 1 || p[2] > j->n_channels)
        return gfli_image_damaged(f, "damaged JPEG: a scan header has the wrong length");
    if (j->n_scans == GFLI_JPEG_MAX_SCANS)
        return gfli_image_unsupported(f, "a JPEG of more than 128 scans");
    int blocks = 0;
    j->n_scan = p[2];
    if (!gfli_jpeg_set_bands(j, p + 3 + 2 * j->n_scan))
        return gfli_image_damaged(f, "damaged JPEG: an impossible scan");
    for (int i = 0; i < j->n_scan; i++) {
        GFLI_TRY(gfli_jpeg_scan_channel(j, p + 3 + 2 * i, i));
        for (int k = 0; k < i; k++)
            if (j->scan[k] == j->scan[i])
                return gfli_image_damaged(f, "damaged JPEG: a channel twice");
        blocks += j->scan[i]->h * j->scan[i]->v;
    }
    if (j->n_scan > 1 && blocks > 10)
        return gfli_image_damaged(f, "damaged JPEG: more than 10 blocks in a unit");
    bool rgb = gfli_jpeg_is_rgb(j);
    if (j->n_scans++ == 0) gfli_jpeg_put_frame(j, rgb);
    gfli_jpeg_put_scan(j, rgb);
    return gfli_jpeg_data(j, p + length);
}

/* ---- the segments ---------------------------------------------------------------------------- */

/* Sizes in blocks; in proportion to the pixels, a bit for each coefficient of a progressive one. */
static gfl_status gfli_jpeg_measure(gfli_jpeg *j) {
    gfli_image_file *f = j->file;
    int most_h = 1, most_v = 1;
    uint64_t bytes = 0, n = 0;
    for (int i = 0; i < j->n_channels; i++) {
        most_h = gfli_max(most_h, j->channels[i].h);
        most_v = gfli_max(most_v, j->channels[i].v);
    }
    j->across = gfli_ceil_div(f->width, 8 * most_h);
    j->down = gfli_ceil_div(f->height, 8 * most_v);
    for (int i = 0; i < j->n_channels; i++) {
        gfli_jpeg_channel *c = &j->channels[i];
        if (most_h % c->h || most_v % c->v)
            return gfli_image_unsupported(f, "a JPEG whose channels differ by broken factors");
        c->across = gfli_ceil_div(gfli_ceil_div(f->width * c->h, most_h), 8);
        c->down = gfli_ceil_div(gfli_ceil_div(f->height * c->v, most_v), 8);
        uint64_t blocks = (uint64_t)(j->across * c->h) * (uint64_t)(j->down * c->v);
        bytes += blocks * (j->progressive ? 64 * 3 + 8 : 64);
        n += (uint64_t)c->across * (uint64_t)c->down;
    }
    /* A block's brightness takes a bit at least: so few bytes cannot hold so large a picture. */
    if (n / 8 > f->size) return gfli_image_damaged(f, "truncated JPEG: pixels are missing");
    GFLI_TRY(gfli_image_allow(f, bytes + f->size));
    for (int i = 0; j->progressive && i < j->n_channels; i++) {
        gfli_jpeg_channel *c = &j->channels[i];
        memset(c->lowest, -1, sizeof c->lowest);
        GFLI_TRY(gfli_calloc(f->context, (size_t)c->across * (size_t)c->down, sizeof *c->present,
                             "a progressive JPEG", &c->present));
    }
    return GFL_OK;
}

static gfl_status gfli_jpeg_channels(gfli_jpeg *j, const uint8_t *p) {
    for (int i = 0; i < j->n_channels; i++, p += 3) {
        gfli_jpeg_channel *c = &j->channels[i];
        c->id = p[0];
        c->h = p[1] >> 4;
        c->v = p[1] & 15;
        c->quantiser = p[2];
        for (int k = 0; k < i; k++)
            if (j->channels[k].id == c->id)
                return gfli_image_damaged(j->file, "damaged JPEG: two channels of one name");
        if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4 || c->quantiser > 3)
            return gfli_image_damaged(j->file, "damaged JPEG: an impossible channel");
    }
    return gfli_jpeg_measure(j);
}

static gfl_status gfli_jpeg_frame(gfli_jpeg *j, int marker, const uint8_t *p, size_t length) {
    gfli_image_file *f = j->file;
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
    GFLI_TRY(gfli_image_size(f, width, height));
    j->progressive = marker == 0xC2;
    j->n_channels = p[7];
    return gfli_jpeg_channels(j, p + 8);
}

static gfl_status gfli_jpeg_quantisers(gfli_jpeg *j, const uint8_t *p, size_t length) {
    for (size_t at = 2, size; at < length; at += size) {
        const uint8_t *q = p + at + 1;
        unsigned wide = p[at] >> 4, table = p[at] & 15;
        size = wide ? 129 : 65;
        if (size > length - at || wide > 1 || table > 3)
            return gfli_image_damaged(j->file, "damaged JPEG: an impossible quantisation table");
        for (int k = 0; k < 64; k++) {
            unsigned value = wide ? (unsigned)(q[2 * k] << 8 | q[2 * k + 1]) : q[k];
            if (value == 0) return gfli_image_damaged(j->file, "damaged JPEG: a quantiser of zero");
            if (j->n_scans > 0 && j->progressive && j->quantisers[table][k] != value)
                return gfli_image_unsupported(j->file, "a JPEG whose tables change between scans");
            j->quantisers[table][k] = (uint16_t)value;
        }
        j->quantisers_there |= 1u << table;
    }
    gfli_jpeg_put_marker(j, 0xDB);
    gfli_jpeg_put(j, p, length);
    return GFL_OK;
}

static gfl_status gfli_jpeg_interval(gfli_jpeg *j, const uint8_t *p, size_t length) {
    if (length != 4)
        return gfli_image_damaged(j->file, "damaged JPEG: an impossible restart interval");
    j->interval = p[2] << 8 | p[3];
    gfli_jpeg_put_marker(j, 0xDD);
    gfli_jpeg_put(j, p, length);
    return GFL_OK;
}

/* Segments of programs; only what decides how pixels are to be shown matters. */
static void gfli_jpeg_program(gfli_jpeg *j, int marker, const uint8_t *p, size_t length) {
    gfli_image_file *f = j->file;
    if (marker == 0xE1 && length >= 8 && memcmp(p + 2, "Exif\0\0", 6) == 0 && !f->orientation)
        f->orientation = gfli_exif_orientation(p + 8, length - 8);
    if (marker == 0xE0 && length >= 16 && memcmp(p + 2, "JFIF", 5) == 0) j->jfif = true;
    if (marker == 0xEE && length >= 14 && memcmp(p + 2, "Adobe", 5) == 0) j->adobe = p[13];
}

/* The segment behind its marker; *p is set to where the next may begin. */
static gfl_status gfli_jpeg_segment(gfli_jpeg *j, int marker, const uint8_t **p) {
    enum { SOS = 0xDA, DQT = 0xDB, DHT = 0xC4, DAC = 0xCC, DNL = 0xDC, DRI = 0xDD, COM = 0xFE };
    const uint8_t *at = *p;
    size_t left = (size_t)(j->end - at), length = left < 2 ? 0 : (size_t)at[0] << 8 | at[1];
    if (length < 2 || length > left)
        return gfli_image_damaged(j->file, "truncated JPEG: a segment is cut off");
    *p = at + length;
    if (marker == DQT) return gfli_jpeg_quantisers(j, at, length);
    if (marker == DHT) return gfli_jpeg_tables(j, at, length);
    if (marker == DRI) return gfli_jpeg_interval(j, at, length);
    if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC8 && marker != DAC)
        return gfli_jpeg_frame(j, marker, at, length);
    if (marker == SOS) {
        GFLI_TRY(gfli_jpeg_scan(j, at, length));
        *p = j->at;
    } else if (marker >= 0xE0 && marker <= 0xEF) {
        gfli_jpeg_program(j, marker, at, length);
    } else if (marker != COM && marker != DNL && marker != DAC) {
        return gfli_image_unsupported(j->file, "a JPEG with a segment of an unknown kind");
    }
    return GFL_OK;
}

/* Does the scan that has just been read complete the picture?  What stands behind it is then no
 * part of it. */
static bool gfli_jpeg_complete(const gfli_jpeg *j) {
    return !j->progressive && j->n_scans == 1 && j->n_scan == j->n_channels;
}

/* Between scans there is nothing, or zeros and markers that stand alone; otherwise a scan has
 * ended too early. */
static bool gfli_jpeg_left_over(const uint8_t *p, const uint8_t *end) {
    for (; p < end; p++) {
        bool restart = p[0] >= 0xD0 && p[0] <= 0xD7 && p[-1] == 0xFF;
        if (*p != 0 && *p != 0xFF && !restart) return true;
    }
    return false;
}

/* From marker to marker.  Bytes between segments are passed over, as are markers that stand alone:
 * cameras fill up with both behind the pixels. */
static gfl_status gfli_jpeg_follow(gfli_jpeg *j) {
    enum { SOI = 0xD8, EOI = 0xD9 };
    const uint8_t *p = j->file->bytes + 2, *behind = NULL; /* a scan */
    gfli_jpeg_put_marker(j, SOI);
    for (;;) {
        p = p < j->end ? (const uint8_t *)memchr(p, 0xFF, (size_t)(j->end - p)) : NULL;
        while (p && p < j->end && *p == 0xFF) p++;
        if (!p || p >= j->end)
            return gfli_image_damaged(j->file, "truncated JPEG: the end of the image is missing");
        int marker = *p++;
        if (marker == EOI) break;
        if (gfli_jpeg_complete(j)) continue;
        if (marker == SOI) return gfli_image_unsupported(j->file, "a JPEG inside a JPEG");
        if (marker <= 1 || (marker >= 0xD0 && marker <= 0xD7)) continue;
        if (behind && gfli_jpeg_left_over(behind, p - 1))
            return gfli_image_damaged(j->file, "damaged JPEG: bytes are left over behind a scan");
        GFLI_TRY(gfli_jpeg_segment(j, marker, &p));
        behind = marker == 0xDA ? p : NULL;
    }
    gfli_jpeg_put_marker(j, EOI);
    bool whole = j->n_channels > 0;
    for (int i = 0; i < j->n_channels; i++) whole = whole && j->channels[i].scanned;
    return whole ? GFL_OK
                 : gfli_image_damaged(j->file, "damaged JPEG: pixels of some channel are missing");
}

gfl_status gfli_jpeg_check(gfli_image_file *f, uint8_t **out, size_t *n_out) {
    gfli_jpeg *j;
    GFLI_TRY(gfli_calloc(f->context, 1, sizeof *j, "a JPEG's tables", &j));
    gfl_status status = GFL_OK;
    j->file = f;
    j->end = f->bytes + f->size;
    j->adobe = -1;
    if (out) status = gfli_alloc(f->context, f->size + GFLI_JPEG_EXTRA, 1, "a JPEG", &j->out);
    if (status == GFL_OK) status = gfli_jpeg_follow(j);
    if (status == GFL_OK && out) {
        *out = j->out;
        *n_out = j->n_out;
        j->out = NULL;
    }
    for (int i = 0; i < 3; i++) gfli_free(f->context, j->channels[i].present);
    gfli_free(f->context, j->out);
    gfli_free(f->context, j);
    return status;
}

/* ===============================================================================================
 * src/data/inflate.c - the compressed data of a PNG, to exactly as many bytes as its rows need
 * ============================================================================================ */

/* A PNG's data is a zlib stream, cut into chunks at any byte.  Bits are taken from it through a
 * buffer of 64, which is filled across the borders of chunks.  Each block of the stream is stored,
 * or has codes that the format fixes, or begins with the code lengths of its own tables.  How many
 * bytes have to come out is known beforehand: fewer, or far more, are an error. */

static bool gfli_inflate_fail(gfli_inflate *z, const char *why) {
    if (!z->why) z->why = why;
    return false;
}

/* On to the next chunk, if that is data too.  Their lengths have been checked. */
static bool gfli_inflate_next_chunk(gfli_inflate *z) {
    const uint8_t *p = z->end + 4; /* behind the checksum */
    if (z->file_end - z->end < 16 || memcmp(p + 4, "IDAT", 4) != 0) return false;
    z->at = p + 8;
    z->end = z->at + gfli_big32(p);
    return true;
}

static void gfli_inflate_fill(gfli_inflate *z) {
    while (z->n_bits <= 56) {
        while (z->at == z->end)
            if (!gfli_inflate_next_chunk(z)) return;
        z->bits |= (uint64_t)*z->at++ << z->n_bits;
        z->n_bits += 8;
    }
}

/* The next n bits, at most 16; 0 and a failure where the data ends. */
static unsigned gfli_inflate_take(gfli_inflate *z, int n) {
    if (z->n_bits < n) gfli_inflate_fill(z);
    if (z->n_bits < n) {
        gfli_inflate_fail(z, "truncated PNG: its data ends too early");
        return 0;
    }
    unsigned value = (unsigned)(z->bits & ((1u << n) - 1));
    z->bits >>= n;
    z->n_bits -= n;
    return value;
}

/* Refused as zlib does: more codes than bits allow, or fewer, but for a single one. */
static bool gfli_inflate_set_codes(gfli_inflate_codes *c, const uint8_t *lengths, int n) {
    uint16_t next[16] = {0};
    uint32_t code[16] = {0};
    int left = 1, most = 0;
    memset(c, 0, sizeof *c);
    for (int i = 0; i < n; i++) c->count[lengths[i]]++;
    c->count[0] = 0;
    for (int length = 1; length <= 15; length++) {
        left = 2 * left - c->count[length];
        if (left < 0) return false;
        if (c->count[length]) most = length;
        next[length] = (uint16_t)(next[length - 1] + c->count[length - 1]);
        code[length] = (code[length - 1] + c->count[length - 1]) << 1;
    }
    if (left > 0 && most > 1) return false;
    for (int i = 0; i < n; i++) {
        int length = lengths[i];
        uint32_t reversed = 0;
        if (!length) continue;
        c->symbols[next[length]++] = (uint16_t)i;
        for (int bit = 0; bit < length; bit++)
            reversed |= (code[length] >> bit & 1) << (length - 1 - bit);
        code[length]++;
        for (; length <= 9 && reversed < 512; reversed += 1u << length)
            c->fast[reversed] = (uint16_t)(length << 12 | i);
    }
    return true;
}

/* A long code, bit by bit. */
static int gfli_inflate_long_symbol(gfli_inflate *z, const gfli_inflate_codes *c) {
    int code = 0, first = 0, index = 0;
    for (int length = 1; length <= 15; length++) {
        code |= (int)gfli_inflate_take(z, 1);
        if (code - c->count[length] < first) return c->symbols[index + code - first];
        index += c->count[length];
        first = (first + c->count[length]) << 1;
        code <<= 1;
    }
    gfli_inflate_fail(z, "damaged PNG: its data has an impossible code");
    return -1;
}

/* The next symbol; -1 after a failure. */
static int gfli_inflate_symbol(gfli_inflate *z, const gfli_inflate_codes *c) {
    if (z->n_bits < 32) gfli_inflate_fill(z);
    unsigned hit = c->fast[z->bits & 511];
    int length = (int)(hit >> 12);
    if (length == 0 || length > z->n_bits) {
        int symbol = gfli_inflate_long_symbol(z, c);
        return z->why ? -1 : symbol;
    }
    z->bits >>= length;
    z->n_bits -= length;
    return (int)(hit & 4095);
}

static bool gfli_inflate_copy(gfli_inflate *z, int symbol) {
    static const uint8_t more_bits[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                          2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    static const uint16_t bases[29] = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                       15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                       67, 83, 99, 115, 131, 163, 195, 227, 258};
    if (symbol > 285) return gfli_inflate_fail(z, "damaged PNG: its data has an impossible code");
    size_t length = bases[symbol - 257] + gfli_inflate_take(z, more_bits[symbol - 257]);
    int distance = gfli_inflate_symbol(z, &z->distances);
    if (distance < 0 || distance > 29)
        return gfli_inflate_fail(z, "damaged PNG: its data has an impossible code");
    int bits = distance < 4 ? 0 : distance / 2 - 1;
    size_t back = (distance < 4 ? (size_t)distance : (size_t)(2 + distance % 2) << bits) + 1 +
                  gfli_inflate_take(z, bits);
    if (z->why) return false;
    if (back > z->n_out)
        return gfli_inflate_fail(z, "damaged PNG: its data refers to data before its beginning");
    if (length > z->room - z->n_out)
        return gfli_inflate_fail(z, "damaged PNG: far more data than its size can need");
    for (uint8_t *p = z->out + z->n_out; length > 0; length--, p++, z->n_out++)
        *p = p[-(ptrdiff_t)back];
    return true;
}

static bool gfli_inflate_compressed(gfli_inflate *z) {
    for (;;) {
        int symbol = gfli_inflate_symbol(z, &z->literals);
        if (symbol < 0) return false;
        if (symbol == 256) return true;
        if (symbol > 256) {
            if (!gfli_inflate_copy(z, symbol)) return false;
        } else if (z->n_out == z->room) {
            return gfli_inflate_fail(z, "damaged PNG: far more data than its size can need");
        } else {
            z->out[z->n_out++] = (uint8_t)symbol;
        }
    }
}

static bool gfli_inflate_stored(gfli_inflate *z) {
    (void)gfli_inflate_take(z, z->n_bits & 7);
    unsigned n = gfli_inflate_take(z, 16);
    if ((gfli_inflate_take(z, 16) ^ n) != 0xFFFF)
        return gfli_inflate_fail(z, "damaged PNG: its data contradicts itself");
    if (n > z->room - z->n_out)
        return gfli_inflate_fail(z, "damaged PNG: far more data than its size can need");
    for (; n > 0 && !z->why; n--) z->out[z->n_out++] = (uint8_t)gfli_inflate_take(z, 8);
    return !z->why;
}

static bool gfli_inflate_fixed_codes(gfli_inflate *z) {
    uint8_t lengths[288], distances[32];
    for (int i = 0; i < 288; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    memset(distances, 5, sizeof distances);
    (void)gfli_inflate_set_codes(&z->literals, lengths, 288);
    (void)gfli_inflate_set_codes(&z->distances, distances, 32);
    return true;
}

/* Lengths of n codes, themselves coded. */
static bool gfli_inflate_lengths(gfli_inflate *z, uint8_t *lengths, int n) {
    for (int i = 0; i < n;) {
        int symbol = gfli_inflate_symbol(z, &z->literals), times = 1, value = symbol;
        if (symbol < 0) return false;
        if (symbol == 16) {
            if (i == 0) return false;
            value = lengths[i - 1];
            times = 3 + (int)gfli_inflate_take(z, 2);
        } else if (symbol > 16) {
            value = 0;
            times =
                symbol == 17 ? 3 + (int)gfli_inflate_take(z, 3) : 11 + (int)gfli_inflate_take(z, 7);
        }
        if (times > n - i || z->why) return false;
        for (; times > 0; times--) lengths[i++] = (uint8_t)value;
    }
    return true;
}

static bool gfli_inflate_own_codes(gfli_inflate *z) {
    static const uint8_t order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                      11, 4,  12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[320] = {0};
    int n_literals = 257 + (int)gfli_inflate_take(z, 5);
    int n_distances = 1 + (int)gfli_inflate_take(z, 5), n = 4 + (int)gfli_inflate_take(z, 4);
    for (int i = 0; i < n; i++) lengths[order[i]] = (uint8_t)gfli_inflate_take(z, 3);
    bool good = n_literals <= 286 && n_distances <= 30 &&
                gfli_inflate_set_codes(&z->literals, lengths, 19) &&
                gfli_inflate_lengths(z, lengths, n_literals + n_distances) && lengths[256] &&
                gfli_inflate_set_codes(&z->literals, lengths, n_literals) &&
                gfli_inflate_set_codes(&z->distances, lengths + n_literals, n_distances);
    return good || gfli_inflate_fail(z, "damaged PNG: its data has impossible codes");
}

const char *gfli_inflate_all(gfli_inflate *z) {
    unsigned method = gfli_inflate_take(z, 8), flags = gfli_inflate_take(z, 8);
    if ((method & 15) != 8 || method >> 4 > 7 || (method << 8 | flags) % 31 || flags & 32)
        return z->why ? z->why : "damaged PNG: its data is not compressed as PNG says";
    for (bool last = false, good = true; good && !last;) {
        last = gfli_inflate_take(z, 1) != 0;
        unsigned kind = gfli_inflate_take(z, 2);
        if (z->why) break;
        if (kind == 0)
            good = gfli_inflate_stored(z);
        else if (kind == 3)
            good = gfli_inflate_fail(z, "damaged PNG: its data has an impossible code");
        else
            good = (kind == 1 ? gfli_inflate_fixed_codes(z) : gfli_inflate_own_codes(z)) &&
                   gfli_inflate_compressed(z);
    }
    if (!z->why && z->n_out < z->room) return "truncated PNG: pixels are missing";
    return z->why;
}

/* ===============================================================================================
 * src/data/png.c - PNG
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/data/bmp.c - BMP, uncompressed
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/data/image.c - image files of every kind that is read, by their content
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/data/ids.c - ids as files have them: numbers and texts
 * ============================================================================================ */

int gfli_id_compare(gfl_id a, gfl_id b) {
    if (!a.text != !b.text) return a.text ? 1 : -1;
    if (a.text) return strcmp(a.text, b.text);
    return a.number < b.number ? -1 : a.number > b.number;
}

const char *gfli_id_text(gfl_id id, char out[GFLI_ID_TEXT]) {
    if (id.text)
        gfli_quote(id.text, out, GFLI_ID_TEXT);
    else
        snprintf(out, GFLI_ID_TEXT, "%lld", (long long)id.number);
    return out;
}

static void gfli_id_merge(const gfli_id_entry *a, int n_a, const gfli_id_entry *b, int n_b,
                          gfli_id_entry *out) {
    while (n_a > 0 && n_b > 0) {
        bool second = gfli_id_compare(b->id, a->id) < 0;
        *out++ = second ? *b++ : *a++;
        n_a -= !second;
        n_b -= second;
    }
    for (; n_a > 0; n_a--) *out++ = *a++;
    for (; n_b > 0; n_b--) *out++ = *b++;
}

static void gfli_id_merge_sort(gfli_id_entry *entries, int n, gfli_id_entry *scratch) {
    bool sorted = true;
    for (int i = 1; i < n && sorted; i++)
        sorted = gfli_id_compare(entries[i - 1].id, entries[i].id) <= 0;
    if (sorted) return; /* the usual file */
    int half = n / 2;
    gfli_id_merge_sort(entries, half, scratch);
    gfli_id_merge_sort(entries + half, n - half, scratch);
    gfli_id_merge(entries, half, entries + half, n - half, scratch);
    memcpy(entries, scratch, (size_t)n * sizeof *entries);
}

gfl_status gfli_id_sort(gfl_context *context, gfli_id_entry *entries, int n) {
    gfli_id_entry *scratch;
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *scratch, "ids", &scratch));
    gfli_id_merge_sort(entries, n, scratch);
    gfli_free(context, scratch);
    return GFL_OK;
}

int gfli_id_place(const gfli_id_entry *entries, int n, gfl_id id) {
    int first = 0, last = n;
    while (first < last) {
        int middle = first + (last - first) / 2;
        if (gfli_id_compare(entries[middle].id, id) < 0)
            first = middle + 1;
        else
            last = middle;
    }
    return first < n && gfli_id_compare(entries[first].id, id) == 0 ? first : -1;
}

/* A whole number of 64 bits as a program writes it: no blanks, plus sign or leading zeros. */
static bool gfli_id_number(const char *text, int64_t *out) {
    bool negative = text[0] == '-';
    const char *p = text + negative;
    uint64_t value = 0, most = (uint64_t)INT64_MAX + negative;
    if (!*p || (*p == '0' && (p[1] || negative))) return false;
    for (; *p; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (*p < '0' || *p > '9' || value > (most - digit) / 10) return false;
        value = value * 10 + digit;
    }
    *out = negative ? -(int64_t)(value - 1) - 1 : (int64_t)value;
    return true;
}

bool gfli_id_other(gfl_id id, char text[24], gfl_id *out) {
    memset(out, 0, sizeof *out);
    if (id.text) return gfli_id_number(id.text, &out->number);
    snprintf(text, 24, "%lld", (long long)id.number);
    out->text = text;
    return true;
}

int gfli_id_place_of_either(const gfli_id_entry *entries, int n, gfl_id id, bool *other) {
    char text[24];
    gfl_id twin;
    int place = gfli_id_place(entries, n, id);
    *other = place < 0 && gfli_id_other(id, text, &twin) &&
             (place = gfli_id_place(entries, n, twin)) >= 0;
    return place;
}

/* ===============================================================================================
 * src/data/coco.c - COCO annotations by a streaming reader
 * ============================================================================================ */

/* The file is read once, from its beginning to its end, and only what is needed is kept: images,
 * classes, and annotations with their ids as they stand there, since the three lists may come in
 * any order.  When all of it is read, coco_resolve.c connects them.  A mistake makes its object
 * `faulty` and the reading goes on; at the end of the object it is either reported to the caller,
 * or becomes the error of the call. */

/* ---- mistakes -------------------------------------------------------------------------------- */

gfl_status gfli_coco_report(gfli_coco *c, const char *format, ...) {
    char text[sizeof c->context->error];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->set->summary.n_mistakes++;
    if (c->desc.found && c->desc.found(c->desc.found_user, text) == 0) return GFL_OK;
    return gfli_error(c->context, GFL_E_DATA, "%s", text);
}

const char *gfli_coco_name(const char *what, const char *list, bool has_id, gfl_id id, int index,
                           char out[GFLI_ID_TEXT + 32]) {
    char text[GFLI_ID_TEXT];
    if (has_id)
        snprintf(out, GFLI_ID_TEXT + 32, "%s %s", what, gfli_id_text(id, text));
    else
        snprintf(out, GFLI_ID_TEXT + 32, "%s[%d]", list, index);
    return out;
}

/* A mistake of the file's form, after which nothing more can be read. */
static gfl_status gfli_coco_refuse(gfli_coco *c, const char *format, ...) GFLI_PRINTF(2, 3);
static gfl_status gfli_coco_refuse(gfli_coco *c, const char *format, ...) {
    char text[512];
    va_list args;
    /* A syntax error comes first: then the reader answers "end", which is nobody's mistake. */
    GFLI_TRY(gfli_json_status(c->json));
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return gfli_json_error(c->json, GFL_E_DATA, "%s", text);
}

/* The first mistake of the object being read, at this place; told when its ids are known. */
static void gfli_coco_fault_at(gfli_coco *c, long line, long column, const char *text) {
    if (c->faulty || gfli_json_status(c->json) != GFL_OK) return;
    c->faulty = true;
    c->fault_line = line;
    c->fault_column = column;
    snprintf(c->fault, sizeof c->fault, "%s", text);
}

/* The value of `what` that was read last is not what is wanted. */
static void gfli_coco_unwanted(gfli_coco *c, gfli_json_kind kind, const char *what,
                               const char *wanted) {
    char text[sizeof c->fault], found[GFLI_QUOTED];
    long line, column;
    if (c->faulty || gfli_json_status(c->json) != GFL_OK) return;
    gfli_json_place(c->json, &line, &column);
    snprintf(text, sizeof text, "its %s %s: %s is wanted", what,
             gfli_json_found(c->json, kind, found), wanted);
    gfli_coco_fault_at(c, line, column, text);
}

/* Something that the object as a whole lacks. */
static void gfli_coco_lacks(gfli_coco *c, const char *text) {
    gfli_coco_fault_at(c, c->line, c->column, text);
}

static gfl_status gfli_coco_settle(gfli_coco *c, const char *who) {
    return gfli_coco_report(c, "%.400s:%ld:%ld: %s: %s", c->set->name, c->fault_line,
                            c->fault_column, who, c->fault);
}

/* ---- fields ---------------------------------------------------------------------------------- */

/* The place of a key among those that are read, or n. */
static int gfli_coco_key(const char *key, const char *const *names, int n) {
    int i = 0;
    while (i < n && strcmp(key, names[i]) != 0) i++;
    return i;
}

static gfl_status gfli_coco_keep(gfli_coco *c, const char **out) {
    size_t length;
    const char *text = gfli_json_string(c->json, &length);
    return gfli_dataset_text(c->set, text, length, out);
}

static gfl_status gfli_coco_text(gfli_coco *c, const char *what, const char **out) {
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind == GFLI_JSON_STRING) return gfli_coco_keep(c, out);
    gfli_coco_unwanted(c, kind, what, "a text");
    return GFL_OK;
}

/* A whole number, also when written as 3.0 or 3e2. */
static bool gfli_coco_integer(gfli_coco *c, int64_t *out) {
    if (gfli_json_as_integer(c->json, out)) return true;
    double v = gfli_json_as_number(c->json);
    if (!((fabs)(v) <= 9007199254740992.0) || v != (floor)(v)) return false;
    *out = (int64_t)v;
    return true;
}

/* An id; null counts as not there. */
static gfl_status gfli_coco_id(gfli_coco *c, const char *what, bool *has, gfl_id *out) {
    gfli_json_kind kind = gfli_json_next(c->json);
    out->number = 0;
    out->text = NULL;
    *has = kind == GFLI_JSON_STRING ||
           (kind == GFLI_JSON_NUMBER && gfli_coco_integer(c, &out->number));
    if (kind == GFLI_JSON_STRING) return gfli_coco_keep(c, &out->text);
    if (!*has && kind != GFLI_JSON_NULL)
        gfli_coco_unwanted(c, kind, what, "a whole number of 64 bits or a text");
    return GFL_OK;
}

/* A side of an image; null counts as not said. */
static void gfli_coco_side(gfli_coco *c, const char *what, int *out) {
    int64_t value = 0;
    gfli_json_kind kind = gfli_json_next(c->json);
    bool good =
        kind == GFLI_JSON_NULL || (kind == GFLI_JSON_NUMBER && gfli_coco_integer(c, &value) &&
                                   value >= 0 && (double)value <= GFLI_COCO_HUGE);
    *out = good ? (int)value : 0;
    if (!good) gfli_coco_unwanted(c, kind, what, "a whole number of pixels");
}

static void gfli_coco_flag(gfli_coco *c, const char *what, bool *has, int *out) {
    gfli_json_kind kind = gfli_json_next(c->json);
    *has = kind != GFLI_JSON_NULL;
    *out =
        kind == GFLI_JSON_TRUE || (kind == GFLI_JSON_NUMBER && gfli_json_as_number(c->json) != 0);
    if (*has && kind != GFLI_JSON_TRUE && kind != GFLI_JSON_FALSE && kind != GFLI_JSON_NUMBER)
        gfli_coco_unwanted(c, kind, what, "0 or 1");
}

/* ---- images ---------------------------------------------------------------------------------- */

static gfl_status gfli_coco_image_field(gfli_coco *c, gfl_image_info *image, const char *key,
                                        bool *has_id) {
    static const char *const names[] = {"id", "file_name", "width", "height"};
    switch (gfli_coco_key(key, names, GFLI_COUNT(names))) {
    case 0: return gfli_coco_id(c, "id is", has_id, &image->id);
    case 1: return gfli_coco_text(c, "file_name is", &image->file_name);
    case 2: gfli_coco_side(c, "width is", &image->width); break;
    case 3: gfli_coco_side(c, "height is", &image->height); break;
    default: gfli_json_skip(c->json);
    }
    return GFL_OK;
}

/* Of an image with a mistake and an id the rest is kept, so that its annotations find it. */
static gfl_status gfli_coco_image(gfli_coco *c) {
    GFLI_TRY(gfli_grow(c->context, &c->set->images, &c->cap_images, c->n_images + 1,
                       sizeof *c->set->images, "images"));
    gfl_image_info *image = &c->set->images[c->n_images];
    const int depth = gfli_json_depth(c->json);
    const char *key;
    bool has_id = false;
    char who[GFLI_ID_TEXT + 32];
    memset(image, 0, sizeof *image);
    image->file_name = "";
    while ((key = gfli_json_key(c->json)) != NULL) {
        GFLI_TRY(gfli_coco_image_field(c, image, key, &has_id));
        gfli_json_leave_to(c->json, depth);
    }
    if (!has_id) gfli_coco_lacks(c, "it has no id");
    c->n_images += has_id;
    GFLI_TRY(gfli_json_status(c->json));
    if (!c->faulty) return GFL_OK;
    return gfli_coco_settle(c, gfli_coco_name("image", "images", has_id, image->id, c->index, who));
}

/* ---- annotations ----------------------------------------------------------------------------- */

/* What was seen of an annotation. */
typedef struct gfli_coco_seen {
    bool image, category, bbox, null_bbox, polygons, bad_polygons;
    long line, column;      /* of a bbox that is null */
    int n;                  /* coordinates of polygons */
    double low[2], high[2]; /* x, y */
} gfli_coco_seen;

static void gfli_coco_bbox(gfli_coco *c, gfl_annotation *a, gfli_coco_seen *seen) {
    static const char wanted[] = "a list of four numbers, [x, y, width, height] in pixels,";
    double v[4];
    int n = 0;
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind == GFLI_JSON_NULL) {
        seen->null_bbox = true;
        gfli_json_place(c->json, &seen->line, &seen->column);
        return;
    }
    seen->bbox = true;
    bool list = kind == GFLI_JSON_ARRAY, huge = false;
    while (list && !huge && (kind = gfli_json_next(c->json)) == GFLI_JSON_NUMBER && n < 4) {
        v[n] = gfli_json_as_number(c->json);
        huge = !((fabs)(v[n]) <= GFLI_COCO_HUGE);
        n += !huge;
    }
    if (n < 4 || kind != GFLI_JSON_END) {
        static const char *const ends[] = {"bbox is empty but for", "bbox holds one number before",
                                           "bbox holds two numbers before",
                                           "bbox holds three numbers before"};
        gfli_coco_unwanted(c, kind,
                           !list                   ? "bbox is"
                           : kind == GFLI_JSON_END ? ends[n]
                           : n == 4                ? "bbox goes on with"
                                                   : "bbox holds",
                           wanted);
        return;
    }
    a->x = v[0];
    a->y = v[1];
    a->w = v[2];
    a->h = v[3];
}

/* One list of coordinates; false where it is none. */
static bool gfli_coco_polygon(gfli_coco *c, gfli_coco_seen *seen) {
    gfli_json_kind kind;
    int n = 0;
    for (; (kind = gfli_json_next(c->json)) == GFLI_JSON_NUMBER; n ^= 1) {
        double v = gfli_json_as_number(c->json);
        if (!((fabs)(v) <= GFLI_COCO_HUGE)) return false;
        seen->low[n] = seen->n < 2 ? v : (fmin)(seen->low[n], v);
        seen->high[n] = seen->n < 2 ? v : (fmax)(seen->high[n], v);
        if (seen->n < 2) seen->n++;
    }
    return kind == GFLI_JSON_END && n == 0 && seen->n == 2;
}

/* Polygons are read where they are to give boxes; otherwise it matters only that there are some. */
static void gfli_coco_segmentation(gfli_coco *c, gfli_coco_seen *seen) {
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind != GFLI_JSON_ARRAY) return;
    kind = gfli_json_next(c->json);
    seen->polygons = kind == GFLI_JSON_ARRAY;
    if (!c->desc.boxes_from_polygons) return;
    for (; kind == GFLI_JSON_ARRAY && !seen->bad_polygons; kind = gfli_json_next(c->json))
        seen->bad_polygons = !gfli_coco_polygon(c, seen);
    seen->bad_polygons = seen->bad_polygons || kind != GFLI_JSON_END;
}

static void gfli_coco_area(gfli_coco *c, gfli_coco_annotation *r) {
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind == GFLI_JSON_NULL) return;
    if (kind != GFLI_JSON_NUMBER || !gfli_is_finite(gfli_json_as_number(c->json))) {
        gfli_coco_unwanted(c, kind, "area is", "a number");
        return;
    }
    r->a.area = gfli_json_as_number(c->json);
    r->has_area = true;
}

static gfl_status gfli_coco_annotation_field(gfli_coco *c, gfli_coco_annotation *r,
                                             gfli_coco_seen *seen, const char *key) {
    static const char *const names[] = {"id",   "image_id", "category_id", "bbox",
                                        "area", "iscrowd",  "ignore",      "segmentation"};
    bool said;
    switch (gfli_coco_key(key, names, GFLI_COUNT(names))) {
    case 0: return gfli_coco_id(c, "id is", &r->has_id, &r->a.id);
    case 1: return gfli_coco_id(c, "image_id is", &seen->image, &r->image_id);
    case 2: return gfli_coco_id(c, "category_id is", &seen->category, &r->class_id);
    case 3: gfli_coco_bbox(c, &r->a, seen); break;
    case 4: gfli_coco_area(c, r); break;
    case 5: gfli_coco_flag(c, "iscrowd is", &r->has_crowd, &r->a.crowd); break;
    case 6: gfli_coco_flag(c, "ignore is", &said, &r->a.ignore); break;
    case 7: gfli_coco_segmentation(c, seen); break;
    default: gfli_json_skip(c->json);
    }
    return GFL_OK;
}

static void gfli_coco_lacks_bbox(gfli_coco *c, const gfli_coco_seen *seen) {
    const bool asked = c->desc.boxes_from_polygons != 0;
    char text[sizeof c->fault];
    const char *more =
        seen->polygons && !asked
            ? "; it has polygons, of which boxes_from_polygons (--boxes-from-polygons) makes boxes"
        : seen->polygons  ? "; its polygons are not lists of coordinates x1, y1, x2, y2 ..."
        : asked           ? "; it has no polygons either"
        : seen->null_bbox ? ""
                          : " (is this a file of captions or key points?)";
    snprintf(text, sizeof text, "%s%s",
             seen->null_bbox ? "its bbox is null: [x, y, width, height] is wanted"
                             : "it has no bbox",
             more);
    gfli_coco_fault_at(c, seen->null_bbox ? seen->line : c->line,
                       seen->null_bbox ? seen->column : c->column, text);
}

static void gfli_coco_complete(gfli_coco *c, gfli_coco_annotation *r, gfli_coco_seen *seen) {
    if (!seen->bbox && c->desc.boxes_from_polygons && seen->polygons && !seen->bad_polygons) {
        r->a.x = seen->low[0];
        r->a.y = seen->low[1];
        r->a.w = seen->high[0] - seen->low[0];
        r->a.h = seen->high[1] - seen->low[1];
        r->from_polygons = seen->bbox = true;
    }
    if (!seen->image) gfli_coco_lacks(c, "it has no image_id");
    if (!seen->category) gfli_coco_lacks(c, "it has no category_id");
    if (!seen->bbox) gfli_coco_lacks_bbox(c, seen);
    if (!r->has_area) r->a.area = r->a.w * r->a.h;
}

static gfl_status gfli_coco_annotation_read(gfli_coco *c) {
    GFLI_TRY(gfli_grow(c->context, &c->annotations, &c->cap_annotations, c->n_annotations + 1,
                       sizeof *c->annotations, "annotations"));
    gfli_coco_annotation *r = &c->annotations[c->n_annotations];
    const int depth = gfli_json_depth(c->json);
    gfli_coco_seen seen;
    const char *key;
    char name[GFLI_ID_TEXT + 32], image[GFLI_ID_TEXT], who[2 * GFLI_ID_TEXT + 64];
    memset(r, 0, sizeof *r);
    memset(&seen, 0, sizeof seen);
    r->index = c->index;
    r->line = c->line;
    r->column = c->column;
    while ((key = gfli_json_key(c->json)) != NULL) {
        GFLI_TRY(gfli_coco_annotation_field(c, r, &seen, key));
        gfli_json_leave_to(c->json, depth);
    }
    gfli_coco_complete(c, r, &seen);
    c->n_annotations += !c->faulty;
    GFLI_TRY(gfli_json_status(c->json));
    if (!c->faulty) return GFL_OK;
    gfli_coco_name("annotation", "annotations", r->has_id, r->a.id, r->index, name);
    snprintf(who, sizeof who, "%s%s%s", name, seen.image ? " of image " : "",
             seen.image ? gfli_id_text(r->image_id, image) : "");
    return gfli_coco_settle(c, who);
}

/* ---- categories ------------------------------------------------------------------------------ */

static gfl_status gfli_coco_class_field(gfli_coco *c, gfli_coco_class *r, const char *key,
                                        bool *has_id) {
    static const char *const names[] = {"id", "name", "supercategory"};
    switch (gfli_coco_key(key, names, GFLI_COUNT(names))) {
    case 0: return gfli_coco_id(c, "id is", has_id, &r->id);
    case 1: return gfli_coco_text(c, "name is", &r->name);
    case 2:
        if (gfli_json_next(c->json) == GFLI_JSON_STRING)
            return gfli_coco_keep(c, &r->supercategory);
        break;
    default: gfli_json_skip(c->json);
    }
    return GFL_OK;
}

/* A class without a name is called by its id. */
static gfl_status gfli_coco_default_name(gfli_coco *c, gfli_coco_class *r) {
    char text[GFLI_ID_TEXT];
    if (r->name) return GFL_OK;
    r->name = r->id.text;
    if (r->name) return GFL_OK;
    gfli_id_text(r->id, text);
    return gfli_dataset_text(c->set, text, strlen(text), &r->name);
}

static gfl_status gfli_coco_class_read(gfli_coco *c) {
    if (c->n_classes == GFL_MAX_CLASSES)
        return gfli_coco_refuse(c, "more than %d categories", GFL_MAX_CLASSES);
    GFLI_TRY(gfli_grow(c->context, &c->classes, &c->cap_classes, c->n_classes + 1,
                       sizeof *c->classes, "categories"));
    gfli_coco_class *r = &c->classes[c->n_classes];
    const int depth = gfli_json_depth(c->json);
    const char *key;
    bool has_id = false;
    char who[GFLI_ID_TEXT + 32];
    memset(r, 0, sizeof *r);
    while ((key = gfli_json_key(c->json)) != NULL) {
        GFLI_TRY(gfli_coco_class_field(c, r, key, &has_id));
        gfli_json_leave_to(c->json, depth);
    }
    GFLI_TRY(gfli_coco_default_name(c, r));
    if (!has_id) gfli_coco_lacks(c, "it has no id");
    c->n_classes += has_id;
    GFLI_TRY(gfli_json_status(c->json));
    if (!c->faulty) return GFL_OK;
    return gfli_coco_settle(c,
                            gfli_coco_name("category", "categories", has_id, r->id, c->index, who));
}

/* ---- the file -------------------------------------------------------------------------------- */

/* One of the three lists; `one` reads one of its objects. */
static gfl_status gfli_coco_section(gfli_coco *c, const char *name, bool *seen,
                                    gfl_status (*one)(gfli_coco *)) {
    gfli_json_kind kind;
    char text[64], found[GFLI_QUOTED];
    if (*seen) return gfli_coco_refuse(c, "\"%s\" appears twice", name);
    *seen = true;
    if ((kind = gfli_json_next(c->json)) != GFLI_JSON_ARRAY)
        return gfli_coco_refuse(c, "\"%s\" is %s: it must be a list", name,
                                gfli_json_found(c->json, kind, found));
    for (c->index = 0; (kind = gfli_json_next(c->json)) != GFLI_JSON_END; c->index++) {
        if (c->index == INT_MAX / 2) return gfli_coco_refuse(c, "too many %s", name);
        c->faulty = false;
        gfli_json_place(c->json, &c->line, &c->column);
        if (kind == GFLI_JSON_OBJECT) {
            GFLI_TRY(one(c));
            continue;
        }
        snprintf(text, sizeof text, "%s[%d]", name, c->index);
        gfli_coco_unwanted(c, kind, "value is", "an object");
        if (kind == GFLI_JSON_ARRAY) gfli_json_leave_to(c->json, gfli_json_depth(c->json) - 1);
        if (c->faulty) GFLI_TRY(gfli_coco_settle(c, text));
    }
    return gfli_json_status(c->json);
}

static gfl_status gfli_coco_read(gfli_coco *c) {
    static const char wanted[] = "a COCO annotation file is an object with the lists \"images\", "
                                 "\"annotations\" and \"categories\"";
    static const char *const names[] = {"images", "annotations", "categories"};
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind == GFLI_JSON_ARRAY)
        return gfli_coco_refuse(c, "this is a list, perhaps of results; %s", wanted);
    if (kind != GFLI_JSON_OBJECT) return gfli_coco_refuse(c, "%s", wanted);
    for (const char *key; (key = gfli_json_key(c->json)) != NULL;) {
        switch (gfli_coco_key(key, names, GFLI_COUNT(names))) {
        case 0: GFLI_TRY(gfli_coco_section(c, names[0], &c->has_images, gfli_coco_image)); break;
        case 1:
            GFLI_TRY(
                gfli_coco_section(c, names[1], &c->has_annotations, gfli_coco_annotation_read));
            break;
        case 2:
            GFLI_TRY(gfli_coco_section(c, names[2], &c->has_classes, gfli_coco_class_read));
            break;
        default: gfli_json_skip(c->json);
        }
    }
    if (!c->has_images) return gfli_coco_refuse(c, "there are no \"images\": %s", wanted);
    gfli_json_next(c->json); /* nothing may follow */
    return gfli_json_status(c->json);
}

/* ---- loading --------------------------------------------------------------------------------- */

static gfl_status gfli_dataset_new(gfl_context *context, const char *path, bool file,
                                   const gfl_dataset_desc *desc, gfl_dataset **out) {
    gfl_dataset *set;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *set, "a data set", &set));
    set->context = context;
    gfl_status status = gfli_strdup(context, path, &set->name);
    if (status == GFL_OK)
        status = gfli_strdup(context,
                             desc && desc->image_dir ? desc->image_dir
                             : file                  ? path
                                                     : "",
                             &set->image_dir);
    if (status != GFL_OK) {
        gfl_dataset_destroy(set);
        return status;
    }
    if (!(desc && desc->image_dir)) set->image_dir[gfli_os_folder_length(set->image_dir)] = 0;
    if (desc) {
        set->trust_boxes = desc->trust_boxes != 0;
        set->skip_unreadable = desc->skip_unreadable != 0;
        set->read_image = desc->read_image;
        set->user = desc->user;
    }
    *out = set;
    return GFL_OK;
}

gfl_status gfli_coco_begin(gfli_coco *c, gfl_context *context, const char *path, bool file,
                           const gfl_dataset_desc *desc) {
    memset(c, 0, sizeof *c);
    c->context = context;
    if (desc) c->desc = *desc;
    return gfli_dataset_new(context, path, file, desc, &c->set);
}

gfl_status gfli_coco_finish(gfli_coco *c, gfl_status status, gfl_dataset **out) {
    if (status == GFL_OK) status = gfli_coco_resolve(c);
    gfli_free(c->context, c->annotations);
    gfli_free(c->context, c->classes);
    gfli_free(c->context, c->image_ids);
    gfli_free(c->context, c->class_ids);
    gfli_free(c->context, c->parents);
    if (status == GFL_OK)
        *out = c->set;
    else
        gfl_dataset_destroy(c->set);
    return status;
}

/* Reads from c->json, which is not there when opening failed with status. */
static gfl_status gfli_coco_load(gfli_coco *c, gfl_status status, gfl_dataset **out) {
    if (status == GFL_OK) {
        status = gfli_coco_read(c);
        gfli_json_close(c->json);
    }
    return gfli_coco_finish(c, status, out);
}

gfl_status gfl_dataset_load_coco(gfl_context *context, const char *json_path,
                                 const gfl_dataset_desc *desc, gfl_dataset **out) {
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, json_path);
    GFLI_NOT_NULL(context, out);
    gfli_coco c;
    GFLI_TRY(gfli_coco_begin(&c, context, json_path, true, desc));
    return gfli_coco_load(&c, gfli_json_open(context, json_path, &c.json), out);
}

gfl_status gfl_dataset_load_coco_memory(gfl_context *context, const char *json, size_t size,
                                        const gfl_dataset_desc *desc, gfl_dataset **out) {
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, json);
    GFLI_NOT_NULL(context, out);
    gfli_coco c;
    GFLI_TRY(gfli_coco_begin(&c, context, "annotations in memory", false, desc));
    return gfli_coco_load(&c, gfli_json_open_memory(context, json, size, c.set->name, &c.json),
                          out);
}

/* ===============================================================================================
 * src/data/coco_resolve.c - annotations to their images and labels, classes in order, counts
 * ============================================================================================ */

/* What reading has left is put together in this order, which gfli_coco_resolve has:
 *
 *   1. Images and classes are sorted by their ids, and twice the same id is a mistake.
 *   2. Each annotation finds its image and its class by binary search; strays are left out, or are
 *      mistakes.  Annotations without an id are numbered.
 *   3. Classes that nobody has are left out where that is wanted, which moves the labels.
 *   4. Annotations are moved together by image, in the order of the file.
 *   5. Ids and names that are there twice are counted, class ids become numbers, and the summary
 *      says what looks wrong. */

/* ---- ids ------------------------------------------------------------------------------------- */

/* Sorts entries; ids of two of them are a mistake, as one type or as two ("1" and 1). */
static gfl_status gfli_coco_sort(gfli_coco *c, gfli_id_entry *entries, int n, const char *what) {
    char id[GFLI_ID_TEXT], text[24];
    gfl_id number;
    GFLI_TRY(gfli_id_sort(c->context, entries, n));
    for (int i = 1; i < n; i++) {
        if (gfli_id_compare(entries[i - 1].id, entries[i].id) == 0)
            GFLI_TRY(gfli_coco_report(c, "%s: two %s have the id %s", c->set->name, what,
                                      gfli_id_text(entries[i].id, id)));
        else if (entries[i].id.text && gfli_id_other(entries[i].id, text, &number) &&
                 gfli_id_place(entries, n, number) >= 0)
            GFLI_TRY(gfli_coco_report(
                c, "%s: two %s have the id %lld, one as a number and one as a text, %s",
                c->set->name, what, (long long)number.number, gfli_id_text(entries[i].id, id)));
    }
    return GFL_OK;
}

static gfl_status gfli_coco_resolve_images(gfli_coco *c) {
    int n = (int)c->n_images;
    GFLI_TRY(gfli_alloc(c->context, c->n_images, sizeof *c->image_ids, "ids", &c->image_ids));
    for (int i = 0; i < n; i++) {
        c->image_ids[i].id = c->set->images[i].id;
        c->image_ids[i].index = i;
    }
    c->set->n_images = n;
    return gfli_coco_sort(c, c->image_ids, n, "images");
}

/* ---- classes --------------------------------------------------------------------------------- */

/* Names in order, leading to labels. */
static gfl_status gfli_coco_sort_names(gfli_coco *c, gfli_id_entry *names) {
    const gfl_dataset *set = c->set;
    for (int i = 0; i < set->n_classes; i++) {
        names[i].id.number = 0;
        names[i].id.text = set->classes[i].name;
        names[i].index = i;
    }
    return gfli_id_sort(c->context, names, set->n_classes);
}

/* Classes that others name as their supercategory. */
static gfl_status gfli_coco_find_parents(gfli_coco *c) {
    const gfl_dataset *set = c->set;
    const int n = set->n_classes;
    gfli_id_entry *names;
    GFLI_TRY(gfli_alloc(c->context, (size_t)n, sizeof *names, "class names", &names));
    gfl_status status = gfli_coco_sort_names(c, names);
    for (int i = 0; i < n && status == GFL_OK; i++) {
        gfl_id id = {0, c->classes[c->class_ids[i].index].supercategory};
        int place = id.text && strcmp(id.text, set->classes[i].name) != 0
                        ? gfli_id_place(names, n, id)
                        : -1;
        if (place >= 0) c->parents[names[place].index] = true;
    }
    gfli_free(c->context, names);
    return status;
}

/* Classes by ascending id; class_ids then leads from an id to its label. */
static gfl_status gfli_coco_resolve_classes(gfli_coco *c) {
    gfl_dataset *set = c->set;
    gfl_context *context = c->context;
    const size_t count = c->n_classes;
    const int n = (int)count;
    if (n == 0)
        return gfli_error(context, GFL_E_DATA,
                          "%s: there are no \"categories\"; add a list of {\"id\": 1, \"name\": "
                          "\"...\"}, one object per class",
                          set->name);
    GFLI_TRY(gfli_alloc(context, count, sizeof *c->class_ids, "ids", &c->class_ids));
    GFLI_TRY(gfli_calloc(context, count, sizeof *c->parents, "classes", &c->parents));
    GFLI_TRY(gfli_alloc(context, count, sizeof *set->classes, "classes", &set->classes));
    GFLI_TRY(gfli_alloc(context, count, sizeof *set->class_ids, "classes", &set->class_ids));
    for (int i = 0; i < n; i++) {
        c->class_ids[i].id = c->classes[i].id;
        c->class_ids[i].index = i;
    }
    GFLI_TRY(gfli_coco_sort(c, c->class_ids, n, "categories"));
    for (int i = 0; i < n; i++) {
        set->classes[i].name = c->classes[c->class_ids[i].index].name;
        set->class_ids[i] = c->class_ids[i].id;
    }
    set->n_classes = n;
    GFLI_TRY(gfli_coco_find_parents(c));
    for (int i = 0; i < n; i++) c->class_ids[i].index = i;
    return GFL_OK;
}

/* ---- annotations ----------------------------------------------------------------------------- */

/* An annotation of an unlisted image or class. */
static gfl_status gfli_coco_stray(gfli_coco *c, const gfli_coco_annotation *r) {
    char name[GFLI_ID_TEXT + 32], id[GFLI_ID_TEXT];
    const bool image = r->a.image < 0;
    if (c->desc.skip_strays) {
        c->set->summary.n_strays++;
        return GFL_OK;
    }
    gfli_coco_name("annotation", "annotations", r->has_id, r->a.id, r->index, name);
    return gfli_coco_report(
        c, "%.400s:%ld:%ld: %s has %s %s, which is not among the %s", c->set->name, r->line,
        r->column, name, image ? "image_id" : "category_id",
        gfli_id_text(image ? r->image_id : r->class_id, id), image ? "images" : "categories");
}

/* To leave out some strays is one thing, to leave out everything another. */
static gfl_status gfli_coco_all_strays(gfli_coco *c) {
    const gfli_coco_annotation *r = &c->annotations[0];
    char ids[2][GFLI_ID_TEXT], first[2][GFLI_ID_TEXT];
    return gfli_error(
        c->context, GFL_E_DATA,
        "%s: not one of the %zu annotations is of a listed image and category: the first has "
        "image_id %s and category_id %s, while the images begin with %s and the categories with %s",
        c->set->name, c->n_annotations, gfli_id_text(r->image_id, ids[0]),
        gfli_id_text(r->class_id, ids[1]),
        c->set->n_images ? gfli_id_text(c->set->images[0].id, first[0]) : "none",
        gfli_id_text(c->set->class_ids[0], first[1]));
}

/* The image and label of every annotation; those of unlisted ones are marked by image -1. */
static gfl_status gfli_coco_resolve_references(gfli_coco *c) {
    gfl_dataset *set = c->set;
    for (size_t i = 0; i < c->n_annotations; i++) {
        gfli_coco_annotation *r = &c->annotations[i];
        bool mixed[2];
        int image = gfli_id_place_of_either(c->image_ids, set->n_images, r->image_id, &mixed[0]);
        int label = gfli_id_place_of_either(c->class_ids, set->n_classes, r->class_id, &mixed[1]);
        r->a.image = image < 0 ? -1 : c->image_ids[image].index;
        r->a.label = label < 0 ? -1 : c->class_ids[label].index;
        if (image >= 0 && label >= 0) {
            set->images[r->a.image].n_annotations++;
            set->n_annotations++;
            set->summary.n_mixed_ids += mixed[0] || mixed[1];
            continue;
        }
        GFLI_TRY(gfli_coco_stray(c, r));
        r->a.image = -1;
    }
    if (c->desc.skip_strays && c->n_annotations > 0 && set->n_annotations == 0)
        return gfli_coco_all_strays(c);
    return GFL_OK;
}

/* Annotations without an id get those after the highest, as long as there are any. */
static void gfli_coco_number(gfli_coco *c) {
    int64_t highest = 0;
    for (size_t i = 0; i < c->n_annotations; i++) {
        const gfli_coco_annotation *r = &c->annotations[i];
        c->set->summary.n_unnumbered += !r->has_id;
        if (r->has_id && !r->a.id.text && r->a.id.number > highest) highest = r->a.id.number;
    }
    if (highest > INT64_MAX - c->set->summary.n_unnumbered) highest = 0;
    for (size_t i = 0; i < c->n_annotations; i++)
        if (!c->annotations[i].has_id) c->annotations[i].a.id.number = ++highest;
}

/* ---- classes that nobody has ----------------------------------------------------------------- */

/* Which stay, in keep; how many. */
static int gfli_coco_keep_classes(gfli_coco *c, bool *keep) {
    gfl_dataset *set = c->set;
    gfl_dataset_summary *s = &set->summary;
    int n = 0;
    memset(keep, 0, (size_t)set->n_classes * sizeof *keep);
    for (size_t i = 0; i < c->n_annotations; i++)
        if (c->annotations[i].a.image >= 0) keep[c->annotations[i].a.label] = true;
    for (int k = 0; k < set->n_classes; k++) {
        s->n_parents += !keep[k] && c->parents[k];
        s->n_empty_classes += !keep[k] && !c->parents[k];
        keep[k] = keep[k] || (!c->parents[k] && !c->desc.drop_empty_classes);
        n += keep[k];
    }
    return n;
}

/* "a", "b" and 3 more. */
static void gfli_coco_list_dropped(const gfl_dataset *set, const bool *keep, char out[320]) {
    const int most = 5;
    size_t at = 0;
    int n = 0;
    for (int k = 0; k < set->n_classes; k++) {
        char name[50];
        if (keep[k] || n++ >= most) continue;
        gfli_quote(set->classes[k].name, name, sizeof name);
        at += (size_t)snprintf(out + at, 320 - at, "%s%s", n > 1 ? ", " : "", name);
    }
    if (n > most) snprintf(out + at, 320 - at, " and %d more", n - most);
}

/* Labels move up into the places of the classes that go. */
static void gfli_coco_relabel(gfli_coco *c, const bool *keep, int *label) {
    gfl_dataset *set = c->set;
    int n = 0;
    for (int k = 0; k < set->n_classes; k++) {
        label[k] = n;
        set->classes[n] = set->classes[k];
        set->class_ids[n] = set->class_ids[k];
        n += keep[k];
    }
    set->n_classes = n;
    for (size_t i = 0; i < c->n_annotations; i++)
        if (c->annotations[i].a.image >= 0)
            c->annotations[i].a.label = label[c->annotations[i].a.label];
}

static gfl_status gfli_coco_drop_from(gfli_coco *c, bool *keep, int *label) {
    gfl_dataset *set = c->set;
    const int n = gfli_coco_keep_classes(c, keep);
    char names[320];
    if (n == set->n_classes) return GFL_OK;
    if (n == 0)
        return gfli_error(c->context, GFL_E_DATA,
                          "%s: no annotation has any of the %d classes: there is nothing to keep",
                          set->name, set->n_classes);
    gfli_coco_list_dropped(set, keep, names);
    gfli_log(c->context, GFL_LOG_WARNING,
             "%.400s: these classes are left out, since no annotation has them%s: %s", set->name,
             c->desc.drop_empty_classes ? "" : " and they are only the supercategory of others",
             names);
    gfli_coco_relabel(c, keep, label);
    return GFL_OK;
}

static gfl_status gfli_coco_drop_classes(gfli_coco *c) {
    const size_t n = (size_t)c->set->n_classes;
    bool *keep = NULL;
    int *label = NULL;
    gfl_status status = gfli_alloc(c->context, n, sizeof *keep, "classes", &keep);
    if (status == GFL_OK) status = gfli_alloc(c->context, n, sizeof *label, "classes", &label);
    if (status == GFL_OK) status = gfli_coco_drop_from(c, keep, label);
    gfli_free(c->context, keep);
    gfli_free(c->context, label);
    return status;
}

/* ---- the data set ---------------------------------------------------------------------------- */

/* Annotations together by image, in file order: a counting sort. */
static gfl_status gfli_coco_gather(gfli_coco *c) {
    gfl_dataset *set = c->set;
    GFLI_TRY(gfli_alloc(c->context, (size_t)set->n_annotations, sizeof *set->annotations,
                        "annotations", &set->annotations));
    gfl_annotation *place = set->annotations;
    for (int i = 0; i < set->n_images; i++) {
        gfl_image_info *image = &set->images[i];
        image->annotations = place;
        place += image->n_annotations;
        image->n_annotations = 0;
    }
    for (size_t i = 0; i < c->n_annotations; i++) {
        const gfli_coco_annotation *r = &c->annotations[i];
        if (r->a.image < 0) continue;
        gfl_image_info *image = &set->images[r->a.image];
        set->annotations[(image->annotations - set->annotations) + image->n_annotations++] = r->a;
        set->summary.n_missing_area += !r->has_area;
        set->summary.n_missing_iscrowd += !r->has_crowd;
        set->summary.n_from_polygons += r->from_polygons;
    }
    return GFL_OK;
}

static gfl_status gfli_coco_count_ids(gfli_coco *c) {
    gfl_dataset *set = c->set;
    gfli_id_entry *ids;
    int n = set->n_annotations;
    GFLI_TRY(gfli_alloc(c->context, (size_t)n, sizeof *ids, "ids", &ids));
    for (int i = 0; i < n; i++) {
        ids[i].id = set->annotations[i].id;
        ids[i].index = i;
        set->summary.n_zero_ids += !ids[i].id.text && ids[i].id.number == 0;
    }
    gfl_status status = gfli_id_sort(c->context, ids, n);
    for (int i = 1; i < n && status == GFL_OK; i++)
        set->summary.n_duplicate_ids += gfli_id_compare(ids[i - 1].id, ids[i].id) == 0;
    gfli_free(c->context, ids);
    return status;
}

static gfl_status gfli_coco_compare_names(gfli_coco *c, const gfli_id_entry *names) {
    gfl_dataset *set = c->set;
    for (int i = 1; i < set->n_classes; i++) {
        if (gfli_id_compare(names[i - 1].id, names[i].id) != 0) continue;
        set->twins[0] = names[i - 1].index;
        set->twins[1] = names[i].index;
        set->summary.n_duplicate_names++;
        if (!c->desc.found) continue;
        gfli_dataset_check_names(c->context, set);
        GFLI_TRY(gfli_coco_report(c, "%s", c->context->error));
    }
    return GFL_OK;
}

/* Two classes of one name can be read and compared by their ids, but not be trained. */
static gfl_status gfli_coco_count_names(gfli_coco *c) {
    gfli_id_entry *names;
    GFLI_TRY(
        gfli_alloc(c->context, (size_t)c->set->n_classes, sizeof *names, "class names", &names));
    gfl_status status = gfli_coco_sort_names(c, names);
    if (status == GFL_OK) status = gfli_coco_compare_names(c, names);
    gfli_free(c->context, names);
    return status;
}

/* Ids of classes as numbers; with words among them numbers could be taken twice, so then none is
 * kept. */
static void gfli_coco_number_classes(gfl_dataset *set) {
    bool words = false;
    for (int k = 0; k < set->n_classes; k++) {
        gfl_id id = set->class_ids[k];
        if (id.text && !gfli_id_other(set->class_ids[k], NULL, &id)) words = true;
        set->classes[k].id = id.number;
    }
    for (int k = 0; words && k < set->n_classes; k++) set->classes[k].id = k + 1;
}

static void gfli_coco_summarise(gfl_dataset *set) {
    gfl_dataset_summary *s = &set->summary;
    s->n_images = set->n_images;
    s->n_classes = set->n_classes;
    s->n_annotations = set->n_annotations;
    for (int i = 0; i < set->n_images; i++) s->n_empty_images += set->images[i].n_annotations == 0;
    for (int i = 0; i < set->n_annotations; i++) {
        gfl_annotation *a = &set->annotations[i];
        const gfl_image_info *image = &set->images[a->image];
        a->use = gfli_annotation_use_of(image, a);
        s->n_crowd += a->crowd;
        if (a->use == GFL_ANNOTATION_SMALL || a->use == GFL_ANNOTATION_NO_AREA)
            s->n_degenerate++;
        else if (a->use == GFL_ANNOTATION_OUTSIDE)
            s->n_outside++;
        else if (image->width > 0 && image->height > 0)
            s->n_partly_outside += a->x < -1 || a->y < -1 || a->x + a->w > image->width + 1 ||
                                   a->y + a->h > image->height + 1;
    }
}

gfl_status gfli_coco_resolve(gfli_coco *c) {
    GFLI_TRY(gfli_coco_resolve_images(c));
    GFLI_TRY(gfli_coco_resolve_classes(c));
    GFLI_TRY(gfli_coco_resolve_references(c));
    gfli_coco_number(c);
    GFLI_TRY(gfli_coco_drop_classes(c));
    GFLI_TRY(gfli_coco_gather(c));
    GFLI_TRY(gfli_coco_count_ids(c));
    GFLI_TRY(gfli_coco_count_names(c));
    gfli_coco_number_classes(c->set);
    gfli_coco_summarise(c->set);
    return GFL_OK;
}

/* ===============================================================================================
 * src/data/arrays.c - a data set from what a program has in memory
 * ============================================================================================ */

/* In what follows the program's arrays are taken for a file that was read: coco_resolve.c does with
 * them what it does with a file. */

static gfl_status gfli_arrays_text(gfl_dataset *set, const char **text) {
    return *text ? gfli_dataset_text(set, *text, strlen(*text), text) : GFL_OK;
}

static bool gfli_arrays_utf8(const char *text) {
    return gfl_text_valid(text, strlen(text)) == strlen(text);
}

/* Results hold ids, and are read as JSON. */
static gfl_status gfli_arrays_id(gfli_coco *c, int image, gfl_id *id) {
    GFLI_DEMAND(c->context, !id->text || gfli_arrays_utf8(id->text),
                "gfl_dataset_create: images[%d]: an id is not UTF-8", image);
    return gfli_arrays_text(c->set, &id->text);
}

static gfl_status gfli_arrays_classes(gfli_coco *c, const gfl_class *classes, int n) {
    bool numbered = n == 1;
    GFLI_TRY(gfli_calloc(c->context, (size_t)n, sizeof *c->classes, "classes", &c->classes));
    for (int k = 0; k < n; k++) numbered = numbered || classes[k].id != 0;
    for (int k = 0; k < n; k++) {
        gfli_coco_class *r = &c->classes[k];
        r->name = classes[k].name;
        r->id.number = numbered ? classes[k].id : k + 1;
        GFLI_DEMAND(c->context, r->name, "gfl_dataset_create: classes[%d] has no name", k);
        GFLI_DEMAND(c->context, gfli_arrays_utf8(r->name),
                    "gfl_dataset_create: the name of classes[%d] is not UTF-8", k);
        GFLI_DEMAND(c->context, k == 0 || c->classes[k - 1].id.number < r->id.number,
                    "gfl_dataset_create: classes[%d] has the id %lld, but ids must ascend", k,
                    (long long)r->id.number);
        GFLI_TRY(gfli_arrays_text(c->set, &r->name));
    }
    c->n_classes = (size_t)n;
    return GFL_OK;
}

static bool gfli_arrays_number(double v) {
    return (fabs)(v) <= GFLI_COCO_HUGE;
}

static gfl_status gfli_arrays_annotation(gfli_coco *c, const gfl_image_info *image, int index,
                                         const gfl_annotation *a) {
    char id[GFLI_ID_TEXT];
    gfli_coco_annotation *r = &c->annotations[c->n_annotations];
    if (!gfli_arrays_number(a->x) || !gfli_arrays_number(a->y) || !gfli_arrays_number(a->w) ||
        !gfli_arrays_number(a->h) || !gfli_is_finite(a->area))
        return gfli_coco_report(c,
                                "%s: image %s: annotations[%d] has the box %g, %g, %g, %g and the "
                                "area %g; numbers of pixels are wanted",
                                c->set->name, gfli_id_text(image->id, id), index, a->x, a->y, a->w,
                                a->h, a->area);
    if (a->label < 0 || a->label >= (int)c->n_classes)
        return gfli_coco_report(
            c, "%s: image %s: annotations[%d] has the label %d; there are the labels 0..%d",
            c->set->name, gfli_id_text(image->id, id), index, a->label, (int)c->n_classes - 1);
    memset(r, 0, sizeof *r);
    r->a = *a;
    r->a.crowd = a->crowd != 0;
    r->a.ignore = a->ignore != 0;
    if (!(a->area > 0 || a->area < 0)) r->a.area = a->w * a->h;
    r->image_id = image->id;
    r->class_id = c->classes[a->label].id;
    r->index = index;
    r->has_id = a->id.text || a->id.number != 0;
    r->has_area = r->has_crowd = true;
    c->n_annotations++;
    return gfli_arrays_id(c, (int)(image - c->set->images), &r->a.id);
}

/* Image i of the set, without annotations. */
static gfl_status gfli_arrays_image(gfli_coco *c, const gfl_image_info *from, int i,
                                    bool numbered) {
    gfl_image_info *image = &c->set->images[i];
    const double most = GFLI_COCO_HUGE;
    GFLI_DEMAND(c->context, from->n_annotations >= 0 && (from->annotations || !from->n_annotations),
                "gfl_dataset_create: images[%d] has %d annotations at %s", i, from->n_annotations,
                from->annotations ? "a place" : "NULL");
    GFLI_DEMAND(c->context,
                from->width >= 0 && from->height >= 0 && from->width <= most &&
                    from->height <= most,
                "gfl_dataset_create: images[%d] is %d x %d pixels", i, from->width, from->height);
    memset(image, 0, sizeof *image);
    image->width = from->width;
    image->height = from->height;
    image->file_name = from->file_name ? from->file_name : "";
    image->id = from->id;
    if (!numbered) image->id.number = i + 1;
    GFLI_TRY(gfli_arrays_text(c->set, &image->file_name));
    return gfli_arrays_id(c, i, &image->id);
}

static gfl_status gfli_arrays_images(gfli_coco *c, const gfl_image_info *images, int n) {
    bool numbered = n == 1;
    int64_t most = 0;
    GFLI_TRY(gfli_alloc(c->context, (size_t)n, sizeof *images, "images", &c->set->images));
    for (int i = 0; i < n; i++)
        numbered = numbered || images[i].id.text || images[i].id.number != 0;
    for (int i = 0; i < n; i++) {
        GFLI_TRY(gfli_arrays_image(c, &images[i], i, numbered));
        most += images[i].n_annotations;
    }
    GFLI_DEMAND(c->context, most <= INT_MAX / 2, "gfl_dataset_create: there are %lld annotations",
                (long long)most);
    GFLI_TRY(gfli_alloc(c->context, (size_t)most, sizeof *c->annotations, "annotations",
                        &c->annotations));
    c->n_images = (size_t)n;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < images[i].n_annotations; k++)
            GFLI_TRY(gfli_arrays_annotation(c, &c->set->images[i], k, &images[i].annotations[k]));
    return GFL_OK;
}

gfl_status gfl_dataset_create(gfl_context *context, const gfl_class *classes, int n_classes,
                              const gfl_image_info *images, int n_images,
                              const gfl_dataset_desc *desc, gfl_dataset **out) {
    gfli_coco c;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, classes);
    GFLI_NOT_NULL(context, out);
    GFLI_DEMAND(context, n_classes >= 1 && n_classes <= GFL_MAX_CLASSES,
                "gfl_dataset_create: there are %d classes; 1..%d are allowed", n_classes,
                GFL_MAX_CLASSES);
    GFLI_DEMAND(context, n_images >= 0 && n_images <= INT_MAX / 2 && (images || n_images == 0),
                "gfl_dataset_create: there are %d images at %s", n_images,
                images ? "a place" : "NULL");
    GFLI_TRY(gfli_coco_begin(&c, context, "annotations in arrays", false, desc));
    gfl_status status = gfli_arrays_classes(&c, classes, n_classes);
    if (status == GFL_OK) status = gfli_arrays_images(&c, images, n_images);
    return gfli_coco_finish(&c, status, out);
}

/* ===============================================================================================
 * src/data/dataset.c - gfl_dataset: life, access, summary
 * ============================================================================================ */

/* ---- life ------------------------------------------------------------------------------------ */

/* Many small texts that live as long as the data set. */
struct gfli_text_block {
    gfli_text_block *next;
    size_t used, size;
    char *bytes;
};

gfl_status gfli_dataset_text(gfl_dataset *set, const char *text, size_t length, const char **out) {
    gfli_text_block *block = set->texts;
    *out = NULL;
    if (!block || block->size - block->used <= length) {
        size_t size = length < 32768 ? 65536 : length + 1;
        GFLI_TRY(gfli_alloc(set->context, 1, sizeof *block, "names", &block));
        gfl_status status = gfli_alloc(set->context, size, 1, "names", &block->bytes);
        if (status != GFL_OK) {
            gfli_free(set->context, block);
            return status;
        }
        block->used = 0;
        block->size = size;
        block->next = set->texts;
        set->texts = block;
    }
    char *copy = block->bytes + block->used;
    memcpy(copy, text, length);
    copy[length] = 0;
    block->used += length + 1;
    *out = copy;
    return GFL_OK;
}

void gfl_dataset_destroy(gfl_dataset *dataset) {
    if (!dataset) return;
    gfl_context *context = dataset->context;
    while (dataset->texts) {
        gfli_text_block *block = dataset->texts;
        dataset->texts = block->next;
        gfli_free(context, block->bytes);
        gfli_free(context, block);
    }
    gfli_free(context, dataset->name);
    gfli_free(context, dataset->image_dir);
    gfli_free(context, dataset->images);
    gfli_free(context, dataset->annotations);
    gfli_free(context, dataset->classes);
    gfli_free(context, dataset->class_ids);
    gfli_free(context, dataset);
}

/* ---- access ---------------------------------------------------------------------------------- */

static bool gfli_is_outside(const gfl_image_info *image, const gfl_annotation *a) {
    if (image->width == 0 || image->height == 0) return false;
    double w = (fmin)(a->x + a->w, image->width) - (fmax)(a->x, 0);
    double h = (fmin)(a->y + a->h, image->height) - (fmax)(a->y, 0);
    return w <= 0 || h <= 0;
}

gfl_annotation_use gfli_annotation_use_of(const gfl_image_info *image, const gfl_annotation *a) {
    return a->w < 1 || a->h < 1        ? GFL_ANNOTATION_SMALL
           : !(a->area > 0)            ? GFL_ANNOTATION_NO_AREA
           : gfli_is_outside(image, a) ? GFL_ANNOTATION_OUTSIDE
           : a->crowd                  ? GFL_ANNOTATION_CROWD
           : a->ignore                 ? GFL_ANNOTATION_IGNORED
                                       : GFL_ANNOTATION_TRAINED;
}

void gfl_dataset_get_summary(const gfl_dataset *dataset, gfl_dataset_summary *out) {
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (dataset) *out = dataset->summary;
}

int gfl_dataset_count_images(const gfl_dataset *dataset) {
    return dataset ? dataset->n_images : 0;
}

int gfl_dataset_count_classes(const gfl_dataset *dataset) {
    return dataset ? dataset->n_classes : 0;
}

const gfl_class *gfl_dataset_get_classes(const gfl_dataset *dataset) {
    return dataset ? dataset->classes : NULL;
}

gfl_status gfl_dataset_get_image(const gfl_dataset *dataset, int image, gfl_image_info *out) {
    if (!dataset || !out) return GFL_E_ARG;
    memset(out, 0, sizeof *out);
    /* Without a text: the data set's context belongs to another thread, perhaps. */
    if (image < 0 || image >= dataset->n_images) return GFL_E_ARG;
    *out = dataset->images[image];
    return GFL_OK;
}

gfl_status gfli_dataset_check_names(gfl_context *context, const gfl_dataset *dataset) {
    char a[GFLI_ID_TEXT], b[GFLI_ID_TEXT], name[GFLI_QUOTED];
    const int *twins = dataset->twins;
    if (!dataset->summary.n_duplicate_names) return GFL_OK;
    return gfli_error(context, GFL_E_DATA,
                      "%.400s: the categories %s and %s are both named %s, and classes are told "
                      "apart by their names: rename one, or give the boxes of both "
                      "one id and remove the other",
                      dataset->name, gfli_id_text(dataset->class_ids[twins[0]], a),
                      gfli_id_text(dataset->class_ids[twins[1]], b),
                      gfli_quote(dataset->classes[twins[0]].name, name, sizeof name));
}

/* The path of an image's file; a file_name from the root of the file system stays as it is. */
static gfl_status gfli_dataset_path(gfl_context *context, const gfl_dataset *dataset,
                                    const char *file_name, char **out) {
    size_t dir = gfli_os_is_absolute(file_name) ? 0 : strlen(dataset->image_dir);
    size_t name = strlen(file_name);
    bool slash = dir > 0 && gfli_os_folder_length(dataset->image_dir) < dir;
    GFLI_TRY(gfli_alloc(context, dir + name + 2, 1, "a file name", out));
    memcpy(*out, dataset->image_dir, dir);
    if (slash) (*out)[dir] = '/';
    memcpy(*out + dir + slash, file_name, name + 1);
    return GFL_OK;
}

static gfl_status gfli_dataset_call(gfl_context *context, const gfl_dataset *dataset, int image,
                                    gfl_pixels *out) {
    context->error[0] = 0;
    gfl_status status = dataset->read_image(dataset->user, context, image, out);
    char id[GFLI_ID_TEXT];
    gfli_id_text(dataset->images[image].id, id);
    if (status == GFL_OK && out->rgb && out->width >= 1 && out->height >= 1 &&
        out->width <= GFL_MAX_SIDE && out->height <= GFL_MAX_SIDE)
        return GFL_OK;
    int width = out->width, height = out->height;
    gfl_pixels_free(context, out);
    if (status == GFL_OK)
        return gfli_error(context, GFL_E_ARG,
                          "read_image gave no pixels or an impossible size, %d x %d, for image %s",
                          width, height, id);
    if (context->error[0]) return status;
    return gfli_error(context, status, "read_image could not read image %s", id);
}

/* Boxes that were made for another size, or before the picture was turned upright, would give
 * wrong training and wrong numbers in silence.  orientation is that of EXIF; 0 is unknown. */
static gfl_status gfli_dataset_fits(gfl_context *context, const gfl_dataset *dataset, int image,
                                    int width, int height, int orientation) {
    const gfl_image_info *info = &dataset->images[image];
    if (dataset->trust_boxes || info->width == 0 || info->height == 0 ||
        (info->width == width && info->height == height))
        return GFL_OK;
    const char *why = "are the boxes those of a copy of another size?";
    char id[GFLI_ID_TEXT];
    if (info->width == height && info->height == width)
        why = orientation >= 5 ? "the annotations were made without its EXIF rotation; turn the "
                                 "pixels of the file, or redo the boxes"
                               : "width and height are exchanged";
    return gfli_error(context, GFL_E_DATA,
                      "image %s, %s: the picture has %d x %d pixels%s, but its annotations say "
                      "%d x %d: %s",
                      gfli_id_text(info->id, id), info->file_name, width, height,
                      orientation >= 5 ? " when shown upright" : "", info->width, info->height,
                      why);
}

static int gfli_hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The name in place: %20 and the like decoded, or \ made /. */
static void gfli_name_decode(char *name) {
    char *out = name;
    for (const char *p = name; *p; out++) {
        int high = p[0] == '%' ? gfli_hex_digit(p[1]) : -1;
        int low = high >= 0 ? gfli_hex_digit(p[2]) : -1;
        *out = low >= 0 && high + low > 0 ? (char)(16 * high + low) : *p;
        p += low >= 0 && high + low > 0 ? 3 : 1;
    }
    *out = 0;
}

static void gfli_name_slashes(char *name) {
    for (; *name; name++)
        if (*name == '\\') *name = '/';
}

/* Windows and annotation servers write names that other systems do not find.  Nothing is guessed:
 * the error gains the name under which there is a file. */
static gfl_status gfli_dataset_hint(gfl_context *context, const gfl_dataset *dataset,
                                    const char *file_name, gfl_status status) {
    char *name, *path, shown[GFLI_QUOTED], text[sizeof context->error];
    memcpy(text, context->error, sizeof text);
    for (int kind = 0; kind < 4; kind++) {
        GFLI_TRY(gfli_strdup(context, file_name, &name));
        if (kind != 1) gfli_name_slashes(name);
        if (kind != 0) gfli_name_decode(name);
        const char *tried = kind == 3 && strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
        gfl_status made = gfli_dataset_path(context, dataset, tried, &path);
        bool there = made == GFL_OK && gfli_os_look(path).kind == GFLI_OS_FILE;
        gfli_quote(tried, shown, sizeof shown);
        gfli_free(context, name);
        GFLI_TRY(made);
        gfli_free(context, path);
        if (there)
            return gfli_error(context, status,
                              "%.800s; but there is a file %s: name it so in the annotations", text,
                              shown);
    }
    return status;
}

static gfl_status gfli_dataset_open(gfl_context *context, const gfl_dataset *dataset, int image,
                                    gfl_pixels *out, gfli_image_file *facts) {
    const gfl_image_info *info = &dataset->images[image];
    char *path, id[GFLI_ID_TEXT];
    if (!info->file_name[0])
        return gfli_error(context, GFL_E_DATA, "%s: image %s has no file_name", dataset->name,
                          gfli_id_text(info->id, id));
    GFLI_TRY(gfli_dataset_path(context, dataset, info->file_name, &path));
    gfl_status status = gfli_image_load(context, path, out, facts);
    bool absent = status == GFL_E_IO && gfli_os_look(path).kind == GFLI_OS_NOTHING;
    gfli_free(context, path);
    return absent ? gfli_dataset_hint(context, dataset, info->file_name, status) : status;
}

gfl_status gfl_dataset_read(gfl_context *context, const gfl_dataset *dataset, int image,
                            gfl_pixels *out) {
    gfli_image_file facts;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, out);
    memset(out, 0, sizeof *out);
    memset(&facts, 0, sizeof facts);
    GFLI_NOT_NULL(context, dataset);
    if (image < 0 || image >= dataset->n_images)
        return gfli_error(context, GFL_E_ARG, "there is no image %d: the data set has %d", image,
                          dataset->n_images);
    if (dataset->read_image)
        GFLI_TRY(gfli_dataset_call(context, dataset, image, out));
    else
        GFLI_TRY(gfli_dataset_open(context, dataset, image, out, &facts));
    gfl_status status =
        gfli_dataset_fits(context, dataset, image, out->width, out->height, facts.orientation);
    if (status != GFL_OK) gfl_pixels_free(context, out);
    return status;
}

/* ---- a look at every file -------------------------------------------------------------------- */

enum { GFLI_CHECK_CHUNK = 16 }; /* images for each thread, from one report to the next */

typedef struct gfli_check_result {
    gfl_status status;
    char text[1024];
} gfli_check_result;

typedef struct gfli_check {
    gfl_context *context;
    gfl_dataset *dataset;
    gfl_dataset_check_opts opts;
    gfl_context **contexts; /* [n_threads] */
    gfli_check_result *results;
    int first, n_unreadable;
    char text[1024]; /* of the first that cannot be read */
} gfli_check;

static gfl_status gfli_check_picture(gfl_context *context, const gfl_dataset *dataset, int image) {
    gfl_pixels pixels;
    gfli_image_file facts;
    if (dataset->read_image) {
        GFLI_TRY(gfl_dataset_read(context, dataset, image, &pixels));
        gfl_pixels_free(context, &pixels);
        return GFL_OK;
    }
    GFLI_TRY(gfli_dataset_open(context, dataset, image, NULL, &facts));
    bool swap = facts.orientation >= 5;
    return gfli_dataset_fits(context, dataset, image, swap ? facts.height : facts.width,
                             swap ? facts.width : facts.height, facts.orientation);
}

bool gfli_is_unreadable(gfl_status status) {
    return status == GFL_E_IO || status == GFL_E_FORMAT || status == GFL_E_DATA ||
           status == GFL_E_UNSUPPORTED;
}

static void gfli_check_task(void *p, int task, int slot) {
    gfli_check *c = (gfli_check *)p;
    gfli_check_result *r = &c->results[task];
    gfl_context *context = c->contexts[slot];
    r->status = gfli_check_picture(context, c->dataset, c->first + task);
    if (r->status != GFL_OK) memcpy(r->text, context->error, sizeof r->text);
}

/* What the images of a chunk have come to, in their order. */
static gfl_status gfli_check_report(gfli_check *c, int n) {
    for (int i = 0; i < n; i++) {
        const gfli_check_result *r = &c->results[i];
        const bool bad = gfli_is_unreadable(r->status);
        c->dataset->images[c->first + i].unreadable = c->dataset->skip_unreadable && bad;
        if (r->status == GFL_OK) continue;
        if (!bad) return gfli_error(c->context, r->status, "%s", r->text);
        if (c->n_unreadable++ == 0) memcpy(c->text, r->text, sizeof c->text);
        if (c->opts.found) c->opts.found(c->opts.user, c->first + i, r->status, r->text);
    }
    if (c->opts.progress && c->opts.progress(c->opts.user, c->first + n, c->dataset->n_images))
        return gfli_error(c->context, GFL_E_STOPPED, "the check of the images was stopped");
    return GFL_OK;
}

static gfl_status gfli_check_all(gfli_check *c) {
    gfl_context *context = c->context;
    int chunk = GFLI_CHECK_CHUNK * context->n_threads;
    GFLI_TRY(gfli_calloc(context, (size_t)context->n_threads, sizeof *c->contexts, "threads",
                         &c->contexts));
    GFLI_TRY(
        gfli_alloc(context, (size_t)chunk, sizeof *c->results, "a check's results", &c->results));
    for (int i = 0; i < context->n_threads; i++)
        GFLI_TRY(gfli_context_child(context, &c->contexts[i]));
    for (c->first = 0; c->first < c->dataset->n_images; c->first += chunk) {
        int n = gfli_min(chunk, c->dataset->n_images - c->first);
        gfli_parallel_for(context, n, gfli_check_task, c);
        GFLI_TRY(gfli_check_report(c, n));
    }
    if (c->n_unreadable == 0 || c->dataset->skip_unreadable) return GFL_OK;
    return gfli_error(context, GFL_E_DATA,
                      "%.200s: %d of %d images cannot be read; the first: %.700s", c->dataset->name,
                      c->n_unreadable, c->dataset->n_images, c->text);
}

gfl_status gfl_dataset_check(gfl_context *context, gfl_dataset *dataset,
                             const gfl_dataset_check_opts *opts, int *n_unreadable) {
    gfli_check *c;
    if (n_unreadable) *n_unreadable = 0;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, dataset);
    GFLI_TRY(gfli_calloc(context, 1, sizeof *c, "a check", &c));
    c->context = context;
    c->dataset = dataset;
    if (opts) c->opts = *opts;
    gfl_status status = gfli_check_all(c);
    if (n_unreadable) *n_unreadable = c->n_unreadable;
    for (int i = 0; c->contexts && i < context->n_threads; i++) gfl_context_destroy(c->contexts[i]);
    gfli_free(context, c->contexts);
    gfli_free(context, c->results);
    gfli_free(context, c);
    return status;
}

/* ===============================================================================================
 * src/eval/match.c - a detection against the ground truth of its image, all thresholds at once
 * ============================================================================================ */

/* pycocotools matches the detections of an image once for each of 4 ranges of areas and 10 IoU
 * thresholds.  Here one pass does all 40 at once: a set of pairs (area, threshold) is the bits of a
 * number, bit 10 * area + threshold.  For each ground truth, `taken` holds the pairs at which an
 * earlier detection has it.  A detection then looks for the best ground truth, takes it at all
 * pairs that this one can still be had at, and looks for the next best at the pairs that are
 * left. */

static const double gfli_eval_ious[GFLI_EVAL_T] = {
    0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999, 0.95};

/* Both ends belong to a range, so an area of 1024 is small and medium. */
uint64_t gfli_eval_outside(double area) {
    static const double ranges[GFLI_EVAL_A][2] = {{0, 1e10}, {0, 1024}, {1024, 9216}, {9216, 1e10}};
    uint64_t outside = 0;
    for (int a = 0; a < GFLI_EVAL_A; a++)
        if (area < ranges[a][0] || area > ranges[a][1])
            outside |= (uint64_t)0x3FF << (a * GFLI_EVAL_T);
    return outside;
}

/* With a crowd any part of the region is a match: the union is the detection itself. */
static double gfli_eval_iou(const gfli_eval_truth *t, const gfli_eval_box *b) {
    double bx2 = b->w + b->x, by2 = b->h + b->y;
    double w = (bx2 < t->x2 ? bx2 : t->x2) - (b->x > t->x1 ? b->x : t->x1);
    if (!(w > 0)) return 0;
    double h = (by2 < t->y2 ? by2 : t->y2) - (b->y > t->y1 ? b->y : t->y1);
    if (!(h > 0)) return 0;
    double area = b->w * b->h, inter = w * h;
    return inter / (t->crowd ? area : area + t->area - inter);
}

/* The thresholds an IoU reaches, as the lowest ten bits. */
static uint32_t gfli_eval_reached(double iou) {
    uint32_t mask = 0;
    for (int t = 0; t < GFLI_EVAL_T && iou >= gfli_eval_ious[t]; t++) mask |= (uint32_t)1 << t;
    return mask;
}

/* Ground truth that reaches the lowest threshold, in its order. */
static int gfli_eval_candidates(const gfli_eval_truth *truths, const gfli_eval_group *group,
                                const gfli_eval_box *box, gfli_eval_candidate *out) {
    int n = 0;
    for (int g = group->begin; g < group->end; g++) {
        double iou = gfli_eval_iou(&truths[g], box);
        if (!(iou >= gfli_eval_ious[0])) continue;
        out[n].iou = iou;
        out[n].truth = g;
        out[n++].reached = gfli_eval_reached(iou);
    }
    return n;
}

/* The pairs of area and threshold, none of them found yet, at which a detection may have this
 * ground truth: those where it is free, and ignored or not as asked. */
static uint64_t gfli_eval_offer(const gfli_eval_candidate *c, const gfli_eval_truth *t,
                                bool ignored, uint64_t found) {
    const uint64_t row = c->reached, twice = row | row << GFLI_EVAL_T;
    return (twice | twice << (2 * GFLI_EVAL_T)) & (ignored ? t->ignored : ~t->ignored) &
           (t->crowd ? ~found : ~(t->taken | found));
}

/* The candidate of the highest IoU that has something to offer, of equal ones the later, as
 * pycocotools' loop chooses; -1: none has. */
static int gfli_eval_best(const gfli_eval_candidate *candidates, int n,
                          const gfli_eval_truth *truths, bool ignored, uint64_t found) {
    int best = -1;
    for (int i = 0; i < n; i++) {
        const gfli_eval_candidate *c = &candidates[i];
        if (best >= 0 && c->iou < candidates[best].iou) continue;
        if (gfli_eval_offer(c, &truths[c->truth], ignored, found)) best = i;
    }
    return best;
}

/* Each choice takes what is offered, at least one of the 40 pairs, so however many candidates there
 * are they are looked through 42 times at most.  Ignored ones come second, since a real match is
 * preferred. */
void gfli_eval_match(gfli_eval_truth *truths, const gfli_eval_group *group,
                     const gfli_eval_box *box, gfli_eval_candidate *scratch,
                     gfli_eval_outcome *out) {
    const uint64_t all = ((uint64_t)1 << (GFLI_EVAL_A * GFLI_EVAL_T)) - 1;
    uint64_t found = 0, matched = 0, ignored = 0;
    const int n = gfli_eval_candidates(truths, group, box, scratch);
    for (int second = 0; second < 2 && n > 0; second++) {
        int best;
        while ((best = gfli_eval_best(scratch, n, truths, second != 0, found)) >= 0) {
            gfli_eval_truth *t = &truths[scratch[best].truth];
            const uint64_t take = gfli_eval_offer(&scratch[best], t, second != 0, found);
            found |= take;
            t->taken |= take;
            if (!t->uncounted) matched |= take;
            if (second) ignored |= take;
        }
    }
    ignored |= ~matched & gfli_eval_outside(box->w * box->h);
    out->hit = matched & ~ignored;
    out->miss = all & ~matched & ~ignored;
}

/* ===============================================================================================
 * src/eval/coco_eval.c - COCO's box evaluation: accumulate and summarise
 * ============================================================================================ */

/* The numbers of pycocotools 2.0.11 (spec 9), bit by bit where they are not means.  A run has these
 * steps; the third is done for each class, on any thread.
 *
 *   1. Sort the results by class.
 *   2. Sort the ground truth by class and image.
 *   3. Sort the results of the class by score; image and place break ties.  That order contains the
 *      order by score inside every image, so one walk through it matches the results of all images
 *      (match.c).  What is left is, per area and threshold, whether each result is a hit or a miss.
 *   4. For each max_dets from the largest down, leave out the results of each image that are too
 *      many, draw the curve of precision over recall for each area and threshold, and add up the
 *      precision at 101 recalls.
 *   5. The twelve numbers are means of these sums over classes with ground truth. */

/* ---- sorting --------------------------------------------------------------------------------- */

uint64_t gfli_eval_score_key(double score) {
    uint64_t bits;
    if (score == 0) score = 0; /* -0 ties with 0 */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 63 ? bits : ~(bits | (uint64_t)1 << 63);
}

static void gfli_eval_insertion_sort(gfli_eval_item *items, size_t n) {
    for (size_t i = 1; i < n; i++) {
        gfli_eval_item item = items[i];
        size_t at = i;
        for (; at > 0 && items[at - 1].key > item.key; at--) items[at] = items[at - 1];
        items[at] = item;
    }
}

/* Byte by byte from the lowest; bytes that are the same everywhere, as most are of scores that
 * were float and of small numbers, cost nothing but their count. */
static void gfli_eval_radix_sort(gfli_eval_item *items, gfli_eval_item *scratch, size_t n) {
    size_t counts[8][256];
    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < n; i++)
        for (int b = 0; b < 8; b++) counts[b][items[i].key >> (8 * b) & 255]++;
    gfli_eval_item *from = items, *to = scratch;
    for (int b = 0; b < 8; b++) {
        size_t *count = counts[b], sum = 0;
        if (count[from[0].key >> (8 * b) & 255] == n) continue;
        for (int v = 0; v < 256; v++) {
            size_t c = count[v];
            count[v] = sum;
            sum += c;
        }
        for (size_t i = 0; i < n; i++) to[count[from[i].key >> (8 * b) & 255]++] = from[i];
        gfli_eval_item *swap = from;
        from = to;
        to = swap;
    }
    if (from != items) memcpy(items, from, n * sizeof *items);
}

void gfli_eval_sort(gfli_eval_item *items, gfli_eval_item *scratch, size_t n) {
    size_t i = 1;
    while (i < n && items[i - 1].key <= items[i].key) i++;
    if (i >= n) return;
    if (n <= 64)
        gfli_eval_insertion_sort(items, n);
    else
        gfli_eval_radix_sort(items, scratch, n);
}

/* ---- one run --------------------------------------------------------------------------------- */

typedef struct gfli_eval_curve {
    double precision; /* the highest from this true positive on */
    double score;
} gfli_eval_curve;

typedef struct gfli_eval_run {
    gfl_evaluator *evaluator;
    gfli_eval_item *items, *scratch; /* results by class */
    size_t *first_item;              /* [K + 1] */
    gfli_eval_truth *truths;         /* by class, then image */
    int *first_truth;                /* [K + 1] */
    gfli_eval_outcome *outcomes;     /* [n_boxes], by class */
    /* Each class works in a part of its own, so memory does not depend on the number of threads. */
    gfli_eval_group *groups;             /* [n_boxes] at most, from first_item */
    gfli_eval_candidate *candidates;     /* [n_truths], from first_truth */
    gfli_eval_curve *curves;             /* [n_truths + K], from first_truth + k */
    double *precision, *recall, *scores; /* the whole arrays, or NULL */
} gfli_eval_run;

static void gfli_eval_release(gfli_eval_run *run) {
    gfl_context *context = run->evaluator->context;
    gfli_free(context, run->items);
    gfli_free(context, run->scratch);
    gfli_free(context, run->first_item);
    gfli_free(context, run->truths);
    gfli_free(context, run->first_truth);
    gfli_free(context, run->outcomes);
    gfli_free(context, run->groups);
    gfli_free(context, run->candidates);
    gfli_free(context, run->curves);
}

/* Results of evaluated images and classes, by class; with ignore_classes the order by class
 * remains, because it decides ties inside an image. */
static gfl_status gfli_eval_sort_results(gfli_eval_run *run) {
    const gfl_evaluator *e = run->evaluator;
    const int k = gfli_eval_k(e);
    gfl_context *context = e->context;
    GFLI_TRY(gfli_alloc(context, e->n_boxes, sizeof *run->items, "results", &run->items));
    GFLI_TRY(gfli_alloc(context, e->n_boxes, sizeof *run->scratch, "results", &run->scratch));
    GFLI_TRY(gfli_alloc(context, e->n_boxes, sizeof *run->outcomes, "results", &run->outcomes));
    GFLI_TRY(
        gfli_calloc(context, (size_t)k + 1, sizeof *run->first_item, "classes", &run->first_item));
    size_t n = 0;
    for (size_t i = 0; i < e->n_boxes; i++) {
        const gfli_eval_box *box = &e->boxes[i];
        int slot = e->class_slot[box->label];
        if (slot < 0 || e->image_rank[box->image] < 0) continue;
        run->items[n].key = (uint64_t)slot;
        run->items[n++].index = (uint32_t)i;
        run->first_item[e->ignore_classes ? 1 : slot + 1]++;
    }
    for (int c = 0; c < k; c++) run->first_item[c + 1] += run->first_item[c];
    gfli_eval_sort(run->items, run->scratch, n);
    return GFL_OK;
}

/* pycocotools looks annotations up by id, so that of several with one id it sees the last, several
 * times.  stand_in[i] is the annotation that takes the place of i. */
static gfl_status gfli_eval_stand_ins(const gfl_evaluator *e, int **out) {
    const gfl_dataset *d = e->dataset;
    size_t n = (size_t)d->n_annotations;
    gfli_id_entry *entries = NULL;
    GFLI_TRY(gfli_alloc(e->context, n, sizeof **out, "annotations", out));
    for (int i = 0; i < d->n_annotations; i++) (*out)[i] = i;
    if (!e->compatible || d->summary.n_duplicate_ids == 0) return GFL_OK;
    gfl_status status = gfli_alloc(e->context, n, sizeof *entries, "annotation ids", &entries);
    if (status == GFL_OK) {
        for (int i = 0; i < d->n_annotations; i++) {
            entries[i].id = d->annotations[i].id;
            entries[i].index = i;
        }
        status = gfli_id_sort(e->context, entries, d->n_annotations);
    }
    if (status == GFL_OK) {
        for (int i = d->n_annotations - 2; i >= 0; i--)
            if (gfli_id_compare(entries[i].id, entries[i + 1].id) == 0)
                (*out)[entries[i].index] = (*out)[entries[i + 1].index];
    }
    gfli_free(e->context, entries);
    return status;
}

static void gfli_eval_set_truth(const gfl_evaluator *e, const gfl_annotation *a,
                                gfli_eval_truth *out) {
    memset(out, 0, sizeof *out);
    out->x1 = a->x;
    out->y1 = a->y;
    out->x2 = a->w + a->x;
    out->y2 = a->h + a->y;
    out->area = a->w * a->h;
    out->rank = e->image_rank[a->image];
    out->crowd = a->crowd != 0;
    out->ignored = out->crowd ? ~(uint64_t)0 : gfli_eval_outside(a->area);
    out->uncounted = e->compatible && !a->id.text && a->id.number == 0;
}

/* Ground truth by class, image and place in the file; with ignore_classes by image, class, place.
 * The scratch holds the sorted items, then is free. */
static gfl_status gfli_eval_sort_truths(gfli_eval_run *run, const int *stand_in,
                                        gfli_eval_item *items, gfli_eval_item *scratch) {
    const gfl_evaluator *e = run->evaluator;
    const gfl_dataset *d = e->dataset;
    size_t n = 0;
    for (int r = 0; r < e->n_ranks; r++) {
        const gfl_image_info *info = &d->images[e->rank_image[r]];
        for (int i = 0; i < info->n_annotations; i++) {
            const gfl_annotation *original = &info->annotations[i];
            int index = stand_in[original - d->annotations];
            const gfl_annotation *a = &d->annotations[index];
            int slot = e->class_slot[a->label], rank = e->image_rank[a->image];
            bool asked = e->ignore_classes || e->class_slot[original->label] >= 0;
            if (!asked || slot < 0 || rank < 0) continue;
            uint64_t major = (uint64_t)(e->ignore_classes ? rank : slot);
            uint64_t minor = (uint64_t)(e->ignore_classes ? slot : rank);
            items[n].key = major << 32 | minor;
            items[n++].index = (uint32_t)index;
            run->first_truth[e->ignore_classes ? 1 : slot + 1]++;
        }
    }
    for (int c = 0; c < gfli_eval_k(e); c++) run->first_truth[c + 1] += run->first_truth[c];
    gfli_eval_sort(items, scratch, n);
    GFLI_TRY(gfli_alloc(e->context, n, sizeof *run->truths, "ground truth", &run->truths));
    for (size_t i = 0; i < n; i++)
        gfli_eval_set_truth(e, &d->annotations[items[i].index], &run->truths[i]);
    return GFL_OK;
}

static gfl_status gfli_eval_gather_truths(gfli_eval_run *run) {
    const gfl_evaluator *e = run->evaluator;
    const size_t n = (size_t)e->dataset->n_annotations;
    int *stand_in = NULL;
    gfli_eval_item *items = NULL, *scratch = NULL;
    GFLI_TRY(gfli_calloc(e->context, (size_t)gfli_eval_k(e) + 1, sizeof *run->first_truth,
                         "classes", &run->first_truth));
    gfl_status status = gfli_eval_stand_ins(e, &stand_in);
    if (status == GFL_OK) status = gfli_alloc(e->context, n, sizeof *items, "annotations", &items);
    if (status == GFL_OK)
        status = gfli_alloc(e->context, n, sizeof *scratch, "annotations", &scratch);
    if (status == GFL_OK) status = gfli_eval_sort_truths(run, stand_in, items, scratch);
    gfli_free(e->context, stand_in);
    gfli_free(e->context, items);
    gfli_free(e->context, scratch);
    return status;
}

static gfl_status gfli_eval_prepare(gfli_eval_run *run) {
    const gfl_evaluator *e = run->evaluator;
    gfl_context *context = e->context;
    GFLI_TRY(gfli_eval_sort_results(run));
    GFLI_TRY(gfli_eval_gather_truths(run));
    const int k = gfli_eval_k(e);
    const size_t n = (size_t)run->first_truth[k];
    GFLI_TRY(gfli_alloc(context, run->first_item[k], sizeof *run->groups, "images", &run->groups));
    GFLI_TRY(gfli_alloc(context, n, sizeof *run->candidates, "ground truth", &run->candidates));
    return gfli_alloc(context, n + (size_t)k, sizeof *run->curves, "curves", &run->curves);
}

/* ---- one class ------------------------------------------------------------------------------- */

/* The images of a class's results, which stand by image, each with its ground truth. */
static void gfli_eval_group_images(gfli_eval_run *run, int k) {
    const gfl_evaluator *e = run->evaluator;
    const size_t first = run->first_item[k];
    gfli_eval_group *groups = run->groups + first;
    int g = run->first_truth[k], n = -1, last = -1;
    for (size_t i = first; i < run->first_item[k + 1]; i++) {
        const int rank = e->image_rank[e->boxes[run->items[i].index].image];
        if (rank != last) {
            while (g < run->first_truth[k + 1] && run->truths[g].rank < rank) g++;
            groups[++n].begin = g;
            while (g < run->first_truth[k + 1] && run->truths[g].rank == rank) g++;
            groups[n].end = g;
            groups[n].seen = 0;
            last = rank;
        }
        run->items[i].group = (uint32_t)n;
    }
}

/* Best score first; of equal scores the earlier image, then the earlier place in the results. */
static void gfli_eval_order(gfli_eval_run *run, int k) {
    const gfl_evaluator *e = run->evaluator;
    const size_t first = run->first_item[k], n = run->first_item[k + 1] - first;
    gfli_eval_item *items = run->items + first;
    for (size_t i = 0; i < n; i++)
        items[i].key = (uint64_t)e->image_rank[e->boxes[items[i].index].image];
    gfli_eval_sort(items, run->scratch + first, n);
    gfli_eval_group_images(run, k);
    for (size_t i = 0; i < n; i++)
        items[i].key = gfli_eval_score_key(e->boxes[items[i].index].score);
    gfli_eval_sort(items, run->scratch + first, n);
}

/* Outcomes of the best max_dets of each image, in the order of the scores; returns how many. */
static size_t gfli_eval_match_class(gfli_eval_run *run, int k) {
    const gfl_evaluator *e = run->evaluator;
    const size_t first = run->first_item[k];
    gfli_eval_outcome *out = run->outcomes + first;
    gfli_eval_candidate *candidates = run->candidates + run->first_truth[k];
    size_t n = 0;
    for (size_t i = first; i < run->first_item[k + 1]; i++) {
        const gfli_eval_box *box = &e->boxes[run->items[i].index];
        gfli_eval_group *group = &run->groups[first + run->items[i].group];
        if (group->seen == e->max_dets[GFLI_EVAL_M - 1]) continue;
        out[n].place = group->seen++;
        out[n].score = box->score;
        gfli_eval_match(run->truths, group, box, candidates, &out[n]);
        n++;
    }
    return n;
}

/* How many true positives each recall threshold asks for; n_truths + 1: more than there are. */
static void gfli_eval_needs(int n_truths, int needs[GFLI_EVAL_R]) {
    int c = 0;
    for (int r = 0; r < GFLI_EVAL_R; r++) {
        while (c <= n_truths && (double)c / n_truths < r * 0.01) c++;
        needs[r] = c;
    }
}

/* The precision-recall curve of one area and threshold.  Only true positives matter: between them
 * precision falls and recall stays.  curve[0] stands for recall 0; returns the true positives. */
static int gfli_eval_trace(const gfli_eval_outcome *outcomes, size_t n, int bit,
                           gfli_eval_curve *curve) {
    int hits = 0, misses = 0;
    for (size_t i = 0; i < n; i++) {
        misses += (int)(outcomes[i].miss >> bit & 1);
        if (!(outcomes[i].hit >> bit & 1)) continue;
        hits++;
        curve[hits].precision = hits / ((double)(misses + hits) + DBL_EPSILON);
        curve[hits].score = outcomes[i].score;
    }
    curve[0].precision = 0;
    curve[0].score = n ? outcomes[0].score : 0;
    for (int c = hits - 1; c >= 0; c--)
        if (curve[c + 1].precision > curve[c].precision)
            curve[c].precision = curve[c + 1].precision;
    return hits;
}

/* Where entry (t, r, k, a, m) of the whole arrays stands; recall has no r. */
static size_t gfli_eval_at(int n_k, int row, int k, int a, int m) {
    return ((((size_t)row * (size_t)n_k + (size_t)k) * GFLI_EVAL_A + (size_t)a) * GFLI_EVAL_M) +
           (size_t)m;
}

static void gfli_eval_store(gfli_eval_run *run, int k, int a, int m, int t,
                            const gfli_eval_curve *curve, int hits, int n_truths,
                            const int needs[GFLI_EVAL_R], bool any) {
    const int n_k = gfli_eval_k(run->evaluator);
    bool none = n_truths == 0;
    run->recall[gfli_eval_at(n_k, t, k, a, m)] = none ? -1 : (double)hits / n_truths;
    for (int r = 0; r < GFLI_EVAL_R; r++) {
        size_t at = gfli_eval_at(n_k, t * GFLI_EVAL_R + r, k, a, m);
        bool reached = !none && any && needs[r] <= hits;
        run->precision[at] = none ? -1 : reached ? curve[needs[r]].precision : 0;
        run->scores[at] = none ? -1 : reached ? curve[needs[r]].score : 0;
    }
}

/* One class, area and max_dets: ten curves. */
static void gfli_eval_accumulate(gfli_eval_run *run, int k, int a, int m, size_t n, int n_truths,
                                 gfli_eval_curve *curve) {
    const gfli_eval_outcome *outcomes = run->outcomes + run->first_item[k];
    gfli_eval_sums *sums = &run->evaluator->sums[k];
    int needs[GFLI_EVAL_R] = {0};
    sums->present[a] = n_truths > 0;
    if (n_truths > 0) gfli_eval_needs(n_truths, needs);
    for (int t = 0; t < GFLI_EVAL_T; t++) {
        double sum = 0;
        int hits = n_truths > 0 ? gfli_eval_trace(outcomes, n, a * GFLI_EVAL_T + t, curve) : 0;
        if (run->precision) gfli_eval_store(run, k, a, m, t, curve, hits, n_truths, needs, n > 0);
        if (n_truths == 0) continue;
        for (int r = 0; r < GFLI_EVAL_R && needs[r] <= hits; r++) sum += curve[needs[r]].precision;
        sums->precision[a][m] += sum;
        if (t == 0) sums->precision50[a][m] = sum;
        if (t == 5) sums->precision75[a][m] = sum;
        sums->recall[a][m] += (double)hits / n_truths;
    }
}

static void gfli_eval_class(void *arg, int k, int slot) {
    gfli_eval_run *run = (gfli_eval_run *)arg;
    gfl_evaluator *e = run->evaluator;
    gfli_eval_outcome *outcomes = run->outcomes + run->first_item[k];
    gfli_eval_curve *curve = run->curves + run->first_truth[k] + k;
    (void)slot;
    int n_truths[GFLI_EVAL_A] = {0};
    memset(&e->sums[k], 0, sizeof e->sums[k]);
    gfli_eval_order(run, k);
    size_t n = gfli_eval_match_class(run, k);
    for (int g = run->first_truth[k]; g < run->first_truth[k + 1]; g++)
        for (int a = 0; a < GFLI_EVAL_A; a++)
            n_truths[a] += !(run->truths[g].ignored >> (a * GFLI_EVAL_T) & 1);
    /* From the largest max_dets down, what is left of an image falls out. */
    for (int m = GFLI_EVAL_M - 1; m >= 0; m--) {
        size_t kept = 0;
        for (size_t i = 0; i < n; i++)
            if (outcomes[i].place < e->max_dets[m]) outcomes[kept++] = outcomes[i];
        n = kept;
        for (int a = 0; a < GFLI_EVAL_A; a++)
            gfli_eval_accumulate(run, k, a, m, n, n_truths[a], curve);
    }
}

/* ---- the twelve numbers ---------------------------------------------------------------------- */

typedef enum gfli_eval_number {
    GFLI_EVAL_AP,
    GFLI_EVAL_AP50,
    GFLI_EVAL_AP75,
    GFLI_EVAL_AR
} gfli_eval_number;

static double gfli_eval_mean(const gfl_evaluator *e, int first, int count, gfli_eval_number what,
                             int a, int m) {
    double sum = 0, n = 0;
    for (int k = first; k < first + count; k++) {
        const gfli_eval_sums *s = &e->sums[k];
        if (!s->present[a]) continue;
        n += what == GFLI_EVAL_AP   ? GFLI_EVAL_T * GFLI_EVAL_R
             : what == GFLI_EVAL_AR ? GFLI_EVAL_T
                                    : GFLI_EVAL_R;
        sum += what == GFLI_EVAL_AP     ? s->precision[a][m]
               : what == GFLI_EVAL_AP50 ? s->precision50[a][m]
               : what == GFLI_EVAL_AP75 ? s->precision75[a][m]
                                        : s->recall[a][m];
    }
    return n > 0 ? sum / n : -1;
}

static void gfli_eval_summarise(const gfl_evaluator *e, int first, int count,
                                gfl_eval_result *out) {
    const int last = GFLI_EVAL_M - 1;
    int ap = e->compatible ? -1 : last;
    for (int m = 0; m < GFLI_EVAL_M; m++)
        if (e->max_dets[m] == 100) ap = m;
    out->ap = ap < 0 ? -1 : gfli_eval_mean(e, first, count, GFLI_EVAL_AP, 0, ap);
    out->ap50 = gfli_eval_mean(e, first, count, GFLI_EVAL_AP50, 0, last);
    out->ap75 = gfli_eval_mean(e, first, count, GFLI_EVAL_AP75, 0, last);
    out->ap_small = gfli_eval_mean(e, first, count, GFLI_EVAL_AP, 1, last);
    out->ap_medium = gfli_eval_mean(e, first, count, GFLI_EVAL_AP, 2, last);
    out->ap_large = gfli_eval_mean(e, first, count, GFLI_EVAL_AP, 3, last);
    for (int m = 0; m < GFLI_EVAL_M; m++)
        out->ar[m] = gfli_eval_mean(e, first, count, GFLI_EVAL_AR, 0, m);
    out->ar_small = gfli_eval_mean(e, first, count, GFLI_EVAL_AR, 1, last);
    out->ar_medium = gfli_eval_mean(e, first, count, GFLI_EVAL_AR, 2, last);
    out->ar_large = gfli_eval_mean(e, first, count, GFLI_EVAL_AR, 3, last);
}

gfl_status gfli_evaluator_arrays(gfl_evaluator *evaluator, double *precision, double *recall,
                                 double *scores) {
    gfli_eval_run run;
    memset(&run, 0, sizeof run);
    run.evaluator = evaluator;
    run.precision = precision;
    run.recall = recall;
    run.scores = scores;
    evaluator->done = false;
    gfl_status status = gfli_eval_prepare(&run);
    if (status == GFL_OK) {
        gfli_parallel_for(evaluator->context, gfli_eval_k(evaluator), gfli_eval_class, &run);
        gfli_eval_summarise(evaluator, 0, gfli_eval_k(evaluator), &evaluator->result);
        evaluator->done = true;
    }
    gfli_eval_release(&run);
    return status;
}

gfl_status gfl_evaluator_run(gfl_evaluator *evaluator, gfl_eval_result *out) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, out);
    memset(out, 0, sizeof *out);
    GFLI_TRY(gfli_evaluator_arrays(evaluator, NULL, NULL, NULL));
    *out = evaluator->result;
    return GFL_OK;
}

gfl_status gfl_evaluator_get_class_result(const gfl_evaluator *evaluator, int label,
                                          gfl_eval_result *out) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, out);
    memset(out, 0, sizeof *out);
    gfl_context *context = evaluator->context;
    if (!evaluator->done)
        return gfli_error(context, GFL_E_ARG,
                          "gfl_evaluator_get_class_result: call gfl_evaluator_run first");
    if (evaluator->ignore_classes)
        return gfli_error(context, GFL_E_ARG,
                          "the evaluation ignores classes: there is no class %d", label);
    if (label < 0 || label >= evaluator->dataset->n_classes || evaluator->class_slot[label] < 0)
        return gfli_error(context, GFL_E_ARG, "class %d is not evaluated", label);
    gfli_eval_summarise(evaluator, evaluator->class_slot[label], 1, out);
    return GFL_OK;
}

/* ---- text ------------------------------------------------------------------------------------ */

/* One line as pycocotools prints it, in any locale. */
static void gfli_eval_line(char out[128], bool precision, const char *ious, const char *area,
                           int max_dets, double value) {
    char number[32];
    snprintf(number, sizeof number, "%.3f", value);
    for (char *p = number; *p; p++)
        if (!strchr("0123456789-", *p)) *p = '.';
    snprintf(out, 128, " Average %s @[ IoU=%-9s | area=%6s | maxDets=%3d ] = %s\n",
             precision ? "Precision  (AP)" : "Recall     (AR)", ious, area, max_dets, number);
}

size_t gfl_evaluator_get_summary(const gfl_evaluator *evaluator, char *out, size_t capacity) {
    static const char *const areas[GFLI_EVAL_A] = {"all", "small", "medium", "large"};
    if (out && capacity) out[0] = 0;
    if (!evaluator || !evaluator->done) return 0;
    const gfl_eval_result *r = &evaluator->result;
    const double values[12] = {r->ap,        r->ap50,     r->ap75,      r->ap_small,
                               r->ap_medium, r->ap_large, r->ar[0],     r->ar[1],
                               r->ar[2],     r->ar_small, r->ar_medium, r->ar_large};
    const int *max_dets = evaluator->max_dets, last = max_dets[GFLI_EVAL_M - 1];
    bool hundred = max_dets[0] == 100 || max_dets[1] == 100 || evaluator->compatible;
    size_t n = 0;
    for (int i = 0; i < 12; i++) {
        char text[128];
        const char *ious = i == 1 ? "0.50" : i == 2 ? "0.75" : "0.50:0.95";
        int area = i >= 3 && i < 6 ? i - 2 : i >= 9 ? i - 8 : 0;
        int dets = i == 0 && hundred ? 100 : i >= 6 && i < 9 ? max_dets[i - 6] : last;
        gfli_eval_line(text, i < 6, ious, areas[area], dets, values[i]);
        for (const char *p = text; *p; p++, n++)
            if (out && n + 1 < capacity) out[n] = *p;
    }
    if (out && capacity) out[n < capacity ? n : capacity - 1] = 0;
    return n;
}

/* ===============================================================================================
 * src/eval/evaluator.c - gfl_evaluator: what it evaluates, and the detections that it is given
 * ============================================================================================ */

/* ---- life ------------------------------------------------------------------------------------ */

static gfl_status gfli_eval_take_images(gfl_evaluator *e, const gfl_evaluator_desc *desc) {
    const int n = e->dataset->n_images;
    gfl_context *context = e->context;
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *e->image_ids, "images", &e->image_ids));
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *e->image_rank, "images", &e->image_rank));
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *e->rank_image, "images", &e->rank_image));
    for (int i = 0; i < n; i++) {
        e->image_ids[i].id = e->dataset->images[i].id;
        e->image_ids[i].index = i;
        e->image_rank[i] = desc->images || e->dataset->images[i].unreadable ? -1 : 0;
    }
    GFLI_TRY(gfli_id_sort(context, e->image_ids, n));
    for (int i = 0; desc->images && i < desc->n_images; i++) {
        int image = desc->images[i];
        if (image < 0 || image >= n)
            return gfli_error(context, GFL_E_ARG,
                              "images has %d, but the data set has %d images, counted from 0",
                              image, n);
        e->image_rank[image] = 0;
    }
    for (int i = 0; i < n; i++) {
        int image = e->image_ids[i].index;
        if (e->image_rank[image] < 0) continue;
        e->rank_image[e->n_ranks] = image;
        e->image_rank[image] = e->n_ranks++;
    }
    return GFL_OK;
}

/* With classes ignored, the order of the labels as given decides ties inside an image. */
static gfl_status gfli_eval_take_classes(gfl_evaluator *e, const gfl_evaluator_desc *desc) {
    const int n = e->dataset->n_classes;
    gfl_context *context = e->context;
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *e->class_ids, "classes", &e->class_ids));
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *e->class_slot, "classes", &e->class_slot));
    for (int i = 0; i < n; i++) {
        e->class_ids[i].id = e->dataset->class_ids[i];
        e->class_ids[i].index = i;
        e->class_slot[i] = desc->labels ? -1 : i;
    }
    e->n_slots = desc->labels ? 0 : n;
    GFLI_TRY(gfli_id_sort(context, e->class_ids, n));
    e->labelled = true;
    for (int i = 0; i < n; i++) {
        gfl_id number;
        const gfl_id id = e->class_ids[i].id;
        if (!id.text || gfli_id_other(id, NULL, &number)) e->labelled = false;
    }
    for (int i = 0; desc->labels && i < desc->n_labels; i++) {
        int label = desc->labels[i];
        if (label < 0 || label >= n)
            return gfli_error(context, GFL_E_ARG,
                              "labels has %d, but the data set has %d classes, counted from 0",
                              label, n);
        if (e->class_slot[label] < 0) e->class_slot[label] = e->n_slots++;
    }
    int slot = 0;
    for (int i = 0; i < n && !e->ignore_classes; i++)
        if (e->class_slot[i] >= 0) e->class_slot[i] = slot++;
    return GFL_OK;
}

static gfl_status gfli_eval_fill(gfl_evaluator *e, const gfl_evaluator_desc *desc) {
    static const int usual[GFLI_EVAL_M] = {1, 10, 100};
    const int *m = desc->max_dets;
    bool given = m[0] != 0 || m[1] != 0 || m[2] != 0;
    if (given && (m[0] < 1 || m[1] < m[0] || m[2] < m[1]))
        return gfli_error(e->context, GFL_E_ARG,
                          "max_dets is %d, %d, %d; it must be three ascending numbers from 1", m[0],
                          m[1], m[2]);
    if (desc->n_images < 0 || desc->n_labels < 0)
        return gfli_error(e->context, GFL_E_ARG,
                          "n_images is %d and n_labels is %d; neither may be negative",
                          desc->n_images, desc->n_labels);
    GFLI_DEMAND(e->context, desc->images || desc->n_images == 0,
                "images is NULL, but n_images is %d; give a list and its length, or neither",
                desc->n_images);
    GFLI_DEMAND(e->context, desc->labels || desc->n_labels == 0,
                "labels is NULL, but n_labels is %d; give a list and its length, or neither",
                desc->n_labels);
    memcpy(e->max_dets, given ? m : usual, sizeof e->max_dets);
    e->ignore_classes = desc->ignore_classes != 0;
    e->compatible = desc->compatible != 0;
    GFLI_TRY(gfli_eval_take_images(e, desc));
    GFLI_TRY(gfli_eval_take_classes(e, desc));
    return gfli_calloc(e->context, (size_t)gfli_eval_k(e), sizeof *e->sums, "classes", &e->sums);
}

gfl_status gfl_evaluator_create(gfl_context *context, const gfl_dataset *dataset,
                                const gfl_evaluator_desc *desc, gfl_evaluator **out) {
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, dataset);
    GFLI_NOT_NULL(context, out);
    gfl_evaluator_desc none;
    memset(&none, 0, sizeof none);
    gfl_evaluator *e;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *e, "an evaluator", &e));
    e->context = context;
    e->dataset = dataset;
    gfl_status status = gfli_eval_fill(e, desc ? desc : &none);
    if (status != GFL_OK) {
        gfl_evaluator_destroy(e);
        return status;
    }
    *out = e;
    return GFL_OK;
}

void gfl_evaluator_destroy(gfl_evaluator *evaluator) {
    if (!evaluator) return;
    gfl_context *context = evaluator->context;
    gfli_free(context, evaluator->image_ids);
    gfli_free(context, evaluator->class_ids);
    gfli_free(context, evaluator->names);
    gfli_free(context, evaluator->bases);
    gfli_free(context, evaluator->image_rank);
    gfli_free(context, evaluator->rank_image);
    gfli_free(context, evaluator->class_slot);
    gfli_free(context, evaluator->boxes);
    gfli_free(context, evaluator->sums);
    gfli_free(context, evaluator);
}

gfl_status gfl_evaluator_leave_out(gfl_evaluator *evaluator, int image) {
    gfl_evaluator *e = evaluator;
    GFLI_NOT_NULL(NULL, evaluator);
    if (image < 0 || image >= e->dataset->n_images)
        return gfli_error(e->context, GFL_E_ARG, "there is no image %d: the data set has %d", image,
                          e->dataset->n_images);
    if (e->image_rank[image] < 0) return GFL_OK;
    e->n_ranks--;
    for (int r = e->image_rank[image]; r < e->n_ranks; r++) {
        e->rank_image[r] = e->rank_image[r + 1];
        e->image_rank[e->rank_image[r]] = r;
    }
    e->image_rank[image] = -1;
    e->done = false;
    return GFL_OK;
}

void gfl_evaluator_get_notes(const gfl_evaluator *evaluator, gfl_eval_notes *out) {
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (evaluator) *out = evaluator->notes;
}

/* ---- results --------------------------------------------------------------------------------- */

gfl_status gfli_eval_push(gfl_evaluator *e, const gfli_eval_box *box) {
    if (e->n_boxes == (size_t)INT32_MAX)
        return gfli_error(e->context, GFL_E_DATA, "more than %d results", INT32_MAX);
    GFLI_TRY(gfli_grow(e->context, &e->boxes, &e->capacity, e->n_boxes + 1, sizeof *e->boxes,
                       "results"));
    e->boxes[e->n_boxes++] = *box;
    return GFL_OK;
}

gfl_status gfl_evaluator_add_detections(gfl_evaluator *evaluator, int image,
                                        const gfl_detection *detections, int n) {
    GFLI_NOT_NULL(NULL, evaluator);
    gfl_evaluator *e = evaluator;
    GFLI_DEMAND(e->context, n >= 0 && (n == 0 || detections),
                "gfl_evaluator_add_detections: %d detections at %s", n,
                detections ? "an address" : "NULL");
    if (image < 0 || image >= e->dataset->n_images)
        return gfli_error(e->context, GFL_E_ARG, "there is no image %d: the data set has %d", image,
                          e->dataset->n_images);
    const size_t before = e->n_boxes;
    int64_t unknown = 0;
    e->done = false;
    for (int i = 0; i < n; i++) {
        const gfl_detection *d = &detections[i];
        gfli_eval_box box = {(double)d->x1,
                             (double)d->y1,
                             (double)d->x2 - (double)d->x1,
                             (double)d->y2 - (double)d->y1,
                             (double)d->score,
                             image,
                             d->label};
        gfl_status status = GFL_OK;
        bool known = d->label >= 0 && d->label < e->dataset->n_classes;
        double sum = box.x + box.y + box.w + box.h + box.score;
        if (!gfli_is_finite(sum))
            status = gfli_error(e->context, GFL_E_ARG,
                                "detection %d of image %d is not finite: %g %g %g %g score %g", i,
                                image, box.x, box.y, box.w, box.h, box.score);
        else if (known)
            status = gfli_eval_push(e, &box);
        unknown += !known;
        if (status == GFL_OK) continue;
        e->n_boxes = before;
        return status;
    }
    e->notes.n_results += n;
    e->notes.n_unknown_classes += unknown;
    if (unknown)
        gfli_log(
            e->context, GFL_LOG_WARNING,
            "%lld of %d detections of image %d are left out: their classes are not in the data set",
            (long long)unknown, n, image);
    return GFL_OK;
}

/* ===============================================================================================
 * src/eval/results.c - COCO result JSON in and out
 * ============================================================================================ */

/* ---- what a file names ----------------------------------------------------------------------- */

static const char *gfli_eval_base_name(const char *path) {
    const char *base = path;
    for (const char *p = path; *p; p++)
        if (*p == '/' || *p == '\\') base = p + 1;
    return base;
}

/* File names and what follows the last slash of each, in order; made when first wanted. */
static gfl_status gfli_eval_take_names(gfl_evaluator *e) {
    const gfl_dataset *d = e->dataset;
    const size_t n = (size_t)d->n_images;
    if (e->bases) return GFL_OK;
    gfli_free(e->context, e->names);
    e->n_names = 0;
    GFLI_TRY(gfli_alloc(e->context, n, sizeof *e->names, "file names", &e->names));
    GFLI_TRY(gfli_alloc(e->context, n, sizeof *e->bases, "file names", &e->bases));
    for (int i = 0; i < d->n_images; i++) {
        const char *name = d->images[i].file_name;
        if (!name[0]) continue;
        const gfli_id_entry whole = {{0, name}, i}, base = {{0, gfli_eval_base_name(name)}, i};
        e->names[e->n_names] = whole;
        e->bases[e->n_names++] = base;
    }
    gfl_status status = gfli_id_sort(e->context, e->names, e->n_names);
    if (status == GFL_OK) status = gfli_id_sort(e->context, e->bases, e->n_names);
    if (status == GFL_OK) return GFL_OK;
    gfli_free(e->context, e->bases);
    e->bases = NULL;
    return status;
}

/* The one image that a text stands for among sorted ones, or -1. */
static int gfli_eval_unique(const gfli_id_entry *entries, int n, const char *text) {
    const gfl_id id = {0, text};
    int place = gfli_id_place(entries, n, id);
    if (place < 0) return -1;
    bool twice = place + 1 < n && gfli_id_compare(entries[place + 1].id, id) == 0;
    return twice ? -1 : entries[place].index;
}

/* What an id names among the entries, or -1.  Results come image by image, so the last answer is
 * tried first. */
static int gfli_eval_find(const gfl_evaluator *e, const gfli_id_entry *entries, int n, gfl_id id,
                          int *last) {
    bool other;
    if (*last >= 0 && gfli_id_compare(entries[*last].id, id) == 0) return entries[*last].index;
    int place = e->compatible ? gfli_id_place(entries, n, id)
                              : gfli_id_place_of_either(entries, n, id, &other);
    if (place < 0) return -1;
    *last = place;
    return entries[place].index;
}

/* An image by its id, or by the name of its file as gfl detect and others write it: the whole name,
 * or what follows its last slash where only one image has that. */
static gfl_status gfli_eval_find_image(gfl_evaluator *e, gfl_id id, int *last, int *image,
                                       bool *named) {
    *named = false;
    *image = gfli_eval_find(e, e->image_ids, e->dataset->n_images, id, last);
    if (*image >= 0 || !id.text || e->compatible) return GFL_OK;
    GFLI_TRY(gfli_eval_take_names(e));
    *image = gfli_eval_unique(e->names, e->n_names, id.text);
    if (*image < 0) *image = gfli_eval_unique(e->bases, e->n_names, gfli_eval_base_name(id.text));
    *named = *image >= 0;
    return GFL_OK;
}

/* A class by its id in the file, or by gfl_class's where those of the file are words: a model that
 * was trained on them knows the latter. */
static int gfli_eval_find_class(const gfl_evaluator *e, gfl_id id, int *last) {
    const int n = e->dataset->n_classes;
    int label = gfli_eval_find(e, e->class_ids, n, id, last);
    if (label >= 0 || id.text || !e->labelled || e->compatible) return label;
    return id.number >= 1 && id.number <= n ? (int)id.number - 1 : -1;
}

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct gfli_eval_reader {
    gfl_evaluator *evaluator;
    gfli_json *json;
    int last_image, last_class; /* where the search would most likely end */
    gfl_eval_notes notes;
    char first_image[GFLI_ID_TEXT], first_class[GFLI_ID_TEXT]; /* the first unknown ones */
} gfli_eval_reader;

/* What one result says.  The text of an id is gone with the next key, so it is looked up at once,
 * and kept as a message shows it where it is unknown. */
typedef struct gfli_eval_entry {
    gfli_eval_box box;
    unsigned seen;
    bool named;
    char image[GFLI_ID_TEXT], label[GFLI_ID_TEXT];
} gfli_eval_entry;

static void gfli_eval_unwanted(gfli_json *j, gfli_json_kind kind, const char *what,
                               const char *wanted) {
    char found[GFLI_QUOTED];
    gfli_json_error(j, GFL_E_FORMAT, "%s %s: %s is wanted", what, gfli_json_found(j, kind, found),
                    wanted);
}

static bool gfli_eval_read_id(gfli_json *j, const char *what, gfl_id *out) {
    gfli_json_kind kind = gfli_json_next(j);
    out->number = 0;
    out->text = kind == GFLI_JSON_STRING ? gfli_json_string(j, NULL) : NULL;
    bool good = kind == GFLI_JSON_STRING ||
                (kind == GFLI_JSON_NUMBER && gfli_json_as_integer(j, &out->number));
    if (!good) gfli_eval_unwanted(j, kind, what, "a whole number or a text");
    return good && gfli_json_status(j) == GFL_OK;
}

static bool gfli_eval_read_number(gfli_json *j, gfli_json_kind kind, const char *what,
                                  double *out) {
    *out = kind == GFLI_JSON_NUMBER ? gfli_json_as_number(j) : 0;
    bool good = kind == GFLI_JSON_NUMBER && gfli_is_finite(*out);
    if (!good) gfli_eval_unwanted(j, kind, what, "a finite number");
    return good;
}

static void gfli_eval_read_bbox(gfli_json *j, gfli_eval_box *out) {
    static const char wanted[] = "a list of four numbers, [x, y, width, height],";
    double v[4] = {0, 0, 0, 0};
    int n = 0;
    gfli_json_kind kind = gfli_json_next(j);
    bool list = kind == GFLI_JSON_ARRAY;
    while (list && (kind = gfli_json_next(j)) == GFLI_JSON_NUMBER && n < 4)
        if (!gfli_eval_read_number(j, kind, "bbox holds", &v[n++])) return;
    if (!list || n != 4 || kind != GFLI_JSON_END)
        gfli_eval_unwanted(j, kind,
                           !list                   ? "bbox is"
                           : kind == GFLI_JSON_END ? "bbox holds too few numbers before"
                           : n == 4                ? "bbox goes on with"
                                                   : "bbox holds",
                           wanted);
    out->x = v[0];
    out->y = v[1];
    out->w = v[2];
    out->h = v[3];
}

static gfl_status gfli_eval_read_field(gfli_eval_reader *r, gfli_eval_entry *line, int which) {
    gfl_evaluator *e = r->evaluator;
    gfl_id id;
    switch (which) {
    case 0:
        if (!gfli_eval_read_id(r->json, "image_id is", &id)) break;
        GFLI_TRY(gfli_eval_find_image(e, id, &r->last_image, &line->box.image, &line->named));
        if (line->box.image < 0) gfli_id_text(id, line->image);
        break;
    case 1:
        if (!gfli_eval_read_id(r->json, "category_id is", &id)) break;
        line->box.label = gfli_eval_find_class(e, id, &r->last_class);
        if (line->box.label < 0) gfli_id_text(id, line->label);
        break;
    case 2: gfli_eval_read_bbox(r->json, &line->box); break;
    case 3:
        gfli_eval_read_number(r->json, gfli_json_next(r->json), "score is", &line->box.score);
        break;
    default: gfli_json_skip(r->json);
    }
    return gfli_json_status(r->json);
}

static gfl_status gfli_eval_keep(gfli_eval_reader *r, const gfli_eval_entry *line) {
    gfl_evaluator *e = r->evaluator;
    r->notes.n_results++;
    if (line->box.image < 0) {
        if (e->compatible)
            return gfli_json_error(r->json, GFL_E_DATA,
                                   "the data set has no image %s; all results are refused",
                                   line->image);
        if (r->notes.n_unknown_images++ == 0)
            memcpy(r->first_image, line->image, sizeof line->image);
        return GFL_OK;
    }
    if (line->box.label < 0) {
        if (r->notes.n_unknown_classes++ == 0)
            memcpy(r->first_class, line->label, sizeof line->label);
        return GFL_OK;
    }
    r->notes.n_named_images += line->named;
    return gfli_eval_push(e, &line->box);
}

/* One object of the list, after its brace. */
static gfl_status gfli_eval_read_result(gfli_eval_reader *r) {
    static const char *const names[4] = {"image_id", "category_id", "bbox", "score"};
    gfli_eval_entry line;
    memset(&line, 0, sizeof line);
    for (const char *key; (key = gfli_json_key(r->json)) != NULL;) {
        int which = 0;
        while (which < 4 && strcmp(key, names[which]) != 0) which++;
        line.seen |= 1u << which;
        GFLI_TRY(gfli_eval_read_field(r, &line, which));
    }
    GFLI_TRY(gfli_json_status(r->json));
    for (int i = 0; i < 4; i++)
        if (!(line.seen >> i & 1))
            return gfli_json_error(r->json, GFL_E_FORMAT, "the result that ends here has no %s",
                                   names[i]);
    return gfli_eval_keep(r, &line);
}

static gfl_status gfli_eval_read_list(gfli_eval_reader *r) {
    gfli_json *j = r->json;
    gfli_json_kind kind = gfli_json_next(j);
    GFLI_TRY(gfli_json_status(j));
    if (kind != GFLI_JSON_ARRAY)
        return gfli_json_error(j, GFL_E_FORMAT, "a file of results must be one array of objects");
    while ((kind = gfli_json_next(j)) != GFLI_JSON_END) {
        if (kind != GFLI_JSON_OBJECT)
            return gfli_json_error(j, GFL_E_FORMAT, "a result is not an object");
        GFLI_TRY(gfli_eval_read_result(r));
    }
    gfli_json_next(j); /* nothing may follow */
    return gfli_json_status(j);
}

/* ---- what does not fit ----------------------------------------------------------------------- */

/* Some results of unlisted images or classes are left out with a word; all of them cannot be what
 * was meant, and their AP of 0 would be the answer to another question. */
static gfl_status gfli_eval_none_fits(const gfli_eval_reader *r, const char *name) {
    const gfl_dataset *d = r->evaluator->dataset;
    const gfl_eval_notes *notes = &r->notes;
    char images[3 * GFLI_QUOTED + 160] = "", classes[3 * GFLI_QUOTED + 160] = "";
    char id[GFLI_ID_TEXT], text[GFLI_QUOTED];
    if (notes->n_unknown_images && d->n_images)
        snprintf(images, sizeof images,
                 "; image_id %s is not among its ids, which begin with %s, nor among its file "
                 "names, which begin with %s",
                 r->first_image, gfli_id_text(d->images[0].id, id),
                 gfli_quote(d->images[0].file_name, text, sizeof text));
    else if (notes->n_unknown_images)
        snprintf(images, sizeof images, "; it lists no images");
    if (notes->n_unknown_classes)
        snprintf(classes, sizeof classes,
                 "; category_id %s is not among its ids, which begin with %s (%s)", r->first_class,
                 gfli_id_text(d->class_ids[0], id),
                 gfli_quote(d->classes[0].name, text, sizeof text));
    return gfli_error(r->evaluator->context, GFL_E_DATA,
                      "%.200s: not one of the %lld results fits the data set %.200s%s%s", name,
                      (long long)notes->n_results, d->name, images, classes);
}

static void gfli_eval_log_unknown(const gfli_eval_reader *r, const char *name) {
    const gfl_eval_notes *notes = &r->notes;
    if (notes->n_unknown_images)
        gfli_log(r->evaluator->context, GFL_LOG_WARNING,
                 "%s: %lld of %lld results are left out: the data set has no image %s", name,
                 (long long)notes->n_unknown_images, (long long)notes->n_results, r->first_image);
    if (notes->n_unknown_classes)
        gfli_log(r->evaluator->context, GFL_LOG_WARNING,
                 "%s: %lld of %lld results are left out: the data set has no category %s", name,
                 (long long)notes->n_unknown_classes, (long long)notes->n_results, r->first_class);
}

/* Takes the reader; after an error none of its results stay. */
static gfl_status gfli_eval_load(gfl_evaluator *e, gfli_json *json, const char *name) {
    const size_t before = e->n_boxes;
    gfli_eval_reader r;
    memset(&r, 0, sizeof r);
    r.evaluator = e;
    r.json = json;
    r.last_image = r.last_class = -1;
    e->done = false;
    gfl_status status = gfli_eval_read_list(&r);
    gfli_json_close(json);
    if (status == GFL_OK && r.notes.n_results > 0 && e->n_boxes == before && !e->compatible)
        status = gfli_eval_none_fits(&r, name);
    if (status != GFL_OK) {
        e->n_boxes = before;
        return status;
    }
    e->notes.n_results += r.notes.n_results;
    e->notes.n_unknown_images += r.notes.n_unknown_images;
    e->notes.n_unknown_classes += r.notes.n_unknown_classes;
    e->notes.n_named_images += r.notes.n_named_images;
    gfli_eval_log_unknown(&r, name);
    return GFL_OK;
}

gfl_status gfl_evaluator_add_results(gfl_evaluator *evaluator, const char *path) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, path);
    gfli_json *json;
    GFLI_TRY(gfli_json_open(evaluator->context, path, &json));
    return gfli_eval_load(evaluator, json, path);
}

gfl_status gfl_evaluator_add_results_memory(gfl_evaluator *evaluator, const char *json,
                                            size_t size) {
    static const char name[] = "results in memory";
    GFLI_NOT_NULL(NULL, evaluator);
    if (size) GFLI_NOT_NULL(evaluator->context, json);
    gfli_json *reader;
    GFLI_TRY(gfli_json_open_memory(evaluator->context, json ? json : "", size, name, &reader));
    return gfli_eval_load(evaluator, reader, name);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void gfli_eval_write_id(gfl_json_writer *j, const char *key, gfl_id id) {
    if (id.text)
        gfl_json_text(j, key, id.text);
    else
        gfl_json_integer(j, key, id.number);
}

static void gfli_eval_write_box(const gfl_evaluator *e, gfl_json_writer *j,
                                const gfli_eval_box *box) {
    gfl_json_object(j, NULL);
    gfli_eval_write_id(j, "image_id", e->dataset->images[box->image].id);
    gfli_eval_write_id(j, "category_id", e->dataset->class_ids[box->label]);
    gfl_json_array(j, "bbox");
    gfl_json_number(j, NULL, box->x);
    gfl_json_number(j, NULL, box->y);
    gfl_json_number(j, NULL, box->w);
    gfl_json_number(j, NULL, box->h);
    gfl_json_end(j);
    if ((double)(float)box->score == box->score)
        gfl_json_float(j, "score", (float)box->score);
    else /* read from a file */
        gfl_json_number(j, "score", box->score);
    gfl_json_end(j);
}

/* By image as the data set orders them, best score first; equal ones stay as they came, since
 * ties are decided by place. */
static void gfli_eval_sort_boxes(const gfl_evaluator *e, gfli_eval_item *items,
                                 gfli_eval_item *scratch) {
    for (size_t i = 0; i < e->n_boxes; i++) {
        items[i].key = gfli_eval_score_key(e->boxes[i].score);
        items[i].index = (uint32_t)i;
    }
    gfli_eval_sort(items, scratch, e->n_boxes);
    for (size_t i = 0; i < e->n_boxes; i++) items[i].key = (uint64_t)e->boxes[items[i].index].image;
    gfli_eval_sort(items, scratch, e->n_boxes);
}

gfl_status gfl_evaluator_write(const gfl_evaluator *evaluator, gfl_json_writer *writer) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, writer);
    const gfl_evaluator *e = evaluator;
    gfli_eval_item *items;
    GFLI_TRY(gfli_alloc(e->context, 2 * e->n_boxes, sizeof *items, "results", &items));
    gfli_eval_sort_boxes(e, items, items + e->n_boxes);
    gfl_json_array(writer, NULL);
    for (size_t i = 0; i < e->n_boxes && writer->status == GFL_OK; i++) {
        gfl_json_line(writer);
        gfli_eval_write_box(e, writer, &e->boxes[items[i].index]);
    }
    gfl_json_line(writer);
    gfl_json_end(writer);
    gfl_json_line(writer);
    gfli_free(e->context, items);
    GFLI_DEMAND(e->context, writer->status != GFL_E_ARG,
                "gfl_evaluator_write: the writer has no function, or no value may stand there");
    return writer->status;
}

gfl_status gfl_evaluator_save(const gfl_evaluator *evaluator, const char *path) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, path);
    gfli_file file;
    GFLI_TRY(gfli_file_create(evaluator->context, gfli_to_file(path), &file));
    gfl_json_writer writer = gfli_json_to_file(&file);
    const gfl_status status = gfl_evaluator_write(evaluator, &writer);
    if (status == GFL_OK) return gfli_file_commit(&file);
    gfli_file_abandon(&file);
    return status;
}

/* ===============================================================================================
 * src/eval/evaluate.c - what a model finds in the images of a data set, as results
 * ============================================================================================ */

/* ---- classes --------------------------------------------------------------------------------- */

/* Weights that name no classes have "class 0" and so on. */
static bool gfli_is_unnamed(const gfl_model_info *info) {
    for (int k = 0; k < info->arch.n_classes; k++) {
        char text[32];
        snprintf(text, sizeof text, "class %d", k);
        if (strcmp(info->classes[k].name, text) != 0) return false;
    }
    return true;
}

/* Every class of the data set as the model's, or -1. */
static gfl_status gfli_match_theirs(gfl_context *context, const gfl_model_info *info,
                                    const gfl_dataset *dataset, const gfl_rename *renames,
                                    int n_renames, int *label) {
    const int n = dataset->n_classes;
    if (n_renames != 0 || n != info->arch.n_classes || !gfli_is_unnamed(info))
        return gfl_match_classes(context, info->classes, info->arch.n_classes, dataset->classes, n,
                                 renames, n_renames, label);
    gfli_log(context, GFL_LOG_WARNING,
             "the weights do not name their classes; they are taken in the data set's order");
    for (int j = 0; j < n; j++) label[j] = j;
    return GFL_OK;
}

/* A class that the model does not know may stand in the data set as long as no box has it. */
static gfl_status gfli_check_known(gfl_context *context, const gfl_model_info *info,
                                   const gfl_dataset *dataset, int *label) {
    enum { UNKNOWN = -2 };
    int n_common = 0, n_unknown = 0, first = -1;
    char theirs[GFLI_QUOTED], ours[GFLI_QUOTED];
    for (int i = 0; i < dataset->n_annotations; i++) {
        int *of = &label[dataset->annotations[i].label];
        if (*of < 0) *of = UNKNOWN;
    }
    for (int j = dataset->n_classes - 1; j >= 0; j--) {
        n_common += label[j] >= 0;
        n_unknown += label[j] == UNKNOWN;
        if (label[j] == UNKNOWN) first = j;
    }
    gfli_quote(dataset->classes[first < 0 ? 0 : first].name, theirs, sizeof theirs);
    gfli_quote(info->classes[0].name, ours, sizeof ours);
    if (n_common == 0)
        return gfli_error(context, GFL_E_MISMATCH,
                          "the model and the data set have no class in common: the %d classes of "
                          "the model begin with %s, the %d of the data set with %s",
                          info->arch.n_classes, ours, dataset->n_classes,
                          gfli_quote(dataset->classes[0].name, theirs, sizeof theirs));
    if (n_unknown == 0) return GFL_OK;
    return gfli_error(context, GFL_E_MISMATCH,
                      "the data set has a class %s that the model does not know (%d such in all); "
                      "its %d classes begin with %s",
                      theirs, n_unknown, info->arch.n_classes, ours);
}

/* From the model's label of each class of the data set to the data set's of each of the model. */
static gfl_status gfli_turn_map(gfl_context *context, const gfl_model_info *info,
                                const gfl_dataset *dataset, const int *label, int *map) {
    const gfl_class *classes = dataset->classes;
    for (int k = 0; k < info->arch.n_classes; k++) map[k] = -1;
    for (int j = 0; j < dataset->n_classes; j++) {
        if (label[j] < 0) continue;
        if (map[label[j]] >= 0)
            return gfli_error(context, GFL_E_MISMATCH,
                              "two classes of the data set, %s and %s, would be one class of the "
                              "model, %s: rename another one",
                              classes[map[label[j]]].name, classes[j].name,
                              info->classes[label[j]].name);
        map[label[j]] = j;
    }
    return GFL_OK;
}

gfl_status gfl_match_dataset(gfl_context *context, const gfl_model *model,
                             const gfl_dataset *dataset, const gfl_rename *renames, int n_renames,
                             int *map) {
    gfl_model_info info;
    int *label;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, model);
    GFLI_NOT_NULL(context, dataset);
    GFLI_NOT_NULL(context, map);
    gfl_model_get_info(model, &info);
    GFLI_TRY(gfli_dataset_check_names(context, dataset));
    GFLI_TRY(gfli_alloc(context, (size_t)dataset->n_classes, sizeof *label, "classes", &label));
    gfl_status status = gfli_match_theirs(context, &info, dataset, renames, n_renames, label);
    if (status == GFL_OK) status = gfli_check_known(context, &info, dataset, label);
    if (status == GFL_OK) status = gfli_turn_map(context, &info, dataset, label, map);
    gfli_free(context, label);
    return status;
}

/* ---- images ---------------------------------------------------------------------------------- */

/* One image of a batch that waits for the network. */
typedef struct gfli_waiting {
    gfl_pixels pixels;
    int index;
} gfli_waiting;

typedef struct gfli_evaluation {
    gfl_evaluator *evaluator;
    gfl_detector *detector;
    gfl_evaluate_desc desc;
    gfl_detect_opts opts;
    int *map; /* label of the model to label of the data set, or -1 */
    gfli_waiting *waiting;
    gfl_image *images; /* [batch], of those that wait, as are found */
    gfl_detection_list *found;
    int n; /* that wait */
    gfl_detection *own;
    size_t own_capacity;
} gfli_evaluation;

/* The detections of an image under the data set's labels, without those of other classes. */
static gfl_status gfli_add_found(gfli_evaluation *v, int image, const gfl_detection_list *found) {
    gfl_context *context = v->evaluator->context;
    int n = 0;
    GFLI_TRY(gfli_reserve(context, &v->own, &v->own_capacity, (size_t)found->count, sizeof *v->own,
                          "detections"));
    for (int i = 0; i < found->count; i++) {
        v->own[n] = found->items[i];
        v->own[n].label = v->map[found->items[i].label];
        n += v->own[n].label >= 0;
    }
    return gfl_evaluator_add_detections(v->evaluator, image, v->own, n);
}

static gfl_status gfli_evaluate_batch(gfli_evaluation *v) {
    const int n = v->n;
    for (int i = 0; i < n; i++) {
        const gfl_pixels *p = &v->waiting[i].pixels;
        v->images[i] = gfl_image_from_rgb(p->rgb, p->width, p->height);
    }
    gfl_status status = gfl_detect(v->detector, v->images, n, &v->opts, v->found);
    for (int i = 0; i < n && status == GFL_OK; i++)
        status = gfli_add_found(v, v->waiting[i].index, &v->found[i]);
    for (int i = 0; i < n; i++) gfl_pixels_free(v->evaluator->context, &v->waiting[i].pixels);
    v->n = 0;
    return status;
}

/* With skip_unreadable, an image that cannot be read is not evaluated. */
static gfl_status gfli_take_picture(gfli_evaluation *v, int image) {
    gfl_evaluator *e = v->evaluator;
    gfli_waiting *w = &v->waiting[v->n];
    const gfl_status status = gfl_dataset_read(e->context, e->dataset, image, &w->pixels);
    if (status != GFL_OK && e->dataset->skip_unreadable && gfli_is_unreadable(status)) {
        gfli_log(e->context, GFL_LOG_WARNING, "left out: %s", e->context->error);
        return gfl_evaluator_leave_out(e, image);
    }
    GFLI_TRY(status);
    w->index = image;
    v->n++;
    return GFL_OK;
}

static gfl_status gfli_evaluate_images(gfli_evaluation *v) {
    gfl_evaluator *e = v->evaluator;
    const int n = e->dataset->n_images;
    for (int i = 0; i < n; i++) {
        if (e->image_rank[i] >= 0) GFLI_TRY(gfli_take_picture(v, i));
        if (v->n == v->desc.batch || (v->n > 0 && i + 1 == n)) GFLI_TRY(gfli_evaluate_batch(v));
        if (v->desc.progress && v->desc.progress(v->desc.user, i + 1 - v->n, n) != 0)
            return gfli_error(e->context, GFL_E_STOPPED,
                              "the evaluation was stopped by its progress callback after %d of %d "
                              "images",
                              i + 1 - v->n, n);
    }
    return GFL_OK;
}

static gfl_status gfli_open_evaluation(gfli_evaluation *v, const gfl_model *model) {
    gfl_context *context = v->evaluator->context;
    const size_t batch = (size_t)v->desc.batch;
    gfl_model_info info;
    gfl_model_get_info(model, &info);
    GFLI_TRY(gfli_alloc(context, (size_t)info.arch.n_classes, sizeof *v->map, "classes", &v->map));
    GFLI_TRY(gfli_calloc(context, batch, sizeof *v->waiting, "a batch", &v->waiting));
    GFLI_TRY(gfli_alloc(context, batch, sizeof *v->images, "a batch", &v->images));
    GFLI_TRY(gfli_alloc(context, batch, sizeof *v->found, "a batch", &v->found));
    GFLI_TRY(gfl_match_dataset(context, model, v->evaluator->dataset, v->desc.renames,
                               v->desc.n_renames, v->map));
    return gfl_detector_create(context, model, NULL, &v->detector);
}

static void gfli_close_evaluation(gfli_evaluation *v) {
    gfl_context *context = v->evaluator->context;
    gfl_detector_destroy(v->detector);
    for (int i = 0; i < v->n; i++) gfl_pixels_free(context, &v->waiting[i].pixels);
    gfli_free(context, v->map);
    gfli_free(context, v->waiting);
    gfli_free(context, v->images);
    gfli_free(context, v->found);
    gfli_free(context, v->own);
}

gfl_status gfl_evaluator_add_model(gfl_evaluator *evaluator, const gfl_model *model,
                                   const gfl_evaluate_desc *desc) {
    gfli_evaluation v;
    memset(&v, 0, sizeof v);
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, model);
    v.evaluator = evaluator;
    if (desc) v.desc = *desc;
    if (v.desc.batch == 0) v.desc.batch = 1;
    GFLI_DEMAND(evaluator->context, v.desc.batch >= 1 && v.desc.batch <= GFLI_MAX_BATCH,
                "gfl_evaluator_add_model: batch is %d; it must be 1..%d", v.desc.batch,
                GFLI_MAX_BATCH);
    if (v.desc.detect) v.opts = *v.desc.detect;
    v.opts.no_clip = 1;
    gfl_status status = gfli_open_evaluation(&v, model);
    if (status == GFL_OK) status = gfli_evaluate_images(&v);
    gfli_close_evaluation(&v);
    return status;
}

gfl_status gfl_evaluate(gfl_context *context, const gfl_model *model, const gfl_dataset *dataset,
                        const gfl_evaluate_desc *desc, gfl_eval_result *out) {
    gfl_evaluator *evaluator;
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfl_evaluator_create(context, dataset, NULL, &evaluator));
    gfl_status status = gfl_evaluator_add_model(evaluator, model, desc);
    if (status == GFL_OK) status = gfl_evaluator_run(evaluator, out);
    gfl_evaluator_destroy(evaluator);
    return status;
}

/* ===============================================================================================
 * src/train/sampler.c - the order of images in an epoch
 * ============================================================================================ */

/* Fisher and Yates' shuffle of 0..n-1. */
static void gfli_sampler_shuffle(uint64_t seed, int epoch, int *order, int n) {
    gfli_rng rng = gfli_rng_make(seed, (uint64_t)epoch, 0, GFLI_DRAW_ORDER);
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = 0; i + 1 < n; i++) {
        int j = i + gfli_rng_below(&rng, n - i), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

void gfli_sampler_order(uint64_t seed, int epoch, int n, int batch, const bool *portrait,
                        int *order, int *scratch) {
    if (!portrait) {
        gfli_sampler_shuffle(seed, epoch, order, n);
        return;
    }
    int *shuffled = scratch, *bucket[2], held[2] = {0, 0}, done = 0;
    bucket[0] = scratch + n; /* portrait */
    bucket[1] = bucket[0] + batch;
    gfli_sampler_shuffle(seed, epoch, shuffled, n);
    for (int i = 0; i < n; i++) {
        int kind = portrait[shuffled[i]] ? 0 : 1;
        bucket[kind][held[kind]++] = shuffled[i];
        if (held[kind] < batch) continue;
        memcpy(order + done, bucket[kind], (size_t)batch * sizeof *order);
        done += batch;
        held[kind] = 0;
    }
    memcpy(order + done, bucket[0], (size_t)held[0] * sizeof *order);
    memcpy(order + done + held[0], bucket[1], (size_t)held[1] * sizeof *order);
}

/* ===============================================================================================
 * src/train/loader.c - threads that decode and augment ahead
 * ============================================================================================ */

/* Batches are a ring of three.  The caller holds the first, and those behind it are being made.
 *
 *   1. gfli_loader_next takes back the batch that the caller had, and schedules the next ones.
 *      Their images follow from the order of the epoch.
 *   2. Each sample of a scheduled batch is a task.  Threads take tasks in order, and so does the
 *      caller's thread while it waits for its batch.
 *   3. A task reads the picture, draws its scale and whether it is mirrored, resizes it, and
 *      moves its boxes along.
 *
 * What a sample becomes depends on its image, the epoch and the options alone, so it does not
 * matter who makes it or when.  A batch that failed is made again by the next call. */

enum { GFLI_LOADER_DEPTH = 3, GFLI_LOADER_MIN_SIDE = 32 };

typedef struct gfli_loader_memory {
    size_t pixels, boxes, labels; /* capacities of a sample's buffers */
} gfli_loader_memory;

typedef struct gfli_loader_slot {
    gfli_batch batch;
    gfli_loader_memory *memory; /* [opts.batch], as batch.samples */
    int taken, left;            /* samples handed out; not yet finished */
    gfl_status status;
    int failed; /* the first sample that failed */
    char error[1024];
} gfli_loader_slot;

typedef struct gfli_loader_worker {
    gfli_loader *loader;
    gfl_context *context;
    gfli_thread thread;
    uint8_t *scratch;
    size_t scratch_size;
} gfli_loader_worker;

struct gfli_loader {
    gfl_context *context;
    const gfl_dataset *dataset;
    gfli_loader_opts opts;
    int *images; /* [n_images] of the data set that are trained on */
    bool *portrait;
    int *order, *order_scratch; /* of order_epoch: places in images */
    int n_images, n_batches, order_epoch;
    char *told; /* [images of the data set]: it is known that it cannot be read */
    int n_told;

    gfli_loader_slot ring[GFLI_LOADER_DEPTH];
    int depth;
    uint64_t first, last; /* scheduled batches, counted since the start; slot = number % depth */
    int epoch, index;     /* of the batch to schedule next */
    bool holding;         /* the caller has batch `first` */

    gfli_loader_worker *workers; /* [n_threads + 1]: the caller's comes first */
    int busy;                    /* tasks being worked on */
    bool stop;
    gfli_mutex mutex;
    gfli_condition work, done;
};

/* Images of a batch of all ranks. */
static int gfli_loader_together(const gfli_loader *l) {
    return l->context->ranks.n_ranks * l->opts.batch;
}

/* ---- one sample ------------------------------------------------------------------------------ */

static bool gfli_loader_flips(const gfli_loader *l, int epoch, int image) {
    gfli_rng rng = gfli_rng_make(l->opts.seed, (uint64_t)epoch, (uint64_t)image, GFLI_DRAW_FLIP);
    return !l->opts.no_flip && gfli_rng_uniform(&rng) < 0.5;
}

/* The size of the resized image, and what its boxes are multiplied with. */
static void gfli_loader_size(const gfli_loader *l, int epoch, const gfl_pixels *pixels,
                             gfli_sample *s, double scale[2]) {
    int scale_short = l->opts.scale_short, least = l->opts.scale_short_min;
    gfli_rng rng =
        gfli_rng_make(l->opts.seed, (uint64_t)epoch, (uint64_t)s->image, GFLI_DRAW_SCALE);
    if (least > 0) scale_short = least + gfli_rng_below(&rng, scale_short - least + 1);
    gfli_resized_size(pixels->width, pixels->height, l->opts.scale_long, scale_short, &s->width,
                      &s->height);
    gfli_box_scale(l->opts.one_scale, pixels->width, pixels->height, l->opts.scale_long,
                   scale_short, &scale[0], &scale[1]);
}

/* The boxes to train on, in pixels of the resized and perhaps mirrored image: corners are rounded
 * to float once, then scaled, clipped and mirrored in float (spec 7.2 to 7.5). */
static void gfli_loader_boxes(const gfl_image_info *info, const double scale[2], int inclusive,
                              gfli_sample *s) {
    const float scale_x = (float)scale[0], scale_y = (float)scale[1];
    const float w = (float)(s->width - inclusive), h = (float)(s->height - inclusive);
    s->n_boxes = 0;
    for (int i = 0; i < info->n_annotations; i++) {
        const gfl_annotation *a = &info->annotations[i];
        if (a->use != GFL_ANNOTATION_TRAINED) continue;
        float x1 = (float)a->x * scale_x, x2 = (float)(a->x + a->w - inclusive) * scale_x;
        float y1 = (float)a->y * scale_y, y2 = (float)(a->y + a->h - inclusive) * scale_y;
        x1 = fminf(fmaxf(x1, 0), w);
        x2 = fminf(fmaxf(x2, 0), w);
        float *b = s->boxes + 4 * (size_t)s->n_boxes;
        b[0] = s->flip ? w - x2 : x1;
        b[1] = fminf(fmaxf(y1, 0), h);
        b[2] = s->flip ? w - x1 : x2;
        b[3] = fminf(fmaxf(y2, 0), h);
        s->labels[s->n_boxes++] = a->label;
    }
}

static gfl_status gfli_loader_fill(gfli_loader_worker *w, const gfl_image_info *info,
                                   const gfl_pixels *pixels, int epoch, gfli_sample *s,
                                   gfli_loader_memory *m) {
    const gfli_loader *l = w->loader;
    gfl_context *context = w->context;
    double scale[2];
    gfli_loader_size(l, epoch, pixels, s, scale);
    s->flip = gfli_loader_flips(l, epoch, s->image);
    size_t n = (size_t)info->n_annotations, n_pixels = (size_t)s->width * (size_t)s->height;
    GFLI_TRY(gfli_reserve(context, &s->pixels, &m->pixels, 3 * n_pixels, 1, "a training image"));
    GFLI_TRY(gfli_reserve(context, &s->boxes, &m->boxes, 4 * n, sizeof *s->boxes, "boxes"));
    GFLI_TRY(gfli_reserve(context, &s->labels, &m->labels, n, sizeof *s->labels, "labels"));
    gfli_loader_boxes(info, scale, l->opts.inclusive, s);
    size_t scratch =
        gfli_cpu.infer.resize_scratch(context, pixels->width, pixels->height, s->width, s->height);
    GFLI_TRY(gfli_reserve(context, &w->scratch, &w->scratch_size, scratch, 1, "resizing"));
    gfl_image image;
    memset(&image, 0, sizeof image);
    image.pixels = pixels->rgb;
    image.width = pixels->width;
    image.height = pixels->height;
    image.format = GFL_FORMAT_RGB;
    gfli_cpu.infer.resize(context, &image, false, l->opts.bgr, s->width, s->height, s->pixels,
                          w->scratch);
    return GFL_OK;
}

/* Tell the first time that a picture cannot be read, with how many there are by now. */
static void gfli_loader_tell(gfli_loader_worker *w, int image) {
    gfli_loader *l = w->loader;
    if (__atomic_exchange_n(&l->told[image], 1, __ATOMIC_RELAXED)) return;
    int n = __atomic_add_fetch(&l->n_told, 1, __ATOMIC_RELAXED);
    gfli_log(w->context, GFL_LOG_WARNING,
             "%.700s; the next picture of the data set stands in for it (%d such so far)",
             w->context->error, n);
}

/* What a check has found is not tried again. */
static gfl_status gfli_loader_try(gfli_loader_worker *w, int image, gfl_pixels *pixels) {
    const gfl_image_info *info = &w->loader->dataset->images[image];
    char name[GFLI_QUOTED];
    if (info->unreadable)
        return gfli_error(w->context, GFL_E_DATA, "%s cannot be read",
                          gfli_quote(info->file_name, name, sizeof name));
    const gfl_status status = gfl_dataset_read(w->context, w->loader->dataset, image, pixels);
    if (w->loader->dataset->skip_unreadable && gfli_is_unreadable(status))
        gfli_loader_tell(w, image);
    return status;
}

/* The pixels of the sample's picture.  With skip_unreadable the next that can be read stands in for
 * one that cannot, which does not depend on who reads it.  The order of an epoch does not depend on
 * which can be read, so that a run goes on as it began when one has gone bad since. */
static gfl_status gfli_loader_read(gfli_loader_worker *w, gfli_sample *s, gfl_pixels *pixels) {
    const gfli_loader *l = w->loader;
    int at = 0;
    gfl_status status = gfli_loader_try(w, s->image, pixels);
    if (!gfli_is_unreadable(status) || !l->dataset->skip_unreadable) return status;
    while (l->images[at] != s->image) at++;
    for (int i = 1; i < l->n_images && gfli_is_unreadable(status); i++) {
        s->image = l->images[(at + i) % l->n_images];
        status = gfli_loader_try(w, s->image, pixels);
    }
    return status;
}

static gfl_status gfli_loader_sample(gfli_loader_worker *w, gfli_loader_slot *slot, int i) {
    gfli_sample *s = &slot->batch.samples[i];
    gfl_image_info info;
    gfl_pixels pixels;
    GFLI_TRY(gfli_loader_read(w, s, &pixels));
    info = w->loader->dataset->images[s->image];
    gfl_status status = gfli_loader_fill(w, &info, &pixels, slot->batch.epoch, s, &slot->memory[i]);
    gfl_pixels_free(w->context, &pixels);
    return status;
}

/* ---- scheduling; everything from here to the threads runs with the mutex held ---------------- */

static void gfli_loader_arm(gfli_loader_slot *slot) {
    slot->taken = 0;
    slot->left = slot->batch.n;
    slot->status = GFL_OK;
    slot->failed = -1;
}

static void gfli_loader_schedule(gfli_loader *l) {
    if (l->index >= l->n_batches) {
        l->index = 0;
        l->epoch++;
    }
    if (l->order_epoch != l->epoch) {
        gfli_sampler_order(l->opts.seed, l->epoch, l->n_images, gfli_loader_together(l),
                           l->portrait, l->order, l->order_scratch);
        l->order_epoch = l->epoch;
    }
    gfli_loader_slot *slot = &l->ring[l->last++ % (uint64_t)l->depth];
    const int start = l->index * gfli_loader_together(l) + l->context->ranks.rank * l->opts.batch;
    slot->batch.epoch = l->epoch;
    slot->batch.index = l->index++;
    /* The last batch is filled up from the epoch's first images, as MMDetection 2's GroupSampler
     * does: a full learning rate on what may be one odd image can ruin a run. */
    slot->batch.n = l->opts.batch;
    for (int i = 0; i < slot->batch.n; i++)
        slot->batch.samples[i].image = l->images[l->order[(start + i) % l->n_images]];
    gfli_loader_arm(slot);
}

static void gfli_loader_top_up(gfli_loader *l) {
    while (l->last < l->first + (uint64_t)l->depth) gfli_loader_schedule(l);
    gfli_condition_broadcast(&l->work);
}

static gfli_loader_slot *gfli_loader_find(gfli_loader *l) {
    for (uint64_t i = l->first; i < l->last; i++) {
        gfli_loader_slot *slot = &l->ring[i % (uint64_t)l->depth];
        if (slot->taken < slot->batch.n) return slot;
    }
    return NULL;
}

/* Take the slot's next sample and make it, without the mutex meanwhile. */
static void gfli_loader_work(gfli_loader_worker *w, gfli_loader_slot *slot) {
    gfli_loader *l = w->loader;
    int i = slot->taken++;
    l->busy++;
    gfli_mutex_unlock(&l->mutex);
    gfl_status status = gfli_loader_sample(w, slot, i);
    gfli_mutex_lock(&l->mutex);
    if (status != GFL_OK && (slot->failed < 0 || i < slot->failed)) {
        slot->failed = i;
        slot->status = status;
        memcpy(slot->error, w->context->error, sizeof slot->error);
    }
    slot->left--;
    l->busy--;
    if (slot->left == 0 || l->busy == 0) gfli_condition_broadcast(&l->done);
}

static void gfli_loader_thread(void *p) {
    gfli_loader_worker *w = (gfli_loader_worker *)p;
    gfli_loader *l = w->loader;
    gfli_mutex_lock(&l->mutex);
    while (!l->stop) {
        gfli_loader_slot *slot = gfli_loader_find(l);
        if (slot)
            gfli_loader_work(w, slot);
        else
            gfli_condition_wait(&l->work, &l->mutex);
    }
    gfli_mutex_unlock(&l->mutex);
}

/* ---- the caller's side ----------------------------------------------------------------------- */

int gfli_loader_images(const gfli_loader *loader) {
    return loader->n_images;
}

int gfli_loader_batches(const gfli_loader *loader, int epoch) {
    (void)epoch;
    return loader->n_batches;
}

gfl_status gfli_loader_start(gfli_loader *l, int epoch, int index) {
    if (epoch < 0 || index < 0 || index > l->n_batches)
        return gfli_error(l->context, GFL_E_ARG,
                          "there is no batch %d of epoch %d: an epoch has %d", index, epoch,
                          l->n_batches);
    gfli_mutex_lock(&l->mutex);
    l->last = l->first; /* nothing left to take */
    l->holding = false;
    while (l->busy > 0) gfli_condition_wait(&l->done, &l->mutex);
    l->epoch = epoch;
    l->index = index;
    gfli_loader_top_up(l);
    gfli_mutex_unlock(&l->mutex);
    return GFL_OK;
}

static void gfli_loader_measure(gfli_batch *batch) {
    batch->width = batch->height = 0;
    for (int i = 0; i < batch->n; i++) {
        batch->width = gfli_max(batch->width, gfli_pad32(batch->samples[i].width));
        batch->height = gfli_max(batch->height, gfli_pad32(batch->samples[i].height));
    }
}

gfl_status gfli_loader_next(gfli_loader *l, const gfli_batch **out) {
    *out = NULL;
    gfli_mutex_lock(&l->mutex);
    if (l->holding) l->first++;
    l->holding = false;
    gfli_loader_top_up(l);
    gfli_loader_slot *slot = &l->ring[l->first % (uint64_t)l->depth];
    while (slot->left > 0) {
        if (slot->taken < slot->batch.n)
            gfli_loader_work(&l->workers[0], slot);
        else
            gfli_condition_wait(&l->done, &l->mutex);
    }
    gfl_status status = slot->status;
    if (status == GFL_OK) {
        l->holding = true;
        gfli_loader_measure(&slot->batch);
        *out = &slot->batch;
    } else {
        (void)gfli_error(l->context, status, "%s", slot->error);
        gfli_loader_arm(slot); /* the next call tries again */
    }
    gfli_mutex_unlock(&l->mutex);
    return status;
}

/* ---- life cycle ------------------------------------------------------------------------------ */

static gfl_status gfli_loader_check_opts(gfl_context *context, const gfli_loader_opts *o) {
    if (o->batch < 1 || o->batch > 65536)
        return gfli_error(context, GFL_E_ARG, "batch is %d; it must be 1..65536", o->batch);
    if (o->scale_long < 1 || o->scale_short < 1 || o->scale_long > GFL_MAX_SIDE ||
        o->scale_short > o->scale_long)
        return gfli_error(
            context, GFL_E_ARG,
            "scale_long is %d and scale_short is %d; 1 <= short <= long <= %d must hold",
            o->scale_long, o->scale_short, GFL_MAX_SIDE);
    if (o->scale_short_min < 0 || o->scale_short_min > o->scale_short)
        return gfli_error(context, GFL_E_ARG,
                          "scale_short_min is %d; it must be 0..%d, which is scale_short",
                          o->scale_short_min, o->scale_short);
    if (o->n_threads < 0 || o->n_threads > GFLI_MAX_THREADS)
        return gfli_error(context, GFL_E_ARG,
                          "%d loader threads were asked for; there can be 0..%d", o->n_threads,
                          GFLI_MAX_THREADS);
    return GFL_OK;
}

/* The official recipe leaves out what has no annotation at all, crowds counting as one, and small
 * pictures; an image whose annotations are all of no use stays, as background. */
static bool gfli_loader_wants(const gfli_loader *l, const gfl_image_info *image) {
    if (!l->opts.drop_empty) return true;
    bool is_small = image->width > 0 && image->height > 0 &&
                    gfli_min(image->width, image->height) < GFLI_LOADER_MIN_SIDE;
    return image->n_annotations > 0 && !is_small;
}

static gfl_status gfli_loader_choose(gfli_loader *l) {
    int n = gfl_dataset_count_images(l->dataset);
    const int n_ranks = l->context->ranks.n_ranks;
    const size_t size = (size_t)n;
    GFLI_TRY(gfli_alloc(l->context, size, sizeof *l->images, "the images", &l->images));
    GFLI_TRY(gfli_alloc(l->context, size, sizeof *l->order, "the images", &l->order));
    GFLI_TRY(gfli_calloc(l->context, size, 1, "the images", &l->told));
    if (!l->opts.no_grouping)
        GFLI_TRY(gfli_alloc(l->context, size, sizeof *l->portrait, "the images", &l->portrait));
    for (int i = 0; i < n; i++) {
        const gfl_image_info *image = &l->dataset->images[i];
        if (!gfli_loader_wants(l, image)) continue;
        if (l->portrait) l->portrait[l->n_images] = image->width < image->height;
        l->images[l->n_images++] = i;
    }
    if (l->n_images == 0)
        return gfli_error(l->context, GFL_E_DATA,
                          "%s: there is no image to train on: it has %d images%s", l->dataset->name,
                          n, n > 0 ? ", none of which has an annotation and can be read" : "");
    l->opts.batch = gfli_rank_batch(l->opts.batch, l->n_images, n_ranks);
    l->n_batches = gfli_epoch_batches(l->n_images, l->opts.batch, n_ranks);
    l->order_epoch = -1;
    return gfli_alloc(l->context, size + 2 * (size_t)gfli_loader_together(l),
                      sizeof *l->order_scratch, "the images", &l->order_scratch);
}

static gfl_status gfli_loader_prepare_slots(gfli_loader *l) {
    size_t batch = (size_t)l->opts.batch;
    l->depth = l->opts.n_threads > 0 ? GFLI_LOADER_DEPTH : 1;
    for (int i = 0; i < l->depth; i++) {
        gfli_loader_slot *slot = &l->ring[i];
        GFLI_TRY(gfli_calloc(l->context, batch, sizeof *slot->batch.samples, "a batch",
                             &slot->batch.samples));
        GFLI_TRY(gfli_calloc(l->context, batch, sizeof *slot->memory, "a batch", &slot->memory));
    }
    return GFL_OK;
}

static gfl_status gfli_loader_start_threads(gfli_loader *l) {
    int n = l->opts.n_threads;
    GFLI_TRY(
        gfli_calloc(l->context, (size_t)n + 1, sizeof *l->workers, "loader threads", &l->workers));
    for (int i = 0; i <= n; i++) l->workers[i].loader = l;
    l->workers[0].context = l->context;
    for (int i = 1; i <= n; i++) {
        gfli_loader_worker *w = &l->workers[i];
        GFLI_TRY(gfli_context_child(l->context, &w->context));
        GFLI_TRY(gfli_thread_start(l->context, &w->thread, gfli_loader_thread, w));
    }
    return GFL_OK;
}

gfl_status gfli_loader_create(gfl_context *context, const gfl_dataset *dataset,
                              const gfli_loader_opts *opts, gfli_loader **out) {
    gfli_loader *l;
    *out = NULL;
    GFLI_TRY(gfli_loader_check_opts(context, opts));
    GFLI_TRY(gfli_calloc(context, 1, sizeof *l, "a loader", &l));
    l->context = context;
    l->dataset = dataset;
    l->opts = *opts;
    gfli_mutex_init(&l->mutex);
    gfli_condition_init(&l->work);
    gfli_condition_init(&l->done);
    gfl_status status = gfli_loader_choose(l);
    if (status == GFL_OK) status = gfli_loader_prepare_slots(l);
    if (status == GFL_OK) status = gfli_loader_start_threads(l);
    if (status != GFL_OK) {
        gfli_loader_destroy(l);
        return status;
    }
    *out = l;
    return GFL_OK;
}

static void gfli_loader_free_slot(gfli_loader *l, gfli_loader_slot *slot) {
    for (int i = 0; slot->batch.samples && i < l->opts.batch; i++) {
        gfli_free(l->context, slot->batch.samples[i].pixels);
        gfli_free(l->context, slot->batch.samples[i].boxes);
        gfli_free(l->context, slot->batch.samples[i].labels);
    }
    gfli_free(l->context, slot->batch.samples);
    gfli_free(l->context, slot->memory);
}

void gfli_loader_destroy(gfli_loader *l) {
    if (!l) return;
    gfli_mutex_lock(&l->mutex);
    l->stop = true;
    gfli_condition_broadcast(&l->work);
    gfli_mutex_unlock(&l->mutex);
    for (int i = 0; l->workers && i <= l->opts.n_threads; i++) {
        gfli_thread_join(&l->workers[i].thread);
        gfli_free(l->context, l->workers[i].scratch);
        if (i > 0) gfl_context_destroy(l->workers[i].context);
    }
    for (int i = 0; i < GFLI_LOADER_DEPTH; i++) gfli_loader_free_slot(l, &l->ring[i]);
    gfli_condition_destroy(&l->done);
    gfli_condition_destroy(&l->work);
    gfli_mutex_destroy(&l->mutex);
    gfli_free(l->context, l->workers);
    gfli_free(l->context, l->images);
    gfli_free(l->context, l->portrait);
    gfli_free(l->context, l->told);
    gfli_free(l->context, l->order);
    gfli_free(l->context, l->order_scratch);
    gfli_free(l->context, l);
}

/* ===============================================================================================
 * src/train/backward.c - the backward pass over a plan
 * ============================================================================================ */

gfl_status gfli_gradients_create(gfl_context *context, const gfl_model *model, int frozen_stages,
                                 gfli_gradients *out) {
    memset(out, 0, sizeof *out);
    GFLI_TRY(gfli_alloc(context, (size_t)model->n_params, sizeof *out->offset, "gradients",
                        &out->offset));
    out->first = gfli_first_trained(model, frozen_stages);
    out->floats = model->n_trained - out->first;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        const bool trained = gfli_is_trained(p, frozen_stages);
        out->offset[i] = trained ? p->offset - out->first : GFLI_NO_GRADIENT;
    }
    return GFL_OK;
}

void gfli_gradients_destroy(gfl_context *context, gfli_gradients *gradients) {
    gfli_free(context, gradients->offset);
    memset(gradients, 0, sizeof *gradients);
}

/* ---- arrangement ----------------------------------------------------------------------------- */

/* Step i runs forward at moment i and backward at moment 2 n - i, with the losses at moment n
 * between. */
typedef struct gfli_arranger {
    gfl_context *context;
    const gfl_model *model;
    const gfli_train_ops *ops;
    gfli_plan *plan;
    gfli_backward *backward;
    int frozen;
    bool *wanted; /* [n_slots] does the slot have a gradient at all? */
} gfli_arranger;

/* What the backward pass looks at again. */
static void gfli_need_again(gfli_arranger *a) {
    gfli_plan *plan = a->plan;
    for (int i = 0; i < plan->n_steps; i++) {
        const gfli_step *s = &plan->steps[i];
        const int again = 2 * plan->n_steps - i;
        if (s->stage <= a->frozen) continue;
        a->wanted[gfli_plan_root(plan, s->out)] = true;
        if (s->op != GFLI_OP_UPSAMPLE_ADD) gfli_plan_need(plan, s->in, again);
        if (s->offset >= 0) gfli_plan_need(plan, s->offset, again);
        if (s->relu) gfli_plan_need(plan, s->out, again);
    }
}

/* Use the gradient of a slot at a moment; returns whether it was there before. */
static bool gfli_need_grad(gfli_arranger *a, int slot, int moment) {
    gfli_plan *plan = a->plan;
    const int root = gfli_plan_root(plan, slot);
    int *grad = &a->backward->piece[root];
    const bool there = *grad >= 0;
    if (!there) {
        *grad = plan->n_pieces++;
        plan->pieces[*grad].bytes = gfli_map_bytes(&plan->maps[root].map);
        plan->pieces[*grad].last = -1;
    }
    gfli_need(&plan->pieces[*grad], moment);
    return there;
}

/* The gradient of `to` takes over the memory of the gradient of `from`, which has done its work. */
static void gfli_take_grad(gfli_arranger *a, int from, int to) {
    int *piece = a->backward->piece;
    piece[gfli_plan_root(a->plan, to)] = piece[gfli_plan_root(a->plan, from)];
}

static void gfli_need_bytes(size_t *most, size_t bytes) {
    if (bytes > *most) *most = bytes;
}

static void gfli_play_conv(gfli_arranger *a, const gfli_step *s, gfli_backward_step *b,
                           int moment) {
    const gfli_layer *layer = &a->model->layers[s->layer];
    const gfli_map *x = &a->plan->maps[s->in].map;
    gfli_need_bytes(&a->backward->scratch_bytes,
                    a->ops->conv_grad_scratch(a->context, &layer->shape, x));
    b->dx = a->wanted[gfli_plan_root(a->plan, s->in)];
    if (b->dx) {
        b->add = gfli_need_grad(a, s->in, moment);
        gfli_need_bytes(&a->backward->packed_bytes, a->ops->conv_grad_packed_size(&layer->shape));
    }
    int residual = s->residual;
    if (residual < 0 || !a->wanted[gfli_plan_root(a->plan, residual)]) return;
    gfli_take_grad(a, s->out, residual);
}

/* The gradient of the offsets is overwritten: nothing else reads them. */
static void gfli_play_deform(gfli_arranger *a, const gfli_step *s, gfli_backward_step *b,
                             int moment) {
    const gfli_conv_shape *shape = &a->model->layers[s->layer].shape;
    const gfli_map *offset = &a->plan->maps[s->offset].map;
    gfli_need_bytes(&a->backward->scratch_bytes,
                    a->ops->deform_conv_grad_scratch(a->context, shape, offset));
    gfli_need_bytes(&a->backward->packed_bytes, a->ops->deform_conv_grad_packed_size(shape));
    (void)gfli_need_grad(a, s->offset, moment);
    b->dx = a->wanted[gfli_plan_root(a->plan, s->in)];
    if (b->dx) b->add = gfli_need_grad(a, s->in, moment);
}

/* Play the pass, noting who is first to contribute to a gradient.  A map whose place another takes
 * (gfli_net_map.taken) is read by no later step, and its gradient takes the place of the other's.
 * A pyramid is read whole by later steps than its levels are, so a level's gradient is always
 * added. */
static void gfli_play_back(gfli_arranger *a) {
    const gfli_plan *plan = a->plan;
    (void)gfli_need_grad(a, plan->cls, plan->n_steps);
    (void)gfli_need_grad(a, plan->reg, plan->n_steps);
    for (int i = plan->n_steps - 1; i >= 0; i--) {
        const gfli_step *s = &plan->steps[i];
        gfli_backward_step *b = &a->backward->steps[i];
        int moment = 2 * plan->n_steps - i;
        if (s->stage <= a->frozen) continue;
        b->runs = true;
        (void)gfli_need_grad(a, s->out, moment);
        switch (s->op) {
        case GFLI_OP_CONV: gfli_play_conv(a, s, b, moment); break;
        case GFLI_OP_DEFORM_CONV: gfli_play_deform(a, s, b, moment); break;
        case GFLI_OP_MAX_POOL:
        case GFLI_OP_UPSAMPLE_ADD:
            b->dx = a->wanted[gfli_plan_root(plan, s->in)];
            if (b->dx) b->add = gfli_need_grad(a, s->in, moment);
            break;
        case GFLI_OP_GROUP_NORM:
            gfli_need_bytes(&a->backward->scratch_bytes,
                            a->ops->group_norm_grad_scratch(a->context, &plan->maps[s->in].map));
            gfli_take_grad(a, s->out, s->in);
            break;
        case GFLI_OP_LEVEL_SCALE: gfli_take_grad(a, s->out, s->in); break;
        }
    }
}

static gfl_status gfli_backward_alloc(gfli_arranger *a) {
    const size_t n_slots = (size_t)a->plan->n_slots, n_steps = (size_t)a->plan->n_steps;
    gfli_plan *plan = a->plan;
    gfli_backward *b = a->backward;
    GFLI_TRY(gfli_calloc(a->context, n_steps, sizeof *b->steps, "backward pass", &b->steps));
    GFLI_TRY(gfli_calloc(a->context, n_slots, sizeof *b->grads, "backward pass", &b->grads));
    GFLI_TRY(gfli_alloc(a->context, n_slots, sizeof *b->piece, "backward pass", &b->piece));
    for (size_t i = 0; i < n_slots; i++) b->piece[i] = -1;
    GFLI_TRY(gfli_grow(a->context, &plan->pieces, &plan->piece_capacity, 2 * n_slots,
                       sizeof *plan->pieces, "backward pass"));
    return gfli_calloc(a->context, n_slots, sizeof *a->wanted, "backward pass", &a->wanted);
}

gfl_status gfli_backward_create(gfl_context *context, const gfl_model *model,
                                const gfli_train_ops *ops, gfli_plan *plan, int frozen_stages,
                                gfli_backward *out) {
    gfli_arranger a;
    memset(&a, 0, sizeof a);
    memset(out, 0, sizeof *out);
    a.context = context;
    a.model = model;
    a.ops = ops;
    a.plan = plan;
    a.backward = out;
    a.frozen = frozen_stages;
    out->scratch_bytes = plan->scratch_bytes;
    gfl_status status = gfli_backward_alloc(&a);
    if (status == GFL_OK) {
        gfli_plan_live(plan);
        gfli_need_again(&a);
        gfli_play_back(&a);
        status = gfli_plan_place(context, plan);
    }
    gfli_free(context, a.wanted);
    if (status != GFL_OK) gfli_backward_destroy(context, out);
    return status;
}

void gfli_backward_destroy(gfl_context *context, gfli_backward *backward) {
    gfli_free(context, backward->steps);
    gfli_free(context, backward->grads);
    gfli_free(context, backward->piece);
    memset(backward, 0, sizeof *backward);
}

void gfli_backward_bind(const gfli_plan *plan, gfli_backward *backward, void *workspace) {
    for (int i = 0; i < plan->n_slots; i++) {
        const gfli_slot *slot = &plan->maps[i];
        const int piece = backward->piece[gfli_plan_root(plan, i)];
        if (piece < 0) continue;
        backward->grads[i] = slot->map;
        if (slot->parent < 0)
            backward->grads[i].data = (float *)gfli_piece_at(&plan->pieces[piece], workspace);
        else /* a view comes after its parent */
            backward->grads[i] = gfli_map_level(&backward->grads[slot->parent], slot->level);
    }
}

/* ---- the pass -------------------------------------------------------------------------------- */

static float *gfli_gradient_of(const gfli_pass *pass, int param) {
    return param < 0 ? NULL : pass->gradients + pass->layout->offset[param];
}

static void gfli_backward_unfold(const gfli_pass *pass, const gfli_layer *layer) {
    const gfli_param *params = pass->model->params;
    const gfli_unfold call = {&layer->shape,
                              params[layer->weight].data,
                              layer->folded_scale,
                              params[layer->bn_mean].data,
                              params[layer->bn_var].data,
                              GFLI_NORM_EPS,
                              gfli_gradient_of(pass, layer->weight),
                              gfli_gradient_of(pass, layer->bn_beta),
                              gfli_gradient_of(pass, layer->bn_gamma)};
    pass->ops->unfold(pass->context, &call);
}

static void gfli_backward_conv(const gfli_pass *pass, const gfli_step *s,
                               const gfli_backward_step *b) {
    const gfli_train_ops *ops = pass->ops;
    const gfli_layer *layer = &pass->model->layers[s->layer];
    const gfli_map *grads = pass->backward->grads, *dy = &grads[s->out];
    if (s->relu) ops->relu_grad(pass->context, &pass->plan->maps[s->out].map, dy);
    int bias = layer->bn_beta >= 0 ? layer->bn_beta : layer->bias;
    ops->conv_grad_weight(pass->context, &layer->shape, &pass->plan->maps[s->in].map, dy,
                          gfli_gradient_of(pass, layer->weight), gfli_gradient_of(pass, bias),
                          pass->scratch);
    if (layer->bn_gamma >= 0) gfli_backward_unfold(pass, layer);
    if (!b->dx) return;
    ops->conv_grad_pack(pass->context, &layer->shape, pass->model->params[layer->weight].data,
                        layer->folded_scale, pass->packing);
    ops->conv_grad_input(pass->context, &layer->shape, pass->packing, dy, b->add, &grads[s->in],
                         pass->scratch);
}

static void gfli_backward_deform(const gfli_pass *pass, const gfli_step *s,
                                 const gfli_backward_step *b) {
    const gfli_train_ops *ops = pass->ops;
    const gfli_layer *layer = &pass->model->layers[s->layer];
    const gfli_slot *maps = pass->plan->maps;
    const gfli_map *grads = pass->backward->grads, *dy = &grads[s->out];
    if (s->relu) ops->relu_grad(pass->context, &maps[s->out].map, dy);
    ops->deform_conv_grad_pack(pass->context, &layer->shape,
                               pass->model->params[layer->weight].data, layer->folded_scale,
                               pass->packing);
    ops->deform_conv_grad(pass->context, &layer->shape, pass->packing, &maps[s->in].map,
                          &maps[s->offset].map, dy, b->add, b->dx ? &grads[s->in] : NULL,
                          &grads[s->offset], gfli_gradient_of(pass, layer->weight),
                          gfli_gradient_of(pass, layer->bn_beta), pass->scratch);
    gfli_backward_unfold(pass, layer);
}

static void gfli_backward_scale(const gfli_pass *pass, const gfli_step *s) {
    const gfli_map *grads = pass->backward->grads;
    pass->ops->level_scale_grad(pass->context, &pass->plan->maps[s->in].map,
                                pass->model->params[s->scale].data, &grads[s->out], &grads[s->in],
                                gfli_gradient_of(pass, s->scale));
}

void gfli_backward_run(const gfli_pass *pass) {
    const gfli_train_ops *ops = pass->ops;
    const gfli_slot *maps = pass->plan->maps;
    const gfli_map *grads = pass->backward->grads;
    for (int i = pass->plan->n_steps - 1; i >= 0; i--) {
        const gfli_step *s = &pass->plan->steps[i];
        const gfli_backward_step *b = &pass->backward->steps[i];
        if (!b->runs) continue;
        switch (s->op) {
        case GFLI_OP_CONV: gfli_backward_conv(pass, s, b); break;
        case GFLI_OP_DEFORM_CONV: gfli_backward_deform(pass, s, b); break;
        case GFLI_OP_MAX_POOL:
            if (b->dx)
                ops->max_pool_grad(pass->context, &maps[s->in].map, &grads[s->out], b->add,
                                   &grads[s->in]);
            break;
        case GFLI_OP_UPSAMPLE_ADD:
            if (b->dx) ops->upsample_grad(pass->context, &grads[s->out], b->add, &grads[s->in]);
            break;
        case GFLI_OP_GROUP_NORM:
            ops->group_norm_grad(pass->context, &maps[s->in].map, &maps[s->out].map, GFLI_GN_GROUPS,
                                 pass->model->params[s->gamma].data, pass->stats + s->stats,
                                 &grads[s->out], &grads[s->in], gfli_gradient_of(pass, s->gamma),
                                 gfli_gradient_of(pass, s->beta), pass->scratch);
            break;
        case GFLI_OP_LEVEL_SCALE: gfli_backward_scale(pass, s); break;
        }
    }
}

/* ===============================================================================================
 * src/train/learner.c - gradients of one batch, and the update
 * ============================================================================================ */

/* The factors of each trained parameter, on the device. */
static gfl_status gfli_learner_parts(gfli_learner *l) {
    const gfli_dialect *dialect = gfli_dialect_get(l->model->arch.dialect);
    gfli_update_part *parts;
    GFLI_TRY(gfli_alloc(l->context, (size_t)l->model->n_params, sizeof *parts, "update", &parts));
    for (int i = 0; i < l->model->n_params; i++) {
        const gfli_param *p = &l->model->params[i];
        if (l->layout.offset[i] == GFLI_NO_GRADIENT) continue;
        const bool bias = gfli_is_plain_bias(p->name);
        gfli_update_part *part = &parts[l->n_parts++];
        part->first = l->layout.offset[i];
        part->count = p->count;
        part->lr = bias ? dialect->bias_lr : 1;
        part->decay = bias ? dialect->bias_decay : 1;
    }
    const size_t bytes = (size_t)l->n_parts * sizeof *parts;
    const gfl_status status =
        l->model->backend->device.alloc(l->context, bytes, 1, "update", &l->parts);
    if (status == GFL_OK) l->model->backend->device.upload(l->context, l->parts, parts, bytes);
    gfli_free(l->context, parts);
    return status;
}

/* Zeros: the gaps between parameters count in the norm. */
static gfl_status gfli_learner_floats(const gfli_learner *l, const char *what, float **out) {
    const gfli_device_ops *device = &l->model->backend->device;
    GFLI_TRY(device->alloc(l->context, l->layout.floats, sizeof(float), what, out));
    device->zero(l->context, *out, l->layout.floats * sizeof(float));
    return GFL_OK;
}

gfl_status gfli_learner_create(gfl_context *context, gfl_model *model, int frozen_stages,
                               gfli_learner *out) {
    memset(out, 0, sizeof *out);
    out->context = context;
    out->model = model;
    out->ops = gfli_train_ops_of(context);
    if (!out->ops)
        return gfli_error(context, GFL_E_UNSUPPORTED, "%s cannot train; use a context on the CPU",
                          context->device_name);
    out->frozen_stages = frozen_stages;
    gfl_status status = gfli_gradients_create(context, model, frozen_stages, &out->layout);
    if (status == GFL_OK) status = gfli_learner_floats(out, "gradients", &out->gradients);
    if (status == GFL_OK) status = gfli_learner_floats(out, "momentum", &out->momentum);
    if (status == GFL_OK) status = gfli_learner_parts(out);
    if (status == GFL_OK)
        status =
            model->backend->device.alloc(context, 1, sizeof *out->verdict, "update", &out->verdict);
    if (status == GFL_OK) status = gfli_learner_begin(out, 1);
    if (status != GFL_OK) gfli_learner_destroy(out);
    return status;
}

void gfli_train_plan_free(gfli_learner *learner, gfli_train_plan *plan) {
    gfli_backward_destroy(learner->context, &plan->backward);
    gfli_plan_destroy(learner->context, &plan->plan);
    memset(plan, 0, sizeof *plan);
}

void gfli_learner_destroy(gfli_learner *learner) {
    gfl_context *context = learner->context;
    if (!context) return;
    void *const device[] = {
        learner->gradients, learner->momentum, learner->total,  learner->workspace, learner->stats,
        learner->scratch,   learner->packing,  learner->gt,     learner->n_pos,     learner->block,
        learner->parts,     learner->losses,   learner->verdict};
    for (int i = 0; i < GFLI_PLANS; i++) gfli_train_plan_free(learner, &learner->plans[i]);
    for (size_t i = 0; i < GFLI_COUNT(device); i++)
        (learner->model->backend->device.free)(context, device[i]);
    gfli_gradients_destroy(context, &learner->layout);
    gfli_free(context, learner->staging);
    memset(learner, 0, sizeof *learner);
}

/* ---- one batch ------------------------------------------------------------------------------- */

gfl_status gfli_train_plan_create(gfli_learner *learner, int n, int height, int width,
                                  gfli_train_plan *out) {
    GFLI_TRY(
        gfli_plan_create(learner->context, learner->model, n, height, width, true, &out->plan));
    gfl_status status = gfli_backward_create(learner->context, learner->model, learner->ops,
                                             &out->plan, learner->frozen_stages, &out->backward);
    if (status != GFL_OK) gfli_train_plan_free(learner, out);
    return status;
}

static gfl_status gfli_learner_plan(gfli_learner *l, int n, int height, int width) {
    bool known;
    const int at = gfli_recent_find(&l->recent, n, height, width, &known);
    gfli_train_plan *plan = &l->plans[at];
    l->current = NULL;
    if (!known) {
        gfli_train_plan_free(l, plan);
        const gfl_status status = gfli_train_plan_create(l, n, height, width, plan);
        if (status != GFL_OK) gfli_recent_forget(&l->recent, at);
        GFLI_TRY(status);
    }
    l->current = plan;
    return GFL_OK;
}

static gfl_status gfli_learner_reserve(gfli_learner *l) {
    gfl_context *context = l->context;
    const gfli_train_plan *p = l->current;
    GFLI_TRY(gfli_reserve_device(context, &l->workspace, &l->workspace_size,
                                 p->plan.workspace_bytes, 1, "maps of a training step"));
    GFLI_TRY(gfli_reserve_device(context, &l->stats, &l->stats_size, p->plan.stats_floats,
                                 sizeof(float), "statistics"));
    GFLI_TRY(gfli_reserve_device(context, &l->packing, &l->packed_size, p->backward.packed_bytes, 1,
                                 "packed weights"));
    return gfli_reserve_device(context, &l->scratch, &l->scratch_size, p->backward.scratch_bytes, 1,
                               "scratch of a training step");
}

gfl_status gfli_learner_input(gfli_learner *learner, int n, int height, int width,
                              gfli_map *input) {
    GFLI_TRY(gfli_model_pack(learner->model));
    GFLI_TRY(gfli_learner_plan(learner, n, height, width));
    gfl_status status = gfli_learner_reserve(learner);
    gfli_train_plan *p = learner->current;
    if (status != GFL_OK) {
        learner->current = NULL;
        return status;
    }
    gfli_plan_bind(&p->plan, learner->workspace);
    gfli_backward_bind(&p->plan, &p->backward, learner->workspace);
    *input = p->plan.maps[p->plan.input].map;
    return GFL_OK;
}

/* Where a batch's ground truth lies in one block, on the host and on the device alike. */
typedef struct gfli_truth_block {
    gfli_truth *images;
    float *boxes;
    int32_t *labels;
} gfli_truth_block;

static size_t gfli_cut_truths(int n_images, int n_boxes, void *block, gfli_truth_block *out) {
    gfli_cutter c = {(unsigned char *)block, 0};
    out->images = (gfli_truth *)gfli_cut(&c, (size_t)n_images * sizeof *out->images);
    out->boxes = (float *)gfli_cut(&c, (size_t)n_boxes * 4 * sizeof *out->boxes);
    out->labels = (int32_t *)gfli_cut(&c, (size_t)n_boxes * sizeof *out->labels);
    return c.used;
}

/* The targets of all images in one upload. */
static gfl_status gfli_learner_truths(gfli_learner *l, const gfli_target *targets) {
    gfli_truths *out = &l->truths;
    const int n = l->current->plan.batch;
    gfli_truth_block to;
    int n_boxes = 0;
    for (int i = 0; i < n; i++) n_boxes += targets[i].n;
    const size_t bytes = gfli_cut_truths(n, n_boxes, NULL, &to);
    GFLI_TRY(gfli_reserve(l->context, &l->staging, &l->staging_size, bytes, 1, "targets"));
    GFLI_TRY(gfli_reserve_device(l->context, &l->block, &l->block_size, bytes, 1, "targets"));
    (void)gfli_cut_truths(n, n_boxes, l->staging, &to);
    memset(out, 0, sizeof *out);
    for (int i = 0, at = 0; i < n; at += targets[i++].n) {
        const gfli_target *from = &targets[i];
        const gfli_truth truth = {at, from->n, from->pad_h, from->pad_w};
        to.images[i] = truth;
        if (from->n == 0) continue;
        memcpy(to.boxes + 4 * (size_t)at, from->boxes, (size_t)from->n * 4 * sizeof *to.boxes);
        memcpy(to.labels + at, from->labels, (size_t)from->n * sizeof *to.labels);
        out->most = gfli_max(out->most, from->n);
    }
    l->model->backend->device.upload(l->context, l->block, l->staging, bytes);
    (void)gfli_cut_truths(n, n_boxes, l->block, &to);
    out->n_images = n;
    out->images = to.images;
    out->boxes = to.boxes;
    out->labels = to.labels;
    return GFL_OK;
}

static void gfli_learner_loss_opts(const gfli_learner *l, gfli_loss_opts *out) {
    gfli_loss_opts_init(&l->model->arch, out);
    out->share = 1.0 / l->context->ranks.n_ranks;
    out->rank = l->context->ranks.rank;
}

gfl_status gfli_learner_targets(gfli_learner *l, const gfli_target *targets) {
    const gfli_plan *plan = &l->current->plan;
    const gfli_map *cls = &plan->maps[plan->cls].map;
    gfli_loss_opts opts;
    gfli_learner_loss_opts(l, &opts);
    GFLI_TRY(gfli_learner_truths(l, targets));
    size_t scratch = l->ops->losses_scratch(l->context, cls, &opts);
    const size_t assign = l->ops->assign_scratch(l->context, cls, l->truths.most);
    if (assign > scratch) scratch = assign;
    GFLI_TRY(gfli_reserve_device(l->context, &l->scratch, &l->scratch_size, scratch, 1, "scratch"));
    GFLI_TRY(gfli_reserve_device(l->context, &l->gt, &l->gt_size, gfli_points(cls), sizeof *l->gt,
                                 "assignment"));
    return gfli_reserve_device(l->context, &l->n_pos, &l->n_pos_size, (size_t)plan->batch,
                               sizeof *l->n_pos, "assignment");
}

/* Add up part of the losses over the ranks: n doubles from `offset` on. */
static gfl_status gfli_learner_meet(const gfli_learner *l, gfli_losses *losses, size_t offset,
                                    size_t n) {
    return gfli_group_sum(l->context, (uint8_t *)losses + offset, n, GFL_SUM_F64);
}

/* The normalisers of all ranks, which the losses of each are divided by. */
static gfl_status gfli_learner_normalise(const gfli_learner *l, gfli_losses *losses) {
    GFLI_TRY(gfli_learner_meet(l, losses, 0, GFLI_LOSS_NORMALISERS));
    return gfli_group_settle(l->context, "the normalisers of the losses");
}

static gfl_status gfli_learner_results(const gfli_learner *l, gfli_losses *losses) {
    return gfli_learner_meet(l, losses, offsetof(gfli_losses, cls), GFLI_LOSS_RESULTS);
}

/* Losses, with the gradients of the two outputs. */
static gfl_status gfli_learner_losses(gfli_learner *l, gfli_losses *out) {
    const gfli_plan *plan = &l->current->plan;
    const gfli_map *cls = &plan->maps[plan->cls].map, *reg = &plan->maps[plan->reg].map;
    const gfli_map *grads = l->current->backward.grads;
    const gfli_assignment assigned = {l->gt, l->n_pos};
    gfli_loss_opts opts;
    gfli_assign_opts assign_opts;
    gfli_learner_loss_opts(l, &opts);
    gfli_assign_opts_init(&l->model->arch, &assign_opts);
    l->ops->assign(l->context, cls, &assign_opts, &l->truths, &assigned, l->scratch);
    l->ops->loss_sums(l->context, cls, &assigned, &opts, out, l->scratch);
    GFLI_TRY(gfli_learner_normalise(l, out));
    l->ops->losses(l->context, cls, reg, &l->truths, &assigned, &opts, &grads[plan->cls],
                   &grads[plan->reg], out, l->scratch);
    return gfli_learner_results(l, out);
}

/* The part in the sums of a rank that has no batch. */
static gfl_status gfli_learner_lacks(gfli_learner *l, gfli_losses *out, gfl_status why) {
    gfli_losses none;
    memset(&none, 0, sizeof none);
    none.failed = 1;
    none.failed_rank = l->context->ranks.rank;
    l->failed = why;
    l->model->backend->device.upload(l->context, out, &none, sizeof none);
    GFLI_TRY(gfli_learner_normalise(l, out));
    return gfli_learner_results(l, out);
}

gfl_status gfli_train_gradients(gfli_learner *learner, int batch, gfl_status ready) {
    gfli_losses *losses = learner->losses + batch;
    gfli_train_plan *p = learner->current;
    if (ready != GFL_OK) return gfli_learner_lacks(learner, losses, ready);
    gfli_plan_forward(learner->context, learner->model, &p->plan, learner->stats, learner->scratch);
    GFLI_TRY(gfli_learner_losses(learner, losses));
    gfli_pass pass;
    pass.context = learner->context;
    pass.model = learner->model;
    pass.ops = learner->ops;
    pass.plan = &p->plan;
    pass.backward = &p->backward;
    pass.layout = &learner->layout;
    pass.gradients = learner->gradients;
    pass.stats = learner->stats;
    pass.packing = learner->packing;
    pass.scratch = learner->scratch;
    gfli_backward_run(&pass);
    return GFL_OK;
}

/* ---- the update ------------------------------------------------------------------------------ */

gfl_status gfli_learner_begin(gfli_learner *learner, int n_batches) {
    learner->n_summed = 0;
    learner->n_batches = n_batches;
    learner->failed = GFL_OK;
    if (n_batches > 1 && !learner->total)
        GFLI_TRY(gfli_learner_floats(learner, "sum of gradients", &learner->total));
    return gfli_reserve_device(learner->context, &learner->losses, &learner->losses_size,
                               (size_t)n_batches, sizeof *learner->losses, "losses");
}

void gfli_learner_accumulate(gfli_learner *learner) {
    float *first = learner->gradients;
    if (learner->n_summed++ > 0) {
        learner->ops->accumulate(learner->context, learner->total, first, learner->layout.floats);
        return;
    }
    learner->gradients = learner->total; /* the next batch overwrites all of it */
    learner->total = first;
}

/* losses: of a batch, added up over the ranks. */
static gfl_status gfli_bad_loss(const gfli_learner *l, const gfli_losses *losses) {
    char where[40] = "";
    if (l->context->ranks.n_ranks > 1 && losses->bad > 0)
        snprintf(where, sizeof where, losses->bad > 1 ? " on %.0f ranks" : " on rank %.0f",
                 losses->bad > 1 ? losses->bad : losses->bad_rank);
    return gfli_error(l->context, GFL_E_NONFINITE, "%s is not finite%s", gfli_bad_loss_name(losses),
                      where);
}

/* The text of what the check has found; v->where counts trained parameters. */
static gfl_status gfli_faulty_update(const gfli_learner *l, const gfli_sgd_opts *opts,
                                     const gfli_verdict *v, const gfli_losses *losses) {
    const char *name = "all parameters";
    for (int i = 0, part = 0; i < l->model->n_params && v->where >= 0; i++) {
        if (l->layout.offset[i] == GFLI_NO_GRADIENT) continue;
        if (part++ == v->where) name = l->model->params[i].name;
    }
    switch (v->fault) {
    case GFLI_FAULT_NONE: return GFL_OK;
    case GFLI_FAULT_RANK:
        if (l->failed != GFL_OK) return l->failed; /* its text is there */
        return gfli_group_blame(l->context, losses[v->where].failed, losses[v->where].failed_rank,
                                "a training step");
    case GFLI_FAULT_LOSS: return gfli_bad_loss(l, &losses[v->where]);
    case GFLI_FAULT_GRADIENT:
        return gfli_error(l->context, GFL_E_NONFINITE, "the gradients of %s are not finite", name);
    case GFLI_FAULT_PARAMETER:
    case GFLI_FAULT_MOMENTUM:
        return gfli_error(l->context, GFL_E_NONFINITE, "%s of %s is not finite",
                          v->fault == GFLI_FAULT_PARAMETER ? "a value" : "the momentum", name);
    case GFLI_FAULT_OVERFLOW: break;
    }
    return gfli_error(l->context, GFL_E_NONFINITE,
                      "the update of %s would overflow (values up to %g, momentum %g, gradients "
                      "%g, learning rate %g)",
                      name, v->parameter, v->momentum, v->gradient, opts->lr);
}

/* What the device has to say of the update: the one time in a step that the host waits. */
static gfl_status gfli_learner_hear(gfli_learner *l, gfli_verdict *verdict, gfli_losses *losses) {
    const gfli_device_ops *device = &l->model->backend->device;
    device->download(l->context, losses, l->losses, (size_t)l->n_batches * sizeof *losses);
    device->download(l->context, verdict, l->verdict, sizeof *verdict);
    return device->finish(l->context);
}

/* The gradients of this update, added up over its batches and ranks; all sums are done then. */
static gfl_status gfli_learner_sum(gfli_learner *l, float **out) {
    *out = l->n_summed > 0 ? l->total : l->gradients;
    GFLI_TRY(gfli_group_sum(l->context, *out, l->layout.floats, GFL_SUM_F32));
    return gfli_group_settle(l->context, "the gradients");
}

gfl_status gfli_train_update(gfli_learner *learner, const gfli_sgd_opts *opts, double *norm,
                             gfli_losses *losses) {
    gfli_verdict verdict;
    gfli_update u;
    float *gradients;
    GFLI_TRY(gfli_learner_sum(learner, &gradients));
    memset(&u, 0, sizeof u);
    u.params = learner->model->values + learner->layout.first;
    u.momentum = learner->momentum;
    u.gradients = gradients;
    u.n = learner->layout.floats;
    u.parts = learner->parts;
    u.n_parts = learner->n_parts;
    u.losses = learner->losses;
    u.n_losses = learner->n_batches;
    u.lr = opts->lr;
    u.decay = opts->decay;
    u.momentum_factor = opts->momentum;
    u.share = 1.0 / ((double)learner->n_batches * learner->context->ranks.n_ranks);
    u.clip = opts->clip;
    u.first = learner->updates == 0;
    learner->ops->check_update(learner->context, &u, learner->verdict);
    learner->ops->update(learner->context, &u, learner->verdict);
    GFLI_TRY(gfli_learner_hear(learner, &verdict, losses));
    *norm = verdict.norm;
    GFLI_TRY(gfli_faulty_update(learner, opts, &verdict, losses));
    learner->updates++;
    gfli_model_changed(learner->model, learner->frozen_stages + 1);
    return GFL_OK;
}

/* ===============================================================================================
 * src/train/schedule.c - a description made whole, and the learning rate of a step
 * ============================================================================================ */

/* Spec 8.2: a linear warm-up from a part of the rate, a tenth of it from a milestone on. */
double gfli_train_rate(const gfl_trainer_desc *desc, const gfli_dialect *dialect,
                       int steps_per_epoch, int64_t step) {
    double rate = desc->lr;
    int64_t epoch = step / steps_per_epoch;
    const int warmup = desc->warmup - dialect->warmup_end;
    if (step < warmup)
        rate *= dialect->warmup_start + (1 - dialect->warmup_start) * (double)step / warmup;
    for (int i = 0; i < desc->n_milestones; i++)
        if (epoch >= desc->milestones[i]) rate *= 0.1;
    return rate;
}

/* The recipe drops the rate after 8 and 11 of 12 epochs; of very few epochs never before one. */
static void gfli_default_milestones(gfl_trainer_desc *d) {
    int first = gfli_max(1, (int)((int64_t)d->epochs * 8 / 12));
    int second = gfli_max(1, (int)((int64_t)d->epochs * 11 / 12));
    d->milestones[0] = first;
    d->n_milestones = 1;
    if (second > first) d->milestones[d->n_milestones++] = second;
}

static gfl_status gfli_resolve_milestones(gfl_context *context, gfl_trainer_desc *d) {
    if (d->n_milestones > GFL_MAX_MILESTONES)
        return gfli_error(
            context, GFL_E_ARG,
            "n_milestones is %d; it must be 1..%d, 0 for the default, or negative for "
            "none",
            d->n_milestones, GFL_MAX_MILESTONES);
    d->n_milestones = gfli_max(d->n_milestones, -1);
    if (d->n_milestones == 0)
        while (d->n_milestones < GFL_MAX_MILESTONES && d->milestones[d->n_milestones] != 0)
            d->n_milestones++;
    if (d->n_milestones == 0) gfli_default_milestones(d);
    for (int i = gfli_max(d->n_milestones, 0); i < GFL_MAX_MILESTONES; i++) d->milestones[i] = 0;
    for (int i = 0; i < d->n_milestones; i++) {
        int before = i > 0 ? d->milestones[i - 1] : 0;
        if (d->milestones[i] <= before)
            return gfli_error(context, GFL_E_ARG,
                              "milestone %d is epoch %d; milestones must ascend, from 1", i,
                              d->milestones[i]);
    }
    return GFL_OK;
}

static gfl_status gfli_resolve_scale(gfl_context *context, const gfl_model *model,
                                     gfl_trainer_desc *d) {
    if ((d->scale_long == 0) != (d->scale_short == 0))
        return gfli_error(context, GFL_E_ARG,
                          "scale_long is %d and scale_short is %d; set both or none", d->scale_long,
                          d->scale_short);
    if (d->scale_long == 0) {
        d->scale_long = model->preprocess.scale_long;
        d->scale_short = model->preprocess.scale_short;
    }
    if (d->scale_short < 1 || d->scale_short > d->scale_long || d->scale_long > GFL_MAX_SIDE)
        return gfli_error(
            context, GFL_E_ARG,
            "scale_long is %d and scale_short is %d; 1 <= short <= long <= %d must hold",
            d->scale_long, d->scale_short, GFL_MAX_SIDE);
    if (d->scale_short_min < 0 || d->scale_short_min > d->scale_short)
        return gfli_error(context, GFL_E_ARG,
                          "scale_short_min is %d; it must be 0..%d, which is scale_short",
                          d->scale_short_min, d->scale_short);
    return GFL_OK;
}

/* A negative "none" stays negative, so that a resolved description means the same once more. */
static double gfli_resolve_real(double value, double otherwise) {
    return value == 0 ? otherwise : value < 0 ? -1 : value;
}

static gfl_status gfli_resolve_rates(gfl_context *context, gfl_trainer_desc *d) {
    if (!gfli_is_finite(d->lr) || !gfli_is_finite(d->momentum) ||
        !gfli_is_finite(d->weight_decay) || !gfli_is_finite(d->clip_norm))
        return gfli_error(context, GFL_E_ARG,
                          "lr, momentum, weight_decay and clip_norm must be finite");
    d->momentum = gfli_resolve_real(d->momentum, 0.9);
    d->weight_decay = gfli_resolve_real(d->weight_decay, 0.0001);
    if (d->clip_norm < 0) d->clip_norm = 0;
    if (d->lr < 0 || d->momentum >= 1)
        return gfli_error(context, GFL_E_ARG,
                          "lr is %g and momentum is %g; lr must not be negative, and momentum must "
                          "be below 1",
                          d->lr, d->momentum);
    return GFL_OK;
}

gfl_status gfli_train_resolve(gfl_context *context, const gfl_model *model,
                              const gfl_trainer_desc *in, gfl_trainer_desc *out) {
    gfl_trainer_desc *d = out;
    *d = *in;
    if (d->batch == 0) d->batch = 16;
    if (d->accumulate == 0) d->accumulate = 1;
    if (d->epochs == 0) d->epochs = 12;
    d->warmup = gfli_max(d->warmup, -1);
    d->frozen_stages = gfli_max(d->frozen_stages, -1);
    d->loaders = d->loaders == 0 ? 2 : gfli_max(d->loaders, -1);
    if (d->batch < 1 || d->batch > 65536 || d->accumulate < 1 || d->accumulate > 65536)
        return gfli_error(context, GFL_E_ARG,
                          "batch is %d and accumulate is %d; both must be 1..65536", d->batch,
                          d->accumulate);
    if (d->epochs < 1)
        return gfli_error(context, GFL_E_ARG, "epochs is %d; it must be 1 or more", d->epochs);
    if (d->frozen_stages > 4)
        return gfli_error(context, GFL_E_ARG,
                          "frozen_stages is %d; it must be 0..4, or negative for none",
                          d->frozen_stages);
    if (d->loaders > GFLI_MAX_THREADS)
        return gfli_error(
            context, GFL_E_ARG,
            "loaders is %d; it must be 1..%d, 0 for the default, or negative for none", d->loaders,
            GFLI_MAX_THREADS);
    GFLI_TRY(gfli_resolve_rates(context, d));
    GFLI_TRY(gfli_resolve_milestones(context, d));
    return gfli_resolve_scale(context, model, d);
}

double gfli_default_rate(int64_t batch, int accumulate) {
    return 0.01 * (double)batch * accumulate / 16;
}

void gfli_train_fit(gfl_trainer_info *plan, int n_images, int n_ranks) {
    gfl_trainer_desc *d = &plan->desc;
    d->batch = gfli_rank_batch(d->batch, n_images, n_ranks);
    const int n_batches = gfli_epoch_batches(n_images, d->batch, n_ranks);
    d->accumulate = gfli_min(d->accumulate, n_batches);
    plan->n_images = n_images;
    plan->steps_per_epoch = gfli_ceil_div(n_batches, d->accumulate);
    plan->n_steps = (int64_t)plan->steps_per_epoch * d->epochs;
    plan->images_per_update = (int64_t)n_ranks * d->batch * d->accumulate;
    if (d->lr == 0) d->lr = gfli_default_rate((int64_t)n_ranks * d->batch, d->accumulate);
    if (d->warmup == 0) d->warmup = gfli_min(500, plan->steps_per_epoch);
}

/* ===============================================================================================
 * src/train/trainer.c - gfl_trainer: batches in, updates out
 * ============================================================================================ */

/* ---- creation -------------------------------------------------------------------------------- */

/* Labels are indices, so the model's classes must be the data's, unless it was made without. */
static gfl_status gfli_check_classes(gfl_context *context, const gfl_model *model,
                                     const gfl_dataset *dataset) {
    char mine[GFLI_QUOTED], theirs[GFLI_QUOTED];
    int n = gfl_dataset_count_classes(dataset);
    const gfl_class *classes = gfl_dataset_get_classes(dataset);
    bool named = false;
    GFLI_TRY(gfli_dataset_check_names(context, dataset));
    if (n != model->arch.n_classes)
        return gfli_error(context, GFL_E_MISMATCH,
                          "the model has %d classes, but the data set has %d; create the model "
                          "with gfl_dataset_get_classes",
                          model->arch.n_classes, n);
    for (int i = 0; i < n && !named; i++) {
        char fallback[32];
        snprintf(fallback, sizeof fallback, "class %d", i);
        named = strcmp(model->classes[i].name, fallback) != 0;
    }
    for (int i = 0; i < n && named; i++)
        if (strcmp(model->classes[i].name, classes[i].name) != 0)
            return gfli_error(context, GFL_E_MISMATCH,
                              "class %d is %s in the model and %s in the data set; create "
                              "the model with gfl_dataset_get_classes",
                              i, gfli_quote(model->classes[i].name, mine, sizeof mine),
                              gfli_quote(classes[i].name, theirs, sizeof theirs));
    return GFL_OK;
}

/* The padded size that holds every image of the set.  A batch of what is left at an epoch's end
 * may have both portraits and landscapes. */
static void gfli_largest_size(const gfl_trainer *trainer, int *height, int *width) {
    const gfl_trainer_desc *d = &trainer->plan.desc;
    *height = *width = 32;
    for (int i = 0; i < gfl_dataset_count_images(trainer->dataset); i++) {
        gfl_image_info info;
        int w = d->scale_long, h = d->scale_long;
        if (gfl_dataset_get_image(trainer->dataset, i, &info) != GFL_OK) continue;
        if (info.width > 0 && info.height > 0)
            gfli_resized_size(info.width, info.height, d->scale_long, d->scale_short, &w, &h);
        *width = gfli_max(*width, gfli_pad32(w));
        *height = gfli_max(*height, gfli_pad32(h));
    }
}

static gfl_status gfli_measure_training(gfl_trainer *trainer) {
    gfl_trainer_info *plan = &trainer->plan;
    gfli_train_plan largest;
    int height, width;
    memset(&largest, 0, sizeof largest);
    gfli_largest_size(trainer, &height, &width);
    GFLI_TRY(gfli_train_plan_create(&trainer->learner, plan->desc.batch, height, width, &largest));
    plan->workspace_bytes = largest.plan.workspace_bytes +
                            largest.plan.stats_floats * sizeof(float) +
                            largest.backward.scratch_bytes + largest.backward.packed_bytes;
    plan->workspace_bytes +=
        (plan->desc.accumulate > 1 ? 3 : 2) * trainer->learner.layout.floats * sizeof(float);
    gfli_train_plan_free(&trainer->learner, &largest);
    return GFL_OK;
}

static gfl_status gfli_trainer_start_loader(gfl_trainer *trainer) {
    const gfl_trainer_desc *d = &trainer->asked;
    gfli_loader_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.batch = d->batch;
    opts.seed = d->seed;
    opts.scale_long = d->scale_long;
    opts.scale_short = d->scale_short;
    opts.scale_short_min = d->scale_short_min;
    opts.bgr = trainer->model->preprocess.bgr != 0;
    opts.inclusive = gfli_dialect_get(trainer->model->arch.dialect)->inclusive;
    opts.one_scale = gfli_dialect_get(trainer->model->arch.dialect)->one_scale;
    opts.no_flip = d->no_flip != 0;
    opts.drop_empty = d->drop_empty != 0;
    opts.no_grouping = d->no_grouping != 0;
    opts.n_threads = gfli_max(d->loaders, 0);
    return gfli_loader_create(trainer->context, trainer->dataset, &opts, &trainer->loader);
}

static gfl_status gfli_trainer_init(gfl_trainer *trainer, const gfl_trainer_desc *desc) {
    gfl_context *context = trainer->context;
    const gfl_trainer_desc *d = &trainer->plan.desc;
    GFLI_TRY(gfli_train_resolve(context, trainer->model, desc, &trainer->asked));
    GFLI_TRY(gfli_check_classes(context, trainer->model, trainer->dataset));
    GFLI_TRY(gfli_trainer_start_loader(trainer));
    trainer->plan.desc = trainer->asked;
    gfli_train_fit(&trainer->plan, gfli_loader_images(trainer->loader), context->ranks.n_ranks);
    trainer->plan.n_dropped_images =
        gfl_dataset_count_images(trainer->dataset) - trainer->plan.n_images;
    GFLI_TRY(gfli_alloc(context, (size_t)d->batch * (size_t)d->accumulate, sizeof(int), "batch",
                        &trainer->images));
    GFLI_TRY(gfli_alloc(context, (size_t)d->batch, sizeof *trainer->targets, "batch",
                        &trainer->targets));
    GFLI_TRY(gfli_alloc(context, (size_t)d->accumulate + 1, sizeof(int), "batch", &trainer->first));
    GFLI_TRY(gfli_alloc(context, (size_t)d->accumulate, sizeof *trainer->losses, "batch",
                        &trainer->losses));
    GFLI_TRY(gfli_learner_create(context, trainer->model, d->frozen_stages, &trainer->learner));
    GFLI_TRY(gfli_learner_begin(&trainer->learner, d->accumulate));
    return gfli_measure_training(trainer);
}

gfl_status gfl_trainer_create(gfl_context *context, gfl_model *model, const gfl_dataset *dataset,
                              const gfl_trainer_desc *desc, gfl_trainer **out) {
    gfl_trainer *trainer;
    gfl_trainer_desc d;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, model);
    GFLI_NOT_NULL(context, dataset);
    GFLI_NOT_NULL(context, out);
    GFLI_TRAINABLE(context, model);
    GFLI_TRY(gfli_calloc(context, 1, sizeof *trainer, "trainer", &trainer));
    trainer->context = context;
    trainer->model = model;
    trainer->dataset = dataset;
    gfl_status status =
        (context->backend->device.alloc)(context, GFLI_DESK, 1, "trainer", &trainer->desk);
    if (status == GFL_OK) status = gfli_trainer_join(trainer, gfli_trainer_init(trainer, &d));
    if (status != GFL_OK) {
        gfl_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return GFL_OK;
}

void gfl_trainer_destroy(gfl_trainer *trainer) {
    if (!trainer) return;
    gfl_context *context = trainer->context;
    gfli_loader_destroy(trainer->loader);
    (void)gfli_model_pack(trainer->model);
    gfli_learner_destroy(&trainer->learner);
    gfli_free(context, trainer->images);
    gfli_free(context, trainer->targets);
    gfli_free(context, trainer->first);
    gfli_free(context, trainer->losses);
    (context->backend->device.free)(context, trainer->pixels);
    (context->backend->device.free)(context, trainer->desk);
    gfli_free(context, trainer);
}

void gfl_trainer_get_info(const gfl_trainer *trainer, gfl_trainer_info *out) {
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (!trainer) return;
    *out = trainer->plan;
    out->n_done = trainer->learner.updates;
}

/* ---- one step -------------------------------------------------------------------------------- */

/* "a.jpg (id 3), b.jpg (id 7) and 14 more" of the step's images first..end. */
static void gfli_name_images(const gfl_trainer *trainer, int first, int end, char *out,
                             size_t capacity) {
    size_t used = 0;
    out[0] = 0;
    for (int i = first; i < end; i++) {
        char id[GFLI_ID_TEXT], one[400];
        gfl_image_info info;
        if (gfl_dataset_get_image(trainer->dataset, trainer->images[i], &info) != GFL_OK) continue;
        int n = snprintf(one, sizeof one, "%s%.200s (id %s)", i > first ? ", " : "", info.file_name,
                         gfli_id_text(info.id, id));
        if (n < 0 || used + (size_t)n + 32 > capacity) {
            snprintf(out + used, capacity - used, " and %d more", end - i);
            return;
        }
        memcpy(out + used, one, (size_t)n + 1);
        used += (size_t)n;
    }
}

/* The learner's text says what is not finite.  Where it is the loss of a batch, its images are
 * named. */
static gfl_status gfli_not_finite(gfl_trainer *trainer, int n_batches, const gfli_losses *losses) {
    char names[500], what[320];
    int batch = 0;
    while (batch < n_batches && !gfli_bad_loss_name(&losses[batch])) batch++;
    const bool all = batch == n_batches;
    snprintf(what, sizeof what, "%.300s", trainer->context->error);
    gfli_name_images(trainer, all ? 0 : trainer->first[batch],
                     all ? trainer->n_images : trainer->first[batch + 1], names, sizeof names);
    return gfli_error(trainer->context, GFL_E_NONFINITE,
                      "step %lld: %s; the model is as before the step.  Images%s: %s.  "
                      "Look at their boxes, or lower lr, lengthen the warm-up or set clip_norm",
                      (long long)trainer->learner.updates + 1, what,
                      trainer->context->ranks.n_ranks > 1 ? " of this rank" : "", names);
}

/* One piece of the device's memory serves all images: each is used up in order. */
static gfl_status gfli_normalise_batch(gfl_trainer *trainer, const gfli_batch *batch,
                                       const gfli_map *input) {
    const gfl_preprocess *p = &trainer->model->preprocess;
    const gfli_backend *backend = trainer->model->backend;
    for (int i = 0; i < batch->n; i++) {
        const gfli_sample *s = &batch->samples[i];
        gfli_target *target = &trainer->targets[i];
        const size_t bytes = (size_t)s->width * (size_t)s->height * 3;
        GFLI_TRY(gfli_reserve_device(trainer->context, &trainer->pixels, &trainer->pixels_size,
                                     bytes, 1, "pixels"));
        backend->device.upload(trainer->context, trainer->pixels, s->pixels, bytes);
        backend->infer.normalise(trainer->context, trainer->pixels, s->width, s->height, p->mean,
                                 p->std, s->flip, input, i);
        target->boxes = s->boxes;
        target->labels = s->labels;
        target->n = s->n_boxes;
        target->pad_h = gfli_pad32(s->height);
        target->pad_w = gfli_pad32(s->width);
        trainer->images[trainer->n_images++] = s->image;
    }
    return GFL_OK;
}

/* Make ready for the loader's next batch: all of a step that can fail. */
static gfl_status gfli_trainer_ready(gfl_trainer *trainer, int number, gfl_step_report *out) {
    const gfli_batch *batch;
    gfli_map input;
    double start = gfli_seconds();
    GFLI_TRY(gfli_loader_next(trainer->loader, &batch));
    out->data_seconds += gfli_seconds() - start;
    GFLI_TRY(gfli_learner_input(&trainer->learner, batch->n, batch->height, batch->width, &input));
    GFLI_TRY(gfli_normalise_batch(trainer, batch, &input));
    trainer->first[number + 1] = trainer->n_images;
    out->n_images += batch->n * trainer->context->ranks.n_ranks;
    return gfli_learner_targets(&trainer->learner, trainer->targets);
}

int gfli_trainer_position(const gfl_trainer *trainer, int *epoch, int *first) {
    const gfl_trainer_info *plan = &trainer->plan;
    int64_t step = trainer->learner.updates;
    *epoch = (int)(step / plan->steps_per_epoch);
    *first = (int)(step % plan->steps_per_epoch) * plan->desc.accumulate;
    return gfli_min(plan->desc.accumulate, gfli_loader_batches(trainer->loader, *epoch) - *first);
}

static gfl_status gfli_trainer_update(gfl_trainer *trainer, gfl_step_report *out) {
    const gfl_trainer_desc *d = &trainer->plan.desc;
    gfli_sgd_opts opts;
    opts.lr = out->lr;
    opts.momentum = d->momentum < 0 ? 0 : d->momentum;
    opts.decay = d->weight_decay < 0 ? 0 : d->weight_decay;
    opts.clip = d->clip_norm;
    const int n = trainer->learner.n_batches;
    gfl_status status =
        gfli_train_update(&trainer->learner, &opts, &out->grad_norm, trainer->losses);
    if (status == GFL_E_NONFINITE) return gfli_not_finite(trainer, n, trainer->losses);
    for (int i = 0; i < n; i++) {
        for (int l = 0; l < GFL_LEVELS; l++) {
            out->loss_cls += trainer->losses[i].cls[l];
            out->loss_bbox += trainer->losses[i].bbox[l];
            out->loss_dfl += trainer->losses[i].dfl[l];
        }
        out->n_positives += (int)trainer->losses[i].n_pos;
    }
    return status;
}

static gfl_status gfli_trainer_run(gfl_trainer *trainer, gfl_step_report *out) {
    int epoch, first, n = gfli_trainer_position(trainer, &epoch, &first);
    const int n_shares = n * trainer->context->ranks.n_ranks;
    gfl_status mine = GFL_OK;
    if (!trainer->positioned) mine = gfli_loader_start(trainer->loader, epoch, first);
    trainer->positioned = false; /* until the step has succeeded */
    trainer->n_images = 0;
    trainer->first[0] = 0;
    GFLI_TRY(gfli_learner_begin(&trainer->learner, n));
    for (int i = 0; i < n; i++) {
        if (mine == GFL_OK) mine = gfli_trainer_ready(trainer, i, out);
        GFLI_TRY(gfli_train_gradients(&trainer->learner, i, mine));
        if (n > 1) gfli_learner_accumulate(&trainer->learner);
    }
    out->epoch = epoch;
    out->step_in_epoch = first / trainer->plan.desc.accumulate;
    out->steps_per_epoch = trainer->plan.steps_per_epoch;
    out->lr = gfli_train_rate(&trainer->plan.desc, gfli_dialect_get(trainer->model->arch.dialect),
                              trainer->plan.steps_per_epoch, trainer->learner.updates);
    GFLI_TRY(gfli_trainer_update(trainer, out));
    trainer->positioned = true;
    out->loss_cls /= n_shares;
    out->loss_bbox /= n_shares;
    out->loss_dfl /= n_shares;
    out->loss = out->loss_cls + out->loss_bbox + out->loss_dfl;
    return GFL_OK;
}

gfl_status gfl_trainer_step(gfl_trainer *trainer, gfl_step_report *out) {
    gfl_step_report report;
    memset(&report, 0, sizeof report);
    if (out) *out = report;
    GFLI_NOT_NULL(NULL, trainer);
    double start = gfli_seconds();
    if (trainer->learner.updates >= trainer->plan.n_steps)
        return gfli_error(trainer->context, GFL_E_ARG,
                          "gfl_trainer_step: training is done, after %lld steps",
                          (long long)trainer->plan.n_steps);
    GFLI_TRY(gfli_trainer_run(trainer, &report));
    report.step = trainer->learner.updates;
    report.epoch_done = report.step_in_epoch == report.steps_per_epoch - 1;
    report.training_done = report.step == trainer->plan.n_steps;
    report.seconds = gfli_seconds() - start;
    if (out) *out = report;
    return GFL_OK;
}

/* ===============================================================================================
 * src/train/fingerprint.c - one number for all weights of a model, one for all that a data set says
 * ============================================================================================ */

static uint64_t gfli_hash_word(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return hash ^ (hash >> 32);
}

static uint64_t gfli_hash_text(uint64_t hash, const char *text) {
    for (; text && *text; text++) hash = gfli_hash_word(hash, (unsigned char)*text);
    return gfli_hash_word(hash, 256);
}

static uint64_t gfli_hash_real(uint64_t hash, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return gfli_hash_word(hash, bits);
}

static uint64_t gfli_hash_id(uint64_t hash, gfl_id id) {
    hash = gfli_hash_text(hash, id.text);
    return id.text ? hash : gfli_hash_word(hash, (uint64_t)id.number);
}

static uint64_t gfli_hash_floats(uint64_t hash, const float *x, size_t n) {
    for (size_t k = 0; k < n; k++) {
        uint32_t bits;
        memcpy(&bits, &x[k], sizeof bits);
        hash = gfli_hash_word(hash, bits);
    }
    return hash;
}

gfl_status gfli_hash_model(const gfl_model *model, uint64_t *out) {
    gfl_status status = GFL_OK;
    float *values;
    *out = 0;
    GFLI_TRY(
        gfli_alloc(model->context, gfli_largest_param(model), sizeof *values, "tensor", &values));
    for (int i = 0; i < model->n_params && status == GFL_OK; i++) {
        status = gfli_param_fetch(model, i, values);
        *out = gfli_hash_text(*out, model->params[i].name);
        if (status == GFL_OK) *out = gfli_hash_floats(*out, values, model->params[i].count);
    }
    gfli_free(model->context, values);
    return status;
}

/* Names and shapes of the parameters. */
uint64_t gfli_hash_network(const gfl_model *model) {
    uint64_t hash = 0;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        hash = gfli_hash_text(hash, p->name);
        for (int k = 0; k < p->rank; k++) hash = gfli_hash_word(hash, (uint64_t)p->shape[k]);
    }
    return hash;
}

/* Ids, names, sizes and boxes: what decides about batches and targets, but for the pixels. */
uint64_t gfli_hash_dataset(const gfl_dataset *dataset) {
    uint64_t hash = 0;
    int n_images = gfl_dataset_count_images(dataset),
        n_classes = gfl_dataset_count_classes(dataset);
    const gfl_class *classes = gfl_dataset_get_classes(dataset);
    for (int i = 0; i < n_classes; i++) hash = gfli_hash_text(hash, classes[i].name);
    for (int i = 0; i < n_images; i++) {
        gfl_image_info info;
        if (gfl_dataset_get_image(dataset, i, &info) != GFL_OK) continue;
        hash = gfli_hash_text(gfli_hash_id(hash, info.id), info.file_name);
        hash = gfli_hash_word(hash, (uint64_t)info.width << 32 | (uint32_t)info.height);
        for (int k = 0; k < info.n_annotations; k++) {
            const gfl_annotation *a = &info.annotations[k];
            hash = gfli_hash_real(gfli_hash_real(hash, a->x), a->y);
            hash = gfli_hash_real(gfli_hash_real(hash, a->w), a->h);
            hash = gfli_hash_real(hash, a->area);
            hash = gfli_hash_word(hash, (uint64_t)a->label << 2 | (uint64_t)(a->crowd != 0) << 1 |
                                            (uint64_t)(a->ignore != 0));
        }
    }
    return hash;
}

void gfli_hash_format(uint64_t hash, char out[24]) {
    snprintf(out, 24, "%016llx", (unsigned long long)hash);
}

/* ===============================================================================================
 * src/train/state.c - training state: what resuming needs beside the weights
 * ============================================================================================ */

/* ---- the description as text ----------------------------------------------------------------- */

static void gfli_put_integer(gfli_state_fields *f, const char *key, int64_t value) {
    gfli_state_field *field = &f->fields[f->n++];
    field->key = key;
    snprintf(field->value, sizeof field->value, "%lld", (long long)value);
}

static void gfli_put_real(gfli_state_fields *f, const char *key, double value) {
    gfli_state_field *field = &f->fields[f->n++];
    field->key = key;
    gfli_json_format(value, field->value);
}

static void gfli_put_text(gfli_state_fields *f, const char *key, const char *value) {
    gfli_state_field *field = &f->fields[f->n++];
    field->key = key;
    snprintf(field->value, sizeof field->value, "%s", value);
}

static void gfli_put_milestones(gfli_state_fields *f, const gfl_trainer_desc *d) {
    gfli_state_field *field = &f->fields[f->n++];
    size_t used = 0;
    field->key = "milestones";
    field->value[0] = 0;
    for (int i = 0; i < d->n_milestones; i++) {
        int n = snprintf(field->value + used, sizeof field->value - used, i > 0 ? ",%d" : "%d",
                         d->milestones[i]);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* Not the number of loaders: it changes nothing. */
void gfli_describe_training(const gfl_trainer *trainer, const gfl_trainer_desc *d,
                            gfli_state_fields *f) {
    f->n = 0;
    gfli_put_text(f, "dialect", gfli_dialect_get(trainer->model->arch.dialect)->name);
    gfli_put_integer(f, "batch", d->batch);
    gfli_put_integer(f, "accumulate", d->accumulate);
    gfli_put_integer(f, "epochs", d->epochs);
    gfli_put_milestones(f, d);
    gfli_put_real(f, "lr", d->lr);
    gfli_put_real(f, "momentum", d->momentum);
    gfli_put_real(f, "weight_decay", d->weight_decay);
    gfli_put_integer(f, "warmup", d->warmup);
    gfli_put_real(f, "clip_norm", d->clip_norm);
    gfli_put_integer(f, "frozen_stages", d->frozen_stages);
    gfli_put_integer(f, "scale_long", d->scale_long);
    gfli_put_integer(f, "scale_short", d->scale_short);
    gfli_put_integer(f, "scale_short_min", d->scale_short_min);
    gfli_put_integer(f, "no_flip", d->no_flip != 0);
    gfli_put_integer(f, "drop_empty", d->drop_empty != 0);
    gfli_put_integer(f, "no_grouping", d->no_grouping != 0);
    gfli_put_integer(f, "seed", (int64_t)d->seed);
}

/* ---- saving ---------------------------------------------------------------------------------- */

static gfl_status gfli_put_number(gfli_blob_writer *w, const char *key, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return gfli_blob_put_meta(w, key, text);
}

static gfl_status gfli_put_state_meta(const gfl_trainer *trainer, const char *weights_hash,
                                      gfli_blob_writer *w) {
    gfli_state_fields f;
    char hash[24];
    int epoch, batch;
    (void)gfli_trainer_position(trainer, &epoch, &batch);
    GFLI_TRY(gfli_blob_put_meta(w, "gfl_state", "1"));
    GFLI_TRY(gfli_blob_put_meta(w, "gfl_version", GFL_VERSION_TEXT));
    GFLI_TRY(gfli_put_number(w, "step", trainer->learner.updates));
    GFLI_TRY(gfli_put_number(w, "epoch", epoch));
    GFLI_TRY(gfli_put_number(w, "batch_in_epoch", batch));
    if (trainer->context->ranks.n_ranks > 1)
        GFLI_TRY(gfli_put_number(w, "ranks", trainer->context->ranks.n_ranks));
    GFLI_TRY(gfli_blob_put_meta(w, "weights", weights_hash));
    gfli_hash_format(gfli_hash_dataset(trainer->dataset), hash);
    GFLI_TRY(gfli_blob_put_meta(w, "data", hash));
    gfli_describe_training(trainer, &trainer->plan.desc, &f);
    for (int i = 0; i < f.n; i++)
        GFLI_TRY(gfli_blob_put_meta(w, f.fields[i].key, f.fields[i].value));
    return GFL_OK;
}

static void gfli_momentum_name(const gfli_param *param, char out[160]) {
    snprintf(out, 160, "momentum.%s", param->name);
}

/* buffer: room for twice the largest parameter. */
static gfl_status gfli_put_momentum(const gfl_trainer *trainer, gfli_blob_writer *w,
                                    float *buffer) {
    const gfli_learner *l = &trainer->learner;
    const gfl_model *model = trainer->model;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        char name[160];
        if (l->layout.offset[i] == GFLI_NO_GRADIENT) continue;
        gfli_momentum_name(p, name);
        GFLI_TRY(gfli_blob_declare(w, name, GFLI_F32, p->rank, p->shape));
    }
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        if (l->layout.offset[i] == GFLI_NO_GRADIENT) continue;
        float *kept = p->rank == 4 ? buffer + p->count : buffer;
        GFLI_TRY(gfli_fetch(model, l->momentum + l->layout.offset[i], p->count, kept));
        if (p->rank == 4) gfli_reorder_weight(p, kept, buffer, true);
        GFLI_TRY(gfli_blob_write(w, buffer, p->count * sizeof(float)));
    }
    return GFL_OK;
}

static gfl_status gfli_alloc_largest(const gfl_model *model, gfl_context *context, float **out) {
    return gfli_alloc(context, 2 * gfli_largest_param(model), sizeof(float), "tensor", out);
}

static gfl_status gfli_state_write(const gfl_trainer *trainer, const char *weights_hash,
                                   gfli_sink to) {
    gfli_blob_writer *w = NULL;
    float *buffer;
    GFLI_TRY(gfli_alloc_largest(trainer->model, trainer->context, &buffer));
    gfl_status status = gfli_blob_create(trainer->context, to, &w);
    if (status == GFL_OK) {
        status = gfli_put_state_meta(trainer, weights_hash, w);
        if (status == GFL_OK) status = gfli_put_momentum(trainer, w, buffer);
        if (status == GFL_OK)
            status = gfli_blob_finish(w);
        else
            gfli_blob_abandon(w);
    }
    gfli_free(trainer->context, buffer);
    return status;
}

/* Rank 0 alone reads and writes, so that the others need not say where.  Who lacks it fails with
 * all the others, who would wait otherwise. */
static gfl_status gfli_check_place(const gfl_trainer *trainer, const void *place,
                                   const char *what) {
    GFLI_DEMAND(trainer->context, place || trainer->context->ranks.rank > 0,
                "%s: its path, or the place of its bytes, is NULL", what);
    return GFL_OK;
}

/* Ranks whose weights have come apart, by a fault of a machine or of the program, save nothing. */
static gfl_status gfli_state_save(const gfl_trainer *trainer, const void *place, gfli_sink to) {
    static const char *const what = "saving the state of a training";
    char hash[24], text[GFLI_DESK];
    uint64_t weights = 0;
    gfl_status status = gfli_check_place(trainer, place, what);
    if (status == GFL_OK) status = gfli_hash_model(trainer->model, &weights);
    gfli_hash_format(weights, hash);
    snprintf(text, sizeof text, "fingerprint of the weights = %s\n", hash);
    GFLI_TRY(gfli_trainer_compare(trainer, status, text, what));
    if (trainer->context->ranks.rank == 0) status = gfli_state_write(trainer, hash, to);
    status = gfli_trainer_agree(trainer, status, what);
    if (status != GFL_OK) gfl_bytes_free(trainer->context, to.bytes);
    return status;
}

gfl_status gfl_trainer_save_state(const gfl_trainer *trainer, const char *path) {
    GFLI_NOT_NULL(NULL, trainer);
    return gfli_state_save(trainer, path, gfli_to_file(path));
}

gfl_status gfl_trainer_save_state_memory(const gfl_trainer *trainer, gfl_bytes *out) {
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(NULL, trainer);
    return gfli_state_save(trainer, out, gfli_to_memory(out));
}

/* ---- loading --------------------------------------------------------------------------------- */

/* Whatever a file says, reading it takes memory for its header, and beside that the momentum once
 * more and one tensor; nothing is allocated for numbers before every tensor was found to fit. */

static gfl_status gfli_check_state_kind(const gfli_blob *blob) {
    const char *kind = gfli_blob_meta(blob, "gfl_state");
    char quoted[GFLI_QUOTED];
    if (!kind)
        return gfli_error(blob->context, GFL_E_FORMAT,
                          "%s: it is not a training state: its metadata has no \"gfl_state\"%s",
                          blob->path,
                          gfli_blob_meta(blob, "gfl_format") ? "; it is a weight file" : "");
    if (strcmp(kind, "1") != 0)
        return gfli_error(blob->context, GFL_E_UNSUPPORTED,
                          "%s: it is a training state of format %s; this version reads format 1",
                          blob->path, gfli_quote(kind, quoted, sizeof quoted));
    return GFL_OK;
}

/* How long to train and when to lower the rate may be decided anew. */
static bool gfli_may_change(const char *key) {
    return strcmp(key, "epochs") == 0 || strcmp(key, "milestones") == 0;
}

/* A counter of the metadata. */
static gfl_status gfli_state_number(const gfli_blob *blob, const char *key, int64_t *out) {
    const char *text = gfli_blob_meta(blob, key), *p = text;
    char quoted[GFLI_QUOTED];
    int64_t value = 0;
    for (; p && *p >= '0' && *p <= '9' && value < INT64_MAX / 10 - 1; p++)
        value = value * 10 + (*p - '0');
    if (!p || p == text || *p)
        return gfli_error(blob->context, GFL_E_FORMAT,
                          "%s: \"%s\" is %s in its metadata, not a count", blob->path, key,
                          text ? gfli_quote(text, quoted, sizeof quoted) : "missing");
    *out = value;
    return GFL_OK;
}

/* How the updates of a state were made up: a file that names no ranks comes from one. */
typedef struct gfli_state_origin {
    int64_t ranks, batch, accumulate;
    bool regrouped; /* by other ranks than the trainer's */
    bool resized;   /* ... and from another number of images */
} gfli_state_origin;

/* Other ranks may go on in the same way, or in another one when an epoch ends: the order of its
 * images depends on how many a batch of all ranks has. */
static gfl_status gfli_read_origin(const gfl_trainer *trainer, const gfli_blob *blob,
                                   gfli_state_origin *out) {
    const int n_ranks = trainer->context->ranks.n_ranks;
    const int64_t per_update = trainer->plan.images_per_update;
    int64_t in_epoch;
    memset(out, 0, sizeof *out);
    out->ranks = 1;
    if (gfli_blob_meta(blob, "ranks")) GFLI_TRY(gfli_state_number(blob, "ranks", &out->ranks));
    GFLI_TRY(gfli_state_number(blob, "batch", &out->batch));
    GFLI_TRY(gfli_state_number(blob, "accumulate", &out->accumulate));
    GFLI_TRY(gfli_state_number(blob, "batch_in_epoch", &in_epoch));
    if (out->ranks > 65536 || out->batch > 65536 || out->accumulate > 65536)
        return gfli_error(blob->context, GFL_E_FORMAT,
                          "%s: ranks, batch and accumulate of its metadata are beyond all limits",
                          blob->path);
    const int64_t saved = out->ranks * out->batch * out->accumulate;
    out->regrouped = out->ranks != n_ranks;
    out->resized = out->regrouped && saved != per_update;
    const int64_t together = out->ranks * out->batch;
    const bool alike = together == (int64_t)n_ranks * trainer->plan.desc.batch && !out->resized;
    if (!out->regrouped || alike || in_epoch == 0) return GFL_OK;
    return gfli_error(
        trainer->context, GFL_E_MISMATCH,
        "%s: saved amid an epoch by %lld ranks with %lld images per update, here are "
        "%d with %lld; choose batch and accumulate so that ranks * batch is %lld and accumulate "
        "is %lld, or go on from the end of an epoch",
        blob->path, (long long)out->ranks, (long long)saved, n_ranks, (long long)per_update,
        (long long)together, (long long)out->accumulate);
}

/* What follows from the number of images may change with it. */
static bool gfli_may_resize(const gfli_state_origin *origin, const char *key) {
    static const char *const keys[] = {"batch", "accumulate", "lr", "warmup"};
    for (size_t i = 0; i < GFLI_COUNT(keys) && origin->resized; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

/* What comes to the same.  Other ranks had other batches; and version 0.1.0 did not count: a batch
 * larger than the data set was called as large as it had been asked for, and its default rate was
 * that of so many images. */
static gfl_trainer_desc gfli_describe_otherwise(const gfl_trainer *trainer,
                                                const gfli_state_origin *origin) {
    gfl_trainer_desc d = trainer->plan.desc;
    d.batch = origin->regrouped ? (int)origin->batch : trainer->asked.batch;
    d.accumulate = origin->regrouped ? (int)origin->accumulate : trainer->asked.accumulate;
    if (trainer->asked.lr == 0) d.lr = gfli_default_rate(origin->ranks * d.batch, d.accumulate);
    return d;
}

/* *lr: the rate to go on with. */
static gfl_status gfli_check_state_desc(const gfl_trainer *trainer, const gfli_blob *blob,
                                        const gfli_state_origin *origin, double *lr) {
    const gfl_trainer_desc otherwise = gfli_describe_otherwise(trainer, origin);
    gfli_state_fields f, other;
    char quoted[GFLI_QUOTED];
    gfli_describe_training(trainer, &trainer->plan.desc, &f);
    gfli_describe_training(trainer, &otherwise, &other);
    *lr = trainer->plan.desc.lr;
    for (int i = 0; i < f.n; i++) {
        const char *key = f.fields[i].key, *saved = gfli_blob_meta(blob, key);
        if (!saved)
            return gfli_error(trainer->context, GFL_E_FORMAT, "%s: its metadata has no \"%s\"",
                              blob->path, key);
        if (strcmp(saved, f.fields[i].value) == 0 || gfli_may_change(key)) continue;
        if (gfli_may_resize(origin, key)) continue;
        if (strcmp(saved, other.fields[i].value) != 0)
            return gfli_error(trainer->context, GFL_E_MISMATCH,
                              "%s: it was saved with %s = %s, but the trainer has %s; create the "
                              "trainer with the description that the state was saved with",
                              blob->path, key, gfli_quote(saved, quoted, sizeof quoted),
                              f.fields[i].value);
        if (strcmp(key, "lr") == 0) *lr = otherwise.lr;
    }
    return GFL_OK;
}

static gfl_status gfli_check_state_hashes(const gfl_trainer *trainer, const gfli_blob *blob) {
    uint64_t weights_hash;
    char hash[24], quoted[GFLI_QUOTED];
    const char *weights = gfli_blob_meta(blob, "weights"), *data = gfli_blob_meta(blob, "data");
    if (!weights || !data)
        return gfli_error(trainer->context, GFL_E_FORMAT, "%s: its metadata has no fingerprints",
                          blob->path);
    gfli_hash_format(gfli_hash_dataset(trainer->dataset), hash);
    if (strcmp(data, hash) != 0)
        return gfli_error(trainer->context, GFL_E_MISMATCH,
                          "%s: it was saved with another data set (fingerprint %s, here %s); "
                          "images, boxes and classes must be the same",
                          blob->path, gfli_quote(data, quoted, sizeof quoted), hash);
    GFLI_TRY(gfli_hash_model(trainer->model, &weights_hash));
    gfli_hash_format(weights_hash, hash);
    if (strcmp(weights, hash) != 0)
        return gfli_error(trainer->context, GFL_E_MISMATCH,
                          "%s: the model's weights are not those of this state (fingerprint %s, "
                          "here %s); load the weight file saved at the same step",
                          blob->path, gfli_quote(weights, quoted, sizeof quoted), hash);
    return GFL_OK;
}

static gfl_status gfli_read_position(const gfl_trainer *trainer, const gfli_blob *blob,
                                     const gfli_state_origin *origin, int64_t *out) {
    const gfl_trainer_info *plan = &trainer->plan;
    const int64_t spe = plan->steps_per_epoch;
    int64_t step, epoch, batch;
    GFLI_TRY(gfli_state_number(blob, "step", &step));
    GFLI_TRY(gfli_state_number(blob, "epoch", &epoch));
    GFLI_TRY(gfli_state_number(blob, "batch_in_epoch", &batch));
    if (origin->resized && epoch <= plan->desc.epochs) step = epoch * spe;
    if (step > plan->n_steps || epoch > plan->desc.epochs)
        return gfli_error(
            trainer->context, GFL_E_MISMATCH,
            "%s: %lld steps are done, but the %d epochs of the trainer have only %lld", blob->path,
            (long long)step, plan->desc.epochs, (long long)plan->n_steps);
    if (epoch != step / spe || batch != step % spe * origin->accumulate)
        return gfli_error(trainer->context, GFL_E_FORMAT,
                          "%s: step %lld, epoch %lld and batch %lld of its metadata do not go "
                          "together",
                          blob->path, (long long)step, (long long)epoch, (long long)batch);
    *out = step;
    return GFL_OK;
}

static bool gfli_fits_param(const gfli_tensor *t, const gfli_param *p) {
    bool fits = t->dtype == GFLI_F32 && t->rank == p->rank;
    for (int k = 0; fits && k < p->rank; k++) fits = t->shape[k] == p->shape[k];
    return fits;
}

/* The momentum of every trained parameter, and nothing else. */
static gfl_status gfli_check_momentum(const gfl_trainer *trainer, const gfli_blob *blob) {
    const gfl_model *model = trainer->model;
    int n = 0;
    for (int i = 0; i < model->n_params; i++) {
        char name[160];
        if (trainer->learner.layout.offset[i] == GFLI_NO_GRADIENT) continue;
        gfli_momentum_name(&model->params[i], name);
        const gfli_tensor *tensor = gfli_blob_find(blob, name);
        if (!tensor || !gfli_fits_param(tensor, &model->params[i]))
            return gfli_error(trainer->context, GFL_E_MISMATCH, "%s: %s is %s", blob->path, name,
                              tensor ? "of another shape or type" : "missing");
        n++;
    }
    if (blob->n_tensors != n)
        return gfli_error(trainer->context, GFL_E_MISMATCH,
                          "%s: it holds %d tensors, but the state of this model has %d", blob->path,
                          blob->n_tensors, n);
    return GFL_OK;
}

static gfl_status gfli_read_momentum(const gfl_trainer *trainer, gfli_blob *blob, float *momentum,
                                     float *buffer) {
    const gfl_model *model = trainer->model;
    const gfli_learner *l = &trainer->learner;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        char name[160];
        if (l->layout.offset[i] == GFLI_NO_GRADIENT) continue;
        gfli_momentum_name(p, name);
        float *to = momentum + l->layout.offset[i];
        GFLI_TRY(gfli_blob_read_f32(blob, gfli_blob_find(blob, name), p->rank == 4 ? buffer : to));
        if (p->rank == 4) gfli_reorder_weight(p, buffer, to, false);
        if (!gfli_all_finite(to, p->count))
            return gfli_error(trainer->context, GFL_E_FORMAT,
                              "%s: %s is not finite: the file is damaged, or was written after the "
                              "training had failed; go on from an earlier state",
                              blob->path, name);
    }
    return GFL_OK;
}

gfl_status gfli_state_load(gfl_trainer *trainer, gfli_blob *blob) {
    gfli_learner *l = &trainer->learner;
    float *momentum, *buffer = NULL;
    int64_t step = 0;
    gfli_state_origin origin;
    double lr;
    GFLI_TRY(gfli_check_state_kind(blob));
    GFLI_TRY(gfli_read_origin(trainer, blob, &origin));
    GFLI_TRY(gfli_check_state_desc(trainer, blob, &origin, &lr));
    GFLI_TRY(gfli_check_state_hashes(trainer, blob));
    GFLI_TRY(gfli_read_position(trainer, blob, &origin, &step));
    GFLI_TRY(gfli_check_momentum(trainer, blob));
    GFLI_TRY(gfli_calloc(trainer->context, l->layout.floats, sizeof(float), "momentum", &momentum));
    gfl_status status = gfli_alloc_largest(trainer->model, trainer->context, &buffer);
    if (status == GFL_OK) status = gfli_read_momentum(trainer, blob, momentum, buffer);
    gfli_free(trainer->context, buffer);
    if (status == GFL_OK)
        trainer->model->backend->device.upload(trainer->context, l->momentum, momentum,
                                               l->layout.floats * sizeof *momentum);
    gfli_free(trainer->context, momentum);
    GFLI_TRY(status);
    l->updates = step;
    trainer->plan.desc.lr = lr;
    trainer->positioned = false;
    return GFL_OK;
}

/* From the file of a path, or from bytes. */
static gfl_status gfli_state_read(gfl_trainer *trainer, const char *path, const void *bytes,
                                  size_t size) {
    gfli_blob blob;
    GFLI_TRY(path ? gfli_blob_open(trainer->context, path, &blob)
                  : gfli_blob_open_memory(trainer->context, bytes, size,
                                          "the state of a training in memory", &blob));
    gfl_status status = gfli_state_load(trainer, &blob);
    gfli_blob_close(&blob);
    return status;
}

static gfl_status gfli_state_share(gfl_trainer *trainer, const char *path, const void *bytes,
                                   size_t size) {
    static const char *const what = "loading the state of a training";
    gfl_status status = gfli_check_place(trainer, path ? path : bytes, what);
    if (status == GFL_OK && trainer->context->ranks.rank == 0)
        status = gfli_state_read(trainer, path, bytes, size);
    GFLI_TRY(gfli_trainer_agree(trainer, status, what));
    return gfli_trainer_share(trainer);
}

gfl_status gfl_trainer_load_state(gfl_trainer *trainer, const char *path) {
    GFLI_NOT_NULL(NULL, trainer);
    return gfli_state_share(trainer, path, NULL, 0);
}

gfl_status gfl_trainer_load_state_memory(gfl_trainer *trainer, const void *bytes, size_t size) {
    GFLI_NOT_NULL(NULL, trainer);
    return gfli_state_share(trainer, NULL, bytes, size);
}

/* ===============================================================================================
 * src/train/ranks.c - what the trainers of all ranks agree on before and between steps
 * ============================================================================================ */

/* Bytes of the host go through the trainer's desk: ranks exchange memory of the device. */

gfl_status gfli_trainer_agree(const gfl_trainer *trainer, gfl_status mine, const char *what) {
    gfl_context *context = trainer->context;
    const gfli_device_ops *device = &context->backend->device;
    double failed[2] = {0, 0};
    if (mine != GFL_OK) {
        failed[0] = 1;
        failed[1] = context->ranks.rank;
    }
    device->upload(context, trainer->desk, failed, sizeof failed);
    GFLI_TRY(gfli_group_sum(context, trainer->desk, 2, GFL_SUM_F64));
    GFLI_TRY(gfli_group_settle(context, what));
    device->download(context, failed, trainer->desk, sizeof failed);
    GFLI_TRY(device->finish(context));
    if (mine != GFL_OK || failed[0] == 0) return mine;
    return gfli_group_blame(context, failed[0], failed[1], what);
}

/* Up to GFLI_DESK bytes of rank 0, for all. */
static gfl_status gfli_trainer_hear(const gfl_trainer *trainer, void *bytes, size_t n,
                                    const char *what) {
    gfl_context *context = trainer->context;
    const gfli_device_ops *device = &context->backend->device;
    device->upload(context, trainer->desk, bytes, n);
    GFLI_TRY(gfli_group_broadcast(context, trainer->desk, n));
    GFLI_TRY(gfli_group_settle(context, what));
    device->download(context, bytes, trainer->desk, n);
    return device->finish(context);
}

/* The first line that differs. */
static gfl_status gfli_compare_lines(gfl_context *context, const char *mine, const char *theirs) {
    while (*mine || *theirs) {
        const size_t n = strcspn(mine, "\n"), m = strcspn(theirs, "\n");
        if (n != m || memcmp(mine, theirs, n) != 0)
            return gfli_error(context, GFL_E_MISMATCH,
                              "rank %d: %.*s; rank 0: %.*s.  It must be the same on all ranks",
                              context->ranks.rank, (int)n, mine, (int)m, theirs);
        mine += n + (mine[n] != 0);
        theirs += m + (theirs[m] != 0);
    }
    return GFL_OK;
}

gfl_status gfli_trainer_compare(const gfl_trainer *trainer, gfl_status mine,
                                const char text[GFLI_DESK], const char *what) {
    char theirs[GFLI_DESK];
    memset(theirs, 0, sizeof theirs);
    if (mine == GFL_OK) snprintf(theirs, sizeof theirs, "%s", text);
    GFLI_TRY(gfli_trainer_hear(trainer, theirs, sizeof theirs, what));
    theirs[sizeof theirs - 1] = 0;
    if (mine == GFL_OK && theirs[0]) /* else rank 0 has failed */
        mine = gfli_compare_lines(trainer->context, text, theirs);
    return gfli_trainer_agree(trainer, mine, what);
}

static void gfli_put_line(char text[GFLI_DESK], const char *key, const char *value) {
    const size_t used = strlen(text);
    snprintf(text + used, GFLI_DESK - used, "%s = %s\n", key, value);
}

/* Everything that decides about a training. */
static void gfli_describe_trainer(const gfl_trainer *trainer, char text[GFLI_DESK]) {
    gfli_state_fields f;
    char value[32];
    text[0] = 0;
    gfli_put_line(text, "version of gfl", GFL_VERSION_TEXT);
    snprintf(value, sizeof value, "%d", trainer->context->ranks.n_ranks);
    gfli_put_line(text, "ranks", value);
    gfli_describe_training(trainer, &trainer->plan.desc, &f);
    for (int i = 0; i < f.n; i++) gfli_put_line(text, f.fields[i].key, f.fields[i].value);
    gfli_hash_format(gfli_hash_network(trainer->model), value);
    gfli_put_line(text, "fingerprint of the network", value);
    gfli_hash_format(gfli_hash_dataset(trainer->dataset), value);
    gfli_put_line(text, "fingerprint of the data set", value);
}

gfl_status gfli_trainer_share(gfl_trainer *trainer) {
    gfli_learner *l = &trainer->learner;
    gfl_model *model = trainer->model;
    struct {
        int64_t updates;
        double lr;
    } position = {l->updates, trainer->plan.desc.lr};
    if (trainer->context->ranks.rank > 0)
        gfli_model_changed(model, 0); /* even if it fails halfway */
    GFLI_TRY(
        gfli_group_broadcast(trainer->context, model->values, model->n_values * sizeof(float)));
    GFLI_TRY(gfli_group_broadcast(trainer->context, l->momentum, l->layout.floats * sizeof(float)));
    GFLI_TRY(gfli_trainer_hear(trainer, &position, sizeof position, "the weights of rank 0"));
    l->updates = position.updates;
    trainer->plan.desc.lr = position.lr;
    trainer->positioned = false;
    return GFL_OK;
}

gfl_status gfli_trainer_join(gfl_trainer *trainer, gfl_status mine) {
    char text[GFLI_DESK] = "";
    if (mine == GFL_OK) gfli_describe_trainer(trainer, text);
    GFLI_TRY(gfli_trainer_compare(trainer, mine, text, "creating a trainer"));
    return gfli_trainer_share(trainer);
}

/* ===============================================================================================
 * src/ckpt/zip.c - the directory of a zip archive whose records are stored as they are
 * ============================================================================================ */

/* A zip archive is read from its end: the end record, with its 64-bit form where the archive is
 * large, says where the directory is, and the directory says where each record is.  Every number is
 * compared with the size of the file before it is used.  Records must be stored as they are, so
 * that tensors can be read from the file in place. */

enum {
    GFLI_ZIP_END = 22,     /* bytes of the end record */
    GFLI_ZIP_END64 = 56,   /* of its 64-bit form */
    GFLI_ZIP_LOCATOR = 20, /* of what tells where that is */
    GFLI_ZIP_ENTRY = 46,   /* of a directory entry, and */
    GFLI_ZIP_LOCAL = 30,   /* of a record's own header, without names */
    GFLI_ZIP_COMMENT = 65535,
    GFLI_ZIP_DIRECTORY_MAX = 256 << 20
};

uint64_t gfli_zip_number(const uint8_t *at, int n_bytes) {
    uint64_t value = 0;
    for (int i = n_bytes - 1; i >= 0; i--) value = value << 8 | at[i];
    return value;
}

gfl_status gfli_zip_broken(const gfli_zip *zip, const char *what) {
    return gfli_error(zip->blob->context, GFL_E_FORMAT,
                      "%s: %s; the file is damaged or was not copied whole: fetch it again",
                      zip->blob->path, what);
}

/* Where the directory is and how many records it lists, from the end of the file. */
static gfl_status gfli_zip_find_directory(gfli_zip *zip, uint64_t *at, uint64_t *size,
                                          uint64_t *n_records) {
    gfli_blob *b = zip->blob;
    const uint64_t tail = GFLI_ZIP_END + GFLI_ZIP_COMMENT;
    const size_t n = (size_t)(b->size < tail ? b->size : tail);
    uint8_t *end, locator[GFLI_ZIP_LOCATOR], end64[GFLI_ZIP_END64];
    GFLI_TRY(gfli_alloc(b->context, n, 1, "a zip directory", &end));
    gfl_status status = gfli_blob_pread(b, b->size - n, end, n);
    bool found = false;
    uint64_t place = 0;
    for (size_t i = n; status == GFL_OK && !found && i >= GFLI_ZIP_END; i--) {
        const uint8_t *p = end + i - GFLI_ZIP_END;
        if (memcmp(p, "PK\5\6", 4) != 0) continue;
        found = true;
        place = b->size - n + (i - GFLI_ZIP_END);
        *n_records = gfli_zip_number(p + 10, 2);
        *size = gfli_zip_number(p + 12, 4);
        *at = gfli_zip_number(p + 16, 4);
    }
    gfli_free(b->context, end);
    GFLI_TRY(status);
    if (!found) return gfli_zip_broken(zip, "a zip archive without its directory");
    if (place < GFLI_ZIP_LOCATOR) return GFL_OK;
    GFLI_TRY(gfli_blob_pread(b, place - GFLI_ZIP_LOCATOR, locator, sizeof locator));
    if (memcmp(locator, "PK\6\7", 4) != 0) return GFL_OK;
    const uint64_t there = gfli_zip_number(locator + 8, 8);
    if (there > b->size || b->size - there < GFLI_ZIP_END64)
        return gfli_zip_broken(zip, "the zip64 directory lies outside the file");
    GFLI_TRY(gfli_blob_pread(b, there, end64, sizeof end64));
    if (memcmp(end64, "PK\6\6", 4) != 0)
        return gfli_zip_broken(zip, "the zip64 directory is not where it should be");
    *n_records = gfli_zip_number(end64 + 32, 8);
    *size = gfli_zip_number(end64 + 40, 8);
    *at = gfli_zip_number(end64 + 48, 8);
    return GFL_OK;
}

/* Numbers that did not fit into 32 bits stand in the extra field 1, those and no others. */
static bool gfli_zip_wide(const uint8_t *extra, size_t n, uint64_t *const wide[3]) {
    while (n >= 4) {
        const size_t id = (size_t)gfli_zip_number(extra, 2);
        size_t size = (size_t)gfli_zip_number(extra + 2, 2);
        extra += 4;
        n -= 4;
        if (size > n) return false;
        n -= size;
        for (int i = 0; id == 1 && i < 3; i++) {
            if (*wide[i] != 0xFFFFFFFFu) continue;
            if (size < 8) return false;
            *wide[i] = gfli_zip_number(extra, 8);
            extra += 8;
            size -= 8;
        }
        extra += size;
    }
    for (int i = 0; i < 3; i++)
        if (*wide[i] == 0xFFFFFFFFu) return false;
    return true;
}

/* One entry of the directory; *used gets its length. */
static gfl_status gfli_zip_entry(gfli_zip *zip, const uint8_t *entry, size_t left, size_t *used) {
    gfli_blob *b = zip->blob;
    if (left < GFLI_ZIP_ENTRY || memcmp(entry, "PK\1\2", 4) != 0)
        return gfli_zip_broken(zip, "the zip directory is cut off");
    const size_t name = (size_t)gfli_zip_number(entry + 28, 2);
    const size_t extra = (size_t)gfli_zip_number(entry + 30, 2);
    const size_t comment = (size_t)gfli_zip_number(entry + 32, 2);
    if (left - GFLI_ZIP_ENTRY < name + extra + comment)
        return gfli_zip_broken(zip, "the zip directory is cut off");
    *used = GFLI_ZIP_ENTRY + name + extra + comment;
    GFLI_TRY(gfli_grow(b->context, &zip->records, &zip->capacity, (size_t)zip->n_records + 1,
                       sizeof *zip->records, "a zip directory"));
    gfli_zip_record *r = &zip->records[zip->n_records];
    memset(r, 0, sizeof *r);
    uint64_t stored = gfli_zip_number(entry + 20, 4);
    r->crc = (uint32_t)gfli_zip_number(entry + 16, 4);
    r->size = gfli_zip_number(entry + 24, 4);
    r->offset = gfli_zip_number(entry + 42, 4);
    uint64_t *const wide[3] = {&r->size, &stored, &r->offset};
    if (!gfli_zip_wide(entry + GFLI_ZIP_ENTRY + name, extra, wide))
        return gfli_zip_broken(zip, "the zip directory lacks the size of a record");
    /* method 0: stored; bit 0 of the flags: encrypted */
    r->compressed = gfli_zip_number(entry + 10, 2) != 0 || (entry[8] & 1) != 0 || stored != r->size;
    GFLI_TRY(gfli_alloc(b->context, name + 1, 1, "a zip directory", &r->name));
    memcpy(r->name, entry + GFLI_ZIP_ENTRY, name);
    r->name[name] = 0;
    zip->n_records++;
    return GFL_OK;
}

static int gfli_compare_records(const void *a, const void *b) {
    return strcmp(((const gfli_zip_record *)a)->name, ((const gfli_zip_record *)b)->name);
}

static gfl_status gfli_zip_read_directory(gfli_zip *zip) {
    gfli_blob *b = zip->blob;
    uint64_t at = 0, size = 0, n_records = 0;
    GFLI_TRY(gfli_zip_find_directory(zip, &at, &size, &n_records));
    if (at > b->size || size > b->size - at || size > GFLI_ZIP_DIRECTORY_MAX)
        return gfli_zip_broken(zip, "the zip directory lies outside the file");
    if (n_records > size / GFLI_ZIP_ENTRY)
        return gfli_zip_broken(zip, "the zip directory is too short for its records");
    uint8_t *entries;
    GFLI_TRY(gfli_alloc(b->context, (size_t)size, 1, "a zip directory", &entries));
    gfl_status status = gfli_blob_pread(b, at, entries, size);
    size_t used = 0, next = 0;
    for (uint64_t i = 0; i < n_records && status == GFL_OK; i++, used += next)
        status = gfli_zip_entry(zip, entries + used, (size_t)size - used, &next);
    gfli_free(b->context, entries);
    GFLI_TRY(status);
    if (zip->n_records)
        qsort(zip->records, (size_t)zip->n_records, sizeof *zip->records, gfli_compare_records);
    uint64_t left = b->size; /* records that overlap would be checked again and again */
    for (int i = 0; i < zip->n_records; i++) {
        if (zip->records[i].compressed) continue;
        if (zip->records[i].size > left)
            return gfli_zip_broken(zip, "its records are larger than the file");
        left -= zip->records[i].size;
    }
    for (int i = 1; i < zip->n_records; i++)
        if (!strcmp(zip->records[i - 1].name, zip->records[i].name))
            return gfli_error(b->context, GFL_E_FORMAT, "%s: record %.200s is there twice", b->path,
                              zip->records[i].name);
    return GFL_OK;
}

gfl_status gfli_zip_open(gfli_blob *blob, gfli_zip *out) {
    memset(out, 0, sizeof *out);
    out->blob = blob;
    gfli_crc32_tables(out->crc_table);
    gfl_status status = gfli_zip_read_directory(out);
    if (status != GFL_OK) gfli_zip_close(out);
    return status;
}

void gfli_zip_close(gfli_zip *zip) {
    if (!zip->blob) return;
    for (int i = 0; i < zip->n_records; i++) gfli_free(zip->blob->context, zip->records[i].name);
    gfli_free(zip->blob->context, zip->records);
    memset(zip, 0, sizeof *zip);
}

gfli_zip_record *gfli_zip_find(const gfli_zip *zip, const char *name) {
    int low = 0, high = zip->n_records;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        const int order = strcmp(zip->records[middle].name, name);
        if (order == 0) return &zip->records[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* From the record's header to its bytes: the two may have different extra fields. */
static gfl_status gfli_zip_locate(gfli_zip *zip, gfli_zip_record *r) {
    gfli_blob *b = zip->blob;
    uint8_t head[GFLI_ZIP_LOCAL];
    if (r->offset > b->size || b->size - r->offset < GFLI_ZIP_LOCAL)
        return gfli_zip_broken(zip, "a record lies outside the file");
    GFLI_TRY(gfli_blob_pread(b, r->offset, head, sizeof head));
    if (memcmp(head, "PK\3\4", 4) != 0)
        return gfli_zip_broken(zip, "a record is not where the directory says");
    const uint64_t names = gfli_zip_number(head + 26, 2) + gfli_zip_number(head + 28, 2);
    const uint64_t start = r->offset + GFLI_ZIP_LOCAL + names;
    if (start > b->size || r->size > b->size - start)
        return gfli_zip_broken(zip, "a record lies outside the file");
    r->offset = start;
    return GFL_OK;
}

gfl_status gfli_zip_check(gfli_zip *zip, gfli_zip_record *r, const char *use) {
    enum { PIECE = 1 << 16 };
    gfli_blob *b = zip->blob;
    uint32_t crc = 0;
    uint8_t *piece;
    if (r->checked) return GFL_OK;
    if (r->compressed)
        return gfli_error(b->context, GFL_E_UNSUPPORTED,
                          "%s: record %.200s (%.200s) is compressed or encrypted, which torch.save "
                          "never does; write the checkpoint again with torch.save",
                          b->path, r->name, use);
    GFLI_TRY(gfli_zip_locate(zip, r));
    GFLI_TRY(gfli_alloc(b->context, PIECE, 1, "a checkpoint", &piece));
    gfl_status status = GFL_OK;
    for (uint64_t done = 0; done < r->size && status == GFL_OK;) {
        const size_t n = r->size - done < PIECE ? (size_t)(r->size - done) : (size_t)PIECE;
        status = gfli_blob_pread(b, r->offset + done, piece, n);
        if (status == GFL_OK) crc = gfli_crc32(zip->crc_table, crc, piece, n);
        done += n;
    }
    gfli_free(b->context, piece);
    GFLI_TRY(status);
    if (crc != r->crc)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s: %.200s (record %.200s) does not fit its checksum; the file is "
                          "damaged: fetch it again",
                          b->path, use, r->name);
    r->checked = true;
    return GFL_OK;
}

/* ===============================================================================================
 * src/ckpt/pickle.c - an unpickler that calls nothing
 * ============================================================================================ */

/* A pickle is a program for a stack machine.  In Python it can call anything; here its operations
 * only build values: numbers, texts, lists, dictionaries, and tensors where it names one of torch's
 * functions that make them.  What it would call otherwise becomes an opaque value with the name of
 * the function, which nobody executes.  Values, texts, the stack and the memo are arrays that grow,
 * no larger than in proportion to the pickle's bytes. */

enum {
    GFLI_PICKLE_TEXT_MAX = 1 << 20, /* longer texts are not even configurations: stepped over */
    GFLI_PICKLE_LIMIT = 1 << 28,    /* values and depth of the stack, which bytes limit first */
    GFLI_PICKLE_SPARE = 4096        /* bytes of texts, and values, that any pickle may have */
};

/* The operations of protocols 0 to 5, by the names of Python's pickletools. */
enum {
    GFLI_OPCODE_MARK = '(',
    GFLI_OPCODE_STOP = '.',
    GFLI_OPCODE_POP = '0',
    GFLI_OPCODE_POP_MARK = '1',
    GFLI_OPCODE_DUP = '2',
    GFLI_OPCODE_FLOAT = 'F',
    GFLI_OPCODE_INT = 'I',
    GFLI_OPCODE_LONG = 'L',
    GFLI_OPCODE_NONE = 'N',
    GFLI_OPCODE_PERSID = 'P',
    GFLI_OPCODE_BINPERSID = 'Q',
    GFLI_OPCODE_REDUCE = 'R',
    GFLI_OPCODE_STRING = 'S',
    GFLI_OPCODE_UNICODE = 'V',
    GFLI_OPCODE_APPEND = 'a',
    GFLI_OPCODE_BUILD = 'b',
    GFLI_OPCODE_GLOBAL = 'c',
    GFLI_OPCODE_DICT = 'd',
    GFLI_OPCODE_APPENDS = 'e',
    GFLI_OPCODE_GET = 'g',
    GFLI_OPCODE_BINGET = 'h',
    GFLI_OPCODE_INST = 'i',
    GFLI_OPCODE_LONG_BINGET = 'j',
    GFLI_OPCODE_LIST = 'l',
    GFLI_OPCODE_OBJ = 'o',
    GFLI_OPCODE_PUT = 'p',
    GFLI_OPCODE_BINPUT = 'q',
    GFLI_OPCODE_LONG_BINPUT = 'r',
    GFLI_OPCODE_SETITEM = 's',
    GFLI_OPCODE_TUPLE = 't',
    GFLI_OPCODE_SETITEMS = 'u',
    GFLI_OPCODE_BINFLOAT = 'G',
    GFLI_OPCODE_BININT = 'J',
    GFLI_OPCODE_BININT1 = 'K',
    GFLI_OPCODE_BININT2 = 'M',
    GFLI_OPCODE_BINSTRING = 'T',
    GFLI_OPCODE_SHORT_BINSTRING = 'U',
    GFLI_OPCODE_BINUNICODE = 'X',
    GFLI_OPCODE_BINBYTES = 'B',
    GFLI_OPCODE_SHORT_BINBYTES = 'C',
    GFLI_OPCODE_EMPTY_TUPLE = ')',
    GFLI_OPCODE_EMPTY_LIST = ']',
    GFLI_OPCODE_EMPTY_DICT = '}',
    GFLI_OPCODE_PROTO = 0x80,
    GFLI_OPCODE_NEWOBJ = 0x81,
    GFLI_OPCODE_EXT1 = 0x82,
    GFLI_OPCODE_EXT2 = 0x83,
    GFLI_OPCODE_EXT4 = 0x84,
    GFLI_OPCODE_TUPLE1 = 0x85,
    GFLI_OPCODE_TUPLE2 = 0x86,
    GFLI_OPCODE_TUPLE3 = 0x87,
    GFLI_OPCODE_NEWTRUE = 0x88,
    GFLI_OPCODE_NEWFALSE = 0x89,
    GFLI_OPCODE_LONG1 = 0x8a,
    GFLI_OPCODE_LONG4 = 0x8b,
    GFLI_OPCODE_SHORT_BINUNICODE = 0x8c,
    GFLI_OPCODE_BINUNICODE8 = 0x8d,
    GFLI_OPCODE_BINBYTES8 = 0x8e,
    GFLI_OPCODE_EMPTY_SET = 0x8f,
    GFLI_OPCODE_ADDITEMS = 0x90,
    GFLI_OPCODE_FROZENSET = 0x91,
    GFLI_OPCODE_NEWOBJ_EX = 0x92,
    GFLI_OPCODE_STACK_GLOBAL = 0x93,
    GFLI_OPCODE_MEMOIZE = 0x94,
    GFLI_OPCODE_FRAME = 0x95,
    GFLI_OPCODE_BYTEARRAY8 = 0x96,
    GFLI_OPCODE_NEXT_BUFFER = 0x97,
    GFLI_OPCODE_READONLY_BUFFER = 0x98
};

void gfli_pickle_init(gfli_blob *blob, gfli_pickle *out) {
    memset(out, 0, sizeof *out);
    out->context = blob->context;
    out->blob = blob;
}

void gfli_pickle_free(gfli_pickle *p) {
    if (!p->context) return;
    gfli_free(p->context, p->nodes);
    gfli_free(p->context, p->stack);
    gfli_free(p->context, p->marks);
    gfli_free(p->context, p->memo);
    gfli_free(p->context, p->texts);
    memset(p, 0, sizeof *p);
}

static gfl_status gfli_pickle_broken(const gfli_pickle *p, const char *what) {
    return gfli_error(p->context, GFL_E_FORMAT, "%s: %s, byte %llu: %s", p->blob->path, p->where,
                      (unsigned long long)(p->at - p->start), what);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static gfl_status gfli_pickle_bytes(gfli_pickle *p, void *out, size_t n) {
    uint8_t *to = (uint8_t *)out;
    if (n > p->end - p->at) return gfli_pickle_broken(p, "it ends in the middle");
    while (n > 0) {
        if (p->at < p->buffer_at || p->at >= p->buffer_at + p->buffered) {
            const uint64_t left = p->end - p->at;
            p->buffer_at = p->at;
            p->buffered = left < sizeof p->buffer ? (size_t)left : sizeof p->buffer;
            gfl_status status = gfli_blob_pread(p->blob, p->at, p->buffer, p->buffered);
            if (status != GFL_OK) {
                p->buffered = 0;
                return status;
            }
        }
        const size_t from = (size_t)(p->at - p->buffer_at);
        const size_t some = n < p->buffered - from ? n : p->buffered - from;
        memcpy(to, p->buffer + from, some);
        to += some;
        p->at += some;
        n -= some;
    }
    return GFL_OK;
}

static gfl_status gfli_pickle_skip(gfli_pickle *p, uint64_t n) {
    if (n > p->end - p->at) return gfli_pickle_broken(p, "it ends in the middle");
    p->at += n;
    return GFL_OK;
}

static gfl_status gfli_pickle_number(gfli_pickle *p, int n_bytes, uint64_t *out) {
    uint8_t bytes[8];
    GFLI_TRY(gfli_pickle_bytes(p, bytes, (size_t)n_bytes));
    *out = gfli_zip_number(bytes, n_bytes);
    return GFL_OK;
}

/* A line without its end, 0-terminated. */
static gfl_status gfli_pickle_line(gfli_pickle *p, char *out, size_t capacity) {
    for (size_t i = 0; i < capacity; i++) {
        GFLI_TRY(gfli_pickle_bytes(p, &out[i], 1));
        if (out[i] != '\n') continue;
        out[i] = 0;
        return GFL_OK;
    }
    return gfli_pickle_broken(p, "a line is too long");
}

/* Bytes of this pickle and of those before it, so far: what memory is in proportion to. */
static uint64_t gfli_pickle_taken(const gfli_pickle *p) {
    return p->earlier + (p->at - p->start);
}

/* ---- values ---------------------------------------------------------------------------------- */

static gfl_status gfli_pickle_node_new(gfli_pickle *p, gfli_pickle_kind kind, uint32_t a, int64_t n,
                                       uint32_t *out) {
    /* A byte can make a value and its place in a list; only a dictionary made of a list that is
     * used again and again makes more of few bytes. */
    if (p->n_nodes >= 2 * gfli_pickle_taken(p) + GFLI_PICKLE_SPARE ||
        p->n_nodes >= GFLI_PICKLE_LIMIT)
        return gfli_pickle_broken(p, "more values than its bytes can hold");
    GFLI_TRY(gfli_grow(p->context, &p->nodes, &p->node_capacity, p->n_nodes + 1, sizeof *p->nodes,
                       "a checkpoint's values"));
    gfli_pickle_node *node = &p->nodes[p->n_nodes];
    memset(node, 0, sizeof *node);
    node->kind = kind;
    node->a = a;
    node->n = n;
    *out = (uint32_t)p->n_nodes++;
    return GFL_OK;
}

static gfl_status gfli_pickle_push(gfli_pickle *p, uint32_t node) {
    if (p->n_stack >= GFLI_PICKLE_LIMIT) return gfli_pickle_broken(p, "its stack is too deep");
    GFLI_TRY(gfli_grow(p->context, &p->stack, &p->stack_capacity, p->n_stack + 1, sizeof *p->stack,
                       "a checkpoint's stack"));
    p->stack[p->n_stack++] = node;
    return GFL_OK;
}

static gfl_status gfli_pickle_push_new(gfli_pickle *p, gfli_pickle_kind kind, int64_t n) {
    uint32_t node = 0;
    GFLI_TRY(gfli_pickle_node_new(p, kind, 0, n, &node));
    return gfli_pickle_push(p, node);
}

/* Values above the last mark cannot be taken by operations that know of no mark. */
static gfl_status gfli_pickle_pop(gfli_pickle *p, uint32_t *out) {
    const size_t floor = p->n_marks ? p->marks[p->n_marks - 1] : 0;
    if (p->n_stack <= floor) return gfli_pickle_broken(p, "a value is missing");
    *out = p->stack[--p->n_stack];
    return GFL_OK;
}

static gfl_status gfli_pickle_mark(gfli_pickle *p) {
    if (p->n_marks >= GFLI_PICKLE_LIMIT) return gfli_pickle_broken(p, "it is nested too deep");
    GFLI_TRY(gfli_grow(p->context, &p->marks, &p->mark_capacity, p->n_marks + 1, sizeof *p->marks,
                       "a checkpoint's stack"));
    p->marks[p->n_marks++] = (uint32_t)p->n_stack;
    return GFL_OK;
}

/* Takes the last mark away; the values above it are stack[*first..n_stack). */
static gfl_status gfli_pickle_unmark(gfli_pickle *p, size_t *first) {
    if (!p->n_marks) return gfli_pickle_broken(p, "a mark is missing");
    *first = p->marks[--p->n_marks];
    return GFL_OK;
}

/* Where n bytes and a 0 may be put in the texts; they count once written. */
static gfl_status gfli_pickle_text_room(gfli_pickle *p, size_t n, char **out) {
    /* Names can be put together from texts that were there before; honest files do so rarely. */
    if (p->n_texts > 4 * gfli_pickle_taken(p) + GFLI_PICKLE_SPARE)
        return gfli_pickle_broken(p, "too many long names");
    GFLI_TRY(gfli_grow(p->context, &p->texts, &p->text_capacity, p->n_texts + n + 1, 1,
                       "a checkpoint's texts"));
    *out = p->texts + p->n_texts;
    return GFL_OK;
}

/* A text of the next n bytes: one that could be a key is kept, any other is opaque. */
static gfl_status gfli_pickle_push_text(gfli_pickle *p, uint64_t n) {
    char *text = NULL;
    if (n > GFLI_PICKLE_TEXT_MAX) {
        GFLI_TRY(gfli_pickle_skip(p, n));
        return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
    }
    if (n > p->end - p->at) return gfli_pickle_broken(p, "it ends in the middle");
    GFLI_TRY(gfli_pickle_text_room(p, (size_t)n, &text));
    GFLI_TRY(gfli_pickle_bytes(p, text, (size_t)n));
    text[n] = 0;
    if (memchr(text, 0, (size_t)n)) return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
    GFLI_TRY(gfli_pickle_push_new(p, GFLI_PICKLE_TEXT, (int64_t)p->n_texts));
    p->n_texts += (size_t)n + 1;
    return GFL_OK;
}

static gfl_status gfli_pickle_push_name(gfli_pickle *p, const char *module, const char *name) {
    const size_t m = strlen(module), n = strlen(name);
    char *text = NULL;
    GFLI_TRY(gfli_pickle_text_room(p, m + n + 1, &text));
    memcpy(text, module, m);
    text[m] = '.';
    memcpy(text + m + 1, name, n + 1);
    GFLI_TRY(gfli_pickle_push_new(p, GFLI_PICKLE_NAME, (int64_t)p->n_texts));
    p->n_texts += m + n + 2;
    return GFL_OK;
}

const char *gfli_pickle_text(const gfli_pickle *p, uint32_t node) {
    return p->nodes[node].kind == GFLI_PICKLE_TEXT ? p->texts + p->nodes[node].n : NULL;
}

/* ---- containers ------------------------------------------------------------------------------ */

static void gfli_pickle_link(gfli_pickle *p, uint32_t container, uint32_t cell) {
    gfli_pickle_node *c = &p->nodes[container];
    if (c->a)
        p->nodes[c->b].b = cell;
    else
        c->a = cell;
    c->b = cell;
    c->n++;
}

/* Additions to what is no container of ours - an opaque value - are forgotten. */
static gfl_status gfli_pickle_append(gfli_pickle *p, uint32_t list, uint32_t value) {
    uint32_t cell = 0;
    if (p->nodes[list].kind != GFLI_PICKLE_LIST) return GFL_OK;
    GFLI_TRY(gfli_pickle_node_new(p, GFLI_PICKLE_CELL, value, 0, &cell));
    gfli_pickle_link(p, list, cell);
    return GFL_OK;
}

static gfl_status gfli_pickle_set(gfli_pickle *p, uint32_t dict, uint32_t key, uint32_t value) {
    uint32_t pair = 0;
    if (p->nodes[dict].kind != GFLI_PICKLE_DICT) return GFL_OK;
    GFLI_TRY(gfli_pickle_node_new(p, GFLI_PICKLE_PAIR, key, (int64_t)value, &pair));
    gfli_pickle_link(p, dict, pair);
    return GFL_OK;
}

/* stack[first..) becomes one list, or pairs of a dictionary. */
static gfl_status gfli_pickle_collect(gfli_pickle *p, gfli_pickle_kind kind, size_t first) {
    uint32_t made;
    GFLI_TRY(gfli_pickle_node_new(p, kind, 0, 0, &made));
    if (kind == GFLI_PICKLE_DICT && (p->n_stack - first) % 2 != 0)
        return gfli_pickle_broken(p, "a key without a value");
    for (size_t i = first; i < p->n_stack; i++) {
        if (kind == GFLI_PICKLE_LIST)
            GFLI_TRY(gfli_pickle_append(p, made, p->stack[i]));
        else if ((i - first) % 2 == 0)
            GFLI_TRY(gfli_pickle_set(p, made, p->stack[i], p->stack[i + 1]));
    }
    p->n_stack = first;
    return gfli_pickle_push(p, made);
}

/* stack[first..) is added to what lies below. */
static gfl_status gfli_pickle_extend(gfli_pickle *p, bool pairs, size_t first) {
    const size_t floor = p->n_marks ? p->marks[p->n_marks - 1] : 0;
    if (first <= floor) return gfli_pickle_broken(p, "a container is missing");
    if (pairs && (p->n_stack - first) % 2 != 0)
        return gfli_pickle_broken(p, "a key without a value");
    for (size_t i = first; i < p->n_stack; i++) {
        if (!pairs)
            GFLI_TRY(gfli_pickle_append(p, p->stack[first - 1], p->stack[i]));
        else if ((i - first) % 2 == 0)
            GFLI_TRY(gfli_pickle_set(p, p->stack[first - 1], p->stack[i], p->stack[i + 1]));
    }
    p->n_stack = first;
    return GFL_OK;
}

static gfl_status gfli_pickle_tuple(gfli_pickle *p, int n) {
    const size_t floor = p->n_marks ? p->marks[p->n_marks - 1] : 0;
    if (p->n_stack < floor + (size_t)n) return gfli_pickle_broken(p, "a value is missing");
    return gfli_pickle_collect(p, GFLI_PICKLE_LIST, p->n_stack - (size_t)n);
}

uint32_t gfli_pickle_item(const gfli_pickle *p, uint32_t list, int i) {
    if (p->nodes[list].kind != GFLI_PICKLE_LIST) return 0;
    uint32_t cell = p->nodes[list].a;
    for (; cell && i > 0; i--) cell = p->nodes[cell].b;
    return cell ? p->nodes[cell].a : 0;
}

uint32_t gfli_pickle_get(const gfli_pickle *p, uint32_t dict, const char *key) {
    uint32_t found = 0;
    if (p->nodes[dict].kind != GFLI_PICKLE_DICT) return 0;
    for (uint32_t pair = p->nodes[dict].a; pair; pair = p->nodes[pair].b) {
        const char *text = gfli_pickle_text(p, p->nodes[pair].a);
        if (text && !strcmp(text, key)) found = (uint32_t)p->nodes[pair].n;
    }
    return found;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* dict(), or a dictionary of the pairs that it is given. */
static gfl_status gfli_pickle_make_dict(gfli_pickle *p, uint32_t args, uint32_t *out) {
    const uint32_t pairs = gfli_pickle_item(p, args, 0);
    GFLI_TRY(gfli_pickle_node_new(p, GFLI_PICKLE_DICT, 0, 0, out));
    if (p->nodes[pairs].kind != GFLI_PICKLE_LIST) return GFL_OK;
    for (uint32_t cell = p->nodes[pairs].a; cell; cell = p->nodes[cell].b) {
        const uint32_t pair = p->nodes[cell].a;
        GFLI_TRY(
            gfli_pickle_set(p, *out, gfli_pickle_item(p, pair, 0), gfli_pickle_item(p, pair, 1)));
    }
    return GFL_OK;
}

static bool gfli_pickle_is_name(const gfli_pickle *p, uint32_t node, const char *name) {
    const gfli_pickle_node *n = &p->nodes[node];
    return n->kind == GFLI_PICKLE_NAME && !strcmp(p->texts + n->n, name);
}

/* What name(args) stands for.  Nothing is ever called: a handful of names become values of our
 * own, everything else is opaque. */
static gfl_status gfli_pickle_make(gfli_pickle *p, uint32_t name, uint32_t args, uint32_t *out) {
    if (gfli_pickle_is_name(p, name, "torch._tensor._rebuild_from_type_v2")) {
        /* (function, class, arguments, attributes): a tensor somebody hung attributes on */
        name = gfli_pickle_item(p, args, 0);
        args = gfli_pickle_item(p, args, 2);
    }
    const gfli_pickle_node *n = &p->nodes[name];
    const int64_t at = n->kind == GFLI_PICKLE_NAME || n->kind == GFLI_PICKLE_OPAQUE ? n->n : -1;
    const char *text = n->kind == GFLI_PICKLE_NAME ? p->texts + n->n : "";
    if (!strcmp(text, "collections.OrderedDict")) return gfli_pickle_make_dict(p, args, out);
    if (!strcmp(text, "torch._utils._rebuild_tensor_v2"))
        return gfli_pickle_node_new(p, GFLI_PICKLE_TENSOR, args, 2, out);
    if (!strcmp(text, "torch._utils._rebuild_tensor"))
        return gfli_pickle_node_new(p, GFLI_PICKLE_TENSOR, args, 1, out);
    if (!strcmp(text, "torch._utils._rebuild_parameter") ||
        !strcmp(text, "torch._utils._rebuild_parameter_with_state") ||
        !strcmp(text, "torch.nn.parameter.Parameter") || /* before torch 0.4 */
        !strcmp(text, "torch.autograd.variable.Variable")) {
        *out = gfli_pickle_item(p, args, 0);
        return GFL_OK;
    }
    return gfli_pickle_node_new(p, GFLI_PICKLE_OPAQUE, 0, at, out);
}

static gfl_status gfli_pickle_reduce(gfli_pickle *p, int n_args) {
    uint32_t name = 0, args = 0, keywords = 0, made = 0;
    if (n_args == 2) GFLI_TRY(gfli_pickle_pop(p, &keywords));
    GFLI_TRY(gfli_pickle_pop(p, &args));
    GFLI_TRY(gfli_pickle_pop(p, &name));
    GFLI_TRY(gfli_pickle_make(p, name, args, &made));
    return gfli_pickle_push(p, made);
}

/* OBJ: the class is the first value above the mark; INST names it in the stream. */
static gfl_status gfli_pickle_object(gfli_pickle *p, bool named) {
    size_t first = 0;
    uint32_t name = 0, args, made;
    if (named) {
        char module[512], text[512];
        GFLI_TRY(gfli_pickle_line(p, module, sizeof module));
        GFLI_TRY(gfli_pickle_line(p, text, sizeof text));
        GFLI_TRY(gfli_pickle_push_name(p, module, text));
        name = p->stack[--p->n_stack];
    }
    GFLI_TRY(gfli_pickle_unmark(p, &first));
    if (!named && p->n_stack == first) return gfli_pickle_broken(p, "a class is missing");
    if (!named) name = p->stack[first];
    GFLI_TRY(gfli_pickle_collect(p, GFLI_PICKLE_LIST, named ? first : first + 1));
    args = p->stack[--p->n_stack];
    p->n_stack = first;
    GFLI_TRY(gfli_pickle_make(p, name, args, &made));
    return gfli_pickle_push(p, made);
}

static gfl_status gfli_pickle_persistent(gfli_pickle *p) {
    uint32_t id = 0, node = 0;
    GFLI_TRY(gfli_pickle_pop(p, &id));
    GFLI_TRY(gfli_pickle_node_new(p, GFLI_PICKLE_STORAGE, id, 0, &node));
    return gfli_pickle_push(p, node);
}

static gfl_status gfli_pickle_stack_global(gfli_pickle *p) {
    uint32_t module = 0, name = 0;
    GFLI_TRY(gfli_pickle_pop(p, &name));
    GFLI_TRY(gfli_pickle_pop(p, &module));
    char copies[2][512];
    const uint32_t nodes[2] = {module, name};
    for (int i = 0; i < 2; i++) {
        const char *text = gfli_pickle_text(p, nodes[i]);
        if (!text || strlen(text) >= sizeof copies[i])
            return gfli_pickle_broken(p, "a name is not a text");
        memcpy(copies[i], text, strlen(text) + 1);
    }
    return gfli_pickle_push_name(p, copies[0], copies[1]);
}

/* ---- the memo -------------------------------------------------------------------------------- */

static gfl_status gfli_pickle_put(gfli_pickle *p, uint64_t index) {
    /* Each takes bytes, and picklers count from 0: a larger number is there to cost memory. */
    if (index >= p->at - p->start) return gfli_pickle_broken(p, "a memo number is too large");
    if (!p->n_stack) return gfli_pickle_broken(p, "a value is missing");
    GFLI_TRY(gfli_grow(p->context, &p->memo, &p->memo_capacity, (size_t)index + 1, sizeof *p->memo,
                       "a checkpoint's memo"));
    for (; p->n_memo <= index; p->n_memo++) p->memo[p->n_memo] = UINT32_MAX;
    p->memo[index] = p->stack[p->n_stack - 1];
    return GFL_OK;
}

static gfl_status gfli_pickle_recall(gfli_pickle *p, uint64_t index) {
    if (index >= p->n_memo || p->memo[index] == UINT32_MAX)
        return gfli_pickle_broken(p, "it refers to a value that is not there");
    return gfli_pickle_push(p, p->memo[index]);
}

/* ---- operations ------------------------------------------------------------------------------ */

/* Integers of more than 8 bytes are kept as bytes, if they are not longer than any known one. */
static gfl_status gfli_pickle_long(gfli_pickle *p, uint64_t n) {
    uint8_t bytes[8] = {0};
    if (n > 8) {
        char *text = NULL;
        if (n > 64) {
            GFLI_TRY(gfli_pickle_skip(p, n));
            return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
        }
        GFLI_TRY(gfli_pickle_text_room(p, 64, &text));
        memset(text, 0, 65);
        GFLI_TRY(gfli_pickle_bytes(p, text, (size_t)n));
        GFLI_TRY(gfli_pickle_push_new(p, GFLI_PICKLE_LONG, (int64_t)p->n_texts));
        p->n_texts += 65;
        return GFL_OK;
    }
    GFLI_TRY(gfli_pickle_bytes(p, bytes, (size_t)n));
    uint64_t value = gfli_zip_number(bytes, 8);
    if (n > 0 && n < 8 && bytes[n - 1] & 0x80) value |= ~(uint64_t)0 << (8 * n);
    int64_t number;
    memcpy(&number, &value, sizeof number);
    return gfli_pickle_push_new(p, GFLI_PICKLE_INT, number);
}

/* Protocol 0: "12", "01" (True), "12L". */
static gfl_status gfli_pickle_decimal(gfli_pickle *p) {
    char line[64];
    GFLI_TRY(gfli_pickle_line(p, line, sizeof line));
    if (!strcmp(line, "00") || !strcmp(line, "01"))
        return gfli_pickle_push_new(p, GFLI_PICKLE_BOOL, line[1] - '0');
    const bool negative = line[0] == '-';
    const char *digit = line + negative;
    int64_t value = 0;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        if (value > (INT64_MAX - 9) / 10) return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
        value = 10 * value + (*digit - '0');
    }
    if (digit == line + negative || (strcmp(digit, "") != 0 && strcmp(digit, "L") != 0))
        return gfli_pickle_broken(p, "an integer cannot be read");
    return gfli_pickle_push_new(p, GFLI_PICKLE_INT, negative ? -value : value);
}

/* Protocol 0 texts: never the keys of a checkpoint, whose storages need protocol 2. */
static gfl_status gfli_pickle_quoted(gfli_pickle *p) {
    char byte = 0;
    while (byte != '\n') GFLI_TRY(gfli_pickle_bytes(p, &byte, 1));
    return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
}

static gfl_status gfli_pickle_push_number(gfli_pickle *p, int n_bytes) {
    uint64_t value;
    GFLI_TRY(gfli_pickle_number(p, n_bytes, &value));
    if (n_bytes == 4 && value >> 31) /* the only signed one */
        return gfli_pickle_push_new(p, GFLI_PICKLE_INT, (int64_t)value - ((int64_t)1 << 32));
    return gfli_pickle_push_new(p, GFLI_PICKLE_INT, (int64_t)value);
}

static gfl_status gfli_pickle_sized_text(gfli_pickle *p, int n_bytes) {
    uint64_t n;
    GFLI_TRY(gfli_pickle_number(p, n_bytes, &n));
    return gfli_pickle_push_text(p, n);
}

static gfl_status gfli_pickle_global(gfli_pickle *p) {
    char module[512], name[512];
    GFLI_TRY(gfli_pickle_line(p, module, sizeof module));
    GFLI_TRY(gfli_pickle_line(p, name, sizeof name));
    return gfli_pickle_push_name(p, module, name);
}

static gfl_status gfli_pickle_opaque_extension(gfli_pickle *p, int n_bytes) {
    uint64_t code;
    GFLI_TRY(gfli_pickle_number(p, n_bytes, &code));
    return gfli_pickle_push_new(p, GFLI_PICKLE_OPAQUE, -1);
}

static gfl_status gfli_pickle_set_item(gfli_pickle *p) {
    uint32_t value = 0, key = 0, dict = 0;
    GFLI_TRY(gfli_pickle_pop(p, &value));
    GFLI_TRY(gfli_pickle_pop(p, &key));
    GFLI_TRY(gfli_pickle_pop(p, &dict));
    GFLI_TRY(gfli_pickle_set(p, dict, key, value));
    return gfli_pickle_push(p, dict);
}

/* Containers and the stack; *known becomes false for other operations. */
static gfl_status gfli_pickle_structure(gfli_pickle *p, int op, bool *known) {
    size_t first = 0;
    uint32_t value = 0, list = 0;
    switch (op) {
    case GFLI_OPCODE_MARK: return gfli_pickle_mark(p);
    case GFLI_OPCODE_POP:
        if (!p->n_marks || p->marks[p->n_marks - 1] < p->n_stack) return gfli_pickle_pop(p, &value);
        p->n_marks--; /* it stands for the mark */
        return GFL_OK;
    case GFLI_OPCODE_POP_MARK:
        GFLI_TRY(gfli_pickle_unmark(p, &first));
        p->n_stack = first;
        return GFL_OK;
    case GFLI_OPCODE_DUP:
        GFLI_TRY(gfli_pickle_pop(p, &value));
        GFLI_TRY(gfli_pickle_push(p, value));
        return gfli_pickle_push(p, value);
    case GFLI_OPCODE_EMPTY_DICT: return gfli_pickle_push_new(p, GFLI_PICKLE_DICT, 0);
    case GFLI_OPCODE_EMPTY_LIST:
    case GFLI_OPCODE_EMPTY_TUPLE:
    case GFLI_OPCODE_EMPTY_SET: return gfli_pickle_push_new(p, GFLI_PICKLE_LIST, 0);
    case GFLI_OPCODE_TUPLE:
    case GFLI_OPCODE_LIST:
    case GFLI_OPCODE_FROZENSET:
        GFLI_TRY(gfli_pickle_unmark(p, &first));
        return gfli_pickle_collect(p, GFLI_PICKLE_LIST, first);
    case GFLI_OPCODE_DICT:
        GFLI_TRY(gfli_pickle_unmark(p, &first));
        return gfli_pickle_collect(p, GFLI_PICKLE_DICT, first);
    case GFLI_OPCODE_TUPLE1:
    case GFLI_OPCODE_TUPLE2:
    case GFLI_OPCODE_TUPLE3: return gfli_pickle_tuple(p, op - GFLI_OPCODE_TUPLE1 + 1);
    case GFLI_OPCODE_APPEND:
        GFLI_TRY(gfli_pickle_pop(p, &value));
        GFLI_TRY(gfli_pickle_pop(p, &list));
        GFLI_TRY(gfli_pickle_append(p, list, value));
        return gfli_pickle_push(p, list);
    case GFLI_OPCODE_APPENDS:
    case GFLI_OPCODE_SETITEMS:
    case GFLI_OPCODE_ADDITEMS:
        GFLI_TRY(gfli_pickle_unmark(p, &first));
        return gfli_pickle_extend(p, op == GFLI_OPCODE_SETITEMS, first);
    case GFLI_OPCODE_SETITEM: return gfli_pickle_set_item(p);
    default: *known = false; return GFL_OK;
    }
}

/* Numbers and texts. */
static gfl_status gfli_pickle_scalar(gfli_pickle *p, int op, bool *known) {
    char line[64];
    uint64_t n;
    switch (op) {
    case GFLI_OPCODE_NONE: return gfli_pickle_push(p, 0);
    case GFLI_OPCODE_NEWTRUE:
    case GFLI_OPCODE_NEWFALSE:
        return gfli_pickle_push_new(p, GFLI_PICKLE_BOOL, op == GFLI_OPCODE_NEWTRUE);
    case GFLI_OPCODE_BININT: return gfli_pickle_push_number(p, 4);
    case GFLI_OPCODE_BININT1: return gfli_pickle_push_number(p, 1);
    case GFLI_OPCODE_BININT2: return gfli_pickle_push_number(p, 2);
    case GFLI_OPCODE_INT:
    case GFLI_OPCODE_LONG: return gfli_pickle_decimal(p);
    case GFLI_OPCODE_LONG1: GFLI_TRY(gfli_pickle_number(p, 1, &n)); return gfli_pickle_long(p, n);
    case GFLI_OPCODE_LONG4: GFLI_TRY(gfli_pickle_number(p, 4, &n)); return gfli_pickle_long(p, n);
    case GFLI_OPCODE_BINFLOAT:
        GFLI_TRY(gfli_pickle_skip(p, 8));
        return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
    case GFLI_OPCODE_FLOAT:
        GFLI_TRY(gfli_pickle_line(p, line, sizeof line));
        return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
    case GFLI_OPCODE_STRING:
    case GFLI_OPCODE_UNICODE: return gfli_pickle_quoted(p);
    case GFLI_OPCODE_SHORT_BINSTRING:
    case GFLI_OPCODE_SHORT_BINBYTES:
    case GFLI_OPCODE_SHORT_BINUNICODE: return gfli_pickle_sized_text(p, 1);
    case GFLI_OPCODE_BINSTRING:
    case GFLI_OPCODE_BINBYTES:
    case GFLI_OPCODE_BINUNICODE: return gfli_pickle_sized_text(p, 4);
    case GFLI_OPCODE_BINUNICODE8:
    case GFLI_OPCODE_BINBYTES8:
    case GFLI_OPCODE_BYTEARRAY8: return gfli_pickle_sized_text(p, 8);
    case GFLI_OPCODE_NEXT_BUFFER: return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
    case GFLI_OPCODE_READONLY_BUFFER: return GFL_OK;
    default: *known = false; return GFL_OK;
    }
}

/* Names, what is made of them, and the memo. */
static gfl_status gfli_pickle_naming(gfli_pickle *p, int op, bool *known) {
    char line[64];
    uint32_t state;
    uint64_t n;
    switch (op) {
    case GFLI_OPCODE_GLOBAL: return gfli_pickle_global(p);
    case GFLI_OPCODE_STACK_GLOBAL: return gfli_pickle_stack_global(p);
    case GFLI_OPCODE_REDUCE:
    case GFLI_OPCODE_NEWOBJ: return gfli_pickle_reduce(p, 1);
    case GFLI_OPCODE_NEWOBJ_EX: return gfli_pickle_reduce(p, 2);
    case GFLI_OPCODE_OBJ: return gfli_pickle_object(p, false);
    case GFLI_OPCODE_INST: return gfli_pickle_object(p, true);
    case GFLI_OPCODE_BUILD:
        return gfli_pickle_pop(p, &state); /* attributes of an object: nobody asks for any */
    case GFLI_OPCODE_BINPERSID: return gfli_pickle_persistent(p);
    case GFLI_OPCODE_PERSID:
        GFLI_TRY(gfli_pickle_line(p, line, sizeof line));
        return gfli_pickle_push_new(p, GFLI_PICKLE_OPAQUE, -1);
    case GFLI_OPCODE_EXT1: return gfli_pickle_opaque_extension(p, 1);
    case GFLI_OPCODE_EXT2: return gfli_pickle_opaque_extension(p, 2);
    case GFLI_OPCODE_EXT4: return gfli_pickle_opaque_extension(p, 4);
    case GFLI_OPCODE_BINPUT: GFLI_TRY(gfli_pickle_number(p, 1, &n)); return gfli_pickle_put(p, n);
    case GFLI_OPCODE_LONG_BINPUT:
        GFLI_TRY(gfli_pickle_number(p, 4, &n));
        return gfli_pickle_put(p, n);
    case GFLI_OPCODE_MEMOIZE: return gfli_pickle_put(p, p->n_memo);
    case GFLI_OPCODE_BINGET:
        GFLI_TRY(gfli_pickle_number(p, 1, &n));
        return gfli_pickle_recall(p, n);
    case GFLI_OPCODE_LONG_BINGET:
        GFLI_TRY(gfli_pickle_number(p, 4, &n));
        return gfli_pickle_recall(p, n);
    case GFLI_OPCODE_PUT:
    case GFLI_OPCODE_GET:
        GFLI_TRY(gfli_pickle_line(p, line, sizeof line));
        n = strtoul(line, NULL, 10);
        return op == GFLI_OPCODE_PUT ? gfli_pickle_put(p, n) : gfli_pickle_recall(p, n);
    case GFLI_OPCODE_PROTO:
        return gfli_pickle_number(p, 1, &n);               /* the protocol: all are read alike */
    case GFLI_OPCODE_FRAME: return gfli_pickle_skip(p, 8); /* a frame, which changes nothing */
    default: *known = false; return GFL_OK;
    }
}

static gfl_status gfli_pickle_step(gfli_pickle *p, int op) {
    bool known = true;
    gfl_status status = gfli_pickle_structure(p, op, &known);
    if (known) return status;
    known = true;
    status = gfli_pickle_scalar(p, op, &known);
    if (known) return status;
    known = true;
    status = gfli_pickle_naming(p, op, &known);
    return known ? status : gfli_pickle_broken(p, "this is no pickle: an unknown operation");
}

gfl_status gfli_pickle_read(gfli_pickle *p, const char *where, uint64_t at, uint64_t end,
                            uint32_t *root) {
    uint32_t none;
    p->where = where;
    p->start = p->at = at;
    p->end = end;
    p->n_stack = p->n_marks = p->n_memo = 0;
    if (!p->n_nodes) GFLI_TRY(gfli_pickle_node_new(p, GFLI_PICKLE_NONE, 0, 0, &none));
    for (;;) {
        uint8_t op;
        GFLI_TRY(gfli_pickle_bytes(p, &op, 1));
        if (op == GFLI_OPCODE_STOP) break;
        GFLI_TRY(gfli_pickle_step(p, op));
    }
    p->earlier += p->at - p->start;
    return gfli_pickle_pop(p, root);
}

/* ===============================================================================================
 * src/ckpt/pth.c - the tensors of a PyTorch checkpoint, in either container
 * ============================================================================================ */

/* A checkpoint becomes a blob, as a safetensors file does: names, shapes and places in the file.
 *
 *   1. The container says where the pickle and the storages are: records of a zip archive, or one
 *      after the other in the older form.
 *   2. The pickle is read (pickle.c).  Of its value, the dictionary of tensors is looked for.
 *   3. Each tensor is a view of a storage.  Its size, stride and offset must stay inside, and all
 *      tensors together may share the file's bytes only so often.
 *   4. Class names, the configuration's text and what gfl_model_export wrote become metadata. */

enum {
    GFLI_PTH_META_MAX = 1 << 20,
    GFLI_PTH_SHARING = 4 /* how often all tensors together may have the file's bytes */
};

typedef struct gfli_pth_storage {
    const char *key;
    uint64_t offset; /* bytes from the start of the file */
    uint64_t count;  /* elements */
    gfli_dtype dtype;
} gfli_pth_storage;

typedef struct gfli_pth {
    gfli_blob *blob;
    gfli_pickle pickle;
    gfli_zip zip;               /* of the newer container */
    char *prefix;               /* of its records */
    gfli_pth_storage *storages; /* of the older one, sorted by key */
    int n_storages;
    size_t storage_capacity;
    uint64_t declared; /* bytes of all tensors together, however many share a storage */
} gfli_pth;

/* ---- storages -------------------------------------------------------------------------------- */

/* What a persistent id says: ('storage', class, key, device, elements[, view]). */
static bool gfli_pth_read_id(const gfli_pickle *p, uint32_t id, gfli_pth_storage *out) {
    static const struct {
        const char *name;
        gfli_dtype dtype;
    } classes[] = {{"Float", GFLI_F32},  {"Half", GFLI_F16}, {"BFloat16", GFLI_BF16},
                   {"Double", GFLI_F64}, {"Long", GFLI_I64}, {"Int", GFLI_I32},
                   {"Short", GFLI_I16},  {"Char", GFLI_I8},  {"Byte", GFLI_U8},
                   {"Bool", GFLI_BOOL}};
    const char *kind = gfli_pickle_text(p, gfli_pickle_item(p, id, 0));
    const gfli_pickle_node *type = &p->nodes[gfli_pickle_item(p, id, 1)];
    const gfli_pickle_node *count = &p->nodes[gfli_pickle_item(p, id, 4)];
    out->key = gfli_pickle_text(p, gfli_pickle_item(p, id, 2));
    if (!kind || strcmp(kind, "storage") != 0 || type->kind != GFLI_PICKLE_NAME || !out->key ||
        count->kind != GFLI_PICKLE_INT || count->n < 0 || gfli_tensor_name_is_long(out->key))
        return false;
    out->count = (uint64_t)count->n;
    for (size_t i = 0; i < GFLI_COUNT(classes); i++) {
        char name[64];
        snprintf(name, sizeof name, "torch.%sStorage", classes[i].name);
        out->dtype = classes[i].dtype;
        if (!strcmp(p->texts + type->n, name)) return true;
    }
    return false;
}

static gfl_status gfli_pth_broken(const gfli_pth *c, const char *name, const char *what) {
    return gfli_error(c->blob->context, GFL_E_FORMAT, "%s: %.200s: %s", c->blob->path, name, what);
}

static gfl_status gfli_pth_find_record(gfli_pth *c, const char *tensor, gfli_pth_storage *s) {
    char name[600];
    const int n = snprintf(name, sizeof name, "%sdata/%.200s", c->prefix, s->key);
    gfli_zip_record *r = n < (int)sizeof name ? gfli_zip_find(&c->zip, name) : NULL;
    if (!r) return gfli_pth_broken(c, tensor, "the archive lacks the record of its values");
    if (s->count > r->size / (uint64_t)gfli_dtype_bytes(s->dtype))
        return gfli_error(c->blob->context, GFL_E_FORMAT,
                          "%s: %.200s: its record %.200s holds %llu bytes, too few for %llu values",
                          c->blob->path, tensor, name, (unsigned long long)r->size,
                          (unsigned long long)s->count);
    GFLI_TRY(gfli_zip_check(&c->zip, r, tensor));
    s->offset = r->offset;
    return GFL_OK;
}

static int gfli_compare_storages(const void *a, const void *b) {
    return strcmp(((const gfli_pth_storage *)a)->key, ((const gfli_pth_storage *)b)->key);
}

/* Where the values of a storage are.  The id's optional last part makes it a view of another:
 * (key, first element, elements). */
static gfl_status gfli_pth_locate(gfli_pth *c, const char *tensor, uint32_t id,
                                  gfli_pth_storage *s) {
    if (!gfli_pth_read_id(&c->pickle, id, s))
        return gfli_pth_broken(c, tensor, "its storage is of a kind that gfl does not know");
    if (c->prefix) return gfli_pth_find_record(c, tensor, s);
    const gfli_pth_storage *found = NULL;
    if (c->n_storages)
        found = (const gfli_pth_storage *)bsearch(s, c->storages, (size_t)c->n_storages,
                                                  sizeof *c->storages, gfli_compare_storages);
    if (!found || found->dtype != s->dtype || found->count < s->count)
        return gfli_pth_broken(c, tensor, "the file lacks its values");
    s->offset = found->offset;
    const uint32_t view = gfli_pickle_item(&c->pickle, id, 5);
    const gfli_pickle_node *first = &c->pickle.nodes[gfli_pickle_item(&c->pickle, view, 1)];
    const gfli_pickle_node *count = &c->pickle.nodes[gfli_pickle_item(&c->pickle, view, 2)];
    if (!view) return GFL_OK;
    if (first->kind != GFLI_PICKLE_INT || count->kind != GFLI_PICKLE_INT || first->n < 0 ||
        count->n < 0 || (uint64_t)first->n > s->count ||
        (uint64_t)count->n > s->count - (uint64_t)first->n)
        return gfli_pth_broken(c, tensor, "its storage is a view that runs out of another");
    s->offset += (uint64_t)first->n * (uint64_t)gfli_dtype_bytes(s->dtype);
    s->count = (uint64_t)count->n;
    return GFL_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* A tuple of up to 8 numbers that are not negative; returns how many, -1: it is something else. */
static int gfli_pth_numbers(const gfli_pickle *p, uint32_t list, int64_t out[8]) {
    int n = 0;
    if (p->nodes[list].kind != GFLI_PICKLE_LIST) return -1;
    for (uint32_t cell = p->nodes[list].a; cell; cell = p->nodes[cell].b, n++) {
        const gfli_pickle_node *number = &p->nodes[p->nodes[cell].a];
        if (n == 8 || number->kind != GFLI_PICKLE_INT || number->n < 0) return -1;
        out[n] = number->n;
    }
    return n;
}

/* Sizes and strides, and that no element lies beyond the storage. */
static gfl_status gfli_pth_layout(gfli_pth *c, const char *name, uint32_t args, uint64_t n_values,
                                  uint64_t *first, gfli_tensor *t) {
    const gfli_pickle *p = &c->pickle;
    const gfli_pickle_node *offset = &p->nodes[gfli_pickle_item(p, args, 1)];
    t->rank = gfli_pth_numbers(p, gfli_pickle_item(p, args, 2), t->shape);
    if (t->rank < 0 || gfli_pth_numbers(p, gfli_pickle_item(p, args, 3), t->stride) != t->rank ||
        offset->kind != GFLI_PICKLE_INT || offset->n < 0)
        return gfli_pth_broken(c, name, "its size, stride or offset makes no sense");
    uint64_t last = (uint64_t)offset->n, dense = 1;
    t->count = 1;
    for (int d = 0; d < t->rank; d++)
        if (!gfli_mul(t->count, (size_t)t->shape[d], &t->count) || t->count > INT64_MAX / 8)
            return gfli_pth_broken(c, name, "its size is too large for any file");
    for (int d = t->rank - 1; d >= 0 && t->count > 0; d--) {
        const uint64_t steps = (uint64_t)t->shape[d] - 1, stride = (uint64_t)t->stride[d];
        if (steps > 0 && stride != dense) t->strided = true;
        if (steps > 0 && stride > (n_values + 1) / steps + 1)
            return gfli_pth_broken(c, name, "its stride runs past the end of its storage");
        last += steps * stride;
        dense *= steps + 1;
    }
    if (t->count > 0 && last >= n_values)
        return gfli_error(c->blob->context, GFL_E_FORMAT,
                          "%s: %.200s: its size, stride and offset reach value %llu, counted "
                          "from 0, but its storage has %llu values",
                          c->blob->path, name, (unsigned long long)last,
                          (unsigned long long)n_values);
    *first = t->count > 0 ? (uint64_t)offset->n : 0; /* no values lie anywhere */
    return GFL_OK;
}

static gfl_status gfli_pth_tensor(gfli_pth *c, const char *name, uint32_t args) {
    const gfli_pickle *p = &c->pickle;
    const gfli_pickle_node *storage = &p->nodes[gfli_pickle_item(p, args, 0)];
    gfli_pth_storage s;
    gfli_tensor *t;
    uint64_t first = 0;
    if (storage->kind != GFLI_PICKLE_STORAGE)
        return gfli_pth_broken(c, name, "a tensor without a storage");
    const uint32_t id = storage->a;
    GFLI_TRY(gfli_pth_locate(c, name, id, &s));
    GFLI_TRY(gfli_blob_add(c->blob, name, &t));
    t->dtype = s.dtype;
    GFLI_TRY(gfli_pth_layout(c, name, args, s.count, &first, t));
    const uint64_t size = (uint64_t)gfli_dtype_bytes(s.dtype);
    t->offset = s.offset + first * size;
    t->bytes = (uint64_t)t->count * size;
    c->declared += t->bytes;
    if (c->declared / GFLI_PTH_SHARING <= c->blob->size) return GFL_OK;
    return gfli_pth_broken(c, name, "it repeats its values more often than any weight does");
}

static bool gfli_pth_is_opaque(const gfli_pickle_node *n) {
    return n->kind == GFLI_PICKLE_OPAQUE || n->kind == GFLI_PICKLE_NAME;
}

static gfl_status gfli_pth_refuse_opaque(const gfli_pth *c, const char *name, const char *wanted,
                                         const gfli_pickle_node *value) {
    return gfli_error(c->blob->context, GFL_E_FORMAT,
                      "%s: %.200s is not %s: the file wants %.200s to be called, which gfl never "
                      "does",
                      c->blob->path, name, wanted,
                      value->n >= 0 ? c->pickle.texts + value->n : "something");
}

/* Is an entry of this name a tensor?  In a dictionary of tensors all are but what modules add of
 * their own; beside the outermost's, whose names have dots, may stand anything. */
static bool gfli_pth_names_tensor(const char *name, bool outermost) {
    static const char extra[] = "_extra_state";
    if (gfli_tensor_name_is_long(name)) return false;
    const size_t n = strlen(name), m = sizeof extra - 1;
    if (n >= m && !strcmp(name + n - m, extra)) return false;
    return !outermost || strchr(name, '.') != NULL;
}

/* All tensors of a dictionary; what stands in the place of one is refused by name. */
static gfl_status gfli_pth_dict(gfli_pth *c, uint32_t dict, bool outermost) {
    const gfli_pickle *p = &c->pickle;
    for (uint32_t pair = p->nodes[dict].a; pair; pair = p->nodes[pair].b) {
        const char *name = gfli_pickle_text(p, p->nodes[pair].a);
        const gfli_pickle_node *value = &p->nodes[p->nodes[pair].n];
        if (value->kind == GFLI_PICKLE_TENSOR && !name)
            return gfli_pth_broken(c, "a tensor", "its key is no text");
        if (value->kind == GFLI_PICKLE_TENSOR) GFLI_TRY(gfli_pth_tensor(c, name, value->a));
        if (gfli_pth_is_opaque(value) && (!name || gfli_pth_names_tensor(name, outermost)))
            return gfli_pth_refuse_opaque(c, name ? name : "an entry", "a tensor", value);
    }
    return gfli_blob_sort(c->blob);
}

static bool gfli_pth_has_tensors(const gfli_pickle *p, uint32_t dict) {
    if (p->nodes[dict].kind != GFLI_PICKLE_DICT) return false;
    for (uint32_t pair = p->nodes[dict].a; pair; pair = p->nodes[pair].b)
        if (p->nodes[p->nodes[pair].n].kind == GFLI_PICKLE_TENSOR) return true;
    return false;
}

/* The dictionary of the model's tensors: the outermost, or one inside it that usually is. */
static gfl_status gfli_pth_find_dict(gfli_pth *c, uint32_t root, uint32_t *out) {
    static const char *const names[] = {
        "state_dict", "model_state_dict", "model", "ema_state_dict", "net", "module"};
    const gfli_pickle *p = &c->pickle;
    if (gfli_pth_is_opaque(&p->nodes[root]))
        return gfli_pth_refuse_opaque(c, "the whole file", "a dictionary of tensors",
                                      &p->nodes[root]);
    for (int depth = 0; depth < 2; depth++) {
        uint32_t inner = 0;
        for (size_t i = 0; i < GFLI_COUNT(names) && !inner; i++) {
            inner = gfli_pickle_get(p, root, names[i]);
            if (gfli_pth_is_opaque(&p->nodes[inner]))
                return gfli_pth_refuse_opaque(c, names[i], "a dictionary of tensors",
                                              &p->nodes[inner]);
            if (p->nodes[inner].kind != GFLI_PICKLE_DICT) inner = 0;
        }
        if (!inner) break;
        root = inner;
    }
    *out = root;
    if (gfli_pth_has_tensors(p, root)) return GFL_OK;
    return gfli_error(
        c->blob->context, GFL_E_FORMAT,
        "%s: %s; gfl reads dictionaries of tensors, as torch.save(model.state_dict(), "
        "...) and mmdetection write them",
        c->blob->path,
        p->nodes[root].kind == GFLI_PICKLE_DICT   ? "it holds no tensors"
        : p->nodes[root].kind == GFLI_PICKLE_LIST ? "it holds a list"
                                                  : "it holds no dictionary");
}

/* ---- what else the file says ----------------------------------------------------------------- */

/* A list of texts as a JSON array; a list of anything else says nothing. */
static gfl_status gfli_pth_classes(gfli_pth *c, uint32_t list) {
    const gfli_pickle *p = &c->pickle;
    gfli_text text = {c->blob->context, "class names", NULL, 0, 0};
    gfl_json_writer j = gfli_json_to_text(&text);
    gfl_status status = GFL_OK;
    gfl_json_array(&j, NULL);
    uint32_t cell = p->nodes[list].a;
    for (; cell && j.status == GFL_OK && text.length <= GFLI_PTH_META_MAX;
         cell = p->nodes[cell].b) {
        const char *name = gfli_pickle_text(p, p->nodes[cell].a);
        if (!name) break;
        gfl_json_text(&j, NULL, name);
    }
    gfl_json_end(&j);
    if (j.status != GFL_OK)
        status = j.status;
    else if (text.length > GFLI_PTH_META_MAX)
        status = gfli_pth_broken(c, "the class names", "more than a megabyte of them");
    else if (!cell)
        status = gfli_blob_add_meta(c->blob, "classes", text.bytes);
    gfli_free(c->blob->context, text.bytes);
    return status;
}

/* The text of the configuration: "config" of mmcv, "cfg" of mmengine. */
static gfl_status gfli_pth_config(gfli_pth *c, uint32_t meta) {
    static const char *const keys[] = {"cfg", "config"};
    for (size_t i = 0; i < GFLI_COUNT(keys) && !gfli_blob_meta(c->blob, "cfg"); i++) {
        const char *text = gfli_pickle_text(&c->pickle, gfli_pickle_get(&c->pickle, meta, keys[i]));
        if (text) GFLI_TRY(gfli_blob_add_meta(c->blob, "cfg", text));
    }
    return GFL_OK;
}

/* What gfl_model_export put there: the metadata of a weight file. */
static gfl_status gfli_pth_own_meta(gfli_pth *c, uint32_t own) {
    const gfli_pickle *p = &c->pickle;
    size_t size = 0;
    if (p->nodes[own].kind != GFLI_PICKLE_DICT) return GFL_OK;
    for (uint32_t pair = p->nodes[own].a; pair; pair = p->nodes[pair].b) {
        const char *key = gfli_pickle_text(p, p->nodes[pair].a);
        const char *value = gfli_pickle_text(p, (uint32_t)p->nodes[pair].n);
        if (!key || !value) continue;
        size += strlen(key) + strlen(value);
        if (size > GFLI_PTH_META_MAX)
            return gfli_pth_broken(c, "the metadata", "more than a megabyte of it");
        GFLI_TRY(gfli_blob_add_meta(c->blob, key, value));
    }
    return GFL_OK;
}

static gfl_status gfli_pth_meta(gfli_pth *c, uint32_t root) {
    static const char *const counters[] = {"epoch", "iter"};
    const gfli_pickle *p = &c->pickle;
    const uint32_t meta = gfli_pickle_get(p, root, "meta");
    const uint32_t set = gfli_pickle_get(p, meta, "dataset_meta");
    const uint32_t lists[] = {gfli_pickle_get(p, meta, "CLASSES"),
                              gfli_pickle_get(p, set, "classes"),
                              gfli_pickle_get(p, set, "CLASSES")};
    GFLI_TRY(gfli_pth_own_meta(c, gfli_pickle_get(p, meta, "gfl")));
    GFLI_TRY(gfli_pth_config(c, meta));
    for (size_t i = 0; i < GFLI_COUNT(lists) && !gfli_blob_meta(c->blob, "classes"); i++) {
        if (p->nodes[lists[i]].kind != GFLI_PICKLE_LIST || p->nodes[lists[i]].n == 0) continue;
        GFLI_TRY(gfli_pth_classes(c, lists[i]));
    }
    for (size_t i = 0; i < GFLI_COUNT(counters); i++) {
        char number[32];
        uint32_t counter = gfli_pickle_get(p, meta, counters[i]);
        if (!counter) counter = gfli_pickle_get(p, root, counters[i]);
        const gfli_pickle_node *value = &p->nodes[counter];
        if (value->kind != GFLI_PICKLE_INT) continue;
        snprintf(number, sizeof number, "%lld", (long long)value->n);
        GFLI_TRY(gfli_blob_add_meta(c->blob, counters[i], number));
    }
    return GFL_OK;
}

static gfl_status gfli_pth_take(gfli_pth *c, uint32_t root) {
    uint32_t dict = 0;
    GFLI_TRY(gfli_pth_find_dict(c, root, &dict));
    GFLI_TRY(gfli_pth_dict(c, dict, dict == root));
    return gfli_pth_meta(c, root);
}

/* ---- the newer container: a zip archive ------------------------------------------------------ */

static gfl_status gfli_pth_byte_order(gfli_pth *c) {
    char name[600], order[16] = "";
    snprintf(name, sizeof name, "%sbyteorder", c->prefix);
    gfli_zip_record *r = gfli_zip_find(&c->zip, name);
    if (!r) return GFL_OK; /* before torch 2.1 */
    GFLI_TRY(gfli_zip_check(&c->zip, r, "the byte order"));
    GFLI_TRY(gfli_blob_pread(c->blob, r->offset, order, r->size < 15 ? r->size : 15));
    if (!strcmp(order, "little")) return GFL_OK;
    return gfli_error(c->blob->context, GFL_E_UNSUPPORTED,
                      "%s: its byte order is \"%.15s\"; only little-endian checkpoints are read: "
                      "load and save it once on a little-endian machine",
                      c->blob->path, order);
}

static gfl_status gfli_pth_read_zip(gfli_pth *c) {
    static const char main_record[] = "data.pkl";
    gfli_zip_record *r = NULL;
    uint32_t root;
    GFLI_TRY(gfli_zip_open(c->blob, &c->zip));
    for (int i = 0; i < c->zip.n_records && !r; i++) {
        const char *name = c->zip.records[i].name, *slash = strrchr(name, '/');
        if (!strcmp(slash ? slash + 1 : name, main_record)) r = &c->zip.records[i];
    }
    if (!r)
        return gfli_error(
            c->blob->context, GFL_E_FORMAT,
            "%s: it is a zip archive without data.pkl, so torch.save did not write it",
            c->blob->path);
    GFLI_TRY(gfli_strdup(c->blob->context, r->name, &c->prefix));
    const size_t prefix = strlen(r->name) - (sizeof main_record - 1);
    c->prefix[prefix] = 0;
    if (prefix > 300) return gfli_zip_broken(&c->zip, "the names of its records are too long");
    GFLI_TRY(gfli_pth_byte_order(c));
    GFLI_TRY(gfli_zip_check(&c->zip, r, "the list of tensors"));
    GFLI_TRY(gfli_pickle_read(&c->pickle, main_record, r->offset, r->offset + r->size, &root));
    return gfli_pth_take(c, root);
}

/* ---- the older container: pickles, then the storages ----------------------------------------- */

/* The storages that the pickle mentions, each once, sorted by key. */
static gfl_status gfli_pth_list_storages(gfli_pth *c) {
    const gfli_pickle *p = &c->pickle;
    for (size_t i = 0; i < p->n_nodes; i++) {
        gfli_pth_storage s;
        memset(&s, 0, sizeof s);
        if (p->nodes[i].kind != GFLI_PICKLE_STORAGE || !gfli_pth_read_id(p, p->nodes[i].a, &s))
            continue;
        GFLI_TRY(gfli_grow(c->blob->context, &c->storages, &c->storage_capacity,
                           (size_t)c->n_storages + 1, sizeof s, "a checkpoint's storages"));
        c->storages[c->n_storages++] = s;
    }
    int kept = 0;
    if (c->n_storages)
        qsort(c->storages, (size_t)c->n_storages, sizeof *c->storages, gfli_compare_storages);
    for (int i = 0; i < c->n_storages; i++)
        if (!kept || strcmp(c->storages[kept - 1].key, c->storages[i].key) != 0)
            c->storages[kept++] = c->storages[i];
    c->n_storages = kept;
    return GFL_OK;
}

/* After the list of keys: for each a count and that many values. */
static gfl_status gfli_pth_walk_storages(gfli_pth *c, uint32_t keys) {
    const gfli_pickle *p = &c->pickle;
    uint64_t at = p->at;
    if (p->nodes[keys].kind != GFLI_PICKLE_LIST)
        return gfli_pth_broken(c, "the list of storages", "it is no list");
    for (uint32_t cell = p->nodes[keys].a; cell; cell = p->nodes[cell].b) {
        uint8_t number[8];
        gfli_pth_storage wanted;
        wanted.key = gfli_pickle_text(p, p->nodes[cell].a);
        gfli_pth_storage *s = NULL;
        if (wanted.key && c->n_storages)
            s = (gfli_pth_storage *)bsearch(&wanted, c->storages, (size_t)c->n_storages,
                                            sizeof *c->storages, gfli_compare_storages);
        if (!s)
            return gfli_pth_broken(c, wanted.key ? wanted.key : "a storage",
                                   "values that no tensor mentions, of unknown length");
        if (c->blob->size - at < 8)
            return gfli_pth_broken(c, "the values", "the file ends before them; fetch it again");
        GFLI_TRY(gfli_blob_pread(c->blob, at, number, 8));
        at += 8;
        const uint64_t size = (uint64_t)gfli_dtype_bytes(s->dtype);
        if (gfli_zip_number(number, 8) != s->count)
            return gfli_pth_broken(c, s->key,
                                   "the storage has another length than its tensors say");
        if (s->count > (c->blob->size - at) / size)
            return gfli_pth_broken(c, "the values", "the file ends among them; fetch it again");
        s->offset = at;
        at += s->count * size;
    }
    for (int i = 0; i < c->n_storages; i++) { /* those not in the list have no values */
        if (c->storages[i].offset) continue;
        return gfli_pth_broken(c, c->storages[i].key, "the file lacks the values of this storage");
    }
    return GFL_OK;
}

static gfl_status gfli_pth_check_machine(gfli_pth *c, uint32_t system) {
    const gfli_pickle_node *little =
        &c->pickle.nodes[gfli_pickle_get(&c->pickle, system, "little_endian")];
    if (little->kind != GFLI_PICKLE_BOOL || little->n) return GFL_OK;
    return gfli_error(c->blob->context, GFL_E_UNSUPPORTED,
                      "%s: it was written on a big-endian machine; only little-endian checkpoints "
                      "are read: load and save it once on a little-endian machine",
                      c->blob->path);
}

static gfl_status gfli_pth_read_legacy(gfli_pth *c) {
    /* 0x1950a86a20f9469cfc6c, lowest byte first */
    static const uint8_t magic[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    static const char *const where[] = {
        "the first pickle (the magic number)", "the second pickle (the protocol)",
        "the third pickle (the machine)", "the fourth pickle (the tensors)",
        "the fifth pickle (the storages)"};
    uint32_t roots[5];
    uint64_t at = 0;
    for (int i = 0; i < 5; i++) {
        GFLI_TRY(gfli_pickle_read(&c->pickle, where[i], at, c->blob->size, &roots[i]));
        at = c->pickle.at;
        const gfli_pickle_node *node = &c->pickle.nodes[roots[i]];
        if (i == 0 && (node->kind != GFLI_PICKLE_LONG ||
                       memcmp(c->pickle.texts + node->n, magic, sizeof magic) != 0))
            return gfli_error(c->blob->context, GFL_E_FORMAT,
                              "%s: it is a pickle, but torch.save did not write it; gfl reads "
                              "checkpoints of PyTorch",
                              c->blob->path);
        if (i == 1 && (node->kind != GFLI_PICKLE_INT || node->n != 1001))
            return gfli_error(c->blob->context, GFL_E_UNSUPPORTED,
                              "%s: it is a checkpoint of an unknown protocol; write it again with "
                              "a current torch.save",
                              c->blob->path);
        if (i == 2) GFLI_TRY(gfli_pth_check_machine(c, roots[i]));
    }
    GFLI_TRY(gfli_pth_list_storages(c));
    GFLI_TRY(gfli_pth_walk_storages(c, roots[4]));
    return gfli_pth_take(c, roots[3]);
}

/* ---- any file -------------------------------------------------------------------------------- */

gfl_status gfli_pth_read(gfli_blob *blob) {
    gfli_pth c;
    uint8_t head[4] = {0};
    memset(&c, 0, sizeof c);
    c.blob = blob;
    gfli_pickle_init(blob, &c.pickle);
    GFLI_TRY(gfli_blob_pread(blob, 0, head, blob->size < 4 ? blob->size : 4));
    gfl_status status = memcmp(head, "PK", 2) ? gfli_pth_read_legacy(&c) : gfli_pth_read_zip(&c);
    gfli_zip_close(&c.zip);
    gfli_pickle_free(&c.pickle);
    gfli_free(blob->context, c.prefix);
    gfli_free(blob->context, c.storages);
    return status;
}

/* ===============================================================================================
 * src/ckpt/python.c - assignments of Python literals, read as data: nothing is ever executed
 * ============================================================================================ */

enum {
    GFLI_PY_DEPTH = 64,      /* of brackets; what lies deeper is unknown */
    GFLI_PY_SPREADS = 16,    /* of dictionaries inside dictionaries by "**" */
    GFLI_PY_STEPS = 1 << 16, /* of lookups, besides some for each byte of the text */
    GFLI_PY_SHOWN = 3        /* levels of a value in messages */
};

/* ---- bytes ----------------------------------------------------------------------------------- */

static bool gfli_py_starts_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool gfli_py_is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool gfli_py_is_one_of(char c, const char *set) {
    return c != 0 && strchr(set, c) != NULL;
}

/* Behind blanks and comments, and behind line ends too where these mean nothing: in brackets. */
static void gfli_py_blank(gfli_py *py, bool lines) {
    for (;;) {
        if (*py->at == '#')
            py->at += strcspn(py->at, "\n");
        else if (*py->at == '\\' && py->at[1] == '\n')
            py->at += 2;
        else if (gfli_py_is_one_of(*py->at, lines ? " \t\r\f\n" : " \t\r\f"))
            py->at++;
        else
            return;
    }
}

static bool gfli_py_take(gfli_py *py, char c) {
    if (*py->at != c) return false;
    py->at++;
    return true;
}

/* Adds one byte to the texts, which are as long as the whole source from the beginning on. */
static void gfli_py_keep(gfli_py *py, char c) {
    py->texts[py->n_texts++] = c;
}

/* A name where it stands, as a text; 0 where there is none. */
static uint32_t gfli_py_name(gfli_py *py) {
    const uint32_t start = (uint32_t)py->n_texts;
    if (!gfli_py_starts_name(*py->at)) return 0;
    while (gfli_py_starts_name(*py->at) || gfli_py_is_digit(*py->at)) gfli_py_keep(py, *py->at++);
    gfli_py_keep(py, 0);
    return start;
}

/* The inside of a string that stands here, between quotes of one or three.  Of the escapes those of
 * quotes and backslashes are resolved; no setting needs another. */
static void gfli_py_string(gfli_py *py, bool raw) {
    const char quote = *py->at;
    const bool triple = py->at[1] == quote && py->at[2] == quote;
    const int n = triple ? 3 : 1;
    for (py->at += n; *py->at && (triple || *py->at != '\n');) {
        if (*py->at == quote && (!triple || (py->at[1] == quote && py->at[2] == quote))) break;
        if (!raw && *py->at == '\\' && gfli_py_is_one_of(py->at[1], "\\'\"")) py->at++;
        gfli_py_keep(py, *py->at++);
    }
    for (int i = 0; i < n && *py->at == quote; i++) py->at++;
}

/* Behind what an expression still has: everything up to a comma, a closing bracket or, outside of
 * brackets, the end of the line. */
static void gfli_py_pass(gfli_py *py, bool lines) {
    const size_t texts = py->n_texts;
    for (int depth = 0;;) {
        gfli_py_blank(py, lines || depth > 0);
        if (!*py->at) return;
        if (*py->at == '"' || *py->at == '\'') {
            gfli_py_string(py, false);
            py->n_texts = texts;
            continue;
        }
        if (depth == 0 && gfli_py_is_one_of(*py->at, lines ? ",)]}" : "\n;")) return;
        if (gfli_py_is_one_of(*py->at, "([{")) depth++;
        if (depth > 0 && gfli_py_is_one_of(*py->at, ")]}")) depth--;
        py->at++;
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

static gfl_status gfli_py_value(gfli_py *py, int depth, uint32_t *out);

static gfl_status gfli_py_node_new(gfli_py *py, gfli_py_kind kind, uint32_t first, uint32_t *out) {
    GFLI_TRY(gfli_grow(py->context, &py->nodes, &py->node_capacity, py->n_nodes + 1,
                       sizeof *py->nodes, "a configuration"));
    gfli_py_node *node = &py->nodes[py->n_nodes];
    memset(node, 0, sizeof *node);
    node->kind = kind;
    node->first = first;
    *out = (uint32_t)py->n_nodes++;
    return GFL_OK;
}

static void gfli_py_link(gfli_py *py, uint32_t container, uint32_t item) {
    gfli_py_node *c = &py->nodes[container];
    if (c->first)
        py->nodes[c->last].next = item;
    else
        c->first = item;
    c->last = item;
}

uint32_t gfli_py_target(const gfli_py *py, uint32_t node) {
    while (py->nodes[node].kind == GFLI_PY_SAME) node = py->nodes[node].first;
    return node;
}

/* A step of a lookup is taken, or there were too many of them. */
static bool gfli_py_step(gfli_py *py) {
    if (py->steps) py->steps--;
    return py->steps != 0;
}

static uint32_t gfli_py_get_in(gfli_py *py, uint32_t dict, const char *key, int spreads) {
    uint32_t found = 0;
    if (spreads == 0 || py->nodes[dict].kind != GFLI_PY_DICT) return 0;
    for (uint32_t i = py->nodes[dict].first; i && gfli_py_step(py); i = py->nodes[i].next) {
        const gfli_py_node *entry = &py->nodes[i];
        const uint32_t value = gfli_py_target(py, i);
        const uint32_t spread = entry->key ? 0 : gfli_py_get_in(py, value, key, spreads - 1);
        if (entry->key && !strcmp(py->texts + entry->key, key)) found = value;
        if (spread) found = spread;
    }
    return found;
}

uint32_t gfli_py_get(gfli_py *py, uint32_t dict, const char *key) {
    return gfli_py_get_in(py, gfli_py_target(py, dict), key, GFLI_PY_SPREADS);
}

/* One or several strings side by side. */
static gfl_status gfli_py_text_value(gfli_py *py, bool raw, bool lines, uint32_t *out) {
    const uint32_t start = (uint32_t)py->n_texts;
    while (*py->at == '"' || *py->at == '\'') {
        gfli_py_string(py, raw);
        gfli_py_blank(py, lines);
    }
    gfli_py_keep(py, 0);
    return gfli_py_node_new(py, GFLI_PY_TEXT, start, out);
}

/* A number as text that JSON has too; `first` of its node is where. */
static gfl_status gfli_py_number_value(gfli_py *py, uint32_t *out) {
    const uint32_t start = (uint32_t)py->n_texts;
    bool good = true;
    if (*py->at == '-') gfli_py_keep(py, *py->at);
    if (gfli_py_is_one_of(*py->at, "+-")) py->at++;
    gfli_py_blank(py, false);
    for (char before = 0; gfli_py_starts_name(*py->at) || gfli_py_is_digit(*py->at) ||
                          *py->at == '.' || (before == 'e' && gfli_py_is_one_of(*py->at, "+-"));
         py->at++) {
        before = (char)(*py->at == 'E' ? 'e' : *py->at);
        good = good && (gfli_py_is_digit(before) || gfli_py_is_one_of(before, ".e+-_"));
        if (before != '_') gfli_py_keep(py, before);
    }
    gfli_py_keep(py, 0);
    return gfli_py_node_new(py, good ? GFLI_PY_NUMBER : GFLI_PY_UNKNOWN, start, out);
}

/* An entry of a container.  In a call that is key=value, in braces key: value, in both **value. */
static gfl_status gfli_py_item(gfli_py *py, uint32_t container, char open, int depth) {
    const char *start = py->at;
    const size_t texts = py->n_texts;
    uint32_t key = 0, item = 0;
    bool spread = false;
    while (gfli_py_take(py, '*')) spread = true;
    if (open == '=' && !spread) {
        key = gfli_py_name(py);
        gfli_py_blank(py, true);
        if (!key || *py->at != '=' || py->at[1] == '=') {
            py->at = start;
            py->n_texts = texts;
            key = 0;
        } else {
            py->at++;
        }
    }
    GFLI_TRY(gfli_py_value(py, depth, &item));
    if (open == '{' && !spread && gfli_py_take(py, ':')) {
        key = py->nodes[item].kind == GFLI_PY_TEXT ? py->nodes[item].first : 0;
        GFLI_TRY(gfli_py_value(py, depth, &item));
        if (!key) return GFL_OK; /* numbers and names as keys are nobody's settings */
    }
    if (spread && open != '=' && open != '{') py->nodes[item].kind = GFLI_PY_UNKNOWN;
    py->nodes[item].key = key;
    gfli_py_link(py, container, item);
    return GFL_OK;
}

/* The items up to a closing bracket; `open`: ( [ { or = for the arguments of dict(). */
static gfl_status gfli_py_items(gfli_py *py, char open, int depth, uint32_t *out) {
    const bool is_dict = open == '=' || open == '{';
    bool comma = false;
    GFLI_TRY(gfli_py_node_new(py, is_dict ? GFLI_PY_DICT : GFLI_PY_LIST, 0, out));
    for (;;) {
        gfli_py_blank(py, true);
        if (!*py->at) return GFL_OK;
        if (gfli_py_is_one_of(*py->at, ")]}")) break;
        if (gfli_py_take(py, ',')) {
            comma = true;
            continue;
        }
        GFLI_TRY(gfli_py_item(py, *out, open, depth + 1));
        if (gfli_py_is_one_of(*py->at, ",)]}")) continue;
        py->nodes[py->nodes[*out].last].kind = GFLI_PY_UNKNOWN;
        gfli_py_pass(py, true);
    }
    py->at++;
    if (open == '(' && !comma && py->nodes[*out].first) /* brackets around one value */
        *out = py->nodes[*out].first;
    return GFL_OK;
}

/* dict(...), a string with a prefix, a constant, or the name of a value from before. */
static gfl_status gfli_py_named(gfli_py *py, int depth, uint32_t *out) {
    const size_t texts = py->n_texts;
    const char *name = py->texts + gfli_py_name(py);
    const bool quoted = *py->at == '"' || *py->at == '\'';
    uint32_t known = 0;
    gfli_py_kind kind = GFLI_PY_UNKNOWN;
    py->n_texts = texts;
    if (quoted && strlen(name) <= 2 && !strpbrk(name, "fF"))
        return gfli_py_text_value(py, strpbrk(name, "rR") != NULL, depth > 0, out);
    gfli_py_blank(py, depth > 0);
    if (*py->at == '(' && depth < GFLI_PY_DEPTH && !strcmp(name, "dict")) {
        py->at++;
        return gfli_py_items(py, '=', depth, out);
    }
    if (!strcmp(name, "None")) kind = GFLI_PY_NONE;
    if (!strcmp(name, "True") || !strcmp(name, "False")) {
        kind = GFLI_PY_BOOL;
        known = name[0] == 'T';
    }
    if (kind == GFLI_PY_UNKNOWN) known = gfli_py_get(py, 1, name);
    if (kind == GFLI_PY_UNKNOWN && known) kind = GFLI_PY_SAME;
    return gfli_py_node_new(py, kind, known, out);
}

/* A value and nothing behind it; expressions of any other kind are unknown. */
static gfl_status gfli_py_value(gfli_py *py, int depth, uint32_t *out) {
    const bool lines = depth > 0;
    gfli_py_blank(py, lines);
    const char c = *py->at, *after = py->at + (c == '-' || c == '+');
    if (gfli_py_is_one_of(c, "([{") && depth < GFLI_PY_DEPTH) {
        py->at++;
        GFLI_TRY(gfli_py_items(py, c, depth, out));
    } else if (c == '"' || c == '\'') {
        GFLI_TRY(gfli_py_text_value(py, false, lines, out));
    } else if (gfli_py_is_digit(*after) || (*after == '.' && gfli_py_is_digit(after[1]))) {
        GFLI_TRY(gfli_py_number_value(py, out));
    } else if (gfli_py_starts_name(c)) {
        GFLI_TRY(gfli_py_named(py, depth, out));
    } else {
        GFLI_TRY(gfli_py_node_new(py, GFLI_PY_UNKNOWN, 0, out));
    }
    gfli_py_blank(py, lines);
    if (!*py->at || gfli_py_is_one_of(*py->at, lines ? ",)]}:" : "\n;")) return GFL_OK;
    gfli_py_pass(py, lines);
    return gfli_py_node_new(py, GFLI_PY_UNKNOWN, 0, out);
}

/* ---- statements ------------------------------------------------------------------------------ */

/* What is no assignment to a name - a file's name, an import, a function - is passed over. */
static gfl_status gfli_py_statement(gfli_py *py) {
    const size_t texts = py->n_texts;
    const uint32_t name = gfli_py_name(py);
    uint32_t value = 0;
    if (name) gfli_py_blank(py, false);
    if (!name || *py->at != '=' || py->at[1] == '=') {
        if (*py->at == '"' || *py->at == '\'') gfli_py_string(py, false);
        py->n_texts = texts;
        py->at += strcspn(py->at, "\n");
        return GFL_OK;
    }
    py->at++;
    GFLI_TRY(gfli_py_value(py, 0, &value));
    py->nodes[value].key = name;
    gfli_py_link(py, 1, value);
    return GFL_OK;
}

gfl_status gfli_py_read(gfl_context *context, const char *text, gfli_py *py) {
    const size_t size = strlen(text);
    uint32_t node;
    memset(py, 0, sizeof *py);
    py->context = context;
    py->steps = 16 * size + GFLI_PY_STEPS;
    GFLI_TRY(gfli_alloc(context, size + 2, 1, "a configuration", &py->texts));
    gfli_py_keep(py, 0);
    gfl_status status = gfli_py_node_new(py, GFLI_PY_UNKNOWN, 0, &node);
    if (status == GFL_OK) status = gfli_py_node_new(py, GFLI_PY_DICT, 0, &node);
    py->at = text;
    while (status == GFL_OK && *py->at) {
        status = gfli_py_statement(py);
        while (gfli_py_is_one_of(*py->at, "\r\n;")) py->at++;
    }
    if (status != GFL_OK) gfli_py_free(py);
    return status;
}

void gfli_py_free(gfli_py *py) {
    if (!py->context) return;
    gfli_free(py->context, py->nodes);
    gfli_free(py->context, py->texts);
    memset(py, 0, sizeof *py);
}

/* ---- questions ------------------------------------------------------------------------------- */

/* The value of path's next part in a dictionary; 0 with *stop where there can be none. */
static uint32_t gfli_py_walk(gfli_py *py, uint32_t node, const char *path, bool *stop) {
    char key[64];
    while (*path == '.') {
        const size_t n = strcspn(++path, ".");
        if (py->nodes[node].kind != GFLI_PY_DICT || n >= sizeof key) {
            *stop = true;
            return 0;
        }
        if (gfli_py_get(py, node, "_delete_")) *stop = true;
        memcpy(key, path, n);
        key[n] = 0;
        node = gfli_py_get(py, node, key);
        if (!node) return 0;
        path += n;
    }
    return node;
}

uint32_t gfli_py_find(gfli_py *py, const char *path) {
    const size_t n = strcspn(path, ".");
    uint32_t found = 0;
    for (uint32_t i = py->nodes[1].first; i && gfli_py_step(py); i = py->nodes[i].next) {
        const char *key = py->texts + py->nodes[i].key;
        bool stop = false;
        if (strncmp(key, path, n) != 0 || key[n]) continue;
        const uint32_t here = gfli_py_walk(py, gfli_py_target(py, i), path + n, &stop);
        if (here || stop) found = here;
    }
    return found;
}

uint32_t gfli_py_first(const gfli_py *py, uint32_t list) {
    return py->nodes[list].kind == GFLI_PY_LIST ? py->nodes[list].first : 0;
}

uint32_t gfli_py_next(const gfli_py *py, uint32_t item) {
    return py->nodes[item].next;
}

const char *gfli_py_text(const gfli_py *py, uint32_t node) {
    node = gfli_py_target(py, node);
    return py->nodes[node].kind == GFLI_PY_TEXT ? py->texts + py->nodes[node].first : NULL;
}

bool gfli_py_bool(const gfli_py *py, uint32_t node, bool otherwise) {
    node = gfli_py_target(py, node);
    return py->nodes[node].kind == GFLI_PY_BOOL ? py->nodes[node].first != 0 : otherwise;
}

/* The power of ten behind an "e". */
static int gfli_py_power(const char *text) {
    const bool negative = *text == '-';
    int power = 0;
    for (text += negative || *text == '+'; gfli_py_is_digit(*text) && power < 1000; text++)
        power = 10 * power + (*text - '0');
    return negative ? -power : power;
}

/* *exact: the number has up to 15 digits, as settings do, and is rounded correctly. */
static double gfli_py_decimal(const char *text, bool *exact) {
    double value = 0, scale = 1;
    int n_digits = 0, power = 0;
    bool point = false;
    const bool negative = *text == '-';
    for (text += negative; gfli_py_is_digit(*text) || *text == '.'; text++) {
        point = point || *text == '.';
        if (*text == '.') continue;
        n_digits += n_digits > 0 || *text != '0';
        power += n_digits > 15 && !point;
        power -= n_digits <= 15 && point;
        if (n_digits <= 15) value = 10 * value + (*text - '0');
    }
    if (*text == 'e') power += gfli_py_power(text + 1);
    *exact = n_digits <= 15 && power >= -22 && power <= 22;
    for (int i = 0; i < power || i < -power; i++) scale *= 10;
    value = power < 0 ? value / scale : value * scale;
    return negative ? -value : value;
}

bool gfli_py_number(const gfli_py *py, uint32_t node, double *out) {
    bool exact;
    node = gfli_py_target(py, node);
    if (py->nodes[node].kind != GFLI_PY_NUMBER) return false;
    *out = gfli_py_decimal(py->texts + py->nodes[node].first, &exact);
    return gfli_is_finite(*out);
}

/* ---- values as text -------------------------------------------------------------------------- */

typedef struct gfli_py_shown {
    char *text;
    size_t n, size;
} gfli_py_shown;

static void gfli_py_show(gfli_py_shown *s, const char *text) {
    while (*text && s->n + 1 < s->size) s->text[s->n++] = *text++;
    s->text[s->n] = 0;
}

/* As JSON has it, while Python writes 1. and .5 too. */
static void gfli_py_show_number(const char *text, gfli_py_shown *s) {
    char exact_text[32], one[2] = "";
    bool exact;
    const double value = gfli_py_decimal(text, &exact);
    gfli_json_format(value, exact_text);
    if (exact) gfli_py_show(s, exact_text);
    for (char before = 0; *text && !exact; before = *text++) {
        one[0] = *text;
        if (*text == '.' && !gfli_py_is_digit(before)) gfli_py_show(s, "0");
        gfli_py_show(s, one);
        if (*text == '.' && !gfli_py_is_digit(text[1])) gfli_py_show(s, "0");
    }
}

static void gfli_py_show_value(const gfli_py *py, uint32_t node, int levels, gfli_py_shown *s) {
    const gfli_py_node *v = &py->nodes[gfli_py_target(py, node)];
    const bool dict = v->kind == GFLI_PY_DICT, list = v->kind == GFLI_PY_LIST;
    if (v->kind == GFLI_PY_NONE) gfli_py_show(s, "None");
    if (v->kind == GFLI_PY_BOOL) gfli_py_show(s, v->first ? "True" : "False");
    if (v->kind == GFLI_PY_NUMBER) gfli_py_show_number(py->texts + v->first, s);
    if (v->kind == GFLI_PY_TEXT) {
        gfli_py_show(s, "'");
        gfli_py_show(s, py->texts + v->first);
        gfli_py_show(s, "'");
    }
    if (v->kind == GFLI_PY_UNKNOWN || ((list || dict) && levels == 0)) gfli_py_show(s, "...");
    if ((!list && !dict) || levels == 0) return;
    gfli_py_show(s, dict ? "dict(" : "[");
    for (uint32_t i = v->first; i && s->n + 1 < s->size; i = py->nodes[i].next) {
        if (i != v->first) gfli_py_show(s, ", ");
        if (py->nodes[i].key) gfli_py_show(s, py->texts + py->nodes[i].key);
        if (py->nodes[i].key) gfli_py_show(s, "=");
        gfli_py_show_value(py, i, levels - 1, s);
    }
    gfli_py_show(s, dict ? ")" : "]");
}

const char *gfli_py_shown_as(const gfli_py *py, uint32_t node, char *out, size_t size) {
    gfli_py_shown s = {out, 0, size};
    const char *text = gfli_py_text(py, node);
    out[0] = 0;
    if (text)
        gfli_py_show(&s, text);
    else
        gfli_py_show_value(py, node, GFLI_PY_SHOWN, &s);
    return out;
}

/* ===============================================================================================
 * src/ckpt/config.c - what mmdetection's configuration, a text in its checkpoints, says of a model
 * ============================================================================================ */

/* The text is parsed as data (python.c) and asked three things: facts that no tensor shows, such as
 * mean, std, order of channels, style, scale and classes; whether it asks for what gfl does not
 * have; and whether what it says of the network contradicts the tensors. */

enum { GFLI_CONFIG_SHOWN = 200 };

static bool gfli_config_is_named(gfli_py *py, uint32_t dict, const char *name) {
    const char *type = gfli_py_text(py, gfli_py_get(py, dict, "type"));
    const char *scope = type ? strrchr(type, '.') : NULL; /* mmdet.Resize */
    return type && !strcmp(scope ? scope + 1 : type, name);
}

/* The first of several paths that leads to something. */
static uint32_t gfli_config_any(gfli_py *py, const char *const *paths, size_t n) {
    uint32_t found = 0;
    for (size_t i = 0; i < n && !found; i++) found = gfli_py_find(py, paths[i]);
    return found;
}

/* The steps from a file to the network's input, as of a test. */
static uint32_t gfli_config_pipeline(gfli_py *py) {
    static const char *const paths[] = {
        "data.test.pipeline", "test_dataloader.dataset.pipeline", "test_pipeline",
        "data.val.pipeline",  "val_dataloader.dataset.pipeline",  "val_pipeline"};
    return gfli_config_any(py, paths, GFLI_COUNT(paths));
}

/* A step of the pipeline, or one inside its first step that has some; *around is that one. */
static uint32_t gfli_config_step(gfli_py *py, const char *name, uint32_t *around) {
    uint32_t inside = 0;
    *around = 0;
    for (uint32_t i = gfli_py_first(py, gfli_config_pipeline(py)); i; i = gfli_py_next(py, i)) {
        if (gfli_config_is_named(py, i, name)) return i;
        if (!inside) inside = gfli_py_get(py, i, "transforms");
        if (inside && !*around) *around = i;
    }
    for (uint32_t i = gfli_py_first(py, inside); i; i = gfli_py_next(py, i))
        if (gfli_config_is_named(py, i, name)) return i;
    return 0;
}

/* ---- facts ----------------------------------------------------------------------------------- */

/* What the file says by itself goes before what its configuration says. */
static gfl_status gfli_config_say(gfli_blob *b, const char *key, const char *value) {
    return gfli_blob_meta(b, key) ? GFL_OK : gfli_blob_add_meta(b, key, value);
}

static bool gfli_config_numbers(gfli_py *py, uint32_t list, int n, double *out) {
    int got = 0;
    for (uint32_t i = gfli_py_first(py, list); i; i = gfli_py_next(py, i), got++)
        if (got == n || !gfli_py_number(py, i, &out[got])) return false;
    return got == n;
}

static uint32_t gfli_config_preprocessor(gfli_py *py) {
    static const char *const paths[] = {"model.data_preprocessor", "data_preprocessor"};
    return gfli_config_any(py, paths, GFLI_COUNT(paths));
}

/* mmengine has a preprocessor in the model; before it a step of the pipeline did the same. */
static gfl_status gfli_config_input(gfli_blob *b, gfli_py *py) {
    char mean[GFLI_CONFIG_SHOWN] = "0,0,0", deviation[GFLI_CONFIG_SHOWN] = "1,1,1";
    double three[3];
    uint32_t around, from = gfli_config_preprocessor(py);
    bool swap = gfli_py_bool(py, gfli_py_get(py, from, "bgr_to_rgb"), false) ||
                gfli_py_bool(py, gfli_py_get(py, from, "rgb_to_bgr"), false) ||
                gfli_py_bool(py, gfli_py_get(py, from, "to_rgb"), false);
    const bool optional = from != 0;
    if (!from) from = gfli_config_step(py, "Normalize", &around);
    if (!from) from = gfli_py_find(py, "img_norm_cfg");
    if (!optional) swap = gfli_py_bool(py, gfli_py_get(py, from, "to_rgb"), true);
    const uint32_t values[2] = {gfli_py_get(py, from, "mean"), gfli_py_get(py, from, "std")};
    char *const texts[2] = {mean, deviation};
    for (int i = 0; i < 2; i++) {
        const bool none = !values[i] || py->nodes[values[i]].kind == GFLI_PY_NONE;
        if (none && optional) continue;
        if (!gfli_config_numbers(py, values[i], 3, three)) return GFL_OK;
        gfli_py_shown_as(py, values[i], texts[i], GFLI_CONFIG_SHOWN);
    }
    const uint32_t load = gfli_config_step(py, "LoadImageFromFile", &around);
    const char *loaded = gfli_py_text(py, gfli_py_get(py, load, "channel_order"));
    const bool rgb = (loaded && !strcmp(loaded, "rgb")) != swap;
    if (gfli_blob_meta(b, "mean") || gfli_blob_meta(b, "std") || gfli_blob_meta(b, "input") ||
        gfli_blob_meta(b, "channel_order"))
        return GFL_OK;
    GFLI_TRY(gfli_config_say(b, "mean", mean));
    GFLI_TRY(gfli_config_say(b, "std", deviation));
    return gfli_config_say(b, "channel_order", rgb ? "RGB" : "BGR");
}

/* Long and short side, or false; *ratio: is the shape of pictures kept? */
static bool gfli_config_scale(gfli_py *py, double scale[2], bool *ratio) {
    uint32_t around, resize = gfli_config_step(py, "Resize", &around);
    const bool fixed = !resize && gfli_config_step(py, "FixScaleResize", &around) != 0;
    if (fixed) resize = gfli_config_step(py, "FixScaleResize", &around);
    uint32_t value = gfli_py_get(py, resize, "scale");
    const bool newer = value != 0; /* where not keeping the ratio is the default */
    if (!value) value = gfli_py_get(py, resize, "img_scale");
    if (!value && resize) value = gfli_py_get(py, around, "img_scale");
    const uint32_t only = gfli_py_first(py, value);
    if (only && !gfli_py_next(py, only) && gfli_py_first(py, gfli_py_target(py, only)))
        value = gfli_py_target(py, only);
    *ratio = gfli_py_bool(py, gfli_py_get(py, resize, "keep_ratio"), fixed || !newer);
    if (gfli_py_number(py, value, &scale[0])) scale[1] = scale[0];
    return (gfli_py_number(py, value, &scale[0]) || gfli_config_numbers(py, value, 2, scale)) &&
           scale[0] >= 1 && scale[1] >= 1 && scale[0] <= GFL_MAX_SIDE && scale[1] <= GFL_MAX_SIDE;
}

static gfl_status gfli_config_classes(gfli_blob *b, gfli_py *py) {
    static const char *const paths[] = {"metainfo.classes",
                                        "data.test.classes",
                                        "test_dataloader.dataset.metainfo.classes",
                                        "data.train.classes",
                                        "train_dataloader.dataset.metainfo.classes",
                                        "classes",
                                        "CLASSES"};
    const uint32_t list = gfli_config_any(py, paths, GFLI_COUNT(paths));
    gfli_text text = {b->context, "class names", NULL, 0, 0};
    gfl_json_writer j = gfli_json_to_text(&text);
    if (!gfli_py_first(py, list) || gfli_blob_meta(b, "classes")) return GFL_OK;
    for (uint32_t i = gfli_py_first(py, list); i; i = gfli_py_next(py, i))
        if (!gfli_py_text(py, i)) return GFL_OK;
    gfl_json_array(&j, NULL);
    for (uint32_t i = gfli_py_first(py, list); i && j.status == GFL_OK; i = gfli_py_next(py, i))
        gfl_json_text(&j, NULL, gfli_py_text(py, i));
    gfl_json_end(&j);
    gfl_status status = j.status;
    if (status == GFL_OK) status = gfli_blob_add_meta(b, "classes", text.bytes);
    gfli_free(b->context, text.bytes);
    return status;
}

static gfl_status gfli_config_facts(gfli_blob *b, gfli_py *py) {
    const char *style = gfli_py_text(py, gfli_py_find(py, "model.backbone.style"));
    double depth = 0, scale[2];
    bool ratio;
    char text[64];
    GFLI_TRY(gfli_config_input(b, py));
    GFLI_TRY(gfli_config_classes(b, py));
    gfli_py_number(py, gfli_py_find(py, "model.backbone.depth"), &depth);
    if (style && depth >= 50) GFLI_TRY(gfli_config_say(b, "style", style)); /* of bottlenecks */
    if (!gfli_config_scale(py, scale, &ratio) || !ratio) return GFL_OK;
    snprintf(text, sizeof text, "%dx%d", (int)scale[0], (int)scale[1]);
    return gfli_config_say(b, "scale", text);
}

gfl_status gfli_config_read(gfli_blob *b) {
    const char *text = gfli_blob_meta(b, "cfg");
    gfli_py py;
    if (!text) return GFL_OK;
    GFLI_TRY(gfli_py_read(b->context, text, &py));
    const gfl_status status = gfli_config_facts(b, &py);
    gfli_py_free(&py);
    return status;
}

/* ---- what is not supported ------------------------------------------------------------------- */

static const gfli_config_row gfli_config_detector[] = {
    {"model.bbox_head.type", "GFLHead|LDHead"},
    {"model.neck.type", "FPN"},
    {"model.neck.add_extra_convs", "on_output"},
    {"model.neck.num_outs", "5"},
    {"model.neck.relu_before_extra_convs", "False"},
    {"model.neck.norm_cfg", "None"},
    {"model.neck.act_cfg", "None"},
    {"model.neck.conv_cfg.type", "Conv2d|Conv"},
    {"model.neck.upsample_cfg.mode", "nearest"},
    {"model.bbox_head.conv_cfg.type", "Conv2d|Conv"},
    {"model.bbox_head.norm_cfg.type", "GN"},
    {"model.bbox_head.norm_cfg.num_groups", "32"},
    {"model.bbox_head.norm_cfg.eps", "1e-05"},
    {"model.bbox_head.anchor_generator.strides", "[8, 16, 32, 64, 128]"},
    {"model.bbox_head.anchor_generator.center_offset", "0"},
    {"model.bbox_head.loss_cls.use_sigmoid", "True"},
    {NULL, NULL},
};

/* Numbers of a test that change detections a little, or that a user chooses. */
static const gfli_config_row gfli_config_choices[] = {
    {"model.data_preprocessor.pad_size_divisor", "32"},
    {"model.data_preprocessor.pad_value", "0"},
    {"model.test_cfg.score_thr", "0.05"},
    {"model.test_cfg.nms.type", "nms"},
    {"model.test_cfg.nms.iou_threshold", "0.6"},
    {"model.test_cfg.max_per_img", "100"},
    {"model.test_cfg.nms_pre", "1000"},
    {"model.test_cfg.min_bbox_size", "0"},
    {"test_cfg.score_thr", "0.05"}, /* mmdetection before 2.4 */
    {"test_cfg.nms.type", "nms"},
    {"test_cfg.nms.iou_thr", "0.6"},
    {"test_cfg.nms.iou_threshold", "0.6"},
    {"test_cfg.max_per_img", "100"},
    {"test_cfg.nms_pre", "1000"},
    {"test_cfg.min_bbox_size", "0"},
};

/* Is the text one of those between the bars?  Types may have a scope in front. */
static bool gfli_config_fits(const char *text, const char *wanted) {
    const char *scope = strrchr(text, '.');
    for (const char *at = wanted;; at++) {
        const size_t n = strcspn(at, "|");
        if (!strncmp(text, at, n) && !text[n]) return true;
        if (scope && !strncmp(scope + 1, at, n) && !scope[1 + n]) return true;
        at += n;
        if (!*at) return false;
    }
}

/* "model.neck.num_outs = 4", if that is said and not wanted. */
static bool gfli_config_differs(gfli_py *py, const gfli_config_row *row, char *out, size_t size) {
    char shown[GFLI_CONFIG_SHOWN], quoted[GFLI_QUOTED];
    const uint32_t node = gfli_py_find(py, row->path);
    if (!node || py->nodes[node].kind == GFLI_PY_UNKNOWN ||
        gfli_config_fits(gfli_py_shown_as(py, node, shown, sizeof shown), row->wanted))
        return false;
    snprintf(out, size, "%s = %s", row->path, gfli_quote(shown, quoted, sizeof quoted));
    return true;
}

/* "GFLHead|LDHead" as "GFLHead or LDHead". */
static const char *gfli_config_choice(const char *wanted, char *out, size_t size) {
    size_t n = 0;
    for (; *wanted && n + 5 < size; wanted++) {
        const char one[2] = {*wanted, 0};
        n += (size_t)snprintf(out + n, size - n, "%s", *wanted == '|' ? " or " : one);
    }
    return out;
}

static gfl_status gfli_config_refuse_rows(const gfli_weights *w, gfli_py *py,
                                          const gfli_config_row *row) {
    char said[GFLI_CONFIG_SHOWN], ours[64];
    for (; row->path; row++)
        if (gfli_config_differs(py, row, said, sizeof said))
            return gfli_error(w->context, GFL_E_UNSUPPORTED,
                              "%s: its configuration says %s, which is not supported: gfl has %s",
                              w->blob.path, said,
                              gfli_config_choice(row->wanted, ours, sizeof ours));
    return GFL_OK;
}

/* Which stage of the backbone the pyramid begins with. */
static gfl_status gfli_config_check_levels(const gfli_weights *w, gfli_py *py) {
    double start = 0, stage = -1;
    const uint32_t indices = gfli_py_find(py, "model.backbone.out_indices");
    if (!gfli_py_find(py, "model.neck.type")) return GFL_OK;
    gfli_py_number(py, gfli_py_find(py, "model.neck.start_level"), &start);
    if (!indices) stage = start;
    for (uint32_t i = gfli_py_first(py, indices); i; i = gfli_py_next(py, i), start--)
        if (start == 0) gfli_py_number(py, i, &stage);
    if (stage == 1) return GFL_OK;
    return gfli_error(w->context, GFL_E_UNSUPPORTED,
                      "%s: its configuration begins the pyramid at a stage of the backbone other "
                      "than C3 (model.neck.start_level is not 1), which gfl does not support",
                      w->blob.path);
}

static gfl_status gfli_config_check_parts(const gfli_weights *w, gfli_py *py) {
    static const char *const parts[] = {"model.backbone", "model.neck", "model.bbox_head"};
    for (size_t i = 0; i < GFLI_COUNT(parts); i++)
        if (gfli_py_first(py, gfli_py_find(py, parts[i])))
            return gfli_error(w->context, GFL_E_UNSUPPORTED,
                              "%s: its configuration says that %s consists of several parts, "
                              "which gfl does not support",
                              w->blob.path, parts[i]);
    return GFL_OK;
}

/* A fixed shape of the input is no setting of gfl's; whoever gives a scale knows better. */
static gfl_status gfli_config_check_resize(const gfli_weights *w, gfli_py *py) {
    double scale[2];
    uint32_t around;
    bool ratio = true;
    const bool known = gfli_config_scale(py, scale, &ratio);
    if (gfli_config_step(py, "FixShapeResize", &around)) ratio = false;
    if (ratio || (!known && !around)) return GFL_OK;
    return gfli_error(w->context, GFL_E_UNSUPPORTED,
                      "%s: its configuration resizes pictures without keeping their shape, which "
                      "gfl does not support; to fit them into a scale all the same, convert it "
                      "with one: gfl convert --scale LxS",
                      w->blob.path);
}

static gfl_status gfli_config_refuse_in(const gfli_weights *w, gfli_py *py, bool detector,
                                        bool scale_given) {
    char said[GFLI_CONFIG_SHOWN];
    GFLI_TRY(gfli_config_check_parts(w, py));
    GFLI_TRY(gfli_config_refuse_rows(w, py, gfli_backbone_in(w)->config));
    if (!detector) return GFL_OK;
    GFLI_TRY(gfli_config_refuse_rows(w, py, gfli_config_detector));
    GFLI_TRY(gfli_config_check_levels(w, py));
    if (!scale_given) GFLI_TRY(gfli_config_check_resize(w, py));
    for (size_t i = 0; i < GFLI_COUNT(gfli_config_choices); i++)
        if (gfli_config_differs(py, &gfli_config_choices[i], said, sizeof said))
            gfli_log(w->context, GFL_LOG_WARNING,
                     "%s: its configuration says %s; gfl has %s unless it is told otherwise",
                     w->blob.path, said, gfli_config_choices[i].wanted);
    return GFL_OK;
}

gfl_status gfli_config_refuse(const gfli_weights *w, bool detector, bool scale_given) {
    const char *text = gfli_blob_meta(&w->blob, "cfg");
    gfli_py py;
    if (!text) return GFL_OK;
    GFLI_TRY(gfli_py_read(w->context, text, &py));
    const gfl_status status = gfli_config_refuse_in(w, &py, detector, scale_given);
    gfli_py_free(&py);
    return status;
}

/* ---- what contradicts the tensors ------------------------------------------------------------ */

static gfl_status gfli_config_compare_in(const gfli_weights *w, gfli_py *py, const gfl_arch *a,
                                         bool detector) {
    const struct {
        const char *path;
        int tensors;
        bool compared;
    } rows[] = {{"model.backbone.depth", a->depth, true},
                {"model.backbone.base_channels", a->base_channels, true},
                {"model.backbone.groups", a->groups, true},
                {"model.backbone.base_width", a->base_width, a->groups > 1},
                {"model.neck.out_channels", a->fpn_channels, detector},
                {"model.bbox_head.feat_channels", a->head_channels, detector},
                {"model.bbox_head.stacked_convs", a->stacked_convs, detector},
                {"model.bbox_head.num_classes", a->n_classes, detector},
                {"model.bbox_head.reg_max", a->reg_max, detector}};
    for (size_t i = 0; i < GFLI_COUNT(rows); i++) {
        char said[GFLI_CONFIG_SHOWN], number[16];
        const gfli_config_row row = {rows[i].path, number};
        snprintf(number, sizeof number, "%d", rows[i].tensors);
        if (rows[i].compared && gfli_config_differs(py, &row, said, sizeof said))
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: its configuration says %s, but its tensors have %s",
                              w->blob.path, said, number);
    }
    return GFL_OK;
}

gfl_status gfli_config_compare(const gfli_weights *w, const gfl_arch *arch, bool detector) {
    const char *text = gfli_blob_meta(&w->blob, "cfg");
    gfli_py py;
    if (!text) return GFL_OK;
    GFLI_TRY(gfli_py_read(w->context, text, &py));
    const gfl_status status = gfli_config_compare_in(w, &py, arch, detector);
    gfli_py_free(&py);
    return status;
}

/* ===============================================================================================
 * src/ckpt/open.c - a weight file of any kind
 * ============================================================================================ */

/* By content, since names lie: a safetensors file begins with a length and a brace, a checkpoint
 * with the mark of a zip archive or of a pickle. */
static gfl_status gfli_ckpt_read(gfli_blob *b) {
    uint8_t head[9] = {0};
    GFLI_TRY(gfli_blob_pread(b, 0, head, b->size < 9 ? b->size : 9));
    if (b->size >= 9 && head[8] == '{') return gfli_blob_read_header(b);
    if (!memcmp(head, "PK", 2) || head[0] == 0x80) return gfli_pth_read(b);
    if (b->size == 0)
        return gfli_error(b->context, GFL_E_FORMAT, "%s is empty; fetch it again", b->path);
    return gfli_error(b->context, GFL_E_FORMAT,
                      "%s is neither safetensors nor a checkpoint of PyTorch; look at it: a page "
                      "that says why the download failed may have been saved under its name",
                      b->path);
}

gfl_status gfli_ckpt_open(gfl_context *context, const char *path, gfli_blob *out) {
    GFLI_TRY(gfli_blob_open_bare(context, path, out));
    gfl_status status = gfli_ckpt_read(out);
    if (status == GFL_OK) status = gfli_config_read(out);
    if (status != GFL_OK) gfli_blob_close(out);
    return status;
}

/* ===============================================================================================
 * src/ckpt/import.c - a checkpoint of PyTorch, or anyone's safetensors, as a model
 * ============================================================================================ */

enum { GFLI_COCO_CLASSES = 80 };

static const char *const gfli_coco_names[GFLI_COCO_CLASSES] = {
    "person",        "bicycle",      "car",
    "motorcycle",    "airplane",     "bus",
    "train",         "truck",        "boat",
    "traffic light", "fire hydrant", "stop sign",
    "parking meter", "bench",        "bird",
    "cat",           "dog",          "horse",
    "sheep",         "cow",          "elephant",
    "bear",          "zebra",        "giraffe",
    "backpack",      "umbrella",     "handbag",
    "tie",           "suitcase",     "frisbee",
    "skis",          "snowboard",    "sports ball",
    "kite",          "baseball bat", "baseball glove",
    "skateboard",    "surfboard",    "tennis racket",
    "bottle",        "wine glass",   "cup",
    "fork",          "knife",        "spoon",
    "bowl",          "banana",       "apple",
    "sandwich",      "orange",       "broccoli",
    "carrot",        "hot dog",      "pizza",
    "donut",         "cake",         "chair",
    "couch",         "potted plant", "bed",
    "dining table",  "toilet",       "tv",
    "laptop",        "mouse",        "remote",
    "keyboard",      "cell phone",   "microwave",
    "oven",          "toaster",      "sink",
    "refrigerator",  "book",         "clock",
    "vase",          "scissors",     "teddy bear",
    "hair drier",    "toothbrush"};

/* Category ids 1..90 without those that COCO never used. */
static void gfli_coco_classes(gfl_class out[GFLI_COCO_CLASSES]) {
    static const int left_out[] = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91};
    size_t skipped = 0;
    for (int k = 0, id = 1; k < GFLI_COCO_CLASSES; k++, id++) {
        for (; id == left_out[skipped]; skipped++) id++;
        out[k].name = gfli_coco_names[k];
        out[k].id = id;
    }
}

/* The original repository has underscores where COCO has spaces. */
static bool gfli_is_coco_name(const char *name, const char *coco) {
    for (; *name && *coco; name++, coco++)
        if (*name != *coco && !(*name == '_' && *coco == ' ')) return false;
    return *name == *coco;
}

static bool gfli_are_coco_names(const gfl_class *classes) {
    for (int k = 0; k < GFLI_COCO_CLASSES; k++)
        if (!gfli_is_coco_name(classes[k].name, gfli_coco_names[k])) return false;
    return true;
}

gfl_status gfli_override(gfli_weights *w, const gfl_preprocess *given, gfl_preprocess *p,
                         gfl_origin *origin) {
    if (!given) return GFL_OK;
    if (given->std[0] != 0 || given->std[1] != 0 || given->std[2] != 0) {
        memcpy(p->mean, given->mean, sizeof p->mean);
        memcpy(p->std, given->std, sizeof p->std);
        p->bgr = given->bgr;
        *origin = GFL_ORIGIN_GIVEN;
    }
    if (given->scale_long) p->scale_long = given->scale_long;
    if (given->scale_short) p->scale_short = given->scale_short;
    return gfli_preprocess_resolve(w->context, p, p);
}

/* What decides first is refused first: a configuration that asks for another network.  Then the
 * tensors say what the network is, the file and the caller say the rest, and what the configuration
 * says of the network must agree with the tensors.  Last come the classes, and the weights. */
static gfl_status gfli_import(gfli_weights *w, const gfl_import_desc *how, gfl_model **out) {
    gfl_model_desc desc;
    gfl_origins origins;
    gfl_class coco[GFLI_COCO_CLASSES];
    const bool scale_given =
        how->preprocess && (how->preprocess->scale_long || how->preprocess->scale_short);
    GFLI_TRY(gfli_config_refuse(w, true, scale_given));
    GFLI_TRY(gfli_describe_weights(w, how->dialect, how->style, &desc, &origins));
    GFLI_TRY(gfli_override(w, how->preprocess, &desc.preprocess, &origins.preprocess));
    GFLI_TRY(gfli_config_compare(w, &desc.arch, true));
    if (scale_given) origins.scale = GFL_ORIGIN_GIVEN;
    const int n = desc.arch.n_classes;
    if (how->classes && how->n_classes != n)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: bbox_head.gfl_cls.weight has %d classes, but %d were asked for",
                          w->blob.path, n, how->n_classes);
    desc.classes = how->classes;
    if (!how->classes) GFLI_TRY(gfli_read_classes(w, n, &desc.classes, &origins.classes));
    if (n == GFLI_COCO_CLASSES && !w->has_ids &&
        (!desc.classes || (desc.classes == w->classes && gfli_are_coco_names(w->classes)))) {
        gfli_coco_classes(coco);
        desc.classes = coco;
    }
    return gfli_load_weights(w, &desc, &origins, how->trainable != 0, out);
}

gfl_status gfl_model_import(gfl_context *context, const char *path, const gfl_import_desc *desc,
                            gfl_model **out) {
    gfli_weights w;
    gfl_import_desc how;
    memset(&w, 0, sizeof w);
    memset(&how, 0, sizeof how);
    if (desc) how = *desc;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, path);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfli_ckpt_open(context, path, &w.blob));
    gfl_status status = gfli_weights_begin(context, &w);
    if (status == GFL_OK) status = gfli_import(&w, &how, out);
    gfli_weights_end(&w);
    return status;
}

/* ===============================================================================================
 * src/ckpt/backbone.c - backbones trained on ImageNet: what they are, into a model, out of a model
 * ============================================================================================ */

/* What the file asks of a model; the description says what it does not say. */
static gfl_status gfli_describe_backbone(gfli_weights *w, const gfl_import_desc *how,
                                         gfl_backbone_info *out) {
    GFLI_TRY(gfli_config_refuse(w, false, false));
    GFLI_TRY(gfli_deduce_backbone(w, &out->arch, &out->stages));
    GFLI_TRY(gfli_config_compare(w, &out->arch, false));
    GFLI_TRY(gfli_read_style(w, how->style, &out->arch.style, &out->style));
    GFLI_TRY(gfli_check_labels(w, &out->arch));
    GFLI_TRY(gfli_read_preprocess(w, &out->preprocess, &out->input));
    return gfli_override(w, how->preprocess, &out->preprocess, &out->input);
}

static gfl_status gfli_open_backbone(gfl_context *context, const char *path, gfli_weights *w) {
    int n_backbone = 0;
    memset(w, 0, sizeof *w);
    GFLI_TRY(gfli_ckpt_open(context, path, &w->blob));
    gfl_status status = gfli_weights_begin(context, w);
    for (int i = 0; i < w->n_entries; i++)
        n_backbone += strncmp(w->entries[i].name, "backbone.", 9) == 0;
    if (status == GFL_OK && n_backbone == 0)
        status = gfli_error(context, GFL_E_MISMATCH,
                            "%s: none of its %d tensors belongs to a backbone; torchvision's names "
                            "are expected: conv1.weight, layer1.0.conv1.weight and so on",
                            path, w->blob.n_tensors);
    if (status != GFL_OK) gfli_weights_end(w);
    return status;
}

gfl_status gfl_backbone_describe(gfl_context *context, const char *path,
                                 const gfl_import_desc *desc, gfl_backbone_info *out) {
    gfli_weights w;
    gfl_import_desc how;
    memset(&how, 0, sizeof how);
    if (desc) how = *desc;
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, path);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfli_open_backbone(context, path, &w));
    gfl_status status = gfli_describe_backbone(&w, &how, out);
    gfli_weights_end(&w);
    if (status != GFL_OK) memset(out, 0, sizeof *out);
    return status;
}

/* ---- into a model ---------------------------------------------------------------------------- */

static gfl_status gfli_check_input(const gfli_weights *w, const gfl_model *model,
                                   const gfl_preprocess *p) {
    const gfl_preprocess *m = &model->preprocess;
    bool same = !gfli_order_key(w) || p->bgr == m->bgr;
    for (int i = 0; i < 3 && gfli_blob_meta(&w->blob, "mean"); i++)
        same =
            same && fabsf(p->mean[i] - m->mean[i]) < 0.01f && fabsf(p->std[i] - m->std[i]) < 0.01f;
    if (same) return GFL_OK;
    return gfli_error(
        w->context, GFL_E_MISMATCH,
        "%s: the backbone expects %s input with mean %g, %g, %g, the model gives %s with %g, %g, "
        "%g; create the model with the backbone's preprocessing (gfl_backbone_describe)",
        w->blob.path, p->bgr ? "BGR" : "RGB", (double)p->mean[0], (double)p->mean[1],
        (double)p->mean[2], m->bgr ? "BGR" : "RGB", (double)m->mean[0], (double)m->mean[1],
        (double)m->mean[2]);
}

/* Tensors of another shape, and in the residual stages such that have no place at all (biases,
 * attention), show that the file is of another network. */
static gfl_status gfli_check_stages(gfli_weights *w, const gfl_model *model) {
    const gfli_backbone *kind = gfli_backbone_in(w);
    for (int i = 0; i < w->n_entries; i++) {
        const gfli_tensor *t = w->entries[i].tensor;
        int index = gfli_model_find(model, w->entries[i].name);
        if (index < 0 && strncmp(w->entries[i].name, kind->stages, strlen(kind->stages)) == 0)
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: %s %s has no place in %s; this is a backbone of another kind",
                              w->blob.path, t->name, gfli_shape(t->rank, t->shape).text,
                              kind->family);
        if (index < 0 || model->params[index].stage == GFLI_STAGE_HEAD) continue;
        const gfli_param *p = &model->params[index];
        if (!gfli_same_shape(p, t))
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: %s has shape %s; the network that the other shapes describe "
                              "needs %s",
                              w->blob.path, t->name, gfli_shape(t->rank, t->shape).text,
                              gfli_shape(p->rank, p->shape).text);
    }
    return GFL_OK;
}

/* A backbone of another shape, or trained on other inputs or with other strides, would load in part
 * or wholly, and then detect nothing. */
static gfl_status gfli_check_backbone(gfli_weights *w, const gfl_model *model) {
    gfl_backbone_info b;
    gfl_import_desc none;
    memset(&none, 0, sizeof none);
    memset(&b, 0, sizeof b);
    GFLI_TRY(gfli_describe_backbone(w, &none, &b));
    GFLI_TRY(gfli_backbone_in(w)->compare(w, &b, &model->arch));
    GFLI_TRY(gfli_check_stages(w, model));
    return gfli_check_input(w, model, &b.preprocess); /* of that as much as the file says */
}

/* Read every tensor; into the model only when commit. */
static gfl_status gfli_read_backbone(gfli_weights *w, gfl_model *model, bool commit) {
    for (int i = 0; i < model->n_params; i++) {
        gfli_param *p = &model->params[i];
        if (p->stage == GFLI_STAGE_HEAD) continue;
        const gfli_tensor *t = gfli_weights_find(w, p->name);
        GFLI_TRY(gfli_reserve(w->context, &w->ready, &w->ready_capacity, p->count, sizeof(float),
                              "tensor"));
        if (t) GFLI_TRY(gfli_read_values(w, p, t, w->ready));
        if (!commit) continue;
        if (!t) gfli_param_init(p, model->seed, i, w->ready);
        gfli_param_store(model, i, w->ready);
        p->loaded = t != NULL;
    }
    return GFL_OK;
}

static gfl_status gfli_report_backbone(gfl_model *model, const gfli_weights *w) {
    GFLI_TRY(gfli_open_reports(model, (size_t)model->n_params + (size_t)w->n_entries));
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        bool there = gfli_weights_find(w, p->name) != NULL;
        if (p->stage == GFLI_STAGE_HEAD) continue;
        GFLI_TRY(gfli_report(model, p->name, there ? GFL_FATE_LOADED : GFL_FATE_INITIALISED,
                             p->rank, p->shape, there ? "" : "the file has no such tensor"));
    }
    for (int i = 0; i < w->n_entries; i++) {
        const gfli_tensor *t = w->entries[i].tensor;
        int index = gfli_model_find(model, w->entries[i].name);
        if (index >= 0 && model->params[index].stage != GFLI_STAGE_HEAD) continue;
        GFLI_TRY(gfli_report(model, t->name, GFL_FATE_LEFT_OVER, t->rank, t->shape,
                             "the backbone has no such tensor"));
    }
    return GFL_OK;
}

static gfl_status gfli_load_backbone(gfli_weights *w, gfl_model *model) {
    GFLI_TRY(gfli_check_backbone(w, model));
    GFLI_TRY(gfli_read_backbone(w, model, false));
    GFLI_TRY(gfli_report_backbone(model, w));
    gfli_model_changed(model, 0);
    GFLI_TRY(gfli_read_backbone(w, model, true));
    return gfli_model_pack(model);
}

gfl_status gfl_model_load_backbone(gfl_model *model, const char *path) {
    gfli_weights w;
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, path);
    GFLI_TRAINABLE(model->context, model);
    GFLI_TRY(gfli_open_backbone(model->context, path, &w));
    gfl_status status = gfli_load_backbone(&w, model);
    gfli_weights_end(&w);
    return status;
}

/* ---- out of a model -------------------------------------------------------------------------- */

static gfl_status gfli_put_backbone_metadata(const gfl_model *model, int stages,
                                             gfli_blob_writer *w) {
    const gfl_arch *a = &model->arch;
    const gfli_backbone *kind = gfli_backbone_of(model->context, a->depth);
    char name[48];
    kind->file_name(a, name);
    GFLI_TRY(gfli_blob_put_meta(w, "arch", name));
    GFLI_TRY(gfli_put_input(model, gfli_meta_to_blob, w, "input"));
    GFLI_TRY(gfli_blob_put_meta(w, "style", gfli_style_name(a)));
    snprintf(name, sizeof name, "%s%d", kind->stages + strlen("backbone."), stages + 1);
    return stages < 4 ? gfli_blob_put_meta(w, "missing", name) : GFL_OK;
}

gfl_status gfl_model_save_backbone(const gfl_model *model, int stages, const char *path) {
    gfli_blob_writer *w = NULL;
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, path);
    GFLI_TRAINABLE(model->context, model);
    GFLI_DEMAND(model->context, stages >= 1 && stages <= 4,
                "gfl_model_save_backbone: stages is %d; it must be 1..4", stages);
    GFLI_TRY(gfli_blob_create(model->context, gfli_to_file(path), &w));
    gfl_status status = gfli_put_backbone_metadata(model, stages, w);
    if (status == GFL_OK) status = gfli_put_params(model, w, stages, strlen("backbone."));
    if (status == GFL_OK) return gfli_blob_finish(w);
    gfli_blob_abandon(w);
    return status;
}

/* ===============================================================================================
 * src/ckpt/transfer.c - a model of other classes from a model: rows of the classifier go over by class
 * ============================================================================================ */

static int gfli_find_class(const gfl_class *classes, int n, const char *name) {
    for (int k = 0; k < n; k++)
        if (strcmp(classes[k].name, name) == 0) return k;
    return -1;
}

/* Lists of the caller: without holes. */
static gfl_status gfli_check_names(gfl_context *context, const char *list, const gfl_class *classes,
                                   int n) {
    GFLI_DEMAND(context, n >= 0 && (n == 0 || classes), "%s: %d classes at NULL", list, n);
    for (int k = 0; k < n; k++)
        GFLI_DEMAND(context, classes[k].name, "%s: class %d has no name", list, k);
    return GFL_OK;
}

gfl_status gfl_match_classes(gfl_context *context, const gfl_class *from, int n_from,
                             const gfl_class *to, int n_to, const gfl_rename *renames,
                             int n_renames, int *map) {
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, map);
    GFLI_TRY(gfli_check_names(context, "from", from, n_from));
    GFLI_TRY(gfli_check_names(context, "to", to, n_to));
    GFLI_DEMAND(context, n_renames >= 0, "renames: there are %d of them", n_renames);
    for (int i = 0; i < n_renames; i++)
        GFLI_DEMAND(context, renames && renames[i].from && renames[i].to,
                    "gfl_match_classes: rename %d lacks a name", i);
    for (int k = 0; k < n_to; k++) map[k] = -2;
    for (int i = 0; i < n_renames; i++) {
        int old = gfli_find_class(from, n_from, renames[i].from);
        int now = gfli_find_class(to, n_to, renames[i].to);
        if (old < 0 || now < 0)
            return gfli_error(context, GFL_E_MISMATCH,
                              "renaming %s to %s: there is no class \"%s\" in the %s list",
                              renames[i].from, renames[i].to,
                              old < 0 ? renames[i].from : renames[i].to, old < 0 ? "old" : "new");
        if (map[now] != -2)
            return gfli_error(context, GFL_E_MISMATCH,
                              "renaming %s to %s: %s is already renamed to that", renames[i].from,
                              renames[i].to, from[map[now]].name);
        map[now] = old;
    }
    for (int k = 0; k < n_to; k++)
        if (map[k] == -2) map[k] = gfli_find_class(from, n_from, to[k].name);
    return GFL_OK;
}

typedef struct gfli_transfer {
    const gfl_model *source;
    const int *map;
} gfli_transfer;

static bool gfli_is_classifier(const gfl_model *model, int param) {
    const gfli_layer *layer = &model->layers[model->network.classifier];
    return param == layer->weight || param == layer->bias;
}

/* The rows of the classes that both know; those of new ones are fresh. */
static gfl_status gfli_fill_classes(const gfli_transfer *t, gfl_model *model, int index,
                                    float *to) {
    const size_t row = model->params[index].count / (size_t)model->arch.n_classes;
    float *from;
    GFLI_TRY(gfli_alloc(model->context, t->source->params[index].count, sizeof *from, "a tensor",
                        &from));
    const gfl_status status = gfli_param_fetch(t->source, index, from);
    gfli_param_init(&model->params[index], model->seed, index, to);
    for (int k = 0; k < model->arch.n_classes && status == GFL_OK; k++)
        if (t->map[k] >= 0)
            memcpy(to + (size_t)k * row, from + (size_t)t->map[k] * row, row * sizeof *to);
    gfli_free(model->context, from);
    model->params[index].loaded = true;
    return status;
}

static gfl_status gfli_fill_from_model(void *arg, gfl_model *model, int index, float *to) {
    const gfli_transfer *t = (const gfli_transfer *)arg;
    gfli_param *param = &model->params[index];
    if (gfli_is_classifier(model, index)) return gfli_fill_classes(t, model, index, to);
    param->loaded = t->source->params[index].loaded;
    return gfli_param_fetch(t->source, index, to);
}

static gfl_status gfli_report_transfer(gfl_model *model, const int *map) {
    int n_new = 0;
    char why[96];
    for (int k = 0; k < model->arch.n_classes; k++) n_new += map[k] < 0;
    snprintf(why, sizeof why, "%d of %d classes are new", n_new, model->arch.n_classes);
    GFLI_TRY(gfli_open_reports(model, (size_t)model->n_params));
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        bool afresh = n_new > 0 && gfli_is_classifier(model, i);
        GFLI_TRY(gfli_report(model, p->name, afresh ? GFL_FATE_INITIALISED : GFL_FATE_LOADED,
                             p->rank, p->shape, afresh ? why : ""));
    }
    return GFL_OK;
}

static gfl_status gfli_create_from(gfl_context *context, const gfl_model *source,
                                   const gfl_transfer_desc *how, const int *map, gfl_model **out) {
    gfli_transfer t = {source, map};
    gfl_arch arch = source->arch;
    arch.n_classes = how->n_classes;
    GFLI_TRY(gfli_model_new(context, &arch, how->preprocess ? how->preprocess : &source->preprocess,
                            how->classes, true, out));
    (*out)->seed = how->seed;
    (*out)->origins = source->origins;
    (*out)->origins.classes = GFL_ORIGIN_GIVEN;
    gfl_status status = gfli_model_build(*out, gfli_fill_from_model, &t);
    if (status == GFL_OK) status = gfli_report_transfer(*out, map);
    if (status == GFL_OK) return GFL_OK;
    gfl_model_destroy(*out);
    *out = NULL;
    return status;
}

gfl_status gfl_model_create_from(gfl_context *context, const gfl_model *source,
                                 const gfl_transfer_desc *desc, gfl_model **out) {
    int *map = NULL;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, source);
    GFLI_NOT_NULL(context, desc);
    GFLI_NOT_NULL(context, desc->classes);
    GFLI_NOT_NULL(context, out);
    GFLI_TRAINABLE(context, source);
    GFLI_DEMAND(context, desc->n_classes >= 1 && desc->n_classes <= GFL_MAX_CLASSES,
                "gfl_model_create_from: %d classes; 1..%d are allowed", desc->n_classes,
                GFL_MAX_CLASSES);
    GFLI_TRY(gfli_alloc(context, (size_t)desc->n_classes, sizeof *map, "class map", &map));
    gfl_status status = GFL_OK;
    if (!desc->map)
        status = gfl_match_classes(context, source->classes, source->arch.n_classes, desc->classes,
                                   desc->n_classes, NULL, 0, map);
    for (int k = 0; k < desc->n_classes && desc->map && status == GFL_OK; k++) {
        map[k] = desc->map[k];
        if (map[k] < -1 || map[k] >= source->arch.n_classes)
            status = gfli_error(context, GFL_E_ARG,
                                "gfl_model_create_from: map[%d] is %d; labels of the source are "
                                "0..%d",
                                k, map[k], source->arch.n_classes - 1);
    }
    if (status == GFL_OK) status = gfli_create_from(context, source, desc, map, out);
    gfli_free(context, map);
    return status;
}

/* ===============================================================================================
 * src/export/bytes.c - growing bytes, numbers in little-endian order
 * ============================================================================================ */

void gfli_buffer_put(gfli_buffer *b, const void *data, size_t n) {
    if (b->status == GFL_OK && n > SIZE_MAX - b->n)
        b->status = gfli_error(b->context, GFL_E_MEMORY, "the export is too large for memory");
    if (b->status == GFL_OK)
        b->status = gfli_grow(b->context, &b->data, &b->capacity, b->n + n, 1, "an export");
    if (b->status != GFL_OK || n == 0) return;
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

void gfli_buffer_text(gfli_buffer *b, const char *text) {
    gfli_buffer_put(b, text, strlen(text));
}

void gfli_buffer_number(gfli_buffer *b, uint64_t value, int n_bytes) {
    uint8_t bytes[8];
    for (int i = 0; i < n_bytes; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    gfli_buffer_put(b, bytes, (size_t)n_bytes);
}

void gfli_buffer_free(gfli_buffer *b) {
    gfli_free(b->context, b->data);
    memset(b, 0, sizeof *b);
}

/* ===============================================================================================
 * src/export/entries.c - a model as PyTorch's state dict, and as safetensors of it
 * ============================================================================================ */

static gfli_state_entry *gfli_state_add(gfli_state_entry *entries, int *n, const char *name,
                                        size_t length, const char *suffix, gfli_dtype dtype,
                                        int param) {
    gfli_state_entry *e = &entries[(*n)++];
    memset(e, 0, sizeof *e);
    snprintf(e->name, sizeof e->name, "%.*s%s", (int)length, name, suffix);
    e->dtype = dtype;
    e->param = param;
    e->count = 1;
    return e;
}

gfl_status gfli_state_entries(const gfl_model *model, gfli_state_entry **out, int *n_out) {
    gfli_state_entry *entries;
    int n = 0;
    GFLI_TRY(gfli_alloc(model->context, 2 * (size_t)model->n_params + 1, sizeof *entries,
                        "a state dict", &entries));
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        size_t length = strlen(p->name);
        gfli_state_entry *e = gfli_state_add(entries, &n, p->name, length, "", GFLI_F32, i);
        e->rank = p->rank;
        e->count = p->count;
        memcpy(e->shape, p->shape, sizeof e->shape);
        if (p->is_variance) /* steps of training: nobody reads it */
            (void)gfli_state_add(entries, &n, p->name, length - strlen("running_var"),
                                 "num_batches_tracked", GFLI_I64, -1);
    }
    const char *project = gfli_dialect_get(model->arch.dialect)->project;
    gfli_state_entry *e = gfli_state_add(entries, &n, project, strlen(project), "", GFLI_F32, -1);
    e->rank = 1;
    e->count = (size_t)model->arch.reg_max + 1;
    e->shape[0] = model->arch.reg_max + 1;
    *out = entries;
    *n_out = n;
    return GFL_OK;
}

size_t gfli_state_bytes(const gfli_state_entry *e) {
    return e->count * (e->dtype == GFLI_I64 ? sizeof(int64_t) : sizeof(float));
}

gfl_status gfli_state_values(const gfl_model *model, const gfli_state_entry *e, gfli_values *values,
                             const void **out) {
    static const int64_t none = 0;
    const float *data;
    if (e->param >= 0) {
        GFLI_TRY(gfli_param_values(model, e->param, values, &data));
        *out = data;
        return GFL_OK;
    }
    *out = &none;
    if (e->dtype == GFLI_I64) return GFL_OK;
    GFLI_TRY(gfli_reserve(model->context, &values->data, &values->capacity, e->count, sizeof(float),
                          "tensor"));
    for (size_t i = 0; i < e->count; i++) values->data[i] = (float)i;
    *out = values->data;
    return GFL_OK;
}

static gfl_status gfli_put_state(const gfl_model *model, const gfli_state_entry *entries, int n,
                                 gfli_values *values, gfli_blob_writer *w) {
    GFLI_TRY(gfli_model_metadata(model, gfli_meta_to_blob, w));
    for (int i = 0; i < n; i++)
        GFLI_TRY(gfli_blob_declare(w, entries[i].name, entries[i].dtype, entries[i].rank,
                                   entries[i].shape));
    for (int i = 0; i < n; i++) {
        const void *data;
        GFLI_TRY(gfli_state_values(model, &entries[i], values, &data));
        GFLI_TRY(gfli_blob_write(w, data, gfli_state_bytes(&entries[i])));
    }
    return GFL_OK;
}

gfl_status gfli_export_mmdet(const gfl_model *model, gfli_sink to) {
    gfli_state_entry *entries;
    gfli_blob_writer *w = NULL;
    gfli_values values = {NULL, 0};
    int n;
    if (model->arch.dialect == GFL_DIALECT_GFOCAL)
        return gfli_error(model->context, GFL_E_UNSUPPORTED,
                          "weights of dialect gfocal give wrong boxes in mmdetection; export them "
                          "as .pth, for implus/GFocal");
    GFLI_TRY(gfli_state_entries(model, &entries, &n));
    gfl_status status = gfli_blob_create(model->context, to, &w);
    if (status == GFL_OK) status = gfli_put_state(model, entries, n, &values, w);
    gfli_free(model->context, values.data);
    gfli_free(model->context, entries);
    if (status == GFL_OK) return gfli_blob_finish(w);
    gfli_blob_abandon(w);
    return status;
}

/* ===============================================================================================
 * src/export/pth.c - a PyTorch checkpoint: a pickle and its tensors as stored records of a zip file
 * ============================================================================================ */

/* ---- pickle, protocol 2 ---------------------------------------------------------------------- */

static void gfli_dump_text(gfli_buffer *b, const char *text) {
    size_t n = strlen(text);
    gfli_buffer_text(b, "X");
    gfli_buffer_number(b, n, 4);
    gfli_buffer_put(b, text, n);
}

static void gfli_dump_int(gfli_buffer *b, int64_t value) {
    bool is_short = value >= 0 && value <= INT32_MAX;
    gfli_buffer_text(b, is_short ? "J" : "\x8a\x08"); /* BININT, or LONG1 of 8 bytes */
    gfli_buffer_number(b, (uint64_t)value, is_short ? 4 : 8);
}

static void gfli_dump_ints(gfli_buffer *b, const int64_t *values, int n) {
    gfli_buffer_text(b, "(");
    for (int i = 0; i < n; i++) gfli_dump_int(b, values[i]);
    gfli_buffer_text(b, "t");
}

/* What torch.save writes for a dense tensor: the call that rebuilds it from record `key`. */
static void gfli_dump_tensor(gfli_buffer *b, const gfli_state_entry *e, int key) {
    char text[16];
    int64_t strides[4] = {0, 0, 0, 0}, step = 1;
    for (int i = e->rank - 1; i >= 0; i--) {
        strides[i] = step;
        step *= e->shape[i];
    }
    snprintf(text, sizeof text, "%d", key);
    gfli_buffer_text(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    gfli_dump_text(b, "storage");
    gfli_buffer_text(b, e->dtype == GFLI_I64 ? "ctorch\nLongStorage\n" : "ctorch\nFloatStorage\n");
    gfli_dump_text(b, text);
    gfli_dump_text(b, "cpu");
    gfli_dump_int(b, (int64_t)e->count);
    gfli_buffer_text(b, "tQ"); /* the storage, by its persistent id */
    gfli_dump_int(b, 0);
    gfli_dump_ints(b, e->shape, e->rank);
    gfli_dump_ints(b, strides, e->rank);
    gfli_buffer_text(b, "\x89"
                        "ccollections\nOrderedDict\n)RtR"); /* no gradient, no hooks */
}

static void gfli_dump_classes(const gfl_model *model, gfli_buffer *b, const char *key) {
    gfli_dump_text(b, key);
    gfli_buffer_text(b, "(");
    for (int k = 0; k < model->arch.n_classes; k++) gfli_dump_text(b, model->classes[k].name);
    gfli_buffer_text(b, "t");
}

static gfl_status gfli_meta_to_dump(void *to, const char *key, const char *value) {
    gfli_buffer *b = (gfli_buffer *)to;
    gfli_dump_text(b, key);
    gfli_dump_text(b, value);
    return b->status;
}

static gfl_status gfli_dump(const gfl_model *model, const gfli_state_entry *entries, int n,
                            gfli_buffer *b) {
    gfli_buffer_text(b, "\x80\x02}(");
    gfli_dump_text(b, "state_dict");
    gfli_buffer_text(b, "ccollections\nOrderedDict\n)R(");
    for (int i = 0; i < n; i++) {
        gfli_dump_text(b, entries[i].name);
        gfli_dump_tensor(b, &entries[i], i);
    }
    gfli_buffer_text(b, "u");
    gfli_dump_text(b, "meta");
    gfli_buffer_text(b, "}(");
    gfli_dump_classes(model, b, "CLASSES"); /* where mmdetection 1 and 2 look */
    gfli_dump_text(b, "dataset_meta");      /* and 3 */
    gfli_buffer_text(b, "}(");
    gfli_dump_classes(model, b, "classes");
    gfli_buffer_text(b, "u");
    gfli_dump_text(b, "gfl");
    gfli_buffer_text(b, "}(");
    GFLI_TRY(gfli_model_metadata(model, gfli_meta_to_dump, b));
    gfli_buffer_text(b, "uuu.");
    return b->status;
}

/* ---- zip ------------------------------------------------------------------------------------- */

/* Records begin at multiples of this, so that a file can be mapped and used in place. */
enum { GFLI_ZIPPER_ALIGN = 64 };

typedef struct gfli_zipper {
    gfli_file file;
    gfli_buffer head, directory; /* of the record being written, of all */
    uint64_t at;
    int n;
    uint32_t crc_table[8][256];
} gfli_zipper;

/* What a local header and the directory say alike. */
static void gfli_zipper_common(gfli_buffer *b, const char *name, uint32_t crc, size_t size,
                               size_t extra) {
    gfli_buffer_number(b, 0x0800, 2); /* names are UTF-8 */
    gfli_buffer_number(b, 0, 2);      /* stored */
    gfli_buffer_number(b, 0, 2);      /* midnight ... */
    gfli_buffer_number(b, 0x0021, 2); /* ... of 1 January 1980: the same model, the same file */
    gfli_buffer_number(b, crc, 4);
    gfli_buffer_number(b, size, 4);
    gfli_buffer_number(b, size, 4);
    gfli_buffer_number(b, strlen(name), 2);
    gfli_buffer_number(b, extra, 2);
}

static gfl_status gfli_zipper_add(gfli_zipper *z, const char *name, const void *data, size_t size) {
    const uint32_t crc = gfli_crc32(z->crc_table, 0, (const uint8_t *)data, size);
    const uint64_t end = z->at + 30 + strlen(name) + 4;
    const size_t padding =
        (size_t)((GFLI_ZIPPER_ALIGN - end % GFLI_ZIPPER_ALIGN) % GFLI_ZIPPER_ALIGN);
    gfli_buffer_number(&z->directory, 0x02014b50, 4);
    gfli_buffer_number(&z->directory, 0, 4); /* version 0 made it, and reads it */
    gfli_zipper_common(&z->directory, name, crc, size, 0);
    gfli_buffer_number(&z->directory, 0, 8); /* no comment, first disk, no attributes ... */
    gfli_buffer_number(&z->directory, 0, 2); /* ... of either kind */
    gfli_buffer_number(&z->directory, z->at, 4);
    gfli_buffer_text(&z->directory, name);
    z->head.n = 0;
    gfli_buffer_number(&z->head, 0x04034b50, 4);
    gfli_buffer_number(&z->head, 0, 2);
    gfli_zipper_common(&z->head, name, crc, size, padding + 4);
    gfli_buffer_text(&z->head, name);
    gfli_buffer_text(&z->head, "FB"); /* torch's name for padding */
    gfli_buffer_number(&z->head, padding, 2);
    for (size_t i = 0; i < padding; i++) gfli_buffer_text(&z->head, "Z");
    gfl_status status = z->head.status != GFL_OK ? z->head.status : z->directory.status;
    if (status == GFL_OK) status = gfli_file_write(&z->file, z->head.data, z->head.n);
    if (status == GFL_OK) status = gfli_file_write(&z->file, data, size);
    z->at += z->head.n + size;
    z->n++;
    return status;
}

static gfl_status gfli_zipper_end(gfli_zipper *z) {
    const size_t size = z->directory.n;
    gfli_buffer_number(&z->directory, 0x06054b50, 4);
    gfli_buffer_number(&z->directory, 0, 4); /* this disk, the directory's */
    gfli_buffer_number(&z->directory, (uint64_t)z->n, 2);
    gfli_buffer_number(&z->directory, (uint64_t)z->n, 2);
    gfli_buffer_number(&z->directory, size, 4);
    gfli_buffer_number(&z->directory, z->at, 4);
    gfli_buffer_number(&z->directory, 0, 2); /* no comment */
    GFLI_TRY(z->directory.status);
    return gfli_file_write(&z->file, z->directory.data, z->directory.n);
}

/* ---- the checkpoint -------------------------------------------------------------------------- */

static gfl_status gfli_zipper_model(const gfl_model *model, const gfli_state_entry *entries, int n,
                                    const gfli_buffer *pickle, gfli_values *values,
                                    gfli_zipper *z) {
    GFLI_TRY(gfli_zipper_add(z, "archive/data.pkl", pickle->data, pickle->n));
    GFLI_TRY(gfli_zipper_add(z, "archive/byteorder", "little", 6));
    for (int i = 0; i < n; i++) {
        char name[32];
        const void *data;
        snprintf(name, sizeof name, "archive/data/%d", i);
        GFLI_TRY(gfli_state_values(model, &entries[i], values, &data));
        GFLI_TRY(gfli_zipper_add(z, name, data, gfli_state_bytes(&entries[i])));
    }
    GFLI_TRY(gfli_zipper_add(z, "archive/version", "3\n", 2));
    return gfli_zipper_end(z);
}

/* Sizes and offsets have 32 bits, the number of records 16. */
static gfl_status gfli_zipper_check(const gfl_model *model, const gfli_state_entry *entries, int n,
                                    const gfli_buffer *pickle) {
    enum { A_RECORD = 256 }; /* headers and padding take less */
    uint64_t size = pickle->n;
    for (int i = 0; i < n; i++) size += gfli_state_bytes(&entries[i]) + A_RECORD;
    if (size < UINT32_MAX - 4 * A_RECORD && n < UINT16_MAX - 4) return GFL_OK;
    return gfli_error(model->context, GFL_E_UNSUPPORTED,
                      "a .pth can have at most 4 GB here, and this model needs %.1f GB; "
                      "safetensors have no limit",
                      (double)size * 1e-9);
}

gfl_status gfli_export_pth(const gfl_model *model, gfli_sink to) {
    gfli_state_entry *entries;
    gfli_values values = {NULL, 0};
    gfli_buffer pickle;
    gfli_zipper z;
    int n;
    memset(&pickle, 0, sizeof pickle);
    memset(&z, 0, sizeof z);
    pickle.context = z.head.context = z.directory.context = model->context;
    gfli_crc32_tables(z.crc_table);
    GFLI_TRY(gfli_state_entries(model, &entries, &n));
    gfl_status status = gfli_dump(model, entries, n, &pickle);
    if (status == GFL_OK) status = gfli_zipper_check(model, entries, n, &pickle);
    if (status == GFL_OK) status = gfli_file_create(model->context, to, &z.file);
    if (status == GFL_OK) status = gfli_zipper_model(model, entries, n, &pickle, &values, &z);
    if (status == GFL_OK)
        status = gfli_file_commit(&z.file);
    else
        gfli_file_abandon(&z.file);
    gfli_buffer_free(&pickle);
    gfli_buffer_free(&z.head);
    gfli_buffer_free(&z.directory);
    gfli_free(model->context, values.data);
    gfli_free(model->context, entries);
    return status;
}

/* ===============================================================================================
 * src/export/protobuf.c - protocol buffers, as much as ONNX needs: varints and nested messages
 * ============================================================================================ */

static void gfli_pb_varint(gfli_buffer *b, uint64_t value) {
    uint8_t bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    gfli_buffer_put(b, bytes, n);
}

void gfli_pb_int(gfli_buffer *b, int field, int64_t value) {
    gfli_pb_varint(b, (uint64_t)field << 3);
    gfli_pb_varint(b, (uint64_t)value);
}

void gfli_pb_float(gfli_buffer *b, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    gfli_pb_varint(b, (uint64_t)field << 3 | 5);
    gfli_buffer_number(b, bits, 4);
}

void gfli_pb_head(gfli_buffer *b, int field, uint64_t size) {
    gfli_pb_varint(b, (uint64_t)field << 3 | 2);
    gfli_pb_varint(b, size);
}

void gfli_pb_text(gfli_buffer *b, int field, const char *text) {
    gfli_pb_head(b, field, strlen(text));
    gfli_buffer_text(b, text);
}

size_t gfli_pb_open(gfli_buffer *b, int field) {
    gfli_pb_varint(b, (uint64_t)field << 3 | 2);
    return b->n;
}

void gfli_pb_close_before(gfli_buffer *b, size_t start, uint64_t more) {
    const size_t end = b->n;
    uint8_t length[10];
    gfli_pb_varint(b, end - start + more);
    if (b->status != GFL_OK) return;
    const size_t n = b->n - end;
    memcpy(length, b->data + end, n);
    memmove(b->data + start + n, b->data + start, end - start);
    memcpy(b->data + start, length, n);
}

void gfli_pb_close(gfli_buffer *b, size_t start) {
    gfli_pb_close_before(b, start, 0);
}

/* ===============================================================================================
 * src/export/onnx_graph.c - nodes, constants and names of an ONNX graph
 * ============================================================================================ */

/* ---- nodes ----------------------------------------------------------------------------------- */

size_t gfli_onnx_open(gfli_onnx *g, const char *op, const char *out, const char *a, const char *b,
                      const char *c) {
    const char *const inputs[] = {a, b, c};
    const size_t start = gfli_pb_open(&g->nodes, GFLI_ONNX_GRAPH_NODE);
    for (size_t i = 0; i < GFLI_COUNT(inputs); i++)
        if (inputs[i]) gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_INPUT, inputs[i]);
    gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_OUTPUT, out);
    gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_NAME, out);
    gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_OP, op);
    return start;
}

void gfli_onnx_close(gfli_onnx *g, size_t start) {
    gfli_pb_close(&g->nodes, start);
}

void gfli_onnx_node(gfli_onnx *g, const char *op, const char *out, const char *a, const char *b,
                    const char *c) {
    gfli_onnx_close(g, gfli_onnx_open(g, op, out, a, b, c));
}

enum { GFLI_ONNX_FLOAT = 1, GFLI_ONNX_INT = 2, GFLI_ONNX_STRING = 3, GFLI_ONNX_INTS = 7 };

static size_t gfli_onnx_attribute(gfli_onnx *g, const char *name, int type) {
    const size_t start = gfli_pb_open(&g->nodes, GFLI_ONNX_NODE_ATTRIBUTE);
    gfli_pb_text(&g->nodes, GFLI_ONNX_ATTRIBUTE_NAME, name);
    gfli_pb_int(&g->nodes, GFLI_ONNX_ATTRIBUTE_TYPE, type);
    return start;
}

void gfli_onnx_int(gfli_onnx *g, const char *name, int64_t value) {
    const size_t start = gfli_onnx_attribute(g, name, GFLI_ONNX_INT);
    gfli_pb_int(&g->nodes, GFLI_ONNX_ATTRIBUTE_I, value);
    gfli_pb_close(&g->nodes, start);
}

void gfli_onnx_float(gfli_onnx *g, const char *name, float value) {
    const size_t start = gfli_onnx_attribute(g, name, GFLI_ONNX_FLOAT);
    gfli_pb_float(&g->nodes, GFLI_ONNX_ATTRIBUTE_F, value);
    gfli_pb_close(&g->nodes, start);
}

void gfli_onnx_text(gfli_onnx *g, const char *name, const char *value) {
    const size_t start = gfli_onnx_attribute(g, name, GFLI_ONNX_STRING);
    gfli_pb_text(&g->nodes, GFLI_ONNX_ATTRIBUTE_S, value);
    gfli_pb_close(&g->nodes, start);
}

void gfli_onnx_ints(gfli_onnx *g, const char *name, const int64_t *values, int n) {
    const size_t start = gfli_onnx_attribute(g, name, GFLI_ONNX_INTS);
    for (int i = 0; i < n; i++) gfli_pb_int(&g->nodes, GFLI_ONNX_ATTRIBUTE_INTS, values[i]);
    gfli_pb_close(&g->nodes, start);
}

void gfli_onnx_transpose(gfli_onnx *g, const char *out, const char *in, const int64_t *order,
                         int n) {
    const size_t node = gfli_onnx_open(g, "Transpose", out, in, NULL, NULL);
    gfli_onnx_ints(g, "perm", order, n);
    gfli_onnx_close(g, node);
}

void gfli_onnx_cast(gfli_onnx *g, const char *out, const char *in) {
    const size_t node = gfli_onnx_open(g, "Cast", out, in, NULL, NULL);
    gfli_onnx_int(g, "to", GFLI_ONNX_F32);
    gfli_onnx_close(g, node);
}

/* ---- constants ------------------------------------------------------------------------------- */

gfli_onnx_const *gfli_onnx_new_const(gfli_onnx *g, const char *name, int type, int rank,
                                     const int64_t *shape) {
    if (g->status == GFL_OK)
        g->status = gfli_grow(g->context, &g->consts, &g->const_capacity, (size_t)g->n_consts + 1,
                              sizeof *g->consts, "the graph's constants");
    if (g->status != GFL_OK) return NULL;
    gfli_onnx_const *c = &g->consts[g->n_consts++];
    memset(c, 0, sizeof *c);
    snprintf(c->name.text, sizeof c->name.text, "%s", name);
    c->type = type;
    c->rank = rank;
    c->bytes = type == GFLI_ONNX_I64 ? sizeof(int64_t) : sizeof(float);
    for (int i = 0; i < rank; i++) {
        c->shape[i] = shape[i];
        c->bytes *= (uint64_t)shape[i];
    }
    c->layer = -1;
    return c;
}

void *gfli_onnx_room(gfli_onnx *g, const char *name, int type, int rank, const int64_t *shape) {
    gfli_onnx_const *c = gfli_onnx_new_const(g, name, type, rank, shape);
    if (!c) return NULL;
    g->status = gfli_alloc(g->context, (size_t)c->bytes, 1, name, &c->data);
    return c->data;
}

void gfli_onnx_floats(gfli_onnx *g, const char *name, int rank, const int64_t *shape,
                      const float *values) {
    void *room = gfli_onnx_room(g, name, GFLI_ONNX_F32, rank, shape);
    if (room) memcpy(room, values, (size_t)g->consts[g->n_consts - 1].bytes);
}

void gfli_onnx_placed(gfli_onnx *g, const char *name, int rank, const int64_t *shape,
                      const float *values) {
    float *room = (float *)gfli_onnx_room(g, name, GFLI_ONNX_F32, rank, shape);
    const size_t n = room ? (size_t)g->consts[g->n_consts - 1].bytes / sizeof *room : 0;
    if (room) g->status = gfli_fetch(g->model, values, n, room);
}

void gfli_onnx_number(gfli_onnx *g, const char *name, float value) {
    gfli_onnx_floats(g, name, 0, NULL, &value);
}

void gfli_onnx_integers(gfli_onnx *g, const char *name, int rank, int n, const int64_t *values) {
    const int64_t shape = n;
    void *room = gfli_onnx_room(g, name, GFLI_ONNX_I64, rank, &shape);
    if (room) memcpy(room, values, (size_t)n * sizeof *values);
}

void gfli_onnx_channels(gfli_onnx *g, const gfli_param *p) {
    const int64_t shape[3] = {p->shape[0], 1, 1};
    gfli_onnx_placed(g, p->name, 3, shape, p->data);
}

/* ---- inputs and outputs ---------------------------------------------------------------------- */

void gfli_onnx_end(gfli_onnx *g, int field, const char *name, int type, int rank,
                   const int64_t *sizes, const char *const *names) {
    enum { INFO_NAME = 1, INFO_TYPE = 2, TYPE_TENSOR = 1, TENSOR_TYPE = 1, TENSOR_SHAPE = 2 };
    enum { SHAPE_DIM = 1, DIM_VALUE = 1, DIM_NAME = 2 };
    gfli_buffer *b = &g->ends;
    const size_t info = gfli_pb_open(b, field);
    gfli_pb_text(b, INFO_NAME, name);
    const size_t outer = gfli_pb_open(b, INFO_TYPE), tensor = gfli_pb_open(b, TYPE_TENSOR);
    gfli_pb_int(b, TENSOR_TYPE, type);
    const size_t shape = gfli_pb_open(b, TENSOR_SHAPE);
    for (int i = 0; i < rank; i++) {
        const size_t dim = gfli_pb_open(b, SHAPE_DIM);
        if (sizes[i] > 0)
            gfli_pb_int(b, DIM_VALUE, sizes[i]);
        else
            gfli_pb_text(b, DIM_NAME, names[i]);
        gfli_pb_close(b, dim);
    }
    gfli_pb_close(b, shape);
    gfli_pb_close(b, tensor);
    gfli_pb_close(b, outer);
    gfli_pb_close(b, info);
}

/* ---- names ----------------------------------------------------------------------------------- */

gfli_onnx_name gfli_onnx_join(const char *a, const char *b) {
    gfli_onnx_name name;
    snprintf(name.text, sizeof name.text, "%.70s%.20s", a, b);
    return name;
}

gfli_onnx_name gfli_onnx_at(const char *name, int level) {
    gfli_onnx_name full;
    snprintf(full.text, sizeof full.text, "%.80s.%d", name, level);
    return full;
}

gfli_onnx_name gfli_onnx_module(const gfli_onnx *g, int param, int level, int levels) {
    const char *full = g->model->params[param].name, *dot = strrchr(full, '.');
    gfli_onnx_name name;
    snprintf(name.text, sizeof name.text, "%.*s", dot ? (int)(dot - full) : 80, full);
    return levels > 1 ? gfli_onnx_at(name.text, level) : name;
}

gfli_onnx_name *gfli_onnx_value(gfli_onnx *g, int slot, int level) {
    const gfli_slot *s = &g->plan.maps[slot];
    return &g->values[s->parent >= 0 ? s->parent * GFL_LEVELS + s->level
                                     : slot * GFL_LEVELS + level];
}

int gfli_onnx_tap_values(const gfli_onnx *g) {
    int values = 0;
    for (int i = 0; i < g->plan.n_steps; i++)
        if (g->plan.steps[i].offset >= 0)
            values = gfli_max(values, g->plan.maps[g->plan.steps[i].offset].map.c / 9);
    return values;
}

/* ===============================================================================================
 * src/export/onnx_steps.c - each step of a plan as nodes
 * ============================================================================================ */

static void gfli_onnx_relu(gfli_onnx *g, gfli_onnx_name *value) {
    const gfli_onnx_name out = gfli_onnx_join(value->text, ".relu");
    gfli_onnx_node(g, "Relu", out.text, value->text, NULL, NULL);
    *value = out;
}

static void gfli_onnx_add(gfli_onnx *g, gfli_onnx_name *value, const char *other) {
    const gfli_onnx_name out = gfli_onnx_join(value->text, ".sum");
    gfli_onnx_node(g, "Add", out.text, value->text, other, NULL);
    *value = out;
}

/* The weights and the bias of a layer, batch norm folded in.  Returns whether it has a bias. */
static bool gfli_onnx_weights(gfli_onnx *g, int index, gfli_onnx_name *bias) {
    const gfli_layer *layer = &g->model->layers[index];
    const gfli_param *weight = &g->model->params[layer->weight];
    gfli_onnx_const *c =
        gfli_onnx_new_const(g, weight->name, GFLI_ONNX_F32, weight->rank, weight->shape);
    if (c) c->layer = index;
    *bias = gfli_onnx_join(gfli_onnx_module(g, layer->weight, 0, 1).text, ".bias");
    const float *values =
        layer->bias >= 0 ? g->model->params[layer->bias].data : layer->folded_bias;
    if (!values) return false;
    const int64_t shape = layer->shape.out_c;
    gfli_onnx_placed(g, bias->text, 1, &shape, values);
    return true;
}

void gfli_onnx_conv_attributes(gfli_onnx *g, const gfli_conv_shape *s) {
    const int64_t kernel[2] = {s->kernel, s->kernel}, strides[2] = {s->stride, s->stride};
    const int64_t pads[4] = {s->pad, s->pad, s->pad, s->pad};
    gfli_onnx_ints(g, "kernel_shape", kernel, 2);
    gfli_onnx_ints(g, "strides", strides, 2);
    gfli_onnx_ints(g, "pads", pads, 4);
    gfli_onnx_int(g, "group", s->groups);
}

static void gfli_onnx_conv(gfli_onnx *g, const gfli_step *step) {
    const gfli_layer *layer = &g->model->layers[step->layer];
    const char *weight = g->model->params[layer->weight].name;
    const int levels = g->plan.maps[step->out].map.levels;
    gfli_onnx_name bias;
    const bool biased = gfli_onnx_weights(g, step->layer, &bias);
    for (int l = 0; l < levels; l++) {
        gfli_onnx_name out = gfli_onnx_module(g, layer->weight, l, levels);
        if (step->out == g->plan.cls) out = gfli_onnx_at("cls_score", l);
        const size_t node =
            gfli_onnx_open(g, "Conv", out.text, gfli_onnx_value(g, step->in, l)->text, weight,
                           biased ? bias.text : NULL);
        gfli_onnx_conv_attributes(g, &layer->shape);
        gfli_onnx_close(g, node);
        if (step->residual >= 0)
            gfli_onnx_add(g, &out, gfli_onnx_value(g, step->residual, l)->text);
        if (step->relu) gfli_onnx_relu(g, &out);
        *gfli_onnx_value(g, step->out, l) = out;
    }
}

/* The operator has the offsets' order of the files: for each tap y, then x.  Masks it takes as they
 * are, files have their logits. */
static void gfli_onnx_deform(gfli_onnx *g, const gfli_step *step) {
    const gfli_layer *layer = &g->model->layers[step->layer];
    const bool masked = g->plan.maps[step->offset].map.c > 18;
    const gfli_onnx_name *from = gfli_onnx_value(g, step->offset, 0);
    const gfli_onnx_name logits = gfli_onnx_join(from->text, ".logits");
    const gfli_onnx_name mask = gfli_onnx_join(from->text, ".mask");
    gfli_onnx_name out = gfli_onnx_module(g, layer->weight, 0, 1), offset = *from, bias;
    const bool biased = gfli_onnx_weights(g, step->layer, &bias);
    if (masked) {
        offset = gfli_onnx_join(from->text, ".offset");
        const size_t split =
            gfli_onnx_open(g, "Split", offset.text, from->text, "deform.split", NULL);
        gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_OUTPUT, logits.text);
        gfli_onnx_int(g, "axis", 1);
        gfli_onnx_close(g, split);
        gfli_onnx_node(g, "Sigmoid", mask.text, logits.text, NULL, NULL);
    }
    const size_t node =
        gfli_onnx_open(g, "DeformConv", out.text, gfli_onnx_value(g, step->in, 0)->text,
                       g->model->params[layer->weight].name, offset.text);
    gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_INPUT, biased ? bias.text : "");
    if (masked) gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_INPUT, mask.text);
    gfli_onnx_conv_attributes(g, &layer->shape);
    gfli_onnx_close(g, node);
    if (step->relu) gfli_onnx_relu(g, &out);
    *gfli_onnx_value(g, step->out, 0) = out;
}

static void gfli_onnx_max_pool(gfli_onnx *g, const gfli_step *step) {
    static const int64_t kernel[2] = {3, 3}, strides[2] = {2, 2}, pads[4] = {1, 1, 1, 1};
    const gfli_onnx_name out = gfli_onnx_join("backbone.maxpool", "");
    const size_t node =
        gfli_onnx_open(g, "MaxPool", out.text, gfli_onnx_value(g, step->in, 0)->text, NULL, NULL);
    gfli_onnx_ints(g, "kernel_shape", kernel, 2);
    gfli_onnx_ints(g, "strides", strides, 2);
    gfli_onnx_ints(g, "pads", pads, 4);
    gfli_onnx_close(g, node);
    *gfli_onnx_value(g, step->out, 0) = out;
}

/* Inputs are multiples of 32, so that every level is exactly twice the next. */
static void gfli_onnx_upsample_add(gfli_onnx *g, const gfli_step *step) {
    const gfli_onnx_name *in = gfli_onnx_value(g, step->in, 0);
    const gfli_onnx_name up = gfli_onnx_join(in->text, ".up");
    const size_t node = gfli_onnx_open(g, "Resize", up.text, in->text, "", "twice");
    gfli_onnx_text(g, "mode", "nearest");
    gfli_onnx_text(g, "coordinate_transformation_mode", "asymmetric");
    gfli_onnx_text(g, "nearest_mode", "floor");
    gfli_onnx_close(g, node);
    gfli_onnx_add(g, gfli_onnx_value(g, step->out, 0), up.text);
}

/* Opset 17 has no group norm, and that of 18 has one gamma a group: instance norm of each group as
 * one channel, then gamma and beta. */
static void gfli_onnx_group_norm(gfli_onnx *g, const gfli_step *step) {
    const gfli_param *gamma = &g->model->params[step->gamma];
    const gfli_param *beta = &g->model->params[step->beta];
    const int levels = g->plan.maps[step->out].map.levels;
    gfli_onnx_channels(g, gamma);
    gfli_onnx_channels(g, beta);
    for (int l = 0; l < levels; l++) {
        const char *in = gfli_onnx_value(g, step->in, l)->text;
        gfli_onnx_name out = gfli_onnx_module(g, step->gamma, l, levels);
        const gfli_onnx_name shape = gfli_onnx_join(out.text, ".shape");
        const gfli_onnx_name groups = gfli_onnx_join(out.text, ".groups");
        const gfli_onnx_name norm = gfli_onnx_join(out.text, ".norm");
        const gfli_onnx_name back = gfli_onnx_join(out.text, ".back");
        const gfli_onnx_name scaled = gfli_onnx_join(out.text, ".scaled");
        gfli_onnx_node(g, "Shape", shape.text, in, NULL, NULL);
        gfli_onnx_node(g, "Reshape", groups.text, in, "groups.shape", NULL);
        const size_t node = gfli_onnx_open(g, "InstanceNormalization", norm.text, groups.text,
                                           "groups.ones", "groups.zeros");
        gfli_onnx_float(g, "epsilon", GFLI_NORM_EPS);
        gfli_onnx_close(g, node);
        gfli_onnx_node(g, "Reshape", back.text, norm.text, shape.text, NULL);
        gfli_onnx_node(g, "Mul", scaled.text, back.text, gamma->name, NULL);
        gfli_onnx_node(g, "Add", out.text, scaled.text, beta->name, NULL);
        if (step->relu) gfli_onnx_relu(g, &out);
        *gfli_onnx_value(g, step->out, l) = out;
    }
}

static void gfli_onnx_level_scale(gfli_onnx *g, const gfli_step *step) {
    for (int l = 0; l < GFL_LEVELS; l++) {
        const gfli_param *scale = &g->model->params[step->scale + l];
        const gfli_onnx_name out = gfli_onnx_at("bbox_pred", l);
        gfli_onnx_placed(g, scale->name, 0, NULL, scale->data);
        gfli_onnx_node(g, "Mul", out.text, gfli_onnx_value(g, step->in, l)->text, scale->name,
                       NULL);
        *gfli_onnx_value(g, step->out, l) = out;
    }
}

void gfli_onnx_step(gfli_onnx *g, const gfli_step *step) {
    switch (step->op) {
    case GFLI_OP_CONV: gfli_onnx_conv(g, step); break;
    case GFLI_OP_DEFORM_CONV: gfli_onnx_deform(g, step); break;
    case GFLI_OP_MAX_POOL: gfli_onnx_max_pool(g, step); break;
    case GFLI_OP_UPSAMPLE_ADD: gfli_onnx_upsample_add(g, step); break;
    case GFLI_OP_GROUP_NORM: gfli_onnx_group_norm(g, step); break;
    case GFLI_OP_LEVEL_SCALE: gfli_onnx_level_scale(g, step); break;
    }
}

void gfli_onnx_common(gfli_onnx *g) {
    static const int64_t groups[3] = {0, GFLI_GN_GROUPS, -1}, four = 4, n = GFLI_GN_GROUPS;
    static const int64_t split[2] = {18, 9};
    static const float twice[4] = {1, 1, 2, 2};
    float ones[GFLI_GN_GROUPS], zeros[GFLI_GN_GROUPS];
    for (int i = 0; i < GFLI_GN_GROUPS; i++) ones[i] = 1, zeros[i] = 0;
    gfli_onnx_floats(g, "twice", 1, &four, twice);
    gfli_onnx_integers(g, "groups.shape", 1, 3, groups);
    gfli_onnx_floats(g, "groups.ones", 1, &n, ones);
    gfli_onnx_floats(g, "groups.zeros", 1, &n, zeros);
    if (gfli_onnx_tap_values(g) == 3) gfli_onnx_integers(g, "deform.split", 1, 2, split);
}

/* ===============================================================================================
 * src/export/onnx_ends.c - what stands before and behind the network: normalising, decoding
 * ============================================================================================ */

/* ---- before ---------------------------------------------------------------------------------- */

/* Zeros to the right and below, up to multiples of 32: a constant number of them where the size is
 * known, which OpenCV needs. */
static void gfli_onnx_pad(gfli_onnx *g, const char *out, const char *in) {
    const gfl_export_opts *o = &g->opts;
    const int64_t known[8] = {
        0, 0, 0, 0, 0, 0, gfli_pad32(o->height) - o->height, gfli_pad32(o->width) - o->width};
    if (o->width > 0) {
        gfli_onnx_integers(g, "pad.sizes", 1, 8, known);
        gfli_onnx_node(g, "Pad", out, in, "pad.sizes", NULL);
        return;
    }
    static const int64_t divisors[4] = {1, 1, 32, 32}, before[4] = {0, 0, 0, 0};
    gfli_onnx_integers(g, "pad.divisors", 1, 4, divisors);
    gfli_onnx_integers(g, "pad.before", 1, 4, before);
    gfli_onnx_node(g, "Shape", "pad.shape", in, NULL, NULL);
    gfli_onnx_node(g, "Neg", "pad.negative", "pad.shape", NULL, NULL);
    gfli_onnx_node(g, "Mod", "pad.after", "pad.negative", "pad.divisors", NULL);
    const size_t node = gfli_onnx_open(g, "Concat", "pad.sizes", "pad.before", "pad.after", NULL);
    gfli_onnx_int(g, "axis", 0);
    gfli_onnx_close(g, node);
    gfli_onnx_node(g, "Pad", out, in, "pad.sizes", NULL);
}

/* A convolution with kernels of one value. */
static void gfli_onnx_mix(gfli_onnx *g, const char *out, const char *in, const char *weights,
                          int groups) {
    gfli_conv_shape shape;
    memset(&shape, 0, sizeof shape);
    shape.kernel = shape.stride = 1;
    shape.groups = groups;
    const size_t node = gfli_onnx_open(g, "Conv", out, in, weights, NULL);
    gfli_onnx_conv_attributes(g, &shape);
    gfli_onnx_close(g, node);
}

/* From bytes [N, H, W, 3], RGB, to the network's input.  OpenCV wants channels before rows for the
 * rest, and turns them around by a convolution, not by an index. */
static void gfli_onnx_normalise(gfli_onnx *g) {
    static const int64_t order[4] = {0, 3, 1, 2}, three_by_three[4] = {3, 3, 1, 1};
    static const int64_t channels[3] = {3, 1, 1};
    static const float turned[9] = {0, 0, 1, 0, 1, 0, 1, 0, 0};
    const gfl_preprocess *p = &g->model->preprocess;
    const char *image = "image.planes";
    const bool whole = g->opts.width > 0 && g->opts.width % 32 == 0 && g->opts.height % 32 == 0;
    gfli_onnx_floats(g, "image.mean", 3, channels, p->mean);
    gfli_onnx_floats(g, "image.std", 3, channels, p->std);
    gfli_onnx_cast(g, "image.float", "image");
    gfli_onnx_transpose(g, image, "image.float", order, 4);
    if (p->bgr) {
        gfli_onnx_floats(g, "image.order", 4, three_by_three, turned);
        gfli_onnx_mix(g, "image.bgr", image, "image.order", 1);
        image = "image.bgr";
    }
    gfli_onnx_node(g, "Sub", "image.centred", image, "image.mean", NULL);
    gfli_onnx_node(g, "Div", whole ? "input" : "image.normalised", "image.centred", "image.std",
                   NULL);
    if (!whole) gfli_onnx_pad(g, "input", "image.normalised");
}

void gfli_onnx_begin(gfli_onnx *g) {
    static const char *const planes[4] = {"batch", "", "height", "width"};
    static const char *const image[4] = {"batch", "height", "width", ""};
    const gfl_export_opts *o = &g->opts;
    *gfli_onnx_value(g, g->plan.input, 0) = gfli_onnx_join("input", "");
    if (o->pixels) {
        const int64_t sizes[4] = {o->batch, o->height, o->width, 3};
        gfli_onnx_end(g, GFLI_ONNX_GRAPH_INPUT, "image", GFLI_ONNX_U8, 4, sizes, image);
        gfli_onnx_normalise(g);
    } else {
        const int64_t sizes[4] = {o->batch, 3, o->height, o->width};
        gfli_onnx_end(g, GFLI_ONNX_GRAPH_INPUT, "input", GFLI_ONNX_F32, 4, sizes, planes);
    }
}

/* ---- behind: logits -------------------------------------------------------------------------- */

static void gfli_onnx_logits(gfli_onnx *g, const char *name, int slot) {
    const gfli_map *map = &g->plan.maps[slot].map;
    const bool fixed = g->opts.width > 0;
    for (int l = 0; l < GFL_LEVELS; l++) {
        const gfli_onnx_name height = gfli_onnx_at("height", l), width = gfli_onnx_at("width", l);
        const char *const names[4] = {"batch", "", height.text, width.text};
        const int64_t sizes[4] = {g->opts.batch, map->c, fixed ? map->h[l] : 0,
                                  fixed ? map->w[l] : 0};
        gfli_onnx_end(g, GFLI_ONNX_GRAPH_OUTPUT, gfli_onnx_at(name, l).text, GFLI_ONNX_F32, 4,
                      sizes, names);
    }
}

/* ---- behind: scores and boxes ---------------------------------------------------------------- */

static float gfli_onnx_offset(const gfli_onnx *g, int stride) {
    return gfli_position(0, stride, gfli_dialect_get(g->model->arch.dialect)->inclusive);
}

/* "centres.l" f32 [4, points]: x y x y of every location, where the size is known. */
static void gfli_onnx_fixed_centres(gfli_onnx *g, int level) {
    const gfli_map *map = &g->plan.maps[g->plan.cls].map;
    const int w = map->w[level], stride = gfli_level_stride(level);
    const int64_t points = (int64_t)map->h[level] * w, shape[2] = {4, points};
    const float offset = gfli_onnx_offset(g, stride);
    float *centres =
        (float *)gfli_onnx_room(g, gfli_onnx_at("centres", level).text, GFLI_ONNX_F32, 2, shape);
    for (int64_t i = 0; centres && i < points; i++)
        for (int side = 0; side < 4; side++)
            centres[side * points + i] = (float)stride * (float)(side % 2 ? i / w : i % w) + offset;
}

/* One coordinate of "centres.l" f32 [1, points], computed from the size of the map. */
static void gfli_onnx_coordinate(gfli_onnx *g, int level, bool vertical, const char *out) {
    const gfli_onnx_name shape = gfli_onnx_at("centres.shape", level);
    const gfli_onnx_name grid = gfli_onnx_at("centres.grid", level);
    const gfli_onnx_name stride = gfli_onnx_at("centres.stride", level);
    const gfli_onnx_name offset = gfli_onnx_at("centres.offset", level);
    const gfli_onnx_name size = gfli_onnx_join(out, ".size"), cells = gfli_onnx_join(out, ".cells");
    const gfli_onnx_name real = gfli_onnx_join(out, ".real"), far_end = gfli_onnx_join(out, ".far");
    const gfli_onnx_name line = gfli_onnx_join(out, ".line"), lay = gfli_onnx_join(out, ".laid");
    const gfli_onnx_name all = gfli_onnx_join(out, ".all");
    gfli_onnx_node(g, "Gather", size.text, shape.text, vertical ? "two" : "three", NULL);
    gfli_onnx_node(g, "Range", cells.text, "zero", size.text, "one");
    gfli_onnx_cast(g, real.text, cells.text);
    gfli_onnx_node(g, "Mul", far_end.text, real.text, stride.text, NULL);
    gfli_onnx_node(g, "Add", line.text, far_end.text, offset.text, NULL);
    gfli_onnx_node(g, "Reshape", lay.text, line.text, vertical ? "column" : "row", NULL);
    gfli_onnx_node(g, "Expand", all.text, lay.text, grid.text, NULL);
    gfli_onnx_node(g, "Reshape", out, all.text, "row", NULL);
}

static void gfli_onnx_free_centres(gfli_onnx *g, int level) {
    const gfli_onnx_name shape = gfli_onnx_at("centres.shape", level);
    const gfli_onnx_name x = gfli_onnx_at("centres.x", level), y = gfli_onnx_at("centres.y", level);
    gfli_onnx_number(g, gfli_onnx_at("centres.stride", level).text,
                     (float)gfli_level_stride(level));
    gfli_onnx_number(g, gfli_onnx_at("centres.offset", level).text,
                     gfli_onnx_offset(g, gfli_level_stride(level)));
    gfli_onnx_node(g, "Shape", shape.text, gfli_onnx_at("cls_score", level).text, NULL, NULL);
    gfli_onnx_node(g, "Gather", gfli_onnx_at("centres.grid", level).text, shape.text,
                   "two_and_three", NULL);
    gfli_onnx_coordinate(g, level, false, x.text);
    gfli_onnx_coordinate(g, level, true, y.text);
    const size_t node =
        gfli_onnx_open(g, "Concat", gfli_onnx_at("centres", level).text, x.text, y.text, x.text);
    gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_INPUT, y.text);
    gfli_onnx_int(g, "axis", 0);
    gfli_onnx_close(g, node);
}

/* Constants that all levels share. */
static void gfli_onnx_decode_constants(gfli_onnx *g) {
    static const int64_t sums[3] = {0, 4, -1};
    const int64_t bins = g->model->arch.reg_max + 1, shape[4] = {4, bins, 1, 1};
    const int64_t scores[3] = {0, -1, g->model->arch.n_classes};
    const int64_t sides[4] = {0, 4, bins, -1}, rows[4] = {0, 4 * bins, -1, 1};
    gfli_onnx_integers(g, "scores.shape", 1, 3, scores);
    gfli_onnx_integers(g, "bins.shape", 1, 4, sides);
    gfli_onnx_integers(g, "bins.rows", 1, 4, rows);
    gfli_onnx_integers(g, "bins.sums", 1, 3, sums);
    float *project = (float *)gfli_onnx_room(g, "bins", GFLI_ONNX_F32, 4, shape);
    for (int i = 0; project && i < 4 * bins; i++) project[i] = (float)(i % bins);
}

static void gfli_onnx_grid_constants(gfli_onnx *g) {
    static const int64_t indices[4] = {0, 1, 2, 3}, column[2] = {-1, 1}, row[2] = {1, -1};
    gfli_onnx_integers(g, "zero", 0, 1, &indices[0]);
    gfli_onnx_integers(g, "one", 0, 1, &indices[1]);
    gfli_onnx_integers(g, "two", 0, 1, &indices[2]);
    gfli_onnx_integers(g, "three", 0, 1, &indices[3]);
    gfli_onnx_integers(g, "two_and_three", 1, 2, &indices[2]);
    gfli_onnx_integers(g, "column", 1, 2, column);
    gfli_onnx_integers(g, "row", 1, 2, row);
}

static void gfli_onnx_scores(gfli_onnx *g, int level) {
    static const int64_t order[4] = {0, 2, 3, 1};
    const gfli_onnx_name sure = gfli_onnx_at("scores.sigmoid", level);
    const gfli_onnx_name last = gfli_onnx_at("scores.last", level);
    gfli_onnx_node(g, "Sigmoid", sure.text, gfli_onnx_at("cls_score", level).text, NULL, NULL);
    gfli_onnx_transpose(g, last.text, sure.text, order, 4);
    gfli_onnx_node(g, "Reshape", gfli_onnx_at("scores", level).text, last.text, "scores.shape",
                   NULL);
}

/* The mean of each side's distribution, in pixels, from the centre outwards: the sum over the bins
 * is a convolution of each side, as OpenCV has no sum with its axes as an input. */
static void gfli_onnx_boxes(gfli_onnx *g, int level) {
    static const int64_t shape[2] = {4, 1}, order[3] = {0, 2, 1};
    const float stride = (float)gfli_level_stride(level),
                outwards[4] = {-stride, -stride, stride, stride};
    const gfli_onnx_name bins = gfli_onnx_at("bins.logits", level);
    const gfli_onnx_name share = gfli_onnx_at("bins.shares", level);
    const gfli_onnx_name part = gfli_onnx_at("bins.parts", level);
    const gfli_onnx_name sum = gfli_onnx_at("bins.sum", level);
    const gfli_onnx_name mean = gfli_onnx_at("bins.mean", level);
    const gfli_onnx_name sides = gfli_onnx_at("sides", level);
    const gfli_onnx_name away = gfli_onnx_at("boxes.away", level);
    const gfli_onnx_name corner = gfli_onnx_at("boxes.corners", level);
    gfli_onnx_floats(g, sides.text, 2, shape, outwards);
    gfli_onnx_node(g, "Reshape", bins.text, gfli_onnx_at("bbox_pred", level).text, "bins.shape",
                   NULL);
    const size_t node = gfli_onnx_open(g, "Softmax", share.text, bins.text, NULL, NULL);
    gfli_onnx_int(g, "axis", 2);
    gfli_onnx_close(g, node);
    gfli_onnx_node(g, "Reshape", part.text, share.text, "bins.rows", NULL);
    gfli_onnx_mix(g, sum.text, part.text, "bins", 4);
    gfli_onnx_node(g, "Reshape", mean.text, sum.text, "bins.sums", NULL);
    gfli_onnx_node(g, "Mul", away.text, mean.text, sides.text, NULL);
    gfli_onnx_node(g, "Add", corner.text, away.text, gfli_onnx_at("centres", level).text, NULL);
    gfli_onnx_transpose(g, gfli_onnx_at("boxes", level).text, corner.text, order, 3);
}

/* All levels of an output, one after the other. */
static void gfli_onnx_gather_levels(gfli_onnx *g, const char *name, int last) {
    const gfli_map *map = &g->plan.maps[g->plan.cls].map;
    static const char *const names[3] = {"batch", "points", ""};
    const int64_t points = (int64_t)gfli_points(map); /* the plan is of one image */
    const int64_t sizes[3] = {g->opts.batch, g->opts.width > 0 ? points : 0, last};
    const size_t node = gfli_onnx_open(g, "Concat", name, NULL, NULL, NULL);
    for (int l = 0; l < GFL_LEVELS; l++)
        gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_INPUT, gfli_onnx_at(name, l).text);
    gfli_onnx_int(g, "axis", 1);
    gfli_onnx_close(g, node);
    gfli_onnx_end(g, GFLI_ONNX_GRAPH_OUTPUT, name, GFLI_ONNX_F32, 3, sizes, names);
}

void gfli_onnx_finish(gfli_onnx *g) {
    if (!g->opts.decode) {
        gfli_onnx_logits(g, "cls_score", g->plan.cls);
        gfli_onnx_logits(g, "bbox_pred", g->plan.reg);
        return;
    }
    gfli_onnx_decode_constants(g);
    if (g->opts.width == 0) gfli_onnx_grid_constants(g);
    for (int l = 0; l < GFL_LEVELS; l++) {
        if (g->opts.width > 0)
            gfli_onnx_fixed_centres(g, l);
        else
            gfli_onnx_free_centres(g, l);
        gfli_onnx_scores(g, l);
        gfli_onnx_boxes(g, l);
    }
    gfli_onnx_gather_levels(g, "scores", g->model->arch.n_classes);
    gfli_onnx_gather_levels(g, "boxes", 4);
}

/* ===============================================================================================
 * src/export/onnx.c - a model as an ONNX file: the graph's parts put together
 * ============================================================================================ */

static gfl_status gfli_onnx_check(gfl_context *context, const gfl_export_opts *o) {
    const int step = o->pixels ? 1 : 32;
    if (o->batch < 0)
        return gfli_error(context, GFL_E_ARG, "batch is %d; it must be positive, or 0 for any",
                          o->batch);
    if ((o->width == 0) != (o->height == 0) || o->width < 0 || o->height < 0 ||
        o->width > GFL_MAX_SIDE || o->height > GFL_MAX_SIDE || o->width % step != 0 ||
        o->height % step != 0)
        return gfli_error(context, GFL_E_ARG,
                          "width is %d and height is %d; both must be %s up to %d, or 0 for any",
                          o->width, o->height, o->pixels ? "positive" : "multiples of 32",
                          GFL_MAX_SIDE);
    return GFL_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Everything of a constant before its bytes. */
static void gfli_onnx_const_head(const gfli_onnx_const *c, gfli_buffer *b) {
    const size_t tensor = gfli_pb_open(b, GFLI_ONNX_GRAPH_CONST);
    for (int i = 0; i < c->rank; i++) gfli_pb_int(b, GFLI_ONNX_TENSOR_DIMS, c->shape[i]);
    gfli_pb_int(b, GFLI_ONNX_TENSOR_TYPE, c->type);
    gfli_pb_text(b, GFLI_ONNX_TENSOR_NAME, c->name.text);
    gfli_pb_head(b, GFLI_ONNX_TENSOR_RAW, c->bytes);
    gfli_pb_close_before(b, tensor, c->bytes);
}

/* The bytes of a constant; those of a layer's weights are made here. */
static gfl_status gfli_onnx_const_data(const gfli_onnx *g, const gfli_onnx_const *c,
                                       gfli_values *values, const void **out) {
    const float *weights;
    *out = c->data;
    if (c->layer < 0) return GFL_OK;
    const gfli_layer *layer = &g->model->layers[c->layer];
    GFLI_TRY(gfli_param_values(g->model, layer->weight, values, &weights));
    *out = weights;
    if (layer->bn_gamma < 0) return GFL_OK;
    const size_t out_c = (size_t)layer->shape.out_c;
    const size_t per_output = gfli_conv_weights(&layer->shape) / out_c;
    float *scale;
    GFLI_TRY(gfli_alloc(g->context, out_c, sizeof *scale, "a scale", &scale));
    const gfl_status status = gfli_fetch(g->model, layer->folded_scale, out_c, scale);
    for (size_t o = 0; o < out_c && status == GFL_OK; o++)
        for (size_t i = 0; i < per_output; i++) values->data[o * per_output + i] *= scale[o];
    gfli_free(g->context, scale);
    return status;
}

static gfl_status gfli_meta_to_onnx(void *to, const char *key, const char *value) {
    enum { MODEL_METADATA = 14, ENTRY_KEY = 1, ENTRY_VALUE = 2 };
    gfli_buffer *b = (gfli_buffer *)to;
    const size_t start = gfli_pb_open(b, MODEL_METADATA);
    gfli_pb_text(b, ENTRY_KEY, key);
    gfli_pb_text(b, ENTRY_VALUE, value);
    gfli_pb_close(b, start);
    return b->status;
}

/* Everything before the graph's nodes; `graph` is the graph's size without its name. */
static gfl_status gfli_onnx_head(const gfli_onnx *g, uint64_t graph, gfli_buffer *b) {
    enum { IR_VERSION = 1, PRODUCER = 2, PRODUCER_VERSION = 3, GRAPH = 7, OPSET = 8 };
    enum { OPSET_DOMAIN = 1, OPSET_VERSION = 2 };
    const bool deform = gfli_onnx_tap_values(g) > 0;
    char text[32];
    gfli_arch_name(g->context, &g->model->arch, text);
    gfli_pb_int(b, IR_VERSION, deform ? 9 : 8);
    gfli_pb_text(b, PRODUCER, "gfl");
    gfli_pb_text(b, PRODUCER_VERSION, GFL_VERSION_TEXT);
    const size_t opset = gfli_pb_open(b, OPSET);
    gfli_pb_text(b, OPSET_DOMAIN, "");
    gfli_pb_int(b, OPSET_VERSION, deform ? 19 : 17);
    gfli_pb_close(b, opset);
    GFLI_TRY(gfli_model_metadata(g->model, gfli_meta_to_onnx, b));
    const size_t start = gfli_pb_open(b, GRAPH);
    gfli_pb_text(b, GFLI_ONNX_GRAPH_NAME, text);
    gfli_pb_close_before(b, start, graph);
    return b->status;
}

/* Protocol buffers end at 2 GB. */
static gfl_status gfli_onnx_size(const gfli_onnx *g, gfli_buffer *b, uint64_t *graph) {
    *graph = g->nodes.n + g->ends.n;
    for (int i = 0; i < g->n_consts; i++) {
        b->n = 0;
        gfli_onnx_const_head(&g->consts[i], b);
        *graph += b->n + g->consts[i].bytes;
    }
    b->n = 0;
    GFLI_TRY(b->status);
    if (*graph < INT32_MAX - (1 << 24)) return GFL_OK;
    return gfli_error(g->context, GFL_E_UNSUPPORTED,
                      "an ONNX file can have at most 2 GB, and this model needs %.1f GB",
                      (double)*graph * 1e-9);
}

static gfl_status gfli_onnx_put(const gfli_onnx *g, gfli_buffer *b, gfli_values *values,
                                gfli_file *file) {
    uint64_t graph;
    GFLI_TRY(gfli_onnx_size(g, b, &graph));
    GFLI_TRY(gfli_onnx_head(g, graph, b));
    GFLI_TRY(gfli_file_write(file, b->data, b->n));
    GFLI_TRY(gfli_file_write(file, g->nodes.data, g->nodes.n));
    for (int i = 0; i < g->n_consts; i++) {
        const void *data;
        b->n = 0;
        gfli_onnx_const_head(&g->consts[i], b);
        GFLI_TRY(b->status);
        GFLI_TRY(gfli_file_write(file, b->data, b->n));
        GFLI_TRY(gfli_onnx_const_data(g, &g->consts[i], values, &data));
        GFLI_TRY(gfli_file_write(file, data, (size_t)g->consts[i].bytes));
    }
    return gfli_file_write(file, g->ends.data, g->ends.n);
}

static gfl_status gfli_onnx_write(const gfli_onnx *g, gfli_sink to) {
    gfli_file file;
    gfli_buffer b;
    gfli_values values = {NULL, 0};
    memset(&b, 0, sizeof b);
    b.context = g->context;
    GFLI_TRY(gfli_file_create(g->context, to, &file));
    gfl_status status = gfli_onnx_put(g, &b, &values, &file);
    gfli_buffer_free(&b);
    gfli_free(g->context, values.data);
    if (status == GFL_OK) return gfli_file_commit(&file);
    gfli_file_abandon(&file);
    return status;
}

/* ---- the graph ------------------------------------------------------------------------------- */

static gfl_status gfli_onnx_build(gfli_onnx *g) {
    enum { ANY_SIZE = 128 }; /* nothing in the graph depends on it */
    const int height = g->opts.height > 0 ? gfli_pad32(g->opts.height) : ANY_SIZE;
    const int width = g->opts.width > 0 ? gfli_pad32(g->opts.width) : ANY_SIZE;
    GFLI_TRY(gfli_plan_create(g->context, g->model, 1, height, width, false, &g->plan));
    GFLI_TRY(gfli_calloc(g->context, (size_t)g->plan.n_slots * GFL_LEVELS, sizeof *g->values,
                         "the graph's names", &g->values));
    gfli_onnx_common(g);
    gfli_onnx_begin(g);
    for (int i = 0; i < g->plan.n_steps; i++) gfli_onnx_step(g, &g->plan.steps[i]);
    gfli_onnx_finish(g);
    GFLI_TRY(g->status);
    GFLI_TRY(g->nodes.status);
    return g->ends.status;
}

gfl_status gfli_export_onnx(const gfl_model *model, const gfl_export_opts *opts, gfli_sink to) {
    gfli_onnx g;
    memset(&g, 0, sizeof g);
    g.context = g.nodes.context = g.ends.context = model->context;
    g.model = model;
    if (opts) g.opts = *opts;
    GFLI_TRY(gfli_onnx_check(model->context, &g.opts));
    GFLI_TRY(gfli_model_check_packed(model->context, model, "gfl_model_export"));
    gfl_status status = gfli_onnx_build(&g);
    if (status == GFL_OK) status = gfli_onnx_write(&g, to);
    for (int i = 0; i < g.n_consts; i++) gfli_free(g.context, g.consts[i].data);
    gfli_free(g.context, g.consts);
    gfli_free(g.context, g.values);
    gfli_plan_destroy(g.context, &g.plan);
    gfli_buffer_free(&g.nodes);
    gfli_buffer_free(&g.ends);
    return status;
}

/* ===============================================================================================
 * src/export/export.c - gfl_model_export
 * ============================================================================================ */

static gfl_status gfli_export(const gfl_model *model, gfl_export_format format,
                              const gfl_export_opts *opts, gfli_sink to) {
    switch ((int)format) {
    case GFL_EXPORT_MMDET: return gfli_export_mmdet(model, to);
    case GFL_EXPORT_PTH: return gfli_export_pth(model, to);
    case GFL_EXPORT_ONNX: return gfli_export_onnx(model, opts, to);
    default:
        return gfli_error(model->context, GFL_E_ARG,
                          "gfl_model_export: format is %d; it must be GFL_EXPORT_MMDET, "
                          "GFL_EXPORT_PTH or GFL_EXPORT_ONNX",
                          (int)format);
    }
}

gfl_status gfl_model_export(const gfl_model *model, gfl_export_format format,
                            const gfl_export_opts *opts, const char *path) {
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, path);
    GFLI_TRAINABLE(model->context, model);
    return gfli_export(model, format, opts, gfli_to_file(path));
}

gfl_status gfl_model_export_memory(const gfl_model *model, gfl_export_format format,
                                   const gfl_export_opts *opts, gfl_bytes *out) {
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, out);
    GFLI_TRAINABLE(model->context, model);
    return gfli_export(model, format, opts, gfli_to_memory(out));
}

GFLI_END
