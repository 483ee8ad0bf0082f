/* test_schedule.c - learning rates, and descriptions made whole */
#include "train.h"

static gfl_model_desc micro;

static gfl_trainer_desc zero(void) {
    gfl_trainer_desc d;
    memset(&d, 0, sizeof d);
    return d;
}

/* Resolve a description, or say what is wrong with it. */
static gfl_status resolve(gfl_context *context, const gfl_trainer_desc *in, gfl_trainer_desc *out) {
    gfl_model *model = train_model(context, &micro);
    gfl_status status = gfli_train_resolve(context, model, in, out);
    gfl_model_destroy(model);
    return status;
}

/* ... and fitted to so many images. */
static gfl_trainer_info fitted_to(const gfl_trainer_desc *in, int n_images, int n_ranks) {
    gfl_context *context = test_context(1);
    gfl_trainer_info plan;
    memset(&plan, 0, sizeof plan);
    CHECK_OK(context, resolve(context, in, &plan.desc));
    gfli_train_fit(&plan, n_images, n_ranks);
    gfl_context_destroy(context);
    return plan;
}

static gfl_trainer_info fitted(const gfl_trainer_desc *in, int n_images) {
    return fitted_to(in, n_images, 1);
}

static gfl_trainer_desc resolved(const gfl_trainer_desc *in) {
    return fitted(in, 100000).desc;
}

static double rate(const gfl_trainer_desc *d, int steps_per_epoch, int64_t step) {
    return gfli_train_rate(d, gfli_dialect_get(GFL_DIALECT_MMDET), steps_per_epoch, step);
}

static void warm_up_ends_at_the_full_rate(void) {
    gfl_trainer_desc in = zero(), d;
    in.lr = 0.02;
    d = resolved(&in);
    CHECK(d.warmup == 500);
    CHECK_NEAR(rate(&d, 1000, 0), 0.02 * 0.001, 1e-15);
    CHECK_NEAR(rate(&d, 1000, 1), 0.02 * (0.001 + 0.999 / 499), 1e-15);
    CHECK_NEAR(rate(&d, 1000, 250), 0.02 * (0.001 + 0.999 * 250 / 499), 1e-15);
    CHECK(rate(&d, 1000, 498) < 0.02);
    CHECK(rate(&d, 1000, 499) == 0.02);
    CHECK(rate(&d, 1000, 500) == 0.02);
    in.warmup = -1;
    d = resolved(&in);
    CHECK(rate(&d, 1000, 0) == 0.02);
    in.warmup = 1;
    d = resolved(&in);
    CHECK(rate(&d, 1000, 0) == 0.02);
    in.warmup = 2;
    d = resolved(&in);
    CHECK_NEAR(rate(&d, 1000, 0), 0.02 * 0.001, 1e-15);
    CHECK(rate(&d, 1000, 1) == 0.02);
}

/* Spec 8.2, column O: a third of the rate, then 500 equal steps to the whole. */
static void the_originals_warm_up_begins_at_a_third(void) {
    const gfli_dialect *original = gfli_dialect_get(GFL_DIALECT_GFOCAL);
    gfl_trainer_desc in = zero(), d;
    in.lr = 0.01;
    d = resolved(&in);
    for (int t = 0; t < 500; t += 100) {
        const double want = 0.01 * (1 - (1 - t / 500.0) * (1 - 1 / 3.0));
        CHECK_NEAR(gfli_train_rate(&d, original, 10000, t), want, 1e-15);
    }
    CHECK(gfli_train_rate(&d, original, 10000, 499) < 0.01);
    CHECK(gfli_train_rate(&d, original, 10000, 500) == 0.01);
}

/* Spec 8.1: which biases have twice the rate and no decay there; names decide, a batch norm that is
 * called downsample.1 is no exception. */
static void the_originals_biases_are_those_of_its_table(void) {
    static const char *const plain[] = {"backbone.layer2.0.downsample.1.bias",
                                        "neck.fpn_convs.0.conv.bias",
                                        "bbox_head.gfl_cls.bias",
                                        "bbox_head.gfl_reg.bias",
                                        "backbone.layer3.0.conv2_offset.bias",
                                        "backbone.layer3.0.conv2.conv_offset.bias"};
    static const char *const usual[] = {"backbone.bn1.bias",
                                        "backbone.layer2.0.bn3.bias",
                                        "bbox_head.cls_convs.0.gn.bias",
                                        "backbone.layer2.0.downsample.1.weight",
                                        "bbox_head.scales.0.scale",
                                        "backbone.layer2.0.conv1.weight"};
    const gfli_dialect *original = gfli_dialect_get(GFL_DIALECT_GFOCAL);
    for (size_t i = 0; i < GFLI_COUNT(plain); i++) CHECK(gfli_is_plain_bias(plain[i]));
    for (size_t i = 0; i < GFLI_COUNT(usual); i++) CHECK(!gfli_is_plain_bias(usual[i]));
    CHECK(original->bias_lr == 2 && original->bias_decay == 0);
}

