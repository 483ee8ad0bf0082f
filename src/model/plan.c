/* plan.c - from an architecture to steps, and where each map lives */
#pragma once

/* Appends steps in the order of the model's layers; the first failure sticks. */
typedef struct gfli_planner {
    gfl_context *context;
    const gfl_model *model;
    gfli_plan *plan;
    int layer; /* the next one */
    gfl_status status;
} gfli_planner;

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

static int gfli_new_slot(gfli_planner *p, const gfli_map *map, int parent, int level,
                         const char *name) {
    gfli_plan *plan = p->plan;
    gfli_map own = *map; /* map may point into the table that grows */
    if (p->status == GFL_OK) p->status = gfli_check_map(p->context, &own);
    if (p->status == GFL_OK)
        p->status = gfli_grow(p->context, &plan->maps, &plan->slot_capacity,
                              (size_t)plan->n_slots + 1, sizeof *plan->maps, "plan's maps");
    if (p->status != GFL_OK) return 0;
    gfli_slot *slot = &plan->maps[plan->n_slots];
    memset(slot, 0, sizeof *slot);
    slot->map = own;
    slot->map.data = NULL;
    slot->map.element = plan->training ? GFLI_MAP_F32 : p->context->element;
    slot->parent = parent;
    slot->level = level;
    slot->first = slot->last = -1;
    slot->name = name;
    return plan->n_slots++;
}

static int gfli_new_view(gfli_planner *p, int parent, int level, const char *name) {
    if (p->status != GFL_OK) return 0;
    gfli_map map = gfli_map_level(&p->plan->maps[parent].map, level);
    return gfli_new_slot(p, &map, parent, level, name);
}

static gfli_step *gfli_new_step(gfli_planner *p, gfli_op op, int in, int out, int stage) {
    gfli_plan *plan = p->plan;
    if (p->status == GFL_OK)
        p->status = gfli_grow(p->context, &plan->steps, &plan->step_capacity,
                              (size_t)plan->n_steps + 1, sizeof *plan->steps, "plan's steps");
    if (p->status != GFL_OK) return NULL;
    gfli_step *step = &plan->steps[plan->n_steps++];
    memset(step, 0, sizeof *step);
    step->op = op;
    step->in = in;
    step->out = out;
    step->residual = step->offset = -1;
    step->layer = step->gamma = step->beta = step->scale = step->stats = -1;
    step->twin.in = step->twin.out = step->twin.layer = step->twin.stats = -1;
    step->stage = stage;
    return step;
}

/* out = -1: a new slot; offset -1: an ordinary convolution. */
static int gfli_plan_any_conv(gfli_planner *p, int layer, int in, int offset, int residual,
                              bool relu, int out, const char *name) {
    if (p->status != GFL_OK) return 0;
    const gfli_layer *l = &p->model->layers[layer];
    gfli_map map = p->plan->maps[in].map;
    map.c = l->shape.out_c;
    for (int i = 0; i < map.levels; i++) {
        map.h[i] = gfli_conv_out(&l->shape, map.h[i]);
        map.w[i] = gfli_conv_out(&l->shape, map.w[i]);
    }
    if (out < 0) out = gfli_new_slot(p, &map, -1, 0, name);
    gfli_op op = offset < 0 ? GFLI_OP_CONV : GFLI_OP_DEFORM_CONV;
    gfli_step *step = gfli_new_step(p, op, in, out, l->stage);
    if (!step) return 0;
    step->residual = residual;
    step->offset = offset;
    step->layer = layer;
    step->relu = relu;
    step->macs = (int64_t)gfli_points(&map) * (int64_t)gfli_conv_weights(&l->shape);
    p->plan->macs += step->macs;
    return out;
}

static int gfli_plan_conv(gfli_planner *p, int layer, int in, int residual, bool relu, int out,
                          const char *name) {
    return gfli_plan_any_conv(p, layer, in, -1, residual, relu, out, name);
}

/* One residual block; the shortcut is computed late, when the branch has become small. */
static int gfli_plan_block(gfli_planner *p, int in, bool projected, const char *name) {
    int branch = gfli_arch_depth(p->model->arch.depth)->bottleneck ? 3 : 2;
    int x = in, shortcut = in;
    for (int i = 0; i < branch - 1; i++) {
        int layer = p->layer++, offset = -1;
        if (p->model->layers[layer].offset >= 0)
            offset = gfli_plan_conv(p, p->layer++, x, -1, false, -1, NULL);
        x = gfli_plan_any_conv(p, layer, x, offset, -1, true, -1, NULL);
    }
    int last = p->layer++;
    if (projected) shortcut = gfli_plan_conv(p, p->layer++, in, -1, false, -1, NULL);
    int out = p->plan->training ? -1 : shortcut;
    out = gfli_plan_conv(p, last, x, shortcut, true, out, NULL);
    if (name && p->status == GFL_OK) p->plan->maps[out].name = name;
    return out;
}

