/* test_json.c - JSON: values exact, text strict, memory bounded */
#include "test.h"
#include <fenv.h>
#include <locale.h>
#include <sys/stat.h>
#include <unistd.h>

static gfli_json *open_text(gfl_context *context, const char *text) {
    gfli_json *j = NULL;
    CHECK_OK(context, gfli_json_open_memory(context, text, strlen(text), "text", &j));
    return j;
}

static double number_of(gfl_context *context, const char *text) {
    gfli_json *j = open_text(context, text);
    CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER);
    double value = gfli_json_as_number(j);
    CHECK_OK(context, gfli_json_status(j));
    gfli_json_close(j);
    return value;
}

static bool same_bits(double a, double b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

static bool is_at(gfli_json *j, long line, long column) {
    long got_line, got_column;
    gfli_json_place(j, &got_line, &got_column);
    if (got_line != line || got_column != column) printf("at %ld:%ld\n", got_line, got_column);
    return got_line == line && got_column == column;
}

/* ---- structure ------------------------------------------------------------------------------- */

static void values_are_read_in_order(void) {
    gfl_context *context = test_context(1);
    gfli_json *j = open_text(context, "\n{\"a\": [1, -2.5, \"x\\ty\"], \"b\": {\"c\": null},\n"
                                      " \"d\": true, \"e\": [], \"f\": false, \"g\": [[3]]}\n ");
    CHECK(gfli_json_next(j) == GFLI_JSON_OBJECT);
    CHECK(!strcmp(gfli_json_key(j), "a") && gfli_json_next(j) == GFLI_JSON_ARRAY);
    CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && gfli_json_as_number(j) == 1);
    CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && gfli_json_as_number(j) == -2.5);
    size_t length = 0;
    CHECK(gfli_json_next(j) == GFLI_JSON_STRING);
    CHECK(!strcmp(gfli_json_string(j, &length), "x\ty") && length == 3);
    CHECK(gfli_json_next(j) == GFLI_JSON_END);
    CHECK(is_at(j, 2, 23));
    CHECK(!strcmp(gfli_json_key(j), "b") && gfli_json_next(j) == GFLI_JSON_OBJECT);
    CHECK(!strcmp(gfli_json_key(j), "c") && gfli_json_next(j) == GFLI_JSON_NULL);
    CHECK(gfli_json_key(j) == NULL);
    CHECK(!strcmp(gfli_json_key(j), "d") && gfli_json_next(j) == GFLI_JSON_TRUE);
    CHECK(is_at(j, 3, 7));
    CHECK(!strcmp(gfli_json_key(j), "e") && gfli_json_next(j) == GFLI_JSON_ARRAY);
    CHECK(gfli_json_next(j) == GFLI_JSON_END);
    CHECK(!strcmp(gfli_json_key(j), "f") && gfli_json_next(j) == GFLI_JSON_FALSE);
    CHECK(!strcmp(gfli_json_key(j), "g"));
    gfli_json_skip(j);
    CHECK(gfli_json_key(j) == NULL);
    CHECK(gfli_json_next(j) == GFLI_JSON_END);
    CHECK_OK(context, gfli_json_status(j));
    gfli_json_close(j);
    gfl_context_destroy(context);
}

static void values_can_be_stepped_over(void) {
    gfl_context *context = test_context(1);
    gfli_json *j = open_text(
        context, "[{\"s\":[[1.5,-2,3e4, 5 ,\n6],[\"]\",{\"k\":[]}]],\"t\":\"}\\\"\"}, 7, [8],9]");
    CHECK(gfli_json_next(j) == GFLI_JSON_ARRAY);
    gfli_json_skip(j);
    CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && gfli_json_as_number(j) == 7);
    gfli_json_skip(j);
    CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && gfli_json_as_number(j) == 9);
    CHECK(gfli_json_next(j) == GFLI_JSON_END);
    CHECK_OK(context, gfli_json_status(j));
    gfli_json_close(j);
    /* A value whose key was taken and which nobody wanted. */
    j = open_text(context, "{\"a\":[1,2],\"b\":3}");
    CHECK(gfli_json_next(j) == GFLI_JSON_OBJECT);
    CHECK(!strcmp(gfli_json_key(j), "a") && !strcmp(gfli_json_key(j), "b"));
    CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && gfli_json_as_number(j) == 3);
    gfli_json_close(j);
    gfl_context_destroy(context);
}

/* Read everything, or step over everything. */
static gfl_status consume(gfli_json *j, gfli_json_kind kind) {
    if (kind == GFLI_JSON_ARRAY)
        while ((kind = gfli_json_next(j)) != GFLI_JSON_END) consume(j, kind);
    else if (kind == GFLI_JSON_OBJECT)
        while (gfli_json_key(j)) consume(j, gfli_json_next(j));
    return gfli_json_status(j);
}

