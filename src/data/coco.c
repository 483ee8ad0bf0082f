/* coco.c - COCO annotations by a streaming reader */
#pragma once

/* The file is read once, from its beginning to its end, and only what is needed is kept: images,
 * classes, and annotations with their ids as they stand there, since the three lists may come in
 * any order.  When all of it is read, coco_resolve.c connects them.  A mistake makes its object
 * `faulty` and the reading goes on; at the end of the object it is either reported to the caller,
 * or becomes the error of the call. */

/* ---- mistakes -------------------------------------------------------------------------------- */

gfl_status gfli_coco_report(gfli_coco *c, const char *format, ...) {
    char text[sizeof c->context->error];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->set->summary.n_mistakes++;
    if (c->desc.found && c->desc.found(c->desc.found_user, text) == 0) return GFL_OK;
    return gfli_error(c->context, GFL_E_DATA, "%s", text);
}

const char *gfli_coco_name(const char *what, const char *list, bool has_id, gfl_id id, int index,
                           char out[GFLI_ID_TEXT + 32]) {
    char text[GFLI_ID_TEXT];
    if (has_id)
        snprintf(out, GFLI_ID_TEXT + 32, "%s %s", what, gfli_id_text(id, text));
    else
        snprintf(out, GFLI_ID_TEXT + 32, "%s[%d]", list, index);
    return out;
}

/* A mistake of the file's form, after which nothing more can be read. */
static gfl_status gfli_coco_refuse(gfli_coco *c, const char *format, ...) GFLI_PRINTF(2, 3);
static gfl_status gfli_coco_refuse(gfli_coco *c, const char *format, ...) {
    char text[512];
    va_list args;
    /* A syntax error comes first: then the reader answers "end", which is nobody's mistake. */
    GFLI_TRY(gfli_json_status(c->json));
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return gfli_json_error(c->json, GFL_E_DATA, "%s", text);
}

/* The first mistake of the object being read, at this place; told when its ids are known. */
static void gfli_coco_fault_at(gfli_coco *c, long line, long column, const char *text) {
    if (c->faulty || gfli_json_status(c->json) != GFL_OK) return;
    c->faulty = true;
    c->fault_line = line;
    c->fault_column = column;
    snprintf(c->fault, sizeof c->fault, "%s", text);
}

/* The value of `what` that was read last is not what is wanted. */
static void gfli_coco_unwanted(gfli_coco *c, gfli_json_kind kind, const char *what,
                               const char *wanted) {
    char text[sizeof c->fault], found[GFLI_QUOTED];
    long line, column;
    if (c->faulty || gfli_json_status(c->json) != GFL_OK) return;
    gfli_json_place(c->json, &line, &column);
    snprintf(text, sizeof text, "its %s %s: %s is wanted", what,
             gfli_json_found(c->json, kind, found), wanted);
    gfli_coco_fault_at(c, line, column, text);
}

/* Something that the object as a whole lacks. */
static void gfli_coco_lacks(gfli_coco *c, const char *text) {
    gfli_coco_fault_at(c, c->line, c->column, text);
}

static gfl_status gfli_coco_settle(gfli_coco *c, const char *who) {
    return gfli_coco_report(c, "%.400s:%ld:%ld: %s: %s", c->set->name, c->fault_line,
                            c->fault_column, who, c->fault);
}

/* ---- fields ---------------------------------------------------------------------------------- */

/* The place of a key among those that are read, or n. */
static int gfli_coco_key(const char *key, const char *const *names, int n) {
    int i = 0;
    while (i < n && strcmp(key, names[i]) != 0) i++;
    return i;
}

static gfl_status gfli_coco_keep(gfli_coco *c, const char **out) {
    size_t length;
    const char *text = gfli_json_string(c->json, &length);
    return gfli_dataset_text(c->set, text, length, out);
}

static gfl_status gfli_coco_text(gfli_coco *c, const char *what, const char **out) {
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind == GFLI_JSON_STRING) return gfli_coco_keep(c, out);
    gfli_coco_unwanted(c, kind, what, "a text");
    return GFL_OK;
}

