/* emulated.h - gfl_cuda.cu compiled for the host, and what tests ask of the emulator */
#ifndef EMULATED_H
#define EMULATED_H

#include "emu.h"

#include "gfl_cuda.cu"

enum { EMULATED_FORWARD, EMULATED_REVERSE, EMULATED_RANDOM };

/* The order in which threads and blocks take turns. */
static inline void emulated_order(int order, unsigned seed) {
    emu::set_order(order, seed);
}

static inline long emulated_errors(void) {
    return emu::errors();
}

#endif
