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
from gpunn.autograd.graph import Node, adopt, broadcast_vjp, check_inplace, mode, result, vjp
from gpunn.device import CPU, Device
from gpunn.dtypes import BF16, F16, F32, F64
from gpunn.tensor import ARRAY_TYPES, Tensor, wrap

_new = object.__new__
NUMBERS = (int, float, complex, bool, np.generic)
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
    function.__doc__ = _DOC.format(
        summary=summary, shapes=shapes, dtypes=types, name=name,
        example=example.replace("\n", "\n    "),
    )  # fmt: skip


# --- operands -----------------------------------------------------------------------------


def as_tensor_like(value: Any, like: Tensor, name: str) -> Tensor:
    """An operand that is no Tensor as one on the same device."""
    if isinstance(value, NUMBERS):
        d = dtypes.of_scalar(value)
        return wrap(like.device.xp.asarray(value, dtype=d.numpy), like.device)
    if isinstance(value, np.ndarray) or type(value) in ARRAY_TYPES:
        return wrap(like.device.xp.asarray(value), like.device)
    raise TypeError(
        f"{name}(): argument must be Tensor or number, not {type(value).__name__}"
    )


def conjugate(x: Any) -> Any:
    """The conjugate of an array, Tensor or number; real arrays are not copied."""
    return x.conjugate() if isinstance(x, NUMBERS) else x.conj()


def priority(original: Any) -> int:
    """How much an operand counts in type promotion: see `dtypes.result_of`."""
    if isinstance(original, Tensor):
        return 2 if original.array.ndim else 1
    return 0 if isinstance(original, NUMBERS) else 2


def same_device(name: str, values: tuple[Any, ...]) -> Device:
    """The device of all operands; 0-dim CPU tensors go with any. RuntimeError where two differ."""
    tensors = [v for v in values if isinstance(v, Tensor)]
    strong = [t for t in tensors if t.array.ndim or t.device.type != "cpu"] or tensors
    device = strong[0].device if strong else CPU
    for t in strong:
        if t.device is not device:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, "
                f"{device} and {t.device}! ({name}) Use .to() to move one of them."
            )
    return device


def cast(x: Tensor, to: np.dtype) -> Tensor:
    """x in another dtype, recorded."""
    if x.array.dtype == to:
        return x
    return result(cast_array(x.array, to), x, _to_copy_vjp, (x,), (x.array.dtype,))


def cast_array(array: Any, to: Any) -> Any:
    """A raw array in another dtype: complex to real drops the imaginary part in silence."""
    if array.dtype.kind == "c" and np.dtype(to).kind not in "cb":
        array = array.real
    return array.astype(to, copy=False)


@vjp((None,))
def _to_copy_vjp(g: Any, to: np.dtype) -> Any:
    if isinstance(g, Tensor):
        return cast(g, to)
    return cast_array(g, to)


def operands(name: str, values: tuple[Any, ...], to_float: bool) -> tuple[list[Tensor], Any]:
    """The operands as Tensors of one dtype on one device, and that dtype."""
    like = next((v for v in values if isinstance(v, Tensor)), None)
    if like is None:
        raise TypeError(
            f"{name}(): argument 'input' (position 1) must be Tensor, not "
            f"{type(values[0]).__name__}"
        )
    device = same_device(name, values)
    tensors = [
        v if isinstance(v, Tensor) else as_tensor_like(v, like, name) for v in values
    ]
    common = tensors[0].dtype
    if any(t.dtype is not common for t in tensors):
        pairs = [(t.dtype, priority(v)) for t, v in zip(tensors, values, strict=True)]
        common = dtypes.result_of(pairs)
    if to_float and common.category < dtypes.FLOATING:
        common = dtypes.get_default_dtype()
    cast_to = [
        cast(t if t.device is device else t.to(device), common.numpy) for t in tensors
    ]
    return cast_to, common.numpy


def adapt(t: Tensor, shape: tuple[int, ...]) -> Any:
    """The vertex of an operand that was broadcast to `shape`."""
    if not t._requires_grad:
        return None
    place = t.node or t
    if t.array.shape == shape:
        return place
    return Node(broadcast_vjp, (place,), (t.array.shape,), t.device)


def size_error(a: Any, b: Any) -> RuntimeError:
    """PyTorch's error for shapes that do not broadcast, naming the dimension."""
    n = max(len(a), len(b))
    left, right = (1,) * (n - len(a)) + tuple(a), (1,) * (n - len(b)) + tuple(b)
    for dim in range(n - 1, -1, -1):
        x, y = left[dim], right[dim]
        if x != y and x != 1 and y != 1:
            return RuntimeError(
                f"The size of tensor a ({x}) must match the size of tensor b ({y}) at "
                f"non-singleton dimension {dim} (shapes {list(a)} and {list(b)})"
            )
    return RuntimeError(f"shapes {list(a)} and {list(b)} cannot be combined")


