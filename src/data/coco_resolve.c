/* coco_resolve.c - annotations to their images and labels, classes in order, counts */
#pragma once

/* What reading has left is put together in this order, which gfli_coco_resolve has:
 *
 *   1. Images and classes are sorted by their ids, and twice the same id is a mistake.
 *   2. Each annotation finds its image and its class by binary search; strays are left out, or are
 *      mistakes.  Annotations without an id are numbered.
 *   3. Classes that nobody has are left out where that is wanted, which moves the labels.
 *   4. Annotations are moved together by image, in the order of the file.
 *   5. Ids and names that are there twice are counted, class ids become numbers, and the summary
 *      says what looks wrong. */

/* ---- ids ------------------------------------------------------------------------------------- */

/* Sorts entries; ids of two of them are a mistake, as one type or as two ("1" and 1). */
static gfl_status gfli_coco_sort(gfli_coco *c, gfli_id_entry *entries, int n, const char *what) {
    char id[GFLI_ID_TEXT], text[24];
    gfl_id number;
    GFLI_TRY(gfli_id_sort(c->context, entries, n));
    for (int i = 1; i < n; i++) {
        if (gfli_id_compare(entries[i - 1].id, entries[i].id) == 0)
            GFLI_TRY(gfli_coco_report(c, "%s: two %s have the id %s", c->set->name, what,
                                      gfli_id_text(entries[i].id, id)));
        else if (entries[i].id.text && gfli_id_other(entries[i].id, text, &number) &&
                 gfli_id_place(entries, n, number) >= 0)
            GFLI_TRY(gfli_coco_report(
                c, "%s: two %s have the id %lld, one as a number and one as a text, %s",
                c->set->name, what, (long long)number.number, gfli_id_text(entries[i].id, id)));
    }
    return GFL_OK;
}

static gfl_status gfli_coco_resolve_images(gfli_coco *c) {
    int n = (int)c->n_images;
    GFLI_TRY(gfli_alloc(c->context, c->n_images, sizeof *c->image_ids, "ids", &c->image_ids));
    for (int i = 0; i < n; i++) {
        c->image_ids[i].id = c->set->images[i].id;
        c->image_ids[i].index = i;
    }
    c->set->n_images = n;
    return gfli_coco_sort(c, c->image_ids, n, "images");
}

/* ---- classes --------------------------------------------------------------------------------- */

/* Names in order, leading to labels. */
static gfl_status gfli_coco_sort_names(gfli_coco *c, gfli_id_entry *names) {
    const gfl_dataset *set = c->set;
    for (int i = 0; i < set->n_classes; i++) {
        names[i].id.number = 0;
        names[i].id.text = set->classes[i].name;
        names[i].index = i;
    }
    return gfli_id_sort(c->context, names, set->n_classes);
}

/* Classes that others name as their supercategory. */
static gfl_status gfli_coco_find_parents(gfli_coco *c) {
    const gfl_dataset *set = c->set;
    const int n = set->n_classes;
    gfli_id_entry *names;
    GFLI_TRY(gfli_alloc(c->context, (size_t)n, sizeof *names, "class names", &names));
    gfl_status status = gfli_coco_sort_names(c, names);
    for (int i = 0; i < n && status == GFL_OK; i++) {
        gfl_id id = {0, c->classes[c->class_ids[i].index].supercategory};
        int place = id.text && strcmp(id.text, set->classes[i].name) != 0
                        ? gfli_id_place(names, n, id)
                        : -1;
        if (place >= 0) c->parents[names[place].index] = true;
    }
    gfli_free(c->context, names);
    return status;
}

