"""Sockets: where they listen, how long they try, which address they choose."""

import socket
import threading
import time

import pytest

from gpunn.distributed import sockets
from gpunn.distributed.errors import DistNetworkError
from tests.distributed.ranks import free_port


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True),
     ("10.1.2.3", False), ("node7", False), ("", False)],
)  # fmt: skip
def test_what_is_this_machine_alone(host, local):
    assert sockets.is_loopback(host) == local


def test_listening_on_loopback_and_everywhere():
    with sockets.listen("127.0.0.1") as near, sockets.listen("") as everywhere:
        assert near.getsockname()[0] == "127.0.0.1"
        assert everywhere.getsockname()[0] in ("::", "0.0.0.0")
        for one in (near, everywhere):
            sockets.connect("127.0.0.1", one.getsockname()[1], 5.0).close()


def test_connecting_waits_for_somebody_to_listen():
    port, found = free_port(), []
    thread = threading.Thread(target=lambda: found.append(sockets.connect("127.0.0.1", port, 10.0)))
    thread.start()
    time.sleep(0.1)
    with sockets.listen("127.0.0.1", port):
        thread.join(10)
    assert found[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    found[0].close()


def test_connecting_gives_up():
    port, start = free_port(), time.monotonic()
    with pytest.raises(DistNetworkError, match=rf"timed out after 200ms .*\(127.0.0.1, {port}\)"):
        sockets.connect("127.0.0.1", port, 0.2)
    with pytest.raises(DistNetworkError):
        sockets.connect("127.0.0.1", port, 0.0)
    assert time.monotonic() - start < 5


def test_the_address_towards_a_host(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert sockets.address_towards("localhost") == "127.0.0.1"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    assert sockets.address_towards("10.0.0.1") == "127.0.0.1"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nonesuch0")
    with pytest.raises(DistNetworkError, match="GLOO_SOCKET_IFNAME=nonesuch0: no address there"):
        sockets.address_towards("10.0.0.1")


def test_a_machine_has_one_identity():
    assert sockets.machine() == sockets.machine() != ""
