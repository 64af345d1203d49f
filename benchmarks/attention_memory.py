"""Peak memory of attention by length: megabytes above the inputs, of the forward and backward pass
of one head of width 64. Linux only (/proc/self/status, malloc_trim).
"""

import ctypes
import gc

import attention
import compare
from memory import resident

LENGTHS = 1024, 4096, 16384


def memory_cases(T):
    """One head at growing lengths."""
    return {
        f"{kind} {length}": (kind, (1, 1, length, 64))
        for kind in ("plain", "causal", "padded", "dropout")
        for length in LENGTHS
    }


def measure_memory(cases, impl, seconds):
    """Peak bytes of a forward and backward pass above its inputs, in this process."""
    T = compare.load(impl)
    attention.both_passes(T, (1, 2, 128, 64), "plain")()  # libraries and thread pools are in place
    found = {}
    for name, (kind, size) in cases(T).items():
        run = attention.both_passes(T, size, kind)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back to the system
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")  # the peak starts anew
        start = resident("VmRSS")
        run()
        found[name] = max(resident("VmHWM") - start, 1)
    return found


if __name__ == "__main__":
    compare.main(memory_cases, unit="MB", scale=1e-6, measure_with=measure_memory)
