"""Memory: what operations return and keep, counted once, and again when it is freed."""

import numpy as np
import pytest

import gpunn
from gpunn import nn
from gpunn.profiler import profile, record_function


def by_name(run):
    with profile(profile_memory=True) as prof:
        kept = run()
    return {e.name: e for e in prof.events()}, kept


def test_results():
    found, _ = by_name(lambda: gpunn.ones(10, 10).exp())
    assert found["aten::ones"].cpu_memory_usage == found["aten::exp"].cpu_memory_usage == 400


def test_views_and_in_place_changes_allocate_nothing():
    x = gpunn.ones(4, 4)
    found, _ = by_name(lambda: (x.view(16), x[0], x.T, x.add_(1), x.detach(), x.contiguous()))
    assert len(found) == 6 and all(e.cpu_memory_usage == 0 for e in found.values())


def test_what_is_freed_inside_counts_against():
    def run():
        with record_function("block"):
            y = gpunn.ones(100)
            z = y.exp()
            del y
        return z

    found, _ = by_name(run)
    assert found["block"].cpu_memory_usage == 400 and found["block"].self_cpu_memory_usage == -400


def test_arrays_of_users_and_from_before_are_not_counted():
    array, x = np.ones(100), gpunn.ones(100)

    def run():
        nonlocal x
        with record_function("block"):
            shared = gpunn.from_numpy(array).add_(1)
            x = None
        return shared

    found, _ = by_name(run)
    assert found["block"].cpu_memory_usage == 0


def test_what_is_kept_for_backward_is_counted():
    x = gpunn.ones(100, requires_grad=True)
    found, y = by_name(lambda: nn.functional.dropout(x, 0.5))
    masks = [a for a in y.grad_fn.saved if isinstance(a, np.ndarray)]
    assert found["aten::dropout"].cpu_memory_usage == y.nbytes + sum(m.nbytes for m in masks)


def test_gradients():
    x = gpunn.ones(100, requires_grad=True)
    found, _ = by_name(lambda: (x * x).sum().backward())
    assert found["MulBackward0"].cpu_memory_usage >= x.grad.nbytes
    assert found["torch::autograd::AccumulateGrad"].cpu_memory_usage in (0, x.grad.nbytes)


def test_totals_are_pytorchs():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    usage = []
    for T in (torch, gpunn):
        x, w, b = T.ones(8, 16), T.ones(32, 16), T.ones(32)
        cpu = [T.profiler.ProfilerActivity.CPU]
        with T.profiler.profile(activities=cpu, profile_memory=True) as prof:
            y = T.nn.functional.linear(x, w, b)
            z = T.relu(y)
            s = z.sum(0)
        rows = {a.key: a.cpu_memory_usage for a in prof.key_averages()}
        usage.append([rows[f"aten::{name}"] for name in ("linear", "relu", "sum")])
        del y, z, s
    assert usage[0] == usage[1] == [1024, 1024, 128]
