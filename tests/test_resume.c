/* test_resume.c - training that stops and goes on, to the bit */
#include "data.h"
#include "train.h"

enum { IMAGES = 7, STEPS = 8 }; /* 2 epochs of 4 batches, the last filled up */

static uint64_t hash_of(const gfl_model *model) {
    uint64_t hash = 0;
    CHECK(gfli_hash_model(model, &hash) == GFL_OK);
    return hash;
}

static const char *weight_path = "test_resume.safetensors", *state_path = "test_resume.state";

typedef struct run {
    gfl_context *context;
    gfl_model *model;
    gfl_dataset *dataset;
    gfl_trainer *trainer;
} run;

static gfl_trainer_desc base_desc(void) {
    gfl_trainer_desc d;
    memset(&d, 0, sizeof d);
    d.batch = 2;
    d.epochs = 2;
    d.lr = 0.02;
    d.warmup = 3;
    d.milestones[0] = 1;
    d.clip_norm = 5;
    d.scale_long = 96;
    d.scale_short = 64;
    d.scale_short_min = 40;
    d.seed = 11;
    return d;
}

static int deform; /* of fresh models: 0 for a ResNet-18, or a deformable ResNet-50 */

/* path NULL: a fresh model. */
static void open_run(run *r, const char *path, const gfl_trainer_desc *desc, int n_images,
                     int n_threads) {
    gfl_load_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    r->trainer = NULL;
    r->model = NULL;
    r->context = test_context(n_threads);
    r->dataset = train_dataset(r->context, n_images, NULL, NULL);
    if (path) {
        CHECK_OK(r->context, gfl_model_load(r->context, path, &opts, &r->model));
    } else {
        gfl_model_desc model;
        train_micro_desc(&model, deform ? 50 : 18, 2);
        model.arch.deform = deform;
        model.classes = gfl_dataset_get_classes(r->dataset);
        r->model = train_model(r->context, &model);
    }
    CHECK_OK(r->context, gfl_trainer_create(r->context, r->model, r->dataset, desc, &r->trainer));
}

static void close_run(run *r) {
    gfl_trainer_destroy(r->trainer);
    gfl_model_destroy(r->model);
    gfl_dataset_destroy(r->dataset);
    gfl_context_destroy(r->context);
}

static void save(const run *r) {
    CHECK_OK(r->context, gfl_model_save(r->model, weight_path));
    CHECK_OK(r->context, gfl_trainer_save_state(r->trainer, state_path));
}

static void steps(run *r, int n, gfl_step_report *last) {
    for (int i = 0; i < n; i++) CHECK_OK(r->context, gfl_trainer_step(r->trainer, last));
}

static bool same_report(const gfl_step_report *a, const gfl_step_report *b) {
    return a->step == b->step && a->epoch == b->epoch && a->step_in_epoch == b->step_in_epoch &&
           a->lr == b->lr && a->loss_cls == b->loss_cls && a->loss_bbox == b->loss_bbox &&
           a->loss_dfl == b->loss_dfl && a->grad_norm == b->grad_norm &&
           a->n_positives == b->n_positives && a->n_images == b->n_images;
}

/* Stop after `stop` steps of each kind of run, go on with another number of loaders and threads. */
static void check_resume(gfl_trainer_desc *d, int n_steps) {
    gfl_step_report want[STEPS], got;
    run whole, part;
    int mode = 0;
    open_run(&whole, NULL, d, IMAGES, 1);
    for (int i = 0; i < n_steps; i++)
        CHECK_OK(whole.context, gfl_trainer_step(whole.trainer, &want[i]));
    CHECK(want[n_steps - 1].training_done);
    for (int stop = 0; stop <= n_steps; stop++, mode++) {
        d->loaders = mode % 3 == 0 ? -1 : mode % 3;
        open_run(&part, NULL, d, IMAGES, 1 + mode % 2);
        steps(&part, stop, &got);
        save(&part);
        close_run(&part);
        d->loaders = mode % 3 == 2 ? -1 : mode % 3 + 1;
        open_run(&part, weight_path, d, IMAGES, 1 + mode / 2 % 2);
        CHECK_OK(part.context, gfl_trainer_load_state(part.trainer, state_path));
        for (int i = stop; i < n_steps; i++) {
            steps(&part, 1, &got);
            CHECK(same_report(&got, &want[i]));
        }
        CHECK(hash_of(part.model) == hash_of(whole.model));
        for (int i = 0; i < part.model->n_params; i++)
            CHECK(!memcmp(part.model->params[i].data, whole.model->params[i].data,
                          part.model->params[i].count * sizeof(float)));
        CHECK(gfl_trainer_step(part.trainer, NULL) == GFL_E_ARG);
        close_run(&part);
    }
    close_run(&whole);
    d->loaders = 0;
}

