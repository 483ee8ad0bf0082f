/* test_any_device.c - training, files and detection on a device whose memory is not the host's
 *
 * The operations are the CPU's, so everything has to end with the CPU's bits. */
#include "data.h"
#include "guard.h"
#include "train.h"

enum { IMAGES = 6, STEPS = 4 };

typedef struct run {
    gfl_context *context;
    gfl_model *model;
    gfl_dataset *dataset;
    gfl_trainer *trainer;
    const char *weights, *state; /* file names */
} run;

static gfl_model_desc networks[2];

static void describe_networks(void) {
    train_micro_desc(&networks[0], 18, 2);
    train_micro_desc(&networks[1], 50, 2);
    networks[1].arch.deform = 2;
    networks[1].arch.deform_stages = 8;
    networks[1].arch.dialect = GFL_DIALECT_GFOCAL;
}

static gfl_context *open_device(const gfl_backend *backend) {
    gfl_context_desc desc;
    gfl_context *context = NULL;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 2;
    desc.backend = backend;
    CHECK(gfl_context_create(&desc, &context) == GFL_OK);
    return context;
}

/* A trainer of the network, or of the weights and the state that another run has saved. */
static void open_run(run *r, const gfl_backend *backend, const gfl_model_desc *network,
                     const char *weights, const char *state) {
    gfl_trainer_desc d;
    gfl_load_desc opts;
    memset(r, 0, sizeof *r);
    memset(&d, 0, sizeof d);
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    d.batch = d.accumulate = 2;
    d.epochs = 4;
    d.lr = 0.02;
    d.clip_norm = 3;
    d.loaders = 1;
    r->context = open_device(backend);
    if (weights)
        CHECK_OK(r->context, gfl_model_load(r->context, weights, &opts, &r->model));
    else
        r->model = train_model(r->context, network);
    r->dataset = train_dataset(r->context, IMAGES, NULL, NULL);
    CHECK_OK(r->context, gfl_trainer_create(r->context, r->model, r->dataset, &d, &r->trainer));
    if (state) CHECK_OK(r->context, gfl_trainer_load_state(r->trainer, state));
}

static void close_run(run *r) {
    gfl_trainer_destroy(r->trainer);
    gfl_dataset_destroy(r->dataset);
    gfl_model_destroy(r->model);
    gfl_context_destroy(r->context);
}

static void train(run *r, int steps, gfl_step_report *reports) {
    for (int i = 0; i < steps; i++) {
        CHECK_OK(r->context, gfl_trainer_step(r->trainer, &reports[i]));
        reports[i].seconds = reports[i].data_seconds = 0;
    }
}

static void save(const run *r, const char *weights, const char *state) {
    CHECK_OK(r->context, gfl_model_save(r->model, weights));
    CHECK_OK(r->context, gfl_trainer_save_state(r->trainer, state));
}

static bool same_files(const char *a, const char *b) {
    size_t n, m;
    uint8_t *x = data_read(a, &n), *y = data_read(b, &m);
    const bool same = n == m && n > 10000 && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

/* What the model finds in a picture of the set; the detections live in the detector. */
static gfl_detection_list detect(run *r, gfl_detector **out) {
    gfl_pixels pixels;
    gfl_image image;
    gfl_detection_list found;
    gfl_detect_opts opts;
    memset(&opts, 0, sizeof opts);
    memset(&found, 0, sizeof found);
    opts.min_score = 1e-4f;
    CHECK_OK(r->context, gfl_model_sync(r->model));
    CHECK_OK(r->context, gfl_detector_create(r->context, r->model, with_distributions(), out));
    CHECK_OK(r->context, gfl_dataset_read(r->context, r->dataset, 1, &pixels));
    image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height);
    CHECK_OK(r->context, gfl_detect(*out, &image, 1, &opts, &found));
    gfl_pixels_free(r->context, &pixels);
    return found;
}

/* Read on both, and written back where they were read. */
static void check_parameters(run *here, run *there) {
    gfl_parameter p;
    CHECK(gfl_model_count_parameters(here->model) == gfl_model_count_parameters(there->model));
    for (int i = 0; gfl_model_describe_parameter(here->model, i, &p) == GFL_OK; i++) {
        float *a = (float *)calloc(2 * p.count, sizeof *a), *b = a + p.count;
        CHECK_OK(here->context, gfl_model_get_parameter(here->model, p.name, a, p.count));
        CHECK_OK(there->context, gfl_model_get_parameter(there->model, p.name, b, p.count));
        CHECK(!memcmp(a, b, p.count * sizeof *a));
        CHECK_OK(there->context, gfl_model_set_parameter(there->model, p.name, a, p.count));
        free(a);
    }
}

