"""Tensors from data: numbers, nested lists, arrays, buffers; copied or sharing their memory."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.device import CPU, Device, resolve, transfer
from gpunn.dtypes import as_dtype
from gpunn.ops._rows import NUMBERS, proper, write_out
from gpunn.ops.convert import to_device
from gpunn.tensor import ARRAY_TYPES, Tensor, wrap


def finish(array: Any, device: Device, requires_grad: bool, out: Tensor | None = None) -> Tensor:
    """The tensor of a creation function, with its `requires_grad` and `out` arguments."""
    t = wrap(array, device)
    if out is not None:
        return write_out(out, t, "creation")
    if requires_grad:
        t.requires_grad = True
    return t


# --- Python data ----------------------------------------------------------------------------

_PLAIN_NUMBERS = {bool, int, float, complex}


def infer_dtype(data: Any, depth: int = 0) -> dtypes.dtype:
    """The dtype that nested Python data gets: the highest category in it."""
    if isinstance(data, NUMBERS) and not isinstance(data, np.generic):
        return dtypes.of_scalar(data)
    if isinstance(data, (Tensor, np.ndarray, np.generic)):
        return dtypes.of(data.array.dtype if isinstance(data, Tensor) else data.dtype)
    if isinstance(data, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__") or isinstance(data, dict):
        raise RuntimeError(f"Could not infer dtype of {type(data).__name__}")
    kinds = set(map(type, data))
    if kinds <= _PLAIN_NUMBERS and kinds:  # one look at the types, not one at every number
        return functools.reduce(dtypes.promote_types, (dtypes.of_scalar(k(0)) for k in kinds))
    if len(data) and isinstance(data[0], str):
        raise ValueError("too many dimensions 'str'")
    found = None
    for item in data:
        d = infer_dtype(item)
        found = d if found is None else dtypes.promote_types(found, d)
    return found or dtypes.get_default_dtype()


def data_array(data: Any, dtype: dtypes.dtype | None) -> np.ndarray:
    """Nested Python data as a new NumPy array of the dtype that PyTorch would give it."""
    if isinstance(data, np.ndarray):
        source = data if dtype is not None else data.astype(dtypes.of(data.dtype).numpy, copy=False)
        wanted = dtype.numpy if dtype else source.dtype
        return canonical(np.array(source, dtype=wanted, order="C", copy=True))
    if hasattr(data, "__array__") and not isinstance(data, (np.generic, Tensor)):
        return data_array(np.asarray(data), dtype)
    wanted = (dtype or infer_dtype(data)).numpy
    if isinstance(data, (list, tuple)) and any(isinstance(v, Tensor) for v in data):
        data = [_number_of(v) if isinstance(v, Tensor) else v for v in data]
    try:
        if wanted.kind in "iu":
            return integers(data, wanted)
        return np.array(data, dtype=wanted)
    except OverflowError:
        raise ValueError("Overflow when unpacking long long") from None
    except (ValueError, TypeError) as error:
        if "inhomogeneous" in str(error) or "sequence" in str(error):
            raise _ragged(data) from None
        raise


def canonical(array: np.ndarray) -> np.ndarray:
    """The array with NumPy's own dtype object, which operations compare by identity.

    Arrays from a pickle, and so from other processes, bring a dtype object of their own.
    """
    wanted = dtypes.of(array.dtype).numpy
    return array if array.dtype is wanted else array.view(wanted)


def _number_of(x: Tensor) -> Any:
    if x.array.size != 1:
        raise ValueError("only one element tensors can be converted to Python scalars")
    return x.item()


def integers(data: Any, wanted: np.dtype) -> np.ndarray:
    """Nested numbers cut to integers, with PyTorch's errors for those that do not fit."""
    plain = np.array(data)
    if plain.dtype == object or (plain.dtype == np.uint64 and wanted != np.uint64):
        _refuse_large(data)
    if plain.dtype == object:
        raise _ragged(data)
    if plain.dtype.kind == "c":
        raise TypeError("must be real number, not complex")
    if plain.size and plain.dtype != wanted and plain.dtype.kind != "b":
        limit = np.iinfo(wanted)
        low = -limit.max if wanted.kind == "u" else limit.min  # negative ones wrap, as in C
        if not (low <= plain.min() and plain.max() <= limit.max):
            raise RuntimeError(
                f"value cannot be converted to type {wanted.name} without overflow"
            )
        if plain.dtype.kind == "f":
            plain = plain.astype(np.int64)
    return plain.astype(wanted)


