/* eval.h - gfl_evaluator: COCO's box evaluation */
#pragma once

/* Collects detections on a data set and computes COCO's numbers from them. */
typedef struct gfl_evaluator gfl_evaluator;

/* What is evaluated, and how.  Zero means the default of each field. */
typedef struct gfl_evaluator_desc {
    int max_dets[3];    /* ascending, from 1; all 0 means 1, 10, 100 */
    int ignore_classes; /* 1: all boxes are taken to be of one class (useCats = 0) */
    /* 1: do as pycocotools does even where it is wrong.  A match with an annotation of id 0 counts
     * as false.  Of several annotations with the same id, the last stands for all.  A file with a
     * result of an unknown image is refused.  AP is -1 where max_dets lacks 100.
     * 0: ids do not matter, results of unknown images are left out and counted, and where max_dets
     * lacks 100, AP is read at the last of them. */
    int compatible;
    const int *images; /* [n_images] indices of the images to evaluate, or NULL for all; copied */
    int n_images;      /* how many these are; 0 with a list: none is evaluated */
    const int *labels; /* [n_labels] labels to evaluate, or NULL for all; copied */
    int n_labels;      /* how many these are; likewise */
} gfl_evaluator_desc;

/* COCO's twelve numbers, 0..1, or -1 where there is nothing to average.  AP over all areas is read
 * at 100 detections per image and class; the other APs, and the ARs by area, are read at the last
 * of max_dets. */
typedef struct gfl_eval_result {
    /* The mean over ten IoU thresholds; at the thresholds 0.5 and 0.75; and by the area of boxes:
     * up to 32 x 32 pixels, up to 96 x 96, and above. */
    double ap, ap50, ap75, ap_small, ap_medium, ap_large;
    double ar[3];                         /* at the three max_dets */
    double ar_small, ar_medium, ar_large; /* by the same areas */
} gfl_eval_result;

/* Results seen so far, and those of them that were left out. */
typedef struct gfl_eval_notes {
    int64_t n_results;                           /* all */
    int64_t n_unknown_images, n_unknown_classes; /* left out, since the data set lacks them */
    int64_t n_named_images; /* results whose image_id is the name of an image's file */
} gfl_eval_notes;

/* gfl_evaluator_create - an evaluator without results.
 *
 *   context  gives the memory and the threads; it may differ from the data set's
 *   dataset  borrowed; must outlive the evaluator
 *   desc     NULL, or zeroed with the fields set that you care about; copied
 *   out      set to the evaluator, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, max_dets do not ascend, or an image or label is out
 *                         of range
 *           GFL_E_MEMORY  the allocator returned NULL
 * Memory    Destroy the evaluator with gfl_evaluator_destroy.
 * Threads   An evaluator serves one call at a time.  Several may share a data set.
 * Source    pycocotools 2.0.11, COCOeval with iouType bbox.
 */
GFL_API gfl_status gfl_evaluator_create(gfl_context *context, const gfl_dataset *dataset,
                                        const gfl_evaluator_desc *desc, gfl_evaluator **out);

/* gfl_evaluator_destroy - free an evaluator; NULL is allowed. */
GFL_API void gfl_evaluator_destroy(gfl_evaluator *evaluator);

/* gfl_evaluator_add_detections - add detections of one image.
 *
 * Of detections with equal scores, those that were added first win.  There may be more than 100 per
 * image: max_dets chooses among them when the evaluation runs.
 *
 *   image       index of an image of the data set
 *   detections  [n], borrowed until the call returns; boxes are in pixels of the image, labels are
 *               those of the data set; other labels are left out, counted and logged
 *
 * Errors    GFL_E_ARG     an argument is NULL, there is no such image, or a box or score is not
 *                         finite
 *           GFL_E_MEMORY  there is no room for the 48 bytes that each detection takes
 */
GFL_API gfl_status gfl_evaluator_add_detections(gfl_evaluator *evaluator, int image,
                                                const gfl_detection *detections, int n);

