/* test_config.c - what a checkpoint says of itself in the text of its configuration */
#include "data.h"
#include "pickled.h"

#include "../src/ckpt/ckpt.h"
#include <unistd.h>

static gfl_context *context;

/* ---- literals of Python ---------------------------------------------------------------------- */

static void expect_shown(const char *text, const char *path, const char *want) {
    gfli_py py;
    char shown[160];
    CHECK_OK(context, gfli_py_read(context, text, &py));
    gfli_py_shown_as(&py, gfli_py_find(&py, path), shown, sizeof shown);
    CHECK(!strcmp(shown, want));
    if (strcmp(shown, want) != 0) printf("%s of %s: %s, wanted %s\n", path, text, shown, want);
    gfli_py_free(&py);
}

static void literals_are_read_as_python_reads_them(void) {
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"a = 1", "1"},
        {"a = -1.50", "-1.5"},
        {"a = .5", "0.5"},
        {"a = 5.", "5"},
        {"a = 1_000", "1000"},
        {"a = 0.00001", "1e-05"},
        {"a = 1E3", "1000"},
        {"a = True", "True"},
        {"a = None", "None"},
        {"a = 'x'", "x"},
        {"a = \"it's\"", "it's"},
        {"a = 'it\\'s'", "it's"},
        {"a = r'\\d'", "\\d"},
        {"a = 'x' \"y\"", "xy"},
        {"a = ('x'\n     'y')", "xy"},
        {"a = '''x\ny'''", "x\ny"},
        {"a = (1)", "1"},
        {"a = (1,)", "[1]"},
        {"a = ()", "[]"},
        {"a = 1, 2", "..."},
        {"a = [1, 2.5, 'x', None,]", "[1, 2.5, 'x', None]"},
        {"a = [(1, 2), [3]]", "[[1, 2], [3]]"},
        {"a = dict(b=1, c=[True])", "dict(b=1, c=[True])"},
        {"a = {'b': 1, \"c\": {}}", "dict(b=1, c=dict())"},
        {"a = [1,  # one, two ]\n 2]", "[1, 2]"},
        {"a = \\\n 7", "7"},
        {"a = 7  # seven", "7"},
        {"a = 7; b = 8", "7"},
        {"b = [1]\na = dict(c=b)", "dict(c=[1])"},
        {"b = dict(x=1, y=2)\na = dict(y=0, **b, z=3)", "dict(y=0, dict(x=1, y=2), z=3)"},
        {"import os\nif x:\n    a = 2\na = 3", "3"},
        {"a = 1 + 2", "..."},
        {"a = [1 + 2, f(3, [4]), 5]", "[..., ..., 5]"},
        {"a = x if y else z", "..."},
        {"a = f'{x}'", "..."},
        {"a = lambda x: x\nb = 1", "..."},
        {"a == 1", "..."},
        {"a = [1, 2", "[1, ...]"},
        {"a = 0x10", "..."},
        {"a = 'x", "x"},
        {"a = 0.1234567890123456789", "0.1234567890123456789"},
    };
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) expect_shown(cases[i].text, "a", cases[i].want);
    expect_shown("b = dict(x=1, y=2)\na = dict(y=0, **b)", "a.y", "2");
    expect_shown("b = dict(x=1, y=2)\na = dict(**b, y=0)", "a.y", "0");
    expect_shown("b = dict(x=1)\na = dict(b, y=0)", "a.x", "1");
}

static void later_assignments_inherit_from_earlier_ones(void) {
    const char *text = "m = dict(a=1, b=dict(c=2, d=3))\n"
                       "m = dict(b=dict(c=4))\n"
                       "n = dict(a=1, b=dict(c=2, d=3))\n"
                       "n = dict(b=dict(_delete_=True, c=4))\n"
                       "n = dict(a=None)\n"
                       "o = dict(a=dict(b=1))\no = dict(a=None)\n";
    expect_shown(text, "m.a", "1");
    expect_shown(text, "m.b.c", "4");
    expect_shown(text, "m.b.d", "3");
    expect_shown(text, "n.b.c", "4");
    expect_shown(text, "n.b.d", "...");
    expect_shown(text, "n.a", "None");
    expect_shown(text, "o.a.b", "...");
}

