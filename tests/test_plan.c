/* test_plan.c - plans: sizes, costs, and that no map is overwritten while it matters */
#include "test.h"

static gfl_context *context;

static gfl_model *describe(const char *preset) {
    gfl_arch arch;
    gfl_preprocess preprocess;
    gfl_model *model = NULL;
    memset(&preprocess, 0, sizeof preprocess);
    CHECK(gfl_arch_find_preset(NULL, preset, &arch) == GFL_OK);
    CHECK_OK(context, gfli_model_new(context, &arch, &preprocess, NULL, false, &model));
    return model;
}

static const gfli_slot *find_slot(const gfli_plan *plan, const char *name) {
    for (int i = 0; i < plan->n_slots; i++)
        if (plan->maps[i].name && !strcmp(plan->maps[i].name, name)) return &plan->maps[i];
    const bool slot_found = false;
    printf("no map %s\n", name);
    CHECK(slot_found);
    return &plan->maps[0];
}

/* Memory in units of 64 bytes, each marked with the slot and the version last written to it. */
typedef struct canvas {
    int *owner;
    int *version; /* of each slot */
    const gfli_plan *plan;
} canvas;

static void range(const canvas *c, int slot, size_t *from, size_t *to) {
    const gfli_slot *s = &c->plan->maps[slot];
    const gfli_map *whole = &c->plan->maps[gfli_plan_root(c->plan, slot)].map;
    size_t start = c->plan->pieces[gfli_plan_root(c->plan, slot)].offset;
    if (s->parent >= 0)
        start += gfli_points_before(whole, s->level) * (size_t)whole->c * sizeof(float);
    *from = start / 64;
    *to = (start + gfli_map_bytes(&s->map) + 63) / 64;
}

static void paint(const canvas *c, int slot) {
    size_t from, to;
    int parent = c->plan->maps[slot].parent;
    range(c, slot, &from, &to);
    for (size_t i = from; i < to; i++) c->owner[i] = parent >= 0 ? parent : slot;
}

static bool intact(const canvas *c, int slot) {
    size_t from, to;
    int parent = c->plan->maps[slot].parent;
    range(c, slot, &from, &to);
    for (size_t i = from; i < to; i++)
        if (c->owner[i] != (parent >= 0 ? parent : slot)) return false;
    return true;
}

/* Run the plan on paper: what a step reads is still there, what it writes is not what it reads. */
static void follow(const gfli_plan *plan) {
    canvas c;
    c.plan = plan;
    size_t units = plan->workspace_bytes / 64 + 1;
    c.owner = (int *)malloc(units * sizeof *c.owner);
    for (size_t i = 0; i < units; i++) c.owner[i] = -1;
    paint(&c, plan->input);
    for (int i = 0; i < plan->n_steps; i++) {
        const gfli_step *s = &plan->steps[i];
        bool reads_out = s->op == GFLI_OP_UPSAMPLE_ADD;
        CHECK(intact(&c, s->in));
        CHECK(s->offset < 0 || (intact(&c, s->offset) && s->offset != s->out));
        CHECK(s->residual < 0 || intact(&c, s->residual));
        CHECK(!reads_out || intact(&c, s->out));
        paint(&c, s->out);
        bool in_place = s->op == GFLI_OP_GROUP_NORM || s->op == GFLI_OP_LEVEL_SCALE;
        if (!in_place) CHECK(intact(&c, s->in) && s->in != s->out);
        CHECK(s->residual < 0 || s->residual == s->out || intact(&c, s->residual));
    }
    CHECK(intact(&c, plan->cls) && intact(&c, plan->reg));
    free(c.owner);
}

static void no_map_is_overwritten_while_it_matters(void) {
    static const char *const names[] = {
        "r18", "r34", "r50", "r101", "r101-dcnv1", "r101-dcnv2", "x101-32x4d", "x101-32x4d-dcnv1"};
    for (size_t i = 0; i < GFLI_COUNT(names); i++) {
        gfl_model *model = describe(names[i]);
        for (int training = 0; training < 2; training++) {
            gfli_plan plan;
            CHECK_OK(context, gfli_plan_create(context, model, 2, 96, 160, training, &plan));
            follow(&plan);
            gfli_plan_destroy(context, &plan);
        }
        gfl_model_destroy(model);
    }
}

