"""LDL factors."""

import numpy as np
import pytest

import gpunn

rng = np.random.default_rng(0)


def matrix(n, kind, hermitian, zeros=False):
    a = rng.normal(size=(2, n, n))
    a = a + 1j * rng.normal(size=a.shape) if kind == "complex" else a
    if zeros:  # blocks of two rows are needed
        a[:, np.arange(n), np.arange(n)] = 0
    turned = a.swapaxes(-1, -2)
    return a + (turned.conj() if hermitian else turned)


def unpack(packed, pivots, hermitian):
    """P L, and D: the exchanges applied from the last to the first."""
    n = len(pivots)
    product, d = np.eye(n, dtype=packed.dtype), np.zeros_like(packed)
    steps, k = [], 0
    while k < n:
        step = 1 if pivots[k] > 0 else 2
        steps.append((k, step))
        k += step
    for k, step in reversed(steps):
        lower = np.eye(n, dtype=packed.dtype)
        lower[k + step :, k : k + step] = packed[k + step :, k : k + step]
        product = lower @ product
        q, p = k + step - 1, abs(pivots[k]) - 1
        product[[q, p]] = product[[p, q]]
        d[k, k] = packed[k, k]
        if step == 2:
            low = packed[k + 1, k]
            d[k + 1, k + 1], d[k + 1, k] = packed[k + 1, k + 1], low
            d[k, k + 1] = low.conj() if hermitian else low
    return product, d


KINDS = [("real", False), ("complex", False), ("complex", True)]


@pytest.mark.parametrize("kind, hermitian", KINDS)
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_factors_and_solutions(n, kind, hermitian, zeros):
    if n == 1 and zeros:
        n = 4
    a = matrix(n, kind, hermitian, zeros)
    packed, pivots = gpunn.linalg.ldl_factor(gpunn.tensor(a), hermitian=hermitian)
    assert pivots.dtype is gpunn.int32 and (not zeros or (pivots < 0).any())
    for i in range(2):
        product, d = unpack(packed[i].numpy(), pivots[i].tolist(), hermitian)
        turned = product.conj().T if hermitian else product.T
        np.testing.assert_allclose(product @ d @ turned, a[i], atol=1e-12)
    b = rng.normal(size=(n, 3)).astype(a.dtype)
    x = gpunn.linalg.ldl_solve(packed, pivots, gpunn.tensor(b), hermitian=hermitian)
    np.testing.assert_allclose(a @ x.numpy(), np.broadcast_to(b, (2, n, 3)), atol=1e-9)


def test_only_the_lower_triangle_is_read():
    a = gpunn.tensor([[2.0, 100.0], [1.0, 3.0]])
    assert gpunn.linalg.ldl_factor(a).LD.tolist() == [[2, 0], [0.5, 2.5]]


def test_singular_and_wrong_matrices():
    made = gpunn.linalg.ldl_factor_ex(gpunn.stack([gpunn.eye(2), gpunn.zeros(2, 2)]))
    assert made.info.tolist() == [0, 1]
    with pytest.raises(RuntimeError, match=r"D\[1\] is zero"):
        gpunn.linalg.ldl_factor(gpunn.zeros(2, 2))
    with pytest.raises(RuntimeError, match="they are 2 by 3 matrices"):
        gpunn.linalg.ldl_factor(gpunn.ones(2, 3))
    factors = gpunn.linalg.ldl_factor(gpunn.eye(2))
    with pytest.raises(RuntimeError, match="each A matrix is 2 by 2 but each b matrix is 3 by 1"):
        gpunn.linalg.ldl_solve(*factors, gpunn.ones(3, 1))
    x = gpunn.eye(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="derivative for aten::linalg_ldl_factor_ex is not impl"):
        gpunn.linalg.ldl_factor(x).LD.sum().backward()
    assert gpunn.linalg.ldl_factor(gpunn.zeros(0, 0)).pivots.shape == (0,)
