/* evaluate.h - a model's numbers on a data set */
#pragma once

/* How a model is evaluated.  Zero means the default of each field. */
typedef struct gfl_evaluate_desc {
    /* The options of each call of gfl_detect; NULL: the defaults.  Boxes are never clipped to the
     * image, as in COCO results. */
    const gfl_detect_opts *detect;
    /* How many images run through the network at once; 0 means 1.  More keep a GPU busier.  All
     * images of a batch are padded to the largest, which may change the last digits of scores and
     * boxes. */
    int batch;
    /* [n_renames] what the model calls `from` is called `to` in the data set. */
    const gfl_rename *renames;
    int n_renames; /* how many these are */
    /* Called after every image with the number of images done and the total.  A non-zero return
     * stops the call with GFL_E_STOPPED.  NULL: no call. */
    int (*progress)(void *user, int done, int total);
    void *user; /* handed to progress */
} gfl_evaluate_desc;

/* gfl_match_dataset - which class of a data set is which of a model, by name.
 *
 * Where a model names none of its classes ("class 0" and so on) and has as many as the data set,
 * they are taken in the order of the data set, and the logger is told.
 *
 *   context    receives the error text
 *   renames    [n_renames] what the model calls `from` is called `to` in the data set; they come
 *              before equal names
 *   map        [n_classes of the model] set to the label in the data set for each label of the
 *              model, or to -1 where the data set has no such class
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_DATA    two classes of the data set have the same name
 *           GFL_E_MISMATCH  no class is in both; or an annotation has a class that the model does
 *                         not know; or two classes of the data set would be one of the model; or a
 *                         rename names a class that is not there
 *           GFL_E_MEMORY  the allocator returned NULL
 * Threads   As the context.  The data set and the model are only read. */
GFL_API gfl_status gfl_match_dataset(gfl_context *context, const gfl_model *model,
                                     const gfl_dataset *dataset, const gfl_rename *renames,
                                     int n_renames, int *map);

/* gfl_evaluator_add_model - add what a model finds in the images of the evaluator's data set.
 *
 * Images that are not evaluated are not read.  Where the data set was made with skip_unreadable, an
 * image that cannot be read is left out of the evaluation, and the logger is told.  Classes are
 * matched by gfl_match_dataset; detections of a class that the data set lacks are dropped.
 *
 *   model  on the device of the evaluator's context; borrowed until the call returns
 *   desc   NULL or zeroed for the defaults; borrowed until the call returns
 *
 * Errors    Those of gfl_match_dataset, gfl_dataset_read and gfl_detect; what was added before the
 *           error stays
 *           GFL_E_STOPPED  desc->progress asked to stop
 * Memory    A detector, and the pixels of a batch, until it returns.
 * Threads   As the evaluator. */
GFL_API gfl_status gfl_evaluator_add_model(gfl_evaluator *evaluator, const gfl_model *model,
                                           const gfl_evaluate_desc *desc);

/* gfl_evaluate - COCO's twelve numbers of a model on a data set, in one call.
 *
 * It makes an evaluator, adds the model to it and runs it.  Make an evaluator yourself for the
 * numbers of each class, for a file of results, or for other options of the evaluation.
 *
 *   context  gives the memory and the threads; must be on the model's device
 *   desc     NULL or zeroed for the defaults; borrowed until the call returns
 *   out      set to the numbers; zeroed on error
 *
 * Errors    Those of gfl_evaluator_create, gfl_evaluator_add_model and gfl_evaluator_run
 * Threads   As the context.  The data set and the model are only read.
 * Example
 *     gfl_eval_result r;
 *     if (gfl_evaluate(context, model, dataset, NULL, &r) == GFL_OK) printf("AP %.3f\n", r.ap); */
GFL_API gfl_status gfl_evaluate(gfl_context *context, const gfl_model *model,
                                const gfl_dataset *dataset, const gfl_evaluate_desc *desc,
                                gfl_eval_result *out);
