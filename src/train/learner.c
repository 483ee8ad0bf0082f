/* learner.c - gradients of one batch, and the update */
#pragma once

gfl_status gfli_learner_create(gfl_context *context, gfl_model *model, int frozen_stages,
                               gfli_learner *out) {
    memset(out, 0, sizeof *out);
    out->context = context;
    out->model = model;
    out->ops = gfli_train_ops_of(context);
    if (!out->ops)
        return gfli_error(context, GFL_E_UNSUPPORTED, "%s cannot train; use a context on the CPU",
                          context->device_name);
    out->frozen_stages = frozen_stages;
    gfl_status status = gfli_gradients_create(context, model, frozen_stages, &out->layout);
    size_t n = out->layout.floats;
    if (status == GFL_OK) /* cleared: the gaps between parameters count in the norm */
        status = gfli_calloc(context, n, sizeof(float), "gradients", &out->gradients);
    if (status == GFL_OK)
        status = gfli_calloc(context, n, sizeof(float), "momentum", &out->momentum);
    if (status != GFL_OK) gfli_learner_destroy(out);
    return status;
}

static void gfli_train_plan_free(gfli_learner *learner, gfli_train_plan *plan) {
    gfli_backward_destroy(learner->context, &plan->backward);
    gfli_plan_destroy(learner->context, &plan->plan);
    memset(plan, 0, sizeof *plan);
}

void gfli_learner_destroy(gfli_learner *learner) {
    gfl_context *context = learner->context;
    if (!context) return;
    for (int i = 0; i < GFLI_TRAIN_PLANS; i++) gfli_train_plan_free(learner, &learner->plans[i]);
    gfli_gradients_destroy(context, &learner->layout);
    gfli_free(context, learner->gradients);
    gfli_free(context, learner->momentum);
    gfli_free(context, learner->total);
    gfli_free(context, learner->workspace);
    gfli_free(context, learner->stats);
    gfli_free(context, learner->scratch);
    gfli_free(context, learner->packed);
    gfli_free(context, learner->gt);
    gfli_free(context, learner->n_pos);
    memset(learner, 0, sizeof *learner);
}

/* ---- one batch ------------------------------------------------------------------------------- */

static gfl_status gfli_train_plan_create(gfli_learner *learner, int n, int height, int width,
                                         gfli_train_plan *out) {
    GFLI_TRY(
        gfli_plan_create(learner->context, learner->model, n, height, width, true, &out->plan));
    gfl_status status = gfli_backward_create(learner->context, learner->model, learner->ops,
                                             &out->plan, learner->frozen_stages, &out->backward);
    if (status != GFL_OK) gfli_train_plan_free(learner, out);
    return status;
}

/* The plan of a batch shape: kept ones are tried first, the least recently used makes room. */
static gfl_status gfli_learner_plan(gfli_learner *learner, int n, int height, int width) {
    gfli_train_plan *oldest = &learner->plans[0];
    learner->current = NULL;
    for (int i = 0; i < GFLI_TRAIN_PLANS; i++) {
        gfli_train_plan *p = &learner->plans[i];
        if (p->plan.batch == n && p->plan.height == height && p->plan.width == width)
            learner->current = p;
        if (p->used < oldest->used) oldest = p;
    }
    if (!learner->current) {
        gfli_train_plan_free(learner, oldest);
        GFLI_TRY(gfli_train_plan_create(learner, n, height, width, oldest));
        learner->current = oldest;
    }
    learner->current->used = ++learner->clock;
    return GFL_OK;
}

static gfl_status gfli_learner_reserve(gfli_learner *l) {
    gfl_context *context = l->context;
    const gfli_train_plan *p = l->current;
    GFLI_TRY(gfli_reserve(context, &l->workspace, &l->workspace_size, p->plan.workspace_floats,
                          sizeof(float), "maps of a training step"));
    GFLI_TRY(gfli_reserve(context, &l->stats, &l->stats_size, p->plan.stats_floats, sizeof(float),
                          "statistics"));
    GFLI_TRY(gfli_reserve(context, &l->packed, &l->packed_size, p->backward.packed_bytes, 1,
                          "packed weights"));
    return gfli_reserve(context, &l->scratch, &l->scratch_size, p->backward.scratch_bytes, 1,
                        "scratch of a training step");
}

gfl_status gfli_learner_input(gfli_learner *learner, int n, int height, int width,
                              gfli_map *input) {
    GFLI_TRY(gfli_model_pack(learner->model));
    GFLI_TRY(gfli_learner_plan(learner, n, height, width));
    gfl_status status = gfli_learner_reserve(learner);
    gfli_train_plan *p = learner->current;
    if (status != GFL_OK) {
        learner->current = NULL;
        return status;
    }
    gfli_plan_bind(&p->plan, learner->workspace);
    gfli_backward_bind(&p->plan, &p->backward, learner->workspace);
    *input = p->plan.maps[p->plan.input].map;
    return GFL_OK;
}

