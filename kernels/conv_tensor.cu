// Convolution on tensor cores: float16 and bfloat16, and float32 in TF32 where that is allowed.
//
// conv_forward_mma: y (samples, groups * rows, *result) = the product of conv_forward (see conv.cu) of
//   x (samples, *source, groups, padded), channels last, with w (groups, rows, taps, padded), both of
//   conv_layout.cu: channels padded with zeros to 16 bytes.
// conv_pointwise_mma: the same for 1 x 1, stride 1, one group, a plane that is a multiple of 16 bytes:
//   x (samples, depth, plane) as it is, since 16 bytes of one channel are places side by side.
// conv_pointwise_weight_grad_mma: part (splits, rows, depth) for the same case, from x and
//   dy (samples, rows, plane) as they are: 16 bytes of one channel are steps of the sum.
// conv_weight_grad_mma: part (splits, groups, rows, taps * padded) of float from x and
//   dy (samples, *result, groups, padded_dy), both channels last: see conv_weight_grad.
// Launch: any grid of THREADS threads; tiles of BM x BN results, WM x WN for each warp; dynamic shared
// memory for STAGES * (BM + BN) * DEEP values, 64 spots and BN of long long.
// Deterministic: each result is summed by one warp, k ascending; shares have a fixed order. Sums are
// float; results are rounded once. FLOPs: as in conv.cu.
// Reference: columns.py.
//
// Operands come through cp.async, STAGES - 1 steps ahead, in chunks of 16 bytes. Channels last, a
// chunk is 8 (4) channels of a tap at a place, so there is one test and one address for it, and the
// copy that brings an array into this order costs one pass over it, against 9 for a 3 x 3. For each
// 16 x 8 x 16 product a 64 x 64 warp reads 128 bytes from shared memory, a 64 x 32 one 192: half and
// three quarters of what an SM gives in the time (256, sm_80). Chunks are permuted (`along`,
// `across`) so that no reader meets a bank twice.
#include "conv.cuh"
#include "mma.cuh"

constexpr int VEC = 16 / sizeof(T);  // values of a chunk
constexpr int CHUNKS = 4, DEEP = CHUNKS * VEC;  // of the summed axis, in a step
constexpr int STAGES = 3;
constexpr int THREADS = BM / WM * (BN / WN) * 32;
constexpr int LEFT = BM * DEEP, RIGHT = BN * DEEP;  // values of a stage
constexpr int LEFTS = BM * CHUNKS / THREADS, RIGHTS = BN * CHUNKS / THREADS;  // chunks of a thread

// Before sm_80 tensor cores know float16 alone; the launcher does not come here with other types.
template <class S> struct Known { static const bool before_80 = false; };
template <> struct Known<__half> { static const bool before_80 = true; };
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool SERVED = Known<T>::before_80;
constexpr int RESIDENT = 1;  // shared memory has no room for more
#else
constexpr bool SERVED = true;
constexpr int RESIDENT = BM * BN >= 128 * 128 ? 2 : 3;  // blocks that registers must leave room for
#endif
constexpr int ROOM = sizeof(T) == 4 ? 1 : RESIDENT;  // the weight gradient's: `word` takes addresses

// Where a chunk lies in a tile. Along: a row has DEEP values of the summed axis, four chunks; eight
// rows are read at once. Across: there are DEEP rows of WIDE chunks; the rows read at once are eight
// (16-bit values, transposed on the way) or four (32 bits, word by word).
DEVICE int along(int row, int chunk) { return (row * CHUNKS + (chunk ^ (row >> 1 & 3))) * VEC; }
template <int WIDE> DEVICE int across(int row, int chunk) {
    int turn = sizeof(T) == 4 ? row * 2 & 7 : WIDE >= 8 ? row & 7 : row >> 1 & 3;
    return (row * WIDE + (chunk ^ turn)) * VEC;
}

DEVICE void product(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const __half*) {
    mma_16816<__half>(d, a, b);
}
DEVICE void product(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const __nv_bfloat16*) {
    mma_16816<__nv_bfloat16>(d, a, b);
}
DEVICE void product(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float*) {
    mma_1688_tf32(d, a, b);
}

// A 32-bit value of a tile that is stored across: the tensor core wants the other order, which
// ldmatrix gives for 16 bits only.
template <int SIDE> DEVICE unsigned word(const T* tile, int k, int m) {
    return reinterpret_cast<const unsigned*>(tile + across<SIDE / VEC>(k, m / VEC))[m % VEC];
}