/* ---- facts ----------------------------------------------------------------------------------- */

static char *config_text(const char *name) {
    char path[300];
    snprintf(path, sizeof path, "%s/config/%s", getenv("GFL_TEST_DATA"), name);
    FILE *f = fopen(path, "rb");
    static char text[1 << 14];
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    CHECK(n > 0);
    text[n] = 0;
    if (f) fclose(f);
    return text;
}

static void open_config(const char *text, gfli_blob *blob) {
    CHECK_OK(context, gfli_blob_bare_memory(context, text, strlen(text), "a file", blob));
    CHECK_OK(context, gfli_blob_add_meta(blob, "cfg", text));
}

static void expect_fact(const gfli_blob *blob, const char *key, const char *want) {
    const char *got = gfli_blob_meta(blob, key);
    const bool same = got && want ? !strcmp(got, want) : got == want;
    CHECK(same);
    if (!same) printf("%s is %s, wanted %s\n", key, got ? got : "(none)", want ? want : "(none)");
}

typedef struct facts {
    const char *mean, *std, *order, *scale, *classes;
} facts;

static void expect_facts(const char *text, const facts *want) {
    gfli_blob blob;
    open_config(text, &blob);
    CHECK_OK(context, gfli_config_read(&blob));
    expect_fact(&blob, "mean", want->mean);
    expect_fact(&blob, "std", want->std);
    expect_fact(&blob, "channel_order", want->order);
    expect_fact(&blob, "scale", want->scale);
    expect_fact(&blob, "classes", want->classes);
    gfli_blob_close(&blob);
}

/* Two texts that mmengine's Config.pretty_text printed, and one that mmcv's Config.text would
 * be. */
static void the_forms_of_mmcv_and_of_mmengine_tell_the_input(void) {
    const facts mmengine = {"[103.53, 116.28, 123.675]", "[1, 1, 1]", "BGR", "640x480",
                            "[\"red cell\",\"\\\"white\\\" cell\",\"pl\303\244ttchen\"]"};
    const facts mmcv = {"[113.05697120320283, 116.28, 103.53]", "[58.395, 57.12, 57.375]", "RGB",
                        "512x384", "[\"a\",\"b\",\"c\"]"};
    const facts inherited = {"[103.53, 116.28, 123.675]", "[1, 0.5, 1]", "BGR", "640x480",
                             "[\"a\",\"b\",\"c\"]"};
    expect_facts(config_text("mmengine.py"), &mmengine);
    expect_facts(config_text("mmcv.py"), &mmcv);
    expect_facts(config_text("inherited.py"), &inherited);
}

