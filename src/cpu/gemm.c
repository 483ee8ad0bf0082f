/* gemm.c - the matrix product behind convolutions, whose left matrix is never stored */
#pragma once

/* A row of the left matrix belongs to a position of y: it is what the taps of the kernel see of x
 * there, one run of channels after the other.  The right matrix is the weights, packed in panels of
 * GFLI_NR output channels.
 *
 * 1. Cut.  The rows of all levels and images, in one list, are cut evenly into parts of at most
 *    GFLI_ROWS_PER_TASK, the panels into parts of at most GFLI_COLS_PER_TASK columns, or into
 *    smaller ones where there would be too few tasks for the threads.  A task is a part of the rows
 *    by a part of the panels, so no two tasks write to the same place.
 * 2. Gather.  For each of its rows and segments a task notes where the run begins: in x; in the
 *    zeros, where the tap sees padding alone; or in a copy, where several taps make one run and the
 *    edge of the map goes through it.
 * 3. Multiply.  The inner dimension is taken in blocks of at most GFLI_K_BLOCK.  For each block and
 *    each panel (or two, if the kernel takes two), the tiles of GFLI_MR rows follow one another:
 *    the panel's block stays in the L1 cache, the rows of x in the L2 cache.  The first block
 *    writes y with bias and residual, the others add to it, the last one applies ReLU.
 *
 * The blocks depend on the shape of the convolution alone, and each output adds up its products in
 * the order of the inner dimension: the cut, and so the number of threads, changes no sum. */

enum { GFLI_COLS_PER_TASK = 512 };

size_t gfli_igemm_packed_size(const gfli_igemm *g) {
    return (size_t)g->groups * (size_t)gfli_ceil_div(g->group_out, GFLI_NR) * GFLI_NR *
           (size_t)g->n_segs * (size_t)g->seg_len * sizeof(float);
}

static gfli_igemm_layout gfli_igemm_plan(const gfli_igemm *g) {
    gfli_igemm_layout l;
    const size_t rows = GFLI_ROWS_PER_TASK, segs = (size_t)g->n_segs;
    l.zeros = gfli_round_64((size_t)gfli_max(g->groups * g->group_in, g->seg_len) * sizeof(float));
    l.rows = gfli_round_64(rows * segs * sizeof(const float *));
    l.offsets = gfli_round_64(rows * sizeof(ptrdiff_t));
    l.copies = rows * gfli_igemm_copy(g) * sizeof(float);
    l.slot = l.rows + l.offsets + l.copies;
    return l;
}

size_t gfli_igemm_scratch(const gfl_context *context, const gfli_igemm *g) {
    gfli_igemm_layout l = gfli_igemm_plan(g);
    return l.zeros + l.slot * (size_t)context->n_threads;
}

static int gfli_grid(int size, int first, int step) {
    return size > first ? gfli_ceil_div(size - first, step) : 0;
}

size_t gfli_igemm_rows(const gfli_igemm *g) {
    size_t rows = 0;
    for (int l = 0; l < g->y->levels; l++) {
        rows += (size_t)g->y->n * (size_t)gfli_grid(g->y->h[l], g->out_y, g->out_step) *
                (size_t)gfli_grid(g->y->w[l], g->out_x, g->out_step);
    }
    return rows;
}

static void gfli_row_level(const gfli_igemm *g, gfli_row *r) {
    r->grid_h = gfli_grid(g->y->h[r->level], g->out_y, g->out_step);
    r->grid_w = gfli_grid(g->y->w[r->level], g->out_x, g->out_step);
}

gfli_row gfli_row_at(const gfli_igemm *g, size_t index) {
    gfli_row r = {0, 0, 0, 0, 0, 0};
    for (;; r.level++) {
        gfli_row_level(g, &r);
        size_t rows = (size_t)g->y->n * (size_t)r.grid_h * (size_t)r.grid_w;
        if (index < rows) break;
        index -= rows;
    }
    size_t width = (size_t)r.grid_w, image = (size_t)r.grid_h * width;
    r.image = (int)(index / image);
    r.i = (int)(index % image / width);
    r.j = (int)(index % width);
    return r;
}

void gfli_row_skip(const gfli_igemm *g, gfli_row *r, int n) {
    r->j += n;
    if (r->j < r->grid_w) return;
    r->j = 0;
    if (++r->i < r->grid_h) return;
    r->i = 0;
    if (++r->image < g->y->n) return;
    r->image = 0;
    do {
        r->level++;
        gfli_row_level(g, r);
    } while (r->grid_h * r->grid_w == 0);
}

/* The run of x that begins at column ix of one line, zeros where it leaves the line. */
static void gfli_copy_run(const float *line, int ix, int taps, int width, int c, float *out) {
    for (int t = 0; t < taps; t++, out += c) {
        if (ix + t >= 0 && ix + t < width) {
            memcpy(out, line + (ptrdiff_t)(ix + t) * c, (size_t)c * sizeof(float));
        } else {
            memset(out, 0, (size_t)c * sizeof(float));
        }
    }
}

