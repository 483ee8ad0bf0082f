/* coco.c - COCO annotations by a streaming reader */
#pragma once

/* ---- texts: many small strings that live as long as the data set ----------------------------- */

struct gfli_text_block {
    gfli_text_block *next;
    size_t used, size;
    char *bytes;
};

static gfl_status gfli_dataset_text(gfl_dataset *set, const char *text, size_t length,
                                    const char **out) {
    gfli_text_block *block = set->texts;
    *out = NULL;
    if (!block || block->size - block->used <= length) {
        size_t size = length < 32768 ? 65536 : length + 1;
        GFLI_TRY(gfli_alloc(set->context, 1, sizeof *block, "names", &block));
        gfl_status status = gfli_alloc(set->context, size, 1, "names", &block->bytes);
        if (status != GFL_OK) {
            gfli_free(set->context, block);
            return status;
        }
        block->used = 0;
        block->size = size;
        block->next = set->texts;
        set->texts = block;
    }
    char *copy = block->bytes + block->used;
    memcpy(copy, text, length);
    copy[length] = 0;
    block->used += length + 1;
    *out = copy;
    return GFL_OK;
}

void gfl_dataset_destroy(gfl_dataset *dataset) {
    if (!dataset) return;
    gfl_context *context = dataset->context;
    while (dataset->texts) {
        gfli_text_block *block = dataset->texts;
        dataset->texts = block->next;
        gfli_free(context, block->bytes);
        gfli_free(context, block);
    }
    gfli_free(context, dataset->name);
    gfli_free(context, dataset->image_dir);
    gfli_free(context, dataset->images);
    gfli_free(context, dataset->annotations);
    gfli_free(context, dataset->classes);
    gfli_free(context, dataset->class_ids);
    gfli_free(context, dataset);
}

/* ---- ids ------------------------------------------------------------------------------------- */

int gfli_id_compare(gfl_id a, gfl_id b) {
    if (!a.text != !b.text) return a.text ? 1 : -1;
    if (a.text) return strcmp(a.text, b.text);
    return a.number < b.number ? -1 : a.number > b.number;
}

const char *gfli_id_text(gfl_id id, char out[GFLI_ID_TEXT]) {
    if (id.text)
        snprintf(out, GFLI_ID_TEXT, "\"%.80s\"", id.text);
    else
        snprintf(out, GFLI_ID_TEXT, "%lld", (long long)id.number);
    return out;
}

static void gfli_id_merge(const gfli_id_entry *a, int n_a, const gfli_id_entry *b, int n_b,
                          gfli_id_entry *out) {
    while (n_a > 0 && n_b > 0) {
        bool second = gfli_id_compare(b->id, a->id) < 0;
        *out++ = second ? *b++ : *a++;
        n_a -= !second;
        n_b -= second;
    }
    for (; n_a > 0; n_a--) *out++ = *a++;
    for (; n_b > 0; n_b--) *out++ = *b++;
}

void gfli_id_sort(gfli_id_entry *entries, int n, gfli_id_entry *scratch) {
    bool sorted = true;
    for (int i = 1; i < n && sorted; i++)
        sorted = gfli_id_compare(entries[i - 1].id, entries[i].id) <= 0;
    if (sorted) return; /* the usual file */
    int half = n / 2;
    gfli_id_sort(entries, half, scratch);
    gfli_id_sort(entries + half, n - half, scratch);
    gfli_id_merge(entries, half, entries + half, n - half, scratch);
    memcpy(entries, scratch, (size_t)n * sizeof *entries);
}

int gfli_id_find(const gfli_id_entry *entries, int n, gfl_id id) {
    int first = 0, last = n;
    while (first < last) {
        int middle = first + (last - first) / 2, order = gfli_id_compare(entries[middle].id, id);
        if (order == 0) return entries[middle].index;
        if (order < 0)
            first = middle + 1;
        else
            last = middle;
    }
    return -1;
}

