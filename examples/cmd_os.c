/* cmd_os.c - the command's own calls of the operating system */
#define _XOPEN_SOURCE 700
#include "cmd_os.h"
#include "cmd.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef GFLI_OS_SEAM
int gfli_os_seam(const char *operation, const char *path);
static bool may(const char *operation, const char *path) {
    const int e = gfli_os_seam(operation, path);
    if (e) errno = e;
    return !e;
}
#else
#    define may(operation, path) true
#endif

/* ---- names ----------------------------------------------------------------------------------- */

os_kind os_look(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0) return OS_NOTHING;
    return S_ISREG(info.st_mode)   ? OS_FILE
           : S_ISDIR(info.st_mode) ? OS_FOLDER
           : S_ISLNK(info.st_mode) ? OS_LINK
                                   : OS_OTHER;
}

bool os_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool os_find(const char *path, os_file *out) {
    struct stat info;
    if (stat(path, &info) != 0) return false;
    out->kind = S_ISREG(info.st_mode) ? OS_FILE : S_ISDIR(info.st_mode) ? OS_FOLDER : OS_OTHER;
    out->device = (uint64_t)info.st_dev;
    out->number = (uint64_t)info.st_ino;
    return true;
}

char *os_resolve(const char *path) {
    return realpath(path, NULL);
}

bool os_list(const char *folder, bool (*each)(void *user, const char *name), void *user) {
    DIR *dir = opendir(folder);
    struct dirent *entry;
    bool good = true;
    if (!dir) return false;
    errno = 0;
    while (good && (entry = readdir(dir)) != NULL) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        good = each(user, entry->d_name);
        errno = 0;
    }
    const int e = errno;
    closedir(dir);
    errno = e;
    return good && e == 0;
}

static bool is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool os_make_folder(const char *path, char *failed) {
    snprintf(failed, 4096, "%s", path);
    for (char *p = failed + 1;; p++) {
        if (*p && *p != '/') continue;
        char kept = *p;
        *p = 0;
        if (!is_folder(failed) && (!may("folder", failed) || mkdir(failed, 0777) != 0)) {
            if (errno == EEXIST) errno = ENOTDIR;
            return false;
        }
        if (!kept) return true;
        *p = kept;
    }
}

bool os_rename(const char *from, const char *to) {
    return may("rename", to) && rename(from, to) == 0;
}

bool os_keep(const char *from, const char *to) {
    if (!may("keep", to) || (unlink(to) != 0 && errno != ENOENT)) return false;
    return link(from, to) == 0 || rename(from, to) == 0;
}

bool os_remove(const char *path) {
    return may("remove", path) && remove(path) == 0;
}

bool os_truncate(const char *path, long long size) {
    return may("cut", path) && truncate(path, (off_t)size) == 0;
}

void os_sync_folder(const char *path) {
    const int fd = may("sync folder", path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    (void)!fsync(fd);
    close(fd);
}

bool os_clean(const char *folder, bool (*wanted)(const char *name)) {
    DIR *dir = opendir(folder);
    bool good = dir != NULL;
    for (struct dirent *entry; good && (entry = readdir(dir)) != NULL;) {
        char path[4400];
        if (!wanted(entry->d_name)) continue;
        snprintf(path, sizeof path, "%.4090s/%.300s", folder, entry->d_name);
        good = os_remove(path);
    }
    if (dir) closedir(dir);
    return good;
}

bool os_full_path(const char *path, char *out, size_t room) {
    size_t n = 0;
    out[0] = 0;
    if (path[0] != '/') {
        if (!getcwd(out, room)) return false;
        n = strlen(out);
        if (n && out[n - 1] != '/' && n + 1 < room) out[n++] = '/';
    }
    if (n + strlen(path) + 1 > room) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(out + n, path, strlen(path) + 1);
    return true;
}

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

const char *os_read(const char *path, size_t limit, char **bytes, size_t *size) {
    struct stat info;
    *bytes = NULL;
    *size = 0;
    /* Not to wait for who writes into a pipe. */
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return strerror(errno);
    const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    FILE *f = regular ? fdopen(fd, "rb") : NULL;
    if (!f) {
        close(fd);
        return regular ? "out of memory" : "it is not a regular file";
    }
    const char *why = read_all(f, limit, bytes, size);
    fclose(f);
    if (!why) return NULL;
    free(*bytes);
    *bytes = NULL;
    return why;
}

FILE *os_open_log(const char *path, bool afresh) {
    if (!may("create", path)) return NULL;
    const int how = O_WRONLY | O_CREAT | O_CLOEXEC | (afresh ? O_TRUNC : O_APPEND);
    const int fd = open(path, how, 0666);
    FILE *f = fd < 0 ? NULL : fdopen(fd, afresh ? "w" : "a");
    if (!f && fd >= 0) close(fd);
    if (f) setvbuf(f, NULL, _IOFBF, 1 << 18); /* a line at once: os_flush knows why it failed */
    return f;
}

bool os_flush(FILE *f, const char *path) {
    (void)path;
    const bool failed_before = ferror(f) != 0;
    if (!may("write", path) || fflush(f) != 0) return false;
    if (failed_before) errno = EIO;
    return !failed_before;
}

bool os_sync(FILE *f, const char *path) {
    return os_flush(f, path) && may("sync", path) && fsync(fileno(f)) == 0;
}

/* ---- files that are whole or absent ---------------------------------------------------------- */

/* A name of its own beside the target: another process may be writing the same file. */
static int open_temporary(const char *path, char **name) {
    const size_t room = strlen(path) + 48;
    int fd = -1;
    *name = malloc(room);
    for (int i = 0; *name && i < 1000 && fd < 0; i++) {
        snprintf(*name, room, "%s.%ld-%d.tmp", path, (long)getpid(), i);
        if (!may("create", *name)) break;
        fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST) break;
    }
    if (fd >= 0) return fd;
    free(*name);
    *name = NULL;
    return -1;
}

