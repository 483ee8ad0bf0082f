/* data.h - files and hashes for the tests of data sets */
#ifndef GFL_TEST_DATA_H
#define GFL_TEST_DATA_H

#include "test.h"

/* A file of tests/data (the last four names stay valid). */
static inline const char *data_path(const char *name) {
    static char paths[4][1024];
    static int next;
    const char *root = getenv("GFL_TEST_DATA");
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", root && *root ? root : "tests/data", name);
    return path;
}

/* A file of ../shared, which is not part of the project and may be absent. */
static inline const char *data_shared(const char *name) {
    static char paths[4][1024];
    static int next;
    const char *root = getenv("GFL_FIXTURES");
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/../%s", root && *root ? root : "../shared/fixtures", name);
    return path;
}

static inline bool data_exists(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

static inline uint8_t *data_read(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    *size = 0;
    if (!f) {
        printf("cannot open %s\n", path);
        exit(1);
    }
    fseek(f, 0, SEEK_END);
    long end = ftell(f);
    rewind(f);
    uint8_t *bytes = (uint8_t *)malloc((size_t)end + 1);
    *size = fread(bytes, 1, (size_t)end, f);
    fclose(f);
    return bytes;
}

static inline uint64_t data_fnv1a64(const uint8_t *p, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (; n > 0; n--) h = (h ^ *p++) * 0x100000001b3u;
    return h;
}

/* ---- every allocation fails once ------------------------------------------------------------- */

typedef struct data_counter {
    long calls, fail_at, live;
} data_counter;

static inline void *data_counter_alloc(void *user, size_t size) {
    data_counter *c = (data_counter *)user;
    if (__atomic_fetch_add(&c->calls, 1, __ATOMIC_RELAXED) == c->fail_at) return NULL;
    __atomic_fetch_add(&c->live, 1, __ATOMIC_RELAXED);
    return malloc(size);
}

static inline void data_counter_free(void *user, void *p) {
    __atomic_fetch_sub(&((data_counter *)user)->live, 1, __ATOMIC_RELAXED);
    free(p);
}

/* work with the n-th allocation failing, until there are fewer: each time GFL_E_MEMORY, or success
 * where the work can do without, and no leak. */
static inline void data_sweep(gfl_status (*work)(gfl_context *)) {
    bool failed = true;
    long n = 0;
    for (; failed && test_failures < 5; n++) {
        data_counter c = {0, n, 0};
        gfl_context_desc desc;
        gfl_context *context = NULL;
        memset(&desc, 0, sizeof desc);
        desc.n_threads = 1;
        desc.allocator.alloc = data_counter_alloc;
        desc.allocator.free = data_counter_free;
        desc.allocator.user = &c;
        gfl_status status = gfl_context_create(&desc, &context);
        if (status == GFL_OK) status = work(context);
        failed = c.calls > n;
        CHECK(status == GFL_OK || (status == GFL_E_MEMORY && failed));
        CHECK(status == GFL_OK || !context || strstr(gfl_context_get_error(context), "memory"));
        gfl_context_destroy(context);
        CHECK(c.live == 0);
    }
    printf("%ld allocations, each made to fail\n", n - 1);
}

/* ---- SHA-256 (FIPS 180-4), as lower-case hexadecimal ----------------------------------------- */

static inline uint32_t data_rotate(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

/* The first 32 bits of the fractional part of the square (cube) root of the n-th prime. */
static inline uint32_t data_root_of_prime(int n, bool cube) {
    int prime = 1;
    for (int found = -1; found < n;) {
        bool is = true;
        prime++;
        for (int d = 2; d * d <= prime; d++) is = is && prime % d != 0;
        found += is;
    }
    /* Bit by bit: the largest x with x^k <= prime * 2^(32 k), in 128 bits. */
    uint64_t x = 0;
    for (int bit = 36; bit >= 0; bit--) {
        uint64_t t = x | (uint64_t)1 << bit;
        long double r = (long double)t / 4294967296.0L; /* 64 bits of it are enough for 35 */
        if ((cube ? r * r * r : r * r) <= (long double)prime) x = t;
    }
    return (uint32_t)x;
}

static inline void data_sha256_block(uint32_t state[8], const uint32_t k[64], const uint8_t *p) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
               (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (data_rotate(a, 7) ^ data_rotate(a, 18) ^ a >> 3) +
               (data_rotate(b, 17) ^ data_rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t e = s[4], a = s[0];
        uint32_t t1 = s[7] + (data_rotate(e, 6) ^ data_rotate(e, 11) ^ data_rotate(e, 25)) +
                      ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
        uint32_t t2 = (data_rotate(a, 2) ^ data_rotate(a, 13) ^ data_rotate(a, 22)) +
                      ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) state[i] += s[i];
}

static inline void data_sha256(const uint8_t *p, size_t n, char out[65]) {
    uint32_t state[8], k[64];
    uint8_t tail[128] = {0};
    for (int i = 0; i < 8; i++) state[i] = data_root_of_prime(i, false);
    for (int i = 0; i < 64; i++) k[i] = data_root_of_prime(i, true);
    size_t whole = n / 64 * 64, rest = n - whole, tail_size = rest < 56 ? 64 : 128;
    for (size_t i = 0; i < whole; i += 64) data_sha256_block(state, k, p + i);
    if (rest) memcpy(tail, p + whole, rest);
    tail[rest] = 0x80;
    for (size_t i = 0; i < 8; i++) tail[tail_size - 1 - i] = (uint8_t)((uint64_t)n * 8 >> (8 * i));
    for (size_t i = 0; i < tail_size; i += 64) data_sha256_block(state, k, tail + i);
    for (int i = 0; i < 8; i++) snprintf(out + 8 * i, 9, "%08x", (unsigned)state[i]);
}

#endif