static const char *const malformed[] = {"",
                                        " ",
                                        "x",
                                        "tru",
                                        "nulL",
                                        "[1,]",
                                        "[,1]",
                                        "[1 2]",
                                        "{\"a\":1,}",
                                        "{\"a\" 1}",
                                        "{a:1}",
                                        "{\"a\":}",
                                        "{1:2}",
                                        "[1",
                                        "{\"a\":1",
                                        "[1]]",
                                        "1 2",
                                        "{} {}",
                                        "[1}",
                                        "{\"a\":1]",
                                        "]",
                                        "}",
                                        "01",
                                        "-",
                                        "-01",
                                        "1.",
                                        ".5",
                                        "1e",
                                        "1e+",
                                        "+1",
                                        "0x1",
                                        "1.5.2",
                                        "1-2",
                                        "--1",
                                        "1e5x",
                                        "1_000",
                                        "nan",
                                        "inf",
                                        "-inf",
                                        "-NaN",
                                        "Infinity2",
                                        "None",
                                        "TRUE",
                                        "\"",
                                        "\"abc",
                                        "\"\\x\"",
                                        "\"\\u12\"",
                                        "\"\\u12g4\"",
                                        "\"\\ud800\"",
                                        "\"\\ud800\\u0041\"",
                                        "\"\\udc00\"",
                                        "\"a\nb\"",
                                        "\"\x01\"",
                                        "\"\\u0000\"",
                                        "\"\x80\"",
                                        "\"\xC0\x80\"",
                                        "\"\xC1\xBF\"",
                                        "\"\xE0\x9F\xBF\"",
                                        "\"\xED\xA0\x80\"",
                                        "\"\xF0\x8F\xBF\xBF\"",
                                        "\"\xF4\x90\x80\x80\"",
                                        "\"\xF5\x80\x80\x80\"",
                                        "\"\xE2\x82\"",
                                        "\"\xE2\x28\xA1\"",
                                        "'a'",
                                        "[1]//",
                                        "/**/1",
                                        "\xFF\xFE[\0]",
                                        "\\u0031",
                                        "[\f1]",
                                        "[1\xC2\xA0]"};

static void malformed_text_is_refused(void) {
    gfl_context *context = test_context(1);
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
        for (int skip = 0; skip < 2; skip++) {
            gfli_json *j = open_text(context, malformed[i]);
            if (skip)
                gfli_json_skip(j);
            else
                consume(j, gfli_json_next(j));
            if (gfli_json_status(j) != GFL_E_FORMAT) printf("accepted: %s\n", malformed[i]);
            CHECK(gfli_json_status(j) == GFL_E_FORMAT);
            CHECK(!strncmp(gfl_context_get_error(context), "text:", 5));
            CHECK(gfli_json_next(j) == GFLI_JSON_END && gfli_json_key(j) == NULL);
            CHECK(!strcmp(gfli_json_string(j, NULL), "") && gfli_json_as_number(j) == 0);
            gfli_json_close(j);
        }
    gfl_context_destroy(context);
}

/* No beginning of a text is a text, whole numbers aside. */
static void truncated_text_is_refused(void) {
    const char *text = "{\"a\":[1.5e3,\"\\u00e9\\ud83d\\ude00\xC3\xA9\",{\"b\":true}],\"c\":null}";
    gfl_context *context = test_context(1);
    for (size_t n = 0; n < strlen(text); n++) {
        gfli_json *j = NULL;
        CHECK_OK(context, gfli_json_open_memory(context, text, n, "cut", &j));
        CHECK(consume(j, gfli_json_next(j)) == GFL_E_FORMAT);
        gfli_json_close(j);
    }
    gfl_context_destroy(context);
}

/* A value for those who step over it, not a number for those who read one; the words of Python's
 * json module, which writes them where a float is not finite. */
static void words_for_what_is_not_finite_are_values(void) {
    gfl_context *context = test_context(1);
    char shown[GFLI_QUOTED];
    gfli_json *j = open_text(context, "[NaN, Infinity, -Infinity, {\"a\": NaN}, 1, NaN]");
    gfli_json_next(j);
    CHECK(gfli_json_next(j) == GFLI_JSON_NONFINITE);
    CHECK(!strcmp(gfli_json_found(j, GFLI_JSON_NONFINITE, shown), "NaN"));
    CHECK(gfli_json_next(j) == GFLI_JSON_NONFINITE);
    CHECK(gfli_json_next(j) == GFLI_JSON_NONFINITE);
    CHECK(!strcmp(gfli_json_found(j, GFLI_JSON_NONFINITE, shown), "-Infinity"));
    gfli_json_skip(j);
    CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && gfli_json_as_number(j) == 1);
    gfli_json_skip(j);
    CHECK(gfli_json_next(j) == GFLI_JSON_END);
    CHECK_OK(context, gfli_json_status(j));
    gfli_json_close(j);
    gfl_context_destroy(context);
}

