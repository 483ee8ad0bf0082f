/* conv_grad.c - gradients of convolution with respect to its input and its weights */
#pragma once

/* ---- input ----------------------------------------------------------------------------------- */

/* With a stride, the input's positions fall into stride x stride phases, each of which sees its own
 * taps of the kernel: phase (py, px) is a convolution of dy with stride 1.  tap[segment] is the
 * tap's index in the kernel. */
static void gfli_grad_phase(const gfli_conv_shape *s, int py, int px, gfli_igemm *g,
                            int tap[GFLI_MAX_TAPS]) {
    const gfli_groups merged = gfli_merge_groups(s, GFLI_NR);
    memset(g, 0, sizeof *g);
    g->groups = merged.n;
    g->group_in = merged.out;
    g->group_out = merged.in;
    g->seg_taps = 1;
    g->seg_len = g->group_in;
    g->in_step = 1;
    g->out_step = s->stride;
    g->out_y = py;
    g->out_x = px;
    for (int ky = 0; ky < s->kernel; ky++) {
        for (int kx = 0; kx < s->kernel; kx++) {
            const int y = py + s->pad - ky, x = px + s->pad - kx;
            if (y % s->stride || x % s->stride) continue;
            tap[g->n_segs] = ky * s->kernel + kx;
            g->seg_y[g->n_segs] = y / s->stride;
            g->seg_x[g->n_segs++] = x / s->stride;
        }
    }
}

static size_t gfli_conv_grad_packed_size_cpu(const gfli_conv_shape *s) {
    size_t size = 0;
    for (int phase = 0; phase < s->stride * s->stride; phase++) {
        gfli_igemm g;
        int tap[GFLI_MAX_TAPS];
        gfli_grad_phase(s, phase / s->stride, phase % s->stride, &g, tap);
        size += gfli_igemm_packed_size(&g);
    }
    return size;
}

void gfli_grad_pack_rows(void *arg, int task, int slot) {
    const gfli_grad_pack_task *t = (const gfli_grad_pack_task *)arg;
    const gfli_conv_shape *s = t->s;
    const gfli_igemm *g = &t->g;
    const int c = s->in_c / s->groups, out_per_group = s->out_c / s->groups;
    const int parts = gfli_ceil_div(g->group_in, GFLI_PACK_ROWS), part = task % parts;
    const int seg = task / parts % g->n_segs, group = task / parts / g->n_segs;
    const int panels = gfli_ceil_div(g->group_out, GFLI_NR);
    const size_t panel = (size_t)(g->n_segs * g->seg_len) * GFLI_NR;
    const int last_k = gfli_min((part + 1) * GFLI_PACK_ROWS, g->group_in);
    (void)slot;
    for (int k = part * GFLI_PACK_ROWS; k < last_k; k++) {
        const int o = group * g->group_in + k, own = o / out_per_group * c - group * g->group_out;
        const float scale = t->scale ? t->scale[o] : 1.0f;
        const float *w = t->weight + gfli_weight_at(s->kernel * s->kernel, c, o, t->tap[seg], 0);
        float *out = t->packing + (size_t)group * (size_t)panels * panel +
                     (size_t)(seg * g->seg_len + k) * GFLI_NR;
        for (int first = 0; first < g->group_out; first += GFLI_NR, out += panel) {
            const int lo = gfli_max(first, own), hi = gfli_min(first + GFLI_NR, own + c);
            if (hi - lo < GFLI_NR) memset(out, 0, GFLI_NR * sizeof(float));
            for (int i = lo; i < hi; i++) out[i - first] = scale * w[i - own];
        }
    }
}

static void gfli_conv_grad_pack_cpu(gfl_context *context, const gfli_conv_shape *s,
                                    const float *weight, const float *scale, void *packing) {
    gfli_grad_pack_task t;
    t.s = s;
    t.weight = weight;
    t.scale = scale;
    t.packing = (float *)packing;
    for (int phase = 0; phase < s->stride * s->stride; phase++) {
        gfli_grad_phase(s, phase / s->stride, phase % s->stride, &t.g, t.tap);
        if (!t.g.n_segs) continue;
        const int parts = gfli_ceil_div(t.g.group_in, GFLI_PACK_ROWS);
        gfli_parallel_for(context, t.g.groups * t.g.n_segs * parts, gfli_grad_pack_rows, &t);
        t.packing += gfli_igemm_packed_size(&t.g) / sizeof(float);
    }
}

