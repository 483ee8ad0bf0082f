/* plan.c - a network for an input size: its steps, and where each map lives */
#pragma once

/* Positions and floats must be countable: everything downstream multiplies without checks. */
static gfl_status gfli_check_map(gfl_context *context, const gfli_map *map) {
    size_t points = 0;
    for (int l = 0; l < map->levels; l++) {
        size_t level, area;
        if (!gfli_mul((size_t)map->h[l], (size_t)map->w[l], &area) ||
            !gfli_mul(area, (size_t)map->n, &level) || level > INT_MAX - points)
            return gfli_error(
                context, GFL_E_MEMORY,
                "a map of %d x %d x %d positions is too large; use a smaller batch or "
                "smaller images",
                map->n, map->h[l], map->w[l]);
        points += level;
    }
    size_t floats;
    if (!gfli_mul(points, (size_t)map->c, &floats) || floats > SIZE_MAX / 64)
        return gfli_error(
            context, GFL_E_MEMORY,
            "a map of %zu positions and %d channels is too large; use a smaller batch "
            "or smaller images",
            points, map->c);
    return GFL_OK;
}

/* ---- maps ------------------------------------------------------------------------------------ */

/* The next slot, which holds this map of the network. */
static gfl_status gfli_new_slot(gfl_context *context, const gfli_net_map *maps, int map,
                                const gfli_map *size, gfli_plan *plan) {
    const gfli_net_map *m = &maps[map];
    GFLI_TRY(gfli_check_map(context, size));
    if (m->parent >= 0 && plan->maps[m->parent].held < 0)
        GFLI_TRY(gfli_new_slot(context, maps, m->parent, size, plan));
    gfli_slot *slot = &plan->maps[plan->n_slots];
    slot->map = *size;
    slot->map.c = m->c;
    slot->map.element = context->element;
    slot->parent = -1;
    slot->name = m->name;
    plan->maps[map].held = plan->n_slots++;
    if (m->parent < 0) return GFL_OK;
    slot->parent = plan->maps[m->parent].held;
    slot->level = m->level;
    gfli_map *whole = &plan->maps[slot->parent].map;
    whole->levels = m->level + 1;
    whole->h[m->level] = size->h[0];
    whole->w[m->level] = size->w[0];
    return gfli_check_map(context, whole);
}

/* What a step makes of a map of this size. */
static gfli_map gfli_step_size(const gfl_model *model, const gfli_step *s, const gfli_map *in) {
    static const gfli_conv_shape pool = {1, 1, 3, 2, 1, 1};
    const gfli_conv_shape *shape = s->op == GFLI_OP_MAX_POOL ? &pool : NULL;
    gfli_map out = *in;
    if (s->layer >= 0) shape = &model->layers[s->layer].shape;
    for (int l = 0; shape && l < out.levels; l++) {
        out.h[l] = gfli_conv_out(shape, in->h[l]);
        out.w[l] = gfli_conv_out(shape, in->w[l]);
    }
    out.c = model->network.maps[s->out].c;
    return out;
}

/* Slots for the maps of the network, in their order; where nothing need be kept, maps take the
 * places of those that they are made of. */
