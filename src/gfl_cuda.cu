/* gfl_cuda.cu - Generalized Focal Loss on NVIDIA GPUs: the tensor-core convolution
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef GFL_INTERNAL
#define GFL_INTERNAL
#endif
#include "gfl.h"

#include "cuda/std.h"
#include "cuda/gpu.cuh"
#include "cuda/conv_tile.cuh"
#include "cuda/conv_mma.cuh"
#include "cuda/conv_wgmma.cuh"
#include "cuda/conv_tensor.cuh"
#include "cuda/pointwise.cuh"
#include "cuda/network.cuh"
