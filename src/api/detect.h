/* detect.h - gfl_detector: pixels in, boxes out */
#pragma once

typedef struct gfl_detection {
    float x1, y1, x2, y2; /* corners, pixels of the image as given, origin top left */
    float score;          /* 0..1: the predicted IoU of a box of this class */
    int label;            /* 0..n_classes-1 */
} gfl_detection;

/* How sure a detection is of each side: left, top, right, bottom. */
typedef struct gfl_distribution {
    float mean[4], stddev[4];      /* distance from the location to the side, pixels of the image as given */
    float bins[4][GFL_MAX_BINS];   /* probabilities of the first reg_max + 1 bins */
    float bin_width[4];            /* pixels of the image as given between two bins */
    float x, y;                    /* the location the distances are measured from */
} gfl_distribution;

typedef struct gfl_detect_opts {
    float min_score;      /* 0 means 0.05 */
    float nms_iou;        /* 0 means 0.6 */
    int max_per_level;    /* candidates kept per pyramid level before NMS; 0 means 1000 */
    int max_detections;   /* per image; 0 means 100 */
    int scale_long, scale_short; /* 0: as the model was trained */
    int no_clip;          /* 1: boxes may pass the image's border by rounding, as COCO results do */
} gfl_detect_opts;

/* The detections of one image. */
typedef struct gfl_detections {
    const gfl_detection *items;              /* [count], best score first */
    const gfl_distribution *distributions;   /* [count], or NULL when not asked for */
    int count;
} gfl_detections;

typedef struct gfl_detector gfl_detector;

/* gfl_detector_create - a workspace that runs a model.
 *
 *   context   pays for the memory and the threads; may differ from the model's
 *   model     borrowed: destroy the detector first
 *   distributions   1: detections come with the distributions of their sides
 * Threads   one call at a time per detector; several detectors, each with its own context, may
 *           run one model at once. */
GFL_API gfl_status gfl_detector_create(gfl_context *context, const gfl_model *model,
                                       int distributions, gfl_detector **out);
GFL_API void gfl_detector_destroy(gfl_detector *detector);

/* gfl_detect - find the objects in a batch of images (they may differ in size).
 *
 *   images   [n], borrowed
 *   out      [n], yours; what it points to stays valid until the detector's next call */
GFL_API gfl_status gfl_detect(gfl_detector *detector, const gfl_image *images, int n,
                              const gfl_detect_opts *opts, gfl_detections *out);
