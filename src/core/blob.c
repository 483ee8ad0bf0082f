/* blob.c - safetensors, read */
#pragma once

enum { GFLI_BLOB_HEADER_MAX = 100 << 20, GFLI_BLOB_TENSORS_MAX = 1 << 20 };

static const struct {
    const char *name;
    int bytes;
} gfli_dtypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I64", 8},
                   {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U8", 1},  {"BOOL", 1}};

float gfli_bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

float gfli_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    uint32_t bits = sign | (exponent + 112) << 23 | fraction << 13;
    if (exponent == 31) bits = sign | 0x7F800000u | fraction << 13;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24, exact in f32 */
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

int gfli_dtype_bytes(gfli_dtype dtype) {
    return gfli_dtypes[dtype].bytes;
}

const char *gfli_dtype_name(gfli_dtype dtype) {
    return gfli_dtypes[dtype].name;
}

/* ---- reading --------------------------------------------------------------------------------- */

bool gfli_tensor_name_is_long(const char *name) {
    for (int i = 0; i <= GFLI_TENSOR_NAME_MAX; i++)
        if (!name[i]) return false;
    return true;
}

gfl_status gfli_blob_add(gfli_blob *b, const char *name, gfli_tensor **out) {
    if (gfli_tensor_name_is_long(name))
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s: the name of a tensor, %.60s..., is longer than %d bytes", b->path,
                          name, GFLI_TENSOR_NAME_MAX);
    b->name_bytes += strlen(name);
    if (b->n_tensors == GFLI_BLOB_TENSORS_MAX || (uint64_t)b->n_tensors > b->size / 16 ||
        b->name_bytes > b->size)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s: it lists more tensors than its %llu bytes can hold", b->path,
                          (unsigned long long)b->size);
    GFLI_TRY(gfli_grow(b->context, &b->tensors, &b->tensor_capacity, (size_t)b->n_tensors + 1,
                       sizeof *b->tensors, "a list of tensors"));
    gfli_tensor *t = &b->tensors[b->n_tensors];
    memset(t, 0, sizeof *t);
    GFLI_TRY(gfli_strdup(b->context, name, &t->name));
    b->n_tensors++;
    *out = t;
    return GFL_OK;
}

gfl_status gfli_blob_add_meta(gfli_blob *b, const char *key, const char *value) {
    GFLI_TRY(gfli_grow(b->context, &b->meta, &b->meta_capacity, 2 * (size_t)b->n_meta + 2,
                       sizeof *b->meta, "metadata"));
    char **entry = &b->meta[2 * b->n_meta];
    GFLI_TRY(gfli_strdup(b->context, key, &entry[0]));
    gfl_status status = gfli_strdup(b->context, value, &entry[1]);
    if (status == GFL_OK)
        b->n_meta++;
    else
        gfli_free(b->context, entry[0]);
    return status;
}

gfl_status gfli_blob_pread(gfli_blob *b, uint64_t offset, void *out, uint64_t size) {
    if (offset > b->size || size > b->size - offset)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s: the file ends before the %llu bytes at offset %llu", b->path,
                          (unsigned long long)size, (unsigned long long)offset);
    if (b->bytes) {
        memcpy(out, b->bytes + offset, (size_t)size);
        return GFL_OK;
    }
    size_t got;
    GFLI_TRY(gfli_os_read_at(b->context, b->path, b->file, offset, out, (size_t)size, &got));
    if (got == size) return GFL_OK;
    return gfli_error(b->context, GFL_E_FORMAT, "%s became shorter while it was read", b->path);
}

static gfl_status gfli_blob_number(gfli_json *j, const char *name, const char *what, int64_t *out) {
    if (gfli_json_next(j) != GFLI_JSON_NUMBER || !gfli_json_as_integer(j, out) || *out < 0)
        return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: %s is not a natural number", name,
                               what);
    return GFL_OK;
}

