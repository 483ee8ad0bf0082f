/* results.c - an evaluator's life, and COCO result JSON in and out */
#pragma once

/* ---- life ------------------------------------------------------------------------------------ */

static gfl_status gfli_eval_sort_ids(gfl_context *context, gfli_id_entry *entries, int n) {
    gfli_id_entry *scratch;
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *scratch, "ids", &scratch));
    gfli_id_sort(entries, n, scratch);
    gfli_free(context, scratch);
    return GFL_OK;
}

static gfl_status gfli_eval_take_images(gfl_evaluator *e, const gfl_eval_opts *opts) {
    const int n = e->dataset->n_images;
    gfl_context *context = e->context;
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *e->image_ids, "images", &e->image_ids));
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *e->image_rank, "images", &e->image_rank));
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *e->rank_image, "images", &e->rank_image));
    for (int i = 0; i < n; i++) {
        e->image_ids[i].id = e->dataset->images[i].id;
        e->image_ids[i].index = i;
        e->image_rank[i] = opts->images ? -1 : 0;
    }
    GFLI_TRY(gfli_eval_sort_ids(context, e->image_ids, n));
    for (int i = 0; opts->images && i < opts->n_images; i++) {
        int image = opts->images[i];
        if (image < 0 || image >= n)
            return gfli_error(context, GFL_E_ARG, "image %d to evaluate: the data set has %d",
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
static gfl_status gfli_eval_take_classes(gfl_evaluator *e, const gfl_eval_opts *opts) {
    const int n = e->dataset->n_classes;
    gfl_context *context = e->context;
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *e->class_ids, "classes", &e->class_ids));
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *e->class_slot, "classes", &e->class_slot));
    for (int i = 0; i < n; i++) {
        e->class_ids[i].id = e->dataset->class_ids[i];
        e->class_ids[i].index = i;
        e->class_slot[i] = opts->labels ? -1 : i;
    }
    e->n_slots = opts->labels ? 0 : n;
    GFLI_TRY(gfli_eval_sort_ids(context, e->class_ids, n));
    for (int i = 0; opts->labels && i < opts->n_labels; i++) {
        int label = opts->labels[i];
        if (label < 0 || label >= n)
            return gfli_error(context, GFL_E_ARG, "label %d to evaluate: the data set has %d",
                              label, n);
        if (e->class_slot[label] < 0) e->class_slot[label] = e->n_slots++;
    }
    int slot = 0;
    for (int i = 0; i < n && !e->ignore_classes; i++)
        if (e->class_slot[i] >= 0) e->class_slot[i] = slot++;
    return GFL_OK;
}

static gfl_status gfli_eval_fill(gfl_evaluator *e, const gfl_eval_opts *opts) {
    static const int usual[GFLI_EVAL_M] = {1, 10, 100};
    const int *m = opts->max_dets;
    bool given = m[0] != 0 || m[1] != 0 || m[2] != 0;
    if (given && (m[0] < 1 || m[1] < m[0] || m[2] < m[1]))
        return gfli_error(e->context, GFL_E_ARG,
                          "max_dets %d, %d, %d: three ascending numbers from 1 are wanted", m[0],
                          m[1], m[2]);
    if (opts->n_images < 0 || opts->n_labels < 0)
        return gfli_error(e->context, GFL_E_ARG, "%d images and %d labels to evaluate",
                          opts->n_images, opts->n_labels);
    memcpy(e->max_dets, given ? m : usual, sizeof e->max_dets);
    e->ignore_classes = opts->ignore_classes != 0;
    e->compatible = opts->compatible != 0;
    GFLI_TRY(gfli_eval_take_images(e, opts));
    GFLI_TRY(gfli_eval_take_classes(e, opts));
    return gfli_calloc(e->context, (size_t)gfli_eval_k(e), sizeof *e->sums, "classes", &e->sums);
}

gfl_status gfl_evaluator_create(gfl_context *context, const gfl_dataset *dataset,
                                const gfl_eval_opts *opts, gfl_evaluator **out) {
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, dataset);
    GFLI_NOT_NULL(context, out);
    gfl_eval_opts none;
    memset(&none, 0, sizeof none);
    gfl_evaluator *e;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *e, "an evaluator", &e));
    e->context = context;
    e->dataset = dataset;
    gfl_status status = gfli_eval_fill(e, opts ? opts : &none);
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
    gfli_free(context, evaluator->image_rank);
    gfli_free(context, evaluator->rank_image);
    gfli_free(context, evaluator->class_slot);
    gfli_free(context, evaluator->boxes);
    gfli_free(context, evaluator->sums);
    gfli_free(context, evaluator);
}

void gfl_evaluator_get_notes(const gfl_evaluator *evaluator, gfl_eval_notes *out) {
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (evaluator) *out = evaluator->notes;
}

/* ---- results --------------------------------------------------------------------------------- */

