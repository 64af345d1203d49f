"""narrow, select, and splitting into views."""

import numpy as np
import pytest
from both import refused, same
from check import check_grad

import gpunn

X = np.arange(24.0).reshape(4, 6)


def whole(T):
    return T.arange(24.0).reshape(4, 6)


SPLITS = [
    lambda T, x: x.split(2), lambda T, x: x.split(4, 1), lambda T, x: x.split([1, 3]),
    lambda T, x: T.split(x, (2, 0, 4), dim=-1), lambda T, x: x.split_with_sizes([2, 2]),
    lambda T, x: x.chunk(3), lambda T, x: x.chunk(4, 1), lambda T, x: x.chunk(9),
    lambda T, x: x.unbind(), lambda T, x: x.unbind(-1), lambda T, x: x.tensor_split(3),
    lambda T, x: x.tensor_split(4, 1), lambda T, x: x.tensor_split((1, 1, 9), dim=1),
    lambda T, x: x.tensor_split(T.tensor([3, 1])), lambda T, x: x.tensor_split(T.tensor(2)),
    lambda T, x: x.hsplit(2), lambda T, x: x.vsplit([1]), lambda T, x: x[None].dsplit(3),
    lambda T, x: x[0].hsplit((2,)), lambda T, x: x.unsafe_split(3), lambda T, x: x.unsafe_chunk(3),
    lambda T, x: x.unsafe_split_with_sizes([3, 1]), lambda T, x: x[:0].split(2),
    lambda T, x: x[:0].chunk(2), lambda T, x: x[:0].unbind(),
]  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
def test_parts(split):
    x = gpunn.tensor(X)
    for part in split(gpunn, x):
        assert part._base is x and (not part.numel() or np.shares_memory(part.array, x.array))

    def program(T):
        x = whole(T).requires_grad_()
        parts = split(T, x * 1)
        total = sum((p * p).sum() * (i + 1) for i, p in enumerate(parts))
        if not parts:
            return parts
        total.backward()
        return *parts, x.grad

    same(program)
    check_grad(lambda x: sum(p.sum() * (i + 1) for i, p in enumerate(split(gpunn, x * x)))
               if split(gpunn, x) else x, [X / 10])  # fmt: skip


def test_a_part_that_is_not_used():
    def program(T):
        x = whole(T).requires_grad_()
        first, _, third, _ = x.unbind()
        (first * third).sum().backward()
        return x.grad

    same(program)
    x = gpunn.ones(4, requires_grad=True)
    _, second = (x * 1).split(2)
    second.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_narrow_and_select():
    for f in (
        lambda T: whole(T).narrow(1, 2, 3), lambda T: whole(T).narrow(0, -1, 1),
        lambda T: whole(T).narrow(0, T.tensor(1), 2), lambda T: whole(T).narrow(0, 4, 0),
        lambda T: T.narrow_copy(whole(T), 1, 2, 3), lambda T: whole(T).select(1, -1),
        lambda T: whole(T).select(0, T.tensor(2)),
    ):  # fmt: skip
        same(f)
    check_grad(lambda x: x.narrow(1, 2, 3) * x.select(1, 0)[:, None], [X / 10])


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: T.tensor(1.0).unbind(), "tensor has no dimensions"),
    (lambda T: T.tensor(1.0).split(1), "split expects at least a 1-dimensional tensor"),
    (lambda T: whole(T).split([1, 2]), "expects split_sizes to sum exactly to 4"),
    (lambda T: whole(T).split(-1), "split expects split_size be non-negative"),
    (lambda T: whole(T).split(0), "split_size can only be 0 if dimension size is 0"),
    (lambda T: whole(T).chunk(0), "chunk expects `chunks` to be greater than 0"),
    (lambda T: whole(T).narrow(0, 0, 5), r"start \(0\) \+ length \(5\) exceeds dimension size"),
    (lambda T: whole(T).narrow(0, 9, 1), "start out of range"),
    (lambda T: whole(T).narrow(0, 0, -1), "length must be non-negative"),
    (lambda T: whole(T).narrow(0, T.tensor([0]), 1), "start must be an 0-dim integral Tensor"),
    (lambda T: T.tensor(1.0).narrow(0, 0, 1), "cannot be applied to a 0-dim tensor"),
    (lambda T: whole(T).select(0, 5), "index 5 out of range for tensor of size"),
    (lambda T: T.tensor(1.0).select(0, 0), "cannot be applied to a 0-dim tensor"),
    (lambda T: whole(T).tensor_split(0), "number of sections must be larger than 0, got 0"),
    (lambda T: whole(T).hsplit(4), "is not divisible by the split_size 4"),
    (lambda T: T.arange(3).vsplit(3), "requires a tensor with at least 2 dimension"),
    (lambda T: whole(T).dsplit(3), "requires a tensor with at least 3 dimension"),
    (lambda T: whole(T).unbind(2), "Dimension out of range"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)
