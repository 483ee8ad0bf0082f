/* test_pth.c - checkpoints of PyTorch: files that torch.save wrote, and files put together here */
#include "data.h"
#include "pickled.h"

#include "../src/ckpt/ckpt.h"

static gfl_context *context;

/* ---- reading --------------------------------------------------------------------------------- */

static const float storage[6] = {0, 1, 2, 3, 4, 5};
static archive made;

static gfl_status read_bytes(const void *data, size_t size, gfli_blob *blob) {
    CHECK_OK(context, gfli_blob_bare_memory(context, data, size, "a.pth", blob));
    return gfli_pth_read(blob);
}

/* A checkpoint of this pickle, one storage of six floats under the key "0". */
static gfl_status read_pickle(const bytes *pickle, gfli_blob *blob) {
    memset(&made, 0, sizeof made);
    add_record(&made, "any/prefix/data.pkl", pickle->data, pickle->n);
    add_record(&made, "any/prefix/data/0", storage, sizeof storage);
    end_archive(&made);
    return read_bytes(made.file.data, made.file.n, blob);
}

static void refuse_pickle(const bytes *pickle, const char *why) {
    gfli_blob blob;
    CHECK_ERROR(context, read_pickle(pickle, &blob), GFL_E_FORMAT, why);
    CHECK(strstr(gfl_context_get_error(context), "a.pth") != NULL);
    gfli_blob_close(&blob);
}

static void expect(gfli_blob *blob, const char *name, int n, const float *want) {
    float got[16] = {0};
    const gfli_tensor *t = gfli_blob_find(blob, name);
    if (!t) printf("%s is missing\n", name);
    CHECK(t && t->count == (size_t)n);
    if (!t || t->count != (size_t)n) return;
    CHECK_OK(context, gfli_blob_read_f32(blob, t, got));
    CHECK(memcmp(got, want, (size_t)n * sizeof *want) == 0);
}

static void expect_meta(const gfli_blob *blob, const char *key, const char *want) {
    const char *got = gfli_blob_meta(blob, key);
    CHECK((!got && !want) || (got && want && !strcmp(got, want)));
}

/* ---- cases ----------------------------------------------------------------------------------- */

static const char *const corpus[] = {"zip.pth",       "legacy.pth",           "bare_legacy.pth",
                                     "protocol4.pth", "protocol4_legacy.pth", "parameters.pth"};

/* tests/data/fuzz_zip: one dictionary, written by PyTorch 2 in six ways. */
static void torch_saves_one_dictionary_in_many_ways(void) {
    const float transposed[6] = {0, 3, 1, 4, 2, 5};
    for (size_t i = 0; i < GFLI_COUNT(corpus); i++) {
        char path[64];
        gfli_blob blob;
        int64_t counter = 0;
        snprintf(path, sizeof path, "fuzz_zip/%s", corpus[i]);
        CHECK_OK(context, gfli_ckpt_open(context, data_path(path), &blob));
        CHECK(blob.n_tensors == 7);
        expect(&blob, "conv1.weight", 6, storage);
        expect(&blob, "conv1.bias", 3, storage);
        expect(&blob, "t", 6, transposed);
        expect(&blob, "h", 6, storage);
        expect(&blob, "b", 6, storage);
        expect(&blob, "d", 6, storage);
        const gfli_tensor *t = gfli_blob_find(&blob, "bn.num_batches_tracked");
        CHECK(t && t->dtype == GFLI_I64 && t->rank == 0);
        if (t) CHECK_OK(context, gfli_blob_read_raw(&blob, t, &counter));
        CHECK(counter == 3);
        if (i == 0) {
            expect_meta(&blob, "classes", "[\"cat\",\"d\xc3\xb6g\"]");
            expect_meta(&blob, "epoch", "3");
            expect_meta(&blob, "iter", "9");
            expect_meta(&blob, "time", NULL);
        }
        if (i == 1) expect_meta(&blob, "classes", "[\"a\",\"b\"]");
        if (i == 2) expect_meta(&blob, "classes", NULL);
        gfli_blob_close(&blob);
    }
}

