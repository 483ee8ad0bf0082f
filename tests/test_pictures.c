/* test_pictures.c - the pictures of a data set: what is checked when they are read */
#include "data.h"

static gfl_context *context;

/* tests/data/images/rgb.jpg has 40 x 28 pixels, exif6.jpg 28 x 40 when shown upright. */
static gfl_status load(const char *file_name, int width, int height, int trust_boxes,
                       gfl_dataset **out) {
    char json[512];
    gfl_dataset_opts opts;
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
    if (strstr(gfl_context_error(context), text)) return true;
    printf("\"%s\" is not in: %s\n", text, gfl_context_error(context));
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
    CHECK(says("copy of another size") && !strstr(gfl_context_error(context), "EXIF"));
}

static void exchanged_width_and_height_are_called_so_and_exif_only_where_it_is(void) {
    CHECK(read_as("images/rgb.jpg", 28, 40, 0) == GFL_E_DATA);
    CHECK(says("width and height are exchanged") && !strstr(gfl_context_error(context), "EXIF"));
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
    gfl_dataset_opts opts;
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
    snprintf(before, sizeof before, "%s", gfl_context_error(context));
    CHECK(gfl_dataset_get_image(set, 1, &info) == GFL_E_ARG);
    CHECK(gfl_dataset_get_image(set, -1, &info) == GFL_E_ARG);
    CHECK(strcmp(before, gfl_context_error(context)) == 0);
    gfl_dataset_destroy(set);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(a_picture_of_the_annotated_size_or_of_an_unknown_one_is_read),
        TEST(another_size_is_an_error_that_says_both),
        TEST(exchanged_width_and_height_are_called_so_and_exif_only_where_it_is),
        TEST(trusted_boxes_are_not_compared),
        TEST(a_hosts_own_pixels_are_checked_too),
        TEST(asking_for_an_image_leaves_the_contexts_text_alone),
        {0}};
    context = test_context(1);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
