// Recurrent layers on the CPU: a layer in one direction over whole sequences, and single steps.
//
//   lstm_layer_forward, gru_layer_forward, rnn_layer_forward      all steps
//   lstm_layer_backward, gru_layer_backward, rnn_layer_backward   all steps, from the last
//   lstm_step_forward, gru_step_forward, lstm_step_backward, gru_step_backward   point-wise only
//   gates   y (rows, n) = x (rows, depth) w^T + bias, for few rows: w (n, depth) is read in place
//
// Sequences are packed: starts[t] is the first row of step t, starts[steps] all rows, and no step
// has more rows than the one before; row r of a step belongs to sequence r. Arrays are contiguous,
// float32 (_f32) or float64 (_f64); n is the size of a state, G the number of gates. gi (rows, G n)
// are the inputs' products, w (G n, n) the recurrent weights, bias what is added to the gates, or
// null. States hs and cs (batch + rows, n) begin with the first ones. acts is for the gradient:
//   lstm  i, f, o = sigmoid, g = tanh;  c' = f c + i g;  h' = o tanh(c').  acts (rows, 4 n): i, f,
//         g, o; may be gi.  bias (4 n)
//   gru   r, z = sigmoid, m = tanh(gi_m + r gh_m);  h' = (1 - z) m + z h.  acts (rows, 4 n): r, z,
//         m, gh_m.  bias (4 n): of r and z, of gi_m, of gh_m
//   rnn   h' = tanh(gi + gh), or relu.  bias (n)
// Backward: dh and dc (batch, n) hold the last states' gradients and receive the first's; dout
// (rows, n) or null; d, `pitch` numbers from row to row, receives the gates' gradients: lstm (4 n)
// in their order, gru (4 n) those of gi_m, r, z, gh_m, rnn (n); db (parts, 4 n or n) the sums of
// its rows over all steps and the PART sequences of each part, for the caller to add up.
//
// How: the weights are packed once into panels of vectors. Sequences do not meet, so each thread
// takes some through all steps, with nothing to wait for: for a block of units, a product with the
// old states into a small tile, then the point-wise part on it while it is in the cache.
// Sums have an order that the sizes fix: results do not depend on the number of threads.
// Python reference: nn/rnn_sequence.py, nn/rnn_step.py; flops: 2 * rows * G * n * n for each.
#include <algorithm>

#include "threads.h"
#include "vmath.h"

namespace {

constexpr long PART = 4;                                // sequences of a part of db
constexpr long MOST = 48;                               // rows of a task, at most
constexpr long SMALL = 1 << 18;                         // multiplications not worth a thread
constexpr int WIDE = REGISTERS == 32 ? 4 : 2;
template <int NV> constexpr int MR = (REGISTERS == 32 ? 24 : 12) / NV;
template <int NV> constexpr long KC = (24 << 10) / (NV * VECTOR_BYTES);  // a panel's part in L1

// c[M][NV vectors] (+)= a[M][kc] * b[kc][NV vectors]
template <class T, int NV, int M>
void block(const T *a, long lda, const T *b, long kc, T *c, long ldc, bool add) {
    Vec<T> acc[M][NV];
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < NV; j++) acc[i][j] = Vec<T>{};
    }
    for (long k = 0; k < kc; k++, b += NV * LANES<T>) {
        Vec<T> v[NV];
        UNROLL for (int j = 0; j < NV; j++) v[j] = load(b + j * LANES<T>);
        UNROLL for (int i = 0; i < M; i++) {
            UNROLL for (int j = 0; j < NV; j++) acc[i][j] += splat(a[i * lda + k]) * v[j];
        }
    }
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < NV; j++) {
            T *p = c + i * ldc + j * LANES<T>;
            store(p, add ? load(p) + acc[i][j] : acc[i][j]);
        }
    }
}
template <class T, int NV, int M = MR<NV>>
void pick(long m, const T *a, long lda, const T *b, long kc, T *c, long ldc, bool add) {
    if constexpr (M > 1)
        if (m < M) return pick<T, NV, M - 1>(m, a, lda, b, kc, c, ldc, add);
    block<T, NV, M>(a, lda, b, kc, c, ldc, add);
}

