// Dropout on the CPU: the coins, and what they let stay.
//
//   dropout_coins    n bytes, 1 with the probability bound / 2^53, from PyTorch's stream: two words
//                    of MT19937 each. `state` is 625 uint32 (mersenne.h) and moves on
//   dropout_apply    y = x * (coin * factor), the gradient likewise; y may be x
//
// x and y are n numbers, contiguous, float32 (_f32) or float64 (_f64). The stream is one sequence
// and runs on one thread, at about a nanosecond a coin; the rest runs on all.
// Python reference: nn/dropout.py, draw_integers.bernoulli; each array moves once.
#include "mersenne.h"
#include "threads.h"

namespace {

template <class T> void apply(long n, T factor, const uint8_t *coins, const T *x, T *y) {
    parallel_ranges(n, 16384, [=](long begin, long end) {
        for (long i = begin; i < end; i++) y[i] = x[i] * (T(coins[i]) * factor);
    });
}

}  // namespace

EXPORT void dropout_coins(uint32_t *state, int64_t bound, int64_t n, uint8_t *coins) {
    Mersenne stream(state);
    stream.coins(uint64_t(bound), n, coins);
    stream.save(state);
}

#define DEFINE(suffix, T)                                                                          \
    EXPORT void dropout_apply_##suffix(int64_t n, double factor, const uint8_t *coins, const T *x, \
                                       T *y) {                                                     \
        apply<T>(n, T(factor), coins, x, y);                                                       \
    }
DEFINE(f32, float)
DEFINE(f64, double)
