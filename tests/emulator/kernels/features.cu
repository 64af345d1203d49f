// One kernel for each feature of CUDA that the emulator offers; test_features.py says what is right.
#include "mma.cuh"

__constant__ float coefficients[4] = {1.f, 2.f, 3.f, 4.f};
__device__ int launches;
struct Setting {
    float scale;
    int n;
    double shift;
};

__device__ int flat_thread() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

extern "C" __global__ void places(int* out) {
    int threads = blockDim.x * blockDim.y * blockDim.z;
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    int* mine = out + 6 * (block * threads + flat_thread());
    mine[0] = threadIdx.x, mine[1] = threadIdx.y, mine[2] = threadIdx.z;
    mine[3] = blockIdx.x, mine[4] = blockIdx.y, mine[5] = blockIdx.z;
}

// Static shared memory in a function template, dynamic of another type, a struct by value.
template <class V> __device__ V sum_of_block(V v) {
    __shared__ V parts[32];
    for (int o = 16; o; o >>= 1) v += __shfl_down_sync(0xffffffffu, v, o);
    if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = v;
    __syncthreads();
    v = threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : V(0);
    if (threadIdx.x < 32)
        for (int o = 16; o; o >>= 1) v += __shfl_down_sync(0xffffffffu, v, o);
    return v;
}
extern "C" __global__ void __launch_bounds__(4 * 32) shared_kinds(
    const __half* x, double* out, Setting setting) {
    extern __shared__ unsigned char raw[];
    double* buffer = reinterpret_cast<double*>(raw);
    int t = threadIdx.x;
    buffer[t] = t < setting.n ? double(__half2float(x[t])) * setting.scale : 0.;
    __syncthreads();
    double sum = sum_of_block(buffer[t]);
    if (t == 0) atomicAdd(out, sum + setting.shift);
}

extern "C" __global__ void variables(float* out, int* count) {
    out[threadIdx.x] = coefficients[threadIdx.x % 4];
    atomicAdd(&launches, 1);
    __syncthreads();
    if (threadIdx.x == 0) *count = launches;
}

extern "C" __global__ void votes(unsigned* out) {
    int t = flat_thread();
    unsigned* mine = out + 10 * t;
    mine[0] = __ballot_sync(0xffffffffu, t % 3 == 0);
    mine[1] = __match_any_sync(0xffffffffu, t % 4);
    mine[2] = __any_sync(0xffffffffu, t == 5);
    mine[3] = __all_sync(0xffffffffu, t < 32);
    mine[4] = __syncthreads_count(t % 5 == 0);
    mine[5] = __syncthreads_and(t >= 0);
    mine[6] = __syncthreads_and(t > 0);
    mine[7] = __syncthreads_or(t == 7);
    int all;
    mine[8] = __match_all_sync(0xffffffffu, t / 32, &all) == 0xffffffffu && all;
    mine[9] = __activemask();
    __syncthreads();
}

extern "C" __global__ void shuffles(int* out) {
    int t = threadIdx.x, *mine = out + 8 * t;
    mine[0] = __shfl_sync(0xffffffffu, t, 5);
    mine[1] = __shfl_sync(0xffffffffu, t, 3, 8);
    mine[2] = __shfl_up_sync(0xffffffffu, t, 2);
    mine[3] = __shfl_down_sync(0xffffffffu, t, 3, 16);
    mine[4] = __shfl_xor_sync(0xffffffffu, t, 1);
    mine[5] = (int)__shfl_xor_sync(0xffffffffu, double(t), 4);
    mine[6] = (int)__half2float(__shfl_xor_sync(0xffffffffu, __float2half(t), 8));
    mine[7] = t;
    if (t < 20) mine[7] = __shfl_sync(0x000fffffu, t, 19);  // a part of the warp
}

// Groups of 8 lanes, each with a mask of its own.
extern "C" __global__ void groups(float* y) {
    unsigned mask = 0xffu << (threadIdx.x & 24);
    float v = threadIdx.x;
    for (int o = 4; o; o >>= 1) v += __shfl_xor_sync(mask, v, o, 8);
    y[threadIdx.x] = v;
}

// The last warp is not whole.
extern "C" __global__ void odd_block(float* y) {
    float v = threadIdx.x;
    v += __shfl_up_sync(0xffffffffu, v, 1);
    y[threadIdx.x] = v;
}

