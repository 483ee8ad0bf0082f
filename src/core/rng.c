/* rng.c - random numbers by counter */
#pragma once

/* Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014: the finaliser
 * of SplitMix64, a bijection of 64 bits in which every input bit reaches every output bit. */
static uint64_t gfli_mix64(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

gfli_rng gfli_rng_make(uint64_t seed, uint64_t epoch, uint64_t item, uint64_t purpose) {
    gfli_rng rng;
    rng.key = gfli_mix64(gfli_mix64(gfli_mix64(gfli_mix64(seed) ^ epoch) ^ item) ^ purpose);
    rng.counter = 0;
    return rng;
}

uint64_t gfli_rng_next(gfli_rng *rng) {
    return gfli_mix64(rng->key ^ gfli_mix64(rng->counter++));
}

double gfli_rng_uniform(gfli_rng *rng) {
    return (double)(gfli_rng_next(rng) >> 11) * 0x1p-53;
}

int gfli_rng_below(gfli_rng *rng, int n) {
    uint64_t range = (uint64_t)n, limit = UINT64_MAX - UINT64_MAX % range, x;
    do {
        x = gfli_rng_next(rng);
    } while (x >= limit);
    return (int)(x % range);
}

/* Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958. */
double gfli_rng_normal(gfli_rng *rng) {
    double u = 1.0 - gfli_rng_uniform(rng), v = gfli_rng_uniform(rng);
    return (sqrt)(-2.0 * (log)(u)) * (cos)(6.283185307179586 * v);
}
