/* json.h - writing JSON: the library's own writer, for programs that print results of it */
#pragma once

/* A writer.  Zero it, set the first three fields, and write one value after the other.  The writer
 * adds commas, quotes, escapes and brackets.  It needs no context and takes no memory. */
typedef struct gfl_json_writer {
    /* Takes the next bytes of the text, which do not end with a 0; returns GFL_OK, or what went
     * wrong. */
    gfl_status (*write)(void *user, const char *bytes, size_t size);
    void *user;
    int spaced; /* 1: a space follows each comma and colon */
    /* The first failure of write, or GFL_E_ARG where the calls do not make JSON: a member of an
     * object without a key, a key elsewhere, an end without a beginning, or a depth above 64.
     * Nothing is written after a failure.  Look at it once, at the end. */
    gfl_status status;
    /* The writer's own. */
    int depth, broken;
    uint64_t objects, filled;
} gfl_json_writer;

/* gfl_json_object, _array, _end, _text, _integer, _number, _float, _bool - write the next value.
 *
 *   key    the name of the value in an object; NULL in an array and outside of both
 *   text   0-terminated; NULL is written as null.  Each byte that is not UTF-8 becomes U+FFFD,
 *          since JSON consists of UTF-8; two texts that are not UTF-8 may then be equal.  Control
 *          characters, quotes and backslashes are escaped
 *   value  the number.  It is written as the shortest text, or nearly so, that a correct reader
 *          turns back into the same double or float, with a point whatever the locale is.  NaN and
 *          infinities, which JSON does not have, are written as null
 *
 * gfl_json_object and gfl_json_array open one that gfl_json_end closes.
 *
 * Errors    They stay in the writer's status.
 * Memory    None.
 * Threads   As the write function allows; one writer serves one thread at a time.
 * Source    RFC 8259.
 */
GFL_API void gfl_json_object(gfl_json_writer *writer, const char *key);
GFL_API void gfl_json_array(gfl_json_writer *writer, const char *key);
GFL_API void gfl_json_end(gfl_json_writer *writer);
GFL_API void gfl_json_text(gfl_json_writer *writer, const char *key, const char *text);
GFL_API void gfl_json_integer(gfl_json_writer *writer, const char *key, int64_t value);
GFL_API void gfl_json_number(gfl_json_writer *writer, const char *key, double value);
GFL_API void gfl_json_float(gfl_json_writer *writer, const char *key, float value);
GFL_API void gfl_json_bool(gfl_json_writer *writer, const char *key, int value);

/* gfl_json_line - begin a new line, before the next value or the end of the object or array that is
 * open, or at once where none is open. */
GFL_API void gfl_json_line(gfl_json_writer *writer);
