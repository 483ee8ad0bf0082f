/* test_eval.c - COCO's numbers by hand, and what evaluators do with odd results */
#include "test.h"
#include <unistd.h>

static gfl_context *context;

static gfl_dataset *load_truth(const char *json) {
    gfl_dataset *set = NULL;
    CHECK_OK(context, gfl_dataset_load_coco_memory(context, json, strlen(json), NULL, &set));
    return set;
}

static gfl_evaluator *make(const gfl_dataset *set, const gfl_evaluator_desc *opts) {
    gfl_evaluator *e = NULL;
    CHECK_OK(context, gfl_evaluator_create(context, set, opts, &e));
    return e;
}

static gfl_eval_result run(gfl_evaluator *e) {
    gfl_eval_result r;
    CHECK_OK(context, gfl_evaluator_run(e, &r));
    return r;
}

static gfl_status load_results(gfl_evaluator *e, const char *json) {
    const char *path = test_scratch("eval_results");
    FILE *f = fopen(path, "wb");
    CHECK(f != NULL);
    fputs(json, f);
    fclose(f);
    gfl_status status = gfl_evaluator_add_results(e, path);
    remove(path);
    return status;
}

static void result_numbers(const gfl_eval_result *r, double out[12]) {
    const double v[12] = {r->ap,    r->ap50,  r->ap75,  r->ap_small, r->ap_medium, r->ap_large,
                          r->ar[0], r->ar[1], r->ar[2], r->ar_small, r->ar_medium, r->ar_large};
    memcpy(out, v, sizeof v);
}

/* ---- the golden case of the specification, A.5 ----------------------------------------------- */

static uint32_t golden_state;

static double golden(void) {
    golden_state = (1103515245u * golden_state + 12345u) & 0x7FFFFFFF;
    return golden_state / 2147483648.0;
}

static void append(char *out, const char *text) {
    strcat(out, text);
}

static void golden_case(char *gt, char *dt) {
    static const int images[5] = {30, 10, 20, 50, 40}, classes[3] = {5, 2, 9};
    char line[300];
    int id = 1;
    golden_state = 7;
    strcpy(gt, "{\"categories\":[{\"id\":5,\"name\":\"a\"},{\"id\":2,\"name\":\"b\"},"
               "{\"id\":9,\"name\":\"c\"}],\"annotations\":[");
    strcpy(dt, "[");
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 6; k++, id++) {
            int c = (int)(3 * golden());
            int w = 8 + (int)(140 * golden()), h = 8 + (int)(140 * golden());
            int x = (int)(300 * golden()), y = (int)(300 * golden()), crowd = golden() < 0.15;
            snprintf(line, sizeof line,
                     "%s{\"id\":%d,\"image_id\":%d,\"category_id\":%d,\"bbox\":[%d,%d,%d,%d],"
                     "\"area\":%.17g,\"iscrowd\":%d}",
                     id > 1 ? "," : "", id, images[i], classes[c], x, y, w, h,
                     w * h * (k % 2 ? 1 : 0.8), crowd);
            append(gt, line);
            for (int n = 0; n < 2; n++) {
                int dx = (int)((golden() - 0.5) * 0.3 * w), dy = (int)((golden() - 0.5) * 0.3 * h);
                double score = round(golden() * 10) / 10;
                int other = golden() < 0.85 ? c : (int)(3 * golden());
                int dw = w + (int)((golden() - 0.5) * 0.2 * w);
                snprintf(line, sizeof line,
                         "%s{\"image_id\":%d,\"category_id\":%d,\"bbox\":[%d,%d,%d,%d],"
                         "\"score\":%.1f}",
                         id > 1 || n ? "," : "", images[i], classes[other], x + dx, y + dy, dw, h,
                         score);
                append(dt, line);
            }
        }
    append(gt, "],\"images\":[{\"id\":30},{\"id\":10},{\"id\":20},{\"id\":50},{\"id\":40}]}");
    append(dt, "]");
}

static void evaluation_gives_the_golden_numbers(void) {
    static const double want[12] = {0.4586643409, 0.6984498450, 0.4794702547, 0.9000000000,
                                    0.4973242292, 0.2861936194, 0.2022222222, 0.6347619048,
                                    0.6347619048, 0.9000000000, 0.6876190476, 0.3833333333};
    char *gt = (char *)malloc(20000), *dt = (char *)malloc(20000), text[2000];
    golden_case(gt, dt);
    CHECK(strstr(gt, "\"image_id\":30,\"category_id\":2,\"bbox\":[207,297,49,54]") != NULL);
    CHECK(strstr(dt, "\"bbox\":[214,304,48,54],\"score\":0.2}") != NULL);
    gfl_dataset *set = load_truth(gt);
    gfl_evaluator *e = make(set, NULL);
    CHECK_OK(context, load_results(e, dt));
    gfl_eval_result r = run(e);
    double got[12];
    result_numbers(&r, got);
    for (int i = 0; i < 12; i++) CHECK_NEAR(got[i], want[i], 1e-10);
    CHECK(gfl_evaluator_get_summary(e, NULL, 0) == gfl_evaluator_get_summary(e, text, sizeof text));
    CHECK(!strncmp(
        text,
        " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.459\n"
        " Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ] = 0.698\n",
        160));
    CHECK(strstr(text, "\n Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] "
                       "= 0.202\n") != NULL);
    CHECK(strstr(text, " Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] "
                       "= 0.383\n") != NULL);
    /* The same in any number of threads. */
    gfl_context *many = test_context(3);
    gfl_evaluator *other = NULL;
    gfl_eval_result again;
    CHECK_OK(many, gfl_evaluator_create(many, set, NULL, &other));
    CHECK_OK(context, gfl_evaluator_save(e, test_scratch("eval_golden")));
    CHECK_OK(many, gfl_evaluator_add_results(other, test_scratch("eval_golden")));
    CHECK_OK(many, gfl_evaluator_run(other, &again));
    CHECK(memcmp(&r, &again, sizeof r) == 0);
    remove(test_scratch("eval_golden"));
    gfl_evaluator_destroy(other);
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
    gfl_context_destroy(many);
    free(gt);
    free(dt);
}

