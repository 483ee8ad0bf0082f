/* test_pictures.c - the pictures of a data set: what is checked when they are read */
#include "data.h"

static gfl_context *context;

/* tests/data/images/rgb.jpg has 40 x 28 pixels, exif6.jpg 28 x 40 when shown upright. */
static gfl_status load(const char *file_name, int width, int height, int trust_boxes,
                       gfl_dataset **out) {
    char json[512];
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.image_dir = data_path("");
    opts.trust_boxes = trust_boxes;
    snprintf(json, sizeof json,
             "{\"images\":[{\"id\":5,\"file_name\":\"%s\",\"width\":%d,\"height\":%d}],"
             "\"categories\":[{\"id\":1,\"name\":\"a\"}],\"annotations\":[]}",
             file_name, width, height);
    return gfl_dataset_load_coco_memory(context, json, strlen(json), &opts, out);
}

/* What reading the only picture answers; its text stays in the context. */
static gfl_status read_as(const char *file_name, int width, int height, int trust_boxes) {
    gfl_dataset *set;
    gfl_pixels p;
    CHECK_OK(context, load(file_name, width, height, trust_boxes, &set));
    gfl_status status = gfl_dataset_read(context, set, 0, &p);
    CHECK((status == GFL_OK) == (p.rgb != NULL));
    gfl_pixels_free(context, &p);
    gfl_dataset_destroy(set);
    return status;
}

