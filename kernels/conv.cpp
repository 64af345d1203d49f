// Convolution in 1, 2 and 3 dimensions on the CPU: stride, padding, dilation, groups.
//
//   conv_forward      y[n,co,o]  = bias[co] + sum over ci,k  x[n,ci,o*s+k*d-p] * w[co,ci,k]
//   conv_input_grad   dx[n,ci,i] = sum over co,k with i = o*s+k*d-p  dy[n,co,o] * w[co,ci,k]
//   conv_weight_grad  dw[co,ci,k] = sum over n,o  dy[n,co,o] * x[n,ci,o*s+k*d-p];  db = sum of dy
//
// Arrays are C-contiguous, float32 (_f32) or float64 (_f64): x (N, Cin, *in), w (Cout, Cin/groups,
// *kernel), y and dy (N, Cout, *out), bias and db (Cout). `shape` is 22 int64: N, groups, Cin, Cout,
// then three each of in, out, kernel, stride, padding (left), dilation; unused leading dimensions
// are 1, 1, 1, 1, 0, 1. `out` is the caller's, so padding may differ on the right and conv_input_grad
// is conv_transpose's forward too.
//
// How: an implicit GEMM. Every output position is t, every tap of the kernel a fixed distance from
// it. A tile of the input is copied once into a thread's scratch, padded with zeros and, for stride
// s, split into its s residues: then all taps of all positions are plain shifts of one array
// ("panels" need no im2col), and a register block multiplies packed weights with rows at
// buffer + offset[k]. A row keeps its padding only once (the right edge of one row is the left edge
// of the next); the few positions that lie in it are computed and not stored. The input gradient is
// the same loop on dy, one run for each residue of the stride. The weight gradient goes over the
// positions instead, with dy transposed so that the output channels lie in the vector.
//
// The order of sums is fixed by the shapes: results do not depend on the number of threads.
// Python reference: nn/conv.py; flops: 2 * N * Cout * out * Cin/groups * kernel for each.
#include <algorithm>
#include <vector>

#include "threads.h"

namespace {

constexpr long KC = 256;                                // summed in registers at a time
constexpr int MR = REGISTERS == 16 ? (VECTOR_BYTES == 32 ? 6 : 5) : VECTOR_BYTES == 64 ? 14 : 12;
constexpr long MC = 336 / MR * MR;                      // output channels at a time, at most
constexpr long TILE_BYTES = 1536 << 10;                 // of input: each part is used for a short while
constexpr long RESULT_BYTES = 640 << 10;                // of result, in the L2 cache all the while

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
        for (; i < n && limit - (from + i) >= LANES<T>; i += LANES<T>) store(to + i, load(from + i));
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

// c[M][NV vectors] (+)= a[kc][M] * (rows of vectors at b + off[k] + apart[j])
template <class T, int M, int NV>
void block(const T *a, const T *b, const long *off, const long *apart, long kc, T *c, long ldc,
           bool add) {
    long at[NV];
    UNROLL for (int j = 0; j < NV; j++) at[j] = j ? apart[j] : 0;
    Vec<T> acc[M][NV];
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < NV; j++) {
            acc[i][j] = Vec<T>{};
            __builtin_prefetch(c + i * ldc + j * LANES<T>, 1);
        }
    }
    for (long k = 0; k < kc; k++, a += M) {
        const T *row = b + off[k];
        Vec<T> v[NV];
        UNROLL for (int j = 0; j < NV; j++) v[j] = load(row + at[j]);
        UNROLL for (int i = 0; i < M; i++) {
            UNROLL for (int j = 0; j < NV; j++) acc[i][j] += splat(a[i]) * v[j];
        }
    }
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < NV; j++) {
            T *p = c + i * ldc + j * LANES<T>;
            store(p, add ? load(p) + acc[i][j] : acc[i][j]);
        }
    }
}

template <class T> using Block = void (*)(const T *, const T *, const long *, const long *, long,
                                          T *, long, bool);
