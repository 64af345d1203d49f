"""Collective operations between the ranks of a group, on Tensors.

All ranks of the group call the same operations in the same order, with tensors of one dtype and
shape; a tensor may lie in memory in any order. With `async_op` an operation returns a Work at once,
and its tensors are to be left alone until `wait()` returns. A process that is not in the group is
warned and gets None. TypeError for what is no tensor; ValueError for dtypes that differ, and for
src= or dst= that is not in the group; RuntimeError for shapes; DistBackendError, which names the
rank, where one is gone or late.
Source: https://docs.pytorch.org/docs/stable/distributed.html#collective-functions

>>> dist = gpunn.distributed  # in every process of a job; here it is one alone
>>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
>>> rank, size = dist.get_rank(), dist.get_world_size()
>>> x = gpunn.full((2,), rank + 1.0)
>>> dist.all_reduce(x, dist.ReduceOp.SUM)
>>> dist.broadcast(x, src=0)
>>> dist.reduce(x, dst=0)
>>> parts = [gpunn.zeros(2) for _ in range(size)]
>>> dist.all_gather(parts, x)
>>> dist.reduce_scatter(x, parts, dist.ReduceOp.MAX)
>>> dist.all_to_all(parts, [x] * size)
>>> dist.gather(x, parts if rank == 0 else None, dst=0)
>>> dist.scatter(x, parts if rank == 0 else None, src=0)
>>> work = dist.all_reduce(x, async_op=True)
>>> work.wait(), x
(True, tensor([1., 1.]))
>>> dist.destroy_process_group()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunn.autograd.graph import touch
from gpunn.distributed.arrays import (
    Arrays,
    ReduceOp,
    check,
    check_dtypes,
    check_given,
    check_many,
    check_same,
    finish_mean,
    op_name,
    outside,
    put,
    root_of,
    run,
)
from gpunn.distributed.comm import Comm
from gpunn.distributed.group import ProcessGroup, chosen
from gpunn.distributed.work import Work
from gpunn.tensor import Tensor, wrap


def all_reduce(
    tensor: Tensor, op: Any = ReduceOp.SUM, group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Combines the tensors of all ranks, in place: afterwards all have the same.

    `op`: ReduceOp.SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR, BXOR. With `async_op` it returns a Work
    whose `wait()` says when the result is there.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_reduce
    """
    check("tensor", tensor)
    name = op_name(op, tensor)
    found = chosen(group)
    if found is None:
        return outside("all_reduce")

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        x = arrays.out(tensor)

        def step() -> None:
            comm.all_reduce(x, name)
            finish_mean(op, x, comm.size)

        return step

    return run("all_reduce", found, tensor, [tensor], async_op, prepare)


