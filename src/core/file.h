/* file.h - files that are whole or absent, or in memory */
#pragma once

/* Where what is written goes: to a file, or into memory. */
typedef struct gfli_sink {
    const char *path;
    gfl_bytes *bytes; /* not NULL: path is not looked at */
} gfli_sink;

static inline gfli_sink gfli_to_file(const char *path) {
    gfli_sink to = {path, NULL};
    return to;
}

static inline gfli_sink gfli_to_memory(gfl_bytes *bytes) {
    gfli_sink to = {NULL, bytes};
    return to;
}

/* A file being written under a temporary name beside its own; commit flushes and renames it.  In
 * memory commit gives the caller the buffer. */
typedef struct gfli_file {
    gfl_context *context;
    gfl_bytes *bytes;       /* of a file in memory */
    char *path, *temporary; /* temporary: NULL for a device, which is written in place */
    gfli_handle handle;
    char *buffer;       /* n of it wait to be written, or are the file in memory */
    size_t n, capacity; /* GFLI_FILE_BUFFER, or what memory has been taken */
    int failed;         /* the first error of the system */
} gfli_file;

gfl_status gfli_file_create(gfl_context *context, gfli_sink to, gfli_file *out);
/* So many bytes will be written: in memory they are taken at once. */
gfl_status gfli_file_expect(gfli_file *file, uint64_t size);
gfl_status gfli_file_write(gfli_file *file, const void *data, size_t size);
gfl_status gfli_file_commit(gfli_file *file); /* on failure the temporary file is gone */
void gfli_file_abandon(gfli_file *file);

/* The whole of a regular file, or of /dev/stdin; refuses more than limit bytes.  Free with
 * gfli_free. */
gfl_status gfli_file_read(gfl_context *context, const char *path, size_t limit, uint8_t **out,
                          size_t *size);
