// The functions that the compiler makes the check build call: before accesses to memory, named as its
// thread sanitizer's, and where an index, an alignment or a divisor is wrong, named as its undefined
// behaviour sanitizer's. Neither of those libraries is linked.
#include "state.h"

using namespace emulator;

#define HOOK(name, bytes, kind, synchronises)                                                \
    extern "C" void name(const char* p) {                                                    \
        check(p, bytes, kind, synchronises, __builtin_return_address(0));                    \
    }
#define HOOKS(bytes)                                             \
    HOOK(__tsan_read##bytes, bytes, READ, false)                 \
    HOOK(__tsan_write##bytes, bytes, WRITE, false)               \
    HOOK(__tsan_unaligned_read##bytes, bytes, READ, false)       \
    HOOK(__tsan_unaligned_write##bytes, bytes, WRITE, false)     \
    HOOK(__tsan_volatile_read##bytes, bytes, READ, true)         \
    HOOK(__tsan_volatile_write##bytes, bytes, WRITE, true)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

static void check_range(const void* p, size_t bytes, Access kind, const void* pc) {
    if (bytes) check((const char*)p, bytes, kind, false, pc);
}

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_read_range(void* p, size_t bytes) {
    check_range(p, bytes, READ, __builtin_return_address(0));
}
void __tsan_write_range(void* p, size_t bytes) {
    check_range(p, bytes, WRITE, __builtin_return_address(0));
}

// The linker gives kernels these for memcpy, memmove and memset.
void* __wrap_memmove(void* to, const void* from, size_t bytes) {
    check_range(from, bytes, READ, __builtin_return_address(0));
    check_range(to, bytes, WRITE, __builtin_return_address(0));
    return memmove(to, from, bytes);
}
void* __wrap_memcpy(void* to, const void* from, size_t bytes) {
    check_range(from, bytes, READ, __builtin_return_address(0));
    check_range(to, bytes, WRITE, __builtin_return_address(0));
    return memcpy(to, from, bytes);
}
void* __wrap_memset(void* to, int value, size_t bytes) {
    check_range(to, bytes, WRITE, __builtin_return_address(0));
    return memset(to, value, bytes);
}

struct Place {
    const char* file;
    unsigned line, column;
};
static void stop(const Place* place, const std::string& what) {
    if (!current) return;
    const char* slash = strrchr(place->file, '/');
    say("%s, in %s, at %s:%u", what.c_str(), who(current).c_str(), slash ? slash + 1 : place->file,
        place->line);
    abandon();
}

void __ubsan_handle_out_of_bounds(const Place* place, size_t index) {
    long long i = index >> 31 == 1 ? (int)index : (long long)index;
    stop(place, "array index " + std::to_string(i) + " is out of bounds");
}
struct Mismatch {
    Place place;
    const void* type;
    unsigned char log_alignment;
};
void __ubsan_handle_type_mismatch_v1(const Mismatch* mismatch, const char* p) {
    int bytes = 1 << mismatch->log_alignment;
    stop(&mismatch->place, "misaligned access: " + describe(p) + ", is no multiple of " +
                               std::to_string(bytes) + " bytes");
}
void __ubsan_handle_divrem_overflow(const Place* place, size_t, size_t) {
    stop(place, "integer division by zero");
}

}  // extern "C"

namespace emulator {
void check_access(const void* place, size_t bytes, Access kind) {
    const char* p = (const char*)place;
    // A 16-bit value is added to by exchanging its word: an array may begin or end within that.
    if (kind == ATOMIC && bytes == 4 && !region_of(p) != !region_of(p + 2)) {
        if (!region_of(p)) p += 2;
        bytes = 2;
    }
    check(p, bytes, kind, kind == ATOMIC, __builtin_return_address(0));
}
}  // namespace emulator
