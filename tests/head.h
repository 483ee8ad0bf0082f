/* head.h - the fixtures of a head in either dialect: targets, losses and gradients */
#ifndef GFL_TEST_HEAD_H
#define GFL_TEST_HEAD_H

#include "fixture.h"
#include "truth.h"

typedef struct head {
    gfli_map cls, reg, dcls, dreg;
    test_truth truths[16];
    gfli_assignment assigned;
    gfli_loss_opts opts;
    gfli_losses out;
    gfl_context *context;
} head;

static int positives_seen, boxes_seen;

static gfli_map head_map(const fx_case *one, int c) {
    const fx_json *levels = fx_get(&one->json, "level_shapes");
    gfli_map m;
    memset(&m, 0, sizeof m);
    m.n = fx_get(&one->json, "images")->n;
    m.c = c;
    m.levels = levels->n;
    for (int l = 0; l < m.levels; l++) {
        m.h[l] = (int)fx_at(fx_at(levels, l), 0)->number;
        m.w[l] = (int)fx_at(fx_at(levels, l), 1)->number;
    }
    m.data = (float *)malloc(gfli_map_count(&m) * sizeof(float));
    return m;
}

/* Flat index in (N, C, H, W) of an element of level l to the element of the map. */
static size_t nchw(const gfli_map *m, int l, size_t i) {
    const size_t area = (size_t)(m->h[l] * m->w[l]), c = (size_t)m->c;
    const size_t n = i / (c * area), k = i / area % c, at = i % area;
    return (gfli_points_before(m, l) + n * area + at) * c + k;
}

static void load_truths(fx_case *one, head *t) {
    for (int i = 0; i < t->cls.n; i++) {
        const fx_tensor boxes = fx_load(one, fx_name("gt_boxes", i, -1));
        const fx_tensor labels = fx_load(one, fx_name("gt_labels", i, -1));
        const fx_json *pad = fx_get(fx_at(fx_get(&one->json, "images"), i), "pad_shape");
        float *b = (float *)malloc((boxes.count + 1) * sizeof *b);
        int *k = (int *)malloc((labels.count + 1) * sizeof *k);
        for (size_t j = 0; j < boxes.count; j++) b[j] = (float)boxes.data[j];
        for (size_t j = 0; j < labels.count; j++) k[j] = (int)labels.data[j];
        t->truths[i].boxes = b;
        t->truths[i].labels = k;
        t->truths[i].n = (int)labels.count;
        t->truths[i].pad_h = (int)fx_at(pad, 0)->number;
        t->truths[i].pad_w = (int)fx_at(pad, 1)->number;
        boxes_seen += (int)labels.count;
        free(boxes.data);
        free(labels.data);
    }
}

typedef void head_fill(const fx_case *one, head *t);

/* Targets, losses and gradients of a case, with the inputs that fill makes. */
static void head_open(fx_case *one, head *t, gfl_dialect dialect, head_fill *fill, int threads) {
    memset(t, 0, sizeof *t);
    const int n_classes = fx_int(&one->json, "num_classes", 0);
    gfli_assign_opts assign;
    t->context = test_context(threads);
    t->cls = head_map(one, n_classes);
    t->dcls = head_map(one, n_classes);
    t->reg = head_map(one, 68);
    t->dreg = head_map(one, 68);
    if (t->cls.n > 16) fx_die("too many images", one->name);
    t->assigned.gt = (int32_t *)malloc(gfli_points(&t->cls) * sizeof(int32_t));
    t->assigned.n_pos = (int *)malloc((size_t)t->cls.n * sizeof(int));
    gfl_arch arch;
    memset(&arch, 0, sizeof arch);
    arch.n_classes = n_classes;
    arch.reg_max = 16;
    arch.dialect = dialect;
    gfli_loss_opts_init(&arch, &t->opts);
    gfli_assign_opts_init(&arch, &assign);
    fill(one, t);
    load_truths(one, t);
    truth_assign(t->context, &t->cls, &assign, t->truths, &t->assigned);
    truth_losses(t->context, &t->cls, &t->reg, t->truths, &t->assigned, &t->opts, NULL, &t->dcls,
                 &t->dreg, &t->out);
}