/* A whole number, also when written as 3.0 or 3e2. */
static bool gfli_coco_integer(gfli_coco *c, int64_t *out) {
    if (gfli_json_as_integer(c->json, out)) return true;
    double v = gfli_json_as_number(c->json);
    if (!((fabs)(v) <= 9007199254740992.0) || v != (floor)(v)) return false;
    *out = (int64_t)v;
    return true;
}

/* An id; null counts as not there. */
static gfl_status gfli_coco_id(gfli_coco *c, const char *what, bool *has, gfl_id *out) {
    gfli_json_kind kind = gfli_json_next(c->json);
    out->number = 0;
    out->text = NULL;
    *has = kind == GFLI_JSON_STRING ||
           (kind == GFLI_JSON_NUMBER && gfli_coco_integer(c, &out->number));
    if (kind == GFLI_JSON_STRING) return gfli_coco_keep(c, &out->text);
    if (!*has && kind != GFLI_JSON_NULL)
        gfli_coco_unwanted(c, kind, what, "a whole number of 64 bits or a text");
    return GFL_OK;
}

/* A side of an image; null counts as not said. */
static void gfli_coco_side(gfli_coco *c, const char *what, int *out) {
    int64_t value = 0;
    gfli_json_kind kind = gfli_json_next(c->json);
    bool good =
        kind == GFLI_JSON_NULL || (kind == GFLI_JSON_NUMBER && gfli_coco_integer(c, &value) &&
                                   value >= 0 && (double)value <= GFLI_COCO_HUGE);
    *out = good ? (int)value : 0;
    if (!good) gfli_coco_unwanted(c, kind, what, "a whole number of pixels");
}

static void gfli_coco_flag(gfli_coco *c, const char *what, bool *has, int *out) {
    gfli_json_kind kind = gfli_json_next(c->json);
    *has = kind != GFLI_JSON_NULL;
    *out =
        kind == GFLI_JSON_TRUE || (kind == GFLI_JSON_NUMBER && gfli_json_as_number(c->json) != 0);
    if (*has && kind != GFLI_JSON_TRUE && kind != GFLI_JSON_FALSE && kind != GFLI_JSON_NUMBER)
        gfli_coco_unwanted(c, kind, what, "0 or 1");
}

/* ---- images ---------------------------------------------------------------------------------- */

static gfl_status gfli_coco_image_field(gfli_coco *c, gfl_image_info *image, const char *key,
                                        bool *has_id) {
    static const char *const names[] = {"id", "file_name", "width", "height"};
    switch (gfli_coco_key(key, names, GFLI_COUNT(names))) {
    case 0: return gfli_coco_id(c, "id is", has_id, &image->id);
    case 1: return gfli_coco_text(c, "file_name is", &image->file_name);
    case 2: gfli_coco_side(c, "width is", &image->width); break;
    case 3: gfli_coco_side(c, "height is", &image->height); break;
    default: gfli_json_skip(c->json);
    }
    return GFL_OK;
}

/* Of an image with a mistake and an id the rest is kept, so that its annotations find it. */
static gfl_status gfli_coco_image(gfli_coco *c) {
    GFLI_TRY(gfli_grow(c->context, &c->set->images, &c->cap_images, c->n_images + 1,
                       sizeof *c->set->images, "images"));
    gfl_image_info *image = &c->set->images[c->n_images];
    const int depth = gfli_json_depth(c->json);
    const char *key;
    bool has_id = false;
    char who[GFLI_ID_TEXT + 32];
    memset(image, 0, sizeof *image);
    image->file_name = "";
    while ((key = gfli_json_key(c->json)) != NULL) {
        GFLI_TRY(gfli_coco_image_field(c, image, key, &has_id));
        gfli_json_leave_to(c->json, depth);
    }
    if (!has_id) gfli_coco_lacks(c, "it has no id");
    c->n_images += has_id;
    GFLI_TRY(gfli_json_status(c->json));
    if (!c->faulty) return GFL_OK;
    return gfli_coco_settle(c, gfli_coco_name("image", "images", has_id, image->id, c->index, who));
}

/* ---- annotations ----------------------------------------------------------------------------- */

