/* schedule.c - a description made whole, and the learning rate of a step */
#pragma once

/* Spec 8.2: a linear warm-up from a part of the rate, a tenth of it from a milestone on. */
double gfli_train_rate(const gfl_trainer_desc *desc, const gfli_dialect *dialect,
                       int steps_per_epoch, int64_t step) {
    double rate = desc->lr;
    int64_t epoch = step / steps_per_epoch;
    const int warmup = desc->warmup - dialect->warmup_end;
    if (step < warmup)
        rate *= dialect->warmup_start + (1 - dialect->warmup_start) * (double)step / warmup;
    for (int i = 0; i < desc->n_milestones; i++)
        if (epoch >= desc->milestones[i]) rate *= 0.1;
    return rate;
}

/* The recipe drops the rate after 8 and 11 of 12 epochs; of very few epochs never before one. */
static void gfli_default_milestones(gfl_trainer_desc *d) {
    int first = gfli_max(1, (int)((int64_t)d->epochs * 8 / 12));
    int second = gfli_max(1, (int)((int64_t)d->epochs * 11 / 12));
    d->milestones[0] = first;
    d->n_milestones = 1;
    if (second > first) d->milestones[d->n_milestones++] = second;
}

static gfl_status gfli_resolve_milestones(gfl_context *context, gfl_trainer_desc *d) {
    if (d->n_milestones > GFL_MAX_MILESTONES)
        return gfli_error(
            context, GFL_E_ARG,
            "n_milestones is %d; it must be 1..%d, 0 for the default, or negative for "
            "none",
            d->n_milestones, GFL_MAX_MILESTONES);
    d->n_milestones = gfli_max(d->n_milestones, -1);
    if (d->n_milestones == 0)
        while (d->n_milestones < GFL_MAX_MILESTONES && d->milestones[d->n_milestones] != 0)
            d->n_milestones++;
    if (d->n_milestones == 0) gfli_default_milestones(d);
    for (int i = gfli_max(d->n_milestones, 0); i < GFL_MAX_MILESTONES; i++) d->milestones[i] = 0;
    for (int i = 0; i < d->n_milestones; i++) {
        int before = i > 0 ? d->milestones[i - 1] : 0;
        if (d->milestones[i] <= before)
            return gfli_error(context, GFL_E_ARG,
                              "milestone %d is epoch %d; milestones must ascend, from 1", i,
                              d->milestones[i]);
    }
    return GFL_OK;
}

static gfl_status gfli_resolve_scale(gfl_context *context, const gfl_model *model,
                                     gfl_trainer_desc *d) {
    if ((d->scale_long == 0) != (d->scale_short == 0))
        return gfli_error(context, GFL_E_ARG,
                          "scale_long is %d and scale_short is %d; set both or none", d->scale_long,
                          d->scale_short);
    if (d->scale_long == 0) {
        d->scale_long = model->preprocess.scale_long;
        d->scale_short = model->preprocess.scale_short;
    }
    if (d->scale_short < 1 || d->scale_short > d->scale_long || d->scale_long > GFL_MAX_SIDE)
        return gfli_error(
            context, GFL_E_ARG,
            "scale_long is %d and scale_short is %d; 1 <= short <= long <= %d must hold",
            d->scale_long, d->scale_short, GFL_MAX_SIDE);
    if (d->scale_short_min < 0 || d->scale_short_min > d->scale_short)
        return gfli_error(context, GFL_E_ARG,
                          "scale_short_min is %d; it must be 0..%d, which is scale_short",
                          d->scale_short_min, d->scale_short);
    return GFL_OK;
}

/* A negative "none" stays negative, so that a resolved description means the same once more. */
static double gfli_resolve_real(double value, double otherwise) {
    return value == 0 ? otherwise : value < 0 ? -1 : value;
}

static gfl_status gfli_resolve_rates(gfl_context *context, gfl_trainer_desc *d) {
    if (!gfli_is_finite(d->lr) || !gfli_is_finite(d->momentum) ||
        !gfli_is_finite(d->weight_decay) || !gfli_is_finite(d->clip_norm))
        return gfli_error(context, GFL_E_ARG,
                          "lr, momentum, weight_decay and clip_norm must be finite");
    d->momentum = gfli_resolve_real(d->momentum, 0.9);
    d->weight_decay = gfli_resolve_real(d->weight_decay, 0.0001);
    if (d->clip_norm < 0) d->clip_norm = 0;
    if (d->lr < 0 || d->momentum >= 1)
        return gfli_error(context, GFL_E_ARG,
                          "lr is %g and momentum is %g; lr must not be negative, and momentum must "
                          "be below 1",
                          d->lr, d->momentum);
    return GFL_OK;
}

gfl_status gfli_train_resolve(gfl_context *context, const gfl_model *model,
                              const gfl_trainer_desc *in, gfl_trainer_desc *out) {
    gfl_trainer_desc *d = out;
    *d = *in;
    if (d->batch == 0) d->batch = 16;
    if (d->accumulate == 0) d->accumulate = 1;
    if (d->epochs == 0) d->epochs = 12;
    d->warmup = gfli_max(d->warmup, -1);
    d->frozen_stages = gfli_max(d->frozen_stages, -1);
    d->loaders = d->loaders == 0 ? 2 : gfli_max(d->loaders, -1);
    if (d->batch < 1 || d->batch > 65536 || d->accumulate < 1 || d->accumulate > 65536)
        return gfli_error(context, GFL_E_ARG,
                          "batch is %d and accumulate is %d; both must be 1..65536", d->batch,
                          d->accumulate);
    if (d->epochs < 1)
        return gfli_error(context, GFL_E_ARG, "epochs is %d; it must be 1 or more", d->epochs);
    if (d->frozen_stages > 4)
        return gfli_error(context, GFL_E_ARG,
                          "frozen_stages is %d; it must be 0..4, or negative for none",
                          d->frozen_stages);
    if (d->loaders > GFLI_MAX_THREADS)
        return gfli_error(
            context, GFL_E_ARG,
            "loaders is %d; it must be 1..%d, 0 for the default, or negative for none", d->loaders,
            GFLI_MAX_THREADS);
    GFLI_TRY(gfli_resolve_rates(context, d));
    GFLI_TRY(gfli_resolve_milestones(context, d));
    return gfli_resolve_scale(context, model, d);
}

double gfli_default_rate(int64_t batch, int accumulate) {
    return 0.01 * (double)batch * accumulate / 16;
}

void gfli_train_fit(gfl_trainer_info *plan, int n_images, int n_ranks) {
    gfl_trainer_desc *d = &plan->desc;
    d->batch = gfli_rank_batch(d->batch, n_images, n_ranks);
    const int n_batches = gfli_epoch_batches(n_images, d->batch, n_ranks);
    d->accumulate = gfli_min(d->accumulate, n_batches);
    plan->n_images = n_images;
    plan->steps_per_epoch = gfli_ceil_div(n_batches, d->accumulate);
    plan->n_steps = (int64_t)plan->steps_per_epoch * d->epochs;
    plan->images_per_update = (int64_t)n_ranks * d->batch * d->accumulate;
    if (d->lr == 0) d->lr = gfli_default_rate((int64_t)n_ranks * d->batch, d->accumulate);
    if (d->warmup == 0) d->warmup = gfli_min(500, plan->steps_per_epoch);
}
