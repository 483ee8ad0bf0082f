/* test_ranks.c - training by several ranks, which are threads here
 *
 * What runs on the threads leaves numbers and texts behind; the checks come when all have ended. */
#include "group_threads.h"
#include "train.h"

enum { STEPS = 4, TEXT = 400 };

/* What all ranks of a run share. */
typedef struct plan {
    int n_ranks, n_images;
    gfl_trainer_desc desc;
    gfl_dialect dialect;
    bool sure;             /* the class scores begin near 1: the sum of box weights is large */
    int steps;             /* after which the state is saved, where there is a path */
    const char *from, *to; /* NULL: a new model; nothing is saved */
    double limit;
    int absent;   /* the rank that creates its trainer and leaves; 0: none */
    int odd;      /* the rank that has another seed; 0: none */
    int adrift;   /* the rank that has another weight when it saves; 0: none */
    long starved; /* the allocation of rank 1, of those after its model, that fails; 0: none */
    hub hub;
    const gfl_group *group;
} plan;

/* What a rank has seen. */
typedef struct rank {
    pthread_t thread;
    const plan *p;
    const gfl_dataset *dataset;
    int number, n_steps; /* steps that were done */
    gfl_step_report reports[STEPS];
    uint64_t hashes[STEPS]; /* of all weights after each */
    double weight_sum;      /* of box weights, of all ranks, in the last */
    float *weights;         /* at the end */
    size_t n_weights;
    long n_allocations, starved; /* counted once there is a model; that which fails */
    gfl_status status;
    char error[TEXT];
} rank;

/* ---- pictures -------------------------------------------------------------------------------- */

static volatile int broken_picture; /* whose pixels cannot be had, from 1 */

/* All of one size: two of three of the usual ones. */
static train_picture make_wide(int i) {
    return train_make_picture(i / 2 * 3 + i % 2);
}

/* Every second is empty. */
static train_picture make_half_empty(int i) {
    train_picture p = make_wide(i);
    if (i % 2) p.n = 0;
    return p;
}

static gfl_status read_wide(void *user, gfl_context *context, int image, gfl_pixels *out) {
    (void)user;
    if (image + 1 == __atomic_load_n(&broken_picture, __ATOMIC_RELAXED))
        return gfl_context_fail(context, GFL_E_IO, "this picture is broken");
    return train_draw_picture(make_wide(image), context, out);
}

static gfl_status read_half_empty(void *user, gfl_context *context, int image, gfl_pixels *out) {
    (void)user;
    return train_draw_picture(make_half_empty(image), context, out);
}

/* ---- a run ----------------------------------------------------------------------------------- */

static plan plan_of(int n_ranks, int batch, int n_images) {
    plan p;
    memset(&p, 0, sizeof p);
    p.n_ranks = n_ranks;
    p.n_images = n_images;
    p.desc.batch = batch;
    p.desc.lr = 0.001;
    p.desc.epochs = 3;
    p.desc.warmup = -1;
    p.desc.loaders = -1;
    p.sure = true;
    p.steps = 3;
    p.group = &group_threads;
    return p;
}

static bool fine(rank *r, gfl_context *context, gfl_status status) {
    if (status == GFL_OK) return true;
    if (r->status == GFL_OK) {
        r->status = status;
        snprintf(r->error, sizeof r->error, "%.*s", TEXT - 1, gfl_context_get_error(context));
    }
    return false;
}

static void *alloc_or_starve(void *user, size_t size) {
    rank *r = (rank *)user;
    return ++r->n_allocations == r->starved ? NULL : malloc(size);
}

static void free_alloc(void *user, void *p) {
    (void)user;
    free(p);
}

