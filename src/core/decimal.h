/* decimal.h - numbers between text and binary */
#pragma once

/* Digits that can decide how a number is rounded; what follows them says only that there is
 * more. */
enum { GFLI_DECIMAL_DIGITS = 768 };

/* A number as the text has it: mantissa * 10^exponent.  Where its digits do not fit the mantissa,
 * as many as can decide a rounding are kept as text. */
typedef struct gfli_decimal {
    bool negative, exact; /* exact: the mantissa has all digits */
    uint64_t mantissa;
    int exponent;
    int n_digits, digits_exponent;
    char digits[GFLI_DECIMAL_DIGITS + 1];
} gfli_decimal;

/* Where the parts of a number end. */
typedef struct gfli_decimal_span {
    const unsigned char *start, *whole_end, *fraction, *fraction_end, *exponent, *end;
} gfli_decimal_span;

/* JSON's grammar of a number, in a text that ends with a byte that cannot belong to one; false
 * where the text breaks it. */
bool gfli_decimal_scan(const unsigned char *text, gfli_decimal_span *out);
void gfli_decimal_read(const gfli_decimal_span *span, bool negative, gfli_decimal *out);
/* Correctly rounded, whatever the locale and the rounding mode are. */
double gfli_decimal_value(const gfli_decimal *decimal);
/* Whole numbers exactly, 7.0 and 7e0 among them; false for all others. */
bool gfli_decimal_integer(const gfli_decimal *decimal, int64_t *out);
/* The value of a text that is such a number. */
double gfli_decimal_parse(const char *number);

/* Text of a finite number that reads back as the same double, or as a double that rounds to the
 * same float; short, and the same in any locale. */
void gfli_decimal_format(double value, bool is_float, char out[32]);
