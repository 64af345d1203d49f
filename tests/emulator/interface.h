// What kernels call and the runtime (runtime.cpp) provides.
#pragma once
#include <cstddef>
#include <vector_types.h>

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// In the check build the compiler puts a call to the checker before every access to memory; functions
// of the emulator that reach into other threads' operands are left out of it.
#ifdef GPUNN_EMULATOR_CHECK
#define EMULATOR_UNCHECKED inline __attribute__((no_sanitize("thread", "undefined"), noinline))
#define EMULATOR_OPERATION __attribute__((no_sanitize("thread", "undefined"), noinline))
#else
#define EMULATOR_UNCHECKED inline __attribute__((always_inline))
#define EMULATOR_OPERATION
#endif

namespace emulator {

// Where in the kernel's source a barrier or a collective stands.
struct Site {
    const char* file;
    int line;
    const char* what;
};
// A last parameter that takes the caller's file and line.
#define EMULATOR_HERE(what) emulator::Site site = {__builtin_FILE(), __builtin_LINE(), what}

enum Vote { COUNT, ALL, ANY };
// A warp collective's work, done once for all lanes: operands[lane] is what the lane passed.
typedef void (*WarpWork)(void** operands, unsigned lanes);

void block_barrier(const Site&);
int block_vote(bool mine, Vote, const Site&);
void warp_collective(unsigned mask, WarpWork, void* operand, const Site&);
unsigned lane();
unsigned live_lanes();
void give_way();                  // lets other threads run: in a spin wait
void fence(bool device);          // __threadfence, or __threadfence_block
[[noreturn]] void fail(const char* what, const Site&);

void cp_async(void* shared, const void* global, int bytes, int valid_bytes);
void cp_async_commit();
void cp_async_wait(int keep);

// The check build's view of accesses that the compiler does not see.
enum Access { READ, WRITE, ATOMIC };
void check_access(const void*, size_t bytes, Access);
#ifdef GPUNN_EMULATOR_CHECK
#define EMULATOR_CHECK(p, bytes, kind) emulator::check_access(p, bytes, kind)
#else
#define EMULATOR_CHECK(p, bytes, kind) ((void)0)
#endif

}  // namespace emulator
