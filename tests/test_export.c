/* test_export.c - state dicts, checkpoints and graphs for other programs */
#include "data.h"
#include "fixture.h"
#include <unistd.h>

static gfl_context *context;

static const char *scratch(const char *name) {
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "test_export_%ld_%s", (long)getpid(), name);
    return path;
}

static gfl_model *make(const gfl_arch *arch, int trainable) {
    static const gfl_class classes[3] = {{"red \"cell\"", 3}, {"wei\xc3\x9f", 7}, {"c", 70}};
    gfl_model_desc desc;
    gfl_model *model = NULL;
    memset(&desc, 0, sizeof desc);
    desc.arch = *arch;
    desc.preprocess.bgr = 1;
    desc.classes = classes;
    desc.trainable = trainable;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    if (model && trainable) fx_fill_model(model);
    return model;
}

static gfl_arch narrow(int depth, int deform) {
    gfl_arch arch;
    memset(&arch, 0, sizeof arch);
    arch.depth = depth;
    arch.base_channels = 4;
    arch.fpn_channels = arch.head_channels = 32;
    arch.stacked_convs = 1;
    arch.n_classes = 3;
    arch.deform = deform;
    return arch;
}

/* ---- state dicts ----------------------------------------------------------------------------- */

/* From mmdetection 3.3's own state dict of this network. */
static const struct {
    const char *name;
    int dtype, rank, shape[4];
} official[] = {
    {"backbone.conv1.weight", GFLI_F32, 4, {4, 3, 7, 7}},
    {"backbone.bn1.running_var", GFLI_F32, 1, {4}},
    {"backbone.bn1.num_batches_tracked", GFLI_I64, 0, {0}},
    {"backbone.layer1.0.downsample.0.weight", GFLI_F32, 4, {16, 4, 1, 1}},
    {"backbone.layer1.0.downsample.1.num_batches_tracked", GFLI_I64, 0, {0}},
    {"backbone.layer2.0.conv2.weight", GFLI_F32, 4, {8, 8, 3, 3}},
    {"backbone.layer2.0.conv2.conv_offset.weight", GFLI_F32, 4, {27, 8, 3, 3}},
    {"backbone.layer2.0.conv2.conv_offset.bias", GFLI_F32, 1, {27}},
    {"backbone.layer4.2.bn3.num_batches_tracked", GFLI_I64, 0, {0}},
    {"neck.lateral_convs.2.conv.weight", GFLI_F32, 4, {32, 128, 1, 1}},
    {"neck.fpn_convs.4.conv.bias", GFLI_F32, 1, {32}},
    {"bbox_head.cls_convs.0.gn.weight", GFLI_F32, 1, {32}},
    {"bbox_head.gfl_reg.weight", GFLI_F32, 4, {68, 32, 3, 3}},
    {"bbox_head.scales.4.scale", GFLI_F32, 0, {0}},
    {"bbox_head.integral.project", GFLI_F32, 1, {17}},
};

/* Every key of mmdetection's state dict, with its shape, and the weights that were there. */
static void mmdetection_gets_its_names(void) {
    const gfl_arch arch = narrow(50, 2);
    gfl_model *model = make(&arch, 1);
    const char *path = scratch("mmdet.safetensors");
    gfli_blob blob;
    CHECK_OK(context, gfl_model_export(model, GFL_EXPORT_MMDET, NULL, path));
    CHECK_OK(context, gfli_blob_open(context, path, &blob));
    CHECK(blob.n_tensors == 376); /* as mmdetection counts */
    for (size_t i = 0; i < sizeof official / sizeof official[0]; i++) {
        const gfli_tensor *t = gfli_blob_find(&blob, official[i].name);
        CHECK(t && (int)t->dtype == official[i].dtype && t->rank == official[i].rank);
        for (int k = 0; t && k < t->rank; k++) CHECK(t->shape[k] == official[i].shape[k]);
    }
    for (int i = 0; i < blob.n_tensors; i++) {
        const gfli_tensor *t = &blob.tensors[i];
        float *got = (float *)calloc(t->count * 2, sizeof *got); /* or int64 */
        CHECK_OK(context, gfli_blob_read_raw(&blob, t, got));
        for (size_t k = 0; k < t->count; k++) {
            float want = t->dtype == GFLI_I64 ? 0 : fx_weight(t->name, t->rank, t->shape, 50, k);
            if (!strcmp(t->name, "bbox_head.integral.project")) want = (float)k;
            if (got[k] != want) {
                printf("%s[%zu] is %g, wanted %g\n", t->name, k, (double)got[k], (double)want);
                CHECK(got[k] == want);
                break;
            }
        }
        free(got);
    }
    gfli_blob_close(&blob);
    gfl_model_destroy(model);
    remove(path);
}

