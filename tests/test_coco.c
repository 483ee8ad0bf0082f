/* test_coco.c - COCO annotation files: what is read, what is counted, what is refused */
#include <locale.h>

#include "arrays.h"
#include "data.h"

#include "../src/data/dataset.h"

static gfl_context *context;

static gfl_status load(const char *json, gfl_dataset **out) {
    return gfl_dataset_load_coco_memory(context, json, strlen(json), NULL, out);
}

/* The annotations of a one-image, one-class file. */
static gfl_status load_boxes(const char *annotations, gfl_dataset **out) {
    static char json[4096];
    snprintf(json, sizeof json,
             "{\"images\":[{\"id\":1,\"file_name\":\"a.jpg\",\"width\":100,\"height\":50}],\n"
             "\"categories\":[{\"id\":1,\"name\":\"cat\"}],\n\"annotations\":[%s]}",
             annotations);
    return load(json, out);
}

#define BOX(id, box)                                                                               \
    "{\"id\":" id ",\"image_id\":1,\"category_id\":1,\"bbox\":" box ",\"area\":9,\"iscrowd\":0}"

static void a_file_is_read_as_it_stands(void) {
    gfl_dataset *set;
    gfl_image_info image;
    CHECK_OK(context,
             load("{\"info\":{\"x\":[1,{}]},\"images\":["
                  "{\"id\":7,\"file_name\":\"b/\\u00e4.jpg\",\"height\":480,\"width\":640},"
                  "{\"id\":3,\"width\":10,\"height\":20,\"file_name\":\"c.png\"}],"
                  "\"categories\":[{\"id\":9,\"name\":\"z\"},{\"name\":\"a\",\"id\":2}],"
                  "\"annotations\":["
                  "{\"id\":5,\"image_id\":3,\"category_id\":9,\"bbox\":[1,2.5,3,4],"
                  "\"area\":11.5,\"iscrowd\":0,\"segmentation\":[[1,2,3]]},"
                  "{\"id\":6,\"image_id\":7,\"category_id\":2,\"bbox\":[0,0,9,9],"
                  "\"iscrowd\":1,\"area\":81},"
                  "{\"id\":4,\"image_id\":3,\"category_id\":2,\"bbox\":[0,0,5,6],"
                  "\"area\":30,\"ignore\":1,\"iscrowd\":false}]}",
                  &set));
    CHECK(gfl_dataset_count_images(set) == 2 && gfl_dataset_count_classes(set) == 2);
    const gfl_class *classes = gfl_dataset_get_classes(set);
    CHECK(classes[0].id == 2 && !strcmp(classes[0].name, "a"));
    CHECK(classes[1].id == 9 && !strcmp(classes[1].name, "z"));
    CHECK_OK(context, gfl_dataset_get_image(set, 0, &image));
    CHECK(image.id.number == 7 && !image.id.text && image.width == 640 && image.height == 480);
    CHECK(!strcmp(image.file_name, "b/\xc3\xa4.jpg") && image.n_annotations == 1);
    CHECK(image.annotations[0].crowd == 1 && image.annotations[0].label == 0);
    CHECK_OK(context, gfl_dataset_get_image(set, 1, &image));
    CHECK(image.n_annotations == 2);
    const gfl_annotation *a = image.annotations;
    CHECK(a[0].id.number == 5 && a[0].x == 1 && a[0].y == 2.5 && a[0].w == 3 && a[0].h == 4);
    CHECK(a[0].area == 11.5 && a[0].label == 1 && a[0].image == 1 && !a[0].ignore);
    CHECK(a[1].id.number == 4 && a[1].ignore == 1 && a[1].label == 0);
    CHECK(a[0].use == GFL_ANNOTATION_TRAINED && a[1].use == GFL_ANNOTATION_IGNORED);
    CHECK(gfl_dataset_get_image(set, 2, &image) == GFL_E_ARG);
    CHECK(gfl_dataset_get_image(set, -1, &image) == GFL_E_ARG);
    gfl_dataset_destroy(set);
    gfl_dataset_destroy(NULL);
}

