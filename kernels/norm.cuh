// What norm.cu and batch_norm.cu share: chunks of 16 bytes, and teams of threads.
#pragma once
#include "common.cuh"

constexpr int V = 16 / sizeof(T);  // values of T in a chunk: 8, 4, 2

// V values as they lie in memory. Held like this they take half the registers that separate 16-bit
// values would; each is widened where it is used.
struct alignas(16) Chunk {
    unsigned words[4];
    DEVICE Acc operator[](int k) const {
        constexpr int BITS = sizeof(T) * 8;
        if constexpr (BITS == 16) {
            unsigned short bits = (unsigned short)(words[k / 2] >> (k % 2 * 16));
            return up(*reinterpret_cast<const T*>(&bits));
        } else if constexpr (BITS == 32) {
            return up(*reinterpret_cast<const T*>(&words[k]));
        } else {
            unsigned long long bits = words[2 * k] | (unsigned long long)words[2 * k + 1] << 32;
            return up(*reinterpret_cast<const T*>(&bits));
        }
    }
};
DEVICE Chunk chunk_at(const T* from) { return *reinterpret_cast<const Chunk*>(from); }
DEVICE Chunk packed(const Vec<T, V>& values) { return *reinterpret_cast<const Chunk*>(&values); }

// A team is a warp (size 32) or a whole block: it works on one row or one part at a time.
struct Team {
    int size, lane;
    long long number, count;  // of all teams of the grid
};
DEVICE Team my_team(int size) {
    int teams = blockDim.x / size;
    return {size, int(threadIdx.x) % size, blockIdx.x * (long long)teams + threadIdx.x / size,
            gridDim.x * (long long)teams};
}
// All threads of the team take part and get the sum; the order is fixed.
DEVICE Acc team_sum(Acc v, const Team& team, Acc* scratch) {
    return team.size == 32 ? warp_sum(v) : block_sum(v, scratch);
}