/* A call where a tensor should be is refused by name, elsewhere stepped over, and never made. */
static void nothing_is_called(void) {
    gfli_blob blob;
    CHECK_ERROR(context, gfli_ckpt_open(context, data_path("fuzz_zip/call.pth"), &blob),
                GFL_E_FORMAT, "system");
    CHECK(strstr(gfl_context_get_error(context), "evil") != NULL);
    CHECK_OK(context, gfli_ckpt_open(context, data_path("fuzz_zip/call_aside.pth"), &blob));
    expect(&blob, "w", 6, storage);
    expect_meta(&blob, "epoch", "4");
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
        char path[64];
        snprintf(path, sizeof path, "fuzz_zip/%s", cases[i].name);
        CHECK_ERROR(context, gfli_ckpt_open(context, data_path(path), &blob), cases[i].status,
                    cases[i].why);
        CHECK(strstr(gfl_context_get_error(context), cases[i].name) != NULL);
    }
}

/* However a file is cut or changed, it is read or refused; cut, never read. */
static void every_cut_and_every_changed_byte_ends_well(void) {
    for (size_t i = 0; i < GFLI_COUNT(corpus); i++) {
        char path[64];
        size_t size;
        gfli_blob blob;
        snprintf(path, sizeof path, "fuzz_zip/%s", corpus[i]);
        uint8_t *data = data_read(data_path(path), &size);
        for (size_t n = 0; n < size; n++) {
            uint8_t *part = (uint8_t *)malloc(n + 1); /* so that a sanitizer sees its end */
            memcpy(part, data, n);
            CHECK(read_bytes(part, n, &blob) == GFL_E_FORMAT);
            gfli_blob_close(&blob);
            free(part);
        }
        for (size_t n = 0; n < size; n++) {
            data[n] ^= 0xFF;
            gfl_status status = read_bytes(data, size, &blob);
            for (int k = 0; status == GFL_OK && k < blob.n_tensors; k++) {
                double values[16];
                const gfli_tensor *t = &blob.tensors[k];
                if (t->count <= 16) CHECK_OK(context, gfli_blob_read_raw(&blob, t, values));
            }
            gfli_blob_close(&blob);
            data[n] ^= 0xFF;
        }
        free(data);
    }
}

static void archives_may_be_wide(void) {
    bytes pickle = {{0}, 0};
    gfli_blob blob;
    PUT(&pickle, "\x80\x02}");
    put_text(&pickle, "w");
    put_tensor(&pickle, "0", 6);
    PUT(&pickle, "s.");
    memset(&made, 0, sizeof made);
    made.wide = true;
    add_record(&made, "data.pkl", pickle.data, pickle.n); /* no prefix at all */
    add_record(&made, "byteorder", "little", 6);
    add_record(&made, "data/0", storage, sizeof storage);
    end_archive(&made);
    CHECK_OK(context, read_bytes(made.file.data, made.file.n, &blob));
    expect(&blob, "w", 6, storage);
    gfli_blob_close(&blob);
}

static void archives_that_are_not_ours_are_refused(void) {
    gfli_blob blob;
    bytes pickle = {{0}, 0};
    PUT(&pickle, "\x80\x02}.");
    memset(&made, 0, sizeof made);
    add_record(&made, "a/data.pkl", pickle.data, pickle.n);
    add_record(&made, "a/byteorder", "big", 3);
    end_archive(&made);
    CHECK_ERROR(context, read_bytes(made.file.data, made.file.n, &blob), GFL_E_UNSUPPORTED,
                "byte order is \"big\"");
    gfli_blob_close(&blob);
    memset(&made, 0, sizeof made);
    add_record(&made, "a/data.pkl", pickle.data, pickle.n);
    add_record(&made, "a/data.pkl", pickle.data, pickle.n);
    end_archive(&made);
    CHECK_ERROR(context, read_bytes(made.file.data, made.file.n, &blob), GFL_E_FORMAT,
                "a/data.pkl is there twice");
    gfli_blob_close(&blob);
    memset(&made, 0, sizeof made);
    add_record(&made, "model.onnx", "?", 1);
    end_archive(&made);
    CHECK_ERROR(context, read_bytes(made.file.data, made.file.n, &blob), GFL_E_FORMAT,
                "without data.pkl");
    gfli_blob_close(&blob);
}