// Weights as panels: a block of U * LANES units has G * U vectors of columns, NV to a panel, each
// panel [k][NV vectors]; zeros past the last unit.
template <class T, int G, int U, int NV> struct Weights {
    static constexpr int V = G * U;
    static_assert(V % NV == 0, "whole panels");
    long n, depth, blocks;
    Scratch memory;
    T *b;

    // Column q of gate g at k is w[(g n + q) depth + k], or w[k n + q] (one gate) if `rows`.
    Weights(const T *w, long n, long depth, bool rows)
        : n(n), depth(depth), blocks((n + U * LANES<T> - 1) / (U * LANES<T>)),
          memory(0, sizeof(T) * size_t(blocks * V * LANES<T> * depth)), b(memory.as<T>()) {
        auto pack = [&](long u) {
            for (int v = 0; v < V; v++) {
                long unit = (u * U + v % U) * LANES<T>, lanes = std::min(LANES<T>, n - unit);
                T *to = b + (u * V + v / NV * NV) * depth * LANES<T> + v % NV * LANES<T>;
                if (lanes < LANES<T>)
                    for (long k = 0; k < depth; k++) store(to + k * NV * LANES<T>, Vec<T>{});
                if (lanes <= 0) continue;
                const T *from = rows ? w + unit : w + (v / U * n + unit) * depth;
                if (!rows) transpose(from, depth, lanes, depth, to, NV * LANES<T>);
                else for (long k = 0; k < depth; k++)
                    for (long i = 0; i < lanes; i++) to[k * NV * LANES<T> + i] = from[k * n + i];
            }
        };
        if (n * depth * G > SMALL) parallel(blocks, pack);
        else for (long u = 0; u < blocks; u++) pack(u);
    }

    // tile[rows][V vectors] = a[rows][depth] * block u
    void multiply(long u, const T *a, long lda, long rows, T *tile) const {
        long pieces = (rows + MR<NV> - 1) / MR<NV>;
        for (int q = 0; q < V; q += NV)
            for (long k = 0; k < depth; k += KC<NV>)
                for (long i = 0; i < pieces; i++) {
                    long begin = rows * i / pieces, end = rows * (i + 1) / pieces;
                    pick<T, NV>(end - begin, a + begin * lda + k, lda,
                                b + ((u * V + q) * depth + k * NV) * LANES<T>,
                                std::min(KC<NV>, depth - k),
                                tile + (begin * V + q) * LANES<T>, V * LANES<T>, k > 0);
                }
    }
};

struct Steps {
    long batch, count;
    const int64_t *starts;
    long size(long t) const { return long(starts[t + 1] - starts[t]); }
    long old(long t) const { return t ? batch + long(starts[t - 1]) : 0; }
    // Of the sequences [begin, end), how many have a step t.
    long rows(long t, long begin, long end) const {
        return t < count ? std::max(0L, std::min(end, size(t)) - begin) : 0;
    }

    // f(begin, end) for ranges of sequences, each whole parts.
    template <class F> void share(long work, const F &f) const {
        long parts = (batch + PART - 1) / PART, least = (batch + MOST - 1) / MOST;
        long threads = work < SMALL ? 1 : thread_count();
        bool even = size(count - 1) == batch;           // else the ranges are not of one length
        long wish = (least + threads - 1) / threads * threads * (even || threads == 1 ? 1 : 2);
        long n = std::min(parts, wish);
        auto run = [&](long i) {
            f(parts * i / n * PART, std::min(batch, parts * (i + 1) / n * PART));
        };
        if (threads > 1) parallel(n, run);
        else for (long i = 0; i < n; i++) run(i);
    }
};

// The lanes of a vector that there are.
struct Some {
    long lanes;
    template <class T> Vec<T> get(const T *p) const {
        if (lanes == LANES<T>) return load(p);
        T all[LANES<T>] = {};
        for (long i = 0; i < lanes; i++) all[i] = p[i];
        return load(all);
    }
    template <class T> void put(T *p, Vec<T> v) const { store_some(p, v, lanes); }
};

