/* test.h - the harness: a program of named cases, each of which may be run alone
 *
 *     static void sums_are_right(void) { CHECK(1 + 1 == 2); }
 *     int main(int argc, char **argv) {
 *         static const test_case cases[] = {TEST(sums_are_right), {0}};
 *         return test_main(argc, argv, cases);
 *     }
 *
 * Arguments: the backend ("cpu", "guard" or "cuda"), then optionally part of a case's name.  Exit
 * status: 0, 1 when a check failed, 77 when everything was skipped, which CTest shows as such. */
#ifndef GFL_TEST_H
#define GFL_TEST_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef GFL_INTERNAL
#    define GFL_INTERNAL
#endif
#include "gfl.h"

typedef enum test_where { TEST_EVERYWHERE, TEST_ON_CPU, TEST_IN_TRAINING } test_where;

typedef struct test_case {
    const char *name;
    void (*run)(void);
    test_where where;
} test_case;

#define TEST(function)                                                                             \
    { #function, function, TEST_EVERYWHERE }
#define TEST_CPU(function)                                                                         \
    { #function, function, TEST_ON_CPU } /* of what other backends do not have */
#define TEST_TRAIN(function)                                                                       \
    { #function, function, TEST_IN_TRAINING } /* skipped by backends that only detect */

/* What the contexts of a test compute on; NULL: the CPU. */
static const gfl_backend *test_backend;

static int test_failures, test_checks, test_skips;

static inline void test_fail(const char *file, int line, const char *what) {
    test_failures++;
    if (test_failures <= 30) printf("%s:%d: %s\n", file, line, what);
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        test_checks++;                                                                             \
        if (!(condition)) test_fail(__FILE__, __LINE__, "failed: " #condition);                    \
    } while (0)

/* The call succeeds; if not, the context's text is shown. */
#define CHECK_OK(context, call)                                                                    \
    do {                                                                                           \
        gfl_status test_status_ = (call);                                                          \
        test_checks++;                                                                             \
        if (test_status_ != GFL_OK) {                                                              \
            printf("%s: %s\n", gfl_status_get_name(test_status_), gfl_context_get_error(context)); \
            test_fail(__FILE__, __LINE__, "failed: " #call);                                       \
        }                                                                                          \
    } while (0)

/* The call fails with this status, and the context's text contains this. */
#define CHECK_ERROR(context, call, status, text)                                                   \
    do {                                                                                           \
        gfl_status test_status_ = (call);                                                          \
        test_checks++;                                                                             \
        if (test_status_ != (status) || !strstr(gfl_context_get_error(context), text)) {           \
            printf("%s: %s\n", gfl_status_get_name(test_status_), gfl_context_get_error(context)); \
            test_fail(__FILE__, __LINE__, "not " #status " with " #text ": " #call);               \
        }                                                                                          \
    } while (0)

/* |got - want| <= tolerance * max(1, |want|), element by element; only the worst is reported. */
static inline void test_close(const float *got, const float *want, size_t n, double tolerance,
                              const char *file, int line) {
    double worst = -1;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - (double)want[i]) / fmax(1, fabs((double)want[i]));
        if (isnan(e)) e = INFINITY;
        if (e > worst) {
            worst = e;
            at = i;
        }
    }
    test_checks++;
    if (!(worst > tolerance)) return;
    char text[200];
    snprintf(text, sizeof text, "[%zu] is %.9g, wanted %.9g: off by %.3g, allowed %.3g", at,
             (double)got[at], (double)want[at], worst, tolerance);
    test_fail(file, line, text);
}
#define CHECK_CLOSE(got, want, n, tolerance) test_close(got, want, n, tolerance, __FILE__, __LINE__)

/* One number. */
#define CHECK_NEAR(got, want, tolerance)                                                           \
    do {                                                                                           \
        double test_got_ = (got), test_want_ = (want);                                             \
        test_checks++;                                                                             \
        if (!(fabs(test_got_ - test_want_) <= (tolerance))) {                                      \
            printf("%s is %.17g, wanted %.17g\n", #got, test_got_, test_want_);                    \
            test_fail(__FILE__, __LINE__, "failed: " #got " near " #want);                         \
        }                                                                                          \
    } while (0)

/* Reproducible numbers in [lo, hi); the caller frees them. */
static inline float *test_uniform(size_t n, double lo, double hi, uint64_t seed) {
    float *x = (float *)malloc((n ? n : 1) * sizeof *x);
    gfli_rng rng = gfli_rng_make(seed, 0, 0, 0);
    for (size_t i = 0; i < n; i++) x[i] = (float)(lo + (hi - lo) * gfli_rng_uniform(&rng));
    return x;
}

/* A map without memory. */
static inline gfli_map test_map(int n, int c, int levels, const int *h, const int *w) {
    gfli_map m;
    memset(&m, 0, sizeof m);
    m.n = n;
    m.c = c;
    m.levels = levels;
    memcpy(m.h, h, (size_t)levels * sizeof *h);
    memcpy(m.w, w, (size_t)levels * sizeof *w);
    return m;
}

/* A map of levels of these heights and widths, with numbers in [lo, hi); the caller frees them. */
static inline gfli_map test_uniform_map(int n, int c, int levels, const int (*sizes)[2], double lo,
                                        double hi, uint64_t seed) {
    int h[GFL_LEVELS], w[GFL_LEVELS];
    for (int l = 0; l < levels; l++) {
        h[l] = sizes[l][0];
        w[l] = sizes[l][1];
    }
    gfli_map m = test_map(n, c, levels, h, w);
    m.data = test_uniform(gfli_map_count(&m), lo, hi, seed);
    return m;
}

static inline gfl_context *test_context(int n_threads) {
    gfl_context_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = n_threads;
    desc.backend = test_backend;
    gfl_context *context = NULL;
    CHECK(gfl_context_create(&desc, &context) == GFL_OK);
    return context;
}

/* How many rows of kernels there are to test here, and a context that uses one of them.  Other
 * backends than the CPU have one. */
static inline int test_count_kernels(void) {
    int n = 0;
    while (gfl_cpu_get_kernel(n)) n++;
    return test_backend ? 1 : n;
}

/* Of a detector whose detections come with the distributions of their sides. */
static inline const gfl_detector_desc *with_distributions(void) {
    static const gfl_detector_desc desc = {1};
    return &desc;
}

static inline gfl_context *test_context_of(int n_threads, int row) {
    gfl_context_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.n_threads = n_threads;
    desc.kernel = test_backend ? NULL : gfl_cpu_get_kernel(row);
    desc.backend = test_backend;
    gfl_context *context = NULL;
    CHECK(gfl_context_create(&desc, &context) == GFL_OK);
    return context;
}

/* A folder for what a test writes, made empty by the caller's choice of name. */
static inline const char *test_scratch(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s.scratch", name);
    return path;
}

/* Memory that only operations and copies may touch, where this build has it. */
#ifdef GFL_TEST_GUARD
#    include "guard.h"
#endif

/* Choose the backend, for a test that opens contexts before test_main; what main has to return
 * where it is not there. */
static inline int test_open(int argc, char **argv) {
    const char *backend = argc > 1 ? argv[1] : "cpu";
    if (strcmp(backend, "cpu") == 0) return 0;
#ifdef GFL_TEST_GUARD
    if (strcmp(backend, "guard") == 0) {
        guard_reserve((size_t)1 << 30);
        test_backend = guard_backend();
        return 0;
    }
#endif
#ifdef GFL_TEST_CUDA
    if (strcmp(backend, "cuda") == 0) {
        gfl_context_desc desc;
        gfl_context *context = NULL;
        char text[300] = "";
        memset(&desc, 0, sizeof desc);
        desc.backend = test_backend = gfl_cuda();
        desc.error = text;
        desc.error_size = sizeof text;
        const bool absent = gfl_context_create(&desc, &context) != GFL_OK;
        gfl_context_destroy(context);
        if (!absent) return 0;
        printf("%s\n", text);
        return getenv("GFL_REQUIRE_GPU") ? 1 : 77;
    }
#endif
    printf("no backend %s in this build\n", backend);
    return 77;
}

static inline int test_main(int argc, char **argv, const test_case *cases) {
    const int absent = test_open(argc, argv);
    int ran = 0;
    if (absent) return absent;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (; cases->name; cases++) {
        if (argc > 2 && !strstr(cases->name, argv[2])) continue;
        if (cases->where == TEST_ON_CPU && test_backend) continue;
        if (cases->where == TEST_IN_TRAINING && test_backend && !test_backend->train) {
            printf("skip %s: no training\n", cases->name);
            test_skips++;
            continue;
        }
        int before = test_failures;
        cases->run();
        ran++;
        printf("%s %s\n", test_failures == before ? "ok  " : "FAIL", cases->name);
    }
    printf("%d cases, %d checks, %d failures, %d skipped\n", ran, test_checks, test_failures,
           test_skips);
    if (test_failures) return 1;
    return test_skips && !test_checks ? 77 : 0;
}

#endif
