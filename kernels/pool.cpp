// Max and average pooling in 1, 2 and 3 dimensions, forward and backward.
//
//   max_pool_forward    y = greatest x of the window, index = its place in the plane
//   max_pool_backward   dx[index] += dy
//   avg_pool_forward    y = sum of the window / divisor
//   avg_pool_backward   dx[each of the window] += dy / divisor
//
// x and dx are (planes, *in), y and dy (planes, *out), index int64 (planes, *out); C-contiguous,
// float32 (_f32) or float64 (_f64). `shape` is 19 int64: planes, then three each of in, out,
// kernel, stride, padding, dilation; unused leading dimensions are 1, 1, 1, 1, 0, 1. The padding is
// -inf for the maximum and 0 for the average. As in PyTorch, of equal values the first counts, of
// NaNs the last, and a window of -inf gives its first place. The divisor is the window's size: with
// the padding (mode 1) or without (mode 0), or `divisor` where that is not 0; what lies past the
// right padding, as ceil_mode can ask for, never counts. max_pool_forward's y or index may be null.
// A plane is one thread's: results do not depend on the number of threads.
// Python reference: nn/pool.py; reads and writes each array once.
#include <algorithm>
#include <math.h>
#include <vector>

#include "threads.h"

namespace {

struct Shape {
    long planes, in[3], out[3], kernel[3], stride[3], pad[3], dilation[3];
    explicit Shape(const int64_t *s) { std::copy(s, s + 19, &planes); }
    long in_size() const { return in[0] * in[1] * in[2]; }
    long out_size() const { return out[0] * out[1] * out[2]; }