/* Pointers of the runs of segment s for n rows of a line; at: which of GFLI_MR the first is. */
static void gfli_line_pointers(const gfli_igemm *g, const gfli_row *r, int s, int n,
                               const float *zeros, float *copy, const float **rows, int at) {
    const gfli_map *x = g->x;
    const int h = x->h[r->level], w = x->w[r->level], c = x->c, last = w - g->seg_taps;
    const int iy = r->i * g->in_step + g->seg_y[s];
    const size_t copy_step = gfli_igemm_copy(g);
    const bool inside = iy >= 0 && iy < h;
    const size_t y = ((size_t)r->image * (size_t)h + (size_t)(inside ? iy : 0)) * (size_t)w;
    const float *line = x->data + (gfli_points_before(x, r->level) + y) * (size_t)c;
    int ix = r->j * g->in_step + g->seg_x[s];
    for (int k = 0; k < n; k++, ix += g->in_step) {
        if (inside && ix >= 0 && ix <= last) {
            rows[at] = line + (ptrdiff_t)ix * c;
        } else if (!inside || ix + g->seg_taps <= 0 || ix >= w) {
            rows[at] = zeros;
        } else {
            float *out = copy + (size_t)k * copy_step + (ptrdiff_t)s * g->seg_len;
            gfli_copy_run(line, ix, g->seg_taps, w, c, out);
            rows[at] = out;
        }
        if (++at == GFLI_MR) {
            at = 0;
            rows += GFLI_MR * g->n_segs;
        }
    }
}

size_t gfli_igemm_copy(const gfli_igemm *g) {
    if (g->seg_taps <= 1) return 0;
    return gfli_round_64((size_t)(g->n_segs * g->seg_len) * sizeof(float)) / sizeof(float);
}

void gfli_igemm_gather(const gfli_igemm *g, size_t first, int n, const float *zeros,
                       const float **rows, ptrdiff_t *offsets, float *copies) {
    const gfli_map *y = g->y;
    gfli_row r = gfli_row_at(g, first);
    for (int k = 0, line; k < n; k += line) {
        line = gfli_min(n - k, r.grid_w - r.j);
        const float **block = rows + (ptrdiff_t)(k / GFLI_MR) * GFLI_MR * g->n_segs;
        for (int s = 0; s < g->n_segs; s++) {
            gfli_line_pointers(g, &r, s, line, zeros, copies + (size_t)k * gfli_igemm_copy(g),
                               block + s * GFLI_MR, k % GFLI_MR);
        }
        const int h = y->h[r.level], w = y->w[r.level];
        const int oy = g->out_y + r.i * g->out_step, ox = g->out_x + r.j * g->out_step;
        const size_t point = gfli_points_before(y, r.level) +
                             ((size_t)r.image * (size_t)h + (size_t)oy) * (size_t)w + (size_t)ox;
        for (int j = 0; j < line; j++) {
            offsets[k + j] = ((ptrdiff_t)point + j * g->out_step) * y->c;
        }
        if (k + line < n) gfli_row_skip(g, &r, line);
    }
    for (int k = n; k % GFLI_MR != 0; k++) { /* the last tile computes its last row again */
        const float **block = rows + (ptrdiff_t)(k / GFLI_MR) * GFLI_MR * g->n_segs + k % GFLI_MR;
        for (int s = 0; s < g->n_segs; s++) block[s * GFLI_MR] = block[s * GFLI_MR - 1];
        offsets[k] = offsets[k - 1];
    }
}

bool gfli_next_block(const gfli_igemm *g, int size, gfli_k_block *b) {
    if (g->seg_len > size) {
        const int len = gfli_ceil_div(g->seg_len, gfli_ceil_div(g->seg_len, size));
        b->first = b->seg < 0 ? 0 : b->first + b->len;
        if (b->seg < 0) b->seg = 0;
        if (b->first >= g->seg_len) {
            b->first = 0;
            b->seg++;
        }
        b->n_segs = 1;
        b->len = gfli_min(len, g->seg_len - b->first);
        return b->seg < g->n_segs;
    }
    const int blocks = gfli_ceil_div(g->n_segs * g->seg_len, size);
    const int segs = gfli_ceil_div(g->n_segs, blocks);
    b->seg = b->seg < 0 ? 0 : b->seg + b->n_segs;
    b->n_segs = gfli_min(segs, g->n_segs - b->seg);
    b->first = 0;
    b->len = g->seg_len;
    return b->seg < g->n_segs;
}