static void what_a_configuration_leaves_open_stays_open(void) {
    const facts nothing = {NULL, NULL, NULL, NULL, NULL};
    const facts raw = {"0,0,0", "1,1,1", "RGB", NULL, NULL};
    const facts square = {NULL, NULL, NULL, "640x640", NULL};
    expect_facts("", &nothing);
    expect_facts("img_norm_cfg = dict(mean=means, std=[1, 1, 1])", &nothing);
    expect_facts("img_norm_cfg = dict(mean=[1, 2], std=[1, 1, 1])", &nothing);
    expect_facts("classes = 'names.txt'", &nothing);
    expect_facts("classes = ('a', 2)", &nothing);
    expect_facts("model = dict(data_preprocessor=dict(bgr_to_rgb=True, mean=None))", &raw);
    expect_facts("test_pipeline = [dict(type='mmdet.FixScaleResize', scale=640)]", &square);
    expect_facts("test_pipeline = [dict(type='Resize', scale=(640, 480))]", &nothing);
    expect_facts("test_pipeline = [dict(type='Resize', img_scale=(640, 0), keep_ratio=True)]",
                 &nothing);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static char warned[600];

static void remember(void *user, gfl_log_level level, const char *message) {
    (void)user;
    if (level == GFL_LOG_WARNING) snprintf(warned, sizeof warned, "%s", message);
}

/* The text with a piece of it replaced, and after it whatever `more` says. */
static void refuse(const char *from, const char *to, gfl_status status, const char *why) {
    char text[1 << 15];
    gfli_weights w;
    gfl_arch arch = {18, 1, 0, 4, 32, 32, 1, 3, 16, GFL_DIALECT_MMDET, 0, 0, 0};
    const char *base = config_text("mmengine.py"), *at = strstr(base, from);
    CHECK(at != NULL);
    if (!at) return;
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - base), base, to, at + strlen(from));
    memset(&w, 0, sizeof w);
    w.context = context;
    open_config(text, &w.blob);
    gfl_status got = gfli_config_refuse(&w, true, false);
    if (got == GFL_OK) got = gfli_config_compare(&w, &arch, true);
    CHECK_ERROR(context, got, status, why);
    gfli_blob_close(&w.blob);
}

static void what_gfl_does_not_have_is_refused(void) {
    const gfl_status no = GFL_E_UNSUPPORTED;
    refuse(
        "'on_output'", "'on_lateral'", no,
        "model.neck.add_extra_convs = \"on_lateral\", which is not supported: gfl has on_output");
    refuse("'on_output'", "True", no, "add_extra_convs = \"True\"");
    refuse("start_level=1", "start_level=0", no, "model.neck.start_level");
    refuse("num_outs=5", "num_outs=4", no, "model.neck.num_outs = \"4\"");
    refuse("num_outs=5", "num_outs=5, relu_before_extra_convs=True", no, "relu_before_extra_convs");
    refuse("num_outs=5", "num_outs=5, act_cfg=dict(type='ReLU')", no, "model.neck.act_cfg");
    refuse("num_outs=5", "num_outs=5, norm_cfg=dict(type='BN')", no, "model.neck.norm_cfg");
    refuse("type='FPN'", "type='PAFPN'", no, "model.neck.type = \"PAFPN\"");
    refuse("'GFLHead'", "'mmdet.ATSSHead'", no, "gfl has GFLHead or LDHead");
    refuse("reg_max=16", "reg_max=16, norm_cfg=dict(type='BN')", no, "norm_cfg.type = \"BN\"");
    refuse("reg_max=16", "reg_max=16, norm_cfg=dict(type='GN', num_groups=16)", no, "num_groups");
    refuse("use_sigmoid=True", "use_sigmoid=False", no, "use_sigmoid");
    refuse("                8,\n", "                4,\n", no, "anchor_generator.strides");
    refuse("'ResNet'", "'ResNetV1d'", no, "model.backbone.type = \"ResNetV1d\"");
    refuse("num_stages=4", "num_stages=4, dilations=(1, 1, 1, 2)", no, "dilations");
    refuse("num_stages=4", "num_stages=4, conv_cfg=dict(type='ConvWS')", no, "ConvWS");
    refuse("keep_ratio=True, scale=(\n", "keep_ratio=False, scale=(\n", no,
           "without keeping their shape");
}

static void what_contradicts_the_tensors_is_refused(void) {
    const gfl_status no = GFL_E_MISMATCH;
    refuse("reg_max=16", "reg_max=7", no,
           "model.bbox_head.reg_max = \"7\", but its tensors have 16");
    refuse("num_classes=3", "num_classes=80", no, "num_classes = \"80\"");
    refuse("depth=18", "depth=50", no, "depth = \"50\", but its tensors have 18");
    refuse("stacked_convs=1", "stacked_convs=4", no, "stacked_convs");
}

