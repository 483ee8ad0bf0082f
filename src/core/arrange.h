/* arrange.h - one block of memory, divided */
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

/* Memory that is needed from one moment to another, both included. */
typedef struct gfli_piece {
    size_t bytes;    /* 0: it needs no place */
    size_t offset;   /* from the start of the block, a multiple of 64 */
    int first, last; /* moments; last < first: at none, it needs no place */
    int next;        /* while pieces are placed: the placed piece that begins after this one, -1 */
    bool placed;
} gfli_piece;

/* The piece is needed at this moment too.  A piece that begins with last = -1 was never needed. */
static inline void gfli_need(gfli_piece *piece, int moment) {
    if (piece->last < 0 || moment < piece->first) piece->first = moment;
    if (moment > piece->last) piece->last = moment;
}

/* Give every piece a place where it meets none that is needed at the same time; *bytes becomes the
 * size of the block.  False: no block can be that large.  Allocates nothing. */
bool gfli_arrange(gfli_piece *pieces, int n, size_t *bytes);

static inline void *gfli_piece_at(const gfli_piece *piece, void *block) {
    return (unsigned char *)block + piece->offset;
}
