// Convolution of float32 and float64 in 1, 2 and 3 dimensions, in their own precision.
//
// conv_forward: y (samples, groups * rows, *result) = the convolution of x (samples, groups * depth,
//   *source) with w, plus bias (groups * rows) or none, through an activation (0: none, 1: ReLU); or,
//   as `c` says, the input gradient of one (the transposed convolution). w (groups, depth, taps,
//   pitch) comes from conv_layout.cu: a row for each channel and tap, `pitch` a multiple of BM, zeros
//   beyond `rows`. Reference: columns.py, conv_columns and input_grad_columns.
//   2 * samples * places * groups * rows * taps * depth FLOPs; x, w and y move once at best.
// conv_weight_grad: part (splits, groups, rows, taps * depth) of Acc: the products over a share of
//   the places of dy (samples, groups * rows, *result) and x. conv_sum adds the shares up in order.
//   Reference: weight_grad_columns. As many FLOPs.
// Launch: any grid of THREADS = (BM / TM) * (BN / TN) threads; tiles of BM x BN results.
// Deterministic: each result is summed by one thread, k ascending; shares have a fixed order.
//
// A block keeps a BK x BM tile of one operand and a BK x BN tile of the other in shared memory,
// twice: while one pair is multiplied the next is on its way from memory to registers. A thread has
// TM x TN sums; for TM = TN = 8 it reads 16 values from shared memory for 64 multiply-adds, most of
// them the same as its neighbours: 576 bytes a warp in float32, of 2048 that an SM gives in the time.
#include "conv.cuh"

constexpr int THREADS = (BM / TM) * (BN / TN);
constexpr int V = 16 / sizeof(T);  // values that move at once
constexpr int RESIDENT = sizeof(T) == 4 ? 2 : 1;  // blocks that registers must leave room for
constexpr int COLUMNS = BN / TN;   // of the block's threads, so THREADS / COLUMNS rows of them

// V values from and to aligned memory.
DEVICE void take(T* values, const T* from) {
    Vec<T, V> piece = load<V>(from);
#pragma unroll
    for (int v = 0; v < V; v++) values[v] = piece[v];
}
DEVICE void give(T* to, const T* values) {
    Vec<T, V> piece;
#pragma unroll
    for (int v = 0; v < V; v++) piece[v] = values[v];
    store<V>(to, piece);
}

// The row or column of a thread's i-th result: V in a piece, the pieces of all threads side by side.
template <int SIDE> DEVICE int piece(int thread, int i) { return (i / V * SIDE + thread) * V + i % V; }

// sum += the product of two tiles, in the order of k.
template <int L, int R>
DEVICE void multiply(const T (&left)[BK][L], const T (&right)[BK][R], Acc (&sum)[TM][TN], int ty, int tx) {
#pragma unroll 2  // all at once would need more registers than there are
    for (int k = 0; k < BK; k++) {
        T a[TM], b[TN];
#pragma unroll
        for (int i = 0; i < TM; i += V) take(a + i, &left[k][piece<BM / TM>(ty, i)]);
#pragma unroll
        for (int j = 0; j < TN; j += V) take(b + j, &right[k][piece<COLUMNS>(tx, j)]);
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sum[i][j] += a[i] * b[j];
    }
}

