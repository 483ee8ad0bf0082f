/* fuzz_zip.c - checkpoints of PyTorch: whatever the bytes, tensors inside the file or an error with
 * a text.  Checksums keep a fuzzer out of the archive, so those of its directory are put right. */
#include "fuzz_ckpt.h"

static uint32_t crc32_of(const uint8_t *p, size_t n) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xEDB88320u ^ crc >> 1 : crc >> 1;
    }
    return ~crc;
}

static uint32_t number(const uint8_t *p, int n) {
    uint32_t value = 0;
    while (n-- > 0) value = value << 8 | p[n];
    return value;
}

static void mend_checksums(uint8_t *bytes, size_t size) {
    for (size_t i = 0; i + 46 <= size; i++) {
        if (memcmp(bytes + i, "PK\1\2", 4) != 0) continue;
        const size_t local = number(bytes + i + 42, 4), n = number(bytes + i + 24, 4);
        if (local + 30 > size) continue;
        const size_t at =
            local + 30 + number(bytes + local + 26, 2) + number(bytes + local + 28, 2);
        if (at > size || n > size - at) continue;
        const uint32_t crc = crc32_of(bytes + at, n);
        for (int k = 0; k < 4; k++) bytes[i + 16 + (size_t)k] = (uint8_t)(crc >> 8 * k);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gfl_context *context = test_context(1);
    gfli_blob blob;
    uint8_t *bytes = (uint8_t *)malloc(size + 1);
    memcpy(bytes, data, size);
    mend_checksums(bytes, size);
    if (gfli_blob_bare_memory(context, bytes, size, "input", &blob) != GFL_OK) abort();
    fuzz_use(context, &blob, gfli_pth_read(&blob));
    gfli_blob_close(&blob);
    gfl_context_destroy(context);
    free(bytes);
    return 0;
}
