/* group_threads.h - ranks that are threads of one process: what a sum is, and what can go wrong
 *
 * Each rank has a context on a thread of its own.  Who comes last to an operation does it, in the
 * order of the ranks, and all get the result when they next look.  It is written for tests: a group
 * must not copy what it adds up, and need not check what the library promises. */
#ifndef GROUP_THREADS_H
#define GROUP_THREADS_H

#include "test.h"

#include <pthread.h>
#include <time.h>

enum { HUB_RANKS = 4, HUB_OPERATIONS = 64 };

typedef struct hub_operation {
    long number; /* -1: unused */
    int kind;    /* a gfl_sum_type, or 2 + the root of a broadcast */
    size_t bytes;
    unsigned char *given[HUB_RANKS], *result;
    int arrived, taken;
} hub_operation;

/* What connects the ranks.  Zero, then the fields at the end as wanted, then hub_open. */
typedef struct hub {
    pthread_mutex_t mutex;
    pthread_cond_t done;
    hub_operation operations[HUB_OPERATIONS];
    char fault[200]; /* two ranks have not done the same */
    int closed, broken;
    long n_done; /* operations */
    int n_ranks;
    int delay;   /* the longest time in microseconds that a rank dawdles before an operation */
    int late;    /* an operation that is done shows so many looks later */
    long poison; /* the operation, from 1, that rank 1 has NaN for */
} hub;

typedef struct hub_member {
    hub *h;
    int rank, patience;
    long begun, settled;
    void *x[HUB_OPERATIONS];
    gfli_rng rng;
} hub_member;

static inline void hub_open(hub *h) {
    pthread_mutex_init(&h->mutex, NULL);
    pthread_cond_init(&h->done, NULL);
    for (int i = 0; i < HUB_OPERATIONS; i++) h->operations[i].number = -1;
}

static inline void hub_retire(hub *h, hub_operation *op) {
    for (int r = 0; r < h->n_ranks; r++) free(op->given[r]);
    free(op->result);
    memset(op, 0, sizeof *op);
    op->number = -1;
}

static inline void hub_close(hub *h) {
    for (int i = 0; i < HUB_OPERATIONS; i++) hub_retire(h, &h->operations[i]);
    pthread_cond_destroy(&h->done);
    pthread_mutex_destroy(&h->mutex);
}

static gfl_status hub_join(gfl_context *context, const gfl_ranks *ranks, void **state) {
    hub *h = (hub *)(uintptr_t)ranks->opens;
    hub_member *m;
    if (h->n_ranks != ranks->n_ranks || h->n_ranks > HUB_RANKS)
        return gfl_context_fail(context, GFL_E_ARG, "the hub has another number of ranks");
    m = (hub_member *)calloc(1, sizeof *m);
    m->h = h;
    m->rank = ranks->rank;
    m->rng = gfli_rng_make(5, (uint64_t)m->rank, 0, 0);
    *state = m;
    return GFL_OK;
}

static void hub_leave(gfl_context *context, void *state, int broken) {
    hub_member *m = (hub_member *)state;
    (void)context;
    pthread_mutex_lock(&m->h->mutex);
    m->h->closed++;
    m->h->broken += broken;
    pthread_mutex_unlock(&m->h->mutex);
    free(m);
}

static void hub_add(hub_operation *op, int n_ranks) {
    memcpy(op->result, op->given[op->kind >= 2 ? op->kind - 2 : 0], op->bytes);
    for (int r = 1; r < n_ranks && op->kind < 2; r++)
        for (size_t i = 0; i < op->bytes / (op->kind == GFL_SUM_F32 ? 4 : 8); i++) {
            if (op->kind == GFL_SUM_F32)
                ((float *)(void *)op->result)[i] += ((const float *)(const void *)op->given[r])[i];
            else
                ((double *)(void *)op->result)[i] +=
                    ((const double *)(const void *)op->given[r])[i];
        }
}

