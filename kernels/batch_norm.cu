// Normalisation of arrays (images, channels, size): batch norm, and what norm.cu leaves of group,
// instance, layer and RMS norm. Statistics belong to a channel (by_batch), or to a group of channels
// of an image: with S = images * groups or channels, mean, rstd and coefs are (S) and (2, S).
//
// T is the type of x, y, dy, dx; W of weight, bias (channels), their gradients and the running
// statistics; sums are Acc. Arrays are C-contiguous. Every kernel takes any grid.
//
//   moments, moments_columns     mean and variance of each bin: see below
//   moments_finish               ... where a bin was split over teams
//   running_moments              mean and rstd from running statistics
//   apply                        y = (x - mean) * rstd * weight + bias
//   products, products_columns   sum of g and of g * (x - mean) * rstd of each bin
//   coefficients, channel_sums   these summed up for each statistic, and for each channel
//   input_grad                   dx = rstd * (dy * weight - coefs[0] - xhat * coefs[1])
//
// A bin is `segments` stretches of `length` values: stretch i of bin b begins at (i * bins + b) *
// length. Batch norm's channels are bins of `images` stretches of `size`; groups, and channels of an
// image, are bins of one stretch. A team (a warp, or the whole block) takes one of `splits` parts of
// a bin, the parts are added up in their order. Where size is 1 the channels are the columns of a
// matrix: the *_columns kernels let neighbouring lanes read neighbouring columns.
//
// Means and variances are gathered as Chan, Golub and LeVeque do: each thread keeps count, mean and
// sum of squared deviations, merges chunk by chunk, and threads and parts are merged the same way.
// That takes one read of x, and loses no digits where the mean is far from 0, as sums of squares do.
// The order of all sums is fixed by the launch shape, which the launcher fixes for a shape and a
// device: deterministic.
// Bytes: moments and products read their arrays once; apply and input_grad move theirs once. Batch
// norm forward: 3 * N, backward: 5 * N, where N is the bytes of x.
// Python reference: gpunn/nn/norm.py and row_norm.py, the array operations.
#include "norm.cuh"

// Count, mean and sum of squared deviations of some values.
struct Moments {
    Acc count = 0, mean = 0, squares = 0;
    // `got` more values; those after them in v are 0.
    DEVICE void add(const Acc (&v)[V], int got) {
        if (got == 0) return;
        Acc sum = 0, apart = 0;
#pragma unroll
        for (int k = 0; k < V; k++) sum += v[k];
        Acc average = sum / got;
#pragma unroll
        for (int k = 0; k < V; k++) apart += k < got ? (v[k] - average) * (v[k] - average) : Acc(0);
        merge(got, average, apart);
    }
    DEVICE void merge(Acc n, Acc average, Acc apart) {
        if (n == 0) return;
        Acc delta = average - mean, share = n / (count + n);
        squares += apart + delta * delta * count * share;
        mean += delta * share;
        count += n;
    }
};

// What becomes of a bin's moments: any of the arrays may be null.
struct Outcome {
    Acc *mean, *variance, *rstd;
    W *running_mean, *running_var;
    Acc eps, momentum;
    bool rms;
};
DEVICE void settle(const Outcome& to, long long bin, Acc mean, Acc squares, long long count) {
    Acc n = count;
    if (to.rms) squares += n * mean * mean;
    if (to.mean) to.mean[bin] = mean;
    if (to.variance) to.variance[bin] = squares / n;
    if (to.rstd) to.rstd[bin] = 1 / sqrt(squares / n + to.eps);
    Acc kept = 1 - to.momentum;
    if (to.running_mean)
        to.running_mean[bin] = down<W>(kept * up(to.running_mean[bin]) + to.momentum * mean);
    if (to.running_var)
        to.running_var[bin] =
            down<W>(kept * up(to.running_var[bin]) + to.momentum * (squares / (n - 1)));
}