static void gfli_conv_grad_input_cpu(gfl_context *context, const gfli_conv_shape *s,
                                     const void *packing, const gfli_map *dy, bool accumulate,
                                     const gfli_map *dx, void *scratch) {
    const float *weights = (const float *)packing;
    if (s->stride > s->kernel && !accumulate) { /* there are positions that no tap reaches */
        memset(dx->data, 0, gfli_map_count(dx) * sizeof(float));
    }
    for (int phase = 0; phase < s->stride * s->stride; phase++) {
        gfli_igemm g;
        int tap[GFLI_MAX_TAPS];
        gfli_grad_phase(s, phase / s->stride, phase % s->stride, &g, tap);
        if (!g.n_segs) continue;
        g.packing = weights;
        g.x = dy;
        g.y = dx;
        g.residual = accumulate ? dx : NULL;
        gfli_igemm_run(context, &g, scratch);
        weights += gfli_igemm_packed_size(&g) / sizeof(float);
    }
}

/* ---- weights --------------------------------------------------------------------------------- */

/* dweight [out][taps * in] is the sum over all positions of the outer products of dy and the rows
 * of the implicit matrix of gemm.c: here positions are the inner dimension.
 *
 * 1. Positions are cut into chunks by the shapes alone: one for every GFLI_GRAD_CHUNK positions,
 *    but at most GFLI_GRAD_CHUNKS, and no more than have sums of GFLI_GRAD_PARTIAL bytes together.
 *    Each chunk has a sum of its own.  A single chunk adds up in dweight itself, unless groups are
 *    merged and the sum has the zeros between them.
 * 2. Weights are cut into tasks: GFLI_GRAD_OUT output channels by some strips, which are GFLI_STRIP
 *    columns of one tap.  How many strips depends on the threads, and changes no sum.
 * 3. A task goes through its chunk in blocks of at most GFLI_GRAD_ROWS positions.  It packs dy of
 *    the block as panels of GFLI_MR channels; then, for one strip after the other, it packs the
 *    columns (those of a deformable convolution are sampled) and adds the products to the sum, in
 *    tiles of GFLI_MR channels by a strip.
 * 4. The chunks' sums are added in their order, without the zeros of merged groups.
 *
 * dbias is added up in double, over blocks of GFLI_BIAS_ROWS positions and then in their order. */
enum {
    GFLI_GRAD_ROWS = 252, /* positions that are packed together, at most; a multiple of GFLI_MR */
    GFLI_STRIP = 2 * GFLI_NR, /* columns of the implicit matrix that are packed together */
    GFLI_GRAD_OUT = 384,      /* output channels of a task; a multiple of GFLI_MR */
    GFLI_GRAD_CHUNK = 768,    /* positions worth a sum of their own */
    GFLI_GRAD_CHUNKS = 16,
    GFLI_GRAD_PARTIAL = 4 << 20, /* bytes that all the sums may take */
    GFLI_BIAS_ROWS = 1024
};

/* Positions into chunks (by the shapes alone), weights into tasks (which changes no sum). */
static void gfli_grad_cut(const gfl_context *context, gfli_grad_task *t) {
    const gfli_conv_shape *s = t->s;
    t->n_rows = gfli_igemm_rows(&t->g);
    t->n_strips = t->g.groups * t->g.n_segs * gfli_ceil_div(t->g.seg_len, GFLI_STRIP);
    t->n_weights = (size_t)s->out_c * (size_t)(t->g.n_segs * t->g.seg_len);
    const size_t fit = GFLI_GRAD_PARTIAL / (t->n_weights * sizeof(float));
    size_t chunks = t->n_rows / GFLI_GRAD_CHUNK;
    if (chunks > fit) chunks = fit;
    if (chunks > GFLI_GRAD_CHUNKS) chunks = GFLI_GRAD_CHUNKS;
    t->chunks = gfli_max((int)chunks, 1);
    t->rows_per_chunk = (t->n_rows + (size_t)t->chunks - 1) / (size_t)t->chunks;
    const int blocks = (int)((t->rows_per_chunk + GFLI_GRAD_ROWS - 1) / GFLI_GRAD_ROWS);
    t->rows_per_block = gfli_ceil_div((int)t->rows_per_chunk, gfli_max(blocks, 1));
    t->direct = t->chunks == 1 && t->g.groups == s->groups;
    t->out_tasks = gfli_ceil_div(t->g.group_out, GFLI_GRAD_OUT);
    t->strips_per_task = gfli_min(t->n_strips, 9);
    const int others = t->chunks * t->out_tasks, want = 4 * context->n_threads;
    while (context->n_threads > 1 && t->strips_per_task > 2 &&
           others * gfli_ceil_div(t->n_strips, t->strips_per_task) < want) {
        t->strips_per_task--;
    }
    t->strip_tasks = gfli_ceil_div(t->n_strips, t->strips_per_task);
}

