/* deform_grad.c - gradients of deformable convolution */
#pragma once

/* Spec 1.5, backward.
 *
 *     find      the points of all positions and taps, which both passes use
 *     for each image and part of the channels, a task each:
 *         for each tile of positions, strip of channels and tap:
 *             grad   = dy times the transposed weights of the tap: d loss / d (sample * mask)
 *             scatter: dx at the four corners += weight * mask * grad; and with the products of
 *                      grad and the corners, summed over the strip, this task's own sums for the
 *                      offsets (their slopes) and for the mask (their weighted sum)
 *     doffset   the tasks' sums in order; of a mask's logit, times mask * (1 - mask)
 *     dweight   as of any convolution (conv_grad.c), the rows being the samples times the mask
 *
 * A task owns its channels of an image, so that what it scatters meets no other task.  How channels
 * are cut depends on the shape alone. */
enum {
    GFLI_DEFORM_ROWS = 96,   /* positions of a tile; a multiple of GFLI_MR */
    GFLI_DEFORM_PARTS = 16,  /* of the channels, at most */
    GFLI_DEFORM_BLOCK = 1024 /* positions of a task that needs no tiles */
};

/* ---- weights for the gradient of the sampled values ------------------------------------------ */

/* dy's channels of a group are the inner dimension, x's are the columns; packed
 * [groups][panels of group_out][taps][group_in][GFLI_NR]. */
static void gfli_deform_grad_igemm(const gfli_conv_shape *s, gfli_igemm *g) {
    const gfli_groups merged = gfli_merge_groups(s, GFLI_NR);
    memset(g, 0, sizeof *g);
    g->groups = merged.n;
    g->group_in = merged.out;
    g->group_out = merged.in;
    g->n_segs = GFLI_DEFORM_TAPS;
    g->seg_taps = 1;
    g->seg_len = g->group_in;
}

static size_t gfli_deform_conv_grad_packed_size_cpu(const gfli_conv_shape *s) {
    gfli_igemm g;
    gfli_deform_grad_igemm(s, &g);
    return gfli_igemm_packed_size(&g);
}

static void gfli_deform_conv_grad_pack_cpu(gfl_context *context, const gfli_conv_shape *s,
                                           const float *weight, const float *scale, void *packing) {
    gfli_grad_pack_task t;
    t.s = s;
    t.weight = weight;
    t.scale = scale;
    t.packing = (float *)packing;
    gfli_deform_grad_igemm(s, &t.g);
    for (int k = 0; k < GFLI_DEFORM_TAPS; k++) t.tap[k] = k;
    const int parts = gfli_ceil_div(t.g.group_in, GFLI_PACK_ROWS);
    gfli_parallel_for(context, t.g.groups * t.g.n_segs * parts, gfli_grad_pack_rows, &t);
}

/* ---- input and offsets ----------------------------------------------------------------------- */

/* Scratch: zeros and the points of all positions, which both passes use; then the first pass's
 * sums and slots in the place of the second one's scratch. */
typedef struct gfli_deform_grad_task {
    const gfli_conv_shape *s;
    gfli_igemm g;
    const gfli_map *x, *offset, *dy, *dx, *doffset;
    size_t positions;
    int parts, part_panels, n_panels;
    const gfli_kernels *kernels;
    float *zeros, *sums; /* sums [parts][positions][offset->c] */
    gfli_point *points;
    const float *packing;
    char *room;
    void *rest;            /* the second pass's scratch */
    size_t pointers, slot; /* bytes */
} gfli_deform_grad_task;

/* The parts of the scratch, which may be NULL; second: bytes for the second pass.  Returns the
 * bytes. */
static size_t gfli_deform_grad_lay_out(const gfl_context *context, gfli_deform_grad_task *t,
                                       size_t second, void *scratch) {
    const size_t f = sizeof(float), points = t->positions * GFLI_DEFORM_TAPS;
    gfli_cutter c = {(unsigned char *)scratch, 0};
    t->zeros = (float *)gfli_cut(&c, (size_t)gfli_max(t->s->in_c, t->s->out_c) * f);
    if (scratch) memset(t->zeros, 0, c.used);
    t->points = (gfli_point *)gfli_cut(&c, points * sizeof *t->points);
    t->rest = gfli_cut(&c, 0);
    second += c.used;
    t->sums = (float *)gfli_cut(&c, (size_t)t->parts * t->positions * (size_t)t->offset->c * f);
    t->room = (char *)gfli_cut(&c, t->slot * (size_t)context->n_threads);
    return c.used > second ? c.used : second;
}

