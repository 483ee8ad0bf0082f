/* group.c - a context among its ranks: joining, operations, waiting with a limit */
#pragma once

enum { GFLI_MAX_RANKS = 65536, GFLI_RANKS_LIMIT = 300 };

static gfl_status gfli_alone_open(gfl_context *context, const gfl_ranks *ranks, void **state) {
    (void)context;
    (void)ranks;
    (void)state;
    return GFL_OK;
}

static void gfli_alone_close(gfl_context *context, void *state, int broken) {
    (void)context;
    (void)state;
    (void)broken;
}

static gfl_status gfli_alone_sum(gfl_context *context, void *state, void *x, size_t n,
                                 gfl_sum_type type) {
    (void)context;
    (void)state;
    (void)x;
    (void)n;
    (void)type;
    return GFL_OK;
}

static gfl_status gfli_alone_broadcast(gfl_context *context, void *state, void *x, size_t bytes,
                                       int root) {
    (void)context;
    (void)state;
    (void)x;
    (void)bytes;
    (void)root;
    return GFL_OK;
}

const gfl_group gfli_alone = {
    GFL_ABI, "alone", gfli_alone_open, gfli_alone_close, gfli_alone_sum, gfli_alone_broadcast, NULL,
};

/* ---- joining --------------------------------------------------------------------------------- */

static gfl_status gfli_ranks_check(gfl_context *context, const gfl_ranks *r) {
    if (r->group->abi != GFL_ABI)
        return gfli_error(context, GFL_E_UNSUPPORTED,
                          "the group of ranks has GFL_ABI %d, the library %d; compile both with "
                          "headers of one version",
                          r->group->abi, GFL_ABI);
    if (r->n_ranks < 1 || r->n_ranks > GFLI_MAX_RANKS || r->rank < 0 || r->rank >= r->n_ranks)
        return gfli_error(context, GFL_E_ARG, "rank %d of %d; ranks count from 0, up to %d of them",
                          r->rank, r->n_ranks, GFLI_MAX_RANKS);
    if (r->group == &gfli_alone && r->n_ranks > 1)
        return gfli_error(context, GFL_E_ARG, "there are %d ranks and no group that connects them",
                          r->n_ranks);
    if (!gfli_is_finite(r->limit))
        return gfli_error(context, GFL_E_ARG,
                          "the ranks' limit must be a finite number of seconds");
    return GFL_OK;
}

gfl_status gfli_group_open(gfl_context *context, const gfl_ranks *ranks) {
    gfl_ranks *r = &context->ranks;
    if (ranks) *r = *ranks;
    if (!r->group) {
        r->group = &gfli_alone;
        if (r->n_ranks == 0) r->n_ranks = 1;
    }
    if (r->limit == 0) r->limit = GFLI_RANKS_LIMIT;
    GFLI_TRY(gfli_ranks_check(context, r));
    GFLI_TRY(r->group->open(context, r, &context->group));
    r->opens = NULL;
    context->group_open = true;
    return GFL_OK;
}

void gfli_group_close(gfl_context *context) {
    if (!context->group_open) return;
    context->ranks.group->close(context, context->group, context->group_broken);
    context->group_open = false;
}

void gfl_context_get_ranks(const gfl_context *context, gfl_ranks *out) {
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (context) *out = context->ranks;
}

/* ---- operations ------------------------------------------------------------------------------ */

static gfl_status gfli_group_begin(gfl_context *context) {
    if (context->group_broken)
        return gfli_error(context, GFL_E_RANK,
                          "the ranks do not work together since one of their operations failed; "
                          "destroy the context, start all ranks again and resume");
    context->n_begun++;
    return GFL_OK;
}

static gfl_status gfli_group_check(gfl_context *context, gfl_status status) {
    if (status != GFL_OK) context->group_broken = true;
    return status;
}

gfl_status gfli_group_sum(gfl_context *context, void *x, size_t n, gfl_sum_type type) {
    GFLI_TRY(gfli_group_begin(context));
    return gfli_group_check(context,
                            context->ranks.group->sum(context, context->group, x, n, type));
}

gfl_status gfli_group_broadcast(gfl_context *context, void *x, size_t bytes) {
    GFLI_TRY(gfli_group_begin(context));
    return gfli_group_check(context,
                            context->ranks.group->broadcast(context, context->group, x, bytes, 0));
}

gfl_status gfli_group_settle(gfl_context *context, const char *what) {
    const gfl_ranks *r = &context->ranks;
    const double start = gfli_seconds();
    int64_t settled = context->n_begun;
    for (;;) {
        if (r->group->advance)
            GFLI_TRY(
                gfli_group_check(context, r->group->advance(context, context->group, &settled)));
        if (settled >= context->n_begun) return GFL_OK;
        if (r->limit > 0 && gfli_seconds() - start > r->limit) break;
        gfli_os_sleep(0.0002);
    }
    context->group_broken = true;
    return gfli_error(context, GFL_E_RANK,
                      "rank %d of %d has waited %g s for the other ranks, in operation %lld of the "
                      "group %s (%s): one of them has ended or hangs; look at their messages, "
                      "start all again and resume",
                      r->rank, r->n_ranks, r->limit, (long long)settled + 1, r->group->name, what);
}

gfl_status gfli_group_blame(gfl_context *context, double failed, double failed_rank,
                            const char *what) {
    if (failed > 1)
        return gfli_error(context, GFL_E_RANK, "%s: %.0f ranks failed; their messages say why",
                          what, failed);
    return gfli_error(context, GFL_E_RANK, "%s: rank %.0f failed; its message says why", what,
                      failed_rank);
}
