/* quote.h - foreign text in messages: class names, file names, ids, metadata */
#pragma once

/* Bytes of the UTF-8 sequence at p (shortest form, no surrogate, at most U+10FFFF), or 0. */
size_t gfli_utf8_length(const unsigned char *p, size_t n);

/* Room that suits an error text, closing quote and 0 included. */
enum { GFLI_QUOTED = 100 };

/* The text in double quotes and on one line, whatever it holds: quotes, backslashes, control
 * characters, marks that turn the direction of writing, and bytes that are not UTF-8 are escaped.
 * What does not fit is cut between characters, and "..." stands behind the closing quote.  n bytes
 * of text; size is at least 8.  Returns out. */
const char *gfli_quote_bytes(const char *text, size_t n, char *out, size_t size);
const char *gfli_quote(const char *text, char *out, size_t size);