/* Records that overlap would cost their checksums without end. */
static void overlapping_records_are_refused(void) {
    static uint8_t large[4096];
    gfli_blob blob;
    memset(&made, 0, sizeof made);
    add_record(&made, "a/data.pkl", large, sizeof large);
    for (int i = 0; i < 3; i++) { /* the directory's entry again and again, under other names */
        const size_t entry = 46 + strlen("a/data.pkl");
        put(&made.directory, made.directory.data, entry);
        made.directory.data[made.directory.n - 1] = (uint8_t)('0' + i);
        made.n++;
    }
    end_archive(&made);
    CHECK_ERROR(context, read_bytes(made.file.data, made.file.n, &blob), GFL_E_FORMAT,
                "larger than the file");
    gfli_blob_close(&blob);
}

static void state_dict_wins_over_the_others(void) {
    static const char *const order[] = {"ema_state_dict", "model", "state_dict"};
    const float want[2] = {0, 1};
    for (int n = 1; n <= 3; n++) {
        bytes pickle = {{0}, 0};
        gfli_blob blob;
        PUT(&pickle, "\x80\x02}(");
        for (int i = 0; i < n; i++) {
            put_text(&pickle, order[i]);
            PUT(&pickle, "}");
            put_text(&pickle, order[i]); /* the tensor's name tells where it is from */
            put_tensor(&pickle, "0", 2);
            PUT(&pickle, "s");
        }
        put_text(&pickle, "outside");
        put_tensor(&pickle, "0", 2);
        PUT(&pickle, "u.");
        CHECK_OK(context, read_pickle(&pickle, &blob));
        CHECK(blob.n_tensors == 1);
        expect(&blob, order[n - 1], 2, want);
        gfli_blob_close(&blob);
    }
}

/* Python 2: names are bytes, a dictionary is made of a list of pairs, parameters are objects. */
static void python_2_is_understood(void) {
    bytes pickle = {{0}, 0};
    gfli_blob blob;
    PUT(&pickle, "\x80\x02"
                 "ccollections\nOrderedDict\nq\1]q\2(]q\3(");
    put_string(&pickle, "conv1.weight");
    PUT(&pickle, "ctorch.nn.parameter\nParameter\nctorch._utils\n_rebuild_tensor\n(");
    put_storage(&pickle, "FloatStorage", "0", 6);
    PUT(&pickle, "K\1K\2K\3\x86K\0K\2\x86tR\x85R\x88\x89}\x87"
                 "be"); /* (2, 3), strides (0, 2) */
    PUT(&pickle, "]q\4(");
    put_string(&pickle, "conv1.bias");
    put_tensor(&pickle, "0", 3);
    PUT(&pickle, "ee\x85R.");
    CHECK_OK(context, read_pickle(&pickle, &blob));
    const float weight[6] = {1, 3, 5, 1, 3, 5};
    expect(&blob, "conv1.weight", 6, weight);
    expect(&blob, "conv1.bias", 3, storage);
    gfli_blob_close(&blob);
}