// The fragments of a warp for half a step (16 or 8 of the summed axis): rows m.. of the left tile.
template <bool ACROSS> DEVICE void left_of(unsigned (&a)[4], const T* tile, int m, int half, int lane) {
    if (!ACROSS) {
        ldmatrix_x4(a, tile + along(m + (lane & 15), half * 2 + (lane >> 4)));
    } else if (sizeof(T) == 2) {
        int k = half * 16 + (lane & 7) + (lane >> 4) * 8;
        ldmatrix_x4_trans(a, tile + across<BM / VEC>(k, m / 8 + (lane >> 3 & 1)));
    } else {
        int k = half * 8 + lane % 4;
        m += lane / 4;
        a[0] = word<BM>(tile, k, m), a[1] = word<BM>(tile, k, m + 8);
        a[2] = word<BM>(tile, k + 4, m), a[3] = word<BM>(tile, k + 4, m + 8);
    }
}
// Columns n.. n + 15 of the right tile: two fragments.
template <bool ACROSS> DEVICE void right_of(unsigned (&b)[2][2], const T* tile, int n, int half, int lane) {
    unsigned r[4];
    if (!ACROSS) {
        ldmatrix_x4(r, tile + along(n + (lane & 7) + (lane >> 4) * 8, half * 2 + (lane >> 3 & 1)));
    } else if (sizeof(T) == 2) {
        int k = half * 16 + (lane & 15);
        ldmatrix_x4_trans(r, tile + across<BN / VEC>(k, n / 8 + (lane >> 4)));
    } else {
        int k = half * 8 + lane % 4;
        n += lane / 4;
        r[0] = word<BN>(tile, k, n), r[1] = word<BN>(tile, k + 4, n);
        r[2] = word<BN>(tile, k, n + 8), r[3] = word<BN>(tile, k + 4, n + 8);
    }
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

typedef float Sums[WM / 16][WN / 8][4];

DEVICE void clear(Sums& sum) {
#pragma unroll
    for (int i = 0; i < WM / 16; i++)
#pragma unroll
        for (int j = 0; j < WN / 8; j++)
#pragma unroll
            for (int v = 0; v < 4; v++) sum[i][j][v] = 0;
}

template <int N> DEVICE void round_tf32(unsigned (&r)[N]) {
#pragma unroll
    for (int v = 0; v < N; v++) r[v] = to_tf32(__uint_as_float(r[v]));
}

// sum += a step's product. ROUND_LEFT, ROUND_RIGHT: that tile may be float32 which conv_layout.cu has
// not rounded to TF32.
template <bool LEFT_ACROSS, bool RIGHT_ACROSS, bool ROUND_LEFT, bool ROUND_RIGHT>
DEVICE void multiply(Sums& sum, const T* left, const T* right) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int m0 = warp / (BN / WN) * WM, n0 = warp % (BN / WN) * WN;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        unsigned a[WM / 16][4], b[WN / 16][2][2];
#pragma unroll
        for (int i = 0; i < WM / 16; i++) {
            left_of<LEFT_ACROSS>(a[i], left, m0 + i * 16, half, lane);
            if (ROUND_LEFT && sizeof(T) == 4) round_tf32(a[i]);
        }
#pragma unroll
        for (int j = 0; j < WN / 16; j++) {
            right_of<RIGHT_ACROSS>(b[j], right, n0 + j * 16, half, lane);
            if (ROUND_RIGHT && sizeof(T) == 4) round_tf32(b[j][0]), round_tf32(b[j][1]);
        }
#pragma unroll
        for (int i = 0; i < WM / 16; i++)
#pragma unroll
            for (int j = 0; j < WN / 8; j++) product(sum[i][j], a[i], b[j / 2][j % 2], (const T*)0);
    }
}

// A chunk from memory, or zeros: cp.async wants an aligned address even where it reads nothing.
DEVICE void bring(T* to, const T* base, long long at, bool there) {
    cp_async16(to, base + (there ? at : 0), there);
}

