// Tiles of attention on the ordinary cores: a block of 16 x 16 threads, thread (y, x) of which
// holds TM x TM values of a TILE x TILE matrix, rows y TM.. and columns x TM...
#pragma once
#include "attention.cuh"

constexpr int TILE = sizeof(Acc) == 8 ? 32 : 64;
constexpr int TM = TILE / 16;
constexpr int DEPTH = TILE / 2;                 // of a slice of a product
constexpr int PITCH = TILE + 16 / sizeof(Acc);  // rows of shared memory, in 16-byte steps
constexpr int THREADS = 256;
constexpr int BLOCKS = HEAD == 64 ? 2 : 1;  // side by side on a multiprocessor, for its registers
constexpr int UNROLLED = sizeof(Acc) == 8 || HEAD == 64 ? 2 : 4;  // more would spill

typedef Acc Matrix[TILE][PITCH];
typedef Vec<Acc, TM> Few;

// A few values of a row, of which `left` are inside; the others count as zero. `wide`: the rows'
// lengths and addresses allow to read them at once, so that fewer reads are waited for.
constexpr int PIECE = 16 / sizeof(Acc);
DEVICE bool is_wide(const T* rows, int width) {
    return width % PIECE == 0 && aligned(rows, PIECE * sizeof(T));
}
DEVICE Vec<Acc, PIECE> piece(const T* from, int left, bool wide) {
    Vec<T, PIECE> raw;
#pragma unroll
    for (int i = 0; i < PIECE; i++) raw[i] = down<T>(Acc(0));
    if (wide && left > 0) {
        raw = load<PIECE>(from);
    } else {
#pragma unroll
        for (int i = 0; i < PIECE; i++)
            if (i < left) raw[i] = from[i];
    }
    Vec<Acc, PIECE> values;
#pragma unroll
    for (int i = 0; i < PIECE; i++) values[i] = up(raw[i]);
    return values;
}

// Over the 16 threads that share a row.
template <class F> DEVICE Acc row_reduce(Acc v) {
#pragma unroll
    for (int apart = 8; apart; apart >>= 1) v = F()(v, __shfl_xor_sync(0xffffffffu, v, apart));
    return v;
}

// sums[i][j] += a[row i] . b[row j], rows of `width` values, of which a has `a_rows`, b has
// `b_rows`; what is beyond counts as zero. `space` is free after the next barrier.
DEVICE void rows_by_rows(Acc (&sums)[TM][TM], Matrix& space, const T* a, int a_rows, const T* b,
                         int b_rows, int width) {
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    Acc(*left)[PITCH] = space, (*right)[PITCH] = space + DEPTH;
    bool wide_a = is_wide(a, width), wide_b = is_wide(b, width);
    for (int d0 = 0; d0 < width; d0 += DEPTH) {
        __syncthreads();
#pragma unroll 1
        for (int e = threadIdx.x; e < TILE * DEPTH / PIECE; e += THREADS) {
            int row = e / (DEPTH / PIECE), d = e % (DEPTH / PIECE) * PIECE;
            int at = row * width + d0 + d, inside = width - d0 - d;
            Vec<Acc, PIECE> l = piece(a + at, row < a_rows ? inside : 0, wide_a);
            Vec<Acc, PIECE> r = piece(b + at, row < b_rows ? inside : 0, wide_b);
#pragma unroll
            for (int i = 0; i < PIECE; i++) left[d + i][row] = l[i], right[d + i][row] = r[i];
        }
        __syncthreads();
#pragma unroll UNROLLED
        for (int d = 0; d < DEPTH; d++) {
            Few l = load<TM>(&left[d][y * TM]), r = load<TM>(&right[d][x * TM]);
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TM; j++) sums[i][j] += l[i] * r[j];
        }
    }
}

// sums[i][c] += sum over k of weights[k][row i] from[k][column c], for `rows` k's of `width`
// values. The columns of a thread are x TM + j of each TILE. Starts with a barrier, which
// `weights` need.
DEVICE void weights_by_rows(Acc (&sums)[TM][HEAD / 16], const Matrix& weights, Matrix& space,
                            const T* from, int rows, int width) {
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    bool wide = is_wide(from, width);
#pragma unroll
    for (int c = 0; c < HEAD / TILE; c++) {
        if (c * TILE >= width) break;
        __syncthreads();
#pragma unroll 1
        for (int e = threadIdx.x; e < TILE * TILE / PIECE; e += THREADS) {
            int row = e / (TILE / PIECE), x0 = e % (TILE / PIECE) * PIECE, column = c * TILE + x0;
            int inside = row < rows ? width - column : 0;
            store<PIECE>(&space[row][x0], piece(from + row * width + column, inside, wide));
        }
        __syncthreads();
#pragma unroll UNROLLED
        for (int k = 0; k < TILE; k++) {
            Few l = load<TM>(&weights[k][y * TM]), r = load<TM>(&space[k][x * TM]);
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TM; j++) sums[i][c * TM + j] += l[i] * r[j];
        }
    }
}

// One bit for each of a thread's values: which scores are seen, which weights dropout keeps. Loops
// that stay loops, because the code of TM x TM elements side by side would need too many registers.
DEVICE unsigned seen_bits(const Problem& p, const unsigned char* allow, int row0, int k0) {
    bool whole = !allow && row0 + TILE <= p.rows && k0 + TILE <= p.columns;
    if (whole && !(p.causal && k0 + TILE > row0)) return ~0u;
    int row = row0 + threadIdx.x / 16 * TM, column = k0 + threadIdx.x % 16 * TM;
    unsigned bits = 0;
#pragma unroll 1
    for (int n = 0; n < TM * TM; n++)
        bits |= unsigned(is_seen(p, allow, row + n / TM, column + n % TM)) << n;
    return bits;
}
DEVICE unsigned kept_bits(const Problem& p, long long head, int row0, int k0) {
    if (!p.drops) return ~0u;
    int row = row0 + threadIdx.x / 16 * TM, column = k0 + threadIdx.x % 16 * TM;
    unsigned bits = 0;
#pragma unroll 1
    for (int n = 0; n < TM * TM; n++)
        bits |= unsigned(is_kept(p, head, row + n / TM, column + n % TM)) << n;
    return bits;
}

// query . key -> scores in base 2, -INF where not seen.
DEVICE void to_scores(Acc (&s)[TM][TM], const Problem& p, const unsigned char* allow,
                      const Acc* bias, long long head, int row0, int k0) {
    int row = row0 + threadIdx.x / 16 * TM, column = k0 + threadIdx.x % 16 * TM;
    long long start = mask_start(p, head);
    unsigned seen = seen_bits(p, allow ? allow + start : nullptr, row0, k0);
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TM; j++) {
            Acc score = s[i][j] * Acc(p.scale * LOG2E);
            bool is = seen >> (i * TM + j) & 1;
            if (bias && is) {
                long long at = start + (row + i) * p.mask_row + (column + j) * p.mask_column;
                score += masking(bias[at]);
            }
            s[i][j] = is ? score : Acc(-INF);
        }
}

// Writes a thread's rows of sums times `factor` to a matrix of `rows` rows of `width` values.
DEVICE void write_rows(T* to, int rows, int width, const Acc (&sums)[TM][HEAD / 16],
                       const Acc (&factor)[TM]) {
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int c = 0; c < HEAD / 16; c++) {
            int row = y * TM + i, column = c / TM * TILE + x * TM + c % TM;
            if (row < rows && column < width)
                to[(long long)row * width + column] = down<T>(sums[i][c] * factor[i]);
        }
}