static void any_step_is_a_good_one_to_stop_at(void) {
    gfl_trainer_desc d = base_desc();
    check_resume(&d, STEPS);
}

static void accumulated_steps_resume_too(void) {
    gfl_trainer_desc d = base_desc();
    d.accumulate = 3;
    d.frozen_stages = 1;
    d.no_grouping = 1;
    check_resume(&d, 4);
}

static void deformable_models_resume_too(void) {
    gfl_trainer_desc d = base_desc();
    deform = 2;
    check_resume(&d, STEPS);
    deform = 0;
}

/* A state goes with the weights of its step only; a refusal leaves the trainer able to go on. */
/* Weights and state in memory are those of the files, and go on to the same bits. */
static void a_run_goes_on_from_memory(void) {
    gfl_trainer_desc d = base_desc();
    gfl_load_desc how;
    gfl_step_report want[3], got;
    gfl_bytes weights, state;
    size_t size;
    run r;
    memset(&how, 0, sizeof how);
    how.trainable = 1;
    open_run(&r, NULL, &d, IMAGES, 1);
    steps(&r, 3, &got);
    save(&r);
    CHECK_OK(r.context, gfl_model_save_memory(r.model, &weights));
    CHECK_OK(r.context, gfl_trainer_save_state_memory(r.trainer, &state));
    uint8_t *file = data_read(state_path, &size);
    CHECK(state.size == size && !memcmp(file, state.data, size));
    free(file);
    for (int i = 0; i < 3; i++) steps(&r, 1, &want[i]);
    gfl_trainer_destroy(r.trainer);
    gfl_model_destroy(r.model);
    CHECK_OK(r.context,
             gfl_model_load_memory(r.context, weights.data, weights.size, &how, &r.model));
    CHECK_OK(r.context, gfl_trainer_create(r.context, r.model, r.dataset, &d, &r.trainer));
    CHECK_ERROR(r.context, gfl_trainer_load_state_memory(r.trainer, state.data, size / 2),
                GFL_E_FORMAT, "the state of a training in memory");
    CHECK_OK(r.context, gfl_trainer_load_state_memory(r.trainer, state.data, state.size));
    for (int i = 0; i < 3; i++) {
        steps(&r, 1, &got);
        CHECK(same_report(&got, &want[i]));
    }
    gfl_bytes_free(r.context, &weights);
    gfl_bytes_free(r.context, &state);
    close_run(&r);
}

static void a_state_does_not_fit_other_weights(void) {
    gfl_trainer_desc d = base_desc();
    gfl_step_report want[3], got;
    run r, again;
    open_run(&r, NULL, &d, IMAGES, 2);
    steps(&r, 2, &got);
    save(&r);
    steps(&r, 1, &want[0]);
    CHECK_ERROR(r.context, gfl_trainer_load_state(r.trainer, state_path), GFL_E_MISMATCH,
                "same step");
    steps(&r, 1, &want[1]);
    steps(&r, 1, &want[2]);
    open_run(&again, weight_path, &d, IMAGES, 1);
    CHECK_OK(again.context, gfl_trainer_load_state(again.trainer, state_path));
    for (int i = 0; i < 3; i++) {
        steps(&again, 1, &got);
        CHECK(same_report(&got, &want[i]));
    }
    close_run(&again);
    close_run(&r);
}