// All steps of a tile. `fetch(step, stage)` starts a step's copies; it may use what was written to
// shared memory before the previous call of it.
template <bool LEFT_ACROSS, bool RIGHT_ACROSS, bool ROUND_LEFT, bool ROUND_RIGHT, class F>
DEVICE void pipeline(Sums& sum, const T* left, const T* right, int first, int last, F fetch) {
    int stage = 0, ahead = 0;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (first + s < last) fetch(first + s, ahead);
        cp_async_commit();
        ahead++;
        __syncthreads();
    }
    for (int step = first; step < last; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // the step has come for all threads, and all are done with the one before
        if (step + STAGES - 1 < last) fetch(step + STAGES - 1, ahead);
        cp_async_commit();
        multiply<LEFT_ACROSS, RIGHT_ACROSS, ROUND_LEFT, ROUND_RIGHT>(sum, left + stage * LEFT,
                                                                     right + stage * RIGHT);
        stage = stage + 1 < STAGES ? stage + 1 : 0;
        ahead = ahead + 1 < STAGES ? ahead + 1 : 0;
    }
    cp_async_wait<0>();
    __syncthreads();
}

// The block's results. `target[column]` is where a place's lie in a channel's plane, -1 for none;
// `pairs`: columns 2i and 2i + 1 lie side by side, aligned.
DEVICE void write(const Sums& sum, const T* bias, T* y, const long long* target, int m0, int rows,
                  long long plane, bool pairs, int activation) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wm = warp / (BN / WN) * WM + lane / 4, wn = warp % (BN / WN) * WN + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < WM / 16; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = m0 + wm + i * 16 + h * 8;
            if (row >= rows) continue;
            float add = bias ? up(bias[row]) : 0.f;
#pragma unroll
            for (int j = 0; j < WN / 8; j++) {
                Vec<T, 2> out;
                out[0] = down<T>(finished(sum[i][j][h * 2], add, activation));
                out[1] = down<T>(finished(sum[i][j][h * 2 + 1], add, activation));
                T* to = y + row * plane;
                long long one = target[wn + j * 8], two = target[wn + j * 8 + 1];
                if (pairs && one >= 0) {
                    store<2>(to + one, out);
                } else {
                    if (one >= 0) to[one] = out[0];
                    if (two >= 0) to[two] = out[1];
                }
            }
        }
}

