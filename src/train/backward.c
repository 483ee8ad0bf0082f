/* backward.c - the plan read in reverse: gradients of every parameter */
#pragma once
