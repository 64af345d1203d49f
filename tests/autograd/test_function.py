"""Function: gradients written by the user."""

import pytest

import gpunn
from gpunn.autograd import Function, gradcheck, gradgradcheck
from gpunn.autograd.function import once_differentiable


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x**2


def _leaf(*values):
    return gpunn.tensor(list(values), dtype=gpunn.float64, requires_grad=True)


def test_first_and_second_order():
    x = _leaf(1.0, 2.0)
    assert gradcheck(Cube.apply, (x,)) and gradgradcheck(Cube.apply, (x,))
    assert Cube.apply(x).grad_fn.name() == "CubeBackward"


class Exp(Function):
    @staticmethod
    def forward(x):
        return x.exp()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


def test_setup_context_and_a_saved_output():
    x = _leaf(0.5, 1.0)
    assert gradcheck(Exp.apply, (x,)) and gradgradcheck(Exp.apply, (x,))


class Split(Function):
    @staticmethod
    def forward(ctx, x, k, other):
        ctx.k = k
        a, b = x * k, x * (k + 1)
        ctx.mark_non_differentiable(b) if other else None
        return a, b

    @staticmethod
    def backward(ctx, a, b):
        assert ctx.needs_input_grad == (True, False, False)
        return (a * ctx.k + b * (ctx.k + 1)), None, None


def test_several_outputs_and_arguments_that_are_no_tensors():
    x = _leaf(1.0, 2.0)
    a, b = Split.apply(x, 2, False)
    a.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    assert gradcheck(lambda t: Split.apply(t, 2, False), (x,))
    a, b = Split.apply(x, 2, True)
    assert a.requires_grad and not b.requires_grad


class Raw(Function):
    seen: list = []

    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        return x * 1, x * 2

    @staticmethod
    def backward(ctx, a, b):
        Raw.seen.append((a is None, b is None))
        return b


def test_gradients_that_did_not_arrive_may_stay_none():
    Raw.seen.clear()
    x = _leaf(1.0)
    Raw.apply(x)[1].backward()
    assert Raw.seen == [(True, False)]


class AddOne(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.add_(1)

    @staticmethod
    def backward(ctx, g):
        return g * 2


def test_an_input_changed_in_place():
    x = _leaf(1.0)
    y = x * 3
    z = AddOne.apply(y)
    assert z is y
    z.backward()
    assert x.grad.item() == 6.0


def test_saved_tensors_of_a_freed_graph():
    class Twice(Function):
        @staticmethod
        def forward(ctx, x):
            Twice.ctx = ctx
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = _leaf(1.0)
    y = Twice.apply(x)
    assert Twice.ctx.saved_tensors[0] is x
    y.backward()
    with pytest.raises(RuntimeError, match="after they have already been freed"):
        Twice.ctx.saved_tensors  # noqa: B018


def test_wrong_backwards():
    class Short(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, g):
            return g

    x = _leaf(1.0)
    with pytest.raises(RuntimeError, match=r"incorrect number of gradients \(expected 2, got 1\)"):
        Short.apply(x, x).backward()
    with pytest.raises(NotImplementedError, match="implement the forward function"):
        Function.apply(x)
    with pytest.raises(TypeError, match="save_for_backward can only save variables"):
        gpunn.autograd.FunctionCtx().save_for_backward(3)


def test_once_differentiable():
    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 2 * x

    x = _leaf(3.0)
    Once.apply(x).backward()
    assert x.grad.item() == 6.0
    (g,) = gpunn.autograd.grad(Once.apply(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
        g.backward()


def test_an_input_returned_as_it_is():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 7

    x = _leaf(1.0)
    y = Same.apply(x)
    assert y is not x
    y.backward()
    assert x.grad.item() == 7.0


def _function(forward, backward):
    return type("Made", (Function,), {
        "forward": staticmethod(forward), "backward": staticmethod(backward),
    })  # fmt: skip


def test_gradients_are_brought_to_the_shape_and_dtype_of_the_input():
    x = gpunn.ones(2, requires_grad=True)
    made = _function(lambda ctx, x: x * 2, lambda ctx, g: gpunn.ones(4, 2, dtype=gpunn.float64))
    made.apply(x).sum().backward()
    assert x.grad.tolist() == [4.0, 4.0] and x.grad.dtype is gpunn.float32


def test_gradients_that_do_not_fit():
    x = gpunn.ones(2, requires_grad=True)
    for g, text in (
        (gpunn.ones(3), r"invalid gradient at index 0 - got \[3\] but expected shape compatible "),
        (3.0, r"expected Variable or None \(got float\)"),
    ):
        with pytest.raises(RuntimeError, match=text):
            _function(lambda ctx, x: x * 2, lambda ctx, _, g=g: g).apply(x).sum().backward()
    with pytest.raises(RuntimeError, match="a gradient different than None at position 2, but"):
        _function(lambda ctx, x, k: x * k, lambda ctx, g: (g, g)).apply(x, 3).sum().backward()


def test_a_leaf_must_not_be_dirty():
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.add_(1)

    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad has been used in"):
        _function(forward, lambda ctx, g: g).apply(gpunn.ones(2, requires_grad=True))


def test_keywords_reach_forward():
    x = gpunn.ones(2, requires_grad=True)
    made = _function(lambda ctx, x, scale: x * scale, lambda ctx, g: g * 3)
    made.apply(x, scale=3).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
