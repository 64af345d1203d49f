"""The server of a TCPStore: one thread that answers all connections in turn."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
import weakref

from gpunn.distributed.errors import DistError, QueueEmptyError
from gpunn.distributed.sockets import guard, tune
from gpunn.distributed.store_table import (
    CHANGES,
    DONE,
    EMPTY,
    LATE,
    NUMBER,
    WRONG,
    Table,
    pack,
    unpack,
)

_HELLO, _GOODBYE = NUMBER["hello"], NUMBER["goodbye"]


class _Link:
    """A client: its socket, what has come and what has to go, and what to set when it is lost."""

    def __init__(self, made: socket.socket):
        self.socket, self.inbox, self.outbox = made, bytearray(), bytearray()
        self.epitaph: list[bytes] | None = None


class Server:
    """Serves a table on a listening socket until nobody refers to it any more."""

    def __init__(self, listener: socket.socket):
        self.address, self.port = listener.getsockname()[:2]
        waker, self._wake = socket.socketpair()
        guard(waker), guard(self._wake)
        serving = _Serving(listener, waker)
        thread = threading.Thread(target=serving.run, name="gpunn store", daemon=True)
        thread.start()
        weakref.finalize(self, _stop, self._wake, thread)


def _stop(wake: socket.socket, thread: threading.Thread) -> None:
    """Ends the server's thread, which closes all connections, before the process goes on."""
    wake.close()
    if thread is not threading.current_thread():
        thread.join(1.0)


class _Serving:
    def __init__(self, listener: socket.socket, waker: socket.socket):
        self.table = Table()
        self.selector = selectors.DefaultSelector()
        self.waiting: list[tuple[_Link, int, list[bytes], float]] = []
        self.listener, self.waker, self.links = listener, waker, set[_Link]()
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, None)
        self.selector.register(waker, selectors.EVENT_READ, waker)

    def run(self) -> None:
        """Until the waker's other end is closed."""
        while True:
            soonest = min((deadline for *_, deadline in self.waiting), default=None)
            pause = None if soonest is None else max(0.0, soonest - time.monotonic())
            for key, events in self.selector.select(pause):
                if key.data is self.waker:
                    return self._end()
                if key.data is None:
                    self._accept()
                else:
                    self._serve(key.data, events)
            if self.waiting:
                self._retry()

    def _end(self) -> None:
        for made in (self.listener, self.waker, *(link.socket for link in self.links)):
            made.close()
        self.selector.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # a client that gave up meanwhile
            made, _ = self.listener.accept()
            tune(made).setblocking(False)
            link = _Link(made)
            self.links.add(link)
            self.selector.register(made, selectors.EVENT_READ, link)

    def _serve(self, link: _Link, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                data = link.socket.recv(1 << 16)
                if not data:
                    raise ConnectionResetError
                link.inbox += data
                at = 0
                while (request := unpack(link.inbox, at)) is not None:
                    kind, seconds, items, at = request
                    self._answer(link, kind, items, time.monotonic() + seconds)
                del link.inbox[:at]
            self._send(link)
        except BlockingIOError:
            pass
        except (OSError, DistError):
            self._drop(link)

    def _answer(self, link: _Link, kind: int, items: list[bytes], deadline: float) -> None:
        if kind in (_HELLO, _GOODBYE) and len(items) in (0, 2):
            link.epitaph = items if kind == _HELLO else None
        if not self._try(link, kind, items):
            self.waiting.append((link, kind, items, deadline))
        elif kind in CHANGES:
            self._send(link)  # first: whoever waited for the change may end this process
            self._retry()

    def _try(self, link: _Link, kind: int, items: list[bytes]) -> bool:
        """Does what is asked; False where it has to wait."""
        try:
            found = self.table.apply(kind, items)
        except Exception as error:  # a client's mistake is told to the client
            status = EMPTY if isinstance(error, QueueEmptyError) else WRONG
            link.outbox += pack(status, 0.0, [str(error).encode()])
            return True
        if found is None:
            return False
        link.outbox += pack(DONE, 0.0, found)
        return True

    def _retry(self) -> None:
        """Answers those who waited for what is there now, or too long."""
        now, waiting, self.waiting = time.monotonic(), self.waiting, []
        for entry in waiting:
            link, kind, items, deadline = entry
            if link not in self.links:
                continue
            if not self._try(link, kind, items):
                if now < deadline:
                    self.waiting.append(entry)
                    continue
                link.outbox += pack(LATE, 0.0, [])
            try:
                self._send(link)
            except OSError:
                self._drop(link)

    def _send(self, link: _Link) -> None:
        if link.outbox:
            with contextlib.suppress(BlockingIOError):
                sent = link.socket.send(link.outbox)
                del link.outbox[:sent]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.outbox else 0)
        if self.selector.get_key(link.socket).events != events:
            self.selector.modify(link.socket, events, link)

    def _drop(self, link: _Link) -> None:
        if link not in self.links:
            return
        self.links.discard(link)
        self.selector.unregister(link.socket)
        link.socket.close()
        if link.epitaph is not None:
            self.table.values.setdefault(*link.epitaph)
            self._retry()
