/* meter.h - an allocator that counts what it gives, and gives no more than a limit */
#ifndef METER_H
#define METER_H

#include <stdlib.h>

typedef struct meter {
    size_t held, peak, limit; /* bytes */
} meter;

static inline void *meter_alloc(void *user, size_t size) {
    meter *m = (meter *)user;
    size_t *p = m->held + size <= m->limit ? (size_t *)malloc(size + 16) : NULL;
    if (!p) return NULL;
    p[0] = size;
    m->held += size;
    if (m->held > m->peak) m->peak = m->held;
    return p + 2;
}

static inline void meter_free(void *user, void *p) {
    size_t *at = (size_t *)p - 2;
    ((meter *)user)->held -= at[0];
    free(at);
}

#endif
