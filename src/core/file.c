/* file.c - files that are whole or absent */
#pragma once

gfl_status gfli_file_create(gfl_context *context, const char *path, gfli_file *out) {
    memset(out, 0, sizeof *out);
    if (!path || !*path) return gfli_error(context, GFL_E_ARG, "a file to write has no name");
    out->context = context;
    GFLI_TRY(gfli_strdup(context, path, &out->path));
    const size_t size = strlen(path) + 32;
    gfl_status status = gfli_alloc(context, size, 1, "a file name", &out->temporary);
    if (status == GFL_OK) {
        snprintf(out->temporary, size, "%s.tmp%ld", path, (long)getpid());
        out->stream = fopen(out->temporary, "wb");
        if (!out->stream)
            status = gfli_error(context, GFL_E_IO, "%s cannot be written: %s", out->temporary,
                                strerror(errno));
    }
    if (status != GFL_OK) {
        gfli_free(context, out->temporary);
        gfli_free(context, out->path);
        memset(out, 0, sizeof *out);
    }
    return status;
}

static gfl_status gfli_file_failed(gfli_file *file, const char *what) {
    return gfli_error(file->context, GFL_E_IO, "%s: %s failed: %s; the file under this name, if "
                      "any, is as it was", file->path, what, strerror(errno));
}

gfl_status gfli_file_write(gfli_file *file, const void *data, size_t size) {
    if (size && fwrite(data, 1, size, file->stream) != size)
        return gfli_file_failed(file, "writing");
    return GFL_OK;
}

gfl_status gfli_file_printf(gfli_file *file, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vfprintf(file->stream, format, args);
    va_end(args);
    return n < 0 ? gfli_file_failed(file, "writing") : GFL_OK;
}

static void gfli_file_release(gfli_file *file) {
    gfl_context *context = file->context;
    gfli_free(context, file->temporary);
    gfli_free(context, file->path);
    memset(file, 0, sizeof *file);
}

void gfli_file_abandon(gfli_file *file) {
    if (!file->temporary) return;
    if (file->stream) fclose(file->stream);
    remove(file->temporary);
    gfli_file_release(file);
}

/* The rename is on the disk only when the folder is. */
static void gfli_sync_folder(const char *path) {
    char folder[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof folder) return;
    memcpy(folder, path, n);
    folder[n] = 0;
    int fd = open(n ? folder : slash ? "/" : ".", O_RDONLY);
    if (fd < 0) return;
    (void)fsync(fd); /* not every file system can; the file's own fsync has been checked */
    close(fd);
}

gfl_status gfli_file_commit(gfli_file *file) {
    gfl_status status = GFL_OK;
    if (fflush(file->stream) != 0 || fsync(fileno(file->stream)) != 0)
        status = gfli_file_failed(file, "writing");
    if (fclose(file->stream) != 0 && status == GFL_OK) status = gfli_file_failed(file, "closing");
    file->stream = NULL;
    if (status == GFL_OK && rename(file->temporary, file->path) != 0)
        status = gfli_file_failed(file, "renaming the temporary file");
    if (status != GFL_OK) {
        gfli_file_abandon(file);
        return status;
    }
    gfli_sync_folder(file->path);
    gfli_file_release(file);
    return GFL_OK;
}

static gfl_status gfli_file_read_all(gfl_context *context, const char *path, FILE *f, size_t limit,
                                     uint8_t **out, size_t *size) {
    size_t capacity = 0, n = 0;
    for (;;) {
        gfl_status status = gfli_grow(context, out, &capacity, n + 65536, 1, path);
        if (status != GFL_OK) return status;
        size_t got = fread(*out + n, 1, capacity - n, f);
        n += got;
        if (n > limit)
            return gfli_error(context, GFL_E_FORMAT, "%s is larger than %zu bytes", path, limit);
        if (got) continue;
        if (ferror(f))
            return gfli_error(context, GFL_E_IO, "%s cannot be read: %s", path, strerror(errno));
        *size = n;
        return GFL_OK;
    }
}

gfl_status gfli_file_read(gfl_context *context, const char *path, size_t limit, uint8_t **out,
                          size_t *size) {
    *out = NULL;
    *size = 0;
    FILE *f = fopen(path, "rb");
    if (!f)
        return gfli_error(context, GFL_E_IO, "%s cannot be opened: %s", path, strerror(errno));
    gfl_status status = gfli_file_read_all(context, path, f, limit, out, size);
    fclose(f);
    if (status != GFL_OK) {
        gfli_free(context, *out);
        *out = NULL;
    }
    return status;
}