/* What was seen of an annotation. */
typedef struct gfli_coco_seen {
    bool image, category, bbox, null_bbox, polygons, bad_polygons;
    long line, column;      /* of a bbox that is null */
    int n;                  /* coordinates of polygons */
    double low[2], high[2]; /* x, y */
} gfli_coco_seen;

static void gfli_coco_bbox(gfli_coco *c, gfl_annotation *a, gfli_coco_seen *seen) {
    static const char wanted[] = "a list of four numbers, [x, y, width, height] in pixels,";
    double v[4];
    int n = 0;
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind == GFLI_JSON_NULL) {
        seen->null_bbox = true;
        gfli_json_place(c->json, &seen->line, &seen->column);
        return;
    }
    seen->bbox = true;
    bool list = kind == GFLI_JSON_ARRAY, huge = false;
    while (list && !huge && (kind = gfli_json_next(c->json)) == GFLI_JSON_NUMBER && n < 4) {
        v[n] = gfli_json_as_number(c->json);
        huge = !((fabs)(v[n]) <= GFLI_COCO_HUGE);
        n += !huge;
    }
    if (n < 4 || kind != GFLI_JSON_END) {
        static const char *const ends[] = {"bbox is empty but for", "bbox holds one number before",
                                           "bbox holds two numbers before",
                                           "bbox holds three numbers before"};
        gfli_coco_unwanted(c, kind,
                           !list                   ? "bbox is"
                           : kind == GFLI_JSON_END ? ends[n]
                           : n == 4                ? "bbox goes on with"
                                                   : "bbox holds",
                           wanted);
        return;
    }
    a->x = v[0];
    a->y = v[1];
    a->w = v[2];
    a->h = v[3];
}

/* One list of coordinates; false where it is none. */
static bool gfli_coco_polygon(gfli_coco *c, gfli_coco_seen *seen) {
    gfli_json_kind kind;
    int n = 0;
    for (; (kind = gfli_json_next(c->json)) == GFLI_JSON_NUMBER; n ^= 1) {
        double v = gfli_json_as_number(c->json);
        if (!((fabs)(v) <= GFLI_COCO_HUGE)) return false;
        seen->low[n] = seen->n < 2 ? v : (fmin)(seen->low[n], v);
        seen->high[n] = seen->n < 2 ? v : (fmax)(seen->high[n], v);
        if (seen->n < 2) seen->n++;
    }
    return kind == GFLI_JSON_END && n == 0 && seen->n == 2;
}

/* Polygons are read where they are to give boxes; otherwise it matters only that there are some. */
static void gfli_coco_segmentation(gfli_coco *c, gfli_coco_seen *seen) {
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind != GFLI_JSON_ARRAY) return;
    kind = gfli_json_next(c->json);
    seen->polygons = kind == GFLI_JSON_ARRAY;
    if (!c->desc.boxes_from_polygons) return;
    for (; kind == GFLI_JSON_ARRAY && !seen->bad_polygons; kind = gfli_json_next(c->json))
        seen->bad_polygons = !gfli_coco_polygon(c, seen);
    seen->bad_polygons = seen->bad_polygons || kind != GFLI_JSON_END;
}

static void gfli_coco_area(gfli_coco *c, gfli_coco_annotation *r) {
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind == GFLI_JSON_NULL) return;
    if (kind != GFLI_JSON_NUMBER || !gfli_is_finite(gfli_json_as_number(c->json))) {
        gfli_coco_unwanted(c, kind, "area is", "a number");
        return;
    }
    r->a.area = gfli_json_as_number(c->json);
    r->has_area = true;
}

