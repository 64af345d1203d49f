// Scaled dot-product attention on the CPU and its gradient, in memory linear in the lengths.
//
//   attention_forward    out = softmax(scale q kᵀ + mask) v, with dropout; and `stats`: of each row
//                        the greatest score, then of each 1 / sum of exp(score - greatest), both 0
//                        where it may attend to nothing
//   attention_backward   dq, dk, dv (null where not wanted), from dout, out and stats
//   attention_marks      the states of the random stream at every MARK rows, for what follows
//
// Arrays are float32 (_f32) or float64 (_f64), (batch, heads, rows, width), of any strides but a
// last dimension without gaps; `group` heads of q share one of k and v. `numbers` is Problem, in
// int64, strides in elements; the mask, of bytes (bool) or of T, may have strides of 0. stats is
// (2, batch, heads, rows), contiguous: not one log-sum-exp, in which a score of -1e9 would swallow
// the logarithm. Dropout's mask is bytes (batch, heads, rows, columns), or is
// drawn again from `marks`, 625 uint32 for each MARK rows of a head.
//
// How: keys go by in blocks of BC, and rows of q in blocks of BR. Scores exist for one such block:
// the forward pass keeps each row's maximum and sum and scales what it has when the maximum grows;
// the backward pass computes the weights again from stats. Products run in registers
// (`block`) on copies whose last dimension is filled up to whole vectors. Blocks of which
// nothing is seen, above the diagonal or behind the mask, are left out.
//
// The backward pass takes a head at a time (5 products), or where heads are fewer than threads all
// dk and dv first, then all dq (7 products). Either way dk is summed over rows and dq over keys, in
// order: results do not depend on the number of threads.
// Python reference: nn/attention_numpy.py; flops: 2 * batch * heads * rows * columns * (width +
// value_width) forward, 2.5 times as many backward. Source: Dao, "FlashAttention-2" (2023).
#include "attention.h"

