/* file.c - files that are whole or absent */
#pragma once

static gfl_status gfli_file_error(gfl_context *context, const char *path, const char *what, int e) {
    return gfli_error(context, GFL_E_IO, "%s: %s: %s", path, what, strerror(e));
}

/* Length of the folder part of a path, with its slash; 0 when there is none. */
static size_t gfli_folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* Where a chain of symbolic links ends: renaming onto a link would replace the link and leave the
 * file it names as it was. */
static gfl_status gfli_file_follow(gfl_context *context, const char *path, char **out) {
    GFLI_TRY(gfli_strdup(context, path, out));
    for (int hop = 0; hop < 16; hop++) {
        char target[4096];
        ssize_t n = readlink(*out, target, sizeof target - 1);
        if (n <= 0) return GFL_OK;
        target[n] = 0;
        size_t folder = target[0] == '/' ? 0 : gfli_folder_length(*out);
        char *next;
        gfl_status status = gfli_alloc(context, folder + (size_t)n + 1, 1, "a path", &next);
        if (status == GFL_OK) {
            memcpy(next, *out, folder);
            memcpy(next + folder, target, (size_t)n + 1);
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
    memset(file, 0, sizeof *file);
}

/* A name of its own beside the target: another process, or another thread of this one, may be
 * writing the same file at the same time. */
static gfl_status gfli_file_open_temporary(gfli_file *file, mode_t mode) {
    size_t size = strlen(file->path) + 48;
    GFLI_TRY(gfli_alloc(file->context, size, 1, "a path", &file->temporary));
    int fd = -1;
    for (int i = 0; i < 1000 && fd < 0; i++) {
        snprintf(file->temporary, size, "%s.%ld-%d.tmp", file->path, (long)getpid(), i);
        fd = open(file->temporary, O_CREAT | O_EXCL | O_WRONLY, 0666);
        if (fd < 0 && errno != EEXIST) break;
    }
    if (fd < 0) return gfli_file_error(file->context, file->path, "cannot be created", errno);
    int e = mode && fchmod(fd, mode & 07777) ? errno : 0;
    if (e == 0 || e == EPERM) {
        file->stream = fdopen(fd, "wb");
        if (file->stream) return GFL_OK;
        e = errno;
    }
    close(fd);
    unlink(file->temporary);
    return gfli_file_error(file->context, file->path, "cannot be created", e);
}

gfl_status gfli_file_create(gfl_context *context, const char *path, gfli_file *out) {
    memset(out, 0, sizeof *out);
    if (!path || !*path) return gfli_error(context, GFL_E_ARG, "a file to write has no name");
    out->context = context;
    struct stat info;
    gfl_status status = gfli_file_follow(context, path, &out->path);
    if (status != GFL_OK) {
        memset(out, 0, sizeof *out);
        return status;
    }
    bool exists = stat(out->path, &info) == 0;
    if (exists && S_ISDIR(info.st_mode)) {
        status = gfli_file_error(context, path, "cannot be created", EISDIR);
    } else if (exists && !S_ISREG(info.st_mode)) {
        /* A pipe or a device: nothing can be put in its place. */
        out->stream = fopen(out->path, "wb");
        if (!out->stream) status = gfli_file_error(context, path, "cannot be opened", errno);
    } else {
        status = gfli_file_open_temporary(out, exists ? info.st_mode : 0);
    }
    if (status != GFL_OK) gfli_file_release(out);
    return status;
}

gfl_status gfli_file_write(gfli_file *file, const void *data, size_t size) {
    if (size == 0 || fwrite(data, 1, size, file->stream) == size) return GFL_OK;
    return gfli_file_error(file->context, file->path, "cannot be written", errno);
}

gfl_status gfli_file_printf(gfli_file *file, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vfprintf(file->stream, format, args);
    va_end(args);
    if (n >= 0) return GFL_OK;
    return gfli_file_error(file->context, file->path, "cannot be written", errno);
}

/* The name, too, must survive a loss of power.  File systems that cannot do it are left alone. */
static void gfli_folder_sync(gfl_context *context, const char *path) {
    size_t n = gfli_folder_length(path);
    char *folder;
    if (gfli_alloc(context, n + 2, 1, "a path", &folder) != GFL_OK) return;
    memcpy(folder, n ? path : ".", n ? n : 1);
    folder[n ? n : 1] = 0;
    int fd = open(folder, O_RDONLY);
    gfli_free(context, folder);
    if (fd < 0) return;
    (void)!fsync(fd);
    close(fd);
}

gfl_status gfli_file_commit(gfli_file *file) {
    gfl_status status = GFL_OK;
    bool failed_before = ferror(file->stream) != 0;
    int e = fflush(file->stream) ? errno : failed_before ? EIO : 0;
    if (!e && file->temporary && fsync(fileno(file->stream))) e = errno;
    if (fclose(file->stream) && !e) e = errno;
    if (!e && file->temporary && rename(file->temporary, file->path)) e = errno;
    if (e) {
        status = gfli_file_error(file->context, file->path,
                                 file->temporary ? "cannot be written, and is as it was before"
                                                 : "cannot be written",
                                 e);
        if (file->temporary) unlink(file->temporary);
    } else if (file->temporary) {
        gfli_folder_sync(file->context, file->path);
    }
    gfli_file_release(file);
    return status;
}

void gfli_file_abandon(gfli_file *file) {
    if (!file->stream) return;
    fclose(file->stream);
    if (file->temporary) unlink(file->temporary);
    gfli_file_release(file);
}

gfl_status gfli_file_read(gfl_context *context, const char *path, size_t limit, uint8_t **out,
                          size_t *size) {
    *out = NULL;
    *size = 0;
    FILE *f = fopen(path, "rb");
    if (!f) return gfli_file_error(context, path, "cannot be opened", errno);
    struct stat info;
    size_t n = 0, capacity = 0, first = 65536;
    bool regular = fstat(fileno(f), &info) == 0 && S_ISREG(info.st_mode) && info.st_size >= 0;
    if (regular && (uint64_t)info.st_size <= limit) first = (size_t)info.st_size + 1;
    gfl_status status = GFL_OK;
    uint8_t *bytes = NULL;
    if (regular && (uint64_t)info.st_size > limit)
        status = gfli_error(context, GFL_E_FORMAT, "%s: larger than %zu bytes", path, limit);
    /* One byte more than the file has: its end is seen without another round. */
    while (status == GFL_OK) {
        status = gfli_grow(context, &bytes, &capacity, n ? n + 1 : first, 1, path);
        if (status != GFL_OK) break;
        size_t got = fread(bytes + n, 1, capacity - n, f);
        n += got;
        if (ferror(f)) status = gfli_file_error(context, path, "cannot be read", errno);
        if (status == GFL_OK && n > limit)
            status = gfli_error(context, GFL_E_FORMAT, "%s: larger than %zu bytes", path, limit);
        if (n < capacity) break;
    }
    fclose(f);
    if (status != GFL_OK) {
        gfli_free(context, bytes);
        return status;
    }
    *out = bytes;
    *size = n;
    return GFL_OK;
}
