"""Norms, distances and angles of vectors."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

x = np.random.default_rng(0).normal(size=(4, 5))


def test_normalize():
    check(F.normalize, [x], lambda x: x / np.linalg.norm(x, axis=1, keepdims=True), rtol=2e-2)
    check(lambda x: F.normalize(x, p=1, dim=0), [x], lambda x: x / abs(x).sum(0), rtol=2e-2)


def test_a_zero_vector_stays_zero():
    assert F.normalize(gpunn.zeros(1, 3)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, np.inf])
def test_distances_of_all_pairs(p):
    y = np.random.default_rng(1).normal(size=(2, 3, 5))
    check(
        lambda x, y: gpunn.cdist(x, y, p), [x, y],
        lambda x, y: np.linalg.norm(x[:, None] - y[:, None], ord=p, axis=-1), rtol=3e-2,
    )  # fmt: skip


def test_points_that_meet_have_distance_and_slope_zero():
    a = gpunn.ones(1, 2, requires_grad=True)
    gpunn.cdist(a, gpunn.ones(1, 2)).sum().backward()
    assert a.grad.tolist() == [[0, 0]]
    assert gpunn.cdist(gpunn.zeros(1, 3), gpunn.tensor([[0.0, 2.0, 3.0]]), p=0).item() == 2
    with pytest.raises(RuntimeError, match="same number of columns. X1: 2 X2: 3"):
        gpunn.cdist(gpunn.zeros(1, 2), gpunn.zeros(1, 3))


def test_many_points_take_the_product_of_matrices():
    a, b = (np.random.default_rng(i).normal(size=(2, 30 - i, 3)) for i in range(2))
    for x, y in ((a, b), (a, b[0])):
        check(
            gpunn.cdist, [x, y],
            lambda x, y: np.linalg.norm(x[:, :, None] - y[..., None, :, :], axis=-1),
            dtypes=["float64", "float32"], rtol=1e-3,
        )  # fmt: skip
    ours, theirs = (gpunn.tensor(v, requires_grad=True) for v in (a[0], a[0].copy()))
    gpunn.cdist(ours, theirs).sum().backward()
    assert ours.grad.isfinite().all()
    with pytest.raises(ValueError, match="fast is not a valid value for compute_mode"):
        gpunn.cdist(ours, theirs, compute_mode="fast")


def test_modes_of_computing_agree():
    a, b = gpunn.tensor(x), gpunn.tensor(x[::-1].copy())
    exact = gpunn.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    product = gpunn.cdist(a, b, compute_mode="use_mm_for_euclid_dist")
    assert gpunn.allclose(exact, product, atol=1e-6) and not gpunn.equal(exact, product)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, np.inf])
def test_distances_within_a_set(p):
    first, second = np.triu_indices(4, 1)
    if p == 0.5:
        reference = lambda x: (abs(x[first] - x[second]) ** 0.5).sum(1) ** 2  # noqa: E731
    else:
        reference = lambda x: np.linalg.norm(x[first] - x[second], ord=p, axis=1)  # noqa: E731
    check(lambda x: F.pdist(x, p), [x], reference, dtypes=["float64", "float32"], rtol=1e-4)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.pdist(gpunn.ones(3)), RuntimeError, "only supports 2D tensors, got: 1D"),
        (lambda: F.pdist(gpunn.ones(3, 2).long()), RuntimeError, "floating-point dtypes"),
        (lambda: F.pdist(gpunn.ones(3, 2).half()), NotImplementedError, "for 'Half'"),
        (lambda: F.pdist(gpunn.ones(3, 2), -1), RuntimeError, "non-negative p"),
        (lambda: F.cosine_similarity(gpunn.ones(2).long(), gpunn.ones(2).long(), 0), RuntimeError,
         "yet common dtype is Long"),
        (lambda: F.cosine_similarity(gpunn.ones(2), gpunn.ones(2), (0,)), TypeError, "not tuple"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_sets_without_pairs_or_columns():
    assert F.pdist(gpunn.ones(1, 2)).shape == (0,)
    assert F.pdist(gpunn.ones(3, 0)).tolist() == [0, 0, 0]


def test_cosine():
    y = np.random.default_rng(1).normal(size=(4, 5))

    def cosine(x, y):
        return (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)

    check(F.cosine_similarity, [x, y], cosine, rtol=3e-2)
    check(nn.CosineSimilarity(dim=-1), [x, y[:1]], cosine, rtol=3e-2)
    zero = gpunn.zeros(1, 3, requires_grad=True)
    F.cosine_similarity(zero, gpunn.ones(1, 3)).backward()
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize("p", [1.0, 2.0, np.inf])
def test_distances_of_pairs(p):
    y = np.random.default_rng(1).normal(size=(4, 5))
    check(lambda x, y: F.pairwise_distance(x, y, p, 0.1, True), [x, y],
          lambda x, y: np.linalg.norm(x - y + 0.1, ord=p, axis=1, keepdims=True),
          rtol=4e-2)  # fmt: skip
    check(nn.PairwiseDistance(p), [x, y[0]],
          lambda x, y: np.linalg.norm(x - y, ord=p, axis=1), dtypes=["float32"])  # fmt: skip
