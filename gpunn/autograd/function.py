"""Function: operations with a gradient written by the user."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import Node, NodeOfSeveral, Output, mode, unbroadcast, vertex
from gpunn.autograd.hooks import to_grad
from gpunn.autograd.modes import no_grad
from gpunn.tensor import Tensor, extra, wrap


class FunctionCtx:
    """What `forward` leaves for `backward`: saved tensors, flags, any attributes."""

    def __init__(self) -> None:
        self._to_save: tuple[Any, ...] = ()
        self._saved: list[Any] = []
        self._non_differentiable: tuple[Tensor, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._materialize = True
        self._shapes: list[Any] = []  # (shape, dtype, device) of the outputs
        self._inputs: list[Any] = []  # and of forward's arguments, None where no Tensor
        self._node: weakref.ref[Node] | None = None  # the node holds this
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps inputs or outputs for `backward`, which reads them as `ctx.saved_tensors`."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    f"save_for_backward can only save variables, but argument 0 is of type "
                    f"{type(t).__name__}; keep other objects as attributes of ctx"
                )
        self._to_save = tensors

    save_for_forward = save_for_backward

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """These outputs get no gradient."""
        self._non_differentiable = outputs

    def mark_dirty(self, *inputs: Tensor) -> None:
        """These inputs were changed in place and are returned."""
        self._dirty = inputs

    def set_materialize_grads(self, value: bool) -> None:
        """False: `backward` gets None instead of zeros for outputs without a gradient."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved. RuntimeError once the graph was freed."""
        from gpunn.autograd.graph import check_saved
        from gpunn.autograd.walk import FREED, FREED_MESSAGE

        if self._node is None:
            return self._to_save
        node = self._node()
        if node is None or node.saved is FREED:
            raise RuntimeError(FREED_MESSAGE)
        check_saved(node)
        return tuple(self._reload(node, s) for s in self._saved)

    def _reload(self, node: Node, saved: Any) -> Any:
        """A saved tensor; an output is kept as its array, or it would hold itself alive."""
        if not isinstance(saved, tuple):
            return saved
        array, device, index = saved
        out = wrap(array, device)
        out.node = node if node.outputs == 1 else Output(node, index)
        out._requires_grad = True
        return out

    def _close(self, node: Node, outputs: list[Any]) -> None:
        """Turns what was asked to be saved into what the node keeps."""
        places = {id(o): i for i, o in enumerate(outputs) if isinstance(o, Tensor)}
        self._saved = [
            (t.array, t.device, places[id(t)]) if t is not None and id(t) in places else t
            for t in self._to_save
        ]
        node.saved = (self, *(t.array for t in self._to_save if t is not None))
        self._to_save = ()
        self._node = weakref.ref(node)


