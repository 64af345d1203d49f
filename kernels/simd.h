// Vectors of the widest registers that the target has, as GCC and Clang vector extensions:
// plain + - * < on Vec<T>, no intrinsics, so that one text serves SSE, AVX2, AVX-512 and NEON.
//
//   Vec<T>          a vector of T (float or double); LANES<T> of them
//   load / store    from and to any address that is aligned for T
//   sum(v)          the lanes added up in a fixed order
//   REGISTERS       how many vector registers the target has: what sizes the register blocks
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int VECTOR_BYTES = 16, REGISTERS = 32;
#else
constexpr int VECTOR_BYTES = 16, REGISTERS = 16;
#endif

#define UNROLL _Pragma("GCC unroll 16")
#define EXPORT extern "C" __attribute__((visibility("default")))

template <class T> struct Simd {
    typedef T vec __attribute__((vector_size(VECTOR_BYTES)));
    typedef T loose __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));
};
template <class T> using Vec = typename Simd<T>::vec;
template <class T> constexpr long LANES = VECTOR_BYTES / sizeof(T);

template <class T> inline Vec<T> load(const T *p) {
    return *reinterpret_cast<const typename Simd<T>::loose *>(p);
}
template <class T> inline void store(T *p, Vec<T> v) {
    *reinterpret_cast<typename Simd<T>::loose *>(p) = v;
}
template <class T> inline Vec<T> splat(T x) { return x - Vec<T>{}; }

// The lanes of a bit mask (all ones or all zeros in each lane), and v where the mask is set, else 0.
template <class T> inline Vec<T> tail_mask(long lanes) {
    unsigned char bytes[VECTOR_BYTES];
    memset(bytes, 0, sizeof bytes);
    memset(bytes, 255, size_t(lanes) * sizeof(T));
    Vec<T> v;
    memcpy(&v, bytes, sizeof v);
    return v;
}
template <class T> inline T keep(T v, T mask) {
    typedef long long bits __attribute__((vector_size(VECTOR_BYTES)));
    return T(bits(v) & bits(mask));
}

template <class T> inline T sum(Vec<T> v) {
    T lanes[LANES<T>];
    store(lanes, v);
    for (long half = LANES<T> / 2; half; half /= 2)
        for (long i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

// The sum of n numbers in double, in an order fixed by n.
template <class T> inline double plane_sum(const T *p, long n) {
    double total = 0;
    while (n > 0) {                                     // short runs in T, the runs in double
        long run = n < 32 * LANES<T> ? n : 32 * LANES<T>, i = 0;
        Vec<T> a = {}, b = {};
        for (; i + 2 * LANES<T> <= run; i += 2 * LANES<T>) {
            a += load(p + i);
            b += load(p + i + LANES<T>);
        }
        T rest = 0;
        for (; i < run; i++) rest += p[i];
        total += double(sum<T>(a + b)) + double(rest);
        p += run;
        n -= run;
    }
    return total;
}
