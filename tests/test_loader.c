/* test_loader.c - batches: the same for any number of threads, resumable, with the right boxes */
#include "data.h"

#include "../src/data/dataset.h"

#include "../src/train/loader.h"

/* ---- a data set out of nothing --------------------------------------------------------------- */

enum { N_IMAGES = 23, BATCH = 4 };

typedef struct world {
    int fails;      /* image that cannot be read, or -1 */
    int wrong_size; /* image that is not as large as annotated, or -1 */
    int slow;       /* pause before every picture */
} world;

static int width_of(int i) {
    return 40 + 7 * (i % 5);
}

static int height_of(int i) {
    return 30 + 11 * (i % 7);
}

static uint8_t pixel_of(int image, int x, int y, int channel) {
    return (uint8_t)(image * 31 + x * 5 + y * 3 + channel * 70);
}

static gfl_status paint(void *user, gfl_context *context, int image, gfl_pixels *out) {
    const world *w = (const world *)user;
    if (w->slow) {
        struct timespec t = {0, 2000000};
        nanosleep(&t, NULL);
    }
    if (__atomic_load_n(&w->fails, __ATOMIC_RELAXED) == image)
        return gfli_error(context, GFL_E_FORMAT, "picture-%d.jpg: damaged", image);
    int width = width_of(image) + (w->wrong_size == image), height = height_of(image);
    GFLI_TRY(gfl_pixels_alloc(context, width, height, out));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                out->rgb[3 * (y * width + x) + c] = pixel_of(image, x, y, c);
    return GFL_OK;
}

/* Image i has i % 4 boxes to train on, and a crowd. */
static gfl_status make_set(gfl_context *context, world *w, gfl_dataset **out) {
    static char json[32768];
    char *p = json;
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.read_image = paint;
    opts.user = w;
    p += sprintf(p, "{\"categories\":[{\"id\":1},{\"id\":2},{\"id\":3}],\"images\":[");
    for (int i = 0; i < N_IMAGES; i++)
        p += sprintf(p, "%s{\"id\":%d,\"file_name\":\"picture-%d.jpg\",\"width\":%d,\"height\":%d}",
                     i ? "," : "", i + 1, i, width_of(i), height_of(i));
    p += sprintf(p, "],\"annotations\":[");
    for (int i = 0, id = 1; i < N_IMAGES; i++)
        for (int k = 0; k <= i % 4; k++, id++)
            p += sprintf(p,
                         "%s{\"id\":%d,\"image_id\":%d,\"category_id\":%d,\"iscrowd\":%d,"
                         "\"bbox\":[%g,%g,%g,%g]}",
                         id > 1 ? "," : "", id, i + 1, 1 + (i + k) % 3, k == i % 4, 3.3 + k,
                         2.7 * k, 10.1 + i, 12.6);
    sprintf(p, "]}");
    return gfl_dataset_load_coco_memory(context, json, strlen(json), &opts, out);
}

static gfli_loader_opts options(int n_threads) {
    gfli_loader_opts o;
    memset(&o, 0, sizeof o);
    o.batch = BATCH;
    o.seed = 99;
    o.scale_long = 120;
    o.scale_short = 80;
    o.scale_short_min = 48;
    o.n_threads = n_threads;
    return o;
}

/* ---- determinism ----------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h, const void *p, size_t n) {
    return h * 31 + data_fnv1a64((const uint8_t *)p, n);
}

static uint64_t hash_batch(const gfli_batch *b) {
    uint64_t h = 0;
    int head[5] = {b->n, b->height, b->width, b->epoch, b->index};
    h = mix(h, head, sizeof head);
    for (int i = 0; i < b->n; i++) {
        const gfli_sample *s = &b->samples[i];
        int fields[5] = {s->image, s->width, s->height, s->flip, s->n_boxes};
        h = mix(h, fields, sizeof fields);
        h = mix(h, s->pixels, 3 * (size_t)s->width * (size_t)s->height);
        h = mix(h, s->boxes, 4 * (size_t)s->n_boxes * sizeof *s->boxes);
        h = mix(h, s->labels, (size_t)s->n_boxes * sizeof *s->labels);
    }
    return h;
}

enum { STEPS = 15 }; /* two and a half epochs */

