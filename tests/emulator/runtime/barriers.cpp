// Block barriers and warp collectives, and what is said when not all threads reach them.
#include <algorithm>

#include "state.h"

namespace emulator {

static int arrived;
static Fiber* first_at_barrier;
static int votes[2];  // of this barrier and the last one, whose voters still read it

void start_barriers() {
    arrived = 0;
    barrier_epoch = 0;
    votes[0] = votes[1] = 0;
    int count = (threads + 31) / 32;
    for (int w = 0; w < count; w++) {
        warps[w].waiting = 0;
        int lanes = std::min(32, threads - 32 * w);
        warps[w].done = lanes == 32 ? 0 : ~0u << lanes;
        memset(warps[w].operands, 0, sizeof warps[w].operands);
    }
}

static void release_block() {
    static int ids[MAX_THREADS];
    int count = 0;
    for (int i = 0; i < threads; i++)
        if (fibers[i].status != DONE) ids[count++] = i;
    arrived = 0;
    barrier_epoch++;
    votes[barrier_epoch & 1] = 0;
    make_ready(ids, count);
}

static void arrive(const Site& site, const void* called_from) {
    if (arrived++ == 0) first_at_barrier = current;
    const Site& other = first_at_barrier->site;
    current->site = site;
    current->called_from = called_from;
    if (site.line != other.line || strcmp(site.file, other.file)) {
        say("barrier divergence: %s is at %s, but %s is at %s", who(current).c_str(),
            at(current).c_str(), who(first_at_barrier).c_str(), at(first_at_barrier).c_str());
        abandon();
    }
    if (alive != threads) {
        say("barrier divergence: %s waits at %s, but %d threads of the block have returned",
            who(current).c_str(), at(current).c_str(), threads - alive);
        abandon();
    }
    current->status = AT_BARRIER;
    if (arrived == alive) release_block();
    run_next();
}

void block_barrier(const Site& site) { arrive(site, __builtin_return_address(0)); }

int block_vote(bool mine, Vote kind, const Site& site) {
    int& count = votes[barrier_epoch & 1];
    count += mine;
    arrive(site, __builtin_return_address(0));
    return kind == COUNT ? count : kind == ALL ? count == threads : count != 0;
}

unsigned lane() { return current->id & 31; }
unsigned live_lanes() { return ~warps[current->id >> 5].done; }

static bool same_call(const Fiber* a, const Fiber* b) {
    return a->mask == b->mask && a->work == b->work && a->site.line == b->site.line &&
           !strcmp(a->site.what, b->site.what);
}

// Does the collective of `mask` if all of its lanes that still run have arrived.
static void try_collective(Warp& warp, unsigned mask) {
    unsigned lanes = mask & ~warp.done;
    if (!lanes || (warp.waiting & lanes) != lanes) return;
    Fiber* first = warp.lanes[__builtin_ctz(lanes)];
    int ids[32], count = 0;
    for (int l = 0; l < 32; l++) {
        if (!(lanes >> l & 1)) continue;
        Fiber* f = warp.lanes[l];
        if (!same_call(f, first)) {
            say("warp divergence: %s is at %s with mask %08x, but %s is at %s with mask %08x",
                who(f).c_str(), at(f).c_str(), f->mask, who(first).c_str(), at(first).c_str(),
                first->mask);
            abandon();
        }
        ids[count++] = f->id;
    }
    if (first->work) first->work(warp.operands, lanes);
    else if (request.check) pass_syncwarp(ids, count);  // only __syncwarp orders memory
    warp.waiting &= ~lanes;
    make_ready(ids, count);
}

void warp_collective(unsigned mask, WarpWork work, void* operand, const Site& site) {
    Warp& warp = warps[current->id >> 5];
    int l = current->id & 31;
    if (!(mask >> l & 1)) {
        say("%s: lane %d of %s is not in the mask %08x", at(site).c_str(), l, who(current).c_str(),
            mask);
        abandon();
    }
    current->status = IN_WARP;
    current->site = site;
    current->called_from = __builtin_return_address(0);
    current->mask = mask;
    current->work = work;
    warp.waiting |= 1u << l;
    warp.operands[l] = operand;
    try_collective(warp, mask);
    run_next();
}

// A thread has returned: those that waited for it alone go on.
void thread_is_done() {
    Warp& warp = warps[current->id >> 5];
    current->status = DONE;
    alive--;
    warp.done |= 1u << (current->id & 31);
    warp.operands[current->id & 31] = nullptr;
    if (arrived) {
        say("barrier divergence: %s has returned, while %s waits at %s", who(current).c_str(),
            who(first_at_barrier).c_str(), at(first_at_barrier).c_str());
        abandon();
    }
    for (unsigned left = warp.waiting; left;) {
        int l = __builtin_ctz(left);
        unsigned mask = warp.lanes[l]->mask;
        left &= ~mask & ~(1u << l);
        try_collective(warp, mask);
    }
    run_next();
}

// No thread can go on: where they wait.
void say_deadlock() {
    std::string text;
    for (int i = 0, listed = 0; i < threads && listed < 4; i++) {
        const Fiber &f = fibers[i], &last = fibers[i ? i - 1 : 0];
        if (f.status == DONE || (i && last.status == f.status && same_call(&last, &f))) continue;
        char mask[32] = "";
        if (f.status == IN_WARP) snprintf(mask, sizeof mask, " with mask %08x", f.mask);
        text += "; from " + who(&f) + " on: at " + at(&f) + mask;
        listed++;
    }
    say("deadlock: %d of %d threads have returned, the others wait%s", threads - alive, threads,
        text.c_str());
}

}  // namespace emulator
