/* found.h - what decode finds, brought to the host */
#ifndef GFL_TEST_FOUND_H
#define GFL_TEST_FOUND_H

#include "test.h"

/* Detections of image `index` of maps that lie where the context computes, and, where logits is not
 * NULL, the [.][reg->c] logits of their locations; returns how many.  Both have room for
 * o->max_detections.  o->wanted is the host's. */
static inline int test_decode(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                              int index, const gfli_decode_opts *o, gfli_decoded *out,
                              float *logits) {
    const gfli_backend *ops = context->backend;
    const size_t n = (size_t)cls->n, most = (size_t)gfli_most_detections(cls, o),
                 c = (size_t)reg->c;
    gfli_decode_opts *all = (gfli_decode_opts *)malloc(n * sizeof *all);
    int *count = (int *)malloc(n * sizeof *count);
    gfli_found found;
    void *scratch;
    uint8_t *wanted = NULL;
    if (o->wanted) {
        CHECK_OK(context, ops->device.alloc(context, (size_t)o->n_classes, 1, "classes", &wanted));
        ops->device.upload(context, wanted, o->wanted, (size_t)o->n_classes);
    }
    for (size_t i = 0; i < n; i++) {
        all[i] = *o;
        all[i].wanted = wanted;
    }
    found.most = (int)most;
    found.logits = NULL;
    CHECK_OK(context, ops->device.alloc(context, n, sizeof(int), "counts", &found.count));
    CHECK_OK(context,
             ops->device.alloc(context, n * most, sizeof *found.items, "items", &found.items));
    if (logits)
        CHECK_OK(context,
                 ops->device.alloc(context, n * most * c, sizeof(float), "logits", &found.logits));
    CHECK_OK(context,
             ops->device.alloc(context, ops->infer.decode_scratch(cls, o), 1, "scratch", &scratch));
    ops->infer.decode(context, cls, reg, all, &found, scratch);
    ops->device.download(context, count, found.count, n * sizeof *count);
    CHECK_OK(context, ops->device.finish(context));
    const size_t first = (size_t)index * most, m = (size_t)count[index];
    ops->device.download(context, out, found.items + first, m * sizeof *out);
    if (logits)
        ops->device.download(context, logits, found.logits + first * c, m * c * sizeof *logits);
    CHECK_OK(context, ops->device.finish(context));
    ops->device.free(context, found.count);
    ops->device.free(context, found.items);
    ops->device.free(context, found.logits);
    ops->device.free(context, scratch);
    ops->device.free(context, wanted);
    free(all);
    free(count);
    return (int)m;
}

#endif
