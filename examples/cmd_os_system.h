/* cmd_os_system.h - what a system provides beneath cmd_os.c: cmd_os_posix.c or cmd_os_windows.c */
#ifndef GFL_CMD_OS_SYSTEM_H
#define GFL_CMD_OS_SYSTEM_H

#include "cmd_os.h"

/* Each has the rest of cmd_os.h too.  What fails says why in errno. */

/* The seam: false fails the operation, with errno. */
bool os_may(const char *operation, const char *path);

typedef enum os_sys_how { OS_SYS_NEW, OS_SYS_AFRESH, OS_SYS_APPEND, OS_SYS_IN_PLACE } os_sys_how;
FILE *os_sys_open(const char *path, os_sys_how how); /* to write; binary, not inherited */
bool os_sys_sync(FILE *f);
bool os_sys_copy_mode(FILE *f, const char *from);
/* Where a chain of links ends, also where nothing is there yet; free() frees it. */
char *os_sys_follow(const char *path);
bool os_sys_link(const char *from, const char *to); /* a second name; nothing may have it */
long os_sys_process(void);

#endif
