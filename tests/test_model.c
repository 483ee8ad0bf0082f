/* test_model.c - fresh weights, folding, files there and back, and files that must be refused */
#include "data.h"
#include "fixture.h"
#include <unistd.h>

static gfl_context *context;
static const gfl_arch narrow = {18, 1, 0, 4, 32, 32, 1, 2, 7, GFL_DIALECT_MMDET, 0, 0, 0};

/* A file of this process, since the same test may run twice at once. */
static const char *scratch(const char *name) {
    static char paths[8][128];
    char wanted_path[128];
    snprintf(wanted_path, sizeof wanted_path, "test_model_%ld_%s.safetensors", (long)getpid(),
             name);
    int i = 0;
    while (paths[i][0] && strcmp(paths[i], wanted_path) != 0) i++;
    memcpy(paths[i], wanted_path, sizeof wanted_path);
    return paths[i];
}

static gfl_model *make(int trainable, uint64_t seed) {
    static const gfl_class classes[2] = {{"red \"blood\" cell", 3},
                                         {"wei\xc3\x9f, gro\xc3\x9f", 70}};
    gfl_model_desc desc;
    gfl_model *model = NULL;
    memset(&desc, 0, sizeof desc);
    desc.trainable = trainable;
    desc.arch = narrow;
    desc.preprocess.mean[0] = 103.53f, desc.preprocess.mean[1] = 116.28f;
    desc.preprocess.mean[2] = 123.675f;
    desc.preprocess.std[0] = desc.preprocess.std[1] = 1, desc.preprocess.std[2] = 0.1f;
    desc.preprocess.bgr = 1;
    desc.preprocess.scale_long = 320, desc.preprocess.scale_short = 240;
    desc.classes = classes;
    desc.seed = seed;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    return model;
}

static const float *values(const gfl_model *model, const char *name, size_t *count) {
    int at = gfli_model_find(model, name);
    CHECK(at >= 0);
    *count = model->params[at < 0 ? 0 : at].count;
    return model->params[at < 0 ? 0 : at].data;
}

static bool same_weights(const gfl_model *a, const gfl_model *b) {
    if (a->n_params != b->n_params) return false;
    for (int i = 0; i < a->n_params; i++)
        if (memcmp(a->params[i].data, b->params[i].data, a->params[i].count * 4) != 0) return false;
    return true;
}

/* ---- fresh weights --------------------------------------------------------------------------- */

static void a_seed_decides_the_weights(void) {
    gfl_model *a = make(1, 7), *b = make(1, 7), *c = make(1, 8);
    CHECK(same_weights(a, b));
    CHECK(!same_weights(a, c));
    gfl_model_destroy(a);
    gfl_model_destroy(b);
    gfl_model_destroy(c);
}

static double spread(const gfl_model *model, const char *name, double *mean) {
    size_t n;
    const float *x = values(model, name, &n);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i], squares += (double)x[i] * (double)x[i];
    *mean = sum / (double)n;
    return sqrt(squares / (double)n - *mean * *mean);
}

static void check_constant(const gfl_model *model, const char *name, double want) {
    size_t n;
    const float *x = values(model, name, &n);
    for (size_t i = 0; i < n; i++) CHECK_NEAR((double)x[i], want, 1e-6);
}

static void weights_start_as_the_spec_says(void) {
    gfl_model *m = make(1, 1);
    double mean, s = spread(m, "backbone.layer4.0.conv2.weight", &mean);
    CHECK_NEAR(s, sqrt(2.0 / (32 * 9)), 0.03 * s);
    CHECK_NEAR(mean, 0, 0.03 * s);
    s = spread(m, "neck.fpn_convs.1.conv.weight", &mean); /* uniform: bound / sqrt(3) */
    CHECK_NEAR(s, sqrt(6.0 / (2 * 32 * 9)) / sqrt(3), 0.03 * s);
    s = spread(m, "bbox_head.reg_convs.0.conv.weight", &mean);
    CHECK_NEAR(s, 0.01, 0.0005);
    check_constant(m, "bbox_head.gfl_cls.bias", -4.59511985013459);
    check_constant(m, "bbox_head.gfl_reg.bias", 0);
    check_constant(m, "backbone.layer3.1.bn2.weight", 0);
    check_constant(m, "backbone.layer3.1.bn1.weight", 1);
    check_constant(m, "backbone.layer3.0.downsample.1.weight", 1);
    check_constant(m, "backbone.bn1.running_var", 1);
    check_constant(m, "bbox_head.cls_convs.0.gn.weight", 1);
    check_constant(m, "bbox_head.scales.3.scale", 1);
    gfl_model_destroy(m);
}