static void sections_may_come_in_any_order(void) {
    static const char *const sections[3] = {
        "\"images\":[{\"id\":1},{\"id\":2}]", "\"categories\":[{\"id\":4,\"name\":\"n\"}]",
        "\"annotations\":[{\"bbox\":[1,2,3,4],\"category_id\":4,\"id\":1,\"image_id\":2}]"};
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int i = 0; i < 6; i++) {
        char json[512];
        gfl_dataset *set;
        gfl_image_info image;
        snprintf(json, sizeof json, "{%s, %s ,%s}", sections[orders[i][0]], sections[orders[i][1]],
                 sections[orders[i][2]]);
        CHECK_OK(context, load(json, &set));
        CHECK_OK(context, gfl_dataset_get_image(set, 1, &image));
        CHECK(image.n_annotations == 1 && image.annotations[0].area == 12);
        CHECK(image.file_name[0] == 0 && image.width == 0);
        gfl_dataset_destroy(set);
    }
}

static void ids_may_be_large_or_texts(void) {
    gfl_dataset *set;
    gfl_image_info image;
    char text[GFLI_ID_TEXT];
    CHECK_OK(context, load("{\"images\":[{\"id\":9223372036854775807},{\"id\":\"x1\"},"
                           "{\"id\":9223372036854775806},{\"id\":-3.0}],"
                           "\"categories\":[{\"id\":\"dog\"},{\"id\":\"Cat\",\"name\":\"c\"},"
                           "{\"id\":10}],\"annotations\":["
                           "{\"id\":\"n\",\"image_id\":\"x1\",\"category_id\":\"dog\","
                           "\"bbox\":[0,0,2,2]},{\"id\":2,\"image_id\":9223372036854775806,"
                           "\"category_id\":10,\"bbox\":[0,0,2,2]}]}",
                           &set));
    const gfl_class *classes = gfl_dataset_get_classes(set);
    /* Numbers, then texts by their bytes; with a text among them ids are places. */
    CHECK(!strcmp(classes[0].name, "10") && !strcmp(classes[1].name, "c"));
    CHECK(!strcmp(classes[2].name, "\"dog\"") || !strcmp(classes[2].name, "dog"));
    CHECK(classes[0].id == 1 && classes[2].id == 3);
    CHECK(set->class_ids[0].number == 10 && !strcmp(set->class_ids[1].text, "Cat"));
    CHECK_OK(context, gfl_dataset_get_image(set, 1, &image));
    CHECK(!strcmp(image.id.text, "x1") && image.n_annotations == 1);
    CHECK(image.annotations[0].label == 2 && !strcmp(image.annotations[0].id.text, "n"));
    CHECK_OK(context, gfl_dataset_get_image(set, 2, &image));
    CHECK(image.id.number == INT64_MAX - 1 && image.n_annotations == 1);
    CHECK(!strcmp(gfli_id_text(image.id, text), "9223372036854775806"));
    gfl_dataset_destroy(set);
    CHECK_ERROR(context, load("{\"images\":[{\"id\":9223372036854775808}]}", &set), GFL_E_DATA,
                "its id is 9223372036854775808: a whole number of 64 bits or a text is wanted");
    CHECK_ERROR(context, load("{\"images\":[{\"id\":1.5}]}", &set), GFL_E_DATA, "its id is 1.5: a");
    CHECK_ERROR(context, load("{\"images\":[{\"id\":null}]}", &set), GFL_E_DATA,
                ":1:12: images[0]: it has no id");
}

static void many_ids_out_of_order_are_found(void) {
    enum { N = 1000 };
    char *json = (char *)malloc(N * 120), *p = json;
    p += sprintf(p, "{\"categories\":[{\"id\":1}],\"annotations\":[");
    for (int i = 0; i < N; i++)
        p += sprintf(p, "%s{\"id\":%d,\"image_id\":%d,\"category_id\":1,\"bbox\":[%d,0,1,1]}",
                     i ? "," : "", i + 1, i * 617 % N, i);
    p += sprintf(p, "],\"images\":[");
    for (int i = 0; i < N; i++) p += sprintf(p, "%s{\"id\":%d}", i ? "," : "", i * 389 % N);
    sprintf(p, "]}");
    gfl_dataset *set;
    CHECK_OK(context, load(json, &set));
    int wrong = 0;
    for (int i = 0; i < N; i++) {
        gfl_image_info image;
        CHECK_OK(context, gfl_dataset_get_image(set, i, &image));
        wrong += image.n_annotations != 1 ||
                 (int64_t)image.annotations[0].x * 617 % N != image.id.number;
    }
    CHECK(wrong == 0);
    gfl_dataset_destroy(set);
    free(json);
}