static void what_is_not_json_is_named(void) {
#define BYTES(text) text, sizeof text - 1
    static const struct {
        const char *bytes;
        size_t n;
        const char *want;
    } cases[] = {
        {BYTES("\x1f\x8b\x08\0\0\0\0\0"),
         "text:1:1: this is not JSON: the file is compressed by gzip"},
        {BYTES("PK\3\4\x14\0"), "a zip archive"},
        {BYTES("\xfd"
               "7zXZ\0"),
         "compressed by xz"},
        {BYTES("\xff\xfe{\0\"\0"), "in UTF-16: save it as UTF-8"},
        {BYTES("\xfe\xff\0{\0\""), "in UTF-16: save it as UTF-8"},
        {BYTES("{\0\"\0a\0"), "in UTF-16 or UTF-32"},
        {BYTES("\0\0\0{"), "a value is expected, not \"\\x00\""},
        {BYTES("<annotation>"), "XML or HTML"},
        {BYTES("\x89PNG\r\n"), "a PNG picture"},
        {BYTES(""), "the file is empty"},
        {BYTES("  \n "), "text:2:2: the file ends where a value is expected"},
        {BYTES("{'images': []}"), "text:1:2: a key is in single quotes, as Python prints it"},
        {BYTES("{\"a\":\n 'b'}"), "text:2:2: a value is expected, not a text in single quotes, as "
                                  "Python prints it: write the file with json.dump"},
        {BYTES("{\"a\": None}"), "text:1:7: a value is expected, not None, as Python prints it"},
        {BYTES("[True]"), "not True, as Python prints it"},
        {BYTES("[nan]"), "a value is expected, not \"nan\""},
        {BYTES("path: ../data"), "a value is expected, not \"path\""},
        {BYTES("[\x1b]"), "a value is expected, not \"\\x1b\""},
        {BYTES("[\n\"Z\xfcrich\"]"),
         "text:2:3: a text is not UTF-8 (byte 0xfc): is the file Latin-1"},
        {BYTES("[\n\"a"), "text:2:1: the file ends inside the text that begins here"},
    };
#undef BYTES
    gfl_context *context = test_context(1);
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        gfli_json *j = NULL;
        CHECK_OK(context, gfli_json_open_memory(context, cases[i].bytes, cases[i].n, "text", &j));
        CHECK_ERROR(context, consume(j, gfli_json_next(j)), GFL_E_FORMAT, cases[i].want);
        gfli_json_close(j);
    }
    gfl_context_destroy(context);
}

/* The place of every value of a long text, whether or not the buffer has moved on since. */
static void places_are_those_of_the_values(void) {
    enum { N = 9000 };
    gfl_context *context = test_context(1);
    char *text = (char *)malloc(N * 20 + 10), *p = text;
    p += sprintf(p, "\xef\xbb\xbf["); /* the byte order mark is not counted */
    for (int i = 0; i < N; i++)
        p += sprintf(p, "%s%s%*d", i ? "," : "", i % 3 ? "" : "\n", 1 + i % 13, i % 10);
    sprintf(p, "]");
    long line = 1, column = 1;
    gfli_json *j = open_text(context, text);
    CHECK(gfli_json_next(j) == GFLI_JSON_ARRAY && is_at(j, 1, 1));
    const char *at = text + 4;
    for (int i = 0; i < N; i++) {
        column = i ? column + 1 : 2;
        for (; *at < '0' || *at > '9'; at++) {
            if (*at == '\n')
                line++, column = 1;
            else if (*at == ' ')
                column++;
        }
        CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && gfli_json_as_number(j) == i % 10);
        if (i % 7 == 0) CHECK(is_at(j, line, column));
        at++;
        column++;
    }
    gfli_json_close(j);
    free(text);
    gfl_context_destroy(context);
}

/* The buffer has moved on several times before the end of the value is known. */
static void the_place_of_a_long_text_is_its_beginning(void) {
    enum { N = 200000 };
    gfl_context *context = test_context(1);
    char *text = (char *)malloc(N + 20);
    memset(text, 'x', N + 20);
    memcpy(text, "[1,\n  \"", 7);
    strcpy(text + N, "\",\n 2]");
    gfli_json *j = open_text(context, text);
    gfli_json_next(j);
    gfli_json_next(j);
    CHECK(gfli_json_next(j) == GFLI_JSON_STRING && is_at(j, 2, 3));
    CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && is_at(j, 3, 2));
    gfli_json_close(j);
    free(text);
    gfl_context_destroy(context);
}

