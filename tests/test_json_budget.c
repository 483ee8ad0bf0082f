/* test_json_budget.c - memory of the readers of annotations and results: in proportion to the bytes
 * of the file, whatever these are, and lack of it is always called that */
#include "data.h"

#include "../src/data/dataset.h"

/* ---- an allocator that counts bytes ---------------------------------------------------------- */

typedef struct tally {
    size_t live, peak, most; /* most: more is refused; 0: no limit */
} tally;

static void *tally_alloc(void *user, size_t size) {
    tally *t = (tally *)user;
    if (t->most && t->live + size > t->most) return NULL;
    size_t *p = (size_t *)malloc(size + 64);
    if (!p) return NULL;
    p[0] = size;
    t->live += size;
    if (t->live > t->peak) t->peak = t->live;
    return (char *)p + 64;
}

static void tally_free(void *user, void *p) {
    size_t *start = (size_t *)(void *)((char *)p - 64);
    ((tally *)user)->live -= start[0];
    free(start);
}

static gfl_context *counted_context(tally *t, int n_threads) {
    gfl_context_desc desc;
    gfl_context *context = NULL;
    memset(&desc, 0, sizeof desc);
    memset(t, 0, sizeof *t);
    desc.n_threads = n_threads;
    desc.allocator.alloc = tally_alloc;
    desc.allocator.free = tally_free;
    desc.allocator.user = t;
    CHECK(gfl_context_create(&desc, &context) == GFL_OK);
    t->peak = t->live;
    return context;
}

/* ---- inputs, each the worst of its kind ------------------------------------------------------ */

enum { SIZE = 600000 };

static char *text_of(const char *head, const char *item, const char *tail) {
    char *text = (char *)malloc(SIZE + 400000), *p = text;
    p += sprintf(p, "%s", head);
    for (int i = 0; p < text + SIZE; i++) {
        if (i) *p++ = ',';
        for (const char *c = item; *c; c++) {
            if (*c == '#')
                p += sprintf(p, "%d", i); /* another number each time */
            else if (*c == '@')
                p += sprintf(p, "%0300d", i); /* a long text that differs at its end */
            else if (*c == '$')
                p += sprintf(p, "%032769d", 0);
            else
                *p++ = *c;
        }
    }
    strcpy(p, tail);
    return text;
}

#define IMAGES     "{\"images\":[{\"id\":0}],\"categories\":[{\"id\":0}],"
#define ANNOTATION "{\"image_id\":0,\"category_id\":0,\"bbox\":[0,0,0,0]}"

static const struct {
    const char *head, *item, *tail;
    gfl_status status;
} inputs[] = {
    {"{\"categories\":[{\"id\":0}],\"images\":[", "{\"id\":#}", "]}", GFL_OK},
    {"{\"categories\":[{\"id\":0}],\"images\":[", "{\"id\":\"#\"}", "]}", GFL_OK},
    {"{\"categories\":[{\"id\":0}],\"images\":[", "{\"id\":\"@\"}", "]}", GFL_OK},
    {"{\"categories\":[{\"id\":0}],\"images\":[", "{\"id\":#,\"file_name\":\"$\"},{\"id\":\"#\"}",
     "]}", GFL_E_DATA},
    {"{\"categories\":[{\"id\":0}],\"images\":[", "{\"id\":#,\"file_name\":\"$\"},{\"id\":-1#}",
     "]}", GFL_OK},
    {"{\"categories\":[{\"id\":0}],\"images\":[{\"id\":0,", "\"file_name\":\"\"", "}]}", GFL_OK},
    {"{\"images\":[],\"categories\":[", "{\"id\":0}", "]}", GFL_E_DATA}, /* more than 65536 */
    {"{\"images\":[],\"categories\":[", "{\"id\":\"#\",\"name\":\"\",\"supercategory\":\"\"}", "]}",
     GFL_OK},
    {"{\"images\":[],\"categories\":[{\"id\":0,\"name\":\"a\",\"supercategory\":\"b\"},",
     "{\"id\":-1#,\"name\":\"b\",\"supercategory\":\"a\"}", "]}", GFL_OK},
    {IMAGES "\"annotations\":[", ANNOTATION, "]}", GFL_OK},
    {IMAGES "\"annotations\":[",
     "{\"id\":\"#\",\"image_id\":\"0\",\"category_id\":\"0\",\"bbox\":[0,0,0,0]}", "]}", GFL_OK},
    {IMAGES "\"annotations\":[", "{\"image_id\":#,\"category_id\":0,\"bbox\":[0,0,0,0]}", "]}",
     GFL_E_DATA},
    {IMAGES "\"annotations\":[", "{}", "]}", GFL_E_DATA},
    {IMAGES "\"annotations\":[", "0", "]}", GFL_E_DATA},
    {IMAGES "\"annotations\":[", "{\"image_id\":0,\"category_id\":0,\"segmentation\":[[0,0]]}",
     "]}", GFL_OK},
    {IMAGES "\"annotations\":[{\"image_id\":0,\"category_id\":0,\"segmentation\":[[", "0,1e-300",
     "]]}]}", GFL_OK},
    {IMAGES "\"annotations\":[{\"image_id\":0,\"category_id\":0,\"area\":", "$", "}]}",
     GFL_E_FORMAT},
    {IMAGES "\"x\":[", "1e5", "]}", GFL_OK},
    {IMAGES "\"x\":{", "\"#\":{}", "}}", GFL_OK},
    {IMAGES "\"x\":{", "\"$\":1", "}}", GFL_OK},
    {IMAGES "\"x\":", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "", GFL_E_FORMAT},
    {"", "[", "", GFL_E_DATA},
    {"", " ", "", GFL_E_FORMAT},
    {"{\"images\":[\"", "$", "", GFL_E_FORMAT},
};

