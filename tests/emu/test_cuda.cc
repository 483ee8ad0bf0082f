/* test_cuda.cc - detection on the GPU backend beside the CPU's, and what happens when CUDA fails */
#include "conv.h"
#include "found.h"

#include "device.h"

static gfl_context *open_in(const gfl_backend *backend, gfl_precision precision,
                            const char *kernel) {
    gfl_context_desc desc;
    gfl_context *context = NULL;
    char text[300] = "";
    memset(&desc, 0, sizeof desc);
    desc.backend = backend;
    desc.precision = precision;
    desc.kernel = kernel;
    desc.n_threads = 1;
    desc.error = text;
    desc.error_size = sizeof text;
    CHECK(gfl_context_create(&desc, &context) == GFL_OK);
    if (text[0]) printf("%s\n", text);
    return context;
}

static gfl_context *open_on(const gfl_backend *backend) {
    return open_in(backend, GFL_PRECISION_FP32, NULL);
}

/* ---- single operations ----------------------------------------------------------------------- */

/* A map on the host and its twin on the device. */
typedef struct twin {
    gfli_map host, device;
} twin;

static size_t bytes_of(const gfli_map *m) {
    return gfli_map_count(m) * sizeof(float);
}

static void *place(gfl_context *gpu, const void *from, size_t bytes) {
    void *p = NULL;
    CHECK_OK(gpu, gpu->backend->device.alloc(gpu, bytes, 1, "test", &p));
    gpu->backend->device.upload(gpu, p, from, bytes);
    return p;
}

static twin make_twin(gfl_context *gpu, int n, int c, int levels, const int *h, const int *w,
                      uint64_t seed) {
    twin t;
    t.device = t.host = test_map(n, c, levels, h, w);
    t.host.data = test_uniform(gfli_map_count(&t.host), -2, 2, seed);
    t.device.data = (float *)place(gpu, t.host.data, bytes_of(&t.host));
    return t;
}

static void free_twin(gfl_context *gpu, twin *t) {
    free(t->host.data);
    gpu->backend->device.free(gpu, t->device.data);
}

static void check_twin(gfl_context *gpu, const twin *t, double tolerance) {
    float *got = (float *)malloc(bytes_of(&t->host));
    gpu->backend->device.download(gpu, got, t->device.data, bytes_of(&t->host));
    CHECK_OK(gpu, gpu->backend->device.finish(gpu));
    CHECK_CLOSE(got, t->host.data, gfli_map_count(&t->host), tolerance);
    free(got);
}

typedef struct conv_case {
    gfli_conv_shape s;
    int offset_c, n, levels;
    int h[GFL_LEVELS], w[GFL_LEVELS];
} conv_case;

static const conv_case convs[] = {
    {{3, 16, 7, 2, 3, 1}, 0, 1, 1, {15}, {18}},
    {{40, 68, 3, 1, 1, 1}, 0, 2, 3, {5, 3, 1}, {6, 2, 1}},
    {{17, 31, 1, 2, 0, 1}, 0, 2, 1, {7}, {8}},
    {{64, 64, 3, 2, 1, 16}, 0, 1, 1, {9}, {7}},
    {{12, 12, 3, 1, 1, 3}, 0, 1, 1, {6}, {6}},
    {{72, 144, 3, 1, 1, 1}, 0, 1, 1, {3}, {4}},
    {{16, 24, 3, 1, 1, 1}, 18, 2, 1, {6}, {5}},
    {{16, 16, 3, 2, 1, 4}, 27, 1, 1, {9}, {7}},
};

