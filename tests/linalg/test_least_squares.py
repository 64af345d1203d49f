"""The pseudo-inverse and least squares."""

import numpy as np
import pytest

import gpunn

rng = np.random.default_rng(0)
KINDS = ["real", "complex"]


def leaf(*shape, kind="real"):
    a = rng.normal(size=shape)
    a = a + 1j * rng.normal(size=shape) if kind == "complex" else a
    return gpunn.tensor(a, requires_grad=True)


def close(got, wanted, rtol=1e-9):
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=rtol, atol=1e-12)


def both_orders(f, *inputs):
    assert gpunn.autograd.gradcheck(f, inputs)
    assert gpunn.autograd.gradgradcheck(f, inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 3, 3)])
def test_pseudo_inverse(kind, shape):
    x = leaf(*shape, kind=kind)
    close(gpunn.linalg.pinv(x), np.linalg.pinv(x.detach().numpy()))
    both_orders(gpunn.linalg.pinv, x)


def test_pseudo_inverse_of_lower_rank():
    a, b = leaf(4, 2), leaf(5, 2)
    both_orders(lambda a, b: gpunn.linalg.pinv(a @ b.T), a, b)
    both_orders(lambda a: gpunn.linalg.pinv(a @ a.T, hermitian=True), a)
    d = gpunn.diag(gpunn.tensor([4.0, 1.0]))
    assert gpunn.linalg.pinv(d, atol=2.0).tolist() == [[0.25, 0], [0, 0]]
    assert gpunn.linalg.pinv(d, rtol=0.5).tolist() == [[0.25, 0], [0, 0]]
    assert gpunn.linalg.pinv(d, 0.5).tolist() == gpunn.pinverse(d, 0.5).tolist()
    assert gpunn.linalg.pinv(gpunn.zeros(3, 0)).shape == (0, 3)
    with pytest.raises(RuntimeError, match="expected a tensor with 2 or more dimensions"):
        gpunn.linalg.pinv(gpunn.ones(2))


@pytest.mark.parametrize("driver", [None, "gels", "gelsy", "gelsd", "gelss"])
def test_least_squares(driver):
    a, b = leaf(2, 5, 3), leaf(2, 5, 2)
    made = gpunn.linalg.lstsq(a, b, driver=driver)
    for i in range(2):
        x, residuals, rank, s = np.linalg.lstsq(a.detach().numpy()[i], b.detach().numpy()[i])
        close(made.solution[i], x)
        if driver in ("gels", "gelsd", "gelss"):
            close(made.residuals[i], residuals)
        if driver != "gels":
            assert made.rank[i].item() == rank
        if driver in ("gelsd", "gelss"):
            close(made.singular_values[i], s)
    sizes = [made.residuals.numel(), made.rank.numel(), made.singular_values.numel()]
    given = driver or "gelsy"
    assert sizes == [
        4 * (given != "gelsy"), 2 * (given != "gels"), 6 * (given in ("gelsd", "gelss")),
    ]  # fmt: skip
    both_orders(lambda a, b: gpunn.linalg.lstsq(a, b, driver=driver).solution, a, b)
    both_orders(lambda a, b: gpunn.linalg.lstsq(a, b, driver="gels").residuals, a, b)


def test_least_squares_of_vectors_and_low_rank():
    a, b = gpunn.ones(3, 2), gpunn.ones(3)
    made = gpunn.linalg.lstsq(a, b)
    np.testing.assert_allclose(made.solution.numpy(), [0.5, 0.5], rtol=1e-6)
    assert made.rank.item() == 1
    for args, message in (
        ((gpunn.ones(2), b), "input must have at least 2 dimensions"),
        ((a, gpunn.ones(4)), "should match"),
        ((a, b.double()), "same dtype"),
        ((a, b, None), "should be one of"),
    ):
        driver = "x" if len(args) == 3 else None
        with pytest.raises(RuntimeError, match=message):
            gpunn.linalg.lstsq(*args, driver=driver)
