// Activations, alone and of a sum with a bias, with their gradients.
//
//   unary_forward   y = f(x)                unary_backward   dx = dy f'(x)
//   bias_forward    y = f(x + bias)         bias_backward    dx = dy f'(x + bias)
//
// f by the constant FUNCTION: 0 x, 1 relu, 2 silu = x sigmoid(x), 3 gelu = x Phi(x), 4 gelu_tanh =
// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. x, y, dy, dx: T (n), C-contiguous; y may be x
// and dx may be dy. bias: T (channels), that of element i being i / inner % channels, so inner is 1
// after a matrix product and height * width after a convolution; its gradient is the sum of dx.
// One-dimensional blocks, any grid. Elements do not depend on each other.
// Must move: 2 arrays forward, 3 backward. Python reference: gpunn/nn/activation.py.
#include "common.cuh"
#include "walk.cuh"

// --- functions --------------------------------------------------------------------------------

// 16-bit results need no more than the approximate exp and division.
DEVICE Acc exponential(Acc x) {
    if constexpr (sizeof(T) == 2) return __expf(x);
    else return exp(x);
}
DEVICE Acc quotient(Acc a, Acc b) {
    if constexpr (sizeof(T) == 2) return __fdividef(a, b);
    else return a / b;
}
DEVICE Acc sigmoid(Acc x) { return quotient(Acc(1), Acc(1) + exponential(-x)); }

// The normal distribution function Phi. `bell` is exp(-x^2 / 2). For 16-bit results: Abramowitz
// and Stegun, "Handbook of Mathematical Functions" (1964), 7.1.26, error below 1e-7, and with the
// tail as a product, so that it stays right where it is small.
DEVICE Acc normal_below(Acc x, Acc bell) {
    if constexpr (sizeof(T) == 2) {
        float t = __fdividef(1.f, 1.f + 0.3275911f * 0.70710678f * fabsf(x));
        float p = 1.421413741f + t * (-1.453152027f + t * 1.061405429f);
        p = t * (0.254829592f + t * (-0.284496736f + t * p));
        float tail = 0.5f * p * bell;
        return x < 0.f ? tail : 1.f - tail;
    } else {
        return Acc(0.5) * (Acc(1) + erf(x * Acc(0.70710678118654752440)));
    }
}
DEVICE Acc bell_at(Acc x) { return exponential(x * x * Acc(-0.5)); }

// (1 + tanh(u)) / 2 is sigmoid(2 u): this is 2 u.
constexpr double ROOT_8_PI = 1.59576912160573071176;
DEVICE Acc twice_inner(Acc x) { return Acc(ROOT_8_PI) * (x + Acc(0.044715) * x * x * x); }

DEVICE Acc value(Acc x) {
    if constexpr (FUNCTION == 1) return x <= 0 ? Acc(0) : x;  // NaN stays
    else if constexpr (FUNCTION == 2) return x * sigmoid(x);
    else if constexpr (FUNCTION == 3) return x * normal_below(x, sizeof(T) == 2 ? bell_at(x) : 0);
    else if constexpr (FUNCTION == 4) return x * sigmoid(twice_inner(x));
    else return x;
}

DEVICE Acc slope(Acc x) {
    if constexpr (FUNCTION == 1) {
        return x <= 0 ? Acc(0) : Acc(1);
    } else if constexpr (FUNCTION == 2) {
        Acc s = sigmoid(x);
        return s * (Acc(1) + x * (Acc(1) - s));
    } else if constexpr (FUNCTION == 3) {
        Acc bell = bell_at(x);
        return normal_below(x, bell) + x * bell * Acc(0.39894228040143267794);
    } else if constexpr (FUNCTION == 4) {
        Acc s = sigmoid(twice_inner(x));
        Acc inner = Acc(ROOT_8_PI) * (Acc(1) + Acc(3 * 0.044715) * x * x);
        return s + x * s * (Acc(1) - s) * inner;
    } else {
        return Acc(1);
    }
}

