/* ops.h - the inference operations on maps of the host, wherever the context computes
 *
 * Each brings its operands to the device, asks the backend, and brings the results back, so that
 * one test serves every backend. */
#ifndef GFL_TEST_OPS_H
#define GFL_TEST_OPS_H

#include "conv.h"
#include "found.h"

static inline gfli_map host_place_map(gfl_context *context, const gfli_map *m) {
    gfli_map there = *m;
    there.data = (float *)test_place(context, m->data, gfli_map_bytes(m));
    return there;
}

/* Ends the life of what was placed; to may be NULL: nothing is wanted back. */
static inline void host_fetch(gfl_context *context, void *to, void *there, size_t bytes) {
    if (to) context->backend->device.download(context, to, there, bytes);
    CHECK_OK(context, context->backend->device.finish(context));
    context->backend->device.free(context, there);
}

static inline void host_fetch_map(gfl_context *context, const gfli_map *to, gfli_map *there) {
    host_fetch(context, to ? to->data : NULL, there->data, gfli_map_bytes(there));
}

/* As test_convolve; residual may be y itself. */
static inline void host_convolve(gfl_context *context, gfli_conv_call call, const float *weight,
                                 const float *scale) {
    const gfli_map *y = call.y;
    const bool in_place = call.residual && call.residual->data == y->data;
    const size_t bias_bytes = (size_t)call.shape->out_c * sizeof(float);
    gfli_map x_there = host_place_map(context, call.x), y_there = host_place_map(context, y);
    gfli_map residual, offset;
    float *bias = NULL;
    memset(&residual, 0, sizeof residual);
    memset(&offset, 0, sizeof offset);
    if (call.residual && !in_place) residual = host_place_map(context, call.residual);
    if (call.offset) offset = host_place_map(context, call.offset);
    if (call.bias) bias = (float *)test_place(context, call.bias, bias_bytes);
    call.x = &x_there;
    call.y = &y_there;
    call.bias = bias;
    if (call.residual) call.residual = in_place ? &y_there : &residual;
    if (call.offset) call.offset = &offset;
    test_convolve(context, call, weight, scale);
    host_fetch_map(context, NULL, &x_there);
    host_fetch_map(context, y, &y_there);
    context->backend->device.free(context, residual.data);
    context->backend->device.free(context, offset.data);
    context->backend->device.free(context, bias);
}

static inline void host_max_pool(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    gfli_map from = host_place_map(context, x), to = host_place_map(context, y);
    context->backend->infer.max_pool(context, &from, &to);
    host_fetch_map(context, NULL, &from);
    host_fetch_map(context, y, &to);
}

static inline void host_upsample_add(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    gfli_map from = host_place_map(context, x), to = host_place_map(context, y);
    context->backend->infer.upsample_add(context, &from, &to);
    host_fetch_map(context, NULL, &from);
    host_fetch_map(context, y, &to);
}

/* With its own statistics; y may be x. */
static inline void host_group_norm(gfl_context *context, const gfli_map *x, int groups, float eps,
                                   const float *gamma, const float *beta, const gfli_map *y,
                                   float *stats) {
    const bool in_place = x->data == y->data;
    const size_t bytes = (size_t)x->c * sizeof(float);
    const size_t stats_bytes = (size_t)(x->levels * x->n * groups) * 2 * sizeof(float);
    gfli_map to = host_place_map(context, y), from = in_place ? to : host_place_map(context, x);
    float *g = (float *)test_place(context, gamma, bytes);
    float *b = (float *)test_place(context, beta, bytes);
    float *s = (float *)test_place(context, stats, stats_bytes);
    context->backend->infer.group_norm(context, &from, groups, eps, g, b, &to, s, false);
    if (!in_place) host_fetch_map(context, NULL, &from);
    host_fetch_map(context, y, &to);
    host_fetch(context, stats, s, stats_bytes);
    host_fetch(context, NULL, g, bytes);
    host_fetch(context, NULL, b, bytes);
}

static inline void host_level_scale(gfl_context *context, const gfli_map *x, const float *scale,
                                    const gfli_map *y) {
    const bool in_place = x->data == y->data;
    gfli_map to = host_place_map(context, y), from = in_place ? to : host_place_map(context, x);
    float apart[GFL_LEVELS * GFLI_BLOCK_STEP] = {0};
    for (int l = 0; l < x->levels; l++) apart[l * GFLI_BLOCK_STEP] = scale[l];
    float *there = (float *)test_place(context, apart, sizeof apart);
    context->backend->infer.level_scale(context, &from, there, &to);
    host_fetch(context, NULL, there, sizeof apart);
    if (!in_place) host_fetch_map(context, NULL, &from);
    host_fetch_map(context, y, &to);
}

static inline void host_resize(gfl_context *context, const gfl_image *image, bool bgr, int w, int h,
                               uint8_t *out) {
    const gfli_backend *ops = context->backend;
    const size_t bytes = (size_t)w * (size_t)h * 3;
    void *scratch = NULL, *there = test_place(context, out, bytes);
    CHECK_OK(context,
             ops->device.alloc(
                 context, ops->infer.resize_scratch(context, image->width, image->height, w, h), 1,
                 "scratch", &scratch));
    ops->infer.resize(context, image, false, bgr, w, h, (uint8_t *)there, scratch);
    host_fetch(context, out, there, bytes);
    ops->device.free(context, scratch);
}

static inline void host_normalise(gfl_context *context, const uint8_t *pixels, int w, int h,
                                  const float mean[3], const float std[3], bool flip,
                                  const gfli_map *y, int index) {
    const size_t bytes = (size_t)w * (size_t)h * 3;
    void *there = test_place(context, pixels, bytes);
    gfli_map to = host_place_map(context, y);
    context->backend->infer.normalise(context, (const uint8_t *)there, w, h, mean, std, flip, &to,
                                      index);
    host_fetch_map(context, y, &to);
    host_fetch(context, NULL, there, bytes);
}

/* As test_decode, without logits. */
static inline int host_decode(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                              int index, const gfli_decode_opts *o, gfli_decoded *out) {
    gfli_map cls_there = host_place_map(context, cls), reg_there = host_place_map(context, reg);
    const int n = test_decode(context, &cls_there, &reg_there, index, o, out, NULL);
    host_fetch_map(context, NULL, &cls_there);
    host_fetch_map(context, NULL, &reg_there);
    return n;
}

#endif