static void training_keeps_every_map(void) {
    gfl_model *model = describe("r50");
    gfli_plan plan, lean;
    CHECK_OK(context, gfli_plan_create(context, model, 1, 128, 128, true, &plan));
    CHECK_OK(context, gfli_plan_create(context, model, 1, 128, 128, false, &lean));
    size_t bytes = 0;
    for (int i = 0; i < plan.n_slots; i++)
        if (plan.maps[i].parent < 0) bytes += (gfli_map_bytes(&plan.maps[i].map) + 63) / 64 * 64;
    CHECK(plan.workspace_bytes == bytes);
    CHECK(plan.workspace_bytes > 5 * lean.workspace_bytes);
    CHECK(plan.stats_floats == 8 * lean.stats_floats);
    CHECK(plan.n_steps == lean.n_steps && plan.macs == lean.macs);
    for (int i = 0; i < plan.n_steps; i++) {
        CHECK(plan.steps[i].in != plan.steps[i].out);
        CHECK(plan.steps[i].residual != plan.steps[i].out);
        CHECK(plan.steps[i].op == lean.steps[i].op);
    }
    gfli_plan_destroy(context, &plan);
    gfli_plan_destroy(context, &lean);
    gfl_model_destroy(model);
}

static void sizes_are_those_of_the_spec(void) {
    static const int want[GFL_LEVELS][2] = {{100, 168}, {50, 84}, {25, 42}, {13, 21}, {7, 11}};
    gfl_model *model = describe("r50");
    gfli_plan plan;
    CHECK_OK(context, gfli_plan_create(context, model, 1, 800, 1344, false, &plan));
    const gfli_map *cls = &plan.maps[plan.cls].map, *reg = &plan.maps[plan.reg].map;
    for (int l = 0; l < GFL_LEVELS; l++) CHECK(cls->h[l] == want[l][0] && cls->w[l] == want[l][1]);
    CHECK(gfli_points(cls) == 22400 && cls->c == 80 && reg->c == 68);
    CHECK(find_slot(&plan, "C5")->map.c == 2048 && find_slot(&plan, "C5")->map.h[0] == 25);
    CHECK(find_slot(&plan, "P7")->map.h[0] == 7 && find_slot(&plan, "P7")->parent >= 0);
    /* 218 GMAC and 74 MiB at two bytes are the figures of the performance notes */
    CHECK_NEAR((double)plan.macs, 218e9, 0.5e9);
    CHECK((double)plan.workspace_bytes / 2 < 76 * 1048576.0);
    int convs = 0;
    for (int i = 0; i < plan.n_steps; i++) convs += plan.steps[i].op == GFLI_OP_CONV;
    CHECK(convs == 71);
    gfli_plan_destroy(context, &plan);
    gfl_model_destroy(model);
}

/* Every deformable step has the offsets that its layer's own convolution makes of the same map, and
 * both count: 27 x 9 x width for the offsets. */
static void deformable_steps_have_their_offsets(void) {
    gfl_model *plain = describe("r101"), *model = describe("r101-dcnv2");
    gfli_plan plan, without;
    int64_t macs = 0;
    int deformable = 0;
    CHECK_OK(context, gfli_plan_create(context, model, 2, 96, 160, false, &plan));
    CHECK_OK(context, gfli_plan_create(context, plain, 2, 96, 160, false, &without));
    for (int i = 0; i < plan.n_steps; i++) {
        const gfli_step *s = &plan.steps[i], *before = &plan.steps[i - 1];
        CHECK((s->op == GFLI_OP_DEFORM_CONV) == (s->offset >= 0));
        if (s->op != GFLI_OP_DEFORM_CONV) continue;
        const gfli_map *offset = &plan.maps[s->offset].map, *out = &plan.maps[s->out].map;
        CHECK(before->op == GFLI_OP_CONV && before->out == s->offset && before->in == s->in);
        CHECK(before->layer == model->layers[s->layer].offset && !before->relu && s->relu);
        CHECK(offset->c == 27 && offset->h[0] == out->h[0] && offset->w[0] == out->w[0]);
        macs += (int64_t)gfli_points(offset) * 27 * 9 * plan.maps[s->in].map.c;
        deformable++;
    }
    CHECK(deformable == 4 + 23 + 3 && macs > 0 && plan.macs == without.macs + macs);
    CHECK(plan.n_steps == without.n_steps + deformable);
    gfli_plan_destroy(context, &plan);
    gfli_plan_destroy(context, &without);
    gfl_model_destroy(plain);
    gfl_model_destroy(model);
}

