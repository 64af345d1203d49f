// Rows of a table by index: gather, sums by index, bags of rows, norms of rows.
//
// Names: T is float, double, __half or __nv_bfloat16, sums are made in Acc and rounded once; I is
// int or long long. All arrays are C-contiguous. `wide`: rows are read 16 bytes at a time, so their
// addresses and lengths are multiples of 16. An index outside [0, rows) reads as zeros, adds
// nothing and is reported. Launch: two-dimensional blocks, x along a row (32 threads or fewer where
// a row is short), y over rows; any grid will do.
//
// gather        out (n, width) = table (rows, width)[index (n)]. Deterministic.
//               moves: n rows read, n rows written, the indices.
// scatter_add   out (rows, width)[index[p]] += term p, with atomic additions: the order of the
//               additions is not fixed. For float and double: a 16-bit sum would be rounded at each
//               addition. Where `wrap` negative indices count from the end; index `skip` is left
//               out. moves: n rows read, n rows read and written in L2.
// row_keys      keys (n) = index as int, `rows` for what is to be left out. Argsorted (stable, by
//               the caller) they give the order of segment_sum. Deterministic.
//               moves: n indices, n ints.
// row_counts    counts (rows) += how often each row occurs, from the order. Deterministic.
// segment_sum   out (rows, width)[key] = sum of the terms of that key, in order; `add`: += instead;
//               over counts[key] where there are counts. Deterministic: see below.
//               moves: n rows read, each distinct row written; 2 / chunk of the rows twice more.
// segment_join  the same for the partial sums that segment_sum left.
// bag_entries   keys, rows and counts of the entries of bags. Deterministic.
//               moves: n indices, 2n ints.
// bag_max       out (bags, width) and chosen (bags, width), the entry that the maximum comes from.
//               Deterministic: of equal values the first. moves: n rows read, bags rows written.
// row_dots      out (n) = the dot product of two rows. Deterministic. moves: 2n rows read.
// renorm_rows   rows that are longer than max_norm in the p-norm scaled to it; each once, however
//               often it is named. Deterministic. moves: each distinct row read twice, written once.
//
// A term p is row source[p] of `from` (row p without source), times scales[p], over
// counts[source]; with `chosen` only the columns whose entry it is.
//
// Python reference: nn/embedding.py on NumPy, numpy.add.at.
#include "common.cuh"

constexpr int WIDE = 16 / sizeof(T);
constexpr int AHEAD = 4;                    // rows in flight for each thread: memory is far away

DEVICE long long my_row() { return blockIdx.x * (long long)blockDim.y + threadIdx.y; }
DEVICE long long row_stride() { return gridDim.x * (long long)blockDim.y; }
template <int N> DEVICE long long my_column() {
    return (blockIdx.y * (long long)blockDim.x + threadIdx.x) * N;
}
template <int N> DEVICE long long column_stride() { return gridDim.y * (long long)blockDim.x * N; }

// --- gather -----------------------------------------------------------------------------------

template <int N>
DEVICE void gather_rows(const T* table, const I* index, T* out, long long n, long long width,
                        long long rows, Fault* fault) {
    for (long long i = my_row(); i < n; i += AHEAD * row_stride()) {
        long long row[AHEAD];
#pragma unroll
        for (int r = 0; r < AHEAD; r++) {
            long long p = i + r * row_stride();
            row[r] = p < n ? (long long)index[p] : -1;
            if (p < n && (row[r] < 0 || row[r] >= rows)) {
                if (threadIdx.x == 0) report(fault, row[r], p, rows);
                row[r] = -1;
            }
        }
        for (long long c = my_column<N>(); c < width; c += column_stride<N>()) {
            Vec<T, N> values[AHEAD];
#pragma unroll
            for (int r = 0; r < AHEAD; r++) {
                values[r] = Vec<T, N>{};
                if (row[r] >= 0) values[r] = load<N>(table + row[r] * width + c);
            }
#pragma unroll
            for (int r = 0; r < AHEAD; r++) {
                long long p = i + r * row_stride();
                if (p < n) store(out + p * width + c, values[r]);
            }
        }
    }
}

extern "C" __global__ void gather(const T* table, const I* index, T* out, long long n,
                                  long long width, long long rows, bool wide, Fault* fault) {
    if (wide) gather_rows<WIDE>(table, index, out, n, width, rows, fault);
    else gather_rows<1>(table, index, out, n, width, rows, fault);
}

// --- terms ------------------------------------------------------------------------------------

// What is added up.
struct Terms {
    const T* from;
    const int* source;
    const T* scales;
    const int* counts;
    const int* chosen;
    long long width;