static gfl_status gfli_eval_push(gfl_evaluator *e, const gfli_eval_box *box) {
    if (e->n_boxes == (size_t)INT32_MAX)
        return gfli_error(e->context, GFL_E_DATA, "more than %d results", INT32_MAX);
    GFLI_TRY(gfli_grow(e->context, &e->boxes, &e->capacity, e->n_boxes + 1, sizeof *e->boxes,
                       "results"));
    e->boxes[e->n_boxes++] = *box;
    return GFL_OK;
}

gfl_status gfl_evaluator_add(gfl_evaluator *evaluator, int image, const gfl_detection *detections,
                             int n) {
    GFLI_NOT_NULL(NULL, evaluator);
    gfl_evaluator *e = evaluator;
    GFLI_DEMAND(e->context, n >= 0 && (n == 0 || detections),
                "gfl_evaluator_add: %d detections at %s", n, detections ? "an address" : "NULL");
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
        if (!(fabs(sum) <= DBL_MAX))
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
            "%lld of %d detections of image %d left out: their classes are not in the data set",
            (long long)unknown, n, image);
    return GFL_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct gfli_eval_reader {
    gfl_evaluator *evaluator;
    gfli_json *json;
    int last_image, last_class; /* where the search would most likely end */
    gfl_eval_notes notes;
    char first_image[GFLI_ID_TEXT]; /* the first unknown one */
} gfli_eval_reader;

/* A number or a text as an id; what it names is found in the entries, or -1.  Results come image by
 * image, so the last answer is tried first. */
static int gfli_eval_read_id(gfli_json *j, const char *key, const gfli_id_entry *entries, int n,
                             int *last, char *text) {
    gfli_json_kind kind = gfli_json_next(j);
    gfl_id id = {0, NULL};
    if (kind == GFLI_JSON_STRING) {
        id.text = gfli_json_string(j, NULL);
    } else if (kind != GFLI_JSON_NUMBER || !gfli_json_integer(j, &id.number)) {
        gfli_json_error(j, GFL_E_FORMAT, "%s is neither a whole number nor a text", key);
        return -1;
    }
    if (*last >= 0 && gfli_id_compare(entries[*last].id, id) == 0) return entries[*last].index;
    int lo = 0, hi = n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (gfli_id_compare(entries[mid].id, id) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < n && gfli_id_compare(entries[lo].id, id) == 0) {
        *last = lo;
        return entries[lo].index;
    }
    if (text && !text[0]) gfli_id_text(id, text);
    return -1;
}

static double gfli_eval_read_number(gfli_json *j, gfli_json_kind kind, const char *key) {
    if (kind != GFLI_JSON_NUMBER) {
        gfli_json_error(j, GFL_E_FORMAT, "%s is not a number", key);
        return 0;
    }
    double value = gfli_json_number(j);
    if (!(fabs(value) <= DBL_MAX))
        gfli_json_error(j, GFL_E_FORMAT, "%s is too large for a number", key);
    return value;
}

static void gfli_eval_read_bbox(gfli_json *j, gfli_eval_box *out) {
    double v[4];
    int n = 0;
    gfli_json_kind kind = gfli_json_next(j);
    bool array = kind == GFLI_JSON_ARRAY;
    while (array && (kind = gfli_json_next(j)) != GFLI_JSON_END && n < 4)
        v[n++] = gfli_eval_read_number(j, kind, "bbox");
    if (!array || n != 4 || kind != GFLI_JSON_END) {
        gfli_json_error(j, GFL_E_FORMAT, "bbox is not an array of four numbers, x, y, w, h");
        return;
    }
    out->x = v[0];
    out->y = v[1];
    out->w = v[2];
    out->h = v[3];
}

/* One object of the list, after its brace. */
static gfl_status gfli_eval_read_result(gfli_eval_reader *r) {
    static const char *const names[4] = {"image_id", "category_id", "bbox", "score"};
    gfl_evaluator *e = r->evaluator;
    gfli_json *j = r->json;
    gfli_eval_box box;
    memset(&box, 0, sizeof box);
    unsigned seen = 0;
    char unknown[GFLI_ID_TEXT] = "";
    for (const char *key; (key = gfli_json_key(j)) != NULL;) {
        int which = 0;
        while (which < 4 && strcmp(key, names[which]) != 0) which++;
        seen |= 1u << which;
        if (which == 0)
            box.image = gfli_eval_read_id(j, "image_id", e->image_ids, e->dataset->n_images,
                                          &r->last_image, unknown);
        else if (which == 1)
            box.label = gfli_eval_read_id(j, "category_id", e->class_ids, e->dataset->n_classes,
                                          &r->last_class, NULL);
        else if (which == 2)
            gfli_eval_read_bbox(j, &box);
        else if (which == 3)
            box.score = gfli_eval_read_number(j, gfli_json_next(j), "score");
        else
            gfli_json_skip(j);
    }
    GFLI_TRY(gfli_json_status(j));
    for (int i = 0; i < 4; i++)
        if (!(seen >> i & 1))
            return gfli_json_error(j, GFL_E_FORMAT, "a result without %s", names[i]);
    r->notes.n_results++;
    if (box.image < 0) {
        if (e->compatible)
            return gfli_json_error(
                j, GFL_E_DATA, "the data set has no image %s; all results are refused", unknown);
        if (r->notes.n_unknown_images++ == 0) memcpy(r->first_image, unknown, sizeof unknown);
        return GFL_OK;
    }
    if (box.label < 0) {
        r->notes.n_unknown_classes++;
        return GFL_OK;
    }
    return gfli_eval_push(e, &box);
}

