/* test_import.c - other people's names, architectures in shapes, classes that change hands */
#include "fixture.h"
#include <unistd.h>

static gfl_context *context;

/* A file of this process, since the same test may run twice at once. */
static const char *scratch(const char *name) {
    static char paths[8][128];
    char wanted[128];
    snprintf(wanted, sizeof wanted, "test_import_%ld_%s", (long)getpid(), name);
    int i = 0;
    while (paths[i][0] && strcmp(paths[i], wanted) != 0) i++;
    memcpy(paths[i], wanted, sizeof wanted);
    return paths[i];
}

static gfl_arch preset(const char *name) {
    gfl_arch arch;
    CHECK(gfl_arch_find_preset(NULL, name, &arch) == GFL_OK);
    return arch;
}

/* ---- lists of tensors without data ----------------------------------------------------------- */

/* A file that is nothing but names and shapes. */
typedef struct listing {
    gfli_weights w;
} listing;

static void list_tensor(listing *l, const char *name, int rank, const int64_t *shape) {
    gfli_blob *b = &l->w.blob;
    gfli_tensor *grown;
    CHECK_OK(context, gfli_alloc(context, (size_t)b->n_tensors + 1, sizeof *grown, "list", &grown));
    if (b->n_tensors) memcpy(grown, b->tensors, (size_t)b->n_tensors * sizeof *grown);
    gfli_free(context, b->tensors);
    b->tensors = grown;
    gfli_tensor *t = &grown[b->n_tensors++];
    memset(t, 0, sizeof *t);
    CHECK_OK(context, gfli_strdup(context, name, &t->name));
    t->rank = rank;
    t->count = 1;
    for (int i = 0; i < rank; i++) t->count *= (size_t)(t->shape[i] = shape[i]);
}

static void list_metadata(listing *l, const char *key, const char *value) {
    gfli_blob *b = &l->w.blob;
    CHECK_OK(context, gfli_alloc(context, 2, sizeof *b->meta, "metadata", &b->meta));
    CHECK_OK(context, gfli_strdup(context, key, &b->meta[0]));
    CHECK_OK(context, gfli_strdup(context, value, &b->meta[1]));
    b->n_meta = 1;
}

static listing open_listing(void) {
    listing l;
    memset(&l, 0, sizeof l);
    l.w.blob.context = context;
    l.w.blob.file = GFLI_NO_HANDLE;
    CHECK_OK(context, gfli_strdup(context, "listing", &l.w.blob.path));
    return l;
}

/* All tensors of a network as mmdetection saves them, with its counters and its constant. */
static listing list_network(const gfl_arch *arch) {
    static const gfl_preprocess standard;
    listing l = open_listing();
    gfl_model *m = NULL;
    const int64_t bins = arch->reg_max + 1;
    CHECK_OK(context, gfli_model_new(context, arch, &standard, NULL, false, &m));
    for (int i = 0; m && i < m->n_params; i++) {
        const gfli_param *p = &m->params[i];
        char counter[128];
        list_tensor(&l, p->name, p->rank, p->shape);
        if (!fx_ends(p->name, ".running_var")) continue;
        snprintf(counter, sizeof counter, "%.*snum_batches_tracked",
                 (int)(strlen(p->name) - strlen("running_var")), p->name);
        list_tensor(&l, counter, 0, NULL);
    }
    list_tensor(&l, "bbox_head.integral.project", 1, &bins);
    gfl_model_destroy(m);
    return l;
}

static gfli_tensor *listed(listing *l, const char *name) {
    for (int i = 0; i < l->w.blob.n_tensors; i++)
        if (!strcmp(l->w.blob.tensors[i].name, name)) return &l->w.blob.tensors[i];
    fx_die("not in the list", name);
    return NULL;
}

static void rename_tensor(listing *l, const char *from, const char *to) {
    gfli_tensor *t = listed(l, from);
    gfli_free(context, t->name);
    CHECK_OK(context, gfli_strdup(context, to, &t->name));
}

static gfl_status deduce(listing *l, gfl_arch *arch) {
    gfl_model_desc desc;
    gfl_origins origins;
    gfl_status status = gfli_weights_begin(context, &l->w);
    if (status == GFL_OK)
        status =
            gfli_describe_weights(&l->w, GFL_DIALECT_DEFAULT, GFL_STYLE_DEFAULT, &desc, &origins);
    if (status == GFL_OK) *arch = desc.arch;
    return status;
}

