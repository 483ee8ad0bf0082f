/* test_backbone.c - another backbone is one row: depthwise blocks that the library does not have */
#include "pass.h"

/* ---- the backbone ---------------------------------------------------------------------------- */

/* Four stages of two blocks: a depthwise 3x3 and a pointwise convolution; the first block of a
 * stage halves the map, the second adds its input. */
enum { DEPTH = 7, BLOCKS = 2 };

/* What a description may get wrong. */
static enum mistake { NONE, SKIPPED, REREAD, SHORT, UNFIT, UNEVEN, BACKWARDS } mistake;

static gfl_status resolve(gfl_context *context, gfl_arch *a) {
    gfli_default(&a->base_channels, 5);
    a->groups = 1;
    a->style = GFL_STYLE_PYTORCH;
    return gfli_check_range(context, "base_channels", a->base_channels, 1, 64);
}

static void tell_preset(int i, gfl_preset *out) {
    (void)i, (void)out;
}

static void tell_name(const gfl_arch *arch, char out[32]) {
    snprintf(out, 32, "Depthwise%d", arch->depth);
}

static void tell_file_name(const gfl_arch *arch, char out[48]) {
    snprintf(out, 48, "depthwise%d", arch->depth);
}

static int describe_block(gfli_describer *d, int stage, int block, int in, int out_c) {
    const int in_c = gfli_map_channels(d, in);
    gfli_describe_names(d, "backbone.stage%d.%d.", stage, block);
    const int deep = gfli_add_conv_bn(d, "deep", "deep_norm", false, in_c, in_c, 3,
                                      block == 0 ? 2 : 1, mistake == UNEVEN ? 2 : in_c);
    const int wide = gfli_add_conv_bn(d, "wide", "wide_norm", false, in_c, out_c, 1, 1, 1);
    if (mistake == SHORT && block > 0) return gfli_run_residual_conv(d, wide, in, in);
    if (mistake == UNFIT && block > 0) return gfli_run_conv(d, wide, d->model->network.input, true);
    const int x = gfli_run_conv(d, deep, in, true);
    if (block == 0) return gfli_run_conv(d, wide, x, true);
    const int out = gfli_run_residual_conv(d, wide, x, in);
    if (mistake == REREAD) (void)gfli_run_conv(d, wide, in, true);
    return out;
}

static void describe(gfli_describer *d, int features[4]) {
    const int c = d->model->arch.base_channels;
    gfli_describe_names(d, "backbone.");
    const int first = gfli_add_conv_bn(d, "first", "first_norm", false, 3, c, 3, 2, 1);
    int x = gfli_run_conv(d, first, d->model->network.input, true);
    for (int stage = 1; stage <= 4; stage++) {
        gfli_describe_stage(d, mistake == BACKWARDS ? 5 - stage : stage);
        for (int block = mistake == SKIPPED; block < BLOCKS; block++)
            x = describe_block(d, stage, block, x, mistake == SKIPPED ? c : c << (stage - 1));
        features[stage - 1] = x;
    }
}

static gfl_status deduce(gfli_weights *w, gfl_arch *arch, int *stages) {
    int there = 0;
    char name[64];
    do snprintf(name, sizeof name, "backbone.stage%d.0.deep.weight", there + 1);
    while (gfli_weights_find(w, name) && ++there < 4);
    if (!stages && there < 4)
        return gfli_error(w->context, GFL_E_MISMATCH, "%s: %s is missing", w->blob.path, name);
    if (stages) *stages = there;
    arch->depth = DEPTH;
    arch->groups = 1;
    return gfli_deduce_dim(w, "backbone.first.weight", 0, &arch->base_channels);
}

static gfl_status compare(const gfli_weights *w, const gfl_backbone_info *file,
                          const gfl_arch *model) {
    if (model->depth == DEPTH && file->arch.base_channels == model->base_channels) return GFL_OK;
    return gfli_error(w->context, GFL_E_MISMATCH, "%s: another backbone", w->blob.path);
}

static const int depths[] = {DEPTH, 0};
static const char *const before_depth[] = {"Depthwise", "depthwise", NULL};
static const gfli_name_rule rules[] = {
    {"stage", "backbone.stage", false}, {"first", "backbone.first", false}, {NULL, NULL, false}};
