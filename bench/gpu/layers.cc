/* layers.cc - what every step of a network costs on a GPU, beside what it has to cost
 *
 *     layers [NAME=VALUE ...]
 *
 *     model=r50 or weights=FILE, width=1344 height=800 batch=1, precision=bf16, runs=20
 *     variants=all or one of gfl_context_desc.kernel: a table of the kernels that apply to each
 *                  convolution, fastest first
 *     tune=1       gfl_context_desc.tune
 *     gemm=8192    side of the matrix product that measures the ceiling; 0: none, say peak=
 *     copy=1024    MiB of the copy that measures bandwidth
 *     peak=790     TFLOP/s that another library reaches here, where that is more than ours
 *     narrow=1     few channels, for the test of this program
 *     serve=1      no tables: for each line N of input the medians of N runs, in milliseconds, of
 *                  the network as a CUDA graph and of gfl_detect
 *
 * Steps are timed in place: the whole network runs in its stream with an event between any two, so
 * caches are as they are in earnest; a copy in front of it lets the host get ahead, so that no
 * launch is waited for.  Floor of a step: the larger of its operations and of its bytes (every
 * operand once) at the ceilings measured in the same run. */
#include "device.h"

enum { MAX_STEPS = 512, MAX_RUNS = 1000, HEAD_START_MS = 4 };

typedef struct options {
    const char *model, *weights, *precision, *variants;
    int width, height, batch, runs, tune, gemm, copy, narrow, serve;
    double peak;
} options;

/* What is known of a step before it runs; texts are cut to what fits. */
typedef struct step_info {
    char op[16], weights[72], kernel[40], shapes[48];
    double flop, bytes;
    int stage;
} step_info;

typedef struct bench {
    options o;
    gfl_context *context;
    gfl_model *model;
    gfl_detector *detector;
    gfl_image *images;
    gfl_detection_list *found;
    gfli_plan plan;
    void *workspace, *stats, *scratch, *copy[2];
    size_t copy_bytes;
    cudaStream_t stream;
    cudaEvent_t events[MAX_STEPS + 1];
    step_info steps[MAX_STEPS];
    int n_seen;
    double peak, bandwidth; /* FLOP and bytes a second */
    char peak_from[80];
} bench;

static void need(const bench *b, bool good, const char *what) {
    if (good) return;
    fprintf(stderr, "layers: %s: %s\n", what, b->context ? gfl_context_get_error(b->context) : "");
    exit(1);
}

