/* test_export_onnx.c - exported graphs, run by the tests' interpreter, give the library's maps */
#include "fixture.h"
#include "onnx.h"
#include <unistd.h>

static gfl_context *context;
enum { HIGH = 64, WIDE = 96 };

static const char *scratch(void) {
    static char path[64];
    snprintf(path, sizeof path, "test_export_onnx_%ld.onnx", (long)getpid());
    return path;
}

/* Ordinary, grouped, and deformable in both versions. */
typedef struct kind {
    int depth, groups, deform, opset;
} kind;
static const kind kinds[] = {{18, 1, 0, 17}, {50, 4, 0, 17}, {50, 1, 1, 19}, {50, 4, 2, 19}};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static gfl_model *make(const kind *k, int bgr) {
    static const gfl_class classes[2] = {{"red \"cell\"", 3}, {"wei\xc3\x9f", 7}};
    gfl_model_desc desc;
    gfl_model *model = NULL;
    memset(&desc, 0, sizeof desc);
    desc.arch.depth = k->depth;
    desc.arch.groups = k->groups;
    desc.arch.base_width = k->groups > 1 ? 4 : 0;
    desc.arch.deform = k->deform;
    desc.arch.base_channels = 4;
    desc.arch.fpn_channels = 16;
    desc.arch.head_channels = 64;
    desc.arch.stacked_convs = 2;
    desc.arch.n_classes = 2;
    desc.arch.reg_max = 7;
    desc.preprocess.bgr = bgr;
    desc.classes = classes;
    desc.trainable = 1;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    if (!model) exit(1);
    fx_fill_model(model);
    return model;
}

/* The library's own maps for an input [n, 3, HIGH, WIDE], in double. */
typedef struct maps {
    gfli_plan plan;
    float *workspace, *stats;
    void *scratch;
} maps;

static maps run(const gfl_model *model, int n, const double *input) {
    maps m;
    CHECK_OK(context, gfli_plan_create(context, model, n, HIGH, WIDE, false, &m.plan));
    m.workspace = (float *)malloc(m.plan.workspace_bytes);
    m.stats = (float *)malloc(m.plan.stats_floats * sizeof(float));
    CHECK_OK(context, gfli_alloc(context, m.plan.scratch_bytes, 1, "scratch", &m.scratch));
    gfli_plan_bind(&m.plan, m.workspace);
    gfli_map *in = &m.plan.maps[m.plan.input].map;
    for (int i = 0; i < n * HIGH * WIDE; i++)
        for (int c = 0; c < 3; c++)
            in->data[i * 3 + c] =
                (float)input[(i / (HIGH * WIDE) * 3 + c) * HIGH * WIDE + i % (HIGH * WIDE)];
    gfli_plan_forward(context, model, &m.plan, m.stats, m.scratch);
    return m;
}

static void release(maps *m) {
    gfli_plan_destroy(context, &m->plan);
    gfli_free(context, m->scratch);
    free(m->workspace);
    free(m->stats);
}

static void fill(double *v, size_t n, uint64_t seed) {
    float *x = test_uniform(n, -2, 2, seed);
    for (size_t i = 0; i < n; i++) v[i] = (double)x[i];
    free(x);
}

/* Sizes as declared; nothing is made or stored for nobody. */
static void check_ends(ox_model *m) {
    for (int i = 0; i < m->n_consts; i++) {
        if (!m->values[i].uses) printf("nobody reads %s\n", m->values[i].name);
        CHECK(m->values[i].uses > 0);
    }
    for (int i = 0; i < m->n_outputs; i++) {
        const ox_end *e = &m->outputs[i];
        const ox_tensor *t = ox_find(m, e->name);
        CHECK(t && t->rank == e->rank && e->type == 1);
        for (int k = 0; t && k < e->rank; k++)
            CHECK(e->dims[k] ? e->dims[k] == t->dims[k] : e->free[k][0] != 0);
    }
    int read = 0;
    for (int i = m->n_consts; i < m->n_values; i++) read += m->values[i].uses > 0;
    CHECK(read == m->n_values - m->n_consts - m->n_outputs);
}

