/* decimal.c - numbers between text and binary: correctly rounded, in any locale */
#pragma once

/* ---- to binary ------------------------------------------------------------------------------- */

/* significand * 2^exponent, the significand's highest bit set, rounded to the nearest double, ties
 * to even; sticky: there is more behind the significand.  Integers only, so that neither the
 * locale nor the rounding mode matters. */
static double gfli_make_double(uint64_t significand, int exponent, bool sticky) {
    int drop = 11, biased = exponent + 63 + 1023;
    if (biased >= 2047) return INFINITY;
    if (biased < 1) { /* subnormal: fewer bits */
        drop += 1 - biased;
        biased = 0;
    }
    if (drop > 64) return 0;
    uint64_t bits = drop == 64 ? 0 : significand >> drop;
    uint64_t rest = drop == 64 ? significand : significand << (64 - drop);
    uint64_t half = (uint64_t)1 << 63;
    if (rest > half || (rest == half && (sticky || (bits & 1)))) bits++;
    /* The hidden bit adds one to the exponent, and so does a carry. */
    bits += (uint64_t)(biased ? biased - 1 : 0) << 52;
    double out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static int gfli_leading_zeros(uint64_t x) {
    int n = 0;
    for (int step = 32; step > 0; step /= 2)
        if (!(x >> (64 - step))) {
            x <<= step;
            n += step;
        }
    return n;
}

/* Natural numbers of up to 4096 bits, lowest limb first. */
enum { GFLI_BIG_LIMBS = 128 };

typedef struct gfli_big {
    uint32_t limbs[GFLI_BIG_LIMBS];
    int n;
} gfli_big;

static void gfli_big_multiply_add(gfli_big *b, uint32_t factor, uint32_t addend) {
    uint64_t carry = addend;
    for (int i = 0; i < b->n; i++) {
        carry += (uint64_t)b->limbs[i] * factor;
        b->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry && b->n < GFLI_BIG_LIMBS) b->limbs[b->n++] = (uint32_t)carry;
}

static void gfli_big_multiply_five(gfli_big *b, int power) {
    for (; power >= 13; power -= 13) gfli_big_multiply_add(b, 1220703125u, 0); /* 5^13 */
    for (; power > 0; power--) gfli_big_multiply_add(b, 5, 0);
}

static int gfli_big_bits(const gfli_big *b) {
    return b->n == 0 ? 0 : 32 * b->n - (gfli_leading_zeros(b->limbs[b->n - 1]) - 32);
}

static void gfli_big_shift(gfli_big *b, int bits) {
    for (; bits >= 31; bits -= 31) gfli_big_multiply_add(b, (uint32_t)1 << 31, 0);
    if (bits > 0) gfli_big_multiply_add(b, (uint32_t)1 << bits, 0);
}

static bool gfli_big_less(const gfli_big *a, const gfli_big *b) {
    if (a->n != b->n) return a->n < b->n;
    for (int i = a->n - 1; i >= 0; i--)
        if (a->limbs[i] != b->limbs[i]) return a->limbs[i] < b->limbs[i];
    return false;
}

static void gfli_big_subtract(gfli_big *a, const gfli_big *b) {
    int64_t borrow = 0;
    for (int i = 0; i < a->n; i++) {
        borrow += (int64_t)a->limbs[i] - (i < b->n ? (int64_t)b->limbs[i] : 0);
        a->limbs[i] = (uint32_t)borrow;
        borrow >>= 32;
    }
    while (a->n > 0 && a->limbs[a->n - 1] == 0) a->n--;
}

/* digits * 10^exponent by long division, 64 bits of it and whether anything is left. */
static double gfli_decimal_slow(const char *digits, int n, int exponent) {
    if (n == 0 || n + exponent < -330) return 0;
    if (n + exponent > 310) return INFINITY;
    gfli_big top, bottom;
    memset(&top, 0, sizeof top);
    memset(&bottom, 0, sizeof bottom);
    for (int i = 0; i < n; i++) {
        uint32_t digit = (uint32_t)(digits[i] - '0');
        if (top.n == 0 && digit)
            top.limbs[top.n++] = digit;
        else
            gfli_big_multiply_add(&top, 10, digit);
    }
    if (top.n == 0) return 0;
    bottom.limbs[bottom.n++] = 1;
    gfli_big_multiply_five(exponent > 0 ? &top : &bottom, exponent > 0 ? exponent : -exponent);
    int shift = gfli_big_bits(&bottom) - gfli_big_bits(&top);
    gfli_big_shift(shift > 0 ? &top : &bottom, shift > 0 ? shift : -shift);
    if (gfli_big_less(&top, &bottom)) {
        gfli_big_multiply_add(&top, 2, 0);
        shift++;
    }
    uint64_t quotient = 0;
    for (int i = 0; i < 64; i++) {
        quotient <<= 1;
        if (!gfli_big_less(&top, &bottom)) {
            gfli_big_subtract(&top, &bottom);
            quotient |= 1;
        }
        if (i < 63) gfli_big_multiply_add(&top, 2, 0);
    }
    return gfli_make_double(quotient, exponent - shift - 63, top.n > 0);
}

#if defined(__SIZEOF_INT128__)
__extension__ typedef unsigned __int128 gfli_u128;

/* mantissa * 10^exponent for powers of five of one word: exact in two, then rounded once. */
static double gfli_decimal_wide(uint64_t mantissa, int exponent) {
    uint64_t five = 1;
    for (int i = exponent < 0 ? -exponent : exponent; i > 0; i--) five *= 5;
    int zeros = gfli_leading_zeros(mantissa);
    if (exponent >= 0) {
        gfli_u128 product = (gfli_u128)mantissa * five;
        uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product;
        if (high == 0)
            return gfli_make_double(low << gfli_leading_zeros(low),
                                    exponent - gfli_leading_zeros(low), false);
        zeros = gfli_leading_zeros(high);
        product <<= zeros;
        return gfli_make_double((uint64_t)(product >> 64), exponent + 64 - zeros,
                                (uint64_t)product != 0);
    }
    /* The divisor gets its highest bit, the dividend stays below it: one word of quotient. */
    int five_zeros = gfli_leading_zeros(five);
    five <<= five_zeros;
    uint64_t high = (mantissa << zeros) >> 1;
    gfli_u128 dividend = (gfli_u128)high << 64;
    if ((mantissa << zeros) & 1) dividend |= (gfli_u128)1 << 63;
    uint64_t quotient = (uint64_t)(dividend / five);
    bool sticky = (gfli_u128)quotient * five != dividend;
    int up = gfli_leading_zeros(quotient);
    /* mantissa = dividend * 2^(-63 - zeros), 5^-exponent = five * 2^-five_zeros */
    int binary = -63 - zeros + five_zeros + exponent;
    if (up > 0) { /* at most one bit is missing; take it from the remainder */
        uint64_t remainder = (uint64_t)(dividend - (gfli_u128)quotient * five);
        gfli_u128 twice = (gfli_u128)remainder << 1;
        quotient = quotient << 1 | (twice >= five);
        sticky = twice != 0 && twice != five;
        binary--;
    }
    return gfli_make_double(quotient, binary, sticky);
}
#endif

/* Does double arithmetic round to nearest at this moment?  The caller may have set another mode. */
static bool gfli_rounds_to_nearest(void) {
    volatile double one = 1.0, tiny = DBL_EPSILON / 8;
    return FLT_EVAL_METHOD == 0 && one + tiny == one && one - tiny == one && -one - tiny == -one;
}

double gfli_decimal_value(const gfli_decimal *d) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    double value;
    if (!d->exact) {
        value = gfli_decimal_slow(d->digits, d->n_digits, d->digits_exponent);
    } else if (d->mantissa == 0) {
        value = 0;
    } else if (d->mantissa >> 53 == 0 && d->exponent >= -22 && d->exponent <= 22 &&
               gfli_rounds_to_nearest()) {
        double m = (double)d->mantissa; /* both are exact, so one rounding decides */
        value = d->exponent < 0 ? m / powers[-d->exponent] : m * powers[d->exponent];
#if defined(__SIZEOF_INT128__)
    } else if (d->exponent >= -27 && d->exponent <= 27) {
        value = gfli_decimal_wide(d->mantissa, d->exponent);
#endif
    } else {
        char digits[24];
        int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)d->mantissa);
        value = gfli_decimal_slow(digits, n, d->exponent);
    }
    return d->negative ? -value : value;
}

