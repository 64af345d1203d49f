"""How launches run: which build, in which order, how long at most."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

ORDERS = ("forward", "reverse", "random")


class EmulatorError(RuntimeError):
    """What a kernel, or the launch of one, did wrong."""


class Settings(NamedTuple):
    check: bool = False
    order: str = "forward"
    seed: int = 0
    timeout: int = 60


_stack = [Settings()]


def now() -> Settings:
    """The settings of the innermost context, of any thread."""
    return _stack[-1]


@contextlib.contextmanager
def settings(**changes):
    """A context in which launches run otherwise.

    check: in the build that looks at every access to memory. order: of threads and blocks, one of
    "forward", "reverse", "random". seed: of the random order. timeout: seconds of processor
    time that one launch may take. What is not named stays as it is.
    """
    changed = _stack[-1]._replace(**changes)
    if changed.order not in ORDERS:
        raise ValueError(f"settings: order must be one of {ORDERS}, got {changed.order!r}")
    if int(changed.timeout) < 1:
        raise ValueError(f"settings: timeout must be at least 1 second, got {changed.timeout!r}")
    _stack.append(changed)
    try:
        yield changed
    finally:
        _stack.pop()
