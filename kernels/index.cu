// Index arrays made safe, for the operations on them that are array operations.
//
// index_check    index (n) of I -> safe (n) of I: entries of [-below, limit) as they are, negative
//                ones counted from the end; others 0, the first of them told to `fault`.
//                Launch: any 1-D grid. Deterministic, but for which bad index is told.
//                Reference: numpy.where((index < -below) | (index >= limit), 0, index % limit).
//                Moves 2 n sizeof(I) bytes.
#include "common.cuh"

extern "C" __global__ void index_check(
    const I* __restrict__ index, I* __restrict__ safe, long long n, long long below,
    long long limit, Fault* fault) {
    for (long long i = global_index(); i < n; i += global_stride()) {
        long long value = index[i];
        bool good = value >= -below && value < limit;
        if (!good) report(fault, value, i, limit);
        safe[i] = good ? I(value < 0 ? value + limit : value) : I(0);
    }
}
