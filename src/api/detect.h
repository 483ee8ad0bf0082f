/* detect.h - gfl_detector: pixels in, boxes out */
#pragma once

/* An object that was found. */
typedef struct gfl_detection {
    float x1, y1, x2, y2; /* corners in pixels of the image as given; the origin is top left */
    float score;          /* 0..1: the predicted IoU of a box of this class */
    int label;            /* 0..n_classes-1 */
} gfl_detection;

/* How sure a detection is of each side: left, top, right, bottom.  All lengths are pixels of the
 * image as given. */
typedef struct gfl_distribution {
    float mean[4], stddev[4];    /* distance of the side from the location x, y, before clipping */
    float bins[4][GFL_MAX_BINS]; /* bin k: probability of k * bin_width; reg_max + 1 are used */
    float bin_width[4];          /* distance from one bin to the next */
    float x, y;                  /* the location that the distances are measured from */
} gfl_distribution;

/* How to find objects.  Zero means the default of each field. */
typedef struct gfl_detect_opts {
    float min_score; /* 0 means 0.05; negative: every candidate is taken, whatever its score */
    float nms_iou;   /* 0 means 0.6; negative: nothing is suppressed */
    /* How many candidates are kept per level of the pyramid before suppression.  In dialect gfocal,
     * how many locations are kept, with all their classes.  0 means 1000; negative: no limit, which
     * means a million. */
    int max_per_level;
    int max_detections; /* per image; 0 means 100; negative: no limit, which means a million */
    /* The resized image's long side is at most scale_long and its short side at most scale_short.
     * Set both.  Both 0: as trained; both negative: images keep their own size. */
    int scale_long, scale_short;
    int no_clip; /* 1: boxes may pass the image's border by rounding, as in COCO results */
    /* Called before every step of the network, on the caller's thread, with the number of steps
     * done and the total.  A non-zero return stops the call with GFL_E_STOPPED.  NULL: no call. */
    int (*progress)(void *user, int done, int total);
    void *user;
    int on_device; /* 1: the images' pixels lie in the memory of the context's GPU */
    void *event;   /* on a GPU: a cudaEvent_t that is recorded behind the batch; NULL: none */
    /* [n_labels] the labels to find, in any order; NULL, with n_labels 0: all of them.  An empty
     * list is GFL_E_ARG.  The other classes are left out before anything is counted: max_per_level
     * and max_detections count only the wanted classes, so that no other class takes their
     * place. */
    const int *labels;
    int n_labels;
    /* 1: a box is suppressed by a better one of any class, so that an object is found once, with
     * its best class.  0: only boxes of its own class suppress it, as in COCO results. */
    int agnostic;
} gfl_detect_opts;

/* What the network gets for a picture. */
typedef struct gfl_input_size {
    int width, height;               /* resized, aspect ratio kept */
    int padded_width, padded_height; /* up to multiples of 32, with zeros at the right and below */
} gfl_input_size;

/* The detections of one image. */
typedef struct gfl_detection_list {
    const gfl_detection *items;            /* [count], best score first */
    const gfl_distribution *distributions; /* [count], or NULL when not asked for */
    int count;                             /* how many were found */
} gfl_detection_list;

/* The workspace that runs a model, one per thread. */
typedef struct gfl_detector gfl_detector;

/* What a detector can do.  Zero means the default of each field. */
typedef struct gfl_detector_desc {
    int distributions; /* 1: detections come with the distributions of their sides */
} gfl_detector_desc;

/* gfl_detector_create - a workspace that runs a model.
 *
 *   context  gives the memory and the threads; it may differ from the model's
 *   model    borrowed; must outlive the detector
 *   desc     NULL or zeroed for the defaults; copied
 *   out      set to the detector, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or the model is on another device or in another
 *                         precision than the context
 *           GFL_E_MEMORY  the allocator returned NULL
 * Memory    The workspace grows to what the largest input so far needs.  It is freed with the
 *           detector.
 * Threads   A detector serves one call at a time.  Several detectors, each with its own context,
 *           may run one model at once. */
GFL_API gfl_status gfl_detector_create(gfl_context *context, const gfl_model *model,
                                       const gfl_detector_desc *desc, gfl_detector **out);

/* gfl_detector_destroy - give the detector's memory back; NULL is allowed. */
GFL_API void gfl_detector_destroy(gfl_detector *detector);

/* gfl_detector_get_size - the size that a picture has when the network sees it.
 *
 * In a batch every picture is padded to the largest padded width and the largest padded height.
 *
 *   width, height  size of the picture in pixels
 *   opts           options of the call that would detect, of which the scale is used; NULL: as
 *                  trained
 *   out            set to the size; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or a size or an option is out of range
 * Memory    None.
 * Threads   As gfl_detect. */