static const gfli_relative relatives[] = {{NULL, NULL, NULL}};
static const gfli_config_row config[] = {{NULL, NULL}};
static const gfli_backbone depthwise = {"a depthwise network",
                                        depths,
                                        resolve,
                                        0,
                                        tell_preset,
                                        tell_name,
                                        tell_file_name,
                                        describe,
                                        "backbone.first.weight",
                                        "backbone.stage",
                                        before_depth,
                                        rules,
                                        relatives,
                                        config,
                                        deduce,
                                        compare};
static const gfli_backbone *const kinds[] = {&gfli_resnet, &depthwise, NULL};

static gfl_context *open_context(int n_threads) {
    gfl_context *context = test_context(n_threads);
    context->backbones = kinds;
    return context;
}

static gfl_model_desc small_desc(void) {
    gfl_model_desc desc;
    train_micro_desc(&desc, DEPTH, 2);
    desc.arch.base_channels = 5;
    desc.arch.fpn_channels = 12;
    return desc;
}

/* ---- the same network in double precision ---------------------------------------------------- */

typedef struct volume {
    int c, h, w;
    double *x; /* [c][h][w] */
} volume;

static volume make_volume(int c, int h, int w) {
    volume v = {c, h, w, (double *)calloc((size_t)(c * h * w), sizeof(double))};
    return v;
}

static double *cell(const volume *v, int c, int y, int x) {
    return &v->x[(c * v->h + y) * v->w + x];
}

/* The values of a parameter as files have them. */
static float *parameter(const gfl_model *model, const char *name, const char *suffix) {
    char full[96];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    const int at = gfli_model_find(model, full);
    CHECK(at >= 0);
    const size_t n = at < 0 ? 1 : model->params[at].count;
    float *values = (float *)calloc(n, sizeof *values);
    CHECK_OK(model->context, gfl_model_get_parameter(model, full, values, n));
    return values;
}

static volume convolve(const gfl_model *model, const char *name, volume in, int out_c, int kernel,
                       int stride, int groups) {
    volume out = make_volume(out_c, (in.h - 1) / stride + 1, (in.w - 1) / stride + 1);
    float *weight = parameter(model, name, ".weight");
    const int each = in.c / groups;
    for (int o = 0; o < out_c; o++)
        for (int y = 0; y < out.h; y++)
            for (int x = 0; x < out.w; x++)
                for (int i = 0; i < each; i++)
                    for (int k = 0; k < kernel * kernel; k++) {
                        const int iy = y * stride - kernel / 2 + k / kernel;
                        const int ix = x * stride - kernel / 2 + k % kernel;
                        if (iy < 0 || ix < 0 || iy >= in.h || ix >= in.w) continue;
                        *cell(&out, o, y, x) +=
                            *cell(&in, o / (out_c / groups) * each + i, iy, ix) *
                            (double)weight[(o * each + i) * kernel * kernel + k];
                    }
    free(weight);
    return out;
}

/* x = relu?(a x + b) of every channel. */
static void scale_channels(volume v, const double *a, const double *b, bool relu) {
    for (int i = 0; i < v.c * v.h * v.w; i++) {
        const int c = i / (v.h * v.w);
        v.x[i] = a[c] * v.x[i] + b[c];
        if (relu && v.x[i] < 0) v.x[i] = 0;
    }
}

static void normalise_batch(const gfl_model *model, const char *name, volume v, bool relu) {
    float *gamma = parameter(model, name, ".weight"), *beta = parameter(model, name, ".bias");
    float *mean = parameter(model, name, ".running_mean");
    float *variance = parameter(model, name, ".running_var");
    double a[64], b[64];
    for (int c = 0; c < v.c; c++) {
        a[c] = (double)gamma[c] / sqrt((double)variance[c] + 1e-5);
        b[c] = (double)beta[c] - a[c] * (double)mean[c];
    }
    scale_channels(v, a, b, relu);
    free(gamma), free(beta), free(mean), free(variance);
}

