/* test_blob.c - safetensors: round trips, every refusal, tensors whose elements lie apart */
#include "test.h"
#include <unistd.h>

static gfl_context *context;

static const char *scratch(void) {
    static char path[64];
    snprintf(path, sizeof path, "test_blob_%ld.safetensors", (long)getpid());
    return path;
}

/* ---- round trips ----------------------------------------------------------------------------- */

static void what_is_written_is_read(void) {
    static const float a[6] = {0, -1, 2.5f, 1e-38f, 3e38f, -0.0f};
    static const int64_t counter = INT64_C(-1234567890123), shape[2] = {2, 3}, none[1] = {0};
    static const char *const text = "quotes \" and \\ and \n, \xc3\xb6";
    gfli_blob_writer *w = NULL;
    gfli_blob blob;
    float got[6];
    int64_t number = 0;
    CHECK_OK(context, gfli_blob_create(context, gfli_to_file(scratch()), &w));
    CHECK_OK(context, gfli_blob_put_meta(w, "text", text));
    CHECK_OK(context, gfli_blob_put_meta(w, "empty", ""));
    CHECK_OK(context, gfli_blob_declare(w, "z", GFLI_F32, 2, shape));
    CHECK_OK(context, gfli_blob_declare(w, "count", GFLI_I64, 0, NULL));
    CHECK_OK(context, gfli_blob_declare(w, "nothing", GFLI_F32, 1, none));
    CHECK_OK(context, gfli_blob_write(w, a, sizeof a));
    CHECK_OK(context, gfli_blob_write(w, &counter, sizeof counter));
    CHECK_OK(context, gfli_blob_finish(w));
    CHECK_OK(context, gfli_blob_open(context, scratch(), &blob));
    CHECK(blob.n_tensors == 3 && blob.n_meta == 2);
    CHECK(!strcmp(gfli_blob_meta(&blob, "text"), text) && !gfli_blob_meta(&blob, "tex"));
    CHECK(!strcmp(gfli_blob_meta(&blob, "empty"), ""));
    const gfli_tensor *t = gfli_blob_find(&blob, "z");
    CHECK(t && t->rank == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->offset % 64 == 0);
    CHECK_OK(context, gfli_blob_read_f32(&blob, t, got));
    CHECK(memcmp(got, a, sizeof a) == 0);
    t = gfli_blob_find(&blob, "count");
    CHECK(t && t->rank == 0 && t->count == 1);
    CHECK_OK(context, gfli_blob_read_raw(&blob, t, &number));
    CHECK(number == counter);
    CHECK_ERROR(context, gfli_blob_read_f32(&blob, t, got), GFL_E_FORMAT, "not floating point");
    t = gfli_blob_find(&blob, "nothing");
    CHECK(t && t->count == 0 && gfli_blob_read_f32(&blob, t, got) == GFL_OK);
    CHECK(!gfli_blob_find(&blob, "zz") && !gfli_blob_find(&blob, ""));
    gfli_blob_close(&blob);
    unlink(scratch());
}

static void too_little_data_leaves_no_file(void) {
    static const int64_t shape[1] = {2};
    gfli_blob_writer *w = NULL;
    CHECK_OK(context, gfli_blob_create(context, gfli_to_file(scratch()), &w));
    CHECK_OK(context, gfli_blob_declare(w, "a", GFLI_F32, 1, shape));
    CHECK_OK(context, gfli_blob_write(w, shape, 4));
    CHECK_ERROR(context, gfli_blob_finish(w), GFL_E_ARG, "8 bytes were declared, 4 written");
    CHECK(access(scratch(), F_OK) != 0);
}

static void an_abandoned_file_is_not_there(void) {
    static const int64_t shape[1] = {4};
    gfli_blob_writer *w = NULL;
    gfli_blob blob;
    CHECK_OK(context, gfli_blob_create(context, gfli_to_file(scratch()), &w));
    CHECK_OK(context, gfli_blob_declare(w, "w", GFLI_F32, 1, shape));
    gfli_blob_abandon(w);
    CHECK(access(scratch(), F_OK) != 0);
    gfli_blob_abandon(NULL);
    CHECK_ERROR(context, gfli_blob_create(context, gfli_to_file("/nonexistent/x"), &w), GFL_E_IO,
                "nonexistent");
    CHECK_ERROR(context, gfli_blob_open(context, "no such file", &blob), GFL_E_IO, "no such file");
    CHECK_ERROR(context, gfli_blob_open(context, "/tmp", &blob), GFL_E_IO, "/tmp");
}