GFL_API gfl_status gfl_detector_get_size(gfl_detector *detector, int width, int height,
                                         const gfl_detect_opts *opts, gfl_input_size *out);

/* gfl_detector_reserve - take the memory that a batch of pictures will need, without running it.
 *
 * Afterwards gfl_detect allocates nothing, neither from the context nor on its device, as long as a
 * batch has no more pictures than that and each of them is no wider and no higher, before and after
 * resizing; gfl_detector_get_size tells the size after it.  It does not matter how much is found.
 *
 * A later call for another size keeps what was reserved before.  So for pictures of both
 * orientations, call it once for each.  A batch that mixes orientations is padded to the larger
 * width and the larger height: for such batches, reserve for a square picture of the longer side,
 * with opts->scale_short equal to opts->scale_long.
 *
 *   width, height  size of the largest picture in pixels
 *   batch          number of pictures of the largest batch
 *   opts           options of the calls that will detect, of which the scale, max_per_level and
 *                  max_detections are used; NULL for the defaults; borrowed
 *
 * Errors    GFL_E_ARG     an argument is NULL, a number or an option is out of range, or a batch
 *                         was started and not finished
 *           GFL_E_MEMORY  there is not so much memory; what was reserved before may be gone
 *           GFL_E_DEVICE  the GPU failed; the context cannot be used any more
 * Memory    It belongs to the detector until that is destroyed.
 * Threads   As gfl_detect. */
GFL_API gfl_status gfl_detector_reserve(gfl_detector *detector, int width, int height, int batch,
                                        const gfl_detect_opts *opts);

/* gfl_detect - find the objects in a batch of images.
 *
 * It resizes and normalises each image as the model was trained, pads all images to the largest,
 * and runs the network once.  Then it turns the distributions of each location into boxes, and
 * suppresses boxes that overlap a better one of the same class, or of any class with
 * opts->agnostic.  The number of threads does not change the result, nor do the other images of its
 * batch, as long as all are padded to the same size.
 *
 *   images   [n], borrowed until the call returns; they may differ in size
 *   n        at least 1
 *   opts     NULL, or zeroed with the fields set that you care about; borrowed
 *   out      [n] set to what was found.  What it points to belongs to the detector and is valid
 *            until its next call.  On error the counts are 0
 *
 * Errors    GFL_E_ARG     an argument is NULL, an image or an option is out of range, pixels are
 *                         not where on_device says, a batch was started and not finished, or
 *                         training has changed the model since its weights were packed (call
 *                         gfl_model_sync); the text says which
 *           GFL_E_MEMORY  the feature maps do not fit into memory; those of a smaller batch or
 *                         scale may
 *           GFL_E_STOPPED opts->progress asked to stop; the detector can be used again
 *           GFL_E_DEVICE  the GPU failed; the context cannot be used any more
 * Memory    The detector's workspace grows to the largest batch so far.  A batch allocates nothing
 *           when an earlier one had at least as many images, at least as large before and after
 *           resizing, and might have found at least as much.
 * Threads   A detector serves one call at a time.
 * Source    Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section 3.
 *           Thresholds and the order of operations are those of mmdetection 3, GFLHead, or in
 *           dialect gfocal those of implus/GFocal. */
GFL_API gfl_status gfl_detect(gfl_detector *detector, const gfl_image *images, int n,
                              const gfl_detect_opts *opts, gfl_detection_list *out);

/* gfl_detect_start, gfl_detect_finish - gfl_detect in two halves.
 *
 * On a GPU, gfl_detect_start returns when everything is queued, so that the caller can do other
 * work or start another detector.  gfl_detect_finish waits for the batch and gives what gfl_detect
 * gives.  On the CPU, gfl_detect_start does all the work.
 *
 *   images   as for gfl_detect, except that pixels are borrowed until gfl_detect_finish returns, or
 *            until opts->event has happened; uploads from page-locked memory do not wait
 *   out      [n] of the start, set to what was found; valid until the detector's next start
 *
 * Errors    As gfl_detect.  It is GFL_E_ARG, too, to start a batch before the last one is
 *           finished, and to finish one that was not started.  After any other error no batch is
 *           under way.
 * Threads   As gfl_detect.
 * Example
 *     gfl_detect_start(a, frames, 8, NULL);
 *     decode_next_frames();
 *     status = gfl_detect_finish(a, detections); */
GFL_API gfl_status gfl_detect_start(gfl_detector *detector, const gfl_image *images, int n,
                                    const gfl_detect_opts *opts);
GFL_API gfl_status gfl_detect_finish(gfl_detector *detector, gfl_detection_list *out);
