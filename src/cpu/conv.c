/* conv.c - convolution over NHWC pyramids, as a matrix product */
#pragma once

/* A run of fewer floats than this is not worth a loop of its own. */
enum { GFLI_SHORT_RUN = 16 };

void gfli_conv_igemm(const gfli_conv_shape *s, gfli_igemm *g) {
    const gfli_groups merged = gfli_merge_groups(s, GFLI_NR);
    memset(g, 0, sizeof *g);
    g->groups = merged.n;
    g->group_in = merged.in;
    g->group_out = merged.out;
    g->in_step = s->stride;
    g->out_step = 1;
    g->seg_taps = s->groups == 1 && s->in_c < GFLI_SHORT_RUN ? s->kernel : 1;
    g->seg_len = g->group_in * g->seg_taps;
    for (int ky = 0; ky < s->kernel; ky++) {
        for (int kx = 0; kx < s->kernel; kx += g->seg_taps) {
            g->seg_y[g->n_segs] = ky - s->pad;
            g->seg_x[g->n_segs++] = kx - s->pad;
        }
    }
}

static size_t gfli_conv_packed_size_cpu(const gfl_context *context, const gfli_conv_shape *s) {
    gfli_igemm g;
    (void)context;
    gfli_conv_igemm(s, &g);
    return gfli_igemm_packed_size(&g);
}

typedef struct gfli_pack_task {
    const gfli_conv_shape *s;
    gfli_igemm g;
    const float *weight, *scale;
    float *packing;
} gfli_pack_task;

static void gfli_conv_pack_panel(void *arg, int panel, int slot) {
    const gfli_pack_task *t = (const gfli_pack_task *)arg;
    const gfli_conv_shape *s = t->s;
    const int group_panels = gfli_ceil_div(t->g.group_out, GFLI_NR);
    const int in_group = panel % group_panels * GFLI_NR;
    const int width = gfli_min(GFLI_NR, t->g.group_out - in_group);
    const int first = panel / group_panels * t->g.group_out + in_group;
    const int c = s->in_c / s->groups, taps = s->kernel * s->kernel;
    const int merged_c = t->g.group_in, out_per_group = s->out_c / s->groups;
    const size_t size = (size_t)taps * (size_t)merged_c * GFLI_NR;
    float *packing = t->packing + (size_t)panel * size;
    (void)slot;
    if (width < GFLI_NR || merged_c != c) memset(packing, 0, size * sizeof(float));
    for (int k = 0; k < taps; k++) {
        for (int j = 0; j < width; j++) {
            const int o = first + j;
            const float scale = t->scale ? t->scale[o] : 1.0f;
            const int at = o / out_per_group * c % merged_c; /* of its channels in the merged */
            const float *w = t->weight + gfli_weight_at(taps, c, o, k, 0);
            float *out = packing + ((size_t)k * (size_t)merged_c + (size_t)at) * GFLI_NR + j;
            for (int i = 0; i < c; i++) out[(size_t)i * GFLI_NR] = scale * w[i];
        }
    }
}

static void gfli_conv_pack_cpu(gfl_context *context, const gfli_conv_shape *s, const float *weight,
                               const float *scale, void *packing) {
    gfli_pack_task t;
    t.s = s;
    gfli_conv_igemm(s, &t.g);
    t.weight = weight;
    t.scale = scale;
    t.packing = (float *)packing;
    gfli_parallel_for(context, t.g.groups * gfli_ceil_div(t.g.group_out, GFLI_NR),
                      gfli_conv_pack_panel, &t);
}

static size_t gfli_plain_conv_scratch(const gfl_context *context, const gfli_conv_shape *s) {
    gfli_igemm g;
    gfli_conv_igemm(s, &g);
    return gfli_igemm_scratch(context, &g);
}

static void gfli_plain_conv(gfl_context *context, const gfli_conv_call *call, void *scratch) {
    gfli_igemm g;
    gfli_conv_igemm(call->shape, &g);
    g.packing = (const float *)call->packing;
    g.bias = call->bias;
    g.x = call->x;
    g.y = call->y;
    g.residual = call->residual;
    g.relu = call->relu;
    gfli_igemm_run(context, &g, scratch);
}

/* ---- the operation --------------------------------------------------------------------------- */

static gfl_status gfli_conv_prepare_cpu(gfl_context *context, const gfli_conv_call *calls, int n,
                                        gfli_conv_means *out) {
    memset(out, 0, sizeof *out);
    out->kernel = gfli_kernels_of(context)->name;
    out->splits = 1;
    for (int i = 0; i < n; i++) {
        const size_t scratch = calls[i].offset ? gfli_deform_conv_scratch(context, calls[i].shape)
                                               : gfli_plain_conv_scratch(context, calls[i].shape);
        if (scratch > out->scratch) out->scratch = scratch;
    }
    return GFL_OK;
}

static void gfli_conv_cpu(gfl_context *context, const gfli_conv_call *calls, int n,
                          const gfli_conv_means *means, void *scratch) {
    (void)means;
    for (int i = 0; i < n; i++) {
        if (calls[i].offset)
            gfli_deform_conv(context, &calls[i], scratch);
        else
            gfli_plain_conv(context, &calls[i], scratch);
    }
}