/* ---- by hand --------------------------------------------------------------------------------- */

/* Two images, classes "a" and "b"; three boxes of a (medium), one of b (large). */
static const char small_set[] =
    "{\"images\":[{\"id\":7},{\"id\":3}],\"categories\":[{\"id\":1,\"name\":\"a\"},"
    "{\"id\":4,\"name\":\"b\"}],\"annotations\":["
    "{\"id\":1,\"image_id\":7,\"category_id\":1,\"bbox\":[0,0,40,40],\"area\":1600,\"iscrowd\":0},"
    "{\"id\":2,\"image_id\":7,\"category_id\":1,\"bbox\":[100,0,40,40],\"area\":1600,\"iscrowd\":0}"
    ","
    "{\"id\":3,\"image_id\":3,\"category_id\":1,\"bbox\":[0,0,40,40],\"area\":1600,\"iscrowd\":0},"
    "{\"id\":4,\"image_id\":3,\"category_id\":4,\"bbox\":[0,0,200,200],\"area\":40000,"
    "\"iscrowd\":0}]}";

static gfl_detection box(float x, float y, float w, float h, float score, int label) {
    gfl_detection d;
    d.x1 = x;
    d.y1 = y;
    d.x2 = x + w;
    d.y2 = y + h;
    d.score = score;
    d.label = label;
    return d;
}

static void one_match_and_one_mistake_count(void) {
    gfl_dataset *set = load_truth(small_set);
    gfl_evaluator *e = make(set, NULL);
    /* Class a: a mistake first, then one of three boxes; an IoU of 0.6 reaches 0.5, 0.55, 0.6. */
    gfl_detection found[2] = {box(300, 300, 40, 40, 0.9f, 0), box(0, 0, 40, 24, 0.8f, 0)};
    CHECK_OK(context, gfl_evaluator_add_detections(e, 0, found, 2));
    gfl_eval_result r = run(e), a, b;
    CHECK_OK(context, gfl_evaluator_get_class_result(e, 0, &a));
    CHECK_OK(context, gfl_evaluator_get_class_result(e, 1, &b));
    /* Precision 1/2 up to recall 1/3: 34 of 101 points. */
    CHECK_NEAR(a.ap50, 0.5 * 34 / 101, 1e-12);
    CHECK_NEAR(a.ap, 0.3 * 0.5 * 34 / 101, 1e-12);
    CHECK_NEAR(a.ap75, 0, 0);
    CHECK_NEAR(a.ar[0], 0, 0);
    CHECK_NEAR(a.ar[1], 0.3 / 3, 1e-12);
    CHECK_NEAR(a.ap_medium, a.ap, 0);
    CHECK(a.ap_small == -1 && a.ap_large == -1 && a.ar_large == -1);
    CHECK(b.ap == 0 && b.ar[2] == 0 && b.ap_medium == -1 && b.ap_large == 0);
    CHECK_NEAR(r.ap, a.ap / 2, 1e-15);
    CHECK_NEAR(r.ap_medium, a.ap, 1e-15);
    /* More results: everything found. */
    gfl_detection rest[3] = {box(0, 0, 40, 40, 0.95f, 0), box(100, 0, 40, 40, 0.95f, 0),
                             box(0, 0, 200, 200, 0.5f, 1)};
    CHECK_OK(context, gfl_evaluator_add_detections(e, 0, rest, 2));
    CHECK_ERROR(context, gfl_evaluator_get_class_result(e, 0, &a), GFL_E_ARG, "gfl_evaluator_run");
    CHECK(gfl_evaluator_get_summary(e, NULL, 0) == 0);
    CHECK_OK(context, gfl_evaluator_add_detections(e, 1, rest, 1));
    CHECK_OK(context, gfl_evaluator_add_detections(e, 1, rest + 2, 1));
    r = run(e);
    CHECK_NEAR(r.ap, 1, 1e-15);
    CHECK_NEAR(r.ar[2], 1, 0);
    CHECK_NEAR(r.ar[0], (2.0 / 3 + 1) / 2, 1e-15);
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
}

/* The first detection has an IoU of 9/11 with both boxes and takes the second, so that of two more
 * detections only the one at the first box finds it free.  The numbers are pycocotools'. */
