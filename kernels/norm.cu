// Normalisation of rows that fit into the registers of a team of threads: layer, RMS, group and
// instance norm. Longer rows, and the backward pass of group and instance norm, are batch_norm.cu's.
//
// T is the type of x, y, dy, dx; W of weight, bias and their gradients; mean and rstd are Acc. Arrays
// are C-contiguous; x and y are (rows, n). Every kernel takes any grid.
//
//   row_norm_forward(x, weight|0, bias|0, y, mean|0, rstd, rows, n, groups, run, eps, rms, team)
//       y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(mean of (x - mean)^2 + eps); with rms
//       mean = 0. Element j of row r has the weight (r % groups) * (n / run) + j / run. `team`
//       threads a row: 32, or blockDim.x (a multiple of 32, at most 1024); n <= team * KEEP * V.
//       Must move: rows * n * 2 * sizeof(T): x is read once.
//   row_norm_backward(x, dy, weight|0, mean|0, rstd, dx|0, sums|0, rows, n, rms, team)
//       dx = rstd * (g - mean of g - xhat * mean of (g * xhat)), g = dy * weight, xhat = (x - mean) *
//       rstd; with rms without the mean of g. sums (gridDim.x, 2, n) gets each block's part of
//       sum of dy * xhat and sum of dy over the rows. blockDim.x at most 512.
//       Must move: rows * n * 3 * sizeof(T): x and dy are read once, for dx and for the sums.
//   row_norm_weight_grad(sums, dweight|0, dbias|0, parts, n)
//       adds up the blocks' parts; blockDim (32, 16).
//
// Statistics take two passes over the registers: exact where Welford's or sums of squares would
// lose digits, and free, since nothing is read again. Sums run in an order that the launch shape
// fixes, and the launcher fixes that for a shape and a device: deterministic.
// Python reference: gpunn/nn/row_norm.py, _forward_arrays and _backward_arrays.
#include "norm.cuh"

// How a team holds a row: each lane KEEP chunks of V values. Where everything is aligned a chunk is
// V neighbours, moved at once; otherwise its values lie `team` apart, so that lanes read neighbours.
struct Row {
    int team, lane, n;
    bool wide;
    DEVICE int column(int chunk, int k) const {
        return wide ? (chunk * team + lane) * V + k : (chunk * V + k) * team + lane;
    }
    DEVICE bool reaches(int chunk) const { return chunk * team * V < n; }  // the same for all lanes
    DEVICE Chunk read(const T* row, int chunk) const {  // zeros beyond the row's end
        if (wide) return column(chunk, 0) < n ? chunk_at(row + column(chunk, 0)) : Chunk{};
        Vec<T, V> values;
#pragma unroll
        for (int k = 0; k < V; k++) {
            int j = column(chunk, k);
            values[k] = j < n ? row[j] : down<T>(Acc(0));
        }
        return packed(values);
    }
    DEVICE void write(T* row, int chunk, const Vec<T, V>& values) const {
        if (wide) {
            if (column(chunk, 0) < n) store(row + column(chunk, 0), values);
            return;
        }
#pragma unroll
        for (int k = 0; k < V; k++)
            if (column(chunk, k) < n) row[column(chunk, k)] = values[k];
    }
};

// f(k, weight) for each value k of a chunk that lies in the row; run is the values of one weight.
template <class F>
DEVICE void with_weights(const W* weights, const Row& row, int run, int chunk, const F& f) {
    int j = row.column(chunk, 0);
    if (row.wide && run == 1) {
        constexpr int AT_ONCE = sizeof(W) == sizeof(T) ? V : 2;  // more: no registers
        if (j >= row.n) return;
#pragma unroll
        for (int i = 0; i < V; i += AT_ONCE) {
            auto w = load<AT_ONCE>(weights + j + i);
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++) f(i + k, up(w[k]));
        }
    } else if (row.wide && run % V == 0) {
        if (j >= row.n) return;
        Acc w = up(weights[j / run]);
#pragma unroll
        for (int k = 0; k < V; k++) f(k, w);
    } else {
#pragma unroll
        for (int k = 0; k < V; k++) {
            j = row.column(chunk, k);
            if (j < row.n) f(k, up(weights[j / run]));
        }
    }
}

// spills: on sm_100 and sm_120 the 64 registers of 1024 threads are a few short for 16-bit rows.
extern "C" __global__ void __launch_bounds__(KEEP == 1 ? 256 : 1024, KEEP == 1 ? 4 : 1) row_norm_forward(
    const T* __restrict__ x, const W* __restrict__ weight, const W* __restrict__ bias,
    T* __restrict__ y, Acc* mean, Acc* rstd, long long rows, int n, int groups, int run, double eps,
    bool rms, int team_size) {
    __shared__ Acc scratch[32];
    bool wide = n % V == 0 && aligned(x, 16) && aligned(y, 16) && aligned(weight, 16) &&
                aligned(bias, 16);
    Team team = my_team(team_size);
    Row row = {team.size, team.lane, n, wide};
    for (long long r = team.number; r < rows; r += team.count) {
        Chunk kept[KEEP];
        Acc sum = 0, square = 0;
#pragma unroll
        for (int c = 0; c < KEEP; c++)
            if (row.reaches(c)) kept[c] = row.read(x + r * n, c);
#pragma unroll
        for (int c = 0; c < KEEP; c++)
            if (row.reaches(c))
#pragma unroll
                for (int k = 0; k < V; k++) sum += kept[c][k];
        Acc m = rms ? Acc(0) : team_sum(sum, team, scratch) / n;
#pragma unroll
        for (int c = 0; c < KEEP; c++)
            if (row.reaches(c)) {
#pragma unroll
                for (int k = 0; k < V; k++) {
                    Acc apart = kept[c][k] - m;
                    square += row.column(c, k) < n ? apart * apart : Acc(0);
                }
            }
        Acc s = 1 / sqrt(team_sum(square, team, scratch) / n + Acc(eps));
        if (team.lane == 0) {
            if (mean) mean[r] = m;
            rstd[r] = s;
        }
        long long first = r % groups * (n / run);
#pragma unroll
        for (int c = 0; c < KEEP; c++) {
            if (!row.reaches(c)) continue;
            Acc v[V];
#pragma unroll
            for (int k = 0; k < V; k++) v[k] = (kept[c][k] - m) * s;
            if (weight) with_weights(weight + first, row, run, c, [&](int k, Acc w) { v[k] *= w; });
            if (bias) with_weights(bias + first, row, run, c, [&](int k, Acc w) { v[k] += w; });
            Vec<T, V> out;
#pragma unroll
            for (int k = 0; k < V; k++) out[k] = down<T>(v[k]);
            row.write(y + r * n, c, out);
        }
    }
}