static void odd_things_are_counted(void) {
    gfl_dataset *set;
    gfl_dataset_summary s;
    CHECK_OK(
        context,
        load_boxes(
            BOX("1", "[0,0,3,3]") "," BOX("1", "[0,0,0.5,9]") "," BOX("0", "[200,0,9,9]") "," BOX(
                "2", "[95,0,9,9]") "," BOX("3",
                                           "[-5,0,-9,9]") ","
                                                          "{\"id\":4,\"image_id\":1,\"category_"
                                                          "id\":1,\"bbox\":[0,0,9,9]},"
                                                          "{\"id\":5,\"image_id\":1,\"category_"
                                                          "id\":1,\"bbox\":[0,0,9,9],"
                                                          "\"area\":0,\"iscrowd\":1}",
            &set));
    gfl_dataset_get_summary(set, &s);
    CHECK(s.n_images == 1 && s.n_classes == 1 && s.n_annotations == 7 && s.n_crowd == 1);
    CHECK(s.n_empty_images == 0 && s.n_missing_iscrowd == 1 && s.n_missing_area == 1);
    CHECK(s.n_degenerate == 3 && s.n_outside == 1 && s.n_partly_outside == 1);
    CHECK(s.n_duplicate_ids == 1 && s.n_zero_ids == 1 && s.n_strays == 0);
    static const gfl_annotation_use uses[7] = {GFL_ANNOTATION_TRAINED, GFL_ANNOTATION_SMALL,
                                               GFL_ANNOTATION_OUTSIDE, GFL_ANNOTATION_TRAINED,
                                               GFL_ANNOTATION_SMALL,   GFL_ANNOTATION_TRAINED,
                                               GFL_ANNOTATION_NO_AREA};
    for (int i = 0; i < 7; i++) CHECK(set->annotations[i].use == uses[i]);
    gfl_dataset_destroy(set);
    CHECK_OK(context, load_boxes("{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,9,9],"
                                 "\"iscrowd\":1,\"ignore\":1}",
                                 &set));
    CHECK(set->annotations[0].use == GFL_ANNOTATION_CROWD);
    gfl_dataset_destroy(set);
    CHECK_OK(context, load("{\"images\":[],\"categories\":[{\"id\":1}]}", &set));
    gfl_dataset_get_summary(set, &s);
    CHECK(s.n_images == 0 && s.n_annotations == 0 && s.n_classes == 1);
    gfl_dataset_destroy(set);
}

static void contradictions_are_refused_with_their_place(void) {
    gfl_dataset *set;
    CHECK_ERROR(context,
                load_boxes("{\"id\":12,\"image_id\":8,\"category_id\":1,"
                           "\"bbox\":[1,1,1,1]}",
                           &set),
                GFL_E_DATA, ":3:16: annotation 12 has image_id 8");
    CHECK(set == NULL);
    CHECK_ERROR(context,
                load_boxes("{\"id\":12,\"image_id\":1,\"category_id\":\"x\","
                           "\"bbox\":[1,1,1,1]}",
                           &set),
                GFL_E_DATA, "annotation 12 has category_id \"x\"");
    CHECK_ERROR(context, load("{\"images\":[{\"id\":5},{\"id\":5}]}", &set), GFL_E_DATA,
                "two images have the id 5");
    CHECK_ERROR(context, load("{\"images\":[],\"categories\":[{\"id\":5},{\"id\":5}]}", &set),
                GFL_E_DATA, "two categories have the id 5");
    CHECK_ERROR(context, load("{\"images\":[],\"categories\":[]}", &set), GFL_E_DATA,
                "\"categories\"");
    CHECK_ERROR(context, load("{\"annotations\":[],\"categories\":[]}", &set), GFL_E_DATA,
                "no \"images\"");
    CHECK_ERROR(context, load("[{\"image_id\":1}]", &set), GFL_E_DATA, "list");
    CHECK_ERROR(context, load("{\"images\":{}}", &set), GFL_E_DATA, "must be a list");
    CHECK_ERROR(context, load("{\"images\":[],\"images\":[]}", &set), GFL_E_DATA, "twice");
    CHECK_ERROR(context, load("{\"images\":[{\"file_name\":\"a\"}]}", &set), GFL_E_DATA, "no id");
    CHECK_ERROR(context, load("", &set), GFL_E_FORMAT, ":1:");
    CHECK_ERROR(context, load("{\"images\":[]} x", &set), GFL_E_FORMAT, ":1:");
}

