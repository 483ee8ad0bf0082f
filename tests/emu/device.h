/* device.h - gfl_cuda.cu with its internals, on the emulator or, compiled by nvcc, on a GPU */
#ifndef DEVICE_H
#define DEVICE_H

#ifndef __CUDACC__
#    include "emu.h"
#endif

#include "gfl_cuda.cu"

enum { EMULATED_FORWARD, EMULATED_REVERSE, EMULATED_RANDOM };

/* The order in which threads and blocks take turns, where that can be chosen. */
static inline void emulated_order(int order, unsigned seed) {
#ifndef __CUDACC__
    emu::set_order(order, seed);
#else
    (void)order;
    (void)seed;
#endif
}

static inline long emulated_errors(void) {
#ifndef __CUDACC__
    return emu::errors();
#else
    return 0;
#endif
}

/* What main returns where there is no GPU: 77, or 1 where there has to be one. */
static inline int device_absent(void) {
    int n = 0;
    if (cudaGetDeviceCount(&n) == cudaSuccess && n > 0) return 0;
    printf("no GPU here\n");
    return getenv("GFL_REQUIRE_GPU") ? 1 : 77;
}

/* Elements on the host, written without the library's conversions. */

static inline size_t element_size(int element) {
    return element == GFLI_MAP_F32 ? 4 : 2;
}

static inline float element_float(uint32_t bits, int element) {
    float v;
    if (element == GFLI_MAP_FP16) {
        __half_raw raw;
        raw.x = (unsigned short)bits;
        return __half2float(raw);
    }
    if (element == GFLI_MAP_BF16) bits <<= 16;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* To nearest: bf16 with ties to even, tf32 away from zero. */
static inline uint32_t element_bits(float v, int element) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if (element == GFLI_MAP_F32) return (bits + 0x1000u) & ~0x1fffu;
    if (element == GFLI_MAP_BF16) return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const __half_raw raw = __float2half(v);
    return raw.x;
}

static inline float element_at(const void *p, size_t i, int element) {
    if (element == GFLI_MAP_F32) return ((const float *)p)[i];
    return element_float(((const uint16_t *)p)[i], element);
}

/* tf32 is stored as the float it came from. */
static inline void element_put(void *p, size_t i, float v, int element) {
    if (element == GFLI_MAP_F32)
        ((float *)p)[i] = v;
    else
        ((uint16_t *)p)[i] = (uint16_t)element_bits(v, element);
}

#endif
