"""Sockets between processes: how they listen, connect, and stay out of forked children."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
import weakref

from gpunn.distributed.errors import DistNetworkError

# A child made by fork, such as a DataLoader's worker, would keep its parent's connections open
# after the parent was killed, and nobody would notice that.
_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def guard(made: socket.socket) -> socket.socket:
    """The socket, which forked children close."""
    _open.add(made)
    return made


def _close_copies() -> None:
    for one in list(_open):
        one.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)


def tune(made: socket.socket) -> socket.socket:
    """No waiting for more to send; a host that vanished is noticed in half a minute."""
    if made.family == getattr(socket, "AF_UNIX", None):
        return guard(made)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    return guard(made)


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine alone.

    >>> from gpunn.distributed.sockets import is_loopback
    >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("10.0.0.1")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int = 0) -> socket.socket:
    """A socket that accepts connections on an address of this machine ("": on all of them)."""
    if host == "" and socket.has_dualstack_ipv6():
        made = socket.create_server(
            ("", port), family=socket.AF_INET6, backlog=512, dualstack_ipv6=True
        )
    else:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.create_server(address[:2], family=family, backlog=512)
    return guard(made)


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """A connection, tried again until somebody listens; DistNetworkError after `seconds`.

    0 seconds: tried once.
    """
    deadline, pause = time.monotonic() + seconds, 0.01
    while True:
        left = deadline - time.monotonic()
        try:
            wait = max(0.05, min(left, 10.0)) if seconds else 10.0
            return tune(socket.create_connection((host, port), timeout=wait))
        except OSError as error:
            if left <= pause:
                raise DistNetworkError(
                    f"The client socket has timed out after {seconds * 1000:.0f}ms while trying "
                    f"to connect to ({host}, {port}): {error}"
                ) from None
        time.sleep(pause)
        pause = min(0.5, pause * 1.5)


def machine() -> str:
    """What processes of one machine, or of one container, have in common."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/net')}"
    except OSError:
        return socket.gethostname()


def address_towards(host: str) -> str:
    """This machine's address on the interface over which it reaches `host`.

    GLOO_SOCKET_IFNAME names another interface, as under PyTorch. Nothing is sent to find out.
    """
    name = os.environ.get("GLOO_SOCKET_IFNAME", "").split(",")[0]
    if name:
        return _address_of(name)
    if is_loopback(host):
        return "127.0.0.1"
    family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return probe.getsockname()[0]


def _address_of(interface: str) -> str:
    """The IPv4 address of a network interface of this machine."""
    import struct

    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            request = struct.pack("256s", interface.encode()[:15])
            answer = fcntl.ioctl(probe, 0x8915, request)  # SIOCGIFADDR
    except (ImportError, OSError) as error:
        names = [name for _, name in socket.if_nameindex()]
        raise DistNetworkError(
            f"GLOO_SOCKET_IFNAME={interface}: no address there ({error}); this machine has {names}"
        ) from None
    return socket.inet_ntoa(answer[20:24])
