/* ops.h - the operations on maps and arrays of the host, wherever the context computes
 *
 * Each brings its operands to the device, asks the backend, and brings the results back, so that
 * one test serves every backend. */
#ifndef GFL_TEST_OPS_H
#define GFL_TEST_OPS_H

#include "conv.h"
#include "found.h"

/* ---- operands -------------------------------------------------------------------------------- */

/* What one operation is given.  The same memory of the host is the same of the device, so that an
 * operation in place is one there too. */
enum { HOST_OPERANDS = 24 };

typedef struct host_operands {
    gfl_context *context;
    int n;
    struct host_operand {
        const void *host;
        void *there, *back; /* back: where the host wants it */
        size_t bytes;
    } item[HOST_OPERANDS];
} host_operands;

static inline host_operands host_begin(gfl_context *context) {
    host_operands o;
    memset(&o, 0, sizeof o);
    o.context = context;
    return o;
}

static inline void *host_take(host_operands *o, const void *host, void *back, size_t bytes) {
    int i = 0;
    if (!host) return NULL;
    while (i < o->n && o->item[i].host != host) i++;
    if (i == HOST_OPERANDS) exit(1);
    struct host_operand *item = &o->item[i];
    if (i == o->n) {
        o->n++;
        item->host = host;
        item->bytes = bytes;
        item->there = test_place(o->context, host, bytes);
    }
    if (back) item->back = back;
    return item->there;
}

/* An array that is read; one that is written, or both. */
static inline void *host_in(host_operands *o, const void *host, size_t bytes) {
    return host_take(o, host, NULL, bytes);
}

static inline void *host_out(host_operands *o, void *host, size_t bytes) {
    return host_take(o, host, host, bytes);
}

/* The same of maps; NULL stays an empty map. */
static inline gfli_map host_map_in(host_operands *o, const gfli_map *m) {
    gfli_map there;
    memset(&there, 0, sizeof there);
    if (!m) return there;
    there = *m;
    there.data = (float *)host_in(o, m->data, gfli_map_bytes(m));
    return there;
}

static inline gfli_map host_map_out(host_operands *o, const gfli_map *m) {
    gfli_map there = host_map_in(o, m);
    if (m) (void)host_out(o, m->data, gfli_map_bytes(m));
    return there;
}

/* Memory of the device alone, full of NaN. */
static inline void *host_scratch(host_operands *o, size_t bytes) {
    void *rubbish = memset(malloc(bytes + 1), 0xff, bytes + 1);
    void *there = host_in(o, rubbish, bytes + 1);
    o->item[o->n - 1].host = NULL; /* its address may come again */
    free(rubbish);
    return there;
}

/* Bring back what is wanted, and end the life of everything. */
static inline void host_end(host_operands *o) {
    const gfli_device_ops *device = &o->context->backend->device;
    for (int i = 0; i < o->n; i++)
        if (o->item[i].back)
            device->download(o->context, o->item[i].back, o->item[i].there, o->item[i].bytes);
    CHECK_OK(o->context, device->finish(o->context));
    for (int i = 0; i < o->n; i++) (device->free)(o->context, o->item[i].there);
}

/* ---- inference ------------------------------------------------------------------------------- */

/* As test_convolve; residual may be y itself. */
static inline void host_convolve(gfl_context *context, gfli_conv_call call, const float *weight,
                                 const float *scale) {
    host_operands o = host_begin(context);
    gfli_map x = host_map_in(&o, call.x), y = host_map_out(&o, call.y);
    gfli_map residual = host_map_in(&o, call.residual), offset = host_map_in(&o, call.offset);
    call.x = &x;
    call.y = &y;
    if (call.residual) call.residual = &residual;
    if (call.offset) call.offset = &offset;
    call.bias = (const float *)host_in(&o, call.bias, (size_t)call.shape->out_c * sizeof(float));
    test_convolve(context, call, weight, scale);
    host_end(&o);
}

static inline void host_max_pool(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    host_operands o = host_begin(context);
    const gfli_map from = host_map_in(&o, x), to = host_map_out(&o, y);
    context->backend->infer.max_pool(context, &from, &to);
    host_end(&o);
}

