/* amalgamate.c - write one shipped file from its root under src/.
 *
 *     amalgamate src/gfl.h > gfl.h
 *
 * A root is ordinary C and compiles as it stands.  In the output each of its lines
 *
 *     #include "layer/module.ext"
 *
 * becomes that module under a banner; every other line is copied.  Modules include nothing
 * themselves: the root's order is the order of dependency, and since a name must be declared before
 * it is used, a compiler finds what is out of order.  System headers belong in the layers' std
 * modules only.  Nothing in the output depends on the date, the commit or the machine, so merging
 * two branches and regenerating gives what merging the generated files gives.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 4096, MAX_MODULES = 256, MAX_NAME = 128, WIDTH = 98 };

static char seen[MAX_MODULES][MAX_NAME];
static int n_seen;
static bool last_empty = true;

static void fail(const char *file, int line, const char *what, const char *detail) {
    fprintf(stderr, "%s:%d: error: %s%s\n", file, line, what, detail);
    exit(1);
}

static FILE *open_or_fail(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) fail(path, 0, "cannot be opened", "");
    return f;
}

/* Copy a line, but never two empty ones in a row. */
static void put(const char *s) {
    bool empty = s[0] == '\n';
    if (!(empty && last_empty)) fputs(s, stdout);
    last_empty = empty;
}

static void see(const char *root, int line, const char *name) {
    for (int i = 0; i < n_seen; i++)
        if (!strcmp(seen[i], name)) fail(root, line, "listed twice: ", name);
    if (n_seen == MAX_MODULES) fail(root, line, "one module too many: ", name);
    snprintf(seen[n_seen++], MAX_NAME, "%s", name);
}

/* The name in #include "name", or false. */
static bool quoted_include(const char *s, char name[MAX_NAME]) {
    return sscanf(s, "#include \"%127[^\"]\"", name) == 1;
}

static void rule(const char *left, const char *right) {
    fputs(left, stdout);
    for (size_t n = strlen(left) + strlen(right); n < WIDTH; n++) putchar('=');
    puts(right);
}

static void emit_module(const char *module) {
    char path[MAX_NAME + 8], s[MAX_LINE], name[MAX_NAME], head[MAX_NAME + 16];
    snprintf(path, sizeof path, "src/%s", module);
    snprintf(head, sizeof head, "/* %s - ", strrchr(module, '/') + 1);
    bool is_std = !strcmp(strrchr(module, '/') + 1, "std.h");
    FILE *f = open_or_fail(path);
    for (int line = 1; fgets(s, sizeof s, f); line++) {
        if (line == 1) {
            char *end = strstr(s, " */\n");
            if (strncmp(s, head, strlen(head)) != 0 || !end) fail(path, 1, "must begin: ", head);
            *end = 0;
            put("\n");
            rule("/* ", "");
            printf(" * src/%s - %s\n", module, s + strlen(head));
            rule(" * ", " */");
            last_empty = false;
            put("\n");
        } else if (line == 2) {
            if (strcmp(s, "#pragma once\n") != 0) fail(path, 2, "must be: ", "#pragma once");
        } else if (quoted_include(s, name) && !is_std) {
            fail(path, line, "only roots include modules: ", name);
        } else if (!strncmp(s, "#include <", 10) && !is_std) {
            fail(path, line, "a system header belongs in the layer's std module: ", s);
        } else {
            put(s);
        }
    }
    fclose(f);
}

int main(int argc, char **argv) {
    char s[MAX_LINE], name[MAX_NAME];
    if (argc != 2) return fputs("usage: amalgamate src/ROOT\n", stderr), 2;
    FILE *f = open_or_fail(argv[1]);
    printf("/* Generated from %s by \"make amalgamate\".  Edit src/, not this file. */\n", argv[1]);
    for (int line = 1; fgets(s, sizeof s, f); line++) {
        if (!quoted_include(s, name) || !strchr(name, '/')) {
            put(s);
            continue;
        }
        see(argv[1], line, name);
        emit_module(name);
    }
    fclose(f);
    return fflush(stdout) ? 1 : 0;
}
