/* test_annotations.c - what exporters and people write: mistakes named with their place and value,
 * reading that goes on, ids of two types, polygons, classes that nobody has */
#include "data.h"

#include "../src/data/dataset.h"

static gfl_context *context;

static gfl_status load(const char *json, const gfl_dataset_desc *opts, gfl_dataset **out) {
    return gfl_dataset_load_coco_memory(context, json, strlen(json), opts, out);
}

static gfl_dataset *loaded(const char *json, const gfl_dataset_desc *opts) {
    gfl_dataset *set = NULL;
    CHECK_OK(context, load(json, opts, &set));
    return set;
}

static gfl_dataset_summary summary_of(const gfl_dataset *set) {
    gfl_dataset_summary s;
    memset(&s, 0, sizeof s);
    gfl_dataset_get_summary(set, &s);
    return s;
}

/* A file of one image and one class whose annotations begin at line 2, column 1. */
static const char *file_of(const char *annotations) {
    static char json[8192];
    snprintf(json, sizeof json,
             "{\"images\":[{\"id\":1}],\"categories\":[{\"id\":1,\"name\":\"cat\"}],"
             "\"annotations\":[\n%s]}",
             annotations);
    return json;
}

/* ---- what was found -------------------------------------------------------------------------- */

typedef struct mistakes {
    int n, stop_after;
    char texts[40][1024];
} mistakes;

static int take_mistake(void *user, const char *text) {
    mistakes *m = (mistakes *)user;
    if (m->n < 40) snprintf(m->texts[m->n], sizeof m->texts[0], "%s", text);
    return ++m->n == m->stop_after;
}

static mistakes found;

static gfl_dataset_desc collecting(void) {
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    memset(&found, 0, sizeof found);
    opts.found = take_mistake;
    opts.found_user = &found;
    return opts;
}

static void mistakes_are_told_with_place_annotation_image_and_value(void) {
    static const struct {
        const char *annotation, *want;
    } cases[] = {
        {"{\"id\":4,\"image_id\":1,\"category_id\":1,\"bbox\":null}",
         ":2:45: annotation 4 of image 1: its bbox is null: [x, y, width, height] is wanted"},
        {"{\"bbox\":null,\"category_id\":1,\"image_id\":1,\"id\":4}",
         ":2:9: annotation 4 of image 1: its bbox is null"},
        {"{\"image_id\":1,\"category_id\":1,\"bbox\":[1,2,NaN,4]}",
         ":2:43: annotations[0] of image 1: its bbox holds NaN: a list of four numbers"},
        {"{\"id\":\"k\\u001b[31m\",\"image_id\":1,\"category_id\":1,\"bbox\":[1,2,\"\\n\",4]}",
         "annotation \"k\\x1b[31m\" of image 1: its bbox holds \"\\n\": "},
        {"{\"id\":4,\"image_id\":1,\"category_id\":1,\"bbox\":[1,2,3]}",
         ":2:51: annotation 4 of image 1: its bbox holds three numbers before the end"},
        {"{\"id\":4,\"image_id\":1,\"category_id\":1,\"bbox\":[]}", "its bbox is empty"},
        {"{\"id\":4,\"image_id\":1,\"category_id\":1,\"bbox\":[1,2,3,4,5.5]}",
         ":2:54: annotation 4 of image 1: its bbox goes on with 5.5: "},
        {"{\"id\":4,\"image_id\":1,\"category_id\":1,\"bbox\":{\"x\":1}}",
         "its bbox is an object: a list of four numbers"},
        {"{\"id\":4,\"image_id\":1,\"category_id\":1,\"bbox\":[1,2,3,-1e300]}",
         "its bbox holds -1e300: "},
        {"{\"id\":4.5,\"image_id\":1,\"category_id\":1,\"bbox\":[1,2,3,4]}",
         ":2:7: annotations[0] of image 1: its id is 4.5: a whole number of 64 bits or a text"},
        {"{\"id\":4,\"image_id\":[1],\"category_id\":1,\"bbox\":[1,2,3,4]}",
         ":2:20: annotation 4: its image_id is a list: "},
        {"{\"id\":4,\"image_id\":1,\"category_id\":true,\"bbox\":[1,2,3,4]}",
         "annotation 4 of image 1: its category_id is true: "},
        {"{\"id\":4,\"category_id\":1,\"bbox\":[1,2,3,4]}",
         ":2:1: annotation 4: it has no image_id"},
        {"{\"id\":4,\"image_id\":1,\"bbox\":[1,2,3,4]}",
         ":2:1: annotation 4 of image 1: it has no category_id"},
        {"{\"id\":4,\"image_id\":1,\"category_id\":1}",
         ":2:1: annotation 4 of image 1: it has no bbox"},
        {"{\"id\":4,\"image_id\":1,\"category_id\":1,\"bbox\":[1,2,3,4],\"area\":Infinity}",
         "its area is Infinity: a number is wanted"},
        {"{\"id\":4,\"image_id\":1,\"category_id\":1,\"bbox\":[1,2,3,4],\"iscrowd\":\"no\"}",
         "its iscrowd is \"no\": 0 or 1 is wanted"},
        {"{\"id\":4,\"image_id\":1,\"category_id\":1,\"bbox\":[1,2,3,4],\"ignore\":[]}",
         "its ignore is a list: 0 or 1"},
        {"null", ":2:1: annotations[0]: its value is null: an object is wanted"},
        {"[1,[2]]", ":2:1: annotations[0]: its value is a list: an object is wanted"},
    };
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        const char *json = file_of(cases[i].annotation);
        gfl_dataset *set = NULL;
        CHECK_ERROR(context, load(json, NULL, &set), GFL_E_DATA, cases[i].want);
        CHECK(set == NULL);
        /* The same text when reading goes on, and nothing else to tell. */
        gfl_dataset_desc opts = collecting();
        set = loaded(json, &opts);
        CHECK(found.n == 1 && strstr(found.texts[0], cases[i].want) != NULL);
        CHECK(summary_of(set).n_mistakes == 1 && summary_of(set).n_annotations == 0);
        gfl_dataset_destroy(set);
    }
}

