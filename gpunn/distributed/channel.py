"""Channel: messages between the ranks of a group, over sockets.

A rank that sends connects to the listener of the rank that receives, once, and that connection
carries messages one way. Each starts with a header: a tag and the number of bytes. Whoever waits
moves the messages of the whole channel; what was left to go on by itself is moved by a thread that
wakes up for it. Arrays are sent from where they lie and received into where they belong, without
copies, except those that arrive before anybody asked for them.
"""

from __future__ import annotations

import collections
import os
import selectors
import socket
import struct
import threading
import time
from datetime import timedelta
from typing import Any

from gpunn.distributed import sockets
from gpunn.distributed.comm import Waiting
from gpunn.distributed.errors import (
    DistBackendError,
    DistError,
    DistNetworkError,
    DistStoreError,
)
from gpunn.distributed.store import HashStore, PrefixStore, Store, TCPStore

_HEAD = struct.Struct("<qQ")  # tag, bytes
_TOKEN = 16  # bytes that the job's processes know, sent first
_SLICE = 0.05  # seconds between looks at who is alive
MISFIT = "it sent "  # begins the error of a message of another size
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Transfer:
    """A message on its way: its bytes, the other rank, its tag, and whether it is there."""

    __slots__ = ("done", "error", "left", "peer", "tag", "view")

    def __init__(self, view: memoryview, peer: int | None, tag: int):
        self.view, self.peer, self.tag = view, peer, tag
        self.done, self.error = False, ""
        self.left: list[Any] = []  # what is still to be sent

    def end(self, error: str = "") -> None:
        self.error, self.done = error, True


class _Inlet:
    """A connection that messages come over, and the message that is coming."""

    __slots__ = ("at", "have", "head", "peer", "request", "socket", "tag", "target")

    def __init__(self, made: socket.socket):
        self.socket, self.peer = made, -1
        self.head, self.have, self.tag = bytearray(_HEAD.size), 0, 0
        self.target: memoryview | None = None  # where the message goes, from byte `at` on
        self.request: Transfer | None = None
        self.at = 0


class _Outlet:
    """A connection that messages leave over, in order."""

    __slots__ = ("blocked", "peer", "queue", "socket")

    def __init__(self, made: socket.socket, peer: int):
        self.socket, self.peer, self.blocked = made, peer, False
        self.queue: collections.deque[Transfer] = collections.deque()


