/* test_detect.c - the detector: batches, threads, pixel formats, distributions, arguments */
#include "fixture.h"
#include <pthread.h>

enum { WIDTH = 150, HEIGHT = 90, IMAGES = 3 };

static gfl_context *context;
static gfl_model *model;
static uint8_t pictures[IMAGES][HEIGHT][WIDTH][3];

/* A model whose scores spread over 0..1, by the fixtures' formula. */
static void make_model(void) {
    gfl_model_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.arch.depth = 18;
    desc.arch.base_channels = 8;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.stacked_convs = 2;
    desc.arch.n_classes = 3;
    desc.preprocess.scale_long = 200;
    desc.preprocess.scale_short = 120;
    model = fx_model(context, &desc.arch, &desc.preprocess);
    for (int i = 0; i < IMAGES; i++)
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++)
                for (int c = 0; c < 3; c++)
                    pictures[i][y][x][c] = (uint8_t)(128 + 120 * sin(0.05 * (x * (i + 1) + c * 9)) *
                                                               cos(0.07 * y * c));
}

static gfl_image picture(int i) {
    gfl_image image = {&pictures[i][0][0][0], WIDTH, HEIGHT, 0, GFL_FORMAT_RGB};
    return image;
}

/* A copy of one image's detections. */
typedef struct found {
    gfl_detection *items;
    gfl_distribution *distributions;
    int count;
} found;

static found keep(const gfl_detection_list *d) {
    found f;
    size_t n = (size_t)d->count;
    f.count = d->count;
    f.items = (gfl_detection *)malloc((n + 1) * sizeof *f.items);
    f.distributions = (gfl_distribution *)malloc((n + 1) * sizeof *f.distributions);
    if (n) memcpy(f.items, d->items, n * sizeof *f.items);
    if (n && d->distributions)
        memcpy(f.distributions, d->distributions, n * sizeof *f.distributions);
    return f;
}

static void drop(found *f) {
    free(f->items);
    free(f->distributions);
}

static bool same(const found *a, const gfl_detection_list *b) {
    return a->count == b->count &&
           memcmp(a->items, b->items, (size_t)a->count * sizeof *a->items) == 0 &&
           memcmp(a->distributions, b->distributions,
                  (size_t)a->count * sizeof *a->distributions) == 0;
}

static found detect_alone(gfl_context *with, const gfl_image *image, const gfl_detect_opts *opts) {
    gfl_detector *detector = NULL;
    gfl_detection_list out;
    CHECK_OK(with, gfl_detector_create(with, model, with_distributions(), &detector));
    memset(&out, 0, sizeof out);
    CHECK_OK(with, gfl_detect(detector, image, 1, opts, &out));
    found f = keep(&out);
    gfl_detector_destroy(detector);
    return f;
}

static void a_batch_gives_what_its_images_give_alone(void) {
    gfl_detector *detector = NULL;
    gfl_image images[IMAGES];
    gfl_detection_list out[IMAGES];
    CHECK_OK(context, gfl_detector_create(context, model, with_distributions(), &detector));
    for (int i = 0; i < IMAGES; i++) images[i] = picture(i);
    CHECK_OK(context, gfl_detect(detector, images, IMAGES, NULL, out));
    for (int i = 0; i < IMAGES; i++) {
        found alone = detect_alone(context, &images[i], NULL);
        CHECK(alone.count > 20);
        CHECK(same(&alone, &out[i]));
        drop(&alone);
    }
    CHECK(memcmp(out[0].items, out[1].items, sizeof *out[0].items) != 0);
    gfl_detector_destroy(detector);
}

static void the_number_of_threads_does_not_matter(void) {
    gfl_image image = picture(0);
    found one = detect_alone(context, &image, NULL);
    for (int threads = 2; threads <= 5; threads++) {
        gfl_context *more = test_context(threads);
        found many = detect_alone(more, &image, NULL);
        CHECK(many.count == one.count);
        CHECK(memcmp(many.items, one.items, (size_t)one.count * sizeof *one.items) == 0);
        drop(&many);
        gfl_context_destroy(more);
    }
    drop(&one);
}

