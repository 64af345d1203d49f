"""Stores do as PyTorch's do, between threads and between processes, and say what is wrong."""

import os
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

from gpunn.distributed.errors import DistNetworkError, DistStoreError, QueueEmptyError
from gpunn.distributed.store import FileStore, HashStore, PrefixStore, Store, TCPStore
from tests.distributed.ranks import ROOT

SHORT = timedelta(milliseconds=80)


@pytest.fixture(params=["hash", "tcp", "file", "prefix"])
def store(request, tmp_path):
    made = {
        "hash": HashStore,
        "tcp": lambda: TCPStore("localhost", 0, 1, True),
        "file": lambda: FileStore(str(tmp_path / "store"), 1),
        "prefix": lambda: PrefixStore("job", TCPStore("localhost", 0, 1, True)),
    }[request.param]()
    yield made
    made.close()


def test_does_what_pytorchs_does(store):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = torch.distributed.TCPStore("localhost", 0, 1, True)
    for s in (store, theirs):
        s.set_timeout(timedelta(seconds=3))
    steps = [
        lambda s: s.set("a", "b"),
        lambda s: s.get("a"),
        lambda s: (s.add("n", 3), s.add("n", -5), s.get("n")),
        lambda s: (s.compare_set("a", "b", "c"), s.compare_set("a", "z", "d"), s.get("a")),
        lambda s: (s.compare_set("new", "", "v"), s.compare_set("other", "x", "v")),
        lambda s: (s.check(["new", "a"]), s.check(["new", "other"]), s.check([])),
        lambda s: (s.append("k", "x"), s.append("k", "y"), s.get("k")),
        lambda s: (s.multi_set(["p", "q"], ["1", "2"]), s.multi_get(["p", "q"])),
        lambda s: (s.delete_key("p"), s.delete_key("p"), s.check(["p"])),
        lambda s: (s.queue_push("Q", "1"), s.queue_push("Q", "2"), s.queue_len("Q")),
        lambda s: (s.queue_pop("Q"), s.queue_pop("Q"), s.queue_len("Q")),
        lambda s: (s.set("empty", ""), s.get("empty"), s.wait(["a", "k"]), s.wait([])),
        lambda s: (s.barrier("b", 1), s.has_extended_api(), s.timeout),
        lambda s: s.clone().get("a"),
    ]
    for number, step in enumerate(steps):
        assert step(store) == step(theirs), number


def test_bytes_pass_as_they_are(store):
    every = bytes(range(256)) * 300
    store.set("all", every)
    assert store.get("all") == every
    assert store.compare_set("all", every, b"\x00\xff") == b"\x00\xff"


def test_names_and_numbers_of_keys(store):
    before = store.num_keys()
    store.multi_set(["x", "y"], ["1", "2"])
    assert store.num_keys() == before + 2
    assert {"x", "y"} <= set(store.list_keys())
    assert store.below("x") == {"": b"1"}


def test_waiting_ends_with_an_error_that_names_the_keys(store):
    store.set_timeout(SHORT)
    assert store.timeout == SHORT
    start = time.monotonic()
    with pytest.raises(DistStoreError, match=r"wait timeout after 80ms, keys: .*nothing"):
        store.get("nothing")
    with pytest.raises(DistStoreError, match=r"wait timeout after 30ms, keys: .*one, .*two"):
        store.wait(["one", "two"], timedelta(milliseconds=30))
    with pytest.raises(QueueEmptyError, match="queue is empty"):
        store.queue_pop("nothing", block=False)
    with pytest.raises(DistStoreError, match="keys: .*nothing$"):
        store.queue_pop("nothing")
    assert time.monotonic() - start < 20
    store.set("after", "1")
    assert store.get("after") == b"1"