static void of_equal_ious_the_later_box_is_matched(void) {
    static const double ap[2] = {0.35346534653465334, 0.5514851485148515};
    static const double ap50[2] = {0.5049504950495048, 1}, ar[2] = {0.35, 0.55};
    gfl_dataset *set = load_truth(
        "{\"images\":[{\"id\":1}],\"categories\":[{\"id\":1,\"name\":\"a\"}],\"annotations\":["
        "{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,100,100],\"area\":10000},"
        "{\"id\":2,\"image_id\":1,\"category_id\":1,\"bbox\":[20,0,100,100],\"area\":10000}]}");
    for (int i = 0; i < 2; i++) {
        gfl_evaluator *e = make(set, NULL);
        const float x = i ? -20 : 40;
        const gfl_detection found[2] = {box(10, 0, 100, 100, 0.9f, 0),
                                        box(x, 0, 100, 100, 0.8f, 0)};
        CHECK_OK(context, gfl_evaluator_add_detections(e, 0, found, 2));
        const gfl_eval_result r = run(e);
        CHECK_NEAR(r.ap, ap[i], 1e-12);
        CHECK_NEAR(r.ap50, ap50[i], 1e-12);
        CHECK_NEAR(r.ar[2], ar[i], 1e-12);
        gfl_evaluator_destroy(e);
    }
    gfl_dataset_destroy(set);
}

static void nothing_found_is_zero_and_nothing_to_find_is_minus_one(void) {
    gfl_dataset *set = load_truth(small_set);
    gfl_evaluator *e = make(set, NULL);
    for (int step = 0; step < 2; step++) {
        gfl_eval_result r = run(e);
        CHECK(r.ap == 0 && r.ap50 == 0 && r.ap75 == 0 && r.ap_medium == 0 && r.ap_large == 0);
        CHECK(r.ap_small == -1 && r.ar_small == -1 && r.ar[0] == 0 && r.ar[2] == 0);
        CHECK_OK(context, load_results(e, " [ ] "));
        CHECK_OK(context, gfl_evaluator_add_detections(e, 0, NULL, 0));
    }
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
    set =
        load_truth("{\"images\":[],\"categories\":[{\"id\":1,\"name\":\"a\"}],\"annotations\":[]}");
    e = make(set, NULL);
    gfl_eval_result r = run(e);
    CHECK(r.ap == -1 && r.ar[2] == -1);
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
}

/* In sane mode ids do not matter; pycocotools loses the match of id 0, and of two annotations with
 * one id it sees the last twice. */
static void accidents_happen_only_in_compatible_mode(void) {
    static const char *const ids[2][2] = {{"0", "1"}, {"5", "5"}};
    for (int which = 0; which < 2; which++)
        for (int compatible = 0; compatible < 2; compatible++) {
            char json[1000];
            snprintf(json, sizeof json,
                     "{\"images\":[{\"id\":1}],\"categories\":[{\"id\":1,\"name\":\"a\"}],"
                     "\"annotations\":[{\"id\":%s,\"image_id\":1,\"category_id\":1,"
                     "\"bbox\":[0,0,40,40]},{\"id\":%s,\"image_id\":1,\"category_id\":1,"
                     "\"bbox\":[100,0,40,40]}]}",
                     ids[which][0], ids[which][1]);
            gfl_dataset *set = load_truth(json);
            gfl_evaluator_desc opts;
            memset(&opts, 0, sizeof opts);
            opts.compatible = compatible;
            gfl_evaluator *e = make(set, &opts);
            gfl_detection found[2] = {box(0, 0, 40, 40, 0.9f, 0), box(100, 0, 40, 40, 0.8f, 0)};
            CHECK_OK(context, gfl_evaluator_add_detections(e, 0, found, 2));
            gfl_eval_result r = run(e);
            /* A mistake, then half of the boxes: precision 1/2 at 51 of 101 points. */
            CHECK_NEAR(r.ap, compatible ? 0.5 * 51 / 101 : 1, 1e-12);
            gfl_evaluator_destroy(e);
            gfl_dataset_destroy(set);
        }
}

static void ap_is_read_at_the_last_limit_without_100(void) {
    gfl_dataset *set = load_truth(small_set);
    gfl_evaluator_desc opts;
    memset(&opts, 0, sizeof opts);
    for (int i = 0; i < 3; i++) opts.max_dets[i] = i + 1;
    gfl_detection found = box(0, 0, 200, 200, 0.5f, 1);
    for (int compatible = 0; compatible < 2; compatible++) {
        opts.compatible = compatible;
        gfl_evaluator *e = make(set, &opts);
        CHECK_OK(context, gfl_evaluator_add_detections(e, 1, &found, 1));
        gfl_eval_result r = run(e);
        CHECK_NEAR(r.ap, compatible ? -1 : 0.5, 1e-15);
        CHECK_NEAR(r.ap50, 0.5, 1e-15);
        char text[2000];
        gfl_evaluator_get_summary(e, text, sizeof text);
        CHECK(strstr(text, compatible ? "maxDets=100 ] = -1.000\n" : "maxDets=  3 ] = 0.500\n") !=
              NULL);
        char small[20];
        CHECK(gfl_evaluator_get_summary(e, small, sizeof small) == strlen(text));
        CHECK(!strcmp(small, " Average Precision "));
        gfl_evaluator_destroy(e);
    }
    gfl_dataset_destroy(set);
}

