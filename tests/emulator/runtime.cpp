// The runtime of the emulator: one shared library that all compiled kernels use. It never is compiled
// with a sanitizer itself.
//
// A CUDA thread is a fiber with a stack of its own, changed by hand (switch.cpp); a fiber runs until it
// waits at a barrier or a warp collective (barriers.cpp) or returns. Arrays are copied between unmapped
// pages (memory.cpp). In the check build every access to memory is looked at first (hooks.cpp,
// checker.cpp), and whether it is in order with the accesses before it (order.cpp).
#include "runtime/state.h"

#include "runtime/switch.cpp"
#include "runtime/fibers.cpp"
#include "runtime/memory.cpp"
#include "runtime/faults.cpp"
#include "runtime/barriers.cpp"
#include "runtime/order.cpp"
#include "runtime/checker.cpp"
#include "runtime/hooks.cpp"
#include "runtime/copies.cpp"
#include "runtime/launch.cpp"