static void convolve(gfl_context *cpu, gfl_context *gpu, const conv_case *c, int mode) {
    const gfli_conv_shape *s = &c->s;
    int h[GFL_LEVELS], w[GFL_LEVELS];
    for (int l = 0; l < c->levels; l++) {
        h[l] = gfli_conv_out(s, c->h[l]);
        w[l] = gfli_conv_out(s, c->w[l]);
    }
    twin x = make_twin(gpu, c->n, s->in_c, c->levels, c->h, c->w, 1);
    twin y = make_twin(gpu, c->n, s->out_c, c->levels, h, w, 2);
    twin residual = make_twin(gpu, c->n, s->out_c, c->levels, h, w, 3);
    twin offset = make_twin(gpu, c->n, c->offset_c ? c->offset_c : 1, c->levels, h, w, 4);
    float *weight = test_uniform(gfli_conv_weights(s), -0.3, 0.3, 5);
    float *scale = test_uniform((size_t)s->out_c, 0.5, 2, 6);
    float *bias = test_uniform((size_t)s->out_c, -1, 1, 7);
    float *bias_there = (float *)place(gpu, bias, (size_t)s->out_c * sizeof(float));
    for (int side = 0; side < 2; side++) {
        gfl_context *context = side ? gpu : cpu;
        const gfli_map *in = side ? &x.device : &x.host, *out = side ? &y.device : &y.host;
        const gfli_map *add = side ? &residual.device : &residual.host;
        const gfli_map *by = side ? &offset.device : &offset.host;
        const float *b = mode ? (side ? bias_there : bias) : NULL;
        gfli_conv_call call = test_conv_call(s, in, out, b, mode);
        if (c->offset_c)
            call.offset = by;
        else if (mode)
            call.residual = add;
        test_convolve(context, call, weight, mode ? scale : NULL);
    }
    check_twin(gpu, &y, 2e-5);
    twin *all[] = {&x, &y, &residual, &offset};
    for (int i = 0; i < 4; i++) free_twin(gpu, all[i]);
    gpu->backend->device.free(gpu, bias_there);
    free(weight);
    free(scale);
    free(bias);
}

static void convolutions_are_the_cpus(void) {
    gfl_context *cpu = open_on(NULL), *gpu = open_on(gfl_cuda());
    for (size_t i = 0; i < GFLI_COUNT(convs); i++)
        for (int mode = 0; mode < 2; mode++) convolve(cpu, gpu, &convs[i], mode);
    CHECK(emulated_errors() == 0);
    gfl_context_destroy(gpu);
    gfl_context_destroy(cpu);
}

static void pools_norms_and_scales_are_the_cpus(void) {
    static const int h[] = {7, 3}, w[] = {9, 4}, ph[] = {4}, pw[] = {5}, one[] = {1, 1};
    float scale[2 * GFLI_BLOCK_STEP] = {1.5f};
    scale[GFLI_BLOCK_STEP] = -0.25f;
    gfl_context *cpu = open_on(NULL), *gpu = open_on(gfl_cuda());
    const gfli_backend *c = cpu->backend, *g = gpu->backend;
    twin x = make_twin(gpu, 2, 64, 1, h, w, 1), y = make_twin(gpu, 2, 64, 1, ph, pw, 2);
    twin both = make_twin(gpu, 2, 64, 2, h, w, 3), norms = make_twin(gpu, 2, 64, 1, one, one, 4);
    twin stats = make_twin(gpu, 2, 32 * 2, 2, one, one, 5);
    c->infer.max_pool(cpu, &x.host, &y.host);
    g->infer.max_pool(gpu, &x.device, &y.device);
    check_twin(gpu, &y, 0);
    c->infer.upsample_add(cpu, &y.host, &x.host);
    g->infer.upsample_add(gpu, &y.device, &x.device);
    check_twin(gpu, &x, 0);
    for (int i = 0; i < 2; i++) {
        c->infer.group_norm(cpu, &both.host, 32, 1e-5f, norms.host.data, norms.host.data + 64,
                            &both.host, stats.host.data, false);
        g->infer.group_norm(gpu, &both.device, 32, 1e-5f, norms.device.data, norms.device.data + 64,
                      &both.device, stats.device.data, false);
        check_twin(gpu, &both, 2e-6 * (1 + 9 * i));
    }
    c->infer.level_scale(cpu, &both.host, scale, &both.host);
    float *scale_there = (float *)place(gpu, scale, sizeof scale);
    g->infer.level_scale(gpu, &both.device, scale_there, &both.device);
    g->device.free(gpu, scale_there);
    check_twin(gpu, &both, 2e-5);
    twin *all[] = {&x, &y, &both, &norms, &stats};
    for (int i = 0; i < 5; i++) free_twin(gpu, all[i]);
    CHECK(emulated_errors() == 0);
    gfl_context_destroy(gpu);
    gfl_context_destroy(cpu);
}

