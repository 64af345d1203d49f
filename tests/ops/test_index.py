"""x[key] and x[key] = value, for every kind of key, as PyTorch's."""

import numpy as np
import pytest
from both import packages, refused, same
from check import check_grad
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn
from gpunn.ops.index import number

X = np.arange(24.0).reshape(2, 3, 4)


def whole(T):
    return T.arange(24.0, dtype=T.float64).reshape(2, 3, 4)


#: Keys as functions of the package.
BASIC = [
    lambda T: 0, lambda T: -1, lambda T: slice(1, 5), lambda T: slice(None, None, 2),
    lambda T: None, lambda T: ..., lambda T: (), lambda T: (0, 1), lambda T: (..., 0),
    lambda T: (0, 1, 2), lambda T: (slice(None), None, -1), lambda T: (None, ..., slice(0, 2)),
    lambda T: (..., 0, ...), lambda T: np.int64(1), lambda T: T.tensor(1),
    lambda T: (T.tensor(1), slice(1)), lambda T: slice(T.tensor(0), T.tensor(1)),
    lambda T: np.array(1), lambda T: (slice(0, 0),),
]  # fmt: skip
ADVANCED = [
    lambda T: T.tensor([1, 0, 1]), lambda T: [0, 1], lambda T: np.array([1, 0]),
    lambda T: range(2), lambda T: (T.tensor([0, 1]), T.tensor([2, 0])),
    lambda T: (0, slice(None), T.tensor([1, 2])), lambda T: (slice(None), T.tensor([[0], [2]])),
    lambda T: (T.tensor([0, 1]), slice(None), T.tensor([3, 0])),
    lambda T: (T.tensor([0, 1]), None, T.tensor([2, 0])), lambda T: (..., T.tensor([-1, 0])),
    lambda T: T.tensor([True, False]), lambda T: T.ones(2, 3, dtype=T.bool),
    lambda T: (slice(None), T.tensor([True, False, True])), lambda T: True, lambda T: False,
    lambda T: T.tensor(True), lambda T: (True, 0, T.tensor([1, 2])), lambda T: (slice(1), True),
    lambda T: [], lambda T: T.zeros(0, dtype=T.int64), lambda T: T.tensor([1], dtype=T.int32),
    lambda T: (T.tensor([True, False]), T.tensor([1])),
    lambda T: (1, T.tensor([0, 0]), slice(1, 3)),
]  # fmt: skip


@pytest.mark.parametrize("key", BASIC)
def test_basic_keys_read_views(key):
    x = whole(gpunn)
    y = x[key(gpunn)]
    assert y._base is x._base and (y.numel() == 0 or np.shares_memory(x.array, y.array))
    same(lambda T: whole(T)[key(T)])
    check_grad(lambda x: x[key(gpunn)], [X])


@pytest.mark.parametrize("key", ADVANCED)
def test_arrays_read_copies(key):
    x = whole(gpunn)
    assert not np.shares_memory(x.array, x[key(gpunn)].array)
    same(lambda T: whole(T)[key(T)])
    same(lambda T: whole(T).transpose(0, 2).contiguous().transpose(0, 2)[key(T)])
    check_grad(lambda x: x[key(gpunn)], [X])


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("key", BASIC + ADVANCED)
def test_writing(key, recorded):
    def program(T):
        x = whole(T).requires_grad_(recorded)
        y = x * 1
        part = y[key(T)]
        value = (T.arange(float(part.numel()), dtype=T.float64) + 100).reshape(part.shape)
        value.requires_grad_(recorded)
        y[key(T)] = value
        if not recorded:
            return y
        (y * whole(T)).sum().backward()
        return y, x.grad, T.zeros(part.shape) if value.grad is None else value.grad.float()

    same(program)
    same(lambda T: _written(T, key(T), 7.5))
    same(lambda T: _written(T, key(T), T.tensor(3.0, dtype=T.float64)))


def _written(T, key, value):
    x = whole(T)
    x[key] = value
    return x


@pytest.mark.parametrize(("key", "value"), [
    (0, lambda T: T.ones(1, 1, 3, 4)), (slice(None), lambda T: T.ones(4)),
    ((0, 1), lambda T: T.arange(4)), ((0, 0, 0), lambda T: T.tensor([5.0])),
    (([0, 1],), lambda T: T.ones(1, 2, 3, 4, dtype=T.float64)), (0, lambda T: 2),
    (0, lambda T: T.tensor(2 + 3j).real), (..., lambda T: True),
])  # fmt: skip
def test_values_are_cast_and_broadcast(key, value):
    same(lambda T: _written(T, key, value(T)))


def test_numbers_into_integers():
    for value in (-1, 7, 1.9, True):
        same(lambda T, v=value: _integers(T, T.uint8, v))
    for value in (-1, 7, -1.9, True):
        same(lambda T, v=value: _integers(T, T.int64, v))
        same(lambda T, v=value: _integers(T, T.bool, v))
    for dtype, value in (
        ("uint8", 300), ("uint8", -300), ("int8", 300), ("int64", float("nan")),
        ("int64", float("inf")), ("float32", 1e300), ("uint8", -1.5), ("uint8", 255.5),
        ("float32", 1j),
    ):  # fmt: skip
        refused(
            lambda T, d=dtype, v=value: _integers(T, getattr(T, d), v),
            "cannot be converted to type .* without overflow",
        )
    assert number(float("inf"), np.dtype(np.float32)) == np.inf
    same(lambda T: _integers(T, T.float16, 1e5))


def _integers(T, dtype, value):
    x = T.zeros(3, dtype=dtype)
    x[0] = value
    return x


