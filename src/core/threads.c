/* threads.c - the pool of threads, and parallel loops over it */
#pragma once

/* The pool: the caller's thread works too, so n_threads - 1 are started.  A worker sleeps until
 * the generation changes; it spins a little before, since a network's steps follow each other
 * within microseconds. */
struct gfli_pool {
    gfli_mutex mutex;
    gfli_condition wake, done;
    gfli_thread threads[GFLI_MAX_THREADS];
    int n_threads; /* started */
    gfl_task run;
    void *arg;
    int n, next, busy;
    unsigned generation;
    bool stop;
};

enum { GFLI_SPIN = 2000 };

static void gfli_spin_until_changed(const unsigned *value, unsigned old) {
    for (int i = 0; i < GFLI_SPIN && __atomic_load_n(value, __ATOMIC_ACQUIRE) == old; i++) {
#if defined(__x86_64__)
        _mm_pause();
#endif
    }
}

static void gfli_pool_worker(void *p) {
    gfli_pool *pool = (gfli_pool *)p;
    unsigned seen = 0;
    for (;;) {
        gfli_spin_until_changed(&pool->generation, seen);
        gfli_mutex_lock(&pool->mutex);
        while (pool->generation == seen && !pool->stop)
            gfli_condition_wait(&pool->wake, &pool->mutex);
        seen = pool->generation;
        if (pool->stop) break;
        while (pool->next < pool->n) {
            int i = pool->next++;
            gfli_mutex_unlock(&pool->mutex);
            pool->run(pool->arg, i);
            gfli_mutex_lock(&pool->mutex);
            if (--pool->busy == 0) gfli_condition_signal(&pool->done);
        }
        gfli_mutex_unlock(&pool->mutex);
    }
    gfli_mutex_unlock(&pool->mutex);
}

void gfli_pool_run(void *user, int n, gfl_task task, void *arg) {
    gfli_pool *pool = (gfli_pool *)user;
    gfli_mutex_lock(&pool->mutex);
    pool->run = task;
    pool->arg = arg;
    pool->n = pool->busy = n;
    pool->next = 0;
    __atomic_store_n(&pool->generation, pool->generation + 1, __ATOMIC_RELEASE);
    gfli_condition_broadcast(&pool->wake);
    while (pool->next < pool->n) {
        int i = pool->next++;
        gfli_mutex_unlock(&pool->mutex);
        task(arg, i);
        gfli_mutex_lock(&pool->mutex);
        pool->busy--;
    }
    while (pool->busy > 0) gfli_condition_wait(&pool->done, &pool->mutex);
    gfli_mutex_unlock(&pool->mutex);
}

void gfli_pool_destroy(gfl_context *context, gfli_pool *pool) {
    if (!pool) return;
    gfli_mutex_lock(&pool->mutex);
    pool->stop = true;
    gfli_condition_broadcast(&pool->wake);
    gfli_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_threads; i++) gfli_thread_join(&pool->threads[i]);
    gfli_condition_destroy(&pool->done);
    gfli_condition_destroy(&pool->wake);
    gfli_mutex_destroy(&pool->mutex);
    gfli_free(context, pool);
}

gfl_status gfli_pool_create(gfl_context *context, int n_threads, gfli_pool **out) {
    gfli_pool *pool;
    *out = NULL;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *pool, "the thread pool", &pool));
    gfli_mutex_init(&pool->mutex);
    gfli_condition_init(&pool->wake);
    gfli_condition_init(&pool->done);
    for (int i = 0; i < n_threads; i++) {
        gfl_status status = gfli_thread_start(context, &pool->threads[i], gfli_pool_worker, pool);
        if (status != GFL_OK) {
            gfli_pool_destroy(context, pool);
            return status;
        }
        pool->n_threads++;
    }
    *out = pool;
    return GFL_OK;
}

/* The library's own scheduling on top of "run n things": n workers that take tasks by number. */
typedef struct gfli_loop {
    gfli_slot_task fn;
    void *arg;
    int n_tasks, next;
} gfli_loop;

static void gfli_loop_worker(void *p, int slot) {
    gfli_loop *loop = (gfli_loop *)p;
    int task;
    while ((task = __atomic_fetch_add(&loop->next, 1, __ATOMIC_RELAXED)) < loop->n_tasks)
        loop->fn(loop->arg, task, slot);
}

void gfli_parallel_for(gfl_context *context, int n_tasks, gfli_slot_task fn, void *arg) {
    gfli_loop loop = {fn, arg, n_tasks, 0};
    int workers = gfli_min(context->n_threads, n_tasks);
    if (workers <= 1) {
        gfli_loop_worker(&loop, 0);
        return;
    }
    context->parallel.run(context->parallel.user, workers, gfli_loop_worker, &loop);
}
