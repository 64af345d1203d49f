// What conv.cpp and conv_weight.cpp share: the shapes, and a tile of the input in a thread's
// scratch, padded with zeros and split into the residues of the stride, so that every tap of every
// output position is a plain shift of one array. A row keeps its padding only once: the right edge
// of one row is the left edge of the next.
#pragma once
#include <algorithm>
#include <vector>

#include "threads.h"

namespace {

struct Shape {
    long n, groups, cin, cout, in[3], out[3], kernel[3], stride[3], pad[3], dilation[3];
};

// One dimension of the loop: y[origin + spread * t] takes x[step * t + delta] for each tap.
struct Axis {
    long positions, in, step, out, spread, origin;
    std::vector<long> taps, deltas;                     // tap number in the kernel, its delta
    std::vector<long> residues, residue, shift;         // of a delta by the step; a tap's two
    long first = 0, reach = 0;                          // least shift, greatest minus least

    void settle() {
        auto floor_div = [](long a, long b) { return a >= 0 ? a / b : -((b - 1 - a) / b); };
        std::vector<long> whole;
        for (long delta : deltas) {
            long q = floor_div(delta, step), r = delta - q * step;
            auto found = std::find(residues.begin(), residues.end(), r);
            residue.push_back(found - residues.begin());
            if (found == residues.end()) residues.push_back(r);
            whole.push_back(q);
        }
        if (whole.empty()) return;
        first = *std::min_element(whole.begin(), whole.end());
        reach = *std::max_element(whole.begin(), whole.end()) - first;
        for (long q : whole) shift.push_back(q - first);
    }
};

struct Range {
    long begin, end;
    long size() const { return end - begin; }
};
inline Range part(long n, long parts, long i) { return {n * i / parts, n * (i + 1) / parts}; }

// How a tile of the input lies in the scratch: [channel][residues d,h,w][depth][rows][row].
struct Layout {
    Range t[3];
    long extent[3], row, plane, depth, block, channel;

    Layout(const Axis *axes, const Range *tile) {
        long blocks = 1;
        for (int i = 0; i < 3; i++) {
            t[i] = tile[i];
            extent[i] = t[i].size() + axes[i].reach;
            blocks *= long(axes[i].residues.size());
        }
        row = extent[2] - shared_edge(axes[2]);
        plane = extent[1] * row;
        depth = extent[0];
        block = depth * plane;
        channel = (blocks * block + extent[2] - row + 15) / 16 * 16;
        if (channel / 16 % 2 == 0) channel += 16;       // an odd number of cache lines
    }

    // Zeros at the right of every row that may serve as the zeros at the left of the next.
    long shared_edge(const Axis &w) const {
        long least = extent[2] - t[2].size();
        for (long r : w.residues) {
            long begin, end;
            inside(w, r, begin, end);
            least = std::min(least, std::min(begin, extent[2] - end));
        }
        return least;
    }
    // The part [begin, end) of a row that comes from the input; zeros elsewhere.
    void inside(const Axis &w, long r, long &begin, long &end) const {
        long base = w.step * (t[2].begin + w.first) + r;
        begin = base >= 0 ? 0 : std::min(extent[2], (-base + w.step - 1) / w.step);
        end = base >= w.in ? 0 : (w.in - base + w.step - 1) / w.step;
        end = std::max(begin, std::min(extent[2], end));
    }
    long flat() const { return (t[1].size() - 1) * row + t[2].size(); }
    std::vector<long> offsets(const Axis *axes, long channels) const {
        std::vector<long> list;
        for (long c = 0; c < channels; c++)
            for (size_t d = 0; d < axes[0].taps.size(); d++)
                for (size_t h = 0; h < axes[1].taps.size(); h++)
                    for (size_t w = 0; w < axes[2].taps.size(); w++) {
                        long b = (axes[0].residue[d] * long(axes[1].residues.size()) +
                                  axes[1].residue[h]) * long(axes[2].residues.size()) +
                                 axes[2].residue[w];
                        list.push_back(c * channel + b * block + axes[0].shift[d] * plane +
                                       axes[1].shift[h] * row + axes[2].shift[w]);
                    }
        return list;
    }
};

// Whole vectors, so up to LANES - 1 elements too many are written: what follows in the scratch is
// written later. Nothing is read at or past `limit`.
template <class T> void zero_row(T *to, long n) {
    for (long i = 0; i < n; i += LANES<T>) store(to + i, Vec<T>{});
}
template <class T> void copy_row(T *to, const T *from, long n, long step, const T *limit) {
    long i = 0;
    if (step == 1)
        for (; i < n && limit - (from + i) >= LANES<T>; i += LANES<T>)
            store(to + i, load(from + i));
    for (; i < n; i++) to[i] = from[i * step];
}

// Where each row of a channel's tile comes from: x[from ...] at [begin, end), zeros elsewhere.
struct Rows {
    struct Row { long from, begin, end; };
    std::vector<Row> list;
    long size, step;                                    // of an input channel, along a row

    Rows(const Axis *axes, const Layout &lay)
        : size(axes[0].in * axes[1].in * axes[2].in), step(axes[2].step) {
        const Axis &D = axes[0], &H = axes[1], &W = axes[2];
        for (long rd : D.residues) for (long rh : H.residues) for (long rw : W.residues) {
            long begin, end;
            lay.inside(W, rw, begin, end);
            long left = W.step * (lay.t[2].begin + W.first + begin) + rw;
            for (long d = 0; d < lay.extent[0]; d++)
                for (long h = 0; h < lay.extent[1]; h++) {
                    long pd = D.step * (lay.t[0].begin + D.first + d) + rd;
                    long ph = H.step * (lay.t[1].begin + H.first + h) + rh;
                    bool out = pd < 0 || pd >= D.in || ph < 0 || ph >= H.in || begin == end;
                    if (out) list.push_back({0, lay.extent[2], lay.extent[2]});
                    else list.push_back({(pd * H.in + ph) * W.in + left, begin, end});
                }
        }
    }
};

// The tile of `channels` input channels at x, into the scratch.
template <class T>
void fill(const Rows &rows, const Layout &lay, const T *x, long channels, const T *limit, T *to) {
    const long row = lay.row, extent = lay.extent[2], step = rows.step;
    for (long c = 0; c < channels; c++, x += rows.size, to += lay.channel) {
        T *p = to;
        for (const Rows::Row &r : rows.list) {
            zero_row(p, r.begin);
            copy_row(p + r.begin, x + r.from, r.end - r.begin, step, limit);
            zero_row(p + r.end, extent - r.end);
            p += row;
        }
    }
}

// y[o] takes x[o * stride + k * dilation - pad].
inline void forward_axes(const Shape &s, Axis *axes) {
    for (int i = 0; i < 3; i++) {
        axes[i] = {s.out[i], s.in[i], s.stride[i], s.out[i], 1, 0, {}, {}, {}, {}, {}};
        for (long k = 0; k < s.kernel[i]; k++) {
            axes[i].taps.push_back(k);
            axes[i].deltas.push_back(k * s.dilation[i] - s.pad[i]);
        }
        axes[i].settle();
    }
}

}  // namespace