def _refuse_large(data: Any) -> None:
    """ValueError where data is, or begins with, a Python int of more than 64 bits."""
    while hasattr(data, "__getitem__") and len(data):
        data = max(data) if all(isinstance(v, int) for v in data) else data[0]
    if isinstance(data, int) and not -(2**63) <= data < 2**63:
        raise ValueError(f"Overflow when unpacking long long: {data}")


def _ragged(data: Any, dim: int = 0) -> Exception:
    """The error that names the first sequence whose length differs from its neighbours'."""
    if not hasattr(data[0], "__len__"):
        return TypeError(f"not a number, but the first is: {data!r}"[:100])
    first = len(data[0])
    for i, row in enumerate(data):
        if not hasattr(row, "__len__"):
            return TypeError(f"not a sequence: element {i} at dim {dim + 1} is {row!r}")
        if len(row) != first:
            return ValueError(
                f"expected sequence of length {first} at dim {dim + 1} (got {len(row)}), in "
                f"element {i}"
            )
    return _ragged(data[0], dim + 1) if first else ValueError("sequences of different lengths")


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A new tensor with a copy of `data`: numbers, nested lists, arrays, tensors.

    dtype: inferred (float for floats, int64 for ints, bool) unless given. Ragged lists raise
    ValueError, strings TypeError, other objects RuntimeError. A tensor warns, as in PyTorch: the
    copy has no gradient.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.tensor.html

    >>> gpunn.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    d = None if dtype is None else as_dtype(dtype)
    if isinstance(data, Tensor):
        warnings.warn(
            "To copy construct from a tensor, it is recommended to use "
            "sourceTensor.detach().clone() or sourceTensor.detach().clone().requires_grad_(True), "
            "rather than torch.tensor(sourceTensor).",
            stacklevel=2,
        )
        where = data.device if device is None else resolve(device)
        made = to_device(data.detach(), where)
        array = made.array.astype(d.numpy if d else made.array.dtype, order="C", copy=True)
    else:
        where = resolve(device)
        if type(data) in ARRAY_TYPES and type(data) is not np.ndarray:
            array = where.xp.array(data, dtype=d.numpy if d else None)
        else:
            array = data_array(data, d)
            if where.xp is not np:
                array = transfer(array, CPU, where)
    made = finish(array, where, requires_grad)
    return made.pin_memory() if pin_memory else made  # type: ignore[attr-defined]


def scalar_tensor(
    s: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A 0-dim tensor of one number, of the default floating dtype unless given.

    >>> gpunn.scalar_tensor(3)
    tensor(3.)
    """
    kind = dtypes.get_default_dtype()
    return tensor(
        s, dtype=kind.to_complex() if dtype is None and isinstance(s, complex) else dtype or kind,
        device=device, requires_grad=requires_grad,
    )  # fmt: skip


# --- shared memory ----------------------------------------------------------------------------


def _shared(data: Any) -> Tensor | None:
    """A tensor over the memory of an array (NumPy's, CuPy's); None for other objects."""
    if isinstance(data, Tensor):
        return data
    if type(data) in ARRAY_TYPES and type(data) is not np.ndarray:
        home = Device("cuda", data.device.id)
        return wrap(home.xp.asarray(data), home)
    return from_numpy(data) if isinstance(data, np.ndarray) else None


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory where dtype and device already fit.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.as_tensor.html

    >>> gpunn.as_tensor(np.array([1.0]))
    tensor([1.], dtype=torch.float64)
    """
    made = _shared(data)
    if made is None:
        return tensor(data, dtype=dtype, device=device)
    stays = device is None and (isinstance(data, Tensor) or made.device.type == "cuda")
    return made.to(device=made.device if stays else resolve(device), dtype=dtype)  # type: ignore[attr-defined]


def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None,
    requires_grad: bool | None = None,
) -> Tensor:  # fmt: skip
    """`obj` as a tensor: of a tensor, an array, DLPack, a buffer, or nested numbers.

    Memory is shared where possible unless `copy`; ValueError where copy=False cannot be. With
    requires_grad=False it is detached, without it a tensor keeps its own.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.asarray.html

    >>> gpunn.asarray([1, 2])
    tensor([1, 2])
    """
    made = _shared(obj)
    if made is None and hasattr(obj, "__dlpack__"):
        from gpunn.ops.interop import from_dlpack

        made = from_dlpack(obj)
    if made is None and isinstance(obj, (bytes, bytearray, memoryview)):
        made = frombuffer(obj, dtype=dtype or dtypes.get_default_dtype())
    if made is None:
        if copy is False:
            raise ValueError("can't alias arbitrary sequence into a tensor.")
        return tensor(obj, dtype=dtype, device=device, requires_grad=bool(requires_grad))
    d, where = dtype or made.dtype, made.device if device is None else resolve(device)
    if copy is False:
        _check_alias(made, as_dtype(d), where)
    if requires_grad is False:
        made = made.detach()
    moved = made.to(device=where, dtype=d)  # type: ignore[attr-defined]
    made = moved.clone() if copy and moved is made else moved
    return made.requires_grad_() if requires_grad and made.is_leaf else made