static void views_share_their_pyramids_memory(void) {
    gfl_model *model = describe("r18");
    gfli_plan plan;
    CHECK_OK(context, gfli_plan_create(context, model, 2, 64, 96, false, &plan));
    float *workspace = (float *)malloc(plan.workspace_bytes);
    gfli_plan_bind(&plan, workspace);
    const gfli_map *whole = &find_slot(&plan, "P")->map;
    for (int l = 0; l < GFL_LEVELS; l++) {
        char name[16];
        snprintf(name, sizeof name, "P%d", l + 3);
        const gfli_map *view = &find_slot(&plan, name)->map;
        CHECK(view->levels == 1 && view->h[0] == whole->h[l]);
        CHECK(view->data == whole->data + gfli_points_before(whole, l) * (size_t)whole->c);
    }
    for (int i = 0; i < plan.n_slots; i++) {
        const gfli_map *m = &plan.maps[i].map;
        CHECK(m->data >= workspace);
        CHECK(m->data + gfli_map_count(m) <= workspace + plan.workspace_bytes / sizeof *workspace);
    }
    free(workspace);
    gfli_plan_destroy(context, &plan);
    gfl_model_destroy(model);
}

typedef struct tally {
    int n, deformable;
    int64_t macs;
    size_t most;
} tally;

static void count_step(void *user, const gfl_plan_step *s) {
    tally *t = (tally *)user;
    bool conv = strstr(s->op, "conv") != NULL;
    CHECK((s->macs > 0) == conv && s->out_bytes > 0 && s->live_bytes >= s->out_bytes);
    CHECK(!conv || strstr(s->weights, ".weight"));
    t->deformable += !strcmp(s->op, "deform_conv");
    t->macs += s->macs;
    if (s->live_bytes > t->most) t->most = s->live_bytes;
    t->n++;
}

static void steps_can_be_listed(void) {
    gfl_model *model = describe("r101-dcnv2");
    gfl_model_cost cost;
    tally t;
    memset(&t, 0, sizeof t);
    CHECK_OK(context, gfl_model_get_cost(model, 160, 96, 2, &cost));
    CHECK_OK(context, gfl_model_get_plan(model, 160, 96, 2, count_step, &t));
    CHECK(t.n == cost.n_steps && t.macs == cost.macs && t.deformable == 30);
    CHECK(t.most > 0 && t.most <= cost.workspace_bytes);
    CHECK_ERROR(context, gfl_model_get_plan(model, 160, 0, 2, count_step, &t), GFL_E_ARG,
                "160 x 0");
    CHECK_ERROR(context, gfl_model_get_plan(model, 160, 96, 2, NULL, NULL), GFL_E_ARG, "NULL");
    CHECK(gfl_model_get_plan(NULL, 160, 96, 2, count_step, &t) == GFL_E_ARG);
    gfl_model_destroy(model);
}

static void the_shape_not_used_for_longest_makes_room(void) {
    gfli_recent recent;
    bool known;
    memset(&recent, 0, sizeof recent);
    for (int i = 0; i < GFLI_PLANS; i++) {
        CHECK(gfli_recent_find(&recent, 1, 32, 32 + i, &known) == i && !known);
        CHECK(gfli_recent_find(&recent, 1, 32, 32, &known) == 0 && known);
    }
    CHECK(gfli_recent_find(&recent, 2, 32, 32, &known) == 1 && !known);
    CHECK(gfli_recent_find(&recent, 1, 32, 33, &known) == 2 && !known);
    CHECK(gfli_recent_find(&recent, 1, 32, 32, &known) == 0 && known);
    gfli_recent_forget(&recent, 0);
    CHECK(gfli_recent_find(&recent, 1, 32, 32, &known) == 0 && !known);
}