/* 32 groups of v.c / 32 channels. */
static void normalise_groups(const gfl_model *model, const char *name, volume v) {
    float *gamma = parameter(model, name, ".weight"), *beta = parameter(model, name, ".bias");
    const int n = v.c / 32 * v.h * v.w;
    double a[64], b[64];
    for (int g = 0; g < 32; g++) {
        double sum = 0, squares = 0;
        for (int i = 0; i < n; i++) sum += v.x[g * n + i];
        for (int i = 0; i < n; i++)
            squares += (v.x[g * n + i] - sum / n) * (v.x[g * n + i] - sum / n);
        for (int c = g * v.c / 32; c < (g + 1) * v.c / 32; c++) {
            a[c] = (double)gamma[c] / sqrt(squares / n + 1e-5);
            b[c] = (double)beta[c] - a[c] * sum / n;
        }
    }
    scale_channels(v, a, b, true);
    free(gamma), free(beta);
}

static volume convolve_with_bias(const gfl_model *model, const char *name, volume in, int out_c,
                                 int kernel, int stride) {
    volume out = convolve(model, name, in, out_c, kernel, stride, 1);
    float *bias = parameter(model, name, ".bias");
    for (int i = 0; i < out.c * out.h * out.w; i++) out.x[i] += (double)bias[i / (out.h * out.w)];
    free(bias);
    return out;
}

static volume block_in_double(const gfl_model *model, int stage, int block, volume in, int out_c) {
    char deep[64], wide[64], norm[80];
    snprintf(deep, sizeof deep, "backbone.stage%d.%d.deep", stage, block);
    snprintf(wide, sizeof wide, "backbone.stage%d.%d.wide", stage, block);
    volume x = convolve(model, deep, in, in.c, 3, block == 0 ? 2 : 1, in.c);
    snprintf(norm, sizeof norm, "%s_norm", deep);
    normalise_batch(model, norm, x, true);
    volume out = convolve(model, wide, x, out_c, 1, 1, 1);
    snprintf(norm, sizeof norm, "%s_norm", wide);
    normalise_batch(model, norm, out, block == 0);
    for (int i = 0; i < out.c * out.h * out.w && block > 0; i++)
        out.x[i] = fmax(0, out.x[i] + in.x[i]);
    free(x.x);
    free(in.x);
    return out;
}

/* C3 to C5. */
static void backbone_in_double(const gfl_model *model, volume x, volume features[3]) {
    const int c = model->arch.base_channels;
    x = convolve(model, "backbone.first", x, c, 3, 2, 1);
    normalise_batch(model, "backbone.first_norm", x, true);
    for (int stage = 1; stage <= 4; stage++) {
        for (int block = 0; block < BLOCKS; block++)
            x = block_in_double(model, stage, block, x, c << (stage - 1));
        if (stage == 1) continue;
        features[stage - 2] = x;
        x = make_volume(x.c, x.h, x.w);
        memcpy(x.x, features[stage - 2].x, (size_t)(x.c * x.h * x.w) * sizeof(double));
    }
    free(x.x);
}

static void neck_in_double(const gfl_model *model, volume features[3], volume levels[GFL_LEVELS]) {
    const int c = model->arch.fpn_channels;
    volume lateral[3];
    char name[64];
    for (int i = 2; i >= 0; i--) {
        snprintf(name, sizeof name, "neck.lateral_convs.%d.conv", i);
        lateral[i] = convolve_with_bias(model, name, features[i], c, 1, 1);
        for (int k = 0; k < c && i < 2; k++)
            for (int y = 0; y < lateral[i].h; y++)
                for (int x = 0; x < lateral[i].w; x++)
                    *cell(&lateral[i], k, y, x) += *cell(&lateral[i + 1], k, y / 2, x / 2);
    }
    for (int i = 0; i < GFL_LEVELS; i++) {
        snprintf(name, sizeof name, "neck.fpn_convs.%d.conv", i);
        levels[i] = convolve_with_bias(model, name, i < 3 ? lateral[i] : levels[i - 1], c, 3,
                                       i < 3 ? 1 : 2);
    }
    for (int i = 0; i < 3; i++) free(lateral[i].x);
}