/* The memory of an operation that is under way holds nothing that anyone may use: NaN. */
static void hub_begin(hub_member *m, void *x, size_t bytes, int kind) {
    hub *h = m->h;
    struct timespec pause = {0, 0};
    if (h->delay > 0) pause.tv_nsec = 1000L * gfli_rng_below(&m->rng, h->delay);
    if (h->delay > 0) nanosleep(&pause, NULL);
    pthread_mutex_lock(&h->mutex);
    hub_operation *op = &h->operations[m->begun % HUB_OPERATIONS];
    if (op->number < 0) {
        op->number = m->begun;
        op->kind = kind;
        op->bytes = bytes;
        op->result = (unsigned char *)malloc(bytes + 1);
    }
    if (op->number != m->begun || op->kind != kind || op->bytes != bytes)
        snprintf(h->fault, sizeof h->fault,
                 "operation %ld of rank %d is %d over %zu bytes, that of another rank %ld, %d over "
                 "%zu",
                 m->begun, m->rank, kind, bytes, op->number, op->kind, op->bytes);
    if (m->begun + 1 == h->poison && m->rank == 1) memset(x, 0xff, bytes);
    op->given[m->rank] = (unsigned char *)malloc(bytes + 1);
    memcpy(op->given[m->rank], x, bytes);
    memset(x, 0xff, bytes);
    m->x[m->begun++ % HUB_OPERATIONS] = x;
    if (++op->arrived == h->n_ranks && !h->fault[0]) hub_add(op, h->n_ranks);
    if (op->arrived == h->n_ranks) {
        h->n_done++;
        pthread_cond_broadcast(&h->done);
    }
    pthread_mutex_unlock(&h->mutex);
}

/* What is done of this rank's operations, in order; with the mutex held. */
static void hub_take(hub_member *m) {
    hub *h = m->h;
    while (m->settled < m->begun && !h->fault[0]) {
        hub_operation *op = &h->operations[m->settled % HUB_OPERATIONS];
        if (op->arrived < h->n_ranks) break;
        if (h->late > 0 && m->patience++ % (h->late + 1) < h->late) break;
        memcpy(m->x[m->settled++ % HUB_OPERATIONS], op->result, op->bytes);
        if (++op->taken == h->n_ranks) hub_retire(h, op);
    }
}

static gfl_status hub_sum(gfl_context *context, void *state, void *x, size_t n, gfl_sum_type type) {
    (void)context;
    hub_begin((hub_member *)state, x, n * (type == GFL_SUM_F32 ? 4 : 8), (int)type);
    return GFL_OK;
}

static gfl_status hub_broadcast(gfl_context *context, void *state, void *x, size_t bytes,
                                int root) {
    (void)context;
    hub_begin((hub_member *)state, x, bytes, 2 + root);
    return GFL_OK;
}

static gfl_status hub_fault(gfl_context *context, const hub *h) {
    return h->fault[0] ? gfl_context_fail(context, GFL_E_RANK, h->fault) : GFL_OK;
}

static gfl_status hub_advance(gfl_context *context, void *state, int64_t *settled) {
    hub_member *m = (hub_member *)state;
    pthread_mutex_lock(&m->h->mutex);
    hub_take(m);
    *settled = m->settled;
    const gfl_status status = hub_fault(context, m->h);
    pthread_mutex_unlock(&m->h->mutex);
    return status;
}

/* The simple kind of group, whose operations are done when they return. */
static gfl_status hub_wait(gfl_context *context, hub_member *m) {
    pthread_mutex_lock(&m->h->mutex);
    hub_take(m);
    while (m->settled < m->begun && !m->h->fault[0]) {
        pthread_cond_wait(&m->h->done, &m->h->mutex);
        hub_take(m);
    }
    const gfl_status status = hub_fault(context, m->h);
    pthread_mutex_unlock(&m->h->mutex);
    return status;
}

static gfl_status hub_sum_at_once(gfl_context *context, void *state, void *x, size_t n,
                                  gfl_sum_type type) {
    (void)hub_sum(context, state, x, n, type);
    return hub_wait(context, (hub_member *)state);
}

static gfl_status hub_broadcast_at_once(gfl_context *context, void *state, void *x, size_t bytes,
                                        int root) {
    (void)hub_broadcast(context, state, x, bytes, root);
    return hub_wait(context, (hub_member *)state);
}

static const gfl_group group_threads = {
    GFL_ABI, "threads", hub_join, hub_leave, hub_sum, hub_broadcast, hub_advance,
};
static const gfl_group group_threads_at_once = {
    GFL_ABI, "threads", hub_join, hub_leave, hub_sum_at_once, hub_broadcast_at_once, NULL,
};

#endif