static void containers_can_be_left_from_anywhere(void) {
    static const char text[] = "[{\"a\":[1,[2,{\"b\":3,\"c\":[]}]],\"d\":4},5]";
    gfl_context *context = test_context(1);
    static const char walk[] = "knnnnnknknnknnkn"; /* keys and values in the order of the text */
    for (size_t steps = 0; steps < sizeof walk; steps++) {
        gfli_json *j = open_text(context, text);
        gfli_json_next(j);
        gfli_json_next(j);
        CHECK(gfli_json_depth(j) == 2);
        for (const char *p = walk; p < walk + steps; p++)
            if (*p == 'k')
                gfli_json_key(j);
            else
                gfli_json_next(j);
        gfli_json_leave_to(j, 1);
        CHECK(gfli_json_depth(j) == 1);
        CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && gfli_json_as_number(j) == 5);
        CHECK(gfli_json_next(j) == GFLI_JSON_END);
        CHECK_OK(context, gfli_json_status(j));
        gfli_json_close(j);
    }
    gfl_context_destroy(context);
}

static void errors_name_file_line_and_column(void) {
    gfl_context *context = test_context(1);
    const char *path = test_scratch("json_lines");
    FILE *f = fopen(path, "wb");
    CHECK(f != NULL);
    /* Enough lines to leave the buffer several times. */
    fprintf(f, "[\n");
    for (int i = 0; i < 50000; i++) fprintf(f, "  {\"id\": %d},\n", i);
    fprintf(f, "  {\"id\": 1x}\n]\n");
    fclose(f);
    gfli_json *j = NULL;
    CHECK_OK(context, gfli_json_open(context, path, &j));
    CHECK(consume(j, gfli_json_next(j)) == GFL_E_FORMAT);
    char wanted[600];
    snprintf(wanted, sizeof wanted, "%s:50002:10: ", path);
    CHECK(!strncmp(gfl_context_get_error(context), wanted, strlen(wanted)));
    gfli_json_close(j);
    j = open_text(context, "[1,\n2,\n3]");
    gfli_json_next(j);
    gfli_json_next(j);
    gfli_json_next(j);
    CHECK_ERROR(context, gfli_json_error(j, GFL_E_DATA, "no %s", "twos"), GFL_E_DATA,
                "text:2:1: no twos");
    CHECK(gfli_json_error(j, GFL_E_FORMAT, "later") == GFL_E_DATA);
    CHECK(gfli_json_next(j) == GFLI_JSON_END);
    gfli_json_close(j);
    CHECK_ERROR(context, gfli_json_open(context, "/nonexistent/x.json", &j), GFL_E_IO,
                "/nonexistent/x.json");
    CHECK(j == NULL);
    CHECK_ERROR(context, gfli_json_open(context, "/", &j), GFL_E_IO, "it is a folder");
    CHECK(j == NULL);
    remove(path);
    gfl_context_destroy(context);
}

static void depth_is_limited(void) {
    gfl_context *context = test_context(1);
    char text[2 * 66 + 1];
    for (int depth = 64; depth <= 65; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = 0;
        for (int skip = 0; skip < 2; skip++) {
            gfli_json *j = open_text(context, text);
            if (skip)
                gfli_json_skip(j);
            else
                consume(j, gfli_json_next(j));
            CHECK(gfli_json_status(j) == (depth == 64 ? GFL_OK : GFL_E_FORMAT));
            gfli_json_close(j);
        }
    }
    gfl_context_destroy(context);
}

/* Each token wherever the buffer may end in it. */
static void tokens_may_cross_the_buffer(void) {
    static const char item[] = "{\"k\\u00e9y\":[-12.5e-1,true,false,null,\"a\xE2\x82\xAC\\ud83d"
                               "\\ude00z\",123456789]}";
    const size_t buffer = 65536, n = sizeof item - 1;
    char *text = (char *)malloc(buffer + 2 * n);
    gfl_context *context = test_context(1);
    for (size_t pad = buffer - n - 2; pad <= buffer + 1; pad++)
        for (int skip = 0; skip < 2; skip++) {
            memset(text, ' ', pad);
            memcpy(text + pad, item, n);
            gfli_json *j = NULL;
            CHECK_OK(context, gfli_json_open_memory(context, text, pad + n, "padded", &j));
            if (skip) {
                gfli_json_skip(j);
            } else {
                CHECK(gfli_json_next(j) == GFLI_JSON_OBJECT);
                const char *key = gfli_json_key(j);
                CHECK(key && !strcmp(key, "k\xC3\xA9y"));
                CHECK(gfli_json_next(j) == GFLI_JSON_ARRAY);
                CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && gfli_json_as_number(j) == -1.25);
                CHECK(gfli_json_next(j) == GFLI_JSON_TRUE);
                CHECK(gfli_json_next(j) == GFLI_JSON_FALSE);
                CHECK(gfli_json_next(j) == GFLI_JSON_NULL);
                CHECK(gfli_json_next(j) == GFLI_JSON_STRING);
                CHECK(!strcmp(gfli_json_string(j, NULL), "a\xE2\x82\xAC\xF0\x9F\x98\x80z"));
                CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER && gfli_json_as_number(j) == 123456789);
                CHECK(gfli_json_next(j) == GFLI_JSON_END && gfli_json_key(j) == NULL);
            }
            CHECK_OK(context, gfli_json_status(j));
            gfli_json_close(j);
        }
    free(text);
    gfl_context_destroy(context);
}

