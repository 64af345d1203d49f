"""The server: many clients, slow readers, its end."""

import socket
import threading
import time

import pytest

from gpunn.distributed import sockets
from gpunn.distributed.errors import DistStoreError
from gpunn.distributed.store import TCPStore
from gpunn.distributed.store_server import Server
from gpunn.distributed.store_table import DONE, LATE, NUMBER, WRONG, pack, unpack


@pytest.fixture
def server():
    made = Server(sockets.listen("127.0.0.1"))
    yield made
    del made


def ask(connection, name, *items, seconds=0.0):
    connection.sendall(pack(NUMBER[name], seconds, items))
    return answer(connection)


def answer(connection):
    data = bytearray()
    while (found := unpack(data)) is None:
        got = connection.recv(1 << 16)
        assert got
        data += got
    return found[0], found[2]


def test_requests_in_a_row_and_in_pieces(server):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(10)
        request = pack(NUMBER["set"], 0.0, [b"k", b"v"])
        for k in range(len(request)):
            connection.send(request[k : k + 1])
        assert answer(connection) == (DONE, [])
        both = pack(NUMBER["add"], 0.0, [b"n", b"1"])
        connection.sendall(both * 2)
        data = bytearray()
        while len(data) < 2 * len(pack(DONE, 0.0, [b"1"])):
            data += connection.recv(100)
        assert data == pack(DONE, 0.0, [b"1"]) + pack(DONE, 0.0, [b"2"])
        assert ask(connection, "get", b"missing", seconds=0.05) == (LATE, [])
        status, (message,) = ask(connection, "add", b"k", b"1")
        assert status == WRONG and b"no number" in message
        status, _ = ask(connection, "set", b"a string too few")
        assert status == WRONG
        assert ask(connection, "get", b"k") == (DONE, [b"v"])


def test_a_reader_that_is_slow_holds_nobody_up(server):
    big = bytes(8_000_000)
    with socket.create_connection(("127.0.0.1", server.port)) as slow, socket.create_connection(
        ("127.0.0.1", server.port)
    ) as quick:
        slow.settimeout(20), quick.settimeout(20)
        ask(quick, "set", b"big", big)
        for _ in range(3):
            slow.sendall(pack(NUMBER["get"], 0.0, [b"big"]))
        assert ask(quick, "count") == (DONE, [b"1"])
        data = bytearray()
        while len(data) < 3 * len(big):
            data += slow.recv(1 << 20)
        at = 0
        for _ in range(3):
            kind, _, items, at = unpack(data, at)
            assert kind == DONE and items == [big]


def test_many_clients_that_wait_for_each_other():
    master = TCPStore("localhost", 0, is_master=True)
    errors = []

    def one(k):
        try:
            client = TCPStore("localhost", master.port)
            client.set(f"{k}", "here")
            client.wait([str(i) for i in range(40)])
            client.close()
        except DistStoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(k,)) for k in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors and master.num_keys() == 41
    master.close()


def test_it_ends_with_its_last_user():
    before = threading.active_count()
    made = Server(sockets.listen("127.0.0.1"))
    port = made.port
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(10)
        ask(connection, "set", b"k", b"v")
        del made
        assert connection.recv(1) == b""
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