static void head_close(head *t) {
    for (int i = 0; i < t->cls.n; i++) {
        free((void *)(uintptr_t)t->truths[i].boxes);
        free((void *)(uintptr_t)t->truths[i].labels);
    }
    free(t->cls.data);
    free(t->reg.data);
    free(t->dcls.data);
    free(t->dreg.data);
    free(t->assigned.gt);
    free(t->assigned.n_pos);
    gfl_context_destroy(t->context);
}

/* Anchor a of image n, counted level by level, as a point of the maps; *level is where it is. */
static size_t point_of(const gfli_map *m, int n, size_t a, int *level) {
    int l = 0;
    for (; a >= (size_t)(m->h[l] * m->w[l]); l++) a -= (size_t)(m->h[l] * m->w[l]);
    *level = l;
    return gfli_points_before(m, l) + (size_t)(n * m->h[l] * m->w[l]) + a;
}

static void check_assignment(fx_case *one, const head *t) {
    const fx_tensor want = fx_load(one, "assigned_gt");
    const fx_tensor weights = fx_load_optional(one, "label_weights");
    const size_t anchors = gfli_points(&t->cls) / (size_t)t->cls.n;
    size_t wrong = 0;
    int level;
    CHECK(want.count == gfli_points(&t->cls) && (!weights.data || weights.count == want.count));
    for (size_t i = 0; i < want.count; i++) {
        const int32_t gt =
            t->assigned.gt[point_of(&t->cls, (int)(i / anchors), i % anchors, &level)];
        wrong += (double)gt != want.data[i];
        if (weights.data) wrong += (gt == -2) != (weights.data[i] == 0);
    }
    CHECK(wrong == 0);
    const fx_json *n_pos = fx_get(&one->json, "num_pos");
    for (int i = 0; i < t->cls.n; i++) CHECK(t->assigned.n_pos[i] == (int)fx_at(n_pos, i)->number);
    free(want.data);
    free(weights.data);
}

static void check_losses(fx_case *one, const head *t) {
    static const char *const names[3] = {"loss_cls", "loss_bbox", "loss_dfl"};
    const double *const got[3] = {t->out.cls, t->out.bbox, t->out.dfl};
    double total = 0;
    for (int k = 0; k < 3; k++) {
        const fx_tensor want = fx_load(one, names[k]);
        CHECK(want.count == 5);
        for (int l = 0; l < 5; l++) {
            const double value =
                isnan(want.data[l]) ? 0 : want.data[l]; /* no positives: spec 5.4 */
            CHECK_NEAR(got[k][l], value, 1e-5 * fabs(value));
            total += got[k][l];
        }
        free(want.data);
    }
    const fx_tensor all = fx_load(one, "loss_total");
    if (!isnan(all.data[0])) CHECK_NEAR(total, all.data[0], 1e-5 * fabs(all.data[0]));
    free(all.data);
    const double sum = fx_number(&one->json, "weight_sum", -1);
    CHECK_NEAR(t->out.weight_sum, sum, 1e-9 * (1 + sum));
}

/* Largest magnitude of a tensor: from the JSON, as the file may hold a sample of it. */
static double magnitude(const fx_json *about, const fx_tensor *tensor) {
    double largest = fmax(fabs(fx_number(about, "max", 0)), fabs(fx_number(about, "min", 0)));
    for (size_t i = 0; i < tensor->count; i++) largest = fmax(largest, fabs(tensor->data[i]));
    return largest;
}

static void check_gradients(fx_case *one, const head *t) {
    for (int l = 0; l < t->cls.levels; l++) {
        const char *name = fx_name("grad_cls", l, -1);
        const fx_tensor want = fx_load(one, name);
        const size_t step = fx_step(one, name);
        const double largest = magnitude(fx_get(fx_get(&one->json, "tensors"), name), &want);
        const gfli_map level = gfli_map_level(&t->dcls, l);
        double sum = 0;
        CHECK(largest > 0 && want.count >= gfli_map_count(&level) / step);
        CHECK_NEAR(fx_map_error(&level, &want, step), 0, 1e-4 * largest);
        /* The sum of absolute values of the whole of bbox_pred's gradient, level by level. */
        const fx_json *reg = fx_at(fx_get(&one->json, "grad_bbox"), l);
        const gfli_map dreg = gfli_map_level(&t->dreg, l);
        for (size_t i = 0; i < gfli_map_count(&dreg); i++) sum += fabs((double)dreg.data[i]);
        if (reg) CHECK_NEAR(sum, fx_number(reg, "abs_sum", -1), 1e-5 * sum);
        free(want.data);
    }
}

