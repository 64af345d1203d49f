"""How a listed operation is told its dtype: the state of autocast, its casts and their cache.

An operation on a list (lists.py) says its name in one line. The quick ones cast their operands
themselves, `if AUTOCAST: a, b = casts("matmul", a, b)`; the others are decorated,
`@autocasts("cdist")`. Outside of all contexts AUTOCAST is an empty list, and that test is all
that autocast costs.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gpunn import dtypes
from gpunn.amp.lists import AS_IS, BANNED, FIRST, FLOAT, FLOAT_SUM, LOW, NAMES, POLICIES
from gpunn.autograd.graph import mode, version
from gpunn.ops._operands import cast
from gpunn.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])

AUTOCAST: list[Any] = []  # the threads' states in which autocast is on


class _State(threading.local):
    """This thread's settings. `on` holds the device types that are casting just now."""

    def __init__(self) -> None:
        self.on: frozenset[str] = frozenset()
        self.dtype = {"cpu": dtypes.bfloat16, "cuda": dtypes.float16}
        self.cache_enabled = True
        self.nesting = 0
        self.cache: dict[Any, tuple[Any, ...]] = {}
        self.token = object()

    def switch(self, on: frozenset[str]) -> None:
        """Sets the device types that cast."""
        if bool(on) != bool(self.on):
            AUTOCAST.append(self.token) if on else AUTOCAST.remove(self.token)
        self.on = on


state = _State()


def autocast_is_on(kind: str | None = None) -> bool:
    """Whether this thread is inside of autocast for a type of device, for any without one."""
    return bool(AUTOCAST) and (kind in state.on if kind else bool(state.on))


def settings() -> tuple[frozenset[str], dict[str, dtypes.dtype]]:
    """What this thread casts, for `as_set`."""
    return state.on, dict(state.dtype)


@contextlib.contextmanager
def as_set(kept: tuple[frozenset[str], dict[str, dtypes.dtype]]) -> Iterator[None]:
    """A block with autocast as `settings` found it, that neither takes casts from the cache nor
    leaves any there: run again, it records the same operations."""
    on, dtype, cached = state.on, state.dtype, state.cache_enabled
    state.switch(kept[0])
    state.dtype, state.cache_enabled = dict(kept[1]), False
    try:
        yield
    finally:
        state.switch(on)
        state.dtype, state.cache_enabled = dtype, cached


def uncast(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The function with autocast off: in-place forms compute in the dtypes that they are given."""
    before = state.on
    state.switch(frozenset())
    try:
        return function(*args, **kwargs)
    finally:
        state.switch(before)


def casts(name: str, *values: Any) -> Any:
    """The operands of a listed operation, each in the dtype that it is to be computed in."""
    if not state.on:  # but another thread's is
        return values
    kind = _device_type(values)
    policy = POLICIES[kind].get(name) if kind in state.on else None
    return values if policy is None else _cast_all(values, _target(policy, kind, values), kind)


def casts_one(name: str, value: Any) -> Any:
    """`casts` of a single operand."""
    return casts(name, value)[0]


def autocasts(name: str) -> Callable[[F], F]:
    """Declares that autocast chooses the dtype of an operation, which is `name` in lists.py.

    Inside of the operation autocast is off for the device type. A call with `out=` computes in
    the dtypes that it is given.
    """
    assert name in NAMES, name

    def declare(function: F) -> F:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            if AUTOCAST and state.on and kwargs.get("out") is None:
                return _run(name, function, args, kwargs)
            return function(*args, **kwargs)

        return run  # type: ignore[return-value]

    return declare


def _run(name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    values = (*args, *kwargs.values())
    kind = _device_type(values)
    policy = POLICIES[kind].get(name) if kind in state.on else None
    if policy is None:
        return function(*args, **kwargs)
    chosen = policy == FLOAT_SUM and any(type(v) is dtypes.dtype for v in values)
    if policy != AS_IS and not chosen:
        values = _cast_all(values, _target(policy, kind, values), kind)
    split = len(args)
    before = state.on
    state.switch(before - {kind})
    try:
        return function(*values[:split], **dict(zip(kwargs, values[split:], strict=True)))
    finally:
        state.switch(before)


def _device_type(values: Any) -> str:
    """The device type that an operation on these works on: "cuda" where any tensor is there."""
    for v in values:
        if isinstance(v, (list, tuple)):
            if _device_type(v) == "cuda":
                return "cuda"
        elif isinstance(v, Tensor) and v.device.type == "cuda":
            return "cuda"
    return "cpu"


def _eligible(value: Any, kind: str) -> bool:
    """Whether autocast may cast it: floating, not float64, on a device of that type."""
    return (
        isinstance(value, Tensor) and value.device.type == kind and not value.is_sparse
        and value.array.dtype.kind in "fV" and value.array.dtype.itemsize < 8
    )  # fmt: skip


def _target(policy: str, kind: str, values: Any) -> dtypes.dtype:
    """The dtype that a policy casts these operands to."""
    if policy == LOW:
        return state.dtype[kind]
    if policy in (FLOAT, FLOAT_SUM):
        return dtypes.float32
    if policy == FIRST:
        return next((v.dtype for v in values if _eligible(v, kind)), dtypes.float32)
    if policy == BANNED:
        raise RuntimeError(_BANNED)
    return _widest(state.dtype[kind], kind, values)


def _widest(low: dtypes.dtype, kind: str, values: Any) -> dtypes.dtype:
    found = low
    for v in values:
        if isinstance(v, (list, tuple)):
            found = _widest(found, kind, v)
        elif _eligible(v, kind) and v.dtype is not found and found is not dtypes.float32:
            if v.dtype is not dtypes.float32:
                raise RuntimeError(
                    f"Unexpected floating ScalarType in at::autocast::prioritize: {v.dtype}, in a "
                    f"context whose dtype is {low}. Cast the operand to {low} or float32."
                )
            found = dtypes.float32
    return found


def _cast_all(values: Any, to: dtypes.dtype, kind: str) -> Any:
    return type(values)(
        _cast_all(v, to, kind) if type(v) in (list, tuple) else
        _cached_cast(v, to, kind) if _eligible(v, kind) else v
        for v in values
    )  # fmt: skip


def _cached_cast(x: Tensor, to: dtypes.dtype, kind: str) -> Tensor:
    """x in another dtype; of a float32 leaf that needs a gradient, one cast for all its uses."""
    numpy = to.numpy
    if x.array.dtype is numpy or x.array.dtype == numpy:
        return x
    if not (
        x._requires_grad and x.node is None and x._base is None and state.cache_enabled
        and x.array.dtype is dtypes.F32 and to is state.dtype[kind]
    ):  # fmt: skip
        return cast(x, numpy)
    key = id(x), mode.grad, to  # a cast made under no_grad would let no gradient through
    now = x, x.array, version(x)  # a parameter that changed since is cast anew
    found = state.cache.get(key)
    if found is not None and found[1] is now[1] and found[2] == now[2]:
        return found[3]
    made = cast(x, numpy)
    state.cache[key] = (*now, made)
    return made


_BANNED = (
    "gpunn.nn.functional.binary_cross_entropy and gpunn.nn.BCELoss are unsafe to autocast.\n"
    "Many models use a sigmoid layer right before the binary cross entropy layer.\n"
    "In this case, combine the two layers using "
    "gpunn.nn.functional.binary_cross_entropy_with_logits\n"
    "or gpunn.nn.BCEWithLogitsLoss.  binary_cross_entropy_with_logits and BCEWithLogits are\n"
    "safe to autocast."
)