template <class T> inline Vec<T> sigmoid(Vec<T> x) {
    constexpr T far = sizeof(T) == 4 ? 87 : 708;        // from there on no number is left, or 1
    IVec<T> k;
    Vec<T> p = exp_series<T>(reduce<T>(clamp<T>(-x, -far, far), k), 0);
    return T(1) / (T(1) + p * power_of_two<T>(k));
}

// The cells. step: units [j, ...) of a row whose old state is row `old`, with the old state's part
// of the gates at gh[g * apart]. back: the gates' gradients to d.at[...] + j and added to total, from
// g, the gradient of the new state; returns that of the old state that is not through the gates.
template <class T> struct To { T *at[4]; };

template <class T> struct Lstm {
    static constexpr int G = 4, U = 1, NV = WIDE, SUMS = 4;
    long n;
    const T *gi, *bias, *c_old;
    T *c_new, *h_new, *acts, *dc;

    void step(long row, long old, long j, Some at, const T *gh, long apart) const {
        Vec<T> x[4];
        for (int g = 0; g < 4; g++) {
            x[g] = at.get(gi + (row * 4 + g) * n + j) + at.get(gh + g * apart);
            if (bias) x[g] += at.get(bias + g * n + j);
            x[g] = g == 2 ? vtanh<T>(x[g]) : sigmoid<T>(x[g]);
            if (acts) at.put(acts + (row * 4 + g) * n + j, x[g]);
        }
        Vec<T> c = x[1] * at.get(c_old + old * n + j) + x[0] * x[2];
        at.put<T>(c_new + row * n + j, c);
        at.put<T>(h_new + row * n + j, x[3] * vtanh<T>(c));
    }
    Vec<T> back(long row, long old, long r, long j, Some at, Vec<T> g, To<T> d,
                Vec<T> *total) const {
        const T *p = acts + row * 4 * n + j;
        Vec<T> i = at.get(p), f = at.get(p + n), m = at.get(p + 2 * n), o = at.get(p + 3 * n);
        Vec<T> t = vtanh<T>(at.get<T>(c_new + row * n + j)), c = at.get(c_old + old * n + j);
        Vec<T> dcell = g * o * (T(1) - t * t) + at.get<T>(dc + r * n + j);
        at.put<T>(dc + r * n + j, dcell * f);
        Vec<T> x[4] = {dcell * m * i * (T(1) - i), dcell * c * f * (T(1) - f),
                       dcell * i * (T(1) - m * m), g * t * o * (T(1) - o)};
        for (int q = 0; q < 4; q++) at.put(d.at[q] + j, x[q]), total[q] += x[q];
        return Vec<T>{};
    }
};

template <class T> struct Gru {
    static constexpr int G = 3, U = 1, NV = 3, SUMS = 4;
    long n;
    const T *gi, *bias, *h_old;
    T *h_new, *acts;

    void step(long row, long old, long j, Some at, const T *gh, long apart) const {
        const T *p = gi + row * 3 * n + j;
        Vec<T> x[4] = {at.get(p) + at.get(gh), at.get(p + n) + at.get(gh + apart),
                       at.get(p + 2 * n), at.get(gh + 2 * apart)};
        if (bias)
            for (int g = 0; g < 4; g++) x[g] += at.get(bias + g * n + j);
        x[0] = sigmoid<T>(x[0]), x[1] = sigmoid<T>(x[1]), x[2] = vtanh<T>(x[2] + x[0] * x[3]);
        if (acts)
            for (int g = 0; g < 4; g++) at.put(acts + (row * 4 + g) * n + j, x[g]);
        at.put<T>(h_new + row * n + j, x[2] + x[1] * (at.get(h_old + old * n + j) - x[2]));
    }
    Vec<T> back(long row, long old, long, long j, Some at, Vec<T> g, To<T> d,
                Vec<T> *total) const {
        const T *p = acts + row * 4 * n + j;
        Vec<T> r = at.get(p), z = at.get(p + n), m = at.get(p + 2 * n), part = at.get(p + 3 * n);
        Vec<T> dm = (T(1) - m * m) * (T(1) - z) * g;
        Vec<T> dz = (T(1) - z) * z * (at.get(h_old + old * n + j) - m) * g;
        Vec<T> x[4] = {dm, (T(1) - r) * r * part * dm, dz, dm * r};
        for (int q = 0; q < 4; q++) at.put(d.at[q] + j, x[q]), total[q] += x[q];
        return g * z;
    }
};