static gfl_status gfli_blob_shape(gfli_json *j, gfli_tensor *t) {
    if (gfli_json_next(j) != GFLI_JSON_ARRAY)
        return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: shape is not an array", t->name);
    t->count = 1;
    for (;;) {
        gfli_json_kind kind = gfli_json_next(j);
        int64_t size;
        if (kind == GFLI_JSON_END) return gfli_json_status(j);
        if (kind != GFLI_JSON_NUMBER || !gfli_json_as_integer(j, &size) || size < 0 || t->rank == 8)
            return gfli_json_error(j, GFL_E_FORMAT,
                                   "tensor %.200s: shape is not up to 8 natural numbers", t->name);
        t->shape[t->rank++] = size;
        if (!gfli_mul(t->count, (size_t)size, &t->count) || t->count > SIZE_MAX / 16)
            return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: the size overflows", t->name);
    }
}

static gfl_status gfli_blob_dtype(gfli_json *j, gfli_tensor *t) {
    const char *text = gfli_json_next(j) == GFLI_JSON_STRING ? gfli_json_string(j, NULL) : "";
    for (size_t i = 0; i < GFLI_COUNT(gfli_dtypes); i++) {
        if (strcmp(text, gfli_dtypes[i].name) != 0) continue;
        t->dtype = (gfli_dtype)i;
        return GFL_OK;
    }
    return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: unknown dtype \"%.20s\"", t->name,
                           text);
}

/* One tensor's object; offsets come out relative to the data, which begins at `data`. */
static gfl_status gfli_blob_tensor(gfli_blob *b, gfli_json *j, gfli_tensor *t, uint64_t data) {
    int64_t begin = -1, end = -1;
    bool dtype = false, shape = false;
    const char *key;
    if (gfli_json_next(j) != GFLI_JSON_OBJECT)
        return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s is not an object", t->name);
    while ((key = gfli_json_key(j)) != NULL) {
        if (!strcmp(key, "dtype") && !dtype) {
            GFLI_TRY(gfli_blob_dtype(j, t));
            dtype = true;
        } else if (!strcmp(key, "shape") && !shape) {
            GFLI_TRY(gfli_blob_shape(j, t));
            shape = true;
        } else if (!strcmp(key, "data_offsets") && begin < 0) {
            if (gfli_json_next(j) != GFLI_JSON_ARRAY)
                return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: no data_offsets", t->name);
            GFLI_TRY(gfli_blob_number(j, t->name, "its first offset", &begin));
            GFLI_TRY(gfli_blob_number(j, t->name, "its last offset", &end));
            if (gfli_json_next(j) != GFLI_JSON_END)
                return gfli_json_error(j, GFL_E_FORMAT,
                                       "tensor %.200s: data_offsets has more than two numbers",
                                       t->name);
        } else {
            return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: unexpected key \"%.40s\"",
                                   t->name, key);
        }
    }
    GFLI_TRY(gfli_json_status(j));
    if (!dtype || !shape || begin < 0)
        return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s lacks dtype, shape or data_offsets",
                               t->name);
    if (end < begin || (uint64_t)end > b->size - data)
        return gfli_json_error(j, GFL_E_FORMAT,
                               "tensor %.200s: its data, bytes %lld to %lld, is not within the "
                               "file's %llu (truncated?)",
                               t->name, (long long)begin, (long long)end,
                               (unsigned long long)(b->size - data));
    t->offset = data + (uint64_t)begin;
    t->bytes = (uint64_t)(end - begin);
    if (t->bytes != (uint64_t)t->count * (uint64_t)gfli_dtypes[t->dtype].bytes)
        return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: %llu bytes do not fit its shape",
                               t->name, (unsigned long long)t->bytes);
    return GFL_OK;
}

