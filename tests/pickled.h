/* pickled.h - pickles and zip archives put together by hand, as torch.save writes them */
#ifndef GFL_PICKLED_H
#define GFL_PICKLED_H

#include "test.h"

/* ---- bytes ----------------------------------------------------------------------------------- */

typedef struct bytes {
    uint8_t data[1 << 20];
    size_t n;
} bytes;

static inline void put(bytes *b, const void *data, size_t n) {
    if (n > sizeof b->data - b->n) exit(1);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

/* A literal, which may hold zeros. */
#define PUT(b, literal) put(b, literal, sizeof(literal) - 1)

static inline void put_number(bytes *b, uint64_t value, int n_bytes) {
    for (int i = 0; i < n_bytes; i++) {
        const uint8_t byte = (uint8_t)(value >> 8 * i);
        put(b, &byte, 1);
    }
}

static inline void put_text(bytes *b, const char *text) {
    PUT(b, "X");
    put_number(b, strlen(text), 4);
    put(b, text, strlen(text));
}

/* As Python 2 wrote its str. */
static inline void put_string(bytes *b, const char *text) {
    PUT(b, "U");
    put_number(b, strlen(text), 1);
    put(b, text, strlen(text));
}

static inline void put_int(bytes *b, int64_t value) {
    PUT(b, "\x8a\x08");
    put_number(b, (uint64_t)value, 8);
}

static inline void put_storage(bytes *b, const char *type, const char *key, int64_t count) {
    PUT(b, "(");
    put_text(b, "storage");
    PUT(b, "ctorch\n");
    put(b, type, strlen(type));
    PUT(b, "\n");
    put_text(b, key);
    put_text(b, "cuda:0");
    put_int(b, count);
    PUT(b, "tQ");
}

typedef struct view {
    int64_t first, rank, shape[9], stride[9];
} view;

/* The call that rebuilds a tensor of a storage of `count` floats. */
static inline void put_view(bytes *b, const char *key, int64_t count, const view *v) {
    PUT(b, "ctorch._utils\n_rebuild_tensor_v2\n(");
    put_storage(b, "FloatStorage", key, count);
    put_int(b, v->first);
    PUT(b, "(");
    for (int64_t i = 0; i < v->rank; i++) put_int(b, v->shape[i]);
    PUT(b, "t(");
    for (int64_t i = 0; i < v->rank; i++) put_int(b, v->stride[i]);
    PUT(b, "t\x89}tR");
}

static inline void put_tensor(bytes *b, const char *key, int64_t count) {
    view v = {0, 1, {count}, {1}};
    put_view(b, key, count, &v);
}

/* ---- a zip archive --------------------------------------------------------------------------- */

typedef struct archive {
    bytes file, directory;
    int n, method;
    bool wide; /* sizes and offsets in 64-bit form */
} archive;

static inline uint32_t crc_of(const uint8_t *p, size_t n) {
    uint32_t crc = 0xFFFFFFFFu;
    for (; n > 0; n--, p++) {
        crc ^= *p;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xEDB88320u ^ crc >> 1 : crc >> 1;
    }
    return ~crc;
}

static inline void put_common(bytes *b, const archive *a, const char *name, uint32_t crc,
                              size_t size, int extra) {
    put_number(b, 0, 2);
    put_number(b, (uint64_t)a->method, 2);
    put_number(b, 0, 4);
    put_number(b, crc, 4);
    for (int i = 0; i < 2; i++) put_number(b, a->wide ? 0xFFFFFFFFu : size, 4);
    put_number(b, strlen(name), 2);
    put_number(b, (uint64_t)extra, 2);
}

static inline void add_record(archive *a, const char *name, const void *data, size_t size) {
    const uint32_t crc = crc_of((const uint8_t *)data, size);
    const size_t at = a->file.n;
    put_number(&a->file, 0x04034b50, 4);
    put_number(&a->file, 0, 2);
    put_common(&a->file, a, name, crc, size, 5);
    put(&a->file, name, strlen(name));
    PUT(&a->file, "FB\1\0Z");
    put(&a->file, data, size);
    put_number(&a->directory, 0x02014b50, 4);
    put_number(&a->directory, 0, 4);
    put_common(&a->directory, a, name, crc, size, a->wide ? 32 : 0);
    put_number(&a->directory, 0, 8);
    put_number(&a->directory, 0, 2);
    put_number(&a->directory, a->wide ? 0xFFFFFFFFu : at, 4);
    put(&a->directory, name, strlen(name));
    a->n++;
    if (!a->wide) return;
    PUT(&a->directory, "FB\0\0\1\0\x18\0"); /* another field, then the wide numbers */
    put_number(&a->directory, size, 8);
    put_number(&a->directory, size, 8);
    put_number(&a->directory, at, 8);
}

static inline void end_archive(archive *a) {
    bytes *f = &a->file;
    const size_t at = f->n, size = a->directory.n, end = at + size;
    put(f, a->directory.data, size);
    if (a->wide) {
        PUT(f, "PK\6\6");
        put_number(f, 44, 8);
        put_number(f, 0, 4);
        put_number(f, 0, 8);
        for (int i = 0; i < 2; i++) put_number(f, (uint64_t)a->n, 8);
        put_number(f, size, 8);
        put_number(f, at, 8);
        PUT(f, "PK\6\7\0\0\0\0");
        put_number(f, end, 8);
        put_number(f, 1, 4);
    }
    PUT(f, "PK\5\6\0\0\0\0");
    for (int i = 0; i < 2; i++) put_number(f, a->wide ? 0xFFFF : (uint64_t)a->n, 2);
    put_number(f, a->wide ? 0xFFFFFFFFu : size, 4);
    put_number(f, a->wide ? 0xFFFFFFFFu : at, 4);
    put_number(f, 0, 2);
}

#endif