// A lane's way through its part of a bin, `width` values at each place.
struct Walk {
    long long segment, place, end, left, per_segment, step_segments, step_places;
    DEVICE Walk(long long segments, long long length, int width, int split, int splits,
                const Team& team) {
        per_segment = length / width;
        long long units = segments * per_segment, begin = units * split / splits + team.lane;
        left = units * (split + 1) / splits - begin;
        segment = begin / per_segment;
        place = begin % per_segment;
        step_segments = team.size / per_segment;
        step_places = team.size % per_segment;
    }
    DEVICE void go(int team) {
        left -= team;
        segment += step_segments;
        place += step_places;
        if (place >= per_segment) {
            place -= per_segment;
            segment++;
        }
    }
};

// parts (3, bins, splits) gets means, squares and counts, where splits > 1; otherwise the bin is
// settled here. team: 32, or blockDim.x (at most 256).
extern "C" __global__ void __launch_bounds__(256, 3) moments(
    const T* __restrict__ x, Acc* parts, Acc* mean, Acc* variance, Acc* rstd, W* running_mean,
    W* running_var, double eps, double momentum, bool rms, long long bins, long long segments,
    long long length, int splits, int team_size) {
    __shared__ Acc scratch[32];
    bool wide = length % V == 0 && aligned(x, 16);
    int width = wide ? V : 1;
    Outcome to = {mean, variance, rstd, running_mean, running_var, Acc(eps), Acc(momentum), rms};
    Team team = my_team(team_size);
    for (long long task = team.number; task < bins * splits; task += team.count) {
        long long bin = task / splits;
        Walk at(segments, length, width, int(task % splits), splits, team);
        Moments mine;
        while (at.left > 0) {
            Acc v[V];
            int got = 0;
            if (wide) {
                Chunk values = chunk_at(x + (at.segment * bins + bin) * length + at.place * V);
#pragma unroll
                for (int k = 0; k < V; k++) v[k] = values[k];
                got = V;
                at.go(team.size);
            } else {
#pragma unroll
                for (int k = 0; k < V; k++) {
                    bool in = at.left > 0;
                    v[k] = in ? up(x[(at.segment * bins + bin) * length + at.place]) : Acc(0);
                    got += in;
                    at.go(team.size);
                }
            }
            mine.add(v, got);
        }
        Acc count = team_sum(mine.count, team, scratch);
        Acc average = team_sum(mine.count * mine.mean, team, scratch) / count;
        Acc apart = mine.mean - average;
        Acc squares = team_sum(mine.squares + mine.count * apart * apart, team, scratch);
        if (team.lane) continue;
        if (splits == 1) {
            settle(to, bin, average, squares, segments * length);
        } else {
            parts[task] = average;
            parts[bins * splits + task] = squares;
            parts[2 * bins * splits + task] = count;
        }
    }
}

// The same for the columns of x (rows, columns). blockDim (32, 8).
extern "C" __global__ void __launch_bounds__(256, 4) moments_columns(
    const T* __restrict__ x, Acc* parts, Acc* mean, Acc* variance, Acc* rstd, W* running_mean,
    W* running_var, double eps, double momentum, bool rms, long long rows, long long columns,
    int splits) {
    __shared__ Acc shared[3][8][32];
    Outcome to = {mean, variance, rstd, running_mean, running_var, Acc(eps), Acc(momentum), rms};
    long long tiles = (columns + 31) / 32;
    for (long long task = blockIdx.x; task < tiles * splits; task += gridDim.x) {
        long long column = task / splits * 32 + threadIdx.x, split = task % splits;
        long long end = column < columns ? rows * (split + 1) / splits : 0;
        Moments mine;
        for (long long r = rows * split / splits + threadIdx.y; r < end;) {
            Acc v[V];
            int got = 0;
#pragma unroll
            for (int k = 0; k < V; k++, r += 8) {
                v[k] = r < end ? up(x[r * columns + column]) : Acc(0);
                got += r < end;
            }
            mine.add(v, got);
        }
        __syncthreads();
        shared[0][threadIdx.y][threadIdx.x] = mine.count;
        shared[1][threadIdx.y][threadIdx.x] = mine.mean;
        shared[2][threadIdx.y][threadIdx.x] = mine.squares;
        __syncthreads();
        if (threadIdx.y || column >= columns) continue;
        for (int i = 1; i < 8; i++)
            mine.merge(shared[0][i][threadIdx.x], shared[1][i][threadIdx.x],
                       shared[2][i][threadIdx.x]);
        if (splits == 1) {
            settle(to, column, mine.mean, mine.squares, rows);
        } else {
            long long at = column * splits + split;
            parts[at] = mine.mean;
            parts[columns * splits + at] = mine.squares;
            parts[2 * columns * splits + at] = mine.count;
        }
    }
}

