// Max and average pooling over the last 1 to 3 dimensions, with windows of one size (max_pool,
// avg_pool) or spread evenly (adaptive), and what unpooling needs.
//
//   max_pool_forward       y = greatest of each window; its tap or its place
//   max_pool_backward      dx = sum of dy over the windows that chose this entry
//   avg_pool_forward       y = sum of each window / divisor
//   avg_pool_backward      dx = sum of dy / divisor over the windows that hold this entry
//   adaptive_max_*, adaptive_avg_*   the same with window o of m over n entries being
//                          [floor(o n / m), ceil((o + 1) n / m))
//   unpool_forward         y[place] = x (y was filled with zeros)
//   pick_places            y = x[place]: the gradient of unpooling
//
// x and dx are (planes, *in), y and dy (planes, *out), C-contiguous. What won is kept as the tap
// (number within the window, unsigned char, for windows of at most 256 taps), an eighth of the
// memory that the place needs, or as the place (number within the plane, long long) where the
// caller asks for it; one of the two pointers is null. Of equal values the first wins, of NaNs the
// last; a window of -inf gives its first entry. The padding never wins, and counts as zeros.
//
// Launch: one-dimensional, any grid, one thread for each entry of the result; the kernels whose
// name ends in _8 or _warp have 8 or 32 threads for each window, and want blocks of whole warps.
// Those that end in _2x2 and _3x3 are for such windows of two dimensions.
// I is int where planes * max(in, out) < 2^30, else long long; a plane is smaller than 2^31.
// FIRST is the first dimension to look at: 1 where in[0] and kernel[0] are 1, else 0.
// Deterministic: the backward kernels gather, in a fixed order; no atomic sums. unpool_forward
// writes what comes last where one place is named twice (max pooling gives equal values there).
// Python reference: nn/pool.py, nn/adaptive_pool.py. Forward must read x and write y (and taps);
// backward must read dy (and taps) and write dx: they are limited by bandwidth.
#include "common.cuh"

// Division of 0 <= n < 2^31 by a number known to the host: Granlund and Montgomery 1994, figure 4.1.
struct Divider { unsigned by, multiplier, shift; };
DEVICE int divide(int n, const Divider& d) {
    return (int)((__umulhi((unsigned)n, d.multiplier) + (unsigned)n) >> d.shift);
}
DEVICE long long divide(long long n, const Divider& d) { return n / (int)d.by; }

