// What the Python side sets and asks of the thread pool and its scratch memory.
#include "threads.h"

EXPORT void gpunn_set_num_threads(int n) { Pool::instance()->threads = n < 1 ? 1 : n; }
EXPORT int gpunn_get_num_threads() { return Pool::instance()->threads; }
EXPORT int64_t gpunn_scratch_peak() { return int64_t(Scratch::count().most); }
