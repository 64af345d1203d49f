// Activations of up to three parameters.
//
//   pointwise       y = f(x; a, b, c)       pointwise_grad  dx = dy f'(x; a, b, c)
//
// f by its number: 0 hardtanh: x between a and b; 1 hardsigmoid; 2 hardswish; 3 hardshrink: 0 where
// |x| <= a; 4 softshrink: x moved by a towards 0; 5 threshold: b where x <= a; 6 leaky_relu: a x
// below 0; 7 elu: b a (exp(x / c) - 1) below 0, b x above; 8 softplus: log(1 + exp(a x)) / a, x
// where a x > b; 9 logsigmoid; 10 mish: x tanh(log(1 + exp x)). x, y, dy, dx are n numbers,
// contiguous, float32 (_f32) or float64 (_f64); y may be x, and dx may be dy. An unknown f returns
// 1, else 0. Elements do not depend on each other; each array moves once.
// Python reference: nn/rectifier.py, nn/smooth.py.
#include "map.h"

namespace {

// NaN fails every comparison, and goes on as x.
template <class T> inline Vec<T> between(Vec<T> x, T low, T high) {
    x = x < low ? splat(low) : x;
    return x > high ? splat(high) : x;
}
template <class T, class M> inline Vec<T> choose(M mask, T yes, T no) {
    return mask ? splat(yes) : splat(no);
}
template <class T> inline Vec<T> vsigmoid(Vec<T> x) { return T(1) / (T(1) + vexp<T>(-x)); }
template <class T> inline Vec<T> log_one_plus_exp(Vec<T> x) {
    Vec<T> y = log_one_plus<T>(vexp<T>(-magnitude<T>(x)));
    return x > T(0) ? x + y : y;
}
// exp(x) - 1 for x <= 0, by its series near 0.
template <class T> inline Vec<T> exp_less_one(Vec<T> x) {
    constexpr int TERMS = sizeof(T) == 4 ? 9 : 17;
    Vec<T> p = splat(T(1));
    UNROLL for (int i = TERMS; i >= 2; i--) p = p * x * (T(1) / T(i)) + T(1);
    return x > T(-0.5) ? x * p : vexp<T>(x) - T(1);
}
// tanh(log(1 + exp x)), which is (e e + 2 e) / (e e + 2 e + 2) for e = exp x, and 1 from 20 on.
template <class T> inline Vec<T> mish_gate(Vec<T> x) {
    Vec<T> e = vexp<T>(x > T(20) ? splat(T(20)) : x), n = e * (e + T(2));
    return x > T(20) ? splat(T(1)) : n / (n + T(2));
}

template <class T> struct Three { T a, b, c; };
template <class T> struct Hardtanh : Three<T> {
    Vec<T> f(Vec<T> x) const { return between<T>(x, this->a, this->b); }
    Vec<T> d(Vec<T> x) const {
        return choose<T>((x > splat(this->a)) & (x < splat(this->b)), T(1), T(0));
    }
};
template <class T> struct Hardsigmoid : Three<T> {
    Vec<T> f(Vec<T> x) const { return between<T>(x + T(3), T(0), T(6)) * T(1. / 6); }
    Vec<T> d(Vec<T> x) const { return choose<T>((x > T(-3)) & (x < T(3)), T(1. / 6), T(0)); }
};
template <class T> struct Hardswish : Three<T> {
    Vec<T> f(Vec<T> x) const { return x * (between<T>(x + T(3), T(0), T(6)) * T(1. / 6)); }
    Vec<T> d(Vec<T> x) const {
        Vec<T> slope = x < T(3) ? x * T(1. / 3) + T(0.5) : splat(T(1));
        return x <= T(-3) ? splat(T(0)) : slope;
    }
};
template <class T> struct Hardshrink : Three<T> {
    Vec<T> f(Vec<T> x) const { return magnitude<T>(x) <= this->a ? splat(T(0)) : x; }
    Vec<T> d(Vec<T> x) const { return choose<T>(magnitude<T>(x) <= this->a, T(0), T(1)); }
};
template <class T> struct Softshrink : Hardshrink<T> {
    Vec<T> f(Vec<T> x) const { return x - between<T>(x, -this->a, this->a); }
};
template <class T> struct Threshold : Three<T> {
    Vec<T> f(Vec<T> x) const { return x <= this->a ? splat(this->b) : x; }
    Vec<T> d(Vec<T> x) const { return choose<T>(x <= this->a, T(0), T(1)); }
};
template <class T> struct Leaky : Three<T> {
    Vec<T> f(Vec<T> x) const { return x > T(0) ? x : x * this->a; }
    Vec<T> d(Vec<T> x) const { return choose<T>(x > T(0), T(1), this->a); }
};
template <class T> struct Elu : Three<T> {
    Vec<T> below(Vec<T> x) const { return (x > T(0) ? splat(T(0)) : x) / this->c; }
    Vec<T> f(Vec<T> x) const {
        Vec<T> low = exp_less_one<T>(below(x)) * (this->a * this->b);
        return x > T(0) ? x * this->b : low;
    }
    Vec<T> d(Vec<T> x) const {
        Vec<T> low = vexp<T>(below(x)) * (this->a * this->b / this->c);
        return x > T(0) ? splat(this->b) : low;
    }
};
template <class T> struct Softplus : Three<T> {
    Vec<T> f(Vec<T> x) const {
        Vec<T> z = x * this->a;
        return z > this->b ? x : log_one_plus_exp<T>(z) / this->a;
    }
    Vec<T> d(Vec<T> x) const {
        Vec<T> z = x * this->a;
        return z > this->b ? splat(T(1)) : vsigmoid<T>(z);
    }
};
template <class T> struct LogSigmoid : Three<T> {
    Vec<T> f(Vec<T> x) const { return -log_one_plus_exp<T>(-x); }
    Vec<T> d(Vec<T> x) const { return vsigmoid<T>(-x); }
};
template <class T> struct Mish : Three<T> {
    Vec<T> f(Vec<T> x) const { return x * mish_gate<T>(x); }
    Vec<T> d(Vec<T> x) const {
        Vec<T> t = mish_gate<T>(x), slope = t + x * vsigmoid<T>(x) * (T(1) - t * t);
        return x > T(20) ? splat(T(1)) : slope;
    }
};

// use(f) for the f of a number.
template <class T, class U> int64_t with(long which, T a, T b, T c, const U &use) {
    Three<T> p{a, b, c};
    switch (which) {
        case 0: use(Hardtanh<T>{p}); break;
        case 1: use(Hardsigmoid<T>{p}); break;
        case 2: use(Hardswish<T>{p}); break;
        case 3: use(Hardshrink<T>{p}); break;
        case 4: use(Softshrink<T>{{p}}); break;
        case 5: use(Threshold<T>{p}); break;
        case 6: use(Leaky<T>{p}); break;
        case 7: use(Elu<T>{p}); break;
        case 8: use(Softplus<T>{p}); break;
        case 9: use(LogSigmoid<T>{p}); break;
        case 10: use(Mish<T>{p}); break;
        default: return 1;
    }
    return 0;
}

}  // namespace

#define DEFINE(suffix, T)                                                                          \
    EXPORT int64_t pointwise_##suffix(int64_t which, double a, double b, double c, int64_t n,      \
                                      const T *x, T *y) {                                          \
        return with<T>(which, T(a), T(b), T(c), [&](const auto &f) { map<T>(f, n, x, y); });       \
    }                                                                                              \
    EXPORT int64_t pointwise_grad_##suffix(int64_t which, double a, double b, double c, int64_t n, \
                                           const T *x, const T *dy, T *dx) {                       \
        return with<T>(which, T(a), T(b), T(c),                                                    \
                       [&](const auto &f) { map_grad<T>(f, n, x, dy, dx); });                      \
    }
DEFINE(f32, float)
DEFINE(f64, double)
