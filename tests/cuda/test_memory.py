"""The pool's numbers, and running out of memory."""

import gc
import sys

import fake_cupy
import numpy as np
import pytest

from gpunn import cuda
from gpunn.cuda import memory
from gpunn.device import Device
from gpunn.tensor import wrap

MIB = 1 << 20


@pytest.fixture
def cupy():
    with fake_cupy.installed(fake_cupy.make(devices=2, capacity=64 * MIB)) as cupy:
        cuda.init()
        yield cupy


def _array(cupy, mib):
    return cupy.zeros(int(mib * MIB), np.uint8)


def _tensor(cupy, mib, index=0):
    with cuda.device(index):
        return wrap(_array(cupy, mib), Device("cuda", index))


def test_numbers_before_cuda_is_used():
    with fake_cupy.installed(fake_cupy.make()):
        assert cuda.memory_stats() == {} and cuda.memory_allocated() == 0
        assert cuda.max_memory_allocated() == cuda.memory_reserved() == 0
        cuda.reset_peak_memory_stats()
        cuda.empty_cache()
        cuda.ipc_collect()
        assert "not been used" in cuda.memory_summary()
        assert not cuda.is_initialized()


def test_numbers(cupy):
    x = _array(cupy, 1)
    assert cuda.memory_allocated() == cuda.memory_reserved() == MIB
    del x
    assert cuda.memory_allocated() == 0 and cuda.max_memory_allocated() == MIB
    assert cuda.memory_reserved() == cuda.max_memory_reserved() == MIB
    assert cuda.memory_stats()["reserved_bytes.all.current"] == MIB
    cuda.empty_cache()
    assert cuda.memory_reserved() == 0 and cuda.max_memory_reserved() == MIB
    assert cupy.pinned.freed == 1
    assert cuda.mem_get_info() == (64 * MIB, 64 * MIB)
    assert cuda.memory_allocated(device=1) == 0


def test_odd_sizes_count_in_blocks_and_empty_arrays_not_at_all(cupy):
    one, none = cupy.zeros(1), cupy.zeros(0)
    assert cuda.memory_allocated() == cuda.max_memory_allocated() == 512
    del one, none
    assert cuda.max_memory_allocated() == 512


def test_peak_is_exact(cupy):
    rng, live, used, peak = np.random.default_rng(0), [], 0, 0
    for _ in range(500):
        if live and rng.random() < 0.5:
            used -= live.pop(rng.integers(len(live))).nbytes
        else:
            live.append(cupy.zeros(512 * int(rng.integers(1, 100)), np.uint8))
            used += live[-1].nbytes
        peak = max(peak, used)
    assert cuda.memory_allocated() == used and cuda.max_memory_allocated() == peak


def test_peak_is_kept_for_each_device(cupy):
    _tensor(cupy, 3, index=0), _tensor(cupy, 5, index=1)
    assert cuda.max_memory_allocated(0) == 3 * MIB
    assert cuda.max_memory_allocated("cuda:1") == 5 * MIB
    cuda.reset_peak_memory_stats(1)
    assert cuda.max_memory_allocated(0) == 3 * MIB and cuda.max_memory_allocated(1) == 0


def test_peak_starts_again(cupy):
    kept = _array(cupy, 8)
    _array(cupy, 16)
    assert cuda.max_memory_allocated() == 24 * MIB
    cuda.reset_peak_memory_stats()
    assert cuda.max_memory_allocated() == 8 * MIB
    _array(cupy, 4)
    assert cuda.max_memory_allocated() == 12 * MIB and kept.size


def test_peak_asks_the_pool_seldom(cupy):
    kept = [_array(cupy, 1) for _ in range(20)]
    del kept[1:]
    before = cupy.cuda.runtime.pool.looks
    for _ in range(190):
        _array(cupy, 0.1)
    assert cupy.cuda.runtime.pool.looks - before <= 2


def test_a_users_allocator_stays():
    with fake_cupy.installed(fake_cupy.make()) as cupy:
        cupy.cuda.set_allocator(sorted)
        cuda.init()
        assert cupy.cuda.get_allocator() is sorted


def test_limit(cupy):
    cuda.set_per_process_memory_fraction(0.5)
    with pytest.raises(cuda.OutOfMemoryError):
        _array(cupy, 40)
    cuda.set_per_process_memory_fraction(1.0)
    assert _array(cupy, 40).size
    with pytest.raises(ValueError, match="Invalid fraction value: 2"):
        cuda.set_per_process_memory_fraction(2)


