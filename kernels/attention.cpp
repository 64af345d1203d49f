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
#include <math.h>

#include <array>
#include <utility>

#include "mersenne.h"
#include "threads.h"
#include "vmath.h"

namespace {

constexpr int MR = REGISTERS == 16 ? (VECTOR_BYTES == 32 ? 6 : 5) : VECTOR_BYTES == 64 ? 14 : 12;
constexpr long BR = 64, BC = 64;                        // scores in a block: rows, keys
constexpr long CHUNK = 512;                             // rows for which keys are copied once
constexpr long MARK = 64;                               // rows from one random state to the next
static_assert(BR == MARK && CHUNK % BR == 0, "blocks begin at marks");

struct Problem {
    long batch, heads, group, rows, columns, width, value_width, causal;
    long q[3], k[3], v[3], out[3], dout[3], dq[3], dk[3], dv[3];  // strides: batch, head, row
    long mask[4], mask_kind;                            // 0 none, 1 bytes, 2 of type T
    long drop_kind;                                     // 0 none, 1 bytes, 2 marks
};
enum { BYTES = 1, NUMBERS = 2, MARKS = 2 };

template <class T> struct Task {
    const Problem &s;
    const T *q, *k, *v;
    const void *mask, *drop;
    T scale, upscale;                                   // upscale: 1 / probability of being kept
    uint64_t bound;
    T *out, *stats;
    const T *dout;
    T *dq, *dk, *dv;

    template <class P> static P *at(P *p, const long *stride, long b, long h, long row) {
        return p ? p + b * stride[0] + h * stride[1] + row * stride[2] : p;
    }
    // A place in the sequence of heads, as the arrays see it.
    struct Head {
        long b, h, shared, index;
    };
    Head head(long index) const {
        long h = index % s.heads;
        return {index / s.heads, h, h / s.group, index};
    }
    T *greatest(const Head &h, long row) const { return stats + h.index * s.rows + row; }
    T *inverse(const Head &h, long row) const {
        return greatest(h, row) + s.batch * s.heads * s.rows;
    }
    // The keys that some row before `end` sees.
    long seen(long end) const { return s.causal ? std::min(end, s.columns) : s.columns; }
};

// exp(x) for x <= 0, without the steps of vexp that only greater numbers and denormals need: what
// would be a denormal number is 0.
template <class T> inline Vec<T> exp_below(Vec<T> x) {
    typedef Floating<T> F;
    Vec<T> shifted = x * T(1.44269504088896340736) + F::ROUND, n = shifted - F::ROUND;
    Vec<T> r = x - n * F::LN2_HIGH - n * F::LN2_LOW;
    static constexpr double inverse_factorial[] = {
        1, 1, 1 / 2., 1 / 6., 1 / 24., 1 / 120., 1 / 720., 1 / 5040., 1 / 40320., 1 / 362880.,
        1 / 3628800., 1 / 39916800., 1 / 479001600., 1 / 6227020800.};
    Vec<T> p = splat(T(inverse_factorial[F::EXP_TERMS]));
    UNROLL for (int i = F::EXP_TERMS - 1; i >= 0; i--) p = p * r + T(inverse_factorial[i]);
    p *= power_of_two<T>(IVec<T>(shifted));             // its upper bits, of ROUND, are shifted out
    return x < T(F::BIAS - 1) * T(-0.69314718055994530942) ? Vec<T>{} : p;
}

// In every lane the greatest of all lanes.
template <class T, int BY, int... I> Vec<T> turn(Vec<T> v, std::integer_sequence<int, I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(v, v, ((I + BY) % LANES<T>)...);
#else
    return __builtin_shuffle(v, IVec<T>{((I + BY) % LANES<T>)...});
#endif
}
template <class T, int BY = LANES<T> / 2> Vec<T> greatest_lane(Vec<T> v) {
    if constexpr (BY == 0) return v;
    else {
        Vec<T> other = turn<T, BY>(v, std::make_integer_sequence<int, int(LANES<T>)>());
        return greatest_lane<T, BY / 2>(other > v ? other : v);
    }
}

template <class T> long whole(long n) { return (n + LANES<T> - 1) / LANES<T> * LANES<T>; }

// Pieces of one block of a thread's scratch, each on a cache line of its own.
template <class T> struct Pieces {
    T *next;
    T *take(long n) {
        T *mine = next;
        next += room(n);
        return mine;
    }
    static long room(long n) { return (n + 15) / 16 * 16; }
};

// --- products -------------------------------------------------------------------------------

// c[M][NV vectors] (+)= a * b over kc; a(i, k) is a[i * BC + k] if BY_ROWS, else a[k * step + i].
template <class T, int M, int NV, bool BY_ROWS>
void block(const T *a, long step, const T *b, long ldb, long kc, T *c, long ldc, bool add) {
    Vec<T> acc[M][NV];
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < NV; j++) {
            acc[i][j] = add ? load(c + i * ldc + j * LANES<T>) : Vec<T>{};
        }
    }
    for (long k = 0; k < kc; k++, a += BY_ROWS ? 1 : step, b += ldb) {
        Vec<T> v[NV];
        UNROLL for (int j = 0; j < NV; j++) v[j] = load(b + j * LANES<T>);
        UNROLL for (int i = 0; i < M; i++) {
            UNROLL for (int j = 0; j < NV; j++) acc[i][j] += splat(a[BY_ROWS ? i * BC : i]) * v[j];
        }
    }
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < NV; j++) store(c + i * ldc + j * LANES<T>, acc[i][j]);
    }
}