// A warp for each bin; count is the values of a bin.
extern "C" __global__ void __launch_bounds__(256) moments_finish(
    const Acc* __restrict__ parts, Acc* mean, Acc* variance, Acc* rstd, W* running_mean,
    W* running_var, double eps, double momentum, bool rms, long long bins, int splits,
    long long count) {
    Outcome to = {mean, variance, rstd, running_mean, running_var, Acc(eps), Acc(momentum), rms};
    Team team = my_team(32);
    const Acc *squares = parts + bins * splits, *counts = squares + bins * splits;
    for (long long bin = team.number; bin < bins; bin += team.count) {
        Acc sum = 0, apart = 0;
        long long first = bin * splits;
        for (int i = team.lane; i < splits; i += 32) sum += counts[first + i] * parts[first + i];
        Acc average = warp_sum(sum) / count;
        for (int i = team.lane; i < splits; i += 32) {
            Acc delta = parts[first + i] - average;
            apart += squares[first + i] + counts[first + i] * delta * delta;
        }
        apart = warp_sum(apart);
        if (team.lane == 0) settle(to, bin, average, apart, count);
    }
}

extern "C" __global__ void running_moments(const W* __restrict__ running_mean,
                                           const W* __restrict__ running_var, Acc* mean, Acc* rstd,
                                           double eps, long long channels) {
    for (long long c = global_index(); c < channels; c += global_stride()) {
        mean[c] = up(running_mean[c]);
        rstd[c] = 1 / sqrt(up(running_var[c]) + Acc(eps));
    }
}

// Division by a number that the launcher knows: a multiplication and a shift, a tenth of the cost of
// a 64-bit division. With 2^(l - 1) < by <= 2^l and magic = ceil(2^(63 + l) / by) the quotient is
// exact below 2^63 (Granlund and Montgomery 1994).
struct Divisor {
    long long by;
    unsigned long long magic;
    int shift;  // l - 1; by = 1 has l = 0, and is told by magic = 0
    DEVICE long long operator()(long long a) const {
        return magic ? (long long)(__umul64hi(a, magic) >> shift) : a;
    }
};

// Arrays (images, channels, size), and which statistic a value belongs to: one for each channel
// (by_batch), or one for each `per` channels of an image.
struct Layout {
    Divisor size, channels, per;
    long long images;
    int by_batch;
    DEVICE long long total() const { return images * channels.by * size.by; }
    DEVICE long long statistics() const {
        return by_batch ? channels.by : images * per(channels.by);
    }
};
struct Place {
    long long row, channel, offset;  // row of (images * channels), offset within its `size`
    DEVICE Place(long long position, const Layout& in) {
        row = in.size(position);
        offset = position - row * in.size.by;
        channel = row - in.channels(row) * in.channels.by;
    }
    // images * groups statistics are rows / per
    DEVICE long long statistic(const Layout& in) const { return in.by_batch ? channel : in.per(row); }
    // Whether the next value, of the same image, belongs to another channel.
    DEVICE bool leaves(const Layout& in) {
        if (++offset < in.size.by) return false;
        offset = 0;
        channel++;
        row++;
        return true;
    }
};
// Whether chunks of V values may be moved at once, and lie within one image.
DEVICE int chunk_width(const Layout& in, const void* a, const void* b, const void* c) {
    bool whole = in.channels.by * in.size.by % V == 0;
    return whole && aligned(a, 16) && aligned(b, 16) && aligned(c, 16) ? V : 1;
}
DEVICE Chunk read(const T* from, int width) {
    if (width == V) return chunk_at(from);
    Vec<T, V> one = {};
    one[0] = *from;
    return packed(one);
}
DEVICE void write(T* to, const Vec<T, V>& values, int width) {
    if (width == V) store(to, values);
    else *to = values[0];
}

