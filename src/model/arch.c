/* arch.c - architectures: defaults, presets, checks */
#pragma once