class Channel:
    """Messages between `size` ranks that meet over `store`; any thread may use it."""

    def __init__(self, store: Store, rank: int, size: int, waiting: Waiting):
        self.store, self.rank, self.size, self.waiting = store, rank, size, waiting
        self._lock = threading.Lock()  # for everything below
        self._driving = threading.Lock()  # held by the thread that moves the messages
        self._moved = threading.Condition()
        self._watchers = 0
        self._connecting = threading.Lock()
        self._outlets: dict[int, _Outlet] = {}
        self._posted: list[Transfer] = []
        self._stash: dict[tuple[int, int], collections.deque[memoryview]] = {}
        self._gone: dict[int, str] = {}
        self._selector = selectors.DefaultSelector()
        self._closed = False
        self._mover: _Mover | None = None
        if size > 1:
            self._listen()

    # --- connections ---

    def _listen(self) -> None:
        host = _store_host(self.store)
        address = sockets.address_towards(host)
        everywhere = sockets.is_loopback(address) and not sockets.is_loopback(host)
        self._listener = sockets.listen("" if everywhere else address)
        self._listener.setblocking(False)
        self._selector.register(self._listener, _READ, None)
        secret = os.urandom(_TOKEN).hex()
        self._token = bytes.fromhex(self.store.compare_set("token", "", secret).decode())
        port = self._listener.getsockname()[1]
        self.store.set(f"address/{self.rank}", f"{address} {port}")

    def _connect(self, peer: int, waiting: Waiting) -> _Outlet:
        with self._connecting:
            if peer in self._outlets:
                return self._outlets[peer]
            host, port = published(self.store, f"address/{peer}", waiting).split()
            if sockets.is_loopback(host):  # it is where the store is, which has another name here
                host = _store_host(self.store)
            made = sockets.connect(host, int(port), 0.0)
            made.sendall(_HEAD.pack(self.rank, _TOKEN) + self._token)
            made.setblocking(False)
            outlet = self._outlets[peer] = _Outlet(made, peer)
            return outlet

    def _accept(self) -> None:
        try:
            made, _ = self._listener.accept()
        except OSError:  # who came has left already
            return
        sockets.tune(made).setblocking(False)
        self._selector.register(made, _READ, _Inlet(made))

    def _lose(self, peer: int, why: str) -> None:
        """Nothing comes from a rank, or gets there, any more."""
        self._gone.setdefault(peer, why)
        for transfer in [t for t in self._posted if t.peer in (peer, None)]:
            if transfer.peer == peer or len(self._gone) == self.size - 1:
                self._posted.remove(transfer)
                transfer.end(why)
        outlet = self._outlets.get(peer)
        if outlet is not None:
            for transfer in outlet.queue:
                transfer.end(why)
            outlet.queue.clear()
            self._watch_writes(outlet, False)

    # --- sending ---

    def send(self, view: memoryview, peer: int, tag: int, waiting: Waiting) -> Transfer:
        """Begins to send; the bytes must stay as they are until the transfer is done."""
        transfer = Transfer(view, peer, tag)
        transfer.left = [_HEAD.pack(tag, len(view)), view]
        outlet = self._outlets.get(peer)
        if outlet is None and peer not in self._gone:
            try:
                outlet = self._connect(peer, waiting)
            except (DistNetworkError, OSError) as error:
                self._gone.setdefault(peer, f"it cannot be reached ({error})")
        with self._lock:
            if outlet is None or peer in self._gone:
                transfer.end(self._gone[peer])
                return transfer
            outlet.queue.append(transfer)
            if not outlet.blocked:
                self._write(outlet)
        return transfer

    def _write(self, outlet: _Outlet) -> None:
        """Sends what the connection takes now."""
        try:
            while outlet.queue:
                transfer = outlet.queue[0]
                sent = outlet.socket.sendmsg(transfer.left)
                while transfer.left and sent >= len(transfer.left[0]):
                    sent -= len(transfer.left.pop(0))
                if transfer.left:
                    transfer.left[0] = memoryview(transfer.left[0])[sent:]
                else:
                    outlet.queue.popleft()
                    transfer.end()
        except BlockingIOError:
            self._watch_writes(outlet, True)
        except OSError as error:
            self._lose(outlet.peer, f"its connection broke ({error.strerror or error})")
        else:
            self._watch_writes(outlet, False)

    def _watch_writes(self, outlet: _Outlet, blocked: bool) -> None:
        if blocked == outlet.blocked:
            return
        outlet.blocked = blocked
        if blocked:
            self._selector.register(outlet.socket, _WRITE, outlet)
        else:
            self._selector.unregister(outlet.socket)

    # --- receiving ---

    def receive(self, view: memoryview, peer: int | None, tag: int) -> Transfer:
        """Begins to receive; peer None takes the first message of that tag, and is set to its
        sender."""
        transfer = Transfer(view, peer, tag)
        with self._lock:
            sources = range(self.size) if peer is None else (peer,)
            for source in sources:
                waiting = self._stash.get((source, tag))
                if waiting:
                    self._deliver(transfer, source, waiting.popleft())
                    if not waiting:
                        del self._stash[source, tag]
                    return transfer
            if all(s in self._gone or s == self.rank for s in sources):
                transfer.end(next(iter(self._gone.values()), "it has nobody to receive from"))
            else:
                self._posted.append(transfer)
        return transfer

    def _deliver(self, transfer: Transfer, source: int, data: memoryview) -> None:
        """Gives a receive what arrived before it was asked for."""
        transfer.peer = source
        if len(data) == len(transfer.view):
            transfer.view[:] = data
            transfer.end()
        else:
            transfer.end(_misfit(len(data), len(transfer.view)))

    def _match(self, peer: int, tag: int) -> Transfer | None:
        for k, transfer in enumerate(self._posted):
            if transfer.tag == tag and transfer.peer in (peer, None):
                return self._posted.pop(k)
        return None

    def _read(self, inlet: _Inlet) -> None:
        """Takes what a connection has."""
        try:
            if inlet.target is not None:
                count = inlet.socket.recv_into(inlet.target[inlet.at :])
                inlet.at += count
                if inlet.at == len(inlet.target):
                    self._arrived(inlet)
            else:
                count = self._read_head(inlet)
        except BlockingIOError:
            return
        except OSError as error:
            return self._end(inlet, f"its connection broke ({error.strerror or error})")
        if not count:
            self._end(inlet, "its connection was closed")

    def _read_head(self, inlet: _Inlet) -> int:
        """Reads a header, and with it the body into the receive that is likely to want it."""
        likely = None
        if not inlet.have:
            likely = next((t for t in self._posted if t.peer == inlet.peer), None)
        if likely is None:
            count = inlet.socket.recv_into(memoryview(inlet.head)[inlet.have :])
            inlet.have += count
            if inlet.have == _HEAD.size:
                self._begin(inlet)
            return count
        count = inlet.socket.recvmsg_into([inlet.head, likely.view])[0]
        body = count - _HEAD.size
        if body < 0:
            inlet.have = count
            return count
        tag, size = _HEAD.unpack(inlet.head)
        if tag == likely.tag and size == len(likely.view):
            self._begin(inlet)
            inlet.at = body
            if body == size > 0:
                self._arrived(inlet)
        else:  # not that one: what was read goes where it belongs
            self._feed(inlet, bytes(inlet.head) + bytes(likely.view[:body]))
        return count

    def _feed(self, inlet: _Inlet, data: bytes) -> None:
        """The slow way: bytes of any number of messages."""
        at = 0
        while at < len(data):
            if inlet.target is None:
                part = data[at : at + _HEAD.size - inlet.have]
                inlet.head[inlet.have : inlet.have + len(part)] = part
                inlet.have += len(part)
                if inlet.have == _HEAD.size:
                    self._begin(inlet)
            else:
                part = data[at : at + len(inlet.target) - inlet.at]
                inlet.target[inlet.at : inlet.at + len(part)] = part
                inlet.at += len(part)
                if inlet.at == len(inlet.target):
                    self._arrived(inlet)
            at += len(part)

    def _begin(self, inlet: _Inlet) -> None:
        """A header is complete: where does its message go?"""
        tag, size = _HEAD.unpack(inlet.head)
        inlet.have, inlet.at, inlet.tag = 0, 0, tag
        if inlet.peer < 0 and (size != _TOKEN or not 0 <= tag < self.size):
            raise ConnectionResetError("a stranger")
        request = None if inlet.peer < 0 else self._match(inlet.peer, tag)
        if request is not None and len(request.view) != size:
            request.peer = inlet.peer
            request.end(_misfit(size, len(request.view)))
            request = None
        inlet.request = request
        inlet.target = memoryview(bytearray(size)) if request is None else request.view
        if not size:
            self._arrived(inlet)

    def _arrived(self, inlet: _Inlet) -> None:
        """A message is complete."""
        target, request, inlet.target, inlet.request = inlet.target, inlet.request, None, None
        assert target is not None
        if inlet.peer < 0:
            if bytes(target) != self._token:
                raise ConnectionResetError("a stranger")
            inlet.peer = inlet.tag
        elif request is not None:
            request.peer = inlet.peer
            request.end()
        elif (late := self._match(inlet.peer, inlet.tag)) is not None:
            self._deliver(late, inlet.peer, target)
        else:
            key = (inlet.peer, inlet.tag)
            self._stash.setdefault(key, collections.deque()).append(target)

    def _end(self, inlet: _Inlet, why: str) -> None:
        self._selector.unregister(inlet.socket)
        inlet.socket.close()
        if inlet.peer >= 0:
            if inlet.request is not None:
                inlet.request.end(why)
            self._lose(inlet.peer, why)

    # --- moving ---

    def turn(self, seconds: float) -> None:
        """Moves what can be moved, waiting up to `seconds` for something; `_driving` is held."""
        try:
            found = self._selector.select(seconds)
        except (OSError, ValueError):  # closed meanwhile
            self._alive()
            raise
        if found:
            with self._lock:
                if self._closed:
                    return
                for key, _ in found:
                    if type(key.data) is _Inlet:
                        self._read(key.data)
                    elif type(key.data) is _Outlet:
                        self._write(key.data)
                    else:
                        self._accept()
        if self._watchers:
            with self._moved:
                self._moved.notify_all()

    def test(self, transfer: Transfer) -> bool:
        """Whether a transfer is done; moves it on where that needs no waiting."""
        if not transfer.done and self._driving.acquire(blocking=False):
            try:
                self.turn(0)
            finally:
                self._driving.release()
        if not transfer.done:
            self._alive()
        return transfer.done

    def until(self, transfer: Transfer, waiting: Waiting) -> None:
        """Moves messages until the transfer is done, or raises what `waiting` finds wrong."""
        while not transfer.done:
            if self._driving.acquire(blocking=False):
                try:
                    self.turn(_SLICE)
                finally:
                    self._driving.release()
            else:
                with self._moved:
                    self._watchers += 1
                    self._moved.wait_for(lambda: transfer.done, _SLICE / 10)
                    self._watchers -= 1
            if not transfer.done:
                self._alive()
                waiting.check()

    def _alive(self) -> None:
        if self._closed:
            raise DistBackendError(f"{self.waiting.what}: the process group was closed meanwhile")

    def move_later(self, transfer: Transfer) -> None:
        """Sees to it that a transfer goes on although nobody waits for it."""
        if not transfer.done:
            if self._mover is None:
                self._mover = _Mover(self)
            self._mover.add(transfer)

    def close(self) -> None:
        """Ends all connections. What was sent still gets there."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            for outlet in self._outlets.values():
                outlet.socket.close()
            self._selector.close()


class _Mover:
    """A thread that moves a channel's messages while there are transfers that nobody waits for."""

    def __init__(self, channel: Channel):
        self._channel = channel
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._transfers: list[Transfer] = []
        threading.Thread(target=self._run, name="gpunn messages", daemon=True).start()

    def add(self, transfer: Transfer) -> None:
        with self._lock:
            self._transfers.append(transfer)
        self._wake.set()

    def _run(self) -> None:
        channel = self._channel
        while not channel._closed:
            self._wake.wait(1.0)
            self._wake.clear()
            while not channel._closed:
                with self._lock:
                    self._transfers = [t for t in self._transfers if not t.done]
                    if not self._transfers:
                        break
                # Who waits for these comes at once, as a rule; then this thread is not needed.
                self._wake.wait(0.002)
                self._wake.clear()
                if channel._driving.acquire(timeout=_SLICE):
                    try:
                        channel.turn(_SLICE)
                    except DistBackendError:  # closed meanwhile
                        return
                    finally:
                        channel._driving.release()


def published(store: Store, key: str, waiting: Waiting) -> str:
    """What another rank, which may still be starting, writes into the store."""
    while True:
        try:
            store.wait([key], timedelta(seconds=4 * _SLICE))
            return store.get(key).decode()
        except DistError as error:
            waiting.check()  # whose error names the rank that the store was lost with
            if not isinstance(error, DistStoreError):
                raise
            time.sleep(1e-3)  # lets other threads have the store's connection


def _misfit(came: int, asked: int) -> str:
    return (
        f"{MISFIT}{came} bytes where {asked} are expected: shapes or dtypes differ between ranks"
    )


def _store_host(store: Store) -> str:
    """The host that a store is on; where it has none, this one."""
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    if isinstance(store, TCPStore):
        return store.host
    if isinstance(store, HashStore):
        return "127.0.0.1"
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