template <class T, int NV, int M> Block<T> pick_block(long m) {
    if constexpr (M == 0) return nullptr;
    else return m == M ? block<T, M, NV> : pick_block<T, NV, M - 1>(m);
}
// Few rows leave registers for more vectors of each.
inline int block_vectors(long rows) { return rows <= REGISTERS / 8 ? 4 : 2; }
template <class T> Block<T> get_block(long m, int vectors) {
    if (vectors == 4) return pick_block<T, 4, REGISTERS / 8>(m);
    return vectors == 2 ? pick_block<T, 2, MR>(m) : pick_block<T, 1, MR>(m);
}

// The weights as a[panel][k][rows of the panel]: row m of group g, channel c, tap (d,h,w) is
// w[g*by_group + m*by_row + c*by_channel + tap].
template <class T> struct Packed {
    long rows, depth, panels;
    Scratch memory;
    T *a;

    Range panel(long i) const { return part(rows, panels, i); }
    const T *at(long group, long i) const { return a + (group * rows + panel(i).begin) * depth; }

    Packed(const Shape &s, const Axis *axes, const T *w, long rows, long channels, long by_row,
           long by_channel)
        : rows(rows),
          depth(channels * long(axes[0].taps.size() * axes[1].taps.size() * axes[2].taps.size())),
          panels((rows + MR - 1) / MR),
          memory(0, sizeof(T) * size_t(s.groups * rows * depth)),
          a(memory.as<T>()) {
        long by_group = (s.cout / s.groups) * (s.cin / s.groups) * s.kernel[0] * s.kernel[1] *
                        s.kernel[2];
        std::vector<long> taps;
        for (long d : axes[0].taps) for (long h : axes[1].taps) for (long k : axes[2].taps)
            taps.push_back((d * s.kernel[1] + h) * s.kernel[2] + k);
        auto pack = [&](long job) {
            Range r = panel(job % panels);
            T *to = a + (job / panels * rows + r.begin) * depth;
            const T *from = w + job / panels * by_group + r.begin * by_row;
            for (long c = 0; c < channels; c++, from += by_channel) {
                if (long(taps.size()) == by_group / (s.cout / s.groups) / (s.cin / s.groups)) {
                    // all taps, in order: of all channels at once where they follow each other
                    bool once = by_channel == long(taps.size());
                    long n = once ? depth : long(taps.size());
                    transpose(from, by_row, r.size(), n, to, r.size());
                    if (once) break;
                    to += n * r.size();
                    continue;
                }
                for (long tap : taps)
                    for (long m = 0; m < r.size(); m++) *to++ = from[m * by_row + tap];
            }
        };
        if (s.groups * rows * depth > 16384) parallel(s.groups * panels, pack);
        else for (long job = 0; job < s.groups * panels; job++) pack(job);
    }
};

// How the positions are cut into tiles, and the rest of the work into tasks.
struct Plan {
    long parts[3] = {1, 1, 1}, group_parts = 1, row_parts = 1, batch_parts, tasks;

    Plan(const Axis *axes, long images, long groups, long channels, long rows, size_t size) {
        while (!fits(axes, 1, channels, rows, size) && cut(axes)) {}
        long batch = 1, pixels = positions(axes);
        if (parts[0] * parts[1] * parts[2] == 1)        // small images: several to a task
            while (batch < images && batch * pixels < 1024 &&
                   fits(axes, batch + 1, channels, rows, size))
                batch++;
        batch_parts = (images + batch - 1) / batch;
        long flops = images * groups * channels * rows * pixels;
        for (const Axis *a = axes; a < axes + 3; a++) flops *= long(a->taps.size());
        long wish = thread_count() == 1 ? 1 : std::min(4L * thread_count(), 1 + flops / 200000);
        auto count = [&] {
            return batch_parts * parts[0] * parts[1] * parts[2] * group_parts * row_parts;
        };
        while (count() < wish && batch_parts < images)
            batch_parts = std::min(images, 2 * batch_parts);
        while (count() < wish && group_parts < groups)
            group_parts = std::min(groups, 2 * group_parts);
        while (count() < wish && row_parts * 2 * MR <= rows) row_parts *= 2;
        while (count() < wish && cut(axes)) {}
        tasks = count();
    }
    static long positions(const Axis *axes) {
        return axes[0].positions * axes[1].positions * axes[2].positions;
    }

