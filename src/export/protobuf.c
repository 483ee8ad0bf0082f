/* protobuf.c - protocol buffers, as much as ONNX needs: varints and nested messages */
#pragma once

static void gfli_pb_varint(gfli_buffer *b, uint64_t value) {
    uint8_t bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    gfli_buffer_put(b, bytes, n);
}

void gfli_pb_int(gfli_buffer *b, int field, int64_t value) {
    gfli_pb_varint(b, (uint64_t)field << 3);
    gfli_pb_varint(b, (uint64_t)value);
}

void gfli_pb_float(gfli_buffer *b, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    gfli_pb_varint(b, (uint64_t)field << 3 | 5);
    gfli_buffer_number(b, bits, 4);
}

void gfli_pb_head(gfli_buffer *b, int field, uint64_t size) {
    gfli_pb_varint(b, (uint64_t)field << 3 | 2);
    gfli_pb_varint(b, size);
}

void gfli_pb_text(gfli_buffer *b, int field, const char *text) {
    gfli_pb_head(b, field, strlen(text));
    gfli_buffer_text(b, text);
}

size_t gfli_pb_open(gfli_buffer *b, int field) {
    gfli_pb_varint(b, (uint64_t)field << 3 | 2);
    return b->n;
}

void gfli_pb_close_before(gfli_buffer *b, size_t start, uint64_t more) {
    const size_t end = b->n;
    uint8_t length[10];
    gfli_pb_varint(b, end - start + more);
    if (b->status != GFL_OK) return;
    const size_t n = b->n - end;
    memcpy(length, b->data + end, n);
    memmove(b->data + start + n, b->data + start, end - start);
    memcpy(b->data + start, length, n);
}

void gfli_pb_close(gfli_buffer *b, size_t start) {
    gfli_pb_close_before(b, start, 0);
}
