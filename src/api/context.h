/* context.h - gfl_context: allocator, logger, threads and the error text */
#pragma once

/* Memory, threads, logger, error text and device of all objects that are made with it. */
typedef struct gfl_context gfl_context;

/* All memory of the objects made with a context comes from here.  Set both functions or neither. */
typedef struct gfl_allocator {
    /* size > 0; at least 16-byte aligned, or NULL, which becomes GFL_E_MEMORY; any thread */
    void *(*alloc)(void *user, size_t size);
    /* p comes from alloc and is not NULL; any thread */
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

/* Where messages go; without a logger there are none.  It may be called from loader threads. */
typedef struct gfl_logger {
    void (*log)(void *user, gfl_log_level level, const char *message); /* one line, no newline */
    void *user;                                                        /* handed to log */
} gfl_logger;

/* One piece of a parallel loop. */
typedef void (*gfl_task)(void *arg, int index);

/* A host's own threads: run task(arg, i) for every i in 0..n-1, in any order, on any threads,
 * and return when all are done. */
typedef struct gfl_parallel {
    void (*run)(void *user, int n, gfl_task task, void *arg); /* any thread of the context's user */
    void *user;                                               /* handed to run */
} gfl_parallel;

/* What computes.  A backend other than the CPU is a function of the file that has it, so that
 * gfl.h alone needs no GPU library. */
typedef struct gfl_backend gfl_backend;

/* gfl_cuda - NVIDIA GPUs of compute capability 8.0 and later; defined in gfl_cuda.cu.  Detection
 * only: models on a GPU cannot be trained. */
extern const gfl_backend *gfl_cuda(void); /* in a file of its own, so GFL_API is not for it */

/* What maps and products are computed in; sums, norms and decoding are float32 always. */
typedef enum gfl_precision {
    GFL_PRECISION_FP32 = 0, /* without TF32; the only one that the CPU has */
    GFL_PRECISION_TF32 = 1, /* maps are float32; products have 10 bits of mantissa */
    GFL_PRECISION_BF16 = 2, /* maps and weights are bfloat16 */
    /* Maps and weights are half floats: more exact than bfloat16, but nothing above 65504. */
    GFL_PRECISION_FP16 = 3
} gfl_precision;

/* Zero means the default everywhere. */
typedef struct gfl_context_desc {
    const gfl_backend *backend; /* NULL: the CPU; or gfl_cuda() */
    int device_index;           /* which of several GPUs; 0 on the CPU */
    gfl_precision precision;    /* of convolutions and maps */
    /* What computes convolutions, by the name that gfl_plan_step.kernel has for it; NULL: the
     * fastest.  On the CPU it names the instruction set of all kernels, one of those that
     * gfl_cpu_get_kernel lists.  On a GPU it is used wherever it can be; "mma" is all kernels but
     * Hopper's own (wgmma). */
    const char *kernel;
    int tune; /* 1: on a GPU, in every precision except fp32, time the kernels that can be used when
               * a plan first has a convolution (once per context; a second or two) instead of
               * estimating; two contexts may then differ in rounding */
    /* On a GPU: the cudaStream_t that all work is queued in; it is yours and must outlive the
     * context.  NULL: a stream of the context's own. */
    void *stream;
    char *error; /* where a failing gfl_context_create leaves its text, as there is no context then;
                  * or NULL */
    size_t error_size;       /* bytes that error has */
    int n_threads;           /* 0: as many as the affinity mask and the cgroup allow; at most 256 */
    gfl_allocator allocator; /* zero: malloc and free */
    gfl_logger logger;       /* zero: silence */
    gfl_parallel parallel;   /* zero: the context's own pool of n_threads - 1 threads */
    /* The most bytes that decoding one image file may take: the file, what is needed on the way and
     * the pixels.  A picture that declares more is GFL_E_UNSUPPORTED.  0: 4 GB. */
    size_t image_memory;
    /* Train together with other contexts, each usually in a process of its own (gfl_ranks);
     * borrowed until the call returns.  NULL: alone. */
    const struct gfl_ranks *ranks;
} gfl_context_desc;

/* gfl_context_create_abi - gfl_context_create for callers that cannot include this header.
 *
 *   abi                the GFL_ABI of the declarations that the caller was written with
 *   desc               NULL or zeroed for the defaults; borrowed until the call returns
 *   error, error_size  where a failure leaves its text: desc->error, handed over apart because a
 *                      desc of another ABI is not read
 *   out                yours; the context, or NULL on error
 *
 * Errors    GFL_E_UNSUPPORTED  the library has another GFL_ABI
 *           otherwise those of gfl_context_create
 * Memory, Threads   as gfl_context_create. */
GFL_API gfl_status gfl_context_create_abi(int abi, const gfl_context_desc *desc, char *error,
                                          size_t error_size, gfl_context **out);

/* gfl_context_create - open a context; everything else is made with one.
 *
 *   desc  NULL or zeroed for the defaults; borrowed until the call returns
 *   out   yours; the context, or NULL on error
 *
 * Errors    GFL_E_ARG     a half-filled allocator, an impossible number of threads or ranks, a
 *                         kernel that is not there
 *           GFL_E_MEMORY  the allocator said no
 *           GFL_E_DEVICE  threads could not be started; no driver, no such device, or one that
 *                         this build has no kernels for
 *           GFL_E_UNSUPPORTED  a precision that the backend does not have; a library or a backend
 *                         of another GFL_ABI than the program's
 *           or what the open function of the ranks' group returns
 *           The text goes to desc->error, or, where that is NULL, to the logger.
 * Memory    destroy it with gfl_context_destroy, after every object made with it.
 * Threads   contexts are independent of each other.  One context, and the objects made with it,
 *           serve one thread at a time; where an object allows more, its comment says so.
 */
GFL_INLINE gfl_status gfl_context_create(const gfl_context_desc *desc, gfl_context **out) {
    return gfl_context_create_abi(GFL_ABI, desc, desc ? desc->error : NULL,
                                  desc ? desc->error_size : 0, out);
}

/* gfl_context_destroy - close a context; NULL is allowed. */
GFL_API void gfl_context_destroy(gfl_context *context);

/* Bytes that a call gives, in memory of a context. */
typedef struct gfl_bytes {
    uint8_t *data; /* [size]; free with gfl_bytes_free */
    size_t size;   /* in bytes */
} gfl_bytes;

/* gfl_bytes_free - give the bytes back and zero the struct; a second call does no harm.
 *
 *   context  the one of the object that gave the bytes
 *
 * Threads   as the context. */
GFL_API void gfl_bytes_free(gfl_context *context, gfl_bytes *bytes);

/* gfl_context_get_error - the text of the last error: what, where, and what to do.
 *
 * It is never NULL, "" before the first error, and valid until the next call with this context.
 * For NULL it says that there is no context, which suits calls that were given no object either. */
GFL_API const char *gfl_context_get_error(const gfl_context *context);

/* gfl_context_get_device - what computes: "CPU, AVX-512, 8 threads", "cuda:0, NVIDIA H100, ...".
 *
 * The text is valid as long as the context; it is "" for NULL. */
GFL_API const char *gfl_context_get_device(const gfl_context *context);

/* gfl_context_count_threads - how many threads the context computes with. */
GFL_API int gfl_context_count_threads(const gfl_context *context);

/* gfl_cpu_get_kernel - the instruction sets that the CPU here can compute with, fastest first.
 *
 * "avx512", "avx2", "neon" or "portable", which is plain C and always the last one; NULL for any
 * other i.  gfl_context_desc.kernel takes these names. */
GFL_API const char *gfl_cpu_get_kernel(int i);