/* ---- reading: images and annotations as they come, references resolved at the end ------------ */

typedef struct gfli_coco_annotation {
    gfl_annotation a;
    gfl_id image_id, class_id;
    bool has_area, has_crowd;
} gfli_coco_annotation;

typedef struct gfli_coco_class {
    gfl_id id;
    const char *name;
} gfli_coco_class;

typedef struct gfli_coco {
    gfl_context *context;
    gfl_dataset *set;
    gfli_json *json;
    bool skip_strays;
    bool has_images, has_annotations, has_classes; /* sections seen */
    gfli_coco_annotation *annotations;
    gfli_coco_class *classes;
    size_t n_images, n_annotations, n_classes;
    size_t cap_images, cap_annotations, cap_classes;
    gfli_id_entry *image_ids, *class_ids; /* sorted */
} gfli_coco;

/* Sizes and corners beyond this are slips of the pen; it also keeps sums of them exact enough. */
#define GFLI_COCO_HUGE 1e9

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

static gfl_status gfli_coco_text(gfli_coco *c, const char *what, const char **out) {
    size_t length;
    const char *text = gfli_json_string(c->json, &length);
    if (strlen(text) != length) return gfli_coco_refuse(c, "%s contains a 0 character", what);
    return gfli_dataset_text(c->set, text, length, out);
}

/* A whole number, also when written as 3.0 or 3e2. */
static bool gfli_coco_integer(gfli_coco *c, int64_t *out) {
    if (gfli_json_integer(c->json, out)) return true;
    double v = gfli_json_number(c->json);
    if (!(fabs(v) <= 9007199254740992.0) || v != floor(v)) return false;
    *out = (int64_t)v;
    return true;
}

static gfl_status gfli_coco_id(gfli_coco *c, const char *what, gfl_id *out) {
    gfli_json_kind kind = gfli_json_next(c->json);
    out->number = 0;
    out->text = NULL;
    if (kind == GFLI_JSON_STRING) return gfli_coco_text(c, what, &out->text);
    if (kind == GFLI_JSON_NUMBER && gfli_coco_integer(c, &out->number)) return GFL_OK;
    return gfli_coco_refuse(c, "%s must be a whole number of 64 bits or a text", what);
}

/* A side of an image; null counts as not said. */
static gfl_status gfli_coco_side(gfli_coco *c, const char *what, int *out) {
    int64_t value = 0;
    gfli_json_kind kind = gfli_json_next(c->json);
    *out = 0;
    if (kind == GFLI_JSON_NULL) return GFL_OK;
    if (kind != GFLI_JSON_NUMBER || !gfli_coco_integer(c, &value) || value < 0 ||
        (double)value > GFLI_COCO_HUGE)
        return gfli_coco_refuse(c, "the %s of an image must be a whole number of pixels", what);
    *out = (int)value;
    return GFL_OK;
}

static gfl_status gfli_coco_flag(gfli_coco *c, const char *what, bool *has, int *out) {
    gfli_json_kind kind = gfli_json_next(c->json);
    *has = kind != GFLI_JSON_NULL;
    *out = kind == GFLI_JSON_TRUE || (kind == GFLI_JSON_NUMBER && gfli_json_number(c->json) != 0);
    if (kind == GFLI_JSON_NULL || kind == GFLI_JSON_TRUE || kind == GFLI_JSON_FALSE ||
        kind == GFLI_JSON_NUMBER)
        return GFL_OK;
    return gfli_coco_refuse(c, "%s must be 0 or 1", what);
}

