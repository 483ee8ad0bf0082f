/* emu_tensor.h - mma.sync, ldmatrix and cp.async as the PTX manual defines them
 *
 * Products are exact and added in double, then rounded once: at least as exact as any tensor core,
 * whose order of additions no manual gives. */
#ifndef EMU_TENSOR_H
#define EMU_TENSOR_H

namespace emu {

enum MmaKind { MMA_TF32, MMA_BF16, MMA_FP16 };

struct MmaLane {
    float *d;
    const unsigned *a, *b;
    MmaKind kind;
};

inline float mma_half(unsigned word, int half, MmaKind kind) {
    unsigned short bits = (unsigned short)(word >> (16 * half));
    if (kind == MMA_BF16) return bf2f(bits);
    return __half2float(__ushort_as_half(bits));
}

/* The hardware ignores the low 13 bits of a tf32 operand. */
inline float mma_tf32(unsigned word) {
    return __uint_as_float(word & 0xffffe000u);
}

inline void mma_gather(const MmaLane *m, int lane, float A[16][16], float B[16][8]) {
    const int g = lane / 4, t = lane % 4;
    if (m->kind == MMA_TF32) {
        for (int r = 0; r < 4; r++) A[g + r % 2 * 8][t + r / 2 * 4] = mma_tf32(m->a[r]);
        for (int r = 0; r < 2; r++) B[t + r * 4][g] = mma_tf32(m->b[r]);
        return;
    }
    for (int h = 0; h < 2; h++) {
        for (int r = 0; r < 4; r++)
            A[g + r % 2 * 8][t * 2 + h + r / 2 * 8] = mma_half(m->a[r], h, m->kind);
        for (int r = 0; r < 2; r++) B[t * 2 + h + r * 8][g] = mma_half(m->b[r], h, m->kind);
    }
}

inline void mma_warp(void **lanes, unsigned mask) {
    float A[16][16], B[16][8];
    if (mask != 0xffffffffu) return; /* reported by the caller as a divergence */
    const int depth = static_cast<MmaLane *>(lanes[0])->kind == MMA_TF32 ? 8 : 16;
    for (int l = 0; l < 32; l++) mma_gather(static_cast<MmaLane *>(lanes[l]), l, A, B);
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < 4; i++) {
            const int row = l / 4 + i / 2 * 8, col = l % 4 * 2 + i % 2;
            float *d = &static_cast<MmaLane *>(lanes[l])->d[i];
            double sum = *d;
            for (int k = 0; k < depth; k++) sum += (double)A[row][k] * B[k][col];
            *d = (float)sum;
        }
    }
}

struct LoadLane {
    unsigned *r;
    const unsigned short *row;
};

inline void ldmatrix_warp(void **lanes, unsigned mask) {
    if (mask != 0xffffffffu) return;
    for (int l = 0; l < 32; l++) {
        for (int m = 0; m < 4; m++) {
            const unsigned short *row = static_cast<LoadLane *>(lanes[m * 8 + l / 4])->row;
            static_cast<LoadLane *>(lanes[l])->r[m] = row[l % 4 * 2] | (unsigned)row[l % 4 * 2 + 1]
                                                                           << 16;
        }
    }
}

inline void mma(float *d, const unsigned *a, const unsigned *b, MmaKind kind, const char *name,
                const char *file, int line) {
    MmaLane lane{d, a, b, kind};
    warp_sync(0xffffffffu, name, &lane, mma_warp, file, line);
}

} // namespace emu

static inline void gfli_mma_bf16(float *d, const unsigned *a, const unsigned *b, EMU_SITE) {
    emu::mma(d, a, b, emu::MMA_BF16, "mma.m16n8k16.bf16", file, line);
}

static inline void gfli_mma_fp16(float *d, const unsigned *a, const unsigned *b, EMU_SITE) {
    emu::mma(d, a, b, emu::MMA_FP16, "mma.m16n8k16.f16", file, line);
}

static inline void gfli_mma_tf32(float *d, const unsigned *a, const unsigned *b, EMU_SITE) {
    emu::mma(d, a, b, emu::MMA_TF32, "mma.m16n8k8.tf32", file, line);
}

static inline unsigned gfli_to_tf32(unsigned bits) {
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
}

static inline void gfli_ldmatrix_x4(unsigned *r, const void *row, EMU_SITE) {
    if ((uintptr_t)row % 16 != 0)
        emu::report("alignment", "ldmatrix row at %s:%d is not 16-byte aligned", file, line);
    emu::note_read(row, 16);
    emu::LoadLane lane{r, static_cast<const unsigned short *>(row)};
    emu::warp_sync(0xffffffffu, "ldmatrix.x4", &lane, emu::ldmatrix_warp, file, line);
}

static inline void gfli_cp_async16(void *to, const void *from, int bytes) {
    emu::cp_async(to, from, bytes);
}

static inline void gfli_cp_commit(void) {
    emu::cp_commit();
}

static inline void gfli_cp_wait(int n) {
    emu::cp_wait(n);
}

#endif
