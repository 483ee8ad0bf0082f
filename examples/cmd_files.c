/* cmd_files.c - files that are whole or absent */
#include "cmd_files.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

char *join_path(const char *folder, const char *name) {
    const size_t n = strlen(folder) + strlen(name) + 2;
    char *path = take(n, 1);
    if (path) snprintf(path, n, "%s/%s", folder, name);
    return path;
}

bool out_open(out_file *o, const char *name) {
    memset(o, 0, sizeof *o);
    o->name = name;
    errno = 0;
    if (!strcmp(name, "-"))
        o->f = stdout;
    else if (os_create(&o->output, name))
        o->f = o->output.stream;
    if (!o->f) report_errno("%s cannot be written", name);
    return o->f != NULL;
}

bool out_commit(out_file *o) {
    const bool good =
        o->f == stdout ? fflush(stdout) == 0 && !ferror(stdout) : os_commit(&o->output);
    if (!good) report_errno("%s cannot be written", o->name);
    o->f = NULL;
    return good;
}

void out_keep_part(out_file *o) {
    const bool replaces = o->output.temporary && os_exists(o->output.path);
    char part[4096] = "";
    if (o->output.temporary) {
        snprintf(part, sizeof part, "%.4080s.partial", o->output.path);
        char *path = take(strlen(part) + 1, 1);
        if (!path) {
            out_abandon(o);
            return;
        }
        strcpy(path, part);
        free(o->output.path);
        o->output.path = path;
    }
    if (out_commit(o) && part[0])
        talk("gfl: what was found so far is in %s%s%s%s", part, replaces ? "; " : "",
             replaces ? o->name : "", replaces ? " is as it was before" : "");
}

void out_abandon(out_file *o) {
    if (o->f && o->f != stdout) os_abandon(&o->output);
    o->f = NULL;
}