static inline void host_upsample_add(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    host_operands o = host_begin(context);
    const gfli_map from = host_map_in(&o, x), to = host_map_out(&o, y);
    context->backend->infer.upsample_add(context, &from, &to);
    host_end(&o);
}

static inline size_t host_stats_bytes(const gfli_map *x, int groups) {
    return (size_t)(x->levels * x->n * groups) * 2 * sizeof(float);
}

/* With its own statistics; y may be x. */
static inline void host_group_norm(gfl_context *context, const gfli_map *x, int groups, float eps,
                                   const float *gamma, const float *beta, const gfli_map *y,
                                   float *stats) {
    const size_t bytes = (size_t)x->c * sizeof(float);
    host_operands o = host_begin(context);
    const gfli_map from = host_map_in(&o, x), to = host_map_out(&o, y);
    const float *g = (const float *)host_in(&o, gamma, bytes);
    const float *b = (const float *)host_in(&o, beta, bytes);
    float *s = (float *)host_out(&o, stats, host_stats_bytes(x, groups));
    context->backend->infer.group_norm(context, &from, groups, eps, g, b, &to, s, false);
    host_end(&o);
}

/* One scale a level, where the operations have them further apart. */
static inline const float *host_scales(host_operands *o, const float *scale, int levels,
                                       float apart[GFL_LEVELS * GFLI_BLOCK_STEP]) {
    memset(apart, 0, GFL_LEVELS * GFLI_BLOCK_STEP * sizeof *apart);
    for (int l = 0; l < levels; l++) apart[l * GFLI_BLOCK_STEP] = scale[l];
    return (const float *)host_in(o, apart, GFL_LEVELS * GFLI_BLOCK_STEP * sizeof *apart);
}

static inline void host_level_scale(gfl_context *context, const gfli_map *x, const float *scale,
                                    const gfli_map *y) {
    float apart[GFL_LEVELS * GFLI_BLOCK_STEP];
    host_operands o = host_begin(context);
    const gfli_map from = host_map_in(&o, x), to = host_map_out(&o, y);
    const float *s = host_scales(&o, scale, x->levels, apart);
    context->backend->infer.level_scale(context, &from, s, &to);
    host_end(&o);
}

static inline void host_resize(gfl_context *context, const gfl_image *image, bool bgr, int w, int h,
                               uint8_t *out) {
    const gfli_infer_ops *ops = &context->backend->infer;
    host_operands o = host_begin(context);
    uint8_t *there = (uint8_t *)host_out(&o, out, (size_t)w * (size_t)h * 3);
    void *scratch =
        host_scratch(&o, ops->resize_scratch(context, image->width, image->height, w, h));
    ops->resize(context, image, false, bgr, w, h, there, scratch);
    host_end(&o);
}

static inline void host_normalise(gfl_context *context, const uint8_t *pixels, int w, int h,
                                  const float mean[3], const float std[3], bool flip,
                                  const gfli_map *y, int index) {
    host_operands o = host_begin(context);
    const uint8_t *there = (const uint8_t *)host_in(&o, pixels, (size_t)w * (size_t)h * 3);
    const gfli_map to = host_map_out(&o, y);
    context->backend->infer.normalise(context, there, w, h, mean, std, flip, &to, index);
    host_end(&o);
}

/* As test_decode, without logits. */
static inline int host_decode(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                              int index, const gfli_decode_opts *opts, gfli_decoded *out) {
    host_operands o = host_begin(context);
    const gfli_map cls_there = host_map_in(&o, cls), reg_there = host_map_in(&o, reg);
    const int n = test_decode(context, &cls_there, &reg_there, index, opts, out, NULL);
    host_end(&o);
    return n;
}

/* ---- gradients ------------------------------------------------------------------------------- */

static inline void host_relu_grad(gfl_context *context, const gfli_map *y, const gfli_map *dy) {
    host_operands o = host_begin(context);
    const gfli_map of = host_map_in(&o, y), d = host_map_out(&o, dy);
    gfli_train_ops_of(context)->relu_grad(context, &of, &d);
    host_end(&o);
}

