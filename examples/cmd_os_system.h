/* cmd_os_system.h - what a system provides beneath cmd_os.c: cmd_os_posix.c or cmd_os_windows.c */
#ifndef GFL_CMD_OS_SYSTEM_H
#define GFL_CMD_OS_SYSTEM_H

#include "cmd_os.h"
#include <signal.h>

/* Each has the rest of cmd_os.h too.  What fails says why in errno. */

/* The seam: false fails the operation, with errno. */
bool os_may(const char *operation, const char *path);

typedef enum os_sys_how { OS_SYS_NEW, OS_SYS_AFRESH, OS_SYS_APPEND, OS_SYS_IN_PLACE } os_sys_how;
/* To read, as bytes; *other: it is there, and not a regular file. */
FILE *os_sys_open_regular(const char *path, bool *other);
FILE *os_sys_open(const char *path, os_sys_how how); /* to write; binary, not inherited */
bool os_sys_sync(FILE *f);
bool os_sys_copy_mode(FILE *f, const char *from);
/* Where a chain of links ends, also where nothing is there yet; free() frees it. */
char *os_sys_follow(const char *path);
bool os_sys_link(const char *from, const char *to); /* a second name; nothing may have it */
long os_sys_process(void);

/* What catch_signals() has a signal set and say. */
extern volatile sig_atomic_t os_sys_signal;
#define OS_SYS_STOPPING "\ngfl: finishing this step; again to stop now\n"

#endif
