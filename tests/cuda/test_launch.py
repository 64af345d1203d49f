"""Launches: what a kernel's own text says about its arguments, and errors in words."""

import os
import re

import numpy as np
import pytest

import gpunn
from gpunn.cuda.kernels import launch

SCALE = """
// comments, with (parentheses) and __global__ in them, are not code
extern "C" __global__ void __launch_bounds__(64)
scale(const T* __restrict__ x, T* y, long long n, float factor) {
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n;
         i += gridDim.x * (long long)blockDim.x) y[i] = T(factor * x[i]);
}
"""


def kernel(**types):
    return gpunn.cuda.kernel(SCALE, "scale", **(types or {"T": gpunn.float32}))


def test_a_signature_is_read_from_the_text():
    text = """typedef __half T; using I = long long; struct Geometry { int n; };
    extern "C" __global__ void f(const T* a, I *b, unsigned long long seed, const Geometry g,
                                 Pointers<const T*> many, Fault* fault, bool flag) {}"""
    found = launch.signature("f", text)
    kinds = [(p.name, p.kind, str(p.dtype), p.writes) for p in found]
    assert kinds == [
        ("a", "array", "float16", False), ("b", "array", "int64", True),
        ("seed", "value", "uint64", False), ("g", "value", "None", False),
        ("many", "table", "float16", False), ("fault", "fault", "None", True),
        ("flag", "value", "bool", False),
    ]  # fmt: skip


def test_names_that_stand_for_each_other_end():
    text = """typedef A B; typedef B A; typedef float C; typedef C D;
    extern "C" __global__ void f(A* a, D* d) {}"""
    assert [str(p.dtype) for p in launch.signature("f", text)] == ["None", "float32"]


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"no kernel named skale in your kernel, only \['scale'\]"):
        gpunn.cuda.kernel(SCALE, "skale", T=gpunn.float32)


def test_a_users_kernel_runs_on_tensors(emulated):
    x = gpunn.arange(1000, dtype=gpunn.float32, device=emulated)
    y = gpunn.empty_like(x)
    kernel()(3, 64, (x, y, 1000, 2.5))
    np.testing.assert_array_equal(y.cpu().numpy(), 2.5 * np.arange(1000, dtype=np.float32))


def test_a_users_kernel_has_a_gradient_through_function(emulated):
    times = kernel()

    class Scale(gpunn.autograd.Function):
        @staticmethod
        def forward(ctx, x, factor):
            ctx.factor, y = factor, gpunn.empty_like(x)
            times(1, 64, (x, y, x.numel(), factor))
            return y

        @staticmethod
        def backward(ctx, g):
            gx = gpunn.empty_like(g)
            times(1, 64, (g.contiguous(), gx, g.numel(), ctx.factor))
            return gx, None

    x = gpunn.ones(70, device=emulated, requires_grad=True)
    Scale.apply(x, 3.0).sum().backward()
    assert x.grad.cpu().tolist() == [3.0] * 70


def test_what_a_kernel_writes_is_seen_by_autograd(emulated):
    x = gpunn.ones(4, device=emulated, requires_grad=True)
    y = x.exp()
    z = y * y  # saves y
    kernel()(1, 32, (gpunn.ones(4, device=emulated), y.detach(), 4, 2.0))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize(
    "change, error, words",
    [
        (lambda a: [a[0].cpu(), *a[1:]], TypeError, "on the GPU, got a NumPy array"),
        (lambda a: [a[0].double(), *a[1:]], TypeError, r"takes float32, got float64"),
        (lambda a: [a[0][::2], *a[1:]], ValueError, r"C-contiguous, got shape \(32,\) with"),
        (lambda a: [3.0, *a[1:]], TypeError, "takes an array on the GPU, got float"),
        (lambda a: a[:3], TypeError, r"takes 4 arguments \(const T\* x, T\* y, .*, got 3"),
    ],
)
def test_arguments_that_do_not_fit_are_named(emulated, change, error, words):
    x = gpunn.ones(64, device=emulated)
    with pytest.raises(error, match=words):
        kernel()(1, 64, change([x, gpunn.empty_like(x), 64, 1.0]))


