"""Creation: new tensors from data, constants and ranges. Random ones are in `gpunn/random.py`."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import result, vjp
from gpunn.device import CPU, Device, resolve, transfer
from gpunn.dtypes import as_dtype
from gpunn.ops._rows import NUMBERS, cast
from gpunn.ops.views import int_list
from gpunn.tensor import ARRAY_TYPES, Tensor, method, wrap


def finish(array: Any, device: Device, requires_grad: bool, out: Tensor | None = None) -> Tensor:
    """The tensor of a creation function, with its `requires_grad` and `out` arguments."""
    t = wrap(array, device)
    if out is not None:
        from gpunn.ops._rows import write_out

        return write_out(out, t, "creation")
    if requires_grad:
        t.requires_grad = True
    return t


_PLAIN_NUMBERS = {bool, int, float, complex}


def infer_dtype(data: Any) -> dtypes.dtype:
    """The dtype that nested Python data gets: the highest category in it."""
    if isinstance(data, NUMBERS) and not isinstance(data, np.generic):
        return dtypes.of_scalar(data)
    if isinstance(data, (Tensor, np.ndarray, np.generic)):
        return dtypes.of(data.array.dtype if isinstance(data, Tensor) else data.dtype)
    if isinstance(data, (str, bytes)) or not hasattr(data, "__len__"):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    kinds = set(map(type, data))
    if kinds <= _PLAIN_NUMBERS and kinds:  # one look at the types, not one at every number
        return functools.reduce(dtypes.promote_types, (dtypes.of_scalar(k(0)) for k in kinds))
    found = None
    for item in data:
        d = infer_dtype(item)
        found = d if found is None else dtypes.promote_types(found, d)
    return found or dtypes.get_default_dtype()


def data_array(data: Any, dtype: dtypes.dtype | None) -> np.ndarray:
    """Nested Python data as a new NumPy array of the dtype that PyTorch would give it."""
    if isinstance(data, np.ndarray):
        source = data if dtype is not None else data.astype(dtypes.of(data.dtype).numpy, copy=False)
        return np.array(source, dtype=dtype.numpy if dtype else source.dtype, order="C", copy=True)
    if hasattr(data, "__array__") and not isinstance(data, (np.generic, Tensor)):
        return data_array(np.asarray(data), dtype)
    wanted = (dtype or infer_dtype(data)).numpy
    if isinstance(data, (list, tuple)) and any(isinstance(v, Tensor) for v in data):
        data = [v.tolist() if isinstance(v, Tensor) else v for v in data]
    try:
        if wanted.kind in "iu" and not isinstance(data, (int, np.generic)):
            return _integers(data, wanted)
        return np.array(data, dtype=wanted)
    except OverflowError:
        raise RuntimeError("Overflow when unpacking long long") from None
    except ValueError as error:
        if "inhomogeneous" in str(error) or "sequence" in str(error):
            raise ValueError(_ragged(data)) from None
        raise


def _integers(data: Any, wanted: np.dtype) -> np.ndarray:
    """Nested data with floats in it, cut to integers as PyTorch does."""
    plain = np.array(data)
    if plain.dtype == object:
        raise ValueError(_ragged(data))
    return plain.astype(wanted)


def _ragged(data: Any, dim: int = 0) -> str:
    """Names the first sequence whose length differs from its neighbours'."""
    first = len(data[0]) if hasattr(data[0], "__len__") else 0
    for i, row in enumerate(data):
        length = len(row) if hasattr(row, "__len__") else 0
        if length != first:
            return (f"expected sequence of length {first} at dim {dim + 1} (got {length}), "
                    f"in element {i}")  # fmt: skip
    return _ragged(data[0], dim + 1) if first else "expected sequences of equal length"


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A new tensor with a copy of `data`: numbers, nested lists, arrays, tensors.

    dtype: inferred (float for floats, int64 for ints, bool) unless given. Ragged lists raise
    ValueError, other objects TypeError.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.tensor.html

    >>> gpunn.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    d = None if dtype is None else as_dtype(dtype)
    if isinstance(data, Tensor):
        where = data.device if device is None else resolve(device)
        made = to_device(data.detach(), where)
        array = made.array.astype(d.numpy if d else made.array.dtype, order="C", copy=True)
        return finish(array, where, requires_grad)
    where = resolve(device)
    array = data if type(data) in ARRAY_TYPES and type(data) is not np.ndarray else None
    if array is not None:
        array = where.xp.array(array, dtype=d.numpy if d else None)
    else:
        array = data_array(data, d)
        if where.xp is not np:
            array = transfer(array, CPU, where)
    return finish(array, where, requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory where dtype and device already fit.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.as_tensor.html

    >>> gpunn.as_tensor(np.array([1.0]))
    tensor([1.], dtype=torch.float64)
    """
    if isinstance(data, Tensor):
        return data.to(device=device or data.device, dtype=dtype or data.dtype)
    if isinstance(data, np.ndarray):
        return from_numpy(data).to(device=resolve(device), dtype=dtype)
    return tensor(data, dtype=dtype, device=device)


def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """`obj` as a tensor: shared where possible unless `copy`; ValueError if copy=False cannot be.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.asarray.html

    >>> gpunn.asarray([1, 2])
    tensor([1, 2])
    """
    made = as_tensor(obj, dtype, device)
    if not requires_grad:
        made = made.detach()
    if copy:
        made = made.clone()
    return made.requires_grad_() if requires_grad and made.is_leaf else made


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
        raise ValueError("given numpy array has byte order different from the native byte order")
    if any(s < 0 for s in ndarray.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative "
            "strides are not currently supported. (You can probably work around this by making a "
            "copy of your array with array.copy().)"
        )
    return wrap(np.asarray(ndarray))


# --- constants ----------------------------------------------------------------------------


def _filled(name: str, summary: str, example: str) -> Any:
    def create(
        *size: Any, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
        device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
        names: Any = None, memory_format: Any = None,
    ) -> Tensor:  # fmt: skip
        where = resolve(device)
        d = (as_dtype(dtype) if dtype is not None else dtypes.get_default_dtype()).numpy
        return finish(getattr(where.xp, name)(_sizes(size), d), where, requires_grad, out)

    return _named(create, name, summary, example)


def _like(name: str, summary: str, example: str) -> Any:
    def create(
        input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
        requires_grad: bool = False, memory_format: Any = None, pin_memory: bool = False,
    ) -> Tensor:  # fmt: skip
        where = input.device if device is None else resolve(device)
        d = input.array.dtype if dtype is None else as_dtype(dtype).numpy
        return finish(getattr(where.xp, name)(input.array.shape, d), where, requires_grad)

    return _named(create, name + "_like", summary, example)


def _named(function: Any, name: str, summary: str, example: str) -> Any:
    from gpunn.ops._rows import document

    document(function, name, summary, example, "as given", "the default float unless given")
    return function


def _sizes(size: tuple[Any, ...]) -> tuple[int, ...]:
    shape = int_list(size)
    for n in shape:
        if n < 0:
            raise RuntimeError(
                f"Trying to create tensor with negative dimension {n}: {list(shape)}"
            )
    return shape


zeros = _filled("zeros", "Zeros.", "gpunn.zeros(2)\ntensor([0., 0.])")
ones = _filled("ones", "Ones.", "gpunn.ones(2)\ntensor([1., 1.])")
empty = _filled("empty", "Memory as it comes.", "gpunn.empty(2, 3).shape\ntorch.Size([2, 3])")
zeros_like = _like("zeros", "Zeros in input's shape, dtype and device.",
                   "gpunn.zeros_like(gpunn.ones(2))\ntensor([0., 0.])")  # fmt: skip
ones_like = _like("ones", "Ones in input's shape, dtype and device.",
                  "gpunn.ones_like(gpunn.zeros(2))\ntensor([1., 1.])")  # fmt: skip
empty_like = _like("empty", "Memory as it comes, in input's shape, dtype and device.",
                   "gpunn.empty_like(gpunn.ones(2)).shape\ntorch.Size([2])")  # fmt: skip


def full(
    size: Any, fill_value: Any, *, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor filled with one value; its dtype follows the value unless given.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.full.html

    >>> gpunn.full((2,), 7)
    tensor([7, 7])
    """
    where = resolve(device)
    value = fill_value.item() if isinstance(fill_value, Tensor) else fill_value
    d = as_dtype(dtype) if dtype is not None else dtypes.of_scalar(value)
    array = where.xp.full(_sizes((size,)), value, d.numpy)
    return finish(array, where, requires_grad, out)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """A tensor in input's shape, dtype and device filled with one value.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.full_like.html

    >>> gpunn.full_like(gpunn.zeros(2), 7)
    tensor([7., 7.])
    """
    return full(
        input.array.shape, fill_value, dtype=dtype or input.dtype, requires_grad=requires_grad,
        device=input.device if device is None else device,
    )  # fmt: skip


def arange(
    start: Any, end: Any = None, step: Any = 1, *, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """start, start + step, ... below end: int64 for integers, else the default float.

    RuntimeError for step 0 or bounds that step does not join.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.arange.html

    >>> gpunn.arange(1, 7, 2)
    tensor([1, 3, 5])
    """
    if end is None:
        start, end = 0, start
    start, end, step = (v.item() if isinstance(v, Tensor) else v for v in (start, end, step))
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError(
            f"upper bound and lower bound inconsistent with step sign: start {start}, end {end}, "
            f"step {step}"
        )
    whole = all(isinstance(v, (int, np.integer)) for v in (start, end, step))
    d = as_dtype(dtype) if dtype is not None else (
        dtypes.int64 if whole else dtypes.get_default_dtype()
    )  # fmt: skip
    where = resolve(device)
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    xp = where.xp
    array = xp.arange(count, dtype=np.int64 if whole else np.float64) * step + start
    return finish(array.astype(d.numpy), where, requires_grad, out)


def eye(
    n: int, m: int | None = None, *, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Ones on the diagonal of an n by m matrix (n by n), zeros elsewhere.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.eye.html

    >>> gpunn.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    columns = n if m is None else m
    if n < 0 or columns < 0:
        raise RuntimeError(f"n must be greater or equal to 0, got {n} and {columns}")
    where = resolve(device)
    d = (as_dtype(dtype) if dtype is not None else dtypes.get_default_dtype()).numpy
    return finish(where.xp.eye(n, columns, dtype=d), where, requires_grad, out)


# --- moving and copying -------------------------------------------------------------------


@vjp((None, None), name="ToCopyBackward0")
def _move_vjp(g: Any, source: Device, target: Device) -> Any:
    if isinstance(g, Tensor):
        return to_device(g, source)
    return transfer(g, target, source)


def to_device(x: Tensor, device: Device) -> Tensor:
    """x on another device, recorded; x itself where it is there already."""
    if x.device is device:
        return x
    moved = wrap(transfer(x.array, x.device, device), device)
    return result(moved.array, moved, _move_vjp, (x,), (x.device, device))


@vjp()
def _clone_vjp(g: Any) -> Any:
    return g


@method
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy, recorded: gradients flow back to `input`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.clone.html

    >>> gpunn.clone(gpunn.tensor([1]))
    tensor([1])
    """
    return result(input.array.copy(order="K"), input, _clone_vjp, (input,))


@method
def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself where its elements lie in C order, else a copy in that order."""
    if input.array.flags.c_contiguous:
        return input
    return result(input.device.xp.ascontiguousarray(input.array), input, _clone_vjp, (input,))


@method
def to(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The tensor with another dtype and on another device; itself where nothing changes.

    `to(dtype)`, `to(device)`, `to(device, dtype)`, `to(other)`, with `non_blocking`, `copy`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.to.html

    >>> gpunn.tensor([1]).to(gpunn.float32)
    tensor([1.])
    """
    device, dtype, copy = parse_to(args, kwargs)
    out = input
    if dtype is not None:
        out = cast(out, dtype.numpy)
    if device is not None:
        out = to_device(out, resolve(device))
    return clone(out) if copy and out is input else out


def parse_to(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, bool]:
    """(device, dtype, copy) of the arguments of `to`."""
    device, dtype, copy = kwargs.get("device"), kwargs.get("dtype"), kwargs.get("copy", False)
    flags = []
    for a in args:
        if isinstance(a, Tensor):
            device, dtype = a.device, a.dtype
        elif type(a) is dtypes.dtype or a in (float, int, bool) and isinstance(a, type):
            dtype = as_dtype(a)
        elif isinstance(a, bool):
            flags.append(a)
        elif isinstance(a, (str, Device, int)):
            device = Device(a)
        elif a is not None:
            raise TypeError(f"to() received an invalid combination of arguments - got ({a!r})")
    if len(flags) > 1:
        copy = flags[1]
    return device, None if dtype is None else as_dtype(dtype), copy


@method
def cpu(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor on the CPU."""
    return to_device(input, CPU)


@method
def cuda(input: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """The tensor on a CUDA device; RuntimeError says why where there is none."""
    return to_device(input, resolve("cuda" if device is None else Device(device)))


def _to_dtype(name: str, d: dtypes.dtype) -> None:
    def convert(input: Tensor, memory_format: Any = None) -> Tensor:
        return cast(input, d.numpy)

    convert.__name__ = name
    convert.__doc__ = f"The tensor as {d.name}."
    method(convert)


for _name, _d in (
    ("float", dtypes.float32), ("double", dtypes.float64), ("half", dtypes.float16),
    ("bfloat16", dtypes.bfloat16), ("int", dtypes.int32), ("long", dtypes.int64),
    ("short", dtypes.int16), ("char", dtypes.int8), ("byte", dtypes.uint8),
    ("bool", dtypes.bool_), ("cfloat", dtypes.complex64), ("cdouble", dtypes.complex128),
):  # fmt: skip
    _to_dtype(_name, _d)


@method
def type_as(input: Tensor, other: Tensor) -> Tensor:
    """The tensor in other's dtype."""
    return cast(input, other.array.dtype)


def _new(name: str, function: Any) -> None:
    def create(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, **kw: Any) -> Tensor:
        return function(
            *args, dtype=dtype or self.dtype, device=self.device if device is None else device, **kw
        )

    create.__name__ = name
    create.__doc__ = f"`gpunn.{function.__name__}` with this tensor's dtype and device."
    method(create)


for _name, _f in (("new_zeros", zeros), ("new_ones", ones), ("new_empty", empty),
                  ("new_full", full), ("new_tensor", tensor)):  # fmt: skip
    _new(_name, _f)
__all__ = [
    "arange", "as_tensor", "asarray", "clone", "empty", "empty_like", "eye", "from_numpy", "full",
    "full_like", "ones", "ones_like", "tensor", "zeros", "zeros_like",
]  # fmt: skip