static void milestones_divide_by_ten(void) {
    gfl_trainer_desc in = zero(), d;
    in.lr = 1;
    in.warmup = -1;
    d = resolved(&in);
    CHECK(rate(&d, 10, 79) == 1);
    CHECK_NEAR(rate(&d, 10, 80), 0.1, 1e-12);
    CHECK_NEAR(rate(&d, 10, 109), 0.1, 1e-12);
    CHECK_NEAR(rate(&d, 10, 110), 0.01, 1e-12);
    in.milestones[0] = 3;
    in.milestones[1] = 5;
    in.milestones[2] = 6;
    d = resolved(&in);
    CHECK(d.n_milestones == 3);
    CHECK_NEAR(rate(&d, 10, 60), 0.001, 1e-12);
    in.n_milestones = 1;
    d = resolved(&in);
    CHECK_NEAR(rate(&d, 10, 60), 0.1, 1e-12);
    in.n_milestones = -1;
    d = resolved(&in);
    CHECK(rate(&d, 10, 119) == 1);
}

/* The warm-up goes on below a milestone that comes early. */
static void both_factors_multiply(void) {
    gfl_trainer_desc in = zero(), d;
    in.lr = 1;
    in.warmup = 101;
    in.milestones[0] = 1;
    d = resolved(&in);
    CHECK_NEAR(rate(&d, 10, 50), 0.1 * (0.001 + 0.999 * 0.5), 1e-12);
}

static void default_milestones_follow_the_epochs(void) {
    static const int table[][3] = {/* epochs, first, second; 0: there is none */
                                   {1, 1, 0}, {2, 1, 0},   {3, 2, 0},    {4, 2, 3},
                                   {6, 4, 5}, {12, 8, 11}, {24, 16, 22}, {36, 24, 33}};
    for (size_t i = 0; i < GFLI_COUNT(table); i++) {
        gfl_trainer_desc in = zero(), d;
        in.epochs = table[i][0];
        d = resolved(&in);
        CHECK(d.n_milestones == (table[i][2] ? 2 : 1));
        CHECK(d.milestones[0] == table[i][1]);
        CHECK(d.milestones[1] == table[i][2]);
    }
}

/* Field by field: what lies between the fields is nobody's. */
static bool same_desc(const gfl_trainer_desc *a, const gfl_trainer_desc *b) {
    return a->batch == b->batch && a->accumulate == b->accumulate && a->epochs == b->epochs &&
           !memcmp(a->milestones, b->milestones, sizeof a->milestones) &&
           a->n_milestones == b->n_milestones && a->lr == b->lr && a->momentum == b->momentum &&
           a->weight_decay == b->weight_decay && a->warmup == b->warmup &&
           a->clip_norm == b->clip_norm && a->frozen_stages == b->frozen_stages &&
           a->scale_long == b->scale_long && a->scale_short == b->scale_short &&
           a->scale_short_min == b->scale_short_min && a->no_flip == b->no_flip &&
           a->drop_empty == b->drop_empty && a->no_grouping == b->no_grouping &&
           a->loaders == b->loaders && a->seed == b->seed;
}

static void zero_is_the_recipe(void) {
    gfl_trainer_desc in = zero(), d = resolved(&in), again;
    CHECK(d.batch == 16 && d.accumulate == 1 && d.epochs == 12 && d.warmup == 500);
    CHECK_NEAR(d.lr, 0.01, 1e-15);
    CHECK_NEAR(d.momentum, 0.9, 0);
    CHECK_NEAR(d.weight_decay, 1e-4, 0);
    CHECK(d.clip_norm == 0 && d.frozen_stages == 0 && d.loaders == 2);
    CHECK(d.scale_long == 96 && d.scale_short == 64); /* the model's */
    again = resolved(&d);
    CHECK(same_desc(&d, &again));
    in.batch = 4;
    in.accumulate = 2;
    in.momentum = in.weight_decay = -3;
    in.warmup = -7;
    in.n_milestones = in.frozen_stages = in.loaders = -5;
    in.clip_norm = -2;
    d = resolved(&in);
    CHECK_NEAR(d.lr, 0.005, 1e-15);
    CHECK(d.momentum < 0 && d.weight_decay < 0 && d.warmup < 0);
    CHECK(d.n_milestones == -1 && d.frozen_stages == -1 && d.loaders == -1 && d.clip_norm == 0);
    again = resolved(&d);
    CHECK(same_desc(&d, &again));
}

