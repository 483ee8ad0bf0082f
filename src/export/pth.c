/* pth.c - a PyTorch checkpoint: a pickle and its tensors as stored records of a zip file */
#pragma once

/* ---- pickle, protocol 2 ---------------------------------------------------------------------- */

static void gfli_dump_text(gfli_buffer *b, const char *text) {
    size_t n = strlen(text);
    gfli_buffer_text(b, "X");
    gfli_buffer_number(b, n, 4);
    gfli_buffer_put(b, text, n);
}

static void gfli_dump_int(gfli_buffer *b, int64_t value) {
    bool is_short = value >= 0 && value <= INT32_MAX;
    gfli_buffer_text(b, is_short ? "J" : "\x8a\x08"); /* BININT, or LONG1 of 8 bytes */
    gfli_buffer_number(b, (uint64_t)value, is_short ? 4 : 8);
}

static void gfli_dump_ints(gfli_buffer *b, const int64_t *values, int n) {
    gfli_buffer_text(b, "(");
    for (int i = 0; i < n; i++) gfli_dump_int(b, values[i]);
    gfli_buffer_text(b, "t");
}

/* What torch.save writes for a dense tensor: the call that rebuilds it from record `key`. */
static void gfli_dump_tensor(gfli_buffer *b, const gfli_state_entry *e, int key) {
    char text[16];
    int64_t strides[4] = {0, 0, 0, 0}, step = 1;
    for (int i = e->rank - 1; i >= 0; i--) {
        strides[i] = step;
        step *= e->shape[i];
    }
    snprintf(text, sizeof text, "%d", key);
    gfli_buffer_text(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    gfli_dump_text(b, "storage");
    gfli_buffer_text(b, e->dtype == GFLI_I64 ? "ctorch\nLongStorage\n" : "ctorch\nFloatStorage\n");
    gfli_dump_text(b, text);
    gfli_dump_text(b, "cpu");
    gfli_dump_int(b, (int64_t)e->count);
    gfli_buffer_text(b, "tQ"); /* the storage, by its persistent id */
    gfli_dump_int(b, 0);
    gfli_dump_ints(b, e->shape, e->rank);
    gfli_dump_ints(b, strides, e->rank);
    gfli_buffer_text(b, "\x89"
                        "ccollections\nOrderedDict\n)RtR"); /* no gradient, no hooks */
}

static void gfli_dump_classes(const gfl_model *model, gfli_buffer *b, const char *key) {
    gfli_dump_text(b, key);
    gfli_buffer_text(b, "(");
    for (int k = 0; k < model->arch.n_classes; k++) gfli_dump_text(b, model->classes[k].name);
    gfli_buffer_text(b, "t");
}

static gfl_status gfli_meta_to_dump(void *to, const char *key, const char *value) {
    gfli_buffer *b = (gfli_buffer *)to;
    gfli_dump_text(b, key);
    gfli_dump_text(b, value);
    return b->status;
}

static gfl_status gfli_dump(const gfl_model *model, const gfli_state_entry *entries, int n,
                            gfli_buffer *b) {
    gfli_buffer_text(b, "\x80\x02}(");
    gfli_dump_text(b, "state_dict");
    gfli_buffer_text(b, "ccollections\nOrderedDict\n)R(");
    for (int i = 0; i < n; i++) {
        gfli_dump_text(b, entries[i].name);
        gfli_dump_tensor(b, &entries[i], i);
    }
    gfli_buffer_text(b, "u");
    gfli_dump_text(b, "meta");
    gfli_buffer_text(b, "}(");
    gfli_dump_classes(model, b, "CLASSES"); /* where mmdetection 1 and 2 look */
    gfli_dump_text(b, "dataset_meta");      /* and 3 */
    gfli_buffer_text(b, "}(");
    gfli_dump_classes(model, b, "classes");
    gfli_buffer_text(b, "u");
    gfli_dump_text(b, "gfl");
    gfli_buffer_text(b, "}(");
    GFLI_TRY(gfli_model_metadata(model, gfli_meta_to_dump, b));
    gfli_buffer_text(b, "uuu.");
    return b->status;
}

/* ---- zip ------------------------------------------------------------------------------------- */

/* Records begin at multiples of this, so that a file can be mapped and used in place. */
enum { GFLI_ZIPPER_ALIGN = 64 };

typedef struct gfli_zipper {
    gfli_file file;
    gfli_buffer head, directory; /* of the record being written, of all */
    uint64_t at;
    int n;
    uint32_t crc_table[8][256];
} gfli_zipper;

/* What a local header and the directory say alike. */
static void gfli_zipper_common(gfli_buffer *b, const char *name, uint32_t crc, size_t size,
                               size_t extra) {
    gfli_buffer_number(b, 0x0800, 2); /* names are UTF-8 */
    gfli_buffer_number(b, 0, 2);      /* stored */
    gfli_buffer_number(b, 0, 2);      /* midnight ... */
    gfli_buffer_number(b, 0x0021, 2); /* ... of 1 January 1980: the same model, the same file */
    gfli_buffer_number(b, crc, 4);
    gfli_buffer_number(b, size, 4);
    gfli_buffer_number(b, size, 4);
    gfli_buffer_number(b, strlen(name), 2);
    gfli_buffer_number(b, extra, 2);
}

static gfl_status gfli_zipper_add(gfli_zipper *z, const char *name, const void *data, size_t size) {
    const uint32_t crc = gfli_crc32(z->crc_table, 0, (const uint8_t *)data, size);
    const uint64_t end = z->at + 30 + strlen(name) + 4;
    const size_t padding =
        (size_t)((GFLI_ZIPPER_ALIGN - end % GFLI_ZIPPER_ALIGN) % GFLI_ZIPPER_ALIGN);
    gfli_buffer_number(&z->directory, 0x02014b50, 4);
    gfli_buffer_number(&z->directory, 0, 4); /* version 0 made it, and reads it */
    gfli_zipper_common(&z->directory, name, crc, size, 0);
    gfli_buffer_number(&z->directory, 0, 8); /* no comment, first disk, no attributes ... */
    gfli_buffer_number(&z->directory, 0, 2); /* ... of either kind */
    gfli_buffer_number(&z->directory, z->at, 4);
    gfli_buffer_text(&z->directory, name);
    z->head.n = 0;
    gfli_buffer_number(&z->head, 0x04034b50, 4);
    gfli_buffer_number(&z->head, 0, 2);
    gfli_zipper_common(&z->head, name, crc, size, padding + 4);
    gfli_buffer_text(&z->head, name);
    gfli_buffer_text(&z->head, "FB"); /* torch's name for padding */
    gfli_buffer_number(&z->head, padding, 2);
    for (size_t i = 0; i < padding; i++) gfli_buffer_text(&z->head, "Z");
    gfl_status status = z->head.status != GFL_OK ? z->head.status : z->directory.status;
    if (status == GFL_OK) status = gfli_file_write(&z->file, z->head.data, z->head.n);
    if (status == GFL_OK) status = gfli_file_write(&z->file, data, size);
    z->at += z->head.n + size;
    z->n++;
    return status;
}

static gfl_status gfli_zipper_end(gfli_zipper *z) {
    const size_t size = z->directory.n;
    gfli_buffer_number(&z->directory, 0x06054b50, 4);
    gfli_buffer_number(&z->directory, 0, 4); /* this disk, the directory's */
    gfli_buffer_number(&z->directory, (uint64_t)z->n, 2);
    gfli_buffer_number(&z->directory, (uint64_t)z->n, 2);
    gfli_buffer_number(&z->directory, size, 4);
    gfli_buffer_number(&z->directory, z->at, 4);
    gfli_buffer_number(&z->directory, 0, 2); /* no comment */
    GFLI_TRY(z->directory.status);
    return gfli_file_write(&z->file, z->directory.data, z->directory.n);
}

/* ---- the checkpoint -------------------------------------------------------------------------- */

static gfl_status gfli_zipper_model(const gfl_model *model, const gfli_state_entry *entries, int n,
                                    const gfli_buffer *pickle, gfli_values *values,
                                    gfli_zipper *z) {
    GFLI_TRY(gfli_zipper_add(z, "archive/data.pkl", pickle->data, pickle->n));
    GFLI_TRY(gfli_zipper_add(z, "archive/byteorder", "little", 6));
    for (int i = 0; i < n; i++) {
        char name[32];
        const void *data;
        snprintf(name, sizeof name, "archive/data/%d", i);
        GFLI_TRY(gfli_state_values(model, &entries[i], values, &data));
        GFLI_TRY(gfli_zipper_add(z, name, data, gfli_state_bytes(&entries[i])));
    }
    GFLI_TRY(gfli_zipper_add(z, "archive/version", "3\n", 2));
    return gfli_zipper_end(z);
}

/* Sizes and offsets have 32 bits, the number of records 16. */
static gfl_status gfli_zipper_check(const gfl_model *model, const gfli_state_entry *entries, int n,
                                    const gfli_buffer *pickle) {
    enum { A_RECORD = 256 }; /* headers and padding take less */
    uint64_t size = pickle->n;
    for (int i = 0; i < n; i++) size += gfli_state_bytes(&entries[i]) + A_RECORD;
    if (size < UINT32_MAX - 4 * A_RECORD && n < UINT16_MAX - 4) return GFL_OK;
    return gfli_error(model->context, GFL_E_UNSUPPORTED,
                      "a .pth can have at most 4 GB here, and this model needs %.1f GB; "
                      "safetensors have no limit",
                      (double)size * 1e-9);
}

gfl_status gfli_export_pth(const gfl_model *model, gfli_sink to) {
    gfli_state_entry *entries;
    gfli_values values = {NULL, 0};
    gfli_buffer pickle;
    gfli_zipper z;
    int n;
    memset(&pickle, 0, sizeof pickle);
    memset(&z, 0, sizeof z);
    pickle.context = z.head.context = z.directory.context = model->context;
    gfli_crc32_tables(z.crc_table);
    GFLI_TRY(gfli_state_entries(model, &entries, &n));
    gfl_status status = gfli_dump(model, entries, n, &pickle);
    if (status == GFL_OK) status = gfli_zipper_check(model, entries, n, &pickle);
    if (status == GFL_OK) status = gfli_file_create(model->context, to, &z.file);
    if (status == GFL_OK) status = gfli_zipper_model(model, entries, n, &pickle, &values, &z);
    if (status == GFL_OK)
        status = gfli_file_commit(&z.file);
    else
        gfli_file_abandon(&z.file);
    gfli_buffer_free(&pickle);
    gfli_buffer_free(&z.head);
    gfli_buffer_free(&z.directory);
    gfli_free(model->context, values.data);
    gfli_free(model->context, entries);
    return status;
}