/* Objects of any class, built, filled and called in every way, beside the tensors. */
static void what_is_not_needed_is_stepped_over(void) {
    bytes pickle = {{0}, 0};
    gfli_blob blob;
    PUT(&pickle, "\x80\x02}(");
    put_text(&pickle, "message_hub");
    PUT(&pickle, "cos\nsystem\n(");
    put_text(&pickle, "touch gfl-test-code-was-executed");
    PUT(&pickle, "tR(K\1K\2u(K\3e}b");
    put_text(&pickle, "args");
    PUT(&pickle, "cargparse\nNamespace\n)\x81}b");
    put_text(&pickle, "scalar");
    PUT(&pickle, "(K\1inumpy\nscalar\n");
    put_text(&pickle, "many");
    PUT(&pickle, "(I1\nI01\nL2L\nF1.5\nS'x'\nVy\nN\x88G12345678\x8f(K\1\x90t");
    put_text(&pickle, "forgotten");
    PUT(&pickle, "((K\1"
                 "1K\2"
                 "0"
                 "0NN"
                 "0"); /* back to the name, and None for it */
    put_text(&pickle, "fast");
    PUT(&pickle, "cnumpy\nx\n)}\x92");
    put_text(&pickle, "best_score");
    PUT(&pickle, "\x82\1");
    put_text(&pickle, "conv.weight");
    put_tensor(&pickle, "0", 6);
    put_text(&pickle, "bn._extra_state");
    PUT(&pickle, "cany\nthing\n)R");
    PUT(&pickle, "u.");
    CHECK_OK(context, read_pickle(&pickle, &blob));
    CHECK(blob.n_tensors == 1);
    expect(&blob, "conv.weight", 6, storage);
    gfli_blob_close(&blob);
    CHECK(!data_exists("gfl-test-code-was-executed"));
}

static void opaque_values_in_needed_places_are_named(void) {
    static const char *const places[] = {"layer1.0.conv1.weight", "state_dict", "model"};
    for (size_t i = 0; i < GFLI_COUNT(places); i++) {
        bytes pickle = {{0}, 0};
        PUT(&pickle, "\x80\x02}(");
        put_text(&pickle, "fc.weight");
        put_tensor(&pickle, "0", 6);
        put_text(&pickle, places[i]);
        PUT(&pickle, "cmymodels\nNet\n)\x81}bu.");
        refuse_pickle(&pickle, places[i]);
        CHECK(strstr(gfl_context_get_error(context), "mymodels.Net") != NULL);
    }
    bytes whole = {{0}, 0}, key = {{0}, 0};
    PUT(&whole, "\x80\x02"
                "cmymodels\nNet\n)\x81}b.");
    refuse_pickle(&whole, "mymodels.Net");
    PUT(&key, "\x80\x02}cmymodels\nkey\n)R");
    put_tensor(&key, "0", 6);
    PUT(&key, "s.");
    refuse_pickle(&key, "its key is no text");
}

static void views_beyond_their_storage_are_refused(void) {
    static const struct {
        view v;
        const char *why;
    } cases[] = {{{0, 1, {7}, {1}}, "its storage has 6"},
                 {{1, 1, {6}, {1}}, "its storage has 6"},
                 {{0, 2, {2, 3}, {4, 1}}, "its storage has 6"},
                 {{0, 1, {2}, {INT64_MAX}}, "stride"},
                 {{INT64_MAX, 1, {1}, {1}}, "its storage has 6"},
                 {{-1, 1, {1}, {1}}, "makes no sense"},
                 {{0, 1, {-1}, {1}}, "makes no sense"},
                 {{5, 1, {2}, {-1}}, "makes no sense"},
                 {{0, 2, {INT64_C(1) << 40, INT64_C(1) << 40}, {0, 0}}, "too large"},
                 {{0, 1, {1 << 20}, {0}}, "repeats its values"},
                 {{0, 9, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {0}}, "makes no sense"}};
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        bytes pickle = {{0}, 0};
        PUT(&pickle, "\x80\x02}");
        put_text(&pickle, "conv1.weight");
        put_view(&pickle, "0", 6, &cases[i].v);
        PUT(&pickle, "s.");
        refuse_pickle(&pickle, cases[i].why);
        CHECK(strstr(gfl_context_get_error(context), "conv1.weight") != NULL);
    }
}