def write_out(out: Tensor, value: Tensor, name: str) -> Tensor:
    """Fills an `out=` argument."""
    if mode.grad and (out._requires_grad or value._requires_grad):
        raise RuntimeError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )
    if not dtypes.can_cast(value.dtype, out.dtype):
        raise RuntimeError(
            f"result type {value.dtype.name} can't be cast to the desired output type "
            f"{out.dtype.name}"
        )
    if out.device is not value.device:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, "
            f"{out.device} and {value.device}! ({name})"
        )
    if out.array.shape != value.array.shape:
        out.array = out.device.xp.empty(value.array.shape, out.array.dtype)
    out.array[...] = value.array
    adopt(out, wrap(value.array, value.device))
    return out


def half(dtype: Any) -> bool:
    """Whether arithmetic in this dtype is done in float32 and rounded."""
    return dtype is F16 or dtype is BF16 or dtype == BF16


# --- the makers ---------------------------------------------------------------------------


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
    real: bool = False,
    node_name: str | None = None,
) -> Any:
    """An element-wise function of one tensor.

    `forward` is NumPy's function, or `f(x, xp)` where `forward.needs_xp`; `vjp(g, saved)` with
    saved = the input (`saves` 0) or output (-1); `vjp(g)` for None. `to_float`: integers become
    the default float. `keep_integers`: integers pass through unchanged (floor, ceil).
    """
    if vjp is not None:
        vjp.saves = () if saves is None else (saves,)  # type: ignore[attr-defined]
        vjp.node_name = node_name or _camel(name) + "Backward0"  # type: ignore[attr-defined]
    call = _caller(forward, name)
    fast = forward if isinstance(forward, np.ufunc) else None

    def op(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        try:
            x = input.array
        except AttributeError:
            raise TypeError(
                f"{name}(): argument 'input' (position 1) must be Tensor, not "
                f"{type(input).__name__}"
            ) from None
        d = x.dtype
        if fast is not None and (d is F32 or d is F64) and out is None and input.device is CPU:
            y = fast(x)
            if type(y) is not np.ndarray:
                y = np.asarray(y)
            t = wrap(y)
        else:
            x, y = general(input, x)
            if type(y) not in ARRAY_TYPES:
                y = input.device.xp.asarray(y)
            if out is not None:
                return write_out(out, wrap(y, input.device), name)
            t = wrap(y, input.device)
        if input._requires_grad and mode.grad and vjp is not None and y.dtype.kind not in "bi":
            t._requires_grad = True
            saved = () if saves is None else (y if saves else x,)
            place = input.node or input
            t.node = Node(vjp, (place,), saved, input.device)
        return t

    def general(input: Tensor, x: Any) -> tuple[Any, Any]:
        d = x.dtype
        if d.kind in "biu":
            if keep_integers:
                return x, x.copy()
            if to_float:
                x = x.astype(dtypes.get_default_dtype().numpy)
        elif d.kind == "c" and real:
            raise RuntimeError(f'"{name}" not implemented for \'Complex{d.name[7:]}\'')
        if half(x.dtype):
            y = call(x.astype(F32), input.device.xp)
            return x, (y.astype(x.dtype) if y.dtype == F32 else y)
        return x, call(x, input.device.xp)

    shapes = "any shape; the result has the same"
    types = "integers give the default float" if to_float else "the result has the input's dtype"
    document(op, name, summary, example, shapes, types)
    return op


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
    no_bool: bool = False,
    node_name: str | None = None,
) -> Any:
    """An element-wise function of two tensors, or a tensor and a number.

    `vjp(g, *saved)` returns two gradients. `saves` lists what it reads, "a" and "b" (the
    operands) and "y" (the result): "b y?b" saves b always, and y only where b needs a gradient
    (None otherwise). `compares`: the result is bool and has no gradient.
    """
    save = _saver(saves)
    if vjp is not None:
        codes = {"a": 0, "b": 1, "y": -1}
        vjp.saves = tuple(codes[s[0]] for s in saves.split())  # type: ignore[attr-defined]
        vjp.node_name = node_name or _camel(name) + "Backward0"  # type: ignore[attr-defined]
    call = _caller(forward, name)
    fast = forward if isinstance(forward, np.ufunc) else None

    def op(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
        kind = type(other)
        if kind is float or kind is int:
            if fast is None or type(input) not in _PLAIN or out is not None:
                return general(input, other, out)
            a, b = input.array, other
            d = a.dtype
            if not (d is F32 or d is F64) or input.device is not CPU:
                return general(input, other, out)
            y = fast(a, b)
            other = None
        else:
            try:
                a, b = input.array, other.array
            except AttributeError:
                return general(input, other, out)
            d = a.dtype
            if (
                d is not b.dtype or not (d is F32 or d is F64) or fast is None
                or input.device is not CPU or other.device is not CPU or out is not None
            ):  # fmt: skip
                return general(input, other, out)
            try:
                y = fast(a, b)
            except ValueError:
                raise size_error(a.shape, b.shape) from None
        if type(y) is not np.ndarray:
            y = np.asarray(y)
        t = wrap(y)
        if vjp is not None and mode.grad:
            if input._requires_grad or (other is not None and other._requires_grad):
                record(t, input, other, a, b, y)
        return t

    def record(t: Tensor, input: Tensor, other: Tensor | None, a: Any, b: Any, y: Any) -> None:
        """Gives t its node."""
        shape = y.shape
        place_a = place_b = None
        if input._requires_grad:
            place_a = (input.node or input) if a.shape == shape else adapt(input, shape)
        if other is not None and other._requires_grad:
            place_b = (other.node or other) if b.shape == shape else adapt(other, shape)
        saved = () if save is None else save(a, b, y, place_a, place_b)
        t._requires_grad = True
        t.node = Node(vjp, (place_a, place_b), saved, t.device)

    def general(input: Any, other: Any, out: Tensor | None) -> Tensor:
        (x, z), common = operands(name, (input, other), to_float)
        xp = x.device.xp
        if no_bool and common == np.bool_:
            raise RuntimeError(_NO_BOOL[name])
        a, b = x.array, z.array
        try:
            if half(common):
                y = call(a.astype(F32), b.astype(F32), xp)
                y = y.astype(common) if not compares else y
            else:
                y = call(a, b, xp)
        except ValueError:
            raise size_error(a.shape, b.shape) from None
        if type(y) not in ARRAY_TYPES:
            y = xp.asarray(y)
        t = wrap(y, x.device)
        if out is not None:
            return write_out(out, t, name)
        if vjp is not None and mode.grad and (x._requires_grad or z._requires_grad):
            record(t, x, z, a, b, y)
        return t

    shapes = "any two that broadcast; the result has the common shape"
    types = "bool result" if compares else "the operands' common dtype"
    document(op, name, summary, example, shapes, types)
    return op


def _saver(spec: str) -> Any:
    """save(a, b, y, place_a, place_b) -> saved arrays, as `binary` describes `saves`."""
    if not spec:
        return None
    if spec == "a?b b?a":
        return lambda a, b, y, pa, pb: (None if pb is None else a, None if pa is None else b)
    keep = [(s[0], s[2:]) for s in spec.split()]

    def save(a: Any, b: Any, y: Any, pa: Any, pb: Any) -> tuple[Any, ...]:
        values, wanted = {"a": a, "b": b, "y": y}, {"a": pa, "b": pb, "": True}
        return tuple(values[k] if wanted[when] is not None else None for k, when in keep)

    return save


_PLAIN: set[type] = {Tensor}  # Tensor and the package's own subclasses without other behaviour
_NO_BOOL = {
    "sub": "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or "
    "`logical_xor()` operator instead.",
    "neg": "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to "
    "invert a mask, use the `~` or `logical_not()` operator instead.",
}


def _camel(name: str) -> str:
    return "".join(p[:1].upper() + p[1:] for p in name.split("_"))


def _caller(forward: Any, name: str) -> Callable[..., Any]:
    """forward for any array module: the same ufunc of that module, or forward(*arrays, xp)."""
    if not isinstance(forward, np.ufunc):
        return forward

    def call(*args: Any) -> Any:
        xp = args[-1]
        return (forward if xp is np else getattr(xp, forward.__name__))(*args[:-1])

    return call


def inplace(op: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """The in-place form `x.op_(...)`: computes op, writes it into x, and takes over its history."""
    stem = name or op.__name__

    def op_(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_inplace(self)
        return write(self, op(self, *args, **kwargs), stem)

    op_.__name__ = op_.__qualname__ = stem + "_"
    op_.__doc__ = f"In-place version of `{stem}`: changes this tensor and returns it."
    return op_


def write(target: Tensor, value: Tensor, name: str) -> Tensor:
    """target[...] = value, with value's history: the second half of every in-place operation."""
    a, v = target.array, value.array
    if v.shape != a.shape:
        raise RuntimeError(
            f"output with shape {list(a.shape)} doesn't match the broadcast shape {list(v.shape)} "
            f"({name}_)"
        )
    if v.dtype is not a.dtype:
        if not dtypes.can_cast(value.dtype, target.dtype):
            raise RuntimeError(
                f"result type {_PROPER.get(value.dtype.name, value.dtype.name)} can't be cast to "
                f"the desired output type {_PROPER.get(target.dtype.name, target.dtype.name)}"
            )
        value = cast(value, a.dtype)
    if any(s == 0 and n > 1 for s, n in zip(a.strides, a.shape, strict=True)):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )
    a[...] = value.array
    adopt(target, value)
    return target


_PROPER = {
    "float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16",
    "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte",
    "bool": "Bool", "complex64": "ComplexFloat", "complex128": "ComplexDouble",
}  # fmt: skip