/* What is stepped over needs no memory; what is asked for has a limit. */
static void long_texts_and_numbers_are_bounded(void) {
    gfl_context *context = test_context(1);
    const size_t n = (size_t)17 << 20;
    char *text = (char *)malloc(n + 2);
    memset(text, 'a', n + 2);
    text[0] = text[n + 1] = '"';
    gfli_json *j = NULL;
    CHECK_OK(context, gfli_json_open_memory(context, text, n + 2, "long", &j));
    gfli_json_skip(j);
    CHECK_OK(context, gfli_json_status(j));
    gfli_json_close(j);
    CHECK_OK(context, gfli_json_open_memory(context, text, n + 2, "long", &j));
    CHECK(gfli_json_next(j) == GFLI_JSON_END);
    CHECK_ERROR(context, gfli_json_status(j), GFL_E_FORMAT, "longer than 16 MiB");
    gfli_json_close(j);
    memset(text, '1', n + 2);
    CHECK_OK(context, gfli_json_open_memory(context, text, n + 2, "long", &j));
    CHECK(gfli_json_next(j) == GFLI_JSON_END);
    CHECK_ERROR(context, gfli_json_status(j), GFL_E_FORMAT, "longer than 64 KiB");
    gfli_json_close(j);
    free(text);
    gfl_context_destroy(context);
}

/* ---- numbers --------------------------------------------------------------------------------- */

static void whole_numbers_are_exact(void) {
    static const struct {
        const char *text;
        bool whole;
        int64_t value;
    } cases[] = {{"0", true, 0},
                 {"-0", true, 0},
                 {"9223372036854775807", true, INT64_MAX},
                 {"-9223372036854775808", true, INT64_MIN},
                 {"9223372036854775808", false, 0},
                 {"-9223372036854775809", false, 0},
                 {"9007199254740993", true, 9007199254740993},
                 {"18446744073709551616", false, 0},
                 {"7.0", true, 7},
                 {"7.5", false, 0},
                 {"12e3", true, 12000},
                 {"1200e-2", true, 12},
                 {"1201e-2", false, 0},
                 {"1e18", true, 1000000000000000000},
                 {"1e19", false, 0},
                 {"1e400", false, 0},
                 {"0e400", true, 0},
                 {"1e-400", false, 0}};
    gfl_context *context = test_context(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t got = 1;
        gfli_json *j = open_text(context, cases[i].text);
        CHECK(gfli_json_next(j) == GFLI_JSON_NUMBER);
        bool whole = gfli_json_as_integer(j, &got);
        if (whole != cases[i].whole || got != cases[i].value) printf("%s\n", cases[i].text);
        CHECK(whole == cases[i].whole && got == cases[i].value);
        gfli_json_close(j);
    }
    gfl_context_destroy(context);
}

/* One of eight kinds of text that is hard to convert. */
static void hard_number(gfli_rng *rng, int kind, char *out, size_t size) {
    uint64_t b = 0;
    double v;
    for (int i = 0; i < 4; i++) b = b << 16 | (uint64_t)(gfli_rng_uniform(rng) * 65536);
    memcpy(&v, &b, sizeof v);
    if (!isfinite(v)) v = 1.5;
    unsigned long long u = b;
    if (kind == 0)
        snprintf(out, size, "%.17g", v);
    else if (kind == 1)
        snprintf(out, size, "%llu.%llu", u >> 44, u & 0xFFFFF);
    else if (kind == 2)
        snprintf(out, size, "%llue%d", u | 1, (int)(u % 60) - 30);
    else if (kind == 3)
        snprintf(out, size, "%.17g", 700 * gfli_rng_uniform(rng));
    else if (kind == 4)
        snprintf(out, size, "%llue-%d", (u >> (u % 50)) | 1, 300 + (int)(u % 45));
    else if (kind == 5)
        snprintf(out, size, "-%llu%llu.%llue%d", u | 1, u | 1, u, (int)(u % 620) - 350);
    else if (kind == 6)
        snprintf(out, size, "%lluE+%d", u >> 12, (int)(u % 28));
    else { /* exactly between two doubles, and a hair beside */
        double m = (double)(u >> 12 | (uint64_t)1 << 52);
        int hair = (int)(u % 3) - 1;
        snprintf(out, size, "%.0f.%s", m,
                 hair == 0  ? "5"
                 : hair < 0 ? "49999999999999999999999999"
                            : "50000000000000000000001");
    }
}

