/* starve.h - read before each file of the command: its memory comes from starve.c */
#ifndef GFL_STARVE_H
#define GFL_STARVE_H

#define _XOPEN_SOURCE 700 /* the most that any of them asks of the system's headers */
#include <stdlib.h>
#include <string.h>

void *starve_malloc(size_t n);
void *starve_calloc(size_t n, size_t size);
void *starve_realloc(void *p, size_t n);
char *starve_strdup(const char *text);

#undef strdup
#define malloc  starve_malloc
#define calloc  starve_calloc
#define realloc starve_realloc
#define strdup  starve_strdup

#endif
