"""One call in one package, its outcome, and the comparison of two outcomes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from .compare import difference
from .convert import Missing, Package
from .report import Failure, Report, error_text


class Raised:
    """An exception as the outcome of a call."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def outcome(package: Package, fn: Callable, args: tuple = (), kwargs: dict | None = None) -> Any:
    """What a call returns, or Raised; the package's generator is seeded before."""
    try:
        package.begin((args, kwargs))
        made = fn(*args, **(kwargs or {}))
        package.settle()
        return made
    except Exception as error:
        return Raised(error)


def verdict(
    want: Any, got: Any, package: Package, factor: float = 1.0, values: bool = True
) -> str | None:
    """What differs between PyTorch's outcome and the other: results, or types of exceptions."""
    if isinstance(want, Raised):
        expected = error_class(package, type(want.error))
        short = f"{type(want.error).__name__}: {str(want.error)[:120]}"
        if not isinstance(got, Raised):
            return f"no error, PyTorch raises {short}"
        if not isinstance(got.error, expected):
            return f"{error_text(got.error)}, PyTorch raises {short}"
        return None
    if isinstance(got, Raised):
        return error_text(got.error)
    return difference(want, got, package, factor, values)


def error_class(package: Package, cls: type) -> type:
    """The exception class that stands for one of PyTorch's."""
    if cls.__module__.startswith("torch"):
        found = package.find(f"linalg.{cls.__name__.lstrip('_')}")
        return found if isinstance(found, type) else RuntimeError
    return RuntimeError if cls is NotImplementedError else cls


def check_error(
    report: Report, package: Package, case: Any, sample: str, theirs: Raised, mine: Any
) -> None:
    """One error input: the type must fit; where only the words differ, they are counted."""
    types = case.error_type if isinstance(case.error_type, tuple) else (case.error_type,)
    wanted = f"PyTorch raises {'/'.join(t.__name__ for t in types)}: {str(theirs.error)[:160]}"
    text = None
    if not isinstance(mine, Raised):
        text = f"no error, {wanted}"
    elif not isinstance(mine.error, tuple(error_class(package, t) for t in types)):
        text = f"{error_text(mine.error)}, {wanted}"
    if not report.check("error", None, sample, text):
        return
    alike = str(theirs.error) in str(mine.error)
    if not alike and not re.search(case.error_regex, str(mine.error), re.DOTALL):
        words = f"{error_text(mine.error)}, {wanted}"
        report.messages.append(Failure("words", "", sample, words))


def signature_difference(theirs: Callable, mine: Callable) -> str | None:
    """What differs between two signatures: names, order or defaults of PyTorch's parameters."""
    try:
        want = list(inspect.signature(theirs).parameters.values())
        got = inspect.signature(mine).parameters
    except (ValueError, TypeError):
        return None  # PyTorch's is written in C++
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in want):
        return None
    anything = any(p.kind == p.VAR_KEYWORD for p in got.values())
    order = [n for n, p in got.items() if p.kind != p.KEYWORD_ONLY]
    for i, p in enumerate(want):
        if p.kind == p.POSITIONAL_ONLY:
            continue
        if p.name not in got:
            if anything:
                continue
            return f"no parameter {p.name!r}"
        if p.kind == p.POSITIONAL_OR_KEYWORD and order[i : i + 1] != [p.name]:
            return f"{p.name!r} is not positional parameter {i}: {order}"
        if str(_plain(p.default)) != str(_plain(got[p.name].default)):
            return f"{p.name}={got[p.name].default}, PyTorch {p.name}={p.default}"
    return None


def _plain(default: Any) -> Any:
    """A default as something that prints alike in both packages."""
    return "<missing>" if isinstance(default, Missing) else getattr(default, "__name__", default)
