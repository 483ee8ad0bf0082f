/* backend.h - the tables of operations: the device, inference, training */
#pragma once

/* Everywhere: maps are NHWC pyramids, weights f32 [out][kh][kw][in / groups] ("OHWI").  An
 * operation knows shapes, never networks.  Results do not depend on the number of threads. */

enum { GFLI_BACKEND_VERSION = 6, GFLI_CONV_CALLS = 2 };

/* Parameters begin at multiples of it in a model's block, in floats. */
enum { GFLI_BLOCK_STEP = 16 };
static inline size_t gfli_block_size(size_t count) {
    return (count + GFLI_BLOCK_STEP - 1) / GFLI_BLOCK_STEP * GFLI_BLOCK_STEP;
}

typedef struct gfli_conv_shape {
    int in_c, out_c;
    int kernel; /* 1, 3 or 7 (square) */
    int stride, pad;
    int groups;
} gfli_conv_shape;

static inline int gfli_conv_out(const gfli_conv_shape *s, int size) {
    return (size + 2 * s->pad - s->kernel) / s->stride + 1;
}

static inline size_t gfli_conv_weights(const gfli_conv_shape *s) {
    return (size_t)s->out_c * (size_t)(s->kernel * s->kernel) * (size_t)(s->in_c / s->groups);
}

/* Where the weight of an output channel, a tap and an input channel of its group is, in OHWI and
 * in OIHW, which is the order of files. */
GFLI_HD static inline size_t gfli_weight_at(int taps, int in, int o, int tap, int i) {
    return ((size_t)o * (size_t)taps + (size_t)tap) * (size_t)in + (size_t)i;
}

GFLI_HD static inline size_t gfli_file_weight_at(int taps, int in, int o, int tap, int i) {
    return gfli_weight_at(in, taps, o, i, tap);
}

/* Groups side by side as one, with zeros beside the diagonal: a block-diagonal matrix wastes less
 * than a thin one, up to so many channels of either side. */
typedef struct gfli_groups {
    int n, in, out; /* groups, and the channels of each */
} gfli_groups;

static inline gfli_groups gfli_merge_groups(const gfli_conv_shape *s, int most) {
    const int in = s->in_c / s->groups, out = s->out_c / s->groups;
    int merged = 1;
    for (int m = 2; m <= s->groups && m * in <= most && m * out <= most; m++)
        if (s->groups % m == 0) merged = m;
    gfli_groups g;
    g.n = s->groups / merged;
    g.in = in * merged;
    g.out = out * merged;
    return g;
}

/* y = relu?(conv(x) + bias + residual).  Every level of x gives the level of y. */
typedef struct gfli_conv_call {
    const gfli_conv_shape *shape;
    const void *packing; /* by conv_pack */
    const float *bias;   /* [out_c] or NULL */
    const gfli_map *x, *y;
    const gfli_map *residual; /* shaped as y, or NULL; it may be y itself */
    /* Of a deformable 3x3 convolution (spec 1.5), or NULL: one map on the grid of y with 18
     * channels, y and x offset of each tap, or 27, then the masks' logits too; no residual. */
    const gfli_map *offset;
    bool relu;
    int norm_groups;   /* not 0, where the backend fuses: leave group_norm's statistics of y */
    float eps, *stats; /* as group_norm's */
} gfli_conv_call;

#define GFLI_NORM_EPS 1e-5f /* of batch norm and group norm alike */

/* A batch norm as what it does to the convolution before it (spec 1.3):
 * scale = gamma / sqrt(var + eps), bias = beta - scale * mean, computed in double. */
typedef struct gfli_norm_fold {
    const float *gamma, *beta, *mean, *var; /* [channels] */
    float eps;
    float *scale, *bias; /* [channels], written */
    int channels;
} gfli_norm_fold;

/* How a backend computes a convolution. */
typedef struct gfli_conv_means {
    const char *kernel;  /* a word for people */
    int variant, splits; /* the backend's own number of it; parts of the sum, 1: none */
    bool apart;          /* statistics come from a kernel of their own */
    size_t scratch;      /* bytes; one scratch serves all calls */
} gfli_conv_means;

/* From raw logits to boxes, for an image of a batch (spec 6).  What differs between dialects
 * stands in the options; model/dialect.h has the table. */
