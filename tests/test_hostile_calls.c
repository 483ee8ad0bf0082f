/* test_hostile_calls.c - every public function with what no caller should give it
 *
 * NULL, zero, the largest and smallest numbers, NaN, enumerators that there are not, texts that
 * name nothing, in combinations drawn by chance.  Nothing may crash (run it under ASan and UBSan
 * too), a status is one that the header knows, and an error leaves a text of its own.  What only
 * the caller can know (that memory is as long as he says, that a pointer is one) is not lied
 * about. */
#include "train.h"

enum { CALLS = 60, BYTES = 48 << 20 };

/* ---- what calls are made with ---------------------------------------------------------------- */

static gfl_context *context;
static gfl_model *trainable, *packed;
static gfl_dataset *data;
static gfl_detector *detector;
static gfl_evaluator *evaluator;
static gfl_trainer *trainer;
static gfli_rng rng;
static size_t taken; /* of BYTES: what asks for too much is refused */

static void *bounded_alloc(void *user, size_t size) {
    size_t *p = NULL;
    (void)user;
    if (size < BYTES && __atomic_load_n(&taken, __ATOMIC_RELAXED) + size < BYTES)
        p = (size_t *)malloc(size + 16);
    if (!p) return NULL;
    *p = size;
    __atomic_fetch_add(&taken, size, __ATOMIC_RELAXED);
    return (char *)p + 16;
}

static void bounded_free(void *user, void *memory) {
    size_t *p = (size_t *)(void *)((char *)memory - 16);
    (void)user;
    __atomic_fetch_sub(&taken, *p, __ATOMIC_RELAXED);
    free(p);
}

static bool chance(int one_of) {
    return gfli_rng_below(&rng, one_of) == 0;
}

static int an_int(void) {
    static const int values[] = {INT_MIN, -65537, -2,           -1,     0,  1,    2,     3,
                                 5,       31,     32,           33,     64, 4096, 16384, 16385,
                                 65536,   65537,  INT_MAX - 31, INT_MAX};
    return values[gfli_rng_below(&rng, (int)GFLI_COUNT(values))];
}

static double a_real(void) {
    static const double values[] = {0, -1, 1, 0.5, -0.0, 1e-320, 1e-30, 1e30, 1e300, -1e300};
    const int i = gfli_rng_below(&rng, (int)GFLI_COUNT(values) + 3);
    return i < (int)GFLI_COUNT(values) ? values[i]
           : i % 3 == 0                ? (double)NAN
           : i % 3 == 1                ? (double)INFINITY
                                       : -(double)INFINITY;
}

/* A file that is there, names of nothing, of a folder, without end. */
static const char *a_path(void) {
    static char endless[70000];
    static const char *const paths[] = {
        NULL,       "",     "no/such/file", ".", "/", "hostile.safetensors", "hostile.state",
        "\xFF\x01", endless};
    memset(endless, 'x', sizeof endless - 1);
    return paths[gfli_rng_below(&rng, (int)GFLI_COUNT(paths))];
}

#define OR_NULL(object) (chance(6) ? NULL : (object))

/* The context or object of a call: where it is NULL the text has no place. */
static bool homeless;
static bool nobody(void) {
    const bool none = chance(8);
    homeless = homeless || none;
    return none;
}
#define OWNER(object) (nobody() ? NULL : (object))

static gfl_model *a_model(void) {
    return OWNER(chance(2) ? trainable : packed);
}

/* A field of a struct: 'i' an int or an enum, 'f' a float, 'd' a double. */
typedef struct field {
    size_t offset;
    char kind;
} field;

static void spoil(void *object, const field *fields, size_t n) {
    for (int k = gfli_rng_below(&rng, 4); k > 0; k--) {
        const field *f = &fields[gfli_rng_below(&rng, (int)n)];
        char *at = (char *)object + f->offset;
        const int i = an_int();
        const double d = a_real();
        const float real = d > 1e38 ? 1e38f : d < -1e38 ? -1e38f : (float)d;
        if (f->kind == 'i') memcpy(at, &i, sizeof i);
        if (f->kind == 'd') memcpy(at, &d, sizeof d);
        if (f->kind == 'f') memcpy(at, &real, sizeof real);
    }
}
#define SPOIL(object, fields) spoil(object, fields, GFLI_COUNT(fields))
#define ONE(type, name, kind)                                                                      \
    { offsetof(type, name), kind }

static gfl_arch an_arch(void) {
    static const field fields[] = {
        ONE(gfl_arch, depth, 'i'),         ONE(gfl_arch, groups, 'i'),
        ONE(gfl_arch, base_width, 'i'),    ONE(gfl_arch, base_channels, 'i'),
        ONE(gfl_arch, fpn_channels, 'i'),  ONE(gfl_arch, head_channels, 'i'),
        ONE(gfl_arch, stacked_convs, 'i'), ONE(gfl_arch, n_classes, 'i'),
        ONE(gfl_arch, reg_max, 'i'),       ONE(gfl_arch, dialect, 'i'),
        ONE(gfl_arch, deform, 'i'),        ONE(gfl_arch, deform_stages, 'i'),
        ONE(gfl_arch, style, 'i')};
    gfl_model_desc desc;
    train_micro_desc(&desc, chance(2) ? 18 : 50, 2);
    SPOIL(&desc.arch, fields);
    return desc.arch;
}

