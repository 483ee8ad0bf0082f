/* gpu.cuh - launches, shared memory and the instructions that CUDA C++ has no words for */
#pragma once

/* The only place for these, besides conv/wgmma.cuh.  A host compiler gets the same names from
 * tests/emu, which runs the kernels on the CPU; nothing else differs there. */
#ifdef __CUDACC__

/* GFLI_LAUNCH((kernel), grid, block, shared bytes, stream, arguments) */
#    define GFLI_UNPAREN(...) __VA_ARGS__
#    define GFLI_LAUNCH(kernel, grid, block, shared, stream, ...)                                  \
        GFLI_UNPAREN kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
/* T name dims; for example GFLI_SHARED(float, part, [32]) */
#    define GFLI_SHARED(T, name, dims) __shared__ T name dims
/* The launch's dynamic shared memory; the alignment is what the copy engine's swizzle wants. */
#    define GFLI_DYN_SHARED(T, name)                                                               \
        extern __shared__ __align__(1024) unsigned char gfli_dyn_shared[];                         \
        T *name = (T *)(void *)gfli_dyn_shared
#    define GFLI_GRID_CONSTANT __grid_constant__

/* d (16x8, float) += a (16x16) times b (16x8, columns): a warp holds one fragment of each. */
static __device__ __forceinline__ void gfli_mma_bf16(float d[4], const unsigned a[4],
                                                     const unsigned b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void gfli_mma_fp16(float d[4], const unsigned a[4],
                                                     const unsigned b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* d (16x8) += a (16x8) times b (8x8, columns). */
static __device__ __forceinline__ void gfli_mma_tf32(float d[4], const unsigned a[4],
                                                     const unsigned b[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* A float's bits with 10 bits of mantissa, rounded to nearest, ties away from zero. */
static __device__ __forceinline__ unsigned gfli_to_tf32(unsigned bits) {
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(r) : "f"(__uint_as_float(bits)));
    return r;
}

/* Four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8. */
static __device__ __forceinline__ void gfli_ldmatrix_x4(unsigned r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}

/* 16 bytes from global to shared memory, some time before the wait; only the first `bytes` (0 or
 * 16) are read, the others become zero. */
static __device__ __forceinline__ void gfli_cp_async16(void *to, const void *from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(
                     (unsigned)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(bytes)
                 : "memory");
}

/* Close a group of copies; wait until at most n of the thread's groups are under way. */
static __device__ __forceinline__ void gfli_cp_commit(void) {
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
#    define gfli_cp_wait(n) asm volatile("cp.async.wait_group %0;\n" ::"n"(n) : "memory")

#endif /* __CUDACC__ */