def test_mistakes_are_told_and_harm_nothing(store):
    store.set("word", "no number")
    with pytest.raises(DistStoreError, match="add: key .*word' holds b'no number', no number"):
        store.add("word", 1)
    with pytest.raises(TypeError, match="a value is a str or bytes, got 3"):
        store.set("a", 3)
    with pytest.raises(TypeError, match="a key is a str, got 3"):
        store.get(3)
    with pytest.raises(ValueError, match="2 keys and 1 values"):
        store.multi_set(["a", "b"], ["1"])
    with pytest.raises(TypeError, match="timedelta"):
        store.set_timeout(3)
    assert store.get("word") == b"no number"


def test_who_waits_gets_what_another_sets(store):
    other, found = store.clone(), []
    waiter = threading.Thread(target=lambda: found.append(other.get("late")))
    popper = threading.Thread(target=lambda: found.append(store.clone().queue_pop("queue")))
    waiter.start(), popper.start()
    time.sleep(0.05)
    store.set("late", "here")
    store.queue_push("queue", "first")
    waiter.join(10), popper.join(10)
    assert sorted(found) == [b"first", b"here"]


def test_one_counter_for_many_threads(store):
    def count():
        mine = store.clone()
        for _ in range(40):
            mine.add("sum", 1)
        if mine is not store:
            mine.close()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert store.add("sum", 0) == 160


def test_prefixes_nest_and_keep_apart():
    below = HashStore()
    left, right = PrefixStore("left", below), PrefixStore("in", PrefixStore("right", below))
    left.set("k", "1")
    right.set("k", "2")
    assert (below.get("left/k"), below.get("right/in/k")) == (b"1", b"2")
    assert left.list_keys() == ["k"] == right.list_keys()
    assert left.below("") == {"k": b"1"}
    left.set_timeout(SHORT)
    assert below.timeout == right.timeout == SHORT


def test_a_store_of_ones_own_needs_apply():
    with pytest.raises(RuntimeError, match="Not implemented"):
        Store().set("a", "b")


_CLIENT = """
import sys
from gpunn.distributed.store import FileStore, TCPStore
kind, where = sys.argv[1:]
store = TCPStore("localhost", int(where), 3) if kind == "tcp" else FileStore(where, 3)
for _ in range(25):
    store.add("sum", 1)
store.set(f"left/{store.add('place', 1)}", "yes")
store.wait(["end"])
"""


def _client(kind, where):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", _CLIENT, kind, str(where)], env=env)


@pytest.mark.parametrize("kind", ["tcp", "file"])
def test_between_processes(kind, tmp_path):
    path = tmp_path / "store"
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        chosen.listen()
        port = chosen.getsockname()[1]
        clients = [_client(kind, port if kind == "tcp" else path) for _ in range(2)]
        descriptor = os.dup(chosen.fileno())
    if kind == "tcp":
        store = TCPStore("localhost", port, 3, True, master_listen_fd=descriptor)
    else:
        os.close(descriptor)
        store = FileStore(str(path), 3)
    store.wait(["left/1", "left/2"], timedelta(seconds=30))
    assert store.add("sum", 0) == 50
    store.set("end", "1")
    assert [c.wait(30) for c in clients] == [0, 0]
    store.close()
    assert not path.exists()


def test_the_master_waits_for_the_others():
    with pytest.raises(
        DistStoreError, match=r"Timed out after 0.2 seconds waiting for clients. 1/2 clients joined"
    ):
        TCPStore("localhost", 0, 2, True, timeout=timedelta(seconds=0.2))
    quick = TCPStore("localhost", 0, 2, True, wait_for_workers=False)
    assert quick.num_keys() == 1  # init/
    quick.close()