static gfl_status gfli_coco_annotation_field(gfli_coco *c, gfli_coco_annotation *r,
                                             gfli_coco_seen *seen, const char *key) {
    static const char *const names[] = {"id",   "image_id", "category_id", "bbox",
                                        "area", "iscrowd",  "ignore",      "segmentation"};
    bool said;
    switch (gfli_coco_key(key, names, GFLI_COUNT(names))) {
    case 0: return gfli_coco_id(c, "id is", &r->has_id, &r->a.id);
    case 1: return gfli_coco_id(c, "image_id is", &seen->image, &r->image_id);
    case 2: return gfli_coco_id(c, "category_id is", &seen->category, &r->class_id);
    case 3: gfli_coco_bbox(c, &r->a, seen); break;
    case 4: gfli_coco_area(c, r); break;
    case 5: gfli_coco_flag(c, "iscrowd is", &r->has_crowd, &r->a.crowd); break;
    case 6: gfli_coco_flag(c, "ignore is", &said, &r->a.ignore); break;
    case 7: gfli_coco_segmentation(c, seen); break;
    default: gfli_json_skip(c->json);
    }
    return GFL_OK;
}

static void gfli_coco_lacks_bbox(gfli_coco *c, const gfli_coco_seen *seen) {
    const bool asked = c->desc.boxes_from_polygons != 0;
    char text[sizeof c->fault];
    const char *more =
        seen->polygons && !asked
            ? "; it has polygons, of which boxes_from_polygons (--boxes-from-polygons) makes boxes"
        : seen->polygons  ? "; its polygons are not lists of coordinates x1, y1, x2, y2 ..."
        : asked           ? "; it has no polygons either"
        : seen->null_bbox ? ""
                          : " (is this a file of captions or key points?)";
    snprintf(text, sizeof text, "%s%s",
             seen->null_bbox ? "its bbox is null: [x, y, width, height] is wanted"
                             : "it has no bbox",
             more);
    gfli_coco_fault_at(c, seen->null_bbox ? seen->line : c->line,
                       seen->null_bbox ? seen->column : c->column, text);
}

static void gfli_coco_complete(gfli_coco *c, gfli_coco_annotation *r, gfli_coco_seen *seen) {
    if (!seen->bbox && c->desc.boxes_from_polygons && seen->polygons && !seen->bad_polygons) {
        r->a.x = seen->low[0];
        r->a.y = seen->low[1];
        r->a.w = seen->high[0] - seen->low[0];
        r->a.h = seen->high[1] - seen->low[1];
        r->from_polygons = seen->bbox = true;
    }
    if (!seen->image) gfli_coco_lacks(c, "it has no image_id");
    if (!seen->category) gfli_coco_lacks(c, "it has no category_id");
    if (!seen->bbox) gfli_coco_lacks_bbox(c, seen);
    if (!r->has_area) r->a.area = r->a.w * r->a.h;
}

static gfl_status gfli_coco_annotation_read(gfli_coco *c) {
    GFLI_TRY(gfli_grow(c->context, &c->annotations, &c->cap_annotations, c->n_annotations + 1,
                       sizeof *c->annotations, "annotations"));
    gfli_coco_annotation *r = &c->annotations[c->n_annotations];
    const int depth = gfli_json_depth(c->json);
    gfli_coco_seen seen;
    const char *key;
    char name[GFLI_ID_TEXT + 32], image[GFLI_ID_TEXT], who[2 * GFLI_ID_TEXT + 64];
    memset(r, 0, sizeof *r);
    memset(&seen, 0, sizeof seen);
    r->index = c->index;
    r->line = c->line;
    r->column = c->column;
    while ((key = gfli_json_key(c->json)) != NULL) {
        GFLI_TRY(gfli_coco_annotation_field(c, r, &seen, key));
        gfli_json_leave_to(c->json, depth);
    }
    gfli_coco_complete(c, r, &seen);
    c->n_annotations += !c->faulty;
    GFLI_TRY(gfli_json_status(c->json));
    if (!c->faulty) return GFL_OK;
    gfli_coco_name("annotation", "annotations", r->has_id, r->a.id, r->index, name);
    snprintf(who, sizeof who, "%s%s%s", name, seen.image ? " of image " : "",
             seen.image ? gfli_id_text(r->image_id, image) : "");
    return gfli_coco_settle(c, who);
}

/* ---- categories ------------------------------------------------------------------------------ */

