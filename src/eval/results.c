/* results.c - COCO result JSON in and out */
#pragma once

/* ---- what a file names ----------------------------------------------------------------------- */

static const char *gfli_eval_base_name(const char *path) {
    const char *base = path;
    for (const char *p = path; *p; p++)
        if (*p == '/' || *p == '\\') base = p + 1;
    return base;
}

/* File names and what follows the last slash of each, in order; made when first wanted. */
static gfl_status gfli_eval_take_names(gfl_evaluator *e) {
    const gfl_dataset *d = e->dataset;
    const size_t n = (size_t)d->n_images;
    if (e->bases) return GFL_OK;
    gfli_free(e->context, e->names);
    e->n_names = 0;
    GFLI_TRY(gfli_alloc(e->context, n, sizeof *e->names, "file names", &e->names));
    GFLI_TRY(gfli_alloc(e->context, n, sizeof *e->bases, "file names", &e->bases));
    for (int i = 0; i < d->n_images; i++) {
        const char *name = d->images[i].file_name;
        if (!name[0]) continue;
        const gfli_id_entry whole = {{0, name}, i}, base = {{0, gfli_eval_base_name(name)}, i};
        e->names[e->n_names] = whole;
        e->bases[e->n_names++] = base;
    }
    gfl_status status = gfli_id_sort(e->context, e->names, e->n_names);
    if (status == GFL_OK) status = gfli_id_sort(e->context, e->bases, e->n_names);
    if (status == GFL_OK) return GFL_OK;
    gfli_free(e->context, e->bases);
    e->bases = NULL;
    return status;
}

/* The one image that a text stands for among sorted ones, or -1. */
static int gfli_eval_unique(const gfli_id_entry *entries, int n, const char *text) {
    const gfl_id id = {0, text};
    int place = gfli_id_place(entries, n, id);
    if (place < 0) return -1;
    bool twice = place + 1 < n && gfli_id_compare(entries[place + 1].id, id) == 0;
    return twice ? -1 : entries[place].index;
}

/* What an id names among the entries, or -1.  Results come image by image, so the last answer is
 * tried first. */
static int gfli_eval_find(const gfl_evaluator *e, const gfli_id_entry *entries, int n, gfl_id id,
                          int *last) {
    bool other;
    if (*last >= 0 && gfli_id_compare(entries[*last].id, id) == 0) return entries[*last].index;
    int place = e->compatible ? gfli_id_place(entries, n, id)
                              : gfli_id_place_of_either(entries, n, id, &other);
    if (place < 0) return -1;
    *last = place;
    return entries[place].index;
}

/* An image by its id, or by the name of its file as gfl detect and others write it: the whole name,
 * or what follows its last slash where only one image has that. */
static gfl_status gfli_eval_find_image(gfl_evaluator *e, gfl_id id, int *last, int *image,
                                       bool *named) {
    *named = false;
    *image = gfli_eval_find(e, e->image_ids, e->dataset->n_images, id, last);
    if (*image >= 0 || !id.text || e->compatible) return GFL_OK;
    GFLI_TRY(gfli_eval_take_names(e));
    *image = gfli_eval_unique(e->names, e->n_names, id.text);
    if (*image < 0) *image = gfli_eval_unique(e->bases, e->n_names, gfli_eval_base_name(id.text));
    *named = *image >= 0;
    return GFL_OK;
}

/* A class by its id in the file, or by gfl_class's where those of the file are words: a model that
 * was trained on them knows the latter. */
static int gfli_eval_find_class(const gfl_evaluator *e, gfl_id id, int *last) {
    const int n = e->dataset->n_classes;
    int label = gfli_eval_find(e, e->class_ids, n, id, last);
    if (label >= 0 || id.text || !e->labelled || e->compatible) return label;
    return id.number >= 1 && id.number <= n ? (int)id.number - 1 : -1;
}

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct gfli_eval_reader {
    gfl_evaluator *evaluator;
    gfli_json *json;
    int last_image, last_class; /* where the search would most likely end */
    gfl_eval_notes notes;
    char first_image[GFLI_ID_TEXT], first_class[GFLI_ID_TEXT]; /* the first unknown ones */
} gfli_eval_reader;

