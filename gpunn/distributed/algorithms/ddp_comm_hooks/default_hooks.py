"""Hooks that average a bucket as it is, or in 16 bits.

Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html#default-communication-hooks
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunn import dtypes
from gpunn.distributed.collectives import all_reduce
from gpunn.distributed.group import ProcessGroup, default_group
from gpunn.futures import Future
from gpunn.nn.parallel.bucket import GradBucket
from gpunn.tensor import Tensor

__all__ = [
    "allreduce_hook", "bf16_compress_hook", "bf16_compress_wrapper", "fp16_compress_hook",
    "fp16_compress_wrapper",
]  # fmt: skip


def mean(group: ProcessGroup | None, tensor: Tensor) -> Future[Tensor]:
    """A future of the tensor's mean over the ranks, made in place."""
    found = default_group() if group is None else group
    tensor.div_(found.size())  # type: ignore[attr-defined]
    work = all_reduce(tensor, group=found, async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])


def allreduce_hook(process_group: ProcessGroup | None, bucket: GradBucket) -> Future[Tensor]:
    """The mean over the ranks: what DistributedDataParallel does without a hook.

    Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html#torch.distributed.algorithms.ddp_comm_hooks.default_hooks.allreduce_hook
    """
    return mean(process_group, bucket.buffer())


def _compressed(
    process_group: ProcessGroup | None, bucket: GradBucket, dtype: Any
) -> Future[Tensor]:
    """The mean, sent in another dtype."""
    buffer = bucket.buffer()
    sent = mean(process_group, buffer.to(dtype))
    return sent.then(lambda done: buffer.copy_(done.value()))


def fp16_compress_hook(process_group: ProcessGroup | None, bucket: GradBucket) -> Future[Tensor]:
    """The mean, sent as float16: half of the bytes of float32.

    Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html#torch.distributed.algorithms.ddp_comm_hooks.default_hooks.fp16_compress_hook
    """
    return _compressed(process_group, bucket, dtypes.float16)


def bf16_compress_hook(process_group: ProcessGroup | None, bucket: GradBucket) -> Future[Tensor]:
    """The mean, sent as bfloat16: half of the bytes of float32, and its range.

    Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html#torch.distributed.algorithms.ddp_comm_hooks.default_hooks.bf16_compress_hook
    """
    return _compressed(process_group, bucket, dtypes.bfloat16)


def _wrapper(hook: Callable[..., Future[Tensor]], dtype: Any) -> Callable[..., Future[Tensor]]:
    def wrapped(state: Any, bucket: GradBucket) -> Future[Tensor]:
        buffer = bucket.buffer()
        bucket.set_buffer(buffer.to(dtype))
        return hook(state, bucket).then(lambda done: buffer.copy_(done.value()))

    return wrapped


def fp16_compress_wrapper(hook: Callable[..., Future[Tensor]]) -> Callable[..., Future[Tensor]]:
    """The hook, given buckets in float16.

    Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html#torch.distributed.algorithms.ddp_comm_hooks.default_hooks.fp16_compress_wrapper

    >>> from gpunn.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
    >>> both = default_hooks.fp16_compress_wrapper(powerSGD_hook.powerSGD_hook)
    """
    return _wrapper(hook, dtypes.float16)


def bf16_compress_wrapper(hook: Callable[..., Future[Tensor]]) -> Callable[..., Future[Tensor]]:
    """The hook, given buckets in bfloat16.

    Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html#torch.distributed.algorithms.ddp_comm_hooks.default_hooks.bf16_compress_wrapper
    """
    return _wrapper(hook, dtypes.bfloat16)