typedef struct gfli_decode_opts {
    float min_score, nms_iou;
    int max_per_level, max_detections;
    int n_classes, n_bins; /* n_bins = reg_max + 1 */
    int stride[GFL_LEVELS];
    int height, width;       /* resized, without padding: the clip */
    double scale_x, scale_y; /* resized / original */
    int inclusive;    /* 0 or 1: what a width is more than x2 - x1; position i of a stride s is at
                         i * s + pixel * (s - 1) / 2, the last coordinate is width - pixel */
    bool by_location; /* max_per_level counts locations, by their best class; then all their pairs
                         above min_score are candidates.  false: it counts pairs */
    bool divide;      /* boxes are divided by the scale, not multiplied with its inverse */
    bool agnostic;    /* a box is suppressed by boxes of all classes, not of its own alone */
    const uint8_t
        *wanted; /* [n_classes] of the device, not all 0: classes that are 0 are as if they
                              were not there; NULL: all are wanted */
} gfli_decode_opts;

/* One surviving detection and the location it comes from. */
typedef struct gfli_decoded {
    gfl_detection detection;
    int level, y, x;
} gfli_decoded;

/* Detections of a batch, best first; `most` is the room for each image's. */
typedef struct gfli_found {
    int most;
    int *count;          /* [n] */
    gfli_decoded *items; /* [n][most] */
    float *logits;       /* [n][most][4 * n_bins] of each one's location, or NULL */
} gfli_found;

/* A backend is a device with operations.  Maps, weights, biases, norm parameters, scratch and what
 * decode finds are memory of the device; all other pointers are the host's.  An operation may
 * return before it is done; what fails makes the context unusable and is told by finish. */
typedef struct gfli_device_ops {
    /* Fill context->device, device_name; undone by close, which also follows a failed open. */
    gfl_status (*open)(gfl_context *context, const gfl_context_desc *desc);
    void (*close)(gfl_context *context);
    /* The device's memory, as gfli_alloc and gfli_free. */
    gfl_status (*alloc)(gfl_context *context, size_t count, size_t size, const char *what,
                        void *out_pointer);
    void (*free)(gfl_context *context, void *pointer);
    /* Memory of the host that downloads reach fastest. */
    gfl_status (*host_alloc)(gfl_context *context, size_t count, size_t size, const char *what,
                             void *out_pointer);
    void (*host_free)(gfl_context *context, void *pointer);
    /* Whether the caller's pixels lie on the device; NULL: that cannot be. */
    bool (*owns)(gfl_context *context, const void *pointer);
    /* In order with the operations.  upload is done with `from` when it returns; what download
     * copies is there after finish. */
    void (*upload)(gfl_context *context, void *to, const void *from, size_t bytes);
    void (*download)(gfl_context *context, void *to, const void *from, size_t bytes);
    void (*zero)(gfl_context *context, void *to, size_t bytes);
    /* Wait for all that was asked for; the first failure since the context was created. */
    gfl_status (*finish)(gfl_context *context);
    /* The caller's event, a cudaEvent_t, happens when all so far is done; NULL: it cannot. */
    void (*mark)(gfl_context *context, void *event);
} gfli_device_ops;

/* Operations between begin and end are not done but kept, with the pointers they got, and replay
 * does them.  begin gives false and end NULL where that did not work; they can be done one by one
 * all the same. */
typedef struct gfli_record_ops {
    bool (*begin)(gfl_context *context);
    void *(*end)(gfl_context *context);
    void (*replay)(gfl_context *context, void *recording);
    void (*forget)(gfl_context *context, void *recording);
} gfli_record_ops;

