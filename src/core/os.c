/* os.c - the operating system, as all systems share it: rules, texts, the seam for tests */
#pragma once

#ifdef GFLI_OS_SEAM
int gfli_os_seam(const char *operation, const char *path);
#    define GFLI_OS_MAY(operation, path) gfli_os_seam(operation, path)
#else
#    define GFLI_OS_MAY(operation, path) 0
#endif

/* What a single call of the system is asked for at most: some refuse more than an int can say. */
enum { GFLI_OS_PIECE = 1 << 30 };

static size_t gfli_os_piece(size_t size) {
    return size < GFLI_OS_PIECE ? size : (size_t)GFLI_OS_PIECE;
}

gfl_status gfli_os_error(gfl_context *context, const char *path, const char *what, int e) {
    char text[256];
    gfli_sys_text(e, text, sizeof text);
    return gfli_error(context, gfli_sys_is_memory(e) ? GFL_E_MEMORY : GFL_E_IO, "%.600s %s: %s",
                      path, what, text);
}

gfl_status gfli_os_refuse(gfl_context *context, const char *path, const char *what,
                          gfli_os_kind kind) {
    const char *is = kind == GFLI_OS_FOLDER ? "folder" : kind == GFLI_OS_PIPE ? "FIFO" : "device";
    return gfli_error(context, GFL_E_IO, "%.600s %s: it is a %s, not a regular file", path, what,
                      is);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Standard input that is a pipe or a terminal; a file that was redirected into it is opened by its
 * name like any other, and so can be read more than once. */
static bool gfli_os_is_stream(const char *path) {
    gfli_os_info info;
    return !strcmp(path, "/dev/stdin") && gfli_sys_look(path, &info) == 0 &&
           info.kind != GFLI_OS_FILE && info.kind != GFLI_OS_FOLDER;
}

gfl_status gfli_os_open(gfl_context *context, const char *path, gfli_os_source source,
                        gfli_handle *out, gfli_os_info *info) {
    memset(info, 0, sizeof *info);
    *out = GFLI_NO_HANDLE;
    const bool stream = source == GFLI_OS_REGULAR_OR_STDIN && gfli_os_is_stream(path);
    int e = stream ? gfli_sys_open_stdin(out) : gfli_sys_open(path, out);
    if (e) return gfli_os_error(context, path, "cannot be opened", e);
    e = gfli_sys_describe(*out, info);
    gfl_status status = GFL_OK;
    if (e)
        status = gfli_os_error(context, path, "cannot be opened", e);
    else if (!stream && info->kind != GFLI_OS_FILE)
        status = gfli_os_refuse(context, path, "cannot be opened", info->kind);
    if (status == GFL_OK) return GFL_OK;
    gfli_os_close(*out);
    *out = GFLI_NO_HANDLE;
    return status;
}

gfl_status gfli_os_read(gfl_context *context, const char *path, gfli_handle file, void *out,
                        size_t size, size_t *got) {
    size_t n = 1;
    for (*got = 0; n && *got < size; *got += n) {
        int e = gfli_sys_read(file, (char *)out + *got, gfli_os_piece(size - *got), &n);
        if (e) return gfli_os_error(context, path, "cannot be read", e);
    }
    return GFL_OK;
}

gfl_status gfli_os_read_at(gfl_context *context, const char *path, gfli_handle file,
                           uint64_t offset, void *out, size_t size, size_t *got) {
    size_t n = 1;
    for (*got = 0; n && *got < size; *got += n) {
        int e = gfli_sys_read_at(file, offset + *got, (char *)out + *got,
                                 gfli_os_piece(size - *got), &n);
        if (e) return gfli_os_error(context, path, "cannot be read", e);
    }
    return GFL_OK;
}

void gfli_os_close(gfli_handle file) {
    if (file != GFLI_NO_HANDLE) (void)gfli_sys_close(file);
}

gfli_os_info gfli_os_look(const char *path) {
    gfli_os_info info;
    memset(&info, 0, sizeof info);
    if (gfli_sys_look(path, &info) != 0) info.kind = GFLI_OS_NOTHING;
    return info;
}

/* ---- changing -------------------------------------------------------------------------------- */

int gfli_os_create(const char *path, int mode, gfli_handle *out, bool *exists) {
    int e = GFLI_OS_MAY("create", path);
    *out = GFLI_NO_HANDLE;
    if (!e) e = gfli_sys_create(path, mode, out);
    *exists = e && gfli_sys_is_exists(e);
    return e;
}

int gfli_os_open_in_place(const char *path, gfli_handle *out) {
    *out = GFLI_NO_HANDLE;
    return gfli_sys_open_in_place(path, out);
}

int gfli_os_write(const char *path, gfli_handle file, const void *data, size_t size) {
    int e = GFLI_OS_MAY("write", path);
    size_t n = 0;
    (void)path;
    for (size_t done = 0; !e && done < size; done += n)
        e = gfli_sys_write(file, (const char *)data + done, gfli_os_piece(size - done), &n);
    return e;
}

int gfli_os_sync(const char *path, gfli_handle file) {
    int e = GFLI_OS_MAY("sync", path);
    (void)path;
    return e ? e : gfli_sys_sync(file);
}

int gfli_os_finish(gfli_handle file) {
    return gfli_sys_close(file);
}

int gfli_os_rename(const char *from, const char *to) {
    int e = GFLI_OS_MAY("rename", to);
    return e ? e : gfli_sys_rename(from, to);
}

int gfli_os_remove(const char *path) {
    int e = GFLI_OS_MAY("remove", path);
    return e ? e : gfli_sys_remove(path);
}

void gfli_os_sync_folder(const char *path) {
    char folder[4096];
    size_t n = gfli_os_folder_length(path);
    if (n >= sizeof folder || GFLI_OS_MAY("sync folder", path) != 0) return;
    memcpy(folder, n ? path : ".", n ? n : 1);
    folder[n ? n : 1] = 0;
    (void)gfli_sys_sync_folder(folder);
}

/* ---- threads and the processor --------------------------------------------------------------- */

gfl_status gfli_thread_start(gfl_context *context, gfli_thread *thread, void (*run)(void *arg),
                             void *arg) {
    thread->run = run;
    thread->arg = arg;
    int e = gfli_sys_thread_start(thread);
    thread->running = e == 0;
    if (!e) return GFL_OK;
    char text[256];
    gfli_sys_text(e, text, sizeof text);
    return gfli_error(context, gfli_sys_is_memory(e) ? GFL_E_MEMORY : GFL_E_DEVICE,
                      "a thread could not be started: %s", text);
}
