"""Batches on their way from a worker process to the loader's process.

A batch is pickled with its arrays out of band (PEP 574). Small ones go through the pipe with
the rest. Large ones are written to a segment of anonymous shared memory (Linux: a memfd, whose
descriptor is sent along once), and the reader's arrays are views of it: nothing is copied a
second time. When the last of them is gone the worker uses the segment again. Segments have no
names, so none can be left behind, whichever process is killed.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import sys
import traceback
import weakref
from collections.abc import Iterable
from multiprocessing import reduction
from typing import Any, NoReturn

import numpy as np

from gpunn.tensor import Tensor, wrap

HAS_SEGMENTS = hasattr(os, "memfd_create")
SMALL = 1 << 15  # bytes: arrays up to this travel through the pipe
ALIGN = 64


class Failure:
    """The exception being handled, its traceback as text, to be raised again elsewhere."""

    def __init__(self, where: str) -> None:
        kind: Any = sys.exc_info()[0]
        self.kind = kind
        self.message = f"Caught {kind.__name__} {where}.\nOriginal {traceback.format_exc()}"
        try:
            pickle.dumps(kind)
        except Exception:  # a class that the other process cannot import
            self.kind = RuntimeError

    def reraise(self) -> NoReturn:
        """Raises the exception's type with the original traceback in the message."""
        if issubclass(self.kind, StopIteration):  # would end the caller's loop without a word
            raise RuntimeError(self.message)
        message = _Shown(self.message) if self.kind is KeyError else self.message
        try:
            if getattr(self.kind, "message", None):
                error = self.kind(message=message)
            else:
                error = self.kind(message)
        except Exception:  # its constructor wants something else
            error = RuntimeError(message)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame, and what the callers' frames hold


class _Shown(str):
    """A message that KeyError, which shows the repr, shows as it is."""

    __repr__ = str.__str__


class Sender:
    """The worker's end: writes batches, keeps the segments that came back for the next ones."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.segments: list[mmap.mmap] = []
        self.free: set[int] = set()

    def send(self, key: Any, data: Any, where: str) -> None:
        """Sends `data` under `key`; where it cannot be pickled, the error in its place."""
        buffers: list[memoryview] = []
        try:
            body = _dumps(data, buffers)
        except Exception:
            buffers.clear()
            body = pickle.dumps(Failure(where))
        if not buffers:
            self.conn.send((key, body, None, 0, ()))
            return
        spans, end = [], 0
        for buffer in buffers:
            spans.append((end, end + buffer.nbytes))
            end += -(-buffer.nbytes // ALIGN) * ALIGN
        number, descriptor = self._segment(end)
        target = memoryview(self.segments[number])
        for (start, stop), buffer in zip(spans, buffers, strict=True):
            target[start:stop] = buffer
        size = 0 if descriptor is None else len(target)
        self.conn.send((key, body, number, size, spans))
        if descriptor is not None:
            reduction.send_handle(self.conn, descriptor, None)
            os.close(descriptor)

    def _segment(self, size: int) -> tuple[int, int | None]:
        """The number of a free segment of at least `size` bytes; its descriptor if it is new."""
        fitting = [number for number in self.free if len(self.segments[number]) >= size]
        if fitting:
            number = min(fitting, key=lambda n: len(self.segments[n]))
            self.free.remove(number)
            return number, None
        descriptor = os.memfd_create("gpunn-batch")
        # Powers of two: few sizes, which fit again. Pages that are not written take no memory.
        size = max(1 << (size - 1).bit_length(), mmap.PAGESIZE)
        os.ftruncate(descriptor, size)
        self.segments.append(mmap.mmap(descriptor, size))
        return len(self.segments) - 1, descriptor


class Receiver:
    """The loader's end. `lend` is the most segments that arrays may keep at once: what arrives
    beyond (a loop that collects all batches) is copied, so that descriptors stay few."""

    def __init__(self, conn: Any, lend: int) -> None:
        self.conn = conn
        self.lend = lend
        self.segments: dict[int, mmap.mmap] = {}
        self.lent: set[int] = set()
        self.returned: list[int] = []

    def receive(self) -> tuple[Any, Any]:
        """The next key and batch. EOFError or OSError where the worker is gone."""
        key, body, number, size, spans = self.conn.recv()
        buffers: Iterable[Any] = ()
        if number is not None:
            if size:
                descriptor = reduction.recv_handle(self.conn)
                self.segments[number] = mmap.mmap(descriptor, size)
                os.close(descriptor)
            whole = self._bytes(number, spans[-1][1]).data
            buffers = [whole[start:stop] for start, stop in spans]
        try:
            return key, pickle.loads(body, buffers=buffers)
        except Exception:
            return key, Failure("while unpickling a batch of a DataLoader worker")

    def _bytes(self, number: int, size: int) -> np.ndarray:
        """The first bytes of a segment, which goes back when the array is gone; or a copy."""
        whole = np.frombuffer(self.segments[number], np.uint8, size)
        if len(self.lent) >= self.lend:
            self.returned.append(number)
            return whole.copy()
        self.lent.add(number)
        weakref.finalize(whole, _give_back, number, self.lent, self.returned).atexit = False
        return whole

    def take_returned(self) -> list[int]:
        """The segments that came back since the last call, for `Sender.free`."""
        taken = self.returned[:]
        del self.returned[: len(taken)]
        return taken


def _give_back(number: int, lent: set[int], returned: list[int]) -> None:
    lent.discard(number)
    returned.append(number)


class _Pickler(pickle.Pickler):
    """Tensors as their own elements: the memory around a view stays behind."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not Tensor or obj.__dict__:
            return NotImplemented
        if obj.node is not None:
            raise RuntimeError(
                "Cowardly refusing to serialize non-leaf tensor which requires_grad, since "
                "autograd does not support crossing process boundaries. If you just want to "
                "transfer the data, call detach() on the tensor before returning it."
            )
        if obj.device.type == "cuda":
            raise RuntimeError(
                f"a DataLoader worker made a tensor on {obj.device}: workers are for the CPU; "
                f"move the batch with .to('{obj.device}') in the training loop"
            )
        array = obj.array
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            array = array.copy()
        # An array that exports no buffer (bfloat16) travels as its bits.
        bits = array.view(np.uint16) if array.dtype.kind == "V" else array
        return _tensor, (bits, obj.dtype, obj.device, obj.requires_grad)


def _tensor(bits: np.ndarray, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    array = bits.view(dtype.numpy)  # an unpickled array's dtype object is not NumPy's own
    out = wrap(array if array.flags.writeable else array.copy(), device)
    out._requires_grad = requires_grad
    return out


def _dumps(data: Any, buffers: list[memoryview]) -> bytes:
    """The pickle of `data`; the contents of its large arrays are added to `buffers`."""

    def keep_in_pickle(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if not HAS_SEGMENTS or raw.nbytes <= SMALL:
            return True
        buffers.append(raw)
        return False

    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=keep_in_pickle).dump(data)
    return file.getvalue()
