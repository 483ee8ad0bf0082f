/* emu.h - what CUDA's device side means when a host compiler compiles gfl_cuda.cu
 *
 * Test only.  Include it before the source: every kernel then runs on the CPU, one hand-switched
 * fiber for each CUDA thread, blocks one after another.  emu.cc has the scheduler and the runtime
 * API, emu_check.h the detector of races and illegal addresses.
 *
 * Environment: EMU_MAX_REPORTS, EMU_ABORT, EMU_STRICT, EMU_STACK_KB, EMU_DEVICES,
 * EMU_LAZY_STREAMS=1 (streams run interleaved at random). */
#ifndef EMU_H
#define EMU_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#include <cudaTypedefs.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define GFLI_UNPAREN(...) __VA_ARGS__
#undef __shared__
#define __shared__ static /* blocks run one after another on one OS thread */
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __restrict__
#define GFLI_LAUNCH(k, grid, block, smem, stream, ...)                                             \
    ::emu::launch(GFLI_UNPAREN k, #k, dim3(grid), dim3(block), (size_t)(smem),                     \
                  (cudaStream_t)(stream), ##__VA_ARGS__)
// stronger than plain __shared__: own heap block (red zones), re-poisoned at each block start
#define GFLI_SHARED(T, name, dims)                                                                 \
    using name##_emu_t_ = emu::decl_t<T dims>;                                                     \
    static char name##_emu_key_;                                                                   \
    auto &name = *static_cast<name##_emu_t_ *>(                                                    \
        ::emu::static_shared(&name##_emu_key_, sizeof(name##_emu_t_), #name))
#define GFLI_DYN_SHARED(T, name) T *name = static_cast<T *>(::emu::dyn_shared())
#define EMU_SITE                 const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline thread_local uint3 threadIdx{}, blockIdx{};
inline thread_local dim3 blockDim{}, gridDim{};
constexpr int warpSize = 32;

namespace emu {
template <class T> using decl_t = T;
using CollFn = void (*)(void **lane_args, unsigned mask);
extern thread_local int user_code; // 1 while a fiber runs kernel code
int block_sync(int pred, const char *what, const char *file, int line); // returns count of pred!=0
void warp_sync(unsigned mask, const char *what, void *arg, CollFn fn, const char *file, int line);
void *dyn_shared();
void *static_shared(const void *key, size_t bytes, const char *name);
void atomic_begin(const void *p, size_t n);
void atomic_end();
void fence();
void note_read(const void *p, size_t n);
void yield();
int lane();
unsigned live_mask();
void cp_async(void *dst, const void *src, int bytes);
void cp_commit();
void cp_wait(int n);
void report(const char *kind, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
long errors();
void reset_errors();
const char *last_kind(); /* of the last report */
bool detector();         /* does this build look for races, addresses and unset memory? */
struct Stats {
    unsigned long long launches, blocks, threads, switches, barriers, collectives;
    unsigned long long graphs, allocations; /* launched; of the device and page-locked */
};
Stats &stats();
/* From now on the call named so ("launch": any kernel) fails, after that many that do not; out of
 * memory once, anything else for good.  NULL: nothing fails. */
void fail(const char *call, long after, cudaError_t error);
void set_order(int mode, unsigned seed); // 0 forward, 1 reverse, 2 random
bool launch_ok(const void *fn, const char *name, dim3 g, dim3 b, size_t smem);
void submit(cudaStream_t s, std::function<void()> op);
void run_grid(const char *name, dim3 g, dim3 b, size_t smem, void (*thunk)(void *), void *ctx,
              size_t ctx_bytes);
template <class K, class T> struct Call {
    K k;
    T t;
};
template <class K, class T> __attribute__((no_sanitize_thread)) void call_thunk(void *c) {
    auto *p = static_cast<Call<K, T> *>(c);
    std::apply(p->k, p->t);
}

template <class... P, class... A>
inline void launch(void (*k)(P...), const char *name, dim3 g, dim3 b, size_t smem, cudaStream_t s,
                   A &&...a) {
    static_assert(sizeof...(P) == sizeof...(A), "kernel argument count");
    if (!launch_ok(reinterpret_cast<const void *>(k), name, g, b, smem)) return;
    using T = std::tuple<std::decay_t<P>...>;
    using C = Call<void (*)(P...), T>;
    C c{k, T(static_cast<std::decay_t<P>>(a)...)}; // by value, as <<<>>> does
    submit(s, [=]() mutable {
        run_grid(name, g, b, smem, call_thunk<void (*)(P...), T>, &c, sizeof c);
    });
}
template <class T> struct Shfl {
    T in, out;
    int src, width, mode, bad;
};
template <class T> void shfl_fn(void **a, unsigned mask) {
    for (int l = 0; l < 32; l++)
        if (a[l]) {
            auto *s = static_cast<Shfl<T> *>(a[l]);
            int w = s->width, seg = l & ~(w - 1), j = l;
            switch (s->mode) {
            case 0:
                j = seg | (s->src & (w - 1));
                break;
            case 1:
                j = l - s->src;
                if (j < seg) j = l;
                break;
            case 2:
                j = l + s->src;
                if (j >= seg + w) j = l;
                break;
            default:
                j = l ^ s->src;
                if (j >= seg + w) j = l;
                break;
            }
            s->bad = !a[j];
            if (a[j])
                s->out = static_cast<Shfl<T> *>(a[j])->in;
            else
                memset(static_cast<void *>(&s->out), 0xCB, sizeof(T));
        }
    (void)mask;
}
template <class T>
T shfl(unsigned m, T v, int src, int w, int mode, const char *what, const char *file, int line) {
    Shfl<T> s{v, v, src, w, mode, 0};
    warp_sync(m, what, &s, shfl_fn<T>, file, line);
    if (s.bad)
        report("shuffle", "%s at %s:%d reads a lane that does not take part", what, file, line);
    return s.out;
}
struct Vote {
    int pred;
    unsigned out;
    unsigned long long key;
    unsigned mask;
};
inline void vote_fn(void **a, unsigned) {
    unsigned b = 0;
    for (int l = 0; l < 32; l++)
        if (a[l] && static_cast<Vote *>(a[l])->pred) b |= 1u << l;
    for (int l = 0; l < 32; l++)
        if (a[l]) static_cast<Vote *>(a[l])->out = b;
}
inline void match_fn(void **a, unsigned) {
    for (int l = 0; l < 32; l++)
        if (a[l]) {
            unsigned b = 0;
            for (int j = 0; j < 32; j++)
                if (a[j] && static_cast<Vote *>(a[j])->key == static_cast<Vote *>(a[l])->key)
                    b |= 1u << j;
            static_cast<Vote *>(a[l])->out = b;
        }
}
inline unsigned vote(unsigned m, int p, const char *what, const char *f, int l) {
    Vote v{p, 0, 0, m};
    warp_sync(m, what, &v, vote_fn, f, l);
    return v.out;
}
template <class T> struct Red {
    T v;
    int op;
};
template <class T> void red_fn(void **a, unsigned) {
    bool first = true;
    T r{};
    int op = 0;
    for (int l = 0; l < 32; l++)
        if (a[l]) {
            auto *s = static_cast<Red<T> *>(a[l]);
            op = s->op;
            if (first) {
                r = s->v;
                first = false;
            } else
                r = op == 0   ? r + s->v
                    : op == 1 ? (s->v < r ? s->v : r)
                    : op == 2 ? (s->v > r ? s->v : r)
                    : op == 3 ? r & s->v
                    : op == 4 ? r | s->v
                              : r ^ s->v;
        }
    for (int l = 0; l < 32; l++)
        if (a[l]) static_cast<Red<T> *>(a[l])->v = r;
}
struct AtomicScope {
    AtomicScope(const void *p, size_t n) {
        atomic_begin(p, n);
    }
    ~AtomicScope() {
        atomic_end();
    }
};
template <class T, class F> inline T rmw(T *p, F f) {
    AtomicScope s(p, sizeof(T));
    T o = *p;
    *p = f(o);
    return o;
}
inline float bf2f(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
} // namespace emu

inline void __syncthreads(EMU_SITE) {
    emu::block_sync(0, "__syncthreads", file, line);
}
inline int __syncthreads_count(int p, EMU_SITE) {
    return emu::block_sync(p, "__syncthreads_count", file, line);
}
inline int __syncthreads_or(int p, EMU_SITE) {
    return emu::block_sync(p, "__syncthreads_or", file, line) != 0;
}
inline int __syncthreads_and(int p, EMU_SITE) {
    return emu::block_sync(!p, "__syncthreads_and", file, line) == 0;
}
inline void __syncwarp(unsigned m = 0xffffffffu, EMU_SITE) {
    emu::warp_sync(m, "__syncwarp", nullptr, nullptr, file, line);
}
template <class T> T __shfl_sync(unsigned m, T v, int s, int w = 32, EMU_SITE) {
    return emu::shfl(m, v, s, w, 0, "__shfl_sync", file, line);
}
template <class T> T __shfl_up_sync(unsigned m, T v, unsigned s, int w = 32, EMU_SITE) {
    return emu::shfl(m, v, (int)s, w, 1, "__shfl_up_sync", file, line);
}
template <class T> T __shfl_down_sync(unsigned m, T v, unsigned s, int w = 32, EMU_SITE) {
    return emu::shfl(m, v, (int)s, w, 2, "__shfl_down_sync", file, line);
}
template <class T> T __shfl_xor_sync(unsigned m, T v, int s, int w = 32, EMU_SITE) {
    return emu::shfl(m, v, s, w, 3, "__shfl_xor_sync", file, line);
}
inline unsigned __ballot_sync(unsigned m, int p, EMU_SITE) {
    return emu::vote(m, p, "__ballot_sync", file, line);
}
inline int __any_sync(unsigned m, int p, EMU_SITE) {
    return emu::vote(m, p, "__any_sync", file, line) != 0;
}
inline int __all_sync(unsigned m, int p, EMU_SITE) {
    return emu::vote(m, !p, "__all_sync", file, line) == 0;
}
template <class T> unsigned __match_any_sync(unsigned m, T v, EMU_SITE) {
    emu::Vote q{0, 0, 0, m};
    memcpy(&q.key, &v, sizeof v);
    emu::warp_sync(m, "__match_any_sync", &q, emu::match_fn, file, line);
    return q.out;
}
inline unsigned __activemask() {
    return emu::live_mask();
}
template <class T> T emu_reduce(unsigned m, T v, int op, const char *w, const char *f, int l) {
    emu::Red<T> r{v, op};
    emu::warp_sync(m, w, &r, emu::red_fn<T>, f, l);
    return r.v;
}
inline unsigned __reduce_add_sync(unsigned m, unsigned v, EMU_SITE) {
    return emu_reduce(m, v, 0, "__reduce_add_sync", file, line);
}
inline int __reduce_add_sync(unsigned m, int v, EMU_SITE) {
    return emu_reduce(m, v, 0, "__reduce_add_sync", file, line);
}
inline int __reduce_min_sync(unsigned m, int v, EMU_SITE) {
    return emu_reduce(m, v, 1, "__reduce_min_sync", file, line);
}
inline int __reduce_max_sync(unsigned m, int v, EMU_SITE) {
    return emu_reduce(m, v, 2, "__reduce_max_sync", file, line);
}
inline void __threadfence() {
    emu::fence();
}
inline void __threadfence_block() {
}
inline void __nanosleep(unsigned) {
    emu::yield();
}
inline long long clock64() {
    return (long long)emu::stats().switches;
}
template <class T> T atomicAdd(T *p, std::common_type_t<T> v) {
    return emu::rmw(p, [&](T o) { return (T)(o + v); });
}
template <class T> T atomicSub(T *p, std::common_type_t<T> v) {
    return emu::rmw(p, [&](T o) { return (T)(o - v); });
}
template <class T> T atomicMin(T *p, std::common_type_t<T> v) {
    return emu::rmw(p, [&](T o) { return v < o ? v : o; });
}
template <class T> T atomicMax(T *p, std::common_type_t<T> v) {
    return emu::rmw(p, [&](T o) { return v > o ? v : o; });
}
template <class T> T atomicOr(T *p, std::common_type_t<T> v) {
    return emu::rmw(p, [&](T o) { return (T)(o | v); });
}
template <class T> T atomicAnd(T *p, std::common_type_t<T> v) {
    return emu::rmw(p, [&](T o) { return (T)(o & v); });
}
template <class T> T atomicExch(T *p, std::common_type_t<T> v) {
    return emu::rmw(p, [&](T) { return v; });
}
template <class T> T atomicCAS(T *p, std::common_type_t<T> c, std::common_type_t<T> v) {
    T o = emu::rmw(p, [&](T x) { return x == c ? v : x; });
    if (o != c) emu::yield();
    return o;
}
inline unsigned atomicInc(unsigned *p, unsigned v) {
    return emu::rmw(p, [&](unsigned o) { return o >= v ? 0u : o + 1; });
}
template <class T> T __ldg(const T *p) {
    return *p;
}
template <class T> T __ldcs(const T *p) {
    return *p;
}
template <class T> void __stcs(T *p, std::common_type_t<T> v) {
    *p = v;
}
inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
inline int __float_as_int(float f) {
    int u;
    memcpy(&u, &f, 4);
    return u;
}
inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
inline float __int_as_float(int u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
inline float __expf(float x) {
    return expf(x);
}
inline float __logf(float x) {
    return logf(x);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float __frcp_rn(float a) {
    return 1.0f / a;
}
inline float __saturatef(float x) {
    return x < 0.f || x != x ? 0.f : x > 1.f ? 1.f : x;
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
    return __floats2bfloat162_rn(fmaf(__low2float(a), __low2float(b), __low2float(c)),
                                 fmaf(__high2float(a), __high2float(b), __high2float(c)));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return __floats2half2_rn(fmaf(__low2float(a), __low2float(b), __low2float(c)),
                             fmaf(__high2float(a), __high2float(b), __high2float(c)));
}
template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
    return b < a ? b : a;
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
    return a < b ? b : a;
}

#define GFLI_GRID_CONSTANT

#include "emu_tensor.h"

#endif
