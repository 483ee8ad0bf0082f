/* coco.h - an annotation file while it is read */
#pragma once

/* Sizes and corners beyond this are slips of the pen; it also keeps sums of them exact enough. */
#define GFLI_COCO_HUGE 1e9

typedef struct gfli_coco_annotation {
    gfl_annotation a;
    gfl_id image_id, class_id;
    int index;         /* in the file's list */
    long line, column; /* of its beginning */
    bool has_id, has_area, has_crowd, from_polygons;
} gfli_coco_annotation;

typedef struct gfli_coco_class {
    gfl_id id;
    const char *name, *supercategory; /* the latter may be NULL */
} gfli_coco_class;

typedef struct gfli_coco {
    gfl_context *context;
    gfl_dataset *set;
    gfli_json *json;
    gfl_dataset_desc desc;
    bool has_images, has_annotations, has_classes; /* sections seen */
    gfli_coco_annotation *annotations;
    gfli_coco_class *classes;
    size_t n_images, n_annotations, n_classes;
    size_t cap_images, cap_annotations, cap_classes;
    gfli_id_entry *image_ids, *class_ids; /* sorted, leading to images and labels */
    bool *parents;                        /* [n_classes] by label: supercategory of another */
    /* The object being read: its place in the list and in the file; the first mistake in it. */
    int index;
    long line, column;
    bool faulty;
    long fault_line, fault_column;
    char fault[400];
} gfli_coco;

/* With an empty set of this name; file: the images are in the folder of this path. */
gfl_status gfli_coco_begin(gfli_coco *c, gfl_context *context, const char *path, bool file,
                           const gfl_dataset_desc *desc);
/* When images, annotations and classes have been read, or have not been, for which reason status
 * stands: the data set, or an error. */
gfl_status gfli_coco_finish(gfli_coco *c, gfl_status status, gfl_dataset **out);

/* A mistake with a whole text: an error, or told to desc.found, after which reading goes on. */
gfl_status gfli_coco_report(gfli_coco *c, const char *format, ...) GFLI_PRINTF(2, 3);

/* "annotation 7", or "annotations[6]" where it has no id. */
const char *gfli_coco_name(const char *what, const char *list, bool has_id, gfl_id id, int index,
                           char out[GFLI_ID_TEXT + 32]);

/* After the file was read: who belongs to whom, labels, counts (coco_resolve.c). */
gfl_status gfli_coco_resolve(gfli_coco *c);