static void batch_norm_is_folded(void) {
    gfl_model *m = make(1, 1);
    fx_fill_model(m);
    const gfli_layer *l = &m->layers[1];
    CHECK(l->bn_gamma >= 0 && l->bias < 0);
    for (int o = 0; o < l->shape.out_c; o++) {
        double gamma = (double)m->params[l->bn_gamma].data[o];
        double a = gamma / sqrt((double)m->params[l->bn_var].data[o] + 1e-5);
        double b =
            (double)m->params[l->bn_beta].data[o] - a * (double)m->params[l->bn_mean].data[o];
        CHECK_NEAR((double)l->folded_scale[o], a, 1e-6);
        CHECK_NEAR((double)l->folded_bias[o], b, 1e-6);
    }
    gfl_model_destroy(m);
}

/* Sums, maxima and samples of C2 to C5 (float64, the fixtures' formula, input 1 x 3 x 64 x 96). */
static void check_stages(gfl_model_desc desc, const double want[4][6]) {
    gfl_model *m = NULL;
    gfli_plan plan;
    float *workspace, *stats;
    void *scratch;
    desc.trainable = 1;
    CHECK_OK(context, gfl_model_create(context, &desc, &m));
    fx_fill_model(m);
    CHECK_OK(context, gfli_plan_create(context, m, 1, 64, 96, true, &plan));
    CHECK_OK(context, gfli_alloc(context, plan.workspace_bytes, 1, "maps", &workspace));
    CHECK_OK(context, gfli_alloc(context, plan.stats_floats, 4, "stats", &stats));
    CHECK_OK(context, gfli_alloc(context, plan.scratch_bytes, 1, "scratch", &scratch));
    gfli_plan_bind(&plan, workspace);
    fx_fill_input("input", &plan.maps[plan.input].map);
    gfli_plan_forward(context, m, &plan, stats, scratch);
    int seen = 0;
    for (int i = 0; i < plan.n_slots; i++) {
        const gfli_slot *s = &plan.maps[i];
        if (!s->name || s->name[0] != 'C') continue;
        const double *w = want[s->name[1] - '2'];
        size_t n = gfli_map_count(&s->map), hw = (size_t)(s->map.h[0] * s->map.w[0]);
        double sum = 0, largest = 0;
        for (size_t k = 0; k < n; k++) {
            sum += (double)s->map.data[k];
            largest = fmax(largest, (double)s->map.data[k]);
        }
        CHECK_NEAR(sum, w[0], 1e-5 * w[0]);
        CHECK_NEAR(largest, w[1], 1e-5 * w[1]);
        for (size_t k = 0; k < 4; k++) { /* flat index in NCHW */
            size_t at = k * (n / 5) + 7, channel = at / hw, cell = at % hw;
            CHECK_NEAR((double)s->map.data[cell * (size_t)s->map.c + channel], w[2 + k],
                       1e-5 * w[1]);
        }
        seen++;
    }
    CHECK(seen == 4);
    gfli_plan_destroy(context, &plan);
    gfli_free(context, workspace);
    gfli_free(context, stats);
    gfli_free(context, scratch);
    gfl_model_destroy(m);
}

/* torchvision's ResNeXt-50 32x4d: no fixture has groups without deformable convolutions. */
static void grouped_bottlenecks_are_torchvisions(void) {
    static const double want[4][6] = {
        {294840.98157, 27.117162, 1.6229864, 0, 1.8373273, 3.8178316},
        {200307.27372, 50.166348, 0, 5.6696302, 5.7829623, 4.8274288},
        {183942.50741, 60.789491, 12.955241, 13.700464, 0.4778385, 17.420583},
        {94274.693809, 100.62345, 0, 13.105494, 48.636059, 18.860393}};
    gfl_model_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.arch.groups = 32;
    check_stages(desc, want);
}

/* torchvision's ResNet-50 with the stride of each stage moved from its first 3x3 to its first
 * 1x1. */
