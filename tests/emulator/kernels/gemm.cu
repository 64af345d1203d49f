// Sample: C[M, N] = A[M, K] B[K, N] in 16-bit floats on tensor cores. 128 threads make a tile of
// 64 x 64, 32 deep, in two stages of cp.async. K % 8 == 0, N % 8 == 0.
#include "mma.cuh"
constexpr int BM = 64, BN = 64, BK = 32, PA = BK + 8, PB = BN + 8;

extern "C" __global__ void __launch_bounds__(128) gemm(
    const T* __restrict__ A, const T* __restrict__ B, float* __restrict__ C, int M, int N, int K) {
    extern __shared__ __align__(16) unsigned char memory[];
    T* As = reinterpret_cast<T*>(memory);  // [2][BM][PA]
    T* Bs = As + 2 * BM * PA;              // [2][BK][PB]
    const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
    const int m0 = blockIdx.y * BM, n0 = blockIdx.x * BN, wm = (warp >> 1) * 32, wn = (warp & 1) * 32;
    auto fetch = [&](int stage, int k0) {
        for (int e = tid; e < BM * BK / 8; e += 128) {
            int r = e / (BK / 8), c = e % (BK / 8) * 8;
            bool ok = m0 + r < M && k0 + c < K;
            cp_async16(As + (stage * BM + r) * PA + c, ok ? A + (long long)(m0 + r) * K + k0 + c : A, ok);
        }
        for (int e = tid; e < BK * BN / 8; e += 128) {
            int r = e / (BN / 8), c = e % (BN / 8) * 8;
            bool ok = k0 + r < K && n0 + c < N;
            cp_async16(Bs + (stage * BK + r) * PB + c, ok ? B + (long long)(k0 + r) * N + n0 + c : B, ok);
        }
        cp_async_commit();
    };
    float sums[2][4][4] = {};
    fetch(0, 0);
    int stage = 0;
    for (int k0 = 0; k0 < K; k0 += BK, stage ^= 1) {
        if (k0 + BK < K) {
            fetch(stage ^ 1, k0 + BK);
            cp_async_wait<1>();
        } else cp_async_wait<0>();
        __syncthreads();
        for (int kk = 0; kk < BK; kk += 16) {
            unsigned a[2][4], b[4][2];
            for (int i = 0; i < 2; i++)
                ldmatrix_x4(a[i], As + (stage * BM + wm + i * 16 + (lane & 15)) * PA + kk + (lane >> 4) * 8);
            for (int j = 0; j < 4; j++)
                ldmatrix_x2_trans(b[j], Bs + (stage * BK + kk + (lane & 15)) * PB + wn + j * 8);
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++) mma_16816<T>(sums[i][j], a[i], b[j]);
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int h = 0; h < 2; h++) {
                int r = m0 + wm + i * 16 + (lane >> 2) + h * 8, c = n0 + wn + j * 8 + (lane & 3) * 2;
                if (r < M && c < N) *reinterpret_cast<float2*>(C + (long long)r * N + c) =
                    make_float2(sums[i][j][h * 2], sums[i][j][h * 2 + 1]);
            }
}
