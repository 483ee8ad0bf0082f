/* group.h - ranks: several contexts, each usually in a process of its own, that train one model */
#pragma once

/* The type of the numbers of a sum. */
typedef enum gfl_sum_type { GFL_SUM_F32 = 0, GFL_SUM_F64 = 1 } gfl_sum_type;

struct gfl_ranks;

/* How ranks add up numbers: a table of functions over MPI, or over anything else that connects
 * them.
 *
 * All ranks begin the same operations in the same order, with the same n, type, bytes and root, so
 * that a group may match them by their order alone.  It must guarantee that
 *
 *   - all ranks get the same bits from a sum, and the same inputs give the same bits again;
 *   - operations settle in the order in which they were begun;
 *   - sum, broadcast and advance do not wait for other ranks, unless advance is NULL.
 *
 * A function that fails leaves its text with gfl_context_fail and returns the status.  The ranks
 * then cannot work together any more, and only close is called.  The functions are called by one
 * thread at a time, inside a call of the library with this context.  x is memory that the context
 * computes in; for a context on the CPU it is the host's. */
typedef struct gfl_group {
    int abi;          /* GFL_ABI */
    const char *name; /* what messages call it */
    /* Joins the other ranks, and may wait for them.  *state is handed to the other functions.  When
     * it fails, close is not called. */
    gfl_status (*open)(gfl_context *context, const struct gfl_ranks *ranks, void **state);
    /* Leaves the other ranks.  broken: an operation has failed or was not answered; do not wait for
     * other ranks then, and do not touch x of unsettled operations, which may be freed already. */
    void (*close)(gfl_context *context, void *state, int broken);
    /* Begins to set x[i] to the sum of all ranks' x[i], in place.  x belongs to the group until the
     * operation is settled, or until a function has failed or the limit is over: a group that moves
     * numbers by itself must not touch x after that. */
    gfl_status (*sum)(gfl_context *context, void *state, void *x, size_t n, gfl_sum_type type);
    /* Begins to overwrite x with the bytes of rank root; likewise. */
    gfl_status (*broadcast)(gfl_context *context, void *state, void *x, size_t bytes, int root);
    /* Moves on, and sets *settled to the number of operations that are done, counted since open.
     * NULL: an operation is done when sum or broadcast returns, and no limit can be kept. */
    gfl_status (*advance)(gfl_context *context, void *state, int64_t *settled);
} gfl_group;

/* Which rank a context is (gfl_context_desc.ranks).  Zero means that it is alone. */
typedef struct gfl_ranks {
    const gfl_group *group; /* must outlive the context; NULL: alone */
    int rank, n_ranks;      /* 0..n_ranks-1; how many there are, at most 65536 */
    const void *opens;      /* what the group's open needs; borrowed until the context is created */
    /* Seconds that a rank, once it needs what the others have begun, waits for them before it fails
     * with GFL_E_RANK.  It must be more than the longest work that one rank does alone between two
     * steps, such as a save or an evaluation.  0 means 300; negative: it waits for ever. */
    double limit;
} gfl_ranks;

/* gfl_context_get_ranks - which rank a context is.
 *
 *   out  set to the rank, with defaults filled in, so that n_ranks is 1 for a context that is
 *        alone; opens is NULL.  Zeros when context is NULL */
GFL_API void gfl_context_get_ranks(const gfl_context *context, gfl_ranks *out);

/* gfl_context_fail - set a context's error text, for functions of yours that the library calls.
 *
 *   text  what has failed, where, and what to do; copied.  NULL: the text stays as it is
 *
 * Errors    It returns the status that it is given, so that a failure is one statement:
 *     return gfl_context_fail(context, GFL_E_RANK, "rank 2 has closed its socket"); */
GFL_API gfl_status gfl_context_fail(gfl_context *context, gfl_status status, const char *text);