static void what_only_changes_detections_is_a_warning(void) {
    gfl_context_desc desc;
    gfl_context *own = context;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 1;
    desc.logger.log = remember;
    CHECK(gfl_context_create(&desc, &context) == GFL_OK);
    refuse("reg_max=16", "reg_max=16", GFL_OK, "");
    CHECK(strstr(warned, "nms.iou_threshold = \"0.5\"; gfl has 0.6 unless it is told otherwise"));
    gfl_context_destroy(context);
    context = own;
}

/* ---- whole checkpoints ----------------------------------------------------------------------- */

/* "Named by what": one dictionary of the checkpoint. */
static void put_parameters(bytes *pickle, archive *a, const gfl_model *model) {
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        char key[16], record[64];
        view v = {0, p->rank, {0}, {0}};
        int64_t stride = 1;
        for (int d = p->rank - 1; d >= 0; d--) {
            v.shape[d] = p->shape[d];
            v.stride[d] = stride;
            stride *= p->shape[d];
        }
        snprintf(key, sizeof key, "%d", i);
        snprintf(record, sizeof record, "archive/data/%d", i);
        put_text(pickle, p->name);
        put_view(pickle, key, (int64_t)p->count, &v);
        add_record(a, record, p->data, p->count * sizeof(float));
    }
    const int64_t bins = model->arch.reg_max + 1; /* tells the dialect */
    float project[GFL_MAX_BINS] = {0};
    put_text(pickle, "bbox_head.integral.project");
    put_tensor(pickle, "project", bins);
    add_record(a, "archive/data/project", project, (size_t)bins * sizeof(float));
}

/* A checkpoint of a small network, as mmdetection's runner saves it: {'meta', 'state_dict'}. */
static void write_checkpoint(const char *path, const char *key, const char *config) {
    static archive a;
    static bytes pickle;
    gfl_model_desc desc;
    gfl_model *model;
    memset(&a, 0, sizeof a);
    pickle.n = 0;
    memset(&desc, 0, sizeof desc);
    desc.trainable = 1;
    desc.arch.depth = 18;
    desc.arch.base_channels = 4;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.stacked_convs = 1;
    desc.arch.n_classes = 3;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    PUT(&pickle, "\x80\2}(");
    put_text(&pickle, "meta");
    PUT(&pickle, "}(");
    put_text(&pickle, key);
    put_text(&pickle, config);
    PUT(&pickle, "u");
    put_text(&pickle, "state_dict");
    PUT(&pickle, "}(");
    put_parameters(&pickle, &a, model);
    PUT(&pickle, "uu.");
    add_record(&a, "archive/data.pkl", pickle.data, pickle.n);
    end_archive(&a);
    gfl_model_destroy(model);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(a.file.data, 1, a.file.n, f) == a.file.n && fclose(f) == 0);
}

static gfl_model_info import_info(const char *path, gfl_model **model) {
    gfl_model_info info;
    gfl_import_desc opts;
    memset(&info, 0, sizeof info);
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    CHECK_OK(context, gfl_model_import(context, path, &opts, model));
    if (*model) gfl_model_get_info(*model, &info);
    return info;
}

static void a_checkpoint_is_what_its_configuration_says(void) {
    char path[64];
    gfl_model *model = NULL;
    snprintf(path, sizeof path, "test_config_%ld.pth", (long)getpid());
    write_checkpoint(path, "cfg", config_text("mmengine.py"));
    gfl_model_info info = import_info(path, &model);
    CHECK(info.preprocess.bgr == 1 && info.preprocess.std[0] == 1.0f);
    CHECK(info.preprocess.mean[0] == 103.53f && info.preprocess.mean[2] == 123.675f);
    CHECK(info.preprocess.scale_long == 640 && info.preprocess.scale_short == 480);
    CHECK(info.origins.preprocess == GFL_ORIGIN_FILE && info.origins.scale == GFL_ORIGIN_FILE);
    CHECK(info.origins.classes == GFL_ORIGIN_FILE);
    CHECK(info.classes && !strcmp(info.classes[0].name, "red cell"));
    gfl_model_destroy(model);
    write_checkpoint(path, "config", config_text("mmcv.py"));
    info = import_info(path, &model);
    CHECK(info.preprocess.bgr == 0 && info.preprocess.mean[0] == 113.05697120320283f);
    CHECK(info.preprocess.scale_long == 512 && info.origins.preprocess == GFL_ORIGIN_FILE);
    gfl_model_destroy(model);
    remove(path);
}

