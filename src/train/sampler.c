/* sampler.c - the order of images in an epoch */
#pragma once
