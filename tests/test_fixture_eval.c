/* test_fixture_eval.c - COCO's numbers, entry by entry, against pycocotools */
#include "fixture.h"

/* Modules of gfl_train.c that the harness's headers do not show. */
gfl_status gfli_evaluator_arrays(gfl_evaluator *evaluator, double *precision, double *recall,
                                 double *scores);

static const char *const stat_names[12] = {"AP",  "AP50", "AP75",  "APs", "APm", "APl",
                                           "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"};

static void result_numbers(const gfl_eval_result *r, double out[12]) {
    const double v[12] = {r->ap,    r->ap50,  r->ap75,  r->ap_small, r->ap_medium, r->ap_large,
                          r->ar[0], r->ar[1], r->ar[2], r->ar_small, r->ar_medium, r->ar_large};
    memcpy(out, v, sizeof v);
}

static gfl_dataset *load_truth(fx_case *one) {
    char path[2048];
    const char *gt = fx_string(&one->json, "gt");
    if (!strncmp(gt, "data/", 5))
        snprintf(path, sizeof path, "%s/../../%s", one->folder, gt);
    else
        snprintf(path, sizeof path, "%s/%s", one->folder, gt);
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.skip_strays = 1;
    gfl_dataset *set = NULL;
    CHECK_OK(one->context, gfl_dataset_load_coco(one->context, path, &opts, &set));
    if (!set) fx_die("ground truth cannot be read", path);
    return set;
}

static int *image_indices(const gfl_dataset *set, const fx_json *ids) {
    int *out = (int *)malloc(((size_t)ids->n + 1) * sizeof *out);
    for (int i = 0; i < ids->n; i++) {
        out[i] = -1;
        for (int k = 0; k < gfl_dataset_count_images(set); k++) {
            gfl_image_info info;
            gfl_dataset_get_image(set, k, &info);
            if ((double)info.id.number == ids->items[i].number) out[i] = k;
        }
        CHECK(out[i] >= 0);
    }
    return out;
}

static int *label_indices(const gfl_dataset *set, const fx_json *ids) {
    int *out = (int *)malloc(((size_t)ids->n + 1) * sizeof *out);
    for (int i = 0; i < ids->n; i++) {
        out[i] = -1;
        for (int k = 0; k < gfl_dataset_count_classes(set); k++)
            if ((double)gfl_dataset_get_classes(set)[k].id == ids->items[i].number) out[i] = k;
        CHECK(out[i] >= 0);
    }
    return out;
}

static gfl_evaluator *make_evaluator(fx_case *one, const gfl_dataset *set, const fx_json *params,
                                     int compatible) {
    gfl_evaluator_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.compatible = compatible;
    opts.ignore_classes = fx_int(params, "useCats", 1) == 0;
    const fx_json *dets = fx_get(params, "maxDets"), *images = fx_get(params, "imgIds"),
                  *labels = fx_get(params, "catIds");
    for (int i = 0; dets && i < 3; i++) opts.max_dets[i] = (int)dets->items[i].number;
    int *image_list = images ? image_indices(set, images) : NULL;
    int *label_list = labels ? label_indices(set, labels) : NULL;
    opts.images = image_list;
    opts.n_images = images ? images->n : 0;
    opts.labels = label_list;
    opts.n_labels = labels ? labels->n : 0;
    gfl_evaluator *e = NULL;
    CHECK_OK(one->context, gfl_evaluator_create(one->context, set, &opts, &e));
    free(image_list);
    free(label_list);
    if (!e) fx_die("no evaluator", one->name);
    return e;
}

/* FNV-1a of doubles as little-endian bytes. */
static uint64_t hash(const double *x, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) {
        uint64_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        for (int b = 0; b < 8; b++) h = (h ^ (bits >> (8 * b) & 255)) * 0x100000001b3u;
    }
    return h;
}

static void check_hash(const fx_json *run, const char *what, const double *x, size_t n) {
    const fx_json *want = fx_get(run, what);
    uint64_t wanted = strtoull(fx_string(want, "fnv1a64"), NULL, 16), got = hash(x, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] > -1 ? x[i] : 0;
    CHECK_NEAR(sum, fx_number(want, "sum_present", NAN), 1e-6);
    if (got != wanted)
        printf("%s: hash %016llx, wanted %016llx\n", what, (unsigned long long)got,
               (unsigned long long)wanted);
    CHECK(got == wanted);
}

/* Every entry of the arrays, through their hashes, and the tensors that hold them as they are. */
static void check_arrays(fx_case *one, const fx_json *run, int index, gfl_evaluator *e) {
    const fx_json *counts = fx_get(run, "counts");
    size_t k = (size_t)fx_int(counts, "K", 0), rows = 10 * 101, columns = k * 12;
    double *precision = (double *)malloc((rows * columns + 1) * sizeof(double));
    double *scores = (double *)malloc((rows * columns + 1) * sizeof(double));
    double *recall = (double *)malloc((10 * columns + 1) * sizeof(double));
    CHECK_OK(one->context, gfli_evaluator_arrays(e, precision, recall, scores));
    check_hash(run, "precision", precision, rows * columns);
    check_hash(run, "recall", recall, 10 * columns);
    check_hash(run, "scores", scores, rows * columns);
    char name[64];
    snprintf(name, sizeof name, "run%d.recall", index);
    fx_tensor want = fx_load_optional(one, name);
    if (want.data) {
        CHECK(want.count == 10 * columns);
        double worst = 0;
        for (size_t i = 0; i < want.count && i < 10 * columns; i++)
            worst = fmax(worst, fabs(want.data[i] - recall[i]));
        CHECK(worst == 0);
        free(want.data);
    }
    free(precision);
    free(scores);
    free(recall);
}

