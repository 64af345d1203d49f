// Convolution in 1, 2 and 3 dimensions on the CPU: stride, padding, dilation, groups.
//
//   conv_forward     y[n,co,o]  = bias[co] + sum over ci,k  x[n,ci,o*s+k*d-p] * w[co,ci,k]
//   conv_input_grad  dx[n,ci,i] = sum over co,k with i = o*s+k*d-p  dy[n,co,o] * w[co,ci,k]
//
// Arrays are C-contiguous, float32 (_f32) or float64 (_f64): x (N, Cin, *in), w (Cout, Cin/groups,
// *kernel), y and dy (N, Cout, *out), bias (y's or dx's channels, or null). `shape` is 22 int64: N,
// groups, Cin, Cout, then three each of in, out, kernel, stride, padding (left), dilation; unused
// leading dimensions are 1, 1, 1, 1, 0, 1. `out` is the caller's, so padding may differ on the
// right, and conv_input_grad is conv_transpose's forward too.
//
// How: an implicit GEMM. Every output position is t, every tap of the kernel a fixed distance from
// it in a tile of the input (conv.h), so panels need no im2col: a register block multiplies packed
// weights with rows at tile + offset[k]. The few positions that lie between two rows are computed
// and not stored; where they would be many, a panel is put together first. The input gradient is
// the same loop on dy, one run for each residue of the stride.
//
// The order of sums is fixed by the shapes: results do not depend on the number of threads.
// Python reference: nn/conv.py; flops: 2 * N * Cout * out * Cin/groups * kernel for each.
#include "conv.h"

namespace {

constexpr long KC = 256;                                // summed in registers at a time
constexpr int MR = REGISTERS == 16 ? (VECTOR_BYTES == 32 ? 6 : 5) : VECTOR_BYTES == 64 ? 14 : 12;
constexpr long MC = 336 / MR * MR;                      // output channels at a time, at most
constexpr long TILE_BYTES = 1536 << 10;                 // of input: a part serves a short while
constexpr long RESULT_BYTES = 640 << 10;                // of result, in the L2 cache all the while

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

// The columns that a task multiplies, in panels of 1, 2 or 4 vectors, laid out in one of 3 ways:
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
    }
DEFINE(f32, float)
DEFINE(f64, double)
