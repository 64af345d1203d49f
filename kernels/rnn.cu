// The point-wise part of LSTM and GRU cells: from the gates before their activations to the new
// states in one pass, and back in one pass.
//
// gi and gh: the input's and the hidden state's share of the gates, biases included: (rows, 4 n) of
// input, forget, cell, output gates (LSTM), (rows, 3 n) of reset, update, new gates (GRU). States
// are (rows, n). acts, (rows, 4 n), is what the gradient needs: for an LSTM the four gates after
// their activations; for a GRU reset, update and new gate, and gh's share of the new gate. Every
// entry of acts is written by the thread that read the same entry of gi, so that for an LSTM the
// two may be one array.
//
//   lstm   i, f, o = sigmoid, g = tanh;  c' = f c + i g;  h' = o tanh(c')
//   gru    r, z = sigmoid, m = tanh(gi_m + r gh_m);       h' = (1 - z) m + z h
//
// Launch: one-dimensional, any grid, a thread for each 16 / sizeof(Acc) columns if VEC (n a multiple
// of that and all pointers aligned to it), else for each column. Deterministic.
// Python reference: nn/rnn_cell.py. Bandwidth bound; values per entry of a state that must move:
// lstm_forward 11 (+4 with acts), lstm_backward 14, gru_forward 8 (+4), gru_backward 13.
#include "common.cuh"

constexpr int WIDTH = VEC ? 16 / sizeof(Acc) : 1;
typedef Vec<T, WIDTH> Few;

DEVICE Acc sigmoid(Acc x) { return Acc(1) / (Acc(1) + exp(-x)); }

// Calls f(offset in a state, offset in 4 gates, offset in 3 gates) for each group of columns.
template <class F> DEVICE void each(long long rows, long long n, const F& f) {
    long long groups = n / WIDTH;
    for (long long item = global_index(); item < rows * groups; item += global_stride()) {
        long long row = item / groups, column = (item - row * groups) * WIDTH;
        f(row * n + column, row * 4 * n + column, row * 3 * n + column);
    }
}
DEVICE Few take(const T* from) { return load<WIDTH>(from); }
DEVICE Few take_or_zeros(const T* from, long long at) {
    Few v;
#pragma unroll
    for (int k = 0; k < WIDTH; k++) v[k] = down<T>(Acc(0));
    return from ? take(from + at) : v;
}

// acts may be null.
extern "C" __global__ void lstm_forward(
    const T* gi, const T* gh, const T* c, T* h_new, T* c_new, T* acts, long long rows, long long n) {
    each(rows, n, [&](long long at, long long gate, long long) {
        Few x[4], y[4], before = take(c + at), h, after;
#pragma unroll
        for (int q = 0; q < 4; q++) x[q] = take(gi + gate + q * n), y[q] = take(gh + gate + q * n);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
            Acc i = sigmoid(up(x[0][k]) + up(y[0][k])), f = sigmoid(up(x[1][k]) + up(y[1][k]));
            Acc g = tanh(up(x[2][k]) + up(y[2][k])), o = sigmoid(up(x[3][k]) + up(y[3][k]));
            Acc cell = f * up(before[k]) + i * g;
            after[k] = down<T>(cell), h[k] = down<T>(o * tanh(cell));
            x[0][k] = down<T>(i), x[1][k] = down<T>(f), x[2][k] = down<T>(g), x[3][k] = down<T>(o);
        }
        store(h_new + at, h), store(c_new + at, after);
        if (!acts) return;
#pragma unroll
        for (int q = 0; q < 4; q++) store(acts + gate + q * n, x[q]);
    });
}

// dh or dc may be null: zeros. dgates is the gradient of gi and of gh.
extern "C" __global__ void lstm_backward(
    const T* dh, const T* dc, const T* acts, const T* c, const T* c_new, T* dgates, T* dc_old,
    long long rows, long long n) {
    each(rows, n, [&](long long at, long long gate, long long) {
        Few a[4], h = take_or_zeros(dh, at), later = take_or_zeros(dc, at);
        Few before = take(c + at), after = take(c_new + at);
#pragma unroll
        for (int q = 0; q < 4; q++) a[q] = take(acts + gate + q * n);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
            Acc i = up(a[0][k]), f = up(a[1][k]), g = up(a[2][k]), o = up(a[3][k]);
            Acc t = tanh(up(after[k])), dy = up(h[k]);
            Acc d = up(later[k]) + dy * o * (1 - t * t);  // of the new cell state
            a[0][k] = down<T>(d * g * i * (1 - i));
            a[1][k] = down<T>(d * up(before[k]) * f * (1 - f));
            a[2][k] = down<T>(d * i * (1 - g * g));
            a[3][k] = down<T>(dy * t * o * (1 - o));
            before[k] = down<T>(d * f);
        }
        store(dc_old + at, before);
#pragma unroll
        for (int q = 0; q < 4; q++) store(dgates + gate + q * n, a[q]);
    });
}

// acts may be null.
extern "C" __global__ void gru_forward(
    const T* gi, const T* gh, const T* h, T* h_new, T* acts, long long rows, long long n) {
    each(rows, n, [&](long long at, long long gate, long long three) {
        Few x[3], y[3], before = take(h + at);
#pragma unroll
        for (int q = 0; q < 3; q++) x[q] = take(gi + three + q * n), y[q] = take(gh + three + q * n);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
            Acc r = sigmoid(up(x[0][k]) + up(y[0][k])), z = sigmoid(up(x[1][k]) + up(y[1][k]));
            Acc m = tanh(up(x[2][k]) + r * up(y[2][k]));
            before[k] = down<T>(m + z * (up(before[k]) - m));
            x[0][k] = down<T>(r), x[1][k] = down<T>(z), x[2][k] = down<T>(m);
        }
        store(h_new + at, before);
        if (!acts) return;
#pragma unroll
        for (int q = 0; q < 3; q++) store(acts + gate + q * n, x[q]);
        store(acts + gate + 3 * n, y[2]);
    });
}

extern "C" __global__ void gru_backward(
    const T* dh, const T* acts, const T* h, T* dgi, T* dgh, T* dh_old, long long rows, long long n) {
    each(rows, n, [&](long long at, long long gate, long long three) {
        Few a[4], d = take(dh + at), before = take(h + at);
#pragma unroll
        for (int q = 0; q < 4; q++) a[q] = take(acts + gate + q * n);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
            Acc r = up(a[0][k]), z = up(a[1][k]), m = up(a[2][k]), dy = up(d[k]);
            Acc dm = dy * (1 - z) * (1 - m * m);  // before tanh
            a[0][k] = down<T>(dm * up(a[3][k]) * r * (1 - r));
            a[1][k] = down<T>(dy * (up(before[k]) - m) * z * (1 - z));
            a[2][k] = down<T>(dm);
            a[3][k] = down<T>(dm * r);
            d[k] = down<T>(dy * z);
        }
        store(dh_old + at, d);
#pragma unroll
        for (int q = 0; q < 3; q++) {
            store(dgi + three + q * n, a[q]);
            store(dgh + three + q * n, a[q == 2 ? 3 : q]);
        }
    });
}
