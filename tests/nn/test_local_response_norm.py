"""Local response normalisation as PyTorch's, and its gradients."""

import numpy as np
import pytest
from both import refused, same
from check import check

import gpunn
import gpunn.nn.functional as F

rng = np.random.default_rng(0)


def normal(x, size, alpha, beta, k):
    square = np.pad(x**2, [(0, 0), (size // 2, (size - 1) // 2)] + [(0, 0)] * (x.ndim - 2))
    total = sum(square[:, i : i + x.shape[1]] for i in range(size))
    return x / (k + alpha / size * total) ** beta


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4, 3, 2), (1, 3, 2, 2, 2)])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_values_and_gradients(shape, size):
    check(
        lambda x: F.local_response_norm(x, size, 0.5, 0.7, 1.5), [rng.normal(size=shape)],
        lambda x: normal(x, size, 0.5, 0.7, 1.5), rtol=3e-2,
    )  # fmt: skip


@pytest.mark.parametrize("channels", [1, 2, 5, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_cross_map(channels, size):
    x = rng.normal(size=(2, channels, 2, 2))
    module = gpunn.nn.CrossMapLRN2d(size, 0.5, 0.7, 1.5)
    values = x.tolist()
    same(lambda T: T.nn.CrossMapLRN2d(size, 0.5, 0.7, 1.5)(T.tensor(values)))
    check(module, [x], lambda x: module(gpunn.from_numpy(x)).numpy(), dtypes=("float64",))


def test_modules():
    for call in ("LocalResponseNorm(3)", "LocalResponseNorm(2, alpha=1e-3, k=2)",
                 "CrossMapLRN2d(5)"):  # fmt: skip
        same(lambda T, call=call: repr(eval(f"T.nn.{call}")))
    same(lambda T: T.nn.LocalResponseNorm(3, 1.0)(T.arange(12.0).reshape(1, 4, 3)))


def test_integers_and_empty():
    same(lambda T: T.nn.functional.local_response_norm(T.arange(24).reshape(2, 4, 3), 3, 0.5))
    same(lambda T: T.nn.functional.local_response_norm(T.ones(2, 0, 4), 2))


def test_errors():
    refused(lambda T: T.nn.functional.local_response_norm(T.ones(2, 3), 2),
            r"Expected 3D or higher dimensionality *input \(got 2 dimensions\)")  # fmt: skip
    refused(lambda T: T.nn.functional.local_response_norm(T.ones(2, 3, 4), 0),
            "kernel size should be greater than zero, but got kH: 0 kW: 1")  # fmt: skip
    refused(lambda T: T.nn.CrossMapLRN2d(2)(T.ones(2, 3, 4)), "Expected input to be 4D, got 3D")
