"""Python objects between ranks, pickled. As with every pickle: only from ranks that you trust.

Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_gather_object

>>> dist = gpunn.distributed
>>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
>>> found = [None] * dist.get_world_size()
>>> dist.all_gather_object(found, {"rank": dist.get_rank()})
>>> found
[{'rank': 0}]
>>> dist.broadcast_object_list(found, src=0)
>>> dist.gather_object("here", found if dist.get_rank() == 0 else None, dst=0)
>>> dist.scatter_object_list(got := [None], found, src=0)
>>> got
['here']
>>> dist.destroy_process_group()
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.device import resolve
from gpunn.distributed.arrays import check_given, outside, root_of
from gpunn.distributed.collectives import all_gather, broadcast, gather, scatter
from gpunn.distributed.group import ProcessGroup, chosen
from gpunn.distributed.messages import recv, send
from gpunn.tensor import Tensor, wrap


def _tensor(array: np.ndarray, found: ProcessGroup) -> Tensor:
    """A host array as a tensor where the group's engine takes it."""
    device = resolve("cpu" if "cpu" in found.engines else "cuda")
    return wrap(array if device.xp is np else device.xp.asarray(array), device)


def _bytes(obj: Any) -> np.ndarray:
    return np.frombuffer(bytearray(pickle.dumps(obj)), np.uint8)


def _object(tensor: Tensor, size: int) -> Any:
    return pickle.loads(tensor.cpu().array[:size].tobytes())


def _sizes(data: np.ndarray, found: ProcessGroup) -> list[int]:
    """The length of every rank's data."""
    mine = _tensor(np.array([len(data)]), found)
    parts = [_tensor(np.zeros(1, np.int64), found) for _ in range(found.size())]
    all_gather(parts, mine, found)
    return [int(part.item()) for part in parts]


def _padded(data: np.ndarray, size: int) -> np.ndarray:
    padded = np.zeros(size, np.uint8)
    padded[: len(data)] = data
    return padded


def all_gather_object(
    object_list: list[Any], obj: Any, group: ProcessGroup | None = None
) -> None:
    """object_list[r] becomes the `obj` of rank r, which has to be picklable.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_gather_object
    """
    found = chosen(group)
    if found is None:
        return outside("all_gather_object")
    data = _bytes(obj)
    sizes = _sizes(data, found)
    parts = [_tensor(np.empty(max(sizes), np.uint8), found) for _ in sizes]
    all_gather(parts, _tensor(_padded(data, max(sizes)), found), found)
    object_list[: len(sizes)] = [_object(*pair) for pair in zip(parts, sizes, strict=True)]


def gather_object(
    obj: Any, object_gather_list: list[Any] | None = None, dst: int | None = None,
    group: ProcessGroup | None = None, group_dst: int | None = None,
) -> None:  # fmt: skip
    """object_gather_list[r] of rank `dst` becomes the `obj` of rank r.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.gather_object
    """
    found = chosen(group)
    if found is None:
        return outside("gather_object")
    root = root_of(found, dst, group_dst, "dst", 0)
    check_given("gather_list", object_gather_list, found, root, "destination")
    data = _bytes(obj)
    sizes = _sizes(data, found)
    parts = None
    if object_gather_list:
        parts = [_tensor(np.empty(max(sizes), np.uint8), found) for _ in sizes]
    mine = _tensor(_padded(data, max(sizes)), found)
    gather(mine, parts, group=found, group_dst=root)
    if object_gather_list and parts is not None:
        pairs = zip(parts, sizes, strict=True)
        object_gather_list[: len(sizes)] = [_object(*pair) for pair in pairs]