static void mistakes_of_images_and_categories_are_told_too(void) {
    static const struct {
        const char *json, *want;
    } cases[] = {
        {"{\"images\":[{\"id\":3,\"width\":\"640\"}],\"categories\":[{\"id\":1}]}",
         ":1:28: image 3: its width is \"640\": a whole number of pixels is wanted"},
        {"{\"images\":[{\"height\":1.5,\"id\":3}],\"categories\":[{\"id\":1}]}",
         "image 3: its height is 1.5: "},
        {"{\"images\":[{\"id\":3,\"file_name\":null}],\"categories\":[{\"id\":1}]}",
         "image 3: its file_name is null: a text is wanted"},
        {"{\"images\":[{\"file_name\":\"a\"}],\"categories\":[{\"id\":1}]}",
         ":1:12: images[0]: it has no id"},
        {"{\"images\":[7],\"categories\":[{\"id\":1}]}",
         "images[0]: its value is 7: an object is wanted"},
        {"{\"images\":[],\"categories\":[{\"id\":1},{\"id\":2,\"name\":7}]}",
         "category 2: its name is 7: a text is wanted"},
        {"{\"images\":[],\"categories\":[{\"id\":1},{\"name\":\"x\"}]}",
         "categories[1]: it has no id"},
    };
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        gfl_dataset *set = NULL;
        CHECK_ERROR(context, load(cases[i].json, NULL, &set), GFL_E_DATA, cases[i].want);
        gfl_dataset_desc opts = collecting();
        set = loaded(cases[i].json, &opts);
        CHECK(found.n == 1 && strstr(found.texts[0], cases[i].want) != NULL);
        gfl_dataset_destroy(set);
    }
}

