/* test_cuda_detect.cc - a detector on a GPU: recordings, halves, the caller's memory and stream */
#include "test.h"

#include "device.h"

enum { SIDE = 32, MOST = 10, BATCH = 9 };

typedef struct scene {
    gfl_context *gpu;
    gfl_model *model;
    gfl_detector *detector;
} scene;

static scene open_scene(void *stream, gfl_precision precision) {
    scene s;
    gfl_context_desc how;
    gfl_model_desc desc;
    memset(&s, 0, sizeof s);
    memset(&how, 0, sizeof how);
    memset(&desc, 0, sizeof desc);
    how.backend = gfl_cuda();
    how.precision = precision;
    how.stream = stream;
    how.n_threads = 1;
    CHECK(gfl_context_create(&how, &s.gpu) == GFL_OK);
    desc.arch.depth = 18;
    desc.arch.base_channels = 8;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.stacked_convs = 1;
    desc.arch.n_classes = 3;
    desc.seed = 5;
    CHECK_OK(s.gpu, gfl_model_create(s.gpu, &desc, &s.model));
    CHECK_OK(s.gpu, gfl_detector_create(s.gpu, s.model, with_distributions(), &s.detector));
    return s;
}

static void close_scene(scene *s) {
    gfl_detector_destroy(s->detector);
    gfl_model_destroy(s->model);
    gfl_context_destroy(s->gpu);
}

static gfl_image picture(int i) {
    static uint8_t pixels[BATCH][SIDE * SIDE * 3];
    gfl_image image;
    memset(&image, 0, sizeof image);
    for (size_t k = 0; k < sizeof pixels[i]; k++)
        pixels[i][k] = (uint8_t)(k * k / 7 + k * (size_t)(i + 3));
    image.pixels = pixels[i];
    image.width = SIDE - i % 3;
    image.height = SIDE;
    image.stride = 3 * SIDE;
    return image;
}

static gfl_detect_opts options(int side) {
    gfl_detect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.min_score = 0.001f;
    opts.max_detections = MOST;
    opts.scale_long = opts.scale_short = side;
    return opts;
}

/* A copy of what one image has; what is not used is zero. */
typedef struct kept {
    int count;
    gfl_detection items[MOST];
    gfl_distribution distributions[MOST];
} kept;

static kept keep(const gfl_detection_list *d) {
    kept k;
    memset(&k, 0, sizeof k);
    k.count = d->count;
    CHECK(d->count > 0 && d->count <= MOST);
    memcpy(k.items, d->items, (size_t)d->count * sizeof *k.items);
    memcpy(k.distributions, d->distributions, (size_t)d->count * sizeof *k.distributions);
    return k;
}

static kept detect(scene *s, gfl_image image, gfl_detect_opts opts) {
    gfl_detection_list out;
    CHECK_OK(s->gpu, gfl_detect(s->detector, &image, 1, &opts, &out));
    return keep(&out);
}

static bool same(const kept *a, const kept *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

/* ---- recordings ------------------------------------------------------------------------------ */

static unsigned long long replays(void) {
#ifndef __CUDACC__
    return emu::stats().graphs;
#else
    return 0;
#endif
}

/* The first call runs plainly, the second records, others replay; also when the arena has moved. */
static void recordings_give_the_same_bits(void) {
    scene s = open_scene(NULL, GFL_PRECISION_FP32);
    kept plain[2];
    const unsigned long long before = replays();
    for (int k = 0; k < 2; k++) plain[k] = detect(&s, picture(k), options(SIDE));
    CHECK(!same(&plain[0], &plain[1]));
    for (int round = 0; round < 2; round++) {
        for (int k = 0; k < 4; k++) {
            const kept again = detect(&s, picture(k % 2), options(SIDE));
            CHECK(same(&again, &plain[k % 2]));
        }
        (void)detect(&s, picture(0), options(SIDE + 32)); /* more memory */
    }
#ifndef __CUDACC__
    CHECK(replays() - before == 10); /* nine of SIDE, and the second of the larger size */
#else
    (void)before;
#endif
    close_scene(&s);
    CHECK(emulated_errors() == 0);
}

static void more_sizes_than_are_remembered_do_no_harm(void) {
    enum { SIZES = 9 };
    scene s = open_scene(NULL, GFL_PRECISION_FP32);
    kept first[SIZES];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < SIZES; i++) {
            gfl_image image = picture(0);
            image.height = 3;
            const kept now = detect(&s, image, options(32 * (i + 1)));
            if (round == 0) first[i] = now;
            CHECK(same(&now, &first[i]));
        }
    }
    close_scene(&s);
    CHECK(emulated_errors() == 0);
}