constexpr int LEFT = (BM * BK / V + THREADS - 1) / THREADS;  // pieces of V that a thread brings
constexpr int RIGHT = BN * BK / THREADS;                     // values that a thread brings
static_assert(RIGHT * THREADS == BN * BK && THREADS % BN == 0, "whole rows of the right tile");

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) conv_forward(
    const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ bias, T* __restrict__ y,
    const Conv c, int pitch, int activation) {
    __shared__ __align__(16) T left[2][BK][BM];
    __shared__ __align__(16) T right[2][BK][BN];
    __shared__ Spot ring[RING];
    __shared__ long long target[BN];  // where a column's results go
    __shared__ Phase f;
    const int tid = threadIdx.x, ty = tid / COLUMNS, tx = tid % COLUMNS;
    const int plane = volume(c.result), from = volume(c.source), places = c.samples * volume(c.places);
    const int taps = volume(c.kernel);
    const int across = pitch / BM, along = (places + BN - 1) / BN, phases = phases_of(c);
    const long long tiles = (long long)c.groups * phases * along * across;
    const bool wide = phases == 1 && plane % V == 0 && aligned(y, 16);

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int m0 = int(tile % across) * BM, n0 = int(tile / across % along) * BN;
        const int phase = int(tile / across / along % phases), g = int(tile / across / along / phases);
        if (tid == 0) f = phase_of(c, phase);
        __syncthreads();
        const int count = taps_of(f) * c.depth, steps = (count + BK - 1) / BK;
        const Layout source = {(long long)c.groups * c.depth * from, 1};
        const Layout result = {(long long)c.groups * c.rows * plane, 1};
        const T* xg = x + (long long)g * c.depth * from;
        const T* wg = w + (long long)g * taps * c.depth * pitch + m0;
        // Every value of the right tile that this thread brings is of one place.
        const Spot place = place_of(c, f, n0 + tid % BN, places, source, result);

        T a[LEFT][V], b[RIGHT];
        Acc sum[TM][TN];
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sum[i][j] = 0;

        auto bring = [&](int step) {
            int k0 = step * BK;
            if (k0 % 32 == 0 && tid < 32)
                ring[(k0 + 32 + tid) % RING] = tap_of(c, f, k0 + 32 + tid, count, 1, from, 1, taps);
#pragma unroll
            for (int i = 0; i < LEFT; i++) {
                int e = tid + i * THREADS, k = e / (BM / V), m = e % (BM / V) * V;
                if (LEFT * THREADS * V != BM * BK && k >= BK) break;
                long long row = ring[(k0 + k) % RING].other;
                if (row >= 0)
                    take(a[i], wg + row * pitch + m);
                else
#pragma unroll
                    for (int v = 0; v < V; v++) a[i][v] = T(0);
            }
#pragma unroll
            for (int i = 0; i < RIGHT; i++) {
                const Spot& tap = ring[(k0 + tid / BN + i * (THREADS / BN)) % RING];
                b[i] = inside(c, place, tap) ? xg[place.at + tap.at] : T(0);
            }
        };
        auto put = [&](int stage) {
#pragma unroll
            for (int i = 0; i < LEFT; i++) {
                int e = tid + i * THREADS, k = e / (BM / V), m = e % (BM / V) * V;
                if (LEFT * THREADS * V != BM * BK && k >= BK) break;
                give(&left[stage][k][m], a[i]);
            }
#pragma unroll
            for (int i = 0; i < RIGHT; i++)
                right[stage][tid / BN + i * (THREADS / BN)][tid % BN] = b[i];
        };

        if (tid < 32) ring[tid] = tap_of(c, f, tid, count, 1, from, 1, taps);
        if (tid < BN) target[tid] = place.other;
        __syncthreads();
        if (steps) {
            bring(0);
            put(0);
        }
        __syncthreads();
        for (int step = 0; step < steps; step++) {
            if (step + 1 < steps) bring(step + 1);
            multiply(left[step & 1], right[step & 1], sum, ty, tx);
            if (step + 1 < steps) put(step + 1 & 1);
            __syncthreads();
        }

        T* yg = y + (long long)g * c.rows * plane;
#pragma unroll
        for (int i = 0; i < TM; i++) {
            int row = m0 + piece<BM / TM>(ty, i);
            if (row >= c.rows) continue;
            Acc add = bias ? up(bias[g * c.rows + row]) : Acc(0);
#pragma unroll
            for (int j = 0; j < TN; j += V) {
                int column = piece<COLUMNS>(tx, j);
                T out[V];
#pragma unroll
                for (int v = 0; v < V; v++) out[v] = down<T>(finished(sum[i][j + v], add, activation));
                T* to = yg + (long long)row * plane;
                if (wide && target[column] >= 0)
                    give(to + target[column], out);
                else
#pragma unroll
                    for (int v = 0; v < V; v++)
                        if (target[column + v] >= 0) to[target[column + v]] = out[v];
            }
        }
        __syncthreads();  // target and ring are filled anew
    }
}

