"""Views by strides, and in-place changes through views, against PyTorch's gradients."""

import numpy as np
import pytest
from both import packages, refused, same
from check import check_grad
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn
from gpunn.ops.strided import Place, add_place, overlapping, place_of, read_place

# --- places -------------------------------------------------------------------------------

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "steps", "expected"),
    [((2, 3), (3, 1), False), ((2, 3), (1, 1), True), ((2, 3), (1, 2), False), ((3,), (0,), True),
     ((1, 1), (0, 0), False), ((0, 3), (0, 0), False), ((2, 2, 2), (4, 1, 2), False),
     ((2, 2), (-2, 1), False), ((2, 3), (2, 1), True)],
)  # fmt: skip
def test_overlapping(shape, steps, expected):
    assert overlapping(shape, steps, 0) is expected
    offsets = (np.indices(shape) * np.reshape(steps, (-1,) + (1,) * len(shape))).sum(0)
    assert bool(len(np.unique(offsets)) < np.prod(shape)) is expected


@pytest.mark.parametrize("place", [
    Place((2, 2), (1, 2), 1), Place((3, 2), (1, 1), 0), Place((), (), 4), Place((0, 2), (2, 1), 0),
    Place((2, 3), (0, 1), 3),
])  # fmt: skip
@pytest.mark.parametrize("layout", ["contiguous", "turned", "expanded"])
def test_reading_and_adding_are_transposes(place, layout):
    x = {
        "contiguous": RNG.normal(size=(3, 4)), "turned": RNG.normal(size=(4, 3)).T,
        "expanded": np.broadcast_to(RNG.normal(size=4), (3, 4)),
    }[layout]  # fmt: skip
    origin = place_of(x)
    if layout == "expanded":
        place = place._replace(offset=0, steps=tuple(min(s, 1) for s in place.steps))
    g = RNG.normal(size=place.shape)
    there = (read_place(RNG.normal(size=x.shape) * 0 + x, place, origin) * g).sum()
    assert np.isclose(there, (x * add_place(g, place, origin)).sum())


def test_as_strided_gradients():
    check_grad(lambda x: gpunn.as_strided(x, (3, 2), (1, 1), 1), [RNG.normal(size=(2, 3))])
    check_grad(lambda x: x.t().as_strided((2, 2), (1, 3)), [RNG.normal(size=(2, 3))])
    check_grad(
        lambda x, s: gpunn.as_strided_scatter(x, s, (2, 2), (1, 2)),
        [RNG.normal(size=(2, 3)), RNG.normal(size=(2, 2))],
    )


def test_as_strided_of_views_counts_from_the_memory():
    same(lambda T: T.arange(12).reshape(3, 4)[1].as_strided((2, 2), (4, 1)))
    same(lambda T: T.arange(12).reshape(3, 4)[1].as_strided((2, 2), (4, 1), 0))
    same(lambda T: T.arange(12).reshape(3, 4).as_strided_((2, 2), (4, 1)).t())
    same(lambda T: T.zeros(0, 3).as_strided((2, 0), (1, 1)))


@pytest.mark.parametrize(("args", "match"), [
    (((2,), (-1,)), "Negative strides are not supported"),
    (((10,), (1,)), "are out of bounds for storage of size 24"),
    (((2, 2), (1,)), "mismatch in length of strides and shape"),
    (((2,), (1,), -1), "invalid storage offset -1"),
])  # fmt: skip
def test_as_strided_refuses(args, match):
    refused(lambda T: T.arange(6.0).as_strided(*args), match)


# --- writing through views ----------------------------------------------------------------


def leaf(T, *shape):
    count = int(np.prod(shape))
    values = [(7 * i % 11 - 5) / 4 for i in range(count)]
    return T.tensor(values, dtype=T.float64).reshape(shape).requires_grad_()


def weigh(T, *tensors):
    """A loss in which every element has a weight of its own."""
    total = 0
    for t in tensors:
        w = T.arange(1.0, t.numel() + 1, dtype=T.float64).reshape(t.shape)
        total = total + (t * w).sum()
    return total


def chain_of_views(T, x, y):
    x[1:].transpose(0, 1)[2].mul_(y[0, :1])


def view_before_and_after(T, x, y):
    before = x[0]
    x.mul_(2)
    before.add_(y[0])
    x[1].copy_(before)


