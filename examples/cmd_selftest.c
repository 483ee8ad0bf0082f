/* cmd_selftest.c - gfl selftest: does this machine compute the numbers that others compute? */
#include "cmd.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 150, HEIGHT = 100, CLASSES = 3, MARKS = 5, EVERYTHING = 100000 };

/* ---- what is expected ------------------------------------------------------------------------ */

/* A detection that stands out, by the location that it comes from. */
typedef struct mark {
    float x, y;
    int label;
    float score, side[4];
} mark;

typedef struct golden {
    const char *name;
    int depth, groups, deform;
    gfl_dialect dialect;
    int n, kept; /* detections without and with suppression */
    double scores, sides;
    mark marks[MARKS];
    double losses[2], norms[2]; /* of two steps of training */
    int n_positives;
} golden;

/* Made by "gfl selftest --print" on x86-64 with AVX-512, in fp32. */
static const golden table[] = {
    {"ResNet-18, mmdet",
     18,
     0,
     0,
     GFL_DIALECT_MMDET,
     1536,
     56,
     0.251660454,
     72.8318758,
     {{37.5f, 25, 2, 0.980208874f, {47.9982719f, 40.6293449f, 52.1338654f, 48.0803299f}},
      {100, 56.25f, 2, 0.962190449f, {48.4146996f, 51.8733635f, 54.0827866f, 51.5488091f}},
      {125, 93.75f, 2, 0.949976087f, {53.499855f, 58.2254829f, 44.4207115f, 63.124157f}},
      {87.5f, 0, 1, 0.949970603f, {58.3913574f, 38.7266769f, 29.3307209f, 28.3421745f}},
      {87.5f, 0, 0, 0.928183019f, {58.3913574f, 38.7266769f, 29.3307209f, 28.3421745f}}},
     {11.8485503, 3.98597211},
     {222.970542, 40.5064463},
     35},
    {"ResNeXt-50 with DCNv2, gfocal",
     50,
     2,
     2,
     GFL_DIALECT_GFOCAL,
     1536,
     40,
     0.217738219,
     79.4343628,
     {{8.984375f, 15.234375f, 1, 0.959365785f, {42.0210419f, 58.4042854f, 48.532383f, 43.4848976f}},
      {137.109375f,
       62.109375f,
       2,
       0.948620319f,
       {194.369934f, 249.873138f, 198.542877f, 224.702148f}},
      {71.484375f,
       21.484375f,
       0,
       0.935459614f,
       {60.773468f, 74.3746338f, 54.8021965f, 52.6721878f}},
      {21.484375f,
       83.984375f,
       0,
       0.928394318f,
       {42.5327187f, 58.0194817f, 49.5577469f, 57.2471848f}},
      {15.234375f,
       2.734375f,
       2,
       0.923383415f,
       {55.682106f, 48.9033241f, 56.6752319f, 54.1951599f}}},
     {8.76725705, 8.2269141},
     {249.46029, 126.047128},
     36},
};
enum { NETWORKS = sizeof table / sizeof *table };

/* What may be between two machines, by gfl_precision: of a score, of the distance of a side as a
 * part of the picture's width, of a mean over all, of the number of detections. */
static const struct {
    const char *name;
    double score, side, mean, count;
} allowed[] = {{"fp32", 1e-5, 1e-5, 1e-6, 0},
               {"tf32", 0.005, 0.005, 0.001, 0.05},
               {"bf16", 0.04, 0.04, 0.005, 0.1},
               {"fp16", 0.005, 0.005, 0.001, 0.05}};

/* ---- what is computed ------------------------------------------------------------------------ */

typedef struct selftest {
    gfl_context *context;
    int precision;
    double disturb;
    bool print;
    int wrong;    /* of this network */
    double worst; /* a difference as a part of what is allowed */
} selftest;

static void compare(selftest *t, const char *what, double got, double want, double most) {
    const double off = fabs(got - want);
    if (off / most > t->worst) t->worst = off / most;
    if (off <= most) return;
    t->wrong++;
    printf("  WRONG: %s is %.7g, not %.7g: off by %.2g, allowed are %.2g\n", what, got, want, off,
           most);
}

/* Integers alone, so that no machine has another picture. */
static uint8_t pixel(int picture, int x, int y, int c) {
    return (uint8_t)(((x * x * (c + 3) + y * y * 7 + x * y * (5 + picture)) >> 5) + 40 * c);
}