static void caffe_bottlenecks_stride_in_their_first_convolution(void) {
    static const double want[4][6] = {{232670.14357, 21.913244, 0, 0, 2.2266772, 1.336964},
                                      {165560.74317, 39.07713, 0.24538139, 6.5328695, 0, 1.4167625},
                                      {153466.42977, 55.020231, 12.170886, 0, 9.3626278, 10.609233},
                                      {83042.188656, 79.458287, 0, 0, 0, 32.190442}};
    gfl_model_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.arch.style = GFL_STYLE_CAFFE;
    check_stages(desc, want);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void saved_weights_come_back_bit_for_bit(void) {
    const char *path = scratch("whole");
    gfl_model *a = make(1, 3), *b = NULL;
    gfl_load_desc opts = {1, 0};
    gfl_model_info info;
    fx_fill_model(a);
    CHECK_OK(context, gfl_model_save(a, path));
    CHECK_OK(context, gfl_model_load(context, path, &opts, &b));
    if (!b) return;
    CHECK(same_weights(a, b));
    CHECK(memcmp(&a->arch, &b->arch, sizeof a->arch) == 0);
    CHECK(memcmp(&a->preprocess, &b->preprocess, sizeof a->preprocess) == 0);
    gfl_model_get_info(b, &info);
    CHECK(strcmp(info.classes[0].name, "red \"blood\" cell") == 0 && info.classes[0].id == 3);
    CHECK(strcmp(info.classes[1].name, "wei\xc3\x9f, gro\xc3\x9f") == 0 &&
          info.classes[1].id == 70);
    gfl_tensor_report r;
    int n = 0;
    for (; gfl_model_get_report(b, n, &r) == GFL_OK; n++)
        CHECK(r.fate == GFL_FATE_LOADED && r.why[0] == 0);
    CHECK(gfl_model_count_reports(b) == n && gfl_model_count_reports(NULL) == 0);
    CHECK(n == b->n_params && gfl_model_get_report(b, -1, &r) == GFL_E_ARG &&
          gfl_model_get_report(a, 0, &r) == GFL_E_ARG);
    gfl_model_destroy(a);
    gfl_model_destroy(b);
    remove(path);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The hash is Python's hashlib's, of the tensors' bytes in the file in the order of their names. */
static void weights_of_version_0_1_0_load_with_the_same_bits(void) {
    static float all[1 << 16];
    const char *names[200];
    gfl_model *m = NULL;
    gfl_model_info info;
    gfl_load_desc opts = {1, GFL_DIALECT_DEFAULT};
    size_t n = 0;
    char hash[65];
    CHECK_OK(context,
             gfl_model_load(context, data_path("version_0.1.0/run/last.safetensors"), &opts, &m));
    CHECK(m && m->n_params == 131);
    for (int i = 0; i < m->n_params; i++) names[i] = m->params[i].name;
    qsort(names, (size_t)m->n_params, sizeof *names, by_name);
    for (int i = 0; i < m->n_params; i++) {
        const size_t count = m->params[gfli_model_find(m, names[i])].count;
        CHECK_OK(context, gfl_model_get_parameter(m, names[i], all + n, count));
        n += count;
    }
    data_sha256((const uint8_t *)all, n * sizeof *all, hash);
    CHECK(!strcmp(hash, "8efdf0d1d7bdd60d775075d56fccc80cf5ad63aac79032e3b80a6da40550fb04"));
    gfl_model_get_info(m, &info);
    CHECK(info.preprocess.scale_long == 96 && info.preprocess.std[2] == 57.375f);
    CHECK(!strcmp(info.classes[3].name, "star") && info.classes[3].id == 4);
    CHECK(info.origins.scale == GFL_ORIGIN_FILE && info.origins.preprocess == GFL_ORIGIN_FILE);
    gfl_model_destroy(m);
}

static uint8_t *read_file(const char *path, size_t *size) {
    uint8_t *bytes = NULL, *copy;
    CHECK_OK(context, gfli_file_read(context, path, (size_t)1 << 30, &bytes, size));
    copy = (uint8_t *)malloc(*size); /* exactly as large, so that a sanitizer sees an overrun */
    memcpy(copy, bytes, *size);
    gfli_free(context, bytes);
    return copy;
}

static void a_model_that_only_detects_releases_its_sources(void) {
    const char *path = scratch("lean");
    gfl_model *a = make(1, 3), *b = NULL, *c = NULL;
    size_t size;
    CHECK_OK(context, gfl_model_save(a, path));
    CHECK_OK(context, gfl_model_load(context, path, NULL, &b));
    uint8_t *bytes = read_file(path, &size);
    CHECK_OK(context, gfl_model_load_memory(context, bytes, size, NULL, &c));
    if (!b || !c) return;
    for (int i = 0; i < b->n_params; i++) {
        const char *name = b->params[i].name;
        bool biased = strncmp(name, "backbone.", 9) != 0 && strstr(name, ".bias");
        bool kept = strstr(name, ".gn.") || strstr(name, ".scale") || biased;
        CHECK((b->params[i].data != NULL) == kept);
    }
    for (int i = 0; i < b->n_layers; i++) {
        size_t n = b->backend->infer.conv_packed_size(b->context, &b->layers[i].shape);
        CHECK(memcmp(a->layers[i].packing, b->layers[i].packing, n) == 0);
        CHECK(memcmp(a->layers[i].packing, c->layers[i].packing, n) == 0);
        CHECK(b->layers[i].folded_scale == NULL);
    }
    CHECK_ERROR(context, gfl_model_save(b, path), GFL_E_ARG, "trainable");
    CHECK_ERROR(context, gfl_model_load_backbone(b, path), GFL_E_ARG, "trainable");
    free(bytes);
    gfl_model_destroy(a);
    gfl_model_destroy(b);
    gfl_model_destroy(c);
    remove(path);
}

/* How a copy of a weight file differs from it. */
typedef struct edit {
    const char *drop, *keep_only; /* tensors whose name contains / begins with this */
    const char *strip;            /* taken off the front of names */
    const char *poison;           /* tensor whose element 1 becomes value */
    float value;
    const char *reshape;    /* tensor that gets a first dimension twice as large */
    const char *add;        /* a tensor of four zeros */
    const char *key, *meta; /* metadata; meta NULL: without that key */
    const char *key2, *meta2;
} edit;

static bool wanted(const edit *e, const char *name) {
    if (e->drop && strstr(name, e->drop)) return false;
    return !e->keep_only || strncmp(name, e->keep_only, strlen(e->keep_only)) == 0;
}

static const char *renamed(const edit *e, const char *name) {
    size_t n = e->strip ? strlen(e->strip) : 0;
    return n && strncmp(name, e->strip, n) == 0 ? name + n : name;
}

static void edit_file(const char *from, const char *to, const edit *e) {
    gfli_blob blob;
    gfli_blob_writer *w = NULL;
    const int64_t four[1] = {4};
    const float zeros[4] = {0, 0, 0, 0};
    CHECK_OK(context, gfli_blob_open(context, from, &blob));
    CHECK_OK(context, gfli_blob_create(context, gfli_to_file(to), &w));
    for (int i = 0; i < blob.n_meta; i++) {
        const char *key = blob.meta[2 * i];
        if ((e->key && !strcmp(key, e->key)) || (e->key2 && !strcmp(key, e->key2))) continue;
        CHECK_OK(context, gfli_blob_put_meta(w, key, blob.meta[2 * i + 1]));
    }
    if (e->key && e->meta) CHECK_OK(context, gfli_blob_put_meta(w, e->key, e->meta));
    if (e->key2 && e->meta2) CHECK_OK(context, gfli_blob_put_meta(w, e->key2, e->meta2));
    for (int i = 0; i < blob.n_tensors; i++) {
        gfli_tensor t = blob.tensors[i];
        if (!wanted(e, t.name)) continue;
        if (e->reshape && !strcmp(t.name, e->reshape)) t.shape[0] *= 2;
        CHECK_OK(context, gfli_blob_declare(w, renamed(e, t.name), GFLI_F32, t.rank, t.shape));
    }
    if (e->add) CHECK_OK(context, gfli_blob_declare(w, e->add, GFLI_F32, 1, four));
    for (int i = 0; i < blob.n_tensors; i++) {
        const gfli_tensor *t = &blob.tensors[i];
        if (!wanted(e, t->name)) continue;
        float *data = (float *)calloc(2 * t->count, sizeof *data);
        size_t count = e->reshape && !strcmp(t->name, e->reshape) ? 2 * t->count : t->count;
        CHECK_OK(context, gfli_blob_read_f32(&blob, t, data));
        if (e->poison && !strcmp(t->name, e->poison)) data[1] = e->value;
        CHECK_OK(context, gfli_blob_write(w, data, count * 4));
        free(data);
    }
    if (e->add) CHECK_OK(context, gfli_blob_write(w, zeros, sizeof zeros));
    CHECK_OK(context, gfli_blob_finish(w));
    gfli_blob_close(&blob);
}

static const char *base_file(void) {
    const char *path = scratch("base");
    gfl_model *m = make(1, 5);
    CHECK_OK(context, gfl_model_save(m, path));
    gfl_model_destroy(m);
    return path;
}

static void refuse(const char *base, edit e, gfl_status status, const char *text) {
    const char *path = scratch("edited");
    gfl_model *model = (gfl_model *)&e;
    edit_file(base, path, &e);
    CHECK_ERROR(context, gfl_model_load(context, path, NULL, &model), status, text);
    CHECK(model == NULL);
    CHECK(strstr(gfl_context_get_error(context), path) != NULL);
    remove(path);
}

static void files_that_do_not_fit_are_refused(void) {
    const char *base = base_file();
    edit none, e;
    memset(&none, 0, sizeof none);
    e = none, e.drop = "layer2.1.bn1.running_var";
    refuse(base, e, GFL_E_MISMATCH, "backbone.layer2.1.bn1.running_var is missing");
    e = none, e.drop = "bbox_head.gfl_reg";
    refuse(base, e, GFL_E_MISMATCH, "bbox_head.gfl_reg.weight is missing");
    e = none, e.drop = "neck.fpn_convs.3";
    refuse(base, e, GFL_E_MISMATCH, "and 1 more");
    e = none, e.drop = "layer4";
    refuse(base, e, GFL_E_MISMATCH, "backbone.layer4.0.conv1.weight is missing");
    e = none, e.drop = "layer3.1.";
    refuse(base, e, GFL_E_UNSUPPORTED, "2, 2, 1 and 2 basic blocks");
    e = none, e.strip = "backbone.", e.keep_only = "backbone.";
    refuse(base, e, GFL_E_MISMATCH, "gfl_model_load_backbone");
    e = none, e.keep_only = "neck.";
    refuse(base, e, GFL_E_MISMATCH, "backbone.conv1.weight is missing");
    e = none, e.reshape = "neck.lateral_convs.1.conv.weight";
    refuse(base, e, GFL_E_MISMATCH, "(64, 16, 1, 1)");
    e = none, e.reshape = "bbox_head.scales.1.scale";
    e.reshape = "backbone.layer1.0.bn1.bias";
    refuse(base, e, GFL_E_MISMATCH, "needs (4)");
    e = none, e.poison = "backbone.layer3.0.conv1.weight", e.value = NAN;
    refuse(base, e, GFL_E_FORMAT, "backbone.layer3.0.conv1.weight: element 1 is NaN");
    e = none, e.poison = "bbox_head.cls_convs.0.gn.bias", e.value = INFINITY;
    refuse(base, e, GFL_E_FORMAT, "bbox_head.cls_convs.0.gn.bias: element 1 is infinite");
    e = none, e.poison = "backbone.bn1.running_var", e.value = -1;
    refuse(base, e, GFL_E_FORMAT, "variance");
    e = none, e.add = "bbox_head.reg_conf.0.weight";
    refuse(base, e, GFL_E_UNSUPPORTED,
           "GFLv2, another detector, is not supported (the tensor bbox_head.reg_conf.0.weight)");
    e = none, e.add = "backbone.layer3.0.conv2.conv_offset.bias";
    refuse(base, e, GFL_E_MISMATCH, "backbone.layer3.0.conv2.conv_offset.bias (4) has no place");
    e = none, e.add = "bbox_head.distribution_project.project";
    refuse(base, e, GFL_E_MISMATCH, "gfocal");
    remove(base);
}

static void metadata_that_contradicts_is_refused(void) {
    static const struct {
        const char *key, *value;
        gfl_status status;
        const char *text;
    } table[] = {
        {"dialect", "yolo", GFL_E_FORMAT, "yolo"},
        {"dialect", NULL, GFL_E_MISMATCH, "which dialect"},
        {"gfl_format", "2", GFL_E_UNSUPPORTED, "gfl_format"},
        {"architecture", "GFL R50", GFL_E_MISMATCH, "GFL R50"},
        {"style", "caffe", GFL_E_MISMATCH, "caffe"},
        {"style", "tensorflow", GFL_E_FORMAT, "tensorflow"},
        {"classes", "[\"one\"]", GFL_E_MISMATCH, "classes"},
        {"classes", "one,two,three", GFL_E_MISMATCH, "classes"},
        {"classes", "[\"one\", 2]", GFL_E_FORMAT, "classes"},
        {"classes", "[\"one\", \"two\"", GFL_E_FORMAT, "classes"},
        {"classes", "[\"o\\u0000ne\", \"two\"]", GFL_E_FORMAT, "classes"},
        {"class_ids", "[7, 7]", GFL_E_FORMAT, "class_ids"},
        {"class_ids", "[7]", GFL_E_MISMATCH, "class_ids"},
        {"class_ids", "[1, 2.5]", GFL_E_FORMAT, "class_ids"},
        {"mean", NULL, GFL_E_FORMAT, "mean or std"},
        {"mean", "1,2", GFL_E_FORMAT, "3 numbers"},
        {"mean", "1,2,three", GFL_E_FORMAT, "3 numbers"},
        {"mean", "1,2,3,4", GFL_E_FORMAT, "3 numbers"},
        {"mean", "[1,2,3,\"4\"]", GFL_E_FORMAT, "3 numbers"},
        {"mean", "[1,2,3] 4", GFL_E_FORMAT, "3 numbers"},
        {"std", "1,0,1", GFL_E_FORMAT, "positive"},
        {"channel_order", "GBR", GFL_E_FORMAT, "GBR"},
        {"scale", "1333x0", GFL_E_FORMAT, "scale"},
        {"scale", "99999x800", GFL_E_FORMAT, "scale"},
        {"scale", "large", GFL_E_FORMAT, "scale"},
    };
    const char *base = base_file();
    for (size_t i = 0; i < GFLI_COUNT(table); i++) {
        edit e;
        memset(&e, 0, sizeof e);
        e.key = table[i].key, e.meta = table[i].value;
        refuse(base, e, table[i].status, table[i].text);
    }
    remove(base);
}

static gfl_model *load_edited(const char *base, edit e, int assume_mmdet) {
    const char *path = scratch("edited");
    gfl_load_desc opts = {0, (gfl_dialect)assume_mmdet};
    gfl_model *model = NULL;
    edit_file(base, path, &e);
    CHECK_OK(context, gfl_model_load(context, path, &opts, &model));
    remove(path);
    return model;
}

static void older_files_and_strangers_are_accepted(void) {
    const char *base = base_file();
    edit none, e;
    memset(&none, 0, sizeof none);
    e = none, e.key = "classes", e.meta = "RBC,WBC", e.key2 = "class_ids";
    gfl_model *m = load_edited(base, e, 0);
    CHECK(m && !strcmp(m->classes[1].name, "WBC") && m->classes[1].id == 2);
    gfl_model_destroy(m);
    e = none, e.key = "classes", e.key2 = "scale", e.meta2 = "[640, 1000]";
    m = load_edited(base, e, 0);
    CHECK(m && !strcmp(m->classes[1].name, "class 1") && m->preprocess.scale_long == 1000);
    gfl_model_destroy(m);
    e = none, e.key = "dialect";
    m = load_edited(base, e, 1);
    CHECK(m != NULL);
    gfl_model_destroy(m);
    e = none, e.key = "dialect", e.add = "bbox_head.integral.project";
    m = load_edited(base, e, 0);
    CHECK(m != NULL);
    gfl_model_destroy(m);
    e = none, e.add = "ema.decay";
    m = load_edited(base, e, 0);
    gfl_tensor_report r;
    int left = 0;
    for (int i = 0; gfl_model_get_report(m, i, &r) == GFL_OK; i++)
        if (r.fate == GFL_FATE_LEFT_OVER) left += !strcmp(r.name, "ema.decay") && r.why[0];
    CHECK(left == 1);
    gfl_model_destroy(m);
    e = none, e.add = "backbone.bn1.num_batches_tracked";
    m = load_edited(base, e, 0);
    for (int i = 0; gfl_model_get_report(m, i, &r) == GFL_OK; i++) CHECK(r.fate == GFL_FATE_LOADED);
    gfl_model_destroy(m);
    remove(base);
}

static void damaged_bytes_never_do_more_than_fail(void) {
    const char *base = base_file();
    size_t size;
    gfl_model *model = NULL;
    uint8_t *bytes = read_file(base, &size);
    uint64_t header = 0;
    memcpy(&header, bytes, 8);
    for (size_t cut = 0; cut < size; cut = cut < 40 ? cut + 1 : cut * 2) {
        uint8_t *part = (uint8_t *)malloc(cut + 1);
        memcpy(part, bytes, cut);
        CHECK(gfl_model_load_memory(context, part, cut, NULL, &model) == GFL_E_FORMAT);
        CHECK(model == NULL);
        free(part);
    }
    int refused = 0, n = 0;
    for (size_t at = 0; at < header + 8; at += 83, n++) {
        uint8_t before = bytes[at];
        bytes[at] = (uint8_t)(before ^ (1 << (at % 7)));
        refused += gfl_model_load_memory(context, bytes, size, NULL, &model) != GFL_OK;
        gfl_model_destroy(model);
        bytes[at] = before;
    }
    printf("%d of %d damaged headers refused\n", refused, n);
    CHECK(refused > n / 2);
    CHECK_OK(context, gfl_model_load_memory(context, bytes, size, NULL, &model));
    gfl_model_destroy(model);
    free(bytes);
    remove(base);
}

static void nulls_are_refused(void) {
    gfl_model *m = NULL;
    CHECK(gfl_model_load(NULL, "x", NULL, &m) == GFL_E_ARG);
    CHECK_ERROR(context, gfl_model_load(context, NULL, NULL, &m), GFL_E_ARG, "path");
    CHECK_ERROR(context, gfl_model_load(context, "x", NULL, NULL), GFL_E_ARG, "out");
    CHECK_ERROR(context, gfl_model_load_memory(context, NULL, 1, NULL, &m), GFL_E_ARG, "bytes");
    CHECK_ERROR(context, gfl_model_load(context, "no/such/file", NULL, &m), GFL_E_IO, "no/such");
    CHECK_ERROR(context, gfl_model_create(context, NULL, NULL), GFL_E_ARG, "out");
    CHECK(gfl_model_load_backbone(NULL, "x") == GFL_E_ARG);
    CHECK(gfl_model_save(NULL, "x") == GFL_E_ARG);
    gfl_model_destroy(NULL);
}

/* ---- backbones ------------------------------------------------------------------------------- */

static void check_backbone(const gfl_model *from, const gfl_model *got, const gfl_model *fresh) {
    for (int i = 0; i < got->n_params; i++) {
        const gfli_param *p = &got->params[i];
        bool loaded = !strncmp(p->name, "backbone.", 9) && p->stage < 4;
        const gfl_model *like = loaded ? from : fresh;
        CHECK(memcmp(p->data, like->params[i].data, p->count * 4) == 0);
        CHECK(p->loaded == loaded);
    }
}

static void count_fates(const gfl_model *m, int counts[3]) {
    gfl_tensor_report r;
    counts[0] = counts[1] = counts[2] = 0;
    for (int i = 0; gfl_model_get_report(m, i, &r) == GFL_OK; i++) {
        counts[r.fate]++;
        CHECK((r.fate == GFL_FATE_LOADED) == (r.why[0] == 0));
        if (r.fate == GFL_FATE_INITIALISED) CHECK(strstr(r.name, "backbone.layer4.") != NULL);
    }
}

static void a_backbone_without_its_last_stage_is_completed(void) {
    const char *base = scratch("base"), *path = scratch("backbone");
    gfl_model *from = make(1, 5), *fresh = make(1, 6), *got = make(1, 6);
    edit e;
    int counts[3];
    memset(&e, 0, sizeof e);
    fx_fill_model(from);
    CHECK_OK(context, gfl_model_save(from, base));
    e.keep_only = "backbone.", e.strip = "backbone.", e.drop = "layer4", e.add = "fc.weight";
    e.key = "architecture", e.key2 = "channel_order";
    edit_file(base, path, &e);
    CHECK_OK(context, gfl_model_load_backbone(got, path));
    check_backbone(from, got, fresh);
    CHECK(memcmp(got->layers[0].packing, from->layers[0].packing,
                 got->backend->infer.conv_packed_size(got->context, &got->layers[0].shape)) == 0);
    count_fates(got, counts);
    CHECK(counts[GFL_FATE_LOADED] == 75 && counts[GFL_FATE_INITIALISED] == 25);
    CHECK(counts[GFL_FATE_LEFT_OVER] == 1);
    size_t n;
    const float *gamma = values(got, "backbone.layer4.1.bn2.weight", &n);
    CHECK(gamma[0] == 0 && gamma[n - 1] == 0);
    /* a whole detector serves as well, its stage 4 included */
    CHECK_OK(context, gfl_model_load_backbone(got, base));
    count_fates(got, counts);
    CHECK(counts[GFL_FATE_LOADED] == 100 && counts[GFL_FATE_INITIALISED] == 0);
    gfl_model_destroy(from);
    gfl_model_destroy(fresh);
    gfl_model_destroy(got);
    remove(base);
    remove(path);
}

static void refuse_backbone(const char *base, edit e, gfl_status status, const char *text) {
    const char *path = scratch("edited");
    gfl_model *got = make(1, 6), *fresh = make(1, 6);
    edit_file(base, path, &e);
    CHECK_ERROR(context, gfl_model_load_backbone(got, path), status, text);
    CHECK(same_weights(got, fresh));
    gfl_model_destroy(got);
    gfl_model_destroy(fresh);
    remove(path);
}

static void a_backbone_of_another_kind_is_refused(void) {
    const char *base = base_file();
    edit none, e;
    memset(&none, 0, sizeof none);
    e = none, e.key = "style", e.meta = "torch";
    refuse_backbone(base, e, GFL_E_FORMAT, "torch");
    e = none, e.key = "arch", e.meta = "resnet50";
    refuse_backbone(base, e, GFL_E_MISMATCH, "resnet50");
    e = none, e.key = "mean", e.meta = "1,2,3";
    refuse_backbone(base, e, GFL_E_MISMATCH, "mean 1, 2, 3");
    e = none, e.key = "input", e.meta = "RGB";
    refuse_backbone(base, e, GFL_E_MISMATCH, "expects RGB");
    e = none, e.keep_only = "neck.";
    refuse_backbone(base, e, GFL_E_MISMATCH, "none of its");
    e = none, e.poison = "backbone.layer4.1.conv2.weight", e.value = NAN;
    refuse_backbone(base, e, GFL_E_FORMAT, "NaN");
    remove(base);
}

static void a_label_names_its_class(void) {
    gfl_model *m = make(0, 1);
    CHECK(!strcmp(gfl_model_get_class(m, 0)->name, "red \"blood\" cell"));
    CHECK(gfl_model_get_class(m, 0)->id == 3 && gfl_model_get_class(m, 1)->id == 70);
    const gfl_class *none[] = {gfl_model_get_class(m, -1), gfl_model_get_class(m, 2),
                               gfl_model_get_class(NULL, 0)};
    for (int i = 0; i < 3; i++) CHECK(none[i] && !strcmp(none[i]->name, "") && none[i]->id == 0);
    gfl_model_destroy(m);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(a_seed_decides_the_weights),
                                      TEST(weights_start_as_the_spec_says),
                                      TEST(batch_norm_is_folded),
                                      TEST(grouped_bottlenecks_are_torchvisions),
                                      TEST(caffe_bottlenecks_stride_in_their_first_convolution),
                                      TEST(saved_weights_come_back_bit_for_bit),
                                      TEST(weights_of_version_0_1_0_load_with_the_same_bits),
                                      TEST(a_model_that_only_detects_releases_its_sources),
                                      TEST(files_that_do_not_fit_are_refused),
                                      TEST(metadata_that_contradicts_is_refused),
                                      TEST(older_files_and_strangers_are_accepted),
                                      TEST(damaged_bytes_never_do_more_than_fail),
                                      TEST(nulls_are_refused),
                                      TEST(a_label_names_its_class),
                                      TEST(a_backbone_without_its_last_stage_is_completed),
                                      TEST(a_backbone_of_another_kind_is_refused),
                                      {0}};
    context = test_context(1);
    int status = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return status;
}
