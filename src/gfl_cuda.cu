/* gfl_cuda.cu - Generalized Focal Loss on NVIDIA GPUs
 *
 * SPDX-License-Identifier: MIT
 *
 * Compile it with nvcc, beside gfl.h, into a program that has gfl.h's implementation:
 *
 *     nvcc -O3 -arch=sm_90a -c gfl_cuda.cu
 *
 * and give gfl_cuda() to gfl_context_create.  libcuda is not linked: a program with this file in it
 * starts where there is no driver, and gfl_context_create says so there.
 */
#ifndef GFL_INTERNAL
#define GFL_INTERNAL
#endif
#include "gfl.h"
#if GFL_VERSION != 200
#    error "this file is of gfl 0.2.0 and gfl.h is not: take both from one release"
#endif

#include "cuda/std.h"

GFLI_HIDDEN_BEGIN

#include "cuda/gpu.cuh"
#include "cuda/map.cuh"
#include "cuda/conv/tile.cuh"
#include "cuda/conv/mma.cuh"
#include "cuda/conv/wgmma.cuh"
#include "cuda/conv/tensor.cuh"
#include "cuda/device.cuh"
#include "cuda/fold.cuh"
#include "cuda/pool.cuh"
#include "cuda/norm.cuh"
#include "cuda/conv/fp32.cuh"
#include "cuda/conv/tune.cuh"
#include "cuda/conv/conv.cuh"
#include "cuda/image.cuh"
#include "cuda/decode.cuh"
#include "cuda/backend.cuh"

GFLI_HIDDEN_END