static void another_description_is_refused(void) {
    gfl_trainer_desc d = base_desc();
    gfl_step_report got;
    run r;
    open_run(&r, NULL, &d, IMAGES, 1);
    steps(&r, 1, &got);
    save(&r);
    close_run(&r);
#define REFUSED(text, change)                                                                      \
    do {                                                                                           \
        gfl_trainer_desc c = base_desc();                                                          \
        change;                                                                                    \
        open_run(&r, weight_path, &c, IMAGES, 1);                                                  \
        CHECK_ERROR(r.context, gfl_trainer_load_state(r.trainer, state_path), GFL_E_MISMATCH,      \
                    text);                                                                         \
        CHECK(r.trainer->learner.updates == 0);                                                    \
        close_run(&r);                                                                             \
    } while (0)
    REFUSED("batch = \"2\"", c.batch = 3);
    REFUSED("accumulate = \"1\"", c.accumulate = 2);
    REFUSED("lr = \"0.02\"", c.lr = 0.03);
    REFUSED("momentum = \"0.9\"", c.momentum = 0.8);
    REFUSED("weight_decay = \"0.0001\"", c.weight_decay = -1);
    REFUSED("warmup = \"3\"", c.warmup = 4);
    REFUSED("clip_norm = \"5\"", c.clip_norm = 0);
    REFUSED("frozen_stages = \"0\"", c.frozen_stages = 1);
    REFUSED("scale_long = \"96\"", c.scale_long = 97);
    REFUSED("scale_short = \"64\"", c.scale_short = 65);
    REFUSED("scale_short_min = \"40\"", c.scale_short_min = 0);
    REFUSED("no_flip = \"0\"", c.no_flip = 1);
    REFUSED("drop_empty = \"0\"", c.drop_empty = 1);
    REFUSED("no_grouping = \"0\"", c.no_grouping = 1);
    REFUSED("seed = \"11\"", c.seed = 12);
    /* defaults spelt out are the same description */
    d.momentum = 0.9;
    d.accumulate = 1;
    d.n_milestones = 1;
    d.loaders = 5;
    open_run(&r, weight_path, &d, IMAGES, 1);
    CHECK_OK(r.context, gfl_trainer_load_state(r.trainer, state_path));
    CHECK(r.trainer->learner.updates == 1);
    close_run(&r);
}

static void other_data_and_weights_are_refused(void) {
    gfl_trainer_desc d = base_desc();
    gfl_step_report got;
    run r;
    open_run(&r, NULL, &d, IMAGES, 1);
    steps(&r, 1, &got);
    save(&r);
    steps(&r, 1, &got);
    CHECK_OK(r.context, gfl_trainer_save_state(r.trainer, state_path)); /* weights of step 1 */
    close_run(&r);
    open_run(&r, weight_path, &d, IMAGES, 1);
    CHECK_ERROR(r.context, gfl_trainer_load_state(r.trainer, state_path), GFL_E_MISMATCH,
                "same step");
    close_run(&r);
    open_run(&r, weight_path, &d, IMAGES + 1, 1);
    CHECK_ERROR(r.context, gfl_trainer_load_state(r.trainer, state_path), GFL_E_MISMATCH,
                "another data set");
    close_run(&r);
}

static void every_annotation_counts_in_the_fingerprint(void) {
    gfl_context *context = test_context(1);
    gfl_dataset *a = train_dataset(context, 5, NULL, NULL),
                *b = train_dataset(context, 5, NULL, NULL);
    uint64_t hash = gfli_hash_dataset(a);
    CHECK(hash == gfli_hash_dataset(b));
    for (int i = 0; i < 5; i++) {
        gfl_image_info info;
        CHECK_OK(context, gfl_dataset_get_image(b, i, &info));
        for (int k = 0; k < info.n_annotations; k++) {
            gfl_annotation *x = (gfl_annotation *)&info.annotations[k], keep = *x;
            x->x += 1e-9;
            CHECK(hash != gfli_hash_dataset(b));
            *x = keep;
            x->label ^= 1;
            CHECK(hash != gfli_hash_dataset(b));
            *x = keep;
            x->crowd = 1;
            CHECK(hash != gfli_hash_dataset(b));
            *x = keep;
        }
    }
    CHECK(hash == gfli_hash_dataset(b));
    gfl_dataset_destroy(a);
    gfl_dataset_destroy(b);
    gfl_context_destroy(context);
}

/* The state file again with one text of its header, which must be there, in place of another. */
static void rewrite_header(const run *r, const char *from, const char *to) {
    uint8_t *bytes;
    size_t size, n = 0;
    CHECK_OK(r->context, gfli_file_read(r->context, state_path, (size_t)1 << 30, &bytes, &size));
    for (int i = 7; i >= 0; i--) n = n << 8 | bytes[i];
    const size_t longer = n + strlen(to) - strlen(from);
    char *header = (char *)malloc(n + 1);
    memcpy(header, bytes + 8, n);
    header[n] = 0;
    char *at = strstr(header, from);
    CHECK(at != NULL);
    FILE *f = fopen(state_path, "wb");
    for (int i = 0; i < 8; i++) fputc((int)(longer >> 8 * i & 255), f);
    fwrite(header, 1, (size_t)(at - header), f);
    fwrite(to, 1, strlen(to), f);
    fwrite(at + strlen(from), 1, n - (size_t)(at - header) - strlen(from), f);
    fwrite(bytes + 8 + n, 1, size - 8 - n, f);
    fclose(f);
    free(header);
    gfli_free(r->context, bytes);
}

