/* cmd_os.c - the command's own calls of the operating system: what all systems share */
#include "cmd_os.h"
#include "cmd.h"
#include "cmd_os_system.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef GFLI_OS_SEAM
int gfli_os_seam(const char *operation, const char *path);
bool os_may(const char *operation, const char *path) {
    const int e = gfli_os_seam(operation, path);
    if (e) errno = e;
    return !e;
}
#else
bool os_may(const char *operation, const char *path) {
    (void)operation;
    (void)path;
    return true;
}
#endif

/* ---- reading and logs ------------------------------------------------------------------------ */

static const char *read_all(FILE *f, size_t limit, char **bytes, size_t *size) {
    size_t room = 1 << 16, n = 0;
    *bytes = malloc(room);
    while (*bytes) {
        n += fread(*bytes + n, 1, room - 1 - n, f);
        if (ferror(f)) return strerror(errno);
        if (n > limit) return "it is too large";
        if (n < room - 1) {
            (*bytes)[n] = 0;
            *size = n;
            return NULL;
        }
        char *more = realloc(*bytes, room *= 2);
        if (!more) free(*bytes);
        *bytes = more;
    }
    return "out of memory";
}

static const char *reason; /* of os_open's last failure, where errno has no word for it */

FILE *os_open(const char *path) {
    bool other;
    FILE *f = os_sys_open_regular(path, &other);
    reason = other ? "it is not a regular file" : NULL;
    if (other) errno = EINVAL;
    return f;
}

const char *os_reason(void) {
    return reason ? reason : strerror(errno);
}

const char *os_read(const char *path, size_t limit, char **bytes, size_t *size) {
    *bytes = NULL;
    *size = 0;
    FILE *f = os_open(path);
    if (!f) return os_reason();
    const char *why = read_all(f, limit, bytes, size);
    fclose(f);
    if (!why) return NULL;
    free(*bytes);
    *bytes = NULL;
    return why;
}

FILE *os_open_log(const char *path, bool afresh) {
    if (!os_may("create", path)) return NULL;
    FILE *f = os_sys_open(path, afresh ? OS_SYS_AFRESH : OS_SYS_APPEND);
    if (f) setvbuf(f, NULL, _IOFBF, 1 << 18); /* a line at once: os_flush knows why it failed */
    return f;
}

bool os_flush(FILE *f, const char *path) {
    (void)path;
    const bool failed_before = ferror(f) != 0;
    if (!os_may("write", path) || fflush(f) != 0) return false;
    if (failed_before) errno = EIO;
    return !failed_before;
}

bool os_sync(FILE *f, const char *path) {
    return os_flush(f, path) && os_may("sync", path) && os_sys_sync(f);
}

/* ---- files that are whole or absent ---------------------------------------------------------- */

/* A name of its own beside the target: another process may be writing the same file. */
static FILE *open_temporary(const char *path, char **name) {
    const size_t room = strlen(path) + 48;
    FILE *f = NULL;
    *name = malloc(room);
    for (int i = 0; *name && i < 1000 && !f; i++) {
        snprintf(*name, room, "%s.%ld-%d.tmp", path, os_sys_process(), i);
        if (!os_may("create", *name)) break;
        f = os_sys_open(*name, OS_SYS_NEW);
        if (!f && errno != EEXIST) break;
    }
    if (f) return f;
    const int e = errno;
    free(*name);
    *name = NULL;
    errno = e;
    return NULL;
}

/* Also where a process that was killed has left the temporary name. */
static bool link_over(const char *from, const char *temporary, const char *to) {
    if (!os_may("keep", temporary)) return false;
    if (os_exists(temporary) && !os_remove(temporary)) return false;
    if (!os_sys_link(from, temporary)) return os_rename(from, to);
    if (os_rename(temporary, to)) return true;
    const int e = errno;
    (void)os_remove(temporary);
    errno = e;
    return false;
}

bool os_keep(const char *from, const char *to) {
    if (is_same_file(from, to)) return true; /* renaming one of them would leave both */
    const size_t room = strlen(to) + 8;
    char *temporary = malloc(room);
    if (!temporary) return false;
    snprintf(temporary, room, "%s.tmp", to);
    const bool good = link_over(from, temporary, to);
    const int e = good ? 0 : errno;
    free(temporary);
    errno = e;
    return good;
}

bool os_create(os_output *out, const char *path) {
    os_file file;
    memset(out, 0, sizeof *out);
    out->path = os_sys_follow(path);
    if (!out->path) return false;
    const bool there = os_find(out->path, &file);
    const bool direct = there && file.kind != OS_FILE;
    out->stream = direct ? os_sys_open(out->path, OS_SYS_IN_PLACE)
                         : open_temporary(out->path, &out->temporary);
    if (out->stream && (!there || direct || os_sys_copy_mode(out->stream, out->path))) return true;
    const int e = errno;
    os_abandon(out);
    errno = e;
    return false;
}

bool os_commit(os_output *out) {
    const char *name = out->temporary ? out->temporary : out->path;
    bool good = out->temporary ? os_sync(out->stream, name) : os_flush(out->stream, name);
    int e = good ? 0 : errno;
    if (fclose(out->stream) != 0 && good) {
        good = false;
        e = errno;
    }
    out->stream = NULL;
    if (good && out->temporary) {
        good = os_rename(out->temporary, out->path);
        if (!good) e = errno;
    }
    if (good) {
        free(out->temporary);
        out->temporary = NULL;
    }
    os_abandon(out);
    errno = e;
    return good;
}

void os_abandon(os_output *out) {
    if (out->stream) fclose(out->stream);
    if (out->temporary) os_remove(out->temporary);
    free(out->temporary);
    free(out->path);
    memset(out, 0, sizeof *out);
}

/* ---- the process ----------------------------------------------------------------------------- */

volatile sig_atomic_t os_sys_signal;

int caught_signal(void) {
    return os_sys_signal;
}
