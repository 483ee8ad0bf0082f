/* gemm.h - register-blocked matrix kernels, shared by convolution and its gradients */
#pragma once
