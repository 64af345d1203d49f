// Softmax and log-softmax of long rows and of columns, with their gradients.
//
//   softmax_forward        y = exp(x - max) / sum of exp(x - max)
//   softmax_backward       dx = y (dy - sum of y dy)
//   log_softmax_forward    y = x - max - log(sum of exp(x - max))
//   log_softmax_backward   dx = dy - exp(y) * sum of dy
//
// x, y, dy, dx: T (rows, n), C-contiguous; sums are in Acc. One block of whole warps (at most 512
// threads) a row, any grid; `kept` says that there is dynamic shared memory for a row (for two in
// softmax_backward) plus 16 bytes each, so that it is read from global memory once.
//
// *_columns: T (outer, n, inner), the sum over the middle dimension; blocks of (32, slices <= 8)
// threads, any grid. `columns` is outer * inner.
//
// Deterministic: the order of sums depends on n, on the block and on the address modulo 16 alone.
// NaN gives NaN, and so does a row of -inf, as in PyTorch. Must move, in arrays of x's size: 2
// forward and 3 backward; a row that is not kept is read twice, as a rule from the L2 cache then.
// Python reference: gpunn/nn/softmax.py. Rows of up to 1024 values: softmax_short.cu.
#include "softmax.cuh"

extern __shared__ uint4 memory[];

// Where a kept row lies, so that what is aligned in global memory is aligned here.
DEVICE T* kept_row(int head, long long offset) {
    return reinterpret_cast<T*>(memory) + offset + (head > 0 ? WIDE - head : 0);
}

template <bool LOG>
DEVICE void forward_rows(const T* __restrict__ x, T* __restrict__ y, long long rows, long long n,
                         bool kept) {
    __shared__ Acc scratch[32];
    int rank = threadIdx.x, size = blockDim.x;
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const T* from = x + row * n;
        T* to = y + row * n;
        int head = values_before(from, to);
        T* copy = kept ? kept_row(head, 0) : nullptr;
        Online seen;
        walk(n, head, rank, size,
             [&](long long i) {
                 Acc v[WIDE];
                 load_wide(from + i, v, kept ? copy + i : nullptr);
                 seen.add(v);
             },
             [&](long long i) {
                 if (kept) copy[i] = from[i];
                 seen.add(up(from[i]));
             });
        seen.over_block(scratch);
        Acc max = seen.max, scale = LOG ? log(seen.sum) : Acc(1) / seen.sum;
        auto value = [&](Acc v) { return LOG ? v - max - scale : exponential(v - max) * scale; };
        const T* source = kept ? copy : from;
        walk(n, head, rank, size,
             [&](long long i) {
                 Acc v[WIDE];
                 load_wide(source + i, v);
#pragma unroll
                 for (int j = 0; j < WIDE; j++) v[j] = value(v[j]);
                 store_wide(to + i, v);
             },
             [&](long long i) { to[i] = down<T>(value(up(source[i]))); });
        if (kept) __syncthreads();  // the next row may be aligned otherwise
    }
}

template <bool LOG>
DEVICE void backward_rows(const T* __restrict__ y, const T* __restrict__ dy, T* __restrict__ dx,
                          long long rows, long long n, bool kept) {
    __shared__ Acc scratch[32];
    int rank = threadIdx.x, size = blockDim.x;
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const T *a = y + row * n, *g = dy + row * n;
        T* to = dx + row * n;
        int head = values_before(a, g) < 0 ? -1 : values_before(a, to);
        T* copy_g = kept ? kept_row(head, 0) : nullptr;
        T* copy_a = kept && !LOG ? kept_row(head, (n / WIDE + 2) * WIDE) : nullptr;
        Acc sum = 0;
        walk(n, head, rank, size,
             [&](long long i) {
                 Acc v[WIDE], w[WIDE];
                 load_wide(g + i, w, kept ? copy_g + i : nullptr);
                 if (!LOG) load_wide(a + i, v, kept ? copy_a + i : nullptr);
#pragma unroll
                 for (int j = 0; j < WIDE; j++) sum += LOG ? w[j] : w[j] * v[j];
             },
             [&](long long i) {
                 if (kept) copy_g[i] = g[i];
                 if (kept && !LOG) copy_a[i] = a[i];
                 sum += LOG ? up(g[i]) : up(g[i]) * up(a[i]);
             });
        sum = block_sum(sum, scratch);
        auto value = [&](Acc v, Acc w) { return LOG ? w - exponential(v) * sum : v * (w - sum); };
        const T *from_g = kept ? copy_g : g, *from_a = kept && !LOG ? copy_a : a;
        walk(n, head, rank, size,
             [&](long long i) {
                 Acc v[WIDE], w[WIDE];
                 load_wide(from_a + i, v);
                 load_wide(from_g + i, w);
#pragma unroll
                 for (int j = 0; j < WIDE; j++) v[j] = value(v[j], w[j]);
                 store_wide(to + i, v);
             },
             [&](long long i) { to[i] = down<T>(value(up(from_a[i]), up(from_g[i]))); });
        if (kept) __syncthreads();
    }
}