/* Where a chain of links ends, also where nothing is there yet; free() frees it. */
static char *follow(const char *path) {
    char *name = strdup(path), target[4096];
    for (int hop = 0; name && hop < 16; hop++) {
        const ssize_t n = readlink(name, target, sizeof target - 1);
        if (n <= 0) return name;
        target[n] = 0;
        char *slash = target[0] == '/' ? NULL : strrchr(name, '/');
        const size_t folder = slash ? (size_t)(slash - name) + 1 : 0;
        char *next = malloc(folder + (size_t)n + 1);
        if (next) {
            memcpy(next, name, folder);
            memcpy(next + folder, target, (size_t)n + 1);
        }
        free(name);
        name = next;
    }
    return name;
}

bool os_create(os_output *out, const char *path) {
    struct stat info;
    memset(out, 0, sizeof *out);
    out->path = follow(path);
    if (!out->path) return false;
    const bool there = stat(out->path, &info) == 0;
    const bool direct = there && !S_ISREG(info.st_mode);
    int fd =
        direct ? open(out->path, O_WRONLY | O_CLOEXEC) : open_temporary(out->path, &out->temporary);
    if (fd >= 0 && there && !direct && fchmod(fd, info.st_mode & 07777) != 0 && errno != EPERM) {
        close(fd);
        fd = -1;
    }
    out->stream = fd < 0 ? NULL : fdopen(fd, "wb");
    if (out->stream) return true;
    const int e = errno;
    if (fd >= 0) close(fd);
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

/* ---- one process at a time ------------------------------------------------------------------- */

/* Locks by fcntl leave nothing behind, and tell who has them. */
static os_locked set_lock(int fd, long *holder) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(fd, F_SETLK, &lock) == 0) return OS_LOCKED;
    if (errno != EACCES && errno != EAGAIN)
        return errno == ENOLCK || errno == ENOSYS || errno == EINVAL || errno == EOPNOTSUPP
                   ? OS_CANNOT_LOCK
                   : OS_LOCK_FAILED;
    if (fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) *holder = (long)lock.l_pid;
    return OS_HELD_BY_OTHER;
}

static int open_to_lock(os_lock *lock, const char *path) {
    lock->made = false;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT || !may("create", path)) return fd;
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    lock->made = fd >= 0;
    return fd >= 0 || errno != EEXIST ? fd : open(path, O_RDWR | O_CLOEXEC);
}

os_locked os_lock_file(os_lock *lock, const char *path, long *holder) {
    *holder = 0;
    for (;;) {
        struct stat held, named;
        lock->fd = open_to_lock(lock, path);
        if (lock->fd < 0) return OS_LOCK_FAILED;
        const os_locked result = set_lock(lock->fd, holder);
        if (result != OS_LOCKED) {
            const int e = errno;
            os_unlock(lock);
            errno = e;
            return result;
        }
        /* Who held it before may have put another file in its place meanwhile. */
        if (fstat(lock->fd, &held) == 0 && stat(path, &named) == 0 && held.st_dev == named.st_dev &&
            held.st_ino == named.st_ino)
            return OS_LOCKED;
        os_unlock(lock);
    }
}

bool os_replace_locked(os_lock *lock, const char *from, const char *path) {
    long holder;
    const int fd = open(from, O_RDWR | O_CLOEXEC);
    if (fd < 0) return false;
    if (lock->fd >= 0 && set_lock(fd, &holder) != OS_LOCKED) {
        close(fd);
        return false;
    }
    if (!os_rename(from, path)) {
        const int e = errno;
        close(fd);
        errno = e;
        return false;
    }
    if (lock->fd < 0) {
        close(fd);
        return true;
    }
    close(lock->fd);
    lock->fd = fd;
    return true;
}

void os_unlock(os_lock *lock) {
    if (lock->fd >= 0) close(lock->fd);
    lock->fd = -1;
}

/* ---- the process ----------------------------------------------------------------------------- */

void os_prepare(void) {
    /* What is closed stays an error to use: input cannot be read, output not written. */
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

long os_peak_megabytes(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss / 1024 : 0;
}

static volatile sig_atomic_t signal_number;

/* A terminal that is closed, or a batch system, may send its signal several times; a second Ctrl-C
 * is someone who does not want to wait. */
static void on_signal(int number) {
    static const char text[] = "\ngfl: finishing this step; again to stop now\n";
    static volatile sig_atomic_t interrupted;
    if (!signal_number) signal_number = number;
    if (number != SIGINT) return;
    if (interrupted) _exit(128 + number);
    interrupted = 1;
    const int e = errno;
    (void)!write(2, text, sizeof text - 1);
    errno = e;
}

void catch_signals(void) {
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler == SIG_IGN) return; /* nohup */
    sigaction(SIGHUP, &action, NULL);
}

int caught_signal(void) {
    return signal_number;
}