typedef struct gfli_infer_ops {
    /* Bytes of a convolution's weights in the form that conv wants. */
    size_t (*conv_packed_size)(const gfl_context *context, const gfli_conv_shape *s);
    /* packed = the weights, each output channel o multiplied by scale[o] (NULL: by 1). */
    void (*conv_pack)(gfl_context *context, const gfli_conv_shape *s, const float *weight,
                      const float *scale, void *packing);
    void (*fold_norm)(gfl_context *context, const gfli_norm_fold *fold);
    /* One convolution, or n of one geometry that differ in output channels alone: how conv will
     * compute calls of these sizes (pointers to data may be NULL yet), and conv itself. */
    gfl_status (*conv_prepare)(gfl_context *context, const gfli_conv_call *calls, int n,
                               gfli_conv_means *out);
    void (*conv)(gfl_context *context, const gfli_conv_call *calls, int n,
                 const gfli_conv_means *means, void *scratch);

    /* 3x3, stride 2, padding 1, padding counts as minus infinity. */
    void (*max_pool)(gfl_context *context, const gfli_map *x, const gfli_map *y);
    /* y += nearest-upsample(x) to the size of y (spec 2). */
    void (*upsample_add)(gfl_context *context, const gfli_map *x, const gfli_map *y);
    /* y = relu(gamma * (x - mean) / sqrt(var + eps) + beta), statistics per image, level and
     * group; y may be x.  stats [levels][n][groups][2] gets mean and 1/sqrt(var+eps), or has them
     * from conv where `given`. */
    void (*group_norm)(gfl_context *context, const gfli_map *x, int groups, float eps,
                       const float *gamma, const float *beta, const gfli_map *y, float *stats,
                       bool given);
    /* y = scale[level * GFLI_BLOCK_STEP] * x; y may be x. */
    void (*level_scale)(gfl_context *context, const gfli_map *x, const float *scale,
                        const gfli_map *y);

    /* Resize u8 pixels of any format to u8 RGB (or BGR) [out_h][out_w][3], OpenCV's bilinear, bit
     * for bit (spec 7.2).  on_device: where the image's pixels lie, which are read until finish
     * returns.  scratch: resize_scratch bytes. */
    size_t (*resize_scratch)(const gfl_context *context, int in_w, int in_h, int out_w, int out_h);
    void (*resize)(gfl_context *context, const gfl_image *image, bool on_device, bool bgr,
                   int out_w, int out_h, uint8_t *out, void *scratch);
    /* Image `index` of y = (pixel - mean) / std of u8 [h][w][3], zero to the right and below;
     * flip mirrors the columns of the image (not of the padding). */
    void (*normalise)(gfl_context *context, const uint8_t *pixels, int w, int h,
                      const float mean[3], const float std[3], bool flip, const gfli_map *y,
                      int index);

    /* Detections of all images.  opts [n]: sizes and scales may differ, nothing else.  out->most is
     * gfli_most_detections or more.  scratch: decode_scratch bytes. */
    size_t (*decode_scratch)(const gfli_map *cls, const gfli_decode_opts *opts);
    void (*decode)(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                   const gfli_decode_opts *opts, const gfli_found *out, void *scratch);
} gfli_infer_ops;

typedef struct gfli_train_ops gfli_train_ops;

typedef struct gfl_backend {
    int abi, version; /* GFL_ABI and GFLI_BACKEND_VERSION, checked when a context is created */
    const char *name;
    /* Plans pair equal convolutions in one call, and have conv leave statistics for group_norm. */
    bool fuses;
    gfli_device_ops device;
    const gfli_record_ops *record; /* NULL: every operation is done at once */
    gfli_infer_ops infer;
    const gfli_train_ops *train; /* NULL: none, or the CPU's, which a program that detects lacks */
} gfli_backend;

extern const gfli_backend gfli_cpu;

/* ---- training -------------------------------------------------------------------------------- */

/* Everything that an operation of training points to is memory of the device, except shapes,
 * options and the structs that hold the pointers.  An operation returns nothing and may return
 * before it is done; what it finds wrong with the numbers is told by check_update. */

/* Ground truth of one image of a batch: its boxes among those of all. */
typedef struct gfli_truth {
    int first, n;
    int pad_h, pad_w; /* the image's own size, padded to a multiple of 32: the valid cells */
} gfli_truth;

typedef struct gfli_truths {
    int n_images, most;       /* images; boxes of the image that has the most */
    const gfli_truth *images; /* [n_images] */
    const float *boxes;       /* [all][4] x1 y1 x2 y2 in the resized image's pixels */
    const int32_t *labels;    /* [all] */
} gfli_truths;

/* Who is assigned what, in the order of the pyramid's positions (level, image, y, x). */
typedef struct gfli_assignment {
    int32_t *gt; /* [points]: index of the image's box, -1 background, -2 outside the valid area */
    int *n_pos;  /* [n] positives of each image */
} gfli_assignment;

typedef struct gfli_assign_opts {
    int stride[GFL_LEVELS];
    int inclusive; /* as in gfli_decode_opts, here and in the losses */
} gfli_assign_opts;

typedef struct gfli_loss_opts {
    int n_classes, n_bins;
    int stride[GFL_LEVELS];
    int inclusive;         /* added to widths in units of the stride */
    bool outside_counts;   /* -2 of the assignment is a negative; else it has no loss */
    bool add_eps;          /* unions and hulls + eps; else at least eps */
    double quality_eps;    /* of the quality's union; GIoU has 1e-6 */
    double mean_eps;       /* added to what a mean divides by */
    double min_weight_sum; /* below it, weight_sum is replaced by it; 0 / 0 counts as 0 */
    double share;          /* the normalisers are multiplied with it first: 1 / ranks */
    int rank;
} gfli_loss_opts;

