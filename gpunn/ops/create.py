"""Creation: new tensors of constants, or of memory as it comes.

Tensors from data are in `data.py`, ranges and windows in `ranges.py`, random ones in
`gpunn/random.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn import dtypes, settings
from gpunn.device import Device, resolve, transfer
from gpunn.dtypes import as_dtype
from gpunn.layout import lay_out, preserve_format, strided
from gpunn.ops._rows import NUMBERS, document
from gpunn.ops.convert import to_device as to_device
from gpunn.ops.data import as_tensor as as_tensor
from gpunn.ops.data import finish, integers, tensor
from gpunn.tensor import Tensor, method

# --- constants ----------------------------------------------------------------------------


def shape_of(name: str, sizes: tuple[Any, ...], size: Any = None) -> tuple[int, ...]:
    """Sizes given as arguments, as one sequence, or by the keyword `size`."""
    if size is not None:
        if sizes:
            raise TypeError(f"{name}() got multiple values for argument 'size'")
        sizes = tuple(size)
    elif not sizes:
        raise TypeError(f'{name}() missing 1 required positional arguments: "size"')
    elif len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    for n in sizes:
        if type(n) is not int:
            return _whole_sizes(name, sizes)
        if n < 0:
            raise RuntimeError(
                f"{name}: Dimension size must be non-negative. Trying to create tensor with "
                f"negative dimension {n}: {list(sizes)}"
            )
    return sizes


def _whole_sizes(name: str, sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes that are integers of other kinds; TypeError for what is none."""
    for n in sizes:
        whole = isinstance(n, (int, np.integer)) or (
            isinstance(n, Tensor) and n.array.size == 1 and n.array.dtype.kind in "iu"
        )
        if not whole:
            raise TypeError(
                f"{name}(): argument 'size' (position 1) must be tuple of ints, not "
                f"{type(n).__name__}"
            )
    return shape_of(name, tuple(int(n) for n in sizes), None) if sizes else ()


def place(name: str, dtype: Any, layout: Any, device: Any) -> tuple[Device, np.dtype]:
    """(device, NumPy dtype) of the arguments of a creation function."""
    if layout is not None and layout is not strided:
        raise RuntimeError(
            f"{name}(): only the layout torch.strided can be asked for, got {layout}. Sparse "
            "tensors are made by gpunn.sparse_coo_tensor or Tensor.to_sparse."
        )
    d = dtypes.get_default_dtype() if dtype is None else as_dtype(dtype)
    return resolve(device), d.numpy


def fresh(array: Any) -> Any:
    """Memory that nothing was written to: filled where results must repeat."""
    if settings.are_deterministic_algorithms_enabled():
        from gpunn.utils.deterministic import filled

        filled(array)
    return array


def _filled(name: str, summary: str, example: str) -> Any:
    def create(
        *sizes: Any, size: Any = None, out: Tensor | None = None, dtype: Any = None,
        layout: Any = None, device: Any = None, requires_grad: bool = False,
        pin_memory: bool = False, memory_format: Any = None,
    ) -> Tensor:  # fmt: skip
        where, d = place(name, dtype, layout, device)
        array = getattr(where.xp, name)(shape_of(name, sizes, size), d)
        if name == "empty":
            fresh(array)
        if memory_format is not None:
            array = lay_out(array, memory_format)
        made = finish(array, where, requires_grad, out)
        return made.pin_memory() if pin_memory else made  # type: ignore[attr-defined]

    return _named(create, name, summary, example)


def _like(name: str, summary: str, example: str) -> Any:
    def create(
        input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
        requires_grad: bool = False, memory_format: Any = preserve_format,
        pin_memory: bool = False,
    ) -> Tensor:  # fmt: skip
        return _in_likeness(name, input, dtype, device, requires_grad, memory_format)

    return _named(create, name, summary, example)


