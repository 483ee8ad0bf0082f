/* os.c - the operating system: threads, clock, CPU features */
#pragma once

double gfli_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool gfli_has_avx2(const gfl_context *context) {
#if defined(__x86_64__) && defined(__GNUC__)
    return !(context && context->portable) && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma");
#else
    (void)context;
    return false;
#endif
}

bool gfli_has_avx512(const gfl_context *context) {
#if defined(__x86_64__) && defined(__GNUC__)
    return gfli_has_avx2(context) && !(context && context->no_avx512) &&
           __builtin_cpu_supports("avx512f");
#else
    (void)context;
    return false;
#endif
}

/* CPUs of the affinity mask, as Linux prints it in hexadecimal; 0 when it does not. */
static int gfli_affinity_cpus(void) {
    FILE *f = fopen("/proc/self/status", "r");
    if (!f) return 0;
    char line[4096];
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "Cpus_allowed:", 13) != 0) continue;
        for (const char *p = line + 13; *p; p++) {
            int digit = *p >= '0' && *p <= '9'   ? *p - '0'
                        : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
                                                 : 0;
            for (; digit; digit &= digit - 1) n++;
        }
        break;
    }
    fclose(f);
    return n;
}

/* CPUs' worth of time that the control group grants, rounded up; 0 when it sets no limit. */
static int gfli_cgroup_cpus(void) {
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!f) return 0;
    long quota = 0, period = 0;
    int fields = fscanf(f, "%ld %ld", &quota, &period);
    fclose(f);
    if (fields != 2 || quota <= 0 || period <= 0) return 0;
    return (int)((quota + period - 1) / period);
}

static int gfli_available_cpus(void) {
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int n = online > 0 ? (int)online : 1, affinity = gfli_affinity_cpus();
    int group = gfli_cgroup_cpus();
    if (affinity > 0) n = gfli_min(n, affinity);
    if (group > 0) n = gfli_min(n, group);
    return gfli_min(n, GFLI_MAX_THREADS);
}

gfl_status gfli_thread_start(gfl_context *context, gfli_thread *thread, void *(*fn)(void *),
                             void *arg) {
    int e = pthread_create(&thread->handle, NULL, fn, arg);
    thread->running = e == 0;
    if (e)
        return gfli_error(context, GFL_E_DEVICE, "a thread could not be started: %s", strerror(e));
    return GFL_OK;
}

void gfli_thread_join(gfli_thread *thread) {
    if (thread->running) pthread_join(thread->handle, NULL);
    thread->running = false;
}

/* The pool: the caller's thread works too, so n_threads - 1 are started.  A worker sleeps until
 * the generation changes; it spins a little before, since a network's steps follow each other
 * within microseconds. */
struct gfli_pool {
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
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

static void *gfli_pool_worker(void *p) {
    gfli_pool *pool = (gfli_pool *)p;
    unsigned seen = 0;
    for (;;) {
        gfli_spin_until_changed(&pool->generation, seen);
        pthread_mutex_lock(&pool->mutex);
        while (pool->generation == seen && !pool->stop)
            pthread_cond_wait(&pool->wake, &pool->mutex);
        seen = pool->generation;
        if (pool->stop) break;
        while (pool->next < pool->n) {
            int i = pool->next++;
            pthread_mutex_unlock(&pool->mutex);
            pool->run(pool->arg, i);
            pthread_mutex_lock(&pool->mutex);
            if (--pool->busy == 0) pthread_cond_signal(&pool->done);
        }
        pthread_mutex_unlock(&pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static void gfli_pool_run(void *user, int n, gfl_task task, void *arg) {
    gfli_pool *pool = (gfli_pool *)user;
    pthread_mutex_lock(&pool->mutex);
    pool->run = task;
    pool->arg = arg;
    pool->n = pool->busy = n;
    pool->next = 0;
    __atomic_store_n(&pool->generation, pool->generation + 1, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&pool->wake);
    while (pool->next < pool->n) {
        int i = pool->next++;
        pthread_mutex_unlock(&pool->mutex);
        task(arg, i);
        pthread_mutex_lock(&pool->mutex);
        pool->busy--;
    }
    while (pool->busy > 0) pthread_cond_wait(&pool->done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

static void gfli_pool_destroy(gfl_context *context, gfli_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    pool->stop = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_threads; i++) gfli_thread_join(&pool->threads[i]);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    gfli_free(context, pool);
}

static gfl_status gfli_pool_create(gfl_context *context, int n_threads, gfli_pool **out) {
    gfli_pool *pool;
    *out = NULL;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *pool, "the thread pool", &pool));
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
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
    gfli_task fn;
    void *arg;
    int n_tasks, next;
} gfli_loop;

static void gfli_loop_worker(void *p, int slot) {
    gfli_loop *loop = (gfli_loop *)p;
    int task;
    while ((task = __atomic_fetch_add(&loop->next, 1, __ATOMIC_RELAXED)) < loop->n_tasks)
        loop->fn(loop->arg, task, slot);
}

void gfli_parallel_for(gfl_context *context, int n_tasks, gfli_task fn, void *arg) {
    gfli_loop loop = {fn, arg, n_tasks, 0};
    int workers = gfli_min(context->n_threads, n_tasks);
    if (workers <= 1) {
        gfli_loop_worker(&loop, 0);
        return;
    }
    context->parallel.run(context->parallel.user, workers, gfli_loop_worker, &loop);
}