/* Classes by ascending id; class_ids then leads from an id to its label. */
static gfl_status gfli_coco_resolve_classes(gfli_coco *c) {
    gfl_dataset *set = c->set;
    gfl_context *context = c->context;
    const size_t count = c->n_classes;
    const int n = (int)count;
    if (n == 0)
        return gfli_error(context, GFL_E_DATA,
                          "%s: there are no \"categories\"; add a list of {\"id\": 1, \"name\": "
                          "\"...\"}, one object per class",
                          set->name);
    GFLI_TRY(gfli_alloc(context, count, sizeof *c->class_ids, "ids", &c->class_ids));
    GFLI_TRY(gfli_calloc(context, count, sizeof *c->parents, "classes", &c->parents));
    GFLI_TRY(gfli_alloc(context, count, sizeof *set->classes, "classes", &set->classes));
    GFLI_TRY(gfli_alloc(context, count, sizeof *set->class_ids, "classes", &set->class_ids));
    for (int i = 0; i < n; i++) {
        c->class_ids[i].id = c->classes[i].id;
        c->class_ids[i].index = i;
    }
    GFLI_TRY(gfli_coco_sort(c, c->class_ids, n, "categories"));
    for (int i = 0; i < n; i++) {
        set->classes[i].name = c->classes[c->class_ids[i].index].name;
        set->class_ids[i] = c->class_ids[i].id;
    }
    set->n_classes = n;
    GFLI_TRY(gfli_coco_find_parents(c));
    for (int i = 0; i < n; i++) c->class_ids[i].index = i;
    return GFL_OK;
}

/* ---- annotations ----------------------------------------------------------------------------- */

/* An annotation of an unlisted image or class. */
static gfl_status gfli_coco_stray(gfli_coco *c, const gfli_coco_annotation *r) {
    char name[GFLI_ID_TEXT + 32], id[GFLI_ID_TEXT];
    const bool image = r->a.image < 0;
    if (c->desc.skip_strays) {
        c->set->summary.n_strays++;
        return GFL_OK;
    }
    gfli_coco_name("annotation", "annotations", r->has_id, r->a.id, r->index, name);
    return gfli_coco_report(
        c, "%.400s:%ld:%ld: %s has %s %s, which is not among the %s", c->set->name, r->line,
        r->column, name, image ? "image_id" : "category_id",
        gfli_id_text(image ? r->image_id : r->class_id, id), image ? "images" : "categories");
}

/* To leave out some strays is one thing, to leave out everything another. */
static gfl_status gfli_coco_all_strays(gfli_coco *c) {
    const gfli_coco_annotation *r = &c->annotations[0];
    char ids[2][GFLI_ID_TEXT], first[2][GFLI_ID_TEXT];
    return gfli_error(
        c->context, GFL_E_DATA,
        "%s: not one of the %zu annotations is of a listed image and category: the first has "
        "image_id %s and category_id %s, while the images begin with %s and the categories with %s",
        c->set->name, c->n_annotations, gfli_id_text(r->image_id, ids[0]),
        gfli_id_text(r->class_id, ids[1]),
        c->set->n_images ? gfli_id_text(c->set->images[0].id, first[0]) : "none",
        gfli_id_text(c->set->class_ids[0], first[1]));
}

/* The image and label of every annotation; those of unlisted ones are marked by image -1. */
static gfl_status gfli_coco_resolve_references(gfli_coco *c) {
    gfl_dataset *set = c->set;
    for (size_t i = 0; i < c->n_annotations; i++) {
        gfli_coco_annotation *r = &c->annotations[i];
        bool mixed[2];
        int image = gfli_id_place_of_either(c->image_ids, set->n_images, r->image_id, &mixed[0]);
        int label = gfli_id_place_of_either(c->class_ids, set->n_classes, r->class_id, &mixed[1]);
        r->a.image = image < 0 ? -1 : c->image_ids[image].index;
        r->a.label = label < 0 ? -1 : c->class_ids[label].index;
        if (image >= 0 && label >= 0) {
            set->images[r->a.image].n_annotations++;
            set->n_annotations++;
            set->summary.n_mixed_ids += mixed[0] || mixed[1];
            continue;
        }
        GFLI_TRY(gfli_coco_stray(c, r));
        r->a.image = -1;
    }
    if (c->desc.skip_strays && c->n_annotations > 0 && set->n_annotations == 0)
        return gfli_coco_all_strays(c);
    return GFL_OK;
}

