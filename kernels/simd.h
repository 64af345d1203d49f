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

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t Lanes4 __attribute__((vector_size(16)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Lanes4{__VA_ARGS__})
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

// A mask with the first lanes set, and v where a mask is set, 0 elsewhere.
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

// to[c * to_step + r] = from[r * from_step + c]
template <class T>
inline void transpose(const T *from, long from_step, long rows, long columns, T *to, long to_step) {
    long done = 0;
    if constexpr (sizeof(T) == 4) {
        done = rows / 4 * 4;
        typedef T four __attribute__((vector_size(16), aligned(4), may_alias));
        for (long c = 0; c < columns; c += 16)          // a cache line of each row at a time
            for (long r = 0; r < done; r += 4) {
                const T *p = from + r * from_step;
                long i = c, end = c + 16 < columns ? c + 16 : columns;
                for (; i + 4 <= end; i += 4) {
                    four a = *reinterpret_cast<const four *>(p + i);
                    four b = *reinterpret_cast<const four *>(p + from_step + i);
                    four d = *reinterpret_cast<const four *>(p + 2 * from_step + i);
                    four e = *reinterpret_cast<const four *>(p + 3 * from_step + i);
                    four ab = SHUFFLE(a, b, 0, 4, 1, 5), de = SHUFFLE(d, e, 0, 4, 1, 5);
                    four AB = SHUFFLE(a, b, 2, 6, 3, 7), DE = SHUFFLE(d, e, 2, 6, 3, 7);
                    T *q = to + i * to_step + r;
                    *reinterpret_cast<four *>(q) = SHUFFLE(ab, de, 0, 1, 4, 5);
                    *reinterpret_cast<four *>(q + to_step) = SHUFFLE(ab, de, 2, 3, 6, 7);
                    *reinterpret_cast<four *>(q + 2 * to_step) = SHUFFLE(AB, DE, 0, 1, 4, 5);
                    *reinterpret_cast<four *>(q + 3 * to_step) = SHUFFLE(AB, DE, 2, 3, 6, 7);
                }
                for (; i < end; i++)
                    for (long j = 0; j < 4; j++) to[i * to_step + r + j] = p[j * from_step + i];
            }
    }
    for (long c = 0; c < columns; c += 16)
        for (long r = done; r < rows; r++)
            for (long i = c; i < c + 16 && i < columns; i++)
                to[i * to_step + r] = from[r * from_step + i];
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