static gfl_status gfli_coco_bbox(gfli_coco *c, gfl_annotation *a) {
    double v[4];
    int n = 0;
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind != GFLI_JSON_ARRAY)
        return gfli_coco_refuse(c, "a bbox must be a list [x, y, width, height]");
    for (; (kind = gfli_json_next(c->json)) == GFLI_JSON_NUMBER && n < 4; n++) {
        v[n] = gfli_json_number(c->json);
        if (!(fabs(v[n]) <= GFLI_COCO_HUGE))
            return gfli_coco_refuse(c, "a bbox holds %g, which is no length in pixels", v[n]);
    }
    if (kind != GFLI_JSON_END || n != 4)
        return gfli_coco_refuse(c, "a bbox must be four numbers [x, y, width, height]");
    a->x = v[0];
    a->y = v[1];
    a->w = v[2];
    a->h = v[3];
    return gfli_json_status(c->json);
}

static gfl_status gfli_coco_image(gfli_coco *c) {
    GFLI_TRY(gfli_grow(c->context, &c->set->images, &c->cap_images, c->n_images + 1,
                       sizeof *c->set->images, "images"));
    gfl_image_info *image = &c->set->images[c->n_images];
    const char *key;
    bool has_id = false;
    memset(image, 0, sizeof *image);
    image->file_name = "";
    while ((key = gfli_json_key(c->json)) != NULL) {
        if (strcmp(key, "id") == 0) {
            GFLI_TRY(gfli_coco_id(c, "the id of an image", &image->id));
            has_id = true;
        } else if (strcmp(key, "file_name") == 0) {
            if (gfli_json_next(c->json) != GFLI_JSON_STRING)
                return gfli_coco_refuse(c, "the file_name of an image must be a text");
            GFLI_TRY(gfli_coco_text(c, "a file_name", &image->file_name));
        } else if (strcmp(key, "width") == 0) {
            GFLI_TRY(gfli_coco_side(c, "width", &image->width));
        } else if (strcmp(key, "height") == 0) {
            GFLI_TRY(gfli_coco_side(c, "height", &image->height));
        } else {
            gfli_json_skip(c->json);
        }
    }
    if (!has_id) return gfli_coco_refuse(c, "an image has no id");
    c->n_images++;
    return gfli_json_status(c->json);
}

static gfl_status gfli_coco_area(gfli_coco *c, gfli_coco_annotation *r) {
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind == GFLI_JSON_NULL) return GFL_OK;
    if (kind != GFLI_JSON_NUMBER || !isfinite(gfli_json_number(c->json)))
        return gfli_coco_refuse(c, "the area of an annotation must be a number");
    r->a.area = gfli_json_number(c->json);
    r->has_area = true;
    return GFL_OK;
}

static gfl_status gfli_coco_annotation_read(gfli_coco *c) {
    GFLI_TRY(gfli_grow(c->context, &c->annotations, &c->cap_annotations, c->n_annotations + 1,
                       sizeof *c->annotations, "annotations"));
    gfli_coco_annotation *r = &c->annotations[c->n_annotations];
    const char *key;
    bool id = false, image = false, category = false, bbox = false, ignored;
    memset(r, 0, sizeof *r);
    while ((key = gfli_json_key(c->json)) != NULL) {
        if (strcmp(key, "id") == 0) {
            GFLI_TRY(gfli_coco_id(c, "the id of an annotation", &r->a.id));
            id = true;
        } else if (strcmp(key, "image_id") == 0) {
            GFLI_TRY(gfli_coco_id(c, "the image_id of an annotation", &r->image_id));
            image = true;
        } else if (strcmp(key, "category_id") == 0) {
            GFLI_TRY(gfli_coco_id(c, "the category_id of an annotation", &r->class_id));
            category = true;
        } else if (strcmp(key, "bbox") == 0) {
            GFLI_TRY(gfli_coco_bbox(c, &r->a));
            bbox = true;
        } else if (strcmp(key, "area") == 0) {
            GFLI_TRY(gfli_coco_area(c, r));
        } else if (strcmp(key, "iscrowd") == 0) {
            GFLI_TRY(gfli_coco_flag(c, "iscrowd", &r->has_crowd, &r->a.crowd));
        } else if (strcmp(key, "ignore") == 0) {
            GFLI_TRY(gfli_coco_flag(c, "ignore", &ignored, &r->a.ignore));
        } else {
            gfli_json_skip(c->json);
        }
    }
    char name[GFLI_ID_TEXT];
    if (!id || !image || !category || !bbox)
        return gfli_coco_refuse(c, "annotation %s has no %s", id ? gfli_id_text(r->a.id, name) : "",
                                !id         ? "id"
                                : !image    ? "image_id"
                                : !category ? "category_id"
                                            : "bbox (is this a file of captions or key points?)");
    if (!r->has_area) r->a.area = r->a.w * r->a.h;
    c->n_annotations++;
    return gfli_json_status(c->json);
}