#ifndef __CUDACC__ /* a real device does not fail on request */
static void without_recordings_steps_are_run(void) {
    static const char *const calls[] = {"cudaStreamBeginCapture", "cudaStreamEndCapture",
                                        "cudaGraphInstantiate"};
    for (size_t i = 0; i < GFLI_COUNT(calls); i++) {
        scene s = open_scene(NULL, GFL_PRECISION_FP32);
        const unsigned long long before = replays();
        const kept plain = detect(&s, picture(0), options(SIDE));
        emu::fail(calls[i], 0, cudaErrorStreamCaptureUnsupported);
        for (int k = 0; k < 3; k++) {
            const kept again = detect(&s, picture(0), options(SIDE));
            CHECK(same(&again, &plain));
        }
        emu::fail(NULL, 0, cudaSuccess);
        CHECK(replays() == before);
        CHECK_OK(s.gpu, s.gpu->backend->device.finish(s.gpu));
        close_scene(&s);
    }
    CHECK(emulated_errors() == 0);
}

static void nothing_is_allocated_once_warm(void) {
    scene s = open_scene(NULL, GFL_PRECISION_BF16);
    const kept first = detect(&s, picture(0), options(SIDE));
    (void)detect(&s, picture(1), options(SIDE));
    const unsigned long long before = emu::stats().allocations;
    const kept again = detect(&s, picture(0), options(SIDE));
    CHECK(before > 0 && emu::stats().allocations == before);
    CHECK(same(&again, &first));
    close_scene(&s);
}

static void nothing_is_allocated_once_reserved(void) {
    static const int labels[] = {1};
    scene s = open_scene(NULL, GFL_PRECISION_BF16);
    gfl_detect_opts opts = options(SIDE);
    CHECK_OK(s.gpu, gfl_detector_reserve(s.detector, SIDE, SIDE, 1, &opts));
    const unsigned long long before = emu::stats().allocations;
    (void)detect(&s, picture(1), opts);
    opts.labels = labels;
    opts.n_labels = 1;
    const kept some = detect(&s, picture(0), opts);
    for (int i = 0; i < some.count; i++) CHECK(some.items[i].label == 1);
    CHECK(before > 0 && emu::stats().allocations == before);
    close_scene(&s);
}
#endif

/* ---- batches and halves ---------------------------------------------------------------------- */

/* More images than are decoded at a time, of three sizes that are padded alike. */
static void a_batch_gives_what_its_images_give_alone(void) {
    scene s = open_scene(NULL, GFL_PRECISION_FP32);
    gfl_image images[BATCH];
    gfl_detection_list out[BATCH];
    const gfl_detect_opts opts = options(SIDE);
    for (int i = 0; i < BATCH; i++) images[i] = picture(i);
    CHECK_OK(s.gpu, gfl_detect(s.detector, images, BATCH, &opts, out));
    kept together[BATCH];
    for (int i = 0; i < BATCH; i++) together[i] = keep(&out[i]);
    for (int i = 0; i < BATCH; i++) {
        const kept alone = detect(&s, images[i], opts);
        CHECK(alone.count == together[i].count);
        CHECK_CLOSE(&alone.items[0].x1, &together[i].items[0].x1, 6 * (size_t)alone.count, 1e-5);
    }
    close_scene(&s);
    CHECK(emulated_errors() == 0);
}

/* Two detectors of one context, and what a caller can get wrong. */
static void halves_give_the_whole(void) {
    scene s = open_scene(NULL, GFL_PRECISION_FP32);
    gfl_detector *other;
    gfl_detection_list out, other_out;
    gfl_image images[2] = {picture(0), picture(1)};
    const gfl_detect_opts opts = options(SIDE);
    kept whole[2];
    CHECK_OK(s.gpu, gfl_detector_create(s.gpu, s.model, with_distributions(), &other));
    for (int i = 0; i < 2; i++) whole[i] = detect(&s, images[i], opts);
    for (int k = 0; k < 3; k++) {
        CHECK_OK(s.gpu, gfl_detect_start(s.detector, &images[0], 1, &opts));
        CHECK_OK(s.gpu, gfl_detect_start(other, &images[1], 1, &opts));
        CHECK_ERROR(s.gpu, gfl_detect_start(other, &images[1], 1, &opts), GFL_E_ARG, "under way");
        CHECK_OK(s.gpu, gfl_detect_finish(other, &other_out));
        CHECK_OK(s.gpu, gfl_detect_finish(s.detector, &out));
        const kept a = keep(&out), b = keep(&other_out);
        CHECK(same(&a, &whole[0]) && same(&b, &whole[1]));
        CHECK_ERROR(s.gpu, gfl_detect_finish(other, &other_out), GFL_E_ARG, "no batch");
    }
    CHECK_OK(s.gpu, gfl_detect_start(other, &images[1], 1, &opts));
    gfl_detector_destroy(other); /* with a batch under way */
    close_scene(&s);
    CHECK(emulated_errors() == 0);
}

