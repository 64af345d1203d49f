// Kernels with one planted defect each, present where PLANTED is true; false gives the correct twin.
// test_faults.py says how each is launched and what is to be said of it.
#include "mma.cuh"

// --- barriers -------------------------------------------------------------------------------------

extern "C" __global__ void missing_sync(const float* x, float* y) {
    __shared__ float t[64];
    t[threadIdx.x] = x[threadIdx.x];
    if (!PLANTED) __syncthreads();
    y[threadIdx.x] = t[63 - threadIdx.x];  // missing_sync
}

extern "C" __global__ void missing_sync_before_reuse(const float* x, float* y, int n) {
    __shared__ float t[64];
    float sum = 0;
    for (int i = 0; i < n; i++) {
        t[threadIdx.x] = x[i * 64 + threadIdx.x];  // missing_sync_before_reuse
        __syncthreads();
        sum += t[(threadIdx.x + 1) % 64] * (i + 1);  // missing_sync_before_reuse: read
        if (!PLANTED) __syncthreads();
    }
    y[threadIdx.x] = sum;
}

// A shared variable that is no array, and whose address is never taken.
extern "C" __global__ void missing_sync_scalar(const float* x, float* y) {
    __shared__ float s;
    if (threadIdx.x == 0) s = x[0];  // missing_sync_scalar: write
    if (!PLANTED) __syncthreads();
    y[threadIdx.x] = s;  // missing_sync_scalar
}

extern "C" __global__ void reused_scalar(const float* x, float* y) {
    __shared__ float s;
    if (threadIdx.x == 0) s = x[0];
    __syncthreads();
    float v = s;  // reused_scalar
    if (!PLANTED) __syncthreads();
    if (threadIdx.x == 0) s = x[1];  // reused_scalar: write
    __syncthreads();
    y[threadIdx.x] = v + s;
}

extern "C" __global__ void divergent_barrier(float* y) {
    if (!PLANTED || threadIdx.x < 16) __syncthreads();  // divergent_barrier
    y[threadIdx.x] = 1;
}

extern "C" __global__ void two_barriers(float* y) {
    if (PLANTED && threadIdx.x % 2) {
        y[threadIdx.x] = 1;
        __syncthreads();  // two_barriers: odd
    } else {
        y[threadIdx.x] = 2;
        __syncthreads();  // two_barriers
    }
}

extern "C" __global__ void early_return(float* y, int n) {
    if (PLANTED && threadIdx.x >= n) return;
    __syncthreads();  // early_return
    if (threadIdx.x < n) y[threadIdx.x] = 1;
}

// In a function of another file.
extern "C" __global__ void divergent_sum(float* y) {
    __shared__ float scratch[32];
    float v = 1;
    if (!PLANTED || threadIdx.x < 32) v = block_sum(v, scratch);  // divergent_sum
    y[threadIdx.x] = v;
}

// --- bounds ---------------------------------------------------------------------------------------

extern "C" __global__ void read_past_end(const float* x, float* y, int n) {
    int i = threadIdx.x;
    if (i < n) y[i] = x[i + PLANTED];  // read_past_end
}

extern "C" __global__ void write_past_end(float* y, int n) {
    int i = threadIdx.x;
    if (i < n + PLANTED) y[i] = 1;  // write_past_end
}

extern "C" __global__ void read_before_start(const float* x, float* y) {
    int i = threadIdx.x;
    y[i] = x[i - PLANTED];  // read_before_start
}

// Past the row, inside the array.
extern "C" __global__ void shared_row(float* y) {
    __shared__ float t[32][32];
    int i = threadIdx.x % 32;
    t[0][i] = 1;
    t[1][i] = 2;
    __syncthreads();
    y[threadIdx.x] = t[0][i + PLANTED];  // shared_row
}

// Past the array, through a pointer.
extern "C" __global__ void shared_pointer(float* y) {
    __shared__ float a[64];
    float* p = a;
    for (int k = 0; k < 1 + PLANTED; k++) p[threadIdx.x + 64 * k] = 1;  // shared_pointer
    __syncthreads();
    y[threadIdx.x] = p[threadIdx.x];
}

extern "C" __global__ void shared_dynamic(float* y) {
    extern __shared__ float dynamic[];
    dynamic[threadIdx.x + PLANTED] = 1;  // shared_dynamic
    __syncthreads();
    y[threadIdx.x] = dynamic[threadIdx.x / 2 + PLANTED];
}