static void run_with_kernel(const char *kernel) {
    gfl_context_desc desc;
    gfl_context *plain = NULL;
    gfl_image image = picture(0);
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 1;
    desc.kernel = kernel;
    CHECK(gfl_context_create(&desc, &plain) == GFL_OK);
    found a = detect_alone(context, &image, NULL), b = detect_alone(plain, &image, NULL);
    CHECK(a.count > 0 && b.count > 0);
    CHECK_NEAR((double)a.items[0].score, (double)b.items[0].score, 1e-4);
    CHECK_NEAR((double)a.items[0].x1, (double)b.items[0].x1, 0.02);
    CHECK_NEAR((double)a.items[0].y2, (double)b.items[0].y2, 0.02);
    drop(&a);
    drop(&b);
    gfl_context_destroy(plain);
}

static void every_kernel_runs_the_same_packed_model(void) {
    for (int row = 1; row < test_count_kernels(); row++) run_with_kernel(gfl_cpu_get_kernel(row));
}

typedef struct worker {
    gfl_context *context;
    const found *want;
    int wrong;
} worker;

static void *work(void *arg) {
    worker *w = (worker *)arg;
    gfl_detector *detector = NULL;
    if (gfl_detector_create(w->context, model, with_distributions(), &detector) != GFL_OK)
        w->wrong++;
    for (int round = 0; round < 6 && detector; round++) {
        gfl_image image = picture(round % IMAGES);
        gfl_detection_list out;
        if (gfl_detect(detector, &image, 1, NULL, &out) != GFL_OK)
            w->wrong++;
        else if (!same(&w->want[round % IMAGES], &out))
            w->wrong++;
    }
    gfl_detector_destroy(detector);
    return NULL;
}

static void one_model_serves_several_threads(void) {
    found want[IMAGES];
    worker workers[3];
    pthread_t threads[3];
    for (int i = 0; i < IMAGES; i++) {
        gfl_image image = picture(i);
        want[i] = detect_alone(context, &image, NULL);
    }
    for (int i = 0; i < 3; i++) {
        workers[i].context = test_context(i + 1);
        workers[i].want = want;
        workers[i].wrong = 0;
        CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK(workers[i].wrong == 0);
        gfl_context_destroy(workers[i].context);
    }
    for (int i = 0; i < IMAGES; i++) drop(&want[i]);
}

static void every_pixel_format_means_the_same_picture(void) {
    static const int bytes[] = {3, 3, 4, 4};
    gfl_image image = picture(1);
    found want = detect_alone(context, &image, NULL);
    for (int format = 0; format < 4; format++) {
        for (int layout = 0; layout < 3; layout++) { /* tight, gaps between rows, bottom up */
            size_t row = (size_t)(WIDTH * bytes[format] + (layout ? 13 : 0));
            uint8_t *copy = (uint8_t *)malloc(row * HEIGHT);
            memset(copy, 0xA5, row * HEIGHT);
            for (int y = 0; y < HEIGHT; y++)
                for (int x = 0; x < WIDTH; x++)
                    for (int c = 0; c < 3; c++) {
                        int at = format % 2 ? 2 - c : c, line = layout == 2 ? HEIGHT - 1 - y : y;
                        copy[row * (size_t)line + (size_t)(x * bytes[format] + at)] =
                            pictures[1][y][x][c];
                    }
            gfl_image other = {layout == 2 ? copy + row * (HEIGHT - 1) : copy, WIDTH, HEIGHT,
                               layout == 2 ? -(ptrdiff_t)row : (layout ? (ptrdiff_t)row : 0),
                               (gfl_format)format};
            found got = detect_alone(context, &other, NULL);
            CHECK(got.count == want.count);
            CHECK(memcmp(got.items, want.items, (size_t)want.count * sizeof *want.items) == 0);
            drop(&got);
            free(copy);
        }
    }
    drop(&want);
}

