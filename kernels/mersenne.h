// MT19937, the stream of random words of the CPU, in vectors: it can be entered at any state that
// was kept, so that a long mask need not be.
//
//   words(out, n)   the next n words
//   skip(n)         goes on by n words, several times as fast as making them
//   coins(p, n)     n bytes, 1 where 53 bits of two words are below `bound`, as in nn/dropout.py
//
// A state is 625 uint32: the 624 words and the position in them, 624 when they are used up.
// Source: Matsumoto and Nishimura, "Mersenne Twister" (1998).
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

class Mersenne {
    static constexpr long N = 624, M = 397;
    uint32_t key[N];
    long at;

    static uint32_t twist(uint32_t a, uint32_t b) {
        uint32_t y = (a & 0x80000000u) | (b & 0x7fffffffu);
        return (y >> 1) ^ ((0u - (y & 1u)) & 0x9908b0dfu);
    }
    void refill() {
        for (long i = 0; i < N - M; i++) key[i] = key[i + M] ^ twist(key[i], key[i + 1]);
        for (long i = N - M; i < N - 1; i++) key[i] = key[i + M - N] ^ twist(key[i], key[i + 1]);
        key[N - 1] = key[M - 1] ^ twist(key[N - 1], key[0]);
        at = 0;
    }

  public:
    static constexpr long STATE = N + 1;

    explicit Mersenne(const uint32_t *state) : at(state[N]) { memcpy(key, state, sizeof key); }
    void save(uint32_t *state) const {
        memcpy(state, key, sizeof key);
        state[N] = uint32_t(at);
    }
    void skip(long n) {
        for (; n > N - at; refill()) n -= N - at;
        at += n;
    }
    void words(uint32_t *out, long n) {
        while (n > 0) {
            if (at == N) refill();
            long some = std::min(n, N - at);
            const uint32_t *from = key + at;
            for (long i = 0; i < some; i++) {
                uint32_t y = from[i];
                y ^= y >> 11;
                y ^= (y << 7) & 0x9d2c5680u;
                y ^= (y << 15) & 0xefc60000u;
                out[i] = y ^ (y >> 18);
            }
            at += some;
            out += some;
            n -= some;
        }
    }
    void coins(uint64_t bound, long n, uint8_t *out) {
        uint32_t pairs[2 * 312];
        for (long done = 0; done < n; done += 312) {
            long some = std::min(n - done, 312L);
            words(pairs, 2 * some);
            for (long i = 0; i < some; i++) {
                uint64_t high = pairs[2 * i] & 0x1fffffu, low = pairs[2 * i + 1];
                out[done + i] = (high << 32 | low) < bound;
            }
        }
    }
};
