"""Rows: how an element-wise operation is defined from one forward and one VJP.

`unary` and `binary` make the public function. Each is a flat closure: one test for the usual
case (equal float32 or float64 operands on one device), NumPy's call, and a Node when a gradient
is needed. Everything else goes through a general path: dtype promotion, Python numbers, 0-dim
tensors, half precision (computed in float32, rounded once), broadcasting.

A VJP sees operands of the result's dtype and returns gradients of the result's shape: where an
operand was cast or broadcast, the node's parent is an adaptor node that undoes it. So a row has
no bookkeeping: the row of `mul` says `g * b, g * a`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import AUTOCAST, casts, casts_one
from gpunn.amp.lists import NAMES
from gpunn.autograd.graph import Node, mode, result
from gpunn.autograd.graph import namespace as ns
from gpunn.device import CPU
from gpunn.dtypes import F32, F64
from gpunn.ops._operands import _PROPER as _PROPER
from gpunn.ops._operands import NUMBERS as NUMBERS
from gpunn.ops._operands import adapt as adapt
from gpunn.ops._operands import cast as cast
from gpunn.ops._operands import conjugate as conjugate
from gpunn.ops._operands import dtype_with_number
from gpunn.ops._operands import half as half
from gpunn.ops._operands import not_a_tensor as not_a_tensor
from gpunn.ops._operands import operands as operands
from gpunn.ops._operands import proper as proper
from gpunn.ops._operands import refusal as refusal
from gpunn.ops._operands import same_device as same_device
from gpunn.ops._operands import size_error as size_error
from gpunn.ops._operands import widened as widened
from gpunn.ops._write import inplace as inplace
from gpunn.ops._write import public as public
from gpunn.ops._write import publish as publish
from gpunn.ops._write import write as write
from gpunn.ops._write import write_out as write_out
from gpunn.tensor import ARRAY_TYPES, Tensor, wrap

_MANY = 1 << 17  # elements from which on several threads beat NumPy's one
_DOC = """{summary}

    Shapes: {shapes}.
    dtypes: {dtypes}.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.{name}.html

    >>> {example}
    """


def document(
    function: Any, name: str, summary: str, example: str, shapes: str, types: str
) -> None:
    """Writes a row's docstring and name."""
    function.__name__ = function.__qualname__ = name
    function.__module__ = "gpunn"  # where pickle finds it
    function.__doc__ = _DOC.format(
        summary=summary, shapes=shapes, dtypes=types, name=name,
        example=example.replace("\n", "\n    "),
    )  # fmt: skip


def not_implemented(name: str) -> Callable[..., Any]:
    """The VJP of an operation that PyTorch gives no derivative: using it is an error."""

    def vjp(g: Any, *saved: Any) -> Any:
        raise RuntimeError(f"derivative for aten::{name} is not implemented")

    vjp.node_name = "NotImplemented"  # type: ignore[attr-defined]
    return vjp


# --- the makers ---------------------------------------------------------------------------


def _declare(vjp: Any, saves: tuple[int, ...], name: str) -> None:
    """Notes what a row's VJP reads, and its name."""
    if vjp is not None:
        vjp.saves = saves
        vjp.node_name = getattr(vjp, "node_name", name)