/* ---- files put together here ----------------------------------------------------------------- */

typedef struct bytes {
    uint8_t data[512];
    size_t n;
} bytes;

static bytes file_of(const char *header, const void *data, size_t n) {
    bytes b = {{0}, 0};
    const size_t length = strlen(header);
    if (8 + length + n > sizeof b.data) exit(1);
    for (int i = 0; i < 8; i++) b.data[i] = (uint8_t)((uint64_t)length >> 8 * i);
    memcpy(b.data + 8, header, length);
    if (n) memcpy(b.data + 8 + length, data, n);
    b.n = 8 + length + n;
    return b;
}

#define ONE(type, shape, offsets)                                                                  \
    "{\"a\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void every_float_becomes_the_nearest_f32(void) {
    /* 1, -2, the smallest subnormal, the largest, infinity; f64 beyond f32's digits rounds. */
    static const uint16_t halves[5] = {0x3C00, 0xC000, 0x0001, 0x7BFF, 0x7C00};
    static const uint16_t brains[5] = {0x3F80, 0xC000, 0x0001, 0x7F7F, 0x7F80};
    static const double doubles[5] = {1, -2, 0x1p-149, 1.0 + 0x1.8p-24, (double)INFINITY};
    static const float want[3][5] = {{1, -2, 0x1p-24f, 65504, INFINITY},
                                     {1, -2, 0x1p-133f, 0x1.FEp127f, INFINITY},
                                     {1, -2, 0x1p-149f, 1.0f + 0x1p-23f, INFINITY}};
    const bytes files[3] = {file_of(ONE("F16", "[5]", "[0,10]"), halves, sizeof halves),
                            file_of(ONE("BF16", "[5]", "[0,10]"), brains, sizeof brains),
                            file_of(ONE("F64", "[5]", "[0,40]"), doubles, sizeof doubles)};
    for (int i = 0; i < 3; i++) {
        gfli_blob blob;
        float got[5];
        CHECK_OK(context, gfli_blob_open_memory(context, files[i].data, files[i].n, "a", &blob));
        CHECK_OK(context, gfli_blob_read_f32(&blob, &blob.tensors[0], got));
        CHECK(memcmp(got, want[i], sizeof got) == 0);
        gfli_blob_close(&blob);
    }
}

static void broken_headers_are_refused(void) {
    static const struct {
        const char *header, *why;
    } cases[] = {
        {"", ""},
        {"[]", "not a JSON object"},
        {"{} x", "a.safetensors"},
        {"{\"a\":1}", "tensor a is not an object"},
        {"{\"a\":{}}", "lacks dtype, shape or data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", "lacks dtype, shape or data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"color\":1}}", "unexpected key \"color\""},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", "unexpected key \"dtype\""},
        {ONE("F8", "[1]", "[0,1]"), "unknown dtype \"F8\""},
        {ONE("F32", "1", "[0,4]"), "shape is not an array"},
        {ONE("F32", "[-1]", "[0,4]"), "not up to 8 natural numbers"},
        {ONE("F32", "[1.5]", "[0,4]"), "not up to 8 natural numbers"},
        {ONE("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), "not up to 8 natural numbers"},
        {ONE("F32", "[4294967296,4294967296,4]", "[0,4]"), "the size overflows"},
        {ONE("F32", "[1]", "4"), "no data_offsets"},
        {ONE("F32", "[1]", "[0]"), "last offset"},
        {ONE("F32", "[1]", "[-4,0]"), "first offset"},
        {ONE("F32", "[1]", "[0,4,8]"), "more than two numbers"},
        {ONE("F32", "[1]", "[4,0]"), "is not within the file's"},
        {ONE("F32", "[5]", "[0,20]"), "is not within the file's 16"},
        {ONE("F32", "[2]", "[0,4]"), "4 bytes do not fit its shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         "the data of a and b overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "tensor a appears twice"},
        {"{\"__metadata__\":{\"k\":1}}", "\"k\" is not a text"},
        {"{\"__metadata__\":[]}", "not one object"},
        {"{\"__metadata__\":{\"k\":\"1\",\"j\":\"2\",\"k\":\"3\"}}", "has \"k\" twice"},
        {"{\"__metadata__\":{\"byteorder\":\"big\"}}", "only little-endian"}};
    static const uint8_t data[16];
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        gfli_blob blob;
        const bytes b = file_of(cases[i].header, data, sizeof data);
        CHECK_ERROR(context, gfli_blob_open_memory(context, b.data, b.n, "a.safetensors", &blob),
                    GFL_E_FORMAT, cases[i].why);
        CHECK(strstr(gfl_context_get_error(context), "a.safetensors") != NULL);
    }
}