static void numbers_are_correctly_rounded(void) {
    static const char *const some[] = {"0.1",
                                       "0.30000000000000004",
                                       "5e-324",
                                       "2.4703282292062327e-324",
                                       "2.4703282292062328e-324",
                                       "2.2250738585072011e-308",
                                       "2.2250738585072014e-308",
                                       "1.7976931348623157e308",
                                       "1.7976931348623158e308",
                                       "9007199254740993",
                                       "1e23",
                                       "8.5e-310",
                                       "123456789012345678901234567890",
                                       "0.000000000000000000000000000001e30",
                                       "-0.0",
                                       "-1e-400",
                                       "179769313486231580793e289",
                                       "6929495644600919.5",
                                       "3.5e22",
                                       "1e22"};
    gfl_context *context = test_context(1);
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        if (!same_bits(number_of(context, some[i]), strtod(some[i], NULL))) printf("%s\n", some[i]);
        CHECK(same_bits(number_of(context, some[i]), strtod(some[i], NULL)));
    }
    CHECK(number_of(context, "1e400") == INFINITY && number_of(context, "-1e9999999999") < -1e308);
    static const int modes[4] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    gfli_rng rng = gfli_rng_make(11, 0, 0, 0);
    for (int i = 0; i < 40000; i++) {
        char text[200];
        hard_number(&rng, i % 8, text, sizeof text);
        double want = strtod(text, NULL);
        fesetround(modes[i / 8 % 4]);
        double got = number_of(context, text);
        fesetround(FE_TONEAREST);
        if (!same_bits(got, want)) printf("%s: %a, wanted %a\n", text, got, want);
        CHECK(same_bits(got, want));
    }
    gfl_context_destroy(context);
}

/* More digits than are kept: the last decides on which side of the middle a number is. */
static void all_digits_count(void) {
    gfl_context *context = test_context(1);
    char text[3000];
    int n = snprintf(text, sizeof text, "9007199254740993.");
    memset(text + n, '0', 2000);
    text[n + 2000] = '1';
    text[n + 2001] = 0;
    CHECK(number_of(context, text) == 9007199254740994.0);
    text[n + 2000] = '0';
    CHECK(number_of(context, text) == 9007199254740992.0);
    gfl_context_destroy(context);
}

/* ---- the writer ------------------------------------------------------------------------------ */

static gfl_status gather(void *user, const char *bytes, size_t n) {
    char *text = user;
    const size_t used = strlen(text);
    if (used + n >= 4096) return GFL_E_IO;
    memcpy(text + used, bytes, n);
    text[used + n] = 0;
    return GFL_OK;
}

/* A writer into 4096 characters. */
static gfl_json_writer write_to(char text[4096], int spaced) {
    gfl_json_writer j;
    memset(&j, 0, sizeof j);
    j.write = gather;
    j.user = text;
    j.spaced = spaced;
    text[0] = 0;
    return j;
}

/* A locale with a decimal comma, made where the machine has the tools and not the locale. */
static bool enter_comma_locale(void) {
    if (setlocale(LC_ALL, "de_DE.UTF-8") || setlocale(LC_ALL, "fr_FR.UTF-8")) return true;
    const char *folder = test_scratch("locale");
    char command[1200], cwd[500], here[1100];
    mkdir(folder, 0777);
    snprintf(command, sizeof command,
             "localedef -i de_DE -f UTF-8 './%s/de_DE.UTF-8' >/dev/null 2>&1", folder);
    int made = system(command);
    if (!getcwd(cwd, sizeof cwd)) return false;
    snprintf(here, sizeof here, "%s/%s", cwd, folder);
    setenv("LOCPATH", here, 1);
    return made == 0 && setlocale(LC_ALL, "de_DE.UTF-8") != NULL;
}

