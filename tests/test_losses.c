/* test_losses.c - the losses and their gradients: golden numbers, differences, edge cases */
#include "truth.h"

/* ---- a batch of predictions, with everything the operations write ---------------------------- */

typedef struct batch {
    gfli_map cls, reg, dcls, dreg;
    test_truth truths[4];
    gfli_assignment assigned;
    gfli_loss_opts opts;
    gfli_losses given, out; /* given: other normalisers than its own, where they are not 0 */
} batch;

static void batch_open_in(batch *b, gfl_dialect dialect, int n, int n_classes, int n_bins,
                          int levels, const int (*sizes)[2]) {
    memset(b, 0, sizeof *b);
    b->cls = test_uniform_map(n, n_classes, levels, sizes, 0, 0, 0);
    b->dcls = test_uniform_map(n, n_classes, levels, sizes, 0, 0, 0);
    b->reg = test_uniform_map(n, 4 * n_bins, levels, sizes, 0, 0, 0);
    b->dreg = test_uniform_map(n, 4 * n_bins, levels, sizes, 0, 0, 0);
    b->assigned.gt = (int32_t *)malloc(gfli_points(&b->cls) * sizeof(int32_t));
    b->assigned.n_pos = (int *)calloc((size_t)n, sizeof(int));
    for (size_t i = 0; i < gfli_points(&b->cls); i++) b->assigned.gt[i] = -1;
    gfl_arch arch;
    memset(&arch, 0, sizeof arch);
    arch.n_classes = n_classes;
    arch.reg_max = n_bins - 1;
    arch.dialect = dialect;
    gfli_loss_opts_init(&arch, &b->opts);
}

static void batch_open(batch *b, int n, int n_classes, int n_bins, int levels,
                       const int (*sizes)[2]) {
    batch_open_in(b, GFL_DIALECT_MMDET, n, n_classes, n_bins, levels, sizes);
}

static void batch_close(batch *b) {
    free(b->cls.data);
    free(b->dcls.data);
    free(b->reg.data);
    free(b->dreg.data);
    free(b->assigned.gt);
    free(b->assigned.n_pos);
}

static void batch_assign(gfl_context *context, batch *b) {
    gfli_assign_opts opts;
    memcpy(opts.stride, b->opts.stride, sizeof opts.stride);
    opts.inclusive = b->opts.inclusive;
    truth_assign(context, &b->cls, &opts, b->truths, &b->assigned);
}

/* Gradients are filled with rubbish first: they have to be overwritten everywhere. */
static void batch_losses(gfl_context *context, batch *b) {
    for (size_t i = 0; i < gfli_map_count(&b->cls); i++) b->dcls.data[i] = 1e9f;
    for (size_t i = 0; i < gfli_map_count(&b->reg); i++) b->dreg.data[i] = 1e9f;
    truth_losses(context, &b->cls, &b->reg, b->truths, &b->assigned, &b->opts, &b->given, &b->dcls,
                 &b->dreg, &b->out);
}

/* ---- the formulas once more, in double and without derivatives ------------------------------- */

static double ref_sigmoid(double z) {
    return 1 / (1 + exp(-z));
}

static double ref_qfl(double z, double y) {
    double bce = fmax(z, 0) - z * y + log1p(exp(-fabs(z)));
    return pow(fabs(ref_sigmoid(z) - y), 2) * bce;
}

static double ref_expected(const double *x, int n, double *lse) {
    double top = x[0], sum = 0, mean = 0;
    for (int k = 1; k < n; k++) top = fmax(top, x[k]);
    for (int k = 0; k < n; k++) sum += exp(x[k] - top);
    for (int k = 0; k < n; k++) mean += k * exp(x[k] - top) / sum;
    *lse = top + log(sum);
    return mean;
}