static void cut_files_are_refused(void) {
    static const float data[4] = {1, 2, 3, 4};
    const bytes b = file_of(ONE("F32", "[4]", "[0,16]"), data, sizeof data);
    for (size_t n = 0; n < b.n; n++) {
        gfli_blob blob;
        CHECK(gfli_blob_open_memory(context, b.data, n, "cut", &blob) == GFL_E_FORMAT);
    }
    gfli_blob blob;
    CHECK_OK(context, gfli_blob_open_memory(context, b.data, b.n, "whole", &blob));
    blob.size -= 4; /* it becomes shorter after it was opened */
    float got[4];
    CHECK_ERROR(context, gfli_blob_read_f32(&blob, &blob.tensors[0], got), GFL_E_FORMAT,
                "the file ends before");
    gfli_blob_close(&blob);
    bytes huge = b;
    memset(huge.data, 0xFF, 8);
    CHECK_ERROR(context, gfli_blob_open_memory(context, huge.data, huge.n, "huge", &blob),
                GFL_E_FORMAT, "announces a header");
}

/* ---- strides --------------------------------------------------------------------------------- */

/* Plain loops over what the strides say, for every float type. */
static void strided_tensors_are_gathered(void) {
    static const struct {
        int rank;
        int64_t shape[3], stride[3], first;
    } views[] = {{2, {3, 4, 1}, {1, 3, 0}, 0},   /* transposed */
                 {3, {2, 3, 2}, {1, 4, 2}, 5},   /* permuted, at an offset */
                 {1, {3, 1, 1}, {90, 0, 0}, 10}, /* far apart: read one by one */
                 {2, {4, 3, 1}, {0, 1, 0}, 7},   /* repeated rows */
                 {2, {0, 3, 1}, {3, 1, 0}, 7}};
    enum { N = 200 };
    static float floats[N];
    static uint16_t halves[N];
    for (int i = 0; i < N; i++) {
        floats[i] = (float)i;
        halves[i] = (uint16_t)(0x3C00 + i);
    }
    for (size_t i = 0; i < GFLI_COUNT(views); i++)
        for (int half = 0; half < 2; half++) {
            const void *data = half ? (const void *)halves : (const void *)floats;
            const size_t size = half ? 2 : 4;
            gfli_blob blob;
            gfli_tensor *t;
            CHECK_OK(context, gfli_blob_bare_memory(context, data, N * size, "views", &blob));
            CHECK_OK(context, gfli_blob_add(&blob, "a", &t));
            t->dtype = half ? GFLI_F16 : GFLI_F32;
            t->rank = views[i].rank;
            t->strided = true;
            t->count = 1;
            for (int d = 0; d < t->rank; d++) {
                t->shape[d] = views[i].shape[d];
                t->stride[d] = views[i].stride[d];
                t->count *= (size_t)t->shape[d];
            }
            t->offset = (uint64_t)views[i].first * size;
            t->bytes = t->count * size;
            float got[16] = {0};
            CHECK_OK(context, gfli_blob_read_f32(&blob, t, got));
            size_t n = 0;
            for (int64_t x = 0; x < views[i].shape[0]; x++)
                for (int64_t y = 0; y < views[i].shape[1]; y++)
                    for (int64_t z = 0; z < views[i].shape[2]; z++) {
                        const int64_t at = views[i].first + x * views[i].stride[0] +
                                           y * views[i].stride[1] + z * views[i].stride[2];
                        CHECK(got[n++] == (half ? gfli_f16_to_f32(halves[at]) : floats[at]));
                    }
            t->offset = N * size; /* whoever fills in the numbers, reading stays in the file */
            if (t->count)
                CHECK_ERROR(context, gfli_blob_read_f32(&blob, t, got), GFL_E_FORMAT,
                            "the file ends before");
            gfli_blob_close(&blob);
        }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(what_is_written_is_read),        TEST(too_little_data_leaves_no_file),
        TEST(an_abandoned_file_is_not_there), TEST(every_float_becomes_the_nearest_f32),
        TEST(broken_headers_are_refused),     TEST(cut_files_are_refused),
        TEST(strided_tensors_are_gathered),   {0}};
    context = test_context(1);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