/* What one result says.  The text of an id is gone with the next key, so it is looked up at once,
 * and kept as a message shows it where it is unknown. */
typedef struct gfli_eval_entry {
    gfli_eval_box box;
    unsigned seen;
    bool named;
    char image[GFLI_ID_TEXT], label[GFLI_ID_TEXT];
} gfli_eval_entry;

static void gfli_eval_unwanted(gfli_json *j, gfli_json_kind kind, const char *what,
                               const char *wanted) {
    char found[GFLI_QUOTED];
    gfli_json_error(j, GFL_E_FORMAT, "%s %s: %s is wanted", what, gfli_json_found(j, kind, found),
                    wanted);
}

static bool gfli_eval_read_id(gfli_json *j, const char *what, gfl_id *out) {
    gfli_json_kind kind = gfli_json_next(j);
    out->number = 0;
    out->text = kind == GFLI_JSON_STRING ? gfli_json_string(j, NULL) : NULL;
    bool good = kind == GFLI_JSON_STRING ||
                (kind == GFLI_JSON_NUMBER && gfli_json_as_integer(j, &out->number));
    if (!good) gfli_eval_unwanted(j, kind, what, "a whole number or a text");
    return good && gfli_json_status(j) == GFL_OK;
}

static bool gfli_eval_read_number(gfli_json *j, gfli_json_kind kind, const char *what,
                                  double *out) {
    *out = kind == GFLI_JSON_NUMBER ? gfli_json_as_number(j) : 0;
    bool good = kind == GFLI_JSON_NUMBER && gfli_is_finite(*out);
    if (!good) gfli_eval_unwanted(j, kind, what, "a finite number");
    return good;
}

static void gfli_eval_read_bbox(gfli_json *j, gfli_eval_box *out) {
    static const char wanted[] = "a list of four numbers, [x, y, width, height],";
    double v[4] = {0, 0, 0, 0};
    int n = 0;
    gfli_json_kind kind = gfli_json_next(j);
    bool list = kind == GFLI_JSON_ARRAY;
    while (list && (kind = gfli_json_next(j)) == GFLI_JSON_NUMBER && n < 4)
        if (!gfli_eval_read_number(j, kind, "bbox holds", &v[n++])) return;
    if (!list || n != 4 || kind != GFLI_JSON_END)
        gfli_eval_unwanted(j, kind,
                           !list                   ? "bbox is"
                           : kind == GFLI_JSON_END ? "bbox holds too few numbers before"
                           : n == 4                ? "bbox goes on with"
                                                   : "bbox holds",
                           wanted);
    out->x = v[0];
    out->y = v[1];
    out->w = v[2];
    out->h = v[3];
}

static gfl_status gfli_eval_read_field(gfli_eval_reader *r, gfli_eval_entry *line, int which) {
    gfl_evaluator *e = r->evaluator;
    gfl_id id;
    switch (which) {
    case 0:
        if (!gfli_eval_read_id(r->json, "image_id is", &id)) break;
        GFLI_TRY(gfli_eval_find_image(e, id, &r->last_image, &line->box.image, &line->named));
        if (line->box.image < 0) gfli_id_text(id, line->image);
        break;
    case 1:
        if (!gfli_eval_read_id(r->json, "category_id is", &id)) break;
        line->box.label = gfli_eval_find_class(e, id, &r->last_class);
        if (line->box.label < 0) gfli_id_text(id, line->label);
        break;
    case 2: gfli_eval_read_bbox(r->json, &line->box); break;
    case 3:
        gfli_eval_read_number(r->json, gfli_json_next(r->json), "score is", &line->box.score);
        break;
    default: gfli_json_skip(r->json);
    }
    return gfli_json_status(r->json);
}

