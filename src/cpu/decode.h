/* decode.h - candidates of decoding and suppression on the CPU */
#pragma once

/* Heaps with the largest rank at the root; sorting takes any order. */
void gfli_heap_make(uint64_t *ranks, size_t n);
void gfli_heap_replace(uint64_t *heap, size_t n, uint64_t rank); /* the root is dropped */
void gfli_sort_ranks(uint64_t *ranks, size_t n);

/* Suppression of candidates in any order; of opts nms_iou, inclusive and agnostic matter.  keep
 * [max_keep] gets the indices of the survivors, best first, equal scores by index; returns how
 * many.  ranks [n]; scratch has GFLI_NMS_FLOATS floats for each of keep's. */
enum { GFLI_NMS_FLOATS = 6 };
int gfli_nms(const gfli_decoded *boxes, int n, const gfli_decode_opts *opts, int max_keep,
             int *keep, uint64_t *ranks, float *scratch);

/* The candidates of one image before suppression: level after level (counts [levels]), best first
 * (by_location: location by location, best first where a level is cut, else in their order),
 * decoded and clipped, in pixels of the resized image.  Returns how many.  out and ranks have room
 * for gfli_max_candidates. */
int gfli_candidates(gfl_context *context, const gfli_map *cls, const gfli_map *reg, int index,
                    const gfli_decode_opts *opts, gfli_decoded *out, int *counts, uint64_t *ranks);
