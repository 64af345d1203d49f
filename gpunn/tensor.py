"""The Tensor: an array, its device, and its place in the autograd graph. No mathematics here.

Operations live in `gpunn/ops` and `gpunn/nn`; those that are also methods are attached with
the decorator `method`, so that `x.exp()` is the very function `gpunn.exp`, without a second
call in between.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, overload

import numpy as np

from gpunn import dtypes
from gpunn.device import CPU, Device, to_host

if TYPE_CHECKING:  # a stub: the methods that gpunn/ops and gpunn/nn attach
    from gpunn.tensor_methods import Methods
else:
    Methods = object

_new = object.__new__
ndarray = np.ndarray
ARRAY_TYPES: set[type] = {ndarray}  # device.py's array modules; CuPy's is added when it loads
F = TypeVar("F", bound=Callable[..., Any])


class Size(tuple[int, ...]):
    """A shape: a tuple of ints that prints as `torch.Size([2, 3])` and has `numel()`.

    >>> gpunn.zeros(2, 3).shape.numel()
    6
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    __str__ = __repr__

    def numel(self) -> int:
        """The number of elements of a tensor of this shape."""
        count = 1
        for n in self:
            count *= n
        return count

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Size: ...

    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        return Size(found) if type(index) is slice else found

    def __add__(self, other: Any) -> Size:
        return Size(tuple(self) + tuple(other))

    def __radd__(self, other: Any) -> Size:
        return Size(tuple(other) + tuple(self))

    def __mul__(self, times: Any) -> Size:
        return Size(tuple(self) * times)

    __rmul__ = __mul__

    def __reduce__(self) -> tuple[Any, ...]:
        return Size, (tuple(self),)


class _Extra:
    """What few tensors have: the views of a base, and gradient hooks."""

    __slots__ = ("views", "hooks", "post_hooks", "retains", "face_of")

    def __init__(self) -> None:
        self.views: list[weakref.ref[Tensor]] = []
        self.hooks: dict[int, Callable[..., Any]] = {}
        self.post_hooks: dict[int, Callable[..., Any]] = {}
        self.retains = False
        self.face_of: str | None = None  # the Function that returned this input as it was


