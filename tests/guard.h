/* guard.h - the CPU's operations on memory that the rest of the program cannot touch
 *
 * A backend whose device memory is inaccessible except while one of its operations or copies runs:
 * whoever takes it for the host's ends with a signal.  What is downloaded arrives at finish
 * alone. */
#ifndef GUARD_H
#define GUARD_H

#include "test.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARD_ALIGN = 64, GUARD_DOWNLOADS = 256 };

/* One range of addresses for everything; what is freed is used again when nothing is left. */
static struct guard {
    unsigned char *start;
    size_t size, used;
    long open, freed; /* pieces */
    struct guard_download {
        void *to;
        const void *from;
        size_t bytes;
    } downloads[GUARD_DOWNLOADS];
    int n_downloads;
} guard;

static void guard_access(int how) {
    if (mprotect(guard.start, guard.used ? guard.used : 1, how) != 0) {
        perror("mprotect");
        exit(1);
    }
}

static void guard_enter(void) {
    guard_access(PROT_READ | PROT_WRITE);
}

static void guard_leave(void) {
    guard_access(PROT_NONE);
}

static inline void guard_reserve(size_t size) {
    const int zero = open("/dev/zero", O_RDWR);
    void *start = zero < 0 ? MAP_FAILED : mmap(NULL, size, PROT_NONE, MAP_PRIVATE, zero, 0);
    if (start == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    close(zero);
    memset(&guard, 0, sizeof guard);
    guard.start = (unsigned char *)start;
    guard.size = size;
}

/* ---- the device ------------------------------------------------------------------------------ */

static gfl_status guard_open(gfl_context *context, const gfl_context_desc *desc) {
    GFLI_TRY(gfli_cpu.device.open(context, desc));
    snprintf(context->device_name, sizeof context->device_name, "guarded memory");
    return GFL_OK;
}

static void guard_close(gfl_context *context) {
    (void)context;
}

static gfl_status guard_alloc(gfl_context *context, size_t count, size_t size, const char *what,
                              void *out_pointer) {
    const size_t bytes = (count * size + GUARD_ALIGN) / GUARD_ALIGN * GUARD_ALIGN;
    if (bytes > guard.size - guard.used)
        return gfli_error(context, GFL_E_MEMORY, "%s does not fit the guarded memory", what);
    void *p = guard.start + guard.used;
    guard.used += bytes;
    guard.open++;
    memcpy(out_pointer, &p, sizeof p);
    return GFL_OK;
}

static void guard_free(gfl_context *context, void *pointer) {
    (void)context;
    if (!pointer) return;
    const unsigned char *p = (const unsigned char *)pointer;
    CHECK(p >= guard.start && p < guard.start + guard.used);
    guard.freed++;
    if (--guard.open == 0 && guard.n_downloads == 0) guard.used = 0;
}

static void guard_upload(gfl_context *context, void *to, const void *from, size_t bytes) {
    (void)context;
    guard_enter();
    if (bytes > 0) memcpy(to, from, bytes);
    guard_leave();
}

static void guard_zero(gfl_context *context, void *to, size_t bytes) {
    (void)context;
    guard_enter();
    if (bytes > 0) memset(to, 0, bytes);
    guard_leave();
}

static gfl_status guard_finish(gfl_context *context) {
    (void)context;
    guard_enter();
    for (int i = 0; i < guard.n_downloads; i++)
        memcpy(guard.downloads[i].to, guard.downloads[i].from, guard.downloads[i].bytes);
    guard_leave();
    guard.n_downloads = 0;
    return GFL_OK;
}

/* Until then what the host has is rubbish. */
static void guard_download(gfl_context *context, void *to, const void *from, size_t bytes) {
    if (bytes == 0) return;
    if (guard.n_downloads == GUARD_DOWNLOADS) (void)guard_finish(context);
    memset(to, 0xAB, bytes);
    const struct guard_download d = {to, from, bytes};
    guard.downloads[guard.n_downloads++] = d;
}

/* ---- operations ------------------------------------------------------------------------------ */

#define GUARDED(table, name, parameters, arguments)                                                \
    static void guard_##name parameters {                                                          \
        guard_enter();                                                                             \
        table.name arguments;                                                                      \
        guard_leave();                                                                             \
    }

