/* os.h - the operating system: every call of it that the library makes */
#pragma once

/* os.c is what all systems share: the rules about files, the texts of errors, the seam for tests.
 * os_posix.c and os_windows.c are one system each: the functions gfli_sys_ at the end of this file,
 * without rules and texts.  Nothing else in the library opens, reads, writes, renames or removes a
 * file, starts a thread, asks for the time or counts processors.
 *
 * THE SEAM.  With GFLI_OS_SEAM defined (gfl.h's implementation alone needs it), everything that
 * changes the file system first calls
 *
 *     int gfli_os_seam(const char *operation, const char *path);
 *
 * which the test program defines.  It is told what is about to be done: "create", "write", "sync",
 * "rename" (path is the new name), "remove" or "sync folder" (path is that of the file in it).  0
 * goes on; a value of errno makes the operation fail with it, without being done; and it may end
 * the process.  A large write is one operation, however many calls of the system it takes. */

typedef intptr_t gfli_handle; /* an open file */
enum { GFLI_NO_HANDLE = -1 };

typedef enum gfli_os_kind {
    GFLI_OS_NOTHING,
    GFLI_OS_FILE, /* a regular one */
    GFLI_OS_FOLDER,
    GFLI_OS_PIPE,  /* or FIFO, or socket */
    GFLI_OS_DEVICE /* or anything else */
} gfli_os_kind;

typedef struct gfli_os_info {
    gfli_os_kind kind;
    uint64_t size; /* of a regular file */
    int mode;      /* its permissions, as POSIX counts them; 0 where there are none */
} gfli_os_info;

/* Only regular files are opened for reading.  A reader that takes bytes as they come, up to a limit
 * of its own, may allow "/dev/stdin" to be anything else too. */
typedef enum gfli_os_source { GFLI_OS_REGULAR, GFLI_OS_REGULAR_OR_STDIN } gfli_os_source;

/* Errors name the path and the reason: GFL_E_MEMORY where the system lacks memory, else
 * GFL_E_IO. */
gfl_status gfli_os_open(gfl_context *context, const char *path, gfli_os_source source,
                        gfli_handle *out, gfli_os_info *info);
/* Up to size bytes from where the last read ended; *got is less at the end only. */
gfl_status gfli_os_read(gfl_context *context, const char *path, gfli_handle file, void *out,
                        size_t size, size_t *got);
/* The same from an offset; any number of threads at once. */
gfl_status gfli_os_read_at(gfl_context *context, const char *path, gfli_handle file,
                           uint64_t offset, void *out, size_t size, size_t *got);
void gfli_os_close(gfli_handle file);        /* GFLI_NO_HANDLE is allowed */
gfli_os_info gfli_os_look(const char *path); /* follows links */

/* The calls that change files answer 0 or the system's error, for gfli_os_error: their callers say
 * what it means. */
int gfli_os_create(const char *path, int mode, gfli_handle *out, bool *exists);
int gfli_os_open_in_place(const char *path, gfli_handle *out); /* a pipe or a device */
int gfli_os_write(const char *path, gfli_handle file, const void *data, size_t size);
int gfli_os_sync(const char *path, gfli_handle file);
int gfli_os_finish(gfli_handle file);                 /* close what was written */
int gfli_os_rename(const char *from, const char *to); /* replaces */
int gfli_os_remove(const char *path);
void gfli_os_sync_folder(const char *path); /* the folder of this file; where that is possible */
gfl_status gfli_os_error(gfl_context *context, const char *path, const char *what, int e);
gfl_status gfli_os_refuse(gfl_context *context, const char *path, const char *what,
                          gfli_os_kind kind);

/* Length of the folder part of a path, with its last separator; 0 when there is none. */
size_t gfli_os_folder_length(const char *path);
bool gfli_os_is_absolute(const char *path);
/* Where the link at path leads, as it is written there; false: it is not a link. */
bool gfli_os_link_target(const char *path, char *out, size_t capacity);
long gfli_os_process(void); /* a number that no other running process has */
int gfli_os_cpus(void);     /* that this process may use, at least 1 */
double gfli_seconds(void);  /* monotonic clock */
void gfli_os_sleep(double seconds);

/* Threads, locks and signals.  A gfli_thread must not move while it runs. */
#if defined(_WIN32)
typedef SRWLOCK gfli_mutex;
typedef CONDITION_VARIABLE gfli_condition;
typedef HANDLE gfli_thread_handle;
#else
typedef pthread_mutex_t gfli_mutex;
typedef pthread_cond_t gfli_condition;
typedef pthread_t gfli_thread_handle;
#endif

typedef struct gfli_thread {
    gfli_thread_handle handle;
    void (*run)(void *arg);
    void *arg;
    bool running;
} gfli_thread;

gfl_status gfli_thread_start(gfl_context *context, gfli_thread *thread, void (*run)(void *arg),
                             void *arg);
void gfli_thread_join(gfli_thread *thread); /* one that was never started is allowed */

void gfli_mutex_init(gfli_mutex *mutex);
void gfli_mutex_lock(gfli_mutex *mutex);
void gfli_mutex_unlock(gfli_mutex *mutex);
void gfli_mutex_destroy(gfli_mutex *mutex);
void gfli_condition_init(gfli_condition *condition);
void gfli_condition_wait(gfli_condition *condition, gfli_mutex *mutex);
void gfli_condition_signal(gfli_condition *condition);    /* wakes one */
void gfli_condition_broadcast(gfli_condition *condition); /* wakes all */
void gfli_condition_destroy(gfli_condition *condition);

/* ---- what a system provides: each answers 0 or the system's error --------------------------- */

int gfli_sys_open(const char *path, gfli_handle *out); /* for reading; never waits */
int gfli_sys_open_stdin(gfli_handle *out);             /* a handle of its own */
int gfli_sys_open_in_place(const char *path, gfli_handle *out);
int gfli_sys_create(const char *path, int mode, gfli_handle *out); /* a new file; mode 0: default */
int gfli_sys_describe(gfli_handle file, gfli_os_info *out);
int gfli_sys_look(const char *path, gfli_os_info *out);
/* Some of the bytes, 0 at the end; an interruption is not one. */
int gfli_sys_read(gfli_handle file, void *out, size_t size, size_t *got);
int gfli_sys_read_at(gfli_handle file, uint64_t offset, void *out, size_t size, size_t *got);
int gfli_sys_write(gfli_handle file, const void *data, size_t size, size_t *done);
int gfli_sys_sync(gfli_handle file);
int gfli_sys_close(gfli_handle file);
int gfli_sys_rename(const char *from, const char *to);
int gfli_sys_remove(const char *path);
int gfli_sys_sync_folder(const char *folder);
int gfli_sys_thread_start(gfli_thread *thread);
bool gfli_sys_is_memory(int e); /* is it lack of memory? */
bool gfli_sys_is_exists(int e); /* is it that there is a file of that name? */
void gfli_sys_text(int e, char *out, size_t size);