/* The parts of the scratch, which may be NULL; returns the bytes. */
static size_t gfli_grad_lay_out(const gfl_context *context, gfli_grad_task *t, void *scratch) {
    gfli_cutter c = {(unsigned char *)scratch, 0};
    const size_t f = sizeof(float), sums = t->direct ? 0 : (size_t)t->chunks * t->n_weights;
    const size_t blocks = (t->n_rows + GFLI_BIAS_ROWS - 1) / GFLI_BIAS_ROWS;
    t->zeros = (float *)gfli_cut(&c, (size_t)gfli_max(t->s->in_c, t->g.seg_len) * f);
    if (scratch) memset(t->zeros, 0, c.used);
    t->sums = (float *)gfli_cut(&c, sums * f);
    t->bias_sums = (double *)gfli_cut(&c, blocks * (size_t)t->s->out_c * sizeof(double));
    t->room = (char *)gfli_cut(&c, t->slot * (size_t)context->n_threads);
    return c.used;
}

void gfli_grad_plan(const gfl_context *context, const gfli_conv_shape *s, const gfli_igemm *g,
                    const gfli_map *dy, gfli_grad_task *t) {
    const size_t rows = GFLI_GRAD_ROWS, f = sizeof(float);
    memset(t, 0, sizeof *t);
    t->s = s;
    t->g = *g;
    t->g.y = dy;
    t->dy = dy;
    gfli_grad_cut(context, t);
    t->pointers = gfli_round_64(rows * (size_t)t->g.n_segs * sizeof(const float *));
    t->offsets = gfli_round_64(rows * sizeof(ptrdiff_t));
    t->copies = rows * gfli_igemm_copy(&t->g) * f;
    t->dy_panels = gfli_round_64(rows * (GFLI_GRAD_OUT + GFLI_MR) * f);
    t->slot = t->pointers + t->offsets + t->copies + t->dy_panels + rows * GFLI_STRIP * f;
    t->scratch = gfli_grad_lay_out(context, t, NULL);
}

/* dy of n positions and `out` channels as panels [out / GFLI_MR][n][GFLI_MR], zero-filled. */
static void gfli_grad_pack_dy(const float *dy, const ptrdiff_t *offsets, int n, int out,
                              float *panel) {
    for (int o = 0; o < out; o += GFLI_MR) {
        const int width = gfli_min(GFLI_MR, out - o);
        for (int k = 0; k < n; k++, panel += GFLI_MR) {
            const float *row = dy + offsets[k] + o;
            if (width == GFLI_MR) {
                memcpy(panel, row, GFLI_MR * sizeof(float));
            } else {
                for (int r = 0; r < GFLI_MR; r++) panel[r] = r < width ? row[r] : 0.0f;
            }
        }
    }
}

/* A strip [n][padded] of the implicit matrix: `width` floats of every run, then zeros. */
static void gfli_grad_pack_x(const float *const *rows, int n_segs, ptrdiff_t offset, int n,
                             int width, int padded, float *strip) {
    for (int k = 0; k < n; k++, strip += padded) {
        const float *row = rows[(ptrdiff_t)(k / GFLI_MR) * GFLI_MR * n_segs + k % GFLI_MR] + offset;
        if (width == GFLI_STRIP) {
            memcpy(strip, row, GFLI_STRIP * sizeof(float));
        } else {
            memcpy(strip, row, (size_t)width * sizeof(float));
            memset(strip + width, 0, (size_t)(padded - width) * sizeof(float));
        }
    }
}

/* The same of a tap's points. */
static void gfli_grad_sample_x(const gfli_grad_task *t, const gfli_point *points, int first, int n,
                               int width, int padded, float *strip) {
    gfli_sampling one;
    one.x = t->g.x;
    one.zeros = t->zeros;
    one.points = points;
    one.rows = n;
    one.first = first;
    one.n = width;
    one.out = strip;
    one.stride = padded;
    t->kernels->sampling(&one);
    for (int k = 0; k < n && width < padded; k++, strip += padded)
        memset(strip + width, 0, (size_t)(padded - width) * sizeof(float));
}

