/* test_evaluate.c - a model's numbers on a data set: in one call, and what its classes are */
#include "arrays.h"
#include "data.h"
#include "train.h"

enum { IMAGES = 7 };

static gfl_context *context;

/* The pictures of train.h, of which one may not be readable; calls are counted. */
typedef struct source {
    int broken, calls;
} source;

static gfl_status read_from(void *user, gfl_context *with, int image, gfl_pixels *out) {
    source *s = (source *)user;
    s->calls++;
    if (image == s->broken) return GFL_E_FORMAT;
    return train_read_picture(NULL, with, image, out);
}

/* A model whose scores spread, with these names of its classes (NULL: none). */
static gfl_model *open_model(gfl_context *with, int n_classes, const gfl_class *classes) {
    gfl_model_desc desc;
    gfl_model *model = NULL;
    train_micro_desc(&desc, 18, n_classes);
    desc.classes = classes;
    desc.trainable = 1;
    CHECK_OK(with, gfl_model_create(with, &desc, &model));
    fx_fill_model(model);
    CHECK_OK(with, gfl_model_sync(model));
    return model;
}

static const gfl_class reversed[3] = {{"dark", 1}, {"glass", 2}, {"light", 3}};

static gfl_dataset *open_data(source *s, int skip) {
    gfl_dataset_desc how;
    gfl_dataset *plain = train_dataset(context, IMAGES, NULL, NULL), *set;
    memset(&how, 0, sizeof how);
    how.read_image = read_from;
    how.user = s;
    how.skip_unreadable = skip;
    CHECK_OK(context, arrays_copy(context, plain, &how, &set));
    gfl_dataset_destroy(plain);
    return set;
}

static bool same_files(const char *a, const char *b) {
    size_t n, m;
    uint8_t *x = data_read(a, &n), *y = data_read(b, &m);
    const bool same = n == m && n > 2000 && !memcmp(x, y, n);
    free(x);
    free(y);
    remove(a);
    remove(b);
    return same;
}

/* Pixels, detections, labels and results one after another, in batches of `batch`. */
static gfl_eval_result by_hand(const gfl_model *model, const gfl_dataset *set, int batch,
                               int left_out) {
    static const int to_data[3] = {1, -1, 0}; /* dark, glass, light */
    gfl_detector *detector;
    gfl_evaluator *evaluator;
    gfl_eval_result result;
    gfl_detect_opts opts;
    gfl_detection_list found[IMAGES];
    gfl_pixels pixels[IMAGES];
    gfl_image images[IMAGES];
    int which[IMAGES], n = 0;
    memset(&opts, 0, sizeof opts);
    opts.no_clip = 1;
    CHECK_OK(context, gfl_detector_create(context, model, NULL, &detector));
    CHECK_OK(context, gfl_evaluator_create(context, set, NULL, &evaluator));
    if (left_out >= 0) CHECK_OK(context, gfl_evaluator_leave_out(evaluator, left_out));
    for (int i = 0; i < IMAGES; i++) {
        if (i != left_out) {
            CHECK_OK(context, train_read_picture(NULL, context, i, &pixels[n]));
            images[n] = gfl_image_from_rgb(pixels[n].rgb, pixels[n].width, pixels[n].height);
            which[n++] = i;
        }
        if (n < batch && i + 1 < IMAGES) continue;
        CHECK_OK(context, gfl_detect(detector, images, n, &opts, found));
        for (int k = 0; k < n; k++) {
            for (int d = 0; d < found[k].count; d++) {
                gfl_detection one = found[k].items[d];
                one.label = to_data[one.label];
                if (one.label >= 0)
                    CHECK_OK(context, gfl_evaluator_add_detections(evaluator, which[k], &one, 1));
            }
            gfl_pixels_free(context, &pixels[k]);
        }
        n = 0;
    }
    CHECK_OK(context, gfl_evaluator_run(evaluator, &result));
    CHECK_OK(context, gfl_evaluator_save(evaluator, "test_evaluate.want"));
    gfl_evaluator_destroy(evaluator);
    gfl_detector_destroy(detector);
    return result;
}