  private:
    bool cut(const Axis *axes) {
        for (int i = 0; i < 3; i++) {
            long least = i == 2 ? 64 : 2;
            if (axes[i].positions < 2 * parts[i] * least) continue;
            parts[i] *= 2;
            return true;
        }
        return false;
    }
    bool fits(const Axis *axes, long images, long channels, long rows, size_t size) const {
        long in = images * channels * long(size), out = images * std::min(rows, MC) * long(size);
        for (int i = 0; i < 3; i++) {
            long t = (axes[i].positions + parts[i] - 1) / parts[i];
            in *= (t + axes[i].reach) * long(axes[i].residues.size());
            out *= t;
        }
        return in <= TILE_BYTES && out <= RESULT_BYTES;
    }
};

// The columns that a task multiplies, in panels of 1, 2 or 4 vectors, laid out in one of three ways:
//   plain    vectors follow each other in the tile, and compute the positions between two rows too
//   by rows  each row begins with a vector, and its last one may go past its end
//   packed   a panel is first put together from pieces of rows: nothing is computed in vain
// whichever takes the fewest cycles.
template <class T> struct Columns {
    struct Piece { long from, to; };
    struct Panel { long from, to; int vectors; long apart[4]; size_t first, last; };
    std::vector<Panel> panels;
    std::vector<Piece> pieces;
    std::vector<long> even;                             // offsets in a packed panel
    bool packed;
    long row, plane, image, size;                       // how the columns lie in the result
    int most;                                           // vectors of a panel

    static long vectors(long n) { return (n + LANES<T> - 1) / LANES<T>; }

    Columns(const Layout &lay, long images, long channels, long rows, int most) : most(most) {
        long depth = lay.t[0].size(), height = lay.t[1].size(), width = lay.t[2].size();
        long all = images * depth * height * width, lines = images * depth * height;
        // In twelfths of a cycle of one k: half a cycle for each row and vector, a little more for
        // a single one, and two for each piece.
        auto cost = [&](long n) { return (n / 2 * 12 + n % 2 * 8) * rows; };
        long plain = images * depth * cost(vectors(lay.flat()));
        long by_rows = cost(lines * vectors(width));
        long tight = cost(vectors(all)) + 24 * (lines * vectors(width) + vectors(all) / 2);
        packed = rows > 4 && tight < std::min(plain, by_rows);
        bool aligned = !packed && by_rows < plain;
        row = packed ? width : aligned ? vectors(width) * LANES<T> : lay.row;
        plane = packed || aligned ? height * row : vectors(lay.flat()) * LANES<T>;
        image = depth * plane;
        size = vectors(images * image) * LANES<T>;
        long step = channels * lay.channel;
        if (packed) pack(lay, all, step);
        else if (aligned) lay_rows(lay, images, step);
        else lay_plain(lay, images, step);
    }

    // The vectors that begin at `from` in the tile, to panels that begin at `to` in the result.
    void group(const std::vector<long> &from, long to) {
        for (size_t i = 0, left; (left = from.size() - i) > 0;) {
            int nv = left >= size_t(most) ? most : left >= 2 ? 2 : 1;
            Panel panel{from[i], to + long(i) * LANES<T>, nv, {}, 0, 0};
            for (int j = 0; j < nv; j++) panel.apart[j] = from[i + size_t(j)] - from[i];
            panels.push_back(panel);
            i += size_t(nv);
        }
    }
    void lay_plain(const Layout &lay, long images, long image_step) {
        for (long i = 0; i < images; i++)
            for (long d = 0; d < lay.t[0].size(); d++) {
                std::vector<long> from;
                for (long q = 0; q < lay.flat(); q += LANES<T>)
                    from.push_back(i * image_step + d * lay.plane + q);
                group(from, i * image + d * plane);
            }
    }
    void lay_rows(const Layout &lay, long images, long image_step) {
        std::vector<long> from;
        for (long i = 0; i < images; i++)
            for (long d = 0; d < lay.t[0].size(); d++)
                for (long h = 0; h < lay.t[1].size(); h++)
                    for (long w = 0; w < row; w += LANES<T>)
                        from.push_back(i * image_step + d * lay.plane + h * lay.row + w);
        group(from, 0);
    }

    void pack(const Layout &lay, long all, long image_step) {
        for (int i = 0; i < 3; i++)
            for (long k = 0; k < KC; k++) even.push_back(k * (LANES<T> << i));
        for (long p = 0; p < all;) {
            long left = vectors(all - p);
            int nv = left >= most ? most : left >= 2 ? 2 : 1;
            long end = std::min(all, p + nv * LANES<T>);
            Panel panel{0, p, nv, {0, LANES<T>, 2 * LANES<T>, 3 * LANES<T>}, pieces.size(), 0};
            for (long q = p, n; q < end; q += n) {
                long w = q % row, h = q % plane / row, d = q % image / plane, i = q / image;
                n = std::min({LANES<T>, row - w, end - q});
                pieces.push_back({i * image_step + d * lay.plane + h * lay.row + w, q - p});
            }
            panel.last = pieces.size();
            panels.push_back(panel);
            p = end;
        }
    }
    // The panel's rows k, put together; its pieces in order, as each may write past its end.
    void gather(const Panel &p, const T *tile, const long *off, long kc, T *to) const {
        long n = long(p.last - p.first);
        const Piece *list = pieces.data() + p.first;
        if (n <= 6) return pick<6>(n, list, tile, off, kc, p.vectors * LANES<T>, to);
        for (long k = 0; k < kc; k++, to += p.vectors * LANES<T>)
            for (long i = 0; i < n; i++) store(to + list[i].to, load(tile + off[k] + list[i].from));
    }

  private:
    template <int N>
    static void pick(long n, const Piece *list, const T *tile, const long *off, long kc, long step,
                     T *to) {
        if constexpr (N > 1)
            if (n != N) return pick<N - 1>(n, list, tile, off, kc, step, to);
        long from[N], at[N];
        for (int i = 0; i < N; i++) from[i] = list[i].from, at[i] = list[i].to;
        for (long k = 0; k < kc; k++, to += step) {
            const T *p = tile + off[k];
            UNROLL for (int i = 0; i < N; i++) store(to + at[i], load(p + from[i]));
        }
    }
};