/* Conversion writes every value down: whether anybody said it must not get lost with that. */
static void what_was_assumed_stays_assumed_in_files_of_ours(void) {
    char path[64], own[64];
    gfl_model *model = NULL, *again = NULL;
    snprintf(path, sizeof path, "test_config_%ld.pth", (long)getpid());
    snprintf(own, sizeof own, "test_config_%ld.safetensors", (long)getpid());
    write_checkpoint(path, "cfg", "img_norm_cfg = dict(mean=[1, 2, 3], std=[4, 5, 6])");
    gfl_model_info info = import_info(path, &model);
    CHECK(info.origins.preprocess == GFL_ORIGIN_FILE && info.origins.scale == GFL_ORIGIN_DEFAULT);
    CHECK_OK(context, gfl_model_save(model, own));
    CHECK_OK(context, gfl_model_load(context, own, NULL, &again));
    gfl_model_get_info(again, &info);
    CHECK(info.origins.preprocess == GFL_ORIGIN_FILE && info.origins.scale == GFL_ORIGIN_DEFAULT);
    CHECK(info.origins.classes == GFL_ORIGIN_DEFAULT && info.origins.style == GFL_ORIGIN_DEFAULT);
    CHECK(info.preprocess.std[2] == 6.0f && !strcmp(info.classes[2].name, "class 2"));
    gfl_model_destroy(again);
    gfl_model_destroy(model);
    remove(path);
    remove(own);
}

/* ---- hostile texts --------------------------------------------------------------------------- */

static void hostile_texts_cost_what_their_length_allows(void) {
    static char text[200000];
    size_t n = 0;
    for (int i = 0; i < 30; i++) /* each twice the one before */
        n += (size_t)snprintf(text + n, sizeof text - n, "a%d = dict(**a%d, **a%d)\n", i + 1, i, i);
    n += (size_t)snprintf(text + n, sizeof text - n, "model = a30\n");
    for (int i = 0; i < 4000; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "x%d = x%d\n", i, i / 2);
    expect_shown(text, "model.neck", "...");
    memset(text, '[', sizeof text - 1);
    memcpy(text, "a = ", 4);
    expect_shown(text, "b", "...");
    for (size_t i = 4; i + 6 < sizeof text; i += 5) memcpy(text + i, "dict(", 5);
    expect_shown(text, "b", "...");
    memset(text + 4, '(', 100);
    memset(text + 104, 0, 1);
    expect_shown(text, "a", "[...]");
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(literals_are_read_as_python_reads_them),
                                      TEST(later_assignments_inherit_from_earlier_ones),
                                      TEST(the_forms_of_mmcv_and_of_mmengine_tell_the_input),
                                      TEST(what_a_configuration_leaves_open_stays_open),
                                      TEST(what_gfl_does_not_have_is_refused),
                                      TEST(what_contradicts_the_tensors_is_refused),
                                      TEST(what_only_changes_detections_is_a_warning),
                                      TEST(a_checkpoint_is_what_its_configuration_says),
                                      TEST(what_was_assumed_stays_assumed_in_files_of_ours),
                                      TEST(hostile_texts_cost_what_their_length_allows),
                                      {0}};
    context = test_context(1);
    int code = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return code;
}
