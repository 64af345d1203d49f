"""Stores: keys and values that all processes of a job see, and over which they find each other.

What is asked is done by a `Table`, in whichever process it lives: this one (HashStore), that of
rank 0 (TCPStore), or each one, which then replays the requests in a file (FileStore).

Source: https://docs.pytorch.org/docs/stable/distributed.html#distributed-key-value-store
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from gpunn.distributed import sockets
from gpunn.distributed.errors import DistNetworkError, DistStoreError, QueueEmptyError
from gpunn.distributed.store_server import Server
from gpunn.distributed.store_table import (
    CHANGES,
    DONE,
    EMPTY,
    INIT,
    LATE,
    NUMBER,
    Table,
    pack,
    unpack,
)

__all__ = ["FileStore", "HashStore", "PrefixStore", "Store", "TCPStore"]

def _bytes(value: Any, what: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)) and what == "value":
        return bytes(value)
    raise TypeError(
        f"Store: a {what} is a str{' or bytes' * (what == 'value')}, got {value!r}: "
        "incompatible function arguments"
    )


class Store:
    """What all stores have in common: keys are str, values str or bytes; they are read as bytes.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.Store

    >>> store = gpunn.distributed.HashStore()
    >>> store.set("greeting", "hello")
    >>> store.get("greeting")
    b'hello'
    >>> store.add("count", 2), store.add("count", 3)
    (2, 5)
    >>> store.compare_set("greeting", "hello", "goodbye")
    b'goodbye'
    >>> store.check(["greeting", "name"]), store.delete_key("greeting"), store.num_keys()
    (False, True, 1)
    """

    def __init__(self) -> None:
        self._timeout = timedelta(seconds=300)

    def _apply(self, name: str, items: Sequence[bytes], seconds: float = 0.0) -> list[bytes]:
        """Does what is asked, waiting up to `seconds`: what each kind of store has of its own."""
        raise RuntimeError("Store: Not implemented: use TCPStore, FileStore or HashStore")

    @property
    def timeout(self) -> timedelta:
        """How long `get`, `wait` and `queue_pop` wait."""
        return self._timeout

    def set_timeout(self, timeout: timedelta) -> None:
        """Sets how long `get`, `wait` and `queue_pop` wait."""
        if not isinstance(timeout, timedelta):
            raise TypeError(f"set_timeout: takes a datetime.timedelta, got {timeout!r}")
        self._timeout = timeout

    def set(self, key: str, value: str | bytes) -> None:
        """Sets a key's value."""
        self._apply("set", [_bytes(key, "key"), _bytes(value, "value")])

    def get(self, key: str) -> bytes:
        """A key's value, waiting for it up to the timeout (then DistStoreError)."""
        return self._apply("get", [_bytes(key, "key")], self._timeout.total_seconds())[0]

    def add(self, key: str, amount: int) -> int:
        """Adds to the number that a key holds (0 at first); returns the sum."""
        return int(self._apply("add", [_bytes(key, "key"), b"%d" % amount])[0])

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        """Sets a key where it holds `expected` (or, if that is empty, nothing).

        Returns what it holds then, or `expected` where it holds nothing.
        """
        values = [_bytes(expected, "value"), _bytes(desired, "value")]
        return self._apply("compare_set", [_bytes(key, "key"), *values])[0]

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Returns when all keys are set; DistStoreError when that takes longer than the timeout."""
        seconds = (self._timeout if timeout is None else timeout).total_seconds()
        self._apply("wait", [_bytes(k, "key") for k in keys], seconds)

    def check(self, keys: Sequence[str]) -> bool:
        """Whether all keys are set."""
        return self._apply("check", [_bytes(k, "key") for k in keys])[0] == b"1"

    def delete_key(self, key: str) -> bool:
        """Takes a key away; whether it was there."""
        return self._apply("delete", [_bytes(key, "key")])[0] == b"1"

    def num_keys(self) -> int:
        """How many keys there are, those that the store itself uses among them."""
        return int(self._apply("count", [])[0])

    def append(self, key: str, value: str | bytes) -> None:
        """Appends to a key's value (empty at first)."""
        self._apply("append", [_bytes(key, "key"), _bytes(value, "value")])

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        """The values of several keys, waiting for them as `get` does."""
        seconds = self._timeout.total_seconds()
        return self._apply("multi_get", [_bytes(k, "key") for k in keys], seconds)

    def multi_set(self, keys: Sequence[str], values: Sequence[str | bytes]) -> None:
        """Sets several keys at once."""
        if len(keys) != len(values):
            raise ValueError(f"multi_set: {len(keys)} keys and {len(values)} values")
        pairs = [(_bytes(k, "key"), _bytes(v, "value")) for k, v in zip(keys, values)]
        self._apply("multi_set", [part for pair in pairs for part in pair])

    def list_keys(self) -> list[str]:
        """The names of all keys."""
        return [key.decode() for key in self._apply("names", [])]

    def queue_push(self, key: str, value: str | bytes) -> None:
        """Puts a value at the end of a queue."""
        self._apply("push", [_bytes(key, "key"), _bytes(value, "value")])

    def queue_pop(self, key: str, block: bool = True) -> bytes:
        """Takes the first value of a queue; QueueEmptyError where there is none and not `block`."""
        seconds = self._timeout.total_seconds()
        return self._apply("pop", [_bytes(key, "key"), b"1" if block else b"0"], seconds)[0]

    def queue_len(self, key: str) -> int:
        """How many values a queue has."""
        return int(self._apply("length", [_bytes(key, "key")])[0])

    def has_extended_api(self) -> bool:
        """True: `append`, `multi_get`, `multi_set` and queues are here."""
        return True

    def clone(self) -> Store:
        """The same store, over a connection of its own where it has one."""
        return self

    def barrier(self, key: str, world_size: int, timeout: timedelta | None = None) -> None:
        """Returns when `world_size` processes have called it with this key."""
        if self.add(f"{key}/count", 1) == world_size:
            self.set(f"{key}/done", "1")
        self.wait([f"{key}/done"], timeout)

    def below(self, prefix: str, known: int = -1, seconds: float = 0.0) -> dict[str, bytes]:
        """The keys that start with `prefix`, without it, and their values, oldest first.

        Waits for more than `known` of them; DistStoreError after so many seconds.
        """
        found = self._apply("below", [prefix.encode(), b"%d" % known], seconds)
        return {k.decode()[len(prefix) :]: v for k, v in zip(found[::2], found[1::2])}

    def hello(self, key: str, value: bytes) -> None:
        """Asks a server to set `key` when this connection ends without `goodbye`.

        Nothing happens where the key is set already, and in stores without a server.
        """
        self._apply("hello", [key.encode(), value])

    def goodbye(self) -> None:
        """Says that this connection is about to end as it should."""
        self._apply("goodbye", [])

    def close(self) -> None:
        """Gives up connections and files."""


