/* arrange.h - one piece of memory, divided */
#pragma once

/* Cuts memory into pieces for every purpose; with base NULL it only measures. */
typedef struct gfli_cutter {
    unsigned char *base;
    size_t used;
} gfli_cutter;

static inline size_t gfli_padded(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

static inline void *gfli_cut(gfli_cutter *c, size_t bytes) {
    void *p = c->base ? c->base + c->used : NULL;
    c->used += gfli_padded(bytes);
    return p;
}