static gfl_preprocess a_preprocess(void) {
    static const field fields[] = {
        ONE(gfl_preprocess, mean[1], 'f'),    ONE(gfl_preprocess, std[0], 'f'),
        ONE(gfl_preprocess, std[2], 'f'),     ONE(gfl_preprocess, bgr, 'i'),
        ONE(gfl_preprocess, scale_long, 'i'), ONE(gfl_preprocess, scale_short, 'i')};
    gfl_model_desc desc;
    train_micro_desc(&desc, 18, 2);
    SPOIL(&desc.preprocess, fields);
    return desc.preprocess;
}

/* Two classes, perhaps without a name or in disorder. */
static const gfl_class *classes(void) {
    static gfl_class list[2];
    list[0].name = OR_NULL("light");
    list[1].name = OR_NULL("dark");
    list[0].id = an_int();
    list[1].id = an_int();
    return OR_NULL(list);
}

static gfl_load_desc a_load_desc(void) {
    static const field fields[] = {ONE(gfl_load_desc, trainable, 'i'),
                                   ONE(gfl_load_desc, dialect, 'i')};
    gfl_load_desc opts;
    memset(&opts, 0, sizeof opts);
    SPOIL(&opts, fields);
    return opts;
}

static gfl_import_desc import_opts(void) {
    static gfl_preprocess preprocess;
    gfl_import_desc opts;
    memset(&opts, 0, sizeof opts);
    preprocess = a_preprocess();
    opts.trainable = an_int();
    opts.dialect = (gfl_dialect)(chance(3) ? an_int() : 0);
    if (chance(3)) opts.style = (gfl_style)an_int();
    if (chance(3)) opts.preprocess = &preprocess;
    if (chance(3)) opts.classes = classes();
    if (chance(3)) opts.n_classes = chance(2) ? 2 : an_int() < 0 ? -1 : 0;
    return opts;
}

static gfl_image an_image(void) {
    static const uint8_t pixels[64 * 48 * 4];
    static const int sides[] = {INT_MIN, -1, 0, 1, 2, 31, 32, 48, 16385, INT_MAX};
    gfl_image image;
    memset(&image, 0, sizeof image);
    image.pixels = OR_NULL(pixels);
    image.width = chance(2) ? 64 : sides[gfli_rng_below(&rng, (int)GFLI_COUNT(sides))];
    image.height = chance(2) ? 48 : sides[gfli_rng_below(&rng, (int)GFLI_COUNT(sides))];
    image.format = chance(3) ? (gfl_format)an_int() : GFL_FORMAT_GREY;
    if (chance(8)) image.stride = chance(2) ? 1 : -1;
    return image;
}

static gfl_detect_opts detect_opts(void) {
    static const field fields[] = {
        ONE(gfl_detect_opts, min_score, 'f'),     ONE(gfl_detect_opts, nms_iou, 'f'),
        ONE(gfl_detect_opts, max_per_level, 'i'), ONE(gfl_detect_opts, max_detections, 'i'),
        ONE(gfl_detect_opts, scale_long, 'i'),    ONE(gfl_detect_opts, scale_short, 'i'),
        ONE(gfl_detect_opts, no_clip, 'i'),       ONE(gfl_detect_opts, on_device, 'i')};
    gfl_detect_opts opts;
    memset(&opts, 0, sizeof opts);
    static int labels[2];
    opts.scale_long = opts.scale_short = 64; /* what is larger takes its time */
    labels[0] = chance(2) ? 0 : an_int();
    if (chance(3)) opts.labels = labels;
    opts.n_labels = chance(4) ? an_int() : opts.labels ? 1 + gfli_rng_below(&rng, 2) : 0;
    if (opts.n_labels > 2) opts.labels = NULL;
    opts.agnostic = chance(3);
    SPOIL(&opts, fields);
    if (opts.scale_long > 96) opts.scale_short = -1;
    return opts;
}

static int a_batch(void) {
    static const int sizes[] = {INT_MIN, -1, 0, 1, 2, 65537, INT_MAX};
    return sizes[gfli_rng_below(&rng, (int)GFLI_COUNT(sizes))];
}

/* ---- the calls: each gives a status, GFL_OK where there is none ------------------------------ */

static gfl_status call_version(void) {
    return gfl_get_version() > 0 ? GFL_OK : (gfl_status)1;
}

static gfl_status call_status_name(void) {
    return gfl_status_get_name((gfl_status)an_int())[0] ? GFL_OK : (gfl_status)1;
}

