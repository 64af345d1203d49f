// Softmax and log-softmax of rows of up to LANES * ITEMS values, and their gradients.
//
//   softmax_short_forward, softmax_short_backward, log_softmax_short_forward,
//   log_softmax_short_backward: as the kernels of softmax.cu, x, y, dy, dx T (rows, n)
//
// LANES (4, 16 or 32) neighbouring lanes of a warp hold a row in registers, ITEMS values each, so
// nothing is read twice and no thread waits at a barrier. Any grid of one-dimensional blocks of
// whole warps. Deterministic. Must move, in arrays of x's size: 2 forward, 3 backward.
// Python reference: gpunn/nn/softmax.py.
#include "softmax.cuh"

template <class F> DEVICE Acc over_lanes(Acc v) {
#pragma unroll
    for (int apart = LANES / 2; apart; apart >>= 1) {
        v = F()(v, __shfl_xor_sync(0xffffffffu, v, apart));
    }
    return v;
}

// This lane's values of a row, `neutral` past its end. With n and the address multiples of 16
// bytes, 16 bytes at a time.
struct Row {
    int n, lane;
    bool wide;

    DEVICE void read(const T* row, Acc (&v)[ITEMS], Acc neutral) const {
        if (wide) {
#pragma unroll
            for (int k = 0; k < ITEMS; k += WIDE) {
                int i = k * LANES + lane * WIDE;
                Vec<T, WIDE> raw;
                if (i < n) raw = load<WIDE>(row + i);
#pragma unroll
                for (int j = 0; j < WIDE; j++) v[k + j] = i < n ? up(raw[j]) : neutral;
            }
        } else {
#pragma unroll
            for (int k = 0; k < ITEMS; k++) {
                int i = k * LANES + lane;
                v[k] = i < n ? up(row[i]) : neutral;
            }
        }
    }
    DEVICE void write(T* row, const Acc (&v)[ITEMS]) const {
        if (wide) {
#pragma unroll
            for (int k = 0; k < ITEMS; k += WIDE) {
                int i = k * LANES + lane * WIDE;
                Vec<T, WIDE> raw;
#pragma unroll
                for (int j = 0; j < WIDE; j++) raw[j] = down<T>(v[k + j]);
                if (i < n) store(row + i, raw);
            }
        } else {
#pragma unroll
            for (int k = 0; k < ITEMS; k++) {
                int i = k * LANES + lane;
                if (i < n) row[i] = down<T>(v[k]);
            }
        }
    }
};

template <bool LOG>
DEVICE void forward_rows(const T* __restrict__ x, T* __restrict__ y, long long rows, int n) {
    constexpr int PER_WARP = 32 / LANES;
    int lane = threadIdx.x % LANES;
    bool wide = n % WIDE == 0 && aligned(x, 16) && aligned(y, 16);
    long long group = global_index() / LANES, groups = global_stride() / LANES;
    // All lanes of a warp go round together: those of a row that is not there have no values.
    for (long long row = group; row / PER_WARP * PER_WARP < rows; row += groups) {
        Row here = {row < rows ? n : 0, lane, wide};
        Acc v[ITEMS], sum = 0;
        here.read(x + row * n, v, Acc(-INF));
        Acc max = v[0];
#pragma unroll
        for (int k = 1; k < ITEMS; k++) max = fmax(max, v[k]);
        max = over_lanes<Most>(max);
#pragma unroll
        for (int k = 0; k < ITEMS; k++) {
            Acc e = exponential(v[k] - max);
            sum += e;
            v[k] = LOG ? v[k] - max : e;
        }
        sum = over_lanes<Sum>(sum);
        Acc scale = LOG ? log(sum) : Acc(1) / sum;
#pragma unroll
        for (int k = 0; k < ITEMS; k++) v[k] = LOG ? v[k] - scale : v[k] * scale;
        here.write(y + row * n, v);
    }
}

template <bool LOG>
DEVICE void backward_rows(const T* __restrict__ y, const T* __restrict__ dy, T* __restrict__ dx,
                          long long rows, int n) {
    constexpr int PER_WARP = 32 / LANES;
    int lane = threadIdx.x % LANES;
    bool wide = n % WIDE == 0 && aligned(y, 16) && aligned(dy, 16) && aligned(dx, 16);
    long long group = global_index() / LANES, groups = global_stride() / LANES;
    for (long long row = group; row / PER_WARP * PER_WARP < rows; row += groups) {
        Row here = {row < rows ? n : 0, lane, wide};
        Acc v[ITEMS], w[ITEMS], sum = 0;
        here.read(y + row * n, v, Acc(0));
        here.read(dy + row * n, w, Acc(0));
#pragma unroll
        for (int k = 0; k < ITEMS; k++) sum += LOG ? w[k] : w[k] * v[k];
        sum = over_lanes<Sum>(sum);
#pragma unroll
        for (int k = 0; k < ITEMS; k++) {
            v[k] = LOG ? w[k] - exponential(v[k]) * sum : v[k] * (w[k] - sum);
        }
        here.write(dx + row * n, v);
    }
}

extern "C" __global__ void __launch_bounds__(128, 2)
softmax_short_forward(const T* x, T* y, long long rows, int n) {
    forward_rows<false>(x, y, rows, n);
}

extern "C" __global__ void __launch_bounds__(128, 2)
log_softmax_short_forward(const T* x, T* y, long long rows, int n) {
    forward_rows<true>(x, y, rows, n);
}

extern "C" __global__ void __launch_bounds__(128, 2)
softmax_short_backward(const T* y, const T* dy, T* dx, long long rows, int n) {
    backward_rows<false>(y, dy, dx, rows, n);
}

extern "C" __global__ void __launch_bounds__(128, 2)
log_softmax_short_backward(const T* y, const T* dy, T* dx, long long rows, int n) {
    backward_rows<true>(y, dy, dx, rows, n);
}
