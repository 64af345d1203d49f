// Sample: the gradient of an embedding, with atomic sums (order not fixed) and by sorting (fixed).

// table[ids[i]] += dy[i]; one block per row.
extern "C" __global__ void __launch_bounds__(256) scatter_add(
    const T* __restrict__ dy, const I* __restrict__ ids, float* __restrict__ table, int n, int dim,
    int vocabulary) {
    int i = blockIdx.x;
    long long id = ids[i];
    if (id < 0 || id >= vocabulary) return;
    for (int c = threadIdx.x; c < dim; c += blockDim.x)
        atomicAdd(&table[id * dim + c], float(dy[(long long)i * dim + c]));
}

// Bitonic sort of n keys (id << 32 | position) in dynamic shared memory of `padded` keys; one block.
extern "C" __global__ void sort_ids(const I* __restrict__ ids, int* __restrict__ sorted,
                                    int* __restrict__ order, int n, int padded) {
    extern __shared__ unsigned long long keys[];
    for (int i = threadIdx.x; i < padded; i += blockDim.x)
        keys[i] = i < n ? (unsigned long long)(unsigned)ids[i] << 32 | (unsigned)i : ~0ull;
    __syncthreads();
    for (int k = 2; k <= padded; k *= 2)
        for (int j = k / 2; j > 0; j /= 2) {
            for (int i = threadIdx.x; i < padded; i += blockDim.x) {
                int o = i ^ j;
                if (o > i && (keys[i] > keys[o]) == ((i & k) == 0)) {
                    auto key = keys[i];
                    keys[i] = keys[o];
                    keys[o] = key;
                }
            }
            __syncthreads();
        }
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        sorted[i] = int(keys[i] >> 32);
        order[i] = int(keys[i] & 0xffffffffu);
    }
}

// A warp per sorted position; the one at the head of a run of equal ids sums it, in order.
extern "C" __global__ void __launch_bounds__(128) sum_runs(
    const T* __restrict__ dy, const int* __restrict__ sorted, const int* __restrict__ order,
    float* __restrict__ table, int n, int dim) {
    int lane = threadIdx.x & 31, i = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (i >= n) return;
    int id = sorted[i];
    if (i > 0 && sorted[i - 1] == id) return;
    int length = 0;
    for (;;) {
        int j = i + length + lane;
        unsigned same = __ballot_sync(0xffffffffu, j < n && sorted[j] == id);
        int run = __ffs(~same) - 1;
        length += run < 0 ? 32 : run;
        if (run >= 0) break;
    }
    for (int c = lane; c < dim; c += 32) {
        float sum = 0.f;
        for (int j = 0; j < length; j++) sum += float(dy[(long long)order[i + j] * dim + c]);
        table[(long long)id * dim + c] += sum;
    }
}