/* Whatever the sink, there is one writer. */
static void in_memory_are_the_bytes_of_the_file(void) {
    const gfl_arch arch = narrow(50, 2);
    gfl_model *model = make(&arch, 1), *packed = make(&arch, 0), *again = NULL;
    const char *path = scratch("twin");
    gfl_export_opts opts;
    gfl_bytes got;
    size_t size;
    memset(&opts, 0, sizeof opts);
    opts.decode = opts.pixels = 1;
    for (int format = 0; format <= GFL_EXPORT_ONNX; format++) { /* 0: the library's own */
        const gfl_export_format to = (gfl_export_format)format;
        CHECK_OK(context,
                 format ? gfl_model_export(model, to, &opts, path) : gfl_model_save(model, path));
        uint8_t *want = data_read(path, &size);
        CHECK_OK(context, format ? gfl_model_export_memory(model, to, &opts, &got)
                                 : gfl_model_save_memory(model, &got));
        CHECK(got.size == size && size > 100000 && !memcmp(got.data, want, size));
        free(want);
        if (!format)
            CHECK_OK(context, gfl_model_load_memory(context, got.data, size, NULL, &again));
        gfl_bytes_free(context, &got);
        CHECK(!got.data && !got.size);
        gfl_bytes_free(context, &got);
    }
    got.data = (uint8_t *)&got;
    CHECK_ERROR(context, gfl_model_save_memory(packed, &got), GFL_E_ARG, "trainable");
    CHECK(!got.data);
    CHECK_ERROR(context, gfl_model_export_memory(model, (gfl_export_format)9, NULL, &got),
                GFL_E_ARG, "format is 9");
    gfl_bytes_free(NULL, NULL);
    gfl_model_destroy(again);
    gfl_model_destroy(packed);
    gfl_model_destroy(model);
    remove(path);
}

/* ---- zip ------------------------------------------------------------------------------------- */

static uint32_t number(const uint8_t *p, int n) {
    uint32_t x = 0;
    for (int i = 0; i < n; i++) x |= (uint32_t)p[i] << (8 * i);
    return x;
}

static uint32_t crc(const uint8_t *p, size_t n) {
    uint32_t c = ~0u;
    for (; n > 0; n--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
    }
    return ~c;
}

typedef struct record {
    const uint8_t *data;
    size_t size;
} record;

/* A record by name, through the directory at the file's end; local header and sum are checked. */
static record zip_find(const uint8_t *zip, size_t size, const char *name) {
    record none = {NULL, 0};
    const uint8_t *end = zip + size - 22;
    CHECK(size > 22 && number(end, 4) == 0x06054b50);
    CHECK(number(end + 8, 2) == number(end + 10, 2));
    CHECK(number(end + 12, 4) + number(end + 16, 4) + 22 == size);
    const uint8_t *entry = zip + number(end + 16, 4);
    for (uint32_t i = 0; i < number(end + 10, 2); i++) {
        const uint32_t length = number(entry + 28, 2);
        const uint8_t *local = zip + number(entry + 42, 4);
        CHECK(number(entry, 4) == 0x02014b50 && number(entry + 10, 2) == 0);
        if (length == strlen(name) && !memcmp(entry + 46, name, length)) {
            record r = {local + 30 + length + number(local + 28, 2), number(entry + 24, 4)};
            CHECK(number(local, 4) == 0x04034b50 && number(entry + 20, 4) == r.size);
            CHECK(!memcmp(local + 6, entry + 8, 20) && number(local + 26, 2) == length);
            CHECK(!memcmp(local + 30, name, length));
            CHECK((size_t)(r.data - zip) % 64 == 0);
            CHECK(crc(r.data, r.size) == number(entry + 16, 4));
            return r;
        }
        entry += 46 + length + number(entry + 30, 2) + number(entry + 32, 2);
    }
    printf("no record %s\n", name);
    CHECK(name == NULL);
    return none;
}

static bool contains(record r, const char *text) {
    const size_t n = strlen(text);
    for (size_t i = 0; i + n <= r.size; i++)
        if (!memcmp(r.data + i, text, n)) return true;
    return false;
}

static void check_checkpoint(const gfl_model *model, const char *path) {
    size_t size;
    uint8_t *zip = data_read(path, &size);
    record pickle = zip_find(zip, size, "archive/data.pkl");
    record order = zip_find(zip, size, "archive/byteorder");
    record version = zip_find(zip, size, "archive/version");
    CHECK(order.size == 6 && !memcmp(order.data, "little", 6));
    CHECK(version.size == 2 && !memcmp(version.data, "3\n", 2));
    CHECK(pickle.size > 3 && pickle.data[0] == 0x80 && pickle.data[1] == 2);
    CHECK(pickle.data[pickle.size - 1] == '.');
    CHECK(contains(pickle, "red \"cell\"") && contains(pickle, "wei\xc3\x9f"));
    CHECK(contains(pickle, "dataset_meta") && contains(pickle, "CLASSES"));
    CHECK(contains(pickle, "bbox_head.integral.project"));
    for (int i = 0; i < model->n_params; i++) CHECK(contains(pickle, model->params[i].name));
    free(zip);
}