@pytest.mark.parametrize(("act", "match"), [
    (lambda x, T: x[5], "index 5 is out of bounds for dimension 0 with size 2"),
    (lambda x, T: x[0, 7], "index 7 is out of bounds for dimension"),
    (lambda x, T: x[T.tensor([0, 5])], "index 5 is out of bounds for dimension 0 with size 2"),
    (lambda x, T: x[[9]], "index 9 is out of bounds for dimension 0 with size 2"),
    (lambda x, T: x[0, 0, 0, 0], "too many indices for tensor of dimension 3"),
    (lambda x, T: x[[0], [0], [0], [0]], "too many indices for tensor of dimension 3"),
    (lambda x, T: x[T.tensor([True, False, True])], "The shape of the mask"),
    (lambda x, T: x[T.tensor([0, 1, 1]), T.tensor([0, 1])], "could not be broadcast together"),
    (lambda x, T: x[::-1], "step must be greater than zero"),
    (lambda x, T: x[0, ::0], "slice step cannot be zero"),
    (lambda x, T: x[1.0], "only integers, slices"),
    (lambda x, T: x[{}], "only integers, slices"),
    (lambda x, T: x[T.tensor([1.0])], "tensors used as indices must be long, int, byte or bool"),
    (lambda x, T: x[T.tensor([1], dtype=T.int16)], "tensors used as indices must be long"),
    (lambda x, T: x.sum()[0], "invalid index of a 0-dim tensor"),
    (lambda x, T: x.__setitem__(9, 1.0), "index 9 is out of bounds for dimension 0 with size 2"),
    (lambda x, T: x.__setitem__([9], 1.0), "index 9 is out of bounds for dimension 0 with size 2"),
    (lambda x, T: x.__setitem__(0, T.ones(2, 4)), "The expanded size of the tensor"),
    (lambda x, T: x.__setitem__([0, 1], x.new_ones(5, 4)), "shape mismatch: value tensor of shape"),
    (lambda x, T: x.__setitem__([0, 1], T.ones(4)), "Index put requires the source and dest"),
    (lambda x, T: x.__setitem__(0, [1.0]), "can't assign a list to a torch.DoubleTensor"),
    (lambda x, T: x.__setitem__(0, np.ones(4)), "can't assign a numpy.ndarray to a torch.Double"),
    (lambda x, T: x.__setitem__(0, None), "can't assign a NoneType"),
    (lambda x, T: x.__delitem__(0), "Tensor does not support deleting items"),
    (lambda x, T: x.copy_(T.ones(5)), "The size of tensor a .* must match the size of tensor b"),
    (lambda x, T: x.copy_("3"), "must be Tensor, not str"),
    (lambda x, T: list(x.sum()), "iteration over a 0-d tensor"),
])  # fmt: skip
def test_refusals(act, match):
    refused(lambda T: act(whole(T), T), match)


def test_old_keys_warn():
    with pytest.warns(UserWarning, match="non-tuple sequence"):
        assert whole(gpunn)[[0, slice(None)]].shape == (3, 4)
    with pytest.warns(UserWarning, match="deprecated, please use a dtype torch.bool"):
        assert whole(gpunn)[gpunn.tensor([1, 0], dtype=gpunn.uint8)].shape == (1, 3, 4)


def test_copy_keeps_requiring_a_gradient():
    def program(T):
        a = T.ones(2, requires_grad=True)
        b = T.zeros(2, requires_grad=True)
        x = a * 1
        x.copy_(b * 2)
        y = a * 1
        y.copy_(T.ones(2, dtype=T.float64))
        x.copy_(x)
        x[0].copy_(3)
        (x.sum() + y.sum()).backward()
        return x, y, a.grad, b.grad, y.requires_grad

    same(program)


def test_iteration_has_one_node():
    x = gpunn.ones(3, 2, requires_grad=True)
    rows = list(x * 2)
    assert len({id(r.grad_fn) for r in rows}) == 1
    sum(r.sum() * (i + 1) for i, r in enumerate(rows)).backward()
    assert x.grad.tolist() == [[2.0, 2.0], [4.0, 4.0], [6.0, 6.0]]


BOUNDS = st.none() | st.integers(-3, 3)
PARTS = st.one_of(
    st.integers(-2, 1), st.just(None), st.just(...), st.just(True),
    st.builds(slice, BOUNDS, BOUNDS, st.none() | st.just(2)),
    st.lists(st.integers(-2, 1), max_size=3), st.lists(st.booleans(), min_size=2, max_size=2),
)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(PARTS, max_size=4).filter(lambda parts: parts.count(...) < 2), st.booleans())
def test_random_keys(parts, recorded):
    """Any key reads and writes what PyTorch reads and writes, or both refuse it."""
    outcomes = []
    for T in packages():
        x = T.arange(16.0).reshape(2, 2, 2, 2).requires_grad_(recorded)
        key = tuple(
            T.tensor(p, dtype=None if p else T.int64) if type(p) is list else p for p in parts
        )
        y = x * 1
        try:
            part = y[key] * 1
            y[key] = part + 1
        except IndexError:
            outcomes.append(None)
            continue
        if recorded:
            (y * y).sum().backward()
        made = part, y, x.grad if recorded else x
        outcomes.append([np.asarray(t.detach().tolist()).reshape(tuple(t.shape)) for t in made])
    want, got = outcomes
    assert (want is None) == (got is None)
    for w, g in zip(want or [], got or [], strict=True):
        assert w.shape == g.shape
        np.testing.assert_allclose(g, w)