static void reading_goes_on_after_a_mistake(void) {
    static const char json[] =
        "{\"images\":[{\"id\":1,\"width\":\"wide\"},{\"id\":1},{\"width\":3},{\"id\":2}],"
        "\"categories\":[{\"id\":1,\"name\":\"cat\"},{\"id\":2,\"name\":\"cat\"}],\"annotations\":["
        "{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,9,9]},"
        "{\"id\":2,\"image_id\":1,\"category_id\":1,\"bbox\":[0,{\"a\":[1,{}]},9,9],\"x\":[[]]},"
        "{\"id\":3,\"image_id\":9,\"category_id\":1,\"bbox\":[0,0,9,9]},"
        "{\"id\":4,\"image_id\":2,\"category_id\":\"x\",\"bbox\":[0,0,9,9]},"
        "{\"id\":5,\"image_id\":2,\"category_id\":2,\"bbox\":[0,0,9,9]}]}";
    static const char *const want[] = {
        "image 1: its width is \"wide\"",
        "images[2]: it has no id",
        "annotation 2 of image 1: its bbox holds an object",
        "two images have the id 1",
        ":1:271: annotation 3 has image_id 9, which is not among the images",
        "annotation 4 has category_id \"x\", which is not among",
        "the categories 1 and 2 are both named \"cat\""};
    gfl_dataset_desc opts = collecting();
    gfl_dataset *set = loaded(json, &opts);
    CHECK(found.n == (int)GFLI_COUNT(want));
    for (int i = 0; i < (int)GFLI_COUNT(want) && i < found.n; i++) {
        if (!strstr(found.texts[i], want[i])) printf("%s\n", found.texts[i]);
        CHECK(strstr(found.texts[i], want[i]) != NULL);
        CHECK(!strncmp(found.texts[i], "annotations in memory:", 22));
    }
    gfl_dataset_summary s = summary_of(set);
    CHECK(s.n_mistakes == 7 && s.n_annotations == 2 && s.n_images == 3);
    gfl_dataset_destroy(set);
    /* Whoever has seen enough says so, and that mistake is the error. */
    for (int n = 1; n <= 7; n++) {
        opts = collecting();
        found.stop_after = n;
        CHECK_ERROR(context, load(json, &opts, &set), GFL_E_DATA, want[n - 1]);
        CHECK(found.n == n && set == NULL);
    }
    /* What is not JSON ends the reading, mistakes before it or not. */
    opts = collecting();
    CHECK_ERROR(context,
                load("{\"images\":[{\"id\":\"a\",\"width\":\"b\"},{\"id\":None}]}", &opts, &set),
                GFL_E_FORMAT, ":1:41: a value is expected, not None, as Python prints it");
    CHECK(found.n == 1);
    CHECK_ERROR(context, load("{\"images\":[{\"id\":0,\"width\":\"x\",\"y\":None}]}", NULL, &set),
                GFL_E_FORMAT, "not None");
}

static void what_nobody_reads_may_be_anything(void) {
    gfl_dataset *set = loaded(
        "\xef\xbb\xbf{\"info\":NaN,\"images\":[{\"id\":1,\"score\":-Infinity,\"coco_url\":null}],"
        "\"categories\":[{\"id\":1,\"name\":\"cat\",\"supercategory\":[NaN]}],\"annotations\":["
        "{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,9,9],\"visibility\":NaN,"
        "\"segmentation\":[[NaN]]}],\"licenses\":[Infinity]}",
        NULL);
    CHECK(gfl_dataset_count_images(set) == 1 && summary_of(set).n_annotations == 1);
    gfl_dataset_destroy(set);
}

/* ---- ids ------------------------------------------------------------------------------------- */

static void annotations_without_an_id_are_numbered_after_the_others(void) {
    gfl_dataset *set =
        loaded(file_of("{\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,9,9]},"
                       "{\"id\":7,\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,9,9]},"
                       "{\"id\":null,\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,9,9]}"),
               NULL);
    static const int64_t want[3] = {8, 7, 9};
    for (int i = 0; i < 3; i++) CHECK(set->annotations[i].id.number == want[i]);
    CHECK(summary_of(set).n_unnumbered == 2 && summary_of(set).n_duplicate_ids == 0);
    gfl_dataset_destroy(set);
    set = loaded(file_of("{\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,9,9]}"), NULL);
    CHECK(set->annotations[0].id.number == 1); /* 0 is what pycocotools cannot match */
    gfl_dataset_destroy(set);
    set = loaded(file_of("{\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,9,9]},"
                         "{\"id\":9223372036854775807,\"image_id\":1,\"category_id\":1,"
                         "\"bbox\":[0,0,9,9]}"),
                 NULL);
    CHECK(set->annotations[0].id.number == 1);
    gfl_dataset_destroy(set);
}