static void what_is_no_box_is_refused_with_its_line(void) {
    static const char *const boxes[] = {"[1,2,3]",       "[1,2,3,4,5]",   "[1,2,3,\"4\"]",
                                        "[1,2,3,null]",  "null",          "\"1,2,3,4\"",
                                        "[1e300,2,3,4]", "[1,2,1e999,4]", "{\"x\":1}",
                                        "[[1,2,3,4]]",   "[NaN,2,3,4]",   "[1,2,Infinity,4]"};
    gfl_dataset *set;
    char text[256];
    for (size_t i = 0; i < GFLI_COUNT(boxes); i++) {
        snprintf(text, sizeof text, BOX("1", "%s"), boxes[i]);
        gfl_status status = load_boxes(text, &set);
        if (!strstr(gfl_context_get_error(context), ":3:"))
            printf("%s: %s\n", boxes[i], gfl_context_get_error(context));
        CHECK(status == GFL_E_DATA);
        CHECK(strstr(gfl_context_get_error(context), ":3:") != NULL && set == NULL);
    }
    CHECK_ERROR(context, load_boxes(BOX("1", "[1,2,-inf,4]"), &set), GFL_E_FORMAT,
                ":3:65: a value is expected, not \"-inf\"");
}

static void strays_are_left_out_on_request(void) {
    static const char json[] =
        "{\"images\":[{\"id\":1}],\"categories\":[{\"id\":1}],\"annotations\":["
        "{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":[1,1,1,1]},"
        "{\"id\":2,\"image_id\":2,\"category_id\":1,\"bbox\":[1,1,1,1]},"
        "{\"id\":3,\"image_id\":1,\"category_id\":2,\"bbox\":[1,1,1,1]}]}";
    gfl_dataset *set;
    gfl_dataset_desc opts;
    gfl_dataset_summary s;
    memset(&opts, 0, sizeof opts);
    opts.skip_strays = 1;
    CHECK_OK(context, gfl_dataset_load_coco_memory(context, json, sizeof json - 1, &opts, &set));
    gfl_dataset_get_summary(set, &s);
    CHECK(s.n_annotations == 1 && s.n_strays == 2 && set->images[0].n_annotations == 1);
    gfl_dataset_destroy(set);
}

static void a_cut_file_is_an_error_at_every_length(void) {
    static const char json[] =
        "{\"images\":[{\"id\":1,\"file_name\":\"a.jpg\",\"width\":100,\"height\":50}],"
        "\"categories\":[{\"id\":1,\"name\":\"cat\"}],\"annotations\":["
        "{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":[0,0,3,3],\"area\":9,\"iscrowd\":0}]}";
    for (size_t n = 0; n + 1 < sizeof json; n++) {
        gfl_dataset *set;
        CHECK(gfl_dataset_load_coco_memory(context, json, n, NULL, &set) == GFL_E_FORMAT);
        CHECK(set == NULL && gfl_context_get_error(context)[0]);
    }
}

