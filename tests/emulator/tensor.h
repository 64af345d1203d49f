// Tensor-core products, matrix loads from shared memory and asynchronous copies: the host bodies of
// kernels/mma.cuh. The fragment layouts were checked against the PTX ISA ("Matrix Fragments for
// mma.m16n8k16 with floating point type", "... mma.m16n8k8") and, for ldmatrix, against descriptions
// of it elsewhere; none of it on hardware.
#pragma once
#include "interface.h"

namespace emulator {

// One lane's share of d = a b + c.
struct Product {
    const unsigned *a, *b;
    const float* c;
    float* d;
};

inline EMULATOR_OPERATION bool all_lanes(unsigned lanes, const char* what) {
    if (lanes == 0xffffffffu) return true;
    fail("a lane of the warp has exited or does not exist", {"", 0, what});
}

// Rows of the accumulators c and d (16 x 8): lane l has d[0], d[1] of row l/4 and d[2], d[3] of row
// l/4 + 8, in columns 2 (l%4) and 2 (l%4) + 1.
struct Accumulators {
    float at[16][8];
    EMULATOR_UNCHECKED static int row(int l, int i) { return (l >> 2) + (i >> 1) * 8; }
    EMULATOR_UNCHECKED static int column(int l, int i) { return (l & 3) * 2 + (i & 1); }
    EMULATOR_OPERATION void load(void** operands) {
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 4; i++) at[row(l, i)][column(l, i)] = ((Product*)operands[l])->c[i];
    }
    EMULATOR_OPERATION void store(void** operands) {
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 4; i++) ((Product*)operands[l])->d[i] = at[row(l, i)][column(l, i)];
    }
    template <int K> EMULATOR_OPERATION void add(const float (&A)[16][K], const float (&B)[K][8]) {
        for (int i = 0; i < 16; i++)
            for (int k = 0; k < K; k++)
                for (int j = 0; j < 8; j++) at[i][j] += A[i][k] * B[k][j];
    }
};

// The low or high 16 bits of a register as a float.
template <class T> EMULATOR_OPERATION float half_of(unsigned word, int high) {
    unsigned short bits = (unsigned short)(high ? word >> 16 : word);
    T half;
    memcpy((void*)&half, &bits, 2);
    return float(half);
}

// m16n8k16: a[r] holds row l/4 + 8 (r%2), columns 2 (l%4) + 8 (r/2) and the next one; b[r] holds rows
// 2 (l%4) + 8 r and the next one, column l/4.
template <class T> EMULATOR_OPERATION void mma_16816_work(void** operands, unsigned lanes) {
    if (!all_lanes(lanes, "mma.sync")) return;
    float A[16][16], B[16][8];
    for (int l = 0; l < 32; l++) {
        auto* mine = (Product*)operands[l];
        int g = l >> 2, t = (l & 3) * 2;
        for (int high = 0; high < 2; high++) {
            for (int r = 0; r < 4; r++)
                A[g + (r & 1) * 8][t + (r >> 1) * 8 + high] = half_of<T>(mine->a[r], high);
            for (int r = 0; r < 2; r++) B[t + r * 8 + high][g] = half_of<T>(mine->b[r], high);
        }
    }
    Accumulators sums;
    sums.load(operands);
    sums.add(A, B);
    sums.store(operands);
}
template <class T>
EMULATOR_UNCHECKED void mma_16816(float* d, const unsigned* a, const unsigned* b, const float* c,
                                  EMULATOR_HERE("mma.m16n8k16")) {
    Product mine{a, b, c, d};
    warp_collective(0xffffffffu, mma_16816_work<T>, &mine, site);
}

// A float rounded to the 10 bits of mantissa of tf32, ties away from zero, as cvt.rna does.
inline EMULATOR_OPERATION float tf32(unsigned bits) {
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & ~0x1fffu;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// m16n8k8 of tf32: a[r] is row l/4 + 8 (r%2), column l%4 + 4 (r/2); b[r] is row l%4 + 4 r, column l/4.
inline EMULATOR_OPERATION void mma_1688_tf32_work(void** operands, unsigned lanes) {
    if (!all_lanes(lanes, "mma.sync")) return;
    float A[16][8], B[8][8];
    for (int l = 0; l < 32; l++) {
        auto* mine = (Product*)operands[l];
        int g = l >> 2, t = l & 3;
        for (int r = 0; r < 4; r++) A[g + (r & 1) * 8][t + (r >> 1) * 4] = tf32(mine->a[r]);
        for (int r = 0; r < 2; r++) B[t + r * 4][g] = tf32(mine->b[r]);
    }
    Accumulators sums;
    sums.load(operands);
    sums.add(A, B);
    sums.store(operands);
}
EMULATOR_UNCHECKED void mma_1688_tf32(float* d, const unsigned* a, const unsigned* b,
                                             const float* c, EMULATOR_HERE("mma.m16n8k8.tf32")) {
    Product mine{a, b, c, d};
    warp_collective(0xffffffffu, mma_1688_tf32_work, &mine, site);
}

// ldmatrix: lanes 8i to 8i + 7 give the rows of matrix i, 8 values of 16 bits each; lane l gets values
// 2 (l%4) and the next one of row l/4 of each matrix, or of column l/4 when transposed.
struct MatrixRow {
    const void* row;
    unsigned* out;
};
template <int N, bool TRANS> EMULATOR_OPERATION void ldmatrix_work(void** operands, unsigned lanes) {
    if (!all_lanes(lanes, "ldmatrix")) return;
    for (int i = 0; i < N; i++) {
        unsigned short m[8][8];
        for (int r = 0; r < 8; r++) memcpy(m[r], ((MatrixRow*)operands[8 * i + r])->row, 16);
        for (int l = 0; l < 32; l++) {
            int g = l >> 2, t = (l & 3) * 2;
            unsigned low = TRANS ? m[t][g] : m[g][t], high = TRANS ? m[t + 1][g] : m[g][t + 1];
            ((MatrixRow*)operands[l])->out[i] = low | high << 16;
        }
    }
}
template <int N, bool TRANS>
__forceinline__ void ldmatrix(unsigned* out, const void* row, EMULATOR_HERE("ldmatrix")) {
    static_assert(N == 1 || N == 2 || N == 4, "ldmatrix loads 1, 2 or 4 matrices");
    if (int(lane()) < 8 * N) {
        if ((unsigned long long)row % 16) fail("the address of a row is no multiple of 16", site);
        EMULATOR_CHECK(row, 16, READ);
    }
    MatrixRow mine{row, out};
    warp_collective(0xffffffffu, ldmatrix_work<N, TRANS>, &mine, site);
}

}  // namespace emulator
