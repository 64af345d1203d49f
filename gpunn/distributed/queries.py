"""Questions about process groups and engines, and groups of neighbours.

Source: https://docs.pytorch.org/docs/stable/distributed.html
"""

from __future__ import annotations

import enum
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from gpunn.device import Device
from gpunn.distributed.group import (
    Backend,
    GroupMember,
    ProcessGroup,
    chosen,
    new_group,
    table,
)


def get_rank(group: ProcessGroup | None = None) -> int:
    """This process's rank in the group, by default of all; -1 where it is not in it.

    ValueError before `init_process_group`.
    """
    found = chosen(group)
    return -1 if found is None else found.rank()


def get_world_size(group: ProcessGroup | None = None) -> int:
    """How many ranks the group has, by default all; -1 where this process is not in it.

    ValueError before `init_process_group`.
    """
    found = chosen(group)
    return -1 if found is None else found.size()


def get_backend(group: ProcessGroup | None = None) -> Backend:
    """The name of the group's engine, "custom" where it has several."""
    return Backend(_member(group).name())


def _member(group: ProcessGroup | None) -> ProcessGroup:
    """The group; ValueError where this process is not in it."""
    found = chosen(group)
    if found is None:
        raise ValueError("Invalid process group specified: this process is not in it")
    return found


def get_backend_config(group: ProcessGroup | None = None) -> str:
    """The engine of each device type: "cpu:gloo,cuda:nccl"."""
    found = _member(group)
    return ",".join(f"{kind}:{engine}" for kind, engine in found.engines.items())


def get_default_backend_for_device(device: Any) -> str:
    """The engine that serves a device.

    >>> gpunn.distributed.get_default_backend_for_device("cpu")
    'gloo'
    """
    return Backend.default_device_backend_map[Device(device).type]


def get_process_group_ranks(group: ProcessGroup | None) -> list[int]:
    """The global ranks of the group, in the order of their ranks within it."""
    return list(_member(group).ranks)


def get_group_rank(group: ProcessGroup, global_rank: int) -> int:
    """The rank within the group of a global rank; ValueError where it is not in it."""
    ranks = get_process_group_ranks(group)
    if global_rank not in ranks:
        raise ValueError(f"Global rank {global_rank} is not part of group {group}")
    return ranks.index(global_rank)


def get_global_rank(group: ProcessGroup, group_rank: int) -> int:
    """The global rank of a rank within the group; ValueError where there is none."""
    ranks = get_process_group_ranks(group)
    if not 0 <= group_rank < len(ranks):
        raise ValueError(f"Group rank {group_rank} is not part of group {group}")
    return ranks[group_rank]


def get_node_local_rank(fallback_rank: int | None = None) -> int:
    """This process's number on its host, from LOCAL_RANK."""
    found = os.environ.get("LOCAL_RANK", fallback_rank)
    if found is None:
        raise RuntimeError(
            "LOCAL_RANK is not in the environment. Consider passing fallback_rank to allow "
            "`get_node_local_rank` to work, or start with `python -m gpunn.distributed.run`"
        )
    return int(found)


def get_pg_count() -> int:
    """How many groups of all ranks' making there were, the default one among them."""
    return table.made


def is_gloo_available() -> bool:
    """True: the engine over TCP needs nothing but sockets."""
    return True


def is_mpi_available() -> bool:
    """Whether mpi4py and an MPI library are installed."""
    from gpunn.distributed.mpi import is_installed

    return is_installed()


def is_nccl_available() -> bool:
    """Whether CuPy finds NCCL and there is a GPU."""
    from gpunn.distributed.nccl import is_installed

    return is_installed()


def is_ucc_available() -> bool:
    """False: there is no UCC engine."""
    return False


is_xccl_available = is_ucc_available


def is_backend_available(backend: str) -> bool:
    """Whether an engine can be used here.

    >>> gpunn.distributed.is_backend_available("gloo")
    True
    """
    check = {"gloo": is_gloo_available, "mpi": is_mpi_available, "nccl": is_nccl_available}
    return backend.lower() in check and check[backend.lower()]()