constexpr int APART = THREADS / BK;  // rows that the block brings at once: consecutive threads, places

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) conv_weight_grad(
    const T* __restrict__ x, const T* __restrict__ dy, Acc* __restrict__ part, const Conv c, int splits) {
    // Neighbouring threads write neighbouring rows: V more values put these into different banks.
    __shared__ __align__(16) T left[2][BK][BM + V];
    __shared__ __align__(16) T right[2][BK][BN + V];
    __shared__ Spot ring[RING];   // places
    __shared__ Spot column[BN];   // taps
    __shared__ Phase f;
    const int tid = threadIdx.x, ty = tid / COLUMNS, tx = tid % COLUMNS;
    const int plane = volume(c.result), from = volume(c.source), places = c.samples * plane;
    const int width = volume(c.kernel) * c.depth;
    const int across = (c.rows + BM - 1) / BM, along = (width + BN - 1) / BN;
    const long long tiles = (long long)splits * c.groups * along * across;
    const int all = (places + BK - 1) / BK, each = (all + splits - 1) / splits;
    if (tid == 0) f = phase_of(c, 0);
    __syncthreads();
    const Layout source = {(long long)c.groups * c.depth * from, 1};
    const Layout result = {(long long)c.groups * c.rows * plane, 1};

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int m0 = int(tile % across) * BM, n0 = int(tile / across % along) * BN;
        const int g = int(tile / across / along % c.groups), split = int(tile / across / along / c.groups);
        const int first = split * each, last = first + each < all ? first + each : all;
        const T* xg = x + (long long)g * c.depth * from;
        const T* dyg = dy + ((long long)g * c.rows + m0) * plane;
        const int k = tid % BK, r = tid / BK;

        T a[BM / APART], b[BN / APART];
        Acc sum[TM][TN];
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sum[i][j] = 0;

        auto fill = [&](int p) { ring[p % RING] = place_of(c, f, p, places, source, result); };
        auto bring = [&](int step) {
            int k0 = step * BK;
            if ((k0 % 32 == 0 || step == first) && tid < 32) fill((k0 & ~31) + 32 + tid);
            const Spot& place = ring[(k0 + k) % RING];
#pragma unroll
            for (int i = 0; i < BM / APART; i++) {
                int row = r + i * APART;
                bool there = place.other >= 0 && m0 + row < c.rows;
                a[i] = there ? dyg[place.other + (long long)row * plane] : T(0);
            }
#pragma unroll
            for (int i = 0; i < BN / APART; i++) {
                const Spot& tap = column[r + i * APART];
                b[i] = inside(c, place, tap) ? xg[place.at + tap.at] : T(0);
            }
        };
        auto put = [&](int stage) {
#pragma unroll
            for (int i = 0; i < BM / APART; i++) left[stage][k][r + i * APART] = a[i];
#pragma unroll
            for (int i = 0; i < BN / APART; i++) right[stage][k][r + i * APART] = b[i];
        };

        if (tid < BN) column[tid] = tap_of(c, f, n0 + tid, width, 1, from);
        if (tid < 32) fill((first * BK & ~31) + tid);
        __syncthreads();
        if (first < last) {
            bring(first);
            put(first & 1);
        }
        __syncthreads();
        for (int step = first; step < last; step++) {
            if (step + 1 < last) bring(step + 1);
            multiply(left[step & 1], right[step & 1], sum, ty, tx);
            if (step + 1 < last) put(step + 1 & 1);
            __syncthreads();
        }

        Acc* out = part + ((long long)split * c.groups + g) * c.rows * width;
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) {
                int row = m0 + piece<BM / TM>(ty, i), col = n0 + piece<COLUMNS>(tx, j);
                if (row < c.rows && col < width) out[(long long)row * width + col] = sum[i][j];
            }
        __syncthreads();  // column and ring are filled anew
    }
}
