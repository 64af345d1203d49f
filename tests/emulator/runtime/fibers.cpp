// Threads as fibers: their stacks, and whose turn it is.
#include <sys/mman.h>

#include "state.h"

namespace emulator {

Fiber fibers[MAX_THREADS];
Warp warps[MAX_THREADS / 32];
Fiber* current;
int threads, alive;
unsigned block_number, barrier_epoch;

static void* scheduler;  // the stack pointer of the launching code
static char* stacks;
static int made;

// Fibers ready to run: a ring, the next one at its end.
static int ready[2 * MAX_THREADS];
static unsigned first_ready, after_ready;
static int& slot(unsigned i) { return ready[i % (2 * MAX_THREADS)]; }

static unsigned random_state;
unsigned random_word() {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    return random_state ^= random_state << 5;
}

void make_ready(const int* ids, int count) {
    unsigned base = after_ready;
    bool reverse = request.order == REVERSE;
    for (int i = 0; i < count; i++) {
        fibers[ids[i]].status = READY;
        slot(after_ready++) = ids[reverse ? i : count - 1 - i];
    }
    if (request.order == RANDOM)
        for (int i = count - 1; i > 0; i--)
            std::swap(slot(base + i), slot(base + random_word() % (i + 1)));
}

static void enter(Fiber* next) {
    current = next;
    threadIdx = next->index;
}

void run_next() {
    if (expired) time_is_up();
    Fiber* self = current;
    if (first_ready == after_ready) {
        current = nullptr;
        emulator_switch(&self->stack_pointer, scheduler);
        return;
    }
    Fiber* next = &fibers[slot(--after_ready)];
    if (next == self) return;
    enter(next);
    emulator_switch(&self->stack_pointer, next->stack_pointer);
}

void give_way() {
    slot(--first_ready) = current->id;
    run_next();
}

void abandon() {
    failed = true;
    void* unused;
    current = nullptr;
    emulator_switch(&unused, scheduler);
    abort();
}

static void fiber_main() {
    request.kernel(request.arguments);
    thread_is_done();
    abort();
}

static void make_stacks() {
    if (!stacks) {
        stacks = (char*)mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) abort();
    }
    for (; made < threads; made++) {
        fibers[made].id = made;
        fibers[made].stack = stacks + STACK * made;
        mprotect(fibers[made].stack, PAGE, PROT_NONE);
        warps[made >> 5].lanes[made & 31] = &fibers[made];
    }
}

char* stack_of(const void* p) {
    size_t offset = size_t((const char*)p - stacks);
    return stacks && offset < STACK * MAX_THREADS ? stacks + offset / STACK * STACK : nullptr;
}

// Once a launch.
void prepare_fibers() {
    const unsigned* size = request.block;
    threads = int(size[0] * size[1] * size[2]);
    random_state = 2463534242u ^ request.seed * 2654435761u;
    if (!random_state) random_state = 1;
    make_stacks();
    for (unsigned i = 0; i < (unsigned)threads; i++)
        fibers[i].index = {i % size[0], i / size[0] % size[1], i / (size[0] * size[1])};
}

// Once a block.
void start_fibers() {
    static int ids[MAX_THREADS];
    first_ready = after_ready = 0;
    alive = threads;
    for (int i = 0; i < threads; i++) {
        Fiber& f = fibers[i];
        ids[i] = i;
        f.group = 0;
        f.copies.clear();
        // staggered, or all stacks would share the same sets of the cache
        f.stack_pointer = new_stack(f.stack + STACK - 64 - (i * 320) % 4096, fiber_main);
    }
    make_ready(ids, threads);
}

void resume_first() {
    enter(&fibers[slot(--after_ready)]);
    emulator_switch(&scheduler, current->stack_pointer);
}

}  // namespace emulator
