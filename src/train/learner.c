/* learner.c - gradients of one batch, and the update */
#pragma once

/* The factors of each trained parameter, on the device. */
static gfl_status gfli_learner_parts(gfli_learner *l) {
    const gfli_dialect *dialect = gfli_dialect_get(l->model->arch.dialect);
    gfli_update_part *parts;
    GFLI_TRY(gfli_alloc(l->context, (size_t)l->model->n_params, sizeof *parts, "update", &parts));
    for (int i = 0; i < l->model->n_params; i++) {
        const gfli_param *p = &l->model->params[i];
        if (l->layout.offset[i] == GFLI_NO_GRADIENT) continue;
        const bool bias = gfli_is_plain_bias(p->name);
        gfli_update_part *part = &parts[l->n_parts++];
        part->first = l->layout.offset[i];
        part->count = p->count;
        part->lr = bias ? dialect->bias_lr : 1;
        part->decay = bias ? dialect->bias_decay : 1;
    }
    const size_t bytes = (size_t)l->n_parts * sizeof *parts;
    const gfl_status status =
        l->model->backend->device.alloc(l->context, bytes, 1, "update", &l->parts);
    if (status == GFL_OK) l->model->backend->device.upload(l->context, l->parts, parts, bytes);
    gfli_free(l->context, parts);
    return status;
}

/* Zeros: the gaps between parameters count in the norm. */
static gfl_status gfli_learner_floats(const gfli_learner *l, const char *what, float **out) {
    const gfli_device_ops *device = &l->model->backend->device;
    GFLI_TRY(device->alloc(l->context, l->layout.floats, sizeof(float), what, out));
    device->zero(l->context, *out, l->layout.floats * sizeof(float));
    return GFL_OK;
}

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
    if (status == GFL_OK) status = gfli_learner_floats(out, "gradients", &out->gradients);
    if (status == GFL_OK) status = gfli_learner_floats(out, "momentum", &out->momentum);
    if (status == GFL_OK) status = gfli_learner_parts(out);
    if (status == GFL_OK)
        status =
            model->backend->device.alloc(context, 1, sizeof *out->verdict, "update", &out->verdict);
    if (status == GFL_OK) status = gfli_learner_begin(out, 1);
    if (status != GFL_OK) gfli_learner_destroy(out);
    return status;
}

void gfli_train_plan_free(gfli_learner *learner, gfli_train_plan *plan) {
    gfli_backward_destroy(learner->context, &plan->backward);
    gfli_plan_destroy(learner->context, &plan->plan);
    memset(plan, 0, sizeof *plan);
}

void gfli_learner_destroy(gfli_learner *learner) {
    gfl_context *context = learner->context;
    if (!context) return;
    void *const device[] = {
        learner->gradients, learner->momentum, learner->total,  learner->workspace, learner->stats,
        learner->scratch,   learner->packing,  learner->gt,     learner->n_pos,     learner->block,
        learner->parts,     learner->losses,   learner->verdict};
    for (int i = 0; i < GFLI_PLANS; i++) gfli_train_plan_free(learner, &learner->plans[i]);
    for (size_t i = 0; i < GFLI_COUNT(device); i++)
        (learner->model->backend->device.free)(context, device[i]);
    gfli_gradients_destroy(context, &learner->layout);
    gfli_free(context, learner->staging);
    memset(learner, 0, sizeof *learner);
}

/* ---- one batch ------------------------------------------------------------------------------- */

gfl_status gfli_train_plan_create(gfli_learner *learner, int n, int height, int width,
                                  gfli_train_plan *out) {
    GFLI_TRY(
        gfli_plan_create(learner->context, learner->model, n, height, width, true, &out->plan));
    gfl_status status = gfli_backward_create(learner->context, learner->model, learner->ops,
                                             &out->plan, learner->frozen_stages, &out->backward);
    if (status != GFL_OK) gfli_train_plan_free(learner, out);
    return status;
}

static gfl_status gfli_learner_plan(gfli_learner *l, int n, int height, int width) {
    bool known;
    const int at = gfli_recent_find(&l->recent, n, height, width, &known);
    gfli_train_plan *plan = &l->plans[at];
    l->current = NULL;
    if (!known) {
        gfli_train_plan_free(l, plan);
        const gfl_status status = gfli_train_plan_create(l, n, height, width, plan);
        if (status != GFL_OK) gfli_recent_forget(&l->recent, at);
        GFLI_TRY(status);
    }
    l->current = plan;
    return GFL_OK;
}

