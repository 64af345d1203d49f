// Tiles of attention on the tensor cores: a block of four warps owns rows of one matrix, STRIPS
// times 16 a warp, and walks over another matrix in tiles of OTHERS rows. Of a product each thread
// holds, in the layout of mma.cuh, values[m][n][e] at row g + 8 (e / 2) of the warp's strip m and
// other row 8 n + 2 t + e % 2, with g = lane / 4 and t = lane % 4. That is also the layout of the
// left operand of the next product, so weights go from one product to the next without leaving the
// registers.
//
// Two strips a warp halve what is read from shared memory for a product, which limits its speed.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

constexpr int THREADS = 128, OWN = 64 * STRIPS;
constexpr int PITCH = HEAD + 8;  // of rows in shared memory: 8 rows lie in different banks
constexpr int SLICES = HEAD / 16;
constexpr int TILES = OTHERS / 8;

extern __shared__ uint4 memory[];

typedef float Values[TILES][4];        // one strip of own rows x other rows
typedef float Sums[HEAD / 8][4];       // one strip of own rows x width
typedef unsigned Left[STRIPS][4];      // the left operands of all strips

DEVICE int lane_of() { return threadIdx.x & 31; }
DEVICE int strip_row(int m) { return (threadIdx.x / 32 * STRIPS + m) * 16; }
DEVICE int own_row(int m) { return strip_row(m) + lane_of() / 4; }  // and this + 8
DEVICE int other_row() { return lane_of() % 4 * 2; }                // and this + 1

template <class H> struct Pair;
template <> struct Pair<__half> {
    DEVICE static unsigned of(float low, float high) {
        __half2 both = __floats2half2_rn(low, high);
        return *reinterpret_cast<unsigned*>(&both);
    }
};
template <> struct Pair<__nv_bfloat16> {
    DEVICE static unsigned of(float low, float high) {
        __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
        return *reinterpret_cast<unsigned*>(&both);
    }
};

// Starts to copy `count` rows of `width` values to shared memory: zeros beyond `left` rows, and up
// to a multiple of 16 columns. `wide`: 16 bytes at a time.
DEVICE void fetch(T* to, const T* from, int count, int left, int width, bool wide) {
#pragma unroll 1  // side by side, their addresses would need too many registers
    for (int e = threadIdx.x; e < count * (HEAD / 8); e += THREADS) {
        int row = e / (HEAD / 8), column = e % (HEAD / 8) * 8;
        if (column >= (width + 15) / 16 * 16) continue;
        T* at = to + row * PITCH + column;
        const T* source = from + (long long)row * width + column;
        if (wide) {
            cp_async16(at, source, row < left && column < width);
        } else {
#pragma unroll 1
            for (int i = 0; i < 8; i++)
                at[i] = row < left && column + i < width ? source[i] : down<T>(0.f);
        }
    }
}

// The left operands of the warp's own rows, columns 16 d...
DEVICE void left_operands(Left& a, const T* own, int d) {
    int lane = lane_of();
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
        ldmatrix_x4(a[m], own + (strip_row(m) + lane % 16) * PITCH + d * 16 + lane / 16 * 8);
}

// d0 and d1 += a (two right operands, of 8 columns each).
DEVICE void two_products(float (&d0)[4], float (&d1)[4], const unsigned (&a)[4],
                         const unsigned (&b)[4]) {
    unsigned first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
    mma_16816<T>(d0, a, first);
    mma_16816<T>(d1, a, second);
}

// values += own rows . other rows, for one slice of 16 columns of both.
DEVICE void slice_product(Values (&values)[STRIPS], const Left& a, const T* others, int d) {
    int lane = lane_of();
#pragma unroll
    for (int n = 0; n < TILES / 2; n++) {
        unsigned b[4];
        int row = n * 16 + lane / 16 * 8 + lane % 8;
        ldmatrix_x4(b, others + row * PITCH + d * 16 + lane / 8 % 2 * 8);
#pragma unroll
        for (int m = 0; m < STRIPS; m++)
            two_products(values[m][2 * n], values[m][2 * n + 1], a[m], b);
    }
}

// values += own rows . other rows, all columns.
DEVICE void rows_by_rows(Values (&values)[STRIPS], const T* own, const T* others, int width) {
#pragma unroll
    for (int d = 0; d < SLICES; d++) {
        if (d * 16 >= width) break;
        Left a;
        left_operands(a, own, d);
        slice_product(values, a, others, d);
    }
}

