"""maximum, minimum, where, clamp, heaviside and nan_to_num against NumPy."""

import math

import numpy as np
import pytest
from check import check

import gpunn

rng = np.random.default_rng(0)
A, B = rng.normal(size=(3, 4)), rng.normal(size=(4,))
nan = math.nan


@pytest.mark.parametrize("name", ["maximum", "minimum", "fmax", "fmin"])
def test_the_larger_and_the_smaller(name):
    f, reference = getattr(gpunn, name), getattr(np, name)
    check(f, [A, B], reference)
    x, y = gpunn.tensor([1.0, nan, nan]), gpunn.tensor([nan, 2.0, nan])
    np.testing.assert_array_equal(f(x, y).numpy(), reference(x.numpy(), y.numpy()))
    assert f(gpunn.tensor([1, 4]), 2).tolist() == reference([1, 4], 2).tolist()


def test_equal_elements_share_the_gradient_of_maximum():
    x, y = (gpunn.ones(2, requires_grad=True) for _ in range(2))
    gpunn.maximum(x, y).sum().backward()
    assert x.grad.tolist() == [0.5, 0.5] == y.grad.tolist()
    x.grad = y.grad = None
    gpunn.fmax(x, y).sum().backward()
    assert x.grad.tolist() == [1, 1] and y.grad.tolist() == [0, 0]


def test_where():
    mask = gpunn.from_numpy(rng.random((3, 1)) > 0.5)
    check(lambda a, b: gpunn.where(mask, a, b), [A, B], lambda a, b: np.where(mask.numpy(), a, b))
    check(lambda a: a.where(mask, 2.5), [A], lambda a: np.where(mask.numpy(), a, 2.5))
    flags = gpunn.tensor([True, False])
    assert gpunn.where(flags, 1, 2).dtype is gpunn.int64
    assert gpunn.where(flags, 1.0, 2).dtype is gpunn.float32
    assert gpunn.where(flags, gpunn.ones(2).half(), 0.0).dtype is gpunn.float16
    assert gpunn.where(flags, gpunn.ones(2), gpunn.ones(2).double()).dtype is gpunn.float64
    assert [i.tolist() for i in gpunn.where(flags)] == [[0]]
    out = gpunn.zeros(2)
    assert gpunn.where(flags, gpunn.ones(2), gpunn.zeros(2), out=out) is out
    with pytest.raises(RuntimeError, match="expected condition to be a boolean tensor, but got"):
        gpunn.where(gpunn.ones(2), 1, 2)
    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        gpunn.where(flags, gpunn.ones(3), gpunn.ones(3))


def test_a_branch_not_taken_gives_no_nan():
    x = gpunn.tensor([0.0, 4.0], requires_grad=True)
    gpunn.where(x > 0, x.sqrt(), 0.0).sum().backward()
    assert x.grad[1].item() == 0.25


@pytest.mark.parametrize("bounds", [(-0.5, 0.5), (None, 0.2), (0, None), (0.5, -0.5)])
def test_clamp(bounds):
    wanted = {"a_min": bounds[0], "a_max": bounds[1]}
    check(lambda a: a.clamp(*bounds), [A], lambda a: np.clip(a, **wanted), rtol=2e-2)
    tensors = [None if b is None else gpunn.full((4,), float(b), dtype=gpunn.float64)
               for b in bounds]  # fmt: skip
    x = gpunn.from_numpy(A)
    np.testing.assert_array_equal(x.clamp(*tensors).numpy(), np.clip(A, **wanted))


def test_bounds_that_are_tensors_have_gradients():
    check(lambda x, a, b: gpunn.clamp(x, a - 1, b.abs()), [A, B, B + 0.3],
          lambda x, a, b: np.clip(x, a - 1, abs(b)), dtypes=("float64",))  # fmt: skip
    check(lambda x, a: gpunn.clamp(x, max=a), [A, B], np.minimum)
    check(lambda x, a: gpunn.clamp_min(x, a), [A, B], np.maximum)
    x = gpunn.ones(1, requires_grad=True)
    gpunn.clamp(x, gpunn.ones(1), gpunn.ones(1)).sum().backward()
    assert x.grad.item() == 1  # at a bound the element is inside


def test_clamp_promotes_and_refuses():
    i = gpunn.tensor([1, 5])
    assert i.clamp(max=2).dtype is gpunn.int64 and i.clamp(max=2.5).tolist() == [1, 2.5]
    assert gpunn.clip(i, 2, 3).tolist() == [2, 3] and i.clone().clamp_max_(3).tolist() == [1, 3]
    with pytest.raises(RuntimeError, match="At least one of 'min' or 'max' must not be None"):
        i.clamp()
    with pytest.raises(RuntimeError, match="clamp is not supported for complex"):
        gpunn.tensor([1j]).clamp(0)
    assert gpunn.tensor([nan, 1.0]).clamp(0, 2).isnan().tolist() == [True, False]


def test_heaviside():
    x, y = gpunn.tensor([-1.0, 0.0, 2.0]), gpunn.tensor(0.5)
    assert gpunn.heaviside(x, values=y).tolist() == [0, 0.5, 1]
    with pytest.raises(RuntimeError, match="different dtypes"):
        gpunn.heaviside(x, y.double())


def test_nan_to_num():
    x = gpunn.tensor([nan, math.inf, -math.inf, 1.0], requires_grad=True)
    y = gpunn.nan_to_num(x, 2.0, posinf=3.0)
    assert y.tolist() == [2, 3, gpunn.finfo(gpunn.float32).min, 1]
    y.sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 1]
    assert gpunn.nan_to_num(gpunn.tensor([nan + 1j, 2])).tolist() == [1j, 2]
    assert gpunn.nan_to_num(gpunn.tensor([1])).tolist() == [1]
    half = gpunn.tensor([math.inf], dtype=gpunn.bfloat16)
    assert half.nan_to_num_().item() == gpunn.finfo(gpunn.bfloat16).max
