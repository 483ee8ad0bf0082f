/* file.c - files that are whole or absent, or in memory */
#pragma once

enum { GFLI_FILE_BUFFER = 1 << 16 };

/* Where a chain of symbolic links ends: renaming onto a link would replace the link and leave the
 * file it names as it was. */
static gfl_status gfli_file_follow(gfl_context *context, const char *path, char **out) {
    GFLI_TRY(gfli_strdup(context, path, out));
    for (int hop = 0; hop < 16; hop++) {
        char target[4096];
        if (!gfli_os_link_target(*out, target, sizeof target)) return GFL_OK;
        size_t folder = gfli_os_is_absolute(target) ? 0 : gfli_os_folder_length(*out),
               n = strlen(target);
        char *next;
        gfl_status status = gfli_alloc(context, folder + n + 1, 1, "a path", &next);
        if (status == GFL_OK) {
            memcpy(next, *out, folder);
            memcpy(next + folder, target, n + 1);
        }
        gfli_free(context, *out);
        *out = next;
        GFLI_TRY(status);
    }
    return GFL_OK;
}

static void gfli_file_release(gfli_file *file) {
    gfli_free(file->context, file->path);
    gfli_free(file->context, file->temporary);
    gfli_free(file->context, file->buffer);
    memset(file, 0, sizeof *file);
    file->handle = GFLI_NO_HANDLE;
}

/* A name of its own beside the target: another process, or another thread of this one, may be
 * writing the same file at the same time. */
static gfl_status gfli_file_open_temporary(gfli_file *file, int mode) {
    size_t size = strlen(file->path) + 48;
    GFLI_TRY(gfli_alloc(file->context, size, 1, "a path", &file->temporary));
    bool exists = true;
    int e = 0;
    for (int i = 0; i < 1000 && exists; i++) {
        snprintf(file->temporary, size, "%s.%ld-%d.tmp", file->path, gfli_os_process(), i);
        e = gfli_os_create(file->temporary, mode, &file->handle, &exists);
    }
    return e ? gfli_os_error(file->context, file->path, "cannot be created", e) : GFL_OK;
}

static gfl_status gfli_file_open(gfli_file *file) {
    GFLI_TRY(
        gfli_grow(file->context, &file->buffer, &file->capacity, GFLI_FILE_BUFFER, 1, "a buffer"));
    gfli_os_info info = gfli_os_look(file->path);
    if (info.kind == GFLI_OS_FOLDER)
        return gfli_os_refuse(file->context, file->path, "cannot be created", info.kind);
    if (info.kind == GFLI_OS_NOTHING || info.kind == GFLI_OS_FILE)
        return gfli_file_open_temporary(file, info.mode);
    /* A pipe or a device: nothing can be put in its place. */
    int e = gfli_os_open_in_place(file->path, &file->handle);
    return e ? gfli_os_error(file->context, file->path, "cannot be opened", e) : GFL_OK;
}

gfl_status gfli_file_create(gfl_context *context, gfli_sink to, gfli_file *out) {
    memset(out, 0, sizeof *out);
    out->handle = GFLI_NO_HANDLE;
    out->context = context;
    out->bytes = to.bytes;
    if (to.bytes) return gfli_strdup(context, "a file in memory", &out->path);
    if (!to.path || !*to.path) return gfli_error(context, GFL_E_ARG, "a file to write has no name");
    gfl_status status = gfli_file_follow(context, to.path, &out->path);
    if (status == GFL_OK) status = gfli_file_open(out);
    if (status != GFL_OK) gfli_file_release(out);
    return status;
}

/* The first error stays: what was lost once makes the whole file worthless. */
static gfl_status gfli_file_put(gfli_file *file, const void *data, size_t size) {
    if (!file->failed && size)
        file->failed =
            gfli_os_write(file->temporary ? file->temporary : file->path, file->handle, data, size);
    if (!file->failed) return GFL_OK;
    return gfli_os_error(file->context, file->path, "cannot be written", file->failed);
}

static gfl_status gfli_file_flush(gfli_file *file) {
    size_t n = file->n;
    file->n = 0;
    return gfli_file_put(file, file->buffer, n);
}

