/* dataset.c - gfl_dataset: life, access, summary */
#pragma once

/* ---- life ------------------------------------------------------------------------------------ */

/* Many small texts that live as long as the data set. */
struct gfli_text_block {
    gfli_text_block *next;
    size_t used, size;
    char *bytes;
};

gfl_status gfli_dataset_text(gfl_dataset *set, const char *text, size_t length, const char **out) {
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

/* ---- access ---------------------------------------------------------------------------------- */

static bool gfli_is_outside(const gfl_image_info *image, const gfl_annotation *a) {
    if (image->width == 0 || image->height == 0) return false;
    double w = (fmin)(a->x + a->w, image->width) - (fmax)(a->x, 0);
    double h = (fmin)(a->y + a->h, image->height) - (fmax)(a->y, 0);
    return w <= 0 || h <= 0;
}

gfl_annotation_use gfli_annotation_use_of(const gfl_image_info *image, const gfl_annotation *a) {
    return a->w < 1 || a->h < 1        ? GFL_ANNOTATION_SMALL
           : !(a->area > 0)            ? GFL_ANNOTATION_NO_AREA
           : gfli_is_outside(image, a) ? GFL_ANNOTATION_OUTSIDE
           : a->crowd                  ? GFL_ANNOTATION_CROWD
           : a->ignore                 ? GFL_ANNOTATION_IGNORED
                                       : GFL_ANNOTATION_TRAINED;
}

void gfl_dataset_get_summary(const gfl_dataset *dataset, gfl_dataset_summary *out) {
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (dataset) *out = dataset->summary;
}

int gfl_dataset_count_images(const gfl_dataset *dataset) {
    return dataset ? dataset->n_images : 0;
}

int gfl_dataset_count_classes(const gfl_dataset *dataset) {
    return dataset ? dataset->n_classes : 0;
}

const gfl_class *gfl_dataset_get_classes(const gfl_dataset *dataset) {
    return dataset ? dataset->classes : NULL;
}

gfl_status gfl_dataset_get_image(const gfl_dataset *dataset, int image, gfl_image_info *out) {
    if (!dataset || !out) return GFL_E_ARG;
    memset(out, 0, sizeof *out);
    /* Without a text: the data set's context belongs to another thread, perhaps. */
    if (image < 0 || image >= dataset->n_images) return GFL_E_ARG;
    *out = dataset->images[image];
    return GFL_OK;
}

gfl_status gfli_dataset_check_names(gfl_context *context, const gfl_dataset *dataset) {
    char a[GFLI_ID_TEXT], b[GFLI_ID_TEXT], name[GFLI_QUOTED];
    const int *twins = dataset->twins;
    if (!dataset->summary.n_duplicate_names) return GFL_OK;
    return gfli_error(context, GFL_E_DATA,
                      "%.400s: the categories %s and %s are both named %s, and classes are told "
                      "apart by their names: rename one, or give the boxes of both "
                      "one id and remove the other",
                      dataset->name, gfli_id_text(dataset->class_ids[twins[0]], a),
                      gfli_id_text(dataset->class_ids[twins[1]], b),
                      gfli_quote(dataset->classes[twins[0]].name, name, sizeof name));
}

/* The path of an image's file; a file_name from the root of the file system stays as it is. */
static gfl_status gfli_dataset_path(gfl_context *context, const gfl_dataset *dataset,
                                    const char *file_name, char **out) {
    size_t dir = gfli_os_is_absolute(file_name) ? 0 : strlen(dataset->image_dir);
    size_t name = strlen(file_name);
    bool slash = dir > 0 && gfli_os_folder_length(dataset->image_dir) < dir;
    GFLI_TRY(gfli_alloc(context, dir + name + 2, 1, "a file name", out));
    memcpy(*out, dataset->image_dir, dir);
    if (slash) (*out)[dir] = '/';
    memcpy(*out + dir + slash, file_name, name + 1);
    return GFL_OK;
}

static gfl_status gfli_dataset_call(gfl_context *context, const gfl_dataset *dataset, int image,
                                    gfl_pixels *out) {
    context->error[0] = 0;
    gfl_status status = dataset->read_image(dataset->user, context, image, out);
    char id[GFLI_ID_TEXT];
    gfli_id_text(dataset->images[image].id, id);
    if (status == GFL_OK && out->rgb && out->width >= 1 && out->height >= 1 &&
        out->width <= GFL_MAX_SIDE && out->height <= GFL_MAX_SIDE)
        return GFL_OK;
    int width = out->width, height = out->height;
    gfl_pixels_free(context, out);
    if (status == GFL_OK)
        return gfli_error(context, GFL_E_ARG,
                          "read_image gave no pixels or an impossible size, %d x %d, for image %s",
                          width, height, id);
    if (context->error[0]) return status;
    return gfli_error(context, status, "read_image could not read image %s", id);
}

/* Boxes that were made for another size, or before the picture was turned upright, would give
 * wrong training and wrong numbers in silence.  orientation is that of EXIF; 0 is unknown. */
static gfl_status gfli_dataset_fits(gfl_context *context, const gfl_dataset *dataset, int image,
                                    int width, int height, int orientation) {
    const gfl_image_info *info = &dataset->images[image];
    if (dataset->trust_boxes || info->width == 0 || info->height == 0 ||
        (info->width == width && info->height == height))
        return GFL_OK;
    const char *why = "are the boxes those of a copy of another size?";
    char id[GFLI_ID_TEXT];
    if (info->width == height && info->height == width)
        why = orientation >= 5 ? "the annotations were made without its EXIF rotation; turn the "
                                 "pixels of the file, or redo the boxes"
                               : "width and height are exchanged";
    return gfli_error(context, GFL_E_DATA,
                      "image %s, %s: the picture has %d x %d pixels%s, but its annotations say "
                      "%d x %d: %s",
                      gfli_id_text(info->id, id), info->file_name, width, height,
                      orientation >= 5 ? " when shown upright" : "", info->width, info->height,
                      why);
}

static int gfli_hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The name in place: %20 and the like decoded, or \ made /. */
static void gfli_name_decode(char *name) {
    char *out = name;
    for (const char *p = name; *p; out++) {
        int high = p[0] == '%' ? gfli_hex_digit(p[1]) : -1;
        int low = high >= 0 ? gfli_hex_digit(p[2]) : -1;
        *out = low >= 0 && high + low > 0 ? (char)(16 * high + low) : *p;
        p += low >= 0 && high + low > 0 ? 3 : 1;
    }
    *out = 0;
}

static void gfli_name_slashes(char *name) {
    for (; *name; name++)
        if (*name == '\\') *name = '/';
}

/* Windows and annotation servers write names that other systems do not find.  Nothing is guessed:
 * the error gains the name under which there is a file. */
static gfl_status gfli_dataset_hint(gfl_context *context, const gfl_dataset *dataset,
                                    const char *file_name, gfl_status status) {
    char *name, *path, shown[GFLI_QUOTED], text[sizeof context->error];
    memcpy(text, context->error, sizeof text);
    for (int kind = 0; kind < 4; kind++) {
        GFLI_TRY(gfli_strdup(context, file_name, &name));
        if (kind != 1) gfli_name_slashes(name);
        if (kind != 0) gfli_name_decode(name);
        const char *tried = kind == 3 && strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
        gfl_status made = gfli_dataset_path(context, dataset, tried, &path);
        bool there = made == GFL_OK && gfli_os_look(path).kind == GFLI_OS_FILE;
        gfli_quote(tried, shown, sizeof shown);
        gfli_free(context, name);
        GFLI_TRY(made);
        gfli_free(context, path);
        if (there)
            return gfli_error(context, status,
                              "%.800s; but there is a file %s: name it so in the annotations", text,
                              shown);
    }
    return status;
}

static gfl_status gfli_dataset_open(gfl_context *context, const gfl_dataset *dataset, int image,
                                    gfl_pixels *out, gfli_image_file *facts) {
    const gfl_image_info *info = &dataset->images[image];
    char *path, id[GFLI_ID_TEXT];
    if (!info->file_name[0])
        return gfli_error(context, GFL_E_DATA, "%s: image %s has no file_name", dataset->name,
                          gfli_id_text(info->id, id));
    GFLI_TRY(gfli_dataset_path(context, dataset, info->file_name, &path));
    gfl_status status = gfli_image_load(context, path, out, facts);
    bool absent = status == GFL_E_IO && gfli_os_look(path).kind == GFLI_OS_NOTHING;
    gfli_free(context, path);
    return absent ? gfli_dataset_hint(context, dataset, info->file_name, status) : status;
}

gfl_status gfl_dataset_read(gfl_context *context, const gfl_dataset *dataset, int image,
                            gfl_pixels *out) {
    gfli_image_file facts;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, out);
    memset(out, 0, sizeof *out);
    memset(&facts, 0, sizeof facts);
    GFLI_NOT_NULL(context, dataset);
    if (image < 0 || image >= dataset->n_images)
        return gfli_error(context, GFL_E_ARG, "there is no image %d: the data set has %d", image,
                          dataset->n_images);
    if (dataset->read_image)
        GFLI_TRY(gfli_dataset_call(context, dataset, image, out));
    else
        GFLI_TRY(gfli_dataset_open(context, dataset, image, out, &facts));
    gfl_status status =
        gfli_dataset_fits(context, dataset, image, out->width, out->height, facts.orientation);
    if (status != GFL_OK) gfl_pixels_free(context, out);
    return status;
}

