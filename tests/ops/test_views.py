"""Views: shapes, shared memory, and in-place changes that reach through them."""

import numpy as np
import pytest
from check import check

import gpunn

x = np.arange(24.0).reshape(2, 3, 4)
CASES = [
    (lambda t: t.reshape(4, -1), lambda a: a.reshape(4, -1)),
    (lambda t: t.permute(2, 0, 1), lambda a: a.transpose(2, 0, 1)),
    (lambda t: t.transpose(0, -1), lambda a: a.swapaxes(0, -1)),
    (lambda t: t[:, :1].expand(2, 5, 4), lambda a: np.broadcast_to(a[:, :1], (2, 5, 4))),
    (lambda t: t[:, :1].squeeze(1), lambda a: a[:, 0]),
    (lambda t: t.unsqueeze(-1), lambda a: a[..., None]),
    (lambda t: t[0].t(), lambda a: a[0].T),
    (lambda t: t.mT, lambda a: a.swapaxes(1, 2)),
]


@pytest.mark.parametrize("f, reference", CASES)
def test_values_and_gradients(f, reference):
    check(f, [x], reference)


@pytest.mark.parametrize("f, reference", CASES)
def test_memory_is_shared(f, reference):
    t = gpunn.tensor(x)
    f(t).data.mul_(0) if f is not CASES[3][0] else t[:, :1].mul_(0)
    assert (f(t) == 0).all()


def test_view_needs_memory_that_fits():
    t = gpunn.tensor(x)
    assert t.view(-1).shape == (24,) and t.view(gpunn.int64).dtype is gpunn.int64
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        t.permute(2, 0, 1).view(-1)
    assert t.permute(2, 0, 1).reshape(-1)[1].item() == 4


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda t: t.reshape(5, -1), RuntimeError, "shape .* is invalid for input of size 24"),
        (lambda t: t.reshape(-1, -1), RuntimeError, "only one dimension can be inferred"),
        (lambda t: t.permute(0, 1), RuntimeError, "number of dimensions"),
        (lambda t: t.permute(0, 1, 1), RuntimeError, "duplicate dims"),
        (lambda t: t.expand(2, 5, 4), RuntimeError, "must match the existing size"),
        (lambda t: t.transpose(0, 3), IndexError, "Dimension out of range"),
        (lambda t: t.t(), RuntimeError, "<= 2 dimensions"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call(gpunn.tensor(x))


def gradient(change):
    """The gradient of a sum of squares after an in-place change of x * 1."""
    leaf = gpunn.tensor(x, requires_grad=True)
    y = leaf * 1
    change(y)
    (y * gpunn.tensor(x)).sum().backward()
    return leaf.grad.numpy()


def test_in_place_through_views_changes_the_gradient():
    assert (gradient(lambda y: y[0].zero_())[0] == 0).all()
    np.testing.assert_array_equal(gradient(lambda y: y[:, 1].mul_(3))[:, 1], 3 * x[:, 1])
    np.testing.assert_array_equal(gradient(lambda y: y.permute(2, 0, 1)[1].mul_(2))[..., 1],
                                  2 * x[..., 1])  # fmt: skip
    np.testing.assert_array_equal(gradient(lambda y: y.view(-1)[::2].mul_(5)).ravel()[::2],
                                  5 * x.ravel()[::2])  # fmt: skip


def test_a_view_made_before_sees_the_change():
    leaf = gpunn.ones(3, requires_grad=True)
    base = gpunn.zeros(3)
    part = base[1:]
    base.add_(leaf)
    assert part.requires_grad
    part.sum().backward()
    assert leaf.grad.tolist() == [0, 1, 1]


def test_views_of_leaves_are_protected():
    leaf = gpunn.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="view of a leaf Variable"):
        leaf[0].mul_(2)
    with gpunn.no_grad():
        leaf[0].mul_(2)
    assert leaf.tolist() == [2, 1, 1]


def test_a_saved_array_changed_through_a_view_is_noticed():
    leaf = gpunn.ones(3, requires_grad=True)
    y = leaf * 2
    z = (y * y).sum()
    y[0].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()