static void gfli_plan_backbone(gfli_planner *p, int features[4]) {
    static const char *const names[] = {"C2", "C3", "C4", "C5"};
    const gfl_arch *arch = &p->model->arch;
    const gfli_depth *depth = gfli_arch_depth(arch->depth);
    int stem = gfli_plan_conv(p, p->layer++, p->plan->input, -1, true, -1, NULL);
    if (p->status != GFL_OK) return;
    gfli_map pooled = p->plan->maps[stem].map;
    pooled.h[0] = (pooled.h[0] - 1) / 2 + 1;
    pooled.w[0] = (pooled.w[0] - 1) / 2 + 1;
    int x = gfli_new_slot(p, &pooled, -1, 0, "stem");
    (void)gfli_new_step(p, GFLI_OP_MAX_POOL, stem, x, 0);
    int c = arch->base_channels;
    for (int stage = 1; stage <= 4; stage++) {
        int blocks = depth->blocks[stage - 1];
        for (int block = 0; block < blocks; block++) {
            bool projected = block == 0 && (stage > 1 || c != gfli_stage_out(arch, stage));
            x = gfli_plan_block(p, x, projected, block == blocks - 1 ? names[stage - 1] : NULL);
        }
        c = gfli_stage_out(arch, stage);
        features[stage - 1] = x;
    }
}

/* The neck; returns the pyramid's slot. */
static int gfli_plan_neck(gfli_planner *p, const int features[4]) {
    static const char *const names[] = {"P3", "P4", "P5", "P6", "P7"};
    int lateral[3], level[GFL_LEVELS];
    for (int i = 0; i < 3; i++)
        lateral[i] = gfli_plan_conv(p, p->layer + i, features[i + 1], -1, false, -1, NULL);
    p->layer += 3;
    for (int i = 2; i > 0; i--)
        (void)gfli_new_step(p, GFLI_OP_UPSAMPLE_ADD, lateral[i], lateral[i - 1], GFLI_STAGE_HEAD);
    if (p->status != GFL_OK) return 0;
    gfli_map pyramid = p->plan->maps[lateral[0]].map;
    pyramid.levels = GFL_LEVELS;
    for (int i = 1; i < GFL_LEVELS; i++) {
        pyramid.h[i] = (pyramid.h[i - 1] + 1) / 2;
        pyramid.w[i] = (pyramid.w[i - 1] + 1) / 2;
    }
    int out = gfli_new_slot(p, &pyramid, -1, 0, "P");
    for (int i = 0; i < GFL_LEVELS; i++) {
        level[i] = gfli_new_view(p, out, i, names[i]);
        int in = i < 3 ? lateral[i] : level[i - 1];
        (void)gfli_plan_conv(p, p->layer++, in, -1, false, level[i], NULL);
    }
    return out;
}

/* ---- the head -------------------------------------------------------------------------------- */

/* Side 0 is of the classes, side 1 of the boxes. */
typedef struct gfli_sides {
    int x[2]; /* maps: what each side has come to */
} gfli_sides;

/* One side to its end before the other begins, which needs the least memory; or both at once. */
static bool gfli_sides_together(const gfli_planner *p) {
    return p->model->backend->fuses && !p->plan->training;
}

/* Inference writes the norm in place and forgets its statistics. */
static void gfli_plan_norm(gfli_planner *p, int layer, int side, gfli_sides *sides) {
    gfli_plan *plan = p->plan;
    const int in = sides->x[side];
    const int size = GFL_LEVELS * plan->batch * GFLI_GN_GROUPS * 2;
    if (p->status != GFL_OK) return;
    if (plan->training) sides->x[side] = gfli_new_slot(p, &plan->maps[in].map, -1, 0, NULL);
    gfli_step *step = gfli_new_step(p, GFLI_OP_GROUP_NORM, in, sides->x[side], GFLI_STAGE_HEAD);
    if (!step) return;
    step->relu = true;
    step->gamma = p->model->layers[layer].gn_gamma;
    step->beta = p->model->layers[layer].gn_beta;
    step->stats = gfli_sides_together(p) ? side * size : 0;
    if (plan->training) step->stats = (int)plan->stats_floats;
    const size_t end = (size_t)step->stats + (size_t)size;
    if (end > plan->stats_floats) plan->stats_floats = end;
}

