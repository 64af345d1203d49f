"""How functions are observed while a profiler is on, without a cost while it is off.

A function's code object is exchanged for one that calls an observer. So every reference to the
function is reached, also those that modules and scripts keep (`self.activation = F.relu`), and a
function that is switched back is what it was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

Observer = Callable[[tuple[Any, ...], dict[str, Any]], Any]
FILE = "<profiler>"  # where the exchanged code says that it is from


@functools.cache
def _template(free: int) -> CodeType:
    """The code of a function with so many free variables that calls the constant "observer"."""
    names = [f"f{i}" for i in range(free)]
    text = (
        f"def outer({', '.join(names)}):\n"
        "    def call(*args, **kwargs):\n"
        f"        {'nonlocal ' + ', '.join(names) if names else 'pass'}\n"
        "        observer = 'observer'\n"
        "        return observer(args, kwargs)\n"
        "    return call\n"
    )
    made: dict[str, Any] = {}
    exec(compile(text, FILE, "exec"), made)
    return made["outer"](*names).__code__


def twin(function: FunctionType) -> FunctionType:
    """A function that does the same and is not observed."""
    made = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    made.__kwdefaults__ = function.__kwdefaults__
    return made


class Switches:
    """The functions that are observed now; `off` gives all of them their own code again."""

    def __init__(self) -> None:
        self.codes: list[tuple[FunctionType, CodeType]] = []

    def on(self, function: FunctionType, observer: Observer) -> None:
        """Calls `observer(args, kwargs)` in the place of a function, for which it answers."""
        code = _template(len(function.__code__.co_freevars))
        constants = tuple(observer if c == "observer" else c for c in code.co_consts)
        self.codes.append((function, function.__code__))
        function.__code__ = code.replace(co_consts=constants, co_name=function.__name__)

    def off(self) -> None:
        while self.codes:
            function, code = self.codes.pop()
            function.__code__ = code
