// The weight and bias gradients of convolution in 1, 2 and 3 dimensions on the CPU.
//
//   conv_weight_grad  dw[co,ci,k] = sum over n,o  dy[n,co,o] * x[n,ci,o*s+k*d-p];  db = sum of dy
//
// Arrays and `shape` are those of conv.cpp; dw or db may be null.
//
// How: in units of some rows of one image, a tile of x (conv.h) and dy transposed, so that the
// output channels lie in the vector; registers hold some taps by two vectors of channels over all
// positions of a unit. With four or fewer output channels to a group (depthwise), the positions lie
// in the vector instead. Chunks of units have sums of their own, added up at the end.
//
// Units and chunks are fixed by the shapes, and so is the order of sums: results do not depend on
// the number of threads.
// Python reference: nn/conv.py; flops: 2 * N * Cout * out * Cin/groups * kernel.
#include "conv.h"

namespace {

constexpr int WR = REGISTERS == 16 ? (VECTOR_BYTES == 32 ? 6 : 5) : 12;
constexpr long WEIGHT_TASKS = 16;                       // whatever the number of threads
constexpr size_t PARTIAL_BYTES = size_t(6) << 20;

// c[M][NV vectors of output channels] += x[off[i] + position] * dy[position][NV vectors]
template <class T, int M, int NV>
void outer(const T *x, const long *off, const T *dy, long rows, long width, long step, T *c,
           long ldc) {
    Vec<T> acc[M][NV];
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < NV; j++) acc[i][j] = load(c + i * ldc + j * LANES<T>);
    }
    for (long r = 0; r < rows; r++, x += step)
        for (long q = 0; q < width; q++, dy += NV * LANES<T>) {
            Vec<T> v[NV];
            UNROLL for (int j = 0; j < NV; j++) v[j] = load(dy + j * LANES<T>);
            UNROLL for (int i = 0; i < M; i++) {
                UNROLL for (int j = 0; j < NV; j++) acc[i][j] += splat(x[off[i] + q]) * v[j];
            }
        }
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < NV; j++) store(c + i * ldc + j * LANES<T>, acc[i][j]);
    }
}
template <class T> using Outer = void (*)(const T *, const long *, const T *, long, long, long, T *,
                                          long);
template <class T, int NV, int M> Outer<T> pick_outer(long m) {
    if constexpr (M == 0) return nullptr;
    else return m == M ? outer<T, M, NV> : pick_outer<T, NV, M - 1>(m);
}

// acc[M vectors] += dy[position] * x[off[i] + position], for few output channels. Where a row ends
// inside a vector `tail` has its lanes; nothing of dy is read at or past `limit`.
template <class T, int M>
void inner(const T *x, const long *off, const T *dy, long rows, long width, long step, long dy_step,
           const Vec<T> *tail, const T *limit, Vec<T> *acc) {
    Vec<T> sums[M];
    UNROLL for (int i = 0; i < M; i++) sums[i] = acc[i];
    for (long r = 0; r < rows; r++, x += step, dy += dy_step)
        for (long q = 0; q < width; q += LANES<T>) {
            if (width - q >= LANES<T>) {
                Vec<T> v = load(dy + q);
                UNROLL for (int i = 0; i < M; i++) sums[i] += load(x + off[i] + q) * v;
            } else {
                Vec<T> v = {};
                if (limit - (dy + q) >= LANES<T>) v = keep(load(dy + q), *tail);
                else for (long j = 0; j < width - q; j++) v[j] = dy[q + j];
                UNROLL for (int i = 0; i < M; i++)
                    sums[i] += keep(load(x + off[i] + q), *tail) * v;
            }
        }
    UNROLL for (int i = 0; i < M; i++) acc[i] = sums[i];
}
template <class T> using Inner = void (*)(const T *, const long *, const T *, long, long, long,
                                          long, const Vec<T> *, const T *, Vec<T> *);
template <class T, int M> Inner<T> pick_inner(long m) {
    if constexpr (M == 0) return nullptr;
    else return m == M ? inner<T, M> : pick_inner<T, M - 1>(m);
}

