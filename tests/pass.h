/* pass.h - a training pass whose gradients are compared with finite differences */
#ifndef GFL_TEST_PASS_H
#define GFL_TEST_PASS_H

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
static inline void put(const bench *t, float *there, const float *from, size_t n) {
    t->context->backend->device.upload(t->context, there, from, n * sizeof *from);
}

static inline void get(const bench *t, float *to, const float *there, size_t n) {
    CHECK_OK(t->context, gfli_fetch(t->model, there, n, to));
}

static inline float *fetched(const bench *t, const gfli_map *m) {
    float *copy = (float *)malloc(gfli_map_bytes(m));
    get(t, copy, m->data, gfli_map_count(m));
    return copy;
}

/* The context then belongs to the bench. */
static inline void open_bench(bench *t, gfl_context *context, const gfl_arch *arch, int frozen,
                              int n, int height, int width) {
    gfl_model_desc desc;
    memset(t, 0, sizeof *t);
    train_micro_desc(&desc, arch->depth, 2);
    desc.arch = *arch;
    t->context = context;
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

static inline void close_bench(bench *t) {
    free(t->picture);
    free(t->a);
    free(t->b);
    gfli_learner_destroy(&t->learner);
    gfl_model_destroy(t->model);
    gfl_context_destroy(t->context);
}

static inline double value(bench *t) {
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
static inline float *gradients(bench *t) {
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
static inline double difference(bench *t, int index, const float *kept, const float *direction,
                                double h) {
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
static inline double best_error(bench *t, int index, const float *g) {
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

static inline double norm_of(const float *g, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)g[i] * (double)g[i];
    return sqrt(sum);
}

/* Every gradient of a pass, of which as many are compared as it returns.  Coarse levels of a small
 * input are so small that group norm makes everything before it constant: gradients that are
 * nothing beside the others are not compared. */
static inline int check_gradients(bench *t, double allowed) {
    float *g = gradients(t);
    double worst = 0, largest = 0;
    int compared = 0, flat = 0;
    for (int i = 0; i < t->model->n_params; i++) {
        size_t offset = t->learner.layout.offset[i];
        CHECK((offset == GFLI_NO_GRADIENT) == t->model->params[i].is_buffer);
        if (offset != GFLI_NO_GRADIENT)
            largest = fmax(largest, norm_of(g + offset, t->model->params[i].count));
    }
    for (int i = 0; i < t->model->n_params; i++) {
        const gfli_param *p = &t->model->params[i];
        const float *own = g + t->learner.layout.offset[i];
        if (p->is_buffer) continue;
        if (norm_of(own, p->count) < 1e-5 * largest) {
            flat++;
            continue;
        }
        double error = best_error(t, i, own);
        worst = fmax(worst, error);
        test_checks++;
        if (!(error < allowed)) {
            printf("  %s: off by %.3g of the norm %.3g\n", p->name, error, norm_of(own, p->count));
            test_fail(__FILE__, __LINE__, p->name);
        }
        compared++;
    }
    printf("  %d tensors, off by at most %.2g of the norm; %d flat ones\n", compared, worst, flat);
    CHECK(flat <= 6);
    free(g);
    return compared;
}

#endif