static void storages_that_are_not_there_are_refused(void) {
    bytes absent = {{0}, 0}, longer = {{0}, 0}, kind = {{0}, 0};
    PUT(&absent, "\x80\x02}");
    put_text(&absent, "w");
    put_tensor(&absent, "1", 6);
    PUT(&absent, "s.");
    refuse_pickle(&absent, "lacks the record");
    PUT(&longer, "\x80\x02}");
    put_text(&longer, "w");
    put_tensor(&longer, "0", 7);
    PUT(&longer, "s.");
    refuse_pickle(&longer, "any/prefix/data/0");
    PUT(&kind, "\x80\x02}");
    put_text(&kind, "w");
    PUT(&kind, "ctorch._utils\n_rebuild_tensor\n(");
    put_storage(&kind, "ComplexFloatStorage", "0", 3);
    PUT(&kind, "K\0K\3\x85K\1\x85tRs.");
    refuse_pickle(&kind, "a kind that gfl does not know");
}

static void broken_pickles_are_refused(void) {
    static const struct {
        const char *text;
        size_t n;
        const char *why;
    } cases[] = {{".", 1, "a value is missing"},
                 {"0.", 2, "a value is missing"},
                 {"K\1R.", 4, "a value is missing"},
                 {"(K\1a.", 5, "a value is missing"},
                 {"t.", 2, "a mark is missing"},
                 {"}(K\1u.", 6, "a key without a value"},
                 {"h\1.", 3, "not there"},
                 {"Nr\xff\xff\xff\0.", 7, "memo number is too large"},
                 {"\xff.", 2, "unknown operation"},
                 {"X\xff\xff\xff\xffx.", 7, "ends in the middle"},
                 {"}", 1, "ends in the middle"},
                 {"K\1K\2\x93.", 6, "a name is not a text"},
                 {"]q\0h\0a.", 7, "it holds a list"},
                 {"}q\0K\1h\0s.", 9, "it holds no tensors"}};
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        bytes pickle = {{0}, 0};
        put(&pickle, cases[i].text, cases[i].n);
        refuse_pickle(&pickle, cases[i].why);
    }
}

/* Texts that are in the memo cost a few bytes to repeat; nothing may grow beyond the file. */
static void repeated_texts_do_not_grow(void) {
    static char name[30001];
    static bytes names, classes, long_name, meta; /* and what gfl_model_export left there */
    memset(name, 'x', sizeof name - 1);
    put_text(&classes, name);
    PUT(&classes, "q\0000}");
    put_text(&classes, "meta");
    PUT(&classes, "}");
    put_text(&classes, "CLASSES");
    PUT(&classes, "](");
    for (int i = 0; i < 5000; i++) PUT(&classes, "h\0");
    PUT(&classes, "ess");
    put_text(&classes, "w");
    put_tensor(&classes, "0", 6);
    PUT(&classes, "s.");
    refuse_pickle(&classes, "the class names");
    PUT(&meta, "}(");
    put_text(&meta, "meta");
    PUT(&meta, "}");
    put_text(&meta, "gfl");
    PUT(&meta, "}(");
    put_text(&meta, name);
    PUT(&meta, "q\0");
    for (int i = 0; i < 99; i++) PUT(&meta, "h\0");
    PUT(&meta, "us");
    put_text(&meta, "w");
    put_tensor(&meta, "0", 6);
    PUT(&meta, "u.");
    refuse_pickle(&meta, "the metadata");
    name[500] = 0;
    put_text(&names, name);
    PUT(&names, "q\0000");
    for (int i = 0; i < 10000; i++) PUT(&names, "h\0h\0\x93");
    PUT(&names, ".");
    refuse_pickle(&names, "too many long names");
    memset(name, 'x', 600);
    name[600] = 0;
    PUT(&long_name, "}");
    put_text(&long_name, name);
    put_tensor(&long_name, "0", 6);
    PUT(&long_name, "s.");
    refuse_pickle(&long_name, "is longer than 512 bytes");
}