static gfl_status gfli_coco_class_read(gfli_coco *c) {
    GFLI_TRY(gfli_grow(c->context, &c->classes, &c->cap_classes, c->n_classes + 1,
                       sizeof *c->classes, "categories"));
    gfli_coco_class *r = &c->classes[c->n_classes];
    const char *key;
    bool has_id = false;
    memset(r, 0, sizeof *r);
    while ((key = gfli_json_key(c->json)) != NULL) {
        if (strcmp(key, "id") == 0) {
            GFLI_TRY(gfli_coco_id(c, "the id of a category", &r->id));
            has_id = true;
        } else if (strcmp(key, "name") == 0) {
            if (gfli_json_next(c->json) != GFLI_JSON_STRING)
                return gfli_coco_refuse(c, "the name of a category must be a text");
            GFLI_TRY(gfli_coco_text(c, "the name of a category", &r->name));
        } else {
            gfli_json_skip(c->json);
        }
    }
    if (!has_id) return gfli_coco_refuse(c, "a category has no id");
    char id[GFLI_ID_TEXT];
    if (!r->name) {
        gfli_id_text(r->id, id);
        GFLI_TRY(gfli_dataset_text(c->set, id, strlen(id), &r->name));
    }
    c->n_classes++;
    return gfli_json_status(c->json);
}

/* One of the three lists; read reads one of its objects. */
static gfl_status gfli_coco_section(gfli_coco *c, const char *name, bool *seen, const size_t *count,
                                    gfl_status (*read)(gfli_coco *)) {
    gfli_json_kind kind;
    if (*seen) return gfli_coco_refuse(c, "\"%s\" appears twice", name);
    *seen = true;
    if (gfli_json_next(c->json) != GFLI_JSON_ARRAY)
        return gfli_coco_refuse(c, "\"%s\" must be a list", name);
    while ((kind = gfli_json_next(c->json)) == GFLI_JSON_OBJECT) {
        if (*count >= INT_MAX / 2) return gfli_coco_refuse(c, "too many %s", name);
        GFLI_TRY(read(c));
    }
    if (kind != GFLI_JSON_END) return gfli_coco_refuse(c, "\"%s\" must hold objects", name);
    return gfli_json_status(c->json);
}

static gfl_status gfli_coco_read(gfli_coco *c) {
    static const char wanted[] = "a COCO annotation file is an object with the lists \"images\", "
                                 "\"annotations\" and \"categories\"";
    gfli_json_kind kind = gfli_json_next(c->json);
    if (kind == GFLI_JSON_ARRAY)
        return gfli_coco_refuse(c, "this is a list, perhaps of results; %s", wanted);
    if (kind != GFLI_JSON_OBJECT) return gfli_coco_refuse(c, "%s", wanted);
    const char *key;
    while ((key = gfli_json_key(c->json)) != NULL) {
        if (strcmp(key, "images") == 0)
            GFLI_TRY(gfli_coco_section(c, "images", &c->has_images, &c->n_images, gfli_coco_image));
        else if (strcmp(key, "annotations") == 0)
            GFLI_TRY(gfli_coco_section(c, "annotations", &c->has_annotations, &c->n_annotations,
                                       gfli_coco_annotation_read));
        else if (strcmp(key, "categories") == 0)
            GFLI_TRY(gfli_coco_section(c, "categories", &c->has_classes, &c->n_classes,
                                       gfli_coco_class_read));
        else
            gfli_json_skip(c->json);
    }
    if (!c->has_images) return gfli_coco_refuse(c, "there are no \"images\": %s", wanted);
    if (gfli_json_next(c->json) != GFLI_JSON_END)
        return gfli_coco_refuse(c, "something follows the end of the annotations");
    return gfli_json_status(c->json);
}