// The block's share of a weight gradient (rows, width); `width` is even.
DEVICE void share(const Sums& sum, float* part, int m0, int n0, int rows, int width) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wm = m0 + warp / (BN / WN) * WM + lane / 4, wn = n0 + warp % (BN / WN) * WN + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < WM / 16; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int j = 0; j < WN / 8; j++) {
                int row = wm + i * 16 + h * 8, column = wn + j * 8;
                if (row < rows && column < width)
                    store<2>(part + (long long)row * width + column,
                             Vec<float, 2>{{sum[i][j][h * 2], sum[i][j][h * 2 + 1]}});
            }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) conv_forward_mma(
    const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ bias, T* __restrict__ y,
    const Conv c, int padded, int activation) {
    if (!SERVED) return;
    extern __shared__ __align__(16) unsigned char memory[];
    T* left = reinterpret_cast<T*>(memory);
    T* right = left + STAGES * LEFT;
    Spot* ring = reinterpret_cast<Spot*>(right + STAGES * RIGHT);  // taps with a chunk of channels
    long long* target = reinterpret_cast<long long*>(ring + RING);
    __shared__ Phase f;
    const int tid = threadIdx.x, plane = volume(c.result), from = volume(c.source);
    const int places = c.samples * volume(c.places), pitch = c.groups * padded;
    const int across = (c.rows + BM - 1) / BM, along_ = (places + BN - 1) / BN, phases = phases_of(c);
    const long long tiles = (long long)c.groups * phases * along_ * across;
    const long long line = (long long)volume(c.kernel) * padded;  // a row of weights
    const int chunk = tid % CHUNKS;
    const bool pairs = phases == 1 && plane % 2 == 0 && aligned(y, 2 * sizeof(T));

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int m0 = int(tile % across) * BM, n0 = int(tile / across % along_) * BN;
        const int phase = int(tile / across / along_ % phases), g = int(tile / across / along_ / phases);
        if (tid == 0) f = phase_of(c, phase);
        __syncthreads();
        const int count = taps_of(f) * (padded / VEC), steps = (count + CHUNKS - 1) / CHUNKS;
        const Layout source = {(long long)from * pitch, pitch};
        const Layout result = {(long long)c.groups * c.rows * plane, 1};
        const T* xg = x + g * padded;
        const T* wg = w + ((long long)g * c.rows + m0) * line;

        Spot place[RIGHTS];
#pragma unroll
        for (int i = 0; i < RIGHTS; i++) {
            int column = tid / CHUNKS + i * (THREADS / CHUNKS);
            place[i] = place_of(c, f, n0 + column, places, source, result);
            if (chunk == 0) target[column] = place[i].other;
        }
        if (tid < 32) ring[tid] = tap_of(c, f, tid, count, pitch, VEC, c.per_tap.by, 1);
        __syncthreads();

        Sums sum;
        clear(sum);
        pipeline<false, false, false, false>(sum, left, right, 0, steps, [&](int step, int stage) {
            int k0 = step * CHUNKS;
            if (k0 % 32 == 0 && tid < 32)
                ring[(k0 + 32 + tid) % RING] =
                    tap_of(c, f, k0 + 32 + tid, count, pitch, VEC, c.per_tap.by, 1);
            const Spot tap = ring[(k0 + chunk) % RING];
#pragma unroll
            for (int i = 0; i < LEFTS; i++) {
                int row = tid / CHUNKS + i * (THREADS / CHUNKS);
                bring(left + stage * LEFT + along(row, chunk), wg, row * line + tap.other * VEC,
                      tap.other >= 0 && m0 + row < c.rows);
            }
#pragma unroll
            for (int i = 0; i < RIGHTS; i++) {
                int column = tid / CHUNKS + i * (THREADS / CHUNKS);
                bring(right + stage * RIGHT + along(column, chunk), xg, place[i].at + tap.at,
                      inside(c, place[i], tap));
            }
        });
        write(sum, bias ? bias + g * c.rows : bias, y + (long long)g * c.rows * plane, target, m0, c.rows,
              plane, pairs, activation);
        __syncthreads();  // target is filled anew
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) conv_pointwise_mma(
    const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ bias, T* __restrict__ y,
    int samples, int rows, int depth, int plane, int padded, int activation) {
    if (!SERVED) return;
    extern __shared__ __align__(16) unsigned char memory[];
    T* left = reinterpret_cast<T*>(memory);
    T* right = left + STAGES * LEFT;
    long long* target = reinterpret_cast<long long*>(right + STAGES * RIGHT);
    const int tid = threadIdx.x, places = samples * plane;
    const int across_ = (rows + BM - 1) / BM, along_ = (places + BN - 1) / BN;
    const long long tiles = (long long)along_ * across_;
    constexpr int WIDE = BN / VEC;  // chunks of a row of places
    const int chunk = tid % CHUNKS, column = tid % WIDE;

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int m0 = int(tile % across_) * BM, n0 = int(tile / across_) * BN;
        const T* wg = w + (long long)m0 * padded;
        const int p = n0 + column * VEC, n = p / plane;
        const long long at = (long long)n * depth * plane + (p - n * plane);
        for (int i = tid; i < BN; i += THREADS) {
            int sample = (n0 + i) / plane;
            target[i] = n0 + i < places ? (long long)sample * rows * plane + (n0 + i - sample * plane) : -1;
        }
        Sums sum;
        clear(sum);
        const int steps = (depth + DEEP - 1) / DEEP;
        pipeline<false, true, false, true>(sum, left, right, 0, steps, [&](int step, int stage) {
#pragma unroll
            for (int i = 0; i < LEFTS; i++) {
                int row = tid / CHUNKS + i * (THREADS / CHUNKS), d = step * DEEP + chunk * VEC;
                bring(left + stage * LEFT + along(row, chunk), wg, (long long)row * padded + d,
                      d < padded && m0 + row < rows);
            }
#pragma unroll
            for (int i = 0; i < RIGHTS; i++) {
                int k = tid / WIDE + i * (THREADS / WIDE), d = step * DEEP + k;
                bring(right + stage * RIGHT + across<WIDE>(k, column), x, at + (long long)d * plane,
                      d < depth && p < places);
            }
        });
        write(sum, bias, y, target, m0, rows, plane, plane % 2 == 0, activation);
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, ROOM) conv_weight_grad_mma(
    const T* __restrict__ x, const T* __restrict__ dy, float* __restrict__ part, const Conv c, int padded,
    int padded_dy, int splits) {
    if (!SERVED) return;
    extern __shared__ __align__(16) unsigned char memory[];
    T* left = reinterpret_cast<T*>(memory);
    T* right = left + STAGES * LEFT;
    Spot* ring = reinterpret_cast<Spot*>(right + STAGES * RIGHT);  // places
    __shared__ Phase f;
    const int tid = threadIdx.x, plane = volume(c.result), from = volume(c.source);
    const int places = c.samples * plane, width = volume(c.kernel) * padded;
    const int pitch = c.groups * padded, pitch_dy = c.groups * padded_dy;
    const int across_ = (c.rows + BM - 1) / BM, along_ = (width + BN - 1) / BN;
    const long long tiles = (long long)splits * c.groups * along_ * across_;
    const int all = (places + DEEP - 1) / DEEP, each = (all + splits - 1) / splits;
    const Layout source = {(long long)from * pitch, pitch}, result = {(long long)plane * pitch_dy, pitch_dy};
    constexpr int LEFT_WIDE = BM / VEC, RIGHT_WIDE = BN / VEC;
    const int left_chunk = tid % LEFT_WIDE, right_chunk = tid % RIGHT_WIDE;
    if (tid == 0) f = phase_of(c, 0);
    __syncthreads();

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int m0 = int(tile % across_) * BM, n0 = int(tile / across_ % along_) * BN;
        const int g = int(tile / across_ / along_ % c.groups);
        const int split = int(tile / across_ / along_ / c.groups);
        const int first = split * each, last = first + each < all ? first + each : all;
        const T *xg = x + g * padded, *dyg = dy + g * padded_dy;
        const int row_chunk = m0 + left_chunk * VEC;
        const Spot tap = tap_of(c, f, n0 / VEC + right_chunk, width / VEC, pitch, VEC);

        auto fill = [&](int p) { ring[p % RING] = place_of(c, f, p, places, source, result); };
        if (tid < 32) fill((first * DEEP & ~31) + tid);
        __syncthreads();
        Sums sum;
        clear(sum);
        pipeline<true, true, false, false>(sum, left, right, first, last, [&](int step, int stage) {
            int p0 = step * DEEP;
            if ((p0 % 32 == 0 || step == first) && tid < 32) fill((p0 & ~31) + 32 + tid);
#pragma unroll
            for (int i = 0; i < LEFTS; i++) {
                int k = tid / LEFT_WIDE + i * (THREADS / LEFT_WIDE);
                long long at = ring[(p0 + k) % RING].other;
                bring(left + stage * LEFT + across<LEFT_WIDE>(k, left_chunk), dyg, at + row_chunk,
                      row_chunk < padded_dy && at >= 0);
            }
#pragma unroll
            for (int i = 0; i < RIGHTS; i++) {
                int k = tid / RIGHT_WIDE + i * (THREADS / RIGHT_WIDE);
                const Spot& place = ring[(p0 + k) % RING];
                bring(right + stage * RIGHT + across<RIGHT_WIDE>(k, right_chunk), xg,
                      place.at + tap.at, inside(c, place, tap));
            }
        });
        share(sum, part + ((long long)split * c.groups + g) * c.rows * width, m0, n0, c.rows, width);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) conv_pointwise_weight_grad_mma(
    const T* __restrict__ x, const T* __restrict__ dy, float* __restrict__ part, int samples, int rows,
    int depth, int plane, int width, int splits) {
    if (!SERVED) return;
    extern __shared__ __align__(16) unsigned char memory[];
    T* left = reinterpret_cast<T*>(memory);
    T* right = left + STAGES * LEFT;
    const int tid = threadIdx.x, places = samples * plane, chunk = tid % CHUNKS;
    const int across_ = (rows + BM - 1) / BM, along_ = (depth + BN - 1) / BN;
    const long long tiles = (long long)splits * along_ * across_;
    const int all = (places + DEEP - 1) / DEEP, each = (all + splits - 1) / splits;

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int m0 = int(tile % across_) * BM, n0 = int(tile / across_ % along_) * BN;
        const int split = int(tile / across_ / along_), first = split * each;
        const int last = first + each < all ? first + each : all;
        Sums sum;
        clear(sum);
        pipeline<false, false, true, true>(sum, left, right, first, last, [&](int step, int stage) {
            const int p = step * DEEP + chunk * VEC, n = p / plane, at = p - n * plane;
            const T* dyn = dy + (long long)n * rows * plane + at;
            const T* xn = x + (long long)n * depth * plane + at;
#pragma unroll
            for (int i = 0; i < LEFTS; i++) {
                int row = tid / CHUNKS + i * (THREADS / CHUNKS);
                bool there = p < places && m0 + row < rows;
                bring(left + stage * LEFT + along(row, chunk), there ? dyn : dy,
                      (long long)(m0 + row) * plane, there);
            }
#pragma unroll
            for (int i = 0; i < RIGHTS; i++) {
                int row = tid / CHUNKS + i * (THREADS / CHUNKS);
                bool there = p < places && n0 + row < depth;
                bring(right + stage * RIGHT + along(row, chunk), there ? xn : x,
                      (long long)(n0 + row) * plane, there);
            }
        });
        share(sum, part + (long long)split * rows * width, m0, n0, rows, width);
    }
}
