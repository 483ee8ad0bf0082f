/* device.cuh - a GPU as the device of a context: its stream, its memory, its failures */
#pragma once

/* Everything of a context happens in one stream.  The first failure is kept: from then on nothing
 * is asked of the device but to take memory back, and gfli_finish_cuda tells. */
typedef struct gfli_cuda {
    int index;
    cudaStream_t stream;
    bool borrowed; /* the stream is the caller's */
    cudaError_t failed;
    const char *during;
    gfli_conv_device conv; /* what its tensor cores can do; not asked for in fp32 */
    int preferred;         /* of gfli_conv_variants, or -1 */
    bool tune;             /* time kernels rather than estimate them */
    struct gfli_tuned *tuned;
    size_t n_tuned, tuned_capacity;
} gfli_cuda;

enum { GFLI_CUDA_LOWEST = 8, GFLI_THREADS = 256 };

static gfli_cuda *gfli_cuda_of(const gfl_context *context) {
    return (gfli_cuda *)context->device;
}

/* Whether the device may be used; every operation begins with it. */
static bool gfli_cuda_ready(const gfl_context *context) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (d->failed == cudaSuccess) {
        d->failed = cudaSetDevice(d->index);
        d->during = "choosing the device";
    }
    return d->failed == cudaSuccess;
}

static bool gfli_cuda_note(const gfl_context *context, cudaError_t e, const char *during) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (e == cudaSuccess || d->failed != cudaSuccess) return e == cudaSuccess;
    d->failed = e;
    d->during = during;
    return false;
}

/* After a launch. */
static void gfli_cuda_launched(const gfl_context *context, const char *during) {
    (void)gfli_cuda_note(context, cudaGetLastError(), during);
}

static unsigned gfli_blocks(size_t n) {
    return (unsigned)((n + GFLI_THREADS - 1) / GFLI_THREADS);
}

static gfl_status gfli_finish_cuda(gfl_context *context) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (gfli_cuda_ready(context))
        (void)gfli_cuda_note(context, cudaStreamSynchronize(d->stream), "waiting for the network");
    if (d->failed == cudaSuccess) return GFL_OK;
    return gfli_error(context, GFL_E_DEVICE,
                      "%s: CUDA failed in %s: %s; this context cannot be used any more: destroy it "
                      "and what was made with it",
                      context->device_name, d->during, cudaGetErrorString(d->failed));
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Of the device, or page-locked of the host. */
static gfl_status gfli_cuda_take(gfl_context *context, bool host, size_t count, size_t size,
                                 const char *what, void *out_pointer) {
    void *p = NULL;
    size_t bytes, available = 0, total = 0;
    memcpy(out_pointer, &p, sizeof p);
    if (!gfli_mul(count, size, &bytes))
        return gfli_error(context, GFL_E_MEMORY,
                          "%s: %zu elements of %zu bytes are more than memory can hold", what,
                          count, size);
    if (!gfli_cuda_ready(context)) return gfli_finish_cuda(context);
    if (bytes == 0) bytes = 1;
    const cudaError_t e = host ? cudaMallocHost(&p, bytes) : cudaMalloc(&p, bytes);
    if (e == cudaSuccess) {
        memcpy(out_pointer, &p, sizeof p);
        return GFL_OK;
    }
    (void)cudaGetLastError(); /* a refused allocation leaves the device as it was */
    if (e != cudaErrorMemoryAllocation) {
        (void)gfli_cuda_note(context, e, what);
        return gfli_finish_cuda(context);
    }
    if (host)
        return gfli_error(context, GFL_E_MEMORY,
                          "out of page-locked host memory: %s wanted %zu bytes", what, bytes);
    (void)cudaMemGetInfo(&available, &total);
    return gfli_error(context, GFL_E_MEMORY,
                      "out of memory on %s: %s wanted %zu bytes, %zu of %zu are free",
                      context->device_name, what, bytes, available, total);
}

static gfl_status gfli_alloc_cuda(gfl_context *context, size_t count, size_t size, const char *what,
                                  void *out_pointer) {
    return gfli_cuda_take(context, false, count, size, what, out_pointer);
}

static gfl_status gfli_host_alloc_cuda(gfl_context *context, size_t count, size_t size,
                                       const char *what, void *out_pointer) {
    return gfli_cuda_take(context, true, count, size, what, out_pointer);
}

/* Also after a failure: what can be given back is. */
static void gfli_host_free_cuda(gfl_context *context, void *pointer) {
    if (!pointer) return;
    (void)cudaSetDevice(gfli_cuda_of(context)->index);
    (void)gfli_cuda_note(context, cudaFreeHost(pointer), "freeing memory");
}

static void gfli_free_cuda(gfl_context *context, void *pointer) {
    if (!pointer) return;
    (void)cudaSetDevice(gfli_cuda_of(context)->index);
    (void)gfli_cuda_note(context, cudaFree(pointer), "freeing memory");
}

