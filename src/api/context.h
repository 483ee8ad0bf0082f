/* context.h - gfl_context: allocator, logger, threads and the error text */
#pragma once

/* Memory, threads, logger, error text and device of all objects that are made with it. */
typedef struct gfl_context gfl_context;

/* All memory of the objects made with a context comes from here.  Set both functions or neither. */
typedef struct gfl_allocator {
    /* Returns memory of size > 0 bytes, aligned to 16 bytes at least, or NULL, which becomes
     * GFL_E_MEMORY.  Any thread of the context may call it. */
    void *(*alloc)(void *user, size_t size);
    /* Takes back p, which comes from alloc and is not NULL.  Any thread may call it, too. */
    void (*free)(void *user, void *p);
    void *user; /* handed to both */
} gfl_allocator;

/* How much a message matters. */
typedef enum gfl_log_level {
    GFL_LOG_DEBUG = 0,   /* for whoever works on the library */
    GFL_LOG_INFO = 1,    /* what is being done */
    GFL_LOG_WARNING = 2, /* something is probably not as it was meant */
    GFL_LOG_ERROR = 3    /* something has failed and no status can say so */
} gfl_log_level;

/* Where messages go.  Without a logger there are none.  Loader threads may call it, too. */
typedef struct gfl_logger {
    void (*log)(void *user, gfl_log_level level, const char *message); /* one line, no newline */
    void *user;                                                        /* handed to log */
} gfl_logger;

/* One piece of a parallel loop. */
typedef void (*gfl_task)(void *arg, int index);

/* A host's own threads. */
typedef struct gfl_parallel {
    /* Runs task(arg, i) for every i in 0..n-1, in any order and on any threads, and returns when
     * all are done.  It is called by the thread that called the library. */
    void (*run)(void *user, int n, gfl_task task, void *arg);
    void *user; /* handed to run */
} gfl_parallel;

/* What computes.  A backend other than the CPU comes from a function of the file that implements
 * it, so that gfl.h alone needs no GPU library. */
typedef struct gfl_backend gfl_backend;

/* gfl_cuda - NVIDIA GPUs of compute capability 8.0 and later.
 *
 * It is defined in gfl_cuda.cu.  It detects only: models on a GPU cannot be trained. */
extern const gfl_backend *gfl_cuda(void); /* in a file of its own, so GFL_API is not for it */

/* What feature maps and products are computed in.  Sums, norms and decoding are always float32. */
typedef enum gfl_precision {
    /* Without TF32; the only one that the CPU has.  A GPU computes it without its tensor cores,
     * which the other three use. */
    GFL_PRECISION_FP32 = 0,
    /* Maps are float32, and products have 10 bits of mantissa.  It takes the memory of FP32; by
     * NVIDIA's figures, tensor cores multiply it at half the rate of BF16. */
    GFL_PRECISION_TF32 = 1,
    /* Maps and weights are bfloat16, which has 8 bits of mantissa.  The
     * command's default on GPUs. */
    GFL_PRECISION_BF16 = 2,
    /* Maps and weights are half floats: as large as bfloat16 and more exact, but nothing may be
     * above 65504, which an activation of foreign weights can be. */
    GFL_PRECISION_FP16 = 3
} gfl_precision;

/* How to open a context.  Zero means the default of each field. */
typedef struct gfl_context_desc {
    const gfl_backend *backend; /* NULL: the CPU; or gfl_cuda() */
    int device_index;           /* which of several GPUs, from 0; 0 on the CPU */
    gfl_precision precision;    /* of convolutions and maps */
    /* The kernels that compute convolutions, by the name that gfl_plan_step.kernel has for them;
     * NULL: the fastest.  On the CPU it names the instruction set of all kernels, one of those that
     * gfl_cpu_get_kernel lists.  On a GPU the kernel is used wherever it applies; "mma" means all
     * kernels except those that only Hopper has (wgmma). */
    const char *kernel;
    /* 1: on a GPU, except in fp32, time the kernels that apply when a plan first meets a
     * convolution, instead of estimating.  Each context does so anew, and two contexts may then
     * differ in rounding.  The CPU ignores it. */
    int tune;
    /* On a GPU: the cudaStream_t that all work is queued in; owned by you, and must outlive the
     * context.  NULL: a stream of the context's own. */
    void *stream;
    /* Where a failing gfl_context_create leaves its text, as there is no context then; or NULL. */
    char *error;
    size_t error_size;       /* size of error in bytes */
    int n_threads;           /* 0: as many as the affinity mask and the cgroup allow; at most 256 */
    gfl_allocator allocator; /* zero: malloc and free */
    gfl_logger logger;       /* zero: silence */
    gfl_parallel parallel;   /* zero: the context's own pool of n_threads - 1 threads */
    /* The most bytes that decoding one image file may take: the file, what is needed on the way,
     * and the pixels.  A picture that declares more is refused with GFL_E_UNSUPPORTED.  0: 4 GB. */
    size_t image_memory;
    /* Train together with other contexts, each usually in a process of its own (gfl_ranks);
     * borrowed until the call returns.  NULL: alone. */
    const struct gfl_ranks *ranks;
} gfl_context_desc;

