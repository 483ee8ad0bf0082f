/* device.cuh - a GPU as the device of a context: its stream, its memory, its failures */
#pragma once

/* Everything of a context happens in one stream.  The first failure is kept: from then on nothing
 * is asked of the device, and gfli_finish_cuda tells. */
typedef struct gfli_cuda {
    int index;
    cudaStream_t stream;
    cudaError_t failed;
    const char *during;
    void *host; /* page-locked, for what comes back */
    size_t host_bytes;
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

static gfl_status gfli_alloc_cuda(gfl_context *context, size_t count, size_t size, const char *what,
                                  void *out_pointer) {
    void *p = NULL;
    size_t bytes, available = 0, total = 0;
    memcpy(out_pointer, &p, sizeof p);
    if (!gfli_mul(count, size, &bytes))
        return gfli_error(context, GFL_E_MEMORY, "%s: %zu elements of %zu bytes overflow", what,
                          count, size);
    if (!gfli_cuda_ready(context)) return gfli_finish_cuda(context);
    const cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaSuccess) {
        memcpy(out_pointer, &p, sizeof p);
        return GFL_OK;
    }
    (void)cudaGetLastError(); /* a refused allocation leaves the device as it was */
    if (e != cudaErrorMemoryAllocation) {
        (void)gfli_cuda_note(context, e, what);
        return gfli_finish_cuda(context);
    }
    (void)cudaMemGetInfo(&available, &total);
    return gfli_error(context, GFL_E_MEMORY,
                      "out of memory on %s: %s wanted %zu bytes, %zu of %zu are free",
                      context->device_name, what, bytes, available, total);
}

static void gfli_free_cuda(gfl_context *context, void *pointer) {
    if (pointer && gfli_cuda_ready(context))
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
    if (bytes == 0 || !gfli_cuda_ready(context)) return;
    if (gfli_cuda_note(context, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d->stream),
                       "a copy to the host"))
        (void)gfli_cuda_note(context, cudaStreamSynchronize(d->stream), "a copy to the host");
}

/* Page-locked memory for what comes back; NULL where there is none. */
static void *gfli_cuda_host(gfl_context *context, size_t bytes) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (!gfli_cuda_ready(context)) return NULL;
    if (bytes <= d->host_bytes) return d->host;
    (void)cudaFreeHost(d->host);
    d->host = NULL;
    d->host_bytes = 0;
    if (!gfli_cuda_note(context, cudaMallocHost(&d->host, bytes), "page-locked host memory"))
        return NULL;
    d->host_bytes = bytes;
    return d->host;
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

static __global__ void gfli_probe_kernel(void) {
}

/* Whether this build has code for the device; a kernel that cannot be loaded says so. */
static gfl_status gfli_cuda_probe(gfl_context *context, const cudaDeviceProp *p) {
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
                      "gfl_cuda.cu with -arch=sm_%d%d",
                      p->name, p->major, p->minor, cudaGetErrorString(e), p->major, p->minor);
}

static gfl_status gfli_open_cuda(gfl_context *context, const gfl_context_desc *desc) {
    gfli_cuda *d;
    cudaDeviceProp p;
    if (desc->precision != GFL_PRECISION_FP32)
        return gfli_error(context, GFL_E_UNSUPPORTED, "precision %d is none that CUDA has here",
                          (int)desc->precision);
    GFLI_TRY(gfli_cuda_find(context));
    GFLI_TRY(gfli_calloc(context, 1, sizeof *d, "the device", &d));
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
    d->failed = cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking);
    return gfli_finish_cuda(context);
}

static void gfli_close_cuda(gfl_context *context) {
    gfli_cuda *d = gfli_cuda_of(context);
    if (!d) return;
    (void)cudaSetDevice(d->index);
    if (d->stream) (void)cudaStreamDestroy(d->stream);
    (void)cudaFreeHost(d->host);
    gfli_free(context, d);
    context->device = NULL;
}