// The block's warps add their sums up, one after the other, in shared memory.
DEVICE void add_up_warps(Acc (&values)[KEEP * V], Acc* shared) {
    for (int warp = 0; warp < int(blockDim.x) / 32; warp++) {
        __syncthreads();
        if (int(threadIdx.x) / 32 != warp) continue;
#pragma unroll
        for (int i = 0; i < KEEP * V; i++) {
            Acc* place = shared + i * 32 + threadIdx.x % 32;
            values[i] = *place = warp ? *place + values[i] : values[i];
        }
    }
}

// spills: on sm_75 the 64 sums of a thread of 16-bit rows leave 6 registers too few.
extern "C" __global__ void __launch_bounds__(KEEP == 1 ? 256 : 512, KEEP == 1 ? 3 : 1) row_norm_backward(
    const T* __restrict__ x, const T* __restrict__ dy, const W* __restrict__ weight,
    const Acc* __restrict__ mean, const Acc* __restrict__ rstd, T* __restrict__ dx,
    Acc* __restrict__ sums, long long rows, int n, bool rms, int team_size) {
    __shared__ Acc scratch[32], together[KEEP * V * 32];
    bool wide = n % V == 0 && aligned(x, 16) && aligned(dy, 16) && aligned(dx, 16) &&
                aligned(weight, 16);
    Team team = my_team(team_size);
    Row row = {team.size, team.lane, n, wide};
    Acc dw[KEEP * V] = {}, db[KEEP * V] = {};
    for (long long r = team.number; r < rows; r += team.count) {
        Chunk xs[KEEP], gs[KEEP];
        Acc m = mean ? mean[r] : Acc(0), s = rstd[r], sum = 0, product = 0;
#pragma unroll
        for (int c = 0; c < KEEP; c++)
            if (row.reaches(c)) {
                xs[c] = row.read(x + r * n, c);
                gs[c] = row.read(dy + r * n, c);
            }
#pragma unroll
        for (int c = 0; c < KEEP; c++) {
            if (!row.reaches(c)) continue;
            auto both = [&](int k, Acc w) {  // where the row ends gs is 0
                Acc g = gs[c][k], unit = (xs[c][k] - m) * s;
                dw[c * V + k] += g * unit;
                db[c * V + k] += g;
                sum += g * w;
                product += g * w * unit;
            };
            if (weight) {
                with_weights(weight, row, 1, c, both);
            } else {
#pragma unroll
                for (int k = 0; k < V; k++) both(k, 1);
            }
        }
        if (!dx) continue;
        sum = rms ? Acc(0) : team_sum(sum, team, scratch) / n;
        product = team_sum(product, team, scratch) / n;
#pragma unroll
        for (int c = 0; c < KEEP; c++) {
            if (!row.reaches(c)) continue;
            Vec<T, V> out;
            auto one = [&](int k, Acc w) {
                Acc unit = (xs[c][k] - m) * s;
                out[k] = down<T>(s * (gs[c][k] * w - sum - unit * product));
            };
            if (weight) {
                with_weights(weight, row, 1, c, one);
            } else {
#pragma unroll
                for (int k = 0; k < V; k++) one(k, 1);
            }
            row.write(dx + r * n, c, out);
            __syncwarp();  // so that the next chunk's weights are not loaded early: no registers
        }
    }
    if (!sums) return;
    bool writes = true;
    if (team.size == 32 && blockDim.x > 32) {
        add_up_warps(dw, together);
        add_up_warps(db, together);
        writes = threadIdx.x / 32 == blockDim.x / 32 - 1;  // the last one has the whole
    }
    if (!writes) return;
    sums += blockIdx.x * 2LL * n;
#pragma unroll
    for (int i = 0; i < KEEP * V; i++) {
        int j = row.column(i / V, i % V);
        if (j < n) {
            sums[j] = dw[i];
            sums[n + j] = db[i];
        }
    }
}

extern "C" __global__ void __launch_bounds__(512) row_norm_weight_grad(
    const Acc* __restrict__ sums, W* dweight, W* dbias, int parts, int n) {
    __shared__ Acc all[16][33];
    for (int tile = blockIdx.x; tile < 2 * ((n + 31) / 32); tile += gridDim.x) {
        int kind = tile % 2, j = tile / 2 * 32 + threadIdx.x;
        W* to = kind ? dbias : dweight;
        if (!to) continue;
        Acc total = 0;
        if (j < n)
            for (int p = threadIdx.y; p < parts; p += 16) total += sums[(2LL * p + kind) * n + j];
        __syncthreads();
        all[threadIdx.y][threadIdx.x] = total;
        __syncthreads();
        if (threadIdx.y || j >= n) continue;
        for (int y = 1; y < 16; y++) total += all[y][threadIdx.x];
        to[j] = down<W>(total);
    }
}