def all_reduce_coalesced(
    tensors: Sequence[Tensor], op: Any = ReduceOp.SUM, group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Any:  # fmt: skip
    """`all_reduce` of several tensors of one dtype at once.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_reduce
    """
    tensors = [tensors] if isinstance(tensors, Tensor) else tensors
    check("tensors", tensors, several=True)
    found = chosen(group)
    if found is None:
        return outside("all_reduce_coalesced")
    like = tensors[0]
    name = op_name(op, like)
    check_dtypes("all_reduce_coalesced", tensors, like)
    if any(t.device is not like.device for t in tensors):
        raise ValueError("all_reduce_coalesced: tensors of one device are expected")

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        flat = arrays.empty((sum(t.array.size for t in tensors),), like)
        places = np.cumsum([0, *(t.array.size for t in tensors)])
        for t, at in zip(tensors, places, strict=False):
            flat[at : at + t.array.size] = arrays.of(t).reshape(-1)

        def step() -> None:
            comm.all_reduce(flat, name)
            finish_mean(op, flat, comm.size)
            for t, at in zip(tensors, places, strict=False):
                put(t, flat[at : at + t.array.size])
                touch(t)

        return step

    return run("all_reduce_coalesced", found, like, list(tensors), async_op, prepare)


def reduce(
    tensor: Tensor, dst: int | None = None, op: Any = ReduceOp.SUM,
    group: ProcessGroup | None = None, async_op: bool = False, group_dst: int | None = None,
) -> Work | None:  # fmt: skip
    """Combines the tensors of all ranks into that of rank `dst`; the others stay as they are.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.reduce
    """
    check("tensor", tensor)
    name = op_name(op, tensor)
    found = chosen(group)
    if found is None:
        return outside("reduce")
    root = root_of(found, dst, group_dst, "dst")

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        x = arrays.out(tensor) if comm.rank == root else arrays.of(tensor)

        def step() -> None:
            comm.reduce(x, root, name)
            if comm.rank == root:
                finish_mean(op, x, comm.size)

        return step

    return run("reduce", found, tensor, [tensor], async_op, prepare)


def broadcast(
    tensor: Tensor, src: int | None = None, group: ProcessGroup | None = None,
    async_op: bool = False, group_src: int | None = None,
) -> Work | None:  # fmt: skip
    """Makes the tensors of all ranks equal that of rank `src`, in place.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.broadcast
    """
    check("tensor", tensor)
    found = chosen(group)
    if found is None:
        return outside("broadcast")
    root = root_of(found, src, group_src, "src")

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        x = arrays.of(tensor) if comm.rank == root else arrays.out(tensor)
        return lambda: comm.broadcast(x, root)

    return run("broadcast", found, tensor, [tensor], async_op, prepare)


def broadcast_coalesced(
    tensors: Sequence[Tensor], group_src: int, group: ProcessGroup | None = None
) -> None:
    """`broadcast` of several tensors, all of a dtype and device in one message.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.broadcast
    """
    found = chosen(group)
    if found is None:
        return outside("broadcast_coalesced")
    kinds: dict[Any, list[Tensor]] = {}
    for t in tensors:
        kinds.setdefault((t.dtype, t.device), []).append(t)
    for (_, device), members in kinds.items():
        flat = wrap(device.xp.concatenate([t.array.reshape(-1) for t in members]), device)
        broadcast(flat, group=found, group_src=group_src)
        if found.rank() == group_src:
            continue
        start = 0
        for t in members:
            put(t, flat.array[start : start + t.array.size])
            touch(t)
            start += t.array.size


def all_gather(
    tensor_list: Sequence[Tensor], tensor: Tensor, group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """tensor_list[r] gets the tensor of rank r; all have the same shape.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_gather
    """
    check("tensor_list", tensor_list, several=True)
    check("tensor", tensor)
    found = chosen(group)
    if found is None:
        return outside("all_gather")
    check_many("all_gather", tensor_list, found.size())
    check_same("all_gather", tensor_list, tensor)

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        x = arrays.of(tensor)
        out = arrays.empty((comm.size, *x.shape), tensor)

        def step() -> None:
            comm.all_gather(out, x)
            for t, part in zip(tensor_list, out, strict=True):
                put(t, part)
                touch(t)

        return step

    return run("all_gather", found, tensor, list(tensor_list), async_op, prepare)


def all_gather_into_tensor(
    output_tensor: Tensor, input_tensor: Tensor, group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """The tensors of all ranks, one after the other or stacked, into one tensor.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_gather_into_tensor
    """
    check("input_tensor", input_tensor)
    check("output_tensor", output_tensor)
    found = chosen(group)
    if found is None:
        return outside("all_gather_into_tensor")
    if output_tensor.dtype is not input_tensor.dtype:
        raise ValueError("output tensor must have the same type as input tensor")
    if output_tensor.array.size != found.size() * input_tensor.array.size:
        raise ValueError("output tensor size must be equal to world_size times input tensor size")

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        x, out = arrays.of(input_tensor), arrays.out(output_tensor)
        return lambda: comm.all_gather(out.reshape(comm.size, *x.shape), x)

    return run(
        "all_gather_into_tensor", found, input_tensor, [output_tensor], async_op, prepare
    )


all_gather_single = all_gather_into_tensor


def all_gather_coalesced(
    output_tensor_lists: Sequence[Sequence[Tensor]], input_tensor_list: Sequence[Tensor],
    group: ProcessGroup | None = None, async_op: bool = False,
) -> Any:  # fmt: skip
    """`all_gather` of several tensors; output_tensor_lists[r] gets those of rank r.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_gather
    """
    work = None
    for k, tensor in enumerate(input_tensor_list):
        work = all_gather([row[k] for row in output_tensor_lists], tensor, group, async_op)
    return work  # operations end in order: the last one is the last to be done


def gather(
    tensor: Tensor, gather_list: Sequence[Tensor] | None = None, dst: int | None = None,
    group: ProcessGroup | None = None, async_op: bool = False, group_dst: int | None = None,
) -> Work | None:  # fmt: skip
    """gather_list[r] of rank `dst` gets the tensor of rank r.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.gather
    """
    check("tensor", tensor)
    found = chosen(group)
    if found is None:
        return outside("gather")
    root = root_of(found, dst, group_dst, "dst", 0)
    _check_list("gather_list", gather_list, found, root, "destination")
    outs = gather_list or []
    check_same("gather", outs, tensor)

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        x, targets = arrays.of(tensor), [arrays.out(t) for t in outs]
        return lambda: comm.gather(targets or None, x, root)

    return run("gather", found, tensor, list(outs), async_op, prepare)


def scatter(
    tensor: Tensor, scatter_list: Sequence[Tensor] | None = None, src: int | None = None,
    group: ProcessGroup | None = None, async_op: bool = False, group_src: int | None = None,
) -> Work | None:  # fmt: skip
    """The tensor of rank r gets scatter_list[r] of rank `src`.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.scatter
    """
    check("tensor", tensor)
    found = chosen(group)
    if found is None:
        return outside("scatter")
    root = root_of(found, src, group_src, "src", 0)
    _check_list("scatter_list", scatter_list, found, root, "source")
    parts = scatter_list or []
    check_same("scatter", parts, tensor)

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        x, sent = arrays.out(tensor), [arrays.of(t) for t in parts]
        return lambda: comm.scatter(x, sent or None, root)

    return run("scatter", found, tensor, [tensor], async_op, prepare)


def _check_list(name: str, given: Any, found: ProcessGroup, root: int, where: str) -> None:
    """The list of tensors is there on the root, and nowhere else."""
    check_given(name, given, found, root, where)
    if given:
        check(name, given, several=True)
        check_many(name, given, found.size())


def reduce_scatter(
    output: Tensor, input_list: Sequence[Tensor], op: Any = ReduceOp.SUM,
    group: ProcessGroup | None = None, async_op: bool = False,
) -> Work | None:  # fmt: skip
    """output of rank r gets the combination of the input_list[r] of all ranks.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.reduce_scatter
    """
    check("output", output)
    check("input_list", input_list, several=True)
    found = chosen(group)
    if found is None:
        return outside("reduce_scatter")
    check_many("reduce_scatter", input_list, found.size())
    check_same("reduce_scatter", input_list, output)

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        out, x = arrays.out(output), arrays.empty((comm.size, *output.shape), output)
        for k, t in enumerate(input_list):
            x[k] = arrays.of(t)

        def step() -> None:
            comm.reduce_scatter(out, x, op_name(op, output))
            finish_mean(op, out, comm.size)

        return step

    return run("reduce_scatter", found, output, [output], async_op, prepare)


def reduce_scatter_tensor(
    output: Tensor, input: Tensor, op: Any = ReduceOp.SUM, group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """output of rank r gets part r of the combination of the inputs of all ranks.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.reduce_scatter_tensor
    """
    check("output", output)
    check("input", input)
    found = chosen(group)
    if found is None:
        return outside("reduce_scatter_tensor")
    if input.array.size != found.size() * output.array.size:
        raise ValueError("input tensor must be the same size as output size times world size")
    if input.dtype is not output.dtype:
        raise TypeError("input tensor must be the same type as the output tensor")

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        out, x = arrays.out(output), arrays.of(input).reshape(comm.size, *output.shape)

        def step() -> None:
            comm.reduce_scatter(out, x, op_name(op, output))
            finish_mean(op, out, comm.size)

        return step

    return run("reduce_scatter_tensor", found, output, [output], async_op, prepare)


reduce_scatter_single = reduce_scatter_tensor


def all_to_all(
    output_tensor_list: Sequence[Tensor], input_tensor_list: Sequence[Tensor],
    group: ProcessGroup | None = None, async_op: bool = False,
) -> Work | None:  # fmt: skip
    """output_tensor_list[r] gets input_tensor_list[this rank] of rank r.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_to_all
    """
    check("output_tensor_list", output_tensor_list, several=True)
    check("input_tensor_list", input_tensor_list, several=True)
    found = chosen(group)
    if found is None:
        return outside("all_to_all")
    for tensors in (output_tensor_list, input_tensor_list):
        check_many("all_to_all", tensors, found.size())
        check_dtypes("all_to_all", tensors, input_tensor_list[0])

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        outs = [arrays.out(t) for t in output_tensor_list]
        parts = [arrays.of(t) for t in input_tensor_list]
        return lambda: comm.all_to_all(outs, parts)

    like = input_tensor_list[0]
    return run("all_to_all", found, like, list(output_tensor_list), async_op, prepare)


def all_to_all_single(
    output: Tensor, input: Tensor, output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None, group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """`all_to_all` of the parts of dimension 0 of one tensor, equal unless sizes are given.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_to_all_single
    """
    check("output", output)
    check("input", input)
    check_dtypes("all_to_all_single", [output], input)
    found = chosen(group)
    if found is None:
        return outside("all_to_all_single")

    def cut(tensor: Tensor, array: Any, sizes: Sequence[int] | None) -> list[Any]:
        if not tensor.ndim:
            raise RuntimeError("all_to_all_single: a tensor of 0 dimensions has no dim 0 to split")
        rows, size = tensor.shape[0], found.size()
        if not sizes and rows % size:
            raise RuntimeError(f"Tensor's dim 0 ({rows}) does not divide equally across group size")
        sizes = sizes or [rows // size] * size
        if len(sizes) != size or sum(sizes) != rows:
            raise RuntimeError(f"Split sizes {list(sizes)} do not add up to dim 0, {rows}")
        ends = np.cumsum(sizes)
        return [array[end - n : end] for n, end in zip(sizes, ends, strict=True)]

    def prepare(comm: Comm, arrays: Arrays) -> Callable[[], Any]:
        parts = cut(input, arrays.of(input), input_split_sizes)
        outs = cut(output, arrays.out(output), output_split_sizes)
        return lambda: comm.all_to_all(outs, parts)

    return run("all_to_all_single", found, input, [output], async_op, prepare)
