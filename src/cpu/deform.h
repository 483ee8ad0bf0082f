/* deform.h - where a deformable convolution looks, and the convolution */
#pragma once

/* points [n][GFLI_DEFORM_TAPS] of the output positions from `first` on. */
void gfli_find_points(const gfli_conv_shape *s, const gfli_map *x, const gfli_map *offset,
                      size_t first, int n, gfli_point *points);

/* The convolution as a matrix product, a segment for each tap. */
void gfli_deform_igemm(const gfli_conv_shape *s, gfli_igemm *g);

size_t gfli_deform_conv_scratch(const gfl_context *context, const gfli_conv_shape *s);
void gfli_deform_conv(gfl_context *context, const gfli_conv_call *call, void *scratch);
