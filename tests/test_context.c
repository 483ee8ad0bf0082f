/* test_context.c - contexts, their threads, memory and random numbers */
#include "test.h"

static void add_task(void *arg, int task, int slot) {
    CHECK(slot >= 0 && slot < 3);
    __atomic_fetch_add((long *)arg, (long)task, __ATOMIC_RELAXED);
}

static void parallel_loops_do_every_task_once(void) {
    gfl_context *context = test_context(3);
    long sum = 0;
    for (int i = 0; i < 500; i++) gfli_parallel_for(context, 37, add_task, &sum);
    CHECK(sum == 500 * 37 * 36 / 2);
    gfl_context_destroy(context);
}

static int hosted_calls;
static void hosted_run(void *user, int n, gfl_task task, void *arg) {
    CHECK(user == &hosted_calls);
    hosted_calls++;
    for (int i = n - 1; i >= 0; i--) task(arg, i);
}

static void a_host_may_bring_its_own_threads(void) {
    gfl_context_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 3;
    desc.parallel.run = hosted_run;
    desc.parallel.user = &hosted_calls;
    gfl_context *context;
    CHECK(gfl_context_create(&desc, &context) == GFL_OK);
    long sum = 0;
    gfli_parallel_for(context, 10, add_task, &sum);
    CHECK(sum == 45 && hosted_calls == 1);
    gfl_context_destroy(context);
}

/* Creating a context fails with this status, and its text contains this. */
static bool refused(const gfl_context_desc *desc, gfl_status status, const char *text) {
    gfl_context *context = (gfl_context *)&context;
    const gfl_status got = gfl_context_create(desc, &context);
    if (got == status && !context && strstr(desc->error, text)) return true;
    printf("%s: %s\n", gfl_status_get_name(got), desc->error);
    return false;
}

static void descriptions_are_checked(void) {
    char text[300] = "old";
    gfl_context_desc desc;
    gfl_context *context = NULL;
    memset(&desc, 0, sizeof desc);
    desc.error = text;
    desc.error_size = sizeof text;
    const gfl_context_desc none = desc;
    desc.n_threads = -1;
    CHECK(refused(&desc, GFL_E_ARG, "n_threads is -1"));
    desc.n_threads = 257;
    CHECK(refused(&desc, GFL_E_ARG, "n_threads is 257; it must be 1..256"));
    desc = none;
    desc.allocator.alloc = (void *(*)(void *, size_t))1;
    CHECK(refused(&desc, GFL_E_ARG, "the allocator lacks free"));
    desc = none;
    CHECK(gfl_context_create(&desc, NULL) == GFL_E_ARG && strstr(text, "out is NULL"));
    desc.device_index = 1;
    CHECK(gfl_context_create(&desc, &context) == GFL_E_DEVICE && strstr(text, "only index 0"));
    desc.device_index = -1;
    CHECK(gfl_context_create(&desc, &context) == GFL_E_ARG && strstr(text, "device_index is -1"));
    desc.device_index = 0;
    desc.precision = (gfl_precision)3;
    CHECK(gfl_context_create(&desc, &context) == GFL_E_UNSUPPORTED && strstr(text, "fp32 only"));
    CHECK(gfl_context_create(NULL, NULL) == GFL_E_ARG);
    gfl_context_destroy(NULL);
}

static const char *logged;

static void keep_log(void *user, gfl_log_level level, const char *message) {
    CHECK(user == &logged && level == GFL_LOG_ERROR);
    logged = strstr(message, "n_threads is -1") ? "right" : "wrong";
}

static void without_a_place_for_the_text_the_logger_gets_it(void) {
    gfl_context_desc desc;
    gfl_context *context;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = -1;
    desc.logger.log = keep_log;
    desc.logger.user = &logged;
    CHECK(gfl_context_create(&desc, &context) == GFL_E_ARG && logged && !strcmp(logged, "right"));
    CHECK(strstr(gfl_context_get_error(NULL), "is NULL"));
}

static void another_abi_is_refused_without_reading_its_structs(void) {
    char text[300];
    gfl_context *context = (gfl_context *)text;
    const gfl_context_desc *const unreadable = (const gfl_context_desc *)1;
    for (int abi = -1; abi <= GFL_ABI + 1; abi++) {
        if (abi == GFL_ABI) continue;
        text[0] = 0;
        CHECK(gfl_context_create_abi(abi, unreadable, text, sizeof text, &context) ==
              GFL_E_UNSUPPORTED);
        CHECK(!context && strstr(text, "compile the program with the header of this library"));
        CHECK(gfl_context_create_abi(abi, unreadable, NULL, 0, NULL) == GFL_E_UNSUPPORTED);
    }
    CHECK(gfl_context_create_abi(GFL_ABI, NULL, NULL, 0, &context) == GFL_OK);
    gfl_context_destroy(context);
}

static void a_backend_of_another_version_is_refused_without_calling_it(void) {
    char text[300];
    gfl_context_desc desc;
    gfli_backend other;
    memset(&desc, 0, sizeof desc);
    memset(&other, 0, sizeof other); /* none of its functions can be called */
    desc.backend = &other;
    desc.error = text;
    desc.error_size = sizeof text;
    for (int i = 0; i < 2; i++) {
        other.abi = GFL_ABI + (i == 0);
        other.version = GFLI_BACKEND_VERSION - (i == 1);
        CHECK(refused(&desc, GFL_E_UNSUPPORTED, "compile gfl.h and gfl_cuda.cu of one version"));
    }
    gfli_train_ops training;
    memset(&training, 0, sizeof training);
    training.version = GFLI_BACKEND_VERSION + 1;
    other.version = GFLI_BACKEND_VERSION;
    other.train = &training;
    CHECK(refused(&desc, GFL_E_UNSUPPORTED, "compile all files of one version"));
}

