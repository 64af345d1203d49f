"""Sums with products."""

import numpy as np
import pytest
from check import check

import gpunn

rng = np.random.default_rng(0)


def arrays(*shapes):
    return [np.asarray(rng.normal(size=s)) for s in shapes]


SUMS = {
    "addmm": ((5,), (3, 4), (4, 5), lambda a, b: a @ b),
    "addmv": ((3,), (3, 4), (4,), lambda a, b: a @ b),
    "addbmm": ((3, 5), (2, 3, 4), (2, 4, 5), lambda a, b: (a @ b).sum(0)),
    "baddbmm": ((3, 5), (2, 3, 4), (2, 4, 5), lambda a, b: a @ b),
    "addr": ((1,), (3,), (4,), np.outer),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("beta, alpha", [(1, 1), (0.5, -2.0), (0, 1)])
def test_sums_with_products(name, beta, alpha):
    x, a, b, product = SUMS[name]
    check(
        lambda x, a, b: getattr(gpunn, name)(x, a, b, beta=beta, alpha=alpha), arrays(x, a, b),
        lambda x, a, b: beta * x + alpha * product(a, b), rtol=3e-2,
    )  # fmt: skip


@pytest.mark.parametrize("name", SUMS)
def test_sums_with_products_in_place(name):
    _, a, b, product = SUMS[name]
    a, b = arrays(a, b)
    wanted = product(a, b)
    x = gpunn.ones(wanted.shape, dtype=gpunn.float64)
    leaf = gpunn.tensor(a, requires_grad=True)
    y = x * 1
    assert getattr(y, name + "_")(leaf, gpunn.tensor(b), beta=2) is y
    np.testing.assert_allclose(y.detach().numpy(), 2 + wanted)
    y.sum().backward()
    assert leaf.grad.shape == leaf.shape and leaf.grad.abs().sum() > 0


def test_a_nan_that_does_not_count():
    nan = gpunn.full((2,), float("nan"))
    eye = gpunn.eye(2)
    assert gpunn.addmm(nan, eye, eye, beta=0).tolist() == [[1, 0], [0, 1]]


def test_integers_take_whole_factors():
    one = gpunn.ones(2, 2, dtype=gpunn.int64)
    assert gpunn.addmm(one, one, one, alpha=1.9, beta=0.5).tolist() == [[2, 2], [2, 2]]
    with pytest.raises(RuntimeError, match="argument alpha must not be a floating point number"):
        gpunn.addr(one, one[0], one[0], alpha=0.5)
    true = gpunn.tensor([True, False])
    assert gpunn.addr(gpunn.zeros(2, 2).bool(), true, true).tolist() == [
        [True, False], [False, False],
    ]  # fmt: skip


def test_addbmm_grows_in_place():
    x = gpunn.ones(1)
    assert x.addbmm_(gpunn.ones(2, 2, 3), gpunn.ones(2, 3, 2)) is x
    assert x.tolist() == [[7, 7], [7, 7]]


@pytest.mark.parametrize(
    "name, shapes, message",
    [
        ("addmm", ((2,), (2, 3), (3, 3)), r"expanded size of the tensor \(3\) must match"),
        ("addmm", ((2, 2), (2, 3), (2, 3)), "shapes cannot be multiplied"),
        ("addmm", ((2, 2), (3,), (3, 2)), "mat1 must be a matrix, got 1-D tensor"),
        ("addmv", ((2,), (2, 3), (4,)), r"size mismatch, got input \(2\), mat \(2x3\), vec \(4\)"),
        ("addbmm", ((2, 2), (1, 2, 3), (2, 3, 2)), "same number of batches, got 1 and 2"),
        ("addbmm", ((2, 2), (1, 2, 3), (1, 4, 2)), r"for bmm \(2x3 and 4x2\)"),
        ("baddbmm", ((2, 2), (2, 3), (1, 4, 2)), "batch1 must be a 3D tensor"),
        ("addr", ((2, 2), (3, 3), (2,)), "addr: Expected 1-D argument vec1, but got 2-D"),
    ],
)
def test_sums_that_do_not_fit(name, shapes, message):
    with pytest.raises(RuntimeError, match=message):
        getattr(gpunn, name)(*(gpunn.ones(s) for s in shapes))


def test_sums_of_two_dtypes():
    for name, (x, a, b, _) in SUMS.items():
        if name != "addr":
            with pytest.raises(RuntimeError, match="same"):
                getattr(gpunn, name)(gpunn.ones(x).double(), gpunn.ones(a), gpunn.ones(b))


def test_half_precision_is_rounded_once():
    a = gpunn.full((1, 4096), 0.1, dtype=gpunn.float16)
    exact = float(np.float16(0.1)) ** 2 * 4096 + 1
    assert gpunn.addmm(gpunn.ones(1).half(), a, a.T).item() == np.float16(exact)
