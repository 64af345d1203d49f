// The instructions that C++ has no words for: tensor-core products and asynchronous copies. Every
// function has a device body and, for the emulator, a host body; older architectures get a plain
// form of the same meaning. Fragment layouts are those of the PTX ISA, "Matrix multiply-accumulate
// operation using mma instruction".
//
// Layouts, with g = lane / 4 and t = lane % 4:
//   C, D of m16n8: d[0], d[1] = D[g][2t], D[g][2t+1];  d[2], d[3] = D[g+8][2t], D[g+8][2t+1]
//   A of m16n8k16: a[0] = A[g][2t..], a[1] = A[g+8][2t..], a[2] = A[g][2t+8..], a[3] = A[g+8][2t+8..]
//   B of m16n8k16: b[0] = B[2t..][g], b[1] = B[2t+8..][g]        (each register two 16-bit values)
//   A of m16n8k8 (tf32): a[0] = A[g][t], a[1] = A[g+8][t], a[2] = A[g][t+4], a[3] = A[g+8][t+4]
//   B of m16n8k8 (tf32): b[0] = B[t][g], b[1] = B[t+4][g]
#pragma once
#include "common.cuh"

#ifdef GPUNN_EMULATOR

template <class H> DEVICE void mma_16816(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::mma_16816<H>(d, a, b, d);
}
DEVICE void mma_1688_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::mma_1688_tf32(d, a, b, d);
}
DEVICE unsigned to_tf32(float x) { return __float_as_uint(x); }
DEVICE void ldmatrix_x1(unsigned (&r)[1], const void* row) { emulator::ldmatrix<1, false>(r, row); }
DEVICE void ldmatrix_x2(unsigned (&r)[2], const void* row) { emulator::ldmatrix<2, false>(r, row); }
DEVICE void ldmatrix_x4(unsigned (&r)[4], const void* row) { emulator::ldmatrix<4, false>(r, row); }
DEVICE void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) { emulator::ldmatrix<2, true>(r, row); }
DEVICE void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) { emulator::ldmatrix<4, true>(r, row); }
template <int BYTES> DEVICE void cp_async(void* shared, const void* global, bool valid) {
    emulator::cp_async(shared, global, BYTES, valid ? BYTES : 0);
}
DEVICE void cp_async_commit() { emulator::cp_async_commit(); }
template <int KEEP> DEVICE void cp_async_wait() { emulator::cp_async_wait(KEEP); }

#else

// The product of m16n8k(8 * HALVES) from the fragments by shuffles, where the tensor core lacks it.
// `word(i)` gives the two 16-bit values of register i as floats.
template <class H> DEVICE float half_of(unsigned word, int high) {
    unsigned short bits = high ? word >> 16 : word & 0xffffu;
    return up(*reinterpret_cast<H*>(&bits));
}
template <class H> __device__ void mma_16816_by_shuffles(
    float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int k = 0; k < 16; k++) {
        int from = (k & 7) >> 1;
        unsigned top = __shfl_sync(0xffffffffu, a[2 * (k >> 3)], g * 4 + from);
        unsigned bottom = __shfl_sync(0xffffffffu, a[2 * (k >> 3) + 1], g * 4 + from);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            unsigned right = __shfl_sync(0xffffffffu, b[k >> 3], (2 * t + j) * 4 + from);
            d[j] += half_of<H>(top, k & 1) * half_of<H>(right, k & 1);
            d[2 + j] += half_of<H>(bottom, k & 1) * half_of<H>(right, k & 1);
        }
    }
}

// d += a b, m16n8k16, 16-bit floats with float sums.
template <class H> DEVICE void mma_16816(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
template <> DEVICE void mma_16816<__half>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
    for (int h = 0; h < 2; h++)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[2 * h]), "r"(a[2 * h + 1]), "r"(b[h]));
#endif
}
template <> DEVICE void mma_16816<__nv_bfloat16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    mma_16816_by_shuffles<__nv_bfloat16>(d, a, b);
#endif
}

// A float rounded to tf32, as the operands of mma_1688_tf32 are; a plain float before sm_80.
DEVICE unsigned to_tf32(float x) {
#if __CUDA_ARCH__ >= 800
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
#else
    return __float_as_uint(x);
#endif
}

// d += a b, m16n8k8, tf32 operands.
DEVICE void mma_1688_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int k = 0; k < 8; k++) {
        float top = __uint_as_float(__shfl_sync(0xffffffffu, a[2 * (k >> 2)], g * 4 + (k & 3)));
        float bottom = __uint_as_float(__shfl_sync(0xffffffffu, a[2 * (k >> 2) + 1], g * 4 + (k & 3)));
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float right = __uint_as_float(__shfl_sync(0xffffffffu, b[k >> 2], (2 * t + j) * 4 + (k & 3)));
            d[j] += top * right;
            d[2 + j] += bottom * right;
        }
    }
#endif
}

// --- shared memory ----------------------------------------------------------------------------

DEVICE unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

// 8 x 8 matrices of 16-bit values from shared memory: lanes 8i..8i+7 give the 16-byte rows of matrix
// i, lane l gets elements 2t, 2t+1 of row g of each; transposed: of column g.
DEVICE void ldmatrix_x1(unsigned (&r)[1], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(r[0]) : "r"(shared_address(row)) : "memory");
}
DEVICE void ldmatrix_x2(unsigned (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
DEVICE void ldmatrix_x4(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
DEVICE void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
DEVICE void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// BYTES (4, 8 or 16, both addresses aligned to it) from global to shared memory, in the background;
// zeros where not `valid` (then `global` is not read). Complete after commit and wait; before sm_80
// it is an ordinary copy.
template <int BYTES> DEVICE void cp_async(void* shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                     ::"r"(shared_address(shared)), "l"(global), "n"(BYTES), "r"(valid ? BYTES : 0) : "memory");
#else
    for (int i = 0; i < BYTES / 4; i++)
        ((unsigned*)shared)[i] = valid ? ((const unsigned*)global)[i] : 0u;
#endif
}
DEVICE void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until all but the last KEEP commits of this thread have arrived; a barrier must follow
// before other threads read.
template <int KEEP> DEVICE void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(KEEP) : "memory");
#endif
}

#endif

DEVICE void cp_async16(void* shared, const void* global, bool valid) { cp_async<16>(shared, global, valid); }
DEVICE void cp_async4(void* shared, const void* global, bool valid) { cp_async<4>(shared, global, valid); }
