"""Barriers: nobody passes before all are there, and who is missing is named."""

from tests.distributed.alike import alike, ours
from tests.distributed.ranks import try_ranks

LATE = """
import time
rank, world = dist.get_rank(), dist.get_world_size()
dist.monitored_barrier()
dist.monitored_barrier(timeout=timedelta(seconds=10), wait_all_ranks=True)
group = dist.new_group([2, 0])
if rank != 1:
    dist.monitored_barrier(group)
else:
    found["outside"] = dist.monitored_barrier(group)
dist.barrier()
if rank == 0:
    found["late"] = error("failed to pass monitoredBarrier in 300 ms",
                          lambda: dist.monitored_barrier(timeout=timedelta(seconds=0.3)))
found["refused"] = error("Expected timeout argument to be of type datetime.timedelta",
                         lambda: dist.monitored_barrier(timeout=3))
if rank:
    time.sleep(1.0)
"""


def test_who_is_late_is_named_as_by_pytorch():
    first = alike(3, LATE)[0]
    assert "Rank 1 failed" in first["late"]["text"]


def test_all_who_are_late_are_named():
    body = """
        import time
        from datetime import timedelta
        if rank in (0, 1):
            try:
                dist.monitored_barrier(timeout=timedelta(seconds=0.5), wait_all_ranks=True)
            except RuntimeError as error:
                report(str(error))
        else:
            time.sleep(1.5)
            report("late")
    """
    told = [e.result for e in try_ranks(4, body)]
    assert "Ranks 2, 3 failed to pass monitoredBarrier in 500 ms" in told[0]
    assert "rank 0 reports: Ranks 2, 3 failed" in told[1], told


def test_nobody_passes_before_all_are_there():
    program = """
        import time
        rank = dist.get_rank()
        for late in range(dist.get_world_size()):
            dist.barrier()
            start = time.monotonic()
            if rank == late:
                time.sleep(0.2)
            work = dist.barrier(async_op=True)
            assert work.wait() and work.is_completed()
            assert time.monotonic() - start > 0.15
        found["refused"] = error("Expected timeout argument", lambda: dist.barrier(timeout=1.0))
        dist.barrier()
        if rank:
            time.sleep(1.5)
        else:
            found["late"] = error("barrier #", lambda: dist.barrier(timeout=timedelta(seconds=0.2)))
    """
    for backend in ("gloo", "mpi"):
        results = ours(2, program if backend == "gloo" else program.split("found[")[0], backend)
        if backend == "gloo":
            assert results[0]["late"]["has"] and all(r["refused"]["has"] for r in results), results
