// Which access to memory happened before which, as CUDA orders them.
//
// Within a block: by __syncthreads (an epoch ends), within a warp by __syncwarp (a clock for each lane,
// and what each lane knows of the others' clocks). Between blocks, and between threads with no barrier
// between: by a fence after the first access, and a fence after an atomic operation before the second.
#include <algorithm>

#include "state.h"

namespace emulator {

struct Stamp {  // one access; counts that pass 2^16 start again
    unsigned block;  // its number + 1; 0: no access
    unsigned pc;
    unsigned short epoch, clock;
    unsigned short fences;              // of the block before it
    unsigned short thread : 10;
    unsigned short synchronises : 1;    // atomic or volatile
    unsigned short in_flight : 1;       // the destination of a cp.async not waited for
    unsigned short several_warps : 1;   // stands for reads by threads of several warps
};

static unsigned fence_count;              // of this block
static bool block_used_atomic, block_acquired;
static std::vector<unsigned> released_at; // of each block, the number of its last fence

static void start_order(size_t blocks) { released_at.assign(blocks, 0); }

static void start_ordering_block() {
    fence_count = 0;
    block_used_atomic = block_acquired = false;
    for (int i = 0; i < threads; i++) {
        Fiber& f = fibers[i];
        memset(f.known, 0, sizeof f.known);
        f.known[i & 31] = 1;
        f.fenced_at = 0;
        f.used_atomic = f.acquired = false;
    }
}

// All of them know of all that each of them did so far.
void pass_syncwarp(const int* ids, int count) {
    unsigned known[32] = {}, now = 0;
    for (int i = 0; i < count; i++) {
        const Fiber& f = fibers[ids[i]];
        for (int l = 0; l < 32; l++) known[l] = std::max(known[l], f.known[l]);
        now = std::max(now, f.known[f.id & 31]);
    }
    for (int i = 0; i < count; i++) known[ids[i] & 31] = now;
    for (int i = 0; i < count; i++) {
        Fiber& f = fibers[ids[i]];
        memcpy(f.known, known, sizeof known);
        f.known[f.id & 31] = now + 1;
    }
}

void fence(bool device) {
    if (!request.check) return;
    current->fenced_at = ++fence_count;
    current->acquired |= current->used_atomic;
    if (!device) return;
    released_at[block_number] = fence_count;
    block_acquired |= block_used_atomic;
}

static Stamp stamp(const void* pc, bool synchronises) {
    if (synchronises) current->used_atomic = block_used_atomic = true;
    unsigned place = (unsigned)((const char*)pc - request.module->low);
    Stamp made{};
    made.block = block_number + 1;
    made.pc = place;
    made.epoch = barrier_epoch;
    made.clock = current->known[current->id & 31];
    made.fences = fence_count;
    made.thread = current->id;
    made.synchronises = synchronises;
    return made;
}

// Did access a, made by these lanes of its warp, happen before what the current thread does now?
static bool ordered(const Stamp& a, unsigned lanes) {
    if (!a.block) return true;
    if (a.block != block_number + 1) return released_at[a.block - 1] > a.fences && block_acquired;
    if (a.epoch != (unsigned short)barrier_epoch) return true;
    if (a.several_warps) return false;
    unsigned others = lanes;
    if (a.thread >> 5 == current->id >> 5) {
        others &= ~(1u << (current->id & 31));
        for (int l = 0; l < 32; l++)
            if ((others >> l & 1) && current->known[l] >= a.clock) others &= ~(1u << l);
    }
    if (!others) return true;
    return lanes == 1u << (a.thread & 31) && fibers[a.thread].fenced_at > a.fences &&
           current->acquired;
}
static bool ordered(const Stamp& a) { return ordered(a, 1u << (a.thread & 31)); }

}  // namespace emulator
