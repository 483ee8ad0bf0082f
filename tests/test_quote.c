/* test_quote.c - foreign text in messages: one line, nothing that a terminal obeys, bounded */
#include "test.h"

static void what_a_terminal_obeys_is_escaped(void) {
    static const struct {
        const char *text, *shown;
    } cases[] = {
        {"", "\"\""},
        {"cat", "\"cat\""},
        {"\x1b[31mred\x1b[0m", "\"\\x1b[31mred\\x1b[0m\""},
        {"a\nb\tc\rd\x7f", "\"a\\nb\\tc\\x0dd\\x7f\""},
        {"say \"x\\y\"", "\"say \\\"x\\\\y\\\"\""},
        {"Z\xc3\xbcrich \xe6\xbc\xa2 \xf0\x9f\x90\x88",
         "\"Z\xc3\xbcrich \xe6\xbc\xa2 \xf0\x9f\x90\x88\""},
        {"Z\xfcrich", "\"Z\\xfcrich\""}, /* Latin-1 */
        {"\xc2\x9b"
         "31m",
         "\"\\u009b31m\""},                          /* CSI in one character */
        {"exe\xe2\x80\xaegpj", "\"exe\\u202egpj\""}, /* right to left from here on */
        {"a\xe2\x80\xa8z", "\"a\\u2028z\""},         /* a line separator */
        {"\xed\xa0\x80", "\"\\xed\\xa0\\x80\""},     /* half of a surrogate pair */
        {"\xc0\xaf", "\"\\xc0\\xaf\""},              /* a slash in too many bytes */
    };
    char out[GFLI_QUOTED];
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        bool good = !strcmp(gfli_quote(cases[i].text, out, sizeof out), cases[i].shown);
        if (!good) printf("%s, wanted %s\n", out, cases[i].shown);
        CHECK(good);
    }
    CHECK(!strcmp(gfli_quote_bytes("a\0b", 3, out, sizeof out), "\"a\\x00b\""));
}

/* Whatever the text and the room: it fits, ends with a quote or dots, and is UTF-8 throughout. */
static void any_text_fits_any_room(void) {
    static const char mixed[] = "ab\x1b\xc3\xbc\xf0\x9f\x90\x88\xff\"\xe2\x80\xae\n\\xyz";
    for (size_t n = 0; n < sizeof mixed; n++)
        for (size_t size = 8; size < 80; size++) {
            char out[80];
            memset(out, '#', sizeof out);
            gfli_quote_bytes(mixed, n, out, size);
            size_t length = strlen(out);
            CHECK(length < size && out[0] == '"');
            bool cut = length > 4 && !strcmp(out + length - 4, "\"...");
            CHECK(cut || out[length - 1] == '"');
            for (size_t i = 0, step; i < length; i += step ? step : 1) {
                step = gfli_utf8_length((const unsigned char *)out + i, length - i);
                CHECK(step > 0 && (unsigned char)out[i] >= 0x20);
            }
            for (size_t i = size; i < sizeof out; i++) CHECK(out[i] == '#');
        }
    char out[12];
    CHECK(!strcmp(gfli_quote("1234567", out, 10), "\"1234567\""));
    CHECK(!strcmp(gfli_quote("12345678", out, 10), "\"1234\"..."));
}

/* The same for people, without quotes: the length as snprintf tells it, and no half character. */
static void a_text_is_shown_on_one_line(void) {
    static const char text[] = "a\x1b[2J\n\"\\\xc3\xbc\xff\xe2\x80\xae!";
    static const char shown[] = "a\\x1b[2J\\n\"\\\xc3\xbc\\xff\\u202e!";
    char out[64];
    CHECK(gfl_text_show(text, NULL, 0) == strlen(shown));
    CHECK(gfl_text_show(text, out, sizeof out) == strlen(shown) && !strcmp(out, shown));
    for (size_t size = 1; size < sizeof shown; size++) {
        memset(out, '#', sizeof out);
        CHECK(gfl_text_show(text, out, size) == strlen(shown));
        const size_t n = strlen(out);
        CHECK(n < size && !strncmp(out, shown, n) && out[size] == '#');
        CHECK((shown[n] & 0xC0) != 0x80 && (n == 0 || out[n - 1] != '\\' || shown[n] == '\xc3'));
    }
}

static void the_valid_part_of_a_text_is_whole_characters(void) {
    static const char text[] = "a\0\xc3\xbc\xe2\x82\xac\xff z";
    CHECK(gfl_text_valid(text, 0) == 0 && gfl_text_valid(text, 2) == 2);
    CHECK(gfl_text_valid(text, 3) == 2 && gfl_text_valid(text, 4) == 4);
    CHECK(gfl_text_valid(text, 6) == 4 && gfl_text_valid(text, 7) == 7);
    CHECK(gfl_text_valid(text, sizeof text) == 7 && gfl_text_valid(text + 8, 2) == 2);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(what_a_terminal_obeys_is_escaped),
                                      TEST(any_text_fits_any_room),
                                      TEST(a_text_is_shown_on_one_line),
                                      TEST(the_valid_part_of_a_text_is_whole_characters),
                                      {0}};
    return test_main(argc, argv, cases);
}