/* gfl_context_create_abi - gfl_context_create for callers that cannot include this header.
 *
 *   abi                the GFL_ABI of the declarations that the caller was written with
 *   desc               NULL or zeroed for the defaults; borrowed until the call returns
 *   error, error_size  where a failure leaves its text.  It is desc->error, handed over apart from
 *                      desc because a desc of another ABI is not read
 *   out                set to the context, which you own, or to NULL on error
 *
 * Errors    GFL_E_UNSUPPORTED  the library has another GFL_ABI;
 *           otherwise those of gfl_context_create
 * Memory, Threads   As gfl_context_create. */
GFL_API gfl_status gfl_context_create_abi(int abi, const gfl_context_desc *desc, char *error,
                                          size_t error_size, gfl_context **out);

/* gfl_context_create - open a context, with which everything else is made.
 *
 *   desc  NULL or zeroed for the defaults; borrowed until the call returns
 *   out   set to the context, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     the allocator has only one of its functions, the number of threads or of
 *                         ranks is impossible, or there is no such kernel
 *           GFL_E_MEMORY  the allocator returned NULL
 *           GFL_E_DEVICE  threads could not be started; or there is no driver, no such device, or
 *                         this build has no kernels for it
 *           GFL_E_UNSUPPORTED  the backend does not have the precision; or the library or the
 *                         backend has another GFL_ABI than the program
 *           or what the open function of the ranks' group returns.
 *           The text goes to desc->error, or to the logger where that is NULL.
 * Memory    Destroy it with gfl_context_destroy, after every object that was made with it.
 * Threads   Contexts are independent of each other.  One context, with the objects that were made
 *           with it, serves one thread at a time.  Where an object allows more, its comment says
 *           so.
 */
GFL_INLINE gfl_status gfl_context_create(const gfl_context_desc *desc, gfl_context **out) {
    return gfl_context_create_abi(GFL_ABI, desc, desc ? desc->error : NULL,
                                  desc ? desc->error_size : 0, out);
}

/* gfl_context_destroy - close a context; NULL is allowed. */
GFL_API void gfl_context_destroy(gfl_context *context);

/* Bytes that a call returns, in memory of a context. */
typedef struct gfl_bytes {
    uint8_t *data; /* [size]; free it with gfl_bytes_free */
    size_t size;   /* in bytes */
} gfl_bytes;

/* gfl_bytes_free - give the bytes back and zero the struct; a second call does no harm.
 *
 *   context  that of the object that returned the bytes
 *
 * Threads   As the context. */
GFL_API void gfl_bytes_free(gfl_context *context, gfl_bytes *bytes);

/* gfl_context_get_error - the text of the last error: what, where, and what to do.
 *
 * The text is never NULL.  It is "" before the first error, and valid until the next call with this
 * context.  For NULL it says that there is no context, which suits calls that were given no object
 * either. */
GFL_API const char *gfl_context_get_error(const gfl_context *context);

/* gfl_context_get_device - what computes: "CPU, AVX-512, 8 threads", "cuda:0, NVIDIA H100, ...".
 *
 * The text is valid as long as the context exists.  It is "" for NULL. */
GFL_API const char *gfl_context_get_device(const gfl_context *context);

/* gfl_context_count_threads - how many threads the context computes with. */
GFL_API int gfl_context_count_threads(const gfl_context *context);

/* gfl_cpu_get_kernel - the i-th instruction set that the CPU here can compute with, fastest first.
 *
 * It is "avx512", "avx2", "neon" or "portable", which is plain C and always the last one.  For any
 * other i it is NULL.  gfl_context_desc.kernel takes these names. */
GFL_API const char *gfl_cpu_get_kernel(int i);