static void grey_is_all_three_channels(void) {
    static uint8_t grey[HEIGHT][WIDTH], full[HEIGHT][WIDTH][3];
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            grey[y][x] = pictures[2][y][x][1];
            memset(full[y][x], grey[y][x], 3);
        }
    gfl_image a = {&grey[0][0], WIDTH, HEIGHT, 0, GFL_FORMAT_GREY};
    gfl_image b = {&full[0][0][0], WIDTH, HEIGHT, 0, GFL_FORMAT_RGB};
    found x = detect_alone(context, &a, NULL), y = detect_alone(context, &b, NULL);
    CHECK(x.count == y.count && x.count > 0);
    CHECK(memcmp(x.items, y.items, (size_t)x.count * sizeof *x.items) == 0);
    drop(&x);
    drop(&y);
}

static float clip(float v, int high) {
    return v < 0 ? 0 : (v > (float)high ? (float)high : v);
}

static void distributions_describe_the_boxes(void) {
    gfl_image image = picture(0);
    found f = detect_alone(context, &image, NULL);
    for (int i = 0; i < f.count; i++) {
        const gfl_detection *d = &f.items[i];
        const gfl_distribution *p = &f.distributions[i];
        const float box[4] = {d->x1, d->y1, d->x2, d->y2};
        for (int side = 0; side < 4; side++) {
            double sum = 0, mean = 0, var = 0;
            for (int k = 0; k < 17; k++) {
                sum += (double)p->bins[side][k];
                mean += k * (double)p->bins[side][k];
            }
            for (int k = 0; k < 17; k++) var += (k - mean) * (k - mean) * (double)p->bins[side][k];
            double width = (double)p->bin_width[side];
            CHECK_NEAR(sum, 1, 1e-5);
            CHECK_NEAR((double)p->mean[side], mean * width, 1e-4 * width);
            CHECK_NEAR((double)p->stddev[side], sqrt(var) * width, 1e-3 * width);
            CHECK(p->bins[side][17] == 0 && p->bins[side][GFL_MAX_BINS - 1] == 0);
            float at = side % 2 ? p->y : p->x;
            at += side < 2 ? -p->mean[side] : p->mean[side];
            CHECK_NEAR((double)box[side], (double)clip(at, side % 2 ? HEIGHT : WIDTH), 0.01);
        }
    }
    CHECK(f.count > 20);
    drop(&f);
}

static void boxes_stay_inside_and_best_comes_first(void) {
    gfl_detect_opts opts;
    gfl_image image = picture(2);
    memset(&opts, 0, sizeof opts);
    found all = detect_alone(context, &image, &opts);
    for (int i = 0; i < all.count; i++) {
        const gfl_detection *d = &all.items[i];
        CHECK(d->x1 >= 0 && d->y1 >= 0 && d->x2 <= (int)WIDTH && d->y2 <= (int)HEIGHT);
        CHECK(d->x1 < d->x2 && d->y1 < d->y2 && d->score > 0.05f && d->score < 1);
        CHECK(d->label >= 0 && d->label < 3);
        CHECK(i == 0 || d->score <= all.items[i - 1].score);
    }
    opts.max_detections = 5;
    found few = detect_alone(context, &image, &opts);
    CHECK(few.count == 5);
    CHECK(memcmp(few.items, all.items, 5 * sizeof *few.items) == 0);
    drop(&all);
    drop(&few);
}

static void images_of_a_batch_may_differ_in_size(void) {
    gfl_detector *detector = NULL;
    gfl_image images[3] = {picture(0), picture(1), picture(2)};
    gfl_detection_list out[3];
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &detector));
    images[1].width = 40;
    images[1].stride = WIDTH * 3;
    images[2].width = images[2].height = 1;
    CHECK_OK(context, gfl_detect(detector, images, 3, NULL, out));
    for (int i = 0; i < 3; i++) {
        CHECK(out[i].distributions == NULL);
        for (int k = 0; k < out[i].count; k++) {
            const gfl_detection *d = &out[i].items[k];
            CHECK(d->x2 <= (float)images[i].width && d->y2 <= (float)images[i].height);
        }
    }
    CHECK(out[0].count > 0 && out[1].count > 0);
    gfl_detector_destroy(detector);
}

