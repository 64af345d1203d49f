// Convolution with few channels in a group (depthwise: one), where tiles would be mostly empty.
//
// conv_direct: y = the product of conv_forward (see conv.cu) with w (groups * O, C, *kernel) as it
//   is: element (g, t, d, m) at w[g * group + m * row + d * channel + t]. A block has one channel of
//   the result and PLACES of its places; a thread STRIP places, which share the weights it reads.
// conv_direct_weight_grad: part (splits, groups, rows, taps * depth) of Acc, as conv_weight_grad.
//   A block has one channel pair and a share of the places; its threads keep the sums of up to GATHER
//   taps at a time and add them up in the end.
// Launch: any grid of 256 threads. KERNEL is the number of taps in height and width where they are
// known when compiling (their loops unroll), else 0.
// Deterministic: taps ascend; the sums of a block's threads have a fixed order.
// Bytes: x and y once if the cache keeps the neighbours (depth times where groups have more), 2 FLOPs
// for each tap: a 3 x 3 reads 9 values from L1 for each that comes from memory.
// Reference: columns.py.
#include "conv.cuh"

constexpr int THREADS = 256, STRIP = 4, PLACES = THREADS * STRIP, GATHER = 9;
constexpr int UNROLL = KERNEL && sizeof(T) < 8 ? KERNEL : 1;  // doubles would not fit in registers

extern "C" __global__ void __launch_bounds__(THREADS, 2) conv_direct(
    const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ bias, T* __restrict__ y,
    const Conv c, long long group, long long row, long long channel, int activation) {
    __shared__ Phase f;
    const int plane = volume(c.result), from = volume(c.source), places = c.samples * volume(c.places);
    const int along = (places + PLACES - 1) / PLACES, phases = phases_of(c), rows = c.groups * c.rows;
    const long long tiles = (long long)rows * phases * along;
    const Layout source = {(long long)c.groups * c.depth * from, 1}, result = {(long long)rows * plane, 1};

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int r = int(tile / along / phases), g = r / c.rows;
        __syncthreads();
        if (threadIdx.x == 0) f = phase_of(c, int(tile / along % phases));
        __syncthreads();
        const int height = KERNEL ? KERNEL : f.taps[1], width = KERNEL ? KERNEL : f.taps[2];
        Spot place[STRIP];
        Acc sum[STRIP];
#pragma unroll
        for (int i = 0; i < STRIP; i++) {
            int p = int(tile % along) * PLACES + i * THREADS + threadIdx.x;
            place[i] = place_of(c, f, p, places, source, result);
            sum[i] = 0;
        }
        for (int d = 0; d < c.depth; d++) {
            const T* xd = x + (long long)(g * c.depth + d) * from;
            const T* wd = w + g * group + (r - g * c.rows) * row + d * channel;
            for (int jz = 0; jz < f.taps[0]; jz++) {
                int dz = f.shift[0] + jz * c.stretch[0], tz = f.first[0] + jz * c.tap_step[0];
#pragma unroll 1
                for (int jy = 0; jy < height; jy++) {
                    int dy = f.shift[1] + jy * c.stretch[1], ty = f.first[1] + jy * c.tap_step[1];
                    long long line = ((long long)dz * c.source[1] + dy) * c.source[2];
#pragma unroll UNROLL
                    for (int jx = 0; jx < width; jx++) {
                        int dx = f.shift[2] + jx * c.stretch[2], tx = f.first[2] + jx * c.tap_step[2];
                        Acc weight = up(wd[(tz * c.kernel[1] + ty) * c.kernel[2] + tx]);
#pragma unroll
                        for (int i = 0; i < STRIP; i++)
                            if (unsigned(place[i].z + dz) < unsigned(c.source[0]) &&
                                unsigned(place[i].y + dy) < unsigned(c.source[1]) &&
                                unsigned(place[i].x + dx) < unsigned(c.source[2]))
                                sum[i] += weight * up(xd[place[i].at + line + dx]);
                    }
                }
            }
        }
        Acc add = bias ? up(bias[r]) : Acc(0);
#pragma unroll
        for (int i = 0; i < STRIP; i++)
            if (place[i].other >= 0)
                y[(long long)r * plane + place[i].other] = down<T>(finished(sum[i], add, activation));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) conv_direct_weight_grad(
    const T* __restrict__ x, const T* __restrict__ dy, Acc* __restrict__ part, const Conv c, int splits) {
    __shared__ Acc scratch[32];
    __shared__ Phase f;
    __shared__ Spot tap[GATHER];
    const int plane = volume(c.result), from = volume(c.source), places = c.samples * plane;
    const int rows = c.groups * c.rows, width = volume(c.kernel) * c.depth;
    const int each = (places + splits - 1) / splits;
    const long long tiles = (long long)splits * rows * c.depth;
    const Layout source = {(long long)c.groups * c.depth * from, 1}, result = {(long long)rows * plane, 1};
    if (threadIdx.x == 0) f = phase_of(c, 0);
    __syncthreads();

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int d = int(tile % c.depth), r = int(tile / c.depth % rows), split = int(tile / c.depth / rows);
        const int first = split * each, last = first + each < places ? first + each : places;
        const T* xd = x + (long long)(r / c.rows * c.depth + d) * from;
        const T* dyr = dy + (long long)r * plane;
        for (int t0 = 0; t0 < volume(c.kernel); t0 += GATHER) {
            __syncthreads();
            if (threadIdx.x < GATHER)
                tap[threadIdx.x] = tap_of(c, f, (t0 + threadIdx.x) * c.depth, width, 1, 0);
            __syncthreads();
            Acc sum[GATHER];
#pragma unroll
            for (int t = 0; t < GATHER; t++) sum[t] = 0;
            for (int p = first + threadIdx.x; p < last; p += THREADS) {
                const Spot place = place_of(c, f, p, places, source, result);
                const Acc slope = up(dyr[place.other]);
#pragma unroll
                for (int t = 0; t < GATHER; t++)
                    if (inside(c, place, tap[t])) sum[t] += slope * up(xd[place.at + tap[t].at]);
            }
            Acc* out = part + ((long long)split * rows + r) * width + d;
#pragma unroll
            for (int t = 0; t < GATHER; t++) {
                Acc all = block_sum(sum[t], scratch);
                if (threadIdx.x == 0 && t0 + t < volume(c.kernel)) out[(t0 + t) * c.depth] = all;
            }
        }
    }
}
