"""What a store is asked and answers, as bytes, and the table that does what is asked.

A request is a number for what to do, a time limit and a list of byte strings: the same over a
socket and in a file. Nothing is ever unpickled.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from gpunn.distributed.errors import DistNetworkError, DistStoreError, QueueEmptyError

NAMES = (
    "set", "get", "add", "compare_set", "wait", "check", "delete", "count", "append", "multi_get",
    "multi_set", "names", "push", "pop", "length", "below", "hello", "goodbye",
)  # fmt: skip
NUMBER = {name: number for number, name in enumerate(NAMES)}
CHANGES = frozenset(
    NUMBER[n] for n in ("set", "add", "compare_set", "delete", "append", "multi_set", "push", "pop")
)
DONE, LATE, EMPTY, WRONG = range(4)  # how a request ended
HEAD = struct.Struct("<IBdI")  # bytes that follow, what, seconds, number of strings
_LENGTH = struct.Struct("<I")
_LONGEST = 1 << 30
INIT = b"init/"  # counts the processes that are there; PyTorch's name


def pack(kind: int, seconds: float, items: Sequence[bytes]) -> bytes:
    """A request, or the answer to one, as bytes."""
    body = b"".join(_LENGTH.pack(len(item)) + item for item in items)
    return HEAD.pack(len(body), kind, seconds, len(items)) + body


def unpack(data: Any, start: int = 0) -> tuple[int, float, list[bytes], int] | None:
    """(kind, seconds, strings, where it ends) of what `pack` made; None where it is cut short."""
    if len(data) - start < HEAD.size:
        return None
    length, kind, seconds, count = HEAD.unpack_from(data, start)
    if length > _LONGEST or kind >= len(NAMES):
        raise DistNetworkError("a store got bytes that are no request")
    at = start + HEAD.size
    end = at + length
    if len(data) < end:
        return None
    items = []
    for _ in range(count):
        size = _LENGTH.unpack_from(data, at)[0] if at + _LENGTH.size <= end else _LONGEST
        at += _LENGTH.size + size
        if at > end:
            raise DistNetworkError("a store got bytes that are no request")
        items.append(bytes(data[at - size : at]))
    if at != end:
        raise DistNetworkError("a store got bytes that are no request")
    return kind, seconds, items, end


class Table:
    """The keys and values. A method returns the answer, or None where it has to wait for it."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.queues: dict[bytes, list[bytes]] = {}

    def apply(self, kind: int, items: Sequence[bytes]) -> list[bytes] | None:
        return getattr(self, NAMES[kind])(*items)

    def set(self, key: bytes, value: bytes) -> list[bytes]:
        self.values[key] = value
        return []

    def get(self, *keys: bytes) -> list[bytes] | None:
        return [self.values[k] for k in keys] if self._has(keys) else None

    multi_get = get

    def add(self, key: bytes, amount: bytes) -> list[bytes]:
        held = self.values.get(key, b"0")
        try:
            self.values[key] = b"%d" % (int(held) + int(amount))
        except ValueError:
            raise DistStoreError(f"add: key {key.decode()!r} holds {held!r}, no number") from None
        return [self.values[key]]

    def compare_set(self, key: bytes, expected: bytes, desired: bytes) -> list[bytes]:
        held = self.values.get(key)
        if held == expected or (held is None and not expected):
            held = self.values[key] = desired
        return [expected if held is None else held]

    def wait(self, *keys: bytes) -> list[bytes] | None:
        return [] if self._has(keys) else None

    def _has(self, keys: Sequence[bytes]) -> bool:
        return all(k in self.values or self.queues.get(k) for k in keys)

    def check(self, *keys: bytes) -> list[bytes]:
        return [b"1" if self._has(keys) else b"0"]

    def delete(self, key: bytes) -> list[bytes]:
        return [b"0" if self.values.pop(key, None) is None else b"1"]

    def count(self) -> list[bytes]:
        return [b"%d" % len(self.values)]

    def append(self, key: bytes, value: bytes) -> list[bytes]:
        self.values[key] = self.values.get(key, b"") + value
        return []

    def multi_set(self, *items: bytes) -> list[bytes]:
        self.values.update(zip(items[::2], items[1::2]))
        return []

    def names(self) -> list[bytes]:
        return [k for k in self.values if k != INIT]

    def push(self, key: bytes, value: bytes) -> list[bytes]:
        self.queues.setdefault(key, []).append(value)
        return []

    def pop(self, key: bytes, block: bytes) -> list[bytes] | None:
        if self.queues.get(key):
            return [self.queues[key].pop(0)]
        if block == b"1":
            return None
        raise QueueEmptyError(f"queue is empty: {key.decode()!r}")

    def length(self, key: bytes) -> list[bytes]:
        return [b"%d" % len(self.queues.get(key, ()))]

    def below(self, prefix: bytes, known: bytes) -> list[bytes] | None:
        pairs = [p for p in self.values.items() if p[0].startswith(prefix)]
        return [part for pair in pairs for part in pair] if len(pairs) > int(known) else None

    def hello(self, *keys: bytes) -> list[bytes]:  # it is the server that remembers them
        return []

    goodbye = hello
