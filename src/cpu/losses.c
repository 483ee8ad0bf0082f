/* losses.c - quality focal loss, GIoU and distribution focal loss with their gradients */
#pragma once

enum {
    GFLI_LOSS_ENTRIES = 16384, /* logits a task looks at, roughly */
    GFLI_LOSS_RUN = 256        /* logits whose losses are summed together */
};

/* What one task adds to the losses of its level. */
typedef struct gfli_loss_part {
    double cls, bbox, dfl, weight;
    int n_pos;
} gfli_loss_part;

typedef struct gfli_loss {
    const gfli_map *cls, *reg, *dcls, *dreg;
    const gfli_truths *truths;
    const int32_t *gt;
    const gfli_loss_opts *opts;
    gfli_loss_part *parts;
    int points, tasks[GFL_LEVELS]; /* points a task has; tasks of a level */
    gfli_loss_scales scales;
    const gfli_kernels *kernels;
} gfli_loss;

/* ---- negatives ------------------------------------------------------------------------------- */

static double gfli_qfl_run(const gfli_loss *t, size_t first, size_t last) {
    const float scale = (float)t->scales.cls;
    double sum = 0;
    float loss[GFLI_LOSS_RUN];
    while (first < last) {
        const size_t rest = last - first, most = GFLI_LOSS_RUN;
        const int n = (int)(rest < most ? rest : most);
        const float *z = t->cls->data + first;
        float *dz = t->dcls->data + first;
        t->kernels->qfl_negative(z, n, scale, loss, dz);
        double s[4] = {0, 0, 0, 0};
        int i = 0;
        for (; i + 4 <= n; i += 4)
            for (int k = 0; k < 4; k++) s[k] += (double)loss[i + k];
        for (; i < n; i++) s[0] += (double)loss[i];
        sum += (s[0] + s[1]) + (s[2] + s[3]);
        first += (size_t)n;
    }
    return sum;
}

/* ---- tasks ----------------------------------------------------------------------------------- */

/* Points first..last of a level, counted over all maps, belong to one task. */
typedef struct gfli_loss_range {
    int level;
    size_t before, first, last;
} gfli_loss_range;

static gfli_loss_range gfli_loss_find(const gfli_loss *t, int task) {
    gfli_loss_range r;
    r.level = 0;
    while (task >= t->tasks[r.level]) task -= t->tasks[r.level++];
    r.before = gfli_points_before(t->cls, r.level);
    r.first = r.before + (size_t)task * (size_t)t->points;
    const size_t end = r.before + gfli_level_points(t->cls, r.level);
    r.last = end - r.first < (size_t)t->points ? end : r.first + (size_t)t->points;
    return r;
}

/* First pass: the sum of weights, by which the box losses are divided. */
static void gfli_loss_weigh(void *arg, int task, int slot) {
    const gfli_loss *t = (const gfli_loss *)arg;
    const gfli_loss_range r = gfli_loss_find(t, task);
    const int n_classes = t->cls->c;
    gfli_loss_part *part = &t->parts[task];
    (void)slot;
    memset(part, 0, sizeof *part);
    for (size_t i = r.first; i < r.last; i++) {
        if (t->gt[i] < 0) continue;
        part->weight += gfli_loss_weight(t->cls->data + i * (size_t)n_classes, n_classes);
        part->n_pos++;
    }
}

/* Second pass: all losses and gradients of a task's points. */
static void gfli_loss_do(void *arg, int task, int slot) {
    const gfli_loss *t = (const gfli_loss *)arg;
    const gfli_loss_range r = gfli_loss_find(t, task);
    const size_t n_classes = (size_t)t->cls->c, n_reg = (size_t)t->reg->c;
    const size_t w = (size_t)t->cls->w[r.level], area = w * (size_t)t->cls->h[r.level];
    gfli_loss_part *part = &t->parts[task];
    size_t run = r.first * n_classes; /* from here on, logits without a target */
    (void)slot;
    memset(t->dreg->data + r.first * n_reg, 0, (r.last - r.first) * n_reg * sizeof(float));
    for (size_t i = r.first; i < r.last; i++) {
        const size_t at = i * n_classes;
        if (t->gt[i] == -1 || (t->gt[i] < 0 && t->opts->outside_counts)) continue;
        if (t->gt[i] < 0) {
            part->cls += gfli_qfl_run(t, run, at);
            memset(t->dcls->data + at, 0, n_classes * sizeof(float));
            run = at + n_classes;
            continue;
        }
        const int box = t->truths->images[(i - r.before) / area].first + t->gt[i];
        const size_t cell = (i - r.before) % area;
        const size_t own = at + (size_t)t->truths->labels[box];
        gfli_positive p;
        double dz;
        p.x = (int)(cell % w);
        p.y = (int)(cell / w);
        p.stride = t->opts->stride[r.level];
        p.reg = t->reg->data + i * n_reg;
        p.truth = t->truths->boxes + 4 * box;
        p.weight = gfli_loss_weight(t->cls->data + at, (int)n_classes);
        const double quality = gfli_box_losses(t->opts, &t->scales, &p, &part->bbox, &part->dfl,
                                               t->dreg->data + i * n_reg);
        part->cls += gfli_qfl_run(t, run, own);
        part->cls += gfli_qfl_positive((double)t->cls->data[own], quality, &dz);
        t->dcls->data[own] = (float)(t->scales.cls * dz);
        run = own + 1;
    }
    part->cls += gfli_qfl_run(t, run, r.last * n_classes);
}