typedef struct ledger {
    long live, calls;
} ledger;

static void *ledger_alloc(void *user, size_t size) {
    ((ledger *)user)->live++;
    ((ledger *)user)->calls++;
    return malloc(size);
}

static void ledger_free(void *user, void *p) {
    ((ledger *)user)->live--;
    free(p);
}

static gfl_context *ledger_context(ledger *book, int n_threads) {
    gfl_context_desc desc;
    gfl_context *counted = NULL;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = n_threads;
    desc.allocator.alloc = ledger_alloc;
    desc.allocator.free = ledger_free;
    desc.allocator.user = book;
    CHECK(gfl_context_create(&desc, &counted) == GFL_OK);
    return counted;
}

static void warm_calls_allocate_nothing(void) {
    ledger book = {0, 0};
    gfl_context *counted = ledger_context(&book, 1);
    gfl_detector *detector = NULL;
    CHECK_OK(counted, gfl_detector_create(counted, model, with_distributions(), &detector));
    long live = 0, calls = 0;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 4; i++) {
            gfl_image image = picture(i % IMAGES);
            gfl_detection_list out;
            if (i == 3) image.width = 60, image.stride = WIDTH * 3;
            CHECK_OK(counted, gfl_detect(detector, &image, 1, NULL, &out));
        }
        if (round == 1) live = book.live, calls = book.calls;
    }
    CHECK(book.live == live && book.calls == calls);
    gfl_detector_destroy(detector);
    gfl_context_destroy(counted);
    CHECK(book.live == 0);
}

/* Batches of 1 to `most` images, none larger than those of a first batch. */
static void detect_smaller(gfl_context *counted, gfl_detector *detector, int most) {
    gfl_image images[4];
    gfl_detection_list out[4];
    for (int n = most; n >= 1; n--)
        for (int width = WIDTH; width >= 16; width -= 12)
            for (int wide = 0; wide < 2; wide++) {
                gfl_detect_opts opts;
                memset(&opts, 0, sizeof opts);
                /* no detection, then as many as there can be */
                opts.min_score = wide ? 1e-6f : 0.999f;
                for (int i = 0; i < n; i++) {
                    images[i] = picture(i % IMAGES);
                    images[i].stride = WIDTH * 3;
                    images[i].width = width;
                }
                CHECK_OK(counted, gfl_detect(detector, images, n, &opts, out));
                CHECK(wide ? out[0].count > 0 : out[0].count == 0);
            }
}

static void smaller_batches_allocate_nothing(void) {
    ledger book = {0, 0};
    gfl_context *counted = ledger_context(&book, 2);
    for (int distributions = 0; distributions < 2; distributions++) {
        gfl_detector *detector = NULL;
        gfl_image images[4];
        gfl_detection_list out[4];
        gfl_detect_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.min_score = 0.999f; /* finds nothing, so that what is found later is more */
        for (int i = 0; i < 4; i++) images[i] = picture(i % IMAGES);
        CHECK_OK(counted,
                 gfl_detector_create(counted, model, distributions ? with_distributions() : NULL,
                                     &detector));
        CHECK_OK(counted, gfl_detect(detector, images, 4, &opts, out));
        CHECK(out[0].count == 0 && out[0].items);
        const ledger first = book;
        detect_smaller(counted, detector, 4);
        detect_smaller(counted, detector, 4);
        CHECK(book.live == first.live && book.calls == first.calls);
        if (book.calls != first.calls) printf("%ld allocations\n", book.calls - first.calls);
        gfl_detector_destroy(detector);
    }
    gfl_context_destroy(counted);
    CHECK(book.live == 0);
}

/* No batch has been run: what was reserved alone has to be enough, of every size that is no larger
 * and whatever is found. */
