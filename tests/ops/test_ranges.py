"""Ranges, the identity, windows."""

import math

import numpy as np
import pytest

import gpunn


@pytest.mark.parametrize(
    "args, dtype, values",
    [
        ((3,), "int64", [0, 1, 2]), ((1, 3), "int64", [1, 2]), ((5, 0, -2), "int64", [5, 3, 1]),
        ((2.5,), "float32", [0, 1, 2]), ((1, 2.5, 0.5), "float32", [1, 1.5, 2]),
        ((0,), "int64", []), ((True,), "int64", [0]),
    ],
)  # fmt: skip
def test_arange(args, dtype, values):
    made = gpunn.arange(*args)
    assert made.dtype is getattr(gpunn, dtype) and made.tolist() == values


def test_arange_with_dtype():
    assert gpunn.arange(end=3).tolist() == gpunn.arange(gpunn.tensor(3)).tolist() == [0, 1, 2]
    assert gpunn.arange(start=1, end=3, dtype=gpunn.float16).dtype is gpunn.float16
    assert gpunn.arange(1.5, 4.5, 1, dtype=gpunn.int64).tolist() == [1, 2, 3]
    assert gpunn.arange(3, device="cpu:1", requires_grad=False).device.index == 1
    out = gpunn.empty(0)
    assert gpunn.arange(3, out=out) is out and out.tolist() == [0, 1, 2]
    big = gpunn.arange(2**60, 2**60 + 2)
    assert big.tolist() == [2**60, 2**60 + 1]


@pytest.mark.parametrize(
    "args, error, message",
    [
        ((0, 3, 0), RuntimeError, "step must be nonzero"),
        ((0, -3, 2), RuntimeError, "upper bound and lower bound inconsistent with step sign"),
        ((0, math.inf), RuntimeError, "unsupported range: 0 -> inf"),
        (("a",), TypeError, "must be Number, not str"),
        ((1j,), TypeError, "must be Number, not complex"),
    ],
)
def test_ranges_that_are_none(args, error, message):
    with pytest.raises(error, match=message):
        gpunn.arange(*args)
    with pytest.raises(ValueError, match="step must be nonzero"):
        gpunn.arange(1, 5, 0.5, dtype=gpunn.int64)


def test_range_includes_its_end():
    assert gpunn.range(0, 3).tolist() == [0, 1, 2, 3]
    assert gpunn.range(1, 2, 0.5, dtype=gpunn.float64).tolist() == [1, 1.5, 2]


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 6])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "complex64"])
def test_linspace(steps, dtype):
    made = gpunn.linspace(-1, 2.5, steps, dtype=getattr(gpunn, dtype))
    wanted = np.linspace(-1, 2.5, steps).astype(dtype)
    np.testing.assert_allclose(made.numpy(), wanted, rtol=1e-3 if dtype == "float16" else 1e-6)
    powers = gpunn.logspace(-1, 2.5, steps, base=2, dtype=getattr(gpunn, dtype))
    np.testing.assert_allclose(powers.numpy(), 2.0**wanted, rtol=2e-3)


def test_whole_points():
    assert gpunn.linspace(0, 10, 4, dtype=gpunn.int64).tolist() == [0, 3, 6, 10]
    assert gpunn.linspace(3, 10, 5, dtype=gpunn.int32).tolist() == [3, 4, 6, 8, 10]
    assert gpunn.logspace(0, 4, 5, dtype=gpunn.int64).tolist() == [1, 10, 100, 1000, 10000]
    assert gpunn.linspace(0, 1j, 3).dtype is gpunn.complex64
    assert gpunn.linspace(start=gpunn.tensor(0.0), end=1, steps=3).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("name", ["linspace", "logspace"])
def test_points_that_are_none(name):
    make = getattr(gpunn, name)
    for args, kwargs, error, message in (
        ((0, 1, -1), {}, RuntimeError, "number of steps must be non-negative"),
        ((0, 1), {}, TypeError, "received an invalid combination of arguments"),
        ((0, 1, 3.0), {}, TypeError, "steps must be int"),
        ((gpunn.ones(1), 1, 3), {}, RuntimeError, "only supports 0-dimensional start and end"),
        ((0, 1j, 3), {"dtype": gpunn.float32}, RuntimeError, "can't be safely cast"),
    ):
        with pytest.raises(error, match=message):
            make(*args, **kwargs)


def test_eye():
    assert gpunn.eye(2, 3, dtype=gpunn.int64).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert gpunn.eye(n=2, m=1, dtype=bool).tolist() == [[True], [False]]
    out = gpunn.ones(2, 2, dtype=gpunn.float64)
    assert gpunn.eye(2, out=out) is out and out.tolist() == [[1, 0], [0, 1]]
    for args, error, message in (
        ((-1,), RuntimeError, "n must be greater or equal to 0, got -1"),
        ((2, -3), RuntimeError, "m must be greater or equal to 0, got -3"),
        ((2.5,), TypeError, "argument 'n' must be int, not float"),
    ):
        with pytest.raises(error, match=message):
            gpunn.eye(*args)


@pytest.mark.parametrize(
    "name, reference",
    [
        ("hann_window", np.hanning), ("hamming_window", np.hamming),
        ("blackman_window", np.blackman), ("bartlett_window", np.bartlett),
        ("kaiser_window", lambda n: np.kaiser(n, 12.0)),
    ],
)  # fmt: skip
def test_windows(name, reference):
    make = getattr(gpunn, name)
    for n in (1, 2, 5, 8):
        symmetric = make(n, periodic=False, dtype=gpunn.float64)
        np.testing.assert_allclose(symmetric.numpy(), reference(n), atol=1e-12)
        if n > 1:
            np.testing.assert_allclose(make(n).numpy(), reference(n + 1)[:-1], atol=1e-6)
    assert make(0).shape == (0,) and make(3, requires_grad=True).requires_grad
    with pytest.raises(RuntimeError, match=f"{name} requires non-negative window_length, got wi"):
        make(-1)
    with pytest.raises(RuntimeError, match=f"{name} expects floating point dtypes"):
        make(3, dtype=gpunn.int64)
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        make(3, foo=1)
