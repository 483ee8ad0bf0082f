/* truth.h - ground truth, image by image, and the operations of training that read it */
#ifndef TRUTH_H
#define TRUTH_H

#include "ops.h"

/* One image's; what the operations take has all images' boxes in one array of the device. */
typedef struct test_truth {
    const float *boxes;
    const int *labels; /* NULL: all 0 */
    int n, pad_h, pad_w;
} test_truth;

typedef struct truth_table {
    gfli_truth *images;
    float *boxes;
    int32_t *labels;
    int n, all, most; /* images; boxes of all; of the image that has the most */
} truth_table;

static inline truth_table truth_open(const test_truth *truths, int n) {
    truth_table out;
    memset(&out, 0, sizeof out);
    out.n = n;
    for (int i = 0; i < n; i++) out.all += truths[i].n;
    out.images = (gfli_truth *)malloc((size_t)n * sizeof *out.images);
    out.boxes = (float *)malloc(((size_t)out.all * 4 + 1) * sizeof *out.boxes);
    out.labels = (int32_t *)calloc((size_t)out.all + 1, sizeof *out.labels);
    for (int i = 0, at = 0; i < n; at += truths[i++].n) {
        const test_truth *from = &truths[i];
        const gfli_truth image = {at, from->n, from->pad_h, from->pad_w};
        out.images[i] = image;
        for (int k = 0; k < 4 * from->n; k++) out.boxes[4 * at + k] = from->boxes[k];
        for (int k = 0; k < from->n && from->labels; k++) out.labels[at + k] = from->labels[k];
        out.most = gfli_max(out.most, from->n);
    }
    return out;
}

static inline void truth_close(truth_table *table) {
    free(table->images);
    free(table->boxes);
    free(table->labels);
}

static inline gfli_truths truth_there(host_operands *o, const truth_table *table) {
    const size_t n = (size_t)table->n, all = (size_t)table->all;
    gfli_truths t;
    t.n_images = table->n;
    t.most = table->most;
    t.images = (const gfli_truth *)host_in(o, table->images, n * sizeof *t.images);
    t.boxes = (const float *)host_in(o, table->boxes, all * 4 * sizeof *t.boxes);
    t.labels = (const int32_t *)host_in(o, table->labels, all * sizeof *t.labels);
    return t;
}

static inline gfli_assignment truth_assigned(host_operands *o, const gfli_map *shape,
                                             const gfli_assignment *host) {
    gfli_assignment there;
    there.gt = (int32_t *)host_out(o, host->gt, gfli_points(shape) * sizeof *there.gt);
    there.n_pos = (int *)host_out(o, host->n_pos, (size_t)shape->n * sizeof *there.n_pos);
    return there;
}

static inline void truth_assign(gfl_context *context, const gfli_map *shape,
                                const gfli_assign_opts *opts, const test_truth *truths,
                                const gfli_assignment *out) {
    const gfli_train_ops *ops = gfli_train_ops_of(context);
    truth_table table = truth_open(truths, shape->n);
    host_operands o = host_begin(context);
    const gfli_truths there = truth_there(&o, &table);
    const gfli_assignment assigned = truth_assigned(&o, shape, out);
    void *scratch = host_scratch(&o, ops->assign_scratch(context, shape, table.most));
    ops->assign(context, shape, opts, &there, &assigned, scratch);
    host_end(&o);
    truth_close(&table);
}

/* avg_pos and weight_sum of `given`, where they are not 0, stand in the place of the batch's
 * own. */
static inline void truth_losses(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                                const test_truth *truths, const gfli_assignment *assigned,
                                const gfli_loss_opts *opts, const gfli_losses *given,
                                const gfli_map *dcls, const gfli_map *dreg, gfli_losses *out) {
    const gfli_train_ops *ops = gfli_train_ops_of(context);
    const gfli_device_ops *device = &context->backend->device;
    truth_table table = truth_open(truths, cls->n);
    host_operands o = host_begin(context);
    const gfli_truths there = truth_there(&o, &table);
    const gfli_assignment who = truth_assigned(&o, cls, assigned);
    const gfli_map cls_there = host_map_in(&o, cls), reg_there = host_map_in(&o, reg);
    const gfli_map dcls_there = host_map_out(&o, dcls), dreg_there = host_map_out(&o, dreg);
    gfli_losses *losses = (gfli_losses *)host_out(&o, out, sizeof *out);
    void *scratch = host_scratch(&o, ops->losses_scratch(context, cls, opts));
    ops->loss_sums(context, &cls_there, &who, opts, losses, scratch);
    if (given) {
        device->download(context, out, losses, sizeof *out);
        CHECK_OK(context, device->finish(context));
        if (given->avg_pos > 0) out->avg_pos = given->avg_pos;
        if (given->weight_sum > 0) out->weight_sum = given->weight_sum;
        device->upload(context, losses, out, sizeof *out);
    }
    ops->losses(context, &cls_there, &reg_there, &there, &who, opts, &dcls_there, &dreg_there,
                losses, scratch);
    host_end(&o);
    truth_close(&table);
}

#endif
