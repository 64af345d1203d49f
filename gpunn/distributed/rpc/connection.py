"""Connections between workers: messages with a number, a context and content in several parts."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpunn.distributed import sockets
from gpunn.distributed.store import Store

_HELLO = struct.Struct("<q16s")  # the caller's number, the job's secret
_HEAD = struct.Struct("<IQQQ")  # parts, call, context (0: none), message
_SMALL = 1 << 16  # bytes that are copied into one packet rather than sent on their own


class Frame(NamedTuple):
    """A message: the call it belongs to, its context's number or 0, its own number, its content:
    a pickle and the memory of large arrays."""

    call: int
    context: int
    message: int
    parts: Sequence[Any]


class Connection:
    """A connection, over which one worker calls and the other answers."""

    def __init__(self, made: socket.socket):
        made.settimeout(None)
        self._socket, self._lock = made, threading.Lock()
        self.closed = False

    def send(self, frame: Frame) -> None:
        """Sends a message whole, or closes the connection and raises OSError."""
        head = _HEAD.pack(len(frame.parts), frame.call, frame.context, frame.message)
        head += struct.pack(f"<{len(frame.parts)}Q", *map(len, frame.parts))
        with self._lock:
            try:
                for part in frame.parts:
                    if len(part) > _SMALL:
                        self._socket.sendall(head)
                        self._socket.sendall(part)
                        head = b""
                    else:
                        head += part
                self._socket.sendall(head)
            except BaseException:  # Ctrl-C too: the rest of half a message cannot follow later
                self.close()
                raise

    def receive(self) -> Frame:
        """The next message; OSError where the connection ends."""
        count, call, context, message = _HEAD.unpack(self._exactly(_HEAD.size))
        sizes = struct.unpack(f"<{count}Q", self._exactly(8 * count))
        return Frame(call, context, message, [self._exactly(size) for size in sizes])

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