def broadcast_object_list(
    object_list: list[Any], src: int | None = None, group: ProcessGroup | None = None,
    device: Any = None, group_src: int | None = None,
) -> None:  # fmt: skip
    """The objects of the list become those of rank `src` (0); the lists are equally long.

    `device` is accepted and changes nothing.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.broadcast_object_list
    """
    found = chosen(group)
    if found is None:
        return outside("broadcast_object_list")
    root = root_of(found, src, group_src, "src", 0)
    datas = [_bytes(obj) for obj in object_list] if found.rank() == root else []
    sizes = _tensor(np.array([len(d) for d in datas] or [0] * len(object_list), np.int64), found)
    broadcast(sizes, group=found, group_src=root)
    lengths = [int(n) for n in sizes.cpu().array]
    everything = _tensor(_padded(_joined(datas), sum(lengths)), found)
    broadcast(everything, group=found, group_src=root)
    if found.rank() != root:
        _fill(object_list, everything, lengths)


def _joined(datas: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([*datas, np.zeros(0, np.uint8)])


def _fill(object_list: list[Any], everything: Tensor, lengths: Sequence[int]) -> None:
    """The objects whose pickles lie one after the other."""
    raw, at = everything.cpu().array.tobytes(), 0
    for k, length in enumerate(lengths):
        object_list[k] = pickle.loads(raw[at : at + length])
        at += length


def scatter_object_list(
    scatter_object_output_list: list[Any], scatter_object_input_list: list[Any] | None = None,
    src: int | None = None, group: ProcessGroup | None = None, group_src: int | None = None,
) -> None:  # fmt: skip
    """The first entry of the output list becomes entry r of rank `src`'s input list, on rank r.

    The input lists of other ranks do not count. ValueError where `src` (0) gives none.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.scatter_object_list
    """
    found = chosen(group)
    if found is None:
        return outside("scatter_object_list")
    if not isinstance(scatter_object_output_list, list) or not scatter_object_output_list:
        raise ValueError(
            "Expected argument scatter_object_output_list to be a list of size at least 1."
        )
    root, datas = root_of(found, src, group_src, "src", 0), []
    if found.rank() == root:
        if scatter_object_input_list is None or len(scatter_object_input_list) != found.size():
            raise ValueError(
                "scatter_object_list: source rank must provide non-None scatter_object_input_list, "
                f"one object for each of {found.size()} ranks"
            )
        datas = [_bytes(obj) for obj in scatter_object_input_list]
    sizes = _tensor(np.array([len(d) for d in datas] or [0] * found.size(), np.int64), found)
    broadcast(sizes, group=found, group_src=root)
    lengths = [int(n) for n in sizes.cpu().array]
    parts = [_tensor(_padded(data, max(lengths)), found) for data in datas] or None
    mine = _tensor(np.empty(max(lengths), np.uint8), found)
    scatter(mine, parts, group=found, group_src=root)
    scatter_object_output_list[0] = _object(mine, lengths[found.rank()])


def send_object_list(
    object_list: list[Any], dst: int | None = None, group: ProcessGroup | None = None,
    device: Any = None, group_dst: int | None = None, use_batch: bool = False,
) -> None:  # fmt: skip
    """Sends the objects to rank `dst`, which calls `recv_object_list`.

    `device` and `use_batch` are accepted and change nothing.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.send_object_list
    """
    found = chosen(group)
    if found is None:
        return outside("send_object_list")
    datas = [_bytes(obj) for obj in object_list]
    sizes = np.array([len(data) for data in datas], np.int64)
    send(_tensor(sizes, found), dst, found, group_dst=group_dst)
    send(_tensor(_joined(datas), found), dst, found, group_dst=group_dst)


def recv_object_list(
    object_list: list[Any], src: int | None = None, group: ProcessGroup | None = None,
    device: Any = None, group_src: int | None = None, use_batch: bool = False,
) -> int:  # fmt: skip
    """Receives objects from rank `src`, or from whoever sends first; returns the sender.

    `device` and `use_batch` are accepted and change nothing.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.recv_object_list
    """
    found = chosen(group)
    if found is None:
        outside("recv_object_list")
        return -1
    sizes = _tensor(np.zeros(len(object_list), np.int64), found)
    sender = recv(sizes, src, found, group_src=group_src)
    lengths = [int(n) for n in sizes.cpu().array]
    everything = _tensor(np.empty(sum(lengths), np.uint8), found)
    recv(everything, sender, found)
    _fill(object_list, everything, lengths)
    return sender
