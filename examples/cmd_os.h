/* cmd_os.h - what the command asks of the operating system */
#ifndef GFL_CMD_OS_H
#define GFL_CMD_OS_H

#include <stdbool.h>

/* Calls that fail return false and leave the reason in errno. */
bool os_exists(const char *path);
/* Make a folder and those above it; where that fails, failed[4096] is the one that could not be. */
bool os_make_folder(const char *path, char *failed);
bool os_rename(const char *from, const char *to);
bool os_remove(const char *path);

/* The most that the process has had in memory so far. */
long os_peak_megabytes(void);

#endif
