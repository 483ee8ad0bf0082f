/* test_gpu.cc - the instructions of gpu.cuh against the PTX manual's words
 *
 * Every layout below is written down from the manual ("Matrix Fragments for mma.m16n8k16 with
 * floating point type", "... mma.m16n8k8", "ldmatrix", "cp.async"), element by element, so that
 * neither the kernels nor the emulator can lend it a mistake. */
#include "test.h"

#include "device.h"

/* ---- mma ------------------------------------------------------------------------------------- */

/* Row and column of element i of a lane's fragment. */
static __device__ __host__ void place_a(int depth, int lane, int i, int *row, int *col) {
    const int group = lane >> 2, in_group = lane % 4;
    if (depth == 16) {
        *row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
        *col = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
    } else {
        *row = i == 0 || i == 2 ? group : group + 8;
        *col = i == 0 || i == 1 ? in_group : in_group + 4;
    }
}

static __device__ __host__ void place_b(int depth, int lane, int i, int *row, int *col) {
    const int group = lane >> 2, in_group = lane % 4;
    if (depth == 16)
        *row = i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
    else
        *row = i == 0 ? in_group : in_group + 4;
    *col = group;
}

static __device__ __host__ void place_d(int lane, int i, int *row, int *col) {
    *row = i < 2 ? lane >> 2 : (lane >> 2) + 8;
    *col = lane % 4 * 2 + (i & 1);
}

/* One warp; a [16][16], b [16][8], d [16][8]. */
static __global__ void multiply_kernel(const float *a, const float *b, float *d, int element) {
    const int lane = (int)threadIdx.x, depth = element == GFLI_MAP_F32 ? 8 : 16;
    const int bits = element == GFLI_MAP_F32 ? 32 : 16, per_word = 32 / bits;
    unsigned fa[4] = {0, 0, 0, 0}, fb[2] = {0, 0};
    float fd[4];
    int row, col;
    for (int i = 0; i < 4 * per_word; i++) {
        place_a(depth, lane, i, &row, &col);
        fa[i / per_word] |= gfli_to_bits(a[row * 16 + col], element) << (i % per_word * bits);
    }
    for (int i = 0; i < 2 * per_word; i++) {
        place_b(depth, lane, i, &row, &col);
        fb[i / per_word] |= gfli_to_bits(b[row * 8 + col], element) << (i % per_word * bits);
    }
    for (int i = 0; i < 4; i++) {
        place_d(lane, i, &row, &col);
        fd[i] = d[row * 8 + col];
    }
    if (element == GFLI_MAP_BF16) gfli_mma_bf16(fd, fa, fb);
    if (element == GFLI_MAP_FP16) gfli_mma_fp16(fd, fa, fb);
    if (element == GFLI_MAP_F32) gfli_mma_tf32(fd, fa, fb);
    for (int i = 0; i < 4; i++) {
        place_d(lane, i, &row, &col);
        d[row * 8 + col] = fd[i];
    }
}

/* Small whole numbers: every order of additions gives the same float. */
static void whole_numbers(float *x, int n, uint64_t seed) {
    float *u = test_uniform((size_t)n, -8, 9, seed);
    for (int i = 0; i < n; i++) x[i] = floorf(u[i]);
    free(u);
}

static void mma_multiplies_fragments_as_the_manual_lays_them_out(void) {
    float *a, *b, *d;
    cudaMalloc((void **)&a, 256 * 4);
    cudaMalloc((void **)&b, 128 * 4);
    cudaMalloc((void **)&d, 128 * 4);
    for (int element = 0; element < GFLI_ELEMENTS; element++) {
        const int depth = element == GFLI_MAP_F32 ? 8 : 16;
        float ha[256], hb[128], hd[128], got[128];
        whole_numbers(ha, 256, 1);
        whole_numbers(hb, 128, 2);
        whole_numbers(hd, 128, 3);
        cudaMemcpy(a, ha, sizeof ha, cudaMemcpyHostToDevice);
        cudaMemcpy(b, hb, sizeof hb, cudaMemcpyHostToDevice);
        cudaMemcpy(d, hd, sizeof hd, cudaMemcpyHostToDevice);
        GFLI_LAUNCH((multiply_kernel), 1, 32, 0, 0, a, b, d, element);
        CHECK(cudaMemcpy(got, d, sizeof got, cudaMemcpyDeviceToHost) == cudaSuccess);
        for (int row = 0; row < 16; row++)
            for (int col = 0; col < 8; col++)
                for (int k = 0; k < depth; k++)
                    hd[row * 8 + col] += ha[row * 16 + k] * hb[k * 8 + col];
        CHECK_CLOSE(got, hd, 128, 0);
    }
    cudaFree(a);
    cudaFree(b);
    cudaFree(d);
}

/* ---- ldmatrix -------------------------------------------------------------------------------- */