static int gfli_compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static gfl_status gfli_blob_read_meta(gfli_blob *b, gfli_json *j) {
    const char *key;
    if (b->n_meta || gfli_json_next(j) != GFLI_JSON_OBJECT)
        return gfli_json_error(j, GFL_E_FORMAT, "__metadata__ is not one object");
    while ((key = gfli_json_key(j)) != NULL) {
        const size_t at = (size_t)b->n_meta * 2;
        GFLI_TRY(gfli_grow(b->context, &b->meta, &b->meta_capacity, at + 2, sizeof *b->meta,
                           "metadata"));
        GFLI_TRY(gfli_strdup(b->context, key, &b->meta[at]));
        b->meta[at + 1] = NULL;
        b->n_meta++;
        if (gfli_json_next(j) != GFLI_JSON_STRING)
            return gfli_json_error(j, GFL_E_FORMAT, "__metadata__: \"%.100s\" is not a text",
                                   b->meta[at]);
        GFLI_TRY(gfli_strdup(b->context, gfli_json_string(j, NULL), &b->meta[at + 1]));
    }
    GFLI_TRY(gfli_json_status(j));
    if (b->n_meta > 1) qsort(b->meta, (size_t)b->n_meta, 2 * sizeof *b->meta, gfli_compare_keys);
    for (int i = 1; i < b->n_meta; i++)
        if (!strcmp(b->meta[2 * i - 2], b->meta[2 * i]))
            return gfli_json_error(j, GFL_E_FORMAT, "__metadata__ has \"%.100s\" twice",
                                   b->meta[2 * i]);
    return GFL_OK;
}

static int gfli_compare_tensors(const void *a, const void *b) {
    return strcmp(((const gfli_tensor *)a)->name, ((const gfli_tensor *)b)->name);
}

static int gfli_compare_offsets(const void *a, const void *b) {
    const gfli_tensor *x = (const gfli_tensor *)a, *y = (const gfli_tensor *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

gfl_status gfli_blob_sort(gfli_blob *b) {
    if (b->n_tensors)
        qsort(b->tensors, (size_t)b->n_tensors, sizeof *b->tensors, gfli_compare_tensors);
    for (int i = 1; i < b->n_tensors; i++)
        if (!strcmp(b->tensors[i - 1].name, b->tensors[i].name))
            return gfli_error(b->context, GFL_E_FORMAT, "%s: tensor %.200s appears twice", b->path,
                              b->tensors[i].name);
    return GFL_OK;
}

/* No two tensors share bytes or a name. */
static gfl_status gfli_blob_check_layout(gfli_blob *b) {
    if (!b->n_tensors) return GFL_OK;
    qsort(b->tensors, (size_t)b->n_tensors, sizeof *b->tensors, gfli_compare_offsets);
    for (int i = 1; i < b->n_tensors; i++) {
        const gfli_tensor *a = &b->tensors[i - 1];
        if (a->offset + a->bytes > b->tensors[i].offset)
            return gfli_error(b->context, GFL_E_FORMAT, "%s: the data of %.200s and %.200s overlap",
                              b->path, a->name, b->tensors[i].name);
    }
    return gfli_blob_sort(b);
}

static gfl_status gfli_blob_parse(gfli_blob *b, gfli_json *j, uint64_t data) {
    const char *key;
    if (gfli_json_next(j) != GFLI_JSON_OBJECT)
        return gfli_json_error(j, GFL_E_FORMAT, "the header is not a JSON object");
    while ((key = gfli_json_key(j)) != NULL) {
        if (!strcmp(key, "__metadata__")) {
            GFLI_TRY(gfli_blob_read_meta(b, j));
            continue;
        }
        gfli_tensor *t;
        GFLI_TRY(gfli_blob_add(b, key, &t));
        GFLI_TRY(gfli_blob_tensor(b, j, t, data));
    }
    gfli_json_next(j); /* nothing but spaces may follow */
    GFLI_TRY(gfli_json_status(j));
    const char *order = gfli_blob_meta(b, "byteorder");
    if (order && strcmp(order, "little") != 0)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s: its byte order is \"%.20s\"; only little-endian files are read",
                          b->path, order);
    return gfli_blob_check_layout(b);
}

gfl_status gfli_blob_read_header(gfli_blob *b) {
    uint8_t head[8];
    uint64_t length = 0;
    if (b->size < 8)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s is not a safetensors file: it has %llu bytes", b->path,
                          (unsigned long long)b->size);
    GFLI_TRY(gfli_blob_pread(b, 0, head, 8));
    for (int i = 7; i >= 0; i--) length = length << 8 | head[i];
    if (length > GFLI_BLOB_HEADER_MAX || length > b->size - 8)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s is not a safetensors file, or is truncated: it announces a header of "
                          "%llu bytes and has %llu",
                          b->path, (unsigned long long)length, (unsigned long long)b->size);
    char *text;
    GFLI_TRY(gfli_alloc(b->context, (size_t)length + 1, 1, "a safetensors header", &text));
    gfli_json *j = NULL;
    gfl_status status = gfli_blob_pread(b, 8, text, length);
    if (status == GFL_OK)
        status = gfli_json_open_memory(b->context, text, (size_t)length, b->path, &j);
    if (status == GFL_OK) status = gfli_blob_parse(b, j, 8 + length);
    gfli_json_close(j);
    gfli_free(b->context, text);
    return status;
}