struct Windows {
    int in[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
    Divider by_in[3], by_out[3], by_stride[3];
};
DEVICE int volume(const int (&size)[3]) { return size[0] * size[1] * size[2]; }

// An entry of an array of planes.
struct Spot { I plane; int at[3]; };
DEVICE Spot spot(I item, const int (&size)[3], const Divider (&by)[3]) {
    Spot s;
    s.at[0] = 0;
#pragma unroll
    for (int a = 2; a >= FIRST; a--) {
        I rest = divide(item, by[a]);
        s.at[a] = (int)(item - rest * size[a]);
        item = rest;
    }
    s.plane = item;
    return s;
}

// --- windows --------------------------------------------------------------------------------------

// A window: tap t of axis a, from first to last (exclusive), lies at start + t * step.
struct Box {
    int start[3] = {0, 0, 0}, step[3] = {1, 1, 1}, first[3] = {0, 0, 0}, last[3] = {1, 1, 1};
};

DEVICE Box fixed_box(const Spot& o, const Windows& w) {
    Box b;
#pragma unroll
    for (int a = FIRST; a < 3; a++) {
        int d = b.step[a] = w.dilation[a], start = b.start[a] = o.at[a] * w.stride[a] - w.padding[a];
        b.first[a] = start >= 0 ? 0 : d == 1 ? -start : (d - 1 - start) / d;
        int room = w.in[a] - start;
        b.last[a] = least(w.kernel[a], d == 1 ? room : (room + d - 1) / d);
    }
    return b;
}
DEVICE Box adaptive_box(const Spot& o, const Windows& w) {
    Box b;
#pragma unroll
    for (int a = FIRST; a < 3; a++) {
        b.start[a] = divide(o.at[a] * w.in[a], w.by_out[a]);
        b.last[a] = divide((o.at[a] + 1) * w.in[a] + w.out[a] - 1, w.by_out[a]) - b.start[a];
    }
    return b;
}
template <bool ADAPTIVE> DEVICE Box box(const Spot& o, const Windows& w) {
    return ADAPTIVE ? adaptive_box(o, w) : fixed_box(o, w);
}

// Calls f(place in the plane, tap) for the entries of a window: all of them, in order, or with
// LANES > 1 every LANES-th from this lane's on. SIDE, if not 0: the window is SIDE x SIDE, so that
// all its loads can be under way together.
template <int LANES, int SIDE, class F>
DEVICE void walk(const Box& b, const Windows& w, const F& f) {
    if (SIDE > 0) {
#pragma unroll
        for (int t = 0; t < SIDE; t++)
#pragma unroll
            for (int u = 0; u < SIDE; u++)
                if (t >= b.first[1] && t < b.last[1] && u >= b.first[2] && u < b.last[2])
                    f((b.start[1] + t * b.step[1]) * w.in[2] + b.start[2] + u * b.step[2], t * SIDE + u);
        return;
    }
    int depth = b.last[0] - b.first[0], height = b.last[1] - b.first[1];
    int width = b.last[2] - b.first[2], lane = LANES == 1 ? 0 : threadIdx.x % LANES;
    if (depth <= 0 || height <= 0 || width <= 0) return;
    if (depth * height == 1) {  // one row, as whole planes are laid out: no carrying to the next
        int at = ((b.start[0] + b.first[0] * b.step[0]) * w.in[1] + b.start[1] +
                  b.first[1] * b.step[1]) * w.in[2] + b.start[2];
        int tap = (b.first[0] * w.kernel[1] + b.first[1]) * w.kernel[2];
        for (int u = b.first[2] + lane; u < b.last[2]; u += LANES) f(at + u * b.step[2], tap + u);
        return;
    }
    int down = LANES == 1 ? 0 : LANES / width;  // how far a step of LANES entries goes
    int right = LANES == 1 ? 1 : LANES % width;
    int u = b.first[2] + lane % width, t = b.first[1] + lane / width, s = b.first[0];
    while (true) {
        while (t >= b.last[1]) t -= height, s++;
        if (s >= b.last[0]) return;
        f(((b.start[0] + s * b.step[0]) * w.in[1] + b.start[1] + t * b.step[1]) * w.in[2] +
              b.start[2] + u * b.step[2],
          (s * w.kernel[1] + t) * w.kernel[2] + u);
        u += right, t += down;
        if (u >= b.last[2]) u -= width, t++;
    }
}

// The first window of this thread or, with several lanes for each, of its warp.
template <int LANES> DEVICE I first_item() {
    return (I)(LANES == 1 ? global_index() : global_index() / 32 * (32 / LANES));
}

// --- maximum --------------------------------------------------------------------------------------

// Whether (v, order) wins against (best, known): the greater, the first of equals, the last NaN.
DEVICE bool wins(Acc v, int order, Acc best, int known) {
    if (v != v) return best == best || order > known;
    return v > best || (v == best && order < known);
}

template <int LANES, int SIDE, bool ADAPTIVE>
DEVICE void max_forward(const T* x, T* y, unsigned char* taps, long long* places, I planes,
                        const Windows& w) {
    I total = planes * volume(w.out);
    for (I base = first_item<LANES>(); base < total; base += (I)(global_stride() / LANES)) {
        I item = base + (LANES == 1 ? 0 : (int)(threadIdx.x % 32 / LANES));
        Spot o = spot(least(item, total - 1), w.out, w.by_out);  // a warp goes on as a whole
        Box b = box<ADAPTIVE>(o, w);
        const T* from = x + o.plane * volume(w.in);
        Acc best = -Acc(INF);
        int tap = (b.first[0] * w.kernel[1] + b.first[1]) * w.kernel[2] + b.first[2];
        int place = ((b.start[0] + b.first[0] * b.step[0]) * w.in[1] + b.start[1] +
                     b.first[1] * b.step[1]) * w.in[2] + b.start[2] + b.first[2] * b.step[2];
        walk<LANES, SIDE>(b, w, [&](int at, int number) {
            Acc v = up(from[at]);
            if (v > best || v != v) best = v, tap = number, place = at;
        });
        if (LANES > 1) {
#pragma unroll
            for (int apart = LANES / 2; apart; apart >>= 1) {
                Acc v = __shfl_xor_sync(0xffffffffu, best, apart);
                int number = __shfl_xor_sync(0xffffffffu, tap, apart);
                int at = __shfl_xor_sync(0xffffffffu, place, apart);
                if (wins(v, at, best, place)) best = v, tap = number, place = at;
            }
            if (threadIdx.x % LANES || item >= total) continue;
        }
        y[item] = down<T>(best);
        if (taps) taps[item] = (unsigned char)tap;
        if (places) places[item] = place;
    }
}

extern "C" __global__ void max_pool_forward(
    const T* x, T* y, unsigned char* taps, long long* places, I planes, Windows w) {
    max_forward<1, 0, false>(x, y, taps, places, planes, w);
}
extern "C" __global__ void max_pool_forward_2x2(
    const T* x, T* y, unsigned char* taps, long long* places, I planes, Windows w) {
    max_forward<1, 2, false>(x, y, taps, places, planes, w);
}
extern "C" __global__ void max_pool_forward_3x3(
    const T* x, T* y, unsigned char* taps, long long* places, I planes, Windows w) {
    max_forward<1, 3, false>(x, y, taps, places, planes, w);
}
extern "C" __global__ void max_pool_forward_8(
    const T* x, T* y, unsigned char* taps, long long* places, I planes, Windows w) {
    max_forward<8, 0, false>(x, y, taps, places, planes, w);
}
extern "C" __global__ void max_pool_forward_warp(
    const T* x, T* y, unsigned char* taps, long long* places, I planes, Windows w) {
    max_forward<32, 0, false>(x, y, taps, places, planes, w);
}
extern "C" __global__ void adaptive_max_forward(
    const T* x, T* y, unsigned char* taps, long long* places, I planes, Windows w) {
    max_forward<1, 0, true>(x, y, taps, places, planes, w);
}
extern "C" __global__ void adaptive_max_forward_8(
    const T* x, T* y, unsigned char* taps, long long* places, I planes, Windows w) {
    max_forward<8, 0, true>(x, y, taps, places, planes, w);
}
extern "C" __global__ void adaptive_max_forward_warp(
    const T* x, T* y, unsigned char* taps, long long* places, I planes, Windows w) {
    max_forward<32, 0, true>(x, y, taps, places, planes, w);
}

// --- average --------------------------------------------------------------------------------------

// What the sum of window o is divided by.
template <bool ADAPTIVE>
DEVICE Acc divisor_of(const int (&o)[3], const Windows& w, bool include_pad, Acc divisor) {
    if (!ADAPTIVE && divisor != 0) return divisor;
    int count = 1;
#pragma unroll
    for (int a = FIRST; a < 3; a++) {
        if (ADAPTIVE) {
            count *= divide((o[a] + 1) * w.in[a] + w.out[a] - 1, w.by_out[a]) -
                     divide(o[a] * w.in[a], w.by_out[a]);
        } else {
            int start = o[a] * w.stride[a] - w.padding[a];
            int end = least(start + w.kernel[a], w.in[a] + w.padding[a]);
            count *= include_pad ? end - start : least(end, w.in[a]) - most(start, 0);
        }
    }
    return Acc(count);
}

template <int LANES, int SIDE, bool ADAPTIVE>
DEVICE void avg_forward(const T* x, T* y, I planes, const Windows& w, bool include_pad, Acc divisor) {
    I total = planes * volume(w.out);
    for (I base = first_item<LANES>(); base < total; base += (I)(global_stride() / LANES)) {
        I item = base + (LANES == 1 ? 0 : (int)(threadIdx.x % 32 / LANES));
        Spot o = spot(least(item, total - 1), w.out, w.by_out);  // a warp goes on as a whole
        Box b = box<ADAPTIVE>(o, w);
        const T* from = x + o.plane * volume(w.in);
        Acc sum = 0;
        walk<LANES, SIDE>(b, w, [&](int at, int) { sum += up(from[at]); });
        if (LANES > 1) {
#pragma unroll
            for (int apart = LANES / 2; apart; apart >>= 1)
                sum += __shfl_xor_sync(0xffffffffu, sum, apart);
            if (threadIdx.x % LANES || item >= total) continue;
        }
        y[item] = down<T>(sum / divisor_of<ADAPTIVE>(o.at, w, include_pad, divisor));
    }
}

extern "C" __global__ void avg_pool_forward(
    const T* x, T* y, I planes, Windows w, bool include_pad, Acc divisor) {
    avg_forward<1, 0, false>(x, y, planes, w, include_pad, divisor);
}
extern "C" __global__ void avg_pool_forward_2x2(
    const T* x, T* y, I planes, Windows w, bool include_pad, Acc divisor) {
    avg_forward<1, 2, false>(x, y, planes, w, include_pad, divisor);
}
extern "C" __global__ void avg_pool_forward_3x3(
    const T* x, T* y, I planes, Windows w, bool include_pad, Acc divisor) {
    avg_forward<1, 3, false>(x, y, planes, w, include_pad, divisor);
}
extern "C" __global__ void avg_pool_forward_8(
    const T* x, T* y, I planes, Windows w, bool include_pad, Acc divisor) {
    avg_forward<8, 0, false>(x, y, planes, w, include_pad, divisor);
}
extern "C" __global__ void avg_pool_forward_warp(
    const T* x, T* y, I planes, Windows w, bool include_pad, Acc divisor) {
    avg_forward<32, 0, false>(x, y, planes, w, include_pad, divisor);
}
extern "C" __global__ void adaptive_avg_forward(
    const T* x, T* y, I planes, Windows w, bool include_pad, Acc divisor) {
    avg_forward<1, 0, true>(x, y, planes, w, include_pad, divisor);
}
extern "C" __global__ void adaptive_avg_forward_8(
    const T* x, T* y, I planes, Windows w, bool include_pad, Acc divisor) {
    avg_forward<8, 0, true>(x, y, planes, w, include_pad, divisor);
}
extern "C" __global__ void adaptive_avg_forward_warp(
    const T* x, T* y, I planes, Windows w, bool include_pad, Acc divisor) {
    avg_forward<32, 0, true>(x, y, planes, w, include_pad, divisor);
}

// --- backward: each entry of dx asks the windows that hold it -------------------------------------

// Calls f(window, tap of the entry in it) for the windows that hold entry i, in order.
template <bool ADAPTIVE, class F> DEVICE void windows_of(const Spot& i, const Windows& w, const F& f) {
    int from[3] = {0, 0, 0}, to[3] = {1, 1, 1};
#pragma unroll
    for (int a = FIRST; a < 3; a++) {
        if (ADAPTIVE) {  // the formula of adaptive_box with in and out exchanged
            from[a] = divide(i.at[a] * w.out[a], w.by_in[a]);
            to[a] = divide((i.at[a] + 1) * w.out[a] + w.in[a] - 1, w.by_in[a]);
        } else {
            int reach = i.at[a] + w.padding[a], before = reach - (w.kernel[a] - 1) * w.dilation[a];
            from[a] = before <= 0 ? 0 : divide(before + w.stride[a] - 1, w.by_stride[a]);
            to[a] = least(w.out[a], divide(reach, w.by_stride[a]) + 1);
        }
    }
    int o[3];
    for (o[0] = from[0]; o[0] < to[0]; o[0]++)
        for (o[1] = from[1]; o[1] < to[1]; o[1]++)
            for (o[2] = from[2]; o[2] < to[2]; o[2]++) {
                int tap = 0;
                bool holds = true;
#pragma unroll
                for (int a = FIRST; !ADAPTIVE && a < 3; a++) {
                    int t = i.at[a] + w.padding[a] - o[a] * w.stride[a];
                    if (w.dilation[a] > 1) {
                        holds = holds && t % w.dilation[a] == 0;
                        t /= w.dilation[a];
                    }
                    tap = tap * w.kernel[a] + t;
                }
                if (holds) f(o, tap);
            }
}

template <bool ADAPTIVE>
DEVICE void max_backward(const T* dy, const unsigned char* taps, const long long* places, T* dx,
                         I planes, const Windows& w) {
    I total = planes * volume(w.in);
    for (I item = (I)global_index(); item < total; item += (I)global_stride()) {
        Spot i = spot(item, w.in, w.by_in);
        I plane = i.plane * volume(w.out);
        int place = (i.at[0] * w.in[1] + i.at[1]) * w.in[2] + i.at[2];
        Acc sum = 0;
        windows_of<ADAPTIVE>(i, w, [&](const int (&o)[3], int tap) {
            I at = plane + (o[0] * w.out[1] + o[1]) * w.out[2] + o[2];
            if (taps ? taps[at] == tap : places[at] == place) sum += up(dy[at]);
        });
        dx[item] = down<T>(sum);
    }
}
extern "C" __global__ void max_pool_backward(
    const T* dy, const unsigned char* taps, const long long* places, T* dx, I planes, Windows w) {
    max_backward<false>(dy, taps, places, dx, planes, w);
}
extern "C" __global__ void adaptive_max_backward(
    const T* dy, const unsigned char* taps, const long long* places, T* dx, I planes, Windows w) {
    max_backward<true>(dy, taps, places, dx, planes, w);
}

template <bool ADAPTIVE>
DEVICE void avg_backward(const T* dy, T* dx, I planes, const Windows& w, bool include_pad,
                         Acc divisor) {
    I total = planes * volume(w.in);
    for (I item = (I)global_index(); item < total; item += (I)global_stride()) {
        Spot i = spot(item, w.in, w.by_in);
        const T* from = dy + i.plane * volume(w.out);
        Acc sum = 0;
        windows_of<ADAPTIVE>(i, w, [&](const int (&o)[3], int) {
            sum += up(from[(o[0] * w.out[1] + o[1]) * w.out[2] + o[2]]) /
                   divisor_of<ADAPTIVE>(o, w, include_pad, divisor);
        });
        dx[item] = down<T>(sum);
    }
}
extern "C" __global__ void avg_pool_backward(
    const T* dy, T* dx, I planes, Windows w, bool include_pad, Acc divisor) {
    avg_backward<false>(dy, dx, planes, w, include_pad, divisor);
}
extern "C" __global__ void adaptive_avg_backward(
    const T* dy, T* dx, I planes, Windows w, bool include_pad, Acc divisor) {
    avg_backward<true>(dy, dx, planes, w, include_pad, divisor);
}

// Of windows that are whole planes: every entry of dx gets the plane's one dy / divisor.
extern "C" __global__ void avg_plane_backward(
    const T* dy, T* dx, I total, Divider size, Acc divisor) {
    for (I item = (I)global_index(); item < total; item += (I)global_stride())
        dx[item] = down<T>(up(dy[divide(item, size)]) / divisor);
}

// --- unpooling ------------------------------------------------------------------------------------

// x and places: (planes, in); y: (planes, out), zeros before.
extern "C" __global__ void unpool_forward(
    const T* x, const long long* places, T* y, long long count, long long in, long long out,
    Fault* fault) {
    for (long long i = global_index(); i < count; i += global_stride()) {
        long long place = places[i];
        if (place < 0 || place >= out) report(fault, place, i, out);
        else y[i / in * out + place] = x[i];
    }
}

// x: (planes, in); places and y: (planes, out). A place out of range gives 0.
extern "C" __global__ void pick_places(
    const T* x, const long long* places, T* y, long long count, long long in, long long out) {
    for (long long i = global_index(); i < count; i += global_stride()) {
        long long place = places[i];
        y[i] = place >= 0 && place < in ? x[i / out * in + place] : down<T>(Acc(0));
    }
}