/* The text goes where the description says. */
static gfl_status call_context_create(void) {
    static const field fields[] = {ONE(gfl_context_desc, device_index, 'i'),
                                   ONE(gfl_context_desc, precision, 'i'),
                                   ONE(gfl_context_desc, tune, 'i')};
    static const int threads[] = {INT_MIN, -1, 0, 1, 2, 257, INT_MAX};
    static const char *const kernels[] = {"", "portable", "PORTABLE", "mma"};
    gfl_context_desc desc;
    gfl_context *made = NULL;
    memset(&desc, 0, sizeof desc);
    SPOIL(&desc, fields);
    desc.kernel = OR_NULL(kernels[gfli_rng_below(&rng, (int)GFLI_COUNT(kernels))]);
    desc.n_threads = threads[gfli_rng_below(&rng, (int)GFLI_COUNT(threads))];
    desc.error = OR_NULL(context->error);
    desc.error_size = desc.error ? sizeof context->error : (size_t)(chance(2) ? 0 : 100);
    if (chance(3)) desc.allocator.alloc = bounded_alloc;
    if (chance(3)) desc.allocator.free = bounded_free;
    const gfl_context_desc *given = OR_NULL(&desc);
    const gfl_status status =
        chance(4) ? gfl_context_create_abi(an_int(), &desc, desc.error, desc.error_size, &made)
                  : gfl_context_create(given, OR_NULL(&made));
    homeless = !given || !desc.error;
    gfl_context_destroy(made);
    return status;
}

static gfl_status call_context_getters(void) {
    CHECK(gfl_context_get_error(NULL)[0] && !gfl_context_get_device(NULL)[0] &&
          !gfl_context_count_threads(NULL));
    gfl_ranks ranks;
    gfl_context_destroy(NULL);
    (void)gfl_cpu_get_kernel(an_int());
    gfl_context_get_ranks(OR_NULL(context), OR_NULL(&ranks));
    (void)gfl_context_fail(NULL, GFL_E_RANK, OR_NULL("a text"));
    return gfl_context_fail(context, (gfl_status)(chance(2) ? GFL_OK : GFL_E_RANK), "a text");
}

static gfl_status call_dataset_load(void) {
    static const char text[] = "{\"images\": [], \"annotations\": [], \"categories\": []}";
    static const field fields[] = {ONE(gfl_dataset_desc, skip_strays, 'i'),
                                   ONE(gfl_dataset_desc, trust_boxes, 'i'),
                                   ONE(gfl_dataset_desc, boxes_from_polygons, 'i'),
                                   ONE(gfl_dataset_desc, drop_empty_classes, 'i')};
    gfl_dataset_desc opts;
    gfl_dataset *made = NULL;
    memset(&opts, 0, sizeof opts);
    SPOIL(&opts, fields);
    opts.image_dir = a_path();
    const gfl_status status =
        chance(2) ? gfl_dataset_load_coco(OWNER(context), a_path(), OR_NULL(&opts), OR_NULL(&made))
                  : gfl_dataset_load_coco_memory(OWNER(context), OR_NULL(text),
                                                 (size_t)gfli_rng_below(&rng, (int)sizeof text),
                                                 OR_NULL(&opts), OR_NULL(&made));
    gfl_dataset_destroy(made);
    return status;
}

static gfl_status call_dataset_create(void) {
    static const field fields[] = {
        ONE(gfl_annotation, x, 'd'),     ONE(gfl_annotation, w, 'd'),
        ONE(gfl_annotation, area, 'd'),  ONE(gfl_annotation, label, 'i'),
        ONE(gfl_annotation, image, 'i'), ONE(gfl_annotation, crowd, 'i')};
    gfl_annotation boxes[2];
    gfl_image_info images[2];
    gfl_dataset *made = NULL;
    memset(boxes, 0, sizeof boxes);
    memset(images, 0, sizeof images);
    SPOIL(&boxes[1], fields);
    images[0].file_name = a_path();
    images[0].id.number = chance(3) ? an_int() : 0;
    images[1].width = chance(3) ? an_int() : 0;
    images[1].annotations = OR_NULL(boxes);
    images[1].n_annotations = chance(4) ? INT_MIN : gfli_rng_below(&rng, 3);
    const gfl_status status = gfl_dataset_create(
        OWNER(context), classes(), chance(4) ? -1 : gfli_rng_below(&rng, 3), OR_NULL(images),
        chance(4) ? INT_MIN : gfli_rng_below(&rng, 3), NULL, OR_NULL(&made));
    gfl_dataset_destroy(made);
    return status;
}

static gfl_status call_dataset_getters(void) {
    gfl_dataset_summary summary;
    gfl_image_info info;
    gfl_dataset_get_summary(OWNER(data), OR_NULL(&summary));
    (void)gfl_dataset_count_images(NULL);
    (void)gfl_dataset_count_classes(NULL);
    (void)gfl_dataset_get_classes(NULL);
    /* The one function whose error has no text. */
    const gfl_status status = gfl_dataset_get_image(OWNER(data), an_int(), OR_NULL(&info));
    CHECK(status == GFL_OK || status == GFL_E_ARG);
    return GFL_OK;
}

static gfl_status call_dataset_read(void) {
    gfl_pixels pixels;
    memset(&pixels, 0, sizeof pixels);
    const gfl_status status =
        gfl_dataset_read(OWNER(context), OR_NULL(data), an_int(), OR_NULL(&pixels));
    gfl_pixels_free(NULL, &pixels);
    gfl_pixels_free(context, NULL);
    gfl_pixels_free(context, &pixels);
    return status;
}

static int look(void *user, int done, int total) {
    CHECK(user == &rng && done <= total);
    return chance(4);
}