static gfl_status open_context(rank *r, char *error, size_t size, gfl_context **out) {
    gfl_context_desc desc;
    gfl_ranks ranks;
    memset(&desc, 0, sizeof desc);
    memset(&ranks, 0, sizeof ranks);
    ranks.group = r->p->group;
    ranks.rank = r->number;
    ranks.n_ranks = r->p->n_ranks;
    ranks.opens = &r->p->hub;
    ranks.limit = r->p->limit;
    desc.n_threads = 1 + r->number % 2;
    desc.error = error;
    desc.error_size = size;
    if (r->number == 1 && r->p->starved > 0) { /* whose loaders are no threads */
        desc.allocator.alloc = alloc_or_starve;
        desc.allocator.free = free_alloc;
        desc.allocator.user = r;
    }
    if (r->p->n_ranks > 1) desc.ranks = &ranks;
    return gfl_context_create(&desc, out);
}

/* Every rank begins with weights of its own: those of rank 0 must be what counts. */
static gfl_status open_model(const rank *r, gfl_context *context, gfl_model **out) {
    gfl_model_desc desc;
    gfl_load_desc load;
    memset(&load, 0, sizeof load);
    load.trainable = 1;
    char path[64];
    snprintf(path, sizeof path, "%s.weights", r->p->from ? r->p->from : "");
    if (r->p->from && r->number == 0) return gfl_model_load(context, path, &load, out);
    train_micro_desc(&desc, 18, 2);
    desc.arch.dialect = r->p->dialect;
    desc.trainable = 1;
    gfl_status status = gfl_model_create(context, &desc, out);
    if (status != GFL_OK) return status;
    const int bias = gfli_model_find(*out, "bbox_head.gfl_cls.bias");
    for (size_t k = 0; r->p->sure && k < (*out)->params[bias].count; k++)
        (*out)->params[bias].data[k] = 2;
    for (size_t k = 0; r->number > 0 && k < (*out)->n_values; k++) (*out)->values[k] += 1;
    return GFL_OK;
}

static void look(rank *r, gfl_context *context, const gfl_trainer *trainer,
                 const gfl_model *model) {
    const long counted = r->n_allocations;
    r->n_allocations = -1000;
    fine(r, context, gfli_hash_model(model, &r->hashes[r->n_steps - 1]));
    r->n_allocations = counted;
    r->weight_sum = trainer->learner.losses->weight_sum;
}

static void save(rank *r, gfl_context *context, const gfl_trainer *trainer,
                 const gfl_model *model) {
    char path[64];
    snprintf(path, sizeof path, "%s.weights", r->p->to);
    if (r->number > 0 && r->number == r->p->adrift) model->values[7] += 1;
    if (r->number == 0) fine(r, context, gfl_model_save(model, path));
    snprintf(path, sizeof path, "%s.state.%d", r->p->to, r->number);
    fine(r, context, gfl_trainer_save_state(trainer, path));
}

static void train(rank *r, gfl_context *context, gfl_model *model, gfl_trainer *trainer) {
    char path[64];
    snprintf(path, sizeof path, "%s.state.0", r->p->from ? r->p->from : "");
    if (r->p->from && !fine(r, context, gfl_trainer_load_state(trainer, r->number ? NULL : path)))
        return;
    if (r->number > 0 && r->number == r->p->absent) return;
    while (r->n_steps < r->p->steps) {
        if (!fine(r, context, gfl_trainer_step(trainer, &r->reports[r->n_steps]))) break;
        r->n_steps++;
        look(r, context, trainer, model);
    }
    if (r->p->to && r->status == GFL_OK) save(r, context, trainer, model);
    r->n_weights = model->n_values;
    r->weights = (float *)malloc(model->n_values * sizeof(float));
    memcpy(r->weights, model->values, model->n_values * sizeof(float));
}

static void *work(void *arg) {
    rank *r = (rank *)arg;
    gfl_context *context = NULL;
    gfl_model *model = NULL;
    gfl_trainer *trainer = NULL;
    gfl_trainer_desc desc = r->p->desc;
    if (r->number > 0 && r->number == r->p->odd) desc.seed = 4;
    r->status = open_context(r, r->error, sizeof r->error, &context);
    if (r->status != GFL_OK) return NULL;
    const bool ready = fine(r, context, open_model(r, context, &model));
    r->n_allocations = 0;
    if (r->number == 1) r->starved = r->p->starved;
    if (ready && fine(r, context, gfl_trainer_create(context, model, r->dataset, &desc, &trainer)))
        train(r, context, model, trainer);
    r->starved = 0;
    gfl_trainer_destroy(trainer);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return NULL;
}