template <class T> struct Plain {
    static constexpr int G = 1, U = 2, NV = 2, SUMS = 1;
    long n;
    const T *gi, *bias;
    T *h_new;
    bool relu;

    void step(long row, long, long j, Some at, const T *gh, long) const {
        Vec<T> x = at.get(gi + row * n + j) + at.get(gh);
        if (bias) x += at.get(bias + j);
        x = !relu ? vtanh<T>(x) : x < T(0) ? splat(T(0)) : x;
        at.put(h_new + row * n + j, x);
    }
    Vec<T> back(long row, long, long, long j, Some at, Vec<T> g, To<T> d,
                Vec<T> *total) const {
        Vec<T> h = at.get<T>(h_new + row * n + j);
        Vec<T> slope = !relu ? T(1) - h * h : h > T(0) ? splat(T(1)) : splat(T(0)), x = slope * g;
        at.put(d.at[0] + j, x), total[0] += x;
        return Vec<T>{};
    }
};

// f(v, j, lanes there are) for each vector of units of a block.
template <class T, int U, class F> void units(long u, long n, const F &f) {
    for (int v = 0; v < U; v++) {
        long j = (u * U + v) * LANES<T>;
        if (j < n) f(v, j, Some{std::min(LANES<T>, n - j)});
    }
}

template <class T, class Cell>
void forward(const Steps &s, const Cell &cell, const T *w, const T *hs) {
    constexpr int G = Cell::G, U = Cell::U;
    const long n = cell.n;
    Weights<T, G, U, Cell::NV> weights(w, n, n, false);
    s.share(s.starts[s.count] * G * n * n, [&](long begin, long end) {
        Scratch memory(1, sizeof(T) * size_t((end - begin) * G * U * LANES<T>));
        T *tile = memory.as<T>();
        for (long t = 0, rows; (rows = s.rows(t, begin, end)) > 0; t++) {
            long first = s.starts[t] + begin, old = s.old(t) + begin;
            for (long u = 0; u < weights.blocks; u++) {
                weights.multiply(u, hs + old * n, n, rows, tile);
                units<T, U>(u, n, [&](int v, long j, Some at) {
                    for (long r = 0; r < rows; r++)
                        cell.step(first + r, old + r, j, at, tile + (r * G * U + v) * LANES<T>,
                                  U * LANES<T>);
                });
            }
        }
    });
}

// The recurrent part of d begins with column `skip`.
template <class T, class Cell>
void backward(const Steps &s, const Cell &cell, const T *w, const T *dout, T *dh, T *d, long pitch,
              long skip, T *db) {
    constexpr int U = 2, SUMS = Cell::SUMS;
    const long n = cell.n;
    Weights<T, 1, U, U> weights(w, n, Cell::G * n, true);
    std::fill(db, db + (s.batch + PART - 1) / PART * SUMS * n, T(0));
    s.share(s.starts[s.count] * Cell::G * n * n, [&](long begin, long end) {
        Scratch memory(1, sizeof(T) * size_t((end - begin) * U * LANES<T>));
        T *tile = memory.as<T>();
        for (long t = s.count - 1; t >= -1; t--) {      // -1: the first states
            long rows = t < 0 ? end - begin : s.rows(t, begin, end);
            long later = s.rows(t + 1, begin, end), first = (t < 0 ? 0 : s.starts[t]) + begin;
            long old = t < 0 ? 0 : s.old(t) + begin;
            const T *from = d + (s.starts[t + 1] + begin) * pitch + skip;
            for (long u = 0; rows > 0 && u < weights.blocks; u++) {
                if (later) weights.multiply(u, from, pitch, later, tile);
                units<T, U>(u, n, [&](int v, long j, Some at) {
                    Vec<T> total[SUMS] = {};
                    for (long r = 0; r < rows; r++) {
                        T *own = dh + (begin + r) * n + j;
                        Vec<T> g = at.get<T>(own);
                        if (r < later) g += load(tile + (r * U + v) * LANES<T>);
                        if (t < 0) {
                            at.put(own, g);
                            continue;
                        }
                        if (dout) g += at.get(dout + (first + r) * n + j);
                        T *to = d + (first + r) * pitch;
                        g = cell.back(first + r, old + r, begin + r, j, at, g,
                                      To<T>{{to, to + n, to + 2 * n, to + 3 * n}}, total);
                        at.put(own, g);
                        if ((r + 1) % PART && r + 1 < rows) continue;
                        T *sums = db + (begin + r) / PART * SUMS * n + j;
                        for (int q = 0; q < SUMS; q++, sums += n) {
                            at.put<T>(sums, at.get<T>(sums) + total[q]);
                            total[q] = Vec<T>{};
                        }
                    }
                });
            }
        }
    });
}

