// Attention, backward, on the tensor cores: the formulas, arguments and reference are those of
// attention_backward.cu, types and tiles those of attention_mma.cu.
//
//   attention_mma_query_grad: a block for 64 STRIPS rows of the query, walks over tiles of OTHERS
//   keys.
//   attention_mma_key_value_grad: a block for 64 STRIPS keys, walks over tiles of OTHERS rows of
//     all heads of the query that share them. It works on the transposed scores, key . query: so
//     the weights are left operands as they are. For HEAD 256 the sums of both gradients do not
//     fit into the registers: attention_mma_key_grad and attention_mma_value_grad make one each.
//   Launch: 128 threads, (128 STRIPS + 4 OTHERS) (HEAD + 8) values of dynamic shared memory, any
//   grid.
//   dkey or dvalue may be null. Deterministic: every sum has one owner and a fixed order.
#include "attention_mma.cuh"

// The block's own rows of two matrices, and two stages of OTHERS rows of two others.
struct Tiles {
    T *own1, *own2, *others1, *others2;
    DEVICE Tiles(uint4* memory) {
        own1 = reinterpret_cast<T*>(memory);
        own2 = own1 + OWN * PITCH;
        others1 = own2 + OWN * PITCH;
        others2 = others1 + 2 * OTHERS * PITCH;
    }
    DEVICE T* first(int stage) const { return others1 + stage * OTHERS * PITCH; }
    DEVICE T* second(int stage) const { return others2 + stage * OTHERS * PITCH; }
};

extern "C" __global__ void __launch_bounds__(128, 2) attention_mma_query_grad(
    const T* __restrict__ query, const T* __restrict__ key, const T* __restrict__ value,
    const unsigned char* __restrict__ allow, const float* __restrict__ bias,
    const T* __restrict__ dout, const float* __restrict__ sums, const float* __restrict__ delta,
    T* __restrict__ dquery, const Problem p) {
    Tiles tile(memory);
    bool wide = is_wide(query, p.width) && is_wide(key, p.width);
    bool wide_value = is_wide(value, p.value_width) && is_wide(dout, p.value_width);
    long long tiles = (p.rows + OWN - 1) / OWN;
    for (long long work = blockIdx.x; work < tiles * p.heads; work += gridDim.x) {
        long long head = work / tiles;
        int row0 = int(tiles - 1 - work % tiles) * OWN, left = p.rows - row0;
        const T* k = key + head / p.group * p.columns * p.width;
        const T* v = value + head / p.group * p.columns * p.value_width;
        int end = p.causal ? least(p.columns, row0 + OWN) : p.columns;
        __syncthreads();  // the tiles of the work before are no longer read
        fetch(tile.own1, query + (head * p.rows + row0) * p.width, OWN, left, p.width, wide);
        fetch(tile.own2, dout + (head * p.rows + row0) * p.value_width, OWN, left, p.value_width,
              wide_value);
        fetch(tile.first(0), k, OTHERS, p.columns, p.width, wide);
        fetch(tile.second(0), v, OTHERS, p.columns, p.value_width, wide_value);
        cp_async_commit();
        float row_sum[STRIPS][2], row_delta[STRIPS][2];
#pragma unroll
        for (int i = 0; i < STRIPS * 2; i++) {
            int row = row0 + own_row(i / 2) + i % 2 * 8;
            row_sum[i / 2][i % 2] = row < p.rows ? sums[head * p.rows + row] : INF;
            row_delta[i / 2][i % 2] = row < p.rows ? delta[head * p.rows + row] : 0.f;
        }
        Sums dq[STRIPS] = {};
        for (int k0 = 0, stage = 0; k0 < end; k0 += OTHERS, stage ^= 1) {
            cp_async_wait<0>();
            __syncthreads();
            int next = k0 + OTHERS;
            if (next < end) {
                fetch(tile.first(stage ^ 1), k + (long long)next * p.width, OTHERS,
                      p.columns - next, p.width, wide);
                fetch(tile.second(stage ^ 1), v + (long long)next * p.value_width, OTHERS,
                      p.columns - next, p.value_width, wide_value);
            }
            cp_async_commit();
            Values s[STRIPS] = {}, dweight[STRIPS] = {};
            rows_by_rows(s, tile.own1, tile.first(stage), p.width);
            rows_by_rows(dweight, tile.own2, tile.second(stage), p.value_width);
#pragma unroll
            for (int m = 0; m < STRIPS; m++) {
                to_scores<false>(s[m], p, allow, bias, head, row0, k0, m);
                unsigned kept = kept_bits<false>(p, head, row0, k0, m);
#pragma unroll
                for (int i = 0; i < TILES * 4; i++) {
                    int n = i / 4, e = i % 4;
                    float d = kept >> i & 1 ? dweight[m][n][e] * float(p.upscale) : 0.f;
                    s[m][n][e] = exp2f(s[m][n][e] - row_sum[m][e / 2]) * (d - row_delta[m][e / 2]);
                }
            }
            values_by_rows(dq, s, tile.first(stage), p.width);
        }
#pragma unroll
        for (int m = 0; m < STRIPS; m++)
            write_strip(dquery + (head * p.rows + row0) * p.width, left, p.width, dq[m], m,
                        float(p.scale), float(p.scale));
    }
}

