/* test_results.c - result files: what their ids may name, what is refused, how boxes are matched
 * where many overlap */
#include "data.h"

#include "../src/data/dataset.h"
#include "../src/eval/evaluator.h"

static gfl_context *context;

static gfl_dataset *load_truth(const char *json) {
    gfl_dataset *set = NULL;
    CHECK_OK(context, gfl_dataset_load_coco_memory(context, json, strlen(json), NULL, &set));
    return set;
}

static gfl_evaluator *make(const gfl_dataset *set, int compatible) {
    gfl_evaluator *e = NULL;
    gfl_evaluator_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.compatible = compatible;
    CHECK_OK(context, gfl_evaluator_create(context, set, &opts, &e));
    return e;
}

static gfl_status load(gfl_evaluator *e, const char *json) {
    return gfl_evaluator_add_results_memory(e, json, strlen(json));
}

static gfl_eval_notes notes_of(const gfl_evaluator *e) {
    gfl_eval_notes notes;
    memset(&notes, 0, sizeof notes);
    gfl_evaluator_get_notes(e, &notes);
    return notes;
}

static gfl_eval_result run(gfl_evaluator *e) {
    gfl_eval_result r;
    CHECK_OK(context, gfl_evaluator_run(e, &r));
    return r;
}

#define RESULT(image, label, box)                                                                  \
    "{\"image_id\":" image ",\"category_id\":" label ",\"bbox\":" box ",\"score\":0.5}"

/* ---- names ----------------------------------------------------------------------------------- */

static const char named_set[] =
    "{\"images\":[{\"id\":17,\"file_name\":\"train/a.jpg\"},{\"id\":18,\"file_name\":\"val/"
    "a.jpg\"},"
    "{\"id\":19,\"file_name\":\"b.jpg\"},{\"id\":20},{\"id\":\"b.jpg/21\",\"file_name\":\"d.jpg\"},"
    "{\"id\":\"d.jpg\",\"file_name\":\"dir\\\\e.jpg\"}],"
    "\"categories\":[{\"id\":3,\"name\":\"cat\"},{\"id\":4,\"name\":\"dog\"}],\"annotations\":[]}";

static void images_are_named_by_id_by_file_or_by_the_end_of_a_path(void) {
    static const struct {
        const char *id;
        int image; /* or -1 */
        bool named;
    } cases[] = {{"17", 0, false},
                 {"\"17\"", 0, false},
                 {"\"train/a.jpg\"", 0, true},
                 {"\"val/a.jpg\"", 1, true},
                 {"\"a.jpg\"", -1, false},       /* which of two? */
                 {"\"other/a.jpg\"", -1, false}, /* which of two? */
                 {"\"b.jpg\"", 2, true},
                 {"\"/data/x/b.jpg\"", 2, true},
                 {"\"C:\\\\data\\\\b.jpg\"", 2, true},
                 {"\"e.jpg\"", 5, true},
                 {"\"d.jpg\"", 5, false}, /* an id goes before a name */
                 {"\"x/d.jpg\"", 4, true},
                 {"\"b.jpg/21\"", 4, false},
                 {"\"\"", -1, false},
                 {"\"dir/\"", -1, false},
                 {"\"B.jpg\"", -1, false},
                 {"21", -1, false}};
    gfl_dataset *set = load_truth(named_set);
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        char json[300];
        gfl_evaluator *e = make(set, 0);
        snprintf(json, sizeof json,
                 "[" RESULT("20", "3", "[1,2,3,4]") "," RESULT("%s", "4", "[1,2,3,4]") "]",
                 cases[i].id);
        CHECK_OK(context, load(e, json));
        const gfl_eval_notes notes = notes_of(e);
        if (notes.n_unknown_images != (cases[i].image < 0)) printf("%s\n", cases[i].id);
        CHECK(notes.n_results == 2 && notes.n_unknown_images == (cases[i].image < 0));
        CHECK(notes.n_named_images == cases[i].named);
        if (cases[i].image >= 0) CHECK(e->n_boxes == 2 && e->boxes[1].image == cases[i].image);
        gfl_evaluator_destroy(e);
        /* pycocotools knows exact ids alone. */
        e = make(set, 1);
        const bool exact =
            cases[i].image >= 0 && !cases[i].named && strcmp(cases[i].id, "\"17\"") != 0;
        if (exact)
            CHECK_OK(context, load(e, json));
        else
            CHECK_ERROR(context, load(e, json), GFL_E_DATA, "has no image");
        gfl_evaluator_destroy(e);
    }
    gfl_dataset_destroy(set);
}