extern "C" __global__ void lock(int* mutex, int* y) {
    if (threadIdx.x % 32) return;
    while (atomicCAS(mutex, 0, 1) != 0) {
    }
    __threadfence();
    y[0] += 1;
    __threadfence();
    atomicExch(mutex, 0);
}

extern "C" __global__ void integer_atomics(int* signed_, unsigned* unsigned_) {
    int t = threadIdx.x;
    atomicAdd(&signed_[0], t);
    atomicSub(&signed_[1], t);
    atomicMin(&signed_[2], -t);
    atomicMax(&signed_[3], t);
    atomicExch(&signed_[4], 9);
    atomicCAS(&signed_[5], 0, 5);
    atomicAnd(&unsigned_[0], ~(1u << t));
    atomicOr(&unsigned_[1], 1u << t);
    atomicXor(&unsigned_[2], 1u << t);
    atomicInc(&unsigned_[3], 9);
    atomicDec(&unsigned_[4], 9);
}

extern "C" __global__ void short_exchange(unsigned short* x) {
    unsigned short seen = x[0], old;
    __syncwarp();
    do {
        old = seen;
        seen = atomicCAS(x, old, (unsigned short)(old + 1));
    } while (seen != old);
}

// By exchanging words: an odd number of values ends within one, and n - 1 from x + 1 begin in one.
extern "C" __global__ void word_atomics(__half* x, int n) {
    if (threadIdx.x < n) atomic_add_16(x + threadIdx.x, 1.f);
}

extern "C" __global__ void pair_atomics(__half2* h, __nv_bfloat162* b) {
    atomicAdd(h, __floats2half2_rn(1.f, 2.f));
    atomicAdd(b, __floats2bfloat162_rn(1.f, 2.f));
}

extern "C" __global__ void half_arithmetic(const __half2* a, __half2* b, __nv_bfloat162* c, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    b[i] = __hfma2(a[i], a[i], __float2half2_rn(1.f));
    c[i] = __floats2bfloat162_rn(__low2float(a[i]), __half2float(hexp(a[i].y)));
}

extern "C" __global__ void vectors(const float4* a, float4* b, const int2* c, int2* d, uint4* e,
                                   double2* f) {
    int i = threadIdx.x;
    float4 v = __ldg(a + i);
    b[i] = make_float4(v.w, v.z, v.y, v.x);
    d[i] = make_int2(c[i].y, c[i].x);
    e[i] = make_uint4(i, i + 1, i + 2, i + 3);
    f[i] = make_double2(i, 0.5 * i);
    float3 small = make_float3(v.x, v.y, v.z);
    b[i].x += small.z - v.z;
}

extern "C" __global__ void intrinsics(const float* x, float* out, long long* whole) {
    int i = threadIdx.x;
    float v = x[i], s, c;
    float* mine = out + 12 * i;
    __sincosf(v, &s, &c);
    mine[0] = __expf(v), mine[1] = __logf(v), mine[2] = s, mine[3] = c;
    mine[4] = rsqrtf(v), mine[5] = __fdividef(1.f, v), mine[6] = __powf(v, 2.f);
    mine[7] = __saturatef(v), mine[8] = fmaxf(v, 1.f), mine[9] = __fmaf_rn(v, v, 1.f);
    mine[10] = __int_as_float(__float_as_int(v)), mine[11] = min(v, 1.f) + max(2, 1);
    long long* counts = whole + 8 * i;
    unsigned n = i * 0x01000193u + 7;
    counts[0] = __popc(n), counts[1] = __clz(n), counts[2] = __ffs(n), counts[3] = __brev(n);
    counts[4] = __umulhi(n, 0x80000000u), counts[5] = __popcll(~0ull >> i), counts[6] = __mulhi(-i, 1 << 30);
    counts[7] = __byte_perm(n, 0, 0x0123);
}