/* 2 (1 - GIoU) / (1 + eps) + 0.25 sum of DFL / (4 + eps), and the IoU. */
static double ref_box(const double *reg, int n, double x, double y, const float *box, double stride,
                      double *iou) {
    double d[4], lse[4], dfl = 0, t[4];
    for (int s = 0; s < 4; s++) d[s] = ref_expected(reg + s * n, n, &lse[s]);
    for (int s = 0; s < 4; s++) t[s] = (double)box[s] / stride;
    double b[4] = {x - d[0], y - d[1], x + d[2], y + d[3]};
    double target[4] = {x - t[0], y - t[1], t[2] - x, t[3] - y};
    for (int s = 0; s < 4; s++) {
        double v = fmin(fmax(target[s], 0), n - 1.1);
        int low = (int)floor(v);
        dfl += (low + 1 - v) * (lse[s] - reg[s * n + low]) +
               (v - low) * (lse[s] - reg[s * n + low + 1]);
    }
    double w = fmax(fmin(b[2], t[2]) - fmax(b[0], t[0]), 0);
    double h = fmax(fmin(b[3], t[3]) - fmax(b[1], t[1]), 0);
    double area = (b[2] - b[0]) * (b[3] - b[1]) + (t[2] - t[0]) * (t[3] - t[1]);
    double u = fmax(area - w * h, 1e-6);
    double e =
        fmax((fmax(b[2], t[2]) - fmin(b[0], t[0])) * (fmax(b[3], t[3]) - fmin(b[1], t[1])), 1e-6);
    *iou = w * h / u;
    const double eps = 0x1p-23;
    return 2 * (1 - (*iou - (e - u) / e)) / (1 + eps) + 0.25 * dfl / (4 + eps);
}

/* ---- spec A.1, A.2 --------------------------------------------------------------------------- */

static const int golden_sizes[5][2] = {{32, 32}, {16, 16}, {8, 8}, {4, 4}, {2, 2}};
static const float golden_boxes[3][4] = {{23.6667f, 23.8757f, 238.6326f, 151.8874f},
                                         {100.25f, 120.5f, 140.75f, 180.125f},
                                         {10, 200, 42.5f, 230}};
static const int golden_labels[3] = {2, 0, 3};

static void golden_fill(const gfli_map *m, uint32_t seed, double from, double range) {
    for (int l = 0; l < m->levels; l++) {
        const size_t area = (size_t)(m->h[l] * m->w[l]), c = (size_t)m->c;
        float *data = gfli_map_level(m, l).data;
        uint32_t x = seed + (uint32_t)l;
        for (size_t k = 0; k < c; k++)
            for (size_t i = 0; i < area; i++) {
                x = (1103515245u * x + 12345u) & 0x7fffffffu;
                data[i * c + k] = (float)(from + range * ((double)x / 2147483648.0));
            }
    }
}

static void golden_open(batch *b, gfl_dialect dialect) {
    batch_open_in(b, dialect, 1, 4, 17, 5, golden_sizes);
    golden_fill(&b->cls, 1000, -6, 5);
    golden_fill(&b->reg, 2000, -2, 4);
    b->truths[0].boxes = golden_boxes[0];
    b->truths[0].labels = golden_labels;
    b->truths[0].n = 3;
    b->truths[0].pad_h = b->truths[0].pad_w = 256;
}

static double abs_sum(const gfli_map *m, int level) {
    const gfli_map one = gfli_map_level(m, level);
    double sum = 0;
    for (size_t i = 0; i < gfli_map_count(&one); i++) sum += fabs((double)one.data[i]);
    return sum;
}

static void golden_assignment(void) {
    static const int level0[18][2] = {{590, 1}, {591, 1}, {592, 1}, {622, 1}, {623, 1}, {624, 1},
                                      {654, 1}, {655, 1}, {656, 1}, {834, 2}, {835, 2}, {836, 2},
                                      {866, 2}, {867, 2}, {868, 2}, {898, 2}, {899, 2}, {900, 2}};
    static const int level1[6] = {87, 88, 89, 103, 104, 105};
    gfl_context *context = test_context(1);
    batch b;
    golden_open(&b, GFL_DIALECT_MMDET);
    batch_assign(context, &b);
    int positives = 0;
    for (size_t i = 0; i < gfli_points(&b.cls); i++) positives += b.assigned.gt[i] >= 0;
    CHECK(positives == 24 && b.assigned.n_pos[0] == 24);
    for (int i = 0; i < 18; i++) CHECK(b.assigned.gt[level0[i][0]] == level0[i][1]);
    for (int i = 0; i < 6; i++) CHECK(b.assigned.gt[1024 + level1[i]] == 0);
    batch_close(&b);
    gfl_context_destroy(context);
}