static gfl_status call_dataset_check(void) {
    gfl_dataset_check_opts opts;
    int unreadable;
    memset(&opts, 0, sizeof opts);
    opts.progress = OR_NULL(look);
    opts.user = &rng;
    return gfl_dataset_check(OWNER(context), OR_NULL(data), OR_NULL(&opts), OR_NULL(&unreadable));
}

static gfl_status call_image_read(void) {
    static const char text[] = "P6 2 2 255 ............";
    gfl_pixels pixels;
    int readable;
    memset(&pixels, 0, sizeof pixels);
    (void)gfl_image_get_kind(text, (size_t)gfli_rng_below(&rng, 20), OR_NULL(&readable));
    (void)gfl_image_get_kind(NULL, 0, NULL);
    const gfl_status status = chance(2) ? gfl_image_read(OWNER(context), a_path(), OR_NULL(&pixels))
                                        : gfl_image_read_memory(OWNER(context), OR_NULL(text),
                                                                (size_t)gfli_rng_below(&rng, 23),
                                                                a_path(), OR_NULL(&pixels));
    gfl_pixels_free(context, &pixels);
    return status;
}

static gfl_status call_pixels_alloc(void) {
    gfl_pixels pixels;
    memset(&pixels, 0, sizeof pixels);
    const gfl_status status =
        gfl_pixels_alloc(OWNER(context), an_int(), an_int(), OR_NULL(&pixels));
    gfl_pixels_free(context, &pixels);
    return status;
}

static gfl_status call_detector_create(void) {
    gfl_detector *made = NULL;
    gfl_detector_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.distributions = an_int();
    const gfl_status status =
        gfl_detector_create(OWNER(context), a_model(), OR_NULL(&desc), OR_NULL(&made));
    gfl_detector_destroy(made);
    return status;
}

static gfl_status call_detect(void) {
    gfl_image images[2] = {an_image(), an_image()};
    const gfl_detect_opts opts = detect_opts();
    gfl_detection_list found[2];
    if (chance(4)) images[1] = gfl_image_from_rgb(images[0].pixels, an_int(), an_int());
    if (chance(2))
        return gfl_detect(OWNER(detector), OR_NULL(images), a_batch(), OR_NULL(&opts),
                          OR_NULL(found));
    gfl_status status = gfl_detect_start(OWNER(detector), OR_NULL(images), a_batch(), &opts);
    if (chance(2)) status = gfl_detect_finish(OWNER(detector), OR_NULL(found));
    return status;
}

static gfl_status call_detector_sizes(void) {
    const gfl_detect_opts opts = detect_opts();
    gfl_input_size size;
    if (chance(2))
        return gfl_detector_get_size(OWNER(detector), an_int(), an_int(), OR_NULL(&opts),
                                     OR_NULL(&size));
    return gfl_detector_reserve(OWNER(detector), chance(2) ? 48 : an_int(),
                                chance(2) ? 64 : an_int(), a_batch(), OR_NULL(&opts));
}

static gfl_status call_evaluator_create(void) {
    int some[2] = {an_int(), an_int()};
    static const field fields[] = {
        ONE(gfl_evaluator_desc, max_dets[0], 'i'), ONE(gfl_evaluator_desc, max_dets[1], 'i'),
        ONE(gfl_evaluator_desc, max_dets[2], 'i'), ONE(gfl_evaluator_desc, ignore_classes, 'i'),
        ONE(gfl_evaluator_desc, compatible, 'i')};
    gfl_evaluator_desc opts;
    gfl_evaluator *made = NULL;
    gfl_eval_result result;
    memset(&opts, 0, sizeof opts);
    SPOIL(&opts, fields);
    if (chance(3)) opts.images = some;
    if (chance(3)) opts.labels = some;
    opts.n_images = chance(4) ? INT_MIN : gfli_rng_below(&rng, 3);
    opts.n_labels = chance(4) ? -1 : gfli_rng_below(&rng, 3);
    gfl_status status =
        gfl_evaluator_create(OWNER(context), OR_NULL(data), OR_NULL(&opts), OR_NULL(&made));
    if (status == GFL_OK && chance(2)) status = gfl_evaluator_leave_out(OWNER(made), an_int());
    if (status == GFL_OK) status = gfl_evaluator_run(made, &result);
    gfl_evaluator_destroy(made);
    return status;
}

static gfl_status call_evaluator_add(void) {
    static const char json[] = "[{\"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 1, 1], "
                               "\"score\": 0.5}]";
    gfl_detection some[2];
    memset(some, 0, sizeof some);
    some[0].x1 = (float)fmin(fmax(a_real(), -1e38), 1e38);
    some[0].x2 = chance(3) ? NAN : 1;
    some[1].label = an_int();
    if (chance(3)) return gfl_evaluator_add_results(OWNER(evaluator), a_path());
    if (chance(3))
        return gfl_evaluator_add_results_memory(OWNER(evaluator), OR_NULL(json),
                                                (size_t)gfli_rng_below(&rng, (int)sizeof json));
    return gfl_evaluator_add_detections(OWNER(evaluator), chance(2) ? 0 : an_int(), OR_NULL(some),
                                        chance(3) ? INT_MIN : gfli_rng_below(&rng, 3));
}