static gfl_status gfli_coco_class_field(gfli_coco *c, gfli_coco_class *r, const char *key,
                                        bool *has_id) {
    static const char *const names[] = {"id", "name", "supercategory"};
    switch (gfli_coco_key(key, names, GFLI_COUNT(names))) {
    case 0: return gfli_coco_id(c, "id is", has_id, &r->id);
    case 1: return gfli_coco_text(c, "name is", &r->name);
    case 2:
        if (gfli_json_next(c->json) == GFLI_JSON_STRING)
            return gfli_coco_keep(c, &r->supercategory);
        break;
    default: gfli_json_skip(c->json);
    }
    return GFL_OK;
}

/* A class without a name is called by its id. */
static gfl_status gfli_coco_default_name(gfli_coco *c, gfli_coco_class *r) {
    char text[GFLI_ID_TEXT];
    if (r->name) return GFL_OK;
    r->name = r->id.text;
    if (r->name) return GFL_OK;
    gfli_id_text(r->id, text);
    return gfli_dataset_text(c->set, text, strlen(text), &r->name);
}

static gfl_status gfli_coco_class_read(gfli_coco *c) {
    if (c->n_classes == GFL_MAX_CLASSES)
        return gfli_coco_refuse(c, "more than %d categories", GFL_MAX_CLASSES);
    GFLI_TRY(gfli_grow(c->context, &c->classes, &c->cap_classes, c->n_classes + 1,
                       sizeof *c->classes, "categories"));
    gfli_coco_class *r = &c->classes[c->n_classes];
    const int depth = gfli_json_depth(c->json);
    const char *key;
    bool has_id = false;
    char who[GFLI_ID_TEXT + 32];
    memset(r, 0, sizeof *r);
    while ((key = gfli_json_key(c->json)) != NULL) {
        GFLI_TRY(gfli_coco_class_field(c, r, key, &has_id));
        gfli_json_leave_to(c->json, depth);
    }
    GFLI_TRY(gfli_coco_default_name(c, r));
    if (!has_id) gfli_coco_lacks(c, "it has no id");
    c->n_classes += has_id;
    GFLI_TRY(gfli_json_status(c->json));
    if (!c->faulty) return GFL_OK;
    return gfli_coco_settle(c,
                            gfli_coco_name("category", "categories", has_id, r->id, c->index, who));
}

/* ---- the file -------------------------------------------------------------------------------- */

/* One of the three lists; `one` reads one of its objects. */
static gfl_status gfli_coco_section(gfli_coco *c, const char *name, bool *seen,
                                    gfl_status (*one)(gfli_coco *)) {
    gfli_json_kind kind;
    char text[64], found[GFLI_QUOTED];
    if (*seen) return gfli_coco_refuse(c, "\"%s\" appears twice", name);
    *seen = true;
    if ((kind = gfli_json_next(c->json)) != GFLI_JSON_ARRAY)
        return gfli_coco_refuse(c, "\"%s\" is %s: it must be a list", name,
                                gfli_json_found(c->json, kind, found));
    for (c->index = 0; (kind = gfli_json_next(c->json)) != GFLI_JSON_END; c->index++) {
        if (c->index == INT_MAX / 2) return gfli_coco_refuse(c, "too many %s", name);
        c->faulty = false;
        gfli_json_place(c->json, &c->line, &c->column);
        if (kind == GFLI_JSON_OBJECT) {
            GFLI_TRY(one(c));
            continue;
        }
        snprintf(text, sizeof text, "%s[%d]", name, c->index);
        gfli_coco_unwanted(c, kind, "value is", "an object");
        if (kind == GFLI_JSON_ARRAY) gfli_json_leave_to(c->json, gfli_json_depth(c->json) - 1);
        if (c->faulty) GFLI_TRY(gfli_coco_settle(c, text));
    }
    return gfli_json_status(c->json);
}

