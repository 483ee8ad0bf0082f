/* sampler.c - the order of images in an epoch */
#pragma once

/* Fisher and Yates' shuffle of 0..n-1. */
static void gfli_sampler_shuffle(uint64_t seed, int epoch, int *order, int n) {
    gfli_rng rng = gfli_rng_make(seed, (uint64_t)epoch, 0, GFLI_DRAW_ORDER);
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = 0; i + 1 < n; i++) {
        int j = i + gfli_rng_below(&rng, n - i), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

void gfli_sampler_order(uint64_t seed, int epoch, int n, int batch, const bool *portrait,
                        int *order, int *scratch) {
    if (!portrait) {
        gfli_sampler_shuffle(seed, epoch, order, n);
        return;
    }
    int *shuffled = scratch, *bucket[2], held[2] = {0, 0}, done = 0;
    bucket[0] = scratch + n; /* portrait */
    bucket[1] = bucket[0] + batch;
    gfli_sampler_shuffle(seed, epoch, shuffled, n);
    for (int i = 0; i < n; i++) {
        int kind = portrait[shuffled[i]] ? 0 : 1;
        bucket[kind][held[kind]++] = shuffled[i];
        if (held[kind] < batch) continue;
        memcpy(order + done, bucket[kind], (size_t)batch * sizeof *order);
        done += batch;
        held[kind] = 0;
    }
    memcpy(order + done, bucket[0], (size_t)held[0] * sizeof *order);
    memcpy(order + done + held[0], bucket[1], (size_t)held[1] * sizeof *order);
}
