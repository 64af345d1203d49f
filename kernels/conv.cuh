// Convolution as a matrix product that is never written out (implicit GEMM): what conv.cu,
// conv_tensor.cu and conv_depthwise.cu share.
//
// A convolution and the input gradient of one are the same product
//     y[n, g, m, place] = sum over taps t, channels d of  w[g, t, d, m] * x[n, g, d, place + t]
// where in each of three dimensions (a missing one has size 1) a place q reads coordinate
//     q * step + shift + j * stretch        for its taps j = 0, 1, ...
// of x, the source, and lands on coordinate q * phases + r of y, the result. In a convolution
// step = stride, phases = 1, shift = -padding, stretch = dilation. In an input gradient, coordinate
// i of the result reads (i + padding - t * dilation) / stride of the source, for the taps t with
// which that is whole. So the results are taken in `phases` = stride classes i = q * stride + r,
// each with its own taps: within a class the step is 1 and no product is with a zero in between.
// A weight gradient is the product over places instead of over taps:
//     dw[g, m, t, d] = sum over places of  dy[n, g, m, place] * x[n, g, d, place + t]
//
// So there are two axes to take apart, places into (sample, z, y, x) and (tap, channel), and an
// element of x is found by adding the two parts: x[place.at + tap.at], zero where a sum of
// coordinates falls outside.
#pragma once
#include "common.cuh"

// n / by for 0 <= n < 2^31 without a division: Granlund and Montgomery (1994).
struct Division {
    unsigned times;
    int shift, by;
};
DEVICE int over(int n, const Division& d) {
    return int((__umulhi(unsigned(n), d.times) + unsigned(n)) >> d.shift);
}

// Dimensions in the order depth, height, width. `rows` are the channels of the result and `depth`
// those of the source (of x, in a weight gradient) in one group.
struct Conv {
    int samples, groups, rows, depth;
    int source[3], result[3], kernel[3], places[3];
    int step[3], phases[3], origin[3], reach[3], tap_step[3], stretch[3];
    Division per_sample, per_plane, per_row, per_tap;
};

DEVICE int volume(const int (&size)[3]) { return size[0] * size[1] * size[2]; }

// The taps of one class of results: in dimension a they are first + j * tap_step, j < taps.
struct Phase {
    int start[3], first[3], taps[3], shift[3];
    float of_plane, of_row;  // 1 / the taps of a plane and of a row
};

DEVICE Phase phase_of(const Conv& c, int number) {
    Phase f;
#pragma unroll
    for (int a = 2; a >= 0; a--) {
        int r = number % c.phases[a], t = 0;
        number /= c.phases[a];
        while (t < c.tap_step[a] && (r + c.origin[a] + t * c.reach[a]) % c.phases[a]) t++;
        bool any = t < c.tap_step[a] && t < c.kernel[a];
        f.start[a] = r;
        f.first[a] = t;
        f.taps[a] = any ? (c.kernel[a] - 1 - t) / c.tap_step[a] + 1 : 0;
        f.shift[a] = (r + c.origin[a] + t * c.reach[a]) / c.phases[a];
    }
    f.of_row = 1.f / most(f.taps[2], 1);
    f.of_plane = f.of_row / most(f.taps[1], 1);
    return f;
}
DEVICE int taps_of(const Phase& f) { return f.taps[0] * f.taps[1] * f.taps[2]; }
DEVICE int phases_of(const Conv& c) { return volume(c.phases); }

// A part of an index of x: of a place or of a tap with its channel. `other` belongs to the other
// operand: a place's index in the result (-1: there is no such place), a tap's row of the weights.
struct Spot {
    long long at, other;
    int z, y, x, unused;
};
const int NOWHERE = -(1 << 29);  // a coordinate that no sum brings inside

DEVICE Spot nowhere() { return {0, -1, NOWHERE, NOWHERE, NOWHERE, 0}; }
DEVICE bool inside(const Conv& c, const Spot& a, const Spot& b) {
    return unsigned(a.z + b.z) < unsigned(c.source[0]) && unsigned(a.y + b.y) < unsigned(c.source[1]) &&
           unsigned(a.x + b.x) < unsigned(c.source[2]);
}

// How an array lies in memory: elements from one sample to the next, and from one place to the next
// (1: a plane for each channel; more: the channels of a place together).
struct Layout {
    long long sample, place;
};

DEVICE Spot place_of(const Conv& c, const Phase& f, int p, int places, Layout source, Layout result) {
    if (p >= places) return nowhere();
    int n = over(p, c.per_sample), rest = p - n * c.per_sample.by;
    int z = over(rest, c.per_plane);
    rest -= z * c.per_plane.by;
    int y = over(rest, c.per_row), x = rest - y * c.per_row.by;
    int rz = z * c.phases[0] + f.start[0], ry = y * c.phases[1] + f.start[1],
        rx = x * c.phases[2] + f.start[2];
    if (rz >= c.result[0] || ry >= c.result[1] || rx >= c.result[2]) return nowhere();
    Spot s;
    s.z = z * c.step[0];
    s.y = y * c.step[1];
    s.x = x * c.step[2];
    s.at = n * source.sample + (((long long)s.z * c.source[1] + s.y) * c.source[2] + s.x) * source.place;
    s.other = n * result.sample + (((long long)rz * c.result[1] + ry) * c.result[2] + rx) * result.place;
    s.unused = 0;
    return s;
}

// Number k of the (tap, channel) axis, the channel running fastest; c.per_tap.by of them a tap, each
// `channel` elements after the one before. In the weights they lie `tap_row` and `channel_row` apart.
DEVICE Spot tap_of(const Conv& c, const Phase& f, int k, int count, long long place, long long channel,
                   long long tap_row = 0, long long channel_row = 0) {
    if (k >= count) return nowhere();
    int tap = over(k, c.per_tap), d = k - tap * c.per_tap.by;
    int jz = int((tap + 0.5f) * f.of_plane);  // exact: there are fewer than 2^20 taps
    int rest = tap - jz * f.taps[1] * f.taps[2];
    int jy = int((rest + 0.5f) * f.of_row), jx = rest - jy * f.taps[2];
    int number = ((f.first[0] + jz * c.tap_step[0]) * c.kernel[1] + f.first[1] + jy * c.tap_step[1]) *
                     c.kernel[2] + f.first[2] + jx * c.tap_step[2];
    Spot s;
    s.z = f.shift[0] + jz * c.stretch[0];
    s.y = f.shift[1] + jy * c.stretch[1];
    s.x = f.shift[2] + jx * c.stretch[2];
    s.at = (((long long)s.z * c.source[1] + s.y) * c.source[2] + s.x) * place + d * channel;
    s.other = number * tap_row + d * channel_row;
    s.unused = 0;
    return s;
}

// What is done to a sum before it is rounded and written.
const int RELU = 1;
DEVICE Acc finished(Acc sum, Acc bias, int activation) {
    sum += bias;
    return activation == RELU && sum < Acc(0) ? Acc(0) : sum;  // a NaN stays
}

// A ring of 64 spots in shared memory, filled 32 at a time by the first warp, half a ring ahead:
// number k lies at ring[k % 64]. Reading one costs a few broadcast loads; making one, some 60
// instructions, is spread over 32 lanes.
const int RING = 64;