static void a_number_and_its_text_are_one_id(void) {
    static const struct {
        const char *image, *category, *image_id, *category_id;
        bool fits;
    } cases[] = {
        {"1", "2", "1", "2", true},
        {"\"1\"", "2", "1", "2", true},
        {"1", "\"2\"", "\"1\"", "2", true},
        {"-9223372036854775808", "0", "\"-9223372036854775808\"", "\"0\"", true},
        {"9223372036854775807", "0", "\"9223372036854775807\"", "0", true},
        {"1", "2", "\"01\"", "2", false},
        {"1", "2", "\"+1\"", "2", false},
        {"1", "2", "\" 1\"", "2", false},
        {"0", "2", "\"-0\"", "2", false},
        {"1", "2", "\"1.0\"", "2", false},
        {"1", "2", "\"\"", "2", false},
        {"1", "2", "\"-\"", "2", false},
        {"-1", "2", "\"18446744073709551615\"", "2", false},
        {"0", "2", "\"18446744073709551616\"", "2", false},
        {"-9223372036854775808", "2", "\"9223372036854775808\"", "2", false},
        {"9223372036854775807", "2", "\"-9223372036854775809\"", "2", false},
        {"\"01\"", "2", "1", "2", false},
    };
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        char json[600];
        gfl_dataset *set = NULL;
        snprintf(json, sizeof json,
                 "{\"images\":[{\"id\":%s}],\"categories\":[{\"id\":%s,\"name\":\"cat\"}],"
                 "\"annotations\":[{\"id\":1,\"image_id\":%s,\"category_id\":%s,"
                 "\"bbox\":[0,0,9,9]}]}",
                 cases[i].image, cases[i].category, cases[i].image_id, cases[i].category_id);
        gfl_status status = load(json, NULL, &set);
        if ((status == GFL_OK) != cases[i].fits) printf("%s\n", json);
        CHECK(status == (cases[i].fits ? GFL_OK : GFL_E_DATA));
        if (set)
            CHECK(summary_of(set).n_mixed_ids == (cases[i].image[0] != cases[i].image_id[0] ||
                                                  cases[i].category[0] != cases[i].category_id[0]));
        gfl_dataset_destroy(set);
    }
}

static void two_ids_that_differ_in_type_alone_are_refused(void) {
    gfl_dataset *set;
    CHECK_ERROR(context,
                load("{\"images\":[{\"id\":\"5\"},{\"id\":\"x\"},{\"id\":5}],"
                     "\"categories\":[{\"id\":1}]}",
                     NULL, &set),
                GFL_E_DATA, "two images have the id 5, one as a number and one as a text, \"5\"");
    CHECK_ERROR(context,
                load("{\"images\":[],\"categories\":[{\"id\":\"1\",\"name\":\"a\"},"
                     "{\"id\":1,\"name\":\"b\"}]}",
                     NULL, &set),
                GFL_E_DATA, "two categories have the id 1, one as a number");
}

static void text_ids_that_are_numbers_give_classes_their_number(void) {
    gfl_dataset *set = loaded("{\"images\":[],\"categories\":[{\"id\":\"10\",\"name\":\"a\"},"
                              "{\"id\":\"2\",\"name\":\"b\"}]}",
                              NULL);
    CHECK(gfl_dataset_get_classes(set)[0].id == 10 && gfl_dataset_get_classes(set)[1].id == 2);
    gfl_dataset_destroy(set);
}

static void strays_are_left_out_unless_nothing_remains(void) {
    gfl_dataset *set;
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.skip_strays = 1;
    CHECK_ERROR(
        context,
        load("{\"images\":[{\"id\":\"a.jpg\"}],\"categories\":[{\"id\":3}],\"annotations\":["
             "{\"id\":1,\"image_id\":1,\"category_id\":3,\"bbox\":[0,0,9,9]},"
             "{\"id\":2,\"image_id\":2,\"category_id\":3,\"bbox\":[0,0,9,9]}]}",
             &opts, &set),
        GFL_E_DATA,
        "not one of the 2 annotations is of a listed image and category: the first has "
        "image_id 1 and category_id 3, while the images begin with \"a.jpg\" and the "
        "categories with 3");
}

/* ---- polygons -------------------------------------------------------------------------------- */

#define POLYGONS(polygons)                                                                         \
    "{\"id\":1,\"image_id\":1,\"category_id\":1,\"segmentation\":" polygons "}"

