/* shown.c - the C that the README and the guide show: it compiles as it stands there, and does what
 * they say of it; and the numbers of the guide's table */
#include "shown.h" /* made by shown.sh; before anything internal is declared */
#include "test.h"

static gfl_context *context;
static const char weights[] = "weights.safetensors"; /* of three classes, for pictures of 64x64 */

static const char annotations[] =
    "{\"images\": [{\"id\": 1}, {\"id\": 2}, {\"id\": 3}, {\"id\": 4}, {\"id\": 5}],"
    " \"categories\": [{\"id\": 1, \"name\": \"b\"}, {\"id\": 2, \"name\": \"new\"}],"
    " \"annotations\": ["
    "{\"id\": 1, \"image_id\": 1, \"category_id\": 1, \"bbox\": [8, 8, 30, 40]},"
    "{\"id\": 2, \"image_id\": 2, \"category_id\": 2, \"bbox\": [4, 20, 40, 24]}]}";

/* A narrow model that knows nothing. */
static gfl_model *make_model(void) {
    static const gfl_class classes[] = {{"a", 1}, {"b", 2}, {"c", 3}};
    gfl_model_desc desc = {0};
    gfl_model *model = NULL;
    desc.arch.depth = 18;
    desc.arch.base_channels = 4;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.stacked_convs = 1;
    desc.arch.n_classes = 3;
    desc.preprocess.std[0] = desc.preprocess.std[1] = desc.preprocess.std[2] = 50;
    desc.preprocess.scale_long = desc.preprocess.scale_short = 64;
    desc.classes = classes;
    desc.trainable = 1;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    return model;
}

static gfl_image make_image(const unsigned char *pixels) {
    gfl_image image = {0};
    image.pixels = pixels;
    image.width = image.height = 64;
    return image;
}

static const unsigned char *noise(void) {
    static unsigned char pixels[64 * 64 * 3];
    for (int i = 0; i < (int)sizeof pixels; i++) pixels[i] = (unsigned char)(i * 7919 >> 4);
    return pixels;
}

static void the_first_program_of_the_readme_detects(void) {
    gfl_model *model = make_model();
    CHECK_OK(context, gfl_model_save(model, weights));
    CHECK(find(noise(), 64, 64) == 0);
    gfl_model_destroy(model);
}

static void two_cameras_share_a_model(void) {
    gfl_model *model = make_model();
    camera c[2];
    memset(c, 0, sizeof c);
    for (int i = 0; i < 2; i++) {
        c[i].model = model;
        c[i].frame = make_image(noise());
        c[i].found = -1;
        watch(c + i);
        CHECK(c[i].found >= 0 && !*c[i].error);
    }
    c->frame.width = 0;
    watch(c);
    CHECK(strstr(c->error, "0 x 64") != NULL);
    gfl_model_destroy(model);
}

static void detections_are_the_same_on_threads_of_the_host(void) {
    gfl_model *model = make_model();
    gfl_detect_opts opts = {0};
    gfl_detection_list want, got;
    gfl_detector *mine = NULL, *theirs = NULL;
    gfl_context *own = NULL;
    gfl_image image = make_image(noise());
    opts.min_score = 1e-6f;
    CHECK(open_on_own_threads(4, &own) == GFL_OK);
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &mine));
    CHECK_OK(own, gfl_detector_create(own, model, NULL, &theirs));
    CHECK_OK(context, gfl_detect(mine, &image, 1, &opts, &want));
    CHECK_OK(own, gfl_detect(theirs, &image, 1, &opts, &got));
    CHECK(want.count > 0 && got.count == want.count);
    CHECK(!memcmp(got.items, want.items, (size_t)want.count * sizeof *want.items));
    gfl_detector_destroy(mine);
    gfl_detector_destroy(theirs);
    gfl_context_destroy(own);
    gfl_model_destroy(model);
}

