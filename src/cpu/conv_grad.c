/* conv_grad.c - gradients of convolution */
#pragma once
