/* backward.c - the backward pass over a plan */
#pragma once

gfl_status gfli_gradients_create(gfl_context *context, const gfl_model *model, int frozen_stages,
                                 gfli_gradients *out) {
    memset(out, 0, sizeof *out);
    GFLI_TRY(gfli_alloc(context, (size_t)model->n_params, sizeof *out->offset, "gradients",
                        &out->offset));
    out->first = gfli_first_trained(model, frozen_stages);
    out->floats = model->n_trained - out->first;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        const bool trained = gfli_is_trained(p, frozen_stages);
        out->offset[i] = trained ? p->offset - out->first : GFLI_NO_GRADIENT;
    }
    return GFL_OK;
}

void gfli_gradients_destroy(gfl_context *context, gfli_gradients *gradients) {
    gfli_free(context, gradients->offset);
    memset(gradients, 0, sizeof *gradients);
}

/* ---- arrangement ----------------------------------------------------------------------------- */

/* Memory that is needed from one moment to another.  Step i runs forward at moment i and backward
 * at 2 n - i, with the losses at moment n between. */
typedef struct gfli_piece {
    size_t floats, offset;
    int first, last;
} gfli_piece;

typedef struct gfli_arranger {
    gfl_context *context;
    const gfl_model *model;
    const gfli_train_ops *ops;
    gfli_plan *plan;
    gfli_backward *backward;
    int frozen;
    gfli_piece *pieces; /* [2 n_slots]: the slots, then gradients */
    int *grad;          /* [n_slots] the piece of a slot's gradient, -1: none yet */
    bool *wanted;       /* [n_slots] does the slot have a gradient at all? */
    int n_pieces;
} gfli_arranger;

static int gfli_root(const gfli_plan *plan, int slot) {
    return plan->maps[slot].parent < 0 ? slot : plan->maps[slot].parent;
}

static void gfli_need_map(gfli_arranger *a, int slot, int moment) {
    gfli_piece *piece = &a->pieces[gfli_root(a->plan, slot)];
    if (piece->first < 0 || piece->first > moment) piece->first = moment;
    if (piece->last < moment) piece->last = moment;
}

/* What the forward pass reads and writes, and what the backward pass looks at again. */
static void gfli_find_map_lives(gfli_arranger *a) {
    const gfli_plan *plan = a->plan;
    for (int i = 0; i < plan->n_slots; i++) {
        a->pieces[i].first = a->pieces[i].last = -1;
        if (plan->maps[i].parent < 0)
            a->pieces[i].floats = (gfli_map_count(&plan->maps[i].map) + 15) / 16 * 16;
    }
    gfli_need_map(a, plan->input, 0);
    gfli_need_map(a, plan->cls, plan->n_steps);
    gfli_need_map(a, plan->reg, plan->n_steps);
    for (int i = 0; i < plan->n_steps; i++) {
        const gfli_step *s = &plan->steps[i];
        int again = 2 * plan->n_steps - i;
        gfli_need_map(a, s->in, i);
        gfli_need_map(a, s->out, i);
        if (s->residual >= 0) gfli_need_map(a, s->residual, i);
        if (s->offset >= 0) gfli_need_map(a, s->offset, i);
        if (s->stage <= a->frozen) continue;
        a->wanted[gfli_root(plan, s->out)] = true;
        if (s->op != GFLI_OP_UPSAMPLE_ADD) gfli_need_map(a, s->in, again);
        if (s->offset >= 0) gfli_need_map(a, s->offset, again);
        if (s->relu) gfli_need_map(a, s->out, again);
    }
}

/* Use the gradient of a slot at a moment; returns whether it was there before. */
static bool gfli_need_grad(gfli_arranger *a, int slot, int moment) {
    int root = gfli_root(a->plan, slot);
    bool there = a->grad[root] >= 0;
    if (!there) {
        gfli_piece *piece = &a->pieces[a->n_pieces];
        a->grad[root] = a->n_pieces++;
        piece->floats = a->pieces[root].floats;
        piece->first = moment;
    }
    a->pieces[a->grad[root]].last = moment;
    return there;
}

/* The gradient of `to` takes over the memory of the gradient of `from`, which has done its work. */
static void gfli_take_grad(gfli_arranger *a, int from, int to) {
    a->grad[gfli_root(a->plan, to)] = a->grad[gfli_root(a->plan, from)];
}

static void gfli_need_bytes(size_t *most, size_t bytes) {
    if (bytes > *most) *most = bytes;
}

