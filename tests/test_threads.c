/* test_threads.c - what several threads may do at once; make config=thread looks for races
 *
 * The checks of the harness are not for threads: each leaves a number or a status, and the case
 * looks at them when all have ended. */
#include "data.h"
#include "train.h"

#include <pthread.h>

enum { THREADS = 4, IMAGES = 6 };

typedef struct worker {
    pthread_t thread;
    void (*work)(struct worker *);
    const gfl_dataset *dataset;
    const gfl_model *model;
    int index;
    bool failed;
    uint64_t seen; /* of everything that came out: the same for all */
    char error[300];
} worker;

static void *begin(void *p) {
    worker *w = (worker *)p;
    w->work(w);
    return NULL;
}

/* Run on all threads at once; none may fail, and all must see the same. */
static void run_all(worker *workers, void (*work)(worker *), const gfl_dataset *dataset,
                    const gfl_model *model) {
    for (int i = 0; i < THREADS; i++) {
        worker *w = &workers[i];
        memset(w, 0, sizeof *w);
        w->work = work;
        w->dataset = dataset;
        w->model = model;
        w->index = i;
        if (pthread_create(&w->thread, NULL, begin, w) != 0) exit(1);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].failed) printf("thread %d: %s\n", i, workers[i].error);
        CHECK(!workers[i].failed && workers[i].seen == workers[0].seen && workers[i].seen != 0);
    }
}

static bool fine(worker *w, gfl_context *context, gfl_status status) {
    if (status == GFL_OK) return true;
    if (!w->failed) snprintf(w->error, sizeof w->error, "%.250s", gfl_context_get_error(context));
    w->failed = true;
    return false;
}

static void see(worker *w, const void *bytes, size_t n) {
    w->seen = w->seen * 31 + data_fnv1a64((const uint8_t *)bytes, n);
}

static gfl_context *own_context(worker *w, int n_threads) {
    gfl_context_desc desc;
    gfl_context *context = NULL;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = n_threads;
    if (gfl_context_create(&desc, &context) != GFL_OK) exit(1);
    w->seen += 1;
    return context;
}

/* ---- contexts and files ---------------------------------------------------------------------- */

static void square(void *arg, int task, int slot) {
    (void)slot;
    ((int *)arg)[task] = task * task;
}

static void open_and_close(worker *w) {
    for (int round = 0; round < 20; round++) {
        int squares[50];
        gfl_context *context = own_context(w, 1 + (round + w->index) % 4);
        for (int i = 0; i < 10; i++) gfli_parallel_for(context, 50, square, squares);
        see(w, squares, sizeof squares);
        gfl_context_destroy(context);
    }
}

static void contexts_come_and_go_side_by_side(void) {
    worker workers[THREADS];
    run_all(workers, open_and_close, NULL, NULL);
}

/* Decoders have tables that the first picture fills: this case comes before other pictures. */
static void decode_all(worker *w) {
    static const char *const names[] = {
        "grey.jpg", "grey16.png", "palette.bmp", "palette.png", "progressive.jpg", "rgb.bmp",
        "rgb.jpg",  "rgb.png",    "rgb.jpg.ppm", "rgb16.png",   "rgba.png"};
    gfl_context *context = own_context(w, 1);
    for (size_t i = 0; i < GFLI_COUNT(names); i++) {
        char path[1100];
        gfl_pixels pixels;
        const char *root = getenv("GFL_TEST_DATA");
        snprintf(path, sizeof path, "%s/images/%s", root && *root ? root : "tests/data", names[i]);
        if (!fine(w, context, gfl_image_read(context, path, &pixels))) break;
        see(w, pixels.rgb, 3 * (size_t)pixels.width * (size_t)pixels.height);
        gfl_pixels_free(context, &pixels);
    }
    gfl_context_destroy(context);
}

static void pictures_are_decoded_side_by_side(void) {
    worker workers[THREADS];
    run_all(workers, decode_all, NULL, NULL);
}

/* ---- what is shared -------------------------------------------------------------------------- */