static void run_on(plan *p, train_picture (*make)(int), gfl_pixel_source read, rank *ranks) {
    gfl_context *context = test_context(1);
    gfl_dataset *dataset = train_dataset_of(context, p->n_images, make, read, NULL);
    p->hub.n_ranks = p->n_ranks;
    hub_open(&p->hub);
    memset(ranks, 0, HUB_RANKS * sizeof *ranks);
    for (int i = 0; i < p->n_ranks; i++) {
        ranks[i].p = p;
        ranks[i].dataset = dataset;
        ranks[i].number = i;
        if (pthread_create(&ranks[i].thread, NULL, work, &ranks[i]) != 0) exit(1);
    }
    for (int i = 0; i < p->n_ranks; i++) pthread_join(ranks[i].thread, NULL);
    CHECK(p->n_ranks == 1 || p->hub.closed == p->n_ranks);
    if (p->hub.fault[0]) test_fail(__FILE__, __LINE__, p->hub.fault);
    hub_close(&p->hub);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
}

static void forget(rank *ranks) {
    for (int i = 0; i < HUB_RANKS; i++) free(ranks[i].weights);
}

/* All ranks succeed, have the same weights after every step, and report the same. */
static void run_well(plan *p, train_picture (*make)(int), gfl_pixel_source read, rank *ranks) {
    run_on(p, make, read, ranks);
    for (int i = 0; i < p->n_ranks; i++) {
        if (ranks[i].status != GFL_OK) test_fail(__FILE__, __LINE__, ranks[i].error);
        CHECK(ranks[i].n_steps == p->steps);
        for (int s = 0; s < p->steps; s++) {
            gfl_step_report a = ranks[i].reports[s], b = ranks[0].reports[s];
            a.seconds = a.data_seconds = b.seconds = b.data_seconds = 0;
            CHECK(memcmp(&a, &b, sizeof a) == 0);
            CHECK(ranks[i].hashes[s] == ranks[0].hashes[s]);
        }
    }
    CHECK(p->hub.broken == 0);
}

static void check_near(double got, double want, double tolerance) {
    CHECK_NEAR(got, want, tolerance * fabs(want));
}