static void gfli_arrange_conv(gfli_arranger *a, const gfli_step *s, gfli_backward_step *b,
                              int moment) {
    const gfli_layer *layer = &a->model->layers[s->layer];
    const gfli_map *x = &a->plan->maps[s->in].map;
    gfli_need_bytes(&a->backward->scratch_bytes,
                    a->ops->conv_grad_scratch(a->context, &layer->shape, x));
    b->dx = a->wanted[gfli_root(a->plan, s->in)];
    if (b->dx) {
        b->add = gfli_need_grad(a, s->in, moment);
        gfli_need_bytes(&a->backward->packed_bytes, a->ops->conv_grad_packed_size(&layer->shape));
    }
    int residual = s->residual;
    if (residual < 0 || !a->wanted[gfli_root(a->plan, residual)]) return;
    gfli_take_grad(a, s->out, residual);
}

/* The gradient of the offsets is overwritten: nothing else reads them. */
static void gfli_arrange_deform(gfli_arranger *a, const gfli_step *s, gfli_backward_step *b,
                                int moment) {
    const gfli_conv_shape *shape = &a->model->layers[s->layer].shape;
    const gfli_map *offset = &a->plan->maps[s->offset].map;
    gfli_need_bytes(&a->backward->scratch_bytes,
                    a->ops->deform_conv_grad_scratch(a->context, shape, offset));
    gfli_need_bytes(&a->backward->packed_bytes, a->ops->deform_conv_grad_packed_size(shape));
    (void)gfli_need_grad(a, s->offset, moment);
    b->dx = a->wanted[gfli_root(a->plan, s->in)];
    if (b->dx) b->add = gfli_need_grad(a, s->in, moment);
}

/* Play the pass, noting who is first to contribute to a gradient.  A map whose place another takes
 * (gfli_net_map.taken) is read by no later step, and its gradient takes the place of the other's.
 * A pyramid is read whole by later steps than its levels are, so a level's gradient is always
 * added. */
static void gfli_arrange(gfli_arranger *a) {
    const gfli_plan *plan = a->plan;
    (void)gfli_need_grad(a, plan->cls, plan->n_steps);
    (void)gfli_need_grad(a, plan->reg, plan->n_steps);
    for (int i = plan->n_steps - 1; i >= 0; i--) {
        const gfli_step *s = &plan->steps[i];
        gfli_backward_step *b = &a->backward->steps[i];
        int moment = 2 * plan->n_steps - i;
        if (s->stage <= a->frozen) continue;
        b->runs = true;
        (void)gfli_need_grad(a, s->out, moment);
        switch (s->op) {
        case GFLI_OP_CONV: gfli_arrange_conv(a, s, b, moment); break;
        case GFLI_OP_DEFORM_CONV: gfli_arrange_deform(a, s, b, moment); break;
        case GFLI_OP_MAX_POOL:
        case GFLI_OP_UPSAMPLE_ADD:
            b->dx = a->wanted[gfli_root(plan, s->in)];
            if (b->dx) b->add = gfli_need_grad(a, s->in, moment);
            break;
        case GFLI_OP_GROUP_NORM:
            gfli_need_bytes(&a->backward->scratch_bytes,
                            a->ops->group_norm_grad_scratch(a->context, &plan->maps[s->in].map));
            gfli_take_grad(a, s->out, s->in);
            break;
        case GFLI_OP_LEVEL_SCALE: gfli_take_grad(a, s->out, s->in); break;
        }
    }
}

/* Lowest place for piece `at` among the placed ones, which are kept in the order of places. */
static void gfli_place_piece(gfli_piece *pieces, int *placed, int n_placed, int at) {
    gfli_piece *piece = &pieces[at];
    size_t offset = 0;
    for (int k = 0; k < n_placed; k++) {
        const gfli_piece *other = &pieces[placed[k]];
        if (piece->first > other->last || other->first > piece->last) continue;
        if (offset + piece->floats <= other->offset) break;
        if (other->offset + other->floats > offset) offset = other->offset + other->floats;
    }
    piece->offset = offset;
    int k = n_placed;
    for (; k > 0 && pieces[placed[k - 1]].offset > offset; k--) placed[k] = placed[k - 1];
    placed[k] = at;
}

