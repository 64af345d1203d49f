"""Jacobians, Hessians, and their products with vectors, of functions of Tensors.

Every function takes `func`, its `inputs` (a Tensor or a tuple of them), `create_graph` (the
result can be differentiated again) and `strict` (RuntimeError where an output does not depend
on an input, instead of zeros).
"""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunn.autograd.modes import enable_grad
from gpunn.autograd.walk import grad
from gpunn.tensor import Tensor

# --- arguments and results ----------------------------------------------------------------


def _as_tuple(x: Any, argument: str, function: str) -> tuple[bool, tuple[Tensor, ...]]:
    """Whether x is a tuple, and x as one; TypeError for what is no Tensor."""
    if isinstance(x, Tensor):
        return False, (x,)
    if not isinstance(x, tuple):
        raise TypeError(
            f"The {argument} given to {function} must be either a Tensor or a tuple of Tensors "
            f"but the given {argument} has type {type(x)}."
        )
    for i, item in enumerate(x):
        if not isinstance(item, Tensor):
            raise TypeError(
                f"The {argument} given to {function} must be either a Tensor or a tuple of "
                f"Tensors but the value at index {i} has type {type(item)}."
            )
    return True, x


def _fresh(inputs: tuple[Tensor, ...], create: bool) -> tuple[Tensor, ...]:
    """The inputs as vertices of their own, joined to their history where a graph is wanted."""
    return tuple(
        x.view_as(x) if create and x.requires_grad else x.detach().requires_grad_() for x in inputs
    )


def _run(func: Any, inputs: Any, name: str, create: bool) -> Any:
    """(inputs are a tuple, fresh inputs, outputs are a tuple, outputs)."""
    many, given = _as_tuple(inputs, "inputs", name)
    xs = _fresh(given, create)
    several, outs = _as_tuple(func(*xs), "outputs of the user-provided function", name)
    return many, xs, several, outs


def _check_v(v: Any, other: tuple[Tensor, ...], many: bool) -> tuple[Tensor, ...]:
    """v as a tuple of Tensors of the shapes of `other`."""
    _, vs = _as_tuple(v, "v", "the product")
    if len(vs) != len(other):
        if many:
            raise RuntimeError(
                f"v is a tuple of invalid length: should be {len(other)} but got {len(vs)}."
            )
        raise RuntimeError("The given v should contain a single Tensor.")
    for i, (a, b) in enumerate(zip(vs, other, strict=True)):
        if a.shape != b.shape:
            entry = f"Entry {i} in " if many else ""
            raise RuntimeError(
                f"{entry}v has invalid size: should be {b.shape} but got {a.shape}."
            )
    return vs


def _one_for(v: Any, tensors: tuple[Tensor, ...], what: str, many: bool) -> tuple[Tensor, ...]:
    """v, or 1 where it may be left out."""
    from gpunn.ops.create import ones_like

    if v is not None:
        return _check_v(v, tensors, many)
    if len(tensors) != 1 or tensors[0].array.size != 1:
        raise RuntimeError(
            f"The vector v can only be None if {what} a single Tensor with a single element."
        )
    return (ones_like(tensors[0]),)


def _gradients(
    outs: Any, xs: tuple[Tensor, ...], vs: Any, create: bool, strict: bool, what: str
) -> tuple[Tensor, ...]:
    """grad() with zeros for inputs that the outputs do not depend on; an error with `strict`."""
    pairs = [(o, v) for o, v in zip(outs, vs, strict=True) if o.requires_grad]
    found: tuple[Any, ...] = (None,) * len(xs)
    if pairs:
        found = grad(
            [o for o, _ in pairs], xs, [v for _, v in pairs], retain_graph=True,
            create_graph=create, allow_unused=True,
        )  # fmt: skip
    for i, g in enumerate(found):
        if strict and (g is None or (create and not g.requires_grad)):
            raise RuntimeError(
                f"The {what} is independent of input {i}. This is not allowed in strict mode."
            )
    return tuple(_zeros(x) if g is None else g for g, x in zip(found, xs, strict=True))


def _zeros(x: Tensor) -> Tensor:
    from gpunn.ops.create import zeros_like

    return zeros_like(x).detach()


def _shape_of(values: Any, many: bool, create: bool) -> Any:
    """A tuple of results as the caller's inputs or outputs were given."""
    values = tuple(v if create else v.detach() for v in values)
    return values if many else values[0]


def _scalar(outs: tuple[Tensor, ...], several: bool, name: str) -> None:
    if several or len(outs) != 1:
        raise RuntimeError(f"The function given to {name} should return a single Tensor")
    if outs[0].array.size != 1:
        raise RuntimeError(
            f"The Tensor returned by the function given to {name} should contain a single element"
        )


_USER = "output of the user-provided function"