def diagonal(T, x, y):
    x.diagonal(0, 1, 0).mul_(y[0, :2])


def through_a_turned_copy(T, x, y):
    turned = (x * 2).t().contiguous().t()  # a base that is not contiguous
    turned[0].mul_(y[1])
    x.add_(turned)


def column(T, x, y):
    x[:, 0] += y[:, 1]


def scalar(T, x, y):
    x[1, 2] = y[0, 0]


def constant(T, x, y):
    x[0].zero_()
    x[1, :2] = 3.0


def advanced(T, x, y):
    x[T.tensor([1, 0]), 1:] = y[:, :2] * 2


def same_row_twice(T, x, y):
    x.index_put_((T.tensor([0, 0]),), y, accumulate=True)


def masked(T, x, y):
    x[x > 0.3] = y[0, 0]


def masked_fill(T, x, y):
    x.t().masked_fill_(T.tensor([[True, False]]), y[0, 1])


def write_to_itself(T, x, y):
    x[0] = x[1].clone() * y[0]
    x[0] = x[0]


def expanded_source(T, x, y):
    x.copy_(y[0].expand(2, 3))


def reshaped(T, x, y):
    x[:, :2].reshape(2, 2, 1)[1] *= y.view(3, 2, 1)[0]


def unsqueezed(T, x, y):
    x.unsqueeze(1).squeeze()[0].sub_(y[0])


def of_another_shape_then_written(T, x, y):
    row = x[0]
    x.t_()
    x[0].mul_(y[0, :2])
    x.t_()
    assert row.requires_grad == (row.grad_fn is not None)
    row.mul_(y[1])


def write_out_of_order(T, x, y):
    a, b = x[0], x[:, 1]
    a.mul_(y[0])
    assert b.requires_grad == (b.grad_fn is not None)  # PyTorch finds its node when it is asked
    b.mul_(a[0].clone())
    a.add_(b[1])


def scattered(T, x, y):
    x.scatter_add_(1, T.tensor([[0, 0], [1, 2]]), y[:, :2])
    x[1].index_add_(0, T.tensor([2, 2]), y[0, :2])
    x.index_fill_(1, T.tensor([1]), y[1, 1].detach())


def unsafe_parts(T, x, y):
    first, _ = x.unsafe_split(1)
    first = x.tensor_split(2)[1]
    first.mul_(y[:1])


