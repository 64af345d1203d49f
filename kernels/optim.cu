// Optimizer steps and gradient clipping over many arrays in one launch: each array moves once.
//
//   sgd_step       g = sign grad + decay p;  p -= lr g, or with buffers
//                  b = first ? g : momentum b + rest g;  p -= lr (nesterov ? g + momentum b : b)
//   adam_step      g = sign grad + decay p;  p *= shrink;  m += rest1 (g - m);
//                  v = beta2 v + rest2 g g;  p -= step m / (sqrt(vmax or v) part + eps)
//   norm_parts     parts[chunk] = the largest |x|, or the sum of |x|, x x or |x|^p, of a chunk
//   norm_total     total[0] = the norm that all the parts make together
//   scale_by_norm  x *= max_norm / (total + 1e-6) where that is less than 1
//   clip_values    x = limit where it is above, -limit where it is below; NaN stays
//
// Constants: ARRAYS (64), BLOCK (threads), CHUNK (elements; a multiple of 8).
// Arguments: up to 64 arrays of T, C-contiguous, by their addresses (`Pointers`), their sizes and
// the numbers of their first chunks of CHUNK elements (`Layout`; behind the last array, first is
// the number of all chunks). `buffers` and `tops` (vmax) may be tables of null pointers. `parts`
// are doubles, of all arrays of all launches; `total` is one number.
// Launch: BLOCK threads; a block takes a chunk at a time, so that arrays of very different sizes
// keep all blocks busy; any grid. norm_total: one block of 1024.
// Math in Acc; values of 16 bits are rounded once, when they are stored.
// Deterministic: elements do not depend on each other; the order of a chunk's sum and of the sum of
// the parts is fixed, whatever the grid.
// Python reference: optim/sgd.py, optim/adam.py, nn/utils/clip_grad.py.
// Bytes: sgd 3 (with momentum 5), adam 7 (amsgrad 9), norm 1, scale and clip 2 times those of the arrays.
#include "common.cuh"

constexpr int WIDE = 16 / sizeof(T);    // elements in an access of 16 bytes

struct Layout {
    long long size[ARRAYS];
    int first[ARRAYS + 1];
};

// The elements [from, to) of an array that make up a chunk.
struct Part {
    int array;
    long long from, to;
};

DEVICE Part part_of(const Layout& layout, int chunk) {
    int low = 0, high = ARRAYS - 1;     // the last array that starts at or before the chunk
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (layout.first[middle] <= chunk) low = middle;
        else high = middle - 1;
    }
    long long from = (long long)(chunk - layout.first[low]) * CHUNK;
    return {low, from, least(from + CHUNK, layout.size[low])};
}

// f(Count<N>(), i) for groups of N elements from i on: wide ones where addresses allow, the rest
// one by one.
template <int N> struct Count {};
template <class F> DEVICE void each(Part part, bool wide, const F& f) {
    long long middle = wide ? part.from + (part.to - part.from) / WIDE * WIDE : part.from;
#pragma unroll 2
    for (long long i = part.from + threadIdx.x * WIDE; i < middle; i += BLOCK * WIDE)
        f(Count<WIDE>(), i);
    for (long long i = middle + threadIdx.x; i < part.to; i += BLOCK) f(Count<1>(), i);
}

// --- SGD --------------------------------------------------------------------------------------

struct Sgd {
    Acc sign, lr, decay, momentum, rest;
    bool nesterov, first;
    T *p, *g, *b;

    template <int N> DEVICE void operator()(Count<N>, long long i) const {
        Vec<T, N> weights = load<N>(p + i), grads = load<N>(g + i), sums;
        if (b && !first) sums = load<N>(b + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
            Acc w = up(weights[k]), d = sign * up(grads[k]) + decay * w;
            if (b) {
                Acc s = first ? d : momentum * up(sums[k]) + rest * d;
                sums[k] = down<T>(s);
                d = nesterov ? d + momentum * s : s;
            }
            weights[k] = down<T>(w - lr * d);
        }
        if (b) store(b + i, sums);
        store(p + i, weights);
    }
};

