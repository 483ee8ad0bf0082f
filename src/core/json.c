/* json.c - a pull parser for JSON of any size */
#pragma once

enum { GFLI_JSON_BUFFER = 1 << 16, GFLI_JSON_TOKEN = 1 << 24 };

struct gfli_json {
    gfl_context *context;
    FILE *file; /* NULL: text in memory */
    char *name;
    unsigned char *buffer; /* of the file */
    const unsigned char *at, *end;
    long line;
    char stack[GFLI_JSON_DEPTH]; /* '{' or '[' */
    int depth;
    bool comma;   /* the container has an item already, so the next needs a comma */
    bool started; /* the one value of the text has begun */
    bool keyed;   /* a key was taken, its value comes next */
    char *token;  /* the last string or number, 0-terminated */
    size_t length, capacity;
    gfl_status status;
};

gfl_status gfli_json_error(gfli_json *j, gfl_status status, const char *format, ...) {
    if (j->status != GFL_OK) return j->status;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    j->status = gfli_error(j->context, status, "%s:%ld: %s", j->name, j->line, text);
    return j->status;
}

static void gfli_json_bad(gfli_json *j, const char *what) {
    gfli_json_error(j, GFL_E_FORMAT, "%s", what);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static bool gfli_json_fill(gfli_json *j) {
    if (!j->file) return false;
    size_t n = fread(j->buffer, 1, GFLI_JSON_BUFFER, j->file);
    if (!n && ferror(j->file)) gfli_json_error(j, GFL_E_IO, "reading failed: %s", strerror(errno));
    j->at = j->buffer;
    j->end = j->buffer + n;
    return n > 0;
}

/* The next byte without taking it, or -1 at the end. */
static inline int gfli_json_peek(gfli_json *j) {
    if (j->at == j->end && !gfli_json_fill(j)) return -1;
    return *j->at;
}

static int gfli_json_skip_space(gfli_json *j) {
    for (;;) {
        int c = gfli_json_peek(j);
        if (c == '\n') j->line++;
        else if (c != ' ' && c != '\t' && c != '\r') return c;
        j->at++;
    }
}

static bool gfli_json_push(gfli_json *j, int c) {
    if (j->length + 1 >= j->capacity) {
        if (j->length > GFLI_JSON_TOKEN) {
            gfli_json_bad(j, "a text is longer than 16 MiB");
            return false;
        }
        gfl_status status =
            gfli_grow(j->context, &j->token, &j->capacity, j->length + 256, 1, "a JSON text");
        if (status != GFL_OK) {
            j->status = status;
            return false;
        }
    }
    j->token[j->length++] = (char)c;
    return true;
}

/* ---- strings --------------------------------------------------------------------------------- */

static bool gfli_json_push_utf8(gfli_json *j, unsigned code) {
    if (code < 0x80) return gfli_json_push(j, (int)code);
    if (code < 0x800)
        return gfli_json_push(j, (int)(0xC0 | code >> 6)) &&
               gfli_json_push(j, (int)(0x80 | (code & 63)));
    if (code < 0x10000)
        return gfli_json_push(j, (int)(0xE0 | code >> 12)) &&
               gfli_json_push(j, (int)(0x80 | (code >> 6 & 63))) &&
               gfli_json_push(j, (int)(0x80 | (code & 63)));
    return gfli_json_push(j, (int)(0xF0 | code >> 18)) &&
           gfli_json_push(j, (int)(0x80 | (code >> 12 & 63))) &&
           gfli_json_push(j, (int)(0x80 | (code >> 6 & 63))) &&
           gfli_json_push(j, (int)(0x80 | (code & 63)));
}

static int gfli_hex_digit(int c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Four hexadecimal digits, or -1. */
static int gfli_json_hex4(gfli_json *j) {
    int code = 0;
    for (int i = 0; i < 4; i++) {
        int digit = gfli_hex_digit(gfli_json_peek(j));
        if (digit < 0) return -1;
        code = code * 16 + digit;
        j->at++;
    }
    return code;
}

static void gfli_json_escape_u(gfli_json *j) {
    int high = gfli_json_hex4(j), low = 0;
    bool pair = high >= 0xD800 && high < 0xDC00;
    if (pair) {
        bool follows = gfli_json_peek(j) == '\\' && (j->at++, gfli_json_peek(j) == 'u');
        if (follows) j->at++;
        low = follows ? gfli_json_hex4(j) : -1;
    }
    if (high < 0 || (high >= 0xDC00 && high < 0xE000) || (pair && (low < 0xDC00 || low > 0xDFFF))) {
        gfli_json_bad(j, "a \\u escape is not four hexadecimal digits of a character");
    } else if (pair) {
        gfli_json_push_utf8(j, 0x10000u + (((unsigned)high & 0x3FF) << 10 | ((unsigned)low & 0x3FF)));
    } else if (high == 0) {
        gfli_json_bad(j, "a text contains the character 0");
    } else {
        gfli_json_push_utf8(j, (unsigned)high);
    }
}

static void gfli_json_escape(gfli_json *j) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    int c = gfli_json_peek(j);
    if (c >= 0) j->at++;
    const char *found = c > 0 ? strchr(from, c) : NULL;
    if (c == 'u') gfli_json_escape_u(j);
    else if (found) gfli_json_push(j, to[found - from]);
    else gfli_json_bad(j, "a text contains an unknown escape");
}

/* A sequence of several bytes: shortest form, no surrogate, at most U+10FFFF. */
static void gfli_json_utf8(gfli_json *j, int first) {
    int more = first >= 0xC2 && first < 0xE0   ? 1
               : first >= 0xE0 && first < 0xF0 ? 2
               : first >= 0xF0 && first < 0xF5 ? 3
                                               : 0;
    int low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    int high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    bool good = more > 0 && gfli_json_push(j, first);
    for (int i = 0; good && i < more; i++) {
        int c = gfli_json_peek(j);
        good = c >= low && c <= high && gfli_json_push(j, c);
        if (good) j->at++;
        low = 0x80;
        high = 0xBF;
    }
    if (!good) gfli_json_bad(j, "a text is not UTF-8");
}

/* After the opening quote. */
static void gfli_json_read_string(gfli_json *j) {
    j->length = 0;
    while (j->status == GFL_OK) {
        int c = gfli_json_peek(j);
        if (c < 0) {
            gfli_json_bad(j, "the file ends inside a text");
            return;
        }
        j->at++;
        if (c == '"') break;
        if (c == '\\') gfli_json_escape(j);
        else if (c < 0x20) gfli_json_bad(j, "a text contains an unescaped control character");
        else if (c < 0x80) gfli_json_push(j, c);
        else gfli_json_utf8(j, c);
    }
    if (gfli_json_push(j, 0)) j->length--;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static bool gfli_json_digits(gfli_json *j) {
    bool any = false;
    for (;;) {
        int c = gfli_json_peek(j);
        if (c < '0' || c > '9') return any;
        if (!gfli_json_push(j, c)) return false;
        j->at++;
        any = true;
    }
}

static bool gfli_json_take(gfli_json *j, int c) {
    if (gfli_json_peek(j) != c) return false;
    j->at++;
    return gfli_json_push(j, c);
}

static void gfli_json_read_number(gfli_json *j) {
    j->length = 0;
    gfli_json_take(j, '-');
    bool good = gfli_json_take(j, '0') || gfli_json_digits(j);
    if (good && gfli_json_take(j, '.')) good = gfli_json_digits(j);
    if (good && (gfli_json_take(j, 'e') || gfli_json_take(j, 'E'))) {
        if (!gfli_json_take(j, '-')) gfli_json_take(j, '+');
        good = gfli_json_digits(j);
    }
    int c = gfli_json_peek(j);
    if (!good || (c >= '0' && c <= '9') || c == '.' || (c >= 'a' && c <= 'z') || c == '-')
        gfli_json_bad(j, "not a number as JSON writes it");
    if (j->length > 400) gfli_json_bad(j, "a number has more than 400 characters");
    if (gfli_json_push(j, 0)) j->length--;
}

/* strtod wants the locale's decimal point. */
static double gfli_strtod(const char *text) {
    char copy[512], *end;
    double value = strtod(text, &end);
    if (!*end) return value;
    const char *point = localeconv()->decimal_point;
    const char *dot = strchr(text, '.');
    size_t before = dot ? (size_t)(dot - text) : 0, n = strlen(text), extra = strlen(point);
    if (!dot || n + extra >= sizeof copy) return value;
    memcpy(copy, text, before);
    memcpy(copy + before, point, extra);
    memcpy(copy + before + extra, dot + 1, n - before);
    return strtod(copy, NULL);
}

/* Clinger's fast path: a mantissa under 2^53 times or by a power of ten that is exact. */
static double gfli_parse_double(const char *text) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *p = text;
    bool negative = *p == '-';
    uint64_t mantissa = 0;
    int digits = 0, scale = 0;
    if (negative) p++;
    for (; *p >= '0' && *p <= '9'; p++) {
        mantissa = mantissa * 10 + (uint64_t)(*p - '0');
        digits += mantissa != 0;
        if (digits > 18) return gfli_strtod(text);
    }
    if (*p == '.') {
        for (p++; *p >= '0' && *p <= '9'; p++) {
            mantissa = mantissa * 10 + (uint64_t)(*p - '0');
            digits += mantissa != 0;
            scale--;
            if (digits > 18 || scale < -22) return gfli_strtod(text);
        }
    }
    if (*p || mantissa >> 53) return gfli_strtod(text);
    double value = (double)mantissa / powers[-scale];
    return negative ? -value : value;
}

double gfli_json_number(gfli_json *j) {
    return j->status == GFL_OK ? gfli_parse_double(j->token) : 0.0;
}

bool gfli_json_integer(gfli_json *j, int64_t *out) {
    *out = 0;
    if (j->status != GFL_OK) return false;
    const char *p = j->token;
    bool negative = *p == '-';
    if (negative) p++;
    uint64_t value = 0, limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (value > (limit - digit) / 10) return false;
        value = value * 10 + digit;
    }
    if (*p) { /* 7.0 and 7e0 are whole too, but only where a double is exact */
        double d = gfli_parse_double(j->token);
        if (!(fabs(d) < 9007199254740992.0) || floor(d) != d) return false;
        *out = (int64_t)d;
        return true;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

const char *gfli_json_string(gfli_json *j, size_t *length) {
    if (length) *length = j->status == GFL_OK ? j->length : 0;
    return j->status == GFL_OK ? j->token : "";
}

/* ---- structure ------------------------------------------------------------------------------- */

static gfli_json_kind gfli_json_word(gfli_json *j, const char *word, gfli_json_kind kind) {
    for (const char *p = word; *p; p++, j->at++) {
        if (gfli_json_peek(j) == *p) continue;
        gfli_json_bad(j, "expected a value");
        return GFLI_JSON_END;
    }
    return kind;
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

static gfli_json_kind gfli_json_leave(gfli_json *j) {
    j->at++;
    j->depth--;
    j->comma = true;
    return GFLI_JSON_END;
}

static gfli_json_kind gfli_json_value(gfli_json *j, int c) {
    gfli_json_kind kind = GFLI_JSON_END;
    j->keyed = false;
    if (c == '{') return gfli_json_enter(j, c, GFLI_JSON_OBJECT);
    if (c == '[') return gfli_json_enter(j, c, GFLI_JSON_ARRAY);
    if (c == '"') {
        j->at++;
        gfli_json_read_string(j);
        kind = GFLI_JSON_STRING;
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        gfli_json_read_number(j);
        kind = GFLI_JSON_NUMBER;
    } else if (c == 't') {
        kind = gfli_json_word(j, "true", GFLI_JSON_TRUE);
    } else if (c == 'f') {
        kind = gfli_json_word(j, "false", GFLI_JSON_FALSE);
    } else if (c == 'n') {
        kind = gfli_json_word(j, "null", GFLI_JSON_NULL);
    } else {
        gfli_json_bad(j, c < 0 ? "the file ends where a value is expected" : "expected a value");
    }
    j->comma = true;
    return j->status == GFL_OK ? kind : GFLI_JSON_END;
}

/* The comma between items; returns the first byte of the item, or -1 after an error. */
static int gfli_json_separator(gfli_json *j, int c) {
    if (!j->comma) return c;
    if (c != ',') {
        gfli_json_bad(j, c < 0 ? "the file ends inside an object or array"
                               : "expected a comma or the end of the object or array");
        return -1;
    }
    j->at++;
    c = gfli_json_skip_space(j);
    if (c == ']' || c == '}') gfli_json_bad(j, "a comma before the end of an object or array");
    return c;
}

gfli_json_kind gfli_json_next(gfli_json *j) {
    if (j->status != GFL_OK) return GFLI_JSON_END;
    int c = gfli_json_skip_space(j);
    if (j->depth == 0) {
        if (!j->started) {
            j->started = true;
            return gfli_json_value(j, c);
        }
        if (c >= 0) gfli_json_bad(j, "something follows the end of the JSON value");
        return GFLI_JSON_END;
    }
    if (j->stack[j->depth - 1] == '{') {
        if (!j->keyed) gfli_json_bad(j, "expected a key");
        return j->status == GFL_OK ? gfli_json_value(j, c) : GFLI_JSON_END;
    }
    if (c == ']') return gfli_json_leave(j);
    c = gfli_json_separator(j, c);
    return j->status == GFL_OK ? gfli_json_value(j, c) : GFLI_JSON_END;
}

const char *gfli_json_key(gfli_json *j) {
    if (j->status != GFL_OK || j->depth == 0) return NULL;
    int c = gfli_json_skip_space(j);
    if (c == '}') {
        gfli_json_leave(j);
        return NULL;
    }
    c = gfli_json_separator(j, c);
    if (j->status != GFL_OK) return NULL;
    if (c != '"') {
        gfli_json_bad(j, c < 0 ? "the file ends inside an object" : "expected a key in quotes");
        return NULL;
    }
    j->at++;
    gfli_json_read_string(j);
    if (j->status == GFL_OK && gfli_json_skip_space(j) != ':')
        gfli_json_bad(j, "expected a colon after a key");
    if (j->status != GFL_OK) return NULL;
    j->at++;
    j->keyed = true;
    return j->token;
}

void gfli_json_skip(gfli_json *j) {
    const int depth = j->depth;
    gfli_json_kind kind = gfli_json_next(j);
    if (kind != GFLI_JSON_OBJECT && kind != GFLI_JSON_ARRAY) return;
    while (j->status == GFL_OK && j->depth > depth) {
        if (j->stack[j->depth - 1] == '{') {
            if (gfli_json_key(j)) gfli_json_next(j);
        } else {
            gfli_json_next(j);
        }
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static gfl_status gfli_json_make(gfl_context *context, const char *name, gfli_json **out) {
    *out = NULL;
    gfli_json *j;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *j, "a JSON reader", &j));
    j->context = context;
    j->line = 1;
    gfl_status status = gfli_strdup(context, name, &j->name);
    if (status == GFL_OK)
        status = gfli_grow(context, &j->token, &j->capacity, 256, 1, "a JSON reader");
    if (status != GFL_OK) {
        gfli_json_close(j);
        return status;
    }
    j->token[0] = 0;
    *out = j;
    return GFL_OK;
}

/* A byte-order mark is what some editors put first; it means nothing in UTF-8. */
static void gfli_json_skip_mark(gfli_json *j) {
    if (gfli_json_peek(j) == 0xEF && j->end - j->at >= 3 && j->at[1] == 0xBB && j->at[2] == 0xBF)
        j->at += 3;
}

gfl_status gfli_json_open(gfl_context *context, const char *path, gfli_json **out) {
    *out = NULL;
    FILE *file = fopen(path, "rb");
    if (!file)
        return gfli_error(context, GFL_E_IO, "%s cannot be opened: %s", path, strerror(errno));
    gfli_json *j;
    gfl_status status = gfli_json_make(context, path, &j);
    if (status == GFL_OK) {
        status = gfli_alloc(context, GFLI_JSON_BUFFER, 1, "a JSON reader", &j->buffer);
        if (status != GFL_OK) gfli_json_close(j);
    }
    if (status != GFL_OK) {
        fclose(file);
        return status;
    }
    j->file = file;
    gfli_json_skip_mark(j);
    *out = j;
    return GFL_OK;
}

gfl_status gfli_json_open_memory(gfl_context *context, const char *text, size_t size,
                                 const char *name, gfli_json **out) {
    GFLI_TRY(gfli_json_make(context, name, out));
    (*out)->at = (const unsigned char *)text;
    (*out)->end = (const unsigned char *)text + size;
    gfli_json_skip_mark(*out);
    return GFL_OK;
}

void gfli_json_close(gfli_json *j) {
    if (!j) return;
    gfl_context *context = j->context;
    if (j->file) fclose(j->file);
    gfli_free(context, j->buffer);
    gfli_free(context, j->token);
    gfli_free(context, j->name);
    gfli_free(context, j);
}

gfl_status gfli_json_status(const gfli_json *j) {
    return j->status;
}

long gfli_json_line(const gfli_json *j) {
    return j->line;
}

/* ---- writing --------------------------------------------------------------------------------- */

size_t gfli_json_quote(const char *s, char *out, size_t capacity) {
    size_t n = 0;
    char piece[8];
    for (int part = 0; part < 3; part++) { /* quote, contents, quote */
        for (const char *p = part == 1 ? s : "\""; *p; p++) {
            unsigned char c = (unsigned char)*p;
            if (part == 1 && (c == '"' || c == '\\')) snprintf(piece, sizeof piece, "\\%c", c);
            else if (c < 0x20) snprintf(piece, sizeof piece, "\\u%04x", c);
            else snprintf(piece, sizeof piece, "%c", c);
            for (const char *q = piece; *q; q++, n++)
                if (n + 1 < capacity) out[n] = *q;
        }
    }
    if (capacity) out[n < capacity ? n : capacity - 1] = 0;
    return n;
}

void gfli_json_format(double value, char out[32]) {
    if (!(fabs(value) <= DBL_MAX)) { /* JSON has neither NaN nor infinity */
        snprintf(out, 32, "null");
        return;
    }
    const char *point = localeconv()->decimal_point;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, value);
        char *found = strcmp(point, ".") != 0 ? strstr(out, point) : NULL;
        if (found) {
            *found = '.';
            memmove(found + 1, found + strlen(point), strlen(found + strlen(point)) + 1);
        }
        if (gfli_parse_double(out) == value) return;
    }
}