/* What the machine has is asked of the compiler, not of the library. */
static void the_fastest_kernels_are_chosen_unless_others_are_named(void) {
    char text[300];
    gfl_context_desc desc;
    gfl_context *context;
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2"), avx512 = __builtin_cpu_supports("avx512f");
    const char *best = avx512 ? "avx512" : avx2 ? "avx2" : "portable";
    const char *title = avx512 ? "CPU, AVX-512, 1 thread" : avx2 ? "CPU, AVX2" : "CPU, plain C";
#elif defined(__aarch64__)
    const char *best = "neon", *title = "CPU, NEON, 1 thread";
#else
    const char *best = "portable", *title = "CPU, plain C, 1 thread";
#endif
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 1;
    desc.error = text;
    desc.error_size = sizeof text;
    CHECK(!strcmp(gfl_cpu_get_kernel(0), best) && !gfl_cpu_get_kernel(-1));
    CHECK(!gfl_cpu_get_kernel(100) && !gfl_cpu_get_kernel(INT_MIN) && !gfl_cpu_get_kernel(INT_MAX));
    for (int i = -1; i < 0 || gfl_cpu_get_kernel(i); i++) {
        desc.kernel = gfl_cpu_get_kernel(i); /* first NULL */
        CHECK(gfl_context_create(&desc, &context) == GFL_OK);
        CHECK(!strcmp(gfli_kernels_of(context)->name, desc.kernel ? desc.kernel : best));
        if (i <= 0) CHECK(!strncmp(gfl_context_get_device(context), title, strlen(title)));
        gfl_context_destroy(context);
    }
    desc.kernel = "mma";
    CHECK(refused(&desc, GFL_E_ARG, "kernel \"mma\" is none of "));
    CHECK(strstr(text, best) && strstr(text, "portable"));
}

static void memory_is_aligned_and_sizes_cannot_overflow(void) {
    gfl_context *context = test_context(1);
    for (size_t n = 0; n < 100; n++) {
        void *p;
        CHECK_OK(context, gfli_alloc(context, n, 3, "a test", &p));
        CHECK(((uintptr_t)p & 63) == 0);
        gfli_free(context, p);
    }
    void *p = context;
    CHECK_ERROR(context, gfli_alloc(context, SIZE_MAX / 2, 3, "a test", &p), GFL_E_MEMORY,
                "more than memory");
    CHECK(!p);
    CHECK_ERROR(context, gfli_alloc(context, SIZE_MAX, 1, "a test", &p), GFL_E_MEMORY, "a test");
    int *grown = NULL;
    size_t capacity = 0;
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(context, gfli_grow(context, &grown, &capacity, (size_t)i + 1, sizeof *grown, "x"));
        grown[i] = i;
    }
    for (int i = 0; i < 1000; i++) CHECK(grown[i] == i);
    gfli_free(context, grown);
    gfl_context_destroy(context);
}

static void draws_depend_on_their_keys_alone(void) {
    gfli_rng a = gfli_rng_make(1, 2, 3, 4), b = gfli_rng_make(1, 2, 3, 4);
    gfli_rng c = gfli_rng_make(1, 3, 2, 4);
    uint64_t first = gfli_rng_next(&a);
    CHECK(first == gfli_rng_next(&b) && first != gfli_rng_next(&c));
    int seen[7] = {0};
    for (int i = 0; i < 7000; i++) {
        int k = gfli_rng_below(&a, 7);
        CHECK(k >= 0 && k < 7);
        if (k >= 0 && k < 7) seen[k]++;
    }
    for (int k = 0; k < 7; k++) CHECK(seen[k] > 850 && seen[k] < 1150);
    double sum = 0, squares = 0;
    for (int i = 0; i < 20000; i++) {
        double v = gfli_rng_normal(&a);
        sum += v;
        squares += v * v;
    }
    CHECK_NEAR(sum / 20000, 0, 0.03);
    CHECK_NEAR(squares / 20000, 1, 0.05);
}

static void every_status_has_a_name(void) {
    for (int s = 0; s >= (int)GFL_E_UNSUPPORTED; s--)
        CHECK(!strncmp(gfl_status_get_name((gfl_status)s), "GFL_", 4));
    CHECK(!strcmp(gfl_status_get_name((gfl_status)1), "unknown status"));
    CHECK(gfl_get_version() == GFL_VERSION);
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", GFL_VERSION_MAJOR, GFL_VERSION_MINOR,
             GFL_VERSION_PATCH);
    CHECK(!strcmp(text, GFL_VERSION_TEXT));
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(parallel_loops_do_every_task_once),
        TEST(a_host_may_bring_its_own_threads),
        TEST(descriptions_are_checked),
        TEST(without_a_place_for_the_text_the_logger_gets_it),
        TEST(another_abi_is_refused_without_reading_its_structs),
        TEST(a_backend_of_another_version_is_refused_without_calling_it),
        TEST_CPU(the_fastest_kernels_are_chosen_unless_others_are_named),
        TEST(memory_is_aligned_and_sizes_cannot_overflow),
        TEST(draws_depend_on_their_keys_alone),
        TEST(every_status_has_a_name),
        {0},
    };
    return test_main(argc, argv, cases);
}