static gfl_status gfli_blob_begin(gfl_context *context, const char *name, gfli_blob *out) {
    memset(out, 0, sizeof *out);
    out->context = context;
    out->file = GFLI_NO_HANDLE;
    return gfli_strdup(context, name, &out->path);
}

static gfl_status gfli_blob_open_file(gfli_blob *b) {
    gfli_os_info info;
    GFLI_TRY(gfli_os_open(b->context, b->path, GFLI_OS_REGULAR, &b->file, &info));
    b->size = info.size;
    return GFL_OK;
}

gfl_status gfli_blob_open_bare(gfl_context *context, const char *path, gfli_blob *out) {
    GFLI_TRY(gfli_blob_begin(context, path, out));
    gfl_status status = gfli_blob_open_file(out);
    if (status != GFL_OK) gfli_blob_close(out);
    return status;
}

gfl_status gfli_blob_bare_memory(gfl_context *context, const void *bytes, size_t size,
                                 const char *name, gfli_blob *out) {
    GFLI_TRY(gfli_blob_begin(context, name, out));
    out->bytes = (const uint8_t *)bytes;
    out->size = size;
    return GFL_OK;
}

gfl_status gfli_blob_open(gfl_context *context, const char *path, gfli_blob *out) {
    GFLI_TRY(gfli_blob_open_bare(context, path, out));
    gfl_status status = gfli_blob_read_header(out);
    if (status != GFL_OK) gfli_blob_close(out);
    return status;
}

gfl_status gfli_blob_open_memory(gfl_context *context, const void *bytes, size_t size,
                                 const char *name, gfli_blob *out) {
    GFLI_TRY(gfli_blob_bare_memory(context, bytes, size, name, out));
    gfl_status status = gfli_blob_read_header(out);
    if (status != GFL_OK) gfli_blob_close(out);
    return status;
}

void gfli_blob_close(gfli_blob *b) {
    if (!b->context) return;
    gfli_os_close(b->file);
    for (int i = 0; i < b->n_tensors; i++) gfli_free(b->context, b->tensors[i].name);
    for (int i = 0; i < 2 * b->n_meta; i++) gfli_free(b->context, b->meta[i]);
    gfli_free(b->context, b->tensors);
    gfli_free(b->context, b->meta);
    gfli_free(b->context, b->path);
    memset(b, 0, sizeof *b);
}

