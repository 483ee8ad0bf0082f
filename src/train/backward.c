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

/* Step i runs forward at moment i and backward at moment 2 n - i, with the losses at moment n
 * between. */
typedef struct gfli_arranger {
    gfl_context *context;
    const gfl_model *model;
    const gfli_train_ops *ops;
    gfli_plan *plan;
    gfli_backward *backward;
    int frozen;
    bool *wanted; /* [n_slots] does the slot have a gradient at all? */
} gfli_arranger;

/* What the backward pass looks at again. */
static void gfli_need_again(gfli_arranger *a) {
    gfli_plan *plan = a->plan;
    for (int i = 0; i < plan->n_steps; i++) {
        const gfli_step *s = &plan->steps[i];
        const int again = 2 * plan->n_steps - i;
        if (s->stage <= a->frozen) continue;
        a->wanted[gfli_plan_root(plan, s->out)] = true;
        if (s->op != GFLI_OP_UPSAMPLE_ADD) gfli_plan_need(plan, s->in, again);
        if (s->offset >= 0) gfli_plan_need(plan, s->offset, again);
        if (s->relu) gfli_plan_need(plan, s->out, again);
    }
}

/* Use the gradient of a slot at a moment; returns whether it was there before. */
static bool gfli_need_grad(gfli_arranger *a, int slot, int moment) {
    gfli_plan *plan = a->plan;
    const int root = gfli_plan_root(plan, slot);
    int *grad = &a->backward->piece[root];
    const bool there = *grad >= 0;
    if (!there) {
        *grad = plan->n_pieces++;
        plan->pieces[*grad].bytes = gfli_map_bytes(&plan->maps[root].map);
        plan->pieces[*grad].last = -1;
    }
    gfli_need(&plan->pieces[*grad], moment);
    return there;
}

/* The gradient of `to` takes over the memory of the gradient of `from`, which has done its work. */
static void gfli_take_grad(gfli_arranger *a, int from, int to) {
    int *piece = a->backward->piece;
    piece[gfli_plan_root(a->plan, to)] = piece[gfli_plan_root(a->plan, from)];
}

static void gfli_need_bytes(size_t *most, size_t bytes) {
    if (bytes > *most) *most = bytes;
}

static void gfli_play_conv(gfli_arranger *a, const gfli_step *s, gfli_backward_step *b,
                           int moment) {
    const gfli_layer *layer = &a->model->layers[s->layer];
    const gfli_map *x = &a->plan->maps[s->in].map;
    gfli_need_bytes(&a->backward->scratch_bytes,
                    a->ops->conv_grad_scratch(a->context, &layer->shape, x));
    b->dx = a->wanted[gfli_plan_root(a->plan, s->in)];
    if (b->dx) {
        b->add = gfli_need_grad(a, s->in, moment);
        gfli_need_bytes(&a->backward->packed_bytes, a->ops->conv_grad_packed_size(&layer->shape));
    }
    int residual = s->residual;
    if (residual < 0 || !a->wanted[gfli_plan_root(a->plan, residual)]) return;
    gfli_take_grad(a, s->out, residual);
}

/* The gradient of the offsets is overwritten: nothing else reads them. */
static void gfli_play_deform(gfli_arranger *a, const gfli_step *s, gfli_backward_step *b,
                             int moment) {
    const gfli_conv_shape *shape = &a->model->layers[s->layer].shape;
    const gfli_map *offset = &a->plan->maps[s->offset].map;
    gfli_need_bytes(&a->backward->scratch_bytes,
                    a->ops->deform_conv_grad_scratch(a->context, shape, offset));
    gfli_need_bytes(&a->backward->packed_bytes, a->ops->deform_conv_grad_packed_size(shape));
    (void)gfli_need_grad(a, s->offset, moment);
    b->dx = a->wanted[gfli_plan_root(a->plan, s->in)];
    if (b->dx) b->add = gfli_need_grad(a, s->in, moment);
}

/* Play the pass, noting who is first to contribute to a gradient.  A map whose place another takes
 * (gfli_net_map.taken) is read by no later step, and its gradient takes the place of the other's.
 * A pyramid is read whole by later steps than its levels are, so a level's gradient is always
 * added. */
static void gfli_play_back(gfli_arranger *a) {
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
        case GFLI_OP_CONV: gfli_play_conv(a, s, b, moment); break;
        case GFLI_OP_DEFORM_CONV: gfli_play_deform(a, s, b, moment); break;
        case GFLI_OP_MAX_POOL:
        case GFLI_OP_UPSAMPLE_ADD:
            b->dx = a->wanted[gfli_plan_root(plan, s->in)];
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

static gfl_status gfli_backward_alloc(gfli_arranger *a) {
    const size_t n_slots = (size_t)a->plan->n_slots, n_steps = (size_t)a->plan->n_steps;
    gfli_plan *plan = a->plan;
    gfli_backward *b = a->backward;
    GFLI_TRY(gfli_calloc(a->context, n_steps, sizeof *b->steps, "backward pass", &b->steps));
    GFLI_TRY(gfli_calloc(a->context, n_slots, sizeof *b->grads, "backward pass", &b->grads));
    GFLI_TRY(gfli_alloc(a->context, n_slots, sizeof *b->piece, "backward pass", &b->piece));
    for (size_t i = 0; i < n_slots; i++) b->piece[i] = -1;
    GFLI_TRY(gfli_grow(a->context, &plan->pieces, &plan->piece_capacity, 2 * n_slots,
                       sizeof *plan->pieces, "backward pass"));
    return gfli_calloc(a->context, n_slots, sizeof *a->wanted, "backward pass", &a->wanted);
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
    out->scratch_bytes = plan->scratch_bytes;
    gfl_status status = gfli_backward_alloc(&a);
    if (status == GFL_OK) {
        gfli_plan_live(plan);
        gfli_need_again(&a);
        gfli_play_back(&a);
        status = gfli_plan_place(context, plan);
    }
    gfli_free(context, a.wanted);
    if (status != GFL_OK) gfli_backward_destroy(context, out);
    return status;
}

void gfli_backward_destroy(gfl_context *context, gfli_backward *backward) {
    gfli_free(context, backward->steps);
    gfli_free(context, backward->grads);
    gfli_free(context, backward->piece);
    memset(backward, 0, sizeof *backward);
}

void gfli_backward_bind(const gfli_plan *plan, gfli_backward *backward, void *workspace) {
    for (int i = 0; i < plan->n_slots; i++) {
        const gfli_slot *slot = &plan->maps[i];
        const int piece = backward->piece[gfli_plan_root(plan, i)];
        if (piece < 0) continue;
        backward->grads[i] = slot->map;
        if (slot->parent < 0)
            backward->grads[i].data = (float *)gfli_piece_at(&plan->pieces[piece], workspace);
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