/* Of a batch, on the device.  All are doubles, so that ranks can add them up in two sums: of what
 * comes before cls, and of the rest. */
typedef struct gfli_losses {
    double avg_pos, weight_sum; /* the normalisers before their clamps (spec 5.4: N and A) */
    double failed, failed_rank; /* ranks that have no such batch; the sum of their numbers */
    double cls[GFL_LEVELS], bbox[GFL_LEVELS], dfl[GFL_LEVELS];
    double n_pos;
    double bad, bad_rank; /* ranks whose losses are not finite; likewise */
} gfli_losses;

enum {
    GFLI_LOSS_NORMALISERS = offsetof(gfli_losses, cls) / sizeof(double),
    GFLI_LOSS_RESULTS = sizeof(gfli_losses) / sizeof(double) - GFLI_LOSS_NORMALISERS
};

/* The first of the losses that is not finite, or NULL. */
GFLI_HD static inline const char *gfli_bad_loss_name(const gfli_losses *losses) {
    for (int l = 0; l < GFL_LEVELS; l++) {
        if (!gfli_is_finite(losses->cls[l])) return "loss_cls";
        if (!gfli_is_finite(losses->bbox[l])) return "loss_bbox";
        if (!gfli_is_finite(losses->dfl[l])) return "loss_dfl";
    }
    return NULL;
}

/* The gradients of a convolution's own weights, and of the batch norm that was folded into them
 * (spec 1.3), from those of the folded weights. */
typedef struct gfli_unfold {
    const gfli_conv_shape *shape;
    const float *weight, *scale; /* the own weights; what they were multiplied with */
    const float *mean, *var;
    float eps;
    float *dweight;     /* of the folded weights, becomes that of the own ones */
    const float *dbeta; /* that of the folded bias */
    float *dgamma;      /* written */
} gfli_unfold;

/* Part of the block of parameters with factors of its own, multiplied with the update's. */
typedef struct gfli_update_part {
    size_t first, count; /* floats */
    double lr, decay;
} gfli_update_part;

typedef struct gfli_update {
    float *params, *momentum; /* [n], laid out alike, zeros between the parts */
    const float *gradients;   /* [n], their sum over batches and ranks */
    size_t n;
    const gfli_update_part *parts; /* [n_parts], in the order of the block */
    int n_parts;
    const gfli_losses *losses; /* [n_losses] of the batches */
    int n_losses;
    double lr, decay, momentum_factor;
    double share; /* gradients are multiplied with it: 1 / batches of all ranks */
    double clip;  /* largest norm of them then; not above 0: no limit */
    bool first;   /* momentum is taken as zero, whatever it holds */
} gfli_update;

/* What stands against an update. */
typedef enum gfli_fault {
    GFLI_FAULT_NONE,
    GFLI_FAULT_RANK,      /* some have no batch `where` */
    GFLI_FAULT_LOSS,      /* not finite, of batch `where` */
    GFLI_FAULT_GRADIENT,  /* not finite, in part `where` */
    GFLI_FAULT_PARAMETER, /* likewise */
    GFLI_FAULT_MOMENTUM,
    GFLI_FAULT_OVERFLOW /* part `where` would not stay finite */
} gfli_fault;

/* On the device.  The largest magnitudes are those of the part at fault, or of all parts. */
typedef struct gfli_verdict {
    double norm;  /* of the gradients, before clipping */
    double share; /* what they are to be multiplied with, clipping included */
    double parameter, momentum, gradient;
    gfli_fault fault;
    int where;
} gfli_verdict;

struct gfli_train_ops {
    int version;