// The rows of the query that a tile of keys meets, over the heads that share it: `count` tiles.
struct Walk {
    long long first_head;
    int first_row, per_head, count;
    DEVICE Walk(const Problem& p, long long shared, int k0) {
        first_head = shared * p.group;
        first_row = p.causal ? k0 / OTHERS * OTHERS : 0;
        per_head = most(0, (p.rows - first_row + OTHERS - 1) / OTHERS);
        count = int(per_head * p.group);
    }
    DEVICE long long head(int i) const { return first_head + i / per_head; }
    DEVICE int row(int i) const { return first_row + i % per_head * OTHERS; }
};

template <bool KEY, bool VALUE>
DEVICE void key_value_grad(const T* query, const T* key, const T* value, const unsigned char* allow,
                           const float* bias, const T* dout, const float* sums, const float* delta,
                           T* dkey, T* dvalue, const Problem& p) {
    Tiles tile(memory);
    bool wide = is_wide(query, p.width) && is_wide(key, p.width);
    bool wide_value = is_wide(value, p.value_width) && is_wide(dout, p.value_width);
    long long tiles = (p.columns + OWN - 1) / OWN;
    for (long long work = blockIdx.x; work < tiles * (p.heads / p.group); work += gridDim.x) {
        long long shared = work / tiles;  // a head of key and value
        int k0 = int(work % tiles) * OWN, left = p.columns - k0;
        Walk walk(p, shared, k0);
        auto fetch_rows = [&](int i, int stage) {
            long long head = walk.head(i);
            int row = walk.row(i), rows_left = p.rows - row;
            fetch(tile.first(stage), query + (head * p.rows + row) * p.width, OTHERS, rows_left,
                  p.width, wide);
            fetch(tile.second(stage), dout + (head * p.rows + row) * p.value_width, OTHERS,
                  rows_left, p.value_width, wide_value);
        };
        __syncthreads();  // the tiles of the work before are no longer read
        fetch(tile.own1, key + (shared * p.columns + k0) * p.width, OWN, left, p.width, wide);
        fetch(tile.own2, value + (shared * p.columns + k0) * p.value_width, OWN, left,
              p.value_width, wide_value);
        if (walk.count) fetch_rows(0, 0);
        cp_async_commit();
        Sums dk[STRIPS] = {}, dv[STRIPS] = {};
        for (int i = 0, stage = 0; i < walk.count; i++, stage ^= 1) {
            cp_async_wait<0>();
            __syncthreads();
            if (i + 1 < walk.count) fetch_rows(i + 1, stage ^ 1);
            cp_async_commit();
            long long head = walk.head(i);
            int row0 = walk.row(i);
            Values s[STRIPS] = {}, dweight[STRIPS] = {};
            rows_by_rows(s, tile.own1, tile.first(stage), p.width);
            if (KEY) rows_by_rows(dweight, tile.own2, tile.second(stage), p.value_width);
#pragma unroll
            for (int m = 0; m < STRIPS; m++) {
                to_scores<true>(s[m], p, allow, bias, head, k0, row0, m);
                unsigned kept = kept_bits<true>(p, head, k0, row0, m);
#pragma unroll
                for (int i = 0; i < TILES * 4; i++) {
                    int n = i / 4, e = i % 4, row = row0 + n * 8 + other_row() + e % 2;
                    float row_sum = row < p.rows ? sums[head * p.rows + row] : INF;
                    float row_delta = KEY && row < p.rows ? delta[head * p.rows + row] : 0.f;
                    float weight = exp2f(s[m][n][e] - row_sum);
                    float part = kept >> i & 1 ? float(p.upscale) : 0.f;
                    s[m][n][e] = weight * part;
                    dweight[m][n][e] = weight * (dweight[m][n][e] * part - row_delta);
                }
            }
            if (VALUE) values_by_rows(dv, s, tile.second(stage), p.value_width);
            if (KEY) values_by_rows(dk, dweight, tile.first(stage), p.width);
        }
        cp_async_wait<0>();  // keys that no row sees: their copies must not meet the next ones
#pragma unroll
        for (int m = 0; m < STRIPS; m++) {
            if (KEY && dkey)
                write_strip(dkey + (shared * p.columns + k0) * p.width, left, p.width, dk[m], m,
                            float(p.scale), float(p.scale));
            if (VALUE && dvalue)
                write_strip(dvalue + (shared * p.columns + k0) * p.value_width, left, p.value_width,
                            dv[m], m, 1.f, 1.f);
        }
    }
}

