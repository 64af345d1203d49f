"""A launch's arguments: checked against the kernel's parameters, and laid out for the runtime."""

from __future__ import annotations

import functools
import re
from ctypes import c_void_p
from typing import NamedTuple

import ml_dtypes  # noqa: F401  for the name "bfloat16"
import numpy as np

from .loaded import Buffer, Patch
from .settings import EmulatorError

_PARAMETER = re.compile(r"(?:table(?P<table>\d+):)?(?P<const>const)?(?P<pointer>\*)?(?P<type>\w+)")
_PYTHON_NUMBERS = {bool: np.bool_, int: np.int64, float: np.float64}  # as CuPy passes them
_POINTER = 8  # bytes


class Parameter(NamedTuple):
    label: str
    type: str  # NumPy's name of a dtype, "void", or "struct" and its bytes
    pointer: bool
    const: bool
    table: int  # bytes of a struct of pointers, or 0
    place: int  # of its value among the arguments' bytes

    def bytes(self) -> int:
        if self.table or self.pointer:
            return self.table or _POINTER
        return _struct_bytes(self.type) or np.dtype(self.type).itemsize


class _View(NamedTuple):
    """One array among the arguments."""

    address: int
    end: int
    where: int  # of the pointer
    writable: bool
    label: str


def _struct_bytes(kind: str) -> int:
    return int(kind[6:]) if kind.startswith("struct") else 0


@functools.cache
def _name(dtype: np.dtype) -> str:
    return dtype.name


@functools.cache
def _points_to(kind: str, dtype: np.dtype) -> bool:
    if kind == "void" or kind.startswith("struct"):  # half2, float4, a struct of the kernel's
        return True
    return dtype.name == kind or {dtype.name, kind} == {"bool", "uint8"}


def parameters(descriptions: list[str], names: tuple[str, ...]) -> list[Parameter]:
    """From the descriptions that the kernel's library gives (entry.h)."""
    made, place = [], 0
    for i, (description, name) in enumerate(zip(descriptions, names)):
        found = _PARAMETER.fullmatch(description)
        label, table = f"{name} (argument {i})", int(found["table"] or 0)
        kind, pointer, const = found["type"], bool(found["pointer"]), bool(found["const"])
        made.append(Parameter(label, kind, pointer, const, table, place))
        place += -(-made[-1].bytes() // 16) * 16
    return made


class Arguments:
    """Holds what a request points to: values, buffers, and which pointer goes where."""

    def __init__(self, kernel: str, wanted: list[Parameter], given):
        if len(given) != len(wanted):
            raise EmulatorError(f"{kernel} takes {len(wanted)} arguments, got {len(given)}")
        self._kernel = kernel
        size = wanted[-1].place + wanted[-1].bytes() if wanted else 0
        self._values = np.zeros(size + 1, np.uint8)
        base = self._values.__array_interface__["data"][0]
        self.pointers = (c_void_p * (len(wanted) + 1))(*(base + p.place for p in wanted))
        views = []
        for p, value in zip(wanted, given):
            if p.table:
                views += self._table(p, value, base + p.place)
            elif not p.pointer:
                stored = self._value(p, value)
                self._values[p.place : p.place + len(stored)] = stored
            elif value is not None and not (type(value) is np.uint64 and value == 0):
                views.append(self._view(p, value, base + p.place))
        self._lay_out(views)

    def _fail(self, p: Parameter, text: str):
        raise EmulatorError(f"{self._kernel}: {p.label} {text}")

    def _value(self, p: Parameter, value) -> np.ndarray:
        """The bytes of an argument passed by value."""
        if type(value) in _PYTHON_NUMBERS:
            value = _PYTHON_NUMBERS[type(value)](value)
        if not isinstance(value, (np.generic, np.ndarray)) or value.ndim:
            self._fail(p, f"is passed by value ({p.type}), got {type(value).__name__}")
        size = _struct_bytes(p.type)
        if size and value.nbytes != size:
            self._fail(p, f"has {size} bytes in the kernel, the argument {value.nbytes}")
        if not size and _name(value.dtype) != p.type:
            self._fail(p, f"is {p.type}, got {value.dtype.name}")
        return np.frombuffer(value.tobytes(), np.uint8)

    def _table(self, p: Parameter, value, where: int) -> list[_View]:
        most = p.table // _POINTER
        if not hasattr(value, "arrays"):
            self._fail(p, f"is a table of pointers, got {type(value).__name__}")
        if value.nbytes != p.table or len(value.arrays) > most:
            self._fail(p, f"is a table of {most} pointers, got {len(value.arrays)}")
        arrays = enumerate(value.arrays)
        return [self._view(p, a, where + _POINTER * i) for i, a in arrays if a is not None]

    def _view(self, p: Parameter, array, where: int) -> _View:
        if not isinstance(array, np.ndarray):
            self._fail(p, f"is a pointer, got {type(array).__name__}")
        flags = array.flags
        if not _points_to(p.type, array.dtype) or array.nbytes % (_struct_bytes(p.type) or 1):
            self._fail(p, f"points to {p.type}, got an array of {array.dtype}")
        if not flags.c_contiguous:
            self._fail(p, f"must be C-contiguous, got strides {array.strides} at {array.shape}")
        if not p.const and not flags.writeable:
            self._fail(p, "is read-only, and the kernel may write to it")
        address = array.__array_interface__["data"][0]
        end = address + array.nbytes
        return _View(address, end, where, not p.const, p.label)

    def _lay_out(self, views: list[_View]):
        """Arrays that overlap share a buffer, so that they stay aliases."""
        groups: list[list[_View]] = []
        end = 0
        for view in sorted(views):
            if groups and (view.address < end or view.address == groups[-1][0].address):
                groups[-1].append(view)
                end = max(end, view.end)
            else:
                groups.append([view])
                end = view.end
        self.buffers = (Buffer * (len(groups) + 1))(*map(_buffer, groups))
        self.buffer_count = len(groups)
        self.patches = (Patch * (len(views) + 1))(
            *(
                (view.where, i, view.address - group[0].address)
                for i, group in enumerate(groups)
                for view in group
            )
        )
        self.patch_count = len(views)


def _buffer(group: list[_View]) -> tuple:
    start = group[0].address
    if len(group) == 1:
        view = group[0]
        return start, view.end - start, view.label.encode(), view.writable
    labels = " and ".join(dict.fromkeys(view.label for view in group))
    size = max(view.end for view in group) - start
    writable = any(view.writable for view in group)
    return start, size, labels.encode(), writable