static bool says(const char *text) {
    if (strstr(gfl_context_get_error(context), text)) return true;
    printf("\"%s\" is not in: %s\n", text, gfl_context_get_error(context));
    return false;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static void a_picture_of_the_annotated_size_or_of_an_unknown_one_is_read(void) {
    CHECK_OK(context, read_as("images/rgb.jpg", 40, 28, 0));
    CHECK_OK(context, read_as("images/rgb.jpg", 0, 0, 0));
    CHECK_OK(context, read_as("fuzz_image/exif6.jpg", 28, 40, 0));
}

static void another_size_is_an_error_that_says_both(void) {
    CHECK(read_as("images/rgb.jpg", 20, 14, 0) == GFL_E_DATA);
    CHECK(says("image 5, images/rgb.jpg") && says("40 x 28") && says("20 x 14"));
    CHECK(says("copy of another size") && !strstr(gfl_context_get_error(context), "EXIF"));
}

static void exchanged_width_and_height_are_called_so_and_exif_only_where_it_is(void) {
    CHECK(read_as("images/rgb.jpg", 28, 40, 0) == GFL_E_DATA);
    CHECK(says("width and height are exchanged") &&
          !strstr(gfl_context_get_error(context), "EXIF"));
    CHECK(read_as("fuzz_image/exif6.jpg", 40, 28, 0) == GFL_E_DATA);
    CHECK(says("28 x 40 pixels when shown upright") && says("without its EXIF rotation"));
}

static void trusted_boxes_are_not_compared(void) {
    CHECK_OK(context, read_as("images/rgb.jpg", 20, 14, 1));
    CHECK_OK(context, read_as("images/rgb.jpg", 28, 40, 1));
}

static gfl_status paint(void *user, gfl_context *c, int image, gfl_pixels *out) {
    (void)user;
    (void)image;
    return gfl_pixels_alloc(c, 7, 5, out);
}

static void a_hosts_own_pixels_are_checked_too(void) {
    static const char json[] =
        "{\"images\":[{\"id\":1,\"file_name\":\"x\",\"width\":5,"
        "\"height\":7}],\"categories\":[{\"id\":1,\"name\":\"a\"}],\"annotations\":[]}";
    gfl_dataset *set;
    gfl_dataset_desc opts;
    gfl_pixels p;
    memset(&opts, 0, sizeof opts);
    opts.read_image = paint;
    CHECK_OK(context, gfl_dataset_load_coco_memory(context, json, sizeof json - 1, &opts, &set));
    CHECK_ERROR(context, gfl_dataset_read(context, set, 0, &p), GFL_E_DATA, "exchanged");
    CHECK(p.rgb == NULL);
    gfl_dataset_destroy(set);
}

static void asking_for_an_image_leaves_the_contexts_text_alone(void) {
    gfl_dataset *set;
    gfl_image_info info;
    char before[1024];
    CHECK(read_as("images/rgb.jpg", 20, 14, 0) == GFL_E_DATA);
    CHECK_OK(context, load("images/rgb.jpg", 40, 28, 0, &set));
    snprintf(before, sizeof before, "%s", gfl_context_get_error(context));
    CHECK(gfl_dataset_get_image(set, 1, &info) == GFL_E_ARG);
    CHECK(gfl_dataset_get_image(set, -1, &info) == GFL_E_ARG);
    CHECK(strcmp(before, gfl_context_get_error(context)) == 0);
    gfl_dataset_destroy(set);
}

/* ---- names that are not there ---------------------------------------------------------------- */

static void an_absent_file_is_named_as_it_exists(void) {
    CHECK(read_as("images\\\\rgb.jpg", 40, 28, 0) == GFL_E_IO);
    CHECK(says("there is a file \"images/rgb.jpg\""));
    CHECK(read_as("images%2frgb.jpg", 40, 28, 0) == GFL_E_IO);
    CHECK(says("there is a file \"images/rgb.jpg\""));
    CHECK(read_as("C:\\\\data\\\\pngsuite%2Etxt", 40, 28, 0) == GFL_E_IO);
    CHECK(says("there is a file \"pngsuite.txt\""));
    CHECK(read_as("images/absent.jpg", 40, 28, 0) == GFL_E_IO);
    CHECK(!strstr(gfl_context_get_error(context), "there is a file"));
}

/* ---- a look at every file -------------------------------------------------------------------- */

/* Three that can be read, and one of each kind that cannot. */
static gfl_status load_mixed(gfl_context *c, int skip, gfl_dataset **out) {
    static const char json[] =
        "{\"images\":[{\"id\":1,\"file_name\":\"images/rgb.jpg\",\"width\":40,\"height\":28},"
        "{\"id\":2,\"file_name\":\"images/absent.jpg\"},"
        "{\"id\":3,\"file_name\":\"images/rgb.png\",\"width\":20,\"height\":14},"
        "{\"id\":4,\"file_name\":\"fuzz_image/exif6.jpg\"},"
        "{\"id\":5,\"file_name\":\"images/cmyk.jpg\"},"
        "{\"id\":6,\"file_name\":\"pngsuite.txt\"},"
        "{\"id\":7,\"file_name\":\"images/rgb.bmp\"}],"
        "\"categories\":[{\"id\":1,\"name\":\"a\"}],\"annotations\":["
        "{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":[1,1,9,9]},"
        "{\"id\":2,\"image_id\":2,\"category_id\":1,\"bbox\":[1,1,9,9]}]}";
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.image_dir = data_path("");
    opts.skip_unreadable = skip;
    return gfl_dataset_load_coco_memory(c, json, sizeof json - 1, &opts, out);
}

typedef struct log_of_check {
    int images[8], n, done;
    gfl_status statuses[8];
} log_of_check;

static void note(void *user, int image, gfl_status status, const char *text) {
    log_of_check *l = (log_of_check *)user;
    CHECK(l->n < 8 && text[0]);
    l->images[l->n] = image;
    l->statuses[l->n++] = status;
}

static int note_progress(void *user, int done, int total) {
    ((log_of_check *)user)->done = done;
    CHECK(total == 7);
    return 0;
}

static int stop(void *user, int done, int total) {
    (void)user;
    (void)done;
    (void)total;
    return 1;
}