static void one_call_gives_what_its_parts_give(void) {
    source s = {-1, 0};
    gfl_model *model = open_model(context, 3, reversed);
    gfl_dataset *set = open_data(&s, 0);
    gfl_evaluate_desc how;
    gfl_eval_result got;
    memset(&how, 0, sizeof how);
    for (how.batch = 0; how.batch <= 3; how.batch++) {
        const gfl_eval_result want = by_hand(model, set, how.batch ? how.batch : 1, -1);
        s.calls = 0;
        CHECK_OK(context, gfl_evaluate(context, model, set, how.batch ? &how : NULL, &got));
        CHECK(!memcmp(&got, &want, sizeof got) && s.calls == IMAGES);
        gfl_evaluator *evaluator;
        CHECK_OK(context, gfl_evaluator_create(context, set, NULL, &evaluator));
        CHECK_OK(context, gfl_evaluator_add_model(evaluator, model, &how));
        CHECK_OK(context, gfl_evaluator_save(evaluator, "test_evaluate.got"));
        CHECK(same_files("test_evaluate.want", "test_evaluate.got"));
        gfl_evaluator_destroy(evaluator);
    }
    gfl_dataset_destroy(set);
    gfl_model_destroy(model);
}

static void what_cannot_be_read_is_left_out_or_an_error(void) {
    source s = {2, 0};
    gfl_model *model = open_model(context, 3, reversed);
    gfl_eval_result got;
    for (int skip = 0; skip < 2; skip++) {
        gfl_dataset *set = open_data(&s, skip);
        if (skip)
            CHECK_OK(context, gfl_evaluate(context, model, set, NULL, &got));
        else
            CHECK_ERROR(context, gfl_evaluate(context, model, set, NULL, &got), GFL_E_FORMAT,
                        "could not read image 3");
        const gfl_eval_result want = by_hand(model, set, 1, 2);
        CHECK(!skip || !memcmp(&got, &want, sizeof got));
        gfl_dataset_destroy(set);
    }
    gfl_model_destroy(model);
}

static int stop_at_three(void *user, int done, int total) {
    ++*(int *)user;
    CHECK(done == *(int *)user && total == IMAGES);
    return done == 3;
}

/* Images that are not evaluated are not even read, and a call can be stopped. */
static void only_what_is_evaluated_is_read(void) {
    static const int some[2] = {5, 1};
    source s = {-1, 0};
    gfl_model *model = open_model(context, 3, reversed);
    gfl_dataset *set = open_data(&s, 0);
    gfl_evaluator *evaluator;
    gfl_evaluator_desc desc;
    gfl_evaluate_desc how;
    gfl_eval_notes notes;
    gfl_eval_result result;
    int done = 0;
    memset(&desc, 0, sizeof desc);
    memset(&how, 0, sizeof how);
    desc.images = some;
    desc.n_images = 2;
    CHECK_OK(context, gfl_evaluator_create(context, set, &desc, &evaluator));
    CHECK_OK(context, gfl_evaluator_add_model(evaluator, model, NULL));
    gfl_evaluator_get_notes(evaluator, &notes);
    CHECK(s.calls == 2 && notes.n_results > 0);
    gfl_evaluator_destroy(evaluator);
    how.progress = stop_at_three;
    how.user = &done;
    CHECK_ERROR(context, gfl_evaluate(context, model, set, &how, &result), GFL_E_STOPPED,
                "after 3 of 7 images");
    CHECK(done == 3 && s.calls == 2 + 3);
    how.batch = -1;
    CHECK_ERROR(context, gfl_evaluate(context, model, set, &how, &result), GFL_E_ARG,
                "batch is -1");
    gfl_dataset_destroy(set);
    gfl_model_destroy(model);
}

static gfl_dataset *classes_only(const gfl_class *classes, int n, int label) {
    gfl_annotation box;
    gfl_image_info image;
    gfl_dataset *set = NULL;
    memset(&box, 0, sizeof box);
    memset(&image, 0, sizeof image);
    box.w = box.h = 9;
    box.label = label;
    image.annotations = &box;
    image.n_annotations = 1;
    CHECK_OK(context, gfl_dataset_create(context, classes, n, &image, 1, NULL, &set));
    return set;
}

