"""Other libraries' arrays: results of NumPy's functions, and memory shared through DLPack.

NumPy and CuPy write and read DLPack's capsules. They know no bfloat16: it travels as 16-bit
integers whose type is corrected in the capsule itself.
Source: https://dmlc.github.io/dlpack/latest/c_api.html
"""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from gpunn.device import CPU, Device
from gpunn.dtypes import BF16
from gpunn.ops.data import from_numpy
from gpunn.tensor import Tensor, method, wrap

UINT, BFLOAT, CUDA = 1, 4, 2  # of DLPack's enumerations of types and devices
_TENSOR_AT = {b"dltensor": 0, b"dltensor_versioned": 32}  # bytes before the DLTensor


@method
def __array_wrap__(  # noqa: N807
    self: Tensor, array: Any, context: Any = None, return_scalar: bool = False
) -> Tensor:
    """NumPy's functions of a tensor give a tensor: `np.sin(x)`.

    >>> np.abs(gpunn.tensor([-1.0]))
    tensor([1.])
    """
    return from_numpy(np.asarray(array))


class _Header(ctypes.Structure):
    """The beginning of a DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device", ctypes.c_int32), ("index", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    ]  # fmt: skip


def _header(capsule: Any) -> _Header:
    """The header in a capsule; RuntimeError for one that was used already, or is none."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [
        ctypes.py_object
    ]  # fmt: skip
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = api.PyCapsule_GetName(capsule)
    if name not in _TENSOR_AT:
        raise RuntimeError(
            f"from_dlpack received an invalid capsule {name!r}. Note that DLTensor capsules can be "
            "consumed only once, so you might have already constructed a tensor from it once."
        )
    return _Header.from_address(api.PyCapsule_GetPointer(capsule, name) + _TENSOR_AT[name])


@method
def __dlpack__(  # noqa: N807
    self: Tensor, *, stream: Any = None, max_version: Any = None, dl_device: Any = None,
    copy: bool | None = None,
) -> Any:  # fmt: skip
    """A DLPack capsule that shares the tensor's memory, for another library's `from_dlpack`.

    BufferError for a tensor that requires a gradient, or lies elsewhere than `dl_device`.
    """
    if self._requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    array = self.array
    half = array.dtype == BF16
    if half:
        array = array.view(np.uint16)
    options = {"max_version": max_version, "dl_device": dl_device, "copy": copy}
    options = {k: v for k, v in options.items() if v is not None}
    capsule = array.__dlpack__(stream=stream, **options)
    if half:
        _header(capsule).code = BFLOAT
    return capsule


@method
def __dlpack_device__(self: Tensor) -> tuple[int, int]:  # noqa: N807
    """DLPack's numbers of the tensor's device: (1, 0) for the CPU, (2, index) for CUDA."""
    return tuple(int(n) for n in self.array.__dlpack_device__())  # type: ignore[return-value]


class _Carrier:
    """An object with DLPack's two methods around a capsule."""

    def __init__(self, capsule: Any, header: _Header):
        self.capsule = capsule
        self.device = header.device, header.index

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def _array(xp: Any, source: Any) -> Any:
    """A raw array over a DLPack object's memory."""
    try:
        return xp.from_dlpack(source)
    except (BufferError, RuntimeError, TypeError, ValueError):
        capsule = source.__dlpack__()
        header = _header(capsule)
        if (header.code, header.bits, header.lanes) != (BFLOAT, 16, 1):
            raise
    header.code = UINT
    return xp.from_dlpack(_Carrier(capsule, header)).view(BF16)


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of another library's, given as an object or as a capsule.

    device: where it is wanted; copy: True for memory of its own, False for an error where the
    device demands a copy. A read-only array gives a read-only tensor.
    Source: https://docs.pytorch.org/docs/stable/dlpack.html

    >>> a = np.zeros(2, np.float32)
    >>> t = gpunn.from_dlpack(a)
    >>> a[0] = 1
    >>> t
    tensor([1., 0.])
    """
    source = ext_tensor
    if type(source).__name__ == "PyCapsule":
        source = _Carrier(source, _header(source))
    if not hasattr(source, "__dlpack__"):
        raise TypeError(
            f"from_dlpack: expected an object with __dlpack__, or a DLPack capsule, got "
            f"{type(ext_tensor).__name__}"
        )
    kind, index = source.__dlpack_device__()
    home = Device("cuda", index) if kind == CUDA else CPU
    made = wrap(_array(home.xp, source), home)
    wanted = home if device is None else Device(device)
    if copy is False and wanted is not home:
        raise ValueError(f"cannot move (i.e. copy) tensor from {home} to {wanted} with copy=False")
    moved = made.to(wanted)
    return moved.clone() if copy and moved is made else moved


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule that shares the tensor's memory; usable once.

    Source: https://docs.pytorch.org/docs/stable/dlpack.html

    >>> gpunn.from_dlpack(gpunn.to_dlpack(gpunn.ones(2)))
    tensor([1., 1.])
    """
    return tensor.__dlpack__()


__all__ = ["from_dlpack", "to_dlpack"]
