/* text.h - foreign texts for people: class names, file names, whatever a file says of itself */
#pragma once

/* gfl_text_show - a text on one line, in UTF-8, and without anything that a terminal would obey.
 *
 * Control characters, line separators, marks that hide text or turn its direction, and bytes that
 * are not UTF-8 are written as \n, \t, \x1b, \u202e or \xff.  Everything else stays as it is,
 * backslashes too.  So it is for people: a program that needs the text back reads JSON.
 *
 *   text  0-terminated
 *   out   [size] set to as much as fits, never half a character, and a 0 behind it; may be NULL
 *         where size is 0
 *
 * It returns the length that all of the text needs, without the 0.
 *
 * Errors    None.
 * Memory    None.
 * Threads   Any.
 */
GFL_API size_t gfl_text_show(const char *text, char *out, size_t size);

/* gfl_text_valid - how many of the n bytes at text are whole characters of UTF-8, counted from the
 * first.  It is n where all of them are UTF-8.
 *
 * Errors    None.
 * Memory    None.
 * Threads   Any.
 */
GFL_API size_t gfl_text_valid(const char *text, size_t n);
