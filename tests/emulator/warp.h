// Barriers, and what the lanes of a warp do together. Each lane hands in its operand; the last lane to
// arrive does the work for all of them.
#pragma once
#include "interface.h"

inline void __syncthreads(EMULATOR_HERE("__syncthreads")) { emulator::block_barrier(site); }
inline int __syncthreads_count(int p, EMULATOR_HERE("__syncthreads_count")) {
    return emulator::block_vote(p != 0, emulator::COUNT, site);
}
inline int __syncthreads_and(int p, EMULATOR_HERE("__syncthreads_and")) {
    return emulator::block_vote(p != 0, emulator::ALL, site);
}
inline int __syncthreads_or(int p, EMULATOR_HERE("__syncthreads_or")) {
    return emulator::block_vote(p != 0, emulator::ANY, site);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_HERE("__syncwarp")) {
    emulator::warp_collective(mask, nullptr, nullptr, site);
}
inline void __threadfence() { emulator::fence(true); }
inline void __threadfence_system() { emulator::fence(true); }
inline void __threadfence_block() { emulator::fence(false); }
inline void __nanosleep(unsigned) { emulator::give_way(); }
inline unsigned __activemask() { return emulator::live_lanes(); }

namespace emulator {

// What a lane gets that reads from a lane which takes no part: NaN in every float format.
template <class T> inline T garbage() {
    T value;
    memset((void*)&value, 0xff, sizeof value);
    return value;
}

template <class T> struct Shuffle {
    T in;
    int from;
    T out;
};
template <class T> EMULATOR_OPERATION void shuffle_work(void** operands, unsigned lanes) {
    for (int l = 0; l < 32; l++) {
        if (!(lanes >> l & 1)) continue;
        auto* mine = (Shuffle<T>*)operands[l];
        mine->out = lanes >> mine->from & 1 ? ((Shuffle<T>*)operands[mine->from])->in : garbage<T>();
    }
}
template <class T> EMULATOR_UNCHECKED T shuffle(unsigned mask, T value, int from, const Site& site) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value,
                  "a shuffle moves 1 to 8 bytes");
    Shuffle<T> mine{value, from, value};
    warp_collective(mask, shuffle_work<T>, &mine, site);
    return mine.out;
}

struct Ballot {
    unsigned long long in;
    unsigned same, live;  // the lanes with my value; the lanes that take part
};
inline EMULATOR_OPERATION void ballot_work(void** operands, unsigned lanes) {
    for (int l = 0; l < 32; l++) {
        if (!(lanes >> l & 1)) continue;
        auto* mine = (Ballot*)operands[l];
        mine->same = 0;
        mine->live = lanes;
        for (int j = 0; j < 32; j++)
            if ((lanes >> j & 1) && ((Ballot*)operands[j])->in == mine->in) mine->same |= 1u << j;
    }
}
EMULATOR_UNCHECKED Ballot ballot(unsigned mask, unsigned long long value, const Site& site) {
    Ballot mine{value, 0, 0};
    warp_collective(mask, ballot_work, &mine, site);
    return mine;
}
// The lanes whose predicate holds.
inline unsigned lanes_where(bool p, const Ballot& b) { return p ? b.same : b.live & ~b.same; }

}  // namespace emulator

// A lane reads from lane `from` of its group of `width` lanes; out of the group, its own value.
template <class T>
EMULATOR_UNCHECKED T __shfl_sync(unsigned mask, T value, int from, int width = 32,
                                 EMULATOR_HERE("__shfl_sync")) {
    int lane = emulator::lane();
    return emulator::shuffle(mask, value, (lane & ~(width - 1)) | (from & (width - 1)), site);
}
template <class T>
EMULATOR_UNCHECKED T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                    EMULATOR_HERE("__shfl_up_sync")) {
    int lane = emulator::lane(), from = lane - (int)delta;
    return emulator::shuffle(mask, value, from < (lane & ~(width - 1)) ? lane : from, site);
}
template <class T>
EMULATOR_UNCHECKED T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                      EMULATOR_HERE("__shfl_down_sync")) {
    int lane = emulator::lane(), from = lane + (int)delta;
    return emulator::shuffle(mask, value, from > (lane | (width - 1)) ? lane : from, site);
}
template <class T>
EMULATOR_UNCHECKED T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                                     EMULATOR_HERE("__shfl_xor_sync")) {
    int lane = emulator::lane(), from = lane ^ bits;
    return emulator::shuffle(mask, value, from > (lane | (width - 1)) ? lane : from, site);
}

inline unsigned __ballot_sync(unsigned mask, int p, EMULATOR_HERE("__ballot_sync")) {
    return emulator::lanes_where(p != 0, emulator::ballot(mask, p != 0, site));
}
inline int __any_sync(unsigned mask, int p, EMULATOR_HERE("__any_sync")) {
    return emulator::lanes_where(p != 0, emulator::ballot(mask, p != 0, site)) != 0;
}
inline int __all_sync(unsigned mask, int p, EMULATOR_HERE("__all_sync")) {
    emulator::Ballot b = emulator::ballot(mask, p != 0, site);
    return emulator::lanes_where(p != 0, b) == b.live;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, EMULATOR_HERE("__match_any_sync")) {
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    return emulator::ballot(mask, bits, site).same;
}
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* all, EMULATOR_HERE("__match_all_sync")) {
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    emulator::Ballot b = emulator::ballot(mask, bits, site);
    *all = b.same == b.live;
    return *all ? mask : 0;
}