static void numbers_do_not_depend_on_the_locale(void) {
    const char *old = setlocale(LC_NUMERIC, NULL);
    bool comma = setlocale(LC_NUMERIC, "de_DE.UTF-8") || setlocale(LC_NUMERIC, "de_DE.utf8") ||
                 setlocale(LC_NUMERIC, "fr_FR.UTF-8");
    gfl_dataset *set;
    if (!comma) printf("no locale with a decimal comma here\n");
    CHECK_OK(context, load_boxes(BOX("1", "[0.25,1.5,3.75e1,7.125]"), &set));
    const gfl_annotation *a = set->annotations;
    CHECK(a->x == 0.25 && a->y == 1.5 && a->w == 37.5 && a->h == 7.125);
    gfl_dataset_destroy(set);
    setlocale(LC_NUMERIC, old ? old : "C");
}

/* ---- pixels ---------------------------------------------------------------------------------- */

static gfl_status paint(void *user, gfl_context *c, int image, gfl_pixels *out) {
    if (*(int *)user == 1) return GFL_E_IO;
    if (*(int *)user == 2) return GFL_OK;
    GFLI_TRY(gfl_pixels_alloc(c, 2, 3, out));
    memset(out->rgb, image, 18);
    return GFL_OK;
}

static void pixels_come_from_files_or_the_caller(void) {
    gfl_dataset *set;
    gfl_dataset_desc opts;
    gfl_pixels p;
    int mode = 0;
    memset(&opts, 0, sizeof opts);
    static const char json[] = "{\"images\":[{\"id\":1,\"file_name\":\"rgb.png\"},{\"id\":2},"
                               "{\"id\":3,\"file_name\":\"no.png\"}],\"categories\":[{\"id\":1}]}";
    opts.image_dir = data_path("images");
    CHECK_OK(context, gfl_dataset_load_coco_memory(context, json, sizeof json - 1, &opts, &set));
    CHECK_OK(context, gfl_dataset_read(context, set, 0, &p));
    CHECK(p.width == 40 && p.height == 28);
    gfl_pixels_free(context, &p);
    CHECK_ERROR(context, gfl_dataset_read(context, set, 1, &p), GFL_E_DATA, "image 2");
    CHECK_ERROR(context, gfl_dataset_read(context, set, 2, &p), GFL_E_IO, "images/no.png");
    CHECK_ERROR(context, gfl_dataset_read(context, set, 3, &p), GFL_E_ARG, "no image 3");
    gfl_dataset_destroy(set);
    opts.read_image = paint;
    opts.user = &mode;
    CHECK_OK(context, gfl_dataset_load_coco_memory(context, json, sizeof json - 1, &opts, &set));
    CHECK_OK(context, gfl_dataset_read(context, set, 2, &p));
    CHECK(p.width == 2 && p.height == 3 && p.rgb[17] == 2);
    gfl_pixels_free(context, &p);
    mode = 1;
    CHECK_ERROR(context, gfl_dataset_read(context, set, 0, &p), GFL_E_IO, "image 1");
    mode = 2;
    CHECK_ERROR(context, gfl_dataset_read(context, set, 0, &p), GFL_E_ARG, "image 1");
    gfl_dataset_destroy(set);
}

/* ---- arrays ---------------------------------------------------------------------------------- */

static bool same_id(gfl_id a, gfl_id b) {
    return a.number == b.number && !a.text == !b.text && (!a.text || !strcmp(a.text, b.text));
}

static void check_same_set(const gfl_dataset *a, const gfl_dataset *b) {
    CHECK(!memcmp(&a->summary, &b->summary, sizeof a->summary));
    CHECK(a->n_images == b->n_images && a->n_annotations == b->n_annotations);
    CHECK(a->n_classes == b->n_classes);
    for (int k = 0; k < a->n_classes; k++)
        CHECK(a->classes[k].id == b->classes[k].id &&
              !strcmp(a->classes[k].name, b->classes[k].name));
    for (int i = 0; i < a->n_images; i++) {
        const gfl_image_info *x = &a->images[i], *y = &b->images[i];
        CHECK(same_id(x->id, y->id) && !strcmp(x->file_name, y->file_name));
        CHECK(x->width == y->width && x->height == y->height);
        CHECK(x->n_annotations == y->n_annotations);
        for (int k = 0; k < x->n_annotations; k++) {
            gfl_annotation p = x->annotations[k], q = y->annotations[k];
            CHECK(same_id(p.id, q.id) && p.image == q.image && p.label == q.label);
            CHECK(p.x == q.x && p.y == q.y && p.w == q.w && p.h == q.h && p.area == q.area);
            CHECK(p.crowd == q.crowd && p.ignore == q.ignore && p.use == q.use);
        }
    }
}