WRITES = [
    chain_of_views, view_before_and_after, diagonal, through_a_turned_copy, column, scalar,
    constant, advanced, same_row_twice, masked, masked_fill, write_to_itself, expanded_source,
    reshaped, unsqueezed, of_another_shape_then_written, write_out_of_order,
    scattered, unsafe_parts,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("start", ["contiguous", "turned", "view", "plain"])
def test_gradients_of_writes(write, start):
    """Values and gradients after a write, of a base that is contiguous, or not, or a view."""

    def program(T):
        a, y = leaf(T, 2, 3), leaf(T, 2, 3)
        if start == "contiguous":
            x = a * 1.5
        elif start == "turned":
            x = leaf(T, 3, 2).t() * 1.5 + a
            x = x.t().contiguous().t()
        elif start == "view":
            x = T.stack([a, a * 2])[1]
        else:
            x = a.detach().clone()
        write(T, x, y * 1)
        weigh(T, x, x[0], a, y).backward()
        return x, a.grad, y.grad

    same(program)


@pytest.mark.parametrize("write", WRITES)
def test_second_gradients_of_writes(write):
    def program(T):
        a, y = leaf(T, 2, 3), leaf(T, 2, 3)
        x = a * a
        write(T, x, y * y)
        (g,) = T.autograd.grad(weigh(T, x * x), a, create_graph=True, allow_unused=True)
        if not g.requires_grad:
            return g
        second = T.autograd.grad(weigh(T, g), (a, y), allow_unused=True)
        return g, *(T.zeros(2, 3, dtype=T.float64) if s is None else s for s in second)

    same(program)


def test_views_of_complex_tensors():
    def program(T):
        a = T.tensor([[1 + 2j, 3 - 1j], [0.5j, 2 + 0j]], dtype=T.complex128, requires_grad=True)
        w = leaf(T, 2)
        z = a * (1 + 1j)
        z.real.mul_(2)
        z.imag[0] += w
        T.view_as_real(z)[1, 0] = 3.0
        z = z * w
        (z.real * z.imag).sum().backward()
        return z, a.grad, w.grad

    same(program)


def test_detached_memory_is_shared_and_its_changes_are_noticed():
    def program(T):
        x = leaf(T, 3)
        y = x * 1
        d = y.detach()
        d[0] = 9.0
        (y + d).sum().backward()
        return y, x.grad

    same(program)

    def stale(T):
        y = leaf(T, 3) * 1
        loss = (y * y).sum()
        y.detach().add_(1)
        loss.backward()

    refused(stale, "modified by an inplace operation")


def test_a_changed_saved_tensor_raises():
    def program(T):
        y = leaf(T, 2, 3) * 1
        loss = (y * y).sum()
        with T.no_grad():
            y[0].mul_(2)
        loss.backward()

    refused(program, "modified by an inplace operation")


@pytest.mark.parametrize(("program", "match"), [
    (lambda T: leaf(T, 3).mul_(2), "a leaf Variable that requires grad"),
    (lambda T: leaf(T, 3)[0].mul_(2), "a view of a leaf Variable that requires grad"),
    (lambda T: leaf(T, 3).__setitem__(0, 5), "a view of a leaf Variable that requires grad"),
    (lambda T: leaf(T, 2, 2).t_(), "a leaf Variable that requires grad"),
    (lambda T: leaf(T, 2, 2).unsqueeze_(0), "a leaf Variable that requires grad"),
    (lambda T: T.zeros(3)[:2].requires_grad_().mul_(2), "a view of a leaf Variable"),
    (lambda T: (leaf(T, 4) * 1).split(2)[0].mul_(2), "Output 0 of Split is a view and is being"),
    (lambda T: (leaf(T, 4) * 1).unbind()[1].mul_(2), "function that returns multiple views"),
    (lambda T: (leaf(T, 4) * 1).chunk(2)[0].add_(2), "function that returns multiple views"),
    (lambda T: T.ones(1).expand(3).add_(1), "more than one element of the written-to tensor"),
    (lambda T: T.ones(1).expand(3).__setitem__(slice(None), 1.0), "more than one element"),
])  # fmt: skip
def test_changes_that_are_refused(program, match):
    refused(program, match)


def test_a_view_made_without_gradients_is_refused():
    def program(T):
        y = leaf(T, 3) * 1
        with T.no_grad():
            v = y[:2]
        v.add_(1)

    refused(program, "A view was created in no_grad mode and is being modified inplace")


def test_a_view_of_memory_that_was_replaced():
    y = leaf(gpunn, 3) * 1
    v = y[:2]
    y.data = gpunn.zeros(3, dtype=gpunn.float64)
    v.mul_(leaf(gpunn, 2))  # no longer a part of y
    assert v.grad_fn is not None and y.sum().item() == 0.0


def test_filling_expanded_memory():
    """PyTorch fills it, too, but its backward raises."""
    x, value = leaf(gpunn, 3), gpunn.tensor(0.25, dtype=gpunn.float64, requires_grad=True)
    y = x * 1
    y[:1].expand(4).fill_(value)
    weigh(gpunn, y).backward()
    assert y.tolist()[0] == 0.25
    assert x.grad.tolist() == [0.0, 2.0, 3.0] and value.grad.item() == 1.0


def test_overlapping_writes_are_refused():
    y = leaf(gpunn, 4) * 1
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        y.unfold(0, 2, 1).mul_(2)


# --- random programs ----------------------------------------------------------------------

SIZES = ((2, 3), (3,), (2, 3), (2, 2, 2))
STEP = st.tuples(*[st.integers(0, 63)] * 4)


def view_of(x, k, d, n):
    ndim = x.ndim
    if not ndim:
        return [x.unsqueeze(0), x.reshape(1), x[...]][k % 3]
    d %= ndim
    n %= max(x.shape[d], 1)
    return [
        lambda: x.unsqueeze(d), lambda: x.squeeze(), lambda: x.reshape(-1), lambda: x[n:],
        lambda: x.select(d, n), lambda: x.narrow(d, n, x.shape[d] - n), lambda: x[..., ::2],
        lambda: x.transpose(d, ndim - 1), lambda: x.permute(*reversed(range(ndim))),
        lambda: x.unsqueeze(0).expand(2, *x.shape), lambda: x.detach(), lambda: x[None, ..., 0],
        lambda: x.diagonal(0, d, d - 1) if ndim > 1 else x[...],
        lambda: x.split(2, d)[0], lambda: x.unbind(d)[n], lambda: x.tensor_split(2, d)[1],
    ][k % 16]()  # fmt: skip


def change(T, x, y, k, n):
    """An in-place change of x, with y where it needs another operand."""
    row = n % x.shape[0] if x.ndim else ...
    [
        lambda: x.mul_(1.5), lambda: x.add_(y), lambda: x.mul_(y), lambda: x.copy_(y),
        lambda: x.zero_(), lambda: x.fill_(y.sum()), lambda: x.tanh_(), lambda: x.sub_(y),
        lambda: x.masked_fill_(x > 0.5, 0.3), lambda: x.__setitem__(row, y),
        lambda: x.__setitem__(x > 0.2, 0.7), lambda: x.__setitem__((..., 0), y),
        lambda: x[row].mul_(0.3), lambda: x.unsqueeze_(0), lambda: x.squeeze_(),
        lambda: x.index_add_(0, T.tensor([0]), x[:1] * 2),
    ][k % 16]()  # fmt: skip


def combine(T, x, y, k):
    return [
        lambda: x * y, lambda: x + y, lambda: x.sin(), lambda: x.clone(), lambda: x * x,
        lambda: T.stack([x, x * 2]), lambda: (x * 0.5).mT if x.ndim > 1 else x * 0.5,
        lambda: T.cat([x, x]) if x.ndim else x * 1,
    ][k % 8]()  # fmt: skip


def step(T, tensors, what, i, j, k):
    """One step of a program; what it makes is a tensor more."""
    x, y = tensors[i % len(tensors)], tensors[j % len(tensors)]
    kind = what % 8
    if kind < 3:
        return view_of(x, k, j, what // 8)
    if kind < 6:
        change(T, x, y.clone(), k, what // 8)
        return None
    if kind == 6:
        with T.no_grad():
            x.mul_(1.5)
        return None
    return combine(T, x, y, k)


def begin(T, kinds):
    leaves, tensors = [], []
    for size, kind in zip(SIZES, kinds, strict=True):
        x = leaf(T, *size)
        leaves.append(x)
        made = [x, x * 1, (x * 1).mT.clone().mT if x.ndim > 1 else x * 1, x.detach().clone()]
        tensors.append(made[kind])
    return leaves, tensors


def attempt(function, *args):
    try:
        return function(*args), None
    except (RuntimeError, IndexError) as error:
        return None, error


def gradients(T, tensors, leaves):
    weigh(T, *(t for t in tensors if t.requires_grad)).backward()
    return [np.zeros(x.shape) if x.grad is None else np.asarray(x.grad.tolist()) for x in leaves]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.tuples(*[st.integers(0, 3)] * 4), st.lists(STEP, max_size=9))
def test_random_programs(kinds, steps):
    """Views, in-place changes and arithmetic in any order: PyTorch's values and gradients.

    Where PyTorch refuses a step, or cannot say the gradient of what it made, nothing is compared
    after it: gpunn may know it.
    """
    torch, mine = packages()
    (theirs, a), (own, b) = begin(torch, kinds), begin(mine, kinds)
    for one in steps:
        made, error = attempt(step, torch, a, *one)
        got, my_error = attempt(step, mine, b, *one)
        assert error is not None or my_error is None, f"{one}: {my_error!r}"
        if error is not None and my_error is None:
            return
        if made is not None and made.numel() <= 100:
            a.append(made)
            b.append(got)
        for x, y in zip(a, b, strict=True):
            assert tuple(x.shape) == tuple(y.shape)
            np.testing.assert_allclose(y.detach().numpy(), x.detach().numpy(), atol=1e-9)
    if not any(t.requires_grad for t in a):
        return
    if any(t.requires_grad and attempt(lambda t=t: t.grad_fn)[1] for t in a):
        return
    keep = [i for i, t in enumerate(a) if t.requires_grad]
    want, error = attempt(gradients, torch, [a[i] for i in keep], theirs)
    if error is None:
        for w, g in zip(want, gradients(mine, [b[i] for i in keep], own), strict=True):
            np.testing.assert_allclose(g, w, atol=1e-9)
