"""Connections between workers: messages with a number, a context and pickled content."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from typing import Any, NamedTuple

from gpunn.distributed import sockets
from gpunn.distributed.store import Store

_HELLO = struct.Struct("<q16s")  # the caller's number, the job's secret
_HEAD = struct.Struct("<QQQQ")  # bytes, call, context (0: none), message


class Frame(NamedTuple):
    """A message: the call it belongs to, its context's number or 0, its own number, its content."""

    call: int
    context: int
    message: int
    data: Any


class Connection:
    """A connection, over which one worker calls and the other answers."""

    def __init__(self, made: socket.socket):
        made.settimeout(None)
        self._socket, self._lock = made, threading.Lock()
        self.closed = False

    def send(self, frame: Frame) -> None:
        """Sends a message whole, or closes the connection and raises OSError."""
        head = _HEAD.pack(len(frame.data), frame.call, frame.context, frame.message)
        with self._lock:
            try:
                if len(frame.data) < 1 << 16:  # one packet instead of two
                    self._socket.sendall(head + frame.data)
                else:
                    self._socket.sendall(head)
                    self._socket.sendall(frame.data)
            except BaseException:  # Ctrl-C too: the rest of half a message cannot follow later
                self.close()
                raise

    def receive(self) -> Frame:
        """The next message; OSError where the connection ends."""
        size, call, context, message = _HEAD.unpack(self._exactly(_HEAD.size))
        return Frame(call, context, message, self._exactly(size))

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise ConnectionResetError("its connection was closed")
            view = view[count:]
        return data

    def close(self) -> None:
        """Ends the connection, also for threads that wait in it."""
        self.closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    # --- how it begins ---

    def introduce(self, rank: int, secret: bytes) -> None:
        """The caller's first words."""
        self._socket.sendall(_HELLO.pack(rank, secret))

    def welcome(self, secret: bytes) -> int:
        """The caller's number; ConnectionError for one who does not belong to the job."""
        rank, found = _HELLO.unpack(self._exactly(_HELLO.size))
        if found != secret:
            raise ConnectionError("a connection from outside of this job")
        return rank


def secret_of(store: Store) -> bytes:
    """What only the processes of a job know: messages are pickles, which can do anything."""
    return bytes.fromhex(store.compare_set("token", "", os.urandom(16).hex()).decode())


def connect(host: str, port: int, rank: int, secret: bytes) -> Connection:
    """A connection to a worker; OSError or DistNetworkError where there is none."""
    made = Connection(sockets.connect(host, port, 0.0))
    made.introduce(rank, secret)
    return made