/* Two pictures are a batch of two with the rate of two, whatever was asked for. */
static void what_is_there_counts(void) {
    static const struct {
        int n_images, batch, accumulate, fit_batch, fit_accumulate, steps;
    } table[] = {{2, 0, 0, 2, 1, 1},    {1, 16, 1, 1, 1, 1},   {15, 16, 1, 15, 1, 1},
                 {16, 16, 1, 16, 1, 1}, {17, 16, 1, 16, 1, 2}, {2, 16, 4, 2, 1, 1},
                 {5, 2, 4, 2, 3, 1},    {8, 2, 4, 2, 4, 1},    {9, 2, 4, 2, 4, 2}};
    for (size_t i = 0; i < GFLI_COUNT(table); i++) {
        gfl_trainer_desc in = zero();
        in.batch = table[i].batch;
        in.accumulate = table[i].accumulate;
        gfl_trainer_info p = fitted(&in, table[i].n_images);
        CHECK(p.n_images == table[i].n_images && p.steps_per_epoch == table[i].steps);
        CHECK(p.n_steps == 12 * table[i].steps && p.desc.warmup == table[i].steps);
        CHECK(p.desc.batch == table[i].fit_batch && p.desc.accumulate == table[i].fit_accumulate);
        CHECK_NEAR(p.desc.lr, 0.01 * table[i].fit_batch * table[i].fit_accumulate / 16, 1e-15);
        in.lr = 0.03; /* as given is as given */
        in.warmup = 70;
        p = fitted(&in, table[i].n_images);
        CHECK(p.desc.lr == 0.03 && p.desc.warmup == 70);
    }
}

/* R ranks of b images make the updates that one rank of R * b makes, at its rate. */
static void ranks_count_in_the_rate_and_the_steps(void) {
    static const struct {
        int n_ranks, n_images, batch, accumulate, fit_batch, fit_accumulate, images, steps;
    } table[] = {{8, 117266, 2, 1, 2, 1, 16, 7330}, {4, 117266, 4, 1, 4, 1, 16, 7330},
                 {2, 100, 8, 2, 8, 2, 32, 4},       {8, 9, 16, 1, 2, 1, 16, 1},
                 {3, 2, 5, 4, 1, 1, 3, 1},          {2, 20, 2, 9, 2, 5, 20, 1}};
    for (size_t i = 0; i < GFLI_COUNT(table); i++) {
        gfl_trainer_desc in = zero();
        in.batch = table[i].batch;
        in.accumulate = table[i].accumulate;
        const gfl_trainer_info p = fitted_to(&in, table[i].n_images, table[i].n_ranks);
        CHECK(p.steps_per_epoch == table[i].steps && p.images_per_update == table[i].images);
        CHECK(p.desc.batch == table[i].fit_batch && p.desc.accumulate == table[i].fit_accumulate);
        CHECK_NEAR(p.desc.lr, 0.01 * table[i].images / 16, 1e-15);
    }
}

static void nonsense_is_refused(void) {
    gfl_context *context = test_context(1);
    gfl_trainer_desc out;
#define REFUSED(text, change)                                                                      \
    do {                                                                                           \
        gfl_trainer_desc d = zero();                                                               \
        change;                                                                                    \
        CHECK_ERROR(context, resolve(context, &d, &out), GFL_E_ARG, text);                         \
    } while (0)
    REFUSED("batch", d.batch = -1);
    REFUSED("accumulate", d.accumulate = -2);
    REFUSED("epochs", d.epochs = -1);
    REFUSED("lr", d.lr = -0.1);
    REFUSED("lr", d.lr = NAN);
    REFUSED("momentum", d.momentum = 1);
    REFUSED("clip_norm", d.clip_norm = INFINITY);
    REFUSED("frozen_stages", d.frozen_stages = 5);
    REFUSED("scale_long", d.scale_long = 100);
    REFUSED("scale", d.scale_long = d.scale_short = -1);
    REFUSED("short <= long", (d.scale_long = 100, d.scale_short = 200));
    REFUSED("scale_short_min", d.scale_short_min = 65);
    REFUSED("n_milestones", d.n_milestones = 9);
    REFUSED("ascend", (d.milestones[0] = 3, d.milestones[1] = 3));
    REFUSED("ascend", (d.milestones[0] = 3, d.n_milestones = 2));
    gfl_context_destroy(context);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(warm_up_ends_at_the_full_rate),
        TEST(the_originals_warm_up_begins_at_a_third),
        TEST(the_originals_biases_are_those_of_its_table),
        TEST(milestones_divide_by_ten),
        TEST(both_factors_multiply),
        TEST(default_milestones_follow_the_epochs),
        TEST(zero_is_the_recipe),
        TEST(what_is_there_counts),
        TEST(ranks_count_in_the_rate_and_the_steps),
        TEST(nonsense_is_refused),
        {0},
    };
    train_micro_desc(&micro, 18, 2);
    return test_main(argc, argv, cases);
}