static gfl_status gfli_check_losses(gfl_context *context, const gfli_losses *losses) {
    for (int l = 0; l < GFL_LEVELS; l++) {
        const double values[3] = {losses->cls[l], losses->bbox[l], losses->dfl[l]};
        for (int k = 0; k < 3; k++)
            if (!gfli_is_finite(values[k]))
                return gfli_error(context, GFL_E_NONFINITE, "loss_%s is not finite",
                                  k == 0 ? "cls" : (k == 1 ? "bbox" : "dfl"));
    }
    return GFL_OK;
}

/* Targets and losses, with the gradients of the two outputs. */
static gfl_status gfli_learner_losses(gfli_learner *l, const gfli_truth *truths, gfli_losses *out) {
    const gfli_plan *plan = &l->current->plan;
    const gfli_map *cls = &plan->maps[plan->cls].map, *reg = &plan->maps[plan->reg].map;
    const gfli_map *grads = l->current->backward.grads;
    gfli_loss_opts opts;
    gfli_assign_opts assign_opts;
    gfli_assignment assigned;
    int most = 0;
    gfli_loss_opts_init(&l->model->arch, &opts);
    gfli_assign_opts_init(&l->model->arch, &assign_opts);
    for (int i = 0; i < plan->batch; i++) most = gfli_max(most, truths[i].n);
    size_t scratch = l->ops->losses_scratch(l->context, cls, &opts);
    size_t assign = l->ops->assign_scratch(l->context, cls, most);
    if (assign > scratch) scratch = assign;
    GFLI_TRY(gfli_reserve(l->context, &l->scratch, &l->scratch_size, scratch, 1, "scratch"));
    GFLI_TRY(gfli_reserve(l->context, &l->gt, &l->gt_size, gfli_points(cls), sizeof *l->gt,
                          "assignment"));
    GFLI_TRY(gfli_reserve(l->context, &l->n_pos, &l->n_pos_size, (size_t)plan->batch,
                          sizeof *l->n_pos, "assignment"));
    assigned.gt = l->gt;
    assigned.n_pos = l->n_pos;
    l->ops->assign(l->context, cls, &assign_opts, truths, &assigned, l->scratch);
    l->ops->losses(l->context, cls, reg, truths, &assigned, &opts, &grads[plan->cls],
                   &grads[plan->reg], out, l->scratch);
    return gfli_check_losses(l->context, out);
}

gfl_status gfli_train_gradients(gfli_learner *learner, const gfli_truth *truths, gfli_losses *out) {
    gfli_train_plan *p = learner->current;
    memset(out, 0, sizeof *out);
    gfli_plan_forward(learner->context, learner->model, &p->plan, learner->stats, learner->scratch);
    GFLI_TRY(gfli_learner_losses(learner, truths, out));
    gfli_pass pass;
    pass.context = learner->context;
    pass.model = learner->model;
    pass.ops = learner->ops;
    pass.plan = &p->plan;
    pass.backward = &p->backward;
    pass.layout = &learner->layout;
    pass.gradients = learner->gradients;
    pass.stats = learner->stats;
    pass.packed = learner->packed;
    pass.scratch = learner->scratch;
    gfli_backward_run(&pass);
    return GFL_OK;
}

const float *gfli_train_gradient(const gfli_learner *learner, int i) {
    size_t offset = learner->layout.offset[i];
    return offset == GFLI_NO_GRADIENT ? NULL : learner->gradients + offset;
}

/* ---- the update ------------------------------------------------------------------------------ */

gfl_status gfli_learner_accumulate(gfli_learner *learner) {
    size_t n = learner->layout.floats;
    if (!learner->total)
        GFLI_TRY(
            gfli_alloc(learner->context, n, sizeof(float), "sum of gradients", &learner->total));
    if (learner->n_batches == 0)
        memcpy(learner->total, learner->gradients, n * sizeof(float));
    else
        for (size_t i = 0; i < n; i++) learner->total[i] += learner->gradients[i];
    learner->n_batches++;
    return GFL_OK;
}

void gfli_learner_forget(gfli_learner *learner) {
    learner->n_batches = 0;
}

