// Normalisation: over rows (layer, group, instance and RMS norm) and over channels (batch norm).
//
//   row_norm_forward     y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(variance + eps);
//                        with rms: mean = 0, and the mean of squares in place of the variance
//   row_norm_backward    dx, dweight, dbias from dy
//   batch_norm_stats     mean and biased variance of each channel of x (N, C, size)
//   batch_norm_apply     y = x * scale[c] + shift[c]
//   batch_norm_backward  the sums over a channel of dy and of dy * (x - mean) * rstd, and with them
//                        dx = rstd weight (dy - sum dy / M - xhat sum(dy xhat) / M), M = N * size
//                        in training, dx = rstd weight dy in evaluation
//
// x, y, dy, dx are C-contiguous, float32 (_f32) or float64 (_f64). Row norms see (rows, n); row r's
// element j has the weight and bias number (r % groups) * (n / run) + j / run: layer norm has
// groups = run = 1, group norm of (N, C, size) groups groups and run = size. weight and bias may be
// null, and so may what is not wanted: mean, dx, dweight, dbias. mean and rstd are (rows).
// Means and sums run in T over short stretches and in double over these, in an order fixed by the
// shape; dweight and dbias add blocks of rows in their order: results do not depend on the number
// of threads. Python reference: nn/norm.py; each array moves once or twice.
#include <algorithm>
#include <math.h>
#include <vector>

#include "threads.h"