template <bool LOG>
DEVICE void forward_columns(const T* __restrict__ x, T* __restrict__ y, long long columns,
                            long long n, long long inner) {
    __shared__ Acc scratch[8][32];
    for (long long first = blockIdx.x * 32ll; first < columns; first += gridDim.x * 32ll) {
        long long column = first + threadIdx.x, here = column < columns ? n : 0;
        long long start = here ? column_start(column, n, inner) : 0;
        Online seen;
#pragma unroll 4
        for (long long i = threadIdx.y; i < here; i += blockDim.y) {
            seen.add(up(x[start + i * inner]));
        }
        seen.settle(over_slices<Most>(seen.max, scratch));
        Acc sum = over_slices<Sum>(seen.sum, scratch), max = seen.max;
        Acc scale = LOG ? log(sum) : Acc(1) / sum;
#pragma unroll 4
        for (long long i = threadIdx.y; i < here; i += blockDim.y) {
            Acc v = up(x[start + i * inner]);
            y[start + i * inner] = down<T>(LOG ? v - max - scale : exponential(v - max) * scale);
        }
    }
}

template <bool LOG>
DEVICE void backward_columns(const T* __restrict__ y, const T* __restrict__ dy,
                             T* __restrict__ dx, long long columns, long long n, long long inner) {
    __shared__ Acc scratch[8][32];
    for (long long first = blockIdx.x * 32ll; first < columns; first += gridDim.x * 32ll) {
        long long column = first + threadIdx.x, here = column < columns ? n : 0;
        long long start = here ? column_start(column, n, inner) : 0;
        Acc sum = 0;
#pragma unroll 4
        for (long long i = threadIdx.y; i < here; i += blockDim.y) {
            Acc w = up(dy[start + i * inner]);
            sum += LOG ? w : w * up(y[start + i * inner]);
        }
        sum = over_slices<Sum>(sum, scratch);
#pragma unroll 4
        for (long long i = threadIdx.y; i < here; i += blockDim.y) {
            Acc v = up(y[start + i * inner]), w = up(dy[start + i * inner]);
            dx[start + i * inner] = down<T>(LOG ? w - exponential(v) * sum : v * (w - sum));
        }
    }
}

extern "C" __global__ void __launch_bounds__(512, 2)
softmax_forward(const T* x, T* y, long long rows, long long n, bool kept) {
    forward_rows<false>(x, y, rows, n, kept);
}

extern "C" __global__ void __launch_bounds__(512, 2)
log_softmax_forward(const T* x, T* y, long long rows, long long n, bool kept) {
    forward_rows<true>(x, y, rows, n, kept);
}

extern "C" __global__ void __launch_bounds__(512, 2)
softmax_backward(const T* y, const T* dy, T* dx, long long rows, long long n, bool kept) {
    backward_rows<false>(y, dy, dx, rows, n, kept);
}

extern "C" __global__ void __launch_bounds__(512, 2)
log_softmax_backward(const T* y, const T* dy, T* dx, long long rows, long long n, bool kept) {
    backward_rows<true>(y, dy, dx, rows, n, kept);
}

extern "C" __global__ void __launch_bounds__(256, 4)
softmax_forward_columns(const T* x, T* y, long long columns, long long n, long long inner) {
    forward_columns<false>(x, y, columns, n, inner);
}

extern "C" __global__ void __launch_bounds__(256, 4)
log_softmax_forward_columns(const T* x, T* y, long long columns, long long n, long long inner) {
    forward_columns<true>(x, y, columns, n, inner);
}

extern "C" __global__ void __launch_bounds__(256, 4)
softmax_backward_columns(const T* y, const T* dy, T* dx, long long columns, long long n,
                         long long inner) {
    backward_columns<false>(y, dy, dx, columns, n, inner);
}

extern "C" __global__ void __launch_bounds__(256, 4)
log_softmax_backward_columns(const T* y, const T* dy, T* dx, long long columns, long long n,
                             long long inner) {
    backward_columns<true>(y, dy, dx, columns, n, inner);
}