const gfli_tensor *gfli_blob_find(const gfli_blob *b, const char *name) {
    int low = 0, high = b->n_tensors;
    while (low < high) {
        int middle = low + (high - low) / 2, order = strcmp(b->tensors[middle].name, name);
        if (order == 0) return &b->tensors[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const char *gfli_blob_meta(const gfli_blob *b, const char *key) {
    for (int i = 0; i < b->n_meta; i++)
        if (!strcmp(b->meta[2 * i], key)) return b->meta[2 * i + 1];
    return NULL;
}

/* From element `from`, the first, to the one that follows at[]; at[] goes round to zeros. */
static int64_t gfli_blob_step(const gfli_tensor *t, int64_t at[8], int64_t from) {
    for (int d = t->rank - 1; d >= 0; d--) {
        from += t->stride[d];
        if (++at[d] < t->shape[d]) break;
        from -= t->shape[d] * t->stride[d];
        at[d] = 0;
    }
    return from;
}

/* The elements of a strided tensor in the order of its indices: all that it spans is read at once,
 * unless most of that belongs to others. */
static gfl_status gfli_blob_gather(gfli_blob *b, const gfli_tensor *t, uint8_t *out) {
    const size_t size = (size_t)gfli_dtypes[t->dtype].bytes;
    int64_t at[8] = {0}, extent = 1, from = 0;
    uint8_t *all = NULL;
    if (t->count == 0) return GFL_OK;
    for (int d = 0; d < t->rank; d++) extent += (t->shape[d] - 1) * t->stride[d];
    const bool dense = (uint64_t)extent / 4 <= t->count;
    if (dense) GFLI_TRY(gfli_alloc(b->context, (size_t)extent, size, "a tensor", &all));
    gfl_status status = GFL_OK;
    if (dense) status = gfli_blob_pread(b, t->offset, all, (uint64_t)extent * size);
    for (size_t i = 0; i < t->count && status == GFL_OK; i++) {
        if (dense)
            memcpy(out + i * size, all + (size_t)from * size, size);
        else
            status = gfli_blob_pread(b, t->offset + (uint64_t)from * size, out + i * size, size);
        from = gfli_blob_step(t, at, from);
    }
    gfli_free(b->context, all);
    return status;
}

gfl_status gfli_blob_read_raw(gfli_blob *b, const gfli_tensor *t, void *out) {
    if (t->strided) return gfli_blob_gather(b, t, (uint8_t *)out);
    return gfli_blob_pread(b, t->offset, out, t->bytes);
}

static void gfli_blob_widen(const uint8_t *from, gfli_dtype type, size_t n, float *to) {
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        double wide;
        if (type == GFLI_F64) {
            memcpy(&wide, from + 8 * i, 8);
            to[i] = (float)wide;
            continue;
        }
        memcpy(&half, from + 2 * i, 2);
        to[i] = type == GFLI_F16 ? gfli_f16_to_f32(half) : gfli_bf16_to_f32(half);
    }
}

gfl_status gfli_blob_read_f32(gfli_blob *b, const gfli_tensor *t, float *out) {
    uint8_t piece[8192];
    if (t->dtype == GFLI_F32) return gfli_blob_read_raw(b, t, out);
    if (t->dtype > GFLI_F64)
        return gfli_error(b->context, GFL_E_FORMAT, "%s: tensor %.200s is %s, not floating point",
                          b->path, t->name, gfli_dtypes[t->dtype].name);
    const size_t size = (size_t)gfli_dtypes[t->dtype].bytes, step = sizeof piece / size;
    if (t->strided) {
        uint8_t *apart;
        GFLI_TRY(gfli_alloc(b->context, t->count, size, "a tensor", &apart));
        gfl_status status = gfli_blob_gather(b, t, apart);
        if (status == GFL_OK) gfli_blob_widen(apart, t->dtype, t->count, out);
        gfli_free(b->context, apart);
        return status;
    }
    for (size_t i = 0; i < t->count; i += step) {
        const size_t n = t->count - i < step ? t->count - i : step;
        GFLI_TRY(gfli_blob_pread(b, t->offset + i * size, piece, n * size));
        gfli_blob_widen(piece, t->dtype, n, out + i);
    }
    return GFL_OK;
}
