/* test_blob.c - safetensors and strided tensors: read with suspicion, written whole */
#include "test.h"
#include <unistd.h>

static gfl_context *context;

static const char *scratch(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "test_blob_%ld_%s", (long)getpid(), name);
    return path;
}

/* A file of a header and some bytes of data. */
static size_t make_file(const char *header, size_t n_data, uint8_t *out) {
    const size_t n = strlen(header);
    for (int i = 0; i < 8; i++) out[i] = (uint8_t)((uint64_t)n >> 8 * i);
    memcpy(out + 8, header, n);
    for (size_t i = 0; i < n_data; i++) out[8 + n + i] = (uint8_t)i;
    return 8 + n + n_data;
}

static void what_is_written_is_read_back(void) {
    const float w[6] = {1, -2, 3.5f, 1e-20f, 0, -0.0f};
    const int64_t number = -7, shape[2] = {2, 3};
    const uint16_t halves[4] = {0x3C00, 0xC000, 0x0001, 0x7BFF};
    const int64_t four = 4;
    gfli_blob_writer *writer = NULL;
    gfli_blob blob;
    const char *path = scratch("round");
    CHECK_OK(context, gfli_blob_create(context, path, &writer));
    CHECK_OK(context, gfli_blob_put_meta(writer, "classes", "[\"a \\\"b\\\"\"]"));
    CHECK_OK(context, gfli_blob_declare(writer, "w", GFLI_F32, 2, shape));
    CHECK_OK(context, gfli_blob_declare(writer, "half", GFLI_F16, 1, &four));
    CHECK_OK(context, gfli_blob_declare(writer, "number", GFLI_I64, 0, NULL));
    CHECK_OK(context, gfli_blob_write(writer, w, sizeof w));
    CHECK_OK(context, gfli_blob_write(writer, halves, sizeof halves));
    CHECK_OK(context, gfli_blob_write(writer, &number, sizeof number));
    CHECK_OK(context, gfli_blob_finish(writer));
    CHECK_OK(context, gfli_blob_open(context, path, &blob));
    CHECK(blob.n_tensors == 3 && !strcmp(gfli_blob_meta(&blob, "classes"), "[\"a \\\"b\\\"\"]"));
    CHECK(!gfli_blob_meta(&blob, "class") && !gfli_blob_find(&blob, "x"));
    float read[6];
    int64_t read_number = 0;
    const gfli_tensor *t = gfli_blob_find(&blob, "w");
    CHECK(t && t->rank == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->count == 6);
    if (t) CHECK_OK(context, gfli_blob_read_f32(&blob, t, read));
    CHECK(!memcmp(read, w, sizeof w));
    t = gfli_blob_find(&blob, "half");
    if (t) CHECK_OK(context, gfli_blob_read_f32(&blob, t, read));
    CHECK(read[0] == 1 && read[1] == -2 && read[2] == 0x1p-24f && read[3] == 65504);
    t = gfli_blob_find(&blob, "number");
    if (t) CHECK_OK(context, gfli_blob_read_raw(&blob, t, &read_number));
    CHECK(read_number == -7);
    if (t) CHECK_ERROR(context, gfli_blob_read_f32(&blob, t, read), GFL_E_FORMAT, "number");
    gfli_blob_close(&blob);
    remove(path);
}

static void a_file_that_is_not_finished_is_not_there(void) {
    const int64_t shape = 4;
    gfli_blob_writer *writer = NULL;
    const char *path = scratch("half");
    CHECK_OK(context, gfli_blob_create(context, path, &writer));
    CHECK_OK(context, gfli_blob_declare(writer, "w", GFLI_F32, 1, &shape));
    gfli_blob_abandon(writer);
    CHECK(access(path, F_OK) != 0);
    gfli_blob_abandon(NULL);
    CHECK_ERROR(context, gfli_blob_create(context, "/nonexistent/x", &writer), GFL_E_IO,
                "nonexistent");
}

static void hostile_headers_are_refused_with_a_reason(void) {
    static const struct {
        const char *header, *why;
        size_t n_data;
    } cases[] = {
        {"[]", "object", 0},
        {"{\"a\":1}", "a", 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "a", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", "a", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", "a", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", "a", 8},
        {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", "F33", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", "a",
         4},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", "a",
         8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         "overlap", 12},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "twice", 8},
        {"{\"__metadata__\":{\"k\":1}}", "k", 0},
        {"{\"__metadata__\":{\"byteorder\":\"big\"}}", "little-endian", 0},
        {"{} x", "", 0},
    };
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        uint8_t bytes[512];
        gfli_blob blob;
        const size_t n = make_file(cases[i].header, cases[i].n_data, bytes);
        printf("  %s\n", cases[i].header);
        CHECK_ERROR(context, gfli_blob_open_memory(context, bytes, n, "the file", &blob),
                    GFL_E_FORMAT, cases[i].why);
        CHECK(strstr(gfl_context_error(context), "the file") != NULL);
    }
}

static void cut_files_are_refused(void) {
    uint8_t bytes[512];
    gfli_blob blob;
    const size_t n =
        make_file("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, bytes);
    CHECK_OK(context, gfli_blob_open_memory(context, bytes, n, "whole", &blob));
    gfli_blob_close(&blob);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *exact =
            (uint8_t *)malloc(cut + 1); /* so that a sanitizer sees one byte too many */
        memcpy(exact, bytes, cut);
        exact = (uint8_t *)realloc(exact, cut ? cut : 1);
        CHECK_ERROR(context, gfli_blob_open_memory(context, exact, cut, "cut", &blob), GFL_E_FORMAT,
                    "cut");
        free(exact);
    }
    CHECK_ERROR(context, gfli_blob_open(context, "no such file", &blob), GFL_E_IO, "no such file");
    CHECK_ERROR(context, gfli_blob_open(context, "/tmp", &blob), GFL_E_IO, "/tmp");
}

/* Element (i, j) of a transposed view is element (j, i) of what lies in the file. */
static void strided_tensors_are_gathered(void) {
    float values[12], read[12];
    uint8_t bytes[sizeof values];
    gfli_blob blob;
    gfli_tensor *t;
    for (int i = 0; i < 12; i++) values[i] = (float)i;
    memcpy(bytes, values, sizeof values);
    CHECK_OK(context, gfli_blob_bare_memory(context, bytes, sizeof bytes, "view", &blob));
    CHECK_OK(context, gfli_blob_add(&blob, "t", &t));
    t->dtype = GFLI_F32;
    t->rank = 2;
    t->shape[0] = 3, t->shape[1] = 3;
    t->stride[0] = 1, t->stride[1] = 4;
    t->count = 9;
    t->offset = 4;
    t->bytes = 36;
    t->strided = true;
    CHECK_OK(context, gfli_blob_sort(&blob));
    CHECK_OK(context, gfli_blob_read_f32(&blob, &blob.tensors[0], read));
    for (int i = 0; i < 9; i++) CHECK(read[i] == (float)(1 + i / 3 + 4 * (i % 3)));
    CHECK_OK(context, gfli_blob_add_meta(&blob, "k", "v"));
    CHECK(!strcmp(gfli_blob_meta(&blob, "k"), "v"));
    gfli_blob_close(&blob);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(what_is_written_is_read_back),
                                      TEST(a_file_that_is_not_finished_is_not_there),
                                      TEST(hostile_headers_are_refused_with_a_reason),
                                      TEST(cut_files_are_refused),
                                      TEST(strided_tensors_are_gathered),
                                      {0}};
    context = test_context(1);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