GUARDED(gfli_cpu.infer, conv_pack,
        (gfl_context * c, const gfli_conv_shape *s, const float *weight, const float *scale,
         void *packed),
        (c, s, weight, scale, packed))
GUARDED(gfli_cpu.infer, fold_norm, (gfl_context * c, const gfli_norm_fold *fold), (c, fold))
GUARDED(gfli_cpu.infer, conv,
        (gfl_context * c, const gfli_conv_call *calls, int n, const gfli_conv_means *means,
         void *scratch),
        (c, calls, n, means, scratch))
GUARDED(gfli_cpu.infer, max_pool, (gfl_context * c, const gfli_map *x, const gfli_map *y),
        (c, x, y))
GUARDED(gfli_cpu.infer, upsample_add, (gfl_context * c, const gfli_map *x, const gfli_map *y),
        (c, x, y))
GUARDED(gfli_cpu.infer, group_norm,
        (gfl_context * c, const gfli_map *x, int groups, float eps, const float *gamma,
         const float *beta, const gfli_map *y, float *stats, bool given),
        (c, x, groups, eps, gamma, beta, y, stats, given))
GUARDED(gfli_cpu.infer, level_scale,
        (gfl_context * c, const gfli_map *x, const float *scale, const gfli_map *y),
        (c, x, scale, y))
GUARDED(gfli_cpu.infer, resize,
        (gfl_context * c, const gfl_image *image, bool on_device, bool bgr, int w, int h,
         uint8_t *out, void *scratch),
        (c, image, on_device, bgr, w, h, out, scratch))
GUARDED(gfli_cpu.infer, normalise,
        (gfl_context * c, const uint8_t *pixels, int w, int h, const float mean[3],
         const float std[3], bool flip, const gfli_map *y, int index),
        (c, pixels, w, h, mean, std, flip, y, index))
GUARDED(gfli_cpu.infer, decode,
        (gfl_context * c, const gfli_map *cls, const gfli_map *reg, const gfli_decode_opts *opts,
         const gfli_found *out, void *scratch),
        (c, cls, reg, opts, out, scratch))

GUARDED(gfli_cpu_train, conv_grad_pack,
        (gfl_context * c, const gfli_conv_shape *s, const float *weight, const float *scale,
         void *packed),
        (c, s, weight, scale, packed))
GUARDED(gfli_cpu_train, conv_grad_input,
        (gfl_context * c, const gfli_conv_shape *s, const void *packed, const gfli_map *dy,
         bool accumulate, const gfli_map *dx, void *scratch),
        (c, s, packed, dy, accumulate, dx, scratch))
GUARDED(gfli_cpu_train, conv_grad_weight,
        (gfl_context * c, const gfli_conv_shape *s, const gfli_map *x, const gfli_map *dy,
         float *dweight, float *dbias, void *scratch),
        (c, s, x, dy, dweight, dbias, scratch))
GUARDED(gfli_cpu_train, deform_conv_grad_pack,
        (gfl_context * c, const gfli_conv_shape *s, const float *weight, const float *scale,
         void *packed),
        (c, s, weight, scale, packed))
GUARDED(gfli_cpu_train, deform_conv_grad,
        (gfl_context * c, const gfli_conv_shape *s, const void *packed, const gfli_map *x,
         const gfli_map *offset, const gfli_map *dy, bool accumulate, const gfli_map *dx,
         const gfli_map *doffset, float *dweight, float *dbias, void *scratch),
        (c, s, packed, x, offset, dy, accumulate, dx, doffset, dweight, dbias, scratch))
GUARDED(gfli_cpu_train, unfold, (gfl_context * c, const gfli_unfold *call), (c, call))
GUARDED(gfli_cpu_train, relu_grad, (gfl_context * c, const gfli_map *y, const gfli_map *dy),
        (c, y, dy))
GUARDED(gfli_cpu_train, max_pool_grad,
        (gfl_context * c, const gfli_map *x, const gfli_map *dy, bool accumulate,
         const gfli_map *dx),
        (c, x, dy, accumulate, dx))