/* Version 0.1.0 called two pictures a batch of 16 and gave them its rate: such a run goes on as it
 * began, bit for bit, where the description leaves the rate open or asks for that one. */
static void a_state_that_did_not_count_goes_on(void) {
    gfl_trainer_desc d = base_desc();
    gfl_step_report want, got;
    gfl_trainer_info plan;
    run old, r;
    d.lr = 0.01;
    d.batch = 2;
    open_run(&old, NULL, &d, 2, 1);
    steps(&old, 1, &got);
    save(&old);
    steps(&old, 1, &want);
    rewrite_header(&old, "\"batch\":\"2\"", "\"batch\":\"16\"");
    for (int i = 0; i < 2; i++) {
        d.batch = i ? 16 : 0;
        d.lr = i ? 0.01 : 0;
        open_run(&r, weight_path, &d, 2, 1);
        CHECK_OK(r.context, gfl_trainer_load_state(r.trainer, state_path));
        gfl_trainer_get_info(r.trainer, &plan);
        CHECK(plan.desc.lr == 0.01 && plan.desc.batch == 2);
        steps(&r, 1, &got);
        CHECK(same_report(&got, &want));
        CHECK(hash_of(r.model) == hash_of(old.model));
        close_run(&r);
    }
    d.lr = 0.02;
    open_run(&r, weight_path, &d, 2, 1);
    CHECK_ERROR(r.context, gfl_trainer_load_state(r.trainer, state_path), GFL_E_MISMATCH,
                "lr = \"0.01\"");
    close_run(&r);
    close_run(&old);
}

/* Counters that are none, numbers that are none, tensors of nobody: each with a text, and the
 * trainer goes on as if nothing had been tried. */
static void damaged_states_are_refused(void) {
    static const struct {
        const char *from, *to;
        gfl_status status;
        const char *text;
    } table[] = {
        {"\"step\":\"2\"", "\"step\":\"-2\"", GFL_E_FORMAT, "\"step\" is \"-2\""},
        {"\"step\":\"2\"", "\"step\":\"nan\"", GFL_E_FORMAT, "\"step\" is \"nan\""},
        {"\"step\":\"2\"", "\"step\":\"\"", GFL_E_FORMAT, "not a count"},
        {"\"step\":\"2\"", "\"stop\":\"2\"", GFL_E_FORMAT, "\"step\" is missing"},
        {"\"step\":\"2\"", "\"step\":\"3\"", GFL_E_FORMAT, "go together"},
        {"\"step\":\"2\"", "\"step\":\"9\"", GFL_E_MISMATCH, "9 steps are done"},
        {"\"step\":\"2\"", "\"step\":\"99999999999999999999\"", GFL_E_FORMAT, "not a count"},
        {"\"epoch\":\"0\"", "\"epoch\":\"1e0\"", GFL_E_FORMAT, "\"epoch\" is"},
        {"\"seed\"", "\"sead\"", GFL_E_FORMAT, "no \"seed\""},
        {"\"momentum.backbone.bn1.bias\"", "\"momentum.backbone.bn2.bias\"", GFL_E_MISMATCH,
         "momentum.backbone.bn1.bias is missing"},
        {"\"momentum.backbone.bn1.bias\"",
         "\"x\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
         "\"momentum.backbone.bn1.bias\"",
         GFL_E_MISMATCH, "the state of this model has"},
        {"\"shape\":[4],", "\"shape\":[1,4],", GFL_E_MISMATCH, "another shape"},
    };
    gfl_trainer_desc d = base_desc();
    gfl_step_report got;
    run r;
    d.frozen_stages = -1;
    open_run(&r, NULL, &d, IMAGES, 1);
    steps(&r, 2, &got);
    gfli_learner *l = &r.trainer->learner;
    for (size_t i = 0; i < GFLI_COUNT(table); i++) {
        save(&r);
        rewrite_header(&r, table[i].from, table[i].to);
        CHECK_ERROR(r.context, gfl_trainer_load_state(r.trainer, state_path), table[i].status,
                    table[i].text);
        CHECK(l->updates == 2);
    }
    const int param = gfli_model_find(r.model, "bbox_head.gfl_cls.weight");
    float *number = l->momentum + l->layout.offset[param] + 5, keep = *number;
    for (int i = 0; i < 3; i++) {
        *number = i == 0 ? NAN : (i == 1 ? INFINITY : -INFINITY);
        save(&r);
        *number = keep;
        CHECK_ERROR(r.context, gfl_trainer_load_state(r.trainer, state_path), GFL_E_FORMAT,
                    "momentum.bbox_head.gfl_cls.weight is not finite");
        CHECK(*number == keep && number == l->momentum + l->layout.offset[param] + 5);
    }
    save(&r);
    CHECK_OK(r.context, gfl_trainer_load_state(r.trainer, state_path));
    close_run(&r);
}