static void run(gfl_context *context, const gfl_dataset *set, int n_threads, int skip,
                uint64_t hashes[STEPS]) {
    gfli_loader_opts o = options(n_threads);
    gfli_loader *l;
    const gfli_batch *b;
    CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
    int per_epoch = gfli_loader_batches(l, 0);
    CHECK(per_epoch == (N_IMAGES + BATCH - 1) / BATCH && gfli_loader_images(l) == N_IMAGES);
    CHECK_OK(context, gfli_loader_start(l, skip / per_epoch, skip % per_epoch));
    for (int i = skip; i < STEPS; i++) {
        CHECK_OK(context, gfli_loader_next(l, &b));
        CHECK(b->epoch == i / per_epoch && b->index == i % per_epoch);
        hashes[i] = hash_batch(b);
    }
    gfli_loader_destroy(l);
}

static void batches_are_the_same_for_any_number_of_threads(void) {
    gfl_context *context = test_context(2);
    world w = {-1, -1, 0};
    gfl_dataset *set;
    uint64_t want[STEPS], got[STEPS];
    CHECK_OK(context, make_set(context, &w, &set));
    run(context, set, 0, 0, want);
    for (int n_threads = 0; n_threads <= 3; n_threads++)
        for (int skip = 0; skip < STEPS; skip += 4) { /* and from any place */
            run(context, set, n_threads, skip, got);
            CHECK(memcmp(got + skip, want + skip, (size_t)(STEPS - skip) * sizeof *got) == 0);
        }
    CHECK(want[0] != want[6] && want[0] != want[1]);
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
}

static void a_running_loader_can_be_sent_elsewhere(void) {
    gfl_context *context = test_context(1);
    world w = {-1, -1, 0};
    gfl_dataset *set;
    gfli_loader *l;
    const gfli_batch *b;
    uint64_t want[STEPS];
    gfli_loader_opts o = options(2);
    CHECK_OK(context, make_set(context, &w, &set));
    run(context, set, 0, 0, want);
    CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
    int n = gfli_loader_batches(l, 0);
    for (int round = 0; round < 30; round++) {
        int at = round * 7 % STEPS;
        CHECK_OK(context, gfli_loader_start(l, at / n, at % n));
        for (int i = at; i < STEPS && i < at + round % 3; i++) {
            CHECK_OK(context, gfli_loader_next(l, &b));
            CHECK(hash_batch(b) == want[i]);
        }
    }
    CHECK_OK(context, gfli_loader_start(l, 0, n)); /* the end of an epoch is the next one's start */
    CHECK_OK(context, gfli_loader_next(l, &b));
    CHECK(b->epoch == 1 && b->index == 0 && hash_batch(b) == want[n]);
    CHECK_ERROR(context, gfli_loader_start(l, 0, n + 1), GFL_E_ARG, "batch 7");
    gfli_loader_destroy(l);
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
}

static void an_epochs_last_batch_is_filled_up_from_its_first(void) {
    gfl_context *context = test_context(1);
    world w = {-1, -1, 1};
    gfl_dataset *set;
    gfli_loader *l;
    const gfli_batch *b;
    gfli_loader_opts o = options(0);
    int first[BATCH], seen[N_IMAGES] = {0};
    CHECK(N_IMAGES % BATCH != 0);
    CHECK_OK(context, make_set(context, &w, &set));
    CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
    int n = gfli_loader_batches(l, 0);
    for (int i = 0; i < n; i++) {
        CHECK_OK(context, gfli_loader_next(l, &b));
        CHECK(b->n == BATCH);
        for (int k = 0; k < b->n; k++) {
            if (i == 0) first[k] = b->samples[k].image;
            if (i * BATCH + k < N_IMAGES)
                seen[b->samples[k].image]++;
            else
                CHECK(b->samples[k].image == first[i * BATCH + k - N_IMAGES]);
        }
    }
    for (int i = 0; i < N_IMAGES; i++) CHECK(seen[i] == 1);
    gfli_loader_destroy(l);
    o.batch = N_IMAGES + 5; /* more than there are: once each */
    CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
    CHECK_OK(context, gfli_loader_next(l, &b));
    CHECK(b->n == N_IMAGES && gfli_loader_batches(l, 0) == 1);
    gfli_loader_destroy(l);
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
}