static void classes_are_matched_by_name(void) {
    static const gfl_class theirs[3] = {{"light", 5}, {"dark", 6}, {"night", 7}};
    static const gfl_rename renames[] = {{"glass", "night"}}, missing[] = {{"glas", "night"}},
                            both[] = {{"dark", "night"}};
    gfl_model *model = open_model(context, 3, reversed), *unnamed = open_model(context, 3, NULL);
    gfl_dataset *set = classes_only(theirs, 3, 1);
    int map[3];
    CHECK_OK(context, gfl_match_dataset(context, model, set, NULL, 0, map));
    CHECK(map[0] == 1 && map[1] == -1 && map[2] == 0);
    CHECK_OK(context, gfl_match_dataset(context, model, set, renames, 1, map));
    CHECK(map[0] == 1 && map[1] == 2 && map[2] == 0);
    CHECK_OK(context, gfl_match_dataset(context, unnamed, set, NULL, 0, map));
    CHECK(map[0] == 0 && map[1] == 1 && map[2] == 2);
    CHECK_ERROR(context, gfl_match_dataset(context, model, set, missing, 1, map), GFL_E_MISMATCH,
                "no class \"glas\"");
    CHECK_ERROR(context, gfl_match_dataset(context, model, set, both, 1, map), GFL_E_MISMATCH,
                "two classes of the data set, dark and night");
    gfl_dataset_destroy(set);
    set = classes_only(theirs, 3, 2); /* a box of the class that the model does not know */
    CHECK_ERROR(context, gfl_match_dataset(context, model, set, NULL, 0, map), GFL_E_MISMATCH,
                "a class \"night\" that the model does not know (1 such in all)");
    gfl_dataset_destroy(set);
    set = classes_only(&theirs[2], 1, 0);
    CHECK_ERROR(context, gfl_match_dataset(context, model, set, NULL, 0, map), GFL_E_MISMATCH,
                "no class in common");
    CHECK_ERROR(context, gfl_match_dataset(context, unnamed, set, NULL, 0, map), GFL_E_MISMATCH,
                "no class in common");
    gfl_dataset_destroy(set);
    static const gfl_class twins[2] = {{"light", 1}, {"light", 2}};
    set = classes_only(twins, 2, 0);
    CHECK_ERROR(context, gfl_match_dataset(context, model, set, NULL, 0, map), GFL_E_DATA,
                "both named \"light\"");
    CHECK_ERROR(context, gfl_match_dataset(context, NULL, set, NULL, 0, map), GFL_E_ARG, "model");
    gfl_dataset_destroy(set);
    gfl_model_destroy(unnamed);
    gfl_model_destroy(model);
}

static gfl_status evaluate_once(gfl_context *with) {
    gfl_model_desc desc;
    gfl_dataset_desc how;
    gfl_image_info images[2];
    gfl_eval_result result;
    gfl_evaluate_desc batches;
    gfl_model *model = NULL;
    gfl_dataset *set = NULL;
    memset(images, 0, sizeof images);
    memset(&how, 0, sizeof how);
    memset(&batches, 0, sizeof batches);
    how.read_image = train_read_picture;
    batches.batch = 2;
    train_micro_desc(&desc, 18, 3);
    desc.classes = reversed;
    gfl_status status = gfl_model_create(with, &desc, &model);
    if (status == GFL_OK) status = gfl_dataset_create(with, reversed, 3, images, 2, &how, &set);
    if (status == GFL_OK) status = gfl_evaluate(with, model, set, &batches, &result);
    gfl_dataset_destroy(set);
    gfl_model_destroy(model);
    return status;
}

static void no_allocation_may_fail_badly(void) {
    data_sweep(evaluate_once);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(one_call_gives_what_its_parts_give), TEST(what_cannot_be_read_is_left_out_or_an_error),
        TEST(only_what_is_evaluated_is_read),     TEST(classes_are_matched_by_name),
        TEST(no_allocation_may_fail_badly),       {0}};
    context = test_context(1);
    const int status = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return status;
}
