/* file.h - files that are whole or absent */
#pragma once

/* A file being written under a temporary name beside its own; commit flushes and renames it. */
typedef struct gfli_file {
    gfl_context *context;
    char *path, *temporary; /* temporary: NULL for a device, which is written in place */
    gfli_handle handle;
    char *buffer; /* [GFLI_FILE_BUFFER], n of which wait to be written */
    size_t n;
    int failed; /* the first error of the system */
} gfli_file;

gfl_status gfli_file_create(gfl_context *context, const char *path, gfli_file *out);
gfl_status gfli_file_write(gfli_file *file, const void *data, size_t size);
gfl_status gfli_file_commit(gfli_file *file); /* on failure the temporary file is gone */
void gfli_file_abandon(gfli_file *file);

/* The whole of a regular file, or of /dev/stdin; refuses more than limit bytes.  Free with
 * gfli_free. */
gfl_status gfli_file_read(gfl_context *context, const char *path, size_t limit, uint8_t **out,
                          size_t *size);