static volume tower_in_double(const gfl_model *model, const char *tower, const char *end, int out_c,
                              volume level) {
    char name[64];
    snprintf(name, sizeof name, "bbox_head.%s.0.conv", tower);
    volume x = convolve(model, name, level, model->arch.head_channels, 3, 1, 1);
    snprintf(name, sizeof name, "bbox_head.%s.0.gn", tower);
    normalise_groups(model, name, x);
    snprintf(name, sizeof name, "bbox_head.%s", end);
    volume out = convolve_with_bias(model, name, x, out_c, 3, 1);
    free(x.x);
    return out;
}

/* ---- forward --------------------------------------------------------------------------------- */

static double largest_of(volume v) {
    double largest = 0;
    for (int i = 0; i < v.c * v.h * v.w; i++) largest = fmax(largest, fabs(v.x[i]));
    return largest;
}

static void check_level(const gfli_map *map, int level, volume want) {
    const gfli_map got = gfli_map_level(map, level);
    const double allowed = 1e-4 * largest_of(want);
    CHECK(got.c == want.c && got.h[0] == want.h && got.w[0] == want.w);
    for (int y = 0; y < want.h; y++)
        for (int x = 0; x < want.w; x++)
            for (int c = 0; c < want.c; c++)
                CHECK_NEAR((double)got.data[(y * want.w + x) * want.c + c], *cell(&want, c, y, x),
                           allowed);
    free(want.x);
}

static void check_forward(const gfl_model *model, const gfli_plan *plan) {
    const gfli_map *input = &plan->maps[plan->input].map;
    const gfl_arch *arch = &model->arch;
    volume picture = make_volume(3, input->h[0], input->w[0]), features[3], levels[GFL_LEVELS];
    for (int i = 0; i < 3 * picture.h * picture.w; i++)
        picture.x[i % 3 * picture.h * picture.w + i / 3] = (double)input->data[i];
    backbone_in_double(model, picture, features);
    neck_in_double(model, features, levels);
    for (int l = 0; l < GFL_LEVELS; l++) {
        char name[64];
        snprintf(name, sizeof name, "bbox_head.scales.%d.scale", l);
        float *scale = parameter(model, name, "");
        volume cls = tower_in_double(model, "cls_convs", "gfl_cls", arch->n_classes, levels[l]);
        volume reg =
            tower_in_double(model, "reg_convs", "gfl_reg", 4 * arch->reg_max + 4, levels[l]);
        for (int i = 0; i < reg.c * reg.h * reg.w; i++) reg.x[i] *= (double)scale[0];
        check_level(&plan->maps[plan->cls].map, l, cls);
        check_level(&plan->maps[plan->reg].map, l, reg);
        free(levels[l].x);
        free(scale);
    }
    for (int i = 0; i < 3; i++) free(features[i].x);
    free(picture.x);
}

static void a_forward_pass_is_that_of_plain_loops_in_double_precision(void) {
    gfl_context *context = open_context(2);
    gfl_model_desc desc = small_desc();
    gfl_model *model = train_model(context, &desc);
    fx_fill_model(model);
    for (int training = 0; training < 2; training++) {
        gfli_plan plan;
        void *workspace, *stats, *scratch;
        CHECK_OK(context, gfli_plan_create(context, model, 1, 96, 160, training, &plan));
        CHECK_OK(context, gfli_alloc(context, plan.workspace_bytes, 1, "maps", &workspace));
        CHECK_OK(context, gfli_alloc(context, plan.stats_floats, sizeof(float), "stats", &stats));
        CHECK_OK(context, gfli_alloc(context, plan.scratch_bytes, 1, "scratch", &scratch));
        gfli_plan_bind(&plan, workspace);
        gfli_map *input = &plan.maps[plan.input].map;
        /* the input's place is used again: check against a copy that lasts */
        float *picture = test_uniform(gfli_map_count(input), -2, 2, 3);
        memcpy(input->data, picture, gfli_map_bytes(input));
        gfli_plan_forward(context, model, &plan, (float *)stats, scratch);
        input->data = picture;
        check_forward(model, &plan);
        gfli_plan_destroy(context, &plan);
        gfli_free(context, workspace);
        gfli_free(context, stats);
        gfli_free(context, scratch);
        free(picture);
    }
    gfl_model_destroy(model);
    gfl_context_destroy(context);
}