/* Make the last step the twin of the one before it. */
static void gfli_plan_join(gfli_planner *p) {
    if (p->status != GFL_OK) return;
    const gfli_step *last = &p->plan->steps[--p->plan->n_steps];
    gfli_step *step = &p->plan->steps[p->plan->n_steps - 1];
    step->twin.in = last->in;
    step->twin.out = last->out;
    step->twin.layer = last->layer;
    step->macs += last->macs;
}

/* The convolutions `layers` of both sides in one step, and norms that take its statistics. */
static void gfli_plan_both(gfli_planner *p, const int layers[2], bool norm, gfli_sides *sides) {
    for (int i = 0; i < 2; i++)
        sides->x[i] = gfli_plan_conv(p, layers[i], sides->x[i], -1, false, -1, NULL);
    gfli_plan_join(p);
    const int conv = p->plan->n_steps - 1;
    for (int i = 0; i < 2 && norm; i++) gfli_plan_norm(p, layers[i], i, sides);
    if (p->status != GFL_OK || !norm) return;
    gfli_step *step = &p->plan->steps[conv];
    step->stats = step[1].stats;
    step->twin.stats = step[2].stats;
    step[1].given = step[2].given = true;
}

static void gfli_plan_towers(gfli_planner *p, gfli_sides *sides) {
    const int stacked = p->model->arch.stacked_convs, first = p->layer;
    const bool both = gfli_sides_together(p);
    for (int i = 0; i < stacked && both; i++) {
        const int layers[2] = {first + i, first + stacked + i};
        gfli_plan_both(p, layers, true, sides);
    }
    p->layer = first + 2 * stacked;
    const int ends[2] = {p->layer, p->layer + 1};
    if (both) gfli_plan_both(p, ends, false, sides);
    for (int side = 0; side < 2 && !both; side++) {
        for (int i = 0; i < stacked; i++) {
            const int layer = first + side * stacked + i;
            sides->x[side] = gfli_plan_conv(p, layer, sides->x[side], -1, false, -1, NULL);
            gfli_plan_norm(p, layer, side, sides);
        }
        sides->x[side] = gfli_plan_conv(p, ends[side], sides->x[side], -1, false, -1, NULL);
    }
}

