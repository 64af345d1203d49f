"""Modules that run side by side, a thread for each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from typing import Any

from gpunn import cuda
from gpunn.amp.casts import state as autocast
from gpunn.autograd.graph import mode
from gpunn.device import Device, _stack, resolve
from gpunn.nn.parallel.comm import as_device
from gpunn.tensor import Tensor

__all__ = ["get_a_var", "parallel_apply"]

_side_streams: dict[tuple[Device, int], Any] = {}  # kept, as CuPy keeps a pool for each stream


def get_a_var(obj: Any) -> Tensor | None:
    """The first tensor in an object, looking into tuples, lists and dictionaries; or None.

    >>> from gpunn.nn.parallel.parallel_apply import get_a_var
    >>> get_a_var([1, {"x": gpunn.ones(1)}])
    tensor([1.])
    """
    return next(_tensors(obj), None)


def _tensors(obj: Any) -> Iterator[Tensor]:
    if isinstance(obj, Tensor):
        yield obj
    elif isinstance(obj, (list, tuple)):
        for part in obj:
            yield from _tensors(part)
    elif isinstance(obj, dict):
        yield from _tensors(list(obj.items()))


def parallel_apply(
    modules: Sequence[Any], inputs: Sequence[Any], kwargs_tup: Sequence[Any] | None = None,
    devices: Sequence[Any] | None = None,
) -> list[Any]:  # fmt: skip
    """The outputs of several modules, each run in a thread, on its own inputs and device.

    `inputs[i]` is a tuple or list of positional arguments, or the only one; a device that is None
    is that of the first tensor among the arguments. Threads have the caller's modes: recording of
    gradients, autocast, default devices, streams, context variables. A GPU named several times
    runs the later modules on streams of their own. An exception is raised again, of its type, its
    message the module's number, device and traceback. AssertionError for sequences of different
    lengths.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.DataParallel.html

    >>> layers = [nn.Linear(2, 3), nn.Linear(2, 4)]
    >>> [y.shape for y in nn.parallel.parallel_apply(layers, [gpunn.ones(1, 2)] * 2)]
    [torch.Size([1, 3]), torch.Size([1, 4])]
    """
    n = len(modules)
    kwargs_tup = [{}] * n if kwargs_tup is None else kwargs_tup
    devices = [None] * n if devices is None else devices
    for name, given in (("inputs", inputs), ("kwargs_tup", kwargs_tup), ("devices", devices)):
        if len(given) != n:
            raise AssertionError(
                f"The number of modules {n} is not equal to the number of {name} {len(given)}"
            )
    places = [_place(d, call) for d, *call in zip(devices, inputs, kwargs_tup, strict=True)]
    results: list[Any] = [None] * n
    failures: dict[int, Any] = {}

    def run(i: int, context: Callable[[], AbstractContextManager[None]]) -> None:
        args = inputs[i] if isinstance(inputs[i], (list, tuple)) else (inputs[i],)
        try:
            with context():
                results[i] = modules[i](*args, **kwargs_tup[i])
        except BaseException as error:  # also one that would end a thread without a word
            failures[i] = _failure(error, i, places[i])

    with _streams(places) as streams:
        if n == 1:
            run(0, lambda: cuda.stream(streams[0]))
        else:
            threads = [  # copy_context: NumPy's treatment of 1 / 0 is kept there, and users' own
                threading.Thread(target=copy_context().run, args=(run, i, _modes(streams[i])))
                for i in range(n)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    if failures:
        failures[min(failures)].reraise()
    return results


def _place(device: Any, call: Any) -> Device:
    if device is None:
        tensor = get_a_var(call)
        return resolve(None) if tensor is None else tensor.device
    return as_device(device)


def _failure(error: BaseException, i: int, place: Device) -> Any:
    """The exception being handled, with where it was met, to be raised in the caller's thread."""
    from gpunn.utils.data.transport import Failure  # its imports are slow

    name = place.index if place.type == "cuda" else place
    failure = Failure(f"in replica {i} on device {name}")
    failure.kind = type(error)  # also one that only this process knows
    return failure


# --- what threads do not inherit ----------------------------------------------------------


def _modes(stream: Any) -> Callable[[], AbstractContextManager[None]]:
    """A context, to be entered in another thread, with this thread's modes and a stream."""
    grad, inference, devices = mode.grad, mode.inference, list(_stack())
    casts = autocast.on, dict(autocast.dtype), autocast.cache_enabled

    @contextmanager
    def context() -> Iterator[None]:
        mode.grad, mode.inference = grad, inference  # the thread ends with the context
        _stack()[:] = devices
        on, autocast.dtype, autocast.cache_enabled = casts
        autocast.switch(on)
        try:
            with cuda.stream(stream):
                yield
        finally:
            autocast.switch(frozenset())  # all threads' states are counted

    return context


@contextmanager
def _streams(places: list[Device]) -> Iterator[list[Any]]:
    """The stream for each module: a GPU's current one, then others that wait for it before and
    that it waits for behind. None on the CPU."""
    streams: list[Any] = []
    pairs = []
    for i, place in enumerate(places):
        if place.type != "cuda":
            streams.append(None)
            continue
        current, before = cuda.current_stream(place), places[:i].count(place)
        if before:
            key = (place, before)
            side = _side_streams.get(key) or _side_streams.setdefault(key, cuda.Stream(place))
            side.wait_stream(current)
            pairs.append((current, side))
        streams.append(side if before else current)
    try:
        yield streams
    finally:
        for current, side in pairs:
            current.wait_stream(side)
