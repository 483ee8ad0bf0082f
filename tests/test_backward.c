/* test_backward.c - gradients against finite differences, whatever is frozen */
#include "train.h"

/* A narrow network, an input, and a linear function of its two outputs: L = <a, cls> + <b, reg>,
 * whose gradients with respect to the outputs are a and b.  (The real losses hold some factors
 * constant, so their finite differences are not their gradients.) */
typedef struct bench {
    gfl_context *context;
    gfl_model *model;
    gfli_learner learner;
    gfli_plan *plan;
    gfli_map input;
    float *picture, *a, *b;
} bench;

/* Floats to the device, and from there; a map's to memory of their own. */
static void put(const bench *t, float *there, const float *from, size_t n) {
    t->context->backend->device.upload(t->context, there, from, n * sizeof *from);
}

static void get(const bench *t, float *to, const float *there, size_t n) {
    CHECK_OK(t->context, gfli_fetch(t->model, there, n, to));
}

static float *fetched(const bench *t, const gfli_map *m) {
    float *copy = (float *)malloc(gfli_map_bytes(m));
    get(t, copy, m->data, gfli_map_count(m));
    return copy;
}

static void open_bench(bench *t, const gfl_arch *arch, int frozen, int n, int height, int width,
                       int n_threads) {
    gfl_model_desc desc;
    memset(t, 0, sizeof *t);
    train_micro_desc(&desc, arch->depth, 2);
    desc.arch = *arch;
    t->context = test_context(n_threads);
    t->model = train_model(t->context, &desc);
    fx_fill_model(t->model);
    CHECK_OK(t->context, gfli_learner_create(t->context, t->model, frozen, &t->learner));
    CHECK_OK(t->context, gfli_learner_input(&t->learner, n, height, width, &t->input));
    t->plan = &t->learner.current->plan;
    /* whatever is read without having been written shows */
    const size_t bytes = t->plan->workspace_bytes;
    void *rubbish = malloc(bytes);
    memset(rubbish, 0xff, bytes); /* NaN */
    t->context->backend->device.upload(t->context, t->learner.workspace, rubbish, bytes);
    free(rubbish);
    t->picture = test_uniform(gfli_map_count(&t->input), -2, 2, 1);
    t->a = test_uniform(gfli_map_count(&t->plan->maps[t->plan->cls].map), -1, 1, 2);
    t->b = test_uniform(gfli_map_count(&t->plan->maps[t->plan->reg].map), -1, 1, 3);
}

static void close_bench(bench *t) {
    free(t->picture);
    free(t->a);
    free(t->b);
    gfli_learner_destroy(&t->learner);
    gfl_model_destroy(t->model);
    gfl_context_destroy(t->context);
}

static double value(bench *t) {
    const gfli_map *cls = &t->plan->maps[t->plan->cls].map;
    const gfli_map *reg = &t->plan->maps[t->plan->reg].map;
    double sum = 0;
    put(t, t->input.data, t->picture, gfli_map_count(&t->input));
    gfli_plan_forward(t->context, t->model, t->plan, t->learner.stats, t->learner.scratch);
    float *c = fetched(t, cls), *r = fetched(t, reg);
    for (size_t i = 0; i < gfli_map_count(cls); i++) sum += (double)t->a[i] * (double)c[i];
    for (size_t i = 0; i < gfli_map_count(reg); i++) sum += (double)t->b[i] * (double)r[i];
    free(c);
    free(r);
    return sum;
}

/* The gradients of L, as a copy. */
static float *gradients(bench *t) {
    gfli_learner *l = &t->learner;
    const gfli_map *grads = l->current->backward.grads;
    gfli_pass pass;
    (void)value(t);
    put(t, grads[t->plan->cls].data, t->a, gfli_map_count(&grads[t->plan->cls]));
    put(t, grads[t->plan->reg].data, t->b, gfli_map_count(&grads[t->plan->reg]));
    pass.context = t->context;
    pass.model = t->model;
    pass.ops = l->ops;
    pass.plan = t->plan;
    pass.backward = &l->current->backward;
    pass.layout = &l->layout;
    pass.gradients = l->gradients;
    pass.stats = l->stats;
    pass.packing = l->packing;
    pass.scratch = l->scratch;
    gfli_backward_run(&pass);
    float *copy = (float *)malloc((l->layout.floats + 1) * sizeof(float));
    get(t, copy, l->gradients, l->layout.floats);
    return copy;
}

