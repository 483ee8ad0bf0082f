/* gemm.c - register-blocked matrix kernels for AVX2 and portable C */
#pragma once