/* How the update moves parameter i. */
static gfli_sgd_opts gfli_sgd_of(const gfli_learner *learner, int i, const gfli_sgd_opts *opts) {
    const gfli_dialect *dialect = gfli_dialect_get(learner->model->arch.dialect);
    gfli_sgd_opts own = *opts;
    if (gfli_is_plain_bias(learner->model->params[i].name)) {
        own.lr *= dialect->bias_lr;
        own.decay *= dialect->bias_decay;
    }
    return own;
}

/* No sum or product of an update is larger than the last of these, but for rounding, where p, v and
 * g are the largest magnitudes of parameters, momentum and (scaled) gradients. */
static bool gfli_update_fits(const gfli_sgd_opts *opts, double p, double v, double g) {
    const double most = (double)FLT_MAX * (1 - 1e-6);
    if (!gfli_is_finite(p) || !gfli_is_finite(v) || opts->lr > most || opts->decay > most)
        return false;
    const double moved = opts->momentum * v + g + opts->decay * p;
    return moved <= most && p + opts->lr * moved <= most;
}

static gfl_status gfli_would_overflow(gfl_context *context, const char *name,
                                      const gfli_sgd_opts *opts, double p, double v, double g) {
    if (!gfli_is_finite(p) || !gfli_is_finite(v))
        return gfli_error(context, GFL_E_NONFINITE, "%s of %s is not finite",
                          gfli_is_finite(p) ? "the momentum" : "a value", name);
    return gfli_error(context, GFL_E_NONFINITE,
                      "the update of %s would overflow (values up to %g, momentum %g, gradients "
                      "%g, learning rate %g)",
                      name, p, v, g, opts->lr);
}

/* Before the first parameter moves.  share: what gradients are multiplied with; largest: the
 * largest of them all. */
static gfl_status gfli_check_update(const gfli_learner *l, const float *gradients,
                                    const gfli_sgd_opts *opts, double share, double largest) {
    for (int i = 0; i < l->model->n_params; i++) {
        const gfli_param *param = &l->model->params[i];
        const size_t offset = l->layout.offset[i];
        gfli_extent p, v, g;
        if (offset == GFLI_NO_GRADIENT) continue;
        const gfli_sgd_opts own = gfli_sgd_of(l, i, opts);
        l->ops->measure(l->context, param->data, param->count, &p);
        l->ops->measure(l->context, l->momentum + offset, l->updates ? param->count : 0, &v);
        if (gfli_update_fits(&own, p.largest, v.largest, share * largest)) continue;
        l->ops->measure(l->context, gradients + offset, param->count, &g);
        if (!gfli_update_fits(&own, p.largest, v.largest, share * g.largest))
            return gfli_would_overflow(l->context, param->name, &own, p.largest, v.largest,
                                       share * g.largest);
    }
    return GFL_OK;
}

static gfl_status gfli_bad_gradients(const gfli_learner *l, const float *gradients) {
    for (int i = 0; i < l->model->n_params; i++) {
        const size_t offset = l->layout.offset[i];
        gfli_extent g;
        if (offset == GFLI_NO_GRADIENT) continue;
        l->ops->measure(l->context, gradients + offset, l->model->params[i].count, &g);
        if (!gfli_is_finite(g.largest))
            return gfli_error(l->context, GFL_E_NONFINITE, "the gradients of %s are not finite",
                              l->model->params[i].name);
    }
    return gfli_error(l->context, GFL_E_NONFINITE, "the gradients are not finite");
}

gfl_status gfli_train_update(gfli_learner *learner, const gfli_sgd_opts *opts, double *norm) {
    const float *gradients = learner->n_batches > 0 ? learner->total : learner->gradients;
    double share = learner->n_batches > 0 ? 1.0 / learner->n_batches : 1;
    gfli_extent all;
    learner->ops->measure(learner->context, gradients, learner->layout.floats, &all);
    *norm = share * (sqrt)(all.squares);
    learner->n_batches = 0;
    if (!gfli_is_finite(*norm)) return gfli_bad_gradients(learner, gradients);
    if (opts->clip > 0 && *norm > opts->clip) share *= opts->clip / (*norm + 1e-6);
    GFLI_TRY(gfli_check_update(learner, gradients, opts, share, all.largest));
    for (int i = 0; i < learner->model->n_params; i++) {
        const gfli_param *p = &learner->model->params[i];
        size_t offset = learner->layout.offset[i];
        if (offset == GFLI_NO_GRADIENT) continue;
        const gfli_sgd_opts own = gfli_sgd_of(learner, i, opts);
        learner->ops->sgd(learner->context, p->data, learner->momentum + offset, gradients + offset,
                          p->count, own.lr, own.momentum, own.decay, share, learner->updates == 0);
    }
    learner->updates++;
    gfli_model_changed(learner->model, learner->frozen_stages + 1);
    return GFL_OK;
}
