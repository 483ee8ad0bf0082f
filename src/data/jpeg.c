/* jpeg.c - JPEG: every code of a file is followed, and written anew for stb_image */
#pragma once

/* stb_image believes what it is given: it returns pixels for data that ends too early or does not
 * fit its tables, does not know the standard's own tables, and stops at bytes between segments.  So
 * a file is first followed here, code by code, to the last block of its last scan.  What decoding
 * needs is written anew, without all that other programs have put between and behind it. */

enum {
    GFLI_JPEG_MAX_SCANS = 128, /* encoders write about ten; each visits every block again */
    GFLI_JPEG_EXTRA = 512      /* what the file anew may have more: the standard's tables, an end */
};

/* A table of Huffman codes. */
typedef struct gfli_jpeg_codes {
    bool there;
    uint8_t symbols[256];
    uint16_t fast[512];     /* by the next 9 bits: length << 8 | symbol; 0: the code is longer */
    uint32_t limit[17];     /* of a length: what 16 bits are below that begin with such a code */
    int32_t symbols_of[17]; /* of a length: to be added to a code for its place in symbols */
} gfli_jpeg_codes;

typedef struct gfli_jpeg_channel {
    uint8_t id, h, v, quantiser;
    int across, down; /* blocks, without those that only fill up */
    bool scanned;
    int dc, ac;        /* its tables in the scan at hand */
    int32_t last;      /* brightness of the block before */
    int8_t lowest[64]; /* progressive: the lowest bit that is known of a coefficient; -1: none */
    uint64_t *present; /* progressive: of each block, which coefficients are not 0 */
} gfli_jpeg_channel;

typedef struct gfli_jpeg {
    gfli_image_file *file;
    uint8_t *out; /* the file anew, or NULL */
    size_t n_out;
    bool progressive, jfif;
    int adobe; /* the colour transform that Adobe's segment gives, or -1 */
    int n_channels, n_scans, interval, across, down; /* the last two: units of all channels */
    gfli_jpeg_channel channels[3];
    gfli_jpeg_codes codes[2][4]; /* of brightness (DC), of the other coefficients (AC) */
    uint16_t quantisers[4][64];  /* as the file has them, in zigzag order */
    unsigned quantisers_there;   /* bits */

    gfli_jpeg_channel *scan[3]; /* the scan at hand */
    int n_scan, first, final, high, low;
    int run; /* blocks that are still to be ended */
    const uint8_t *at, *end;
    uint64_t bits; /* the next ones, from the top */
    int n_bits;
} gfli_jpeg;

/* ---- codes ----------------------------------------------------------------------------------- */

/* Annex K.3 of ITU T.81: counts by length, then symbols; AC symbols as the standard lists them. */
static const uint8_t gfli_jpeg_dc_counts[2][16] = {
    {0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0},
    {0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0}};
static const uint8_t gfli_jpeg_ac_counts[2][16] = {
    {0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125},
    {0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119}};
/* The symbols of the long codes are all others that there are, in ascending order. */
static const uint8_t gfli_jpeg_ac_short[2][43] = {
    {0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13,
     0x51, 0x61, 0x07, 0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42,
     0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82},
    {0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61,
     0x71, 0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33,
     0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1}};
enum { GFLI_JPEG_AC_SYMBOLS = 162 };

static void gfli_jpeg_put(gfli_jpeg *j, const void *bytes, size_t n) {
    if (!j->out) return;
    memcpy(j->out + j->n_out, bytes, n);
    j->n_out += n;
}

static void gfli_jpeg_put_marker(gfli_jpeg *j, int marker) {
    const uint8_t bytes[2] = {0xFF, (uint8_t)marker};
    gfli_jpeg_put(j, bytes, 2);
}

/* How many codes a table has, or -1: codes run out, or that of all ones is used, which is forbidden
 * (and more than 256 codes would overrun stb_image 2.27). */
static int gfli_jpeg_count_codes(const uint8_t counts[16]) {
    unsigned n = 0, code = 0;
    for (unsigned bits = 1; bits <= 16; bits++) {
        n += counts[bits - 1];
        code = 2 * code + counts[bits - 1];
        if ((counts[bits - 1] > 0 && code >= 1u << bits) || code > 1u << 16) return -1;
    }
    return n > 255 ? -1 : (int)n;
}