/* Counts from the published state dicts (spec 8.4): tensors, and parameters without statistics. */
static void every_preset_is_deduced_from_its_tensors(void) {
    static const struct {
        const char *name;
        int tensors;
        long parameters;
    } published[] = {{"r18", 170, 19420889},
                     {"r34", 266, 29529049},
                     {"r50", 368, 32440537},
                     {"r101", 674, 51432665},
                     {"r101-dcnv1", 734, 52718837},
                     {"r101-dcnv2", 734, 53361923},
                     {"x101-32x4d", 674, 51061209},
                     {"x101-32x8d", 674, 95674841},
                     {"x101-32x4d-dcnv1", 726, 53467053},
                     {"x101-32x4d-dcnv2", 734, 54918915},
                     {"x101-32x8d-dcnv2", 734, 103389443}};
    for (size_t i = 0; i < GFLI_COUNT(published); i++) {
        gfl_arch arch = preset(published[i].name), got;
        listing l = list_network(&arch);
        long parameters = 0;
        for (int k = 0; k < l.w.blob.n_tensors; k++) {
            const gfli_tensor *t = &l.w.blob.tensors[k];
            if (!strstr(t->name, "running_") && !strstr(t->name, "tracked") &&
                !strstr(t->name, "project"))
                parameters += (long)t->count;
        }
        CHECK(l.w.blob.n_tensors == published[i].tensors);
        CHECK(parameters == published[i].parameters);
        memset(&got, 0, sizeof got);
        CHECK_OK(context, deduce(&l, &got));
        CHECK(memcmp(&arch, &got, sizeof arch) == 0);
        gfli_weights_end(&l.w);
    }
}

static void any_mix_is_deduced(void) {
    static const gfl_arch mixes[] = {
        {50, 32, 4, 64, 96, 64, 2, 3, 7, GFL_DIALECT_MMDET, 1, GFL_C2 | GFL_C5, GFL_STYLE_PYTORCH},
        {101, 4, 3, 16, 32, 32, 1, 1, 24, GFL_DIALECT_MMDET, 2, GFL_C4, GFL_STYLE_PYTORCH},
        {34, 1, 0, 24, 32, 160, 3, 365, 16, GFL_DIALECT_MMDET, 0, 0, GFL_STYLE_PYTORCH},
        {50, 1, 0, 4, 32, 32, 1, 3, 16, GFL_DIALECT_MMDET, 2, 15, GFL_STYLE_PYTORCH}};
    for (size_t i = 0; i < GFLI_COUNT(mixes); i++) {
        gfl_arch got;
        listing l = list_network(&mixes[i]);
        memset(&got, 0, sizeof got);
        CHECK_OK(context, deduce(&l, &got));
        CHECK(memcmp(&mixes[i], &got, sizeof got) == 0);
        gfli_weights_end(&l.w);
    }
}

static void the_style_is_in_the_metadata_alone(void) {
    gfl_arch arch = preset("r50"), got = arch;
    listing l = list_network(&arch);
    list_metadata(&l, "style", "caffe");
    CHECK_OK(context, deduce(&l, &got));
    CHECK(got.style == GFL_STYLE_CAFFE);
    gfli_weights_end(&l.w);
}

/* ---- contradictions -------------------------------------------------------------------------- */

typedef struct change {
    const char *tensor;
    int axis, size;     /* of its new shape; axis -1: ... */
    const char *rename; /* ... it gets this name */
    gfl_status status;
    const char *says[2];
} change;

#define OFFSET(stage, block) "backbone.layer" #stage "." #block ".conv2.conv_offset.weight"
static const change changes[] = {
    {OFFSET(3, 1), 0, 18, NULL, GFL_E_MISMATCH, {OFFSET(3, 0), OFFSET(3, 1)}},
    {OFFSET(4, 0), 0, 18, NULL, GFL_E_MISMATCH, {"v2", OFFSET(4, 0)}},
    {OFFSET(2, 0), 0, 54, NULL, GFL_E_UNSUPPORTED, {OFFSET(2, 0), "(54, "}},
    {OFFSET(3, 4), -1, 0, "gone", GFL_E_MISMATCH, {OFFSET(3, 5), OFFSET(3, 4)}},
    {"backbone.layer1.0.conv2.weight", 1, 5, NULL, GFL_E_MISMATCH, {"128 filters of 5", ""}},
    {"backbone.layer1.0.conv2.weight",
     1,
     128,
     NULL,
     GFL_E_UNSUPPORTED,
     {"backbone.layer1.0.conv2.weight", "backbone.conv1.weight"}},
    {"backbone.layer3.5.conv1.weight", -1, 0, "gone", GFL_E_UNSUPPORTED, {"3, 4, 5 and 3", ""}},
    {"backbone.layer4.0.conv1.weight",
     -1,
     0,
     "gone",
     GFL_E_MISMATCH,
     {"backbone.layer4.0.conv1.weight", "missing"}},
    {"bbox_head.gfl_reg.weight", 0, 67, NULL, GFL_E_MISMATCH, {"bbox_head.gfl_reg.weight", "67"}},
    {"bbox_head.gfl_cls.weight",
     -1,
     0,
     "gone",
     GFL_E_MISMATCH,
     {"bbox_head.gfl_cls.weight", "missing"}},
    {"bbox_head.cls_convs.0.conv.weight", 0, 48, NULL, GFL_E_MISMATCH, {"head_channels", "48"}},
    {"bbox_head.gfl_cls.bias",
     -1,
     0,
     "bbox_head.reg_conf.0.weight",
     GFL_E_UNSUPPORTED,
     {"bbox_head.reg_conf.0.weight", "GFLv2"}},
    {"neck.fpn_convs.3.conv.bias",
     -1,
     0,
     "module.model.backbone.conv1.weight",
     GFL_E_MISMATCH,
     {"module.model.backbone.conv1.weight", "more than one model"}},
};

