"""The launchers of kernels/*.cu: one file for each, thin functions from raw arrays to raw arrays.

They are the GPU's twins of `gpunn.native`: they return None where the kernel does not serve the
dtype, and the caller lets array operations do the work. loader.py makes the text that is compiled,
launch.py checks and launches, faults.py turns a bad index on the device into the CPU's error.
"""