static void gfli_jpeg_set_codes(gfli_jpeg_codes *c, const uint8_t counts[16],
                                const uint8_t *symbols, int n) {
    uint32_t code = 0;
    memset(c, 0, sizeof *c);
    memcpy(c->symbols, symbols, (size_t)n);
    c->there = true;
    for (int length = 1, k = 0; length <= 16; length++) {
        code *= 2;
        c->symbols_of[length] = k - (int32_t)code;
        for (int i = 0; i < counts[length - 1]; i++, k++, code++)
            for (uint32_t f = 0; length <= 9 && f < 1u << (9 - length); f++)
                c->fast[(code << (9 - length)) + f] = (uint16_t)(length << 8 | symbols[k]);
        c->limit[length] = code << (16 - length);
    }
}

static gfl_status gfli_jpeg_tables(gfli_jpeg *j, const uint8_t *p, size_t length) {
    for (size_t at = 2; at < length;) {
        int n = length - at < 17 ? -1 : gfli_jpeg_count_codes(p + at + 1);
        if (n < 0 || p[at] >> 4 > 1 || (p[at] & 15) > 3 || length - at < 17 + (size_t)n)
            return gfli_image_damaged(j->file, "damaged JPEG: an impossible code table");
        gfli_jpeg_set_codes(&j->codes[p[at] >> 4][p[at] & 15], p + at + 1, p + at + 17, n);
        at += 17 + (size_t)n;
    }
    gfli_jpeg_put_marker(j, 0xC4);
    gfli_jpeg_put(j, p, length);
    return GFL_OK;
}

static int gfli_jpeg_standard_symbols(bool ac, int table, uint8_t out[GFLI_JPEG_AC_SYMBOLS]) {
    bool taken[256] = {false};
    int n_short = table ? 43 : 37, n = 0;
    if (!ac) {
        for (; n < 12; n++) out[n] = (uint8_t)n;
        return n;
    }
    for (; n < n_short; n++) {
        out[n] = gfli_jpeg_ac_short[table][n];
        taken[out[n]] = true;
    }
    for (int run = 0; run < 16; run++)
        for (int bits = 1; bits <= 10; bits++)
            if (!taken[run << 4 | bits]) out[n++] = (uint8_t)(run << 4 | bits);
    return n;
}

/* Cameras leave the standard's tables out of the frames of a film (Motion JPEG); they are meant
 * where a table is missing. */
static bool gfli_jpeg_standard_table(gfli_jpeg *j, bool ac, int table) {
    uint8_t segment[2 + 17 + GFLI_JPEG_AC_SYMBOLS];
    if (j->codes[ac][table].there) return true;
    if (j->progressive || table > 1) return false;
    memcpy(segment + 3, ac ? gfli_jpeg_ac_counts[table] : gfli_jpeg_dc_counts[table], 16);
    int n = gfli_jpeg_standard_symbols(ac, table, segment + 19);
    segment[0] = 0;
    segment[1] = (uint8_t)(19 + n);
    segment[2] = (uint8_t)((ac ? 16 : 0) + table);
    return gfli_jpeg_tables(j, segment, 19 + (size_t)n) == GFL_OK;
}

/* ---- bits ------------------------------------------------------------------------------------ */

/* As many bits as there is room for, up to the next marker. */
static void gfli_jpeg_fill(gfli_jpeg *j) {
    while (j->n_bits <= 56 && j->at < j->end) {
        uint8_t byte = *j->at;
        if (byte == 0xFF && (j->end - j->at < 2 || j->at[1] != 0)) return;
        j->at += byte == 0xFF ? 2 : 1;
        j->bits |= (uint64_t)byte << (56 - j->n_bits);
        j->n_bits += 8;
    }
}

static inline bool gfli_jpeg_skip(gfli_jpeg *j, int n) {
    if (n > j->n_bits) gfli_jpeg_fill(j);
    if (n > j->n_bits) return false;
    j->bits <<= n;
    j->n_bits -= n;
    return true;
}

/* The next n bits, at most 16, as a number; -1 when they are not there. */
static int gfli_jpeg_take(gfli_jpeg *j, int n) {
    if (n > j->n_bits) gfli_jpeg_fill(j);
    int value = n ? (int)(j->bits >> (64 - n)) : 0;
    return gfli_jpeg_skip(j, n) ? value : -1;
}