static void classes_that_are_words_go_by_the_ids_that_a_model_has(void) {
    gfl_dataset *set = load_truth("{\"images\":[{\"id\":1}],\"categories\":[{\"id\":\"dog\"},"
                                  "{\"id\":\"cat\"}],\"annotations\":[]}");
    gfl_evaluator *e = make(set, 0);
    CHECK_OK(
        context,
        load(e,
             "[" RESULT("1", "1", "[1,2,3,4]") "," RESULT("1", "\"dog\"", "[1,2,3,4]") "," RESULT(
                 "1", "2", "[1,2,3,4]") "," RESULT("1", "3",
                                                   "[1,2,3,4]") "," RESULT("1", "0",
                                                                           "[1,2,3,4]") "]"));
    CHECK(notes_of(e).n_unknown_classes == 2 && e->n_boxes == 3);
    CHECK(gfl_dataset_get_classes(set)[0].id == 1 &&
          !strcmp(gfl_dataset_get_classes(set)[0].name, "cat"));
    CHECK(e->boxes[0].label == 0 && e->boxes[1].label == 1 && e->boxes[2].label == 1);
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
    /* Where a class has a number, only numbers of the file count. */
    set = load_truth("{\"images\":[{\"id\":1}],\"categories\":[{\"id\":\"dog\"},{\"id\":\"2\"}],"
                     "\"annotations\":[]}");
    e = make(set, 0);
    CHECK_OK(context,
             load(e, "[" RESULT("1", "2", "[1,2,3,4]") "," RESULT("1", "1", "[1,2,3,4]") "]"));
    CHECK(notes_of(e).n_unknown_classes == 1 && e->boxes[0].label == 0);
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
}

static void results_that_fit_nothing_are_refused(void) {
    gfl_dataset *set = load_truth(named_set);
    gfl_evaluator *e = make(set, 0);
    CHECK_ERROR(context,
                load(e, "[" RESULT("\"x\\u001b[2J.png\"", "3",
                                   "[1,2,3,4]") "," RESULT("5", "3", "[1,2,3,4]") "]"),
                GFL_E_DATA,
                "results in memory: not one of the 2 results fits the data set annotations in "
                "memory; image_id \"x\\x1b[2J.png\" is not among its ids, which begin with 17, nor "
                "among its file names, which begin with \"train/a.jpg\"");
    CHECK_ERROR(context, load(e, "[" RESULT("17", "91", "[1,2,3,4]") "]"), GFL_E_DATA,
                "; category_id 91 is not among its ids, which begin with 3 (\"cat\")");
    CHECK_ERROR(context,
                load(e, "[" RESULT("17", "91", "[1,2,3,4]") "," RESULT("5", "3", "[1,2,3,4]") "]"),
                GFL_E_DATA, "\"train/a.jpg\"; category_id 91 is");
    CHECK(notes_of(e).n_results == 0 && e->n_boxes == 0);
    /* One that fits makes the others left out; none at all is nothing found. */
    CHECK_OK(context,
             load(e, "[" RESULT("17", "91", "[1,2,3,4]") "," RESULT("17", "3", "[1,2,3,4]") "]"));
    CHECK_OK(context, load(e, "[]"));
    CHECK(notes_of(e).n_results == 2 && e->n_boxes == 1);
    /* Refused whatever came before. */
    CHECK_ERROR(context, load(e, "[" RESULT("17", "91", "[1,2,3,4]") "]"), GFL_E_DATA,
                "not one of the 1");
    CHECK(notes_of(e).n_results == 2 && e->n_boxes == 1);
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
    set = load_truth("{\"images\":[],\"categories\":[{\"id\":3}],\"annotations\":[]}");
    e = make(set, 0);
    CHECK_ERROR(context, load(e, "[" RESULT("17", "3", "[1,2,3,4]") "]"), GFL_E_DATA,
                "; it lists no images");
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
}

/* ---- matching -------------------------------------------------------------------------------- */

/* A detection halfway between two boxes takes the later one, as pycocotools' loop does; whether the
 * next detection, on the first or second box, still finds its own depends on that. */