static void golden_losses(void) {
    static const double cls[5] = {0.32381508, 0.15174399, 0.022817323, 0.0048248596, 0.0015926999};
    static const double bbox[5] = {1.3519173, 0.30664167, 0, 0, 0};
    static const double dfl[5] = {0.61527067, 0.20605811, 0, 0, 0};
    gfl_context *context = test_context(1);
    batch b;
    golden_open(&b, GFL_DIALECT_MMDET);
    batch_assign(context, &b);
    batch_losses(context, &b);
    double total = 0;
    for (int l = 0; l < 5; l++) {
        CHECK_NEAR(b.out.cls[l], cls[l], 1e-6 * cls[l]);
        CHECK_NEAR(b.out.bbox[l], bbox[l], 1e-6 * bbox[l]);
        CHECK_NEAR(b.out.dfl[l], dfl[l], 1e-6 * dfl[l]);
        total += b.out.cls[l] + b.out.bbox[l] + b.out.dfl[l];
    }
    CHECK_NEAR(total, 2.9846816, 4e-7);
    CHECK_NEAR(b.out.weight_sum, 2.8642123, 4e-7);
    CHECK(b.out.n_pos == 24);
    batch_close(&b);
    gfl_context_destroy(context);
}

static void golden_gradients(void) {
    static const double dcls[5] = {0.78823077, 0.20979366, 0.056200805, 0.012081098, 0.0040340752};
    static const double dreg[5] = {0.40454121, 0.29572703, 0, 0, 0};
    static const float left[17] = {
        -2.242102e-4f, -3.357270e-3f, -1.970306e-3f, -4.068427e-5f, -4.529629e-6f, 1.009419e-5f,
        2.977579e-5f,  9.003380e-5f,  3.623555e-4f,  3.810279e-5f,  3.211694e-4f,  7.387978e-5f,
        1.394500e-3f,  7.284849e-4f,  5.771666e-4f,  6.953186e-4f,  1.276118e-3f};
    static const float at590[4] = {-2.8537653e-4f, 5.9652881e-4f, 1.0984566e-4f, 3.3373341e-5f};
    static const float at87[4] = {2.4472092e-6f, 5.6966155e-7f, -4.3473244e-3f, 1.6457489e-5f};
    static const float at0[4] = {4.5970263e-4f, 9.8499999e-9f, 5.2082840e-5f, 1.9587220e-5f};
    gfl_context *context = test_context(1);
    batch b;
    golden_open(&b, GFL_DIALECT_MMDET);
    batch_assign(context, &b);
    batch_losses(context, &b);
    for (int l = 0; l < 5; l++) {
        CHECK_NEAR(abs_sum(&b.dcls, l), dcls[l], 4e-7 * dcls[l]);
        CHECK_NEAR(abs_sum(&b.dreg, l), dreg[l], 4e-7 * dreg[l]);
    }
    CHECK_NEAR(b.cls.data[590 * 4], -5.6870370f, 1e-6);
    CHECK_NEAR(b.reg.data[590 * 68 + 1], 1.9505316f, 1e-6);
    for (int k = 0; k < 4; k++) {
        CHECK_NEAR(b.dcls.data[590 * 4 + k], at590[k], 1e-5 * fabs((double)at590[k]));
        CHECK_NEAR(b.dcls.data[(1024 + 87) * 4 + k], at87[k], 1e-5 * fabs((double)at87[k]));
        CHECK_NEAR(b.dcls.data[k], at0[k], 1e-5 * fabs((double)at0[k]));
    }
    for (int k = 0; k < 17; k++) CHECK_NEAR(b.dreg.data[590 * 68 + k], left[k], 2e-9);
    batch_close(&b);
    gfl_context_destroy(context);
}