static void gfli_plan_head(gfli_planner *p, int pyramid) {
    gfli_sides sides = {{pyramid, pyramid}};
    gfli_plan_towers(p, &sides);
    if (p->status != GFL_OK) return;
    int reg = sides.x[1];
    if (p->plan->training) reg = gfli_new_slot(p, &p->plan->maps[reg].map, -1, 0, NULL);
    gfli_step *step = gfli_new_step(p, GFLI_OP_LEVEL_SCALE, sides.x[1], reg, GFLI_STAGE_HEAD);
    if (!step) return;
    step->scale = p->model->scale;
    p->plan->maps[sides.x[0]].name = "cls_score";
    p->plan->maps[reg].name = "bbox_pred";
    p->plan->cls = sides.x[0];
    p->plan->reg = reg;
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

static void gfli_touch(gfli_plan *plan, int slot, int step) {
    if (slot < 0) return;
    gfli_slot *s = &plan->maps[slot];
    if (s->first < 0) s->first = step;
    s->last = step;
    if (s->parent >= 0) gfli_touch(plan, s->parent, step);
}

static void gfli_find_lives(gfli_plan *plan) {
    gfli_touch(plan, plan->input, 0);
    for (int i = 0; i < plan->n_steps; i++) {
        gfli_touch(plan, plan->steps[i].in, i);
        gfli_touch(plan, plan->steps[i].offset, i);
        gfli_touch(plan, plan->steps[i].residual, i);
        gfli_touch(plan, plan->steps[i].out, i);
        gfli_touch(plan, plan->steps[i].twin.in, i);
        gfli_touch(plan, plan->steps[i].twin.out, i);
    }
    gfli_touch(plan, plan->cls, plan->n_steps);
    gfli_touch(plan, plan->reg, plan->n_steps);
    for (int i = 0; i < plan->n_slots && plan->training; i++) {
        plan->maps[i].first = 0;
        plan->maps[i].last = plan->n_steps;
    }
}

/* Lowest offset where slot i meets none of the placed maps that live at the same time. */
static size_t gfli_first_fit(const gfli_plan *plan, int n_placed, int i) {
    const gfli_slot *slot = &plan->maps[i];
    size_t offset = 0;
    for (int k = 0; k < n_placed; k++) {
        const gfli_slot *other = &plan->maps[plan->maps[k].placed];
        bool together = slot->first <= other->last && other->first <= slot->last;
        bool overlap = offset < other->offset + other->size && other->offset < offset + slot->size;
        if (!together || !overlap) continue;
        offset = other->offset + other->size;
        k = -1;
    }
    return offset;
}

/* The largest slot that was not placed yet, or -1. */
static int gfli_largest_slot(const gfli_plan *plan, int n_placed) {
    int best = -1;
    for (int i = 0; i < plan->n_slots; i++) {
        bool done = plan->maps[i].parent >= 0;
        for (int k = 0; k < n_placed && !done; k++) done = plan->maps[k].placed == i;
        if (!done && (best < 0 || plan->maps[i].size > plan->maps[best].size)) best = i;
    }
    return best;
}

/* Largest maps first: a good packing, and the workspace of a detector is the plan's price. */
static gfl_status gfli_plan_place(gfl_context *context, gfli_plan *plan) {
    size_t end = 0;
    for (int i = 0; i < plan->n_slots; i++)
        if (plan->maps[i].parent < 0)
            plan->maps[i].size = (gfli_map_bytes(&plan->maps[i].map) + 63) / 64 * 16;
    for (int i, n = 0; (i = gfli_largest_slot(plan, n)) >= 0; n++) {
        gfli_slot *slot = &plan->maps[i];
        slot->offset = plan->training ? end : gfli_first_fit(plan, n, i);
        plan->maps[n].placed = i;
        if (slot->offset + slot->size > end) end = slot->offset + slot->size;
        if (end > SIZE_MAX / 16)
            return gfli_error(context, GFL_E_MEMORY,
                              "the maps of a %d x %d x %d input are too large; use a smaller "
                              "batch or smaller images",
                              plan->batch, plan->height, plan->width);
    }
    plan->workspace_floats = end;
    return GFL_OK;
}

/* What a plan keeps when it becomes that of another size: memory. */
static void gfli_plan_clear(gfli_plan *plan) {
    const gfli_plan old = *plan;
    memset(plan, 0, sizeof *plan);
    plan->maps = old.maps;
    plan->steps = old.steps;
    plan->slot_capacity = old.slot_capacity;
    plan->step_capacity = old.step_capacity;
}

gfl_status gfli_plan_reserve(gfl_context *context, const gfli_plan *like, gfli_plan *plan) {
    GFLI_TRY(gfli_grow(context, &plan->maps, &plan->slot_capacity, (size_t)like->n_slots,
                       sizeof *plan->maps, "plan's maps"));
    return gfli_grow(context, &plan->steps, &plan->step_capacity, (size_t)like->n_steps,
                     sizeof *plan->steps, "plan's steps");
}

gfl_status gfli_plan_create(gfl_context *context, const gfl_model *model, int batch, int height,
                            int width, bool training, gfli_plan *out) {
    memset(out, 0, sizeof *out);
    return gfli_plan_recreate(context, model, batch, height, width, training, out);
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
    gfli_planner p;
    memset(&p, 0, sizeof p);
    p.context = context;
    p.model = model;
    p.plan = out;
    out->batch = batch;
    out->height = height;
    out->width = width;
    out->training = training;
    gfli_map input;
    memset(&input, 0, sizeof input);
    input.n = batch;
    input.c = 3;
    input.levels = 1;
    input.h[0] = height;
    input.w[0] = width;
    int features[4] = {0, 0, 0, 0};
    out->input = gfli_new_slot(&p, &input, -1, 0, "input");
    gfli_plan_backbone(&p, features);
    gfli_plan_head(&p, gfli_plan_neck(&p, features));
    if (p.status == GFL_OK) {
        gfli_keep_floats(out);
        gfli_find_lives(out);
        p.status = gfli_plan_place(context, out);
    }
    if (p.status == GFL_OK) p.status = gfli_plan_prepare(context, model, out);
    if (p.status != GFL_OK) gfli_plan_destroy(context, out);
    return p.status;
}

void gfli_plan_destroy(gfl_context *context, gfli_plan *plan) {
    gfli_free(context, plan->maps);
    gfli_free(context, plan->steps);
    memset(plan, 0, sizeof *plan);
}

void gfli_plan_bind(gfli_plan *plan, float *workspace) {
    for (int i = 0; i < plan->n_slots; i++) {
        gfli_slot *slot = &plan->maps[i];
        if (slot->parent < 0)
            slot->map.data = workspace + slot->offset;
        else /* a view comes after its parent */
            slot->map = gfli_map_level(&plan->maps[slot->parent].map, slot->level);
    }
}

void gfli_plan_step(gfl_context *context, const gfl_model *model, const gfli_plan *plan, int step,
                    float *stats, void *scratch) {
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
    for (int i = 0; i < plan->n_steps; i++) gfli_plan_step(context, model, plan, i, stats, scratch);
}