static gfl_status gfli_eval_read_list(gfli_eval_reader *r) {
    gfli_json *j = r->json;
    gfli_json_kind kind = gfli_json_next(j);
    GFLI_TRY(gfli_json_status(j));
    if (kind != GFLI_JSON_ARRAY)
        return gfli_json_error(j, GFL_E_FORMAT, "a file of results is one array of objects");
    while ((kind = gfli_json_next(j)) != GFLI_JSON_END) {
        if (kind != GFLI_JSON_OBJECT)
            return gfli_json_error(j, GFL_E_FORMAT, "a result is not an object");
        GFLI_TRY(gfli_eval_read_result(r));
    }
    gfli_json_next(j); /* nothing may follow */
    return gfli_json_status(j);
}

gfl_status gfl_evaluator_load(gfl_evaluator *evaluator, const char *path) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, path);
    gfl_evaluator *e = evaluator;
    const size_t before = e->n_boxes;
    gfli_eval_reader r;
    memset(&r, 0, sizeof r);
    r.evaluator = e;
    r.last_image = r.last_class = -1;
    e->done = false;
    GFLI_TRY(gfli_json_open(e->context, path, &r.json));
    gfl_status status = gfli_eval_read_list(&r);
    gfli_json_close(r.json);
    if (status != GFL_OK) {
        e->n_boxes = before;
        return status;
    }
    e->notes.n_results += r.notes.n_results;
    e->notes.n_unknown_images += r.notes.n_unknown_images;
    e->notes.n_unknown_classes += r.notes.n_unknown_classes;
    if (r.notes.n_unknown_images)
        gfli_log(e->context, GFL_LOG_WARNING,
                 "%s: %lld of %lld results left out: the data set has no image %s", path,
                 (long long)r.notes.n_unknown_images, (long long)r.notes.n_results, r.first_image);
    if (r.notes.n_unknown_classes)
        gfli_log(e->context, GFL_LOG_WARNING,
                 "%s: %lld of %lld results left out: their classes are not in the data set", path,
                 (long long)r.notes.n_unknown_classes, (long long)r.notes.n_results);
    return GFL_OK;
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
static gfl_status gfli_eval_write_all(const gfl_evaluator *e, gfli_file *file,
                                      gfli_eval_item *items, gfli_eval_item *scratch) {
    for (size_t i = 0; i < e->n_boxes; i++) {
        items[i].key = gfli_eval_score_key(e->boxes[i].score);
        items[i].index = (uint32_t)i;
    }
    gfli_eval_sort(items, scratch, e->n_boxes);
    for (size_t i = 0; i < e->n_boxes; i++) items[i].key = (uint64_t)e->boxes[items[i].index].image;
    gfli_eval_sort(items, scratch, e->n_boxes);
    gfl_json_writer j = gfli_json_to_file(file);
    gfl_json_array(&j, NULL);
    for (size_t i = 0; i < e->n_boxes && j.status == GFL_OK; i++) {
        gfl_json_line(&j);
        gfli_eval_write_box(e, &j, &e->boxes[items[i].index]);
    }
    gfl_json_line(&j);
    gfl_json_end(&j);
    gfl_json_line(&j);
    return j.status;
}

gfl_status gfl_evaluator_save(const gfl_evaluator *evaluator, const char *path) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, path);
    const gfl_evaluator *e = evaluator;
    gfli_file file;
    gfli_eval_item *items = NULL, *scratch = NULL;
    gfl_status status = gfli_alloc(e->context, e->n_boxes, sizeof *items, "results", &items);
    if (status == GFL_OK)
        status = gfli_alloc(e->context, e->n_boxes, sizeof *scratch, "results", &scratch);
    if (status == GFL_OK) status = gfli_file_create(e->context, path, &file);
    if (status == GFL_OK) {
        status = gfli_eval_write_all(e, &file, items, scratch);
        if (status == GFL_OK)
            status = gfli_file_commit(&file);
        else
            gfli_file_abandon(&file);
    }
    gfli_free(e->context, items);
    gfli_free(e->context, scratch);
    return status;
}
