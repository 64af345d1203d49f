"""Counts of floating point operations, PyTorch's where it has one."""

import pytest

import gpunn
from gpunn.nn import functional as F
from gpunn.profiler import profile


def total(run, T=gpunn):
    cpu = [T.profiler.ProfilerActivity.CPU]
    with T.profiler.profile(activities=cpu, with_flops=True) as prof:
        run()
    return sum(e.flops for e in prof.events())


@pytest.mark.parametrize(
    ("count", "run"),
    [
        (2 * 3 * 4 * 5, lambda: F.linear(gpunn.ones(3, 4), gpunn.ones(5, 4), gpunn.ones(5))),
        (2 * 3 * 4 * 5, lambda: gpunn.ones(3, 4) @ gpunn.ones(4, 5)),
        (2 * 3 * 4 * 5, lambda: gpunn.addmm(gpunn.ones(5), gpunn.ones(3, 4), gpunn.ones(4, 5))),
        (2 * 2 * 3 * 4 * 5, lambda: gpunn.bmm(gpunn.ones(2, 3, 4), gpunn.ones(2, 4, 5))),
        (2 * 4 * 4 * 2 * 9, lambda: F.conv2d(gpunn.ones(1, 1, 6, 6), gpunn.ones(2, 1, 3, 3))),
        (2 * 36 * 2 * 9,
         lambda: F.conv_transpose2d(gpunn.ones(1, 1, 6, 6), weight=gpunn.ones(1, 2, 3, 3))),
        (6, lambda: gpunn.ones(2, 3) + 1), (6, lambda: gpunn.ones(2, 3) * gpunn.ones(3)),
        (0, lambda: gpunn.ones(3).exp()),
    ],
)  # fmt: skip
def test_counts(count, run):
    assert total(run) == count


def test_pytorch_counts_the_same():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def run(T):
        x = T.ones(3, 4)
        y = T.nn.functional.linear(x, T.ones(5, 4), T.ones(5)) * 2
        T.nn.functional.conv2d(T.ones(2, 3, 7, 7), T.ones(4, 3, 3, 3))
        return y + y

    assert total(lambda: run(torch), torch) == total(lambda: run(gpunn))


def test_an_operation_made_of_others_is_counted_once():
    with profile(with_flops=True) as prof:
        F.linear(gpunn.ones(4), gpunn.ones(4))  # by way of matmul
    assert sum(e.flops for e in prof.events()) == 8
