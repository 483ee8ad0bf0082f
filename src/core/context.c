/* context.c - gfl_context: creation, error text, logging, memory */
#pragma once

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