// A pointer to a local variable, handed to another thread.
extern "C" __global__ void local_memory(float* y) {
    __shared__ volatile float* place;
    volatile float mine = threadIdx.x + 1;
    if (threadIdx.x == 0) place = &mine;
    __syncthreads();
    y[threadIdx.x] = PLANTED ? *place : mine;  // local_memory
    __syncthreads();
}

extern "C" __global__ void null_pointer(const float* x, float* y) {
    if (x != nullptr || PLANTED) y[threadIdx.x] = x[threadIdx.x];  // null_pointer
}

extern "C" __global__ void write_to_const(const int* x, int* y) {
    y[threadIdx.x] = x[threadIdx.x] + 1;
    if (PLANTED) const_cast<int*>(x)[threadIdx.x] = 7;  // write_to_const
}

extern "C" __global__ void misaligned(const float* x, float* y) {
    float4 v = *reinterpret_cast<const float4*>(x + PLANTED + 4 * threadIdx.x);  // misaligned
    y[threadIdx.x] = v.x + v.w;
}

// --- races ----------------------------------------------------------------------------------------

extern "C" __global__ void missing_atomic_in_block(const int* ids, float* y) {
    float* p = &y[ids[threadIdx.x]];
    if (PLANTED) *p += 1.f;  // missing_atomic_in_block
    else atomicAdd(p, 1.f);
}

extern "C" __global__ void missing_atomic_in_grid(float* y) {
    if (threadIdx.x) return;
    if (PLANTED) y[0] += 1.f;  // missing_atomic_in_grid
    else atomicAdd(y, 1.f);
}

extern "C" __global__ void missing_syncwarp(const float* x, float* y) {
    __shared__ float t[32];
    t[threadIdx.x] = x[threadIdx.x];
    if (!PLANTED) __syncwarp();
    y[threadIdx.x] = t[31 - threadIdx.x];  // missing_syncwarp
}

// All lanes read what one of them overwrites next.
extern "C" __global__ void missing_syncwarp_before_reuse(float* y) {
    __shared__ float s[2];
    float sum = 0;
    if (threadIdx.x % 32 == 0) s[threadIdx.x / 32] = 1;
    for (int i = 0; i < 4; i++) {
        __syncwarp();
        sum += s[threadIdx.x / 32];  // missing_syncwarp_before_reuse: read
        if (!PLANTED) __syncwarp();
        if (threadIdx.x % 32 == 0) s[threadIdx.x / 32] = sum;  // missing_syncwarp_before_reuse
    }
    y[threadIdx.x] = sum;
}

// The two halves of a warp hand on to themselves; the second reads what the first wrote.
extern "C" __global__ void syncwarp_of_half(const float* x, float* y) {
    __shared__ float t[32];
    unsigned half = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
    t[threadIdx.x] = x[threadIdx.x];  // syncwarp_of_half: write
    __syncwarp(PLANTED ? half : 0xffffffffu);
    y[threadIdx.x] = t[31 - threadIdx.x];  // syncwarp_of_half
}

// The last block sums what the others stored.
extern "C" __global__ void missing_release(const float* x, float* parts, int* count, float* y) {
    parts[blockIdx.x] = x[blockIdx.x] * 2;  // missing_release: write
    if (!PLANTED) __threadfence();
    if (atomicAdd(count, 1) == gridDim.x - 1) {
        __threadfence();
        float sum = 0;
        for (int i = 0; i < gridDim.x; i++) sum += parts[i];  // missing_release
        y[0] = sum;
    }
}

extern "C" __global__ void missing_acquire(const float* x, float* parts, int* count, float* y) {
    parts[blockIdx.x] = x[blockIdx.x] * 2;  // missing_acquire: write
    __threadfence();
    if (atomicAdd(count, 1) == gridDim.x - 1) {
        if (!PLANTED) __threadfence();
        float sum = 0;
        for (int i = 0; i < gridDim.x; i++) sum += parts[i];  // missing_acquire
        y[0] = sum;
    }
}

// An earlier block read what a later one writes.
extern "C" __global__ void overwritten_input(float* x, float* y) {
    y[blockIdx.x] = x[PLANTED ? (blockIdx.x + 1) % gridDim.x : blockIdx.x];  // overwritten_input: read
    x[blockIdx.x] = 0;  // overwritten_input
}

extern "C" __global__ void unlocked(int* mutex, int* y) {
    if (threadIdx.x % 32) return;
    if (!PLANTED) {
        while (atomicCAS(mutex, 0, 1) != 0) {
        }
        __threadfence();
    }
    y[0] += 1;  // unlocked
    __threadfence();
    atomicExch(mutex, 0);
}

