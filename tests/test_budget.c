/* test_budget.c - what bytes can make the readers of weights allocate and compute: in proportion to
 * their number, whatever they say */
#include "data.h"
#include "meter.h"
#include "pickled.h"

#include "../src/ckpt/ckpt.h"
#include <time.h>
#include <unistd.h>

/* The budget: bytes held at once for each byte of the file, and for any file. */
enum { PER_BYTE = 80, ANYWAY = 1 << 20 };

/* ---- counting -------------------------------------------------------------------------------- */

static const char *scratch(void) {
    static char path[64];
    snprintf(path, sizeof path, "test_budget_%ld", (long)getpid());
    return path;
}

static void write_scratch(const void *data, size_t n) {
    FILE *f = fopen(scratch(), "wb");
    CHECK(f && fwrite(data, 1, n, f) == n && fclose(f) == 0);
}

/* Import what was put together; it must fail, with a text, within the budget. */
static void spend(const char *what, const void *data, size_t n) {
    meter m = {0, 0, SIZE_MAX};
    gfl_context_desc desc;
    gfl_context *context;
    gfl_model *model = NULL;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 1;
    desc.allocator.alloc = meter_alloc;
    desc.allocator.free = meter_free;
    desc.allocator.user = &m;
    CHECK(gfl_context_create(&desc, &context) == GFL_OK);
    write_scratch(data, n);
    const clock_t start = clock();
    const gfl_status status = gfl_model_import(context, scratch(), NULL, &model);
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    const double share = ((double)m.peak - (int)ANYWAY) / (double)n;
    const bool fits = status != GFL_OK && !model && share <= (int)PER_BYTE && seconds < 3;
    CHECK(fits);
    printf("  %-34s %8zu bytes: %6.1f MB at once, %.2f s: %.90s\n", what, n, (double)m.peak * 1e-6,
           seconds, gfl_context_get_error(context));
    CHECK(gfl_context_get_error(context)[0] != 0);
    gfl_context_destroy(context);
    CHECK(m.held == 0);
    remove(scratch());
}

/* ---- pickles --------------------------------------------------------------------------------- */

enum { MUCH = 300000 };

static bytes pickle;
static archive made;

static void begin(void) {
    pickle.n = 0;
    PUT(&pickle, "\x80\2");
}

/* As the only record of an archive, with one storage beside. */
static void spend_pickle(const char *what) {
    static const float one[4];
    PUT(&pickle, ".");
    memset(&made, 0, sizeof made);
    add_record(&made, "a/data.pkl", pickle.data, pickle.n);
    add_record(&made, "a/data/0", one, sizeof one);
    end_archive(&made);
    spend(what, made.file.data, made.file.n);
}

static void repeat(const char *what, const char *piece, size_t n) {
    while (pickle.n < MUCH) put(&pickle, piece, n);
    spend_pickle(what);
}
#define REPEAT(what, literal) repeat(what, literal, sizeof(literal) - 1)

static void pickles_of_one_operation(void) {
    begin(), REPEAT("nothing but dictionaries", "}");
    begin(), REPEAT("nothing but marks", "(");
    begin(), REPEAT("lists in lists", "]");
    begin(), PUT(&pickle, "N"), REPEAT("the memo", "\x94");
    begin(), PUT(&pickle, "(N"), REPEAT("copies of one value", "2");
    begin(), PUT(&pickle, "]q\0(N"), REPEAT("a long list", "22222222e(N");
    begin(), PUT(&pickle, "("), REPEAT("small numbers", "K\1");
    begin(), REPEAT("empty texts", "X\0\0\0\0");
    begin(), REPEAT("pairs of pairs", "NN\x86");
}

/* 33 kB of this took 400 MB. */
static void dictionaries_of_one_list_again_and_again(void) {
    begin();
    PUT(&pickle, "](");
    for (int i = 0; i < 20000; i++) PUT(&pickle, "NN\x86");
    PUT(&pickle, "eq\0ccollections\nOrderedDict\nq\1");
    REPEAT("one list, many dictionaries", "h\1h\0\x85R");
}

static void names_put_together_from_texts(void) {
    static char name[501];
    memset(name, 'n', sizeof name - 1);
    begin();
    put_text(&pickle, name);
    PUT(&pickle, "q\0");
    REPEAT("names of two texts each", "h\0h\0\x93");
}

