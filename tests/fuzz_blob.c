/* fuzz_blob.c - safetensors: whatever the bytes, tensors inside the file or an error with a text */
#include "fuzz_ckpt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gfl_context *context = test_context(1);
    gfli_blob blob;
    memset(&blob, 0, sizeof blob);
    fuzz_use(context, &blob, gfli_blob_open_memory(context, data, size, "input", &blob));
    gfli_blob_close(&blob);
    gfl_context_destroy(context);
    return 0;
}
