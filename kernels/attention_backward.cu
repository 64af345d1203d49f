// Attention, backward, on the ordinary cores: see attention.cu. The weights are computed again from
// the scores and the forward pass's sums, a tile at a time:
//   weight = exp2(score - sums), dweight = dout . value (dropped and scaled as forward),
//   dscore = weight (dweight - delta), delta = sum of dout out over a row,
//   dquery = scale dscore key, dkey = scale dscoreᵀ query, dvalue = weightᵀ dout.
//
//   attention_delta: delta (rows) from out and dout (rows, width). One warp for each row, any grid.
//   attention_query_grad: dquery, a block for each tile of rows; walks over the keys.
//   attention_key_value_grad: dkey and dvalue, a block for each tile of keys; walks over the rows
//     of all heads of the query that share the keys. dkey or dvalue may be null.
//   Launch: 256 threads, any grid. Deterministic: every sum has one owner and a fixed order.
//   Reference: gpunn/nn/attention.py:_backward; the scheme: Dao, "FlashAttention-2" (2023).
//   FLOPs: 2 rows columns (3 width + 2 value_width) a head for both, and the scores and dweights
//   (width + value_width) once more, since each of the two kernels computes them.
#include "attention_tile.cuh"

extern "C" __global__ void __launch_bounds__(256) attention_delta(
    const T* __restrict__ out, const T* __restrict__ dout, Acc* __restrict__ delta, long long rows,
    int width) {
    int lane = threadIdx.x & 31;
    for (long long row = global_index() / 32; row < rows; row += global_stride() / 32) {
        Acc sum = 0;
        for (int c = lane; c < width; c += 32)
            sum += up(out[row * width + c]) * up(dout[row * width + c]);
        sum = warp_sum(sum);
        if (lane == 0) delta[row] = sum;
    }
}

// The rows' numbers from the forward pass; for rows beyond the end such that weights are zero.
struct Rows {
    Acc sums[TM], delta[TM];
    DEVICE Rows(const Acc* all_sums, const Acc* all_delta, const Problem& p, long long head,
                int row0) {
        int y = threadIdx.x / 16;
#pragma unroll
        for (int i = 0; i < TM; i++) {
            int row = row0 + y * TM + i;
            sums[i] = row < p.rows ? all_sums[head * p.rows + row] : Acc(INF);
            delta[i] = row < p.rows ? all_delta[head * p.rows + row] : Acc(0);
        }
    }
};

// query . key -> weights, in place.
DEVICE void to_weights(Acc (&s)[TM][TM], const Rows& known, const unsigned char* allow,
                       const Acc* bias, const Problem& p, long long head, int row0, int k0) {
    to_scores(s, p, allow, bias, head, row0, k0);
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TM; j++) s[i][j] = exp2_of(s[i][j] - known.sums[i]);
}

// spills: on sm_75 and sm_80, float32: a few registers, so that two blocks share a multiprocessor.
extern "C" __global__ void __launch_bounds__(256, BLOCKS) attention_query_grad(
    const T* __restrict__ query, const T* __restrict__ key, const T* __restrict__ value,
    const unsigned char* __restrict__ allow, const Acc* __restrict__ bias,
    const T* __restrict__ dout, const Acc* __restrict__ sums, const Acc* __restrict__ delta,
    T* __restrict__ dquery, const Problem p) {
    __shared__ Matrix space, weights;
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    long long tiles = (p.rows + TILE - 1) / TILE;
    for (long long work = blockIdx.x; work < tiles * p.heads; work += gridDim.x) {
        long long head = work / tiles;
        int row0 = int(tiles - 1 - work % tiles) * TILE;
        const T* q = query + (head * p.rows + row0) * p.width;
        const T* g = dout + (head * p.rows + row0) * p.value_width;
        const T* k = key + head / p.group * p.columns * p.width;
        const T* v = value + head / p.group * p.columns * p.value_width;
        Rows known(sums, delta, p, head, row0);
        Acc dq[TM][HEAD / 16] = {};
        int end = p.causal ? least(p.columns, row0 + TILE) : p.columns;
        for (int k0 = 0; k0 < end; k0 += TILE) {
            Acc s[TM][TM] = {}, dweight[TM][TM] = {};
            rows_by_rows(s, space, q, p.rows - row0, k + (long long)k0 * p.width, p.columns - k0,
                         p.width);
            to_weights(s, known, allow, bias, p, head, row0, k0);
            rows_by_rows(dweight, space, g, p.rows - row0, v + (long long)k0 * p.value_width,
                         p.columns - k0, p.value_width);
            unsigned kept = kept_bits(p, head, row0, k0);
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TM; j++) {
                    Acc d = kept >> (i * TM + j) & 1 ? dweight[i][j] * Acc(p.upscale) : Acc(0);
                    weights[x * TM + j][y * TM + i] = s[i][j] * (d - known.delta[i]);
                }
            weights_by_rows(dq, weights, space, k + (long long)k0 * p.width, p.columns - k0,
                            p.width);
        }
        Acc factor[TM];
#pragma unroll
        for (int i = 0; i < TM; i++) factor[i] = Acc(p.scale);
        write_rows(dquery + (head * p.rows + row0) * p.width, p.rows - row0, p.width, dq, factor);
    }
}