static void ask_dataset(worker *w) {
    gfl_context *context = own_context(w, 1);
    for (int round = 0; round < 50; round++) {
        gfl_dataset_summary summary;
        gfl_image_info info;
        gfl_dataset_get_summary(w->dataset, &summary);
        see(w, &summary, sizeof summary);
        for (int i = 0; i < gfl_dataset_count_images(w->dataset); i++) {
            gfl_pixels pixels;
            fine(w, context, gfl_dataset_get_image(w->dataset, i, &info));
            see(w, info.annotations, (size_t)info.n_annotations * sizeof *info.annotations);
            if (round % 10 || !fine(w, context, gfl_dataset_read(context, w->dataset, i, &pixels)))
                continue;
            see(w, pixels.rgb, 3 * (size_t)pixels.width * (size_t)pixels.height);
            gfl_pixels_free(context, &pixels);
        }
        /* errors write no more than answers do */
        if (gfl_dataset_get_image(w->dataset, IMAGES, &info) != GFL_E_ARG) w->failed = true;
        if (gfl_dataset_get_image(w->dataset, -1, &info) != GFL_E_ARG) w->failed = true;
        for (int i = 0; i < gfl_dataset_count_classes(w->dataset); i++)
            see(w, gfl_dataset_get_classes(w->dataset)[i].name, 4);
    }
    gfl_context_destroy(context);
}

static void a_data_set_is_asked_by_many_threads(void) {
    worker workers[THREADS];
    gfl_context *context = test_context(1);
    gfl_dataset *dataset = train_dataset(context, IMAGES, NULL, NULL);
    run_all(workers, ask_dataset, dataset, NULL);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
}

/* Odd threads compute with a pool of their own. */
static void detect(worker *w) {
    gfl_context *context = own_context(w, 1 + w->index % 2 * 2);
    gfl_detector *detector = NULL;
    gfl_detect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.min_score = 1e-6f;
    fine(w, context, gfl_detector_create(context, w->model, with_distributions(), &detector));
    for (int i = 0; i < 2 * IMAGES && !w->failed; i++) {
        gfl_pixels pixels;
        gfl_image image;
        gfl_detection_list found;
        if (!fine(w, context, gfl_dataset_read(context, w->dataset, i % IMAGES, &pixels))) break;
        image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height);
        if (fine(w, context, gfl_detect(detector, &image, 1, &opts, &found)))
            see(w, found.items, (size_t)found.count * sizeof *found.items);
        gfl_pixels_free(context, &pixels);
    }
    gfl_detector_destroy(detector);
    gfl_context_destroy(context);
}

/* The same file by all, and a file of its own. */
static void load_and_save(worker *w) {
    gfl_context *context = own_context(w, 1);
    gfl_model *model = NULL;
    gfl_load_desc opts;
    char path[64];
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    snprintf(path, sizeof path, "test_threads.%d.safetensors", w->index);
    if (fine(w, context, gfl_model_load(context, "test_threads.safetensors", &opts, &model)) &&
        fine(w, context, gfl_model_save(model, path)))
        see(w, model->params[9].data, model->params[9].count * sizeof(float));
    gfl_model_destroy(model);
    remove(path);
    gfl_context_destroy(context);
}

static void a_model_is_used_by_many_threads(void) {
    worker workers[THREADS];
    gfl_model_desc desc;
    gfl_context *context = test_context(3);
    gfl_dataset *dataset = train_dataset(context, IMAGES, NULL, NULL);
    train_micro_desc(&desc, 18, 2);
    desc.classes = gfl_dataset_get_classes(dataset);
    gfl_model *model = train_model(context, &desc);
    run_all(workers, detect, dataset, model);
    CHECK_OK(context, gfl_model_save(model, "test_threads.safetensors"));
    run_all(workers, load_and_save, dataset, model);
    remove("test_threads.safetensors");
    gfl_model_destroy(model);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
}

/* Results that miss a little, more so from image to image. */
static void evaluate(worker *w) {
    gfl_context *context = own_context(w, 1 + w->index % 2 * 2);
    gfl_evaluator *evaluator = NULL;
    gfl_eval_result result;
    fine(w, context, gfl_evaluator_create(context, w->dataset, NULL, &evaluator));
    for (int i = 0; i < IMAGES && !w->failed; i++) {
        gfl_image_info info;
        fine(w, context, gfl_dataset_get_image(w->dataset, i, &info));
        for (int k = 0; k < info.n_annotations; k++) {
            const gfl_annotation *a = &info.annotations[k];
            gfl_detection d;
            memset(&d, 0, sizeof d);
            d.x1 = (float)a->x + (float)i;
            d.y1 = (float)a->y;
            d.x2 = (float)(a->x + a->w);
            d.y2 = (float)(a->y + a->h);
            d.score = 0.5f;
            d.label = a->label;
            fine(w, context, gfl_evaluator_add_detections(evaluator, i, &d, 1));
        }
    }
    if (fine(w, context, gfl_evaluator_run(evaluator, &result))) see(w, &result, sizeof result);
    gfl_evaluator_destroy(evaluator);
    gfl_context_destroy(context);
}

