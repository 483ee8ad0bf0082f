/* pool_grad.c - gradients of max pooling, upsampling and ReLU */
#pragma once
