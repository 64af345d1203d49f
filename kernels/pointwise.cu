// Activations of up to three parameters, each in one pass, with their gradients.
//
//   pointwise_forward   y = f(x; a, b, c)       pointwise_backward   dx = dy f'(x; a, b, c)
//
// f by the constant FUNCTION: 0 hardtanh: x between a and b; 1 hardsigmoid; 2 hardswish;
// 3 hardshrink: 0 where |x| <= a; 4 softshrink: x moved by a towards 0; 5 threshold: b where x <= a;
// 6 leaky_relu: a x below 0; 7 elu: b a (exp(x / c) - 1) below 0, b x above; 8 softplus:
// log(1 + exp(a x)) / a, x where a x > b; 9 logsigmoid; 10 mish: x tanh(log(1 + exp x)).
// x, y, dy, dx: T (n), C-contiguous; y may be x and dx may be dy. One-dimensional blocks, any grid.
// Elements do not depend on each other. Must move: 2 arrays forward, 3 backward.
// Python reference: gpunn/nn/rectifier.py, gpunn/nn/smooth.py.
#include "common.cuh"
#include "walk.cuh"

// --- functions: NaN fails every comparison, and goes on as x --------------------------------------

DEVICE Acc between(Acc x, Acc low, Acc high) { return x < low ? low : x > high ? high : x; }
DEVICE Acc sigmoid(Acc x) { return Acc(1) / (Acc(1) + exp(-x)); }
DEVICE Acc log_one_plus_exp(Acc x) { return (x > 0 ? x : Acc(0)) + log1p(exp(x > 0 ? -x : x)); }

// tanh(log(1 + exp x)), which is (e e + 2 e) / (e e + 2 e + 2) for e = exp x, and 1 from 20 on.
DEVICE Acc mish_gate(Acc x) {
    if (x > 20) return 1;
    Acc e = exp(x), n = e * (e + 2);
    return n / (n + 2);
}

struct Function {
    Acc a, b, c;

    DEVICE Acc value(Acc x) const {
        if constexpr (FUNCTION == 0) return between(x, a, b);
        else if constexpr (FUNCTION == 1) return between(x + 3, 0, 6) / 6;
        else if constexpr (FUNCTION == 2) return x * (between(x + 3, 0, 6) / 6);
        else if constexpr (FUNCTION == 3) return fabs(x) <= a ? Acc(0) : x;
        else if constexpr (FUNCTION == 4) return x - between(x, -a, a);
        else if constexpr (FUNCTION == 5) return x <= a ? b : x;
        else if constexpr (FUNCTION == 6) return x > 0 ? x : a * x;
        else if constexpr (FUNCTION == 7) return x > 0 ? b * x : b * a * expm1(x / c);
        else if constexpr (FUNCTION == 8) return a * x > b ? x : log_one_plus_exp(a * x) / a;
        else if constexpr (FUNCTION == 9) return -log_one_plus_exp(-x);
        else return x * mish_gate(x);
    }
    DEVICE Acc slope(Acc x) const {
        if constexpr (FUNCTION == 0) return a < x && x < b ? 1 : 0;
        else if constexpr (FUNCTION == 1) return -3 < x && x < 3 ? Acc(1) / 6 : 0;
        else if constexpr (FUNCTION == 2) return x <= -3 ? 0 : x < 3 ? x / 3 + Acc(0.5) : 1;
        else if constexpr (FUNCTION == 3 || FUNCTION == 4) return fabs(x) <= a ? 0 : 1;
        else if constexpr (FUNCTION == 5) return x <= a ? 0 : 1;
        else if constexpr (FUNCTION == 6) return x > 0 ? 1 : a;
        else if constexpr (FUNCTION == 7) return x > 0 ? b : b * a / c * exp(x / c);
        else if constexpr (FUNCTION == 8) return a * x > b ? 1 : sigmoid(a * x);
        else if constexpr (FUNCTION == 9) return sigmoid(-x);
        Acc t = mish_gate(x);
        return t + (x > 20 ? 0 : x * sigmoid(x) * (1 - t * t));
    }
};

// --- kernels --------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(256, 2)
pointwise_forward(const T* x, T* y, long long n, Acc a, Acc b, Acc c) {
    Function f{a, b, c};
    each(n, aligned(x, 16) && aligned(y, 16),
         [&](long long i) {
             Vec<T, WIDE> v = load<WIDE>(x + i);
#pragma unroll
             for (int j = 0; j < WIDE; j++) v[j] = down<T>(f.value(up(v[j])));
             store(y + i, v);
         },
         [&](long long i) { y[i] = down<T>(f.value(up(x[i]))); });
}

extern "C" __global__ void __launch_bounds__(256, 2)
pointwise_backward(const T* x, const T* dy, T* dx, long long n, Acc a, Acc b, Acc c) {
    Function f{a, b, c};
    each(n, aligned(x, 16) && aligned(dy, 16) && aligned(dx, 16),
         [&](long long i) {
             Vec<T, WIDE> v = load<WIDE>(x + i), g = load<WIDE>(dy + i);
#pragma unroll
             for (int j = 0; j < WIDE; j++) g[j] = down<T>(up(g[j]) * f.slope(up(v[j])));
             store(dx + i, g);
         },
         [&](long long i) { dx[i] = down<T>(up(dy[i]) * f.slope(up(x[i]))); });
}