    // N columns of term p.
    template <int N> DEVICE void get(long long p, long long column, Acc (&value)[N]) const {
        long long row = source ? source[p] : p;
        Vec<T, N> raw = load<N>(from + row * width + column);
        Acc scale = scales ? up(scales[p]) : Acc(1);
        if (counts) scale /= Acc(counts[row]);
#pragma unroll
        for (int j = 0; j < N; j++) {
            value[j] = up(raw[j]) * scale;
            if (chosen && chosen[row * width + column + j] != p) value[j] = 0;
        }
    }
};

// --- sums with atomic additions ---------------------------------------------------------------

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
DEVICE void add_all(float* to, const float (&value)[4]) {               // one instruction
    atomicAdd((float4*)to, make_float4(value[0], value[1], value[2], value[3]));
}
#endif
template <int N> DEVICE void add_all(T* to, const Acc (&value)[N]) {
#pragma unroll
    for (int j = 0; j < N; j++) atomic_add(to + j, value[j]);
}

template <int N>
DEVICE void scatter_rows(const Terms& terms, const I* index, T* out, long long n, long long rows,
                         long long skip, bool wrap, Fault* fault) {
    for (long long p = my_row(); p < n; p += row_stride()) {
        long long row = index[p];
        if (wrap && row < 0) row += rows;
        if (row == skip) continue;
        if (row < 0 || row >= rows) {
            if (threadIdx.x == 0) report(fault, index[p], p, rows);
            continue;
        }
        for (long long c = my_column<N>(); c < terms.width; c += column_stride<N>()) {
            Acc value[N];
            terms.get<N>(p, c, value);
            add_all(out + row * terms.width + c, value);
        }
    }
}

extern "C" __global__ void scatter_add(const T* from, const int* source, const T* scales,
                                       const int* counts, const I* index, T* out, long long n,
                                       long long width, long long rows, long long skip, bool wrap,
                                       bool wide, Fault* fault) {
    Terms terms = {from, source, scales, counts, nullptr, width};
    if (wide) scatter_rows<WIDE>(terms, index, out, n, rows, skip, wrap, fault);
    else scatter_rows<1>(terms, index, out, n, rows, skip, wrap, fault);
}

// --- sums in a fixed order --------------------------------------------------------------------
//
// The terms, sorted by key, are cut into runs of `chunk`. A thread adds up one run in its columns,
// in order. A key that lies within the run is written to its row at once. A key that goes on into
// the next run, or comes from the one before, gives a partial sum: a run leaves at most two, the
// first and the last of its keys. They are 2n / chunk terms, sorted, for segment_join to add up in
// the same way, and again until one run is left. So a row that is half of the batch is shared by
// many blocks, nothing waits for another block, and the order depends on nothing but n and chunk.
//
// A key k of a term that adds nothing is ~k: it keeps its place among the sorted.

DEVICE int named(int key) { return key < 0 ? ~key : key; }

struct SortedTerms {
    Terms terms;
    const int* keys;
    const long long* order;
    int rows;

    DEVICE long long place(long long k) const { return order ? order[k] : k; }
    DEVICE int key(long long k) const {
        int key = keys[place(k)];
        return key == rows ? ~key : key;
    }
    template <int N> DEVICE void get(long long k, long long column, Acc (&value)[N]) const {
        terms.get<N>(place(k), column, value);
    }
};

struct Parts {
    const Acc* from;
    const int* keys;
    long long width;

    DEVICE int key(long long k) const { return keys[k]; }
    template <int N> DEVICE void get(long long k, long long column, Acc (&value)[N]) const {
        Vec<Acc, N> raw = load<N>(from + k * width + column);
#pragma unroll
        for (int j = 0; j < N; j++) value[j] = raw[j];
    }
};

// Where the sums go: rows of `out`, and two partial sums and keys for each run.
struct Sums {
    T* out;
    const int* counts;
    Acc* parts;
    int* part_keys;
    long long width;
    bool add;

    template <int N> DEVICE void finish(int row, long long column, const Acc (&sum)[N]) const {
        T* at = out + row * width + column;
        Acc over = counts ? Acc(counts[row]) : Acc(1);
        Vec<T, N> before = {}, after;
        if (add) before = load<N>(at);
#pragma unroll
        for (int j = 0; j < N; j++)
            after[j] = down<T>(add ? up(before[j]) + sum[j] / over : sum[j] / over);
        store(at, after);
    }
    template <int N> DEVICE void keep(long long part, long long column, const Acc (&sum)[N]) const {
        constexpr int M = N == 1 ? 1 : 16 / sizeof(Acc);
#pragma unroll
        for (int j = 0; j < N; j += M) {
            Vec<Acc, M> some;
#pragma unroll
            for (int i = 0; i < M; i++) some[i] = sum[j + i];
            store(parts + part * width + column + j, some);
        }
    }
};