// spills: on sm_90, float32: one register, for the same reason.
extern "C" __global__ void __launch_bounds__(256, BLOCKS) attention_key_value_grad(
    const T* __restrict__ query, const T* __restrict__ key, const T* __restrict__ value,
    const unsigned char* __restrict__ allow, const Acc* __restrict__ bias,
    const T* __restrict__ dout, const Acc* __restrict__ sums, const Acc* __restrict__ delta,
    T* __restrict__ dkey, T* __restrict__ dvalue, const Problem p) {
    __shared__ Matrix space, weights;
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    long long tiles = (p.columns + TILE - 1) / TILE;
    for (long long work = blockIdx.x; work < tiles * (p.heads / p.group); work += gridDim.x) {
        long long shared = work / tiles;  // a head of key and value
        int k0 = int(work % tiles) * TILE, left = p.columns - k0;
        const T* k = key + (shared * p.columns + k0) * p.width;
        const T* v = value + (shared * p.columns + k0) * p.value_width;
        Acc dk[TM][HEAD / 16] = {}, dv[TM][HEAD / 16] = {};
        for (long long head = shared * p.group; head < (shared + 1) * p.group; head++)
            for (int row0 = p.causal ? k0 : 0; row0 < p.rows; row0 += TILE) {
                const T* q = query + (head * p.rows + row0) * p.width;
                const T* g = dout + (head * p.rows + row0) * p.value_width;
                Acc s[TM][TM] = {}, dweight[TM][TM] = {};
                rows_by_rows(s, space, q, p.rows - row0, k, left, p.width);
                Rows known(sums, delta, p, head, row0);
                to_weights(s, known, allow, bias, p, head, row0, k0);
                rows_by_rows(dweight, space, g, p.rows - row0, v, left, p.value_width);
                unsigned kept = kept_bits(p, head, row0, k0);
#pragma unroll
                for (int i = 0; i < TM; i++)
#pragma unroll
                    for (int j = 0; j < TM; j++) {
                        Acc part = kept >> (i * TM + j) & 1 ? Acc(p.upscale) : Acc(0);
                        weights[y * TM + i][x * TM + j] = s[i][j] * part;
                        dweight[i][j] = s[i][j] * (dweight[i][j] * part - known.delta[i]);
                    }
                if (dvalue) weights_by_rows(dv, weights, space, g, p.rows - row0, p.value_width);
                __syncthreads();
#pragma unroll
                for (int i = 0; i < TM; i++)
#pragma unroll
                    for (int j = 0; j < TM; j++) weights[y * TM + i][x * TM + j] = dweight[i][j];
                if (dkey) weights_by_rows(dk, weights, space, q, p.rows - row0, p.width);
            }
        Acc one[TM], factor[TM];
#pragma unroll
        for (int i = 0; i < TM; i++) one[i] = 1, factor[i] = Acc(p.scale);
        if (dkey) write_rows(dkey + (shared * p.columns + k0) * p.width, left, p.width, dk, factor);
        if (dvalue)
            write_rows(dvalue + (shared * p.columns + k0) * p.value_width, left, p.value_width, dv,
                       one);
    }
}