// sums += values others, the other rows' `width` columns.
DEVICE void values_by_rows(Sums (&sums)[STRIPS], const Values (&values)[STRIPS], const T* others,
                           int width) {
    int lane = lane_of();
#pragma unroll
    for (int n = 0; n < TILES; n += 2) {
        Left a;
#pragma unroll
        for (int m = 0; m < STRIPS; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&four)[4] = values[m][n + i / 2];
                a[m][i] = Pair<T>::of(four[i % 2 * 2], four[i % 2 * 2 + 1]);
            }
#pragma unroll
        for (int c = 0; c < SLICES; c++) {
            if (c * 16 >= width) break;
            unsigned b[4];
            ldmatrix_x4_trans(b, others + (n * 8 + lane % 16) * PITCH + c * 16 + lane / 16 * 8);
#pragma unroll
            for (int m = 0; m < STRIPS; m++)
                two_products(sums[m][2 * c], sums[m][2 * c + 1], a[m], b);
        }
    }
}

// query . key -> scores in base 2, -INF where not seen. Own rows are rows of the query, or with
// TURNED rows of the key. own0 and other0: where the block's tiles begin; m: which strip.
template <bool TURNED>
DEVICE void to_scores(Values& s, const Problem& p, const unsigned char* allow, const float* bias,
                      long long head, int own0, int other0, int m) {
    int row0 = TURNED ? other0 : own0, column0 = TURNED ? own0 : other0;
    bool rows_end = row0 + (TURNED ? OTHERS : OWN) > p.rows;
    bool columns_end = column0 + (TURNED ? OWN : OTHERS) > p.columns;
    bool diagonal = p.causal && column0 + (TURNED ? OWN : OTHERS) > row0;
    float scale = float(p.scale * LOG2E);
    unsigned seen = ~0u;
    int own = own0 + own_row(m), other = other0 + other_row();
    long long start = mask_start(p, head);
    if (allow || rows_end || columns_end || diagonal) {
        seen = 0;
#pragma unroll 4  // reads of the mask that are under way at once
        for (int n = 0; n < TILES * 4; n++) {
            int mine = own + n % 4 / 2 * 8, theirs = other + n / 4 * 8 + n % 2;
            bool is = is_seen(p, allow ? allow + start : nullptr, TURNED ? theirs : mine,
                              TURNED ? mine : theirs);
            seen |= unsigned(is) << n;
        }
    }
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        float added[4] = {};
        if (bias) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int mine = own + e / 2 * 8, theirs = other + n * 8 + e % 2;
                if (seen >> (n * 4 + e) & 1)
                    added[e] = bias[start + (TURNED ? theirs : mine) * p.mask_row +
                                    (TURNED ? mine : theirs) * p.mask_column];
            }
#pragma unroll
            for (int e = 0; e < 4; e++) added[e] = masking(added[e]);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float score = s[n][e] * scale + added[e];
            s[n][e] = seen >> (n * 4 + e) & 1 ? score : -INF;
        }
    }
}

// One bit for each of a thread's values: which weights dropout keeps. One counter gives the words
// of four of them, in either layout.
template <bool TURNED>
DEVICE unsigned kept_bits(const Problem& p, long long head, int own0, int other0, int m) {
    if (!p.drops) return ~0u;
    int own = own0 + own_row(m), other = other0 + other_row();
    unsigned bits = 0;
#pragma unroll 1
    for (int i = 0; i < TILES; i++) {
        int n = i & ~1, e = i & 1, theirs = other + n * 8 + e;
        uint4 words = dropout_words(p, head, TURNED ? theirs : own, TURNED ? own : theirs);
        unsigned down_one = TURNED ? words.y : words.z, right_one = TURNED ? words.z : words.y;
        bits |= unsigned(words.x < p.bound) << (n * 4 + e);
        bits |= unsigned(right_one < p.bound) << (n * 4 + 4 + e);
        bits |= unsigned(down_one < p.bound) << (n * 4 + 2 + e);
        bits |= unsigned(words.w < p.bound) << (n * 4 + 6 + e);
    }
    return bits;
}

// Writes a strip of sums times a factor for its rows g and g + 8, to a matrix of `left` rows.
DEVICE void write_strip(T* to, int left, int width, const Sums& sums, int m, float factor0,
                        float factor1) {
    int row0 = own_row(m), column0 = lane_of() % 4 * 2;
#pragma unroll
    for (int c = 0; c < HEAD / 8; c++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = row0 + r * 8, column = c * 8 + column0;
            float factor = r ? factor1 : factor0;
            if (row >= left || column >= width) continue;
            T* at = to + (long long)row * width + column;
            float low = sums[c][2 * r] * factor, high = sums[c][2 * r + 1] * factor;
            if (width % 2 == 0) {
                *reinterpret_cast<unsigned*>(at) = Pair<T>::of(low, high);
            } else {
                at[0] = down<T>(low);
                if (column + 1 < width) at[1] = down<T>(high);
            }
        }
}

// Whether rows of a matrix can be copied 16 bytes at a time.
DEVICE bool is_wide(const T* matrix, int width) { return width % 8 == 0 && aligned(matrix, 16); }
