/* detect.h - gfl_detector: pixels in, boxes out */
#pragma once

/* An object that was found. */
typedef struct gfl_detection {
    float x1, y1, x2, y2; /* corners, pixels of the image as given, origin top left */
    float score;          /* 0..1: the predicted IoU of a box of this class */
    int label;            /* 0..n_classes-1 */
} gfl_detection;

/* How sure a detection is of each side: left, top, right, bottom.  All lengths are pixels of the
 * image as given. */
typedef struct gfl_distribution {
    float mean[4], stddev[4];    /* distance of the side from the location x, y, before clipping */
    float bins[4][GFL_MAX_BINS]; /* probabilities of distance k * bin_width; reg_max + 1 are used */
    float bin_width[4];          /* between two bins */
    float x, y;                  /* the location the distances are measured from */
} gfl_distribution;

/* How to find objects.  Zero means the default of each field. */
typedef struct gfl_detect_opts {
    float min_score; /* 0 means 0.05; negative: every candidate is taken, whatever its score */
    float nms_iou;   /* 0 means 0.6; negative: nothing is suppressed */
    /* Candidates that are kept for each level of the pyramid before suppression; in dialect gfocal,
     * locations that are kept with all their classes.  0 means 1000; negative: no limit, which
     * means a million. */
    int max_per_level;
    int max_detections; /* for each image; 0 means 100; negative: no limit, which means a million */
    /* The resized image's long side is at most scale_long and its short side at most scale_short.
     * Set both.  Both 0: as trained; both negative: images keep their own size. */
    int scale_long, scale_short;
    int no_clip; /* 1: boxes may pass the image's border by rounding, as in COCO results */
    /* Called before every step of the network, on the caller's thread, with the steps done and all
     * steps; a return other than 0 stops the call with GFL_E_STOPPED.  NULL: not called. */
    int (*progress)(void *user, int done, int total);
    void *user;
    int on_device; /* 1: the images' pixels lie in the memory of the context's GPU */
    void *event;   /* on a GPU: a cudaEvent_t that is recorded behind the batch; NULL: none */
    /* [n_labels] the labels to find, in any order; NULL: all of them.  The other classes are left
     * out before anything is counted: max_per_level and max_detections count the wanted classes
     * alone, which no other class can crowd out. */
    const int *labels;
    int n_labels;
    /* 1: a box is suppressed by a better one of any class, so that an object is found once, with
     * its best class; 0: by those of its own class alone, as in COCO results. */
    int agnostic;
} gfl_detect_opts;

/* What the network gets for a picture. */
typedef struct gfl_input_size {
    int width, height;               /* resized, aspect ratio kept */
    int padded_width, padded_height; /* up to multiples of 32, with zeros at the right and below */
} gfl_input_size;

/* The detections of one image. */
typedef struct gfl_detections {
    const gfl_detection *items;            /* [count], best score first */
    const gfl_distribution *distributions; /* [count], or NULL when not asked for */
    int count;                             /* how many were found */
} gfl_detections;

/* The workspace that runs a model, one per thread. */
typedef struct gfl_detector gfl_detector;

/* What a detector can do.  Zero means the default of each field. */
typedef struct gfl_detector_desc {
    int distributions; /* 1: detections come with the distributions of their sides */
} gfl_detector_desc;

/* gfl_detector_create - a workspace that runs a model.
 *
 *   context  pays for the memory and the threads; may differ from the model's
 *   model    borrowed: destroy the detector first
 *   desc     NULL or zeroed for the defaults; copied
 *   out      yours; the detector, or NULL on error
 *
 * Errors    GFL_E_ARG     a NULL
 *           GFL_E_MEMORY  the allocator said no
 * Memory    grows to what the largest input seen needs; it is freed with the detector.
 * Threads   one call at a time per detector; several detectors, each with its own context, may
 *           run one model at once. */
GFL_API gfl_status gfl_detector_create(gfl_context *context, const gfl_model *model,
                                       const gfl_detector_desc *desc, gfl_detector **out);

/* gfl_detector_destroy - give the detector's memory back; NULL is allowed. */
GFL_API void gfl_detector_destroy(gfl_detector *detector);

/* gfl_detector_get_size - the size that a picture has when the network sees it.
 *
 * In a batch every picture is padded to the largest padded width and the largest padded height.
 *
 *   width, height  of the picture, in pixels
 *   opts           of the call that would detect: its scale is used; NULL: as trained
 *   out            yours; zeroed on error
 *
 * Errors    GFL_E_ARG     a NULL, a size or an option out of range
 * Memory    none.
 * Threads   as gfl_detect. */
