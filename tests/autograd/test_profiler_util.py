"""Events, averages and lists of them."""

import pytest

import gpunn
from gpunn.autograd.profiler_util import (
    EventList,
    FunctionEvent,
    FunctionEventAvg,
    Interval,
    _format_memory,
    _format_time,
)
from gpunn.profiler import profile


def event(number=0, name="aten::a", start=0.0, end=10.0, **more):
    return FunctionEvent(number, name, 1, start, end, **more)


def test_an_event_and_its_children():
    outer = event(end=10.0, cpu_memory_usage=30, device_memory_usage=8)
    inner = event(1, "aten::b", 2.0, 5.0, cpu_memory_usage=10, device_memory_usage=8)
    outer.append_cpu_child(inner)
    inner.append_kernel("k", 0, 4.0)
    outer.append_kernel("k", 0, 1.0)
    assert (outer.cpu_time_total, outer.self_cpu_time_total) == (10, 7)
    assert (outer.device_time_total, outer.self_device_time_total) == (5, 1)
    assert (outer.self_cpu_memory_usage, outer.self_device_memory_usage) == (20, 0)
    assert inner.cpu_parent is outer and outer.key == "aten::a" and outer.cpu_time == 10
    assert outer.cpu_time_str == "10.000us" and "cpu_children=[1]" in repr(outer)


def test_older_names_warn():
    with pytest.warns(FutureWarning, match="`cuda_time_total` is deprecated"):
        assert event().cuda_time_total == 0


def test_averages():
    total = FunctionEventAvg()
    assert total.cpu_time == 0
    total += event(end=10.0, flops=3)
    total.add(event(1, end=20.0, flops=4))
    assert (total.count, total.cpu_time_total, total.cpu_time, total.flops) == (2, 30, 15, 7)
    assert repr(total).startswith("<FunctionEventAvg key=aten::a self_cpu_time=30.000us")


def test_grouping():
    events = EventList([
        event(0, input_shapes=[[2]], stack=["f", "g"], module="M.a"),
        event(1, input_shapes=[[3]], stack=["f", "h"], module="M.a"),
        event(2, input_shapes=[[3]], stack=["e", "h"], module="M.b"),
    ])  # fmt: skip
    for options, count in (
        ({}, 1), (dict(group_by_input_shapes=True), 2), (dict(group_by_stack_n=1), 2),
        (dict(group_by_stack_n=2), 3), (dict(group_by_module=True), 2),
    ):  # fmt: skip
        assert len(events.key_averages(**options)) == count
    assert events.key_averages()[0].input_shapes == "" and events.key_averages()[0].stack == []
    assert events.key_averages(group_by_stack_n=1)[0].stack == ["f"]
    assert events.total_average().count == 3 and events.self_cpu_time_total == 30


def test_stacks_for_flame_graphs(tmp_path):
    events = EventList([
        event(0, end=5.0, stack=["b.py(2): inner", "a.py(1): <module>"]),
        event(1, end=0.4, stack=["too short"]), event(2),
    ])  # fmt: skip
    events.export_stacks(tmp_path / "s.txt", "self_cpu_time_total")
    assert (tmp_path / "s.txt").read_text() == "a.py(1):_<module>;b.py(2):_inner 5\n"
    with pytest.raises(ValueError, match="metric should be one of"):
        events.export_stacks(tmp_path / "s.txt", "count")


def test_formats():
    assert [_format_time(t) for t in (0.5, 1500.0, 2.5e6)] == ["0.500us", "1.500ms", "2.500s"]
    assert [_format_memory(n) for n in (0, -1023, 1024, -(3 << 20), 5 << 30)] == [
        "0 B", "-1023 B", "1.00 KB", "-3.00 MB", "5.00 GB"
    ]  # fmt: skip
    assert Interval(1, 3).elapsed_us() == 2


def test_html_is_escaped():
    with profile() as prof, gpunn.profiler.record_function("<b>"):
        pass
    assert "&lt;b&gt;" in prof.events()._repr_html_()
