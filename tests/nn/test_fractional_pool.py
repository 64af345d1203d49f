"""Fractional max pooling: PyTorch's windows for the same samples and the same seed."""

import numpy as np
import pytest
from both import refused, same
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)
CASES = [(2, (2, 3, 9, 8), 2, (4, 5)), (2, (3, 7, 7), (3, 1), 1), (3, (1, 2, 6, 7, 5), 2, 3),
         (3, (2, 6, 6, 6), (2, 3, 1), (4, 1, 5))]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_like_pytorch(case, dtype):
    dims, shape, kernel, out = case
    x = rng.permutation(np.prod(shape)).reshape(shape).astype(np.float32)

    def program(T):
        leaf = T.from_numpy(x.copy()).to(getattr(T, dtype)).requires_grad_()
        T.manual_seed(3)
        y, places = getattr(T.nn.functional, f"fractional_max_pool{dims}d")(
            leaf, kernel, output_size=out, return_indices=True
        )
        return [y, places, T.autograd.grad(y.sum(), leaf)[0], T.rand(2)]

    same(program)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case):
    dims, shape, kernel, out = case
    f = (F.fractional_max_pool2d, F.fractional_max_pool3d)[dims - 2]
    x = rng.permutation(np.prod(shape)).reshape(shape) / 7.0
    samples = rng.random((1 if len(shape) == dims + 1 else shape[0], shape[-dims - 1], dims))
    samples = np.round(samples * 16) / 16  # the same in all dtypes

    def pooled(x):
        return f(x, kernel, out, _random_samples=gpunn.from_numpy(samples).to(x.dtype))

    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = getattr(torch.nn.functional, f"fractional_max_pool{dims}d")
    check(pooled, [x], lambda x: theirs(
        torch.from_numpy(x.copy()), kernel, out, _random_samples=torch.from_numpy(samples)
    ).numpy(), dtypes=("float64", "float32"))  # fmt: skip


def test_nan_and_an_empty_batch():
    nan = float("nan")
    same(lambda T: list(T.nn.functional.fractional_max_pool2d(
        T.tensor([[[1.0, nan, 3.0, nan]] * 4]), 3, 1, return_indices=True)))  # fmt: skip
    assert F.fractional_max_pool2d(gpunn.ones(1, 4, 4), 2, 3).shape == (1, 3, 3)
    assert F.fractional_max_pool3d(gpunn.ones(0, 2, 4, 4, 4), 2, 2).shape == (0, 2, 2, 2, 2)
    assert F.fractional_max_pool2d(gpunn.ones(1, 4, 4), 2, 0).shape == (1, 0, 0)


def test_output_ratio():
    same(lambda T: T.nn.functional.fractional_max_pool2d(
        T.ones(2, 9, 7), 2, output_ratio=(0.5, 0.3)))  # fmt: skip


@pytest.mark.parametrize(
    "dims, options, words",
    [
        (2, {}, "requires specifying either an output_size or an output_ratio"),
        (2, {"output_size": 5}, "pool height 2 too large relative to input height 4"),
        (3, {"output_size": (1, 4, 1)}, "pool height 2 too large relative to input height 4"),
        (3, {"output_size": 3}, "pool time 2 too large"),
        (2, {"output_ratio": (0.5,) * 3}, "single Int or tuple of Ints"),
        (2, {"output_size": (2, 2, 2)}, "output_size must either be a single Int or tuple"),
        (3, {"output_size": (2, 2)}, "tuple of three Ints"),
    ],
)
def test_errors_are_pytorchs(dims, options, words):
    refused(lambda T: getattr(T.nn.functional, f"fractional_max_pool{dims}d")(
        T.ones(2, *(4,) * dims), 2, **options), words)  # fmt: skip


@pytest.mark.parametrize(
    "shape, words",
    [
        ((1, 2, 3), r"size\(2\) equals to 2; got 3"), ((1, 2, 2, 1), "have 3 dimensions, got 4"),
        ((1, 2, 2), r"size\(0\) no less"), ((2, 1, 2), r"size\(1\) equals to input channel size"),
    ],
)  # fmt: skip
def test_samples_must_fit(shape, words):
    batch = 2 if "no less" in words or shape[0] == 2 else 1
    refused(lambda T: T.nn.functional.fractional_max_pool2d(
        T.ones(batch, 2, 4, 4), 2, 2, _random_samples=T.rand(shape)), words)  # fmt: skip


def test_modules():
    samples = gpunn.rand(1, 2, 2)
    pool = nn.FractionalMaxPool2d(2, output_ratio=(0.5, 0.5), _random_samples=samples)
    x = gpunn.randn(1, 2, 8, 8)
    assert gpunn.equal(pool(x), F.fractional_max_pool2d(x, 2, 4, _random_samples=samples))
    assert list(pool.state_dict()) == ["_random_samples"] and pool.kernel_size == (2, 2)
    values, places = nn.FractionalMaxPool3d(2, 3, return_indices=True)(gpunn.ones(1, 7, 7, 7))
    assert values.shape == places.shape == (1, 3, 3, 3)
    for words, make in (
        ("either an output size, or a pooling ratio", lambda T: T.nn.FractionalMaxPool2d(2)),
        ("only one of output_size", lambda T: T.nn.FractionalMaxPool2d(2, 2, 0.5)),
        (r"must be between 0 and 1 \(got 1.5\)",
         lambda T: T.nn.FractionalMaxPool3d(2, output_ratio=1.5)),
        ("kernel_size must be greater than 0, but got 0", lambda T: T.nn.FractionalMaxPool3d(0, 2)),
    ):  # fmt: skip
        refused(make, words)