template <class T> using Block = void (*)(const T *, long, const T *, long, long, T *, long, bool);
template <class T, int NV, bool BY_ROWS, int... M>
constexpr std::array<Block<T>, sizeof...(M)> blocks(std::integer_sequence<int, M...>) {
    return {{block<T, M + 1, NV, BY_ROWS>...}};
}
// c[m][n] (+)= a[m][kc] * b[kc][n], n filled up to whole vectors.
template <class T, bool BY_ROWS>
void multiply(const T *a, long step, long m, const T *b, long ldb, long n, long kc, T *c, long ldc,
              bool add) {
    static constexpr auto one = blocks<T, 1, BY_ROWS>(std::make_integer_sequence<int, MR>());
    static constexpr auto two = blocks<T, 2, BY_ROWS>(std::make_integer_sequence<int, MR>());
    long panels = (m + MR - 1) / MR;
    for (long j = 0; j < n;) {
        bool pair = n - j > LANES<T>;
        for (long i = 0; i < panels; i++) {
            long begin = m * i / panels, rows = m * (i + 1) / panels - begin;
            (pair ? two : one)[size_t(rows - 1)](a + begin * (BY_ROWS ? BC : 1), step, b + j, ldb,
                                                 kc, c + begin * ldc + j, ldc, add);
        }
        j += (pair ? 2 : 1) * LANES<T>;
    }
}

// --- copies ---------------------------------------------------------------------------------

// rows x n, each row filled up with zeros to whole vectors.
template <class T>
void copy_rows(const T *from, long step, long rows, long n, T *to, T factor = T(1)) {
    long full = whole<T>(n);
    for (long r = 0; r < rows; r++, from += step, to += full) {
        long i = 0;
        for (; i + LANES<T> <= n; i += LANES<T>) store(to + i, load(from + i) * factor);
        if (i == n) continue;
        for (; i < n; i++) to[i] = from[i] * factor;
        for (; i < full; i++) to[i] = T(0);
    }
}
// to[n][ld] from rows x n, with zeros after the last row to whole vectors.
template <class T> void copy_turned(const T *from, long step, long rows, long n, T *to, long ld) {
    transpose(from, step, rows, n, to, ld);
    for (long fill = whole<T>(rows), i = 0; fill > rows && i < n; i++)
        for (long r = rows; r < fill; r++) to[i * ld + r] = T(0);
}

// --- masks ----------------------------------------------------------------------------------

template <class T> struct Lanes {
    typedef uint8_t bytes __attribute__((vector_size(LANES<T>)));
    static Vec<T> count() {
        static constexpr T numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        return load(numbers);
    }
};
// The first n of a vector of elements `step` apart, then zeros.
template <class V, class E> V gather(const E *p, long step, long n, long lanes) {
    E some[64 / sizeof(E)] = {};
    static_assert(sizeof(V) <= sizeof some, "a vector of them fits");
    V v;
    if (step == 1 && n >= lanes) {
        memcpy(&v, p, sizeof v);
        return v;
    }
    for (long i = 0; i < n && i < lanes; i++) some[i] = p[i * step];
    memcpy(&v, some, sizeof v);
    return v;
}
template <class T> IVec<T> are_set(const uint8_t *p, long step, long n) {
    typedef typename Lanes<T>::bytes Bytes;
    return __builtin_convertvector(gather<Bytes>(p, step, n, LANES<T>), IVec<T>) != 0;
}

