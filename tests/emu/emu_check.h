/* emu_check.h - the race and address detector of emu.cc; see there */
#include <cxxabi.h>
#include <dlfcn.h>
extern "C" char __executable_start, _end;
namespace emu {
struct Acc {
    unsigned seq, thr, ph;
    uint8_t mask, atom, multi;
}; // ph = block phase << 16 | warp phase
struct Cell {
    Acc w, r;
    unsigned iblk, iseq;
    uint8_t init;
}; // init*: bytes of shared memory written by this block
static std::unordered_map<uintptr_t, Cell *> g_shadow;
static uintptr_t g_pg = ~0ull;
static Cell *g_pgp = nullptr;
static uintptr_t g_lo = 1, g_hi = 0;
static int g_local = 0;
static std::set<std::pair<void *, int>> g_seen;
static unsigned g_launch_seq = 0;
static Cell *cell(uintptr_t a) {
    uintptr_t pg = a >> 14;
    if (pg != g_pg) {
        Cell *&c = g_shadow[pg];
        if (!c) c = (Cell *)calloc(4096, sizeof(Cell));
        g_pg = pg;
        g_pgp = c;
    }
    return g_pgp + ((a >> 2) & 4095);
}
static std::string where(void *pc) {
    char cmd[128], b[512];
    snprintf(cmd, sizeof cmd, "addr2line -s -i -e /proc/%d/exe %p | tr '\\n' ' '", (int)getpid(),
             (void *)((char *)pc - 1));
    FILE *f = popen(cmd, "r");
    std::string s;
    if (f) {
        while (fgets(b, sizeof b, f)) s += b;
        pclose(f);
    }
    return s;
}
static bool find_region(uintptr_t a, uintptr_t &lo, uintptr_t &hi) {
    auto in = [&](const void *p, size_t n) {
        if (n && a >= (uintptr_t)p && a < (uintptr_t)p + n) {
            lo = (uintptr_t)p;
            hi = lo + n;
            return true;
        }
        return false;
    };
    g_local = 0;
    auto it = g_dev.upper_bound(a);
    if (it != g_dev.begin()) {
        --it;
        if (in((void *)it->first, it->second)) return true;
    }
    g_local = 2; // per-block memory: other blocks reuse the addresses
    if (in(W->dyn, W->dyn_n)) return true;
    for (auto &v : W->sv)
        if (in(v.p, v.n)) return true;
    g_local = 1;
    if (in(&__executable_start, (size_t)(&_end - &__executable_start)))
        return true; // __device__/__constant__/plain __shared__ variables
    return in(W->ctx, W->ctx_n);
}
// A mistake, told once for each place in the code.
static void tell(const char *what, int kind, void *pc, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void tell(const char *what, int kind, void *pc, const char *format, ...) {
    if (!g_seen.insert({pc, kind}).second) return;
    int u = user_code;
    user_code = 0;
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    std::string s = where(pc);
    report(what, "kernel %s: %s; at %s", W->kname, text, s.c_str());
    user_code = u;
}
static void race(const char *kind, const Acc &o, uintptr_t a, void *pc) {
    tell("race", 2, pc, "%s, address %p, other thread: block %u thread %u", kind, (void *)a,
         o.thr / 1024, o.thr % 1024);
}
static inline bool ordered(const Acc &o, unsigned thr, unsigned ph) {
    if (o.thr == thr || o.seq < g_launch_seq) return true;
    unsigned ob = o.thr / 1024, b = thr / 1024;
    if (ob == b)
        return (o.ph >> 16) < (ph >> 16) ||
               ((o.thr & 1023) >> 5 == (thr & 1023) >> 5 && (o.ph & 65535) < (ph & 65535));
    return g_local ||
           (ob < g_brec.size() && g_brec[ob].fence > o.seq && g_brec[ob].fence <= g_brec[b].acq);
}
// Shared memory: are these bytes of the word set by this block?
static void check_set(Cell *c, unsigned thr, bool wr, uint8_t m, void *pc) {
    unsigned blk = thr / 1024;
    if (c->iblk != blk || c->iseq < g_launch_seq) c->init = 0;
    c->iblk = blk;
    c->iseq = g_seq;
    if (wr)
        c->init |= m;
    else if ((c->init & m) != m)
        tell("uninitialised", 4, pc,
             "shared memory read before this block wrote it, or while a cp.async is pending");
}
// Does an access to these bytes of a word meet another that is not ordered before it?
static void check_order(Cell *c, uintptr_t q, unsigned thr, unsigned ph, bool wr, bool atom,
                        uint8_t m, void *pc) {
    if (c->w.mask & m && !ordered(c->w, thr, ph) && !(atom && c->w.atom))
        race(wr ? "write/write" : "read after unordered write", c->w, q, pc);
    if (wr && c->r.mask & m && !(atom && c->r.atom)) {
        Acc o = c->r;
        if (o.multi && o.thr == thr) o.thr ^= 1;
        if (!ordered(o, thr, ph)) race("write after unordered read", o, q, pc);
    }
}
static void record_access(Cell *c, unsigned thr, unsigned ph, bool wr, bool atom, uint8_t m) {
    Acc me{g_seq, thr, ph, m, (uint8_t)atom, 0};
    if (wr) {
        c->w = me;
        if (ordered(c->r, thr, ph)) c->r.mask = 0;
    } else {
        bool same = c->r.mask && c->r.seq >= g_launch_seq && c->r.ph == ph &&
                    c->r.thr / 1024 == thr / 1024;
        me.multi = same && (c->r.multi || c->r.thr != thr);
        if (same) me.mask |= c->r.mask;
        c->r = me;
    }
}
void check_access(const void *p, size_t n, bool wr, bool atom, void *pc) {
    if (!W || !W->cur || W->cur == &W->main_ || !n) return;
    uintptr_t a = (uintptr_t)p;
    Fiber *me = W->cur;
    if (a - (uintptr_t)me->lo < me->sz) return;
    uintptr_t tl = (uintptr_t)&threadIdx;
    if (a + 4096 > tl && a < tl + 4096) return; // threadIdx & co
    if (a < g_lo || a + n > g_hi)
        if (!find_region(a, g_lo, g_hi) || a + n > g_hi) {
            g_lo = 1;
            g_hi = 0;
            tell("illegal address", 1, pc, "%s of %zu bytes at %p, outside every device allocation",
                 wr ? "write" : "read", n, p);
            return;
        }
    if ((a & (n - 1)) && (n == 2 || n == 4 || n == 8 || n == 16))
        tell("alignment", 3, pc, "misaligned access of %zu bytes at %p", n, p);
    static unsigned long long last_launch = ~0ull;
    if (last_launch != g_stats.launches) {
        last_launch = g_stats.launches;
        g_launch_seq = g_seq;
    }
    unsigned thr = cur_block() * 1024 + (unsigned)me->lin,
             ph = (W->bphase & 65535) << 16 | (W->w[me->lin >> 5].phase & 65535);
    for (uintptr_t q = a & ~3ull; q < a + n; q += 4) {
        Cell *c = cell(q);
        uint8_t m = 0;
        for (unsigned k = 0; k < 4; k++)
            if (q + k >= a && q + k < a + n) m |= 1u << k;
        check_order(c, q, thr, ph, wr, atom, m, pc);
        if (g_local == 2) check_set(c, thr, wr, m, pc);
        record_access(c, thr, ph, wr, atom, m);
    }
}
void check_pending(const void *p,
                   size_t n) { // bytes an asynchronous copy will write: unreadable until its wait
    for (uintptr_t q = (uintptr_t)p & ~3ull; q < (uintptr_t)p + n; q += 4) {
        Cell *c = cell(q);
        c->init = 0;
        c->iblk = cur_block();
        c->iseq = g_seq;
    }
}
} // namespace emu
#define EMU_CB(name, n, wr)                                                                        \
    void name(void *p) {                                                                           \
        if (emu::user_code) emu::check_access(p, n, wr, false, __builtin_return_address(0));       \
    }
extern "C" {
EMU_CB(__tsan_read1, 1, 0)
EMU_CB(__tsan_read2, 2, 0) EMU_CB(__tsan_read4, 4, 0) EMU_CB(__tsan_read8, 8, 0)
    EMU_CB(__tsan_read16, 16, 0) EMU_CB(__tsan_write1, 1, 1) EMU_CB(__tsan_write2, 2, 1)
        EMU_CB(__tsan_write4, 4, 1) EMU_CB(__tsan_write8, 8, 1) EMU_CB(__tsan_write16, 16, 1)
            EMU_CB(__tsan_unaligned_read2, 2, 0) EMU_CB(__tsan_unaligned_read4, 4, 0)
                EMU_CB(__tsan_unaligned_read8, 8, 0) EMU_CB(__tsan_unaligned_read16, 16,
                                                            0) EMU_CB(__tsan_unaligned_write2, 2, 1)
                    EMU_CB(__tsan_unaligned_write4, 4, 1) EMU_CB(__tsan_unaligned_write8, 8, 1)
                        EMU_CB(__tsan_unaligned_write16, 16, 1) EMU_CB(__tsan_volatile_read1, 1, 0)
                            EMU_CB(__tsan_volatile_read2, 2, 0) EMU_CB(__tsan_volatile_read4, 4, 0)
                                EMU_CB(__tsan_volatile_read8, 8, 0)
                                    EMU_CB(__tsan_volatile_write1, 1, 1)
                                        EMU_CB(__tsan_volatile_write2, 2, 1)
                                            EMU_CB(__tsan_volatile_write4, 4, 1)
                                                EMU_CB(__tsan_volatile_write8, 8,
                                                       1) void __tsan_read_range(void *p,
                                                                                 unsigned long n) {
    if (emu::user_code) emu::check_access(p, n, 0, 0, __builtin_return_address(0));
}
void __tsan_write_range(void *p, unsigned long n) {
    if (emu::user_code) emu::check_access(p, n, 1, 0, __builtin_return_address(0));
}
void __tsan_init(void) {
}
void __tsan_func_entry(void *) {
}
void __tsan_func_exit(void) {
}
void __tsan_vptr_update(void **, void *) {
}
void __tsan_vptr_read(void **) {
}
int __tsan_atomic32_fetch_add(volatile int *p, int v, int) {
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
int __tsan_atomic32_load(const volatile int *p, int) {
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
void __tsan_atomic32_store(volatile int *p, int v, int) {
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);
}
int __tsan_atomic32_fetch_sub(volatile int *p, int v, int) {
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);
}
char __tsan_atomic8_load(const volatile char *p, int) {
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
long __tsan_atomic64_fetch_add(volatile long *p, long v, int) {
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
}