static void contradictions_name_the_tensors(void) {
    gfl_arch arch = preset("x101-32x4d-dcnv2"), got;
    arch.depth = 50;
    got = arch;
    for (size_t i = 0; i < GFLI_COUNT(changes); i++) {
        const change *c = &changes[i];
        listing l = list_network(&arch);
        if (c->rename)
            rename_tensor(&l, c->tensor, c->rename);
        else
            listed(&l, c->tensor)->shape[c->axis] = c->size;
        CHECK_ERROR(context, deduce(&l, &got), c->status, c->says[0]);
        if (!strstr(gfl_context_get_error(context), c->says[1]))
            test_fail(__FILE__, __LINE__, gfl_context_get_error(context));
        gfli_weights_end(&l.w);
    }
}

static void basic_blocks_are_never_deformable(void) {
    static const int64_t shape[4] = {27, 64, 3, 3};
    gfl_arch arch = preset("r18"), got = arch;
    listing l = list_network(&arch);
    list_tensor(&l, OFFSET(1, 0), 4, shape);
    list_tensor(&l, OFFSET(1, 1), 4, shape);
    CHECK_ERROR(context, deduce(&l, &got), GFL_E_MISMATCH, "bottlenecks");
    gfli_weights_end(&l.w);
}

/* ---- names ----------------------------------------------------------------------------------- */

static void names_of_others_are_known(void) {
    static const char *const names[][2] = {
        {"neck.fpn_convs.4.conv.bias", "neck.fpn_convs.4.conv.bias"},
        {"module.bbox_head.scales.2.scale", "bbox_head.scales.2.scale"},
        {"model.module.backbone.bn1.running_var", "backbone.bn1.running_var"},
        {"_orig_mod.backbone.layer4.2.bn3.bias", "backbone.layer4.2.bn3.bias"},
        {"conv1.weight", "backbone.conv1.weight"},
        {"module.bn1.running_mean", "backbone.bn1.running_mean"},
        {"layer1.0.downsample.0.weight", "backbone.layer1.0.downsample.0.weight"},
        {"layer4.2.conv3.weight", "backbone.layer4.2.conv3.weight"},
        {"backbone.body.layer2.0.bn1.weight", "backbone.layer2.0.bn1.weight"},
        {"backbone.layer3.1.conv2_offset.weight", "backbone.layer3.1.conv2.conv_offset.weight"},
        {"layer3.1.conv2_offset.bias", "backbone.layer3.1.conv2.conv_offset.bias"},
        {"fc.weight", "fc.weight"},
        {"optimizer.conv1.weight", "optimizer.conv1.weight"},
        {"ema_backbone_conv1_weight", "ema_backbone_conv1_weight"},
    };
    static const char *const ignored[] = {"bn1.num_batches_tracked", "bbox_head.integral.project",
                                          "module.bbox_head.distribution_project.project"};
    listing l = open_listing();
    for (size_t i = 0; i < GFLI_COUNT(names); i++) list_tensor(&l, names[i][0], 0, NULL);
    for (size_t i = 0; i < GFLI_COUNT(ignored); i++) list_tensor(&l, ignored[i], 0, NULL);
    CHECK_OK(context, gfli_weights_begin(context, &l.w));
    CHECK(l.w.n_entries == (int)GFLI_COUNT(names));
    for (size_t i = 0; i < GFLI_COUNT(names); i++) {
        const gfli_tensor *t = gfli_weights_find(&l.w, names[i][1]);
        CHECK(t && strcmp(t->name, names[i][0]) == 0);
    }
    CHECK(gfli_weights_find(&l.w, "conv1.weight") == NULL);
    gfli_weights_end(&l.w);
}