static gfl_status paint(void *user, gfl_context *context, int image, gfl_pixels *out) {
    (void)user;
    const gfl_status status = gfl_pixels_alloc(context, WIDTH, HEIGHT, out);
    for (int y = 0; status == GFL_OK && y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < 3; c++) out->rgb[3 * (y * WIDTH + x) + c] = pixel(image, x, y, c);
    return status;
}

static bool is_zero(const float *x, size_t n) {
    size_t i = 0;
    while (i < n && x[i] >= 0 && x[i] <= 0) i++;
    return i == n;
}

/* Fresh weights say little: branches begin at zero, and all scores are alike. */
static void enliven(const gfl_parameter *p, float *x) {
    const bool zero = is_zero(x, p->count), scores = !strcmp(p->name, "bbox_head.gfl_cls.weight");
    for (size_t i = 0; i < p->count; i++) {
        if (zero && p->rank == 4) x[i] = (float)((int)(i * 37 % 101) - 50) / 512;
        if (zero && strstr(p->name, ".weight") && p->rank == 1) x[i] = 0.5f;
        if (scores) x[i] *= 16;
        if (!strcmp(p->name, "bbox_head.gfl_reg.weight")) x[i] *= 8;
        if (!strcmp(p->name, "bbox_head.gfl_cls.bias")) x[i] = -1.5f;
    }
}

static gfl_status fill(gfl_model *model, double disturb) {
    gfl_status status = GFL_OK;
    gfl_parameter p;
    for (int i = 0; status == GFL_OK && gfl_model_describe_parameter(model, i, &p) == GFL_OK; i++) {
        float *values = take(p.count, sizeof *values);
        if (!values) return GFL_E_MEMORY;
        status = gfl_model_get_parameter(model, p.name, values, p.count);
        if (status == GFL_OK) enliven(&p, values);
        if (!strcmp(p.name, "backbone.layer3.0.conv1.weight")) values[7] += (float)disturb;
        if (status == GFL_OK) status = gfl_model_set_parameter(model, p.name, values, p.count);
        free(values);
    }
    return status == GFL_OK ? gfl_model_sync(model) : status;
}

static gfl_status make_model(const selftest *t, const golden *g, gfl_model **out) {
    gfl_model_desc desc = {0};
    desc.arch.depth = g->depth;
    desc.arch.groups = g->groups;
    desc.arch.base_width = g->groups ? 4 : 0;
    desc.arch.base_channels = 8;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.stacked_convs = 2;
    desc.arch.n_classes = CLASSES;
    desc.arch.deform = g->deform;
    desc.arch.dialect = g->dialect;
    desc.preprocess.mean[0] = desc.preprocess.mean[1] = desc.preprocess.mean[2] = 128;
    desc.preprocess.std[0] = desc.preprocess.std[1] = desc.preprocess.std[2] = 64;
    desc.preprocess.scale_long = 192;
    desc.preprocess.scale_short = 128;
    desc.seed = 2026;
    desc.trainable = 1;
    const gfl_status status = gfl_model_create(t->context, &desc, out);
    return status == GFL_OK ? fill(*out, t->disturb) : status;
}

/* ---- detection ------------------------------------------------------------------------------- */

static int find(const gfl_detection_list *found, float x, float y, int label) {
    int i = 0;
    while (i < found->count &&
           (found->items[i].label != label || fabsf(found->distributions[i].x - x) > 0.01f ||
            fabsf(found->distributions[i].y - y) > 0.01f))
        i++;
    return i;
}

static void check_mark(selftest *t, const mark *m, const gfl_detection_list *found) {
    const int i = find(found, m->x, m->y, m->label);
    char what[80];
    snprintf(what, sizeof what, "the score of class %d at %g, %g", m->label, (double)m->x,
             (double)m->y);
    compare(t, what, i < found->count ? (double)found->items[i].score : 0, (double)m->score,
            allowed[t->precision].score);
    for (int k = 0; k < 4 && i < found->count; k++) {
        snprintf(what, sizeof what, "side %d of class %d at %g, %g", k, m->label, (double)m->x,
                 (double)m->y);
        compare(t, what, (double)found->distributions[i].mean[k], (double)m->side[k],
                (double)WIDTH * allowed[t->precision].side);
    }
}