static void gfli_deform_grad_plan(const gfli_conv_shape *s, const gfli_map *offset,
                                  gfli_deform_grad_task *t) {
    const size_t f = sizeof(float), rows = GFLI_DEFORM_ROWS;
    memset(t, 0, sizeof *t);
    t->s = s;
    t->offset = offset;
    gfli_deform_grad_igemm(s, &t->g);
    t->positions = gfli_points(offset);
    t->n_panels = t->g.groups * gfli_ceil_div(t->g.group_out, GFLI_NR);
    t->part_panels = gfli_max(gfli_ceil_div(t->n_panels, GFLI_DEFORM_PARTS), 2);
    t->parts = gfli_ceil_div(t->n_panels, t->part_panels);
    t->pointers = gfli_round_64(rows * (sizeof(const float *) + sizeof(ptrdiff_t)));
    t->slot = t->pointers + rows * GFLI_DEFORM_STRIP * f;
}

static void gfli_deform_find(void *arg, int block, int slot) {
    const gfli_deform_grad_task *t = (const gfli_deform_grad_task *)arg;
    const size_t first = (size_t)block * GFLI_DEFORM_BLOCK, left = t->positions - first;
    const int n = left < GFLI_DEFORM_BLOCK ? (int)left : GFLI_DEFORM_BLOCK;
    (void)slot;
    gfli_find_points(t->s, t->x, t->offset, first, n, t->points + first * GFLI_DEFORM_TAPS);
}

/* A strip: up to two panels, whose channels lie together. */
typedef struct gfli_deform_strip {
    int panel, n_panels, channel, channels;
} gfli_deform_strip;

static int gfli_panel_channel(const gfli_igemm *g, int panel) {
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR);
    return panel / group_panels * g->group_out + panel % group_panels * GFLI_NR;
}

/* grad = dy times the weights of one tap, for n rows at `rows` and a strip's channels. */
static void gfli_deform_grad_tile(const gfli_deform_grad_task *t, const gfli_deform_strip *strip,
                                  int tap, int n, const float *const *rows, const ptrdiff_t *out,
                                  float *grad) {
    const gfli_igemm *g = &t->g;
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR);
    gfli_tile tile;
    memset(&tile, 0, sizeof tile);
    tile.n_segs = 1;
    tile.panel = (size_t)g->n_segs * (size_t)g->seg_len * GFLI_NR;
    for (int p = strip->panel, end = p + strip->n_panels, together; p < end; p += together) {
        const int group = p / group_panels, in_group = p % group_panels;
        together = gfli_min(gfli_min(t->kernels->tile_panels, end - p), group_panels - in_group);
        tile.n = gfli_min(together * GFLI_NR, g->group_out - in_group * GFLI_NR);
        tile.y = grad + gfli_panel_channel(g, p) - strip->channel;
        for (int k = 0; k < g->group_in; k += GFLI_K_BLOCK) {
            tile.len = gfli_min(GFLI_K_BLOCK, g->group_in - k);
            tile.first = k == 0;
            tile.row_offset = group * g->group_in + k;
            tile.b = t->packing + (size_t)p * tile.panel +
                     ((size_t)tap * (size_t)g->seg_len + (size_t)k) * GFLI_NR;
            for (int r = 0; r < n; r += GFLI_MR) {
                tile.rows = rows + r;
                tile.out = out + r;
                tile.m = gfli_min(GFLI_MR, n - r);
                t->kernels->tile(&tile);
            }
        }
    }
}

/* Some positions and all channels of a part. */
static void gfli_deform_grad_rows(const gfli_deform_grad_task *t, int part, size_t first, int n,
                                  char *memory) {
    const float **rows = (const float **)(void *)memory;
    ptrdiff_t *out = (ptrdiff_t *)(void *)(rows + GFLI_DEFORM_ROWS);
    float *grad = (float *)(void *)(memory + t->pointers);
    const int begin = part * t->part_panels, end = gfli_min(begin + t->part_panels, t->n_panels);
    for (int r = 0; r < gfli_ceil_div(n, GFLI_MR) * GFLI_MR; r++) {
        const int row = gfli_min(r, n - 1);
        rows[r] = t->dy->data + (first + (size_t)row) * (size_t)t->dy->c;
        out[r] = (ptrdiff_t)row * GFLI_DEFORM_STRIP;
    }
    gfli_scatter s;
    s.x = t->x;
    s.zeros = t->zeros;
    s.grad = grad;
    s.rows = n;
    s.dx = t->dx ? t->dx->data : NULL;
    s.values = t->offset->c;
    float *sums = t->sums + ((size_t)part * t->positions + first) * (size_t)s.values;
    for (int p = begin; p < end; p += 2) {
        gfli_deform_strip strip;
        strip.panel = p;
        strip.n_panels = gfli_min(2, end - p);
        strip.channel = gfli_panel_channel(&t->g, p);
        strip.channels =
            (p + strip.n_panels == t->n_panels ? t->s->in_c
                                               : gfli_panel_channel(&t->g, p + strip.n_panels)) -
            strip.channel;
        s.first = strip.channel;
        s.n = strip.channels;
        s.first_sum = p == begin;
        for (int tap = 0; tap < GFLI_DEFORM_TAPS; tap++) {
            gfli_deform_grad_tile(t, &strip, tap, n, rows, out, grad);
            s.points = t->points + first * GFLI_DEFORM_TAPS + tap;
            s.sums = sums + 2 * tap;
            s.mask_at = s.values > 2 * GFLI_DEFORM_TAPS ? 2 * GFLI_DEFORM_TAPS - tap : 0;
            t->kernels->scatter(&s);
        }
    }
}

