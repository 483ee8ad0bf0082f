/* load.c - weights in: names, shapes, metadata, reports */
#pragma once
