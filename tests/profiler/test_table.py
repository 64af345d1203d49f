"""The table: PyTorch's columns, order and formats."""

import re

import pytest

import gpunn
from gpunn.autograd.profiler_util import EventList, FunctionEvent
from gpunn.profiler import profile, record_function

EVENTS = [
    dict(id=0, name="outer", start_us=0.0, end_us=2_500_000.0, cpu_memory_usage=3 << 20),
    dict(id=1, name="aten::a", start_us=1000.0, end_us=2500.0, cpu_memory_usage=2048,
         input_shapes=[[2, 3], []]),
    dict(id=2, name="aten::b", start_us=3000.0, end_us=3000.5, cpu_memory_usage=-12,
         input_shapes=[[4]]),
    dict(id=3, name="aten::a", start_us=3100.0, end_us=3200.0, input_shapes=[[2, 3], []]),
]  # fmt: skip


def events(cls=FunctionEvent, **more):
    made = [cls(thread=1, stack=[], **{**more, **e}) for e in EVENTS]
    for child in made[1:]:
        made[0].append_cpu_child(child)
        child.cpu_parent = made[0]
    return made


OPTIONS = [
    {}, dict(sort_by="self_cpu_time_total"), dict(sort_by="count", row_limit=2),
    dict(row_limit=-1), dict(row_limit=0), dict(max_name_column_width=8), dict(time_unit="us"),
    dict(max_shapes_column_width=10), dict(header="HEAD"), dict(top_level_events_only=True),
    dict(header="HEAD", top_level_events_only=True), dict(time_unit="s", sort_by="cpu_time"),
    dict(max_name_column_width=None),
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("memory", [False, True])
def test_the_text_is_pytorchs(options, grouped, memory):
    util = pytest.importorskip("torch.autograd.profiler_util", reason="parity with PyTorch")
    theirs = util.EventList(events(util.FunctionEvent, flops=0), profile_memory=memory)
    ours = EventList(events(), profile_memory=memory)
    if grouped:
        theirs._tree_built = True
        theirs, ours = theirs.key_averages(True), ours.key_averages(True)
    assert ours.table(**options) == theirs.table(**options)


def test_gpu_columns():
    found = events(use_device="cuda", device_memory_usage=1024)
    found[1].append_kernel("k", 0, 1500.0)
    found[2].append_kernel("k", 0, 500.0)
    text = EventList(found, use_device="cuda", profile_memory=True).table(sort_by="cuda_time_total")
    heading = re.split(r"\s{2,}", text.splitlines()[1].strip())
    assert heading == [
        "Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg", "Self CUDA",
        "Self CUDA %", "CUDA total", "CUDA time avg", "CPU Mem", "Self CPU Mem", "CUDA Mem",
        "Self CUDA Mem", "# of Calls", "Input Shapes",
    ]  # fmt: skip
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()[3:7]]
    assert rows[0][0] == "outer" and rows[0][6:10] == ["0.000us", "0.00%", "2.000ms", "2.000ms"]
    assert rows[1][0] == "aten::a" and rows[1][6:9] == ["1.500ms", "75.00%", "1.500ms"]
    assert text.splitlines()[-1] == "Self CUDA time total: 2.000ms"


def test_stacks_have_lines_of_their_own():
    found = events()
    for event in found[1:]:
        event.stack = ["inner.py(1): f", "outer.py(2): g", "main.py(3): <module>"]
    averages = EventList(found).key_averages(group_by_stack_n=2)
    lines = averages.table().splitlines()
    assert lines[1].rstrip().endswith("Source Location")
    at = next(i for i, line in enumerate(lines) if "aten::a" in line)
    assert lines[at].rstrip().endswith("inner.py(1): f")
    assert [line.strip() for line in lines[at + 1 : at + 3]] == ["outer.py(2): g", ""]
    narrow = averages.table(max_src_column_width=8).splitlines()
    assert narrow[at].rstrip().endswith("...1): f")


def test_modules_have_a_column():
    with profile(with_modules=True) as prof:
        gpunn.nn.Sequential(gpunn.nn.Linear(2, 2), gpunn.nn.Linear(2, 2))(gpunn.ones(1, 2))
    rows = prof.key_averages(group_by_module=True)
    linear = [(a.module, a.count) for a in rows if a.key == "aten::linear"]
    assert linear == [("Sequential.0", 1), ("Sequential.1", 1)]
    assert "Sequential.1" in rows.table() and "Module" in rows.table().splitlines()[1]


def test_flops_have_the_unit_of_the_smallest():
    with profile(with_flops=True) as prof:
        gpunn.ones(10, 100) @ gpunn.ones(100, 10)
    text = prof.key_averages().table()
    assert "Total KFLOPs" in text and "20.000" in text and "--" in text


def test_empty_and_wrong():
    assert EventList().table() == ""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        EventList(events()).table(sort_by="nothing")
    with pytest.raises(ValueError, match="time_unit"):
        EventList(events()).table(time_unit="h")


def test_steps_share_a_row():
    with profile() as prof:
        for i in range(3):
            with record_function(f"ProfilerStep#{i}"):
                pass
    assert [(a.key, a.count) for a in prof.key_averages()] == [("ProfilerStep*", 3)]
