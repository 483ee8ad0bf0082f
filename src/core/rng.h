/* rng.h - random numbers by counter: the same draw whatever the order and the threads */
#pragma once

/* A stream is (seed, epoch or 0, item, purpose); the i-th draw of a stream depends on nothing
 * else. */
typedef struct gfli_rng {
    uint64_t key, counter;
} gfli_rng;

gfli_rng gfli_rng_make(uint64_t seed, uint64_t epoch, uint64_t item, uint64_t purpose);
uint64_t gfli_rng_next(gfli_rng *rng);
double gfli_rng_uniform(gfli_rng *rng);   /* [0, 1) */
int gfli_rng_below(gfli_rng *rng, int n); /* 0..n-1, unbiased */
double gfli_rng_normal(gfli_rng *rng);