def _late(name: str, items: Sequence[bytes], seconds: float) -> DistStoreError:
    keys = items[:1] if name in ("pop", "below") else items
    listed = ", ".join("/" + k.decode() for k in keys)
    return DistStoreError(f"wait timeout after {seconds * 1000:.0f}ms, keys: {listed}")


class HashStore(Store):
    """A store within this process, for its threads.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.HashStore

    >>> store = gpunn.distributed.HashStore()
    >>> store.multi_set(["a", "b"], ["1", "2"])
    >>> store.multi_get(["a", "b"])
    [b'1', b'2']
    """

    def __init__(self) -> None:
        super().__init__()
        self._table, self._changed = Table(), threading.Condition()

    def _apply(self, name: str, items: Sequence[bytes], seconds: float = 0.0) -> list[bytes]:
        deadline = time.monotonic() + seconds
        with self._changed:
            while (found := self._table.apply(NUMBER[name], items)) is None:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise _late(name, items, seconds)
            self._changed.notify_all()
        return found


class PrefixStore(Store):
    """A store whose keys are those of `store` that start with `prefix` and a slash.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.PrefixStore

    >>> store = gpunn.distributed.HashStore()
    >>> gpunn.distributed.PrefixStore("job", store).set("rank", "0")
    >>> store.get("job/rank")
    b'0'
    """

    def __init__(self, prefix: str, store: Store):
        self._prefix, self.underlying_store = prefix, store

    @property
    def timeout(self) -> timedelta:
        """How long `get`, `wait` and `queue_pop` wait: the same as in the store below."""
        return self.underlying_store.timeout

    @property
    def _timeout(self) -> timedelta:  # type: ignore[override]
        return self.underlying_store.timeout

    def set_timeout(self, timeout: timedelta) -> None:
        """Sets the timeout of the store below."""
        self.underlying_store.set_timeout(timeout)

    def _apply(self, name: str, items: Sequence[bytes], seconds: float = 0.0) -> list[bytes]:
        prefix = self._prefix.encode() + b"/"
        every = {"wait": 1, "check": 1, "get": 1, "multi_get": 1, "multi_set": 2}
        step = every.get(name, len(items) or 1)  # keys are every step-th of the strings
        below = [prefix + item if k % step == 0 else item for k, item in enumerate(items)]
        found = self.underlying_store._apply(name, below, seconds)
        if name == "names":
            return [key[len(prefix) :] for key in found if key.startswith(prefix)]
        if name == "below":
            return [f if k % 2 else f[len(prefix) :] for k, f in enumerate(found)]
        return found

    def clone(self) -> PrefixStore:
        """The same keys, over a clone of the store below."""
        return PrefixStore(self._prefix, self.underlying_store.clone())

    def close(self) -> None:
        """Closes the store below."""
        self.underlying_store.close()


