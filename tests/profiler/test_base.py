"""The profile of a block under its older name, record_function and emit_nvtx."""

import contextlib
import types

import pytest
from emulated import device as emulate

import gpunn
from gpunn.autograd import profiler
from gpunn.cuda.detect import load
from gpunn.profiler.recorder import ACTIVE


def test_a_block():
    with profiler.profile(record_shapes=True) as prof:
        gpunn.ones(2, 3).exp()
    assert [e.name for e in prof.function_events] == ["aten::ones", "aten::exp"]
    assert prof.key_averages(group_by_input_shape=True)[1].input_shapes == [[2, 3]]
    assert prof.total_average().count == 2 and prof.total_average().key == "Total"
    assert prof.self_cpu_time_total == pytest.approx(
        sum(e.cpu_time_total for e in prof.function_events)
    )
    assert str(prof) == prof.table() and "aten::exp" in prof.table(sort_by="cpu_time_total")
    assert repr(prof).startswith("[<FunctionEvent id=0 name=aten::ones")


def test_not_enabled_it_does_nothing():
    with profiler.profile(enabled=False) as prof:
        assert not ACTIVE
    with pytest.raises(RuntimeError, match="didn't finish"):
        _ = prof.function_events
    assert str(prof) == repr(prof) == "<unfinished torch.autograd.profile>"


def test_it_is_entered_once():
    prof = profiler.profile()
    with prof, pytest.raises(RuntimeError, match="not reentrant"):
        prof.__enter__()
    assert not ACTIVE


def test_ranges_cost_nothing_outside_of_a_profile_and_decorate():
    @profiler.record_function("decorated")
    def double(x):
        """Twice."""
        return x * 2

    assert double(2) == 4 and double.__doc__ == "Twice." and double.__name__ == "double"
    with profiler.profile() as prof:
        double(gpunn.ones(1))
        double(1)
    names = [e.name for e in prof.function_events]
    assert names == ["aten::ones", "decorated", "aten::mul", "decorated"]


def test_a_range_calls_itself():
    block = profiler.record_function("block", "note")
    with profiler.profile() as prof, block, block:
        pass
    outer, inner = [e for e in noted(prof)]
    assert inner.cpu_parent is outer and outer.concrete_inputs == ["note"]


def noted(prof):
    from gpunn.profiler.events import _event

    made = [_event(prof._recorders[0], r, 0, i) for i, r in enumerate(prof._recorders[0].ranges)]
    made[0].append_cpu_child(made[1])
    return made


def test_use_device():
    with pytest.raises(RuntimeError, match="use_device"):
        profiler.profile(use_device="xpu")
    if not gpunn.cuda.is_available():
        with pytest.warns(UserWarning, match="CUDA is not available"):
            assert profiler.profile(use_cuda=True).use_device is None


@contextlib.contextmanager
def nvtx():
    """The emulated GPU with a stand-in for CuPy's NVTX, and what it was told."""
    told = []
    with emulate():
        load().cuda.nvtx = types.SimpleNamespace(
            RangePush=told.append, RangePop=lambda: told.append("pop")
        )
        yield told


def test_nvtx_ranges():
    with nvtx() as told:
        x = gpunn.ones(2, device="cuda", requires_grad=True)
        with profiler.emit_nvtx(record_shapes=True):
            (x * 2).sum().backward()
            with profiler.record_function("mine"), pytest.raises(RuntimeError, match="already"):
                profiler.profile().__enter__()
    assert told[:4] == ["aten::mul, sizes = [[2], []]", "pop", "aten::sum, sizes = [[2]]", "pop"]
    assert "MulBackward0" in told and told[-2:] == ["mine", "pop"]
    assert told.count("pop") * 2 == len(told) and not ACTIVE


def test_nvtx_not_enabled_or_entered_twice():
    with profiler.emit_nvtx(enabled=False):
        assert not ACTIVE
    with nvtx():
        marks = profiler.emit_nvtx()
        with marks, pytest.raises(RuntimeError, match="not reentrant"):
            marks.__enter__()
    assert not ACTIVE


def test_paths_of_scripts():
    assert gpunn.autograd.profiler.record_function is gpunn.profiler.record_function
    assert gpunn.autograd.profiler_util.EventList is profiler.EventList
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gpunn.autograd.nothing
