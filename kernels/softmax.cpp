// Softmax and log-softmax over rows, their gradients, and cross-entropy from logits.
//
//   softmax_forward        y = exp(x - max) / sum of exp(x - max)
//   softmax_backward       dx = y (dy - sum of y dy)
//   log_softmax_forward    y = x - max - log(sum of exp(x - max))
//   log_softmax_backward   dx = dy - exp(y) * sum of dy
//   cross_entropy_forward  lse = max + log(sum of exp(x - max)),
//                          loss = (1 - eps) (lse - x[target]) + eps (lse - mean of x)
//   cross_entropy_backward dx = scale (exp(x - lse) - (1 - eps) [target] - eps / n)
//
// x, y, dy, dx are (rows, n), C-contiguous, float32 (_f32) or float64 (_f64); target is int64
// (rows), with rows of target `ignore` getting loss and gradient 0; loss, lse and scale are (rows).
// cross_entropy_forward returns the position of the first target that is neither ignored nor in
// [0, n), or -1. A row is summed in the order of its columns by one thread: results do not depend
// on the number of threads. NaN gives NaN, and so does a row of -inf, as in PyTorch.
// Python reference: nn/activation.py, nn/loss.py; reads and writes each array once from memory.
#include <math.h>

#include "threads.h"
#include "vmath.h"

namespace {

template <class T> T row_max(const T *x, long n) {
    Vec<T> m = splat(-T(INFINITY));
    each(x, n, -T(INFINITY), [&](long, Vec<T> v, long) { m = v > m ? v : m; });
    T best = m[0];
    for (long j = 1; j < LANES<T>; j++) best = m[j] > best ? m[j] : best;
    return best;
}

template <class T> T exp_sum(const T *x, long n, T max) {
    Vec<T> total = {};
    each(x, n, -T(INFINITY), [&](long, Vec<T> v, long) { total += vexp<T>(v - max); });
    return sum<T>(total);
}

template <class T, class F> void rows_in_parallel(long rows, long n, const F &f) {
    parallel_ranges(rows, 1 + 4096 / (n + 1), [&](long begin, long end) {
        for (long r = begin; r < end; r++) f(r);
    });
}

template <class T> void softmax(long rows, long n, const T *x, T *y) {
    rows_in_parallel<T>(rows, n, [&](long r) {
        const T *a = x + r * n;
        T *b = y + r * n, max = row_max(a, n);
        Vec<T> total = {};
        each(a, n, -T(INFINITY), [&](long i, Vec<T> v, long lanes) {
            Vec<T> e = vexp<T>(v - max);
            total += e;
            store_some(b + i, e, lanes);
        });
        T s = sum<T>(total);
        each(b, n, T(0), [&](long i, Vec<T> v, long lanes) { store_some(b + i, v / s, lanes); });
    });
}

template <class T> void softmax_grad(long rows, long n, const T *y, const T *dy, T *dx) {
    rows_in_parallel<T>(rows, n, [&](long r) {
        const T *a = y + r * n, *g = dy + r * n;
        T *d = dx + r * n, rest[LANES<T>] = {};
        Vec<T> total = {};
        long i = 0;
        for (; i + LANES<T> <= n; i += LANES<T>) total += load(a + i) * load(g + i);
        for (long j = 0; i + j < n; j++) rest[j] = a[i + j] * g[i + j];
        T s = sum<T>(total + load(rest));
        for (i = 0; i + LANES<T> <= n; i += LANES<T>)
            store(d + i, load(a + i) * (load(g + i) - s));
        for (; i < n; i++) d[i] = a[i] * (g[i] - s);
    });
}

template <class T> void log_softmax(long rows, long n, const T *x, T *y) {
    rows_in_parallel<T>(rows, n, [&](long r) {
        const T *a = x + r * n;
        T *b = y + r * n, max = row_max(a, n), log_sum = T(log(double(exp_sum(a, n, max))));
        long i = 0;
        for (; i + LANES<T> <= n; i += LANES<T>) store(b + i, load(a + i) - max - log_sum);
        for (; i < n; i++) b[i] = a[i] - max - log_sum;
    });
}

template <class T> void log_softmax_grad(long rows, long n, const T *y, const T *dy, T *dx) {
    rows_in_parallel<T>(rows, n, [&](long r) {
        const T *g = dy + r * n;
        T *d = dx + r * n, s = T(plane_sum(g, n)), rest[LANES<T>];
        each(y + r * n, n, T(0), [&](long i, Vec<T> v, long lanes) {
            for (long j = 0; lanes < LANES<T> && j < lanes; j++) rest[j] = g[i + j];
            Vec<T> w = lanes < LANES<T> ? load(rest) : load(g + i);
            store_some(d + i, w - vexp<T>(v) * s, lanes);
        });
    });
}

// The first row whose target is neither `ignore` nor in [0, n), or -1.
inline int64_t bad_target(long rows, long n, const int64_t *target, int64_t ignore) {
    for (long r = 0; r < rows; r++)
        if (target[r] != ignore && (target[r] < 0 || target[r] >= n)) return r;
    return -1;
}

template <class T>
int64_t cross_entropy(long rows, long n, const T *x, const int64_t *target, int64_t ignore,
                      double eps, T *loss, T *lse) {
    int64_t bad = bad_target(rows, n, target, ignore);
    if (bad >= 0) return bad;
    rows_in_parallel<T>(rows, n, [&](long r) {
        const T *a = x + r * n;
        T max = row_max(a, n), log_sum = T(log(double(exp_sum(a, n, max))));
        lse[r] = max + log_sum;
        if (target[r] == ignore) {
            loss[r] = 0;
            return;
        }
        T hit = max - a[target[r]] + log_sum;
        loss[r] = eps == 0 ? hit
                           : T((1 - eps) * double(hit) +
                               eps * (double(lse[r]) - plane_sum(a, n) / double(n)));
    });
    return -1;
}

template <class T>
void cross_entropy_grad(long rows, long n, const T *x, const int64_t *target, int64_t ignore,
                        double eps, const T *lse, const T *scale, T *dx) {
    rows_in_parallel<T>(rows, n, [&](long r) {
        T *d = dx + r * n, c = scale[r], log_sum = lse[r], even = T(eps / double(n));
        if (target[r] == ignore) {
            memset(d, 0, size_t(n) * sizeof(T));
            return;
        }
        each(x + r * n, n, T(0), [&](long i, Vec<T> v, long lanes) {
            store_some(d + i, (vexp<T>(v - log_sum) - even) * c, lanes);
        });
        d[target[r]] -= T(1 - eps) * c;
    });
}

}  // namespace

