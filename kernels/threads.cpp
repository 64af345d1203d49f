// What the Python side sets and asks of the process: threads, scratch memory, freed memory.
#include "threads.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

EXPORT void gpunn_set_num_threads(int n) { Pool::instance()->threads = n < 1 ? 1 : n; }
EXPORT int gpunn_get_num_threads() { return Pool::instance()->threads; }
EXPORT int64_t gpunn_scratch_peak() { return int64_t(Scratch::count().most); }

// Blocks below 32 MiB (the most that glibc allows) come from the heap, and the heap's free end stays
// until it is `kept` bytes long: a training step frees all that the next one asks for again, and
// pages that went back to the system would be zeroed anew, one fault for each 4 KiB.
EXPORT int gpunn_keep_freed(int64_t kept) {
#if defined(__GLIBC__)
    return mallopt(M_MMAP_THRESHOLD, 32 << 20) && mallopt(M_TRIM_THRESHOLD, int(kept));
#else
    return kept < 0;
#endif
}
