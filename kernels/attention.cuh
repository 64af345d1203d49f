// What the attention kernels share: the problem, its mask, its dropout, and tiles of products.
//
// Scores are kept in base 2: score = (query . key) scale log2(e) + mask log2(e), so that the
// weights are exp2(score - top). The log-sum-exp that the forward pass leaves for the backward
// pass is in base 2 too, and INF for a row that may attend to nothing: its weights come out as
// zeros.
#pragma once
#include "common.cuh"

// One attention, passed by value: query (batch, heads, rows, width), key and value (batch, heads /
// group, columns, width or value_width), all contiguous. `heads` counts those of all batches.
struct Problem {
    long long heads, heads_of_a_batch, group;
    long long mask_batch, mask_head, mask_row, mask_column;  // strides, 0 where it is repeated
    unsigned long long seed, counter, bound;  // dropout keeps a weight whose word is below `bound`
    double scale;                             // of query . key
    double upscale;                           // of the weights that dropout keeps
    int rows, columns, width, value_width;
    int causal, drops;
};

constexpr double LOG2E = 1.4426950408889634;

DEVICE float exp2_of(float x) { return exp2f(x); }
DEVICE double exp2_of(double x) { return exp2(x); }
DEVICE float log2_of(float x) { return log2f(x); }
DEVICE double log2_of(double x) { return log2(x); }

// A number of a mask, in base 2. The most negative finite number, which many models put for -INF,
// stays finite: a row of such attends to all its keys alike, a row of -INF to nothing.
DEVICE float lowest(float) { return -3.40282347e38f; }
DEVICE double lowest(double) { return -1.7976931348623157e308; }
template <class A> DEVICE A masking(A x) {
    return x == A(-INF) ? x : most(x * A(LOG2E), lowest(x));
}

// Where the mask of a head of the query begins.
DEVICE long long mask_start(const Problem& p, long long head) {
    return head / p.heads_of_a_batch * p.mask_batch + head % p.heads_of_a_batch * p.mask_head;
}

// Whether a row may attend to a column; `allow` is null or the mask of this head.
DEVICE bool is_seen(const Problem& p, const unsigned char* allow, int row, int column) {
    if (row >= p.rows || column >= p.columns || (p.causal && column > row)) return false;
    return !allow || allow[row * p.mask_row + column * p.mask_column];
}

// The words of the weights (row, column), (row, column + 8), (row + 8, column), (row + 8, column +
// 8) of a head, with row % 16 < 8 and column % 16 < 8: see philox_keep in gpunn/nn/attention.py.
DEVICE uint4 dropout_words(const Problem& p, long long head, int row, int column) {
    long long high = (p.rows + 15) / 16, wide = (p.columns + 15) / 16;
    long long tile = (head * high + row / 16) * wide + column / 16;
    return philox(p.seed, p.counter + tile * 64 + row % 8 * 8 + column % 8);
}

// Whether dropout keeps one weight.
DEVICE bool is_kept(const Problem& p, long long head, int row, int column) {
    uint4 words = dropout_words(p, head, row, column);
    unsigned word = row & 8 ? (column & 8 ? words.w : words.z) : (column & 8 ? words.y : words.x);
    return word < p.bound;
}