class Tensor(Methods):
    """An n-dimensional array on a device that can record gradients.

    `Tensor(2, 3)` is uninitialised float32 of that shape, `Tensor([1, 2])` float32 of that
    data, as in PyTorch; `gpunn.tensor` is the usual way to make one.

    Attributes: `array` (the NumPy or CuPy array itself), `shape`, `dtype`, `device`,
    `requires_grad`, `grad`, `grad_fn`, `is_leaf`.
    Source: https://docs.pytorch.org/docs/stable/tensors.html

    >>> gpunn.Tensor([1, 2])
    tensor([1., 2.])
    """

    __slots__ = (
        "array", "device", "_requires_grad", "_grad", "node", "_base", "_extra",
        "__dict__", "__weakref__",
    )  # fmt: skip
    array: Any
    device: Device
    _requires_grad: bool
    _grad: Tensor | None
    node: Any
    _base: Tensor | None
    _extra: _Extra | None

    # --- what it is ---------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """The shape, a `Size`."""
        return Size(self.array.shape)

    @property
    def dtype(self) -> dtypes.dtype:
        """The element type."""
        return dtypes.of(self.array.dtype)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.array.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.array.nbytes

    def dim(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    ndimension = dim

    @overload
    def size(self, dim: None = None) -> Size: ...
    @overload
    def size(self, dim: int) -> int: ...

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one dimension."""
        if dim is None:
            return Size(self.array.shape)
        try:
            return self.array.shape[dim]
        except IndexError:
            raise dim_error(dim, self.array.ndim) from None

    def numel(self) -> int:
        """The number of elements."""
        return int(self.array.size)

    nelement = numel

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.array.itemsize

    @overload
    def stride(self, dim: None = None) -> tuple[int, ...]: ...
    @overload
    def stride(self, dim: int) -> int: ...

    def stride(self, dim: int | None = None) -> Any:
        """Steps between neighbours along each dimension, in elements."""
        size = self.array.itemsize
        steps = tuple(s // size for s in strides(self.array))
        return steps if dim is None else steps[dim]

    def storage_offset(self) -> int:
        """The position of the first element in the memory that the views share."""
        return (address(self.array) - address(root(self.array))) // self.array.itemsize

    def data_ptr(self) -> int:
        """The address of the first element."""
        return address(self.array)

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Whether the elements lie in memory in C order."""
        return bool(self.array.flags.c_contiguous)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating one."""
        return self.dtype.is_floating_point

    def is_complex(self) -> bool:
        """Whether the dtype is complex."""
        return self.dtype.is_complex

    def is_signed(self) -> bool:
        """Whether the dtype has negative values."""
        return self.dtype.is_signed

    @property
    def is_cuda(self) -> bool:
        """Whether it lies on a CUDA device."""
        return self.device.type == "cuda"

    @property
    def is_cpu(self) -> bool:
        """Whether it lies on a CPU device."""
        return self.device.type == "cpu"

    def get_device(self) -> int:
        """The index of the CUDA device, -1 on the CPU."""
        return self.device.index if self.device.type == "cuda" else -1  # type: ignore[return-value]

    is_sparse = False
    is_quantized = False
    is_meta = False
    is_mkldnn = False
    is_nested = False
    layout: Any

    # --- autograd -----------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients with respect to this tensor are recorded."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self.node is not None and not value:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a "
                "computed variable in a subgraph that doesn't require differentiation use "
                "var_no_grad = var.detach()."
            )
        if value and self.dtype.category < dtypes.FLOATING:
            raise RuntimeError(
                "only Tensors of floating point and complex dtype can require gradients, "
                f"this one is {self.dtype}"
            )
        self._requires_grad = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Sets `requires_grad` in place."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made it."""
        return self.node is None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` accumulated, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            check_grad(self, value)
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def data(self) -> Tensor:
        """The same memory as a tensor without history."""
        return wrap(self.array, self.device)

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        self.array, self.device = value.array, value.device

    def detach(self) -> Tensor:
        """The same memory as a tensor without history."""
        return wrap(self.array, self.device)

    def is_inference(self) -> bool:
        """Whether it was made in inference mode: always False, such tensors are ordinary here."""
        return False

    # --- the protocols of Python and NumPy ----------------------------------------------

    def __len__(self) -> int:
        if self.array.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return len(self.array)

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self, *, tensor_contents: str | None = None) -> str:
        from gpunn.printing import tensor_repr

        return tensor_repr(self, tensor_contents)

    def _repr_html_(self) -> str | None:  # what a notebook shows
        from gpunn.html_repr import tensor_html

        return tensor_html(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.array.ndim == 0 else object.__format__(self, spec)

    def item(self) -> Any:
        """The value of a tensor of one element as a Python number."""
        if self.array.size != 1:
            raise RuntimeError(
                f"a Tensor with {self.array.size} elements cannot be converted to Scalar"
            )
        value = to_host(self.array).item()
        return float(value) if self.array.dtype is dtypes.BF16 else value

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers; a number for a 0-dim tensor."""
        array = to_host(self.array)
        return array.astype(np.float32).tolist() if array.dtype is dtypes.BF16 else array.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The values as a NumPy array that shares memory; `force` detaches and copies to host."""
        if force:
            return self.detach().cpu().array  # type: ignore[attr-defined]
        if self.device.type != "cpu":
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to "
                f"copy the tensor to host memory first."
            )
        if self._requires_grad:
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() "
                "instead."
            )
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    __array_priority__ = 1000

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if self.device.type != "cpu" or self._requires_grad:
            raise AttributeError("__array_interface__")
        return self.array.__array_interface__

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.device.type != "cuda":
            raise AttributeError(
                f"Can't get __cuda_array_interface__ on non-CUDA tensor type: {self.device}. "
                f"Use tensor.cuda() first."
            )
        if self._requires_grad:
            raise RuntimeError(
                "Can't get __cuda_array_interface__ on Variable that requires grad. Use "
                "var.detach().__cuda_array_interface__ instead."
            )
        return self.array.__cuda_array_interface__

    if TYPE_CHECKING:  # the operators that gpunn/ops attaches

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __rxor__(self, other: Any) -> Tensor: ...
        def __lshift__(self, other: Any) -> Tensor: ...
        def __rshift__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __bool__(self) -> bool: ...
        def __int__(self) -> int: ...
        def __float__(self) -> float: ...
        def __index__(self) -> int: ...
        def __getitem__(self, key: Any) -> Tensor: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...
        def __iter__(self) -> Iterator[Tensor]: ...
        def __contains__(self, element: Any) -> bool: ...


def wrap(array: Any, device: Device = CPU, cls: type[Tensor] = Tensor) -> Tensor:
    """A tensor without history around a raw array, which it shares."""
    out = _new(cls)
    out.array = array
    out.device = device
    out._requires_grad = False
    out._grad = None
    out.node = None
    out._base = None
    out._extra = None
    return out


def method(function: F) -> F:
    """Makes a public function a method of Tensor, too: its first argument is the tensor."""
    setattr(Tensor, function.__name__, function)
    return function


def extra(tensor: Tensor) -> _Extra:
    """The tensor's rare attributes, made on first use."""
    if tensor._extra is None:
        tensor._extra = _Extra()
    return tensor._extra


def root(array: Any) -> Any:
    """The array that owns the memory which `array` is a view of."""
    base = array.base
    while base is not None:
        if type(base) not in ARRAY_TYPES:  # as_strided puts an object between view and owner
            base = getattr(base, "base", None)
            if type(base) not in ARRAY_TYPES:
                break
        array = base
        base = array.base
    return array


def address(array: Any) -> int:
    """The address of an array's first element."""
    if type(array) is ndarray:
        return array.__array_interface__["data"][0]
    return array.data.ptr


def strides(array: Any) -> tuple[int, ...]:
    """Strides in bytes, PyTorch's for lengths 0 and 1 where the array is contiguous."""
    if not array.flags.c_contiguous:
        return array.strides
    steps, step = [], array.itemsize
    for n in reversed(array.shape):
        steps.append(step)
        step *= max(n, 1)
    return tuple(reversed(steps))


def dim_error(dim: int, ndim: int) -> IndexError:
    """PyTorch's error for a dimension that a tensor does not have."""
    low, high = (-ndim, ndim - 1) if ndim else (-1, 0)
    return IndexError(
        f"Dimension out of range (expected to be in range of [{low}, {high}], but got {dim})"
    )


def normal_dim(dim: int, ndim: int) -> int:
    """`dim` counted from the front; IndexError where there is none. 0-dim tensors take 0, -1."""
    n = ndim or 1
    if not -n <= dim < n:
        raise dim_error(dim, ndim)
    return dim + n if dim < 0 else dim


def check_grad(tensor: Tensor, grad: Tensor) -> None:
    """Raises what PyTorch raises when `grad` does not fit `tensor`."""
    if not isinstance(grad, Tensor):
        raise TypeError(f"assigned grad expected to be a Tensor or None but got grad of type "
                        f"{type(grad).__name__}")  # fmt: skip
    if grad is tensor:
        raise RuntimeError("can't assign Variable as its own grad")
    if grad.dtype is not tensor.dtype:
        raise RuntimeError(
            f"attempting to assign a gradient with dtype '{grad.dtype}' to a tensor with "
            f"grad_dtype '{tensor.dtype}'. The gradient must match the tensor's dtype"
        )
    if grad.device is not tensor.device:
        raise RuntimeError(
            f"attempting to assign a gradient located on {grad.device} to a tensor on "
            f"{tensor.device}. The gradient must be on the tensor's device"
        )
    if grad.shape != tensor.shape:
        raise RuntimeError(
            f"attempting to assign a gradient of size '{list(grad.shape)}' to a tensor of size "
            f"'{list(tensor.shape)}'. Please ensure that the gradient and the tensor are the same "
            "size"
        )
