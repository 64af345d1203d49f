"""The element types, under PyTorch's names, and PyTorch's rules for mixing them.

A `dtype` pairs a PyTorch name with the NumPy dtype that stores it. bfloat16 comes from
ml_dtypes. NumPy's own promotion is not used: PyTorch's categories (bool < integer <
floating < complex) decide first, widths second, and 0-dim tensors and Python numbers only
count where they are of a higher category.

Source: https://docs.pytorch.org/docs/stable/tensor_attributes.html
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

BOOL, INTEGER, FLOATING, COMPLEX = range(4)


class dtype:  # noqa: N801 (PyTorch's name)
    """An element type: `gpunn.float32`, `gpunn.int64`, ...

    Attributes: `itemsize` (bytes), `is_floating_point`, `is_complex`, `is_signed`, `numpy`
    (the NumPy dtype), `category` (0 bool, 1 integer, 2 floating, 3 complex).

    >>> gpunn.float32.itemsize
    4
    """

    __slots__ = ("name", "numpy", "category", "itemsize", "is_signed")

    def __init__(self, name: str, numpy: Any, category: int):
        self.name = name
        self.numpy = np.dtype(numpy)
        self.category = category
        self.itemsize = self.numpy.itemsize
        self.is_signed = self.numpy.kind not in "ub"

    @property
    def is_floating_point(self) -> bool:
        return self.category == FLOATING

    @property
    def is_complex(self) -> bool:
        return self.category == COMPLEX

    def to_real(self) -> dtype:
        """complex64 gives float32, complex128 float64; others themselves."""
        return {complex64: float32, complex128: float64}.get(self, self)

    def to_complex(self) -> dtype:
        """float32 gives complex64, float64 complex128; complex types themselves."""
        return self if self.is_complex else complex128 if self is float64 else complex64

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self.name,)


bool_ = dtype("bool", np.bool_, BOOL)
uint8 = dtype("uint8", np.uint8, INTEGER)
uint16 = dtype("uint16", np.uint16, INTEGER)
uint32 = dtype("uint32", np.uint32, INTEGER)
uint64 = dtype("uint64", np.uint64, INTEGER)
int8 = dtype("int8", np.int8, INTEGER)
int16 = short = dtype("int16", np.int16, INTEGER)
int32 = int_ = dtype("int32", np.int32, INTEGER)
int64 = long = dtype("int64", np.int64, INTEGER)
float16 = half = dtype("float16", np.float16, FLOATING)
bfloat16 = dtype("bfloat16", ml_dtypes.bfloat16, FLOATING)
float32 = float_ = dtype("float32", np.float32, FLOATING)
float64 = double = dtype("float64", np.float64, FLOATING)
complex64 = cfloat = dtype("complex64", np.complex64, COMPLEX)
complex128 = cdouble = dtype("complex128", np.complex128, COMPLEX)

ALL = (bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64,
       complex64, complex128, uint16, uint32, uint64)  # fmt: skip
_FROM_NUMPY = {d.numpy: d for d in ALL}
_FROM_NAME = {d.name: d for d in ALL}
_FROM_PYTHON: dict[Any, dtype] = {bool: bool_, int: int64}
_default = float32

F16, BF16, F32, F64 = float16.numpy, bfloat16.numpy, float32.numpy, float64.numpy


def _by_name(name: str) -> dtype:
    return _FROM_NAME[name]


def of(numpy_dtype: Any) -> dtype:
    """The gpunn dtype that a NumPy dtype stores; TypeError for one that has none."""
    try:
        return _FROM_NUMPY[numpy_dtype]
    except (KeyError, TypeError):
        pass
    found = _FROM_NUMPY.get(np.dtype(numpy_dtype).newbyteorder("="))
    if found is None:
        names = ", ".join(d.name for d in ALL)
        raise TypeError(
            f"can't convert np.ndarray of type {np.dtype(numpy_dtype)}. "
            f"The only supported types are: {names}."
        )
    return found


def as_dtype(value: Any) -> dtype:
    """A dtype from what PyTorch's `dtype=` takes: a dtype, or Python's bool, int, float."""
    if type(value) is dtype:
        return value
    if value is float:
        return float64
    if value is complex:
        return complex128
    found = _FROM_PYTHON.get(value)
    if found is None:
        raise TypeError(f"dtype must be a gpunn.dtype such as gpunn.float32, got {value!r}")
    return found


def of_scalar(value: Any) -> dtype:
    """The dtype that a Python number takes on its own."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, (int, np.integer)):
        return int64
    if isinstance(value, (float, np.floating)):
        return _default
    if isinstance(value, (complex, np.complexfloating)):
        return _default.to_complex()
    raise TypeError(f"expected a Python number, got {type(value).__name__}")


