/* context.h - what the implementation sees of a context: errors, memory, parallel loops */
#pragma once

enum { GFLI_MAX_THREADS = 256 };

typedef struct gfli_pool gfli_pool;
typedef struct gfli_backbone gfli_backbone; /* model/backbone.h */

struct gfl_context {
    gfl_allocator allocator;
    gfl_logger logger;
    gfl_parallel parallel;
    gfli_pool *pool; /* NULL with one thread or the caller's own threads */
    int n_threads;
    const gfl_backend *backend;
    void *device; /* the backend's own */
    int device_index;
    gfl_precision precision;
    gfli_element element;  /* of the maps between a detector's layers */
    uint64_t image_memory; /* 0: the readers' own limit */
    char device_name[192];
    gfl_ranks ranks; /* defaults filled in: there is always a group */
    void *group;     /* its own */
    int64_t n_begun; /* operations of it */
    bool group_open, group_broken;
    const gfli_backbone *const *backbones; /* NULL: the library's */
    char error[1024];
};

/* Set the context's error text and return the status, so that a failure is one statement:
 * return gfli_error(ctx, GFL_E_FORMAT, "%s: ...", path).  ctx may be NULL. */
#define gfli_error GFLI_OF_THIS_VERSION(gfli_error_, GFL_VERSION)
gfl_status gfli_error(gfl_context *context, gfl_status status, const char *format, ...)
    GFLI_PRINTF(3, 4);

/* A context for another thread, of one thread: the same allocator, logger and limits. */
gfl_status gfli_context_child(gfl_context *context, gfl_context **out);

/* Put "where: " in front of the text of an error that is being passed on; returns status. */
gfl_status gfli_error_in(gfl_context *context, gfl_status status, const char *where);

void gfli_log(gfl_context *context, gfl_log_level level, const char *format, ...) GFLI_PRINTF(3, 4);

/* 64-byte aligned memory, not cleared; *out is NULL and the error text says how much on failure.
 * count * size may overflow: that is GFL_E_MEMORY too.  A size of 0 gives a valid pointer. */
gfl_status gfli_alloc(gfl_context *context, size_t count, size_t size, const char *what,
                      void *out_pointer);
gfl_status gfli_calloc(gfl_context *context, size_t count, size_t size, const char *what,
                       void *out_pointer);
/* Grow *pointer_to_pointer to hold `need` elements, doubling *capacity; contents are kept.  No
 * element needs a valid pointer too, here as in gfli_reserve. */
gfl_status gfli_grow(gfl_context *context, void *pointer_to_pointer, size_t *capacity, size_t need,
                     size_t size, const char *what);
/* Make *pointer_to_pointer hold exactly `need` elements or more; contents are lost. */
gfl_status gfli_reserve(gfl_context *context, void *pointer_to_pointer, size_t *capacity,
                        size_t need, size_t size, const char *what);
/* The same in the device's memory, and in memory of any kind. */
gfl_status gfli_reserve_device(gfl_context *context, void *pointer_to_pointer, size_t *capacity,
                               size_t need, size_t size, const char *what);
typedef gfl_status (*gfli_take_memory)(gfl_context *context, size_t count, size_t size,
                                       const char *what, void *out_pointer);
typedef void (*gfli_give_memory)(gfl_context *context, void *pointer);
gfl_status gfli_reserve_by(gfl_context *context, gfli_take_memory take, gfli_give_memory give,
                           void *pointer_to_pointer, size_t *capacity, size_t need, size_t size,
                           const char *what);
void gfli_free(gfl_context *context, void *pointer); /* NULL is allowed */
gfl_status gfli_strdup(gfl_context *context, const char *text, char **out);

/* fn(arg, task, slot) for every task in 0..n_tasks-1.  Tasks are handed out dynamically, so what a
 * task computes may depend on its number only; slot < n_threads is for scratch memory. */
typedef void (*gfli_slot_task)(void *arg, int task, int slot);
void gfli_parallel_for(gfl_context *context, int n_tasks, gfli_slot_task fn, void *arg);

/* The pool of a context that brings no threads of its own: n_threads of them, beside the caller's.
 * gfli_pool_run is a gfl_parallel's run, with the pool as its user. */
gfl_status gfli_pool_create(gfl_context *context, int n_threads, gfli_pool **out);
void gfli_pool_run(void *user, int n, gfl_task task, void *arg);
void gfli_pool_destroy(gfl_context *context, gfli_pool *pool); /* NULL is allowed */