GFL_API gfl_status gfl_detector_get_size(gfl_detector *detector, int width, int height,
                                         const gfl_detect_opts *opts, gfl_input_size *out);

/* gfl_detector_reserve - take the memory that a batch of pictures will need, without running it.
 *
 * Afterwards gfl_detect allocates nothing, neither from the context nor on its device, for batches
 * of as many pictures or fewer which are no wider and no higher than that, before and after
 * resizing (gfl_detector_get_size tells the size after it), whatever is found.  A later call for
 * another size keeps what is there: for pictures of both orientations, call it with both.  A batch
 * that mixes orientations is padded to the larger width and the larger height: reserve for a square
 * picture of the longer side and with opts->scale_short equal to opts->scale_long.
 *
 *   width, height  of the largest picture, in pixels
 *   batch          pictures of the largest batch
 *   opts           of the calls that will detect: its scale, max_per_level and max_detections are
 *                  used; NULL for the defaults; borrowed
 *
 * Errors    GFL_E_ARG     a NULL, a number or an option out of range, a batch that was started and
 *                         not finished
 *           GFL_E_MEMORY  the memory is not there; what was reserved before may be gone
 *           GFL_E_DEVICE  the GPU failed; the context cannot be used any more
 * Memory    the detector's, until it is destroyed.
 * Threads   as gfl_detect. */
GFL_API gfl_status gfl_detector_reserve(gfl_detector *detector, int width, int height, int batch,
                                        const gfl_detect_opts *opts);

/* gfl_detect - find the objects in a batch of images.
 *
 * It resizes and normalises each image as the model was trained, pads all to the largest, runs the
 * network once, turns the distributions of each location into boxes and suppresses overlaps, class
 * by class unless opts->agnostic is set.  The number of threads does not change the result, nor do
 * the other images of the batch, as long as all are padded to the same size.
 *
 *   images   [n], borrowed until the call returns; they may differ in size
 *   n        positive
 *   opts     NULL, or zeroed with the fields you care about set; borrowed
 *   out      [n], yours; what it points to is the detector's, until its next call; counts are
 *            0 on error
 *
 * Errors    GFL_E_ARG     a NULL, an image or option out of range, pixels that are not where
 *                         on_device says, a model that training has changed since its weights
 *                         were packed (call gfl_model_sync); the text says which
 *           GFL_E_MEMORY  the feature maps do not fit; those of a smaller batch or scale may
 *           GFL_E_STOPPED opts->progress asked to stop; the detector can be used again
 *           GFL_E_DEVICE  the GPU failed; the context cannot be used any more
 * Memory    grows the detector's workspace to the largest batch seen.  A batch allocates nothing
 *           when an earlier one had as many images or more, of the same sizes or larger, before and
 *           after resizing, and may have found as many.
 * Threads   one call at a time per detector.
 * Source    Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section 3;
 *           thresholds and order of operations: mmdetection 3, GFLHead; in dialect
 *           gfocal implus/GFocal. */
GFL_API gfl_status gfl_detect(gfl_detector *detector, const gfl_image *images, int n,
                              const gfl_detect_opts *opts, gfl_detections *out);

/* gfl_detect_start, gfl_detect_finish - gfl_detect in two halves.
 *
 * On a GPU start returns when everything is queued, so that the caller can do other work, or start
 * another detector; finish waits for the batch and gives what gfl_detect gives.  On the CPU start
 * does all the work.
 *
 *   images   as for gfl_detect; pixels are borrowed until finish returns, or until opts->event has
 *            happened; uploads from page-locked memory do not wait
 *   out      [n] of the start, yours; valid until the detector's next start
 *
 * Errors    as gfl_detect; GFL_E_ARG also for a start before the finish of the batch before, and
 *           for a finish without a start.  After any other error no batch is under way.
 * Threads   as gfl_detect.
 * Example
 *     gfl_detect_start(a, frames, 8, NULL);
 *     decode_next_frames();
 *     status = gfl_detect_finish(a, detections); */
GFL_API gfl_status gfl_detect_start(gfl_detector *detector, const gfl_image *images, int n,
                                    const gfl_detect_opts *opts);
GFL_API gfl_status gfl_detect_finish(gfl_detector *detector, gfl_detections *out);