typedef struct gfli_grad_part {
    int chunk, strip0, strip1, out0, out1; /* output channels within a group */
    size_t row;
    int n; /* positions */
} gfli_grad_part;

/* Add the products of part->n positions. */
static void gfli_grad_block(const gfli_grad_task *t, const gfli_grad_part *part, char *memory) {
    const gfli_igemm *g = &t->g;
    const float **rows = (const float **)(void *)memory;
    ptrdiff_t *offsets = (ptrdiff_t *)(void *)(memory + t->pointers);
    float *copies = (float *)(void *)(memory + t->pointers + t->offsets);
    float *dy = copies + t->copies / sizeof(float), *x = dy + t->dy_panels / sizeof(float);
    const int k_size = g->n_segs * g->seg_len;
    const int group_strips = g->n_segs * gfli_ceil_div(g->seg_len, GFLI_STRIP);
    float *sum = t->direct ? t->dweight : t->sums + (size_t)part->chunk * t->n_weights;
    if (t->points)
        for (int k = 0; k < part->n; k++) offsets[k] = ((ptrdiff_t)part->row + k) * t->dy->c;
    else
        gfli_igemm_gather(g, part->row, part->n, t->zeros, rows, offsets, copies);
    gfli_outer o;
    o.b = x;
    o.len = part->n;
    o.stride = (size_t)k_size;
    o.first = part->row == (size_t)part->chunk * t->rows_per_chunk;
    for (int p = part->strip0, packed_group = -1; p < part->strip1; p++) {
        const int group = p / group_strips, seg = p % g->n_segs;
        const int col = p % group_strips / g->n_segs * GFLI_STRIP;
        const int out = group * g->group_out + part->out0;
        if (group != packed_group) {
            gfli_grad_pack_dy(t->dy->data + out, offsets, part->n, part->out1 - part->out0, dy);
            packed_group = group;
        }
        o.n = gfli_min(GFLI_STRIP, g->seg_len - col);
        o.width = gfli_ceil_div(o.n, GFLI_NR) * GFLI_NR;
        if (t->points)
            gfli_grad_sample_x(t, t->points + part->row * GFLI_DEFORM_TAPS + seg,
                               group * g->group_in + col, part->n, o.n, o.width, x);
        else
            gfli_grad_pack_x(rows + (ptrdiff_t)seg * GFLI_MR, g->n_segs, group * g->group_in + col,
                             part->n, o.n, o.width, x);
        for (int r = 0; r < part->out1 - part->out0; r += GFLI_MR) {
            o.a = dy + (ptrdiff_t)r * part->n;
            o.m = gfli_min(GFLI_MR, part->out1 - part->out0 - r);
            o.c = sum + (size_t)(out + r) * (size_t)k_size + (size_t)(seg * g->seg_len + col);
            t->kernels->outer(&o);
        }
    }
}

static void gfli_grad_do(void *arg, int task, int slot) {
    const gfli_grad_task *t = (const gfli_grad_task *)arg;
    const int out_task = task % t->out_tasks, strip_task = task / t->out_tasks % t->strip_tasks;
    gfli_grad_part part;
    part.chunk = task / t->out_tasks / t->strip_tasks;
    part.strip0 = strip_task * t->strips_per_task;
    part.strip1 = gfli_min(part.strip0 + t->strips_per_task, t->n_strips);
    part.out0 = out_task * GFLI_GRAD_OUT;
    part.out1 = gfli_min(part.out0 + GFLI_GRAD_OUT, t->g.group_out);
    const size_t first = (size_t)part.chunk * t->rows_per_chunk;
    const size_t last =
        first + t->rows_per_chunk < t->n_rows ? first + t->rows_per_chunk : t->n_rows;
    for (part.row = first; part.row < last; part.row += (size_t)t->rows_per_block) {
        const size_t left = last - part.row;
        part.n = left < (size_t)t->rows_per_block ? (int)left : t->rows_per_block;
        gfli_grad_block(t, &part, t->room + (size_t)slot * t->slot);
    }
}

