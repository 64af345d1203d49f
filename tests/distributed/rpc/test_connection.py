"""Messages between workers, over sockets of this process."""

import threading

import pytest

from gpunn.distributed import sockets
from gpunn.distributed.rpc.connection import Connection, Frame, connect, secret_of
from gpunn.distributed.store import HashStore, PrefixStore


@pytest.fixture
def pair():
    listener = sockets.listen("127.0.0.1")
    caller = connect("127.0.0.1", listener.getsockname()[1], 3, b"s" * 16)
    served = Connection(sockets.tune(listener.accept()[0]))
    yield caller, served
    for one in (caller, served, listener):
        one.close()


def test_messages_arrive_whole_and_in_order(pair):
    caller, served = pair
    assert served.welcome(b"s" * 16) == 3
    sizes = (), (0,), (1,), (65536, 65537), (65537, 3, 65536), (1 << 22, 1 << 21), (5, 0, 1 << 20)
    frames = [Frame(k, k + 1, k + 2, [bytes(n) for n in ns]) for k, ns in enumerate(sizes)]
    thread = threading.Thread(target=lambda: [caller.send(f) for f in frames])
    thread.start()
    assert [served.receive() for _ in frames] == frames
    thread.join()
    served.send(Frame(1, 0, 2, [b"back"]))
    assert caller.receive() == Frame(1, 0, 2, [b"back"])


def test_threads_do_not_mix_their_messages(pair):
    caller, served = pair
    served.welcome(b"s" * 16)
    data = [bytes([k]) * 300_000 for k in range(8)]
    frames = [Frame(k, 0, 0, [data[k]]) for k in range(8)]
    threads = [threading.Thread(target=caller.send, args=(frame,)) for frame in frames]
    for thread in threads:
        thread.start()
    found = {frame.call: frame.parts[0] for frame in (served.receive() for _ in threads)}
    assert [found[k] for k in range(8)] == data


def test_who_does_not_know_the_secret_is_not_heard(pair):
    with pytest.raises(ConnectionError, match="outside of this job"):
        pair[1].welcome(b"t" * 16)


def test_the_end_of_a_connection_wakes_who_waits(pair):
    caller, served = pair
    served.welcome(b"s" * 16)
    errors = []

    def wait(one):
        try:
            one.receive()
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait, args=(one,)) for one in pair]
    for thread in threads:
        thread.start()
    caller.close()
    for thread in threads:
        thread.join(20)
    assert len(errors) == 2 and caller.closed
    with pytest.raises(OSError):
        caller.send(Frame(1, 0, 0, [b"late"]))


def test_half_a_message_is_an_error(pair):
    caller, served = pair
    served.welcome(b"s" * 16)
    caller._socket.sendall(b"x" * 20)
    caller.close()
    with pytest.raises(ConnectionResetError):
        served.receive()


def test_all_processes_of_a_job_have_one_secret():
    store = HashStore()
    assert secret_of(PrefixStore("a", store)) == secret_of(PrefixStore("a", store))
    assert secret_of(PrefixStore("a", store)) != secret_of(PrefixStore("b", store))
    assert len(secret_of(store)) == 16
