// What both passes of attention.cpp share: the problem, exponentials, products in registers, copies
// whose last dimension is filled up to whole vectors, and what masks and dropout leave.
#pragma once
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

// The first n of each row to an array whose rows lie `step` apart.
template <class T> void write_rows(const T *from, long rows, long n, T factor, T *to, long step) {
    for (long r = 0; r < rows; r++, from += whole<T>(n), to += step)
        each(from, n, T(0), [&](long i, Vec<T> x, long lanes) {
            store_some(to + i, x * factor, lanes);
        });
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

}  // namespace
