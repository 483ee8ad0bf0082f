/* arrays.c - a data set from what a program has in memory */
#pragma once

/* In what follows the program's arrays are taken for a file that was read: coco_resolve.c does with
 * them what it does with a file. */

static gfl_status gfli_arrays_text(gfl_dataset *set, const char **text) {
    return *text ? gfli_dataset_text(set, *text, strlen(*text), text) : GFL_OK;
}

static bool gfli_arrays_utf8(const char *text) {
    return gfl_text_valid(text, strlen(text)) == strlen(text);
}

/* Results hold ids, and are read as JSON. */
static gfl_status gfli_arrays_id(gfli_coco *c, int image, gfl_id *id) {
    GFLI_DEMAND(c->context, !id->text || gfli_arrays_utf8(id->text),
                "gfl_dataset_create: images[%d]: an id is not UTF-8", image);
    return gfli_arrays_text(c->set, &id->text);
}

static gfl_status gfli_arrays_classes(gfli_coco *c, const gfl_class *classes, int n) {
    bool numbered = n == 1;
    GFLI_TRY(gfli_calloc(c->context, (size_t)n, sizeof *c->classes, "classes", &c->classes));
    for (int k = 0; k < n; k++) numbered = numbered || classes[k].id != 0;
    for (int k = 0; k < n; k++) {
        gfli_coco_class *r = &c->classes[k];
        r->name = classes[k].name;
        r->id.number = numbered ? classes[k].id : k + 1;
        GFLI_DEMAND(c->context, r->name, "gfl_dataset_create: classes[%d] has no name", k);
        GFLI_DEMAND(c->context, gfli_arrays_utf8(r->name),
                    "gfl_dataset_create: the name of classes[%d] is not UTF-8", k);
        GFLI_DEMAND(c->context, k == 0 || c->classes[k - 1].id.number < r->id.number,
                    "gfl_dataset_create: classes[%d] has the id %lld, but ids must ascend", k,
                    (long long)r->id.number);
        GFLI_TRY(gfli_arrays_text(c->set, &r->name));
    }
    c->n_classes = (size_t)n;
    return GFL_OK;
}

static bool gfli_arrays_number(double v) {
    return (fabs)(v) <= GFLI_COCO_HUGE;
}

static gfl_status gfli_arrays_annotation(gfli_coco *c, const gfl_image_info *image, int index,
                                         const gfl_annotation *a) {
    char id[GFLI_ID_TEXT];
    gfli_coco_annotation *r = &c->annotations[c->n_annotations];
    if (!gfli_arrays_number(a->x) || !gfli_arrays_number(a->y) || !gfli_arrays_number(a->w) ||
        !gfli_arrays_number(a->h) || !gfli_is_finite(a->area))
        return gfli_coco_report(c,
                                "%s: image %s: annotations[%d] has the box %g, %g, %g, %g and the "
                                "area %g; numbers of pixels are wanted",
                                c->set->name, gfli_id_text(image->id, id), index, a->x, a->y, a->w,
                                a->h, a->area);
    if (a->label < 0 || a->label >= (int)c->n_classes)
        return gfli_coco_report(
            c, "%s: image %s: annotations[%d] has the label %d; there are the labels 0..%d",
            c->set->name, gfli_id_text(image->id, id), index, a->label, (int)c->n_classes - 1);
    memset(r, 0, sizeof *r);
    r->a = *a;
    r->a.crowd = a->crowd != 0;
    r->a.ignore = a->ignore != 0;
    if (!(a->area > 0 || a->area < 0)) r->a.area = a->w * a->h;
    r->image_id = image->id;
    r->class_id = c->classes[a->label].id;
    r->index = index;
    r->has_id = a->id.text || a->id.number != 0;
    r->has_area = r->has_crowd = true;
    c->n_annotations++;
    return gfli_arrays_id(c, (int)(image - c->set->images), &r->a.id);
}

/* Image i of the set, without annotations. */
static gfl_status gfli_arrays_image(gfli_coco *c, const gfl_image_info *from, int i,
                                    bool numbered) {
    gfl_image_info *image = &c->set->images[i];
    const double most = GFLI_COCO_HUGE;
    GFLI_DEMAND(c->context, from->n_annotations >= 0 && (from->annotations || !from->n_annotations),
                "gfl_dataset_create: images[%d] has %d annotations at %s", i, from->n_annotations,
                from->annotations ? "a place" : "NULL");
    GFLI_DEMAND(c->context,
                from->width >= 0 && from->height >= 0 && from->width <= most &&
                    from->height <= most,
                "gfl_dataset_create: images[%d] is %d x %d pixels", i, from->width, from->height);
    memset(image, 0, sizeof *image);
    image->width = from->width;
    image->height = from->height;
    image->file_name = from->file_name ? from->file_name : "";
    image->id = from->id;
    if (!numbered) image->id.number = i + 1;
    GFLI_TRY(gfli_arrays_text(c->set, &image->file_name));
    return gfli_arrays_id(c, i, &image->id);
}

static gfl_status gfli_arrays_images(gfli_coco *c, const gfl_image_info *images, int n) {
    bool numbered = n == 1;
    int64_t most = 0;
    GFLI_TRY(gfli_alloc(c->context, (size_t)n, sizeof *images, "images", &c->set->images));
    for (int i = 0; i < n; i++)
        numbered = numbered || images[i].id.text || images[i].id.number != 0;
    for (int i = 0; i < n; i++) {
        GFLI_TRY(gfli_arrays_image(c, &images[i], i, numbered));
        most += images[i].n_annotations;
    }
    GFLI_DEMAND(c->context, most <= INT_MAX / 2, "gfl_dataset_create: there are %lld annotations",
                (long long)most);
    GFLI_TRY(gfli_alloc(c->context, (size_t)most, sizeof *c->annotations, "annotations",
                        &c->annotations));
    c->n_images = (size_t)n;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < images[i].n_annotations; k++)
            GFLI_TRY(gfli_arrays_annotation(c, &c->set->images[i], k, &images[i].annotations[k]));
    return GFL_OK;
}

gfl_status gfl_dataset_create(gfl_context *context, const gfl_class *classes, int n_classes,
                              const gfl_image_info *images, int n_images,
                              const gfl_dataset_desc *desc, gfl_dataset **out) {
    gfli_coco c;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, classes);
    GFLI_NOT_NULL(context, out);
    GFLI_DEMAND(context, n_classes >= 1 && n_classes <= GFL_MAX_CLASSES,
                "gfl_dataset_create: there are %d classes; 1..%d are allowed", n_classes,
                GFL_MAX_CLASSES);
    GFLI_DEMAND(context, n_images >= 0 && n_images <= INT_MAX / 2 && (images || n_images == 0),
                "gfl_dataset_create: there are %d images at %s", n_images,
                images ? "a place" : "NULL");
    GFLI_TRY(gfli_coco_begin(&c, context, "annotations in arrays", false, desc));
    gfl_status status = gfli_arrays_classes(&c, classes, n_classes);
    if (status == GFL_OK) status = gfli_arrays_images(&c, images, n_images);
    return gfli_coco_finish(&c, status, out);
}
