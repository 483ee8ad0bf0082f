/* quote.c - foreign text in messages */
#pragma once

size_t gfli_utf8_length(const unsigned char *p, size_t n) {
    if (n == 0) return 0;
    unsigned c = p[0], low = 0x80, high = 0xBF;
    size_t length = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (length == 0 || length > n) return 0;
    if (c == 0xE0) low = 0xA0;
    if (c == 0xED) high = 0x9F;
    if (c == 0xF0) low = 0x90;
    if (c == 0xF4) high = 0x8F;
    for (size_t i = 1; i < length; i++) {
        if (p[i] < low || p[i] > high) return 0;
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

size_t gfl_text_valid(const char *text, size_t n) {
    const unsigned char *p = (const unsigned char *)text;
    size_t at = 0, length;
    if (!text) return 0;
    while ((length = gfli_utf8_length(p + at, n - at)) > 0) at += length;
    return at;
}

static unsigned gfli_utf8_decode(const unsigned char *p, size_t length) {
    static const unsigned lead[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    unsigned code = p[0] & lead[length];
    for (size_t i = 1; i < length; i++) code = code << 6 | (p[i] & 0x3F);
    return code;
}

/* Controls (C0, C1, delete), line separators, and what hides or reorders the text around it. */
static bool gfli_is_unprintable(unsigned code) {
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x61C || code == 0xFEFF ||
           (code >= 0x200B && code <= 0x200F) || (code >= 0x2028 && code <= 0x202E) ||
           (code >= 0x2060 && code <= 0x206F);
}

/* One character of the text as it is shown; returns its length there, and in *taken that here. */
static size_t gfli_show_one(const unsigned char *p, size_t left, char out[12], size_t *taken) {
    size_t length = gfli_utf8_length(p, left);
    *taken = length ? length : 1;
    if (!length) return (size_t)snprintf(out, 12, "\\x%02x", *p);
    unsigned code = gfli_utf8_decode(p, length);
    if (code == '\n') return (size_t)snprintf(out, 12, "\\n");
    if (code == '\t') return (size_t)snprintf(out, 12, "\\t");
    if (gfli_is_unprintable(code))
        return (size_t)snprintf(out, 12, code < 0x80 ? "\\x%02x" : "\\u%04x", code);
    memcpy(out, p, length);
    return length;
}

size_t gfl_text_show(const char *text, char *out, size_t size) {
    const unsigned char *p = (const unsigned char *)text;
    size_t left = text ? strlen(text) : 0, need = 0, at = 0, taken;
    for (; left > 0; p += taken, left -= taken) {
        char shown[12];
        const size_t length = gfli_show_one(p, left, shown, &taken);
        if (at == need && at + length < size) {
            memcpy(out + at, shown, length);
            at += length;
        }
        need += length;
    }
    if (size) out[at] = 0;
    return need;
}

/* Between quotes, quotes and what escapes them are escaped too. */
static size_t gfli_quote_one(const unsigned char *p, size_t left, char out[12], size_t *taken) {
    if (*p != '"' && *p != '\\') return gfli_show_one(p, left, out, taken);
    *taken = 1;
    return (size_t)snprintf(out, 12, "\\%c", *p);
}

const char *gfli_quote_bytes(const char *text, size_t n, char *out, size_t size) {
    const unsigned char *p = (const unsigned char *)text;
    size_t at = 0, cut = 1; /* cut: where the text still ends well if it has to be cut */
    out[at++] = '"';
    while (n > 0) {
        char shown[12];
        size_t taken, length = gfli_quote_one(p, n, shown, &taken);
        if (at + length + 2 > size) {
            memcpy(out + cut, "\"...", 5);
            return out;
        }
        memcpy(out + at, shown, length);
        at += length;
        if (at + 5 <= size) cut = at;
        p += taken;
        n -= taken;
    }
    out[at++] = '"';
    out[at] = 0;
    return out;
}

const char *gfli_quote(const char *text, char *out, size_t size) {
    return gfli_quote_bytes(text, strlen(text), out, size);
}