/* ---- a look at every file -------------------------------------------------------------------- */

enum { GFLI_CHECK_CHUNK = 16 }; /* images for each thread, from one report to the next */

typedef struct gfli_check_result {
    gfl_status status;
    char text[1024];
} gfli_check_result;

typedef struct gfli_check {
    gfl_context *context;
    gfl_dataset *dataset;
    gfl_dataset_check_opts opts;
    gfl_context **contexts; /* [n_threads] */
    gfli_check_result *results;
    int first, n_unreadable;
    char text[1024]; /* of the first that cannot be read */
} gfli_check;

static gfl_status gfli_check_picture(gfl_context *context, const gfl_dataset *dataset, int image) {
    gfl_pixels pixels;
    gfli_image_file facts;
    if (dataset->read_image) {
        GFLI_TRY(gfl_dataset_read(context, dataset, image, &pixels));
        gfl_pixels_free(context, &pixels);
        return GFL_OK;
    }
    GFLI_TRY(gfli_dataset_open(context, dataset, image, NULL, &facts));
    bool swap = facts.orientation >= 5;
    return gfli_dataset_fits(context, dataset, image, swap ? facts.height : facts.width,
                             swap ? facts.width : facts.height, facts.orientation);
}

bool gfli_is_unreadable(gfl_status status) {
    return status == GFL_E_IO || status == GFL_E_FORMAT || status == GFL_E_DATA ||
           status == GFL_E_UNSUPPORTED;
}