/* dL along a direction of -1 and 1, by central differences; one tensor only is moved. */
static double difference(bench *t, int index, const float *kept, const float *direction, double h) {
    const size_t n = t->model->params[index].count;
    double ends[2];
    float *moved = (float *)malloc(n * sizeof(float));
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++) moved[i] = kept[i] + (float)(side ? -h : h) * direction[i];
        gfli_param_store(t->model, index, moved);
        gfli_model_changed(t->model, 0);
        CHECK_OK(t->context, gfli_model_pack(t->model));
        ends[side] = value(t);
    }
    gfli_param_store(t->model, index, kept);
    free(moved);
    return (ends[0] - ends[1]) / (2 * h);
}

/* Off by how much of the gradient's norm?  Rounding spoils small steps, kinks and curvature spoil
 * large ones, and where between them lies the truth depends on the tensor: the best of some. */
static double best_error(bench *t, int index, const float *g) {
    const size_t n = t->model->params[index].count;
    double along = 0, norm = 0, square = 0, best = INFINITY;
    float *direction = test_uniform(n, -1, 1, 100 + (uint64_t)index);
    float *kept = (float *)malloc(n * sizeof *kept);
    CHECK_OK(t->context, gfli_param_fetch(t->model, index, kept));
    for (size_t i = 0; i < n; i++) {
        direction[i] = direction[i] < 0 ? -1.0f : 1.0f;
        along += (double)g[i] * (double)direction[i];
        norm += (double)g[i] * (double)g[i];
        square += (double)kept[i] * (double)kept[i];
    }
    double scale = fmax(0.1, sqrt(square / (double)n));
    for (double h = 1e-4; h < 3e-2 && best > 0.01; h *= 3)
        best =
            fmin(best, fabs(difference(t, index, kept, direction, h * scale) - along) / sqrt(norm));
    free(direction);
    free(kept);
    return best;
}

static double norm_of(const float *g, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)g[i] * (double)g[i];
    return sqrt(sum);
}

/* Coarse levels of a small input are so small that group norm makes everything before it constant:
 * gradients that are nothing beside the others are not compared. */
static void check_arch(const gfl_arch *arch, double allowed) {
    bench t;
    open_bench(&t, arch, -1, 1, 64, 96, 2);
    float *g = gradients(&t);
    double worst = 0, largest = 0;
    int compared = 0, flat = 0;
    for (int i = 0; i < t.model->n_params; i++) {
        size_t offset = t.learner.layout.offset[i];
        CHECK((offset == GFLI_NO_GRADIENT) == t.model->params[i].is_buffer);
        if (offset != GFLI_NO_GRADIENT)
            largest = fmax(largest, norm_of(g + offset, t.model->params[i].count));
    }
    for (int i = 0; i < t.model->n_params; i++) {
        const gfli_param *p = &t.model->params[i];
        const float *own = g + t.learner.layout.offset[i];
        if (p->is_buffer) continue;
        if (norm_of(own, p->count) < 1e-5 * largest) {
            flat++;
            continue;
        }
        double error = best_error(&t, i, own);
        worst = fmax(worst, error);
        test_checks++;
        if (!(error < allowed)) {
            printf("  %s: off by %.3g of the norm %.3g\n", p->name, error, norm_of(own, p->count));
            test_fail(__FILE__, __LINE__, p->name);
        }
        compared++;
    }
    printf("  %d tensors, off by at most %.2g of the norm; %d flat ones\n", compared, worst, flat);
    CHECK(compared > 60 && flat <= 6);
    free(g);
    close_bench(&t);
}

static gfl_arch narrow(int depth) {
    gfl_model_desc desc;
    train_micro_desc(&desc, depth, 2);
    return desc.arch;
}

static void basic_blocks_are_differentiated(void) {
    gfl_arch arch = narrow(18);
    arch.stacked_convs = 2;
    check_arch(&arch, 0.05);
}

static void grouped_bottlenecks_are_differentiated(void) {
    gfl_arch arch = narrow(50);
    arch.base_channels = 8;
    arch.groups = 2;
    arch.base_width = 4;
    check_arch(&arch, 0.05);
}

/* Interpolation has a kink wherever a sample meets a row or a column. */
static void deformable_bottlenecks_are_differentiated(void) {
    gfl_arch arch = narrow(50);
    arch.base_channels = 8;
    arch.deform = 2;
    arch.groups = 2;
    arch.base_width = 4;
    arch.style = GFL_STYLE_CAFFE;
    check_arch(&arch, 0.1);
}

