"""Memory that nothing was written to, and what cannot repeat, under deterministic algorithms."""

import pytest

import gpunn
from gpunn.utils import deterministic


@pytest.fixture
def asked():
    gpunn.use_deterministic_algorithms(True)
    yield
    gpunn.use_deterministic_algorithms(False)
    deterministic.fill_uninitialized_memory = True


MAKERS = [
    lambda d: gpunn.empty(3, dtype=d), lambda d: gpunn.empty_like(gpunn.zeros(3, dtype=d)),
    lambda d: gpunn.zeros(1, dtype=d).new_empty(3),
    lambda d: gpunn.empty_strided((3,), (1,), dtype=d),
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_new_memory_is_filled(asked, make):
    for dtype in (gpunn.float32, gpunn.bfloat16, gpunn.complex64):
        assert make(dtype).isnan().all()
    assert make(gpunn.int16).tolist() == [32767] * 3
    assert make(gpunn.bool).tolist() == [True] * 3


def test_new_memory_is_left_alone_where_that_is_asked(asked, monkeypatch):
    deterministic.fill_uninitialized_memory = False
    filled = []
    monkeypatch.setattr(deterministic.np, "iinfo", lambda d: filled.append(d))
    gpunn.empty(3, dtype=gpunn.int32)
    assert not filled


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "logcumsumexp"])
def test_running_sums_of_floats_on_a_gpu_raise_or_warn(emulated, asked, name):
    x = gpunn.ones(3, device=emulated)
    f = getattr(gpunn, name)
    words = f"{name}.* does not have a deterministic implementation"
    with pytest.raises(RuntimeError, match=words + r"[\s\S]*warn_only=True"):
        f(x, 0)
    gpunn.use_deterministic_algorithms(True, warn_only=True)
    with pytest.warns(UserWarning, match=words):
        f(x, 0)
    if name != "logcumsumexp":
        f(x.long(), 0)  # integers add up to the same in any order
    gpunn.use_deterministic_algorithms(True)
    f(x.cpu(), 0)


def test_weighted_counts_repeat_on_a_gpu(emulated, asked):
    x, w = gpunn.tensor([0, 2, 2, 5]), gpunn.tensor([0.5, 1.0, 2.0, 3.0])
    made = gpunn.bincount(x.to(emulated), w.to(emulated), minlength=8)
    assert made.tolist() == gpunn.bincount(x, w, minlength=8).tolist()
