/* starve.c - memory for the command, of which the n-th piece is refused: STARVE_AT=N, from 1 */
#include "starve.h"
#undef malloc
#undef calloc
#undef realloc
#undef strdup
#include <errno.h>

/* The piece that was asked for: is it the one? */
static int refused(void) {
    static int n;
    const char *at = getenv("STARVE_AT");
    if (!at || atoi(at) != ++n) return 0;
    errno = ENOMEM;
    return 1;
}

void *starve_malloc(size_t n) {
    return refused() ? NULL : malloc(n);
}

void *starve_calloc(size_t n, size_t size) {
    return refused() ? NULL : calloc(n, size);
}

void *starve_realloc(void *p, size_t n) {
    return refused() ? NULL : realloc(p, n);
}

char *starve_strdup(const char *text) {
    const size_t size = strlen(text) + 1;
    char *copy = starve_malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}