// A tile of the result, c[rows][columns], to its places in y, with the bias. Vectors may write past
// the end of a row as long as the next row of the same channel comes after.
template <class T>
void unload(const Axis *axes, const Layout &lay, const Columns<T> &columns, const T *c, Range rows,
            const T *bias, T *y) {
    const Axis &D = axes[0], &H = axes[1], &W = axes[2];
    long n = lay.t[2].size(), height = lay.t[1].size();
    bool whole = H.spread == 1 && W.spread == 1 && n == W.out;
    if (whole && columns.row == n) {
        n *= height;
        height = 1;
    }
    for (long m = rows.begin; m < rows.end; m++, c += columns.size) {
        Vec<T> b = splat(bias ? bias[m] : T(0));
        for (long d = 0; d < lay.t[0].size(); d++)
            for (long h = 0; h < height; h++) {
                const T *from = c + d * columns.plane + h * columns.row;
                long pd = D.origin + D.spread * (lay.t[0].begin + d);
                long ph = H.origin + H.spread * (lay.t[1].begin + h);
                T *to = y + ((m * D.out + pd) * H.out + ph) * W.out + W.origin +
                        W.spread * lay.t[2].begin;
                long i = 0, room = whole ? n * (height - h) : n;
                if (W.spread == 1)
                    for (; i < n && i + LANES<T> <= room; i += LANES<T>)
                        store(to + i, load(from + i) + b);
                for (; i < n; i++) to[i * W.spread] = from[i] + b[0];
            }
    }
}

