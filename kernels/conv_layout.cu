// What the products of convolution need around them: operands in another order, shares added up.
//
// conv_channels_last: y (samples, places, groups, padded) from x (samples, groups, channels, places),
//   zeros beyond the channels: images for conv_tensor.cu, and weights for it and for conv.cu.
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

const int SIDE = 64;  // of a tile of channels by places: 16 reads of a thread are under way at once

extern "C" __global__ void __launch_bounds__(256) conv_channels_last(
    const T* __restrict__ x, T* __restrict__ y, long long blocks, int groups, int channels, int padded,
    int places, int tf32) {  // blocks: samples * groups
    __shared__ Acc tile[SIDE][SIDE + 1];
    const int across = (places + SIDE - 1) / SIDE, along = (padded + SIDE - 1) / SIDE;
    const long long tiles = blocks * across * along;
    for (long long i = blockIdx.x; i < tiles; i += gridDim.x) {
        const int p0 = int(i % across) * SIDE, c0 = int(i / across % along) * SIDE;
        const int width = least(padded - c0, SIDE), height = least(places - p0, SIDE);
        const long long block = i / across / along;
        const T* from = x + block * channels * places + p0;
        T* to = y + (block / groups * places * groups + block % groups) * padded + c0;
#pragma unroll
        for (int k = 0; k < SIDE * SIDE / 256; k++) {
            int e = k * 256 + threadIdx.x, c = height == SIDE ? e / SIDE : e / height, p = e - c * height;
            bool there = c0 + c < channels;
            if (c < width) tile[c][p] = there ? up(from[(long long)(c0 + c) * places + p]) : Acc(0);
        }
        __syncthreads();
        for (int e = threadIdx.x; e < height * width; e += 256) {  // few of either: rows are joined
            int p = width == SIDE ? e / SIDE : e / width, c = e - p * width;
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
#pragma unroll 16  // reads that are under way at once: the results are few, the shares up to hundreds
        for (int s = 0; s < splits; s++) sum += part[s * total + i];
        dw[(i / padded / taps * depth + d) * taps + t] = down<T>(sum);
    }
}
