/* norm.c - GroupNorm with ReLU, statistics per image and level; the level scales */
#pragma once
