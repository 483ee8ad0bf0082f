/* decode.c - from logits to boxes: threshold, top-k, integral of the distributions, clip */
#pragma once