static void a_check_finds_what_reading_would_refuse(void) {
    static const int bad[] = {1, 2, 4, 5};
    for (int threads = 1; threads <= 3; threads++) {
        gfl_context *c = test_context(threads);
        gfl_dataset *set;
        log_of_check l;
        gfl_dataset_check_opts opts = {note, note_progress, &l};
        gfl_image_info info;
        int n = -1;
        memset(&l, 0, sizeof l);
        CHECK_OK(c, load_mixed(c, 0, &set));
        CHECK_ERROR(c, gfl_dataset_check(c, set, &opts, &n), GFL_E_DATA, "4 of 7 images");
        CHECK(strstr(gfl_context_get_error(c), "absent.jpg") && n == 4 && l.n == 4 && l.done == 7);
        CHECK(l.statuses[0] == GFL_E_IO && l.statuses[1] == GFL_E_DATA);
        CHECK(l.statuses[2] == GFL_E_UNSUPPORTED && l.statuses[3] == GFL_E_FORMAT);
        for (int i = 0; i < 4; i++) CHECK(l.images[i] == bad[i]);
        for (int i = 0; i < 7; i++) { /* the same answer as reading */
            gfl_pixels p;
            bool known = i == 1 || i == 2 || i == 4 || i == 5;
            CHECK((gfl_dataset_read(c, set, i, &p) != GFL_OK) == known);
            gfl_pixels_free(c, &p);
            CHECK_OK(c, gfl_dataset_get_image(set, i, &info));
            CHECK(!info.unreadable);
        }
        gfl_dataset_destroy(set);
        gfl_context_destroy(c);
    }
}

static void marked_images_are_left_out_of_evaluation(void) {
    gfl_dataset *set;
    gfl_evaluator *e;
    gfl_eval_result r;
    gfl_image_info info;
    gfl_detection d;
    int n = 0;
    CHECK_OK(context, load_mixed(context, 1, &set));
    CHECK_OK(context, gfl_dataset_check(context, set, NULL, &n));
    CHECK(n == 4);
    CHECK_OK(context, gfl_dataset_get_image(set, 5, &info));
    CHECK(info.unreadable);
    CHECK_OK(context, gfl_evaluator_create(context, set, NULL, &e));
    memset(&d, 0, sizeof d);
    d.x1 = d.y1 = 1;
    d.x2 = d.y2 = 10;
    d.score = 0.5f;
    CHECK_OK(context, gfl_evaluator_add_detections(e, 0, &d, 1));
    CHECK_OK(context, gfl_evaluator_add_detections(e, 6, &d, 1));
    CHECK_OK(context, gfl_evaluator_run(e, &r));
    CHECK(r.ap > 0.99);
    CHECK_OK(context, gfl_evaluator_leave_out(e, 0)); /* the only one with something to find */
    CHECK_OK(context, gfl_evaluator_run(e, &r));
    CHECK(r.ap == -1);
    CHECK_ERROR(context, gfl_evaluator_leave_out(e, 7), GFL_E_ARG, "no image 7");
    gfl_evaluator_destroy(e);
    gfl_dataset_destroy(set);
}

static void a_check_can_be_stopped(void) {
    gfl_dataset *set;
    gfl_dataset_check_opts opts = {NULL, stop, NULL};
    CHECK_OK(context, load_mixed(context, 1, &set));
    CHECK(gfl_dataset_check(context, set, &opts, NULL) == GFL_E_STOPPED);
    gfl_dataset_destroy(set);
}

static gfl_status load_and_check(gfl_context *c) {
    gfl_dataset *set;
    GFLI_TRY(load_mixed(c, 1, &set));
    int n = 0;
    gfl_status status = gfl_dataset_check(c, set, NULL, &n);
    CHECK(status != GFL_OK || n == 4);
    gfl_dataset_destroy(set);
    return status;
}

static void lack_of_memory_is_not_a_finding(void) {
    data_sweep(load_and_check);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(a_picture_of_the_annotated_size_or_of_an_unknown_one_is_read),
        TEST(another_size_is_an_error_that_says_both),
        TEST(exchanged_width_and_height_are_called_so_and_exif_only_where_it_is),
        TEST(trusted_boxes_are_not_compared),
        TEST(a_hosts_own_pixels_are_checked_too),
        TEST(asking_for_an_image_leaves_the_contexts_text_alone),
        TEST(an_absent_file_is_named_as_it_exists),
        TEST(a_check_finds_what_reading_would_refuse),
        TEST(marked_images_are_left_out_of_evaluation),
        TEST(a_check_can_be_stopped),
        TEST(lack_of_memory_is_not_a_finding),
        {0}};
    context = test_context(1);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