static int go_on(void *user, const char *text) {
    (void)user;
    return strlen(text) > 1024;
}

/* The library promises 32 bytes per byte of the file, and 256 kB. */
static void annotations_take_memory_in_proportion_to_the_file(void) {
    double worst = 0;
    int n_limits = 0;
    for (size_t i = 0; i < 2 * GFLI_COUNT(inputs); i++) {
        char *text = text_of(inputs[i / 2].head, inputs[i / 2].item, inputs[i / 2].tail);
        const size_t size = strlen(text);
        tally t;
        gfl_context *context = counted_context(&t, 1);
        const size_t before = t.live;
        gfl_dataset *set = NULL;
        gfl_dataset_desc opts;
        memset(&opts, 0, sizeof opts);
        opts.boxes_from_polygons = 1;
        if (i % 2) opts.found = go_on;
        gfl_status status = gfl_dataset_load_coco_memory(context, text, size, &opts, &set);
        const double each = ((double)(t.peak - before) - 262144) / (double)size;
        if (each > worst) worst = each;
        if (each > 32) printf("%.60s... of %zu bytes takes %.1f per byte\n", text, size, each);
        CHECK(each <= 32);
        if (i % 2 == 0) {
            if (status != inputs[i / 2].status)
                printf("%.99s: %s\n", text, gfl_context_get_error(context));
            CHECK(status == inputs[i / 2].status);
            n_limits +=
                strstr(gfl_context_get_error(context), "more than 65536 categories") != NULL;
        }
        gfl_dataset_destroy(set);
        CHECK(t.live == before);
        gfl_context_destroy(context);
        free(text);
    }
    CHECK(n_limits == 1); /* of classes */
    printf("at most %.1f bytes per byte, and 256 kB\n", worst);
}

/* Results, their evaluation, and that in several threads. */
static void results_take_memory_in_proportion_to_the_files(void) {
    static const struct {
        const char *truth, *results;
    } pairs[] = {
        {ANNOTATION, "{\"image_id\":0,\"category_id\":0,\"bbox\":[0,0,0,0],\"score\":0}"},
        {ANNOTATION, "{\"image_id\":\"f\",\"category_id\":0,\"bbox\":[0,0,0,0],\"score\":0}"},
        {"{\"id\":0,\"image_id\":0,\"category_id\":0,\"bbox\":[0,0,0,0]}",
         "{\"image_id\":0,\"category_id\":0,\"bbox\":[0,0,0,0],\"score\":0}"},
    };
    double worst = 0;
    for (size_t i = 0; i < 4 * GFLI_COUNT(pairs); i++) {
        char *truth =
            text_of("{\"images\":[{\"id\":0,\"file_name\":\"f\"}],\"categories\":[{\"id\":0}],"
                    "\"annotations\":[",
                    pairs[i / 4].truth, "]}");
        char *results = text_of("[", pairs[i / 4].results, "]");
        const size_t size = strlen(truth) + strlen(results);
        tally t;
        gfl_context *context = counted_context(&t, i % 2 ? 8 : 1);
        const size_t before = t.live;
        gfl_dataset *set = NULL;
        gfl_evaluator *e = NULL;
        gfl_eval_result r;
        gfl_evaluator_desc opts;
        memset(&opts, 0, sizeof opts);
        opts.compatible = i / 2 % 2; /* which knows no names: a refusal of the second pair */
        CHECK_OK(context, gfl_dataset_load_coco_memory(context, truth, strlen(truth), NULL, &set));
        CHECK_OK(context, gfl_evaluator_create(context, set, &opts, &e));
        gfl_status status = gfl_evaluator_add_results_memory(e, results, strlen(results));
        CHECK(status == (opts.compatible && i / 4 == 1 ? GFL_E_DATA : GFL_OK));
        CHECK_OK(context, gfl_evaluator_run(e, &r));
        const double each = ((double)(t.peak - before) - 262144) / (double)size;
        if (each > worst) worst = each;
        CHECK(each <= 32);
        gfl_evaluator_destroy(e);
        gfl_dataset_destroy(set);
        CHECK(t.live == before);
        gfl_context_destroy(context);
        free(truth);
        free(results);
    }
    printf("at most %.1f bytes per byte, and 256 kB\n", worst);
}

/* Whatever the file is, too little memory for it is not a fault of the file. */
static void too_little_memory_is_called_that(void) {
    int n_refused = 0;
    for (size_t i = 0; i < GFLI_COUNT(inputs); i++) {
        char *text = text_of(inputs[i].head, inputs[i].item, inputs[i].tail);
        tally t;
        gfl_context *context = counted_context(&t, 1);
        const size_t start = t.live;
        gfl_status status = GFL_E_MEMORY;
        for (size_t room = 1000; status == GFL_E_MEMORY && room < (size_t)1 << 27;
             room = 2 * room) {
            gfl_dataset *set = NULL;
            t.most = start + room;
            status = gfl_dataset_load_coco_memory(context, text, strlen(text), NULL, &set);
            gfl_dataset_destroy(set);
            n_refused += status == GFL_E_MEMORY;
            CHECK(status != GFL_E_MEMORY ||
                  strstr(gfl_context_get_error(context), "out of memory"));
        }
        CHECK(status == inputs[i].status || (inputs[i].status == GFL_OK && status == GFL_E_DATA));
        gfl_context_destroy(context);
        free(text);
    }
    CHECK(n_refused > 100);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(annotations_take_memory_in_proportion_to_the_file),
                                      TEST(results_take_memory_in_proportion_to_the_files),
                                      TEST(too_little_memory_is_called_that),
                                      {0}};
    return test_main(argc, argv, cases);
}