def is_torchelastic_launched() -> bool:
    """Whether the launcher started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def supports_complex(reduceOp: Any) -> bool:  # noqa: N803
    """Whether an operation combines complex numbers: the sum and the mean.

    >>> dist = gpunn.distributed
    >>> dist.supports_complex(dist.ReduceOp.SUM), dist.supports_complex(dist.ReduceOp.MAX)
    (True, False)
    """
    return reduceOp.name in ("SUM", "AVG")


class DebugLevel(enum.Enum):
    """What TORCH_DISTRIBUTED_DEBUG asks for; read by scripts, it changes nothing here.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch-distributed-debug
    """

    OFF = 0
    INFO = 1
    DETAIL = 2


_debug: list[DebugLevel] = []


def get_debug_level() -> DebugLevel:
    """What `set_debug_level` set, or else the environment variable TORCH_DISTRIBUTED_DEBUG.

    >>> gpunn.distributed.get_debug_level()
    <DebugLevel.OFF: 0>
    """
    if not _debug:
        set_debug_level_from_env()
    return _debug[0]


def set_debug_level(level: DebugLevel) -> None:
    """What `get_debug_level` tells from now on."""
    _debug[:] = [level]


def set_debug_level_from_env() -> None:
    """Reads TORCH_DISTRIBUTED_DEBUG: OFF, INFO or DETAIL; RuntimeError for another word."""
    text = os.environ.get("TORCH_DISTRIBUTED_DEBUG", "OFF")
    if text.upper() not in DebugLevel.__members__:
        raise RuntimeError(
            "The value of TORCH_DISTRIBUTED_DEBUG must be one of `OFF`, `INFO`, or `DETAIL`: got "
            f"{text!r}"
        )
    set_debug_level(DebugLevel[text.upper()])


def split_group(
    parent_pg: ProcessGroup | None = None, split_ranks: Sequence[Sequence[int]] | None = None,
    timeout: timedelta | None = None, pg_options: Any = None, group_desc: str | None = None,
    backend: str | None = None,
) -> ProcessGroup | None:  # fmt: skip
    """This rank's group where `parent_pg` is split into `split_ranks`, given as its own ranks.

    All ranks of the parent call it; one that is in no part gets None. ValueError for no parts.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.split_group

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> dist.split_group(split_ranks=[[0]]).size()
    1
    >>> dist.destroy_process_group()
    """
    if not split_ranks:
        raise ValueError("split_ranks cannot be None or empty")
    members = get_process_group_ranks(parent_pg)
    parts = [[members[r] for r in ranks] for ranks in split_ranks]
    if len({r for part in parts for r in part}) != sum(map(len, parts)):
        raise ValueError("split_ranks cannot have duplicate ranks across groups")
    mine = next((part for part in parts if get_rank() in part), None)
    if mine is None:
        return None
    return new_group(
        mine, timeout, backend, use_local_synchronization=True, group_desc=group_desc,
        sort_ranks=False,
    )  # fmt: skip


def new_subgroups(
    group_size: int | None = None, group: ProcessGroup | None = None,
    timeout: timedelta | None = None, backend: str | None = None, pg_options: Any = None,
    group_desc: str | None = None,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """(this rank's group, all groups) of `group_size` neighbours each; by default those of a host.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.new_subgroups
    """
    if group_size is None:
        group_size = int(os.environ.get("LOCAL_WORLD_SIZE", get_world_size(group)))
    world = get_world_size(group)
    if group_size <= 0:
        raise ValueError(f"The arg 'group_size' ({group_size}) must be positive")
    if world < group_size:
        raise ValueError(
            f"The arg 'group_size' ({group_size}) must not exceed the world size ({world})"
        )
    if world % group_size:
        raise ValueError(f"The world size ({world}) must be divisible by 'group_size={group_size}'")
    members = get_process_group_ranks(group)
    parts = [members[k : k + group_size] for k in range(0, world, group_size)]
    return new_subgroups_by_enumeration(parts, timeout, backend, pg_options, group_desc)


def new_subgroups_by_enumeration(
    ranks_per_subgroup_list: Sequence[Sequence[int]], timeout: timedelta | None = None,
    backend: str | None = None, pg_options: Any = None, group_desc: str | None = None,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """(this rank's group, all groups) of the given ranks, of which each is named once at most.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.new_subgroups_by_enumeration
    """
    if not ranks_per_subgroup_list:
        raise ValueError("The arg 'ranks_per_subgroup_list' cannot be empty")
    seen: dict[int, Sequence[int]] = {}
    for ranks in ranks_per_subgroup_list:
        for rank in ranks:
            if rank in seen:
                raise ValueError(
                    f"Rank {rank} has appeared in both subgroup {seen[rank]} and {ranks}"
                )
        seen.update(dict.fromkeys(ranks, ranks))
    made = [
        new_group(ranks, timeout, backend, pg_options, group_desc=group_desc)
        for ranks in ranks_per_subgroup_list
    ]
    mine = [g for g in made if g is not GroupMember.NON_GROUP_MEMBER]
    return (mine[0] if mine else None), made