def test_out_of_memory(cupy):
    small = [_tensor(cupy, 4) for _ in range(3)]
    large = _tensor(cupy, 30)
    view = wrap(large.array[:10], large.device)
    other = _tensor(cupy, 50, index=1)
    with pytest.raises(RuntimeError) as caught:
        _array(cupy, 40)
    error = caught.value
    assert type(error) is cuda.OutOfMemoryError
    assert (error.requested, error.used, error.total) == (40 * MIB, 42 * MIB, 64 * MIB)
    assert error.__context__ is None and error.__cause__ is None
    for part in (
        "CUDA out of memory. Tried to allocate 40.00 MiB. GPU 0 has a total capacity of 64.00 MiB "
        "of which 22.00 MiB is free",
        f"1 x ({30 * MIB},) torch.uint8: 30.00 MiB\n  3 x ({4 * MIB},) torch.uint8: 12.00 MiB",
        "gpunn.cuda.empty_cache()",
    ):
        assert part in str(error)
    assert str(50 * MIB) not in str(error) and "(10,)" not in str(error)
    assert small and view.numel() and other.numel()
    del caught, error, large, view
    cuda.set_device(0)
    assert _array(cupy, 40).size


def test_out_of_memory_leaves_the_objects_of_others_asleep(cupy):
    class Lazy:
        @property
        def __class__(self):
            raise RuntimeError("woken")

    lazy = Lazy()
    lazy.cycle = lazy
    with pytest.raises(cuda.OutOfMemoryError):
        _array(cupy, 100)


def test_garbage_and_ready_blocks_make_room(cupy):
    cycle = [_array(cupy, 40)]
    cycle.append(cycle)
    del cycle
    assert _array(cupy, 40).size


def _epoch(cupy):
    x = _array(cupy, 40)
    y = _array(cupy, 40)
    return x, y


def _notebook_cell(cupy, name):
    """What IPython does with a cell that fails: it keeps the traceback."""
    space = {"epoch": _epoch, "cupy": cupy, "kept": "still here"}
    try:
        exec("def cell():\n    held = epoch(cupy)\ncell()", space)
    except RuntimeError as error:
        return error, space


@pytest.mark.parametrize("name", ["last_value", "last_exc"])
def test_next_cell_works_after_out_of_memory(cupy, monkeypatch, name):
    error, space = _notebook_cell(cupy, name)
    monkeypatch.setattr(sys, name, error, raising=False)
    assert cuda.memory_allocated() == 40 * MIB
    x = _array(cupy, 50)
    assert x.size and space["kept"] == "still here"


def test_empty_cache_drops_what_a_failed_cell_keeps(cupy, monkeypatch):
    error, _ = _notebook_cell(cupy, "last_value")
    monkeypatch.setattr(sys, "last_value", error, raising=False)
    cuda.empty_cache()
    assert cuda.memory_allocated() == cuda.memory_reserved() == 0


def test_other_errors_keep_their_frames(cupy, monkeypatch):
    def fails():
        held = _array(cupy, 40)
        raise KeyError(held.size)

    with pytest.raises(KeyError) as caught:
        fails()
    monkeypatch.setattr(sys, "last_value", caught.value, raising=False)
    cuda.empty_cache()
    assert cuda.memory_allocated() == 40 * MIB


def test_retry_on_oom(cupy):
    calls = []

    def second_time(size):
        calls.append(size)
        if len(calls) == 1:
            raise fake_cupy.CUDARuntimeError(2)
        return "memory"

    assert memory.retry_on_oom(second_time, 7) == "memory" and calls == [7, 7]

    def other(size):
        raise fake_cupy.CUDARuntimeError(101)

    with pytest.raises(fake_cupy.CUDARuntimeError, match="invalid device"):
        memory.retry_on_oom(other, 7)


def test_summary(cupy):
    x = _tensor(cupy, 3)
    text = cuda.memory_summary()
    assert "cuda:0" in text and "3.00 MiB" in text and "of 64.00 MiB" in text
    assert f"1 x ({3 * MIB},) torch.uint8: 3.00 MiB" in text
    assert "torch.uint8" not in cuda.memory_summary(abbreviated=True) and x.numel()
    assert memory.human(5) == "5 bytes" and memory.human(3 << 30) == "3.00 GiB"


@pytest.mark.gpu
def test_on_a_gpu():
    import gpunn

    gc.collect()
    cuda.reset_peak_memory_stats()
    before = cuda.memory_allocated()
    x = gpunn.empty(1 << 20, device="cuda")
    assert cuda.memory_allocated() - before == 4 << 20
    del x
    assert cuda.memory_allocated() == before and cuda.max_memory_allocated() >= before + (4 << 20)
    cuda.empty_cache()
    _, total = cuda.mem_get_info()
    with pytest.raises(cuda.OutOfMemoryError, match="CUDA out of memory. Tried to allocate"):
        gpunn.empty(total, device="cuda")
    assert float(gpunn.ones(3, device="cuda").sum()) == 3
    assert "cuda:0" in cuda.memory_summary()
