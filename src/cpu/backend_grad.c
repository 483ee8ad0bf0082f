/* backend_grad.c - the CPU's table of training operations */
#pragma once