/* ---- resolving ------------------------------------------------------------------------------- */

/* Sorts entries; the index of a place whose id an earlier place has, or -1. */
static gfl_status gfli_coco_sort(gfli_coco *c, gfli_id_entry *entries, int n, int *duplicate) {
    gfli_id_entry *scratch;
    GFLI_TRY(gfli_alloc(c->context, (size_t)n, sizeof *scratch, "ids", &scratch));
    gfli_id_sort(entries, n, scratch);
    gfli_free(c->context, scratch);
    *duplicate = -1;
    for (int i = 1; i < n && *duplicate < 0; i++)
        if (gfli_id_compare(entries[i - 1].id, entries[i].id) == 0) *duplicate = entries[i].index;
    return GFL_OK;
}

static gfl_status gfli_coco_resolve_images(gfli_coco *c) {
    int n = (int)c->n_images, duplicate;
    char id[GFLI_ID_TEXT];
    GFLI_TRY(gfli_alloc(c->context, c->n_images, sizeof *c->image_ids, "ids", &c->image_ids));
    for (int i = 0; i < n; i++) {
        c->image_ids[i].id = c->set->images[i].id;
        c->image_ids[i].index = i;
    }
    GFLI_TRY(gfli_coco_sort(c, c->image_ids, n, &duplicate));
    if (duplicate >= 0)
        return gfli_error(c->context, GFL_E_DATA, "%s: two images have the id %s", c->set->name,
                          gfli_id_text(c->set->images[duplicate].id, id));
    c->set->n_images = n;
    return GFL_OK;
}

/* Classes by ascending id; class_ids then leads from an id to its label. */
static gfl_status gfli_coco_resolve_classes(gfli_coco *c) {
    gfl_dataset *set = c->set;
    int n = (int)c->n_classes, duplicate;
    char id[GFLI_ID_TEXT];
    if (c->n_classes == 0)
        return gfli_error(c->context, GFL_E_DATA,
                          "%s: there are no \"categories\"; add a list of {\"id\": 1, \"name\": "
                          "\"...\"}, one object a class",
                          set->name);
    if (c->n_classes > GFL_MAX_CLASSES)
        return gfli_error(c->context, GFL_E_DATA, "%s: %zu categories, more than %d", set->name,
                          c->n_classes, GFL_MAX_CLASSES);
    GFLI_TRY(gfli_alloc(c->context, c->n_classes, sizeof *c->class_ids, "ids", &c->class_ids));
    GFLI_TRY(gfli_alloc(c->context, c->n_classes, sizeof *set->classes, "classes", &set->classes));
    GFLI_TRY(
        gfli_alloc(c->context, c->n_classes, sizeof *set->class_ids, "classes", &set->class_ids));
    for (int i = 0; i < n; i++) {
        c->class_ids[i].id = c->classes[i].id;
        c->class_ids[i].index = i;
    }
    GFLI_TRY(gfli_coco_sort(c, c->class_ids, n, &duplicate));
    if (duplicate >= 0)
        return gfli_error(c->context, GFL_E_DATA, "%s: two categories have the id %s", set->name,
                          gfli_id_text(c->classes[duplicate].id, id));
    /* With texts among the ids numbers could be taken twice, so then none is kept. */
    bool texts = c->class_ids[n - 1].id.text != NULL;
    for (int i = 0; i < n; i++) {
        set->classes[i].name = c->classes[c->class_ids[i].index].name;
        set->classes[i].id = texts ? i + 1 : c->class_ids[i].id.number;
        set->class_ids[i] = c->class_ids[i].id;
        c->class_ids[i].index = i;
    }
    set->n_classes = n;
    return GFL_OK;
}

