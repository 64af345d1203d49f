// Attention, forward, on the ordinary cores: for float32 and float64, and for 16-bit values where
// the tensor cores do not serve (attention_mma.cu). T: type of the values, HEAD: an upper limit of
// width and value_width, 64, 128 or 256.
//
//   attention_forward: out (heads, rows, value_width), sums (heads, rows) from query, key, value.
//     allow: bytes, 0 where a row may not attend; bias: added to the scores; either may be null.
//     Their strides stand in the Problem. sums: log2 of the sum of exp2(score), for the backward
//     pass.
//   Launch: 256 threads; any grid, each block walks over tiles of TILE rows of a head.
//   Deterministic: a row's sums run over the tiles of keys in order.
//   Reference: gpunn/nn/attention.py:_composed. The scheme: Dao, "FlashAttention-2" (2023): keys
//   pass by once, a row's sum and output are rescaled whenever its largest score grows, and no
//   matrix of scores is stored.
//   FLOPs: 2 rows columns (width + value_width) a head, half of it when causal. Bytes: query and
//   out once, key and value once for every TILE rows (from the L2 cache, mostly).
#include "attention_tile.cuh"

// spills: on sm_75, float32: a few registers, so that two blocks share a multiprocessor.
extern "C" __global__ void __launch_bounds__(256, BLOCKS) attention_forward(
    const T* __restrict__ query, const T* __restrict__ key, const T* __restrict__ value,
    const unsigned char* __restrict__ allow, const Acc* __restrict__ bias, T* __restrict__ out,
    Acc* __restrict__ sums, const Problem p) {
    __shared__ Matrix space, weights;
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    long long tiles = (p.rows + TILE - 1) / TILE;
    for (long long work = blockIdx.x; work < tiles * p.heads; work += gridDim.x) {
        long long head = work / tiles;
        int row0 = int(tiles - 1 - work % tiles) * TILE;  // last rows first: longest when causal
        const T* q = query + (head * p.rows + row0) * p.width;
        const T* k = key + head / p.group * p.columns * p.width;
        const T* v = value + head / p.group * p.columns * p.value_width;
        Acc o[TM][HEAD / 16] = {}, top[TM], sum[TM];
#pragma unroll
        for (int i = 0; i < TM; i++) top[i] = Acc(-INF), sum[i] = 0;
        int end = p.causal ? least(p.columns, row0 + TILE) : p.columns;
        for (int k0 = 0; k0 < end; k0 += TILE) {
            Acc s[TM][TM] = {};
            rows_by_rows(s, space, q, p.rows - row0, k + (long long)k0 * p.width, p.columns - k0,
                         p.width);
            to_scores(s, p, allow, bias, head, row0, k0);
            unsigned kept = kept_bits(p, head, row0, k0);
#pragma unroll
            for (int i = 0; i < TM; i++) {
                Acc largest = top[i];
#pragma unroll
                for (int j = 0; j < TM; j++) largest = most(largest, s[i][j]);
                largest = row_reduce<Most>(largest);
                Acc base = largest == Acc(-INF) ? Acc(0) : largest;  // -INF - -INF would be NaN
                Acc shrink = exp2_of(top[i] - base);
                top[i] = largest;
                sum[i] *= shrink;
#pragma unroll
                for (int c = 0; c < HEAD / 16; c++) o[i][c] *= shrink;
#pragma unroll
                for (int j = 0; j < TM; j++) {
                    Acc weight = exp2_of(s[i][j] - base);
                    sum[i] += weight;
                    weights[x * TM + j][y * TM + i] = kept >> (i * TM + j) & 1 ? weight : Acc(0);
                }
            }
            weights_by_rows(o, weights, space, v + (long long)k0 * p.value_width, p.columns - k0,
                            p.value_width);
        }
        Acc factor[TM];
#pragma unroll
        for (int i = 0; i < TM; i++) {
            int row = row0 + y * TM + i;
            Acc total = row_reduce<Sum>(sum[i]);
            factor[i] = total == Acc(0) ? Acc(0) : Acc(p.upscale) / total;
            if (x == 0 && row < p.rows)
                sums[head * p.rows + row] = total == Acc(0) ? Acc(INF) : top[i] + log2_of(total);
        }
        write_rows(out + (head * p.rows + row0) * p.value_width, p.rows - row0, p.value_width, o,
                   factor);
    }
}
