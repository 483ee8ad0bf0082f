/* dataset.h - gfl_dataset as the implementation sees it */
#pragma once

typedef struct gfli_text_block gfli_text_block;

struct gfl_dataset {
    gfl_context *context;
    char *name;      /* of the JSON file, for messages */
    char *image_dir; /* "" means the working directory */
    gfl_pixel_source read_image;
    void *user;
    bool trust_boxes; /* whatever size the file says that its images have */
    bool skip_unreadable;
    gfl_image_info *images;
    gfl_annotation *annotations; /* by image, in file order within one */
    gfl_class *classes;
    gfl_id *class_ids; /* as the file has them */
    int n_images, n_annotations, n_classes;
    gfl_dataset_summary summary;
    int twins[2];           /* labels of two classes of one name, where there are such */
    gfli_text_block *texts; /* names and textual ids */
};

/* A copy that lives as long as the data set. */
gfl_status gfli_dataset_text(gfl_dataset *set, const char *text, size_t length, const char **out);

/* Ascending: numbers before texts, texts by their bytes. */
int gfli_id_compare(gfl_id a, gfl_id b);

/* The id as an error text shows it: 17, or "17" for a text. */
enum { GFLI_ID_TEXT = 96 };
const char *gfli_id_text(gfl_id id, char out[GFLI_ID_TEXT]);

/* Ids in ascending order with the places they come from. */
typedef struct gfli_id_entry {
    gfl_id id;
    int index;
} gfli_id_entry;

/* Stable. */
gfl_status gfli_id_sort(gfl_context *context, gfli_id_entry *entries, int n);
/* Where an id stands in sorted entries (the first of equal ones), or -1. */
int gfli_id_place(const gfli_id_entry *entries, int n, gfl_id id);
/* The same id as the other type, 1 as "1" and "1" as 1; false where a text is not a number. */
bool gfli_id_other(gfl_id id, char text[24], gfl_id *out);
/* Where an id stands, or where it is not there its other type; *other: it was the latter. */
int gfli_id_place_of_either(const gfli_id_entry *entries, int n, gfl_id id, bool *other);

/* Whether a reading's failure is the image's own: not memory, the host's wish or a wrong call. */
bool gfli_is_unreadable(gfl_status status);

/* GFL_E_DATA with a text where two classes have one name: nothing could tell them apart. */
gfl_status gfli_dataset_check_names(gfl_context *context, const gfl_dataset *dataset);

/* Is the annotation a box to train on?  (Spec 7.5, which tests the area field, not w * h.) */
gfl_annotation_use gfli_annotation_use_of(const gfl_image_info *image, const gfl_annotation *a);
