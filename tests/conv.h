/* conv.h - one convolution through a backend's table, with weights and scratch of its own */
#ifndef CONV_H
#define CONV_H

#include "test.h"

/* What the convolution makes of x, without memory. */
static inline gfli_map test_conv_output(const gfli_conv_shape *s, const gfli_map *x) {
    gfli_map y = *x;
    y.data = NULL;
    y.c = s->out_c;
    for (int l = 0; l < x->levels; l++) {
        y.h[l] = gfli_conv_out(s, x->h[l]);
        y.w[l] = gfli_conv_out(s, x->w[l]);
    }
    return y;
}

/* The fields that every call has. */
static inline gfli_conv_call test_conv_call(const gfli_conv_shape *s, const gfli_map *x,
                                            const gfli_map *y, const float *bias, int relu) {
    gfli_conv_call call;
    memset(&call, 0, sizeof call);
    call.shape = s;
    call.bias = bias;
    call.x = x;
    call.y = y;
    call.relu = relu != 0;
    return call;
}

/* Memory of the device with what the host has; NULL for NULL. */
static inline void *test_place(gfl_context *context, const void *from, size_t bytes) {
    void *p = NULL;
    if (!from) return NULL;
    CHECK_OK(context, context->backend->device.alloc(context, bytes, 1, "test", &p));
    context->backend->device.upload(context, p, from, bytes);
    return p;
}

/* weight and scale (or NULL) are the host's, all that call points to the device's. */
static inline void test_convolve(gfl_context *context, gfli_conv_call call, const float *weight,
                                 const float *scale) {
    const gfli_backend *ops = context->backend;
    void *packing = NULL, *scratch = NULL;
    float *weight_there = (float *)test_place(context, weight, gfli_conv_weights(call.shape) * 4);
    float *scale_there = (float *)test_place(context, scale, (size_t)call.shape->out_c * 4);
    gfli_conv_means means;
    CHECK_OK(context, ops->device.alloc(context, ops->infer.conv_packed_size(context, call.shape),
                                        1, "weights", &packing));
    ops->infer.conv_pack(context, call.shape, weight_there, scale_there, packing);
    call.packing = packing;
    CHECK_OK(context, ops->infer.conv_prepare(context, &call, 1, &means));
    CHECK_OK(context, ops->device.alloc(context, means.scratch, 1, "scratch", &scratch));
    ops->infer.conv(context, &call, 1, &means, scratch);
    CHECK_OK(context, ops->device.finish(context));
    ops->device.free(context, weight_there);
    ops->device.free(context, scale_there);
    ops->device.free(context, packing);
    ops->device.free(context, scratch);
}

#endif