/* Largest first; equal ones in the order of the pieces. */
static gfl_status gfli_place_pieces(gfli_arranger *a) {
    int *order, *placed, n = 0;
    size_t end = 0;
    GFLI_TRY(gfli_alloc(a->context, 2 * (size_t)a->n_pieces, sizeof *order, "plan", &order));
    placed = order + a->n_pieces;
    for (int i = 0; i < a->n_pieces; i++) {
        if (a->pieces[i].floats == 0) continue; /* a view */
        int k = n++;
        for (; k > 0 && a->pieces[order[k - 1]].floats < a->pieces[i].floats; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
    for (int i = 0; i < n; i++) {
        const gfli_piece *piece = &a->pieces[order[i]];
        gfli_place_piece(a->pieces, placed, i, order[i]);
        if (piece->offset + piece->floats > end) end = piece->offset + piece->floats;
    }
    gfli_free(a->context, order);
    a->plan->workspace_floats = end;
    for (int i = 0; i < a->plan->n_slots; i++) {
        int grad = a->grad[gfli_root(a->plan, i)];
        if (a->plan->maps[i].parent < 0) a->plan->maps[i].offset = a->pieces[i].offset;
        a->backward->offset[i] = grad < 0 ? GFLI_NO_GRADIENT : a->pieces[grad].offset;
    }
    return GFL_OK;
}

static gfl_status gfli_backward_alloc(gfli_arranger *a) {
    size_t n_slots = (size_t)a->plan->n_slots, n_steps = (size_t)a->plan->n_steps;
    gfli_backward *b = a->backward;
    GFLI_TRY(gfli_calloc(a->context, n_steps, sizeof *b->steps, "backward pass", &b->steps));
    GFLI_TRY(gfli_calloc(a->context, n_slots, sizeof *b->grads, "backward pass", &b->grads));
    GFLI_TRY(gfli_calloc(a->context, n_slots, sizeof *b->offset, "backward pass", &b->offset));
    GFLI_TRY(gfli_calloc(a->context, n_slots, sizeof *a->wanted, "backward pass", &a->wanted));
    GFLI_TRY(gfli_alloc(a->context, n_slots, sizeof *a->grad, "backward pass", &a->grad));
    return gfli_calloc(a->context, 2 * n_slots, sizeof *a->pieces, "backward pass", &a->pieces);
}

gfl_status gfli_backward_create(gfl_context *context, const gfl_model *model,
                                const gfli_train_ops *ops, gfli_plan *plan, int frozen_stages,
                                gfli_backward *out) {
    gfli_arranger a;
    memset(&a, 0, sizeof a);
    memset(out, 0, sizeof *out);
    a.context = context;
    a.model = model;
    a.ops = ops;
    a.plan = plan;
    a.backward = out;
    a.frozen = frozen_stages;
    a.n_pieces = plan->n_slots;
    out->scratch_bytes = plan->scratch_bytes;
    gfl_status status = gfli_backward_alloc(&a);
    if (status == GFL_OK) {
        for (int i = 0; i < plan->n_slots; i++) a.grad[i] = -1;
        gfli_find_map_lives(&a);
        gfli_arrange(&a);
        status = gfli_place_pieces(&a);
    }
    gfli_free(context, a.pieces);
    gfli_free(context, a.grad);
    gfli_free(context, a.wanted);
    if (status != GFL_OK) gfli_backward_destroy(context, out);
    return status;
}

void gfli_backward_destroy(gfl_context *context, gfli_backward *backward) {
    gfli_free(context, backward->steps);
    gfli_free(context, backward->grads);
    gfli_free(context, backward->offset);
    memset(backward, 0, sizeof *backward);
}

void gfli_backward_bind(const gfli_plan *plan, gfli_backward *backward, float *workspace) {
    for (int i = 0; i < plan->n_slots; i++) {
        const gfli_slot *slot = &plan->maps[i];
        if (backward->offset[i] == GFLI_NO_GRADIENT) continue;
        backward->grads[i] = slot->map;
        if (slot->parent < 0)
            backward->grads[i].data = workspace + backward->offset[i];
        else /* a view comes after its parent */
            backward->grads[i] = gfli_map_level(&backward->grads[slot->parent], slot->level);
    }
}

/* ---- the pass -------------------------------------------------------------------------------- */

static float *gfli_gradient_of(const gfli_pass *pass, int param) {
    return param < 0 ? NULL : pass->gradients + pass->layout->offset[param];
}

static void gfli_backward_unfold(const gfli_pass *pass, const gfli_layer *layer) {
    const gfli_param *params = pass->model->params;
    const gfli_unfold call = {&layer->shape,
                              params[layer->weight].data,
                              layer->folded_scale,
                              params[layer->bn_mean].data,
                              params[layer->bn_var].data,
                              GFLI_NORM_EPS,
                              gfli_gradient_of(pass, layer->weight),
                              gfli_gradient_of(pass, layer->bn_beta),
                              gfli_gradient_of(pass, layer->bn_gamma)};
    pass->ops->unfold(pass->context, &call);
}

static void gfli_backward_conv(const gfli_pass *pass, const gfli_step *s,
                               const gfli_backward_step *b) {
    const gfli_train_ops *ops = pass->ops;
    const gfli_layer *layer = &pass->model->layers[s->layer];
    const gfli_map *grads = pass->backward->grads, *dy = &grads[s->out];
    if (s->relu) ops->relu_grad(pass->context, &pass->plan->maps[s->out].map, dy);
    int bias = layer->bn_beta >= 0 ? layer->bn_beta : layer->bias;
    ops->conv_grad_weight(pass->context, &layer->shape, &pass->plan->maps[s->in].map, dy,
                          gfli_gradient_of(pass, layer->weight), gfli_gradient_of(pass, bias),
                          pass->scratch);
    if (layer->bn_gamma >= 0) gfli_backward_unfold(pass, layer);
    if (!b->dx) return;
    ops->conv_grad_pack(pass->context, &layer->shape, pass->model->params[layer->weight].data,
                        layer->folded_scale, pass->packing);
    ops->conv_grad_input(pass->context, &layer->shape, pass->packing, dy, b->add, &grads[s->in],
                         pass->scratch);
}

static void gfli_backward_deform(const gfli_pass *pass, const gfli_step *s,
                                 const gfli_backward_step *b) {
    const gfli_train_ops *ops = pass->ops;
    const gfli_layer *layer = &pass->model->layers[s->layer];
    const gfli_slot *maps = pass->plan->maps;
    const gfli_map *grads = pass->backward->grads, *dy = &grads[s->out];
    if (s->relu) ops->relu_grad(pass->context, &maps[s->out].map, dy);
    ops->deform_conv_grad_pack(pass->context, &layer->shape,
                               pass->model->params[layer->weight].data, layer->folded_scale,
                               pass->packing);
    ops->deform_conv_grad(pass->context, &layer->shape, pass->packing, &maps[s->in].map,
                          &maps[s->offset].map, dy, b->add, b->dx ? &grads[s->in] : NULL,
                          &grads[s->offset], gfli_gradient_of(pass, layer->weight),
                          gfli_gradient_of(pass, layer->bn_beta), pass->scratch);
    gfli_backward_unfold(pass, layer);
}

static void gfli_backward_scale(const gfli_pass *pass, const gfli_step *s) {
    const gfli_map *grads = pass->backward->grads;
    pass->ops->level_scale_grad(pass->context, &pass->plan->maps[s->in].map,
                                pass->model->params[s->scale].data, &grads[s->out], &grads[s->in],
                                gfli_gradient_of(pass, s->scale));
}

void gfli_backward_run(const gfli_pass *pass) {
    const gfli_train_ops *ops = pass->ops;
    const gfli_slot *maps = pass->plan->maps;
    const gfli_map *grads = pass->backward->grads;
    for (int i = pass->plan->n_steps - 1; i >= 0; i--) {
        const gfli_step *s = &pass->plan->steps[i];
        const gfli_backward_step *b = &pass->backward->steps[i];
        if (!b->runs) continue;
        switch (s->op) {
        case GFLI_OP_CONV: gfli_backward_conv(pass, s, b); break;
        case GFLI_OP_DEFORM_CONV: gfli_backward_deform(pass, s, b); break;
        case GFLI_OP_MAX_POOL:
            if (b->dx)
                ops->max_pool_grad(pass->context, &maps[s->in].map, &grads[s->out], b->add,
                                   &grads[s->in]);
            break;
        case GFLI_OP_UPSAMPLE_ADD:
            if (b->dx) ops->upsample_grad(pass->context, &grads[s->out], b->add, &grads[s->in]);
            break;
        case GFLI_OP_GROUP_NORM:
            ops->group_norm_grad(pass->context, &maps[s->in].map, &maps[s->out].map, GFLI_GN_GROUPS,
                                 pass->model->params[s->gamma].data, pass->stats + s->stats,
                                 &grads[s->out], &grads[s->in], gfli_gradient_of(pass, s->gamma),
                                 gfli_gradient_of(pass, s->beta), pass->scratch);
            break;
        case GFLI_OP_LEVEL_SCALE: gfli_backward_scale(pass, s); break;
        }
    }
}