/* dweight of one output channel: the chunks' sums in order, without the merged groups' zeros. */
static void gfli_grad_sum(void *arg, int o, int slot) {
    const gfli_grad_task *t = (const gfli_grad_task *)arg;
    const gfli_conv_shape *s = t->s;
    const int c = s->in_c / s->groups, taps = s->kernel * s->kernel;
    const int at = o / (s->out_c / s->groups) * c % t->g.group_in;
    const size_t row = t->n_weights / (size_t)s->out_c, run = row / (size_t)taps;
    (void)slot;
    for (int chunk = 0; chunk < t->chunks; chunk++) {
        const float *sum = t->sums + (size_t)chunk * t->n_weights + (size_t)o * row + at;
        for (int k = 0; k < taps; k++, sum += run) {
            float *w = t->dweight + gfli_weight_at(taps, c, o, k, 0);
            for (int i = 0; i < c; i++) w[i] = chunk ? w[i] + sum[i] : sum[i];
        }
    }
}

static void gfli_grad_bias(void *arg, int block, int slot) {
    const gfli_grad_task *t = (const gfli_grad_task *)arg;
    const size_t c = (size_t)t->s->out_c, first = (size_t)block * GFLI_BIAS_ROWS;
    const size_t left = t->n_rows - first, rows = GFLI_BIAS_ROWS;
    const size_t n = left < rows ? left : rows;
    double *sums = t->bias_sums + (size_t)block * c;
    (void)slot;
    for (size_t col = 0; col < c; col += 32) {
        const size_t width = c - col < 32 ? c - col : 32;
        const float *dy = t->dy->data + first * c + col;
        double sum[32] = {0.0};
        for (size_t r = 0; r < n; r++, dy += c) {
            for (size_t j = 0; j < width; j++) sum[j] += (double)dy[j];
        }
        memcpy(sums + col, sum, width * sizeof(double));
    }
}

static void gfli_conv_grad_bias(gfl_context *context, gfli_grad_task *t) {
    const int blocks = (int)((t->n_rows + GFLI_BIAS_ROWS - 1) / GFLI_BIAS_ROWS);
    const int c = t->s->out_c;
    gfli_parallel_for(context, blocks, gfli_grad_bias, t);
    for (int o = 0; o < c; o++) {
        double sum = 0.0;
        for (int b = 0; b < blocks; b++) sum += t->bias_sums[(ptrdiff_t)b * c + o];
        t->dbias[o] = (float)sum;
    }
}

static gfli_map gfli_grad_dy(const gfli_conv_shape *s, const gfli_map *x) {
    gfli_map dy = *x;
    dy.c = s->out_c;
    for (int l = 0; l < x->levels; l++) {
        dy.h[l] = gfli_conv_out(s, x->h[l]);
        dy.w[l] = gfli_conv_out(s, x->w[l]);
    }
    return dy;
}

static size_t gfli_conv_grad_scratch_cpu(const gfl_context *context, const gfli_conv_shape *s,
                                         const gfli_map *x) {
    const gfli_map dy = gfli_grad_dy(s, x);
    gfli_grad_task t;
    gfli_igemm whole;
    gfli_conv_igemm(s, &whole);
    gfli_grad_plan(context, s, &whole, &dy, &t);
    size_t size = t.scratch;
    for (int phase = 0; phase < s->stride * s->stride; phase++) {
        gfli_igemm g;
        int tap[GFLI_MAX_TAPS];
        gfli_grad_phase(s, phase / s->stride, phase % s->stride, &g, tap);
        const size_t need = gfli_igemm_scratch(context, &g);
        if (need > size) size = need;
    }
    return size;
}

void gfli_grad_weight(gfl_context *context, gfli_grad_task *t, const gfli_map *x, float *dweight,
                      float *dbias, void *scratch) {
    t->g.x = x;
    t->dweight = dweight;
    t->dbias = dbias;
    (void)gfli_grad_lay_out(context, t, scratch);
    t->kernels = gfli_kernels_of(context);
    if (dbias) gfli_conv_grad_bias(context, t);
    if (!t->n_rows) {
        memset(dweight, 0, gfli_conv_weights(t->s) * sizeof(float));
        return;
    }
    gfli_parallel_for(context, t->chunks * t->strip_tasks * t->out_tasks, gfli_grad_do, t);
    if (!t->direct) gfli_parallel_for(context, t->s->out_c, gfli_grad_sum, t);
}

static void gfli_conv_grad_weight_cpu(gfl_context *context, const gfli_conv_shape *s,
                                      const gfli_map *x, const gfli_map *dy, float *dweight,
                                      float *dbias, void *scratch) {
    gfli_grad_task t;
    gfli_igemm g;
    gfli_conv_igemm(s, &g);
    gfli_grad_plan(context, s, &g, dy, &t);
    gfli_grad_weight(context, &t, x, dweight, dbias, scratch);
}