/* Waits, so that the caller may change `from` at once even where it is page-locked. */
static void gfli_upload_cuda(gfl_context *context, void *to, const void *from, size_t bytes) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (bytes == 0 || !gfli_cuda_ready(context)) return;
    if (gfli_cuda_note(context, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, d->stream),
                       "a copy to the device"))
        (void)gfli_cuda_note(context, cudaStreamSynchronize(d->stream), "a copy to the device");
}

static void gfli_download_cuda(gfl_context *context, void *to, const void *from, size_t bytes) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (bytes > 0 && gfli_cuda_ready(context))
        (void)gfli_cuda_note(context,
                             cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d->stream),
                             "a copy to the host");
}

static void gfli_zero_cuda(gfl_context *context, void *to, size_t bytes) {
    if (bytes > 0 && gfli_cuda_ready(context))
        (void)gfli_cuda_note(context, cudaMemsetAsync(to, 0, bytes, gfli_cuda_of(context)->stream),
                             "clearing memory");
}

/* Managed memory is the device's as well. */
static bool gfli_owns_cuda(gfl_context *context, const void *pointer) {
    cudaPointerAttributes a;
    if (!gfli_cuda_ready(context)) return false;
    if (cudaPointerGetAttributes(&a, pointer) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    return a.type == cudaMemoryTypeManaged ||
           (a.type == cudaMemoryTypeDevice && a.device == gfli_cuda_of(context)->index);
}

/* ---- events and recordings ------------------------------------------------------------------- */

static void gfli_mark_cuda(gfl_context *context, void *event) {
    if (gfli_cuda_ready(context))
        (void)gfli_cuda_note(context,
                             cudaEventRecord((cudaEvent_t)event, gfli_cuda_of(context)->stream),
                             "recording the caller's event");
}

static bool gfli_record_cuda(gfl_context *context) {
    if (!gfli_cuda_ready(context)) return false;
    const bool began = cudaStreamBeginCapture(gfli_cuda_of(context)->stream,
                                              cudaStreamCaptureModeThreadLocal) == cudaSuccess;
    if (!began) (void)cudaGetLastError();
    return began;
}

/* What fails in a capture was not done, so it is no failure of the device. */
static void *gfli_recorded_cuda(gfl_context *context) {
    gfli_cuda *d = gfli_cuda_of(context);
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    bool good = cudaStreamEndCapture(d->stream, &graph) == cudaSuccess && graph != NULL;
    good = good && d->failed == cudaSuccess;
    good = good && cudaGraphInstantiate(&ready, graph, 0) == cudaSuccess;
    if (graph) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    d->failed = cudaSuccess;
    return good ? (void *)ready : NULL;
}

static void gfli_replay_cuda(gfl_context *context, void *recording) {
    if (gfli_cuda_ready(context))
        (void)gfli_cuda_note(
            context, cudaGraphLaunch((cudaGraphExec_t)recording, gfli_cuda_of(context)->stream),
            "the network");
}

static void gfli_forget_cuda(gfl_context *context, void *recording) {
    (void)cudaSetDevice(gfli_cuda_of(context)->index);
    (void)cudaGraphExecDestroy((cudaGraphExec_t)recording);
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Without a driver this fails and leaves n alone. */
static gfl_status gfli_cuda_find(gfl_context *context) {
    int n = 0;
    const cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaErrorInsufficientDriver || e == cudaErrorStubLibrary)
        return gfli_error(context, GFL_E_DEVICE,
                          "no NVIDIA driver that CUDA %d.%d can use (%s): install one, or use the "
                          "CPU",
                          CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, cudaGetErrorString(e));
    if (e != cudaSuccess || n < 1)
        return gfli_error(context, GFL_E_DEVICE, "no NVIDIA GPU here (%s): use the CPU",
                          e == cudaSuccess ? "the driver sees none" : cudaGetErrorString(e));
    if (context->device_index >= n)
        return gfli_error(context, GFL_E_DEVICE,
                          "there is no GPU %d: the driver sees %d, counted from 0",
                          context->device_index, n);
    return GFL_OK;
}

/* Hopper's own instructions are in no build for sm_90, which only looks as if it were meant. */
static const char *gfli_cuda_arch(const cudaDeviceProp *p, char text[16]) {
    snprintf(text, 16, "sm_%d%d%s", p->major, p->minor, p->major == 9 ? "a" : "");
    return text;
}

static __global__ void gfli_probe_kernel(void) {
}

/* Whether this build has code for the device; a kernel that cannot be loaded says so. */
static gfl_status gfli_cuda_probe(gfl_context *context, const cudaDeviceProp *p) {
    char arch[16];
    cudaFuncAttributes unused;
    const cudaError_t e = cudaFuncGetAttributes(&unused, (const void *)gfli_probe_kernel);
    if (p->major >= GFLI_CUDA_LOWEST && e == cudaSuccess) return GFL_OK;
    (void)cudaGetLastError();
    if (p->major < GFLI_CUDA_LOWEST)
        return gfli_error(context, GFL_E_DEVICE,
                          "%s has compute capability %d.%d; %d.0 or later is needed", p->name,
                          p->major, p->minor, GFLI_CUDA_LOWEST);
    return gfli_error(context, GFL_E_DEVICE,
                      "this build has no kernels for %s, compute capability %d.%d (%s): build "
                      "gfl_cuda.cu with -arch=%s",
                      p->name, p->major, p->minor, cudaGetErrorString(e), gfli_cuda_arch(p, arch));
}

/* The variant that the caller prefers: its name must be one, or "mma". */
static gfl_status gfli_cuda_prefer(gfl_context *context, const char *name, int *out) {
    char names[512] = "mma, ";
    *out = -1;
    if (!name || strcmp(name, "mma") == 0) return GFL_OK;
    for (int i = 0; i < GFLI_CONV_VARIANTS; i++) {
        const size_t used = strlen(names);
        if (strcmp(name, gfli_conv_variants[i].name) == 0) *out = i;
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                 gfli_conv_variants[i].name);
    }
    if (*out >= 0) return GFL_OK;
    return gfli_error(context, GFL_E_ARG, "there is no kernel \"%.40s\"; there are %s", name,
                      names);
}

