// How elementwise kernels go through n values of T: 16 bytes at a time where the arrays allow it.
#pragma once
#include "common.cuh"

constexpr int WIDE = 16 / sizeof(T);
constexpr int ROUNDS = sizeof(T) == 8 ? 1 : 2;  // accesses under way: float64's erf fills registers

// wide(i) for WIDE values from i on, single(i) for those after, or for all if not `vectors`.
template <class W, class S> DEVICE void each(long long n, bool vectors, W wide, S single) {
    long long done = vectors ? n / WIDE * WIDE : 0;
#pragma unroll ROUNDS
    for (long long i = global_index() * WIDE; i < done; i += global_stride() * WIDE) wide(i);
    for (long long i = done + global_index(); i < n; i += global_stride()) single(i);
}