/* Every key has its length looked at; all of them are one text. */
static void long_keys_again_and_again(void) {
    static char key[200001];
    memset(key, 'k', sizeof key - 1);
    begin();
    put_text(&pickle, key);
    PUT(&pickle, "q\0cx\ny\nq\1}(");
    for (int i = 0; i < 100000; i++) PUT(&pickle, "h\0h\1");
    put_text(&pickle, "w");
    put_tensor(&pickle, "0", 4);
    PUT(&pickle, "u");
    spend_pickle("one long key for many values");
    pickle.n = 0; /* the older container, which sorts them */
    PUT(&pickle, "\x80\2\x8a\nl\xfc\x9c"
                 "F\xf9 j\xa8P\x19.\x80\2M\xe9\3.\x80\2}.\x80\2");
    put_text(&pickle, key);
    PUT(&pickle, "q\0ctorch\nFloatStorage\nq\1");
    put_text(&pickle, "storage");
    PUT(&pickle, "q\2(h\2h\1h\0h\2K\1tq\3]q\4(");
    for (int i = 0; i < 100000; i++) PUT(&pickle, "h\3Q");
    PUT(&pickle, "e.\x80\2].");
    spend("one long key for many storages", pickle.data, pickle.n);
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* "prefix7": the arguments of one tensor, in the memo, for many names. */
static void begin_shared(int64_t rows) {
    view v = {0, 2, {rows, 1}, {0, 1}};
    begin();
    put_view(&pickle, "0", 4, &v);
    PUT(&pickle, "q\0}(");
}

static void tensors_that_share_one_storage(void) {
    begin_shared(1);
    for (int i = 0; pickle.n < MUCH; i++) {
        char name[16];
        snprintf(name, sizeof name, "%x", i);
        put_text(&pickle, name);
        PUT(&pickle, "h\0");
    }
    PUT(&pickle, "u");
    spend_pickle("many tensors of one storage");
    begin_shared(MUCH / 2);
    for (int i = 0; pickle.n < MUCH; i++) {
        char name[80];
        snprintf(name, sizeof name, "backbone.layer1.%d.conv1.weight", i);
        put_text(&pickle, name);
        PUT(&pickle, "h\0");
    }
    PUT(&pickle, "u");
    spend_pickle("and each as large as the file");
}

static void tensors_of_one_long_name(void) {
    static char name[512];
    memset(name, 'n', sizeof name - 1);
    begin_shared(1);
    put_text(&pickle, name);
    PUT(&pickle, "q\1h\0");
    for (int i = 0; i < 60000; i++) PUT(&pickle, "h\1h\0");
    PUT(&pickle, "u");
    spend_pickle("one name for many tensors");
}

/* A whole network, every parameter of which is one value at stride 0. */
static void a_large_network_of_one_value(void) {
    gfl_context *context = test_context(1);
    gfl_arch arch;
    gfl_model table;
    CHECK_OK(context, gfl_arch_find_preset(context, "r101", &arch));
    memset(&table, 0, sizeof table);
    table.context = context;
    table.arch = arch;
    CHECK_OK(context, gfli_model_describe(&table));
    begin();
    PUT(&pickle, "}(");
    for (int i = 0; i < table.n_params; i++) {
        view v = {0, table.params[i].rank, {0}, {0}};
        memcpy(v.shape, table.params[i].shape, sizeof table.params[i].shape);
        put_text(&pickle, table.params[i].name);
        put_view(&pickle, "0", 4, &v);
    }
    put_text(&pickle, "bbox_head.integral.project");
    put_tensor(&pickle, "0", 4);
    PUT(&pickle, "u");
    gfli_model_undescribe(&table);
    gfl_context_destroy(context);
    spend_pickle("ResNet-101 of one value");
}

/* ---- configurations -------------------------------------------------------------------------- */

static void spend_config(const char *what, const char *start, const char *piece) {
    static char text[MUCH];
    size_t n = (size_t)snprintf(text, sizeof text, "%s", start);
    while (n + strlen(piece) + 1 < sizeof text)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s", piece);
    begin_shared(1);
    put_text(&pickle, "meta");
    PUT(&pickle, "}");
    put_text(&pickle, "cfg");
    put_text(&pickle, text);
    PUT(&pickle, "s");
    put_text(&pickle, "a.b");
    PUT(&pickle, "h\0u");
    spend_pickle(what);
}

static void configurations_of_any_text(void) {
    spend_config("a configuration of numbers", "a = [", "1,");
    spend_config("of brackets", "a = ", "[");
    spend_config("of assignments", "", "a=a\n");
    spend_config("of inheritance", "a0=dict(b=1)\n", "a0=dict(**a0,**a0)\n");
    spend_config("of models", "", "model=dict(neck=dict())\n");
    spend_config("of steps of a pipeline", "t=[1]\ntest_pipeline=[", "dict(transforms=t),");
    spend_config("of strings", "classes=(", "'',");
}

/* ---- archives -------------------------------------------------------------------------------- */

static void archives_of_many_records(void) {
    memset(&made, 0, sizeof made);
    for (int i = 0; i < 6000; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        add_record(&made, name, "", 0);
    }
    end_archive(&made);
    spend("an archive of empty records", made.file.data, made.file.n);
}

/* ---- safetensors ----------------------------------------------------------------------------- */

static void spend_header(const char *what, const char *start, const char *piece, const char *end) {
    static char text[MUCH];
    size_t n = 8;
    n += (size_t)snprintf(text + n, sizeof text - n, "%s", start);
    for (int i = 0; n + 200 < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, piece, i);
    n += (size_t)snprintf(text + n, sizeof text - n, "%s", end);
    for (int i = 0; i < 8; i++) text[i] = (char)((n - 8) >> 8 * i);
    spend(what, text, n);
}

static void headers_of_any_text(void) {
    static const char nothing[] = "\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}";
    char piece[160], end[160];
    snprintf(piece, sizeof piece, "\"%%d%s,", nothing);
    snprintf(end, sizeof end, "\"x%s}", nothing);
    spend_header("many tensors of no values", "{", piece, end);
    spend_header("much metadata", "{\"__metadata__\":{", "\"%d\":\"\",", "\"a\":\"\"}}");
    snprintf(end, sizeof end, "x%s}", nothing);
    spend_header("a name in many wrappers", "{\"", "module.", end);
    spend_header("deep nesting", "{\"a\":", "[", "");
    spend_header("one long text", "{\"__metadata__\":{\"classes\":\"", "\\u00e4", "\"}}");
    static const uint8_t huge[9] = {0xFF, 0xFF, 0xFF, 5, 0, 0, 0, 0, '{'};
    spend("a header of 100 MB that is not there", huge, sizeof huge);
}

/* ---- no memory ------------------------------------------------------------------------------- */

typedef struct rationed {
    int left;
} rationed;

static void *rationed_alloc(void *user, size_t size) {
    return ((rationed *)user)->left-- > 0 ? malloc(size) : NULL;
}

static void rationed_free(void *user, void *p) {
    (void)user;
    free(p);
}

/* A file that is read when there is memory: without it that is the reason, and nothing else. */
static void lack_of_memory_is_no_damage(void) {
    static const char config[] = "model = dict(backbone=dict(type='ResNet', depth=18))\n"
                                 "classes = ('a', 'b')\n"
                                 "img_norm_cfg = dict(mean=[1, 2, 3], std=[4, 5, 6])\n";
    gfl_status status = GFL_E_MEMORY;
    int n = 0;
    begin_shared(1);
    put_text(&pickle, "meta");
    PUT(&pickle, "}");
    put_text(&pickle, "cfg");
    put_text(&pickle, config);
    PUT(&pickle, "s");
    put_text(&pickle, "a.b");
    PUT(&pickle, "h\0u.");
    memset(&made, 0, sizeof made);
    add_record(&made, "a/data.pkl", pickle.data, pickle.n);
    add_record(&made, "a/data/0", "0123456789abcdef", 16);
    end_archive(&made);
    write_scratch(made.file.data, made.file.n);
    for (; status == GFL_E_MEMORY && n < 1000; n++) {
        rationed r = {1000000};
        gfl_context_desc desc;
        gfl_context *context;
        gfl_model *model = NULL;
        memset(&desc, 0, sizeof desc);
        desc.n_threads = 1;
        desc.allocator.alloc = rationed_alloc;
        desc.allocator.free = rationed_free;
        desc.allocator.user = &r;
        CHECK(gfl_context_create(&desc, &context) == GFL_OK);
        r.left = n;
        status = gfl_model_import(context, scratch(), NULL, &model);
        gfl_context_destroy(context);
    }
    CHECK(status == GFL_E_MISMATCH && n > 20); /* it is no detector */
    remove(scratch());
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(pickles_of_one_operation),       TEST(dictionaries_of_one_list_again_and_again),
        TEST(names_put_together_from_texts),  TEST(long_keys_again_and_again),
        TEST(tensors_that_share_one_storage), TEST(tensors_of_one_long_name),
        TEST(a_large_network_of_one_value),   TEST(configurations_of_any_text),
        TEST(archives_of_many_records),       TEST(headers_of_any_text),
        TEST(lack_of_memory_is_no_damage),    {0}};
    return test_main(argc, argv, cases);
}