static void impossible_inputs_are_refused(void) {
    gfl_model *model = describe("r18");
    gfli_plan plan;
    CHECK_ERROR(context, gfli_plan_create(context, model, 1, 100, 64, false, &plan), GFL_E_ARG,
                "multiples of 32");
    CHECK_ERROR(context, gfli_plan_create(context, model, 0, 64, 64, false, &plan), GFL_E_ARG,
                "batch");
    CHECK_ERROR(context, gfli_plan_create(context, model, 1, 32, 32768, false, &plan), GFL_E_ARG,
                "16384");
    CHECK_ERROR(context, gfli_plan_create(context, model, 65537, 32, 32, true, &plan), GFL_E_ARG,
                "the batch must be 1..65536");
    CHECK_ERROR(context, gfli_plan_create(context, model, 65536, 16384, 16384, true, &plan),
                GFL_E_MEMORY, "too large");
    CHECK(plan.maps == NULL && plan.steps == NULL);
    gfl_model_cost cost;
    CHECK_OK(context, gfl_model_get_cost(model, 1333, 800, 1, &cost));
    CHECK(cost.points == 22400 && cost.n_steps == 50 && cost.macs > (int64_t)1e11);
    CHECK(cost.weight_bytes >= 19000000u * 4 && cost.workspace_bytes > 50000000u);
    CHECK_ERROR(context, gfl_model_get_cost(model, 0, 800, 1, &cost), GFL_E_ARG, "0 x 800");
    CHECK_ERROR(context, gfl_model_get_cost(model, 32, 32, 1, NULL), GFL_E_ARG, "NULL");
    gfl_model_destroy(model);
}

/* The largest block that was asked for. */
static void *watched_alloc(void *user, size_t size) {
    size_t *largest = (size_t *)user;
    if (size > *largest) *largest = size;
    return malloc(size);
}

static void watched_free(void *user, void *p) {
    (void)user;
    free(p);
}

static void networks_are_priced_without_making_them(void) {
    gfl_context *watched;
    gfl_context_desc desc;
    gfl_model *model;
    gfl_model_info info;
    gfl_model_cost made, described;
    gfl_model_desc d;
    size_t largest = 0;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 1;
    desc.allocator.alloc = watched_alloc;
    desc.allocator.free = watched_free;
    desc.allocator.user = &largest;
    memset(&d, 0, sizeof d);
    CHECK(gfl_arch_find_preset(NULL, "r18", &d.arch) == GFL_OK);
    CHECK(gfl_context_create(&desc, &watched) == GFL_OK);
    CHECK_OK(watched, gfl_arch_get_cost(watched, &d.arch, 1333, 800, 1, &described));
    CHECK(largest > 0 && largest < 200000); /* the smallest 3x3 of 256 channels has 2 MB */
    CHECK_OK(watched, gfl_model_create(watched, &d, &model));
    CHECK(largest > 2000000);
    CHECK_OK(watched, gfl_model_get_cost(model, 1333, 800, 1, &made));
    gfl_model_get_info(model, &info);
    CHECK(described.n_parameters == info.n_parameters && described.macs == made.macs);
    CHECK(described.weight_bytes == made.weight_bytes && described.points == made.points);
    CHECK(described.workspace_bytes == made.workspace_bytes && described.n_steps == made.n_steps);
    gfl_model_destroy(model);
    CHECK_ERROR(watched, gfl_arch_get_cost(watched, NULL, 1, 1, 1, &made), GFL_E_ARG, "arch");
    CHECK_ERROR(watched, gfl_arch_get_cost(watched, &d.arch, 0, 800, 1, &made), GFL_E_ARG, "0 x");
    CHECK_ERROR(watched, gfl_arch_get_cost(watched, &d.arch, 1, 1, 1, NULL), GFL_E_ARG, "out");
    CHECK(gfl_arch_get_cost(NULL, &d.arch, 1, 1, 1, &made) == GFL_E_ARG);
    d.arch.depth = 52;
    CHECK_ERROR(watched, gfl_arch_get_cost(watched, &d.arch, 1, 1, 1, &made), GFL_E_ARG, "52");
    gfl_context_destroy(watched);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(no_map_is_overwritten_while_it_matters),
                                      TEST(training_keeps_every_map),
                                      TEST(sizes_are_those_of_the_spec),
                                      TEST(deformable_steps_have_their_offsets),
                                      TEST(views_share_their_pyramids_memory),
                                      TEST(steps_can_be_listed),
                                      TEST(the_shape_not_used_for_longest_makes_room),
                                      TEST(impossible_inputs_are_refused),
                                      TEST(networks_are_priced_without_making_them),
                                      {0}};
    context = test_context(1);
    int status = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return status;
}