/* ---- files ----------------------------------------------------------------------------------- */

static const gfl_arch narrow = {
    50, 1, 0, 4, 32, 32, 1, 3, 7, GFL_DIALECT_MMDET, 2, GFL_C5, GFL_STYLE_CAFFE};

static gfl_model *make(const gfl_arch *arch, const gfl_class *classes, uint64_t seed) {
    gfl_model_desc desc;
    gfl_model *model = NULL;
    memset(&desc, 0, sizeof desc);
    desc.trainable = 1;
    desc.arch = *arch;
    desc.classes = classes;
    desc.seed = seed;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    return model;
}

static bool same_weights(const gfl_model *a, const gfl_model *b) {
    if (a->n_params != b->n_params) return false;
    for (int i = 0; i < a->n_params; i++)
        if (memcmp(a->params[i].data, b->params[i].data, a->params[i].count * 4) != 0) return false;
    return true;
}

/* Copy a file's tensors with the front of their names replaced, with metadata of the caller's. */
static void rewrite(const char *from, const char *to, const char *front, const char *other,
                    const char *const meta[][2], int n_meta) {
    gfli_blob blob;
    gfli_blob_writer *w = NULL;
    CHECK_OK(context, gfli_blob_open(context, from, &blob));
    CHECK_OK(context, gfli_blob_create(context, gfli_to_file(to), &w));
    for (int i = 0; i < n_meta; i++)
        CHECK_OK(context, gfli_blob_put_meta(w, meta[i][0], meta[i][1]));
    for (int i = 0; i < blob.n_tensors; i++) {
        const gfli_tensor *t = &blob.tensors[i];
        const bool fits = strncmp(t->name, front, strlen(front)) == 0;
        char name[200];
        snprintf(name, sizeof name, "%s%s", fits ? other : "",
                 t->name + (fits ? strlen(front) : 0));
        CHECK_OK(context, gfli_blob_declare(w, name, t->dtype, t->rank, t->shape));
    }
    for (int i = 0; i < blob.n_tensors; i++) {
        float *data = (float *)malloc(blob.tensors[i].count * 4);
        CHECK_OK(context, gfli_blob_read_f32(&blob, &blob.tensors[i], data));
        CHECK_OK(context, gfli_blob_write(w, data, blob.tensors[i].count * 4));
        free(data);
    }
    CHECK_OK(context, gfli_blob_finish(w));
    gfli_blob_close(&blob);
}

static void what_is_saved_is_imported_bit_for_bit(void) {
    const char *path = scratch("own"), *foreign = scratch("foreign");
    const char *const says[][2] = {{"dialect", "mmdet"}, {"style", "caffe"}};
    gfl_model *a = make(&narrow, NULL, 1), *b = NULL;
    gfl_import_desc opts;
    gfl_model_info info;
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    fx_fill_model(a);
    CHECK_OK(context, gfl_model_save(a, path));
    CHECK_OK(context, gfl_model_import(context, path, &opts, &b));
    CHECK(b && same_weights(a, b) && memcmp(&a->arch, &b->arch, sizeof a->arch) == 0);
    gfl_model_get_info(b, &info);
    CHECK(info.arch.style == GFL_STYLE_CAFFE && info.origins.style == GFL_ORIGIN_FILE);
    CHECK(info.origins.dialect == GFL_ORIGIN_FILE && info.origins.classes == GFL_ORIGIN_FILE);
    gfl_model_destroy(b);
    rewrite(path, foreign, "backbone.", "module.", says, 2);
    CHECK_OK(context, gfl_model_import(context, foreign, &opts, &b));
    CHECK(b && same_weights(a, b));
    gfl_model_get_info(b, &info);
    CHECK(info.origins.preprocess == GFL_ORIGIN_DEFAULT);
    CHECK(info.origins.scale == GFL_ORIGIN_DEFAULT);
    CHECK(info.origins.classes == GFL_ORIGIN_DEFAULT && !strcmp(info.classes[2].name, "class 2"));
    gfl_model_destroy(a);
    gfl_model_destroy(b);
    remove(path);
    remove(foreign);
}

