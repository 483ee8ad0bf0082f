/* cmd_os_posix.c - the command's own calls of the operating system where it is POSIX */
#if !defined(_WIN32)
#    define _XOPEN_SOURCE 700
#    include "cmd_os_system.h"
#    include "cmd.h"
#    include <dirent.h>
#    include <errno.h>
#    include <fcntl.h>
#    include <signal.h>
#    include <stdlib.h>
#    include <string.h>
#    include <sys/resource.h>
#    include <sys/stat.h>
#    include <time.h>
#    include <unistd.h>

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
    out->size = out->kind == OS_FILE ? (uint64_t)info.st_size : 0;
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
        if (!is_folder(failed) && (!os_may("folder", failed) || mkdir(failed, 0777) != 0)) {
            if (errno == EEXIST) errno = ENOTDIR;
            return false;
        }
        if (!kept) return true;
        *p = kept;
    }
}

bool os_rename(const char *from, const char *to) {
    return os_may("rename", to) && rename(from, to) == 0;
}

bool os_sys_link(const char *from, const char *to) {
    return link(from, to) == 0;
}

bool os_remove(const char *path) {
    return os_may("remove", path) && remove(path) == 0;
}

bool os_truncate(const char *path, long long size) {
    return os_may("cut", path) && truncate(path, (off_t)size) == 0;
}

void os_sync_folder(const char *path) {
    const int fd = os_may("sync folder", path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    (void)!fsync(fd);
    close(fd);
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

size_t os_folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* Where a chain of links ends, also where nothing is there yet; free() frees it. */
char *os_sys_follow(const char *path) {
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

/* ---- streams --------------------------------------------------------------------------------- */

static FILE *stream(int fd, const char *mode) {
    FILE *f = fd < 0 ? NULL : fdopen(fd, mode);
    if (!f && fd >= 0) close(fd);
    return f;
}

FILE *os_sys_open_regular(const char *path, bool *other) {
    struct stat info;
    /* Not to wait for who writes into a pipe. */
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    *other = fd >= 0 && (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode));
    if (!*other) return stream(fd, "rb");
    close(fd);
    return NULL;
}

FILE *os_sys_open(const char *path, os_sys_how how) {
    static const int flags[] = {O_CREAT | O_EXCL, O_CREAT | O_TRUNC, O_CREAT | O_APPEND, 0};
    return stream(open(path, O_WRONLY | O_CLOEXEC | flags[how], 0666),
                  how == OS_SYS_APPEND ? "a" : "w");
}

bool os_sys_sync(FILE *f) {
    return fsync(fileno(f)) == 0;
}

bool os_sys_copy_mode(FILE *f, const char *from) {
    struct stat info;
    return stat(from, &info) != 0 || fchmod(fileno(f), info.st_mode & 07777) == 0 || errno == EPERM;
}

long os_sys_process(void) {
    return (long)getpid();
}

/* ---- one process at a time ------------------------------------------------------------------- */

/* Locks by fcntl leave nothing behind, and tell who has them. */
static os_locked set_lock(int fd, const char *path, long *holder) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (os_may("lock", path) && fcntl(fd, F_SETLK, &lock) == 0) return OS_LOCKED;
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
    if (fd >= 0 || errno != ENOENT || !os_may("create", path)) return fd;
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
        const os_locked result = set_lock(lock->fd, path, holder);
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
    if (lock->fd >= 0 && set_lock(fd, from, &holder) != OS_LOCKED) {
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

void os_prepare(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    /* What is closed stays an error to use: input cannot be read, output not written. */
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

extern char **environ; /* POSIX has it in no header */

const char *os_variable(int i) {
    return environ ? environ[i] : NULL;
}

long os_peak_megabytes(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss / 1024 : 0;
}

/* A terminal that is closed, or a batch system, may send its signal several times; a second Ctrl-C
 * is someone who does not want to wait. */
static void on_signal(int number) {
    static const char text[] = OS_SYS_STOPPING;
    static volatile sig_atomic_t interrupted;
    if (!os_sys_signal) os_sys_signal = number;
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

double os_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool os_is_terminal(int fd) {
    return isatty(fd) != 0;
}
#else
typedef int cmd_os_is_another; /* a file must have something in it */
#endif
