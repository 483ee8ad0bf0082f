/* json.c - a pull parser for JSON of any size */
#pragma once

enum { GFLI_JSON_BUFFER = 1 << 16, GFLI_JSON_TEXT = 1 << 24 };

/* Bytes that are read from a pipe at most; a file ends by itself. */
#define GFLI_JSON_STREAM UINT64_C(4294967296)

struct gfli_json {
    gfl_context *context;
    char *name;
    gfli_handle file; /* or text in memory */
    uint64_t most;    /* bytes that may still come from it */
    const char *rest; /* of that text, not yet in the buffer */
    size_t rest_size;
    unsigned char *buffer; /* [GFLI_JSON_BUFFER + 1]; a 0 stands after the last byte */
    unsigned char *at, *end;
    bool exhausted;
    unsigned char *counted; /* line and column are those of this byte */
    long line, column;
    unsigned char *token; /* the value, key or end read last; NULL once it has left the buffer */
    long token_line, token_column; /* set then */
    char stack[GFLI_JSON_DEPTH];   /* '{' or '[' */
    int depth;
    bool comma;   /* the container has an item already, so the next needs a comma */
    bool started; /* the one value of the text has begun */
    bool keyed;   /* a key was taken, its value comes next */
    char *text;   /* the last string, 0-terminated */
    size_t length, capacity;
    gfli_decimal number; /* the last number */
    gfl_status status;
};

/* Lines and columns up to a byte of the buffer; every byte is counted once. */
static void gfli_json_count(gfli_json *j, unsigned char *to) {
    unsigned char *newline;
    while (j->counted < to &&
           (newline = (unsigned char *)memchr(j->counted, '\n', (size_t)(to - j->counted)))) {
        j->line++;
        j->column = 1;
        j->counted = newline + 1;
    }
    if (j->counted < to) {
        j->column += (long)(to - j->counted);
        j->counted = to;
    }
}

/* The token's place, before a later byte is counted. */
static void gfli_json_settle(gfli_json *j) {
    if (!j->token) return;
    gfli_json_count(j, j->token);
    j->token_line = j->line;
    j->token_column = j->column;
}

void gfli_json_place(gfli_json *j, long *line, long *column) {
    gfli_json_settle(j);
    *line = j->token_line;
    *column = j->token_column;
}

gfl_status gfli_json_error(gfli_json *j, gfl_status status, const char *format, ...) {
    if (j->status != GFL_OK) return j->status;
    char text[512];
    long line, column;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    gfli_json_place(j, &line, &column);
    j->status = gfli_error(j->context, status, "%.400s:%ld:%ld: %s", j->name, line, column, text);
    return j->status;
}