static gfl_status write_nothing(void *user, const char *bytes, size_t size) {
    (void)user;
    (void)bytes;
    (void)size;
    return GFL_OK;
}

static gfl_status call_evaluator_run(void) {
    gfl_json_writer writer;
    gfl_eval_result result;
    gfl_eval_notes notes;
    char text[2000];
    gfl_evaluator_get_notes(OWNER(evaluator), OR_NULL(&notes));
    (void)gfl_evaluator_get_summary(OWNER(evaluator), OR_NULL(text),
                                    (size_t)gfli_rng_below(&rng, (int)sizeof text));
    memset(&writer, 0, sizeof writer);
    if (chance(2)) writer.write = write_nothing;
    if (chance(3)) return gfl_evaluator_save(OWNER(evaluator), a_path());
    if (chance(3)) return gfl_evaluator_write(OWNER(evaluator), OR_NULL(&writer));
    if (chance(2))
        return gfl_evaluator_get_class_result(OWNER(evaluator), an_int(), OR_NULL(&result));
    return gfl_evaluator_run(OWNER(evaluator), OR_NULL(&result));
}

static gfl_status call_evaluate(void) {
    static const gfl_rename renames[] = {{"light", NULL}, {NULL, "dark"}, {"dark", "light"}};
    const gfl_detect_opts detect = detect_opts();
    gfl_evaluate_desc desc;
    gfl_eval_result result;
    int map[2];
    memset(&desc, 0, sizeof desc);
    desc.detect = OR_NULL(&detect);
    desc.batch = chance(2) ? an_int() : 1;
    if (desc.batch > 3) desc.batch = -1; /* it takes its time */
    desc.renames = &renames[gfli_rng_below(&rng, 3)];
    desc.n_renames = chance(3) ? 1 : 0;
    desc.progress = OR_NULL(look);
    desc.user = &rng;
    if (chance(3))
        return gfl_match_dataset(OWNER(context), OR_NULL(packed), OR_NULL(data), desc.renames,
                                 desc.n_renames, OR_NULL(map));
    if (chance(2)) return gfl_evaluator_add_model(OWNER(evaluator), OR_NULL(packed), &desc);
    return gfl_evaluate(OWNER(context), OR_NULL(packed), OR_NULL(data), &desc, OR_NULL(&result));
}

static gfl_status call_model_export(void) {
    static const field fields[] = {
        ONE(gfl_export_opts, decode, 'i'), ONE(gfl_export_opts, pixels, 'i'),
        ONE(gfl_export_opts, batch, 'i'), ONE(gfl_export_opts, width, 'i'),
        ONE(gfl_export_opts, height, 'i')};
    gfl_export_opts opts;
    memset(&opts, 0, sizeof opts);
    SPOIL(&opts, fields);
    const gfl_export_format format =
        (gfl_export_format)(chance(3) ? an_int() : 1 + gfli_rng_below(&rng, 3));
    gfl_bytes bytes = {NULL, 0};
    if (chance(2)) return gfl_model_export(a_model(), format, OR_NULL(&opts), a_path());
    const gfl_status status =
        gfl_model_export_memory(a_model(), format, OR_NULL(&opts), OR_NULL(&bytes));
    gfl_bytes_free(context, &bytes);
    return status;
}

static gfl_status call_import(void) {
    const gfl_import_desc opts = import_opts();
    gfl_model *made = NULL;
    gfl_backbone_info info;
    if (chance(2))
        return gfl_backbone_describe(OWNER(context), a_path(), OR_NULL(&opts), OR_NULL(&info));
    const gfl_status status =
        gfl_model_import(OWNER(context), a_path(), OR_NULL(&opts), OR_NULL(&made));
    gfl_model_destroy(made);
    return status;
}

static gfl_status call_backbone(void) {
    if (chance(2)) return gfl_model_load_backbone(a_model(), a_path());
    return gfl_model_save_backbone(a_model(), an_int(), a_path());
}

static gfl_status call_classes(void) {
    const gfl_rename rename = {OR_NULL("light"), OR_NULL("dark")};
    gfl_preprocess preprocess = a_preprocess();
    gfl_transfer_desc how;
    gfl_model *made = NULL;
    int map[2] = {an_int(), an_int()};
    if (chance(2))
        return gfl_match_classes(OWNER(context), classes(), chance(3) ? -1 : 2, classes(),
                                 chance(3) ? INT_MIN : 2, OR_NULL(&rename), chance(3) ? -1 : 1,
                                 OR_NULL(map));
    memset(&how, 0, sizeof how);
    how.classes = classes();
    how.n_classes = chance(3) ? (chance(2) ? INT_MAX : -1) : gfli_rng_below(&rng, 3);
    how.map = OR_NULL(map);
    how.preprocess = OR_NULL(&preprocess);
    const gfl_status status =
        gfl_model_create_from(OWNER(context), a_model(), OR_NULL(&how), OR_NULL(&made));
    gfl_model_destroy(made);
    return status;
}