static gfl_status gfli_eval_keep(gfli_eval_reader *r, const gfli_eval_entry *line) {
    gfl_evaluator *e = r->evaluator;
    r->notes.n_results++;
    if (line->box.image < 0) {
        if (e->compatible)
            return gfli_json_error(r->json, GFL_E_DATA,
                                   "the data set has no image %s; all results are refused",
                                   line->image);
        if (r->notes.n_unknown_images++ == 0)
            memcpy(r->first_image, line->image, sizeof line->image);
        return GFL_OK;
    }
    if (line->box.label < 0) {
        if (r->notes.n_unknown_classes++ == 0)
            memcpy(r->first_class, line->label, sizeof line->label);
        return GFL_OK;
    }
    r->notes.n_named_images += line->named;
    return gfli_eval_push(e, &line->box);
}

/* One object of the list, after its brace. */
static gfl_status gfli_eval_read_result(gfli_eval_reader *r) {
    static const char *const names[4] = {"image_id", "category_id", "bbox", "score"};
    gfli_eval_entry line;
    memset(&line, 0, sizeof line);
    for (const char *key; (key = gfli_json_key(r->json)) != NULL;) {
        int which = 0;
        while (which < 4 && strcmp(key, names[which]) != 0) which++;
        line.seen |= 1u << which;
        GFLI_TRY(gfli_eval_read_field(r, &line, which));
    }
    GFLI_TRY(gfli_json_status(r->json));
    for (int i = 0; i < 4; i++)
        if (!(line.seen >> i & 1))
            return gfli_json_error(r->json, GFL_E_FORMAT, "the result that ends here has no %s",
                                   names[i]);
    return gfli_eval_keep(r, &line);
}

static gfl_status gfli_eval_read_list(gfli_eval_reader *r) {
    gfli_json *j = r->json;
    gfli_json_kind kind = gfli_json_next(j);
    GFLI_TRY(gfli_json_status(j));
    if (kind != GFLI_JSON_ARRAY)
        return gfli_json_error(j, GFL_E_FORMAT, "a file of results must be one array of objects");
    while ((kind = gfli_json_next(j)) != GFLI_JSON_END) {
        if (kind != GFLI_JSON_OBJECT)
            return gfli_json_error(j, GFL_E_FORMAT, "a result is not an object");
        GFLI_TRY(gfli_eval_read_result(r));
    }
    gfli_json_next(j); /* nothing may follow */
    return gfli_json_status(j);
}

/* ---- what does not fit ----------------------------------------------------------------------- */

/* Some results of unlisted images or classes are left out with a word; all of them cannot be what
 * was meant, and their AP of 0 would be the answer to another question. */
static gfl_status gfli_eval_none_fits(const gfli_eval_reader *r, const char *name) {
    const gfl_dataset *d = r->evaluator->dataset;
    const gfl_eval_notes *notes = &r->notes;
    char images[3 * GFLI_QUOTED + 160] = "", classes[3 * GFLI_QUOTED + 160] = "";
    char id[GFLI_ID_TEXT], text[GFLI_QUOTED];
    if (notes->n_unknown_images && d->n_images)
        snprintf(images, sizeof images,
                 "; image_id %s is not among its ids, which begin with %s, nor among its file "
                 "names, which begin with %s",
                 r->first_image, gfli_id_text(d->images[0].id, id),
                 gfli_quote(d->images[0].file_name, text, sizeof text));
    else if (notes->n_unknown_images)
        snprintf(images, sizeof images, "; it lists no images");
    if (notes->n_unknown_classes)
        snprintf(classes, sizeof classes,
                 "; category_id %s is not among its ids, which begin with %s (%s)", r->first_class,
                 gfli_id_text(d->class_ids[0], id),
                 gfli_quote(d->classes[0].name, text, sizeof text));
    return gfli_error(r->evaluator->context, GFL_E_DATA,
                      "%.200s: not one of the %lld results fits the data set %.200s%s%s", name,
                      (long long)notes->n_results, d->name, images, classes);
}

static void gfli_eval_log_unknown(const gfli_eval_reader *r, const char *name) {
    const gfl_eval_notes *notes = &r->notes;
    if (notes->n_unknown_images)
        gfli_log(r->evaluator->context, GFL_LOG_WARNING,
                 "%s: %lld of %lld results are left out: the data set has no image %s", name,
                 (long long)notes->n_unknown_images, (long long)notes->n_results, r->first_image);
    if (notes->n_unknown_classes)
        gfli_log(r->evaluator->context, GFL_LOG_WARNING,
                 "%s: %lld of %lld results are left out: the data set has no category %s", name,
                 (long long)notes->n_unknown_classes, (long long)notes->n_results, r->first_class);
}

