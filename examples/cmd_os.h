/* cmd_os.h - what the command asks of the operating system */
#ifndef GFL_CMD_OS_H
#define GFL_CMD_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Another system is another cmd_os_posix.c.  Paths are UTF-8 where the system has them in another
 * form.  Calls that answer false leave the reason in errno.
 *
 * With GFLI_OS_SEAM defined, everything here that changes the file system first asks the same
 * gfli_os_seam(operation, path) as the library does (src/core/os.h), which the test program
 * defines: "folder", "create", "lock", "write", "sync", "rename", "keep", "remove", "cut", "sync
 * folder". */

/* ---- files ----------------------------------------------------------------------------------- */

typedef enum os_kind { OS_NOTHING, OS_FILE, OS_FOLDER, OS_LINK, OS_OTHER } os_kind;

os_kind os_look(const char *path); /* of a link: OS_LINK */
bool os_exists(const char *path);  /* follows links */
/* What a path leads to, links followed, how many bytes a regular file has, and who that is: the
 * numbers are 0 where the system has none.  False: it leads nowhere. */
typedef struct os_file {
    os_kind kind;
    uint64_t size, device, number;
} os_file;
bool os_find(const char *path, os_file *out);
/* The path without links, which free() frees; NULL where it leads nowhere. */
char *os_resolve(const char *path);
/* Call each(user, name) for what is in a folder, in any order, until it returns false: errno is 0
 * then. */
bool os_list(const char *folder, bool (*each)(void *user, const char *name), void *user);
/* Make a folder and those above it; where that fails, failed[4096] is the one that could not be. */
bool os_make_folder(const char *path, char *failed);
bool os_rename(const char *from, const char *to); /* replaces */
/* Give a file a second name in place of what has it, which stays until then; where a file cannot
 * have two, rename it. */
bool os_keep(const char *from, const char *to);
bool os_remove(const char *path);
bool os_truncate(const char *path, long long size);
void os_sync_folder(const char *path); /* where that is possible */
/* The path from the root of the file system; false: it does not fit. */
bool os_full_path(const char *path, char *out, size_t room);

/* The i-th variable of the environment, as NAME=VALUE; NULL: there are no more. */
const char *os_variable(int i);

/* Length of the folder part of a path, with its last separator; 0: it has none. */
size_t os_folder_length(const char *path);

/* A regular file to be read, as bytes; NULL, and os_reason() is why. */
FILE *os_open(const char *path);
const char *os_reason(void);
/* The whole of a regular file, which free() frees, with a 0 behind it: NULL, or why not. */
const char *os_read(const char *path, size_t limit, char **bytes, size_t *size);

/* A log: emptied or appended to, and written by stdio between these calls. */
FILE *os_open_log(const char *path, bool afresh);
bool os_flush(FILE *f, const char *path); /* false also when a write before has failed */
bool os_sync(FILE *f, const char *path);  /* the same, and it survives a loss of power */

/* A file that is whole or as it was before, also when two processes write it at once.  What a link
 * names is replaced, not the link, and a pipe or a device is written to as it is. */
typedef struct os_output {
    FILE *stream;
    char *path, *temporary;
} os_output;
bool os_create(os_output *out, const char *path);
bool os_commit(os_output *out);
void os_abandon(os_output *out); /* nothing where it was committed or never created */

/* A file that at most one process holds, until it ends.  While it is held, no other function may
 * open that file: closing it would give the lock back. */
typedef struct os_lock {
    int fd;    /* -1: it is not held */
    bool made; /* the file was not there before; another process may hold it even so */
} os_lock;
typedef enum os_locked { OS_LOCKED, OS_HELD_BY_OTHER, OS_CANNOT_LOCK, OS_LOCK_FAILED } os_locked;
os_locked os_lock_file(os_lock *lock, const char *path, long *holder);
/* Put another file in the place of the one that is held, and hold that. */
bool os_replace_locked(os_lock *lock, const char *from, const char *path);
void os_unlock(os_lock *lock);

/* ---- the process ----------------------------------------------------------------------------- */

/* At the start of the program: arguments become UTF-8, files that are opened later never become
 * standard output or error, and what cannot be written is an error and not the end. */
void os_prepare(int *argc, char ***argv);
/* The most that the process has had in memory so far. */
long os_peak_megabytes(void);
double os_seconds(void); /* monotonic clock */
bool os_is_terminal(int fd);

#endif