/* The next symbol, or -1: no code of the table, or no more bits. */
static int gfli_jpeg_symbol(gfli_jpeg *j, const gfli_jpeg_codes *c) {
    if (j->n_bits < 32) gfli_jpeg_fill(j);
    const uint32_t next = (uint32_t)(j->bits >> 48);
    int length = c->fast[next >> 7] >> 8, symbol = c->fast[next >> 7] & 255;
    if (!length) {
        for (length = 10; length <= 16 && next >= c->limit[length];) length++;
        if (length > 16) return -1;
        symbol = c->symbols[(int32_t)(next >> (16 - length)) + c->symbols_of[length]];
    }
    return gfli_jpeg_skip(j, length) ? symbol : -1;
}

/* Back to the first byte that no bit has been taken of. */
static void gfli_jpeg_align(gfli_jpeg *j) {
    for (int unread = j->n_bits / 8; unread > 0; unread--)
        j->at -= j->at[-1] == 0 && j->at[-2] == 0xFF ? 2 : 1;
    j->bits = 0;
    j->n_bits = 0;
}

/* ---- blocks: what their codes say, as far as later codes depend on it ------------------------ */

/* Is a coefficient of this magnitude one that a picture can have?  Beyond 1024 and half a step
 * there is none; twice as much is allowed for, twice again as only the bits of most are known.
 * Decoders keep to 16 bits and differ in what becomes of more. */
static inline bool gfli_jpeg_fits(const gfli_jpeg *j, const gfli_jpeg_channel *c, int k,
                                  int magnitude) {
    int64_t step = j->quantisers[c->quantiser][k];
    return ((int64_t)magnitude << j->low) * step <= 4096 + 2 * step;
}

static bool gfli_jpeg_brightness(gfli_jpeg *j, gfli_jpeg_channel *c) {
    if (j->high > 0) return gfli_jpeg_skip(j, 1);
    int bits = gfli_jpeg_symbol(j, &j->codes[0][c->dc]);
    if (bits < 0 || bits > 15) return false;
    int value = gfli_jpeg_take(j, bits);
    if (value < 0) return false;
    if (bits > 0 && value < 1 << (bits - 1)) value -= (1 << bits) - 1;
    c->last += value;
    return gfli_jpeg_fits(j, c, 0, c->last < 0 ? -c->last : c->last);
}

static bool gfli_jpeg_block(gfli_jpeg *j, gfli_jpeg_channel *c) {
    const gfli_jpeg_codes *codes = &j->codes[1][c->ac];
    if (!gfli_jpeg_brightness(j, c)) return false;
    for (int k = 1; k < 64; k++) {
        int symbol = gfli_jpeg_symbol(j, codes), bits = symbol & 15;
        if (symbol < 0) return false;
        if (bits == 0 && symbol != 0xF0) return true;
        k += symbol >> 4;
        if (bits == 0) continue;
        if (k > 63 || !gfli_jpeg_fits(j, c, k, (1 << bits) - 1) || !gfli_jpeg_skip(j, bits))
            return false;
    }
    return true;
}

static bool gfli_jpeg_begin_run(gfli_jpeg *j, int symbol) {
    int more = gfli_jpeg_take(j, symbol >> 4);
    j->run = (1 << (symbol >> 4)) + more;
    return more >= 0;
}

/* The first bits of some coefficients. */
static bool gfli_jpeg_band(gfli_jpeg *j, gfli_jpeg_channel *c, uint64_t *present) {
    for (int k = j->first; j->run == 0 && k <= j->final; k++) {
        int symbol = gfli_jpeg_symbol(j, &j->codes[1][c->ac]), bits = symbol & 15;
        if (symbol < 0) return false;
        if (bits == 0 && symbol != 0xF0) {
            if (!gfli_jpeg_begin_run(j, symbol)) return false;
            break;
        }
        k += symbol >> 4;
        if (bits == 0) continue;
        if (k > j->final || !gfli_jpeg_fits(j, c, k, (1 << bits) - 1) || !gfli_jpeg_skip(j, bits))
            return false;
        *present |= (uint64_t)1 << k;
    }
    if (j->run > 0) j->run--;
    return true;
}

/* A bit of each that is not 0 among the coefficients from k on, until `zeros` more of the others
 * have been passed; the place behind, or -1. */
static int gfli_jpeg_refine_to(gfli_jpeg *j, uint64_t present, int k, int zeros) {
    for (; k <= j->final; k++) {
        if (!(present >> k & 1)) {
            if (zeros-- == 0) break;
        } else if (!gfli_jpeg_skip(j, 1)) {
            return -1;
        }
    }
    return k;
}