static void it_can_be_destroyed_at_any_moment(void) {
    gfl_context *context = test_context(1);
    world w = {-1, -1, 1};
    gfl_dataset *set;
    CHECK_OK(context, make_set(context, &w, &set));
    for (int i = 0; i < 24; i++) {
        gfli_loader_opts o = options(i % 4);
        gfli_loader *l;
        const gfli_batch *b;
        CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
        if (i & 4) CHECK_OK(context, gfli_loader_start(l, 0, 2));
        for (int k = 0; k < i / 8; k++) CHECK_OK(context, gfli_loader_next(l, &b));
        gfli_loader_destroy(l);
    }
    gfli_loader_destroy(NULL);
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
}

/* ---- what is in a batch ---------------------------------------------------------------------- */

/* Boxes and pixels computed once more, in the plain way. */
static void check_sample(const gfl_dataset *set, const gfli_sample *s, const gfli_loader_opts *o) {
    const gfl_image_info *info = &set->images[s->image];
    const int one = o->inclusive;
    float rx = (float)((double)s->width / info->width), w = (float)(s->width - one);
    float ry = (float)((double)s->height / info->height), h = (float)(s->height - one);
    if (o->one_scale) { /* spec 0.2, column O: the factor before the size is rounded */
        rx = ry = (float)fmin((double)o->scale_long / gfli_max(info->width, info->height),
                              (double)o->scale_short / gfli_min(info->width, info->height));
    }
    CHECK(s->n_boxes == s->image % 4);
    for (int k = 0; k < s->n_boxes; k++) {
        const gfl_annotation *a = &info->annotations[k];
        float x1 = fminf((float)a->x * rx, w), x2 = fminf((float)(a->x + a->w - one) * rx, w);
        float y1 = fminf((float)a->y * ry, h), y2 = fminf((float)(a->y + a->h - one) * ry, h);
        float want[4] = {s->flip ? w - x2 : x1, y1, s->flip ? w - x1 : x2, y2};
        CHECK(memcmp(want, s->boxes + 4 * k, sizeof want) == 0);
        CHECK(s->labels[k] == a->label && want[0] >= 0 && want[2] <= w && want[0] < want[2]);
    }
    /* Corners of the picture are not blended with anything. */
    for (int c = 0; c < 3; c++) {
        const uint8_t *corner = s->pixels + 3 * ((size_t)s->width * (size_t)s->height - 1);
        int channel = o->bgr ? 2 - c : c;
        int near = abs(s->pixels[c] - pixel_of(s->image, 0, 0, channel));
        int far = abs(corner[c] - pixel_of(s->image, info->width - 1, info->height - 1, channel));
        CHECK(near <= 8 && far <= 8);
    }
}

static void boxes_and_pixels_belong_together(void) {
    gfl_context *context = test_context(1);
    world w = {-1, -1, 0};
    gfl_dataset *set;
    int flips = 0, samples = 0, shortest = 1000, longest = 0;
    CHECK_OK(context, make_set(context, &w, &set));
    for (int mode = 0; mode < 3; mode++) {
        gfli_loader_opts o = options(2);
        gfli_loader *l;
        const gfli_batch *b;
        o.bgr = mode == 1;
        o.no_flip = mode == 1;
        o.inclusive = mode == 2;
        o.one_scale = mode == 2;
        if (mode == 2) o.scale_short_min = 0;
        CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
        for (int step = 0; step < 60; step++) {
            CHECK_OK(context, gfli_loader_next(l, &b));
            int height = 0, width = 0;
            for (int i = 0; i < b->n; i++) {
                const gfli_sample *s = &b->samples[i];
                check_sample(set, s, &o);
                flips += mode == 0 && s->flip;
                samples += mode == 0;
                CHECK(mode != 1 || !s->flip);
                shortest = gfli_min(shortest, gfli_min(s->width, s->height));
                longest = gfli_max(longest, gfli_max(s->width, s->height));
                width = gfli_max(width, (s->width + 31) / 32 * 32);
                height = gfli_max(height, (s->height + 31) / 32 * 32);
            }
            CHECK(b->width == width && b->height == height);
        }
        gfli_loader_destroy(l);
    }
    printf("%d of %d flipped; sides %d to %d\n", flips, samples, shortest, longest);
    CHECK(abs(2 * flips - samples) < samples / 4);
    CHECK(shortest >= 40 && shortest <= 52 && longest > 110 && longest <= 120);
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
}