static void arrays_give_what_a_file_gives(void) {
    static const char json[] =
        "{\"images\":[{\"id\":\"b\",\"file_name\":\"x/\\u00e4.jpg\",\"height\":480,\"width\":640},"
        "{\"id\":3,\"width\":10,\"height\":20,\"file_name\":\"c.png\"},{\"id\":9,\"file_name\":"
        "\"d\"}],"
        "\"categories\":[{\"id\":2,\"name\":\"z\"},{\"id\":9,\"name\":\"a\"},{\"id\":11,\"name\":"
        "\"a\"}],"
        "\"annotations\":[{\"id\":\"p\",\"image_id\":3,\"category_id\":9,\"bbox\":[1,2.5,3,4],"
        "\"area\":11.5,"
        "\"iscrowd\":0},{\"id\":6,\"image_id\":\"b\",\"category_id\":2,\"bbox\":[0,0,9,9],"
        "\"iscrowd\":1,"
        "\"area\":81},{\"id\":6,\"image_id\":3,\"category_id\":2,\"bbox\":[-5,0,6.5,6],\"area\":-3,"
        "\"ignore\":1,\"iscrowd\":0}]}";
    gfl_dataset *set, *copy;
    CHECK_OK(context, load(json, &set));
    CHECK_OK(context, arrays_copy(context, set, NULL, &copy));
    CHECK(set->summary.n_duplicate_names == 1 && set->summary.n_duplicate_ids == 1);
    check_same_set(set, copy);
    gfl_dataset_destroy(set);
    gfl_dataset_destroy(copy);
}

static void arrays_that_say_little_are_completed(void) {
    static const gfl_class classes[3] = {{"cat", 0}, {"dog", 0}, {"emu", 0}};
    gfl_annotation boxes[3];
    gfl_image_info images[2];
    gfl_dataset_desc desc;
    gfl_dataset *set;
    gfl_pixels pixels;
    int mode = 0;
    memset(boxes, 0, sizeof boxes);
    memset(images, 0, sizeof images);
    memset(&desc, 0, sizeof desc);
    for (int i = 0; i < 3; i++) boxes[i].w = boxes[i].h = i + 2;
    boxes[1].label = 2;
    boxes[2].id.number = 7;
    boxes[0].crowd = boxes[2].crowd = INT_MAX; /* any number but 0 is yes */
    boxes[0].ignore = 5;
    images[1].annotations = boxes;
    images[1].n_annotations = 3;
    desc.read_image = paint;
    desc.user = &mode;
    CHECK_OK(context, gfl_dataset_create(context, classes, 3, images, 2, &desc, &set));
    const gfl_annotation *a = set->images[1].annotations;
    CHECK(set->classes[2].id == 3 && set->images[1].id.number == 2);
    CHECK(a[0].id.number == 8 && a[1].id.number == 9 && a[2].id.number == 7);
    CHECK(a[0].crowd == 1 && a[0].ignore == 1 && a[1].crowd == 0 && set->summary.n_crowd == 2);
    CHECK(a[1].area == 9 && a[1].label == 2 && a[2].image == 1 && !set->images[0].file_name[0]);
    CHECK_OK(context, gfl_dataset_read(context, set, 1, &pixels));
    CHECK(pixels.rgb[0] == 1);
    gfl_pixels_free(context, &pixels);
    gfl_dataset_destroy(set);
    desc.drop_empty_classes = 1;
    CHECK_OK(context, gfl_dataset_create(context, classes, 3, images, 2, &desc, &set));
    CHECK(set->n_classes == 2 && set->images[1].annotations[1].label == 1);
    gfl_dataset_destroy(set);
}

static int count_mistake(void *user, const char *text) {
    ++*(int *)user;
    return strstr(text, "image 1: annotations[") == NULL;
}

static void refuse_arrays(const gfl_class *classes, const gfl_image_info *images, gfl_status status,
                          const char *text) {
    gfl_dataset *set;
    CHECK_ERROR(context, gfl_dataset_create(context, classes, 2, images, 2, NULL, &set), status,
                text);
    CHECK(set == NULL);
}

