/* update.h - a step of stochastic gradient descent, and what stands against it (spec 8.1) */
#pragma once

/* The bits of the larger magnitude, which order magnitudes; NaN is above infinity. */
GFLI_HD static inline int32_t gfli_larger_bits(int32_t a, float x) {
    int32_t b;
    memcpy(&b, &x, sizeof b);
    b &= INT32_MAX;
    return a > b ? a : b;
}

/* Batches that a rank does not have, and those whose losses are not finite. */
GFLI_HD static inline gfli_fault gfli_bad_batch(const gfli_update *u, int *where) {
    for (int i = 0; i < u->n_losses; i++) {
        const gfli_losses *losses = &u->losses[i];
        *where = i;
        if (losses->failed > 0) return GFLI_FAULT_RANK;
        if (gfli_bad_loss_name(losses)) return GFLI_FAULT_LOSS;
    }
    *where = -1;
    return GFLI_FAULT_NONE;
}

/* No sum or product of an update is larger than the last of these, but for rounding, where p, v and
 * g are the largest magnitudes of parameters, momentum and (scaled) gradients. */
GFLI_HD static inline bool gfli_update_fits(const gfli_update *u, const gfli_update_part *part,
                                            double p, double v, double g) {
    const double most = (double)FLT_MAX * (1 - 1e-6);
    const double lr = u->lr * part->lr, decay = u->decay * part->decay;
    if (!gfli_is_finite(p) || !gfli_is_finite(v) || lr > most || decay > most) return false;
    const double moved = u->momentum_factor * v + g + decay * p;
    return moved <= most && p + lr * moved <= most;
}

/* What the contract of gfli_train_ops.update says, for one parameter. */
GFLI_HD static inline void gfli_sgd_step(float *p, float *v, float g, float lr, float momentum,
                                         float decay, float share) {
    const float moved = momentum * *v + (share * g + decay * *p);
    *v = moved;
    *p -= lr * moved;
}