static void demands_are_met_or_refused(void) {
    static const gfl_class three[3] = {{"a", 4}, {"b", 6}, {"c", 9}};
    static const gfl_preprocess caffe = {{103.53f, 116.28f, 123.675f}, {1, 1, 1}, 1, 0, 600};
    const char *own = scratch("own"), *path = scratch("bare");
    const char *const says[][2] = {{"scale", "1000x700"}, {"classes", "of,another,data,set"}};
    gfl_model *a = make(&narrow, NULL, 1), *b = NULL;
    gfl_import_desc opts, none;
    gfl_model_info info;
    memset(&none, 0, sizeof none);
    opts = none;
    CHECK_OK(context, gfl_model_save(a, own));
    rewrite(own, path, "", "", says, 2);
    CHECK_ERROR(context, gfl_model_import(context, path, NULL, &b), GFL_E_MISMATCH, "--dialect");
    opts.dialect = GFL_DIALECT_MMDET;
    CHECK_ERROR(context, gfl_model_import(context, path, &opts, &b), GFL_E_MISMATCH, "--classes");
    opts.style = GFL_STYLE_CAFFE;
    opts.classes = three;
    opts.n_classes = 2;
    opts.preprocess = &caffe;
    CHECK_ERROR(context, gfl_model_import(context, path, &opts, &b), GFL_E_MISMATCH, "3 classes");
    opts.n_classes = 3;
    CHECK_OK(context, gfl_model_import(context, path, &opts, &b));
    gfl_model_get_info(b, &info);
    CHECK(info.arch.style == GFL_STYLE_CAFFE && info.classes[2].id == 9);
    CHECK(info.preprocess.bgr == 1 && info.preprocess.std[2] == 1);
    CHECK(info.preprocess.scale_long == 1000 && info.preprocess.scale_short == 600);
    CHECK(info.origins.style == GFL_ORIGIN_GIVEN && info.origins.preprocess == GFL_ORIGIN_GIVEN);
    CHECK(info.origins.scale == GFL_ORIGIN_GIVEN);
    gfl_model_destroy(b);
    opts = none;
    opts.style = GFL_STYLE_PYTORCH;
    CHECK_ERROR(context, gfl_model_import(context, own, &opts, &b), GFL_E_MISMATCH, "style caffe");
    opts = none;
    opts.dialect = GFL_DIALECT_GFOCAL;
    CHECK_ERROR(context, gfl_model_import(context, own, &opts, &b), GFL_E_MISMATCH, "gfocal");
    CHECK_ERROR(context, gfl_model_import(context, own, &none, NULL), GFL_E_ARG, "out");
    CHECK_ERROR(context, gfl_model_import(context, NULL, &none, &b), GFL_E_ARG, "path");
    CHECK(b == NULL);
    gfl_model_destroy(a);
    remove(own);
    remove(path);
}

/* ---- COCO's names ---------------------------------------------------------------------------- */

static gfl_model *import_named(const char *from, const char *names, const char *ids) {
    const char *path = scratch("named");
    const char *const says[][2] = {{"dialect", "mmdet"}, {"classes", names}, {"class_ids", ids}};
    gfl_model *m = NULL;
    rewrite(from, path, "", "", says, !names ? 1 : ids ? 3 : 2);
    CHECK_OK(context, gfl_model_import(context, path, NULL, &m));
    remove(path);
    return m;
}

/* Names and ids as in instances_val2017.json: those at the gaps, from the spec. */
static void eighty_classes_without_names_are_cocos(void) {
    static const struct {
        int label, id;
        const char *name;
    } known[] = {{0, 1, "person"},         {10, 11, "fire hydrant"}, {11, 13, "stop sign"},
                 {23, 25, "giraffe"},      {24, 27, "backpack"},     {26, 31, "handbag"},
                 {39, 44, "bottle"},       {40, 46, "wine glass"},   {59, 65, "bed"},
                 {60, 67, "dining table"}, {61, 70, "toilet"},       {62, 72, "tv"},
                 {72, 82, "refrigerator"}, {73, 84, "book"},         {79, 90, "toothbrush"}};
    const char *path = scratch("eighty");
    char names[2000] = "", ids[600] = "", number[16];
    gfl_arch arch = {18, 1, 0, 4, 32, 32, 1, 80, 7, GFL_DIALECT_MMDET, 0, 0, 0};
    gfl_model *m = make(&arch, NULL, 1);
    CHECK_OK(context, gfl_model_save(m, path));
    gfl_model_destroy(m);
    m = import_named(path, NULL, NULL);
    for (size_t i = 0; i < GFLI_COUNT(known); i++) {
        const gfl_class *c = &m->classes[known[i].label];
        CHECK(c->id == known[i].id && !strcmp(c->name, known[i].name));
    }
    CHECK(m->origins.classes == GFL_ORIGIN_DEFAULT);
    for (int k = 0; k < 80; k++) { /* as implus/GFocal writes them */
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", k ? "," : "", m->classes[k].name);
        snprintf(number, sizeof number, "%s%d", k ? "," : "[", k + 5);
        strcat(ids, number);
    }
    strcat(ids, "]");
    for (char *c = names; *c; c++)
        if (*c == ' ') *c = '_';
    gfl_model_destroy(m);
    m = import_named(path, names, NULL);
    CHECK(!strcmp(m->classes[60].name, "dining table") && m->classes[60].id == 67);
    CHECK(m->origins.classes == GFL_ORIGIN_FILE);
    gfl_model_destroy(m);
    m = import_named(path, names, ids);
    CHECK(!strcmp(m->classes[60].name, "dining_table") && m->classes[60].id == 65);
    gfl_model_destroy(m);
    names[0] = 'P';
    m = import_named(path, names, NULL);
    CHECK(!strcmp(m->classes[0].name, "Person") && m->classes[79].id == 80);
    gfl_model_destroy(m);
    remove(path);
}