static void a_subset_can_be_evaluated(void) {
    gfl_dataset *set = load_truth(small_set);
    static const int second[3] = {1, 1, 1}, labels[2] = {1, 0};
    gfl_evaluator_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.images = second;
    opts.n_images = 3;
    opts.labels = labels;
    opts.n_labels = 1;
    gfl_detection found = box(0, 0, 200, 200, 0.5f, 1);
    gfl_evaluator *e = make(set, &opts);
    CHECK_OK(context, gfl_evaluator_add_detections(e, 1, &found, 1));
    CHECK_OK(context, gfl_evaluator_add_detections(e, 0, &found, 1)); /* not counted */
    gfl_eval_result r = run(e);
    CHECK_NEAR(r.ap, 1, 1e-15);
    CHECK_ERROR(context, gfl_evaluator_get_class_result(e, 0, &r), GFL_E_ARG, "not evaluated");
    CHECK_ERROR(context, gfl_evaluator_get_class_result(e, 2, &r), GFL_E_ARG, "not evaluated");
    CHECK_OK(context, gfl_evaluator_get_class_result(e, 1, &r));
    CHECK_NEAR(r.ap, 1, 1e-15);
    gfl_evaluator_destroy(e);
    opts.ignore_classes = 1;
    opts.n_labels = 2;
    e = make(set, &opts);
    found.label = 0; /* the wrong class does not matter then */
    CHECK_OK(context, gfl_evaluator_add_detections(e, 1, &found, 1));
    r = run(e);
    CHECK_NEAR(r.ar[2], 0.5, 1e-15);
    CHECK_ERROR(context, gfl_evaluator_get_class_result(e, 0, &r), GFL_E_ARG, "ignores classes");
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
}

/* ---- results --------------------------------------------------------------------------------- */

static int warnings;
static char last_warning[1024];

static void take_warning(void *user, gfl_log_level level, const char *message) {
    (void)user;
    warnings += level == GFL_LOG_WARNING;
    snprintf(last_warning, sizeof last_warning, "%s", message);
}

#define RESULT(image, label, bbox, score)                                                          \
    "{\"image_id\":" image ",\"category_id\":" label ",\"bbox\":" bbox ",\"score\":" score "}"

static void unknown_images_and_classes_are_counted(void) {
    gfl_context_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 1;
    desc.logger.log = take_warning;
    gfl_context *loud = NULL;
    CHECK(gfl_context_create(&desc, &loud) == GFL_OK);
    gfl_dataset *set = load_truth(small_set);
    gfl_evaluator *e = NULL;
    gfl_eval_notes notes;
    const char *results = "[" RESULT("7", "1", "[0,0,40,40]", "0.9") "," RESULT(
        "8", "1", "[0,0,40,40]", "0.9") "," RESULT("\"x\"", "1", "[0,0,40,40]",
                                                   "0.9") "," RESULT("7", "2", "[0,0,40,40]",
                                                                     "0.9") "]";
    CHECK_OK(loud, gfl_evaluator_create(loud, set, NULL, &e));
    warnings = 0;
    CHECK_OK(loud, load_results(e, results));
    gfl_evaluator_get_notes(e, &notes);
    CHECK(notes.n_results == 4 && notes.n_unknown_images == 2 && notes.n_unknown_classes == 1);
    CHECK(warnings == 2);
    gfl_detection odd[2] = {box(0, 0, 1, 1, 0.5f, 2), box(0, 0, 1, 1, 0.5f, -1)};
    CHECK_OK(loud, gfl_evaluator_add_detections(e, 0, odd, 2));
    gfl_evaluator_get_notes(e, &notes);
    CHECK(notes.n_results == 6 && notes.n_unknown_classes == 3 && warnings == 3);
    gfl_evaluator_destroy(e);
    gfl_evaluator_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.compatible = 1;
    CHECK_OK(loud, gfl_evaluator_create(loud, set, &opts, &e));
    CHECK_ERROR(loud, load_results(e, results), GFL_E_DATA, "has no image 8");
    gfl_evaluator_get_notes(e, &notes);
    CHECK(notes.n_results == 0);
    gfl_eval_result r;
    CHECK_OK(loud, gfl_evaluator_run(e, &r));
    CHECK(r.ar[2] == 0); /* the first result went with the rest */
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
    gfl_context_destroy(loud);
}

static void bad_results_are_refused(void) {
    static const struct {
        const char *json, *text;
    } bad[] = {
        {"", ":1: "},
        {"{}", "one array"},
        {"3", "one array"},
        {"[3]", "not an object"},
        {"[\n" RESULT("7", "1", "[0,0,4,4]", "0.9") ",\n{\"image_id\":7,\"category_id\":1,"
                                                    "\"bbox\":[0,0,1,1]}]",
         ":3:47: the result that ends here has no score"},
        {"[{\"category_id\":1,\"bbox\":[0,0,1,1],\"score\":1}]", "ends here has no image_id"},
        {"[{\"image_id\":7,\"bbox\":[0,0,1,1],\"score\":1}]", "ends here has no category_id"},
        {"[{\"image_id\":7,\"category_id\":1,\"score\":1}]", "ends here has no bbox"},
        {"[" RESULT("7.5", "1", "[0,0,4,4]", "0.9") "]",
         "image_id is 7.5: a whole number or a text is wanted"},
        {"[" RESULT("null", "1", "[0,0,4,4]", "0.9") "]", "image_id is null: "},
        {"[" RESULT("7", "[1]", "[0,0,4,4]", "0.9") "]", "category_id is a list: "},
        {"[" RESULT("7", "1", "[0,0,4]", "0.9") "]",
         "holds too few numbers before the end: a list of four numbers"},
        {"[" RESULT("7", "1", "[0,0,4,4,4]", "0.9") "]", "bbox goes on with 4: a list"},
        {"[" RESULT("7", "1", "4", "0.9") "]", "bbox is 4: a list"},
        {"[" RESULT("7", "1", "[0,0,4,\"4\"]", "0.9") "]", ":1:46: bbox holds \"4\": a list"},
        {"[" RESULT("7", "1", "[0,0,4,NaN]", "0.9") "]", ":1:46: bbox holds NaN: a list"},
        {"[" RESULT("7", "1", "[0,0,4,1e999]", "0.9") "]",
         "bbox holds 1e999: a finite number is wanted"},
        {"[" RESULT("7", "1", "[0,0,4,4]", "true") "]", "score is true: a finite number is wanted"},
        {"[" RESULT("7", "1", "[0,0,4,4]", "NaN") "]", ":1:57: score is NaN: a finite"},
        {"[" RESULT("7", "1", "[0,0,4,4]", "1") "] x", "follows the end"},
        {"[" RESULT("7", "1", "[0,0,4,4]", "1"), "ends"},
    };
    gfl_dataset *set = load_truth(small_set);
    gfl_evaluator *e = make(set, NULL);
    gfl_eval_notes notes;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_ERROR(context, load_results(e, bad[i].json), GFL_E_FORMAT, bad[i].text);
        CHECK(strstr(gfl_context_get_error(context), test_scratch("eval_results")) != NULL);
    }
    CHECK_ERROR(context, gfl_evaluator_add_results(e, "/nonexistent.json"), GFL_E_IO,
                "nonexistent");
    gfl_evaluator_get_notes(e, &notes);
    CHECK(notes.n_results == 0);
    /* Other keys and any order are fine. */
    CHECK_OK(context, load_results(e, "[{\"score\":1,\"segmentation\":{\"counts\":\"a\",\"size\":"
                                      "[1,2]},\"bbox\":[0,0,40,40],\"category_id\":1.0,"
                                      "\"image_id\":7}]"));
    CHECK_NEAR(run(e).ar_medium, 1.0 / 3, 1e-15);
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
}

