/* inflate.c - the compressed data of a PNG, to exactly as many bytes as its rows need */
#pragma once

/* A PNG's data is a zlib stream, cut into chunks at any byte.  Bits are taken from it through a
 * buffer of 64, which is filled across the borders of chunks.  Each block of the stream is stored,
 * or has codes that the format fixes, or begins with the code lengths of its own tables.  How many
 * bytes have to come out is known beforehand: fewer, or far more, are an error. */

static bool gfli_inflate_fail(gfli_inflate *z, const char *why) {
    if (!z->why) z->why = why;
    return false;
}

/* On to the next chunk, if that is data too.  Their lengths have been checked. */
static bool gfli_inflate_next_chunk(gfli_inflate *z) {
    const uint8_t *p = z->end + 4; /* behind the checksum */
    if (z->file_end - z->end < 16 || memcmp(p + 4, "IDAT", 4) != 0) return false;
    z->at = p + 8;
    z->end = z->at + gfli_big32(p);
    return true;
}

static void gfli_inflate_fill(gfli_inflate *z) {
    while (z->n_bits <= 56) {
        while (z->at == z->end)
            if (!gfli_inflate_next_chunk(z)) return;
        z->bits |= (uint64_t)*z->at++ << z->n_bits;
        z->n_bits += 8;
    }
}

/* The next n bits, at most 16; 0 and a failure where the data ends. */
static unsigned gfli_inflate_take(gfli_inflate *z, int n) {
    if (z->n_bits < n) gfli_inflate_fill(z);
    if (z->n_bits < n) {
        gfli_inflate_fail(z, "truncated PNG: its data ends too early");
        return 0;
    }
    unsigned value = (unsigned)(z->bits & ((1u << n) - 1));
    z->bits >>= n;
    z->n_bits -= n;
    return value;
}

/* Refused as zlib does: more codes than bits allow, or fewer, but for a single one. */
static bool gfli_inflate_set_codes(gfli_inflate_codes *c, const uint8_t *lengths, int n) {
    uint16_t next[16] = {0};
    uint32_t code[16] = {0};
    int left = 1, most = 0;
    memset(c, 0, sizeof *c);
    for (int i = 0; i < n; i++) c->count[lengths[i]]++;
    c->count[0] = 0;
    for (int length = 1; length <= 15; length++) {
        left = 2 * left - c->count[length];
        if (left < 0) return false;
        if (c->count[length]) most = length;
        next[length] = (uint16_t)(next[length - 1] + c->count[length - 1]);
        code[length] = (code[length - 1] + c->count[length - 1]) << 1;
    }
    if (left > 0 && most > 1) return false;
    for (int i = 0; i < n; i++) {
        int length = lengths[i];
        uint32_t reversed = 0;
        if (!length) continue;
        c->symbols[next[length]++] = (uint16_t)i;
        for (int bit = 0; bit < length; bit++)
            reversed |= (code[length] >> bit & 1) << (length - 1 - bit);
        code[length]++;
        for (; length <= 9 && reversed < 512; reversed += 1u << length)
            c->fast[reversed] = (uint16_t)(length << 12 | i);
    }
    return true;
}

/* A long code, bit by bit. */
static int gfli_inflate_long_symbol(gfli_inflate *z, const gfli_inflate_codes *c) {
    int code = 0, first = 0, index = 0;
    for (int length = 1; length <= 15; length++) {
        code |= (int)gfli_inflate_take(z, 1);
        if (code - c->count[length] < first) return c->symbols[index + code - first];
        index += c->count[length];
        first = (first + c->count[length]) << 1;
        code <<= 1;
    }
    gfli_inflate_fail(z, "damaged PNG: its data has an impossible code");
    return -1;
}

/* The next symbol; -1 after a failure. */
static int gfli_inflate_symbol(gfli_inflate *z, const gfli_inflate_codes *c) {
    if (z->n_bits < 32) gfli_inflate_fill(z);
    unsigned hit = c->fast[z->bits & 511];
    int length = (int)(hit >> 12);
    if (length == 0 || length > z->n_bits) {
        int symbol = gfli_inflate_long_symbol(z, c);
        return z->why ? -1 : symbol;
    }
    z->bits >>= length;
    z->n_bits -= length;
    return (int)(hit & 4095);
}

static bool gfli_inflate_copy(gfli_inflate *z, int symbol) {
    static const uint8_t more_bits[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                          2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    static const uint16_t bases[29] = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                       15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                       67, 83, 99, 115, 131, 163, 195, 227, 258};
    if (symbol > 285) return gfli_inflate_fail(z, "damaged PNG: its data has an impossible code");
    size_t length = bases[symbol - 257] + gfli_inflate_take(z, more_bits[symbol - 257]);
    int distance = gfli_inflate_symbol(z, &z->distances);
    if (distance < 0 || distance > 29)
        return gfli_inflate_fail(z, "damaged PNG: its data has an impossible code");
    int bits = distance < 4 ? 0 : distance / 2 - 1;
    size_t back = (distance < 4 ? (size_t)distance : (size_t)(2 + distance % 2) << bits) + 1 +
                  gfli_inflate_take(z, bits);
    if (z->why) return false;
    if (back > z->n_out)
        return gfli_inflate_fail(z, "damaged PNG: its data refers to data before its beginning");
    if (length > z->room - z->n_out)
        return gfli_inflate_fail(z, "damaged PNG: far more data than its size can need");
    for (uint8_t *p = z->out + z->n_out; length > 0; length--, p++, z->n_out++)
        *p = p[-(ptrdiff_t)back];
    return true;
}

