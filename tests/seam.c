/* seam.c - what stands behind the command's seam in the test of kills: ends the process before its
 * n-th change of the file system, or lets that change fail
 *
 *     SEAM_LOG=FILE    a line for each change
 *     SEAM_AT=N        counted from 1
 *     SEAM_ERROR=E     the value of errno; without it, SIGKILL */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

int gfli_os_seam(const char *operation, const char *path);

int gfli_os_seam(const char *operation, const char *path) {
    static int n;
    const char *log = getenv("SEAM_LOG"), *at = getenv("SEAM_AT"), *error = getenv("SEAM_ERROR");
    FILE *f = log ? fopen(log, "a") : NULL;
    n++;
    if (f) {
        fprintf(f, "%d %s %s\n", n, operation, path);
        fclose(f);
    }
    if (!at || atoi(at) != n) return 0;
    if (error) return atoi(error);
    raise(SIGKILL);
    return 0;
}
