"""Modules, the shapes of launches, settings and the cache."""

import os
import sys
import threading
import time

import numpy as np
import pytest

from . import CompileError, EmulatorError, RawModule, compiler, missing, settings
from . import settings as exported
from .settings import now

CODE = """\
#include <cuda_fp16.h>
typedef float T;
#line 7 "scale.cu"
constexpr int BLOCK = 64;
extern "C" __global__ void __launch_bounds__(BLOCK) scale(T* x, int n) {
    extern __shared__ T shared[];
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        shared[threadIdx.x] = x[i];
        x[i] = 2 * shared[threadIdx.x];
    }
}
extern "C" __global__ void hungry(T* x) {
    __shared__ T a[4096];
    a[threadIdx.x] = 1;
    __syncthreads();
    x[threadIdx.x] = a[threadIdx.x];
}
"""


def scale(grid=(1,), block=(32,), shared=4 * 64, x=None):
    x = np.ones(100, np.float32) if x is None else x
    kernel = RawModule(CODE).get_function("scale")
    kernel(grid, block, (x, np.int32(x.size)), shared_mem=shared)
    return x


def test_one_package_under_two_names():
    assert sys.modules["emulator"] is sys.modules["tests.emulator"]
    assert sys.modules["emulator.settings"] is sys.modules["tests.emulator.settings"]


def test_cupy_s_shape():
    module = RawModule(code=CODE, options=("-std=c++17",), backend="nvrtc", name_expressions=None)
    x = np.ones(100, np.float32)
    module.get_function("scale")((2,), (64,), (x, np.int32(100)), shared_mem=256)
    assert (x == 2).all()


def test_nothing_is_compiled_before_the_first_launch():
    kernel = RawModule(CODE.replace("2 *", "two *")).get_function("scale")
    with pytest.raises(CompileError, match="scale.cu:12:16: error: .two. was not declared"):
        kernel((1,), (32,), (np.ones(1, np.float32), np.int32(1)), shared_mem=128)


def test_a_name_that_is_no_kernel():
    with pytest.raises(EmulatorError, match="no kernel 'scal' in the text, which has scale, h"):
        RawModule(CODE).get_function("scal")


@pytest.mark.parametrize(
    "options, match",
    [
        ({"grid": (0,)}, r"a grid of \(0, 1, 1\) blocks"),
        ({"grid": (1, 65536)}, r"a grid of \(1, 65536, 1\) blocks"),
        ({"grid": (65536, 65535, 2)}, r"a grid of .* more than the emulator counts"),
        ({"block": (0,)}, r"a block of \(0, 1, 1\) threads"),
        ({"block": (1, 1, 65)}, r"a block of \(1, 1, 65\) threads"),
        ({"block": (65,)}, r"a block of \(65, 1, 1\) threads, more than its launch bound of 64"),
        ({"shared": (48 << 10) + 4}, "49156 bytes of dynamic shared memory beside 0 of static"),
    ],
)
def test_launches_that_a_gpu_refuses(options, match):
    with pytest.raises(EmulatorError, match="scale: launched with " + match):
        scale(**options)


def test_dynamic_shared_memory_must_be_asked_for():
    kernel = RawModule(CODE).get_function("scale")
    assert kernel.max_dynamic_shared_size_bytes == 48 << 10
    kernel.max_dynamic_shared_size_bytes = 227 << 10
    x = np.ones(100, np.float32)
    kernel((1,), (64,), (x, np.int32(100)), shared_mem=227 << 10)
    assert (x == 2).all()
    kernel.max_dynamic_shared_size_bytes = 1 << 20
    with pytest.raises(EmulatorError, match="beside 0 of static; the limit is 232448"):
        kernel((1,), (64,), (x, np.int32(100)), shared_mem=(227 << 10) + 1)


