// Cross-entropy of logits with class indices, and its gradient: no log-softmax in memory.
//
// With w the weight of the row's target (1 without weights), W the sum of all weights (n), eps the
// label smoothing and lse = log(sum of exp(x)):
//
//   loss = (1 - eps) w (lse - x[target]) + eps / n (W lse - sum of weight x)
//   dx = scale ((1 - eps) w (exp(x - lse) - [target]) + eps / n (W exp(x - lse) - weight))
//
// x, dx: T (rows, n), C-contiguous. target: (rows), in [0, n) or `ignore`, which gives loss and
// gradient 0; any other is reported and treated so. weight: T (n), or null; weight_sum: Acc (1), W.
// loss, lse, share: Acc (rows), share being w, or 0 where the target is ignored.
//
//   cross_entropy_forward          a block of whole warps (at most 512 threads) a row, any grid
//   cross_entropy_forward_short    a warp a row, one-dimensional blocks of whole warps, any grid
//   cross_entropy_forward_columns  x (outer, n, inner), rows = outer * inner: blocks (32, <= 8)
//   cross_entropy_backward...      the same three; scale is dy, T (rows) or if `whole` one number,
//                                  divided by divisor, Acc (1), if not null
//   cross_entropy_partial_sums     loss and share (rows) to sums of each block's part: (2, blocks)
//   cross_entropy_finish           one block: y, T (1), the sum of n losses, if `mean` divided by
//                                  that of the shares, which goes to divisor, Acc (1)
//
//   nll_loss_forward               loss and share of log-probabilities x (outer, n, inner)
//   nll_loss_backward              dx of those, into zeros; a thread a target, any grid
//
// Deterministic: the order of sums depends on sizes, launch and the address modulo 16 alone.
// Must move: x once forward, x and dx backward; nll_loss a value for each target, and the zeros.
// Python reference: gpunn/nn/cross_entropy.py.
#include "softmax.cuh"

// What the smoothing adds up: weight * x, of the value at place i.
DEVICE Acc spread(const T* weight, long long i, Acc v) { return weight ? up(weight[i]) * v : v; }

// The results of a row, by one thread. `hit` is the address of x[target] for target 0.
struct Loss {
    const long long* target;
    const T* weight;
    const Acc* weight_sum;
    Acc *loss, *share, *lse;
    long long n, ignore;
    Acc smoothing;
    Fault* fault;

    DEVICE void finish(long long row, const T* first, long long stride, Online seen,
                       Acc plain) const {
        long long t = target[row];
        bool counts = t != ignore;
        if (counts && (t < 0 || t >= n)) {
            report(fault, t, row, n);
            counts = false;
        }
        Acc log_sum = log(seen.sum), total = 0, w = 0;
        if (counts) {
            w = weight ? up(weight[t]) : Acc(1);
            total = (1 - smoothing) * w * (seen.max - up(first[t * stride]) + log_sum);
            if (smoothing != 0) {
                Acc all = weight ? *weight_sum : Acc(n);
                total += smoothing / n * (all * (seen.max + log_sum) - plain);
            }
        }
        loss[row] = total;
        share[row] = w;
        lse[row] = seen.max + log_sum;
    }
};

template <bool SMOOTH>
DEVICE void meet_row(const T* __restrict__ from, const T* __restrict__ weight, long long n,
                     int rank, int size, Online& seen, Acc& plain) {
    walk(n, values_before(from, from), rank, size,
         [&](long long i) {
             Acc v[WIDE];
             load_wide(from + i, v);
             seen.add(v);
             if (SMOOTH) {
#pragma unroll
                 for (int j = 0; j < WIDE; j++) plain += spread(weight, i + j, v[j]);
             }
         },
         [&](long long i) {
             Acc v = up(from[i]);
             seen.add(v);
             if (SMOOTH) plain += spread(weight, i, v);
         });
}

extern "C" __global__ void __launch_bounds__(512, 2)
cross_entropy_forward(const T* x, const long long* target, const T* weight, const Acc* weight_sum,
                      Acc* loss, Acc* share, Acc* lse, long long rows, long long n,
                      long long ignore, Acc smoothing, Fault* fault) {
    __shared__ Acc scratch[32];
    Loss result = {target, weight, weight_sum, loss, share, lse, n, ignore, smoothing, fault};
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const T* from = x + row * n;
        Online seen;
        Acc plain = 0;
        if (smoothing == 0) meet_row<false>(from, weight, n, threadIdx.x, blockDim.x, seen, plain);
        else meet_row<true>(from, weight, n, threadIdx.x, blockDim.x, seen, plain);
        seen.over_block(scratch);
        if (smoothing != 0) plain = block_sum(plain, scratch);
        if (threadIdx.x == 0) result.finish(row, from, 1, seen, plain);
    }
}

