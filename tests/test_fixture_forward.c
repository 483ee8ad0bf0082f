/* test_fixture_forward.c - every map of whole networks, beside mmdetection's */
#include "fixture.h"

/* A plan with memory of its own, run on a case's input. */
typedef struct run {
    gfli_plan plan;
    float *workspace, *stats;
    void *scratch;
} run;

static run run_case(gfl_context *context, const gfl_model *model, const fx_case *one,
                    bool training) {
    run r;
    const fx_json *shape = fx_get(fx_get(&one->json, "input"), "shape");
    memset(&r, 0, sizeof r);
    CHECK_OK(context, gfli_plan_create(context, model, (int)fx_at(shape, 0)->number,
                                       (int)fx_at(shape, 2)->number, (int)fx_at(shape, 3)->number,
                                       training, &r.plan));
    CHECK_OK(context, gfli_alloc(context, r.plan.workspace_bytes, 1, "maps", &r.workspace));
    CHECK_OK(context, gfli_alloc(context, r.plan.stats_floats, 4, "stats", &r.stats));
    CHECK_OK(context, gfli_alloc(context, r.plan.scratch_bytes, 1, "scratch", &r.scratch));
    gfli_plan_bind(&r.plan, r.workspace);
    fx_fill_input("input", &r.plan.maps[r.plan.input].map);
    gfli_plan_forward(context, model, &r.plan, r.stats, r.scratch);
    return r;
}

static void end_run(gfl_context *context, run *r) {
    gfli_plan_destroy(context, &r->plan);
    gfli_free(context, r->workspace);
    gfli_free(context, r->stats);
    gfli_free(context, r->scratch);
}

/* The map of a tensor's name: "C3", "P5", or "cls_score.2". */
static bool find_map(const gfli_plan *plan, const char *name, gfli_map *out) {
    const char *dot = strchr(name, '.');
    size_t length = dot ? (size_t)(dot - name) : strlen(name);
    for (int i = 0; i < plan->n_slots; i++) {
        const gfli_slot *s = &plan->maps[i];
        if (!s->name || strlen(s->name) != length || strncmp(s->name, name, length) != 0) continue;
        *out = dot ? gfli_map_level(&s->map, atoi(dot + 1)) : s->map;
        return true;
    }
    return false;
}

/* The project's bar for a whole network: 1e-4 of the tensor's largest magnitude. */
static void compare(fx_case *one, const gfli_plan *plan) {
    double worst = 0;
    int n = 0;
    for (int i = 0; i < one->blob.n_tensors; i++) {
        const char *name = one->blob.tensors[i].name;
        const fx_json *about = fx_get(fx_get(&one->json, "tensors"), name);
        gfli_map map;
        bool found = find_map(plan, name, &map);
        if (!found) printf("no map for %s\n", name);
        CHECK(found && about);
        if (!found || !about) continue;
        fx_tensor want = fx_load(one, name);
        double largest = fmax(fabs(fx_number(about, "max", 0)), fabs(fx_number(about, "min", 0)));
        double error = fx_map_error(&map, &want, fx_step(one, name)) / largest;
        if (!(error <= 1e-4)) printf("%s: off by %.3g of the largest magnitude\n", name, error);
        CHECK(error <= 1e-4);
        if (error > worst) worst = error;
        n++;
        free(want.data);
    }
    CHECK(n > 0);
    printf("%s: %d tensors, worst %.2g of the largest magnitude\n", one->name, n, worst);
}

static void every_map_is_mmdetections(void) {
    fx_list list = fx_open("forward");
    int covered = 0, total = list.n;
    for (fx_case one; fx_next(&list, &one); fx_free_case(&one)) {
        gfl_model_desc desc;
        gfl_model *model = NULL;
        memset(&desc, 0, sizeof desc);
        desc.trainable = 1;
        fx_arch(&one, &desc.arch);
        CHECK_OK(one.context, gfl_model_create(one.context, &desc, &model));
        if (!model) continue;
        fx_fill_model(model);
        run keep = run_case(one.context, model, &one, true);
        run lean = run_case(one.context, model, &one, false);
        compare(&one, &keep.plan);
        const gfli_map *a = &keep.plan.maps[keep.plan.cls].map;
        const gfli_map *b = &lean.plan.maps[lean.plan.cls].map;
        CHECK(memcmp(a->data, b->data, gfli_map_count(a) * 4) == 0);
        a = &keep.plan.maps[keep.plan.reg].map;
        b = &lean.plan.maps[lean.plan.reg].map;
        CHECK(memcmp(a->data, b->data, gfli_map_count(a) * 4) == 0);
        end_run(one.context, &keep);
        end_run(one.context, &lean);
        gfl_model_destroy(model);
        covered++;
    }
    if (total == 0) return;
    printf("%d of %d cases covered\n", covered, total);
    CHECK(covered == total);
}

/* The state dicts listed with the checkpoints hold our parameters, names and shapes alike. */
static void parameters_are_those_of_the_checkpoints(void) {
    fx_list list = fx_open("checkpoints");
    for (fx_case one; fx_next(&list, &one); fx_free_case(&one)) {
        const fx_json *models = fx_get(&one.json, "models");
        for (int m = 0; models && m < models->n; m++) {
            fx_case net = one;
            gfl_arch arch;
            gfl_preprocess preprocess;
            gfl_model *model = NULL;
            int extra = 0, at = 0;
            memset(&preprocess, 0, sizeof preprocess);
            memset(&net.json, 0, sizeof net.json);
            fx_json block = models->items[m];
            char key[] = "model";
            block.key = key;
            net.json.kind = GFLI_JSON_OBJECT;
            net.json.items = &block;
            net.json.n = 1;
            fx_arch(&net, &arch);
            CHECK_OK(one.context,
                     gfli_model_new(one.context, &arch, &preprocess, NULL, false, &model));
            if (!model) continue;
            const fx_json *entries = fx_get(&models->items[m], "entries");
            for (int i = 0; entries && i < entries->n; i++) {
                const fx_json *e = &entries->items[i];
                if (fx_ends(e->key, "num_batches_tracked") || fx_ends(e->key, "integral.project")) {
                    extra++;
                    continue;
                }
                bool same = at < model->n_params && !strcmp(model->params[at].name, e->key) &&
                            model->params[at].rank == e->n;
                for (int k = 0; same && k < e->n; k++)
                    same = model->params[at].shape[k] == (int64_t)fx_at(e, k)->number;
                if (!same) printf("%s is not parameter %d\n", e->key, at);
                CHECK(same);
                at++;
            }
            CHECK(entries && at == model->n_params && extra > 10);
            printf("%s: %d parameters in the file's order\n", models->items[m].key, at);
            gfl_model_destroy(model);
        }
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(every_map_is_mmdetections), TEST(parameters_are_those_of_the_checkpoints), {0}};
    return test_main(argc, argv, cases);
}