static void resizes_are_the_cpus_to_the_bit(void) {
    enum { MOST = 40 * 40 * 4 };
    static const int sizes[][4] = {{13, 9, 20, 31}, {24, 18, 11, 7}, {1, 5, 4, 4}, {8, 8, 8, 8}};
    static const int bytes[] = {3, 3, 4, 4, 1};
    gfl_context *cpu = open_on(NULL), *gpu = open_on(gfl_cuda());
    float *noise = test_uniform(MOST, 0, 256, 1);
    uint8_t pixels[MOST], want[MOST], got[MOST];
    for (int i = 0; i < MOST; i++) pixels[i] = (uint8_t)noise[i];
    for (int k = 0; k < 4 * 5 * 2; k++) {
        const int *size = sizes[k % 4], format = k / 4 % 5;
        const size_t n = (size_t)(size[2] * size[3] * 3);
        gfl_image image;
        memset(&image, 0, sizeof image);
        image.pixels = pixels;
        image.width = size[0];
        image.height = size[1];
        image.format = (gfl_format)format;
        image.stride = size[0] * bytes[format] + 5;
        if (k >= 20) {
            image.pixels += (image.height - 1) * image.stride;
            image.stride = -image.stride;
        }
        void *scratch =
            malloc(cpu->backend->infer.resize_scratch(cpu, size[0], size[1], size[2], size[3]));
        void *there = place(
            gpu, pixels,
            gpu->backend->infer.resize_scratch(gpu, size[0], size[1], size[2], size[3]));
        uint8_t *out = (uint8_t *)place(gpu, pixels, n);
        cpu->backend->infer.resize(cpu, &image, false, k & 1, size[2], size[3], want, scratch);
        gpu->backend->infer.resize(gpu, &image, false, k & 1, size[2], size[3], out, there);
        gpu->backend->device.download(gpu, got, out, n);
        CHECK_OK(gpu, gpu->backend->device.finish(gpu));
        CHECK(memcmp(got, want, n) == 0);
        free(scratch);
        gpu->backend->device.free(gpu, there);
        gpu->backend->device.free(gpu, out);
    }
    CHECK_OK(gpu, gpu->backend->device.finish(gpu));
    CHECK(emulated_errors() == 0);
    free(noise);
    gfl_context_destroy(gpu);
    gfl_context_destroy(cpu);
}

/* ---- decoding -------------------------------------------------------------------------------- */

enum { CLASSES = 7, BINS = 17, MOST_FOUND = 60 };

/* Random logits give many boxes that overlap; ties come from rounding the scores' logits. */
static void decode_once(gfl_context *cpu, gfl_context *gpu, gfl_dialect dialect, float min_score,
                        int size, int per_level, int most, bool some) {
    static const uint8_t wanted[CLASSES] = {0, 1, 0, 0, 1, 1, 0};
    const int h[] = {12 * size, 6 * size, 3 * size, 2, 1};
    const int w[] = {10 * size, 5 * size, 3 * size, 2, 1};
    twin cls = make_twin(gpu, 2, CLASSES, 5, h, w, 11),
         reg = make_twin(gpu, 2, 4 * BINS, 5, h, w, 12);
    for (size_t i = 0; i < gfli_map_count(&cls.host); i++)
        cls.host.data[i] = floorf(cls.host.data[i] * 8) / 8 - 1;
    gpu->backend->device.upload(gpu, cls.device.data, cls.host.data, bytes_of(&cls.host));
    gfl_arch arch;
    gfli_decode_opts o;
    memset(&arch, 0, sizeof arch);
    arch.n_classes = CLASSES;
    arch.reg_max = BINS - 1;
    arch.dialect = dialect;
    gfli_decode_opts_init(&arch, &o);
    o.min_score = min_score;
    o.nms_iou = 0.6f;
    o.max_per_level = per_level;
    o.max_detections = most;
    o.height = 90 * size;
    o.width = 75 * size;
    o.scale_x = 0.75;
    o.scale_y = 0.7;
    o.wanted = some ? wanted : NULL;
    o.agnostic = some;
    for (int image = 0; image < 2; image++) {
        gfli_decoded want[MOST_FOUND], got[MOST_FOUND];
        float logits[2][MOST_FOUND * 4 * BINS];
        const int n = test_decode(cpu, &cls.host, &reg.host, image, &o, want, logits[0]);
        const int m = test_decode(gpu, &cls.device, &reg.device, image, &o, got, logits[1]);
        CHECK(n == m && n > 0);
        for (int i = 0; i < n && i < m; i++) {
            CHECK(!some || wanted[got[i].detection.label]);
            CHECK_CLOSE(&got[i].detection.x1, &want[i].detection.x1, 5, 1e-5);
            CHECK(got[i].detection.label == want[i].detection.label);
            CHECK(got[i].level == want[i].level && got[i].y == want[i].y && got[i].x == want[i].x);
        }
        CHECK(n != m || memcmp(logits[0], logits[1], (size_t)n * 4 * BINS * sizeof(float)) == 0);
    }
    free_twin(gpu, &cls);
    free_twin(gpu, &reg);
}