// How much of a block of scores the mask leaves: often all or nothing.
enum class Left { SOME, ALL, NONE };
template <class E, class F, class G>
Left left_of(const E *p, const long *step, long rows, long keys, const F &seen, const G &free) {
    bool any = false, all = true;
    for (long r = 0; r < (step[2] ? rows : 1); r++, p += step[2]) {
        bool here = false, every = true;
        for (long c = 0; c < keys; c++) here |= seen(p[c]), every &= free(p[c]);
        any |= here, all &= every;
        if (any && !all) return Left::SOME;
    }
    return all ? Left::ALL : Left::NONE;
}
template <class T>
Left left_of(const Task<T> &t, const typename Task<T>::Head &h, long row, long j, long rows,
             long keys) {
    const long *m = t.s.mask, place = h.b * m[0] + h.h * m[1] + row * m[2] + j * m[3];
    if (t.s.mask_kind == 0) return Left::ALL;
    if (m[3] != 1) return Left::SOME;
    if (t.s.mask_kind == BYTES)
        return left_of(static_cast<const uint8_t *>(t.mask) + place, m, rows, keys,
                       [](uint8_t x) { return x != 0; }, [](uint8_t x) { return x != 0; });
    return left_of(static_cast<const T *>(t.mask) + place, m, rows, keys,
                   [](T x) { return x != -T(INFINITY); }, [](T x) { return x == T(0); });
}

// What a row of scores sees of the keys from j on: `limit` of them, less what the mask hides.
template <class T> struct Sight {
    const uint8_t *allow = nullptr;
    const T *bias = nullptr;
    const uint8_t *kept = nullptr;                      // dropout's mask
    long step, limit;
    bool all;                                           // whole vectors without a mask

    Sight(const Task<T> &t, const typename Task<T>::Head &h, long row, long j, long keys,
          const uint8_t *kept_row, Left left)
        : limit(t.s.causal ? std::min(keys, row + 1 - j) : keys) {
        const long *m = t.s.mask;
        long place = h.b * m[0] + h.h * m[1] + row * m[2] + j * m[3];
        step = m[3];
        bool masked = left == Left::SOME;
        if (masked && t.s.mask_kind == BYTES) allow = static_cast<const uint8_t *>(t.mask) + place;
        if (masked && t.s.mask_kind == NUMBERS) bias = static_cast<const T *>(t.mask) + place;
        if (kept_row) kept = kept_row + j;
        all = !kept && !masked && limit >= keys && keys % LANES<T> == 0;
    }
    Vec<T> operator()(Vec<T> x, long c) const {
        const Vec<T> hidden = splat(-T(INFINITY));
        if (allow) x = are_set<T>(allow + c * step, step, limit - c) ? x : hidden;
        if (bias) x += gather<Vec<T>>(bias + c * step, step, limit - c, LANES<T>);
        return c + LANES<T> <= limit ? x : Lanes<T>::count() < splat(T(limit - c)) ? x : hidden;
    }
    Vec<T> drop(Vec<T> x, long c) const {
        return are_set<T>(kept + c, 1, limit - c) ? x : Vec<T>{};
    }
};

// Dropout's mask of rows [begin, end) and columns [from, to): where it is, or drawn into `room`.
template <class T>
const uint8_t *kept_rows(const Task<T> &t, long head, long begin, long end, long from, long to,
                         uint8_t *room) {
    const Problem &s = t.s;
    if (s.drop_kind == 0) return nullptr;
    if (s.drop_kind == BYTES)
        return static_cast<const uint8_t *>(t.drop) + (head * s.rows + begin) * s.columns;
    const uint32_t *marks = static_cast<const uint32_t *>(t.drop) +
                            head * ((s.rows + MARK - 1) / MARK) * Mersenne::STATE;
    for (long block = begin; block < end; block += MARK) {
        Mersenne stream(marks + block / MARK * Mersenne::STATE);
        for (long r = block; r < std::min(end, block + MARK); r++) {
            stream.skip(2 * from);
            stream.coins(t.bound, to - from, room + (r - begin) * s.columns + from);
            stream.skip(2 * (s.columns - to));
        }
    }
    return room;
}

// Rows that are worked on together: fewer where there is little to share, or much to draw.
inline long chunk_rows(const Problem &s, long parts) {
    long rows = CHUNK;
    long blocks = (s.rows + BR - 1) / BR;
    while (rows > BR && parts * ((blocks * BR + rows - 1) / rows) < 2 * thread_count()) rows /= 2;
    while (rows > BR && s.drop_kind == MARKS && rows * s.columns > (1 << 20)) rows /= 2;
    return std::min(rows, s.rows);
}
inline size_t drawn_bytes(const Problem &s, long rows) {
    return s.drop_kind == MARKS ? size_t(rows * s.columns) : 0;
}

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