static gfl_status gfli_learner_reserve(gfli_learner *l) {
    gfl_context *context = l->context;
    const gfli_train_plan *p = l->current;
    GFLI_TRY(gfli_reserve_device(context, &l->workspace, &l->workspace_size,
                                 p->plan.workspace_bytes, 1, "maps of a training step"));
    GFLI_TRY(gfli_reserve_device(context, &l->stats, &l->stats_size, p->plan.stats_floats,
                                 sizeof(float), "statistics"));
    GFLI_TRY(gfli_reserve_device(context, &l->packing, &l->packed_size, p->backward.packed_bytes, 1,
                                 "packed weights"));
    return gfli_reserve_device(context, &l->scratch, &l->scratch_size, p->backward.scratch_bytes, 1,
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

/* Where a batch's ground truth lies in one block, on the host and on the device alike. */
typedef struct gfli_truth_block {
    gfli_truth *images;
    float *boxes;
    int32_t *labels;
} gfli_truth_block;

static size_t gfli_cut_truths(int n_images, int n_boxes, void *block, gfli_truth_block *out) {
    gfli_cutter c = {(unsigned char *)block, 0};
    out->images = (gfli_truth *)gfli_cut(&c, (size_t)n_images * sizeof *out->images);
    out->boxes = (float *)gfli_cut(&c, (size_t)n_boxes * 4 * sizeof *out->boxes);
    out->labels = (int32_t *)gfli_cut(&c, (size_t)n_boxes * sizeof *out->labels);
    return c.used;
}

/* The targets of all images in one upload. */
static gfl_status gfli_learner_truths(gfli_learner *l, const gfli_target *targets) {
    gfli_truths *out = &l->truths;
    const int n = l->current->plan.batch;
    gfli_truth_block to;
    int n_boxes = 0;
    for (int i = 0; i < n; i++) n_boxes += targets[i].n;
    const size_t bytes = gfli_cut_truths(n, n_boxes, NULL, &to);
    GFLI_TRY(gfli_reserve(l->context, &l->staging, &l->staging_size, bytes, 1, "targets"));
    GFLI_TRY(gfli_reserve_device(l->context, &l->block, &l->block_size, bytes, 1, "targets"));
    (void)gfli_cut_truths(n, n_boxes, l->staging, &to);
    memset(out, 0, sizeof *out);
    for (int i = 0, at = 0; i < n; at += targets[i++].n) {
        const gfli_target *from = &targets[i];
        const gfli_truth truth = {at, from->n, from->pad_h, from->pad_w};
        to.images[i] = truth;
        if (from->n == 0) continue;
        memcpy(to.boxes + 4 * (size_t)at, from->boxes, (size_t)from->n * 4 * sizeof *to.boxes);
        memcpy(to.labels + at, from->labels, (size_t)from->n * sizeof *to.labels);
        out->most = gfli_max(out->most, from->n);
    }
    l->model->backend->device.upload(l->context, l->block, l->staging, bytes);
    (void)gfli_cut_truths(n, n_boxes, l->block, &to);
    out->n_images = n;
    out->images = to.images;
    out->boxes = to.boxes;
    out->labels = to.labels;
    return GFL_OK;
}

static void gfli_learner_loss_opts(const gfli_learner *l, gfli_loss_opts *out) {
    gfli_loss_opts_init(&l->model->arch, out);
    out->share = 1.0 / l->context->ranks.n_ranks;
    out->rank = l->context->ranks.rank;
}

gfl_status gfli_learner_targets(gfli_learner *l, const gfli_target *targets) {
    const gfli_plan *plan = &l->current->plan;
    const gfli_map *cls = &plan->maps[plan->cls].map;
    gfli_loss_opts opts;
    gfli_learner_loss_opts(l, &opts);
    GFLI_TRY(gfli_learner_truths(l, targets));
    size_t scratch = l->ops->losses_scratch(l->context, cls, &opts);
    const size_t assign = l->ops->assign_scratch(l->context, cls, l->truths.most);
    if (assign > scratch) scratch = assign;
    GFLI_TRY(gfli_reserve_device(l->context, &l->scratch, &l->scratch_size, scratch, 1, "scratch"));
    GFLI_TRY(gfli_reserve_device(l->context, &l->gt, &l->gt_size, gfli_points(cls), sizeof *l->gt,
                                 "assignment"));
    return gfli_reserve_device(l->context, &l->n_pos, &l->n_pos_size, (size_t)plan->batch,
                               sizeof *l->n_pos, "assignment");
}

/* Add up part of the losses over the ranks: n doubles from `offset` on. */
static gfl_status gfli_learner_meet(const gfli_learner *l, gfli_losses *losses, size_t offset,
                                    size_t n) {
    return gfli_group_sum(l->context, (uint8_t *)losses + offset, n, GFL_SUM_F64);
}

/* The normalisers of all ranks, which the losses of each are divided by. */
static gfl_status gfli_learner_normalise(const gfli_learner *l, gfli_losses *losses) {
    GFLI_TRY(gfli_learner_meet(l, losses, 0, GFLI_LOSS_NORMALISERS));
    return gfli_group_settle(l->context, "the normalisers of the losses");
}

static gfl_status gfli_learner_results(const gfli_learner *l, gfli_losses *losses) {
    return gfli_learner_meet(l, losses, offsetof(gfli_losses, cls), GFLI_LOSS_RESULTS);
}

/* Losses, with the gradients of the two outputs. */
static gfl_status gfli_learner_losses(gfli_learner *l, gfli_losses *out) {
    const gfli_plan *plan = &l->current->plan;
    const gfli_map *cls = &plan->maps[plan->cls].map, *reg = &plan->maps[plan->reg].map;
    const gfli_map *grads = l->current->backward.grads;
    const gfli_assignment assigned = {l->gt, l->n_pos};
    gfli_loss_opts opts;
    gfli_assign_opts assign_opts;
    gfli_learner_loss_opts(l, &opts);
    gfli_assign_opts_init(&l->model->arch, &assign_opts);
    l->ops->assign(l->context, cls, &assign_opts, &l->truths, &assigned, l->scratch);
    l->ops->loss_sums(l->context, cls, &assigned, &opts, out, l->scratch);
    GFLI_TRY(gfli_learner_normalise(l, out));
    l->ops->losses(l->context, cls, reg, &l->truths, &assigned, &opts, &grads[plan->cls],
                   &grads[plan->reg], out, l->scratch);
    return gfli_learner_results(l, out);
}

/* The part in the sums of a rank that has no batch. */
static gfl_status gfli_learner_lacks(gfli_learner *l, gfli_losses *out, gfl_status why) {
    gfli_losses none;
    memset(&none, 0, sizeof none);
    none.failed = 1;
    none.failed_rank = l->context->ranks.rank;
    l->failed = why;
    l->model->backend->device.upload(l->context, out, &none, sizeof none);
    GFLI_TRY(gfli_learner_normalise(l, out));
    return gfli_learner_results(l, out);
}

gfl_status gfli_train_gradients(gfli_learner *learner, int batch, gfl_status ready) {
    gfli_losses *losses = learner->losses + batch;
    gfli_train_plan *p = learner->current;
    if (ready != GFL_OK) return gfli_learner_lacks(learner, losses, ready);
    gfli_plan_forward(learner->context, learner->model, &p->plan, learner->stats, learner->scratch);
    GFLI_TRY(gfli_learner_losses(learner, losses));
    gfli_pass pass;
    pass.context = learner->context;
    pass.model = learner->model;
    pass.ops = learner->ops;
    pass.plan = &p->plan;
    pass.backward = &p->backward;
    pass.layout = &learner->layout;
    pass.gradients = learner->gradients;
    pass.stats = learner->stats;
    pass.packing = learner->packing;
    pass.scratch = learner->scratch;
    gfli_backward_run(&pass);
    return GFL_OK;
}

/* ---- the update ------------------------------------------------------------------------------ */

gfl_status gfli_learner_begin(gfli_learner *learner, int n_batches) {
    learner->n_summed = 0;
    learner->n_batches = n_batches;
    learner->failed = GFL_OK;
    if (n_batches > 1 && !learner->total)
        GFLI_TRY(gfli_learner_floats(learner, "sum of gradients", &learner->total));
    return gfli_reserve_device(learner->context, &learner->losses, &learner->losses_size,
                               (size_t)n_batches, sizeof *learner->losses, "losses");
}

void gfli_learner_accumulate(gfli_learner *learner) {
    float *first = learner->gradients;
    if (learner->n_summed++ > 0) {
        learner->ops->accumulate(learner->context, learner->total, first, learner->layout.floats);
        return;
    }
    learner->gradients = learner->total; /* the next batch overwrites all of it */
    learner->total = first;
}

/* losses: of a batch, added up over the ranks. */
static gfl_status gfli_bad_loss(const gfli_learner *l, const gfli_losses *losses) {
    char where[40] = "";
    if (l->context->ranks.n_ranks > 1 && losses->bad > 0)
        snprintf(where, sizeof where, losses->bad > 1 ? " on %.0f ranks" : " on rank %.0f",
                 losses->bad > 1 ? losses->bad : losses->bad_rank);
    return gfli_error(l->context, GFL_E_NONFINITE, "%s is not finite%s", gfli_bad_loss_name(losses),
                      where);
}

/* The text of what the check has found; v->where counts trained parameters. */
static gfl_status gfli_faulty_update(const gfli_learner *l, const gfli_sgd_opts *opts,
                                     const gfli_verdict *v, const gfli_losses *losses) {
    const char *name = "all parameters";
    for (int i = 0, part = 0; i < l->model->n_params && v->where >= 0; i++) {
        if (l->layout.offset[i] == GFLI_NO_GRADIENT) continue;
        if (part++ == v->where) name = l->model->params[i].name;
    }
    switch (v->fault) {
    case GFLI_FAULT_NONE: return GFL_OK;
    case GFLI_FAULT_RANK:
        if (l->failed != GFL_OK) return l->failed; /* its text is there */
        return gfli_group_blame(l->context, losses[v->where].failed, losses[v->where].failed_rank,
                                "a training step");
    case GFLI_FAULT_LOSS: return gfli_bad_loss(l, &losses[v->where]);
    case GFLI_FAULT_GRADIENT:
        return gfli_error(l->context, GFL_E_NONFINITE, "the gradients of %s are not finite", name);
    case GFLI_FAULT_PARAMETER:
    case GFLI_FAULT_MOMENTUM:
        return gfli_error(l->context, GFL_E_NONFINITE, "%s of %s is not finite",
                          v->fault == GFLI_FAULT_PARAMETER ? "a value" : "the momentum", name);
    case GFLI_FAULT_OVERFLOW: break;
    }
    return gfli_error(l->context, GFL_E_NONFINITE,
                      "the update of %s would overflow (values up to %g, momentum %g, gradients "
                      "%g, learning rate %g)",
                      name, v->parameter, v->momentum, v->gradient, opts->lr);
}

/* What the device has to say of the update: the one time in a step that the host waits. */
static gfl_status gfli_learner_hear(gfli_learner *l, gfli_verdict *verdict, gfli_losses *losses) {
    const gfli_device_ops *device = &l->model->backend->device;
    device->download(l->context, losses, l->losses, (size_t)l->n_batches * sizeof *losses);
    device->download(l->context, verdict, l->verdict, sizeof *verdict);
    return device->finish(l->context);
}

/* The gradients of this update, added up over its batches and ranks; all sums are done then. */
static gfl_status gfli_learner_sum(gfli_learner *l, float **out) {
    *out = l->n_summed > 0 ? l->total : l->gradients;
    GFLI_TRY(gfli_group_sum(l->context, *out, l->layout.floats, GFL_SUM_F32));
    return gfli_group_settle(l->context, "the gradients");
}

gfl_status gfli_train_update(gfli_learner *learner, const gfli_sgd_opts *opts, double *norm,
                             gfli_losses *losses) {
    gfli_verdict verdict;
    gfli_update u;
    float *gradients;
    GFLI_TRY(gfli_learner_sum(learner, &gradients));
    memset(&u, 0, sizeof u);
    u.params = learner->model->values + learner->layout.first;
    u.momentum = learner->momentum;
    u.gradients = gradients;
    u.n = learner->layout.floats;
    u.parts = learner->parts;
    u.n_parts = learner->n_parts;
    u.losses = learner->losses;
    u.n_losses = learner->n_batches;
    u.lr = opts->lr;
    u.decay = opts->decay;
    u.momentum_factor = opts->momentum;
    u.share = 1.0 / ((double)learner->n_batches * learner->context->ranks.n_ranks);
    u.clip = opts->clip;
    u.first = learner->updates == 0;
    learner->ops->check_update(learner->context, &u, learner->verdict);
    learner->ops->update(learner->context, &u, learner->verdict);
    GFLI_TRY(gfli_learner_hear(learner, &verdict, losses));
    *norm = verdict.norm;
    GFLI_TRY(gfli_faulty_update(learner, opts, &verdict, losses));
    learner->updates++;
    gfli_model_changed(learner->model, learner->frozen_stages + 1);
    return GFL_OK;
}