/* At the positives whole rows are stored; elsewhere bbox_pred's gradient is exactly 0. */
static void check_rows(fx_case *one, const head *t) {
    const fx_tensor image = fx_load(one, "pos_image"), anchor = fx_load(one, "pos_anchor");
    const fx_tensor gt = fx_load(one, "pos_gt"), label = fx_load(one, "pos_label");
    const fx_tensor cls = fx_load_optional(one, "grad_cls_rows"),
                    reg = fx_load_optional(one, "grad_bbox_rows");
    const size_t k = (size_t)t->cls.c;
    double cls_top = 0, reg_top = 0, cls_error = 0, reg_error = 0;
    size_t elsewhere = 0;
    CHECK(cls.count == image.count * k && reg.count == image.count * 68);
    for (size_t i = 0; i < cls.count; i++) cls_top = fmax(cls_top, fabs(cls.data[i]));
    for (size_t i = 0; i < reg.count; i++) reg_top = fmax(reg_top, fabs(reg.data[i]));
    for (size_t p = 0; p < image.count; p++) {
        int level;
        const int n = (int)image.data[p];
        const size_t at = point_of(&t->cls, n, (size_t)anchor.data[p], &level);
        CHECK(t->assigned.gt[at] == (int)gt.data[p]);
        CHECK(t->truths[n].labels[(int)gt.data[p]] == (int)label.data[p]);
        for (size_t j = 0; j < k; j++)
            cls_error =
                fmax(cls_error, fabs((double)t->dcls.data[at * k + j] - cls.data[p * k + j]));
        for (size_t j = 0; j < 68; j++)
            reg_error =
                fmax(reg_error, fabs((double)t->dreg.data[at * 68 + j] - reg.data[p * 68 + j]));
    }
    for (size_t i = 0; i < gfli_points(&t->reg); i++)
        for (size_t j = 0; t->assigned.gt[i] < 0 && j < 68; j++)
            elsewhere += t->dreg.data[i * 68 + j] != 0;
    CHECK_NEAR(cls_error, 0, 1e-4 * cls_top);
    CHECK_NEAR(reg_error, 0, 1e-4 * reg_top);
    CHECK(elsewhere == 0);
    CHECK((int)image.count == t->out.n_pos);
    positives_seen += (int)image.count;
    free(image.data);
    free(anchor.data);
    free(gt.data);
    free(label.data);
    free(cls.data);
    free(reg.data);
}

/* The losses of one positive alone, from its logits and its box moved to the only cell of a map. */
static void one_alone(const head *t, size_t at, int level, int n, int gt, head *alone) {
    const size_t w = (size_t)t->cls.w[level], area = w * (size_t)t->cls.h[level];
    const size_t cell = (at - gfli_points_before(&t->cls, level)) % area;
    const int stride = 8 << level;
    int32_t own = 0;
    int n_pos = 1;
    float box[4];
    gfli_losses *out = &alone->out;
    test_truth truth = t->truths[n];
    gfli_losses given;
    for (int k = 0; k < 4; k++)
        box[k] = truth.boxes[4 * gt + k] - (float)((int)(k % 2 ? cell / w : cell % w) * stride);
    const int label = truth.labels[gt];
    truth.boxes = box;
    truth.labels = &label;
    truth.n = 1;
    gfli_map *maps[4] = {&alone->cls, &alone->reg, &alone->dcls, &alone->dreg};
    const gfli_map *from[4] = {&t->cls, &t->reg, &t->cls, &t->reg};
    for (int k = 0; k < 4; k++) {
        maps[k]->n = maps[k]->levels = maps[k]->h[0] = maps[k]->w[0] = 1;
        maps[k]->c = from[k]->c;
        if (k < 2)
            memcpy(maps[k]->data, from[k]->data + at * (size_t)from[k]->c,
                   (size_t)from[k]->c * sizeof(float));
    }
    alone->opts = t->opts;
    alone->opts.stride[0] = stride;
    memset(&given, 0, sizeof given);
    given.weight_sum = 1;
    alone->assigned.gt = &own;
    alone->assigned.n_pos = &n_pos;
    truth_losses(t->context, &alone->cls, &alone->reg, &truth, &alone->assigned, &alone->opts,
                 &given, &alone->dcls, &alone->dreg, out);
}