def test_static_shared_memory_counts():
    kernel = RawModule(CODE).get_function("hungry")
    kernel((1,), (32,), (np.zeros(32, np.float32),), shared_mem=32 << 10)
    with pytest.raises(EmulatorError, match="32772 bytes of dynamic .* beside 16384 of static"):
        kernel((1,), (32,), (np.zeros(32, np.float32),), shared_mem=(32 << 10) + 4)


def test_settings_nest_and_are_checked():
    assert exported is settings
    before = now()
    with settings(check=True, timeout=5):
        with settings(order="random", seed=4):
            assert now() == (True, "random", 4, 5)
        assert now() == (True, before.order, before.seed, 5)
    assert now() == before
    with pytest.raises(ValueError, match="order must be one of"), settings(order="sideways"):
        pass
    with pytest.raises(ValueError, match="timeout must be at least 1 second"), settings(timeout=0):
        pass
    with pytest.raises(ValueError, match="chec"), settings(chec=True):
        pass


@pytest.mark.parametrize("check", [False, True])
def test_launches_from_several_threads(check):
    results = []

    def work():
        with_shared = [scale() for _ in range(5)]
        results.append(all((x == 2).all() for x in with_shared))

    with settings(check=check):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert results == [True] * 4


def test_a_large_grid():
    x = np.ones(3_000, np.float32)
    assert (scale(grid=(3_000,), block=(1,), x=x) == 2).all()


def test_the_cache_compiles_once(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "cache_folder", lambda: tmp_path)
    made = []

    def build(folder):
        made.append(folder)
        (folder / "some.json").write_text("{}")
        (folder / "some.so").write_text("library")
        (folder / "other.o").write_text("left behind")

    for _ in range(2):
        assert compiler._cached("some.so", build).read_text() == "library"
    assert len(made) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["some.json", "some.so"]


def test_the_cache_forgets_what_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "cache_folder", lambda: tmp_path)
    for name, age in (("old.so", compiler.A_MONTH + 60), ("used.so", compiler.A_MONTH - 60)):
        (tmp_path / name).write_text("library")
        os.utime(tmp_path / name, times=(time.time() - age,) * 2)
    compiler._forget_old_files()
    assert [p.name for p in tmp_path.iterdir()] == ["used.so"]


def test_the_cache_s_key_is_all_that_counts():
    keys = {compiler._key("a"), compiler._key("b"), compiler._key("a", "")}
    assert len(keys) == 3 and compiler._key("a") in keys


@pytest.mark.parametrize("machine, match", [("riscv64", "runs on Linux, on x86-64 or aarch64")])
def test_other_machines_are_named(machine, match, monkeypatch):
    monkeypatch.setattr(compiler.platform, "machine", lambda: machine)
    assert match in missing.__wrapped__()


def test_headers_in_several_folders(tmp_path, monkeypatch):
    for folder, names in {
        "cuda_runtime": ("cuda_fp16.h", "vector_types.h"),
        "cuda_nvcc": ("crt/host_defines.h",),
        "cuda_cccl": ("nv/target",),
    }.items():
        for name in names:
            path = tmp_path / "nvidia" / folder / "include" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    monkeypatch.setattr(compiler.sys, "path", [str(tmp_path)])
    found = compiler.headers.__wrapped__()
    assert [f.parent.name for f in found] == ["cuda_runtime", "cuda_nvcc", "cuda_cccl"]
    (tmp_path / "nvidia" / "cuda_cccl" / "include" / "nv" / "target").unlink()
    monkeypatch.setattr(compiler, "_header_folders", lambda: list(found))
    assert compiler.headers.__wrapped__() == ()


def test_what_is_missing_is_named(monkeypatch):
    assert missing.__wrapped__() is None
    monkeypatch.setattr(compiler, "headers", lambda: ())
    assert "pip install nvidia-cuda-runtime" in missing.__wrapped__()
    monkeypatch.setenv("CXX", "no-such-g++")
    assert "install g++ (no-such-g++ was not found)" in missing.__wrapped__()
    monkeypatch.setenv("CXX", "clang++")
    assert compiler._compiler() == "g++"