// --- the bias ---------------------------------------------------------------------------------

// The biases of the values from i on.
struct Bias {
    const T* bias;
    long long channels, inner;

    // Divisions of 64 bits take several times as long as those of 32.
    DEVICE void place(long long i, long long& channel, long long& within) const {
        if (i < 1ll << 32 && inner < 1ll << 32 && channels < 1ll << 32) {
            unsigned outer = (unsigned)i / (unsigned)inner;
            within = (unsigned)i % (unsigned)inner;
            channel = outer % (unsigned)channels;
        } else {
            within = i % inner;
            channel = i / inner % channels;
        }
    }
    DEVICE Acc one(long long i) const {
        long long channel, within;
        place(i, channel, within);
        return up(bias[channel]);
    }
    DEVICE void some(long long i, Acc (&b)[WIDE]) const {
        long long channel, within;
        place(i, channel, within);
        if (inner == 1 && channels % WIDE == 0 && aligned(bias, 16)) {
            Vec<T, WIDE> raw = load<WIDE>(bias + channel);
#pragma unroll
            for (int j = 0; j < WIDE; j++) b[j] = up(raw[j]);
            return;
        }
#pragma unroll
        for (int j = 0; j < WIDE; j++) {
            b[j] = up(bias[channel]);
            if (++within == inner) {
                within = 0;
                if (++channel == channels) channel = 0;
            }
        }
    }
};
struct NoBias {  // x + -0 is x, also for -0
    DEVICE Acc one(long long) const { return Acc(-0.0); }
    DEVICE void some(long long, Acc (&b)[WIDE]) const {
#pragma unroll
        for (int j = 0; j < WIDE; j++) b[j] = Acc(-0.0);
    }
};

template <class B> DEVICE void forward(const T* x, T* y, long long n, B bias) {
    each(n, aligned(x, 16) && aligned(y, 16),
         [&](long long i) {
             Vec<T, WIDE> v = load<WIDE>(x + i);
             Acc b[WIDE];
             bias.some(i, b);
#pragma unroll
             for (int j = 0; j < WIDE; j++) v[j] = down<T>(value(up(v[j]) + b[j]));
             store(y + i, v);
         },
         [&](long long i) { y[i] = down<T>(value(up(x[i]) + bias.one(i))); });
}

template <class B>
DEVICE void backward(const T* x, const T* dy, T* dx, long long n, B bias) {
    each(n, aligned(x, 16) && aligned(dy, 16) && aligned(dx, 16),
         [&](long long i) {
             Vec<T, WIDE> v = load<WIDE>(x + i), g = load<WIDE>(dy + i);
             Acc b[WIDE];
             bias.some(i, b);
#pragma unroll
             for (int j = 0; j < WIDE; j++) g[j] = down<T>(up(g[j]) * slope(up(v[j]) + b[j]));
             store(dx + i, g);
         },
         [&](long long i) { dx[i] = down<T>(up(dy[i]) * slope(up(x[i]) + bias.one(i))); });
}

extern "C" __global__ void __launch_bounds__(256, 2)
unary_forward(const T* x, T* y, long long n) {
    forward(x, y, n, NoBias());
}

extern "C" __global__ void __launch_bounds__(256, 2)
unary_backward(const T* x, const T* dy, T* dx, long long n) {
    backward(x, dy, dx, n, NoBias());
}

extern "C" __global__ void __launch_bounds__(256, 2)
bias_forward(const T* x, const T* bias, T* y, long long n, long long channels, long long inner) {
    forward(x, y, n, Bias{bias, channels, inner});
}

extern "C" __global__ void __launch_bounds__(256, 2)
bias_backward(const T* x, const T* bias, const T* dy, T* dx, long long n, long long channels,
              long long inner) {
    backward(x, dy, dx, n, Bias{bias, channels, inner});
}