/* Cut files, weight files and absent files change nothing; any bit of a weight is noticed. */
static void broken_files_are_refused(void) {
    gfl_trainer_desc d = base_desc();
    gfl_step_report got;
    run r;
    open_run(&r, NULL, &d, IMAGES, 1);
    steps(&r, 2, &got);
    save(&r);
    CHECK_ERROR(r.context, gfl_trainer_load_state(r.trainer, weight_path), GFL_E_FORMAT,
                "weight file");
    CHECK(gfl_trainer_load_state(r.trainer, "no/such/file") == GFL_E_IO);
    CHECK(gfl_trainer_save_state(r.trainer, "no/such/folder/file") == GFL_E_IO);
    CHECK_ERROR(r.context, gfl_trainer_load_state(r.trainer, NULL), GFL_E_ARG, "path");
    CHECK_ERROR(r.context, gfl_trainer_save_state(r.trainer, NULL), GFL_E_ARG, "path");
    uint8_t *bytes;
    size_t size;
    CHECK_OK(r.context, gfli_file_read(r.context, state_path, (size_t)1 << 30, &bytes, &size));
    for (size_t cut = 0; cut < size; cut += 1 + size / 23) {
        FILE *f = fopen("test_resume.cut", "wb");
        fwrite(bytes, 1, cut, f);
        fclose(f);
        CHECK(gfl_trainer_load_state(r.trainer, "test_resume.cut") == GFL_E_FORMAT);
    }
    gfli_free(r.context, bytes);
    remove("test_resume.cut");
    CHECK(r.trainer->learner.updates == 2);
    float *weight = &r.model->params[r.model->n_params / 2].data[1], keep = *weight;
    *weight = nextafterf(keep, 1e9f);
    CHECK(gfl_trainer_load_state(r.trainer, state_path) == GFL_E_MISMATCH);
    *weight = keep;
    CHECK_OK(r.context, gfl_trainer_load_state(r.trainer, state_path));
    steps(&r, 1, &got);
    CHECK(got.step == 3);
    close_run(&r);
}

/* The bytes of every tensor of two state files, and what they say of themselves. */
static void check_same_states(gfl_context *context, const char *path, const char *other) {
    gfli_blob a, b;
    size_t size;
    CHECK_OK(context, gfli_blob_open(context, path, &a));
    CHECK_OK(context, gfli_blob_open(context, other, &b));
    uint8_t *bytes = data_read(path, &size), *others = data_read(other, &size);
    CHECK(a.n_tensors == b.n_tensors && a.n_meta == b.n_meta && a.n_tensors > 60);
    for (int i = 0; i < a.n_tensors; i++) {
        const gfli_tensor *t = &a.tensors[i], *same = gfli_blob_find(&b, t->name);
        CHECK(same && same->bytes == t->bytes &&
              !memcmp(bytes + t->offset, others + same->offset, (size_t)t->bytes));
    }
    for (int i = 0; i < a.n_meta; i++) {
        const char *key = a.meta[2 * i], *value = gfli_blob_meta(&b, key);
        CHECK(value && (!strcmp(key, "gfl_version") || !strcmp(value, a.meta[2 * i + 1])));
    }
    free(bytes);
    free(others);
    gfli_blob_close(&a);
    gfli_blob_close(&b);
}

