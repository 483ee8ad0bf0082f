/* fuzz_coco.c - annotation files: whatever the bytes, a sound data set or an error with a text */
#include "test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A message is one line of bounded length that no terminal obeys; a file name in it is ours. */
static void check_text(const char *text) {
    size_t n = strlen(text);
    if (n == 0 || n > 1023 || gfli_utf8_length((const unsigned char *)text, n) == 0) abort();
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7F) abort();
}

static int take_mistake(void *user, const char *text) {
    check_text(text);
    return ++*(int *)user >= 1000;
}

static void check_set(const gfl_dataset *set, size_t size) {
    size_t length = 0;
    for (int i = 0; i < gfl_dataset_count_images(set); i++) {
        gfl_image_info image;
        if (gfl_dataset_get_image(set, i, &image) != GFL_OK) abort();
        length += strlen(image.file_name) + (image.id.text ? strlen(image.id.text) : 0);
        for (int k = 0; k < image.n_annotations; k++) {
            const gfl_annotation *a = &image.annotations[k];
            if (a->image != i || a->label < 0 || a->label >= gfl_dataset_count_classes(set))
                abort();
            if (!isfinite(a->x + a->w) || !isfinite(a->y + a->h) || !isfinite(a->area)) abort();
        }
    }
    for (int i = 0; i < gfl_dataset_count_classes(set); i++)
        length += strlen(gfl_dataset_get_classes(set)[i].name);
    if (length > 100 * size + 100) abort();
}

/* Every input is read with each of the options. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gfl_context *context = test_context(1);
    for (int way = 0; way < 4; way++) {
        gfl_dataset *set;
        gfl_dataset_desc opts;
        int n = 0;
        memset(&opts, 0, sizeof opts);
        opts.skip_strays = way & 1;
        opts.drop_empty_classes = way & 1;
        opts.boxes_from_polygons = way >> 1;
        if (way == 1 || way == 2) opts.found = take_mistake;
        opts.found_user = &n;
        gfl_status status =
            gfl_dataset_load_coco_memory(context, (const char *)data, size, &opts, &set);
        if (status != GFL_OK && set) abort();
        if (status != GFL_OK) check_text(gfl_context_get_error(context));
        if (status == GFL_OK) check_set(set, size);
        gfl_dataset_destroy(set);
    }
    gfl_context_destroy(context);
    return 0;
}