static void check_classes(fx_case *one, const fx_json *run, const gfl_dataset *set,
                          const gfl_evaluator *e) {
    const fx_json *list = fx_get(run, "per_class"), *params = fx_get(run, "params");
    const fx_json *dets = fx_get(params, "maxDets");
    if (fx_int(params, "useCats", 1) == 0) return;
    for (int i = 0; list && i < list->n; i++) {
        const fx_json *want = &list->items[i];
        gfl_eval_result got;
        memset(&got, 0, sizeof got);
        for (int label = 0; label < gfl_dataset_count_classes(set); label++)
            if ((double)gfl_dataset_get_classes(set)[label].id == fx_number(want, "id", -1))
                CHECK_OK(one->context, gfl_evaluator_get_class_result(e, label, &got));
        if (!dets) CHECK_NEAR(got.ap, fx_number(want, "AP", NAN), 1e-12);
        CHECK_NEAR(got.ap50, fx_number(want, "AP50", NAN), 1e-12);
        CHECK_NEAR(got.ap75, fx_number(want, "AP75", NAN), 1e-12);
        CHECK_NEAR(got.ar[2], fx_number(want, "AR", NAN), 1e-12);
    }
}

static void check_run(fx_case *one, const gfl_dataset *set, const fx_json *run, int index) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", one->folder, fx_string(&one->json, "detections"));
    gfl_evaluator *e = make_evaluator(one, set, fx_get(run, "params"), 1);
    const fx_json *error = fx_get(run, "pycocotools_error"), *stats = fx_get(run, "stats");
    bool refused = error && !strncmp(error->string, "AssertionError", 14);
    gfl_eval_result result;
    double got[12];
    if (refused) {
        CHECK_ERROR(one->context, gfl_evaluator_add_results(e, path), GFL_E_DATA, "has no image");
        gfl_evaluator_destroy(e);
        return;
    }
    CHECK_OK(one->context, gfl_evaluator_add_results(e, path));
    CHECK_OK(one->context, gfl_evaluator_run(e, &result));
    result_numbers(&result, got);
    const fx_json *natural = fx_get(fx_get(run, "faster_coco_eval"), "stats");
    for (int i = 0; i < 12; i++) {
        double want = error ? (natural ? natural->items[i].number : NAN)
                            : fx_number(stats, stat_names[i], NAN);
        if (!(fabs(got[i] - want) <= 1e-12)) printf("run %d, %s:\n", index, stat_names[i]);
        CHECK_NEAR(got[i], want, 1e-12);
    }
    if (!error) {
        check_arrays(one, run, index, e);
        check_classes(one, run, set, e);
    }
    gfl_eval_notes notes;
    gfl_evaluator_get_notes(e, &notes);
    CHECK(notes.n_results == fx_int(&one->json, "number_of_detections", -1));
    gfl_evaluator_destroy(e);
}

static void evaluation_matches_pycocotools(void) {
    fx_case one;
    int runs = 0;
    for (fx_list list = fx_open("eval"); fx_next(&list, &one);) {
        const fx_json *all = fx_get(&one.json, "runs");
        gfl_dataset *set = load_truth(&one);
        CHECK(all && all->n > 0);
        for (int i = 0; all && i < all->n; i++, runs++) check_run(&one, set, &all->items[i], i);
        gfl_dataset_destroy(set);
        fx_free_case(&one);
    }
    printf("%d runs\n", runs);
}

/* A saved file evaluates to the same bits, with more threads too. */
static void saved_results_evaluate_alike(void) {
    fx_case one;
    for (fx_list list = fx_open("eval"); fx_next(&list, &one);) {
        char path[1024];
        const char *scratch = test_scratch("fixture_eval");
        snprintf(path, sizeof path, "%s/%s", one.folder, fx_string(&one.json, "detections"));
        gfl_dataset *set = load_truth(&one);
        gfl_context *many = test_context(4);
        gfl_evaluator *first = make_evaluator(&one, set, NULL, 0), *second = NULL;
        CHECK_OK(many, gfl_evaluator_create(many, set, NULL, &second));
        /* pycocotools makes 0 of results that name no class of the data set, we a refusal. */
        const bool fits = strcmp(one.name, "edge_no_detections") != 0;
        if (fits)
            CHECK_OK(one.context, gfl_evaluator_add_results(first, path));
        else
            CHECK_ERROR(one.context, gfl_evaluator_add_results(first, path), GFL_E_DATA,
                        "not one of");
        CHECK_OK(one.context, gfl_evaluator_save(first, scratch));
        CHECK_OK(many, gfl_evaluator_add_results(second, scratch));
        gfl_eval_result a, b;
        CHECK_OK(one.context, gfl_evaluator_run(first, &a));
        CHECK_OK(many, gfl_evaluator_run(second, &b));
        CHECK(memcmp(&a, &b, sizeof a) == 0);
        gfl_evaluator_destroy(first);
        gfl_evaluator_destroy(second);
        gfl_context_destroy(many);
        gfl_dataset_destroy(set);
        fx_free_case(&one);
        remove(scratch);
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(evaluation_matches_pycocotools), TEST(saved_results_evaluate_alike), {0}};
    return test_main(argc, argv, cases);
}
