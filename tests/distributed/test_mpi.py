"""The engine over MPI: what is its own. Values are in the other tests, over mpiexec's processes."""

import sys

import numpy as np
import pytest

from gpunn.distributed import mpi as engine
from gpunn.distributed.comm import Waiting
from gpunn.distributed.errors import DistBackendError
from tests.distributed.alike import ours
from tests.distributed.ranks import try_ranks

needs_mpi = pytest.mark.skipif(
    not engine.is_installed(), reason="needs mpi4py and an MPI library: pip install 'gpunn[mpi]'"
)


def test_without_an_mpi_library(monkeypatch):
    engine.module.cache_clear()
    try:
        monkeypatch.setitem(sys.modules, "mpi4py", None)
        assert not engine.is_installed()
        with pytest.raises(RuntimeError, match=r"needs mpi4py.*pip install 'gpunn\[mpi\]'"):
            engine.module()

        class NoLibrary:  # what mpi4py does where it finds none
            def __getattr__(self, name):
                raise RuntimeError("cannot load MPI library")

        monkeypatch.setitem(sys.modules, "mpi4py", NoLibrary())
        with pytest.raises(RuntimeError, match="cannot load MPI library"):
            engine.module()
    finally:
        engine.module.cache_clear()


@needs_mpi
def test_dtypes_that_mpi_does_not_know_and_arrays_of_gpus():
    ours(2, """
        from gpunn.distributed.mpi import MpiComm, takes_cuda
        sys.path.insert(0, os.path.join(os.path.dirname(gpunn.__path__[0]), "tests"))
        import emulated as emulation
        rank = dist.get_rank()
        for dtype in (T.float16, T.bfloat16):
            dist.all_reduce(x := T.full((5,), 300.5).to(dtype))
            assert x.dtype is dtype and x[0] == 2 * T.tensor(300.5).to(dtype), x
        dist.all_reduce(x := T.tensor([rank == 0, False]))
        assert x.dtype is T.bool and x.tolist() == [True, False]
        assert takes_cuda() in (True, False)
        with emulation.device():  # through copies on the host
            x = T.full((3,), rank + 1.0, device="cuda")
            dist.all_reduce(x, async_op=True).wait()
            assert x.tolist() == [3.0] * 3
            dist.reduce(x, 0, dist.ReduceOp.AVG)
            dist.broadcast(y := x[::2] * (rank + 1), 1)
            assert y.tolist() == [6.0] * 2
            (dist.send if rank else dist.recv)(x, 1 - rank)
            comm = dist.group.WORLD.engine(T.device("cpu"))
            comm.device_types = ("cpu", "cuda")  # as with a library that reads the GPU's memory
            z = T.full((4,), rank + 1.0, device="cuda")
            for dtype in (T.float32, T.bfloat16, T.bool):
                dist.all_reduce(w := z.clone().to(dtype))
                assert w.tolist() == ([True] * 4 if dtype is T.bool else [3.0] * 4)
            parts = [T.zeros(4, device="cuda") for _ in range(2)]
            dist.all_gather(parts, z, async_op=True).wait()
            assert [p[0].item() for p in parts] == [1.0, 2.0]
            dist.all_reduce(z, dist.ReduceOp.AVG)
            dist.reduce_scatter(v := T.zeros(4, device="cuda"), [z, z * 2])
            assert z[0] == 1.5 and v[0] == 3.0 * (rank + 1)
            ops = [dist.P2POp(dist.isend, z, 1 - rank), dist.P2POp(dist.irecv, v, 1 - rank)]
            assert all(w.wait() for w in dist.batch_isend_irecv(ops)) and v[0] == 1.5
    """, "mpi")  # fmt: skip


@needs_mpi
def test_who_raises_is_named():
    body = """
        if rank == 1:
            raise ValueError("seven is not even")
        try:
            dist.all_reduce(gpunn.zeros(3))
        except dist.DistBackendError as error:
            report(str(error))
    """
    first = try_ranks(2, body, "mpi", timeout=30)[0]
    assert "rank 1 raised ValueError: seven is not even" in first.result, first


@needs_mpi
def test_too_few_processes_and_errors_of_mpi():
    with pytest.raises(RuntimeError, match="1 processes, the group 3: start them with"):
        engine.MpiComm.of_ranks([0, 1, 2], Waiting(None, [0, 1, 2]))
    comm = engine.MpiComm.of_ranks([0], Waiting(None, [0]))
    comm.waiting.begin("all_reduce", 1, 10.0)
    x = np.ones(3)
    comm.all_reduce(x, "sum")
    with pytest.raises(engine.module().Exception):
        comm.broadcast(x, 5)
    comm.close()
    comm.close()
    assert x.tolist() == [1, 1, 1]


@needs_mpi
def test_errors_of_requests_get_the_name_of_the_operation():
    comm = engine.MpiComm.of_ranks([0], Waiting(None, [0]))
    comm.waiting.begin("all_gather", 1, 10.0)

    class Broken:
        def Test(self):  # noqa: N802
            raise engine.module().Exception(engine.module().ERR_OTHER)

    with pytest.raises(DistBackendError, match="all_gather: MPI says"):
        comm._wait(Broken())
