/* fuzz_image.c - image files: whatever the bytes, pixels or an error with a text */
#include "test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gfl_context *context = test_context(1);
    gfl_pixels pixels;
    gfl_status status = gfl_image_read_memory(context, data, size, "input", &pixels);
    if (status == GFL_OK) {
        /* Every byte must be there and written. */
        size_t n = 3 * (size_t)pixels.width * (size_t)pixels.height;
        unsigned sum = 0;
        for (size_t i = 0; i < n; i++) sum += pixels.rgb[i];
        if (sum == 0xFFFFFFFFu || pixels.width > GFL_MAX_SIDE) abort();
    } else if (pixels.rgb || !gfl_context_get_error(context)[0]) {
        abort();
    }
    gfl_pixels_free(context, &pixels);
    gfl_context_destroy(context);
    return 0;
}