/* A mistake at the byte that comes next. */
static void gfli_json_bad(gfli_json *j, const char *what) {
    if (j->status != GFL_OK) return;
    j->token = j->at;
    gfli_json_error(j, GFL_E_FORMAT, "%s", what);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Up to room bytes of the file or the text; less at the end only, or after an error. */
static size_t gfli_json_fill(gfli_json *j, unsigned char *out, size_t room) {
    size_t got;
    if (j->file == GFLI_NO_HANDLE) {
        got = j->rest_size < room ? j->rest_size : room;
        memcpy(out, j->rest, got);
        j->rest += got;
        j->rest_size -= got;
        return got;
    }
    gfl_status status = gfli_os_read(j->context, j->name, j->file, out, room, &got);
    if (status == GFL_OK && got > j->most)
        status = gfli_error(j->context, GFL_E_FORMAT,
                            "%.400s: it gives more than %llu bytes, the most that is read", j->name,
                            (unsigned long long)GFLI_JSON_STREAM);
    if (j->status == GFL_OK) j->status = status;
    j->most -= status == GFL_OK ? got : 0;
    return status == GFL_OK ? got : 0;
}

/* Drop what was read, keep what was not, and read on behind it; false when there is no more. */
static bool gfli_json_more(gfli_json *j) {
    if (j->exhausted) return false;
    size_t kept = (size_t)(j->end - j->at), room = GFLI_JSON_BUFFER - kept, got;
    if (room == 0) return false;
    if (j->token && j->token < j->at) {
        gfli_json_settle(j);
        j->token = NULL;
    }
    gfli_json_count(j, j->at);
    if (j->token) j->token = j->buffer + (j->token - j->at);
    j->counted = j->buffer + (j->counted - j->at);
    memmove(j->buffer, j->at, kept);
    got = gfli_json_fill(j, j->buffer + kept, room);
    j->at = j->buffer;
    j->end = j->buffer + kept + got;
    *j->end = 0;
    j->exhausted = got < room;
    return got > 0;
}

/* The next byte that is not a space, not yet taken, or -1 at the end. */
static int gfli_json_peek(gfli_json *j) {
    for (;;) {
        unsigned c = *j->at;
        if (c > ' ') return (int)c;
        if (c == ' ' || c == '\n' || c == '\r' || c == '\t')
            j->at++;
        else if (j->at < j->end)
            return (int)c;
        else if (!gfli_json_more(j))
            return -1;
    }
}

/* At least n bytes in the buffer, if the text has them. */
static bool gfli_json_have(gfli_json *j, size_t n) {
    while ((size_t)(j->end - j->at) < n)
        if (!gfli_json_more(j)) return false;
    return true;
}

/* ---- strings --------------------------------------------------------------------------------- */

static bool gfli_json_append(gfli_json *j, const void *bytes, size_t n) {
    if (j->length + n > GFLI_JSON_TEXT) {
        gfli_json_bad(j, "a text is longer than 16 MiB");
        return false;
    }
    if (j->length + n >= j->capacity) {
        gfl_status status =
            gfli_grow(j->context, &j->text, &j->capacity, j->length + n + 1, 1, "a JSON text");
        if (status != GFL_OK) {
            j->status = status;
            return false;
        }
    }
    memcpy(j->text + j->length, bytes, n);
    j->length += n;
    return true;
}

static size_t gfli_utf8_encode(unsigned code, unsigned char out[4]) {
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, code >>= 6) out[i] = (unsigned char)(0x80 | (code & 63));
    out[0] = (unsigned char)(lead[n] | code);
    return n;
}

/* Four hexadecimal digits, or -1. */
static int gfli_hex4(const unsigned char *p) {
    int code = 0;
    for (int i = 0; i < 4; i++) {
        int c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        code = code * 16 + digit;
    }
    return code;
}

/* After \u; returns the character, or 0 after an error. */
static unsigned gfli_json_escape_u(gfli_json *j) {
    int high = gfli_json_have(j, 4) ? gfli_hex4(j->at) : -1, low = 0;
    if (high < 0) {
        gfli_json_bad(j, "\\u is not followed by four hexadecimal digits");
        return 0;
    }
    j->at += 4;
    if (high == 0) gfli_json_bad(j, "a text contains the character 0");
    if (high < 0xD800 || high > 0xDFFF) return (unsigned)high;
    if (high < 0xDC00 && gfli_json_have(j, 6) && j->at[0] == '\\' && j->at[1] == 'u')
        low = gfli_hex4(j->at + 2);
    if (low < 0xDC00 || low > 0xDFFF) {
        gfli_json_bad(j, "a \\u escape is half of a surrogate pair");
        return 0;
    }
    j->at += 6;
    return 0x10000u + (((unsigned)high & 0x3FF) << 10 | ((unsigned)low & 0x3FF));
}

static void gfli_json_escape(gfli_json *j, bool keep) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    unsigned char bytes[4];
    size_t n = 1;
    j->at++;
    int c = gfli_json_have(j, 1) ? *j->at : 0;
    const char *found = c ? strchr(from, c) : NULL;
    if (!found && c != 'u') {
        gfli_json_bad(j, "a text contains an unknown escape");
        return;
    }
    j->at++;
    if (found)
        bytes[0] = (unsigned char)to[found - from];
    else
        n = gfli_utf8_encode(gfli_json_escape_u(j), bytes);
    if (keep && j->status == GFL_OK) gfli_json_append(j, bytes, n);
}