static void decoding_finds_what_the_cpu_finds(void) {
    gfl_context *cpu = open_on(NULL), *gpu = open_on(gfl_cuda());
    for (unsigned seed = 0; seed < 3; seed++) {
        emulated_order((int)seed, seed);
        for (int dialect = GFL_DIALECT_MMDET; dialect <= GFL_DIALECT_GFOCAL; dialect++) {
            for (int some = 0; some < 2; some++) { /* of the classes, suppressed across them */
                decode_once(cpu, gpu, (gfl_dialect)dialect, 0.05f, 1, 1000, MOST_FOUND, some);
                decode_once(cpu, gpu, (gfl_dialect)dialect, 0.3f, 1, 20, MOST_FOUND, some);
            }
            decode_once(cpu, gpu, (gfl_dialect)dialect, 0.6f, 1, 50, 3, false);
        }
        /* more than are sorted in shared memory */
        decode_once(cpu, gpu, GFL_DIALECT_MMDET, 0.001f, 3, 6000, MOST_FOUND, false);
    }
    emulated_order(EMULATED_FORWARD, 0);
    CHECK_OK(gpu, gpu->backend->device.finish(gpu));
    CHECK(emulated_errors() == 0);
    gfl_context_destroy(gpu);
    gfl_context_destroy(cpu);
}

/* ---- a whole detector ------------------------------------------------------------------------ */

static gfl_status detect_with(gfl_context *context, int channels, gfl_detection_list *out,
                              gfl_detector **detector, gfl_model **model) {
    static uint8_t pixels[2][64 * 64 * 3];
    gfl_model_desc desc;
    gfl_detect_opts opts;
    gfl_image images[2];
    memset(&desc, 0, sizeof desc);
    memset(&opts, 0, sizeof opts);
    memset(images, 0, sizeof images);
    desc.arch.depth = 18;
    desc.arch.base_channels = 8;
    desc.arch.fpn_channels = desc.arch.head_channels = channels;
    desc.arch.stacked_convs = 1;
    desc.arch.n_classes = 3;
    desc.seed = 5;
    opts.min_score = 0.001f;
    opts.max_detections = 10;
    opts.scale_long = opts.scale_short = 64;
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < sizeof pixels[i]; k++)
            pixels[i][k] = (uint8_t)(k * k / 7 + k * (size_t)(i + 3));
        images[i].pixels = pixels[i];
        images[i].width = 64 - 20 * i;
        images[i].height = 64;
    }
    GFLI_TRY(gfl_model_create(context, &desc, model));
    GFLI_TRY(gfl_detector_create(context, *model, with_distributions(), detector));
    return gfl_detect(*detector, images, 2, &opts, out);
}

static gfl_status detect_on(gfl_context *context, gfl_detection_list *out, gfl_detector **detector,
                            gfl_model **model) {
    return detect_with(context, 32, out, detector, model);
}

static void a_detector_finds_what_the_cpus_finds(void) {
    gfl_context *contexts[2] = {open_on(NULL), open_on(gfl_cuda())};
    gfl_detection_list out[2][2];
    gfl_detector *detectors[2] = {NULL, NULL};
    gfl_model *models[2] = {NULL, NULL};
    CHECK(strstr(gfl_context_get_device(contexts[1]), "cuda:0") != NULL);
    for (int i = 0; i < 2; i++)
        CHECK_OK(contexts[i], detect_on(contexts[i], out[i], &detectors[i], &models[i]));
    for (int image = 0; image < 2; image++) {
        const gfl_detection_list *want = &out[0][image], *got = &out[1][image];
        CHECK(want->count > 0 && want->count == got->count);
        for (int i = 0; i < want->count && i < got->count; i++) {
            CHECK_CLOSE(&got->items[i].x1, &want->items[i].x1, 5, 1e-4);
            CHECK(got->items[i].label == want->items[i].label);
            CHECK_CLOSE(got->distributions[i].mean, want->distributions[i].mean, 8, 1e-4);
        }
    }
    gfl_detector *none;
    CHECK_ERROR(contexts[0], gfl_detector_create(contexts[0], models[1], NULL, &none), GFL_E_ARG,
                "the model is on");
    CHECK(emulated_errors() == 0);
    for (int i = 0; i < 2; i++) {
        gfl_detector_destroy(detectors[i]);
        gfl_model_destroy(models[i]);
        gfl_context_destroy(contexts[i]);
    }
}