extern "C" __global__ void sgd_step(Pointers<T*> params, Pointers<T*> grads, Pointers<T*> buffers,
                                    Layout layout, Acc sign, Acc lr, Acc decay, Acc momentum,
                                    Acc rest, bool nesterov, bool first) {
    for (int chunk = blockIdx.x; chunk < layout.first[ARRAYS]; chunk += gridDim.x) {
        Part part = part_of(layout, chunk);
        T *p = params[part.array], *g = grads[part.array], *b = buffers[part.array];
        bool wide = aligned(p, 16) && aligned(g, 16) && aligned(b, 16);
        each(part, wide, Sgd{sign, lr, decay, momentum, rest, nesterov, first, p, g, b});
    }
}

// --- Adam -------------------------------------------------------------------------------------

struct Adam {
    Acc sign, shrink, decay, rest1, beta2, rest2, step, part, eps;
    T *p, *g, *m, *v, *vmax;

    template <int N> DEVICE void operator()(Count<N>, long long i) const {
        Vec<T, N> weights = load<N>(p + i), grads = load<N>(g + i);
        Vec<T, N> means = load<N>(m + i), squares = load<N>(v + i), tops;
        if (vmax) tops = load<N>(vmax + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
            Acc w = up(weights[k]), d = sign * up(grads[k]) + decay * w;
            Acc s = up(means[k]), q = beta2 * up(squares[k]) + rest2 * d * d;
            s += rest1 * (d - s);
            means[k] = down<T>(s);
            squares[k] = down<T>(q);
            if (vmax) {
                Acc top = up(tops[k]);
                q = top > q || top != top ? top : q;
                tops[k] = down<T>(q);
            }
            weights[k] = down<T>(w * shrink - step * s / (sqrt(q) * part + eps));
        }
        store(p + i, weights);
        store(m + i, means);
        store(v + i, squares);
        if (vmax) store(vmax + i, tops);
    }
};

extern "C" __global__ void adam_step(Pointers<T*> params, Pointers<T*> grads, Pointers<T*> means,
                                     Pointers<T*> squares, Pointers<T*> tops, Layout layout,
                                     Acc sign, Acc shrink, Acc decay, Acc rest1, Acc beta2,
                                     Acc rest2, Acc step, Acc part, Acc eps) {
    for (int chunk = blockIdx.x; chunk < layout.first[ARRAYS]; chunk += gridDim.x) {
        Part here = part_of(layout, chunk);
        T *p = params[here.array], *g = grads[here.array], *m = means[here.array];
        T *v = squares[here.array], *vmax = tops[here.array];
        bool wide = aligned(p, 16) && aligned(g, 16) && aligned(m, 16) && aligned(v, 16) &&
                    aligned(vmax, 16);
        each(here, wide, Adam{sign, shrink, decay, rest1, beta2, rest2, step, part, eps, p, g, m,
                              v, vmax});
    }
}

// --- norms and clipping -----------------------------------------------------------------------

enum Kind { LARGEST, ABSOLUTE, SQUARE, POWER };     // of the norms inf, 1, 2, p

// The larger one; NaN wherever there is one.
struct Larger {
    template <class V> DEVICE V operator()(V a, V b) const { return a < b || b != b ? b : a; }
};

template <int KIND> struct Norm {
    template <class V> DEVICE static V term(V x, V p) {
        if (KIND == SQUARE) return x * x;
        return KIND == POWER ? pow(fabs(x), p) : fabs(x);
    }
    template <class V> DEVICE static V join(V a, V b) {
        return KIND == LARGEST ? Larger()(a, b) : a + b;
    }
    template <class V> DEVICE static V over_block(V v, V* scratch) {
        if (KIND == LARGEST) return block_reduce<Larger>(v, scratch, V(0));
        return block_sum(v, scratch);
    }
};