static inline void host_max_pool_grad(gfl_context *context, const gfli_map *x, const gfli_map *dy,
                                      bool accumulate, const gfli_map *dx) {
    host_operands o = host_begin(context);
    const gfli_map from = host_map_in(&o, x), d = host_map_in(&o, dy), to = host_map_out(&o, dx);
    gfli_train_ops_of(context)->max_pool_grad(context, &from, &d, accumulate, &to);
    host_end(&o);
}

static inline void host_upsample_grad(gfl_context *context, const gfli_map *dy, bool accumulate,
                                      const gfli_map *dx) {
    host_operands o = host_begin(context);
    const gfli_map d = host_map_in(&o, dy), to = host_map_out(&o, dx);
    gfli_train_ops_of(context)->upsample_grad(context, &d, accumulate, &to);
    host_end(&o);
}

/* dx may be dy. */
static inline void host_group_norm_grad(gfl_context *context, const gfli_map *x, const gfli_map *y,
                                        int groups, const float *gamma, const float *stats,
                                        const gfli_map *dy, const gfli_map *dx, float *dgamma,
                                        float *dbeta) {
    const gfli_train_ops *ops = gfli_train_ops_of(context);
    const size_t bytes = (size_t)x->c * sizeof(float);
    host_operands o = host_begin(context);
    const gfli_map x_there = host_map_in(&o, x), y_there = host_map_in(&o, y);
    const gfli_map d = host_map_in(&o, dy), to = host_map_out(&o, dx);
    const float *g = (const float *)host_in(&o, gamma, bytes);
    const float *s = (const float *)host_in(&o, stats, host_stats_bytes(x, groups));
    float *dg = (float *)host_out(&o, dgamma, bytes), *db = (float *)host_out(&o, dbeta, bytes);
    void *scratch = host_scratch(&o, ops->group_norm_grad_scratch(context, x));
    ops->group_norm_grad(context, &x_there, &y_there, groups, g, s, &d, &to, dg, db, scratch);
    host_end(&o);
}

/* scale and dscale: one a level; dx may be dy. */
static inline void host_level_scale_grad(gfl_context *context, const gfli_map *x,
                                         const float *scale, const gfli_map *dy, const gfli_map *dx,
                                         float *dscale) {
    float apart[GFL_LEVELS * GFLI_BLOCK_STEP], sums[GFL_LEVELS * GFLI_BLOCK_STEP] = {0};
    host_operands o = host_begin(context);
    const gfli_map from = host_map_in(&o, x), d = host_map_in(&o, dy), to = host_map_out(&o, dx);
    const float *s = host_scales(&o, scale, x->levels, apart);
    float *ds = (float *)host_out(&o, sums, sizeof sums);
    gfli_train_ops_of(context)->level_scale_grad(context, &from, s, &d, &to, ds);
    host_end(&o);
    for (int l = 0; l < x->levels; l++) dscale[l] = sums[l * GFLI_BLOCK_STEP];
}

/* weight and scale (or NULL) as given to conv_pack. */
static inline void host_conv_grad_input(gfl_context *context, const gfli_conv_shape *s,
                                        const float *weight, const float *scale, const gfli_map *dy,
                                        bool accumulate, const gfli_map *dx) {
    const gfli_train_ops *ops = gfli_train_ops_of(context);
    host_operands o = host_begin(context);
    const gfli_map d = host_map_in(&o, dy), to = host_map_out(&o, dx);
    const float *w = (const float *)host_in(&o, weight, gfli_conv_weights(s) * sizeof(float));
    const float *a = (const float *)host_in(&o, scale, (size_t)s->out_c * sizeof(float));
    void *packing = host_scratch(&o, ops->conv_grad_packed_size(s));
    void *scratch = host_scratch(&o, ops->conv_grad_scratch(context, s, dx));
    ops->conv_grad_pack(context, s, w, a, packing);
    ops->conv_grad_input(context, s, packing, &d, accumulate, &to, scratch);
    host_end(&o);
}