def _in_likeness(
    name: str, x: Tensor, dtype: Any, device: Any, requires_grad: bool, wanted: Any
) -> Tensor:
    """What NumPy's zeros_like and its kind make of x, elsewhere and laid out otherwise."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}"
        )
    make = getattr(x.device.xp, name)
    where = x.device if device is None else resolve(device)
    array = make(x.array, dtype=x.array.dtype if dtype is None else as_dtype(dtype).numpy)
    if name == "empty_like":
        fresh(array)
    if wanted is not None:
        array = lay_out(array, wanted)
    if where is not x.device:
        array = transfer(array, x.device, where)
    return finish(array, where, requires_grad)


def _named(function: Any, name: str, summary: str, example: str) -> Any:
    document(function, name, summary, example, "as given", "the default float unless given")
    return function


zeros = _filled("zeros", "Zeros.", "gpunn.zeros(2)\ntensor([0., 0.])")
ones = _filled("ones", "Ones.", "gpunn.ones(2)\ntensor([1., 1.])")
empty = _filled("empty", "Memory as it comes.", "gpunn.empty(2, 3).shape\ntorch.Size([2, 3])")
zeros_like = _like("zeros_like", "Zeros in input's shape, dtype and device.",
                   "gpunn.zeros_like(gpunn.ones(2))\ntensor([0., 0.])")  # fmt: skip
ones_like = _like("ones_like", "Ones in input's shape, dtype and device.",
                  "gpunn.ones_like(gpunn.zeros(2))\ntensor([1., 1.])")  # fmt: skip
empty_like = _like("empty_like", "Memory as it comes, in input's shape, dtype and device.",
                   "gpunn.empty_like(gpunn.ones(2)).shape\ntorch.Size([2])")  # fmt: skip


def _number_array(name: str, value: Any, d: np.dtype) -> np.ndarray:
    """A number, or a 0-dim tensor, in a dtype."""
    if isinstance(value, Tensor):
        if value.array.ndim:
            raise TypeError(f"{name}(): argument 'fill_value' (position 2) must be Number, not "
                            "Tensor")  # fmt: skip
        value = value.item()
    if not isinstance(value, NUMBERS):
        raise TypeError(
            f"{name}(): argument 'fill_value' (position 2) must be Number, not "
            f"{type(value).__name__}"
        )
    if isinstance(value, complex) and d.kind not in "cb":
        raise RuntimeError("value cannot be converted to type float without overflow")
    return integers(value, d) if d.kind in "iu" else np.array(value, d)


def full(
    size: Any, fill_value: Any, *, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor filled with one value; its dtype follows the value unless given.

    RuntimeError for a value that an integer dtype does not hold.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.full.html

    >>> gpunn.full((2,), 7)
    tensor([7, 7])
    """
    if not isinstance(size, (tuple, list)):
        raise TypeError(
            f"full(): argument 'size' (position 1) must be tuple of ints, not {type(size).__name__}"
        )
    if dtype is None:
        dtype = out.dtype if out is not None else (
            fill_value.dtype if isinstance(fill_value, Tensor) else dtypes.of_scalar(fill_value)
        )  # fmt: skip
    where, d = place("full", dtype, layout, device)
    value = _number_array("full", fill_value, d)
    array = where.xp.full(shape_of("full", (tuple(size),)), value.item() if where.xp is not np
                          else value, d)  # fmt: skip
    return finish(array, where, requires_grad, out)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, memory_format: Any = preserve_format, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor in input's shape, dtype and device filled with one value.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.full_like.html

    >>> gpunn.full_like(gpunn.zeros(2), 7)
    tensor([7., 7.])
    """
    made = empty_like(input, dtype=dtype, device=device, memory_format=memory_format)
    value = _number_array("full_like", fill_value, made.array.dtype)
    made.array[...] = value if made.device.xp is np else value.item()
    return finish(made.array, made.device, requires_grad)


def empty_strided(
    size: Any, stride: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Memory as it comes, read with the strides given, in elements.

    RuntimeError where sizes and strides differ in number, and for negative strides.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.empty_strided.html

    >>> gpunn.empty_strided((2, 3), (1, 2)).stride()
    (1, 2)
    """
    where, d = place("empty_strided", dtype, layout, device)
    shape = shape_of("empty_strided", (tuple(size),))
    if len(shape) != len(stride):
        raise RuntimeError(
            f"dimensionality of sizes ({len(shape)}) must match dimensionality of strides "
            f"({len(stride)})"
        )
    if any(s < 0 for s in stride):
        raise RuntimeError(
            f"Storage size calculation overflowed with sizes={list(shape)} and "
            f"strides={list(stride)}: strides must not be negative"
        )
    reach = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    memory = fresh(where.xp.empty(max(reach, 1), d))
    steps = tuple(s * d.itemsize for s in stride)
    array = np.ndarray(shape, d, memory, 0, steps) if where.xp is np else (
        where.xp.lib.stride_tricks.as_strided(memory, shape, steps)
    )  # fmt: skip
    return finish(array, where, requires_grad)


def empty_permuted(
    size: Any, physical_layout: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Memory as it comes, without gaps, the dimensions in memory in the order given.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.empty_permuted.html

    >>> gpunn.empty_permuted((2, 3, 4), (0, 2, 1)).stride()
    (12, 1, 3)
    """
    shape, order = shape_of("empty_permuted", (tuple(size),)), tuple(physical_layout)
    if len(shape) != len(order):
        raise RuntimeError(
            "Number of dimensions in size does not match the length of the physical_layout; i.e. "
            f"len(size) = {len(shape)} is not equal to len(physical_layout) = {len(order)}"
        )
    for i, d in enumerate(order):
        if not 0 <= d < len(shape):
            raise RuntimeError(
                f"Dimension out of range (expected to be between 0 and {len(shape) - 1}, but got "
                f"{d} at index {i})."
            )
        if d in order[:i]:
            raise RuntimeError("Duplicate dim not allowed")
    steps = {d: math.prod(shape[k] for k in order[i + 1 :]) for i, d in enumerate(order)}
    return empty_strided(
        shape, [steps[d] for d in range(len(shape))], dtype=dtype, layout=layout, device=device,
        requires_grad=requires_grad,
    )  # fmt: skip


def _new(name: str, function: Any) -> None:
    def create(
        self: Tensor, *args: Any, dtype: Any = None, device: Any = None, **kw: Any
    ) -> Tensor:
        where = self.device if device is None else device
        return function(*args, dtype=dtype or self.dtype, device=where, **kw)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"`gpunn.{function.__name__}` with this tensor's dtype and device."
    method(create)


for _f in (zeros, ones, empty, full, tensor, empty_strided):
    _new("new_" + _f.__name__, _f)
__all__ = [
    "empty", "empty_like", "empty_permuted", "empty_strided", "full", "full_like", "ones",
    "ones_like", "zeros", "zeros_like",
]  # fmt: skip
