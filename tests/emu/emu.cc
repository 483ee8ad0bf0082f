/* emu.cc - the emulator's scheduler, and the part of the CUDA runtime that the library calls
 *
 * With EMU_CHECK the kernels are compiled with -fsanitize=thread, whose callbacks come from
 * emu_check.h instead of libtsan; this file never is. */
#include "emu.h"

#include <sys/mman.h>
#include <unistd.h>
#include <pthread.h>
#include <cstdarg>
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#    include <sanitizer/asan_interface.h>
#    include <sanitizer/common_interface_defs.h>
#    define EMU_ASAN 1
#endif
#if !defined(__x86_64__) || defined(EMU_UCONTEXT)
#    include <ucontext.h>
#    define EMU_UCTX 1
#endif

namespace emu {
thread_local int user_code = 0;
static std::recursive_mutex g_mu; // launches are serialised across OS threads
static long g_errors = 0;
static Stats g_stats;
static int g_order = 0;
static uint32_t g_rng = 1;
static std::map<uintptr_t, size_t> g_dev;          // live device allocations
static std::map<const void *, size_t> g_attr_smem; // cudaFuncSetAttribute
static thread_local cudaError_t g_last = cudaSuccess;
static int env_int(const char *n, int d) {
    const char *e = getenv(n);
    return e ? atoi(e) : d;
}
static uint32_t rnd() {
    g_rng ^= g_rng << 13;
    g_rng ^= g_rng >> 17;
    g_rng ^= g_rng << 5;
    return g_rng;
}
void set_order(int m, unsigned s) {
    g_order = m;
    g_rng = s * 2654435761u | 1;
}
long errors() {
    return g_errors;
}
void reset_errors() {
    g_errors = 0;
}
Stats &stats() {
    return g_stats;
}
static const char *g_last_kind = "";
const char *last_kind() {
    return g_last_kind;
}
bool detector() {
#ifdef EMU_CHECK
    return true;
#else
    return false;
#endif
}
void report(const char *kind, const char *fmt, ...) {
    int u = user_code;
    user_code = 0;
    g_errors++;
    g_last_kind = kind;
    static int shown = 0;
    static int lim = env_int("EMU_MAX_REPORTS", 8);
    if (shown++ < lim) {
        fprintf(stderr, "EMU %s: ", kind);
        va_list ap;
        va_start(ap, fmt);
        vfprintf(stderr, fmt, ap);
        va_end(ap);
        fprintf(stderr, " [block %u,%u,%u thread %u,%u,%u]\n", blockIdx.x, blockIdx.y, blockIdx.z,
                threadIdx.x, threadIdx.y, threadIdx.z);
    }
    if (env_int("EMU_ABORT", 0)) abort();
    user_code = u;
}

struct Rt {
    int u;
    Rt() : u(user_code) {
        user_code = 0;
    }
    ~Rt() {
        user_code = u;
    }
}; // runtime code, not kernel code

// ------------------------------ fibers ------------------------------
enum { READY, BAR, WARP, DONE };
struct Cp {
    void *d;
    const void *s;
    int n;
};
struct Fiber {
    void *sp = nullptr;
    char *lo = nullptr;
    size_t sz = 0;
    void *fake = nullptr;
    uint3 tid{};
    int lin = 0, state = DONE, pred = 0, result = 0, line = 0;
    void *warg = nullptr;
    unsigned wmask = 0;
    CollFn fn = nullptr;
    const char *what = "", *file = "";
    std::vector<Cp> pend;
    std::deque<std::vector<Cp>> groups;
#ifdef EMU_UCTX
    ucontext_t uc;
#endif
};
struct Pending {
    unsigned mask, arrived;
};
struct Warp {
    unsigned live = 0, phase = 0;
    std::vector<Pending> p;
};
struct SharedVar {
    const void *key;
    void *p;
    size_t n;
    unsigned long long serial;
};
struct Worker {
    std::vector<Fiber> f;
    Fiber main_;
    Fiber *cur = nullptr;
    int n = 0, live = 0, arrived = 0, predsum = 0;
    unsigned bphase = 0;
    std::vector<int> ready;
    size_t head = 0;
    Warp w[32];
    bool failed = false;
    const char *kname = "";
    void (*thunk)(void *) = nullptr;
    void *ctx = nullptr;
    size_t ctx_n = 0;
    char *dyn = nullptr;
    size_t dyn_n = 0;
    std::vector<SharedVar> sv;
    unsigned long long serial = 0;
};
static thread_local Worker *W = nullptr;
#ifndef EMU_UCTX
extern "C" void emu_switch(void **save, void *load);
asm(R"(.text
.globl emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size emu_switch,.-emu_switch
)");
#endif
static void entry();
static void do_cp(const Cp &c);
static void arm(Fiber &f) {
#ifdef EMU_ASAN
    __asan_unpoison_memory_region(f.lo, f.sz);
#endif
#ifdef EMU_UCTX
    getcontext(&f.uc);
    f.uc.uc_stack.ss_sp = f.lo;
    f.uc.uc_stack.ss_size = f.sz;
    f.uc.uc_link = nullptr;
    makecontext(&f.uc, entry, 0);
    f.sp = &f.uc;
#else
    void **top = reinterpret_cast<void **>(f.lo + f.sz) - 2;
    *top = reinterpret_cast<void *>(&entry);
    for (int i = 1; i <= 6; i++) top[-i] = nullptr;
    f.sp = top - 6;
#endif
    f.fake = nullptr;
}
static inline void jump(Fiber *from, Fiber *to) {
    g_stats.switches++;
    W->cur = to;
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(&from->fake, to->lo, to->sz);
#endif
#ifdef EMU_UCTX
    swapcontext(&from->uc, &to->uc);
#else
    emu_switch(&from->sp, to->sp);
#endif
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}
static void push_ready(int i) {
    W->f[i].state = READY;
    W->ready.push_back(i);
}
static void mix_ready() { // random mode: shuffle whole warps or single threads
    auto &r = W->ready;
    if (g_order != 2 || r.size() < 2) return;
    if (rnd() & 1) {
        for (size_t i = r.size(); i > 1; i--) std::swap(r[i - 1], r[rnd() % i]);
        return;
    }
    unsigned key[32];
    for (auto &k : key) k = rnd();
    std::stable_sort(r.begin(), r.end(), [&](int a, int b) { return key[a >> 5] < key[b >> 5]; });
}
static void deadlock() {
    W->failed = true;
    std::map<std::string, int> m;
    char b[512];
    for (int i = 0; i < W->n; i++) {
        Fiber &f = W->f[i];
        if (f.state == DONE) {
            m["exited"]++;
            continue;
        }
        if (f.state == WARP)
            snprintf(b, sizeof b, "%s(mask %08x) %s:%d", f.what, f.wmask, f.file, f.line);
        else
            snprintf(b, sizeof b, "%s %s:%d", f.what, f.file, f.line);
        m[b]++;
    }
    std::string s;
    for (auto &k : m) s += "\n      " + std::to_string(k.second) + " thread(s): " + k.first;
    report("divergence", "kernel %s cannot proceed:%s\n     ", W->kname, s.c_str());
}
static Fiber *pick() {
    auto &r = W->ready;
    if (W->head == r.size()) {
        r.clear();
        W->head = 0;
        if (W->live) deadlock();
        return &W->main_;
    }
    if (g_order) { // LIFO: one warp runs ahead as far as it can; random mode adds jumps
        if (g_order == 2 && !(rnd() & 7)) std::swap(r.back(), r[rnd() % r.size()]);
        int i = r.back();
        r.pop_back();
        return &W->f[i];
    }
    int i = r[W->head++];
    if (W->head == r.size()) {
        r.clear();
        W->head = 0;
    }
    return &W->f[i];
}
static void block_here() {
    Fiber *me = W->cur;
    user_code = 0;
    Fiber *to = pick();
    if (to != me)
        jump(me, to);
    else
        W->cur = me;
    threadIdx = me->tid;
    user_code = 1;
}
static void release_barrier() {
    const Fiber *a = nullptr;
    bool same = true;
    for (int i = 0; i < W->n; i++)
        if (W->f[i].state == BAR) {
            if (!a)
                a = &W->f[i];
            else if (a->line != W->f[i].line || a->file != W->f[i].file)
                same = false;
        }
    if (!same) {
        std::string s;
        std::set<std::pair<std::string, int>> u;
        for (int i = 0; i < W->n; i++)
            if (W->f[i].state == BAR) u.insert({W->f[i].file, W->f[i].line});
        for (auto &k : u) s += " " + k.first + ":" + std::to_string(k.second);
        report("barrier", "kernel %s: threads meet at different __syncthreads:%s", W->kname,
               s.c_str());
    }
    if (W->live != W->n && env_int("EMU_STRICT", 1))
        report("barrier", "kernel %s: %d of %d threads already exited at %s %s:%d", W->kname,
               W->n - W->live, W->n, a->what, a->file, a->line);
    int r = W->predsum;
    W->predsum = W->arrived = 0;
    W->bphase++;
    g_stats.barriers++;
    for (auto &w : W->w) w.phase++;
    for (int i = 0; i < W->n; i++)
        if (W->f[i].state == BAR) {
            W->f[i].result = r;
            push_ready(i);
        }
    mix_ready();
}
int block_sync(int pred, const char *what, const char *file, int line) {
    Rt rt;
    Fiber *me = W->cur;
    me->state = BAR;
    me->what = what;
    me->file = file;
    me->line = line;
    W->predsum += pred != 0;
    if (++W->arrived == W->live) release_barrier();
    block_here();
    return me->result;
}
static bool try_complete(Warp &w, int base, size_t k) {
    Pending p = w.p[k];
    if (p.arrived != (p.mask & w.live)) return false;
    w.p.erase(w.p.begin() + (long)k);
    void *args[32];
    const Fiber *a = nullptr;
    bool same = true;
    for (int l = 0; l < 32; l++) {
        args[l] = nullptr;
        if (p.arrived >> l & 1) {
            Fiber &f = W->f[base + l];
            args[l] = f.warg;
            if (!a)
                a = &f;
            else if (a->fn != f.fn || strcmp(a->what, f.what))
                same = false;
        }
    }
    if (!same)
        report("divergence",
               "kernel %s: lanes of one warp run different warp operations under mask %08x (%s)",
               W->kname, p.mask, a->what);
    else if (a->fn) {
        int u = user_code;
        user_code = 0;
        a->fn(args, p.arrived);
        user_code = u;
    }
    if (!a->fn && p.arrived == w.live) w.phase++; // only __syncwarp orders memory
    g_stats.collectives++;
    for (int l = 0; l < 32; l++)
        if (p.arrived >> l & 1) push_ready(base + l);
    return true;
}
void warp_sync(unsigned mask, const char *what, void *arg, CollFn fn, const char *file, int line) {
    Rt rt;
    Fiber *me = W->cur;
    int l = me->lin & 31, base = me->lin & ~31;
    Warp &w = W->w[me->lin >> 5];
    if (!(mask >> l & 1)) {
        report("mask", "%s at %s:%d: lane %d is not in mask %08x", what, file, line, l, mask);
        mask |= 1u << l;
    }
    me->state = WARP;
    me->warg = arg;
    me->wmask = mask;
    me->fn = fn;
    me->what = what;
    me->file = file;
    me->line = line;
    size_t k = 0;
    while (k < w.p.size() && w.p[k].mask != mask) k++;
    if (k == w.p.size()) w.p.push_back({mask, 0});
    w.p[k].arrived |= 1u << l;
    try_complete(w, base, k);
    block_here();
}
static __attribute__((noinline)) void run_one() {
    Fiber *me = W->cur;
    threadIdx = me->tid;
    user_code = 1;
    W->thunk(W->ctx);
    user_code = 0;
    for (auto &q : me->groups)
        for (auto &c : q) do_cp(c);
    me->groups.clear();
    me->pend.clear();
    me->state = DONE;
    W->live--;
    Warp &w = W->w[me->lin >> 5];
    w.live &= ~(1u << (me->lin & 31));
    for (size_t k = 0; k < w.p.size();)
        if (!try_complete(w, me->lin & ~31, k))
            k++;
        else
            k = 0;
    if (W->live && W->arrived == W->live) release_barrier();
}
static void entry() { // fibers are kept: one loop turn per CUDA thread
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    for (;;) {
        Fiber *me = W->cur;
        run_one();
        jump(me, pick());
    }
}
void yield() {
    if (!W || !W->cur || W->cur == &W->main_) return;
    push_ready(W->cur->lin);
    block_here();
}
int lane() {
    return W->cur->lin & 31;
}
unsigned live_mask() {
    return W->w[W->cur->lin >> 5].live;
}
void *dyn_shared() {
    return W->dyn;
}
void *static_shared(const void *key, size_t n, const char *) {
    Rt rt;
    for (auto &v : W->sv)
        if (v.key == key) {
            if (v.serial != W->serial) {
                v.serial = W->serial;
                memset(v.p, 0xFF, n);
            }
            return v.p;
        }
    void *p = nullptr;
    if (posix_memalign(&p, 128, n)) abort();
    memset(p, 0xFF, n);
    W->sv.push_back({key, p, n, W->serial});
    return p;
}
#ifdef EMU_CHECK
void check_access(const void *p, size_t n, bool wr, bool atom, void *pc);
void check_pending(const void *p, size_t n);
#else
static inline void check_pending(const void *, size_t) {
}
static inline void check_access(const void *, size_t, bool, bool, void *) {
}
#endif
static unsigned g_seq = 1; // fence epoch (check mode)
struct BlockRec {
    unsigned fence, acq;
};
static std::vector<BlockRec> g_brec;
static unsigned cur_block() {
    return blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
}
void atomic_begin(const void *p, size_t n) {
    user_code = 0;
    check_access(p, n, true, true, __builtin_return_address(0));
    if (cur_block() < g_brec.size()) g_brec[cur_block()].acq = g_seq;
}
void note_read(const void *p, size_t n) {
    Rt rt;
    check_access(p, n, false, false, __builtin_return_address(0));
}
void atomic_end() {
    user_code = 1;
}
void fence() {
    Rt rt;
    if (cur_block() < g_brec.size()) g_brec[cur_block()].fence = ++g_seq;
}
static void put_cp(const Cp &c) {
    memset(c.d, 0, 16);
    memcpy(c.d, c.s, (size_t)c.n);
}
static void do_cp(const Cp &c) { // n < 0: data landed early, only now may it be read
    if (c.n >= 0) {
        check_access(c.s, (size_t)c.n, false, false, __builtin_return_address(0));
        put_cp(c);
    }
    check_access(c.d, 16, true, false, __builtin_return_address(0));
}
void cp_async(void *d, const void *s, int n) {
    Rt rt;
    if (((uintptr_t)d | (uintptr_t)s) & 15)
        report("alignment", "cp.async 16 with a misaligned address");
    check_access(d, 16, true, false,
                 __builtin_return_address(0)); // the write may land any time from here to the wait
    check_pending(d, 16);
    Cp c{d, s, n};
    if (g_order == 2 && (rnd() & 1)) {
        check_access(s, (size_t)n, false, false, __builtin_return_address(0));
        put_cp(c);
        c.n = -1;
    } // early, or as late as allowed
    W->cur->pend.push_back(c);
}
void cp_commit() {
    Rt rt;
    W->cur->groups.push_back(std::move(W->cur->pend));
    W->cur->pend.clear();
}
void cp_wait(int n) {
    Rt rt;
    auto &g = W->cur->groups;
    while ((int)g.size() > n) {
        for (auto &c : g.front()) do_cp(c);
        g.pop_front();
    }
}

static size_t stack_bytes() {
    static size_t s = (size_t)env_int("EMU_STACK_KB",
#ifdef EMU_ASAN
                                      256
#else
                                      64
#endif
                                      ) *
                      1024;
    return s;
}
static void init_worker() {
    W = new Worker;
    W->f.resize(1024);
    size_t ss = stack_bytes(), pg = 4096;
    char *m = (char *)mmap(nullptr, (ss + pg) * 1024, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (int i = 0; i < 1024; i++) {
        char *b = m + (size_t)i * (ss + pg);
        mprotect(b, pg, PROT_NONE);
        W->f[i].lo = b + pg;
        W->f[i].sz = ss;
        W->f[i].lin = i;
    }
    pthread_attr_t a;
    void *lo;
    size_t sz;
    pthread_getattr_np(pthread_self(), &a);
    pthread_attr_getstack(&a, &lo, &sz);
    pthread_attr_destroy(&a);
    W->main_.lo = (char *)lo;
    W->main_.sz = sz;
    W->ready.reserve(2048);
}
// Dynamic shared memory of every block of a grid.
static void make_dynamic(size_t smem) {
    if (W->dyn) {
        free(W->dyn);
        W->dyn = nullptr;
    }
    W->dyn_n = smem;
    if (smem) {
        void *p = nullptr;
        if (posix_memalign(&p, 128, smem)) abort();
        W->dyn = (char *)p;
    }
}
// The order of a grid's blocks: as it comes, backwards or at random.
static std::vector<unsigned> block_order(unsigned nb) {
    std::vector<unsigned> order(nb);
    for (unsigned i = 0; i < nb; i++) order[i] = g_order == 1 ? nb - 1 - i : i;
    for (unsigned i = nb; g_order == 2 && i > 1; i--) std::swap(order[i - 1], order[rnd() % i]);
    return order;
}
static void run_block(unsigned i, dim3 g, dim3 b) {
    int n = W->n;
    blockIdx = uint3{i % g.x, i / g.x % g.y, i / g.x / g.y};
    W->serial++;
    if (W->dyn_n) memset(W->dyn, 0xFF, W->dyn_n);
    W->live = n;
    W->arrived = W->predsum = 0;
    W->bphase = 0;
    W->ready.clear();
    W->head = 0;
    for (int q = 0; q < (n + 31) / 32; q++) {
        W->w[q].live = n - q * 32 >= 32 ? ~0u : (1u << (n - q * 32)) - 1;
        W->w[q].phase = 0;
        W->w[q].p.clear();
    }
    for (int t = 0; t < n; t++) {
        Fiber &f = W->f[t];
        f.tid = uint3{(unsigned)t % b.x, (unsigned)t / b.x % b.y, (unsigned)t / b.x / b.y};
        f.pend.clear();
        f.groups.clear();
        if (f.state != DONE || !f.sp) arm(f);
        push_ready(t);
    }
    mix_ready();
    W->cur = &W->main_;
    jump(&W->main_, pick());
}
void run_grid(const char *name, dim3 g, dim3 b, size_t smem, void (*thunk)(void *), void *ctx,
              size_t ctx_n) {
    std::lock_guard<std::recursive_mutex> lk(g_mu);
    if (!W) init_worker();
    W->thunk = thunk;
    W->ctx = ctx;
    W->ctx_n = ctx_n;
    W->kname = name;
    W->failed = false;
    gridDim = g;
    blockDim = b;
    int n = (int)(b.x * b.y * b.z);
    W->n = n;
    unsigned nb = g.x * g.y * g.z;
    g_stats.launches++;
    g_stats.blocks += nb;
    g_stats.threads += (unsigned long long)nb * (unsigned)n;
    make_dynamic(smem);
    g_seq++;
    g_brec.assign(nb <= (1u << 22) ? nb : 0, {0, 0});
    for (unsigned i : block_order(nb)) {
        run_block(i, g, b);
        if (W->failed) break;
    }
    if (W->failed) g_last = cudaErrorLaunchFailure;
}
bool launch_ok(const void *fn, const char *name, dim3 g, dim3 b, size_t smem) {
    auto bad = [&](cudaError_t e, const char *why) {
        g_last = e;
        fprintf(stderr, "EMU launch of %s refused: %s\n", name, why);
        return false;
    };
    if (!g.x || !g.y || !g.z || !b.x || !b.y || !b.z)
        return bad(cudaErrorInvalidConfiguration, "zero-sized grid or block");
    if (b.x * b.y * b.z > 1024 || b.z > 64 || g.y > 65535 || g.z > 65535)
        return bad(cudaErrorInvalidConfiguration, "grid or block over the hardware limits");
    size_t lim = 48 * 1024;
    auto it = g_attr_smem.find(fn);
    if (it != g_attr_smem.end()) lim = it->second;
    if (smem > lim)
        return bad(cudaErrorInvalidValue,
                   "dynamic shared memory over the limit (cudaFuncSetAttribute missing?)");
    return true;
}
} // namespace emu

// ------------------------------ streams, events, graphs ------------------------------
struct CUevent_st {
    unsigned long long want = 0, done = 0;
    std::chrono::steady_clock::time_point t;
    CUgraph_st *g = nullptr;
};
struct EmuOp {
    std::function<void()> fn;
    CUevent_st *wait;
    unsigned long long ver;
};
struct CUstream_st {
    std::deque<EmuOp> q;
    CUgraph_st *cap = nullptr;
    bool bad = false;
};
struct CUgraph_st {
    std::vector<std::function<void()>> ops;
};
struct CUgraphExec_st {
    std::vector<std::function<void()>> ops;
};
namespace emu {
static std::vector<CUstream_st *> g_streams;
static CUstream_st g_null;
static int lazy() {
    static int l = env_int("EMU_LAZY_STREAMS", 0);
    return l;
}
static bool step(CUstream_st *s) {
    if (s->q.empty()) return false;
    EmuOp &o = s->q.front();
    if (o.wait && o.wait->done < o.ver) return false;
    EmuOp op = std::move(o);
    s->q.pop_front();
    if (op.fn) op.fn();
    return true;
}
static void drain(CUstream_st *target) { // run queued work, streams interleaved at random
    for (;;) {
        bool left = false;
        if (target)
            left = !target->q.empty();
        else
            for (auto *s : g_streams) left |= !s->q.empty();
        if (!left) return;
        size_t n = g_streams.size(), k = rnd() % n;
        bool ran = false;
        for (size_t i = 0; i < n && !ran; i++) ran = step(g_streams[(k + i) % n]);
        if (!ran) {
            report("stream", "queued streams wait on events that are never recorded");
            return;
        }
    }
}
void submit(cudaStream_t s, std::function<void()> op) {
    std::lock_guard<std::recursive_mutex> lk(g_mu);
    bool legacy = !s || s == cudaStreamLegacy || s == cudaStreamPerThread;
    if (legacy) {
        for (auto *x : g_streams)
            if (x->cap) {
                x->bad = true;
                g_last = cudaErrorStreamCaptureImplicit;
                report("capture", "legacy-stream work while a stream is capturing");
                return;
            }
        drain(nullptr);
        op();
        return;
    }
    if (s->cap) {
        s->cap->ops.push_back(std::move(op));
        return;
    }
    if (lazy())
        s->q.push_back({std::move(op), nullptr, 0});
    else
        op();
}
static cudaError_t sync_guard() {
    for (auto *x : g_streams)
        if (x->cap) {
            x->bad = true;
            report("capture", "synchronising call while a stream is capturing");
            return cudaErrorStreamCaptureUnsupported;
        }
    return cudaSuccess;
}
static void *dev_alloc(size_t n) {
    void *p = nullptr;
#ifdef EMU_ASAN
    if (posix_memalign(&p, 256, n ? n : 1)) return nullptr;
#else
    if (posix_memalign(&p, 256, n + 1024)) return nullptr;
    p = (char *)p + 512; // red zones for check mode
#endif
    memset(p, 0xFF, n);
    g_dev[(uintptr_t)p] = n;
    return p;
}
static bool in_dev(const void *p, size_t n) {
    auto it = g_dev.upper_bound((uintptr_t)p);
    if (it == g_dev.begin()) return false;
    --it;
    return (uintptr_t)p + n <= it->first + it->second;
}
static cudaError_t copy(void *d, const void *s, size_t n, cudaMemcpyKind k) {
    if (n && ((k == cudaMemcpyHostToDevice || k == cudaMemcpyDeviceToDevice) && !in_dev(d, n))) {
        report("memcpy", "destination is not (all) device memory");
        return cudaErrorInvalidValue;
    }
    if (n && ((k == cudaMemcpyDeviceToHost || k == cudaMemcpyDeviceToDevice) && !in_dev(s, n))) {
        report("memcpy", "source is not (all) device memory");
        return cudaErrorInvalidValue;
    }
    memcpy(d, s, n);
    return cudaSuccess;
}
} // namespace emu
#define EMU_RET(e)                                                                                 \
    do {                                                                                           \
        cudaError_t e_ = (e);                                                                      \
        if (e_ != cudaSuccess) emu::g_last = e_;                                                   \
        return e_;                                                                                 \
    } while (0)
namespace emu {
static struct {
    const char *call;
    long after;
    cudaError_t error;
} g_fault;
void fail(const char *call, long after, cudaError_t error) {
    g_fault.call = call;
    g_fault.after = after;
    g_fault.error = error;
}
static cudaError_t fault(const char *call) {
    if (!g_fault.call || strcmp(g_fault.call, call) != 0 || g_fault.after-- > 0) return cudaSuccess;
    if (g_fault.error == cudaErrorMemoryAllocation) g_fault.call = nullptr;
    return g_last = g_fault.error;
}
} // namespace emu
#define EMU_MAY_FAIL(call)                                                                         \
    if (emu::fault(call) != cudaSuccess) return emu::g_last
extern "C" {
cudaError_t CUDARTAPI cudaGetDeviceCount(int *n) {
    EMU_MAY_FAIL("cudaGetDeviceCount");
    *n = emu::env_int("EMU_DEVICES", 1);
    return cudaSuccess;
}
static thread_local int emu_dev = 0;
cudaError_t CUDARTAPI cudaSetDevice(int d) {
    emu_dev = d;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaGetDevice(int *d) {
    *d = emu_dev;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "CPU emulator");
    p->major = emu::env_int("EMU_MAJOR", 9);
    p->multiProcessorCount = 2;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->sharedMemPerBlock = 49152;
    p->sharedMemPerBlockOptin = 232448;
    p->totalGlobalMem = 1ull << 34;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaMalloc(void **p, size_t n) {
    EMU_MAY_FAIL("cudaMalloc");
    emu::stats().allocations++;
    std::lock_guard<std::recursive_mutex> l(emu::g_mu);
    *p = emu::dev_alloc(n);
    EMU_RET(*p ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t CUDARTAPI cudaFree(void *p) {
    std::lock_guard<std::recursive_mutex> l(emu::g_mu);
    if (!p) return cudaSuccess;
    emu::drain(nullptr);
    if (!emu::g_dev.erase((uintptr_t)p)) {
        emu::report("free", "not a live device pointer");
        EMU_RET(cudaErrorInvalidValue);
    }
#ifdef EMU_ASAN
    free(p);
#else
    free((char *)p - 512);
#endif
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaMallocAsync(void **p, size_t n, cudaStream_t) {
    return cudaMalloc(p, n);
}
cudaError_t CUDARTAPI cudaFreeAsync(void *p, cudaStream_t) {
    return cudaFree(p);
}
cudaError_t CUDARTAPI cudaMallocHost(void **p, size_t n) {
    EMU_MAY_FAIL("cudaMallocHost");
    emu::stats().allocations++;
    *p = malloc(n);
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaFreeHost(void *p) {
    free(p);
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaMemcpy(void *d, const void *s, size_t n, cudaMemcpyKind k) {
    std::lock_guard<std::recursive_mutex> l(emu::g_mu);
    cudaError_t e = emu::sync_guard();
    if (e) EMU_RET(e);
    emu::drain(nullptr);
    EMU_RET(emu::copy(d, s, n, k));
}
cudaError_t CUDARTAPI cudaMemcpyAsync(void *d, const void *s, size_t n, cudaMemcpyKind k,
                                      cudaStream_t st) {
    emu::submit(st, [=] { emu::copy(d, s, n, k); });
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaMemcpy2DAsync(void *d, size_t dpitch, const void *s, size_t spitch,
                                        size_t w, size_t h, cudaMemcpyKind k, cudaStream_t st) {
    emu::submit(st, [=] {
        for (size_t y = 0; y < h; y++)
            emu::copy((char *)d + y * dpitch, (const char *)s + y * spitch, w, k);
    });
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaPointerGetAttributes(cudaPointerAttributes *a, const void *p) {
    std::lock_guard<std::recursive_mutex> l(emu::g_mu);
    memset(a, 0, sizeof *a);
    a->type = emu::in_dev(p, 1) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaMemGetInfo(size_t *available, size_t *total) {
    *available = *total = 1ull << 34;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaFuncGetAttributes(cudaFuncAttributes *a, const void *) {
    EMU_MAY_FAIL("cudaFuncGetAttributes");
    memset(a, 0, sizeof *a);
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaMemset(void *d, int v, size_t n) {
    emu::submit(nullptr, [=] { memset(d, v, n); });
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t st) {
    if (n && !emu::in_dev(d, n)) {
        emu::report("memset", "not device memory");
        EMU_RET(cudaErrorInvalidValue);
    }
    emu::submit(st, [=] { memset(d, v, n); });
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaMemcpyToSymbol(const void *sym, const void *s, size_t n, size_t off,
                                         cudaMemcpyKind) {
    memcpy((char *)const_cast<void *>(sym) + off, s, n);
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaGetLastError(void) {
    (void)emu::fault("launch");
    cudaError_t e = emu::g_last;
    emu::g_last = cudaSuccess;
    return e;
}
cudaError_t CUDARTAPI cudaPeekAtLastError(void) {
    return emu::g_last;
}
const char *CUDARTAPI cudaGetErrorString(cudaError_t e) {
    return e == cudaSuccess ? "no error" : "emulated CUDA error";
}
const char *CUDARTAPI cudaGetErrorName(cudaError_t e) {
    return e == cudaSuccess ? "cudaSuccess" : "cudaError";
}
cudaError_t CUDARTAPI cudaDeviceSynchronize(void) {
    std::lock_guard<std::recursive_mutex> l(emu::g_mu);
    cudaError_t e = emu::sync_guard();
    if (e) EMU_RET(e);
    emu::drain(nullptr);
    return emu::g_last;
}
cudaError_t CUDARTAPI cudaStreamCreate(cudaStream_t *s) {
    EMU_MAY_FAIL("cudaStreamCreate");
    std::lock_guard<std::recursive_mutex> l(emu::g_mu);
    *s = new CUstream_st;
    emu::g_streams.push_back(*s);
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    return cudaStreamCreate(s);
}
cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t s) {
    std::lock_guard<std::recursive_mutex> l(emu::g_mu);
    emu::drain(s);
    auto &v = emu::g_streams;
    v.erase(std::remove(v.begin(), v.end(), s), v.end());
    delete s;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t s) {
    EMU_MAY_FAIL("cudaStreamSynchronize");
    std::lock_guard<std::recursive_mutex> l(emu::g_mu);
    if (!s) return cudaDeviceSynchronize();
    if (s->cap) {
        s->bad = true;
        emu::report("capture", "cudaStreamSynchronize while capturing");
        EMU_RET(cudaErrorStreamCaptureUnsupported);
    }
    emu::drain(s);
    return emu::g_last;
}
cudaError_t CUDARTAPI cudaEventCreate(cudaEvent_t *e) {
    *e = new CUevent_st;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    return cudaEventCreate(e);
}
cudaError_t CUDARTAPI cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    if (s && s->cap) {
        e->g = s->cap;
        return cudaSuccess;
    }
    e->g = nullptr;
    unsigned long long v = ++e->want;
    emu::submit(s, [=] {
        e->done = v;
        e->t = std::chrono::steady_clock::now();
    });
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaEventSynchronize(cudaEvent_t e) {
    std::lock_guard<std::recursive_mutex> l(emu::g_mu);
    while (e->done < e->want) {
        bool ran = false;
        for (auto *s : emu::g_streams) ran |= emu::step(s);
        if (!ran) break;
    }
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaEventQuery(cudaEvent_t e) {
    return e->done < e->want ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t CUDARTAPI cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    *ms = std::chrono::duration<float, std::milli>(b->t - a->t).count();
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    if (e->g) {
        s->cap = e->g;
        return cudaSuccess;
    }
    if (s && emu::lazy()) s->q.push_back({nullptr, e, e->want});
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    EMU_MAY_FAIL("cudaStreamBeginCapture");
    if (!s) EMU_RET(cudaErrorStreamCaptureUnsupported);
    s->cap = new CUgraph_st;
    s->bad = false;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    CUgraph_st *c = s->cap;
    for (auto *x : emu::g_streams)
        if (x->cap == c) x->cap = nullptr;
    *g = nullptr;
    if (emu::fault("cudaStreamEndCapture") != cudaSuccess) {
        delete c;
        return emu::g_last;
    }
    if (s->bad) {
        s->bad = false;
        delete c;
        EMU_RET(cudaErrorStreamCaptureInvalidated);
    }
    *g = c;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) {
    EMU_MAY_FAIL("cudaGraphInstantiate");
    *x = new CUgraphExec_st{g->ops};
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    emu::stats().graphs++;
    for (auto &o : x->ops) emu::submit(s, o);
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaGraphDestroy(cudaGraph_t g) {
    delete g;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaGraphExecDestroy(cudaGraphExec_t x) {
    delete x;
    return cudaSuccess;
}
cudaError_t CUDARTAPI cudaFuncSetAttribute(const void *f, cudaFuncAttribute a, int v) {
    if (a == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (v > 232448) EMU_RET(cudaErrorInvalidValue);
        emu::g_attr_smem[f] = (size_t)v;
    }
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    cudaDeviceProp p;
    cudaGetDeviceProperties(&p, device);
    *value = attribute == cudaDevAttrMultiProcessorCount            ? p.multiProcessorCount
             : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? (int)p.sharedMemPerBlockOptin
             : attribute == cudaDevAttrComputeCapabilityMajor       ? p.major
             : attribute == cudaDevAttrComputeCapabilityMinor       ? p.minor
                                                                    : -1;
    return *value < 0 ? cudaErrorInvalidValue : cudaSuccess;
}
/* No driver here: what asks for its functions takes the way without them. */
cudaError_t CUDARTAPI cudaGetDriverEntryPointByVersion(const char *, void **, unsigned,
                                                       unsigned long long,
                                                       cudaDriverEntryPointQueryResult *) {
    return cudaErrorInsufficientDriver;
}
} // extern "C"
#ifdef EMU_CHECK
#    include "emu_check.h"
#endif
