"""The CPU's C++ code (kernels/*.cpp): loading it, and one thin function for each thing it does.

The functions take and return NumPy arrays, and return None where there is no library or it does
not serve the dtype: the caller then lets NumPy do the work.
"""

from gpunn.native.conv import conv_forward, conv_input_grad, conv_size, conv_weight_grad
from gpunn.native.library import (
    get_num_threads,
    kernels_dir,
    levels,
    lib,
    set_num_threads,
    source,
    status,
)

__all__ = [
    "conv_forward",
    "conv_input_grad",
    "conv_size",
    "conv_weight_grad",
    "get_num_threads",
    "kernels_dir",
    "levels",
    "lib",
    "set_num_threads",
    "source",
    "status",
]