static void evaluators_share_a_data_set(void) {
    worker workers[THREADS];
    gfl_context *context = test_context(1);
    gfl_dataset *dataset = train_dataset(context, IMAGES, NULL, NULL);
    run_all(workers, evaluate, dataset, NULL);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
}

/* ---- training -------------------------------------------------------------------------------- */

/* A model of its own, decoding ahead and computing on several threads, then detecting. */
static void train(worker *w) {
    gfl_context *context = own_context(w, 1 + w->index);
    gfl_model_desc desc;
    gfl_trainer_desc d;
    gfl_model *model = NULL;
    gfl_trainer *trainer = NULL;
    train_micro_desc(&desc, 18, 2);
    desc.classes = gfl_dataset_get_classes(w->dataset);
    desc.trainable = 1;
    memset(&d, 0, sizeof d);
    d.batch = 2;
    d.accumulate = 2;
    d.loaders = 1 + w->index;
    d.warmup = -1;
    if (fine(w, context, gfl_model_create(context, &desc, &model)) &&
        fine(w, context, gfl_trainer_create(context, model, w->dataset, &d, &trainer))) {
        for (int i = 0; i < 3; i++) fine(w, context, gfl_trainer_step(trainer, NULL));
        see(w, model->params[9].data, model->params[9].count * sizeof(float));
        fine(w, context, gfl_model_sync(model));
        see(w, model->layers[9].folded_bias, sizeof(float));
    }
    gfl_trainer_destroy(trainer);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
}

static void trainers_share_a_data_set(void) {
    worker workers[THREADS];
    gfl_context *context = test_context(1);
    gfl_dataset *dataset = train_dataset(context, IMAGES, NULL, NULL);
    run_all(workers, train, dataset, NULL);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
}

/* Loaders that are sent elsewhere while they work, and stopped at any moment. */
static void load(worker *w) {
    gfl_context *context = own_context(w, 1);
    gfli_loader_opts o;
    memset(&o, 0, sizeof o);
    o.batch = 2;
    o.seed = 3;
    o.scale_long = 96;
    o.scale_short = 64;
    for (int round = 0; round < 5 && !w->failed; round++) {
        gfli_loader *loader = NULL;
        const gfli_batch *batch;
        o.n_threads = (round + w->index) % 4;
        if (!fine(w, context, gfli_loader_create(context, w->dataset, &o, &loader))) break;
        for (int i = 0; i < 8 && !w->failed; i++) {
            if (i % 3 == 0) fine(w, context, gfli_loader_start(loader, i, i % 2));
            if (!fine(w, context, gfli_loader_next(loader, &batch))) break;
            for (int k = 0; k < batch->n; k++) {
                const gfli_sample *s = &batch->samples[k];
                see(w, s->pixels, 3 * (size_t)s->width * (size_t)s->height);
                see(w, s->boxes, 4 * (size_t)s->n_boxes * sizeof *s->boxes);
            }
        }
        gfli_loader_destroy(loader);
    }
    gfl_context_destroy(context);
}

static void loaders_are_stopped_at_any_moment(void) {
    worker workers[THREADS];
    gfl_context *context = test_context(1);
    gfl_dataset *dataset = train_dataset(context, IMAGES, NULL, NULL);
    run_all(workers, load, dataset, NULL);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(pictures_are_decoded_side_by_side),   TEST(contexts_come_and_go_side_by_side),
        TEST(a_data_set_is_asked_by_many_threads), TEST(a_model_is_used_by_many_threads),
        TEST(evaluators_share_a_data_set),         TEST(trainers_share_a_data_set),
        TEST(loaders_are_stopped_at_any_moment),   {0},
    };
    return test_main(argc, argv, cases);
}