namespace {

constexpr long RUN = 512;                               // elements summed in T

// The sums of f and g over 0 <= i < n in double; both are given (i, vector mask) as vectors.
template <class T, class F> double sum_of(long n, const F &f) {
    double total = 0;
    long i = 0;
    while (i + LANES<T> <= n) {
        long stop = std::min(n, i + RUN);
        Vec<T> a = {}, b = {};
        for (; i + 2 * LANES<T> <= stop; i += 2 * LANES<T>) {
            a += f.vec(i);
            b += f.vec(i + LANES<T>);
        }
        for (; i + LANES<T> <= stop; i += LANES<T>) a += f.vec(i);
        total += double(sum<T>(a + b));
        if (stop == n) break;
    }
    for (; i < n; i++) total += double(f.one(i));
    return total;
}
template <class V, class O> struct Both {
    V vec;
    O one;
};
template <class V, class O> Both<V, O> both(V v, O o) { return {v, o}; }
// The same expression of i for a vector and for one element: LOAD(p) stands for p[i].
#define TERM(expression)                                                                           \
    both([&](long i) { auto at = [&](const T *p) { return load(p + i); }; return expression; },    \
         [&](long i) { auto at = [&](const T *p) { return p[i]; }; return expression; })

template <class T> double square_deviation(const T *x, long n, T mean) {
    return sum_of<T>(n, TERM((at(x) - mean) * (at(x) - mean)));
}
template <class T> double product_sum(const T *a, const T *b, long n) {
    return sum_of<T>(n, TERM(at(a) * at(b)));
}

template <class T>
void moments(const T *x, long n, bool rms, double eps, T &mean, T &rstd) {
    mean = rms ? T(0) : T(plane_sum(x, n) / double(n));
    rstd = T(1 / sqrt(square_deviation(x, n, mean) / double(n) + eps));
}

struct Rows {
    long rows, n, groups, run;
    long per_row() const { return n / run; }            // weights of one row
    long first(long r) const { return r % groups * per_row(); }
};

template <class T, class F> void rows_in_parallel(const Rows &s, const F &f) {
    parallel_ranges(s.rows, 1 + 4096 / (s.n + 1), [&](long begin, long end) {
        for (long r = begin; r < end; r++) f(r);
    });
}

template <class T>
void row_norm(const Rows &s, bool rms, double eps, const T *x, const T *weight, const T *bias, T *y,
              T *mean, T *rstd) {
    rows_in_parallel<T>(s, [&](long r) {
        const T *a = x + r * s.n;
        T *b = y + r * s.n, m, scale;
        moments(a, s.n, rms, eps, m, scale);
        if (mean) mean[r] = m;
        rstd[r] = scale;
        const T *w = weight ? weight + s.first(r) : nullptr;
        const T *c = bias ? bias + s.first(r) : nullptr;
        if (s.run == 1) {
            for (long j = 0; j < s.n; j++) {
                T v = (a[j] - m) * scale;
                v = w ? v * w[j] : v;
                b[j] = c ? v + c[j] : v;
            }
            return;
        }
        for (long k = 0; k < s.per_row(); k++, a += s.run, b += s.run) {
            T by = w ? scale * w[k] : scale, plus = c ? c[k] : T(0);
            for (long j = 0; j < s.run; j++) b[j] = (a[j] - m) * by + plus;
        }
    });
}

// dx of one row: rstd (g - mean of g - xhat * mean of g xhat), where g = dy * weight.
template <class T>
void row_norm_dx(const Rows &s, bool rms, const T *x, const T *dy, const T *w, T mean, T rstd,
                 T *g, T *dx) {
    for (long k = 0; k < s.per_row(); k++) {
        const T *from = dy + k * s.run;
        T *to = g + k * s.run;
        if (s.run == 1) continue;
        T by = w ? w[k] : T(1);
        for (long j = 0; j < s.run; j++) to[j] = from[j] * by;
    }
    if (s.run == 1)
        for (long j = 0; j < s.n; j++) g[j] = w ? dy[j] * w[j] : dy[j];
    double sum_g = rms ? 0 : plane_sum(g, s.n);
    double sum_gx = sum_of<T>(s.n, TERM(at(g) * (at(x) - mean))) * double(rstd);
    T a = T(sum_g / double(s.n)), b = T(sum_gx / double(s.n)) * rstd;
    for (long j = 0; j < s.n; j++) dx[j] = rstd * (g[j] - a - (x[j] - mean) * b);
}

template <class T>
void row_norm_grad(const Rows &s, bool rms, const T *x, const T *dy, const T *weight, const T *mean,
                   const T *rstd, T *dx, T *dweight, T *dbias) {
    if (dx)
        parallel_ranges(s.rows, 1 + 4096 / (s.n + 1), [&](long begin, long end) {
            std::vector<T> g(size_t(s.n) + 1);
            for (long r = begin; r < end; r++)
                row_norm_dx(s, rms, x + r * s.n, dy + r * s.n,
                            weight ? weight + s.first(r) : nullptr, mean ? mean[r] : T(0), rstd[r],
                            g.data(), dx + r * s.n);
        });
    if (!dweight && !dbias) return;
    // A block of rows adds into its own sums; then the blocks are added up.
    long per = s.per_row(), all = s.groups * per, images = s.rows / s.groups;
    long blocks = std::min(images, std::max(1L, std::min(16L, s.rows * s.n / 16384)));
    std::vector<T> sums(size_t(2 * blocks * all + 1));
    parallel(blocks, [&](long b) {
        T *dw = &sums[size_t(2 * b * all)], *db = dw + all;
        long first = images * b / blocks * s.groups, last = images * (b + 1) / blocks * s.groups;
        for (long r = first; r < last; r++) {
            const T *a = x + r * s.n, *g = dy + r * s.n;
            T *w = dw + s.first(r), *c = db + s.first(r), m = mean ? mean[r] : T(0), by = rstd[r];
            if (s.run == 1)
                for (long j = 0; j < s.n; j++) {
                    w[j] += g[j] * ((a[j] - m) * by);
                    c[j] += g[j];
                }
            else
                for (long k = 0; k < per; k++, a += s.run, g += s.run) {
                    w[k] += T(sum_of<T>(s.run, TERM(at(g) * (at(a) - m)))) * by;
                    c[k] += T(plane_sum(g, s.run));
                }
        }
    });
    for (long j = 0; j < all; j++) {
        T w = 0, c = 0;
        for (long b = 0; b < blocks; b++) {
            w += sums[size_t(2 * b * all + j)];
            c += sums[size_t((2 * b + 1) * all + j)];
        }
        if (dweight) dweight[j] = w;
        if (dbias) dbias[j] = c;
    }
}

template <class F> void channels_in_parallel(long images, long channels, long size, const F &f) {
    parallel_ranges(channels, 1 + 4096 / (images * size + 1), [&](long begin, long end) {
        for (long c = begin; c < end; c++) f(c);
    });
}

template <class T>
void batch_stats(long images, long channels, long size, const T *x, T *mean, T *variance) {
    double count = double(images * size);
    channels_in_parallel(images, channels, size, [&](long c) {
        double total = 0, squares = 0;
        for (long i = 0; i < images; i++) total += plane_sum(x + (i * channels + c) * size, size);
        mean[c] = T(total / count);
        for (long i = 0; i < images; i++)
            squares += square_deviation(x + (i * channels + c) * size, size, mean[c]);
        variance[c] = T(squares / count);
    });
}

template <class T>
void batch_apply(long images, long channels, long size, const T *x, const T *scale, const T *shift,
                 T *y) {
    parallel_ranges(images * channels, 1 + 4096 / (size + 1), [&](long begin, long end) {
        for (long p = begin; p < end; p++) {
            T a = scale[p % channels], b = shift[p % channels];
            for (long j = p * size; j < (p + 1) * size; j++) y[j] = x[j] * a + b;
        }
    });
}

template <class T>
void batch_grad(long images, long channels, long size, bool training, const T *x, const T *dy,
                const T *weight, const T *mean, const T *rstd, T *dx, T *dweight, T *dbias) {
    double count = double(images * size);
    channels_in_parallel(images, channels, size, [&](long c) {
        double sum_g = 0, sum_gx = 0;
        for (long i = 0; i < images; i++) {
            const T *a = x + (i * channels + c) * size, *g = dy + (i * channels + c) * size;
            T m = mean[c];
            sum_g += plane_sum(g, size);
            sum_gx += sum_of<T>(size, TERM(at(g) * (at(a) - m)));
        }
        sum_gx *= double(rstd[c]);
        if (dweight) dweight[c] = T(sum_gx);
        if (dbias) dbias[c] = T(sum_g);
        if (!dx) return;
        T by = weight ? rstd[c] * weight[c] : rstd[c], m = mean[c];
        T p = training ? T(sum_g / count) : T(0);
        T q = training ? T(sum_gx / count) * rstd[c] : T(0);
        for (long i = 0; i < images; i++) {
            long at = (i * channels + c) * size;
            if (training)
                for (long j = at; j < at + size; j++) dx[j] = by * (dy[j] - p - (x[j] - m) * q);
            else
                for (long j = at; j < at + size; j++) dx[j] = by * dy[j];
        }
    });
}

}  // namespace