static void golden_numbers_of_the_original(void) {
    static const int level0[18] = {558, 559, 589, 590, 591, 592, 622, 623, 624,
                                   802, 803, 834, 835, 836, 866, 867, 868, 899};
    static const int level1[9] = {71, 72, 73, 87, 88, 89, 103, 104, 105};
    static const double cls[5] = {0.29154307, 0.17421998, 0.020282067, 0.0042887647, 0.0014157334};
    static const double bbox[5] = {1.1835921, 0.38177192, 0, 0, 0};
    static const double dfl[5] = {0.56844813, 0.259565, 0, 0, 0};
    static const float at590[4] = {-4.1546504e-4f, 5.3024781e-4f, 9.7640572e-5f, 2.9665192e-5f};
    gfl_context *context = test_context(1);
    batch b;
    golden_open(&b, GFL_DIALECT_GFOCAL);
    batch_assign(context, &b);
    batch_losses(context, &b);
    for (int i = 0; i < 18; i++) CHECK(b.assigned.gt[level0[i]] == (level0[i] < 700 ? 1 : 2));
    for (int i = 0; i < 9; i++) CHECK(b.assigned.gt[1024 + level1[i]] == 0);
    CHECK(b.out.n_pos == 27 && b.assigned.n_pos[0] == 27);
    double total = 0;
    for (int l = 0; l < 5; l++) {
        CHECK_NEAR(b.out.cls[l], cls[l], 1e-6 * cls[l]);
        CHECK_NEAR(b.out.bbox[l], bbox[l], 1e-6 * bbox[l]);
        CHECK_NEAR(b.out.dfl[l], dfl[l], 1e-6 * dfl[l]);
        total += b.out.cls[l] + b.out.bbox[l] + b.out.dfl[l];
    }
    CHECK_NEAR(total, 2.8851268, 4e-7);
    CHECK_NEAR(b.out.weight_sum, 4.0368147, 4e-7);
    CHECK_NEAR(abs_sum(&b.dcls, 0), 0.70148156, 4e-7);
    CHECK_NEAR(abs_sum(&b.dcls, 1), 0.19760653, 4e-7);
    CHECK_NEAR(abs_sum(&b.dreg, 0), 0.39589266, 4e-7);
    CHECK_NEAR(abs_sum(&b.dreg, 1), 0.34781333, 4e-7);
    for (int k = 0; k < 4; k++)
        CHECK_NEAR(b.dcls.data[590 * 4 + k], at590[k], 1e-5 * fabs((double)at590[k]));
    batch_close(&b);
    gfl_context_destroy(context);
}

/* ---- differences ----------------------------------------------------------------------------- */

static void gradients_are_the_differences_of_the_losses(void) {
    gfl_context *context = test_context(1);
    batch b;
    golden_open(&b, GFL_DIALECT_MMDET);
    for (size_t i = 0; i < gfli_map_count(&b.cls); i++) b.cls.data[i] = 3 * b.cls.data[i] + 11;
    batch_assign(context, &b);
    batch_losses(context, &b);
    const double n = 24 + 0x1p-23, a = fmax(b.out.weight_sum, 1), step = 1e-5;
    double cls_sum = 0, box_sum = 0, worst_cls = 0, worst_reg = 0, weights = 0;
    for (size_t i = 0; i < gfli_points(&b.cls); i++) {
        const int l = i < 1024 ? 0 : i < 1280 ? 1 : 2, gt = b.assigned.gt[i];
        const size_t at = i - (l == 0 ? 0 : 1024);
        const double x = (double)(at % (l ? 16 : 32)), y = (double)(at / (l ? 16 : 32));
        double iou = 0, best = -1e9, reg[68];
        if (gt >= 0) {
            CHECK(l < 2);
            for (int k = 0; k < 68; k++) reg[k] = (double)b.reg.data[i * 68 + (size_t)k];
            for (int k = 0; k < 4; k++) best = fmax(best, (double)b.cls.data[i * 4 + (size_t)k]);
            const double w = ref_sigmoid(best), stride = 8 << l;
            double unused;
            box_sum += w / a * ref_box(reg, 17, x, y, golden_boxes[gt], stride, &iou);
            weights += w;
            for (int k = 0; k < 68; k++) {
                const double was = reg[k];
                reg[k] = was + step;
                const double up = ref_box(reg, 17, x, y, golden_boxes[gt], stride, &unused);
                reg[k] = was - step;
                const double down = ref_box(reg, 17, x, y, golden_boxes[gt], stride, &unused);
                reg[k] = was;
                const double want = w / a * (up - down) / (2 * step);
                worst_reg = fmax(worst_reg, fabs(want - (double)b.dreg.data[i * 68 + (size_t)k]));
            }
        }
        for (int k = 0; k < 4; k++) {
            const double target = gt >= 0 && golden_labels[gt] == k ? iou : 0;
            const double z = (double)b.cls.data[i * 4 + (size_t)k];
            const double want =
                (ref_qfl(z + step, target) - ref_qfl(z - step, target)) / (2 * step) / n;
            cls_sum += ref_qfl(z, target) / n;
            worst_cls = fmax(worst_cls, fabs(want - (double)b.dcls.data[i * 4 + (size_t)k]));
        }
    }
    CHECK_NEAR(weights, b.out.weight_sum, 1e-9);
    double cls = 0, box = 0;
    for (int l = 0; l < 5; l++) {
        cls += b.out.cls[l];
        box += b.out.bbox[l] + b.out.dfl[l];
    }
    CHECK_NEAR(cls, cls_sum, 1e-6 * cls_sum);
    CHECK_NEAR(box, box_sum, 1e-9);
    CHECK_NEAR(worst_cls, 0, 2e-7);
    CHECK_NEAR(worst_reg, 0, 2e-9);
    batch_close(&b);
    gfl_context_destroy(context);
}

