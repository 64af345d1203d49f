"""Switches of PyTorch's that scripts set once: precision of products, determinism, warnings.

Sums here have a fixed order wherever it does not say otherwise, and float32 is multiplied as
float32, so most of them change nothing but what they return.
"""

from __future__ import annotations

import warnings


class _Settings:
    precision = "highest"
    deterministic = False
    warn_only = False
    warn_always = False
    interop_threads = 1


_now = _Settings()


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` set: "highest", "high" or "medium".

    >>> gpunn.get_float32_matmul_precision()
    'highest'
    """
    return _now.precision


def set_float32_matmul_precision(precision: str) -> None:
    """How exactly float32 matrices must be multiplied: "highest", "high" or "medium".

    A lower precision is a permission, which is not used here. Another word warns, as in PyTorch.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.set_float32_matmul_precision.html

    >>> gpunn.set_float32_matmul_precision("highest")
    """
    if precision not in ("highest", "high", "medium"):
        warnings.warn(
            f"{precision} is not one of 'highest', 'high', or 'medium'; the current "
            "set_float32_matmul_precision call has no effect.",
            stacklevel=2,
        )
        return
    _now.precision = precision


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Whether operations must give the same bits each time; TypeError for what is no bool.

    On the CPU they always do. On a GPU, sums at repeated indices (embedding gradients, index_add,
    scatter_add, ...) take their fixed order, writes at repeated indices let the last one win, and
    the few operations without a fixed form raise a RuntimeError, or warn with `warn_only`: running
    sums and products of floats. New memory is filled (`gpunn.utils.deterministic`).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html

    >>> gpunn.use_deterministic_algorithms(False)
    """
    if not isinstance(mode, bool):
        raise TypeError(
            f"use_deterministic_algorithms(): argument 'mode' must be bool, not "
            f"{type(mode).__name__}"
        )
    _now.deterministic, _now.warn_only = mode, warn_only


def alert_not_deterministic(name: str) -> None:
    """Called by an operation that has no deterministic form: raises or warns where one is asked."""
    if not _now.deterministic:
        return
    words = f"{name} does not have a deterministic implementation, but you set "
    if _now.warn_only:
        words += "'torch.use_deterministic_algorithms(True, warn_only=True)'."
        warnings.warn(words, stacklevel=4)
        return
    raise RuntimeError(
        words + "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for "
        "this operation, or use the 'warn_only=True' option, if that's acceptable for your "
        "application."
    )


def are_deterministic_algorithms_enabled() -> bool:
    """What `use_deterministic_algorithms` set.

    >>> gpunn.are_deterministic_algorithms_enabled()
    False
    """
    return _now.deterministic


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether operations without a deterministic form only warn."""
    return _now.deterministic and _now.warn_only


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """0 or "default", 1 or "warn", 2 or "error": another way to say it.

    RuntimeError for anything else.
    """
    names = ("default", "warn", "error")
    if isinstance(debug_mode, str):
        if debug_mode not in names:
            raise RuntimeError(
                "invalid value of debug_mode, expected one of `default`, `warn`, `error`, but got "
                f"{debug_mode}"
            )
        debug_mode = names.index(debug_mode)
    if debug_mode not in (0, 1, 2):
        raise RuntimeError(
            f"invalid value of debug_mode, expected 0, 1, or 2, but got {debug_mode}"
        )
    use_deterministic_algorithms(debug_mode > 0, warn_only=debug_mode == 1)


def get_deterministic_debug_mode() -> int:
    """0, 1 or 2, as `set_deterministic_debug_mode` takes them."""
    return 0 if not _now.deterministic else 1 if _now.warn_only else 2


def set_flush_denormal(mode: bool, /) -> bool:
    """Whether denormal numbers are taken for zero. Not supported: returns False, as PyTorch does
    on processors without it."""
    return False


def set_warn_always(b: bool, /) -> None:
    """Whether warnings of operations show each time; Python's own filters decide here, too."""
    _now.warn_always = bool(b)


def is_warn_always_enabled() -> bool:
    """What `set_warn_always` set."""
    return _now.warn_always


def set_num_interop_threads(n: int, /) -> None:
    """How many operations may run side by side. They run one after another here."""
    if n <= 0:
        raise RuntimeError(f"set_num_interop_threads expects a positive integer, got {n}")
    _now.interop_threads = n


def get_num_interop_threads() -> int:
    """What `set_num_interop_threads` set."""
    return _now.interop_threads


__all__ = [
    "are_deterministic_algorithms_enabled", "get_deterministic_debug_mode",
    "get_float32_matmul_precision", "get_num_interop_threads",
    "is_deterministic_algorithms_warn_only_enabled", "is_warn_always_enabled",
    "set_deterministic_debug_mode", "set_float32_matmul_precision", "set_flush_denormal",
    "set_num_interop_threads", "set_warn_always", "use_deterministic_algorithms",
]  # fmt: skip
