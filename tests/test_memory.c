/* test_memory.c - the n-th allocation fails, for every n: no crash, no leak, a clear error */
#include "test.h"

static const gfl_arch narrow = {18, 1, 0, 4, 32, 32, 1, 2, 7, GFL_DIALECT_MMDET, 0, 0, 0};

typedef struct counting {
    long calls, fail_at, live;
} counting;

static void *counting_alloc(void *user, size_t size) {
    counting *c = (counting *)user;
    if (__atomic_fetch_add(&c->calls, 1, __ATOMIC_RELAXED) == c->fail_at) return NULL;
    __atomic_fetch_add(&c->live, 1, __ATOMIC_RELAXED);
    return malloc(size);
}

static void counting_free(void *user, void *p) {
    __atomic_fetch_sub(&((counting *)user)->live, 1, __ATOMIC_RELAXED);
    free(p);
}

/* Run `work` with the 0th, 1st, 2nd ... allocation failing until it succeeds. */
static void sweep(const char *what, gfl_status (*work)(gfl_context *)) {
    long n = 0;
    for (;; n++) {
        counting c = {0, n, 0};
        gfl_context_desc desc;
        memset(&desc, 0, sizeof desc);
        desc.n_threads = 2;
        desc.allocator.alloc = counting_alloc;
        desc.allocator.free = counting_free;
        desc.allocator.user = &c;
        gfl_context *context = NULL;
        gfl_status status = gfl_context_create(&desc, &context);
        if (status == GFL_OK) status = work(context);
        if (status != GFL_OK && context) {
            CHECK(status == GFL_E_MEMORY);
            CHECK(strstr(gfl_context_get_error(context), "memory") != NULL);
            if (status != GFL_E_MEMORY)
                printf("%s, allocation %ld: %s %s\n", what, n, gfl_status_get_name(status),
                       gfl_context_get_error(context));
        }
        gfl_context_destroy(context);
        CHECK(c.live == 0);
        if (status == GFL_OK || test_failures > 5) break;
    }
    printf("%s: %ld allocations, each made to fail\n", what, n);
    CHECK(n > 5);
}

static gfl_status make_model(gfl_context *context, int trainable, gfl_model **out) {
    gfl_model_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.arch = narrow;
    desc.preprocess.scale_long = desc.preprocess.scale_short = 64;
    desc.seed = 1;
    desc.trainable = trainable;
    return gfl_model_create(context, &desc, out);
}

static void grey_picture(uint8_t *pixels, gfl_image *out) {
    for (int i = 0; i < 50 * 40; i++) pixels[i] = (uint8_t)(i * 37 % 251);
    memset(out, 0, sizeof *out);
    out->pixels = pixels;
    out->width = 50;
    out->height = 40;
    out->format = GFL_FORMAT_GREY;
}

static gfl_status detect_once(gfl_context *context) {
    gfl_model *model = NULL;
    gfl_detector *detector = NULL;
    uint8_t pixels[50 * 40];
    gfl_image image;
    gfl_detection_list found;
    grey_picture(pixels, &image);
    gfl_status status = make_model(context, 0, &model);
    if (status == GFL_OK)
        status = gfl_detector_create(context, model, with_distributions(), &detector);
    if (status == GFL_OK) status = gfl_detect(detector, &image, 1, NULL, &found);
    gfl_detector_destroy(detector);
    gfl_model_destroy(model);
    return status;
}

static void detection(void) {
    sweep("detection", detect_once);
}

static gfl_status save_and_load_once(gfl_context *context) {
    gfl_model *model = NULL, *again = NULL;
    gfl_status status = make_model(context, 1, &model);
    if (status == GFL_OK) status = gfl_model_save(model, "test_memory.safetensors");
    if (status == GFL_OK) status = gfl_model_load(context, "test_memory.safetensors", NULL, &again);
    gfl_model_destroy(again);
    again = NULL;
    gfl_bytes bytes = {NULL, 0};
    if (status == GFL_OK) status = gfl_model_save_memory(model, &bytes);
    if (status == GFL_OK)
        status = gfl_model_load_memory(context, bytes.data, bytes.size, NULL, &again);
    gfl_bytes_free(context, &bytes);
    gfl_model_destroy(again);
    for (int format = GFL_EXPORT_MMDET; format <= GFL_EXPORT_ONNX && status == GFL_OK; format++) {
        status = gfl_model_export_memory(model, (gfl_export_format)format, NULL, &bytes);
        CHECK((status == GFL_OK) == (bytes.data != NULL));
        gfl_bytes_free(context, &bytes);
    }
    gfl_model_destroy(model);
    return status;
}

static void saving_and_loading(void) {
    sweep("saving and loading", save_and_load_once);
    remove("test_memory.safetensors");
}