static void check_same_training(const rank *got, const rank *want) {
    for (int s = 0; s < want->n_steps && s < got->n_steps; s++) {
        const gfl_step_report *a = &got->reports[s], *b = &want->reports[s];
        check_near(a->loss_cls, b->loss_cls, 1e-5);
        check_near(a->loss_bbox, b->loss_bbox, 1e-5);
        check_near(a->loss_dfl, b->loss_dfl, 1e-5);
        check_near(a->grad_norm, b->grad_norm, 1e-5);
        CHECK(a->n_positives == b->n_positives && a->n_images == b->n_images && a->lr == b->lr);
        CHECK(a->step == b->step && a->epoch == b->epoch && a->epoch_done == b->epoch_done);
    }
    CHECK(got->n_weights == want->n_weights);
    CHECK_CLOSE(got->weights, want->weights, want->n_weights, 1e-5);
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

/* Spec 5.4: with one size of pictures and a sum of weights above the clamps. */
static void check_equal(plan one, plan many) {
    rank alone[HUB_RANKS], ranks[HUB_RANKS];
    run_well(&one, make_wide, read_wide, alone);
    run_well(&many, make_wide, read_wide, ranks);
    CHECK(alone[0].weight_sum > many.n_ranks);
    check_same_training(&ranks[0], &alone[0]);
    forget(alone);
    forget(ranks);
}

static void two_ranks_of_4_equal_one_of_8(void) {
    check_equal(plan_of(1, 8, 16), plan_of(2, 4, 16));
}

/* Also where the last batch is filled up: 11 images are 6 and 6 of which one comes twice. */
static void three_ranks_of_2_equal_one_of_6(void) {
    check_equal(plan_of(1, 6, 11), plan_of(3, 2, 11));
}

static void accumulated_batches_of_ranks_are_averaged_once(void) {
    plan one = plan_of(1, 4, 16), two = plan_of(2, 2, 16);
    one.desc.accumulate = two.desc.accumulate = 3;
    one.desc.clip_norm = two.desc.clip_norm = 1;
    one.desc.lr = two.desc.lr = 0; /* 0.01 * 12 / 16 for both */
    check_equal(one, two);
}

/* A set smaller than a batch: each rank has its share of all images. */
static void ranks_share_a_small_set(void) {
    check_equal(plan_of(1, 16, 6), plan_of(2, 16, 6));
}

/* Below the clamps the box losses are B / max(A, R), not B / max(A, 1).  The original has no
 * clamp. */
static void a_small_sum_of_weights_is_clamped_on_average(void) {
    for (int original = 0; original < 2; original++) {
        plan one = plan_of(1, 2, 2), two = plan_of(2, 1, 2);
        rank alone[HUB_RANKS], ranks[HUB_RANKS];
        one.sure = two.sure = false;
        one.steps = two.steps = 1;
        one.dialect = two.dialect = original ? GFL_DIALECT_GFOCAL : GFL_DIALECT_MMDET;
        run_well(&one, make_wide, read_wide, alone);
        run_well(&two, make_wide, read_wide, ranks);
        const double sum = alone[0].weight_sum;
        const gfl_step_report *a = &ranks[0].reports[0], *b = &alone[0].reports[0];
        const double factor = original ? 1 : fmax(sum, 1) / 2;
        CHECK(sum > 0.05 && sum < 1.9);
        check_near(ranks[0].weight_sum, sum, 1e-6);
        check_near(a->loss_cls, b->loss_cls, 1e-5);
        check_near(a->loss_bbox, factor * b->loss_bbox, 1e-5);
        check_near(a->loss_dfl, factor * b->loss_dfl, 1e-5);
        forget(alone);
        forget(ranks);
    }
}

/* One of two pictures is empty: a rank's normalisers are 1 and 0. */
static void a_rank_may_have_no_boxes(void) {
    plan one = plan_of(1, 2, 2), two = plan_of(2, 1, 2);
    rank alone[HUB_RANKS], ranks[HUB_RANKS];
    run_well(&one, make_half_empty, read_half_empty, alone);
    run_well(&two, make_half_empty, read_half_empty, ranks);
    CHECK(alone[0].weight_sum > 2 && alone[0].reports[0].n_positives > 0);
    check_same_training(&ranks[0], &alone[0]);
    forget(alone);
    forget(ranks);
}

/* However late the others come, and whenever an operation shows. */
static void the_bits_do_not_depend_on_time(void) {
    uint64_t want = 0;
    for (int i = 0; i < 4; i++) {
        plan p = plan_of(3, 1, 9);
        rank ranks[HUB_RANKS];
        p.desc.accumulate = 2;
        p.hub.delay = i == 1 ? 3000 : i == 3 ? 300 : 0;
        p.hub.late = i == 2 ? 3 : 0;
        p.desc.loaders = i == 2 ? 2 : -1;
        if (i == 3) p.group = &group_threads_at_once;
        run_well(&p, make_wide, read_wide, ranks);
        if (i == 0) want = ranks[0].hashes[p.steps - 1];
        CHECK(ranks[0].hashes[p.steps - 1] == want && want != 0);
        forget(ranks);
    }
}

/* ---- failures -------------------------------------------------------------------------------- */

static bool exists(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

static void clean(void) {
    const char *const names[] = {"ranks.weights", "ranks.state.0", "ranks.state.1"};
    for (size_t i = 0; i < GFLI_COUNT(names); i++) remove(names[i]);
}

static void expect(const rank *r, gfl_status status, const char *text) {
    test_checks++;
    if (r->status == status && strstr(r->error, text)) return;
    printf("rank %d: %s: %s\n", r->number, gfl_status_get_name(r->status), r->error);
    test_fail(__FILE__, __LINE__, text);
}

/* Whoever has the picture tells why, the others who; the step is as if it had not been tried. */
static void a_bad_picture_stops_all_ranks_together(void) {
    plan p = plan_of(3, 1, 9);
    rank well[HUB_RANKS], ranks[HUB_RANKS];
    int culprits = 0;
    p.desc.accumulate = 2;
    run_well(&p, make_wide, read_wide, well);
    for (int picture = 1; picture <= 9; picture++) {
        __atomic_store_n(&broken_picture, picture, __ATOMIC_RELAXED);
        plan again = plan_of(3, 1, 9);
        again.desc.accumulate = 2;
        again.steps = 2; /* an epoch */
        run_on(&again, make_wide, read_wide, ranks);
        __atomic_store_n(&broken_picture, 0, __ATOMIC_RELAXED);
        char who[40] = "";
        for (int i = 0; i < 3; i++)
            if (ranks[i].status == GFL_E_IO) snprintf(who, sizeof who, "rank %d failed", i);
        for (int i = 0; i < 3; i++) {
            const bool mine = ranks[i].status == GFL_E_IO;
            culprits += mine;
            expect(&ranks[i], mine ? GFL_E_IO : GFL_E_RANK, mine ? "this picture is broken" : who);
            CHECK(ranks[i].n_steps == ranks[0].n_steps && ranks[i].n_steps < 2);
            CHECK(memcmp(ranks[i].hashes, well[i].hashes,
                         (size_t)ranks[i].n_steps * sizeof *well[i].hashes) == 0);
            CHECK(memcmp(ranks[i].weights, ranks[0].weights, ranks[0].n_weights * sizeof(float)) ==
                  0);
        }
        CHECK(again.hub.broken == 0);
        forget(ranks);
    }
    CHECK(culprits == 9);
    forget(well);
}

/* Whichever allocation of creating, stepping and saving fails on a rank, the others neither wait
 * for it nor go on without it.  Of the first two, what it says so with, it cannot tell. */
static void a_rank_without_memory_stops_all_ranks_together(void) {
    long n = 3;
    for (bool failed = true; failed; n++) {
        plan p = plan_of(2, 1, 4);
        rank ranks[HUB_RANKS];
        p.steps = 2;
        p.to = "ranks";
        p.starved = n;
        p.limit = 5;
        run_on(&p, make_wide, read_wide, ranks);
        failed = ranks[1].n_allocations >= n && ranks[1].status != GFL_OK;
        CHECK(ranks[0].n_steps == ranks[1].n_steps && p.hub.broken == 0);
        CHECK(memcmp(ranks[0].hashes, ranks[1].hashes, sizeof ranks[0].hashes) == 0);
        if (failed) {
            expect(&ranks[1], GFL_E_MEMORY, "memory");
            expect(&ranks[0], GFL_E_RANK, "rank 1 failed");
        }
        forget(ranks);
        clean();
    }
    CHECK(n > 40);
}

static void a_rank_that_never_comes_is_missed(void) {
    plan p = plan_of(2, 1, 4);
    rank ranks[HUB_RANKS];
    p.limit = 0.3;
    p.absent = 1;
    run_on(&p, make_wide, read_wide, ranks);
    CHECK(ranks[1].status == GFL_OK && ranks[1].n_steps == 0);
    expect(&ranks[0], GFL_E_RANK, "rank 0 of 2 has waited 0.3 s");
    expect(&ranks[0], GFL_E_RANK, "the normalisers of the losses");
    CHECK(ranks[0].n_steps == 0 && p.hub.broken == 1);
    forget(ranks);
}

/* What is not finite on one is not finite for all, at the same step, and moves nothing. */
static void a_rank_with_nan_stops_all_ranks_together(void) {
    static const char *const texts[] = {"loss_cls is not finite", "the gradients of "};
    long before = 0; /* operations up to the end of the first step */
    for (int i = 0; i < 3; i++) {
        plan p = plan_of(2, 2, 8);
        rank ranks[HUB_RANKS];
        p.steps = i == 0 ? 1 : 2;
        p.hub.poison = i == 0 ? -1 : before + 1 + i; /* then normalisers, results, gradients */
        run_on(&p, make_wide, read_wide, ranks);
        for (int r = 0; r < 2 && i > 0; r++) {
            expect(&ranks[r], GFL_E_NONFINITE, texts[i - 1]);
            expect(&ranks[r], GFL_E_NONFINITE, "step 2: ");
            CHECK(ranks[r].n_steps == 1 && ranks[r].hashes[0] == ranks[0].hashes[0]);
            CHECK(!memcmp(ranks[r].weights, ranks[0].weights, ranks[0].n_weights * sizeof(float)));
        }
        if (i == 0) before = p.hub.n_done;
        forget(ranks);
    }
}

static void other_settings_are_named(void) {
    plan p = plan_of(2, 1, 4);
    rank ranks[HUB_RANKS];
    p.odd = 1;
    run_on(&p, make_wide, read_wide, ranks);
    expect(&ranks[1], GFL_E_MISMATCH, "rank 1: seed = 4; rank 0: seed = 0");
    expect(&ranks[0], GFL_E_RANK, "creating a trainer: rank 1 failed");
    forget(ranks);
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Two steps of an epoch of four, files of rank 0 alone, two more: the bits of a run without stop.
 * Rank 1 needs no files. */
static void two_ranks_resume_with_the_same_bits(void) {
    plan whole = plan_of(2, 1, 8), first = whole, second = whole;
    rank want[HUB_RANKS], ranks[HUB_RANKS];
    whole.steps = 4;
    first.steps = second.steps = 2;
    first.to = second.from = "ranks";
    run_well(&whole, make_wide, read_wide, want);
    run_well(&first, make_wide, read_wide, ranks);
    CHECK(ranks[0].hashes[1] == want[0].hashes[1]);
    CHECK(exists("ranks.state.0") && !exists("ranks.state.1"));
    forget(ranks);
    run_well(&second, make_wide, read_wide, ranks);
    for (int s = 0; s < 2; s++) CHECK(ranks[1].hashes[s] == want[1].hashes[2 + s]);
    CHECK(ranks[0].reports[1].step == 4);
    forget(ranks);
    forget(want);
    clean();
}

/* A group of one, whose operation number `failing` fails. */
static long n_sums, failing;

static gfl_status sum_or_fail(gfl_context *context, void *state, void *x, size_t n,
                              gfl_sum_type type) {
    (void)state, (void)x, (void)n, (void)type;
    return ++n_sums == failing ? gfl_context_fail(context, GFL_E_RANK, "the cable is out") : GFL_OK;
}

/* Also where it fails behind the writing. */
static void a_save_to_memory_that_fails_leaves_no_bytes(void) {
    gfl_group group = gfli_alone;
    gfl_status status = GFL_E_RANK;
    group.sum = sum_or_fail;
    for (long k = 1; status != GFL_OK && k < 9; k++) {
        gfl_context_desc desc;
        gfl_ranks ranks;
        gfl_model_desc how;
        gfl_context *context;
        gfl_model *model;
        gfl_trainer *trainer;
        gfl_bytes bytes;
        memset(&desc, 0, sizeof desc);
        memset(&ranks, 0, sizeof ranks);
        ranks.group = &group;
        ranks.n_ranks = 1;
        desc.ranks = &ranks;
        failing = 0;
        CHECK(gfl_context_create(&desc, &context) == GFL_OK);
        gfl_dataset *dataset = train_dataset_of(context, 2, make_wide, read_wide, NULL);
        train_micro_desc(&how, 18, 2);
        how.trainable = 1;
        CHECK_OK(context, gfl_model_create(context, &how, &model));
        CHECK_OK(context, gfl_trainer_create(context, model, dataset, NULL, &trainer));
        n_sums = 0, failing = k;
        status = gfl_trainer_save_state_memory(trainer, &bytes);
        CHECK((status == GFL_OK) == (bytes.size > 0) && (status == GFL_OK) == (bytes.data != NULL));
        CHECK(status == (k <= 2 ? GFL_E_RANK : GFL_OK));
        gfl_bytes_free(context, &bytes);
        gfl_trainer_destroy(trainer);
        gfl_model_destroy(model);
        gfl_dataset_destroy(dataset);
        gfl_context_destroy(context);
    }
    CHECK(status == GFL_OK);
}

/* By a fault of a machine, say: the state of before stays. */
static void ranks_that_have_come_apart_save_nothing(void) {
    plan p = plan_of(2, 1, 8);
    rank ranks[HUB_RANKS];
    p.to = "ranks";
    p.adrift = 1;
    run_on(&p, make_wide, read_wide, ranks);
    expect(&ranks[1], GFL_E_MISMATCH, "rank 1: fingerprint of the weights = ");
    expect(&ranks[0], GFL_E_RANK, "saving the state of a training: rank 1 failed");
    CHECK(!exists("ranks.state.0"));
    forget(ranks);
    clean();
}

/* Amid an epoch, one rank goes on with the images of two and the other way round. */
static void another_number_of_ranks_goes_on_in_the_same_way(void) {
    for (int way = 0; way < 2; way++) {
        plan whole = plan_of(1 + way, 2 - way, 8), first = whole,
             second = plan_of(2 - way, 1 + way, 8);
        rank want[HUB_RANKS], ranks[HUB_RANKS];
        whole.steps = 4;
        first.steps = second.steps = 2;
        first.to = second.from = "ranks";
        whole.desc.lr = first.desc.lr = second.desc.lr = 0;
        run_well(&whole, make_wide, read_wide, want);
        run_well(&first, make_wide, read_wide, ranks);
        forget(ranks);
        run_well(&second, make_wide, read_wide, ranks);
        CHECK(ranks[0].reports[1].step == 4);
        check_near(ranks[0].reports[1].loss, want[0].reports[3].loss, 1e-4);
        CHECK_CLOSE(ranks[0].weights, want[0].weights, want[0].n_weights, 1e-4);
        forget(ranks);
        forget(want);
        clean();
    }
}

/* With other images per update only where an epoch ends; as many epochs are done then. */
static void other_images_per_update_wait_for_an_epochs_end(void) {
    for (int steps = 1; steps <= 2; steps++) { /* two are an epoch */
        plan first = plan_of(2, 2, 8), second = plan_of(1, 1, 8);
        rank ranks[HUB_RANKS];
        first.steps = steps;
        first.desc.lr = second.desc.lr = 0;
        second.steps = 1;
        first.to = second.from = "ranks";
        run_well(&first, make_wide, read_wide, ranks);
        forget(ranks);
        run_on(&second, make_wide, read_wide, ranks);
        if (steps == 1) {
            expect(&ranks[0], GFL_E_MISMATCH,
                   "by 2 ranks with 4 images per update, here are 1 with 1");
        } else {
            CHECK(ranks[0].status == GFL_OK && ranks[0].reports[0].step == 9);
            CHECK(ranks[0].reports[0].epoch == 1 && ranks[0].reports[0].step_in_epoch == 0);
            CHECK_NEAR(ranks[0].reports[0].lr, 0.01 / 16, 1e-15);
        }
        forget(ranks);
        clean();
    }
}

/* As many images per update are not enough: with other batches an epoch's order is another one, so
 * that images would come twice or never. */
static void other_batches_wait_for_an_epochs_end(void) {
    for (int steps = 3; steps <= 4; steps++) { /* four are an epoch */
        plan first = plan_of(1, 1, 8), second = plan_of(2, 1, 8);
        rank ranks[HUB_RANKS];
        first.desc.accumulate = 2;
        first.steps = steps;
        second.steps = 1;
        first.to = second.from = "ranks";
        run_well(&first, make_wide, read_wide, ranks);
        forget(ranks);
        run_on(&second, make_wide, read_wide, ranks);
        if (steps == 3)
            expect(&ranks[0], GFL_E_MISMATCH, "so that ranks * batch is 1 and accumulate is 2");
        else
            CHECK(ranks[0].status == GFL_OK && ranks[0].reports[0].step == 5);
        forget(ranks);
        clean();
    }
}

/* ---- opening --------------------------------------------------------------------------------- */

static void check_refused(const gfl_ranks *ranks, gfl_status status, const char *text) {
    char error[TEXT];
    gfl_context *context;
    gfl_context_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 1;
    desc.error = error;
    desc.error_size = sizeof error;
    desc.ranks = ranks;
    CHECK(gfl_context_create(&desc, &context) == status && !context);
    if (!strstr(error, text)) test_fail(__FILE__, __LINE__, error);
}

static void impossible_ranks_are_refused(void) {
    static const int wrong[][2] = {{2, 2}, {-1, 2}, {0, 0}, {0, -1}, {0, 65537}};
    gfl_group other = group_threads;
    gfl_ranks ranks;
    hub h;
    memset(&h, 0, sizeof h);
    memset(&ranks, 0, sizeof ranks);
    ranks.n_ranks = 2;
    check_refused(&ranks, GFL_E_ARG, "no group");
    ranks.group = &group_threads;
    ranks.opens = &h;
    for (size_t i = 0; i < GFLI_COUNT(wrong); i++) {
        ranks.rank = wrong[i][0];
        ranks.n_ranks = wrong[i][1];
        check_refused(&ranks, GFL_E_ARG, "ranks count from 0");
    }
    ranks.rank = 0;
    ranks.n_ranks = 2;
    check_refused(&ranks, GFL_E_ARG, "the hub has another number of ranks");
    CHECK(h.closed == 0);
    ranks.limit = NAN;
    check_refused(&ranks, GFL_E_ARG, "limit");
    other.abi++;
    ranks.group = &other;
    check_refused(&ranks, GFL_E_UNSUPPORTED, "GFL_ABI");
}

static void a_context_knows_its_rank(void) {
    gfl_context *context = test_context(1);
    gfl_ranks ranks;
    gfl_context_get_ranks(context, &ranks);
    CHECK(ranks.rank == 0 && ranks.n_ranks == 1 && ranks.limit == 300 && !ranks.opens);
    CHECK(gfl_context_fail(context, GFL_E_DEVICE, "it burns") == GFL_E_DEVICE);
    CHECK(strcmp(gfl_context_get_error(context), "it burns") == 0);
    gfl_context_destroy(context);
    gfl_context_get_ranks(NULL, &ranks);
    CHECK(ranks.n_ranks == 0);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(two_ranks_of_4_equal_one_of_8),
        TEST(three_ranks_of_2_equal_one_of_6),
        TEST(accumulated_batches_of_ranks_are_averaged_once),
        TEST(ranks_share_a_small_set),
        TEST(a_small_sum_of_weights_is_clamped_on_average),
        TEST(a_rank_may_have_no_boxes),
        TEST(the_bits_do_not_depend_on_time),
        TEST(a_bad_picture_stops_all_ranks_together),
        TEST(a_rank_without_memory_stops_all_ranks_together),
        TEST(a_rank_that_never_comes_is_missed),
        TEST(a_rank_with_nan_stops_all_ranks_together),
        TEST(other_settings_are_named),
        TEST(two_ranks_resume_with_the_same_bits),
        TEST(a_save_to_memory_that_fails_leaves_no_bytes),
        TEST(ranks_that_have_come_apart_save_nothing),
        TEST(another_number_of_ranks_goes_on_in_the_same_way),
        TEST(other_images_per_update_wait_for_an_epochs_end),
        TEST(other_batches_wait_for_an_epochs_end),
        TEST(impossible_ranks_are_refused),
        TEST(a_context_knows_its_rank),
        {0},
    };
    return test_main(argc, argv, cases);
}