static gfl_status gfli_coco_read(gfli_coco *c) {
    static const char wanted[] = "a COCO annotation file is an object with the lists \"images\", "
                                 "\"annotations\" and \"categories\"";
    static const char *const names[] = {"images", "annotations", "categories"};
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind == GFLI_JSON_ARRAY)
        return gfli_coco_refuse(c, "this is a list, perhaps of results; %s", wanted);
    if (kind != GFLI_JSON_OBJECT) return gfli_coco_refuse(c, "%s", wanted);
    for (const char *key; (key = gfli_json_key(c->json)) != NULL;) {
        switch (gfli_coco_key(key, names, GFLI_COUNT(names))) {
        case 0: GFLI_TRY(gfli_coco_section(c, names[0], &c->has_images, gfli_coco_image)); break;
        case 1:
            GFLI_TRY(
                gfli_coco_section(c, names[1], &c->has_annotations, gfli_coco_annotation_read));
            break;
        case 2:
            GFLI_TRY(gfli_coco_section(c, names[2], &c->has_classes, gfli_coco_class_read));
            break;
        default: gfli_json_skip(c->json);
        }
    }
    if (!c->has_images) return gfli_coco_refuse(c, "there are no \"images\": %s", wanted);
    gfli_json_next(c->json); /* nothing may follow */
    return gfli_json_status(c->json);
}

/* ---- loading --------------------------------------------------------------------------------- */

static gfl_status gfli_dataset_new(gfl_context *context, const char *path, bool file,
                                   const gfl_dataset_desc *desc, gfl_dataset **out) {
    gfl_dataset *set;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *set, "a data set", &set));
    set->context = context;
    gfl_status status = gfli_strdup(context, path, &set->name);
    if (status == GFL_OK)
        status = gfli_strdup(context,
                             desc && desc->image_dir ? desc->image_dir
                             : file                  ? path
                                                     : "",
                             &set->image_dir);
    if (status != GFL_OK) {
        gfl_dataset_destroy(set);
        return status;
    }
    if (!(desc && desc->image_dir)) set->image_dir[gfli_os_folder_length(set->image_dir)] = 0;
    if (desc) {
        set->trust_boxes = desc->trust_boxes != 0;
        set->skip_unreadable = desc->skip_unreadable != 0;
        set->read_image = desc->read_image;
        set->user = desc->user;
    }
    *out = set;
    return GFL_OK;
}

gfl_status gfli_coco_begin(gfli_coco *c, gfl_context *context, const char *path, bool file,
                           const gfl_dataset_desc *desc) {
    memset(c, 0, sizeof *c);
    c->context = context;
    if (desc) c->desc = *desc;
    return gfli_dataset_new(context, path, file, desc, &c->set);
}

gfl_status gfli_coco_finish(gfli_coco *c, gfl_status status, gfl_dataset **out) {
    if (status == GFL_OK) status = gfli_coco_resolve(c);
    gfli_free(c->context, c->annotations);
    gfli_free(c->context, c->classes);
    gfli_free(c->context, c->image_ids);
    gfli_free(c->context, c->class_ids);
    gfli_free(c->context, c->parents);
    if (status == GFL_OK)
        *out = c->set;
    else
        gfl_dataset_destroy(c->set);
    return status;
}

/* Reads from c->json, which is not there when opening failed with status. */
static gfl_status gfli_coco_load(gfli_coco *c, gfl_status status, gfl_dataset **out) {
    if (status == GFL_OK) {
        status = gfli_coco_read(c);
        gfli_json_close(c->json);
    }
    return gfli_coco_finish(c, status, out);
}

gfl_status gfl_dataset_load_coco(gfl_context *context, const char *json_path,
                                 const gfl_dataset_desc *desc, gfl_dataset **out) {
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, json_path);
    GFLI_NOT_NULL(context, out);
    gfli_coco c;
    GFLI_TRY(gfli_coco_begin(&c, context, json_path, true, desc));
    return gfli_coco_load(&c, gfli_json_open(context, json_path, &c.json), out);
}

gfl_status gfl_dataset_load_coco_memory(gfl_context *context, const char *json, size_t size,
                                        const gfl_dataset_desc *desc, gfl_dataset **out) {
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, json);
    GFLI_NOT_NULL(context, out);
    gfli_coco c;
    GFLI_TRY(gfli_coco_begin(&c, context, "annotations in memory", false, desc));
    return gfli_coco_load(&c, gfli_json_open_memory(context, json, size, c.set->name, &c.json),
                          out);
}
