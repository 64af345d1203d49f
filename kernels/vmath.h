// exp, log and tanh on vectors, by polynomials: within 2 units in the last place of the exact value.
//
//   vexp(v)   0 below the range, inf above it, NaN of NaN; denormal results are right
//   vtanh(v)  -0 of -0
//   vlog(v)   -inf of 0, NaN of negative numbers, inf of inf
#pragma once
#include "simd.h"

template <class T> struct Floating;
template <> struct Floating<float> {
    typedef int32_t integer;
    static constexpr int MANTISSA = 23, BIAS = 127, EXP_TERMS = 7, LOG_TERMS = 5;
    static constexpr float ROUND = 12582912.0f;         // 1.5 * 2^23: adding it rounds to integer
    static constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
    static constexpr float LOW = -104.0f, HIGH = 89.0f; // exp is 0 below, inf above
};
template <> struct Floating<double> {
    typedef int64_t integer;
    static constexpr int MANTISSA = 52, BIAS = 1023, EXP_TERMS = 13, LOG_TERMS = 11;
    static constexpr double ROUND = 6755399441055744.0;
    static constexpr double LN2_HIGH = 6.93147180369123816490e-01;
    static constexpr double LN2_LOW = 1.90821492927058770002e-10;
    static constexpr double LOW = -746.0, HIGH = 710.0;
};
template <class T> struct Integers {
    typedef typename Floating<T>::integer vec __attribute__((vector_size(VECTOR_BYTES)));
};
template <class T> using IVec = typename Integers<T>::vec;

template <class T> inline Vec<T> power_of_two(IVec<T> n) {
    return Vec<T>((n + Floating<T>::BIAS) << Floating<T>::MANTISSA);
}

template <class T> inline Vec<T> vexp(Vec<T> x) {
    typedef Floating<T> F;
    x = x < F::LOW ? splat(F::LOW) : x;                 // a comparison with NaN is false: NaN stays
    x = x > F::HIGH ? splat(F::HIGH) : x;
    Vec<T> shifted = x * T(1.44269504088896340736) + F::ROUND;
    Vec<T> n = shifted - F::ROUND;
    IVec<T> k = IVec<T>(shifted) - IVec<T>(splat(F::ROUND));
    Vec<T> r = x - n * F::LN2_HIGH - n * F::LN2_LOW;
    static constexpr double inverse_factorial[] = {
        1, 1, 1 / 2., 1 / 6., 1 / 24., 1 / 120., 1 / 720., 1 / 5040., 1 / 40320., 1 / 362880.,
        1 / 3628800., 1 / 39916800., 1 / 479001600., 1 / 6227020800.};
    Vec<T> p = splat(T(inverse_factorial[F::EXP_TERMS]));
    UNROLL for (int i = F::EXP_TERMS - 1; i >= 0; i--) p = p * r + T(inverse_factorial[i]);
    IVec<T> half = k >> 1;                              // in two steps: 2^k may not be a number
    return p * power_of_two<T>(half) * power_of_two<T>(k - half);
}

template <class T> inline Vec<T> vlog(Vec<T> x) {
    typedef Floating<T> F;
    const T least = sizeof(T) == 4 ? T(1.17549435e-38) : T(2.2250738585072014e-308);
    const T up = sizeof(T) == 4 ? T(8388608.0) : T(4503599627370496.0);
    auto tiny = x < least;
    Vec<T> y = tiny ? x * up : x;                       // denormals made normal
    IVec<T> bits = IVec<T>(y) - IVec<T>(splat(T(0.70710678118654752440)));
    IVec<T> e = bits >> F::MANTISSA;
    Vec<T> m = Vec<T>(IVec<T>(y) - (e << F::MANTISSA)); // in [sqrt(1/2), sqrt(2))
    e -= tiny & F::MANTISSA;
    Vec<T> s = (m - T(1)) / (m + T(1)), z = s * s;
    Vec<T> p = splat(T(1) / T(2 * F::LOG_TERMS + 1));
    UNROLL for (int i = F::LOG_TERMS - 1; i >= 1; i--) p = p * z + T(1) / T(2 * i + 1);
    Vec<T> n = Vec<T>(e + IVec<T>(splat(F::ROUND))) - F::ROUND;
    // log m = 2 s (1 + z/3 + z²/5 ...), where 2 s = (m - 1) - s (m - 1) keeps the bits of m - 1
    Vec<T> d = m - T(1), small = s * (T(2) * z * p - d) + n * F::LN2_LOW;
    Vec<T> result = n * F::LN2_HIGH + (d + small);
    result = x == T(0) ? splat(-T(__builtin_inf())) : result;
    result = x < T(0) ? splat(T(__builtin_nan(""))) : result;
    return (x == T(__builtin_inf())) | (x != x) ? x : result;
}

template <class T> inline Vec<T> magnitude(Vec<T> x) { return x < T(0) ? -x : x; }

// The terms of c are those of a polynomial, c[0] first.
template <class T, int N> inline Vec<T> polynomial(Vec<T> x, const T (&c)[N]) {
    Vec<T> p = splat(c[N - 1]);
    UNROLL for (int i = N - 2; i >= 0; i--) p = p * x + c[i];
    return p;
}

template <class T> inline Vec<T> vtanh(Vec<T> x) {
    Vec<T> z = x * x, p;                                // tanh(x) = x + x z p(z) near 0
    if constexpr (sizeof(T) == 4) {
        static constexpr float c[] = {-0.3333332843f, 0.1333271885f, -0.05384326318f,
                                      0.02096132911f, -0.006045165097f};
        p = polynomial<T>(z, c);
    } else {
        static constexpr double c[] = {
            -0.33333333333333333314, 0.13333333333333316986, -0.053968253968231026593,
            0.021869488534887757485, -0.0088632354934414508385, 0.003592127410695316156,
            -0.0014558274668454263811, 0.00058997591921439610706, -0.00023886464788549517407,
            0.000095972363181594493415, -0.000036960522303321571321, 0.000012088687226201754254,
            -2.3855793111643766449e-6};
        p = polynomial<T>(z, c);
    }
    Vec<T> far = T(1) - T(2) / (vexp<T>(T(2) * magnitude<T>(x)) + T(1));
    Vec<T> near = z > T(0) ? x + x * (z * p) : x;       // -0 stays -0
    return z < T(0.39) ? near : x < T(0) ? -far : far;
}

// Calls f(vector, lanes) for each vector of a row of n, the last filled up with `fill`.
template <class T, class F> inline void each(const T *p, long n, T fill, const F &f) {
    long i = 0;
    for (; i + LANES<T> <= n; i += LANES<T>) f(i, load(p + i), LANES<T>);
    if (i == n) return;
    T rest[LANES<T>];
    for (long j = 0; j < LANES<T>; j++) rest[j] = i + j < n ? p[i + j] : fill;
    f(i, load(rest), n - i);
}
// The first `lanes` lanes of v.
template <class T> inline void store_some(T *p, Vec<T> v, long lanes) {
    if (lanes == LANES<T>) return store(p, v);
    T all[LANES<T>];
    store(all, v);
    for (long j = 0; j < lanes; j++) p[j] = all[j];
}
