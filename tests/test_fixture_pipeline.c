/* test_fixture_pipeline.c - file to network input, as MMDetection does it: bit for bit from PNGs */
#include "data.h"
#include "fixture.h"
#include "ops.h"

#include "../src/data/dataset.h"

#include "../src/train/loader.h"

static int n_exact, n_files, n_boxes;

/* ---- pixels ---------------------------------------------------------------------------------- */

static bool has_shape(const fx_json *j, const char *key, int h, int w) {
    const fx_json *a = fx_get(j, key);
    return a && a->n == 2 && (int)a->items[0].number == h && (int)a->items[1].number == w;
}

/* SHA-256 and channel sums of u8 [h][w][3]; from another decoder's pixels only the sums, nearly. */
static void check_bytes(const fx_json *want, const uint8_t *rgb, int w, int h, bool exact) {
    char hash[65];
    double sums[3] = {0, 0, 0};
    size_t n = (size_t)w * (size_t)h;
    const fx_json *expected = fx_get(want, "channel_sums");
    for (size_t i = 0; i < 3 * n; i++) sums[i % 3] += rgb[i];
    CHECK(expected && expected->n == 3);
    for (int c = 0; c < 3 && expected && expected->n == 3; c++)
        CHECK_NEAR(sums[c], expected->items[c].number, exact ? 0 : 0.2 * (double)n);
    if (!exact) return;
    data_sha256(rgb, 3 * n, hash);
    CHECK(strcmp(hash, fx_string(want, "sha256")) == 0);
}

/* A stored window of a float input (3, size, size) at (y, x). */
static void check_window(fx_case *one, const char *prefix, const char *name, const fx_json *at,
                         const gfli_map *map, bool exact) {
    char full[64];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    fx_tensor t = fx_load(one, full);
    CHECK(at && at->n == 2 && t.rank == 3 && t.shape[0] == 3);
    if (!at || at->n != 2) return;
    int size_y = (int)t.shape[1], size_x = (int)t.shape[2], wrong = 0;
    double sum = 0;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < size_y; y++)
            for (int x = 0; x < size_x; x++) {
                int row = (int)at->items[0].number + y, column = (int)at->items[1].number + x;
                size_t i = ((size_t)row * (size_t)map->w[0] + (size_t)column) * 3 + (size_t)c;
                double d = fabs((double)map->data[i] - t.data[(c * size_y + y) * size_x + x]);
                wrong += d != 0;
                sum += d;
            }
    CHECK(exact ? wrong == 0 : sum / (double)t.count < 0.03);
    n_exact += exact;
    free(t.data);
}

static void check_resized_crop(fx_case *one, const char *prefix, const fx_json *at,
                               const uint8_t *rgb, int w, bool exact) {
    char full[64];
    snprintf(full, sizeof full, "%s.resized_crop", prefix);
    fx_tensor t = fx_load(one, full);
    int worst = 0;
    for (int y = 0; at && at->n == 2 && y < (int)t.shape[0]; y++)
        for (int i = 0; i < 3 * (int)t.shape[1]; i++) {
            size_t row = (size_t)at->items[0].number + (size_t)y;
            size_t from = (row * (size_t)w + (size_t)at->items[1].number) * 3 + (size_t)i;
            int d = abs((int)rgb[from] - (int)t.data[y * 3 * (int)t.shape[1] + i]);
            worst = gfli_max(worst, d);
        }
    CHECK(worst <= (exact ? 0 : 12));
    free(t.data);
}

static void check_input(fx_case *one, const char *prefix, const fx_json *run, const uint8_t *rgb,
                        int w, int h, bool exact) {
    gfli_map map;
    float mean[3], std[3];
    memset(&map, 0, sizeof map);
    map.n = map.levels = 1;
    map.c = 3;
    map.h[0] = gfli_pad32(h);
    map.w[0] = gfli_pad32(w);
    CHECK(has_shape(run, "pad_shape", map.h[0], map.w[0]));
    for (int c = 0; c < 3; c++) {
        mean[c] = (float)fx_at(fx_get(&one->json, "mean"), c)->number;
        std[c] = (float)fx_at(fx_get(&one->json, "std"), c)->number;
    }
    size_t n = gfli_map_count(&map);
    map.data = (float *)malloc(n * sizeof *map.data);
    memset(map.data, 0x7F, n * sizeof *map.data);
    host_normalise(one->context, rgb, w, h, mean, std, false, &map, 0);
    check_window(one, prefix, "crop", fx_get(run, "crop_at"), &map, exact);
    check_window(one, prefix, "corner", fx_get(run, "corner_at"), &map, exact);
    for (int c = 0; c < 3; c++) {
        double sum = 0, want = fx_at(fx_get(run, "input_sum"), c)->number;
        for (size_t i = (size_t)c; i < n; i += 3) sum += (double)map.data[i];
        CHECK_NEAR(sum, want, exact ? 1e-6 * fabs(want) : 1e-3 * (double)n);
    }
    free(map.data);
}

static void check_run(fx_case *one, const char *prefix, const fx_json *run, const char *path,
                      bool exact) {
    gfl_context *context = one->context;
    gfl_pixels p;
    CHECK_OK(context, gfl_image_read(context, path, &p));
    const fx_json *decoded = fx_get(run, "decoded");
    CHECK(p.width == fx_int(decoded, "width", 0) && p.height == fx_int(decoded, "height", 0));
    CHECK(has_shape(run, "ori_shape", p.height, p.width));
    if (!p.rgb || p.width != fx_int(decoded, "width", 0)) return;
    check_bytes(decoded, p.rgb, p.width, p.height, exact);
    int w, h;
    gfli_resized_size(p.width, p.height, 1333, 800, &w, &h);
    CHECK(has_shape(run, "img_shape", h, w));
    gfl_image image;
    image = gfl_image_from_rgb(p.rgb, p.width, p.height);
    uint8_t *rgb = (uint8_t *)malloc(3 * (size_t)w * (size_t)h);
    host_resize(context, &image, false, w, h, rgb);
    check_bytes(fx_get(run, "resized"), rgb, w, h, exact);
    check_resized_crop(one, prefix, fx_get(run, "crop_at"), rgb, w, exact);
    check_input(one, prefix, run, rgb, w, h, exact);
    free(rgb);
    gfl_pixels_free(context, &p);
}