/* Level by level, [N, C, h, w] against NHWC. */
static void check_logits(ox_model *m, const char *name, const gfli_map *want) {
    double worst = 0;
    for (int l = 0; l < GFL_LEVELS; l++) {
        char full[32];
        snprintf(full, sizeof full, "%s.%d", name, l);
        const ox_tensor *t = ox_find(m, full);
        const gfli_map map = gfli_map_level(want, l);
        const size_t c = (size_t)map.c, hw = (size_t)map.h[0] * (size_t)map.w[0];
        CHECK(t && t->count == gfli_map_count(&map) && t->dims[1] == map.c);
        for (size_t i = 0; t && i < t->count; i++) {
            const size_t n = i / (c * hw), channel = i / hw % c, at = i % hw;
            const double w = (double)map.data[(n * hw + at) * c + channel];
            worst = fmax(worst, fabs(t->v[i] - w) / fmax(1, fabs(w)));
        }
    }
    CHECK_NEAR(worst, 0, 1e-5);
}

static void logits_are_the_librarys(void) {
    for (int k = 0; k < N_KINDS; k++) {
        const int64_t dims[4] = {2, 3, HIGH, WIDE};
        gfl_model *model = make(&kinds[k], 0);
        CHECK_OK(context, gfl_model_export(model, GFL_EXPORT_ONNX, NULL, scratch()));
        ox_model m = ox_open(scratch());
        CHECK(m.opset == kinds[k].opset && m.ir == (m.opset == 17 ? 8 : 9));
        CHECK(m.n_inputs == 1 && !strcmp(m.inputs[0].name, "input") && m.n_outputs == 10);
        CHECK(!strcmp(m.inputs[0].free[0], "batch") && m.inputs[0].dims[1] == 3);
        CHECK(!strcmp(ox_prop(&m, "classes"), "[\"red \\\"cell\\\"\",\"wei\xc3\x9f\"]"));
        CHECK(!strcmp(ox_prop(&m, "class_ids"), "[3,7]"));
        double *input = ox_feed(&m, "input", dims);
        fill(input, 2 * 3 * HIGH * WIDE, 1);
        ox_run(&m);
        maps want = run(model, 2, ox_find(&m, "input")->v);
        check_logits(&m, "cls_score", &want.plan.maps[want.plan.cls].map);
        check_logits(&m, "bbox_pred", &want.plan.maps[want.plan.reg].map);
        check_ends(&m);
        release(&want);
        ox_close(&m);
        gfl_model_destroy(model);
    }
    remove(scratch());
}

/* Spec 3 in double: score and box of every location, whose position is stride * cell + offset *
 * (stride - 1). */
static void check_decoded(ox_model *m, const maps *want, double offset) {
    const gfli_map *cls = &want->plan.maps[want->plan.cls].map;
    const gfli_map *reg = &want->plan.maps[want->plan.reg].map;
    const ox_tensor *scores = ox_find(m, "scores"), *boxes = ox_find(m, "boxes");
    const int bins = reg->c / 4;
    double worst_score = 0, worst_box = 0;
    size_t point = 0;
    CHECK(scores->count == gfli_map_count(cls) && boxes->count == gfli_points(cls) * 4);
    for (int l = 0; l < GFL_LEVELS; l++)
        for (int i = 0; i < cls->h[l] * cls->w[l]; i++, point++) {
            const float *logit = cls->data + point * (size_t)cls->c;
            const int stride = 8 << l;
            const double centre[2] = {i % cls->w[l] * stride + offset * (stride - 1),
                                      i / cls->w[l] * stride + offset * (stride - 1)};
            for (int c = 0; c < cls->c; c++)
                worst_score = fmax(worst_score, fabs(scores->v[point * (size_t)cls->c + (size_t)c] -
                                                     1 / (1 + exp(-(double)logit[c]))));
            for (int side = 0; side < 4; side++) {
                const float *x = reg->data + point * (size_t)reg->c + side * bins;
                double sum = 0, mean = 0;
                for (int b = 0; b < bins; b++) sum += exp((double)x[b]);
                for (int b = 0; b < bins; b++) mean += b * exp((double)x[b]) / sum;
                mean *= side < 2 ? -stride : stride;
                worst_box = fmax(worst_box, fabs(boxes->v[point * 4 + (size_t)side] -
                                                 (centre[side % 2] + mean)));
            }
        }
    CHECK_NEAR(worst_score, 0, 1e-5);
    CHECK_NEAR(worst_box, 0, 1e-3); /* pixels */
}

/* Of a fixed size, a graph consists of what OpenCV has read since 4.6: there it was tried, with one
 * image, and with several where no level is a single cell; its outputs are ONNX Runtime's. */
