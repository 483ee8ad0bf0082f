/* arrange.c - pieces of memory with lifetimes, packed into one block */
#pragma once

enum { GFLI_PIECE_ALIGN = 64 };

/* The largest piece that has no place yet, the first of equals; -1: none. */
static int gfli_largest_piece(const gfli_piece *pieces, int n) {
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!pieces[i].placed && (best < 0 || pieces[i].bytes > pieces[best].bytes)) best = i;
    return best;
}

/* The lowest place for piece `at` among the placed ones, a list in the order of places. */
static void gfli_place_piece(gfli_piece *pieces, int *head, int at) {
    gfli_piece *piece = &pieces[at];
    size_t offset = 0;
    for (int k = *head; k >= 0; k = pieces[k].next) {
        const gfli_piece *other = &pieces[k];
        if (piece->first > other->last || other->first > piece->last) continue;
        if (offset + piece->bytes <= other->offset) break;
        if (other->offset + other->bytes > offset) offset = other->offset + other->bytes;
    }
    int *link = head;
    while (*link >= 0 && pieces[*link].offset <= offset) link = &pieces[*link].next;
    piece->offset = offset;
    piece->placed = true;
    piece->next = *link;
    *link = at;
}

/* Largest first, which for a network's maps is as good as any order found (see test_backward). */
bool gfli_arrange(gfli_piece *pieces, int n, size_t *bytes) {
    size_t sum = 0;
    int head = -1;
    *bytes = 0;
    for (int i = 0; i < n; i++) {
        gfli_piece *p = &pieces[i];
        p->offset = 0;
        p->placed = p->bytes == 0 || p->last < p->first;
        if (p->placed) continue;
        if (p->bytes > SIZE_MAX / 4 - sum) return false;
        p->bytes = (p->bytes + GFLI_PIECE_ALIGN - 1) / GFLI_PIECE_ALIGN * GFLI_PIECE_ALIGN;
        sum += p->bytes;
    }
    for (int i; (i = gfli_largest_piece(pieces, n)) >= 0;) {
        gfli_place_piece(pieces, &head, i);
        const size_t end = pieces[i].offset + pieces[i].bytes;
        if (end > *bytes) *bytes = end;
    }
    return true;
}