namespace {

// --- forward --------------------------------------------------------------------------------

// Scores to weights exp(score - greatest); `greatest`, in every lane, is that of all so far.
template <class T, bool ALL>
Vec<T> weigh(T *row, long keys, const Sight<T> &sight, Vec<T> &greatest) {
    Vec<T> top = greatest, total = {};
    for (long c = 0; c < keys; c += LANES<T>) {
        Vec<T> x = load(row + c);
        if (!ALL) store(row + c, x = sight(x, c));
        top = x > top ? x : top;
    }
    greatest = greatest_lane<T>(top);
    const Vec<T> base = greatest == -T(INFINITY) ? Vec<T>{} : greatest;
    for (long c = 0; c < keys; c += LANES<T>) {
        Vec<T> e = exp_below<T>(load(row + c) - base);
        total += e;
        store(row + c, !ALL && sight.kept ? sight.drop(e, c) : e);
    }
    return total;
}

// What is known of some rows so far: the sums of weights times values, and in LANES numbers a row
// the greatest score (in every lane) and the sum of the weights (in parts).
template <class T> struct Running {
    long wide;
    T *sums, *greatest, *total;

    static long size(long rows, long wide) {
        return Pieces<T>::room(rows * wide) + 2 * rows * LANES<T>;
    }
    Running(Pieces<T> &take, long rows, long wide)
        : wide(wide), sums(take.take(rows * wide)), greatest(take.take(rows * LANES<T>)),
          total(take.take(rows * LANES<T>)) {
        std::fill_n(sums, rows * wide, T(0));
        std::fill_n(greatest, rows * LANES<T>, -T(INFINITY));
        std::fill_n(total, rows * LANES<T>, T(0));
    }
    // Scores of row r to weights, which its sums are made ready for.
    void weigh_row(long r, T *line, long keys, const Sight<T> &sight) {
        Vec<T> before = load(greatest + r * LANES<T>), now = before;
        Vec<T> sum = sight.all ? weigh<T, true>(line, keys, sight, now)
                               : weigh<T, false>(line, keys, sight, now);
        if (before[0] != now[0]) {
            Vec<T> shrink = exp_below<T>(before - now);
            sum += load(total + r * LANES<T>) * shrink;
            for (T *p = sums + r * wide; p < sums + (r + 1) * wide; p += LANES<T>)
                store(p, load(p) * shrink);
        } else sum += load(total + r * LANES<T>);
        store(total + r * LANES<T>, sum);
        store(greatest + r * LANES<T>, now);
    }
    void write(const Task<T> &t, const typename Task<T>::Head &h, long begin, long rows) const {
        for (long r = 0; r < rows; r++) {
            T all = sum<T>(load(total + r * LANES<T>));
            T inverse = all == T(0) ? T(0) : 1 / all;
            T *to = t.at(t.out, t.s.out, h.b, h.h, begin + r);
            write_rows(sums + r * wide, 1, t.s.value_width, inverse * t.upscale, to, 0);
            *t.greatest(h, begin + r) = all == T(0) ? T(0) : greatest[r * LANES<T>];
            *t.inverse(h, begin + r) = inverse;
        }
    }
};

template <class T> void forward_rows(const Task<T> &t, long index, long begin, long end) {
    const Problem &s = t.s;
    auto h = t.head(index);
    long rows = end - begin, wide = whole<T>(s.value_width), last = t.seen(end);
    typedef Pieces<T> P;
    long room = P::room(s.width * rows) + Running<T>::size(rows, wide) + P::room(s.width * BC) +
                P::room(BC * wide) + P::room(BR * BC);
    Scratch scratch(0, sizeof(T) * size_t(room)), drawn(1, drawn_bytes(s, rows));
    P take{scratch.as<T>()};
    T *qt = take.take(s.width * rows), *kt = take.take(s.width * BC), *v = take.take(BC * wide);
    T *score = take.take(BR * BC);
    Running<T> state(take, rows, wide);
    transpose(t.at(t.q, s.q, h.b, h.h, begin), s.q[2], rows, s.width, qt, rows);
    for (long i = 0; i < s.width * rows; i++) qt[i] *= t.scale;
    const uint8_t *kept = kept_rows(t, index, begin, end, 0, last, drawn.as<uint8_t>());
    for (long j = 0; j < last; j += BC) {
        long keys = std::min(BC, last - j), step = s.v[2];
        copy_turned(t.at(t.k, s.k, h.b, h.shared, j), s.k[2], keys, s.width, kt, BC);
        const T *value = t.at(t.v, s.v, h.b, h.shared, j);
        if (wide != s.value_width || rows > 8) {        // few rows: a copy would take longer
            copy_rows(value, step, keys, s.value_width, v);
            value = v, step = wide;
        }
        for (long i = 0; i < rows; i += BR) {
            long n = std::min(BR, rows - i), seen = std::min(keys, t.seen(begin + i + n) - j);
            if (seen <= 0) continue;
            Left left = left_of(t, h, begin + i, j, n, seen);
            if (left == Left::NONE) continue;
            multiply<T, false>(qt + i, rows, n, kt, BC, whole<T>(seen), s.width, score, BC, false);
            for (long r = i; r < i + n; r++) {
                const uint8_t *mine = kept ? kept + r * s.columns : nullptr;
                Sight<T> sight(t, h, begin + r, j, seen, mine, left);
                state.weigh_row(r, score + (r - i) * BC, seen, sight);
            }
            T *sums = state.sums + i * wide;
            multiply<T, true>(score, 0, n, value, step, wide, seen, sums, wide, true);
        }
    }
    state.write(t, h, begin, rows);
}

template <class T> void forward(const Task<T> &t) {
    const Problem &s = t.s;
    long heads = s.batch * s.heads, chunk = chunk_rows(s, heads);
    long chunks = (s.rows + chunk - 1) / chunk;
    long least = 1 + 100000 / (1 + chunk * s.columns * (s.width + s.value_width));
    parallel_ranges(heads * chunks, least, [&](long begin, long end) {
        for (long i = begin; i < end; i++) {            // the longest of causal ones come first
            long c = chunks - 1 - i % chunks;
            forward_rows(t, i / chunks, c * chunk, std::min(s.rows, (c + 1) * chunk));
        }
    });
}

// --- backward -------------------------------------------------------------------------------

// Scores and gradients of weights to (dropped) weights and gradients of scores.
template <class T, bool ALL>
void unweigh(T *score, T *grad, long keys, const Sight<T> &sight, T greatest, T inverse, T delta,
             T upscale) {
    for (long c = 0; c < keys; c += LANES<T>) {
        Vec<T> x = load(score + c), g = load(grad + c);
        Vec<T> p = exp_below<T>((ALL ? x : sight(x, c)) - greatest) * inverse, used = p;
        if (!ALL && sight.kept) {
            used = sight.drop(p * upscale, c);
            g = sight.drop(g * upscale, c);
        }
        store(score + c, used);
        store(grad + c, p * (g - delta));
    }
}

// The copies that a chunk of rows and a block of keys are worked on in.
template <class T> struct Copies {
    long rows, width, wide;                             // the two widths in whole vectors
    Scratch scratch;
    T *qt, *q, *gt, *g, *dq, *greatest, *inverse, *delta, *kt, *k, *vt, *dk, *dv, *score, *grad;

    static long size(const Problem &s, long rows) {
        typedef Pieces<T> P;
        long width = whole<T>(s.width), wide = whole<T>(s.value_width);
        return P::room(s.width * rows) + 2 * P::room(rows * width) + P::room(s.value_width * rows) +
               P::room(rows * wide) + 3 * P::room(rows) + P::room(s.width * BC) +
               2 * P::room(BC * width) + P::room(s.value_width * BC) + P::room(BC * wide) +
               2 * P::room(BR * BC);
    }
    Copies(const Problem &s, long rows)
        : rows(rows), width(whole<T>(s.width)), wide(whole<T>(s.value_width)),
          scratch(0, sizeof(T) * size_t(size(s, rows))) {
        Pieces<T> p{scratch.template as<T>()};
        qt = p.take(s.width * rows), q = p.take(rows * width), dq = p.take(rows * width);
        gt = p.take(s.value_width * rows), g = p.take(rows * wide);
        greatest = p.take(rows), inverse = p.take(rows), delta = p.take(rows);
        kt = p.take(s.width * BC), k = p.take(BC * width), dk = p.take(BC * width);
        vt = p.take(s.value_width * BC), dv = p.take(BC * wide);
        score = p.take(BR * BC), grad = p.take(BR * BC);
    }
    void read_rows(const Task<T> &t, const typename Task<T>::Head &h, long begin, long n) {
        const Problem &s = t.s;
        const T *from = t.at(t.q, s.q, h.b, h.h, begin);
        const T *dout = t.at(t.dout, s.dout, h.b, h.h, begin);
        transpose(from, s.q[2], n, s.width, qt, n);
        for (long i = 0; i < s.width * n; i++) qt[i] *= t.scale;
        copy_rows(from, s.q[2], n, s.width, q, t.scale);
        transpose(dout, s.dout[2], n, s.value_width, gt, n);
        copy_rows(dout, s.dout[2], n, s.value_width, g);
        memcpy(greatest, t.greatest(h, begin), sizeof(T) * size_t(n));
        memcpy(inverse, t.inverse(h, begin), sizeof(T) * size_t(n));
        for (long r = 0; r < n; r++) {
            Vec<T> total = {};
            const T *grad = g + r * wide;
            each(t.at(t.out, s.out, h.b, h.h, begin + r), s.value_width, T(0),
                 [&](long i, Vec<T> x, long) { total += x * load(grad + i); });
            delta[r] = sum<T>(total);
        }
        std::fill(dq, dq + n * width, T(0));
    }
    void read_keys(const Task<T> &t, const typename Task<T>::Head &h, long j, long n) {
        const Problem &s = t.s;
        const T *key = t.at(t.k, s.k, h.b, h.shared, j), *value = t.at(t.v, s.v, h.b, h.shared, j);
        copy_turned(key, s.k[2], n, s.width, kt, BC);
        copy_turned(value, s.v[2], n, s.value_width, vt, BC);
        if (t.dq) copy_rows(key, s.k[2], n, s.width, k);
        if (t.dk) copy_rows(t.at(t.dk, s.dk, h.b, h.shared, j), s.dk[2], n, s.width, dk);
        if (t.dv) copy_rows(t.at(t.dv, s.dv, h.b, h.shared, j), s.dv[2], n, s.value_width, dv);
    }
};

// The gradients that rows [begin, end) of one head and keys [from, to) give each other, for those
// of t.dq, t.dk and t.dv that are not null; dk and dv are added to.
template <class T>
void backward_rows(const Task<T> &t, Copies<T> &c, uint8_t *room, long index, long begin, long end,
                   long from, long to) {
    const Problem &s = t.s;
    auto h = t.head(index);
    long rows = end - begin, width = c.width, wide = c.wide;
    to = std::min(to, t.seen(end));
    if (from >= to) return;
    c.read_rows(t, h, begin, rows);
    const uint8_t *kept = kept_rows(t, index, begin, end, from, to, room);
    for (long j = from; j < to; j += BC) {
        long keys = std::min(BC, to - j);
        c.read_keys(t, h, j, keys);
        for (long i = 0; i < rows; i += BR) {
            long n = std::min(BR, rows - i), seen = std::min(keys, t.seen(begin + i + n) - j);
            if (seen <= 0) continue;
            Left left = left_of(t, h, begin + i, j, n, seen);
            if (left == Left::NONE) continue;
            long full = whole<T>(seen);
            multiply<T, false>(c.qt + i, rows, n, c.kt, BC, full, s.width, c.score, BC, false);
            multiply<T, false>(c.gt + i, rows, n, c.vt, BC, full, s.value_width, c.grad, BC, false);
            for (long r = i; r < i + n; r++) {
                const uint8_t *mine = kept ? kept + r * s.columns : nullptr;
                Sight<T> sight(t, h, begin + r, j, seen, mine, left);
                (sight.all ? unweigh<T, true> : unweigh<T, false>)(
                    c.score + (r - i) * BC, c.grad + (r - i) * BC, seen, sight, c.greatest[r],
                    c.inverse[r], c.delta[r], t.upscale);
            }
            const T *g = c.g + i * wide, *q = c.q + i * width;
            T *dq = c.dq + i * width;
            if (t.dv) multiply<T, false>(c.score, BC, seen, g, wide, wide, n, c.dv, wide, true);
            if (t.dk) multiply<T, false>(c.grad, BC, seen, q, width, width, n, c.dk, width, true);
            if (t.dq) multiply<T, true>(c.grad, 0, n, c.k, width, width, seen, dq, width, true);
        }
        T *dk = t.at(t.dk, s.dk, h.b, h.shared, j), *dv = t.at(t.dv, s.dv, h.b, h.shared, j);
        if (t.dk) write_rows(c.dk, keys, s.width, T(1), dk, s.dk[2]);
        if (t.dv) write_rows(c.dv, keys, s.value_width, T(1), dv, s.dv[2]);
    }
    T *dq = t.at(t.dq, s.dq, h.b, h.h, begin);
    if (t.dq) write_rows(c.dq, rows, s.width, t.scale, dq, s.dq[2]);
}

// All that keys [from, to) of one head of k and v get from its `group` heads of q.
template <class T>
void backward_keys(const Task<T> &t, long shared, long from, long to, long chunk) {
    const Problem &s = t.s;
    Copies<T> copies(s, chunk);
    Scratch drawn(1, drawn_bytes(s, chunk));
    long b = shared / (s.heads / s.group), h = shared % (s.heads / s.group);
    for (long j = from; j < to; j++) {
        if (t.dk) std::fill_n(t.at(t.dk, s.dk, b, h, j), s.width, T(0));
        if (t.dv) std::fill_n(t.at(t.dv, s.dv, b, h, j), s.value_width, T(0));
    }
    for (long g = 0; g < s.group; g++)
        for (long i = 0; i < s.rows; i += chunk)
            backward_rows(t, copies, drawn.as<uint8_t>(), b * s.heads + h * s.group + g, i,
                          std::min(s.rows, i + chunk), from, to);
}

template <class T> void backward(const Task<T> &t) {
    const Problem &s = t.s;
    long heads = s.batch * s.heads, shared = heads / s.group, threads = thread_count();
    long rounds = (shared + threads - 1) / threads;
    long work = s.rows * s.columns * (s.width + s.value_width);
    if (t.dq && (t.dk || t.dv) && 5 * rounds * threads <= 7 * shared) {
        long chunk = chunk_rows(s, heads);
        parallel_ranges(shared, 1 + 50000 / (1 + work * s.group), [&](long begin, long end) {
            for (long i = begin; i < end; i++) backward_keys(t, i, 0, s.columns, chunk);
        });
        return;
    }
    if (t.dk || t.dv) {
        Task<T> mine = t;
        mine.dq = nullptr;
        long blocks = (s.columns + BC - 1) / BC, chunk = chunk_rows(s, heads);
        long parts = std::min((4 * threads + shared - 1) / shared, (blocks + 3) / 4);
        parallel(shared * parts, [&](long i) {
            long p = i % parts;
            backward_keys(mine, i / parts, blocks * p / parts * BC,
                          std::min(s.columns, blocks * (p + 1) / parts * BC), chunk);
        });
    }
    if (t.dq) {
        Task<T> mine = t;
        mine.dk = mine.dv = nullptr;
        long chunk = chunk_rows(s, heads), chunks = (s.rows + chunk - 1) / chunk;
        parallel(heads * chunks, [&](long i) {
            Copies<T> copies(s, chunk);
            Scratch drawn(1, drawn_bytes(s, chunk));
            long begin = (chunks - 1 - i % chunks) * chunk;
            backward_rows(mine, copies, drawn.as<uint8_t>(), i / chunks, begin,
                          std::min(s.rows, begin + chunk), 0, s.columns);
        });
    }
}

}  // namespace