/* ---- backbones ------------------------------------------------------------------------------- */

static void a_backbone_goes_out_and_in(void) {
    static const gfl_preprocess msra = {{103.939f, 116.779f, 123.68f}, {1, 1, 1}, 1, 400, 300};
    const char *path = scratch("backbone");
    gfl_model_desc desc;
    gfl_backbone_info b;
    gfl_model *from = NULL, *to = NULL;
    memset(&desc, 0, sizeof desc);
    desc.trainable = 1;
    desc.arch = narrow;
    desc.preprocess = msra;
    CHECK_OK(context, gfl_model_create(context, &desc, &from));
    fx_fill_model(from);
    for (int stages = 3; stages <= 4; stages++) {
        CHECK_OK(context, gfl_model_save_backbone(from, stages, path));
        CHECK_OK(context, gfl_backbone_describe(context, path, NULL, &b));
        CHECK(b.stages == stages && b.arch.depth == 50 && b.arch.base_channels == 4);
        CHECK(b.arch.deform == (stages == 4 ? 2 : 0) && b.arch.style == GFL_STYLE_CAFFE);
        CHECK(b.preprocess.bgr == 1 && b.preprocess.mean[0] == msra.mean[0]);
        CHECK(b.style == GFL_ORIGIN_FILE && b.input == GFL_ORIGIN_FILE);
        desc.seed = 9;
        CHECK_OK(context, gfl_model_create(context, &desc, &to));
        CHECK_OK(context, gfl_model_load_backbone(to, path));
        for (int i = 0; i < to->n_params; i++) {
            const gfli_param *p = &to->params[i];
            if (p->stage > stages) continue;
            CHECK(p->loaded && !memcmp(p->data, from->params[i].data, p->count * 4));
        }
        gfl_model_destroy(to);
    }
    CHECK_ERROR(context, gfl_model_save_backbone(from, 5, path), GFL_E_ARG, "1..4");
    gfl_model_destroy(from);
    remove(path);
}

static void refuse_backbone(const char *path, gfl_model_desc desc, const char *says) {
    gfl_model *m = NULL;
    desc.trainable = 1;
    CHECK_OK(context, gfl_model_create(context, &desc, &m));
    CHECK_ERROR(context, gfl_model_load_backbone(m, path), GFL_E_MISMATCH, says);
    gfl_model_destroy(m);
}

static void a_backbone_for_another_model_is_refused(void) {
    const char *path = scratch("backbone");
    gfl_model_desc desc, other;
    gfl_import_desc opts;
    gfl_backbone_info b;
    memset(&desc, 0, sizeof desc);
    memset(&opts, 0, sizeof opts);
    desc.arch = narrow;
    gfl_model *from = make(&narrow, NULL, 1);
    CHECK_OK(context, gfl_model_save_backbone(from, 4, path));
    gfl_model_destroy(from);
    other = desc, other.arch.style = GFL_STYLE_PYTORCH;
    refuse_backbone(path, other, "caffe style, but the model is of pytorch style");
    other = desc, other.arch.depth = 101;
    refuse_backbone(path, other,
                    "R50-DCNv2 with a stem of 4 channels, but the model is R101-DCNv2");
    other = desc, other.arch.base_channels = 8;
    refuse_backbone(path, other, "with 8;");
    other = desc, other.arch.deform_stages = GFL_C4 | GFL_C5;
    refuse_backbone(path, other, "deformable");
    other = desc, other.preprocess.bgr = 1, other.preprocess.std[0] = other.preprocess.std[1] = 1;
    other.preprocess.std[2] = 1;
    refuse_backbone(path, other, "expects RGB");
    opts.style = GFL_STYLE_PYTORCH;
    CHECK_ERROR(context, gfl_backbone_describe(context, path, &opts, &b), GFL_E_MISMATCH, "caffe");
    CHECK(b.stages == 0);
    remove(path);
}