def test_addresses_that_cannot_be():
    master = TCPStore("localhost", 0, 1, True)
    with pytest.raises(DistNetworkError, match="has failed to listen on any local network address"):
        TCPStore("localhost", master.port, 1, True)
    with pytest.raises(DistNetworkError, match=r"timed out after 100ms while trying to connect"):
        TCPStore("localhost", 1, timeout=timedelta(seconds=0.1))
    with pytest.raises(DistNetworkError, match=r"\(no-such-host.invalid, 12\)"):
        TCPStore("no-such-host.invalid", 12, timeout=timedelta(seconds=0.1))
    with pytest.raises(ValueError, match="0 to 65535 but was 70000"):
        TCPStore("localhost", 70000)
    with pytest.raises(ValueError, match="world size cannot be 0"):
        TCPStore("localhost", 0, 0, True)
    shared = TCPStore("localhost", master.port, 1, True, multi_tenant=True)
    master.set("a", "1")
    assert shared.get("a") == b"1"
    master.close()
    assert shared.get("a") == b"1"
    shared.close()


def test_a_master_on_localhost_is_closed_to_other_machines():
    master = TCPStore("localhost", 0, 1, True)
    address = master._server.address
    assert address in ("127.0.0.1", "::1")
    master.close()


def test_a_client_whose_server_ended_says_so():
    master = TCPStore("localhost", 0, 1, True)
    client = TCPStore("localhost", master.port)
    waiting, errors = client.clone(), []

    def wait():
        try:
            waiting.get("never")
        except DistNetworkError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    master.close()
    thread.join(10)
    assert "Did the remote server shutdown or crash?" in errors[0]
    client.set_timeout(SHORT)
    with pytest.raises(DistNetworkError):
        client.get("a")


def test_strangers_bytes_end_their_connection_only():
    master = TCPStore("localhost", 0, 1, True)
    for noise in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 64, b"\x05\x00\x00\x00\x00"):
        with socket.create_connection(("localhost", master.port)) as stranger:
            stranger.sendall(noise)
            stranger.settimeout(0.3)
            try:
                assert stranger.recv(10) == b""
            except TimeoutError:
                assert len(noise) < 17  # it waits for the rest of a request
    master.set("a", "1")
    assert master.get("a") == b"1"
    master.close()


def test_a_connection_that_ends_without_goodbye_is_told():
    master = TCPStore("localhost", 0, 1, True)
    killed, polite = master.clone(), master.clone()
    killed.hello("gone/1", b"killed"), polite.hello("gone/2", b"killed")
    polite.goodbye()
    killed.close(), polite.close()
    assert master.below("gone/", 0, 10.0) == {"1": b"killed"}
    with pytest.raises(DistStoreError, match="keys: .*gone/"):
        master.below("gone/", 1, 0.05)
    master.close()


def test_forked_children_let_go_of_the_connection():
    master = TCPStore("localhost", 0, 1, True)
    script = (
        "import os, sys, time\n"
        "from gpunn.distributed.store import TCPStore\n"
        "store = TCPStore('localhost', int(sys.argv[1]))\n"
        "store.hello('gone/1', b'killed')\n"
        "if os.fork() == 0:\n"
        "    os.close(1); time.sleep(60)\n"
        "print('up', flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(master.port)], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    assert parent.stdout.readline() == b"up\n"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    try:
        assert "1" in master.below("gone/", 0, 10.0)
    finally:
        os.killpg(parent.pid, 9)
        master.close()


def test_a_file_that_was_half_written_is_mended(tmp_path):
    path = str(tmp_path / "store")
    first = FileStore(path, 2)
    first.set("a", "1")
    with open(path, "ab") as file:
        file.write(b"\x09\x00\x00")
    first.set("b", "2")
    second = FileStore(path, 2)
    assert (second.get("a"), second.get("b")) == (b"1", b"2")
    first.close()
    assert os.path.exists(path)
    second.close()
    assert not os.path.exists(path)


def test_another_program_at_the_port():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DistNetworkError, match=r"listens at 127\.0\.0\.1:\d+ is not gpunn's"):
            TCPStore("127.0.0.1", server.getsockname()[1], 2, False, timedelta(seconds=5)).get("a")
        thread.join(10)
        assert not thread.is_alive()