def _check_alias(x: Tensor, d: dtypes.dtype, device: Device) -> None:
    if device is not x.device:
        raise ValueError(f"can't alias tensor from device '{x.device}' to '{device}'.")
    if d is not x.dtype:
        raise ValueError(
            f"can't alias tensor with dtype '{proper(x.dtype)}' into dtype '{proper(d)}'."
        )


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A CPU tensor that shares the memory of a NumPy array.

    TypeError for objects that are no ndarray and for dtypes without a counterpart.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.from_numpy.html

    >>> a = np.zeros(2)
    >>> t = gpunn.from_numpy(a)
    >>> a[0] = 1
    >>> t
    tensor([1., 0.], dtype=torch.float64)
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    dtypes.of(ndarray.dtype)
    if not ndarray.dtype.isnative:
        raise ValueError(
            "given numpy array has byte order different from the native byte order. Conversion "
            "between byte orders is currently not supported."
        )
    if any(s < 0 for s in ndarray.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative "
            "strides are not currently supported. (You can probably work around this by making a "
            "copy of your array with array.copy().)"
        )
    if any(s % ndarray.itemsize for s in ndarray.strides):
        raise ValueError(
            "given numpy array strides not a multiple of the element byte size. Copy the numpy "
            "array to reallocate the memory."
        )
    return wrap(canonical(np.asarray(ndarray)))


def frombuffer(
    buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """A one-dimensional CPU tensor over the memory of an object with Python's buffer protocol.

    count: how many elements (-1 for all), offset: how many bytes to skip. ValueError where the
    buffer does not hold them; a read-only buffer gives a read-only tensor.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.frombuffer.html

    >>> gpunn.frombuffer(bytearray(b"\\x01\\x02"), dtype=gpunn.uint8)
    tensor([1, 2], dtype=torch.uint8)
    """
    try:
        length = memoryview(buffer).nbytes
    except TypeError:
        raise ValueError("object does not implement Python buffer protocol.") from None
    d = as_dtype(dtype)
    rest = length - offset
    if length == 0 or count == 0:
        raise ValueError(f"both buffer length ({length}) and count ({count}) must not be 0")
    if not 0 <= offset < length:
        raise ValueError(
            f"offset ({offset} bytes) must be non-negative and no greater than buffer length "
            f"({length} bytes) minus 1"
        )
    if count < 0 and rest % d.itemsize:
        raise ValueError(
            f"buffer length ({rest} bytes) after offset ({offset} bytes) must be a multiple of "
            f"element size ({d.itemsize})"
        )
    if count > 0 and count * d.itemsize > rest:
        raise ValueError(
            f"requested buffer length ({count} * {d.itemsize} bytes) after offset ({offset} "
            f"bytes) must not be greater than actual buffer length ({length} bytes)"
        )
    return finish(np.frombuffer(buffer, d.numpy, count, offset), CPU, requires_grad)


__all__ = ["as_tensor", "asarray", "from_numpy", "frombuffer", "scalar_tensor", "tensor"]