/* Annotations without an id get those after the highest, as long as there are any. */
static void gfli_coco_number(gfli_coco *c) {
    int64_t highest = 0;
    for (size_t i = 0; i < c->n_annotations; i++) {
        const gfli_coco_annotation *r = &c->annotations[i];
        c->set->summary.n_unnumbered += !r->has_id;
        if (r->has_id && !r->a.id.text && r->a.id.number > highest) highest = r->a.id.number;
    }
    if (highest > INT64_MAX - c->set->summary.n_unnumbered) highest = 0;
    for (size_t i = 0; i < c->n_annotations; i++)
        if (!c->annotations[i].has_id) c->annotations[i].a.id.number = ++highest;
}

/* ---- classes that nobody has ----------------------------------------------------------------- */

/* Which stay, in keep; how many. */
static int gfli_coco_keep_classes(gfli_coco *c, bool *keep) {
    gfl_dataset *set = c->set;
    gfl_dataset_summary *s = &set->summary;
    int n = 0;
    memset(keep, 0, (size_t)set->n_classes * sizeof *keep);
    for (size_t i = 0; i < c->n_annotations; i++)
        if (c->annotations[i].a.image >= 0) keep[c->annotations[i].a.label] = true;
    for (int k = 0; k < set->n_classes; k++) {
        s->n_parents += !keep[k] && c->parents[k];
        s->n_empty_classes += !keep[k] && !c->parents[k];
        keep[k] = keep[k] || (!c->parents[k] && !c->desc.drop_empty_classes);
        n += keep[k];
    }
    return n;
}

/* "a", "b" and 3 more. */
static void gfli_coco_list_dropped(const gfl_dataset *set, const bool *keep, char out[320]) {
    const int most = 5;
    size_t at = 0;
    int n = 0;
    for (int k = 0; k < set->n_classes; k++) {
        char name[50];
        if (keep[k] || n++ >= most) continue;
        gfli_quote(set->classes[k].name, name, sizeof name);
        at += (size_t)snprintf(out + at, 320 - at, "%s%s", n > 1 ? ", " : "", name);
    }
    if (n > most) snprintf(out + at, 320 - at, " and %d more", n - most);
}

/* Labels move up into the places of the classes that go. */
static void gfli_coco_relabel(gfli_coco *c, const bool *keep, int *label) {
    gfl_dataset *set = c->set;
    int n = 0;
    for (int k = 0; k < set->n_classes; k++) {
        label[k] = n;
        set->classes[n] = set->classes[k];
        set->class_ids[n] = set->class_ids[k];
        n += keep[k];
    }
    set->n_classes = n;
    for (size_t i = 0; i < c->n_annotations; i++)
        if (c->annotations[i].a.image >= 0)
            c->annotations[i].a.label = label[c->annotations[i].a.label];
}

static gfl_status gfli_coco_drop_from(gfli_coco *c, bool *keep, int *label) {
    gfl_dataset *set = c->set;
    const int n = gfli_coco_keep_classes(c, keep);
    char names[320];
    if (n == set->n_classes) return GFL_OK;
    if (n == 0)
        return gfli_error(c->context, GFL_E_DATA,
                          "%s: no annotation has any of the %d classes: there is nothing to keep",
                          set->name, set->n_classes);
    gfli_coco_list_dropped(set, keep, names);
    gfli_log(c->context, GFL_LOG_WARNING,
             "%.400s: these classes are left out, since no annotation has them%s: %s", set->name,
             c->desc.drop_empty_classes ? "" : " and they are only the supercategory of others",
             names);
    gfli_coco_relabel(c, keep, label);
    return GFL_OK;
}

static gfl_status gfli_coco_drop_classes(gfli_coco *c) {
    const size_t n = (size_t)c->set->n_classes;
    bool *keep = NULL;
    int *label = NULL;
    gfl_status status = gfli_alloc(c->context, n, sizeof *keep, "classes", &keep);
    if (status == GFL_OK) status = gfli_alloc(c->context, n, sizeof *label, "classes", &label);
    if (status == GFL_OK) status = gfli_coco_drop_from(c, keep, label);
    gfli_free(c->context, keep);
    gfli_free(c->context, label);
    return status;
}

/* ---- the data set ---------------------------------------------------------------------------- */

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
        set->summary.n_from_polygons += r->from_polygons;
    }
    return GFL_OK;
}

