/* test_emu.cc - the emulator finds the bugs that are planted here, and none in what is right */
#include "test.h"

#ifdef __CUDACC__
int main(void) {
    printf("the emulator has no part in this build\n");
    return 77;
}
#else
#    include "emu.h"

enum { THREADS = 64 };

/* ---- kernels --------------------------------------------------------------------------------- */

/* Each thread hands its number to its neighbour: with a barrier, or without. */
static void neighbours_kernel(int *out, int with_barrier) {
    GFLI_SHARED(int, shared, [THREADS]);
    const int i = (int)threadIdx.x;
    shared[i] = i;
    if (with_barrier) __syncthreads();
    out[i] = shared[(i + 33) % THREADS]; /* another warp's */
}

/* The sum of what all blocks write to one place: atomically, or not. */
static void total_kernel(int *out, int atomically) {
    if (atomically)
        atomicAdd(out, 1);
    else
        out[0] = out[0] + 1;
}

static void beyond_kernel(int *out, int n) {
    out[(int)threadIdx.x + n] = 1;
}

static void unset_kernel(int *out, int from) {
    GFLI_SHARED(int, shared, [THREADS]);
    if ((int)threadIdx.x >= from) shared[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x];
}

/* A barrier that half of the threads never reach. */
static void parted_kernel(int *out, int half) {
    if ((int)threadIdx.x < half) __syncthreads();
    out[threadIdx.x] = 1;
}

static void shuffle_kernel(int *out, int absent) {
    if ((int)threadIdx.x == absent) return;
    out[threadIdx.x] = __shfl_sync(0xffffffffu, (int)threadIdx.x, 5);
}

/* ---- planted bugs ---------------------------------------------------------------------------- */

typedef void (*kernel)(int *, int);

/* Whether a run of the kernel is reported, as `kind`. */
static bool caught(kernel k, int blocks, int argument, const char *kind) {
    int *out = NULL;
    CHECK(cudaMalloc((void **)&out, 2 * THREADS * sizeof *out) == cudaSuccess);
    CHECK(cudaMemset(out, 0, 2 * THREADS * sizeof *out) == cudaSuccess);
    emu::reset_errors();
    GFLI_LAUNCH((k), (unsigned)blocks, THREADS, 0, 0, out, argument);
    const bool found = emu::errors() > 0;
    if (found && strcmp(emu::last_kind(), kind) != 0)
        printf("%s where %s was expected\n", emu::last_kind(), kind);
    CHECK(!found || strcmp(emu::last_kind(), kind) == 0);
    emu::reset_errors();
    (void)cudaGetLastError();
    CHECK(cudaFree(out) == cudaSuccess);
    return found;
}

static void barriers_and_shuffles_need_all_threads(void) {
    CHECK(!caught(parted_kernel, 1, THREADS, "barrier"));
    CHECK(caught(parted_kernel, 1, THREADS / 2, "barrier"));
    CHECK(!caught(shuffle_kernel, 1, -1, "shuffle"));
    CHECK(caught(shuffle_kernel, 1, 5, "shuffle"));
}

static void races_are_seen(void) {
    CHECK(!caught(neighbours_kernel, 1, 1, "race"));
    CHECK(!caught(total_kernel, 3, 1, "race"));
    if (!emu::detector()) return;
    CHECK(caught(neighbours_kernel, 1, 0, "race"));
    CHECK(caught(neighbours_kernel, 2, 1, "race")); /* blocks write to the same place */
    CHECK(caught(total_kernel, 3, 0, "race"));
}

static void addresses_and_unset_memory_are_seen(void) {
    CHECK(!caught(beyond_kernel, 1, THREADS, "illegal address"));
    CHECK(!caught(unset_kernel, 1, 0, "uninitialised"));
    if (!emu::detector()) return;
    CHECK(caught(beyond_kernel, 1, THREADS + 1, "illegal address"));
    CHECK(caught(unset_kernel, 1, 1, "uninitialised"));
}

/* Shared memory that nobody wrote holds no number, with the detector or without. */
static void unset_memory_is_poisoned(void) {
    int *out = NULL, host[THREADS];
    CHECK(cudaMalloc((void **)&out, sizeof host) == cudaSuccess);
    GFLI_LAUNCH((unset_kernel), 1, THREADS, 0, 0, out, 1);
    CHECK(cudaMemcpy(host, out, sizeof host, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(host[0] != 0 && host[0] != 1 && host[1] == 1);
    CHECK(cudaFree(out) == cudaSuccess);
    emu::reset_errors();
}

static void the_runtime_refuses_what_cuda_refuses(void) {
    int *out = NULL, host = 0;
    cudaStream_t stream;
    cudaGraph_t graph;
    emu::reset_errors();
    CHECK(cudaMalloc((void **)&out, sizeof *out) == cudaSuccess);
    CHECK(cudaMemcpy(&host, &host, sizeof host, cudaMemcpyDeviceToHost) != cudaSuccess);
    CHECK(cudaMemcpy(out, &host, 2 * sizeof host, cudaMemcpyHostToDevice) != cudaSuccess);
    CHECK(cudaFree(&host) != cudaSuccess);
    GFLI_LAUNCH((total_kernel), 1, 1025, 0, 0, out, 1);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
    GFLI_LAUNCH((total_kernel), 1, 32, 49 * 1024, 0, out, 1);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue);
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) != cudaSuccess);
    CHECK(cudaStreamEndCapture(stream, &graph) != cudaSuccess);
    CHECK(emu::errors() == 4);
    (void)cudaGetLastError();
    emu::reset_errors();
    CHECK(cudaStreamDestroy(stream) == cudaSuccess && cudaFree(out) == cudaSuccess);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(barriers_and_shuffles_need_all_threads), TEST(races_are_seen),
        TEST(addresses_and_unset_memory_are_seen),    TEST(unset_memory_is_poisoned),
        TEST(the_runtime_refuses_what_cuda_refuses),  {NULL, NULL, TEST_EVERYWHERE}};
    return test_main(argc, argv, cases);
}
#endif