static void gfli_check_task(void *p, int task, int slot) {
    gfli_check *c = (gfli_check *)p;
    gfli_check_result *r = &c->results[task];
    gfl_context *context = c->contexts[slot];
    r->status = gfli_check_picture(context, c->dataset, c->first + task);
    if (r->status != GFL_OK) memcpy(r->text, context->error, sizeof r->text);
}

/* What the images of a chunk have come to, in their order. */
static gfl_status gfli_check_report(gfli_check *c, int n) {
    for (int i = 0; i < n; i++) {
        const gfli_check_result *r = &c->results[i];
        const bool bad = gfli_is_unreadable(r->status);
        c->dataset->images[c->first + i].unreadable = c->dataset->skip_unreadable && bad;
        if (r->status == GFL_OK) continue;
        if (!bad) return gfli_error(c->context, r->status, "%s", r->text);
        if (c->n_unreadable++ == 0) memcpy(c->text, r->text, sizeof c->text);
        if (c->opts.found) c->opts.found(c->opts.user, c->first + i, r->status, r->text);
    }
    if (c->opts.progress && c->opts.progress(c->opts.user, c->first + n, c->dataset->n_images))
        return gfli_error(c->context, GFL_E_STOPPED, "the check of the images was stopped");
    return GFL_OK;
}

static gfl_status gfli_check_all(gfli_check *c) {
    gfl_context *context = c->context;
    int chunk = GFLI_CHECK_CHUNK * context->n_threads;
    GFLI_TRY(gfli_calloc(context, (size_t)context->n_threads, sizeof *c->contexts, "threads",
                         &c->contexts));
    GFLI_TRY(
        gfli_alloc(context, (size_t)chunk, sizeof *c->results, "a check's results", &c->results));
    for (int i = 0; i < context->n_threads; i++)
        GFLI_TRY(gfli_context_child(context, &c->contexts[i]));
    for (c->first = 0; c->first < c->dataset->n_images; c->first += chunk) {
        int n = gfli_min(chunk, c->dataset->n_images - c->first);
        gfli_parallel_for(context, n, gfli_check_task, c);
        GFLI_TRY(gfli_check_report(c, n));
    }
    if (c->n_unreadable == 0 || c->dataset->skip_unreadable) return GFL_OK;
    return gfli_error(context, GFL_E_DATA,
                      "%.200s: %d of %d images cannot be read; the first: %.700s", c->dataset->name,
                      c->n_unreadable, c->dataset->n_images, c->text);
}

gfl_status gfl_dataset_check(gfl_context *context, gfl_dataset *dataset,
                             const gfl_dataset_check_opts *opts, int *n_unreadable) {
    gfli_check *c;
    if (n_unreadable) *n_unreadable = 0;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, dataset);
    GFLI_TRY(gfli_calloc(context, 1, sizeof *c, "a check", &c));
    c->context = context;
    c->dataset = dataset;
    if (opts) c->opts = *opts;
    gfl_status status = gfli_check_all(c);
    if (n_unreadable) *n_unreadable = c->n_unreadable;
    for (int i = 0; c->contexts && i < context->n_threads; i++) gfl_context_destroy(c->contexts[i]);
    gfli_free(context, c->contexts);
    gfli_free(context, c->results);
    gfli_free(context, c);
    return status;
}