static gfl_status call_json(void) {
    gfl_json_writer writer;
    memset(&writer, 0, sizeof writer);
    if (!chance(4)) writer.write = write_nothing;
    for (int i = 0; i < 80; i++) {
        gfl_json_writer *w = OR_NULL(&writer);
        const char *key = OR_NULL("\xFF\x01");
        switch (gfli_rng_below(&rng, 9)) {
        case 0: gfl_json_object(w, key); break;
        case 1: gfl_json_array(w, key); break;
        case 2: gfl_json_end(w); break;
        case 3: gfl_json_text(w, key, a_path()); break;
        case 4: gfl_json_integer(w, key, an_int()); break;
        case 5: gfl_json_number(w, key, a_real()); break;
        case 6: gfl_json_float(w, key, (float)fmin(fmax(a_real(), -1e38), 1e38)); break;
        case 7: gfl_json_bool(w, key, an_int()); break;
        default: gfl_json_line(w); break;
        }
    }
    CHECK(writer.status == GFL_OK || writer.status == GFL_E_ARG);
    return GFL_OK;
}

static gfl_status call_text(void) {
    char shown[40];
    const char *text = a_path();
    const size_t size = (size_t)gfli_rng_below(&rng, (int)sizeof shown);
    (void)gfl_text_show(text, size ? shown : NULL, size);
    (void)gfl_text_valid(text, text ? strlen(text) : 0);
    return GFL_OK;
}

static gfl_status call_presets(void) {
    static const char *const names[] = {NULL, "", "r50", "r51", "\xFF"};
    gfl_arch arch;
    gfl_preset preset;
    (void)gfl_arch_count_presets();
    (void)gfl_arch_get_preset(an_int(), OR_NULL(&preset));
    return gfl_arch_find_preset(OWNER(context), names[gfli_rng_below(&rng, 5)], OR_NULL(&arch));
}

static gfl_status call_model_create(void) {
    gfl_model_desc desc;
    gfl_model *made = NULL;
    memset(&desc, 0, sizeof desc);
    desc.trainable = an_int();
    desc.arch = an_arch();
    desc.preprocess = a_preprocess();
    if (desc.arch.n_classes == 2) desc.classes = classes();
    const gfl_status status = gfl_model_create(OWNER(context), &desc, OR_NULL(&made));
    gfl_model_destroy(made);
    return status;
}