/* What the maps of a narrow network lose to rounding moves scores by some percent. */
static void a_detector_finds_about_the_same_in_bf16(void) {
    gfl_context *contexts[2] = {open_on(NULL), open_in(gfl_cuda(), GFL_PRECISION_BF16, NULL)};
    gfl_detection_list out[2][2];
    gfl_detector *detectors[2] = {NULL, NULL}, *none;
    gfl_model *models[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++)
        CHECK_OK(contexts[i], detect_on(contexts[i], out[i], &detectors[i], &models[i]));
    for (int image = 0; image < 2; image++) {
        const gfl_detection_list *want = &out[0][image], *got = &out[1][image];
        CHECK(want->count > 0 && want->count == got->count);
        for (int i = 0; i < want->count && i < got->count; i++)
            CHECK(fabsf(got->items[i].score - want->items[i].score) < 0.03f * want->items[i].score);
    }
    gfl_context *fp32 = open_on(gfl_cuda());
    CHECK_ERROR(fp32, gfl_detector_create(fp32, models[1], NULL, &none), GFL_E_ARG, "precision 2");
    gfl_context_destroy(fp32);
    CHECK(emulated_errors() == 0);
    for (int i = 0; i < 2; i++) {
        gfl_detector_destroy(detectors[i]);
        gfl_model_destroy(models[i]);
        gfl_context_destroy(contexts[i]);
    }
}

typedef struct seen_kernels {
    int n, wished, paired;
} seen_kernels;

static void see_kernel(void *user, const gfl_plan_step *step) {
    seen_kernels *seen = (seen_kernels *)user;
    if (!step->kernel[0]) return;
    seen->n++;
    seen->wished += strcmp(step->kernel, "64x64") == 0;
    seen->paired += step->twin[0] != 0;
}

/* The stem's three channels fill no chunk, so one convolution takes another kernel. */
static void a_kernel_can_be_wished_for(void) {
    gfl_context *gpu = open_in(gfl_cuda(), GFL_PRECISION_BF16, "64x64"), *none = NULL;
    gfl_model_desc desc;
    gfl_context_desc wrong;
    gfl_model *model = NULL;
    seen_kernels seen = {0, 0, 0};
    char text[600] = "";
    memset(&desc, 0, sizeof desc);
    memset(&wrong, 0, sizeof wrong);
    desc.arch.depth = 18;
    desc.arch.base_channels = 16;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.stacked_convs = 2;
    CHECK_OK(gpu, gfl_model_create(gpu, &desc, &model));
    CHECK_OK(gpu, gfl_model_get_plan(model, 64, 64, 1, see_kernel, &seen));
    CHECK(seen.n > 20 && seen.wished == seen.n - 1 && seen.paired == 3);
    wrong.backend = gfl_cuda();
    wrong.kernel = "65x64";
    wrong.error = text;
    wrong.error_size = sizeof text;
    CHECK(gfl_context_create(&wrong, &none) == GFL_E_ARG && !none);
    CHECK(strstr(text, "65x64") && strstr(text, "mma, ") && strstr(text, "wgmma_128x256"));
    gfl_model_destroy(model);
    gfl_context_destroy(gpu);
}

/* Timed once: the second plan finds what the first has measured. */
static void kernels_can_be_timed(void) {
    gfl_context_desc how;
    gfl_model_desc desc;
    gfl_context *gpu = NULL;
    gfl_model *model = NULL;
    seen_kernels seen = {0, 0, 0};
    memset(&how, 0, sizeof how);
    memset(&desc, 0, sizeof desc);
    how.backend = gfl_cuda();
    how.precision = GFL_PRECISION_FP16;
    how.tune = 1;
    CHECK(gfl_context_create(&how, &gpu) == GFL_OK);
    desc.arch.depth = 18;
    desc.arch.base_channels = 8;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.stacked_convs = 1;
    desc.arch.n_classes = 2;
    CHECK_OK(gpu, gfl_model_create(gpu, &desc, &model));
    CHECK_OK(gpu, gfl_model_get_plan(model, 32, 32, 1, see_kernel, &seen));
    const size_t n = gfli_cuda_of(gpu)->n_tuned;
    CHECK(n > 10 && (int)n < seen.n); /* equal convolutions share a timing */
    CHECK_OK(gpu, gfl_model_get_plan(model, 32, 32, 1, see_kernel, &seen));
    CHECK(gfli_cuda_of(gpu)->n_tuned == n);
    CHECK_OK(gpu, gpu->backend->device.finish(gpu));
    CHECK(emulated_errors() == 0);
    gfl_model_destroy(model);
    gfl_context_destroy(gpu);
}