template <int N, class Sorted>
DEVICE void sum_run(const Sorted& terms, const Sums& sums, long long run, long long column,
                    long long n, int chunk) {
    long long begin = run * chunk, end = least(begin + chunk, n);
    int row = named(terms.key(begin));
    bool open = begin > 0 && named(terms.key(begin - 1)) == row;    // began before this run
    int first = ~row, last = ~named(terms.key(end - 1));            // keys of the partial sums
    bool any = false;
    Acc sum[N] = {};
    auto close = [&](bool more) {                                   // the sum of `row` is made
        if (!any) return;
        if (open) sums.keep<N>(2 * run, column, sum), first = row;
        else if (more) sums.keep<N>(2 * run + 1, column, sum), last = row;
        else sums.finish<N>(row, column, sum);
    };
    for (long long k = begin; k < end; k += AHEAD) {
        int key[AHEAD];
        Acc value[AHEAD][N];
#pragma unroll
        for (int r = 0; r < AHEAD; r++) {
            if (k + r >= end) break;
            key[r] = terms.key(k + r);
            if (key[r] >= 0) terms.template get<N>(k + r, column, value[r]);
        }
#pragma unroll
        for (int r = 0; r < AHEAD; r++) {
            if (k + r >= end) break;
            if (named(key[r]) != row) {
                close(false);
                row = named(key[r]);
                open = any = false;
#pragma unroll
                for (int j = 0; j < N; j++) sum[j] = 0;
            }
            if (key[r] < 0) continue;
            any = true;
#pragma unroll
            for (int j = 0; j < N; j++) sum[j] += value[r][j];
        }
    }
    close(end < n && named(terms.key(end)) == row);
    if (sums.part_keys && column == 0) {
        sums.part_keys[2 * run] = first;
        sums.part_keys[2 * run + 1] = last;
    }
}

template <int N, class Sorted>
DEVICE void sum_runs(const Sorted& terms, const Sums& sums, long long n, int chunk) {
    for (long long run = my_row(); run * chunk < n; run += row_stride())
        for (long long c = my_column<N>(); c < sums.width; c += column_stride<N>())
            sum_run<N>(terms, sums, run, c, n, chunk);
}

extern "C" __global__ void segment_sum(const T* from, const int* source, const T* scales,
                                       const int* source_counts, const int* chosen,
                                       const int* keys, const long long* order, const int* counts,
                                       T* out, Acc* parts, int* part_keys, long long n,
                                       long long width, int rows, int chunk, bool add, bool wide) {
    Terms plain = {from, source, scales, source_counts, chosen, width};
    SortedTerms terms = {plain, keys, order, rows};
    Sums sums = {out, counts, parts, part_keys, width, add};
    if (wide) sum_runs<WIDE>(terms, sums, n, chunk);
    else sum_runs<1>(terms, sums, n, chunk);
}

extern "C" __global__ void segment_join(const Acc* from, const int* keys, const int* counts, T* out,
                                        Acc* parts, int* part_keys, long long n, long long width,
                                        int chunk, bool add, bool wide) {
    Parts terms = {from, keys, width};
    Sums sums = {out, counts, parts, part_keys, width, add};
    if (wide) sum_runs<16 / sizeof(Acc)>(terms, sums, n, chunk);
    else sum_runs<1>(terms, sums, n, chunk);
}

extern "C" __global__ void row_keys(const I* index, int* keys, long long n, long long rows,
                                    long long skip, bool wrap, Fault* fault) {
    for (long long p = global_index(); p < n; p += global_stride()) {
        long long row = index[p];
        if (wrap && row < 0) row += rows;
        bool bad = row < 0 || row >= rows;
        if (bad && row != skip) report(fault, index[p], p, rows);
        keys[p] = bad || row == skip ? (int)rows : (int)row;
    }
}

extern "C" __global__ void row_counts(const int* keys, const long long* order, int* counts,
                                      long long n, int rows) {
    for (long long k = global_index(); k < n; k += global_stride()) {
        int key = keys[order[k]];
        if (key == rows) continue;
        if (k == 0 || keys[order[k - 1]] != key) atomicAdd(&counts[key], -(int)k);
        if (k + 1 == n || keys[order[k + 1]] != key) atomicAdd(&counts[key], (int)k + 1);
    }
}

// --- bags -------------------------------------------------------------------------------------

// Bag b has the entries from offsets[b] on, up to the next bag's; without offsets `each` entries.

extern "C" __global__ void bag_entries(const I* index, const I* offsets, int* keys, int* source,
                                       int* counts, long long n, long long bags, long long each,
                                       long long rows, long long skip, Fault* fault) {
    for (long long p = global_index(); p < n; p += global_stride()) {
        long long bag = 0;
        if (offsets) {                                  // the last that begins at p or before
            long long high = bags;
            while (high - bag > 1) {
                long long middle = (bag + high) / 2;
                if ((long long)offsets[middle] <= p) bag = middle;
                else high = middle;
            }
        } else bag = p / each;
        long long row = index[p];
        bool bad = row < 0 || row >= rows;
        if (bad) report(fault, row, p, rows);
        bool kept = !bad && row != skip;
        source[p] = bad ? 0 : (int)row;
        keys[p] = kept ? (int)bag : ~(int)bag;
        if (counts && kept) atomicAdd(&counts[bag], 1);
    }
}