/* ---- training and files ---------------------------------------------------------------------- */

static void gradients_are_those_of_differences(void) {
    const gfl_model_desc desc = small_desc();
    bench t;
    open_bench(&t, open_context(2), &desc.arch, -1, 1, 64, 96);
    CHECK(check_gradients(&t, 0.05) > 40);
    close_bench(&t);
}

/* Two steps; stage 1 and what is before it stay. */
static void train_a_little(gfl_context *context, gfl_model *model, gfl_dataset *dataset) {
    gfl_trainer_desc desc;
    gfl_trainer *trainer = NULL;
    memset(&desc, 0, sizeof desc);
    desc.batch = 2;
    desc.epochs = 1;
    desc.lr = 0.01;
    desc.warmup = -1;
    desc.loaders = -1;
    desc.frozen_stages = 1;
    float *frozen = parameter(model, "backbone.stage1.1.deep", ".weight");
    float *trained = parameter(model, "backbone.stage2.0.deep", ".weight");
    CHECK_OK(context, gfl_trainer_create(context, model, dataset, &desc, &trainer));
    for (int i = 0; i < 2; i++) {
        gfl_step_report r;
        CHECK_OK(context, gfl_trainer_step(trainer, &r));
        CHECK(isfinite(r.loss) && r.loss > 0 && r.grad_norm > 0);
    }
    gfl_trainer_destroy(trainer);
    CHECK_OK(context, gfl_model_sync(model));
    float *after = parameter(model, "backbone.stage1.1.deep", ".weight");
    CHECK(memcmp(frozen, after, 9 * 5 * sizeof(float)) == 0);
    free(after);
    after = parameter(model, "backbone.stage2.0.deep", ".weight");
    CHECK(memcmp(trained, after, 9 * 5 * sizeof(float)) != 0);
    free(after), free(frozen), free(trained);
}

/* Everything that a model finds in a picture. */
static gfl_detection *find(gfl_context *context, const gfl_model *model, int *n) {
    gfl_detector *detector = NULL;
    gfl_detect_opts opts;
    gfl_detection_list found;
    gfl_pixels pixels;
    CHECK_OK(context, train_read_picture(NULL, context, 1, &pixels));
    const gfl_image image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height);
    memset(&opts, 0, sizeof opts);
    opts.min_score = 0.001f;
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &detector));
    CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &found));
    *n = found.count;
    gfl_detection *copy = (gfl_detection *)malloc((size_t)(found.count + 1) * sizeof *copy);
    memcpy(copy, found.items, (size_t)found.count * sizeof *copy);
    gfl_detector_destroy(detector);
    gfl_pixels_free(context, &pixels);
    return copy;
}

static void a_trained_model_is_saved_and_loaded(void) {
    gfl_context *context = open_context(2);
    gfl_dataset *dataset = train_dataset(context, 4, NULL, NULL);
    gfl_model_desc desc = small_desc();
    gfl_model *model, *loaded = NULL;
    gfl_load_desc how;
    gfl_model_info info;
    int n, n_loaded;
    desc.classes = gfl_dataset_get_classes(dataset);
    model = train_model(context, &desc);
    train_a_little(context, model, dataset);
    const char *path = "test_backbone.safetensors";
    CHECK_OK(context, gfl_model_save(model, path));
    memset(&how, 0, sizeof how);
    how.trainable = 1;
    CHECK_OK(context, gfl_model_load(context, path, &how, &loaded));
    gfl_model_get_info(loaded, &info);
    CHECK(info.arch.depth == DEPTH && info.arch.base_channels == 5 && info.arch.fpn_channels == 12);
    for (int i = 0; i < model->n_params; i++) {
        float *a = parameter(model, model->params[i].name, "");
        float *b = parameter(loaded, loaded->params[i].name, "");
        CHECK(memcmp(a, b, model->params[i].count * sizeof(float)) == 0);
        free(a), free(b);
    }
    gfl_detection *a = find(context, model, &n), *b = find(context, loaded, &n_loaded);
    CHECK(n > 0 && n == n_loaded && memcmp(a, b, (size_t)n * sizeof *a) == 0);
    free(a), free(b);
    for (int format = GFL_EXPORT_MMDET; format <= GFL_EXPORT_ONNX; format++)
        CHECK_OK(context, gfl_model_export(loaded, (gfl_export_format)format, NULL,
                                           "test_backbone.exported"));
    gfl_model_destroy(loaded);
    /* a library without this kind does not know the file */
    context->backbones = NULL;
    CHECK_ERROR(context, gfl_model_load(context, path, &how, &loaded), GFL_E_MISMATCH,
                "backbone.conv1.weight is missing");
    CHECK_ERROR(context, gfl_model_create(context, &desc, &loaded), GFL_E_ARG,
                "depth is 7; it must be one of 18, 34, 50, 101");
    gfl_model_destroy(model);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
}