/* Cut the levels into tasks, by their sizes alone; returns how many there are. */
static int gfli_loss_cut(const gfli_map *cls, int *points, int tasks[GFL_LEVELS]) {
    int total = 0;
    *points = gfli_max(GFLI_LOSS_ENTRIES / cls->c, 1);
    for (int l = 0; l < cls->levels; l++) {
        const size_t n = gfli_level_points(cls, l);
        tasks[l] = (int)((n + (size_t)*points - 1) / (size_t)*points);
        total += tasks[l];
    }
    return total;
}

static size_t gfli_losses_scratch_cpu(const gfl_context *context, const gfli_map *cls,
                                      const gfli_loss_opts *opts) {
    int points, tasks[GFL_LEVELS];
    (void)context;
    (void)opts;
    return (size_t)gfli_loss_cut(cls, &points, tasks) * sizeof(gfli_loss_part);
}

static int gfli_loss_begin(const gfli_map *cls, const gfli_assignment *assigned,
                           const gfli_loss_opts *opts, void *scratch, gfli_loss *t) {
    memset(t, 0, sizeof *t);
    t->cls = cls;
    t->gt = assigned->gt;
    t->opts = opts;
    t->parts = (gfli_loss_part *)scratch;
    return gfli_loss_cut(cls, &t->points, t->tasks);
}

static void gfli_loss_sums_cpu(gfl_context *context, const gfli_map *cls,
                               const gfli_assignment *assigned, const gfli_loss_opts *opts,
                               gfli_losses *out, void *scratch) {
    gfli_loss t;
    const int tasks = gfli_loss_begin(cls, assigned, opts, scratch, &t);
    memset(out, 0, sizeof *out);
    gfli_parallel_for(context, tasks, gfli_loss_weigh, &t);
    for (int i = 0; i < tasks; i++) {
        out->weight_sum += t.parts[i].weight;
        out->n_pos += t.parts[i].n_pos;
    }
    for (int i = 0; i < cls->n; i++) out->avg_pos += gfli_max(assigned->n_pos[i], 1);
}

static void gfli_losses_cpu(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                            const gfli_truths *truths, const gfli_assignment *assigned,
                            const gfli_loss_opts *opts, const gfli_map *dcls, const gfli_map *dreg,
                            gfli_losses *out, void *scratch) {
    gfli_loss t;
    const int tasks = gfli_loss_begin(cls, assigned, opts, scratch, &t);
    t.reg = reg;
    t.dcls = dcls;
    t.dreg = dreg;
    t.truths = truths;
    t.kernels = gfli_kernels_of(context);
    t.scales = gfli_loss_scales_of(out, opts);
    for (int i = 0; i < tasks; i++) memset(&t.parts[i], 0, sizeof t.parts[i]);
    gfli_parallel_for(context, tasks, gfli_loss_do, &t);
    const gfli_loss_part *part = t.parts;
    for (int l = 0; l < cls->levels; l++) {
        out->cls[l] = out->bbox[l] = out->dfl[l] = 0;
        for (int i = 0; i < t.tasks[l]; i++, part++) {
            out->cls[l] += part->cls * t.scales.cls;
            out->bbox[l] += part->bbox * t.scales.bbox;
            out->dfl[l] += part->dfl * t.scales.dfl;
        }
    }
    out->bad = gfli_bad_loss_name(out) ? 1 : 0;
    out->bad_rank = out->bad * opts->rank;
}
