/* test_arrange.c - pieces of memory with lifetimes in one block */
#include "test.h"

enum { PIECES = 60, MOMENTS = 40 };

static uint32_t state = 1;

static int draw(int n) {
    state = state * 1664525u + 1013904223u;
    return (int)((state >> 8) % (uint32_t)n);
}

static bool together(const gfli_piece *a, const gfli_piece *b) {
    return a->bytes > 0 && b->bytes > 0 && a->first <= b->last && b->first <= a->last;
}

/* What no arrangement can do without: the most that is needed at one moment. */
static size_t alive(const gfli_piece *pieces, int n) {
    size_t most = 0;
    for (int t = 0; t < MOMENTS; t++) {
        size_t now = 0;
        for (int i = 0; i < n; i++)
            if (pieces[i].first <= t && t <= pieces[i].last) now += pieces[i].bytes;
        if (now > most) most = now;
    }
    return most;
}

static void pieces_of_one_time_do_not_meet(void) {
    for (int round = 0; round < 300; round++) {
        gfli_piece pieces[PIECES];
        size_t bytes, sum = 0, end = 0;
        memset(pieces, 0, sizeof pieces);
        for (int i = 0; i < PIECES; i++) {
            pieces[i].bytes = (size_t)draw(5) * (size_t)draw(3000);
            pieces[i].last = -1;
            gfli_need(&pieces[i], draw(MOMENTS));
            gfli_need(&pieces[i], draw(MOMENTS));
        }
        CHECK(gfli_arrange(pieces, PIECES, &bytes));
        for (int i = 0; i < PIECES; i++) {
            const gfli_piece *a = &pieces[i];
            CHECK(a->offset % 64 == 0 && a->bytes % 64 == 0);
            if (a->bytes > 0 && a->offset + a->bytes > end) end = a->offset + a->bytes;
            sum += a->bytes;
            for (int k = 0; k < i; k++) {
                const gfli_piece *b = &pieces[k];
                const bool apart =
                    a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset;
                CHECK(!together(a, b) || apart);
            }
        }
        CHECK(bytes == end && bytes >= alive(pieces, PIECES) && bytes <= sum);
    }
}

/* In the order in which they come these three would take 384 bytes. */
static void the_largest_is_placed_first(void) {
    gfli_piece pieces[3];
    size_t bytes;
    memset(pieces, 0, sizeof pieces);
    pieces[0].bytes = 64;
    pieces[1].bytes = 128;
    pieces[1].last = 1;
    pieces[2].bytes = 192;
    pieces[2].first = 1;
    pieces[2].last = 2;
    CHECK(gfli_arrange(pieces, 3, &bytes) && bytes == 320);
    CHECK(pieces[2].offset == 0 && pieces[1].offset == 192 && pieces[0].offset == 0);
}

static void what_is_never_needed_has_no_place(void) {
    gfli_piece pieces[2];
    size_t bytes;
    memset(pieces, 0, sizeof pieces);
    pieces[0].bytes = 1000;
    pieces[0].last = pieces[1].last = -1;
    CHECK(gfli_arrange(pieces, 2, &bytes) && bytes == 0);
    gfli_need(&pieces[0], 7);
    CHECK(pieces[0].first == 7 && pieces[0].last == 7);
    gfli_need(&pieces[0], 3);
    CHECK(pieces[0].first == 3 && pieces[0].last == 7);
    CHECK(gfli_arrange(pieces, 2, &bytes) && bytes == 1024);
    CHECK(gfli_arrange(pieces, 0, &bytes) && bytes == 0);
}

static void a_block_beyond_counting_is_refused(void) {
    gfli_piece pieces[3];
    size_t bytes;
    memset(pieces, 0, sizeof pieces);
    for (int i = 0; i < 3; i++) pieces[i].bytes = SIZE_MAX / 9;
    CHECK(!gfli_arrange(pieces, 3, &bytes));
    CHECK(gfli_arrange(pieces, 1, &bytes) && bytes >= SIZE_MAX / 9);
    pieces[0].bytes = SIZE_MAX;
    CHECK(!gfli_arrange(pieces, 1, &bytes));
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(pieces_of_one_time_do_not_meet),
        TEST(the_largest_is_placed_first),
        TEST(what_is_never_needed_has_no_place),
        TEST(a_block_beyond_counting_is_refused),
        {0},
    };
    return test_main(argc, argv, cases);
}
