"""Times of modules, forward and backward."""

import pytest

import gpunn
from gpunn import nn
from gpunn.profiler import profile


def test_modules_of_a_model():
    model = nn.Sequential(nn.Linear(8, 16), nn.Sequential(nn.ReLU(), nn.Linear(16, 4)))
    x = gpunn.ones(3, 8)
    with profile(with_modules=True, profile_memory=True) as prof:
        for _ in range(2):
            model(x).sum().backward()
    times = {m.path: m for m in prof.module_averages()}
    assert list(times) == [
        "Sequential", "Sequential.0", "Sequential.1", "Sequential.1.0", "Sequential.1.1"
    ]  # fmt: skip
    assert [m.kind for m in times.values()] == [
        "Sequential", "Linear", "Sequential", "ReLU", "Linear"
    ]  # fmt: skip
    assert all(m.count == 2 and m.forward > 0 and m.backward > 0 for m in times.values())
    inner = times["Sequential.1"]
    assert inner.backward == pytest.approx(
        times["Sequential.1.0"].backward + times["Sequential.1.1"].backward
    )
    assert inner.forward > times["Sequential.1.0"].forward + times["Sequential.1.1"].forward
    assert times["Sequential.0"].cpu_memory_usage == 2 * 3 * 16 * 4
    backward = [e for e in prof.events() if e.scope == 1 and e.cpu_parent is None and e.module]
    assert times["Sequential"].backward == pytest.approx(sum(e.cpu_time_total for e in backward))


def test_the_table():
    with profile(with_modules=True, profile_memory=True) as prof:
        nn.Sequential(nn.Linear(2, 2), nn.Tanh())(gpunn.ones(1, 2)).sum().backward()
    modules = prof.module_averages()
    lines = str(modules).splitlines()
    assert lines[1].split() == ["Module", "Class", "Forward", "Backward", "CPU", "Mem", "#", "of",
                                "Calls"]  # fmt: skip
    assert [line.split()[0] for line in lines[3:6]] == ["Sequential", "Sequential.0",
                                                        "Sequential.1"]  # fmt: skip
    assert len({len(line) for line in lines}) == 1
    assert len(modules.table(row_limit=1).splitlines()) == 5
    most = modules.table(sort_by="forward").splitlines()[3]
    assert most.split()[0] == "Sequential"
    assert modules._repr_html_().startswith("<pre")
    assert "Sequential.0 (Linear)" in repr(modules)


def test_two_models_are_told_apart_by_their_classes():
    with profile(with_modules=True) as prof:
        nn.MSELoss()(nn.Linear(2, 2)(gpunn.ones(1, 2)), gpunn.ones(1, 2)).backward()
    assert [m.path for m in prof.module_averages()] == ["Linear", "MSELoss"]