static void batches_are_of_one_kind(void) {
    gfl_context *context = test_context(1);
    world w = {-1, -1, 0};
    gfl_dataset *set;
    int mixed[2] = {0, 0};
    CHECK_OK(context, make_set(context, &w, &set));
    for (int no_grouping = 0; no_grouping <= 1; no_grouping++) {
        gfli_loader_opts o = options(0);
        gfli_loader *l;
        o.no_grouping = no_grouping != 0;
        CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
        for (int i = 0; i < 2 * gfli_loader_batches(l, 0); i++) {
            const gfli_batch *b;
            int tall = 0;
            CHECK_OK(context, gfli_loader_next(l, &b));
            for (int k = 0; k < b->n; k++)
                tall += width_of(b->samples[k].image) < height_of(b->samples[k].image);
            mixed[no_grouping] += tall > 0 && tall < b->n;
        }
        gfli_loader_destroy(l);
    }
    printf("mixed batches: %d, %d without grouping\n", mixed[0], mixed[1]);
    CHECK(mixed[0] <= 4 && mixed[1] > mixed[0]); /* leftovers: at most two an epoch */
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
}

static void images_without_annotations_are_dropped_on_request(void) {
    static const char json[] =
        "{\"categories\":[{\"id\":1}],\"images\":[{\"id\":1,\"width\":40,\"height\":30},"
        "{\"id\":2,\"width\":40,\"height\":40},{\"id\":3,\"width\":40,\"height\":31},{\"id\":4}],"
        "\"annotations\":[{\"id\":1,\"image_id\":2,\"category_id\":1,\"iscrowd\":1,"
        "\"bbox\":[1,1,9,9]},{\"id\":2,\"image_id\":3,\"category_id\":1,\"bbox\":[1,1,9,9]}]}";
    gfl_context *context = test_context(1);
    gfl_dataset *set;
    gfli_loader *l;
    gfli_loader_opts o = options(0);
    CHECK_OK(context, gfl_dataset_load_coco_memory(context, json, sizeof json - 1, NULL, &set));
    CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
    CHECK(gfli_loader_images(l) == 4);
    gfli_loader_destroy(l);
    o.drop_empty = true;
    CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
    CHECK(gfli_loader_images(l) == 1); /* a crowd is an annotation; 31 pixels are too few */
    gfli_loader_destroy(l);
    gfl_dataset_destroy(set);
    static const char empty[] = "{\"categories\":[{\"id\":1}],\"images\":[{\"id\":1}]}";
    CHECK_OK(context, gfl_dataset_load_coco_memory(context, empty, sizeof empty - 1, NULL, &set));
    CHECK_ERROR(context, gfli_loader_create(context, set, &o, &l), GFL_E_DATA, "no image");
    CHECK(l == NULL);
    o.batch = 0;
    CHECK_ERROR(context, gfli_loader_create(context, set, &o, &l), GFL_E_ARG, "batch is 0");
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void a_damaged_file_is_named_and_may_be_tried_again(void) {
    gfl_context *context = test_context(1);
    world w = {9, -1, 0};
    gfl_dataset *set;
    uint64_t want[STEPS];
    CHECK_OK(context, make_set(context, &w, &set));
    for (int n_threads = 0; n_threads <= 3; n_threads++) {
        gfli_loader_opts o = options(n_threads);
        gfli_loader *l;
        const gfli_batch *b;
        gfl_status status = GFL_OK;
        int good = 0;
        w.fails = -1;
        run(context, set, 0, 0, want);
        w.fails = 9;
        CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
        while (good < 6 && (status = gfli_loader_next(l, &b)) == GFL_OK) good++;
        CHECK(status == GFL_E_FORMAT && b == NULL);
        CHECK(strstr(gfl_context_get_error(context), "picture-9.jpg: damaged") != NULL);
        CHECK_ERROR(context, gfli_loader_next(l, &b), GFL_E_FORMAT, "picture-9.jpg");
        __atomic_store_n(&w.fails, -1, __ATOMIC_RELAXED);
        /* A thread may have tried just before; then the error is still reported once. */
        status = gfli_loader_next(l, &b);
        if (status != GFL_OK) CHECK_OK(context, gfli_loader_next(l, &b));
        CHECK(b && hash_batch(b) == want[good]);
        gfli_loader_destroy(l);
    }
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
}

/* Counts what the logger is told. */
static void count_message(void *user, gfl_log_level level, const char *text) {
    int *n = (int *)user;
    if (level == GFL_LOG_WARNING && strstr(text, "picture-9.jpg: damaged"))
        __atomic_add_fetch(n, 1, __ATOMIC_RELAXED);
}

static void the_next_picture_stands_in_for_one_that_cannot_be_read(void) {
    uint64_t want[STEPS], got[STEPS];
    world w = {9, -1, 0};
    int told = 0, seen = 0;
    gfl_context_desc desc;
    gfl_context *context;
    gfl_dataset *set;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 1;
    desc.logger.log = count_message;
    desc.logger.user = &told;
    CHECK(gfl_context_create(&desc, &context) == GFL_OK);
    CHECK_OK(context, make_set(context, &w, &set));
    set->skip_unreadable = true;
    run(context, set, 0, 0, want);
    CHECK(told == 1);
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        told = 0;
        run(context, set, n_threads, 0, got);
        CHECK(memcmp(got, want, sizeof got) == 0 && told == 1);
    }
    gfli_loader *l;
    const gfli_batch *b;
    gfli_loader_opts o = options(0);
    CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
    for (int i = 0; i < 5; i++) { /* no image comes twice in these */
        CHECK_OK(context, gfli_loader_next(l, &b));
        for (int k = 0; b && k < b->n; k++) {
            CHECK(b->samples[k].image != 9);
            seen += b->samples[k].image == 10;
        }
    }
    CHECK(seen >= 1);
    gfli_loader_destroy(l);
    /* known beforehand: nothing else changes, so a run that met it in its midst can be resumed */
    set->images[9].unreadable = 1;
    told = 0;
    run(context, set, 1, 0, got);
    CHECK(memcmp(got, want, sizeof got) == 0 && told == 0);
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
}

