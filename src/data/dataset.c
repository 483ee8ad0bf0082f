/* dataset.c - gfl_dataset: access, summary */
#pragma once

bool gfli_annotation_degenerate(const gfl_annotation *a) {
    return !(a->area > 0) || a->w < 1 || a->h < 1;
}

bool gfli_annotation_outside(const gfl_image_info *image, const gfl_annotation *a) {
    if (image->width == 0 || image->height == 0) return false;
    double w = (fmin)(a->x + a->w, image->width) - (fmax)(a->x, 0);
    double h = (fmin)(a->y + a->h, image->height) - (fmax)(a->y, 0);
    return w <= 0 || h <= 0;
}

bool gfli_annotation_trains(const gfl_image_info *image, const gfl_annotation *a) {
    return !a->crowd && !a->ignore && !gfli_annotation_degenerate(a) &&
           !gfli_annotation_outside(image, a);
}

void gfl_dataset_get_summary(const gfl_dataset *dataset, gfl_dataset_summary *out) {
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (dataset) *out = dataset->summary;
}

int gfl_dataset_n_images(const gfl_dataset *dataset) {
    return dataset ? dataset->n_images : 0;
}

int gfl_dataset_n_classes(const gfl_dataset *dataset) {
    return dataset ? dataset->n_classes : 0;
}

const gfl_class *gfl_dataset_classes(const gfl_dataset *dataset) {
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

static gfl_status gfli_dataset_open(gfl_context *context, const gfl_dataset *dataset, int image,
                                    gfl_pixels *out, gfli_image_file *facts) {
    const gfl_image_info *info = &dataset->images[image];
    char *path, id[GFLI_ID_TEXT];
    if (!info->file_name[0])
        return gfli_error(context, GFL_E_DATA, "%s: image %s has no file_name", dataset->name,
                          gfli_id_text(info->id, id));
    GFLI_TRY(gfli_dataset_path(context, dataset, info->file_name, &path));
    gfl_status status = gfli_image_load(context, path, out, facts);
    gfli_free(context, path);
    return status;
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