class FileStore(Store):
    """A store in a file that all processes can lock, of `world_size` processes (-1: any number).

    The file must be new: what an earlier job left in it would be believed. The last of the
    processes takes it away. Needs `fcntl` locks: DistStoreError on Windows.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.FileStore

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = gpunn.distributed.FileStore(folder.name + "/store", 1)
    >>> store.set("a", "1")
    >>> gpunn.distributed.FileStore(folder.name + "/store", 1).get("a")
    b'1'
    >>> folder.cleanup()
    """

    def __init__(self, file_name: str, world_size: int = -1):
        super().__init__()
        self.path, self.world_size = file_name, world_size
        self._table, self._read, self._lock = Table(), 0, threading.Lock()
        self.add("refcount/", 1)
        self._leave = weakref.finalize(self, _leave_file, file_name, world_size)

    def _apply(self, name: str, items: Sequence[bytes], seconds: float = 0.0) -> list[bytes]:
        deadline, pause = time.monotonic() + seconds, 0.001
        while (found := self._try(NUMBER[name], items)) is None:
            if time.monotonic() > deadline:
                raise _late(name, items, seconds)
            time.sleep(pause)
            pause = min(0.05, pause * 1.5)
        return found

    def _try(self, kind: int, items: Sequence[bytes]) -> list[bytes] | None:
        """Reads what others did, then does the same to our table and writes it down."""
        with self._lock, _locked(self.path) as file:
            file.seek(self._read)
            data, at = file.read(), 0
            while (request := unpack(data, at)) is not None:
                self._table.apply(request[0], request[2])
                at = request[3]
            self._read += at
            found = self._table.apply(kind, items)
            if found is not None and kind in CHANGES:
                file.seek(self._read)
                self._read += file.write(pack(kind, 0.0, items))
                file.truncate()  # of what a process that was killed half wrote
            return found

    def close(self) -> None:
        """Counts this process out; the last one takes the file away."""
        self._leave()


def _locked(path: str) -> Any:
    """The file, open and locked until it is closed."""
    try:
        import fcntl
    except ImportError:
        raise DistStoreError("FileStore: this system has no fcntl; use tcp://host:port") from None
    while True:
        try:
            file = open(path, "rb+", buffering=0)  # noqa: SIM115
        except FileNotFoundError:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            continue
        fcntl.flock(file, fcntl.LOCK_EX)
        try:  # the last process may have taken it away while this one waited
            if os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except FileNotFoundError:
            pass
        file.close()


def _leave_file(path: str, world_size: int) -> None:
    if not os.path.exists(path):
        return
    try:
        with _locked(path) as file:
            table, data, at = Table(), file.read(), 0
            while (request := unpack(data, at)) is not None:
                table.apply(request[0], request[2])
                at = request[3]
            (left,) = table.add(b"refcount/", b"-1")
            (gone,) = table.add(b"cleanup/", b"1")
            file.seek(at)
            file.write(pack(NUMBER["add"], 0.0, [b"refcount/", b"-1"]))
            file.write(pack(NUMBER["add"], 0.0, [b"cleanup/", b"1"]))
            if left == b"0" and int(gone) >= world_size:
                os.unlink(path)
    except OSError:  # the folder is gone, or belongs to others: nobody needs it any more
        pass


_servers: weakref.WeakValueDictionary[int, Server] = weakref.WeakValueDictionary()