static gfl_status call_model_load(void) {
    static uint8_t bytes[200] = {64, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    const gfl_load_desc opts = a_load_desc();
    gfl_model *made = NULL;
    const gfl_status status =
        chance(2) ? gfl_model_load(OWNER(context), a_path(), OR_NULL(&opts), OR_NULL(&made))
                  : gfl_model_load_memory(OWNER(context), OR_NULL(bytes),
                                          (size_t)gfli_rng_below(&rng, (int)sizeof bytes),
                                          OR_NULL(&opts), OR_NULL(&made));
    gfl_model_destroy(made);
    return status;
}

static gfl_status call_model_save(void) {
    gfl_bytes bytes = {NULL, 0};
    if (chance(2)) return gfl_model_save(a_model(), a_path());
    const gfl_status status = gfl_model_save_memory(a_model(), OR_NULL(&bytes));
    gfl_bytes_free(NULL, NULL);
    gfl_bytes_free(context, &bytes);
    return status;
}

static void visit(void *user, const gfl_plan_step *step) {
    CHECK(user == &rng && step->op);
}

static gfl_status call_model_getters(void) {
    gfl_model_info info;
    gfl_model_cost cost;
    gfl_tensor_report report;
    const gfl_arch arch = an_arch();
    gfl_model_get_info(a_model(), OR_NULL(&info));
    (void)gfl_model_count_reports(a_model());
    CHECK(gfl_model_get_class(a_model(), an_int())->name);
    (void)gfl_model_get_report(a_model(), an_int(), OR_NULL(&report));
    gfl_model_destroy(NULL);
    if (chance(3))
        return gfl_model_get_cost(a_model(), an_int(), an_int(), an_int(), OR_NULL(&cost));
    if (chance(2))
        return gfl_model_get_plan(a_model(), an_int(), an_int(), an_int(), OR_NULL(visit), &rng);
    return gfl_arch_get_cost(OWNER(context), OR_NULL(&arch), an_int(), an_int(), an_int(),
                             OR_NULL(&cost));
}

static gfl_status call_parameters(void) {
    static const char *const names[] = {NULL, "", "\xFF", "bbox_head.scales.1.scale",
                                        "backbone.bn1.bias"};
    const char *name = names[gfli_rng_below(&rng, (int)GFLI_COUNT(names))];
    float values[4] = {1, 2, (float)fmin(fmax(a_real(), -1e38), 1e38), 4};
    gfl_parameter p;
    (void)gfl_model_count_parameters(NULL);
    (void)gfl_model_describe_parameter(OWNER(trainable), an_int(), OR_NULL(&p));
    const size_t n = chance(3) ? 1 : 4;
    if (chance(2)) return gfl_model_get_parameter(a_model(), name, OR_NULL(values), n);
    if (chance(2)) return gfl_model_set_parameter(a_model(), name, OR_NULL(values), n);
    return gfl_model_sync(a_model());
}

static gfl_status call_trainer_create(void) {
    static const field fields[] = {ONE(gfl_trainer_desc, batch, 'i'),
                                   ONE(gfl_trainer_desc, accumulate, 'i'),
                                   ONE(gfl_trainer_desc, epochs, 'i'),
                                   ONE(gfl_trainer_desc, milestones[0], 'i'),
                                   ONE(gfl_trainer_desc, milestones[7], 'i'),
                                   ONE(gfl_trainer_desc, n_milestones, 'i'),
                                   ONE(gfl_trainer_desc, lr, 'd'),
                                   ONE(gfl_trainer_desc, momentum, 'd'),
                                   ONE(gfl_trainer_desc, weight_decay, 'd'),
                                   ONE(gfl_trainer_desc, warmup, 'i'),
                                   ONE(gfl_trainer_desc, clip_norm, 'd'),
                                   ONE(gfl_trainer_desc, frozen_stages, 'i'),
                                   ONE(gfl_trainer_desc, scale_long, 'i'),
                                   ONE(gfl_trainer_desc, scale_short, 'i'),
                                   ONE(gfl_trainer_desc, scale_short_min, 'i'),
                                   ONE(gfl_trainer_desc, loaders, 'i')};
    gfl_trainer_desc desc;
    gfl_trainer *made = NULL;
    memset(&desc, 0, sizeof desc);
    desc.batch = 1;
    SPOIL(&desc, fields);
    const gfl_status status = gfl_trainer_create(OWNER(context), a_model(), OR_NULL(data),
                                                 OR_NULL(&desc), OR_NULL(&made));
    gfl_trainer_destroy(made);
    return status;
}

static gfl_status call_trainer(void) {
    gfl_step_report report;
    gfl_trainer_info plan;
    gfl_trainer_get_info(OWNER(trainer), OR_NULL(&plan));
    gfl_bytes bytes = {NULL, 0};
    gfl_status status;
    switch (gfli_rng_below(&rng, 7)) {
    case 0: return gfl_trainer_step(OWNER(trainer), OR_NULL(&report));
    case 3: return gfl_trainer_load_state_memory(OWNER(trainer), OR_NULL("{}"), 2);
    case 4:
        status = gfl_trainer_save_state_memory(OWNER(trainer), OR_NULL(&bytes));
        gfl_bytes_free(context, &bytes);
        return status;
    case 1: return gfl_trainer_save_state(OWNER(trainer), a_path());
    case 2: return gfl_trainer_load_state(OWNER(trainer), a_path());
    default: return GFL_OK;
    }
}

/* Every public function is in the row that calls it. */
static const struct row {
    gfl_status (*call)(void);
    const char *functions;
} rows[] = {
    {call_version, "gfl_get_version"},
    {call_status_name, "gfl_status_get_name"},
    {call_context_create, "gfl_context_create gfl_context_create_abi gfl_context_destroy"},
    {call_context_getters, "gfl_context_get_ranks gfl_context_fail "
                           "gfl_context_get_error gfl_context_get_device gfl_context_count_threads "
                           "gfl_cpu_get_kernel"},
    {call_dataset_load, "gfl_dataset_load_coco gfl_dataset_load_coco_memory gfl_dataset_destroy"},
    {call_dataset_create, "gfl_dataset_create"},
    {call_dataset_getters,
     "gfl_dataset_get_summary gfl_dataset_count_images gfl_dataset_count_classes "
     "gfl_dataset_get_classes gfl_dataset_get_image"},
    {call_dataset_read, "gfl_dataset_read gfl_pixels_free"},
    {call_dataset_check, "gfl_dataset_check"},
    {call_image_read, "gfl_image_read gfl_image_read_memory gfl_image_get_kind"},
    {call_pixels_alloc, "gfl_pixels_alloc"},
    {call_detector_create, "gfl_detector_create gfl_detector_destroy"},
    {call_detect, "gfl_detect gfl_detect_start gfl_detect_finish gfl_image_from_rgb"},
    {call_detector_sizes, "gfl_detector_get_size gfl_detector_reserve"},
    {call_evaluator_create, "gfl_evaluator_create gfl_evaluator_leave_out gfl_evaluator_destroy"},
    {call_evaluator_add,
     "gfl_evaluator_add_detections gfl_evaluator_add_results gfl_evaluator_add_results_memory"},
    {call_evaluator_run, "gfl_evaluator_run gfl_evaluator_get_class_result gfl_evaluator_save "
                         "gfl_evaluator_write gfl_evaluator_get_notes gfl_evaluator_get_summary"},
    {call_evaluate, "gfl_evaluate gfl_evaluator_add_model gfl_match_dataset"},
    {call_model_export, "gfl_model_export gfl_model_export_memory"},
    {call_import, "gfl_model_import gfl_backbone_describe"},
    {call_backbone, "gfl_model_load_backbone gfl_model_save_backbone"},
    {call_classes, "gfl_match_classes gfl_model_create_from"},
    {call_json, "gfl_json_object gfl_json_array gfl_json_end gfl_json_text gfl_json_integer "
                "gfl_json_number gfl_json_float gfl_json_bool gfl_json_line"},
    {call_text, "gfl_text_show gfl_text_valid"},
    {call_presets, "gfl_arch_find_preset gfl_arch_get_preset gfl_arch_count_presets"},
    {call_model_create, "gfl_model_create"},
    {call_model_load, "gfl_model_load gfl_model_load_memory gfl_model_destroy"},
    {call_model_save, "gfl_model_save gfl_model_save_memory gfl_bytes_free"},
    {call_model_getters,
     "gfl_model_get_info gfl_model_get_cost gfl_model_get_plan "
     "gfl_arch_get_cost gfl_model_get_report gfl_model_count_reports gfl_model_get_class"},
    {call_parameters, "gfl_model_count_parameters gfl_model_describe_parameter "
                      "gfl_model_get_parameter gfl_model_set_parameter gfl_model_sync"},
    {call_trainer_create, "gfl_trainer_create gfl_trainer_destroy"},
    {call_trainer, "gfl_trainer_step gfl_trainer_get_info "
                   "gfl_trainer_save_state gfl_trainer_load_state "
                   "gfl_trainer_save_state_memory gfl_trainer_load_state_memory"},
};

/* ---- the test -------------------------------------------------------------------------------- */

static void open_all(void) {
    gfl_context_desc desc;
    gfl_model_desc model;
    gfl_trainer_desc recipe;
    memset(&desc, 0, sizeof desc);
    memset(&recipe, 0, sizeof recipe);
    desc.n_threads = 2;
    desc.allocator.alloc = bounded_alloc;
    desc.allocator.free = bounded_free;
    recipe.batch = 1;
    recipe.epochs = 1;
    recipe.scale_long = recipe.scale_short = 64;
    rng = gfli_rng_make(20, 26, 0, 0);
    train_micro_desc(&model, 18, 2);
    CHECK(gfl_context_create(&desc, &context) == GFL_OK);
    trainable = train_model(context, &model);
    CHECK_OK(context, gfl_model_create(context, &model, &packed));
    data = train_dataset(context, 3, NULL, NULL);
    CHECK_OK(context, gfl_model_save(trainable, "hostile.safetensors"));
    CHECK_OK(context, gfl_detector_create(context, packed, with_distributions(), &detector));
    CHECK_OK(context, gfl_evaluator_create(context, data, NULL, &evaluator));
    CHECK_OK(context, gfl_trainer_create(context, trainable, data, &recipe, &trainer));
}

static void close_all(void) {
    gfl_trainer_destroy(trainer);
    gfl_evaluator_destroy(evaluator);
    gfl_detector_destroy(detector);
    gfl_dataset_destroy(data);
    gfl_model_destroy(packed);
    gfl_model_destroy(trainable);
    gfl_context_destroy(context);
    CHECK(taken == 0);
}

/* Whether a call that was refused says why: calls without a context or object cannot. */
static void no_call_crashes_or_fails_without_a_text(void) {
    long refused = 0, silent = 0;
    open_all();
    for (int n = 0; n < CALLS && test_failures < 10; n++)
        for (size_t i = 0; i < GFLI_COUNT(rows); i++) {
            const gfli_rng before = rng;
            context->error[0] = 0;
            homeless = false;
            const gfl_status status = rows[i].call();
            const bool known = strncmp(gfl_status_get_name(status), "GFL_", 4) == 0;
            const bool bare = status != GFL_OK && !context->error[0];
            refused += status != GFL_OK;
            silent += bare;
            if (known && (!bare || homeless)) continue;
            printf("%s: status %d, text \"%s\", draw %llu\n", rows[i].functions, (int)status,
                   context->error, (unsigned long long)before.counter);
            CHECK(known && !bare);
        }
    printf("%ld calls, %ld refused, %ld of them without context and object\n",
           (long)CALLS * (long)GFLI_COUNT(rows), refused, silent);
    CHECK(refused > 100 && silent < refused / 2);
    close_all();
}

/* The names that the header declares, each in exactly one row. */
static void every_public_function_has_a_row(void) {
    const char *root = getenv("GFL_ROOT");
    char path[1024], line[512];
    int declared = 0;
    snprintf(path, sizeof path, "%s/gfl.h", root && *root ? root : ".");
    FILE *f = fopen(path, "r");
    CHECK(f != NULL);
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "GFL_API ", 8) != 0 && strncmp(line, "GFL_INLINE ", 11) != 0) continue;
        char *end = strchr(line, '('), *name = end;
        while (name && name > line && name[-1] != ' ' && name[-1] != '*') name--;
        if (!end || strncmp(name, "gfl_cuda(", 9) == 0) continue; /* not in a build for the CPU */
        *end = 0;
        int found = 0;
        for (size_t i = 0; i < GFLI_COUNT(rows); i++)
            for (const char *at = rows[i].functions; (at = strstr(at, name)) != NULL; at++) {
                const char after = at[strlen(name)];
                found += (after == 0 || after == ' ') && (at == rows[i].functions || at[-1] == ' ');
            }
        declared++;
        if (found != 1) printf("%s is in %d rows: give it a hostile call\n", name, found);
        CHECK(found == 1);
    }
    if (f) fclose(f);
    CHECK(declared > 60);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(every_public_function_has_a_row),
        TEST(no_call_crashes_or_fails_without_a_text),
        {0},
    };
    return test_main(argc, argv, cases);
}
