"""Kernels found in a text."""

from .source import Kernel, kernels

TEXT = """
// __global__ void commented(int x) {}
/* __global__ void also(int x) {} */
const char* words = "__global__ void quoted(int x)";
extern "C" __global__ void plain(const float* __restrict__ x, float (*y), Pair<int, long long> z);
extern "C" __global__ void __launch_bounds__(BLOCK * 2, 1)
    bounded(int n /* , int m */, unsigned char flag) {}
extern "C" __launch_bounds__(64) __global__ void before() {}
extern "C" {
__global__ __launch_bounds__((A + B)) void inside(void) {}
}
"""


def test_names_parameters_and_bounds():
    assert kernels(TEXT) == {
        "plain": Kernel("plain", ("x", "y", "z"), "1024"),
        "bounded": Kernel("bounded", ("n", "flag"), "BLOCK * 2"),
        "before": Kernel("before", (), "1024"),
        "inside": Kernel("inside", (), "(A + B)"),
    }


def test_a_text_without_kernels():
    assert kernels("__device__ int f() { return 1; }") == {}
    assert kernels("#define KERNEL __global__") == {}
