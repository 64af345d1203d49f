"""Rearranging, repeating, rolling; windows; other memory; common shapes."""

import numpy as np
import pytest
from both import refused, same
from check import check, check_grad

import gpunn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4))
ROTATIONS = [(lambda x, k=k: x.rot90(k, (0, 2)), lambda x, k=k: np.rot90(x, k, (0, 2)))
             for k in (-1, 0, 1, 2, 3)]  # fmt: skip


@pytest.mark.parametrize(("f", "reference"), [
    (lambda x: x.flatten(), lambda x: x.reshape(-1)),
    (lambda x: x.flatten(1), lambda x: x.reshape(2, 12)),
    (lambda x: x.flatten(0, 1), lambda x: x.reshape(6, 4)),
    (lambda x: x.ravel(), lambda x: x.reshape(-1)),
    (lambda x: x.mT.ravel(), lambda x: x.swapaxes(1, 2).reshape(-1)),
    (lambda x: x.unflatten(2, (2, -1)), lambda x: x.reshape(2, 3, 2, 2)),
    (lambda x: x.movedim(0, 2), lambda x: np.moveaxis(x, 0, 2)),
    (lambda x: gpunn.moveaxis(x, (0, 1), (-1, 0)), lambda x: np.moveaxis(x, (0, 1), (-1, 0))),
    (lambda x: x.tile((2, 1)), lambda x: np.tile(x, (2, 1))),
    (lambda x: gpunn.tile(x, dims=(2, 1, 1, 2)), lambda x: np.tile(x, (2, 1, 1, 2))),
    (lambda x: x.repeat(1, 2, 3), lambda x: np.tile(x, (1, 2, 3))),
    (lambda x: x.repeat((0, 1, 1)), lambda x: np.tile(x, (0, 1, 1))),
    (lambda x: x.repeat_interleave(2), lambda x: np.repeat(x, 2)),
    (lambda x: x.repeat_interleave(gpunn.tensor([2, 0, 1]), 1),
     lambda x: np.repeat(x, [2, 0, 1], 1)),
    (lambda x: x.repeat_interleave(gpunn.tensor([3]), dim=-1), lambda x: np.repeat(x, 3, -1)),
    (lambda x: x.flip(0, 2), lambda x: np.flip(x, (0, 2))),
    (lambda x: gpunn.flip(x, dims=[-1]), lambda x: np.flip(x, -1)),
    (lambda x: x.fliplr(), np.fliplr), (lambda x: x.flipud(), np.flipud),
    (lambda x: x.roll(5), lambda x: np.roll(x, 5)),
    (lambda x: x.roll((1, -2), (0, 2)), lambda x: np.roll(x, (1, -2), (0, 2))),
    (lambda x: x.roll((1, 1), (1, 1)), lambda x: np.roll(x, (1, 1), (1, 1))),
    *ROTATIONS,
    (lambda x: x.unfold(2, 2, 1), lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, 2)),
    (lambda x: x.unfold(1, 2, 2), lambda x: np.moveaxis(x[:, None, :2], 2, 3)),
    (lambda x: x.sum_to_size(3, 1), lambda x: x.sum((0, 2))[:, None]),
    (lambda x: gpunn.broadcast_tensors(x, x[0, :1])[1],
     lambda x: np.broadcast_to(x[0, 0], x.shape)),
])  # fmt: skip
def test_values_and_gradients(f, reference):
    check(f, [X], reference)


def test_scalars_and_empty():
    for f in (
        lambda T: T.tensor(1).flatten(), lambda T: T.tensor(1).ravel(),
        lambda T: T.tensor(1).flip(0), lambda T: T.tensor(1).roll(3),
        lambda T: T.zeros(0, 2).roll(1, 0), lambda T: T.tensor(1).repeat(3),
        lambda T: T.tensor(1).tile(2), lambda T: T.tensor(1).movedim(0, 0),
        lambda T: T.zeros(0, 3).flatten(),
        lambda T: T.tensor(1).unfold(0, 1, 1), lambda T: T.tensor(1).repeat_interleave(3),
        lambda T: T.repeat_interleave(T.tensor([1, 0, 2])), lambda T: T.zeros(0).repeat(2),
        lambda T: T.ones(2, 3).sum_to_size(()), lambda T: T.ones(3).unfold(0, 3, 5),
    ):  # fmt: skip
        same(f)
    x = gpunn.ones(3)
    assert x.flatten() is x and gpunn.ones(2, 3).t().ravel()._base is not None


