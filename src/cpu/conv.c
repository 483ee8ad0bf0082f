/* conv.c - implicit-GEMM convolution over NHWC pyramids */
#pragma once
