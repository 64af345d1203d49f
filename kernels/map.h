// Functions of each element, over the threads: f.f(v) is the value at a vector v, f.d(v) the slope.
#pragma once
#include "threads.h"
#include "vmath.h"

constexpr long LEAST = 8192;                            // elements worth a thread

// log(1 + u) for 0 <= u <= 1, exact for small u.
template <class T> inline Vec<T> log_one_plus(Vec<T> u) {
    Vec<T> w = u + T(1), lost = u - (w - T(1));
    return vlog<T>(w) + lost / w;
}

template <class T, class F> void map(const F &f, long n, const T *x, T *y) {
    parallel_ranges(n, LEAST, [&](long begin, long end) {
        each(x + begin, end - begin, T(1), [&](long i, Vec<T> v, long lanes) {
            store_some(y + begin + i, f.f(v), lanes);
        });
    });
}

template <class T, class F> void map_grad(const F &f, long n, const T *x, const T *dy, T *dx) {
    parallel_ranges(n, LEAST, [&](long begin, long end) {
        T rest[LANES<T>] = {};
        each(x + begin, end - begin, T(1), [&](long i, Vec<T> v, long lanes) {
            const T *g = dy + begin + i;
            for (long j = 0; lanes < LANES<T> && j < lanes; j++) rest[j] = g[j];
            Vec<T> slope = f.d(v), by = lanes < LANES<T> ? load(rest) : load(g);
            store_some(dx + begin + i, slope * by, lanes);
        });
    });
}
