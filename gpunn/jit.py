"""`torch.jit`: scripts that ask for TorchScript run as they are written, in Python.

There is no TorchScript here: what is scripted or traced is given back unchanged, and nothing
that a program asks (`is_scripting`, `is_tracing`) is ever so. Files are saved with `gpunn.save`.
Source: https://docs.pytorch.org/docs/stable/jit.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

__all__ = [
    "Final",
    "annotate",
    "export",
    "freeze",
    "ignore",
    "is_scripting",
    "is_tracing",
    "script",
    "script_if_tracing",
    "script_method",
    "trace",
    "unused",
]


def script(obj: Any, *args: Any, **kwargs: Any) -> Any:
    """The function, module or class itself; also a decorator.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.jit.script.html

    >>> @gpunn.jit.script
    ... def double(x):
    ...     return 2 * x
    >>> double(gpunn.ones(2))
    tensor([2., 2.])
    """
    return obj


def trace(func: Any, example_inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
    """The function or module itself: it is not run on the example.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.jit.trace.html

    >>> model = nn.Linear(2, 3)
    >>> gpunn.jit.trace(model, gpunn.ones(1, 2)) is model
    True
    """
    return func


def freeze(mod: Any, *args: Any, **kwargs: Any) -> Any:
    """The module itself.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.jit.freeze.html

    >>> gpunn.jit.freeze(nn.ReLU().eval())
    ReLU()
    """
    return mod


def ignore(drop: bool | Callable[..., Any] = False, **kwargs: Any) -> Any:
    """The method itself, or a decorator that gives it back.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.jit.ignore.html

    >>> gpunn.jit.ignore(drop=True)(abs)(-1)
    1
    """
    return drop if callable(drop) else (lambda function: function)


def unused(fn: Any) -> Any:
    """The method itself.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.jit.unused.html

    >>> gpunn.jit.unused(abs)(-1)
    1
    """
    return fn


def export(fn: Any) -> Any:
    """The method itself.

    Source: https://docs.pytorch.org/docs/stable/jit.html

    >>> gpunn.jit.export(abs)(-1)
    1
    """
    return fn


script_method = export
script_if_tracing = unused


def annotate(the_type: Any, the_value: Any) -> Any:
    """The value itself.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.jit.annotate.html

    >>> gpunn.jit.annotate(list[int], [])
    []
    """
    return the_value


def is_scripting() -> bool:
    """False: no code is compiled to TorchScript.

    Source: https://docs.pytorch.org/docs/stable/jit_language_reference.html

    >>> gpunn.jit.is_scripting()
    False
    """
    return False


def is_tracing() -> bool:
    """False: no code is traced.

    Source: https://docs.pytorch.org/docs/stable/jit_language_reference.html

    >>> gpunn.jit.is_tracing()
    False
    """
    return False