#define DEFINE(suffix, T)                                                                          \
    EXPORT void softmax_forward_##suffix(int64_t rows, int64_t n, const T *x, T *y) {              \
        softmax<T>(rows, n, x, y);                                                                 \
    }                                                                                              \
    EXPORT void softmax_backward_##suffix(int64_t rows, int64_t n, const T *y, const T *dy,        \
                                          T *dx) {                                                 \
        softmax_grad<T>(rows, n, y, dy, dx);                                                       \
    }                                                                                              \
    EXPORT void log_softmax_forward_##suffix(int64_t rows, int64_t n, const T *x, T *y) {          \
        log_softmax<T>(rows, n, x, y);                                                             \
    }                                                                                              \
    EXPORT void log_softmax_backward_##suffix(int64_t rows, int64_t n, const T *y, const T *dy,    \
                                              T *dx) {                                             \
        log_softmax_grad<T>(rows, n, y, dy, dx);                                                   \
    }                                                                                              \
    EXPORT int64_t cross_entropy_forward_##suffix(int64_t rows, int64_t n, const T *x,             \
                                                  const int64_t *target, int64_t ignore,           \
                                                  double eps, T *loss, T *lse) {                   \
        return cross_entropy<T>(rows, n, x, target, ignore, eps, loss, lse);                       \
    }                                                                                              \
    EXPORT void cross_entropy_backward_##suffix(int64_t rows, int64_t n, const T *x,               \
                                                const int64_t *target, int64_t ignore, double eps, \
                                                const T *lse, const T *scale, T *dx) {             \
        cross_entropy_grad<T>(rows, n, x, target, ignore, eps, lse, scale, dx);                    \
    }
DEFINE(f32, float)
DEFINE(f64, double)