// x is what is packed, and the tile the transpose of y's: w, read once, needs no copy.
template <class T>
void gates(long rows, long n, long depth, const T *x, const T *w, const T *bias, T *y) {
    constexpr long U = 2, WIDTH = U * LANES<T>;
    Weights<T, 1, U, U> panels(x, rows, depth, false);
    auto run = [&](long i) {
        Scratch memory(1, sizeof(T) * size_t(MOST * WIDTH));
        T *tile = memory.as<T>();
        long begin = i * MOST, count = std::min(MOST, n - begin);
        for (long u = 0; u < panels.blocks; u++) {
            panels.multiply(u, w + begin * depth, depth, count, tile);
            for (long j = 0; bias && j < count; j++)
                for (long v = 0; v < WIDTH; v += LANES<T>)
                    store(tile + j * WIDTH + v, load(tile + j * WIDTH + v) + bias[begin + j]);
            transpose(tile, WIDTH, count, std::min(WIDTH, rows - u * WIDTH),
                      y + u * WIDTH * n + begin, n);
        }
    };
    long tasks = (n + MOST - 1) / MOST;
    if (rows * n * depth > SMALL) parallel(tasks, run);
    else for (long i = 0; i < tasks; i++) run(i);
}

// f(row, j, lanes there are) for rows of n units, each row its own old state.
template <class T, class F> void each_unit(long rows, long n, const F &f) {
    parallel_ranges(rows, 1 + 4096 / (n + 1), [&](long begin, long end) {
        for (long r = begin; r < end; r++)
            for (long j = 0; j < n; j += LANES<T>) f(r, j, Some{std::min(LANES<T>, n - j)});
    });
}

}  // namespace