/* ---- the older container --------------------------------------------------------------------- */

static void put_legacy(bytes *b, const char *little, const char *view_of) {
    PUT(b, "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}");
    put_text(b, "little_endian");
    put(b, little, 1);
    PUT(b, "s.\x80\x02}");
    put_text(b, "w");
    PUT(b, "ctorch._utils\n_rebuild_tensor\n((");
    put_text(b, "storage");
    PUT(b, "ctorch\nFloatStorage\n");
    put_text(b, "77");
    put_text(b, "cpu");
    PUT(b, "K\6");
    put(b, view_of, strlen(view_of));
    PUT(b, "tQK\1K\2\x85K\1\x85tRs.\x80\x02]");
    put_text(b, "77");
    PUT(b, "a.");
    put_number(b, 6, 8);
    put(b, storage, sizeof storage);
}

static void the_older_container_is_read(void) {
    const float plain[2] = {1, 2}, within[2] = {3, 4};
    bytes b = {{0}, 0}, views = {{0}, 0}, beyond = {{0}, 0}, big = {{0}, 0};
    gfli_blob blob;
    put_legacy(&b, "\x88", "N");
    CHECK_OK(context, read_bytes(b.data, b.n, &blob));
    expect(&blob, "w", 2, plain);
    gfli_blob_close(&blob);
    put_legacy(&views, "\x88", "(U\001xK\2K\3t"); /* before torch 0.4: elements 2 to 4 */
    CHECK_OK(context, read_bytes(views.data, views.n, &blob));
    expect(&blob, "w", 2, within);
    gfli_blob_close(&blob);
    put_legacy(&beyond, "\x88", "(U\001xK\4K\3t");
    CHECK_ERROR(context, read_bytes(beyond.data, beyond.n, &blob), GFL_E_FORMAT,
                "runs out of another");
    gfli_blob_close(&blob);
    put_legacy(&big, "\x89", "N");
    CHECK_ERROR(context, read_bytes(big.data, big.n, &blob), GFL_E_UNSUPPORTED, "big-endian");
    gfli_blob_close(&blob);
}

static void files_are_told_by_their_content(void) {
    static const struct {
        const char *text, *why;
    } cases[] = {{"", "empty"},
                 {"<html>404</html>", "neither safetensors nor"},
                 {"\x80\x02}.", "torch.save did not write it"},
                 {"PK", "without its directory"}};
    const char *path = "test_pth.scratch";
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        gfli_blob blob;
        FILE *f = fopen(path, "wb");
        if (!f) exit(1);
        fputs(cases[i].text, f);
        fclose(f);
        CHECK_ERROR(context, gfli_ckpt_open(context, path, &blob), GFL_E_FORMAT, cases[i].why);
    }
    remove(path);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(torch_saves_one_dictionary_in_many_ways),
                                      TEST(nothing_is_called),
                                      TEST(what_cannot_be_read_says_why),
                                      TEST(every_cut_and_every_changed_byte_ends_well),
                                      TEST(archives_may_be_wide),
                                      TEST(archives_that_are_not_ours_are_refused),
                                      TEST(overlapping_records_are_refused),
                                      TEST(state_dict_wins_over_the_others),
                                      TEST(python_2_is_understood),
                                      TEST(what_is_not_needed_is_stepped_over),
                                      TEST(opaque_values_in_needed_places_are_named),
                                      TEST(views_beyond_their_storage_are_refused),
                                      TEST(storages_that_are_not_there_are_refused),
                                      TEST(broken_pickles_are_refused),
                                      TEST(repeated_texts_do_not_grow),
                                      TEST(the_older_container_is_read),
                                      TEST(files_are_told_by_their_content),
                                      {0}};
    context = test_context(1);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
