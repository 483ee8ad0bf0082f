/* amalgamate.c - write one shipped file from its root under src/.
 *
 *     amalgamate src/gfl.h > gfl.h
 *
 * A root is ordinary C and compiles as it stands.  In the output each of its lines
 *
 *     #include "layer/module.ext"
 *
 * becomes that module under a banner; every other line is copied.  Modules include nothing
 * themselves: the root's order is the order of dependency.  System headers belong in the layers'
 * std modules only.  Nothing in the output depends on the date, the commit or the machine, so
 * merging two branches and regenerating gives what merging the generated files gives.
 *
 * Two walls are checked.  A layer names only what its row of the table below allows: since a name
 * has to be declared before it is used, the first module of all roots that names something is the
 * one it belongs to.  And what belongs to a .c module is that module's alone: what several share is
 * declared in a header.  Only backend*.c, which list the operations of their layer, name those.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 4096, MAX_MODULES = 256, MAX_NAME = 128, MAX_IDENTIFIERS = 16384, WIDTH = 98 };

/* What a layer may use, beside itself. */
static const char *const layers[][2] = {
    {"api", ""},
    {"core", "api"},
    {"cpu", "api core"},
    {"cuda", "api core"},
    {"model", "api core"},
    {"data", "api core"},
    {"eval", "api core data"},
    {"ckpt", "api core data model"},
    {"export", "api core data model"},
    {"train", "api core model data"},
};

/* Other files' modules come before, or in a program beside: their names are taken too. */
static const char *const roots[] = {"src/gfl.h", "src/gfl_train.c", "src/gfl_cuda.cu"};

static char seen[MAX_MODULES][MAX_NAME];
static int n_seen, n_breaches;
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

/* ---- walls ----------------------------------------------------------------------------------- */

/* Names that begin with gfli_ or GFLI_, in a table by hash. */
static struct identifier { char name[MAX_NAME], owner[MAX_NAME]; } identifiers[MAX_IDENTIFIERS];

static struct identifier *find_identifier(const char *name) {
    unsigned at = 0;
    for (const char *p = name; *p; p++) at = at * 31 + (unsigned char)*p;
    for (int i = 0; i < MAX_IDENTIFIERS; i++) {
        struct identifier *id = &identifiers[(at + (unsigned)i) % MAX_IDENTIFIERS];
        if (!id->name[0]) snprintf(id->name, MAX_NAME, "%s", name);
        if (!strcmp(id->name, name)) return id;
    }
    fail("scripts/amalgamate.c", 0, "too many names; raise MAX_IDENTIFIERS at ", name);
    return NULL;
}

static size_t layer_length(const char *module) {
    return strcspn(module, "/");
}

static bool may_use(const char *module, const char *owner) {
    const size_t n = layer_length(module), m = layer_length(owner);
    if (n == m && !strncmp(module, owner, n)) return true;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        if (strlen(layers[i][0]) != n || strncmp(layers[i][0], module, n) != 0) continue;
        for (const char *p = layers[i][1]; *p; p += strspn(p, " ")) {
            if (strcspn(p, " ") == m && !strncmp(p, owner, m)) return true;
            p += strcspn(p, " ");
        }
        return false;
    }
    fail(module, 1, "no row of scripts/amalgamate.c has its layer", "");
    return false;
}

static bool is_alone(const char *owner, const char *module) {
    const size_t n = strlen(owner);
    return strcmp(owner + n - 2, ".c") == 0 && strcmp(owner, module) != 0 &&
           strncmp(strchr(module, '/'), "/backend", 8) != 0;
}

/* What a module names at p, of this many letters; what a line undefines is nobody's again. */
static void take_name(const char *module, int line, const char *p, size_t n, bool undefines) {
    char name[MAX_NAME];
    snprintf(name, sizeof name, "%.*s", (int)n, p);
    struct identifier *id = find_identifier(name);
    if (!id->owner[0]) snprintf(id->owner, MAX_NAME, "%s", module);
    if (undefines) id->owner[0] = 0;
    if (undefines || (may_use(module, id->owner) && !is_alone(id->owner, module))) return;
    n_breaches++;
    fprintf(stderr, "src/%s:%d: error: %s %s of %s\n", module, line,
            may_use(module, id->owner) ? "no header declares" : "this layer may not use", name,
            id->owner);
}

/* All names of a line that are neither in a comment nor in a string. */
static void take_line(const char *module, int line, const char *s, bool *comment) {
    const bool undefines = s[0] == '#' && !strncmp(s + 1 + strspn(s + 1, " "), "undef", 5);
    char quote = 0;
    for (const char *p = s; *p; p++) {
        if (*comment) {
            if (p[0] == '*' && p[1] == '/') *comment = false, p++;
        } else if (quote) {
            if (*p == '\\' && p[1])
                p++;
            else if (*p == quote)
                quote = 0;
        } else if (p[0] == '/' && p[1] == '*') {
            *comment = true, p++;
        } else if (*p == '"' || *p == '\'') {
            quote = *p;
        } else if (!strncmp(p, "gfli_", 5) || !strncmp(p, "GFLI_", 5)) {
            const size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                       "0123456789_");
            take_name(module, line, p, n, undefines);
            p += n - 1;
        }
    }
}

static void take_module(const char *module) {
    char path[MAX_NAME + 8], s[MAX_LINE];
    bool comment = false;
    snprintf(path, sizeof path, "src/%s", module);
    FILE *f = open_or_fail(path);
    for (int line = 1; fgets(s, sizeof s, f); line++) take_line(module, line, s, &comment);
    fclose(f);
}

static void check_walls(void) {
    char s[MAX_LINE], name[MAX_NAME];
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        FILE *f = open_or_fail(roots[i]);
        while (fgets(s, sizeof s, f))
            if (quoted_include(s, name) && strchr(name, '/')) take_module(name);
        fclose(f);
    }
    if (n_breaches) exit(1);
}

/* ---- output ---------------------------------------------------------------------------------- */

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
    check_walls();
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
