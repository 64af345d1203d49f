"""Operands: Tensors of one dtype on one device out of what an operation was called with.

Also the vertex of an operand that was broadcast, and the errors of operands that do not fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import Node, broadcast_vjp, result, vjp
from gpunn.device import CPU, Device
from gpunn.dtypes import BF16, F16, F32
from gpunn.tensor import ARRAY_TYPES, Tensor, wrap

NUMBERS = (int, float, complex, bool, np.generic)


def conjugate(x: Any) -> Any:
    """The conjugate of an array, Tensor or number; real arrays are not copied."""
    return x.conjugate() if isinstance(x, NUMBERS) else x.conj()


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


def common_dtype(pairs: list[tuple[dtypes.dtype, int]], to_float: bool) -> np.dtype:
    """The NumPy dtype of a result from the operands' (dtype, priority): see `dtypes.result_of`."""
    common = pairs[0][0]
    if any(d is not common for d, _ in pairs):
        common = dtypes.result_of(pairs)
    if to_float and common.category < dtypes.FLOATING:
        common = dtypes.get_default_dtype()
    return common.numpy


def dtype_with_number(x: Tensor, number: Any, to_float: bool) -> np.dtype:
    """The dtype of a result from a tensor and a number."""
    return common_dtype(
        [(x.dtype, 2 if x.array.ndim else 1), (dtypes.of_scalar(number), 0)], to_float
    )


def operands(name: str, values: tuple[Any, ...], to_float: bool) -> tuple[list[Tensor], Any]:
    """The operands as Tensors of one dtype on one device, and that NumPy dtype."""
    device = same_device(name, values)
    pairs = []
    for i, v in enumerate(values):
        if isinstance(v, Tensor):
            pairs.append((v.dtype, 2 if v.array.ndim else 1))
        elif isinstance(v, NUMBERS):
            pairs.append((dtypes.of_scalar(v), 0))
        elif isinstance(v, np.ndarray) or type(v) in ARRAY_TYPES:
            pairs.append((dtypes.of(v.dtype), 2))
        else:
            raise not_a_tensor(name, v, "other" if i else "input", i + 1)
    common = common_dtype(pairs, to_float)
    return [_operand(v, common, device) for v in values], common


def _operand(value: Any, d: Any, device: Device) -> Tensor:
    """One operand in the common dtype; a number is rounded to it once, integers wrap around."""
    if not isinstance(value, Tensor):
        return wrap(device.xp.asarray(value).astype(d), device)
    return cast(value if value.device is device else value.to(device), d)  # type: ignore[attr-defined]


def widened(value: Any, operand: Tensor) -> Any:
    """The float32 array that 16-bit arithmetic uses for an operand: numbers are not rounded."""
    if isinstance(value, NUMBERS):
        return operand.device.xp.asarray(value, dtype=F32)
    return operand.array.astype(F32)


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


def half(dtype: Any) -> bool:
    """Whether arithmetic in this dtype is done in float32 and rounded."""
    return dtype is F16 or dtype is BF16 or dtype == BF16


_PROPER = {
    "float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16",
    "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte",
    "bool": "Bool", "complex64": "ComplexFloat", "complex128": "ComplexDouble",
}  # fmt: skip


def proper(d: dtypes.dtype) -> str:
    """The name of a dtype in PyTorch's errors: Float, Long, ComplexDouble."""
    return _PROPER.get(d.name, d.name)


def not_a_tensor(name: str, value: Any, argument: str = "input", position: int = 1) -> TypeError:
    """PyTorch's error for an argument that is no Tensor."""
    kind = "numpy.ndarray" if type(value) is np.ndarray else type(value).__name__
    return TypeError(
        f"{name}(): argument '{argument}' (position {position}) must be Tensor, not {kind}"
    )


def check_tensors(name: str, input: Any, target: Any) -> None:
    """TypeError unless both arguments of a loss are Tensors."""
    if not isinstance(input, Tensor):
        raise not_a_tensor(name, input)
    if not isinstance(target, Tensor):
        raise not_a_tensor(name, target, "target", 2)


def no_array(error: BaseException, owner: str) -> TypeError | None:
    """What to raise where an operation asked for the array of an argument that has none.

    Operations read `x.array` unchecked, as a check would cost every call: only when that failed
    is it found out which argument of which function it was. `owner`: a name for what has none.
    """
    value = getattr(error, "obj", None)
    if type(error) is not AttributeError or error.name != "array" or isinstance(value, Tensor):
        return None
    from gpunn.nn import functional  # it imports this file

    place, trace = (owner, "input", 1), error.__traceback__
    while trace is not None:
        code, values = trace.tb_frame.f_code, trace.tb_frame.f_locals
        names = code.co_varnames[: code.co_argcount]
        at = next((i for i, name in enumerate(names) if values.get(name) is value), None)
        if at is not None and names[0] == "self":
            place = owner, names[at], at
        elif at is not None and hasattr(functional, code.co_name):
            place = code.co_name, names[at], at + 1
            break
        trace = trace.tb_next
    return not_a_tensor(place[0], value, *place[1:])


def refusal(name: str, dtype: Any, why: str = "") -> RuntimeError:
    """PyTorch's error for a dtype that an operation does not take."""
    kind = proper(dtypes.of(dtype))
    if why:
        return RuntimeError(why)
    return NotImplementedError(f"\"{name}_cpu\" not implemented for '{kind}'")
