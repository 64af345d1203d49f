"""The engine over MPI, through mpi4py.

Operations are begun without blocking and asked whether they are done, so that a rank that is gone
or late ends them with an error. MPI knows no 16-bit floats: these are summed in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.device import to_host
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


@functools.cache
def takes_cuda() -> bool:
    """Whether the MPI library says that it reads and writes the memory of GPUs (Open MPI does)."""
    import ctypes

    query = getattr(ctypes.CDLL(module().__file__), "MPIX_Query_cuda_support", None)
    return query is not None and bool(query())


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
        if takes_cuda():
            self.device_types = ("cpu", "cuda")

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
        with _Exact(x) as y:
            self._wait(self._comm.Iallreduce(module().IN_PLACE, y, self._ops[op]))

    def reduce(self, x: Any, root: int, op: str) -> None:
        with _Exact(x, write=self.rank == root) as y:
            here = module().IN_PLACE if self.rank == root else y
            there = y if self.rank == root else None
            self._wait(self._comm.Ireduce(here, there, self._ops[op], root))

    def broadcast(self, x: Any, root: int) -> None:
        self._wait(self._comm.Ibcast(_raw(x), root))

    def all_gather(self, out: Any, x: Any) -> None:
        self._wait(self._comm.Iallgather(_raw(x), _raw(out)))

    def reduce_scatter(self, out: Any, x: Any, op: str) -> None:
        with _Exact(x, write=False) as y, _Exact(out) as z:
            self._wait(self._comm.Ireduce_scatter_block(y, z, self._ops[op]))

    def isend(self, x: Any, peer: int, tag: int, waiting: Waiting | None = None) -> Request:
        request = self._comm.Isend(_raw(x), peer, tag + 1)  # the engine's own tag is -1
        return Request(request.Test, lambda: self.rank)

    def irecv(
        self, x: Any, peer: int | None, tag: int, waiting: Waiting | None = None
    ) -> Request:
        mpi, what = module(), (waiting or self.waiting).what
        status = mpi.Status()
        where = mpi.ANY_SOURCE if peer is None else peer
        request = self._comm.Irecv(_raw(x), where, tag + 1)

        def test() -> bool:
            try:
                done = request.Test(status)
                came = status.Get_count(mpi.BYTE) if done else x.nbytes
            except mpi.Exception as error:
                if error.Get_error_class() != mpi.ERR_TRUNCATE:
                    raise DistBackendError(f"{what}: MPI says: {error}") from error
                done, came = True, "more"
            if came != x.nbytes:
                raise DistBackendError(
                    f"{what}: rank {self.waiting.ranks[status.Get_source()]}: it sent {came} bytes "
                    f"where {x.nbytes} are expected: shapes or dtypes differ between ranks"
                )
            return done

        return Request(test, status.Get_source)

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
    """An array that MPI can calculate with: bool as uint8, 16-bit floats as float32, on the host.

    No MPI library sums the memory of GPUs without blocking.
    """

    def __init__(self, x: Any, write: bool = True):
        self._x, self._write = x, write

    def __enter__(self) -> Any:
        self._y, dtype = to_host(self._x), self._x.dtype
        if dtype.kind in "fV" and dtype.itemsize == 2:
            self._y = self._y.astype(F32)
        elif dtype.kind == "b":
            self._y = self._y.astype(np.uint8)
        return self._y

    def __exit__(self, kind: Any, *rest: object) -> None:
        if self._y is self._x or not self._write or kind is not None:
            return
        made = self._y.astype(self._x.dtype, copy=False)
        if type(self._x) is np.ndarray:
            self._x[...] = made
        else:
            self._x.set(made)


def _raw(x: Any) -> Any:
    """The bytes of an array: moving needs no dtype that MPI knows."""
    return x.reshape(-1).view(np.uint8)