/* One more bit of some coefficients. */
static bool gfli_jpeg_refine(gfli_jpeg *j, gfli_jpeg_channel *c, uint64_t *present) {
    uint64_t now = *present;
    int k = j->first;
    for (; j->run == 0 && k <= j->final; k++) {
        int symbol = gfli_jpeg_symbol(j, &j->codes[1][c->ac]), bits = symbol & 15;
        if (symbol < 0 || bits > 1) return false;
        if (bits == 0 && symbol != 0xF0) {
            if (!gfli_jpeg_begin_run(j, symbol)) return false;
            break;
        }
        if (!gfli_jpeg_skip(j, bits)) return false; /* the sign */
        k = gfli_jpeg_refine_to(j, *present, k, symbol >> 4);
        if (k < 0 || (bits && k > j->final)) return false;
        if (bits) now |= (uint64_t)1 << k;
    }
    if (j->run > 0) {
        if (gfli_jpeg_refine_to(j, *present, k, 64) < 0) return false;
        j->run--;
    }
    *present = now;
    return true;
}

/* ---- a scan ---------------------------------------------------------------------------------- */

static bool gfli_jpeg_unit(gfli_jpeg *j, size_t number) {
    if (j->progressive && j->first > 0) {
        gfli_jpeg_channel *c = j->scan[0];
        return j->high ? gfli_jpeg_refine(j, c, &c->present[number])
                       : gfli_jpeg_band(j, c, &c->present[number]);
    }
    for (int i = 0; i < j->n_scan; i++) {
        gfli_jpeg_channel *c = j->scan[i];
        for (int n = j->n_scan == 1 ? 1 : c->h * c->v; n > 0; n--)
            if (!(j->progressive ? gfli_jpeg_brightness(j, c) : gfli_jpeg_block(j, c)))
                return false;
    }
    return true;
}

static void gfli_jpeg_restart(gfli_jpeg *j) {
    j->run = 0;
    for (int i = 0; i < j->n_channels; i++) j->channels[i].last = 0;
}

/* What stands behind an interval but for its end: nothing, or bytes that only fill up. */
static bool gfli_jpeg_expect_restart(gfli_jpeg *j, size_t number) {
    while (j->at < j->end && *j->at == 0) j->at++;
    while (j->end - j->at >= 2 && j->at[0] == 0xFF && j->at[1] == 0xFF) j->at++;
    if (j->end - j->at < 2 || j->at[0] != 0xFF || j->at[1] != (0xD0 | (number & 7))) return false;
    j->at += 2;
    return true;
}

/* All units of the scan, whose data begins at p. */
static gfl_status gfli_jpeg_data(gfli_jpeg *j, const uint8_t *p) {
    const gfli_jpeg_channel *only = j->scan[0];
    size_t across = (size_t)(j->n_scan == 1 ? only->across : j->across);
    size_t units = across * (size_t)(j->n_scan == 1 ? only->down : j->down);
    size_t left = j->interval ? (size_t)j->interval : units, n_restarts = 0;
    const uint8_t *begin = p;
    j->at = p;
    j->bits = 0;
    j->n_bits = 0;
    gfli_jpeg_restart(j);
    for (size_t i = 0; i < units; i++, left--) {
        if (left == 0) {
            gfli_jpeg_align(j);
            gfli_jpeg_put(j, begin, (size_t)(j->at - begin));
            if (!gfli_jpeg_expect_restart(j, n_restarts++))
                return gfli_image_damaged(j->file, "damaged JPEG: a restart marker is missing");
            gfli_jpeg_put(j, j->at - 2, 2);
            begin = j->at;
            left = (size_t)j->interval;
            gfli_jpeg_restart(j);
        }
        if (!gfli_jpeg_unit(j, i))
            return gfli_image_damaged(
                j->file, j->n_bits < 16 ? "truncated or damaged JPEG: pixels end too early"
                                        : "damaged JPEG: its pixels do not fit its code tables");
    }
    gfli_jpeg_align(j);
    gfli_jpeg_put(j, begin, (size_t)(j->at - begin));
    return GFL_OK;
}

