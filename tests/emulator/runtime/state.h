// What the parts of the runtime share. One launch runs at a time; the launcher sees to that.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../interface.h"

extern "C" void emulator_switch(void** save, void* to) __attribute__((visibility("hidden")));
extern "C" void emulator_image(char* inside, char** low, char** high);

namespace emulator {

enum : size_t {
    MAX_THREADS = 1024,        // of a block
    STACK = 128 << 10,         // of a thread, its guard page included
    PAGE = 4096,
    MAX_SHARED = 227 << 10,    // dynamic shared memory of a block
    RED_ZONE = 1 << 10,        // after it
};

// --- the launcher's side: mirrored in loaded.py ------------------------------------------------

struct SharedVariable {  // a static __shared__ variable
    const char* name;
    size_t offset, bytes;  // in the library's thread-local storage
};
struct Module {
    char *low, *high;            // where the library lies in memory
    char* (*dynamic)();          // the buffer of dynamic shared memory, of the calling thread
    size_t dynamic_offset;       // its offset in the library's thread-local storage
    size_t storage_bytes;        // of all of that
    const SharedVariable* shared;
    int shared_count;
};
struct Buffer {  // the memory of one array, or of several that overlap
    char* data;
    size_t bytes;
    const char* name;
    int writable;
};
struct Patch {  // the place of a pointer among the arguments
    char** where;
    int buffer;
    size_t offset;
};
struct Request {
    const Module* module;
    void (*kernel)(void** arguments);
    void** arguments;
    unsigned grid[3], block[3];
    size_t shared;
    int check, order;
    unsigned seed;
    int timeout;
    const Buffer* buffers;
    int buffer_count;
    const Patch* patches;
    int patch_count;
};
enum Order { FORWARD, REVERSE, RANDOM };

// --- threads ------------------------------------------------------------------------------------

enum Status { READY, AT_BARRIER, IN_WARP, DONE };

struct AsyncCopy {
    char* to;
    const char* from;
    int bytes, valid, group;
};
struct Fiber {
    void* stack_pointer;
    char* stack;
    uint3 index;
    int id;
    Status status;
    Site site;                         // where it waits
    const void* called_from;
    unsigned mask;                     // of the collective it waits for
    WarpWork work;
    std::vector<AsyncCopy> copies;     // not waited for yet
    int group;                         // the number of commits
    // For the checker.
    unsigned known[32];                // how far it knows each lane of its warp to be; its own clock
    unsigned fenced_at;                // the number of its last fence
    bool used_atomic, acquired;        // acquired: a fence after an atomic operation
};
struct Warp {
    unsigned waiting, done;
    void* operands[32];
    Fiber* lanes[32];
};

extern Request request;
extern Fiber fibers[MAX_THREADS];
extern Warp warps[MAX_THREADS / 32];
extern Fiber* current;          // null while no kernel code runs
extern int threads, alive;      // of the block
extern unsigned block_number;   // x fastest
extern unsigned barrier_epoch;  // block barriers that the block has passed

void prepare_fibers();
void make_ready(const int* ids, int count);
void run_next();                // from a fiber: to the next that is ready
[[noreturn]] void abandon();    // from a fiber: ends the launch
unsigned random_word();
void start_barriers();
void start_fibers();
void resume_first();            // from the launching code: returns when no fiber can run
void thread_is_done();
void say_deadlock();
void* new_stack(char* top, void (*start)());
char* stack_of(const void* p);  // the stack that an address lies in, or null

// --- memory -------------------------------------------------------------------------------------

struct Cell;
struct Region {  // memory that a kernel may touch
    char *low, *high;
    std::string name;
    bool shared, writable;
    char* map;  // of a guarded buffer
    size_t map_bytes;
    const Buffer* buffer;
    int shift;  // log2 of the bytes of one cell of the checker
    Cell* cells;
};
extern std::vector<Region> regions;

Region* region_of(const char*);
std::string describe(const char*);
void guard_buffers();
bool release_buffers(bool copy_back);
void find_shared_memory();
void fill_shared_memory();
void check_dynamic_overrun();

// --- faults -------------------------------------------------------------------------------------

extern bool failed;
extern std::atomic<bool> expired;
void say(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string who(const Fiber*);
std::string at(const Site&);
std::string at(const Fiber*);      // where it waits, and from where that was called
std::string source_of(const void* pc);
bool run_guarded(void (*body)());  // false: a signal ended it
void time_is_up();

// --- the checker --------------------------------------------------------------------------------

void start_checker();
void start_checking_block();
void stop_checker();
void pass_syncwarp(const int* ids, int count);
void check(const char* p, size_t bytes, Access, bool synchronises, const void* pc);
void begin_copy(char* to, int bytes, const void* pc);
void end_copy(char* to, int bytes, const void* pc);

}  // namespace emulator