/* ---- reading --------------------------------------------------------------------------------- */

static const unsigned char *gfli_skip_digits(const unsigned char *p) {
    while ((unsigned)*p - '0' <= 9) p++;
    return p;
}

bool gfli_decimal_scan(const unsigned char *p, gfli_decimal_span *s) {
    if (*p == '-') p++;
    s->start = p;
    s->whole_end = p = gfli_skip_digits(p);
    bool good = p > s->start && (*s->start != '0' || p == s->start + 1);
    s->fraction = s->fraction_end = p;
    if (*p == '.') {
        s->fraction = p + 1;
        s->fraction_end = p = gfli_skip_digits(p + 1);
        good = good && p > s->fraction;
    }
    s->exponent = NULL;
    if (*p == 'e' || *p == 'E') {
        s->exponent = ++p;
        if (*p == '+' || *p == '-') p++;
        const unsigned char *digits = p;
        p = gfli_skip_digits(p);
        good = good && p > digits;
    }
    s->end = p;
    return good;
}

/* Digits beyond those kept can only say whether there is more, which a final 1 says as well. */
static void gfli_decimal_digits(gfli_decimal *d, const gfli_decimal_span *s, int exponent) {
    int n = 0;
    bool more = false;
    for (const unsigned char *p = s->start; p < s->fraction_end; p++) {
        if (p == s->whole_end) continue; /* the point */
        if (n == 0 && *p == '0') continue;
        if (n < GFLI_DECIMAL_DIGITS) {
            d->digits[n++] = (char)*p;
        } else {
            exponent++;
            more = more || *p != '0';
        }
    }
    if (more) {
        d->digits[n++] = '1';
        exponent--;
    }
    d->n_digits = n;
    d->digits_exponent = exponent;
}