#define DEFINE(S, T)                                                                               \
    EXPORT void lstm_layer_forward_##S(int64_t batch, int64_t steps, int64_t n,                    \
                                       const int64_t *starts, const T *gi, const T *bias,          \
                                       const T *w, T *hs, T *cs, T *acts) {                        \
        Lstm<T> cell{n, gi, bias, cs, cs + batch * n, hs + batch * n, acts, nullptr};              \
        forward<T>(Steps{batch, steps, starts}, cell, w, hs);                                      \
    }                                                                                              \
    EXPORT void gru_layer_forward_##S(int64_t batch, int64_t steps, int64_t n,                     \
                                      const int64_t *starts, const T *gi, const T *bias,           \
                                      const T *w, T *hs, T *acts) {                                \
        Gru<T> cell{n, gi, bias, hs, hs + batch * n, acts};                                        \
        forward<T>(Steps{batch, steps, starts}, cell, w, hs);                                      \
    }                                                                                              \
    EXPORT void rnn_layer_forward_##S(int64_t batch, int64_t steps, int64_t n,                     \
                                      const int64_t *starts, const T *gi, const T *bias,           \
                                      const T *w, T *hs, int64_t relu) {                           \
        Plain<T> cell{n, gi, bias, hs + batch * n, relu != 0};                                     \
        forward<T>(Steps{batch, steps, starts}, cell, w, hs);                                      \
    }                                                                                              \
    EXPORT void lstm_layer_backward_##S(int64_t batch, int64_t steps, int64_t n,                   \
                                        const int64_t *starts, const T *w, T *cs, T *acts,         \
                                        const T *dout, T *dh, T *dc, T *d, int64_t pitch, T *db) { \
        Lstm<T> cell{n, nullptr, nullptr, cs, cs + batch * n, nullptr, acts, dc};                  \
        backward<T>(Steps{batch, steps, starts}, cell, w, dout, dh, d, pitch, 0, db);              \
    }                                                                                              \
    EXPORT void gru_layer_backward_##S(int64_t batch, int64_t steps, int64_t n,                    \
                                       const int64_t *starts, const T *w, T *hs, T *acts,          \
                                       const T *dout, T *dh, T *d, int64_t pitch, T *db) {         \
        Gru<T> cell{n, nullptr, nullptr, hs, nullptr, acts};                                       \
        backward<T>(Steps{batch, steps, starts}, cell, w, dout, dh, d, pitch, n, db);              \
    }                                                                                              \
    EXPORT void rnn_layer_backward_##S(int64_t batch, int64_t steps, int64_t n,                    \
                                       const int64_t *starts, const T *w, T *hs, const T *dout,    \
                                       T *dh, T *d, int64_t pitch, T *db, int64_t relu) {          \
        Plain<T> cell{n, nullptr, nullptr, hs + batch * n, relu != 0};                             \
        backward<T>(Steps{batch, steps, starts}, cell, w, dout, dh, d, pitch, 0, db);              \
    }                                                                                              \
    EXPORT void gates_##S(int64_t rows, int64_t n, int64_t depth, const T *x, const T *w,          \
                          const T *bias, T *y) {                                                   \
        gates<T>(rows, n, depth, x, w, bias, y);                                                   \
    }                                                                                              \
    EXPORT void lstm_step_forward_##S(int64_t rows, int64_t n, const T *gi, const T *gh,           \
                                      const T *c, T *h_new, T *c_new, T *acts) {                   \
        Lstm<T> cell{n, gi, nullptr, c, c_new, h_new, acts, nullptr};                              \
        each_unit<T>(rows, n, [&](long r, long j, Some at) {                                       \
            cell.step(r, r, j, at, gh + r * 4 * n + j, n);                                         \
        });                                                                                        \
    }                                                                                              \
    EXPORT void gru_step_forward_##S(int64_t rows, int64_t n, const T *gi, const T *gh,            \
                                     const T *h, T *h_new, T *acts) {                              \
        Gru<T> cell{n, gi, nullptr, h, h_new, acts};                                               \
        each_unit<T>(rows, n, [&](long r, long j, Some at) {                                       \
            cell.step(r, r, j, at, gh + r * 3 * n + j, n);                                         \
        });                                                                                        \
    }                                                                                              \
    EXPORT void lstm_step_backward_##S(int64_t rows, int64_t n, const T *dh, T *acts, const T *c,  \
                                       T *c_new, T *dc, T *d) {                                    \
        Lstm<T> cell{n, nullptr, nullptr, c, c_new, nullptr, acts, dc};                            \
        each_unit<T>(rows, n, [&](long r, long j, Some at) {                                       \
            Vec<T> total[4] = {};                                                                  \
            T *to = d + r * 4 * n;                                                                 \
            cell.back(r, r, r, j, at, dh ? at.get(dh + r * n + j) : Vec<T>{},                      \
                      To<T>{{to, to + n, to + 2 * n, to + 3 * n}}, total);                         \
        });                                                                                        \
    }                                                                                              \
    EXPORT void gru_step_backward_##S(int64_t rows, int64_t n, const T *dh, T *acts, const T *h,   \
                                      T *dgi, T *dgh, T *dh_old) {                                 \
        Gru<T> cell{n, nullptr, nullptr, h, nullptr, acts};                                        \
        each_unit<T>(rows, n, [&](long r, long j, Some at) {                                       \
            Vec<T> total[4] = {};                                                                  \
            T *i = dgi + r * 3 * n, *k = dgh + r * 3 * n;                                          \
            at.put(dh_old + r * n + j,                                                             \
                   cell.back(r, r, r, j, at, at.get(dh + r * n + j),                               \
                             To<T>{{i + 2 * n, i, i + n, k + 2 * n}}, total));                     \
            at.put(k + j, total[1]), at.put(k + n + j, total[2]);                                  \
        });                                                                                        \
    }
DEFINE(f32, float)
DEFINE(f64, double)