static void a_reserved_detector_allocates_nothing_more(void) {
    gfl_model *model = make_model();
    budget b = {0, (size_t)1 << 28, 0};
    gfl_detector *detector = NULL;
    gfl_context *within = NULL;
    gfl_image images[4];
    gfl_detection_list found[4];
    for (int i = 0; i < 4; i++) images[i] = make_image(noise());
    CHECK(open_within(&b, &within) == GFL_OK);
    CHECK_OK(within, open_reserved(within, model, 64, 64, &detector));
    const int calls = b.calls;
    CHECK_OK(within, gfl_detect(detector, images, 4, NULL, found));
    CHECK(calls > 0 && b.calls == calls);
    b.limit = b.used;
    CHECK_ERROR(within, gfl_detector_reserve(detector, 4000, 4000, 8, NULL), GFL_E_MEMORY,
                "memory");
    gfl_detector_destroy(detector);
    gfl_context_destroy(within);
    CHECK(b.used == 0);
    gfl_model_destroy(model);
}

static void a_call_is_cancelled_and_the_detector_used_again(void) {
    gfl_model *model = make_model();
    gfl_detector *detector = NULL;
    gfl_detection_list found;
    gfl_image image = make_image(noise());
    volatile int cancelled = 1;
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &detector));
    CHECK_ERROR(context, detect_until(detector, &image, &cancelled, &found), GFL_E_STOPPED,
                "stopped");
    cancelled = 0;
    CHECK_OK(context, detect_until(detector, &image, &cancelled, &found));
    gfl_detector_destroy(detector);
    gfl_model_destroy(model);
}

static void warnings_reach_the_log(void) {
    gfl_context *logged = NULL;
    gfl_dataset *data = NULL;
    gfl_dataset_desc desc = {0};
    char line[200] = "";
    FILE *log = tmpfile();
    desc.drop_empty_classes = 1;
    CHECK(log && open_with_log(log, &logged) == GFL_OK);
    const char *json =
        "{\"images\": [{\"id\": 1}], \"categories\": [{\"id\": 1, \"name\": \"a\"},"
        " {\"id\": 2, \"name\": \"b\"}], \"annotations\": [{\"id\": 1, \"image_id\": 1,"
        " \"category_id\": 1, \"bbox\": [1, 1, 5, 5]}]}";
    CHECK_OK(logged, gfl_dataset_load_coco_memory(logged, json, strlen(json), &desc, &data));
    rewind(log);
    CHECK(fgets(line, sizeof line, log) && !strncmp(line, "gfl: ", 5) && strstr(line, "left out"));
    fclose(log);
    gfl_dataset_destroy(data);
    gfl_context_destroy(logged);
}

static void distributions_and_named_classes_come_as_asked(void) {
    static const char *const names[] = {"c", "nothing"};
    gfl_model *model = make_model();
    gfl_detector_desc desc = {0};
    gfl_detect_opts opts = {0};
    gfl_detector *detector = NULL;
    gfl_detection_list found;
    gfl_image image = make_image(noise());
    double width = 0, variance = 0;
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &detector));
    opts.min_score = 1e-6f;
    CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &found));
    CHECK(found.count > 0 && !measure_width(&found, 0, &width, &variance));
    CHECK_OK(context, detect_named(detector, model, names, 2, &image, &found));
    for (int i = 0; i < found.count; i++) CHECK(found.items[i].label == 2);
    CHECK(detect_named(detector, model, names + 1, 1, &image, &found) == GFL_E_ARG);
    gfl_detector_destroy(detector);
    desc.distributions = 1;
    CHECK_OK(context, gfl_detector_create(context, model, &desc, &detector));
    CHECK_OK(context, gfl_detect(detector, &image, 1, &opts, &found));
    CHECK(found.count > 0 && measure_width(&found, 0, &width, &variance));
    CHECK(width > 0 && variance > 0);
    gfl_detector_destroy(detector);
    gfl_model_destroy(model);
}

/* At any address, as a linker puts it. */
static void weights_are_loaded_from_inside_a_program(void) {
    gfl_model *model = make_model(), *embedded = NULL;
    CHECK_OK(context, gfl_model_save(model, weights));
    FILE *f = fopen(weights, "rb");
    static char bytes[1 << 22];
    const size_t n = f ? fread(bytes + 1, 1, sizeof bytes - 1, f) : 0;
    if (f) fclose(f);
    CHECK(n > 0 && n < sizeof bytes - 1);
    CHECK_OK(context, load_embedded(context, bytes + 1, bytes + 1 + n, &embedded));
    gfl_model_destroy(embedded);
    gfl_model_destroy(model);
}