    // The taps k of output o along axis i that lie inside the input: [first, last).
    void taps(int i, long o, long &first, long &last) const {
        long at = o * stride[i] - pad[i], d = dilation[i];
        first = at >= 0 ? 0 : (-at + d - 1) / d;
        last = std::min(kernel[i], at >= in[i] ? 0 : (in[i] - at + d - 1) / d);
    }
    // The outputs o of tap k along axis i that lie inside the input: [first, last).
    void outputs(int i, long k, long &first, long &last) const {
        long at = k * dilation[i] - pad[i], s = stride[i];
        first = at >= 0 ? 0 : (-at + s - 1) / s;
        last = std::min(out[i], at >= in[i] ? 0 : (in[i] - at + s - 1) / s);
    }
};

template <class F> void planes_in_parallel(const Shape &s, const F &f) {
    parallel_ranges(s.planes, 1 + 8192 / (s.in_size() + s.out_size() + 1), f);
}

// Calls f(row of outputs, row of inputs) for every pair of rows that a window joins, row by row of
// the output: begin(row) before the first of them and end(row) after the last.
template <class B, class F, class E>
void each_row(const Shape &s, const B &begin, const F &f, const E &end) {
    for (long od = 0; od < s.out[0]; od++)
        for (long oh = 0; oh < s.out[1]; oh++) {
            long d0, d1, h0, h1, row = od * s.out[1] + oh;
            s.taps(0, od, d0, d1);
            s.taps(1, oh, h0, h1);
            begin(row, d0, h0);
            for (long d = d0; d < d1; d++)
                for (long h = h0; h < h1; h++)
                    f(row, (od * s.stride[0] - s.pad[0] + d * s.dilation[0]) * s.in[1] +
                               oh * s.stride[1] - s.pad[1] + h * s.dilation[1]);
            end(row);
        }
}

// best, place = the greater of itself and x, whose places are at, at + step, ...
template <long STEP, class T, class I>
void take_greater(const T *__restrict x, long n, long any_step, I at, T *__restrict best,
                  I *__restrict place) {
    const long step = STEP ? STEP : any_step;
    for (long i = 0; i < n; i++) {
        T v = x[i * step], b = best[i];
        bool take = (v > b) | (v != v);
        best[i] = take ? v : b;
        place[i] = take ? I(at + I(i) * I(step)) : place[i];
    }
}

template <class T, class I>
void max_pool_plane(const Shape &s, const T *x, T *y, int64_t *index, std::vector<T> &best,
                    std::vector<I> &place) {
    long width = s.out[2], step = s.stride[2];
    auto begin = [&](long row, long d0, long h0) {
        long od = row / s.out[1], oh = row % s.out[1];
        long first = ((od * s.stride[0] - s.pad[0] + d0 * s.dilation[0]) * s.in[1] +
                      oh * s.stride[1] - s.pad[1] + h0 * s.dilation[1]) * s.in[2];
        for (long i = 0; i < width; i++) {
            long k, last;
            s.taps(2, i, k, last);
            best[size_t(i)] = -T(INFINITY);
            place[size_t(i)] = I(first + i * step - s.pad[2] + k * s.dilation[2]);
        }
    };
    auto join = [&](long, long in_row) {
        for (long k = 0; k < s.kernel[2]; k++) {
            long first, last;
            s.outputs(2, k, first, last);
            long at = in_row * s.in[2] + first * step - s.pad[2] + k * s.dilation[2];
            if (last <= first) continue;
            auto take = step == 1 ? take_greater<1, T, I>
                        : step == 2 ? take_greater<2, T, I> : take_greater<0, T, I>;
            take(x + at, last - first, step, I(at), &best[size_t(first)], &place[size_t(first)]);
        }
    };
    auto end = [&](long row) {
        if (y) std::copy(best.begin(), best.begin() + width, y + row * width);
        if (index) std::copy(place.begin(), place.begin() + width, index + row * width);
    };
    each_row(s, begin, join, end);
}

template <class T> void max_pool(const Shape &s, const T *x, T *y, int64_t *index) {
    bool small = s.in_size() < (1L << 31) && sizeof(T) == 4;
    planes_in_parallel(s, [&](long first, long last) {
        std::vector<T> best(size_t(s.out[2] + 1));
        std::vector<int32_t> place32(size_t(s.out[2] + 1));
        std::vector<int64_t> place64(size_t(s.out[2] + 1));
        for (long p = first; p < last; p++) {
            const T *from = x + p * s.in_size();
            T *to = y ? y + p * s.out_size() : nullptr;
            int64_t *at = index ? index + p * s.out_size() : nullptr;
            if (small) max_pool_plane<T, int32_t>(s, from, to, at, best, place32);
            else max_pool_plane<T, int64_t>(s, from, to, at, best, place64);
        }
    });
}

template <class T> void max_pool_grad(const Shape &s, const T *dy, const int64_t *index, T *dx) {
    long in = s.in_size(), out = s.out_size();
    planes_in_parallel(s, [&](long first, long last) {
        for (long p = first; p < last; p++) {
            memset(dx + p * in, 0, size_t(in) * sizeof(T));
            for (long i = p * out; i < (p + 1) * out; i++)
                if (uint64_t(index[i]) < uint64_t(in)) dx[p * in + index[i]] += dy[i];
        }
    });
}

// What the sum of a window is divided by: the product of its extents along the axes.
struct Divisor {
    const Shape &s;
    bool padded;
    long fixed;
    long extent(int i, long o) const {
        long at = o * s.stride[i] - s.pad[i], end = std::min(at + s.kernel[i], s.in[i] + s.pad[i]);
        return padded ? end - at : std::min(end, s.in[i]) - std::max(at, 0L);
    }
    // For a row of outputs, with the last axis' extents given.
    template <class T> void row(long row, const std::vector<T> &last, std::vector<T> &to) const {
        T rest = T(extent(0, row / s.out[1]) * extent(1, row % s.out[1]));
        for (size_t i = 0; i < last.size(); i++) to[i] = fixed ? T(fixed) : rest * last[i];
    }
    template <class T> std::vector<T> last() const {
        std::vector<T> extents;
        for (long o = 0; o < s.out[2]; o++) extents.push_back(T(extent(2, o)));
        return extents;
    }
};

template <long STEP, class T>
void add_strided(const T *__restrict x, long n, long any_step, T *__restrict to) {
    const long step = STEP ? STEP : any_step;
    for (long i = 0; i < n; i++) to[i] += x[i * step];
}
template <long STEP, class T>
void spread_strided(const T *__restrict g, long n, long any_step, T *__restrict to) {
    const long step = STEP ? STEP : any_step;
    for (long i = 0; i < n; i++) to[i * step] += g[i];
}

template <class T> void avg_pool(const Shape &s, const Divisor &divisor, const T *x, T *y) {
    long width = s.out[2], step = s.stride[2];
    std::vector<T> last = divisor.last<T>();
    planes_in_parallel(s, [&](long first, long end) {
        std::vector<T> by(size_t(width), T(1));
        for (long p = first; p < end; p++) {
            const T *from = x + p * s.in_size();
            T *to = y + p * s.out_size();
            auto begin = [&](long row, long, long) { std::fill_n(to + row * width, width, T(0)); };
            auto join = [&](long row, long in_row) {
                for (long k = 0; k < s.kernel[2]; k++) {
                    long o0, o1;
                    s.outputs(2, k, o0, o1);
                    if (o1 <= o0) continue;
                    auto add = step == 1 ? add_strided<1, T>
                               : step == 2 ? add_strided<2, T> : add_strided<0, T>;
                    add(from + in_row * s.in[2] + o0 * step - s.pad[2] + k, o1 - o0, step,
                        to + row * width + o0);
                }
            };
            auto divide = [&](long row) {
                divisor.row(row, last, by);
                for (long i = 0; i < width; i++) to[row * width + i] /= by[size_t(i)];
            };
            each_row(s, begin, join, divide);
        }
    });
}

template <class T> void avg_pool_grad(const Shape &s, const Divisor &divisor, const T *dy, T *dx) {
    long width = s.out[2], step = s.stride[2];
    std::vector<T> last = divisor.last<T>();
    planes_in_parallel(s, [&](long first, long end) {
        std::vector<T> g(size_t(width), T(1));
        for (long p = first; p < end; p++) {
            const T *from = dy + p * s.out_size();
            T *to = dx + p * s.in_size();
            memset(to, 0, size_t(s.in_size()) * sizeof(T));
            auto begin = [&](long row, long, long) {
                divisor.row(row, last, g);
                const T *d = from + row * width;
                for (long i = 0; i < width; i++) g[size_t(i)] = d[i] / g[size_t(i)];
            };
            auto join = [&](long, long in_row) {
                for (long k = 0; k < s.kernel[2]; k++) {
                    long o0, o1;
                    s.outputs(2, k, o0, o1);
                    if (o1 <= o0) continue;
                    auto spread = step == 1 ? spread_strided<1, T>
                                  : step == 2 ? spread_strided<2, T> : spread_strided<0, T>;
                    spread(&g[size_t(o0)], o1 - o0, step,
                           to + in_row * s.in[2] + o0 * step - s.pad[2] + k);
                }
            };
            each_row(s, begin, join, [](long) {});
        }
    });
}

}  // namespace

#define DEFINE(suffix, T)                                                                          \
    EXPORT void max_pool_forward_##suffix(const int64_t *shape, const T *x, T *y,                  \
                                          int64_t *index) {                                        \
        max_pool<T>(Shape(shape), x, y, index);                                                    \
    }                                                                                              \
    EXPORT void max_pool_backward_##suffix(const int64_t *shape, const T *dy,                      \
                                           const int64_t *index, T *dx) {                          \
        max_pool_grad<T>(Shape(shape), dy, index, dx);                                             \
    }                                                                                              \
    EXPORT void avg_pool_forward_##suffix(const int64_t *shape, const T *x, int64_t mode,          \
                                          int64_t divisor, T *y) {                                 \
        Shape s(shape);                                                                            \
        avg_pool<T>(s, Divisor{s, mode == 1, long(divisor)}, x, y);                                \
    }                                                                                              \
    EXPORT void avg_pool_backward_##suffix(const int64_t *shape, const T *dy, int64_t mode,        \
                                           int64_t divisor, T *dx) {                               \
        Shape s(shape);                                                                            \
        avg_pool_grad<T>(s, Divisor{s, mode == 1, long(divisor)}, dy, dx);                         \
    }
DEFINE(f32, float)
DEFINE(f64, double)
