"""Messages: framing, strangers, misfits, early arrivals."""

import contextlib
import os
import socket
import threading

import pytest

from gpunn.distributed.channel import _HEAD, Channel
from gpunn.distributed.comm import Waiting
from gpunn.distributed.errors import DistBackendError
from gpunn.distributed.store import HashStore, TCPStore


def waiting(seconds=20.0):
    made = Waiting(None, [0, 1, 2])
    made.begin("test", 1, seconds)
    return made


@contextlib.contextmanager
def channels(size=2):
    store = HashStore()
    made = [Channel(store, r, size, waiting()) for r in range(size)]
    try:
        yield made
    finally:
        for channel in made:
            channel.close()


def send(channel, data, peer, tag):
    return channel.send(memoryview(data), peer, tag, waiting())


def receive(channel, size, peer, tag):
    room = bytearray(size)
    transfer = channel.receive(memoryview(room), peer, tag)
    channel.until(transfer, waiting())
    return room, transfer


def test_what_arrives_before_it_is_asked_for_is_kept_in_order():
    with channels() as (a, b):
        for data, tag in ((b"one", 1), (b"first", 2), (b"two", 1), (b"", 3), (b"second", 2)):
            send(a, data, 1, tag)
        assert receive(b, 6 - 1, 0, 2)[0] == b"first"
        assert receive(b, 3, None, 1)[0] == b"one"
        assert receive(b, 6, 0, 2)[0] == b"second"
        assert receive(b, 0, 0, 3)[0] == b""
        room, transfer = receive(b, 3, None, 1)
        assert (room, transfer.peer) == (b"two", 0)


def test_small_and_large_messages_mixed():
    with channels() as (a, b):
        sizes = [0, 1, 15, 16, 17, 5, 100_000, 3, 0, 300_000, 40]
        data = [os.urandom(n) for n in sizes]
        rooms = [bytearray(n) for n in sizes]
        odd = [k for k in range(len(sizes)) if k % 2]
        asked = {k: b.receive(memoryview(rooms[k]), 0, k) for k in odd}
        sent = [send(a, d, 1, k) for k, d in enumerate(data)]
        pump = threading.Thread(target=lambda: [a.until(s, waiting()) for s in sent])
        pump.start()
        for k in reversed(range(len(sizes))):
            transfer = asked.get(k) or b.receive(memoryview(rooms[k]), 0, k)
            b.until(transfer, waiting())
        pump.join(20)
        assert [bytes(r) for r in rooms] == data


def test_bytes_that_trickle_in():
    with channels() as (a, b):
        outlet = a._connect(1, waiting())
        message = _HEAD.pack(5, 4) + b"abcd" + _HEAD.pack(6, 2) + b"xy" + _HEAD.pack(7, 0)
        rooms = {tag: bytearray(n) for tag, n in ((5, 4), (6, 2), (7, 0))}
        asked = [b.receive(memoryview(room), 0, tag) for tag, room in rooms.items()]

        def trickle():
            for k in range(len(message)):
                outlet.socket.send(message[k : k + 1])
                pause.wait(0.002)

        pause = threading.Event()
        thread = threading.Thread(target=trickle)
        thread.start()
        for transfer in asked:
            b.until(transfer, waiting())
        thread.join(20)
        assert list(rooms.values()) == [b"abcd", b"xy", b""]


def test_a_message_of_another_size_is_an_error_and_the_next_one_arrives():
    with channels() as (a, b):
        posted = b.receive(memoryview(bytearray(8)), 0, 1)
        send(a, b"short", 1, 1)
        send(a, b"longer than asked for", 1, 2)
        send(a, b"right", 1, 3)
        b.until(posted, waiting())
        assert posted.error.startswith("it sent 5 bytes where 8 are expected")
        assert "it sent 21 bytes where 3 are" in receive(b, 3, 0, 2)[1].error
        assert receive(b, 5, 0, 3)[0] == b"right"


def test_strangers_are_shown_the_door():
    store = TCPStore("localhost", 0, 1, True)
    a, b = (Channel(store, r, 2, waiting()) for r in range(2))
    host, port = store.get("address/1").decode().split()
    assert host == "127.0.0.1"
    for noise in (b"GET / HTTP/1.1\r\n\r\n", _HEAD.pack(0, 16) + b"0" * 16, _HEAD.pack(9, 16)):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(noise)
            send(a, b"hello", 1, 4)
            assert receive(b, 5, 0, 4)[0] == b"hello"
            for _ in range(3):
                b.turn(0.05)
            stranger.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
    assert b._gone == {}
    for one in (a, b, store):
        one.close()


def test_whoever_is_gone_fails_what_waits_for_it_only():
    with channels(3) as (a, b, c):
        for channel in (b, c):
            send(channel, b"x", 0, 0)
            receive(a, 1, channel.rank, 0)
        room = bytearray(2)
        of_b, of_any = (a.receive(memoryview(room), p, 1) for p in (1, None))
        send(b, b"last", 0, 2)
        b.close()
        a.until(of_b, waiting())
        assert "connection" in of_b.error and not of_any.done
        assert receive(a, 4, 1, 2)[0] == b"last"  # it had arrived
        assert "connection" in receive(a, 4, 1, 2)[1].error
        send(c, b"ok", 0, 1)
        a.until(of_any, waiting())
        assert (of_any.error, of_any.peer, room) == ("", 2, b"ok")
        assert "connection" in send(a, b"x", 1, 0).error


def test_waiting_ends_in_time_and_when_closed():
    with channels() as (a, b):
        with pytest.raises(DistBackendError, match="test: no answer after 0.2 s"):
            a.until(a.receive(memoryview(bytearray(1)), 1, 0), waiting(0.2))
        threading.Timer(0.1, b.close).start()
        with pytest.raises(DistBackendError, match="closed meanwhile"):
            b.until(b.receive(memoryview(bytearray(1)), 0, 0), waiting())


def test_several_threads_wait_at_once():
    with channels() as (a, b):
        rooms = [bytearray(4) for _ in range(8)]

        def wait(k):
            b.until(b.receive(memoryview(rooms[k]), 0, k), waiting())

        threads = [threading.Thread(target=wait, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for k in reversed(range(8)):
            send(a, b"%04d" % k, 1, k)
        for thread in threads:
            thread.join(20)
        assert rooms == [b"%04d" % k for k in range(8)]
