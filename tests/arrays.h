/* arrays.h - a data set made anew from what its getters give */
#ifndef GFL_TEST_ARRAYS_H
#define GFL_TEST_ARRAYS_H

#include "test.h"

/* The arrays are overwritten and freed before the copy is used: nothing of them may be kept. */
static inline gfl_status arrays_copy(gfl_context *context, const gfl_dataset *set,
                                     const gfl_dataset_desc *desc, gfl_dataset **out) {
    const int n = gfl_dataset_count_images(set), k = gfl_dataset_count_classes(set);
    const size_t bytes = (size_t)n * sizeof(gfl_image_info),
                 of_classes = (size_t)k * sizeof(gfl_class);
    gfl_image_info *images = (gfl_image_info *)malloc(bytes + 1);
    gfl_class *classes = (gfl_class *)malloc(of_classes + 1);
    memcpy(classes, gfl_dataset_get_classes(set), of_classes);
    for (int i = 0; i < n; i++) CHECK(gfl_dataset_get_image(set, i, &images[i]) == GFL_OK);
    const gfl_status status = gfl_dataset_create(context, classes, k, images, n, desc, out);
    memset(images, 0xA5, bytes);
    memset(classes, 0xA5, of_classes);
    free(images);
    free(classes);
    return status;
}

#endif
