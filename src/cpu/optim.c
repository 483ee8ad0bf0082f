/* optim.c - SGD with momentum and weight decay, gradient norm */
#pragma once