static void a_detector_is_fine_tuned_on_pictures_without_files(void) {
    gfl_model *model = make_model(), *tuned = NULL;
    gfl_dataset *data = NULL;
    gfl_model_info info;
    int side = 64;
    CHECK_OK(context, gfl_model_save(model, weights));
    CHECK_OK(context, open_own_pictures(context, annotations, &side, &data));
    CHECK_OK(context, fine_tune(context, weights, data, 1, "tuned.safetensors"));
    CHECK_OK(context, gfl_model_load(context, "tuned.safetensors", NULL, &tuned));
    gfl_model_get_info(tuned, &info);
    CHECK(info.arch.n_classes == 2 && !strcmp(info.classes[1].name, "new"));
    gfl_dataset_desc pixels;
    double ap = -2;
    memset(&pixels, 0, sizeof pixels);
    pixels.read_image = make_pixels;
    pixels.user = &side;
    CHECK_OK(context, evaluate_trained_boxes(context, tuned, data, &pixels, &ap));
    CHECK(ap >= 0 && ap <= 1);
    gfl_model_destroy(tuned);
    gfl_dataset_destroy(data);
    gfl_model_destroy(model);
}

static void where_there_is_no_gpu_the_cpu_serves(void) {
    gfl_context *anywhere = NULL;
    CHECK(open_anywhere(NULL, &anywhere) == GFL_OK);
    CHECK(!strncmp(gfl_context_get_device(anywhere), "CPU", 3));
    gfl_context_destroy(anywhere);
    CHECK_OK(context, print_cost(context, "r18", 640, 480));
    CHECK_ERROR(context, print_cost(context, "r19", 640, 480), GFL_E_ARG, "r19");
}

/* "| r50 | 16.6 | ..." under "| model | 320x240 | ...". */
static void the_table_of_costs_is_what_the_library_says(void) {
    char path[1000], line[1000];
    int scales[16][2], n_scales = 0, rows = 0;
    snprintf(path, sizeof path, "%s/docs/guide.md", getenv("GFL_ROOT") ? getenv("GFL_ROOT") : ".");
    FILE *f = fopen(path, "r");
    CHECK(f != NULL);
    while (f && fgets(line, sizeof line, f)) {
        gfl_arch arch;
        gfl_model_cost cost;
        char *cell = strtok(line, "| \n");
        if (cell && !strcmp(cell, "model"))
            while (n_scales < 16 && (cell = strtok(NULL, "| \n")))
                n_scales += sscanf(cell, "%dx%d", &scales[n_scales][0], &scales[n_scales][1]) == 2;
        if (!cell || gfl_arch_find_preset(context, cell, &arch) != GFL_OK) continue;
        for (int i = 0; i < n_scales && (cell = strtok(NULL, "| \n")); i++, rows++) {
            CHECK_OK(context,
                     gfl_arch_get_cost(context, &arch, scales[i][0], scales[i][1], 1, &cost));
            CHECK_NEAR((double)cost.macs * 1e-9, strtod(cell, NULL), 0.051);
        }
    }
    if (f) fclose(f);
    CHECK(n_scales == 6 && rows == 24);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST_CPU(the_first_program_of_the_readme_detects),
                                      TEST_CPU(two_cameras_share_a_model),
                                      TEST_CPU(detections_are_the_same_on_threads_of_the_host),
                                      TEST_CPU(a_reserved_detector_allocates_nothing_more),
                                      TEST_CPU(a_call_is_cancelled_and_the_detector_used_again),
                                      TEST_CPU(warnings_reach_the_log),
                                      TEST_CPU(distributions_and_named_classes_come_as_asked),
                                      TEST_CPU(weights_are_loaded_from_inside_a_program),
                                      TEST_CPU(a_detector_is_fine_tuned_on_pictures_without_files),
                                      TEST_CPU(where_there_is_no_gpu_the_cpu_serves),
                                      TEST_CPU(the_table_of_costs_is_what_the_library_says),
                                      {0}};
    if (gfl_context_create(NULL, &context) != GFL_OK) return 1;
    const int code = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return code;
}
