"""Writing at indices that repeat."""

import numpy as np
import pytest

import gpunn


@pytest.fixture
def deterministic():
    gpunn.use_deterministic_algorithms(True)
    yield
    gpunn.use_deterministic_algorithms(False)


@pytest.mark.parametrize("key", [([3, 1, 3, 3, 0],), (slice(None), [2, 2, 0]), ([0, 0], [1, 1])])
def test_the_last_value_stays_on_a_gpu_where_results_must_repeat(
    emulated, deterministic, key
):
    start = np.zeros((4, 3))
    key = tuple(k if isinstance(k, slice) else np.array(k) for k in key)
    values = np.random.default_rng(0).normal(size=start[key].shape)
    wanted = start.copy()
    wanted[key] = values
    x = gpunn.tensor(start, device=emulated)
    there = tuple(k if isinstance(k, slice) else gpunn.tensor(k, device=emulated) for k in key)
    x[there] = gpunn.tensor(values, device=emulated)
    np.testing.assert_array_equal(x.cpu().numpy(), wanted)


def test_a_scatter_of_repeated_indices_repeats(emulated, deterministic):
    index = gpunn.tensor([[0, 0, 0], [1, 1, 0]])
    values = gpunn.arange(6.0).reshape(2, 3)
    wanted = gpunn.zeros(2, 3).scatter(1, index, values)
    x = gpunn.zeros(2, 3, device=emulated)
    made = x.scatter(1, index.to(emulated), values.to(emulated))
    assert made.tolist() == wanted.tolist()
