"""Training over several processes: groups of ranks, collective operations, their engines.

Start a script in N processes with `python -m gpunn.distributed.run --nproc N script.py`, call
`init_process_group()` in it, and wrap the model in `nn.parallel.DistributedDataParallel`.
Source: https://docs.pytorch.org/docs/stable/distributed.html
"""

from __future__ import annotations

import importlib
from typing import Any

from gpunn.distributed.arrays import RedOpType, ReduceOp
from gpunn.distributed.barriers import barrier, monitored_barrier
from gpunn.distributed.collectives import (
    all_gather,
    all_gather_coalesced,
    all_gather_into_tensor,
    all_gather_single,
    all_reduce,
    all_reduce_coalesced,
    all_to_all,
    all_to_all_single,
    broadcast,
    gather,
    reduce,
    reduce_scatter,
    reduce_scatter_single,
    reduce_scatter_tensor,
    scatter,
)
from gpunn.distributed.errors import (
    DistBackendError,
    DistError,
    DistNetworkError,
    DistStoreError,
    QueueEmptyError,
)
from gpunn.distributed.group import (
    Backend,
    GroupMember,
    ProcessGroup,
    default_pg_timeout,
    destroy_process_group,
    group,
    init_process_group,
    is_available,
    is_initialized,
    new_group,
)
from gpunn.distributed.messages import P2POp, batch_isend_irecv, irecv, isend, recv, send
from gpunn.distributed.objects import (
    all_gather_object,
    broadcast_object_list,
    gather_object,
    recv_object_list,
    scatter_object_list,
    send_object_list,
)
from gpunn.distributed.queries import (
    DebugLevel,
    get_backend,
    get_backend_config,
    get_debug_level,
    get_default_backend_for_device,
    get_global_rank,
    get_group_rank,
    get_node_local_rank,
    get_pg_count,
    get_process_group_ranks,
    get_rank,
    get_world_size,
    is_backend_available,
    is_gloo_available,
    is_mpi_available,
    is_nccl_available,
    is_torchelastic_launched,
    is_ucc_available,
    is_xccl_available,
    new_subgroups,
    new_subgroups_by_enumeration,
    set_debug_level,
    set_debug_level_from_env,
    split_group,
    supports_complex,
)
from gpunn.distributed.rendezvous import rendezvous
from gpunn.distributed.store import FileStore, HashStore, PrefixStore, Store, TCPStore
from gpunn.distributed.work import Work

reduce_op = ReduceOp  # its older name

__all__ = [
    "Backend", "DebugLevel", "DistBackendError", "DistError", "DistNetworkError", "DistStoreError",
    "FileStore", "GroupMember", "HashStore", "P2POp", "PrefixStore", "ProcessGroup",
    "QueueEmptyError", "RedOpType", "ReduceOp", "Store", "TCPStore", "Work", "all_gather",
    "all_gather_coalesced", "all_gather_into_tensor", "all_gather_object", "all_gather_single",
    "all_reduce", "all_reduce_coalesced", "all_to_all", "all_to_all_single", "barrier",
    "batch_isend_irecv", "broadcast", "broadcast_object_list", "default_pg_timeout",
    "destroy_process_group", "gather", "gather_object", "get_backend", "get_backend_config",
    "get_debug_level", "get_default_backend_for_device", "get_global_rank", "get_group_rank",
    "get_node_local_rank", "get_pg_count", "get_process_group_ranks", "get_rank", "get_world_size",
    "group", "init_process_group", "irecv", "is_available", "is_backend_available",
    "is_gloo_available", "is_initialized", "is_mpi_available", "is_nccl_available",
    "is_torchelastic_launched", "is_ucc_available", "is_xccl_available", "isend",
    "monitored_barrier", "new_group", "new_subgroups", "new_subgroups_by_enumeration", "recv",
    "recv_object_list", "reduce", "reduce_op", "reduce_scatter", "reduce_scatter_single",
    "reduce_scatter_tensor", "rendezvous", "scatter", "scatter_object_list", "send",
    "send_object_list", "set_debug_level", "set_debug_level_from_env", "split_group",
    "supports_complex",
]  # fmt: skip

_ON_FIRST_USE = ("algorithms", "autograd", "distributed_c10d", "optim", "rpc")


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"gpunn.distributed.{name}")
    if name == "GradBucket":
        return importlib.import_module("gpunn.nn.parallel.bucket").GradBucket
    raise AttributeError(f"module 'gpunn.distributed' has no attribute '{name}'")