static void after_reserving_no_batch_allocates(void) {
    for (int distributions = 0; distributions < 2; distributions++) {
        ledger book = {0, 0};
        gfl_context *counted = ledger_context(&book, 2);
        gfl_detector *detector = NULL;
        CHECK_OK(counted,
                 gfl_detector_create(counted, model, distributions ? with_distributions() : NULL,
                                     &detector));
        CHECK_OK(counted, gfl_detector_reserve(detector, WIDTH, HEIGHT, 4, NULL));
        const ledger first = book;
        detect_smaller(counted, detector, 4);
        CHECK_OK(counted, gfl_detector_reserve(detector, WIDTH, HEIGHT, 3, NULL));
        CHECK(book.live == first.live && book.calls == first.calls);
        CHECK_OK(counted, gfl_detector_reserve(detector, WIDTH, HEIGHT, 5, NULL));
        CHECK(book.calls > first.calls);
        gfl_detector_destroy(detector);
        gfl_context_destroy(counted);
        CHECK(book.live == 0);
    }
}

/* By the rule of mmcv's rescale_size: int(side * factor + 0.5), with the smaller of both factors.
 */
static void the_size_for_the_network_is_told(void) {
    gfl_detector *detector = NULL;
    gfl_input_size size;
    gfl_detect_opts opts;
    memset(&opts, 0, sizeof opts);
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &detector));
    CHECK_OK(context, gfl_detector_get_size(detector, WIDTH, HEIGHT, NULL, &size));
    CHECK(size.width == 200 && size.height == 120); /* as the model was trained */
    CHECK(size.padded_width == 224 && size.padded_height == 128);
    opts.scale_long = 1333;
    opts.scale_short = 800;
    CHECK_OK(context, gfl_detector_get_size(detector, 480, 640, &opts, &size));
    CHECK(size.width == 800 && size.height == 1067);
    CHECK(size.padded_width == 800 && size.padded_height == 1088);
    CHECK_OK(context, gfl_detector_get_size(detector, 4000, 1000, &opts, &size));
    CHECK(size.width == 1333 && size.height == 333);
    CHECK_ERROR(context, gfl_detector_get_size(detector, 0, 5, &opts, &size), GFL_E_ARG, "0 x 5");
    CHECK(size.width == 0 && size.padded_height == 0);
    opts.scale_short = 0;
    CHECK_ERROR(context, gfl_detector_get_size(detector, 5, 5, &opts, &size), GFL_E_ARG, "both");
    CHECK_ERROR(context, gfl_detector_reserve(detector, 5, 0, 1, NULL), GFL_E_ARG, "5 x 0");
    CHECK_ERROR(context, gfl_detector_reserve(detector, 5, 5, 0, NULL), GFL_E_ARG, "0 images");
    const gfl_image image = picture(0);
    CHECK_OK(context, gfl_detect_start(detector, &image, 1, NULL));
    CHECK_ERROR(context, gfl_detector_reserve(detector, 5, 5, 1, NULL), GFL_E_ARG, "under way");
    gfl_detector_destroy(detector);
}

/* The picture keeps its 150 x 90 pixels, padded to 160 x 96, and every class of every location of
 * its five levels is found. */
static void negative_options_mean_none(void) {
    gfl_detector *detector = NULL;
    gfl_detection_list out;
    gfl_input_size size;
    gfl_detect_opts opts;
    const gfl_image image = picture(1);
    int points = 0;
    for (int stride = 8; stride <= 128; stride *= 2)
        points += (160 + stride - 1) / stride * ((96 + stride - 1) / stride);
    memset(&opts, 0, sizeof opts);
    opts.scale_long = opts.scale_short = -1;
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &detector));
    CHECK_OK(context, gfl_detector_get_size(detector, WIDTH, HEIGHT, &opts, &size));
    CHECK(size.width == WIDTH && size.height == HEIGHT && size.padded_width == 160);
    opts.min_score = opts.nms_iou = -0.5f;
    opts.max_per_level = -1;
    opts.max_detections = -3;
    CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &out));
    CHECK(out.count == 3 * points);
    opts.max_detections = 0;
    CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &out));
    CHECK(out.count == 100);
    gfl_detector_destroy(detector);
}

