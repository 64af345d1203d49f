// Elementwise functions that NumPy lacks, or needs several passes or one slow one for.
//
//   unary       y = f(x)
//   unary_grad  dx = dy * f'(x)
//   add         y = a + b; y may be a or b
//   add_to_rows y += b, for y (rows, n) and b (n)
//   column_sums y = sum of x over its rows, for x (rows, n) and y (n)
//
// f by its number: 0 exp, 1 log, 2 tanh, 3 sigmoid, 4 silu = x sigmoid(x), 5 erf,
// 6 gelu = x (1 + erf(x / sqrt 2)) / 2, 7 gelu_tanh = x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
// / 2, 8 softplus = log(1 + exp x). x, y, dy, dx are n numbers, contiguous, float32 (_f32) or
// float64 (_f64); y may be x, and dx may be dy. An unknown f returns 1, else 0.
// Elements do not depend on each other; column sums run in T over 64 rows, and over these sums, in
// an order fixed by the shape. Error: about 2 units in the last place of f32; NaN and
// infinities as in PyTorch. Python reference: ops/elementwise.py, nn/activation.py; each array
// moves once.
#include <math.h>

#include "map.h"

namespace {

// The terms of c are those of a polynomial, c[0] first.
template <class T, int N> inline Vec<T> polynomial(Vec<T> x, const T (&c)[N]) {
    Vec<T> p = splat(c[N - 1]);
    UNROLL for (int i = N - 2; i >= 0; i--) p = p * x + c[i];
    return p;
}

inline Vec<float> verf(Vec<float> x) {
    static constexpr float c[] = {0.1283791667f, -0.3761263402f, 0.1128369935f, -0.02685958812f,
                                  0.005201456326f, -0.0008147081117f, 8.387074557e-5f};
    static constexpr float l[] = {0.0003185396624f, -1.130231055f, -0.6318239181f, -0.1100871665f,
                                  0.02642763715f, -0.004762625833f, 0.0005975857702f,
                                  -4.616385863e-5f, 1.643063656e-6f};
    Vec<float> z = x * x, t = magnitude<float>(x);
    t = t > 4.0f ? splat(4.0f) : t;                     // from there on erf is 1
    Vec<float> far = 1.0f - vexp<float>(polynomial<float>(t, l));
    return z < 0.81f ? x + x * polynomial<float>(z, c) : x < 0.0f ? -far : far;
}
inline Vec<double> verf(Vec<double> x) {
    for (long j = 0; j < LANES<double>; j++) x[j] = erf(x[j]);
    return x;
}

template <class T> constexpr T ROOT_HALF = T(0.70710678118654752440);
template <class T> constexpr T ROOT_2_PI = T(0.79788456080286535588);

template <class T> struct Exp {
    static Vec<T> f(Vec<T> x) { return vexp<T>(x); }
    static Vec<T> d(Vec<T> x) { return vexp<T>(x); }
};
template <class T> struct Log {
    static Vec<T> f(Vec<T> x) { return vlog<T>(x); }
    static Vec<T> d(Vec<T> x) { return T(1) / x; }
};
template <class T> struct Tanh {
    static Vec<T> f(Vec<T> x) { return vtanh<T>(x); }
    static Vec<T> d(Vec<T> x) {
        Vec<T> y = f(x);
        return T(1) - y * y;
    }
};
template <class T> struct Sigmoid {
    static Vec<T> f(Vec<T> x) { return T(1) / (T(1) + vexp<T>(-x)); }
    static Vec<T> d(Vec<T> x) {
        Vec<T> y = f(x);
        return y * (T(1) - y);
    }
};
template <class T> struct Silu {
    static Vec<T> f(Vec<T> x) { return x / (T(1) + vexp<T>(-x)); }
    static Vec<T> d(Vec<T> x) {
        Vec<T> s = Sigmoid<T>::f(x);
        return s * (T(1) + x * (T(1) - s));
    }
};
template <class T> struct Erf {
    static Vec<T> f(Vec<T> x) { return verf(x); }
    static Vec<T> d(Vec<T> x) { return T(1.12837916709551257390) * vexp<T>(-x * x); }
};
template <class T> struct Gelu {
    static Vec<T> f(Vec<T> x) { return x * T(0.5) * (T(1) + verf(x * ROOT_HALF<T>)); }
    static Vec<T> d(Vec<T> x) {
        Vec<T> slope = vexp<T>(x * x * T(-0.5)) * (T(0.5) * ROOT_2_PI<T>);
        return T(0.5) * (T(1) + verf(x * ROOT_HALF<T>)) + x * slope;
    }
};
template <class T> struct GeluTanh {
    static Vec<T> inside(Vec<T> x) { return ROOT_2_PI<T> * (x + T(0.044715) * x * x * x); }
    static Vec<T> f(Vec<T> x) { return x * T(0.5) * (T(1) + vtanh<T>(inside(x))); }
    static Vec<T> d(Vec<T> x) {
        Vec<T> t = vtanh<T>(inside(x)), slope = ROOT_2_PI<T> * (T(1) + T(3 * 0.044715) * x * x);
        return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * slope;
    }
};
template <class T> struct Softplus {
    static Vec<T> f(Vec<T> x) {
        Vec<T> y = log_one_plus<T>(vexp<T>(-magnitude<T>(x)));
        return x > T(0) ? x + y : y;
    }
    static Vec<T> d(Vec<T> x) { return Sigmoid<T>::f(x); }
};

template <class F, class T> void values(long n, const T *x, T *y) { map<T>(F(), n, x, y); }
template <class F, class T> void grads(long n, const T *x, const T *dy, T *dx) {
    map_grad<T>(F(), n, x, dy, dx);
}

template <class T> using Map = void (*)(long, const T *, T *);
template <class T> using MapGrad = void (*)(long, const T *, const T *, T *);

template <class T> int64_t unary(long which, long n, const T *x, T *y) {
    static constexpr Map<T> table[] = {
        values<Exp<T>, T>, values<Log<T>, T>, values<Tanh<T>, T>, values<Sigmoid<T>, T>,
        values<Silu<T>, T>, values<Erf<T>, T>, values<Gelu<T>, T>, values<GeluTanh<T>, T>,
        values<Softplus<T>, T>};
    if (which < 0 || which >= long(sizeof table / sizeof *table)) return 1;
    table[which](n, x, y);
    return 0;
}

template <class T> int64_t unary_grad(long which, long n, const T *x, const T *dy, T *dx) {
    static constexpr MapGrad<T> table[] = {
        grads<Exp<T>, T>, grads<Log<T>, T>, grads<Tanh<T>, T>, grads<Sigmoid<T>, T>,
        grads<Silu<T>, T>, grads<Erf<T>, T>, grads<Gelu<T>, T>, grads<GeluTanh<T>, T>,
        grads<Softplus<T>, T>};
    if (which < 0 || which >= long(sizeof table / sizeof *table)) return 1;
    table[which](n, x, dy, dx);
    return 0;
}

template <class T> void add(long n, const T *a, const T *b, T *y) {
    parallel_ranges(n, 4 * LEAST, [=](long begin, long end) {
        for (long i = begin; i < end; i++) y[i] = a[i] + b[i];
    });
}

template <class T> void column_sums(long rows, long n, const T *x, T *y) {
    constexpr long RUN = 64, WIDE = 4 * LANES<T>;       // columns that stay in registers
    parallel_ranges((n + WIDE - 1) / WIDE, 1 + LEAST / (rows * WIDE + 1), [=](long begin, long end) {
        T total[WIDE], run[WIDE];
        for (long c = begin * WIDE; c < end * WIDE; c += WIDE) {
            long wide = n - c < WIDE ? n - c : WIDE;
            for (long j = 0; j < WIDE; j++) total[j] = 0;
            for (long r = 0; r < rows; r += RUN) {
                long stop = r + RUN < rows ? r + RUN : rows;
                if (wide == WIDE) {
                    Vec<T> s[4] = {};
                    for (long i = r; i < stop; i++)
                        UNROLL for (int k = 0; k < 4; k++) s[k] += load(x + i * n + c + k * LANES<T>);
                    UNROLL for (int k = 0; k < 4; k++) store(run + k * LANES<T>, s[k]);
                } else {
                    for (long j = 0; j < wide; j++) run[j] = 0;
                    for (long i = r; i < stop; i++)
                        for (long j = 0; j < wide; j++) run[j] += x[i * n + c + j];
                }
                for (long j = 0; j < wide; j++) total[j] += run[j];
            }
            for (long j = 0; j < wide; j++) y[c + j] = total[j];
        }
    });
}

template <class T> void add_to_rows(long rows, long n, T *y, const T *b) {
    parallel_ranges(rows, 1 + LEAST / (n + 1), [&](long begin, long end) {
        for (long r = begin; r < end; r++)
            for (long j = 0; j < n; j++) y[r * n + j] += b[j];
    });
}

}  // namespace

#define DEFINE(suffix, T)                                                                          \
    EXPORT int64_t unary_##suffix(int64_t which, int64_t n, const T *x, T *y) {                    \
        return unary<T>(which, n, x, y);                                                           \
    }                                                                                              \
    EXPORT int64_t unary_grad_##suffix(int64_t which, int64_t n, const T *x, const T *dy, T *dx) { \
        return unary_grad<T>(which, n, x, dy, dx);                                                 \
    }                                                                                              \
    EXPORT void add_##suffix(int64_t n, const T *a, const T *b, T *y) { add<T>(n, a, b, y); }      \
    EXPORT void column_sums_##suffix(int64_t rows, int64_t n, const T *x, T *y) {                  \
        column_sums<T>(rows, n, x, y);                                                             \
    }                                                                                              \
    EXPORT void add_to_rows_##suffix(int64_t rows, int64_t n, T *y, const T *b) {                  \
        add_to_rows<T>(rows, n, y, b);                                                             \
    }
DEFINE(f32, float)
DEFINE(f64, double)