static void of_equal_overlaps_the_later_box_is_taken(void) {
    static const char *const boxes[2] = {"[0,0,10,10]", "[4,0,10,10]"};
    for (int swapped = 0; swapped < 2; swapped++) {
        char json[500];
        snprintf(json, sizeof json,
                 "{\"images\":[{\"id\":1}],\"categories\":[{\"id\":1}],\"annotations\":["
                 "{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":%s},"
                 "{\"id\":2,\"image_id\":1,\"category_id\":1,\"bbox\":%s}]}",
                 boxes[swapped], boxes[!swapped]);
        gfl_dataset *set = load_truth(json);
        gfl_evaluator *e = make(set, 0);
        CHECK_OK(context,
                 load(e, "[{\"image_id\":1,\"category_id\":1,\"bbox\":[2,0,10,10],\"score\":0.9},"
                         "{\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,10,10],\"score\":0.8}]"));
        gfl_eval_result r = run(e);
        /* Both found; or the second, whose box is gone, a mistake: half of the recalls. */
        CHECK_NEAR(r.ap50, swapped ? 51.0 / 101 : 1, 1e-12);
        gfl_evaluator_destroy(e);
        gfl_dataset_destroy(set);
    }
}

static void add_equal_boxes(gfl_evaluator *e, int n) {
    gfl_detection *found = (gfl_detection *)calloc((size_t)n, sizeof *found);
    for (int i = 0; i < n; i++) {
        found[i].x2 = found[i].y2 = 1000;
        found[i].score = 0.5f;
    }
    CHECK_OK(context, gfl_evaluator_add_detections(e, 0, found, n));
    free(found);
}

/* 16,000 boxes of a class in one image, all of which every detection overlaps, by less and less or
 * more and more: the order that is the worst for sorting them. */
static void thousands_of_overlapping_boxes_are_matched(void) {
    enum { N = 16000 };
    char *json = (char *)malloc(N * 100 + 200);
    for (int rising = 0; rising < 2; rising++) {
        char *p = json + sprintf(json, "{\"images\":[{\"id\":1}],\"categories\":[{\"id\":1}],"
                                       "\"annotations\":[");
        for (int i = 0; i < N; i++)
            p += sprintf(p, "%s{\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,1000,%d.%02d]}",
                         i ? "," : "", 600 + (rising ? i : N - i) / 40,
                         (rising ? i : N - i) % 40 * 5 / 2);
        sprintf(p, "]}");
        gfl_dataset *set = load_truth(json);
        gfl_evaluator *e = make(set, 0);
        add_equal_boxes(e, N);
        gfl_eval_result r = run(e);
        /* A hundred of them count, and each of those finds a box of an overlap of 0.95 or more. */
        CHECK_NEAR(r.ar[2], 100.0 / (int)N, 1e-15);
        CHECK_NEAR(r.ap, 1.0 / 101, 1e-12);
        gfl_evaluator_destroy(e);
        gfl_dataset_destroy(set);
    }
    free(json);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static gfl_status load_names(gfl_context *c) {
    gfl_dataset *set = NULL;
    gfl_evaluator *e = NULL;
    gfl_eval_result r;
    const char *results =
        "[" RESULT("\"b.jpg\"", "3", "[1,2,3,4]") "," RESULT("\"x/b.jpg\"", "3", "[1,2,3,4]") "]";
    gfl_status status =
        gfl_dataset_load_coco_memory(c, named_set, sizeof named_set - 1, NULL, &set);
    if (status == GFL_OK) status = gfl_evaluator_create(c, set, NULL, &e);
    if (status == GFL_OK) {
        status = gfl_evaluator_add_results_memory(e, results, strlen(results));
        /* After a failure nothing of the file is kept, and the same evaluator can go on. */
        if (status != GFL_OK)
            CHECK(e->n_boxes == 0 &&
                  gfl_evaluator_add_results_memory(e, results, strlen(results)) == GFL_OK);
        CHECK(status != GFL_OK || e->n_boxes == 2);
        if (status == GFL_OK) status = gfl_evaluator_run(e, &r);
    }
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
    return status;
}

static void no_allocation_may_fail_badly(void) {
    data_sweep(load_names);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(images_are_named_by_id_by_file_or_by_the_end_of_a_path),
                                      TEST(classes_that_are_words_go_by_the_ids_that_a_model_has),
                                      TEST(results_that_fit_nothing_are_refused),
                                      TEST(of_equal_overlaps_the_later_box_is_taken),
                                      TEST(thousands_of_overlapping_boxes_are_matched),
                                      TEST(no_allocation_may_fail_badly),
                                      {0}};
    context = test_context(1);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