GUARDED(gfli_cpu_train, upsample_grad,
        (gfl_context * c, const gfli_map *dy, bool accumulate, const gfli_map *dx),
        (c, dy, accumulate, dx))
GUARDED(gfli_cpu_train, group_norm_grad,
        (gfl_context * c, const gfli_map *x, const gfli_map *y, int groups, const float *gamma,
         const float *stats, const gfli_map *dy, const gfli_map *dx, float *dgamma, float *dbeta,
         void *scratch),
        (c, x, y, groups, gamma, stats, dy, dx, dgamma, dbeta, scratch))
GUARDED(gfli_cpu_train, level_scale_grad,
        (gfl_context * c, const gfli_map *x, const float *scale, const gfli_map *dy,
         const gfli_map *dx, float *dscale),
        (c, x, scale, dy, dx, dscale))
GUARDED(gfli_cpu_train, assign,
        (gfl_context * c, const gfli_map *shape, const gfli_assign_opts *opts,
         const gfli_truths *truths, const gfli_assignment *out, void *scratch),
        (c, shape, opts, truths, out, scratch))
GUARDED(gfli_cpu_train, loss_sums,
        (gfl_context * c, const gfli_map *cls, const gfli_assignment *assigned,
         const gfli_loss_opts *opts, gfli_losses *out, void *scratch),
        (c, cls, assigned, opts, out, scratch))
GUARDED(gfli_cpu_train, losses,
        (gfl_context * c, const gfli_map *cls, const gfli_map *reg, const gfli_truths *truths,
         const gfli_assignment *assigned, const gfli_loss_opts *opts, const gfli_map *dcls,
         const gfli_map *dreg, gfli_losses *out, void *scratch),
        (c, cls, reg, truths, assigned, opts, dcls, dreg, out, scratch))
GUARDED(gfli_cpu_train, accumulate, (gfl_context * c, float *sum, const float *x, size_t n),
        (c, sum, x, n))
GUARDED(gfli_cpu_train, check_update,
        (gfl_context * c, const gfli_update *update, gfli_verdict *out), (c, update, out))
GUARDED(gfli_cpu_train, update,
        (gfl_context * c, const gfli_update *update, const gfli_verdict *verdict),
        (c, update, verdict))

/* The CPU's tables with these in the place of what touches memory.  Sizes and choices are asked for
 * without access. */
static inline const gfl_backend *guard_backend(void) {
    static gfl_backend backend;
    static gfli_train_ops train;
    static const gfli_device_ops device = {
        guard_open, guard_close,  guard_alloc,    guard_free, gfli_alloc,   gfli_free,
        NULL,       guard_upload, guard_download, guard_zero, guard_finish, NULL,
    };
    backend = gfli_cpu;
    backend.name = "guarded";
    backend.device = device;
    backend.infer.conv_pack = guard_conv_pack;
    backend.infer.fold_norm = guard_fold_norm;
    backend.infer.conv = guard_conv;
    backend.infer.max_pool = guard_max_pool;
    backend.infer.upsample_add = guard_upsample_add;
    backend.infer.group_norm = guard_group_norm;
    backend.infer.level_scale = guard_level_scale;
    backend.infer.resize = guard_resize;
    backend.infer.normalise = guard_normalise;
    backend.infer.decode = guard_decode;
    train = gfli_cpu_train;
    train.conv_grad_pack = guard_conv_grad_pack;
    train.conv_grad_input = guard_conv_grad_input;
    train.conv_grad_weight = guard_conv_grad_weight;
    train.deform_conv_grad_pack = guard_deform_conv_grad_pack;
    train.deform_conv_grad = guard_deform_conv_grad;
    train.unfold = guard_unfold;
    train.relu_grad = guard_relu_grad;
    train.max_pool_grad = guard_max_pool_grad;
    train.upsample_grad = guard_upsample_grad;
    train.group_norm_grad = guard_group_norm_grad;
    train.level_scale_grad = guard_level_scale_grad;
    train.assign = guard_assign;
    train.loss_sums = guard_loss_sums;
    train.losses = guard_losses;
    train.accumulate = guard_accumulate;
    train.check_update = guard_check_update;
    train.update = guard_update;
    backend.train = &train;
    return &backend;
}

#endif