// One run of the loop: y (images, groups * rows, *out) from x (images, groups * channels, *in).
template <class T> struct Gather {
    const Shape &s;
    const Axis *axes;
    const Packed<T> &w;
    long channels;
    const T *x, *bias;
    T *y;

    void operator()() const {
        Plan plan(axes, s.n, s.groups, channels, w.rows, sizeof(T));
        parallel(plan.tasks, [&](long task) {
            auto digit = [&](long n, long parts) {
                Range r = part(n, parts, task % parts);
                task /= parts;
                return r;
            };
            Range rows = digit(w.panels, plan.row_parts), tile[3];
            for (int i = 2; i >= 0; i--) tile[i] = digit(axes[i].positions, plan.parts[i]);
            Range groups = digit(s.groups, plan.group_parts);
            run(Layout(axes, tile), digit(s.n, plan.batch_parts), groups, rows);
        });
    }

    void run(const Layout &lay, Range images, Range groups, Range panels) const {
        std::vector<long> off = lay.offsets(axes, channels);
        int most = block_vectors((w.rows + w.panels - 1) / w.panels);
        Columns<T> columns(lay, images.size(), channels, w.rows, most);
        long step = channels * lay.channel;
        Rows fills(axes, lay);
        Scratch tile(1, sizeof(T) * size_t(images.size() * step + 8 * LANES<T>));
        Scratch result(2, sizeof(T) * size_t(MC * columns.size));
        long in = channels * axes[0].in * axes[1].in * axes[2].in;
        long out = w.rows * axes[0].out * axes[1].out * axes[2].out;
        for (long g = groups.begin; g < groups.end; g++) {
            for (long n = images.begin; n < images.end; n++)
                fill(fills, lay, x + (n * s.groups + g) * in, channels, x + s.n * s.groups * in,
                     tile.as<T>() + (n - images.begin) * step);
            long blocks = (panels.size() + MC / MR - 1) / (MC / MR);
            for (long i = 0; i < blocks; i++) {
                Range some = part(panels.size(), blocks, i);
                some = {panels.begin + some.begin, panels.begin + some.end};
                multiply(columns, g, some, off, tile.as<T>(), result.as<T>());
                Range rows{w.panel(some.begin).begin, w.panel(some.end - 1).end};
                for (long n = images.begin; n < images.end; n++)
                    unload(axes, lay, columns,
                           result.as<T>() + (n - images.begin) * columns.image, rows,
                           bias ? bias + g * w.rows : nullptr, y + (n * s.groups + g) * out);
            }
        }
    }

    void multiply(const Columns<T> &columns, long g, Range panels, const std::vector<long> &off,
                  const T *tile, T *c) const {
        if (w.depth == 0) std::fill(c, c + MC * columns.size, T(0));
        alignas(64) T packed[KC * 4 * LANES<T> + LANES<T>];
        long first = w.panel(panels.begin).begin;
        for (long k = 0; k < w.depth; k += KC) {
            long kc = std::min(KC, w.depth - k);
            for (const auto &p : columns.panels) {
                const T *b = tile + p.from;
                const long *at = off.data() + k;
                if (columns.packed) {
                    columns.gather(p, tile, at, kc, packed);
                    b = packed;
                    at = &columns.even[size_t(p.vectors / 2 * KC)];
                }
                for (long i = panels.begin; i < panels.end; i++) {
                    Range r = w.panel(i);
                    get_block<T>(r.size(), p.vectors)(w.at(g, i) + k * r.size(), b, at, p.apart, kc,
                                                      c + (r.begin - first) * columns.size + p.to,
                                                      columns.size, k > 0);
                }
            }
        }
    }
};

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

template <class T>
void forward(const Shape &s, const T *x, const T *w, const T *bias, T *y) {
    Axis axes[3];
    forward_axes(s, axes);
    long taps = s.kernel[0] * s.kernel[1] * s.kernel[2], c = s.cin / s.groups;
    Packed<T> packed(s, axes, w, s.cout / s.groups, c, c * taps, taps);
    Gather<T>{s, axes, packed, c, x, bias, y}();
}

// Input positions i = origin + stride * t: the taps with (i + pad - k * dilation) a multiple of the
// stride read dy at t + (origin + pad - k * dilation) / stride.
inline Axis grad_axis(const Shape &s, int i, long origin) {
    Axis a{(s.in[i] - origin + s.stride[i] - 1) / s.stride[i], s.out[i], 1, s.in[i], s.stride[i],
           origin, {}, {}, {}, {}, {}};
    for (long k = 0; k < s.kernel[i]; k++) {
        long at = origin + s.pad[i] - k * s.dilation[i];
        if (at % s.stride[i]) continue;
        a.taps.push_back(k);
        a.deltas.push_back(at / s.stride[i]);
    }
    a.settle();
    return a;
}