/* Takes the reader; after an error none of its results stay. */
static gfl_status gfli_eval_load(gfl_evaluator *e, gfli_json *json, const char *name) {
    const size_t before = e->n_boxes;
    gfli_eval_reader r;
    memset(&r, 0, sizeof r);
    r.evaluator = e;
    r.json = json;
    r.last_image = r.last_class = -1;
    e->done = false;
    gfl_status status = gfli_eval_read_list(&r);
    gfli_json_close(json);
    if (status == GFL_OK && r.notes.n_results > 0 && e->n_boxes == before && !e->compatible)
        status = gfli_eval_none_fits(&r, name);
    if (status != GFL_OK) {
        e->n_boxes = before;
        return status;
    }
    e->notes.n_results += r.notes.n_results;
    e->notes.n_unknown_images += r.notes.n_unknown_images;
    e->notes.n_unknown_classes += r.notes.n_unknown_classes;
    e->notes.n_named_images += r.notes.n_named_images;
    gfli_eval_log_unknown(&r, name);
    return GFL_OK;
}

gfl_status gfl_evaluator_add_results(gfl_evaluator *evaluator, const char *path) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, path);
    gfli_json *json;
    GFLI_TRY(gfli_json_open(evaluator->context, path, &json));
    return gfli_eval_load(evaluator, json, path);
}

gfl_status gfl_evaluator_add_results_memory(gfl_evaluator *evaluator, const char *json,
                                            size_t size) {
    static const char name[] = "results in memory";
    GFLI_NOT_NULL(NULL, evaluator);
    if (size) GFLI_NOT_NULL(evaluator->context, json);
    gfli_json *reader;
    GFLI_TRY(gfli_json_open_memory(evaluator->context, json ? json : "", size, name, &reader));
    return gfli_eval_load(evaluator, reader, name);
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
static void gfli_eval_sort_boxes(const gfl_evaluator *e, gfli_eval_item *items,
                                 gfli_eval_item *scratch) {
    for (size_t i = 0; i < e->n_boxes; i++) {
        items[i].key = gfli_eval_score_key(e->boxes[i].score);
        items[i].index = (uint32_t)i;
    }
    gfli_eval_sort(items, scratch, e->n_boxes);
    for (size_t i = 0; i < e->n_boxes; i++) items[i].key = (uint64_t)e->boxes[items[i].index].image;
    gfli_eval_sort(items, scratch, e->n_boxes);
}

gfl_status gfl_evaluator_write(const gfl_evaluator *evaluator, gfl_json_writer *writer) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, writer);
    const gfl_evaluator *e = evaluator;
    gfli_eval_item *items;
    GFLI_TRY(gfli_alloc(e->context, 2 * e->n_boxes, sizeof *items, "results", &items));
    gfli_eval_sort_boxes(e, items, items + e->n_boxes);
    gfl_json_array(writer, NULL);
    for (size_t i = 0; i < e->n_boxes && writer->status == GFL_OK; i++) {
        gfl_json_line(writer);
        gfli_eval_write_box(e, writer, &e->boxes[items[i].index]);
    }
    gfl_json_line(writer);
    gfl_json_end(writer);
    gfl_json_line(writer);
    gfli_free(e->context, items);
    GFLI_DEMAND(e->context, writer->status != GFL_E_ARG,
                "gfl_evaluator_write: the writer has no function, or no value may stand there");
    return writer->status;
}

gfl_status gfl_evaluator_save(const gfl_evaluator *evaluator, const char *path) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, path);
    gfli_file file;
    GFLI_TRY(gfli_file_create(evaluator->context, gfli_to_file(path), &file));
    gfl_json_writer writer = gfli_json_to_file(&file);
    const gfl_status status = gfl_evaluator_write(evaluator, &writer);
    if (status == GFL_OK) return gfli_file_commit(&file);
    gfli_file_abandon(&file);
    return status;
}