static void bad_arguments_are_refused(void) {
    gfl_dataset *set = load_truth(small_set);
    gfl_evaluator *e = make(set, NULL), *none = NULL;
    gfl_eval_result r;
    gfl_evaluator_desc opts;
    static const int far[1] = {2};
    gfl_detection good = box(0, 0, 40, 40, 0.5f, 0), bad = good;
    CHECK_ERROR(context, gfl_evaluator_add_detections(e, 2, &good, 1), GFL_E_ARG, "no image 2");
    CHECK_ERROR(context, gfl_evaluator_add_detections(e, -1, &good, 1), GFL_E_ARG, "no image -1");
    CHECK(gfl_evaluator_add_detections(NULL, 0, &good, 1) == GFL_E_ARG);
    CHECK(gfl_evaluator_add_detections(e, 0, NULL, 1) == GFL_E_ARG);
    CHECK(gfl_evaluator_add_detections(e, 0, &good, -1) == GFL_E_ARG);
    for (int i = 0; i < 3; i++) {
        gfl_detection two[2] = {good, bad};
        if (i == 0) two[1].score = NAN;
        if (i == 1) two[1].x2 = INFINITY;
        if (i == 2) two[1].y1 = NAN;
        CHECK_ERROR(context, gfl_evaluator_add_detections(e, 0, two, 2), GFL_E_ARG,
                    "detection 1 of image 0 is not finite");
    }
    CHECK(run(e).ar[2] == 0); /* nothing of a refused call stays */
    CHECK(gfl_evaluator_run(e, NULL) == GFL_E_ARG && gfl_evaluator_run(NULL, &r) == GFL_E_ARG);
    CHECK(gfl_evaluator_add_results(e, NULL) == GFL_E_ARG &&
          gfl_evaluator_save(e, NULL) == GFL_E_ARG);
    CHECK(gfl_evaluator_create(context, NULL, NULL, &none) == GFL_E_ARG && !none);
    CHECK(gfl_evaluator_create(context, set, NULL, NULL) == GFL_E_ARG);
    memset(&opts, 0, sizeof opts);
    opts.max_dets[2] = 100;
    CHECK_ERROR(context, gfl_evaluator_create(context, set, &opts, &none), GFL_E_ARG, "ascending");
    memset(&opts, 0, sizeof opts);
    opts.images = far;
    opts.n_images = 1;
    CHECK_ERROR(context, gfl_evaluator_create(context, set, &opts, &none), GFL_E_ARG,
                "images has 2");
    opts.images = NULL;
    CHECK_ERROR(context, gfl_evaluator_create(context, set, &opts, &none), GFL_E_ARG,
                "images is NULL, but n_images is 1");
    opts.n_images = 0;
    opts.n_labels = 2;
    CHECK_ERROR(context, gfl_evaluator_create(context, set, &opts, &none), GFL_E_ARG,
                "labels is NULL, but n_labels is 2");
    opts.labels = far;
    opts.n_labels = 1;
    CHECK_ERROR(context, gfl_evaluator_create(context, set, &opts, &none), GFL_E_ARG,
                "labels has 2");
    opts.n_labels = -1;
    CHECK_ERROR(context, gfl_evaluator_create(context, set, &opts, &none), GFL_E_ARG,
                "n_labels is -1");
    CHECK(none == NULL);
    gfl_evaluator_destroy(NULL);
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
}

