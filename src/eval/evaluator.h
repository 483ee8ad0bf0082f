/* evaluator.h - gfl_evaluator as the implementation sees it */
#pragma once

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