/* Steps over accumulated batches, weights, state, detections with their distributions. */
static void a_training_has_the_cpus_bits(void) {
    for (int i = 0; i < 2; i++) {
        run here, there;
        gfl_step_report want[STEPS], got[STEPS];
        gfl_detector *detectors[2];
        open_run(&here, NULL, &networks[i], NULL, NULL);
        open_run(&there, guard_backend(), &networks[i], NULL, NULL);
        train(&here, STEPS, want);
        train(&there, STEPS, got);
        for (int s = 0; s < STEPS; s++) CHECK(memcmp(&want[s], &got[s], sizeof want[s]) == 0);
        save(&here, "here.safetensors", "here.state");
        save(&there, "there.safetensors", "there.state");
        CHECK(same_files("here.safetensors", "there.safetensors"));
        CHECK(same_files("here.state", "there.state"));
        check_parameters(&here, &there);
        const gfl_detection_list a = detect(&here, &detectors[0]),
                                 b = detect(&there, &detectors[1]);
        CHECK(a.count == b.count && a.count > 0);
        CHECK(memcmp(a.items, b.items, (size_t)a.count * sizeof *a.items) == 0);
        CHECK(memcmp(a.distributions, b.distributions, (size_t)a.count * sizeof *a.distributions) ==
              0);
        for (int k = 0; k < 2; k++) gfl_detector_destroy(detectors[k]);
        close_run(&here);
        close_run(&there);
        CHECK(guard.open == 0 && guard.freed > 40);
    }
}

/* Half the steps, files, another trainer of them: as without the stop. */
static void a_resumed_training_has_the_same_bits(void) {
    run whole, half;
    gfl_step_report reports[STEPS];
    open_run(&whole, NULL, &networks[0], NULL, NULL);
    train(&whole, STEPS, reports);
    save(&whole, "whole.safetensors", "whole.state");
    close_run(&whole);
    open_run(&half, guard_backend(), &networks[0], NULL, NULL);
    train(&half, STEPS / 2, reports);
    save(&half, "half.safetensors", "half.state");
    close_run(&half);
    open_run(&half, guard_backend(), NULL, "half.safetensors", "half.state");
    train(&half, STEPS / 2, reports);
    save(&half, "half.safetensors", "half.state");
    CHECK(same_files("half.safetensors", "whole.safetensors"));
    CHECK(same_files("half.state", "whole.state"));
    close_run(&half);
    CHECK(guard.open == 0);
}

/* Exports, a model of other classes and a backbone read what lies on the device. */
static void models_leave_and_enter_the_device(void) {
    static const gfl_class classes[3] = {{"dark", 1}, {"light", 2}, {"new", 3}};
    const char *const to[] = {"any.pth", "any.onnx"};
    gfl_model *models[2][2] = {{NULL, NULL}, {NULL, NULL}};
    gfl_context *contexts[2];
    gfl_transfer_desc how;
    char names[2][2][40];
    memset(&how, 0, sizeof how);
    how.classes = classes;
    how.n_classes = 3;
    for (int k = 0; k < 2; k++) {
        contexts[k] = open_device(k ? guard_backend() : NULL);
        models[k][0] = train_model(contexts[k], &networks[0]);
        CHECK_OK(contexts[k],
                 gfl_model_create_from(contexts[k], models[k][0], &how, &models[k][1]));
        for (int i = 0; i < 2; i++) {
            snprintf(names[k][i], sizeof names[k][i], "%d.%s", k, to[i]);
            CHECK_OK(contexts[k],
                     gfl_model_export(models[k][1], i ? GFL_EXPORT_ONNX : GFL_EXPORT_PTH, NULL,
                                      names[k][i]));
        }
        CHECK_OK(contexts[k], gfl_model_save_backbone(models[k][0], 4, "any.backbone"));
        CHECK_OK(contexts[k], gfl_model_load_backbone(models[k][1], "any.backbone"));
        CHECK_OK(contexts[k], gfl_model_save(models[k][1], k ? "1.any" : "0.any"));
    }
    for (int i = 0; i < 2; i++) CHECK(same_files(names[0][i], names[1][i]));
    CHECK(same_files("0.any", "1.any"));
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 2; i++) gfl_model_destroy(models[k][i]);
        gfl_context_destroy(contexts[k]);
    }
    CHECK(guard.open == 0);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(a_training_has_the_cpus_bits),
                                      TEST(a_resumed_training_has_the_same_bits),
                                      TEST(models_leave_and_enter_the_device),
                                      {0}};
    guard_reserve((size_t)1 << 30);
    describe_networks();
    return test_main(argc, argv, cases);
}