static void polygons_give_boxes_on_request(void) {
    gfl_dataset *set;
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    const char *two = POLYGONS("[[5,40,5.5,20,30.25,21],[12,19.5,13,60,14,30]]");
    CHECK_ERROR(context, load(file_of(two), NULL, &set), GFL_E_DATA,
                "annotation 1 of image 1: it has no bbox; it has polygons, of which "
                "boxes_from_polygons (--boxes-from-polygons) makes boxes");
    opts.boxes_from_polygons = 1;
    set = loaded(file_of(two), &opts);
    const gfl_annotation *a = &set->annotations[0];
    CHECK(a->x == 5 && a->y == 19.5 && a->w == 25.25 && a->h == 40.5);
    CHECK(a->area == 25.25 * 40.5 && summary_of(set).n_from_polygons == 1);
    gfl_dataset_destroy(set);
    /* A box that is there counts, before or behind the polygons; one that is null does not. */
    set = loaded(file_of("{\"image_id\":1,\"category_id\":1,\"bbox\":[1,2,3,4],"
                         "\"segmentation\":[[5,6,7,8]]},"
                         "{\"image_id\":1,\"category_id\":1,\"segmentation\":[[5,6,NaN]],"
                         "\"bbox\":[1,2,3,4]},"
                         "{\"image_id\":1,\"category_id\":1,\"bbox\":null,\"area\":7,"
                         "\"segmentation\":[[5,6,7,8]]}"),
                 &opts);
    a = set->annotations;
    CHECK(a[0].x == 1 && a[0].h == 4 && a[1].x == 1 && a[1].h == 4);
    CHECK(a[2].x == 5 && a[2].y == 6 && a[2].w == 2 && a[2].h == 2 && a[2].area == 7);
    CHECK(summary_of(set).n_from_polygons == 1);
    gfl_dataset_destroy(set);
}

static void what_is_no_polygon_gives_no_box(void) {
    static const char *const polygons[] = {"[[1,2,3]]",
                                           "[[]]",
                                           "[[1,2],[3]]",
                                           "[[1,2],3]",
                                           "[1,2,3,4]",
                                           "[[1,null]]",
                                           "[[1,2,NaN,4]]",
                                           "[[1,2e10]]",
                                           "[]",
                                           "null",
                                           "{\"counts\":\"a\",\"size\":[1,2]}",
                                           "[[[1,2]]]",
                                           "\"polygon\"",
                                           "[[1,2],{}]"};
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.boxes_from_polygons = 1;
    for (size_t i = 0; i < GFLI_COUNT(polygons); i++) {
        char annotation[300];
        gfl_dataset *set;
        snprintf(annotation, sizeof annotation, POLYGONS("%s"), polygons[i]);
        CHECK_ERROR(context, load(file_of(annotation), &opts, &set), GFL_E_DATA,
                    "it has no bbox; it");
    }
}

/* ---- classes --------------------------------------------------------------------------------- */

static int warnings;
static char last_warning[1024];

static void take_warning(void *user, gfl_log_level level, const char *message) {
    (void)user;
    warnings += level == GFL_LOG_WARNING;
    snprintf(last_warning, sizeof last_warning, "%s", message);
}

static gfl_context *loud_context(void) {
    gfl_context_desc desc;
    gfl_context *loud = NULL;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 1;
    desc.logger.log = take_warning;
    CHECK(gfl_context_create(&desc, &loud) == GFL_OK);
    warnings = 0;
    last_warning[0] = 0;
    return loud;
}

/* The names of the classes, with their ids, joined by blanks. */
static const char *classes_of(const gfl_dataset *set) {
    static char text[400];
    size_t at = 0;
    text[0] = 0;
    for (int k = 0; k < gfl_dataset_count_classes(set); k++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s %lld", k ? ", " : "",
                               gfl_dataset_get_classes(set)[k].name,
                               (long long)gfl_dataset_get_classes(set)[k].id);
    return text;
}