/* A file may say 0 of its only class and image; that is not "no id". */
static void one_id_of_0_is_0(void) {
    gfl_class classes[2] = {{"cat", 0}, {"dog", 0}};
    gfl_image_info images[2], got;
    gfl_dataset *set;
    memset(images, 0, sizeof images);
    for (int n = 1; n <= 2; n++) {
        CHECK_OK(context, gfl_dataset_create(context, classes, n, images, n, NULL, &set));
        CHECK(gfl_dataset_get_classes(set)[0].id == n - 1);
        CHECK_OK(context, gfl_dataset_get_image(set, 0, &got));
        CHECK(got.id.number == n - 1);
        gfl_dataset_destroy(set);
    }
}

static void what_is_wrong_in_arrays_is_refused_by_its_place(void) {
    gfl_class classes[2] = {{"cat", 4}, {"dog", 5}};
    gfl_annotation boxes[2];
    gfl_image_info images[2];
    gfl_dataset_desc desc;
    gfl_dataset *set;
    int mistakes = 0;
    memset(boxes, 0, sizeof boxes);
    memset(images, 0, sizeof images);
    memset(&desc, 0, sizeof desc);
    boxes[0].w = boxes[0].h = boxes[1].w = boxes[1].h = 5;
    images[0].annotations = boxes;
    images[0].n_annotations = 2;
    boxes[1].y = NAN,
    refuse_arrays(classes, images, GFL_E_DATA, "image 1: annotations[1] has the box 0, nan, 5, 5");
    boxes[1].y = 1e12, refuse_arrays(classes, images, GFL_E_DATA, "annotations[1]");
    boxes[1].y = 0, boxes[0].area = INFINITY,
    refuse_arrays(classes, images, GFL_E_DATA, "the area inf");
    desc.found = count_mistake;
    desc.found_user = &mistakes;
    boxes[1].label = 2;
    CHECK_OK(context, gfl_dataset_create(context, classes, 2, images, 2, &desc, &set));
    CHECK(mistakes == 2 && set->n_annotations == 0 && set->summary.n_mistakes == 2);
    gfl_dataset_destroy(set);
    boxes[0].area = 0,
    refuse_arrays(classes, images, GFL_E_DATA, "has the label 2; there are the labels 0..1");
    boxes[1].label = -1, refuse_arrays(classes, images, GFL_E_DATA, "has the label -1");
    boxes[1].label = 0, images[0].id.number = images[1].id.number = 3;
    refuse_arrays(classes, images, GFL_E_DATA, "two images have the id 3");
    images[1].id.number = 4, images[1].n_annotations = 1,
    refuse_arrays(classes, images, GFL_E_ARG, "at NULL");
    images[1].n_annotations = 0, images[1].width = -1,
    refuse_arrays(classes, images, GFL_E_ARG, "images[1] is -1 x 0");
    images[1].width = 0, classes[1].id = 4,
    refuse_arrays(classes, images, GFL_E_ARG, "classes[1] has the id 4");
    classes[1].id = 5, classes[0].name = NULL,
    refuse_arrays(classes, images, GFL_E_ARG, "classes[0] has no name");
    classes[0].name = "c\xff", refuse_arrays(classes, images, GFL_E_ARG, "classes[0] is not UTF-8");
    classes[0].name = "cat", images[1].id.text = "\xff",
    refuse_arrays(classes, images, GFL_E_ARG, "images[1]: an id is not UTF-8");
    images[1].id.text = NULL, boxes[1].id.text = "a\xff",
    refuse_arrays(classes, images, GFL_E_ARG, "images[0]: an id is not UTF-8");
    CHECK_ERROR(context, gfl_dataset_create(context, classes, 0, images, 2, NULL, &set), GFL_E_ARG,
                "0 classes");
    CHECK_ERROR(context, gfl_dataset_create(context, classes, 2, NULL, 2, NULL, &set), GFL_E_ARG,
                "2 images at NULL");
    classes[0].name = "cat";
    CHECK_OK(context, gfl_dataset_create(context, classes, 2, NULL, 0, NULL, &set));
    gfl_dataset_destroy(set);
}