static void print_marks(const gfl_detection_list *found) {
    for (int i = 0; i < MARKS; i++) {
        const gfl_distribution *p = &found->distributions[i];
        printf("%s{%.9gf, %.9gf, %d, %.9gf, {%.9gf, %.9gf, %.9gf, %.9gf}}", i ? ",\n  " : "{",
               (double)p->x, (double)p->y, found->items[i].label, (double)found->items[i].score,
               (double)p->mean[0], (double)p->mean[1], (double)p->mean[2], (double)p->mean[3]);
    }
    printf("},\n");
}

static void check_found(selftest *t, const golden *g, const gfl_detection_list *found, int kept) {
    double scores = 0, sides = 0;
    for (int i = 0; i < found->count; i++) {
        scores += (double)found->items[i].score / found->count;
        for (int k = 0; k < 4; k++)
            sides += (double)found->distributions[i].mean[k] / (4.0 * found->count);
    }
    if (t->print) {
        printf("%d, %d, %.9g, %.9g,\n ", found->count, kept, scores, sides);
        print_marks(found);
        return;
    }
    compare(t, "the number of detections", found->count, g->n, 0.5);
    compare(t, "the number of detections after suppression", kept, g->kept,
            0.5 + allowed[t->precision].count * g->kept);
    compare(t, "the mean score", scores, g->scores, allowed[t->precision].mean);
    compare(t, "the mean distance of a side", sides, g->sides,
            (double)WIDTH * allowed[t->precision].mean);
    for (int i = 0; i < MARKS; i++) check_mark(t, &g->marks[i], found);
}

/* Everything that there is, then what suppression leaves of it. */
static gfl_status check_detection(selftest *t, const golden *g, const gfl_model *model) {
    gfl_detector_desc how = {0};
    gfl_detect_opts opts = {0};
    gfl_detector *detector[2] = {NULL, NULL};
    gfl_detection_list found, kept;
    gfl_pixels pixels;
    how.distributions = 1;
    opts.min_score = 1e-7f;
    opts.nms_iou = 1;
    opts.max_detections = opts.max_per_level = EVERYTHING;
    gfl_status status = paint(NULL, t->context, 0, &pixels);
    for (int i = 0; i < 2 && status == GFL_OK; i++) {
        const gfl_image image = gfl_image_from_rgb(pixels.rgb, WIDTH, HEIGHT);
        status = gfl_detector_create(t->context, model, &how, &detector[i]);
        if (status == GFL_OK)
            status = gfl_detect(detector[i], &image, 1, &opts, i ? &kept : &found);
        opts.nms_iou = 0;
        opts.min_score = 0.2f;
    }
    if (status == GFL_OK) check_found(t, g, &found, kept.count);
    gfl_pixels_free(t->context, &pixels);
    for (int i = 0; i < 2; i++) gfl_detector_destroy(detector[i]);
    return status;
}

/* ---- training -------------------------------------------------------------------------------- */

static gfl_status make_data(gfl_context *context, gfl_dataset **out) {
    static const gfl_class classes[CLASSES] = {{"class 0", 1}, {"class 1", 2}, {"class 2", 3}};
    static const double boxes[4][5] = {
        {10, 12, 60, 50, 0}, {70, 20, 75, 78, 1}, {5, 60, 30, 36, 2}, {40, 8, 90, 88, 1}};
    gfl_annotation all[4];
    gfl_image_info images[2];
    gfl_dataset_desc desc = {0};
    memset(all, 0, sizeof all);
    memset(images, 0, sizeof images);
    desc.read_image = paint;
    for (int i = 0; i < 4; i++) {
        all[i].x = boxes[i][0];
        all[i].y = boxes[i][1];
        all[i].w = boxes[i][2];
        all[i].h = boxes[i][3];
        all[i].label = (int)boxes[i][4];
    }
    for (int i = 0; i < 2; i++) {
        images[i].width = WIDTH;
        images[i].height = HEIGHT;
        images[i].annotations = &all[3 * i];
        images[i].n_annotations = i ? 1 : 3;
    }
    return gfl_dataset_create(context, classes, CLASSES, images, 2, &desc, out);
}