// mean, weight and bias may be null.
extern "C" __global__ void __launch_bounds__(256, 4) apply(
    const T* __restrict__ x, const Acc* __restrict__ mean, const Acc* __restrict__ rstd,
    const W* __restrict__ weight, const W* __restrict__ bias, T* __restrict__ y,
    Layout in) {
    int width = chunk_width(in, x, y, nullptr);
    long long total = in.total(), step = global_stride() * width;
    for (long long i = global_index() * width; i < total; i += step) {
        Place at(i, in);
        Acc m = 0, scale = 0, shift = 0;
        auto factors = [&]() {
            long long s = at.statistic(in);
            m = mean ? mean[s] : Acc(0);
            scale = weight ? rstd[s] * up(weight[at.channel]) : rstd[s];
            shift = bias ? up(bias[at.channel]) : Acc(0);
        };
        factors();
        Chunk values = read(x + i, width);
        Vec<T, V> out;
#pragma unroll
        for (int k = 0; k < V; k++) {
            if (k >= width) break;
            out[k] = down<T>((values[k] - m) * scale + shift);
            if (at.leaves(in) && k + 1 < width) factors();
        }
        write(y + i, out, width);
    }
}

// sums (2, bins, splits): of g and of g * (x - mean) * rstd, g = dy * weight. mean and rstd of bin b
// are number b / per_statistic; weight, null or of the length of bins % groups, is by position.
extern "C" __global__ void __launch_bounds__(256, 4) products(
    const T* __restrict__ x, const T* __restrict__ dy, const W* __restrict__ weight,
    const Acc* __restrict__ mean, const Acc* __restrict__ rstd, Acc* sums, long long bins,
    long long segments, long long length, long long per_statistic, long long groups, int splits,
    int team_size) {
    __shared__ Acc scratch[32];
    bool wide = length % V == 0 && aligned(x, 16) && aligned(dy, 16);
    int width = wide ? V : 1;
    Team team = my_team(team_size);
    for (long long task = team.number; task < bins * splits; task += team.count) {
        long long bin = task / splits, s = bin / per_statistic;
        const W* w = weight ? weight + bin % groups * length : nullptr;
        Acc m = mean ? mean[s] : Acc(0), sum = 0, product = 0;
        Walk at(segments, length, width, int(task % splits), splits, team);
        while (at.left > 0) {
#pragma unroll
            for (int part = 0; part < 2; part++) {  // two loads of each in flight
                if (at.left <= 0) break;
                long long place = at.place * width;
                long long i = (at.segment * bins + bin) * length + place;
                Chunk xs = read(x + i, width), gs = read(dy + i, width);
#pragma unroll
                for (int k = 0; k < V; k++) {
                    if (k >= width) break;
                    Acc g = w ? gs[k] * up(w[place + k]) : gs[k];
                    sum += g;
                    product += g * (xs[k] - m);
                }
                at.go(team.size);
            }
        }
        sum = team_sum(sum, team, scratch);
        product = team_sum(product, team, scratch) * rstd[s];
        if (team.lane) continue;
        sums[task] = sum;
        sums[bins * splits + task] = product;
    }
}

// sums (2, columns, splits) over the rows of matrices (rows, columns), where size is 1. blockDim
// (32, 8).
extern "C" __global__ void __launch_bounds__(256, 4) products_columns(
    const T* __restrict__ x, const T* __restrict__ dy, const Acc* __restrict__ mean,
    const Acc* __restrict__ rstd, Acc* sums, long long rows, long long columns, long long groups,
    bool by_batch, int splits) {
    __shared__ Acc shared[2][8][32];
    long long tiles = (columns + 31) / 32;
    for (long long task = blockIdx.x; task < tiles * splits; task += gridDim.x) {
        long long column = task / splits * 32 + threadIdx.x, split = task % splits;
        long long end = column < columns ? rows * (split + 1) / splits : 0;
        long long group = column / (columns / groups);
        Acc sum = 0, product = 0;
#pragma unroll 4
        for (long long r = rows * split / splits + threadIdx.y; r < end; r += 8) {
            long long s = by_batch ? column : r * groups + group;
            Acc g = up(dy[r * columns + column]), m = mean ? mean[s] : Acc(0);
            sum += g;
            product += g * (up(x[r * columns + column]) - m) * rstd[s];
        }
        __syncthreads();
        shared[0][threadIdx.y][threadIdx.x] = sum;
        shared[1][threadIdx.y][threadIdx.x] = product;
        __syncthreads();
        if (threadIdx.y > 1 || column >= columns) continue;
        Acc total = 0;  // warp 0 adds up the sums, warp 1 the products
        for (int i = 0; i < 8; i++) total += shared[threadIdx.y][i][threadIdx.x];
        sums[(threadIdx.y * columns + column) * splits + split] = total;
    }
}