static gfl_status import_once(gfl_context *context) {
    static const gfl_class classes[2] = {{"class 1", 1}, {"new", 2}};
    const gfl_transfer_desc how = {classes, 2, NULL, NULL, 0};
    gfl_import_desc opts;
    gfl_backbone_info info;
    gfl_model *model = NULL, *tuned = NULL;
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    gfl_status status = gfl_model_import(context, "test_memory_import.safetensors", &opts, &model);
    if (status == GFL_OK) status = gfl_model_create_from(context, model, &how, &tuned);
    if (status == GFL_OK) status = gfl_model_save_backbone(tuned, 3, "test_memory_backbone");
    if (status == GFL_OK)
        status = gfl_backbone_describe(context, "test_memory_backbone", NULL, &info);
    if (status == GFL_OK) status = gfl_model_load_backbone(model, "test_memory_backbone");
    gfl_model_destroy(tuned);
    gfl_model_destroy(model);
    return status;
}

static void importing_and_transferring(void) {
    gfl_context *context = test_context(1);
    gfl_model *model = NULL;
    CHECK_OK(context, make_model(context, 1, &model));
    CHECK_OK(context, gfl_model_save(model, "test_memory_import.safetensors"));
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    sweep("importing and transferring", import_once);
    remove("test_memory_import.safetensors");
    remove("test_memory_backbone");
}

static const char annotations[] =
    "{\"images\":[{\"id\":7,\"file_name\":\"a.png\",\"width\":50,\"height\":40},"
    "{\"id\":9,\"file_name\":\"b.png\",\"width\":50,\"height\":40}],"
    "\"annotations\":[{\"id\":1,\"image_id\":7,\"category_id\":2,\"bbox\":[5,5,30,20],"
    "\"area\":600,\"iscrowd\":0}],"
    "\"categories\":[{\"id\":1,\"name\":\"cat\"},{\"id\":2,\"name\":\"dog\"}]}";

static gfl_status read_picture(void *user, gfl_context *context, int image, gfl_pixels *out) {
    (void)user;
    gfl_status status = gfl_pixels_alloc(context, 50, 40, out);
    for (int i = 0; status == GFL_OK && i < 50 * 40 * 3; i++)
        out->rgb[i] = (uint8_t)((i * 31 + image * 7) % 253);
    return status;
}

static gfl_status train_once(gfl_context *context) {
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.read_image = read_picture;
    gfl_trainer_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.batch = 2;
    desc.epochs = 1;
    desc.loaders = -1;
    desc.frozen_stages = 0;
    gfl_model *model = NULL;
    gfl_dataset *data = NULL;
    gfl_trainer *trainer = NULL;
    gfl_step_report report;
    gfl_status status =
        gfl_dataset_load_coco_memory(context, annotations, sizeof annotations - 1, &opts, &data);
    if (status == GFL_OK) status = make_model(context, 1, &model);
    if (status == GFL_OK) status = gfl_trainer_create(context, model, data, &desc, &trainer);
    if (status == GFL_OK) status = gfl_trainer_step(trainer, &report);
    if (status == GFL_OK) status = gfl_trainer_save_state(trainer, "test_memory.state");
    if (status == GFL_OK) status = gfl_trainer_load_state(trainer, "test_memory.state");
    gfl_trainer_destroy(trainer);
    gfl_model_destroy(model);
    gfl_dataset_destroy(data);
    return status;
}

static void training(void) {
    sweep("a training step", train_once);
    remove("test_memory.state");
}

static gfl_status evaluate_once(gfl_context *context) {
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.read_image = read_picture;
    gfl_dataset *data = NULL;
    gfl_evaluator *evaluator = NULL;
    gfl_detection box = {5, 5, 35, 25, 0.9f, 1};
    gfl_eval_result result;
    gfl_status status =
        gfl_dataset_load_coco_memory(context, annotations, sizeof annotations - 1, &opts, &data);
    if (status == GFL_OK) status = gfl_evaluator_create(context, data, NULL, &evaluator);
    if (status == GFL_OK) status = gfl_evaluator_add_detections(evaluator, 0, &box, 1);
    if (status == GFL_OK) status = gfl_evaluator_run(evaluator, &result);
    if (status == GFL_OK) CHECK_NEAR(result.ap, 1, 1e-12);
    gfl_evaluator_destroy(evaluator);
    gfl_dataset_destroy(data);
    return status;
}

static void evaluation(void) {
    sweep("evaluation", evaluate_once);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(detection), TEST(saving_and_loading), TEST(importing_and_transferring),
        TEST(training),  TEST(evaluation),         {0},
    };
    return test_main(argc, argv, cases);
}