static void gfli_json_not_utf8(gfli_json *j) {
    char text[100];
    snprintf(text, sizeof text,
             "a text is not UTF-8 (byte 0x%02x): is the file Latin-1? save it as UTF-8", *j->at);
    gfli_json_bad(j, text);
}

/* At the opening quote.  A text that nobody wants is checked all the same. */
static void gfli_json_read_string(gfli_json *j, bool keep) {
    j->length = 0;
    j->at++;
    while (j->status == GFL_OK) {
        const unsigned char *p = j->at;
        while (*p >= ' ' && *p != '"' && *p != '\\' && *p < 0x80) p++;
        if (keep && p > j->at && !gfli_json_append(j, j->at, (size_t)(p - j->at))) return;
        j->at += p - j->at;
        if (*p == '"') {
            j->at++;
            break;
        }
        if (*p == '\\') {
            gfli_json_escape(j, keep);
        } else if (*p >= 0x80) {
            gfli_json_have(j, 4);
            size_t n = gfli_utf8_length(j->at, (size_t)(j->end - j->at));
            if (n == 0)
                gfli_json_not_utf8(j);
            else if (keep)
                gfli_json_append(j, j->at, n);
            j->at += n;
        } else if (j->at < j->end) {
            gfli_json_bad(j, "a text contains an unescaped control character");
        } else if (!gfli_json_more(j)) {
            gfli_json_error(j, GFL_E_FORMAT, "the file ends inside the text that begins here");
        }
    }
    if (keep && j->status == GFL_OK && gfli_json_append(j, "", 1)) j->length--;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static void gfli_json_read_number(gfli_json *j, bool keep) {
    gfli_decimal_span s;
    bool good = gfli_decimal_scan(j->at, &s);
    /* What ends with the buffer may go on behind it. */
    while (s.end == j->end && gfli_json_more(j)) good = gfli_decimal_scan(j->at, &s);
    if (s.end == j->end && !j->exhausted) {
        gfli_json_bad(j, "a number is longer than 64 KiB");
        return;
    }
    unsigned next = *s.end;
    if (!good || next == '.' || next == '+' || next == '-' || (next | 32) - 'a' < 26u) {
        gfli_json_bad(j, "not a number as JSON writes it");
        return;
    }
    if (keep) gfli_decimal_read(&s, *j->at == '-', &j->number);
    j->at += s.end - j->at;
}

double gfli_json_as_number(gfli_json *j) {
    return j->status == GFL_OK ? gfli_decimal_value(&j->number) : 0.0;
}

bool gfli_json_as_integer(gfli_json *j, int64_t *out) {
    *out = 0;
    return j->status == GFL_OK && gfli_decimal_integer(&j->number, out);
}

const char *gfli_json_string(gfli_json *j, size_t *length) {
    if (length) *length = j->status == GFL_OK ? j->length : 0;
    return j->status == GFL_OK ? j->text : "";
}

/* ---- structure ------------------------------------------------------------------------------- */

/* What a file that is not JSON begins with, and what to do with it; NULL: no idea. */
static const char *gfli_json_other_format(const unsigned char *p, size_t n) {
    static const struct {
        const char *bytes, *what;
        size_t n;
    } kinds[] = {{"\x1f\x8b", "compressed by gzip: unpack it with gunzip", 2},
                 {"PK\3\4", "a zip archive: unpack it", 4},
                 {"BZh", "compressed by bzip2: unpack it with bunzip2", 3},
                 {"\xfd"
                  "7zXZ",
                  "compressed by xz: unpack it with unxz", 5},
                 {"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it with unzstd", 4},
                 {"\x89PNG", "a PNG picture", 4},
                 {"\xff\xd8\xff", "a JPEG picture", 3},
                 {"\xff\xfe", "in UTF-16: save it as UTF-8", 2},
                 {"\xfe\xff", "in UTF-16: save it as UTF-8", 2},
                 {"<", "XML or HTML", 1}};
    for (size_t i = 0; i < GFLI_COUNT(kinds); i++)
        if (n >= kinds[i].n && memcmp(p, kinds[i].bytes, kinds[i].n) == 0) return kinds[i].what;
    if (n >= 2 && !p[0] != !p[1]) return "in UTF-16 or UTF-32: save it as UTF-8";
    return NULL;
}

/* Once, before the first value. */
static void gfli_json_identify(gfli_json *j) {
    gfli_json_have(j, 8);
    const char *what = gfli_json_other_format(j->at, (size_t)(j->end - j->at));
    char text[100];
    snprintf(text, sizeof text, "this is not JSON: the file is %s", what ? what : "empty");
    if (what || j->at == j->end) gfli_json_bad(j, text);
}

/* Letters and digits from the next byte on; returns how many bytes were copied. */
static size_t gfli_json_next_word(gfli_json *j, char out[24]) {
    size_t n = 0;
    gfli_json_have(j, 23);
    if (*j->at == '-') out[n++] = '-';
    for (; n < 23 && ((j->at[n] | 32u) - 'a' < 26u || (unsigned)j->at[n] - '0' < 10u); n++)
        out[n] = (char)j->at[n];
    out[n] = 0;
    return n;
}

/* There is no value at the next byte: what is there instead? */
static void gfli_json_no_value(gfli_json *j) {
    static const char advice[] = "as Python prints it: write the file with json.dump";
    char text[160], word[24], shown[40];
    if (j->at == j->end) {
        gfli_json_bad(j, "the file ends where a value is expected");
        return;
    }
    size_t n = gfli_json_next_word(j, word);
    if (!strcmp(word, "None") || !strcmp(word, "True") || !strcmp(word, "False"))
        snprintf(text, sizeof text, "a value is expected, not %s, %s", word, advice);
    else if (*j->at == '\'')
        snprintf(text, sizeof text, "a value is expected, not a text in single quotes, %s", advice);
    else
        snprintf(text, sizeof text, "a value is expected, not %s",
                 n ? gfli_quote(word, shown, sizeof shown)
                   : gfli_quote_bytes((const char *)j->at, 1, shown, sizeof shown));
    gfli_json_bad(j, text);
}

/* The words of JSON, and those that Python's json module writes for what JSON cannot say. */
static gfli_json_kind gfli_json_word(gfli_json *j) {
    static const struct {
        const char *word;
        gfli_json_kind kind;
    } words[] = {{"true", GFLI_JSON_TRUE},          {"false", GFLI_JSON_FALSE},
                 {"null", GFLI_JSON_NULL},          {"NaN", GFLI_JSON_NONFINITE},
                 {"Infinity", GFLI_JSON_NONFINITE}, {"-Infinity", GFLI_JSON_NONFINITE}};
    char word[24];
    size_t n = gfli_json_next_word(j, word);
    for (size_t i = 0; i < GFLI_COUNT(words); i++)
        if (!strcmp(word, words[i].word)) {
            j->at += n;
            return words[i].kind;
        }
    gfli_json_no_value(j);
    return GFLI_JSON_END;
}

static gfli_json_kind gfli_json_enter(gfli_json *j, int c, gfli_json_kind kind) {
    if (j->depth == GFLI_JSON_DEPTH) {
        gfli_json_bad(j, "nested more than 64 deep");
        return GFLI_JSON_END;
    }
    j->at++;
    j->stack[j->depth++] = (char)c;
    j->comma = false;
    return kind;
}

/* Behind the one value of the text there is nothing but space. */
static void gfli_json_finish(gfli_json *j) {
    if (j->depth == 0 && j->status == GFL_OK && gfli_json_peek(j) >= 0)
        gfli_json_bad(j, "something follows the end of the JSON value");
}

static gfli_json_kind gfli_json_leave(gfli_json *j) {
    j->token = j->at++;
    j->depth--;
    j->comma = true;
    gfli_json_finish(j);
    return GFLI_JSON_END;
}

/* A minus sign may begin a number, or the word that Python writes. */
static bool gfli_json_is_number(gfli_json *j) {
    return gfli_json_have(j, 2) && (unsigned)j->at[1] - '0' <= 9;
}

static gfli_json_kind gfli_json_value(gfli_json *j, int c, bool keep) {
    gfli_json_kind kind = GFLI_JSON_END;
    j->keyed = false;
    j->token = j->at;
    if (c == '{') return gfli_json_enter(j, c, GFLI_JSON_OBJECT);
    if (c == '[') return gfli_json_enter(j, c, GFLI_JSON_ARRAY);
    if (c == '"') {
        gfli_json_read_string(j, keep);
        kind = GFLI_JSON_STRING;
    } else if ((c >= '0' && c <= '9') || (c == '-' && gfli_json_is_number(j))) {
        gfli_json_read_number(j, keep);
        kind = GFLI_JSON_NUMBER;
    } else {
        kind = gfli_json_word(j);
    }
    j->comma = true;
    gfli_json_finish(j);
    return j->status == GFL_OK ? kind : GFLI_JSON_END;
}

/* The comma between items; returns the first byte of the item, or -1 after an error. */
static int gfli_json_separator(gfli_json *j, int c) {
    if (!j->comma) return c;
    if (c != ',') {
        gfli_json_bad(j, c < 0 ? "the file ends inside an object or array"
                               : "a comma or the end of the object or array is expected");
        return -1;
    }
    j->at++;
    c = gfli_json_peek(j);
    if (c == ']' || c == '}') gfli_json_bad(j, "a comma before the end of an object or array");
    return c;
}

static gfli_json_kind gfli_json_step(gfli_json *j, bool keep) {
    if (j->status != GFL_OK) return GFLI_JSON_END;
    if (j->depth == 0) {
        if (j->started) return GFLI_JSON_END;
        j->started = true;
        gfli_json_identify(j);
        if (j->status != GFL_OK) return GFLI_JSON_END;
        return gfli_json_value(j, gfli_json_peek(j), keep);
    }
    int c = gfli_json_peek(j);
    if (j->stack[j->depth - 1] == '{') {
        if (!j->keyed) gfli_json_bad(j, "a value was asked for without its key");
        return j->status == GFL_OK ? gfli_json_value(j, c, keep) : GFLI_JSON_END;
    }
    if (c == ']') return gfli_json_leave(j);
    c = gfli_json_separator(j, c);
    return j->status == GFL_OK ? gfli_json_value(j, c, keep) : GFLI_JSON_END;
}

gfli_json_kind gfli_json_next(gfli_json *j) {
    return gfli_json_step(j, true);
}

static bool gfli_json_take_key(gfli_json *j, bool keep) {
    if (j->keyed) gfli_json_skip(j);
    if (j->status != GFL_OK || j->depth == 0 || j->stack[j->depth - 1] != '{') return false;
    int c = gfli_json_peek(j);
    if (c == '}') {
        gfli_json_leave(j);
        return false;
    }
    c = gfli_json_separator(j, c);
    if (j->status != GFL_OK) return false;
    if (c != '"') {
        gfli_json_bad(j, c < 0       ? "the file ends inside an object"
                         : c == '\'' ? "a key is in single quotes, as Python prints it: write the "
                                       "file with json.dump"
                                     : "a key in double quotes is expected");
        return false;
    }
    j->token = j->at;
    gfli_json_read_string(j, keep);
    if (j->status == GFL_OK && gfli_json_peek(j) != ':')
        gfli_json_bad(j, "a colon is expected after a key");
    if (j->status != GFL_OK) return false;
    j->at++;
    return j->keyed = true;
}

const char *gfli_json_key(gfli_json *j) {
    return gfli_json_take_key(j, true) ? j->text : NULL;
}

/* Polygons are most of an annotation file.  After a number of an array: as many ", number" as the
 * buffer surely holds whole; what is unusual is left to the ordinary way. */
static void gfli_json_skip_numbers(gfli_json *j) {
    unsigned char *p = j->at;
    gfli_decimal_span s;
    while (*p == ',') {
        unsigned char *q = p + 1;
        while (*q == ' ' || *q == '\n' || *q == '\r' || *q == '\t') q++;
        if ((*q != '-' && (unsigned)*q - '0' > 9) || !gfli_decimal_scan(q, &s)) break;
        if (*s.end != ',' && *s.end != ']' && *s.end != ' ' && *s.end != '\n') break;
        p = q + (s.end - q);
    }
    j->at = p;
}

int gfli_json_depth(const gfli_json *j) {
    return j->depth;
}

void gfli_json_leave_to(gfli_json *j, int depth) {
    while (j->status == GFL_OK && j->depth > depth) {
        bool object = j->stack[j->depth - 1] == '{';
        if (object && !gfli_json_take_key(j, false)) continue;
        gfli_json_kind kind = gfli_json_step(j, false);
        if (!object && kind == GFLI_JSON_NUMBER) gfli_json_skip_numbers(j);
    }
}

void gfli_json_skip(gfli_json *j) {
    const int depth = j->depth;
    gfli_json_step(j, false);
    gfli_json_leave_to(j, depth);
}

const char *gfli_json_found(const gfli_json *j, gfli_json_kind kind, char out[GFLI_QUOTED]) {
    static const char *const names[] = {"the end", "an object", "a list", "a text", "a number",
                                        "true",    "false",     "null",   "NaN"};
    if (kind == GFLI_JSON_STRING) return gfli_quote(j->text, out, GFLI_QUOTED);
    if (kind != GFLI_JSON_NUMBER && kind != GFLI_JSON_NONFINITE) return names[kind];
    if (!j->token) return names[kind];
    const int n = (int)(j->at - j->token), most = 40;
    snprintf(out, GFLI_QUOTED, "%.*s%s", n < most ? n : most, (const char *)j->token,
             n < most ? "" : "...");
    return out;
}

/* ---- life ------------------------------------------------------------------------------------ */

static gfl_status gfli_json_make(gfl_context *context, const char *name, gfli_json **out) {
    *out = NULL;
    gfli_json *j;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *j, "a JSON reader", &j));
    j->context = context;
    j->file = GFLI_NO_HANDLE;
    gfl_status status = gfli_strdup(context, name, &j->name);
    if (status == GFL_OK)
        status = gfli_alloc(context, GFLI_JSON_BUFFER + 1, 1, "a JSON reader", &j->buffer);
    if (status == GFL_OK)
        status = gfli_grow(context, &j->text, &j->capacity, 256, 1, "a JSON reader");
    if (status != GFL_OK) {
        gfli_json_close(j);
        return status;
    }
    j->text[0] = 0;
    j->at = j->end = j->counted = j->token = j->buffer;
    *j->end = 0;
    j->line = j->column = j->token_line = j->token_column = 1;
    *out = j;
    return GFL_OK;
}