/* The image and label of every annotation; those of unlisted ones are errors, or marked by -1. */
static gfl_status gfli_coco_resolve_references(gfli_coco *c) {
    char name[GFLI_ID_TEXT], id[GFLI_ID_TEXT];
    for (size_t i = 0; i < c->n_annotations; i++) {
        gfli_coco_annotation *r = &c->annotations[i];
        r->a.image = gfli_id_find(c->image_ids, c->set->n_images, r->image_id);
        r->a.label = gfli_id_find(c->class_ids, c->set->n_classes, r->class_id);
        if (r->a.image >= 0 && r->a.label >= 0) {
            c->set->images[r->a.image].n_annotations++;
            c->set->n_annotations++;
            continue;
        }
        bool image = r->a.image < 0;
        if (!c->skip_strays)
            return gfli_error(
                c->context, GFL_E_DATA, "%s: annotation %s has %s %s, which is not among the %s",
                c->set->name, gfli_id_text(r->a.id, name), image ? "image_id" : "category_id",
                gfli_id_text(image ? r->image_id : r->class_id, id),
                image ? "images" : "categories");
        c->set->summary.n_strays++;
        r->a.image = -1;
    }
    return GFL_OK;
}

/* Annotations together by image, in file order: a counting sort. */
static gfl_status gfli_coco_gather(gfli_coco *c) {
    gfl_dataset *set = c->set;
    GFLI_TRY(gfli_alloc(c->context, (size_t)set->n_annotations, sizeof *set->annotations,
                        "annotations", &set->annotations));
    gfl_annotation *place = set->annotations;
    for (int i = 0; i < set->n_images; i++) {
        gfl_image_info *image = &set->images[i];
        image->annotations = place;
        place += image->n_annotations;
        image->n_annotations = 0;
    }
    for (size_t i = 0; i < c->n_annotations; i++) {
        const gfli_coco_annotation *r = &c->annotations[i];
        if (r->a.image < 0) continue;
        gfl_image_info *image = &set->images[r->a.image];
        set->annotations[(image->annotations - set->annotations) + image->n_annotations++] = r->a;
        set->summary.n_missing_area += !r->has_area;
        set->summary.n_missing_iscrowd += !r->has_crowd;
    }
    return GFL_OK;
}

static gfl_status gfli_coco_count_ids(gfli_coco *c) {
    gfl_dataset *set = c->set;
    gfli_id_entry *ids;
    int n = set->n_annotations, first;
    GFLI_TRY(gfli_alloc(c->context, (size_t)n, sizeof *ids, "ids", &ids));
    for (int i = 0; i < n; i++) {
        ids[i].id = set->annotations[i].id;
        ids[i].index = i;
        set->summary.n_zero_ids += !ids[i].id.text && ids[i].id.number == 0;
    }
    gfl_status status = gfli_coco_sort(c, ids, n, &first);
    for (int i = 1; i < n && status == GFL_OK; i++)
        set->summary.n_duplicate_ids += gfli_id_compare(ids[i - 1].id, ids[i].id) == 0;
    gfli_free(c->context, ids);
    return status;
}

static void gfli_coco_summarise(gfl_dataset *set) {
    gfl_dataset_summary *s = &set->summary;
    s->n_images = set->n_images;
    s->n_classes = set->n_classes;
    s->n_annotations = set->n_annotations;
    for (int i = 0; i < set->n_images; i++) s->n_empty_images += set->images[i].n_annotations == 0;
    for (int i = 0; i < set->n_annotations; i++) {
        const gfl_annotation *a = &set->annotations[i];
        const gfl_image_info *image = &set->images[a->image];
        s->n_crowd += a->crowd;
        if (gfli_annotation_degenerate(a))
            s->n_degenerate++;
        else if (gfli_annotation_outside(image, a))
            s->n_outside++;
        else if (image->width > 0 && image->height > 0)
            s->n_partly_outside += a->x < -1 || a->y < -1 || a->x + a->w > image->width + 1 ||
                                   a->y + a->h > image->height + 1;
    }
}

