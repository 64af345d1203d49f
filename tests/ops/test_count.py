"""unique, bincount and histograms."""

import numpy as np
import pytest
from both import refused, same

import gpunn

NAN = float("nan")
H = [1.0, 2.0, 2.0, 3.0, 2.5]


def test_unique():
    for f in (
        lambda T: T.unique(T.tensor([3, 1, 2, 3]), return_inverse=True, return_counts=True),
        lambda T: T.tensor([[2.0, 1.0], [1.0, 2.0]]).unique(return_inverse=True),
        lambda T: T.unique(T.tensor([[1, 2], [1, 2], [0, 1]]), dim=0, return_counts=True),
        lambda T: T.unique(T.tensor([[1, 1, 0], [2, 2, 1]]), dim=1, return_inverse=True),
        lambda T: T.unique(T.tensor([2.0, 1.0, 2.0]).bfloat16(), return_counts=True),
        lambda T: T.unique(T.tensor([True, False, True]), return_inverse=True),
        lambda T: T.unique(T.tensor(3), return_inverse=True), lambda T: T.unique(T.zeros(0)),
        lambda T: T.unique(T.zeros(0, 3), dim=0, return_inverse=True),
        lambda T: T.unique(T.tensor([3, 1]), sorted=False),
    ):  # fmt: skip
        same(f)
    values, counts = gpunn.unique(gpunn.tensor([NAN, 1.0, NAN]), return_counts=True)
    assert values.numel() == 3 and counts.tolist() == [1, 1, 1]  # NaN is equal to nothing


def test_unique_consecutive():
    for f in (
        lambda T: T.unique_consecutive(T.tensor([1, 1, 2, 1]), return_inverse=True,
                                       return_counts=True),
        lambda T: T.unique_consecutive(T.tensor([[1, 1], [1, 1], [2, 1]]), dim=0,
                                       return_inverse=True, return_counts=True),
        lambda T: T.tensor([[1, 1, 2], [3, 3, 3]]).unique_consecutive(dim=1, return_counts=True),
        lambda T: T.unique_consecutive(T.zeros(0), return_inverse=True, return_counts=True),
        lambda T: T.unique_consecutive(T.tensor(5), return_inverse=True, return_counts=True),
        lambda T: T.unique_consecutive(T.zeros(0, 2), dim=0, return_inverse=True),
    ):  # fmt: skip
        same(f)


def test_bincount():
    for f in (
        lambda T: T.bincount(T.tensor([0, 2, 2])), lambda T: T.tensor([1]).bincount(minlength=4),
        lambda T: T.bincount(T.tensor([0, 2, 2]), T.tensor([0.5, 1.0, 2.0])),
        lambda T: T.bincount(T.tensor([1, 1]), T.tensor([2, 3])),
        lambda T: T.bincount(T.zeros(0).long(), minlength=2),
        lambda T: T.bincount(T.tensor([3], dtype=T.uint8)),
    ):  # fmt: skip
        same(f)


def test_histograms():
    for f in (
        lambda T: T.histc(T.tensor(H), 4), lambda T: T.histc(T.tensor(H), 4, 1.5, 2.5),
        lambda T: T.tensor(H).histc(bins=3, min=2, max=3), lambda T: T.histc(T.ones(3), 3),
        lambda T: T.histc(T.zeros(0), 3), lambda T: T.histc(T.tensor([1.0, NAN]), 2, 0, 2),
        lambda T: T.histc(T.tensor(H).half(), 2), lambda T: list(T.histogram(T.tensor(H), 4)),
        lambda T: list(T.histogram(T.tensor(H), T.tensor([0.0, 2.0, 3.0]))),
        lambda T: list(T.histogram(T.tensor(H), 2, range=(0.0, 4.0), weight=T.tensor(H),
                                   density=True)),
        lambda T: list(T.tensor(H).histogram(2)), lambda T: list(T.histogram(T.zeros(0), 2)),
        lambda T: list(T.histogram(T.ones(3), 2)),
        lambda T: T.histogramdd(T.tensor(H[:4]).reshape(2, 2), [2, 3])[0],
        lambda T: list(T.histogramdd(T.tensor(H[:4]).reshape(2, 2), 2, range=[0.0, 4.0, 1.0, 3.0],
                                     weight=T.tensor([1.0, 2.0]))[1]),
    ):  # fmt: skip
        same(f)
    shown = repr(gpunn.histogram(gpunn.tensor(H), 1))
    assert shown.startswith("torch.return_types.histogram(\nhist=tensor([5.])")
    hist, edges = gpunn.empty(0), gpunn.empty(0)
    gpunn.histogram(gpunn.tensor(H), 2, out=(hist, edges))
    np.testing.assert_allclose(edges, [1.0, 2.0, 3.0])
    assert hist.tolist() == [1.0, 4.0]


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: T.unique(T.zeros(3, 0), dim=0), "There are 0 sized dimensions"),
    (lambda T: T.unique(T.tensor([1j])), "not implemented for 'ComplexFloat'"),
    (lambda T: T.bincount(T.tensor([-1])), "only supports 1-d non-negative integral inputs"),
    (lambda T: T.bincount(T.tensor([[1]])), "only supports 1-d non-negative integral inputs"),
    (lambda T: T.bincount(T.tensor([1.0])), "not implemented for 'Float'"),
    (lambda T: T.bincount(T.tensor([1]), minlength=-1), "minlength should be >= 0"),
    (lambda T: T.bincount(T.tensor([1]), T.ones(2)), "have the same length as input"),
    (lambda T: T.histc(T.ones(1), 0), "bins must be > 0, but got 0"),
    (lambda T: T.histc(T.ones(1), 2, 3, 1), "max must be larger than min"),
    (lambda T: T.histc(T.tensor([NAN]), 2), "is not finite"),
    (lambda T: T.histc(T.ones(1).int(), 2), "not implemented for 'Int'"),
    (lambda T: T.histogram(T.ones(2), 2, range=(4.0, 0.0)), "min should not exceed max"),
    (lambda T: T.histogram(T.ones(2), 2, weight=T.ones(3)), "should have the same shape as the in"),
    (lambda T: T.histogram(T.ones(2), T.ones(2, 2)), "bins tensor should have one dimension"),
    (lambda T: T.histogram(T.ones(2), T.ones(2).double()), "should have the same dtype"),
    (lambda T: T.histogramdd(T.ones(3, 2), [2]), "size of bins must be equal to the innermost"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)