// spills: on sm_75, in variants that it does not run.
extern "C" __global__ void __launch_bounds__(128, 2) attention_mma_key_value_grad(
    const T* __restrict__ query, const T* __restrict__ key, const T* __restrict__ value,
    const unsigned char* __restrict__ allow, const float* __restrict__ bias,
    const T* __restrict__ dout, const float* __restrict__ sums, const float* __restrict__ delta,
    T* __restrict__ dkey, T* __restrict__ dvalue, const Problem p) {
    if constexpr (HEAD < 256)
        key_value_grad<true, true>(query, key, value, allow, bias, dout, sums, delta, dkey, dvalue,
                                   p);
}

extern "C" __global__ void __launch_bounds__(128, 2) attention_mma_key_grad(
    const T* __restrict__ query, const T* __restrict__ key, const T* __restrict__ value,
    const unsigned char* __restrict__ allow, const float* __restrict__ bias,
    const T* __restrict__ dout, const float* __restrict__ sums, const float* __restrict__ delta,
    T* __restrict__ dkey, const Problem p) {
    if constexpr (HEAD == 256)
        key_value_grad<true, false>(query, key, value, allow, bias, dout, sums, delta, dkey,
                                    nullptr, p);
}

extern "C" __global__ void __launch_bounds__(128, 2) attention_mma_value_grad(
    const T* __restrict__ query, const T* __restrict__ key, const T* __restrict__ value,
    const unsigned char* __restrict__ allow, const float* __restrict__ bias,
    const T* __restrict__ dout, const float* __restrict__ sums, const float* __restrict__ delta,
    T* __restrict__ dvalue, const Problem p) {
    if constexpr (HEAD == 256)
        key_value_grad<false, true>(query, key, value, allow, bias, dout, sums, delta, nullptr,
                                    dvalue, p);
}
