/* bytes.c - growing bytes, numbers in little-endian order */
#pragma once

void gfli_buffer_put(gfli_buffer *b, const void *data, size_t n) {
    if (b->status == GFL_OK && n > SIZE_MAX - b->n)
        b->status = gfli_error(b->context, GFL_E_MEMORY, "the export is too large for memory");
    if (b->status == GFL_OK)
        b->status = gfli_grow(b->context, &b->data, &b->capacity, b->n + n, 1, "an export");
    if (b->status != GFL_OK || n == 0) return;
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

void gfli_buffer_text(gfli_buffer *b, const char *text) {
    gfli_buffer_put(b, text, strlen(text));
}

void gfli_buffer_number(gfli_buffer *b, uint64_t value, int n_bytes) {
    uint8_t bytes[8];
    for (int i = 0; i < n_bytes; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    gfli_buffer_put(b, bytes, (size_t)n_bytes);
}

void gfli_buffer_free(gfli_buffer *b) {
    gfli_free(b->context, b->data);
    memset(b, 0, sizeof *b);
}
