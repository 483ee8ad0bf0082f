/* test_pth.c - small checkpoints that PyTorch 2 wrote, in both containers (tests/data/fuzz_zip) */
#include "fixture.h"
#include <unistd.h>

#include "../src/ckpt/ckpt.h"

static gfl_context *context;

static const char *file(const char *name) {
    static char path[1024];
    const char *data = getenv("GFL_TEST_DATA");
    snprintf(path, sizeof path, "%s/fuzz_zip/%s", data ? data : "tests/data", name);
    return path;
}

static bool opened(const char *name, gfli_blob *blob) {
    gfl_status status = gfli_ckpt_open(context, file(name), blob);
    if (status != GFL_OK) printf("%s\n", gfl_context_error(context));
    CHECK(status == GFL_OK);
    return status == GFL_OK;
}

/* arange(6) as 2 x 3, or its transpose, in any type. */
static void check_matrix(gfli_blob *blob, const char *name, gfli_dtype dtype, bool transposed) {
    float v[6];
    const gfli_tensor *t = gfli_blob_find(blob, name);
    CHECK(t && t->dtype == dtype && t->rank == 2 && t->shape[transposed] == 2 &&
          t->shape[!transposed] == 3 && t->strided == transposed);
    if (!t) return;
    CHECK_OK(context, gfli_blob_read_f32(blob, t, v));
    for (int i = 0; i < 6; i++) CHECK(v[i] == (float)(transposed ? i / 2 + 3 * (i % 2) : i));
}

static void check_model(const char *name) {
    gfli_blob blob;
    float bias[3];
    int64_t counter = 0;
    printf("  %s\n", name);
    if (!opened(name, &blob)) return;
    CHECK(blob.n_tensors == 7);
    check_matrix(&blob, "conv1.weight", GFLI_F32, false);
    check_matrix(&blob, "t", GFLI_F32, true);
    check_matrix(&blob, "h", GFLI_F16, false);
    check_matrix(&blob, "b", GFLI_BF16, false);
    check_matrix(&blob, "d", GFLI_F64, false);
    const gfli_tensor *t = gfli_blob_find(&blob, "conv1.bias");
    CHECK(t && t->rank == 1 && t->count == 3);
    if (t) CHECK_OK(context, gfli_blob_read_f32(&blob, t, bias));
    CHECK(bias[0] == 0 && bias[1] == 1 && bias[2] == 2);
    t = gfli_blob_find(&blob, "bn.num_batches_tracked");
    CHECK(t && t->dtype == GFLI_I64 && t->rank == 0 && t->bytes == 8);
    if (t) CHECK_OK(context, gfli_blob_read_raw(&blob, t, &counter));
    CHECK(counter == 3);
    gfli_blob_close(&blob);
}

static void all_ways_of_saving_are_read(void) {
    static const char *const names[] = {"zip.pth",        "legacy.pth",    "bare_legacy.pth",
                                        "parameters.pth", "protocol4.pth", "protocol4_legacy.pth"};
    for (size_t i = 0; i < GFLI_COUNT(names); i++) check_model(names[i]);
}

static void classes_and_counters_are_kept(void) {
    gfli_blob blob;
    if (!opened("zip.pth", &blob)) return;
    const char *classes = gfli_blob_meta(&blob, "classes"), *epoch = gfli_blob_meta(&blob, "epoch");
    CHECK(classes && !strcmp(classes, "[\"cat\",\"d\xC3\xB6g\"]"));
    CHECK(epoch && !strcmp(epoch, "3"));
    CHECK(gfli_blob_meta(&blob, "iter") && !gfli_blob_meta(&blob, "time"));
    gfli_blob_close(&blob);
    if (!opened("legacy.pth", &blob)) return;
    classes = gfli_blob_meta(&blob, "classes");
    CHECK(classes && !strcmp(classes, "[\"a\",\"b\"]"));
    gfli_blob_close(&blob);
}

/* A call where a tensor should be is refused by name, elsewhere stepped over, and never made. */
static void nothing_is_called(void) {
    gfli_blob blob;
    CHECK_ERROR(context, gfli_ckpt_open(context, file("call.pth"), &blob), GFL_E_FORMAT, "system");
    CHECK(strstr(gfl_context_error(context), "evil") != NULL);
    if (!opened("call_aside.pth", &blob)) return;
    check_matrix(&blob, "w", GFLI_F32, false);
    const char *epoch = gfli_blob_meta(&blob, "epoch");
    CHECK(epoch && !strcmp(epoch, "4"));
    gfli_blob_close(&blob);
}

static void what_cannot_be_read_says_why(void) {
    static const struct {
        const char *name, *why;
        gfl_status status;
    } cases[] = {{"deflated.pth", "compressed", GFL_E_UNSUPPORTED},
                 {"big_endian.pth", "little-endian", GFL_E_UNSUPPORTED},
                 {"list.pth", "a list", GFL_E_FORMAT},
                 {"no_tensors.pth", "no tensors", GFL_E_FORMAT}};
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        gfli_blob blob;
        CHECK_ERROR(context, gfli_ckpt_open(context, file(cases[i].name), &blob), cases[i].status,
                    cases[i].why);
        CHECK(strstr(gfl_context_error(context), cases[i].name) != NULL);
    }
}

/* Every cut of either container is refused, and without reading beyond it. */
static void cut_files_are_refused(void) {
    static const char *const names[] = {"zip.pth", "legacy.pth"};
    for (size_t i = 0; i < GFLI_COUNT(names); i++) {
        uint8_t *bytes = NULL;
        size_t size = 0;
        CHECK_OK(context, gfli_file_read(context, file(names[i]), 1 << 20, &bytes, &size));
        for (size_t cut = 0; cut < size; cut++) {
            gfli_blob blob;
            uint8_t *exact = (uint8_t *)malloc(cut ? cut : 1);
            memcpy(exact, bytes, cut);
            CHECK_OK(context, gfli_blob_bare_memory(context, exact, cut, "cut", &blob));
            CHECK(gfli_pth_read(&blob) == GFL_E_FORMAT && gfl_context_error(context)[0]);
            gfli_blob_close(&blob);
            free(exact);
        }
        gfli_free(context, bytes);
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(all_ways_of_saving_are_read), TEST(classes_and_counters_are_kept),
        TEST(nothing_is_called),           TEST(what_cannot_be_read_says_why),
        TEST(cut_files_are_refused),       {0}};
    context = test_context(1);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
