// Sample: conv2d forward, NCHW, as a matrix product C[cout, n oh ow] = W[cout, cin r s] columns(x).
// 256 threads make a tile of BM x BN, BK deep, in two buffers of shared memory.
struct Sizes {
    int n, cin, h, w, cout, r, s, oh, ow, pad, stride;
};
constexpr int BM = 64, BN = 64, BK = 8, TM = 4, TN = 4;
constexpr int THREADS = (BM / TM) * (BN / TN), LA = BM * BK / THREADS, LB = BN * BK / THREADS;

// Element (k, q) of the columns of x.
__device__ __forceinline__ float column(const float* x, const Sizes& p, int k, int q) {
    int P = p.oh * p.ow, c = k / (p.r * p.s), rs = k % (p.r * p.s), image = q / P, at = q % P;
    int ih = at / p.ow * p.stride - p.pad + rs / p.s, iw = at % p.ow * p.stride - p.pad + rs % p.s;
    if (ih >= 0 && ih < p.h && iw >= 0 && iw < p.w)
        return x[(((long long)image * p.cin + c) * p.h + ih) * p.w + iw];
    return 0.f;
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d(
    const float* __restrict__ x, const float* __restrict__ weight, float* __restrict__ y, Sizes p) {
    __shared__ float As[2][BK][BM + 4];
    __shared__ float Bs[2][BK][BN];
    const int tid = threadIdx.x, m0 = blockIdx.y * BM, n0 = blockIdx.x * BN;
    const int K = p.cin * p.r * p.s, P = p.oh * p.ow, NP = p.n * P;
    const int tm = (tid / (BN / TN)) * TM, tn = (tid % (BN / TN)) * TN;
    float sums[TM][TN] = {};
    float ra[LA], rb[LB];
    auto fetch = [&](int k0) {
        for (int i = 0; i < LA; i++) {
            int e = tid + i * THREADS, k = k0 + e % BK, m = m0 + e / BK;
            ra[i] = k < K && m < p.cout ? weight[(long long)m * K + k] : 0.f;
        }
        for (int i = 0; i < LB; i++) {
            int e = tid + i * THREADS, k = k0 + e / BN, q = n0 + e % BN;
            rb[i] = k < K && q < NP ? column(x, p, k, q) : 0.f;
        }
    };
    auto store = [&](int buffer) {
        for (int i = 0; i < LA; i++) {
            int e = tid + i * THREADS;
            As[buffer][e % BK][e / BK] = ra[i];
        }
        for (int i = 0; i < LB; i++) {
            int e = tid + i * THREADS;
            Bs[buffer][e / BN][e % BN] = rb[i];
        }
    };
    fetch(0);
    store(0);
    __syncthreads();
    int buffer = 0;
    for (int k0 = 0; k0 < K; k0 += BK) {
        bool more = k0 + BK < K;
        if (more) fetch(k0 + BK);
        for (int k = 0; k < BK; k++)
            for (int i = 0; i < TM; i++)
                for (int j = 0; j < TN; j++)
                    sums[i][j] += As[buffer][k][tm + i] * Bs[buffer][k][tn + j];
        if (more) store(buffer ^ 1);
        __syncthreads();
        buffer ^= 1;
    }
    for (int i = 0; i < TM; i++)
        for (int j = 0; j < TN; j++) {
            int m = m0 + tm + i, q = n0 + tn + j;
            if (m < p.cout && q < NP) y[((long long)(q / P) * p.cout + m) * P + q % P] = sums[i][j];
        }
}