class Function:
    """An operation with its own gradient: subclass it with static `forward` and `backward`.

    `forward(ctx, *args)` computes on Tensors without recording; `backward(ctx, *grads)` returns
    one gradient, or None, for each argument of forward. With a static `setup_context(ctx,
    inputs, output)`, forward takes no ctx. Call it as `MyFunction.apply(*args)`.
    Source: https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.Function

    >>> class Square(gpunn.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         x, = ctx.saved_tensors
    ...         return 2 * x * g
    >>> x = gpunn.tensor(3.0, requires_grad=True)
    >>> Square.apply(x).backward()
    >>> x.grad
    tensor(6.)
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The computation; define it in the subclass."""
        raise NotImplementedError(
            "You must implement the forward function for custom autograd.Function."
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Saves what backward needs, where forward takes no ctx."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients of forward's arguments; define it in the subclass."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom "
            "autograd.Function to use it with backward mode AD."
        )

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs forward and records the function for the backward walk; keywords have no
        gradient."""
        ctx = FunctionCtx()
        tensors = [a for a in args if isinstance(a, Tensor)]
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a._requires_grad for a in args)
        record = mode.grad and any(t._requires_grad for t in tensors)
        with no_grad():
            if cls.setup_context is Function.setup_context:
                made = cls.forward(ctx, *args, **kwargs)
            else:
                made = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, made)
        if not record:
            return made
        return _record(cls, ctx, args, made, tensors[0].device)


def _record(cls: type[Function], ctx: FunctionCtx, args: Any, made: Any, device: Any) -> Any:
    """Gives the outputs of forward their node."""
    single = not isinstance(made, tuple)
    outputs = [made] if single else list(made)
    skip = {id(t) for t in ctx._non_differentiable}
    dirty = {id(t) for t in ctx._dirty}
    parents = tuple(vertex(a) if isinstance(a, Tensor) else None for a in args)
    kind = Node if len(outputs) == 1 else NodeOfSeveral
    node = kind(_function_vjp(cls, len(args)), parents, (), device)
    if len(outputs) > 1:
        node.outputs = len(outputs)  # type: ignore[misc]
    for t in ctx._dirty:
        if t._requires_grad and t.node is None:
            raise RuntimeError(
                "a leaf Variable that requires grad has been used in an in-place operation. "
                f"({cls.__name__}.forward marks it as dirty)"
            )
    inputs = {id(a) for a in args}
    for i, out in enumerate(outputs):
        if not isinstance(out, Tensor) or id(out) in skip or out.dtype.category < 2:
            continue
        if id(out) in inputs and id(out) not in dirty:
            outputs[i] = wrap(out.array, out.device)  # an input returned as it is gets a new face
            extra(outputs[i]).face_of = cls.__name__
    ctx._shapes = [
        (o.array.shape, o.array.dtype, o.device) if isinstance(o, Tensor) else None for o in outputs
    ]
    ctx._inputs = [
        (a.array.shape, a.array.dtype, a.device) if isinstance(a, Tensor) else None for a in args
    ]
    ctx._close(node, outputs)
    for i, out in enumerate(outputs):
        if isinstance(out, Tensor) and id(out) not in skip and out.dtype.category >= 2:
            out.node = node if node.outputs == 1 else Output(node, i)
            out._requires_grad = True
    return outputs[0] if single else tuple(outputs)


def _function_vjp(cls: type[Function], count: int) -> Callable[..., Any]:
    """The node's VJP: the user's backward, on Tensors."""

    def function_vjp(gs: Any, ctx: FunctionCtx, *arrays: Any) -> Any:
        gs = gs if isinstance(gs, list) else [gs]
        grads = []
        for g, meta in zip(gs, ctx._shapes, strict=True):
            if g is None and ctx._materialize and meta is not None:
                g = wrap(meta[2].xp.zeros(meta[0], meta[1]), meta[2])
            grads.append(g if g is None else to_grad(g, meta[2]))
        found = cls.backward(ctx, *grads)
        found = found if isinstance(found, tuple) else (found,)
        if len(found) > count and any(f is not None for f in found[count:]) or len(found) < count:
            raise RuntimeError(
                f"function {cls.__name__}Backward returned an incorrect number of gradients "
                f"(expected {count}, got {len(found)})"
            )
        return tuple(_checked(cls, f, ctx, i) for i, f in enumerate(found[:count]))

    function_vjp.node_name = f"{cls.__name__}Backward"  # type: ignore[attr-defined]
    return function_vjp


def _checked(cls: type[Function], g: Any, ctx: FunctionCtx, i: int) -> Any:
    """One gradient of a user's backward, as the walk takes it: of its input's shape and dtype."""
    if g is None:
        return None
    name = f"{cls.__name__}Backward"
    if not isinstance(g, Tensor):
        raise RuntimeError(
            f"expected Variable or None (got {type(g).__name__}) as gradient {i} of {name}"
        )
    meta = ctx._inputs[i]
    if meta is None:
        raise RuntimeError(
            f"function {name} returned a gradient different than None at position {i + 1}, but "
            "the corresponding forward input was not a Variable"
        )
    if type(g) is not Tensor:
        return g
    shape, dtype, device = meta
    if g.device is not device:
        raise RuntimeError(
            f"Function {name} returned an invalid gradient at index {i} - expected device "
            f"{device} but got {g.device}"
        )
    if g.array.shape != shape:
        g = _summed_to(shape, g, name, i)
    if g.array.dtype != dtype:
        g = g.to(dtypes.of(dtype))  # type: ignore[attr-defined]
    return g if mode.grad else g.array


def _summed_to(shape: tuple[int, ...], g: Tensor, name: str, i: int) -> Tensor:
    """A gradient of a shape that the input's broadcasts to, summed back to it."""
    try:
        fits = np.broadcast_shapes(shape, g.array.shape) == g.array.shape
    except ValueError:
        fits = False
    if not fits:
        raise RuntimeError(
            f"Function {name} returned an invalid gradient at index {i} - got "
            f"{list(g.array.shape)} but expected shape compatible with {list(shape)}"
        )
    return unbroadcast(g, shape)


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """For a `backward` that cannot be differentiated again: differentiating it raises."""

    @functools.wraps(function)
    def wrapped(ctx: Any, *args: Any) -> Any:
        recording = mode.grad
        with no_grad():
            outputs = function(ctx, *args)
        if not recording:
            return outputs
        several = isinstance(outputs, tuple)
        poisoned = [
            _Once.apply(o.requires_grad_()) if isinstance(o, Tensor) else o
            for o in (outputs if several else (outputs,))
        ]
        return tuple(poisoned) if several else poisoned[0]

    return wrapped


class _Once(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def backward(ctx: Any, *gs: Any) -> Any:
        raise RuntimeError(
            "trying to differentiate twice a function that was marked with @once_differentiable"
        )