/* Zeros would be multiplied in less time; a NaN or an infinity is no number of a map. */
static void kernels_are_timed_on_numbers_of_both_signs(void) {
    enum { N = 1 << 14 };
    static const double least[] = {1.0 / 128, 1.0 / 128, 1};
    gfl_context *gpu = open_in(gfl_cuda(), GFL_PRECISION_BF16, NULL);
    static unsigned words[N];
    void *there = place(gpu, words, sizeof words);
    CHECK(gfli_tune_fill(gfli_cuda_of(gpu), there, sizeof words) == cudaSuccess);
    gpu->backend->device.download(gpu, words, there, sizeof words);
    CHECK_OK(gpu, gpu->backend->device.finish(gpu));
    for (int element = 0; element < GFLI_ELEMENTS; element++) {
        const size_t n = sizeof words / element_size(element);
        double sum = 0, squares = 0, neighbours = 0, smallest = 2, largest = 0, before = 0;
        for (size_t i = 0; i < n; i++) {
            const double v = (double)element_at(words, i, element);
            sum += v;
            squares += v * v;
            neighbours += v * before;
            before = v;
            if (fabs(v) < smallest) smallest = fabs(v);
            if (!(fabs(v) <= largest)) largest = fabs(v);
        }
        CHECK(smallest >= least[element] && largest < 2 && largest > 1.9);
        CHECK(fabs(sum) < 4 * sqrt(squares) && fabs(neighbours) < 4 * squares / sqrt((double)n));
    }
    gpu->backend->device.free(gpu, there);
    gfl_context_destroy(gpu);
}

/* The bytes of a trainable model's weight file, made where the context computes. */
static unsigned char *saved_model(gfl_context *context, const char *path, size_t *size) {
    gfl_model_desc desc;
    gfl_model *model = NULL;
    memset(&desc, 0, sizeof desc);
    desc.arch.depth = 18;
    desc.arch.base_channels = 16;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.seed = 5;
    desc.trainable = 1;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    CHECK_OK(context, gfl_model_save(model, path));
    CHECK(!gfli_train_ops_of(context) == (context->backend != &gfli_cpu));
    gfl_model_destroy(model);
    uint8_t *bytes = NULL;
    CHECK_OK(context, gfli_file_read(context, path, 1 << 24, &bytes, size));
    return bytes;
}

static void a_gpus_model_keeps_its_parameters(void) {
    gfl_context *cpu = open_on(NULL), *gpu = open_on(gfl_cuda());
    size_t n[2];
    unsigned char *a = saved_model(cpu, "test_cuda.cpu", &n[0]);
    unsigned char *b = saved_model(gpu, "test_cuda.gpu", &n[1]);
    CHECK(n[0] == n[1] && n[0] > 100000 && memcmp(a, b, n[0]) == 0);
    gfli_free(cpu, a);
    gfli_free(gpu, b);
    CHECK(emulated_errors() == 0);
    gfl_context_destroy(gpu);
    gfl_context_destroy(cpu);
}

#ifndef __CUDACC__ /* a real device does not fail on request */
/* ---- failures -------------------------------------------------------------------------------- */

static void cannot_open(int index, gfl_status status, const char *why) {
    gfl_context_desc desc;
    gfl_context *context = (gfl_context *)&desc;
    char text[400] = "";
    memset(&desc, 0, sizeof desc);
    desc.backend = gfl_cuda();
    desc.device_index = index;
    desc.error = text;
    desc.error_size = sizeof text;
    CHECK(gfl_context_create(&desc, &context) == status && !context);
    if (!strstr(text, why)) printf("\"%s\" does not say \"%s\"\n", text, why);
    CHECK(strstr(text, why) != NULL);
    emu::fail(NULL, 0, cudaSuccess);
}