static void a_checkpoint_is_a_whole_zip_file(void) {
    const gfl_arch arch = narrow(18, 0);
    gfl_model *model = make(&arch, 1);
    const char *path = scratch("model.pth");
    CHECK_OK(context, gfl_model_export(model, GFL_EXPORT_PTH, NULL, path));
    check_checkpoint(model, path);
    gfl_model_destroy(model);
    remove(path);
}

/* Of the original's dialect: its one other key, and no file for mmdetection. */
static void the_originals_dialect_has_its_own_key(void) {
    const gfl_arch arch = narrow(18, 0);
    const char *path = scratch("gfocal.pth");
    size_t size;
    gfl_model *model = make(&arch, 1);
    model->arch.dialect = GFL_DIALECT_GFOCAL;
    CHECK_ERROR(context, gfl_model_export(model, GFL_EXPORT_MMDET, NULL, "x"), GFL_E_UNSUPPORTED,
                "gfocal");
    CHECK_OK(context, gfl_model_export(model, GFL_EXPORT_PTH, NULL, path));
    uint8_t *zip = data_read(path, &size);
    record pickle = zip_find(zip, size, "archive/data.pkl");
    CHECK(contains(pickle, "bbox_head.distribution_project.project"));
    CHECK(!contains(pickle, "integral"));
    free(zip);
    gfl_model_destroy(model);
    remove(path);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void errors_say_what_and_leave_nothing(void) {
    const gfl_arch arch = narrow(18, 0);
    gfl_model *model = make(&arch, 1), *packed = make(&arch, 0);
    CHECK(gfl_model_export(NULL, GFL_EXPORT_PTH, NULL, "x") == GFL_E_ARG);
    CHECK_ERROR(context, gfl_model_export(model, GFL_EXPORT_PTH, NULL, NULL), GFL_E_ARG, "path");
    CHECK_ERROR(context, gfl_model_export(packed, GFL_EXPORT_MMDET, NULL, "x"), GFL_E_ARG,
                "trainable");
    CHECK_ERROR(context, gfl_model_export(model, (gfl_export_format)9, NULL, "x"), GFL_E_ARG, "9");
    for (int f = GFL_EXPORT_MMDET; f <= GFL_EXPORT_ONNX; f++)
        CHECK_ERROR(context, gfl_model_export(model, (gfl_export_format)f, NULL, "no/such/folder"),
                    GFL_E_IO, "no/such/folder");
    CHECK(!data_exists("x"));
    gfl_model_destroy(packed);
    gfl_model_destroy(model);
}

/* Which format is swept. */
static gfl_export_format swept;

static gfl_status create_and_export(gfl_context *c) {
    gfl_model_desc desc;
    gfl_model *model = NULL;
    memset(&desc, 0, sizeof desc);
    desc.arch = narrow(18, 0);
    desc.trainable = 1;
    gfl_status status = gfl_model_create(c, &desc, &model);
    if (status == GFL_OK) status = gfl_model_export(model, swept, NULL, scratch("swept"));
    gfl_model_destroy(model);
    return status;
}

static void every_allocation_may_fail(void) {
    for (int f = GFL_EXPORT_MMDET; f <= GFL_EXPORT_ONNX; f++) {
        swept = (gfl_export_format)f;
        data_sweep(create_and_export);
        remove(scratch("swept"));
    }
}

/* Through our own reader of .pth: the file that gfl_model_save writes, to the byte. */
static void a_checkpoint_comes_back(void) {
    const gfl_arch arch = narrow(50, 2);
    gfl_model *model = make(&arch, 1), *back = NULL;
    gfl_import_desc opts;
    gfl_model_info info;
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    const char *path = scratch("back.pth");
    CHECK_OK(context, gfl_model_export(model, GFL_EXPORT_PTH, NULL, path));
    CHECK_OK(context, gfl_model_import(context, path, &opts, &back));
    gfl_model_get_info(back, &info);
    CHECK(back && back->n_params == model->n_params && info.arch.deform == 2);
    for (int i = 0; back && i < back->n_params; i++) {
        const gfli_param *a = &model->params[i], *b = &back->params[i];
        CHECK(!strcmp(a->name, b->name) && a->count == b->count);
        CHECK(memcmp(a->data, b->data, a->count * sizeof(float)) == 0);
    }
    CHECK(back && !strcmp(info.classes[1].name, "wei\xc3\x9f") && info.classes[2].id == 70);
    CHECK(info.preprocess.bgr == 1 && info.origins.preprocess == GFL_ORIGIN_FILE);
    gfl_model_destroy(back);
    gfl_model_destroy(model);
    remove(path);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(mmdetection_gets_its_names),
                                      TEST(in_memory_are_the_bytes_of_the_file),
                                      TEST(a_checkpoint_is_a_whole_zip_file),
                                      TEST(a_checkpoint_comes_back),
                                      TEST(the_originals_dialect_has_its_own_key),
                                      TEST(errors_say_what_and_leave_nothing),
                                      TEST(every_allocation_may_fail),
                                      {0}};
    context = test_context(2);
    int code = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return code;
}