static gfl_status gfli_file_make_room(gfli_file *file, size_t size) {
    if (!file->bytes) return gfli_file_flush(file);
    if (size > SIZE_MAX - file->n)
        return gfli_error(file->context, GFL_E_MEMORY, "%s is too large for memory", file->path);
    return gfli_grow(file->context, &file->buffer, &file->capacity, file->n + size, 1, file->path);
}

gfl_status gfli_file_expect(gfli_file *file, uint64_t size) {
    if (!file->bytes) return GFL_OK;
    return gfli_file_make_room(file, size > SIZE_MAX ? SIZE_MAX : (size_t)size);
}

gfl_status gfli_file_write(gfli_file *file, const void *data, size_t size) {
    if (size > file->capacity - file->n) GFLI_TRY(gfli_file_make_room(file, size));
    if (size >= file->capacity && !file->bytes) return gfli_file_put(file, data, size);
    if (size) memcpy(file->buffer + file->n, data, size);
    file->n += size;
    return GFL_OK;
}

static gfl_status gfli_file_hand_over(gfli_file *file) {
    file->bytes->data = (uint8_t *)file->buffer;
    file->bytes->size = file->n;
    file->buffer = NULL;
    gfli_file_release(file);
    return GFL_OK;
}

gfl_status gfli_file_commit(gfli_file *file) {
    if (file->bytes) return gfli_file_hand_over(file);
    (void)gfli_file_flush(file);
    int e = file->failed;
    if (!e && file->temporary) e = gfli_os_sync(file->temporary, file->handle);
    int closing = gfli_os_finish(file->handle);
    if (!e) e = closing;
    if (!e && file->temporary) e = gfli_os_rename(file->temporary, file->path);
    gfl_status status = GFL_OK;
    if (e) {
        status = gfli_os_error(file->context, file->path,
                               file->temporary ? "cannot be written, and is as it was before"
                                               : "cannot be written",
                               e);
        if (file->temporary) (void)gfli_os_remove(file->temporary);
    } else if (file->temporary) {
        gfli_os_sync_folder(file->path);
    }
    gfli_file_release(file);
    return status;
}

void gfli_file_abandon(gfli_file *file) {
    if (!file->path) return;
    if (!file->bytes) gfli_os_close(file->handle);
    if (file->temporary) (void)gfli_os_remove(file->temporary);
    gfli_file_release(file);
}

/* More than the limit, or all of the file. */
static gfl_status gfli_file_read_all(gfl_context *context, const char *path, gfli_handle file,
                                     size_t first, size_t limit, uint8_t **bytes, size_t *size) {
    size_t capacity = 0, got;
    /* One byte more than the file has: its end is seen without another round. */
    do {
        GFLI_TRY(gfli_grow(context, bytes, &capacity, *size ? *size + 1 : first, 1, path));
        GFLI_TRY(gfli_os_read(context, path, file, *bytes + *size, capacity - *size, &got));
        *size += got;
        if (*size > limit)
            return gfli_error(context, GFL_E_FORMAT,
                              "%s: the file is larger than %zu bytes, the most that is read", path,
                              limit);
    } while (*size == capacity);
    return GFL_OK;
}

gfl_status gfli_file_read(gfl_context *context, const char *path, size_t limit, uint8_t **out,
                          size_t *size) {
    gfli_handle file;
    gfli_os_info info;
    *out = NULL;
    *size = 0;
    GFLI_TRY(gfli_os_open(context, path, GFLI_OS_REGULAR_OR_STDIN, &file, &info));
    gfl_status status;
    if (info.size > limit)
        status =
            gfli_error(context, GFL_E_FORMAT,
                       "%s: the file is larger than %zu bytes, the most that is read", path, limit);
    else
        status = gfli_file_read_all(context, path, file, info.size ? (size_t)info.size + 1 : 65536,
                                    limit, out, size);
    gfli_os_close(file);
    if (status == GFL_OK) return GFL_OK;
    gfli_free(context, *out);
    *out = NULL;
    *size = 0;
    return status;
}
