/* cmd_os.c - the command's own calls of the operating system */
#define _POSIX_C_SOURCE 200809L
#include "cmd_os.h"
#include "cmd.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files ----------------------------------------------------------------------------------- */

bool os_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool os_make_folder(const char *path, char *failed) {
    snprintf(failed, 4096, "%s", path);
    for (char *p = failed + 1;; p++) {
        if (*p && *p != '/') continue;
        char kept = *p;
        *p = 0;
        if (mkdir(failed, 0777) != 0 && errno != EEXIST) return false;
        if (!kept) return true;
        *p = kept;
    }
}

bool os_rename(const char *from, const char *to) {
    return rename(from, to) == 0;
}

bool os_remove(const char *path) {
    return remove(path) == 0;
}

/* ---- the process ----------------------------------------------------------------------------- */

long os_peak_megabytes(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss / 1024 : 0;
}

static volatile sig_atomic_t signal_number;

static void on_signal(int number) {
    signal_number = number;
}

void catch_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND; /* a second one ends the program at once */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int caught_signal(void) {
    return signal_number;
}
