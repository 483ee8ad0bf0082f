/* truth.h - ground truth, image by image, and the operations of training that read it */
#ifndef TRUTH_H
#define TRUTH_H

#include "test.h"

/* One image's; what the operations take has all images' boxes in one array. */
typedef struct test_truth {
    const float *boxes;
    const int *labels; /* NULL: all 0 */
    int n, pad_h, pad_w;
} test_truth;

typedef struct truth_table {
    gfli_truths t;
    gfli_truth *images;
    float *boxes;
    int32_t *labels;
} truth_table;

static inline truth_table truth_open(const test_truth *truths, int n) {
    truth_table out;
    int all = 0;
    memset(&out, 0, sizeof out);
    for (int i = 0; i < n; i++) all += truths[i].n;
    out.images = (gfli_truth *)malloc((size_t)n * sizeof *out.images);
    out.boxes = (float *)malloc(((size_t)all * 4 + 1) * sizeof *out.boxes);
    out.labels = (int32_t *)calloc((size_t)all + 1, sizeof *out.labels);
    for (int i = 0, at = 0; i < n; at += truths[i++].n) {
        const test_truth *from = &truths[i];
        const gfli_truth image = {at, from->n, from->pad_h, from->pad_w};
        out.images[i] = image;
        for (int k = 0; k < 4 * from->n; k++) out.boxes[4 * at + k] = from->boxes[k];
        for (int k = 0; k < from->n && from->labels; k++) out.labels[at + k] = from->labels[k];
        out.t.most = gfli_max(out.t.most, from->n);
    }
    out.t.n_images = n;
    out.t.images = out.images;
    out.t.boxes = out.boxes;
    out.t.labels = out.labels;
    return out;
}

static inline void truth_close(truth_table *table) {
    free(table->images);
    free(table->boxes);
    free(table->labels);
}

static inline void truth_assign(gfl_context *context, const gfli_map *shape,
                                const gfli_assign_opts *opts, const test_truth *truths,
                                const gfli_assignment *out) {
    truth_table table = truth_open(truths, shape->n);
    void *scratch = malloc(gfli_cpu_train.assign_scratch(context, shape, table.t.most) + 1);
    gfli_cpu_train.assign(context, shape, opts, &table.t, out, scratch);
    free(scratch);
    truth_close(&table);
}

/* avg_pos and weight_sum of `given`, where they are not 0, stand in the place of the batch's
 * own. */
static inline void truth_losses(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                                const test_truth *truths, const gfli_assignment *assigned,
                                const gfli_loss_opts *opts, const gfli_losses *given,
                                const gfli_map *dcls, const gfli_map *dreg, gfli_losses *out) {
    truth_table table = truth_open(truths, cls->n);
    void *scratch = malloc(gfli_cpu_train.losses_scratch(context, cls, opts) + 1);
    gfli_cpu_train.loss_sums(context, cls, assigned, opts, out, scratch);
    if (given && given->avg_pos > 0) out->avg_pos = given->avg_pos;
    if (given && given->weight_sum > 0) out->weight_sum = given->weight_sum;
    gfli_cpu_train.losses(context, cls, reg, &table.t, assigned, opts, dcls, dreg, out, scratch);
    free(scratch);
    truth_close(&table);
}

#endif
