/* group.h - sums over the ranks of a context */
#pragma once

/* The group of a context that is alone: every operation is done at once. */
extern const gfl_group gfli_alone;

/* Join the ranks of a description (NULL: alone), and leave them.  Close is for every context. */
gfl_status gfli_group_open(gfl_context *context, const gfl_ranks *ranks);
void gfli_group_close(gfl_context *context);

/* Begin an operation on memory that the context computes in; a broadcast comes from rank 0.  What
 * fails here or in settle makes every later operation fail. */
gfl_status gfli_group_sum(gfl_context *context, void *x, size_t n, gfl_sum_type type);
gfl_status gfli_group_broadcast(gfl_context *context, void *x, size_t bytes);

/* Wait until all operations that were begun are done: the one place that waits for other ranks.
 * what: the words for them in a message. */
gfl_status gfli_group_settle(gfl_context *context, const char *what);

/* What the other ranks say when `failed` of them, whose numbers add up to failed_rank, could not do
 * `what`: GFL_E_RANK and its text. */
gfl_status gfli_group_blame(gfl_context *context, double failed, double failed_rank,
                            const char *what);