/* ---- boxes: through the loader, with the picture's size but not its pixels ------------------- */

static gfl_status blank(void *user, gfl_context *context, int image, gfl_pixels *out) {
    const int *shape = (const int *)user; /* h, w */
    (void)image;
    GFLI_TRY(gfl_pixels_alloc(context, shape[1], shape[0], out));
    memset(out->rgb, 0, 3 * (size_t)shape[0] * (size_t)shape[1]);
    return GFL_OK;
}

static gfl_dataset *make_set(fx_case *one, int shape[2]) {
    static char json[65536];
    char *p = json;
    gfl_dataset_desc opts;
    gfl_dataset *set = NULL;
    fx_tensor boxes = fx_load(one, "coco_xywh");
    memset(&opts, 0, sizeof opts);
    opts.read_image = blank;
    opts.user = shape;
    p += sprintf(p,
                 "{\"images\":[{\"id\":1,\"width\":%d,\"height\":%d}],\"categories\":[{\"id\":1}],"
                 "\"annotations\":[",
                 shape[1], shape[0]);
    for (size_t i = 0; i < boxes.count / 4; i++) {
        const double *b = boxes.data + 4 * i;
        p += sprintf(p,
                     "%s{\"id\":%zu,\"image_id\":1,\"category_id\":1,\"bbox\":[%.17g,%.17g,%.17g,"
                     "%.17g]}",
                     i ? "," : "", i + 1, b[0], b[1], b[2], b[3]);
    }
    sprintf(p, "]}");
    CHECK_OK(one->context,
             gfl_dataset_load_coco_memory(one->context, json, strlen(json), &opts, &set));
    free(boxes.data);
    return set;
}

static void check_boxes(fx_case *one, const gfl_dataset *set, const fx_json *geometry) {
    gfl_context *context = one->context;
    gfli_loader_opts opts;
    gfli_loader *loader;
    const gfli_batch *batch;
    const fx_json *scale = fx_get(geometry, "scale"), *flip = fx_get(geometry, "flip");
    bool flipped = flip && flip->kind == GFLI_JSON_TRUE;
    memset(&opts, 0, sizeof opts);
    opts.batch = 1;
    opts.scale_long = (int)fx_at(scale, 0)->number;
    opts.scale_short = (int)fx_at(scale, 1)->number;
    opts.no_flip = !flipped;
    CHECK_OK(context, gfli_loader_create(context, set, &opts, &loader));
    const gfli_sample *s;
    int tries = 0;
    do { /* an epoch is one picture: wait for one that is mirrored as wanted */
        CHECK_OK(context, gfli_loader_next(loader, &batch));
        s = &batch->samples[0];
    } while (s->flip != flipped && ++tries < 100);
    fx_tensor want = fx_load(one, fx_string(geometry, "tensor"));
    CHECK(s->flip == flipped && has_shape(geometry, "img_shape", s->height, s->width));
    CHECK(want.count == 4 * (size_t)s->n_boxes);
    int wrong = 0;
    for (size_t i = 0; i < want.count && i < 4 * (size_t)s->n_boxes; i++)
        wrong += (double)s->boxes[i] != want.data[i];
    CHECK(wrong == 0);
    n_boxes += s->n_boxes;
    free(want.data);
    gfli_loader_destroy(loader);
}

static void check_geometry(fx_case *one) {
    const fx_json *geometry = fx_get(&one->json, "geometry");
    const fx_json *ori = fx_get(fx_get(&one->json, "from_file"), "ori_shape");
    if (!geometry || !ori) return;
    int shape[2] = {(int)ori->items[0].number, (int)ori->items[1].number};
    gfl_dataset *set = make_set(one, shape);
    for (int i = 0; i < geometry->n; i++) check_boxes(one, set, &geometry->items[i]);
    gfl_dataset_destroy(set);
}

static void pictures_become_the_input_of_mmdetection(void) {
    fx_case one;
    for (fx_list list = fx_open("pipeline"); fx_next(&list, &one);) {
        char path[1800];
        snprintf(path, sizeof path, "%s/%s", one.folder,
                 fx_string(fx_get(&one.json, "png"), "file"));
        check_run(&one, "png", fx_get(&one.json, "from_png"), path, true);
        const char *file = fx_string(&one.json, "file");
        if (data_exists(data_shared(file))) {
            check_run(&one, "file", fx_get(&one.json, "from_file"), data_shared(file),
                      fx_ends(file, ".png"));
            n_files++;
        }
        check_geometry(&one);
        fx_free_case(&one);
    }
    printf("%d windows exact, %d original files, %d boxes exact\n", n_exact, n_files, n_boxes);
}

static void sha256_is_right(void) {
    char hash[65];
    data_sha256((const uint8_t *)"abc", 3, hash);
    CHECK(!strcmp(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    data_sha256((const uint8_t *)"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
                hash);
    CHECK(!strcmp(hash, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"));
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(pictures_become_the_input_of_mmdetection), TEST(sha256_is_right), {0}};
    int result = test_main(argc, argv, cases);
    return test_skips && !test_failures ? 77 : result;
}
