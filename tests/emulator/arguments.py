"""A launch's arguments: checked against the kernel's parameters, and laid out for the runtime."""

from __future__ import annotations

import re
from ctypes import c_void_p
from typing import NamedTuple

import numpy as np

from .library import Buffer, Patch
from .settings import EmulatorError

_PARAMETER = re.compile(r"(?:table(?P<table>\d+):)?(?P<const>const)?(?P<pointer>\*)?(?P<type>\w+)")
_PYTHON_NUMBERS = {bool: "bool", int: "int64", float: "float64"}  # as CuPy passes them


class Parameter(NamedTuple):
    label: str
    type: str  # NumPy's name of a dtype, "void", or "struct" and its bytes
    pointer: bool
    const: bool
    table: int  # bytes of a struct of pointers, or 0


def parameter(description: str, label: str) -> Parameter:
    """From the description that the kernel's library gives (entry.h)."""
    found = _PARAMETER.fullmatch(description)
    table = int(found["table"] or 0)
    return Parameter(label, found["type"], bool(found["pointer"]), bool(found["const"]), table)


class _View(NamedTuple):
    """The place of one array among the arguments."""

    address: int
    bytes: int
    where: int  # of the pointer
    element: int
    writable: bool
    label: str


class Arguments:
    """Holds what a request points to: values, buffers, and which pointer goes where."""

    def __init__(self, kernel: str, parameters: list[Parameter], values):
        if len(values) != len(parameters):
            raise EmulatorError(f"{kernel} takes {len(parameters)} arguments, got {len(values)}")
        self._kernel = kernel
        self._cells = [self._cell(p, value) for p, value in zip(parameters, values)]
        places = [cell.ctypes.data for cell in self._cells]
        self.pointers = (c_void_p * max(1, len(places)))(*places)
        views = []
        for p, value, place in zip(parameters, values, places):
            arrays = value.arrays if p.table else [value] if p.pointer else []
            views += [
                self._view(p, array, place + 8 * i)
                for i, array in enumerate(arrays)
                if array is not None
            ]
        self._lay_out(views)

    def _fail(self, p: Parameter, text: str):
        raise EmulatorError(f"{self._kernel}: {p.label} {text}")

    def _cell(self, p: Parameter, value) -> np.ndarray:
        """A copy of the bytes that the kernel gets by value; pointers are filled in later."""
        if p.table:
            if not hasattr(value, "arrays"):
                self._fail(p, f"is a table of pointers, got {type(value).__name__}")
            cell = np.zeros(p.table // 8, np.uint64)
            if value.nbytes != p.table or len(value.arrays) > cell.size:
                self._fail(p, f"is a table of {cell.size} pointers, got {len(value.arrays)}")
            return cell
        if p.pointer:
            return np.zeros(1, np.uint64)
        return self._value(p, value)

    def _value(self, p: Parameter, value) -> np.ndarray:
        if type(value) in _PYTHON_NUMBERS:
            value = np.dtype(_PYTHON_NUMBERS[type(value)]).type(value)
        if not isinstance(value, (np.generic, np.ndarray)) or value.ndim:
            self._fail(p, f"is passed by value ({p.type}), got {type(value).__name__}")
        cell = np.array(value)
        if p.type.startswith("struct"):
            if cell.nbytes != int(p.type[6:]):
                self._fail(p, f"has {p.type[6:]} bytes in the kernel, the argument {cell.nbytes}")
        elif cell.dtype.name != p.type:
            self._fail(p, f"is {p.type}, got {cell.dtype.name}")
        return cell

    def _view(self, p: Parameter, array, where: int) -> _View:
        if not isinstance(array, np.ndarray):
            self._fail(p, f"is a pointer, got {type(array).__name__}")
        if not _points_to(p.type, array):
            self._fail(p, f"points to {p.type}, got an array of {array.dtype}")
        if not array.flags.c_contiguous:
            self._fail(p, f"must be C-contiguous, got strides {array.strides} at {array.shape}")
        if not p.const and not array.flags.writeable:
            self._fail(p, "is read-only, and the kernel may write to it")
        address = array.__array_interface__["data"][0]
        return _View(address, array.nbytes, where, array.itemsize, not p.const, p.label)

    def _lay_out(self, views: list[_View]):
        """Arrays that overlap share a buffer, so that they stay aliases."""
        groups: list[list[_View]] = []
        end = 0
        for view in sorted(views):
            if groups and (view.address < end or view.address == groups[-1][0].address):
                groups[-1].append(view)
            else:
                groups.append([view])
                end = view.address
            end = max(end, view.address + view.bytes)
        self.buffers = (Buffer * max(1, len(groups)))(*map(_buffer, groups))
        self.buffer_count = len(groups)
        patches = [
            (view.where, i, view.address - group[0].address)
            for i, group in enumerate(groups)
            for view in group
        ]
        self.patches = (Patch * max(1, len(patches)))(*patches)
        self.patch_count = len(patches)


def _points_to(kind: str, array: np.ndarray) -> bool:
    if kind == "void":
        return True
    if kind.startswith("struct"):  # half2, float4, a struct of the kernel's: any array that fits
        return array.nbytes % int(kind[6:]) == 0
    name = array.dtype.name
    return name == kind or {name, kind} == {"bool", "uint8"}


def _buffer(group: list[_View]) -> tuple:
    start = group[0].address
    end = max(view.address + view.bytes for view in group)
    labels = " and ".join(dict.fromkeys(view.label for view in group))
    element = min(view.element for view in group)
    writable = any(view.writable for view in group)
    return start, end - start, labels.encode(), writable, element
