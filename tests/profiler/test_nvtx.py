"""Ranges given to NVTX are not kept. See test_base.py for emit_nvtx."""

import types

import gpunn
from gpunn.profiler.nvtx import NvtxRecorder


def test_each_range_is_pushed_and_popped_and_forgotten():
    told = []
    recorder = NvtxRecorder()
    recorder.nvtx = types.SimpleNamespace(RangePush=told.append, RangePop=lambda: told.append(None))
    observe = recorder.operation(gpunn.add, "aten::add")
    assert observe((gpunn.ones(2), 1), {}).tolist() == [2, 2]
    assert told == ["aten::add", None] and recorder.ranges == []
    assert recorder.local.current is None
