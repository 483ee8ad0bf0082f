/* json_write.c - the one place where JSON is written */
#pragma once

static void gfli_json_format_number(double value, bool is_float, char out[32]) {
    if (gfli_is_finite(value))
        gfli_decimal_format(value, is_float, out);
    else /* JSON has neither NaN nor infinity */
        snprintf(out, 32, "null");
}

void gfli_json_format(double value, char out[32]) {
    gfli_json_format_number(value, false, out);
}

void gfli_json_format_float(float value, char out[32]) {
    gfli_json_format_number((double)value, true, out);
}

/* ---- texts ----------------------------------------------------------------------------------- */

static void gfli_json_put(gfl_json_writer *j, const char *bytes, size_t n) {
    if (n > 0 && j->status == GFL_OK)
        j->status = j->write ? j->write(j->user, bytes, n) : GFL_E_ARG;
}

/* The bytes at p that stand in a JSON text for the n that begin there, of which *used are meant: an
 * escape, or NULL where they stand for themselves. */
static const char *gfli_json_escaped(const unsigned char *p, size_t n, size_t *used,
                                     char escape[8]) {
    const size_t length = gfli_utf8_length(p, n);
    *used = length ? length : 1;
    if (length == 0) return "\\ufffd"; /* not UTF-8, which JSON has to be */
    if (*p == '"' || *p == '\\')
        snprintf(escape, 8, "\\%c", *p);
    else if (*p < 0x20 || *p == 0x7F)
        snprintf(escape, 8, "\\u%04x", (unsigned)*p);
    else
        return NULL;
    return escape;
}

static void gfli_json_quote(gfl_json_writer *j, const char *text) {
    const unsigned char *plain = (const unsigned char *)text, *p = plain;
    size_t left = strlen(text), used;
    char room[8];
    gfli_json_put(j, "\"", 1);
    for (; left > 0; p += used, left -= used) {
        const char *escape = gfli_json_escaped(p, left, &used, room);
        if (!escape) continue;
        gfli_json_put(j, (const char *)plain, (size_t)(p - plain));
        gfli_json_put(j, escape, strlen(escape));
        plain = p + used;
    }
    gfli_json_put(j, (const char *)plain, (size_t)(p - plain));
    gfli_json_put(j, "\"", 1);
}

/* ---- values ---------------------------------------------------------------------------------- */

static void gfli_json_misuse(gfl_json_writer *j) {
    if (j->status == GFL_OK) j->status = GFL_E_ARG;
}

/* What stands before a value: a comma, a new line, its key.  false without a writer. */
static bool gfli_json_begin(gfl_json_writer *j, const char *key) {
    if (!j) return false;
    const uint64_t bit = j->depth ? (uint64_t)1 << (j->depth - 1) : 0;
    if ((key != NULL) != ((j->objects & bit) != 0)) gfli_json_misuse(j);
    if (j->filled & bit) gfli_json_put(j, ", ", j->spaced && !j->broken ? 2 : 1);
    if (j->broken) gfli_json_put(j, "\n", 1);
    j->filled |= bit;
    j->broken = 0;
    if (key) gfli_json_quote(j, key);
    if (key) gfli_json_put(j, ": ", j->spaced ? 2 : 1);
    return true;
}

static void gfli_json_scalar(gfl_json_writer *j, const char *key, const char *word) {
    if (gfli_json_begin(j, key)) gfli_json_put(j, word, strlen(word));
}

static void gfli_json_nest(gfl_json_writer *j, const char *key, bool object) {
    if (!gfli_json_begin(j, key)) return;
    if (j->depth == 64) {
        gfli_json_misuse(j);
        return;
    }
    const uint64_t bit = (uint64_t)1 << j->depth++;
    j->filled &= ~bit;
    j->objects = object ? j->objects | bit : j->objects & ~bit;
    gfli_json_put(j, object ? "{" : "[", 1);
}

void gfl_json_object(gfl_json_writer *j, const char *key) {
    gfli_json_nest(j, key, true);
}

void gfl_json_array(gfl_json_writer *j, const char *key) {
    gfli_json_nest(j, key, false);
}

void gfl_json_end(gfl_json_writer *j) {
    if (!j) return;
    if (j->depth == 0) {
        gfli_json_misuse(j);
        return;
    }
    const uint64_t bit = (uint64_t)1 << --j->depth;
    if (j->broken) gfli_json_put(j, "\n", 1);
    j->broken = 0;
    gfli_json_put(j, j->objects & bit ? "}" : "]", 1);
}

void gfl_json_line(gfl_json_writer *j) {
    if (!j) return;
    if (j->depth == 0)
        gfli_json_put(j, "\n", 1);
    else
        j->broken = 1;
}

void gfl_json_text(gfl_json_writer *j, const char *key, const char *text) {
    if (!gfli_json_begin(j, key)) return;
    if (text)
        gfli_json_quote(j, text);
    else
        gfli_json_put(j, "null", 4);
}

void gfl_json_integer(gfl_json_writer *j, const char *key, int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    gfli_json_scalar(j, key, text);
}

void gfl_json_number(gfl_json_writer *j, const char *key, double value) {
    char text[32];
    gfli_json_format(value, text);
    gfli_json_scalar(j, key, text);
}

void gfl_json_float(gfl_json_writer *j, const char *key, float value) {
    char text[32];
    gfli_json_format_float(value, text);
    gfli_json_scalar(j, key, text);
}

void gfl_json_bool(gfl_json_writer *j, const char *key, int value) {
    gfli_json_scalar(j, key, value ? "true" : "false");
}

/* ---- where to -------------------------------------------------------------------------------- */

gfl_status gfli_text_add(gfli_text *text, const char *bytes, size_t n) {
    GFLI_TRY(gfli_grow(text->context, &text->bytes, &text->capacity, text->length + n + 1, 1,
                       text->what));
    memcpy(text->bytes + text->length, bytes, n);
    text->length += n;
    text->bytes[text->length] = 0;
    return GFL_OK;
}

static gfl_status gfli_json_write_text(void *text, const char *bytes, size_t n) {
    return gfli_text_add((gfli_text *)text, bytes, n);
}

static gfl_status gfli_json_write_file(void *file, const char *bytes, size_t n) {
    return gfli_file_write((gfli_file *)file, bytes, n);
}

static gfl_json_writer gfli_json_to(gfl_status (*write)(void *, const char *, size_t), void *user) {
    gfl_json_writer j;
    memset(&j, 0, sizeof j);
    j.write = write;
    j.user = user;
    return j;
}

gfl_json_writer gfli_json_to_text(gfli_text *text) {
    return gfli_json_to(gfli_json_write_text, text);
}

gfl_json_writer gfli_json_to_file(gfli_file *file) {
    return gfli_json_to(gfli_json_write_file, file);
}