void gfli_igemm_block(const gfli_igemm_task *t, const gfli_k_block *k, int panel0, int panel1,
                      int n_rows, const float *const *rows, const ptrdiff_t *offsets, int origin) {
    const gfli_igemm *g = t->g;
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR);
    const size_t panel = (size_t)g->n_segs * (size_t)g->seg_len * GFLI_NR;
    gfli_tile tile;
    tile.n_segs = k->n_segs;
    tile.len = k->len;
    tile.panel = panel;
    tile.first = k->seg == 0 && k->first == 0;
    tile.relu = g->relu && k->seg + k->n_segs == g->n_segs && k->first + k->len == g->seg_len;
    for (int p = panel0, n; p < panel1; p += n) {
        const int group = p / group_panels, in_group = p % group_panels;
        n = gfli_min(gfli_min(t->kernels->tile_panels, panel1 - p), group_panels - in_group);
        const int col = group * g->group_out + in_group * GFLI_NR;
        tile.b = g->packing + (size_t)p * panel +
                 ((size_t)k->seg * (size_t)g->seg_len + (size_t)k->first) * GFLI_NR;
        tile.n = gfli_min(n * GFLI_NR, g->group_out - in_group * GFLI_NR);
        tile.row_offset = group * g->group_in + k->first - origin;
        tile.y = g->y->data + col;
        tile.residual = g->residual ? g->residual->data + col : NULL;
        tile.bias = g->bias ? g->bias + col : NULL;
        for (int r = 0; r < n_rows; r += GFLI_MR) {
            tile.rows = rows + (ptrdiff_t)r * g->n_segs + (ptrdiff_t)k->seg * GFLI_MR;
            tile.out = offsets + r;
            tile.m = gfli_min(GFLI_MR, n_rows - r);
            t->kernels->tile(&tile);
        }
    }
}

gfli_part gfli_igemm_part(const gfli_igemm_task *t, int task) {
    gfli_part part;
    part.first = (size_t)(task % t->row_tasks) * (size_t)t->rows_per_task;
    part.panel0 = task / t->row_tasks * t->panels_per_task;
    part.panel1 = gfli_min(part.panel0 + t->panels_per_task, t->n_panels);
    const size_t left = t->n_rows - part.first;
    part.n = left < (size_t)t->rows_per_task ? (int)left : t->rows_per_task;
    return part;
}

static void gfli_igemm_do(void *arg, int task, int slot) {
    const gfli_igemm_task *t = (const gfli_igemm_task *)arg;
    char *memory = t->room + (size_t)slot * t->layout.slot;
    const float **rows = (const float **)(void *)memory;
    ptrdiff_t *offsets = (ptrdiff_t *)(void *)(memory + t->layout.rows);
    float *copies = (float *)(void *)(memory + t->layout.rows + t->layout.offsets);
    const gfli_part part = gfli_igemm_part(t, task);
    gfli_igemm_gather(t->g, part.first, part.n, t->zeros, rows, offsets, copies);
    gfli_k_block k = {-1, 0, 0, 0};
    while (gfli_next_block(t->g, GFLI_K_BLOCK, &k)) {
        gfli_igemm_block(t, &k, part.panel0, part.panel1, part.n, rows, offsets, 0);
    }
}

/* How the result is cut into tasks; nothing in it changes a sum. */
static void gfli_igemm_cut(const gfl_context *context, gfli_igemm_task *t) {
    const gfli_igemm *g = t->g;
    t->n_rows = gfli_igemm_rows(g);
    t->n_panels = g->groups * gfli_ceil_div(g->group_out, GFLI_NR);
    t->row_tasks = (int)((t->n_rows + GFLI_ROWS_PER_TASK - 1) / GFLI_ROWS_PER_TASK);
    const size_t even =
        t->row_tasks ? (t->n_rows + (size_t)t->row_tasks - 1) / (size_t)t->row_tasks : 0;
    t->rows_per_task = gfli_ceil_div((int)even, GFLI_MR) * GFLI_MR;
    if (t->rows_per_task) {
        t->row_tasks = (int)((t->n_rows + (size_t)t->rows_per_task - 1) / (size_t)t->rows_per_task);
    }
    int cols = gfli_ceil_div(t->n_panels * GFLI_NR, GFLI_COLS_PER_TASK);
    const int want = context->n_threads > 1 ? 4 * context->n_threads : 1;
    while (cols * t->row_tasks < want && t->n_panels / (cols + 1) >= 4) cols++;
    t->panels_per_task = gfli_ceil_div(gfli_ceil_div(t->n_panels, cols), 4) * 4;
    t->col_tasks = gfli_ceil_div(t->n_panels, t->panels_per_task);
}

void gfli_igemm_prepare(const gfl_context *context, const gfli_igemm *g, gfli_igemm_task *t) {
    memset(t, 0, sizeof *t);
    t->g = g;
    t->layout = gfli_igemm_plan(g);
    t->kernels = gfli_kernels_of(context);
    gfli_igemm_cut(context, t);
}

void gfli_igemm_run(gfl_context *context, const gfli_igemm *g, void *scratch) {
    gfli_igemm_task t;
    gfli_igemm_prepare(context, g, &t);
    t.zeros = (float *)scratch;
    t.room = (char *)scratch + t.layout.zeros;
    memset(t.zeros, 0, t.layout.zeros);
    gfli_parallel_for(context, t.row_tasks * t.col_tasks, gfli_igemm_do, &t);
}
