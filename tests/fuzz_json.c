/* fuzz_json.c - JSON: whatever the bytes, values or an error with a text, and always an end */
#include "test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(gfli_json *j, gfli_json_kind kind, int depth) {
    size_t length;
    int64_t whole;
    if (depth > GFLI_JSON_DEPTH) abort();
    if (kind == GFLI_JSON_STRING) {
        const char *text = gfli_json_string(j, &length);
        if (strlen(text) != length) abort();
    } else if (kind == GFLI_JSON_NUMBER) {
        double value = gfli_json_as_number(j);
        if (isnan(value)) abort();
        if (gfli_json_as_integer(j, &whole) && (double)whole != value) abort();
    } else if (kind == GFLI_JSON_ARRAY) {
        for (gfli_json_kind item; (item = gfli_json_next(j)) != GFLI_JSON_END;)
            walk(j, item, depth + 1);
    } else if (kind == GFLI_JSON_OBJECT) {
        while (gfli_json_key(j)) walk(j, gfli_json_next(j), depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gfl_context *context = test_context(1);
    gfl_status status[2];
    /* Reading every value and stepping over everything find the same errors. */
    for (int skip = 0; skip < 2; skip++) {
        gfli_json *j = NULL;
        if (gfli_json_open_memory(context, (const char *)data, size, "input", &j) != GFL_OK)
            abort();
        if (skip)
            gfli_json_skip(j);
        else
            walk(j, gfli_json_next(j), 0);
        status[skip] = gfli_json_status(j);
        if (gfli_json_next(j) != GFLI_JSON_END || gfli_json_key(j)) abort();
        if (status[skip] != GFL_OK && !strstr(gfl_context_get_error(context), "input:")) abort();
        gfli_json_close(j);
    }
    if (status[0] != status[1]) abort();
    gfl_context_destroy(context);
    return 0;
}
