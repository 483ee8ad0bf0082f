/* evaluator.c - gfl_evaluator: what it evaluates, and the detections that it is given */
#pragma once

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