/* Every row of kernels, over the range of logits. */
static void negatives_are_accurate_everywhere(void) {
    static const int size[1][2] = {{1, 20001}};
    for (int row = 0; row < test_count_kernels(); row++) {
        gfl_context *context = test_context_of(1, row);
        batch b;
        batch_open(&b, 1, 1, 17, 1, size);
        b.truths[0].pad_h = b.truths[0].pad_w = 1 << 20;
        for (int i = 0; i <= 20000; i++) b.cls.data[i] = ((float)i - 10000) * 0.01f;
        batch_losses(context, &b);
        double worst = 0, sum = 0;
        for (int i = 0; i <= 20000; i++) {
            const double z = (double)b.cls.data[i], s = ref_sigmoid(z);
            const double soft = fmax(z, 0) + log1p(exp(-fabs(z)));
            const double want = s * s * (s + 2 * (1 - s) * soft);
            if (z > -28) /* below, the cube leaves what float can hold */
                worst = fmax(worst, fabs((double)b.dcls.data[i] / want - 1));
            else
                CHECK(fabs((double)b.dcls.data[i]) < 1e-30);
            sum += s * s * soft;
        }
        CHECK_NEAR(worst, 0, 2e-6);
        CHECK_NEAR(b.out.cls[0], sum / (1 + 0x1p-23), 1e-7 * sum);
        batch_close(&b);
        gfl_context_destroy(context);
    }
}

/* ---- boxes whose numbers are known ----------------------------------------------------------- */

/* One positive at cell (x, y) of a 40 x 40 level, sides in bins; box in strides; weight 1/2. */
static void one_positive(batch *b, int x, int y, const int sides[4], float box[4]) {
    static const int size[1][2] = {{40, 40}};
    static const int label[1] = {0};
    batch_open(b, 1, 1, 17, 1, size);
    for (int k = 0; k < 4; k++) box[k] *= 8;
    b->truths[0].boxes = box;
    b->truths[0].labels = label;
    b->truths[0].n = 1;
    b->truths[0].pad_h = b->truths[0].pad_w = 320;
    const size_t at = (size_t)(y * 40 + x);
    b->assigned.gt[at] = 0;
    b->assigned.n_pos[0] = 1;
    for (int s = 0; s < 4; s++) b->reg.data[at * 68 + (size_t)(s * 17 + sides[s])] = 200;
}

/* mmdetection's test_iou2d_calculator. */
static void giou_of_known_boxes(void) {
    static const float boxes[3][4] = {{0, 0, 10, 20}, {0, 10, 10, 19}, {10, 10, 20, 20}};
    static const int cells[3][2] = {{5, 5}, {15, 15}, {35, 37}};
    static const int sides[3][4] = {{5, 5, 5, 5}, {5, 5, 5, 5}, {3, 5, 3, 5}};
    static const double giou[3] = {0.5, -0.05, -0.8214};
    gfl_context *context = test_context(1);
    for (int i = 0; i < 3; i++) {
        batch b;
        float box[4];
        memcpy(box, boxes[i], sizeof box);
        one_positive(&b, cells[i][0], cells[i][1], sides[i], box);
        batch_losses(context, &b);
        CHECK_NEAR(b.out.weight_sum, 0.5, 1e-12);
        CHECK_NEAR(1 - b.out.bbox[0], giou[i], 5e-5);
        batch_close(&b);
    }
    gfl_context_destroy(context);
}