/* Ids as the annotation file has them; by image, best score first, equal ones as they came. */
static void saved_results_are_what_coco_reads(void) {
    gfl_dataset *set =
        load_truth("{\"images\":[{\"id\":\"b\\\"1\"},{\"id\":-3}],\"categories\":[{\"id\":\"cat\","
                   "\"name\":\"cat\"},{\"id\":12,\"name\":\"dog\"}],\"annotations\":[]}");
    gfl_evaluator *e = make(set, NULL);
    gfl_detection second = box(1, 2, 3, 4, 1, 0),
                  first[3] = {box(0.1f, 0, 10, 20, 0.25f, 1), box(5, 5, 1, 1, 0.75f, 0),
                              box(6, 6, 1, 1, 0.25f, 0)};
    CHECK_OK(context, gfl_evaluator_add_detections(e, 1, &second, 1));
    CHECK_OK(context, gfl_evaluator_add_detections(e, 0, first, 3));
    const char *path = test_scratch("eval_saved");
    CHECK_OK(context, gfl_evaluator_save(e, path));
    uint8_t *bytes = NULL;
    size_t size;
    CHECK_OK(context, gfli_file_read(context, path, 100000, &bytes, &size));
    const char *want =
        "[\n"
        "{\"image_id\":\"b\\\"1\",\"category_id\":12,\"bbox\":[5,5,1,1],\"score\":0.75},\n"
        "{\"image_id\":\"b\\\"1\",\"category_id\":\"cat\",\"bbox\":[0.10000000149011612,0,10."
        "00000037997961,20],"
        "\"score\":0.25},\n"
        "{\"image_id\":\"b\\\"1\",\"category_id\":12,\"bbox\":[6,6,1,1],\"score\":0.25},\n"
        "{\"image_id\":-3,\"category_id\":12,\"bbox\":[1,2,3,4],\"score\":1}\n]\n";
    bool same = bytes && size == strlen(want) && !memcmp(bytes, want, size);
    if (!same) printf("%.*s", (int)size, (const char *)bytes);
    CHECK(same);
    gfli_free(context, bytes);
    CHECK_ERROR(context, gfl_evaluator_save(e, "/nonexistent/x.json"), GFL_E_IO, "nonexistent");
    gfli_text text = {context, "results", NULL, 0, 0};
    gfl_json_writer writer = gfli_json_to_text(&text), none;
    memset(&none, 0, sizeof none);
    CHECK_OK(context, gfl_evaluator_write(e, &writer));
    CHECK(text.bytes && !strcmp(text.bytes, want));
    gfli_free(context, text.bytes);
    CHECK_ERROR(context, gfl_evaluator_write(e, &none), GFL_E_ARG, "the writer has no function");
    gfl_evaluator *other = make(set, NULL);
    gfl_eval_notes notes;
    CHECK_OK(context, gfl_evaluator_add_results(other, path));
    gfl_evaluator_get_notes(other, &notes);
    CHECK(notes.n_results == 4 && notes.n_unknown_images == 0 && notes.n_unknown_classes == 0);
    remove(path);
    gfl_evaluator_destroy(other);
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
}

/* Every float survives being written, boxes and scores alike. */
static void saved_floats_are_exact(void) {
    enum { N = 2000 };
    gfl_dataset *set = load_truth(small_set);
    gfl_evaluator *a = make(set, NULL), *b = make(set, NULL);
    float *x = test_uniform(5 * N, 0, 1, 21);
    for (int i = 0; i < N; i++) {
        gfl_detection d = box(640 * x[i], 480 * x[i + N], 200 * x[i + 2 * N], 90 * x[i + 3 * N],
                              x[i + 4 * N], i % 2);
        CHECK_OK(context, gfl_evaluator_add_detections(a, i / 2 % 2, &d, 1));
    }
    const char *path = test_scratch("eval_floats");
    char second[600];
    snprintf(second, sizeof second, "%s.2", path);
    CHECK_OK(context, gfl_evaluator_save(a, path));
    CHECK_OK(context, gfl_evaluator_add_results(b, path));
    CHECK_OK(context, gfl_evaluator_save(b, second));
    uint8_t *one = NULL, *two = NULL;
    size_t n_one, n_two;
    CHECK_OK(context, gfli_file_read(context, path, 1 << 24, &one, &n_one));
    CHECK_OK(context, gfli_file_read(context, second, 1 << 24, &two, &n_two));
    CHECK(n_one == n_two && !memcmp(one, two, n_one));
    gfl_eval_result ra = run(a), rb = run(b);
    CHECK(memcmp(&ra, &rb, sizeof ra) == 0);
    /* The text of a box is the difference of its corners in double. */
    gfli_json *j = NULL;
    CHECK_OK(context, gfli_json_open(context, path, &j));
    int n = 0;
    gfli_json_next(j);
    while (gfli_json_next(j) == GFLI_JSON_OBJECT) {
        for (const char *key; (key = gfli_json_key(j)) != NULL;)
            if (!strcmp(key, "score")) {
                gfli_json_next(j);
                double score = gfli_json_as_number(j);
                bool known = false;
                for (int i = 0; i < N && !known; i++)
                    known = (double)x[i + 4 * N] == (double)(float)score;
                CHECK(known);
            } else {
                gfli_json_skip(j);
            }
        n++;
    }
    CHECK(n == N);
    gfli_json_close(j);
    gfli_free(context, one);
    gfli_free(context, two);
    remove(path);
    remove(second);
    free(x);
    gfl_evaluator_destroy(a);
    gfl_evaluator_destroy(b);
    gfl_dataset_destroy(set);
}

/* ---- a plain evaluation to compare with ------------------------------------------------------ */

typedef struct plain_box {
    double x, y, w, h, score, area;
    int image, label, crowd;
} plain_box;

