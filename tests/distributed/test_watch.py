"""A rank that is killed, raises, stays away or leaves is named to the others, and soon."""

import socket
import threading
import time

import pytest

from gpunn.distributed.errors import DistBackendError
from gpunn.distributed.store import HashStore, TCPStore
from gpunn.distributed.watch import Watch
from tests.distributed.ranks import try_ranks

RANKS = [0, 1, 2]


def until(ready, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def watches():
    store = TCPStore("localhost", 0, 1, True)
    made = [Watch(store if r == 0 else store.clone(), r, 3) for r in RANKS]
    for watch in made:
        watch.reached("0", 1, "broadcast")
    yield made
    for watch in reversed(made):
        watch.close()


def message(watch, sequence=2, ranks=RANKS, group="0"):
    """What the watch says about operation `sequence`, "" for nothing."""
    try:
        watch.check("all_reduce", sequence, group, ranks)
    except DistBackendError as error:
        return str(error)
    return ""


def test_nothing_is_wrong_while_all_are_there(watches):
    assert [message(w) for w in watches] == ["", "", ""]


def test_a_lost_connection_is_noticed_at_once(watches):
    until(lambda: watches[1]._own._socket)
    watches[1]._own._socket.shutdown(socket.SHUT_RDWR)  # as for a process that was killed
    until(lambda: message(watches[0]), 5.0)
    assert "of the default group: rank 1 is gone: killed, or its connection" in message(watches[0])
    assert message(watches[0], ranks=[0, 2]) == ""


def test_an_exception_is_told_and_what_follows_from_it_comes_second(watches):
    watches[2].reached("0", 7, "all_gather")
    assert watches[2].fail("ValueError: boom\nand where in it") is False
    until(lambda: message(watches[1]))
    first = message(watches[1])
    assert first.endswith("rank 2 raised ValueError: boom; it last reached all_gather #7")
    assert watches[1].fail(f"DistBackendError: {first}") is True
    until(lambda: len(watches[0]._departed) == 2)
    assert "rank 2 raised ValueError: boom" in message(watches[0])
    told = message(watches[0], ranks=[0, 1])
    assert "rank 1 stopped: rank 2 raised ValueError: boom" in told


def test_who_left_after_doing_its_part_is_no_error(watches):
    watches[1].reached("0", 5, "all_reduce")
    watches[1].close()
    until(lambda: 1 in watches[0]._departed)
    assert message(watches[0], sequence=5) == ""
    assert "rank 1 has left: it destroyed its process group" in message(watches[0], sequence=6)
    assert "it last reached all_reduce #5" in message(watches[0], sequence=6)
    assert message(watches[0], sequence=6, ranks=[0, 2]) == ""


def test_a_timeout_says_where_everybody_is(watches):
    watches[0].reached("0", 842, "all_reduce")
    watches[1].reached("0", 841, "all_reduce")
    watches[2].reached("0", 842, "all_reduce")
    error = watches[0].timeout_error("all_reduce", 842, "0", RANKS, 0.1)
    assert str(error) == (
        "all_reduce #842 of the default group: timed out, no answer after 0.1 s; rank 1 last "
        "reached all_reduce #841; ranks 0, 2 wait in all_reduce #842"
    )
    error = watches[0].timeout_error("all_reduce", 1, "3", RANKS, 9.0)
    assert "of group 3" in str(error) and "rank 1 has not reached anything yet" in str(error)


def test_the_store_going_is_rank_0_going(watches):
    server = watches[0]._store._server
    watches[0]._store._server = None
    del server  # nobody refers to it: it ends
    until(lambda: message(watches[1]))
    assert "rank 0 is gone, and the store with it" in message(watches[1])
    assert message(watches[1], ranks=[1, 2]) == ""


def test_a_connection_that_ended_waits_for_the_reason(watches):
    threading.Timer(0.2, watches[1].fail, ["KeyError: 'x'"]).start()
    error = watches[0].gone("recv", 1, "0", 1, "its connection was closed")
    assert "rank 1 raised KeyError: 'x'" in str(error)
    error = watches[0].gone("recv", 1, "0", 2, "its connection was closed")
    assert "rank 2 is gone: its connection was closed" in str(error)


def test_threads_of_one_process_can_be_ranks():
    store = HashStore()
    watches = [Watch(store, r, 2) for r in range(2)]
    watches[1].fail("ValueError: boom")
    until(lambda: message(watches[0], ranks=[0, 1]))
    for watch in watches:
        watch.close()


def test_one_rank_alone_watches_nobody():
    before = threading.active_count()
    watch = Watch(HashStore(), 0, 1)
    watch.reached("0", 1, "barrier")
    watch.check("barrier", 1, "0", [0])
    watch.fail("ValueError")
    watch.close()
    assert threading.active_count() == before


_BODY = """
import datetime, time
x = gpunn.ones(3)
dist.all_reduce(x)
dist.barrier()
dist.group.WORLD.set_timeout(datetime.timedelta(seconds=1 if {short} else 60))
if rank == 1:
    {what}
start = time.monotonic()
try:
    {operation}
except dist.DistBackendError as error:
    report([str(error), time.monotonic() - start])
    raise
"""


@pytest.mark.parametrize(
    ("what", "expected", "within"),
    [
        ("os.kill(os.getpid(), 9)", "rank 1 is gone: killed, or its connection was lost", 5),
        ("raise ValueError('boom')", "rank 1 raised ValueError: boom", 5),
        ("sys.exit(0)", "rank 1 has left: it destroyed its process group, or its process ended", 5),
        ("time.sleep(4)", "timed out, no answer after 1 s; rank 1 last reached barrier #3", 15),
    ],
)
def test_between_processes(what, expected, within):
    short = "sleep" in what
    body = _BODY.format(what=what, operation="dist.all_reduce(x)", short=short)
    outcomes = try_ranks(3, body)
    for rank in (0, 2):
        said, seconds = outcomes[rank].result
        # Who times out first may tell the other, which then says so.
        assert expected in said, outcomes[rank].output
        assert seconds < within


def test_messages_between_processes_too():
    outcomes = try_ranks(
        2, _BODY.format(what="os.kill(os.getpid(), 9)", operation="dist.recv(x, 1)", short=False)
    )
    said, seconds = outcomes[0].result
    assert "recv" in said and "rank 1 is gone" in said and seconds < 5