/* May this scan come after those before?  Notes what is known then. */
static bool gfli_jpeg_progress(gfli_jpeg *j, gfli_jpeg_channel *c) {
    for (int k = j->first; k <= j->final; k++) {
        if (c->lowest[k] != (j->high ? j->high : -1)) return false;
        c->lowest[k] = (int8_t)j->low;
    }
    return j->first == 0 || c->lowest[0] >= 0;
}

/* Does the scan ask for what the kind of JPEG allows?  A sequential one has no choice, and what is
 * in its header does not matter. */
static bool gfli_jpeg_set_bands(gfli_jpeg *j, const uint8_t *p) {
    j->first = j->progressive ? p[0] : 0;
    j->final = j->progressive ? p[1] : 63;
    j->high = j->progressive ? p[2] >> 4 : 0;
    j->low = j->progressive ? p[2] & 15 : 0;
    if (!j->progressive) return true;
    return j->final <= 63 && j->first <= j->final && j->low <= 13 &&
           (j->high == 0 || j->high == j->low + 1) && (j->first > 0 || j->final == 0) &&
           (j->first == 0 || j->n_scan == 1);
}

static gfl_status gfli_jpeg_scan_channel(gfli_jpeg *j, const uint8_t *p, int i) {
    int k = 0;
    while (k < j->n_channels && j->channels[k].id != p[0]) k++;
    if (k == j->n_channels || !(j->quantisers_there >> j->channels[k].quantiser & 1))
        return gfli_image_damaged(j->file, "damaged JPEG: a scan lacks its channel or table");
    gfli_jpeg_channel *c = j->scan[i] = &j->channels[k];
    bool needs_dc = j->first == 0 && j->high == 0, needs_ac = !j->progressive || j->first > 0;
    c->dc = needs_dc ? p[1] >> 4 : 0;
    c->ac = needs_ac ? p[1] & 15 : 0;
    if (c->dc > 3 || c->ac > 3 || (needs_dc && !gfli_jpeg_standard_table(j, false, c->dc)) ||
        (needs_ac && !gfli_jpeg_standard_table(j, true, c->ac)))
        return gfli_image_damaged(j->file, "damaged JPEG: a scan lacks its code table");
    if (j->progressive ? !gfli_jpeg_progress(j, c) : c->scanned)
        return gfli_image_damaged(j->file, "damaged JPEG: a scan gives again what others gave");
    c->scanned = true;
    return GFL_OK;
}

/* The scan's header anew; channels are numbered as gfli_jpeg_put_frame names them. */
static void gfli_jpeg_put_scan(gfli_jpeg *j, bool rgb) {
    uint8_t header[4 + 6 + 4] = {0xFF, 0xDA, 0, (uint8_t)(6 + 2 * j->n_scan), (uint8_t)j->n_scan};
    uint8_t *p = header + 5;
    for (int i = 0; i < j->n_scan; i++) {
        int k = (int)(j->scan[i] - j->channels);
        *p++ = (uint8_t)(rgb ? "RGB"[k] : k + 1);
        *p++ = (uint8_t)(j->scan[i]->dc << 4 | j->scan[i]->ac);
    }
    *p++ = (uint8_t)j->first;
    *p++ = (uint8_t)j->final;
    *p++ = (uint8_t)(j->high << 4 | j->low);
    gfli_jpeg_put(j, header, (size_t)(p - header));
}

/* The channels' meaning is decided here, by the rules of JFIF, then Adobe's, then their names, and
 * written as names that stb_image takes so. */
static bool gfli_jpeg_is_rgb(const gfli_jpeg *j) {
    const gfli_jpeg_channel *c = j->channels;
    if (j->n_channels != 3 || j->jfif) return false;
    if (j->adobe >= 0) return j->adobe == 0;
    return c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B';
}

static void gfli_jpeg_put_frame(gfli_jpeg *j, bool rgb) {
    const int w = j->file->width, h = j->file->height;
    uint8_t header[10 + 9] = {0xFF,       (uint8_t)(j->progressive ? 0xC2 : 0xC1),
                              0,          (uint8_t)(8 + 3 * j->n_channels),
                              8,          (uint8_t)(h >> 8),
                              (uint8_t)h, (uint8_t)(w >> 8),
                              (uint8_t)w, (uint8_t)j->n_channels};
    for (int i = 0; i < j->n_channels; i++) {
        const gfli_jpeg_channel *c = &j->channels[i];
        header[10 + 3 * i] = (uint8_t)(rgb ? "RGB"[i] : i + 1);
        header[11 + 3 * i] = (uint8_t)(c->h << 4 | c->v);
        header[12 + 3 * i] = c->quantiser;
    }
    gfli_jpeg_put(j, header, 10 + 3 * (size_t)j->n_channels);
}

