// Dropout: y = x * scale where the element's random word is at most `last`, or else x * 0.
//
// x, y: T (n), C-contiguous; the gradient is the same kernel on dy, so the mask is never stored.
// The word of element i is word i of the Philox stream of `seed` from counter `first` on: the same
// whatever the launch. One-dimensional blocks, any grid. Deterministic. Must move: x and y.
// Python reference: gpunn/nn/dropout.py with gpunn/draw_integers.py:bernoulli.
#include "common.cuh"

constexpr int WIDE = 16 / sizeof(T);             // values in a 16-byte access
constexpr int GROUP = WIDE < 4 ? 4 : WIDE;       // values of a thread: whole counters, 4 words each

extern "C" __global__ void __launch_bounds__(256)
dropout(const T* __restrict__ x, T* __restrict__ y, long long n, unsigned long long seed,
        unsigned long long first, unsigned last, Acc scale) {
    bool wide = aligned(x, 16) && aligned(y, 16);
    for (long long group = global_index(); group * GROUP < n; group += global_stride()) {
        unsigned words[GROUP];
#pragma unroll
        for (int k = 0; k < GROUP; k += 4) {
            uint4 four = philox(seed, first + group * (GROUP / 4) + k / 4);
            words[k] = four.x, words[k + 1] = four.y, words[k + 2] = four.z, words[k + 3] = four.w;
        }
        long long start = group * GROUP;
        if (wide && start + GROUP <= n) {
#pragma unroll
            for (int k = 0; k < GROUP; k += WIDE) {
                Vec<T, WIDE> v = load<WIDE>(x + start + k);
#pragma unroll
                for (int j = 0; j < WIDE; j++) {
                    v[j] = down<T>(up(v[j]) * (words[k + j] <= last ? scale : Acc(0)));
                }
                store(y + start + k, v);
            }
        } else {
#pragma unroll
            for (int k = 0; k < GROUP; k++) {
                long long i = start + k;
                if (i < n) y[i] = down<T>(up(x[i]) * (words[k] <= last ? scale : Acc(0)));
            }
        }
    }
}