    /* dx (=, or += when accumulate) the gradient of conv's input.  packed is made by
     * conv_grad_pack from the (scaled) weights. */
    size_t (*conv_grad_packed_size)(const gfli_conv_shape *s);
    void (*conv_grad_pack)(gfl_context *context, const gfli_conv_shape *s, const float *weight,
                           const float *scale, void *packing);
    size_t (*conv_grad_scratch)(const gfl_context *context, const gfli_conv_shape *s,
                                const gfli_map *x);
    void (*conv_grad_input)(gfl_context *context, const gfli_conv_shape *s, const void *packing,
                            const gfli_map *dy, bool accumulate, const gfli_map *dx, void *scratch);
    /* dweight OHWI and dbias [out_c] (or NULL), overwritten; all levels and images summed. */
    void (*conv_grad_weight)(gfl_context *context, const gfli_conv_shape *s, const gfli_map *x,
                             const gfli_map *dy, float *dweight, float *dbias, void *scratch);
    /* All gradients of deform_conv: dx (=/+=, or NULL: not wanted), doffset, dweight and dbias
     * (or NULL) overwritten.  packed is made by deform_conv_grad_pack. */
    size_t (*deform_conv_grad_packed_size)(const gfli_conv_shape *s);
    void (*deform_conv_grad_pack)(gfl_context *context, const gfli_conv_shape *s,
                                  const float *weight, const float *scale, void *packing);
    size_t (*deform_conv_grad_scratch)(const gfl_context *context, const gfli_conv_shape *s,
                                       const gfli_map *offset);
    void (*deform_conv_grad)(gfl_context *context, const gfli_conv_shape *s, const void *packing,
                             const gfli_map *x, const gfli_map *offset, const gfli_map *dy,
                             bool accumulate, const gfli_map *dx, const gfli_map *doffset,
                             float *dweight, float *dbias, void *scratch);
    void (*unfold)(gfl_context *context, const gfli_unfold *call);
    /* dy = y > 0 ? dy : 0, in place. */
    void (*relu_grad)(gfl_context *context, const gfli_map *y, const gfli_map *dy);
    /* dx (=/+=): the first maximum in row-major window order gets the gradient. */
    void (*max_pool_grad)(gfl_context *context, const gfli_map *x, const gfli_map *dy,
                          bool accumulate, const gfli_map *dx);
    /* dx (=/+=) sums of dy over the destinations of each source. */
    void (*upsample_grad)(gfl_context *context, const gfli_map *dy, bool accumulate,
                          const gfli_map *dx);
    /* Gradient of relu(group_norm(x)): dy is w.r.t. the output y (after ReLU), dx may be dy.
     * dgamma, dbeta [c] overwritten.  stats as group_norm wrote them. */
    size_t (*group_norm_grad_scratch)(const gfl_context *context, const gfli_map *x);
    void (*group_norm_grad)(gfl_context *context, const gfli_map *x, const gfli_map *y, int groups,
                            const float *gamma, const float *stats, const gfli_map *dy,
                            const gfli_map *dx, float *dgamma, float *dbeta, void *scratch);
    /* dx = scale * dy (dx may be dy), dscale = sum of dy * x (x: the unscaled map), both of level
     * l at l * GFLI_BLOCK_STEP. */
    void (*level_scale_grad)(gfl_context *context, const gfli_map *x, const float *scale,
                             const gfli_map *dy, const gfli_map *dx, float *dscale);

    /* ATSS (spec 4).  shape: a map that gives n and the levels' sizes; data unused. */
    size_t (*assign_scratch)(const gfl_context *context, const gfli_map *shape, int max_boxes);
    void (*assign)(gfl_context *context, const gfli_map *shape, const gfli_assign_opts *opts,
                   const gfli_truths *truths, const gfli_assignment *out, void *scratch);
    /* The losses in two halves, between which the normalisers of several ranks are added up:
     * loss_sums writes n_pos, avg_pos and weight_sum, and zeros; losses reads them and writes the
     * rest.  QFL, GIoU and DFL with their gradients (spec 5): dcls and dreg are overwritten. */
    size_t (*losses_scratch)(const gfl_context *context, const gfli_map *cls,
                             const gfli_loss_opts *opts);
    void (*loss_sums)(gfl_context *context, const gfli_map *cls, const gfli_assignment *assigned,
                      const gfli_loss_opts *opts, gfli_losses *out, void *scratch);
    void (*losses)(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                   const gfli_truths *truths, const gfli_assignment *assigned,
                   const gfli_loss_opts *opts, const gfli_map *dcls, const gfli_map *dreg,
                   gfli_losses *out, void *scratch);

    /* sum += x */
    void (*accumulate)(gfl_context *context, float *sum, const float *x, size_t n);
    /* May the update be done?  Every number is looked at before the first one moves. */
    void (*check_update)(gfl_context *context, const gfli_update *update, gfli_verdict *out);
    /* g' = share * g + decay * p; v = first ? g' : momentum * v + g'; p -= lr * v, with the share
     * of the verdict; nothing where it has found a fault. */
    void (*update)(gfl_context *context, const gfli_update *update, const gfli_verdict *verdict);
};

extern const gfli_train_ops gfli_cpu_train;
/* What a context trains with; NULL: it cannot. */
const gfli_train_ops *gfli_train_ops_of(const gfl_context *context);