def test_python_numbers_become_what_the_kernel_has(emulated):
    x = gpunn.ones(64, device=emulated)
    y = gpunn.empty_like(x)
    kernel()(1, 64, (x, y, np.int32(64), 3))
    assert y.cpu().tolist() == [3.0] * 64


def test_a_compile_error_shows_file_line_and_the_compilers_words(emulated):
    bad = gpunn.cuda.kernel('\n\nextern "C" __global__ void f(int* x) {\n  x[0] = y;\n}', "f")
    with pytest.raises(RuntimeError, match=r"does not compile:[\s\S]*your kernel:4[\s\S]*y.*not"):
        bad(1, 1, (gpunn.zeros(1, dtype=gpunn.int32, device=emulated),))


def test_a_launch_that_fails_names_kernel_grid_block_and_shapes(emulated):
    x = gpunn.ones(64, device=emulated)
    with pytest.raises(RuntimeError) as caught:
        kernel()(1, 4096, (x, x, 64, 1.0))
    assert re.search(
        r"kernel scale of your kernel failed with grid \(1,\), block \(4096,\), 0 bytes .*"
        r"x float32\[64\], y float32\[64\], n 64, factor 1.0",
        str(caught.value),
    )


def test_much_shared_memory_is_asked_for(emulated):
    text = """extern "C" __global__ void f(int* x, int n) {
        extern __shared__ int s[];
        s[n - 1] = 7; x[0] = s[n - 1];
    }"""
    x = gpunn.zeros(1, dtype=gpunn.int32, device=emulated)
    gpunn.cuda.kernel(text, "f")(1, 1, (x, 20_000), shared=80_000)
    assert x.item() == 7


def test_grids_are_capped(emulated, monkeypatch):
    assert launch.blocks(0, 64) == 1 and launch.blocks(65, 64) == 2
    assert launch.blocks(1 << 40, 64) == 32 * launch.multiprocessors()
    monkeypatch.setattr(launch, "most_blocks", 3)
    assert launch.blocks(1 << 40, 64) == 3


def test_a_cache_that_cannot_be_written_is_said_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.delenv("CUPY_CACHE_IN_MEMORY", raising=False)
    launch.mind_cache.cache_clear()
    with pytest.warns(UserWarning, match=r"cannot write its kernel cache, .*file/cache"):
        launch.mind_cache()
    assert os.environ.pop("CUPY_CACHE_IN_MEMORY") == "1"
    launch.mind_cache()  # not again
    launch.mind_cache.cache_clear()
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "new"))
    launch.mind_cache()
    assert "CUPY_CACHE_IN_MEMORY" not in os.environ
    launch.mind_cache.cache_clear()


def test_none_is_a_null_pointer_of_eight_bytes(emulated):
    """CuPy's own None was the address 0xffffffff."""
    text = """extern "C" __global__ void is_null(const float* p, int* out, Fault* fault) {
        out[0] = p == nullptr && fault == nullptr; }"""
    out = gpunn.zeros(1, dtype=gpunn.int32, device=emulated)
    run = gpunn.cuda.kernel('#include "common.cuh"\n' + text, "is_null", T=gpunn.float32)
    run(1, 1, (None, out, None))
    assert out.tolist() == [1]
    ready = [run._kernel._ready(i, None, 0) for i in (0, 2)]
    assert [(type(a), int(a)) for a in ready] == [(np.uint64, 0)] * 2


def test_dynamic_shared_memory_just_below_48_kb_beside_static(emulated):
    """Together they pass what needs no asking."""
    text = """extern __shared__ float many[];
    extern "C" __global__ void f(float* y) {
        __shared__ float few[32];
        few[threadIdx.x] = many[threadIdx.x + 12000] = threadIdx.x;
        __syncthreads();
        y[threadIdx.x] = few[31 - threadIdx.x] + many[threadIdx.x + 12000];
    }"""
    y = gpunn.zeros(32, device=emulated)
    run = gpunn.cuda.kernel(text, "f")
    for size in (48 << 10, (48 << 10) - 64, 100 << 10, 48 << 10):
        run(1, 32, (y,), shared=size)
    assert y.tolist() == [31.0] * 32
