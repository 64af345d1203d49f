"""Contexts of distributed autograd: which tensors went from worker to worker, and gradients.

A tensor that requires a gradient and is sent within a context becomes, where it arrives, a leaf of
the graph there. Its gradient goes back to the sender, whose graph it goes on through. Gradients of
other leaves add up in the context, each worker's in its own.
"""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpunn.autograd import grad as gradients_of
from gpunn.autograd.graph import result, vertex, vjp
from gpunn.autograd.walk import leaf_uses
from gpunn.tensor import Tensor, wrap


class Origin(NamedTuple):
    """Where a tensor came from: the worker, its message, the tensor's number in that."""

    worker: int
    message: int
    place: int


class Key(NamedTuple):
    """A message that a worker sent, as its receiver calls it."""

    worker: int
    message: int


class Pass:
    """What one backward pass knows on one worker. A source is a message that this worker sent, or
    0 for the roots: something that gradients begin from here."""

    def __init__(self) -> None:
        self.leaves: dict[int, list[Tensor]] = {}  # by source
        self.leads: dict[int, set[Key]] = {}  # by source: the messages from others
        self.missing: dict[Key, int] = {}  # how many sources are still to be walked
        self.parts: dict[Key, dict[int, Tensor]] = {}  # gradients, by the tensor's place


class Context:
    """One forward and backward pass over several workers, on one of them."""

    def __init__(self, number: int):
        self.number = number
        self.sent: dict[int, list[Tensor]] = {}  # by message
        self.received: dict[Tensor, Origin] = {}
        self.gradients: dict[Tensor, Tensor] = {}
        self.workers: set[int] = set()  # who else takes part, as far as this worker knows
        self.passes: dict[int, Pass] = {}
        self.lock = threading.Lock()


class _Current(threading.local):
    context: Context | None = None


current = _Current()
_known: dict[int, Context] = {}
_ended: collections.deque[int] = collections.deque(maxlen=1000)  # for calls that come after that
_lock = threading.Lock()
_counter = itertools.count(1)


def new(worker: int) -> Context:
    """A context that begins on this worker."""
    made = Context((worker << 48) | next(_counter))
    with _lock:
        _known[made.number] = made
    return made


def find(number: int, create: bool = False) -> Context:
    """The context of a number; RuntimeError where there is none here."""
    with _lock:
        found = _known.get(number)
        if found is None:
            if not create:
                raise RuntimeError(f"Could not find autograd context with id: {number}")
            found = Context(number)
            if number not in _ended:
                _known[number] = found
        return found


def release(number: int) -> set[int]:
    """Forgets a context; the workers that took part in it."""
    with _lock:
        found = _known.pop(number, None)
        _ended.append(number)
    return set() if found is None else found.workers


@vjp((), name="RecvRpcBackward")
def _received_vjp(g: Any) -> Any:
    return g


def received(context: Context, tensor: Tensor, origin: Origin) -> Tensor:
    """A tensor that arrived: an operation on a leaf, whose gradient belongs to the sender."""
    leaf = wrap(tensor.array, tensor.device)
    leaf.requires_grad = True
    with context.lock:
        context.received[leaf] = origin
    return result(leaf.array, leaf, _received_vjp, (leaf,))


def leaves(roots: Sequence[Tensor]) -> list[Tensor]:
    """The leaves that the roots were computed from."""
    return list(leaf_uses([vertex(t) for t in roots if t.requires_grad]))


def plan(context: Context, number: int, source: int, roots: Sequence[Tensor]) -> list[Key]:
    """Notes what a source leads to, for a backward pass; the messages that no other one led to."""
    wrt = leaves(roots)
    with context.lock:
        now = context.passes.setdefault(number, Pass())
        found = [context.received[leaf] for leaf in wrt if leaf in context.received]
        now.leaves[source] = wrt
        now.leads[source] = {Key(origin.worker, origin.message) for origin in found}
        new = [key for key in now.leads[source] if key not in now.missing]
        for key in now.leads[source]:
            now.missing[key] = now.missing.get(key, 0) + 1
    return new


def run(
    context: Context, number: int, source: int, roots: Sequence[Tensor],
    grads: Sequence[Tensor | None],
) -> dict[Key, dict[int, Tensor]]:  # fmt: skip
    """Walks a source's graph: adds to the context's gradients, and returns the messages that no
    other source has still to add to, with their gradients by the tensor's place."""
    now = context.passes[number]
    wrt = now.leaves[source]
    found = gradients_of(roots, wrt, grads, retain_graph=True, allow_unused=True) if roots else ()
    with context.lock:
        for leaf, g in zip(wrt, found or [None] * len(wrt), strict=True):
            if g is None:
                continue
            origin = context.received.get(leaf)
            if origin is None:
                _add(context.gradients, leaf, g)
            else:
                _add(now.parts.setdefault(Key(*origin[:2]), {}), origin.place, g)
        for key in now.leads[source]:
            now.missing[key] -= 1
        ready = [key for key in now.leads[source] if not now.missing[key]]
        return {key: now.parts.pop(key, {}) for key in ready}


def _add(sums: dict[Any, Tensor], key: Any, g: Tensor) -> None:
    sums[key] = sums[key] + g if key in sums else g  # type: ignore[operator]