#define DEFINE(suffix, T)                                                                          \
    EXPORT void row_norm_forward_##suffix(int64_t rows, int64_t n, int64_t groups, int64_t run,    \
                                          int64_t rms, double eps, const T *x, const T *weight,    \
                                          const T *bias, T *y, T *mean, T *rstd) {                 \
        row_norm<T>({rows, n, groups, run}, rms != 0, eps, x, weight, bias, y, mean, rstd);        \
    }                                                                                              \
    EXPORT void row_norm_backward_##suffix(int64_t rows, int64_t n, int64_t groups, int64_t run,   \
                                           int64_t rms, const T *x, const T *dy, const T *weight,  \
                                           const T *mean, const T *rstd, T *dx, T *dweight,        \
                                           T *dbias) {                                             \
        row_norm_grad<T>({rows, n, groups, run}, rms != 0, x, dy, weight, mean, rstd, dx, dweight, \
                         dbias);                                                                   \
    }                                                                                              \
    EXPORT void batch_norm_stats_##suffix(int64_t images, int64_t channels, int64_t size,          \
                                          const T *x, T *mean, T *variance) {                      \
        batch_stats<T>(images, channels, size, x, mean, variance);                                 \
    }                                                                                              \
    EXPORT void batch_norm_apply_##suffix(int64_t images, int64_t channels, int64_t size,          \
                                          const T *x, const T *scale, const T *shift, T *y) {      \
        batch_apply<T>(images, channels, size, x, scale, shift, y);                                \
    }                                                                                              \
    EXPORT void batch_norm_backward_##suffix(int64_t images, int64_t channels, int64_t size,       \
                                             int64_t training, const T *x, const T *dy,            \
                                             const T *weight, const T *mean, const T *rstd, T *dx, \
                                             T *dweight, T *dbias) {                               \
        batch_grad<T>(images, channels, size, training != 0, x, dy, weight, mean, rstd, dx,        \
                      dweight, dbias);                                                             \
    }
DEFINE(f32, float)
DEFINE(f64, double)
