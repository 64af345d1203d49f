"""The tree of events that is made of what was noted."""

import gpunn
from gpunn.profiler import profile
from gpunn.profiler.events import events_of
from gpunn.profiler.recorder import Recorder


def noted(*calls):
    """Events of nested (name, calls inside) pairs."""
    recorder = Recorder()

    def run(calls):
        for name, inside in calls:
            r = recorder.begin(name)
            run(inside)
            recorder.end(r)

    recorder.started = 0
    run(calls)
    return events_of([recorder])


def shape(events):
    return [(e.name, e.cpu_parent.name if e.cpu_parent else None) for e in events]


def test_a_call_that_only_calls_its_own_name_is_one():
    found = noted(("a", [("a", [("a", [("b", [])])])]))
    assert shape(found) == [("a", None), ("b", "a")]


def test_others_of_the_same_name_stay():
    assert shape(noted(("a", [("a", []), ("a", [])]))) == [("a", None), ("a", "a"), ("a", "a")]
    assert shape(noted(("a", [("b", [("a", [])])]))) == [("a", None), ("b", "a"), ("a", "b")]


def test_times_are_those_outside_of_children():
    outer, inner = noted(("outer", [("inner", [])]))
    assert outer.time_range.start <= inner.time_range.start
    assert inner.time_range.end <= outer.time_range.end
    assert outer.self_cpu_time_total + inner.cpu_time_total == outer.cpu_time_total


def test_broadcasting_belongs_to_the_module_of_its_operation():
    class Add(gpunn.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = gpunn.nn.Parameter(gpunn.ones(3))

        def forward(self, x):
            return x + self.bias

    with profile(with_modules=True, with_stack=True) as prof:
        Add()(gpunn.ones(2, 3)).sum().backward()
    found = {e.name: e for e in prof.events() if e.scope == 1}
    names = [name for name in found if not name.startswith("autograd::")]
    assert names == ["SumBackward0", "AddBackward0", "ExpandBackward0",
                     "torch::autograd::AccumulateGrad"]  # fmt: skip
    assert [found[name].module for name in names] == [None, "Add", "Add", "Add"]
    assert found["AddBackward0"].stack[0].endswith(": forward")


def test_several_recorders_follow_each_other():
    one, two = Recorder(), Recorder()
    for recorder in (one, two):
        recorder.start()
        gpunn.ones(1)
        recorder.stop()
    first, second = events_of([one, two])
    assert (first.id, second.id) == (0, 1) and first.time_range.end < second.time_range.start