static gfl_status gfli_coco_build(gfli_coco *c) {
    GFLI_TRY(gfli_coco_read(c));
    GFLI_TRY(gfli_coco_resolve_images(c));
    GFLI_TRY(gfli_coco_resolve_classes(c));
    GFLI_TRY(gfli_coco_resolve_references(c));
    GFLI_TRY(gfli_coco_gather(c));
    GFLI_TRY(gfli_coco_count_ids(c));
    gfli_coco_summarise(c->set);
    return GFL_OK;
}

/* ---- loading --------------------------------------------------------------------------------- */

static gfl_status gfli_dataset_create(gfl_context *context, const char *path, bool file,
                                      const gfl_dataset_opts *opts, gfl_dataset **out) {
    gfl_dataset *set;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *set, "a data set", &set));
    set->context = context;
    gfl_status status = gfli_strdup(context, path, &set->name);
    if (status == GFL_OK)
        status = gfli_strdup(context,
                             opts && opts->image_dir ? opts->image_dir
                             : file                  ? path
                                                     : "",
                             &set->image_dir);
    if (status != GFL_OK) {
        gfl_dataset_destroy(set);
        return status;
    }
    if (!(opts && opts->image_dir)) {
        char *slash = strrchr(set->image_dir, '/');
        if (slash)
            slash[1] = 0;
        else
            set->image_dir[0] = 0;
    }
    if (opts) {
        set->trust_boxes = opts->trust_boxes != 0;
        set->read_image = opts->read_image;
        set->user = opts->user;
    }
    *out = set;
    return GFL_OK;
}

/* Takes the set and the reader, which may be NULL when opening failed with status. */
static gfl_status gfli_coco_load(gfl_context *context, gfl_dataset *set, gfli_json *json,
                                 gfl_status status, const gfl_dataset_opts *opts,
                                 gfl_dataset **out) {
    gfli_coco c;
    memset(&c, 0, sizeof c);
    c.context = context;
    c.set = set;
    c.json = json;
    c.skip_strays = opts && opts->skip_strays;
    if (status == GFL_OK) {
        status = gfli_coco_build(&c);
        gfli_json_close(json);
    }
    gfli_free(context, c.annotations);
    gfli_free(context, c.classes);
    gfli_free(context, c.image_ids);
    gfli_free(context, c.class_ids);
    if (status == GFL_OK)
        *out = set;
    else
        gfl_dataset_destroy(set);
    return status;
}

gfl_status gfl_dataset_load_coco(gfl_context *context, const char *json_path,
                                 const gfl_dataset_opts *opts, gfl_dataset **out) {
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, json_path);
    GFLI_NOT_NULL(context, out);
    gfl_dataset *set;
    gfli_json *json = NULL;
    GFLI_TRY(gfli_dataset_create(context, json_path, true, opts, &set));
    gfl_status status = gfli_json_open(context, json_path, &json);
    return gfli_coco_load(context, set, json, status, opts, out);
}

gfl_status gfl_dataset_load_coco_memory(gfl_context *context, const char *json, size_t size,
                                        const gfl_dataset_opts *opts, gfl_dataset **out) {
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, json);
    GFLI_NOT_NULL(context, out);
    gfl_dataset *set;
    gfli_json *reader = NULL;
    GFLI_TRY(gfli_dataset_create(context, "annotations in memory", false, opts, &set));
    gfl_status status = gfli_json_open_memory(context, json, size, set->name, &reader);
    return gfli_coco_load(context, set, reader, status, opts, out);
}