/* A byte-order mark is what some editors put first; it means nothing in UTF-8. */
static void gfli_json_skip_mark(gfli_json *j) {
    if (gfli_json_have(j, 3) && memcmp(j->at, "\xEF\xBB\xBF", 3) == 0)
        j->token = j->counted = j->at += 3;
}

gfl_status gfli_json_open(gfl_context *context, const char *path, gfli_json **out) {
    *out = NULL;
    gfli_handle file;
    gfli_os_info info;
    GFLI_TRY(gfli_os_open(context, path, GFLI_OS_REGULAR_OR_STDIN, &file, &info));
    gfl_status status = gfli_json_make(context, path, out);
    if (status != GFL_OK) {
        gfli_os_close(file);
        return status;
    }
    (*out)->file = file;
    (*out)->most = info.kind == GFLI_OS_FILE ? UINT64_MAX : GFLI_JSON_STREAM;
    gfli_json_skip_mark(*out);
    return GFL_OK;
}

gfl_status gfli_json_open_memory(gfl_context *context, const char *text, size_t size,
                                 const char *name, gfli_json **out) {
    GFLI_TRY(gfli_json_make(context, name, out));
    (*out)->rest = text;
    (*out)->rest_size = size;
    gfli_json_skip_mark(*out);
    return GFL_OK;
}

void gfli_json_close(gfli_json *j) {
    if (!j) return;
    gfl_context *context = j->context;
    gfli_os_close(j->file);
    gfli_free(context, j->buffer);
    gfli_free(context, j->text);
    gfli_free(context, j->name);
    gfli_free(context, j);
}

gfl_status gfli_json_status(const gfli_json *j) {
    return j->status;
}
