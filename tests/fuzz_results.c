/* fuzz_results.c - result files: whatever the bytes, results that can be evaluated and saved, or an
 * error with a text and none of them */
#include "test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ids of both types, file names of which some end alike, a crowd, an id twice. */
static const char truth[] =
    "{\"images\":[{\"id\":7,\"file_name\":\"a/x.jpg\"},{\"id\":3,\"file_name\":\"b/x.jpg\"},"
    "{\"id\":\"t\",\"file_name\":\"y.jpg\"},{\"id\":5}],"
    "\"categories\":[{\"id\":1,\"name\":\"a\"},{\"id\":4,\"name\":\"b\"},{\"id\":\"w\",\"name\":"
    "\"c\"}],"
    "\"annotations\":[{\"id\":1,\"image_id\":7,\"category_id\":1,\"bbox\":[0,0,40,40]},"
    "{\"id\":1,\"image_id\":7,\"category_id\":1,\"bbox\":[10,0,40,40],\"iscrowd\":1},"
    "{\"id\":3,\"image_id\":3,\"category_id\":4,\"bbox\":[0,0,9,9]},"
    "{\"id\":0,\"image_id\":\"t\",\"category_id\":\"w\",\"bbox\":[5,5,100,200]}]}";

static void check_numbers(const gfl_eval_result *r) {
    const double v[12] = {r->ap,    r->ap50,  r->ap75,  r->ap_small, r->ap_medium, r->ap_large,
                          r->ar[0], r->ar[1], r->ar[2], r->ar_small, r->ar_medium, r->ar_large};
    for (int i = 0; i < 12; i++)
        if (!(v[i] == -1 || (v[i] >= 0 && v[i] <= 1))) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gfl_context *context = test_context(1);
    gfl_dataset *set;
    if (gfl_dataset_load_coco_memory(context, truth, sizeof truth - 1, NULL, &set) != GFL_OK)
        abort();
    for (int compatible = 0; compatible < 2; compatible++) {
        gfl_evaluator *e;
        gfl_evaluator_desc opts;
        gfl_eval_notes notes;
        gfl_eval_result r;
        memset(&opts, 0, sizeof opts);
        opts.compatible = compatible;
        if (gfl_evaluator_create(context, set, &opts, &e) != GFL_OK) abort();
        gfl_status status = gfl_evaluator_add_results_memory(e, (const char *)data, size);
        gfl_evaluator_get_notes(e, &notes);
        const int64_t unknown = notes.n_unknown_images + notes.n_unknown_classes;
        if (status == GFL_OK) {
            if (unknown > notes.n_results || notes.n_named_images > notes.n_results - unknown)
                abort();
            if (notes.n_results && unknown == notes.n_results && !compatible) abort();
        } else if (notes.n_results ||
                   !strstr(gfl_context_get_error(context), "results in memory")) {
            abort();
        }
        if (gfl_evaluator_run(e, &r) != GFL_OK) abort();
        check_numbers(&r);
        gfl_evaluator_destroy(e);
    }
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
    return 0;
}