static void a_backbone_alone_goes_from_model_to_model(void) {
    gfl_context *context = open_context(1);
    gfl_model_desc desc = small_desc(), wider = small_desc(), other;
    gfl_backbone_info info;
    const char *path = "test_backbone_alone.safetensors";
    train_micro_desc(&other, 18, 2);
    gfl_model *from = train_model(context, &desc);
    desc.seed = 2;
    wider.arch.base_channels = 6;
    gfl_model *to = train_model(context, &desc), *wide = train_model(context, &wider);
    gfl_model *resnet = train_model(context, &other);
    CHECK_OK(context, gfl_model_save_backbone(from, 3, path));
    CHECK_OK(context, gfl_backbone_describe(context, path, NULL, &info));
    CHECK(info.arch.depth == DEPTH && info.arch.base_channels == 5 && info.stages == 3);
    CHECK_OK(context, gfl_model_load_backbone(to, path));
    for (int i = 0; i < to->n_params; i++) {
        float *a = parameter(from, from->params[i].name, "");
        float *b = parameter(to, to->params[i].name, "");
        const bool weights = from->params[i].rank == 4, taken = from->params[i].stage <= 3;
        const bool same = memcmp(a, b, from->params[i].count * sizeof *a) == 0;
        if (weights) CHECK(same == taken && to->params[i].loaded == taken);
        free(a), free(b);
    }
    CHECK_ERROR(context, gfl_model_load_backbone(wide, path), GFL_E_MISMATCH, "another backbone");
    CHECK_ERROR(context, gfl_model_load_backbone(resnet, path), GFL_E_MISMATCH, "another backbone");
    gfl_model_destroy(from);
    gfl_model_destroy(to);
    gfl_model_destroy(wide);
    gfl_model_destroy(resnet);
    gfl_context_destroy(context);
}

/* What plans and passes rely on is checked where a network is described. */
static void descriptions_that_nothing_could_run_are_refused(void) {
    static const struct {
        enum mistake mistake;
        const char *text;
    } table[] = {{SKIPPED, "strides"},
                 {REREAD, "a step reads a map whose place an earlier one has taken"},
                 {SHORT, "does not fit"},
                 {UNFIT, "does not fit"},
                 {UNEVEN, "groups must divide the channels"},
                 {BACKWARDS, "stages must ascend"}};
    gfl_context *context = open_context(1);
    const gfl_model_desc desc = small_desc();
    for (size_t i = 0; i < GFLI_COUNT(table); i++) {
        gfl_model *model = NULL;
        mistake = table[i].mistake;
        CHECK_ERROR(context, gfl_model_create(context, &desc, &model), GFL_E_ARG, table[i].text);
        CHECK(model == NULL);
    }
    mistake = NONE;
    gfl_context_destroy(context);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST_CPU(a_forward_pass_is_that_of_plain_loops_in_double_precision),
        TEST_CPU(gradients_are_those_of_differences),
        TEST_CPU(a_trained_model_is_saved_and_loaded),
        TEST_CPU(a_backbone_alone_goes_from_model_to_model),
        TEST_CPU(descriptions_that_nothing_could_run_are_refused),
        {0},
    };
    return test_main(argc, argv, cases);
}