/* As Roboflow writes it: the project's name is a category of its own, id 0. */
static void a_root_category_without_boxes_is_left_out(void) {
    static const char json[] =
        "{\"images\":[{\"id\":0}],\"categories\":["
        "{\"id\":0,\"name\":\"objects\",\"supercategory\":\"none\"},"
        "{\"id\":1,\"name\":\"helmet\",\"supercategory\":\"objects\"},"
        "{\"id\":2,\"name\":\"head\",\"supercategory\":\"objects\"},"
        "{\"id\":3,\"name\":\"person\",\"supercategory\":\"person\"}],\"annotations\":["
        "{\"id\":1,\"image_id\":0,\"category_id\":%d,\"bbox\":[0,0,9,9]}]}";
    char text[sizeof json + 10];
    gfl_context *loud = loud_context();
    gfl_dataset *set = NULL;
    snprintf(text, sizeof text, json, 2);
    CHECK_OK(loud, gfl_dataset_load_coco_memory(loud, text, strlen(text), NULL, &set));
    CHECK(!strcmp(classes_of(set), "helmet 1, head 2, person 3"));
    CHECK(set->annotations[0].label == 1 && set->class_ids[1].number == 2);
    CHECK(summary_of(set).n_parents == 1 && summary_of(set).n_empty_classes == 2);
    CHECK(warnings == 1 && strstr(last_warning, "they are only the supercategory of others: "
                                                "\"objects\"") != NULL);
    gfl_dataset_destroy(set);
    /* With a box it is a class like any other. */
    snprintf(text, sizeof text, json, 0);
    warnings = 0;
    CHECK_OK(loud, gfl_dataset_load_coco_memory(loud, text, strlen(text), NULL, &set));
    CHECK(gfl_dataset_count_classes(set) == 4 && summary_of(set).n_parents == 0 && warnings == 0);
    gfl_dataset_destroy(set);
    gfl_context_destroy(loud);
}

static void empty_classes_are_counted_and_left_out_on_request(void) {
    static const char json[] =
        "{\"images\":[{\"id\":0}],\"categories\":[{\"id\":\"w\",\"name\":\"one\"},"
        "{\"id\":\"x\",\"name\":\"two\"},{\"id\":\"y\",\"name\":\"three\"},{\"id\":\"z\",\"name\":"
        "\"four\"}],"
        "\"annotations\":[{\"id\":1,\"image_id\":0,\"category_id\":\"z\",\"bbox\":[0,0,9,9]},"
        "{\"id\":2,\"image_id\":0,\"category_id\":\"x\",\"bbox\":[0,0,9,9]}]}";
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    gfl_dataset *set = loaded(json, &opts);
    CHECK(!strcmp(classes_of(set), "one 1, two 2, three 3, four 4"));
    CHECK(summary_of(set).n_empty_classes == 2);
    gfl_dataset_destroy(set);
    opts.drop_empty_classes = 1;
    gfl_context *loud = loud_context();
    CHECK_OK(loud, gfl_dataset_load_coco_memory(loud, json, sizeof json - 1, &opts, &set));
    CHECK(!strcmp(classes_of(set), "two 1, four 2"));
    CHECK(set->annotations[0].label == 1 && set->annotations[1].label == 0);
    CHECK(warnings == 1 && strstr(last_warning, "no annotation has them: \"one\", \"three\""));
    gfl_dataset_destroy(set);
    gfl_context_destroy(loud);
    CHECK_ERROR(context, load("{\"images\":[],\"categories\":[{\"id\":1}]}", &opts, &set),
                GFL_E_DATA, "no annotation has any of the 1 classes");
}

static void two_classes_of_one_name_are_told_and_counted(void) {
    static const char json[] =
        "{\"images\":[{\"id\":1}],\"categories\":[{\"id\":0,\"name\":\"RBC\"},"
        "{\"id\":2,\"name\":\"WBC\"},{\"id\":1,\"name\":\"RBC\"}],\"annotations\":["
        "{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,9,9]}]}";
    gfl_dataset_desc opts = collecting();
    gfl_dataset *set = loaded(json, NULL); /* can be evaluated: results go by id */
    CHECK(summary_of(set).n_duplicate_names == 1 && summary_of(set).n_mistakes == 0);
    CHECK_ERROR(context, gfli_dataset_check_names(context, set), GFL_E_DATA,
                "the categories 0 and 1 are both named \"RBC\"");
    gfl_dataset_destroy(set);
    set = loaded(json, &opts);
    CHECK(found.n == 1 && strstr(found.texts[0], "the categories 0 and 1 are both named \"RBC\""));
    gfl_dataset_destroy(set);
    /* Without the one that no box has, nothing is left to mistake. */
    opts = collecting();
    opts.drop_empty_classes = 1;
    set = loaded(json, &opts);
    CHECK(found.n == 0 && !strcmp(classes_of(set), "RBC 1"));
    CHECK_OK(context, gfli_dataset_check_names(context, set));
    gfl_dataset_destroy(set);
}