// Products by tensor cores, the registers of every lane given and taken.
extern "C" __global__ void product_half(const unsigned* a, const unsigned* b, float* d) {
    emulator::mma_16816<__half>(d + 4 * threadIdx.x, a + 4 * threadIdx.x, b + 2 * threadIdx.x,
                                d + 4 * threadIdx.x);
}
extern "C" __global__ void product_bfloat16(const unsigned* a, const unsigned* b, float* d) {
    emulator::mma_16816<__nv_bfloat16>(d + 4 * threadIdx.x, a + 4 * threadIdx.x, b + 2 * threadIdx.x,
                                       d + 4 * threadIdx.x);
}
extern "C" __global__ void product_tf32(const unsigned* a, const unsigned* b, float* d) {
    emulator::mma_1688_tf32(d + 4 * threadIdx.x, a + 4 * threadIdx.x, b + 2 * threadIdx.x,
                            d + 4 * threadIdx.x);
}

template <int N, bool TRANS>
__device__ void load_matrices(const unsigned short* tile, unsigned* out) {
    unsigned r[4] = {};
    emulator::ldmatrix<N, TRANS>(r, tile + 8 * (threadIdx.x % (8 * N)));
    for (int i = 0; i < N; i++) out[N * threadIdx.x + i] = r[i];
}
// tile: 32 rows of 8. x1, x2, x4, then transposed.
extern "C" __global__ void matrices(const unsigned short* x, unsigned* x1, unsigned* x2, unsigned* x4,
                                    unsigned* x1t, unsigned* x2t, unsigned* x4t) {
    __shared__ __align__(16) unsigned short tile[32 * 8];
    for (int i = threadIdx.x; i < 256; i += 32) tile[i] = x[i];
    __syncwarp();
    load_matrices<1, false>(tile, x1);
    load_matrices<2, false>(tile, x2);
    load_matrices<4, false>(tile, x4);
    load_matrices<1, true>(tile, x1t);
    load_matrices<2, true>(tile, x2t);
    load_matrices<4, true>(tile, x4t);
}

// Two groups of copies of 4, 8 and 16 bytes; the second is waited for later, and half of it zeros.
extern "C" __global__ void copies(const float* x, float* y) {
    __shared__ __align__(16) float t[2][4 * 32];
    int i = threadIdx.x;
    emulator::cp_async(&t[0][4 * i], x + 4 * i, 16, 16);
    emulator::cp_async_commit();
    emulator::cp_async(&t[1][4 * i], x + 4 * i, 4, 4);
    emulator::cp_async(&t[1][4 * i + 2], x + 4 * i + 2, 8, 4);
    emulator::cp_async_commit();
    emulator::cp_async_wait(1);
    for (int k = 0; k < 4; k++) y[4 * i + k] = t[0][4 * i + k];
    emulator::cp_async_wait(0);
    for (int k = 0; k < 4; k++)
        if (k != 1) y[4 * i + k] += 10 * t[1][4 * i + k];
}

// --- arguments ------------------------------------------------------------------------------------

extern "C" __global__ void add_one(int* x, const int* also_x, long long n) {
    for (long long i = threadIdx.x; i < n; i += blockDim.x) x[i] = also_x[i] + 1;
}
extern "C" __global__ void sum_tables(Pointers<const float*> from, Pointers<float*> to, int count) {
    for (int i = 0; i < count; i++)
        if (from[i]) to[i][threadIdx.x] = from[i][threadIdx.x] + i;
}
extern "C" __global__ void scalars(double* out, float a, double b, int c, long long d, bool e, unsigned f,
                                   unsigned char g, __half h, __nv_bfloat16 i) {
    out[0] = a, out[1] = b, out[2] = c, out[3] = d, out[4] = e, out[5] = f, out[6] = g;
    out[7] = __half2float(h), out[8] = __bfloat162float(i);
}
extern "C" __global__ void nothing(const float* x, bool* y) {
    if (x == nullptr && y != nullptr) y[0] = true;
}
extern "C" __global__ void remainder_of_address(const float* x, int* out) {
    *out = (unsigned long long)x % 16;
}
// Neighbouring threads write neighbouring bytes, and halves of words.
extern "C" __global__ void small_values(unsigned char* bytes, short* shorts) {
    __shared__ unsigned char t[64];
    t[threadIdx.x] = threadIdx.x;
    bytes[threadIdx.x] = t[threadIdx.x];
    shorts[threadIdx.x] = -(int)threadIdx.x;
}
// A struct that no single instruction moves, and bytes moved by the library.
struct Odd {
    char at[7];
};
extern "C" __global__ void copied_structs(const Odd* from, Odd* to, int n) {
    to[threadIdx.x] = from[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) memcpy(to + blockDim.x, from, n * sizeof(Odd));
}
