/* fuzz_ckpt.h - what must hold of any bytes that a reader of weights accepts */
#ifndef GFL_FUZZ_CKPT_H
#define GFL_FUZZ_CKPT_H

#include "test.h"
#include "../src/ckpt/ckpt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads whatever was accepted; an error must have a text. */
static inline void fuzz_use(gfl_context *context, gfli_blob *blob, gfl_status status) {
    if (status != GFL_OK) {
        if (!gfl_context_get_error(context)[0]) abort();
        return;
    }
    for (int i = 0; i < blob->n_tensors; i++) {
        const gfli_tensor *t = &blob->tensors[i];
        if (gfli_blob_find(blob, t->name) != t) abort();
        if (t->rank < 0 || t->rank > 8 || t->offset > blob->size) abort();
        if (t->count > 1 << 16) continue; /* a stride of 0 makes much of little */
        double *values = (double *)malloc((t->count + 1) * sizeof *values);
        if (gfli_blob_read_raw(blob, t, values) != GFL_OK) abort();
        if (t->dtype <= GFLI_F64 && gfli_blob_read_f32(blob, t, (float *)values) != GFL_OK) abort();
        free(values);
    }
    size_t length = 0;
    for (int i = 0; i < 2 * blob->n_meta; i++) length += strlen(blob->meta[i]);
    if (length > 100 * (size_t)blob->size + 100) abort();
}

#endif