template <class T> void forward_rows(const Task<T> &t, long index, long begin, long end) {
    const Problem &s = t.s;
    auto h = t.head(index);
    long rows = end - begin, wide = whole<T>(s.value_width), last = t.seen(end);
    typedef Pieces<T> P;
    long room = P::room(s.width * rows) + P::room(rows * wide) + 2 * rows * LANES<T> +
                P::room(s.width * BC) + P::room(BC * wide) + P::room(BR * BC);
    Scratch scratch(0, sizeof(T) * size_t(room)), drawn(1, drawn_bytes(s, rows));
    P take{scratch.as<T>()};
    T *qt = take.take(s.width * rows), *sums = take.take(rows * wide);
    T *greatest = take.take(rows * LANES<T>), *total = take.take(rows * LANES<T>);
    T *kt = take.take(s.width * BC), *v = take.take(BC * wide), *score = take.take(BR * BC);
    transpose(t.at(t.q, s.q, h.b, h.h, begin), s.q[2], rows, s.width, qt, rows);
    for (long i = 0; i < s.width * rows; i++) qt[i] *= t.scale;
    std::fill_n(greatest, rows * LANES<T>, -T(INFINITY));
    std::fill_n(total, rows * LANES<T>, T(0));
    std::fill_n(sums, rows * wide, T(0));
    const uint8_t *kept = kept_rows(t, index, begin, end, 0, last, drawn.as<uint8_t>());
    for (long j = 0; j < last; j += BC) {
        long keys = std::min(BC, last - j);
        copy_turned(t.at(t.k, s.k, h.b, h.shared, j), s.k[2], keys, s.width, kt, BC);
        const T *value = t.at(t.v, s.v, h.b, h.shared, j);
        long step = s.v[2];
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
                T *line = score + (r - i) * BC;
                Vec<T> before = load(greatest + r * LANES<T>), now = before;
                Vec<T> sum = sight.all ? weigh<T, true>(line, seen, sight, now)
                                       : weigh<T, false>(line, seen, sight, now);
                if (before[0] != now[0]) {
                    Vec<T> shrink = exp_below<T>(before - now);
                    sum += load(total + r * LANES<T>) * shrink;
                    for (T *p = sums + r * wide; p < sums + (r + 1) * wide; p += LANES<T>)
                        store(p, load(p) * shrink);
                } else sum += load(total + r * LANES<T>);
                store(total + r * LANES<T>, sum);
                store(greatest + r * LANES<T>, now);
            }
            multiply<T, true>(score, 0, n, value, step, wide, seen, sums + i * wide, wide, true);
        }
    }
    for (long r = 0; r < rows; r++) {
        T sum_of_row = sum<T>(load(total + r * LANES<T>));
        bool dead = sum_of_row == T(0);
        T inverse = dead ? T(0) : 1 / sum_of_row, factor = inverse * t.upscale;
        T *to = t.at(t.out, s.out, h.b, h.h, begin + r);
        each(sums + r * wide, s.value_width, T(0),
             [&](long i, Vec<T> x, long n) { store_some(to + i, x * factor, n); });
        *t.greatest(h, begin + r) = dead ? T(0) : greatest[r * LANES<T>];
        *t.inverse(h, begin + r) = inverse;
    }
}

template <class T> void forward(const Task<T> &t) {
    const Problem &s = t.s;
    long heads = s.batch * s.heads, chunk = chunk_rows(s, heads);
    long chunks = (s.rows + chunk - 1) / chunk;
    long least = 1 + 100000 / (chunk * s.columns * (s.width + s.value_width));
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

// The first n of each row to an array whose rows lie `step` apart.
template <class T> void write_rows(const T *from, long rows, long n, T factor, T *to, long step) {
    for (long r = 0; r < rows; r++, from += whole<T>(n), to += step)
        each(from, n, T(0), [&](long i, Vec<T> x, long lanes) {
            store_some(to + i, x * factor, lanes);
        });
}

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
        parallel_ranges(shared, 1 + 50000 / (work * s.group), [&](long begin, long end) {
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
                                           T *stats) {                                               \
        Problem s;                                                                                 \
        std::copy(numbers, numbers + sizeof s / sizeof(long), reinterpret_cast<long *>(&s));       \
        forward<T>({s, q, k, v, mask, drop, T(scale), T(keep > 0 ? 1 / keep : 0),                  \
                    uint64_t(bound), out, stats, nullptr, nullptr, nullptr, nullptr});               \
    }                                                                                              \
    EXPORT void attention_backward_##suffix(                                                       \
        const int64_t *numbers, const T *q, const T *k, const T *v, const void *mask,              \
        const void *drop, double scale, double keep, int64_t bound, T *out, T *stats,              \
        const T *dout, T *dq, T *dk, T *dv) {                                                      \
        Problem s;                                                                                 \
        std::copy(numbers, numbers + sizeof s / sizeof(long), reinterpret_cast<long *>(&s));       \
        backward<T>({s, q, k, v, mask, drop, T(scale), T(keep > 0 ? 1 / keep : 0),                 \
                     uint64_t(bound), out, stats, dout, dq, dk, dv});                                \
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