static gfl_status gfli_jpeg_scan(gfli_jpeg *j, const uint8_t *p, size_t length) {
    gfli_image_file *f = j->file;
    if (!f->width) return gfli_image_damaged(f, "damaged JPEG: pixels before their size");
    if (length < 6 || length != 6 + 2 * (size_t)p[2] || p[2] < 1 || p[2] > j->n_channels)
        return gfli_image_damaged(f, "damaged JPEG: a scan header has the wrong length");
    if (j->n_scans == GFLI_JPEG_MAX_SCANS)
        return gfli_image_unsupported(f, "a JPEG of more than 128 scans");
    int blocks = 0;
    j->n_scan = p[2];
    if (!gfli_jpeg_set_bands(j, p + 3 + 2 * j->n_scan))
        return gfli_image_damaged(f, "damaged JPEG: an impossible scan");
    for (int i = 0; i < j->n_scan; i++) {
        GFLI_TRY(gfli_jpeg_scan_channel(j, p + 3 + 2 * i, i));
        for (int k = 0; k < i; k++)
            if (j->scan[k] == j->scan[i])
                return gfli_image_damaged(f, "damaged JPEG: a channel twice");
        blocks += j->scan[i]->h * j->scan[i]->v;
    }
    if (j->n_scan > 1 && blocks > 10)
        return gfli_image_damaged(f, "damaged JPEG: more than 10 blocks in a unit");
    bool rgb = gfli_jpeg_is_rgb(j);
    if (j->n_scans++ == 0) gfli_jpeg_put_frame(j, rgb);
    gfli_jpeg_put_scan(j, rgb);
    return gfli_jpeg_data(j, p + length);
}

/* ---- the segments ---------------------------------------------------------------------------- */

/* Sizes in blocks; in proportion to the pixels, a bit for each coefficient of a progressive one. */
static gfl_status gfli_jpeg_measure(gfli_jpeg *j) {
    gfli_image_file *f = j->file;
    int most_h = 1, most_v = 1;
    uint64_t bytes = 0, n = 0;
    for (int i = 0; i < j->n_channels; i++) {
        most_h = gfli_max(most_h, j->channels[i].h);
        most_v = gfli_max(most_v, j->channels[i].v);
    }
    j->across = gfli_ceil_div(f->width, 8 * most_h);
    j->down = gfli_ceil_div(f->height, 8 * most_v);
    for (int i = 0; i < j->n_channels; i++) {
        gfli_jpeg_channel *c = &j->channels[i];
        if (most_h % c->h || most_v % c->v)
            return gfli_image_unsupported(f, "a JPEG whose channels differ by broken factors");
        c->across = gfli_ceil_div(gfli_ceil_div(f->width * c->h, most_h), 8);
        c->down = gfli_ceil_div(gfli_ceil_div(f->height * c->v, most_v), 8);
        uint64_t blocks = (uint64_t)(j->across * c->h) * (uint64_t)(j->down * c->v);
        bytes += blocks * (j->progressive ? 64 * 3 + 8 : 64);
        n += (uint64_t)c->across * (uint64_t)c->down;
    }
    /* A block's brightness takes a bit at least: so few bytes cannot hold so large a picture. */
    if (n / 8 > f->size) return gfli_image_damaged(f, "truncated JPEG: pixels are missing");
    GFLI_TRY(gfli_image_allow(f, bytes + f->size));
    for (int i = 0; j->progressive && i < j->n_channels; i++) {
        gfli_jpeg_channel *c = &j->channels[i];
        memset(c->lowest, -1, sizeof c->lowest);
        GFLI_TRY(gfli_calloc(f->context, (size_t)c->across * (size_t)c->down, sizeof *c->present,
                             "a progressive JPEG", &c->present));
    }
    return GFL_OK;
}

static gfl_status gfli_jpeg_channels(gfli_jpeg *j, const uint8_t *p) {
    for (int i = 0; i < j->n_channels; i++, p += 3) {
        gfli_jpeg_channel *c = &j->channels[i];
        c->id = p[0];
        c->h = p[1] >> 4;
        c->v = p[1] & 15;
        c->quantiser = p[2];
        for (int k = 0; k < i; k++)
            if (j->channels[k].id == c->id)
                return gfli_image_damaged(j->file, "damaged JPEG: two channels of one name");
        if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4 || c->quantiser > 3)
            return gfli_image_damaged(j->file, "damaged JPEG: an impossible channel");
    }
    return gfli_jpeg_measure(j);
}

