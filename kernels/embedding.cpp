// Rows by index: gather, and the sum of rows into the places that they came from.
//
//   embedding_forward   out[i] = weight[index[i]]
//   embedding_backward  dweight[index[i]] += grad[i], over dweight as the caller filled it
//
// weight is (count, row), C-contiguous; out and grad are (n, row); index is (n), int64 (_i64) or
// int32 (_i32). embedding_forward moves rows of `row` bytes of any dtype; embedding_backward adds
// float32 or float64, and leaves out rows whose index is `padding`. Both return the position of
// the first index outside [0, count), having done nothing, or -1.
// The rows of one index are added in the order of their positions, whatever the number of threads:
// each thread owns some columns (or some rows, where they are short) of dweight.
// Python reference: nn/embedding.py; bytes: n * row read and written, and the index once.
#include "threads.h"

namespace {

template <class I> int64_t bad_index(const I *index, int64_t n, int64_t count) {
    const int64_t run = 4096;
    for (int64_t i = 0; i < n; i += run) {
        int64_t end = i + run < n ? i + run : n;
        bool bad = false;
        for (int64_t j = i; j < end; j++) bad |= uint64_t(int64_t(index[j])) >= uint64_t(count);
        for (int64_t j = i; bad && j < end; j++)
            if (uint64_t(int64_t(index[j])) >= uint64_t(count)) return j;
    }
    return -1;
}

template <class I, class Word>
void gather_words(const Word *weight, const I *index, long begin, long end, long words, Word *out) {
    for (long i = begin; i < end; i++)
        for (long j = 0; j < words; j++) out[i * words + j] = weight[long(index[i]) * words + j];
}

template <class I>
int64_t gather(const char *weight, int64_t count, int64_t row, const I *index, int64_t n,
               char *out) {
    int64_t bad = bad_index(index, n, count);
    if (bad >= 0) return bad;
    parallel_ranges(n, 1 + 32768 / (row + 8), [&](long begin, long end) {
        if (row == 4 || row == 8 || row == 16) {
            if (row == 4)
                gather_words(reinterpret_cast<const uint32_t *>(weight), index, begin, end, 1,
                             reinterpret_cast<uint32_t *>(out));
            else
                gather_words(reinterpret_cast<const uint64_t *>(weight), index, begin, end,
                             row / 8, reinterpret_cast<uint64_t *>(out));
            return;
        }
        for (long i = begin; i < end; i++) {
            if (i + 16 < end)                           // rows lie anywhere: have them on the way
                for (long j = 0; j < row && j < 512; j += 64)
                    __builtin_prefetch(weight + long(index[i + 16]) * row + j);
            memcpy(out + i * row, weight + long(index[i]) * row, size_t(row));
        }
    });
    return -1;
}

template <class T> inline void add_row(T *to, const T *from, long n) {
    long j = 0;
    for (; j + LANES<T> <= n; j += LANES<T>) store(to + j, load(to + j) + load(from + j));
    for (; j < n; j++) to[j] += from[j];
}

template <class T, class I>
int64_t scatter_add(const T *grad, const I *index, int64_t n, int64_t row, int64_t padding,
                    T *dweight, int64_t count) {
    int64_t bad = bad_index(index, n, count);
    if (bad >= 0) return bad;
    long parts = n * row < 16384 ? 1 : thread_count();
    long line = 64 / long(sizeof(T));
    if (row >= parts * line) {                          // some columns each
        parallel(parts, [&](long p) {
            long begin = row / line * p / parts * line;
            long end = p + 1 == parts ? row : row / line * (p + 1) / parts * line;
            for (long i = 0; i < n; i++)
                if (long(index[i]) != padding)
                    add_row(dweight + long(index[i]) * row + begin, grad + i * row + begin,
                            end - begin);
        });
        return -1;
    }
    parallel(parts, [&](long p) {                       // some rows each
        long begin = count * p / parts, end = count * (p + 1) / parts;
        for (long i = 0; i < n; i++) {
            long to = long(index[i]);
            if (to >= begin && to < end && to != padding)
                add_row(dweight + to * row, grad + i * row, row);
        }
    });
    return -1;
}

}  // namespace

#define DEFINE_INDEX(name, I)                                                                      \
    EXPORT int64_t embedding_forward_##name(const char *weight, int64_t count, int64_t row,        \
                                            const I *index, int64_t n, char *out) {                \
        return gather<I>(weight, count, row, index, n, out);                                       \
    }
DEFINE_INDEX(i64, int64_t)
DEFINE_INDEX(i32, int32_t)

#define DEFINE(name, T, I)                                                                         \
    EXPORT int64_t embedding_backward_##name(const T *grad, const I *index, int64_t n,             \
                                             int64_t row, int64_t padding, T *dweight,             \
                                             int64_t count) {                                      \
        return scatter_add<T, I>(grad, index, n, row, padding, dweight, count);                    \
    }
DEFINE(i64_f32, float, int64_t)
DEFINE(i32_f32, float, int32_t)
DEFINE(i64_f64, double, int64_t)
DEFINE(i32_f64, double, int32_t)
