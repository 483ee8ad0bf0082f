/* check.h - return early on failure, and sizes that cannot overflow */
#pragma once

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
