"""The recorded graph: names, links, memory, versions, and in-place changes."""

import gc
import weakref

import numpy as np
import pytest

import gpunn
from gpunn.autograd.graph import AccumulateGrad


def test_names_and_links_of_nodes():
    x = gpunn.ones(2, requires_grad=True)
    y = (x.exp() * 2 + x).sum()
    assert y.grad_fn.name() == "SumBackward0"
    (add, index), = y.grad_fn.next_functions
    assert (add.name(), index) == ("AddBackward0", 0)
    (mul, _), (leaf, _) = add.next_functions
    assert mul.name() == "MulBackward0" and mul.next_functions[0][0].name() == "ExpBackward0"
    assert leaf.name() == "AccumulateGrad" and leaf.variable is x and leaf.next_functions == ()
    assert leaf == mul.next_functions[0][0].next_functions[0][0] == AccumulateGrad(x)
    assert len({leaf, AccumulateGrad(x)}) == 1
    assert repr(y.grad_fn).startswith("<SumBackward0 object at 0x")


def test_leaves_and_outputs():
    x = gpunn.ones(4, requires_grad=True)
    assert x.is_leaf and x.grad_fn is None
    a, b = x.split(2)
    assert a.grad_fn is b.grad_fn and (a.output_nr, b.output_nr) == (0, 1)
    assert not a.is_leaf and a.detach().is_leaf
    assert (gpunn.ones(2) * 2).is_leaf


def test_what_is_not_recorded():
    x = gpunn.ones(2, requires_grad=True)
    assert not (x > 0).requires_grad and x.argmax().grad_fn is None
    with gpunn.no_grad():
        assert (x * 2).grad_fn is None
    y = gpunn.ones(2) * x
    assert y.grad_fn.next_functions[0] == (None, 0)


def _arrays_of_a_forward(x):
    """Weak references to the intermediate arrays of a small network."""
    refs = []
    y = x
    for _ in range(4):
        y = (y @ x).exp().tanh()
        refs.append(weakref.ref(y.array))
    return y.sum(), refs


def test_no_cycles_keep_a_dropped_graph_alive():
    x = gpunn.ones(3, 3, requires_grad=True)
    gc.disable()
    try:
        y, refs = _arrays_of_a_forward(x)
        assert all(r() is not None for r in refs)
        del y
        assert all(r() is None for r in refs)
    finally:
        gc.enable()


def test_saved_arrays_are_freed_as_the_walk_goes():
    x = gpunn.ones(3, 3, requires_grad=True)
    alive = []
    gc.disable()
    try:
        y, refs = _arrays_of_a_forward(x)
        x.register_hook(lambda g: alive.append([r() is not None for r in refs]))
        y.backward()
        assert alive == [[False] * 4]
        assert all(r() is None for r in refs)
    finally:
        gc.enable()


class _Keeps(gpunn.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x * 2
        ctx.save_for_backward(x, y)
        _Keeps.ref = weakref.ref(y.array)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * y / x


def test_functions_make_no_cycles():
    x = gpunn.ones(3, requires_grad=True)
    gc.disable()
    try:
        y = _Keeps.apply(x)
        del y
        assert _Keeps.ref() is None
        _Keeps.apply(x).sum().backward()
        assert _Keeps.ref() is None
    finally:
        gc.enable()
    assert x.grad.tolist() == [2.0, 2.0, 2.0]


def test_views_do_not_hold_each_other():
    gc.disable()
    try:
        x = gpunn.ones(4)
        base = weakref.ref(x.array)
        view = x[1:]
        del x
        assert base() is not None
        del view
        assert base() is None
    finally:
        gc.enable()


def test_a_saved_array_changed_in_place_is_an_error():
    x = gpunn.ones(2, requires_grad=True)
    y = x.exp()
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation.*ExpBackward0"):
        y.sum().backward()
    y = x * 2
    z = y * y
    y[0] = 3.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_in_place_changes_that_are_allowed():
    x = gpunn.ones(3, requires_grad=True)
    y = x * 2
    y.add_(1).mul_(3)
    y[0] = 0.0
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 6.0, 6.0]


def test_in_place_on_leaves():
    x = gpunn.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
        x[:1].add_(1)
    with gpunn.no_grad():
        x.add_(1)
    assert x.tolist() == [2.0, 2.0]


def test_versions_count_changes_of_shared_memory():
    x = gpunn.zeros(4)
    view = x[:2]
    assert x._version == view._version == 0
    view.add_(1)
    x.mul_(2)
    assert x._version == view._version == 2
    assert np.array_equal(x.numpy(), [2, 2, 0, 0])