void gfli_decimal_read(const gfli_decimal_span *s, bool negative, gfli_decimal *d) {
    const uint64_t most = (UINT64_MAX - 9) / 10;
    uint64_t mantissa = 0;
    int exponent = 0, written = 0;
    const unsigned char *p = s->start;
    for (; p < s->whole_end && mantissa <= most; p++) mantissa = mantissa * 10 + (*p - '0');
    d->exact = p == s->whole_end;
    if (d->exact)
        for (p = s->fraction; p < s->fraction_end && mantissa <= most; p++)
            mantissa = mantissa * 10 + (*p - '0');
    bool all = d->exact && (p == s->fraction_end || s->fraction == s->fraction_end);
    if (s->exponent) {
        p = s->exponent + (*s->exponent == '-' || *s->exponent == '+');
        for (; p < s->end; p++)
            if (written < 1000000) written = written * 10 + (*p - '0');
        exponent = *s->exponent == '-' ? -written : written;
    }
    exponent -= (int)(s->fraction_end - s->fraction);
    d->negative = negative;
    d->exact = all;
    d->mantissa = mantissa;
    d->exponent = exponent;
    if (!all) gfli_decimal_digits(d, s, exponent);
}

bool gfli_decimal_integer(const gfli_decimal *d, int64_t *out) {
    uint64_t value = d->mantissa;
    *out = 0;
    if (!d->exact) return false;
    uint64_t limit = (uint64_t)INT64_MAX + d->negative;
    if (value == 0) return true;
    for (int e = d->exponent; e < 0; e++, value /= 10)
        if (value % 10) return false;
    for (int e = d->exponent; e > 0; e--, value *= 10)
        if (value > limit / 10) return false;
    if (value > limit) return false;
    *out = d->negative ? -(int64_t)(value - 1) - 1 : (int64_t)value;
    return true;
}

