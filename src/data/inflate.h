/* inflate.h - the compressed data of a PNG */
#pragma once

/* A table of codes as RFC 1951 has them: the first bit of a code is the lowest of what comes. */
typedef struct gfli_inflate_codes {
    uint16_t fast[512]; /* by the next 9 bits: length << 12 | symbol; 0: the code is longer */
    uint16_t count[16]; /* of codes of a length */
    uint16_t symbols[288];
} gfli_inflate_codes;

typedef struct gfli_inflate {
    const uint8_t *at, *end; /* of the chunk at hand */
    const uint8_t *file_end;
    uint64_t bits;
    int n_bits;
    uint8_t *out;
    size_t n_out, room;
    const char *why; /* of the first failure */
    gfli_inflate_codes literals, distances;
} gfli_inflate;

/* From the first byte of the first chunk to the end of the stream; why not, or NULL. */
const char *gfli_inflate_all(gfli_inflate *z);