static void numbers_do_not_depend_on_the_locale(void) {
    if (!enter_comma_locale()) {
        printf("no locale with a decimal comma, and none could be made\n");
        test_skips++;
        return;
    }
    gfl_context *context = test_context(1);
    char text[64];
    snprintf(text, sizeof text, "%.1f", 0.5);
    CHECK(!strcmp(text, "0,5"));
    CHECK(number_of(context, "0.5") == 0.5);
    CHECK(number_of(context, "123456789012345678901234.5e-20") == 1234.5678901234568);
    CHECK(number_of(context, "0.30000000000000004") == 0.1 + 0.2);
    gfli_json_format(1234567.25, text);
    CHECK(!strcmp(text, "1234567.25"));
    gfli_json_format(1.5e-7, text);
    CHECK(!strcmp(text, "1.5e-07"));
    char json[4096];
    gfl_json_writer j = write_to(json, 0);
    gfl_json_array(&j, NULL);
    gfl_json_number(&j, NULL, 1e-300);
    gfl_json_number(&j, NULL, 2.5e22);
    gfl_json_float(&j, NULL, 0.5f);
    gfl_json_end(&j);
    CHECK(!strcmp(json, "[1e-300,2.5e+22,0.5]"));
    setlocale(LC_ALL, "C");
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", test_scratch("locale"));
    CHECK(system(command) == 0);
    gfl_context_destroy(context);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void formatted_numbers_are_short_and_exact(void) {
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},
                 {-1, "-1"},
                 {0.1, "0.1"},
                 {0.1 + 0.2, "0.30000000000000004"},
                 {1e15, "1e+15"},
                 {123456, "123456"},
                 {NAN, "null"},
                 {INFINITY, "null"},
                 {5e-324, "4.94065645841247e-324"}};
    gfl_context *context = test_context(1);
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gfli_json_format(cases[i].value, text);
        if (strcmp(text, cases[i].text) != 0) printf("%s, wanted %s\n", text, cases[i].text);
        CHECK(!strcmp(text, cases[i].text));
    }
    gfli_rng rng = gfli_rng_make(12, 0, 0, 0);
    for (int i = 0; i < 20000; i++) {
        uint64_t b = 0;
        double v;
        for (int k = 0; k < 4; k++) b = b << 16 | (uint64_t)(gfli_rng_uniform(&rng) * 65536);
        memcpy(&v, &b, sizeof v);
        if (i % 2) v = (double)(float)(1000 * gfli_rng_uniform(&rng));
        if (i % 8 == 1) v = -v / 4096;
        if (!isfinite(v)) continue;
        gfli_json_format(v, text);
        CHECK(same_bits(number_of(context, text), v));
        if (fabs(v) > FLT_MAX) continue;
        gfli_json_format_float((float)v, text);
        CHECK((float)number_of(context, text) == (float)v);
    }
    gfli_json_format_float(0.1f, text);
    CHECK(!strcmp(text, "0.1"));
    gfli_json_format_float(-0.05f, text);
    CHECK(!strcmp(text, "-0.05"));
    gfli_json_format_float(16777216, text);
    CHECK(!strcmp(text, "16777216"));
    gfl_context_destroy(context);
}

/* ---- texts and nesting ---------------------------------------------------------------------- */

/* What a text is in JSON; the same when its bytes come as a key. */
static const char *quoted(const char *text) {
    static char out[4096];
    char keyed[4096], wanted[4200];
    gfl_json_writer j = write_to(out, 0), k = write_to(keyed, 0);
    gfl_json_text(&j, NULL, text);
    gfl_json_object(&k, NULL);
    gfl_json_text(&k, text, NULL);
    gfl_json_end(&k);
    CHECK(j.status == GFL_OK && k.status == GFL_OK);
    snprintf(wanted, sizeof wanted, "{%s:null}", out);
    CHECK(!strcmp(keyed, wanted));
    return out;
}

static void a_text_is_written_as_json_wants_it(void) {
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"", "\"\""},
        {"a\"b\\c/d", "\"a\\\"b\\\\c/d\""},
        {"\n\t\r\b\f\x01\x1F\x7F", "\"\\u000a\\u0009\\u000d\\u0008\\u000c\\u0001\\u001f\\u007f\""},
        {"\x1B[31m", "\"\\u001b[31m\""},
        {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""},
        {"\xE2\x80\xA8\xE2\x80\xA9",
         "\"\xE2\x80\xA8\xE2\x80\xA9\""},                         /* line separators are legal */
        {"\xF4\x8F\xBF\xBF", "\"\xF4\x8F\xBF\xBF\""},             /* the last character */
        {"\xF4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* the first that is none */
        {"\xED\xA0\x80", "\"\\ufffd\\ufffd\\ufffd\""},            /* a surrogate */
        {"\xC0\xAF", "\"\\ufffd\\ufffd\""},                       /* too long for a slash */
        {"\xE0\x80\xAF", "\"\\ufffd\\ufffd\\ufffd\""},
        {"a\xFF\xC3z", "\"a\\ufffd\\ufffdz\""},
        {"\xE2\x82", "\"\\ufffd\\ufffd\""}, /* cut short */
        {"\xF0\x9F\x98", "\"\\ufffd\\ufffd\\ufffd\""},
        {"\xE2\x82\"", "\"\\ufffd\\ufffd\\\"\""}, /* a quote is never swallowed */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *got = quoted(cases[i].text);
        if (strcmp(got, cases[i].json) != 0) printf("%s, wanted %s\n", got, cases[i].json);
        CHECK(!strcmp(got, cases[i].json));
    }
}

/* One byte, and one before a letter: whatever it is the reader takes what was written, and gives
 * back ASCII as it was. */
