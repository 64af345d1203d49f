"""Buckets: gradients of several parameters in one flat array, which is reduced as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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

    def part(self, k: int) -> Any:
        """The raw array of the bucket's k-th gradient: a view of the flat one."""
        start = self.starts[k]
        return self.flat.array[start : start + self.sizes[k]].reshape(self.params[k].shape)

    def fill(self, k: int) -> None:
        """Copies the k-th parameter's gradient in, or zeros where it has none."""
        if self.sparse:
            return
        part, grad = self.part(k), self.params[k].grad
        if grad is None:
            part[...] = 0
        elif grad.array.base is None or not _same_memory(grad.array, part):
            part[...] = grad.array

    def empty(self, k: int, view: bool) -> None:
        """Brings the k-th reduced gradient to its parameter; with `view` the two share memory."""
        if self.sparse:
            return
        param, part = self.params[k], self.part(k)
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


def _same_memory(a: Any, b: Any) -> bool:
    """Whether two arrays are the same view of the same memory."""
    return (
        a.shape == b.shape and a.strides == b.strides
        and (a.data.ptr == b.data.ptr if hasattr(a.data, "ptr")
             else a.__array_interface__["data"] == b.__array_interface__["data"])
    )  # fmt: skip


class GradBucket:
    """What a communication hook gets: the flat tensor of one bucket and what it is made of.

    Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html#torch.distributed.GradBucket
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
        found = []
        for start, size, p in zip(
            self._bucket.starts, self._bucket.sizes, self._bucket.params, strict=True
        ):
            found.append(
                wrap(self._buffer.array[start : start + size].reshape(p.shape), p.device)
            )
        return found

    def parameters(self) -> list[Tensor]:
        """The parameters of the bucket."""
        return list(self._bucket.params)

    def is_last(self) -> bool:
        """Whether no bucket comes after it in this backward pass."""
        return self._last


def make_buckets(
    params: Sequence[Tensor], names: Sequence[str], sparse: Sequence[bool], cap: int,
    first: int = FIRST_BYTES,
) -> list[Bucket]:  # fmt: skip
    """Buckets of at most `cap` bytes over the parameters from the last to the first, each of one
    dtype and device; the first one holds at most `first` bytes."""
    groups: list[list[int]] = []
    open_ones: dict[Any, tuple[list[int], int]] = {}
    for k in reversed(range(len(params))):
        p = params[k]
        size = math.prod(p.shape) * p.array.dtype.itemsize
        key = (p.dtype, p.device)
        if sparse[k]:
            groups.append([k])
            continue
        members, used = open_ones.get(key, ([], 0))
        limit = min(first, cap) if not members or members is groups[0] else cap
        if members and used + size > limit:
            members, used = [], 0
        if not members:
            groups.append(members)
        members.append(k)
        open_ones[key] = members, used + size
    return [
        Bucket(i, ks, [params[k] for k in ks], [names[k] for k in ks], sparse[ks[0]])
        for i, ks in enumerate(groups)
    ]