// --- what nothing wrote, and what has not arrived ---------------------------------------------------

extern "C" __global__ void unwritten_shared(float* y) {
    __shared__ float t[64];
    if (!PLANTED || threadIdx.x < 63) t[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = t[63 - threadIdx.x];  // unwritten_shared
}

// A block takes what an earlier one left in shared memory.
extern "C" __global__ void left_by_other_block(float* y) {
    __shared__ float t[32];
    if (!PLANTED || blockIdx.x == 0) t[threadIdx.x] = 1;
    y[blockIdx.x * 32 + threadIdx.x] = t[threadIdx.x];  // left_by_other_block
}

extern "C" __global__ void missing_cp_async_wait(const float* x, float* y) {
    __shared__ __align__(16) float t[128];
    cp_async16(t + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
    cp_async_commit();
    if (!PLANTED) cp_async_wait<0>();
    __syncthreads();
    y[threadIdx.x] = t[127 - threadIdx.x];  // missing_cp_async_wait
}

// A thread's wait is for its own copies: the others' come with the barrier.
extern "C" __global__ void missing_sync_after_cp_async(const float* x, float* y) {
    __shared__ __align__(16) float t[128];
    cp_async16(t + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
    cp_async_commit();
    cp_async_wait<0>();
    if (!PLANTED) __syncthreads();
    y[threadIdx.x] = t[127 - threadIdx.x];  // missing_sync_after_cp_async
}

extern "C" __global__ void cp_async_past_end(const float* x, float* y, int n) {
    __shared__ __align__(16) float t[128];
    bool valid = 4 * threadIdx.x < n || PLANTED;
    cp_async16(t + 4 * threadIdx.x, x + (valid ? 4 * threadIdx.x : 0), valid);  // cp_async_past_end
    cp_async_commit();
    cp_async_wait<0>();
    y[threadIdx.x] = t[4 * threadIdx.x];
}

// --- warps ----------------------------------------------------------------------------------------

extern "C" __global__ void divergent_shuffle(float* y) {
    float v = threadIdx.x;
    if (!PLANTED || threadIdx.x < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);  // divergent_shuffle
    __syncthreads();
    y[threadIdx.x] = v;
}

extern "C" __global__ void lane_not_in_mask(float* y) {
    float v = threadIdx.x;
    v = __shfl_xor_sync(PLANTED ? 0xffffu : 0xffffffffu, v, 1);  // lane_not_in_mask
    y[threadIdx.x] = v;
}

extern "C" __global__ void masks_differ(float* y) {
    unsigned mask = PLANTED && threadIdx.x % 2 ? 0xfffffffeu : 0xffffffffu;
    y[threadIdx.x] = __any_sync(mask, threadIdx.x == 0);  // masks_differ
}

extern "C" __global__ void product_of_part_of_warp(float* y) {
    if (PLANTED && threadIdx.x == 31) return;
    float d[4] = {};
    unsigned a[4] = {}, b[2] = {};
    mma_16816<__half>(d, a, b);
    y[threadIdx.x] = d[0];
}

// --- the rest -------------------------------------------------------------------------------------

// Waits for a flag that no one sets.
extern "C" __global__ void spin(volatile int* y) {
    if (threadIdx.x == 0)
        while (PLANTED && y[0] == 0) __nanosleep(10);
}

extern "C" __global__ void endless(volatile int* y) {
    for (int i = 0; PLANTED || i < 3; i++) y[0] = i;
}

extern "C" __global__ void division_by_zero(const int* x, int* y) {
    y[threadIdx.x] = 10 / (x[threadIdx.x] + 1 - PLANTED);  // division_by_zero
}

extern "C" __global__ void false_assertion(int* y) {
    assert(threadIdx.x < 31 || !PLANTED);  // false_assertion
    y[threadIdx.x] = 1;
}

extern "C" __global__ void false_assumption(int* y, int n) {
    __builtin_assume(n % 4 == 0 || !PLANTED);  // false_assumption
    y[threadIdx.x] = n;
}

__device__ __attribute__((noinline)) int deeper(int n) {
    volatile char big[1024];
    big[0] = 1;
    return n ? deeper(n - 1) + big[0] : 0;
}
extern "C" __global__ void stack_overflow(int* y) { y[threadIdx.x] = deeper(PLANTED ? 1000 : 3); }
