// Sample: attention forward with a running softmax, head size 64. A warp owns ROWS queries; the block
// walks keys and values in tiles of 32 through shared memory.
#include "common.cuh"
constexpr int D = 64, WARPS = 4, ROWS = 4, PARTS = D / 32;

extern "C" __global__ void __launch_bounds__(WARPS * 32) attention(
    const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    float* __restrict__ out, float* __restrict__ log_sum, int length, float scale) {
    __shared__ float Ks[32][D + 1], Vs[32][D];
    __shared__ float Qs[WARPS * ROWS][D];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row0 = blockIdx.x * WARPS * ROWS;
    const long long base = (long long)blockIdx.y * length * D;
    for (int e = threadIdx.x; e < WARPS * ROWS * D; e += WARPS * 32) {
        int r = row0 + e / D;
        Qs[e / D][e % D] = r < length ? q[base + (long long)r * D + e % D] * scale : 0.f;
    }
    float acc[ROWS][PARTS] = {}, top[ROWS], sum[ROWS] = {};
    for (int i = 0; i < ROWS; i++) top[i] = -INF;
    const int last = CAUSAL ? min(length, row0 + WARPS * ROWS) : length;
    for (int k0 = 0; k0 < last; k0 += 32) {
        __syncthreads();
        for (int e = threadIdx.x; e < 32 * D; e += WARPS * 32) {
            int r = k0 + e / D;
            Ks[e / D][e % D] = r < length ? k[base + (long long)r * D + e % D] : 0.f;
            Vs[e / D][e % D] = r < length ? v[base + (long long)r * D + e % D] : 0.f;
        }
        __syncthreads();
        for (int i = 0; i < ROWS; i++) {
            int row = row0 + warp * ROWS + i;
            float s = 0.f;
            for (int d = 0; d < D; d++) s += Qs[warp * ROWS + i][d] * Ks[lane][d];
            if (k0 + lane >= length || (CAUSAL && k0 + lane > row)) s = -INF;
            float most = fmaxf(top[i], warp_max(s));
            float p = most == -INF ? 0.f : __expf(s - most);
            float fix = most == -INF ? 1.f : __expf(top[i] - most);
            sum[i] = sum[i] * fix + warp_sum(p);
            top[i] = most;
            for (int c = 0; c < PARTS; c++) acc[i][c] *= fix;
            for (int j = 0; j < 32; j++) {
                float pj = __shfl_sync(0xffffffffu, p, j);
                for (int c = 0; c < PARTS; c++) acc[i][c] += pj * Vs[j][lane + 32 * c];
            }
        }
    }
    for (int i = 0; i < ROWS; i++) {
        int row = row0 + warp * ROWS + i;
        if (row < length) {
            for (int c = 0; c < PARTS; c++)
                out[base + (long long)row * D + lane + 32 * c] = acc[i][c] / sum[i];
            if (lane == 0) log_sum[(long long)blockIdx.y * length + row] = top[i] + __logf(sum[i]);
        }
    }
}