# --- products with the Jacobian -----------------------------------------------------------


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """(func(*inputs), v times its Jacobian); v may be left out for a single number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.functional.vjp.html

    >>> from gpunn.autograd.functional import vjp
    >>> vjp(lambda x: x * x, gpunn.tensor([1.0, 2.0]), gpunn.ones(2))
    (tensor([1., 4.]), tensor([2., 4.]))
    """
    with enable_grad():
        many, xs, several, outs = _run(func, inputs, "vjp", create_graph)
        vs = _one_for(v, outs, "the user-provided function returns", several)
        found = _gradients(outs, xs, vs, create_graph, strict, _USER)
    return _shape_of(outs, several, create_graph), _shape_of(found, many, create_graph)


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """(func(*inputs), its Jacobian times v), by two backward passes.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.functional.jvp.html

    >>> from gpunn.autograd.functional import jvp
    >>> jvp(lambda x: x * x, gpunn.tensor([1.0, 2.0]), gpunn.ones(2))
    (tensor([1., 4.]), tensor([2., 4.]))
    """
    with enable_grad():
        many, xs, several, outs = _run(func, inputs, "jvp", create_graph)
        vs = _one_for(v, xs, "the input to the user-provided function is", many)
        us = tuple(_zeros(o).requires_grad_() for o in outs)
        first = _gradients(outs, xs, us, True, strict, _USER)
        found = _gradients(first, us, vs, create_graph, False, "gradient")
    return _shape_of(outs, several, create_graph), _shape_of(found, several, create_graph)


def jacobian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Jacobian: a Tensor of the output's shape followed by the input's.

    Several inputs give a tuple of them, several outputs a tuple of those. `vectorize` changes
    nothing; the only `strategy` is "reverse-mode", ValueError for another.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.functional.jacobian.html

    >>> from gpunn.autograd.functional import jacobian
    >>> jacobian(lambda x: x * x, gpunn.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    if strategy != "reverse-mode":
        raise ValueError(f"jacobian: the only strategy is 'reverse-mode', not {strategy!r}")
    if strict and vectorize:
        raise RuntimeError(
            "jacobian: `strict=True` and `vectorize=True` are not supported together. Please "
            "either set `strict=False` or `vectorize=False`."
        )
    with enable_grad():
        many, xs, several, outs = _run(func, inputs, "jacobian", create_graph)
        made = [_jacobian_of(out, xs, create_graph, strict) for out in outs]
    rows = tuple(_shape_of(m, many, create_graph) for m in made)
    return rows if several else rows[0]


def _jacobian_of(
    out: Tensor, xs: tuple[Tensor, ...], create: bool, strict: bool
) -> tuple[Tensor, ...]:
    from gpunn.ops.create import zeros
    from gpunn.ops.join import stack

    rows = []
    for k in range(out.array.size):
        unit = _zeros(out).reshape(-1)
        unit.array[k] = 1
        rows.append(_gradients((out,), xs, (unit.reshape(out.shape),), create, strict, _USER))
    if not rows:
        return tuple(zeros((*out.shape, *x.shape), dtype=x.dtype, device=x.device) for x in xs)
    return tuple(
        stack(column).reshape((*out.shape, *x.shape))
        for column, x in zip(zip(*rows, strict=True), xs, strict=True)
    )


# --- second order -------------------------------------------------------------------------


def hessian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The second derivatives of a function that gives one number; tuples of tuples for several
    inputs.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.functional.hessian.html

    >>> from gpunn.autograd.functional import hessian
    >>> hessian(lambda x: (x**3).sum(), gpunn.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    many, _ = _as_tuple(inputs, "inputs", "hessian")

    def first(*xs: Tensor) -> Any:
        several, outs = _as_tuple(func(*xs), "outputs of the user-provided function", "hessian")
        _scalar(outs, several, "hessian")
        value = outs[0].reshape(())
        found = _gradients((value,), xs, (_zeros(value) + 1,), True, strict, _USER)
        return found if many else found[0]

    return jacobian(first, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)


def _second(
    name: str, func: Any, inputs: Any, v: Any, strict: bool, create: bool
) -> tuple[bool, tuple[Tensor, ...], Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """(inputs are a tuple, inputs, output, its gradient with history, v)."""
    many, xs, several, outs = _run(func, inputs, name, create)
    _scalar(outs, several, name)
    vs = _one_for(v, xs, "the input to the user-provided function is", many)
    ones = (_zeros(outs[0]) + 1,)
    return many, xs, outs[0], _gradients(outs, xs, ones, True, strict, _USER), vs


def vhp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """(func(*inputs), v times its Hessian) of a function that gives one number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.functional.vhp.html

    >>> from gpunn.autograd.functional import vhp
    >>> vhp(lambda x: (x**3).sum(), gpunn.tensor([1.0, 2.0]), gpunn.ones(2))
    (tensor(9.), tensor([ 6., 12.]))
    """
    with enable_grad():
        many, xs, out, first, vs = _second("vhp", func, inputs, v, strict, create_graph)
        found = _gradients(first, xs, vs, create_graph, strict, "jacobian of the function")
    return _shape_of((out,), False, create_graph), _shape_of(found, many, create_graph)


def hvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """(func(*inputs), its Hessian times v): what `vhp` gives, by one more backward pass.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.functional.hvp.html

    >>> from gpunn.autograd.functional import hvp
    >>> hvp(lambda x: (x**3).sum(), gpunn.tensor([1.0, 2.0]), gpunn.ones(2))
    (tensor(9.), tensor([ 6., 12.]))
    """
    with enable_grad():
        many, xs, out, first, vs = _second("hvp", func, inputs, v, strict, create_graph)
        us = tuple(_zeros(x).requires_grad_() for x in xs)
        double = _gradients(first, xs, us, True, strict, "jacobian of the function")
        found = _gradients(double, us, vs, create_graph, False, "hessian")
    return _shape_of((out,), False, create_graph), _shape_of(found, many, create_graph)
