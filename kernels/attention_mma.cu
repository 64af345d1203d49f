// Attention, forward, on the tensor cores: float16 and bfloat16 with float32 sums. The arguments,
// reference, FLOPs and bytes are those of attention_forward in attention.cu. HEAD: 64, 128 or 256,
// an upper limit of width and value_width. OTHERS: keys in a tile. STRIPS: a block owns 64 STRIPS
// rows.
//
//   attention_mma_forward. Launch: 128 threads, (64 STRIPS + 4 OTHERS) (HEAD + 8) values of dynamic
//   shared memory; any grid, each block walks over tiles of its rows of a head. Deterministic.
//   Weights are rounded to T before they meet the values, as in Dao, "FlashAttention-2" (2023).
//
// Two tiles of keys and values are in shared memory: one is used while the next one arrives.
#include "attention_mma.cuh"

constexpr bool HELD = STRIPS * SLICES <= 8;  // whether the query stays in registers

// The largest score of a row and the sum of its weights so far, for rows g and g + 8.
struct Softmax {
    float top[2] = {-INF, -INF}, sum[2] = {0, 0};

    // scores -> weights, and everything before rescaled to the new largest score.
    DEVICE void add(Values& s, Sums& o) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float largest = top[r];
#pragma unroll
            for (int n = 0; n < TILES; n++)
                largest = most(largest, most(s[n][2 * r], s[n][2 * r + 1]));
            largest = most(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
            largest = most(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
            float base = largest == -INF ? 0.f : largest;  // -INF - -INF would be NaN
            float shrink = exp2f(top[r] - base);
            top[r] = largest;
            sum[r] *= shrink;
#pragma unroll
            for (int n = 0; n < TILES; n++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++) sum[r] += s[n][e] = exp2f(s[n][e] - base);
#pragma unroll
            for (int c = 0; c < HEAD / 8; c++) o[c][2 * r] *= shrink, o[c][2 * r + 1] *= shrink;
        }
    }

    // The sum over the four threads of a row.
    DEVICE float total(int r) const {
        float sum2 = sum[r] + __shfl_xor_sync(0xffffffffu, sum[r], 1);
        return sum2 + __shfl_xor_sync(0xffffffffu, sum2, 2);
    }
};

// spills: on sm_75, bfloat16, which does not run there.
extern "C" __global__ void __launch_bounds__(128, 2) attention_mma_forward(
    const T* __restrict__ query, const T* __restrict__ key, const T* __restrict__ value,
    const unsigned char* __restrict__ allow, const float* __restrict__ bias, T* __restrict__ out,
    float* __restrict__ sums, const Problem p) {
    T* q_tile = reinterpret_cast<T*>(memory);
    T* k_tiles = q_tile + OWN * PITCH;
    T* v_tiles = k_tiles + 2 * OTHERS * PITCH;
    bool wide = is_wide(query, p.width) && is_wide(key, p.width);
    bool wide_value = is_wide(value, p.value_width);
    long long tiles = (p.rows + OWN - 1) / OWN;
    for (long long work = blockIdx.x; work < tiles * p.heads; work += gridDim.x) {
        long long head = work / tiles;
        int row0 = int(tiles - 1 - work % tiles) * OWN;  // last rows first: longest when causal
        const T* k = key + head / p.group * p.columns * p.width;
        const T* v = value + head / p.group * p.columns * p.value_width;
        int end = p.causal ? least(p.columns, row0 + OWN) : p.columns;
        __syncthreads();  // the tiles of the work before are no longer read
        fetch(q_tile, query + (head * p.rows + row0) * p.width, OWN, p.rows - row0, p.width, wide);
        fetch(k_tiles, k, OTHERS, p.columns, p.width, wide);
        fetch(v_tiles, v, OTHERS, p.columns, p.value_width, wide_value);
        cp_async_commit();
        Sums o[STRIPS] = {};
        Softmax softmax[STRIPS];
        Left held[HELD ? SLICES : 1];
        for (int k0 = 0, stage = 0; k0 < end; k0 += OTHERS, stage ^= 1) {
            cp_async_wait<0>();
            __syncthreads();
            int next = k0 + OTHERS;
            if (next < end) {
                fetch(k_tiles + (stage ^ 1) * OTHERS * PITCH, k + (long long)next * p.width, OTHERS,
                      p.columns - next, p.width, wide);
                fetch(v_tiles + (stage ^ 1) * OTHERS * PITCH, v + (long long)next * p.value_width,
                      OTHERS, p.columns - next, p.value_width, wide_value);
            }
            cp_async_commit();
            const T* k_tile = k_tiles + stage * OTHERS * PITCH;
            Values s[STRIPS] = {};
            if (HELD) {
#pragma unroll
                for (int d = 0; d < SLICES; d++) {
                    if (d * 16 >= p.width) break;
                    if (k0 == 0) left_operands(held[HELD ? d : 0], q_tile, d);
                    slice_product(s, held[HELD ? d : 0], k_tile, d);
                }
            } else {
                rows_by_rows(s, q_tile, k_tile, p.width);
            }
#pragma unroll
            for (int m = 0; m < STRIPS; m++) {
                to_scores<false>(s[m], p, allow, bias, head, row0, k0, m);
                softmax[m].add(s[m], o[m]);
                unsigned kept = kept_bits<false>(p, head, row0, k0, m);
#pragma unroll
                for (int i = 0; i < TILES * 4; i++)
                    s[m][i / 4][i % 4] = kept >> i & 1 ? s[m][i / 4][i % 4] : 0.f;
            }
            values_by_rows(o, s, v_tiles + stage * OTHERS * PITCH, p.value_width);
        }
#pragma unroll
        for (int m = 0; m < STRIPS; m++) {
            float factor[2];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int row = row0 + own_row(m) + r * 8;
                float total = softmax[m].total(r);
                factor[r] = total == 0 ? 0.f : float(p.upscale) / total;
                if (lane_of() % 4 == 0 && row < p.rows)
                    sums[head * p.rows + row] = total == 0 ? INF : softmax[m].top[r] + log2f(total);
            }
            write_strip(out + (head * p.rows + row0) * p.value_width, p.rows - row0, p.value_width,
                        o[m], m, factor[0], factor[1]);
        }
    }
}
