/* describe.c - what a model is and costs, as the program that uses it asks */
#pragma once

void gfl_model_get_info(const gfl_model *model, gfl_model_info *out) {
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (!model) return;
    out->arch = model->arch;
    out->preprocess = model->preprocess;
    out->classes = model->classes;
    out->origins = model->origins;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        if (p->is_buffer) continue;
        out->n_parameters += (int64_t)p->count;
        if (p->stage > 1) out->n_trainable += (int64_t)p->count;
    }
}

const gfl_class *gfl_model_get_class(const gfl_model *model, int label) {
    static const gfl_class none = {"", 0};
    return model && label >= 0 && label < model->arch.n_classes ? &model->classes[label] : &none;
}

/* The plan of a detector for images of this size; what: who asks. */
static gfl_status gfli_plan_of(gfl_model *model, int width, int height, int batch, gfli_plan *out) {
    GFLI_DEMAND(model->context,
                width >= 1 && height >= 1 && width <= GFL_MAX_SIDE && height <= GFL_MAX_SIDE,
                "images of %d x %d; sides must be 1..%d", width, height, GFL_MAX_SIDE);
    return gfli_plan_create(model->context, model, batch, gfli_pad32(height), gfli_pad32(width),
                            false, out);
}

gfl_status gfl_model_get_cost(gfl_model *model, int width, int height, int batch,
                              gfl_model_cost *out) {
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, out);
    memset(out, 0, sizeof *out);
    gfli_plan plan;
    GFLI_TRY(gfli_plan_of(model, width, height, batch, &plan));
    out->macs = plan.macs;
    out->n_steps = plan.n_steps;
    out->points = (int)(gfli_points(&plan.maps[plan.cls].map) / (size_t)batch);
    out->workspace_bytes = gfli_detector_bytes(model, &plan, width, height);
    for (int i = 0; i < model->n_layers; i++)
        out->weight_bytes +=
            model->backend->infer.conv_packed_size(model->context, &model->layers[i].shape);
    gfli_plan_destroy(model->context, &plan);
    gfl_model_info info;
    gfl_model_get_info(model, &info);
    out->n_parameters = info.n_parameters;
    return GFL_OK;
}

gfl_status gfl_arch_get_cost(gfl_context *context, const gfl_arch *arch, int width, int height,
                             int batch, gfl_model_cost *out) {
    gfl_preprocess usual;
    gfl_model *described;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, arch);
    GFLI_NOT_NULL(context, out);
    memset(&usual, 0, sizeof usual);
    memset(out, 0, sizeof *out);
    GFLI_TRY(gfli_model_new(context, arch, &usual, NULL, false, &described));
    const gfl_status status = gfl_model_get_cost(described, width, height, batch, out);
    gfl_model_destroy(described);
    return status;
}

static const char *gfli_op_name(gfli_op op) {
    switch (op) {
    case GFLI_OP_CONV: return "conv";
    case GFLI_OP_DEFORM_CONV: return "deform_conv";
    case GFLI_OP_MAX_POOL: return "max_pool";
    case GFLI_OP_UPSAMPLE_ADD: return "upsample_add";
    case GFLI_OP_GROUP_NORM: return "group_norm";
    case GFLI_OP_LEVEL_SCALE: return "level_scale";
    }
    return "";
}

static gfl_plan_step gfli_describe_step(const gfl_model *model, const gfli_plan *plan, int i) {
    const gfli_step *s = &plan->steps[i];
    const gfli_map *in = &plan->maps[s->in].map, *out = &plan->maps[s->out].map;
    const int param = s->layer >= 0 ? model->layers[s->layer].weight : s->gamma;
    gfl_plan_step step;
    memset(&step, 0, sizeof step);
    step.op = gfli_op_name(s->op);
    step.twin = "";
    step.weights = param >= 0 ? model->params[param].name : "";
    step.in_channels = in->c;
    step.in_height = in->h[0];
    step.in_width = in->w[0];
    step.out_channels = out->c;
    step.out_height = out->h[0];
    step.out_width = out->w[0];
    step.levels = out->levels;
    step.macs = s->macs;
    step.kernel = s->means.kernel ? s->means.kernel : "";
    step.splits = s->means.splits;
    step.out_bytes = gfli_map_bytes(out);
    if (s->twin.layer >= 0) {
        const gfli_map *also = &plan->maps[s->twin.out].map;
        step.twin = model->params[model->layers[s->twin.layer].weight].name;
        step.out_channels += also->c;
        step.out_bytes += gfli_map_bytes(also);
    }
    for (int k = 0; k < plan->n_slots; k++) {
        const gfli_piece *piece = &plan->pieces[k];
        if (piece->first <= i && i <= piece->last)
            step.live_bytes += gfli_map_bytes(&plan->maps[k].map);
    }
    return step;
}

gfl_status gfl_model_get_plan(gfl_model *model, int width, int height, int batch,
                              void (*visit)(void *user, const gfl_plan_step *step), void *user) {
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, visit);
    gfli_plan plan;
    GFLI_TRY(gfli_plan_of(model, width, height, batch, &plan));
    for (int i = 0; i < plan.n_steps; i++) {
        const gfl_plan_step step = gfli_describe_step(model, &plan, i);
        visit(user, &step);
    }
    gfli_plan_destroy(model->context, &plan);
    return GFL_OK;
}
