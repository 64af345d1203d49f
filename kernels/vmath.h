// exp, log and tanh on vectors, by polynomials: within 2 units in the last place (tanh 3).
//
//   vexp(v)   0 below the range, inf above it, NaN of NaN; denormal results are right
//   vtanh(v)  1 and -1 far out, NaN of NaN, -0 of -0
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

// v between low and high; NaN stays, as a comparison with it is false.
template <class T> inline Vec<T> clamp(Vec<T> v, T low, T high) {
    v = v < low ? splat(low) : v;
    return v > high ? splat(high) : v;
}
// x = k ln 2 + r with |r| <= ln 2 / 2: gives r.
template <class T> inline Vec<T> reduce(Vec<T> x, IVec<T> &k) {
    typedef Floating<T> F;
    Vec<T> shifted = x * T(1.44269504088896340736) + F::ROUND;
    Vec<T> n = shifted - F::ROUND;
    k = IVec<T>(shifted) - IVec<T>(splat(F::ROUND));
    return x - n * F::LN2_HIGH - n * F::LN2_LOW;
}
// The sum of r^(i - first) / i! over i >= first.
template <class T> inline Vec<T> exp_series(Vec<T> r, int first) {
    static constexpr double inverse_factorial[] = {
        1, 1, 1 / 2., 1 / 6., 1 / 24., 1 / 120., 1 / 720., 1 / 5040., 1 / 40320., 1 / 362880.,
        1 / 3628800., 1 / 39916800., 1 / 479001600., 1 / 6227020800.};
    Vec<T> p = splat(T(inverse_factorial[Floating<T>::EXP_TERMS]));
    UNROLL for (int i = Floating<T>::EXP_TERMS - 1; i >= first; i--)
        p = p * r + T(inverse_factorial[i]);
    return p;
}

template <class T> inline Vec<T> vexp(Vec<T> x) {
    IVec<T> k;
    Vec<T> p = exp_series<T>(reduce<T>(clamp<T>(x, Floating<T>::LOW, Floating<T>::HIGH), k), 0);
    IVec<T> half = k >> 1;                              // in two steps: 2^k may not be a number
    return p * power_of_two<T>(half) * power_of_two<T>(k - half);
}

// e / (e + 2) of e = exp(2 x) - 1, which keeps the digits of a small x.
template <class T> inline Vec<T> vtanh(Vec<T> x) {
    IVec<T> k;
    Vec<T> r = reduce<T>(clamp<T>(x + x, T(-40), T(40)), k), two = power_of_two<T>(k);
    Vec<T> e = two * (r * exp_series<T>(r, 1)) + (two - T(1));
    return x == T(0) ? x : e / (e + T(2));              // -0 stays -0
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