static void check_operators(const ox_model *m) {
    static const char *const known[] = {"Add",
                                        "Cast",
                                        "Concat",
                                        "Conv",
                                        "Div",
                                        "Exp",
                                        "MaxPool",
                                        "Mul",
                                        "Pad",
                                        "Relu",
                                        "Reshape",
                                        "Resize",
                                        "Sigmoid",
                                        "Softmax",
                                        "Sub",
                                        "Transpose",
                                        "InstanceNormalization",
                                        "Shape"};
    for (int i = 0; i < m->n_nodes; i++) {
        bool found = false;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            found = found || !strcmp(m->nodes[i].op, known[k]);
        CHECK(found);
        if (!found) printf("%s\n", m->nodes[i].op);
        if (!strcmp(m->nodes[i].op, "Pad")) /* a constant */
            for (int k = 0; k < m->n_nodes; k++) CHECK(strcmp(m->nodes[k].out[0], "pad.sizes"));
    }
}

/* Sizes in the graph or free, floats or bytes, both dialects. */
static void boxes_are_decoded(void) {
    for (int which = 0; which < 6; which++) {
        const bool fixed = which % 2 != 0, pixels = which / 2 == 1, gfocal = which > 3;
        const int w = pixels ? WIDE - 9 : WIDE, h = pixels ? HIGH - 20 : HIGH;
        const int64_t planes[4] = {1, 3, HIGH, WIDE}, image[4] = {1, h, w, 3};
        gfl_model *model = make(&kinds[0], pixels);
        if (gfocal) model->arch.dialect = GFL_DIALECT_GFOCAL;
        gfl_export_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.decode = 1;
        opts.pixels = pixels;
        opts.batch = fixed;
        opts.width = fixed ? w : 0;
        opts.height = fixed ? h : 0;
        CHECK_OK(context, gfl_model_export(model, GFL_EXPORT_ONNX, &opts, scratch()));
        ox_model m = ox_open(scratch());
        CHECK(m.n_outputs == 2 && m.n_inputs == 1);
        CHECK(m.inputs[0].type == (pixels ? 2 : 1) && m.inputs[0].dims[0] == fixed);
        CHECK(m.outputs[1].dims[1] == (fixed ? 96 + 24 + 6 + 2 + 1 : 0));
        double *input = ox_feed(&m, m.inputs[0].name, pixels ? image : planes);
        fill(input, (size_t)(3 * w * h), 2);
        for (int i = 0; pixels && i < 3 * w * h; i++) input[i] = floor((input[i] + 2) * 64);
        double *bytes = ox_find(&m, m.inputs[0].name)->v;
        ox_run(&m);
        maps want = run(model, 1, ox_find(&m, "input")->v);
        check_decoded(&m, &want, gfocal ? 0.5 : 0);
        check_ends(&m);
        if (fixed) check_operators(&m);
        if (pixels) { /* the plane of blue comes first; what is padded is 0 */
            const double *p = ox_find(&m, "input")->v;
            const gfl_preprocess *q = &model->preprocess;
            for (int c = 0; c < 3; c++)
                CHECK_NEAR(p[(c * HIGH + 5) * WIDE + 7],
                           (bytes[(5 * w + 7) * 3 + 2 - c] - (double)q->mean[c]) /
                               (double)q->std[c],
                           1e-6);
            CHECK(p[w] == 0 && p[h * WIDE] == 0 && p[3 * HIGH * WIDE - 1] == 0);
        }
        release(&want);
        ox_close(&m);
        gfl_model_destroy(model);
    }
    remove(scratch());
}

static void options_out_of_range_are_refused(void) {
    static const struct {
        int pixels, batch, width, height;
        const char *text;
    } wrong[] = {{0, -1, 0, 0, "batch"},        {0, 0, 64, 0, "multiples of 32"},
                 {0, 0, 0, 64, "both must be"}, {0, 0, 100, 64, "multiples of 32"},
                 {1, 0, -5, -5, "positive"},    {1, 0, 20000, 64, "16384"}};
    gfl_model *model = make(&kinds[0], 0);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        gfl_export_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.pixels = wrong[i].pixels;
        opts.batch = wrong[i].batch;
        opts.width = wrong[i].width;
        opts.height = wrong[i].height;
        CHECK_ERROR(context, gfl_model_export(model, GFL_EXPORT_ONNX, &opts, "x.onnx"), GFL_E_ARG,
                    wrong[i].text);
    }
    CHECK(!data_exists("x.onnx"));
    gfl_model_destroy(model);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(logits_are_the_librarys),
                                      TEST(boxes_are_decoded),
                                      TEST(options_out_of_range_are_refused),
                                      {0}};
    context = test_context(2);
    int code = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return code;
}
