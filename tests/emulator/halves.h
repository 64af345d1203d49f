// The functions of half and bfloat16 that NVIDIA's headers give to device code alone: through float,
// rounded once.
#pragma once
#include "intrinsics.h"

namespace emulator {
inline float exp(float x) { return expf(x); }
inline float exp2(float x) { return exp2f(x); }
inline float exp10(float x) { return exp10f(x); }
inline float log(float x) { return logf(x); }
inline float log2(float x) { return log2f(x); }
inline float log10(float x) { return log10f(x); }
inline float sqrt(float x) { return sqrtf(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float rcp(float x) { return 1.f / x; }
inline float sin(float x) { return sinf(x); }
inline float cos(float x) { return cosf(x); }
inline float tanh(float x) { return tanhf(x); }
inline float floor(float x) { return floorf(x); }
inline float ceil(float x) { return ceilf(x); }
inline float trunc(float x) { return truncf(x); }
inline float rint(float x) { return rintf(x); }
}  // namespace emulator

#define EMULATOR_HALF(H, H2, name)                                        \
    inline H h##name(H x) { return H(emulator::name(float(x))); }         \
    inline H2 h2##name(H2 x) {                                            \
        H2 r;                                                             \
        r.x = h##name(x.x);                                               \
        r.y = h##name(x.y);                                               \
        return r;                                                         \
    }
#define EMULATOR_HALVES(H, H2)                                                                \
    inline H __hfma(H a, H b, H c) { return H(fmaf(float(a), float(b), float(c))); }          \
    inline H2 __hfma2(H2 a, H2 b, H2 c) {                                                     \
        H2 r;                                                                                 \
        r.x = __hfma(a.x, b.x, c.x);                                                          \
        r.y = __hfma(a.y, b.y, c.y);                                                          \
        return r;                                                                             \
    }                                                                                         \
    EMULATOR_HALF(H, H2, exp) EMULATOR_HALF(H, H2, exp2) EMULATOR_HALF(H, H2, exp10)          \
    EMULATOR_HALF(H, H2, log) EMULATOR_HALF(H, H2, log2) EMULATOR_HALF(H, H2, log10)          \
    EMULATOR_HALF(H, H2, sqrt) EMULATOR_HALF(H, H2, rsqrt) EMULATOR_HALF(H, H2, rcp)          \
    EMULATOR_HALF(H, H2, sin) EMULATOR_HALF(H, H2, cos) EMULATOR_HALF(H, H2, tanh)            \
    EMULATOR_HALF(H, H2, floor) EMULATOR_HALF(H, H2, ceil) EMULATOR_HALF(H, H2, trunc)        \
    EMULATOR_HALF(H, H2, rint)
EMULATOR_HALVES(__half, __half2)
EMULATOR_HALVES(__nv_bfloat16, __nv_bfloat162)
#undef EMULATOR_HALVES
#undef EMULATOR_HALF
