// Arithmetic that device code has built in. Fast-math forms are the exact functions here.
#pragma once
#include <ctime>

template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
    using C = std::common_type_t<A, B>;
    return C(b) < C(a) ? C(b) : C(a);
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
    using C = std::common_type_t<A, B>;
    return C(a) < C(b) ? C(b) : C(a);
}

#define EMULATOR_FLOAT(name, value) inline float name(float x) { return value; }
EMULATOR_FLOAT(rsqrtf, 1.f / sqrtf(x))
EMULATOR_FLOAT(rcbrtf, 1.f / cbrtf(x))
EMULATOR_FLOAT(normcdff, 0.5f * erfcf(-x * 0.70710678f))
EMULATOR_FLOAT(sinpif, float(sin(M_PI * x)))
EMULATOR_FLOAT(cospif, float(cos(M_PI * x)))
EMULATOR_FLOAT(__expf, expf(x))
EMULATOR_FLOAT(__exp10f, exp10f(x))
EMULATOR_FLOAT(__logf, logf(x))
EMULATOR_FLOAT(__log2f, log2f(x))
EMULATOR_FLOAT(__log10f, log10f(x))
EMULATOR_FLOAT(__sinf, sinf(x))
EMULATOR_FLOAT(__cosf, cosf(x))
EMULATOR_FLOAT(__tanf, tanf(x))
EMULATOR_FLOAT(__tanhf, tanhf(x))
EMULATOR_FLOAT(__saturatef, x > 0.f ? x < 1.f ? x : 1.f : 0.f)
EMULATOR_FLOAT(__frcp_rn, 1.f / x)
EMULATOR_FLOAT(__fsqrt_rn, sqrtf(x))
EMULATOR_FLOAT(__frsqrt_rn, 1.f / sqrtf(x))
#undef EMULATOR_FLOAT
inline double rsqrt(double x) { return 1. / sqrt(x); }
inline double rcbrt(double x) { return 1. / cbrt(x); }
inline double normcdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
inline double sinpi(double x) { return sin(M_PI * x); }
inline double cospi(double x) { return cos(M_PI * x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline void __sincosf(float x, float* s, float* c) { *s = sinf(x), *c = cosf(x); }
inline void sincospif(float x, float* s, float* c) { *s = sinpif(x), *c = cospif(x); }

// The forms that the compiler may not fuse into a multiply-add.
#define EMULATOR_UNFUSED(name, type, op)                                                       \
    __attribute__((optimize("fp-contract=off"), noinline)) inline type name(type a, type b) {  \
        return a op b;                                                                         \
    }
EMULATOR_UNFUSED(__fmul_rn, float, *)
EMULATOR_UNFUSED(__fadd_rn, float, +)
EMULATOR_UNFUSED(__fsub_rn, float, -)
EMULATOR_UNFUSED(__dmul_rn, double, *)
EMULATOR_UNFUSED(__dadd_rn, double, +)
EMULATOR_UNFUSED(__dsub_rn, double, -)
#undef EMULATOR_UNFUSED

namespace emulator {
template <class To, class From> inline To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same number of bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
}  // namespace emulator
inline int __float_as_int(float x) { return emulator::same_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return emulator::same_bits<unsigned>(x); }
inline float __int_as_float(int x) { return emulator::same_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emulator::same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulator::same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulator::same_bits<double>(x); }

inline int __float2int_rn(float x) { return (int)rintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline int __float2int_rd(float x) { return (int)floorf(x); }
inline int __float2int_ru(float x) { return (int)ceilf(x); }
inline unsigned __float2uint_rn(float x) { return (unsigned)rintf(x); }
inline unsigned __float2uint_rz(float x) { return (unsigned)x; }
inline long long __float2ll_rn(float x) { return (long long)rintf(x); }
inline long long __float2ll_rd(float x) { return (long long)floorf(x); }
inline int __double2int_rn(double x) { return (int)rint(x); }
inline long long __double2ll_rn(double x) { return (long long)rint(x); }
inline float __double2float_rn(double x) { return (float)x; }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline double __int2double_rn(int x) { return (double)x; }
inline double __ll2double_rn(long long x) { return (double)x; }
inline float __ll2float_rn(long long x) { return (float)x; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
    return r;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    unsigned long long bytes = a | (unsigned long long)b << 32;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned pick = selector >> 4 * i & 15, byte = bytes >> 8 * (pick & 7) & 255;
        r |= (pick & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return r;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return (unsigned)(((unsigned long long)high << 32 | low) << (by & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (by & 31));
}
inline int __mul24(int a, int b) { return a * b; }
inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline long long clock64() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}
inline unsigned __isGlobal(const void*) { return 1; }