template <class T>
void input_grad(const Shape &s, const T *dy, const T *w, const T *bias, T *dx) {
    long taps = s.kernel[0] * s.kernel[1] * s.kernel[2];
    long rows = s.cin / s.groups, channels = s.cout / s.groups;
    for (long d = 0; d < std::min(s.stride[0], s.in[0]); d++)
        for (long h = 0; h < std::min(s.stride[1], s.in[1]); h++)
            for (long k = 0; k < std::min(s.stride[2], s.in[2]); k++) {
                Axis axes[3] = {grad_axis(s, 0, d), grad_axis(s, 1, h), grad_axis(s, 2, k)};
                Packed<T> packed(s, axes, w, rows, channels, taps, rows * taps);
                Gather<T>{s, axes, packed, packed.depth ? channels : 0, dy, bias, dx}();
            }
}

// ---- Weight gradient: sums over positions, in units of some rows of one image.

constexpr int WR = REGISTERS == 16 ? (VECTOR_BYTES == 32 ? 6 : 5) : 12;
constexpr long WEIGHT_TASKS = 16;                       // whatever the number of threads
constexpr size_t PARTIAL_BYTES = size_t(6) << 20;

// c[M][NV vectors of output channels] += x[off[i] + position] * dy[position][NV vectors]
template <class T, int M, int NV>
void outer(const T *x, const long *off, const T *dy, long rows, long width, long step, T *c,
           long ldc) {
    Vec<T> acc[M][NV];
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < NV; j++) acc[i][j] = load(c + i * ldc + j * LANES<T>);
    }
    for (long r = 0; r < rows; r++, x += step)
        for (long q = 0; q < width; q++, dy += NV * LANES<T>) {
            Vec<T> v[NV];
            UNROLL for (int j = 0; j < NV; j++) v[j] = load(dy + j * LANES<T>);
            UNROLL for (int i = 0; i < M; i++) {
                UNROLL for (int j = 0; j < NV; j++) acc[i][j] += splat(x[off[i] + q]) * v[j];
            }
        }
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < NV; j++) store(c + i * ldc + j * LANES<T>, acc[i][j]);
    }
}
template <class T> using Outer = void (*)(const T *, const long *, const T *, long, long, long, T *,
                                          long);
template <class T, int NV, int M> Outer<T> pick_outer(long m) {
    if constexpr (M == 0) return nullptr;
    else return m == M ? outer<T, M, NV> : pick_outer<T, NV, M - 1>(m);
}

// acc[M vectors] += dy[position] * x[off[i] + position], for few output channels. Where a row ends
// inside a vector `tail` has its lanes; nothing of dy is read at or past `limit`.
template <class T, int M>
void inner(const T *x, const long *off, const T *dy, long rows, long width, long step, long dy_step,
           const Vec<T> *tail, const T *limit, Vec<T> *acc) {
    Vec<T> sums[M];
    UNROLL for (int i = 0; i < M; i++) sums[i] = acc[i];
    for (long r = 0; r < rows; r++, x += step, dy += dy_step)
        for (long q = 0; q < width; q += LANES<T>) {
            if (width - q >= LANES<T>) {
                Vec<T> v = load(dy + q);
                UNROLL for (int i = 0; i < M; i++) sums[i] += load(x + off[i] + q) * v;
            } else {
                Vec<T> v = {};
                if (limit - (dy + q) >= LANES<T>) v = keep(load(dy + q), *tail);
                else for (long j = 0; j < width - q; j++) v[j] = dy[q + j];
                UNROLL for (int i = 0; i < M; i++)
                    sums[i] += keep(load(x + off[i] + q), *tail) * v;
            }
        }
    UNROLL for (int i = 0; i < M; i++) acc[i] = sums[i];
}
template <class T> using Inner = void (*)(const T *, const long *, const T *, long, long, long,
                                          long, const Vec<T> *, const T *, Vec<T> *);
template <class T, int M> Inner<T> pick_inner(long m) {
    if constexpr (M == 0) return nullptr;
    else return m == M ? inner<T, M> : pick_inner<T, M - 1>(m);
}

