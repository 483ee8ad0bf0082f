/* json.h - a pull parser: a file of any size in constant memory, bounded depth */
#pragma once

typedef enum gfli_json_kind {
    GFLI_JSON_END, /* of the enclosing object or array, or of the text */
    GFLI_JSON_OBJECT,
    GFLI_JSON_ARRAY,
    GFLI_JSON_STRING,
    GFLI_JSON_NUMBER,
    GFLI_JSON_TRUE,
    GFLI_JSON_FALSE,
    GFLI_JSON_NULL,
    GFLI_JSON_NONFINITE /* NaN, Infinity or -Infinity, as Python's json module writes them */
} gfli_json_kind;

enum { GFLI_JSON_DEPTH = 64 };

/* Reads through a buffer from a file, or from caller's bytes, in the memory of the longest text in
 * it, of at most 16 MiB, and in time in proportion to its bytes.  The first error sticks: its text
 * is in the context with file name, line and column (in bytes, from 1), and every later call
 * answers GFLI_JSON_END. */
typedef struct gfli_json gfli_json;

gfl_status gfli_json_open(gfl_context *context, const char *path, gfli_json **out);
gfl_status gfli_json_open_memory(gfl_context *context, const char *text, size_t size,
                                 const char *name, gfli_json **out);
void gfli_json_close(gfli_json *j);

/* The next value (in an object, after the key was taken with gfli_json_key).  OBJECT and ARRAY are
 * entered; END leaves the array that was being read. */
gfli_json_kind gfli_json_next(gfli_json *j);
/* Inside an object: the next key (valid until the next call), or NULL at its end, which leaves
 * it. */
const char *gfli_json_key(gfli_json *j);
/* Step over the value that comes next (after a key, or in an array). */
void gfli_json_skip(gfli_json *j);
/* How many objects and arrays are open, and out of them until so many are left. */
int gfli_json_depth(const gfli_json *j);
void gfli_json_leave_to(gfli_json *j, int depth);
/* Of the value that gfli_json_next just returned: UTF-8, escapes resolved, 0-terminated. */
const char *gfli_json_string(gfli_json *j, size_t *length);
double gfli_json_as_number(gfli_json *j);              /* correctly rounded, any locale */
bool gfli_json_as_integer(gfli_json *j, int64_t *out); /* exact, or false */
gfl_status gfli_json_status(const gfli_json *j);       /* GFL_OK, or the first error */
/* The value as an error text shows it: null, "a text", 1e999, a list. */
const char *gfli_json_found(const gfli_json *j, gfli_json_kind kind, char out[GFLI_QUOTED]);
/* Where the value, or the end, that was read last begins. */
void gfli_json_place(gfli_json *j, long *line, long *column);
/* An error of the reader's own about that place; returns status and makes it stick. */
gfl_status gfli_json_error(gfli_json *j, gfl_status status, const char *format, ...)
    GFLI_PRINTF(3, 4);

/* ---- writing (core/json_write.c): gfl_json_text and its like, and where they write to ------- */

/* gfli_decimal_format, and "null" for what is not finite. */
void gfli_json_format(double value, char out[32]);
void gfli_json_format_float(float value, char out[32]);

/* A text that grows in the context's memory; bytes ends with a 0 and is NULL before the first. */
typedef struct gfli_text {
    gfl_context *context;
    const char *what; /* for the message when there is no memory */
    char *bytes;
    size_t length, capacity;
} gfli_text;
gfl_status gfli_text_add(gfli_text *text, const char *bytes, size_t n);

/* Writers without spaces. */
gfl_json_writer gfli_json_to_text(gfli_text *text);
gfl_json_writer gfli_json_to_file(gfli_file *file);