static __global__ void load_kernel(unsigned *out) {
    GFLI_SHARED(uint4, rows, [64]);
    const int lane = (int)threadIdx.x;
    unsigned short *halves = (unsigned short *)(void *)rows, *own;
    unsigned r[4];
    /* Row i of matrix m lies at 2 * (8 * m + i): every other one, so that addresses matter. */
    for (int i = lane; i < 64 * 8; i += 32) halves[i] = (unsigned short)(1000 + i);
    __syncthreads();
    own = halves + 2 * lane * 8;
    gfli_ldmatrix_x4(r, own);
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = r[i];
}

static void ldmatrix_gives_each_lane_two_neighbours_of_a_row(void) {
    unsigned *out, got[128];
    cudaMalloc((void **)&out, sizeof got);
    GFLI_LAUNCH((load_kernel), 1, 32, 0, 0, out);
    CHECK(cudaMemcpy(got, out, sizeof got, cudaMemcpyDeviceToHost) == cudaSuccess);
    for (int lane = 0; lane < 32; lane++) {
        for (int m = 0; m < 4; m++) {
            const unsigned row = (unsigned)(2 * (8 * m + lane / 4));
            const unsigned first = 1000 + row * 8 + (unsigned)(lane % 4) * 2;
            CHECK(got[lane * 4 + m] == (first | (first + 1) << 16));
        }
    }
    cudaFree(out);
}

/* ---- cp.async -------------------------------------------------------------------------------- */

static __global__ void copy_kernel(const uint4 *from, uint4 *to) {
    GFLI_SHARED(uint4, place, [64]);
    const int lane = (int)threadIdx.x;
    gfli_cp_async16(&place[lane], &from[lane], 16);
    gfli_cp_commit();
    gfli_cp_async16(&place[32 + lane], &from[0], 0);
    gfli_cp_commit();
    gfli_cp_wait(1);
    __syncthreads();
    to[lane] = place[31 - lane];
    gfli_cp_wait(0);
    __syncthreads();
    to[32 + lane] = place[63 - lane];
}

static void cp_async_copies_sixteen_bytes_or_clears_them(void) {
    unsigned from[32 * 4], got[64 * 4];
    uint4 *source, *target;
    for (unsigned i = 0; i < 128; i++) from[i] = 77 + i;
    cudaMalloc((void **)&source, sizeof from);
    cudaMalloc((void **)&target, sizeof got);
    cudaMemcpy(source, from, sizeof from, cudaMemcpyHostToDevice);
    GFLI_LAUNCH((copy_kernel), 1, 32, 0, 0, source, target);
    CHECK(cudaMemcpy(got, target, sizeof got, cudaMemcpyDeviceToHost) == cudaSuccess);
    for (int i = 0; i < 32; i++) {
        CHECK(memcmp(&got[i * 4], &from[(31 - i) * 4], 16) == 0);
        for (int k = 0; k < 4; k++) CHECK(got[(32 + i) * 4 + k] == 0);
    }
    cudaFree(source);
    cudaFree(target);
}

/* ---- numbers --------------------------------------------------------------------------------- */

static __global__ void round_kernel(const float *x, float *y, int n) {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        y[i] = __uint_as_float(gfli_to_tf32(__float_as_uint(x[i])));
}

static void tf32_keeps_ten_bits_and_rounds_ties_away(void) {
    static const float x[] = {
        1.0f, 1.0f + 0x1p-11f, 1.0f + 0x1p-12f, 1.0f + 0x1.8p-11f, -1.0f - 0x1p-11f,
        0.0f, -0.0f,           0x1.ffcp+127f,   INFINITY,          -INFINITY};
    static const float want[] = {
        1.0f, 1.0f + 0x1p-10f, 1.0f,          1.0f + 0x1p-10f, -1.0f - 0x1p-10f,
        0.0f, -0.0f,           0x1.ffcp+127f, INFINITY,        -INFINITY};
    enum { N = sizeof x / sizeof *x };
    float *from, *to, got[N];
    cudaMalloc((void **)&from, sizeof x);
    cudaMalloc((void **)&to, sizeof x);
    cudaMemcpy(from, x, sizeof x, cudaMemcpyHostToDevice);
    GFLI_LAUNCH((round_kernel), 1, 32, 0, 0, from, to, (int)N);
    CHECK(cudaMemcpy(got, to, sizeof got, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(memcmp(got, want, sizeof want) == 0);
    cudaFree(from);
    cudaFree(to);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(mma_multiplies_fragments_as_the_manual_lays_them_out),
        TEST(ldmatrix_gives_each_lane_two_neighbours_of_a_row),
        TEST(cp_async_copies_sixteen_bytes_or_clears_them),
        TEST(tf32_keeps_ten_bits_and_rounds_ties_away),
        {NULL, NULL, TEST_EVERYWHERE},
    };
    const int absent = device_absent();
    if (absent) return absent;
    emulated_order(EMULATED_RANDOM, 1);
    const int status = test_main(argc, argv, cases);
    return emulated_errors() > 0 ? 1 : status;
}