template <class T> struct WeightGrad {
    const Shape &s;
    const Axis *axes;
    const T *x, *dy;
    long channels = s.cin / s.groups, rows = s.cout / s.groups;
    long taps = s.kernel[0] * s.kernel[1] * s.kernel[2], depth = channels * taps;
    long in = s.in[0] * s.in[1] * s.in[2], out = s.out[0] * s.out[1] * s.out[2];
    bool few = rows <= 4;                               // sums along rows: no vector of channels
    int vectors = rows > LANES<T> ? 2 : 1;
    long wide = vectors * LANES<T>, padded = few ? rows : (rows + wide - 1) / wide * wide;
    long parts[3], units, chunks, channel_parts;

    WeightGrad(const Shape &s, const Axis *axes, const T *x, const T *dy)
        : s(s), axes(axes), x(x), dy(dy) {
        parts[0] = s.out[0];
        parts[2] = (s.out[2] + 511) / 512;
        parts[1] = std::min(s.out[1], (s.out[1] * s.out[2] / parts[2] + 255) / 256);
        units = s.n * parts[0] * parts[1] * parts[2];
        size_t partial = sizeof(T) * size_t(s.groups * depth * padded);
        chunks = std::min({units, WEIGHT_TASKS, std::max(1L, long(PARTIAL_BYTES / partial))});
        if (s.groups >= WEIGHT_TASKS) chunks = std::min(chunks, 2L);
        channel_parts = std::min((channels + 15) / 16,
                                 (WEIGHT_TASKS + chunks * s.groups - 1) / (chunks * s.groups));
    }

    void operator()(T *dw) const {
        size_t size = size_t(s.groups * depth * padded);
        Scratch memory(0, sizeof(T) * size * size_t(chunks));
        T *partial = memory.as<T>();
        parallel(chunks * s.groups * channel_parts, [&](long task) {
            long chunk = task % chunks, g = task / chunks % s.groups;
            Range c = part(channels, channel_parts, task / chunks / s.groups);
            T *to = partial + chunk * long(size) + g * depth * padded;
            if (few) along_rows(part(units, chunks, chunk), g, c, to);
            else across_channels(part(units, chunks, chunk), g, c, to + c.begin * taps * padded);
        });
        if (few) {
            parallel_ranges(long(size), 4096, [&](long begin, long end) {
                for (long i = begin; i < end; i++) {
                    T total = partial[i];
                    for (long p = 1; p < chunks; p++) total += partial[p * long(size) + i];
                    dw[i] = total;
                }
            });
            return;
        }
        long blocks = padded / LANES<T>;
        auto reduce = [&](long job) {
            long g = job / blocks, m = job % blocks * LANES<T>;
            for (long k = 0; k < depth; k++) {
                const T *from = partial + (g * depth + k) * padded + m;
                Vec<T> total = load(from);
                for (long p = 1; p < chunks; p++) total += load(from + p * long(size));
                for (long j = 0; j < LANES<T> && m + j < rows; j++)
                    dw[(g * rows + m + j) * depth + k] = total[j];
            }
        };
        if (size > 16384) parallel(s.groups * blocks, reduce);
        else for (long job = 0; job < s.groups * blocks; job++) reduce(job);
    }

    // Unit u: an image (the fastest) and the tile of positions.
    Layout tile(long u) const {
        Range t[3];
        u /= s.n;
        for (int i = 2; i >= 0; i--, u /= parts[i + 1])
            t[i] = part(axes[i].positions, parts[i], u % parts[i]);
        return Layout(axes, t);
    }
    const T *grad(const Layout &lay, long u, long g) const {
        return dy + ((u % s.n) * s.groups + g) * rows * out +
               (lay.t[0].begin * s.out[1] + lay.t[1].begin) * s.out[2] + lay.t[2].begin;
    }

    template <class F> void each_unit(Range u, long g, Range c, const F &f) const {
        for (long i = u.begin; i < u.end;) {
            Layout lay = tile(i);
            std::vector<long> off = lay.offsets(axes, c.size());
            Rows fills(axes, lay);
            Scratch memory(1, sizeof(T) * size_t(c.size() * lay.channel + 8 * LANES<T>));
            for (long same = i / s.n; i < u.end && i / s.n == same; i++) {
                fill(fills, lay, x + (i % s.n * s.cin + g * channels + c.begin) * in, c.size(),
                     x + s.n * s.cin * in, memory.as<T>());
                f(lay, off, memory.as<T>(), grad(lay, i, g));
            }
        }
    }

    // c[channel, tap][padded]
    void across_channels(Range u, long g, Range c, T *to) const {
        std::fill(to, to + c.size() * taps * padded, T(0));
        each_unit(u, g, c, [&](const Layout &lay, const std::vector<long> &off, const T *tile,
                               const T *from) {
            long height = lay.t[1].size(), width = lay.t[2].size(), list = c.size() * taps;
            Scratch memory(2, sizeof(T) * size_t(height * width * wide));
            long panels = (list + WR - 1) / WR;
            for (long m = 0; m < padded; m += wide) {
                turn(from + m * out, std::min(wide, rows - m), height, width, memory.as<T>());
                for (long i = 0; i < panels; i++) {
                    Range r = part(list, panels, i);
                    auto kernel = vectors == 2 ? pick_outer<T, 2, WR>(r.size())
                                               : pick_outer<T, 1, WR>(r.size());
                    kernel(tile, off.data() + r.begin, memory.as<T>(), height, width, lay.row,
                           to + r.begin * padded + m, padded);
                }
            }
        });
    }

    // dy[channel][row][position] to [row][position][channel]
    void turn(const T *from, long count, long height, long width, T *to) const {
        if (count < wide) std::fill(to, to + height * width * wide, T(0));
        if (width == s.out[2]) width *= height, height = 1;
        for (long h = 0; h < height; h++, from += s.out[2], to += width * wide)
            transpose(from, out, count, width, to, wide);
    }

    // to[output channel][channel, tap]
    void along_rows(Range u, long g, Range c, T *to) const {
        constexpr int B = REGISTERS == 16 ? 9 : 16;
        long list = c.size() * taps, panels = (list + B - 1) / B;
        std::vector<Vec<T>> sums(size_t(rows * list), Vec<T>{});
        each_unit(u, g, c, [&](const Layout &lay, const std::vector<long> &off, const T *tile,
                               const T *from) {
            Vec<T> tail = tail_mask<T>(lay.t[2].size() % LANES<T>);
            for (long m = 0; m < rows; m++)
                for (long i = 0; i < panels; i++) {
                    Range r = part(list, panels, i);
                    pick_inner<T, B>(r.size())(tile, off.data() + r.begin, from + m * out,
                                               lay.t[1].size(), lay.t[2].size(), lay.row,
                                               s.out[2], &tail, dy + s.n * s.cout * out,
                                               &sums[size_t(m * list + r.begin)]);
                }
        });
        for (long m = 0; m < rows; m++)
            for (long i = 0; i < list; i++)
                to[m * depth + c.begin * taps + i] = sum<T>(sums[size_t(m * list + i)]);
    }
};

