/* fuzz_coco.c - annotation files: whatever the bytes, a sound data set or an error with a text */
#include "test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gfl_context *context = test_context(1);
    gfl_dataset *set;
    gfl_dataset_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.skip_strays = size & 1;
    gfl_status status =
        gfl_dataset_load_coco_memory(context, (const char *)data, size, &opts, &set);
    if (status != GFL_OK && (set || !gfl_context_error(context)[0])) abort();
    size_t length = 0;
    for (int i = 0; i < gfl_dataset_n_images(set); i++) {
        gfl_image_info image;
        if (gfl_dataset_get_image(set, i, &image) != GFL_OK) abort();
        length += strlen(image.file_name) + (image.id.text ? strlen(image.id.text) : 0);
        for (int k = 0; k < image.n_annotations; k++) {
            const gfl_annotation *a = &image.annotations[k];
            if (a->image != i || a->label < 0 || a->label >= gfl_dataset_n_classes(set)) abort();
            if (!isfinite(a->x + a->w) || !isfinite(a->y + a->h) || !isfinite(a->area)) abort();
        }
    }
    for (int i = 0; i < gfl_dataset_n_classes(set); i++)
        length += strlen(gfl_dataset_classes(set)[i].name);
    if (length > 100 * size + 100) abort();
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
    return 0;
}