static void a_picture_of_another_size_than_annotated_is_refused(void) {
    gfl_context *context = test_context(1);
    world w = {-1, 5, 0};
    gfl_dataset *set;
    gfli_loader *l;
    const gfli_batch *b;
    gfli_loader_opts o = options(1);
    gfl_status status = GFL_OK;
    CHECK_OK(context, make_set(context, &w, &set));
    CHECK_OK(context, gfli_loader_create(context, set, &o, &l));
    for (int i = 0; i < 6 && status == GFL_OK; i++) status = gfli_loader_next(l, &b);
    CHECK(status == GFL_E_DATA && strstr(gfl_context_get_error(context), "picture-5.jpg") &&
          strstr(gfl_context_get_error(context), "41 x 85"));
    gfli_loader_destroy(l);
    gfl_dataset_destroy(set);
    gfl_context_destroy(context);
}

static gfl_status load_three(gfl_context *context, int n_threads) {
    static world w = {-1, -1, 0};
    gfl_dataset *set;
    gfli_loader *l = NULL;
    const gfli_batch *b;
    gfli_loader_opts o = options(n_threads);
    GFLI_TRY(make_set(context, &w, &set));
    gfl_status status = gfli_loader_create(context, set, &o, &l);
    if (status == GFL_OK) status = gfli_loader_start(l, 0, 5);
    for (int i = 0; i < 3 && status == GFL_OK; i++) status = gfli_loader_next(l, &b);
    gfli_loader_destroy(l);
    gfl_dataset_destroy(set);
    return status;
}

static gfl_status load_alone(gfl_context *context) {
    return load_three(context, 0);
}

static gfl_status load_with_threads(gfl_context *context) {
    return load_three(context, 2);
}

static void no_allocation_may_fail_badly(void) {
    data_sweep(load_alone);
    data_sweep(load_with_threads);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(batches_are_the_same_for_any_number_of_threads),
                                      TEST(a_running_loader_can_be_sent_elsewhere),
                                      TEST(an_epochs_last_batch_is_filled_up_from_its_first),
                                      TEST(it_can_be_destroyed_at_any_moment),
                                      TEST(boxes_and_pixels_belong_together),
                                      TEST(batches_are_of_one_kind),
                                      TEST(images_without_annotations_are_dropped_on_request),
                                      TEST(the_next_picture_stands_in_for_one_that_cannot_be_read),
                                      TEST(a_damaged_file_is_named_and_may_be_tried_again),
                                      TEST(a_picture_of_another_size_than_annotated_is_refused),
                                      TEST(no_allocation_may_fail_badly),
                                      {0}};
    return test_main(argc, argv, cases);
}