template <class T>
void weight_grad(const Shape &s, const T *x, const T *dy, T *dw, T *db) {
    Axis axes[3];
    forward_axes(s, axes);
    if (dw) WeightGrad<T>(s, axes, x, dy)(dw);
    long out = s.out[0] * s.out[1] * s.out[2];
    if (!db) return;
    parallel_ranges(s.cout, 1 + 16384 / (s.n * out + 1), [&](long begin, long end) {
        for (long c = begin; c < end; c++) {
            double total = 0;
            for (long n = 0; n < s.n; n++) total += plane_sum(dy + (n * s.cout + c) * out, out);
            db[c] = T(total);
        }
    });
}

}  // namespace

#define DEFINE(suffix, T)                                                                          \
    EXPORT void conv_forward_##suffix(const int64_t *shape, const T *x, const T *w, const T *bias, \
                                      T *y) {                                                      \
        Shape s;                                                                                   \
        std::copy(shape, shape + 22, reinterpret_cast<long *>(&s));                                \
        forward<T>(s, x, w, bias, y);                                                              \
    }                                                                                              \
    EXPORT void conv_input_grad_##suffix(const int64_t *shape, const T *dy, const T *w,            \
                                         const T *bias, T *dx) {                                   \
        Shape s;                                                                                   \
        std::copy(shape, shape + 22, reinterpret_cast<long *>(&s));                                \
        input_grad<T>(s, dy, w, bias, dx);                                                         \
    }                                                                                              \
    EXPORT void conv_weight_grad_##suffix(const int64_t *shape, const T *x, const T *dy, T *dw,    \
                                          T *db) {                                                 \
        Shape s;                                                                                   \
        std::copy(shape, shape + 22, reinterpret_cast<long *>(&s));                                \
        weight_grad<T>(s, x, dy, dw, db);                                                          \
    }
DEFINE(f32, float)
DEFINE(f64, double)