static void any_byte_makes_json_that_is_read(void) {
    gfl_context *context = test_context(1);
    for (int c = 1; c < 256 * 2; c++) {
        const char text[3] = {(char)(c / 2), c % 2 ? 'z' : 0, 0};
        gfli_json *j = open_text(context, quoted(text));
        CHECK(gfli_json_next(j) == GFLI_JSON_STRING);
        const char *got = gfli_json_string(j, NULL);
        if (c / 2 < 128)
            CHECK(!strcmp(got, text));
        else
            CHECK(!strncmp(got, "\xEF\xBF\xBD", 3) && !strcmp(got + 3, text + 1));
        CHECK(gfli_json_next(j) == GFLI_JSON_END && gfli_json_status(j) == GFL_OK);
        gfli_json_close(j);
    }
    gfl_context_destroy(context);
}

/* An object with one of everything. */
static void write_all(gfl_json_writer *j) {
    gfl_json_object(j, NULL);
    gfl_json_array(j, "list");
    gfl_json_end(j);
    gfl_json_array(j, "values");
    gfl_json_integer(j, NULL, INT64_MIN);
    gfl_json_number(j, NULL, 0.1 + 0.2);
    gfl_json_float(j, NULL, 0.1f);
    gfl_json_float(j, NULL, NAN);
    gfl_json_number(j, NULL, -INFINITY);
    gfl_json_bool(j, NULL, 7);
    gfl_json_bool(j, NULL, 0);
    gfl_json_text(j, NULL, NULL);
    for (int i = 0; i < 2; i++) {
        gfl_json_object(j, NULL);
        gfl_json_text(j, "a", "b");
        gfl_json_end(j);
    }
    gfl_json_end(j);
    gfl_json_line(j);
    gfl_json_integer(j, "last", 1);
    gfl_json_line(j);
    gfl_json_end(j);
    gfl_json_line(j);
}

static void commas_brackets_and_lines_are_the_writers(void) {
    char text[4096];
    gfl_json_writer j = write_to(text, 0);
    write_all(&j);
    CHECK(j.status == GFL_OK);
    CHECK(!strcmp(text,
                  "{\"list\":[],\"values\":[-9223372036854775808,0.30000000000000004,0.1,null,"
                  "null,true,false,null,{\"a\":\"b\"},{\"a\":\"b\"}],\n\"last\":1\n}\n"));
    j = write_to(text, 1);
    write_all(&j);
    CHECK(!strcmp(text,
                  "{\"list\": [], \"values\": [-9223372036854775808, 0.30000000000000004, "
                  "0.1, null, null, true, false, null, {\"a\": \"b\"}, {\"a\": \"b\"}],\n\"last\": "
                  "1\n}\n"));
}

static void what_would_not_be_json_is_refused(void) {
    char text[4096];
    for (int which = 0; which < 4; which++) {
        gfl_json_writer j = write_to(text, 0);
        if (which == 0) gfl_json_end(&j);
        if (which == 1) gfl_json_text(&j, "a key outside", "x");
        if (which == 2) gfl_json_object(&j, NULL);
        if (which == 2) gfl_json_text(&j, NULL, "a member without a key");
        for (int i = 0; which == 3 && i < 65; i++) gfl_json_array(&j, NULL);
        CHECK(j.status == GFL_E_ARG);
        const size_t length = strlen(text);
        gfl_json_integer(&j, NULL, 1);
        CHECK(j.status == GFL_E_ARG && strlen(text) == length);
    }
    gfl_json_writer j = write_to(text, 0);
    for (int i = 0; i < 64; i++) gfl_json_array(&j, NULL);
    for (int i = 0; i < 64; i++) gfl_json_end(&j);
    CHECK(j.status == GFL_OK && strlen(text) == 128);
    gfl_json_array(&j, NULL);
    for (int i = 0; i < 5000; i++) gfl_json_integer(&j, NULL, i);
    CHECK(j.status == GFL_E_IO);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(values_are_read_in_order),
                                      TEST(values_can_be_stepped_over),
                                      TEST(malformed_text_is_refused),
                                      TEST(truncated_text_is_refused),
                                      TEST(errors_name_file_line_and_column),
                                      TEST(words_for_what_is_not_finite_are_values),
                                      TEST(what_is_not_json_is_named),
                                      TEST(places_are_those_of_the_values),
                                      TEST(the_place_of_a_long_text_is_its_beginning),
                                      TEST(containers_can_be_left_from_anywhere),
                                      TEST(depth_is_limited),
                                      TEST(tokens_may_cross_the_buffer),
                                      TEST(long_texts_and_numbers_are_bounded),
                                      TEST(whole_numbers_are_exact),
                                      TEST(numbers_are_correctly_rounded),
                                      TEST(all_digits_count),
                                      TEST(numbers_do_not_depend_on_the_locale),
                                      TEST(formatted_numbers_are_short_and_exact),
                                      TEST(a_text_is_written_as_json_wants_it),
                                      TEST(any_byte_makes_json_that_is_read),
                                      TEST(commas_brackets_and_lines_are_the_writers),
                                      TEST(what_would_not_be_json_is_refused),
                                      {0}};
    return test_main(argc, argv, cases);
}