/* One part of the channels of one image. */
static void gfli_deform_grad_do(void *arg, int task, int slot) {
    const gfli_deform_grad_task *t = (const gfli_deform_grad_task *)arg;
    const int part = task % t->parts, level = task / t->parts / t->x->n;
    const int image = task / t->parts % t->x->n;
    const size_t area = (size_t)t->offset->h[level] * (size_t)t->offset->w[level];
    const size_t first = gfli_points_before(t->offset, level) + (size_t)image * area;
    for (size_t done = 0; done < area; done += GFLI_DEFORM_ROWS) {
        const int n = area - done < GFLI_DEFORM_ROWS ? (int)(area - done) : GFLI_DEFORM_ROWS;
        gfli_deform_grad_rows(t, part, first + done, n, t->room + (size_t)slot * t->slot);
    }
}

/* doffset: the parts' sums in order; a mask is the sigmoid m of its logit, so m (1 - m). */
static void gfli_deform_grad_sum(void *arg, int block, int slot) {
    const gfli_deform_grad_task *t = (const gfli_deform_grad_task *)arg;
    const int values = t->offset->c, mask_at = 2 * GFLI_DEFORM_TAPS;
    const size_t first = (size_t)block * GFLI_DEFORM_BLOCK;
    (void)slot;
    for (size_t i = first; i < first + GFLI_DEFORM_BLOCK && i < t->positions; i++) {
        float *out = t->doffset->data + i * (size_t)values;
        const gfli_point *points = t->points + i * GFLI_DEFORM_TAPS;
        for (int part = 0; part < t->parts; part++) {
            const float *sums = t->sums + ((size_t)part * t->positions + i) * (size_t)values;
            for (int v = 0; v < values; v++) out[v] = part ? out[v] + sums[v] : sums[v];
        }
        for (int v = mask_at; v < values; v++) {
            const float m = points[v - mask_at].mask;
            out[v] *= m * (1.0f - m);
        }
    }
}

/* Of what a layer with such an input and offsets gives. */
static gfli_map gfli_deform_dy(const gfli_conv_shape *s, const gfli_map *offset) {
    gfli_map dy = *offset;
    dy.c = s->out_c;
    return dy;
}

static size_t gfli_deform_conv_grad_scratch_cpu(const gfl_context *context,
                                                const gfli_conv_shape *s, const gfli_map *offset) {
    const gfli_map dy = gfli_deform_dy(s, offset);
    gfli_deform_grad_task t;
    gfli_igemm g;
    gfli_grad_task weights;
    gfli_deform_grad_plan(s, offset, &t);
    gfli_deform_igemm(s, &g);
    gfli_grad_plan(context, s, &g, &dy, &weights);
    return gfli_deform_grad_lay_out(context, &t, weights.scratch, NULL);
}

static void gfli_deform_conv_grad_cpu(gfl_context *context, const gfli_conv_shape *s,
                                      const void *packing, const gfli_map *x,
                                      const gfli_map *offset, const gfli_map *dy, bool accumulate,
                                      const gfli_map *dx, const gfli_map *doffset, float *dweight,
                                      float *dbias, void *scratch) {
    gfli_deform_grad_task t;
    gfli_deform_grad_plan(s, offset, &t);
    t.x = x;
    t.dy = dy;
    t.dx = dx;
    t.doffset = doffset;
    t.packing = (const float *)packing;
    (void)gfli_deform_grad_lay_out(context, &t, 0, scratch);
    t.kernels = gfli_kernels_of(context);
    if (dx && !accumulate) memset(dx->data, 0, gfli_map_count(dx) * sizeof(float));
    const int blocks = (int)((t.positions + GFLI_DEFORM_BLOCK - 1) / GFLI_DEFORM_BLOCK);
    gfli_parallel_for(context, blocks, gfli_deform_find, &t);
    gfli_parallel_for(context, x->levels * x->n * t.parts, gfli_deform_grad_do, &t);
    gfli_parallel_for(context, blocks, gfli_deform_grad_sum, &t);
    gfli_grad_task weights;
    gfli_igemm g;
    gfli_deform_igemm(s, &g);
    gfli_grad_plan(context, s, &g, dy, &weights);
    weights.points = t.points;
    gfli_grad_weight(context, &weights, x, dweight, dbias, t.rest);
}
