/* os_posix.c - the operating system where it is POSIX: Linux, macOS, the BSDs */
#pragma once
#if !defined(_WIN32)

/* ---- files ----------------------------------------------------------------------------------- */

/* Without O_NONBLOCK the opening of a FIFO would wait for a writer. */
int gfli_sys_open(const char *path, gfli_handle *out) {
    int fd;
    do fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    *out = fd;
    return fd < 0 ? errno : 0;
}

int gfli_sys_open_stdin(gfli_handle *out) {
    int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    *out = fd;
    return fd < 0 ? errno : 0;
}

int gfli_sys_open_in_place(const char *path, gfli_handle *out) {
    int fd;
    do fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    *out = fd;
    return fd < 0 ? errno : 0;
}

int gfli_sys_create(const char *path, int mode, gfli_handle *out) {
    int fd;
    do fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return errno;
    /* Another owner's permissions cannot be given; those of a new file are no error. */
    int e = mode && fchmod(fd, (mode_t)mode) ? errno : 0;
    if (e == 0 || e == EPERM) {
        *out = fd;
        return 0;
    }
    close(fd);
    unlink(path);
    return e;
}

static void gfli_posix_info(const struct stat *s, gfli_os_info *out) {
    memset(out, 0, sizeof *out);
    out->kind = S_ISREG(s->st_mode)    ? GFLI_OS_FILE
                : S_ISDIR(s->st_mode)  ? GFLI_OS_FOLDER
                : S_ISFIFO(s->st_mode) ? GFLI_OS_PIPE
                : S_ISSOCK(s->st_mode) ? GFLI_OS_PIPE
                                       : GFLI_OS_DEVICE;
    out->mode = (int)(s->st_mode & 07777);
    if (out->kind == GFLI_OS_FILE && s->st_size > 0) out->size = (uint64_t)s->st_size;
}

int gfli_sys_describe(gfli_handle file, gfli_os_info *out) {
    struct stat s;
    if (fstat((int)file, &s) != 0) return errno;
    gfli_posix_info(&s, out);
    return 0;
}

int gfli_sys_look(const char *path, gfli_os_info *out) {
    struct stat s;
    if (stat(path, &s) != 0) return errno;
    gfli_posix_info(&s, out);
    return 0;
}

/* The answer of read and its relatives: bytes, or -1 with errno. */
static int gfli_posix_count(ssize_t n, size_t *out) {
    *out = n > 0 ? (size_t)n : 0;
    return n < 0 ? errno : 0;
}

int gfli_sys_read(gfli_handle file, void *out, size_t size, size_t *got) {
    ssize_t n;
    do n = read((int)file, out, size);
    while (n < 0 && errno == EINTR);
    return gfli_posix_count(n, got);
}

int gfli_sys_read_at(gfli_handle file, uint64_t offset, void *out, size_t size, size_t *got) {
    ssize_t n;
    do n = pread((int)file, out, size, (off_t)offset);
    while (n < 0 && errno == EINTR);
    return gfli_posix_count(n, got);
}

int gfli_sys_write(gfli_handle file, const void *data, size_t size, size_t *done) {
    ssize_t n;
    do n = write((int)file, data, size);
    while (n < 0 && errno == EINTR);
    return n == 0 ? EIO : gfli_posix_count(n, done);
}

int gfli_sys_sync(gfli_handle file) {
    int e;
#    if defined(F_FULLFSYNC)
    if (fcntl((int)file, F_FULLFSYNC) != -1) return 0; /* macOS: fsync leaves it in the drive */
#    endif
    do e = fsync((int)file) ? errno : 0;
    while (e == EINTR);
    return e;
}

/* Whether it was interrupted or not, the descriptor is gone. */
int gfli_sys_close(gfli_handle file) {
    return close((int)file) && errno != EINTR ? errno : 0;
}

int gfli_sys_rename(const char *from, const char *to) {
    return rename(from, to) ? errno : 0;
}

int gfli_sys_remove(const char *path) {
    return unlink(path) ? errno : 0;
}

int gfli_sys_sync_folder(const char *folder) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno;
    int e = gfli_sys_sync(fd);
    close(fd);
    return e;
}

size_t gfli_os_folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

bool gfli_os_is_absolute(const char *path) {
    return path[0] == '/';
}

