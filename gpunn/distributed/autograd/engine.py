"""The backward pass over several workers, in two rounds.

First each worker finds out which messages its roots lead to, and how many of its own graphs lead to
each (`plan`). Then gradients flow (`run`): those of a message go back to its sender once all of
these graphs have been walked, so that each message goes once, however often graphs branch and meet.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from gpunn.distributed.autograd import contexts
from gpunn.distributed.autograd.contexts import Context, Key
from gpunn.distributed.rpc.agent import agent, is_running, later
from gpunn.futures import Future, collect_all
from gpunn.tensor import Tensor

_counter = itertools.count(1)
_ROOTS = 0  # in place of a message's number: what `backward` was called with


def backward(context: Context, roots: Sequence[Tensor]) -> None:
    """Adds to the gradients of a context on all workers; returns when all are done."""
    number = (agent().info.id << 48) | next(_counter)
    try:
        _plan(context, number, _ROOTS, roots).wait()
        _run(context, number, _ROOTS, roots, [None] * len(roots)).wait()
    finally:
        context.passes.pop(number, None)


def _plan(context: Context, number: int, source: int, roots: Sequence[Tensor]) -> Future[Any]:
    new = contexts.plan(context, number, source, roots)
    return _ask(context, number, {key: _plan_here for key in new}, {})


def _run(
    context: Context, number: int, source: int, roots: Sequence[Tensor],
    grads: Sequence[Tensor | None],
) -> Future[Any]:  # fmt: skip
    ready = contexts.run(context, number, source, roots, grads)
    return _ask(context, number, {key: _run_here for key in ready}, ready)


def _ask(context: Context, number: int, tasks: dict[Key, Any], parts: dict[Key, Any]) -> Any:
    """A future of what other workers do for a pass, all at once."""
    me = agent()
    return collect_all([
        me.call_later(
            me.worker(key.worker),
            (task, (context.number, number, key.message, *((parts[key],) if parts else ())), {}),
            0.0, None,
        )
        for key, task in tasks.items()
    ]).then(_nothing)  # fmt: skip


def _nothing(future: Future[Any]) -> None:
    future.value()  # raises the error that there may be


@later
def _plan_here(context_id: int, number: int, message: int) -> Future[Any]:
    context = contexts.find(context_id)
    return _plan(context, number, message, context.sent[message])


@later
def _run_here(context_id: int, number: int, message: int, part: dict[int, Tensor]) -> Future[Any]:
    """Gradients of tensors that this worker sent: its part of the backward pass."""
    context = contexts.find(context_id)
    tensors = context.sent[message]
    grads = [g.detach() for g in part.values()]  # type: ignore[attr-defined]
    return _run(context, number, message, [tensors[place] for place in part], grads)


def release(number: int) -> None:
    """Forgets a context here and on the workers that took part in it."""
    workers = contexts.release(number)
    if is_running():
        me = agent()
        for rank in workers - {me.info.id}:
            me.call_later(me.worker(rank), (release, (number,), {}), context=None)