/* A file with one more tensor, or one of another shape, than the model's backbone. */
static void refuse_extra(gfl_model *model, const char *extra, const char *says) {
    const char *path = scratch("backbone");
    const int64_t shape[1] = {4};
    const float zeros[4] = {0, 0, 0, 0};
    gfli_blob_writer *w = NULL;
    CHECK_OK(context, gfli_blob_create(context, gfli_to_file(path), &w));
    const gfli_param *p = &model->params[gfli_model_find(model, "backbone.bn1.bias")];
    float *data = (float *)calloc(65536, sizeof *data);
    for (int i = 0; i < model->n_params; i++)
        if (model->params[i].stage < GFLI_STAGE_HEAD && strcmp(model->params[i].name, extra) != 0)
            CHECK_OK(context, gfli_blob_declare(w, model->params[i].name, GFLI_F32,
                                                model->params[i].rank, model->params[i].shape));
    CHECK_OK(context, gfli_blob_declare(w, extra, GFLI_F32, 1, shape));
    for (int i = 0; i < model->n_params; i++)
        if (model->params[i].stage < GFLI_STAGE_HEAD && strcmp(model->params[i].name, extra) != 0)
            CHECK_OK(context, gfli_blob_write(w, data, model->params[i].count * 4));
    CHECK_OK(context, gfli_blob_write(w, zeros, sizeof zeros));
    CHECK_OK(context, gfli_blob_finish(w));
    const float before = p->data[0];
    CHECK_ERROR(context, gfl_model_load_backbone(model, path), GFL_E_MISMATCH, says);
    CHECK(p->data[0] == before);
    free(data);
    remove(path);
}

static void a_backbone_of_another_kind_is_refused(void) {
    gfl_model *m = make(&narrow, NULL, 1);
    fx_fill_model(m);
    refuse_extra(m, "backbone.layer2.0.se.fc1.bias", "se.fc1.bias (4) has no place");
    refuse_extra(m, "backbone.layer2.0.conv1.bias", "conv1.bias (4) has no place");
    refuse_extra(m, "backbone.layer2.0.bn2.weight", "bn2.weight has shape (4)");
    gfl_model_destroy(m);
}

/* ---- other classes --------------------------------------------------------------------------- */

static const gfl_class old_classes[4] = {{"cat", 1}, {"dog", 2}, {"cow", 3}, {"hen", 7}};
static const gfl_class new_classes[5] = {
    {"cow", 1}, {"duck", 2}, {"dog", 3}, {"chicken", 4}, {"cat", 5}};

static void check_rows(const gfl_model *from, const gfl_model *to, const gfl_model *fresh,
                       const char *name, const int *map) {
    const int at = gfli_model_find(to, name);
    const size_t row = to->params[at].count / 5;
    for (size_t k = 0; k < 5; k++) {
        const float *want = map[k] < 0 ? fresh->params[at].data + k * row
                                       : from->params[at].data + (size_t)map[k] * row;
        CHECK(memcmp(to->params[at].data + k * row, want, row * 4) == 0);
    }
}