/* The predicted left side is on the target's: minimum and maximum share the gradient. */
static void a_tie_is_split_between_both_boxes(void) {
    static const int sides[4] = {3, 3, 4, 3};
    float box[4] = {17, 18, 23, 22};
    gfl_context *context = test_context(1);
    batch b;
    one_positive(&b, 20, 20, sides, box);
    float *reg = b.reg.data + (20 * 40 + 20) * 68;
    reg[3] = 0;
    reg[2] = reg[4] = 200; /* half and half: exactly 3 */
    batch_losses(context, &b);
    const float *d = b.dreg.data + (20 * 40 + 20) * 68;
    const double side = 30.0 / 1764, bins = 0.5 * 0.25 / 4; /* with halves: by hand */
    CHECK_NEAR(d[2], 0.5 * side + 0.5 * bins, 1e-8);
    CHECK_NEAR(d[4], -0.5 * side + 0.5 * bins, 1e-8);
    CHECK_NEAR(d[3], -bins, 1e-8);
    batch_close(&b);
    gfl_context_destroy(context);
}

/* Targets beyond 15.9 strides are cut, whatever the box; a box without area has finite losses. */
static void odd_boxes_give_finite_losses(void) {
    static const float boxes[5][4] = {{-400, -400, 400, 400},
                                      {20, 20, 20, 20},
                                      {21, 21, 19, 19},
                                      {20, 20, 1e6f, 1e6f},
                                      {-5, -5, -3, -3}};
    static const int sides[4] = {16, 0, 16, 0};
    gfl_context *context = test_context(1);
    for (int i = 0; i < 5; i++) {
        batch b;
        float box[4];
        memcpy(box, boxes[i], sizeof box);
        one_positive(&b, 20, 20, sides, box);
        batch_losses(context, &b);
        /* At 15.9 on each side: 0.1 of 200 where bin 16 is sure, all of it where bin 0 is. */
        if (i == 0) CHECK_NEAR(b.out.dfl[0], 0.5 * 0.25 / 4 * (20 + 200 + 20 + 200), 1e-5);
        CHECK(isfinite(b.out.cls[0]) && isfinite(b.out.bbox[0]) && isfinite(b.out.dfl[0]));
        for (size_t k = 0; k < gfli_map_count(&b.reg); k++) CHECK(isfinite(b.dreg.data[k]));
        for (size_t k = 0; k < gfli_map_count(&b.cls); k++) CHECK(isfinite(b.dcls.data[k]));
        batch_close(&b);
    }
    gfl_context_destroy(context);
}

/* ---- normalisers, empty images, threads ------------------------------------------------------ */

static void normalisers_can_be_given(void) {
    gfl_context *context = test_context(1);
    batch b;
    golden_open(&b, GFL_DIALECT_MMDET);
    batch_assign(context, &b);
    batch_losses(context, &b);
    const gfli_losses own = b.out;
    const float dcls = b.dcls.data[590 * 4 + 1], dreg = b.dreg.data[590 * 68 + 1];
    b.given.avg_pos = 48;
    b.given.weight_sum = 2 * own.weight_sum;
    batch_losses(context, &b);
    CHECK_NEAR(b.out.cls[0], own.cls[0] / 2, 1e-7);
    CHECK_NEAR(b.out.bbox[0], own.bbox[0] / 2, 1e-12);
    CHECK_NEAR(b.out.dfl[0], own.dfl[0] / 2, 1e-12);
    CHECK(own.avg_pos == 24 && b.out.n_pos == own.n_pos);
    CHECK_NEAR(b.dcls.data[590 * 4 + 1], dcls / 2, 1e-9);
    CHECK_NEAR(b.dreg.data[590 * 68 + 1], dreg / 2, 1e-9);
    b.given.weight_sum = 0.25; /* the clamp counts */
    batch_losses(context, &b);
    CHECK_NEAR(b.out.bbox[0], own.bbox[0] * own.weight_sum, 1e-6);
    b.given.weight_sum = 2 * own.weight_sum; /* of two ranks alike */
    b.opts.share = 0.5;
    batch_losses(context, &b);
    CHECK(b.out.cls[0] == own.cls[0] && b.out.bbox[0] == own.bbox[0] && b.out.bad == 0);
    batch_close(&b);
    gfl_context_destroy(context);
}

