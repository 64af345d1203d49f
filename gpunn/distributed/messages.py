"""From one rank to another: send and receive Tensors.

Source: https://docs.pytorch.org/docs/stable/distributed.html#point-to-point-communication
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from gpunn.distributed.arrays import Arrays, check, outside, root_of
from gpunn.distributed.comm import Comm, Message, Waiting
from gpunn.distributed.group import ProcessGroup, chosen, default_group
from gpunn.distributed.work import Work
from gpunn.tensor import Tensor


def isend(
    tensor: Tensor, dst: int | None = None, group: ProcessGroup | None = None, tag: int = 0,
    group_dst: int | None = None,
) -> Work | None:  # fmt: skip
    """Begins to send the tensor to rank `dst`; it must not change before `wait()` returns.

    ValueError for this rank itself.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.isend
    """
    check("tensor", tensor)
    found = chosen(group)
    if found is None:
        return outside("isend")
    peer = root_of(found, dst, group_dst, "dst")
    if peer == found.rank():
        raise ValueError(
            "Invalid destination rank: destination rank should not be the same as the rank of the "
            "current process."
        )
    comm = found.engine(tensor.device)
    x = Arrays(comm, tensor.device).of(tensor)
    return _Transfer("send", found, comm, comm.isend(x, peer, tag), [tensor], x)


def irecv(
    tensor: Tensor, src: int | None = None, group: ProcessGroup | None = None, tag: int = 0,
    group_src: int | None = None,
) -> Work | None:  # fmt: skip
    """Begins to receive into the tensor, from rank `src` or, by default, from whoever sends first.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.irecv
    """
    check("tensor", tensor)
    found = chosen(group)
    if found is None:
        return outside("irecv")
    peer = None if src is None and group_src is None else root_of(found, src, group_src, "src")
    comm = found.engine(tensor.device)
    arrays = Arrays(comm, tensor.device)
    x = arrays.out(tensor)
    return _Transfer("recv", found, comm, comm.irecv(x, peer, tag), [tensor], x, arrays.finish)


class _Transfer(Work):
    """A send or receive under way: it goes on by itself, `wait()` sees it through."""

    def __init__(
        self, what: str, found: ProcessGroup, comm: Comm, request: Any, tensors: list[Tensor],
        array: Any, finish: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        super().__init__(tensors, what)
        self._group, self._comm, self._request = found, comm, request
        self._array, self._finish = array, finish  # the array lives until the request is done
        self._deadline = time.monotonic() + found.timeout.total_seconds()

    def is_completed(self) -> bool:
        if not self._future.done() and self._request.test():
            self._run(self._end)
        return self._future.done()

    def _end(self) -> int:
        self._finish()
        return self._group.ranks[self._request.source()] if self.what == "recv" else -1

    def wait(self, timeout: timedelta | None = None) -> bool:
        if not self.is_completed():
            waiting = Waiting(self._group.watch, self._group.ranks, self._group.group_name)
            waiting.what, waiting.sequence = self.what, self._group.sequence
            waiting.timeout = (timeout or self._group.timeout).total_seconds()
            waiting.deadline = time.monotonic() + waiting.timeout
            waiting.poll(self.is_completed)
        self._future.wait()
        return True


def send(
    tensor: Tensor, dst: int | None = None, group: ProcessGroup | None = None, tag: int = 0,
    group_dst: int | None = None,
) -> None:  # fmt: skip
    """Sends the tensor to rank `dst`, which calls `recv`.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.send
    """
    work = isend(tensor, dst, group, tag, group_dst)
    if work is not None:
        work.wait()


def recv(
    tensor: Tensor, src: int | None = None, group: ProcessGroup | None = None, tag: int = 0,
    group_src: int | None = None,
) -> int:  # fmt: skip
    """Receives into the tensor, from rank `src` or from whoever sends first; returns the sender.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.recv
    """
    work = irecv(tensor, src, group, tag, group_src)
    return -1 if work is None else work.source_rank()


class P2POp:
    """One part of `batch_isend_irecv`: `op` is `isend` or `irecv`, `peer` a global rank.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.P2POp
    """

    def __init__(
        self, op: Callable[..., Any], tensor: Tensor, peer: int | None = None,
        group: ProcessGroup | None = None, tag: int = 0, group_peer: int | None = None,
    ):  # fmt: skip
        if op not in (isend, irecv):
            raise ValueError(
                "Invalid ``op``. Expected ``op`` to be of type ``isend`` or ``irecv``."
            )
        check("tensor", tensor)
        self.op, self.tensor, self.tag, self.group = op, tensor, tag, group
        self.peer, self.group_peer = peer, group_peer


def batch_isend_irecv(p2p_op_list: Sequence[P2POp]) -> list[Any]:
    """Begins several sends and receives, in whatever order the ranks list them.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.batch_isend_irecv
    """
    if not p2p_op_list or not all(isinstance(op, P2POp) for op in p2p_op_list):
        raise ValueError("Invalid ``p2p_op_list``. Each op is expected to be of type P2POp.")
    found = default_group() if p2p_op_list[0].group is None else p2p_op_list[0].group
    comm = found.engine(p2p_op_list[0].tensor.device)
    if comm.deferred:  # on a stream one after the other could wait for ever: all at once
        return [_grouped(found, comm, p2p_op_list)]
    return [op.op(op.tensor, op.peer, op.group, op.tag, op.group_peer) for op in p2p_op_list]


def _grouped(found: ProcessGroup, comm: Comm, ops: Sequence[P2POp]) -> Any:
    """Sends and receives as one operation of the engine."""
    arrays = Arrays(comm, ops[0].tensor.device)
    messages = []
    for op in ops:
        kind = "send" if op.op is isend else "recv"
        array = arrays.of(op.tensor) if kind == "send" else arrays.out(op.tensor)
        name = "dst" if kind == "send" else "src"
        messages.append(Message(kind, array, root_of(found, op.peer, op.group_peer, name), op.tag))

    def body() -> None:
        comm.exchange(messages)
        arrays.finish()

    return found.run("batch_isend_irecv", comm, body, [op.tensor for op in ops], True)