static void what_is_missing_is_said(void) {
    emu::fail("cudaGetDeviceCount", 0, cudaErrorInsufficientDriver);
    cannot_open(0, GFL_E_DEVICE, "no NVIDIA driver");
    emu::fail("cudaGetDeviceCount", 0, cudaErrorNoDevice);
    cannot_open(0, GFL_E_DEVICE, "no NVIDIA GPU here");
    cannot_open(1, GFL_E_DEVICE, "there is no GPU 1: the driver sees 1");
    emu::fail("cudaFuncGetAttributes", 0, cudaErrorNoKernelImageForDevice);
    cannot_open(0, GFL_E_DEVICE, "this build has no kernels for");
    emu::fail("cudaStreamCreate", 0, cudaErrorUnknown);
    cannot_open(0, GFL_E_DEVICE, "opening the device");
    setenv("EMU_MAJOR", "7", 1);
    cannot_open(0, GFL_E_DEVICE, "8.0 or later");
    setenv("EMU_MAJOR", "12", 1);
    emu::fail("cudaFuncGetAttributes", 0, cudaErrorNoKernelImageForDevice);
    cannot_open(0, GFL_E_DEVICE, "gfl_cuda.cu with -arch=sm_120");
    unsetenv("EMU_MAJOR");
    emu::fail("cudaFuncGetAttributes", 0, cudaErrorNoKernelImageForDevice);
    cannot_open(0, GFL_E_DEVICE, "gfl_cuda.cu with -arch=sm_90a"); /* sm_90 is without wgmma */
}

static void keep_warning(void *user, gfl_log_level level, const char *message) {
    if (level == GFL_LOG_WARNING) snprintf((char *)user, 300, "%s", message);
}

/* The emulator's builds are such, for they have no wgmma. */
static void a_build_without_hoppers_kernels_warns_on_hopper(void) {
    static const struct {
        const char *major;
        gfl_precision precision;
        const char *kernel;
        bool warns;
    } cases[] = {{"9", GFL_PRECISION_BF16, NULL, true},
                 {"9", GFL_PRECISION_FP16, NULL, true},
                 {"8", GFL_PRECISION_BF16, NULL, false},
                 {"9", GFL_PRECISION_BF16, "mma", false},
                 {"9", GFL_PRECISION_TF32, NULL, false},
                 {"9", GFL_PRECISION_FP32, NULL, false}};
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        char text[300] = "";
        gfl_context_desc desc;
        gfl_context *gpu = NULL;
        memset(&desc, 0, sizeof desc);
        desc.backend = gfl_cuda();
        desc.precision = cases[i].precision;
        desc.kernel = cases[i].kernel;
        desc.logger.log = keep_warning;
        desc.logger.user = text;
        setenv("EMU_MAJOR", cases[i].major, 1);
        CHECK(gfl_context_create(&desc, &gpu) == GFL_OK);
        CHECK((strstr(text, "-arch=sm_90a") != NULL) == cases[i].warns);
        gfl_context_destroy(gpu);
    }
    unsetenv("EMU_MAJOR");
}

/* Each allocation in turn fails, on the device or of page-locked memory. */
static void out_of_memory_is_survived(void) {
    int failures = 0;
    for (long after = 0;; after++) {
        gfl_context *gpu = open_on(gfl_cuda());
        gfl_detection_list out[2];
        gfl_detector *detector = NULL;
        gfl_model *model = NULL;
        emu::fail("cudaMalloc", after, cudaErrorMemoryAllocation);
        const gfl_status status = detect_on(gpu, out, &detector, &model);
        emu::fail(NULL, 0, cudaSuccess);
        CHECK(status == GFL_OK || status == GFL_E_MEMORY);
        const char *said = gfl_context_get_error(gpu);
        CHECK(status == GFL_OK || (strstr(said, "wanted") && strstr(said, "free")));
        gfl_detector_destroy(detector);
        gfl_model_destroy(model);
        gfl_context_destroy(gpu);
        if (status == GFL_OK) break;
        failures++;
        if (failures > 20) after += 11; /* the layers are all alike */
    }
    CHECK(failures > 20 && emulated_errors() == 0);
}

/* Of the calls that describe a map to the copy engine, which are refused: from one on, so many. */
static struct {
    long calls, first, n;
} refused;

