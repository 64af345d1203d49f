// What the products of convolution need around them: operands in another order, shares added up.
//
// conv_pack: the weights w (groups * O, C, taps), C the channels of a group, as conv_forward reads
//   them. rows_last: packed (groups, taps, depth, rows), `rows` padded with zeros to `pitch`; else
//   (groups, rows, taps, depth), rows padded to `height` and depth to `pitch`. Element (g, t, d, m) is
//   w[g * group + m * row + d * channel + t]: so the input gradient swaps `row` and `channel`.
// conv_channels_last: y (samples, places, groups, padded) from x (samples, groups, channels, places),
//   zeros beyond the channels.
// conv_sum: dw (groups, rows, depth, taps) = the sum over `splits` of part (splits, groups, rows,
//   taps, padded), in ascending order.
// All: any grid, blocks of 256 threads; deterministic; each element read and written once. `tf32`
// rounds float32 to the precision of the tensor cores, which would cut it off.
// Reference: transpose and sum of NumPy.
#include "mma.cuh"

DEVICE float rounded(float v, int tf32) { return tf32 ? __uint_as_float(to_tf32(v)) : v; }
DEVICE double rounded(double v, int) { return v; }
DEVICE __half rounded(__half v, int) { return v; }
DEVICE __nv_bfloat16 rounded(__nv_bfloat16 v, int) { return v; }

extern "C" __global__ void conv_pack(
    const T* __restrict__ w, T* __restrict__ packed, int groups, int taps, int rows, int depth,
    int height, int pitch, long long group, long long row, long long channel, bool rows_last, int tf32) {
    const int fast = pitch, slow = rows_last ? depth : height;
    const long long total = (long long)groups * taps * slow * fast;
    for (long long i = global_index(); i < total; i += global_stride()) {
        long long rest = i / fast;
        int a = int(i % fast), g, t, d, m;
        if (rows_last) {
            m = a, d = int(rest % depth), t = int(rest / depth % taps), g = int(rest / depth / taps);
        } else {
            d = a, t = int(rest % taps), m = int(rest / taps % height), g = int(rest / taps / height);
        }
        bool there = m < rows && d < depth;
        packed[i] = there ? rounded(w[g * group + m * row + d * channel + t], tf32) : down<T>(Acc(0));
    }
}

const int SIDE = 64;  // of a tile of channels by places: 16 reads of a thread are under way at once

extern "C" __global__ void __launch_bounds__(256) conv_channels_last(
    const T* __restrict__ x, T* __restrict__ y, long long blocks, int groups, int channels, int padded,
    int places, int tf32) {  // blocks: samples * groups
    __shared__ Acc tile[SIDE][SIDE + 1];
    const int across = (places + SIDE - 1) / SIDE, along = (padded + SIDE - 1) / SIDE;
    const long long tiles = blocks * across * along;
    for (long long i = blockIdx.x; i < tiles; i += gridDim.x) {
        const int p0 = int(i % across) * SIDE, c0 = int(i / across % along) * SIDE;
        const int width = least(padded - c0, SIDE);
        const long long block = i / across / along;
        const T* from = x + block * channels * places + p0;
        T* to = y + (block / groups * places * groups + block % groups) * padded + c0;
#pragma unroll
        for (int k = 0; k < SIDE * SIDE / 256; k++) {
            int e = k * 256 + threadIdx.x, c = e / SIDE, p = e % SIDE;
            bool there = c0 + c < channels && p0 + p < places;
            tile[c][p] = there ? up(from[(long long)(c0 + c) * places + p]) : Acc(0);
        }
        __syncthreads();
        for (int e = threadIdx.x; e < SIDE * width; e += 256) {  // few channels: places side by side
            int p = width == SIDE ? e / SIDE : e / width, c = e - p * width;
            if (p0 + p < places)
                to[(long long)(p0 + p) * groups * padded + c] = rounded(down<T>(tile[c][p]), tf32);
        }
        __syncthreads();
    }
}

extern "C" __global__ void conv_sum(
    const Acc* __restrict__ part, T* __restrict__ dw, int splits, long long channels, int depth,
    int padded, int taps) {  // channels: groups * rows
    const long long total = channels * taps * padded;
    for (long long i = global_index(); i < total; i += global_stride()) {
        int d = int(i % padded), t = int(i / padded % taps);
        if (d >= depth) continue;
        Acc sum = 0;
        for (int s = 0; s < splits; s++) sum += part[s * total + i];
        dw[(i / padded / taps * depth + d) * taps + t] = down<T>(sum);
    }
}