static gfl_status train_twice(selftest *t, const golden *g, gfl_trainer *trainer) {
    gfl_step_report r;
    for (int i = 0; i < 2; i++) {
        const gfl_status status = gfl_trainer_step(trainer, &r);
        if (status != GFL_OK) return status;
        if (t->print) {
            printf("%.9g, %.9g, %d\n", r.loss, r.grad_norm, r.n_positives);
            continue;
        }
        compare(t, i ? "the second loss" : "the first loss", r.loss, g->losses[i],
                1e-5 * g->losses[i]);
        compare(t, i ? "the second gradient's norm" : "the first gradient's norm", r.grad_norm,
                g->norms[i], 1e-4 * g->norms[i]);
        compare(t, "the number of positives", r.n_positives, g->n_positives, 0.5);
    }
    return GFL_OK;
}

/* *trained: whether the device can. */
static gfl_status check_training(selftest *t, const golden *g, gfl_model *model, bool *trained) {
    gfl_trainer_desc desc = {0};
    gfl_trainer *trainer = NULL;
    gfl_dataset *dataset = NULL;
    desc.batch = 2;
    desc.epochs = 2;
    desc.lr = 0.01;
    desc.warmup = desc.loaders = desc.frozen_stages = -1;
    desc.no_flip = 1;
    gfl_status status = make_data(t->context, &dataset);
    if (status == GFL_OK) status = gfl_trainer_create(t->context, model, dataset, &desc, &trainer);
    *trained = status != GFL_E_UNSUPPORTED;
    if (status == GFL_OK) status = train_twice(t, g, trainer);
    gfl_trainer_destroy(trainer);
    gfl_dataset_destroy(dataset);
    return *trained ? status : GFL_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int check_network(selftest *t, const golden *g) {
    gfl_model *model = NULL;
    bool trained = false;
    t->wrong = 0;
    t->worst = 0;
    gfl_status status = make_model(t, g, &model);
    if (status == GFL_OK) status = check_detection(t, g, model);
    if (status == GFL_OK) status = check_training(t, g, model, &trained);
    gfl_model_destroy(model);
    if (status != GFL_OK) return report(t->context, status, g->name);
    printf("  %-28s detection%s: %s; the largest difference is %.2g of what is allowed\n", g->name,
           trained ? " and training" : ", no training", t->wrong ? "WRONG" : "right", t->worst);
    return t->wrong ? CMD_FAILED : CMD_OK;
}

static int check_device(selftest *t, const device_choice *choice, int threads) {
    int code = open_context_on(choice, threads, &t->context);
    if (code != CMD_OK) return code;
    for (int i = 0; i < 4; i++)
        if (!strcmp(precision_of(choice), allowed[i].name)) t->precision = i;
    printf("gfl %s: %s, %s\n", GFL_VERSION_TEXT, gfl_context_get_device(t->context),
           allowed[t->precision].name);
    for (int i = 0; i < NETWORKS; i++) {
        const int one = check_network(t, &table[i]);
        if (code == CMD_OK) code = one;
    }
    gfl_context_destroy(t->context);
    return code;
}

/* A CPU is tested with each of its instruction sets. */
static int check_devices(selftest *t, device_choice choice, int threads) {
    const bool cpu = !choice.name || !strcmp(choice.name, "cpu");
    if (!cpu || choice.kernel) return check_device(t, &choice, threads);
    int code = CMD_OK;
    for (int i = 0; (choice.kernel = gfl_cpu_get_kernel(i)) != NULL; i++) {
        const int one = check_device(t, &choice, threads);
        if (code == CMD_OK) code = one;
    }
    return code;
}

int cmd_selftest(int argc, char **argv) {
    selftest t;
    device_choice device = {0};
    int n_rest = 0, threads = 0;
    memset(&t, 0, sizeof t);
    opt options[] = {
        DEVICE_OPTIONS(device),
        THREADS_OPTION(threads),
        {OPT_REAL, "disturb", &t.disturb, "X",
         "Add X to one weight of each network first, to see that the test fails.", 0},
        {OPT_FLAG, "print", &t.print, NULL,
         "Print the numbers that are computed, instead of comparing them.", 0},
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("selftest [options]", options, argc, argv, (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (n_rest) return usage_error("selftest takes options only; \"%s\" is not one", argv[0]);
    code = check_devices(&t, device, threads);
    if (code == CMD_OK && !t.print) puts("all numbers are right");
    return code;
}
