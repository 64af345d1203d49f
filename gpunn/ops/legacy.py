"""PyTorch's older way with types: FloatTensor, Tensor.new, Tensor.type, the constructor Tensor().

Source: https://docs.pytorch.org/docs/stable/tensors.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import touch
from gpunn.device import Device, resolve, set_default_device
from gpunn.layout import strided
from gpunn.ops.create import shape_of
from gpunn.ops.data import tensor
from gpunn.tensor import Size, Tensor, method, wrap


def construct(
    d: dtypes.dtype, args: tuple[Any, ...], *, device: Any = None, size: Any = None,
    exact: bool = False,
) -> Tensor:  # fmt: skip
    """What `Tensor(*args)` gives: sizes make uninitialised memory, anything else is data.

    A tensor is shared, if need be (`exact`) only of dtype d. TypeError for other arguments.
    """
    where = resolve(device)
    if len(args) == 1 and not isinstance(args[0], (int, np.integer, Size)):
        return _from_one(d, args[0], where, exact)
    if size is None and not args:
        size = (0,)
    if not all(isinstance(n, (int, np.integer, Size)) for n in args):
        kinds = ", ".join(type(a).__name__ for a in args)
        raise TypeError(f"new() received an invalid combination of arguments - got ({kinds})")
    whole = len(args) == 1 and isinstance(args[0], Size)
    shape = tuple(args[0]) if whole else shape_of("new", args, size)
    return wrap(where.xp.empty(shape, d.numpy), where)


def _from_one(d: dtypes.dtype, data: Any, device: Device, exact: bool) -> Tensor:
    from gpunn.storage import UntypedStorage

    if isinstance(data, Tensor):
        if exact and data.dtype is not d:
            raise TypeError(f"expected a tensor of {d} (got {data.dtype}); use .to({d})")
        return wrap(data.array, data.device)
    if isinstance(data, UntypedStorage):
        return wrap(device.xp.empty(0, d.numpy), data.device).set_(data)  # type: ignore[attr-defined]
    if isinstance(data, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    if not hasattr(data, "__len__") and not hasattr(data, "__array__"):
        raise TypeError(f"new(): data must be a sequence (got {type(data).__name__})")
    return tensor(data, dtype=d, device=device)


def _tensor_new(cls: type[Tensor], *args: Any, **kwargs: Any) -> Tensor:
    made = construct(dtypes.get_default_dtype(), args, **kwargs)
    return wrap(made.array, made.device, cls)


Tensor.__new__ = _tensor_new  # type: ignore[method-assign, assignment]


@method
def new(self: Tensor, *args: Any, device: Any = None, size: Any = None) -> Tensor:
    """A tensor of this dtype and device: `new(2, 3)` uninitialised, `new([1, 2])` of data.

    >>> gpunn.tensor([1]).new([2, 3])
    tensor([2, 3])
    """
    return construct(self.dtype, args, device=device or self.device, size=size, exact=True)


def _check_plain(name: str, x: Tensor) -> None:
    if x.requires_grad:
        raise RuntimeError(
            f"Can't call {name}() on Variable that requires grad. Use var.detach().{name}() "
            "instead."
        )


@method
def apply_(self: Tensor, callable: Any) -> Tensor:
    """Replaces every element by callable(element), in place; slow, on the CPU only.

    >>> gpunn.tensor([1, 2]).apply_(lambda x: x * 10)
    tensor([10, 20])
    """
    _check_plain("apply_", self)
    flat = [callable(v) for v in self.reshape((-1,)).tolist()]  # type: ignore[attr-defined]
    self.array[...] = np.array(flat, self.array.dtype).reshape(self.array.shape)
    touch(self)
    return self


@method
def map_(self: Tensor, tensor: Tensor, callable: Any) -> Tensor:
    """Replaces every element by callable(element, the one of another tensor), in place.

    >>> gpunn.tensor([1, 2]).map_(gpunn.tensor([3, 4]), lambda a, b: a * b)
    tensor([3, 8])
    """
    _check_plain("map_", self)
    others = tensor.expand(self.array.shape).reshape((-1,)).tolist()  # type: ignore[attr-defined]
    values = iter(others)
    return apply_(self, lambda v: callable(v, next(values)))


@method
def as_subclass(self: Tensor, cls: type[Tensor]) -> Tensor:
    """The same memory and history as an object of a subclass.

    >>> class Mine(gpunn.Tensor):
    ...     pass
    >>> type(gpunn.ones(1).as_subclass(Mine)).__name__
    'Mine'
    """
    if not isinstance(cls, type) or not issubclass(cls, Tensor):
        raise RuntimeError(f"as_subclass: {cls!r} is no subclass of Tensor")
    made = self.view_as(self)  # type: ignore[attr-defined]
    out = wrap(made.array, made.device, cls)
    out.node, out._requires_grad, out._base = made.node, made._requires_grad, made._base
    return out


class tensortype:  # noqa: N801 (PyTorch's name)
    """A type such as `gpunn.FloatTensor`: makes tensors of its dtype, and tests for them.

    >>> gpunn.LongTensor([1, 2])
    tensor([1, 2])
    >>> isinstance(gpunn.zeros(2), gpunn.FloatTensor)
    True
    """

    is_sparse = False
    layout = strided

    def __init__(self, stem: str, d: dtypes.dtype, kind: str):
        self.__name__ = self.__qualname__ = f"{stem}Tensor"
        self.__module__ = "torch" if kind == "cpu" else f"torch.{kind}"
        self.dtype = d
        self.kind = kind
        self.is_cuda = kind == "cuda"

    def __call__(self, *args: Any, device: Any = None, size: Any = None) -> Tensor:
        where = Device(self.kind if device is None else device)
        if where.type != self.kind:
            raise RuntimeError(
                f"legacy constructor expects device type: {self.kind} but device type: "
                f"{where.type} was passed"
            )
        return construct(self.dtype, args, device=where, size=size, exact=True)

    def __instancecheck__(self, x: Any) -> bool:
        return isinstance(x, Tensor) and x.dtype is self.dtype and x.device.type == self.kind

    def __repr__(self) -> str:
        return f"<class '{self}'>"

    def __str__(self) -> str:
        return f"{self.__module__}.{self.__name__}"


_STEMS = {
    "Float": dtypes.float32, "Double": dtypes.float64, "Half": dtypes.float16,
    "BFloat16": dtypes.bfloat16, "Long": dtypes.int64, "Int": dtypes.int32,
    "Short": dtypes.int16, "Char": dtypes.int8, "Byte": dtypes.uint8, "Bool": dtypes.bool_,
    "ComplexFloat": dtypes.complex64, "ComplexDouble": dtypes.complex128,
    "UInt16": dtypes.uint16, "UInt32": dtypes.uint32, "UInt64": dtypes.uint64,
}  # fmt: skip
_TYPES = {str(t): t for k in ("cpu", "cuda") for t in [tensortype(s, d, k)
                                                       for s, d in _STEMS.items()]}  # fmt: skip
_NAMES = {(t.kind, t.dtype): name for name, t in _TYPES.items()}


def cuda_type(name: str) -> tensortype | None:
    """`gpunn.cuda.FloatTensor` and its kind, by name."""
    return _TYPES.get(f"torch.cuda.{name}")


def tensor_type(
    self: Tensor, dtype: Any = None, non_blocking: bool = False, **kwargs: Any
) -> Any:
    """The name of the tensor's type, "torch.FloatTensor"; or the tensor as another type.

    dtype: a dtype, a type such as `gpunn.LongTensor`, or its name. ValueError for other names.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.type.html

    >>> gpunn.zeros(2).type("torch.LongTensor")
    tensor([0, 0])
    """
    if dtype is None:
        return _NAMES[self.device.type, self.dtype]
    if isinstance(dtype, str):
        if dtype not in _TYPES:
            raise ValueError(f"invalid type: {dtype!r}")
        dtype = _TYPES[dtype]
    if not isinstance(dtype, tensortype):
        return self.to(dtypes.as_dtype(dtype))  # type: ignore[attr-defined]
    there = self.device if self.device.type == dtype.kind else dtype.kind
    return self.to(device=there, dtype=dtype.dtype)  # type: ignore[attr-defined]


tensor_type.__name__ = "type"
Tensor.type = tensor_type  # type: ignore[attr-defined]


def set_default_tensor_type(t: Any, /) -> None:
    """Makes a floating type, or its name, the default: of new tensors' dtype, and their device.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.set_default_tensor_type.html

    >>> gpunn.set_default_tensor_type(gpunn.FloatTensor)
    """
    found = _TYPES.get(t) if isinstance(t, str) else t
    if not isinstance(found, tensortype):
        raise TypeError(f"invalid type object: {t!r}, expected one such as gpunn.FloatTensor")
    dtypes.set_default_dtype(found.dtype)
    set_default_device(None if found.kind == "cpu" else found.kind)


for _type in _TYPES.values():
    if _type.kind == "cpu":
        globals()[_type.__name__] = _type
__all__ = ["set_default_tensor_type", "tensortype", *(
    t.__name__ for t in _TYPES.values() if t.kind == "cpu" and not t.__name__.startswith("UInt")
)]  # fmt: skip