/* Freezing stops the pass early and moves every map in memory; what is left is the same. */
static void freezing_changes_no_other_gradient(void) {
    for (int kind = 0; kind < 3; kind++) {
        gfl_arch arch = narrow(kind == 0 ? 18 : 50);
        arch.deform = kind == 2 ? 2 : 0;
        bench all;
        open_bench(&all, &arch, -1, 2, 64, 64, 2);
        float *want = gradients(&all);
        for (int frozen = 0; frozen <= 4; frozen++) {
            bench t;
            open_bench(&t, &arch, frozen, 2, 64, 64, 1 + frozen % 2);
            float *got = gradients(&t);
            CHECK(t.plan->workspace_bytes <= all.plan->workspace_bytes);
            for (int i = 0; i < t.model->n_params; i++) {
                const gfli_param *p = &t.model->params[i];
                size_t at = t.learner.layout.offset[i], there = all.learner.layout.offset[i];
                bool trains = !p->is_buffer && p->stage > frozen;
                CHECK(trains == (at != GFLI_NO_GRADIENT));
                if (trains) CHECK(!memcmp(got + at, want + there, p->count * sizeof(float)));
            }
            free(got);
            close_bench(&t);
        }
        free(want);
        close_bench(&all);
    }
}

/* A pass leaves nothing behind, and one plan's memory serves another. */
static void passes_do_not_disturb_each_other(void) {
    gfl_arch arch = narrow(18);
    bench t;
    gfli_map other;
    open_bench(&t, &arch, 1, 2, 64, 96, 1);
    float *first = gradients(&t), *second = gradients(&t);
    size_t bytes = t.learner.layout.floats * sizeof(float);
    CHECK(memcmp(first, second, bytes) == 0);
    free(second);
    CHECK_OK(t.context, gfli_learner_input(&t.learner, 3, 96, 96, &other));
    CHECK(other.n == 3 && other.h[0] == 96);
    CHECK_OK(t.context, gfli_learner_input(&t.learner, 2, 64, 96, &t.input));
    t.plan = &t.learner.current->plan;
    second = gradients(&t);
    CHECK(memcmp(first, second, bytes) == 0);
    free(first);
    free(second);
    close_bench(&t);
}

/* Bytes of a step's maps of ResNet-50 at 800 x 1344: the workspace against every map and every
 * gradient in a place of its own. */
/* Maps and gradients of an image of 800 x 1344.  `alive` is the sum over those that are needed at
 * the moment when most are, whatever their places: no arrangement can do with less, and
 * placing the largest first needs no more. */
static void memory_is_what_lives_at_once(void) {
    static const struct {
        int depth, deform, frozen;
        size_t alive; /* floats */
    } table[] = {{18, 0, -1, 169164800}, {18, 0, 1, 131532800},  {50, 0, -1, 325606400},
                 {50, 0, 1, 240665600},  {101, 0, 1, 350336000}, {50, 2, 1, 243245504}};
    gfl_context *context = test_context(1);
    for (size_t i = 0; i < GFLI_COUNT(table); i++) {
        gfl_model_desc desc;
        gfli_plan plan;
        gfli_backward backward;
        memset(&desc, 0, sizeof desc);
        desc.arch.depth = table[i].depth;
        desc.arch.deform = table[i].deform;
        gfl_model *model = train_model(context, &desc);
        CHECK_OK(context, gfli_plan_create(context, model, 1, 800, 1344, true, &plan));
        const double mib = 1 / 1048576.0, apart = 2 * (double)plan.workspace_bytes;
        CHECK_OK(context, gfli_backward_create(context, model, gfli_train_ops_of(context), &plan,
                                               table[i].frozen, &backward));
        printf("  depth %d, %d stages frozen: %.0f MiB an image, %.0f MiB without reuse\n",
               table[i].depth, table[i].frozen, (double)plan.workspace_bytes * mib, apart * mib);
        CHECK(plan.workspace_bytes <= table[i].alive * sizeof(float));
        gfli_backward_destroy(context, &backward);
        gfli_plan_destroy(context, &plan);
        gfl_model_destroy(model);
    }
    gfl_context_destroy(context);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST_TRAIN(basic_blocks_are_differentiated),
        TEST_TRAIN(grouped_bottlenecks_are_differentiated),
        TEST_TRAIN(deformable_bottlenecks_are_differentiated),
        TEST_TRAIN(freezing_changes_no_other_gradient),
        TEST_TRAIN(passes_do_not_disturb_each_other),
        TEST_TRAIN(memory_is_what_lives_at_once),
        {0},
    };
    return test_main(argc, argv, cases);
}
