"""Whether all ranks wrap the same model in the same way: asked once, before anything is reduced."""

from __future__ import annotations

from typing import Any

from gpunn.distributed.group import ProcessGroup
from gpunn.distributed.objects import all_gather_object


def check_same_on_all_ranks(tensors: list[Any], how: dict[str, Any], group: ProcessGroup) -> None:
    """RuntimeError on every rank, with the first difference, where models differ.

    `tensors` are (kind, name, shape, dtype, requires_grad) of each, in order; `how` are the
    arguments by which they are reduced.

    >>> from gpunn.nn.parallel.agreement import check_same_on_all_ranks
    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> check_same_on_all_ranks([("parameter", "a", (2, 3), "torch.float32", True)], {},
    ...                         dist.group.WORLD)
    >>> dist.destroy_process_group()
    """
    parts: list[Any] = [None] * group.size()
    all_gather_object(parts, (tensors, how), group)
    for rank, theirs in zip(group.ranks, parts, strict=True):
        if theirs != parts[0]:
            told = _difference(group.ranks[0], parts[0], rank, theirs)
            raise RuntimeError(f"DDP expects same model across all ranks, but {told}")


def _difference(rank: int, first: Any, other: int, theirs: Any) -> str:
    """The first difference of two models: of their tensors, or of how they are reduced."""
    (a, how), (b, others) = first, theirs
    if len(a) != len(b):
        counts = [sum(kind == "parameter" for kind, *_ in part) for part in (a, b)]
        names = {n for _, n, *_ in a} ^ {n for _, n, *_ in b}
        text = f"rank {rank} has {counts[0]} params, while rank {other} has {counts[1]} params"
        return text + (f"; not on both are {', '.join(sorted(names)[:5])}" if names else "")
    for one, two in zip(a, b, strict=True):
        if one != two:
            return f"rank {rank} has {_told(*one)}, and rank {other} in its place {_told(*two)}"
    name = next(key for key in how if how[key] != others[key])
    return f"rank {rank} was given {name}={how[name]}, rank {other} {name}={others[name]}"


def _told(kind: str, name: str, shape: tuple[int, ...], dtype: str, requires_grad: bool) -> str:
    frozen = "" if requires_grad or kind == "buffer" else ", without gradient"
    return f"the {kind} {name} of shape {list(shape)}, {dtype}{frozen}"
