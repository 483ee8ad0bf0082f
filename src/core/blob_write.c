/* blob_write.c - safetensors, written as they come */
#pragma once

struct gfli_blob_writer {
    gfl_context *context;
    gfli_file file;
    gfli_text header;
    gfl_json_writer json;       /* into the header */
    uint64_t declared, written; /* bytes of data */
    bool in_meta, sealed;
};

gfl_status gfli_blob_create(gfl_context *context, gfli_sink to, gfli_blob_writer **out) {
    gfli_blob_writer *w;
    *out = NULL;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *w, "a weight file", &w));
    w->context = context;
    w->header.context = context;
    w->header.what = "a safetensors header";
    w->json = gfli_json_to_text(&w->header);
    gfl_json_object(&w->json, NULL);
    gfl_status status = w->json.status;
    if (status == GFL_OK) status = gfli_file_create(context, to, &w->file);
    if (status != GFL_OK) {
        gfli_blob_abandon(w);
        return status;
    }
    *out = w;
    return GFL_OK;
}

gfl_status gfli_blob_put_meta(gfli_blob_writer *w, const char *key, const char *value) {
    if (!w->in_meta) gfl_json_object(&w->json, "__metadata__");
    w->in_meta = true;
    gfl_json_text(&w->json, key, value);
    return w->json.status;
}

static void gfli_blob_close_meta(gfli_blob_writer *w) {
    if (w->in_meta) gfl_json_end(&w->json);
    w->in_meta = false;
}

gfl_status gfli_blob_declare(gfli_blob_writer *w, const char *name, gfli_dtype dtype, int rank,
                             const int64_t *shape) {
    gfl_json_writer *j = &w->json;
    uint64_t bytes = (uint64_t)gfli_dtype_bytes(dtype);
    gfli_blob_close_meta(w);
    gfl_json_object(j, name);
    gfl_json_text(j, "dtype", gfli_dtype_name(dtype));
    gfl_json_array(j, "shape");
    for (int i = 0; i < rank; i++) {
        bytes *= (uint64_t)shape[i];
        gfl_json_integer(j, NULL, shape[i]);
    }
    gfl_json_end(j);
    gfl_json_array(j, "data_offsets");
    gfl_json_integer(j, NULL, (int64_t)w->declared);
    w->declared += bytes;
    gfl_json_integer(j, NULL, (int64_t)w->declared);
    gfl_json_end(j);
    gfl_json_end(j);
    return j->status;
}

/* The header is complete: pad it so that the data is aligned, and write it. */
static gfl_status gfli_blob_seal(gfli_blob_writer *w) {
    if (w->sealed) return GFL_OK;
    w->sealed = true;
    gfli_blob_close_meta(w);
    gfl_json_end(&w->json);
    GFLI_TRY(w->json.status);
    while (w->header.length % 64 != 56) GFLI_TRY(gfli_text_add(&w->header, " ", 1));
    uint8_t head[8];
    for (int i = 0; i < 8; i++) head[i] = (uint8_t)((uint64_t)w->header.length >> (8 * i));
    GFLI_TRY(gfli_file_expect(&w->file, 8 + w->header.length + w->declared));
    GFLI_TRY(gfli_file_write(&w->file, head, 8));
    return gfli_file_write(&w->file, w->header.bytes, w->header.length);
}

gfl_status gfli_blob_write(gfli_blob_writer *w, const void *data, size_t bytes) {
    GFLI_TRY(gfli_blob_seal(w));
    w->written += bytes;
    return gfli_file_write(&w->file, data, bytes);
}

gfl_status gfli_blob_finish(gfli_blob_writer *w) {
    gfl_status status = gfli_blob_seal(w);
    if (status == GFL_OK && w->written != w->declared)
        status = gfli_error(w->context, GFL_E_ARG, "%s: %llu bytes were declared, %llu written",
                            w->file.path, (unsigned long long)w->declared,
                            (unsigned long long)w->written);
    if (status == GFL_OK) status = gfli_file_commit(&w->file);
    gfli_blob_abandon(w);
    return status;
}

void gfli_blob_abandon(gfli_blob_writer *w) {
    if (!w) return;
    gfli_file_abandon(&w->file);
    gfli_free(w->context, w->header.bytes);
    gfli_free(w->context, w);
}