static double iou(const gfl_detection *a, const gfl_detection *b) {
    const double w = fmin((double)a->x2, (double)b->x2) - fmax((double)a->x1, (double)b->x1);
    const double h = fmin((double)a->y2, (double)b->y2) - fmax((double)a->y1, (double)b->y1);
    const double both = w > 0 && h > 0 ? w * h : 0;
    const double of_a = (double)(a->x2 - a->x1) * (double)(a->y2 - a->y1);
    return both / (of_a + (double)(b->x2 - b->x1) * (double)(b->y2 - b->y1) - both);
}

/* The same detector is asked for all classes, for some and for others: with room for all, each list
 * gives just what the call for all classes has of it. */
static void some_classes_give_what_all_give_of_them(void) {
    static const int lists[][4] = {{3, 0, 1, 2}, {1, 1},       {2, 2, 0},
                                   {2, 0, 2},    {3, 1, 1, 1}, {1, 2}};
    gfl_detector *detector = NULL;
    gfl_detection_list out;
    gfl_detect_opts opts;
    gfl_image image = picture(1);
    memset(&opts, 0, sizeof opts);
    opts.max_detections = opts.max_per_level = 100000;
    found all = detect_alone(context, &image, &opts);
    CHECK_OK(context, gfl_detector_create(context, model, with_distributions(), &detector));
    for (int k = 0; k < (int)GFLI_COUNT(lists); k++) {
        int n = 0;
        opts.labels = k == 5 ? NULL : &lists[k][1];
        opts.n_labels = opts.labels ? lists[k][0] : 0;
        CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &out));
        for (int i = 0; i < all.count; i++) {
            bool wanted = !opts.labels;
            for (int l = 0; l < opts.n_labels; l++)
                wanted = wanted || opts.labels[l] == all.items[i].label;
            if (!wanted) continue;
            CHECK(n < out.count && !memcmp(&out.items[n], &all.items[i], sizeof *out.items));
            CHECK(!memcmp(&out.distributions[n], &all.distributions[i], sizeof *out.distributions));
            n++;
        }
        CHECK(n == out.count && n > 0);
    }
    opts.agnostic = 1;
    CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &out));
    CHECK(out.count > 0 && out.count < all.count);
    for (int i = 0; i < out.count; i++)
        for (int k = 0; k < i; k++) CHECK(iou(&out.items[i], &out.items[k]) < 0.6001);
    gfl_detector_destroy(detector);
    drop(&all);
}

static void halves_give_the_whole(void) {
    gfl_detector *detector;
    gfl_detection_list out;
    const gfl_image a = picture(0), b = picture(1);
    CHECK_OK(context, gfl_detector_create(context, model, with_distributions(), &detector));
    CHECK_OK(context, gfl_detect(detector, &a, 1, NULL, &out));
    found whole = keep(&out);
    CHECK_ERROR(context, gfl_detect_finish(detector, &out), GFL_E_ARG, "no batch was started");
    CHECK_OK(context, gfl_detect_start(detector, &a, 1, NULL));
    CHECK_ERROR(context, gfl_detect_start(detector, &b, 1, NULL), GFL_E_ARG, "under way");
    CHECK_ERROR(context, gfl_detect_finish(detector, NULL), GFL_E_ARG, "out is NULL");
    CHECK_OK(context, gfl_detect_finish(detector, &out));
    CHECK(out.count == whole.count && out.count > 0);
    CHECK(memcmp(out.items, whole.items, (size_t)out.count * sizeof *out.items) == 0);
    CHECK(gfl_detect_start(NULL, &a, 1, NULL) == GFL_E_ARG);
    CHECK(gfl_detect_finish(NULL, &out) == GFL_E_ARG);
    drop(&whole);
    gfl_detector_destroy(detector);
}