template <int KIND> struct Terms {
    const T* x;
    Acc p;
    Acc& total;

    template <int N> DEVICE void operator()(Count<N>, long long i) const {
        Vec<T, N> values = load<N>(x + i);
#pragma unroll
        for (int k = 0; k < N; k++)
            total = Norm<KIND>::join(total, Norm<KIND>::term(up(values[k]), p));
    }
};

template <int KIND>
DEVICE void parts_of(const Pointers<T*>& arrays, const Layout& layout, Acc p, double* parts,
                     Acc* scratch) {
    for (int chunk = blockIdx.x; chunk < layout.first[ARRAYS]; chunk += gridDim.x) {
        Part part = part_of(layout, chunk);
        const T* x = arrays[part.array];
        Acc total = 0;
        each(part, aligned(x, 16), Terms<KIND>{x, p, total});
        total = Norm<KIND>::over_block(total, scratch);
        if (threadIdx.x == 0) parts[chunk] = total;
    }
}

extern "C" __global__ void norm_parts(Pointers<T*> arrays, Layout layout, int kind, Acc p,
                                      double* parts) {
    __shared__ Acc scratch[32];
    if (kind == LARGEST) parts_of<LARGEST>(arrays, layout, p, parts, scratch);
    else if (kind == ABSOLUTE) parts_of<ABSOLUTE>(arrays, layout, p, parts, scratch);
    else if (kind == SQUARE) parts_of<SQUARE>(arrays, layout, p, parts, scratch);
    else parts_of<POWER>(arrays, layout, p, parts, scratch);
}

extern "C" __global__ void norm_total(const double* parts, long long count, int kind, double p,
                                      T* total) {
    __shared__ double scratch[32];
    double sum = 0;
#pragma unroll 8                        // one block reads all: with several reads on their way
    for (long long i = threadIdx.x; i < count; i += blockDim.x)
        sum = kind == LARGEST ? Larger()(sum, parts[i]) : sum + parts[i];
    if (kind == LARGEST) sum = block_reduce<Larger>(sum, scratch, 0.0);
    else sum = block_sum(sum, scratch);
    if (kind == SQUARE) sum = sqrt(sum);
    else if (kind == POWER) sum = pow(sum, 1 / p);
    if (threadIdx.x == 0) total[0] = down<T>(Acc(sum));
}

struct Scale {
    Acc factor;
    T* x;

    template <int N> DEVICE void operator()(Count<N>, long long i) const {
        Vec<T, N> values = load<N>(x + i);
#pragma unroll
        for (int k = 0; k < N; k++) values[k] = down<T>(up(values[k]) * factor);
        store(x + i, values);
    }
};

extern "C" __global__ void scale_by_norm(Pointers<T*> arrays, Layout layout, const Acc* total,
                                         Acc max_norm) {
    Acc factor = max_norm / (total[0] + Acc(1e-6));
    if (factor >= 1) return;            // and nothing is moved; NaN goes on
    for (int chunk = blockIdx.x; chunk < layout.first[ARRAYS]; chunk += gridDim.x) {
        Part part = part_of(layout, chunk);
        T* x = arrays[part.array];
        each(part, aligned(x, 16), Scale{factor, x});
    }
}

struct Clip {
    T low, high;
    T* x;

    template <int N> DEVICE void operator()(Count<N>, long long i) const {
        Vec<T, N> values = load<N>(x + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
            if (up(values[k]) > up(high)) values[k] = high;
            if (up(values[k]) < up(low)) values[k] = low;
        }
        store(x + i, values);
    }
};

extern "C" __global__ void clip_values(Pointers<T*> arrays, Layout layout, Acc limit) {
    T high = down<T>(limit), low = down<T>(-limit);
    for (int chunk = blockIdx.x; chunk < layout.first[ARRAYS]; chunk += gridDim.x) {
        Part part = part_of(layout, chunk);
        T* x = arrays[part.array];
        each(part, aligned(x, 16), Clip{low, high, x});
    }
}