static gfl_status gfli_jpeg_frame(gfli_jpeg *j, int marker, const uint8_t *p, size_t length) {
    gfli_image_file *f = j->file;
    if (f->width) return gfli_image_unsupported(f, "a JPEG of several frames");
    if (length < 8) return gfli_image_damaged(f, "damaged JPEG: its frame header is too short");
    if (marker != 0xC0 && marker != 0xC1 && marker != 0xC2)
        return gfli_image_unsupported(f, "a lossless, hierarchical or arithmetic-coded JPEG");
    if (p[2] != 8) return gfli_image_unsupported(f, "a JPEG of more than 8 bits");
    uint32_t height = (uint32_t)p[3] << 8 | p[4], width = (uint32_t)p[5] << 8 | p[6];
    if (height == 0) return gfli_image_unsupported(f, "a JPEG that gives its height at the end");
    if (p[7] == 4) return gfli_image_unsupported(f, "a CMYK or YCCK JPEG");
    if (p[7] != 1 && p[7] != 3)
        return gfli_image_unsupported(f, "a JPEG of neither 1 nor 3 channels");
    if (length != 8 + 3 * (size_t)p[7])
        return gfli_image_damaged(f, "damaged JPEG: its frame header has the wrong length");
    GFLI_TRY(gfli_image_size(f, width, height));
    j->progressive = marker == 0xC2;
    j->n_channels = p[7];
    return gfli_jpeg_channels(j, p + 8);
}

static gfl_status gfli_jpeg_quantisers(gfli_jpeg *j, const uint8_t *p, size_t length) {
    for (size_t at = 2, size; at < length; at += size) {
        const uint8_t *q = p + at + 1;
        unsigned wide = p[at] >> 4, table = p[at] & 15;
        size = wide ? 129 : 65;
        if (size > length - at || wide > 1 || table > 3)
            return gfli_image_damaged(j->file, "damaged JPEG: an impossible quantisation table");
        for (int k = 0; k < 64; k++) {
            unsigned value = wide ? (unsigned)(q[2 * k] << 8 | q[2 * k + 1]) : q[k];
            if (value == 0) return gfli_image_damaged(j->file, "damaged JPEG: a quantiser of zero");
            if (j->n_scans > 0 && j->progressive && j->quantisers[table][k] != value)
                return gfli_image_unsupported(j->file, "a JPEG whose tables change between scans");
            j->quantisers[table][k] = (uint16_t)value;
        }
        j->quantisers_there |= 1u << table;
    }
    gfli_jpeg_put_marker(j, 0xDB);
    gfli_jpeg_put(j, p, length);
    return GFL_OK;
}

static gfl_status gfli_jpeg_interval(gfli_jpeg *j, const uint8_t *p, size_t length) {
    if (length != 4)
        return gfli_image_damaged(j->file, "damaged JPEG: an impossible restart interval");
    j->interval = p[2] << 8 | p[3];
    gfli_jpeg_put_marker(j, 0xDD);
    gfli_jpeg_put(j, p, length);
    return GFL_OK;
}

/* Segments of programs; only what decides how pixels are to be shown matters. */
static void gfli_jpeg_program(gfli_jpeg *j, int marker, const uint8_t *p, size_t length) {
    gfli_image_file *f = j->file;
    if (marker == 0xE1 && length >= 8 && memcmp(p + 2, "Exif\0\0", 6) == 0 && !f->orientation)
        f->orientation = gfli_exif_orientation(p + 8, length - 8);
    if (marker == 0xE0 && length >= 16 && memcmp(p + 2, "JFIF", 5) == 0) j->jfif = true;
    if (marker == 0xEE && length >= 14 && memcmp(p + 2, "Adobe", 5) == 0) j->adobe = p[13];
}

