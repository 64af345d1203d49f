"""The engine over MPI, through mpi4py.

Operations are begun without blocking and asked whether they are done, so that a rank that is gone
or late ends them with an error. MPI knows no 16-bit floats: these are summed in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.distributed.comm import Comm, Request, Waiting
from gpunn.distributed.errors import DistBackendError
from gpunn.dtypes import F32

_INSTALL = (
    "the mpi backend needs mpi4py and an MPI library: pip install 'gpunn[mpi]', or mpi4py where "
    "the machine has its own MPI"
)


@functools.cache
def module() -> Any:
    """mpi4py.MPI; RuntimeError with what to install where it is not there."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # without a library it raises RuntimeError
        raise RuntimeError(f"{_INSTALL} ({error})") from error
    return MPI


def is_installed() -> bool:
    """Whether mpi4py finds an MPI library."""
    try:
        module()
    except RuntimeError:
        return False
    return True


class MpiComm(Comm):
    """The engine of a group over an MPI communicator."""

    name = "mpi"

    def __init__(self, comm: Any, waiting: Waiting):
        super().__init__(comm.Get_rank(), comm.Get_size(), waiting)
        self._comm = comm
        mpi = module()
        comm.Set_errhandler(mpi.ERRORS_RETURN)
        self._ops = {
            "sum": mpi.SUM, "product": mpi.PROD, "min": mpi.MIN, "max": mpi.MAX,
            "band": mpi.BAND, "bor": mpi.BOR, "bxor": mpi.BXOR,
        }  # fmt: skip
        if self._takes_cuda(mpi):
            self.device_types = ("cpu", "cuda")

    @staticmethod
    def _takes_cuda(mpi: Any) -> bool:
        """Whether the library says that it reads the memory of GPUs."""
        query = getattr(mpi, "Query_cuda_support", None)
        return bool(query and query())

    @classmethod
    def of_ranks(cls, ranks: Sequence[int], waiting: Waiting) -> MpiComm:
        """An engine for some ranks of those that mpiexec started; only these call it."""
        mpi = module()
        world = mpi.COMM_WORLD
        if len(ranks) > world.Get_size():
            raise RuntimeError(
                f"the mpi backend has {world.Get_size()} processes, the group {len(ranks)}: start "
                f"them with `mpiexec -n {len(ranks)} python script.py`"
            )
        if mpi.Query_thread() < mpi.THREAD_MULTIPLE:
            raise RuntimeError(
                "the mpi backend needs MPI_THREAD_MULTIPLE, which this MPI library does not give"
            )
        return cls(world.Create_group(world.Get_group().Incl(list(ranks))), waiting)

    def all_reduce(self, x: Any, op: str) -> None:
        with _Exact(x, op) as y:
            self._wait(self._comm.Iallreduce(module().IN_PLACE, y, self._ops[op]))

    def reduce(self, x: Any, root: int, op: str) -> None:
        with _Exact(x, op) as y:
            here = module().IN_PLACE if self.rank == root else y
            there = y if self.rank == root else None
            self._wait(self._comm.Ireduce(here, there, self._ops[op], root))

    def broadcast(self, x: Any, root: int) -> None:
        self._wait(self._comm.Ibcast(_raw(x), root))

    def all_gather(self, out: Any, x: Any) -> None:
        self._wait(self._comm.Iallgather(_raw(x), _raw(out)))

    def reduce_scatter(self, out: Any, x: Any, op: str) -> None:
        with _Exact(x, op, write=False) as y, _Exact(out, op, read=False) as z:
            self._wait(self._comm.Ireduce_scatter_block(y, z, self._ops[op]))

    def isend(self, x: Any, peer: int, tag: int, waiting: Waiting | None = None) -> Request:
        request = self._comm.Isend(_raw(x), peer, tag + 1)  # the engine's own tag is -1
        return Request(request.Test, lambda: self.rank)

    def irecv(
        self, x: Any, peer: int | None, tag: int, waiting: Waiting | None = None
    ) -> Request:
        mpi = module()
        status = mpi.Status()
        where = mpi.ANY_SOURCE if peer is None else peer
        request = self._comm.Irecv(_raw(x), where, tag + 1)
        return Request(lambda: request.Test(status), status.Get_source)

    def barrier(self) -> None:
        self._wait(self._comm.Ibarrier())

    def _wait(self, request: Any) -> None:
        """Until the request is done; MPI's errors get the operation's name."""
        try:
            self.waiting.poll(request.Test)
        except module().Exception as error:
            raise DistBackendError(f"{self.waiting.what}: MPI says: {error}") from error

    def close(self) -> None:
        mpi = module()
        if self._comm is not None and not mpi.Is_finalized():
            self._comm = None  # MPI_Comm_free is collective: the others may be gone


class _Exact:
    """An array in a dtype that MPI can calculate with: bool as uint8, 16-bit floats as float32."""

    def __init__(self, x: Any, op: str, read: bool = True, write: bool = True):
        self._x, self._read, self._write, self._op = x, read, write, op

    def __enter__(self) -> Any:
        kind, size = self._x.dtype.kind, self._x.dtype.itemsize
        self._dtype = F32 if kind in "fV" and size == 2 else None
        if kind == "b":
            self._dtype = np.dtype(np.uint8)
        if self._dtype is None:
            return self._x
        self._y = self._x.astype(self._dtype)
        return self._y

    def __exit__(self, kind: Any, *rest: object) -> None:
        if self._dtype is not None and self._write and kind is None:
            self._x[...] = self._y


def _raw(x: Any) -> Any:
    """The bytes of an array: moving needs no dtype that MPI knows."""
    return x.reshape(-1).view(np.uint8)
