// One pass over parameters, gradients and moments: SGD, Adam and AdamW, and the sum of squares.
//
//   sgd_step    g = sign grad + decay p;  buf = first ? g : momentum buf + (1 - dampening) g;
//               g = nesterov ? g + momentum buf : momentum ? buf : g;  p -= lr g
//   adam_step   g = sign grad;  decoupled ? p *= 1 - lr decay : g += decay p;
//               m += (1 - b1) (g - m);  v = b2 v + (1 - b2) g g;
//               p -= step m / (sqrt(vmax or v) / root + eps)
//   square_sum  the sum of the squares of all elements, in double
//
// `count` arrays of `sizes` elements each, by their addresses; all of one dtype, float32 (_f32) or
// float64 (_f64), C-contiguous. `numbers` are doubles: for sgd_step sign, lr, momentum, dampening,
// decay, nesterov, first; for adam_step sign, lr, b1, b2, eps, decay, decoupled, step, root, where
// step = lr / (1 - b1^t) and root = sqrt(1 - b2^t). buf (without momentum) and vmax may be null.
// Elements do not depend on each other, and square_sum adds blocks of fixed size in their order:
// results do not depend on the number of threads.
// Python reference: optim/sgd.py, optim/adam.py, nn/utils/clip_grad.py; each array moves once.
#include <math.h>
#include <vector>

#include "threads.h"