extern "C" __global__ void __launch_bounds__(256, 4)
cross_entropy_forward_short(const T* x, const long long* target, const T* weight,
                            const Acc* weight_sum, Acc* loss, Acc* share, Acc* lse, long long rows,
                            long long n, long long ignore, Acc smoothing, Fault* fault) {
    Loss result = {target, weight, weight_sum, loss, share, lse, n, ignore, smoothing, fault};
    int lane = threadIdx.x & 31;
    for (long long row = global_index() / 32; row < rows; row += global_stride() / 32) {
        const T* from = x + row * n;
        Online seen;
        Acc plain = 0;
        if (smoothing == 0) meet_row<false>(from, weight, n, lane, 32, seen, plain);
        else meet_row<true>(from, weight, n, lane, 32, seen, plain);
        seen.over_warp();
        if (smoothing != 0) plain = warp_sum(plain);
        if (lane == 0) result.finish(row, from, 1, seen, plain);
    }
}

extern "C" __global__ void __launch_bounds__(256, 4)
cross_entropy_forward_columns(const T* __restrict__ x, const long long* target,
                              const T* __restrict__ weight, const Acc* weight_sum, Acc* loss,
                              Acc* share, Acc* lse, long long rows, long long n, long long inner,
                              long long ignore, Acc smoothing, Fault* fault) {
    __shared__ Acc scratch[8][32];
    Loss result = {target, weight, weight_sum, loss, share, lse, n, ignore, smoothing, fault};
    for (long long first = blockIdx.x * 32ll; first < rows; first += gridDim.x * 32ll) {
        long long column = first + threadIdx.x, here = column < rows ? n : 0;
        const T* from = x + (here ? column_start(column, n, inner) : 0);
        Online seen;
        Acc plain = 0;
#pragma unroll 4
        for (long long i = threadIdx.y; i < here; i += blockDim.y) {
            Acc v = up(from[i * inner]);
            seen.add(v);
            if (smoothing != 0) plain += spread(weight, i, v);
        }
        seen.settle(over_slices<Most>(seen.max, scratch));
        seen.sum = over_slices<Sum>(seen.sum, scratch);
        if (smoothing != 0) plain = over_slices<Sum>(plain, scratch);
        if (here && threadIdx.y == 0) result.finish(column, from, inner, seen, plain);
    }
}

// The gradient of a row: dx = a exp(x - lse) - even weight - [target] hit.
struct Slope {
    Acc a = 0, hit = 0, even = 0, lse = 0;
    long long t = -1;

    DEVICE Slope(long long row, const long long* target, const T* weight, const Acc* weight_sum,
                 const Acc* lses, const T* dy, bool whole, const Acc* divisor, long long n,
                 long long ignore, Acc smoothing) {
        long long at = target[row];
        if (at == ignore || at < 0 || at >= n) return;
        t = at;
        Acc scale = up(dy[whole ? 0 : row]);
        if (divisor) scale /= *divisor;
        hit = scale * (1 - smoothing) * (weight ? up(weight[t]) : Acc(1));
        a = hit;
        lse = lses[row];
        if (smoothing != 0) {
            even = scale * smoothing / n;
            a += even * (weight ? *weight_sum : Acc(n));
        }
    }
    DEVICE Acc at(Acc v, const T* weight, long long i) const {
        Acc d = a * exponential(v - lse);
        return even == 0 ? d : d - even * (weight ? up(weight[i]) : Acc(1));
    }
};

// One row by `size` threads. A row that does not count is all zero, whatever x is.
DEVICE void row_gradient(const T* __restrict__ from, T* __restrict__ to,
                         const T* __restrict__ weight, long long n, int rank, int size, Slope s) {
    walk(n, values_before(from, to), rank, size,
         [&](long long i) {
             Acc v[WIDE] = {};
             if (s.t >= 0) {
                 load_wide(from + i, v);
#pragma unroll
                 for (int j = 0; j < WIDE; j++) v[j] = s.at(v[j], weight, i + j);
                 if (s.t >= i && s.t < i + WIDE) {
#pragma unroll
                     for (int j = 0; j < WIDE; j++) v[j] -= i + j == s.t ? s.hit : Acc(0);
                 }
             }
             store_wide(to + i, v);
         },
         [&](long long i) {
             Acc v = s.t >= 0 ? s.at(up(from[i]), weight, i) : Acc(0);
             to[i] = down<T>(i == s.t ? v - s.hit : v);
         });
}