/* Version 0.1.0 wrote these files after three of six steps, with zeros for batch * accumulate's
 * rate, and took these three next. */
static void version_0_1_0_goes_on_with_the_same_bits(void) {
    static const double next[3][5] = {
        {0.257142974, 0.331754842, 0.0978189475, 0.953123655, 0.0025},
        {0.224921807, 0.255907682, 0.073966037, 1.07872875, 0.00025},
        {0.316428738, 0.327954062, 0.0965189956, 0.664885206, 0.00025},
    };
    const char *weights = data_path("version_0.1.0/library/weights.safetensors");
    const char *state = data_path("version_0.1.0/library/state.safetensors");
    gfl_trainer_desc d;
    gfl_step_report r;
    run old;
    memset(&d, 0, sizeof d);
    d.batch = d.accumulate = d.warmup = 2;
    d.epochs = 3;
    d.clip_norm = 5;
    d.frozen_stages = -1;
    d.scale_short_min = 40;
    d.seed = 11;
    open_run(&old, weights, &d, IMAGES, 1);
    CHECK(hash_of(old.model) == 0x8a56c2c67f88054eu);
    CHECK_OK(old.context, gfl_trainer_load_state(old.trainer, state));
    CHECK(old.trainer->learner.updates == 3);
    CHECK_OK(old.context, gfl_trainer_save_state(old.trainer, state_path));
    check_same_states(old.context, state, state_path);
    for (int i = 0; i < 3; i++) {
        steps(&old, 1, &r);
        const double got[5] = {r.loss_cls, r.loss_bbox, r.loss_dfl, r.grad_norm, r.lr};
        for (int k = 0; k < 5; k++) CHECK_NEAR(got[k], next[i][k], 1e-4 * next[i][k]);
    }
    CHECK(r.training_done);
    close_run(&old);
}

/* Python tools see momentum beside the weights, in the weights' shapes. */
static void a_state_is_plain_safetensors(void) {
    gfl_trainer_desc d = base_desc();
    gfl_step_report got;
    gfli_blob blob;
    run r;
    d.frozen_stages = 1;
    open_run(&r, NULL, &d, IMAGES, 1);
    steps(&r, 5, &got);
    save(&r);
    CHECK_OK(r.context, gfli_blob_open(r.context, state_path, &blob));
    CHECK(!strcmp(gfli_blob_meta(&blob, "step"), "5"));
    CHECK(!strcmp(gfli_blob_meta(&blob, "epoch"), "1"));
    CHECK(!strcmp(gfli_blob_meta(&blob, "batch_in_epoch"), "1"));
    CHECK(!gfli_blob_find(&blob, "momentum.backbone.conv1.weight"));
    const gfli_tensor *t = gfli_blob_find(&blob, "momentum.bbox_head.gfl_reg.weight");
    CHECK(t && t->rank == 4 && t->shape[0] == 68 && t->shape[1] == 32 && t->shape[2] == 3);
    if (t) {
        int i = gfli_model_find(r.model, "bbox_head.gfl_reg.weight");
        const float *v = r.trainer->learner.momentum + r.trainer->learner.layout.offset[i];
        float *stored = (float *)malloc((size_t)t->bytes);
        CHECK_OK(r.context, gfli_blob_read_f32(&blob, t, stored));
        size_t different = 0, zeros = 0;
        for (size_t k = 0; k < t->count; k++) {
            different += stored[k] != v[train_place(&r.model->params[i], k)];
            zeros += stored[k] == 0;
        }
        CHECK(different == 0 && zeros < t->count);
        free(stored);
    }
    gfli_blob_close(&blob);
    close_run(&r);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(any_step_is_a_good_one_to_stop_at),  TEST(accumulated_steps_resume_too),
        TEST(deformable_models_resume_too),       TEST(a_run_goes_on_from_memory),
        TEST(a_state_does_not_fit_other_weights), TEST(another_description_is_refused),
        TEST(other_data_and_weights_are_refused), TEST(every_annotation_counts_in_the_fingerprint),
        TEST(a_state_that_did_not_count_goes_on), TEST(damaged_states_are_refused),
        TEST(broken_files_are_refused),           TEST(version_0_1_0_goes_on_with_the_same_bits),
        TEST(a_state_is_plain_safetensors),       {0},
    };
    int result = test_main(argc, argv, cases);
    remove(weight_path);
    remove(state_path);
    return result;
}
