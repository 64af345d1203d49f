"""From one rank to another: send and receive Tensors.

Messages between two ranks with one `tag` are received in the order in which they were sent, into
tensors of the same dtype and number of elements (else DistBackendError). They progress beside the
group's collective operations, from any thread.
Source: https://docs.pytorch.org/docs/stable/distributed.html#point-to-point-communication

>>> dist = gpunn.distributed
>>> def ring(x):
...     "Each rank sends to its right neighbour, and receives from its left one."
...     rank, size = dist.get_rank(), dist.get_world_size()
...     received = gpunn.empty_like(x)
...     ops = [
...         dist.P2POp(dist.isend, x, (rank + 1) % size),
...         dist.P2POp(dist.irecv, received, (rank - 1) % size),
...     ]
...     for work in dist.batch_isend_irecv(ops):
...         work.wait()
...     return received
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from gpunn.distributed.arrays import Arrays, check, outside, root_of, settled
from gpunn.distributed.comm import Comm, Message, Request, Waiting
from gpunn.distributed.group import ProcessGroup, chosen, default_group
from gpunn.distributed.work import Work
from gpunn.futures import Future
from gpunn.tensor import Tensor
from gpunn.threads import spawn


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
    with settled(comm, tensor.device):
        x = Arrays(comm, tensor.device).of(tensor)
    request = comm.isend(x, peer, tag, aside(found, "send"))
    return _Transfer("send", found, request, [tensor], x)


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
    if peer == found.rank():
        raise ValueError(
            "Invalid source rank: source rank should not be the same as the rank of the current "
            "process."
        )
    comm = found.engine(tensor.device)
    arrays = Arrays(comm, tensor.device)
    with settled(comm, tensor.device):
        x = arrays.out(tensor)
    request = comm.irecv(x, peer, tag, aside(found, "recv"))

    def finish() -> None:
        with settled(comm, tensor.device):
            arrays.finish()

    return _Transfer("recv", found, request, [tensor], x, finish)


class _Transfer(Work):
    """A send or receive under way: it goes on by itself, `wait()` sees it through."""

    def __init__(
        self, what: str, found: ProcessGroup, request: Request, tensors: list[Tensor], array: Any,
        finish: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        super().__init__(tensors, what)
        self._group, self._request = found, request
        self._array, self._finish = array, finish  # the array lives until the request is done
        self._testing = threading.Lock()
        self._alive = aside(found, what)
        self._alive.deadline = math.inf
        self._follower: threading.Thread | None = None

    def is_completed(self) -> bool:
        if not self._future.done():
            with self._testing:
                if not self._future.done():
                    self._test()
        return self._future.done()

    def _test(self) -> None:
        try:
            if not (done := self._request.test()):
                self._alive.check()
        except Exception as error:
            self._future.set_exception(error)
        else:
            if done:
                self._run(self._end)

    def _end(self) -> int:
        self._finish()
        return self._group.ranks[self._request.source()] if self.what == "recv" else -1

    def wait(self, timeout: timedelta | None = None) -> bool:
        if not self.is_completed():
            waiting = aside(self._group, self.what, timeout)
            try:
                waiting.poll(self.is_completed)
            except Exception as error:
                if timeout is not None:  # the caller may wait again
                    raise
                with self._testing:
                    if not self._future.done():
                        self._future.set_exception(error)
        self._future.wait()
        return True

    def get_future(self) -> Future[Any]:
        if self._follower is None and not self.is_completed():  # nobody may ask any more
            self._follower = spawn(self._follow, name=f"gpunn {self.what}")
        return self._future

    def _follow(self) -> None:
        with contextlib.suppress(Exception):  # the future has it
            self.wait()


def aside(found: ProcessGroup, what: str, timeout: timedelta | None = None) -> Waiting:
    """For a message, which is not among the group's operations in order."""
    waiting = Waiting(found.watch, found.ranks, found.group_name)
    return waiting.aside(what, found.sequence, (timeout or found.timeout).total_seconds())


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

    `group_peer` is the rank within the group instead. ValueError for another `op`, or no peer.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.P2POp
    """

    def __init__(
        self, op: Callable[..., Any], tensor: Tensor, peer: int | None = None,
        group: ProcessGroup | None = None, tag: int = 0, group_peer: int | None = None,
    ):  # fmt: skip
        if op not in (isend, irecv):
            raise ValueError(
                "Invalid ``op``. Expected ``op`` to be of type ``torch.distributed.isend`` or "
                f"``torch.distributed.irecv``, got {op!r}."
            )
        check("tensor", tensor)
        self.op, self.tensor, self.tag = op, tensor, tag
        self.group = default_group() if group is None else group
        self.group_peer = root_of(self.group, peer, group_peer, "peer")
        self.peer = self.group.ranks[self.group_peer]

    def __repr__(self) -> str:
        ends = [self.group.rank(), self.group_peer]
        source, target = ends if self.op is isend else reversed(ends)
        return (
            f"P2POp({self.op.__name__} pg={self.group.group_name}, group_src={source}, "
            f"group_dst={target},  {self.tensor.shape}, {self.tensor.dtype})"
        )


def batch_isend_irecv(p2p_op_list: Sequence[P2POp]) -> list[Any]:
    """Begins several sends and receives, in whatever order the ranks list them.

    ValueError for what is no list of P2POp of one group.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.batch_isend_irecv
    """
    if not p2p_op_list or not all(isinstance(op, P2POp) for op in p2p_op_list):
        raise ValueError(
            "Invalid ``p2p_op_list``. Each op is expected to to be of type "
            "``torch.distributed.P2POp``."
        )
    found = p2p_op_list[0].group
    if any(op.group is not found for op in p2p_op_list):
        raise ValueError("All ops need to use the same group.")
    comm = found.engine(p2p_op_list[0].tensor.device)
    if comm.deferred:  # on a stream one after the other could wait for ever: all at once
        return [_grouped(found, comm, p2p_op_list)]
    return [op.op(op.tensor, op.peer, op.group, op.tag) for op in p2p_op_list]


def _grouped(found: ProcessGroup, comm: Comm, ops: Sequence[P2POp]) -> Any:
    """Sends and receives as one operation of the engine."""
    arrays = Arrays(comm, ops[0].tensor.device)
    messages = []
    for op in ops:
        kind = "send" if op.op is isend else "recv"
        array = arrays.of(op.tensor) if kind == "send" else arrays.out(op.tensor)
        messages.append(Message(kind, array, op.group_peer, op.tag))

    def body() -> None:
        comm.exchange(messages)
        arrays.finish()

    return found.run("batch_isend_irecv", comm, body, [op.tensor for op in ops], True)