static void need_cuda(cudaError_t e, const char *what) {
    if (e == cudaSuccess) return;
    fprintf(stderr, "layers: %s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

static int compare_floats(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double median(float *values, int n) {
    qsort(values, (size_t)n, sizeof *values, compare_floats);
    return n % 2 ? (double)values[n / 2]
                 : 0.5 * ((double)values[n / 2 - 1] + (double)values[n / 2]);
}

static void *device_alloc(const bench *b, size_t bytes, const char *what) {
    void *p = NULL;
    need(b, b->context->backend->device.alloc(b->context, bytes, 1, what, &p) == GFL_OK, what);
    return p;
}

static void device_free(const bench *b, void *p) {
    b->context->backend->device.free(b->context, p);
}

/* Fills n elements with numbers in -1 to 1: on zeros the hardware is faster than in earnest. */
static void fill(const bench *b, void *to, size_t n, gfli_element element) {
    static const size_t PIECE = (size_t)1 << 20;
    const size_t size = gfli_element_bytes(element);
    unsigned char *piece = (unsigned char *)malloc(PIECE * size);
    gfli_rng rng = gfli_rng_make(7, 0, 0, 0);
    for (size_t i = 0; i < PIECE && i < n; i++)
        element_put(piece, i, (float)(2.0 * gfli_rng_uniform(&rng) - 1.0), (int)element);
    for (size_t at = 0; at < n; at += PIECE) {
        const size_t left = n - at;
        b->context->backend->device.upload(b->context, (unsigned char *)to + at * size, piece,
                                    (left < PIECE ? left : PIECE) * size);
    }
    free(piece);
}

/* ---- ceilings -------------------------------------------------------------------------------- */

static double event_seconds(cudaEvent_t from, cudaEvent_t to) {
    float ms = 0.0f;
    need_cuda(cudaEventElapsedTime(&ms, from, to), "timing");
    return ms > 0.0f ? (double)ms * 1e-3 : 1e-9;
}

static void copy_once(const bench *b) {
    need_cuda(
        cudaMemcpyAsync(b->copy[1], b->copy[0], b->copy_bytes, cudaMemcpyDeviceToDevice, b->stream),
        "the copy");
}

static void measure_bandwidth(bench *b) {
    enum { TIMES = 11 };
    float seconds[TIMES];
    b->copy_bytes = (size_t)b->o.copy << 20;
    for (int i = 0; i < 2; i++) b->copy[i] = device_alloc(b, b->copy_bytes, "the copy");
    fill(b, b->copy[0], b->copy_bytes / sizeof(float), GFLI_MAP_F32);
    for (int i = -1; i < TIMES; i++) {
        need_cuda(cudaEventRecord(b->events[0], b->stream), "timing");
        copy_once(b);
        need_cuda(cudaEventRecord(b->events[1], b->stream), "timing");
        need_cuda(cudaEventSynchronize(b->events[1]), "the copy");
        if (i >= 0) seconds[i] = (float)event_seconds(b->events[0], b->events[1]);
    }
    b->bandwidth = 2.0 * (double)b->copy_bytes / median(seconds, TIMES);
}

/* Seconds of a product, as a 1x1 convolution, by one kernel; negative where it does not apply. */
static double time_product(bench *b, const gfli_conv_call *call, int variant, const char **kernel) {
    enum { TIMES = 9 };
    float seconds[TIMES];
    gfli_conv_means means;
    gfl_context *context = b->context;
    gfli_cuda_of(context)->preferred = variant;
    need(b, context->backend->infer.conv_prepare(context, call, 1, &means) == GFL_OK,
         "the product");
    gfli_cuda_of(context)->preferred = -1;
    *kernel = means.kernel;
    if (variant >= 0 && means.variant != variant) return -1.0;
    void *scratch = device_alloc(b, means.scratch + 1, "the product");
    for (int i = -1; i < TIMES; i++) {
        need_cuda(cudaEventRecord(b->events[0], b->stream), "timing");
        context->backend->infer.conv(context, call, 1, &means, scratch);
        need_cuda(cudaEventRecord(b->events[1], b->stream), "timing");
        need(b, context->backend->device.finish(context) == GFL_OK, "the product");
        if (i >= 0) seconds[i] = (float)event_seconds(b->events[0], b->events[1]);
    }
    device_free(b, scratch);
    return median(seconds, TIMES);
}

static void measure_peak(bench *b) {
    const int side = b->o.gemm;
    const gfli_conv_shape shape = {side, side, 1, 1, 0, 1};
    const size_t n = (size_t)side * (size_t)side;
    gfl_context *context = b->context;
    gfli_conv_call call;
    gfli_map x, y;
    memset(&call, 0, sizeof call);
    memset(&x, 0, sizeof x);
    x.n = x.levels = x.h[0] = 1;
    x.c = x.w[0] = side;
    x.element = context->element;
    y = x;
    x.data = (float *)device_alloc(b, gfli_map_bytes(&x), "the product");
    y.data = (float *)device_alloc(b, gfli_map_bytes(&y), "the product");
    fill(b, x.data, n, x.element);
    float *weight = (float *)malloc(n * sizeof *weight);
    gfli_rng rng = gfli_rng_make(8, 0, 0, 0);
    for (size_t i = 0; i < n; i++) weight[i] = (float)gfli_rng_uniform(&rng) - 0.5f;
    void *packing =
        device_alloc(b, context->backend->infer.conv_packed_size(context, &shape), "weights");
    float *there = (float *)device_alloc(b, n * sizeof *weight, "weights");
    context->backend->device.upload(context, there, weight, n * sizeof *weight);
    context->backend->infer.conv_pack(context, &shape, there, NULL, packing);
    need(b, context->backend->device.finish(context) == GFL_OK, "weights");
    context->backend->device.free(context, there);
    free(weight);
    call.shape = &shape;
    call.packing = packing;
    call.x = &x;
    call.y = &y;
    const int last = gfli_cuda_on_tensor(context) ? GFLI_CONV_VARIANTS : 0;
    for (int v = last ? 0 : -1; v < last; v++) {
        const char *kernel = "";
        const double seconds = time_product(b, &call, v, &kernel);
        const double rate = 2.0 * (double)n * (double)side / seconds;
        if (seconds < 0.0 || rate <= b->peak) continue;
        b->peak = rate;
        snprintf(b->peak_from, sizeof b->peak_from, "our %s, %d x %d x %d", kernel, side, side,
                 side);
    }
    device_free(b, packing);
    device_free(b, x.data);
    device_free(b, y.data);
}

static void measure_ceilings(bench *b) {
    measure_bandwidth(b);
    if (b->o.gemm > 0) measure_peak(b);
    if (b->o.peak * 1e12 > b->peak) {
        b->peak = b->o.peak * 1e12;
        snprintf(b->peak_from, sizeof b->peak_from, "given");
    }
    need(b, b->peak > 0.0, "a ceiling is wanted: gemm= or peak=");
    printf("Ceilings: %.1f TFLOP/s (%s), %.2f TB/s (copy of %d MiB, read and written).\n\n",
           b->peak * 1e-12, b->peak_from, b->bandwidth * 1e-12, b->o.copy);
}

/* ---- the network ----------------------------------------------------------------------------- */

static void see_step(void *user, const gfl_plan_step *s) {
    bench *b = (bench *)user;
    step_info *info = &b->steps[b->n_seen++ % MAX_STEPS];
    char splits[16] = "";
    if (s->splits > 1) snprintf(splits, sizeof splits, "/%d", s->splits);
    snprintf(info->op, sizeof info->op, "%s", s->op);
    snprintf(info->weights, sizeof info->weights, "%.60s%s", s->weights, s->twin[0] ? " +" : "");
    snprintf(info->kernel, sizeof info->kernel, "%.28s%s", s->kernel, splits);
    snprintf(info->shapes, sizeof info->shapes, "%dx%dx%d to %dx%dx%d", s->in_channels,
             s->in_height, s->in_width, s->out_channels, s->out_height, s->out_width);
}

static double layer_bytes(const bench *b, int layer, gfli_element element) {
    const gfli_layer *l = &b->model->layers[layer];
    return (double)(gfli_conv_weights(&l->shape) * gfli_element_bytes(element)) +
           4.0 * (double)l->shape.out_c;
}

/* Every operand once. */
static double step_bytes(const bench *b, const gfli_step *s) {
    const gfli_slot *maps = b->plan.maps;
    const gfli_element element = b->context->element;
    double bytes =
        (double)gfli_map_bytes(&maps[s->in].map) + (double)gfli_map_bytes(&maps[s->out].map);
    if (s->op == GFLI_OP_UPSAMPLE_ADD) bytes += (double)gfli_map_bytes(&maps[s->out].map);
    if (s->residual >= 0) bytes += (double)gfli_map_bytes(&maps[s->residual].map);
    if (s->offset >= 0) bytes += (double)gfli_map_bytes(&maps[s->offset].map);
    if (s->layer >= 0) bytes += layer_bytes(b, s->layer, element);
    if (s->twin.layer < 0) return bytes;
    if (s->twin.in != s->in) bytes += (double)gfli_map_bytes(&maps[s->twin.in].map);
    return bytes + (double)gfli_map_bytes(&maps[s->twin.out].map) +
           layer_bytes(b, s->twin.layer, element);
}

static double floor_us(const bench *b, const step_info *s) {
    const double compute = s->flop / b->peak, memory = s->bytes / b->bandwidth;
    return (compute > memory ? compute : memory) * 1e6;
}

/* With kernel `variant` wherever it applies; -1: with those that the library chooses. */
static void open_plan(bench *b, int variant) {
    const options *o = &b->o;
    gfl_context *context = b->context;
    gfli_cuda_of(context)->preferred = variant;
    need(b,
         gfli_plan_create(context, b->model, o->batch, gfli_pad32(o->height), gfli_pad32(o->width),
                          false, &b->plan) == GFL_OK,
         "planning");
    b->n_seen = 0;
    need(b,
         gfl_model_get_plan(b->model, o->width, o->height, o->batch, see_step, b) == GFL_OK &&
             b->n_seen == b->plan.n_steps && b->n_seen <= MAX_STEPS,
         "looking at the plan");
    gfli_cuda_of(context)->preferred = -1;
    b->workspace = device_alloc(b, b->plan.workspace_bytes, "workspace");
    b->stats = device_alloc(b, b->plan.stats_floats * sizeof(float) + 1, "statistics");
    b->scratch = device_alloc(b, b->plan.scratch_bytes + 1, "scratch");
    gfli_plan_bind(&b->plan, (float *)b->workspace);
    for (int i = 0; i < b->plan.n_steps; i++) {
        b->steps[i].flop = 2.0 * (double)b->plan.steps[i].macs;
        b->steps[i].bytes = step_bytes(b, &b->plan.steps[i]);
        b->steps[i].stage = b->plan.steps[i].stage;
    }
}

static void close_plan(bench *b) {
    device_free(b, b->workspace);
    device_free(b, b->stats);
    device_free(b, b->scratch);
    gfli_plan_destroy(b->context, &b->plan);
}

/* One run, with an event before each step and after the last. */
static void run_network(bench *b) {
    const double copies = HEAD_START_MS * 1e-3 * b->bandwidth / (2.0 * (double)b->copy_bytes);
    for (int i = 0; i < 64 && (double)i < copies; i++) copy_once(b);
    for (int i = 0; i < b->plan.n_steps; i++) {
        need_cuda(cudaEventRecord(b->events[i], b->stream), "timing");
        gfli_plan_run_step(b->context, b->model, &b->plan, i, (float *)b->stats, b->scratch);
    }
    need_cuda(cudaEventRecord(b->events[b->plan.n_steps], b->stream), "timing");
    need(b, b->context->backend->device.finish(b->context) == GFL_OK, "the network");
}

/* Median microseconds of each step, and of all in one [n_steps]. */
static void time_network(bench *b, int runs, double *us) {
    const int n = b->plan.n_steps;
    float *times = (float *)malloc((size_t)(n + 1) * (size_t)runs * sizeof *times);
    gfli_map *input = &b->plan.maps[b->plan.input].map;
    fill(b, input->data, gfli_map_count(input), input->element);
    for (int run = -1; run < runs; run++) {
        run_network(b);
        for (int i = 0; i <= n && run >= 0; i++)
            times[(size_t)i * (size_t)runs + (size_t)run] =
                1e6f * (float)event_seconds(b->events[i < n ? i : 0], b->events[i < n ? i + 1 : n]);
    }
    for (int i = 0; i <= n; i++) us[i] = median(times + (size_t)i * (size_t)runs, runs);
    free(times);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void print_row(const bench *b, const char *number, const step_info *s, double us) {
    const double floor = floor_us(b, s);
    printf("| %s | %s | %s | %s | %s | %.1f | %.1f | %.0f | %.1f | %.0f%% |\n", number, s->op,
           s->weights, s->shapes, s->kernel, us, s->flop / us * 1e-6, s->bytes / us * 1e-3, floor,
           100.0 * floor / us);
}

static void print_sums(const bench *b, const double *us) {
    static const char *const names[] = {"stem", "C2", "C3", "C4", "C5", "FPN and head"};
    step_info sums[GFLI_STAGE_HEAD + 2];
    double time[GFLI_STAGE_HEAD + 2], floors[GFLI_STAGE_HEAD + 2];
    memset(sums, 0, sizeof sums);
    for (int i = 0; i < GFLI_STAGE_HEAD + 2; i++) time[i] = floors[i] = 0.0;
    for (int i = 0; i < b->plan.n_steps; i++) {
        const int to[] = {b->steps[i].stage, GFLI_STAGE_HEAD + 1};
        for (int k = 0; k < 2; k++) {
            time[to[k]] += us[i];
            floors[to[k]] += floor_us(b, &b->steps[i]);
            sums[to[k]].flop += b->steps[i].flop;
            sums[to[k]].bytes += b->steps[i].bytes;
        }
    }
    printf("\n| part | us | TFLOP/s | GB/s | floor us | share of the floor |\n"
           "| --- | ---: | ---: | ---: | ---: | ---: |\n");
    for (int i = 0; i < GFLI_STAGE_HEAD + 2; i++)
        printf("| %s | %.1f | %.1f | %.0f | %.1f | %.0f%% |\n",
               i <= GFLI_STAGE_HEAD ? names[i] : "all steps", time[i],
               sums[i].flop / time[i] * 1e-6, sums[i].bytes / time[i] * 1e-3, floors[i],
               100.0 * floors[i] / time[i]);
    const double whole = us[b->plan.n_steps];
    printf(
        "\nThe network from its first step to its last: %.3f ms, %.0f images a second, %.0f%% of "
        "the floor's speed.\n",
        whole * 1e-3, (double)b->o.batch / whole * 1e6,
        100.0 * floors[GFLI_STAGE_HEAD + 1] / whole);
}

static void print_head(void) {
    printf("| step | op | weights | in to out | kernel | us | TFLOP/s | GB/s | floor us | share of "
           "the floor |\n| ---: | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |\n");
}

static void print_table(bench *b) {
    double us[MAX_STEPS + 1];
    char number[16];
    open_plan(b, -1);
    time_network(b, b->o.runs, us);
    print_head();
    for (int i = 0; i < b->plan.n_steps; i++) {
        snprintf(number, sizeof number, "%d", i);
        print_row(b, number, &b->steps[i], us[i]);
    }
    print_sums(b, us);
    close_plan(b);
}

/* A convolution by one of the kernels. */
typedef struct trial {
    int step;
    double us;
    step_info info;
} trial;

static int compare_trials(const void *a, const void *b) {
    const trial *x = (const trial *)a, *y = (const trial *)b;
    if (x->step != y->step) return x->step - y->step;
    return (x->us > y->us) - (x->us < y->us);
}

/* The network once with each kernel wherever it applies. */
static void print_variants(bench *b) {
    static trial trials[GFLI_CONV_VARIANTS * MAX_STEPS];
    double us[MAX_STEPS + 1];
    char number[16];
    int n = 0;
    for (int v = 0; v < GFLI_CONV_VARIANTS; v++) {
        const char *name = gfli_conv_variants[v].name;
        if (strcmp(b->o.variants, "all") != 0 && strcmp(b->o.variants, name) != 0) continue;
        open_plan(b, v);
        time_network(b, b->o.runs, us);
        for (int i = 0; i < b->plan.n_steps; i++) {
            const gfli_step *s = &b->plan.steps[i];
            if (s->layer < 0 || s->means.variant != v) continue;
            trials[n].step = i;
            trials[n].us = us[i];
            trials[n++].info = b->steps[i];
        }
        close_plan(b);
    }
    qsort(trials, (size_t)n, sizeof *trials, compare_trials);
    printf("\nKernels that apply, the fastest first:\n\n");
    print_head();
    for (int i = 0; i < n; i++) {
        snprintf(number, sizeof number, "%d", trials[i].step);
        print_row(b, number, &trials[i].info, trials[i].us);
    }
}

/* ---- beside others --------------------------------------------------------------------------- */

/* Milliseconds of the network as detectors run it. */
static double time_graph(bench *b, void *recording, int runs) {
    float *ms = (float *)malloc((size_t)runs * sizeof *ms);
    for (int run = -1; run < runs; run++) {
        need_cuda(cudaEventRecord(b->events[0], b->stream), "timing");
        b->context->backend->record->replay(b->context, recording);
        need_cuda(cudaEventRecord(b->events[1], b->stream), "timing");
        need(b, b->context->backend->device.finish(b->context) == GFL_OK, "the network");
        if (run >= 0) ms[run] = (float)(event_seconds(b->events[0], b->events[1]) * 1e3);
    }
    const double result = median(ms, runs);
    free(ms);
    return result;
}

static void *record_network(bench *b) {
    gfli_map *input = &b->plan.maps[b->plan.input].map;
    fill(b, input->data, gfli_map_count(input), input->element);
    run_network(b); /* loads the kernels */
    void *recording = NULL;
    if (b->context->backend->record->begin(b->context)) {
        for (int i = 0; i < b->plan.n_steps; i++)
            gfli_plan_run_step(b->context, b->model, &b->plan, i, (float *)b->stats, b->scratch);
        recording = b->context->backend->record->end(b->context);
    }
    need(b, recording != NULL, "recording the network");
    return recording;
}

static double time_detect(bench *b, int runs) {
    float *ms = (float *)malloc((size_t)runs * sizeof *ms);
    gfl_detect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.scale_long = b->o.width > b->o.height ? b->o.width : b->o.height;
    opts.scale_short = b->o.width > b->o.height ? b->o.height : b->o.width;
    for (int i = -1; i < runs; i++) {
        const double start = gfli_seconds();
        need(b, gfl_detect(b->detector, b->images, b->o.batch, &opts, b->found) == GFL_OK,
             "gfl_detect");
        if (i >= 0) ms[i] = (float)((gfli_seconds() - start) * 1e3);
    }
    const double result = median(ms, runs);
    free(ms);
    return result;
}

static void serve(bench *b) {
    char line[64];
    const size_t n = (size_t)b->o.batch, bytes = (size_t)b->o.width * (size_t)b->o.height * 3;
    uint8_t *noise = (uint8_t *)malloc(bytes);
    gfli_rng rng = gfli_rng_make(9, 0, 0, 0);
    for (size_t i = 0; i < bytes; i++) noise[i] = (uint8_t)gfli_rng_next(&rng);
    b->images = (gfl_image *)calloc(n, sizeof *b->images);
    b->found = (gfl_detection_list *)calloc(n, sizeof *b->found);
    for (size_t i = 0; i < n; i++) {
        b->images[i].pixels = noise;
        b->images[i].width = b->o.width;
        b->images[i].height = b->o.height;
    }
    need(b, gfl_detector_create(b->context, b->model, NULL, &b->detector) == GFL_OK,
         "the detector");
    open_plan(b, -1);
    void *recording = record_network(b);
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        const int runs = atoi(line);
        if (runs < 1 || runs > MAX_RUNS) break;
        const double network = time_graph(b, recording, runs);
        printf("%.6f %.6f\n", network, time_detect(b, runs));
        fflush(stdout);
    }
    b->context->backend->record->forget(b->context, recording);
    close_plan(b);
    gfl_detector_destroy(b->detector);
    free(b->images);
    free(b->found);
    free(noise);
}

/* ---- the program ----------------------------------------------------------------------------- */

static bool read_number(const char *argument, const char *name, int *out) {
    const size_t n = strlen(name);
    if (strncmp(argument, name, n) != 0 || argument[n] != '=') return false;
    *out = atoi(argument + n + 1);
    return true;
}

static bool read_text(const char *argument, const char *name, const char **out) {
    const size_t n = strlen(name);
    if (strncmp(argument, name, n) != 0 || argument[n] != '=') return false;
    *out = argument + n + 1;
    return true;
}

static bool read_options(int argc, char **argv, options *o) {
    const char *peak = "0";
    memset(o, 0, sizeof *o);
    o->model = "r50";
    o->precision = "bf16";
    o->width = 1344;
    o->height = 800;
    o->batch = 1;
    o->runs = 20;
    o->gemm = 8192;
    o->copy = 1024;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!read_text(a, "model", &o->model) && !read_text(a, "weights", &o->weights) &&
            !read_text(a, "precision", &o->precision) && !read_text(a, "peak", &peak) &&
            !read_number(a, "width", &o->width) && !read_number(a, "height", &o->height) &&
            !read_number(a, "batch", &o->batch) && !read_number(a, "runs", &o->runs) &&
            !read_text(a, "variants", &o->variants) && !read_number(a, "tune", &o->tune) &&
            !read_number(a, "gemm", &o->gemm) && !read_number(a, "copy", &o->copy) &&
            !read_number(a, "narrow", &o->narrow) && !read_number(a, "serve", &o->serve)) {
            fprintf(stderr, "layers: %s is no option; bench/gpu/layers.cc lists them\n", a);
            return false;
        }
    }
    o->peak = atof(peak);
    return o->batch > 0 && o->runs > 0 && o->runs <= MAX_RUNS && o->copy > 0;
}

static void open_context(bench *b) {
    static const char *const names[] = {"fp32", "tf32", "bf16", "fp16"};
    char error[300] = "";
    gfl_context_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.backend = gfl_cuda();
    desc.tune = b->o.tune;
    desc.error = error;
    desc.error_size = sizeof error;
    desc.precision = (gfl_precision)-1;
    for (int i = 0; i < 4; i++)
        if (!strcmp(b->o.precision, names[i])) desc.precision = (gfl_precision)i;
    if (gfl_context_create(&desc, &b->context) == GFL_OK) return;
    fprintf(stderr, "layers: %s\n", error);
    exit(1);
}

static void open_model(bench *b) {
    gfl_model_desc desc;
    memset(&desc, 0, sizeof desc);
    if (b->o.weights) {
        need(b, gfl_model_load(b->context, b->o.weights, NULL, &b->model) == GFL_OK, "the weights");
        return;
    }
    need(b, gfl_arch_find_preset(NULL, b->o.model, &desc.arch) == GFL_OK, "there is no such model");
    if (b->o.narrow) {
        desc.arch.base_channels = 8;
        desc.arch.fpn_channels = desc.arch.head_channels = 32;
        desc.arch.stacked_convs = 1;
        desc.arch.n_classes = 3;
    }
    need(b, gfl_model_create(b->context, &desc, &b->model) == GFL_OK, "the model");
}

int main(int argc, char **argv) {
    static bench b;
    if (!read_options(argc, argv, &b.o)) return 2;
    const int absent = device_absent();
    if (absent) return absent;
    open_context(&b);
    open_model(&b);
    b.stream = gfli_cuda_of(b.context)->stream;
    for (int i = 0; i <= MAX_STEPS; i++) need_cuda(cudaEventCreate(&b.events[i]), "events");
    if (b.o.serve) {
        measure_bandwidth(&b);
        serve(&b);
    } else {
        printf("%s, %s, %d x %dx%d, %s, medians of %d. ", b.o.weights ? b.o.weights : b.o.model,
               b.o.precision, b.o.batch, b.o.width, b.o.height, gfl_context_get_device(b.context),
               b.o.runs);
        measure_ceilings(&b);
        print_table(&b);
        if (b.o.variants && gfli_cuda_on_tensor(b.context)) print_variants(&b);
    }
    for (int i = 0; i <= MAX_STEPS; i++) need_cuda(cudaEventDestroy(b.events[i]), "events");
    for (int i = 0; i < 2; i++) device_free(&b, b.copy[i]);
    gfl_model_destroy(b.model);
    gfl_context_destroy(b.context);
    return 0;
}