#define DEFINE(suffix, T)                                                                          \
    EXPORT void attention_forward_##suffix(const int64_t *numbers, const T *q, const T *k,         \
                                           const T *v, const void *mask, const void *drop,         \
                                           double scale, double keep, int64_t bound, T *out,       \
                                           T *stats) {                                             \
        Problem s;                                                                                 \
        std::copy(numbers, numbers + sizeof s / sizeof(long), reinterpret_cast<long *>(&s));       \
        forward<T>({s, q, k, v, mask, drop, T(scale), T(keep > 0 ? 1 / keep : 0),                  \
                    uint64_t(bound), out, stats, nullptr, nullptr, nullptr, nullptr});             \
    }                                                                                              \
    EXPORT void attention_backward_##suffix(                                                       \
        const int64_t *numbers, const T *q, const T *k, const T *v, const void *mask,              \
        const void *drop, double scale, double keep, int64_t bound, T *out, T *stats,              \
        const T *dout, T *dq, T *dk, T *dv) {                                                      \
        Problem s;                                                                                 \
        std::copy(numbers, numbers + sizeof s / sizeof(long), reinterpret_cast<long *>(&s));       \
        backward<T>({s, q, k, v, mask, drop, T(scale), T(keep > 0 ? 1 / keep : 0),                 \
                     uint64_t(bound), out, stats, dout, dq, dk, dv});                              \
    }
DEFINE(f32, float)
DEFINE(f64, double)

// `state` goes on by heads * rows * columns coins; marks gets it as it was every MARK rows.
EXPORT void attention_marks(uint32_t *state, int64_t heads, int64_t rows, int64_t columns,
                            uint32_t *marks) {
    Mersenne stream(state);
    for (long h = 0; h < heads; h++)
        for (long r = 0; r < rows; r += MARK, marks += Mersenne::STATE) {
            stream.save(marks);
            stream.skip(2 * std::min(MARK, rows - r) * columns);
        }
    stream.save(state);
}
