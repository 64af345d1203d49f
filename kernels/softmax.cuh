// What softmax.cu, softmax_short.cu and cross_entropy.cu share: exp, the running maximum and sum of
// a row, and walking along a row 16 bytes at a time.
#pragma once
#include "common.cuh"

// e**x in float64 is long: one copy of it, called, leaves the registers to the rows.
__device__ __attribute__((noinline)) double exp_called(double x) { return exp(x); }

// e**x. Results that are rounded to 16 bits need no more than the two-instruction form.
DEVICE Acc exponential(Acc x) {
    if constexpr (sizeof(T) == 2) return __expf(x);
    else if constexpr (sizeof(T) == 8) return exp_called(x);
    else return expf(x);
}

// What exp subtracts: the maximum, but 0 for -inf, because -inf - -inf is no number.
DEVICE Acc shift_of(Acc max) { return max == Acc(-INF) ? Acc(0) : max; }

// The maximum of the values met so far and the sum of exp(value - maximum), in one pass.
// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).
struct Online {
    Acc max = Acc(-INF), sum = Acc(0);

    // N values at once, so that a new maximum costs one exp for all of them.
    template <int N> DEVICE void add(const Acc (&v)[N]) {
        Acc top = max;
#pragma unroll
        for (int j = 0; j < N; j++) top = fmax(top, v[j]);
        if (top > max) settle(top);
        Acc shift = shift_of(max);
#pragma unroll
        for (int j = 0; j < N; j++) sum += exponential(v[j] - shift);
    }
    DEVICE void add(Acc v) {
        Acc one[1] = {v};
        add(one);
    }
    // The same sum for a maximum that is at least as large.
    DEVICE void settle(Acc top) {
        sum *= exponential(max - shift_of(top));
        max = top;
    }
    // All threads of the warp or block get what all of them met.
    DEVICE void over_warp() {
        settle(warp_max(max));
        sum = warp_sum(sum);
    }
    DEVICE void over_block(Acc* scratch) {
        settle(block_max(max, scratch));
        sum = block_sum(sum, scratch);
    }
};

constexpr int WIDE = 16 / sizeof(T);  // values in a 16-byte access

// WIDE values from an aligned place, as Acc; a copy of them goes to `copy` if it is not null.
DEVICE void load_wide(const T* from, Acc (&v)[WIDE], T* copy = nullptr) {
    Vec<T, WIDE> raw = load<WIDE>(from);
    if (copy) store(copy, raw);
#pragma unroll
    for (int j = 0; j < WIDE; j++) v[j] = up(raw[j]);
}
DEVICE void store_wide(T* to, const Acc (&v)[WIDE]) {
    Vec<T, WIDE> raw;
#pragma unroll
    for (int j = 0; j < WIDE; j++) raw[j] = down<T>(v[j]);
    store(to, raw);
}

// The number of values before the first 16-byte boundary of both rows; -1 if they have no common
// boundaries. Rows of an odd length start anywhere, yet most of each row is aligned.
DEVICE int values_before(const T* a, const T* b) {
    unsigned skew = (unsigned)(unsigned long long)a & 15u;
    if (skew != ((unsigned)(unsigned long long)b & 15u)) return -1;
    return ((16 - skew) & 15) / sizeof(T);
}

// Thread `rank` of `size` >= WIDE threads walks along a row of n values: wide(i) is for the WIDE
// values from the aligned place i on, single(i) for one of those before, after, or all if head < 0.
// A thread meets the same places each time it walks.
template <class W, class S>
DEVICE void walk(long long n, int head, int rank, int size, W wide, S single) {
    if (head < 0) {
        for (long long i = rank; i < n; i += size) single(i);
        return;
    }
    if (rank < head && rank < n) single(rank);
    long long vectors = n > head ? (n - head) / WIDE : 0;
#pragma unroll 2
    for (long long v = rank; v < vectors; v += size) wide(head + v * WIDE);
    long long last = head + vectors * WIDE + rank;
    if (last < n) single(last);
}

// --- columns ----------------------------------------------------------------------------------

// Of (outer, n, inner) arrays: a block of 32 x slices threads takes 32 of the outer * inner
// columns, and each of its slices every slices-th value of them. Offset of a column's first value:
DEVICE long long column_start(long long column, long long n, long long inner) {
    return column / inner * n * inner + column % inner;
}
// Over the slices of a column; all its threads get the result, in a fixed order.
template <class F> DEVICE Acc over_slices(Acc v, Acc (*scratch)[32]) {
    if (blockDim.y == 1) return v;
    __syncthreads();
    scratch[threadIdx.y][threadIdx.x] = v;
    __syncthreads();
    Acc all = scratch[0][threadIdx.x];
    for (int s = 1; s < (int)blockDim.y; s++) all = F()(all, scratch[s][threadIdx.x]);
    return all;
}
