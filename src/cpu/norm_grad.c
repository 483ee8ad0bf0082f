/* norm_grad.c - gradients of GroupNorm with ReLU and of the level scales */
#pragma once