static gfl_status gfli_plan_slots(gfl_context *context, const gfl_model *model, gfli_plan *plan) {
    const gfli_network *net = &model->network;
    gfli_map size;
    memset(plan->maps, 0, (size_t)net->n_maps * sizeof *plan->maps);
    memset(&size, 0, sizeof size);
    for (int i = 0; i < net->n_maps; i++) plan->maps[i].held = -1;
    size.n = plan->batch;
    size.c = 3;
    size.levels = 1;
    size.h[0] = plan->height;
    size.w[0] = plan->width;
    GFLI_TRY(gfli_new_slot(context, net->maps, net->input, &size, plan));
    for (int i = 0; i < net->n_steps; i++) {
        const gfli_step *s = &net->steps[i];
        const gfli_net_map *out = &net->maps[s->out];
        const int over = out->over < 0 || plan->training ? -1 : plan->maps[out->over].held;
        if (plan->maps[s->out].held >= 0) continue; /* a step that adds to what is there */
        plan->maps[s->out].held = over;
        size = gfli_step_size(model, s, &plan->maps[plan->maps[s->in].held].map);
        if (over < 0)
            GFLI_TRY(gfli_new_slot(context, net->maps, s->out, &size, plan));
        else if (out->name)
            plan->maps[over].name = out->name;
    }
    return GFL_OK;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* One side of the head to its end before the other begins, which needs the least memory; or both
 * at once. */
static bool gfli_sides_together(const gfl_model *model, const gfli_plan *plan) {
    return model->backend->fuses && !plan->training;
}

/* Where a norm's statistics are.  Inference forgets them after the step. */
static void gfli_place_stats(gfli_plan *plan, gfli_step *norm, bool second) {
    const gfli_map *map = &plan->maps[norm->in].map;
    const int size = map->levels * map->n * GFLI_GN_GROUPS * 2;
    norm->stats = plan->training ? (int)plan->stats_floats : second ? size : 0;
    const size_t end = (size_t)norm->stats + (size_t)size;
    if (end > plan->stats_floats) plan->stats_floats = end;
}

/* Let the convolution of both sides, which is the nearest before a norm, leave its statistics. */
static void gfli_give_stats(gfli_step *norm) {
    gfli_step *conv = norm - 1;
    while (conv->op != GFLI_OP_CONV) conv--;
    *(conv->out == norm->in ? &conv->stats : &conv->twin.stats) = norm->stats;
    norm->given = true;
}

/* Step i of the network, between slots; second: beside the one before it. */
static gfli_step *gfli_plan_append(const gfl_model *model, int i, bool second, gfli_plan *plan) {
    gfli_step *step = &plan->steps[plan->n_steps++];
    *step = model->network.steps[i];
    int *const maps[] = {&step->in, &step->out, &step->residual, &step->offset};
    for (size_t k = 0; k < GFLI_COUNT(maps); k++)
        if (*maps[k] >= 0) *maps[k] = plan->maps[*maps[k]].held;
    if (step->layer >= 0)
        step->macs = (int64_t)gfli_points(&plan->maps[step->out].map) *
                     (int64_t)gfli_conv_weights(&model->layers[step->layer].shape);
    plan->macs += step->macs;
    if (step->op == GFLI_OP_GROUP_NORM) gfli_place_stats(plan, step, second);
    return step;
}

/* Make the last step the twin of the one before it. */
static void gfli_plan_join(gfli_plan *plan) {
    const gfli_step *last = &plan->steps[--plan->n_steps];
    gfli_step *step = &plan->steps[plan->n_steps - 1];
    step->twin.in = last->in;
    step->twin.out = last->out;
    step->twin.layer = last->layer;
    step->macs += last->macs;
}

/* The steps of the network in their order, those that are made together behind one another. */
static void gfli_plan_steps(const gfl_model *model, gfli_plan *plan) {
    const gfli_network *net = &model->network;
    const bool together = gfli_sides_together(model, plan);
    for (int i = 0; i < net->n_steps; i++) {
        const int pair = together ? net->steps[i].pair : -1;
        if (pair >= 0 && pair < i) continue;
        gfli_step *first = gfli_plan_append(model, i, false, plan);
        if (pair < 0) continue;
        gfli_step *second = gfli_plan_append(model, pair, true, plan);
        if (first->op == GFLI_OP_CONV)
            gfli_plan_join(plan);
        else
            gfli_give_stats(first), gfli_give_stats(second);
    }
}

/* Offsets and what decoding reads stay float whatever the others are. */
static void gfli_keep_floats(gfli_plan *plan) {
    plan->maps[plan->cls].map.element = GFLI_MAP_F32;
    for (int i = 0; i < plan->n_steps; i++) {
        const gfli_step *s = &plan->steps[i];
        if (s->offset >= 0) plan->maps[s->offset].map.element = GFLI_MAP_F32;
        if (s->op != GFLI_OP_LEVEL_SCALE) continue;
        plan->maps[s->in].map.element = GFLI_MAP_F32;
        plan->maps[s->out].map.element = GFLI_MAP_F32;
    }
}

/* The calls of a convolution's step; returns how many. */
static int gfli_step_calls(const gfl_model *model, const gfli_plan *plan, int step, float *stats,
                           gfli_conv_call calls[GFLI_CONV_CALLS]) {
    const gfli_step *s = &plan->steps[step];
    const int n = s->twin.layer < 0 ? 1 : 2;
    memset(calls, 0, GFLI_CONV_CALLS * sizeof *calls);
    for (int i = 0; i < n; i++) {
        const gfli_layer *layer = &model->layers[i ? s->twin.layer : s->layer];
        const int of = i ? s->twin.stats : s->stats;
        gfli_conv_call *c = &calls[i];
        c->shape = &layer->shape;
        c->packing = layer->packing;
        c->bias = layer->bias >= 0 ? model->params[layer->bias].data : layer->folded_bias;
        c->x = &plan->maps[i ? s->twin.in : s->in].map;
        c->y = &plan->maps[i ? s->twin.out : s->out].map;
        c->residual = s->residual < 0 ? NULL : &plan->maps[s->residual].map;
        c->offset = s->offset < 0 ? NULL : &plan->maps[s->offset].map;
        c->relu = s->relu;
        c->norm_groups = of < 0 ? 0 : GFLI_GN_GROUPS;
        c->eps = GFLI_NORM_EPS;
        c->stats = of < 0 || !stats ? NULL : stats + of;
    }
    return n;
}

/* Ask the backend about every convolution. */
static gfl_status gfli_plan_prepare(gfl_context *context, const gfl_model *model, gfli_plan *plan) {
    for (int i = 0; i < plan->n_steps; i++) {
        gfli_step *s = &plan->steps[i];
        gfli_conv_call calls[GFLI_CONV_CALLS];
        if (s->op != GFLI_OP_CONV && s->op != GFLI_OP_DEFORM_CONV) continue;
        const int n = gfli_step_calls(model, plan, i, NULL, calls);
        GFLI_TRY(model->backend->infer.conv_prepare(context, calls, n, &s->means));
        if (s->means.scratch > plan->scratch_bytes) plan->scratch_bytes = s->means.scratch;
    }
    return GFL_OK;
}

/* ---- memory ---------------------------------------------------------------------------------- */

int gfli_plan_root(const gfli_plan *plan, int slot) {
    return plan->maps[slot].parent < 0 ? slot : plan->maps[slot].parent;
}

void gfli_plan_need(gfli_plan *plan, int slot, int moment) {
    if (slot >= 0) gfli_need(&plan->pieces[gfli_plan_root(plan, slot)], moment);
}

/* What is kept for training is needed at every moment, until a backward pass says more. */
static void gfli_plan_keep(gfli_plan *plan) {
    for (int i = 0; i < plan->n_slots; i++) {
        gfli_plan_need(plan, i, 0);
        gfli_plan_need(plan, i, plan->n_steps);
    }
}

void gfli_plan_live(gfli_plan *plan) {
    plan->n_pieces = plan->n_slots;
    memset(plan->pieces, 0, (size_t)plan->n_pieces * sizeof *plan->pieces);
    for (int i = 0; i < plan->n_slots; i++) {
        plan->pieces[i].last = -1;
        if (plan->maps[i].parent < 0) plan->pieces[i].bytes = gfli_map_bytes(&plan->maps[i].map);
    }
    gfli_plan_need(plan, plan->input, 0);
    for (int i = 0; i < plan->n_steps; i++) {
        const gfli_step *s = &plan->steps[i];
        const int touched[] = {s->in, s->offset, s->residual, s->out, s->twin.in, s->twin.out};
        for (size_t k = 0; k < GFLI_COUNT(touched); k++) gfli_plan_need(plan, touched[k], i);
    }
    gfli_plan_need(plan, plan->cls, plan->n_steps);
    gfli_plan_need(plan, plan->reg, plan->n_steps);
}

gfl_status gfli_plan_place(gfl_context *context, gfli_plan *plan) {
    if (gfli_arrange(plan->pieces, plan->n_pieces, &plan->workspace_bytes)) return GFL_OK;
    return gfli_error(context, GFL_E_MEMORY,
                      "the maps of a %d x %d x %d input are too large; use a smaller batch or "
                      "smaller images",
                      plan->batch, plan->height, plan->width);
}

/* What a plan keeps when it becomes that of another size: memory. */
static void gfli_plan_clear(gfli_plan *plan) {
    const gfli_plan old = *plan;
    memset(plan, 0, sizeof *plan);
    plan->maps = old.maps;
    plan->steps = old.steps;
    plan->pieces = old.pieces;
    plan->slot_capacity = old.slot_capacity;
    plan->step_capacity = old.step_capacity;
    plan->piece_capacity = old.piece_capacity;
}

gfl_status gfli_plan_reserve(gfl_context *context, const gfl_model *model, gfli_plan *plan) {
    GFLI_TRY(gfli_grow(context, &plan->maps, &plan->slot_capacity, (size_t)model->network.n_maps,
                       sizeof *plan->maps, "plan's maps"));
    GFLI_TRY(gfli_grow(context, &plan->pieces, &plan->piece_capacity, (size_t)model->network.n_maps,
                       sizeof *plan->pieces, "plan's maps"));
    return gfli_grow(context, &plan->steps, &plan->step_capacity, (size_t)model->network.n_steps,
                     sizeof *plan->steps, "plan's steps");
}

gfl_status gfli_plan_create(gfl_context *context, const gfl_model *model, int batch, int height,
                            int width, bool training, gfli_plan *out) {
    memset(out, 0, sizeof *out);
    return gfli_plan_recreate(context, model, batch, height, width, training, out);
}

static gfl_status gfli_plan_build(gfl_context *context, const gfl_model *model, gfli_plan *plan) {
    GFLI_TRY(gfli_plan_reserve(context, model, plan));
    GFLI_TRY(gfli_plan_slots(context, model, plan));
    gfli_plan_steps(model, plan);
    plan->input = plan->maps[model->network.input].held;
    plan->cls = plan->maps[model->network.cls].held;
    plan->reg = plan->maps[model->network.reg].held;
    gfli_keep_floats(plan);
    gfli_plan_live(plan);
    if (plan->training) gfli_plan_keep(plan);
    GFLI_TRY(gfli_plan_place(context, plan));
    return gfli_plan_prepare(context, model, plan);
}

gfl_status gfli_plan_recreate(gfl_context *context, const gfl_model *model, int batch, int height,
                              int width, bool training, gfli_plan *out) {
    int limit = gfli_pad32(GFL_MAX_SIDE);
    gfli_plan_clear(out);
    if (batch < 1 || batch > GFLI_MAX_BATCH || height < 32 || width < 32 || height % 32 != 0 ||
        width % 32 != 0 || height > limit || width > limit)
        return gfli_error(context, GFL_E_ARG,
                          "input of %d x %d x %d: the batch must be 1..%d and the sides "
                          "multiples of 32 up to %d",
                          batch, height, width, GFLI_MAX_BATCH, limit);
    out->batch = batch;
    out->height = height;
    out->width = width;
    out->training = training;
    gfl_status status = gfli_plan_build(context, model, out);
    if (status != GFL_OK) gfli_plan_destroy(context, out);
    return status;
}

void gfli_plan_destroy(gfl_context *context, gfli_plan *plan) {
    gfli_free(context, plan->maps);
    gfli_free(context, plan->steps);
    gfli_free(context, plan->pieces);
    memset(plan, 0, sizeof *plan);
}

void gfli_plan_bind(gfli_plan *plan, void *workspace) {
    for (int i = 0; i < plan->n_slots; i++) {
        gfli_slot *slot = &plan->maps[i];
        if (slot->parent < 0)
            slot->map.data = (float *)gfli_piece_at(&plan->pieces[i], workspace);
        else /* a view comes after its parent */
            slot->map = gfli_map_level(&plan->maps[slot->parent].map, slot->level);
    }
}

void gfli_plan_run_step(gfl_context *context, const gfl_model *model, const gfli_plan *plan,
                        int step, float *stats, void *scratch) {
    const gfli_backend *ops = model->backend;
    const gfli_step *s = &plan->steps[step];
    const gfli_map *in = &plan->maps[s->in].map, *out = &plan->maps[s->out].map;
    switch (s->op) {
    case GFLI_OP_CONV:
    case GFLI_OP_DEFORM_CONV: {
        gfli_conv_call calls[GFLI_CONV_CALLS];
        const int n = gfli_step_calls(model, plan, step, stats, calls);
        ops->infer.conv(context, calls, n, &s->means, scratch);
        break;
    }
    case GFLI_OP_MAX_POOL: ops->infer.max_pool(context, in, out); break;
    case GFLI_OP_UPSAMPLE_ADD: ops->infer.upsample_add(context, in, out); break;
    case GFLI_OP_GROUP_NORM:
        ops->infer.group_norm(context, in, GFLI_GN_GROUPS, GFLI_NORM_EPS,
                              model->params[s->gamma].data, model->params[s->beta].data, out,
                              stats + s->stats, s->given);
        break;
    case GFLI_OP_LEVEL_SCALE:
        ops->infer.level_scale(context, in, model->params[s->scale].data, out);
        break;
    }
}

void gfli_plan_forward(gfl_context *context, const gfl_model *model, const gfli_plan *plan,
                       float *stats, void *scratch) {
    for (int i = 0; i < plan->n_steps; i++)
        gfli_plan_run_step(context, model, plan, i, stats, scratch);
}

/* ---- plans of the shapes that come ----------------------------------------------------------- */

int gfli_recent_find(gfli_recent *recent, int batch, int height, int width, bool *known) {
    int at = 0;
    *known = false;
    for (int i = 0; i < GFLI_PLANS && !*known; i++) {
        *known =
            recent->batch[i] == batch && recent->height[i] == height && recent->width[i] == width;
        if (*known || recent->used[i] < recent->used[at]) at = i;
    }
    recent->batch[at] = batch;
    recent->height[at] = height;
    recent->width[at] = width;
    recent->used[at] = ++recent->clock;
    return at;
}

void gfli_recent_forget(gfli_recent *recent, int entry) {
    recent->batch[entry] = 0;
    recent->used[entry] = 0;
}