extern "C" __global__ void __launch_bounds__(512, 2)
cross_entropy_backward(const T* x, const long long* target, const T* weight,
                       const Acc* weight_sum, const Acc* lse, const T* dy, bool whole,
                       const Acc* divisor, T* dx, long long rows, long long n, long long ignore,
                       Acc smoothing) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        Slope s(row, target, weight, weight_sum, lse, dy, whole, divisor, n, ignore, smoothing);
        row_gradient(x + row * n, dx + row * n, weight, n, threadIdx.x, blockDim.x, s);
    }
}

extern "C" __global__ void __launch_bounds__(256, 4)
cross_entropy_backward_short(const T* x, const long long* target, const T* weight,
                             const Acc* weight_sum, const Acc* lse, const T* dy, bool whole,
                             const Acc* divisor, T* dx, long long rows, long long n,
                             long long ignore, Acc smoothing) {
    for (long long row = global_index() / 32; row < rows; row += global_stride() / 32) {
        Slope s(row, target, weight, weight_sum, lse, dy, whole, divisor, n, ignore, smoothing);
        row_gradient(x + row * n, dx + row * n, weight, n, threadIdx.x & 31, 32, s);
    }
}

extern "C" __global__ void __launch_bounds__(256, 4)
cross_entropy_backward_columns(const T* __restrict__ x, const long long* target,
                               const T* __restrict__ weight, const Acc* weight_sum,
                               const Acc* lse, const T* dy, bool whole, const Acc* divisor,
                               T* __restrict__ dx, long long rows, long long n, long long inner,
                               long long ignore, Acc smoothing) {
    for (long long first = blockIdx.x * 32ll; first < rows; first += gridDim.x * 32ll) {
        long long column = first + threadIdx.x;
        if (column >= rows) continue;
        Slope s(column, target, weight, weight_sum, lse, dy, whole, divisor, n, ignore, smoothing);
        long long start = column_start(column, n, inner);
#pragma unroll 4
        for (long long i = threadIdx.y; i < n; i += blockDim.y) {
            Acc v = s.t >= 0 ? s.at(up(x[start + i * inner]), weight, i) : Acc(0);
            dx[start + i * inner] = down<T>(i == s.t ? v - s.hit : v);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 4)
nll_loss_forward(const T* x, const long long* target, const T* weight, Acc* loss, Acc* share,
                 long long rows, long long n, long long inner, long long ignore, Fault* fault) {
    for (long long row = global_index(); row < rows; row += global_stride()) {
        long long t = target[row];
        bool counts = t != ignore;
        if (counts && (t < 0 || t >= n)) {
            report(fault, t, row, n);
            counts = false;
        }
        Acc w = 0, value = 0;
        if (counts) {
            w = weight ? up(weight[t]) : Acc(1);
            value = -w * up(x[column_start(row, n, inner) + t * inner]);
        }
        loss[row] = value;
        share[row] = w;
    }
}

extern "C" __global__ void __launch_bounds__(256, 4)
nll_loss_backward(const long long* target, const T* weight, const T* dy, bool whole,
                  const Acc* divisor, T* dx, long long rows, long long n, long long inner,
                  long long ignore) {
    for (long long row = global_index(); row < rows; row += global_stride()) {
        long long t = target[row];
        if (t == ignore || t < 0 || t >= n) continue;
        Acc scale = up(dy[whole ? 0 : row]) * (weight ? up(weight[t]) : Acc(1));
        if (divisor) scale /= *divisor;
        dx[column_start(row, n, inner) + t * inner] = down<T>(-scale);
    }
}

extern "C" __global__ void __launch_bounds__(512, 2)
cross_entropy_partial_sums(const Acc* loss, const Acc* share, Acc* sums, long long n) {
    __shared__ Acc scratch[32];
    Acc total = 0, shares = 0;
    for (long long i = global_index(); i < n; i += global_stride()) {
        total += loss[i];
        shares += share[i];
    }
    total = block_sum(total, scratch);
    shares = block_sum(shares, scratch);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = total;
        sums[gridDim.x + blockIdx.x] = shares;
    }
}

extern "C" __global__ void __launch_bounds__(512, 2)
cross_entropy_finish(const Acc* loss, const Acc* share, T* y, Acc* divisor, long long n,
                     bool mean) {
    __shared__ Acc scratch[32];
    Acc total = 0, shares = 0;
    for (long long i = threadIdx.x; i < n; i += blockDim.x) {
        total += loss[i];
        shares += share[i];
    }
    total = block_sum(total, scratch);
    shares = block_sum(shares, scratch);
    if (threadIdx.x == 0) {
        y[0] = down<T>(mean ? total / shares : total);
        divisor[0] = shares;
    }
}
