/* evaluate.c - what a model finds in the images of a data set, as results */
#pragma once

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
