"""Barriers: all ranks of a group wait for each other.

Source: https://docs.pytorch.org/docs/stable/distributed.html

>>> dist = gpunn.distributed
>>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
>>> dist.barrier()
>>> dist.monitored_barrier()
>>> dist.destroy_process_group()
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from gpunn.device import resolve
from gpunn.distributed.arrays import outside
from gpunn.distributed.errors import DistStoreError
from gpunn.distributed.group import ProcessGroup, checked_timeout, chosen
from gpunn.distributed.work import Work

_GRACE = timedelta(seconds=1)  # that rank 0 may have begun later than another rank


def barrier(
    group: ProcessGroup | None = None, async_op: bool = False, device_ids: Any = None,
    timeout: timedelta | None = None,
) -> Work | None:  # fmt: skip
    """Returns when all ranks of the group have called it, within `timeout` (the group's).

    With NCCL the host waits too. `device_ids` is accepted and changes nothing.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.barrier
    """
    found = chosen(group)
    if found is None:
        return outside("barrier")
    comm = found.engine(resolve("cpu" if "cpu" in found.engines else "cuda"))
    limit = checked_timeout(timeout) or found.timeout
    if comm.deferred and not async_op:
        work = found.run("barrier", comm, comm.barrier, [], True, limit)
        assert work is not None
        work.wait(limit)
        return None
    return found.run("barrier", comm, comm.barrier, [], async_op, limit)


def monitored_barrier(
    group: ProcessGroup | None = None, timeout: timedelta | None = None,
    wait_all_ranks: bool = False,
) -> None:  # fmt: skip
    """A barrier that names the ranks that did not come within `timeout`, on rank 0.

    RuntimeError with the first such rank, or with `wait_all_ranks` all of them.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.monitored_barrier
    """
    found = chosen(group)
    if found is None:
        return outside("monitored_barrier")
    wait = checked_timeout(timeout) or found.timeout
    prefix = f"{found.group_name}/monitored_barrier/{found.next_number()}"
    found.store.set(f"{prefix}/{found.rank()}", b"here")
    if found.rank() != 0:
        return _told(found, prefix, wait)
    missing = _missing(found, prefix, wait, wait_all_ranks)
    text = ""
    if missing:
        names = ", ".join(str(found.ranks[r]) for r in missing)
        text = (
            f"{'Ranks' if wait_all_ranks else 'Rank'} {names} failed to pass monitoredBarrier in "
            f"{int(wait.total_seconds() * 1000)} ms"
        )
    found.store.set(f"{prefix}/done", text)
    if text:
        raise RuntimeError(text)
    return None


def _told(found: ProcessGroup, prefix: str, wait: timedelta) -> None:
    """Waits for what rank 0 found, which takes it as long."""
    try:
        found.store.wait([f"{prefix}/done"], wait + _GRACE)
    except DistStoreError:
        raise RuntimeError(
            f"Rank {found.rank()} successfully reached monitoredBarrier, but received errors while "
            f"waiting for send/recv from rank 0 for {wait + _GRACE}. Please check rank 0 logs for "
            "faulty rank."
        ) from None
    answer = found.store.get(f"{prefix}/done").decode()
    if answer:
        raise RuntimeError(f"monitored_barrier: rank 0 reports: {answer}")


def _missing(found: ProcessGroup, prefix: str, wait: timedelta, all_of_them: bool) -> list[int]:
    """The ranks of which there is no sign in the store when the time is over."""
    deadline = time.monotonic() + wait.total_seconds()
    missing = []
    for r in range(1, found.size()):
        left = max(deadline - time.monotonic(), 0.01)
        try:
            found.store.wait([f"{prefix}/{r}"], timedelta(seconds=left))
        except DistStoreError:
            missing.append(r)
            if not all_of_them:
                break
    return missing
