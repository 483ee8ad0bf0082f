/* Generated from src/gfl.h by "make amalgamate".  Edit src/, not this file. */
/* gfl.h - Generalized Focal Loss object detection: the API, and the detector on the CPU behind it.
 *
 * SPDX-License-Identifier: MIT
 *
 * DO THIS
 *
 *     #define GFL_IMPLEMENTATION      in ONE .c or .cpp file, before it includes gfl.h
 *     #include "gfl.h"                everywhere
 *
 *     cc -O3 app.c -lm -pthread              detects
 *     cc -O3 app.c gfl_train.c -lm -pthread  trains, evaluates, reads image files and .pth too
 *
 * or compile the header itself: cc -O3 -x c -DGFL_IMPLEMENTATION -c gfl.h.  Use -O2 at least;
 * without optimisation it is twenty times slower.  The implementation is C11 or C++17 for gcc or
 * clang, on little-endian machines with POSIX or, by mingw-w64, Windows.  The declarations are C99
 * or C++11.  Including the header defines no feature macro: with -std=c11 instead of -std=gnu11,
 * which is the default, the implementation needs -D_POSIX_C_SOURCE=200809L.  Paths are the system's
 * bytes, on Windows UTF-8.
 *
 *     gfl_context *context;
 *     gfl_model *model;
 *     gfl_detector *detector;
 *     gfl_detection_list found;
 *     gfl_image image = gfl_image_from_rgb(pixels, width, height);
 *     gfl_context_create(NULL, &context);
 *     gfl_model_load(context, "weights.safetensors", NULL, &model);
 *     gfl_detector_create(context, model, NULL, &detector);
 *     gfl_detect(detector, &image, 1, NULL, &found);
 *     for (int i = 0; i < found.count; i++)
 *         puts(gfl_model_get_class(model, found.items[i].label)->name);
 *
 * SWITCHES, to be defined before the header or on the compiler's command line
 *
 *     GFL_IMPLEMENTATION   this file holds the implementation
 *     GFL_API              what stands before public functions.  By default they are visible, so
 *                          that your shared object exports them.  Define it as
 *                          __attribute__((visibility("hidden"))) to keep them inside, or as static
 *                          to make gfl.h and gfl_train.c private to one file that includes both;
 *                          static __attribute__((unused)) is the same without a warning about what
 *                          you do not call.  Everything else is always hidden
 *     GFL_NO_STB_IMAGE     gfl_train.c does without stb_image: PNG, BMP and PNM are read as ever,
 *                          and a JPEG is GFL_E_UNSUPPORTED; data sets may take their pixels from a
 *                          callback
 *
 * OBJECTS
 *
 *     gfl_context    memory, threads, logger, error text; outlives everything made with it
 *     gfl_model      architecture and weights.  Any number of detectors in any number of threads
 *                    may use it at once, as long as no trainer, gfl_model_load_backbone or
 *                    gfl_model_set_parameter changes it
 *     gfl_detector   the workspace that runs a model: one per thread
 *     gfl_dataset    COCO annotations and where their pixels come from; unchanging once loaded
 *     gfl_trainer    changes a trainable model step by step
 *     gfl_evaluator  collects detections and computes COCO's numbers
 *
 * You destroy what you create; destroy functions take NULL.  What an object was made from (context,
 * model, data set) is borrowed and must outlive it.
 *
 * NAMES
 *
 *     gfl_X_create, gfl_X_load...   make an X: (context, what it is made from, desc, &x)
 *     gfl_X_destroy                 gives it back
 *     gfl_X_get_Y, gfl_X_count_Y    read of an X without changing it; how many Y it has.  For NULL
 *                                   the answer is 0, NULL, zeros or an empty text, and GFL_E_ARG
 *                                   where it is a status
 *     ..._desc, ..._opts            what a creator makes; how one call works.  NULL means all
 *                                   defaults, unless the comment says that something is needed
 *
 * STRUCTS
 *
 * Structs that you fill: set all of it to zero first, then set what you want, by name.  Zero is the
 * default of every field.  Where zero is a default that does something, a negative number means
 * that it is not done: warmup = 0 is the usual warm-up, and warmup = -1 is none.  A number that
 * cannot be left out, such as that of the images of a batch, is GFL_E_ARG where it is negative.
 *
 *     gfl_detect_opts opts = {0};     or memset(&opts, 0, sizeof opts); in C++ also opts = {}
 *     opts.min_score = 0.3f;
 *
 * Do not list values by position, and do not call a function with a struct that was never zeroed:
 * later versions add fields, always at the end.  Structs have no size field.  Instead GFL_ABI
 * numbers the interface as a whole: a struct, an enum or a prototype changes only together with it.
 * While the version is 0.x the SONAME carries both parts (libgfl.so.0.2 is GFL_ABI 2), so that a
 * program never starts with another interface than it was compiled for.  gfl_context_create hands
 * your GFL_ABI to the library, which refuses another one and says so: this covers a library opened
 * by hand, and objects that were compiled with different headers.  The tables of other files,
 * gfl_cuda() and a gfl_group, carry the number too and are refused in the same way.  gfl_train.c
 * and gfl_cuda.cu do not compile with the gfl.h of another release, nor do their objects link.
 * Releases that differ in the last number only (0.2.1) keep GFL_ABI and serve programs that are
 * already compiled.
 *
 * ERRORS
 *
 * Functions that can fail return a gfl_status.  The text of the failure says what, where, and what
 * to do.  It is in gfl_context_get_error() of the context that the object was made with, or of the
 * one that the call was given.  GFL_E_ARG has a text, too, except where neither was given and in
 * getters that any number of threads may call at once; their comments say so.  The text of
 * gfl_context_create goes to gfl_context_desc.error.  After an error the object is as it was before
 * the call, unless the function says otherwise.  The library never exits, aborts, prints, installs
 * signal handlers, or reads environment variables.
 *
 * MEMORY
 *
 * All of it comes from the context's allocator, even that of stb_image.  gfl_model_get_cost tells
 * what a model takes at one input size, gfl_arch_get_cost tells it before there is a model, and
 * gfl_model_get_plan tells it step by step.  A detector's workspace grows to the largest input so
 * far and is then used again: calls up to that size allocate nothing.  gfl_detector_reserve takes
 * the memory for the largest batch beforehand.
 *
 * THREADS
 *
 * Contexts are independent.  One context, with the objects made with it, serves one thread at a
 * time.  To run one model from several threads, give each thread a context and a detector of its
 * own on the same model.  A context computes on its own pool of threads, or on the caller's
 * (gfl_parallel).  Loaders of a trainer run on threads of their own.
 *
 * UNITS AND LAYOUTS
 *
 * Boxes are corners x1 y1 x2 y2 in pixels.  Coordinates are continuous, with the origin at the top
 * left corner of the top left pixel; a width is x2 - x1, without a + 1.  Labels count from 0, in
 * the order of ascending category ids.  In comments, N is images, H and W are rows and columns, C
 * is channels, and K is classes.  "[n]" before a description means an array of n.
 *
 * DETERMINISM
 *
 * The same input, weights and seed give the same bits, in training and in detection, whatever the
 * number of threads and loaders.  That holds for CPUs of the same instruction set, which decides on
 * the kernels and is named by gfl_context_get_device, with the same C library, which computes expf
 * and log.  It holds for gcc and clang, any -std, -O1 to -O3, with or without -march, in C and C++,
 * since the header switches off contraction to fused multiply-adds for its own functions.
 * -ffast-math and parts of it change the bits; so does another number of ranks, which adds up in
 * another order.  Training that is stopped after any step and resumed gives the same weights to the
 * bit.
 *
 * RANKS
 *
 * Several contexts, each usually in a process or on a machine of its own, can train one model
 * together.  A gfl_group adds up their numbers: a table of functions over MPI, sockets or whatever
 * connects them.  Tell each context which rank it is:
 *
 *     gfl_ranks ranks = {0};
 *     gfl_context_desc desc = {0};
 *     ranks.group = &group;
 *     ranks.rank = rank;
 *     ranks.n_ranks = n_ranks;
 *     desc.ranks = &ranks;
 *
 * All ranks then make the same calls of a trainer, with the same data set and description, and have
 * the same weights after every step.  Where one of them fails, all do: that rank tells why, and the
 * others return GFL_E_RANK.  Detectors and evaluators work for their own context alone.
 *
 * GPUS
 *
 * Compile gfl_cuda.cu too (nvcc -O3 -arch=sm_90a -c gfl_cuda.cu; link cudart) and ask for a GPU:
 *
 *     gfl_context_desc desc = {0};
 *     desc.backend = gfl_cuda();
 *     desc.device_index = 0;
 *
 * Models and detectors that are made with that context live on the GPU; everything else stays as it
 * is.  Images are uploaded as they are.  Resizing, the network, decoding and suppression happen on
 * the GPU, in float32 without TF32 or in what desc.precision says.  A program with gfl_cuda.cu in
 * it starts even where there is no driver; gfl_context_create then says why it fails, and you can
 * open a context on the CPU instead.  Training needs a context on the CPU.
 *
 * Pixels may lie on the GPU already (gfl_detect_opts.on_device).  Work is queued in a stream of the
 * context's own, or in yours (gfl_context_desc.stream).  gfl_detect_start does not wait for it, and
 * an event of yours (gfl_detect_opts.event) tells when it is done.  After a call, the context's GPU
 * is the current device of the calling thread.  From the second batch of the same size on, a
 * detector replays the network as a CUDA graph, except in calls with a progress callback.
 *
 * WEIGHTS
 *
 * gfl_model_load reads what gfl_model_save wrote: safetensors with mmdetection 3's names, and as
 * metadata what no tensor shows, which is dialect, style, classes and preprocessing.
 * gfl_model_import, in gfl_train.c, reads other people's checkpoints: safetensors and .pth of
 * mmdetection 1 to 3 and of implus/GFocal.  gfl_backbone_describe and gfl_model_load_backbone do
 * the same for backbones that were trained on ImageNet, of torchvision, timm, OpenMMLab and MSRA.
 * The architecture always follows from the tensors, and a tensor that contradicts the others is an
 * error.  The dialect is never guessed.  gfl_model_create_from is for fine-tuning: it makes a model
 * with another class list and keeps all other weights.  gfl_model_export writes a model for
 * mmdetection, PyTorch or ONNX.  Single tensors of a trainable model are listed by
 * gfl_model_describe_parameter, read by gfl_model_get_parameter and replaced by
 * gfl_model_set_parameter, after which gfl_model_sync makes detectors use them.
 *
 * DIALECTS
 *
 * Two families of GFL are published, and weights that were trained in one give wrong boxes in the
 * other.  The dialect in gfl_arch, which every weight file keeps, says what a model computes, in
 * detection and in training:
 *
 *     GFL_DIALECT_MMDET    mmdetection 2.18 and later; the default of new models
 *     GFL_DIALECT_GFOCAL   the authors' repository of 2020: corners are pixels inside the box,
 *                          another place for a cell's location, candidates chosen by location,
 *                          warm-up from a third of the rate, biases at twice the rate without decay
 *
 * In both, the boxes that go in and out are those of UNITS AND LAYOUTS.
 *
 * PAPERS
 *
 *     Li et al., "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for
 *         Dense Object Detection", NeurIPS 2020, arXiv:2006.04388
 *     Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
 *         Training Sample Selection" (ATSS), CVPR 2020, arXiv:1912.02424
 *     Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, arXiv:1612.03144
 *     He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385
 *     Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017
 *     Dai et al., "Deformable Convolutional Networks", ICCV 2017, arXiv:1703.06211
 *     Zhu et al., "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019,
 *         arXiv:1811.11168
 *     Wu and He, "Group Normalization", ECCV 2018, arXiv:1803.08494
 *     Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, arXiv:1902.09630
 *
 * All constants are those of MMDetection 3.3's GFL or, in its dialect, of implus/GFocal.
 *
 * NOT HERE
 *
 * Other detectors are not here.  The functions of gfl_dataset, gfl_trainer and gfl_evaluator,
 * gfl_evaluate and gfl_match_dataset, gfl_image_read and gfl_image_read_memory, gfl_image_get_kind,
 * gfl_pixels_alloc, gfl_pixels_free, and those that import and export (gfl_model_import to
 * gfl_model_create_from, gfl_model_export, gfl_model_export_memory) are defined in gfl_train.c: a
 * program that only detects does not link it.
 *
 * Only what is declared above the line "#endif" of GFL_H is API.
 */
#ifndef GFL_H
#define GFL_H

/* ===============================================================================================
 * src/api/std.h - the C headers that the public declarations need
 * ============================================================================================ */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ===============================================================================================
 * src/api/config.h - version, visibility and the sizes that are fixed at compile time
 * ============================================================================================ */

#define GFL_VERSION_MAJOR 0
#define GFL_VERSION_MINOR 2
#define GFL_VERSION_PATCH 0
#define GFL_VERSION       200 /* major * 10000 + minor * 100 + patch */
#define GFL_VERSION_TEXT  "0.2.0"

/* The interface between a program and the library: every struct, enum and prototype of this header.
 * It is major * 100 + minor of the SONAME (libgfl.so.0.2); see STRUCTS. */
#define GFL_ABI 2

/* Predefine GFL_API to build a DLL or to hide the names inside your own library. */
#ifndef GFL_API
#    if defined(__GNUC__) && !defined(_WIN32)
#        define GFL_API __attribute__((__visibility__("default")))
#    else
#        define GFL_API
#    endif
#endif

/* Stands before functions whose body is in the header. */
#if defined(__GNUC__)
#    define GFL_INLINE static inline __attribute__((__unused__))
#else
#    define GFL_INLINE static inline
#endif

/* Largest side of an image, before or after resizing, in pixels. */
#define GFL_MAX_SIDE 16384
/* Pyramid levels: strides 8, 16, 32, 64, 128. */
#define GFL_LEVELS 5
/* Most bins a side's distribution can have (reg_max + 1). */
#define GFL_MAX_BINS 64
/* Most classes of a model. */
#define GFL_MAX_CLASSES 65536

/* gfl_get_version - the version the library was compiled as; compare with GFL_VERSION of your
 * header. */
GFL_API int gfl_get_version(void);

/* ===============================================================================================
 * src/api/status.h - what a call can return
 * ============================================================================================ */

/* What has come of a call; the text of a failure is the context's. */
typedef enum gfl_status {
    GFL_OK = 0,              /* it has done what it should */
    GFL_E_ARG = -1,          /* an argument is NULL or outside its range */
    GFL_E_MEMORY = -2,       /* the allocator returned NULL, or a size overflows */
    GFL_E_IO = -3,           /* a file cannot be opened, read or written */
    GFL_E_FORMAT = -4,       /* a file is not what it should be: truncated, malformed, hostile */
    GFL_E_MISMATCH = -5,     /* weights, state or classes do not fit the model or data at hand */
    GFL_E_DATA = -6,         /* annotations or results contradict themselves */
    GFL_E_DEVICE = -7,       /* no such device, or it failed */
    GFL_E_NONFINITE = -8,    /* a loss is NaN or infinite */
    GFL_E_STOPPED = -9,      /* a progress callback asked to stop */
    GFL_E_UNSUPPORTED = -10, /* understood, but not something this build can do */
    GFL_E_RANK = -11         /* another rank failed or does not answer */
} gfl_status;

/* gfl_status_get_name - "GFL_E_ARG" and so on; never NULL. */
GFL_API const char *gfl_status_get_name(gfl_status status);

/* ===============================================================================================
 * src/api/json.h - writing JSON: the library's own writer, for programs that print results of it
 * ============================================================================================ */

/* A writer.  Zero it, set the first three fields, and write one value after the other.  The writer
 * adds commas, quotes, escapes and brackets.  It needs no context and takes no memory. */
typedef struct gfl_json_writer {
    /* Takes the next bytes of the text, which do not end with a 0; returns GFL_OK, or what went
     * wrong. */
    gfl_status (*write)(void *user, const char *bytes, size_t size);
    void *user;
    int spaced; /* 1: a space follows each comma and colon */
    /* The first failure of write, or GFL_E_ARG where the calls do not make JSON: a member of an
     * object without a key, a key elsewhere, an end without a beginning, or a depth above 64.
     * Nothing is written after a failure.  Look at it once, at the end. */
    gfl_status status;
    /* The writer's own. */
    int depth, broken;
    uint64_t objects, filled;
} gfl_json_writer;

/* gfl_json_object, _array, _end, _text, _integer, _number, _float, _bool - write the next value.
 *
 *   key    the name of the value in an object; NULL in an array and outside of both
 *   text   0-terminated; NULL is written as null.  Each byte that is not UTF-8 becomes U+FFFD,
 *          since JSON consists of UTF-8; two texts that are not UTF-8 may then be equal.  Control
 *          characters, quotes and backslashes are escaped
 *   value  the number.  It is written as the shortest text, or nearly so, that a correct reader
 *          turns back into the same double or float, with a point whatever the locale is.  NaN and
 *          infinities, which JSON does not have, are written as null
 *
 * gfl_json_object and gfl_json_array open one that gfl_json_end closes.
 *
 * Errors    They stay in the writer's status.
 * Memory    None.
 * Threads   As the write function allows; one writer serves one thread at a time.
 * Source    RFC 8259.
 */
GFL_API void gfl_json_object(gfl_json_writer *writer, const char *key);
GFL_API void gfl_json_array(gfl_json_writer *writer, const char *key);
GFL_API void gfl_json_end(gfl_json_writer *writer);
GFL_API void gfl_json_text(gfl_json_writer *writer, const char *key, const char *text);
GFL_API void gfl_json_integer(gfl_json_writer *writer, const char *key, int64_t value);
GFL_API void gfl_json_number(gfl_json_writer *writer, const char *key, double value);
GFL_API void gfl_json_float(gfl_json_writer *writer, const char *key, float value);
GFL_API void gfl_json_bool(gfl_json_writer *writer, const char *key, int value);

/* gfl_json_line - begin a new line, before the next value or the end of the object or array that is
 * open, or at once where none is open. */
GFL_API void gfl_json_line(gfl_json_writer *writer);

/* ===============================================================================================
 * src/api/text.h - foreign texts for people: class names, file names, whatever a file says of itself
 * ============================================================================================ */

/* gfl_text_show - a text on one line, in UTF-8, and without anything that a terminal would obey.
 *
 * Control characters, line separators, marks that hide text or turn its direction, and bytes that
 * are not UTF-8 are written as \n, \t, \x1b, \u202e or \xff.  Everything else stays as it is,
 * backslashes too.  So it is for people: a program that needs the text back reads JSON.
 *
 *   text  0-terminated
 *   out   [size] set to as much as fits, never half a character, and a 0 behind it; may be NULL
 *         where size is 0
 *
 * It returns the length that all of the text needs, without the 0.
 *
 * Errors    None.
 * Memory    None.
 * Threads   Any.
 */
GFL_API size_t gfl_text_show(const char *text, char *out, size_t size);

/* gfl_text_valid - how many of the n bytes at text are whole characters of UTF-8, counted from the
 * first.  It is n where all of them are UTF-8.
 *
 * Errors    None.
 * Memory    None.
 * Threads   Any.
 */
GFL_API size_t gfl_text_valid(const char *text, size_t n);

/* ===============================================================================================
 * src/api/context.h - gfl_context: allocator, logger, threads and the error text
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/api/group.h - ranks: several contexts, each usually in a process of its own, that train one model
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/api/image.h - gfl_image: pixels that belong to the caller
 * ============================================================================================ */

/* The bytes of a pixel, in the order in which they lie in memory. */
typedef enum gfl_format {
    GFL_FORMAT_RGB = 0,  /* 3 bytes per pixel */
    GFL_FORMAT_BGR = 1,  /* 3 */
    GFL_FORMAT_RGBA = 2, /* 4; alpha is ignored, not blended */
    GFL_FORMAT_BGRA = 3, /* 4, likewise */
    GFL_FORMAT_GREY = 4  /* 1, used for all three channels */
} gfl_format;

/* A picture to find objects in; borrowed by the call that gets it. */
typedef struct gfl_image {
    const uint8_t *pixels; /* u8 [height][width][channels of the format] */
    int width, height;     /* pixels, 1..GFL_MAX_SIDE */
    ptrdiff_t stride;      /* bytes from one row to the next, may be negative; 0 means no gap */
    gfl_format format;     /* of the pixels */
} gfl_image;

/* gfl_image_from_rgb - an image of 8-bit RGB pixels without gaps between the rows, as a gfl_pixels
 * holds them.
 *
 *   pixels         u8 [height][width][3], borrowed as long as the image is used
 *   width, height  1..GFL_MAX_SIDE; gfl_detect refuses others
 *
 * Errors    None.
 * Memory    None.
 * Threads   Any.
 * Example
 *     gfl_image image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height); */
GFL_INLINE gfl_image gfl_image_from_rgb(const uint8_t *pixels, int width, int height) {
    gfl_image image;
    image.pixels = pixels;
    image.width = width;
    image.height = height;
    image.stride = 0;
    image.format = GFL_FORMAT_RGB;
    return image;
}

/* ===============================================================================================
 * src/api/model.h - gfl_model: architecture and weights
 * ============================================================================================ */

/* An architecture with its weights. */
typedef struct gfl_model gfl_model;

/* The two published families of GFL differ in geometry and constants.  Weights that were trained in
 * one dialect give wrong boxes in the other. */
typedef enum gfl_dialect {
    GFL_DIALECT_DEFAULT = 0, /* for a new model: mmdet; for a file: what it says */
    GFL_DIALECT_MMDET = 1,   /* mmdetection 2.18 and later */
    GFL_DIALECT_GFOCAL = 2   /* the authors' repository, implus/GFocal, 2020 */
} gfl_dialect;

/* Where bottlenecks have their stride, which no tensor shows. */
typedef enum gfl_style {
    GFL_STYLE_DEFAULT = 0, /* for a new model: pytorch; for a file: what it says, else pytorch */
    GFL_STYLE_PYTORCH = 1, /* in the 3x3: torchvision, OpenMMLab, every published GFL model */
    GFL_STYLE_CAFFE = 2    /* in the first 1x1: MSRA */
} gfl_style;

/* Stages of the backbone, as bits. */
enum { GFL_C2 = 1, GFL_C3 = 2, GFL_C4 = 4, GFL_C5 = 8 };

/* What the network is.  Zero means the default of each field. */
typedef struct gfl_arch {
    int depth;           /* 18, 34, 50 or 101; 0 means 50 */
    int groups;          /* of the 3x3 convolutions of bottlenecks; 0 means 1; 32 in ResNeXt */
    int base_width;      /* channels per group in the first stage; 0 means 4, or 0 without groups */
    int base_channels;   /* of the stem; 0 means 64 */
    int fpn_channels;    /* 0 means 256 */
    int head_channels;   /* a multiple of 32 (GroupNorm has 32 groups); 0 means 256 */
    int stacked_convs;   /* convolutions in each head tower; 0 means 4 */
    int n_classes;       /* 1..GFL_MAX_CLASSES; 0 means 80 */
    int reg_max;         /* last bin of a side's distribution, 1..GFL_MAX_BINS-1; 0 means 16 */
    gfl_dialect dialect; /* what is computed from these tensors */
    /* Which 3x3 convolutions of bottlenecks are deformable.  0: none; 1: those of deform_stages,
     * with offsets alone (v1); 2: the same, with offsets and a mask (v2). */
    int deform;
    int deform_stages; /* of GFL_C2 | GFL_C3 | GFL_C4 | GFL_C5; 0 means C3 to C5 if deform is set */
    gfl_style style;   /* where its bottlenecks have their stride */
} gfl_arch;

/* How pixels become network input, and back. */
typedef struct gfl_preprocess {
    float mean[3], std[3]; /* per channel, in the network's order of channels, of values 0..255 */
    int bgr;               /* 1: the network's first channel is blue */
    int scale_long;        /* the long side of the resized image is at most this ... */
    int scale_short;       /* ... and its short side at most this; the aspect ratio is kept */
} gfl_preprocess;

/* A kind of object. */
typedef struct gfl_class {
    const char *name; /* UTF-8 */
    int64_t id;       /* category id of the data set; label k is the k-th ascending id */
} gfl_class;

/* A new model.  Zero means the default of each field. */
typedef struct gfl_model_desc {
    gfl_arch arch;             /* what the network is */
    gfl_preprocess preprocess; /* all zero: RGB, ImageNet's mean and std, 1333x800 */
    const gfl_class *classes;  /* [arch.n_classes], copied; NULL: "class 0" and so on, ids from 1 */
    uint64_t seed;             /* of the initial weights */
    int trainable; /* 1: keep the parameters beside the packed weights, to train or save them */
} gfl_model_desc;

/* How a weight file is loaded.  Zero means the default of each field. */
typedef struct gfl_load_desc {
    int trainable; /* 1: keep the parameters beside the packed weights, to train or save them */
    /* The dialect that the weights must be of.  A file that says another one is refused.  A file
     * that says none, because it has neither metadata nor a buffer whose name tells it, is taken to
     * be of this one.  GFL_DIALECT_DEFAULT: what the file says; one that says none is refused. */
    gfl_dialect dialect;
} gfl_load_desc;

/* What became of a tensor. */
typedef enum gfl_fate {
    GFL_FATE_LOADED = 0,      /* from the file into the model */
    GFL_FATE_INITIALISED = 1, /* the file has no such tensor, or one of another shape */
    GFL_FATE_LEFT_OVER = 2    /* the model has no such tensor */
} gfl_fate;

/* What became of one tensor of a weight file or of the model. */
typedef struct gfl_tensor_report {
    const char *name; /* as the model has it, or for one that is left over as the file has it */
    gfl_fate fate;    /* what became of it */
    int rank;         /* how many sizes its shape has */
    int64_t shape[4]; /* [rank] as files have it, outputs first */
    const char *why;  /* why it was not loaded; "" when it was */
} gfl_tensor_report;

/* Who said what cannot be seen in the tensors. */
typedef enum gfl_origin {
    GFL_ORIGIN_GIVEN = 0,  /* the caller */
    GFL_ORIGIN_FILE = 1,   /* the weight file */
    GFL_ORIGIN_DEFAULT = 2 /* neither; the usual value was assumed */
} gfl_origin;

/* The same for all that a model needs beside its tensors. */
typedef struct gfl_origins {
    gfl_origin dialect, style; /* gfl_arch's */
    gfl_origin preprocess;     /* mean, std and the order of channels */
    gfl_origin scale;          /* scale_long and scale_short */
    gfl_origin classes;        /* their names and ids */
} gfl_origins;

/* What a model is. */
typedef struct gfl_model_info {
    gfl_arch arch;             /* every field resolved */
    gfl_preprocess preprocess; /* likewise */
    int64_t n_parameters;      /* without batch norm's running statistics, as papers count */
    int64_t n_trainable;       /* of them when the stem and the first stage are frozen */
    const gfl_class *classes;  /* [arch.n_classes], owned by the model */
    gfl_origins origins;       /* of a loaded or imported model; all zero for a new one */
} gfl_model_info;

/* What a forward pass of one input size costs. */
typedef struct gfl_model_cost {
    int64_t macs;           /* multiply-adds */
    size_t weight_bytes;    /* packed */
    size_t workspace_bytes; /* of a detector without distributions, for images of this size */
    int n_steps, points;    /* steps of the plan; locations of all levels */
    int64_t n_parameters;   /* as in gfl_model_info */
} gfl_model_cost;

/* gfl_arch_find_preset - the architecture of a name.
 *
 *   context  receives the error text; may be NULL
 *   name     "r18", "r34", "r50", "r101", "r101-dcnv1", "r101-dcnv2", "x101-32x4d", "x101-32x8d",
 *            "x101-32x4d-dcnv1" (C4 and C5, as mmdetection), "x101-32x4d-dcnv2" or
 *            "x101-32x8d-dcnv2" (C3 to C5, as the original)
 *   out      set to the architecture, every field filled, with 80 classes
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such name
 * Threads   Any. */
GFL_API gfl_status gfl_arch_find_preset(gfl_context *context, const char *name, gfl_arch *out);

/* A preset, and what was published about it. */
typedef struct gfl_preset {
    const char *name; /* as gfl_arch_find_preset takes it */
    gfl_arch arch;    /* with 80 classes */
    double ap; /* on COCO val2017, by whoever published it, not by this library; 0: by nobody */
    const char *published; /* by whom, and with which schedule; "": by nobody */
} gfl_preset;

/* gfl_arch_count_presets, gfl_arch_get_preset - how many presets there are, and preset i with every
 * field of its architecture filled.
 *
 *   out  set to the preset, whose texts last for ever; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such preset; there is no error text
 * Threads   Any.
 * Source    Li et al. 2020 and the tables of implus/GFocal, mmdetection and LD (Zheng et al. 2022).
 * Example
 *     gfl_preset p;
 *     for (int i = 0; gfl_arch_get_preset(i, &p) == GFL_OK; i++) puts(p.name); */
GFL_API int gfl_arch_count_presets(void);
GFL_API gfl_status gfl_arch_get_preset(int i, gfl_preset *out);

/* gfl_model_create - a model with fresh weights.
 *
 * The convolutions of the backbone are Kaiming normal, and the last batch norm of every block
 * starts at 0.  The neck is Xavier uniform.  The head is normal with a standard deviation of 0.01,
 * and class scores start at 0.01.  The same seed gives the same weights on every machine.
 *
 *   desc  NULL or zeroed for the defaults (R50, 80 classes, RGB, 1333x800), and for a model that
 *         only detects; borrowed
 *   out   set to the model, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, a field is out of range, or class ids do not ascend
 *           GFL_E_MEMORY  the weights do not fit into memory
 * Memory    Destroy the model with gfl_model_destroy, before the context.
 * Threads   As the context.  Once it is made, only a trainer, gfl_model_load_backbone and
 *           gfl_model_set_parameter change a model.  As long as they do not, any number of
 *           detectors in any number of threads may run it at once. */
GFL_API gfl_status gfl_model_create(gfl_context *context, const gfl_model_desc *desc,
                                    gfl_model **out);

/* gfl_model_load - a model from a safetensors file with mmdetection's names.
 *
 * The architecture follows from the shapes of the tensors.  Classes, preprocessing, dialect and
 * style follow from the file's metadata, which gfl_model_save writes.  Where there is none, classes
 * are "class 0" and so on, and the input is RGB with ImageNet's mean and std, at 1333x800.
 * gfl_model_get_report tells what became of each tensor.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   desc  NULL or zeroed for a model that only detects; borrowed
 *   out   set to the model, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_IO      the file cannot be read
 *           GFL_E_FORMAT  the file is not safetensors or is truncated, weights are not finite, or
 *                         the metadata is broken
 *           GFL_E_MISMATCH  a tensor is missing, has the wrong shape, or has no place in the
 *                           network; metadata contradicts the tensors; or nothing says which
 *                           dialect the weights are of
 *           GFL_E_UNSUPPORTED  this version cannot run such a network or dialect
 *           GFL_E_MEMORY  the weights do not fit into memory
 * Memory    Tensors are read one by one.  Without desc->trainable each is freed once it is packed.
 * Threads   As gfl_model_create. */
GFL_API gfl_status gfl_model_load(gfl_context *context, const char *path, const gfl_load_desc *desc,
                                  gfl_model **out);

/* gfl_model_load_memory - gfl_model_load from the bytes of such a file.
 *
 *   bytes  [size], borrowed until the call returns
 *
 * Errors, Memory, Threads   As gfl_model_load. */
GFL_API gfl_status gfl_model_load_memory(gfl_context *context, const void *bytes, size_t size,
                                         const gfl_load_desc *desc, gfl_model **out);

/* gfl_model_save - write weights and metadata as safetensors.
 *
 * gfl_model_load reads the file back bit for bit, and Python opens it as it is.  A file of that
 * name is replaced whole or not at all.
 *
 *   model  made with desc.trainable; other models have freed their parameters
 *   path   the system's bytes, on Windows UTF-8; borrowed until the call returns
 *
 * Errors    GFL_E_ARG     an argument is NULL, or the model is not trainable
 *           GFL_E_IO      the file cannot be written
 *           GFL_E_MEMORY  there is no room for one tensor */
GFL_API gfl_status gfl_model_save(const gfl_model *model, const char *path);

/* gfl_model_save_memory - the bytes of the file that gfl_model_save would write, for
 * gfl_model_load_memory.
 *
 *   model  made with desc.trainable; other models have freed their parameters
 *   out    set to the bytes; free them with gfl_bytes_free and the model's context; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or the model is not trainable
 *           GFL_E_MEMORY  there is no room for the bytes and one tensor
 * Threads   As the model's context. */
GFL_API gfl_status gfl_model_save_memory(const gfl_model *model, gfl_bytes *out);

/* gfl_model_destroy - give the model's memory back; NULL is allowed.  Destroy its detectors and
 * trainers first. */
GFL_API void gfl_model_destroy(gfl_model *model);

/* gfl_model_get_info - architecture, preprocessing, classes and sizes; zeros for a NULL model.
 *
 * Memory    The classes belong to the model.
 * Threads   Any. */
GFL_API void gfl_model_get_info(const gfl_model *model, gfl_model_info *out);

/* gfl_model_get_class - the class of a label: its name, and its id in the data set.
 *
 * It is never NULL: where there is no model or no such label, the name is "" and the id is 0.
 *
 * Memory    The class belongs to the model.
 * Threads   Any.
 * Example
 *     puts(gfl_model_get_class(model, found.items[0].label)->name); */
GFL_API const gfl_class *gfl_model_get_class(const gfl_model *model, int label);

/* gfl_model_get_cost - what a batch costs a detector, without running it.
 *
 *   width, height  size of the resized images; padded to multiples of 32 as a detector does
 *   batch          number of images in the batch
 *   out            set to the cost
 *
 * Errors    GFL_E_ARG     an argument is NULL, or a size is out of range
 *           GFL_E_MEMORY  the workspace would be so large that its size does not fit a number
 * Threads   As the model's context. */
GFL_API gfl_status gfl_model_get_cost(gfl_model *model, int width, int height, int batch,
                                      gfl_model_cost *out);

/* gfl_arch_get_cost - the same for a network that has not been made, so without its weights.
 *
 *   arch                  a field that is 0 has its default; borrowed until the call returns
 *   width, height, batch  as for gfl_model_get_cost
 *
 * Errors    As gfl_model_get_cost.  It is GFL_E_ARG, too, when there can be no such architecture.
 * Threads   As the context. */
GFL_API gfl_status gfl_arch_get_cost(gfl_context *context, const gfl_arch *arch, int width,
                                     int height, int batch, gfl_model_cost *out);

/* One step of a forward pass. */
typedef struct gfl_plan_step {
    const char *op;                          /* "conv", "deform_conv", "max_pool" ... */
    const char *weights;                     /* the parameter it multiplies by, or "" */
    const char *twin;                        /* that of a second convolution at once, or "" */
    const char *kernel;                      /* what computes a convolution, or "" */
    int splits;                              /* how many partial sums are added at the end */
    int in_channels, in_height, in_width;    /* of the first level, where a map is a pyramid */
    int out_channels, out_height, out_width; /* likewise; the channels include those of the twin */
    int levels;                              /* of what it writes */
    int64_t macs;                            /* multiply-adds */
    size_t out_bytes;                        /* of what it writes */
    size_t live_bytes;                       /* of all maps that matter during the step */
} gfl_plan_step;

/* One parameter: weights, or running statistics of a batch norm. */
typedef struct gfl_parameter {
    const char *name; /* mmdetection's; it belongs to the model */
    int rank;         /* how many sizes its shape has */
    int64_t shape[4]; /* [rank]; of a convolution: out, in / groups, height, width */
    size_t count;     /* how many numbers it has */
    int is_statistic; /* 1: a running statistic of a batch norm, which training does not change */
} gfl_parameter;

/* gfl_model_count_parameters, gfl_model_describe_parameter - how many parameters a model has, and
 * what parameter i is.
 *
 *   out  set by the call; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such parameter; there is no error
 *                         text
 * Threads   Any. */
GFL_API int gfl_model_count_parameters(const gfl_model *model);
GFL_API gfl_status gfl_model_describe_parameter(const gfl_model *model, int i, gfl_parameter *out);

/* gfl_model_get_parameter - the values of a parameter, as a file of the model has them.
 *
 *   model  made with desc.trainable; other models have freed their parameters
 *   name   one of those that gfl_model_describe_parameter gives
 *   out    [n] set to the values; n must be the parameter's count
 *
 * Errors    GFL_E_ARG     an argument is NULL, the model is not trainable, it has no parameter of
 *                         that name, or n is not its count
 *           GFL_E_MEMORY  there is no room for the tensor a second time
 *           GFL_E_DEVICE  the GPU failed
 * Threads   As the model's context. */
GFL_API gfl_status gfl_model_get_parameter(const gfl_model *model, const char *name, float *out,
                                           size_t n);

/* gfl_model_set_parameter - replace the values of a parameter.
 *
 * A trainer uses the new values from its next step on.  Detectors and the export to ONNX refuse the
 * model until gfl_model_sync has been called; one call is enough for several parameters.
 *
 *   values  [n], borrowed until the call returns, in the order of gfl_model_get_parameter
 *
 * Errors    As gfl_model_get_parameter.  It is GFL_E_ARG, too, when a value is not finite, or is
 *           a variance below zero.  The parameter is as before, except after GFL_E_DEVICE.
 * Threads   As the model's context.  Nobody else may use the model during the call. */
GFL_API gfl_status gfl_model_set_parameter(gfl_model *model, const char *name, const float *values,
                                           size_t n);

/* gfl_model_sync - make a model detect with the parameters that it has now.
 *
 * Training and gfl_model_set_parameter change parameters; detectors and the export to ONNX use
 * weights that are packed from them.  Call this before a detector's next run: until then gfl_detect
 * refuses the model.  gfl_model_save does not need it.
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_MEMORY  there is no room for a packed layer
 * Threads   As gfl_model_set_parameter. */
GFL_API gfl_status gfl_model_sync(gfl_model *model);

/* gfl_model_get_plan - the steps of a forward pass, in order.
 *
 *   width, height, batch  as for gfl_model_get_cost
 *   visit                 called once per step; the step is valid until it returns
 *   user                  handed to visit
 *
 * Errors    As gfl_model_get_cost.
 * Threads   As the model's context. */
GFL_API gfl_status gfl_model_get_plan(gfl_model *model, int width, int height, int batch,
                                      void (*visit)(void *user, const gfl_plan_step *step),
                                      void *user);

/* gfl_model_count_reports, gfl_model_get_report - how many tensors the last load saw, and what
 * became of tensor i.
 *
 *   out  set to the report, whose texts belong to the model and are valid until the next load;
 *        zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such tensor; there is no error text
 * Threads   Any, except while something is loaded into the model.
 * Example
 *     gfl_tensor_report r;
 *     for (int i = 0; gfl_model_get_report(model, i, &r) == GFL_OK; i++)
 *         if (r.fate != GFL_FATE_LOADED) printf("%s: %s\n", r.name, r.why); */
GFL_API int gfl_model_count_reports(const gfl_model *model);
GFL_API gfl_status gfl_model_get_report(const gfl_model *model, int i, gfl_tensor_report *out);

/* ===============================================================================================
 * src/api/detect.h - gfl_detector: pixels in, boxes out
 * ============================================================================================ */

/* An object that was found. */
typedef struct gfl_detection {
    float x1, y1, x2, y2; /* corners in pixels of the image as given; the origin is top left */
    float score;          /* 0..1: the predicted IoU of a box of this class */
    int label;            /* 0..n_classes-1 */
} gfl_detection;

/* How sure a detection is of each side: left, top, right, bottom.  All lengths are pixels of the
 * image as given. */
typedef struct gfl_distribution {
    float mean[4], stddev[4];    /* distance of the side from the location x, y, before clipping */
    float bins[4][GFL_MAX_BINS]; /* bin k: probability of k * bin_width; reg_max + 1 are used */
    float bin_width[4];          /* distance from one bin to the next */
    float x, y;                  /* the location that the distances are measured from */
} gfl_distribution;

/* How to find objects.  Zero means the default of each field. */
typedef struct gfl_detect_opts {
    float min_score; /* 0 means 0.05; negative: every candidate is taken, whatever its score */
    float nms_iou;   /* 0 means 0.6; negative: nothing is suppressed */
    /* How many candidates are kept per level of the pyramid before suppression.  In dialect gfocal,
     * how many locations are kept, with all their classes.  0 means 1000; negative: no limit, which
     * means a million. */
    int max_per_level;
    int max_detections; /* per image; 0 means 100; negative: no limit, which means a million */
    /* The resized image's long side is at most scale_long and its short side at most scale_short.
     * Set both.  Both 0: as trained; both negative: images keep their own size. */
    int scale_long, scale_short;
    int no_clip; /* 1: boxes may pass the image's border by rounding, as in COCO results */
    /* Called before every step of the network, on the caller's thread, with the number of steps
     * done and the total.  A non-zero return stops the call with GFL_E_STOPPED.  NULL: no call. */
    int (*progress)(void *user, int done, int total);
    void *user;
    int on_device; /* 1: the images' pixels lie in the memory of the context's GPU */
    void *event;   /* on a GPU: a cudaEvent_t that is recorded behind the batch; NULL: none */
    /* [n_labels] the labels to find, in any order; NULL, with n_labels 0: all of them.  An empty
     * list is GFL_E_ARG.  The other classes are left out before anything is counted: max_per_level
     * and max_detections count only the wanted classes, so that no other class takes their
     * place. */
    const int *labels;
    int n_labels;
    /* 1: a box is suppressed by a better one of any class, so that an object is found once, with
     * its best class.  0: only boxes of its own class suppress it, as in COCO results. */
    int agnostic;
} gfl_detect_opts;

/* What the network gets for a picture. */
typedef struct gfl_input_size {
    int width, height;               /* resized, aspect ratio kept */
    int padded_width, padded_height; /* up to multiples of 32, with zeros at the right and below */
} gfl_input_size;

/* The detections of one image. */
typedef struct gfl_detection_list {
    const gfl_detection *items;            /* [count], best score first */
    const gfl_distribution *distributions; /* [count], or NULL when not asked for */
    int count;                             /* how many were found */
} gfl_detection_list;

/* The workspace that runs a model, one per thread. */
typedef struct gfl_detector gfl_detector;

/* What a detector can do.  Zero means the default of each field. */
typedef struct gfl_detector_desc {
    int distributions; /* 1: detections come with the distributions of their sides */
} gfl_detector_desc;

/* gfl_detector_create - a workspace that runs a model.
 *
 *   context  gives the memory and the threads; it may differ from the model's
 *   model    borrowed; must outlive the detector
 *   desc     NULL or zeroed for the defaults; copied
 *   out      set to the detector, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or the model is on another device or in another
 *                         precision than the context
 *           GFL_E_MEMORY  the allocator returned NULL
 * Memory    The workspace grows to what the largest input so far needs.  It is freed with the
 *           detector.
 * Threads   A detector serves one call at a time.  Several detectors, each with its own context,
 *           may run one model at once. */
GFL_API gfl_status gfl_detector_create(gfl_context *context, const gfl_model *model,
                                       const gfl_detector_desc *desc, gfl_detector **out);

/* gfl_detector_destroy - give the detector's memory back; NULL is allowed. */
GFL_API void gfl_detector_destroy(gfl_detector *detector);

/* gfl_detector_get_size - the size that a picture has when the network sees it.
 *
 * In a batch every picture is padded to the largest padded width and the largest padded height.
 *
 *   width, height  size of the picture in pixels
 *   opts           options of the call that would detect, of which the scale is used; NULL: as
 *                  trained
 *   out            set to the size; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, or a size or an option is out of range
 * Memory    None.
 * Threads   As gfl_detect. */
GFL_API gfl_status gfl_detector_get_size(gfl_detector *detector, int width, int height,
                                         const gfl_detect_opts *opts, gfl_input_size *out);

/* gfl_detector_reserve - take the memory that a batch of pictures will need, without running it.
 *
 * Afterwards gfl_detect allocates nothing, neither from the context nor on its device, as long as a
 * batch has no more pictures than that and each of them is no wider and no higher, before and after
 * resizing; gfl_detector_get_size tells the size after it.  It does not matter how much is found.
 *
 * A later call for another size keeps what was reserved before.  So for pictures of both
 * orientations, call it once for each.  A batch that mixes orientations is padded to the larger
 * width and the larger height: for such batches, reserve for a square picture of the longer side,
 * with opts->scale_short equal to opts->scale_long.
 *
 *   width, height  size of the largest picture in pixels
 *   batch          number of pictures of the largest batch
 *   opts           options of the calls that will detect, of which the scale, max_per_level and
 *                  max_detections are used; NULL for the defaults; borrowed
 *
 * Errors    GFL_E_ARG     an argument is NULL, a number or an option is out of range, or a batch
 *                         was started and not finished
 *           GFL_E_MEMORY  there is not so much memory; what was reserved before may be gone
 *           GFL_E_DEVICE  the GPU failed; the context cannot be used any more
 * Memory    It belongs to the detector until that is destroyed.
 * Threads   As gfl_detect. */
GFL_API gfl_status gfl_detector_reserve(gfl_detector *detector, int width, int height, int batch,
                                        const gfl_detect_opts *opts);

/* gfl_detect - find the objects in a batch of images.
 *
 * It resizes and normalises each image as the model was trained, pads all images to the largest,
 * and runs the network once.  Then it turns the distributions of each location into boxes, and
 * suppresses boxes that overlap a better one of the same class, or of any class with
 * opts->agnostic.  The number of threads does not change the result, nor do the other images of its
 * batch, as long as all are padded to the same size.
 *
 *   images   [n], borrowed until the call returns; they may differ in size
 *   n        at least 1
 *   opts     NULL, or zeroed with the fields set that you care about; borrowed
 *   out      [n] set to what was found.  What it points to belongs to the detector and is valid
 *            until its next call.  On error the counts are 0
 *
 * Errors    GFL_E_ARG     an argument is NULL, an image or an option is out of range, pixels are
 *                         not where on_device says, a batch was started and not finished, or
 *                         training has changed the model since its weights were packed (call
 *                         gfl_model_sync); the text says which
 *           GFL_E_MEMORY  the feature maps do not fit into memory; those of a smaller batch or
 *                         scale may
 *           GFL_E_STOPPED opts->progress asked to stop; the detector can be used again
 *           GFL_E_DEVICE  the GPU failed; the context cannot be used any more
 * Memory    The detector's workspace grows to the largest batch so far.  A batch allocates nothing
 *           when an earlier one had at least as many images, at least as large before and after
 *           resizing, and might have found at least as much.
 * Threads   A detector serves one call at a time.
 * Source    Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section 3.
 *           Thresholds and the order of operations are those of mmdetection 3, GFLHead, or in
 *           dialect gfocal those of implus/GFocal. */
GFL_API gfl_status gfl_detect(gfl_detector *detector, const gfl_image *images, int n,
                              const gfl_detect_opts *opts, gfl_detection_list *out);

/* gfl_detect_start, gfl_detect_finish - gfl_detect in two halves.
 *
 * On a GPU, gfl_detect_start returns when everything is queued, so that the caller can do other
 * work or start another detector.  gfl_detect_finish waits for the batch and gives what gfl_detect
 * gives.  On the CPU, gfl_detect_start does all the work.
 *
 *   images   as for gfl_detect, except that pixels are borrowed until gfl_detect_finish returns, or
 *            until opts->event has happened; uploads from page-locked memory do not wait
 *   out      [n] of the start, set to what was found; valid until the detector's next start
 *
 * Errors    As gfl_detect.  It is GFL_E_ARG, too, to start a batch before the last one is
 *           finished, and to finish one that was not started.  After any other error no batch is
 *           under way.
 * Threads   As gfl_detect.
 * Example
 *     gfl_detect_start(a, frames, 8, NULL);
 *     decode_next_frames();
 *     status = gfl_detect_finish(a, detections); */
GFL_API gfl_status gfl_detect_start(gfl_detector *detector, const gfl_image *images, int n,
                                    const gfl_detect_opts *opts);
GFL_API gfl_status gfl_detect_finish(gfl_detector *detector, gfl_detection_list *out);

/* ===============================================================================================
 * src/api/data.h - gfl_dataset: COCO annotations, image files
 * ============================================================================================ */

/* Annotations, and where the pixels of their images come from. */
typedef struct gfl_dataset gfl_dataset;

/* An id as the file has it: a number, or a text. */
typedef struct gfl_id {
    int64_t number;   /* when text is NULL */
    const char *text; /* UTF-8, or NULL */
} gfl_id;

/* What training makes of an annotation.  Where more than one reason holds, it is the first. */
typedef enum gfl_annotation_use {
    GFL_ANNOTATION_TRAINED = 0, /* its box is learnt */
    GFL_ANNOTATION_SMALL = 1,   /* left out: less than a pixel wide or high */
    GFL_ANNOTATION_NO_AREA = 2, /* left out: its area is not above 0 */
    GFL_ANNOTATION_OUTSIDE = 3, /* left out: it does not touch its image */
    GFL_ANNOTATION_CROWD = 4,   /* left out; its region is trained as background, as in the paper */
    GFL_ANNOTATION_IGNORED = 5  /* left out because of its ignore field, likewise */
} gfl_annotation_use;

/* One box of an image. */
typedef struct gfl_annotation {
    double x, y, w, h;      /* corner and size in pixels, as annotated */
    double area;            /* the area field, or w * h */
    int label;              /* index into the classes */
    int image;              /* index into the images */
    int crowd;              /* iscrowd */
    int ignore;             /* the ignore field */
    gfl_id id;              /* its own */
    gfl_annotation_use use; /* found by the library */
} gfl_annotation;

/* What a data set says about one of its images. */
typedef struct gfl_image_info {
    gfl_id id;                         /* its own */
    const char *file_name;             /* as in the file; "" when it does not say */
    int width, height;                 /* as in the file; 0 when it does not say */
    const gfl_annotation *annotations; /* [n_annotations], in file order */
    int n_annotations;                 /* how many it has */
    int unreadable; /* 1: gfl_dataset_check found that it cannot be read, with skip_unreadable */
} gfl_image_info;

/* What was found while reading.  Every count after those of the first line deserves a warning. */
typedef struct gfl_dataset_summary {
    int n_images, n_classes, n_annotations, n_crowd; /* crowd boxes among the annotations */
    int n_empty_images;                              /* without any annotation */
    int n_missing_iscrowd, n_missing_area;           /* taken as 0 and as w * h */
    int n_degenerate;     /* boxes under a pixel in a direction or without area: not trained on */
    int n_outside;        /* boxes wholly outside their image: not trained on */
    int n_partly_outside; /* boxes that reach over the border by more than a pixel */
    int n_duplicate_ids;  /* annotations whose id an earlier one has */
    int n_zero_ids;       /* annotations with id 0 (pycocotools mis-scores them) */
    int n_strays;         /* annotations left out by skip_strays */
    int n_mistakes;       /* reported to desc.found; what is wrong was left out */
    int n_unnumbered;     /* annotations without an id, numbered after the others */
    /* Annotations that write an id as another type than its image or class does: "1" and 1 are the
     * same id. */
    int n_mixed_ids;
    int n_from_polygons;   /* boxes made by boxes_from_polygons */
    int n_duplicate_names; /* classes whose name another one has: a trainer refuses them */
    int n_empty_classes;   /* classes that no annotation has; left out by drop_empty_classes */
    /* Categories that were left out because no annotation has them and they are the supercategory
     * of others: exporters add such a root to their classes. */
    int n_parents;
} gfl_dataset_summary;

/* Decoded pixels: RGB, 8 bits, turned upright as EXIF says. */
typedef struct gfl_pixels {
    uint8_t *rgb;      /* u8 [height][width][3]; free with gfl_pixels_free */
    int width, height; /* upright */
    /* Bits per sample in the file; of 16, the lower 8 were dropped.  0: not from a file. */
    int bits;
} gfl_pixels;

/* A caller's own source of pixels.  It fills *out, whose memory comes from gfl_pixels_alloc.
 * Several loader threads call it at once, each with a context of its own. */
typedef gfl_status (*gfl_pixel_source)(void *user, gfl_context *context, int image,
                                       gfl_pixels *out);

/* Called with a mistake in an annotation file.  The text is like that of an error: file, line,
 * column, which annotation of which image, what was found and what is wanted.  It is valid until
 * the function returns.  The annotation, image or category is left out, or only its field where the
 * rest can be used.  Return 0 to go on; a non-zero return makes the mistake the error of the call
 * that reads the file.  A file that is not JSON, or not of COCO's form, is an error in any case. */
typedef int (*gfl_mistake_found)(void *user, const char *text);

/* How an annotation file is read.  Zero means the default of each field. */
typedef struct gfl_dataset_desc {
    /* The folder that file_name is relative to, a path as json_path is.  NULL: that of the JSON
     * file. */
    const char *image_dir;
    gfl_pixel_source read_image; /* called instead of reading files; NULL: files are read */
    void *user;                  /* handed to read_image */
    /* 1: annotations of images or classes that are not listed are left out; 0: they are an
     * error. */
    int skip_strays;
    /* 1: images whose size is not the annotated one are read, too; 0: they are an error, since
     * their boxes are most likely wrong. */
    int trust_boxes;
    int boxes_from_polygons; /* 1: an annotation without a bbox gets the one around its polygons */
    int drop_empty_classes;  /* 1: leave out classes that no annotation has */
    /* Called with each mistake, after which reading goes on.  NULL: the first one is an error. */
    gfl_mistake_found found;
    void *found_user; /* handed to found */
    /* 1: images that cannot be read do not end a call.  An evaluation leaves out those that
     * gfl_dataset_check finds.  In training, the next image of the data set stands in for each,
     * even for one that turns up in the middle of a run, which the logger is told.  So the order of
     * an epoch, and a resumed run, do not depend on which images can be read.  0: they are an
     * error. */
    int skip_unreadable;
} gfl_dataset_desc;

/* gfl_dataset_load_coco - read an annotation file in COCO's format.
 *
 * Keys and sections may come in any order, and ids may be numbers or texts.  Keys that are not
 * needed are skipped, even where their values are NaN or Infinity.  An id is the same as a number
 * and as a text, unless the file has both.
 *
 * Label k is the k-th category by ascending id, numbers before texts.  A category is left out, and
 * not counted, when no annotation has it and it is the supercategory of others, or with
 * drop_empty_classes whenever no annotation has it.  The logger is told which are left out.
 *
 * The images themselves are not opened.
 *
 *   context    the context that the data set is made with
 *   json_path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   desc       NULL, or zeroed with the fields set that you care about; copied
 *   out        set to the data set, which you own, or to NULL on error
 *
 * Errors    GFL_E_IO      the file cannot be read
 *           GFL_E_FORMAT  it is not JSON; the text says at which line and column (in bytes), and
 *                         what the file is instead
 *           GFL_E_DATA    it contradicts itself: an id is used twice or is unknown, or a box is not
 *                         a box; with skip_strays, too, when no annotation at all fits
 *           GFL_E_MEMORY  the allocator returned NULL
 * Memory    It grows with the number of images, annotations and classes, and is at most 32 bytes
 *           per byte of the file, and 256 kB.  Destroy the data set with gfl_dataset_destroy,
 *           before the context.
 * Threads   The data set is read-only once it is loaded: any number of threads may use it, each
 *           with a context of its own.
 */
GFL_API gfl_status gfl_dataset_load_coco(gfl_context *context, const char *json_path,
                                         const gfl_dataset_desc *desc, gfl_dataset **out);

/* gfl_dataset_load_coco_memory - the same from the file's bytes, borrowed until the call returns.
 * Without image_dir, file names are relative to the working directory.
 *
 * Errors, Memory, Threads   As gfl_dataset_load_coco, except that nothing is read. */
GFL_API gfl_status gfl_dataset_load_coco_memory(gfl_context *context, const char *json, size_t size,
                                                const gfl_dataset_desc *desc, gfl_dataset **out);

/* gfl_dataset_create - a data set from what a program has in memory.
 *
 * It is checked, counted and used as a file with the same content would be.  This function takes
 * what gfl_dataset_get_classes and gfl_dataset_get_image return, so that a program can change the
 * annotations of a file or leave out some of its images.
 *
 *   context    the context that the data set is made with
 *   classes    [n_classes], copied; ids ascend, or are all 0 where there are several, which means
 *              1, 2, 3 ...; the label of an annotation is an index into it
 *   images     [n_images], copied with all annotations and texts.  Ids differ, or are all 0 where
 *              there are several, which means 1, 2, 3 ...; file_name may be NULL where
 *              desc->read_image needs none; width and height may be 0 where they are not known;
 *              unreadable is not looked at.
 *              Of an annotation, image and use are not looked at, an area of 0 means w * h, and an
 *              id of 0 means that it is numbered after the others.
 *   desc       NULL, or zeroed with the fields set that you care about; copied.  Without
 *              image_dir, file names are relative to the working directory; skip_strays and
 *              boxes_from_polygons have no effect.
 *   out        set to the data set, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, a number is out of range, a class has no name in
 *                         UTF-8, an id is a text that is not UTF-8, or class ids do not ascend
 *           GFL_E_DATA    two images have the same id; without desc->found, too, a box or an area
 *                         is not a number, or a label is that of no class; the text says which
 *                         annotation of which image
 *           GFL_E_MEMORY  the allocator returned NULL
 * Memory    Destroy the data set with gfl_dataset_destroy, before the context.
 * Threads   As gfl_dataset_load_coco.
 * Example
 *     gfl_class classes[2] = {{"cat", 1}, {"dog", 2}};
 *     gfl_annotation boxes[1] = {0};
 *     gfl_image_info images[1] = {0};
 *     boxes[0].x = 10, boxes[0].y = 20, boxes[0].w = 200, boxes[0].h = 100, boxes[0].label = 1;
 *     images[0].file_name = "dog.jpg";
 *     images[0].annotations = boxes, images[0].n_annotations = 1;
 *     status = gfl_dataset_create(context, classes, 2, images, 1, NULL, &dataset); */
GFL_API gfl_status gfl_dataset_create(gfl_context *context, const gfl_class *classes, int n_classes,
                                      const gfl_image_info *images, int n_images,
                                      const gfl_dataset_desc *desc, gfl_dataset **out);

/* gfl_dataset_destroy - free a data set; NULL is allowed. */
GFL_API void gfl_dataset_destroy(gfl_dataset *dataset);

/* gfl_dataset_get_summary - counts of what is in the file, and of what looks wrong. */
GFL_API void gfl_dataset_get_summary(const gfl_dataset *dataset, gfl_dataset_summary *out);

/* gfl_dataset_count_images, gfl_dataset_count_classes - sizes; images are in file order. */
GFL_API int gfl_dataset_count_images(const gfl_dataset *dataset);
GFL_API int gfl_dataset_count_classes(const gfl_dataset *dataset);

/* gfl_dataset_get_classes - the classes, [n_classes], owned by the data set.  Where a category id
 * of the file is a text that is not a number, the id of every class is its label plus 1. */
GFL_API const gfl_class *gfl_dataset_get_classes(const gfl_dataset *dataset);

/* gfl_dataset_get_image - what the file says about an image; the texts and annotations are owned
 * by the data set.
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such image; there is no error text,
 *                         so that threads may share the data set
 */
GFL_API gfl_status gfl_dataset_get_image(const gfl_dataset *dataset, int image,
                                         gfl_image_info *out);

/* gfl_dataset_read - decode an image of the set, from its file or through read_image.
 *
 * An image whose size is not the one that the annotation file gives is refused, since its boxes
 * were made for other pixels.  gfl_dataset_desc.trust_boxes allows it.
 *
 * Errors    As gfl_image_read.  Where there is no file of that name, the text names a similar one
 *           that there is: with / for \\, without %20 and the like, or in the image folder itself.
 *           GFL_E_DATA    the annotation file gives no name, or a size that the image does not
 *                         have; the text says whether width and height are exchanged, and whether
 *                         EXIF turned the image
 * Memory    Free the pixels with gfl_pixels_free.
 */
GFL_API gfl_status gfl_dataset_read(gfl_context *context, const gfl_dataset *dataset, int image,
                                    gfl_pixels *out);

/* Who is told of a check.  NULL: nobody. */
typedef struct gfl_dataset_check_opts {
    /* Called with each image that cannot be read, in the order of the data set. */
    void (*found)(void *user, int image, gfl_status status, const char *text);
    /* Called now and then with the number of images looked at and the total.  A non-zero return
     * stops the check. */
    int (*progress)(void *user, int done, int total);
    void *user; /* handed to both */
} gfl_dataset_check_opts;

/* gfl_dataset_check - look at every image file of a data set before hours depend on them.
 *
 * Each file is opened and looked through as gfl_dataset_read would do it, except that no pixels are
 * made.  Every code of a JPEG is followed, the checksums of a PNG are compared and its data is
 * inflated, BMP and PNM must have as many bytes as their size needs, and the size must be the
 * annotated one.  So everything that reading would refuse is found, in about a third of the time.
 * Where the data set has a read_image, that is called instead.
 *
 * Images that cannot be read are an error of the call.  Where the data set was loaded with
 * skip_unreadable, they are marked instead (gfl_image_info.unreadable), until they can be read
 * again.  Evaluators that are created afterwards leave them out, and in training the next image
 * stands in for each.
 *
 *   context       its threads do the work
 *   dataset       no other thread may use it during the call
 *   opts          NULL, or zeroed with the fields set that you care about; its functions are called
 *                 by the calling thread
 *   n_unreadable  set to the number of images that cannot be read; may be NULL
 *
 * Errors    GFL_E_DATA     without skip_unreadable, some images cannot be read; the text says how
 *                          many, and why the first cannot
 *           GFL_E_MEMORY   the allocator returned NULL, which says nothing about an image
 *           GFL_E_STOPPED  opts->progress asked to stop
 *           GFL_E_ARG      an argument is NULL
 * Memory    For each thread, what decoding one image takes, without its pixels.
 */
GFL_API gfl_status gfl_dataset_check(gfl_context *context, gfl_dataset *dataset,
                                     const gfl_dataset_check_opts *opts, int *n_unreadable);

/* gfl_image_read - decode a JPEG, PNG, BMP or binary PNM file to RGB.
 *
 * EXIF orientation is applied, grey is replicated, alpha is dropped without blending, and of 16-bit
 * samples the high byte is taken.  Damaged and truncated files are refused, and so are those larger
 * than GFL_MAX_SIDE.  The codes of a JPEG are followed to the last block before anything is
 * decoded.  Frames of Motion JPEG use the standard's code tables, and bytes behind the last block
 * are skipped.  What is not understood is refused, never decoded to something else.
 *
 *   context  receives the error text, which names the file
 *   path     the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   out      set by the call; zeroed on error
 *
 * Errors    GFL_E_IO           the file cannot be read
 *           GFL_E_FORMAT       it is not an image, or is damaged
 *           GFL_E_UNSUPPORTED  it is an image of a kind that is not read (CMYK, or a JPEG of more
 *                              than 128 scans), it would take more memory than
 *                              gfl_context_desc.image_memory, or it is a JPEG and the library was
 *                              built with GFL_NO_STB_IMAGE
 *           GFL_E_MEMORY       the allocator returned NULL
 * Memory    Free the pixels with gfl_pixels_free.  Decoding takes the file, and up to 18 bytes per
 *           pixel that its header declares, whatever its data says: most for a progressive JPEG,
 *           and for a PNG its rows as they are stored.  The time is in proportion to pixels and
 *           file.
 */
GFL_API gfl_status gfl_image_read(gfl_context *context, const char *path, gfl_pixels *out);

/* gfl_image_read_memory - the same from a file's bytes; name is for the error text.
 *
 * Errors, Memory   As gfl_image_read, except GFL_E_IO. */
GFL_API gfl_status gfl_image_read_memory(gfl_context *context, const void *bytes, size_t size,
                                         const char *name, gfl_pixels *out);

/* gfl_image_get_kind - what kind of picture a file is, by its first bytes; its name is not looked
 * at.
 *
 *   bytes     [size] the beginning of the file; 16 bytes suffice
 *   readable  set to 1 where gfl_image_read of this build reads pictures of this kind, else to
 *             0; may be NULL
 *
 * It returns "JPEG", "PNG", "BMP", "PNM", "GIF", "WebP", "TIFF" and so on, or NULL where the bytes
 * do not begin a picture of a kind that the library knows.
 *
 * Errors    None.
 * Memory    None.
 * Threads   Any.
 */
GFL_API const char *gfl_image_get_kind(const void *bytes, size_t size, int *readable);

/* gfl_pixels_alloc - memory for an image of this size, from the context's allocator.
 *
 * Errors    GFL_E_ARG     a side is not in 1..GFL_MAX_SIDE
 *           GFL_E_MEMORY  the allocator returned NULL
 */
GFL_API gfl_status gfl_pixels_alloc(gfl_context *context, int width, int height, gfl_pixels *out);

/* gfl_pixels_free - give the pixels back and zero the struct; a second call does no harm. */
GFL_API void gfl_pixels_free(gfl_context *context, gfl_pixels *pixels);

/* ===============================================================================================
 * src/api/eval.h - gfl_evaluator: COCO's box evaluation
 * ============================================================================================ */

/* Collects detections on a data set and computes COCO's numbers from them. */
typedef struct gfl_evaluator gfl_evaluator;

/* What is evaluated, and how.  Zero means the default of each field. */
typedef struct gfl_evaluator_desc {
    int max_dets[3];    /* ascending, from 1; all 0 means 1, 10, 100 */
    int ignore_classes; /* 1: all boxes are taken to be of one class (useCats = 0) */
    /* 1: do as pycocotools does even where it is wrong.  A match with an annotation of id 0 counts
     * as false.  Of several annotations with the same id, the last stands for all.  A file with a
     * result of an unknown image is refused.  AP is -1 where max_dets lacks 100.
     * 0: ids do not matter, results of unknown images are left out and counted, and where max_dets
     * lacks 100, AP is read at the last of them. */
    int compatible;
    const int *images; /* [n_images] indices of the images to evaluate, or NULL for all; copied */
    int n_images;      /* how many these are; 0 with a list: none is evaluated */
    const int *labels; /* [n_labels] labels to evaluate, or NULL for all; copied */
    int n_labels;      /* how many these are; likewise */
} gfl_evaluator_desc;

/* COCO's twelve numbers, 0..1, or -1 where there is nothing to average.  AP over all areas is read
 * at 100 detections per image and class; the other APs, and the ARs by area, are read at the last
 * of max_dets. */
typedef struct gfl_eval_result {
    /* The mean over ten IoU thresholds; at the thresholds 0.5 and 0.75; and by the area of boxes:
     * up to 32 x 32 pixels, up to 96 x 96, and above. */
    double ap, ap50, ap75, ap_small, ap_medium, ap_large;
    double ar[3];                         /* at the three max_dets */
    double ar_small, ar_medium, ar_large; /* by the same areas */
} gfl_eval_result;

/* Results seen so far, and those of them that were left out. */
typedef struct gfl_eval_notes {
    int64_t n_results;                           /* all */
    int64_t n_unknown_images, n_unknown_classes; /* left out, since the data set lacks them */
    int64_t n_named_images; /* results whose image_id is the name of an image's file */
} gfl_eval_notes;

/* gfl_evaluator_create - an evaluator without results.
 *
 *   context  gives the memory and the threads; it may differ from the data set's
 *   dataset  borrowed; must outlive the evaluator
 *   desc     NULL, or zeroed with the fields set that you care about; copied
 *   out      set to the evaluator, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, max_dets do not ascend, or an image or label is out
 *                         of range
 *           GFL_E_MEMORY  the allocator returned NULL
 * Memory    Destroy the evaluator with gfl_evaluator_destroy.
 * Threads   An evaluator serves one call at a time.  Several may share a data set.
 * Source    pycocotools 2.0.11, COCOeval with iouType bbox.
 */
GFL_API gfl_status gfl_evaluator_create(gfl_context *context, const gfl_dataset *dataset,
                                        const gfl_evaluator_desc *desc, gfl_evaluator **out);

/* gfl_evaluator_destroy - free an evaluator; NULL is allowed. */
GFL_API void gfl_evaluator_destroy(gfl_evaluator *evaluator);

/* gfl_evaluator_add_detections - add detections of one image.
 *
 * Of detections with equal scores, those that were added first win.  There may be more than 100 per
 * image: max_dets chooses among them when the evaluation runs.
 *
 *   image       index of an image of the data set
 *   detections  [n], borrowed until the call returns; boxes are in pixels of the image, labels are
 *               those of the data set; other labels are left out, counted and logged
 *
 * Errors    GFL_E_ARG     an argument is NULL, there is no such image, or a box or score is not
 *                         finite
 *           GFL_E_MEMORY  there is no room for the 48 bytes that each detection takes
 */
GFL_API gfl_status gfl_evaluator_add_detections(gfl_evaluator *evaluator, int image,
                                                const gfl_detection *detections, int n);

/* gfl_evaluator_leave_out - do not evaluate an image, as if desc.images had not named it.
 *
 * It is for images whose pixels turn out not to be readable.  Those that gfl_dataset_check has
 * marked are left out from the start, unless desc.images names them.
 *
 * Errors    GFL_E_ARG     an argument is NULL, or there is no such image
 */
GFL_API gfl_status gfl_evaluator_leave_out(gfl_evaluator *evaluator, int image);

/* gfl_evaluator_add_results - add the results of a JSON file in COCO's format.
 *
 * The file is an array of objects with image_id, category_id, bbox (x, y, w, h) and score.  Other
 * keys are skipped.  The ids are those of the annotation file, numbers or texts.  An image_id may
 * also be the file_name of an image, or what follows its last slash where no other image has the
 * same.  Where the ids of all classes are words, a category_id may be the id of a gfl_class.
 *
 * Results of unknown images or classes are left out, counted and logged.  Where that would be all
 * of them, the file is refused.  After an error nothing of the file is kept.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *
 * Errors    GFL_E_IO      the file cannot be read
 *           GFL_E_FORMAT  it is not such a file; the text says at which line and column
 *           GFL_E_DATA    none of the results fits the data set; the text shows ids of both.  Or,
 *                         with compatible, a result names an image that the data set lacks
 *           GFL_E_MEMORY  there is no room for the results, which take at most 168 bytes each
 */
GFL_API gfl_status gfl_evaluator_add_results(gfl_evaluator *evaluator, const char *path);

/* gfl_evaluator_add_results_memory - the same from the file's bytes, borrowed until the call
 * returns.
 *
 * Errors    As gfl_evaluator_add_results, except GFL_E_IO. */
GFL_API gfl_status gfl_evaluator_add_results_memory(gfl_evaluator *evaluator, const char *json,
                                                    size_t size);

/* gfl_evaluator_save - write all results in the same format, for COCO's tools and servers.
 *
 * They are in the order of the data set's images, and for each image the best score is first.  The
 * file evaluates to the same numbers as the evaluator.  It appears under its name only when it is
 * complete.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *
 * Errors    GFL_E_IO      the file cannot be written; a file of that name is as it was
 *           GFL_E_MEMORY  the allocator returned NULL
 */
GFL_API gfl_status gfl_evaluator_save(const gfl_evaluator *evaluator, const char *path);

/* gfl_evaluator_write - write the same text as the next value of a writer, to a stream or to
 * memory.
 *
 *   writer  takes the text; see gfl_json_writer
 *
 * Errors    GFL_E_MEMORY  the allocator returned NULL;
 *           otherwise the status of the writer
 */
GFL_API gfl_status gfl_evaluator_write(const gfl_evaluator *evaluator, gfl_json_writer *writer);

/* gfl_evaluator_run - compare all results so far with the annotations.
 *
 * It may be called again after more results were added.  Without any result the numbers are 0, or
 * -1 where there is nothing to find.
 *
 *   out  set by the call; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_MEMORY  the allocator returned NULL
 */
GFL_API gfl_status gfl_evaluator_run(gfl_evaluator *evaluator, gfl_eval_result *out);

/* gfl_evaluator_get_class_result - the twelve numbers of one class, of the last gfl_evaluator_run.
 *
 * Errors    GFL_E_ARG     an argument is NULL, gfl_evaluator_run has not been called since the last
 *                         results were added, the class is not evaluated, or classes are ignored
 */
GFL_API gfl_status gfl_evaluator_get_class_result(const gfl_evaluator *evaluator, int label,
                                                  gfl_eval_result *out);

/* gfl_evaluator_get_notes - how many results there were, and how many were left out. */
GFL_API void gfl_evaluator_get_notes(const gfl_evaluator *evaluator, gfl_eval_notes *out);

/* gfl_evaluator_get_summary - the twelve lines that pycocotools prints, of the last
 * gfl_evaluator_run.
 *
 *   out       [capacity] set to the text, which ends with a 0 and is cut where it does not fit;
 *             may be NULL where capacity is 0
 *
 * It returns the length of the whole text without the 0, and 0 before a run.
 */
GFL_API size_t gfl_evaluator_get_summary(const gfl_evaluator *evaluator, char *out,
                                         size_t capacity);

/* ===============================================================================================
 * src/api/train.h - gfl_trainer: one step after another
 * ============================================================================================ */

/* A model being trained on a data set. */
typedef struct gfl_trainer gfl_trainer;

enum { GFL_MAX_MILESTONES = 8 };

/* How to train.  Zero means the default of each field.  All defaults together are the paper's
 * recipe, which is gfl_r50_fpn_1x_coco of MMDetection, with these differences:
 *
 *     drop_empty      images without annotations are kept; the recipe has 1
 *     frozen_stages   only the stem stays as it is; the recipe has 1, the first stage too
 *     lr              follows the images per update; the recipe has 0.01, as 16 images give
 *     warmup          is at most an epoch; the recipe has 500
 *
 * The command `gfl train` has one default of its own: it trains everything where weights start
 * afresh, and has frozen_stages = 1 where they come from a file.  --recipe paper sets all of it. */
typedef struct gfl_trainer_desc {
    /* Images per batch and rank, whose losses are normalised together; 0 means 16.  It is at most
     * the number of images that there are per rank.  The last batch of an epoch has as many, too:
     * it is filled up from the epoch's first images. */
    int batch;
    /* Batches whose gradients are averaged into one update; 0 means 1.  It is at most the number of
     * batches of an epoch. */
    int accumulate;
    int epochs; /* passes over the images; 0 means 12 */
    /* The learning rate is divided by 10 after each of these numbers of epochs, which ascend.  All
     * zero: after 8/12 and 11/12 of the epochs, rounded down, but not before the first epoch
     * ends. */
    int milestones[GFL_MAX_MILESTONES];
    int n_milestones; /* 0: those that are not zero; negative: none, so that the rate stays */
    /* Learning rate; 0 means 0.01 * images per update / 16.  The images per update are batch *
     * accumulate * ranks, after the limits above. */
    double lr;
    double momentum; /* 0 means 0.9; negative: none */
    /* Of all trained parameters, in dialect gfocal of all except biases, which have twice the rate;
     * 0 means 0.0001; negative: none. */
    double weight_decay;
    /* Updates in which the rate grows to lr, from lr / 1000, or from lr / 3 in dialect gfocal.  0
     * means 500, or an epoch where that is shorter; negative: none. */
    int warmup;
    double clip_norm; /* largest L2 norm of all gradients together; 0 and negative: no clipping */
    /* 0..4: the stem and this number of stages stay as they are; negative: all are trained. */
    int frozen_stages;
    int scale_long;      /* images are resized to fit into this ... */
    int scale_short;     /* ... by this, aspect ratio kept; both 0: as the model's preprocess */
    int scale_short_min; /* the short bound is drawn from [this, scale_short]; 0: it is fixed */
    int no_flip;         /* 1: no horizontal flips; 0: half of the images, chosen at random */
    int drop_empty;      /* 1: leave out images without annotations, as the official recipe does */
    int no_grouping;     /* 1: a batch may mix landscape and portrait images */
    int loaders;   /* threads that decode ahead; 0 means 2; negative: none, the step decodes */
    uint64_t seed; /* of the order, the flips and the scales */
} gfl_trainer_desc;

/* What a step did.  Losses are means over the accumulated batches of all ranks. */
typedef struct gfl_step_report {
    int64_t step;        /* updates done: 1 after the first */
    int epoch;           /* of the step's batches, from 0 */
    int step_in_epoch;   /* from 0 */
    int steps_per_epoch; /* the last one has fewer batches where accumulate does not divide them */
    double lr;           /* of this update */
    double loss;         /* the sum of the three */
    double loss_cls, loss_bbox, loss_dfl; /* of classes, boxes and distributions, weighted */
    double grad_norm;                     /* L2, of all gradients together, before clipping */
    int n_positives;                      /* locations that learnt a box, on all ranks */
    int n_images;                         /* of all ranks */
    double data_seconds;                  /* of waiting for images */
    double seconds;                       /* all of the step */
    int epoch_done;                       /* 1 after the last step of an epoch */
    int training_done;                    /* 1 after the last step of all */
} gfl_step_report;

/* What a description means for a model and a data set. */
typedef struct gfl_trainer_info {
    /* With every default filled in, and batch and accumulate limited to the data set.  Negative
     * fields still mean none. */
    gfl_trainer_desc desc;
    int n_images;         /* that are trained on */
    int n_dropped_images; /* that are left out: small ones, or those without annotations */
    int steps_per_epoch;  /* updates */
    int64_t n_steps;      /* of all epochs */
    int64_t n_done;       /* updates so far, including those before load_state */
    /* The most that maps, gradients and momentum take, at the largest shape of a batch. */
    size_t workspace_bytes;
    int64_t images_per_update; /* batch * accumulate * ranks */
} gfl_trainer_info;

/* gfl_trainer_create - train a model on a data set.
 *
 * It does stochastic gradient descent with momentum.  The running statistics of batch norms stay as
 * they are.  Every epoch has its own random order, and its last batch is filled up from its first
 * images.  Nothing is read or computed before the first step.
 *
 * In a context with ranks, all ranks create a trainer, take the same steps, save and load; those
 * calls wait for the other ranks.  The ranks share the images of every batch and move their weights
 * alike.  They begin with the weights of rank 0.  Models, data sets and descriptions (except for
 * loaders) must be the same on all ranks.  batch is that of one rank: R ranks of b images learn
 * what one rank of R * b images would, except for rounding, provided that the images have one size
 * and the sum of box weights is not below the least that is divided by (spec 5.4).
 *
 *   context  gives the memory and the threads, and receives the error text
 *   model    made with desc.trainable; borrowed, and changed by every step
 *   dataset  borrowed; its classes must be the model's, by name, unless the model was made without
 *            classes
 *   desc     NULL or zeroed for the defaults; copied
 *   out      set to the trainer, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, a field is out of range, or the model is not
 *                         trainable
 *           GFL_E_MISMATCH  the data set has other classes than the model; or the description, the
 *                         data set or the network is not that of rank 0; the text says what differs
 *           GFL_E_RANK    another rank failed, or did not answer within its limit: so the others
 *                         hear of a rank whose arguments are wrong, or that has no memory to begin
 *           GFL_E_DATA    there is no image to train on
 *           GFL_E_MEMORY  the gradients do not fit into memory, or no batch of this size could
 *           GFL_E_DEVICE  a loader thread could not be started
 *           GFL_E_UNSUPPORTED  the context is on a GPU, while training needs one on the CPU
 * Memory    Gradients and momentum are allocated at once, maps as the batches need them: at most
 *           workspace_bytes of gfl_trainer_info, and the images of up to three batches.  Destroy
 *           the trainer with gfl_trainer_destroy, before the model, the data set and the context.
 * Threads   As the context.  While a step runs, nobody else may use the model.
 * Source    Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section 4.
 *           Schedule and defaults are those of MMDetection 3, gfl_r50_fpn_1x_coco, or in dialect
 *           gfocal those of implus/GFocal.
 * Example
 *     gfl_step_report r;
 *     do status = gfl_trainer_step(trainer, &r);
 *     while (status == GFL_OK && !r.training_done); */
GFL_API gfl_status gfl_trainer_create(gfl_context *context, gfl_model *model,
                                      const gfl_dataset *dataset, const gfl_trainer_desc *desc,
                                      gfl_trainer **out);

/* gfl_trainer_destroy - free a trainer, and make its model detect as by gfl_model_sync; NULL is
 * allowed. */
GFL_API void gfl_trainer_destroy(gfl_trainer *trainer);

/* gfl_trainer_get_info - the description with its defaults, and what it means; zeros for NULL.
 *
 * Threads   Any, between steps. */
GFL_API void gfl_trainer_get_info(const gfl_trainer *trainer, gfl_trainer_info *out);

/* gfl_trainer_step - one update: read the next batches, compute losses and gradients, move the
 * weights.
 *
 * The same description, data, weights and number of steps give the same weights to the bit,
 * whatever the number of loaders and threads.
 *
 *   out  set to what the step did, zeroed on error; may be NULL
 *
 * Errors    After an error the weights are as before the step, and the next call tries the same
 *           step again.  When one rank fails, all ranks do.
 *           GFL_E_ARG     an argument is NULL, or all steps are done
 *           GFL_E_NONFINITE  a loss or a gradient is NaN or infinite, or the update would make a
 *                         weight so; the text says which, and names the images
 *           GFL_E_IO, GFL_E_FORMAT, GFL_E_UNSUPPORTED, GFL_E_DATA  an image cannot be used; the
 *                         text names it
 *           GFL_E_MEMORY  the maps of this batch do not fit into memory
 *           GFL_E_RANK    another rank failed, and says there why; or it did not answer, and then
 *                         the ranks cannot go on
 * Threads   As gfl_trainer_create. */
GFL_API gfl_status gfl_trainer_step(gfl_trainer *trainer, gfl_step_report *out);

/* gfl_trainer_save_state - write what is needed beside the weights to continue later.
 *
 * It is a safetensors file with the momentum of every parameter, and as metadata the position, the
 * description, and fingerprints of data and weights.  Save the weights with gfl_model_save at the
 * same step.  With ranks, all of them call this and rank 0 writes; gfl_model_save is for rank 0
 * alone.  A file of that name is replaced whole or not at all.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns; may be NULL on all
 *         ranks except the first
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_IO      the file cannot be written
 *           GFL_E_MEMORY  there is no room for one tensor
 *           GFL_E_MISMATCH  the weights of this rank are no longer those of rank 0
 *           GFL_E_RANK    another rank failed, or does not answer */
GFL_API gfl_status gfl_trainer_save_state(const gfl_trainer *trainer, const char *path);

/* gfl_trainer_save_state_memory - the bytes of the file that gfl_trainer_save_state would write,
 * for gfl_trainer_load_state_memory.
 *
 *   out  set to the bytes; free them with gfl_bytes_free and the trainer's context; zeroed on
 *        error, and on all ranks except the first, where it may be NULL
 *
 * Errors    As gfl_trainer_save_state, except GFL_E_IO.  It is GFL_E_MEMORY, too, when there is no
 *           room for the bytes.
 * Threads   As gfl_trainer_create. */
GFL_API gfl_status gfl_trainer_save_state_memory(const gfl_trainer *trainer, gfl_bytes *out);

/* gfl_trainer_load_state - continue where gfl_trainer_save_state was called.
 *
 * The model must have the weights that were saved with the state.  The trainer must have the same
 * data and the same description, except for loaders, epochs and milestones.  The pixels of images
 * are not compared.  The next step then gives the same bits as it would have given.  Other epochs
 * or milestones hold as if they had been set from the beginning, except for the steps already done.
 *
 * With ranks, all of them call this and rank 0 reads.  Another number of ranks than that which
 * saved the state may continue at any step if ranks * batch and accumulate are the same, but with
 * other bits.  Otherwise it may continue at the end of an epoch, and where the images per update
 * are others, with the rate and warm-up of the trainer.
 *
 * A state that was written before batches were limited to the size of the data set continues with
 * the learning rate that it began with.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns; may be NULL on all
 *         ranks except the first
 *
 * Errors    After an error other than GFL_E_RANK the trainer is as before.
 *           GFL_E_ARG     an argument is NULL
 *           GFL_E_IO      the file cannot be read
 *           GFL_E_FORMAT  it is not a training state, or it is damaged: a counter is not a number,
 *                         or a momentum is not finite
 *           GFL_E_MISMATCH  the description, the data set or the network is another, or the weights
 *                         are of another step; the text says what differs
 *           GFL_E_UNSUPPORTED  a newer version has written it
 *           GFL_E_MEMORY  there is no room for the momentum twice
 *           GFL_E_RANK    another rank failed, or does not answer
 * Memory    Until it returns, it takes the momentum a second time, one tensor, and what the file's
 *           header takes, at most 40 times its bytes. */
GFL_API gfl_status gfl_trainer_load_state(gfl_trainer *trainer, const char *path);

/* gfl_trainer_load_state_memory - gfl_trainer_load_state from the bytes of such a file.
 *
 *   bytes  [size], borrowed until the call returns; may be NULL on all ranks except the first
 *
 * Errors, Memory, Threads   As gfl_trainer_load_state. */
GFL_API gfl_status gfl_trainer_load_state_memory(gfl_trainer *trainer, const void *bytes,
                                                 size_t size);

/* ===============================================================================================
 * src/api/import.h - other people's checkpoints and backbones, and models made from models
 * ============================================================================================ */

/* What the caller knows of a checkpoint.  Zero means the default of each field. */
typedef struct gfl_import_desc {
    int trainable;       /* as in gfl_load_desc */
    gfl_dialect dialect; /* as in gfl_load_desc */
    gfl_style style;     /* demanded: a file that says another one is refused */
    /* Used instead of what the file says, which may be nothing: mean, std and bgr together unless
     * std is 0, and each side of the scale unless it is 0.  Borrowed; NULL: the file's. */
    const gfl_preprocess *preprocess;
    const gfl_class *classes; /* [n_classes] instead of the file's; borrowed; NULL: the file's */
    int n_classes;            /* must be what the tensors have */
} gfl_import_desc;

/* What a backbone file is. */
typedef struct gfl_backbone_info {
    gfl_arch arch;             /* what the backbone decides; the rest is 0 */
    gfl_preprocess preprocess; /* that it was trained with */
    gfl_origin style, input;   /* who said arch.style, and preprocess */
    int stages;                /* 1..4; files may end before the last */
} gfl_backbone_info;

/* A class that has another name in the new list. */
typedef struct gfl_rename {
    const char *from, *to; /* its name in the source, and in the new list */
} gfl_rename;

/* How a model becomes one of other classes. */
typedef struct gfl_transfer_desc {
    const gfl_class *classes; /* [n_classes] of the new model, copied */
    int n_classes;            /* how many it has */
    /* [n_classes] the label of the source that each class starts from; -1: it starts afresh.  NULL:
     * classes are matched by name. */
    const int *map;
    const gfl_preprocess *preprocess; /* NULL: the source's */
    uint64_t seed;                    /* of what starts afresh */
} gfl_transfer_desc;

/* gfl_model_import - a model from a checkpoint of PyTorch, or from anyone's safetensors.
 *
 * It reads what gfl_model_load reads and, in addition, .pth files of both containers, which it
 * tells apart by their content.  Names may be those of implus/GFocal or of mmdetection 1 to 3, with
 * a wrapper's "module." or "model." in front.  The architecture, deformable stages included,
 * follows from the tensors.  The dialect follows from the file, or it has to be given.  Where a
 * file has 80 classes and does not name them, or has COCO's names without ids, they become COCO's
 * names and category ids.  gfl_model_get_info tells in origins what was said and what was assumed,
 * and gfl_model_get_report tells what became of each tensor.
 *
 * The text of mmdetection's configuration, which its checkpoints hold, is read, too, and never
 * executed.  Mean, std, channel order, style, scale and class names come from it.  It is an error
 * where it asks for what gfl does not have, or where it contradicts the tensors.  Test settings
 * that differ from gfl's are a warning to the logger.  What nobody says is assumed; gfl_model_save
 * writes down that it was, so that a later load still reports GFL_ORIGIN_DEFAULT.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   desc  NULL or zeroed to take all from the file; borrowed
 *   out   set to the model, which you own, or to NULL on error
 *
 * Errors    As gfl_model_load, and in addition
 *           GFL_E_MISMATCH  the file contradicts desc, or its configuration contradicts its tensors
 *           GFL_E_UNSUPPORTED  the configuration asks for another network, or the .pth is
 *                         compressed, encrypted or big-endian
 *           GFL_E_FORMAT  the .pth is damaged or hostile
 * Memory    Tensors are read one by one.  Whatever a file says, reading it takes at most 80 times
 *           its bytes and some megabytes, the model included, and time in proportion to its bytes.
 * Threads   As gfl_model_create.
 * Example
 *     gfl_model_import(context, "gfl_r50_fpn_1x_coco.pth", NULL, &model); */
GFL_API gfl_status gfl_model_import(gfl_context *context, const char *path,
                                    const gfl_import_desc *desc, gfl_model **out);

/* gfl_backbone_describe - which model a backbone file asks for, without loading it.
 *
 * The file, safetensors or .pth, may be a backbone of torchvision, timm or OpenMMLab, one of MSRA's
 * "caffe" ones with metadata, or a detector with its backbone.  A model that is made as described
 * can load the file with gfl_model_load_backbone.
 *
 *   path  the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   desc  NULL, or style and preprocess for a file that does not say them; borrowed
 *   out   set by the call; zeroed on error
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_IO, GFL_E_FORMAT   as gfl_model_import
 *           GFL_E_MISMATCH  it is not a ResNet with these names, or desc contradicts the file
 *           GFL_E_UNSUPPORTED  a depth or width that gfl does not have
 * Example
 *     gfl_backbone_describe(context, path, NULL, &backbone);
 *     desc.arch = backbone.arch;
 *     desc.preprocess = backbone.preprocess;
 *     desc.trainable = 1;
 *     gfl_model_create(context, &desc, &model);
 *     gfl_model_load_backbone(model, path); */
GFL_API gfl_status gfl_backbone_describe(gfl_context *context, const char *path,
                                         const gfl_import_desc *desc, gfl_backbone_info *out);

/* gfl_model_load_backbone - start a model from a backbone trained on ImageNet.
 *
 * It takes what fits, by the names that gfl_backbone_describe knows.  The rest of the backbone is
 * initialised afresh; neck and head stay as they are.  Files may end before the last stage, and may
 * lack the offset convolutions of deformable stages, which then start at 0.  gfl_model_get_report
 * tells what was loaded, initialised and left over.
 *
 *   model  created or loaded with desc.trainable
 *   path   safetensors or .pth; the system's bytes, on Windows UTF-8; borrowed until the call
 *          returns
 *
 * Errors    GFL_E_ARG     an argument is NULL, or the model is not trainable
 *           GFL_E_IO, GFL_E_FORMAT   as gfl_model_import
 *           GFL_E_MISMATCH  nothing fits, or the depth, width, style or preprocessing is not that
 *                         of the model
 *           GFL_E_UNSUPPORTED  gfl has no such depth or width
 *           The model is unchanged after an error.
 * Threads   As the model's context.  No detector may run the model during the call. */
GFL_API gfl_status gfl_model_load_backbone(gfl_model *model, const char *path);

/* gfl_model_save_backbone - write the stem and the first stages of a model as safetensors with
 * torchvision's names, which gfl_model_load_backbone and Python read.
 *
 * Style, channel order, mean and std go into the metadata.  A file of that name is replaced whole
 * or not at all.
 *
 *   model   made with desc.trainable
 *   stages  how many stages, 1..4
 *   path    the system's bytes, on Windows UTF-8; borrowed until the call returns
 *
 * Errors    GFL_E_ARG     an argument is NULL, the model is not trainable, or stages is out of
 *                         range
 *           GFL_E_IO      the file cannot be written
 *           GFL_E_MEMORY  there is no room for one tensor */
GFL_API gfl_status gfl_model_save_backbone(const gfl_model *model, int stages, const char *path);

/* gfl_match_classes - which class of one list is which of another, by name.
 *
 *   from, to  [n_from] the old list, [n_to] the new one
 *   renames   [n_renames]; `from` of each names a class of the old list, `to` one of the new list;
 *             they come before equal names
 *   map       [n_to] set to the label in the old list for each class of the new one, or to -1
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_MISMATCH  a rename names a class that is not in its list, or two renames name the
 *                         same class */
GFL_API gfl_status gfl_match_classes(gfl_context *context, const gfl_class *from, int n_from,
                                     const gfl_class *to, int n_to, const gfl_rename *renames,
                                     int n_renames, int *map);

/* gfl_model_create_from - a model with another's weights and another class list.
 *
 * The rows of the classifier that the map names are copied bit for bit; the others start as in a
 * new model.  Everything else is kept: architecture, dialect, and all other weights.
 * gfl_model_get_report tells what became of each tensor.  The new model is trainable and
 * independent of the source.
 *
 *   source  made with desc.trainable; borrowed until the call returns
 *   desc    borrowed; its texts are copied
 *   out     set to the model, which you own, or to NULL on error
 *
 * Errors    GFL_E_ARG     an argument is NULL, the source is not trainable, or classes or map are
 *                         out of range
 *           GFL_E_MEMORY  the weights do not fit into memory
 * Memory, Threads   As gfl_model_create.
 * Example
 *     gfl_import_desc from = {0};
 *     gfl_transfer_desc to = {0};
 *     from.trainable = 1;
 *     to.classes = gfl_dataset_get_classes(data);
 *     to.n_classes = gfl_dataset_count_classes(data);
 *     gfl_model_import(context, "gfl_r50_fpn_1x_coco.pth", &from, &published);
 *     gfl_model_create_from(context, published, &to, &model);
 *     gfl_model_destroy(published); */
GFL_API gfl_status gfl_model_create_from(gfl_context *context, const gfl_model *source,
                                         const gfl_transfer_desc *desc, gfl_model **out);

/* ===============================================================================================
 * src/api/evaluate.h - a model's numbers on a data set
 * ============================================================================================ */

/* How a model is evaluated.  Zero means the default of each field. */
typedef struct gfl_evaluate_desc {
    /* The options of each call of gfl_detect; NULL: the defaults.  Boxes are never clipped to the
     * image, as in COCO results. */
    const gfl_detect_opts *detect;
    /* How many images run through the network at once; 0 means 1.  More keep a GPU busier.  All
     * images of a batch are padded to the largest, which may change the last digits of scores and
     * boxes. */
    int batch;
    /* [n_renames] what the model calls `from` is called `to` in the data set. */
    const gfl_rename *renames;
    int n_renames; /* how many these are */
    /* Called after every image with the number of images done and the total.  A non-zero return
     * stops the call with GFL_E_STOPPED.  NULL: no call. */
    int (*progress)(void *user, int done, int total);
    void *user; /* handed to progress */
} gfl_evaluate_desc;

/* gfl_match_dataset - which class of a data set is which of a model, by name.
 *
 * Where a model names none of its classes ("class 0" and so on) and has as many as the data set,
 * they are taken in the order of the data set, and the logger is told.
 *
 *   context    receives the error text
 *   renames    [n_renames] what the model calls `from` is called `to` in the data set; they come
 *              before equal names
 *   map        [n_classes of the model] set to the label in the data set for each label of the
 *              model, or to -1 where the data set has no such class
 *
 * Errors    GFL_E_ARG     an argument is NULL
 *           GFL_E_DATA    two classes of the data set have the same name
 *           GFL_E_MISMATCH  no class is in both; or an annotation has a class that the model does
 *                         not know; or two classes of the data set would be one of the model; or a
 *                         rename names a class that is not there
 *           GFL_E_MEMORY  the allocator returned NULL
 * Threads   As the context.  The data set and the model are only read. */
GFL_API gfl_status gfl_match_dataset(gfl_context *context, const gfl_model *model,
                                     const gfl_dataset *dataset, const gfl_rename *renames,
                                     int n_renames, int *map);

/* gfl_evaluator_add_model - add what a model finds in the images of the evaluator's data set.
 *
 * Images that are not evaluated are not read.  Where the data set was made with skip_unreadable, an
 * image that cannot be read is left out of the evaluation, and the logger is told.  Classes are
 * matched by gfl_match_dataset; detections of a class that the data set lacks are dropped.
 *
 *   model  on the device of the evaluator's context; borrowed until the call returns
 *   desc   NULL or zeroed for the defaults; borrowed until the call returns
 *
 * Errors    Those of gfl_match_dataset, gfl_dataset_read and gfl_detect; what was added before the
 *           error stays
 *           GFL_E_STOPPED  desc->progress asked to stop
 * Memory    A detector, and the pixels of a batch, until it returns.
 * Threads   As the evaluator. */
GFL_API gfl_status gfl_evaluator_add_model(gfl_evaluator *evaluator, const gfl_model *model,
                                           const gfl_evaluate_desc *desc);

/* gfl_evaluate - COCO's twelve numbers of a model on a data set, in one call.
 *
 * It makes an evaluator, adds the model to it and runs it.  Make an evaluator yourself for the
 * numbers of each class, for a file of results, or for other options of the evaluation.
 *
 *   context  gives the memory and the threads; must be on the model's device
 *   desc     NULL or zeroed for the defaults; borrowed until the call returns
 *   out      set to the numbers; zeroed on error
 *
 * Errors    Those of gfl_evaluator_create, gfl_evaluator_add_model and gfl_evaluator_run
 * Threads   As the context.  The data set and the model are only read.
 * Example
 *     gfl_eval_result r;
 *     if (gfl_evaluate(context, model, dataset, NULL, &r) == GFL_OK) printf("AP %.3f\n", r.ap); */
GFL_API gfl_status gfl_evaluate(gfl_context *context, const gfl_model *model,
                                const gfl_dataset *dataset, const gfl_evaluate_desc *desc,
                                gfl_eval_result *out);

/* ===============================================================================================
 * src/api/export.h - weights and networks for other programs
 * ============================================================================================ */

/* What gfl_model_export writes. */
typedef enum gfl_export_format {
    GFL_EXPORT_MMDET = 1, /* safetensors, for load_state_dict(strict=True) of mmdetection 3 */
    GFL_EXPORT_PTH = 2,   /* a PyTorch checkpoint, for torch.load(weights_only=True) */
    GFL_EXPORT_ONNX = 3   /* the network with its weights, for ONNX Runtime and others */
} gfl_export_format;

/* Options of GFL_EXPORT_ONNX; the other formats take none. */
typedef struct gfl_export_opts {
    int decode; /* 1: the graph gives scores and boxes; 0: it gives the logits of each level */
    int pixels; /* 1: the graph takes bytes and normalises them; 0: it takes normalised floats */
    int batch;  /* number of images; 0: any */
    int width, height; /* set both or none; 0: any; without pixels, multiples of 32 */
} gfl_export_opts;

/* gfl_model_export - write a model in the form of another program.
 *
 * GFL_EXPORT_MMDET and GFL_EXPORT_PTH hold every key of the official implementation's state dict,
 * with its shapes (convolutions OIHW) and its constant buffers.  For a model of dialect gfocal that
 * is the state dict of implus/GFocal, which only GFL_EXPORT_PTH writes.  A .pth is
 * {"state_dict", "meta"}, with class names in meta["CLASSES"] and meta["dataset_meta"], and with
 * what gfl_model_save says about a model in meta["gfl"].
 *
 * GFL_EXPORT_ONNX is a graph of standard operators, of opset 17, or of opset 19 where convolutions
 * are deformable (DeformConv).  Batch norm is folded into the convolutions.
 *
 *     input        without pixels: "input", f32 [N, 3, H, W], normalised, padded with 0 to
 *                  multiples of 32, with channels in the network's order
 *                  with pixels: "image", u8 [N, H, W, 3], RGB, of any size; the graph normalises
 *                  and pads.  The caller resizes.
 *     output       without decode: "cls_score.l" f32 [N, K, h, w] and "bbox_pred.l"
 *                  f32 [N, 4 * (reg_max + 1), h, w] of the levels l = 0..4, strides 8..128, as
 *                  mmdetection's head gives them
 *                  with decode: "scores" f32 [N, points, K] in 0..1 and "boxes" f32
 *                  [N, points, 4], x1 y1 x2 y2 in pixels of the input, not clipped; the points are
 *                  those of all levels, row by row.  In dialect gfocal x2 and y2 are the last
 *                  pixels of the box: add 1.  The graph has no threshold and no non-maximum
 *                  suppression.
 *     metadata     classes, class_ids, mean, std, channel_order, scale, dialect
 *
 * A file of that name is replaced whole or not at all.
 *
 *   model   made with desc.trainable; other models have freed their parameters
 *   path    the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   opts    NULL or zeroed for a graph that takes normalised floats of any size and gives logits;
 *           borrowed
 *
 * Errors    GFL_E_ARG          an argument is NULL, the format is unknown, a size is out of range,
 *                              or the model is not trainable; for ONNX, too, when training has
 *                              changed the model since gfl_model_sync
 *           GFL_E_UNSUPPORTED  the model is of dialect gfocal and would give wrong boxes in
 *                              mmdetection; or it has more than 4 GB as .pth or 2 GB as ONNX
 *           GFL_E_IO           the file cannot be written
 *           GFL_E_MEMORY       there is no room for one tensor
 * Memory    One tensor at a time.
 * Threads   As the model's context.
 * Example
 *     gfl_export_opts opts = {0};
 *     opts.decode = opts.pixels = 1;
 *     gfl_model_export(model, GFL_EXPORT_ONNX, &opts, "model.onnx"); */
GFL_API gfl_status gfl_model_export(const gfl_model *model, gfl_export_format format,
                                    const gfl_export_opts *opts, const char *path);

/* gfl_model_export_memory - the bytes of the file that gfl_model_export would write.
 *
 *   out  set to the bytes; free them with gfl_bytes_free and the model's context; zeroed on error
 *
 * Errors    As gfl_model_export, except GFL_E_IO.
 * Memory    The bytes, and up to twice as much until the call returns.
 * Threads   As the model's context. */
GFL_API gfl_status gfl_model_export_memory(const gfl_model *model, gfl_export_format format,
                                           const gfl_export_opts *opts, gfl_bytes *out);

#ifdef __cplusplus
}
#endif

#endif /* GFL_H */

#if defined(GFL_INTERNAL) || defined(GFL_IMPLEMENTATION)
#ifndef GFL_INTERNAL_H
#define GFL_INTERNAL_H

/* ===============================================================================================
 * src/core/std.h - the C library and the system for the implementation
 * ============================================================================================ */

#include <errno.h>
#include <float.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(_WIN32)
/* Without what it can be asked to leave out, and without leaving the asking behind. */
#    if defined(WIN32_LEAN_AND_MEAN) && defined(NOMINMAX)
#        include <windows.h>
#    elif defined(WIN32_LEAN_AND_MEAN)
#        define NOMINMAX
#        include <windows.h>
#        undef NOMINMAX
#    elif defined(NOMINMAX)
#        define WIN32_LEAN_AND_MEAN
#        include <windows.h>
#        undef WIN32_LEAN_AND_MEAN
#    else
#        define NOMINMAX
#        define WIN32_LEAN_AND_MEAN
#        include <windows.h>
#        undef WIN32_LEAN_AND_MEAN
#        undef NOMINMAX
#    endif
#    if defined(__MINGW32__) && !defined(_UCRT) && !__USE_MINGW_ANSI_STDIO
#        error "gfl: Windows' old printf knows no %zu: compile with -D__USE_MINGW_ANSI_STDIO=1"
#    endif
#else
#    include <fcntl.h>
#    include <pthread.h>
#    include <sys/stat.h>
#    include <unistd.h>
#    if !defined(CLOCK_MONOTONIC) || !defined(O_CLOEXEC)
#        error "gfl: this needs POSIX: -std=gnu11, or -D_POSIX_C_SOURCE=200809L before any #include"
#    endif
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#    error "gfl: this machine is big-endian; only little-endian ones are supported"
#endif
#if defined(__cplusplus) && __cplusplus < 201703L
#    error "gfl: the implementation in C++ needs -std=c++17"
#endif
#if defined(__x86_64__)
#    include <immintrin.h>
#elif defined(__aarch64__)
#    include <arm_neon.h>
#endif

/* ===============================================================================================
 * src/core/check.h - return early on failure, and sizes that cannot overflow
 * ============================================================================================ */

#define GFLI_TRY(call)                                                                             \
    do {                                                                                           \
        gfl_status gfli_try_ = (call);                                                             \
        if (gfli_try_ != GFL_OK) return gfli_try_;                                                 \
    } while (0)

/* What a public function demands of its arguments, so that GFL_E_ARG always has a text: that a
 * condition holds, and that an argument is not NULL.  context may be NULL. */
#define GFLI_DEMAND(context, condition, ...)                                                       \
    do {                                                                                           \
        if (!(condition)) return gfli_error(context, GFL_E_ARG, __VA_ARGS__);                      \
    } while (0)
#define GFLI_NOT_NULL(context, argument)                                                           \
    GFLI_DEMAND(context, argument, "%s: %s is NULL", __func__, #argument)

#if defined(__MINGW_PRINTF_FORMAT)
#    define GFLI_PRINTF(text, first) __attribute__((__format__(__MINGW_PRINTF_FORMAT, text, first)))
#    define GFLI_RESTRICT            __restrict__
#elif defined(__GNUC__)
#    define GFLI_PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))
#    define GFLI_RESTRICT            __restrict__
#else
#    define GFLI_PRINTF(text, first)
#    define GFLI_RESTRICT
#endif

/* Between these two no compiler makes one rounding of a product and a sum, though most would in
 * their default mode where the CPU can, so that builds of other compilers, modes and levels give
 * the same bits.  What stands behind them is the host's again. */
#if defined(__clang__)
#    define GFLI_EXACT_BEGIN _Pragma("STDC FP_CONTRACT OFF")
#    define GFLI_EXACT_END   _Pragma("STDC FP_CONTRACT DEFAULT")
#elif defined(__GNUC__) && !defined(__CUDACC__)
#    define GFLI_EXACT_BEGIN                                                                       \
        _Pragma("GCC push_options") _Pragma("GCC optimize(\"fp-contract=off\")")
#    define GFLI_EXACT_END _Pragma("GCC pop_options")
#else
#    define GFLI_EXACT_BEGIN
#    define GFLI_EXACT_END
#endif

/* What stands between these two is the library's own: hidden, with C's linkage, and exact. */
#if defined(__GNUC__) && !defined(_WIN32)
#    define GFLI_HIDDEN_BEGIN _Pragma("GCC visibility push(hidden)")
#    define GFLI_HIDDEN_END   _Pragma("GCC visibility pop")
/* In C++, gfl_context holds what is hidden. */
#    define GFLI_QUIET_BEGIN                                                                       \
        _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wattributes\"")
#    define GFLI_QUIET_END _Pragma("GCC diagnostic pop")
#else
#    define GFLI_HIDDEN_BEGIN
#    define GFLI_HIDDEN_END
#    define GFLI_QUIET_BEGIN
#    define GFLI_QUIET_END
#endif
#if defined(__cplusplus)
#    define GFLI_C_BEGIN extern "C" {
#    define GFLI_C_END   }
#else
#    define GFLI_C_BEGIN
#    define GFLI_C_END
#endif
#define GFLI_BEGIN GFLI_HIDDEN_BEGIN GFLI_QUIET_BEGIN GFLI_C_BEGIN GFLI_EXACT_BEGIN
#define GFLI_END   GFLI_EXACT_END GFLI_C_END GFLI_QUIET_END GFLI_HIDDEN_END

/* A variable of which every thread has its own. */
#if defined(_MSC_VER)
#    define GFLI_THREAD_LOCAL __declspec(thread)
#else
#    define GFLI_THREAD_LOCAL __thread
#endif

/* A function that kernels call too; not every file that has it needs it. */
#if defined(__CUDACC__)
#    define GFLI_HD __host__ __device__
#elif defined(__GNUC__)
#    define GFLI_HD __attribute__((__unused__))
#else
#    define GFLI_HD
#endif

/* A symbol that carries the version.  Every file calls gfli_error by one, so that objects of
 * different versions, whose internal structs may differ, are refused by the linker. */
#define GFLI_JOIN(a, b)                     a##b
#define GFLI_OF_THIS_VERSION(name, version) GFLI_JOIN(name, version)

#define GFLI_COUNT(array) (sizeof(array) / sizeof((array)[0]))

GFLI_HD static inline int gfli_min(int a, int b) {
    return a < b ? a : b;
}

GFLI_HD static inline int gfli_max(int a, int b) {
    return a > b ? a : b;
}

GFLI_HD static inline int gfli_clamp(int v, int low, int high) {
    return gfli_min(gfli_max(v, low), high);
}

GFLI_HD static inline int gfli_ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

/* *out = a * b, or false when that does not fit. */
static inline bool gfli_mul(size_t a, size_t b, size_t *out) {
    *out = a * b;
    return a == 0 || *out / a == b;
}

GFLI_BEGIN

/* ===============================================================================================
 * src/core/os.h - the operating system: every call of it that the library makes
 * ============================================================================================ */

/* os.c is what all systems share: the rules about files, the texts of errors, the seam for tests.
 * os_posix.c and os_windows.c are one system each: the functions gfli_sys_ at the end of this file,
 * without rules and texts.  Nothing else in the library opens, reads, writes, renames or removes a
 * file, starts a thread, asks for the time or counts processors.
 *
 * THE SEAM.  With GFLI_OS_SEAM defined (gfl.h's implementation alone needs it), everything that
 * changes the file system first calls
 *
 *     int gfli_os_seam(const char *operation, const char *path);
 *
 * which the test program defines.  It is told what is about to be done: "create", "write", "sync",
 * "rename" (path is the new name), "remove" or "sync folder" (path is that of the file in it).  0
 * goes on; a value of errno makes the operation fail with it, without being done; and it may end
 * the process.  A large write is one operation, however many calls of the system it takes. */

typedef intptr_t gfli_handle; /* an open file */
enum { GFLI_NO_HANDLE = -1 };

typedef enum gfli_os_kind {
    GFLI_OS_NOTHING,
    GFLI_OS_FILE, /* a regular one */
    GFLI_OS_FOLDER,
    GFLI_OS_PIPE,  /* or FIFO, or socket */
    GFLI_OS_DEVICE /* or anything else */
} gfli_os_kind;

typedef struct gfli_os_info {
    gfli_os_kind kind;
    uint64_t size; /* of a regular file */
    int mode;      /* its permissions, as POSIX counts them; 0 where there are none */
} gfli_os_info;

/* Only regular files are opened for reading.  A reader that takes bytes as they come, up to a limit
 * of its own, may allow "/dev/stdin" to be anything else too. */
typedef enum gfli_os_source { GFLI_OS_REGULAR, GFLI_OS_REGULAR_OR_STDIN } gfli_os_source;

/* Errors name the path and the reason: GFL_E_MEMORY where the system lacks memory, else
 * GFL_E_IO. */
gfl_status gfli_os_open(gfl_context *context, const char *path, gfli_os_source source,
                        gfli_handle *out, gfli_os_info *info);
/* Up to size bytes from where the last read ended; *got is less at the end only. */
gfl_status gfli_os_read(gfl_context *context, const char *path, gfli_handle file, void *out,
                        size_t size, size_t *got);
/* The same from an offset; any number of threads at once. */
gfl_status gfli_os_read_at(gfl_context *context, const char *path, gfli_handle file,
                           uint64_t offset, void *out, size_t size, size_t *got);
void gfli_os_close(gfli_handle file);        /* GFLI_NO_HANDLE is allowed */
gfli_os_info gfli_os_look(const char *path); /* follows links */

/* The calls that change files answer 0 or the system's error, for gfli_os_error: their callers say
 * what it means. */
int gfli_os_create(const char *path, int mode, gfli_handle *out, bool *exists);
int gfli_os_open_in_place(const char *path, gfli_handle *out); /* a pipe or a device */
int gfli_os_write(const char *path, gfli_handle file, const void *data, size_t size);
int gfli_os_sync(const char *path, gfli_handle file);
int gfli_os_finish(gfli_handle file);                 /* close what was written */
int gfli_os_rename(const char *from, const char *to); /* replaces */
int gfli_os_remove(const char *path);
void gfli_os_sync_folder(const char *path); /* the folder of this file; where that is possible */
gfl_status gfli_os_error(gfl_context *context, const char *path, const char *what, int e);
gfl_status gfli_os_refuse(gfl_context *context, const char *path, const char *what,
                          gfli_os_kind kind);

/* Length of the folder part of a path, with its last separator; 0 when there is none. */
size_t gfli_os_folder_length(const char *path);
bool gfli_os_is_absolute(const char *path);
/* Where the link at path leads, as it is written there; false: it is not a link. */
bool gfli_os_link_target(const char *path, char *out, size_t capacity);
long gfli_os_process(void); /* a number that no other running process has */
int gfli_os_cpus(void);     /* that this process may use, at least 1 */
double gfli_seconds(void);  /* monotonic clock */
void gfli_os_sleep(double seconds);

/* Threads, locks and signals.  A gfli_thread must not move while it runs. */
#if defined(_WIN32)
typedef SRWLOCK gfli_mutex;
typedef CONDITION_VARIABLE gfli_condition;
typedef HANDLE gfli_thread_handle;
#else
typedef pthread_mutex_t gfli_mutex;
typedef pthread_cond_t gfli_condition;
typedef pthread_t gfli_thread_handle;
#endif

typedef struct gfli_thread {
    gfli_thread_handle handle;
    void (*run)(void *arg);
    void *arg;
    bool running;
} gfli_thread;

gfl_status gfli_thread_start(gfl_context *context, gfli_thread *thread, void (*run)(void *arg),
                             void *arg);
void gfli_thread_join(gfli_thread *thread); /* one that was never started is allowed */

void gfli_mutex_init(gfli_mutex *mutex);
void gfli_mutex_lock(gfli_mutex *mutex);
void gfli_mutex_unlock(gfli_mutex *mutex);
void gfli_mutex_destroy(gfli_mutex *mutex);
void gfli_condition_init(gfli_condition *condition);
void gfli_condition_wait(gfli_condition *condition, gfli_mutex *mutex);
void gfli_condition_signal(gfli_condition *condition);    /* wakes one */
void gfli_condition_broadcast(gfli_condition *condition); /* wakes all */
void gfli_condition_destroy(gfli_condition *condition);

/* ---- what a system provides: each answers 0 or the system's error --------------------------- */

int gfli_sys_open(const char *path, gfli_handle *out); /* for reading; never waits */
int gfli_sys_open_stdin(gfli_handle *out);             /* a handle of its own */
int gfli_sys_open_in_place(const char *path, gfli_handle *out);
int gfli_sys_create(const char *path, int mode, gfli_handle *out); /* a new file; mode 0: default */
int gfli_sys_describe(gfli_handle file, gfli_os_info *out);
int gfli_sys_look(const char *path, gfli_os_info *out);
/* Some of the bytes, 0 at the end; an interruption is not one. */
int gfli_sys_read(gfli_handle file, void *out, size_t size, size_t *got);
int gfli_sys_read_at(gfli_handle file, uint64_t offset, void *out, size_t size, size_t *got);
int gfli_sys_write(gfli_handle file, const void *data, size_t size, size_t *done);
int gfli_sys_sync(gfli_handle file);
int gfli_sys_close(gfli_handle file);
int gfli_sys_rename(const char *from, const char *to);
int gfli_sys_remove(const char *path);
int gfli_sys_sync_folder(const char *folder);
int gfli_sys_thread_start(gfli_thread *thread);
bool gfli_sys_is_memory(int e); /* is it lack of memory? */
bool gfli_sys_is_exists(int e); /* is it that there is a file of that name? */
void gfli_sys_text(int e, char *out, size_t size);

/* ===============================================================================================
 * src/core/map.h - a map is a pyramid: up to five levels in one allocation
 * ============================================================================================ */

/* What a map holds; anything but floats on GPUs alone. */
typedef enum gfli_element {
    GFLI_MAP_F32,
    GFLI_MAP_BF16,
    GFLI_MAP_FP16,
    GFLI_ELEMENTS
} gfli_element;

/* Images of a map; so many statistics of all norms of a training plan still fit an int. */
enum { GFLI_MAX_BATCH = 65536 };

/* Level after level, each [n][h[l]][w[l]][c].  An ordinary feature map has one level. */
typedef struct gfli_map {
    float *data; /* of another type where element says so */
    gfli_element element;
    int n, c, levels;
    int h[GFL_LEVELS], w[GFL_LEVELS];
} gfli_map;

/* Positions of one level, of the levels before one, of all levels (each counted for all n). */
static inline size_t gfli_level_points(const gfli_map *m, int level) {
    return (size_t)m->n * (size_t)m->h[level] * (size_t)m->w[level];
}

static inline size_t gfli_points_before(const gfli_map *m, int level) {
    size_t points = 0;
    for (int l = 0; l < level; l++) points += gfli_level_points(m, l);
    return points;
}

static inline size_t gfli_points(const gfli_map *m) {
    return gfli_points_before(m, m->levels);
}

/* Elements, and the bytes they take. */
static inline size_t gfli_map_count(const gfli_map *m) {
    return gfli_points(m) * (size_t)m->c;
}

static inline size_t gfli_element_bytes(gfli_element element) {
    return element == GFLI_MAP_F32 ? 4 : 2;
}

static inline size_t gfli_map_bytes(const gfli_map *m) {
    return gfli_map_count(m) * gfli_element_bytes(m->element);
}

/* Where element `at` of a map begins. */
static inline float *gfli_map_at(const gfli_map *m, size_t at) {
    return (float *)(void *)((unsigned char *)m->data + at * gfli_element_bytes(m->element));
}

/* One level of a pyramid as a map of its own; it shares the memory. */
static inline gfli_map gfli_map_level(const gfli_map *m, int level) {
    gfli_map one = *m;
    one.data = m->data ? gfli_map_at(m, gfli_points_before(m, level) * (size_t)m->c) : NULL;
    one.levels = 1;
    one.h[0] = m->h[level];
    one.w[0] = m->w[level];
    return one;
}

/* ===============================================================================================
 * src/core/arrange.h - one block of memory, divided
 * ============================================================================================ */

/* Cuts memory into pieces for every purpose; with base NULL it only measures. */
typedef struct gfli_cutter {
    unsigned char *base;
    size_t used;
} gfli_cutter;

static inline size_t gfli_padded(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

static inline void *gfli_cut(gfli_cutter *c, size_t bytes) {
    void *p = c->base ? c->base + c->used : NULL;
    c->used += gfli_padded(bytes);
    return p;
}

/* Memory that is needed from one moment to another, both included. */
typedef struct gfli_piece {
    size_t bytes;    /* 0: it needs no place */
    size_t offset;   /* from the start of the block, a multiple of 64 */
    int first, last; /* moments; last < first: at none, it needs no place */
    int next;        /* while pieces are placed: the placed piece that begins after this one, -1 */
    bool placed;
} gfli_piece;

/* The piece is needed at this moment too.  A piece that begins with last = -1 was never needed. */
static inline void gfli_need(gfli_piece *piece, int moment) {
    if (piece->last < 0 || moment < piece->first) piece->first = moment;
    if (moment > piece->last) piece->last = moment;
}

/* Give every piece a place where it meets none that is needed at the same time; *bytes becomes the
 * size of the block.  False: no block can be that large.  Allocates nothing. */
bool gfli_arrange(gfli_piece *pieces, int n, size_t *bytes);

static inline void *gfli_piece_at(const gfli_piece *piece, void *block) {
    return (unsigned char *)block + piece->offset;
}

/* ===============================================================================================
 * src/core/context.h - what the implementation sees of a context: errors, memory, parallel loops
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/core/group.h - sums over the ranks of a context
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/core/math.h - formulas of numbers that the CPU and the GPU share
 * ============================================================================================ */

/* By the bits of the exponent, and those read from memory: under a host's -ffast-math compilers
 * take it that values they compute, and arguments, are never NaN or infinite, whatever is asked of
 * them. */
GFLI_HD static inline bool gfli_is_finite(double x) {
    const volatile double stored = x;
    const double loaded = stored;
    uint64_t bits;
    memcpy(&bits, &loaded, sizeof bits);
    return (bits >> 52 & 0x7FF) != 0x7FF;
}

GFLI_HD static inline bool gfli_all_finite(const float *x, size_t n) {
    bool good = true;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        good = good && (bits >> 23 & 0xFF) != 0xFF;
    }
    return good;
}

/* The largest whole number that is not above v; v is within the range of ints. */
GFLI_HD static inline int gfli_whole_below(float v) {
    const int whole = (int)v;
    return (float)whole > v ? whole - 1 : whole;
}

/* The value as rounded to float32: compilers may fuse a product into the sum that takes it, and
 * whether two boxes overlap by just 0.6 must not depend on that. */
GFLI_HD static inline float gfli_rounded(float value) {
    volatile float stored = value;
    return stored;
}

GFLI_HD static inline float gfli_sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

/* A batch norm of running statistics as the scale and the bias of the convolution before it. */
GFLI_HD static inline void gfli_fold_channel(float gamma, float beta, float mean, float var,
                                             float eps, float *scale, float *bias) {
    const double a = (double)gamma / (sqrt)((double)var + (double)eps);
    *scale = (float)a;
    *bias = (float)((double)beta - a * (double)mean);
}

/* How many values there are so far, their mean and the sum of squares around it. */
typedef struct gfli_moments {
    double n, mean, squares;
} gfli_moments;

/* Those of more values; n is not 0. */
GFLI_HD static inline void gfli_merge_moments(gfli_moments *a, double n, double mean,
                                              double squares) {
    const double total = a->n + n, d = mean - a->mean;
    a->mean += d * n / total;
    a->squares += squares + d * d * a->n * n / total;
    a->n = total;
}

/* A group's statistics: mean and 1 / deviation. */
GFLI_HD static inline void gfli_finish_moments(const gfli_moments *m, float eps, float stats[2]) {
    stats[0] = (float)m->mean;
    stats[1] = (float)(1.0 / (sqrt)(m->squares / m->n + (double)eps));
}

/* The sum of k * p[k], p = softmax of the logits.  p [n_bins] is written, or NULL. */
GFLI_HD static inline float gfli_integral(const float *logits, int n_bins, float *p) {
    float largest = logits[0], sum = 0.0f, mean = 0.0f;
    for (int k = 1; k < n_bins; k++) largest = logits[k] > largest ? logits[k] : largest;
    for (int k = 0; k < n_bins; k++) {
        const float e = expf(logits[k] - largest);
        if (p) p[k] = e;
        sum += e;
    }
    for (int k = 0; k < n_bins; k++) {
        const float share = (p ? p[k] : expf(logits[k] - largest)) / sum;
        if (p) p[k] = share;
        mean += (float)k * share;
    }
    return mean;
}

/* ===============================================================================================
 * src/core/sample.h - which values of a picture or a map one of another size, or off its grid, is made of
 * ============================================================================================ */

/* ---- pictures -------------------------------------------------------------------------------- */

enum { GFLI_FORMATS = 5 };

static inline int gfli_pixel_bytes(gfl_format format) {
    static const int bytes[GFLI_FORMATS] = {3, 3, 4, 4, 1};
    return bytes[(int)format];
}

/* Bytes from a row of a picture to the next. */
static inline ptrdiff_t gfli_pixel_pitch(const gfl_image *image) {
    return image->stride ? image->stride
                         : (ptrdiff_t)image->width * gfli_pixel_bytes(image->format);
}

/* Where red, green and blue, or blue, green and red, are in a pixel. */
static inline void gfli_pixel_channels(gfl_format format, bool bgr, int channel[3]) {
    const bool stored_bgr = format == GFL_FORMAT_BGR || format == GFL_FORMAT_BGRA;
    for (int k = 0; k < 3; k++)
        channel[k] = format == GFL_FORMAT_GREY ? 0 : (stored_bgr == bgr ? k : 2 - k);
}

/* ---- resizing (spec 7.2) --------------------------------------------------------------------- */

/* Weights of the resize are in units of 1 / GFLI_RESIZE_ONE. */
enum { GFLI_RESIZE_ONE = 2048 };

/* A destination lies between the sources at and at + 1: a fraction of the way to the second. */
typedef struct gfli_tap {
    int at;
    float fraction;
} gfli_tap;

GFLI_HD static inline gfli_tap gfli_tap_of(int to, int in, int out) {
    const double scale = 1.0 / ((double)out / (double)in);
    /* volatile: fused into the subtraction, the product would not be rounded as OpenCV's is. */
    volatile double product = ((double)to + 0.5) * scale;
    const float f = (float)(product - 0.5);
    gfli_tap t;
    t.at = (int)floorf(f);
    t.fraction = f - (float)t.at;
    return t;
}

/* The tap of a column, where OpenCV drops the fraction beyond the border. */
GFLI_HD static inline gfli_tap gfli_column_tap(int to, int in, int out) {
    gfli_tap t = gfli_tap_of(to, in, out);
    if (t.at < 0) {
        t.at = 0;
        t.fraction = 0.0f;
    }
    if (t.at >= in - 1) {
        t.at = in - 1;
        t.fraction = 0.0f;
    }
    return t;
}

/* fraction * 2048 to the nearest integer, halves to the even one, in any rounding mode. */
GFLI_HD static inline int gfli_tap_weight(float fraction) {
    const float v = fraction * (float)GFLI_RESIZE_ONE;
    const int below = (int)v;
    const float rest = v - (float)below;
    return below + (rest > 0.5f || (rest == 0.5f && (below & 1)));
}

/* A value between two of a row, which OpenCV keeps in 16 bits, and one between two rows of those.
 * Weights add up to GFLI_RESIZE_ONE, so that all factors below fit 15 bits: compilers may use the
 * high half of 16-bit products. */
GFLI_HD static inline uint16_t gfli_blend_across(int first, int second, int weight, int rest) {
    return (uint16_t)((first * weight + second * rest) >> 4);
}

GFLI_HD static inline uint8_t gfli_blend_down(uint16_t upper, uint16_t lower, int16_t weight,
                                              int16_t rest) {
    const int high = ((int16_t)upper * weight) >> 16, low = ((int16_t)lower * rest) >> 16;
    const int v = (high + low + 2) >> 2;
    return (uint8_t)(v > 255 ? 255 : v);
}

/* What the network gets of a value of a pixel (spec 7.4). */
GFLI_HD static inline float gfli_normalised(uint8_t value, float mean, float std) {
    return ((float)value - mean) / std;
}

/* ---- upsampling (spec 2) --------------------------------------------------------------------- */

/* The source of a destination in upsampling; float32 as in PyTorch, whose choice it repeats. */
GFLI_HD static inline int gfli_nearest(int at, int in, int out) {
    const float scale = (float)in / (float)out;
    const int from = (int)((float)at * scale);
    return from < in - 1 ? from : in - 1;
}

/* ---- deformable convolution (spec 1.5) ------------------------------------------------------- */

/* A point between four positions of a map: top left, top right, bottom left, bottom right. */
typedef struct gfli_between {
    int top, left;     /* of the first one; it may be off the map */
    int corners;       /* bit k: corner k is on the map; 0: the point counts as 0 */
    float down, right; /* of the point from the first corner, 0 to 1 */
} gfli_between;

/* It counts when -1 < coordinate < size on both axes, which no NaN is. */
GFLI_HD static inline gfli_between gfli_between_at(int h, int w, float y, float x) {
    gfli_between p = {0, 0, 0, 0.0f, 0.0f};
    if (!(y > -1.0f && x > -1.0f && y < (float)h && x < (float)w)) return p;
    p.top = gfli_whole_below(y);
    p.left = gfli_whole_below(x);
    const int above = p.top >= 0 ? 3 : 0, below = p.top + 1 < h ? 12 : 0;
    const int before = p.left >= 0 ? 5 : 0, after = p.left + 1 < w ? 10 : 0;
    p.corners = (above | below) & (before | after);
    p.down = y - (float)p.top;
    p.right = x - (float)p.left;
    return p;
}

/* What the corners count for, those off the map too. */
GFLI_HD static inline void gfli_corner_weights(float down, float right, float weight[4]) {
    weight[0] = (1.0f - down) * (1.0f - right);
    weight[1] = (1.0f - down) * right;
    weight[2] = down * (1.0f - right);
    weight[3] = down * right;
}

/* The value of a point whose corners have these. */
GFLI_HD static inline float gfli_corner_sum(const float weight[4], float a, float b, float c,
                                            float d) {
    return weight[0] * a + weight[1] * b + weight[2] * c + weight[3] * d;
}

/* Its derivatives downwards and to the right; at a position itself, the right-sided ones. */
GFLI_HD static inline void gfli_corner_slopes(float down, float right, const float corner[4],
                                              float *downwards, float *rightwards) {
    const float up = 1.0f - down, left = 1.0f - right;
    *downwards = left * (corner[2] - corner[0]) + right * (corner[3] - corner[1]);
    *rightwards = up * (corner[1] - corner[0]) + down * (corner[3] - corner[2]);
}

/* ===============================================================================================
 * src/core/rng.h - random numbers by counter: the same draw whatever the order and the threads
 * ============================================================================================ */

/* A stream is (seed, epoch or 0, item, purpose); the i-th draw of a stream depends on nothing
 * else. */
typedef struct gfli_rng {
    uint64_t key, counter;
} gfli_rng;

gfli_rng gfli_rng_make(uint64_t seed, uint64_t epoch, uint64_t item, uint64_t purpose);
uint64_t gfli_rng_next(gfli_rng *rng);
double gfli_rng_uniform(gfli_rng *rng);   /* [0, 1) */
int gfli_rng_below(gfli_rng *rng, int n); /* 0..n-1, unbiased */
double gfli_rng_normal(gfli_rng *rng);

/* ===============================================================================================
 * src/core/file.h - files that are whole or absent, or in memory
 * ============================================================================================ */

/* Where what is written goes: to a file, or into memory. */
typedef struct gfli_sink {
    const char *path;
    gfl_bytes *bytes; /* not NULL: path is not looked at */
} gfli_sink;

static inline gfli_sink gfli_to_file(const char *path) {
    gfli_sink to = {path, NULL};
    return to;
}

static inline gfli_sink gfli_to_memory(gfl_bytes *bytes) {
    gfli_sink to = {NULL, bytes};
    return to;
}

/* A file being written under a temporary name beside its own; commit flushes and renames it.  In
 * memory commit gives the caller the buffer. */
typedef struct gfli_file {
    gfl_context *context;
    gfl_bytes *bytes;       /* of a file in memory */
    char *path, *temporary; /* temporary: NULL for a device, which is written in place */
    gfli_handle handle;
    char *buffer;       /* n of it wait to be written, or are the file in memory */
    size_t n, capacity; /* GFLI_FILE_BUFFER, or what memory has been taken */
    int failed;         /* the first error of the system */
} gfli_file;

gfl_status gfli_file_create(gfl_context *context, gfli_sink to, gfli_file *out);
/* So many bytes will be written: in memory they are taken at once. */
gfl_status gfli_file_expect(gfli_file *file, uint64_t size);
gfl_status gfli_file_write(gfli_file *file, const void *data, size_t size);
gfl_status gfli_file_commit(gfli_file *file); /* on failure the temporary file is gone */
void gfli_file_abandon(gfli_file *file);

/* The whole of a regular file, or of /dev/stdin; refuses more than limit bytes.  Free with
 * gfli_free. */
gfl_status gfli_file_read(gfl_context *context, const char *path, size_t limit, uint8_t **out,
                          size_t *size);

/* ===============================================================================================
 * src/core/quote.h - foreign text in messages: class names, file names, ids, metadata
 * ============================================================================================ */

/* Bytes of the UTF-8 sequence at p (shortest form, no surrogate, at most U+10FFFF), or 0. */
size_t gfli_utf8_length(const unsigned char *p, size_t n);

/* Room that suits an error text, closing quote and 0 included. */
enum { GFLI_QUOTED = 100 };

/* The text in double quotes and on one line, whatever it holds: quotes, backslashes, control
 * characters, marks that turn the direction of writing, and bytes that are not UTF-8 are escaped.
 * What does not fit is cut between characters, and "..." stands behind the closing quote.  n bytes
 * of text; size is at least 8.  Returns out. */
const char *gfli_quote_bytes(const char *text, size_t n, char *out, size_t size);
const char *gfli_quote(const char *text, char *out, size_t size);

/* ===============================================================================================
 * src/core/decimal.h - numbers between text and binary
 * ============================================================================================ */

/* Digits that can decide how a number is rounded; what follows them says only that there is
 * more. */
enum { GFLI_DECIMAL_DIGITS = 768 };

/* A number as the text has it: mantissa * 10^exponent.  Where its digits do not fit the mantissa,
 * as many as can decide a rounding are kept as text. */
typedef struct gfli_decimal {
    bool negative, exact; /* exact: the mantissa has all digits */
    uint64_t mantissa;
    int exponent;
    int n_digits, digits_exponent;
    char digits[GFLI_DECIMAL_DIGITS + 1];
} gfli_decimal;

/* Where the parts of a number end. */
typedef struct gfli_decimal_span {
    const unsigned char *start, *whole_end, *fraction, *fraction_end, *exponent, *end;
} gfli_decimal_span;

/* JSON's grammar of a number, in a text that ends with a byte that cannot belong to one; false
 * where the text breaks it. */
bool gfli_decimal_scan(const unsigned char *text, gfli_decimal_span *out);
void gfli_decimal_read(const gfli_decimal_span *span, bool negative, gfli_decimal *out);
/* Correctly rounded, whatever the locale and the rounding mode are. */
double gfli_decimal_value(const gfli_decimal *decimal);
/* Whole numbers exactly, 7.0 and 7e0 among them; false for all others. */
bool gfli_decimal_integer(const gfli_decimal *decimal, int64_t *out);
/* The value of a text that is such a number. */
double gfli_decimal_parse(const char *number);

/* Text of a finite number that reads back as the same double, or as a double that rounds to the
 * same float; short, and the same in any locale. */
void gfli_decimal_format(double value, bool is_float, char out[32]);

/* ===============================================================================================
 * src/core/json.h - a pull parser: a file of any size in constant memory, bounded depth
 * ============================================================================================ */

typedef enum gfli_json_kind {
    GFLI_JSON_END, /* of the enclosing object or array, or of the text */
    GFLI_JSON_OBJECT,
    GFLI_JSON_ARRAY,
    GFLI_JSON_STRING,
    GFLI_JSON_NUMBER,
    GFLI_JSON_TRUE,
    GFLI_JSON_FALSE,
    GFLI_JSON_NULL,
    GFLI_JSON_NONFINITE /* NaN, Infinity or -Infinity, as Python's json module writes them */
} gfli_json_kind;

enum { GFLI_JSON_DEPTH = 64 };

/* Reads through a buffer from a file, or from caller's bytes, in the memory of the longest text in
 * it, of at most 16 MiB, and in time in proportion to its bytes.  The first error sticks: its text
 * is in the context with file name, line and column (in bytes, from 1), and every later call
 * answers GFLI_JSON_END. */
typedef struct gfli_json gfli_json;

gfl_status gfli_json_open(gfl_context *context, const char *path, gfli_json **out);
gfl_status gfli_json_open_memory(gfl_context *context, const char *text, size_t size,
                                 const char *name, gfli_json **out);
void gfli_json_close(gfli_json *j);

/* The next value (in an object, after the key was taken with gfli_json_key).  OBJECT and ARRAY are
 * entered; END leaves the array that was being read. */
gfli_json_kind gfli_json_next(gfli_json *j);
/* Inside an object: the next key (valid until the next call), or NULL at its end, which leaves
 * it. */
const char *gfli_json_key(gfli_json *j);
/* Step over the value that comes next (after a key, or in an array). */
void gfli_json_skip(gfli_json *j);
/* How many objects and arrays are open, and out of them until so many are left. */
int gfli_json_depth(const gfli_json *j);
void gfli_json_leave_to(gfli_json *j, int depth);
/* Of the value that gfli_json_next just returned: UTF-8, escapes resolved, 0-terminated. */
const char *gfli_json_string(gfli_json *j, size_t *length);
double gfli_json_as_number(gfli_json *j);              /* correctly rounded, any locale */
bool gfli_json_as_integer(gfli_json *j, int64_t *out); /* exact, or false */
gfl_status gfli_json_status(const gfli_json *j);       /* GFL_OK, or the first error */
/* The value as an error text shows it: null, "a text", 1e999, a list. */
const char *gfli_json_found(const gfli_json *j, gfli_json_kind kind, char out[GFLI_QUOTED]);
/* Where the value, or the end, that was read last begins. */
void gfli_json_place(gfli_json *j, long *line, long *column);
/* An error of the reader's own about that place; returns status and makes it stick. */
gfl_status gfli_json_error(gfli_json *j, gfl_status status, const char *format, ...)
    GFLI_PRINTF(3, 4);

/* ---- writing (core/json_write.c): gfl_json_text and its like, and where they write to ------- */

/* gfli_decimal_format, and "null" for what is not finite. */
void gfli_json_format(double value, char out[32]);
void gfli_json_format_float(float value, char out[32]);

/* A text that grows in the context's memory; bytes ends with a 0 and is NULL before the first. */
typedef struct gfli_text {
    gfl_context *context;
    const char *what; /* for the message when there is no memory */
    char *bytes;
    size_t length, capacity;
} gfli_text;
gfl_status gfli_text_add(gfli_text *text, const char *bytes, size_t n);

/* Writers without spaces. */
gfl_json_writer gfli_json_to_text(gfli_text *text);
gfl_json_writer gfli_json_to_file(gfli_file *file);

/* ===============================================================================================
 * src/core/blob.h - safetensors: read with suspicion, write atomically
 * ============================================================================================ */

typedef enum gfli_dtype {
    GFLI_F32,
    GFLI_F16,
    GFLI_BF16,
    GFLI_F64,
    GFLI_I64,
    GFLI_I32,
    GFLI_I16,
    GFLI_I8,
    GFLI_U8,
    GFLI_BOOL
} gfli_dtype;

/* Longer names are nobody's; each is looked at several times, and pickles repeat them cheaply. */
enum { GFLI_TENSOR_NAME_MAX = 512 };

typedef struct gfli_tensor {
    char *name;
    gfli_dtype dtype;
    int rank; /* 0..8 */
    int64_t shape[8];
    size_t count;      /* elements */
    uint64_t offset;   /* bytes from the start of the file */
    uint64_t bytes;    /* of the elements, close together */
    bool strided;      /* they lie apart, or in another order: */
    int64_t stride[8]; /* elements, not negative; of strided tensors only */
} gfli_tensor;

/* An open file (or caller's bytes): the header is in memory, the data is read on demand. */
typedef struct gfli_blob {
    gfl_context *context;
    char *path;           /* for messages */
    gfli_tensor *tensors; /* sorted by name */
    int n_tensors;
    size_t tensor_capacity, name_bytes;
    char **meta; /* [2 * n_meta]: key, value */
    int n_meta;
    size_t meta_capacity;
    const uint8_t *bytes; /* or NULL with file */
    uint64_t size;
    gfli_handle file;
} gfli_blob;

gfl_status gfli_blob_open(gfl_context *context, const char *path, gfli_blob *out);
gfl_status gfli_blob_open_memory(gfl_context *context, const void *bytes, size_t size,
                                 const char *name, gfli_blob *out);
void gfli_blob_close(gfli_blob *blob);
/* For readers of other formats: a file or bytes without tensors yet; bytes from anywhere in it;
 * another tensor, cleared but for its name, and another piece of metadata; and at the end, tensors
 * sorted and names told apart. */
gfl_status gfli_blob_open_bare(gfl_context *context, const char *path, gfli_blob *out);
gfl_status gfli_blob_bare_memory(gfl_context *context, const void *bytes, size_t size,
                                 const char *name, gfli_blob *out);
gfl_status gfli_blob_read_header(gfli_blob *blob); /* a bare one as safetensors */
gfl_status gfli_blob_pread(gfli_blob *blob, uint64_t offset, void *out, uint64_t size);
gfl_status gfli_blob_add(gfli_blob *blob, const char *name, gfli_tensor **out);
gfl_status gfli_blob_add_meta(gfli_blob *blob, const char *key, const char *value);
gfl_status gfli_blob_sort(gfli_blob *blob);
bool gfli_tensor_name_is_long(const char *name); /* looks at no more of it than may be */
int gfli_dtype_bytes(gfli_dtype dtype);
const char *gfli_dtype_name(gfli_dtype dtype); /* as files have it */
const gfli_tensor *gfli_blob_find(const gfli_blob *blob, const char *name);
const char *gfli_blob_meta(const gfli_blob *blob, const char *key); /* NULL: absent */
/* All elements as f32 (from any of the float types), or raw bytes. */
gfl_status gfli_blob_read_f32(gfli_blob *blob, const gfli_tensor *tensor, float *out);
gfl_status gfli_blob_read_raw(gfli_blob *blob, const gfli_tensor *tensor, void *out);

/* Writing: declare everything, then the data in the same order; the file appears under its name
 * (temporary name, fsync, rename), or in memory, only when finish succeeds. */
typedef struct gfli_blob_writer gfli_blob_writer;
gfl_status gfli_blob_create(gfl_context *context, gfli_sink to, gfli_blob_writer **out);
gfl_status gfli_blob_put_meta(gfli_blob_writer *w, const char *key, const char *value);
gfl_status gfli_blob_declare(gfli_blob_writer *w, const char *name, gfli_dtype dtype, int rank,
                             const int64_t *shape);
/* In declared order. */
gfl_status gfli_blob_write(gfli_blob_writer *w, const void *data, size_t bytes);
gfl_status gfli_blob_finish(gfli_blob_writer *w); /* frees w, also on failure */
void gfli_blob_abandon(gfli_blob_writer *w);      /* removes the temporary file; NULL allowed */

float gfli_f16_to_f32(uint16_t h);
float gfli_bf16_to_f32(uint16_t h);

/* ===============================================================================================
 * src/core/backend.h - the tables of operations: the device, inference, training
 * ============================================================================================ */

/* Everywhere: maps are NHWC pyramids, weights f32 [out][kh][kw][in / groups] ("OHWI").  An
 * operation knows shapes, never networks.  Results do not depend on the number of threads. */

enum { GFLI_BACKEND_VERSION = 6, GFLI_CONV_CALLS = 2 };

/* Parameters begin at multiples of it in a model's block, in floats. */
enum { GFLI_BLOCK_STEP = 16 };
static inline size_t gfli_block_size(size_t count) {
    return (count + GFLI_BLOCK_STEP - 1) / GFLI_BLOCK_STEP * GFLI_BLOCK_STEP;
}

typedef struct gfli_conv_shape {
    int in_c, out_c;
    int kernel; /* 1, 3 or 7 (square) */
    int stride, pad;
    int groups;
} gfli_conv_shape;

static inline int gfli_conv_out(const gfli_conv_shape *s, int size) {
    return (size + 2 * s->pad - s->kernel) / s->stride + 1;
}

static inline size_t gfli_conv_weights(const gfli_conv_shape *s) {
    return (size_t)s->out_c * (size_t)(s->kernel * s->kernel) * (size_t)(s->in_c / s->groups);
}

/* Where the weight of an output channel, a tap and an input channel of its group is, in OHWI and
 * in OIHW, which is the order of files. */
GFLI_HD static inline size_t gfli_weight_at(int taps, int in, int o, int tap, int i) {
    return ((size_t)o * (size_t)taps + (size_t)tap) * (size_t)in + (size_t)i;
}

GFLI_HD static inline size_t gfli_file_weight_at(int taps, int in, int o, int tap, int i) {
    return gfli_weight_at(in, taps, o, i, tap);
}

/* Groups side by side as one, with zeros beside the diagonal: a block-diagonal matrix wastes less
 * than a thin one, up to so many channels of either side. */
typedef struct gfli_groups {
    int n, in, out; /* groups, and the channels of each */
} gfli_groups;

static inline gfli_groups gfli_merge_groups(const gfli_conv_shape *s, int most) {
    const int in = s->in_c / s->groups, out = s->out_c / s->groups;
    int merged = 1;
    for (int m = 2; m <= s->groups && m * in <= most && m * out <= most; m++)
        if (s->groups % m == 0) merged = m;
    gfli_groups g;
    g.n = s->groups / merged;
    g.in = in * merged;
    g.out = out * merged;
    return g;
}

/* y = relu?(conv(x) + bias + residual).  Every level of x gives the level of y. */
typedef struct gfli_conv_call {
    const gfli_conv_shape *shape;
    const void *packing; /* by conv_pack */
    const float *bias;   /* [out_c] or NULL */
    const gfli_map *x, *y;
    const gfli_map *residual; /* shaped as y, or NULL; it may be y itself */
    /* Of a deformable 3x3 convolution (spec 1.5), or NULL: one map on the grid of y with 18
     * channels, y and x offset of each tap, or 27, then the masks' logits too; no residual. */
    const gfli_map *offset;
    bool relu;
    int norm_groups;   /* not 0, where the backend fuses: leave group_norm's statistics of y */
    float eps, *stats; /* as group_norm's */
} gfli_conv_call;

#define GFLI_NORM_EPS 1e-5f /* of batch norm and group norm alike */

/* A batch norm as what it does to the convolution before it (spec 1.3):
 * scale = gamma / sqrt(var + eps), bias = beta - scale * mean, computed in double. */
typedef struct gfli_norm_fold {
    const float *gamma, *beta, *mean, *var; /* [channels] */
    float eps;
    float *scale, *bias; /* [channels], written */
    int channels;
} gfli_norm_fold;

/* How a backend computes a convolution. */
typedef struct gfli_conv_means {
    const char *kernel;  /* a word for people */
    int variant, splits; /* the backend's own number of it; parts of the sum, 1: none */
    bool apart;          /* statistics come from a kernel of their own */
    size_t scratch;      /* bytes; one scratch serves all calls */
} gfli_conv_means;

/* From raw logits to boxes, for an image of a batch (spec 6).  What differs between dialects
 * stands in the options; model/dialect.h has the table. */
typedef struct gfli_decode_opts {
    float min_score, nms_iou;
    int max_per_level, max_detections;
    int n_classes, n_bins; /* n_bins = reg_max + 1 */
    int stride[GFL_LEVELS];
    int height, width;       /* resized, without padding: the clip */
    double scale_x, scale_y; /* resized / original */
    int inclusive;    /* 0 or 1: what a width is more than x2 - x1; position i of a stride s is at
                         i * s + pixel * (s - 1) / 2, the last coordinate is width - pixel */
    bool by_location; /* max_per_level counts locations, by their best class; then all their pairs
                         above min_score are candidates.  false: it counts pairs */
    bool divide;      /* boxes are divided by the scale, not multiplied with its inverse */
    bool agnostic;    /* a box is suppressed by boxes of all classes, not of its own alone */
    const uint8_t
        *wanted; /* [n_classes] of the device, not all 0: classes that are 0 are as if they
                              were not there; NULL: all are wanted */
} gfli_decode_opts;

/* One surviving detection and the location it comes from. */
typedef struct gfli_decoded {
    gfl_detection detection;
    int level, y, x;
} gfli_decoded;

/* Detections of a batch, best first; `most` is the room for each image's. */
typedef struct gfli_found {
    int most;
    int *count;          /* [n] */
    gfli_decoded *items; /* [n][most] */
    float *logits;       /* [n][most][4 * n_bins] of each one's location, or NULL */
} gfli_found;

/* A backend is a device with operations.  Maps, weights, biases, norm parameters, scratch and what
 * decode finds are memory of the device; all other pointers are the host's.  An operation may
 * return before it is done; what fails makes the context unusable and is told by finish. */
typedef struct gfli_device_ops {
    /* Fill context->device, device_name; undone by close, which also follows a failed open. */
    gfl_status (*open)(gfl_context *context, const gfl_context_desc *desc);
    void (*close)(gfl_context *context);
    /* The device's memory, as gfli_alloc and gfli_free. */
    gfl_status (*alloc)(gfl_context *context, size_t count, size_t size, const char *what,
                        void *out_pointer);
    void (*free)(gfl_context *context, void *pointer);
    /* Memory of the host that downloads reach fastest. */
    gfl_status (*host_alloc)(gfl_context *context, size_t count, size_t size, const char *what,
                             void *out_pointer);
    void (*host_free)(gfl_context *context, void *pointer);
    /* Whether the caller's pixels lie on the device; NULL: that cannot be. */
    bool (*owns)(gfl_context *context, const void *pointer);
    /* In order with the operations.  upload is done with `from` when it returns; what download
     * copies is there after finish. */
    void (*upload)(gfl_context *context, void *to, const void *from, size_t bytes);
    void (*download)(gfl_context *context, void *to, const void *from, size_t bytes);
    void (*zero)(gfl_context *context, void *to, size_t bytes);
    /* Wait for all that was asked for; the first failure since the context was created. */
    gfl_status (*finish)(gfl_context *context);
    /* The caller's event, a cudaEvent_t, happens when all so far is done; NULL: it cannot. */
    void (*mark)(gfl_context *context, void *event);
} gfli_device_ops;

/* Operations between begin and end are not done but kept, with the pointers they got, and replay
 * does them.  begin gives false and end NULL where that did not work; they can be done one by one
 * all the same. */
typedef struct gfli_record_ops {
    bool (*begin)(gfl_context *context);
    void *(*end)(gfl_context *context);
    void (*replay)(gfl_context *context, void *recording);
    void (*forget)(gfl_context *context, void *recording);
} gfli_record_ops;

typedef struct gfli_infer_ops {
    /* Bytes of a convolution's weights in the form that conv wants. */
    size_t (*conv_packed_size)(const gfl_context *context, const gfli_conv_shape *s);
    /* packed = the weights, each output channel o multiplied by scale[o] (NULL: by 1). */
    void (*conv_pack)(gfl_context *context, const gfli_conv_shape *s, const float *weight,
                      const float *scale, void *packing);
    void (*fold_norm)(gfl_context *context, const gfli_norm_fold *fold);
    /* One convolution, or n of one geometry that differ in output channels alone: how conv will
     * compute calls of these sizes (pointers to data may be NULL yet), and conv itself. */
    gfl_status (*conv_prepare)(gfl_context *context, const gfli_conv_call *calls, int n,
                               gfli_conv_means *out);
    void (*conv)(gfl_context *context, const gfli_conv_call *calls, int n,
                 const gfli_conv_means *means, void *scratch);

    /* 3x3, stride 2, padding 1, padding counts as minus infinity. */
    void (*max_pool)(gfl_context *context, const gfli_map *x, const gfli_map *y);
    /* y += nearest-upsample(x) to the size of y (spec 2). */
    void (*upsample_add)(gfl_context *context, const gfli_map *x, const gfli_map *y);
    /* y = relu(gamma * (x - mean) / sqrt(var + eps) + beta), statistics per image, level and
     * group; y may be x.  stats [levels][n][groups][2] gets mean and 1/sqrt(var+eps), or has them
     * from conv where `given`. */
    void (*group_norm)(gfl_context *context, const gfli_map *x, int groups, float eps,
                       const float *gamma, const float *beta, const gfli_map *y, float *stats,
                       bool given);
    /* y = scale[level * GFLI_BLOCK_STEP] * x; y may be x. */
    void (*level_scale)(gfl_context *context, const gfli_map *x, const float *scale,
                        const gfli_map *y);

    /* Resize u8 pixels of any format to u8 RGB (or BGR) [out_h][out_w][3], OpenCV's bilinear, bit
     * for bit (spec 7.2).  on_device: where the image's pixels lie, which are read until finish
     * returns.  scratch: resize_scratch bytes. */
    size_t (*resize_scratch)(const gfl_context *context, int in_w, int in_h, int out_w, int out_h);
    void (*resize)(gfl_context *context, const gfl_image *image, bool on_device, bool bgr,
                   int out_w, int out_h, uint8_t *out, void *scratch);
    /* Image `index` of y = (pixel - mean) / std of u8 [h][w][3], zero to the right and below;
     * flip mirrors the columns of the image (not of the padding). */
    void (*normalise)(gfl_context *context, const uint8_t *pixels, int w, int h,
                      const float mean[3], const float std[3], bool flip, const gfli_map *y,
                      int index);

    /* Detections of all images.  opts [n]: sizes and scales may differ, nothing else.  out->most is
     * gfli_most_detections or more.  scratch: decode_scratch bytes. */
    size_t (*decode_scratch)(const gfli_map *cls, const gfli_decode_opts *opts);
    void (*decode)(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                   const gfli_decode_opts *opts, const gfli_found *out, void *scratch);
} gfli_infer_ops;

typedef struct gfli_train_ops gfli_train_ops;

typedef struct gfl_backend {
    int abi, version; /* GFL_ABI and GFLI_BACKEND_VERSION, checked when a context is created */
    const char *name;
    /* Plans pair equal convolutions in one call, and have conv leave statistics for group_norm. */
    bool fuses;
    gfli_device_ops device;
    const gfli_record_ops *record; /* NULL: every operation is done at once */
    gfli_infer_ops infer;
    const gfli_train_ops *train; /* NULL: none, or the CPU's, which a program that detects lacks */
} gfli_backend;

extern const gfli_backend gfli_cpu;

/* ---- training -------------------------------------------------------------------------------- */

/* Everything that an operation of training points to is memory of the device, except shapes,
 * options and the structs that hold the pointers.  An operation returns nothing and may return
 * before it is done; what it finds wrong with the numbers is told by check_update. */

/* Ground truth of one image of a batch: its boxes among those of all. */
typedef struct gfli_truth {
    int first, n;
    int pad_h, pad_w; /* the image's own size, padded to a multiple of 32: the valid cells */
} gfli_truth;

typedef struct gfli_truths {
    int n_images, most;       /* images; boxes of the image that has the most */
    const gfli_truth *images; /* [n_images] */
    const float *boxes;       /* [all][4] x1 y1 x2 y2 in the resized image's pixels */
    const int32_t *labels;    /* [all] */
} gfli_truths;

/* Who is assigned what, in the order of the pyramid's positions (level, image, y, x). */
typedef struct gfli_assignment {
    int32_t *gt; /* [points]: index of the image's box, -1 background, -2 outside the valid area */
    int *n_pos;  /* [n] positives of each image */
} gfli_assignment;

typedef struct gfli_assign_opts {
    int stride[GFL_LEVELS];
    int inclusive; /* as in gfli_decode_opts, here and in the losses */
} gfli_assign_opts;

typedef struct gfli_loss_opts {
    int n_classes, n_bins;
    int stride[GFL_LEVELS];
    int inclusive;         /* added to widths in units of the stride */
    bool outside_counts;   /* -2 of the assignment is a negative; else it has no loss */
    bool add_eps;          /* unions and hulls + eps; else at least eps */
    double quality_eps;    /* of the quality's union; GIoU has 1e-6 */
    double mean_eps;       /* added to what a mean divides by */
    double min_weight_sum; /* below it, weight_sum is replaced by it; 0 / 0 counts as 0 */
    double share;          /* the normalisers are multiplied with it first: 1 / ranks */
    int rank;
} gfli_loss_opts;

/* Of a batch, on the device.  All are doubles, so that ranks can add them up in two sums: of what
 * comes before cls, and of the rest. */
typedef struct gfli_losses {
    double avg_pos, weight_sum; /* the normalisers before their clamps (spec 5.4: N and A) */
    double failed, failed_rank; /* ranks that have no such batch; the sum of their numbers */
    double cls[GFL_LEVELS], bbox[GFL_LEVELS], dfl[GFL_LEVELS];
    double n_pos;
    double bad, bad_rank; /* ranks whose losses are not finite; likewise */
} gfli_losses;

enum {
    GFLI_LOSS_NORMALISERS = offsetof(gfli_losses, cls) / sizeof(double),
    GFLI_LOSS_RESULTS = sizeof(gfli_losses) / sizeof(double) - GFLI_LOSS_NORMALISERS
};

/* The first of the losses that is not finite, or NULL. */
GFLI_HD static inline const char *gfli_bad_loss_name(const gfli_losses *losses) {
    for (int l = 0; l < GFL_LEVELS; l++) {
        if (!gfli_is_finite(losses->cls[l])) return "loss_cls";
        if (!gfli_is_finite(losses->bbox[l])) return "loss_bbox";
        if (!gfli_is_finite(losses->dfl[l])) return "loss_dfl";
    }
    return NULL;
}

/* The gradients of a convolution's own weights, and of the batch norm that was folded into them
 * (spec 1.3), from those of the folded weights. */
typedef struct gfli_unfold {
    const gfli_conv_shape *shape;
    const float *weight, *scale; /* the own weights; what they were multiplied with */
    const float *mean, *var;
    float eps;
    float *dweight;     /* of the folded weights, becomes that of the own ones */
    const float *dbeta; /* that of the folded bias */
    float *dgamma;      /* written */
} gfli_unfold;

/* Part of the block of parameters with factors of its own, multiplied with the update's. */
typedef struct gfli_update_part {
    size_t first, count; /* floats */
    double lr, decay;
} gfli_update_part;

typedef struct gfli_update {
    float *params, *momentum; /* [n], laid out alike, zeros between the parts */
    const float *gradients;   /* [n], their sum over batches and ranks */
    size_t n;
    const gfli_update_part *parts; /* [n_parts], in the order of the block */
    int n_parts;
    const gfli_losses *losses; /* [n_losses] of the batches */
    int n_losses;
    double lr, decay, momentum_factor;
    double share; /* gradients are multiplied with it: 1 / batches of all ranks */
    double clip;  /* largest norm of them then; not above 0: no limit */
    bool first;   /* momentum is taken as zero, whatever it holds */
} gfli_update;

/* What stands against an update. */
typedef enum gfli_fault {
    GFLI_FAULT_NONE,
    GFLI_FAULT_RANK,      /* some have no batch `where` */
    GFLI_FAULT_LOSS,      /* not finite, of batch `where` */
    GFLI_FAULT_GRADIENT,  /* not finite, in part `where` */
    GFLI_FAULT_PARAMETER, /* likewise */
    GFLI_FAULT_MOMENTUM,
    GFLI_FAULT_OVERFLOW /* part `where` would not stay finite */
} gfli_fault;

/* On the device.  The largest magnitudes are those of the part at fault, or of all parts. */
typedef struct gfli_verdict {
    double norm;  /* of the gradients, before clipping */
    double share; /* what they are to be multiplied with, clipping included */
    double parameter, momentum, gradient;
    gfli_fault fault;
    int where;
} gfli_verdict;

struct gfli_train_ops {
    int version;

    /* dx (=, or += when accumulate) the gradient of conv's input.  packed is made by
     * conv_grad_pack from the (scaled) weights. */
    size_t (*conv_grad_packed_size)(const gfli_conv_shape *s);
    void (*conv_grad_pack)(gfl_context *context, const gfli_conv_shape *s, const float *weight,
                           const float *scale, void *packing);
    size_t (*conv_grad_scratch)(const gfl_context *context, const gfli_conv_shape *s,
                                const gfli_map *x);
    void (*conv_grad_input)(gfl_context *context, const gfli_conv_shape *s, const void *packing,
                            const gfli_map *dy, bool accumulate, const gfli_map *dx, void *scratch);
    /* dweight OHWI and dbias [out_c] (or NULL), overwritten; all levels and images summed. */
    void (*conv_grad_weight)(gfl_context *context, const gfli_conv_shape *s, const gfli_map *x,
                             const gfli_map *dy, float *dweight, float *dbias, void *scratch);
    /* All gradients of deform_conv: dx (=/+=, or NULL: not wanted), doffset, dweight and dbias
     * (or NULL) overwritten.  packed is made by deform_conv_grad_pack. */
    size_t (*deform_conv_grad_packed_size)(const gfli_conv_shape *s);
    void (*deform_conv_grad_pack)(gfl_context *context, const gfli_conv_shape *s,
                                  const float *weight, const float *scale, void *packing);
    size_t (*deform_conv_grad_scratch)(const gfl_context *context, const gfli_conv_shape *s,
                                       const gfli_map *offset);
    void (*deform_conv_grad)(gfl_context *context, const gfli_conv_shape *s, const void *packing,
                             const gfli_map *x, const gfli_map *offset, const gfli_map *dy,
                             bool accumulate, const gfli_map *dx, const gfli_map *doffset,
                             float *dweight, float *dbias, void *scratch);
    void (*unfold)(gfl_context *context, const gfli_unfold *call);
    /* dy = y > 0 ? dy : 0, in place. */
    void (*relu_grad)(gfl_context *context, const gfli_map *y, const gfli_map *dy);
    /* dx (=/+=): the first maximum in row-major window order gets the gradient. */
    void (*max_pool_grad)(gfl_context *context, const gfli_map *x, const gfli_map *dy,
                          bool accumulate, const gfli_map *dx);
    /* dx (=/+=) sums of dy over the destinations of each source. */
    void (*upsample_grad)(gfl_context *context, const gfli_map *dy, bool accumulate,
                          const gfli_map *dx);
    /* Gradient of relu(group_norm(x)): dy is w.r.t. the output y (after ReLU), dx may be dy.
     * dgamma, dbeta [c] overwritten.  stats as group_norm wrote them. */
    size_t (*group_norm_grad_scratch)(const gfl_context *context, const gfli_map *x);
    void (*group_norm_grad)(gfl_context *context, const gfli_map *x, const gfli_map *y, int groups,
                            const float *gamma, const float *stats, const gfli_map *dy,
                            const gfli_map *dx, float *dgamma, float *dbeta, void *scratch);
    /* dx = scale * dy (dx may be dy), dscale = sum of dy * x (x: the unscaled map), both of level
     * l at l * GFLI_BLOCK_STEP. */
    void (*level_scale_grad)(gfl_context *context, const gfli_map *x, const float *scale,
                             const gfli_map *dy, const gfli_map *dx, float *dscale);

    /* ATSS (spec 4).  shape: a map that gives n and the levels' sizes; data unused. */
    size_t (*assign_scratch)(const gfl_context *context, const gfli_map *shape, int max_boxes);
    void (*assign)(gfl_context *context, const gfli_map *shape, const gfli_assign_opts *opts,
                   const gfli_truths *truths, const gfli_assignment *out, void *scratch);
    /* The losses in two halves, between which the normalisers of several ranks are added up:
     * loss_sums writes n_pos, avg_pos and weight_sum, and zeros; losses reads them and writes the
     * rest.  QFL, GIoU and DFL with their gradients (spec 5): dcls and dreg are overwritten. */
    size_t (*losses_scratch)(const gfl_context *context, const gfli_map *cls,
                             const gfli_loss_opts *opts);
    void (*loss_sums)(gfl_context *context, const gfli_map *cls, const gfli_assignment *assigned,
                      const gfli_loss_opts *opts, gfli_losses *out, void *scratch);
    void (*losses)(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                   const gfli_truths *truths, const gfli_assignment *assigned,
                   const gfli_loss_opts *opts, const gfli_map *dcls, const gfli_map *dreg,
                   gfli_losses *out, void *scratch);

    /* sum += x */
    void (*accumulate)(gfl_context *context, float *sum, const float *x, size_t n);
    /* May the update be done?  Every number is looked at before the first one moves. */
    void (*check_update)(gfl_context *context, const gfli_update *update, gfli_verdict *out);
    /* g' = share * g + decay * p; v = first ? g' : momentum * v + g'; p -= lr * v, with the share
     * of the verdict; nothing where it has found a fault. */
    void (*update)(gfl_context *context, const gfli_update *update, const gfli_verdict *verdict);
};

extern const gfli_train_ops gfli_cpu_train;
/* What a context trains with; NULL: it cannot. */
const gfli_train_ops *gfli_train_ops_of(const gfl_context *context);

/* ===============================================================================================
 * src/core/box.h - boxes of detections: from a cell's distributions to what overlaps what (spec 6)
 * ============================================================================================ */

/* Pixels from a position of a level to the next (spec 2). */
static inline int gfli_level_stride(int level) {
    return 8 << level;
}

/* Where position `cell` of a level stands, in pixels of the resized image. */
GFLI_HD static inline float gfli_position(int cell, int stride, int inclusive) {
    return (float)(cell * stride) + 0.5f * (float)(inclusive * (stride - 1));
}

/* A value that is no number stays so, and is dropped with the boxes that have no area. */
GFLI_HD static inline float gfli_clamp_side(float v, int limit) {
    if (v < 0.0f) return 0.0f;
    return v > (float)limit ? (float)limit : v;
}

GFLI_HD static inline void gfli_clip_box(gfl_detection *box, int right, int bottom) {
    box->x1 = gfli_clamp_side(box->x1, right);
    box->y1 = gfli_clamp_side(box->y1, bottom);
    box->x2 = gfli_clamp_side(box->x2, right);
    box->y2 = gfli_clamp_side(box->y2, bottom);
}

/* The box around a cell whose sides' distributions have these logits [4][n_bins], clipped to
 * 0..right and 0..bottom.  p [n_bins] is overwritten, or NULL, which takes longer. */
GFLI_HD static inline void gfli_box_around(int cell_x, int cell_y, const float *logits, int n_bins,
                                           float *p, int stride, int inclusive, int right,
                                           int bottom, gfl_detection *box) {
    const float x = gfli_position(cell_x, stride, inclusive);
    const float y = gfli_position(cell_y, stride, inclusive);
    float d[4];
    for (int side = 0; side < 4; side++)
        d[side] = gfli_rounded(gfli_integral(logits + side * n_bins, n_bins, p) * (float)stride);
    box->x1 = x - d[0];
    box->y1 = y - d[1];
    box->x2 = x + d[2];
    box->y2 = y + d[3];
    gfli_clip_box(box, right, bottom);
}

/* What coordinates are divided by, or multiplied with, to become those of the original image. */
static inline float gfli_rescale_factor(bool divide, double scale) {
    return (float)(divide ? scale : 1.0 / scale);
}

GFLI_HD static inline float gfli_rescaled(float v, float factor, bool divide) {
    return gfli_rounded(divide ? v / factor : v * factor);
}

GFLI_HD static inline void gfli_rescale_box(gfl_detection *box, float factor_x, float factor_y,
                                            bool divide) {
    box->x1 = gfli_rescaled(box->x1, factor_x, divide);
    box->y1 = gfli_rescaled(box->y1, factor_y, divide);
    box->x2 = gfli_rescaled(box->x2, factor_x, divide);
    box->y2 = gfli_rescaled(box->y2, factor_y, divide);
}

GFLI_HD static inline bool gfli_has_area(const gfl_detection *box, float inclusive) {
    return box->x2 - box->x1 + inclusive > 0.0f && box->y2 - box->y1 + inclusive > 0.0f;
}

/* ---- suppression ----------------------------------------------------------------------------- */

/* A box, moved to where only the boxes are that it can suppress. */
typedef struct gfli_apart {
    float x1, y1, x2, y2, area, label;
} gfli_apart;

/* step: one more than the largest coordinate of all boxes; 0: classes do not matter. */
GFLI_HD static inline gfli_apart gfli_move_apart(const gfl_detection *box, float step,
                                                 float inclusive) {
    gfli_apart a;
    const float offset = gfli_rounded((float)box->label * step);
    a.x1 = box->x1 + offset;
    a.y1 = box->y1 + offset;
    a.x2 = box->x2 + offset;
    a.y2 = box->y2 + offset;
    a.area = gfli_rounded((a.x2 - a.x1 + inclusive) * (a.y2 - a.y1 + inclusive));
    a.label = (float)box->label;
    return a;
}

/* Whether their IoU is above `iou`.  No overlap suppresses nothing, not even two boxes without
 * area: 0 / 0 is no IoU. */
GFLI_HD static inline bool gfli_overlaps(const gfli_apart *a, const gfli_apart *b, float iou,
                                         float inclusive) {
    const float x1 = a->x1 > b->x1 ? a->x1 : b->x1, x2 = a->x2 < b->x2 ? a->x2 : b->x2;
    const float y1 = a->y1 > b->y1 ? a->y1 : b->y1, y2 = a->y2 < b->y2 ? a->y2 : b->y2;
    const float w = x2 - x1 + inclusive, h = y2 - y1 + inclusive;
    if (!(w > 0.0f && h > 0.0f)) return false;
    const float inter = gfli_rounded(w * h);
    return inter / (a->area + b->area - inter) > iou;
}

/* ===============================================================================================
 * src/core/decode.h - the order of candidates, and how many there can be
 * ============================================================================================ */

/* Sorts ascending: higher scores (0..1) first, then lower indices (below 2^34). */
GFLI_HD static inline uint64_t gfli_rank(float score, uint64_t index) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return (uint64_t)(0x3f800000u - bits) << 34 | index;
}

GFLI_HD static inline uint64_t gfli_rank_index(uint64_t rank) {
    return rank & (((uint64_t)1 << 34) - 1);
}

GFLI_HD static inline float gfli_rank_score(uint64_t rank) {
    const uint32_t bits = 0x3f800000u - (uint32_t)(rank >> 34);
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

/* Is the class among those that detections are wanted of? */
GFLI_HD static inline bool gfli_wants(const uint8_t *wanted, int label) {
    return !wanted || wanted[label];
}

/* The largest of a location's logits [n] of classes that are wanted. */
GFLI_HD static inline float gfli_best_wanted(const float *logits, int n, const uint8_t *wanted) {
    int c = 0;
    while (!gfli_wants(wanted, c)) c++;
    float best = logits[c];
    for (c++; c < n; c++)
        if (gfli_wants(wanted, c) && logits[c] > best) best = logits[c];
    return best;
}

/* Candidates of one image that a level can give, and all levels together. */
static inline size_t gfli_max_candidates(const gfli_map *cls, const gfli_decode_opts *opts,
                                         int level) {
    const size_t points = (size_t)cls->h[level] * (size_t)cls->w[level];
    const size_t most = (size_t)opts->max_per_level, classes = (size_t)opts->n_classes;
    if (opts->by_location) return (points < most ? points : most) * classes;
    return points * classes < most ? points * classes : most;
}

static inline size_t gfli_all_candidates(const gfli_map *cls, const gfli_decode_opts *opts) {
    size_t n = 0;
    for (int l = 0; l < cls->levels; l++) n += gfli_max_candidates(cls, opts, l);
    return n;
}

/* More detections than that an image cannot have. */
static inline int gfli_most_detections(const gfli_map *cls, const gfli_decode_opts *opts) {
    const size_t n = gfli_all_candidates(cls, opts), most = (size_t)opts->max_detections;
    return (int)(n < most ? n : most);
}

/* ===============================================================================================
 * src/core/assign.h - what ATSS asks of a box and a cell (spec 4)
 * ============================================================================================ */

/* Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
 * Training Sample Selection", CVPR 2020, arXiv:1912.02424, Algorithm 1 */

enum {
    GFLI_ATSS_NEAREST = 9,
    GFLI_ATSS_MOST = GFLI_ATSS_NEAREST * GFL_LEVELS,
    GFLI_ATSS_FAR = 8192 /* pixels outside the map beyond which rounding makes distances equal */
};

/* The nearest cells of a level so far, nearest first, equals by their number. */
typedef struct gfli_atss_list {
    float distance[GFLI_ATSS_NEAREST];
    int y[GFLI_ATSS_NEAREST], x[GFLI_ATSS_NEAREST];
    int n;
} gfli_atss_list;

GFLI_HD static inline void gfli_atss_list_add(gfli_atss_list *list, float distance, int y, int x) {
    int at = list->n;
    if (at == GFLI_ATSS_NEAREST && !(distance < list->distance[at - 1])) return;
    if (at == GFLI_ATSS_NEAREST)
        at--;
    else
        list->n++;
    for (; at > 0 && distance < list->distance[at - 1]; at--) {
        list->distance[at] = list->distance[at - 1];
        list->y[at] = list->y[at - 1];
        list->x[at] = list->x[at - 1];
    }
    list->distance[at] = distance;
    list->y[at] = y;
    list->x[at] = x;
}

/* Cells that can be among the nearest nine along one axis: any cell outside has nine nearer ones
 * between itself and the centre, unless the centre is so far that rounding makes them equal. */
GFLI_HD static inline void gfli_atss_window(float centre, int stride, int cells, int *first,
                                            int *last) {
    const double at = (double)centre / stride, far_cells = (double)GFLI_ATSS_FAR / stride;
    *first = 0;
    *last = cells - 1;
    if (!(at > -far_cells && at < (double)cells + far_cells)) return;
    const int middle = gfli_clamp((int)(floor)(at + 0.5), 0, cells - 1);
    *first = gfli_max(middle - GFLI_ATSS_NEAREST, 0);
    *last = gfli_min(middle + GFLI_ATSS_NEAREST, cells - 1);
}

/* Distances are rounded step by step as float arithmetic would (products in double are exact), so
 * that no compiler may fuse them and turn a tie into a difference. */
GFLI_HD static inline float gfli_atss_distance(float dx, float dy) {
    const float xx = (float)((double)dx * (double)dx), yy = (float)((double)dy * (double)dy);
    const float sum = (float)((double)xx + (double)yy);
    return (float)(sqrt)((double)sum);
}

GFLI_HD static inline float gfli_atss_area(float w, float h) {
    return (float)((double)w * (double)h);
}

/* IoU of the anchor (8 strides square) around (cx, cy) and a box, in float like the distances. */
GFLI_HD static inline float gfli_atss_iou(float cx, float cy, int stride, int inclusive,
                                          const float *box) {
    const float side = (float)(8 * stride), one = (float)inclusive, half = 0.5f * (side - one);
    const float x1 = fmaxf(cx - half, box[0]), y1 = fmaxf(cy - half, box[1]);
    const float x2 = fminf(cx + half, box[2]), y2 = fminf(cy + half, box[3]);
    const float inter = gfli_atss_area(fmaxf(x2 - x1 + one, 0), fmaxf(y2 - y1 + one, 0));
    const float area = gfli_atss_area(box[2] - box[0] + one, box[3] - box[1] + one);
    const float both = (float)((double)gfli_atss_area(side, side) + (double)area);
    return inter / fmaxf((float)((double)both - (double)inter), 1e-6f);
}

/* Mean plus unbiased standard deviation, or what nothing reaches of fewer than two. */
GFLI_HD static inline float gfli_atss_threshold(const float *iou, int n) {
    double mean = 0, square = 0;
    if (n < 2) return FLT_MAX;
    for (int i = 0; i < n; i++) mean += (double)iou[i];
    mean /= n;
    for (int i = 0; i < n; i++) {
        const double d = (double)iou[i] - mean;
        volatile double squared = d * d; /* rounded, as in gfli_rounded */
        square += squared;
    }
    return (float)mean + (float)(sqrt)(square / (n - 1));
}

/* Whether a centre lies far enough inside the box to be positive. */
GFLI_HD static inline bool gfli_atss_inside(float x, float y, const float *box) {
    return fminf(fminf(x - box[0], y - box[1]), fminf(box[2] - x, box[3] - y)) > 0.01f;
}

/* ===============================================================================================
 * src/core/loss.h - the losses of single logits and boxes, and their gradients (spec 5)
 * ============================================================================================ */

/* Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, sections 3.1 to 3.3.
 * Positives are few, so that double is cheap for them; a NaN among the logits shows. */

/* What sums of losses are multiplied with, and the terms of their gradients. */
typedef struct gfli_loss_scales {
    double cls, bbox, dfl;
} gfli_loss_scales;

/* The normalisers of a batch with their clamps (spec 5.4). */
GFLI_HD static inline gfli_loss_scales gfli_loss_scales_of(const gfli_losses *sums,
                                                           const gfli_loss_opts *opts) {
    gfli_loss_scales s;
    double weight_sum = opts->share * sums->weight_sum;
    /* A NaN among the weights has to show in the losses, hence no fmax. */
    if (weight_sum < opts->min_weight_sum) weight_sum = opts->min_weight_sum;
    /* Without weights the losses are 0, not 0 / 0. */
    if (weight_sum < (double)FLT_MIN) weight_sum = INFINITY;
    s.cls = 1 / ((fmax)(opts->share * sums->avg_pos, 1.0) + opts->mean_eps);
    s.bbox = 2 / (1 + opts->mean_eps) / weight_sum;
    s.dfl = 0.25 / (4 + opts->mean_eps) / weight_sum;
    return s;
}

/* ---- quality focal loss (spec 5.2) ----------------------------------------------------------- */

GFLI_HD static inline double gfli_exact_sigmoid(double z) {
    return z < 0 ? (exp)(z) / (1 + (exp)(z)) : 1 / (1 + (exp)(-z));
}

/* A logit v without a target: sigmoid(v)^2 * softplus(v), and scale times its derivative.  Straight
 * arithmetic in place of expf and log1pf, and masks in place of branches, so that compilers turn a
 * loop of it into vector code: there are 80 logits at each of 22,400 positions.  Good to a few
 * units in the last place; a NaN stays one. */
GFLI_HD static inline float gfli_qfl_negative(float v, float scale, float *dv) {
    const float magnitude = fabsf(v);
    /* x = min(|z|, 87): magnitudes are ordered as their bits are */
    int32_t x_bits;
    float x;
    memcpy(&x_bits, &magnitude, sizeof x_bits);
    x_bits = x_bits < 0x42ae0000 ? x_bits : 0x42ae0000;
    memcpy(&x, &x_bits, sizeof x);
    /* e = exp(-x) = 2^k exp(r), k from adding 1.5 * 2^23 and taking it away */
    const float biased = x * -1.44269504f + 12582912.0f, k = biased - 12582912.0f;
    const float r = (k * -0.693359375f - x) + k * 2.12194440e-4f;
    float p = 1.98756915e-4f;
    p = p * r + 1.39819994e-3f;
    p = p * r + 8.33345205e-3f;
    p = p * r + 4.16657962e-2f;
    p = p * r + 1.66666651e-1f;
    p = p * r + 5.00000012e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits, sign, e_bits;
    float power, one_or_e;
    memcpy(&bits, &biased, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&power, &bits, sizeof power);
    const float e = p * power;
    /* log(1 + e) = 2 artanh(t), t = e / (2 + e) <= 1/3 */
    const float t = e / (2.0f + e), t2 = t * t;
    float q = 1.0f / 15.0f;
    q = q * t2 + 1.0f / 13.0f;
    q = q * t2 + 1.0f / 11.0f;
    q = q * t2 + 1.0f / 9.0f;
    q = q * t2 + 1.0f / 7.0f;
    q = q * t2 + 1.0f / 5.0f;
    q = q * t2 + 1.0f / 3.0f;
    q = (q * t2 + 1.0f) * (t + t);
    /* sigmoid: e / (1 + e) below zero, 1 / (1 + e) above */
    memcpy(&sign, &v, sizeof sign);
    memcpy(&e_bits, &e, sizeof e_bits);
    sign = 0u - (sign >> 31);
    bits = (e_bits & sign) | (0x3f800000u & ~sign);
    memcpy(&one_or_e, &bits, sizeof one_or_e);
    const float both = 1.0f / (1.0f + e), s = one_or_e * both;
    const float rest = (1.0f + e - one_or_e) * both;
    const float softplus = 0.5f * (v + magnitude) + q;
    *dv = scale * (s * s) * (s + 2.0f * rest * softplus);
    return s * s * softplus;
}

/* The logit of a positive's own class, target y. */
GFLI_HD static inline double gfli_qfl_positive(double z, double y, double *dz) {
    const double s = gfli_exact_sigmoid(z), d = s - y;
    const double bce = (z > 0 ? z : 0) - z * y + (log1p)((exp)(-(fabs)(z)));
    *dz = (fabs)(d) * (fabs)(d)*d + 2 * d * s * (1 - s) * bce;
    return d * d * bce;
}

/* Weight of a positive's box losses: its best class score. */
GFLI_HD static inline double gfli_loss_weight(const float *z, int n_classes) {
    float best = z[0];
    for (int k = 1; k < n_classes; k++)
        if (!(z[k] <= best)) best = z[k];
    return gfli_exact_sigmoid((double)best);
}

/* ---- GIoU loss (spec 5.3) -------------------------------------------------------------------- */

/* Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, arXiv:1902.09630 */

/* Half of a tie goes to each argument of a minimum or maximum (as PyTorch does). */
GFLI_HD static inline double gfli_share(double mine, double other) {
    return mine > other ? 1 : mine < other ? 0 : 0.5;
}

/* An area that is divided by, and its derivative with respect to that area. */
GFLI_HD static inline double gfli_guarded(double area, double eps, bool add, double *slope) {
    *slope = add ? 1 : gfli_share(area, eps);
    return add ? area + eps : (fmax)(area, eps);
}

/* IoU of b with the target g, 1 - GIoU, and the derivative of that with respect to b. */
GFLI_HD static inline double gfli_giou(const gfli_loss_opts *opts, const double b[4],
                                       const double g[4], double *loss, double db[4]) {
    const double eps = 1e-6, one = opts->inclusive;
    const double w = (fmin)(b[2], g[2]) - (fmax)(b[0], g[0]) + one;
    const double h = (fmin)(b[3], g[3]) - (fmax)(b[1], g[1]) + one;
    const double iw = w > 0 ? w : 0, ih = h > 0 ? h : 0, inter = iw * ih;
    const double bw = b[2] - b[0] + one, bh = b[3] - b[1] + one;
    const double raw_u = bw * bh + (g[2] - g[0] + one) * (g[3] - g[1] + one) - inter;
    const double outer_w = (fmax)(b[2], g[2]) - (fmin)(b[0], g[0]) + one;
    const double outer_h = (fmax)(b[3], g[3]) - (fmin)(b[1], g[1]) + one;
    const double ew = outer_w > 0 ? outer_w : 0, eh = outer_h > 0 ? outer_h : 0;
    double u_share, e_share, ignored;
    const double u = gfli_guarded(raw_u, eps, opts->add_eps, &u_share);
    const double e = gfli_guarded(ew * eh, eps, opts->add_eps, &e_share);
    const double iw_on = w >= 0 ? ih : 0, ih_on = h >= 0 ? iw : 0;
    const double ew_on = outer_w >= 0 ? eh : 0, eh_on = outer_h >= 0 ? ew : 0;
    const double di[4] = {-gfli_share(b[0], g[0]) * iw_on, -gfli_share(b[1], g[1]) * ih_on,
                          gfli_share(g[2], b[2]) * iw_on, gfli_share(g[3], b[3]) * ih_on};
    const double da[4] = {-bh, -bw, bh, bw};
    const double de[4] = {-gfli_share(g[0], b[0]) * ew_on, -gfli_share(g[1], b[1]) * eh_on,
                          gfli_share(b[2], g[2]) * ew_on, gfli_share(b[3], g[3]) * eh_on};
    for (int k = 0; k < 4; k++)
        db[k] = -di[k] / u + (inter / (u * u) - 1 / e) * u_share * (da[k] - di[k]) +
                u / (e * e) * e_share * de[k];
    *loss = 2 - inter / u - u / e;
    return inter / gfli_guarded(raw_u, opts->quality_eps, opts->add_eps, &ignored);
}

/* ---- distributions (spec 5.3) ---------------------------------------------------------------- */

/* p = softmax(x); returns the expected bin, and log(sum(exp(x))) in *lse. */
GFLI_HD static inline double gfli_bins(const float *x, int n, double *p, double *lse) {
    double top = (double)x[0], sum = 0, mean = 0;
    for (int k = 1; k < n; k++)
        if (!((double)x[k] <= top)) top = (double)x[k];
    for (int k = 0; k < n; k++) sum += p[k] = (exp)((double)x[k] - top);
    for (int k = 0; k < n; k++) mean += k * (p[k] /= sum);
    *lse = top + (log)(sum);
    return mean;
}

/* The distance to a side in units of the stride, as a target of a distribution. */
GFLI_HD static inline double gfli_dfl_target(double distance, int n_bins) {
    return (fmin)((fmax)(distance, 0.0), n_bins - 1 - 0.1);
}

/* lse: log(sum(exp(x))). */
GFLI_HD static inline double gfli_dfl(const float *x, double lse, double target) {
    const int low = (int)target;
    const double high_part = target - low, low_part = 1 - high_part;
    return low_part * (lse - (double)x[low]) + high_part * (lse - (double)x[low + 1]);
}

/* What the target asks of bin k; softmax minus that is the loss's derivative. */
GFLI_HD static inline double gfli_dfl_share(double target, int k) {
    const int low = (int)target;
    const double high_part = target - low;
    return k == low ? 1 - high_part : k == low + 1 ? high_part : 0;
}

/* ---- a positive ------------------------------------------------------------------------------ */

/* A cell of a level, what the network says of its box, and the box that it is assigned. */
typedef struct gfli_positive {
    int x, y, stride;
    const float *reg;   /* [4][n_bins] logits */
    const float *truth; /* x1 y1 x2 y2 in pixels */
    double weight;
} gfli_positive;

/* Adds its losses, not yet scaled, to the sums, and writes their gradient dreg [4][n_bins].
 * Returns the quality: the predicted box's IoU with the target.
 *
 *     distances d   the mean bins of the sides' distributions        (units of the stride)
 *     box b         cell - d, cell + d;  g: the truth                 -> GIoU, dloss/db
 *     dloss/dd      -dloss/db of the left and upper side, else dloss/db
 *     dloss/dreg    dloss/dd p_k (k - d), of the mean bin; plus what DFL says */
GFLI_HD static inline double gfli_box_losses(const gfli_loss_opts *opts,
                                             const gfli_loss_scales *scales,
                                             const gfli_positive *at, double *bbox, double *dfl,
                                             float *dreg) {
    const int n = opts->n_bins;
    const double stride = at->stride, middle = opts->inclusive * (stride - 1) / 2 / stride;
    double p[4][GFL_MAX_BINS], d[4], lse[4], b[4], g[4], target[4], db[4], giou;
    for (int s = 0; s < 4; s++) {
        const double cell = (s % 2 ? at->y : at->x) + middle;
        d[s] = gfli_bins(at->reg + s * n, n, p[s], &lse[s]);
        g[s] = (double)at->truth[s] / stride;
        b[s] = s < 2 ? cell - d[s] : cell + d[s];
        target[s] = gfli_dfl_target(s < 2 ? cell - g[s] : g[s] - cell, n);
    }
    const double quality = gfli_giou(opts, b, g, &giou, db);
    *bbox += at->weight * giou;
    for (int s = 0; s < 4; s++) {
        const double dd = at->weight * scales->bbox * (s < 2 ? -db[s] : db[s]);
        const double df = at->weight * scales->dfl;
        *dfl += at->weight * gfli_dfl(at->reg + s * n, lse[s], target[s]);
        for (int k = 0; k < n; k++)
            dreg[s * n + k] =
                (float)(dd * p[s][k] * (k - d[s]) + df * (p[s][k] - gfli_dfl_share(target[s], k)));
    }
    return quality;
}

/* ===============================================================================================
 * src/core/update.h - a step of stochastic gradient descent, and what stands against it (spec 8.1)
 * ============================================================================================ */

/* The bits of the larger magnitude, which order magnitudes; NaN is above infinity. */
GFLI_HD static inline int32_t gfli_larger_bits(int32_t a, float x) {
    int32_t b;
    memcpy(&b, &x, sizeof b);
    b &= INT32_MAX;
    return a > b ? a : b;
}

/* Batches that a rank does not have, and those whose losses are not finite. */
GFLI_HD static inline gfli_fault gfli_bad_batch(const gfli_update *u, int *where) {
    for (int i = 0; i < u->n_losses; i++) {
        const gfli_losses *losses = &u->losses[i];
        *where = i;
        if (losses->failed > 0) return GFLI_FAULT_RANK;
        if (gfli_bad_loss_name(losses)) return GFLI_FAULT_LOSS;
    }
    *where = -1;
    return GFLI_FAULT_NONE;
}

/* No sum or product of an update is larger than the last of these, but for rounding, where p, v and
 * g are the largest magnitudes of parameters, momentum and (scaled) gradients. */
GFLI_HD static inline bool gfli_update_fits(const gfli_update *u, const gfli_update_part *part,
                                            double p, double v, double g) {
    const double most = (double)FLT_MAX * (1 - 1e-6);
    const double lr = u->lr * part->lr, decay = u->decay * part->decay;
    if (!gfli_is_finite(p) || !gfli_is_finite(v) || lr > most || decay > most) return false;
    const double moved = u->momentum_factor * v + g + decay * p;
    return moved <= most && p + lr * moved <= most;
}

/* What the contract of gfli_train_ops.update says, for one parameter. */
GFLI_HD static inline void gfli_sgd_step(float *p, float *v, float g, float lr, float momentum,
                                         float decay, float share) {
    const float moved = momentum * *v + (share * g + decay * *p);
    *v = moved;
    *p -= lr * moved;
}

/* ===============================================================================================
 * src/cpu/kernels.h - the CPU's kernels: a row of functions for each instruction set
 * ============================================================================================ */

/* A context chooses its row when it is opened, and the operations call what the row holds.  All
 * rows take the same packed weights and scratch, so that a model may be used by contexts of
 * different rows.  The functions of one instruction set stand in one file: portable.c, avx2.c,
 * avx512.c, neon.c.  A new instruction set is one more file and its line in kernels.c. */

/* GCC for Windows spills vectors to a stack that it does not align for them (its bug 54412). */
#if defined(__x86_64__) && defined(__GNUC__) && (!defined(_WIN32) || defined(__clang__))
#    define GFLI_X86_KERNELS 1
#    define GFLI_AVX2        __attribute__((__target__("avx2,fma")))
#    define GFLI_AVX512      __attribute__((__target__("avx512f,avx2,fma")))
#else
#    define GFLI_X86_KERNELS 0
#endif
#if defined(__aarch64__)
#    define GFLI_NEON_KERNELS 1
#else
#    define GFLI_NEON_KERNELS 0
#endif

/* ---- what kernels are given ------------------------------------------------------------------ */

/* A panel is GFLI_NR columns of the right matrix, row after row; a tile is GFLI_MR rows of the
 * result by one or more panels.  Sizes are the same for every instruction set, so that packed
 * weights are too. */
enum { GFLI_MR = 6, GFLI_NR = 16 };

/* One tile: y[m rows][n columns] (+)= rows * panels over a block of the inner dimension. */
typedef struct gfli_tile {
    const float *const *rows; /* [n_segs][GFLI_MR] */
    ptrdiff_t row_offset;     /* floats from those pointers to the block */
    int n_segs, len;
    const float *b;
    size_t panel; /* floats from a panel to the next */
    float *y;
    const ptrdiff_t *out; /* [GFLI_MR] offsets of the rows in y and residual */
    const float *bias, *residual;
    int m, n;
    bool first, relu; /* first: overwrite y (with bias and residual); else add to it */
} gfli_tile;

/* c[m][n] (=/+=) the sum over k of a[k][GFLI_MR] x b[k][width], n <= width. */
typedef struct gfli_outer {
    const float *a, *b;
    int len, width, m, n;
    float *c;
    size_t stride; /* floats from a row of c to the next */
    bool first;
} gfli_outer;

enum { GFLI_DEFORM_TAPS = 9 };

/* The point between four positions of x at which one tap of one output position looks. */
typedef struct gfli_point {
    int32_t at;        /* the top left one among all positions of x; it may be off the map */
    int32_t width;     /* positions from a line to the next */
    int corners;       /* which are on the map: 1 top left, 2 top right, 4, 8 below; 0: no sample */
    float down, right; /* from the top left one, 0 to 1 */
    float mask;
} gfli_point;

/* out[r * stride .. + n] = the value at points[r * GFLI_DEFORM_TAPS] of channels first .. + n. */
typedef struct gfli_sampling {
    const gfli_map *x;
    const float *zeros; /* [x->c] */
    const gfli_point *points;
    int rows, first, n;
    float *out;
    ptrdiff_t stride;
} gfli_sampling;

enum { GFLI_DEFORM_STRIP = 32 }; /* channels of a tile of gradients: two panels */

/* One tap of some positions, channels first .. + n; positions are GFLI_DEFORM_TAPS points and
 * `values` sums apart. */
typedef struct gfli_scatter {
    const gfli_map *x;
    const float *zeros, *grad; /* grad [rows][GFLI_DEFORM_STRIP], of value times mask */
    const gfli_point *points;
    int rows, first, n;
    float *dx; /* as x->data, or NULL */
    /* [rows][values]: of this tap dy and dx, side by side, and of the mask. */
    float *sums;
    int values, mask_at; /* where the mask's is, from dy's; 0: there are no masks */
    bool first_sum;
} gfli_scatter;

/* ---- rows ------------------------------------------------------------------------------------ */

typedef struct gfli_kernels {
    const char *name;  /* in gfl_context_desc.kernel and gfl_plan_step.kernel */
    const char *title; /* in gfl_context_get_device */
    bool (*available)(void);
    int tile_panels; /* that tile takes at a time, at most */
    void (*tile)(const gfli_tile *t);
    void (*sampling)(const gfli_sampling *t);
    /* What only training asks for. */
    void (*outer)(const gfli_outer *t);
    void (*scatter)(const gfli_scatter *t);
    void (*qfl_negative)(const float *z, int n, float scale, float *loss, float *dz);
} gfli_kernels;

/* The row that a context on the CPU uses. */
static inline const gfli_kernels *gfli_kernels_of(const gfl_context *context) {
    return (const gfli_kernels *)context->device;
}

/* Of the rows that this machine can run, the i-th, fastest first, or NULL. */
const gfli_kernels *gfli_kernels_at(int i);
/* Let a context use the row of a name, or the fastest one (NULL). */
gfl_status gfli_choose_kernels(gfl_context *context, const char *name);

extern const gfli_kernels gfli_portable, gfli_avx2, gfli_avx512, gfli_neon;

/* ---- what rows share ------------------------------------------------------------------------- */

/* y (+)= sum for n columns of a row of a tile from `col` on: the slow way, for edges and for
 * plain C; the same of an outer product. */
void gfli_store_tile_row(const gfli_tile *t, int row, int col, const float *sum, int n);
void gfli_store_outer_row(const gfli_outer *t, int row, int col, const float *sum, int n);

/* For rows that have none of their own. */
void gfli_sampling_portable(const gfli_sampling *t);
void gfli_scatter_portable(const gfli_scatter *t);
void gfli_qfl_negative_portable(const float *z, int n, float scale, float *loss, float *dz);

/* Ask for what the sums will be added to while they are being formed. */
static inline void gfli_tile_prefetch(const gfli_tile *t) {
    const float *add = t->first ? t->residual : t->y;
    for (int r = 0; add && r < GFLI_MR; r++) {
        __builtin_prefetch(add + t->out[r]);
        __builtin_prefetch(add + t->out[r] + t->n - 1);
    }
}

/* Ask for what the sums will be added to while they are being formed. */
static inline void gfli_outer_prefetch(const gfli_outer *t) {
    for (int r = 0; r < t->m && !t->first; r++) {
        __builtin_prefetch(t->c + (size_t)r * t->stride);
        __builtin_prefetch(t->c + (size_t)r * t->stride + t->n - 1);
    }
}

/* The four positions' channels from `first` on, zeros for those off the map, and their weights
 * without the mask. */
static inline void gfli_point_corners(const gfli_point *p, const gfli_map *x, const float *zeros,
                                      int first, const float *corner[4], float weight[4]) {
    const ptrdiff_t c = x->c;
    const float *base = x->data + first;
    corner[0] = p->corners & 1 ? base + p->at * c : zeros;
    corner[1] = p->corners & 2 ? base + (p->at + 1) * c : zeros;
    corner[2] = p->corners & 4 ? base + (p->at + p->width) * c : zeros;
    corner[3] = p->corners & 8 ? base + (p->at + p->width + 1) * c : zeros;
    gfli_corner_weights(p->down, p->right, weight);
}

/* From the products of grad with the four corners. */
static inline void gfli_scatter_sums(const gfli_scatter *t, const gfli_point *p,
                                     const float weight[4], const float dot[4], float *sums) {
    const float value = gfli_corner_sum(weight, dot[0], dot[1], dot[2], dot[3]);
    float down_sum, right_sum;
    gfli_corner_slopes(p->down, p->right, dot, &down_sum, &right_sum);
    const bool first = t->first_sum;
    sums[0] = (first ? 0.0f : sums[0]) + p->mask * down_sum;
    sums[1] = (first ? 0.0f : sums[1]) + p->mask * right_sum;
    if (t->mask_at) sums[t->mask_at] = (first ? 0.0f : sums[t->mask_at]) + value;
}

/* Where a corner's channels are in dx. */
static inline float *gfli_scatter_to(const gfli_scatter *t, const gfli_point *p, int corner) {
    const ptrdiff_t at = p->at + (corner & 1) + (ptrdiff_t)(corner >> 1) * p->width;
    return t->dx + at * t->x->c + t->first;
}

/* Logits without a target, one after the other: the loop that is vectorised. */
static inline void gfli_qfl_negatives(const float *GFLI_RESTRICT z, int n, float scale,
                                      float *GFLI_RESTRICT loss, float *GFLI_RESTRICT dz) {
    for (int i = 0; i < n; i++) loss[i] = gfli_qfl_negative(z[i], scale, &dz[i]);
}

/* ===============================================================================================
 * src/cpu/gemm.h - the matrix product behind convolutions and their gradients
 * ============================================================================================ */

enum {
    GFLI_MAX_TAPS = 49,
    GFLI_K_BLOCK = 256,      /* a panel of this many rows stays in the L1 cache */
    GFLI_ROWS_PER_TASK = 192 /* a multiple of GFLI_MR; this many rows of x stay in the L2 cache */
};

/* A convolution, or one phase of the gradient of one, as a matrix product whose left matrix is
 * never stored: row r of it is n_segs runs of seg_len floats of x, zeros where that is padding.
 * The grid (i, j) of every image gives the rows; row (i, j) begins at x[i * in_step + seg_y]
 * [j * in_step + seg_x] and goes to y[out_y + i * out_step][out_x + j * out_step]. */
typedef struct gfli_igemm {
    int groups, group_in, group_out; /* independent products and their channels */
    int n_segs, seg_len;
    int seg_taps; /* neighbours along x that make one run: 1, or more when channels are few */
    int seg_y[GFLI_MAX_TAPS], seg_x[GFLI_MAX_TAPS];
    int in_step, out_step, out_y, out_x;
    const float *packing; /* [groups][panels of group_out][n_segs * seg_len][GFLI_NR] */
    const float *bias;    /* [y->c] or NULL */
    const gfli_map *x, *y, *residual;
    bool relu;
} gfli_igemm;

size_t gfli_igemm_packed_size(const gfli_igemm *g);
size_t gfli_igemm_scratch(const gfl_context *context, const gfli_igemm *g);
void gfli_igemm_run(gfl_context *context, const gfli_igemm *g, void *scratch);

/* The rows of the left matrix, for products of other forms: how many; and of n rows from `first`
 * on, rows[r / GFLI_MR][segment][r % GFLI_MR] the runs and offsets[r] where y is.  zeros is as
 * long as a row of x or a run; copies has room for n runs of all segments, each row's rounded up
 * to gfli_igemm_copy floats.  rows and offsets are filled up to a multiple of GFLI_MR. */
size_t gfli_igemm_rows(const gfli_igemm *g);
size_t gfli_igemm_copy(const gfli_igemm *g);
void gfli_igemm_gather(const gfli_igemm *g, size_t first, int n, const float *zeros,
                       const float **rows, ptrdiff_t *offsets, float *copies);

static inline size_t gfli_round_64(size_t bytes) {
    return (bytes + 63) & ~(size_t)63;
}

/* ---- for products whose rows are not in memory ----------------------------------------------- */

/* Where a row of the product is. */
typedef struct gfli_row {
    int level, image, i, j;
    int grid_h, grid_w;
} gfli_row;

gfli_row gfli_row_at(const gfli_igemm *g, size_t index);
/* n rows further, within the line or to the next line's begin; it must exist. */
void gfli_row_skip(const gfli_igemm *g, gfli_row *r, int n);

/* A block of the inner dimension: whole segments, or a part of one. */
typedef struct gfli_k_block {
    int seg, n_segs, first, len;
} gfli_k_block;

/* The block after b (seg < 0: the first); false when there is none. */
bool gfli_next_block(const gfli_igemm *g, int size, gfli_k_block *b);

/* Scratch: zeros for padding, then for each slot the pointers and offsets of a task's rows and,
 * where several neighbours make a run, copies of the runs that padding interrupts. */
typedef struct gfli_igemm_layout {
    size_t zeros, rows, offsets, copies, slot; /* bytes of each part */
} gfli_igemm_layout;

typedef struct gfli_igemm_task {
    const gfli_igemm *g;
    gfli_igemm_layout layout;
    const gfli_kernels *kernels;
    size_t n_rows;
    int rows_per_task, row_tasks, panels_per_task, col_tasks, n_panels;
    float *zeros;
    char *room;
} gfli_igemm_task;

/* What a task computes: n rows from `first` on, and some panels. */
typedef struct gfli_part {
    size_t first;
    int n, panel0, panel1;
} gfli_part;

/* All of a task but its scratch. */
void gfli_igemm_prepare(const gfl_context *context, const gfli_igemm *g, gfli_igemm_task *t);
gfli_part gfli_igemm_part(const gfli_igemm_task *t, int task);
/* All tiles of a task's rows over one block of the inner dimension; the rows begin at channel
 * `origin` of x. */
void gfli_igemm_block(const gfli_igemm_task *t, const gfli_k_block *k, int panel0, int panel1,
                      int n_rows, const float *const *rows, const ptrdiff_t *offsets, int origin);

/* ---- convolutions ---------------------------------------------------------------------------- */

/* A convolution as such a product, without its data. */
void gfli_conv_igemm(const gfli_conv_shape *s, gfli_igemm *g);

/* ===============================================================================================
 * src/cpu/deform.h - where a deformable convolution looks, and the convolution
 * ============================================================================================ */

/* points [n][GFLI_DEFORM_TAPS] of the output positions from `first` on. */
void gfli_find_points(const gfli_conv_shape *s, const gfli_map *x, const gfli_map *offset,
                      size_t first, int n, gfli_point *points);

/* The convolution as a matrix product, a segment for each tap. */
void gfli_deform_igemm(const gfli_conv_shape *s, gfli_igemm *g);

size_t gfli_deform_conv_scratch(const gfl_context *context, const gfli_conv_shape *s);
void gfli_deform_conv(gfl_context *context, const gfli_conv_call *call, void *scratch);

/* ===============================================================================================
 * src/cpu/decode.h - candidates of decoding and suppression on the CPU
 * ============================================================================================ */

/* Heaps with the largest rank at the root; sorting takes any order. */
void gfli_heap_make(uint64_t *ranks, size_t n);
void gfli_heap_replace(uint64_t *heap, size_t n, uint64_t rank); /* the root is dropped */
void gfli_sort_ranks(uint64_t *ranks, size_t n);

/* Suppression of candidates in any order; of opts nms_iou, inclusive and agnostic matter.  keep
 * [max_keep] gets the indices of the survivors, best first, equal scores by index; returns how
 * many.  ranks [n]; scratch has GFLI_NMS_FLOATS floats for each of keep's. */
enum { GFLI_NMS_FLOATS = 6 };
int gfli_nms(const gfli_decoded *boxes, int n, const gfli_decode_opts *opts, int max_keep,
             int *keep, uint64_t *ranks, float *scratch);

/* The candidates of one image before suppression: level after level (counts [levels]), best first
 * (by_location: location by location, best first where a level is cut, else in their order),
 * decoded and clipped, in pixels of the resized image.  Returns how many.  out and ranks have room
 * for gfli_max_candidates. */
int gfli_candidates(gfl_context *context, const gfli_map *cls, const gfli_map *reg, int index,
                    const gfli_decode_opts *opts, gfli_decoded *out, int *counts, uint64_t *ranks);

/* ===============================================================================================
 * src/model/network.h - the one description of a network: parameters, plans, names, costs and files follow
 * ============================================================================================ */

enum { GFLI_GN_GROUPS = 32, GFLI_STAGE_HEAD = 5 };

/* How a parameter starts without a file (spec 1.4, 2, 3). */
typedef enum gfli_init {
    GFLI_INIT_ZERO,
    GFLI_INIT_ONE,
    GFLI_INIT_KAIMING, /* normal, fan out, gain of ReLU */
    GFLI_INIT_XAVIER,  /* uniform */
    GFLI_INIT_DEFORM,  /* uniform, +-1 / sqrt(in_channels * 9) whatever the groups */
    GFLI_INIT_NORMAL,  /* standard deviation 0.01 */
    GFLI_INIT_PRIOR    /* the class logit of probability 0.01 */
} gfli_init;

/* A parameter of the model as files know it.  Conv weights are kept OHWI, files have OIHW. */
typedef struct gfli_param {
    char *name; /* mmdetection's, e.g. backbone.layer1.0.conv1.weight */
    int rank;
    int64_t shape[4]; /* OIHW for convolutions */
    size_t count;
    size_t offset;    /* floats from the start of the model's block */
    float *data;      /* its place there, memory of the device; NULL: released after packing */
    bool direct;      /* steps read it as it is, beside packed weights, so it is never released */
    bool is_buffer;   /* running statistics: no gradient */
    bool is_variance; /* ... the variance, the last of a batch norm in a state dict */
    int stage;        /* 0 stem, 1..4 residual stages, 5 neck and head: for frozen_stages */
    bool loaded;      /* from a file; otherwise initialised */
    gfli_init init;
} gfli_param;

/* One convolution with what is folded into it; indices into the model's parameters, -1: none. */
typedef struct gfli_layer {
    gfli_conv_shape shape;
    int offset; /* the layer that gives the offsets of this deformable convolution, -1: none */
    int weight, bias; /* bias: only convolutions without batch norm */
    int bn_gamma, bn_beta, bn_mean, bn_var;
    int gn_gamma, gn_beta; /* of the group norm that follows; a step of its own */
    /* Memory of the device. */
    void *packing;       /* of the folded weights */
    float *folded_bias;  /* [out_c] beta - a * mean; NULL without batch norm */
    float *folded_scale; /* [out_c] a = gamma / sqrt(var + eps); NULL without bn or training */
    int stage;
} gfli_layer;

/* What a step does; one operation of the backend table each. */
typedef enum gfli_op {
    GFLI_OP_CONV,         /* out = relu?(conv(in) + bias + residual), and its twin's */
    GFLI_OP_DEFORM_CONV,  /* out = relu?(deform_conv(in, offset) + bias) */
    GFLI_OP_MAX_POOL,     /* out = max pool of in */
    GFLI_OP_UPSAMPLE_ADD, /* out += upsample(in): out is also read */
    GFLI_OP_GROUP_NORM,   /* out = relu(group_norm(in)) */
    GFLI_OP_LEVEL_SCALE   /* out = scale[level] * in */
} gfli_op;

/* A convolution computed beside a step's, of the same geometry: one of the head's towers. */
typedef struct gfli_twin {
    int in, out, layer, stats; /* as the step's own; layer -1: there is none */
} gfli_twin;

/* A step of a network, between its maps; in a plan of it, between the plan's slots. */
typedef struct gfli_step {
    gfli_op op;
    int in, out, residual; /* residual -1: none */
    int offset;            /* of GFLI_OP_DEFORM_CONV; otherwise -1 */
    int layer;             /* GFLI_OP_CONV and GFLI_OP_DEFORM_CONV */
    bool relu;
    int gamma, beta; /* GFLI_OP_GROUP_NORM: parameters */
    int scale;       /* GFLI_OP_LEVEL_SCALE: first of GFL_LEVELS consecutive parameters */
    int stage;       /* as gfli_param.stage */
    int pair;        /* the step of the head's other side that may run beside this one, or -1 */
    /* What a plan says of it. */
    gfli_twin twin; /* of GFLI_OP_CONV, where the backend fuses */
    int stats;      /* of out, for group norm: floats from the start of the plan's stats; or -1 */
    bool given;     /* GFLI_OP_GROUP_NORM: a convolution has left them there */
    int64_t macs;
    gfli_conv_means means; /* of convolutions */
} gfli_step;

/* A map before it has a size. */
typedef struct gfli_net_map {
    int c, stride;     /* stride: pixels of the input along a side of one of its cells */
    int parent, level; /* the pyramid whose level this is; -1: none */
    int over;          /* the map whose place this one takes unless the plan is for training; -1 */
    bool taken;        /* its place, by another: no later step reads this one */
    const char *name;  /* "C3", "P5", "cls_score" and so on, or NULL */
} gfli_net_map;

typedef struct gfli_network {
    gfli_net_map *maps;
    gfli_step *steps;
    int n_maps, n_steps;
    int input, cls, reg; /* maps: network input, class logits, scaled box logits (pyramids) */
    int scale;           /* the first of the GFL_LEVELS parameters bbox_head.scales.l.scale */
    int classifier;      /* the layer whose output channels are the classes */
} gfli_network;

/* ---- describing ------------------------------------------------------------------------------ */

/* Appends to a model's tables: parameters and layers in the order of files (gfli_add_), then the
 * steps that use them in the order of time (gfli_run_).  The first failure sticks. */
typedef struct gfli_describer {
    gfl_model *model;
    size_t param_capacity, layer_capacity, map_capacity, step_capacity;
    gfl_status status;
    int stage;
    char prefix[64];
} gfli_describer;

/* What is added from here on belongs to this stage; stages ascend. */
void gfli_describe_stage(gfli_describer *d, int stage);
/* What the names of parameters begin with from here on. */
void gfli_describe_names(gfli_describer *d, const char *format, ...) GFLI_PRINTF(2, 3);

/* Convolutions, each with its weights; they return the layer.  Padding keeps the size. */
int gfli_add_conv(gfli_describer *d, const char *conv, gfli_init init, int in_c, int out_c,
                  int kernel, int stride, int groups);
/* ... of a backbone, with its batch norm; zero_gamma: the last of a residual branch. */
int gfli_add_conv_bn(gfli_describer *d, const char *conv, const char *bn, bool zero_gamma, int in_c,
                     int out_c, int kernel, int stride, int groups);
/* ... deformable, 3x3, with the ordinary one that gives its offsets, of 2 or 3 numbers a tap. */
int gfli_add_deform_bn(gfli_describer *d, const char *conv, const char *bn, int values, int width,
                       int stride, int groups);
int gfli_add_conv_bias(gfli_describer *d, const char *conv, gfli_init init, gfli_init bias_init,
                       int in_c, int out_c, int kernel, int stride);
int gfli_add_conv_gn(gfli_describer *d, const char *conv, const char *gn, int in_c, int out_c);
/* A factor that steps read as it is. */
int gfli_add_scale(gfli_describer *d, const char *name);

/* The channels of a map. */
int gfli_map_channels(const gfli_describer *d, int map);
void gfli_name_map(gfli_describer *d, int map, const char *name);
/* A pyramid of c channels, and its level l, which is then the output of a convolution. */
int gfli_add_pyramid(gfli_describer *d, int c, const char *name);
int gfli_add_level(gfli_describer *d, int pyramid, int level, const char *name);

/* Steps; they return their output map.  The residual, and the input of a norm or a scale, is not
 * read by any later step: but for training the output takes its place. */
int gfli_run_conv(gfli_describer *d, int layer, int in, bool relu);
int gfli_run_residual_conv(gfli_describer *d, int layer, int in, int residual);
void gfli_run_level_conv(gfli_describer *d, int layer, int in, int level);
int gfli_run_max_pool(gfli_describer *d, int in);
void gfli_run_upsample_add(gfli_describer *d, int in, int out);
int gfli_run_group_norm(gfli_describer *d, int layer, int in);
int gfli_run_level_scale(gfli_describer *d, int in, int scale);

/* ---- parts ----------------------------------------------------------------------------------- */

/* Each describes itself from model->arch.  A backbone (backbone.h) ends with the maps of strides 4,
 * 8, 16 and 32, in stages 1 to 4; the neck makes the pyramid of the last three. */
int gfli_describe_neck(gfli_describer *d, const int features[4]);
void gfli_describe_head(gfli_describer *d, int pyramid);

/* ===============================================================================================
 * src/model/plan.h - a network compiled for an input size: a flat list of steps over maps
 * ============================================================================================ */

/* A map of the plan.  Views (levels of a pyramid) share the memory of their parent. */
typedef struct gfli_slot {
    gfli_map map;     /* data is NULL until the plan is bound to memory */
    int parent;       /* slot whose level this is, or -1 */
    int level;        /* of the parent */
    int held;         /* the slot that holds the network's i-th map, this being i; -1: none yet */
    const char *name; /* "C3", "P5", "cls_score" and so on, or NULL */
} gfli_slot;

typedef struct gfli_plan {
    int batch, height, width; /* padded input */
    bool training;            /* every map has a place of its own; else, while it is needed */
    gfli_slot *maps;
    int n_slots;
    gfli_step *steps;
    int n_steps;
    gfli_piece *pieces; /* of each slot, in bytes and moments, which are numbers of steps; those of
                         * views are empty.  A backward pass adds those of the gradients. */
    int n_pieces;
    size_t slot_capacity, step_capacity, piece_capacity;
    int input, cls, reg;    /* slots: network input, class logits, scaled box logits (pyramids) */
    size_t workspace_bytes; /* all pieces */
    size_t stats_floats;
    size_t scratch_bytes;
    int64_t macs;
} gfli_plan;

/* The shapes of input that were used last: entry i is that of its user's i-th plan. */
enum { GFLI_PLANS = 12 };
typedef struct gfli_recent {
    int batch[GFLI_PLANS], height[GFLI_PLANS], width[GFLI_PLANS]; /* batch 0: none */
    uint64_t used[GFLI_PLANS], clock;
} gfli_recent;

/* The entry of a shape; *known false: it was that of the shape that was not used for longest, and
 * its plan is to be made anew, or else forgotten. */
int gfli_recent_find(gfli_recent *recent, int batch, int height, int width, bool *known);
void gfli_recent_forget(gfli_recent *recent, int entry);

/* ===============================================================================================
 * src/model/model.h - the model as the implementation sees it
 * ============================================================================================ */

struct gfl_model {
    gfl_context *context;
    const gfli_backend *backend;
    gfl_arch arch;
    gfl_preprocess preprocess;
    gfl_class *classes;
    gfli_param *params;
    int n_params;
    gfli_layer *layers;
    int n_layers;
    gfli_network network;
    /* All parameters, gradients and momentum have this layout: n_trained floats of parameters, then
     * running statistics up to n_values.  Memory of the device. */
    float *values;
    size_t n_trained, n_values;
    float *folded; /* the layers' folded_bias and folded_scale */
    bool trainable;
    int stale;     /* 1 + the first stage that is packed from older parameters; 0: none */
    uint64_t seed; /* of weights that no file gave */
    gfl_origins origins;
    gfl_tensor_report *reports;
    int n_reports;
};

/* Build the plan of an input size (height and width multiples of 32).  Allocates from context. */
gfl_status gfli_plan_create(gfl_context *context, const gfl_model *model, int batch, int height,
                            int width, bool training, gfli_plan *out);
/* The same in the memory of another plan, which is zeroed or made; gfli_plan_reserve gives a plan
 * what any of the model's needs. */
gfl_status gfli_plan_recreate(gfl_context *context, const gfl_model *model, int batch, int height,
                              int width, bool training, gfli_plan *out);
gfl_status gfli_plan_reserve(gfl_context *context, const gfl_model *model, gfli_plan *plan);
void gfli_plan_destroy(gfl_context *context, gfli_plan *plan);

/* The device memory of a detector without distributions for images of this size, in a plan of
 * it; model's backend. */
size_t gfli_detector_bytes(const gfl_model *model, const gfli_plan *plan, int width, int height);

/* Give every slot its place in workspace [plan->workspace_bytes]. */
void gfli_plan_bind(gfli_plan *plan, void *workspace);

/* What has the memory of a slot: itself, or what it is a view of. */
int gfli_plan_root(const gfli_plan *plan, int slot);
/* The slot, or -1 for none, is needed at this moment too. */
void gfli_plan_need(gfli_plan *plan, int slot, int moment);
/* Start anew with what the forward pass needs: step i is moment i, the outputs are read at
 * n_steps. */
void gfli_plan_live(gfli_plan *plan);
/* Place the pieces after their lives have changed. */
gfl_status gfli_plan_place(gfl_context *context, gfli_plan *plan);

/* Run one step, or all of them.  stats [plan->stats_floats], scratch [plan->scratch_bytes]. */
void gfli_plan_run_step(gfl_context *context, const gfl_model *model, const gfli_plan *plan,
                        int step, float *stats, void *scratch);
void gfli_plan_forward(gfl_context *context, const gfl_model *model, const gfli_plan *plan,
                       float *stats, void *scratch);

/* Replace zeros by defaults and check every field. */
gfl_status gfli_arch_resolve(gfl_context *context, const gfl_arch *in, gfl_arch *out);
void gfli_default(int *value, int when_zero);
gfl_status gfli_check_range(gfl_context *context, const char *what, int value, int low, int high);
gfl_status gfli_preprocess_resolve(gfl_context *context, const gfl_preprocess *in,
                                   gfl_preprocess *out);
/* "R50", "X101-32x4d-DCNv2": what papers call it. */
void gfli_arch_name(const gfl_context *context, const gfl_arch *arch, char out[32]);

/* The tables of parameters and layers of model->arch, without data, in a state dict's order. */
gfl_status gfli_model_describe(gfl_model *model);
void gfli_model_undescribe(gfl_model *model);
/* Fresh values of a parameter, to the host; a function of seed and index alone. */
void gfli_param_init(gfli_param *param, uint64_t seed, int index, float *out);

/* The block of all values, and where each parameter lies in it. */
gfl_status gfli_model_place(gfl_model *model);
/* The values of one parameter, as the model keeps them, between its place and the host. */
gfl_status gfli_param_fetch(const gfl_model *model, int index, float *out);
void gfli_param_store(const gfl_model *model, int index, const float *values);
/* The first of a parameter's values that is no variance, where all must be; its count: none. */
size_t gfli_bad_variance(const gfli_param *p, const float *values);
/* The weights of a convolution from the order of the model, OHWI, to that of files, OIHW, or
 * back. */
void gfli_reorder_weight(const gfli_param *p, const float *from, float *to, bool to_file);
/* n floats of the device. */
gfl_status gfli_fetch(const gfl_model *model, const float *from, size_t n, float *out);
/* Floats of the largest parameter. */
size_t gfli_largest_param(const gfl_model *model);
/* Which parameters learn, and where the first of them begins: they are the rest of n_trained. */
bool gfli_is_trained(const gfli_param *param, int frozen_stages);
size_t gfli_first_trained(const gfl_model *model, int frozen_stages);

/* Give parameter index its values, on the host. */
typedef gfl_status (*gfli_fill)(void *arg, gfl_model *model, int index, float *to);
/* Fill and pack everything; a model that is not trainable holds one layer's sources at a time. */
gfl_status gfli_model_build(gfl_model *model, gfli_fill fill, void *arg);
/* A model with tables but no values; classes NULL: the default names. */
gfl_status gfli_model_new(gfl_context *context, const gfl_arch *arch,
                          const gfl_preprocess *preprocess, const gfl_class *classes,
                          bool trainable, gfl_model **out);

/* Parameters of this stage or later ones have changed: nothing may read what is packed from them
 * until gfli_model_pack has folded the batch norms and packed anew what is stale. */
void gfli_model_changed(gfl_model *model, int first_stage);
gfl_status gfli_model_pack(gfl_model *model);
/* GFL_E_ARG, in the name of `what`, where something is stale. */
gfl_status gfli_model_check_packed(gfl_context *context, const gfl_model *model, const char *what);

/* The parameter of a name, or -1. */
int gfli_model_find(const gfl_model *model, const char *name);

/* What an image is resized by to fit (spec 7.2); its size then; the size of the padded input. */
double gfli_resize_factor(int width, int height, int scale_long, int scale_short);
void gfli_resized_size(int width, int height, int scale_long, int scale_short, int *out_width,
                       int *out_height);
static inline int gfli_pad32(int size) {
    return (size + 31) / 32 * 32;
}

/* What a public function demands that reads or changes a model's parameters. */
#define GFLI_TRAINABLE(context, model)                                                             \
    GFLI_DEMAND(context, (model)->trainable,                                                       \
                "%s: the model's weights were released after packing; create or load it "          \
                "with trainable = 1 in its description",                                           \
                __func__)

/* ===============================================================================================
 * src/model/dialect.h - what the two published families of GFL compute differently
 * ============================================================================================ */

/* Spec 0.2 as one table.  Operations get these numbers through their options; none of them knows
 * the name of a dialect. */
typedef struct gfli_dialect {
    const char *name;    /* in metadata, options and messages */
    const char *project; /* the buffer of its head; only this name tells dialects apart */

    /* 0: corners lie between pixels.  1: corners are pixels that belong to the box, so that a width
     * is x2 - x1 + 1, the last coordinate of an image its size - 1, and the position that stands
     * for a cell its middle pixel. */
    int inclusive;
    /* Training boxes and detections follow the factor of the resize before sizes are rounded (else
     * the ratio of the sizes along each axis); detections by a division (else by a multiplication
     * with the inverse). */
    bool one_scale;
    bool by_location; /* candidates of a level: its best locations, then their classes above the
                         threshold; else its best pairs of location and class */

    bool outside_counts;   /* positions outside the valid area are negatives of the class loss */
    bool add_eps;          /* unions and hulls + eps; else at least eps */
    double quality_eps;    /* ... of the IoU that class scores learn */
    double mean_eps;       /* added to what a mean divides by */
    double min_weight_sum; /* what the box losses are divided by is at least this */

    double warmup_start; /* factor of the first update's rate */
    int warmup_end;      /* the last update of the warm-up before the full rate: warmup - this */
    double bias_lr;      /* factors for biases other than those of bn and gn layers */
    double bias_decay;
} gfli_dialect;

/* Of a resolved architecture. */
const gfli_dialect *gfli_dialect_get(gfl_dialect dialect);

/* Everything in the options that follows from the architecture; the rest becomes 0. */
void gfli_decode_opts_init(const gfl_arch *arch, gfli_decode_opts *out);
void gfli_assign_opts_init(const gfl_arch *arch, gfli_assign_opts *out);
void gfli_loss_opts_init(const gfl_arch *arch, gfli_loss_opts *out); /* normalisers: the batch's */

/* Is the parameter of this name a bias in the sense of bias_lr and bias_decay? */
bool gfli_is_plain_bias(const char *name);

/* What boxes of a width x height image are multiplied with when it is fitted into long x short. */
void gfli_box_scale(bool one_scale, int width, int height, int scale_long, int scale_short,
                    double *scale_x, double *scale_y);

/* ===============================================================================================
 * src/model/weights.h - a weight file under the model's names, on its way into a model
 * ============================================================================================ */

/* One tensor of a file, and what the model calls it. */
typedef struct gfli_entry {
    char *name;                /* the model's */
    const gfli_tensor *tensor; /* the blob's, under the file's name */
} gfli_entry;

typedef struct gfli_weights {
    gfl_context *context;
    gfli_blob blob;
    gfli_entry *entries; /* all that are not counters or constants, sorted by name */
    int n_entries;
    float *raw, *ready; /* one tensor as the file has it, and as the model wants it */
    size_t raw_capacity, ready_capacity;
    gfl_class *classes; /* that were read; names owned */
    int n_classes;
    bool has_ids; /* of the classes, in the metadata */
} gfli_weights;

/* Bring the tensors of w->blob, already open, under the model's names (names.c).  The blob belongs
 * to w then; end it also after a failure. */
gfl_status gfli_weights_begin(gfl_context *context, gfli_weights *w);
void gfli_weights_end(gfli_weights *w);
const gfli_tensor *gfli_weights_find(const gfli_weights *w, const char *name); /* or NULL */

/* The architecture that the shapes describe (deduce.c): of a detector, or of a backbone, which may
 * end early; stages: how many it has, NULL where all must be there. */
gfl_status gfli_deduce_detector(gfli_weights *w, gfl_arch *arch);
gfl_status gfli_deduce_backbone(gfli_weights *w, gfl_arch *arch, int *stages);
gfl_status gfli_deduce_neck(gfli_weights *w, gfl_arch *arch);
gfl_status gfli_deduce_head(gfli_weights *w, gfl_arch *arch);
/* Dimension `axis` of a convolution's weights. */
gfl_status gfli_deduce_dim(gfli_weights *w, const char *name, int axis, int *out);
/* How many tensors there are whose names have a number between these, counting from 0. */
int gfli_count_numbered(const gfli_weights *w, const char *before, const char *after);

/* What the metadata says (metadata.c).  A demanded dialect or style must not contradict it; the
 * default demands nothing. */
gfl_status gfli_read_dialect(gfli_weights *w, gfl_dialect wanted, gfl_dialect *out,
                             gfl_origin *origin);
gfl_status gfli_read_style(gfli_weights *w, gfl_style wanted, gfl_style *out, gfl_origin *origin);
const char *gfli_style_name(const gfl_arch *arch);
gfl_status gfli_read_preprocess(gfli_weights *w, gfl_preprocess *out, gfl_origin *origin);
gfl_origin gfli_scale_origin(const gfli_weights *w);
const char *gfli_order_key(const gfli_weights *w); /* of the channel order, NULL: not said */
gfl_status gfli_read_classes(gfli_weights *w, int n, const gfl_class **out, gfl_origin *origin);
gfl_status gfli_check_labels(gfli_weights *w, const gfl_arch *arch);

/* The values of a tensor of the parameter's shape, checked, in the model's layout. */
bool gfli_same_shape(const gfli_param *param, const gfli_tensor *tensor);
gfl_status gfli_read_values(gfli_weights *w, const gfli_param *param, const gfli_tensor *tensor,
                            float *out);

/* The model that a detector's file describes, but for its classes.  Then the model itself: every
 * parameter must have its tensor, and every tensor of the network its parameter. */
gfl_status gfli_describe_weights(gfli_weights *w, gfl_dialect dialect, gfl_style style,
                                 gfl_model_desc *desc, gfl_origins *origins);
gfl_status gfli_load_weights(gfli_weights *w, const gfl_model_desc *desc,
                             const gfl_origins *origins, bool trainable, gfl_model **out);

bool gfli_ends_with(const char *text, const char *end);

/* What messages say of a tensor's shape. */
typedef struct gfli_shape_text {
    char text[96];
} gfli_shape_text;
gfli_shape_text gfli_shape(int rank, const int64_t *shape);

/* Room for n reports in place of those before; then one after the other. */
gfl_status gfli_open_reports(gfl_model *model, size_t n);
gfl_status gfli_report(gfl_model *model, const char *name, gfl_fate fate, int rank,
                       const int64_t *shape, const char *why);
void gfli_clear_reports(gfl_model *model);

/* What a weight file says about the model, one key after the other; its mean, std and channel
 * order alone. */
typedef gfl_status (*gfli_put_meta)(void *to, const char *key, const char *value);
gfl_status gfli_model_metadata(const gfl_model *model, gfli_put_meta put, void *to);
gfl_status gfli_put_input(const gfl_model *model, gfli_put_meta put, void *to,
                          const char *order_key);
gfl_status gfli_meta_to_blob(void *writer, const char *key, const char *value);

/* A buffer that grows to the largest tensor put in it. */
typedef struct gfli_values {
    float *data;
    size_t capacity;
} gfli_values;

/* A parameter's values in the order of files: OIHW, where the model has OHWI. */
gfl_status gfli_param_values(const gfl_model *model, int index, gfli_values *values,
                             const float **out);

/* The parameters of the stages up to last_stage, their names without the first `skip` letters. */
gfl_status gfli_put_params(const gfl_model *model, gfli_blob_writer *w, int last_stage,
                           size_t skip);

/* ===============================================================================================
 * src/model/backbone.h - a kind of backbone: one row, and all that the library knows of it
 * ============================================================================================ */

/* What names in files become (names.c): the first rule that fits, until none does. */
typedef struct gfli_name_rule {
    const char *from, *to;
    bool anywhere; /* not only at the front */
} gfli_name_rule;

/* Tensors of networks that look like gfl's and are not: what a name begins with and holds. */
typedef struct gfli_relative {
    const char *front, *inside, *what;
} gfli_relative;

/* A value that a configuration of mmdetection must have. */
typedef struct gfli_config_row {
    const char *path;
    const char *wanted; /* as gfli_py_shown_as has it; several are separated by "|" */
} gfli_config_row;

/* Rows are `struct gfli_backbone`; context.h declares the name.  Lists end with a zero. */
struct gfli_backbone {
    const char *family; /* in messages: "a ResNet" */

    /* Architectures: the values of gfl_arch.depth that mean this kind; defaults and limits of the
     * fields that are its own; its presets, with those fields alone; "R50", and what files of a
     * backbone alone say for it; its description (network.h). */
    const int *depths;
    gfl_status (*resolve)(gfl_context *context, gfl_arch *arch);
    int n_presets;
    void (*preset)(int i, gfl_preset *out);
    void (*name)(const gfl_arch *arch, char out[32]);
    void (*file_name)(const gfl_arch *arch, char out[48]);
    void (*describe)(gfli_describer *d, int features[4]);

    /* Files: the tensor that shows this kind; what the names of a stage's tensors begin with,
     * before its number; what the depth stands behind in the names above; other names. */
    const char *stem, *stages;
    const char *const *before_depth;
    const gfli_name_rule *rules;
    const gfli_relative *relatives;
    const gfli_config_row *config;
    /* The architecture that the shapes describe, of the stages that there are; stages NULL: all
     * four must be there. */
    gfl_status (*deduce)(gfli_weights *w, gfl_arch *arch, int *stages);
    /* An error where a model cannot take the backbone of a file. */
    gfl_status (*compare)(const gfli_weights *w, const gfl_backbone_info *file,
                          const gfl_arch *model);
};

extern const gfli_backbone gfli_resnet;

/* The kinds that there are: the context's, or the library's.  Context may be NULL. */
const gfli_backbone *const *gfli_backbones(const gfl_context *context);
/* The kind of a depth, NULL if none; of a file, the first if none. */
const gfli_backbone *gfli_backbone_of(const gfl_context *context, int depth);
const gfli_backbone *gfli_backbone_in(const gfli_weights *w);

GFLI_END

#endif /* GFL_INTERNAL_H */
#endif

#ifdef GFL_IMPLEMENTATION
#ifndef GFL_IMPLEMENTED
#define GFL_IMPLEMENTED

GFLI_BEGIN

/* ===============================================================================================
 * src/core/status.c - names of the status codes, and the version
 * ============================================================================================ */

const char *gfl_status_get_name(gfl_status status) {
    switch (status) {
    case GFL_OK: return "GFL_OK";
    case GFL_E_ARG: return "GFL_E_ARG";
    case GFL_E_MEMORY: return "GFL_E_MEMORY";
    case GFL_E_IO: return "GFL_E_IO";
    case GFL_E_FORMAT: return "GFL_E_FORMAT";
    case GFL_E_MISMATCH: return "GFL_E_MISMATCH";
    case GFL_E_DATA: return "GFL_E_DATA";
    case GFL_E_DEVICE: return "GFL_E_DEVICE";
    case GFL_E_NONFINITE: return "GFL_E_NONFINITE";
    case GFL_E_STOPPED: return "GFL_E_STOPPED";
    case GFL_E_UNSUPPORTED: return "GFL_E_UNSUPPORTED";
    case GFL_E_RANK: return "GFL_E_RANK";
    }
    return "unknown status";
}

int gfl_get_version(void) {
    return GFL_VERSION;
}

/* ===============================================================================================
 * src/core/os.c - the operating system, as all systems share it: rules, texts, the seam for tests
 * ============================================================================================ */

#ifdef GFLI_OS_SEAM
int gfli_os_seam(const char *operation, const char *path);
#    define GFLI_OS_MAY(operation, path) gfli_os_seam(operation, path)
#else
#    define GFLI_OS_MAY(operation, path) 0
#endif

/* What a single call of the system is asked for at most: some refuse more than an int can say. */
enum { GFLI_OS_PIECE = 1 << 30 };

static size_t gfli_os_piece(size_t size) {
    return size < GFLI_OS_PIECE ? size : (size_t)GFLI_OS_PIECE;
}

gfl_status gfli_os_error(gfl_context *context, const char *path, const char *what, int e) {
    char text[256];
    gfli_sys_text(e, text, sizeof text);
    return gfli_error(context, gfli_sys_is_memory(e) ? GFL_E_MEMORY : GFL_E_IO, "%.600s %s: %s",
                      path, what, text);
}

gfl_status gfli_os_refuse(gfl_context *context, const char *path, const char *what,
                          gfli_os_kind kind) {
    const char *is = kind == GFLI_OS_FOLDER ? "folder" : kind == GFLI_OS_PIPE ? "FIFO" : "device";
    return gfli_error(context, GFL_E_IO, "%.600s %s: it is a %s, not a regular file", path, what,
                      is);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Standard input that is a pipe or a terminal; a file that was redirected into it is opened by its
 * name like any other, and so can be read more than once. */
static bool gfli_os_is_stream(const char *path) {
    gfli_os_info info;
    return !strcmp(path, "/dev/stdin") && gfli_sys_look(path, &info) == 0 &&
           info.kind != GFLI_OS_FILE && info.kind != GFLI_OS_FOLDER;
}

gfl_status gfli_os_open(gfl_context *context, const char *path, gfli_os_source source,
                        gfli_handle *out, gfli_os_info *info) {
    memset(info, 0, sizeof *info);
    *out = GFLI_NO_HANDLE;
    const bool stream = source == GFLI_OS_REGULAR_OR_STDIN && gfli_os_is_stream(path);
    int e = stream ? gfli_sys_open_stdin(out) : gfli_sys_open(path, out);
    if (e) return gfli_os_error(context, path, "cannot be opened", e);
    e = gfli_sys_describe(*out, info);
    gfl_status status = GFL_OK;
    if (e)
        status = gfli_os_error(context, path, "cannot be opened", e);
    else if (!stream && info->kind != GFLI_OS_FILE)
        status = gfli_os_refuse(context, path, "cannot be opened", info->kind);
    if (status == GFL_OK) return GFL_OK;
    gfli_os_close(*out);
    *out = GFLI_NO_HANDLE;
    return status;
}

gfl_status gfli_os_read(gfl_context *context, const char *path, gfli_handle file, void *out,
                        size_t size, size_t *got) {
    size_t n = 1;
    for (*got = 0; n && *got < size; *got += n) {
        int e = gfli_sys_read(file, (char *)out + *got, gfli_os_piece(size - *got), &n);
        if (e) return gfli_os_error(context, path, "cannot be read", e);
    }
    return GFL_OK;
}

gfl_status gfli_os_read_at(gfl_context *context, const char *path, gfli_handle file,
                           uint64_t offset, void *out, size_t size, size_t *got) {
    size_t n = 1;
    for (*got = 0; n && *got < size; *got += n) {
        int e = gfli_sys_read_at(file, offset + *got, (char *)out + *got,
                                 gfli_os_piece(size - *got), &n);
        if (e) return gfli_os_error(context, path, "cannot be read", e);
    }
    return GFL_OK;
}

void gfli_os_close(gfli_handle file) {
    if (file != GFLI_NO_HANDLE) (void)gfli_sys_close(file);
}

gfli_os_info gfli_os_look(const char *path) {
    gfli_os_info info;
    memset(&info, 0, sizeof info);
    if (gfli_sys_look(path, &info) != 0) info.kind = GFLI_OS_NOTHING;
    return info;
}

/* ---- changing -------------------------------------------------------------------------------- */

int gfli_os_create(const char *path, int mode, gfli_handle *out, bool *exists) {
    int e = GFLI_OS_MAY("create", path);
    *out = GFLI_NO_HANDLE;
    if (!e) e = gfli_sys_create(path, mode, out);
    *exists = e && gfli_sys_is_exists(e);
    return e;
}

int gfli_os_open_in_place(const char *path, gfli_handle *out) {
    *out = GFLI_NO_HANDLE;
    return gfli_sys_open_in_place(path, out);
}

int gfli_os_write(const char *path, gfli_handle file, const void *data, size_t size) {
    int e = GFLI_OS_MAY("write", path);
    size_t n = 0;
    (void)path;
    for (size_t done = 0; !e && done < size; done += n)
        e = gfli_sys_write(file, (const char *)data + done, gfli_os_piece(size - done), &n);
    return e;
}

int gfli_os_sync(const char *path, gfli_handle file) {
    int e = GFLI_OS_MAY("sync", path);
    (void)path;
    return e ? e : gfli_sys_sync(file);
}

int gfli_os_finish(gfli_handle file) {
    return gfli_sys_close(file);
}

int gfli_os_rename(const char *from, const char *to) {
    int e = GFLI_OS_MAY("rename", to);
    return e ? e : gfli_sys_rename(from, to);
}

int gfli_os_remove(const char *path) {
    int e = GFLI_OS_MAY("remove", path);
    return e ? e : gfli_sys_remove(path);
}

void gfli_os_sync_folder(const char *path) {
    char folder[4096];
    size_t n = gfli_os_folder_length(path);
    if (n >= sizeof folder || GFLI_OS_MAY("sync folder", path) != 0) return;
    memcpy(folder, n ? path : ".", n ? n : 1);
    folder[n ? n : 1] = 0;
    (void)gfli_sys_sync_folder(folder);
}

/* ---- threads and the processor --------------------------------------------------------------- */

gfl_status gfli_thread_start(gfl_context *context, gfli_thread *thread, void (*run)(void *arg),
                             void *arg) {
    thread->run = run;
    thread->arg = arg;
    int e = gfli_sys_thread_start(thread);
    thread->running = e == 0;
    if (!e) return GFL_OK;
    char text[256];
    gfli_sys_text(e, text, sizeof text);
    return gfli_error(context, gfli_sys_is_memory(e) ? GFL_E_MEMORY : GFL_E_DEVICE,
                      "a thread could not be started: %s", text);
}

/* ===============================================================================================
 * src/core/os_posix.c - the operating system where it is POSIX: Linux, macOS, the BSDs
 * ============================================================================================ */

#if !defined(_WIN32)

/* ---- files ----------------------------------------------------------------------------------- */

/* Without O_NONBLOCK the opening of a FIFO would wait for a writer. */
int gfli_sys_open(const char *path, gfli_handle *out) {
    int fd;
    do fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    *out = fd;
    return fd < 0 ? errno : 0;
}

int gfli_sys_open_stdin(gfli_handle *out) {
    int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    *out = fd;
    return fd < 0 ? errno : 0;
}

int gfli_sys_open_in_place(const char *path, gfli_handle *out) {
    int fd;
    do fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    *out = fd;
    return fd < 0 ? errno : 0;
}

int gfli_sys_create(const char *path, int mode, gfli_handle *out) {
    int fd;
    do fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return errno;
    /* Another owner's permissions cannot be given; those of a new file are no error. */
    int e = mode && fchmod(fd, (mode_t)mode) ? errno : 0;
    if (e == 0 || e == EPERM) {
        *out = fd;
        return 0;
    }
    close(fd);
    unlink(path);
    return e;
}

static void gfli_posix_info(const struct stat *s, gfli_os_info *out) {
    memset(out, 0, sizeof *out);
    out->kind = S_ISREG(s->st_mode)    ? GFLI_OS_FILE
                : S_ISDIR(s->st_mode)  ? GFLI_OS_FOLDER
                : S_ISFIFO(s->st_mode) ? GFLI_OS_PIPE
                : S_ISSOCK(s->st_mode) ? GFLI_OS_PIPE
                                       : GFLI_OS_DEVICE;
    out->mode = (int)(s->st_mode & 07777);
    if (out->kind == GFLI_OS_FILE && s->st_size > 0) out->size = (uint64_t)s->st_size;
}

int gfli_sys_describe(gfli_handle file, gfli_os_info *out) {
    struct stat s;
    if (fstat((int)file, &s) != 0) return errno;
    gfli_posix_info(&s, out);
    return 0;
}

int gfli_sys_look(const char *path, gfli_os_info *out) {
    struct stat s;
    if (stat(path, &s) != 0) return errno;
    gfli_posix_info(&s, out);
    return 0;
}

/* The answer of read and its relatives: bytes, or -1 with errno. */
static int gfli_posix_count(ssize_t n, size_t *out) {
    *out = n > 0 ? (size_t)n : 0;
    return n < 0 ? errno : 0;
}

int gfli_sys_read(gfli_handle file, void *out, size_t size, size_t *got) {
    ssize_t n;
    do n = read((int)file, out, size);
    while (n < 0 && errno == EINTR);
    return gfli_posix_count(n, got);
}

int gfli_sys_read_at(gfli_handle file, uint64_t offset, void *out, size_t size, size_t *got) {
    ssize_t n;
    do n = pread((int)file, out, size, (off_t)offset);
    while (n < 0 && errno == EINTR);
    return gfli_posix_count(n, got);
}

int gfli_sys_write(gfli_handle file, const void *data, size_t size, size_t *done) {
    ssize_t n;
    do n = write((int)file, data, size);
    while (n < 0 && errno == EINTR);
    return n == 0 ? EIO : gfli_posix_count(n, done);
}

int gfli_sys_sync(gfli_handle file) {
    int e;
#    if defined(F_FULLFSYNC)
    if (fcntl((int)file, F_FULLFSYNC) != -1) return 0; /* macOS: fsync leaves it in the drive */
#    endif
    do e = fsync((int)file) ? errno : 0;
    while (e == EINTR);
    return e;
}

/* Whether it was interrupted or not, the descriptor is gone. */
int gfli_sys_close(gfli_handle file) {
    return close((int)file) && errno != EINTR ? errno : 0;
}

int gfli_sys_rename(const char *from, const char *to) {
    return rename(from, to) ? errno : 0;
}

int gfli_sys_remove(const char *path) {
    return unlink(path) ? errno : 0;
}

int gfli_sys_sync_folder(const char *folder) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno;
    int e = gfli_sys_sync(fd);
    close(fd);
    return e;
}

size_t gfli_os_folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

bool gfli_os_is_absolute(const char *path) {
    return path[0] == '/';
}

bool gfli_os_link_target(const char *path, char *out, size_t capacity) {
    ssize_t n = readlink(path, out, capacity - 1);
    if (n <= 0) return false;
    out[n] = 0;
    return true;
}

bool gfli_sys_is_memory(int e) {
    return e == ENOMEM;
}

bool gfli_sys_is_exists(int e) {
    return e == EEXIST;
}

void gfli_sys_text(int e, char *out, size_t size) {
    snprintf(out, size, "%s", strerror(e));
}

/* ---- processes, processors, time ------------------------------------------------------------- */

long gfli_os_process(void) {
    return (long)getpid();
}

double gfli_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void gfli_os_sleep(double seconds) {
    struct timespec t;
    t.tv_sec = (time_t)seconds;
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    nanosleep(&t, NULL);
}

/* The beginning of a file in which the kernel tells something; empty where there is none. */
static void gfli_kernel_text(const char *path, char *out, size_t capacity) {
    gfli_handle file;
    size_t n = 0, got = 1;
    out[0] = 0;
    if (gfli_sys_open(path, &file) != 0) return;
    while (n + 1 < capacity && got > 0) {
        if (gfli_sys_read(file, out + n, capacity - 1 - n, &got) != 0) break;
        n += got;
    }
    out[n] = 0;
    (void)gfli_sys_close(file);
}

/* CPUs of the affinity mask, as Linux prints it in hexadecimal; 0 when it does not. */
static int gfli_affinity_cpus(void) {
    char text[16384];
    int n = 0;
    gfli_kernel_text("/proc/self/status", text, sizeof text);
    const char *p = strstr(text, "\nCpus_allowed:");
    if (!p) return 0;
    for (p += 14; *p && *p != '\n'; p++) {
        int digit = *p >= '0' && *p <= '9' ? *p - '0' : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 : 0;
        for (; digit; digit &= digit - 1) n++;
    }
    return n;
}

/* CPUs' worth of time that the control group grants, rounded up; 0 when it sets no limit. */
static int gfli_cgroup_cpus(const char *path) {
    char text[64];
    long quota = 0, period = 0;
    gfli_kernel_text(path, text, sizeof text);
    if (sscanf(text, "%ld %ld", &quota, &period) != 2 || quota <= 0 || period <= 0) return 0;
    return (int)((quota + period - 1) / period);
}

/* The least of what limits there are; 0 is none. */
static int gfli_least_cpus(long online, int affinity, int group) {
    int n = online > 0 ? (int)online : 1;
    if (affinity > 0) n = gfli_min(n, affinity);
    if (group > 0) n = gfli_min(n, group);
    return n;
}

int gfli_os_cpus(void) {
    return gfli_least_cpus(sysconf(_SC_NPROCESSORS_ONLN), gfli_affinity_cpus(),
                           gfli_cgroup_cpus("/sys/fs/cgroup/cpu.max"));
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *gfli_posix_thread(void *p) {
    gfli_thread *thread = (gfli_thread *)p;
    thread->run(thread->arg);
    return NULL;
}

int gfli_sys_thread_start(gfli_thread *thread) {
    return pthread_create(&thread->handle, NULL, gfli_posix_thread, thread);
}

void gfli_thread_join(gfli_thread *thread) {
    if (thread->running) pthread_join(thread->handle, NULL);
    thread->running = false;
}

void gfli_mutex_init(gfli_mutex *mutex) {
    pthread_mutex_init(mutex, NULL);
}

void gfli_mutex_lock(gfli_mutex *mutex) {
    pthread_mutex_lock(mutex);
}

void gfli_mutex_unlock(gfli_mutex *mutex) {
    pthread_mutex_unlock(mutex);
}

void gfli_mutex_destroy(gfli_mutex *mutex) {
    pthread_mutex_destroy(mutex);
}

void gfli_condition_init(gfli_condition *condition) {
    pthread_cond_init(condition, NULL);
}

void gfli_condition_wait(gfli_condition *condition, gfli_mutex *mutex) {
    pthread_cond_wait(condition, mutex);
}

void gfli_condition_signal(gfli_condition *condition) {
    pthread_cond_signal(condition);
}

void gfli_condition_broadcast(gfli_condition *condition) {
    pthread_cond_broadcast(condition);
}

void gfli_condition_destroy(gfli_condition *condition) {
    pthread_cond_destroy(condition);
}
#endif

/* ===============================================================================================
 * src/core/os_windows.c - the operating system where it is Windows, Vista and later
 * ============================================================================================ */

#if defined(_WIN32)

/* ---- files ----------------------------------------------------------------------------------- */

enum { GFLI_WIDE = 4096 };

static int gfli_windows_error(void) {
    return (int)GetLastError();
}

/* Paths are UTF-8 everywhere in this library; this is where they become what Windows takes. */
static int gfli_windows_path(const char *path, wchar_t out[GFLI_WIDE]) {
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out, GFLI_WIDE)) return 0;
    return gfli_windows_error();
}

/* Handles made here are not inherited by programs that the host starts. */
static int gfli_windows_open(const char *path, DWORD access, DWORD how, gfli_handle *out) {
    wchar_t wide[GFLI_WIDE];
    *out = GFLI_NO_HANDLE;
    int e = gfli_windows_path(path, wide);
    if (e) return e;
    /* With backup semantics folders open too, and can be told. */
    HANDLE file = CreateFileW(wide, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                              NULL, how, FILE_ATTRIBUTE_NORMAL | FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (file == INVALID_HANDLE_VALUE) return gfli_windows_error();
    *out = (gfli_handle)file;
    return 0;
}

int gfli_sys_open(const char *path, gfli_handle *out) {
    return gfli_windows_open(path, GENERIC_READ, OPEN_EXISTING, out);
}

int gfli_sys_open_stdin(gfli_handle *out) {
    HANDLE own = GetCurrentProcess(), copy = INVALID_HANDLE_VALUE;
    if (!DuplicateHandle(own, GetStdHandle(STD_INPUT_HANDLE), own, &copy, 0, FALSE,
                         DUPLICATE_SAME_ACCESS))
        return gfli_windows_error();
    *out = (gfli_handle)copy;
    return 0;
}

int gfli_sys_open_in_place(const char *path, gfli_handle *out) {
    return gfli_windows_open(path, GENERIC_WRITE, OPEN_EXISTING, out);
}

/* Permissions come from the folder here. */
int gfli_sys_create(const char *path, int mode, gfli_handle *out) {
    (void)mode;
    return gfli_windows_open(path, GENERIC_WRITE, CREATE_NEW, out);
}

int gfli_sys_describe(gfli_handle file, gfli_os_info *out) {
    BY_HANDLE_FILE_INFORMATION info;
    memset(out, 0, sizeof *out);
    const DWORD type = GetFileType((HANDLE)file);
    out->kind = type == FILE_TYPE_PIPE ? GFLI_OS_PIPE : GFLI_OS_DEVICE;
    if (type != FILE_TYPE_DISK) return 0;
    if (!GetFileInformationByHandle((HANDLE)file, &info)) return gfli_windows_error();
    const bool folder = (info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    out->kind = folder ? GFLI_OS_FOLDER : GFLI_OS_FILE;
    if (!folder) out->size = (uint64_t)info.nFileSizeHigh << 32 | info.nFileSizeLow;
    return 0;
}

int gfli_sys_look(const char *path, gfli_os_info *out) {
    gfli_handle file;
    int e = gfli_windows_open(path, 0, OPEN_EXISTING, &file);
    if (e) return e;
    e = gfli_sys_describe(file, out);
    (void)gfli_sys_close(file);
    return e;
}

/* The end of a pipe, and of a file that is read at an offset, come as errors. */
static int gfli_windows_read(gfli_handle file, void *out, size_t size, OVERLAPPED *at,
                             size_t *got) {
    DWORD n = 0;
    *got = 0;
    if (!ReadFile((HANDLE)file, out, (DWORD)size, &n, at)) {
        const int e = gfli_windows_error();
        return e == ERROR_HANDLE_EOF || e == ERROR_BROKEN_PIPE ? 0 : e;
    }
    *got = n;
    return 0;
}

int gfli_sys_read(gfli_handle file, void *out, size_t size, size_t *got) {
    return gfli_windows_read(file, out, size, NULL, got);
}

int gfli_sys_read_at(gfli_handle file, uint64_t offset, void *out, size_t size, size_t *got) {
    OVERLAPPED at;
    memset(&at, 0, sizeof at);
    at.Offset = (DWORD)offset;
    at.OffsetHigh = (DWORD)(offset >> 32);
    return gfli_windows_read(file, out, size, &at, got);
}

int gfli_sys_write(gfli_handle file, const void *data, size_t size, size_t *done) {
    DWORD n = 0;
    const BOOL good = WriteFile((HANDLE)file, data, (DWORD)size, &n, NULL);
    *done = n;
    if (good && n == 0) return ERROR_WRITE_FAULT;
    return good ? 0 : gfli_windows_error();
}

int gfli_sys_sync(gfli_handle file) {
    return FlushFileBuffers((HANDLE)file) ? 0 : gfli_windows_error();
}

int gfli_sys_close(gfli_handle file) {
    return CloseHandle((HANDLE)file) ? 0 : gfli_windows_error();
}

int gfli_sys_rename(const char *from, const char *to) {
    wchar_t wide_from[GFLI_WIDE], wide_to[GFLI_WIDE];
    int e = gfli_windows_path(from, wide_from);
    if (!e) e = gfli_windows_path(to, wide_to);
    if (e) return e;
    return MoveFileExW(wide_from, wide_to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)
               ? 0
               : gfli_windows_error();
}

int gfli_sys_remove(const char *path) {
    wchar_t wide[GFLI_WIDE];
    const int e = gfli_windows_path(path, wide);
    return e || DeleteFileW(wide) ? e : gfli_windows_error();
}

/* MOVEFILE_WRITE_THROUGH has done it. */
int gfli_sys_sync_folder(const char *folder) {
    (void)folder;
    return 0;
}

static bool gfli_windows_has_drive(const char *path) {
    return ((path[0] >= 'a' && path[0] <= 'z') || (path[0] >= 'A' && path[0] <= 'Z')) &&
           path[1] == ':';
}

size_t gfli_os_folder_length(const char *path) {
    size_t n = gfli_windows_has_drive(path) ? 2 : 0;
    for (size_t i = n; path[i]; i++)
        if (path[i] == '/' || path[i] == '\\') n = i + 1;
    return n;
}

bool gfli_os_is_absolute(const char *path) {
    return path[0] == '/' || path[0] == '\\' || gfli_windows_has_drive(path);
}

bool gfli_os_link_target(const char *path, char *out, size_t capacity) {
    (void)path;
    (void)out;
    (void)capacity;
    return false;
}

bool gfli_sys_is_memory(int e) {
    return e == ERROR_NOT_ENOUGH_MEMORY || e == ERROR_OUTOFMEMORY || e == ERROR_COMMITMENT_LIMIT;
}

bool gfli_sys_is_exists(int e) {
    return e == ERROR_FILE_EXISTS || e == ERROR_ALREADY_EXISTS;
}

void gfli_sys_text(int e, char *out, size_t size) {
    wchar_t wide[256];
    DWORD n = FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL,
                             (DWORD)e, 0, wide, GFLI_COUNT(wide), NULL);
    while (n > 0 && (wide[n - 1] <= L' ' || wide[n - 1] == L'.')) n--;
    const int bytes = WideCharToMultiByte(CP_UTF8, 0, wide, (int)n, out, (int)size - 1, NULL, NULL);
    out[bytes > 0 ? bytes : 0] = 0;
    if (bytes <= 0) snprintf(out, size, "error %d of the system", e);
}

/* ---- processes, processors, time ------------------------------------------------------------- */

long gfli_os_process(void) {
    return (long)GetCurrentProcessId();
}

double gfli_seconds(void) {
    LARGE_INTEGER frequency, now;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    return (double)now.QuadPart / (double)frequency.QuadPart;
}

void gfli_os_sleep(double seconds) {
    Sleep((DWORD)(seconds * 1000) + 1);
}

int gfli_os_cpus(void) {
    DWORD_PTR own = 0, all = 0;
    int n = 0;
    if (!GetProcessAffinityMask(GetCurrentProcess(), &own, &all)) return 1;
    for (; own; own &= own - 1) n++;
    return gfli_max(n, 1);
}

/* ---- threads --------------------------------------------------------------------------------- */

static DWORD WINAPI gfli_windows_thread(void *p) {
    gfli_thread *thread = (gfli_thread *)p;
    thread->run(thread->arg);
    return 0;
}

int gfli_sys_thread_start(gfli_thread *thread) {
    thread->handle = CreateThread(NULL, 0, gfli_windows_thread, thread, 0, NULL);
    return thread->handle ? 0 : gfli_windows_error();
}

void gfli_thread_join(gfli_thread *thread) {
    if (!thread->running) return;
    WaitForSingleObject(thread->handle, INFINITE);
    CloseHandle(thread->handle);
    thread->running = false;
}

void gfli_mutex_init(gfli_mutex *mutex) {
    InitializeSRWLock(mutex);
}

void gfli_mutex_lock(gfli_mutex *mutex) {
    AcquireSRWLockExclusive(mutex);
}

void gfli_mutex_unlock(gfli_mutex *mutex) {
    ReleaseSRWLockExclusive(mutex);
}

void gfli_mutex_destroy(gfli_mutex *mutex) {
    (void)mutex;
}

void gfli_condition_init(gfli_condition *condition) {
    InitializeConditionVariable(condition);
}

void gfli_condition_wait(gfli_condition *condition, gfli_mutex *mutex) {
    SleepConditionVariableSRW(condition, mutex, INFINITE, 0);
}

void gfli_condition_signal(gfli_condition *condition) {
    WakeConditionVariable(condition);
}

void gfli_condition_broadcast(gfli_condition *condition) {
    WakeAllConditionVariable(condition);
}

void gfli_condition_destroy(gfli_condition *condition) {
    (void)condition;
}
#endif

/* ===============================================================================================
 * src/core/threads.c - the pool of threads, and parallel loops over it
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/core/group.c - a context among its ranks: joining, operations, waiting with a limit
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/core/arrange.c - pieces of memory with lifetimes, packed into one block
 * ============================================================================================ */

enum { GFLI_PIECE_ALIGN = 64 };

/* The largest piece that has no place yet, the first of equals; -1: none. */
static int gfli_largest_piece(const gfli_piece *pieces, int n) {
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!pieces[i].placed && (best < 0 || pieces[i].bytes > pieces[best].bytes)) best = i;
    return best;
}

/* The lowest place for piece `at` among the placed ones, a list in the order of places. */
static void gfli_place_piece(gfli_piece *pieces, int *head, int at) {
    gfli_piece *piece = &pieces[at];
    size_t offset = 0;
    for (int k = *head; k >= 0; k = pieces[k].next) {
        const gfli_piece *other = &pieces[k];
        if (piece->first > other->last || other->first > piece->last) continue;
        if (offset + piece->bytes <= other->offset) break;
        if (other->offset + other->bytes > offset) offset = other->offset + other->bytes;
    }
    int *link = head;
    while (*link >= 0 && pieces[*link].offset <= offset) link = &pieces[*link].next;
    piece->offset = offset;
    piece->placed = true;
    piece->next = *link;
    *link = at;
}

/* Largest first, which for a network's maps is as good as any order found (see test_backward). */
bool gfli_arrange(gfli_piece *pieces, int n, size_t *bytes) {
    size_t sum = 0;
    int head = -1;
    *bytes = 0;
    for (int i = 0; i < n; i++) {
        gfli_piece *p = &pieces[i];
        p->offset = 0;
        p->placed = p->bytes == 0 || p->last < p->first;
        if (p->placed) continue;
        if (p->bytes > SIZE_MAX / 4 - sum) return false;
        p->bytes = (p->bytes + GFLI_PIECE_ALIGN - 1) / GFLI_PIECE_ALIGN * GFLI_PIECE_ALIGN;
        sum += p->bytes;
    }
    for (int i; (i = gfli_largest_piece(pieces, n)) >= 0;) {
        gfli_place_piece(pieces, &head, i);
        const size_t end = pieces[i].offset + pieces[i].bytes;
        if (end > *bytes) *bytes = end;
    }
    return true;
}

/* ===============================================================================================
 * src/core/context.c - gfl_context: creation, error text, logging, memory
 * ============================================================================================ */

gfl_status gfli_error(gfl_context *context, gfl_status status, const char *format, ...) {
    char text[sizeof context->error];
    va_list args;
    if (!context) return status;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    gfl_text_show(text, context->error, sizeof context->error); /* names of files are foreign */
    return status;
}

gfl_status gfli_error_in(gfl_context *context, gfl_status status, const char *where) {
    char text[sizeof context->error];
    memcpy(text, context->error, sizeof text);
    return gfli_error(context, status, "%s: %.900s", where, text);
}

void gfli_log(gfl_context *context, gfl_log_level level, const char *format, ...) {
    if (!context || !context->logger.log) return;
    char text[1024], shown[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    gfl_text_show(text, shown, sizeof shown);
    (context->logger.log)(context->logger.user, level, shown);
}

/* The pointer that the allocator gave stands just before the aligned one. */
enum { GFLI_ALIGN = 64 };

static void *gfli_align(void *raw) {
    if (!raw) return NULL;
    uintptr_t start = (uintptr_t)raw + sizeof(void *);
    uintptr_t at = (start + GFLI_ALIGN - 1) / GFLI_ALIGN * GFLI_ALIGN;
    ((void **)at)[-1] = raw;
    return (void *)at;
}

gfl_status gfli_alloc(gfl_context *context, size_t count, size_t size, const char *what,
                      void *out_pointer) {
    void *p = NULL;
    size_t bytes;
    bool fits = gfli_mul(count, size, &bytes) && bytes <= SIZE_MAX / 2;
    if (fits)
        p = gfli_align(
            context->allocator.alloc(context->allocator.user, bytes + GFLI_ALIGN + sizeof(void *)));
    memcpy(out_pointer, &p, sizeof p);
    if (p) return GFL_OK;
    if (!fits)
        return gfli_error(context, GFL_E_MEMORY,
                          "%s: %zu elements of %zu bytes are more than memory can hold", what,
                          count, size);
    return gfli_error(context, GFL_E_MEMORY, "out of memory: %s wanted %zu bytes", what, bytes);
}

gfl_status gfli_calloc(gfl_context *context, size_t count, size_t size, const char *what,
                       void *out_pointer) {
    GFLI_TRY(gfli_alloc(context, count, size, what, out_pointer));
    void *p;
    memcpy(&p, out_pointer, sizeof p);
    if (p) memset(p, 0, count * size);
    return GFL_OK;
}

void gfli_free(gfl_context *context, void *pointer) {
    if (pointer) (context->allocator.free)(context->allocator.user, ((void **)pointer)[-1]);
}

void gfl_bytes_free(gfl_context *context, gfl_bytes *bytes) {
    if (!bytes) return;
    if (context) gfli_free(context, bytes->data);
    memset(bytes, 0, sizeof *bytes);
}

gfl_status gfli_grow(gfl_context *context, void *pointer_to_pointer, size_t *capacity, size_t need,
                     size_t size, const char *what) {
    void *grown, *old;
    memcpy(&old, pointer_to_pointer, sizeof old);
    if (old && need <= *capacity) return GFL_OK;
    size_t wanted = *capacity < SIZE_MAX / 2 && 2 * *capacity > need ? 2 * *capacity : need;
    if (wanted < 16) wanted = 16;
    GFLI_TRY(gfli_alloc(context, wanted, size, what, &grown));
    if (old) memcpy(grown, old, *capacity * size);
    gfli_free(context, old);
    memcpy(pointer_to_pointer, &grown, sizeof grown);
    *capacity = wanted;
    return GFL_OK;
}

gfl_status gfli_reserve_by(gfl_context *context, gfli_take_memory take, gfli_give_memory give,
                           void *pointer_to_pointer, size_t *capacity, size_t need, size_t size,
                           const char *what) {
    void *old, *none = NULL;
    memcpy(&old, pointer_to_pointer, sizeof old);
    if (old && need <= *capacity) return GFL_OK;
    /* Given back before the larger one is asked for: the two never exist side by side. */
    give(context, old);
    memcpy(pointer_to_pointer, &none, sizeof none);
    *capacity = 0;
    GFLI_TRY(take(context, need, size, what, pointer_to_pointer));
    *capacity = need;
    return GFL_OK;
}

gfl_status gfli_reserve(gfl_context *context, void *pointer_to_pointer, size_t *capacity,
                        size_t need, size_t size, const char *what) {
    return gfli_reserve_by(context, gfli_alloc, gfli_free, pointer_to_pointer, capacity, need, size,
                           what);
}

gfl_status gfli_reserve_device(gfl_context *context, void *pointer_to_pointer, size_t *capacity,
                               size_t need, size_t size, const char *what) {
    const gfli_device_ops *device = &context->backend->device;
    return gfli_reserve_by(context, device->alloc, device->free, pointer_to_pointer, capacity, need,
                           size, what);
}

gfl_status gfli_strdup(gfl_context *context, const char *text, char **out) {
    size_t size = strlen(text) + 1;
    GFLI_TRY(gfli_alloc(context, size, 1, "a text", out));
    memcpy(*out, text, size);
    return GFL_OK;
}

static void *gfli_default_alloc(void *user, size_t size) {
    (void)user;
    return malloc(size);
}

static void gfli_default_free(void *user, void *p) {
    (void)user;
    free(p);
}

static gfl_status gfli_context_start_threads(gfl_context *context, const gfl_context_desc *desc) {
    context->n_threads =
        desc->n_threads ? desc->n_threads : gfli_min(gfli_os_cpus(), GFLI_MAX_THREADS);
    context->parallel = desc->parallel;
    if (context->parallel.run || context->n_threads == 1) return GFL_OK;
    GFLI_TRY(gfli_pool_create(context, context->n_threads - 1, &context->pool));
    context->parallel.run = gfli_pool_run;
    context->parallel.user = context->pool;
    return GFL_OK;
}

static gfl_status gfli_context_check(gfl_context *context, const gfl_context_desc *d,
                                     gfl_context **out) {
    if (!out) return gfli_error(context, GFL_E_ARG, "gfl_context_create: out is NULL");
    if (!d->allocator.alloc != !d->allocator.free)
        return gfli_error(context, GFL_E_ARG, "the allocator lacks %s; give both functions or none",
                          d->allocator.alloc ? "free" : "alloc");
    if (d->n_threads < 0 || d->n_threads > GFLI_MAX_THREADS)
        return gfli_error(context, GFL_E_ARG, "n_threads is %d; it must be 1..%d, or 0 for all",
                          d->n_threads, GFLI_MAX_THREADS);
    if (d->device_index < 0)
        return gfli_error(context, GFL_E_ARG, "device_index is %d; it must not be negative",
                          d->device_index);
    /* Nothing behind the two numbers may be read before they are known to be ours. */
    if (context->backend->abi != GFL_ABI || context->backend->version != GFLI_BACKEND_VERSION)
        return gfli_error(context, GFL_E_UNSUPPORTED,
                          "the backend has GFL_ABI %d and tables of version %d, the library %d and "
                          "%d; compile gfl.h and gfl_cuda.cu of one version",
                          context->backend->abi, context->backend->version, GFL_ABI,
                          GFLI_BACKEND_VERSION);
    if (context->backend->train && context->backend->train->version != GFLI_BACKEND_VERSION)
        return gfli_error(context, GFL_E_UNSUPPORTED,
                          "the backend has tables of training of version %d, the library %d; "
                          "compile all files of one version",
                          context->backend->train->version, GFLI_BACKEND_VERSION);
    return GFL_OK;
}

/* A context on the stack becomes one in memory, with threads, a device and a place among ranks. */
static gfl_status gfli_context_open(gfl_context *boot, const gfl_context_desc *desc,
                                    gfl_context **out) {
    gfl_context *context;
    GFLI_TRY(gfli_calloc(boot, 1, sizeof *context, "the context", &context));
    *context = *boot;
    gfl_status status = gfli_context_start_threads(context, desc);
    if (status == GFL_OK) status = (context->backend->device.open)(context, desc);
    if (status == GFL_OK) status = gfli_group_open(context, desc->ranks);
    if (status == GFL_OK) {
        *out = context;
        return GFL_OK;
    }
    memcpy(boot->error, context->error, sizeof boot->error);
    gfl_context_destroy(context);
    return status;
}

static gfl_context gfli_context_boot(const gfl_context_desc *d) {
    gfl_context boot;
    memset(&boot, 0, sizeof boot);
    boot.allocator = d->allocator;
    if (!d->allocator.alloc && !d->allocator.free) {
        boot.allocator.alloc = gfli_default_alloc;
        boot.allocator.free = gfli_default_free;
    }
    boot.logger = d->logger;
    boot.image_memory = d->image_memory;
    boot.backend = d->backend ? d->backend : &gfli_cpu;
    boot.device_index = d->device_index;
    boot.precision = d->precision;
    return boot;
}

gfl_status gfl_context_create_abi(int abi, const gfl_context_desc *desc, char *error,
                                  size_t error_size, gfl_context **out) {
    gfl_context_desc d;
    memset(&d, 0, sizeof d);
    if (!error) error_size = 0;
    if (error_size) error[0] = 0;
    if (out) *out = NULL;
    if (abi != GFL_ABI) {
        snprintf(error, error_size,
                 "the program was compiled for GFL_ABI %d, the library is %s with GFL_ABI %d; "
                 "compile the program with the header of this library",
                 abi, GFL_VERSION_TEXT, GFL_ABI);
        return GFL_E_UNSUPPORTED;
    }
    if (desc) d = *desc;
    gfl_context boot = gfli_context_boot(&d);
    gfl_status status = gfli_context_check(&boot, &d, out);
    if (status == GFL_OK) status = gfli_context_open(&boot, &d, out);
    if (status == GFL_OK) return GFL_OK;
    if (error_size)
        snprintf(error, error_size, "%s", boot.error);
    else
        gfli_log(&boot, GFL_LOG_ERROR, "%s", boot.error);
    return status;
}

gfl_status gfli_context_child(gfl_context *context, gfl_context **out) {
    gfl_context_desc d;
    memset(&d, 0, sizeof d);
    d.n_threads = 1;
    d.allocator = context->allocator;
    d.logger = context->logger;
    d.image_memory = (size_t)context->image_memory;
    return gfl_context_create_abi(GFL_ABI, &d, context->error, sizeof context->error, out);
}

void gfl_context_destroy(gfl_context *context) {
    if (!context) return;
    gfli_group_close(context);
    (context->backend->device.close)(context);
    gfli_pool_destroy(context, context->pool);
    gfl_context copy = *context; /* the allocator must outlive the context's own memory */
    gfli_free(&copy, context);
}

gfl_status gfl_context_fail(gfl_context *context, gfl_status status, const char *text) {
    return text ? gfli_error(context, status, "%s", text) : status;
}

const char *gfl_context_get_error(const gfl_context *context) {
    return context ? context->error
                   : "the context, or the object of the call, is NULL; why "
                     "gfl_context_create failed is in gfl_context_desc.error";
}

const char *gfl_context_get_device(const gfl_context *context) {
    return context ? context->device_name : "";
}

int gfl_context_count_threads(const gfl_context *context) {
    return context ? context->n_threads : 0;
}

/* ===============================================================================================
 * src/core/rng.c - random numbers by counter
 * ============================================================================================ */

/* Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014: the finaliser
 * of SplitMix64, a bijection of 64 bits in which every input bit reaches every output bit. */
static uint64_t gfli_mix64(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

gfli_rng gfli_rng_make(uint64_t seed, uint64_t epoch, uint64_t item, uint64_t purpose) {
    gfli_rng rng;
    rng.key = gfli_mix64(gfli_mix64(gfli_mix64(gfli_mix64(seed) ^ epoch) ^ item) ^ purpose);
    rng.counter = 0;
    return rng;
}

uint64_t gfli_rng_next(gfli_rng *rng) {
    return gfli_mix64(rng->key ^ gfli_mix64(rng->counter++));
}

double gfli_rng_uniform(gfli_rng *rng) {
    return (double)(gfli_rng_next(rng) >> 11) * 0x1p-53;
}

int gfli_rng_below(gfli_rng *rng, int n) {
    uint64_t range = (uint64_t)n, limit = UINT64_MAX - UINT64_MAX % range, x;
    do {
        x = gfli_rng_next(rng);
    } while (x >= limit);
    return (int)(x % range);
}

/* Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958. */
double gfli_rng_normal(gfli_rng *rng) {
    double u = 1.0 - gfli_rng_uniform(rng), v = gfli_rng_uniform(rng);
    return (sqrt)(-2.0 * (log)(u)) * (cos)(6.283185307179586 * v);
}

/* ===============================================================================================
 * src/core/file.c - files that are whole or absent, or in memory
 * ============================================================================================ */

enum { GFLI_FILE_BUFFER = 1 << 16 };

/* Where a chain of symbolic links ends: renaming onto a link would replace the link and leave the
 * file it names as it was. */
static gfl_status gfli_file_follow(gfl_context *context, const char *path, char **out) {
    GFLI_TRY(gfli_strdup(context, path, out));
    for (int hop = 0; hop < 16; hop++) {
        char target[4096];
        if (!gfli_os_link_target(*out, target, sizeof target)) return GFL_OK;
        size_t folder = gfli_os_is_absolute(target) ? 0 : gfli_os_folder_length(*out),
               n = strlen(target);
        char *next;
        gfl_status status = gfli_alloc(context, folder + n + 1, 1, "a path", &next);
        if (status == GFL_OK) {
            memcpy(next, *out, folder);
            memcpy(next + folder, target, n + 1);
        }
        gfli_free(context, *out);
        *out = next;
        GFLI_TRY(status);
    }
    return GFL_OK;
}

static void gfli_file_release(gfli_file *file) {
    gfli_free(file->context, file->path);
    gfli_free(file->context, file->temporary);
    gfli_free(file->context, file->buffer);
    memset(file, 0, sizeof *file);
    file->handle = GFLI_NO_HANDLE;
}

/* A name of its own beside the target: another process, or another thread of this one, may be
 * writing the same file at the same time. */
static gfl_status gfli_file_open_temporary(gfli_file *file, int mode) {
    size_t size = strlen(file->path) + 48;
    GFLI_TRY(gfli_alloc(file->context, size, 1, "a path", &file->temporary));
    bool exists = true;
    int e = 0;
    for (int i = 0; i < 1000 && exists; i++) {
        snprintf(file->temporary, size, "%s.%ld-%d.tmp", file->path, gfli_os_process(), i);
        e = gfli_os_create(file->temporary, mode, &file->handle, &exists);
    }
    return e ? gfli_os_error(file->context, file->path, "cannot be created", e) : GFL_OK;
}

static gfl_status gfli_file_open(gfli_file *file) {
    GFLI_TRY(
        gfli_grow(file->context, &file->buffer, &file->capacity, GFLI_FILE_BUFFER, 1, "a buffer"));
    gfli_os_info info = gfli_os_look(file->path);
    if (info.kind == GFLI_OS_FOLDER)
        return gfli_os_refuse(file->context, file->path, "cannot be created", info.kind);
    if (info.kind == GFLI_OS_NOTHING || info.kind == GFLI_OS_FILE)
        return gfli_file_open_temporary(file, info.mode);
    /* A pipe or a device: nothing can be put in its place. */
    int e = gfli_os_open_in_place(file->path, &file->handle);
    return e ? gfli_os_error(file->context, file->path, "cannot be opened", e) : GFL_OK;
}

gfl_status gfli_file_create(gfl_context *context, gfli_sink to, gfli_file *out) {
    memset(out, 0, sizeof *out);
    out->handle = GFLI_NO_HANDLE;
    out->context = context;
    out->bytes = to.bytes;
    if (to.bytes) return gfli_strdup(context, "a file in memory", &out->path);
    if (!to.path || !*to.path) return gfli_error(context, GFL_E_ARG, "a file to write has no name");
    gfl_status status = gfli_file_follow(context, to.path, &out->path);
    if (status == GFL_OK) status = gfli_file_open(out);
    if (status != GFL_OK) gfli_file_release(out);
    return status;
}

/* The first error stays: what was lost once makes the whole file worthless. */
static gfl_status gfli_file_put(gfli_file *file, const void *data, size_t size) {
    if (!file->failed && size)
        file->failed =
            gfli_os_write(file->temporary ? file->temporary : file->path, file->handle, data, size);
    if (!file->failed) return GFL_OK;
    return gfli_os_error(file->context, file->path, "cannot be written", file->failed);
}

static gfl_status gfli_file_flush(gfli_file *file) {
    size_t n = file->n;
    file->n = 0;
    return gfli_file_put(file, file->buffer, n);
}

static gfl_status gfli_file_make_room(gfli_file *file, size_t size) {
    if (!file->bytes) return gfli_file_flush(file);
    if (size > SIZE_MAX - file->n)
        return gfli_error(file->context, GFL_E_MEMORY, "%s is too large for memory", file->path);
    return gfli_grow(file->context, &file->buffer, &file->capacity, file->n + size, 1, file->path);
}

gfl_status gfli_file_expect(gfli_file *file, uint64_t size) {
    if (!file->bytes) return GFL_OK;
    return gfli_file_make_room(file, size > SIZE_MAX ? SIZE_MAX : (size_t)size);
}

gfl_status gfli_file_write(gfli_file *file, const void *data, size_t size) {
    if (size > file->capacity - file->n) GFLI_TRY(gfli_file_make_room(file, size));
    if (size >= file->capacity && !file->bytes) return gfli_file_put(file, data, size);
    if (size) memcpy(file->buffer + file->n, data, size);
    file->n += size;
    return GFL_OK;
}

static gfl_status gfli_file_hand_over(gfli_file *file) {
    file->bytes->data = (uint8_t *)file->buffer;
    file->bytes->size = file->n;
    file->buffer = NULL;
    gfli_file_release(file);
    return GFL_OK;
}

gfl_status gfli_file_commit(gfli_file *file) {
    if (file->bytes) return gfli_file_hand_over(file);
    (void)gfli_file_flush(file);
    int e = file->failed;
    if (!e && file->temporary) e = gfli_os_sync(file->temporary, file->handle);
    int closing = gfli_os_finish(file->handle);
    if (!e) e = closing;
    if (!e && file->temporary) e = gfli_os_rename(file->temporary, file->path);
    gfl_status status = GFL_OK;
    if (e) {
        status = gfli_os_error(file->context, file->path,
                               file->temporary ? "cannot be written, and is as it was before"
                                               : "cannot be written",
                               e);
        if (file->temporary) (void)gfli_os_remove(file->temporary);
    } else if (file->temporary) {
        gfli_os_sync_folder(file->path);
    }
    gfli_file_release(file);
    return status;
}

void gfli_file_abandon(gfli_file *file) {
    if (!file->path) return;
    if (!file->bytes) gfli_os_close(file->handle);
    if (file->temporary) (void)gfli_os_remove(file->temporary);
    gfli_file_release(file);
}

/* More than the limit, or all of the file. */
static gfl_status gfli_file_read_all(gfl_context *context, const char *path, gfli_handle file,
                                     size_t first, size_t limit, uint8_t **bytes, size_t *size) {
    size_t capacity = 0, got;
    /* One byte more than the file has: its end is seen without another round. */
    do {
        GFLI_TRY(gfli_grow(context, bytes, &capacity, *size ? *size + 1 : first, 1, path));
        GFLI_TRY(gfli_os_read(context, path, file, *bytes + *size, capacity - *size, &got));
        *size += got;
        if (*size > limit)
            return gfli_error(context, GFL_E_FORMAT,
                              "%s: the file is larger than %zu bytes, the most that is read", path,
                              limit);
    } while (*size == capacity);
    return GFL_OK;
}

gfl_status gfli_file_read(gfl_context *context, const char *path, size_t limit, uint8_t **out,
                          size_t *size) {
    gfli_handle file;
    gfli_os_info info;
    *out = NULL;
    *size = 0;
    GFLI_TRY(gfli_os_open(context, path, GFLI_OS_REGULAR_OR_STDIN, &file, &info));
    gfl_status status;
    if (info.size > limit)
        status =
            gfli_error(context, GFL_E_FORMAT,
                       "%s: the file is larger than %zu bytes, the most that is read", path, limit);
    else
        status = gfli_file_read_all(context, path, file, info.size ? (size_t)info.size + 1 : 65536,
                                    limit, out, size);
    gfli_os_close(file);
    if (status == GFL_OK) return GFL_OK;
    gfli_free(context, *out);
    *out = NULL;
    *size = 0;
    return status;
}

/* ===============================================================================================
 * src/core/quote.c - foreign text in messages
 * ============================================================================================ */

size_t gfli_utf8_length(const unsigned char *p, size_t n) {
    if (n == 0) return 0;
    unsigned c = p[0], low = 0x80, high = 0xBF;
    size_t length = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (length == 0 || length > n) return 0;
    if (c == 0xE0) low = 0xA0;
    if (c == 0xED) high = 0x9F;
    if (c == 0xF0) low = 0x90;
    if (c == 0xF4) high = 0x8F;
    for (size_t i = 1; i < length; i++) {
        if (p[i] < low || p[i] > high) return 0;
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

size_t gfl_text_valid(const char *text, size_t n) {
    const unsigned char *p = (const unsigned char *)text;
    size_t at = 0, length;
    if (!text) return 0;
    while ((length = gfli_utf8_length(p + at, n - at)) > 0) at += length;
    return at;
}

static unsigned gfli_utf8_decode(const unsigned char *p, size_t length) {
    static const unsigned lead[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    unsigned code = p[0] & lead[length];
    for (size_t i = 1; i < length; i++) code = code << 6 | (p[i] & 0x3F);
    return code;
}

/* Controls (C0, C1, delete), line separators, and what hides or reorders the text around it. */
static bool gfli_is_unprintable(unsigned code) {
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x61C || code == 0xFEFF ||
           (code >= 0x200B && code <= 0x200F) || (code >= 0x2028 && code <= 0x202E) ||
           (code >= 0x2060 && code <= 0x206F);
}

/* One character of the text as it is shown; returns its length there, and in *taken that here. */
static size_t gfli_show_one(const unsigned char *p, size_t left, char out[12], size_t *taken) {
    size_t length = gfli_utf8_length(p, left);
    *taken = length ? length : 1;
    if (!length) return (size_t)snprintf(out, 12, "\\x%02x", *p);
    unsigned code = gfli_utf8_decode(p, length);
    if (code == '\n') return (size_t)snprintf(out, 12, "\\n");
    if (code == '\t') return (size_t)snprintf(out, 12, "\\t");
    if (gfli_is_unprintable(code))
        return (size_t)snprintf(out, 12, code < 0x80 ? "\\x%02x" : "\\u%04x", code);
    memcpy(out, p, length);
    return length;
}

size_t gfl_text_show(const char *text, char *out, size_t size) {
    const unsigned char *p = (const unsigned char *)text;
    size_t left = text ? strlen(text) : 0, need = 0, at = 0, taken;
    for (; left > 0; p += taken, left -= taken) {
        char shown[12];
        const size_t length = gfli_show_one(p, left, shown, &taken);
        if (at == need && at + length < size) {
            memcpy(out + at, shown, length);
            at += length;
        }
        need += length;
    }
    if (size) out[at] = 0;
    return need;
}

/* Between quotes, quotes and what escapes them are escaped too. */
static size_t gfli_quote_one(const unsigned char *p, size_t left, char out[12], size_t *taken) {
    if (*p != '"' && *p != '\\') return gfli_show_one(p, left, out, taken);
    *taken = 1;
    return (size_t)snprintf(out, 12, "\\%c", *p);
}

const char *gfli_quote_bytes(const char *text, size_t n, char *out, size_t size) {
    const unsigned char *p = (const unsigned char *)text;
    size_t at = 0, cut = 1; /* cut: where the text still ends well if it has to be cut */
    out[at++] = '"';
    while (n > 0) {
        char shown[12];
        size_t taken, length = gfli_quote_one(p, n, shown, &taken);
        if (at + length + 2 > size) {
            memcpy(out + cut, "\"...", 5);
            return out;
        }
        memcpy(out + at, shown, length);
        at += length;
        if (at + 5 <= size) cut = at;
        p += taken;
        n -= taken;
    }
    out[at++] = '"';
    out[at] = 0;
    return out;
}

const char *gfli_quote(const char *text, char *out, size_t size) {
    return gfli_quote_bytes(text, strlen(text), out, size);
}

/* ===============================================================================================
 * src/core/decimal.c - numbers between text and binary: correctly rounded, in any locale
 * ============================================================================================ */

/* ---- to binary ------------------------------------------------------------------------------- */

/* significand * 2^exponent, the significand's highest bit set, rounded to the nearest double, ties
 * to even; sticky: there is more behind the significand.  Integers only, so that neither the
 * locale nor the rounding mode matters. */
static double gfli_make_double(uint64_t significand, int exponent, bool sticky) {
    int drop = 11, biased = exponent + 63 + 1023;
    if (biased >= 2047) return INFINITY;
    if (biased < 1) { /* subnormal: fewer bits */
        drop += 1 - biased;
        biased = 0;
    }
    if (drop > 64) return 0;
    uint64_t bits = drop == 64 ? 0 : significand >> drop;
    uint64_t rest = drop == 64 ? significand : significand << (64 - drop);
    uint64_t half = (uint64_t)1 << 63;
    if (rest > half || (rest == half && (sticky || (bits & 1)))) bits++;
    /* The hidden bit adds one to the exponent, and so does a carry. */
    bits += (uint64_t)(biased ? biased - 1 : 0) << 52;
    double out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static int gfli_leading_zeros(uint64_t x) {
    int n = 0;
    for (int step = 32; step > 0; step /= 2)
        if (!(x >> (64 - step))) {
            x <<= step;
            n += step;
        }
    return n;
}

/* Natural numbers of up to 4096 bits, lowest limb first. */
enum { GFLI_BIG_LIMBS = 128 };

typedef struct gfli_big {
    uint32_t limbs[GFLI_BIG_LIMBS];
    int n;
} gfli_big;

static void gfli_big_multiply_add(gfli_big *b, uint32_t factor, uint32_t addend) {
    uint64_t carry = addend;
    for (int i = 0; i < b->n; i++) {
        carry += (uint64_t)b->limbs[i] * factor;
        b->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry && b->n < GFLI_BIG_LIMBS) b->limbs[b->n++] = (uint32_t)carry;
}

static void gfli_big_multiply_five(gfli_big *b, int power) {
    for (; power >= 13; power -= 13) gfli_big_multiply_add(b, 1220703125u, 0); /* 5^13 */
    for (; power > 0; power--) gfli_big_multiply_add(b, 5, 0);
}

static int gfli_big_bits(const gfli_big *b) {
    return b->n == 0 ? 0 : 32 * b->n - (gfli_leading_zeros(b->limbs[b->n - 1]) - 32);
}

static void gfli_big_shift(gfli_big *b, int bits) {
    for (; bits >= 31; bits -= 31) gfli_big_multiply_add(b, (uint32_t)1 << 31, 0);
    if (bits > 0) gfli_big_multiply_add(b, (uint32_t)1 << bits, 0);
}

static bool gfli_big_less(const gfli_big *a, const gfli_big *b) {
    if (a->n != b->n) return a->n < b->n;
    for (int i = a->n - 1; i >= 0; i--)
        if (a->limbs[i] != b->limbs[i]) return a->limbs[i] < b->limbs[i];
    return false;
}

static void gfli_big_subtract(gfli_big *a, const gfli_big *b) {
    int64_t borrow = 0;
    for (int i = 0; i < a->n; i++) {
        borrow += (int64_t)a->limbs[i] - (i < b->n ? (int64_t)b->limbs[i] : 0);
        a->limbs[i] = (uint32_t)borrow;
        borrow >>= 32;
    }
    while (a->n > 0 && a->limbs[a->n - 1] == 0) a->n--;
}

/* digits * 10^exponent by long division, 64 bits of it and whether anything is left. */
static double gfli_decimal_slow(const char *digits, int n, int exponent) {
    if (n == 0 || n + exponent < -330) return 0;
    if (n + exponent > 310) return INFINITY;
    gfli_big top, bottom;
    memset(&top, 0, sizeof top);
    memset(&bottom, 0, sizeof bottom);
    for (int i = 0; i < n; i++) {
        uint32_t digit = (uint32_t)(digits[i] - '0');
        if (top.n == 0 && digit)
            top.limbs[top.n++] = digit;
        else
            gfli_big_multiply_add(&top, 10, digit);
    }
    if (top.n == 0) return 0;
    bottom.limbs[bottom.n++] = 1;
    gfli_big_multiply_five(exponent > 0 ? &top : &bottom, exponent > 0 ? exponent : -exponent);
    int shift = gfli_big_bits(&bottom) - gfli_big_bits(&top);
    gfli_big_shift(shift > 0 ? &top : &bottom, shift > 0 ? shift : -shift);
    if (gfli_big_less(&top, &bottom)) {
        gfli_big_multiply_add(&top, 2, 0);
        shift++;
    }
    uint64_t quotient = 0;
    for (int i = 0; i < 64; i++) {
        quotient <<= 1;
        if (!gfli_big_less(&top, &bottom)) {
            gfli_big_subtract(&top, &bottom);
            quotient |= 1;
        }
        if (i < 63) gfli_big_multiply_add(&top, 2, 0);
    }
    return gfli_make_double(quotient, exponent - shift - 63, top.n > 0);
}

#if defined(__SIZEOF_INT128__)
__extension__ typedef unsigned __int128 gfli_u128;

/* mantissa * 10^exponent for powers of five of one word: exact in two, then rounded once. */
static double gfli_decimal_wide(uint64_t mantissa, int exponent) {
    uint64_t five = 1;
    for (int i = exponent < 0 ? -exponent : exponent; i > 0; i--) five *= 5;
    int zeros = gfli_leading_zeros(mantissa);
    if (exponent >= 0) {
        gfli_u128 product = (gfli_u128)mantissa * five;
        uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product;
        if (high == 0)
            return gfli_make_double(low << gfli_leading_zeros(low),
                                    exponent - gfli_leading_zeros(low), false);
        zeros = gfli_leading_zeros(high);
        product <<= zeros;
        return gfli_make_double((uint64_t)(product >> 64), exponent + 64 - zeros,
                                (uint64_t)product != 0);
    }
    /* The divisor gets its highest bit, the dividend stays below it: one word of quotient. */
    int five_zeros = gfli_leading_zeros(five);
    five <<= five_zeros;
    uint64_t high = (mantissa << zeros) >> 1;
    gfli_u128 dividend = (gfli_u128)high << 64;
    if ((mantissa << zeros) & 1) dividend |= (gfli_u128)1 << 63;
    uint64_t quotient = (uint64_t)(dividend / five);
    bool sticky = (gfli_u128)quotient * five != dividend;
    int up = gfli_leading_zeros(quotient);
    /* mantissa = dividend * 2^(-63 - zeros), 5^-exponent = five * 2^-five_zeros */
    int binary = -63 - zeros + five_zeros + exponent;
    if (up > 0) { /* at most one bit is missing; take it from the remainder */
        uint64_t remainder = (uint64_t)(dividend - (gfli_u128)quotient * five);
        gfli_u128 twice = (gfli_u128)remainder << 1;
        quotient = quotient << 1 | (twice >= five);
        sticky = twice != 0 && twice != five;
        binary--;
    }
    return gfli_make_double(quotient, binary, sticky);
}
#endif

/* Does double arithmetic round to nearest at this moment?  The caller may have set another mode. */
static bool gfli_rounds_to_nearest(void) {
    volatile double one = 1.0, tiny = DBL_EPSILON / 8;
    return FLT_EVAL_METHOD == 0 && one + tiny == one && one - tiny == one && -one - tiny == -one;
}

double gfli_decimal_value(const gfli_decimal *d) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    double value;
    if (!d->exact) {
        value = gfli_decimal_slow(d->digits, d->n_digits, d->digits_exponent);
    } else if (d->mantissa == 0) {
        value = 0;
    } else if (d->mantissa >> 53 == 0 && d->exponent >= -22 && d->exponent <= 22 &&
               gfli_rounds_to_nearest()) {
        double m = (double)d->mantissa; /* both are exact, so one rounding decides */
        value = d->exponent < 0 ? m / powers[-d->exponent] : m * powers[d->exponent];
#if defined(__SIZEOF_INT128__)
    } else if (d->exponent >= -27 && d->exponent <= 27) {
        value = gfli_decimal_wide(d->mantissa, d->exponent);
#endif
    } else {
        char digits[24];
        int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)d->mantissa);
        value = gfli_decimal_slow(digits, n, d->exponent);
    }
    return d->negative ? -value : value;
}

/* ---- reading --------------------------------------------------------------------------------- */

static const unsigned char *gfli_skip_digits(const unsigned char *p) {
    while ((unsigned)*p - '0' <= 9) p++;
    return p;
}

bool gfli_decimal_scan(const unsigned char *p, gfli_decimal_span *s) {
    if (*p == '-') p++;
    s->start = p;
    s->whole_end = p = gfli_skip_digits(p);
    bool good = p > s->start && (*s->start != '0' || p == s->start + 1);
    s->fraction = s->fraction_end = p;
    if (*p == '.') {
        s->fraction = p + 1;
        s->fraction_end = p = gfli_skip_digits(p + 1);
        good = good && p > s->fraction;
    }
    s->exponent = NULL;
    if (*p == 'e' || *p == 'E') {
        s->exponent = ++p;
        if (*p == '+' || *p == '-') p++;
        const unsigned char *digits = p;
        p = gfli_skip_digits(p);
        good = good && p > digits;
    }
    s->end = p;
    return good;
}

/* Digits beyond those kept can only say whether there is more, which a final 1 says as well. */
static void gfli_decimal_digits(gfli_decimal *d, const gfli_decimal_span *s, int exponent) {
    int n = 0;
    bool more = false;
    for (const unsigned char *p = s->start; p < s->fraction_end; p++) {
        if (p == s->whole_end) continue; /* the point */
        if (n == 0 && *p == '0') continue;
        if (n < GFLI_DECIMAL_DIGITS) {
            d->digits[n++] = (char)*p;
        } else {
            exponent++;
            more = more || *p != '0';
        }
    }
    if (more) {
        d->digits[n++] = '1';
        exponent--;
    }
    d->n_digits = n;
    d->digits_exponent = exponent;
}

void gfli_decimal_read(const gfli_decimal_span *s, bool negative, gfli_decimal *d) {
    const uint64_t most = (UINT64_MAX - 9) / 10;
    uint64_t mantissa = 0;
    int exponent = 0, written = 0;
    const unsigned char *p = s->start;
    for (; p < s->whole_end && mantissa <= most; p++) mantissa = mantissa * 10 + (*p - '0');
    d->exact = p == s->whole_end;
    if (d->exact)
        for (p = s->fraction; p < s->fraction_end && mantissa <= most; p++)
            mantissa = mantissa * 10 + (*p - '0');
    bool all = d->exact && (p == s->fraction_end || s->fraction == s->fraction_end);
    if (s->exponent) {
        p = s->exponent + (*s->exponent == '-' || *s->exponent == '+');
        for (; p < s->end; p++)
            if (written < 1000000) written = written * 10 + (*p - '0');
        exponent = *s->exponent == '-' ? -written : written;
    }
    exponent -= (int)(s->fraction_end - s->fraction);
    d->negative = negative;
    d->exact = all;
    d->mantissa = mantissa;
    d->exponent = exponent;
    if (!all) gfli_decimal_digits(d, s, exponent);
}

bool gfli_decimal_integer(const gfli_decimal *d, int64_t *out) {
    uint64_t value = d->mantissa;
    *out = 0;
    if (!d->exact) return false;
    uint64_t limit = (uint64_t)INT64_MAX + d->negative;
    if (value == 0) return true;
    for (int e = d->exponent; e < 0; e++, value /= 10)
        if (value % 10) return false;
    for (int e = d->exponent; e > 0; e--, value *= 10)
        if (value > limit / 10) return false;
    if (value > limit) return false;
    *out = d->negative ? -(int64_t)(value - 1) - 1 : (int64_t)value;
    return true;
}

double gfli_decimal_parse(const char *number) {
    const unsigned char *text = (const unsigned char *)number;
    gfli_decimal_span span;
    gfli_decimal decimal;
    gfli_decimal_scan(text, &span);
    gfli_decimal_read(&span, *text == '-', &decimal);
    return gfli_decimal_value(&decimal);
}
/* ---- writing --------------------------------------------------------------------------------- */

/* printf's number, with a point in any locale. */
static void gfli_format_digits(double value, int digits, char out[32]) {
    char text[40];
    size_t n = 0;
    bool point = false;
    snprintf(text, sizeof text, "%.*g", digits, value);
    for (const char *p = text; *p && n < 31; p++) {
        bool usual = strchr("0123456789+-e", *p) != NULL;
        if (usual || !point) out[n++] = usual ? *p : '.';
        point = point || !usual;
    }
    out[n] = 0;
}

/* round(m * 5^d / 2^shift): m below 2^53, 5^d below 2^52, the result below 2^64. */
static uint64_t gfli_scale_mantissa(uint64_t m, int d, int shift) {
    uint64_t five = 1;
    for (int i = 0; i < d; i++) five *= 5;
    const uint64_t mask = 0xFFFFFFFFu, m0 = m & mask, m1 = m >> 32;
    const uint64_t f0 = five & mask, f1 = five >> 32;
    const uint64_t cross = m1 * f0 + (m0 * f0 >> 32) + (m0 * f1 & mask);
    const uint64_t low = (cross << 32) | (m0 * f0 & mask);
    const uint64_t high = m1 * f1 + (m0 * f1 >> 32) + (cross >> 32);
    if (shift >= 64) return (high + (1ull << (shift - 64) >> 1)) >> (shift - 64);
    const uint64_t sum = low + (1ull << (shift - 1));
    return (high + (sum < low)) << (64 - shift) | sum >> shift;
}

/* The value times 10^d as an integer: with the smallest d that gives the value back, where such an
 * integer is below 2^53 (both are exact then, so their quotient is what a reader makes of the
 * text); or with the d of seventeen digits, which name any double. */
static bool gfli_find_decimals(double size, bool is_float, uint64_t *n, int *d) {
    double scale = 1;
    for (*d = 0; *d <= 22; ++*d, scale *= 10) {
        const double rounded = (floor)(size * scale + 0.5), back = rounded / scale;
        if (rounded >= 9007199254740992.0) break;
        *n = (uint64_t)rounded;
        if (is_float ? (float)back == (float)size : back == size) return true;
    }
    int e;
    const uint64_t m = (uint64_t)(ldexp)((frexp)(size, &e), 53);
    if (*d < 22 && size * scale < 1e16) ++*d;
    const int shift = 53 - e - *d;
    if (*d > 21 || shift < 1 || shift > 127) return false;
    *n = gfli_scale_mantissa(m, *d, shift);
    return true;
}

static bool gfli_format_fixed(double value, bool is_float, char out[32]) {
    const double size = (fabs)(value);
    uint64_t n = 0;
    int decimals = 0, n_digits = 0, at = 0;
    char digits[24];
    if (!(size < 1e15) || (size < 1e-4 && size != 0)) return false;
    if (!gfli_find_decimals(size, is_float, &n, &decimals)) return false;
    for (; n > 0 || n_digits <= decimals; n /= 10) digits[n_digits++] = (char)('0' + n % 10);
    if ((copysign)(1.0, value) < 0) out[at++] = '-';
    while (n_digits > 0) {
        if (n_digits == decimals) out[at++] = '.';
        out[at++] = digits[--n_digits];
    }
    out[at] = 0;
    return true;
}

/* Fifteen digits always survive a double, and printf drops their final zeros; seventeen always
 * name one. */
static void gfli_format_scientific(double value, char out[32]) {
    for (int digits = 15; digits <= 18; digits++) {
        gfli_format_digits(value, digits, out);
        if (gfli_decimal_parse(out) == value) return;
    }
}

void gfli_decimal_format(double value, bool is_float, char out[32]) {
    if (!gfli_format_fixed(value, is_float, out)) gfli_format_scientific(value, out);
}

/* ===============================================================================================
 * src/core/json.c - a pull parser for JSON of any size
 * ============================================================================================ */

enum { GFLI_JSON_BUFFER = 1 << 16, GFLI_JSON_TEXT = 1 << 24 };

/* Bytes that are read from a pipe at most; a file ends by itself. */
#define GFLI_JSON_STREAM UINT64_C(4294967296)

struct gfli_json {
    gfl_context *context;
    char *name;
    gfli_handle file; /* or text in memory */
    uint64_t most;    /* bytes that may still come from it */
    const char *rest; /* of that text, not yet in the buffer */
    size_t rest_size;
    unsigned char *buffer; /* [GFLI_JSON_BUFFER + 1]; a 0 stands after the last byte */
    unsigned char *at, *end;
    bool exhausted;
    unsigned char *counted; /* line and column are those of this byte */
    long line, column;
    unsigned char *token; /* the value, key or end read last; NULL once it has left the buffer */
    long token_line, token_column; /* set then */
    char stack[GFLI_JSON_DEPTH];   /* '{' or '[' */
    int depth;
    bool comma;   /* the container has an item already, so the next needs a comma */
    bool started; /* the one value of the text has begun */
    bool keyed;   /* a key was taken, its value comes next */
    char *text;   /* the last string, 0-terminated */
    size_t length, capacity;
    gfli_decimal number; /* the last number */
    gfl_status status;
};

/* Lines and columns up to a byte of the buffer; every byte is counted once. */
static void gfli_json_count(gfli_json *j, unsigned char *to) {
    unsigned char *newline;
    while (j->counted < to &&
           (newline = (unsigned char *)memchr(j->counted, '\n', (size_t)(to - j->counted)))) {
        j->line++;
        j->column = 1;
        j->counted = newline + 1;
    }
    if (j->counted < to) {
        j->column += (long)(to - j->counted);
        j->counted = to;
    }
}

/* The token's place, before a later byte is counted. */
static void gfli_json_settle(gfli_json *j) {
    if (!j->token) return;
    gfli_json_count(j, j->token);
    j->token_line = j->line;
    j->token_column = j->column;
}

void gfli_json_place(gfli_json *j, long *line, long *column) {
    gfli_json_settle(j);
    *line = j->token_line;
    *column = j->token_column;
}

gfl_status gfli_json_error(gfli_json *j, gfl_status status, const char *format, ...) {
    if (j->status != GFL_OK) return j->status;
    char text[512];
    long line, column;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    gfli_json_place(j, &line, &column);
    j->status = gfli_error(j->context, status, "%.400s:%ld:%ld: %s", j->name, line, column, text);
    return j->status;
}

/* A mistake at the byte that comes next. */
static void gfli_json_bad(gfli_json *j, const char *what) {
    if (j->status != GFL_OK) return;
    j->token = j->at;
    gfli_json_error(j, GFL_E_FORMAT, "%s", what);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Up to room bytes of the file or the text; less at the end only, or after an error. */
static size_t gfli_json_fill(gfli_json *j, unsigned char *out, size_t room) {
    size_t got;
    if (j->file == GFLI_NO_HANDLE) {
        got = j->rest_size < room ? j->rest_size : room;
        memcpy(out, j->rest, got);
        j->rest += got;
        j->rest_size -= got;
        return got;
    }
    gfl_status status = gfli_os_read(j->context, j->name, j->file, out, room, &got);
    if (status == GFL_OK && got > j->most)
        status = gfli_error(j->context, GFL_E_FORMAT,
                            "%.400s: it gives more than %llu bytes, the most that is read", j->name,
                            (unsigned long long)GFLI_JSON_STREAM);
    if (j->status == GFL_OK) j->status = status;
    j->most -= status == GFL_OK ? got : 0;
    return status == GFL_OK ? got : 0;
}

/* Drop what was read, keep what was not, and read on behind it; false when there is no more. */
static bool gfli_json_more(gfli_json *j) {
    if (j->exhausted) return false;
    size_t kept = (size_t)(j->end - j->at), room = GFLI_JSON_BUFFER - kept, got;
    if (room == 0) return false;
    if (j->token && j->token < j->at) {
        gfli_json_settle(j);
        j->token = NULL;
    }
    gfli_json_count(j, j->at);
    if (j->token) j->token = j->buffer + (j->token - j->at);
    j->counted = j->buffer + (j->counted - j->at);
    memmove(j->buffer, j->at, kept);
    got = gfli_json_fill(j, j->buffer + kept, room);
    j->at = j->buffer;
    j->end = j->buffer + kept + got;
    *j->end = 0;
    j->exhausted = got < room;
    return got > 0;
}

/* The next byte that is not a space, not yet taken, or -1 at the end. */
static int gfli_json_peek(gfli_json *j) {
    for (;;) {
        unsigned c = *j->at;
        if (c > ' ') return (int)c;
        if (c == ' ' || c == '\n' || c == '\r' || c == '\t')
            j->at++;
        else if (j->at < j->end)
            return (int)c;
        else if (!gfli_json_more(j))
            return -1;
    }
}

/* At least n bytes in the buffer, if the text has them. */
static bool gfli_json_have(gfli_json *j, size_t n) {
    while ((size_t)(j->end - j->at) < n)
        if (!gfli_json_more(j)) return false;
    return true;
}

/* ---- strings --------------------------------------------------------------------------------- */

static bool gfli_json_append(gfli_json *j, const void *bytes, size_t n) {
    if (j->length + n > GFLI_JSON_TEXT) {
        gfli_json_bad(j, "a text is longer than 16 MiB");
        return false;
    }
    if (j->length + n >= j->capacity) {
        gfl_status status =
            gfli_grow(j->context, &j->text, &j->capacity, j->length + n + 1, 1, "a JSON text");
        if (status != GFL_OK) {
            j->status = status;
            return false;
        }
    }
    memcpy(j->text + j->length, bytes, n);
    j->length += n;
    return true;
}

static size_t gfli_utf8_encode(unsigned code, unsigned char out[4]) {
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, code >>= 6) out[i] = (unsigned char)(0x80 | (code & 63));
    out[0] = (unsigned char)(lead[n] | code);
    return n;
}

/* Four hexadecimal digits, or -1. */
static int gfli_hex4(const unsigned char *p) {
    int code = 0;
    for (int i = 0; i < 4; i++) {
        int c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        code = code * 16 + digit;
    }
    return code;
}

/* After \u; returns the character, or 0 after an error. */
static unsigned gfli_json_escape_u(gfli_json *j) {
    int high = gfli_json_have(j, 4) ? gfli_hex4(j->at) : -1, low = 0;
    if (high < 0) {
        gfli_json_bad(j, "\\u is not followed by four hexadecimal digits");
        return 0;
    }
    j->at += 4;
    if (high == 0) gfli_json_bad(j, "a text contains the character 0");
    if (high < 0xD800 || high > 0xDFFF) return (unsigned)high;
    if (high < 0xDC00 && gfli_json_have(j, 6) && j->at[0] == '\\' && j->at[1] == 'u')
        low = gfli_hex4(j->at + 2);
    if (low < 0xDC00 || low > 0xDFFF) {
        gfli_json_bad(j, "a \\u escape is half of a surrogate pair");
        return 0;
    }
    j->at += 6;
    return 0x10000u + (((unsigned)high & 0x3FF) << 10 | ((unsigned)low & 0x3FF));
}

static void gfli_json_escape(gfli_json *j, bool keep) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    unsigned char bytes[4];
    size_t n = 1;
    j->at++;
    int c = gfli_json_have(j, 1) ? *j->at : 0;
    const char *found = c ? strchr(from, c) : NULL;
    if (!found && c != 'u') {
        gfli_json_bad(j, "a text contains an unknown escape");
        return;
    }
    j->at++;
    if (found)
        bytes[0] = (unsigned char)to[found - from];
    else
        n = gfli_utf8_encode(gfli_json_escape_u(j), bytes);
    if (keep && j->status == GFL_OK) gfli_json_append(j, bytes, n);
}

static void gfli_json_not_utf8(gfli_json *j) {
    char text[100];
    snprintf(text, sizeof text,
             "a text is not UTF-8 (byte 0x%02x): is the file Latin-1? save it as UTF-8", *j->at);
    gfli_json_bad(j, text);
}

/* At the opening quote.  A text that nobody wants is checked all the same. */
static void gfli_json_read_string(gfli_json *j, bool keep) {
    j->length = 0;
    j->at++;
    while (j->status == GFL_OK) {
        const unsigned char *p = j->at;
        while (*p >= ' ' && *p != '"' && *p != '\\' && *p < 0x80) p++;
        if (keep && p > j->at && !gfli_json_append(j, j->at, (size_t)(p - j->at))) return;
        j->at += p - j->at;
        if (*p == '"') {
            j->at++;
            break;
        }
        if (*p == '\\') {
            gfli_json_escape(j, keep);
        } else if (*p >= 0x80) {
            gfli_json_have(j, 4);
            size_t n = gfli_utf8_length(j->at, (size_t)(j->end - j->at));
            if (n == 0)
                gfli_json_not_utf8(j);
            else if (keep)
                gfli_json_append(j, j->at, n);
            j->at += n;
        } else if (j->at < j->end) {
            gfli_json_bad(j, "a text contains an unescaped control character");
        } else if (!gfli_json_more(j)) {
            gfli_json_error(j, GFL_E_FORMAT, "the file ends inside the text that begins here");
        }
    }
    if (keep && j->status == GFL_OK && gfli_json_append(j, "", 1)) j->length--;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static void gfli_json_read_number(gfli_json *j, bool keep) {
    gfli_decimal_span s;
    bool good = gfli_decimal_scan(j->at, &s);
    /* What ends with the buffer may go on behind it. */
    while (s.end == j->end && gfli_json_more(j)) good = gfli_decimal_scan(j->at, &s);
    if (s.end == j->end && !j->exhausted) {
        gfli_json_bad(j, "a number is longer than 64 KiB");
        return;
    }
    unsigned next = *s.end;
    if (!good || next == '.' || next == '+' || next == '-' || (next | 32) - 'a' < 26u) {
        gfli_json_bad(j, "not a number as JSON writes it");
        return;
    }
    if (keep) gfli_decimal_read(&s, *j->at == '-', &j->number);
    j->at += s.end - j->at;
}

double gfli_json_as_number(gfli_json *j) {
    return j->status == GFL_OK ? gfli_decimal_value(&j->number) : 0.0;
}

bool gfli_json_as_integer(gfli_json *j, int64_t *out) {
    *out = 0;
    return j->status == GFL_OK && gfli_decimal_integer(&j->number, out);
}

const char *gfli_json_string(gfli_json *j, size_t *length) {
    if (length) *length = j->status == GFL_OK ? j->length : 0;
    return j->status == GFL_OK ? j->text : "";
}

/* ---- structure ------------------------------------------------------------------------------- */

/* What a file that is not JSON begins with, and what to do with it; NULL: no idea. */
static const char *gfli_json_other_format(const unsigned char *p, size_t n) {
    static const struct {
        const char *bytes, *what;
        size_t n;
    } kinds[] = {{"\x1f\x8b", "compressed by gzip: unpack it with gunzip", 2},
                 {"PK\3\4", "a zip archive: unpack it", 4},
                 {"BZh", "compressed by bzip2: unpack it with bunzip2", 3},
                 {"\xfd"
                  "7zXZ",
                  "compressed by xz: unpack it with unxz", 5},
                 {"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it with unzstd", 4},
                 {"\x89PNG", "a PNG picture", 4},
                 {"\xff\xd8\xff", "a JPEG picture", 3},
                 {"\xff\xfe", "in UTF-16: save it as UTF-8", 2},
                 {"\xfe\xff", "in UTF-16: save it as UTF-8", 2},
                 {"<", "XML or HTML", 1}};
    for (size_t i = 0; i < GFLI_COUNT(kinds); i++)
        if (n >= kinds[i].n && memcmp(p, kinds[i].bytes, kinds[i].n) == 0) return kinds[i].what;
    if (n >= 2 && !p[0] != !p[1]) return "in UTF-16 or UTF-32: save it as UTF-8";
    return NULL;
}

/* Once, before the first value. */
static void gfli_json_identify(gfli_json *j) {
    gfli_json_have(j, 8);
    const char *what = gfli_json_other_format(j->at, (size_t)(j->end - j->at));
    char text[100];
    snprintf(text, sizeof text, "this is not JSON: the file is %s", what ? what : "empty");
    if (what || j->at == j->end) gfli_json_bad(j, text);
}

/* Letters and digits from the next byte on; returns how many bytes were copied. */
static size_t gfli_json_next_word(gfli_json *j, char out[24]) {
    size_t n = 0;
    gfli_json_have(j, 23);
    if (*j->at == '-') out[n++] = '-';
    for (; n < 23 && ((j->at[n] | 32u) - 'a' < 26u || (unsigned)j->at[n] - '0' < 10u); n++)
        out[n] = (char)j->at[n];
    out[n] = 0;
    return n;
}

/* There is no value at the next byte: what is there instead? */
static void gfli_json_no_value(gfli_json *j) {
    static const char advice[] = "as Python prints it: write the file with json.dump";
    char text[160], word[24], shown[40];
    if (j->at == j->end) {
        gfli_json_bad(j, "the file ends where a value is expected");
        return;
    }
    size_t n = gfli_json_next_word(j, word);
    if (!strcmp(word, "None") || !strcmp(word, "True") || !strcmp(word, "False"))
        snprintf(text, sizeof text, "a value is expected, not %s, %s", word, advice);
    else if (*j->at == '\'')
        snprintf(text, sizeof text, "a value is expected, not a text in single quotes, %s", advice);
    else
        snprintf(text, sizeof text, "a value is expected, not %s",
                 n ? gfli_quote(word, shown, sizeof shown)
                   : gfli_quote_bytes((const char *)j->at, 1, shown, sizeof shown));
    gfli_json_bad(j, text);
}

/* The words of JSON, and those that Python's json module writes for what JSON cannot say. */
static gfli_json_kind gfli_json_word(gfli_json *j) {
    static const struct {
        const char *word;
        gfli_json_kind kind;
    } words[] = {{"true", GFLI_JSON_TRUE},          {"false", GFLI_JSON_FALSE},
                 {"null", GFLI_JSON_NULL},          {"NaN", GFLI_JSON_NONFINITE},
                 {"Infinity", GFLI_JSON_NONFINITE}, {"-Infinity", GFLI_JSON_NONFINITE}};
    char word[24];
    size_t n = gfli_json_next_word(j, word);
    for (size_t i = 0; i < GFLI_COUNT(words); i++)
        if (!strcmp(word, words[i].word)) {
            j->at += n;
            return words[i].kind;
        }
    gfli_json_no_value(j);
    return GFLI_JSON_END;
}

static gfli_json_kind gfli_json_enter(gfli_json *j, int c, gfli_json_kind kind) {
    if (j->depth == GFLI_JSON_DEPTH) {
        gfli_json_bad(j, "nested more than 64 deep");
        return GFLI_JSON_END;
    }
    j->at++;
    j->stack[j->depth++] = (char)c;
    j->comma = false;
    return kind;
}

/* Behind the one value of the text there is nothing but space. */
static void gfli_json_finish(gfli_json *j) {
    if (j->depth == 0 && j->status == GFL_OK && gfli_json_peek(j) >= 0)
        gfli_json_bad(j, "something follows the end of the JSON value");
}

static gfli_json_kind gfli_json_leave(gfli_json *j) {
    j->token = j->at++;
    j->depth--;
    j->comma = true;
    gfli_json_finish(j);
    return GFLI_JSON_END;
}

/* A minus sign may begin a number, or the word that Python writes. */
static bool gfli_json_is_number(gfli_json *j) {
    return gfli_json_have(j, 2) && (unsigned)j->at[1] - '0' <= 9;
}

static gfli_json_kind gfli_json_value(gfli_json *j, int c, bool keep) {
    gfli_json_kind kind = GFLI_JSON_END;
    j->keyed = false;
    j->token = j->at;
    if (c == '{') return gfli_json_enter(j, c, GFLI_JSON_OBJECT);
    if (c == '[') return gfli_json_enter(j, c, GFLI_JSON_ARRAY);
    if (c == '"') {
        gfli_json_read_string(j, keep);
        kind = GFLI_JSON_STRING;
    } else if ((c >= '0' && c <= '9') || (c == '-' && gfli_json_is_number(j))) {
        gfli_json_read_number(j, keep);
        kind = GFLI_JSON_NUMBER;
    } else {
        kind = gfli_json_word(j);
    }
    j->comma = true;
    gfli_json_finish(j);
    return j->status == GFL_OK ? kind : GFLI_JSON_END;
}

/* The comma between items; returns the first byte of the item, or -1 after an error. */
static int gfli_json_separator(gfli_json *j, int c) {
    if (!j->comma) return c;
    if (c != ',') {
        gfli_json_bad(j, c < 0 ? "the file ends inside an object or array"
                               : "a comma or the end of the object or array is expected");
        return -1;
    }
    j->at++;
    c = gfli_json_peek(j);
    if (c == ']' || c == '}') gfli_json_bad(j, "a comma before the end of an object or array");
    return c;
}

static gfli_json_kind gfli_json_step(gfli_json *j, bool keep) {
    if (j->status != GFL_OK) return GFLI_JSON_END;
    if (j->depth == 0) {
        if (j->started) return GFLI_JSON_END;
        j->started = true;
        gfli_json_identify(j);
        if (j->status != GFL_OK) return GFLI_JSON_END;
        return gfli_json_value(j, gfli_json_peek(j), keep);
    }
    int c = gfli_json_peek(j);
    if (j->stack[j->depth - 1] == '{') {
        if (!j->keyed) gfli_json_bad(j, "a value was asked for without its key");
        return j->status == GFL_OK ? gfli_json_value(j, c, keep) : GFLI_JSON_END;
    }
    if (c == ']') return gfli_json_leave(j);
    c = gfli_json_separator(j, c);
    return j->status == GFL_OK ? gfli_json_value(j, c, keep) : GFLI_JSON_END;
}

gfli_json_kind gfli_json_next(gfli_json *j) {
    return gfli_json_step(j, true);
}

static bool gfli_json_take_key(gfli_json *j, bool keep) {
    if (j->keyed) gfli_json_skip(j);
    if (j->status != GFL_OK || j->depth == 0 || j->stack[j->depth - 1] != '{') return false;
    int c = gfli_json_peek(j);
    if (c == '}') {
        gfli_json_leave(j);
        return false;
    }
    c = gfli_json_separator(j, c);
    if (j->status != GFL_OK) return false;
    if (c != '"') {
        gfli_json_bad(j, c < 0       ? "the file ends inside an object"
                         : c == '\'' ? "a key is in single quotes, as Python prints it: write the "
                                       "file with json.dump"
                                     : "a key in double quotes is expected");
        return false;
    }
    j->token = j->at;
    gfli_json_read_string(j, keep);
    if (j->status == GFL_OK && gfli_json_peek(j) != ':')
        gfli_json_bad(j, "a colon is expected after a key");
    if (j->status != GFL_OK) return false;
    j->at++;
    return j->keyed = true;
}

const char *gfli_json_key(gfli_json *j) {
    return gfli_json_take_key(j, true) ? j->text : NULL;
}

/* Polygons are most of an annotation file.  After a number of an array: as many ", number" as the
 * buffer surely holds whole; what is unusual is left to the ordinary way. */
static void gfli_json_skip_numbers(gfli_json *j) {
    unsigned char *p = j->at;
    gfli_decimal_span s;
    while (*p == ',') {
        unsigned char *q = p + 1;
        while (*q == ' ' || *q == '\n' || *q == '\r' || *q == '\t') q++;
        if ((*q != '-' && (unsigned)*q - '0' > 9) || !gfli_decimal_scan(q, &s)) break;
        if (*s.end != ',' && *s.end != ']' && *s.end != ' ' && *s.end != '\n') break;
        p = q + (s.end - q);
    }
    j->at = p;
}

int gfli_json_depth(const gfli_json *j) {
    return j->depth;
}

void gfli_json_leave_to(gfli_json *j, int depth) {
    while (j->status == GFL_OK && j->depth > depth) {
        bool object = j->stack[j->depth - 1] == '{';
        if (object && !gfli_json_take_key(j, false)) continue;
        gfli_json_kind kind = gfli_json_step(j, false);
        if (!object && kind == GFLI_JSON_NUMBER) gfli_json_skip_numbers(j);
    }
}

void gfli_json_skip(gfli_json *j) {
    const int depth = j->depth;
    gfli_json_step(j, false);
    gfli_json_leave_to(j, depth);
}

const char *gfli_json_found(const gfli_json *j, gfli_json_kind kind, char out[GFLI_QUOTED]) {
    static const char *const names[] = {"the end", "an object", "a list", "a text", "a number",
                                        "true",    "false",     "null",   "NaN"};
    if (kind == GFLI_JSON_STRING) return gfli_quote(j->text, out, GFLI_QUOTED);
    if (kind != GFLI_JSON_NUMBER && kind != GFLI_JSON_NONFINITE) return names[kind];
    if (!j->token) return names[kind];
    const int n = (int)(j->at - j->token), most = 40;
    snprintf(out, GFLI_QUOTED, "%.*s%s", n < most ? n : most, (const char *)j->token,
             n < most ? "" : "...");
    return out;
}

/* ---- life ------------------------------------------------------------------------------------ */

static gfl_status gfli_json_make(gfl_context *context, const char *name, gfli_json **out) {
    *out = NULL;
    gfli_json *j;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *j, "a JSON reader", &j));
    j->context = context;
    j->file = GFLI_NO_HANDLE;
    gfl_status status = gfli_strdup(context, name, &j->name);
    if (status == GFL_OK)
        status = gfli_alloc(context, GFLI_JSON_BUFFER + 1, 1, "a JSON reader", &j->buffer);
    if (status == GFL_OK)
        status = gfli_grow(context, &j->text, &j->capacity, 256, 1, "a JSON reader");
    if (status != GFL_OK) {
        gfli_json_close(j);
        return status;
    }
    j->text[0] = 0;
    j->at = j->end = j->counted = j->token = j->buffer;
    *j->end = 0;
    j->line = j->column = j->token_line = j->token_column = 1;
    *out = j;
    return GFL_OK;
}

/* A byte-order mark is what some editors put first; it means nothing in UTF-8. */
static void gfli_json_skip_mark(gfli_json *j) {
    if (gfli_json_have(j, 3) && memcmp(j->at, "\xEF\xBB\xBF", 3) == 0)
        j->token = j->counted = j->at += 3;
}

gfl_status gfli_json_open(gfl_context *context, const char *path, gfli_json **out) {
    *out = NULL;
    gfli_handle file;
    gfli_os_info info;
    GFLI_TRY(gfli_os_open(context, path, GFLI_OS_REGULAR_OR_STDIN, &file, &info));
    gfl_status status = gfli_json_make(context, path, out);
    if (status != GFL_OK) {
        gfli_os_close(file);
        return status;
    }
    (*out)->file = file;
    (*out)->most = info.kind == GFLI_OS_FILE ? UINT64_MAX : GFLI_JSON_STREAM;
    gfli_json_skip_mark(*out);
    return GFL_OK;
}

gfl_status gfli_json_open_memory(gfl_context *context, const char *text, size_t size,
                                 const char *name, gfli_json **out) {
    GFLI_TRY(gfli_json_make(context, name, out));
    (*out)->rest = text;
    (*out)->rest_size = size;
    gfli_json_skip_mark(*out);
    return GFL_OK;
}

void gfli_json_close(gfli_json *j) {
    if (!j) return;
    gfl_context *context = j->context;
    gfli_os_close(j->file);
    gfli_free(context, j->buffer);
    gfli_free(context, j->text);
    gfli_free(context, j->name);
    gfli_free(context, j);
}

gfl_status gfli_json_status(const gfli_json *j) {
    return j->status;
}

/* ===============================================================================================
 * src/core/json_write.c - the one place where JSON is written
 * ============================================================================================ */

static void gfli_json_format_number(double value, bool is_float, char out[32]) {
    if (gfli_is_finite(value))
        gfli_decimal_format(value, is_float, out);
    else /* JSON has neither NaN nor infinity */
        snprintf(out, 32, "null");
}

void gfli_json_format(double value, char out[32]) {
    gfli_json_format_number(value, false, out);
}

void gfli_json_format_float(float value, char out[32]) {
    gfli_json_format_number((double)value, true, out);
}

/* ---- texts ----------------------------------------------------------------------------------- */

static void gfli_json_put(gfl_json_writer *j, const char *bytes, size_t n) {
    if (n > 0 && j->status == GFL_OK)
        j->status = j->write ? j->write(j->user, bytes, n) : GFL_E_ARG;
}

/* The bytes at p that stand in a JSON text for the n that begin there, of which *used are meant: an
 * escape, or NULL where they stand for themselves. */
static const char *gfli_json_escaped(const unsigned char *p, size_t n, size_t *used,
                                     char escape[8]) {
    const size_t length = gfli_utf8_length(p, n);
    *used = length ? length : 1;
    if (length == 0) return "\\ufffd"; /* not UTF-8, which JSON has to be */
    if (*p == '"' || *p == '\\')
        snprintf(escape, 8, "\\%c", *p);
    else if (*p < 0x20 || *p == 0x7F)
        snprintf(escape, 8, "\\u%04x", (unsigned)*p);
    else
        return NULL;
    return escape;
}

static void gfli_json_quote(gfl_json_writer *j, const char *text) {
    const unsigned char *plain = (const unsigned char *)text, *p = plain;
    size_t left = strlen(text), used;
    char room[8];
    gfli_json_put(j, "\"", 1);
    for (; left > 0; p += used, left -= used) {
        const char *escape = gfli_json_escaped(p, left, &used, room);
        if (!escape) continue;
        gfli_json_put(j, (const char *)plain, (size_t)(p - plain));
        gfli_json_put(j, escape, strlen(escape));
        plain = p + used;
    }
    gfli_json_put(j, (const char *)plain, (size_t)(p - plain));
    gfli_json_put(j, "\"", 1);
}

/* ---- values ---------------------------------------------------------------------------------- */

static void gfli_json_misuse(gfl_json_writer *j) {
    if (j->status == GFL_OK) j->status = GFL_E_ARG;
}

/* What stands before a value: a comma, a new line, its key.  false without a writer. */
static bool gfli_json_begin(gfl_json_writer *j, const char *key) {
    if (!j) return false;
    const uint64_t bit = j->depth ? (uint64_t)1 << (j->depth - 1) : 0;
    if ((key != NULL) != ((j->objects & bit) != 0)) gfli_json_misuse(j);
    if (j->filled & bit) gfli_json_put(j, ", ", j->spaced && !j->broken ? 2 : 1);
    if (j->broken) gfli_json_put(j, "\n", 1);
    j->filled |= bit;
    j->broken = 0;
    if (key) gfli_json_quote(j, key);
    if (key) gfli_json_put(j, ": ", j->spaced ? 2 : 1);
    return true;
}

static void gfli_json_scalar(gfl_json_writer *j, const char *key, const char *word) {
    if (gfli_json_begin(j, key)) gfli_json_put(j, word, strlen(word));
}

static void gfli_json_nest(gfl_json_writer *j, const char *key, bool object) {
    if (!gfli_json_begin(j, key)) return;
    if (j->depth == 64) {
        gfli_json_misuse(j);
        return;
    }
    const uint64_t bit = (uint64_t)1 << j->depth++;
    j->filled &= ~bit;
    j->objects = object ? j->objects | bit : j->objects & ~bit;
    gfli_json_put(j, object ? "{" : "[", 1);
}

void gfl_json_object(gfl_json_writer *j, const char *key) {
    gfli_json_nest(j, key, true);
}

void gfl_json_array(gfl_json_writer *j, const char *key) {
    gfli_json_nest(j, key, false);
}

void gfl_json_end(gfl_json_writer *j) {
    if (!j) return;
    if (j->depth == 0) {
        gfli_json_misuse(j);
        return;
    }
    const uint64_t bit = (uint64_t)1 << --j->depth;
    if (j->broken) gfli_json_put(j, "\n", 1);
    j->broken = 0;
    gfli_json_put(j, j->objects & bit ? "}" : "]", 1);
}

void gfl_json_line(gfl_json_writer *j) {
    if (!j) return;
    if (j->depth == 0)
        gfli_json_put(j, "\n", 1);
    else
        j->broken = 1;
}

void gfl_json_text(gfl_json_writer *j, const char *key, const char *text) {
    if (!gfli_json_begin(j, key)) return;
    if (text)
        gfli_json_quote(j, text);
    else
        gfli_json_put(j, "null", 4);
}

void gfl_json_integer(gfl_json_writer *j, const char *key, int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    gfli_json_scalar(j, key, text);
}

void gfl_json_number(gfl_json_writer *j, const char *key, double value) {
    char text[32];
    gfli_json_format(value, text);
    gfli_json_scalar(j, key, text);
}

void gfl_json_float(gfl_json_writer *j, const char *key, float value) {
    char text[32];
    gfli_json_format_float(value, text);
    gfli_json_scalar(j, key, text);
}

void gfl_json_bool(gfl_json_writer *j, const char *key, int value) {
    gfli_json_scalar(j, key, value ? "true" : "false");
}

/* ---- where to -------------------------------------------------------------------------------- */

gfl_status gfli_text_add(gfli_text *text, const char *bytes, size_t n) {
    GFLI_TRY(gfli_grow(text->context, &text->bytes, &text->capacity, text->length + n + 1, 1,
                       text->what));
    memcpy(text->bytes + text->length, bytes, n);
    text->length += n;
    text->bytes[text->length] = 0;
    return GFL_OK;
}

static gfl_status gfli_json_write_text(void *text, const char *bytes, size_t n) {
    return gfli_text_add((gfli_text *)text, bytes, n);
}

static gfl_status gfli_json_write_file(void *file, const char *bytes, size_t n) {
    return gfli_file_write((gfli_file *)file, bytes, n);
}

static gfl_json_writer gfli_json_to(gfl_status (*write)(void *, const char *, size_t), void *user) {
    gfl_json_writer j;
    memset(&j, 0, sizeof j);
    j.write = write;
    j.user = user;
    return j;
}

gfl_json_writer gfli_json_to_text(gfli_text *text) {
    return gfli_json_to(gfli_json_write_text, text);
}

gfl_json_writer gfli_json_to_file(gfli_file *file) {
    return gfli_json_to(gfli_json_write_file, file);
}

/* ===============================================================================================
 * src/core/blob.c - safetensors, read
 * ============================================================================================ */

enum { GFLI_BLOB_HEADER_MAX = 100 << 20, GFLI_BLOB_TENSORS_MAX = 1 << 20 };

static const struct {
    const char *name;
    int bytes;
} gfli_dtypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I64", 8},
                   {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U8", 1},  {"BOOL", 1}};

float gfli_bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

float gfli_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    uint32_t bits = sign | (exponent + 112) << 23 | fraction << 13;
    if (exponent == 31) bits = sign | 0x7F800000u | fraction << 13;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24, exact in f32 */
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

int gfli_dtype_bytes(gfli_dtype dtype) {
    return gfli_dtypes[dtype].bytes;
}

const char *gfli_dtype_name(gfli_dtype dtype) {
    return gfli_dtypes[dtype].name;
}

/* ---- reading --------------------------------------------------------------------------------- */

bool gfli_tensor_name_is_long(const char *name) {
    for (int i = 0; i <= GFLI_TENSOR_NAME_MAX; i++)
        if (!name[i]) return false;
    return true;
}

gfl_status gfli_blob_add(gfli_blob *b, const char *name, gfli_tensor **out) {
    if (gfli_tensor_name_is_long(name))
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s: the name of a tensor, %.60s..., is longer than %d bytes", b->path,
                          name, GFLI_TENSOR_NAME_MAX);
    b->name_bytes += strlen(name);
    if (b->n_tensors == GFLI_BLOB_TENSORS_MAX || (uint64_t)b->n_tensors > b->size / 16 ||
        b->name_bytes > b->size)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s: it lists more tensors than its %llu bytes can hold", b->path,
                          (unsigned long long)b->size);
    GFLI_TRY(gfli_grow(b->context, &b->tensors, &b->tensor_capacity, (size_t)b->n_tensors + 1,
                       sizeof *b->tensors, "a list of tensors"));
    gfli_tensor *t = &b->tensors[b->n_tensors];
    memset(t, 0, sizeof *t);
    GFLI_TRY(gfli_strdup(b->context, name, &t->name));
    b->n_tensors++;
    *out = t;
    return GFL_OK;
}

gfl_status gfli_blob_add_meta(gfli_blob *b, const char *key, const char *value) {
    GFLI_TRY(gfli_grow(b->context, &b->meta, &b->meta_capacity, 2 * (size_t)b->n_meta + 2,
                       sizeof *b->meta, "metadata"));
    char **entry = &b->meta[2 * b->n_meta];
    GFLI_TRY(gfli_strdup(b->context, key, &entry[0]));
    gfl_status status = gfli_strdup(b->context, value, &entry[1]);
    if (status == GFL_OK)
        b->n_meta++;
    else
        gfli_free(b->context, entry[0]);
    return status;
}

gfl_status gfli_blob_pread(gfli_blob *b, uint64_t offset, void *out, uint64_t size) {
    if (offset > b->size || size > b->size - offset)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s: the file ends before the %llu bytes at offset %llu", b->path,
                          (unsigned long long)size, (unsigned long long)offset);
    if (b->bytes) {
        memcpy(out, b->bytes + offset, (size_t)size);
        return GFL_OK;
    }
    size_t got;
    GFLI_TRY(gfli_os_read_at(b->context, b->path, b->file, offset, out, (size_t)size, &got));
    if (got == size) return GFL_OK;
    return gfli_error(b->context, GFL_E_FORMAT, "%s became shorter while it was read", b->path);
}

static gfl_status gfli_blob_number(gfli_json *j, const char *name, const char *what, int64_t *out) {
    if (gfli_json_next(j) != GFLI_JSON_NUMBER || !gfli_json_as_integer(j, out) || *out < 0)
        return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: %s is not a natural number", name,
                               what);
    return GFL_OK;
}

static gfl_status gfli_blob_shape(gfli_json *j, gfli_tensor *t) {
    if (gfli_json_next(j) != GFLI_JSON_ARRAY)
        return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: shape is not an array", t->name);
    t->count = 1;
    for (;;) {
        gfli_json_kind kind = gfli_json_next(j);
        int64_t size;
        if (kind == GFLI_JSON_END) return gfli_json_status(j);
        if (kind != GFLI_JSON_NUMBER || !gfli_json_as_integer(j, &size) || size < 0 || t->rank == 8)
            return gfli_json_error(j, GFL_E_FORMAT,
                                   "tensor %.200s: shape is not up to 8 natural numbers", t->name);
        t->shape[t->rank++] = size;
        if (!gfli_mul(t->count, (size_t)size, &t->count) || t->count > SIZE_MAX / 16)
            return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: the size overflows", t->name);
    }
}

static gfl_status gfli_blob_dtype(gfli_json *j, gfli_tensor *t) {
    const char *text = gfli_json_next(j) == GFLI_JSON_STRING ? gfli_json_string(j, NULL) : "";
    for (size_t i = 0; i < GFLI_COUNT(gfli_dtypes); i++) {
        if (strcmp(text, gfli_dtypes[i].name) != 0) continue;
        t->dtype = (gfli_dtype)i;
        return GFL_OK;
    }
    return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: unknown dtype \"%.20s\"", t->name,
                           text);
}

/* One tensor's object; offsets come out relative to the data, which begins at `data`. */
static gfl_status gfli_blob_tensor(gfli_blob *b, gfli_json *j, gfli_tensor *t, uint64_t data) {
    int64_t begin = -1, end = -1;
    bool dtype = false, shape = false;
    const char *key;
    if (gfli_json_next(j) != GFLI_JSON_OBJECT)
        return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s is not an object", t->name);
    while ((key = gfli_json_key(j)) != NULL) {
        if (!strcmp(key, "dtype") && !dtype) {
            GFLI_TRY(gfli_blob_dtype(j, t));
            dtype = true;
        } else if (!strcmp(key, "shape") && !shape) {
            GFLI_TRY(gfli_blob_shape(j, t));
            shape = true;
        } else if (!strcmp(key, "data_offsets") && begin < 0) {
            if (gfli_json_next(j) != GFLI_JSON_ARRAY)
                return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: no data_offsets", t->name);
            GFLI_TRY(gfli_blob_number(j, t->name, "its first offset", &begin));
            GFLI_TRY(gfli_blob_number(j, t->name, "its last offset", &end));
            if (gfli_json_next(j) != GFLI_JSON_END)
                return gfli_json_error(j, GFL_E_FORMAT,
                                       "tensor %.200s: data_offsets has more than two numbers",
                                       t->name);
        } else {
            return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: unexpected key \"%.40s\"",
                                   t->name, key);
        }
    }
    GFLI_TRY(gfli_json_status(j));
    if (!dtype || !shape || begin < 0)
        return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s lacks dtype, shape or data_offsets",
                               t->name);
    if (end < begin || (uint64_t)end > b->size - data)
        return gfli_json_error(j, GFL_E_FORMAT,
                               "tensor %.200s: its data, bytes %lld to %lld, is not within the "
                               "file's %llu (truncated?)",
                               t->name, (long long)begin, (long long)end,
                               (unsigned long long)(b->size - data));
    t->offset = data + (uint64_t)begin;
    t->bytes = (uint64_t)(end - begin);
    if (t->bytes != (uint64_t)t->count * (uint64_t)gfli_dtypes[t->dtype].bytes)
        return gfli_json_error(j, GFL_E_FORMAT, "tensor %.200s: %llu bytes do not fit its shape",
                               t->name, (unsigned long long)t->bytes);
    return GFL_OK;
}

static int gfli_compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static gfl_status gfli_blob_read_meta(gfli_blob *b, gfli_json *j) {
    const char *key;
    if (b->n_meta || gfli_json_next(j) != GFLI_JSON_OBJECT)
        return gfli_json_error(j, GFL_E_FORMAT, "__metadata__ is not one object");
    while ((key = gfli_json_key(j)) != NULL) {
        const size_t at = (size_t)b->n_meta * 2;
        GFLI_TRY(gfli_grow(b->context, &b->meta, &b->meta_capacity, at + 2, sizeof *b->meta,
                           "metadata"));
        GFLI_TRY(gfli_strdup(b->context, key, &b->meta[at]));
        b->meta[at + 1] = NULL;
        b->n_meta++;
        if (gfli_json_next(j) != GFLI_JSON_STRING)
            return gfli_json_error(j, GFL_E_FORMAT, "__metadata__: \"%.100s\" is not a text",
                                   b->meta[at]);
        GFLI_TRY(gfli_strdup(b->context, gfli_json_string(j, NULL), &b->meta[at + 1]));
    }
    GFLI_TRY(gfli_json_status(j));
    if (b->n_meta > 1) qsort(b->meta, (size_t)b->n_meta, 2 * sizeof *b->meta, gfli_compare_keys);
    for (int i = 1; i < b->n_meta; i++)
        if (!strcmp(b->meta[2 * i - 2], b->meta[2 * i]))
            return gfli_json_error(j, GFL_E_FORMAT, "__metadata__ has \"%.100s\" twice",
                                   b->meta[2 * i]);
    return GFL_OK;
}

static int gfli_compare_tensors(const void *a, const void *b) {
    return strcmp(((const gfli_tensor *)a)->name, ((const gfli_tensor *)b)->name);
}

static int gfli_compare_offsets(const void *a, const void *b) {
    const gfli_tensor *x = (const gfli_tensor *)a, *y = (const gfli_tensor *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

gfl_status gfli_blob_sort(gfli_blob *b) {
    if (b->n_tensors)
        qsort(b->tensors, (size_t)b->n_tensors, sizeof *b->tensors, gfli_compare_tensors);
    for (int i = 1; i < b->n_tensors; i++)
        if (!strcmp(b->tensors[i - 1].name, b->tensors[i].name))
            return gfli_error(b->context, GFL_E_FORMAT, "%s: tensor %.200s appears twice", b->path,
                              b->tensors[i].name);
    return GFL_OK;
}

/* No two tensors share bytes or a name. */
static gfl_status gfli_blob_check_layout(gfli_blob *b) {
    if (!b->n_tensors) return GFL_OK;
    qsort(b->tensors, (size_t)b->n_tensors, sizeof *b->tensors, gfli_compare_offsets);
    for (int i = 1; i < b->n_tensors; i++) {
        const gfli_tensor *a = &b->tensors[i - 1];
        if (a->offset + a->bytes > b->tensors[i].offset)
            return gfli_error(b->context, GFL_E_FORMAT, "%s: the data of %.200s and %.200s overlap",
                              b->path, a->name, b->tensors[i].name);
    }
    return gfli_blob_sort(b);
}

static gfl_status gfli_blob_parse(gfli_blob *b, gfli_json *j, uint64_t data) {
    const char *key;
    if (gfli_json_next(j) != GFLI_JSON_OBJECT)
        return gfli_json_error(j, GFL_E_FORMAT, "the header is not a JSON object");
    while ((key = gfli_json_key(j)) != NULL) {
        if (!strcmp(key, "__metadata__")) {
            GFLI_TRY(gfli_blob_read_meta(b, j));
            continue;
        }
        gfli_tensor *t;
        GFLI_TRY(gfli_blob_add(b, key, &t));
        GFLI_TRY(gfli_blob_tensor(b, j, t, data));
    }
    gfli_json_next(j); /* nothing but spaces may follow */
    GFLI_TRY(gfli_json_status(j));
    const char *order = gfli_blob_meta(b, "byteorder");
    if (order && strcmp(order, "little") != 0)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s: its byte order is \"%.20s\"; only little-endian files are read",
                          b->path, order);
    return gfli_blob_check_layout(b);
}

gfl_status gfli_blob_read_header(gfli_blob *b) {
    uint8_t head[8];
    uint64_t length = 0;
    if (b->size < 8)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s is not a safetensors file: it has %llu bytes", b->path,
                          (unsigned long long)b->size);
    GFLI_TRY(gfli_blob_pread(b, 0, head, 8));
    for (int i = 7; i >= 0; i--) length = length << 8 | head[i];
    if (length > GFLI_BLOB_HEADER_MAX || length > b->size - 8)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s is not a safetensors file, or is truncated: it announces a header of "
                          "%llu bytes and has %llu",
                          b->path, (unsigned long long)length, (unsigned long long)b->size);
    char *text;
    GFLI_TRY(gfli_alloc(b->context, (size_t)length + 1, 1, "a safetensors header", &text));
    gfli_json *j = NULL;
    gfl_status status = gfli_blob_pread(b, 8, text, length);
    if (status == GFL_OK)
        status = gfli_json_open_memory(b->context, text, (size_t)length, b->path, &j);
    if (status == GFL_OK) status = gfli_blob_parse(b, j, 8 + length);
    gfli_json_close(j);
    gfli_free(b->context, text);
    return status;
}

static gfl_status gfli_blob_begin(gfl_context *context, const char *name, gfli_blob *out) {
    memset(out, 0, sizeof *out);
    out->context = context;
    out->file = GFLI_NO_HANDLE;
    return gfli_strdup(context, name, &out->path);
}

static gfl_status gfli_blob_open_file(gfli_blob *b) {
    gfli_os_info info;
    GFLI_TRY(gfli_os_open(b->context, b->path, GFLI_OS_REGULAR, &b->file, &info));
    b->size = info.size;
    return GFL_OK;
}

gfl_status gfli_blob_open_bare(gfl_context *context, const char *path, gfli_blob *out) {
    GFLI_TRY(gfli_blob_begin(context, path, out));
    gfl_status status = gfli_blob_open_file(out);
    if (status != GFL_OK) gfli_blob_close(out);
    return status;
}

gfl_status gfli_blob_bare_memory(gfl_context *context, const void *bytes, size_t size,
                                 const char *name, gfli_blob *out) {
    GFLI_TRY(gfli_blob_begin(context, name, out));
    out->bytes = (const uint8_t *)bytes;
    out->size = size;
    return GFL_OK;
}

gfl_status gfli_blob_open(gfl_context *context, const char *path, gfli_blob *out) {
    GFLI_TRY(gfli_blob_open_bare(context, path, out));
    gfl_status status = gfli_blob_read_header(out);
    if (status != GFL_OK) gfli_blob_close(out);
    return status;
}

gfl_status gfli_blob_open_memory(gfl_context *context, const void *bytes, size_t size,
                                 const char *name, gfli_blob *out) {
    GFLI_TRY(gfli_blob_bare_memory(context, bytes, size, name, out));
    gfl_status status = gfli_blob_read_header(out);
    if (status != GFL_OK) gfli_blob_close(out);
    return status;
}

void gfli_blob_close(gfli_blob *b) {
    if (!b->context) return;
    gfli_os_close(b->file);
    for (int i = 0; i < b->n_tensors; i++) gfli_free(b->context, b->tensors[i].name);
    for (int i = 0; i < 2 * b->n_meta; i++) gfli_free(b->context, b->meta[i]);
    gfli_free(b->context, b->tensors);
    gfli_free(b->context, b->meta);
    gfli_free(b->context, b->path);
    memset(b, 0, sizeof *b);
}

const gfli_tensor *gfli_blob_find(const gfli_blob *b, const char *name) {
    int low = 0, high = b->n_tensors;
    while (low < high) {
        int middle = low + (high - low) / 2, order = strcmp(b->tensors[middle].name, name);
        if (order == 0) return &b->tensors[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const char *gfli_blob_meta(const gfli_blob *b, const char *key) {
    for (int i = 0; i < b->n_meta; i++)
        if (!strcmp(b->meta[2 * i], key)) return b->meta[2 * i + 1];
    return NULL;
}

/* From element `from`, the first, to the one that follows at[]; at[] goes round to zeros. */
static int64_t gfli_blob_step(const gfli_tensor *t, int64_t at[8], int64_t from) {
    for (int d = t->rank - 1; d >= 0; d--) {
        from += t->stride[d];
        if (++at[d] < t->shape[d]) break;
        from -= t->shape[d] * t->stride[d];
        at[d] = 0;
    }
    return from;
}

/* The elements of a strided tensor in the order of its indices: all that it spans is read at once,
 * unless most of that belongs to others. */
static gfl_status gfli_blob_gather(gfli_blob *b, const gfli_tensor *t, uint8_t *out) {
    const size_t size = (size_t)gfli_dtypes[t->dtype].bytes;
    int64_t at[8] = {0}, extent = 1, from = 0;
    uint8_t *all = NULL;
    if (t->count == 0) return GFL_OK;
    for (int d = 0; d < t->rank; d++) extent += (t->shape[d] - 1) * t->stride[d];
    const bool dense = (uint64_t)extent / 4 <= t->count;
    if (dense) GFLI_TRY(gfli_alloc(b->context, (size_t)extent, size, "a tensor", &all));
    gfl_status status = GFL_OK;
    if (dense) status = gfli_blob_pread(b, t->offset, all, (uint64_t)extent * size);
    for (size_t i = 0; i < t->count && status == GFL_OK; i++) {
        if (dense)
            memcpy(out + i * size, all + (size_t)from * size, size);
        else
            status = gfli_blob_pread(b, t->offset + (uint64_t)from * size, out + i * size, size);
        from = gfli_blob_step(t, at, from);
    }
    gfli_free(b->context, all);
    return status;
}

gfl_status gfli_blob_read_raw(gfli_blob *b, const gfli_tensor *t, void *out) {
    if (t->strided) return gfli_blob_gather(b, t, (uint8_t *)out);
    return gfli_blob_pread(b, t->offset, out, t->bytes);
}

static void gfli_blob_widen(const uint8_t *from, gfli_dtype type, size_t n, float *to) {
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        double wide;
        if (type == GFLI_F64) {
            memcpy(&wide, from + 8 * i, 8);
            to[i] = (float)wide;
            continue;
        }
        memcpy(&half, from + 2 * i, 2);
        to[i] = type == GFLI_F16 ? gfli_f16_to_f32(half) : gfli_bf16_to_f32(half);
    }
}

gfl_status gfli_blob_read_f32(gfli_blob *b, const gfli_tensor *t, float *out) {
    uint8_t piece[8192];
    if (t->dtype == GFLI_F32) return gfli_blob_read_raw(b, t, out);
    if (t->dtype > GFLI_F64)
        return gfli_error(b->context, GFL_E_FORMAT, "%s: tensor %.200s is %s, not floating point",
                          b->path, t->name, gfli_dtypes[t->dtype].name);
    const size_t size = (size_t)gfli_dtypes[t->dtype].bytes, step = sizeof piece / size;
    if (t->strided) {
        uint8_t *apart;
        GFLI_TRY(gfli_alloc(b->context, t->count, size, "a tensor", &apart));
        gfl_status status = gfli_blob_gather(b, t, apart);
        if (status == GFL_OK) gfli_blob_widen(apart, t->dtype, t->count, out);
        gfli_free(b->context, apart);
        return status;
    }
    for (size_t i = 0; i < t->count; i += step) {
        const size_t n = t->count - i < step ? t->count - i : step;
        GFLI_TRY(gfli_blob_pread(b, t->offset + i * size, piece, n * size));
        gfli_blob_widen(piece, t->dtype, n, out + i);
    }
    return GFL_OK;
}

/* ===============================================================================================
 * src/core/blob_write.c - safetensors, written as they come
 * ============================================================================================ */

struct gfli_blob_writer {
    gfl_context *context;
    gfli_file file;
    gfli_text header;
    gfl_json_writer json;       /* into the header */
    uint64_t declared, written; /* bytes of data */
    bool in_meta, sealed;
};

gfl_status gfli_blob_create(gfl_context *context, gfli_sink to, gfli_blob_writer **out) {
    gfli_blob_writer *w;
    *out = NULL;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *w, "a weight file", &w));
    w->context = context;
    w->header.context = context;
    w->header.what = "a safetensors header";
    w->json = gfli_json_to_text(&w->header);
    gfl_json_object(&w->json, NULL);
    gfl_status status = w->json.status;
    if (status == GFL_OK) status = gfli_file_create(context, to, &w->file);
    if (status != GFL_OK) {
        gfli_blob_abandon(w);
        return status;
    }
    *out = w;
    return GFL_OK;
}

gfl_status gfli_blob_put_meta(gfli_blob_writer *w, const char *key, const char *value) {
    if (!w->in_meta) gfl_json_object(&w->json, "__metadata__");
    w->in_meta = true;
    gfl_json_text(&w->json, key, value);
    return w->json.status;
}

static void gfli_blob_close_meta(gfli_blob_writer *w) {
    if (w->in_meta) gfl_json_end(&w->json);
    w->in_meta = false;
}

gfl_status gfli_blob_declare(gfli_blob_writer *w, const char *name, gfli_dtype dtype, int rank,
                             const int64_t *shape) {
    gfl_json_writer *j = &w->json;
    uint64_t bytes = (uint64_t)gfli_dtype_bytes(dtype);
    gfli_blob_close_meta(w);
    gfl_json_object(j, name);
    gfl_json_text(j, "dtype", gfli_dtype_name(dtype));
    gfl_json_array(j, "shape");
    for (int i = 0; i < rank; i++) {
        bytes *= (uint64_t)shape[i];
        gfl_json_integer(j, NULL, shape[i]);
    }
    gfl_json_end(j);
    gfl_json_array(j, "data_offsets");
    gfl_json_integer(j, NULL, (int64_t)w->declared);
    w->declared += bytes;
    gfl_json_integer(j, NULL, (int64_t)w->declared);
    gfl_json_end(j);
    gfl_json_end(j);
    return j->status;
}

/* The header is complete: pad it so that the data is aligned, and write it. */
static gfl_status gfli_blob_seal(gfli_blob_writer *w) {
    if (w->sealed) return GFL_OK;
    w->sealed = true;
    gfli_blob_close_meta(w);
    gfl_json_end(&w->json);
    GFLI_TRY(w->json.status);
    while (w->header.length % 64 != 56) GFLI_TRY(gfli_text_add(&w->header, " ", 1));
    uint8_t head[8];
    for (int i = 0; i < 8; i++) head[i] = (uint8_t)((uint64_t)w->header.length >> (8 * i));
    GFLI_TRY(gfli_file_expect(&w->file, 8 + w->header.length + w->declared));
    GFLI_TRY(gfli_file_write(&w->file, head, 8));
    return gfli_file_write(&w->file, w->header.bytes, w->header.length);
}

gfl_status gfli_blob_write(gfli_blob_writer *w, const void *data, size_t bytes) {
    GFLI_TRY(gfli_blob_seal(w));
    w->written += bytes;
    return gfli_file_write(&w->file, data, bytes);
}

gfl_status gfli_blob_finish(gfli_blob_writer *w) {
    gfl_status status = gfli_blob_seal(w);
    if (status == GFL_OK && w->written != w->declared)
        status = gfli_error(w->context, GFL_E_ARG, "%s: %llu bytes were declared, %llu written",
                            w->file.path, (unsigned long long)w->declared,
                            (unsigned long long)w->written);
    if (status == GFL_OK) status = gfli_file_commit(&w->file);
    gfli_blob_abandon(w);
    return status;
}

void gfli_blob_abandon(gfli_blob_writer *w) {
    if (!w) return;
    gfli_file_abandon(&w->file);
    gfli_free(w->context, w->header.bytes);
    gfli_free(w->context, w);
}

/* ===============================================================================================
 * src/cpu/portable.c - kernels in plain C
 * ============================================================================================ */

void gfli_store_tile_row(const gfli_tile *t, int row, int col, const float *sum, int n) {
    float *y = t->y + t->out[row] + col;
    const float *residual = t->residual ? t->residual + t->out[row] + col : NULL;
    for (int j = 0; j < n; j++) {
        float v = sum[j];
        if (!t->first) v += y[j];
        if (t->first && t->bias) v += t->bias[col + j];
        if (t->first && residual) v += residual[j];
        y[j] = t->relu && v < 0.0f ? 0.0f : v;
    }
}

static void gfli_tile_portable(const gfli_tile *t) {
    for (int col = 0; col < t->n; col += 8) {
        float sum[GFLI_MR][8] = {{0.0f}};
        const float *b = t->b + (size_t)(col / GFLI_NR) * t->panel + col % GFLI_NR;
        for (int s = 0; s < t->n_segs; s++) {
            const float *const *rows = t->rows + s * GFLI_MR;
            for (int k = 0; k < t->len; k++, b += GFLI_NR) {
                for (int r = 0; r < GFLI_MR; r++) {
                    float a = rows[r][t->row_offset + k];
                    for (int j = 0; j < 8; j++) sum[r][j] += a * b[j];
                }
            }
        }
        for (int r = 0; r < t->m; r++) {
            gfli_store_tile_row(t, r, col, sum[r], gfli_min(8, t->n - col));
        }
    }
}

void gfli_sampling_portable(const gfli_sampling *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        float *out = t->out + r * t->stride;
        const float *c[4];
        float w[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, c, w);
        for (int i = 0; i < 4; i++) w[i] *= p->mask;
        for (int i = 0; i < t->n; i++)
            out[i] = gfli_corner_sum(w, c[0][i], c[1][i], c[2][i], c[3][i]);
    }
}

void gfli_store_outer_row(const gfli_outer *t, int row, int col, const float *sum, int n) {
    float *c = t->c + (size_t)row * t->stride + col;
    for (int j = 0; j < n; j++) c[j] = t->first ? sum[j] : c[j] + sum[j];
}

static void gfli_outer_portable(const gfli_outer *t) {
    for (int col = 0; col < t->n; col += 8) {
        float sum[GFLI_MR][8] = {{0.0f}};
        const float *a = t->a, *b = t->b + col;
        for (int k = 0; k < t->len; k++, a += GFLI_MR, b += t->width) {
            for (int r = 0; r < GFLI_MR; r++) {
                for (int j = 0; j < 8; j++) sum[r][j] += a[r] * b[j];
            }
        }
        for (int r = 0; r < t->m; r++) {
            gfli_store_outer_row(t, r, col, sum[r], gfli_min(8, t->n - col));
        }
    }
}

void gfli_scatter_portable(const gfli_scatter *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        const float *grad = t->grad + r * GFLI_DEFORM_STRIP, *corner[4];
        float weight[4], dot[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, corner, weight);
        for (int k = 0; k < 4; k++) {
            float sum = 0.0f;
            for (int i = 0; i < t->n; i++) sum += grad[i] * corner[k][i];
            dot[k] = sum;
            if (!t->dx || !(p->corners >> k & 1)) continue;
            float *to = gfli_scatter_to(t, p, k);
            const float w = weight[k] * p->mask;
            for (int i = 0; i < t->n; i++) to[i] += w * grad[i];
        }
        gfli_scatter_sums(t, p, weight, dot, t->sums + (ptrdiff_t)r * t->values);
    }
}

void gfli_qfl_negative_portable(const float *z, int n, float scale, float *loss, float *dz) {
    gfli_qfl_negatives(z, n, scale, loss, dz);
}

static bool gfli_has_portable(void) {
    return true;
}

const gfli_kernels gfli_portable = {
    "portable",
    "plain C",
    gfli_has_portable,
    1,
    gfli_tile_portable,
    gfli_sampling_portable,
    gfli_outer_portable,
    gfli_scatter_portable,
    gfli_qfl_negative_portable,
};

/* ===============================================================================================
 * src/cpu/avx2.c - kernels for x86-64 with AVX2 and FMA
 * ============================================================================================ */

#if GFLI_X86_KERNELS

GFLI_AVX2 static inline void gfli_tile_store_avx2(const gfli_tile *t, int row, __m256 v0,
                                                  __m256 v1) {
    if (row >= t->m) return;
    if (t->n < GFLI_NR) {
        float sum[GFLI_NR];
        _mm256_storeu_ps(sum, v0);
        _mm256_storeu_ps(sum + 8, v1);
        gfli_store_tile_row(t, row, 0, sum, t->n);
        return;
    }
    float *y = t->y + t->out[row];
    if (t->first) {
        if (t->bias) {
            v0 = _mm256_add_ps(v0, _mm256_loadu_ps(t->bias));
            v1 = _mm256_add_ps(v1, _mm256_loadu_ps(t->bias + 8));
        }
        if (t->residual) {
            const float *residual = t->residual + t->out[row];
            v0 = _mm256_add_ps(v0, _mm256_loadu_ps(residual));
            v1 = _mm256_add_ps(v1, _mm256_loadu_ps(residual + 8));
        }
    } else {
        v0 = _mm256_add_ps(v0, _mm256_loadu_ps(y));
        v1 = _mm256_add_ps(v1, _mm256_loadu_ps(y + 8));
    }
    if (t->relu) {
        v0 = _mm256_max_ps(_mm256_setzero_ps(), v0);
        v1 = _mm256_max_ps(_mm256_setzero_ps(), v1);
    }
    _mm256_storeu_ps(y, v0);
    _mm256_storeu_ps(y + 8, v1);
}

#    define GFLI_TILE_ROW(i)                                                                       \
        a = _mm256_broadcast_ss(a##i + k);                                                         \
        s##i##0 = _mm256_fmadd_ps(a, b0, s##i##0);                                                 \
        s##i##1 = _mm256_fmadd_ps(a, b1, s##i##1)

GFLI_AVX2 static void gfli_tile_avx2(const gfli_tile *t) {
    __m256 s00 = _mm256_setzero_ps(), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
    __m256 s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
    const float *b = t->b;
    const ptrdiff_t len = t->len;
    gfli_tile_prefetch(t);
    for (int s = 0; s < t->n_segs; s++) {
        const float *const *rows = t->rows + s * GFLI_MR;
        const float *a0 = rows[0] + t->row_offset, *a1 = rows[1] + t->row_offset;
        const float *a2 = rows[2] + t->row_offset, *a3 = rows[3] + t->row_offset;
        const float *a4 = rows[4] + t->row_offset, *a5 = rows[5] + t->row_offset;
        for (ptrdiff_t k = 0; k < len; k++, b += GFLI_NR) {
            __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8), a;
            GFLI_TILE_ROW(0);
            GFLI_TILE_ROW(1);
            GFLI_TILE_ROW(2);
            GFLI_TILE_ROW(3);
            GFLI_TILE_ROW(4);
            GFLI_TILE_ROW(5);
        }
    }
    gfli_tile_store_avx2(t, 0, s00, s01);
    gfli_tile_store_avx2(t, 1, s10, s11);
    gfli_tile_store_avx2(t, 2, s20, s21);
    gfli_tile_store_avx2(t, 3, s30, s31);
    gfli_tile_store_avx2(t, 4, s40, s41);
    gfli_tile_store_avx2(t, 5, s50, s51);
}

#    undef GFLI_TILE_ROW

GFLI_AVX2 static void gfli_sampling_avx2(const gfli_sampling *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        float *out = t->out + r * t->stride;
        const float *c[4];
        float w[4];
        int i = 0;
        gfli_point_corners(p, t->x, t->zeros, t->first, c, w);
        for (int k = 0; k < 4; k++) w[k] *= p->mask;
        const __m256 w0 = _mm256_set1_ps(w[0]), w1 = _mm256_set1_ps(w[1]);
        const __m256 w2 = _mm256_set1_ps(w[2]), w3 = _mm256_set1_ps(w[3]);
        for (; i + 8 <= t->n; i += 8) {
            __m256 v = _mm256_mul_ps(w0, _mm256_loadu_ps(c[0] + i));
            v = _mm256_fmadd_ps(w1, _mm256_loadu_ps(c[1] + i), v);
            v = _mm256_fmadd_ps(w2, _mm256_loadu_ps(c[2] + i), v);
            v = _mm256_fmadd_ps(w3, _mm256_loadu_ps(c[3] + i), v);
            _mm256_storeu_ps(out + i, v);
        }
        for (; i < t->n; i++) out[i] = gfli_corner_sum(w, c[0][i], c[1][i], c[2][i], c[3][i]);
    }
}

GFLI_AVX2 static inline void gfli_outer_store_avx2(const gfli_outer *t, int row, int col, __m256 v0,
                                                   __m256 v1) {
    if (row >= t->m) return;
    if (t->n - col < GFLI_NR) {
        float sum[GFLI_NR];
        _mm256_storeu_ps(sum, v0);
        _mm256_storeu_ps(sum + 8, v1);
        gfli_store_outer_row(t, row, col, sum, t->n - col);
        return;
    }
    float *c = t->c + (size_t)row * t->stride + col;
    if (!t->first) {
        v0 = _mm256_add_ps(v0, _mm256_loadu_ps(c));
        v1 = _mm256_add_ps(v1, _mm256_loadu_ps(c + 8));
    }
    _mm256_storeu_ps(c, v0);
    _mm256_storeu_ps(c + 8, v1);
}

#    define GFLI_OUTER_ROW(i)                                                                      \
        v = _mm256_broadcast_ss(a + i);                                                            \
        s##i##0 = _mm256_fmadd_ps(v, b0, s##i##0);                                                 \
        s##i##1 = _mm256_fmadd_ps(v, b1, s##i##1)

GFLI_AVX2 static inline void gfli_outer_half_avx2(const gfli_outer *t, int col) {
    __m256 s00 = _mm256_setzero_ps(), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
    __m256 s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
    const float *a = t->a, *b = t->b + col;
    for (int k = 0; k < t->len; k++, a += GFLI_MR, b += t->width) {
        __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8), v;
        GFLI_OUTER_ROW(0);
        GFLI_OUTER_ROW(1);
        GFLI_OUTER_ROW(2);
        GFLI_OUTER_ROW(3);
        GFLI_OUTER_ROW(4);
        GFLI_OUTER_ROW(5);
    }
    gfli_outer_store_avx2(t, 0, col, s00, s01);
    gfli_outer_store_avx2(t, 1, col, s10, s11);
    gfli_outer_store_avx2(t, 2, col, s20, s21);
    gfli_outer_store_avx2(t, 3, col, s30, s31);
    gfli_outer_store_avx2(t, 4, col, s40, s41);
    gfli_outer_store_avx2(t, 5, col, s50, s51);
}

GFLI_AVX2 static void gfli_outer_avx2(const gfli_outer *t) {
    gfli_outer_prefetch(t);
    gfli_outer_half_avx2(t, 0);
    if (t->n > GFLI_NR) gfli_outer_half_avx2(t, GFLI_NR);
}

#    undef GFLI_OUTER_ROW

/* The sums of the elements of four vectors. */
GFLI_AVX2 static inline __m128 gfli_sum4_avx2(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 v = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

GFLI_AVX2 static void gfli_scatter_avx2(const gfli_scatter *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        const float *grad = t->grad + r * GFLI_DEFORM_STRIP, *corner[4];
        const int whole = t->n / 8 * 8;
        float weight[4], dot[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, corner, weight);
        __m256 d0 = _mm256_setzero_ps(), d1 = d0, d2 = d0, d3 = d0;
        for (int i = 0; i < whole; i += 8) {
            const __m256 g = _mm256_loadu_ps(grad + i);
            d0 = _mm256_fmadd_ps(g, _mm256_loadu_ps(corner[0] + i), d0);
            d1 = _mm256_fmadd_ps(g, _mm256_loadu_ps(corner[1] + i), d1);
            d2 = _mm256_fmadd_ps(g, _mm256_loadu_ps(corner[2] + i), d2);
            d3 = _mm256_fmadd_ps(g, _mm256_loadu_ps(corner[3] + i), d3);
        }
        _mm_storeu_ps(dot, gfli_sum4_avx2(d0, d1, d2, d3));
        for (int k = 0; k < 4; k++) {
            for (int i = whole; i < t->n; i++) dot[k] += grad[i] * corner[k][i];
            if (!t->dx || !(p->corners >> k & 1)) continue;
            float *to = gfli_scatter_to(t, p, k);
            const float w = weight[k] * p->mask;
            const __m256 ww = _mm256_set1_ps(w);
            for (int i = 0; i < whole; i += 8) {
                const __m256 g = _mm256_loadu_ps(grad + i);
                _mm256_storeu_ps(to + i, _mm256_fmadd_ps(ww, g, _mm256_loadu_ps(to + i)));
            }
            for (int i = whole; i < t->n; i++) to[i] += w * grad[i];
        }
        gfli_scatter_sums(t, p, weight, dot, t->sums + (ptrdiff_t)r * t->values);
    }
}

GFLI_AVX2 static void gfli_qfl_negative_avx2(const float *z, int n, float scale, float *loss,
                                             float *dz) {
    gfli_qfl_negatives(z, n, scale, loss, dz);
}

static bool gfli_has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const gfli_kernels gfli_avx2 = {
    "avx2",
    "AVX2",
    gfli_has_avx2,
    1,
    gfli_tile_avx2,
    gfli_sampling_avx2,
    gfli_outer_avx2,
    gfli_scatter_avx2,
    gfli_qfl_negative_avx2,
};

#endif

/* ===============================================================================================
 * src/cpu/avx512.c - kernels for x86-64 with AVX-512
 * ============================================================================================ */

#if GFLI_X86_KERNELS

/* The first n of sixteen elements, or all where there are more. */
static inline __mmask16 gfli_first_avx512(int n) {
    return (__mmask16)(n < 16 ? (1u << n) - 1u : 0xffffu);
}

GFLI_AVX512 static inline void gfli_tile_store_avx512(const gfli_tile *t, int row, int col,
                                                      __m512 v) {
    if (row >= t->m || col >= t->n) return;
    const int left = t->n - col;
    const __mmask16 mask = gfli_first_avx512(left);
    float *y = t->y + t->out[row] + col;
    if (t->first) {
        if (t->bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, t->bias + col));
        if (t->residual) {
            const float *residual = t->residual + t->out[row] + col;
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, residual));
        }
    } else {
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, y));
    }
    /* The masked form: the other makes g++ 12 warn of its own header. */
    if (t->relu) v = _mm512_maskz_max_ps(mask, _mm512_setzero_ps(), v);
    _mm512_mask_storeu_ps(y, mask, v);
}

#    define GFLI_TILE_ROW(i)                                                                       \
        a = _mm512_set1_ps(a##i[k]);                                                               \
        s##i##0 = _mm512_fmadd_ps(a, b0, s##i##0);                                                 \
        if (panels > 1) s##i##1 = _mm512_fmadd_ps(a, b1, s##i##1)

#    define GFLI_STORE_ROW(i)                                                                      \
        gfli_tile_store_avx512(t, i, 0, s##i##0);                                                  \
        if (panels > 1) gfli_tile_store_avx512(t, i, GFLI_NR, s##i##1)

/* panels is a constant where this is called: 1 or 2. */
GFLI_AVX512 static inline __attribute__((__always_inline__)) void
gfli_tile_panels_avx512(const gfli_tile *t, const int panels) {
    __m512 s00 = _mm512_setzero_ps(), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
    __m512 s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
    const float *b = t->b;
    const size_t panel = panels > 1 ? t->panel : 0;
    const ptrdiff_t len = t->len;
    gfli_tile_prefetch(t);
    for (int s = 0; s < t->n_segs; s++) {
        const float *const *rows = t->rows + s * GFLI_MR;
        const float *a0 = rows[0] + t->row_offset, *a1 = rows[1] + t->row_offset;
        const float *a2 = rows[2] + t->row_offset, *a3 = rows[3] + t->row_offset;
        const float *a4 = rows[4] + t->row_offset, *a5 = rows[5] + t->row_offset;
        for (ptrdiff_t k = 0; k < len; k++, b += GFLI_NR) {
            __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + panel), a;
            GFLI_TILE_ROW(0);
            GFLI_TILE_ROW(1);
            GFLI_TILE_ROW(2);
            GFLI_TILE_ROW(3);
            GFLI_TILE_ROW(4);
            GFLI_TILE_ROW(5);
        }
    }
    GFLI_STORE_ROW(0);
    GFLI_STORE_ROW(1);
    GFLI_STORE_ROW(2);
    GFLI_STORE_ROW(3);
    GFLI_STORE_ROW(4);
    GFLI_STORE_ROW(5);
}

GFLI_AVX512 static void gfli_tile_avx512(const gfli_tile *t) {
    if (t->n > GFLI_NR) {
        gfli_tile_panels_avx512(t, 2);
    } else {
        gfli_tile_panels_avx512(t, 1);
    }
}

#    undef GFLI_TILE_ROW
#    undef GFLI_STORE_ROW

GFLI_AVX512 static void gfli_sampling_avx512(const gfli_sampling *t) {
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        float *out = t->out + r * t->stride;
        const float *c[4];
        float w[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, c, w);
        for (int k = 0; k < 4; k++) w[k] *= p->mask;
        const __m512 w0 = _mm512_set1_ps(w[0]), w1 = _mm512_set1_ps(w[1]);
        const __m512 w2 = _mm512_set1_ps(w[2]), w3 = _mm512_set1_ps(w[3]);
        for (int i = 0; i < t->n; i += 16) {
            const int left = t->n - i;
            const __mmask16 m = gfli_first_avx512(left);
            __m512 v = _mm512_mul_ps(w0, _mm512_maskz_loadu_ps(m, c[0] + i));
            v = _mm512_fmadd_ps(w1, _mm512_maskz_loadu_ps(m, c[1] + i), v);
            v = _mm512_fmadd_ps(w2, _mm512_maskz_loadu_ps(m, c[2] + i), v);
            v = _mm512_fmadd_ps(w3, _mm512_maskz_loadu_ps(m, c[3] + i), v);
            _mm512_mask_storeu_ps(out + i, m, v);
        }
    }
}

GFLI_AVX512 static inline void gfli_outer_store_avx512(const gfli_outer *t, int row, int col,
                                                       __m512 v) {
    if (row >= t->m || col >= t->n) return;
    const int left = t->n - col;
    const __mmask16 mask = gfli_first_avx512(left);
    float *c = t->c + (size_t)row * t->stride + col;
    if (!t->first) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, c));
    _mm512_mask_storeu_ps(c, mask, v);
}

#    define GFLI_OUTER_ROW(i)                                                                      \
        v = _mm512_set1_ps(a[i]);                                                                  \
        s##i##0 = _mm512_fmadd_ps(v, b0, s##i##0);                                                 \
        if (panels > 1) s##i##1 = _mm512_fmadd_ps(v, b1, s##i##1)

#    define GFLI_STORE_ROW(i)                                                                      \
        gfli_outer_store_avx512(t, i, 0, s##i##0);                                                 \
        if (panels > 1) gfli_outer_store_avx512(t, i, GFLI_NR, s##i##1)

/* panels is a constant where this is called: 1 or 2. */
GFLI_AVX512 static inline __attribute__((__always_inline__)) void
gfli_outer_panels_avx512(const gfli_outer *t, const int panels) {
    __m512 s00 = _mm512_setzero_ps(), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
    __m512 s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
    const float *a = t->a, *b = t->b;
    const ptrdiff_t width = t->width;
    gfli_outer_prefetch(t);
    for (int k = 0; k < t->len; k++, a += GFLI_MR, b += width) {
        __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + (panels - 1) * GFLI_NR), v;
        GFLI_OUTER_ROW(0);
        GFLI_OUTER_ROW(1);
        GFLI_OUTER_ROW(2);
        GFLI_OUTER_ROW(3);
        GFLI_OUTER_ROW(4);
        GFLI_OUTER_ROW(5);
    }
    GFLI_STORE_ROW(0);
    GFLI_STORE_ROW(1);
    GFLI_STORE_ROW(2);
    GFLI_STORE_ROW(3);
    GFLI_STORE_ROW(4);
    GFLI_STORE_ROW(5);
}

GFLI_AVX512 static void gfli_outer_avx512(const gfli_outer *t) {
    if (t->n > GFLI_NR) {
        gfli_outer_panels_avx512(t, 2);
    } else {
        gfli_outer_panels_avx512(t, 1);
    }
}

#    undef GFLI_OUTER_ROW
#    undef GFLI_STORE_ROW

/* The sum of both halves. */
GFLI_AVX512 static inline __m256 gfli_halves_avx512(__m512 v) {
    /* maskz: g++ takes the plain forms for unset */
    const __m512d d = _mm512_castps_pd(v);
    return _mm256_add_ps(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, d, 0)),
                         _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, d, 1)));
}

/* The sums of the elements of four vectors. */
GFLI_AVX512 static inline __m128 gfli_sum4_avx512(const __m512 d[4]) {
    const __m256 ab = _mm256_hadd_ps(gfli_halves_avx512(d[0]), gfli_halves_avx512(d[1]));
    const __m256 cd = _mm256_hadd_ps(gfli_halves_avx512(d[2]), gfli_halves_avx512(d[3]));
    const __m256 v = _mm256_hadd_ps(ab, cd);
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

GFLI_AVX512 static void gfli_scatter_avx512(const gfli_scatter *t) {
    const int n0 = gfli_min(t->n, 16), n1 = t->n - n0;
    const __mmask16 m0 = gfli_first_avx512(n0);
    const __mmask16 m1 = gfli_first_avx512(n1);
    const int second = n1 > 0 ? 16 : 0; /* a place that may be read when there is nothing more */
    for (int r = 0; r < t->rows; r++) {
        const gfli_point *p = t->points + r * GFLI_DEFORM_TAPS;
        const float *grad = t->grad + r * GFLI_DEFORM_STRIP, *corner[4];
        float weight[4], dot[4];
        gfli_point_corners(p, t->x, t->zeros, t->first, corner, weight);
        const __m512 g0 = _mm512_maskz_loadu_ps(m0, grad);
        const __m512 g1 = _mm512_maskz_loadu_ps(m1, grad + second);
        __m512 d[4];
        for (int k = 0; k < 4; k++) {
            d[k] = _mm512_mul_ps(g0, _mm512_maskz_loadu_ps(m0, corner[k]));
            d[k] = _mm512_fmadd_ps(g1, _mm512_maskz_loadu_ps(m1, corner[k] + second), d[k]);
            if (!t->dx || !(p->corners >> k & 1)) continue;
            float *to = gfli_scatter_to(t, p, k);
            const __m512 w = _mm512_set1_ps(weight[k] * p->mask);
            const __m512 v0 = _mm512_fmadd_ps(w, g0, _mm512_maskz_loadu_ps(m0, to));
            _mm512_mask_storeu_ps(to, m0, v0);
            if (n1 <= 0) continue;
            const __m512 v1 = _mm512_fmadd_ps(w, g1, _mm512_maskz_loadu_ps(m1, to + 16));
            _mm512_mask_storeu_ps(to + 16, m1, v1);
        }
        _mm_storeu_ps(dot, gfli_sum4_avx512(d));
        gfli_scatter_sums(t, p, weight, dot, t->sums + (ptrdiff_t)r * t->values);
    }
}

GFLI_AVX512 static void gfli_qfl_negative_avx512(const float *z, int n, float scale, float *loss,
                                                 float *dz) {
    gfli_qfl_negatives(z, n, scale, loss, dz);
}

static bool gfli_has_avx512(void) {
    return gfli_avx2.available() && __builtin_cpu_supports("avx512f");
}

const gfli_kernels gfli_avx512 = {
    "avx512",
    "AVX-512",
    gfli_has_avx512,
    2,
    gfli_tile_avx512,
    gfli_sampling_avx512,
    gfli_outer_avx512,
    gfli_scatter_avx512,
    gfli_qfl_negative_avx512,
};

#endif

/* ===============================================================================================
 * src/cpu/neon.c - kernels for 64-bit ARM
 * ============================================================================================ */

#if GFLI_NEON_KERNELS

/* Eight columns at a time: twice that many sums and their operands do not fit 32 registers. */
#    define GFLI_TILE_ROW(i)                                                                       \
        a = a##i[k];                                                                               \
        s##i##0 = vfmaq_n_f32(s##i##0, b0, a);                                                     \
        s##i##1 = vfmaq_n_f32(s##i##1, b1, a)

static inline void gfli_tile_store_neon(const gfli_tile *t, int row, int col, float32x4_t v0,
                                        float32x4_t v1) {
    float sum[8];
    if (row >= t->m) return;
    vst1q_f32(sum, v0);
    vst1q_f32(sum + 4, v1);
    gfli_store_tile_row(t, row, col, sum, gfli_min(8, t->n - col));
}

static inline void gfli_tile_half_neon(const gfli_tile *t, int col) {
    float32x4_t s00 = vdupq_n_f32(0), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
    float32x4_t s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
    const float *b = t->b + col;
    const ptrdiff_t len = t->len;
    for (int s = 0; s < t->n_segs; s++) {
        const float *const *rows = t->rows + s * GFLI_MR;
        const float *a0 = rows[0] + t->row_offset, *a1 = rows[1] + t->row_offset;
        const float *a2 = rows[2] + t->row_offset, *a3 = rows[3] + t->row_offset;
        const float *a4 = rows[4] + t->row_offset, *a5 = rows[5] + t->row_offset;
        for (ptrdiff_t k = 0; k < len; k++, b += GFLI_NR) {
            const float32x4_t b0 = vld1q_f32(b), b1 = vld1q_f32(b + 4);
            float a;
            GFLI_TILE_ROW(0);
            GFLI_TILE_ROW(1);
            GFLI_TILE_ROW(2);
            GFLI_TILE_ROW(3);
            GFLI_TILE_ROW(4);
            GFLI_TILE_ROW(5);
        }
    }
    gfli_tile_store_neon(t, 0, col, s00, s01);
    gfli_tile_store_neon(t, 1, col, s10, s11);
    gfli_tile_store_neon(t, 2, col, s20, s21);
    gfli_tile_store_neon(t, 3, col, s30, s31);
    gfli_tile_store_neon(t, 4, col, s40, s41);
    gfli_tile_store_neon(t, 5, col, s50, s51);
}

static void gfli_tile_neon(const gfli_tile *t) {
    gfli_tile_prefetch(t);
    gfli_tile_half_neon(t, 0);
    if (t->n > 8) gfli_tile_half_neon(t, 8);
}

#    undef GFLI_TILE_ROW

#    define GFLI_OUTER_ROW(i)                                                                      \
        s##i##0 = vfmaq_n_f32(s##i##0, b0, a[i]);                                                  \
        s##i##1 = vfmaq_n_f32(s##i##1, b1, a[i])

static inline void gfli_outer_store_neon(const gfli_outer *t, int row, int col, float32x4_t v0,
                                         float32x4_t v1) {
    float sum[8];
    if (row >= t->m) return;
    vst1q_f32(sum, v0);
    vst1q_f32(sum + 4, v1);
    gfli_store_outer_row(t, row, col, sum, gfli_min(8, t->n - col));
}

static void gfli_outer_neon(const gfli_outer *t) {
    gfli_outer_prefetch(t);
    for (int col = 0; col < t->n; col += 8) {
        float32x4_t s00 = vdupq_n_f32(0), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00;
        float32x4_t s30 = s00, s31 = s00, s40 = s00, s41 = s00, s50 = s00, s51 = s00;
        const float *a = t->a, *b = t->b + col;
        for (int k = 0; k < t->len; k++, a += GFLI_MR, b += t->width) {
            const float32x4_t b0 = vld1q_f32(b), b1 = vld1q_f32(b + 4);
            GFLI_OUTER_ROW(0);
            GFLI_OUTER_ROW(1);
            GFLI_OUTER_ROW(2);
            GFLI_OUTER_ROW(3);
            GFLI_OUTER_ROW(4);
            GFLI_OUTER_ROW(5);
        }
        gfli_outer_store_neon(t, 0, col, s00, s01);
        gfli_outer_store_neon(t, 1, col, s10, s11);
        gfli_outer_store_neon(t, 2, col, s20, s21);
        gfli_outer_store_neon(t, 3, col, s30, s31);
        gfli_outer_store_neon(t, 4, col, s40, s41);
        gfli_outer_store_neon(t, 5, col, s50, s51);
    }
}

#    undef GFLI_OUTER_ROW

static bool gfli_has_neon(void) {
    return true;
}

const gfli_kernels gfli_neon = {
    "neon",
    "NEON",
    gfli_has_neon,
    1,
    gfli_tile_neon,
    gfli_sampling_portable,
    gfli_outer_neon,
    gfli_scatter_portable,
    gfli_qfl_negative_portable,
};

#endif

/* ===============================================================================================
 * src/cpu/kernels.c - which rows of kernels there are, and which a machine can run
 * ============================================================================================ */

/* Fastest first. */
static const gfli_kernels *const gfli_kernel_rows[] = {
#if GFLI_X86_KERNELS
    &gfli_avx512,
    &gfli_avx2,
#endif
#if GFLI_NEON_KERNELS
    &gfli_neon,
#endif
    &gfli_portable,
};

const gfli_kernels *gfli_kernels_at(int i) {
    int n = 0;
    for (size_t k = 0; k < GFLI_COUNT(gfli_kernel_rows); k++)
        if ((gfli_kernel_rows[k]->available)() && n++ == i) return gfli_kernel_rows[k];
    return NULL;
}

const char *gfl_cpu_get_kernel(int i) {
    const gfli_kernels *row = gfli_kernels_at(i);
    return row ? row->name : NULL;
}

gfl_status gfli_choose_kernels(gfl_context *context, const char *name) {
    char names[100] = "";
    const gfli_kernels *row;
    for (int i = 0; (row = gfli_kernels_at(i)) != NULL; i++) {
        const size_t used = strlen(names);
        context->device = (void *)row; /* which nobody writes to */
        if (!name || strcmp(row->name, name) == 0) return GFL_OK;
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", row->name);
    }
    return gfli_error(context, GFL_E_ARG, "kernel \"%.40s\" is none of %s", name, names);
}

/* ===============================================================================================
 * src/cpu/gemm.c - the matrix product behind convolutions, whose left matrix is never stored
 * ============================================================================================ */

/* A row of the left matrix belongs to a position of y: it is what the taps of the kernel see of x
 * there, one run of channels after the other.  The right matrix is the weights, packed in panels of
 * GFLI_NR output channels.
 *
 * 1. Cut.  The rows of all levels and images, in one list, are cut evenly into parts of at most
 *    GFLI_ROWS_PER_TASK, the panels into parts of at most GFLI_COLS_PER_TASK columns, or into
 *    smaller ones where there would be too few tasks for the threads.  A task is a part of the rows
 *    by a part of the panels, so no two tasks write to the same place.
 * 2. Gather.  For each of its rows and segments a task notes where the run begins: in x; in the
 *    zeros, where the tap sees padding alone; or in a copy, where several taps make one run and the
 *    edge of the map goes through it.
 * 3. Multiply.  The inner dimension is taken in blocks of at most GFLI_K_BLOCK.  For each block and
 *    each panel (or two, if the kernel takes two), the tiles of GFLI_MR rows follow one another:
 *    the panel's block stays in the L1 cache, the rows of x in the L2 cache.  The first block
 *    writes y with bias and residual, the others add to it, the last one applies ReLU.
 *
 * The blocks depend on the shape of the convolution alone, and each output adds up its products in
 * the order of the inner dimension: the cut, and so the number of threads, changes no sum. */

enum { GFLI_COLS_PER_TASK = 512 };

size_t gfli_igemm_packed_size(const gfli_igemm *g) {
    return (size_t)g->groups * (size_t)gfli_ceil_div(g->group_out, GFLI_NR) * GFLI_NR *
           (size_t)g->n_segs * (size_t)g->seg_len * sizeof(float);
}

static gfli_igemm_layout gfli_igemm_plan(const gfli_igemm *g) {
    gfli_igemm_layout l;
    const size_t rows = GFLI_ROWS_PER_TASK, segs = (size_t)g->n_segs;
    l.zeros = gfli_round_64((size_t)gfli_max(g->groups * g->group_in, g->seg_len) * sizeof(float));
    l.rows = gfli_round_64(rows * segs * sizeof(const float *));
    l.offsets = gfli_round_64(rows * sizeof(ptrdiff_t));
    l.copies = rows * gfli_igemm_copy(g) * sizeof(float);
    l.slot = l.rows + l.offsets + l.copies;
    return l;
}

size_t gfli_igemm_scratch(const gfl_context *context, const gfli_igemm *g) {
    gfli_igemm_layout l = gfli_igemm_plan(g);
    return l.zeros + l.slot * (size_t)context->n_threads;
}

static int gfli_grid(int size, int first, int step) {
    return size > first ? gfli_ceil_div(size - first, step) : 0;
}

size_t gfli_igemm_rows(const gfli_igemm *g) {
    size_t rows = 0;
    for (int l = 0; l < g->y->levels; l++) {
        rows += (size_t)g->y->n * (size_t)gfli_grid(g->y->h[l], g->out_y, g->out_step) *
                (size_t)gfli_grid(g->y->w[l], g->out_x, g->out_step);
    }
    return rows;
}

static void gfli_row_level(const gfli_igemm *g, gfli_row *r) {
    r->grid_h = gfli_grid(g->y->h[r->level], g->out_y, g->out_step);
    r->grid_w = gfli_grid(g->y->w[r->level], g->out_x, g->out_step);
}

gfli_row gfli_row_at(const gfli_igemm *g, size_t index) {
    gfli_row r = {0, 0, 0, 0, 0, 0};
    for (;; r.level++) {
        gfli_row_level(g, &r);
        size_t rows = (size_t)g->y->n * (size_t)r.grid_h * (size_t)r.grid_w;
        if (index < rows) break;
        index -= rows;
    }
    size_t width = (size_t)r.grid_w, image = (size_t)r.grid_h * width;
    r.image = (int)(index / image);
    r.i = (int)(index % image / width);
    r.j = (int)(index % width);
    return r;
}

void gfli_row_skip(const gfli_igemm *g, gfli_row *r, int n) {
    r->j += n;
    if (r->j < r->grid_w) return;
    r->j = 0;
    if (++r->i < r->grid_h) return;
    r->i = 0;
    if (++r->image < g->y->n) return;
    r->image = 0;
    do {
        r->level++;
        gfli_row_level(g, r);
    } while (r->grid_h * r->grid_w == 0);
}

/* The run of x that begins at column ix of one line, zeros where it leaves the line. */
static void gfli_copy_run(const float *line, int ix, int taps, int width, int c, float *out) {
    for (int t = 0; t < taps; t++, out += c) {
        if (ix + t >= 0 && ix + t < width) {
            memcpy(out, line + (ptrdiff_t)(ix + t) * c, (size_t)c * sizeof(float));
        } else {
            memset(out, 0, (size_t)c * sizeof(float));
        }
    }
}

/* Pointers of the runs of segment s for n rows of a line; at: which of GFLI_MR the first is. */
static void gfli_line_pointers(const gfli_igemm *g, const gfli_row *r, int s, int n,
                               const float *zeros, float *copy, const float **rows, int at) {
    const gfli_map *x = g->x;
    const int h = x->h[r->level], w = x->w[r->level], c = x->c, last = w - g->seg_taps;
    const int iy = r->i * g->in_step + g->seg_y[s];
    const size_t copy_step = gfli_igemm_copy(g);
    const bool inside = iy >= 0 && iy < h;
    const size_t y = ((size_t)r->image * (size_t)h + (size_t)(inside ? iy : 0)) * (size_t)w;
    const float *line = x->data + (gfli_points_before(x, r->level) + y) * (size_t)c;
    int ix = r->j * g->in_step + g->seg_x[s];
    for (int k = 0; k < n; k++, ix += g->in_step) {
        if (inside && ix >= 0 && ix <= last) {
            rows[at] = line + (ptrdiff_t)ix * c;
        } else if (!inside || ix + g->seg_taps <= 0 || ix >= w) {
            rows[at] = zeros;
        } else {
            float *out = copy + (size_t)k * copy_step + (ptrdiff_t)s * g->seg_len;
            gfli_copy_run(line, ix, g->seg_taps, w, c, out);
            rows[at] = out;
        }
        if (++at == GFLI_MR) {
            at = 0;
            rows += GFLI_MR * g->n_segs;
        }
    }
}

size_t gfli_igemm_copy(const gfli_igemm *g) {
    if (g->seg_taps <= 1) return 0;
    return gfli_round_64((size_t)(g->n_segs * g->seg_len) * sizeof(float)) / sizeof(float);
}

void gfli_igemm_gather(const gfli_igemm *g, size_t first, int n, const float *zeros,
                       const float **rows, ptrdiff_t *offsets, float *copies) {
    const gfli_map *y = g->y;
    gfli_row r = gfli_row_at(g, first);
    for (int k = 0, line; k < n; k += line) {
        line = gfli_min(n - k, r.grid_w - r.j);
        const float **block = rows + (ptrdiff_t)(k / GFLI_MR) * GFLI_MR * g->n_segs;
        for (int s = 0; s < g->n_segs; s++) {
            gfli_line_pointers(g, &r, s, line, zeros, copies + (size_t)k * gfli_igemm_copy(g),
                               block + s * GFLI_MR, k % GFLI_MR);
        }
        const int h = y->h[r.level], w = y->w[r.level];
        const int oy = g->out_y + r.i * g->out_step, ox = g->out_x + r.j * g->out_step;
        const size_t point = gfli_points_before(y, r.level) +
                             ((size_t)r.image * (size_t)h + (size_t)oy) * (size_t)w + (size_t)ox;
        for (int j = 0; j < line; j++) {
            offsets[k + j] = ((ptrdiff_t)point + j * g->out_step) * y->c;
        }
        if (k + line < n) gfli_row_skip(g, &r, line);
    }
    for (int k = n; k % GFLI_MR != 0; k++) { /* the last tile computes its last row again */
        const float **block = rows + (ptrdiff_t)(k / GFLI_MR) * GFLI_MR * g->n_segs + k % GFLI_MR;
        for (int s = 0; s < g->n_segs; s++) block[s * GFLI_MR] = block[s * GFLI_MR - 1];
        offsets[k] = offsets[k - 1];
    }
}

bool gfli_next_block(const gfli_igemm *g, int size, gfli_k_block *b) {
    if (g->seg_len > size) {
        const int len = gfli_ceil_div(g->seg_len, gfli_ceil_div(g->seg_len, size));
        b->first = b->seg < 0 ? 0 : b->first + b->len;
        if (b->seg < 0) b->seg = 0;
        if (b->first >= g->seg_len) {
            b->first = 0;
            b->seg++;
        }
        b->n_segs = 1;
        b->len = gfli_min(len, g->seg_len - b->first);
        return b->seg < g->n_segs;
    }
    const int blocks = gfli_ceil_div(g->n_segs * g->seg_len, size);
    const int segs = gfli_ceil_div(g->n_segs, blocks);
    b->seg = b->seg < 0 ? 0 : b->seg + b->n_segs;
    b->n_segs = gfli_min(segs, g->n_segs - b->seg);
    b->first = 0;
    b->len = g->seg_len;
    return b->seg < g->n_segs;
}

void gfli_igemm_block(const gfli_igemm_task *t, const gfli_k_block *k, int panel0, int panel1,
                      int n_rows, const float *const *rows, const ptrdiff_t *offsets, int origin) {
    const gfli_igemm *g = t->g;
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR);
    const size_t panel = (size_t)g->n_segs * (size_t)g->seg_len * GFLI_NR;
    gfli_tile tile;
    tile.n_segs = k->n_segs;
    tile.len = k->len;
    tile.panel = panel;
    tile.first = k->seg == 0 && k->first == 0;
    tile.relu = g->relu && k->seg + k->n_segs == g->n_segs && k->first + k->len == g->seg_len;
    for (int p = panel0, n; p < panel1; p += n) {
        const int group = p / group_panels, in_group = p % group_panels;
        n = gfli_min(gfli_min(t->kernels->tile_panels, panel1 - p), group_panels - in_group);
        const int col = group * g->group_out + in_group * GFLI_NR;
        tile.b = g->packing + (size_t)p * panel +
                 ((size_t)k->seg * (size_t)g->seg_len + (size_t)k->first) * GFLI_NR;
        tile.n = gfli_min(n * GFLI_NR, g->group_out - in_group * GFLI_NR);
        tile.row_offset = group * g->group_in + k->first - origin;
        tile.y = g->y->data + col;
        tile.residual = g->residual ? g->residual->data + col : NULL;
        tile.bias = g->bias ? g->bias + col : NULL;
        for (int r = 0; r < n_rows; r += GFLI_MR) {
            tile.rows = rows + (ptrdiff_t)r * g->n_segs + (ptrdiff_t)k->seg * GFLI_MR;
            tile.out = offsets + r;
            tile.m = gfli_min(GFLI_MR, n_rows - r);
            t->kernels->tile(&tile);
        }
    }
}

gfli_part gfli_igemm_part(const gfli_igemm_task *t, int task) {
    gfli_part part;
    part.first = (size_t)(task % t->row_tasks) * (size_t)t->rows_per_task;
    part.panel0 = task / t->row_tasks * t->panels_per_task;
    part.panel1 = gfli_min(part.panel0 + t->panels_per_task, t->n_panels);
    const size_t left = t->n_rows - part.first;
    part.n = left < (size_t)t->rows_per_task ? (int)left : t->rows_per_task;
    return part;
}

static void gfli_igemm_do(void *arg, int task, int slot) {
    const gfli_igemm_task *t = (const gfli_igemm_task *)arg;
    char *memory = t->room + (size_t)slot * t->layout.slot;
    const float **rows = (const float **)(void *)memory;
    ptrdiff_t *offsets = (ptrdiff_t *)(void *)(memory + t->layout.rows);
    float *copies = (float *)(void *)(memory + t->layout.rows + t->layout.offsets);
    const gfli_part part = gfli_igemm_part(t, task);
    gfli_igemm_gather(t->g, part.first, part.n, t->zeros, rows, offsets, copies);
    gfli_k_block k = {-1, 0, 0, 0};
    while (gfli_next_block(t->g, GFLI_K_BLOCK, &k)) {
        gfli_igemm_block(t, &k, part.panel0, part.panel1, part.n, rows, offsets, 0);
    }
}

/* How the result is cut into tasks; nothing in it changes a sum. */
static void gfli_igemm_cut(const gfl_context *context, gfli_igemm_task *t) {
    const gfli_igemm *g = t->g;
    t->n_rows = gfli_igemm_rows(g);
    t->n_panels = g->groups * gfli_ceil_div(g->group_out, GFLI_NR);
    t->row_tasks = (int)((t->n_rows + GFLI_ROWS_PER_TASK - 1) / GFLI_ROWS_PER_TASK);
    const size_t even =
        t->row_tasks ? (t->n_rows + (size_t)t->row_tasks - 1) / (size_t)t->row_tasks : 0;
    t->rows_per_task = gfli_ceil_div((int)even, GFLI_MR) * GFLI_MR;
    if (t->rows_per_task) {
        t->row_tasks = (int)((t->n_rows + (size_t)t->rows_per_task - 1) / (size_t)t->rows_per_task);
    }
    int cols = gfli_ceil_div(t->n_panels * GFLI_NR, GFLI_COLS_PER_TASK);
    const int want = context->n_threads > 1 ? 4 * context->n_threads : 1;
    while (cols * t->row_tasks < want && t->n_panels / (cols + 1) >= 4) cols++;
    t->panels_per_task = gfli_ceil_div(gfli_ceil_div(t->n_panels, cols), 4) * 4;
    t->col_tasks = gfli_ceil_div(t->n_panels, t->panels_per_task);
}

void gfli_igemm_prepare(const gfl_context *context, const gfli_igemm *g, gfli_igemm_task *t) {
    memset(t, 0, sizeof *t);
    t->g = g;
    t->layout = gfli_igemm_plan(g);
    t->kernels = gfli_kernels_of(context);
    gfli_igemm_cut(context, t);
}

void gfli_igemm_run(gfl_context *context, const gfli_igemm *g, void *scratch) {
    gfli_igemm_task t;
    gfli_igemm_prepare(context, g, &t);
    t.zeros = (float *)scratch;
    t.room = (char *)scratch + t.layout.zeros;
    memset(t.zeros, 0, t.layout.zeros);
    gfli_parallel_for(context, t.row_tasks * t.col_tasks, gfli_igemm_do, &t);
}

/* ===============================================================================================
 * src/cpu/fold.c - batch norm of running statistics as a scale and a bias of the convolution before it
 * ============================================================================================ */

static void gfli_fold_norm_cpu(gfl_context *context, const gfli_norm_fold *f) {
    (void)context;
    for (int o = 0; o < f->channels; o++)
        gfli_fold_channel(f->gamma[o], f->beta[o], f->mean[o], f->var[o], f->eps, &f->scale[o],
                          &f->bias[o]);
}

/* ===============================================================================================
 * src/cpu/deform.c - deformable convolution: the matrix product of gemm.c over rows that are sampled
 * ============================================================================================ */

enum {
    GFLI_DEFORM_RUN = 32 /* channels of several groups that are worth being sampled together */
};

/* ---- sampling -------------------------------------------------------------------------------- */

void gfli_find_points(const gfli_conv_shape *s, const gfli_map *x, const gfli_map *offset,
                      size_t first, int n, gfli_point *points) {
    const bool masked = offset->c > 2 * GFLI_DEFORM_TAPS;
    const float *at = offset->data + first * (size_t)offset->c;
    gfli_igemm grid;
    memset(&grid, 0, sizeof grid);
    grid.y = offset;
    grid.out_step = 1;
    gfli_row r = gfli_row_at(&grid, first);
    for (int i = 0; i < n; i++, at += offset->c) {
        const int h = x->h[r.level], w = x->w[r.level];
        const ptrdiff_t image =
            (ptrdiff_t)gfli_points_before(x, r.level) + (ptrdiff_t)r.image * h * w;
        for (int k = 0; k < GFLI_DEFORM_TAPS; k++, points++) {
            const float y = (float)(r.i * s->stride - s->pad + k / 3) + at[2 * k];
            const float xx = (float)(r.j * s->stride - s->pad + k % 3) + at[2 * k + 1];
            const gfli_between p = gfli_between_at(h, w, y, xx);
            points->at = (int32_t)(image + (ptrdiff_t)p.top * w + p.left);
            points->width = w;
            points->corners = p.corners;
            points->down = p.down;
            points->right = p.right;
            points->mask = masked ? gfli_sigmoid(at[2 * GFLI_DEFORM_TAPS + k]) : 1.0f;
        }
        if (i + 1 < n) gfli_row_skip(&grid, &r, 1);
    }
}

/* ---- the product ----------------------------------------------------------------------------- */

void gfli_deform_igemm(const gfli_conv_shape *s, gfli_igemm *g) {
    gfli_conv_igemm(s, g);
    g->n_segs = GFLI_DEFORM_TAPS;
    g->seg_taps = 1;
    g->seg_len = g->group_in;
}

/* Groups whose channels are sampled in one go. */
static int gfli_deform_groups(const gfli_igemm *g) {
    return gfli_max(1, gfli_min(g->groups, GFLI_DEFORM_RUN / g->seg_len));
}

/* Scratch: zeros, then for each slot the points, pointers and offsets of a task's rows and the
 * tile of values that the points have in a block of the inner dimension. */
typedef struct gfli_deform_layout {
    size_t zeros, points, rows, offsets, tile, slot; /* bytes of each part */
} gfli_deform_layout;

static gfli_deform_layout gfli_deform_plan(const gfli_igemm *g) {
    gfli_deform_layout l;
    gfli_k_block k = {-1, 0, 0, 0};
    const size_t rows = GFLI_ROWS_PER_TASK, taps = GFLI_DEFORM_TAPS;
    (void)gfli_next_block(g, GFLI_K_BLOCK, &k);
    l.zeros = gfli_round_64((size_t)(g->groups * g->group_in) * sizeof(float));
    l.points = gfli_round_64(rows * taps * sizeof(gfli_point));
    l.rows = gfli_round_64(rows * taps * sizeof(const float *));
    l.offsets = gfli_round_64(rows * sizeof(ptrdiff_t));
    l.tile =
        gfli_round_64(rows * (size_t)(k.n_segs * k.len * gfli_deform_groups(g)) * sizeof(float));
    l.slot = l.points + l.rows + l.offsets + l.tile;
    return l;
}

size_t gfli_deform_conv_scratch(const gfl_context *context, const gfli_conv_shape *s) {
    gfli_igemm g;
    gfli_deform_igemm(s, &g);
    const gfli_deform_layout l = gfli_deform_plan(&g);
    return l.zeros + l.slot * (size_t)context->n_threads;
}

typedef struct gfli_deform_task {
    const gfli_conv_shape *s;
    const gfli_map *offset;
    gfli_igemm_task product;
    gfli_deform_layout layout;
} gfli_deform_task;

/* Sample the block k of the channels from t->first on, and point to the values. */
static void gfli_deform_sample(const gfli_deform_task *t, const gfli_k_block *k, gfli_sampling part,
                               const gfli_point *points, const float **rows) {
    const int n_segs = t->product.g->n_segs, n = part.rows;
    float *tile = part.out;
    part.stride = (ptrdiff_t)k->n_segs * part.n;
    for (int s = 0; s < k->n_segs; s++) {
        part.points = points + k->seg + s;
        part.out = tile + (ptrdiff_t)s * part.n;
        t->product.kernels->sampling(&part);
        for (int r = 0; r < gfli_ceil_div(n, GFLI_MR) * GFLI_MR; r++) {
            const float **block = rows + (ptrdiff_t)(r / GFLI_MR * n_segs + k->seg + s) * GFLI_MR;
            block[r % GFLI_MR] = part.out + gfli_min(r, n - 1) * part.stride;
        }
    }
}

static void gfli_deform_do(void *arg, int task, int slot) {
    const gfli_deform_task *t = (const gfli_deform_task *)arg;
    const gfli_igemm *g = t->product.g;
    const int group_panels = gfli_ceil_div(g->group_out, GFLI_NR), together = gfli_deform_groups(g);
    char *memory = t->product.room + (size_t)slot * t->layout.slot;
    gfli_point *points = (gfli_point *)(void *)memory;
    const float **rows = (const float **)(void *)(memory + t->layout.points);
    ptrdiff_t *offsets = (ptrdiff_t *)(void *)(memory + t->layout.points + t->layout.rows);
    const gfli_part part = gfli_igemm_part(&t->product, task);
    gfli_find_points(t->s, g->x, t->offset, part.first, part.n, points);
    for (int r = 0; r < gfli_ceil_div(part.n, GFLI_MR) * GFLI_MR; r++)
        offsets[r] = ((ptrdiff_t)part.first + gfli_min(r, part.n - 1)) * g->y->c;
    for (int p = part.panel0, end; p < part.panel1; p = end) {
        const int group = p / group_panels;
        end = gfli_min(part.panel1, (group + together) * group_panels);
        const int groups = gfli_ceil_div(end, group_panels) - group;
        gfli_k_block k = {-1, 0, 0, 0};
        while (gfli_next_block(g, GFLI_K_BLOCK, &k)) {
            gfli_sampling one;
            one.x = g->x;
            one.zeros = t->product.zeros;
            one.rows = part.n;
            one.first = group * g->group_in + k.first;
            one.n = groups * k.len;
            one.out = (float *)(void *)((char *)offsets + t->layout.offsets);
            gfli_deform_sample(t, &k, one, points, rows);
            gfli_igemm_block(&t->product, &k, p, end, part.n, rows, offsets, one.first);
        }
    }
}

void gfli_deform_conv(gfl_context *context, const gfli_conv_call *call, void *scratch) {
    gfli_deform_task t;
    gfli_igemm g;
    gfli_deform_igemm(call->shape, &g);
    g.packing = (const float *)call->packing;
    g.bias = call->bias;
    g.x = call->x;
    g.y = call->y;
    g.relu = call->relu;
    t.s = call->shape;
    t.offset = call->offset;
    t.layout = gfli_deform_plan(&g);
    gfli_igemm_prepare(context, &g, &t.product);
    t.product.zeros = (float *)scratch;
    t.product.room = (char *)scratch + t.layout.zeros;
    memset(t.product.zeros, 0, t.layout.zeros);
    gfli_parallel_for(context, t.product.row_tasks * t.product.col_tasks, gfli_deform_do, &t);
}

/* ===============================================================================================
 * src/cpu/conv.c - convolution over NHWC pyramids, as a matrix product
 * ============================================================================================ */

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

/* ===============================================================================================
 * src/cpu/norm.c - GroupNorm with ReLU, statistics per image and level; the level scales
 * ============================================================================================ */

/* Statistics are gathered over about GFLI_NORM_VALUES values at a time, few enough to be in the
 * cache when their mean is known and the squares around it are summed, then merged in double.
 * A plane (an image of a level) is cut into at most GFLI_NORM_PARTS parts, whatever the threads. */
enum {
    GFLI_NORM_VALUES = 16384,
    GFLI_NORM_CHANNELS = 256,
    GFLI_NORM_PARTS = 16,
    GFLI_NORM_GROUPS = 64
};

static void gfli_sum_channels(const float *GFLI_RESTRICT x, size_t c, int points, int width,
                              float *GFLI_RESTRICT sum) {
    for (int j = 0; j < width; j++) sum[j] = 0.0f;
    for (int p = 0; p < points; p++, x += c) {
        for (int j = 0; j < width; j++) sum[j] += x[j];
    }
}

/* Sums of the distances from a centre and of their squares. */
static void gfli_sum_around(const float *GFLI_RESTRICT x, size_t c, int points, int width,
                            const float *GFLI_RESTRICT centre, float *GFLI_RESTRICT sum,
                            float *GFLI_RESTRICT squares) {
    for (int j = 0; j < width; j++) sum[j] = squares[j] = 0.0f;
    for (int p = 0; p < points; p++, x += c) {
        for (int j = 0; j < width; j++) {
            const float d = x[j] - centre[j];
            sum[j] += d;
            squares[j] += d * d;
        }
    }
}

/* A few positions of `width` channels, which are whole groups or a part of one, into m. */
static void gfli_add_moments(const float *x, size_t c, int points, int width, int per_group,
                             gfli_moments *m) {
    float sum[GFLI_NORM_CHANNELS], centre[GFLI_NORM_CHANNELS], squares[GFLI_NORM_CHANNELS];
    const double n = (double)points * per_group;
    gfli_sum_channels(x, c, points, width, sum);
    for (int from = 0; from < width; from += per_group) {
        double total = 0;
        for (int j = from; j < from + per_group; j++) total += (double)sum[j];
        for (int j = from; j < from + per_group; j++) centre[j] = (float)(total / n);
    }
    /* The first sums are only as good as float32 is far from zero; these are of small numbers. */
    gfli_sum_around(x, c, points, width, centre, sum, squares);
    for (int from = 0; from < width; from += per_group, m++) {
        double off = 0, total = 0;
        for (int j = from; j < from + per_group; j++) {
            off += (double)sum[j];
            total += (double)squares[j];
        }
        off /= n;
        gfli_merge_moments(m, n, (double)centre[from] + off, total - n * off * off);
    }
}

/* One image of one level, and of that up to GFLI_NORM_GROUPS groups. */
typedef struct gfli_norm_task {
    const float *x;
    float *y;
    size_t c, points;
    int width, per_group; /* channels, from x and y on */
    int parts;
    const float *gamma, *beta, *stats;
    gfli_moments m[GFLI_NORM_PARTS][GFLI_NORM_GROUPS]; /* the first row ends as that of all parts */
} gfli_norm_task;

static size_t gfli_norm_part(const gfli_norm_task *t, int part) {
    return t->points * (size_t)part / (size_t)t->parts;
}

/* From channel `from` on, how many to take at once: whole groups, or a part of a wide one. */
static int gfli_norm_span(const gfli_norm_task *t, int from) {
    const int per_group = t->per_group;
    if (per_group > GFLI_NORM_CHANNELS)
        return gfli_min(GFLI_NORM_CHANNELS, per_group - from % per_group);
    return gfli_min(GFLI_NORM_CHANNELS / per_group * per_group, t->width - from);
}

static void gfli_norm_gather(void *arg, int part, int slot) {
    gfli_norm_task *t = (gfli_norm_task *)arg;
    const size_t end = gfli_norm_part(t, part + 1);
    const size_t step = (size_t)gfli_max(16, GFLI_NORM_VALUES / t->width);
    gfli_moments *m = t->m[part];
    (void)slot;
    memset(m, 0, sizeof t->m[part]);
    for (size_t at = gfli_norm_part(t, part); at < end; at += step) {
        const int points = (int)(end - at < step ? end - at : step);
        const float *x = t->x + at * t->c;
        for (int j = 0, n; j < t->width; j += n) {
            n = gfli_norm_span(t, j);
            gfli_add_moments(x + j, t->c, points, n, gfli_min(n, t->per_group),
                             &m[j / t->per_group]);
        }
    }
}

/* Channels [from, from + width) of the positions [at, end). */
static void gfli_norm_channels(const gfli_norm_task *t, size_t at, size_t end, int from,
                               int width) {
    float mean[GFLI_NORM_CHANNELS], scale[GFLI_NORM_CHANNELS], shift[GFLI_NORM_CHANNELS];
    float row[GFLI_NORM_CHANNELS];
    for (int j = 0; j < width; j++) {
        const int g = (from + j) / t->per_group;
        mean[j] = t->stats[2 * g];
        scale[j] = t->gamma[from + j] * t->stats[2 * g + 1];
        /* What rounding took from the mean, so that a mean far from zero costs nothing. */
        const double lost = t->m[0][g].mean - (double)mean[j];
        shift[j] = (float)((double)t->beta[from + j] - lost * (double)scale[j]);
    }
    const float *x = t->x + at * t->c + from;
    float *y = t->y + at * t->c + from;
    for (; at < end; at++, x += t->c, y += t->c) {
        /* y may be x: a detour through `row` lets compilers vectorise all the same. */
        for (int j = 0; j < width; j++) {
            const float v = (x[j] - mean[j]) * scale[j] + shift[j];
            row[j] = v < 0.0f ? 0.0f : v;
        }
        memcpy(y, row, (size_t)width * sizeof(float));
    }
}

static void gfli_norm_apply(void *arg, int part, int slot) {
    const gfli_norm_task *t = (const gfli_norm_task *)arg;
    const size_t at = gfli_norm_part(t, part), end = gfli_norm_part(t, part + 1);
    (void)slot;
    for (int j = 0, n; j < t->width; j += n) {
        n = gfli_norm_span(t, j);
        gfli_norm_channels(t, at, end, j, n);
    }
}

/* t->m is filled; stats gets each group's mean and 1 / deviation. */
static void gfli_norm_finish(gfli_norm_task *t, float eps, float *stats) {
    for (int g = 0; g * t->per_group < t->width; g++) {
        gfli_moments *all = &t->m[0][g];
        for (int part = 1; part < t->parts; part++) {
            const gfli_moments *m = &t->m[part][g];
            gfli_merge_moments(all, m->n, m->mean, m->squares);
        }
        gfli_finish_moments(all, eps, &stats[2 * g]);
    }
    t->stats = stats;
}

static void gfli_group_norm_cpu(gfl_context *context, const gfli_map *x, int groups, float eps,
                                const float *gamma, const float *beta, const gfli_map *y,
                                float *stats, bool given) {
    gfli_norm_task t;
    size_t at = 0;
    (void)given; /* it never is: this backend does not fuse */
    t.c = (size_t)x->c;
    t.per_group = x->c / groups;
    for (int plane = 0; plane < x->levels * x->n; plane++, at += t.points * t.c) {
        const int level = plane / x->n;
        t.points = (size_t)x->h[level] * (size_t)x->w[level];
        const size_t rows = (size_t)x->h[level];
        t.parts = rows < GFLI_NORM_PARTS ? (int)rows : (int)GFLI_NORM_PARTS;
        for (int g = 0, n; g < groups; g += n, stats += 2 * n) {
            n = gfli_min(groups - g, GFLI_NORM_GROUPS);
            const int from = g * t.per_group;
            t.x = x->data + at + from;
            t.y = y->data + at + from;
            t.gamma = gamma + from;
            t.beta = beta + from;
            t.width = n * t.per_group;
            gfli_parallel_for(context, t.parts, gfli_norm_gather, &t);
            gfli_norm_finish(&t, eps, stats);
            gfli_parallel_for(context, t.parts, gfli_norm_apply, &t);
        }
    }
}

/* ---- level scale ----------------------------------------------------------------------------- */

enum { GFLI_SCALE_FLOATS = 65536 };

typedef struct gfli_scale_task {
    const float *x;
    float *y;
    float scale;
    size_t n;
} gfli_scale_task;

static void gfli_scale_part(void *arg, int task, int slot) {
    const gfli_scale_task *t = (const gfli_scale_task *)arg;
    const size_t from = (size_t)task * GFLI_SCALE_FLOATS;
    const size_t end = t->n - from < GFLI_SCALE_FLOATS ? t->n : from + GFLI_SCALE_FLOATS;
    (void)slot;
    const float scale = t->scale, *x = t->x;
    float *y = t->y;
    if (x == y) {
        for (size_t i = from; i < end; i++) y[i] *= scale;
    } else {
        for (size_t i = from; i < end; i++) y[i] = scale * x[i];
    }
}

static void gfli_level_scale_cpu(gfl_context *context, const gfli_map *x, const float *scale,
                                 const gfli_map *y) {
    for (int l = 0; l < x->levels; l++) {
        const size_t at = gfli_points_before(x, l) * (size_t)x->c;
        gfli_scale_task t;
        t.x = x->data + at;
        t.y = y->data + at;
        t.scale = scale[l * GFLI_BLOCK_STEP];
        t.n = gfli_level_points(x, l) * (size_t)x->c;
        const size_t tasks = (t.n + GFLI_SCALE_FLOATS - 1) / GFLI_SCALE_FLOATS;
        gfli_parallel_for(context, (int)tasks, gfli_scale_part, &t);
    }
}

/* ===============================================================================================
 * src/cpu/pool.c - max pooling and nearest upsampling
 * ============================================================================================ */

typedef struct gfli_pool_task {
    const gfli_map *x, *y;
} gfli_pool_task;

/* Row number `row` of y, level after level, image after image. */
static void gfli_pool_find(const gfli_map *y, int row, int *level, int *image, int *at) {
    int l = 0;
    for (; row >= y->n * y->h[l]; l++) row -= y->n * y->h[l];
    *level = l;
    *image = row / y->h[l];
    *at = row % y->h[l];
}

static const float *gfli_pool_source(const gfli_map *x, int level, int image, int row) {
    const size_t before = gfli_points_before(x, level);
    const size_t rows = (size_t)image * (size_t)x->h[level] + (size_t)row;
    return x->data + (before + rows * (size_t)x->w[level]) * (size_t)x->c;
}

static void gfli_max_of_nine(const float *const row[3], const size_t at[3], size_t c,
                             float *GFLI_RESTRICT y) {
    const float *a0 = row[0] + at[0], *a1 = row[0] + at[1], *a2 = row[0] + at[2];
    const float *b0 = row[1] + at[0], *b1 = row[1] + at[1], *b2 = row[1] + at[2];
    const float *c0 = row[2] + at[0], *c1 = row[2] + at[1], *c2 = row[2] + at[2];
    for (size_t i = 0; i < c; i++) {
        float a = a0[i] > a1[i] ? a0[i] : a1[i];
        float b = b0[i] > b1[i] ? b0[i] : b1[i];
        float d = c0[i] > c1[i] ? c0[i] : c1[i];
        a = a > a2[i] ? a : a2[i];
        b = b > b2[i] ? b : b2[i];
        d = d > c2[i] ? d : c2[i];
        a = a > b ? a : b;
        y[i] = a > d ? a : d;
    }
}

static void gfli_max_pool_row(void *arg, int task, int slot) {
    const gfli_pool_task *t = (const gfli_pool_task *)arg;
    const size_t c = (size_t)t->x->c;
    int level, image, row;
    (void)slot;
    gfli_pool_find(t->y, task, &level, &image, &row);
    /* Beyond the edge the nearest cell stands in: it is in the window already. */
    const int bottom = t->x->h[level] - 1, right = t->x->w[level] - 1;
    const float *rows[3];
    for (int k = 0; k < 3; k++) {
        const int y = gfli_clamp(2 * row + k - 1, 0, bottom);
        rows[k] = gfli_pool_source(t->x, level, image, y);
    }
    float *out = t->y->data + (gfli_pool_source(t->y, level, image, row) - t->y->data);
    for (int x = 0; x < t->y->w[level]; x++, out += c) {
        size_t at[3];
        for (int k = 0; k < 3; k++) at[k] = (size_t)gfli_clamp(2 * x + k - 1, 0, right) * c;
        gfli_max_of_nine(rows, at, c, out);
    }
}

static int gfli_pool_rows(const gfli_map *y) {
    int rows = 0;
    for (int l = 0; l < y->levels; l++) rows += y->n * y->h[l];
    return rows;
}

static void gfli_max_pool_cpu(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    gfli_pool_task t;
    t.x = x;
    t.y = y;
    gfli_parallel_for(context, gfli_pool_rows(y), gfli_max_pool_row, &t);
}

/* ---- upsampling ------------------------------------------------------------------------------ */

static void gfli_upsample_row(void *arg, int task, int slot) {
    const gfli_pool_task *t = (const gfli_pool_task *)arg;
    const int c = t->x->c;
    int level, image, row;
    (void)slot;
    gfli_pool_find(t->y, task, &level, &image, &row);
    const int from = gfli_nearest(row, t->x->h[level], t->y->h[level]);
    const float *in = gfli_pool_source(t->x, level, image, from);
    float *out = t->y->data + (gfli_pool_source(t->y, level, image, row) - t->y->data);
    for (int x = 0; x < t->y->w[level]; x++, out += c) {
        const float *GFLI_RESTRICT s =
            in + (size_t)gfli_nearest(x, t->x->w[level], t->y->w[level]) * (size_t)c;
        for (int i = 0; i < c; i++) out[i] += s[i];
    }
}

static void gfli_upsample_add_cpu(gfl_context *context, const gfli_map *x, const gfli_map *y) {
    gfli_pool_task t;
    t.x = x;
    t.y = y;
    gfli_parallel_for(context, gfli_pool_rows(y), gfli_upsample_row, &t);
}

/* ===============================================================================================
 * src/cpu/image.c - OpenCV's bilinear resize, normalisation and padding
 * ============================================================================================ */

/* Rows of the horizontal pass keep 4 bits less than it gives, as OpenCV does on the way to the
 * vertical pass. */
enum { GFLI_RESIZE_ROWS = 16 };

/* One destination column: byte offsets of its two source pixels and their weights. */
typedef struct gfli_column {
    int from, next;
    uint16_t weight, next_weight;
} gfli_column;

static void gfli_fill_columns(gfli_column *columns, int in, int out, int bytes) {
    for (int x = 0; x < out; x++) {
        const gfli_tap t = gfli_column_tap(x, in, out);
        columns[x].from = t.at * bytes;
        columns[x].next = gfli_min(t.at + 1, in - 1) * bytes;
        columns[x].weight = (uint16_t)gfli_tap_weight(1.0f - t.fraction);
        columns[x].next_weight = (uint16_t)gfli_tap_weight(t.fraction);
    }
}

typedef struct gfli_resize_task {
    const gfl_image *image;
    ptrdiff_t stride;
    int channel[3]; /* where red, green and blue (or blue .. red) are in a pixel */
    int out_w, out_h;
    uint8_t *out;
    const gfli_column *columns;
    uint16_t *rows; /* two of the horizontal pass for each slot */
    size_t row_size;
} gfli_resize_task;

static void gfli_resize_across(const gfli_resize_task *t, int row, uint16_t *GFLI_RESTRICT out) {
    const uint8_t *source = t->image->pixels + (ptrdiff_t)row * t->stride;
    const uint8_t *s0 = source + t->channel[0], *s1 = source + t->channel[1];
    const uint8_t *s2 = source + t->channel[2];
    for (int x = 0; x < t->out_w; x++, out += 3) {
        const gfli_column c = t->columns[x];
        const int a = c.weight, b = c.next_weight;
        out[0] = gfli_blend_across(s0[c.from], s0[c.next], a, b);
        out[1] = gfli_blend_across(s1[c.from], s1[c.next], a, b);
        out[2] = gfli_blend_across(s2[c.from], s2[c.next], a, b);
    }
}

static void gfli_resize_down(const uint16_t *GFLI_RESTRICT upper,
                             const uint16_t *GFLI_RESTRICT lower, int a, int b, int n,
                             uint8_t *GFLI_RESTRICT out) {
    const int16_t wa = (int16_t)a, wb = (int16_t)b;
    for (int i = 0; i < n; i++) out[i] = gfli_blend_down(upper[i], lower[i], wa, wb);
}

static void gfli_resize_rows(void *arg, int task, int slot) {
    const gfli_resize_task *t = (const gfli_resize_task *)arg;
    const int first = task * GFLI_RESIZE_ROWS, n = t->out_w * 3;
    const int end = gfli_min(t->out_h, first + GFLI_RESIZE_ROWS), last = t->image->height - 1;
    uint16_t *upper = t->rows + (size_t)slot * 2 * t->row_size, *lower = upper + t->row_size;
    int upper_is = -1, lower_is = -1;
    for (int y = first; y < end; y++) {
        const gfli_tap tap = gfli_tap_of(y, t->image->height, t->out_h);
        const int y0 = gfli_clamp(tap.at, 0, last);
        const int y1 = gfli_clamp(tap.at + 1, 0, last);
        if (upper_is != y0 && lower_is == y0) {
            uint16_t *swapped = upper;
            upper = lower;
            lower = swapped;
            lower_is = upper_is;
            upper_is = y0;
        }
        if (upper_is != y0) gfli_resize_across(t, y0, upper);
        if (lower_is != y1) gfli_resize_across(t, y1, lower);
        upper_is = y0;
        lower_is = y1;
        gfli_resize_down(upper, lower, gfli_tap_weight(1.0f - tap.fraction),
                         gfli_tap_weight(tap.fraction), n, t->out + (size_t)y * (size_t)n);
    }
}

/* Rounded up so that slots do not share cache lines. */
static size_t gfli_resize_row_size(int out_w) {
    return ((size_t)out_w * 3 + 63) / 32 * 32;
}

static size_t gfli_resize_columns_size(int out_w) {
    return ((size_t)out_w * sizeof(gfli_column) + 63) / 64 * 64;
}

static size_t gfli_resize_scratch_cpu(const gfl_context *context, int in_w, int in_h, int out_w,
                                      int out_h) {
    const size_t rows = 2 * (size_t)gfli_max(context->n_threads, 1);
    (void)in_w;
    (void)in_h;
    (void)out_h;
    return gfli_resize_columns_size(out_w) + rows * gfli_resize_row_size(out_w) * sizeof(uint16_t);
}

static void gfli_resize_cpu(gfl_context *context, const gfl_image *image, bool on_device, bool bgr,
                            int out_w, int out_h, uint8_t *out, void *scratch) {
    gfli_column *columns = (gfli_column *)scratch;
    gfli_resize_task t;
    (void)on_device;
    gfli_fill_columns(columns, image->width, out_w, gfli_pixel_bytes(image->format));
    t.image = image;
    t.stride = gfli_pixel_pitch(image);
    gfli_pixel_channels(image->format, bgr, t.channel);
    t.out_w = out_w;
    t.out_h = out_h;
    t.out = out;
    t.columns = columns;
    t.rows = (uint16_t *)(void *)((uint8_t *)scratch + gfli_resize_columns_size(out_w));
    t.row_size = gfli_resize_row_size(out_w);
    gfli_parallel_for(context, gfli_ceil_div(out_h, GFLI_RESIZE_ROWS), gfli_resize_rows, &t);
}

/* ---- normalisation --------------------------------------------------------------------------- */

typedef struct gfli_normalise_task {
    const uint8_t *pixels;
    int w, h;
    bool flip;
    float value[3][256];
    const gfli_map *y;
    int index;
} gfli_normalise_task;

static void gfli_normalise_row(void *arg, int row, int slot) {
    const gfli_normalise_task *t = (const gfli_normalise_task *)arg;
    const size_t c = (size_t)t->y->c, width = (size_t)t->y->w[0];
    float *out = t->y->data + ((size_t)t->index * (size_t)t->y->h[0] + (size_t)row) * width * c;
    const int filled = row < t->h ? t->w : 0;
    const uint8_t *in = t->pixels + (size_t)row * (size_t)t->w * 3;
    (void)slot;
    memset(out + (size_t)filled * c, 0, (width - (size_t)filled) * c * sizeof(float));
    for (int x = 0; x < filled; x++, out += c) {
        const uint8_t *rgb = in + 3 * (t->flip ? filled - 1 - x : x);
        out[0] = t->value[0][rgb[0]];
        out[1] = t->value[1][rgb[1]];
        out[2] = t->value[2][rgb[2]];
        for (size_t k = 3; k < c; k++) out[k] = 0.0f;
    }
}

static void gfli_normalise_cpu(gfl_context *context, const uint8_t *pixels, int w, int h,
                               const float mean[3], const float std[3], bool flip,
                               const gfli_map *y, int index) {
    gfli_normalise_task t;
    t.pixels = pixels;
    t.w = w;
    t.h = h;
    t.flip = flip;
    t.y = y;
    t.index = index;
    for (int k = 0; k < 3; k++) {
        for (int v = 0; v < 256; v++) t.value[k][v] = gfli_normalised((uint8_t)v, mean[k], std[k]);
    }
    gfli_parallel_for(context, y->h[0], gfli_normalise_row, &t);
}

/* ===============================================================================================
 * src/cpu/nms.c - non-maximum suppression, class by class or across classes
 * ============================================================================================ */

/* ---- ranks ----------------------------------------------------------------------------------- */

static void gfli_heap_sink(uint64_t *heap, size_t n, size_t at) {
    const uint64_t rank = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] > heap[child]) child++;
        if (heap[child] <= rank) break;
        heap[at] = heap[child];
    }
    heap[at] = rank;
}

void gfli_heap_make(uint64_t *ranks, size_t n) {
    for (size_t i = n / 2; i-- > 0;) gfli_heap_sink(ranks, n, i);
}

void gfli_heap_replace(uint64_t *heap, size_t n, uint64_t rank) {
    heap[0] = rank;
    gfli_heap_sink(heap, n, 0);
}

void gfli_sort_ranks(uint64_t *ranks, size_t n) {
    gfli_heap_make(ranks, n);
    while (n > 1) {
        const uint64_t largest = ranks[0];
        n--;
        gfli_heap_replace(ranks, n, ranks[n]);
        ranks[n] = largest;
    }
}

/* ---- suppression ----------------------------------------------------------------------------- */

/* One more than the largest coordinate, and whether classes are apart for sure once shifted: not
 * when boxes start below 0, pixels make up for the 1 that is between them, or float32 is too coarse
 * to keep it. */
static float gfli_class_step(const gfli_decoded *boxes, int n, int inclusive, bool *apart) {
    float largest = -FLT_MAX, smallest = FLT_MAX;
    int labels = 0;
    for (int i = 0; i < n; i++) {
        const gfl_detection *d = &boxes[i].detection;
        const float c[4] = {d->x1, d->y1, d->x2, d->y2};
        for (int k = 0; k < 4; k++) {
            if (c[k] > largest) largest = c[k];
            if (c[k] < smallest) smallest = c[k];
        }
        labels = gfli_max(labels, d->label + 1);
    }
    *apart = inclusive == 0 && smallest >= 0.0f && ((double)largest + 1.0) * labels < 8388608.0;
    return largest + 1.0f;
}

int gfli_nms(const gfli_decoded *boxes, int n, const gfli_decode_opts *opts, int max_keep,
             int *keep, uint64_t *ranks, float *scratch) {
    gfli_apart *kept = (gfli_apart *)(void *)scratch;
    const float inclusive = (float)opts->inclusive;
    bool apart = false;
    int n_kept = 0;
    const float step = opts->agnostic ? 0.0f : gfli_class_step(boxes, n, opts->inclusive, &apart);
    for (int i = 0; i < n; i++) ranks[i] = gfli_rank(boxes[i].detection.score, (uint64_t)i);
    gfli_sort_ranks(ranks, (size_t)n);
    for (int i = 0; i < n && n_kept < max_keep; i++) {
        const int at = (int)gfli_rank_index(ranks[i]);
        const gfli_apart box = gfli_move_apart(&boxes[at].detection, step, inclusive);
        bool suppressed = false;
        for (int k = 0; k < n_kept && !suppressed; k++) {
            if (apart && kept[k].label != box.label) continue;
            suppressed = gfli_overlaps(&kept[k], &box, opts->nms_iou, inclusive);
        }
        if (suppressed) continue;
        kept[n_kept] = box;
        keep[n_kept++] = at;
    }
    return n_kept;
}

/* ===============================================================================================
 * src/cpu/decode.c - from logits to boxes: threshold, top-k, integral of the distributions, clip
 * ============================================================================================ */

/* Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section "Method". */

/* ---- the best pairs of location and class ---------------------------------------------------- */

/* A logit whose sigmoid is certainly below the score, by a margin that covers rounding. */
static float gfli_logit_below(float score) {
    const double s = score < 0.9999999f ? (double)score : 0.9999999;
    return (float)((log)(s / (1.0 - s)) - 0.01 - 4e-7 / (1.0 - s));
}

static bool gfli_any_above(const float *x, int n, float bound) {
    int above = 0;
    for (int i = 0; i < n; i++) above |= x[i] > bound;
    return above != 0;
}

/* Pairs seen so far: the best `most`, a heap once there are that many. */
typedef struct gfli_selection {
    uint64_t *ranks;
    size_t n, most;
    float min_score, bound; /* logits up to bound need no exact look */
} gfli_selection;

static void gfli_select(gfli_selection *s, float logit, uint64_t index) {
    const float score = gfli_sigmoid(logit);
    if (!(score > s->min_score) || !gfli_is_finite((double)score)) return;
    const uint64_t rank = gfli_rank(score, index);
    if (s->n < s->most) {
        s->ranks[s->n++] = rank;
        if (s->n < s->most) return;
        gfli_heap_make(s->ranks, s->n);
    } else {
        if (rank > s->ranks[0]) return;
        gfli_heap_replace(s->ranks, s->n, rank);
    }
    s->bound = gfli_logit_below(gfli_rank_score(s->ranks[0]));
}

typedef struct gfli_decode_task {
    const gfli_map *cls, *reg;
    const gfli_decode_opts *opts;
    int index;
    uint64_t *ranks[GFL_LEVELS]; /* of each level's pairs, sorted */
    int counts[GFL_LEVELS], first[GFL_LEVELS];
    int n;
    gfli_decoded *out;
} gfli_decode_task;

static size_t gfli_decode_points(const gfli_map *map, int level) {
    return (size_t)map->h[level] * (size_t)map->w[level];
}

static const float *gfli_decode_plane(const gfli_map *map, int level, int index) {
    const size_t points = gfli_decode_points(map, level);
    return map->data + (gfli_points_before(map, level) + (size_t)index * points) * (size_t)map->c;
}

static gfli_selection gfli_selection_make(const gfli_decode_task *t, int level, size_t most) {
    gfli_selection s;
    s.ranks = t->ranks[level];
    s.n = 0;
    s.most = most;
    s.min_score = t->opts->min_score;
    s.bound = gfli_logit_below(s.min_score);
    return s;
}

static void gfli_select_pairs(gfli_decode_task *t, int level) {
    const int classes = t->opts->n_classes;
    const size_t points = gfli_decode_points(t->cls, level);
    const float *x = gfli_decode_plane(t->cls, level, t->index);
    gfli_selection s = gfli_selection_make(t, level, gfli_max_candidates(t->cls, t->opts, level));
    for (size_t p = 0; p < points; p++, x += (size_t)t->cls->c) {
        if (!gfli_any_above(x, classes, s.bound)) continue;
        for (int c = 0; c < classes; c++) {
            if (x[c] > s.bound && gfli_wants(t->opts->wanted, c))
                gfli_select(&s, x[c], (uint64_t)p * (uint64_t)classes + (uint64_t)c);
        }
    }
    gfli_sort_ranks(s.ranks, s.n);
    t->counts[level] = (int)s.n;
}

/* Replace n locations by their pairs above the threshold, in the same memory: the locations are
 * moved to its end, where the pairs, at most `classes` for each, cannot overtake them. */
static size_t gfli_select_classes(const gfli_decode_task *t, int level, size_t n) {
    const int classes = t->opts->n_classes;
    const float *plane = gfli_decode_plane(t->cls, level, t->index);
    uint64_t *ranks = t->ranks[level], *from = ranks + n * (size_t)(classes - 1);
    size_t n_pairs = 0;
    memmove(from, ranks, n * sizeof *ranks);
    for (size_t i = 0; i < n; i++) {
        const uint64_t p = gfli_rank_index(from[i]);
        const float *x = plane + (size_t)p * (size_t)t->cls->c;
        for (int c = 0; c < classes; c++) {
            const float score = gfli_sigmoid(x[c]);
            if (score > t->opts->min_score && gfli_wants(t->opts->wanted, c))
                ranks[n_pairs++] = gfli_rank(score, p * (uint64_t)classes + (uint64_t)c);
        }
    }
    return n_pairs;
}

/* Locations below the threshold have no pairs and come after all others, so they need no place. */
static void gfli_select_locations(gfli_decode_task *t, int level) {
    const int classes = t->opts->n_classes;
    const size_t points = gfli_decode_points(t->cls, level);
    const float *x = gfli_decode_plane(t->cls, level, t->index);
    const bool cut = points > (size_t)t->opts->max_per_level;
    /* uncut, one more than there can be: a full selection would lose its order */
    gfli_selection s =
        gfli_selection_make(t, level, cut ? (size_t)t->opts->max_per_level : points + 1);
    for (size_t p = 0; p < points; p++, x += (size_t)t->cls->c) {
        if (!gfli_any_above(x, classes, s.bound)) continue;
        gfli_select(&s, gfli_best_wanted(x, classes, t->opts->wanted), p);
    }
    if (cut) gfli_sort_ranks(s.ranks, s.n);
    t->counts[level] = (int)gfli_select_classes(t, level, s.n);
}

static void gfli_select_level(void *arg, int level, int slot) {
    gfli_decode_task *t = (gfli_decode_task *)arg;
    (void)slot;
    if (t->opts->by_location)
        gfli_select_locations(t, level);
    else
        gfli_select_pairs(t, level);
}

/* ---- boxes ----------------------------------------------------------------------------------- */

enum { GFLI_DECODE_BOXES = 32 };

static void gfli_decode_pair(const gfli_decode_task *t, int level, uint64_t rank,
                             gfli_decoded *out) {
    const gfli_decode_opts *o = t->opts;
    const uint64_t index = gfli_rank_index(rank), cell = index / (uint64_t)o->n_classes;
    const float *logits =
        gfli_decode_plane(t->reg, level, t->index) + (size_t)cell * (size_t)t->reg->c;
    float p[GFL_MAX_BINS];
    out->level = level;
    out->y = (int)(cell / (uint64_t)t->cls->w[level]);
    out->x = (int)(cell % (uint64_t)t->cls->w[level]);
    gfli_box_around(out->x, out->y, logits, o->n_bins, p, o->stride[level], o->inclusive,
                    o->width - o->inclusive, o->height - o->inclusive, &out->detection);
    out->detection.score = gfli_rank_score(rank);
    out->detection.label = (int)(index % (uint64_t)o->n_classes);
}

static void gfli_decode_part(void *arg, int task, int slot) {
    const gfli_decode_task *t = (const gfli_decode_task *)arg;
    const int from = task * GFLI_DECODE_BOXES, end = gfli_min(t->n, from + GFLI_DECODE_BOXES);
    int level = 0;
    (void)slot;
    for (int i = from; i < end; i++) {
        while (i >= t->first[level] + t->counts[level]) level++;
        gfli_decode_pair(t, level, t->ranks[level][i - t->first[level]], &t->out[i]);
    }
}

int gfli_candidates(gfl_context *context, const gfli_map *cls, const gfli_map *reg, int index,
                    const gfli_decode_opts *opts, gfli_decoded *out, int *counts, uint64_t *ranks) {
    gfli_decode_task t;
    memset(&t, 0, sizeof t);
    t.cls = cls;
    t.reg = reg;
    t.opts = opts;
    t.index = index;
    t.out = out;
    for (int l = 0; l < cls->levels; l++) {
        t.ranks[l] = ranks;
        ranks += gfli_max_candidates(cls, opts, l);
    }
    gfli_parallel_for(context, cls->levels, gfli_select_level, &t);
    for (int l = 0; l < cls->levels; l++) {
        t.first[l] = t.n;
        t.n += t.counts[l];
        counts[l] = t.counts[l];
    }
    gfli_parallel_for(context, gfli_ceil_div(t.n, GFLI_DECODE_BOXES), gfli_decode_part, &t);
    return t.n;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static size_t gfli_decode_scratch_cpu(const gfli_map *cls, const gfli_decode_opts *opts) {
    return gfli_all_candidates(cls, opts) * (sizeof(uint64_t) + sizeof(gfli_decoded)) +
           (size_t)gfli_most_detections(cls, opts) *
               (sizeof(int) + GFLI_NMS_FLOATS * sizeof(float));
}

/* To the pixels of the original image; boxes without area go (of pixels, each has one).  Returns
 * how many stay. */
static int gfli_rescale_boxes(const gfli_decode_opts *opts, gfli_decoded *boxes, int n) {
    const float x = gfli_rescale_factor(opts->divide, opts->scale_x);
    const float y = gfli_rescale_factor(opts->divide, opts->scale_y);
    int kept = 0;
    for (int i = 0; i < n; i++) {
        gfli_decoded b = boxes[i];
        gfli_rescale_box(&b.detection, x, y, opts->divide);
        if (gfli_has_area(&b.detection, (float)opts->inclusive)) boxes[kept++] = b;
    }
    return kept;
}

static int gfli_decode_image(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                             int index, const gfli_decode_opts *opts, gfli_decoded *out,
                             void *scratch) {
    const size_t most = gfli_all_candidates(cls, opts);
    uint64_t *ranks = (uint64_t *)scratch;
    gfli_decoded *boxes = (gfli_decoded *)(void *)(ranks + most);
    float *moved = (float *)(void *)(boxes + most);
    const int max_keep = gfli_most_detections(cls, opts);
    int *keep = (int *)(void *)(moved + (size_t)max_keep * GFLI_NMS_FLOATS);
    int counts[GFL_LEVELS];
    int n = gfli_candidates(context, cls, reg, index, opts, boxes, counts, ranks);
    n = gfli_rescale_boxes(opts, boxes, n);
    n = gfli_nms(boxes, n, opts, max_keep, keep, ranks, moved);
    for (int i = 0; i < n; i++) out[i] = boxes[keep[i]];
    return n;
}

static void gfli_decode_cpu(gfl_context *context, const gfli_map *cls, const gfli_map *reg,
                            const gfli_decode_opts *opts, const gfli_found *out, void *scratch) {
    const size_t c = (size_t)reg->c;
    for (int image = 0; image < cls->n; image++) {
        const size_t first = (size_t)image * (size_t)out->most;
        const gfli_decoded *at = out->items + first;
        const int n =
            gfli_decode_image(context, cls, reg, image, &opts[image], out->items + first, scratch);
        out->count[image] = n;
        for (int i = 0; i < n && out->logits; i++) {
            const size_t cell = (size_t)at[i].y * (size_t)reg->w[at[i].level] + (size_t)at[i].x;
            memcpy(out->logits + (first + (size_t)i) * c,
                   gfli_decode_plane(reg, at[i].level, image) + cell * c, c * sizeof(float));
        }
    }
}

/* ===============================================================================================
 * src/cpu/backend.c - the CPU as a device, and its table of inference operations
 * ============================================================================================ */

static gfl_status gfli_open_cpu(gfl_context *context, const gfl_context_desc *desc) {
    if (desc->device_index != 0)
        return gfli_error(context, GFL_E_DEVICE, "device_index is %d; the CPU has only index 0",
                          desc->device_index);
    if (desc->precision != GFL_PRECISION_FP32)
        return gfli_error(context, GFL_E_UNSUPPORTED, "the CPU computes in fp32 only");
    GFLI_TRY(gfli_choose_kernels(context, desc->kernel));
    snprintf(context->device_name, sizeof context->device_name, "CPU, %s, %d threads",
             gfli_kernels_of(context)->title, context->n_threads);
    return GFL_OK;
}

static void gfli_close_cpu(gfl_context *context) {
    (void)context;
}

static void gfli_copy_cpu(gfl_context *context, void *to, const void *from, size_t bytes) {
    (void)context;
    memcpy(to, from, bytes);
}

static void gfli_zero_cpu(gfl_context *context, void *to, size_t bytes) {
    (void)context;
    if (bytes > 0) memset(to, 0, bytes);
}

static gfl_status gfli_finish_cpu(gfl_context *context) {
    (void)context;
    return GFL_OK;
}

const gfli_backend gfli_cpu = {
    GFL_ABI,
    GFLI_BACKEND_VERSION,
    "cpu",
    false,
    {
        gfli_open_cpu,
        gfli_close_cpu,
        gfli_alloc,
        gfli_free,
        gfli_alloc,
        gfli_free,
        NULL,
        gfli_copy_cpu,
        gfli_copy_cpu,
        gfli_zero_cpu,
        gfli_finish_cpu,
        NULL,
    },
    NULL,
    {
        gfli_conv_packed_size_cpu,
        gfli_conv_pack_cpu,
        gfli_fold_norm_cpu,
        gfli_conv_prepare_cpu,
        gfli_conv_cpu,
        gfli_max_pool_cpu,
        gfli_upsample_add_cpu,
        gfli_group_norm_cpu,
        gfli_level_scale_cpu,
        gfli_resize_scratch_cpu,
        gfli_resize_cpu,
        gfli_normalise_cpu,
        gfli_decode_scratch_cpu,
        gfli_decode_cpu,
    },
    NULL,
};

/* ===============================================================================================
 * src/model/dialect.c - the table of dialects, and options made from it
 * ============================================================================================ */

static const gfli_dialect gfli_dialects[] = {
    /* name, project, pixel, one_scale, by_location, outside_counts, add_eps, quality_eps, mean_eps,
     * min_weight_sum, warmup_start, warmup_end, bias_lr, bias_decay */
    {"mmdet", "bbox_head.integral.project", 0, false, false, false, false, 1e-6,
     1.1920928955078125e-7, 1, 0.001, 1, 1, 1},
    {"gfocal", "bbox_head.distribution_project.project", 1, true, true, true, true, 1e-7, 0, 0,
     1.0 / 3, 0, 2, 0}};

const gfli_dialect *gfli_dialect_get(gfl_dialect dialect) {
    return &gfli_dialects[dialect == GFL_DIALECT_GFOCAL ? 1 : 0];
}

void gfli_decode_opts_init(const gfl_arch *arch, gfli_decode_opts *out) {
    const gfli_dialect *d = gfli_dialect_get(arch->dialect);
    memset(out, 0, sizeof *out);
    out->n_classes = arch->n_classes;
    out->n_bins = arch->reg_max + 1;
    for (int l = 0; l < GFL_LEVELS; l++) out->stride[l] = gfli_level_stride(l);
    out->inclusive = d->inclusive;
    out->by_location = d->by_location;
    out->divide = d->one_scale;
}

void gfli_assign_opts_init(const gfl_arch *arch, gfli_assign_opts *out) {
    memset(out, 0, sizeof *out);
    for (int l = 0; l < GFL_LEVELS; l++) out->stride[l] = gfli_level_stride(l);
    out->inclusive = gfli_dialect_get(arch->dialect)->inclusive;
}

void gfli_loss_opts_init(const gfl_arch *arch, gfli_loss_opts *out) {
    const gfli_dialect *d = gfli_dialect_get(arch->dialect);
    memset(out, 0, sizeof *out);
    out->n_classes = arch->n_classes;
    out->n_bins = arch->reg_max + 1;
    for (int l = 0; l < GFL_LEVELS; l++) out->stride[l] = gfli_level_stride(l);
    out->inclusive = d->inclusive;
    out->outside_counts = d->outside_counts;
    out->add_eps = d->add_eps;
    out->quality_eps = d->quality_eps;
    out->mean_eps = d->mean_eps;
    out->min_weight_sum = d->min_weight_sum;
    out->share = 1;
}

/* The original's rule, by names: downsample.1 is a batch norm whose name does not say so. */
bool gfli_is_plain_bias(const char *name) {
    const char *end = strrchr(name, '.'), *layer = end;
    if (!end || strcmp(end, ".bias") != 0) return false;
    while (layer > name && layer[-1] != '.') layer--;
    if (strncmp(layer, "bn", 2) != 0 && strncmp(layer, "gn", 2) != 0) return true;
    for (layer += 2; layer < end; layer++)
        if (*layer < '0' || *layer > '9') return true;
    return false;
}

void gfli_box_scale(bool one_scale, int width, int height, int scale_long, int scale_short,
                    double *scale_x, double *scale_y) {
    int w, h;
    gfli_resized_size(width, height, scale_long, scale_short, &w, &h);
    *scale_x = (double)w / width;
    *scale_y = (double)h / height;
    if (one_scale) *scale_x = *scale_y = gfli_resize_factor(width, height, scale_long, scale_short);
}

/* ===============================================================================================
 * src/model/arch.c - architectures: kinds of backbones, presets, defaults and limits; preprocessing
 * ============================================================================================ */

static const gfli_backbone *const gfli_own_backbones[] = {&gfli_resnet, NULL};

const gfli_backbone *const *gfli_backbones(const gfl_context *context) {
    return context && context->backbones ? context->backbones : gfli_own_backbones;
}

const gfli_backbone *gfli_backbone_of(const gfl_context *context, int depth) {
    for (const gfli_backbone *const *b = gfli_backbones(context); *b; b++)
        for (const int *known = (*b)->depths; *known; known++)
            if (*known == depth) return *b;
    return NULL;
}

void gfli_arch_name(const gfl_context *context, const gfl_arch *arch, char out[32]) {
    gfli_backbone_of(context, arch->depth)->name(arch, out);
}

/* ---- presets --------------------------------------------------------------------------------- */

int gfl_arch_count_presets(void) {
    int n = 0;
    for (const gfli_backbone *const *b = gfli_backbones(NULL); *b; b++) n += (*b)->n_presets;
    return n;
}

gfl_status gfl_arch_get_preset(int i, gfl_preset *out) {
    const gfli_backbone *const *b = gfli_backbones(NULL);
    if (out) memset(out, 0, sizeof *out);
    if (!out || i < 0 || i >= gfl_arch_count_presets()) return GFL_E_ARG;
    for (; i >= (*b)->n_presets; b++) i -= (*b)->n_presets;
    (*b)->preset(i, out);
    return gfli_arch_resolve(NULL, &out->arch, &out->arch);
}

gfl_status gfl_arch_find_preset(gfl_context *context, const char *name, gfl_arch *out) {
    gfl_preset preset;
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(context, name);
    GFLI_NOT_NULL(context, out);
    for (int i = 0; gfl_arch_get_preset(i, &preset) == GFL_OK; i++) {
        if (strcmp(name, preset.name) != 0) continue;
        *out = preset.arch;
        return GFL_OK;
    }
    return gfli_error(
        context, GFL_E_ARG,
        "there is no architecture \"%.40s\"; gfl_arch_get_preset lists those that there are", name);
}

/* ---- defaults and limits --------------------------------------------------------------------- */

gfl_status gfli_check_range(gfl_context *context, const char *what, int value, int low, int high) {
    if (value >= low && value <= high) return GFL_OK;
    return gfli_error(context, GFL_E_ARG, "%s is %d; it must be %d..%d", what, value, low, high);
}

void gfli_default(int *value, int when_zero) {
    if (*value == 0) *value = when_zero;
}

static gfl_status gfli_refuse_depth(gfl_context *context, int depth) {
    char known[128] = "";
    size_t n = 0;
    for (const gfli_backbone *const *b = gfli_backbones(context); *b; b++)
        for (const int *d = (*b)->depths; *d && n < sizeof known; d++)
            n += (size_t)snprintf(known + n, sizeof known - n, n ? ", %d" : "%d", *d);
    return gfli_error(context, GFL_E_ARG, "depth is %d; it must be one of %s", depth, known);
}

gfl_status gfli_arch_resolve(gfl_context *context, const gfl_arch *in, gfl_arch *out) {
    gfl_arch a = *in;
    gfli_default(&a.depth, 50);
    gfli_default(&a.fpn_channels, 256);
    gfli_default(&a.head_channels, 256);
    gfli_default(&a.stacked_convs, 4);
    gfli_default(&a.n_classes, 80);
    gfli_default(&a.reg_max, 16);
    const gfli_backbone *backbone = gfli_backbone_of(context, a.depth);
    if (!backbone) return gfli_refuse_depth(context, a.depth);
    GFLI_TRY(backbone->resolve(context, &a));
    GFLI_TRY(gfli_check_range(context, "fpn_channels", a.fpn_channels, 1, 4096));
    GFLI_TRY(gfli_check_range(context, "head_channels", a.head_channels, GFLI_GN_GROUPS, 4096));
    GFLI_TRY(gfli_check_range(context, "stacked_convs", a.stacked_convs, 1, 32));
    GFLI_TRY(gfli_check_range(context, "n_classes", a.n_classes, 1, GFL_MAX_CLASSES));
    GFLI_TRY(gfli_check_range(context, "reg_max", a.reg_max, 1, GFL_MAX_BINS - 1));
    if (a.head_channels % GFLI_GN_GROUPS != 0)
        return gfli_error(context, GFL_E_ARG,
                          "head_channels is %d; it must be a multiple of %d, the groups of its "
                          "group norms",
                          a.head_channels, GFLI_GN_GROUPS);
    if (a.dialect == GFL_DIALECT_DEFAULT) a.dialect = GFL_DIALECT_MMDET;
    if (a.dialect != GFL_DIALECT_MMDET && a.dialect != GFL_DIALECT_GFOCAL)
        return gfli_error(context, GFL_E_ARG,
                          "dialect is %d; it must be GFL_DIALECT_MMDET or GFL_DIALECT_GFOCAL",
                          (int)a.dialect);
    *out = a;
    return GFL_OK;
}

gfl_status gfli_preprocess_resolve(gfl_context *context, const gfl_preprocess *in,
                                   gfl_preprocess *out) {
    static const float mean[3] = {123.675f, 116.28f, 103.53f};
    static const float deviation[3] = {58.395f, 57.12f, 57.375f};
    gfl_preprocess p = *in;
    bool blank = true;
    for (int i = 0; i < 3; i++) blank = blank && p.mean[i] == 0 && p.std[i] == 0;
    for (int i = 0; blank && i < 3; i++) {
        p.mean[i] = mean[p.bgr ? 2 - i : i];
        p.std[i] = deviation[p.bgr ? 2 - i : i];
    }
    for (int i = 0; i < 3; i++) {
        if (!gfli_is_finite((double)p.mean[i]) || !gfli_is_finite((double)p.std[i]) ||
            !(p.std[i] > 0))
            return gfli_error(context, GFL_E_ARG,
                              "channel %d: mean %g and std %g; the mean must be finite and the std "
                              "positive",
                              i, (double)p.mean[i], (double)p.std[i]);
    }
    gfli_default(&p.scale_long, 1333);
    gfli_default(&p.scale_short, p.scale_long < 800 ? p.scale_long : 800);
    GFLI_TRY(gfli_check_range(context, "scale_long", p.scale_long, 1, GFL_MAX_SIDE));
    GFLI_TRY(gfli_check_range(context, "scale_short", p.scale_short, 1, p.scale_long));
    p.bgr = p.bgr != 0;
    *out = p;
    return GFL_OK;
}

double gfli_resize_factor(int width, int height, int scale_long, int scale_short) {
    double by_long = (double)scale_long / gfli_max(width, height);
    double by_short = (double)scale_short / gfli_min(width, height);
    return by_long < by_short ? by_long : by_short;
}

void gfli_resized_size(int width, int height, int scale_long, int scale_short, int *out_width,
                       int *out_height) {
    double s = gfli_resize_factor(width, height, scale_long, scale_short);
    *out_width = gfli_max(1, (int)(width * s + 0.5));
    *out_height = gfli_max(1, (int)(height * s + 0.5));
}

/* ===============================================================================================
 * src/model/network.c - describing a network: its parameters, layers, maps and steps; fresh weights
 * ============================================================================================ */

static gfl_status gfli_refuse_network(gfli_describer *d, const char *what) {
    if (d->status == GFL_OK)
        d->status =
            gfli_error(d->model->context, GFL_E_ARG,
                       "the description of the network is wrong at %s*: %s", d->prefix, what);
    return d->status;
}

/* Room for one more of a table. */
static bool gfli_room(gfli_describer *d, void *table, size_t *capacity, int n, size_t size) {
    if (d->status == GFL_OK)
        d->status = gfli_grow(d->model->context, table, capacity, (size_t)n + 1, size,
                              "tables of a network");
    return d->status == GFL_OK;
}

void gfli_describe_stage(gfli_describer *d, int stage) {
    if (stage < d->stage) gfli_refuse_network(d, "stages must ascend");
    d->stage = stage;
}

void gfli_describe_names(gfli_describer *d, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(d->prefix, sizeof d->prefix, format, list);
    va_end(list);
}

/* ---- parameters and layers ------------------------------------------------------------------- */

/* name + suffix with up to four dimensions (0 ends them); returns the index. */
static int gfli_add_param(gfli_describer *d, const char *name, const char *suffix, gfli_init init,
                          int d0, int d1, int d2, int d3) {
    gfl_model *m = d->model;
    const int dims[4] = {d0, d1, d2, d3};
    char full[128];
    if (!gfli_room(d, &m->params, &d->param_capacity, m->n_params, sizeof *m->params)) return -1;
    gfli_param *p = &m->params[m->n_params];
    memset(p, 0, sizeof *p);
    snprintf(full, sizeof full, "%s%s%s", d->prefix, name, suffix);
    d->status = gfli_strdup(m->context, full, &p->name);
    if (d->status != GFL_OK) return -1;
    p->count = 1;
    for (int i = 0; i < 4 && dims[i] > 0; i++) {
        p->shape[p->rank++] = dims[i];
        p->count *= (size_t)dims[i];
    }
    p->init = init;
    p->stage = d->stage;
    return m->n_params++;
}

/* One that steps read as it is. */
static int gfli_add_direct(gfli_describer *d, const char *name, const char *suffix, gfli_init init,
                           int d0) {
    const int index = gfli_add_param(d, name, suffix, init, d0, 0, 0, 0);
    if (index >= 0) d->model->params[index].direct = true;
    return index;
}

static int gfli_add_statistic(gfli_describer *d, const char *bn, const char *suffix, gfli_init init,
                              int d0) {
    const int index = gfli_add_param(d, bn, suffix, init, d0, 0, 0, 0);
    if (index >= 0) d->model->params[index].is_buffer = true;
    return index;
}

int gfli_add_scale(gfli_describer *d, const char *name) {
    return gfli_add_direct(d, name, "", GFLI_INIT_ONE, 0);
}

int gfli_add_conv(gfli_describer *d, const char *conv, gfli_init init, int in_c, int out_c,
                  int kernel, int stride, int groups) {
    gfl_model *m = d->model;
    if (d->status == GFL_OK && (in_c % groups != 0 || out_c % groups != 0))
        gfli_refuse_network(d, "groups must divide the channels");
    if (d->status != GFL_OK) return -1;
    const int weight =
        gfli_add_param(d, conv, ".weight", init, out_c, in_c / groups, kernel, kernel);
    if (!gfli_room(d, &m->layers, &d->layer_capacity, m->n_layers, sizeof *m->layers)) return -1;
    gfli_layer *layer = &m->layers[m->n_layers];
    memset(layer, 0, sizeof *layer);
    layer->shape.in_c = in_c;
    layer->shape.out_c = out_c;
    layer->shape.kernel = kernel;
    layer->shape.stride = stride;
    layer->shape.pad = kernel / 2;
    layer->shape.groups = groups;
    layer->weight = weight;
    layer->offset = layer->bias = -1;
    layer->bn_gamma = layer->bn_beta = layer->bn_mean = layer->bn_var = -1;
    layer->gn_gamma = layer->gn_beta = -1;
    layer->stage = d->stage;
    return m->n_layers++;
}

static void gfli_add_bn(gfli_describer *d, int layer, const char *bn, bool zero_gamma) {
    const gfli_init first = zero_gamma ? GFLI_INIT_ZERO : GFLI_INIT_ONE;
    if (d->status != GFL_OK) return;
    gfli_layer *l = &d->model->layers[layer];
    const int c = l->shape.out_c;
    l->bn_gamma = gfli_add_param(d, bn, ".weight", first, c, 0, 0, 0);
    l->bn_beta = gfli_add_param(d, bn, ".bias", GFLI_INIT_ZERO, c, 0, 0, 0);
    l->bn_mean = gfli_add_statistic(d, bn, ".running_mean", GFLI_INIT_ZERO, c);
    l->bn_var = gfli_add_statistic(d, bn, ".running_var", GFLI_INIT_ONE, c);
    if (d->status == GFL_OK) d->model->params[l->bn_var].is_variance = true;
}

int gfli_add_conv_bn(gfli_describer *d, const char *conv, const char *bn, bool zero_gamma, int in_c,
                     int out_c, int kernel, int stride, int groups) {
    const int layer =
        gfli_add_conv(d, conv, GFLI_INIT_KAIMING, in_c, out_c, kernel, stride, groups);
    gfli_add_bn(d, layer, bn, zero_gamma);
    return layer;
}

int gfli_add_conv_bias(gfli_describer *d, const char *conv, gfli_init init, gfli_init bias_init,
                       int in_c, int out_c, int kernel, int stride) {
    const int layer = gfli_add_conv(d, conv, init, in_c, out_c, kernel, stride, 1);
    const int bias = gfli_add_direct(d, conv, ".bias", bias_init, out_c);
    if (d->status == GFL_OK) d->model->layers[layer].bias = bias;
    return layer;
}

int gfli_add_deform_bn(gfli_describer *d, const char *conv, const char *bn, int values, int width,
                       int stride, int groups) {
    char name[64];
    const int layer = gfli_add_conv(d, conv, GFLI_INIT_DEFORM, width, width, 3, stride, groups);
    snprintf(name, sizeof name, "%s.conv_offset", conv);
    const int offset =
        gfli_add_conv_bias(d, name, GFLI_INIT_ZERO, GFLI_INIT_ZERO, width, values * 9, 3, stride);
    if (d->status == GFL_OK) d->model->layers[layer].offset = offset;
    gfli_add_bn(d, layer, bn, false);
    return layer;
}

int gfli_add_conv_gn(gfli_describer *d, const char *conv, const char *gn, int in_c, int out_c) {
    const int layer = gfli_add_conv(d, conv, GFLI_INIT_NORMAL, in_c, out_c, 3, 1, 1);
    const int gamma = gfli_add_direct(d, gn, ".weight", GFLI_INIT_ONE, out_c);
    const int beta = gfli_add_direct(d, gn, ".bias", GFLI_INIT_ZERO, out_c);
    if (d->status != GFL_OK) return -1;
    d->model->layers[layer].gn_gamma = gamma;
    d->model->layers[layer].gn_beta = beta;
    return layer;
}

/* ---- maps and steps -------------------------------------------------------------------------- */

static int gfli_add_map(gfli_describer *d, int c, int stride, int over) {
    gfli_network *net = &d->model->network;
    if (!gfli_room(d, &net->maps, &d->map_capacity, net->n_maps, sizeof *net->maps)) return 0;
    gfli_net_map *map = &net->maps[net->n_maps];
    memset(map, 0, sizeof *map);
    map->c = c;
    map->stride = stride;
    map->parent = -1;
    map->over = over;
    return net->n_maps++;
}

int gfli_map_channels(const gfli_describer *d, int map) {
    return d->status == GFL_OK ? d->model->network.maps[map].c : 0;
}

void gfli_name_map(gfli_describer *d, int map, const char *name) {
    if (d->status == GFL_OK) d->model->network.maps[map].name = name;
}

int gfli_add_pyramid(gfli_describer *d, int c, const char *name) {
    const int map = gfli_add_map(d, c, 0, -1);
    gfli_name_map(d, map, name);
    return map;
}

int gfli_add_level(gfli_describer *d, int pyramid, int level, const char *name) {
    const int map = gfli_add_map(d, gfli_map_channels(d, pyramid), 8 << level, -1);
    if (d->status != GFL_OK) return 0;
    d->model->network.maps[map].parent = pyramid;
    d->model->network.maps[map].level = level;
    d->model->network.maps[map].name = name;
    return map;
}

static void gfli_read_map(gfli_describer *d, int map) {
    if (d->status == GFL_OK && map >= 0 && d->model->network.maps[map].taken)
        gfli_refuse_network(d, "a step reads a map whose place an earlier one has taken");
}

static gfli_step *gfli_add_step(gfli_describer *d, gfli_op op, int in, int out) {
    gfli_network *net = &d->model->network;
    gfli_read_map(d, in);
    if (op == GFLI_OP_UPSAMPLE_ADD) gfli_read_map(d, out);
    if (!gfli_room(d, &net->steps, &d->step_capacity, net->n_steps, sizeof *net->steps))
        return NULL;
    gfli_step *step = &net->steps[net->n_steps++];
    memset(step, 0, sizeof *step);
    step->op = op;
    step->in = in;
    step->out = out;
    step->residual = step->offset = step->pair = -1;
    step->layer = step->gamma = step->beta = step->scale = step->stats = -1;
    step->twin.in = step->twin.out = step->twin.layer = step->twin.stats = -1;
    step->stage = d->stage;
    return step;
}

/* A step whose output is like its input and takes its place. */
static gfli_step *gfli_add_step_over(gfli_describer *d, gfli_op op, int in) {
    if (d->status != GFL_OK) return NULL;
    const int out =
        gfli_add_map(d, gfli_map_channels(d, in), d->model->network.maps[in].stride, in);
    gfli_step *step = gfli_add_step(d, op, in, out);
    if (step) d->model->network.maps[in].taken = true;
    return step;
}

/* Does what a layer computes from `in` have the channels of `in` and the cells of `out`? */
static bool gfli_layer_fits(const gfli_describer *d, int layer, int in, int out) {
    const gfli_conv_shape *s = &d->model->layers[layer].shape;
    const gfli_net_map *from = &d->model->network.maps[in], *to = &d->model->network.maps[out];
    return s->in_c == from->c && s->out_c == to->c && s->stride * from->stride == to->stride;
}

/* out -1: a map of its own.  The offsets of a deformable convolution come before it. */
static int gfli_run_any_conv(gfli_describer *d, int layer, int in, int residual, bool relu,
                             int out) {
    if (d->status != GFL_OK) return 0;
    const gfli_layer *l = &d->model->layers[layer];
    const int offset = l->offset < 0 ? -1 : gfli_run_conv(d, l->offset, in, false);
    if (out < 0 && d->status == GFL_OK)
        out = gfli_add_map(d, l->shape.out_c, d->model->network.maps[in].stride * l->shape.stride,
                           residual);
    gfli_read_map(d, residual);
    gfli_step *step = gfli_add_step(d, offset < 0 ? GFLI_OP_CONV : GFLI_OP_DEFORM_CONV, in, out);
    if (!step) return 0;
    step->residual = residual;
    step->offset = offset;
    step->layer = layer;
    step->relu = relu;
    if (in == residual || !gfli_layer_fits(d, layer, in, out) ||
        (residual >= 0 && !gfli_layer_fits(d, layer, in, residual)))
        gfli_refuse_network(d, "a convolution does not fit its maps");
    if (residual >= 0) d->model->network.maps[residual].taken = true;
    return out;
}

int gfli_run_conv(gfli_describer *d, int layer, int in, bool relu) {
    return gfli_run_any_conv(d, layer, in, -1, relu, -1);
}

int gfli_run_residual_conv(gfli_describer *d, int layer, int in, int residual) {
    return gfli_run_any_conv(d, layer, in, residual, true, -1);
}

void gfli_run_level_conv(gfli_describer *d, int layer, int in, int level) {
    (void)gfli_run_any_conv(d, layer, in, -1, false, level);
}

int gfli_run_max_pool(gfli_describer *d, int in) {
    if (d->status != GFL_OK) return 0;
    const gfli_net_map from = d->model->network.maps[in];
    const int out = gfli_add_map(d, from.c, 2 * from.stride, -1);
    (void)gfli_add_step(d, GFLI_OP_MAX_POOL, in, out);
    return out;
}

void gfli_run_upsample_add(gfli_describer *d, int in, int out) {
    if (d->status != GFL_OK) return;
    const gfli_net_map *from = &d->model->network.maps[in], *to = &d->model->network.maps[out];
    if (from->c != to->c || from->stride != 2 * to->stride)
        gfli_refuse_network(d, "maps to be added do not fit");
    (void)gfli_add_step(d, GFLI_OP_UPSAMPLE_ADD, in, out);
}

int gfli_run_group_norm(gfli_describer *d, int layer, int in) {
    gfli_step *step = gfli_add_step_over(d, GFLI_OP_GROUP_NORM, in);
    if (!step) return 0;
    step->relu = true;
    step->gamma = d->model->layers[layer].gn_gamma;
    step->beta = d->model->layers[layer].gn_beta;
    return step->out;
}

int gfli_run_level_scale(gfli_describer *d, int in, int scale) {
    gfli_step *step = gfli_add_step_over(d, GFLI_OP_LEVEL_SCALE, in);
    if (!step) return 0;
    step->scale = scale;
    return step->out;
}

/* ---- the whole ------------------------------------------------------------------------------- */

gfl_status gfli_model_describe(gfl_model *model) {
    static const char *const names[] = {"C2", "C3", "C4", "C5"};
    int features[4] = {0, 0, 0, 0};
    gfli_describer d;
    memset(&d, 0, sizeof d);
    d.model = model;
    model->network.input = gfli_add_map(&d, 3, 1, -1);
    gfli_name_map(&d, model->network.input, "input");
    gfli_backbone_of(model->context, model->arch.depth)->describe(&d, features);
    for (int i = 0; i < 4; i++) {
        gfli_name_map(&d, features[i], names[i]);
        if (d.status == GFL_OK && model->network.maps[features[i]].stride != 4 << i)
            gfli_refuse_network(&d, "the strides of the stages must be 4, 8, 16 and 32");
    }
    gfli_describe_stage(&d, GFLI_STAGE_HEAD);
    gfli_describe_head(&d, gfli_describe_neck(&d, features));
    return d.status;
}

void gfli_model_undescribe(gfl_model *model) {
    for (int i = 0; i < model->n_params; i++) gfli_free(model->context, model->params[i].name);
    gfli_free(model->context, model->params);
    gfli_free(model->context, model->layers);
    gfli_free(model->context, model->network.maps);
    gfli_free(model->context, model->network.steps);
}

int gfli_model_find(const gfl_model *model, const char *name) {
    for (int i = 0; i < model->n_params; i++)
        if (strcmp(model->params[i].name, name) == 0) return i;
    return -1;
}

void gfli_param_init(gfli_param *param, uint64_t seed, int index, float *out) {
    enum { PURPOSE = 0x696e6974 };
    gfli_rng rng = gfli_rng_make(seed, 0, (uint64_t)index, PURPOSE);
    double area = (double)(param->shape[2] * param->shape[3]);
    double fan_in = (double)param->shape[1] * area, fan_out = (double)param->shape[0] * area;
    double constant = 0, spread = 0;
    if (param->init == GFLI_INIT_ONE) constant = 1;
    if (param->init == GFLI_INIT_PRIOR) constant = -(log)((1 - 0.01) / 0.01);
    if (param->init == GFLI_INIT_KAIMING) spread = (sqrt)(2 / fan_out);
    if (param->init == GFLI_INIT_XAVIER) spread = (sqrt)(6 / (fan_in + fan_out));
    if (param->init == GFLI_INIT_NORMAL) spread = 0.01;
    if (param->init == GFLI_INIT_DEFORM) spread = 1 / (sqrt)((double)param->shape[0] * area);
    for (size_t i = 0; i < param->count; i++) {
        if (spread == 0)
            out[i] = (float)constant;
        else if (param->init == GFLI_INIT_XAVIER || param->init == GFLI_INIT_DEFORM)
            out[i] = (float)(spread * (2 * gfli_rng_uniform(&rng) - 1));
        else
            out[i] = (float)(spread * gfli_rng_normal(&rng));
    }
    param->loaded = false;
}

/* ===============================================================================================
 * src/model/resnet.c - the backbones ResNet and ResNeXt, plain or with deformable convolutions
 * ============================================================================================ */

/* Residual blocks of a depth, stage by stage. */
typedef struct gfli_depth {
    int depth;
    bool bottleneck;
    int blocks[4];
} gfli_depth;

static const gfli_depth gfli_depths[] = {{18, false, {2, 2, 2, 2}},
                                         {34, false, {3, 4, 6, 3}},
                                         {50, true, {3, 4, 6, 3}},
                                         {101, true, {3, 4, 23, 3}}};

static const gfli_depth *gfli_resnet_depth(int depth) {
    for (size_t i = 0; i < GFLI_COUNT(gfli_depths); i++)
        if (gfli_depths[i].depth == depth) return &gfli_depths[i];
    return NULL;
}

static int gfli_stage_planes(const gfl_arch *arch, int stage) {
    return arch->base_channels << (stage - 1);
}

static int gfli_stage_out(const gfl_arch *arch, int stage) {
    int planes = gfli_stage_planes(arch, stage);
    return gfli_resnet_depth(arch->depth)->bottleneck ? 4 * planes : planes;
}

static int gfli_stage_width(const gfl_arch *arch, int stage) {
    if (arch->groups == 1) return gfli_stage_planes(arch, stage);
    return (arch->base_width << (stage - 1)) * arch->groups;
}

static bool gfli_is_deformable(const gfl_arch *arch, int stage) {
    return arch->deform > 0 && (arch->deform_stages >> (stage - 1) & 1) != 0;
}

/* ---- architectures --------------------------------------------------------------------------- */

enum { GFLI_C3_C5 = GFL_C3 | GFL_C4 | GFL_C5, GFLI_C4_C5 = GFL_C4 | GFL_C5 };

/* Nobody has published a GFL model of 32x8d, and 32x4d's AP is not its. */
static const struct {
    const char *name;
    int depth, groups, base_width, deform, deform_stages;
    double ap;
    const char *published;
} gfli_presets[] = {
    {"r18", 18, 1, 0, 0, 0, 35.8, "LD, 1x"},
    {"r34", 34, 1, 0, 0, 0, 38.9, "LD, 1x"},
    {"r50", 50, 1, 0, 0, 0, 42.9, "mmdetection, 2x"},
    {"r101", 101, 1, 0, 0, 0, 44.7, "mmdetection, 2x"},
    {"r101-dcnv1", 101, 1, 0, 1, GFLI_C3_C5, 47.1, "mmdetection, 2x"},
    {"r101-dcnv2", 101, 1, 0, 2, GFLI_C3_C5, 47.2, "GFocal, 2x"},
    {"x101-32x4d", 101, 32, 4, 0, 0, 45.9, "mmdetection, 2x"},
    {"x101-32x8d", 101, 32, 8, 0, 0, 0, ""},
    {"x101-32x4d-dcnv1", 101, 32, 4, 1, GFLI_C4_C5, 48.1, "mmdetection, 2x"},
    {"x101-32x4d-dcnv2", 101, 32, 4, 2, GFLI_C3_C5, 48.3, "GFocal, 2x"},
    {"x101-32x8d-dcnv2", 101, 32, 8, 2, GFLI_C3_C5, 0, ""},
};

static void gfli_resnet_preset(int i, gfl_preset *out) {
    out->name = gfli_presets[i].name;
    out->ap = gfli_presets[i].ap;
    out->published = gfli_presets[i].published;
    out->arch.depth = gfli_presets[i].depth;
    out->arch.groups = gfli_presets[i].groups;
    out->arch.base_width = gfli_presets[i].base_width;
    out->arch.deform = gfli_presets[i].deform;
    out->arch.deform_stages = gfli_presets[i].deform_stages;
}

static void gfli_resnet_name(const gfl_arch *arch, char out[32]) {
    const char *deform = arch->deform == 2 ? "-DCNv2" : arch->deform == 1 ? "-DCNv1" : "";
    if (arch->groups == 1)
        snprintf(out, 32, "R%d%s", arch->depth, deform);
    else
        snprintf(out, 32, "X%d-%dx%dd%s", arch->depth, arch->groups, arch->base_width, deform);
}

static void gfli_resnet_file_name(const gfl_arch *arch, char out[48]) {
    if (arch->groups > 1)
        snprintf(out, 48, "resnext%d_%dx%dd", arch->depth, arch->groups, arch->base_width);
    else
        snprintf(out, 48, "resnet%d", arch->depth);
}

static gfl_status gfli_resnet_resolve(gfl_context *context, gfl_arch *a) {
    const bool bottleneck = gfli_resnet_depth(a->depth)->bottleneck;
    gfli_default(&a->groups, 1);
    gfli_default(&a->base_width, 4);
    gfli_default(&a->base_channels, 64);
    GFLI_TRY(gfli_check_range(context, "groups", a->groups, 1, 256));
    GFLI_TRY(gfli_check_range(context, "base_width", a->base_width, 1, 256));
    GFLI_TRY(gfli_check_range(context, "base_channels", a->base_channels, 1, 1024));
    if (a->groups > 1 && !bottleneck)
        return gfli_error(context, GFL_E_ARG,
                          "groups is %d with depth %d; only depths 50 and 101 can be grouped",
                          a->groups, a->depth);
    if (a->groups == 1) a->base_width = 0;
    GFLI_TRY(gfli_check_range(context, "deform", a->deform, 0, 2));
    GFLI_TRY(gfli_check_range(context, "deform_stages", a->deform_stages, 0, 15));
    GFLI_TRY(gfli_check_range(context, "style", (int)a->style, 0, (int)GFL_STYLE_CAFFE));
    if (a->deform > 0) gfli_default(&a->deform_stages, GFL_C3 | GFL_C4 | GFL_C5);
    if (a->deform == 0) a->deform_stages = 0;
    if ((a->deform > 0 || a->style == GFL_STYLE_CAFFE) && !bottleneck)
        return gfli_error(context, GFL_E_ARG,
                          "depth %d has no bottlenecks; only those of depths 50 and 101 can be "
                          "deformable or of caffe style",
                          a->depth);
    if (a->style == GFL_STYLE_DEFAULT) a->style = GFL_STYLE_PYTORCH;
    return GFL_OK;
}

/* ---- description ----------------------------------------------------------------------------- */

/* One residual block; the shortcut is computed late, when the branch has become small. */
static int gfli_describe_block(gfli_describer *d, int stage, int block, int in) {
    const gfl_arch *arch = &d->model->arch;
    const bool bottleneck = gfli_resnet_depth(arch->depth)->bottleneck;
    const int in_c = gfli_map_channels(d, in), out_c = gfli_stage_out(arch, stage);
    const int width = gfli_stage_width(arch, stage), stride = stage > 1 && block == 0 ? 2 : 1;
    const bool caffe = arch->style == GFL_STYLE_CAFFE;
    const int first = caffe ? stride : 1, second = caffe ? 1 : stride;
    int conv[3] = {0, 0, 0}, last = 1, x = in;
    gfli_describe_names(d, "backbone.layer%d.%d.", stage, block);
    if (!bottleneck) {
        conv[0] = gfli_add_conv_bn(d, "conv1", "bn1", false, in_c, width, 3, stride, 1);
        conv[1] = gfli_add_conv_bn(d, "conv2", "bn2", true, width, width, 3, 1, 1);
    } else {
        conv[0] = gfli_add_conv_bn(d, "conv1", "bn1", false, in_c, width, 1, first, 1);
        conv[1] =
            gfli_is_deformable(arch, stage)
                ? gfli_add_deform_bn(d, "conv2", "bn2", arch->deform + 1, width, second,
                                     arch->groups)
                : gfli_add_conv_bn(d, "conv2", "bn2", false, width, width, 3, second, arch->groups);
        conv[last = 2] = gfli_add_conv_bn(d, "conv3", "bn3", true, width, out_c, 1, 1, 1);
    }
    int down = -1;
    if (block == 0 && (stride != 1 || in_c != out_c))
        down =
            gfli_add_conv_bn(d, "downsample.0", "downsample.1", false, in_c, out_c, 1, stride, 1);
    for (int i = 0; i < last; i++) x = gfli_run_conv(d, conv[i], x, true);
    return gfli_run_residual_conv(d, conv[last], x,
                                  down < 0 ? in : gfli_run_conv(d, down, in, false));
}

static void gfli_describe_resnet(gfli_describer *d, int features[4]) {
    const gfl_arch *arch = &d->model->arch;
    const gfli_depth *depth = gfli_resnet_depth(arch->depth);
    gfli_describe_names(d, "backbone.");
    const int stem = gfli_add_conv_bn(d, "conv1", "bn1", false, 3, arch->base_channels, 7, 2, 1);
    int x = gfli_run_max_pool(d, gfli_run_conv(d, stem, d->model->network.input, true));
    gfli_name_map(d, x, "stem");
    for (int stage = 1; stage <= 4; stage++) {
        gfli_describe_stage(d, stage);
        for (int block = 0; block < depth->blocks[stage - 1]; block++)
            x = gfli_describe_block(d, stage, block, x);
        features[stage - 1] = x;
    }
}

/* ---- files ----------------------------------------------------------------------------------- */

/* The depth whose stages are the file's, as far as those go. */
static gfl_status gfli_deduce_depth(gfli_weights *w, gfl_arch *arch, int *stages) {
    bool bottleneck = false;
    int blocks[4], n_fitting = 0;
    *stages = 0;
    for (int i = 0; i < w->n_entries; i++)
        bottleneck = bottleneck || (strncmp(w->entries[i].name, "backbone.layer", 14) == 0 &&
                                    gfli_ends_with(w->entries[i].name, ".conv3.weight"));
    for (int stage = 1; stage <= 4; stage++) {
        char before[32];
        snprintf(before, sizeof before, "backbone.layer%d.", stage);
        blocks[stage - 1] = gfli_count_numbered(w, before, ".conv1.weight");
        if (blocks[stage - 1] > 0 && *stages == stage - 1) *stages = stage;
    }
    for (size_t i = 0; i < GFLI_COUNT(gfli_depths) && *stages > 0; i++) {
        const gfli_depth *d = &gfli_depths[i];
        if (d->bottleneck != bottleneck ||
            memcmp(d->blocks, blocks, (size_t)*stages * sizeof *blocks) != 0)
            continue;
        arch->depth = d->depth;
        n_fitting++;
    }
    if (n_fitting == 1) return GFL_OK;
    if (n_fitting > 1 || *stages == 0)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the tensor backbone.layer%d.0.conv1.weight is missing, and the "
                          "others do not tell the depth",
                          w->blob.path, *stages + 1);
    return gfli_error(w->context, GFL_E_UNSUPPORTED,
                      "%s: its stages have %d, %d, %d and %d %s blocks; only ResNet-18, 34, 50 and "
                      "101 are supported",
                      w->blob.path, blocks[0], blocks[1], blocks[2], blocks[3],
                      bottleneck ? "bottleneck" : "basic");
}

/* Groups and their width from the first 3x3 of a bottleneck; the other stages follow from it. */
static gfl_status gfli_deduce_groups(gfli_weights *w, gfl_arch *arch) {
    static const char name[] = "backbone.layer1.0.conv2.weight";
    int width, per_group;
    arch->groups = 1;
    if (!gfli_resnet_depth(arch->depth)->bottleneck) return GFL_OK;
    GFLI_TRY(gfli_deduce_dim(w, name, 0, &width));
    GFLI_TRY(gfli_deduce_dim(w, name, 1, &per_group));
    if (width % per_group != 0)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: %s has %d filters of %d channels, which do not make whole groups",
                          w->blob.path, name, width, per_group);
    arch->groups = width / per_group;
    if (arch->groups > 1) arch->base_width = per_group;
    if (arch->groups > 1 || width == arch->base_channels) return GFL_OK;
    return gfli_error(w->context, GFL_E_UNSUPPORTED,
                      "%s: %s has %d filters of all %d channels; without groups the stem of %d "
                      "channels (backbone.conv1.weight) asks for %d: wide ResNets are not "
                      "supported",
                      w->blob.path, name, width, per_group, arch->base_channels,
                      arch->base_channels);
}

/* 1 or 2, by the channels of one offset convolution. */
static gfl_status gfli_deduce_version(gfli_weights *w, const gfli_tensor *t, int *version) {
    *version = t->rank == 4 && t->shape[0] == 18 ? 1 : t->rank == 4 && t->shape[0] == 27 ? 2 : 0;
    if (*version) return GFL_OK;
    return gfli_error(w->context, GFL_E_UNSUPPORTED,
                      "%s: %s has shape %s; an offset convolution has 18 filters (DCN v1) or 27 "
                      "(v2)",
                      w->blob.path, t->name, gfli_shape(t->rank, t->shape).text);
}

/* Version and stages of the deformable convolutions; told holds the tensor that told first. */
static gfl_status gfli_deduce_deform(gfli_weights *w, gfl_arch *arch, int stages) {
    const gfli_depth *depth = gfli_resnet_depth(arch->depth);
    const gfli_tensor *told = NULL;
    for (int stage = 1; stage <= stages; stage++) {
        const gfli_tensor *with = NULL;
        int without = -1, version;
        for (int block = 0; block < depth->blocks[stage - 1]; block++) {
            char name[64];
            snprintf(name, sizeof name, "backbone.layer%d.%d.conv2.conv_offset.weight", stage,
                     block);
            const gfli_tensor *t = gfli_weights_find(w, name);
            if (!t) without = block;
            if (!t) continue;
            GFLI_TRY(gfli_deduce_version(w, t, &version));
            if (told && version != arch->deform)
                return gfli_error(w->context, GFL_E_MISMATCH,
                                  "%s: %s is of DCN v%d, %s of v%d; one model has one version",
                                  w->blob.path, told->name, arch->deform, t->name, version);
            arch->deform = version;
            told = with = t;
        }
        if (with && without >= 0)
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: %s is there, but backbone.layer%d.%d.conv2.conv_offset.weight "
                              "is not; the blocks of a stage are deformable either all or none",
                              w->blob.path, with->name, stage, without);
        if (with) arch->deform_stages |= 1 << (stage - 1);
    }
    return GFL_OK;
}

static gfl_status gfli_resnet_deduce(gfli_weights *w, gfl_arch *arch, int *stages) {
    int there;
    GFLI_TRY(gfli_deduce_depth(w, arch, &there));
    GFLI_TRY(gfli_deduce_dim(w, gfli_resnet.stem, 0, &arch->base_channels));
    GFLI_TRY(gfli_deduce_groups(w, arch));
    GFLI_TRY(gfli_deduce_deform(w, arch, there));
    if (stages) *stages = there;
    if (stages || there == 4) return GFL_OK;
    return gfli_error(w->context, GFL_E_MISMATCH,
                      "%s: the tensor backbone.layer%d.0.conv1.weight is missing", w->blob.path,
                      there + 1);
}

static gfl_status gfli_resnet_compare(const gfli_weights *w, const gfl_backbone_info *b,
                                      const gfl_arch *m) {
    if (b->arch.depth != m->depth || b->arch.groups != m->groups ||
        b->arch.base_width != m->base_width || b->arch.base_channels != m->base_channels) {
        char file[32], wanted[32];
        gfli_resnet_name(&b->arch, file);
        gfli_resnet_name(m, wanted);
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the backbone is %s with a stem of %d channels, but the model is %s "
                          "with %d; create the model that gfl_backbone_describe describes",
                          w->blob.path, file, b->arch.base_channels, wanted, m->base_channels);
    }
    if (b->arch.deform &&
        (b->arch.deform != m->deform || b->arch.deform_stages != m->deform_stages))
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the backbone has deformable convolutions of version %d in stages "
                          "%d, but the model has version %d in stages %d; create the model that "
                          "gfl_backbone_describe describes",
                          w->blob.path, b->arch.deform, b->arch.deform_stages, m->deform,
                          m->deform_stages);
    if (b->style == GFL_ORIGIN_FILE && b->arch.style != m->style &&
        gfli_resnet_depth(m->depth)->bottleneck)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the backbone is of %s style, but the model is of %s style; create "
                          "the model with the arch.style that gfl_backbone_describe gives",
                          w->blob.path, gfli_style_name(&b->arch), gfli_style_name(m));
    return GFL_OK;
}

static const int gfli_resnet_depths[] = {18, 34, 50, 101, 0};

static const char *const gfli_resnet_before_depth[] = {"R", "X", "resnet", "resnext", NULL};

/* Of bare backbones: torchvision's, timm's, OpenMMLab's. */
static const gfli_name_rule gfli_resnet_rules[] = {
    {"backbone.body.", "backbone.", false}, /* torchvision's detectors */
    {"conv1.", "backbone.conv1.", false},
    {"bn1.", "backbone.bn1.", false},
    {"layer1.", "backbone.layer1.", false},
    {"layer2.", "backbone.layer2.", false},
    {"layer3.", "backbone.layer3.", false},
    {"layer4.", "backbone.layer4.", false},
    {".conv2_offset.", ".conv2.conv_offset.", true}, /* mmdetection before 1.0 */
    {NULL, NULL, false},
};

static const gfli_relative gfli_resnet_relatives[] = {
    {"backbone.gn1.", "", "a backbone with group norm"},
    {"backbone.stem.", "", "a ResNet with a deep stem"},
    {NULL, NULL, NULL},
};

static const gfli_config_row gfli_resnet_config[] = {
    {"model.backbone.type", "ResNet|ResNeXt"},
    {"model.backbone.num_stages", "4"},
    {"model.backbone.strides", "[1, 2, 2, 2]"},
    {"model.backbone.dilations", "[1, 1, 1, 1]"},
    {"model.backbone.style", "pytorch|caffe"},
    {"model.backbone.deep_stem", "False"},
    {"model.backbone.avg_down", "False"},
    {"model.backbone.conv_cfg.type", "Conv2d|Conv"},
    {"model.backbone.norm_cfg.type", "BN|BN2d|SyncBN|MMSyncBN"},
    {"model.backbone.norm_cfg.eps", "1e-05"},
    {NULL, NULL},
};

const gfli_backbone gfli_resnet = {"a ResNet",
                                   gfli_resnet_depths,
                                   gfli_resnet_resolve,
                                   (int)GFLI_COUNT(gfli_presets),
                                   gfli_resnet_preset,
                                   gfli_resnet_name,
                                   gfli_resnet_file_name,
                                   gfli_describe_resnet,
                                   "backbone.conv1.weight",
                                   "backbone.layer",
                                   gfli_resnet_before_depth,
                                   gfli_resnet_rules,
                                   gfli_resnet_relatives,
                                   gfli_resnet_config,
                                   gfli_resnet_deduce,
                                   gfli_resnet_compare};

/* ===============================================================================================
 * src/model/fpn.c - the neck: a pyramid of five levels from the last three stages (spec 2)
 * ============================================================================================ */

int gfli_describe_neck(gfli_describer *d, const int features[4]) {
    static const char *const names[] = {"P3", "P4", "P5", "P6", "P7"};
    const int c = d->model->arch.fpn_channels;
    int layer[3], lateral[3], conv[GFL_LEVELS], level[GFL_LEVELS];
    for (int i = 0; i < 3; i++) {
        gfli_describe_names(d, "neck.lateral_convs.%d.", i);
        layer[i] = gfli_add_conv_bias(d, "conv", GFLI_INIT_XAVIER, GFLI_INIT_ZERO,
                                      gfli_map_channels(d, features[i + 1]), c, 1, 1);
    }
    for (int i = 0; i < GFL_LEVELS; i++) {
        gfli_describe_names(d, "neck.fpn_convs.%d.", i);
        conv[i] =
            gfli_add_conv_bias(d, "conv", GFLI_INIT_XAVIER, GFLI_INIT_ZERO, c, c, 3, i < 3 ? 1 : 2);
    }
    for (int i = 0; i < 3; i++) lateral[i] = gfli_run_conv(d, layer[i], features[i + 1], false);
    for (int i = 2; i > 0; i--) gfli_run_upsample_add(d, lateral[i], lateral[i - 1]);
    const int pyramid = gfli_add_pyramid(d, c, "P");
    for (int i = 0; i < GFL_LEVELS; i++) {
        level[i] = gfli_add_level(d, pyramid, i, names[i]);
        gfli_run_level_conv(d, conv[i], i < 3 ? lateral[i] : level[i - 1], level[i]);
    }
    return pyramid;
}

gfl_status gfli_deduce_neck(gfli_weights *w, gfl_arch *arch) {
    return gfli_deduce_dim(w, "neck.lateral_convs.0.conv.weight", 0, &arch->fpn_channels);
}

/* ===============================================================================================
 * src/model/head.c - the head: towers of classes and boxes, the same for every level (spec 3)
 * ============================================================================================ */

/* The layers of a tower are consecutive; returns the first. */
static int gfli_add_tower(gfli_describer *d, const char *name) {
    const gfl_arch *arch = &d->model->arch;
    const int first = d->model->n_layers;
    for (int i = 0; i < arch->stacked_convs; i++) {
        gfli_describe_names(d, "bbox_head.%s.%d.", name, i);
        (void)gfli_add_conv_gn(d, "conv", "gn", i == 0 ? arch->fpn_channels : arch->head_channels,
                               arch->head_channels);
    }
    return first;
}

static int gfli_run_tower(gfli_describer *d, int first, int last, int x) {
    for (int i = 0; i < d->model->arch.stacked_convs; i++)
        x = gfli_run_group_norm(d, first + i, gfli_run_conv(d, first + i, x, false));
    return gfli_run_conv(d, last, x, false);
}

void gfli_describe_head(gfli_describer *d, int pyramid) {
    const gfl_arch *arch = &d->model->arch;
    gfli_network *net = &d->model->network;
    const int c = arch->head_channels, sides = 4 * (arch->reg_max + 1);
    const int classes = gfli_add_tower(d, "cls_convs"), boxes = gfli_add_tower(d, "reg_convs");
    gfli_describe_names(d, "bbox_head.");
    net->classifier = gfli_add_conv_bias(d, "gfl_cls", GFLI_INIT_NORMAL, GFLI_INIT_PRIOR, c,
                                         arch->n_classes, 3, 1);
    const int reg =
        gfli_add_conv_bias(d, "gfl_reg", GFLI_INIT_NORMAL, GFLI_INIT_ZERO, c, sides, 3, 1);
    for (int i = 0; i < GFL_LEVELS; i++) {
        char name[16];
        snprintf(name, sizeof name, "scales.%d.scale", i);
        const int scale = gfli_add_scale(d, name);
        if (i == 0) net->scale = scale;
    }
    const int first = net->n_steps;
    net->cls = gfli_run_tower(d, classes, net->classifier, pyramid);
    const int between = net->n_steps;
    const int x = gfli_run_tower(d, boxes, reg, pyramid);
    for (int i = first; i < between && d->status == GFL_OK; i++) {
        net->steps[i].pair = i + between - first;
        net->steps[i + between - first].pair = i;
    }
    net->reg = gfli_run_level_scale(d, x, net->scale);
    gfli_name_map(d, net->cls, "cls_score");
    gfli_name_map(d, net->reg, "bbox_pred");
}

gfl_status gfli_deduce_head(gfli_weights *w, gfl_arch *arch) {
    int rows;
    GFLI_TRY(gfli_deduce_dim(w, "bbox_head.cls_convs.0.conv.weight", 0, &arch->head_channels));
    arch->stacked_convs = gfli_count_numbered(w, "bbox_head.cls_convs.", ".conv.weight");
    GFLI_TRY(gfli_deduce_dim(w, "bbox_head.gfl_cls.weight", 0, &arch->n_classes));
    GFLI_TRY(gfli_deduce_dim(w, "bbox_head.gfl_reg.weight", 0, &rows));
    if (rows % 4 != 0 || rows < 8)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: bbox_head.gfl_reg.weight has %d filters; four sides need a multiple "
                          "of 4, at least 8",
                          w->blob.path, rows);
    arch->reg_max = rows / 4 - 1;
    return GFL_OK;
}

/* ===============================================================================================
 * src/model/values.c - where the values of a model's parameters lie: one block of the device's memory
 * ============================================================================================ */

/* What is trained comes first, running statistics behind it.  A model that only detects keeps what
 * its steps read. */
static void gfli_lay_out(gfl_model *model) {
    size_t at = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < model->n_params; i++) {
            gfli_param *p = &model->params[i];
            if (p->is_buffer != (pass == 1) || (!model->trainable && !p->direct)) continue;
            p->offset = at;
            at += gfli_block_size(p->count);
        }
        if (pass == 0) model->n_trained = at;
    }
    model->n_values = at;
}

static size_t gfli_folded_size(const gfl_model *model) {
    size_t floats = 0;
    for (int i = 0; i < model->n_layers; i++)
        if (model->layers[i].bn_gamma >= 0)
            floats += (model->trainable ? 2 : 1) * (size_t)model->layers[i].shape.out_c;
    return floats;
}

gfl_status gfli_model_place(gfl_model *model) {
    const gfli_device_ops *device = &model->backend->device;
    gfli_lay_out(model);
    GFLI_TRY(device->alloc(model->context, model->n_values, sizeof(float), "parameters",
                           &model->values));
    GFLI_TRY(device->alloc(model->context, gfli_folded_size(model), sizeof(float),
                           "folded batch norms", &model->folded));
    /* The gaps between parameters count where the block is read as a whole. */
    device->zero(model->context, model->values, model->n_values * sizeof(float));
    for (int i = 0; i < model->n_params; i++)
        if (model->trainable || model->params[i].direct)
            model->params[i].data = model->values + model->params[i].offset;
    float *at = model->folded;
    for (int i = 0; i < model->n_layers; i++) {
        gfli_layer *layer = &model->layers[i];
        if (layer->bn_gamma < 0) continue;
        layer->folded_bias = at;
        at += layer->shape.out_c;
        if (!model->trainable) continue;
        layer->folded_scale = at;
        at += layer->shape.out_c;
    }
    return GFL_OK;
}

bool gfli_is_trained(const gfli_param *param, int frozen_stages) {
    return !param->is_buffer && param->stage > frozen_stages;
}

size_t gfli_first_trained(const gfl_model *model, int frozen_stages) {
    for (int i = 0; i < model->n_params; i++)
        if (gfli_is_trained(&model->params[i], frozen_stages)) return model->params[i].offset;
    return model->n_trained;
}

gfl_status gfli_fetch(const gfl_model *model, const float *from, size_t n, float *out) {
    const gfli_device_ops *device = &model->backend->device;
    device->download(model->context, out, from, n * sizeof *out);
    return device->finish(model->context);
}

gfl_status gfli_param_fetch(const gfl_model *model, int index, float *out) {
    return gfli_fetch(model, model->params[index].data, model->params[index].count, out);
}

void gfli_param_store(const gfl_model *model, int index, const float *values) {
    const gfli_param *p = &model->params[index];
    model->backend->device.upload(model->context, p->data, values, p->count * sizeof *values);
}

size_t gfli_bad_variance(const gfli_param *p, const float *values) {
    size_t i = p->is_variance ? 0 : p->count;
    while (i < p->count && values[i] + GFLI_NORM_EPS > 0) i++;
    return i;
}

void gfli_reorder_weight(const gfli_param *p, const float *from, float *to, bool to_file) {
    const int out = (int)p->shape[0], in = (int)p->shape[1];
    const int taps = (int)(p->shape[2] * p->shape[3]);
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++)
            for (int k = 0; k < taps; k++) {
                const size_t file = gfli_file_weight_at(taps, in, o, k, i);
                const size_t kept = gfli_weight_at(taps, in, o, k, i);
                to[to_file ? file : kept] = from[to_file ? kept : file];
            }
}

size_t gfli_largest_param(const gfl_model *model) {
    size_t most = 1;
    for (int i = 0; i < model->n_params; i++)
        if (model->params[i].count > most) most = model->params[i].count;
    return most;
}

/* ---- for the host ---------------------------------------------------------------------------- */

int gfl_model_count_parameters(const gfl_model *model) {
    return model ? model->n_params : 0;
}

gfl_status gfl_model_describe_parameter(const gfl_model *model, int i, gfl_parameter *out) {
    if (out) memset(out, 0, sizeof *out);
    if (!out || i < 0 || i >= gfl_model_count_parameters(model)) return GFL_E_ARG;
    const gfli_param *p = &model->params[i];
    out->name = p->name;
    out->rank = p->rank;
    memcpy(out->shape, p->shape, sizeof out->shape);
    out->count = p->count;
    out->is_statistic = p->is_buffer;
    return GFL_OK;
}

/* The parameter of a call. */
static gfl_status gfli_param_of_call(const gfl_model *model, const char *name, size_t n,
                                     int *index) {
    char quoted[GFLI_QUOTED];
    *index = gfli_model_find(model, name);
    GFLI_DEMAND(model->context, *index >= 0, "the model has no parameter %s",
                gfli_quote(name, quoted, sizeof quoted));
    const gfli_param *p = &model->params[*index];
    GFLI_DEMAND(model->context, p->count == n, "%s has %zu values, not %zu", p->name, p->count, n);
    return GFL_OK;
}

/* Room for a parameter in the order that it is kept in; NULL where a file has the same order. */
static gfl_status gfli_param_room(const gfl_model *model, int index, float **out) {
    const gfli_param *p = &model->params[index];
    *out = NULL;
    return p->rank == 4 ? gfli_alloc(model->context, p->count, sizeof(float), "tensor", out)
                        : GFL_OK;
}

gfl_status gfl_model_get_parameter(const gfl_model *model, const char *name, float *out, size_t n) {
    int i;
    float *kept;
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, name);
    GFLI_NOT_NULL(model->context, out);
    GFLI_TRAINABLE(model->context, model);
    GFLI_TRY(gfli_param_of_call(model, name, n, &i));
    GFLI_TRY(gfli_param_room(model, i, &kept));
    const gfl_status status = gfli_param_fetch(model, i, kept ? kept : out);
    if (kept && status == GFL_OK) gfli_reorder_weight(&model->params[i], kept, out, true);
    gfli_free(model->context, kept);
    return status;
}

gfl_status gfl_model_set_parameter(gfl_model *model, const char *name, const float *values,
                                   size_t n) {
    int i;
    float *kept;
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, name);
    GFLI_NOT_NULL(model->context, values);
    GFLI_TRAINABLE(model->context, model);
    GFLI_TRY(gfli_param_of_call(model, name, n, &i));
    GFLI_DEMAND(model->context, gfli_all_finite(values, n), "a value for %s is not finite", name);
    GFLI_DEMAND(model->context, gfli_bad_variance(&model->params[i], values) == n,
                "a value for %s is a variance below zero", name);
    GFLI_TRY(gfli_param_room(model, i, &kept));
    if (kept) gfli_reorder_weight(&model->params[i], values, kept, false);
    gfli_param_store(model, i, kept ? kept : values);
    gfli_free(model->context, kept);
    gfli_model_changed(model, model->params[i].stage);
    return model->backend->device.finish(model->context);
}

/* ===============================================================================================
 * src/model/plan.c - a network for an input size: its steps, and where each map lives
 * ============================================================================================ */

/* Positions and floats must be countable: everything downstream multiplies without checks. */
static gfl_status gfli_check_map(gfl_context *context, const gfli_map *map) {
    size_t points = 0;
    for (int l = 0; l < map->levels; l++) {
        size_t level, area;
        if (!gfli_mul((size_t)map->h[l], (size_t)map->w[l], &area) ||
            !gfli_mul(area, (size_t)map->n, &level) || level > INT_MAX - points)
            return gfli_error(
                context, GFL_E_MEMORY,
                "a map of %d x %d x %d positions is too large; use a smaller batch or "
                "smaller images",
                map->n, map->h[l], map->w[l]);
        points += level;
    }
    size_t floats;
    if (!gfli_mul(points, (size_t)map->c, &floats) || floats > SIZE_MAX / 64)
        return gfli_error(
            context, GFL_E_MEMORY,
            "a map of %zu positions and %d channels is too large; use a smaller batch "
            "or smaller images",
            points, map->c);
    return GFL_OK;
}

/* ---- maps ------------------------------------------------------------------------------------ */

/* The next slot, which holds this map of the network. */
static gfl_status gfli_new_slot(gfl_context *context, const gfli_net_map *maps, int map,
                                const gfli_map *size, gfli_plan *plan) {
    const gfli_net_map *m = &maps[map];
    GFLI_TRY(gfli_check_map(context, size));
    if (m->parent >= 0 && plan->maps[m->parent].held < 0)
        GFLI_TRY(gfli_new_slot(context, maps, m->parent, size, plan));
    gfli_slot *slot = &plan->maps[plan->n_slots];
    slot->map = *size;
    slot->map.c = m->c;
    slot->map.element = context->element;
    slot->parent = -1;
    slot->name = m->name;
    plan->maps[map].held = plan->n_slots++;
    if (m->parent < 0) return GFL_OK;
    slot->parent = plan->maps[m->parent].held;
    slot->level = m->level;
    gfli_map *whole = &plan->maps[slot->parent].map;
    whole->levels = m->level + 1;
    whole->h[m->level] = size->h[0];
    whole->w[m->level] = size->w[0];
    return gfli_check_map(context, whole);
}

/* What a step makes of a map of this size. */
static gfli_map gfli_step_size(const gfl_model *model, const gfli_step *s, const gfli_map *in) {
    static const gfli_conv_shape pool = {1, 1, 3, 2, 1, 1};
    const gfli_conv_shape *shape = s->op == GFLI_OP_MAX_POOL ? &pool : NULL;
    gfli_map out = *in;
    if (s->layer >= 0) shape = &model->layers[s->layer].shape;
    for (int l = 0; shape && l < out.levels; l++) {
        out.h[l] = gfli_conv_out(shape, in->h[l]);
        out.w[l] = gfli_conv_out(shape, in->w[l]);
    }
    out.c = model->network.maps[s->out].c;
    return out;
}

/* Slots for the maps of the network, in their order; where nothing need be kept, maps take the
 * places of those that they are made of. */
static gfl_status gfli_plan_slots(gfl_context *context, const gfl_model *model, gfli_plan *plan) {
    const gfli_network *net = &model->network;
    gfli_map size;
    memset(plan->maps, 0, (size_t)net->n_maps * sizeof *plan->maps);
    memset(&size, 0, sizeof size);
    for (int i = 0; i < net->n_maps; i++) plan->maps[i].held = -1;
    size.n = plan->batch;
    size.c = 3;
    size.levels = 1;
    size.h[0] = plan->height;
    size.w[0] = plan->width;
    GFLI_TRY(gfli_new_slot(context, net->maps, net->input, &size, plan));
    for (int i = 0; i < net->n_steps; i++) {
        const gfli_step *s = &net->steps[i];
        const gfli_net_map *out = &net->maps[s->out];
        const int over = out->over < 0 || plan->training ? -1 : plan->maps[out->over].held;
        if (plan->maps[s->out].held >= 0) continue; /* a step that adds to what is there */
        plan->maps[s->out].held = over;
        size = gfli_step_size(model, s, &plan->maps[plan->maps[s->in].held].map);
        if (over < 0)
            GFLI_TRY(gfli_new_slot(context, net->maps, s->out, &size, plan));
        else if (out->name)
            plan->maps[over].name = out->name;
    }
    return GFL_OK;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* One side of the head to its end before the other begins, which needs the least memory; or both
 * at once. */
static bool gfli_sides_together(const gfl_model *model, const gfli_plan *plan) {
    return model->backend->fuses && !plan->training;
}

/* Where a norm's statistics are.  Inference forgets them after the step. */
static void gfli_place_stats(gfli_plan *plan, gfli_step *norm, bool second) {
    const gfli_map *map = &plan->maps[norm->in].map;
    const int size = map->levels * map->n * GFLI_GN_GROUPS * 2;
    norm->stats = plan->training ? (int)plan->stats_floats : second ? size : 0;
    const size_t end = (size_t)norm->stats + (size_t)size;
    if (end > plan->stats_floats) plan->stats_floats = end;
}

/* Let the convolution of both sides, which is the nearest before a norm, leave its statistics. */
static void gfli_give_stats(gfli_step *norm) {
    gfli_step *conv = norm - 1;
    while (conv->op != GFLI_OP_CONV) conv--;
    *(conv->out == norm->in ? &conv->stats : &conv->twin.stats) = norm->stats;
    norm->given = true;
}

/* Step i of the network, between slots; second: beside the one before it. */
static gfli_step *gfli_plan_append(const gfl_model *model, int i, bool second, gfli_plan *plan) {
    gfli_step *step = &plan->steps[plan->n_steps++];
    *step = model->network.steps[i];
    int *const maps[] = {&step->in, &step->out, &step->residual, &step->offset};
    for (size_t k = 0; k < GFLI_COUNT(maps); k++)
        if (*maps[k] >= 0) *maps[k] = plan->maps[*maps[k]].held;
    if (step->layer >= 0)
        step->macs = (int64_t)gfli_points(&plan->maps[step->out].map) *
                     (int64_t)gfli_conv_weights(&model->layers[step->layer].shape);
    plan->macs += step->macs;
    if (step->op == GFLI_OP_GROUP_NORM) gfli_place_stats(plan, step, second);
    return step;
}

/* Make the last step the twin of the one before it. */
static void gfli_plan_join(gfli_plan *plan) {
    const gfli_step *last = &plan->steps[--plan->n_steps];
    gfli_step *step = &plan->steps[plan->n_steps - 1];
    step->twin.in = last->in;
    step->twin.out = last->out;
    step->twin.layer = last->layer;
    step->macs += last->macs;
}

/* The steps of the network in their order, those that are made together behind one another. */
static void gfli_plan_steps(const gfl_model *model, gfli_plan *plan) {
    const gfli_network *net = &model->network;
    const bool together = gfli_sides_together(model, plan);
    for (int i = 0; i < net->n_steps; i++) {
        const int pair = together ? net->steps[i].pair : -1;
        if (pair >= 0 && pair < i) continue;
        gfli_step *first = gfli_plan_append(model, i, false, plan);
        if (pair < 0) continue;
        gfli_step *second = gfli_plan_append(model, pair, true, plan);
        if (first->op == GFLI_OP_CONV)
            gfli_plan_join(plan);
        else
            gfli_give_stats(first), gfli_give_stats(second);
    }
}

/* Offsets and what decoding reads stay float whatever the others are. */
static void gfli_keep_floats(gfli_plan *plan) {
    plan->maps[plan->cls].map.element = GFLI_MAP_F32;
    for (int i = 0; i < plan->n_steps; i++) {
        const gfli_step *s = &plan->steps[i];
        if (s->offset >= 0) plan->maps[s->offset].map.element = GFLI_MAP_F32;
        if (s->op != GFLI_OP_LEVEL_SCALE) continue;
        plan->maps[s->in].map.element = GFLI_MAP_F32;
        plan->maps[s->out].map.element = GFLI_MAP_F32;
    }
}

/* The calls of a convolution's step; returns how many. */
static int gfli_step_calls(const gfl_model *model, const gfli_plan *plan, int step, float *stats,
                           gfli_conv_call calls[GFLI_CONV_CALLS]) {
    const gfli_step *s = &plan->steps[step];
    const int n = s->twin.layer < 0 ? 1 : 2;
    memset(calls, 0, GFLI_CONV_CALLS * sizeof *calls);
    for (int i = 0; i < n; i++) {
        const gfli_layer *layer = &model->layers[i ? s->twin.layer : s->layer];
        const int of = i ? s->twin.stats : s->stats;
        gfli_conv_call *c = &calls[i];
        c->shape = &layer->shape;
        c->packing = layer->packing;
        c->bias = layer->bias >= 0 ? model->params[layer->bias].data : layer->folded_bias;
        c->x = &plan->maps[i ? s->twin.in : s->in].map;
        c->y = &plan->maps[i ? s->twin.out : s->out].map;
        c->residual = s->residual < 0 ? NULL : &plan->maps[s->residual].map;
        c->offset = s->offset < 0 ? NULL : &plan->maps[s->offset].map;
        c->relu = s->relu;
        c->norm_groups = of < 0 ? 0 : GFLI_GN_GROUPS;
        c->eps = GFLI_NORM_EPS;
        c->stats = of < 0 || !stats ? NULL : stats + of;
    }
    return n;
}

/* Ask the backend about every convolution. */
static gfl_status gfli_plan_prepare(gfl_context *context, const gfl_model *model, gfli_plan *plan) {
    for (int i = 0; i < plan->n_steps; i++) {
        gfli_step *s = &plan->steps[i];
        gfli_conv_call calls[GFLI_CONV_CALLS];
        if (s->op != GFLI_OP_CONV && s->op != GFLI_OP_DEFORM_CONV) continue;
        const int n = gfli_step_calls(model, plan, i, NULL, calls);
        GFLI_TRY(model->backend->infer.conv_prepare(context, calls, n, &s->means));
        if (s->means.scratch > plan->scratch_bytes) plan->scratch_bytes = s->means.scratch;
    }
    return GFL_OK;
}

/* ---- memory ---------------------------------------------------------------------------------- */

int gfli_plan_root(const gfli_plan *plan, int slot) {
    return plan->maps[slot].parent < 0 ? slot : plan->maps[slot].parent;
}

void gfli_plan_need(gfli_plan *plan, int slot, int moment) {
    if (slot >= 0) gfli_need(&plan->pieces[gfli_plan_root(plan, slot)], moment);
}

/* What is kept for training is needed at every moment, until a backward pass says more. */
static void gfli_plan_keep(gfli_plan *plan) {
    for (int i = 0; i < plan->n_slots; i++) {
        gfli_plan_need(plan, i, 0);
        gfli_plan_need(plan, i, plan->n_steps);
    }
}

void gfli_plan_live(gfli_plan *plan) {
    plan->n_pieces = plan->n_slots;
    memset(plan->pieces, 0, (size_t)plan->n_pieces * sizeof *plan->pieces);
    for (int i = 0; i < plan->n_slots; i++) {
        plan->pieces[i].last = -1;
        if (plan->maps[i].parent < 0) plan->pieces[i].bytes = gfli_map_bytes(&plan->maps[i].map);
    }
    gfli_plan_need(plan, plan->input, 0);
    for (int i = 0; i < plan->n_steps; i++) {
        const gfli_step *s = &plan->steps[i];
        const int touched[] = {s->in, s->offset, s->residual, s->out, s->twin.in, s->twin.out};
        for (size_t k = 0; k < GFLI_COUNT(touched); k++) gfli_plan_need(plan, touched[k], i);
    }
    gfli_plan_need(plan, plan->cls, plan->n_steps);
    gfli_plan_need(plan, plan->reg, plan->n_steps);
}

gfl_status gfli_plan_place(gfl_context *context, gfli_plan *plan) {
    if (gfli_arrange(plan->pieces, plan->n_pieces, &plan->workspace_bytes)) return GFL_OK;
    return gfli_error(context, GFL_E_MEMORY,
                      "the maps of a %d x %d x %d input are too large; use a smaller batch or "
                      "smaller images",
                      plan->batch, plan->height, plan->width);
}

/* What a plan keeps when it becomes that of another size: memory. */
static void gfli_plan_clear(gfli_plan *plan) {
    const gfli_plan old = *plan;
    memset(plan, 0, sizeof *plan);
    plan->maps = old.maps;
    plan->steps = old.steps;
    plan->pieces = old.pieces;
    plan->slot_capacity = old.slot_capacity;
    plan->step_capacity = old.step_capacity;
    plan->piece_capacity = old.piece_capacity;
}

gfl_status gfli_plan_reserve(gfl_context *context, const gfl_model *model, gfli_plan *plan) {
    GFLI_TRY(gfli_grow(context, &plan->maps, &plan->slot_capacity, (size_t)model->network.n_maps,
                       sizeof *plan->maps, "plan's maps"));
    GFLI_TRY(gfli_grow(context, &plan->pieces, &plan->piece_capacity, (size_t)model->network.n_maps,
                       sizeof *plan->pieces, "plan's maps"));
    return gfli_grow(context, &plan->steps, &plan->step_capacity, (size_t)model->network.n_steps,
                     sizeof *plan->steps, "plan's steps");
}

gfl_status gfli_plan_create(gfl_context *context, const gfl_model *model, int batch, int height,
                            int width, bool training, gfli_plan *out) {
    memset(out, 0, sizeof *out);
    return gfli_plan_recreate(context, model, batch, height, width, training, out);
}

static gfl_status gfli_plan_build(gfl_context *context, const gfl_model *model, gfli_plan *plan) {
    GFLI_TRY(gfli_plan_reserve(context, model, plan));
    GFLI_TRY(gfli_plan_slots(context, model, plan));
    gfli_plan_steps(model, plan);
    plan->input = plan->maps[model->network.input].held;
    plan->cls = plan->maps[model->network.cls].held;
    plan->reg = plan->maps[model->network.reg].held;
    gfli_keep_floats(plan);
    gfli_plan_live(plan);
    if (plan->training) gfli_plan_keep(plan);
    GFLI_TRY(gfli_plan_place(context, plan));
    return gfli_plan_prepare(context, model, plan);
}

gfl_status gfli_plan_recreate(gfl_context *context, const gfl_model *model, int batch, int height,
                              int width, bool training, gfli_plan *out) {
    int limit = gfli_pad32(GFL_MAX_SIDE);
    gfli_plan_clear(out);
    if (batch < 1 || batch > GFLI_MAX_BATCH || height < 32 || width < 32 || height % 32 != 0 ||
        width % 32 != 0 || height > limit || width > limit)
        return gfli_error(context, GFL_E_ARG,
                          "input of %d x %d x %d: the batch must be 1..%d and the sides "
                          "multiples of 32 up to %d",
                          batch, height, width, GFLI_MAX_BATCH, limit);
    out->batch = batch;
    out->height = height;
    out->width = width;
    out->training = training;
    gfl_status status = gfli_plan_build(context, model, out);
    if (status != GFL_OK) gfli_plan_destroy(context, out);
    return status;
}

void gfli_plan_destroy(gfl_context *context, gfli_plan *plan) {
    gfli_free(context, plan->maps);
    gfli_free(context, plan->steps);
    gfli_free(context, plan->pieces);
    memset(plan, 0, sizeof *plan);
}

void gfli_plan_bind(gfli_plan *plan, void *workspace) {
    for (int i = 0; i < plan->n_slots; i++) {
        gfli_slot *slot = &plan->maps[i];
        if (slot->parent < 0)
            slot->map.data = (float *)gfli_piece_at(&plan->pieces[i], workspace);
        else /* a view comes after its parent */
            slot->map = gfli_map_level(&plan->maps[slot->parent].map, slot->level);
    }
}

void gfli_plan_run_step(gfl_context *context, const gfl_model *model, const gfli_plan *plan,
                        int step, float *stats, void *scratch) {
    const gfli_backend *ops = model->backend;
    const gfli_step *s = &plan->steps[step];
    const gfli_map *in = &plan->maps[s->in].map, *out = &plan->maps[s->out].map;
    switch (s->op) {
    case GFLI_OP_CONV:
    case GFLI_OP_DEFORM_CONV: {
        gfli_conv_call calls[GFLI_CONV_CALLS];
        const int n = gfli_step_calls(model, plan, step, stats, calls);
        ops->infer.conv(context, calls, n, &s->means, scratch);
        break;
    }
    case GFLI_OP_MAX_POOL: ops->infer.max_pool(context, in, out); break;
    case GFLI_OP_UPSAMPLE_ADD: ops->infer.upsample_add(context, in, out); break;
    case GFLI_OP_GROUP_NORM:
        ops->infer.group_norm(context, in, GFLI_GN_GROUPS, GFLI_NORM_EPS,
                              model->params[s->gamma].data, model->params[s->beta].data, out,
                              stats + s->stats, s->given);
        break;
    case GFLI_OP_LEVEL_SCALE:
        ops->infer.level_scale(context, in, model->params[s->scale].data, out);
        break;
    }
}

void gfli_plan_forward(gfl_context *context, const gfl_model *model, const gfli_plan *plan,
                       float *stats, void *scratch) {
    for (int i = 0; i < plan->n_steps; i++)
        gfli_plan_run_step(context, model, plan, i, stats, scratch);
}

/* ---- plans of the shapes that come ----------------------------------------------------------- */

int gfli_recent_find(gfli_recent *recent, int batch, int height, int width, bool *known) {
    int at = 0;
    *known = false;
    for (int i = 0; i < GFLI_PLANS && !*known; i++) {
        *known =
            recent->batch[i] == batch && recent->height[i] == height && recent->width[i] == width;
        if (*known || recent->used[i] < recent->used[at]) at = i;
    }
    recent->batch[at] = batch;
    recent->height[at] = height;
    recent->width[at] = width;
    recent->used[at] = ++recent->clock;
    return at;
}

void gfli_recent_forget(gfli_recent *recent, int entry) {
    recent->batch[entry] = 0;
    recent->used[entry] = 0;
}

/* ===============================================================================================
 * src/model/names.c - what other people's files call a parameter
 * ============================================================================================ */

/* The files that exist: implus/GFocal and mmdetection 1 to 3 (the names that the model has too),
 * backbones of other libraries (rules of backbones), and each of them inside a wrapper.  Rules are
 * applied until none changes the name. */
static const gfli_name_rule gfli_name_rules[] = {
    {"module.", "", false},    /* DistributedDataParallel */
    {"_orig_mod.", "", false}, /* torch.compile */
    {"model.", "", false},     /* Lightning and the like */
    {NULL, NULL, false},
};

bool gfli_ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Counters and constants that files carry and nobody needs. */
static bool gfli_is_ignored(const char *name) {
    return gfli_ends_with(name, ".num_batches_tracked") ||
           gfli_ends_with(name, gfli_dialect_get(GFL_DIALECT_MMDET)->project) ||
           gfli_ends_with(name, gfli_dialect_get(GFL_DIALECT_GFOCAL)->project);
}

/* Apply the first rule that fits; *changed stays false when none does. */
static gfl_status gfli_rename_once(gfl_context *context, const gfli_name_rule *rule, char **name,
                                   bool *changed) {
    for (; rule->from && !*changed; rule++) {
        char *at = strstr(*name, rule->from), *longer;
        if (!at || (!rule->anywhere && at != *name)) continue;
        size_t before = (size_t)(at - *name), size = strlen(*name) + strlen(rule->to) + 1;
        GFLI_TRY(gfli_alloc(context, size, 1, "tensor name", &longer));
        snprintf(longer, size, "%.*s%s%s", (int)before, *name, rule->to, at + strlen(rule->from));
        gfli_free(context, *name);
        *name = longer;
        *changed = true;
    }
    return GFL_OK;
}

static gfl_status gfli_rename_tensor(gfl_context *context, char **name) {
    for (bool changed = true; changed;) {
        changed = false;
        GFLI_TRY(gfli_rename_once(context, gfli_name_rules, name, &changed));
        for (const gfli_backbone *const *b = gfli_backbones(context); *b; b++)
            GFLI_TRY(gfli_rename_once(context, (*b)->rules, name, &changed));
    }
    return GFL_OK;
}

static gfl_status gfli_add_entry(gfli_weights *w, const gfli_tensor *tensor) {
    gfli_entry *e = &w->entries[w->n_entries];
    GFLI_TRY(gfli_strdup(w->context, tensor->name, &e->name));
    e->tensor = tensor;
    w->n_entries++;
    return gfli_rename_tensor(w->context, &e->name);
}

static int gfli_compare_entries(const void *a, const void *b) {
    return strcmp(((const gfli_entry *)a)->name, ((const gfli_entry *)b)->name);
}

gfl_status gfli_weights_begin(gfl_context *context, gfli_weights *w) {
    w->context = context;
    GFLI_TRY(gfli_calloc(context, (size_t)w->blob.n_tensors, sizeof *w->entries, "tensor names",
                         &w->entries));
    for (int i = 0; i < w->blob.n_tensors; i++)
        if (!gfli_is_ignored(w->blob.tensors[i].name))
            GFLI_TRY(gfli_add_entry(w, &w->blob.tensors[i]));
    if (w->n_entries > 1)
        qsort(w->entries, (size_t)w->n_entries, sizeof *w->entries, gfli_compare_entries);
    for (int i = 1; i < w->n_entries; i++) {
        const gfli_entry *a = &w->entries[i - 1], *b = &w->entries[i];
        if (strcmp(a->name, b->name) == 0)
            return gfli_error(context, GFL_E_MISMATCH,
                              "%s: the tensors %s and %s would both be %s; the file holds more "
                              "than one model",
                              w->blob.path, a->tensor->name, b->tensor->name, a->name);
    }
    return GFL_OK;
}

const gfli_tensor *gfli_weights_find(const gfli_weights *w, const char *name) {
    int low = 0, high = w->n_entries;
    while (low < high) {
        int middle = low + (high - low) / 2, order = strcmp(w->entries[middle].name, name);
        if (order == 0) return w->entries[middle].tensor;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void gfli_free_classes(gfl_context *context, gfl_class *classes, int n) {
    for (int i = 0; classes && i < n; i++) gfli_free(context, (void *)(uintptr_t)classes[i].name);
    gfli_free(context, classes);
}

void gfli_weights_end(gfli_weights *w) {
    for (int i = 0; i < w->n_entries; i++) gfli_free(w->context, w->entries[i].name);
    gfli_free(w->context, w->entries);
    gfli_free_classes(w->context, w->classes, w->n_classes);
    gfli_free(w->context, w->raw);
    gfli_free(w->context, w->ready);
    gfli_blob_close(&w->blob);
}

/* ===============================================================================================
 * src/model/deduce.c - the architecture in the shapes of a file's tensors
 * ============================================================================================ */

gfl_status gfli_deduce_dim(gfli_weights *w, const char *name, int axis, int *out) {
    const gfli_tensor *t = gfli_weights_find(w, name);
    if (!t)
        return gfli_error(w->context, GFL_E_MISMATCH, "%s: the tensor %s is missing", w->blob.path,
                          name);
    if (t->rank != 4 || t->shape[axis] < 1 || t->shape[axis] > 1 << 24)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: %s has shape %s, which is not the shape of a convolution",
                          w->blob.path, t->name, gfli_shape(t->rank, t->shape).text);
    *out = (int)t->shape[axis];
    return GFL_OK;
}

int gfli_count_numbered(const gfli_weights *w, const char *before, const char *after) {
    char name[96];
    int n = 0;
    do snprintf(name, sizeof name, "%s%d%s", before, n, after);
    while (gfli_weights_find(w, name) && ++n < 1000);
    return n;
}

/* The number behind `text`, which it must be the first digit of. */
static const char *gfli_read_count(const char *text, int *out) {
    for (*out = 0; *text >= '0' && *text <= '9' && *out < 100000; text++)
        *out = 10 * *out + (*text - '0');
    return text;
}

/* "model-00001-of-00002.safetensors" holds some of a model's tensors. */
static gfl_status gfli_refuse_part(const gfli_weights *w) {
    for (const char *at = w->blob.path; (at = strstr(at, "-of-")) != NULL; at += 4) {
        const char *first = at;
        int part, parts;
        while (first > w->blob.path && first[-1] >= '0' && first[-1] <= '9') first--;
        gfli_read_count(first, &part);
        const char *end = gfli_read_count(at + 4, &parts);
        if (first == at || first == w->blob.path || first[-1] != '-' || *end != '.' || parts < 2)
            continue;
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: it is part %d of %d of a sharded model: join the parts first, for "
                          "example by load_file() of each and one save_file() in Python",
                          w->blob.path, part, parts);
    }
    return GFL_OK;
}

const gfli_backbone *gfli_backbone_in(const gfli_weights *w) {
    const gfli_backbone *const *all = gfli_backbones(w->context);
    for (const gfli_backbone *const *b = all; *b; b++)
        if (gfli_weights_find(w, (*b)->stem)) return *b;
    return *all;
}

gfl_status gfli_deduce_backbone(gfli_weights *w, gfl_arch *arch, int *stages) {
    memset(arch, 0, sizeof *arch);
    GFLI_TRY(gfli_refuse_part(w));
    return gfli_backbone_in(w)->deduce(w, arch, stages);
}

/* Of neck and head. */
static const gfli_relative gfli_relatives[] = {
    {"bbox_head.reg_conf.", "", "GFLv2, another detector,"},
    {"bbox_head.", ".bn.", "a GFL head with batch norm"},
    {"bbox_head.cls_convs.", ".conv.bias", "a GFL head without normalisation"},
    {"neck.", ".bn.", "a pyramid with batch norm"},
    {"neck.", ".gn.", "a pyramid with group norm"},
    {NULL, NULL, NULL},
};

static gfl_status gfli_refuse_relative(const gfli_weights *w, const gfli_entry *entry,
                                       const gfli_relative *known) {
    for (; known->front; known++)
        if (strncmp(entry->name, known->front, strlen(known->front)) == 0 &&
            strstr(entry->name, known->inside))
            return gfli_error(w->context, GFL_E_UNSUPPORTED,
                              "%s: %s is not supported (the tensor %s)", w->blob.path, known->what,
                              entry->tensor->name);
    return GFL_OK;
}

/* Things that are read too, but elsewhere, and things that only look like GFL. */
static gfl_status gfli_refuse_relatives(const gfli_weights *w) {
    const gfli_backbone *backbone = gfli_backbone_in(w);
    bool head = false, stem = gfli_weights_find(w, backbone->stem) != NULL;
    GFLI_TRY(gfli_refuse_part(w));
    for (int i = 0; i < w->n_entries; i++) {
        const char *name = w->entries[i].name;
        head = head || strncmp(name, "bbox_head.", 10) == 0 || strncmp(name, "neck.", 5) == 0;
        GFLI_TRY(gfli_refuse_relative(w, &w->entries[i], gfli_relatives));
        GFLI_TRY(gfli_refuse_relative(w, &w->entries[i], backbone->relatives));
    }
    if (stem && head) return GFL_OK;
    if (stem)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the tensors of neck and head are missing; this looks like a bare "
                          "backbone, which gfl_model_load_backbone reads (gfl train --weights)",
                          w->blob.path);
    return gfli_error(w->context, GFL_E_MISMATCH,
                      "%s: the tensor %s is missing; this is not a detector with mmdetection's "
                      "names",
                      w->blob.path, backbone->stem);
}

gfl_status gfli_deduce_detector(gfli_weights *w, gfl_arch *arch) {
    GFLI_TRY(gfli_refuse_relatives(w));
    GFLI_TRY(gfli_deduce_backbone(w, arch, NULL));
    GFLI_TRY(gfli_deduce_neck(w, arch));
    return gfli_deduce_head(w, arch);
}

/* ===============================================================================================
 * src/model/metadata.c - what a weight file says beside its tensors
 * ============================================================================================ */

/* Did an array end where its last element `kind` was read, and the text with it? */
static bool gfli_is_whole(gfli_json *j, gfli_json_kind kind) {
    return kind == GFLI_JSON_END && gfli_json_next(j) == GFLI_JSON_END &&
           gfli_json_status(j) == GFL_OK;
}

/* Exactly n numbers from "[1, 2]" or "1,2" or "1x2". */
static gfl_status gfli_parse_numbers(gfli_weights *w, const char *key, int n, double *out) {
    const char *text = gfli_blob_meta(&w->blob, key);
    size_t size = strlen(text) + 3;
    gfli_json *j = NULL;
    char *list;
    int got = 0;
    GFLI_TRY(gfli_alloc(w->context, size, 1, "metadata", &list));
    snprintf(list, size, text[0] == '[' ? "%s" : "[%s]", text);
    for (char *c = list; *c; c++)
        if (*c == 'x') *c = ',';
    gfl_status status = gfli_json_open_memory(w->context, list, strlen(list), key, &j);
    if (status == GFL_OK) {
        gfli_json_kind kind = gfli_json_next(j);
        bool good = kind == GFLI_JSON_ARRAY;
        while (good && (kind = gfli_json_next(j)) == GFLI_JSON_NUMBER)
            if (got++ < n) out[got - 1] = gfli_json_as_number(j);
        if (!good || got != n || !gfli_is_whole(j, kind))
            status = gfli_error(w->context, GFL_E_FORMAT,
                                "%s: metadata %s is \"%.100s\"; it should "
                                "be %d numbers",
                                w->blob.path, key, text, n);
        gfli_json_close(j);
    }
    gfli_free(w->context, list);
    return status;
}

const char *gfli_order_key(const gfli_weights *w) {
    static const char *const keys[] = {"input", "channel_order"};
    for (size_t i = 0; i < GFLI_COUNT(keys); i++)
        if (gfli_blob_meta(&w->blob, keys[i])) return keys[i];
    return NULL;
}

static gfl_status gfli_read_channel_order(gfli_weights *w, int *bgr) {
    const char *key = gfli_order_key(w);
    if (!key) return GFL_OK;
    const char *order = gfli_blob_meta(&w->blob, key);
    if (strcmp(order, "RGB") != 0 && strcmp(order, "BGR") != 0)
        return gfli_error(w->context, GFL_E_FORMAT,
                          "%s: metadata %s is \"%.100s\"; it should be RGB or BGR", w->blob.path,
                          key, order);
    *bgr = order[0] == 'B';
    return GFL_OK;
}

static gfl_status gfli_read_mean(gfli_weights *w, gfl_preprocess *p) {
    double mean[3], deviation[3];
    bool has_mean = gfli_blob_meta(&w->blob, "mean") != NULL;
    if (has_mean != (gfli_blob_meta(&w->blob, "std") != NULL))
        return gfli_error(w->context, GFL_E_FORMAT,
                          "%s: metadata has mean or std without the other", w->blob.path);
    if (!has_mean) return GFL_OK;
    GFLI_TRY(gfli_parse_numbers(w, "mean", 3, mean));
    GFLI_TRY(gfli_parse_numbers(w, "std", 3, deviation));
    for (int i = 0; i < 3; i++) {
        p->mean[i] = (float)mean[i];
        p->std[i] = (float)deviation[i];
        if (!gfli_is_finite(mean[i]) || !gfli_is_finite(deviation[i]) || !(p->std[i] > 0))
            return gfli_error(w->context, GFL_E_FORMAT,
                              "%s: metadata has mean %g and std %g; the std must be positive",
                              w->blob.path, mean[i], deviation[i]);
    }
    return GFL_OK;
}

static gfl_status gfli_read_scale(gfli_weights *w, gfl_preprocess *p) {
    double scale[2];
    if (!gfli_blob_meta(&w->blob, "scale")) return GFL_OK;
    GFLI_TRY(gfli_parse_numbers(w, "scale", 2, scale));
    for (int i = 0; i < 2; i++)
        if (!(scale[i] >= 1 && scale[i] <= GFL_MAX_SIDE) || scale[i] != (floor)(scale[i]))
            return gfli_error(w->context, GFL_E_FORMAT,
                              "%s: metadata scale has %g; sides are whole numbers, 1..%d",
                              w->blob.path, scale[i], GFL_MAX_SIDE);
    p->scale_long = (int)(scale[0] > scale[1] ? scale[0] : scale[1]);
    p->scale_short = (int)(scale[0] > scale[1] ? scale[1] : scale[0]);
    return GFL_OK;
}

/* Was a fact assumed already when the file was written?  Then its value is there, and no more is
 * known of it than before. */
static bool gfli_is_assumed(const gfli_weights *w, const char *fact) {
    const char *list = gfli_blob_meta(&w->blob, "assumed");
    const size_t n = strlen(fact);
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',')
        if (!strncmp(at, fact, n) && (!at[n] || at[n] == ',')) return true;
    return false;
}

gfl_origin gfli_scale_origin(const gfli_weights *w) {
    const bool said = gfli_blob_meta(&w->blob, "scale") && !gfli_is_assumed(w, "scale");
    return said ? GFL_ORIGIN_FILE : GFL_ORIGIN_DEFAULT;
}

gfl_status gfli_read_preprocess(gfli_weights *w, gfl_preprocess *p, gfl_origin *origin) {
    memset(p, 0, sizeof *p);
    GFLI_TRY(gfli_read_channel_order(w, &p->bgr));
    GFLI_TRY(gfli_read_mean(w, p));
    GFLI_TRY(gfli_read_scale(w, p));
    const bool said =
        gfli_blob_meta(&w->blob, "mean") && gfli_order_key(w) && !gfli_is_assumed(w, "input");
    *origin = said ? GFL_ORIGIN_FILE : GFL_ORIGIN_DEFAULT;
    gfl_status status = gfli_preprocess_resolve(w->context, p, p);
    return status == GFL_OK ? GFL_OK : gfli_error_in(w->context, GFL_E_FORMAT, w->blob.path);
}

/* Which of n names metadata `key` is, from 1; 0 where the file has none. */
static gfl_status gfli_read_choice(gfli_weights *w, const char *key, const char *const *names,
                                   int n, int *out) {
    const char *said = gfli_blob_meta(&w->blob, key);
    *out = 0;
    for (int i = 0; said && i < n; i++)
        if (strcmp(said, names[i]) == 0) *out = i + 1;
    if (!said || *out) return GFL_OK;
    return gfli_error(w->context, GFL_E_FORMAT,
                      "%s: metadata %s is \"%.100s\"; it should be %s or %s", w->blob.path, key,
                      said, names[0], names[1]);
}

/* What the caller demands: 0 for whatever there is, or one of two names. */
static gfl_status gfli_check_choice(gfl_context *context, const char *what, int wanted) {
    GFLI_DEMAND(context, wanted >= 0 && wanted <= 2, "%s is %d; it must be a gfl_%s", what, wanted,
                what);
    return GFL_OK;
}

static const char *const gfli_style_names[2] = {"pytorch", "caffe"};

const char *gfli_style_name(const gfl_arch *arch) {
    return gfli_style_names[arch->style == GFL_STYLE_CAFFE];
}

/* The dialect decides the geometry of boxes, so it is never guessed. */
gfl_status gfli_read_dialect(gfli_weights *w, gfl_dialect wanted, gfl_dialect *out,
                             gfl_origin *origin) {
    const char *const names[2] = {gfli_dialect_get(GFL_DIALECT_MMDET)->name,
                                  gfli_dialect_get(GFL_DIALECT_GFOCAL)->name};
    const char *teller = NULL;
    GFLI_TRY(gfli_check_choice(w->context, "dialect", (int)wanted));
    int by_meta, by_tensor = 0;
    GFLI_TRY(gfli_read_choice(w, "dialect", names, 2, &by_meta));
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < w->blob.n_tensors; i++)
            if (gfli_ends_with(w->blob.tensors[i].name,
                               gfli_dialect_get((gfl_dialect)(k + 1))->project)) {
                by_tensor = k + 1;
                teller = w->blob.tensors[i].name;
            }
    if (by_meta && by_tensor && by_meta != by_tensor)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: metadata says dialect %s, but %s is of dialect %s", w->blob.path,
                          names[by_meta - 1], teller, names[by_tensor - 1]);
    int found = by_meta ? by_meta : by_tensor;
    if (found && wanted && found != (int)wanted)
        return gfli_error(
            w->context, GFL_E_MISMATCH,
            "%s: its weights are of dialect %s, but %s was asked for; boxes would be wrong",
            w->blob.path, names[found - 1], names[wanted - 1]);
    *origin = found ? GFL_ORIGIN_FILE : GFL_ORIGIN_GIVEN;
    *out = found ? (gfl_dialect)found : wanted;
    if (*out) return GFL_OK;
    return gfli_error(w->context, GFL_E_MISMATCH,
                      "%s: nothing in the file says which dialect its weights are of; demand "
                      "one (gfl convert --dialect): mmdet where they come from mmdetection 2.18 or "
                      "later, gfocal where from implus/GFocal",
                      w->blob.path);
}

/* No tensor shows where a bottleneck has its stride. */
gfl_status gfli_read_style(gfli_weights *w, gfl_style wanted, gfl_style *out, gfl_origin *origin) {
    int said;
    GFLI_TRY(gfli_check_choice(w->context, "style", (int)wanted));
    GFLI_TRY(gfli_read_choice(w, "style", gfli_style_names, 2, &said));
    if (gfli_is_assumed(w, "style")) said = 0;
    if (said && wanted && said != (int)wanted)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: its metadata says style %s, but %s was asked for", w->blob.path,
                          gfli_style_names[said - 1], gfli_style_names[wanted - 1]);
    *origin = said ? GFL_ORIGIN_FILE : wanted ? GFL_ORIGIN_GIVEN : GFL_ORIGIN_DEFAULT;
    *out = said ? (gfl_style)said : wanted ? wanted : GFL_STYLE_PYTORCH;
    return GFL_OK;
}

static gfl_status gfli_add_class(gfli_weights *w, const char *name, size_t length) {
    char *own;
    GFLI_TRY(gfli_alloc(w->context, length + 1, 1, "class name", &own));
    memcpy(own, name, length);
    own[length] = 0;
    w->classes[w->n_classes].name = own;
    w->classes[w->n_classes].id = w->n_classes + 1;
    w->n_classes++;
    return GFL_OK;
}

static gfl_status gfli_wrong_classes(gfli_weights *w, const char *key, int n) {
    return gfli_error(w->context, GFL_E_MISMATCH,
                      "%s: metadata %s does not have the %d entries of "
                      "bbox_head.gfl_cls.weight; name the classes yourself (gfl convert --classes)",
                      w->blob.path, key, n);
}

/* Names in a JSON array, or in the older files separated by commas. */
static gfl_status gfli_read_class_names(gfli_weights *w, int n) {
    const char *text = gfli_blob_meta(&w->blob, "classes");
    if (text[0] != '[') {
        for (const char *at = text;; at += strcspn(at, ",") + 1) {
            if (w->n_classes == n) return gfli_wrong_classes(w, "classes", n);
            GFLI_TRY(gfli_add_class(w, at, strcspn(at, ",")));
            if (at[strcspn(at, ",")] == 0) break;
        }
        return w->n_classes == n ? GFL_OK : gfli_wrong_classes(w, "classes", n);
    }
    gfli_json *j = NULL;
    GFLI_TRY(gfli_json_open_memory(w->context, text, strlen(text), "classes", &j));
    gfl_status status = GFL_OK;
    gfli_json_kind kind = gfli_json_next(j);
    bool good = kind == GFLI_JSON_ARRAY;
    while (good && status == GFL_OK && (kind = gfli_json_next(j)) == GFLI_JSON_STRING) {
        size_t length;
        const char *name = gfli_json_string(j, &length);
        if (w->n_classes == n)
            status = gfli_wrong_classes(w, "classes", n);
        else if (strlen(name) != length)
            good = false;
        else
            status = gfli_add_class(w, name, length);
    }
    if (status == GFL_OK && (!good || !gfli_is_whole(j, kind)))
        status = gfli_error(w->context, GFL_E_FORMAT,
                            "%s: metadata classes is not a JSON array of strings", w->blob.path);
    if (status == GFL_OK && w->n_classes != n) status = gfli_wrong_classes(w, "classes", n);
    gfli_json_close(j);
    return status;
}

static gfl_status gfli_read_class_ids(gfli_weights *w, int n) {
    const char *text = gfli_blob_meta(&w->blob, "class_ids");
    gfli_json *j = NULL;
    GFLI_TRY(gfli_json_open_memory(w->context, text, strlen(text), "class_ids", &j));
    gfl_status status = GFL_OK;
    int got = 0;
    gfli_json_kind kind = gfli_json_next(j);
    bool good = kind == GFLI_JSON_ARRAY;
    while (good && status == GFL_OK && (kind = gfli_json_next(j)) == GFLI_JSON_NUMBER) {
        if (got == n)
            status = gfli_wrong_classes(w, "class_ids", n);
        else
            good = gfli_json_as_integer(j, &w->classes[got].id);
        if (good && status == GFL_OK && got > 0) good = w->classes[got].id > w->classes[got - 1].id;
        got++;
    }
    if (status == GFL_OK && (!good || !gfli_is_whole(j, kind)))
        status = gfli_error(w->context, GFL_E_FORMAT,
                            "%s: metadata class_ids is not a JSON array of ascending integers",
                            w->blob.path);
    if (status == GFL_OK && got != n) status = gfli_wrong_classes(w, "class_ids", n);
    gfli_json_close(j);
    return status;
}

gfl_status gfli_read_classes(gfli_weights *w, int n, const gfl_class **out, gfl_origin *origin) {
    *origin = gfli_blob_meta(&w->blob, "classes") ? GFL_ORIGIN_FILE : GFL_ORIGIN_DEFAULT;
    if (*origin == GFL_ORIGIN_DEFAULT) return GFL_OK;
    GFLI_TRY(gfli_calloc(w->context, (size_t)n, sizeof *w->classes, "classes", &w->classes));
    *out = w->classes;
    if (gfli_is_assumed(w, "classes")) *origin = GFL_ORIGIN_DEFAULT;
    GFLI_TRY(gfli_read_class_names(w, n));
    w->has_ids = gfli_blob_meta(&w->blob, "class_ids") != NULL;
    return w->has_ids ? gfli_read_class_ids(w, n) : GFL_OK;
}

/* The number in a name like "GFL R50", "resnet50" or "resnext101_32x4d"; 0: none. */
static int gfli_depth_in_name(const char *const *before, const char *name) {
    for (; *name; name++)
        for (const char *const *b = before; *b; b++) {
            size_t n = strlen(*b);
            if (strncmp(name, *b, n) == 0 && name[n] >= '1' && name[n] <= '9')
                return (int)strtol(name + n, NULL, 10);
        }
    return 0;
}

gfl_status gfli_check_labels(gfli_weights *w, const gfl_arch *arch) {
    const char *const *before = gfli_backbone_of(w->context, arch->depth)->before_depth;
    static const char *const keys[] = {"architecture", "arch"};
    const char *format = gfli_blob_meta(&w->blob, "gfl_format");
    if (format && strcmp(format, "1") != 0)
        return gfli_error(w->context, GFL_E_UNSUPPORTED,
                          "%s: metadata gfl_format is \"%.100s\"; this version reads 1",
                          w->blob.path, format);
    for (size_t i = 0; i < GFLI_COUNT(keys); i++) {
        const char *name = gfli_blob_meta(&w->blob, keys[i]);
        int said = name ? gfli_depth_in_name(before, name) : 0;
        if (said != 0 && said != arch->depth)
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: metadata %s is \"%.100s\", but the tensors are of depth %d",
                              w->blob.path, keys[i], name, arch->depth);
    }
    return GFL_OK;
}

/* ===============================================================================================
 * src/model/load.c - weights into a model: does it fit, and what became of each tensor
 * ============================================================================================ */

gfli_shape_text gfli_shape(int rank, const int64_t *shape) {
    gfli_shape_text out;
    size_t used = 1;
    snprintf(out.text, sizeof out.text, "(");
    for (int i = 0; i < rank && used < sizeof out.text; i++) {
        int n = snprintf(out.text + used, sizeof out.text - used, i ? ", %lld" : "%lld",
                         (long long)shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < sizeof out.text) snprintf(out.text + used, sizeof out.text - used, ")");
    return out;
}

/* ---- reports --------------------------------------------------------------------------------- */

void gfli_clear_reports(gfl_model *model) {
    for (int i = 0; i < model->n_reports; i++) {
        gfli_free(model->context, (void *)(uintptr_t)model->reports[i].name);
        gfli_free(model->context, (void *)(uintptr_t)model->reports[i].why);
    }
    gfli_free(model->context, model->reports);
    model->reports = NULL;
    model->n_reports = 0;
}

gfl_status gfli_open_reports(gfl_model *model, size_t n) {
    gfli_clear_reports(model);
    return gfli_calloc(model->context, n, sizeof *model->reports, "load report", &model->reports);
}

gfl_status gfli_report(gfl_model *model, const char *name, gfl_fate fate, int rank,
                       const int64_t *shape, const char *why) {
    char *own_name = NULL, *own_why = NULL;
    GFLI_TRY(gfli_strdup(model->context, name, &own_name));
    gfl_status status = gfli_strdup(model->context, why, &own_why);
    if (status != GFL_OK) {
        gfli_free(model->context, own_name);
        return status;
    }
    gfl_tensor_report *r = &model->reports[model->n_reports++];
    r->name = own_name;
    r->why = own_why;
    r->fate = fate;
    r->rank = gfli_min(rank, 4);
    for (int i = 0; i < r->rank; i++) r->shape[i] = shape[i];
    return GFL_OK;
}

int gfl_model_count_reports(const gfl_model *model) {
    return model ? model->n_reports : 0;
}

gfl_status gfl_model_get_report(const gfl_model *model, int i, gfl_tensor_report *out) {
    if (out) memset(out, 0, sizeof *out);
    if (!out || i < 0 || i >= gfl_model_count_reports(model)) return GFL_E_ARG;
    *out = model->reports[i];
    return GFL_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* A scalar may be stored without dimensions or with a single one. */
bool gfli_same_shape(const gfli_param *param, const gfli_tensor *tensor) {
    if (param->rank == 0 && tensor->rank == 1) return tensor->shape[0] == 1;
    if (param->rank != tensor->rank) return false;
    for (int i = 0; i < param->rank; i++)
        if (param->shape[i] != tensor->shape[i]) return false;
    return true;
}

/* One of the values is no number: the first. */
static gfl_status gfli_refuse_number(const gfli_weights *w, const gfli_tensor *tensor,
                                     const float *raw) {
    size_t i = 0;
    uint32_t bits;
    while (gfli_all_finite(&raw[i], 1)) i++;
    memcpy(&bits, &raw[i], sizeof bits);
    return gfli_error(w->context, GFL_E_FORMAT,
                      "%s: %s: element %zu is %s; the file is damaged or its training diverged",
                      w->blob.path, tensor->name, i, bits << 9 ? "NaN" : "infinite");
}

gfl_status gfli_read_values(gfli_weights *w, const gfli_param *param, const gfli_tensor *tensor,
                            float *out) {
    float *raw = out;
    if (param->rank == 4) {
        GFLI_TRY(gfli_reserve(w->context, &w->raw, &w->raw_capacity, param->count, sizeof(float),
                              "tensor"));
        raw = w->raw;
    }
    GFLI_TRY(gfli_blob_read_f32(&w->blob, tensor, raw));
    if (!gfli_all_finite(raw, param->count)) return gfli_refuse_number(w, tensor, raw);
    const size_t bad = gfli_bad_variance(param, raw);
    if (bad < param->count)
        return gfli_error(w->context, GFL_E_FORMAT,
                          "%s: %s: element %zu is %g, a variance below zero", w->blob.path,
                          tensor->name, bad, (double)raw[bad]);
    if (param->rank == 4) gfli_reorder_weight(param, raw, out, false);
    return GFL_OK;
}

static gfl_status gfli_fill_from_file(void *arg, gfl_model *model, int index, float *to) {
    gfli_weights *w = (gfli_weights *)arg;
    gfli_param *param = &model->params[index];
    param->loaded = true;
    return gfli_read_values(w, param, gfli_weights_find(w, param->name), to);
}

/* Does every parameter have its tensor? */
static gfl_status gfli_check_params(gfli_weights *w, const gfl_model *model) {
    const char *missing = NULL, *path = w->blob.path;
    int n_missing = 0;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        const gfli_tensor *t = gfli_weights_find(w, p->name);
        char name[32];
        if (t && gfli_same_shape(p, t)) continue;
        if (!t && n_missing++ == 0) missing = p->name;
        if (!t) continue;
        gfli_arch_name(model->context, &model->arch, name);
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: %s has shape %s; the network that the other shapes describe (%s) "
                          "needs %s",
                          path, t->name, gfli_shape(t->rank, t->shape).text, name,
                          gfli_shape(p->rank, p->shape).text);
    }
    if (n_missing > 1)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the tensor %s and %d more are missing; the file is incomplete", path,
                          missing, n_missing - 1);
    if (n_missing == 1)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the tensor %s is missing; the file is incomplete", path, missing);
    return GFL_OK;
}

/* Does every tensor of the network have its parameter?  Others (optimizers, averages) may be there
 * and are left over. */
static gfl_status gfli_check_entries(gfli_weights *w, const gfl_model *model) {
    static const char *const parts[] = {"backbone.", "neck.", "bbox_head."};
    for (int i = 0; i < w->n_entries; i++) {
        const gfli_entry *e = &w->entries[i];
        bool ours = false;
        for (size_t k = 0; k < GFLI_COUNT(parts); k++)
            ours = ours || strncmp(e->name, parts[k], strlen(parts[k])) == 0;
        if (ours && gfli_model_find(model, e->name) < 0)
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: %s %s has no place in the network that the other tensors "
                              "describe; without it the detections would be wrong",
                              w->blob.path, e->tensor->name,
                              gfli_shape(e->tensor->rank, e->tensor->shape).text);
    }
    return GFL_OK;
}

static gfl_status gfli_report_load(gfl_model *model, const gfli_weights *w) {
    GFLI_TRY(gfli_open_reports(model, (size_t)model->n_params + (size_t)w->n_entries));
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        GFLI_TRY(gfli_report(model, p->name, GFL_FATE_LOADED, p->rank, p->shape, ""));
    }
    for (int i = 0; i < w->n_entries; i++) {
        const gfli_tensor *t = w->entries[i].tensor;
        if (gfli_model_find(model, w->entries[i].name) < 0)
            GFLI_TRY(gfli_report(model, t->name, GFL_FATE_LEFT_OVER, t->rank, t->shape,
                                 "the network has no such tensor"));
    }
    return GFL_OK;
}

/* ---- loading --------------------------------------------------------------------------------- */

gfl_status gfli_describe_weights(gfli_weights *w, gfl_dialect dialect, gfl_style style,
                                 gfl_model_desc *desc, gfl_origins *origins) {
    memset(desc, 0, sizeof *desc);
    memset(origins, 0, sizeof *origins);
    gfl_arch *arch = &desc->arch;
    GFLI_TRY(gfli_deduce_detector(w, arch));
    GFLI_TRY(gfli_read_style(w, style, &arch->style, &origins->style));
    if (gfli_arch_resolve(w->context, arch, arch) != GFL_OK)
        return gfli_error_in(w->context, GFL_E_MISMATCH, w->blob.path);
    GFLI_TRY(gfli_check_labels(w, arch));
    GFLI_TRY(gfli_read_dialect(w, dialect, &arch->dialect, &origins->dialect));
    origins->scale = gfli_scale_origin(w);
    return gfli_read_preprocess(w, &desc->preprocess, &origins->preprocess);
}

gfl_status gfli_load_weights(gfli_weights *w, const gfl_model_desc *desc,
                             const gfl_origins *origins, bool trainable, gfl_model **out) {
    GFLI_TRY(
        gfli_model_new(w->context, &desc->arch, &desc->preprocess, desc->classes, trainable, out));
    gfl_model *model = *out;
    model->origins = *origins;
    gfl_status status = gfli_check_params(w, model);
    if (status == GFL_OK) status = gfli_check_entries(w, model);
    if (status == GFL_OK) status = gfli_model_build(model, gfli_fill_from_file, w);
    if (status == GFL_OK) status = gfli_report_load(model, w);
    if (status == GFL_OK) return GFL_OK;
    gfl_model_destroy(model);
    *out = NULL;
    return status;
}

static gfl_status gfli_load_model(gfli_weights *w, const gfl_load_desc *how, gfl_model **out) {
    gfl_model_desc desc;
    gfl_origins origins;
    GFLI_TRY(gfli_describe_weights(w, how ? how->dialect : GFL_DIALECT_DEFAULT, GFL_STYLE_DEFAULT,
                                   &desc, &origins));
    GFLI_TRY(gfli_read_classes(w, desc.arch.n_classes, &desc.classes, &origins.classes));
    return gfli_load_weights(w, &desc, &origins, how && how->trainable, out);
}

gfl_status gfl_model_load(gfl_context *context, const char *path, const gfl_load_desc *desc,
                          gfl_model **out) {
    gfli_weights w;
    memset(&w, 0, sizeof w);
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, path);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfli_blob_open(context, path, &w.blob));
    gfl_status status = gfli_weights_begin(context, &w);
    if (status == GFL_OK) status = gfli_load_model(&w, desc, out);
    gfli_weights_end(&w);
    return status;
}

gfl_status gfl_model_load_memory(gfl_context *context, const void *bytes, size_t size,
                                 const gfl_load_desc *desc, gfl_model **out) {
    gfli_weights w;
    memset(&w, 0, sizeof w);
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, bytes);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfli_blob_open_memory(context, bytes, size, "weights in memory", &w.blob));
    gfl_status status = gfli_weights_begin(context, &w);
    if (status == GFL_OK) status = gfli_load_model(&w, desc, out);
    gfli_weights_end(&w);
    return status;
}

/* ===============================================================================================
 * src/model/save.c - weights to safetensors, under mmdetection's names
 * ============================================================================================ */

/* The shortest decimal that reads back as the same float. */
static void gfli_float_text(float value, char out[32]) {
    double d = (double)value;
    for (double unit = 1; unit <= 1e6; unit *= 10) {
        double rounded = (nearbyint)((double)value * unit) / unit;
        if ((float)rounded != value) continue;
        d = rounded;
        break;
    }
    gfli_json_format(d, out);
}

static gfl_status gfli_put_floats(gfli_put_meta put, void *to, const char *key,
                                  const float values[3]) {
    char text[3][32], joined[100];
    for (int i = 0; i < 3; i++) gfli_float_text(values[i], text[i]);
    snprintf(joined, sizeof joined, "%s,%s,%s", text[0], text[1], text[2]);
    return put(to, key, joined);
}

gfl_status gfli_put_input(const gfl_model *model, gfli_put_meta put, void *to,
                          const char *order_key) {
    const gfl_preprocess *p = &model->preprocess;
    GFLI_TRY(gfli_put_floats(put, to, "mean", p->mean));
    GFLI_TRY(gfli_put_floats(put, to, "std", p->std));
    return put(to, order_key, p->bgr ? "BGR" : "RGB");
}

/* The names as a JSON array, or the ids. */
static gfl_status gfli_put_classes(const gfl_model *model, gfli_put_meta put, void *to,
                                   const char *key, bool names) {
    gfli_text text = {model->context, "class list", NULL, 0, 0};
    gfl_json_writer j = gfli_json_to_text(&text);
    gfl_json_array(&j, NULL);
    for (int i = 0; i < model->arch.n_classes; i++) {
        if (names)
            gfl_json_text(&j, NULL, model->classes[i].name);
        else
            gfl_json_integer(&j, NULL, model->classes[i].id);
    }
    gfl_json_end(&j);
    gfl_status status = j.status;
    if (status == GFL_OK) status = put(to, key, text.bytes);
    gfli_free(model->context, text.bytes);
    return status;
}

/* What nobody has said of the model so far, so that whoever reads the file can say so. */
static gfl_status gfli_put_assumed(const gfl_model *model, gfli_put_meta put, void *to) {
    const gfl_origins *o = &model->origins;
    const struct {
        const char *fact;
        gfl_origin origin;
    } facts[] = {{"style", o->style},
                 {"input", o->preprocess},
                 {"scale", o->scale},
                 {"classes", o->classes}};
    char text[64] = "";
    size_t n = 0;
    for (size_t i = 0; i < GFLI_COUNT(facts); i++)
        if (facts[i].origin == GFL_ORIGIN_DEFAULT)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", n ? "," : "", facts[i].fact);
    return n ? put(to, "assumed", text) : GFL_OK;
}

gfl_status gfli_model_metadata(const gfl_model *model, gfli_put_meta put, void *to) {
    const gfl_preprocess *p = &model->preprocess;
    char text[64], name[32];
    gfli_arch_name(model->context, &model->arch, name);
    snprintf(text, sizeof text, "GFL %s", name);
    GFLI_TRY(put(to, "gfl_format", "1"));
    GFLI_TRY(put(to, "gfl_version", GFL_VERSION_TEXT));
    GFLI_TRY(put(to, "architecture", text));
    GFLI_TRY(put(to, "dialect", gfli_dialect_get(model->arch.dialect)->name));
    GFLI_TRY(put(to, "style", gfli_style_name(&model->arch)));
    GFLI_TRY(gfli_put_classes(model, put, to, "classes", true));
    GFLI_TRY(gfli_put_classes(model, put, to, "class_ids", false));
    GFLI_TRY(gfli_put_input(model, put, to, "channel_order"));
    snprintf(text, sizeof text, "%dx%d", p->scale_long, p->scale_short);
    GFLI_TRY(put(to, "scale", text));
    return gfli_put_assumed(model, put, to);
}

gfl_status gfli_meta_to_blob(void *writer, const char *key, const char *value) {
    return gfli_blob_put_meta((gfli_blob_writer *)writer, key, value);
}

gfl_status gfli_param_values(const gfl_model *model, int index, gfli_values *values,
                             const float **out) {
    const gfli_param *p = &model->params[index];
    GFLI_TRY(gfli_reserve(model->context, &values->data, &values->capacity, 2 * p->count,
                          sizeof(float), "tensor"));
    float *kept = p->rank == 4 ? values->data + p->count : values->data;
    GFLI_TRY(gfli_param_fetch(model, index, kept));
    if (p->rank == 4) gfli_reorder_weight(p, kept, values->data, true);
    *out = values->data;
    return GFL_OK;
}

gfl_status gfli_put_params(const gfl_model *model, gfli_blob_writer *w, int last_stage,
                           size_t skip) {
    gfli_values values = {NULL, 0};
    gfl_status status = GFL_OK;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        if (p->stage > last_stage) continue;
        GFLI_TRY(gfli_blob_declare(w, p->name + skip, GFLI_F32, p->rank, p->shape));
    }
    for (int i = 0; i < model->n_params && status == GFL_OK; i++) {
        const gfli_param *p = &model->params[i];
        const float *data;
        if (p->stage > last_stage) continue;
        status = gfli_param_values(model, i, &values, &data);
        if (status == GFL_OK) status = gfli_blob_write(w, data, p->count * sizeof(float));
    }
    gfli_free(model->context, values.data);
    return status;
}

static gfl_status gfli_model_write(const gfl_model *model, gfli_sink to) {
    gfli_blob_writer *w = NULL;
    GFLI_TRY(gfli_blob_create(model->context, to, &w));
    gfl_status status = gfli_model_metadata(model, gfli_meta_to_blob, w);
    if (status == GFL_OK) status = gfli_put_params(model, w, GFLI_STAGE_HEAD, 0);
    if (status == GFL_OK) return gfli_blob_finish(w);
    gfli_blob_abandon(w);
    return status;
}

gfl_status gfl_model_save(const gfl_model *model, const char *path) {
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, path);
    GFLI_TRAINABLE(model->context, model);
    return gfli_model_write(model, gfli_to_file(path));
}

gfl_status gfl_model_save_memory(const gfl_model *model, gfl_bytes *out) {
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, out);
    GFLI_TRAINABLE(model->context, model);
    return gfli_model_write(model, gfli_to_memory(out));
}

/* ===============================================================================================
 * src/model/model.c - gfl_model: creation, packing
 * ============================================================================================ */

static gfl_status gfli_copy_classes(gfl_model *model, const gfl_class *classes) {
    int n = model->arch.n_classes;
    GFLI_TRY(
        gfli_calloc(model->context, (size_t)n, sizeof *model->classes, "classes", &model->classes));
    for (int i = 0; i < n; i++) {
        char fallback[32], *name = NULL;
        snprintf(fallback, sizeof fallback, "class %d", i);
        if (classes && !classes[i].name)
            return gfli_error(model->context, GFL_E_ARG, "class %d has no name", i);
        if (classes && i > 0 && classes[i].id <= classes[i - 1].id)
            return gfli_error(model->context, GFL_E_ARG,
                              "class %d (%s) has id %lld after id %lld; order the classes by "
                              "ascending id",
                              i, classes[i].name, (long long)classes[i].id,
                              (long long)classes[i - 1].id);
        GFLI_TRY(gfli_strdup(model->context, classes ? classes[i].name : fallback, &name));
        model->classes[i].name = name;
        model->classes[i].id = classes ? classes[i].id : i + 1;
    }
    return GFL_OK;
}

gfl_status gfli_model_new(gfl_context *context, const gfl_arch *arch,
                          const gfl_preprocess *preprocess, const gfl_class *classes,
                          bool trainable, gfl_model **out) {
    gfl_model *m;
    GFLI_TRY(gfli_calloc(context, 1, sizeof *m, "model", &m));
    m->context = context;
    m->backend = context->backend;
    m->trainable = trainable;
    gfl_status status = gfli_arch_resolve(context, arch, &m->arch);
    if (status == GFL_OK) status = gfli_preprocess_resolve(context, preprocess, &m->preprocess);
    if (status == GFL_OK) status = gfli_copy_classes(m, classes);
    if (status == GFL_OK) status = gfli_model_describe(m);
    if (status != GFL_OK) {
        gfl_model_destroy(m);
        return status;
    }
    *out = m;
    return GFL_OK;
}

void gfl_model_destroy(gfl_model *model) {
    if (!model) return;
    gfl_context *context = model->context;
    for (int i = 0; model->classes && i < model->arch.n_classes; i++)
        gfli_free(context, (void *)(uintptr_t)model->classes[i].name);
    for (int i = 0; i < model->n_layers; i++)
        (model->backend->device.free)(context, model->layers[i].packing);
    (model->backend->device.free)(context, model->values);
    (model->backend->device.free)(context, model->folded);
    gfli_clear_reports(model);
    gfli_free(context, model->classes);
    gfli_model_undescribe(model);
    gfli_free(context, model);
}

/* ---- packing --------------------------------------------------------------------------------- */

static gfl_status gfli_pack_layer(gfl_model *model, gfli_layer *layer) {
    const gfli_infer_ops *ops = &model->backend->infer;
    const gfli_param *params = model->params;
    if (!layer->packing)
        GFLI_TRY(model->backend->device.alloc(model->context,
                                              ops->conv_packed_size(model->context, &layer->shape),
                                              1, "packed weights", &layer->packing));
    if (layer->bn_gamma >= 0) {
        const gfli_norm_fold fold = {params[layer->bn_gamma].data,
                                     params[layer->bn_beta].data,
                                     params[layer->bn_mean].data,
                                     params[layer->bn_var].data,
                                     GFLI_NORM_EPS,
                                     layer->folded_scale,
                                     layer->folded_bias,
                                     layer->shape.out_c};
        ops->fold_norm(model->context, &fold);
    }
    ops->conv_pack(model->context, &layer->shape, params[layer->weight].data, layer->folded_scale,
                   layer->packing);
    return GFL_OK;
}

void gfli_model_changed(gfl_model *model, int first_stage) {
    if (model->stale == 0 || model->stale > first_stage + 1) model->stale = first_stage + 1;
}

gfl_status gfli_model_pack(gfl_model *model) {
    if (model->stale == 0) return GFL_OK;
    for (int i = 0; i < model->n_layers; i++)
        if (model->layers[i].stage >= model->stale - 1)
            GFLI_TRY(gfli_pack_layer(model, &model->layers[i]));
    model->stale = 0;
    return GFL_OK;
}

gfl_status gfl_model_sync(gfl_model *model) {
    GFLI_NOT_NULL(NULL, model);
    return gfli_model_pack(model);
}

gfl_status gfli_model_check_packed(gfl_context *context, const gfl_model *model, const char *what) {
    if (model->stale == 0) return GFL_OK;
    return gfli_error(context, GFL_E_ARG,
                      "%s: the model's parameters have changed since they were packed for "
                      "detection; call gfl_model_sync first",
                      what);
}

/* ---- building -------------------------------------------------------------------------------- */

/* Values pass through the host one parameter at a time.  A model that only detects has a layer's
 * sources on the device only until they are packed, in `staging`. */
typedef struct gfli_builder {
    gfl_model *model;
    gfli_fill fill;
    void *arg;
    float *host;    /* [the largest parameter] */
    float *staging; /* [the largest layer's sources]; NULL where the model is trainable */
    size_t used;    /* of the staging */
} gfli_builder;

static void gfli_layer_sources(const gfli_layer *layer, int out[6]) {
    const int sources[6] = {layer->weight,  layer->bias,    layer->bn_gamma,
                            layer->bn_beta, layer->bn_mean, layer->bn_var};
    memcpy(out, sources, sizeof sources);
}

static size_t gfli_staging_size(const gfl_model *model) {
    size_t most = 0;
    for (int i = 0; i < model->n_layers; i++) {
        int sources[6];
        size_t floats = gfli_block_size((size_t)model->layers[i].shape.out_c); /* the scale */
        gfli_layer_sources(&model->layers[i], sources);
        for (int k = 0; k < 6; k++)
            if (sources[k] >= 0) floats += gfli_block_size(model->params[sources[k]].count);
        if (floats > most) most = floats;
    }
    return most;
}

static float *gfli_stage(gfli_builder *b, size_t count) {
    float *place = b->staging + b->used;
    b->used += gfli_block_size(count);
    return place;
}

static gfl_status gfli_fill_param(gfli_builder *b, int index) {
    if (index < 0) return GFL_OK;
    gfli_param *param = &b->model->params[index];
    if (!param->data) param->data = gfli_stage(b, param->count);
    GFLI_TRY(b->fill(b->arg, b->model, index, b->host));
    gfli_param_store(b->model, index, b->host);
    return GFL_OK;
}

static gfl_status gfli_build_layer(gfli_builder *b, gfli_layer *layer) {
    int sources[6];
    gfli_layer_sources(layer, sources);
    b->used = 0;
    for (int k = 0; k < 6; k++) GFLI_TRY(gfli_fill_param(b, sources[k]));
    GFLI_TRY(gfli_fill_param(b, layer->gn_gamma));
    GFLI_TRY(gfli_fill_param(b, layer->gn_beta));
    if (layer->bn_gamma >= 0 && !layer->folded_scale)
        layer->folded_scale = gfli_stage(b, (size_t)layer->shape.out_c);
    GFLI_TRY(gfli_pack_layer(b->model, layer));
    if (!b->staging) return GFL_OK;
    layer->folded_scale = NULL;
    for (int k = 0; k < 6; k++)
        if (sources[k] >= 0 && !b->model->params[sources[k]].direct)
            b->model->params[sources[k]].data = NULL;
    return GFL_OK;
}

static gfl_status gfli_build_all(gfli_builder *b) {
    gfl_model *model = b->model;
    const gfli_device_ops *device = &model->backend->device;
    GFLI_TRY(
        gfli_alloc(model->context, gfli_largest_param(model), sizeof(float), "a tensor", &b->host));
    if (!model->trainable)
        GFLI_TRY(device->alloc(model->context, gfli_staging_size(model), sizeof(float),
                               "weights to pack", &b->staging));
    for (int i = 0; i < model->n_layers; i++) GFLI_TRY(gfli_build_layer(b, &model->layers[i]));
    for (int l = 0; l < GFL_LEVELS; l++) GFLI_TRY(gfli_fill_param(b, model->network.scale + l));
    return device->finish(model->context);
}

gfl_status gfli_model_build(gfl_model *model, gfli_fill fill, void *arg) {
    gfli_builder b = {model, fill, arg, NULL, NULL, 0};
    GFLI_TRY(gfli_model_place(model));
    const gfl_status status = gfli_build_all(&b);
    gfli_free(model->context, b.host);
    (model->backend->device.free)(model->context, b.staging);
    return status;
}

static gfl_status gfli_fill_fresh(void *arg, gfl_model *model, int index, float *to) {
    (void)arg;
    gfli_param_init(&model->params[index], model->seed, index, to);
    return GFL_OK;
}

gfl_status gfl_model_create(gfl_context *context, const gfl_model_desc *desc, gfl_model **out) {
    gfl_model_desc d;
    gfl_model *model = NULL;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfli_model_new(context, &d.arch, &d.preprocess, d.classes, d.trainable != 0, &model));
    model->seed = d.seed;
    gfl_status status = gfli_model_build(model, gfli_fill_fresh, NULL);
    if (status != GFL_OK) {
        gfl_model_destroy(model);
        return status;
    }
    *out = model;
    return GFL_OK;
}

/* ===============================================================================================
 * src/model/describe.c - what a model is and costs, as the program that uses it asks
 * ============================================================================================ */

void gfl_model_get_info(const gfl_model *model, gfl_model_info *out) {
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (!model) return;
    out->arch = model->arch;
    out->preprocess = model->preprocess;
    out->classes = model->classes;
    out->origins = model->origins;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        if (p->is_buffer) continue;
        out->n_parameters += (int64_t)p->count;
        if (p->stage > 1) out->n_trainable += (int64_t)p->count;
    }
}

const gfl_class *gfl_model_get_class(const gfl_model *model, int label) {
    static const gfl_class none = {"", 0};
    return model && label >= 0 && label < model->arch.n_classes ? &model->classes[label] : &none;
}

/* The plan of a detector for images of this size; what: who asks. */
static gfl_status gfli_plan_of(gfl_model *model, int width, int height, int batch, gfli_plan *out) {
    GFLI_DEMAND(model->context,
                width >= 1 && height >= 1 && width <= GFL_MAX_SIDE && height <= GFL_MAX_SIDE,
                "images of %d x %d; sides must be 1..%d", width, height, GFL_MAX_SIDE);
    return gfli_plan_create(model->context, model, batch, gfli_pad32(height), gfli_pad32(width),
                            false, out);
}

gfl_status gfl_model_get_cost(gfl_model *model, int width, int height, int batch,
                              gfl_model_cost *out) {
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, out);
    memset(out, 0, sizeof *out);
    gfli_plan plan;
    GFLI_TRY(gfli_plan_of(model, width, height, batch, &plan));
    out->macs = plan.macs;
    out->n_steps = plan.n_steps;
    out->points = (int)(gfli_points(&plan.maps[plan.cls].map) / (size_t)batch);
    out->workspace_bytes = gfli_detector_bytes(model, &plan, width, height);
    for (int i = 0; i < model->n_layers; i++)
        out->weight_bytes +=
            model->backend->infer.conv_packed_size(model->context, &model->layers[i].shape);
    gfli_plan_destroy(model->context, &plan);
    gfl_model_info info;
    gfl_model_get_info(model, &info);
    out->n_parameters = info.n_parameters;
    return GFL_OK;
}

gfl_status gfl_arch_get_cost(gfl_context *context, const gfl_arch *arch, int width, int height,
                             int batch, gfl_model_cost *out) {
    gfl_preprocess usual;
    gfl_model *described;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, arch);
    GFLI_NOT_NULL(context, out);
    memset(&usual, 0, sizeof usual);
    memset(out, 0, sizeof *out);
    GFLI_TRY(gfli_model_new(context, arch, &usual, NULL, false, &described));
    const gfl_status status = gfl_model_get_cost(described, width, height, batch, out);
    gfl_model_destroy(described);
    return status;
}

static const char *gfli_op_name(gfli_op op) {
    switch (op) {
    case GFLI_OP_CONV: return "conv";
    case GFLI_OP_DEFORM_CONV: return "deform_conv";
    case GFLI_OP_MAX_POOL: return "max_pool";
    case GFLI_OP_UPSAMPLE_ADD: return "upsample_add";
    case GFLI_OP_GROUP_NORM: return "group_norm";
    case GFLI_OP_LEVEL_SCALE: return "level_scale";
    }
    return "";
}

static gfl_plan_step gfli_describe_step(const gfl_model *model, const gfli_plan *plan, int i) {
    const gfli_step *s = &plan->steps[i];
    const gfli_map *in = &plan->maps[s->in].map, *out = &plan->maps[s->out].map;
    const int param = s->layer >= 0 ? model->layers[s->layer].weight : s->gamma;
    gfl_plan_step step;
    memset(&step, 0, sizeof step);
    step.op = gfli_op_name(s->op);
    step.twin = "";
    step.weights = param >= 0 ? model->params[param].name : "";
    step.in_channels = in->c;
    step.in_height = in->h[0];
    step.in_width = in->w[0];
    step.out_channels = out->c;
    step.out_height = out->h[0];
    step.out_width = out->w[0];
    step.levels = out->levels;
    step.macs = s->macs;
    step.kernel = s->means.kernel ? s->means.kernel : "";
    step.splits = s->means.splits;
    step.out_bytes = gfli_map_bytes(out);
    if (s->twin.layer >= 0) {
        const gfli_map *also = &plan->maps[s->twin.out].map;
        step.twin = model->params[model->layers[s->twin.layer].weight].name;
        step.out_channels += also->c;
        step.out_bytes += gfli_map_bytes(also);
    }
    for (int k = 0; k < plan->n_slots; k++) {
        const gfli_piece *piece = &plan->pieces[k];
        if (piece->first <= i && i <= piece->last)
            step.live_bytes += gfli_map_bytes(&plan->maps[k].map);
    }
    return step;
}

gfl_status gfl_model_get_plan(gfl_model *model, int width, int height, int batch,
                              void (*visit)(void *user, const gfl_plan_step *step), void *user) {
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, visit);
    gfli_plan plan;
    GFLI_TRY(gfli_plan_of(model, width, height, batch, &plan));
    for (int i = 0; i < plan.n_steps; i++) {
        const gfl_plan_step step = gfli_describe_step(model, &plan, i);
        visit(user, &step);
    }
    gfli_plan_destroy(model->context, &plan);
    return GFL_OK;
}

/* ===============================================================================================
 * src/model/detect.c - gfl_detector: resize, normalise, forward, decode
 * ============================================================================================ */

enum { GFLI_MAX_PER_LEVEL = 1000, GFLI_MAX_DETECTIONS = 100 };

/* What a detector has on the device: parts of one allocation. */
enum {
    GFLI_PART_MAPS,
    GFLI_PART_STATS,
    GFLI_PART_SCRATCH, /* of whatever runs: resize, plan, decode */
    GFLI_PART_PIXELS,  /* one resized image */
    GFLI_PART_FOUND,
    GFLI_PART_WANTED, /* what gfli_decode_opts.wanted points to */
    GFLI_PARTS
};

/* A plan of an input size.  Its second run is recorded, so that sizes which come once pay nothing
 * for it. */
typedef struct gfli_ready {
    gfli_plan plan;
    void *recording;
    bool ran, refused; /* refused: it cannot be recorded */
} gfli_ready;

/* An image of the batch after checking. */
typedef struct gfli_resized {
    gfl_image image; /* stride resolved */
    bool on_device;
    int width, height;
} gfli_resized;

struct gfl_detector {
    gfl_context *context;
    const gfl_model *model;
    bool with_distributions;
    gfli_ready ready[GFLI_PLANS];
    gfli_recent recent;
    unsigned char *arena; /* on the model's device */
    size_t parts[GFLI_PARTS];
    unsigned char *found; /* a copy of GFLI_PART_FOUND */
    gfli_resized *images;
    gfli_decode_opts *decoding;
    gfl_detection *items;
    gfl_distribution *distributions;
    size_t found_capacity, images_capacity, decoding_capacity, items_capacity;
    size_t distributions_capacity;
    uint8_t *wanted;   /* [2][n_classes] of the batch, and as GFLI_PART_WANTED has it */
    bool wanted_there; /* it has it */
    int n_begun;       /* images between gfl_detect_start and gfl_detect_finish */
    int most;          /* detections of each, at most */
    bool no_clip;
};

static void gfli_forget_recording(gfl_detector *d, gfli_ready *r) {
    if (r->recording) d->context->backend->record->forget(d->context, r->recording);
    r->recording = NULL;
}

gfl_status gfl_detector_create(gfl_context *context, const gfl_model *model,
                               const gfl_detector_desc *desc, gfl_detector **out) {
    gfl_detector *d;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, model);
    GFLI_NOT_NULL(context, out);
    if (context->backend != model->backend ||
        context->device_index != model->context->device_index ||
        context->precision != model->context->precision)
        return gfli_error(context, GFL_E_ARG,
                          "gfl_detector_create: the model is on \"%s\", precision %d, but the "
                          "context is on \"%s\", precision %d; both must be the same",
                          model->context->device_name, (int)model->context->precision,
                          context->device_name, (int)context->precision);
    GFLI_TRY(gfli_calloc(context, 1, sizeof *d, "detector", &d));
    d->context = context;
    d->model = model;
    d->with_distributions = desc && desc->distributions;
    const gfl_status status =
        gfli_alloc(context, (size_t)model->arch.n_classes, 2, "classes", &d->wanted);
    if (status == GFL_OK)
        *out = d;
    else
        gfl_detector_destroy(d);
    return status;
}

void gfl_detector_destroy(gfl_detector *detector) {
    if (!detector) return;
    gfl_context *context = detector->context;
    if (detector->n_begun > 0) (void)context->backend->device.finish(context);
    for (int i = 0; i < GFLI_PLANS; i++) {
        gfli_forget_recording(detector, &detector->ready[i]);
        gfli_plan_destroy(context, &detector->ready[i].plan);
    }
    (context->backend->device.free)(context, detector->arena);
    context->backend->device.host_free(context, detector->found);
    gfli_free(context, detector->images);
    gfli_free(context, detector->decoding);
    gfli_free(context, detector->items);
    gfli_free(context, detector->distributions);
    gfli_free(context, detector->wanted);
    gfli_free(context, detector);
}

/* ---- arguments ------------------------------------------------------------------------------- */

static gfl_status gfli_check_size(gfl_context *context, int width, int height, int index) {
    GFLI_DEMAND(context,
                width >= 1 && height >= 1 && width <= GFL_MAX_SIDE && height <= GFL_MAX_SIDE,
                "image %d is %d x %d; sides must be 1..%d", index, width, height, GFL_MAX_SIDE);
    return GFL_OK;
}

static gfl_status gfli_check_image(gfl_context *context, const gfl_image *image, bool on_device,
                                   int index, gfl_image *out) {
    const gfli_backend *ops = context->backend;
    int format = (int)image->format;
    if (!image->pixels) return gfli_error(context, GFL_E_ARG, "image %d: pixels is NULL", index);
    GFLI_TRY(gfli_check_size(context, image->width, image->height, index));
    if (format < 0 || format >= GFLI_FORMATS)
        return gfli_error(context, GFL_E_ARG, "image %d: format is %d, which is not a gfl_format",
                          index, format);
    ptrdiff_t row = (ptrdiff_t)image->width * gfli_pixel_bytes(image->format);
    if (image->stride != 0 && image->stride < row && image->stride > -row)
        return gfli_error(context, GFL_E_ARG,
                          "image %d: stride %td is less than a row of %d pixels, %td bytes", index,
                          image->stride, image->width, row);
    const bool owned = ops->device.owns && ops->device.owns(context, image->pixels);
    if (on_device && !owned)
        return gfli_error(context, GFL_E_ARG,
                          "image %d: on_device is set, but pixels does not point to memory of %s",
                          index, context->device_name);
    if (owned && !on_device)
        return gfli_error(context, GFL_E_ARG,
                          "image %d: pixels points to memory of %s; set on_device to say so", index,
                          context->device_name);
    *out = *image;
    out->stride = gfli_pixel_pitch(image);
    return GFL_OK;
}

/* A limit as it is used: 0 means the default, negative means none. */
static gfl_status gfli_check_limit(gfl_context *context, const char *what, int otherwise,
                                   int *limit) {
    enum { MOST = 1000000 };
    *limit = *limit == 0 ? otherwise : *limit < 0 ? MOST : *limit;
    GFLI_DEMAND(context, *limit <= MOST,
                "%s is %d; it must be 1..%d, 0 for %d, or negative for no limit", what, *limit,
                MOST, otherwise);
    return GFL_OK;
}

/* What the scale of a call is for a picture: of a negative one, its own longer side for both. */
static void gfli_detect_scale(const gfl_detect_opts *opts, int width, int height, int scale[2]) {
    const bool none = opts->scale_long < 0;
    scale[0] = none ? gfli_max(width, height) : opts->scale_long;
    scale[1] = none ? gfli_max(width, height) : opts->scale_short;
}

static gfl_status gfli_check_scale(const gfl_detector *d, gfl_detect_opts *o) {
    const gfl_preprocess *p = &d->model->preprocess;
    if (o->scale_long < 0 && o->scale_short < 0) return GFL_OK;
    GFLI_DEMAND(d->context, (o->scale_long == 0) == (o->scale_short == 0),
                "scale_long is %d and scale_short is %d; set both or none", o->scale_long,
                o->scale_short);
    if (o->scale_long == 0) {
        o->scale_long = p->scale_long;
        o->scale_short = p->scale_short;
    }
    GFLI_DEMAND(d->context,
                o->scale_short >= 1 && o->scale_long >= o->scale_short &&
                    o->scale_long <= GFL_MAX_SIDE,
                "scale_long is %d and scale_short is %d; 1 <= short <= long <= %d must hold, or "
                "both are negative for pictures of their own size",
                o->scale_long, o->scale_short, GFL_MAX_SIDE);
    return GFL_OK;
}

static gfl_status gfli_check_detect_opts(const gfl_detector *d, const gfl_detect_opts *in,
                                         gfl_detect_opts *out) {
    gfl_context *context = d->context;
    memset(out, 0, sizeof *out);
    if (in) *out = *in;
    /* Before any comparison, which NaN may pass or fail under -ffast-math. */
    const bool finite[2] = {gfli_is_finite((double)out->min_score),
                            gfli_is_finite((double)out->nms_iou)};
    if (out->min_score == 0) out->min_score = 0.05f;
    if (out->nms_iou == 0) out->nms_iou = 0.6f;
    GFLI_DEMAND(context, finite[0] && out->min_score < 1,
                "min_score is %g; it must be below 1, or negative for none",
                (double)out->min_score);
    GFLI_DEMAND(context, finite[1] && out->nms_iou <= 1,
                "nms_iou is %g; it must be at most 1, or negative for no suppression",
                (double)out->nms_iou);
    if (out->min_score < 0) out->min_score = FLT_MIN; /* no logit is infinite */
    if (out->nms_iou < 0) out->nms_iou = 2;           /* no IoU is above 1 */
    GFLI_TRY(gfli_check_limit(context, "max_per_level", GFLI_MAX_PER_LEVEL, &out->max_per_level));
    GFLI_TRY(
        gfli_check_limit(context, "max_detections", GFLI_MAX_DETECTIONS, &out->max_detections));
    GFLI_TRY(gfli_check_scale(d, out));
    if (out->event && !context->backend->device.mark)
        return gfli_error(context, GFL_E_ARG, "event is set, but %s has no events; leave it NULL",
                          context->device_name);
    return GFL_OK;
}

/* The labels that the caller wants, one byte for each. */
static gfl_status gfli_take_labels(gfl_detector *d, const gfl_detect_opts *opts) {
    const int n = d->model->arch.n_classes;
    GFLI_DEMAND(d->context, !opts->labels == (opts->n_labels == 0) && opts->n_labels >= 0,
                "labels is %s, but n_labels is %d; give a list and its length, or neither",
                opts->labels ? "a list" : "NULL", opts->n_labels);
    if (!opts->labels) return GFL_OK;
    memset(d->wanted, 0, (size_t)n);
    for (int i = 0; i < opts->n_labels; i++) {
        GFLI_DEMAND(d->context, opts->labels[i] >= 0 && opts->labels[i] < n,
                    "labels[%d] is %d; the model has the labels 0..%d", i, opts->labels[i], n - 1);
        d->wanted[opts->labels[i]] = 1;
    }
    return GFL_OK;
}

/* From the size of image i to its size for the network, and what decoding it needs. */
static void gfli_take_size(gfl_detector *d, int i, const gfl_detect_opts *opts) {
    const gfl_arch *arch = &d->model->arch;
    gfli_resized *r = &d->images[i];
    gfli_decode_opts *o = &d->decoding[i];
    int scale[2];
    gfli_detect_scale(opts, r->image.width, r->image.height, scale);
    gfli_resized_size(r->image.width, r->image.height, scale[0], scale[1], &r->width, &r->height);
    gfli_decode_opts_init(arch, o);
    o->min_score = opts->min_score;
    o->nms_iou = opts->nms_iou;
    o->max_per_level = opts->max_per_level;
    o->max_detections = opts->max_detections;
    o->agnostic = opts->agnostic != 0;
    o->height = r->height;
    o->width = r->width;
    gfli_box_scale(gfli_dialect_get(arch->dialect)->one_scale, r->image.width, r->image.height,
                   scale[0], scale[1], &o->scale_x, &o->scale_y);
}

static gfl_status gfli_reserve_images(gfl_detector *d, int n) {
    GFLI_DEMAND(d->context, n >= 1 && n <= GFLI_MAX_BATCH,
                "a batch of %d images; 1..%d are allowed", n, GFLI_MAX_BATCH);
    GFLI_DEMAND(d->context, d->n_begun == 0,
                "a batch of %d images is under way; call gfl_detect_finish first, or "
                "use another detector",
                d->n_begun);
    GFLI_TRY(gfli_reserve(d->context, &d->images, &d->images_capacity, (size_t)n, sizeof *d->images,
                          "batch"));
    return gfli_reserve(d->context, &d->decoding, &d->decoding_capacity, (size_t)n,
                        sizeof *d->decoding, "batch");
}

static gfl_status gfli_take_images(gfl_detector *d, const gfl_image *images, int n,
                                   const gfl_detect_opts *opts) {
    for (int i = 0; i < n; i++) {
        gfli_resized *r = &d->images[i];
        r->on_device = opts->on_device != 0;
        GFLI_TRY(gfli_check_image(d->context, &images[i], r->on_device, i, &r->image));
        gfli_take_size(d, i, opts);
    }
    return GFL_OK;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Where detections go in `bytes`, which is as long as needed or NULL; returns how long that is. */
static size_t gfli_lay_out_found(int n, int most, size_t logits, void *bytes, gfli_found *out) {
    gfli_cutter c = {(unsigned char *)bytes, 0};
    const size_t all = (size_t)n * (size_t)most;
    out->most = most;
    out->count = (int *)gfli_cut(&c, (size_t)n * sizeof *out->count);
    out->items = (gfli_decoded *)gfli_cut(&c, all * sizeof *out->items);
    out->logits = (float *)gfli_cut(&c, all * logits * sizeof *out->logits);
    if (logits == 0) out->logits = NULL;
    return c.used;
}

/* For images of one size in pixels, before and after resizing. */
static void gfli_parts_of(const gfl_model *model, const gfli_plan *plan, int width, int height,
                          int resized_w, int resized_h, const gfli_decode_opts *opts,
                          bool distributions, size_t parts[GFLI_PARTS]) {
    const gfli_backend *ops = model->backend;
    const gfli_map *cls = &plan->maps[plan->cls].map, *reg = &plan->maps[plan->reg].map;
    const size_t resize =
        ops->infer.resize_scratch(model->context, width, height, resized_w, resized_h);
    const size_t decode = ops->infer.decode_scratch(cls, opts);
    gfli_found ignored;
    parts[GFLI_PART_MAPS] = plan->workspace_bytes;
    parts[GFLI_PART_STATS] = plan->stats_floats * sizeof(float);
    parts[GFLI_PART_SCRATCH] = plan->scratch_bytes;
    if (resize > parts[GFLI_PART_SCRATCH]) parts[GFLI_PART_SCRATCH] = resize;
    if (decode > parts[GFLI_PART_SCRATCH]) parts[GFLI_PART_SCRATCH] = decode;
    parts[GFLI_PART_PIXELS] = (size_t)resized_w * (size_t)resized_h * 3;
    parts[GFLI_PART_FOUND] = gfli_lay_out_found(plan->batch, gfli_most_detections(cls, opts),
                                                distributions ? (size_t)reg->c : 0, NULL, &ignored);
    parts[GFLI_PART_WANTED] = (size_t)opts->n_classes;
    for (int i = 0; i < GFLI_PARTS; i++) parts[i] = gfli_padded(parts[i]);
}

size_t gfli_detector_bytes(const gfl_model *model, const gfli_plan *plan, int width, int height) {
    gfli_decode_opts opts;
    size_t parts[GFLI_PARTS], bytes = 0;
    gfli_decode_opts_init(&model->arch, &opts);
    opts.max_per_level = GFLI_MAX_PER_LEVEL;
    opts.max_detections = GFLI_MAX_DETECTIONS;
    gfli_parts_of(model, plan, width, height, width, height, &opts, false, parts);
    for (int i = 0; i < GFLI_PARTS; i++) bytes += parts[i];
    return bytes;
}

static void *gfli_arena_part(const gfl_detector *d, int part) {
    unsigned char *p = d->arena;
    for (int i = 0; i < part; i++) p += d->parts[i];
    return p;
}

/* Every part as large as now or as it was before; recordings know the old addresses. */
static gfl_status gfli_reserve_parts(gfl_detector *d, const size_t need[GFLI_PARTS]) {
    const gfli_backend *ops = d->context->backend;
    size_t most[GFLI_PARTS], bytes = 0;
    bool fits = d->arena != NULL;
    for (int i = 0; i < GFLI_PARTS; i++) {
        most[i] = need[i] > d->parts[i] ? need[i] : d->parts[i];
        fits = fits && need[i] <= d->parts[i];
        bytes += most[i];
    }
    if (fits) return GFL_OK;
    for (int i = 0; i < GFLI_PLANS; i++) gfli_forget_recording(d, &d->ready[i]);
    (ops->device.free)(d->context, d->arena);
    d->arena = NULL;
    memset(d->parts, 0, sizeof d->parts);
    d->wanted_there = false;
    GFLI_TRY(ops->device.alloc(d->context, bytes, 1, "detector's workspace", &d->arena));
    memcpy(d->parts, most, sizeof most);
    return GFL_OK;
}

/* The detections of the batch, as the device has them or as they are copied. */
static size_t gfli_found_of(const gfl_detector *d, const gfli_plan *plan, void *bytes,
                            gfli_found *out) {
    const size_t logits = d->with_distributions ? (size_t)plan->maps[plan->reg].map.c : 0;
    return gfli_lay_out_found(plan->batch, d->most, logits, bytes, out);
}

static gfl_status gfli_reserve_found(gfl_detector *d, size_t bytes) {
    const gfli_device_ops *device = &d->context->backend->device;
    return gfli_reserve_by(d->context, device->host_alloc, device->host_free, &d->found,
                           &d->found_capacity, bytes, 1, "detections");
}

/* What the caller gets: room for as many detections as there can be. */
static gfl_status gfli_reserve_lists(gfl_detector *d, size_t most) {
    GFLI_TRY(gfli_reserve(d->context, &d->items, &d->items_capacity, most, sizeof *d->items,
                          "detections"));
    if (!d->with_distributions) return GFL_OK;
    return gfli_reserve(d->context, &d->distributions, &d->distributions_capacity, most,
                        sizeof *d->distributions, "distributions");
}

/* ---- one batch ------------------------------------------------------------------------------- */

/* A plan in the memory of the one that makes room; all get the memory that any of them needs. */
static gfl_status gfli_make_plan(gfl_detector *d, int batch, int height, int width,
                                 gfli_ready *out) {
    gfli_forget_recording(d, out);
    out->ran = out->refused = false;
    for (int i = 0; i < GFLI_PLANS; i++)
        GFLI_TRY(gfli_plan_reserve(d->context, d->model, &d->ready[i].plan));
    return gfli_plan_recreate(d->context, d->model, batch, height, width, false, &out->plan);
}

static gfl_status gfli_find_plan(gfl_detector *d, int batch, int height, int width,
                                 gfli_ready **out) {
    bool known;
    const int at = gfli_recent_find(&d->recent, batch, height, width, &known);
    *out = &d->ready[at];
    const gfl_status status =
        known ? GFL_OK : gfli_make_plan(d, batch, height, width, &d->ready[at]);
    if (status != GFL_OK) gfli_recent_forget(&d->recent, at);
    return status;
}

static gfl_status gfli_prepare(gfl_detector *d, int n, gfli_ready **out) {
    size_t parts[GFLI_PARTS], need[GFLI_PARTS] = {0};
    gfli_found ignored;
    int height = 0, width = 0;
    for (int i = 0; i < n; i++) {
        height = gfli_max(height, gfli_pad32(d->images[i].height));
        width = gfli_max(width, gfli_pad32(d->images[i].width));
    }
    GFLI_TRY(gfli_find_plan(d, n, height, width, out));
    gfli_plan *plan = &(*out)->plan;
    for (int i = 0; i < n; i++) {
        const gfli_resized *r = &d->images[i];
        gfli_parts_of(d->model, plan, r->image.width, r->image.height, r->width, r->height,
                      &d->decoding[i], d->with_distributions, parts);
        for (int k = 0; k < GFLI_PARTS; k++) need[k] = parts[k] > need[k] ? parts[k] : need[k];
    }
    d->most = gfli_most_detections(&plan->maps[plan->cls].map, d->decoding);
    GFLI_TRY(gfli_reserve_parts(d, need));
    GFLI_TRY(gfli_reserve_found(d, gfli_found_of(d, plan, NULL, &ignored)));
    GFLI_TRY(gfli_reserve_lists(d, (size_t)n * (size_t)d->most));
    gfli_plan_bind(plan, gfli_arena_part(d, GFLI_PART_MAPS));
    return GFL_OK;
}

static void gfli_load_image(gfl_detector *d, const gfli_plan *plan, int index) {
    const gfli_backend *ops = d->model->backend;
    const gfl_preprocess *p = &d->model->preprocess;
    const gfli_resized *r = &d->images[index];
    uint8_t *pixels = (uint8_t *)gfli_arena_part(d, GFLI_PART_PIXELS);
    ops->infer.resize(d->context, &r->image, r->on_device, p->bgr != 0, r->width, r->height, pixels,
                      gfli_arena_part(d, GFLI_PART_SCRATCH));
    ops->infer.normalise(d->context, pixels, r->width, r->height, p->mean, p->std, false,
                         &plan->maps[plan->input].map, index);
}

/* The network, step by step where the caller wants to be asked. */
static gfl_status gfli_run_steps(gfl_detector *d, const gfli_plan *plan,
                                 const gfl_detect_opts *opts) {
    const int n = plan->n_steps;
    for (int i = 0; i < n; i++) {
        if (opts && opts->progress && opts->progress(opts->user, i, n) != 0)
            return gfli_error(d->context, GFL_E_STOPPED,
                              "gfl_detect: stopped by the progress callback after %d of %d steps",
                              i, n);
        gfli_plan_run_step(d->context, d->model, plan, i,
                           (float *)gfli_arena_part(d, GFLI_PART_STATS),
                           gfli_arena_part(d, GFLI_PART_SCRATCH));
    }
    return GFL_OK;
}

static gfl_status gfli_forward(gfl_detector *d, gfli_ready *r, const gfl_detect_opts *opts) {
    const gfli_backend *ops = d->context->backend;
    if (!ops->record || opts->progress || !r->ran || r->refused) {
        r->ran = true;
        return gfli_run_steps(d, &r->plan, opts);
    }
    if (!r->recording && ops->record->begin(d->context)) {
        (void)gfli_run_steps(d, &r->plan, NULL);
        r->recording = ops->record->end(d->context);
    }
    r->refused = !r->recording;
    if (r->refused) return gfli_run_steps(d, &r->plan, opts);
    ops->record->replay(d->context, r->recording);
    return GFL_OK;
}

/* An upload waits for what the device does, so it comes before all else, and only where other
 * classes are wanted than last time. */
static void gfli_load_labels(gfl_detector *d, int n) {
    const size_t classes = (size_t)d->model->arch.n_classes;
    uint8_t *there = (uint8_t *)gfli_arena_part(d, GFLI_PART_WANTED);
    for (int i = 0; i < n; i++) d->decoding[i].wanted = there;
    if (d->wanted_there && memcmp(d->wanted, d->wanted + classes, classes) == 0) return;
    d->context->backend->device.upload(d->context, there, d->wanted, classes);
    memcpy(d->wanted + classes, d->wanted, classes);
    d->wanted_there = true;
}

/* Everything up to the copy of what is found. */
static gfl_status gfli_begin_batch(gfl_detector *d, int n, const gfl_detect_opts *opts) {
    const gfli_backend *ops = d->context->backend;
    gfli_ready *r;
    gfli_found found;
    GFLI_TRY(gfli_prepare(d, n, &r));
    const gfli_plan *plan = &r->plan;
    if (opts->labels) gfli_load_labels(d, n);
    for (int i = 0; i < n; i++) gfli_load_image(d, plan, i);
    GFLI_TRY(gfli_forward(d, r, opts));
    const size_t bytes = gfli_found_of(d, plan, gfli_arena_part(d, GFLI_PART_FOUND), &found);
    ops->infer.decode(d->context, &plan->maps[plan->cls].map, &plan->maps[plan->reg].map,
                      d->decoding, &found, gfli_arena_part(d, GFLI_PART_SCRATCH));
    ops->device.download(d->context, d->found, gfli_arena_part(d, GFLI_PART_FOUND), bytes);
    if (opts->event) ops->device.mark(d->context, opts->event);
    return GFL_OK;
}

/* From the logits of the location a detection comes from to distances in the caller's pixels. */
static void gfli_describe_sides(const gfli_decoded *from, const float *logits,
                                const gfli_decode_opts *opts, gfl_distribution *out) {
    int l = from->level, bins = opts->n_bins;
    memset(out, 0, sizeof *out);
    out->x =
        (float)((double)gfli_position(from->x, opts->stride[l], opts->inclusive) / opts->scale_x);
    out->y =
        (float)((double)gfli_position(from->y, opts->stride[l], opts->inclusive) / opts->scale_y);
    for (int side = 0; side < 4; side++) {
        float *p = out->bins[side];
        double mean = (double)gfli_integral(logits + side * bins, bins, p), var = 0;
        for (int k = 0; k < bins; k++) var += (double)p[k] * (k - mean) * (k - mean);
        out->bin_width[side] =
            (float)(opts->stride[l] / (side % 2 == 0 ? opts->scale_x : opts->scale_y));
        out->mean[side] = (float)mean * out->bin_width[side];
        out->stddev[side] = (float)(sqrt)(var)*out->bin_width[side];
    }
}

/* The detections of image `index`, `first` in the detector's lists. */
static void gfli_collect(gfl_detector *d, const gfli_found *found, int index, size_t first) {
    const gfli_decode_opts *o = &d->decoding[index];
    const gfl_image *image = &d->images[index].image;
    const size_t at = (size_t)index * (size_t)found->most, logits = 4 * (size_t)o->n_bins;
    for (int i = 0; i < found->count[index]; i++) {
        const gfli_decoded *from = &found->items[at + (size_t)i];
        gfl_detection *item = &d->items[first + (size_t)i];
        *item = from->detection;
        /* a right or lower edge is where the last pixel of the box ends */
        item->x2 += (float)o->inclusive;
        item->y2 += (float)o->inclusive;
        if (!d->no_clip) gfli_clip_box(item, image->width, image->height);
        if (d->with_distributions)
            gfli_describe_sides(from, found->logits + (at + (size_t)i) * logits, o,
                                &d->distributions[first + (size_t)i]);
    }
}

static gfl_status gfli_finish_batch(gfl_detector *d, int n, gfl_detection_list *out) {
    gfli_found found;
    size_t first = 0;
    const size_t logits = d->with_distributions ? 4 * (size_t)d->decoding[0].n_bins : 0;
    GFLI_TRY(d->context->backend->device.finish(d->context));
    (void)gfli_lay_out_found(n, d->most, logits, d->found, &found);
    for (int i = 0; i < n; i++) {
        gfli_collect(d, &found, i, first);
        out[i].items = d->items + first;
        out[i].distributions = d->with_distributions ? d->distributions + first : NULL;
        out[i].count = found.count[i];
        first += (size_t)found.count[i];
    }
    return GFL_OK;
}

/* ---- calls ----------------------------------------------------------------------------------- */

gfl_status gfl_detector_get_size(gfl_detector *detector, int width, int height,
                                 const gfl_detect_opts *opts, gfl_input_size *out) {
    gfl_detect_opts resolved;
    int scale[2];
    GFLI_NOT_NULL(NULL, detector);
    GFLI_NOT_NULL(detector->context, out);
    memset(out, 0, sizeof *out);
    GFLI_TRY(gfli_check_size(detector->context, width, height, 0));
    GFLI_TRY(gfli_check_detect_opts(detector, opts, &resolved));
    gfli_detect_scale(&resolved, width, height, scale);
    gfli_resized_size(width, height, scale[0], scale[1], &out->width, &out->height);
    out->padded_width = gfli_pad32(out->width);
    out->padded_height = gfli_pad32(out->height);
    return GFL_OK;
}

gfl_status gfl_detector_reserve(gfl_detector *detector, int width, int height, int batch,
                                const gfl_detect_opts *opts) {
    gfl_detect_opts resolved;
    gfli_ready *ready;
    GFLI_NOT_NULL(NULL, detector);
    GFLI_TRY(gfli_check_size(detector->context, width, height, 0));
    GFLI_TRY(gfli_check_detect_opts(detector, opts, &resolved));
    GFLI_TRY(gfli_reserve_images(detector, batch));
    for (int i = 0; i < batch; i++) {
        memset(&detector->images[i], 0, sizeof detector->images[i]);
        detector->images[i].image.width = width;
        detector->images[i].image.height = height;
        gfli_take_size(detector, i, &resolved);
    }
    return gfli_prepare(detector, batch, &ready);
}

gfl_status gfl_detect_start(gfl_detector *detector, const gfl_image *images, int n,
                            const gfl_detect_opts *opts) {
    gfl_detect_opts resolved;
    GFLI_NOT_NULL(NULL, detector);
    gfl_context *context = detector->context;
    GFLI_NOT_NULL(context, images);
    GFLI_TRY(gfli_reserve_images(detector, n));
    GFLI_TRY(gfli_model_check_packed(context, detector->model, "gfl_detect"));
    GFLI_TRY(gfli_check_detect_opts(detector, opts, &resolved));
    GFLI_TRY(gfli_take_labels(detector, &resolved));
    GFLI_TRY(gfli_take_images(detector, images, n, &resolved));
    const gfl_status status = gfli_begin_batch(detector, n, &resolved);
    if (status != GFL_OK) { /* nothing reads the images any more */
        char text[sizeof context->error];
        memcpy(text, context->error, sizeof text);
        if (context->backend->device.finish(context) == GFL_OK)
            memcpy(context->error, text, sizeof text);
        return status;
    }
    detector->no_clip = resolved.no_clip != 0;
    detector->n_begun = n;
    return GFL_OK;
}

gfl_status gfl_detect_finish(gfl_detector *detector, gfl_detection_list *out) {
    GFLI_NOT_NULL(NULL, detector);
    const int n = detector->n_begun;
    GFLI_DEMAND(detector->context, n > 0, "gfl_detect_finish: no batch was started");
    GFLI_NOT_NULL(detector->context, out);
    memset(out, 0, (size_t)n * sizeof *out);
    detector->n_begun = 0;
    return gfli_finish_batch(detector, n, out);
}

gfl_status gfl_detect(gfl_detector *detector, const gfl_image *images, int n,
                      const gfl_detect_opts *opts, gfl_detection_list *out) {
    GFLI_NOT_NULL(NULL, detector);
    GFLI_NOT_NULL(detector->context, out);
    if (n > 0 && n <= GFLI_MAX_BATCH) memset(out, 0, (size_t)n * sizeof *out);
    GFLI_TRY(gfl_detect_start(detector, images, n, opts));
    return gfl_detect_finish(detector, out);
}

GFLI_END

#endif /* GFL_IMPLEMENTED */
#endif