double gfli_decimal_parse(const char *number) {
    const unsigned char *text = (const unsigned char *)number;
    gfli_decimal_span span;
    gfli_decimal decimal;
    gfli_decimal_scan(text, &span);
    gfli_decimal_read(&span, *text == '-', &decimal);
    return gfli_decimal_value(&decimal);
}
/* ---- writing --------------------------------------------------------------------------------- */

/* printf's number, with a point in any locale. */
static void gfli_format_digits(double value, int digits, char out[32]) {
    char text[40];
    size_t n = 0;
    bool point = false;
    snprintf(text, sizeof text, "%.*g", digits, value);
    for (const char *p = text; *p && n < 31; p++) {
        bool usual = strchr("0123456789+-e", *p) != NULL;
        if (usual || !point) out[n++] = usual ? *p : '.';
        point = point || !usual;
    }
    out[n] = 0;
}

/* round(m * 5^d / 2^shift): m below 2^53, 5^d below 2^52, the result below 2^64. */
static uint64_t gfli_scale_mantissa(uint64_t m, int d, int shift) {
    uint64_t five = 1;
    for (int i = 0; i < d; i++) five *= 5;
    const uint64_t mask = 0xFFFFFFFFu, m0 = m & mask, m1 = m >> 32;
    const uint64_t f0 = five & mask, f1 = five >> 32;
    const uint64_t cross = m1 * f0 + (m0 * f0 >> 32) + (m0 * f1 & mask);
    const uint64_t low = (cross << 32) | (m0 * f0 & mask);
    const uint64_t high = m1 * f1 + (m0 * f1 >> 32) + (cross >> 32);
    if (shift >= 64) return (high + (1ull << (shift - 64) >> 1)) >> (shift - 64);
    const uint64_t sum = low + (1ull << (shift - 1));
    return (high + (sum < low)) << (64 - shift) | sum >> shift;
}

/* The value times 10^d as an integer: with the smallest d that gives the value back, where such an
 * integer is below 2^53 (both are exact then, so their quotient is what a reader makes of the
 * text); or with the d of seventeen digits, which name any double. */
static bool gfli_find_decimals(double size, bool is_float, uint64_t *n, int *d) {
    double scale = 1;
    for (*d = 0; *d <= 22; ++*d, scale *= 10) {
        const double rounded = (floor)(size * scale + 0.5), back = rounded / scale;
        if (rounded >= 9007199254740992.0) break;
        *n = (uint64_t)rounded;
        if (is_float ? (float)back == (float)size : back == size) return true;
    }
    int e;
    const uint64_t m = (uint64_t)(ldexp)((frexp)(size, &e), 53);
    if (*d < 22 && size * scale < 1e16) ++*d;
    const int shift = 53 - e - *d;
    if (*d > 21 || shift < 1 || shift > 127) return false;
    *n = gfli_scale_mantissa(m, *d, shift);
    return true;
}

static bool gfli_format_fixed(double value, bool is_float, char out[32]) {
    const double size = (fabs)(value);
    uint64_t n = 0;
    int decimals = 0, n_digits = 0, at = 0;
    char digits[24];
    if (!(size < 1e15) || (size < 1e-4 && size != 0)) return false;
    if (!gfli_find_decimals(size, is_float, &n, &decimals)) return false;
    for (; n > 0 || n_digits <= decimals; n /= 10) digits[n_digits++] = (char)('0' + n % 10);
    if ((copysign)(1.0, value) < 0) out[at++] = '-';
    while (n_digits > 0) {
        if (n_digits == decimals) out[at++] = '.';
        out[at++] = digits[--n_digits];
    }
    out[at] = 0;
    return true;
}

/* Fifteen digits always survive a double, and printf drops their final zeros; seventeen always
 * name one. */
static void gfli_format_scientific(double value, char out[32]) {
    for (int digits = 15; digits <= 18; digits++) {
        gfli_format_digits(value, digits, out);
        if (gfli_decimal_parse(out) == value) return;
    }
}

void gfli_decimal_format(double value, bool is_float, char out[32]) {
    if (!gfli_format_fixed(value, is_float, out)) gfli_format_scientific(value, out);
}