static double plain_iou(const plain_box *d, const plain_box *g) {
    double w = fmin(d->x + d->w, g->x + g->w) - fmax(d->x, g->x);
    double h = fmin(d->y + d->h, g->y + g->h) - fmax(d->y, g->y);
    if (w <= 0 || h <= 0) return 0;
    return w * h / (g->crowd ? d->w * d->h : d->w * d->h + g->w * g->h - w * h);
}

/* The specification's loops, one threshold, one area, one class, no cleverness: AP at 0.5 + 0.05t
 * of boxes with area in [lo, hi].  Detections come sorted by score. */
static double plain_ap(const plain_box *dt, int n_dt, const plain_box *gt, int n_gt, int label,
                       int t, double lo, double hi) {
    static const double ious[10] = {0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999,
                                    0.95};
    char *taken = (char *)calloc((size_t)n_gt + 1, 1);
    double *precision = (double *)calloc((size_t)n_dt + 1, sizeof *precision);
    double *recall = (double *)calloc((size_t)n_dt + 1, sizeof *recall);
    int npig = 0, tp = 0, fp = 0, n = 0;
    for (int g = 0; g < n_gt; g++)
        npig += gt[g].label == label && !gt[g].crowd && gt[g].area >= lo && gt[g].area <= hi;
    for (int d = 0; d < n_dt; d++) {
        if (dt[d].label != label) continue;
        int match = -1;
        bool match_ignored = false;
        double best = ious[t];
        for (int pass = 0; pass < 2 && match < 0; pass++)
            for (int g = 0; g < n_gt; g++) {
                bool ignored = gt[g].crowd || gt[g].area < lo || gt[g].area > hi;
                if (gt[g].image != dt[d].image || gt[g].label != label || ignored != (pass == 1) ||
                    (taken[g] && !gt[g].crowd) || plain_iou(&dt[d], &gt[g]) < best)
                    continue;
                best = plain_iou(&dt[d], &gt[g]);
                match = g;
                match_ignored = ignored;
            }
        if (match >= 0) taken[match] = 1;
        double area = dt[d].w * dt[d].h;
        bool counts = match >= 0 ? !match_ignored : area >= lo && area <= hi;
        tp += counts && match >= 0;
        fp += counts && match < 0;
        recall[n] = npig ? (double)tp / npig : 0;
        precision[n++] = tp / ((double)(fp + tp) + 2.220446049250313e-16);
    }
    double sum = 0;
    for (int i = n - 2; i >= 0; i--) precision[i] = fmax(precision[i], precision[i + 1]);
    for (int r = 0; r < 101; r++) {
        int i = 0;
        while (i < n && recall[i] < r * 0.01) i++;
        sum += i < n ? precision[i] : 0;
    }
    free(taken);
    free(precision);
    free(recall);
    return npig ? sum / 101 : -1;
}

static int by_score(const void *a, const void *b) {
    const plain_box *p = (const plain_box *)a, *q = (const plain_box *)b;
    return p->score < q->score ? 1 : p->score > q->score ? -1 : 0;
}

enum { PLAIN_IMAGES = 12, PLAIN_CLASSES = 3, PLAIN_GT = 150, PLAIN_DT = 600 };

/* Random boxes, and the annotation file that has them. */
static gfl_dataset *random_truth(gfli_rng *rng, plain_box gt[PLAIN_GT]) {
    char *json = (char *)malloc(60000), *p = json;
    p += sprintf(p, "{\"images\":[");
    for (int i = 0; i < PLAIN_IMAGES; i++) p += sprintf(p, "%s{\"id\":%d}", i ? "," : "", i + 1);
    p += sprintf(p, "],\"categories\":[{\"id\":1,\"name\":\"a\"},{\"id\":2,\"name\":\"b\"},"
                    "{\"id\":3,\"name\":\"c\"}],\"annotations\":[");
    for (int i = 0; i < PLAIN_GT; i++) {
        plain_box *g = &gt[i];
        g->x = floor(80 * gfli_rng_uniform(rng));
        g->y = floor(80 * gfli_rng_uniform(rng));
        g->w = 5 + floor(130 * gfli_rng_uniform(rng));
        g->h = 5 + floor(130 * gfli_rng_uniform(rng));
        g->area = floor(g->w * g->h * (0.5 + gfli_rng_uniform(rng) / 2));
        g->image = i * PLAIN_IMAGES / PLAIN_GT; /* the data set keeps images together */
        g->label = (int)((int)PLAIN_CLASSES * gfli_rng_uniform(rng));
        g->crowd = gfli_rng_uniform(rng) < 0.15;
        p += sprintf(p,
                     "%s{\"id\":%d,\"image_id\":%d,\"category_id\":%d,\"bbox\":[%g,%g,%g,%g],"
                     "\"area\":%g,\"iscrowd\":%d}",
                     i ? "," : "", i + 1, g->image + 1, g->label + 1, g->x, g->y, g->w, g->h,
                     g->area, g->crowd);
    }
    sprintf(p, "]}");
    gfl_dataset *set = load_truth(json);
    free(json);
    return set;
}