class TCPStore(Store):
    """A store in one process, the master, that the others reach over TCP.

    The master serves in a thread of its own, on `port` (0: a free one, then read `.port`), to this
    machine alone where `host_name` is localhost. With `world_size` and `wait_for_workers` the
    master waits for that many processes, itself one of them. With `multi_tenant` stores on one port
    of a process share a server; `master_listen_fd` is a socket bound already; `use_libuv` is
    accepted and changes nothing.
    DistNetworkError: no connection within the timeout, a port that is taken. DistStoreError:
    processes that do not come. Source:
    https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.TCPStore

    >>> master = gpunn.distributed.TCPStore("localhost", 0, is_master=True)
    >>> other = gpunn.distributed.TCPStore("localhost", master.port)
    >>> other.set("a", "1")
    >>> master.get("a")
    b'1'
    >>> other.close()
    >>> master.close()
    """

    def __init__(
        self, host_name: str, port: int, world_size: int | None = None, is_master: bool = False,
        timeout: timedelta = timedelta(seconds=300), wait_for_workers: bool = True,
        multi_tenant: bool = False, master_listen_fd: int | None = None, use_libuv: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.set_timeout(timeout)
        if world_size == 0:
            raise ValueError("TCPStore world size cannot be 0")
        if not 0 <= port < 1 << 16:
            raise ValueError(f"port must have value from 0 to 65535 but was {port}.")
        self._server: Server | None = None
        if is_master:
            self._server = _servers.get(port) if multi_tenant else None
            if self._server is None:
                self._server = Server(_listener(host_name, port, master_listen_fd))
                _servers[self._server.port] = self._server
            port = self._server.port
        self.host, self.port = host_name, port
        self._lock, self._new = threading.Lock(), True
        self._socket: socket.socket | None = None
        self.add(INIT.decode(), 1)
        if is_master and wait_for_workers and world_size is not None and world_size > 0:
            self._wait_for_workers(world_size)

    def _wait_for_workers(self, world_size: int) -> None:
        deadline, pause = time.monotonic() + self._timeout.total_seconds(), 0.001
        while (joined := self.add(INIT.decode(), 0)) < world_size:
            if time.monotonic() > deadline:
                raise DistStoreError(
                    f"Timed out after {self._timeout.total_seconds():g} seconds waiting for "
                    f"clients. {joined}/{world_size} clients joined."
                )
            time.sleep(pause)
            pause = min(0.05, pause * 1.5)

    def _apply(self, name: str, items: Sequence[bytes], seconds: float = 0.0) -> list[bytes]:
        with self._lock:
            if self._socket is None:
                # Later, when a server is gone, there is no use in waiting for one.
                limit = self._timeout.total_seconds() if self._new else 0.0
                self._socket = sockets.connect(self.host, self.port, limit)
                self._new = False
            try:
                status, found = self._ask(pack(NUMBER[name], seconds, items), seconds)
            except BaseException:  # the answer to this would be read as the next one's
                self._socket.close()
                self._socket = None
                raise
        if status == LATE:
            raise _late(name, items, seconds)
        if status != DONE:
            raise (QueueEmptyError if status == EMPTY else DistStoreError)(found[0].decode())
        return found

    def _ask(self, request: bytes, seconds: float) -> tuple[int, list[bytes]]:
        assert self._socket is not None
        answer = bytearray()
        try:
            self._socket.settimeout(seconds + 60)  # a server that is alive answers in time
            self._socket.sendall(request)
            while (parts := unpack(answer)) is None:
                data = self._socket.recv(1 << 16)
                if not data:
                    raise ConnectionResetError(f"Failed to recv, got {len(answer)} bytes")
                answer += data
        except DistNetworkError:
            raise DistNetworkError(
                f"What listens at {self.host}:{self.port} is not gpunn's store: is another program "
                "at this MASTER_PORT, or at another MASTER_ADDR?"
            ) from None
        except OSError as error:
            raise DistNetworkError(
                f"{error}. The connection to the store at {self.host}:{self.port} was likely "
                "closed. Did the remote server shutdown or crash? It lives in the process of rank 0"
            ) from None
        return parts[0], parts[2]

    def clone(self) -> TCPStore:
        """A client of the same server over a connection of its own."""
        made = TCPStore.__new__(TCPStore)
        Store.__init__(made)
        made._timeout, made.host, made.port = self._timeout, self.host, self.port
        made._lock, made._socket, made._server = threading.Lock(), None, None
        made._new = False
        return made

    def close(self) -> None:
        """Ends the connection, and in the master the server, where no other store uses it."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        self._server = None

    def __del__(self) -> None:
        made = self.__dict__.get("_socket")
        if made is not None:
            made.close()

    def __repr__(self) -> str:
        server = f"TCPServer(port={self.port})" if self._server else "<nullptr>"
        return f"TCPStore(client=TCPClient({self.host}:{self.port}), server={server})"


def _listener(host: str, port: int, descriptor: int | None) -> socket.socket:
    """A socket that accepts connections, from this machine alone where the host is local."""
    if descriptor is not None:
        return socket.socket(fileno=descriptor)
    try:
        return sockets.listen(host if sockets.is_loopback(host) else "", port)
    except OSError as error:
        raise DistNetworkError(
            "The server socket has failed to listen on any local network address. "
            f"port: {port}, message: {error}"
        ) from None