template <class T> struct WeightGrad {
    const Shape &s;
    const Axis *axes;
    const T *x, *dy;
    long channels = s.cin / s.groups, rows = s.cout / s.groups;
    long taps = s.kernel[0] * s.kernel[1] * s.kernel[2], depth = channels * taps;
    long in = s.in[0] * s.in[1] * s.in[2], out = s.out[0] * s.out[1] * s.out[2];
    bool few = rows <= 4;                               // sums along rows: no vector of channels
    int vectors = rows > LANES<T> ? 2 : 1;
    long wide = vectors * LANES<T>, padded = few ? rows : (rows + wide - 1) / wide * wide;
    long parts[3], units, chunks, channel_parts;

    WeightGrad(const Shape &s, const Axis *axes, const T *x, const T *dy)
        : s(s), axes(axes), x(x), dy(dy) {
        parts[0] = s.out[0];
        parts[2] = (s.out[2] + 511) / 512;
        parts[1] = std::min(s.out[1], (s.out[1] * s.out[2] / parts[2] + 255) / 256);
        units = s.n * parts[0] * parts[1] * parts[2];
        size_t partial = sizeof(T) * size_t(s.groups * depth * padded);
        chunks = std::min({units, WEIGHT_TASKS, std::max(1L, long(PARTIAL_BYTES / partial))});
        if (s.groups >= WEIGHT_TASKS) chunks = std::min(chunks, 2L);
        channel_parts = std::min((channels + 15) / 16,
                                 (WEIGHT_TASKS + chunks * s.groups - 1) / (chunks * s.groups));
    }

    void operator()(T *dw) const {
        size_t size = size_t(s.groups * depth * padded);
        Scratch memory(0, sizeof(T) * size * size_t(chunks));
        T *partial = memory.as<T>();
        parallel(chunks * s.groups * channel_parts, [&](long task) {
            long chunk = task % chunks, g = task / chunks % s.groups;
            Range c = part(channels, channel_parts, task / chunks / s.groups);
            T *to = partial + chunk * long(size) + g * depth * padded;
            if (few) along_rows(part(units, chunks, chunk), g, c, to);
            else across_channels(part(units, chunks, chunk), g, c, to + c.begin * taps * padded);
        });
        if (few) {
            parallel_ranges(long(size), 4096, [&](long begin, long end) {
                for (long i = begin; i < end; i++) {
                    T total = partial[i];
                    for (long p = 1; p < chunks; p++) total += partial[p * long(size) + i];
                    dw[i] = total;
                }
            });
            return;
        }
        long blocks = padded / LANES<T>;
        auto reduce = [&](long job) {
            long g = job / blocks, m = job % blocks * LANES<T>;
            for (long k = 0; k < depth; k++) {
                const T *from = partial + (g * depth + k) * padded + m;
                Vec<T> total = load(from);
                for (long p = 1; p < chunks; p++) total += load(from + p * long(size));
                for (long j = 0; j < LANES<T> && m + j < rows; j++)
                    dw[(g * rows + m + j) * depth + k] = total[j];
            }
        };
        if (size > 16384) parallel(s.groups * blocks, reduce);
        else for (long job = 0; job < s.groups * blocks; job++) reduce(job);
    }

    // Unit u: an image (the fastest) and the tile of positions.
    Layout tile(long u) const {
        Range t[3];
        u /= s.n;
        for (int i = 2; i >= 0; i--, u /= parts[i + 1])
            t[i] = part(axes[i].positions, parts[i], u % parts[i]);
        return Layout(axes, t);
    }
    const T *grad(const Layout &lay, long u, long g) const {
        return dy + ((u % s.n) * s.groups + g) * rows * out +
               (lay.t[0].begin * s.out[1] + lay.t[1].begin) * s.out[2] + lay.t[2].begin;
    }

    template <class F> void each_unit(Range u, long g, Range c, const F &f) const {
        for (long i = u.begin; i < u.end;) {
            Layout lay = tile(i);
            std::vector<long> off = lay.offsets(axes, c.size());
            Rows fills(axes, lay);
            Scratch memory(1, sizeof(T) * size_t(c.size() * lay.channel + 8 * LANES<T>));
            for (long same = i / s.n; i < u.end && i / s.n == same; i++) {
                fill(fills, lay, x + (i % s.n * s.cin + g * channels + c.begin) * in, c.size(),
                     x + s.n * s.cin * in, memory.as<T>());
                f(lay, off, memory.as<T>(), grad(lay, i, g));
            }
        }
    }

    // c[channel, tap][padded]
    void across_channels(Range u, long g, Range c, T *to) const {
        std::fill(to, to + c.size() * taps * padded, T(0));
        each_unit(u, g, c, [&](const Layout &lay, const std::vector<long> &off, const T *tile,
                               const T *from) {
            long height = lay.t[1].size(), width = lay.t[2].size(), list = c.size() * taps;
            Scratch memory(2, sizeof(T) * size_t(height * width * wide));
            long panels = (list + WR - 1) / WR;
            for (long m = 0; m < padded; m += wide) {
                turn(from + m * out, std::min(wide, rows - m), height, width, memory.as<T>());
                for (long i = 0; i < panels; i++) {
                    Range r = part(list, panels, i);
                    auto kernel = vectors == 2 ? pick_outer<T, 2, WR>(r.size())
                                               : pick_outer<T, 1, WR>(r.size());
                    kernel(tile, off.data() + r.begin, memory.as<T>(), height, width, lay.row,
                           to + r.begin * padded + m, padded);
                }
            }
        });
    }

    // dy[channel][row][position] to [row][position][channel]
    void turn(const T *from, long count, long height, long width, T *to) const {
        if (count < wide) std::fill(to, to + height * width * wide, T(0));
        if (width == s.out[2]) width *= height, height = 1;
        for (long h = 0; h < height; h++, from += s.out[2], to += width * wide)
            transpose(from, out, count, width, to, wide);
    }

    // to[output channel][channel, tap]
    void along_rows(Range u, long g, Range c, T *to) const {
        constexpr int B = REGISTERS == 16 ? 9 : 16;
        long list = c.size() * taps, panels = (list + B - 1) / B;
        std::vector<Vec<T>> sums(size_t(rows * list), Vec<T>{});
        each_unit(u, g, c, [&](const Layout &lay, const std::vector<long> &off, const T *tile,
                               const T *from) {
            Vec<T> tail = tail_mask<T>(lay.t[2].size() % LANES<T>);
            for (long m = 0; m < rows; m++)
                for (long i = 0; i < panels; i++) {
                    Range r = part(list, panels, i);
                    pick_inner<T, B>(r.size())(tile, off.data() + r.begin, from + m * out,
                                               lay.t[1].size(), lay.t[2].size(), lay.row,
                                               s.out[2], &tail, dy + s.n * s.cout * out,
                                               &sums[size_t(m * list + r.begin)]);
                }
        });
        for (long m = 0; m < rows; m++)
            for (long i = 0; i < list; i++)
                to[m * depth + c.begin * taps + i] = sum<T>(sums[size_t(m * list + i)]);
    }
};

template <class T>
void weight_grad(const Shape &s, const T *x, const T *dy, T *dw, T *db) {
    Axis axes[3];
    forward_axes(s, axes);
    if (dw) WeightGrad<T>(s, axes, x, dy)(dw);
    long out = s.out[0] * s.out[1] * s.out[2];
    if (!db) return;
    parallel_ranges(s.cout, 1 + 16384 / (s.n * out + 1), [&](long begin, long end) {
        for (long c = begin; c < end; c++) {
            double total = 0;
            for (long n = 0; n < s.n; n++) total += plane_sum(dy + (n * s.cout + c) * out, out);
            db[c] = T(total);
        }
    });
}

}  // namespace

#define DEFINE(suffix, T)                                                                          \
    EXPORT void conv_weight_grad_##suffix(const int64_t *shape, const T *x, const T *dy, T *dw,    \
                                          T *db) {                                                 \
        Shape s;                                                                                   \
        std::copy(shape, shape + 22, reinterpret_cast<long *>(&s));                                \
        weight_grad<T>(s, x, dy, dw, db);                                                          \
    }
DEFINE(f32, float)
DEFINE(f64, double)