/* ---- the caller's memory, stream and event --------------------------------------------------- */

static void pixels_may_lie_on_the_device(void) {
    scene s = open_scene(NULL, GFL_PRECISION_FP32);
    gfl_image image = picture(1);
    gfl_detect_opts opts = options(SIDE);
    gfl_detection_list out;
    const size_t bytes = 3 * SIDE * SIDE;
    uint8_t *there = NULL;
    CHECK(cudaMalloc((void **)&there, bytes) == cudaSuccess);
    CHECK(cudaMemcpy(there, image.pixels, bytes, cudaMemcpyHostToDevice) == cudaSuccess);
    for (int upside_down = 0; upside_down < 2; upside_down++) {
        gfl_image twin = image;
        opts.on_device = 0;
        if (upside_down) {
            image.pixels += (SIDE - 1) * image.stride;
            image.stride = -image.stride;
        }
        const kept want = detect(&s, image, opts);
        twin.stride = image.stride;
        twin.pixels = there + (upside_down ? (SIDE - 1) * 3 * SIDE : 0);
        opts.on_device = 1;
        const kept got = detect(&s, twin, opts);
        CHECK(same(&got, &want));
        CHECK_ERROR(s.gpu, gfl_detect(s.detector, &image, 1, &opts, &out), GFL_E_ARG,
                    "not point to memory of cuda:0");
        opts.on_device = 0;
        CHECK_ERROR(s.gpu, gfl_detect(s.detector, &twin, 1, &opts, &out), GFL_E_ARG,
                    "set on_device");
    }
    CHECK(cudaFree(there) == cudaSuccess);
    close_scene(&s);
    CHECK(emulated_errors() == 0);
}

/* The caller's own work before and after, in order with ours. */
static void streams_and_events_are_the_callers(void) {
    cudaStream_t stream = NULL;
    cudaEvent_t event = NULL;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    scene s = open_scene(stream, GFL_PRECISION_FP32), own = open_scene(NULL, GFL_PRECISION_FP32);
    gfl_image image = picture(2), twin = image;
    gfl_detect_opts opts = options(SIDE);
    gfl_detection_list out;
    const size_t bytes = 3 * SIDE * SIDE;
    uint8_t *there = NULL;
    CHECK(cudaMalloc((void **)&there, bytes) == cudaSuccess);
    twin.pixels = there;
    opts.event = event;
    opts.on_device = 1;
    const kept want = detect(&own, image, options(SIDE));
    for (int k = 0; k < 3; k++) {
        CHECK(cudaMemsetAsync(there, 0, bytes, stream) == cudaSuccess);
        CHECK(cudaMemcpyAsync(there, image.pixels, bytes, cudaMemcpyHostToDevice, stream) ==
              cudaSuccess);
        CHECK_OK(s.gpu, gfl_detect_start(s.detector, &twin, 1, &opts));
        CHECK(cudaEventSynchronize(event) == cudaSuccess);
        CHECK(cudaMemsetAsync(there, 0, bytes, stream) == cudaSuccess);
        CHECK_OK(s.gpu, gfl_detect_finish(s.detector, &out));
        const kept got = keep(&out);
        CHECK(same(&got, &want));
    }
    close_scene(&own);
    close_scene(&s);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess); /* it outlives the context */
    CHECK(cudaFree(there) == cudaSuccess);
    CHECK(cudaEventDestroy(event) == cudaSuccess);
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);
    CHECK(emulated_errors() == 0);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(recordings_give_the_same_bits),
                                      TEST(more_sizes_than_are_remembered_do_no_harm),
#ifndef __CUDACC__
                                      TEST(without_recordings_steps_are_run),
                                      TEST(nothing_is_allocated_once_warm),
                                      TEST(nothing_is_allocated_once_reserved),
#endif
                                      TEST(a_batch_gives_what_its_images_give_alone),
                                      TEST(halves_give_the_whole),
                                      TEST(pixels_may_lie_on_the_device),
                                      TEST(streams_and_events_are_the_callers),
                                      {NULL, NULL, TEST_EVERYWHERE}};
    const int absent = device_absent();
    return absent ? absent : test_main(argc, argv, cases);
}