static inline void host_conv_grad_weight(gfl_context *context, const gfli_conv_shape *s,
                                         const gfli_map *x, const gfli_map *dy, float *dweight,
                                         float *dbias) {
    const gfli_train_ops *ops = gfli_train_ops_of(context);
    host_operands o = host_begin(context);
    const gfli_map from = host_map_in(&o, x), d = host_map_in(&o, dy);
    float *dw = (float *)host_out(&o, dweight, gfli_conv_weights(s) * sizeof(float));
    float *db = (float *)host_out(&o, dbias, (size_t)s->out_c * sizeof(float));
    void *scratch = host_scratch(&o, ops->conv_grad_scratch(context, s, x));
    ops->conv_grad_weight(context, s, &from, &d, dw, db, scratch);
    host_end(&o);
}

/* dx and dbias may be NULL. */
static inline void host_deform_conv_grad(gfl_context *context, const gfli_conv_shape *s,
                                         const float *weight, const float *scale, const gfli_map *x,
                                         const gfli_map *offset, const gfli_map *dy,
                                         bool accumulate, const gfli_map *dx,
                                         const gfli_map *doffset, float *dweight, float *dbias) {
    const gfli_train_ops *ops = gfli_train_ops_of(context);
    const size_t weights = gfli_conv_weights(s) * sizeof(float);
    const size_t out_c = (size_t)s->out_c * sizeof(float);
    host_operands o = host_begin(context);
    const gfli_map from = host_map_in(&o, x), off = host_map_in(&o, offset);
    const gfli_map d = host_map_in(&o, dy), to = host_map_out(&o, dx);
    const gfli_map doff = host_map_out(&o, doffset);
    const float *w = (const float *)host_in(&o, weight, weights);
    const float *a = (const float *)host_in(&o, scale, out_c);
    float *dw = (float *)host_out(&o, dweight, weights), *db = (float *)host_out(&o, dbias, out_c);
    void *packing = host_scratch(&o, ops->deform_conv_grad_packed_size(s));
    void *scratch = host_scratch(&o, ops->deform_conv_grad_scratch(context, s, offset));
    ops->deform_conv_grad_pack(context, s, w, a, packing);
    ops->deform_conv_grad(context, s, packing, &from, &off, &d, accumulate, dx ? &to : NULL, &doff,
                          dw, db, scratch);
    host_end(&o);
}

/* ---- updates --------------------------------------------------------------------------------- */

/* What an update points to, there; what it changes comes back. */
static inline gfli_update host_update_there(host_operands *o, const gfli_update *u) {
    const size_t bytes = u->n * sizeof(float);
    gfli_update there = *u;
    there.params = (float *)host_out(o, u->params, bytes);
    there.momentum = (float *)host_out(o, u->momentum, bytes);
    there.gradients = (const float *)host_in(o, u->gradients, bytes);
    there.parts =
        (const gfli_update_part *)host_in(o, u->parts, (size_t)u->n_parts * sizeof *u->parts);
    there.losses =
        (const gfli_losses *)host_in(o, u->losses, (size_t)u->n_losses * sizeof *u->losses);
    return there;
}

static inline gfli_verdict host_check_update(gfl_context *context, const gfli_update *u) {
    gfli_verdict verdict;
    host_operands o = host_begin(context);
    const gfli_update there = host_update_there(&o, u);
    memset(&verdict, 0xff, sizeof verdict);
    gfli_verdict *out = (gfli_verdict *)host_out(&o, &verdict, sizeof verdict);
    gfli_train_ops_of(context)->check_update(context, &there, out);
    host_end(&o);
    return verdict;
}

static inline void host_update(gfl_context *context, const gfli_update *u,
                               const gfli_verdict *verdict) {
    host_operands o = host_begin(context);
    const gfli_update there = host_update_there(&o, u);
    const gfli_verdict *v = (const gfli_verdict *)host_in(&o, verdict, sizeof *verdict);
    gfli_train_ops_of(context)->update(context, &there, v);
    host_end(&o);
}

#endif
