// What the kernels share: number types, reductions, wide accesses, random numbers, atomic sums and
// bad indices. The loader prepends the typedefs T (storage) and Acc (accumulation), and pastes this
// text where a kernel says #include "common.cuh".
#pragma once

#define DEVICE __device__ __forceinline__

// --- numbers ----------------------------------------------------------------------------------

#define INF __int_as_float(0x7f800000)
#define NOT_A_NUMBER __int_as_float(0x7fffffff)

// up: a stored value as the type that sums are made in. down<T>: back, rounded once.
DEVICE float up(float x) { return x; }
DEVICE double up(double x) { return x; }
DEVICE float up(__half x) { return __half2float(x); }
DEVICE float up(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class S> struct Down;
template <> struct Down<float> { DEVICE static float of(float x) { return x; } };
template <> struct Down<double> { DEVICE static double of(double x) { return x; } };
template <> struct Down<__half> { DEVICE static __half of(float x) { return __float2half_rn(x); } };
template <> struct Down<__nv_bfloat16> {
    DEVICE static __nv_bfloat16 of(float x) { return __float2bfloat16_rn(x); }
};
template <class S, class A> DEVICE S down(A x) { return Down<S>::of(x); }

template <class A> DEVICE A least(A a, A b) { return b < a ? b : a; }
template <class A> DEVICE A most(A a, A b) { return a < b ? b : a; }

// --- places -----------------------------------------------------------------------------------

// Of a one-dimensional launch: this thread's number and how many there are.
DEVICE long long global_index() { return blockIdx.x * (long long)blockDim.x + threadIdx.x; }
DEVICE long long global_stride() { return gridDim.x * (long long)blockDim.x; }

// N values moved at once; N * sizeof(S) is a power of two, at most 16 bytes.
template <class S, int N> struct alignas(sizeof(S) * N) Vec {
    S at[N];
    DEVICE S& operator[](int i) { return at[i]; }
    DEVICE const S& operator[](int i) const { return at[i]; }
};
template <int N, class S> DEVICE Vec<S, N> load(const S* from) {
    return *reinterpret_cast<const Vec<S, N>*>(from);
}
template <int N, class S> DEVICE void store(S* to, const Vec<S, N>& values) {
    *reinterpret_cast<Vec<S, N>*>(to) = values;
}
// Whether a pointer may be read `bytes` (a power of two) at a time.
DEVICE bool aligned(const void* p, int bytes) { return ((unsigned long long)p & (bytes - 1)) == 0; }

// A table of array addresses, passed by value: the launcher makes it of a list of arrays.
template <class P> struct Pointers {
    P at[64];
    DEVICE P operator[](int i) const { return at[i]; }
};

// --- reductions -------------------------------------------------------------------------------

struct Sum { template <class V> DEVICE V operator()(V a, V b) const { return a + b; } };
struct Most { template <class V> DEVICE V operator()(V a, V b) const { return a < b ? b : a; } };
struct Least { template <class V> DEVICE V operator()(V a, V b) const { return b < a ? b : a; } };

// Over the 32 lanes of a warp, all of which take part and get the result. The order is fixed.
template <class F, class V> DEVICE V warp_reduce(V v) {
#pragma unroll
    for (int apart = 16; apart; apart >>= 1) v = F()(v, __shfl_xor_sync(0xffffffffu, v, apart));
    return v;
}
template <class V> DEVICE V warp_sum(V v) { return warp_reduce<Sum>(v); }
template <class V> DEVICE V warp_max(V v) { return warp_reduce<Most>(v); }
template <class V> DEVICE V warp_min(V v) { return warp_reduce<Least>(v); }

// Over a one-dimensional block of whole warps, all of whose threads take part and get the result.
// `scratch` is 32 values of shared memory, free again at the next barrier; it starts with one.
template <class F, class V> DEVICE V block_reduce(V v, V* scratch, V neutral) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    v = warp_reduce<F>(v);
    __syncthreads();
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    return warp_reduce<F>(lane < warps ? scratch[lane] : neutral);
}
template <class V> DEVICE V block_sum(V v, V* scratch) { return block_reduce<Sum>(v, scratch, V(0)); }
template <class V> DEVICE V block_max(V v, V* scratch) {
    return block_reduce<Most>(v, scratch, V(-INF));
}

// --- atomic sums ------------------------------------------------------------------------------

DEVICE void atomic_add(float* p, float v) { atomicAdd(p, v); }
DEVICE void atomic_add(double* p, double v) { atomicAdd(p, v); }

// 16-bit values by exchanging the 32-bit word that holds them: every architecture has this, and
// the sum is made in float and rounded once.
template <class H> DEVICE void atomic_add_16(H* p, float v) {
    unsigned long long place = (unsigned long long)p;
    unsigned* word = (unsigned*)(place & ~3ull);
    bool high = place & 2;
    unsigned seen = atomicAdd(word, 0u), old;
    do {
        old = seen;
        unsigned short bits = high ? old >> 16 : old & 0xffffu;
        H sum = down<H>(up(*reinterpret_cast<H*>(&bits)) + v);
        unsigned fresh = *reinterpret_cast<unsigned short*>(&sum);
        seen = atomicCAS(word, old, high ? (old & 0xffffu) | fresh << 16 : (old & 0xffff0000u) | fresh);
    } while (seen != old);
}
DEVICE void atomic_add(__half* p, float v) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 700
    atomicAdd(p, __float2half_rn(v));
#else
    atomic_add_16(p, v);
#endif
}
DEVICE void atomic_add(__nv_bfloat16* p, float v) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    atomicAdd(p, __float2bfloat16_rn(v));
#else
    atomic_add_16(p, v);
#endif
}

// --- random numbers ---------------------------------------------------------------------------

// Philox4x32-10 of Salmon et al. (2011): four random words for a counter; the words of
// gpunn.generator.philox4x32 for counter (counter, 0) and key `seed`.
DEVICE uint4 philox(unsigned long long seed, unsigned long long counter) {
    unsigned a = (unsigned)counter, b = (unsigned)(counter >> 32), c = 0, d = 0;
    unsigned key0 = (unsigned)seed, key1 = (unsigned)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(0xD2511F53u, a), low0 = 0xD2511F53u * a;
        unsigned high1 = __umulhi(0xCD9E8D57u, c), low1 = 0xCD9E8D57u * c;
        a = high1 ^ b ^ key0;
        b = low1;
        c = high0 ^ d ^ key1;
        d = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return make_uint4(a, b, c, d);
}

// --- bad indices ------------------------------------------------------------------------------

// Where a kernel leaves word of the first index out of range that it meets: in host memory, so
// that the host can look without waiting for the device. The thread that comes first takes it, and
// `set` is written last, so that the host never meets half a record.
struct Fault {
    int set;
    int taken;
    long long value, position, limit;
};
DEVICE void report(Fault* fault, long long value, long long position, long long limit) {
    if (fault && atomicCAS(&fault->taken, 0, 1) == 0) {
        fault->value = value;
        fault->position = position;
        fault->limit = limit;
        __threadfence_system();
        *(volatile int*)&fault->set = 1;
    }
}