/* The segment behind its marker; *p is set to where the next may begin. */
static gfl_status gfli_jpeg_segment(gfli_jpeg *j, int marker, const uint8_t **p) {
    enum { SOS = 0xDA, DQT = 0xDB, DHT = 0xC4, DAC = 0xCC, DNL = 0xDC, DRI = 0xDD, COM = 0xFE };
    const uint8_t *at = *p;
    size_t left = (size_t)(j->end - at), length = left < 2 ? 0 : (size_t)at[0] << 8 | at[1];
    if (length < 2 || length > left)
        return gfli_image_damaged(j->file, "truncated JPEG: a segment is cut off");
    *p = at + length;
    if (marker == DQT) return gfli_jpeg_quantisers(j, at, length);
    if (marker == DHT) return gfli_jpeg_tables(j, at, length);
    if (marker == DRI) return gfli_jpeg_interval(j, at, length);
    if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC8 && marker != DAC)
        return gfli_jpeg_frame(j, marker, at, length);
    if (marker == SOS) {
        GFLI_TRY(gfli_jpeg_scan(j, at, length));
        *p = j->at;
    } else if (marker >= 0xE0 && marker <= 0xEF) {
        gfli_jpeg_program(j, marker, at, length);
    } else if (marker != COM && marker != DNL && marker != DAC) {
        return gfli_image_unsupported(j->file, "a JPEG with a segment of an unknown kind");
    }
    return GFL_OK;
}

/* Does the scan that has just been read complete the picture?  What stands behind it is then no
 * part of it. */
static bool gfli_jpeg_complete(const gfli_jpeg *j) {
    return !j->progressive && j->n_scans == 1 && j->n_scan == j->n_channels;
}

/* Between scans there is nothing, or zeros and markers that stand alone; otherwise a scan has
 * ended too early. */
static bool gfli_jpeg_left_over(const uint8_t *p, const uint8_t *end) {
    for (; p < end; p++) {
        bool restart = p[0] >= 0xD0 && p[0] <= 0xD7 && p[-1] == 0xFF;
        if (*p != 0 && *p != 0xFF && !restart) return true;
    }
    return false;
}

/* From marker to marker.  Bytes between segments are passed over, as are markers that stand alone:
 * cameras fill up with both behind the pixels. */
static gfl_status gfli_jpeg_follow(gfli_jpeg *j) {
    enum { SOI = 0xD8, EOI = 0xD9 };
    const uint8_t *p = j->file->bytes + 2, *behind = NULL; /* a scan */
    gfli_jpeg_put_marker(j, SOI);
    for (;;) {
        p = p < j->end ? (const uint8_t *)memchr(p, 0xFF, (size_t)(j->end - p)) : NULL;
        while (p && p < j->end && *p == 0xFF) p++;
        if (!p || p >= j->end)
            return gfli_image_damaged(j->file, "truncated JPEG: the end of the image is missing");
        int marker = *p++;
        if (marker == EOI) break;
        if (gfli_jpeg_complete(j)) continue;
        if (marker == SOI) return gfli_image_unsupported(j->file, "a JPEG inside a JPEG");
        if (marker <= 1 || (marker >= 0xD0 && marker <= 0xD7)) continue;
        if (behind && gfli_jpeg_left_over(behind, p - 1))
            return gfli_image_damaged(j->file, "damaged JPEG: bytes are left over behind a scan");
        GFLI_TRY(gfli_jpeg_segment(j, marker, &p));
        behind = marker == 0xDA ? p : NULL;
    }
    gfli_jpeg_put_marker(j, EOI);
    bool whole = j->n_channels > 0;
    for (int i = 0; i < j->n_channels; i++) whole = whole && j->channels[i].scanned;
    return whole ? GFL_OK
                 : gfli_image_damaged(j->file, "damaged JPEG: pixels of some channel are missing");
}

gfl_status gfli_jpeg_check(gfli_image_file *f, uint8_t **out, size_t *n_out) {
    gfli_jpeg *j;
    GFLI_TRY(gfli_calloc(f->context, 1, sizeof *j, "a JPEG's tables", &j));
    gfl_status status = GFL_OK;
    j->file = f;
    j->end = f->bytes + f->size;
    j->adobe = -1;
    if (out) status = gfli_alloc(f->context, f->size + GFLI_JPEG_EXTRA, 1, "a JPEG", &j->out);
    if (status == GFL_OK) status = gfli_jpeg_follow(j);
    if (status == GFL_OK && out) {
        *out = j->out;
        *n_out = j->n_out;
        j->out = NULL;
    }
    for (int i = 0; i < 3; i++) gfli_free(f->context, j->channels[i].present);
    gfli_free(f->context, j->out);
    gfli_free(f->context, j);
    return status;
}