def get_default_dtype() -> dtype:
    """The floating dtype of new tensors made from Python floats.

    >>> gpunn.get_default_dtype()
    torch.float32
    """
    return _default


def set_default_dtype(d: dtype, /) -> None:
    """Makes `d`, a floating dtype, the dtype of new tensors made from Python floats.

    >>> gpunn.set_default_dtype(gpunn.float32)
    """
    global _default
    if not as_dtype(d).is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type, got {d}")
    _default = d


def promote_types(type1: dtype, type2: dtype) -> dtype:
    """The smallest dtype that holds both, by PyTorch's rules.

    >>> gpunn.promote_types(gpunn.int64, gpunn.float16)
    torch.float16
    """
    a, b = type1, type2
    if a is b:
        return a
    if a.category > b.category:
        a, b = b, a
    if a.category != b.category:
        return complex128 if a is float64 else b
    if a.itemsize > b.itemsize:
        a, b = b, a
    if a.category == FLOATING and a.itemsize == b.itemsize:  # float16 with bfloat16
        return float32
    if a.category == INTEGER and a.is_signed != b.is_signed:
        if a is uint8 or b is uint8:
            return int16 if b.itemsize == 1 else b
        raise RuntimeError(f"Promotion for {type1} and {type2} is not supported")
    return b


def result_of(operands: list[tuple[dtype, int]]) -> dtype:
    """The dtype of an operation on (dtype, priority) operands.

    Priority 2 is a tensor with dimensions, 1 a 0-dim tensor, 0 a Python number. An operand
    of lower priority only counts where its category is higher.
    """
    found: dtype | None = None
    for priority in (2, 1, 0):
        level: dtype | None = None
        for d, p in operands:
            if p == priority:
                level = d if level is None else promote_types(level, d)
        if level is None:
            continue
        if found is None:
            found = level
        elif level.category > found.category:
            if priority == 0 and level.category == FLOATING:
                level = _default
            if level.category == COMPLEX:
                level = found.to_complex() if found.category == FLOATING else level
            found = level
    assert found is not None
    return found


def can_cast(from_: dtype, to: dtype) -> bool:
    """Whether a value of `from_` may be written into `to`: never to a lower category.

    >>> gpunn.can_cast(gpunn.double, gpunn.float), gpunn.can_cast(gpunn.float, gpunn.int)
    (True, False)
    """
    if from_.category == INTEGER and to.category == INTEGER:
        return True
    return from_.category <= to.category


class finfo:  # noqa: N801
    """The limits of a floating dtype: bits, eps, max, min, tiny, smallest_normal, resolution.

    >>> gpunn.finfo(gpunn.float32).eps
    1.1920928955078125e-07
    """

    def __init__(self, type: dtype | None = None):
        d = (type or _default).to_real()
        if not d.is_floating_point:
            raise TypeError(
                f"gpunn.finfo() requires a floating point input type. Use gpunn.iinfo to "
                f"handle '{d}'"
            )
        info = ml_dtypes.finfo(d.numpy)
        self.dtype = d.name
        self.bits = int(info.bits)
        self.eps = float(info.eps)
        self.max = float(info.max)
        self.min = float(info.min)
        self.tiny = self.smallest_normal = float(info.smallest_normal)
        self.resolution = float(info.resolution)

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
            f"eps={self.eps:g}, smallest_normal={self.tiny:g}, tiny={self.tiny:g}, "
            f"dtype={self.dtype})"
        )


class iinfo:  # noqa: N801
    """The limits of an integer dtype: bits, max, min.

    >>> gpunn.iinfo(gpunn.int8).max
    127
    """

    def __init__(self, type: dtype):
        if type.category != INTEGER:
            raise TypeError(
                f"gpunn.iinfo() requires an integer input type. Use gpunn.finfo to handle '{type}'"
            )
        info = np.iinfo(type.numpy)
        self.dtype = type.name
        self.bits, self.max, self.min = int(info.bits), int(info.max), int(info.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
