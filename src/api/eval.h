/* eval.h - gfl_evaluator: COCO's box evaluation */
#pragma once

typedef struct gfl_evaluator gfl_evaluator;

typedef struct gfl_eval_opts {
    int max_dets[3];     /* ascending; all 0 means 1, 10, 100 */
    int ignore_classes;  /* 1: one class for all (useCats = 0) */
    int compatible;      /* 1: pycocotools' accidents too (annotation id 0, duplicate ids, an unknown image refuses all) */
    const int *images;   /* [n_images] indices of images to evaluate, or NULL for all */
    int n_images;
    const int *labels;   /* [n_labels] labels to evaluate, or NULL for all; order as given */
    int n_labels;
} gfl_eval_opts;

/* COCO's twelve numbers; -1 where there is nothing to average. */
typedef struct gfl_eval_result {
    double ap, ap50, ap75, ap_small, ap_medium, ap_large;
    double ar[3]; /* at the three max_dets */
    double ar_small, ar_medium, ar_large;
} gfl_eval_result;

/* What was put aside while adding results. */
typedef struct gfl_eval_notes {
    int64_t n_results, n_unknown_images, n_unknown_classes;
} gfl_eval_notes;

GFL_API gfl_status gfl_evaluator_create(gfl_context *context, const gfl_dataset *dataset,
                                        const gfl_eval_opts *opts, gfl_evaluator **out);
GFL_API void gfl_evaluator_destroy(gfl_evaluator *evaluator);

/* gfl_evaluator_add - take the detections of one image of the data set (boxes in its pixels). */
GFL_API gfl_status gfl_evaluator_add(gfl_evaluator *evaluator, int image, const gfl_detection *detections, int n);

/* gfl_evaluator_load / save - COCO result JSON, with the ids of the data set. */
GFL_API gfl_status gfl_evaluator_load(gfl_evaluator *evaluator, const char *path);
GFL_API gfl_status gfl_evaluator_save(const gfl_evaluator *evaluator, const char *path);

GFL_API gfl_status gfl_evaluator_run(gfl_evaluator *evaluator, gfl_eval_result *out);

/* gfl_evaluator_class - the same of one class, after gfl_evaluator_run. */
GFL_API gfl_status gfl_evaluator_class(const gfl_evaluator *evaluator, int label, gfl_eval_result *out);
GFL_API void gfl_evaluator_get_notes(const gfl_evaluator *evaluator, gfl_eval_notes *out);
/* gfl_evaluator_summary - the twelve lines of pycocotools' summarize(), 0-terminated; returns the length needed. */
GFL_API size_t gfl_evaluator_summary(const gfl_evaluator *evaluator, char *out, size_t capacity);
