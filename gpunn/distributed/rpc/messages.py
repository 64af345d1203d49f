"""What remote calls send: pickled objects, with the tensors in them linked to their graphs.

As with every pickle: only between processes that trust each other.
"""

from __future__ import annotations

import io
import itertools
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

from gpunn.autograd.graph import mode
from gpunn.distributed.autograd import contexts
from gpunn.distributed.autograd.contexts import Context, Origin
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.tensor import Tensor, wrap

_numbers = itertools.count(1)
_LARGE = 1 << 13  # bytes of an array that is not copied into the pickle


class _Reading(threading.local):
    """The message that this thread unpickles: its context, sender and number."""

    context: Context | None = None
    worker = 0
    message = 0


_reading = _Reading()


class _Pickler(pickle.Pickler):
    """Notes the tensors that need a gradient; takes the graph's part of others off."""

    def __init__(
        self, file: Any, context: Context | None, share: Callable[[Any], Any],
        apart: Callable[[pickle.PickleBuffer], bool],
    ):  # fmt: skip
        super().__init__(file, pickle.HIGHEST_PROTOCOL, buffer_callback=apart)
        self.context, self.share = context, share
        self.sent: list[Tensor] = []
        self.owned: set[Tensor] = set()  # parameters of modules that are sent: copied with them

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Module):
            self.owned.update(obj.parameters(), obj.buffers())
        if isinstance(obj, Tensor) and obj.requires_grad and obj not in self.owned:
            if self.context is None and isinstance(obj, Parameter):
                return NotImplemented
            plain = wrap(obj.array, obj.device)
            if self.context is None or not mode.grad:
                return _leaf, (plain,)
            self.sent.append(obj)
            return _arrived, (plain, len(self.sent) - 1)
        if type(obj) is Tensor and _is_small_part(obj.array):
            return wrap(obj.array.copy(), obj.device).__reduce_ex__(5)
        return self.share(obj)


def _is_small_part(array: Any) -> bool:
    """Whether it is a view of memory of which most would be sent for nothing."""
    base = array.base
    return base is not None and array.nbytes * 2 < getattr(base, "nbytes", 0) > _LARGE


def _leaf(tensor: Tensor) -> Tensor:
    tensor.requires_grad = True
    return tensor


def _arrived(tensor: Tensor, index: int) -> Tensor:
    if _reading.context is None:
        return _leaf(tensor)
    origin = Origin(_reading.worker, _reading.message, index)
    return contexts.received(_reading.context, tensor, origin)


def pack(
    obj: Any, context: Context | None, share: Callable[[Any], Any]
) -> tuple[list[Any], int]:
    """(the pickle and the memory of large arrays in it, the number of the message).

    `share` reduces what is not only data. The memory is that of the arrays themselves.
    """
    buffer, number, parts = io.BytesIO(), next(_numbers), []

    def apart(found: pickle.PickleBuffer) -> bool:
        raw = found.raw()
        if raw.nbytes >= _LARGE:
            parts.append(raw)
        return raw.nbytes < _LARGE

    pickler = _Pickler(buffer, context, share, apart)
    pickler.dump(obj)
    if context is not None and pickler.sent:
        with context.lock:
            context.sent[number] = pickler.sent
    return [buffer.getbuffer(), *parts], number


def unpack(parts: Sequence[Any], context: Context | None, worker: int, number: int) -> Any:
    """The object of a message that a worker sent; its large arrays are in the memory of `parts`."""
    before = _reading.context, _reading.worker, _reading.message  # unpickling may call others
    _reading.context, _reading.worker, _reading.message = context, worker, number
    try:
        return pickle.loads(parts[0], buffers=parts[1:])
    finally:
        _reading.context, _reading.worker, _reading.message = before
