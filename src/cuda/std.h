/* std.h - CUDA's headers for the GPU backend */
#pragma once
#include <cudaTypedefs.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