namespace {

constexpr long BLOCK = 16384;

// f(array, begin, end) over blocks of all the arrays.
template <class F> void blocks_in_parallel(long count, const int64_t *sizes, const F &f) {
    std::vector<long> first(size_t(count) + 1, 0);
    for (long i = 0; i < count; i++)
        first[size_t(i) + 1] = first[size_t(i)] + (sizes[i] + BLOCK - 1) / BLOCK;
    auto run = [&](long begin, long end) {
        long a = 0;
        for (long b = begin; b < end; b++) {
            while (b >= first[size_t(a) + 1]) a++;
            long from = (b - first[size_t(a)]) * BLOCK;
            f(b, a, from, from + BLOCK < sizes[a] ? from + BLOCK : long(sizes[a]));
        }
    };
    long all = first.back();
    if (all <= count) parallel_ranges(all, 64, run);    // many small arrays
    else parallel_ranges(all, 1, run);
}

inline float root(float x) { return sqrtf(x); }
inline double root(double x) { return sqrt(x); }

// The loops stand in functions of their own: there __restrict counts, and they become vectors.
template <class T>
void sgd_plain(long n, T sign, T lr, T decay, const T *__restrict d, T *__restrict w) {
    for (long i = 0; i < n; i++) w[i] -= lr * (sign * d[i] + decay * w[i]);
}
// buf = keep buf + rest g;  p -= lr (ahead g + along buf)
template <class T>
void sgd_momentum(long n, T sign, T lr, T decay, T keep, T rest, T ahead, T along,
                  const T *__restrict d, T *__restrict b, T *__restrict w) {
    for (long i = 0; i < n; i++) {
        T g = sign * d[i] + decay * w[i], m = keep * b[i] + rest * g;
        b[i] = m;
        w[i] -= lr * (ahead * g + along * m);
    }
}
template <class T>
void sgd(long count, const int64_t *sizes, T *const *p, const T *const *grad, T *const *buf,
         const double *numbers) {
    const T sign = T(numbers[0]), lr = T(numbers[1]), momentum = T(numbers[2]);
    const T rest = T(1 - numbers[3]), decay = T(numbers[4]);
    const bool nesterov = numbers[5] != 0, first = numbers[6] != 0;
    const T ahead = T(nesterov ? 1 : 0), along = nesterov ? momentum : T(1);
    blocks_in_parallel(count, sizes, [&](long, long a, long begin, long end) {
        long n = end - begin;
        T *w = p[a] + begin;
        const T *d = grad[a] + begin;
        if (!buf) return sgd_plain(n, sign, lr, decay, d, w);
        T *b = buf[a] + begin;
        if (first) memset(b, 0, size_t(n) * sizeof(T));
        T keep = first ? T(0) : momentum, add = first ? T(1) : rest;
        sgd_momentum(n, sign, lr, decay, keep, add, ahead, along, d, b, w);
    });
}

template <class T> struct Adam {
    T sign, keep, decay, rest1, b2, rest2, step, part, eps;

    template <bool AMSGRAD>
    void run(long n, const T *__restrict d, T *__restrict w, T *__restrict m, T *__restrict v,
             T *__restrict top) const {
        const Adam c = *this;
        for (long i = 0; i < n; i++) {
            T x = w[i] * c.keep, g = c.sign * d[i] + c.decay * x;
            T s = m[i] + c.rest1 * (g - m[i]), q = c.b2 * v[i] + c.rest2 * g * g;
            m[i] = s;
            v[i] = q;
            if (AMSGRAD) q = top[i] = (top[i] > q) | (top[i] != top[i]) ? top[i] : q;
            w[i] = x - c.step * s / (root(q) * c.part + c.eps);
        }
    }
};

template <class T>
void adam(long count, const int64_t *sizes, T *const *p, const T *const *grad, T *const *m,
          T *const *v, T *const *vmax, const double *numbers) {
    const bool decoupled = numbers[6] != 0;
    const T keep = T(decoupled ? 1 - numbers[1] * numbers[5] : 1);
    const T decay = T(decoupled ? 0 : numbers[5]);
    const Adam<T> rule{T(numbers[0]), keep, decay, T(1 - numbers[2]), T(numbers[3]),
                       T(1 - numbers[3]), T(numbers[7]), T(1 / numbers[8]), T(numbers[4])};
    blocks_in_parallel(count, sizes, [&](long, long a, long begin, long end) {
        long n = end - begin;
        if (vmax)
            rule.template run<true>(n, grad[a] + begin, p[a] + begin, m[a] + begin, v[a] + begin,
                                    vmax[a] + begin);
        else
            rule.template run<false>(n, grad[a] + begin, p[a] + begin, m[a] + begin, v[a] + begin,
                                     nullptr);
    });
}

template <class T> double square_sum(long count, const int64_t *sizes, const T *const *x) {
    long all = 0;
    for (long i = 0; i < count; i++) all += (sizes[i] + BLOCK - 1) / BLOCK;
    std::vector<double> sums(size_t(all) + 1);
    blocks_in_parallel(count, sizes, [&](long b, long a, long begin, long end) {
        const T *p = x[a];
        double total = 0;
        while (begin < end) {                           // short runs in T, the runs in double
            long stop = begin + 1024 < end ? begin + 1024 : end, i = begin;
            Vec<T> s = {}, t = {};
            for (; i + 2 * LANES<T> <= stop; i += 2 * LANES<T>) {
                Vec<T> u = load(p + i), w = load(p + i + LANES<T>);
                s += u * u;
                t += w * w;
            }
            double run = sum<T>(s + t);
            for (; i < stop; i++) run += double(p[i]) * double(p[i]);
            total += run;
            begin = stop;
        }
        sums[size_t(b)] = total;
    });
    double total = 0;
    for (long b = 0; b < all; b++) total += sums[size_t(b)];
    return total;
}

}  // namespace

#define DEFINE(suffix, T)                                                                          \
    EXPORT void sgd_step_##suffix(int64_t count, const int64_t *sizes, T *const *p,                \
                                  const T *const *grad, T *const *buf, const double *numbers) {    \
        sgd<T>(count, sizes, p, grad, buf, numbers);                                               \
    }                                                                                              \
    EXPORT void adam_step_##suffix(int64_t count, const int64_t *sizes, T *const *p,               \
                                   const T *const *grad, T *const *m, T *const *v,                 \
                                   T *const *vmax, const double *numbers) {                        \
        adam<T>(count, sizes, p, grad, m, v, vmax, numbers);                                       \
    }                                                                                              \
    EXPORT void square_sum_##suffix(int64_t count, const int64_t *sizes, const T *const *x,        \
                                    double *to) {                                                  \
        *to = square_sum<T>(count, sizes, x);                                                      \
    }
DEFINE(f32, float)
DEFINE(f64, double)