/* ---- borders --------------------------------------------------------------------------------- */

/* Annotators and their rounding reach over the border by up to a pixel; that is not counted. */
static void boxes_reach_over_the_border_by_more_than_a_pixel(void) {
    static const struct {
        const char *box;
        int n;
    } cases[] = {{"[-1,-1,42,32]", 0},     {"[0,0,40,30]", 0},       {"[-1.015625,0,9,9]", 1},
                 {"[0,-1.015625,9,9]", 1}, {"[0,0,41.015625,9]", 1}, {"[0,0,9,31.015625]", 1},
                 {"[0,0,41,31]", 0},       {"[40.5,0,1,9]", 0} /* outside */};
    for (size_t i = 0; i < GFLI_COUNT(cases); i++) {
        char json[400];
        snprintf(json, sizeof json,
                 "{\"images\":[{\"id\":1,\"width\":40,\"height\":30}],\"categories\":[{\"id\":1}],"
                 "\"annotations\":[{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":%s}]}",
                 cases[i].box);
        gfl_dataset *set = loaded(json, NULL);
        if (summary_of(set).n_partly_outside != cases[i].n) printf("%s\n", cases[i].box);
        CHECK(summary_of(set).n_partly_outside == cases[i].n);
        gfl_dataset_destroy(set);
    }
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Every way through: polygons, ids to number, a parent, empty classes, mistakes, two names. */
static gfl_status load_all_ways(gfl_context *c) {
    static const char json[] =
        "{\"images\":[{\"id\":\"1\"},{\"id\":2,\"width\":\"x\"}],\"categories\":["
        "{\"id\":0,\"name\":\"root\"},{\"id\":1,\"name\":\"a\",\"supercategory\":\"root\"},"
        "{\"id\":2,\"name\":\"a\"},{\"id\":3},{\"id\":4}],\"annotations\":[{\"image_id\":1,"
        "\"category_id\":1,\"segmentation\":[[1,2,3,4]]},{\"image_id\":1,\"category_id\":2,"
        "\"bbox\":[1,2,3,4]},{\"image_id\":1,\"category_id\":3,\"bbox\":[1,2,3,4]},"
        "{\"image_id\":9,\"category_id\":3,\"bbox\":[1,2,3,4]}]}";
    gfl_dataset *set = NULL;
    gfl_dataset_desc opts = collecting();
    opts.boxes_from_polygons = opts.drop_empty_classes = 1;
    gfl_status status = gfl_dataset_load_coco_memory(c, json, sizeof json - 1, &opts, &set);
    if (status == GFL_OK) CHECK(found.n == 3 && gfl_dataset_count_classes(set) == 3);
    gfl_dataset_destroy(set);
    return status;
}

static void no_allocation_may_fail_badly(void) {
    data_sweep(load_all_ways);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(mistakes_are_told_with_place_annotation_image_and_value),
                                      TEST(mistakes_of_images_and_categories_are_told_too),
                                      TEST(reading_goes_on_after_a_mistake),
                                      TEST(what_nobody_reads_may_be_anything),
                                      TEST(annotations_without_an_id_are_numbered_after_the_others),
                                      TEST(a_number_and_its_text_are_one_id),
                                      TEST(two_ids_that_differ_in_type_alone_are_refused),
                                      TEST(text_ids_that_are_numbers_give_classes_their_number),
                                      TEST(strays_are_left_out_unless_nothing_remains),
                                      TEST(polygons_give_boxes_on_request),
                                      TEST(what_is_no_polygon_gives_no_box),
                                      TEST(a_root_category_without_boxes_is_left_out),
                                      TEST(empty_classes_are_counted_and_left_out_on_request),
                                      TEST(two_classes_of_one_name_are_told_and_counted),
                                      TEST(boxes_reach_over_the_border_by_more_than_a_pixel),
                                      TEST(no_allocation_may_fail_badly),
                                      {0}};
    context = test_context(1);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
