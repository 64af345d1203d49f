"""Buckets: gradients of several parameters in one flat array, which is reduced as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.sparse import SparseTensor
from gpunn.tensor import Tensor, wrap

FIRST_BYTES = 1 << 20  # a small first bucket, so that communication starts early


class Bucket:
    """Some parameters, in the order in which their gradients are expected, and their flat array.

    `numbers` are the parameters' places in the model, `left` how many gradients have not come yet.
    A bucket of one parameter with sparse gradients has no flat array.
    """

    def __init__(self, index: int, numbers: list[int], params: list[Tensor], names: list[str],
                 sparse: bool = False):  # fmt: skip
        self.index, self.numbers, self.params, self.names = index, numbers, params, names
        self.sparse = sparse
        self.sizes = [math.prod(p.shape) for p in params]
        self.starts = [sum(self.sizes[:k]) for k in range(len(params))]
        self.left = len(params)
        self.future: Any = None
        like = params[0]
        count = 0 if sparse else sum(self.sizes)
        self.flat = wrap(like.device.xp.zeros(count, like.array.dtype), like.device)
        self.parts = [] if sparse else cut(self, self.flat)

    def fill(self, k: int, share: int = 1) -> None:
        """Copies the k-th parameter's gradient in, divided by `share`; zeros where it has none.

        RuntimeError for a gradient of another dtype than the bucket's.
        """
        if self.sparse:
            return
        part, grad = self.parts[k], self.params[k].grad
        if grad is None:
            part[...] = 0
            return
        if isinstance(grad, SparseTensor):
            grad = self.params[k].grad = grad.to_dense()
        array = grad.array
        if array.dtype != part.dtype or grad.device is not self.flat.device:
            raise RuntimeError(
                f"DistributedDataParallel: the gradient of {self.names[k]} is {grad.dtype} on "
                f"{grad.device}, its bucket {self.flat.dtype} on {self.flat.device}: change a "
                "module's dtype or device before it is wrapped, not after"
            )
        if share != 1:
            self.flat.device.xp.divide(array, part.dtype.type(share), out=part)
        elif not _same_memory(array, part):
            part[...] = array

    def empty(self, k: int, view: bool) -> None:
        """Brings the k-th reduced gradient to its parameter; with `view` the two share memory."""
        if self.sparse:
            return
        param, part = self.params[k], self.parts[k]
        grad = param.grad
        if view and (grad is None or not _same_memory(grad.array, part)):
            param.grad = wrap(part, param.device)
        elif grad is None:
            param.grad = wrap(part.copy(), param.device)
        elif not view:
            grad.array[...] = part

    def title(self) -> str:
        """What a person reads of it in an error."""
        first, last = self.names[0], self.names[-1]
        return f"bucket {self.index}: {first}" + ("" if first == last else f" to {last}")


def cut(bucket: Bucket, flat: Tensor) -> list[Any]:
    """Views of a flat tensor, one for each parameter of a bucket, of its shape."""
    return [
        flat.array[start : start + size].reshape(p.shape)
        for start, size, p in zip(bucket.starts, bucket.sizes, bucket.params, strict=True)
    ]


def _same_memory(a: Any, b: Any) -> bool:
    """Whether two arrays are the same view of the same memory."""
    if a.shape != b.shape or a.strides != b.strides:
        return False
    return _address(a) == _address(b)


def _address(array: Any) -> int:
    if type(array) is np.ndarray:
        return array.__array_interface__["data"][0]
    return array.data.ptr


class GradBucket:
    """What a communication hook gets: the flat tensor of one bucket and what it is made of.

    Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html#torch.distributed.GradBucket

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> def look(state, bucket):
    ...     print(bucket.index(), bucket.buffer(), bucket.is_last())
    ...     return dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    >>> model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
    >>> model.register_comm_hook(None, look)
    >>> model(gpunn.ones(3, 2)).sum().backward()
    0 tensor([3., 3., 3.]) True
    >>> dist.destroy_process_group()
    """

    def __init__(self, bucket: Bucket, last: bool):
        self._bucket, self._last, self._buffer = bucket, last, bucket.flat

    def index(self) -> int:
        """The number of the bucket, 0 for the one that is reduced first."""
        return self._bucket.index

    def buffer(self) -> Tensor:
        """All gradients of the bucket, flat, of one dimension."""
        return self._buffer

    def set_buffer(self, buffer: Tensor) -> None:
        """Replaces the tensor that `buffer()` gives."""
        self._buffer = buffer

    def gradients(self) -> list[Tensor]:
        """The gradient of each parameter: views of `buffer()`."""
        device = self._buffer.device
        return [wrap(part, device) for part in cut(self._bucket, self._buffer)]

    def parameters(self) -> list[Tensor]:
        """The parameters of the bucket."""
        return list(self._bucket.params)

    def is_last(self) -> bool:
        """Whether no bucket comes after it in this backward pass."""
        return self._last


def make_buckets(
    params: Sequence[Tensor], names: Sequence[str], sparse: Sequence[bool], caps: Sequence[int],
    late: Sequence[bool] = (),
) -> list[Bucket]:  # fmt: skip
    """Buckets over the parameters from the last to the first, in the order in which they get full.

    Each is of one dtype and device. The n-th of those holds at most caps[n] bytes, all after that
    as many as the last of `caps`; a larger parameter is alone. Sparse gradients have a bucket each.
    Those that are `late` come last, whatever their size.
    """
    groups: list[list[int]] = []
    last: list[list[int]] = []
    open_ones: dict[Any, tuple[list[int], int, int]] = {}
    for k in reversed(range(len(params))):
        p, is_late = params[k], bool(late) and late[k]
        size = math.prod(p.shape) * p.array.dtype.itemsize
        key = (p.dtype, p.device, is_late)
        members, used, number = open_ones.get(key, ([], 0, 0))
        if sparse[k]:
            groups.append([k])
            continue
        if members and not is_late and used + size > caps[min(number, len(caps) - 1)]:
            members, used, number = [], 0, number + 1
        if not members:
            (last if is_late else groups).append(members)
        members.append(k)
        open_ones[key] = members, used + size, number
    groups.sort(key=lambda ks: -ks[-1])  # full when the gradient of the first parameter is there
    return [
        Bucket(i, ks, [params[k] for k in ks], [names[k] for k in ks], sparse[ks[0]])
        for i, ks in enumerate(groups + last)
    ]