/* mmdetection's test_gfl_head: maps of twice the image, without and with a box. */
static void only_valid_positions_count(void) {
    static const int sizes[5][2] = {{64, 64}, {32, 32}, {16, 16}, {8, 8}, {4, 4}};
    gfl_context *context = test_context(1);
    for (int boxes = 0; boxes < 2; boxes++) {
        batch b;
        batch_open(&b, 2, 4, 17, 5, sizes);
        golden_fill(&b.cls, 1, -2, 4);
        golden_fill(&b.reg, 2, -2, 4);
        for (int i = 0; i < 2; i++) {
            b.truths[i].boxes = golden_boxes[0];
            b.truths[i].labels = golden_labels;
            b.truths[i].n = boxes;
            b.truths[i].pad_h = b.truths[i].pad_w = 256;
        }
        batch_assign(context, &b);
        batch_losses(context, &b);
        int valid = 0, wrong = 0;
        for (size_t i = 0; i < gfli_points(&b.cls); i++) {
            const bool outside = b.assigned.gt[i] == -2;
            valid += !outside;
            for (size_t k = 0; k < 4; k++) wrong += outside == (b.dcls.data[i * 4 + k] != 0);
            for (size_t k = 0; k < 68; k++)
                wrong += (b.assigned.gt[i] >= 0) != (b.dreg.data[i * 68 + k] != 0);
        }
        double box = 0;
        for (int l = 0; l < 5; l++) {
            CHECK(b.out.cls[l] > 0);
            box += b.out.bbox[l] + b.out.dfl[l];
        }
        CHECK(valid == 2 * 1364 && wrong == 0);
        CHECK(boxes ? box > 0 : box == 0);
        CHECK(boxes ? b.out.weight_sum > 0 : b.out.weight_sum == 0);
        batch_close(&b);
    }
    gfl_context_destroy(context);
}

static void a_nan_among_the_logits_shows(void) {
    gfl_context *context = test_context(1);
    for (int which = 0; which < 3; which++) {
        batch b;
        golden_open(&b, GFL_DIALECT_MMDET);
        batch_assign(context, &b);
        if (which == 0) b.cls.data[0] = NAN;
        if (which == 1) b.cls.data[590 * 4 + 1] = NAN;
        if (which == 2) b.reg.data[590 * 68 + 5] = NAN;
        b.opts.rank = 3;
        batch_losses(context, &b);
        CHECK(isnan(b.out.cls[0] + b.out.bbox[0] + b.out.dfl[0]));
        CHECK(b.out.bad == 1 && b.out.bad_rank == 3);
        batch_close(&b);
    }
    gfl_context_destroy(context);
}

static void threads_change_nothing(void) {
    static const int sizes[2][2] = {{61, 67}, {31, 33}};
    batch b[3];
    for (int t = 0; t < 3; t++) {
        gfl_context *context = test_context(t + 1);
        batch_open(&b[t], 2, 7, 17, 2, sizes);
        golden_fill(&b[t].cls, 1, -4, 6);
        golden_fill(&b[t].reg, 2, -2, 4);
        for (int i = 0; i < 2; i++) {
            b[t].truths[i].boxes = golden_boxes[0];
            b[t].truths[i].labels = golden_labels;
            b[t].truths[i].n = 3;
            b[t].truths[i].pad_h = 416;
            b[t].truths[i].pad_w = 480;
        }
        batch_assign(context, &b[t]);
        batch_losses(context, &b[t]);
        CHECK(b[t].out.n_pos > 10);
        CHECK(!memcmp(&b[0].out, &b[t].out, sizeof b[t].out));
        CHECK(!memcmp(b[0].dcls.data, b[t].dcls.data, gfli_map_count(&b[t].cls) * 4));
        CHECK(!memcmp(b[0].dreg.data, b[t].dreg.data, gfli_map_count(&b[t].reg) * 4));
        gfl_context_destroy(context);
    }
    for (int t = 0; t < 3; t++) batch_close(&b[t]);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST_TRAIN(golden_assignment),
                                      TEST_TRAIN(golden_losses),
                                      TEST_TRAIN(golden_gradients),
                                      TEST_TRAIN(golden_numbers_of_the_original),
                                      TEST_TRAIN(gradients_are_the_differences_of_the_losses),
                                      TEST_TRAIN(negatives_are_accurate_everywhere),
                                      TEST_TRAIN(giou_of_known_boxes),
                                      TEST_TRAIN(a_tie_is_split_between_both_boxes),
                                      TEST_TRAIN(odd_boxes_give_finite_losses),
                                      TEST_TRAIN(normalisers_can_be_given),
                                      TEST_TRAIN(only_valid_positions_count),
                                      TEST_TRAIN(a_nan_among_the_logits_shows),
                                      TEST_TRAIN(threads_change_nothing),
                                      {0}};
    return test_main(argc, argv, cases);
}