static bool gfli_inflate_compressed(gfli_inflate *z) {
    for (;;) {
        int symbol = gfli_inflate_symbol(z, &z->literals);
        if (symbol < 0) return false;
        if (symbol == 256) return true;
        if (symbol > 256) {
            if (!gfli_inflate_copy(z, symbol)) return false;
        } else if (z->n_out == z->room) {
            return gfli_inflate_fail(z, "damaged PNG: far more data than its size can need");
        } else {
            z->out[z->n_out++] = (uint8_t)symbol;
        }
    }
}

static bool gfli_inflate_stored(gfli_inflate *z) {
    (void)gfli_inflate_take(z, z->n_bits & 7);
    unsigned n = gfli_inflate_take(z, 16);
    if ((gfli_inflate_take(z, 16) ^ n) != 0xFFFF)
        return gfli_inflate_fail(z, "damaged PNG: its data contradicts itself");
    if (n > z->room - z->n_out)
        return gfli_inflate_fail(z, "damaged PNG: far more data than its size can need");
    for (; n > 0 && !z->why; n--) z->out[z->n_out++] = (uint8_t)gfli_inflate_take(z, 8);
    return !z->why;
}

static bool gfli_inflate_fixed_codes(gfli_inflate *z) {
    uint8_t lengths[288], distances[32];
    for (int i = 0; i < 288; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    memset(distances, 5, sizeof distances);
    (void)gfli_inflate_set_codes(&z->literals, lengths, 288);
    (void)gfli_inflate_set_codes(&z->distances, distances, 32);
    return true;
}

/* Lengths of n codes, themselves coded. */
static bool gfli_inflate_lengths(gfli_inflate *z, uint8_t *lengths, int n) {
    for (int i = 0; i < n;) {
        int symbol = gfli_inflate_symbol(z, &z->literals), times = 1, value = symbol;
        if (symbol < 0) return false;
        if (symbol == 16) {
            if (i == 0) return false;
            value = lengths[i - 1];
            times = 3 + (int)gfli_inflate_take(z, 2);
        } else if (symbol > 16) {
            value = 0;
            times =
                symbol == 17 ? 3 + (int)gfli_inflate_take(z, 3) : 11 + (int)gfli_inflate_take(z, 7);
        }
        if (times > n - i || z->why) return false;
        for (; times > 0; times--) lengths[i++] = (uint8_t)value;
    }
    return true;
}

static bool gfli_inflate_own_codes(gfli_inflate *z) {
    static const uint8_t order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                      11, 4,  12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[320] = {0};
    int n_literals = 257 + (int)gfli_inflate_take(z, 5);
    int n_distances = 1 + (int)gfli_inflate_take(z, 5), n = 4 + (int)gfli_inflate_take(z, 4);
    for (int i = 0; i < n; i++) lengths[order[i]] = (uint8_t)gfli_inflate_take(z, 3);
    bool good = n_literals <= 286 && n_distances <= 30 &&
                gfli_inflate_set_codes(&z->literals, lengths, 19) &&
                gfli_inflate_lengths(z, lengths, n_literals + n_distances) && lengths[256] &&
                gfli_inflate_set_codes(&z->literals, lengths, n_literals) &&
                gfli_inflate_set_codes(&z->distances, lengths + n_literals, n_distances);
    return good || gfli_inflate_fail(z, "damaged PNG: its data has impossible codes");
}

const char *gfli_inflate_all(gfli_inflate *z) {
    unsigned method = gfli_inflate_take(z, 8), flags = gfli_inflate_take(z, 8);
    if ((method & 15) != 8 || method >> 4 > 7 || (method << 8 | flags) % 31 || flags & 32)
        return z->why ? z->why : "damaged PNG: its data is not compressed as PNG says";
    for (bool last = false, good = true; good && !last;) {
        last = gfli_inflate_take(z, 1) != 0;
        unsigned kind = gfli_inflate_take(z, 2);
        if (z->why) break;
        if (kind == 0)
            good = gfli_inflate_stored(z);
        else if (kind == 3)
            good = gfli_inflate_fail(z, "damaged PNG: its data has an impossible code");
        else
            good = (kind == 1 ? gfli_inflate_fixed_codes(z) : gfli_inflate_own_codes(z)) &&
                   gfli_inflate_compressed(z);
    }
    if (!z->why && z->n_out < z->room) return "truncated PNG: pixels are missing";
    return z->why;
}