static void classes_keep_their_rows_by_name(void) {
    static const gfl_rename renames[1] = {{"hen", "chicken"}};
    static const int expected[5] = {2, -1, 1, 3, 0};
    gfl_arch arch = narrow;
    int map[5];
    arch.n_classes = 4;
    gfl_model *from = make(&arch, old_classes, 1), *to = NULL;
    arch.n_classes = 5;
    gfl_model *fresh = make(&arch, new_classes, 77);
    gfl_transfer_desc how = {new_classes, 5, map, NULL, 77};
    fx_fill_model(from);
    CHECK_OK(context, gfl_match_classes(context, old_classes, 4, new_classes, 5, renames, 1, map));
    CHECK(memcmp(map, expected, sizeof map) == 0);
    CHECK_OK(context, gfl_model_create_from(context, from, &how, &to));
    check_rows(from, to, fresh, "bbox_head.gfl_cls.weight", map);
    check_rows(from, to, fresh, "bbox_head.gfl_cls.bias", map);
    gfl_tensor_report r;
    int afresh = 0;
    for (int i = 0; gfl_model_get_report(to, i, &r) == GFL_OK; i++) {
        const gfli_param *p = &to->params[i];
        if (strstr(p->name, "gfl_cls")) {
            afresh += r.fate == GFL_FATE_INITIALISED && strstr(r.why, "1 of 5");
            continue;
        }
        CHECK(r.fate == GFL_FATE_LOADED && !strcmp(r.name, p->name));
        CHECK(memcmp(p->data, from->params[i].data, p->count * 4) == 0);
    }
    CHECK(afresh == 2);
    CHECK(!strcmp(to->classes[3].name, "chicken") && to->arch.style == GFL_STYLE_CAFFE);
    CHECK(memcmp(&to->preprocess, &from->preprocess, sizeof to->preprocess) == 0);
    for (int i = 0; i < to->n_layers; i++) /* packed too */
        if (strcmp(to->params[to->layers[i].weight].name, "bbox_head.gfl_cls.weight") != 0)
            CHECK(memcmp(to->layers[i].packing, from->layers[i].packing,
                         to->backend->infer.conv_packed_size(to->context, &to->layers[i].shape)) ==
                  0);
    gfl_model_destroy(from);
    gfl_model_destroy(to);
    gfl_model_destroy(fresh);
}

static void the_same_classes_are_the_same_model(void) {
    gfl_arch arch = narrow;
    arch.n_classes = 4;
    gfl_model *from = make(&arch, old_classes, 1), *to = NULL;
    gfl_transfer_desc how = {old_classes, 4, NULL, NULL, 5};
    CHECK_OK(context, gfl_model_create_from(context, from, &how, &to));
    CHECK(to && same_weights(from, to));
    gfl_model_destroy(from);
    gfl_model_destroy(to);
}

static void wrong_transfers_are_refused(void) {
    static const gfl_rename no_old[1] = {{"horse", "duck"}}, no_new[1] = {{"cat", "horse"}};
    static const gfl_rename twice[2] = {{"cat", "duck"}, {"dog", "duck"}};
    int map[5] = {0, 4, 0, 0, 0};
    gfl_arch arch = narrow;
    arch.n_classes = 4;
    gfl_model *from = make(&arch, old_classes, 1), *to = NULL;
    gfl_transfer_desc how = {new_classes, 5, map, NULL, 0};
    CHECK_ERROR(context, gfl_model_create_from(context, from, &how, &to), GFL_E_ARG, "map[1] is 4");
    how.map = NULL, how.n_classes = 0;
    CHECK_ERROR(context, gfl_model_create_from(context, from, &how, &to), GFL_E_ARG, "0 classes");
    how.n_classes = 5;
    from->trainable = false;
    CHECK_ERROR(context, gfl_model_create_from(context, from, &how, &to), GFL_E_ARG, "trainable");
    from->trainable = true;
    CHECK_ERROR(context,
                gfl_match_classes(context, old_classes, 4, new_classes, 5, no_old, -1, map),
                GFL_E_ARG, "there are -1");
    CHECK_ERROR(context, gfl_match_classes(context, old_classes, 4, new_classes, 5, no_old, 1, map),
                GFL_E_MISMATCH, "no class \"horse\" in the old list");
    CHECK_ERROR(context, gfl_match_classes(context, old_classes, 4, new_classes, 5, no_new, 1, map),
                GFL_E_MISMATCH, "no class \"horse\" in the new list");
    CHECK_ERROR(context, gfl_match_classes(context, old_classes, 4, new_classes, 5, twice, 2, map),
                GFL_E_MISMATCH, "already");
    CHECK(to == NULL);
    gfl_model_destroy(from);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(every_preset_is_deduced_from_its_tensors),
                                      TEST(any_mix_is_deduced),
                                      TEST(the_style_is_in_the_metadata_alone),
                                      TEST(contradictions_name_the_tensors),
                                      TEST(basic_blocks_are_never_deformable),
                                      TEST(names_of_others_are_known),
                                      TEST(what_is_saved_is_imported_bit_for_bit),
                                      TEST(demands_are_met_or_refused),
                                      TEST(eighty_classes_without_names_are_cocos),
                                      TEST(a_backbone_goes_out_and_in),
                                      TEST(a_backbone_for_another_model_is_refused),
                                      TEST(a_backbone_of_another_kind_is_refused),
                                      TEST(classes_keep_their_rows_by_name),
                                      TEST(the_same_classes_are_the_same_model),
                                      TEST(wrong_transfers_are_refused),
                                      {0}};
    context = test_context(1);
    int status = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return status;
}