def unary(
    name: str,
    forward: Callable[..., Any],
    vjp: Callable[..., Any] | None,
    saves: int | None = 0,
    *,
    summary: str = "",
    example: str = "",
    to_float: bool = False,
    keep_integers: bool = False,
    refuses: str = "",
    why: str = "",
    node_name: str | None = None,
    kernel: Callable[[Any], Any] | None = None,
) -> Any:
    """An element-wise function of one tensor.

    `forward` is NumPy's function, or `f(x, xp)`; `vjp(g, saved)` with saved = the input
    (`saves` 0) or output (-1); `vjp(g)` for None. `to_float`: integers become the default
    float. `keep_integers`: integers pass through unchanged (floor, ceil). `refuses`: NumPy's
    kinds of dtypes that PyTorch refuses ("c", "biu"), with the error `why`. `kernel(x)` has the
    first turn on a GPU, in any float dtype; None leaves it to `forward`.

    `op.on_array(x)` is the function of raw arrays, for VJPs.
    """
    _declare(vjp, () if saves is None else (saves,), node_name or _camel(name) + "Backward0")
    call = _caller(forward)
    fast: Any = forward if isinstance(forward, np.ufunc) else lambda x: forward(x, np)
    if "f" in refuses:
        fast = lambda x: general(x, np)  # noqa: E731
    listed = name in NAMES

    def op(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        try:
            x = input.array
        except AttributeError:
            raise not_a_tensor(name, input) from None
        d = x.dtype
        if (d is F32 or d is F64) and input.device is CPU and out is None:
            y = fast(x)
            if type(y) is not np.ndarray:
                y = np.asarray(y)
            t = wrap(y)
        else:
            if listed and AUTOCAST and out is None:
                input = casts_one(name, input)
                x = input.array
            x, y = general(x, input.device.xp)
            if type(y) not in ARRAY_TYPES:
                y = input.device.xp.asarray(y)
            t = wrap(y, input.device)
            if out is not None:
                t._requires_grad = input._requires_grad
                return write_out(out, t, name)
        if input._requires_grad and mode.grad and vjp is not None and y.dtype.kind not in "bi":
            t._requires_grad = True
            saved = () if saves is None else (y if saves else x,)
            place = input.node or input
            t.node = Node(vjp, (place,), saved, input.device)
        return t

    def general(x: Any, xp: Any) -> tuple[Any, Any]:
        """Any dtype on any device; also gives x as the VJP will need it."""
        kind = x.dtype.kind
        if kind in refuses:
            raise refusal(name, x.dtype, why)
        if kind in "biu":
            if keep_integers:
                return x, x.copy()
            if to_float:
                x = x.astype(dtypes.get_default_dtype().numpy)
        if kernel is not None and xp is not np:
            y = kernel(x)
            if y is not None:
                return x, y
        if half(x.dtype):
            y = call(x.astype(F32), xp)
            return x, (y.astype(x.dtype) if y.dtype == F32 else y)
        return x, call(x, xp)

    shapes = "any shape; the result has the same"
    types = "integers give the default float" if to_float else "the result has the input's dtype"
    document(op, name, summary, example, shapes, types)
    made: Any = op
    made.ufunc = forward if isinstance(forward, np.ufunc) and not refuses.count("f") else None
    made.on_array = lambda x: general(x, ns(x))[1]
    return op


def on(op: Any, x: Any) -> Any:
    """op(x) in a VJP, where x is a raw array or a Tensor."""
    return op(x) if isinstance(x, Tensor) else op.on_array(x)


def binary(
    name: str,
    forward: Callable[..., Any],
    vjp: Callable[..., Any] | None,
    saves: str = "",
    *,
    summary: str = "",
    example: str = "",
    to_float: bool = False,
    compares: bool = False,
    exact: bool = False,
    refuses: str = "",
    why: str = "",
    check: Callable[[Any, Any], None] | None = None,
    node_name: str | None = None,
    large: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """An element-wise function of two tensors, or a tensor and a number.

    `forward` is NumPy's function, or `f(a, b, xp)`. `vjp(g, *saved)` returns two gradients.
    `saves` lists what it reads, "a" and "b" (the operands) and "y" (the result): "b y?b" saves b
    always, and y only where b needs a gradient (None otherwise). `compares`: the result is bool
    and has no gradient. `exact`: 16-bit floats are not computed in float32. `check(input, other)`
    may refuse operands that are not both float32 or float64. `large(a, b)` has the first turn on
    many numbers of one dtype on the CPU; None leaves it to `forward`. The rest: see `unary`.

    `op.operator` is the same for use as Python's operator, NotImplemented for strangers;
    `op.reflected(b, a)` that operator with its operands turned round; `op.on_arrays(a, b)` the
    function of raw arrays of one floating dtype, for VJPs.
    """
    save = _saver(saves)
    codes = {"a": 0, "b": 1, "y": -1}
    _declare(
        vjp, tuple(codes[s[0]] for s in saves.split()), node_name or _camel(name) + "Backward0"
    )
    call = _caller(forward)
    ufunc, listed = isinstance(forward, np.ufunc), name in NAMES
    direct = _direct(to_float, refuses) if check is None else frozenset((F32, F64))
    f32, f64 = (F32, F64) if F32 in direct else (None, None)
    pairs: Any = forward if ufunc else lambda a, b: forward(a, b, np)
    fast = forward if ufunc and F32 in direct else None
    whole = np.dtype(np.int64) if fast is not None and np.dtype(np.int64) in direct else None

    def build(otherwise: Callable[..., Any]) -> Any:
        def op(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
            kind = type(other)
            if kind is float or kind is int:
                if fast is None or type(input) not in _PLAIN or out is not None:
                    return otherwise(input, other, out)
                a, b = input.array, other
                d = a.dtype
                if (
                    not (d is f32 or d is f64 or (d is whole and kind is int))
                    or input.device is not CPU
                ):  # fmt: skip
                    return otherwise(input, other, out)
                y = fast(a, b)
                other = None
            else:
                try:
                    a, b = input.array, other.array
                except AttributeError:
                    return otherwise(input, other, out)
                d = a.dtype
                if (
                    d is not b.dtype or not (d is f32 or d is f64 or d in direct)
                    or input.device is not CPU or other.device is not CPU or out is not None
                ):  # fmt: skip
                    return otherwise(input, other, out)
                try:
                    y = None if large is None or a.size < _MANY else large(a, b)
                    if y is None:
                        y = pairs(a, b)
                except ValueError:
                    raise size_error(a.shape, b.shape) from None
            if type(y) is not np.ndarray:
                y = np.asarray(y)
            t = wrap(y)
            if (
                input._requires_grad or (other is not None and other._requires_grad)
            ) and vjp is not None and mode.grad:  # fmt: skip
                record(t, input, other, a, b, y)
            return t

        return op

    def record(
        t: Tensor, input: Tensor | None, other: Tensor | None, a: Any, b: Any, y: Any
    ) -> None:
        """Gives t its node; an operand that is a number is None."""
        shape = y.shape
        place_a = place_b = None
        if input is not None and input._requires_grad:
            place_a = (input.node or input) if a.shape == shape else adapt(input, shape)
        if other is not None and other._requires_grad:
            place_b = (other.node or other) if b.shape == shape else adapt(other, shape)
        saved = () if save is None else save(a, b, y, place_a, place_b)
        t._requires_grad = True
        t.node = Node(vjp, (place_a, place_b), saved, t.device)

    def number_first(number: Any, other: Tensor) -> Tensor:
        """2.0 - x, of a float32 or float64 tensor on the CPU."""
        b = other.array
        y = np.asarray(fast(number, b))  # type: ignore[misc]
        t = wrap(y)
        if vjp is not None and mode.grad and other._requires_grad:
            record(t, None, other, number, b, y)
        return t

    def reflected(self: Tensor, other: Any) -> Any:
        kind = type(other)
        if (kind is float or kind is int) and fast is not None:
            d = self.array.dtype
            if (d is f32 or d is f64) and self.device is CPU:
                return number_first(other, self)
        return known_or_not(other, self)

    def with_number(
        input: Tensor, number: Any, common: Any, turned: bool, out: Tensor | None
    ) -> Tensor:
        """NumPy's (CuPy's) function of a floating tensor and a number, which stays one."""
        if isinstance(number, np.generic):
            number = number.item()
        if compares and half(common):  # against the number as a 16-bit one
            number = float(common.type(number))
        x = cast(input, common)
        a, xp, narrow = x.array, x.device.xp, half(common) and not exact
        wide = a.astype(F32) if narrow else a
        y = xp.asarray(call(number, wide, xp) if turned else call(wide, number, xp))
        t = wrap(y.astype(common) if narrow and not compares else y, x.device)
        if vjp is not None and mode.grad and x._requires_grad:
            if turned:
                record(t, None, x, number, a, t.array)
            else:
                record(t, x, None, a, number, t.array)
        return t if out is None else write_out(out, t, name)

    def general(input: Any, other: Any, out: Tensor | None = None) -> Tensor:
        if listed and AUTOCAST and out is None:
            input, other = casts(name, input, other)
        if check is not None:
            check(input, other)
        turned = isinstance(input, NUMBERS)
        if ufunc and turned != isinstance(other, NUMBERS):
            number, tensor = (input, other) if turned else (other, input)
            if isinstance(tensor, Tensor):
                common = dtype_with_number(tensor, number, to_float)
                if common.kind in "fVc" and common.kind not in refuses:
                    return with_number(tensor, number, common, turned, out)
        (x, z), common = operands(name, (input, other), to_float)
        xp = x.device.xp
        if common.kind in refuses:
            raise refusal(name, common, why)
        a, b = x.array, z.array
        try:
            if half(common) and not exact:
                y = call(widened(input, x), widened(other, z), xp)
                y = y.astype(common) if not compares else y
            else:
                y = call(a, b, xp)
        except ValueError:
            raise size_error(a.shape, b.shape) from None
        if type(y) not in ARRAY_TYPES:
            y = xp.asarray(y)
        t = wrap(y, x.device)
        if vjp is not None and mode.grad and (x._requires_grad or z._requires_grad):
            record(t, x, z, a, b, y)
        return t if out is None else write_out(out, t, name)

    def known_or_not(input: Any, other: Any, out: Tensor | None = None) -> Any:
        ours = isinstance(input, _OPERANDS) and isinstance(other, _OPERANDS)
        return general(input, other) if ours else NotImplemented

    op = build(general)
    shapes = "any two that broadcast; the result has the common shape"
    types = "bool result" if compares else "the operands' common dtype"
    document(op, name, summary, example, shapes, types)
    op.operator, op.reflected = build(known_or_not), reflected
    op.operator.ufunc = op.ufunc = fast
    op.on_arrays = lambda a, b: call(a, b, ns(b))
    return op


def several(
    name: str,
    values: tuple[Any, ...],
    forward: Callable[..., Any],
    vjp: Callable[..., Any] | None,
    constants: tuple[Any, ...] = (),
    *,
    to_float: bool = False,
    refuses: str = "",
    why: str = "",
    out: Tensor | None = None,
) -> Tensor:
    """An element-wise function of any number of tensors and numbers: general, not the quickest.

    forward(*arrays, xp) of the common dtype (float32 for the 16-bit ones), and
    vjp(g, *arrays, *constants) with one gradient for each array, of the result's shape.
    """
    tensors, common = operands(name, values, to_float)
    if common.kind in refuses:
        raise refusal(name, common, why)
    like = tensors[0]
    arrays = [t.array for t in tensors]
    try:
        if half(common):
            wide = [widened(v, t) for v, t in zip(values, tensors, strict=True)]
            y = forward(*wide, like.device.xp).astype(common)
        else:
            y = forward(*arrays, like.device.xp)
    except ValueError:
        raise _clash(arrays) from None
    t = result(y, like)
    if vjp is not None and mode.grad and any(x._requires_grad for x in tensors):
        places = tuple(adapt(x, t.array.shape) for x in tensors)
        t._requires_grad = True
        t.node = Node(vjp, places, (*arrays, *constants), like.device)
    return t if out is None else write_out(out, t, name)


def _clash(arrays: list[Any]) -> RuntimeError:
    """The error for the first two of several shapes that do not broadcast."""
    shape: tuple[int, ...] = ()
    for a in arrays:
        try:
            shape = np.broadcast_shapes(shape, a.shape)
        except ValueError:
            return size_error(shape, a.shape)
    return RuntimeError(f"shapes {[list(a.shape) for a in arrays]} cannot be combined")


def _direct(to_float: bool, refuses: str) -> frozenset[Any]:
    """The dtypes of two equal operands that NumPy's function takes without more ado."""
    return frozenset(
        d.numpy for d in dtypes.ALL
        if not half(d.numpy) and d.numpy.kind not in refuses
        and not (to_float and d.category < dtypes.FLOATING)
    )  # fmt: skip


_SAVERS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "a?b b?a": lambda a, b, y, pa, pb: (None if pb is None else a, None if pa is None else b),
    "b y?b": lambda a, b, y, pa, pb: (b, None if pb is None else y),
    "a b": lambda a, b, y, pa, pb: (a, b),
    "a b y": lambda a, b, y, pa, pb: (a, b, y),
}


def _saver(spec: str) -> Any:
    """save(a, b, y, place_a, place_b) -> saved arrays, as `binary` describes `saves`."""
    if not spec or spec in _SAVERS:
        return _SAVERS.get(spec)
    keep = [(s[0], s[2:]) for s in spec.split()]

    def save(a: Any, b: Any, y: Any, pa: Any, pb: Any) -> tuple[Any, ...]:
        values, wanted = {"a": a, "b": b, "y": y}, {"a": pa, "b": pb, "": True}
        return tuple(values[k] if wanted[when] is not None else None for k, when in keep)

    return save


_PLAIN: set[type] = {Tensor}  # Tensor and the package's own subclasses without other behaviour
_OPERANDS = (Tensor, *NUMBERS, np.ndarray)


def _camel(name: str) -> str:
    return "".join(p[:1].upper() + p[1:] for p in name.split("_"))


def _caller(forward: Any) -> Callable[..., Any]:
    """forward for any array module: the same ufunc of that module, or forward(*arrays, xp)."""
    if not isinstance(forward, np.ufunc):
        return forward

    logical = forward.__name__.startswith("logical")

    def call(*args: Any) -> Any:
        *arrays, xp = args
        if xp is np:
            return forward(*arrays)
        if logical and arrays[0].dtype.kind == "c":  # CuPy's take no complex numbers
            arrays = [a != 0 for a in arrays]
        return getattr(xp, forward.__name__)(*arrays)

    return call