// coefs (2, statistics) = means over the n values of a statistic, from sums (2, statistics * per,
// splits): entry k of statistic s counts weight[s % groups * per + k] times, without a weight once.
// With rms the first is 0. A warp for each statistic.
extern "C" __global__ void __launch_bounds__(256, 4) coefficients(
    const Acc* __restrict__ sums, const W* __restrict__ weight, Acc* coefs, long long statistics,
    long long per, int splits, long long groups, long long n, bool rms) {
    Team team = my_team(32);
    const Acc* products = sums + statistics * per * splits;
    for (long long s = team.number; s < statistics; s += team.count) {
        Acc sum = 0, product = 0;
        for (long long e = team.lane; e < per * splits; e += 32) {
            Acc w = weight ? up(weight[s % groups * per + e / splits]) : Acc(1);
            sum += sums[s * per * splits + e] * w;
            product += products[s * per * splits + e] * w;
        }
        sum = warp_sum(sum);
        product = warp_sum(product);
        if (team.lane) continue;
        coefs[s] = rms ? Acc(0) : sum / n;
        coefs[statistics + s] = product / n;
    }
}

// dbias and dweight, either may be null, from sums (2, images, channels, splits). A warp for each
// channel.
extern "C" __global__ void __launch_bounds__(256, 4) channel_sums(
    const Acc* __restrict__ sums, W* dweight, W* dbias, long long images, long long channels,
    int splits) {
    Team team = my_team(32);
    const Acc* products = sums + images * channels * splits;
    for (long long c = team.number; c < channels; c += team.count) {
        Acc sum = 0, product = 0;
        for (long long e = team.lane; e < images * splits; e += 32) {
            long long at = (e / splits * channels + c) * splits + e % splits;
            sum += sums[at];
            product += products[at];
        }
        sum = warp_sum(sum);
        product = warp_sum(product);
        if (team.lane) continue;
        if (dbias) dbias[c] = down<W>(sum);
        if (dweight) dweight[c] = down<W>(product);
    }
}

// coefs (2, statistics), null where mean and rstd do not depend on x; weight and mean may be null.
extern "C" __global__ void __launch_bounds__(256, 4) input_grad(
    const T* __restrict__ x, const T* __restrict__ dy, const W* __restrict__ weight,
    const Acc* __restrict__ mean, const Acc* __restrict__ rstd, const Acc* __restrict__ coefs,
    T* __restrict__ dx, Layout in) {
    int width = chunk_width(in, x, dy, dx);
    long long total = in.total(), step = global_stride() * width;
    long long statistics = in.statistics();
    for (long long i = global_index() * width; i < total; i += step) {
        Place at(i, in);
        Acc m = 0, by_g = 0, by_x = 0, plus = 0;  // dx = by_g * dy - by_x * (x - mean) - plus
        auto factors = [&]() {
            long long s = at.statistic(in);
            Acc scale = rstd[s];
            m = mean ? mean[s] : Acc(0);
            by_g = weight ? scale * up(weight[at.channel]) : scale;
            plus = coefs ? scale * coefs[s] : Acc(0);
            by_x = coefs ? scale * scale * coefs[statistics + s] : Acc(0);
        };
        factors();
        Chunk xs = read(x + i, width), gs = read(dy + i, width);
        Vec<T, V> out;
#pragma unroll
        for (int k = 0; k < V; k++) {
            if (k >= width) break;
            out[k] = down<T>(by_g * gs[k] - by_x * (xs[k] - m) - plus);
            if (at.leaves(in) && k + 1 < width) factors();
        }
        write(dx + i, out, width);
    }
}