/* The ninth size takes the place of the first. */
static void more_sizes_than_are_remembered_do_no_harm(void) {
    enum { SIZES = 9 };
    gfl_detector *detector;
    gfl_detection_list out;
    const gfl_image image = picture(0);
    found first[SIZES];
    CHECK_OK(context, gfl_detector_create(context, model, with_distributions(), &detector));
    for (int k = 0; k < 2 * SIZES; k++) {
        gfl_detect_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.scale_long = opts.scale_short = 32 * (k % SIZES + 1);
        CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &out));
        if (k < SIZES) first[k] = keep(&out);
        const found *want = &first[k % SIZES];
        CHECK(out.count == want->count);
        CHECK(memcmp(out.items, want->items, (size_t)out.count * sizeof *out.items) == 0);
    }
    CHECK(first[SIZES - 1].count > 0);
    for (int k = 0; k < SIZES; k++) drop(&first[k]);
    gfl_detector_destroy(detector);
}

static int stop_at_five(void *user, int done, int total) {
    CHECK(done == (*(int *)user)++ && total > 20);
    return done == 5;
}

static void progress_can_stop_a_call(void) {
    gfl_detector *detector;
    gfl_detection_list out;
    gfl_detect_opts opts;
    int calls = 0;
    gfl_image image = picture(0);
    memset(&opts, 0, sizeof opts);
    opts.progress = stop_at_five;
    opts.user = &calls;
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &detector));
    CHECK_ERROR(context, gfl_detect(detector, &image, 1, &opts, &out), GFL_E_STOPPED, "5 of");
    CHECK(calls == 6 && out.count == 0);
    CHECK_OK(context, gfl_detect(detector, &image, 1, NULL, &out));
    gfl_detector_destroy(detector);
}

/* The largest limit there is, and more boxes with it than with a smaller one. */
static void an_iou_of_one_suppresses_nothing(void) {
    const gfl_image image = picture(1);
    gfl_detect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.min_score = 0.01f;
    opts.max_detections = 100000;
    found some = detect_alone(context, &image, &opts);
    opts.nms_iou = 1;
    found all = detect_alone(context, &image, &opts);
    CHECK(some.count > 0 && all.count > some.count);
    drop(&some);
    drop(&all);
}

/* Levels of 4x4, 2x2 and three times 1x1: nothing is padded, nothing is left out. */
static void the_smallest_input_has_32_pixels(void) {
    const gfl_image image = {&pictures[0][0][0][0], 32, 32, 3 * WIDTH, GFL_FORMAT_RGB};
    gfl_model_cost cost;
    gfl_detect_opts opts;
    CHECK_OK(context, gfl_model_get_cost(model, 32, 32, 1, &cost));
    CHECK(cost.points == 16 + 4 + 1 + 1 + 1);
    CHECK_OK(context, gfl_model_get_cost(model, 33, 32, 1, &cost));
    CHECK(cost.points == 8 * 4 + 4 * 2 + 2 + 1 + 1);
    memset(&opts, 0, sizeof opts);
    opts.scale_long = opts.scale_short = 32;
    opts.min_score = 1e-6f;
    opts.nms_iou = 1;
    opts.max_detections = 1000;
    found all = detect_alone(context, &image, &opts);
    CHECK(all.count > 0 && all.count <= 23 * 3);
    for (int i = 0; i < all.count; i++)
        CHECK(all.items[i].x1 >= 0 && all.items[i].y2 <= 32 && all.items[i].x2 <= 32);
    drop(&all);
}

static void refuse(gfl_detector *detector, gfl_image image, gfl_detect_opts opts,
                   const char *text) {
    gfl_detection_list out;
    out.count = 7;
    CHECK_ERROR(context, gfl_detect(detector, &image, 1, &opts, &out), GFL_E_ARG, text);
    CHECK(out.count == 0 && out.items == NULL);
}