static CUresult CUDAAPI describe_map(CUtensorMap *map, CUtensorMapDataType, cuuint32_t, void *,
                                     const cuuint64_t *, const cuuint64_t *, const int *,
                                     const int *, cuuint32_t, cuuint32_t, const cuuint32_t *,
                                     CUtensorMapInterleave, CUtensorMapSwizzle,
                                     CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
    const long call = refused.calls++ - refused.first;
    memset(map, 0, sizeof *map);
    return call >= 0 && call < refused.n ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* On one context all maps are refused; the other has no kernel that wants them. */
static void where_all_maps_are_refused_other_kernels_detect(void) {
    gfl_context *contexts[2] = {open_in(gfl_cuda(), GFL_PRECISION_BF16, "mma"),
                                open_in(gfl_cuda(), GFL_PRECISION_BF16, "wgmma_128x64")};
    gfl_detection_list out[2][2];
    gfl_detector *detectors[2] = {NULL, NULL};
    gfl_model *models[2] = {NULL, NULL};
    memset(out, 0, sizeof out);
    refused.calls = refused.first = 0;
    refused.n = LONG_MAX;
    gfli_cuda_of(contexts[1])->conv.encode = describe_map;
    for (int i = 0; i < 2; i++)
        CHECK_OK(contexts[i], detect_with(contexts[i], 64, out[i], &detectors[i], &models[i]));
    CHECK(refused.calls > 0 && gfli_cuda_of(contexts[1])->conv.encode == describe_map);
    for (int image = 0; image < 2; image++) {
        const gfl_detection_list *want = &out[0][image], *got = &out[1][image];
        CHECK(want->count > 0 && want->count == got->count);
        CHECK(got->items && want->items &&
              memcmp(want->items, got->items, (size_t)want->count * sizeof *want->items) == 0);
    }
    CHECK(emulated_errors() == 0);
    for (int i = 0; i < 2; i++) {
        gfl_detector_destroy(detectors[i]);
        gfl_model_destroy(models[i]);
        gfl_context_destroy(contexts[i]);
    }
}

/* What the copy engine's kernels would find is not asked: the emulator has none. */
static void a_refusal_now_and_then_ends_no_host(void) {
    static const long firsts[] = {0, 3, 11};
    for (size_t i = 0; i < GFLI_COUNT(firsts); i++) {
        gfl_context *gpu = open_in(gfl_cuda(), GFL_PRECISION_BF16, "wgmma_128x64");
        gfl_detection_list out[2];
        gfl_detector *detector = NULL;
        gfl_model *model = NULL;
        refused.calls = 0;
        refused.first = firsts[i];
        refused.n = 1;
        gfli_cuda_of(gpu)->conv.encode = describe_map;
        const gfl_status status = detect_with(gpu, 64, out, &detector, &model);
        CHECK(status == GFL_OK || status == GFL_E_DEVICE);
        CHECK(refused.calls > firsts[i]);
        gfl_detector_destroy(detector);
        gfl_model_destroy(model);
        gfl_context_destroy(gpu);
    }
}

static void a_failure_ends_the_context_and_nothing_else(void) {
    static const char *const calls[] = {"launch", "cudaStreamSynchronize", "cudaMallocHost"};
    for (size_t i = 0; i < GFLI_COUNT(calls); i++) {
        gfl_context *gpu = open_on(gfl_cuda());
        gfl_detection_list out[2];
        gfl_detector *detector = NULL;
        gfl_model *model = NULL;
        void *p;
        emu::fail(calls[i], 0, cudaErrorIllegalAddress);
        CHECK_ERROR(gpu, detect_on(gpu, out, &detector, &model), GFL_E_DEVICE,
                    "cannot be used any more");
        emu::fail(NULL, 0, cudaSuccess);
        CHECK_ERROR(gpu, gpu->backend->device.alloc(gpu, 1, 1, "test", &p), GFL_E_DEVICE,
                    "cannot be used any more");
        gfl_detector_destroy(detector);
        gfl_model_destroy(model);
        gfl_context_destroy(gpu);
        (void)cudaGetLastError();
        gpu = open_on(gfl_cuda());
        CHECK_OK(gpu, gpu->backend->device.finish(gpu));
        gfl_context_destroy(gpu);
    }
}

#endif

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(convolutions_are_the_cpus),
                                      TEST(pools_norms_and_scales_are_the_cpus),
                                      TEST(resizes_are_the_cpus_to_the_bit),
                                      TEST(decoding_finds_what_the_cpu_finds),
                                      TEST(a_detector_finds_what_the_cpus_finds),
                                      TEST(a_detector_finds_about_the_same_in_bf16),
                                      TEST(a_kernel_can_be_wished_for),
                                      TEST(kernels_can_be_timed),
                                      TEST(kernels_are_timed_on_numbers_of_both_signs),
#ifndef __CUDACC__
                                      TEST(what_is_missing_is_said),
                                      TEST(a_build_without_hoppers_kernels_warns_on_hopper),
                                      TEST(out_of_memory_is_survived),
                                      TEST(a_failure_ends_the_context_and_nothing_else),
                                      TEST(where_all_maps_are_refused_other_kernels_detect),
                                      TEST(a_refusal_now_and_then_ends_no_host),
#endif
                                      TEST(a_gpus_model_keeps_its_parameters),
                                      {NULL, NULL, TEST_EVERYWHERE}};
    const int absent = device_absent();
    return absent ? absent : test_main(argc, argv, cases);
}