/* gfl_evaluator_leave_out - do not evaluate an image, as if desc.images had not named it.
 *
 * It is for images whose pixels turn out not to be readable.  Those that gfl_dataset_check has
 * marked are left out from the start, unless desc.images names them.
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such image
 */
GFL_API gfl_status gfl_evaluator_leave_out(gfl_evaluator *evaluator, int image);

/* gfl_evaluator_add_results - add the results of a JSON file in COCO's format.
 *
 * The file is an array of objects with image_id, category_id, bbox (x, y, w, h) and score.  Other
 * keys are skipped.  The ids are those of the annotation file, numbers or texts.  An image_id may
 * also be the file_name of an image, or what follows its last slash where no other image has the
 * same.  Where the ids of all classes are words, a category_id may be the id of a gfl_class.
 *
 * Results of unknown images or classes are left out, counted and logged.  Where that would be all
 * of them, the file is refused.  After an error nothing of the file is kept.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *
 * Errors    GFL_E_IO      the file cannot be read
 *           GFL_E_FORMAT  it is not such a file; the text says at which line and column
 *           GFL_E_DATA    none of the results fits the data set; the text shows ids of both.  Or,
 *                         with compatible, a result names an image that the data set lacks
 *           GFL_E_MEMORY  there is no room for the results, which take at most 168 bytes each
 */
GFL_API gfl_status gfl_evaluator_add_results(gfl_evaluator *evaluator, const char *path);

/* gfl_evaluator_add_results_memory - the same from the file's bytes, borrowed until the call
 * returns.
 *
 * Errors    As gfl_evaluator_add_results, except GFL_E_IO. */
GFL_API gfl_status gfl_evaluator_add_results_memory(gfl_evaluator *evaluator, const char *json,
                                                    size_t size);

/* gfl_evaluator_save - write all results in the same format, for COCO's tools and servers.
 *
 * They are in the order of the data set's images, and for each image the best score is first.  The
 * file evaluates to the same numbers as the evaluator.  It appears under its name only when it is
 * complete.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *
 * Errors    GFL_E_IO      the file cannot be written; a file of that name is as it was
 *           GFL_E_MEMORY  the allocator returned NULL
 */
GFL_API gfl_status gfl_evaluator_save(const gfl_evaluator *evaluator, const char *path);

/* gfl_evaluator_write - write the same text as the next value of a writer, to a stream or to
 * memory.
 *
 *   writer  takes the text; see gfl_json_writer
 *
 * Errors    GFL_E_MEMORY  the allocator returned NULL;
 *           otherwise the status of the writer
 */
GFL_API gfl_status gfl_evaluator_write(const gfl_evaluator *evaluator, gfl_json_writer *writer);

/* gfl_evaluator_run - compare all results so far with the annotations.
 *
 * It may be called again after more results were added.  Without any result the numbers are 0, or
 * -1 where there is nothing to find.
 *
 *   out  set by the call; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_MEMORY  the allocator returned NULL
 */
GFL_API gfl_status gfl_evaluator_run(gfl_evaluator *evaluator, gfl_eval_result *out);

/* gfl_evaluator_get_class_result - the twelve numbers of one class, of the last gfl_evaluator_run.
 *
 * Errors    GFL_E_ARG     an argument is NULL, gfl_evaluator_run has not been called since the last
 *                         results were added, the class is not evaluated, or classes are ignored
 */
GFL_API gfl_status gfl_evaluator_get_class_result(const gfl_evaluator *evaluator, int label,
                                                  gfl_eval_result *out);

/* gfl_evaluator_get_notes - how many results there were, and how many were left out. */
GFL_API void gfl_evaluator_get_notes(const gfl_evaluator *evaluator, gfl_eval_notes *out);

/* gfl_evaluator_get_summary - the twelve lines that pycocotools prints, of the last
 * gfl_evaluator_run.
 *
 *   out       [capacity] set to the text, which ends with a 0 and is cut where it does not fit;
 *             may be NULL where capacity is 0
 *
 * It returns the length of the whole text without the 0, and 0 before a run.
 */
GFL_API size_t gfl_evaluator_get_summary(const gfl_evaluator *evaluator, char *out,
                                         size_t capacity);