static gfl_status gfli_coco_count_ids(gfli_coco *c) {
    gfl_dataset *set = c->set;
    gfli_id_entry *ids;
    int n = set->n_annotations;
    GFLI_TRY(gfli_alloc(c->context, (size_t)n, sizeof *ids, "ids", &ids));
    for (int i = 0; i < n; i++) {
        ids[i].id = set->annotations[i].id;
        ids[i].index = i;
        set->summary.n_zero_ids += !ids[i].id.text && ids[i].id.number == 0;
    }
    gfl_status status = gfli_id_sort(c->context, ids, n);
    for (int i = 1; i < n && status == GFL_OK; i++)
        set->summary.n_duplicate_ids += gfli_id_compare(ids[i - 1].id, ids[i].id) == 0;
    gfli_free(c->context, ids);
    return status;
}

static gfl_status gfli_coco_compare_names(gfli_coco *c, const gfli_id_entry *names) {
    gfl_dataset *set = c->set;
    for (int i = 1; i < set->n_classes; i++) {
        if (gfli_id_compare(names[i - 1].id, names[i].id) != 0) continue;
        set->twins[0] = names[i - 1].index;
        set->twins[1] = names[i].index;
        set->summary.n_duplicate_names++;
        if (!c->desc.found) continue;
        gfli_dataset_check_names(c->context, set);
        GFLI_TRY(gfli_coco_report(c, "%s", c->context->error));
    }
    return GFL_OK;
}

/* Two classes of one name can be read and compared by their ids, but not be trained. */
static gfl_status gfli_coco_count_names(gfli_coco *c) {
    gfli_id_entry *names;
    GFLI_TRY(
        gfli_alloc(c->context, (size_t)c->set->n_classes, sizeof *names, "class names", &names));
    gfl_status status = gfli_coco_sort_names(c, names);
    if (status == GFL_OK) status = gfli_coco_compare_names(c, names);
    gfli_free(c->context, names);
    return status;
}

/* Ids of classes as numbers; with words among them numbers could be taken twice, so then none is
 * kept. */
static void gfli_coco_number_classes(gfl_dataset *set) {
    bool words = false;
    for (int k = 0; k < set->n_classes; k++) {
        gfl_id id = set->class_ids[k];
        if (id.text && !gfli_id_other(set->class_ids[k], NULL, &id)) words = true;
        set->classes[k].id = id.number;
    }
    for (int k = 0; words && k < set->n_classes; k++) set->classes[k].id = k + 1;
}

static void gfli_coco_summarise(gfl_dataset *set) {
    gfl_dataset_summary *s = &set->summary;
    s->n_images = set->n_images;
    s->n_classes = set->n_classes;
    s->n_annotations = set->n_annotations;
    for (int i = 0; i < set->n_images; i++) s->n_empty_images += set->images[i].n_annotations == 0;
    for (int i = 0; i < set->n_annotations; i++) {
        gfl_annotation *a = &set->annotations[i];
        const gfl_image_info *image = &set->images[a->image];
        a->use = gfli_annotation_use_of(image, a);
        s->n_crowd += a->crowd;
        if (a->use == GFL_ANNOTATION_SMALL || a->use == GFL_ANNOTATION_NO_AREA)
            s->n_degenerate++;
        else if (a->use == GFL_ANNOTATION_OUTSIDE)
            s->n_outside++;
        else if (image->width > 0 && image->height > 0)
            s->n_partly_outside += a->x < -1 || a->y < -1 || a->x + a->w > image->width + 1 ||
                                   a->y + a->h > image->height + 1;
    }
}

gfl_status gfli_coco_resolve(gfli_coco *c) {
    GFLI_TRY(gfli_coco_resolve_images(c));
    GFLI_TRY(gfli_coco_resolve_classes(c));
    GFLI_TRY(gfli_coco_resolve_references(c));
    gfli_coco_number(c);
    GFLI_TRY(gfli_coco_drop_classes(c));
    GFLI_TRY(gfli_coco_gather(c));
    GFLI_TRY(gfli_coco_count_ids(c));
    GFLI_TRY(gfli_coco_count_names(c));
    gfli_coco_number_classes(c->set);
    gfli_coco_summarise(c->set);
    return GFL_OK;
}