static gfl_status load_and_read(gfl_context *c) {
    static const char json[] =
        "{\"images\":[{\"id\":\"a\",\"file_name\":\"rgb.jpg\"}],\"categories\":[{\"id\":2},"
        "{\"id\":1}],\"annotations\":[{\"id\":1,\"image_id\":\"a\",\"category_id\":1,"
        "\"bbox\":[0,0,3,3]}]}";
    gfl_dataset *set;
    gfl_dataset_desc opts;
    gfl_pixels p;
    memset(&opts, 0, sizeof opts);
    opts.image_dir = data_path("images");
    GFLI_TRY(gfl_dataset_load_coco_memory(c, json, sizeof json - 1, &opts, &set));
    gfl_dataset *copy = NULL;
    gfl_status status = gfl_dataset_read(c, set, 0, &p);
    gfl_pixels_free(c, &p);
    if (status == GFL_OK) status = arrays_copy(c, set, &opts, &copy);
    gfl_dataset_destroy(set);
    gfl_dataset_destroy(copy);
    return status;
}

static void no_allocation_may_fail_badly(void) {
    data_sweep(load_and_read);
}

/* ---- the shared data sets -------------------------------------------------------------------- */

static void the_shared_data_sets_have_the_counts_of_their_readme(void) {
    static const struct {
        const char *name;
        int images, boxes, classes;
    } sets[] = {{"bccd/annotations/instances_train", 205, 2805, 3},
                {"bccd/annotations/instances_val", 87, 1138, 3},
                {"bccd/annotations/instances_test", 72, 945, 3},
                {"hardhat/annotations/instances_train", 700, 1914, 1},
                {"hardhat/annotations/instances_val", 200, 541, 1},
                {"coco_mini/annotations/instances_train", 92, 829, 80},
                {"coco_mini/annotations/instances_val", 66, 560, 80}};
    for (size_t i = 0; i < GFLI_COUNT(sets); i++) {
        char name[256];
        gfl_dataset *set;
        gfl_dataset_summary s;
        snprintf(name, sizeof name, "data/%s.json", sets[i].name);
        const char *path = data_shared(name);
        if (!data_exists(path)) {
            printf("skipped: no %s\n", path);
            test_skips++;
            return;
        }
        CHECK_OK(context, gfl_dataset_load_coco(context, path, NULL, &set));
        gfl_dataset_get_summary(set, &s);
        printf("%s: %d images (%d empty), %d annotations, %d crowd, %d degenerate, %d outside\n",
               sets[i].name, s.n_images, s.n_empty_images, s.n_annotations, s.n_crowd,
               s.n_degenerate, s.n_outside);
        CHECK(s.n_images == sets[i].images && s.n_annotations == sets[i].boxes);
        CHECK(s.n_classes == sets[i].classes && s.n_duplicate_ids == 0 && s.n_strays == 0);
        CHECK(s.n_missing_area == 0 && s.n_missing_iscrowd == 0);
        gfl_dataset_destroy(set);
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(a_file_is_read_as_it_stands),
                                      TEST(sections_may_come_in_any_order),
                                      TEST(ids_may_be_large_or_texts),
                                      TEST(many_ids_out_of_order_are_found),
                                      TEST(odd_things_are_counted),
                                      TEST(contradictions_are_refused_with_their_place),
                                      TEST(what_is_no_box_is_refused_with_its_line),
                                      TEST(strays_are_left_out_on_request),
                                      TEST(a_cut_file_is_an_error_at_every_length),
                                      TEST(numbers_do_not_depend_on_the_locale),
                                      TEST(pixels_come_from_files_or_the_caller),
                                      TEST(arrays_give_what_a_file_gives),
                                      TEST(arrays_that_say_little_are_completed),
                                      TEST(one_id_of_0_is_0),
                                      TEST(what_is_wrong_in_arrays_is_refused_by_its_place),
                                      TEST(no_allocation_may_fail_badly),
                                      TEST(the_shared_data_sets_have_the_counts_of_their_readme),
                                      {0}};
    context = test_context(1);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
