/* rng.c - random numbers by counter */
#pragma once
