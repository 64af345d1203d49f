"""Questions about tensors and dtypes: is_tensor, numel, result_type, typename, ..."""

from __future__ import annotations

import math
from typing import Any

from gpunn import dtypes
from gpunn.ops._rows import NUMBERS
from gpunn.tensor import Tensor, method

inf, nan, pi, e = math.inf, math.nan, math.pi, math.e
newaxis = None


def _tensor(name: str, x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}"
        )
    return x


def is_tensor(obj: Any, /) -> bool:
    """Whether an object is a tensor.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.is_tensor.html

    >>> gpunn.is_tensor(gpunn.ones(1)), gpunn.is_tensor([1])
    (True, False)
    """
    return isinstance(obj, Tensor)


def is_storage(obj: Any, /) -> bool:
    """Whether an object is a storage.

    >>> gpunn.is_storage(gpunn.ones(1).untyped_storage())
    True
    """
    from gpunn.storage import UntypedStorage

    return isinstance(obj, UntypedStorage)


def is_floating_point(input: Tensor) -> bool:
    """Whether a tensor's dtype is a floating one.

    >>> gpunn.is_floating_point(gpunn.ones(1))
    True
    """
    return _tensor("is_floating_point", input).dtype.is_floating_point


def is_complex(input: Tensor) -> bool:
    """Whether a tensor's dtype is complex.

    >>> gpunn.is_complex(gpunn.ones(1))
    False
    """
    return _tensor("is_complex", input).dtype.is_complex


def is_signed(input: Tensor) -> bool:
    """Whether a tensor's dtype has negative values.

    >>> gpunn.is_signed(gpunn.ones(1))
    True
    """
    return _tensor("is_signed", input).dtype.is_signed


@method
def is_nonzero(input: Tensor) -> bool:
    """Whether the only element of a tensor is not zero; RuntimeError for more or fewer elements.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.is_nonzero.html

    >>> gpunn.is_nonzero(gpunn.tensor([0.0]))
    False
    """
    return bool(_tensor("is_nonzero", input))


def is_inference(input: Tensor) -> bool:
    """Whether a tensor was made in inference mode: always False, such tensors are ordinary here.

    >>> gpunn.is_inference(gpunn.ones(1))
    False
    """
    return _tensor("is_inference", input).is_inference()


def numel(input: Tensor) -> int:
    """The number of elements of a tensor.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.numel.html

    >>> gpunn.numel(gpunn.zeros(2, 3))
    6
    """
    return _tensor("numel", input).numel()


def result_type(tensor1: Any, tensor2: Any) -> dtypes.dtype:
    """The dtype of an arithmetic operation on two tensors or numbers.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.result_type.html

    >>> gpunn.result_type(gpunn.tensor([1, 2], dtype=gpunn.int8), 1.0)
    torch.float32
    """
    pairs = []
    for x in (tensor1, tensor2):
        if not isinstance(x, (Tensor, *NUMBERS)):
            raise TypeError(
                f"result_type() received an invalid combination of arguments - got {x!r}"
            )
        if isinstance(x, Tensor):
            pairs.append((x.dtype, 2 if x.ndim else 1))
        else:
            pairs.append((dtypes.of_scalar(x), 0))
    return dtypes.result_of(pairs)


@method
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape.

    >>> gpunn.is_same_size(gpunn.ones(2), gpunn.zeros(2))
    True
    """
    return _tensor("is_same_size", input).array.shape == other.array.shape


@method
def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether two tensors read the same memory with the same shape and strides."""
    same = self.data_ptr() == tensor.data_ptr() and self.shape == tensor.shape
    return same and self.stride() == tensor.stride()


@method
def dim_order(self: Tensor) -> tuple[int, ...]:
    """The dimensions from the largest step in memory to the smallest.

    >>> gpunn.zeros(2, 3).T.dim_order()
    (1, 0)
    """
    steps = self.stride()
    return tuple(sorted(range(self.ndim), key=lambda d: -steps[d]))


for _name in ("ipu", "maia", "mps", "mtia", "sparse_csr", "vulkan", "xla", "xpu"):
    setattr(Tensor, f"is_{_name}", False)


def typename(obj: Any, /) -> str:
    """The name of an object's type: "torch.FloatTensor" of tensors, module and class of others.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.typename.html

    >>> gpunn.typename(gpunn.ones(1))
    'torch.FloatTensor'
    """
    if isinstance(obj, Tensor):
        return obj.type()  # type: ignore[attr-defined]
    kind = obj if isinstance(obj, type) else type(obj)
    home = getattr(obj, "__module__", None) or kind.__module__
    name = getattr(obj, "__qualname__", kind.__qualname__)
    return name if home in ("builtins", "__builtin__") else f"{home}.{name}"


__all__ = [
    "e", "inf", "is_complex", "is_floating_point", "is_inference", "is_nonzero", "is_same_size",
    "is_signed", "is_storage", "is_tensor", "nan", "newaxis", "numel", "pi", "result_type",
    "typename",
]  # fmt: skip