/* pos_weight, pos_quality, pos_distance and pos_dfl_target through the losses of each alone. */
static void check_positives(fx_case *one, const head *t) {
    const fx_tensor image = fx_load(one, "pos_image"), anchor = fx_load(one, "pos_anchor");
    const fx_tensor gt = fx_load(one, "pos_gt"), label = fx_load(one, "pos_label");
    const fx_tensor weight = fx_load_optional(one, "pos_weight"),
                    quality = fx_load_optional(one, "pos_quality");
    const fx_tensor target = fx_load_optional(one, "pos_dfl_target"),
                    far = fx_load_optional(one, "pos_distance");
    float cls[256], dcls[256], reg[68], dreg[68], p[GFL_MAX_BINS];
    head alone;
    memset(&alone, 0, sizeof alone);
    CHECK(weight.count == image.count && quality.count == image.count);
    CHECK(target.count == 4 * image.count && far.count == 4 * image.count);
    if (t->cls.c > 256) fx_die("too many classes", one->name);
    alone.cls.data = cls;
    alone.dcls.data = dcls;
    alone.reg.data = reg;
    alone.dreg.data = dreg;
    for (size_t i = 0; i < image.count; i++) {
        int level;
        const size_t at = point_of(&t->cls, (int)image.data[i], (size_t)anchor.data[i], &level);
        one_alone(t, at, level, (int)image.data[i], (int)gt.data[i], &alone);
        CHECK(alone.out.n_pos == 1);
        const double z = (double)cls[(int)label.data[i]], y = quality.data[i];
        const double s = 1 / (1 + exp(-z)), bce = fmax(z, 0) - z * y + log1p(exp(-fabs(z)));
        const double dz = fabs(s - y) * (s - y) * fabs(s - y) + 2 * (s - y) * s * (1 - s) * bce;
        CHECK_NEAR(dcls[(int)label.data[i]], dz, 1e-6);
        double dfl = 0;
        for (int side = 0; side < 4; side++) {
            const float *x = reg + 17 * side;
            const double v = target.data[i * 4 + (size_t)side];
            const int low = (int)v;
            double sum = 0;
            for (int k = 0; k < 17; k++) sum += exp((double)x[k]);
            dfl += log(sum) - (low + 1 - v) * (double)x[low] - (v - low) * (double)x[low + 1];
            CHECK_NEAR(gfli_integral(x, 17, p), far.data[i * 4 + (size_t)side], 1e-5);
        }
        CHECK_NEAR(alone.out.dfl[0], 0.25 * weight.data[i] * dfl / 4, 1e-6 * dfl);
    }
    free(image.data);
    free(anchor.data);
    free(gt.data);
    free(label.data);
    free(weight.data);
    free(quality.data);
    free(target.data);
    free(far.data);
}

/* A case without boxes may come without gradients: ours are finite, bbox_pred's 0. */
static void check_nothing(fx_case *one, const head *t) {
    size_t wrong = 0;
    const fx_json *n_pos = fx_get(&one->json, "num_pos");
    for (int i = 0; i < t->cls.n; i++) CHECK(fx_at(n_pos, i)->number == 0);
    for (size_t i = 0; i < gfli_map_count(&t->dcls); i++) wrong += isfinite(t->dcls.data[i]) == 0;
    for (size_t i = 0; i < gfli_map_count(&t->dreg); i++) wrong += t->dreg.data[i] != 0;
    CHECK(wrong == 0);
}

/* All checks of a case, with one thread and the same bits with more. */
static void head_check(fx_case *one, gfl_dialect dialect, head_fill *fill) {
    head t, again;
    head_open(one, &t, dialect, fill, 1);
    check_assignment(one, &t);
    check_losses(one, &t);
    if (fx_has(one, "grad_cls.0")) {
        check_gradients(one, &t);
        check_rows(one, &t);
        check_positives(one, &t);
    } else {
        check_nothing(one, &t);
    }
    for (int threads = 2; threads <= 3; threads++) {
        head_open(one, &again, dialect, fill, threads);
        CHECK(!memcmp(&again.out, &t.out, sizeof t.out));
        CHECK(!memcmp(again.assigned.gt, t.assigned.gt, gfli_points(&t.cls) * 4));
        CHECK(!memcmp(again.dcls.data, t.dcls.data, gfli_map_count(&t.cls) * 4));
        CHECK(!memcmp(again.dreg.data, t.dreg.data, gfli_map_count(&t.reg) * 4));
        head_close(&again);
    }
    head_close(&t);
}

#endif
