"""The memory under tensors: what is written to files, sent to processes, and deep-copied.

A storage is the whole array that one or more tensors are views of. Files and pickles hold
storages once and describe each tensor as (storage, offset, size, stride), as PyTorch's do, so
that tensors that shared memory share it again afterwards.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from gpunn.device import CPU, Device, resolve, to_host, transfer
from gpunn.dtypes import dtype
from gpunn.tensor import Tensor, address, method, root, strides, wrap


class UntypedStorage:
    """The bytes that tensors are views of, and the device they lie on.

    This is what `tensor.untyped_storage()` gives and what the callable `map_location` of
    `gpunn.load` receives. `array` is the raw one-dimensional uint8 array.
    Source: https://docs.pytorch.org/docs/stable/storage.html

    >>> x = gpunn.zeros(2, 3)
    >>> x.untyped_storage().nbytes(), x[1].untyped_storage().data_ptr() == x.data_ptr()
    (24, True)
    """

    __slots__ = ("array", "device")

    def __init__(self, array: Any, device: Device = CPU):
        self.array = array
        self.device = device

    def nbytes(self) -> int:
        """The number of bytes."""
        return self.array.nbytes

    size = __len__ = nbytes

    def data_ptr(self) -> int:
        """The address of the first byte."""
        return address(self.array)

    def to(self, device: Any) -> UntypedStorage:
        """This storage where it lies on `device` already, else a copy there."""
        target = resolve(device)
        if target is self.device:
            return self
        return UntypedStorage(transfer(self.array, self.device, target), target)

    def cpu(self) -> UntypedStorage:
        """The storage on the CPU."""
        return self.to(CPU)

    def cuda(self, device: Any = None) -> UntypedStorage:
        """The storage on a CUDA device, the current one by default."""
        return self.to("cuda" if device is None else Device(device))

    def __repr__(self) -> str:
        return f"UntypedStorage({self.nbytes()} bytes, device='{self.device}')"


@method
def untyped_storage(tensor: Tensor) -> UntypedStorage:
    """The storage that `tensor` is a view of.

    >>> gpunn.ones(4)[1:].untyped_storage().nbytes()
    16
    """
    return UntypedStorage(as_bytes(locate(tensor.array)[0]), tensor.device)


def locate(array: Any) -> tuple[Any, int, tuple[int, ...]]:
    """The array that owns `array`'s memory, and the offset and strides of `array` in it, in
    elements. What no PyTorch tensor can be (steps backwards or across parts of elements, foreign
    byte order, an owner with gaps) is described as a copy of itself."""
    owner, itemsize = root(array), array.itemsize
    steps, start = strides(array), address(array) - address(owner)
    if (
        owner.dtype.isnative
        and (owner.flags.c_contiguous or owner.flags.f_contiguous)
        and array.dtype.isnative
        and all(step >= 0 and step % itemsize == 0 for step in steps)
        and start >= 0
        and start % itemsize == owner.nbytes % itemsize == 0
    ):
        return owner, start // itemsize, tuple(step // itemsize for step in steps)
    owner = array.astype(array.dtype.newbyteorder("="), order="C", copy=True)
    return owner, 0, tuple(step // itemsize for step in strides(owner))


def as_bytes(owner: Any) -> Any:
    """The memory of a contiguous array as a one-dimensional uint8 array that shares it."""
    flat = owner if owner.flags.c_contiguous else owner.T
    return flat.reshape(-1).view(np.uint8)


def view(storage: UntypedStorage, element: dtype, offset: Any, size: Any, stride: Any) -> Tensor:
    """A tensor of `size` over a storage; offset and strides count elements.

    Raises RuntimeError where it would reach outside of the storage.
    """
    size, stride, itemsize = tuple(size), tuple(stride), element.itemsize
    if type(offset) is not int or offset < 0:
        raise RuntimeError(f"Tensor: invalid storage offset {offset!r}")
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in size + stride):
        raise RuntimeError(
            f"mismatch in length of strides and shape, or a negative number in them: sizes "
            f"{list(size)}, strides {list(stride)}"
        )
    if 0 in size:
        return wrap(transfer(np.empty(size, element.numpy), CPU, storage.device), storage.device)
    needed = (offset + 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))) * itemsize
    if needed > storage.nbytes():
        raise RuntimeError(
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset}, "
            f"and itemsize {itemsize} requiring a storage size of {needed} are out of bounds for "
            f"storage of size {storage.nbytes()}"
        )
    steps = tuple(step * itemsize for step in stride)
    return wrap(_strided(storage, element.numpy, offset, size, steps), storage.device)


def _strided(storage: UntypedStorage, numpy_dtype: Any, offset: int, size: Any, steps: Any) -> Any:
    itemsize = numpy_dtype.itemsize
    if storage.device.xp is np:
        return np.ndarray(size, numpy_dtype, storage.array, offset * itemsize, steps)
    whole = storage.nbytes() // itemsize * itemsize
    flat = storage.array[:whole].view(numpy_dtype)[offset:]
    return storage.device.xp.lib.stride_tricks.as_strided(flat, size, steps)


def overwrite(array: Any, device: Device, values: np.ndarray) -> None:
    """Copies values on the host into a contiguous raw array of `device`."""
    if device.type == "cpu":
        array[...] = values
        return
    from gpunn import cuda

    with cuda.device(device):
        array.set(values)


def reduce_tensor(tensor: Tensor, protocol: Any = None) -> tuple[Any, ...]:
    """`Tensor.__reduce_ex__`: pickles, processes and `copy.copy` take a tensor as its storage.

    Strides, device, subclass, `requires_grad` and the attributes in `__dict__` are kept; the
    gradient, hooks and history are not. CPU tensors of one pickle that share memory share it
    afterwards; a view takes its whole storage along, as in PyTorch: pickle `view.clone()`
    where only the view is wanted.

    >>> import pickle
    >>> pickle.loads(pickle.dumps(gpunn.ones(2, 3).T)).stride()
    (1, 3)
    """
    owner, offset, steps = locate(tensor.array)
    if tensor.device.type != "cpu":
        owner = to_host(as_bytes(owner))
    args = (
        type(tensor), owner, tensor.dtype, str(tensor.device), offset, tensor.array.shape, steps,
        tensor.requires_grad,
    )  # fmt: skip
    return (rebuild_tensor, args, tensor.__dict__) if tensor.__dict__ else (rebuild_tensor, args)


def rebuild_tensor(
    cls: type[Tensor], owner: Any, element: dtype, device: str, offset: int, size: tuple[int, ...],
    stride: tuple[int, ...], requires_grad: bool,
) -> Tensor:  # fmt: skip
    """The tensor that `reduce_tensor` described. Raises RuntimeError where the description
    reaches outside of `owner`, or where the device does not exist here."""
    target = resolve(device)
    storage = UntypedStorage(as_bytes(owner), target if target.type == "cpu" else CPU)
    out = wrap(view(storage.to(target), element, offset, size, stride).array, target, cls)
    out._requires_grad = requires_grad
    return out


def deepcopy_tensor(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """`Tensor.__deepcopy__`: a new leaf over a copy of the storage, with a copy of the gradient.

    Strides, subclass, `requires_grad` and attributes are kept, and tensors that share memory
    share it in the copy. Raises RuntimeError for a tensor that an operation computed.

    >>> import copy
    >>> copy.deepcopy(gpunn.ones(2, requires_grad=True))
    tensor([1., 1.], requires_grad=True)
    """
    if not tensor.is_leaf:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol at the moment. Copy tensor.detach() instead. In a module, a weight that is "
            "computed from others (weight_norm and the like) and kept as an attribute is such a "
            "tensor."
        )
    if id(tensor) in memo:
        return memo[id(tensor)]
    owner, offset, steps = locate(tensor.array)
    copies = memo.setdefault("gpunn.storage", {})  # type: ignore[call-overload]
    if id(owner) not in copies:  # the owner is kept, too: its id must stay its own
        copied = transfer(as_bytes(owner), tensor.device, tensor.device)
        copies[id(owner)] = owner, UntypedStorage(copied, tensor.device)
    storage = copies[id(owner)][1]
    array = view(storage, tensor.dtype, offset, tensor.array.shape, steps).array
    out = memo[id(tensor)] = wrap(array, tensor.device, type(tensor))
    out._requires_grad = tensor.requires_grad
    if tensor.grad is not None:
        out._grad = copy.deepcopy(tensor.grad, memo)
    out.__dict__.update(copy.deepcopy(tensor.__dict__, memo))
    return out


Tensor.__reduce_ex__ = reduce_tensor  # type: ignore[method-assign, assignment]
Tensor.__deepcopy__ = deepcopy_tensor  # type: ignore[attr-defined]
