// Lets a C++ compiler for the CPU compile the text of a .cu file of kernels. Every CUDA thread becomes
// a fiber of one operating-system thread (see runtime.cpp); blocks run one after another.
//
// Not modelled: weak memory ordering, flush-to-zero, the error of fast-math intrinsics (__expf is expf
// here), the rounding inside tensor cores.
#pragma once
#define GPUNN_EMULATOR 1

#include <cmath>
#include <cstdio>
#include <cstring>
#include <math.h>
#include <type_traits>
#include <utility>

#include <cuda_fp16.h>  // NVIDIA's own headers: types, conversions and operators have host bodies
#include <cuda_bf16.h>

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __managed__
#undef __launch_bounds__
#undef __grid_constant__
#undef __cluster_dims__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
// thread_local is the one storage class that is static in a function and allowed after `extern`.
// Nothing else in the library is thread_local, so its TLS segment is shared memory and nothing more:
// it can be filled with NaN before each block, and `extern __shared__ T s[]` is an undefined symbol
// that the build defines as one buffer.
#define __shared__ thread_local

#include "interface.h"
#include "warp.h"
#include "atomics.h"
#include "intrinsics.h"
#include "halves.h"
#include "tensor.h"
#include "entry.h"

#undef assert
#define assert(x) ((x) ? (void)0 : emulator::fail("assertion `" #x "` is false", \
                                                  {__FILE__, __LINE__, "assert"}))
#define __builtin_assume(x) ((x) ? (void)0 : emulator::fail("`" #x "` is assumed and false", \
                                                            {__FILE__, __LINE__, "__builtin_assume"}))
#define __trap() emulator::fail("the kernel trapped", {__FILE__, __LINE__, "__trap"})
#define __brkpt() emulator::fail("the kernel met a breakpoint", {__FILE__, __LINE__, "__brkpt"})