static void evaluation_matches_the_plain_loops(void) {
    static plain_box gt[PLAIN_GT], dt[PLAIN_DT];
    gfli_rng rng = gfli_rng_make(31, 0, 0, 0);
    gfl_dataset *set = random_truth(&rng, gt);
    gfl_evaluator *e = make(set, NULL);
    for (int i = 0; i < PLAIN_DT; i++) {
        plain_box *d = &dt[i];
        const plain_box *g = &gt[i % PLAIN_GT];
        *d = *g;
        d->x += floor(7 * gfli_rng_uniform(&rng)) - 3;
        d->w += floor(7 * gfli_rng_uniform(&rng)) - 3;
        if (gfli_rng_uniform(&rng) < 0.2) d->label = (d->label + 1) % PLAIN_CLASSES;
        d->score = (double)(float)((i * 7919 % PLAIN_DT + 0.5) / (int)PLAIN_DT); /* no ties */
        gfl_detection one =
            box((float)d->x, (float)d->y, (float)d->w, (float)d->h, (float)d->score, d->label);
        CHECK_OK(context, gfl_evaluator_add_detections(e, d->image, &one, 1));
    }
    qsort(dt, PLAIN_DT, sizeof *dt, by_score);
    run(e);
    static const double ranges[4][2] = {{0, 1e10}, {0, 1024}, {1024, 9216}, {9216, 1e10}};
    for (int label = 0; label < PLAIN_CLASSES; label++) {
        gfl_eval_result r;
        CHECK_OK(context, gfl_evaluator_get_class_result(e, label, &r));
        const double got[4] = {r.ap, r.ap_small, r.ap_medium, r.ap_large};
        for (int a = 0; a < 4; a++) {
            double sum = 0;
            for (int t = 0; t < 10; t++)
                sum += plain_ap(dt, PLAIN_DT, gt, PLAIN_GT, label, t, ranges[a][0], ranges[a][1]);
            CHECK_NEAR(got[a], sum / 10, 1e-12);
            CHECK(got[a] > 0.01);
        }
        CHECK_NEAR(r.ap50, plain_ap(dt, PLAIN_DT, gt, PLAIN_GT, label, 0, 0, 1e10), 1e-12);
        CHECK_NEAR(r.ap75, plain_ap(dt, PLAIN_DT, gt, PLAIN_GT, label, 5, 0, 1e10), 1e-12);
    }
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
}

/* ---- memory ---------------------------------------------------------------------------------- */

typedef struct counting {
    long calls, fail_at, live;
} counting;

static void *counting_alloc(void *user, size_t size) {
    counting *c = (counting *)user;
    if (c->calls++ == c->fail_at) return NULL;
    c->live++;
    return malloc(size);
}

static void counting_free(void *user, void *p) {
    ((counting *)user)->live--;
    free(p);
}

static gfl_status work(gfl_context *c, const gfl_dataset *set, const char *path) {
    gfl_evaluator *e = NULL;
    gfl_eval_result r;
    gfl_evaluator_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.compatible = 1;
    gfl_detection found = box(0, 0, 40, 40, 0.5f, 0);
    gfl_status status = gfl_evaluator_create(c, set, &opts, &e);
    if (status == GFL_OK) status = gfl_evaluator_add_results(e, path);
    if (status == GFL_OK) status = gfl_evaluator_add_detections(e, 0, &found, 1);
    if (status == GFL_OK) status = gfl_evaluator_run(e, &r);
    if (status == GFL_OK) status = gfl_evaluator_save(e, path);
    gfl_evaluator_destroy(e);
    return status;
}

static void every_allocation_may_fail(void) {
    /* An id twice, so that the accident's memory is asked for too. */
    gfl_dataset *set = load_truth(
        "{\"images\":[{\"id\":7}],\"categories\":[{\"id\":1,\"name\":\"a\"}],\"annotations\":["
        "{\"id\":1,\"image_id\":7,\"category_id\":1,\"bbox\":[0,0,40,40]},"
        "{\"id\":1,\"image_id\":7,\"category_id\":1,\"bbox\":[9,9,40,40]}]}");
    const char *path = test_scratch("eval_memory");
    FILE *f = fopen(path, "wb");
    fputs("[" RESULT("7", "1", "[0,0,40,40]", "0.9") "]", f);
    fclose(f);
    long n = 0;
    for (gfl_status status = GFL_E_MEMORY; status != GFL_OK && n < 1000; n++) {
        counting c = {0, n, 0};
        gfl_context_desc desc;
        memset(&desc, 0, sizeof desc);
        desc.n_threads = 1;
        desc.allocator.alloc = counting_alloc;
        desc.allocator.free = counting_free;
        desc.allocator.user = &c;
        gfl_context *poor = NULL;
        status = gfl_context_create(&desc, &poor);
        if (status == GFL_OK) status = work(poor, set, path);
        CHECK(status == GFL_OK || status == GFL_E_MEMORY);
        gfl_context_destroy(poor);
        CHECK(c.live == 0);
    }
    CHECK(n > 20 && n < 1000);
    remove(path);
    gfl_dataset_destroy(set);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(evaluation_gives_the_golden_numbers),
        TEST(one_match_and_one_mistake_count),
        TEST(of_equal_ious_the_later_box_is_matched),
        TEST(nothing_found_is_zero_and_nothing_to_find_is_minus_one),
        TEST(accidents_happen_only_in_compatible_mode),
        TEST(ap_is_read_at_the_last_limit_without_100),
        TEST(a_subset_can_be_evaluated),
        TEST(unknown_images_and_classes_are_counted),
        TEST(bad_results_are_refused),
        TEST(bad_arguments_are_refused),
        TEST(saved_results_are_what_coco_reads),
        TEST(saved_floats_are_exact),
        TEST(evaluation_matches_the_plain_loops),
        TEST(every_allocation_may_fail),
        {0},
    };
    context = test_context(1);
    int code = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return code;
}