bool gfli_os_link_target(const char *path, char *out, size_t capacity) {
    ssize_t n = readlink(path, out, capacity - 1);
    if (n <= 0) return false;
    out[n] = 0;
    return true;
}

bool gfli_sys_is_memory(int e) {
    return e == ENOMEM;
}

bool gfli_sys_is_exists(int e) {
    return e == EEXIST;
}

void gfli_sys_text(int e, char *out, size_t size) {
    snprintf(out, size, "%s", strerror(e));
}

/* ---- processes, processors, time ------------------------------------------------------------- */

long gfli_os_process(void) {
    return (long)getpid();
}

double gfli_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void gfli_os_sleep(double seconds) {
    struct timespec t;
    t.tv_sec = (time_t)seconds;
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    nanosleep(&t, NULL);
}

/* The beginning of a file in which the kernel tells something; empty where there is none. */
static void gfli_kernel_text(const char *path, char *out, size_t capacity) {
    gfli_handle file;
    size_t n = 0, got = 1;
    out[0] = 0;
    if (gfli_sys_open(path, &file) != 0) return;
    while (n + 1 < capacity && got > 0) {
        if (gfli_sys_read(file, out + n, capacity - 1 - n, &got) != 0) break;
        n += got;
    }
    out[n] = 0;
    (void)gfli_sys_close(file);
}

/* CPUs of the affinity mask, as Linux prints it in hexadecimal; 0 when it does not. */
static int gfli_affinity_cpus(void) {
    char text[16384];
    int n = 0;
    gfli_kernel_text("/proc/self/status", text, sizeof text);
    const char *p = strstr(text, "\nCpus_allowed:");
    if (!p) return 0;
    for (p += 14; *p && *p != '\n'; p++) {
        int digit = *p >= '0' && *p <= '9' ? *p - '0' : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 : 0;
        for (; digit; digit &= digit - 1) n++;
    }
    return n;
}

/* CPUs' worth of time that the control group grants, rounded up; 0 when it sets no limit. */
static int gfli_cgroup_cpus(const char *path) {
    char text[64];
    long quota = 0, period = 0;
    gfli_kernel_text(path, text, sizeof text);
    if (sscanf(text, "%ld %ld", &quota, &period) != 2 || quota <= 0 || period <= 0) return 0;
    return (int)((quota + period - 1) / period);
}

/* The least of what limits there are; 0 is none. */
static int gfli_least_cpus(long online, int affinity, int group) {
    int n = online > 0 ? (int)online : 1;
    if (affinity > 0) n = gfli_min(n, affinity);
    if (group > 0) n = gfli_min(n, group);
    return n;
}

int gfli_os_cpus(void) {
    return gfli_least_cpus(sysconf(_SC_NPROCESSORS_ONLN), gfli_affinity_cpus(),
                           gfli_cgroup_cpus("/sys/fs/cgroup/cpu.max"));
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *gfli_posix_thread(void *p) {
    gfli_thread *thread = (gfli_thread *)p;
    thread->run(thread->arg);
    return NULL;
}

int gfli_sys_thread_start(gfli_thread *thread) {
    return pthread_create(&thread->handle, NULL, gfli_posix_thread, thread);
}

void gfli_thread_join(gfli_thread *thread) {
    if (thread->running) pthread_join(thread->handle, NULL);
    thread->running = false;
}

void gfli_mutex_init(gfli_mutex *mutex) {
    pthread_mutex_init(mutex, NULL);
}

void gfli_mutex_lock(gfli_mutex *mutex) {
    pthread_mutex_lock(mutex);
}

void gfli_mutex_unlock(gfli_mutex *mutex) {
    pthread_mutex_unlock(mutex);
}

void gfli_mutex_destroy(gfli_mutex *mutex) {
    pthread_mutex_destroy(mutex);
}

void gfli_condition_init(gfli_condition *condition) {
    pthread_cond_init(condition, NULL);
}

void gfli_condition_wait(gfli_condition *condition, gfli_mutex *mutex) {
    pthread_cond_wait(condition, mutex);
}

void gfli_condition_signal(gfli_condition *condition) {
    pthread_cond_signal(condition);
}

void gfli_condition_broadcast(gfli_condition *condition) {
    pthread_cond_broadcast(condition);
}

void gfli_condition_destroy(gfli_condition *condition) {
    pthread_cond_destroy(condition);
}
#endif
