// What the check build does before each access to memory: is it within bounds, was it written, is it
// in order with the accesses that other threads made?
#include <sys/mman.h>

#include <algorithm>

#include "state.h"

namespace emulator {

struct Cell {  // of a few bytes of memory
    Stamp write;
    Stamp read;        // stands for the reads since then that are not in order with one another,
    unsigned readers;  // by these lanes of its warp
    unsigned foreign_block, foreign_pc;  // and a read by an earlier block
    unsigned short foreign_fences, foreign_synchronises;
};

static char *runtime_low, *runtime_high;
struct Reported {
    const char* what;
    unsigned pc, other_pc;
};
static std::vector<Reported> reported;

// A region begins with cells of 4 bytes, which become smaller with the first smaller access to it.
enum { WIDEST = 2 };  // log2 of 4
enum : size_t { HUGE_PAGE = 2 << 20 };
static char* first_cell(const Region& r) { return (char*)((size_t)r.low & ~size_t(15)); }
static size_t cell_count(const Region& r) { return (size_t(r.high - first_cell(r)) >> r.shift) + 1; }

// Zeros; large ones on huge pages.
static Cell* make_cells(const Region& r) {
    size_t bytes = cell_count(r) * sizeof(Cell);
    if (bytes < HUGE_PAGE) return (Cell*)calloc(1, bytes);
    void* made = aligned_alloc(HUGE_PAGE, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    madvise(made, bytes, MADV_HUGEPAGE);
    return (Cell*)memset(made, 0, bytes);
}

static void refine(Region& r, int shift) {
    Region fine = r;
    fine.shift = shift;
    fine.cells = make_cells(fine);
    for (size_t i = 0; i < cell_count(fine); i++) fine.cells[i] = r.cells[i >> (r.shift - shift)];
    free(r.cells);
    r = fine;
}

void start_checker() {
    start_order(size_t(request.grid[0]) * request.grid[1] * request.grid[2]);
    reported.clear();
    emulator_image((char*)&threadIdx, &runtime_low, &runtime_high);
    for (Region& r : regions) {
        r.shift = WIDEST;
        r.cells = make_cells(r);
    }
}

void start_checking_block() { start_ordering_block(); }

void stop_checker() {
    for (Region& r : regions) free(r.cells);
}

// Once for each pair of places in the source.
static bool is_new(const char* what, unsigned pc, unsigned other_pc) {
    for (const Reported& r : reported)
        if (r.what == what && r.pc == pc && r.other_pc == other_pc) return false;
    reported.push_back({what, pc, other_pc});
    return true;
}

static std::string source(unsigned pc) { return source_of(request.module->low + pc); }

static std::string place(const Region& r, const Cell* cell) {
    ptrdiff_t byte = ((cell - r.cells) << r.shift) - (r.low - first_cell(r));
    return "byte " + std::to_string(std::max<ptrdiff_t>(byte, 0)) + " of " + r.name;
}

static std::string block_name(unsigned number) {
    const unsigned* grid = request.grid;
    char text[64];
    snprintf(text, sizeof text, "block (%u, %u, %u)", number % grid[0], number / grid[0] % grid[1],
             number / grid[0] / grid[1]);
    return text;
}

static void say_race(const Region& r, const Cell* cell, const char* mine, const char* others,
                     const Stamp& now, const Stamp& before) {
    if (!is_new(others, now.pc, before.pc)) return;
    bool same_block = before.block == now.block;
    std::string other = same_block ? who(&fibers[before.thread])
                                   : "a thread of " + block_name(before.block - 1);
    say("data race on %s: %s %s by %s, and %s %s by %s, with no %s between", place(r, cell).c_str(),
        mine, source(now.pc).c_str(), who(current).c_str(), others, source(before.pc).c_str(),
        other.c_str(), same_block ? "barrier" : "__threadfence() and atomic operation");
}

static void say_once(const Region& r, const Cell* cell, const char* what, unsigned pc) {
    if (is_new(what, pc, 0))
        say("%s: %s, by %s %s", what, place(r, cell).c_str(), who(current).c_str(),
            source(pc).c_str());
}

static const char* name_of(Access kind) {
    return kind == READ ? "read" : kind == WRITE ? "write" : "atomic operation";
}

static void check_order(const Region& r, Cell* cell, Access kind, const Stamp& now) {
    Cell& x = *cell;
    auto allowed = [&](bool synchronised) { return synchronised && now.synchronises; };
    if (!ordered(x.write) && !allowed(x.write.synchronises))
        say_race(r, cell, name_of(kind), x.write.synchronises ? "atomic operation" : "write", now,
                 x.write);
    if (kind == READ) return;
    if (!ordered(x.read, x.readers) && !allowed(x.read.synchronises))
        say_race(r, cell, name_of(kind), "read", now, x.read);
    Stamp foreign{};
    foreign.block = x.foreign_block;
    foreign.pc = x.foreign_pc;
    foreign.fences = x.foreign_fences;
    if (!ordered(foreign) && !allowed(x.foreign_synchronises))
        say_race(r, cell, name_of(kind), "read", now, foreign);
}

static void note_read(Cell& x, const Stamp& now) {
    unsigned lane = 1u << (now.thread & 31);
    if (!ordered(x.read, x.readers)) {
        if (x.read.block == now.block) {
            if (x.read.thread >> 5 != now.thread >> 5) x.read.several_warps = true;
            if (!now.synchronises) x.read.synchronises = false;
            x.readers |= lane;
            x.read.clock = std::max(x.read.clock, now.clock);
            return;
        }
        if (!x.foreign_block) {
            x.foreign_block = x.read.block;
            x.foreign_fences = x.read.fences;
            x.foreign_pc = x.read.pc;
            x.foreign_synchronises = x.read.synchronises;
        }
    }
    x.read = now;
    x.readers = lane;
}

static void note_write(Cell& x, const Stamp& now) {
    x.write = now;
    x.read.block = 0;
    x.foreign_block = 0;
}

static void check_cell(const Region& r, Cell* cell, Access kind, const Stamp& now) {
    Cell& x = *cell;
    if (r.shared) {  // what an earlier block did there is gone
        if (x.write.block != now.block) x.write.block = 0;
        if (x.read.block != now.block) x.read.block = 0;
        if (kind != WRITE && !x.write.block)
            say_once(r, cell, "read of shared memory that nothing has written", now.pc);
        if (x.write.block && x.write.in_flight)
            return say_once(r, cell,
                            kind == READ ? "read before the cp.async into it was waited for"
                                         : "written while a cp.async into it is in flight",
                            now.pc);
    }
    check_order(r, cell, kind, now);
    if (kind == READ) note_read(x, now);
    else note_write(x, now);
}

// Outside of all arrays and shared variables: a fault, or the thread's own stack, or a constant.
static void check_elsewhere(const char* p, size_t bytes, Access kind, const void* pc) {
    if (stack_of(p) == current->stack) return;
    if (p >= request.module->low && p < request.module->high) return;
    std::string where = stack_of(p) ? "the local memory of another thread" : describe(p);
    say("out-of-bounds %s of %zu bytes by %s: %s %s", name_of(kind), bytes, who(current).c_str(),
        where.c_str(), source_of(pc).c_str());
    abandon();
}

void check(const char* p, size_t bytes, Access kind, bool synchronises, const void* pc) {
    if (!current || size_t(p - current->stack) < STACK) return;
    if (p >= runtime_low && p < runtime_high) return;  // threadIdx
    if (expired) time_is_up();
    Region* r = region_of(p);
    if (!r) return check_elsewhere(p, bytes, kind, pc);
    if (p + bytes > r->high) return check_elsewhere(r->high, bytes, kind, pc);
    if (kind != READ && !r->writable) {
        say("write to %s, which the kernel declares const, by %s %s", r->name.c_str(),
            who(current).c_str(), source_of(pc).c_str());
        abandon();
    }
    int shift = __builtin_ctzll((size_t)p | bytes | 1 << WIDEST);
    if (shift < r->shift) refine(*r, shift);
    Stamp now = stamp(pc, synchronises);
    const char* base = first_cell(*r);
    Cell* cell = r->cells + ((p - base) >> r->shift);
    Cell* last = r->cells + ((p + bytes - 1 - base) >> r->shift);
    for (; cell <= last; cell++) check_cell(*r, cell, kind, now);
}

static void set_in_flight(const char* p, int bytes, bool value) {
    Region* r = region_of(p);
    if (!r) return;
    for (int i = 0; i < bytes; i += 1 << r->shift)
        r->cells[(p + i - first_cell(*r)) >> r->shift].write.in_flight = value;
}

void begin_copy(char* to, int bytes, const void* pc) {
    check(to, bytes, WRITE, false, pc);
    set_in_flight(to, bytes, true);
}

void end_copy(char* to, int bytes, const void* pc) {
    set_in_flight(to, bytes, false);
    check(to, bytes, WRITE, false, pc);
}

}  // namespace emulator