/* What convolutions on the tensor cores need.  wgmma: may be asked for. */
static gfl_status gfli_cuda_open_tensor(gfl_context *context, gfli_cuda *d,
                                        const cudaDeviceProp *p, bool wgmma) {
    char arch[16];
    const size_t bytes = GFLI_MAX_SPLIT_TILES * sizeof *d->conv.arrived;
    static const gfli_element elements[] = {GFLI_MAP_F32, GFLI_MAP_F32, GFLI_MAP_BF16,
                                            GFLI_MAP_FP16};
    context->element = elements[(int)context->precision];
    if (context->precision == GFL_PRECISION_FP32) return GFL_OK;
    if (!gfli_cuda_note(context, gfli_conv_device_query(wgmma, d->stream, &d->conv),
                        "asking the device"))
        return gfli_finish_cuda(context);
    if (wgmma && p->major == 9 && context->element != GFLI_MAP_F32 && !d->conv.wgmma)
        gfli_log(context, GFL_LOG_WARNING,
                 "%s: this build is without the faster convolutions of that GPU (wgmma): build "
                 "gfl_cuda.cu with -arch=%s",
                 context->device_name, gfli_cuda_arch(p, arch));
    GFLI_TRY(gfli_alloc_cuda(context, bytes, 1, "counters", &d->conv.arrived));
    (void)gfli_cuda_note(context, cudaMemsetAsync(d->conv.arrived, 0, bytes, d->stream),
                         "counters");
    return gfli_finish_cuda(context);
}

static gfl_status gfli_open_cuda(gfl_context *context, const gfl_context_desc *desc) {
    gfli_cuda *d;
    cudaDeviceProp p;
    int preferred;
    if ((int)desc->precision < 0 || (int)desc->precision > (int)GFL_PRECISION_FP16)
        return gfli_error(context, GFL_E_UNSUPPORTED,
                          "precision is %d, which is not a gfl_precision",
                          (int)desc->precision);
    GFLI_TRY(gfli_cuda_prefer(context, desc->kernel, &preferred));
    GFLI_TRY(gfli_cuda_find(context));
    GFLI_TRY(gfli_calloc(context, 1, sizeof *d, "the device", &d));
    d->preferred = preferred;
    d->tune = desc->tune != 0;
    d->index = context->device_index;
    d->during = "opening the device";
    context->device = d;
    snprintf(context->device_name, sizeof context->device_name, "cuda:%d", d->index);
    d->failed = cudaSetDevice(d->index);
    if (d->failed == cudaSuccess) d->failed = cudaGetDeviceProperties(&p, d->index);
    if (d->failed != cudaSuccess) return gfli_finish_cuda(context);
    GFLI_TRY(gfli_cuda_probe(context, &p));
    snprintf(context->device_name, sizeof context->device_name,
             "cuda:%d, %.100s, sm_%d%d, %.1f GiB", d->index, p.name, p.major, p.minor,
             (double)p.totalGlobalMem / 1073741824.0);
    d->borrowed = desc->stream != NULL;
    if (d->borrowed)
        d->stream = (cudaStream_t)desc->stream;
    else
        d->failed = cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking);
    GFLI_TRY(gfli_finish_cuda(context));
    return gfli_cuda_open_tensor(context, d, &p, !desc->kernel || strcmp(desc->kernel, "mma") != 0);
}

static void gfli_close_cuda(gfl_context *context) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (!d) return;
    (void)cudaSetDevice(d->index);
    if (d->stream && !d->borrowed) (void)cudaStreamDestroy(d->stream);
    gfli_free(context, d->tuned);
    (void)cudaFree(d->conv.arrived);
    gfli_free(context, d);
    context->device = NULL;
}