static void wrong_arguments_are_refused_by_name(void) {
    gfl_detector *d = NULL;
    gfl_detection_list out;
    gfl_image ok = picture(0), image;
    gfl_detect_opts none, opts;
    memset(&none, 0, sizeof none);
    CHECK_ERROR(context, gfl_detector_create(context, NULL, NULL, &d), GFL_E_ARG, "model");
    CHECK_ERROR(context, gfl_detector_create(context, model, NULL, NULL), GFL_E_ARG, "out");
    CHECK(gfl_detect(NULL, &ok, 1, NULL, &out) == GFL_E_ARG);
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &d));
    CHECK_ERROR(context, gfl_detect(d, NULL, 1, NULL, &out), GFL_E_ARG, "images");
    CHECK_ERROR(context, gfl_detect(d, &ok, 1, NULL, NULL), GFL_E_ARG, "out");
    CHECK_ERROR(context, gfl_detect(d, &ok, 0, NULL, &out), GFL_E_ARG, "a batch of 0 images");
    image = ok, image.pixels = NULL, refuse(d, image, none, "pixels");
    image = ok, image.width = 0, refuse(d, image, none, "0 x 90");
    image = ok, image.height = GFL_MAX_SIDE + 1, refuse(d, image, none, "16385");
    image = ok, image.stride = 10, refuse(d, image, none, "stride 10");
    image = ok, image.stride = -449, refuse(d, image, none, "stride -449");
    image = ok, image.format = (gfl_format)9, refuse(d, image, none, "format is 9");
    opts = none, opts.min_score = 1, refuse(d, ok, opts, "min_score");
    opts = none, opts.min_score = NAN, refuse(d, ok, opts, "min_score");
    opts = none, opts.nms_iou = 1.5f, refuse(d, ok, opts, "nms_iou");
    opts = none, opts.max_per_level = 1000001, refuse(d, ok, opts, "max_per_level");
    opts = none, opts.max_detections = 1000001, refuse(d, ok, opts, "max_detections");
    opts = none, opts.scale_long = -1, opts.scale_short = 9, refuse(d, ok, opts, "both");
    opts = none, opts.scale_long = 100, refuse(d, ok, opts, "both");
    opts = none, opts.scale_long = 100, opts.scale_short = 200, refuse(d, ok, opts, "scale_long");
    opts = none, opts.scale_long = 99999, opts.scale_short = 9, refuse(d, ok, opts, "99999");
    if (!test_backend) opts = none, opts.event = &opts, refuse(d, ok, opts, "event");
    opts = none, opts.on_device = 1, refuse(d, ok, opts, "on_device");
    const int labels[2] = {2, 3};
    opts = none, opts.labels = labels, refuse(d, ok, opts, "labels is a list, but n_labels is 0");
    opts.n_labels = -1, refuse(d, ok, opts, "n_labels is -1");
    opts.n_labels = 2, refuse(d, ok, opts, "labels[1] is 3; the model has the labels 0..2");
    opts = none, opts.n_labels = 1, refuse(d, ok, opts, "labels is NULL, but n_labels is 1");
    gfl_detector_destroy(d);
    gfl_detector_destroy(NULL);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(a_batch_gives_what_its_images_give_alone),
                                      TEST(the_number_of_threads_does_not_matter),
                                      TEST_CPU(every_kernel_runs_the_same_packed_model),
                                      TEST(one_model_serves_several_threads),
                                      TEST(every_pixel_format_means_the_same_picture),
                                      TEST(grey_is_all_three_channels),
                                      TEST(distributions_describe_the_boxes),
                                      TEST(boxes_stay_inside_and_best_comes_first),
                                      TEST(images_of_a_batch_may_differ_in_size),
                                      TEST_CPU(warm_calls_allocate_nothing),
                                      TEST_CPU(smaller_batches_allocate_nothing),
                                      TEST_CPU(after_reserving_no_batch_allocates),
                                      TEST(the_size_for_the_network_is_told),
                                      TEST(some_classes_give_what_all_give_of_them),
                                      TEST(negative_options_mean_none),
                                      TEST(halves_give_the_whole),
                                      TEST(more_sizes_than_are_remembered_do_no_harm),
                                      TEST(progress_can_stop_a_call),
                                      TEST(wrong_arguments_are_refused_by_name),
                                      TEST(an_iou_of_one_suppresses_nothing),
                                      TEST(the_smallest_input_has_32_pixels),
                                      {0}};
    const int absent = test_open(argc, argv);
    if (absent) return absent;
    context = test_context(1);
    make_model();
    int status = test_main(argc, argv, cases);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return status;
}
