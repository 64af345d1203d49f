"""Moving and copying: to another device, another dtype, another order in memory."""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

from typing import Any

from gpunn import dtypes
from gpunn.autograd.graph import result, vjp
from gpunn.device import CPU, Device, resolve, transfer
from gpunn.dtypes import as_dtype
from gpunn.layout import (
    contiguous_format,
    fits,
    lay_out,
    memory_format,
    preserve_format,
    stays,
    strided,
)
from gpunn.ops._rows import cast
from gpunn.tensor import Tensor, method, wrap


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
def clone(input: Tensor, *, memory_format: memory_format | None = preserve_format) -> Tensor:
    """A copy, recorded: gradients flow back to `input`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.clone.html

    >>> gpunn.clone(gpunn.tensor([1]))
    tensor([1])
    """
    array = lay_out(input.array, memory_format or preserve_format)
    if array is input.array:
        array = array.copy(order="K")
    return result(array, input, _clone_vjp, (input,))


@method
def contiguous(
    input: Tensor, memory_format: memory_format | None = contiguous_format
) -> Tensor:
    """The tensor itself where its elements lie in C order, else a copy in that order.

    `memory_format` may be another order. RuntimeError for `preserve_format`, and for channels
    last where the number of dimensions does not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.contiguous.html

    >>> gpunn.zeros(2, 3).T.contiguous().stride()
    (2, 1)
    """
    if fits(input.array, memory_format):
        return input
    return result(lay_out(input.array, memory_format), input, _clone_vjp, (input,))


@method
def is_contiguous(input: Tensor, memory_format: memory_format | None = contiguous_format) -> bool:
    """Whether the elements lie in memory in C order, or in another memory format's."""
    return fits(input.array, memory_format)


@method
def to(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The tensor with another dtype and on another device; itself where nothing changes.

    `to(dtype)`, `to(device)`, `to(device, dtype)`, `to(other)`, with `non_blocking`, `copy`,
    `memory_format`. TypeError for what is none of these.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.to.html

    >>> gpunn.tensor([1]).to(gpunn.float32)
    tensor([1.])
    """
    device, dtype, copy, wanted = parse_to(args, kwargs)
    out = input
    if dtype is not None:
        out = cast(out, dtype.numpy)
    if device is not None:
        out = to_device(out, resolve(device))
    if not stays(out.array, wanted):
        return _laid_out(out, wanted)
    return clone(out) if copy and out is input else out


_TO = {"device", "dtype", "other", "non_blocking", "copy", "memory_format"}


def parse_to(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, bool, Any]:
    """(device, dtype, copy, memory format) of the arguments of `to`."""
    for name in kwargs:
        if name not in _TO:
            raise TypeError(f"to() got an unexpected keyword argument '{name}'")
    device, dtype, copy = kwargs.get("device"), kwargs.get("dtype"), kwargs.get("copy", False)
    flags = []
    for a in (*args, kwargs["other"]) if "other" in kwargs else args:
        if isinstance(a, Tensor):
            device, dtype = a.device, a.dtype
        elif type(a) is dtypes.dtype or a in (float, int, bool, complex) and isinstance(a, type):
            dtype = a
        elif isinstance(a, bool):
            flags.append(a)
        elif isinstance(a, (str, Device, int)):
            device = Device(a)
        elif a is not None:
            raise TypeError(f"to() received an invalid combination of arguments - got ({a!r})")
    if len(flags) > 1:
        copy = flags[1]
    dtype = None if dtype is None else as_dtype(dtype)
    return device, dtype, copy, kwargs.get("memory_format")


@method
def cpu(input: Tensor, memory_format: memory_format | None = preserve_format) -> Tensor:
    """The tensor on the CPU."""
    return _laid_out(to_device(input, CPU), memory_format)


@method
def cuda(
    input: Tensor, device: Any = None, non_blocking: bool = False,
    memory_format: memory_format | None = preserve_format,
) -> Tensor:  # fmt: skip
    """The tensor on a CUDA device; RuntimeError says why where there is none."""
    moved = to_device(input, resolve("cuda" if device is None else Device(device)))
    return _laid_out(moved, memory_format)


def _laid_out(x: Tensor, wanted: memory_format | None) -> Tensor:
    """x in another memory format."""
    if stays(x.array, wanted):
        return x
    return result(lay_out(x.array, wanted), x, _clone_vjp, (x,))


def _to_dtype(name: str, d: dtypes.dtype) -> None:
    def convert(
        input: Tensor, memory_format: memory_format | None = preserve_format
    ) -> Tensor:
        return _laid_out(cast(input, d.numpy), memory_format)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"The tensor as {d.name}, itself where it is that already."
    method(convert)


for _name, _d in (
    ("float", dtypes.float32), ("double", dtypes.float64), ("half", dtypes.float16),
    ("bfloat16", dtypes.bfloat16), ("int", dtypes.int32), ("long", dtypes.int64),
    ("short", dtypes.int16), ("char", dtypes.int8), ("byte", dtypes.uint8),
    ("bool", dtypes.bool_), ("cfloat", dtypes.complex64), ("cdouble", dtypes.complex128),
):  # fmt: skip
    _to_dtype(_name, _d)


Tensor.layout = strided  # type: ignore[assignment]


@method
def type_as(input: Tensor, other: Tensor) -> Tensor:
    """The tensor in other's dtype and on its device."""
    return to(input, other)


@method
def set_(
    self: Tensor, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None
) -> Tensor:
    """Makes this tensor another view: of a tensor's memory, or of a storage from an offset.

    Without a source it becomes empty. RuntimeError for a tensor of another dtype, and where the
    view would reach outside of the storage.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.set_.html

    >>> gpunn.zeros(2).set_(gpunn.ones(3))
    tensor([1., 1., 1.])
    """
    from gpunn.storage import UntypedStorage, untyped_storage, view

    if source is None:
        self.array = self.device.xp.empty(0, self.array.dtype)
        return self
    if isinstance(source, Tensor):
        if source.array.dtype != self.array.dtype:
            raise RuntimeError(
                f"Could not set tensor of type {source.dtype} to a tensor of type {self.dtype}"
            )
        if size is None:
            self.array, self.device = source.array, source.device
            return self
        source = untyped_storage(source)
    if not isinstance(source, UntypedStorage):
        raise TypeError(f"set_(): expected a tensor or a storage, got {type(source).__name__}")
    if size is None:
        size = (source.nbytes() // self.array.itemsize - storage_offset,)
    steps = stride if stride is not None else _steps(tuple(size))
    made = view(source, self.dtype, storage_offset, size, steps)
    self.array, self.device = made.array, made.device
    return self


def _steps(size: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous tensor, in elements."""
    steps, step = [], 1
    for n in reversed(size):
        steps.append(step)
        step *= max(n, 1)
    return tuple(reversed(steps))


__all__ = ["clone"]