// The greater of two values, of equal ones the earlier; not a number wins.
struct Best {
    Acc value;
    int place;
    DEVICE void meet(Acc v, int p) {
        bool more = v > value || (v != v && value == value);
        bool same = v == value || (v != v && value != value);
        if (p >= 0 && (place < 0 || more || (same && p < place))) value = v, place = p;
    }
};

// Blocks of 32 columns by 1 to 8 entries.
extern "C" __global__ void bag_max(const T* table, const int* keys, const int* source,
                                   const I* offsets, T* out, int* chosen, long long n,
                                   long long bags, long long each, long long width) {
    __shared__ Best found[8][32];
    for (long long bag = blockIdx.x; bag < bags; bag += gridDim.x) {
        long long begin = offsets ? (long long)offsets[bag] : bag * each;
        long long end = !offsets ? begin + each : bag + 1 < bags ? (long long)offsets[bag + 1] : n;
        begin = most(begin, 0ll), end = least(end, n);
        for (long long left = blockIdx.y * 32ll; left < width; left += gridDim.y * 32ll) {
            long long c = left + threadIdx.x;
            Best best = {Acc(0), -1};
            for (long long p = begin + threadIdx.y; p < end && c < width; p += blockDim.y)
                if (keys[p] >= 0) best.meet(up(table[source[p] * width + c]), (int)p);
            found[threadIdx.y][threadIdx.x] = best;
            __syncthreads();
            if (threadIdx.y == 0 && c < width) {
                for (int y = 1; y < blockDim.y; y++)
                    best.meet(found[y][threadIdx.x].value, found[y][threadIdx.x].place);
                out[bag * width + c] = down<T>(best.value);
                chosen[bag * width + c] = best.place;
            }
            __syncthreads();
        }
    }
}

// One warp for each entry.
template <int N>
DEVICE Acc row_dot(const T* a, const T* b, long long width) {
    Acc sum = 0;
    for (long long c = threadIdx.x * N; c < width; c += 32 * N) {
        Vec<T, N> x = load<N>(a + c), y = load<N>(b + c);
#pragma unroll
        for (int j = 0; j < N; j++) sum += up(x[j]) * up(y[j]);
    }
    return warp_sum(sum);
}

// out[p] = a[keys[p]] . b[source[p]], 0 where the key is negative. Blocks of 32 by 8.
extern "C" __global__ void row_dots(const T* a, const T* b, const int* keys, const int* source,
                                    T* out, long long n, long long width, bool wide) {
    for (long long p = my_row(); p < n; p += row_stride()) {
        Acc sum = 0;
        if (keys[p] >= 0) {                             // the same for the whole warp
            const T *x = a + keys[p] * width, *y = b + source[p] * width;
            sum = wide ? row_dot<WIDE>(x, y, width) : row_dot<1>(x, y, width);
        }
        if (threadIdx.x == 0) out[p] = down<T>(sum);
    }
}

// --- norms ------------------------------------------------------------------------------------

DEVICE Acc norm_part(Acc x, Acc p) {
    x = x < 0 ? -x : x;
    return p == 1 || p == Acc(INF) ? x : p == 2 ? x * x : pow(x, p);
}

// `claimed` (rows) zeros: the first warp that comes to a row scales it. Blocks of 32 by 8.
extern "C" __global__ void renorm_rows(T* table, const I* index, int* claimed, long long n,
                                       long long width, long long rows, Acc max_norm, Acc p) {
    for (long long i = my_row(); i < n; i += row_stride()) {
        long long row = index[i];
        if (row < 0 || row >= rows) continue;           // the gather reports it
        int taken = threadIdx.x == 0 ? atomicExch(&claimed[row], 1) : 0;
        if (__shfl_sync(0xffffffffu, taken, 0)) continue;
        T* at = table + row * width;
        Acc norm = 0;
        for (long long c = threadIdx.x; c < width; c += 32) {
            Acc part = norm_part(up(at[c]), p);
            norm = p == Acc(INF) ? most(norm, part) : norm + part;
        }
        norm = p == Acc(INF) ? warp_max(norm) : warp_sum(norm);
        if (p == 2) norm = sqrt(norm);
        else if (p != 1 && p != Acc(INF)) norm = pow(norm, 1 / p);
        if (norm > max_norm)
            for (long long c = threadIdx.x; c < width; c += 32)
                at[c] = down<T>(up(at[c]) * (max_norm / (norm + Acc(1e-7))));
    }
}
