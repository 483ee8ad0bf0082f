/* test_backward.c - gradients against finite differences, whatever is frozen */
#include "pass.h"

static void check_arch(const gfl_arch *arch, double allowed) {
    bench t;
    open_bench(&t, test_context(2), arch, -1, 1, 64, 96);
    CHECK(check_gradients(&t, allowed) > 60);
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
        open_bench(&all, test_context(2), &arch, -1, 2, 64, 64);
        float *want = gradients(&all);
        for (int frozen = 0; frozen <= 4; frozen++) {
            bench t;
            open_bench(&t, test_context(1 + frozen % 2), &arch, frozen, 2, 64, 64);
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
    open_bench(&t, test_context(1), &arch, 1, 2, 64, 96);
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
