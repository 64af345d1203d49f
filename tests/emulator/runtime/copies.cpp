// cp.async. The destination is garbage from the issue until the thread's own wait, so that reading it
// too early and forgetting to wait both show.
#include "state.h"

namespace emulator {

void cp_async(void* shared, const void* global, int bytes, int valid) {
    const void* pc = __builtin_return_address(0);
    if (((size_t)shared | (size_t)global) % bytes)
        fail("the addresses are no multiples of the bytes copied", {"", 0, "cp.async"});
    if (request.check) {
        if (valid) check((const char*)global, valid, READ, false, pc);
        begin_copy((char*)shared, bytes, pc);
    }
    memset(shared, 0xff, bytes);
    current->copies.push_back({(char*)shared, (const char*)global, bytes, valid, current->group});
}

void cp_async_commit() { current->group++; }

void cp_async_wait(int keep) {
    const void* pc = __builtin_return_address(0);
    auto& copies = current->copies;
    size_t left = 0;
    for (const AsyncCopy& copy : copies) {
        if (copy.group >= current->group - keep) {
            copies[left++] = copy;
            continue;
        }
        if (request.check) end_copy(copy.to, copy.bytes, pc);
        memcpy(copy.to, copy.from, copy.valid);
        memset(copy.to + copy.valid, 0, copy.bytes - copy.valid);
    }
    copies.resize(left);
}

}  // namespace emulator