def test_windows_are_views_and_their_gradients_add_up():
    x = gpunn.arange(5.0).requires_grad_()
    windows = x.unfold(0, 3, 1)
    assert np.shares_memory(windows.array, x.array)
    windows.sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 3.0, 2.0, 1.0]
    check_grad(lambda x: x.transpose(0, 2).unfold(0, 2, 1), [X])


def test_resize():
    def program(T):
        x = T.arange(6.0).reshape(2, 3)
        row = x[1]
        made = [x.resize_(3) is x, x.resize_((2, 2)) is x, row.resize_(2) is row]
        longer = T.arange(3.0).resize_(2, 3)
        fewer = T.ones(2, 2).resize_as_(T.zeros(3))
        return made, x, row, longer.flatten()[:3], fewer, longer.shape == (2, 3)

    same(program)
    refused(lambda T: T.ones(2, requires_grad=True).resize_(3), "cannot resize variables that requ")


def test_broadcast_shapes():
    for shapes in (((2, 1), (3,)), ((), (1,)), (2, (3, 1)), ([1, 2], (2, 2)), ((0,), (1,)), ()):
        same(lambda T, s=shapes: tuple(T.broadcast_shapes(*s)))


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: T.ones(2, 3).flatten(1, 0), "start_dim cannot come after end_dim"),
    (lambda T: T.ones(2, 3).unflatten(0, (5, -1)), "don't multiply up to the size of dim 0"),
    (lambda T: T.ones(2, 3).unflatten(0, ()), "sizes must be non-empty"),
    (lambda T: T.ones(2, 3).movedim((0, 0), (0, 1)), "repeated dim in `source`"),
    (lambda T: T.ones(2, 3).movedim((0, 1), (0,)), "should contain the same number of dims"),
    (lambda T: T.ones(2, 3).repeat(2), "Number of dimensions of repeat dims can not be smaller"),
    (lambda T: T.ones(2, 3).repeat(-2, 1), "negative dimension -4"),
    (lambda T: T.ones(2).repeat_interleave(T.tensor([1.0, 2.0])), "not implemented for 'Float'"),
    (lambda T: T.ones(2).repeat_interleave(T.tensor([1, 2, 3])), "must have the same size as inp"),
    (lambda T: T.ones(2).repeat_interleave(T.tensor([1, -2])), "repeats can not be negative"),
    (lambda T: T.ones(2).repeat_interleave(-1), "Repeats must be non-negative"),
    (lambda T: T.ones(2).repeat_interleave(2, output_size=3), "output_size|does not match"),
    (lambda T: T.ones(2).flip(0, 0), "appears multiple times in the list of dims"),
    (lambda T: T.ones(2).flip(), "missing 1 required positional"),
    (lambda T: T.ones(2).fliplr(), "Input must be >= 2-d"),
    (lambda T: T.tensor(1.0).flipud(), "Input must be >= 1-d"),
    (lambda T: T.ones(2).roll((1, 2), 0), "shifts and dimensions must align"),
    (lambda T: T.ones(2).roll(()), "`shifts` required"),
    (lambda T: T.tensor(1.0).roll(1, 0), "tensor has no dimensions"),
    (lambda T: T.ones(2, 2).rot90(1, (0, 0)), "expected rotation dims to be different"),
    (lambda T: T.ones(2, 2).rot90(1, (0,)), "expected total rotation dims == 2"),
    (lambda T: T.ones(2).rot90(), "expected total dims >= 2"),
    (lambda T: T.ones(3).unfold(0, 5, 1), "maximum size for tensor at dimension 0 is 3 but size"),
    (lambda T: T.ones(3).unfold(0, 2, 0), "step is 0 but must be > 0"),
    (lambda T: T.ones(3).unfold(0, -1, 1), "size is -1 but must be >= 0"),
    (lambda T: T.broadcast_shapes((2,), (3,)), "Attempting to broadcast a dimension of length 3"),
    (lambda T: T.broadcast_shapes((-2,)), "negative"),
    (lambda T: T.broadcast_tensors(T.ones(2), T.ones(3)), "must match the size of tensor b"),
    (lambda T: T.ones(2, 3).sum_to_size(2, 2), "is not expandable to size"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)


def test_the_gradient_of_repeat_in_half_precision_is_rounded_once():
    x = gpunn.ones(2, dtype=gpunn.bfloat16, requires_grad=True)
    x.repeat(1000).sum().backward()
    assert x.grad.tolist() == [1000, 1000]
