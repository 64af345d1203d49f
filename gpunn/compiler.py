"""`torch.compile` and `torch.compiler`: scripts that ask for compilation run as they are written.

There is no compiler here: a compiled function is the function itself, and a compiled module
calls the module. Names, arguments and state-dict keys are PyTorch's, so that checkpoints of
compiled models go from one to the other.
Source: https://docs.pytorch.org/docs/stable/torch.compiler_api.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from gpunn.nn.module import Module

__all__ = [
    "OptimizedModule",
    "allow_in_graph",
    "assume_constant_result",
    "compile",
    "cudagraph_mark_step_begin",
    "disable",
    "is_compiling",
    "is_dynamo_compiling",
    "is_exporting",
    "list_backends",
    "reset",
    "set_stance",
]

_MODES = ("default", "lite", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")


class OptimizedModule(Module):
    """What `compile` makes of a module: it calls the module, which it holds as `_orig_mod`.

    Attributes are read from and set on the module itself; state-dict keys begin with `_orig_mod.`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.compile.html

    >>> model = gpunn.compile(nn.Linear(2, 3))
    >>> list(model.state_dict())
    ['_orig_mod.weight', '_orig_mod.bias']
    >>> model.in_features, model._orig_mod
    (2, Linear(in_features=2, out_features=3, bias=True))
    """

    def __init__(self, mod: Module) -> None:
        super().__init__()
        self._orig_mod = mod

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output."""
        return self._orig_mod(*args, **kwargs)

    @property
    def training(self) -> bool:  # type: ignore[override]
        """Whether the module is in training mode.

        >>> gpunn.compile(nn.ReLU().eval()).training
        False
        """
        return self._orig_mod.training

    @training.setter
    def training(self, mode: bool) -> None:
        original = self.__dict__.get("_orig_mod")
        if original is not None:  # Module's own __init__ comes before the module is known
            original.training = mode

    def __setattr__(self, name: str, value: Any) -> None:
        own = name in self.__dict__ or name in ("_orig_mod", "training")
        if own or "_orig_mod" not in self.__dict__:
            super().__setattr__(name, value)
        else:
            setattr(self._orig_mod, name, value)


def _of_the_module(self: OptimizedModule, name: str) -> Any:
    if "_orig_mod" not in self.__dict__:  # while it is copied or unpickled
        raise AttributeError(f"'OptimizedModule' object has no attribute '{name}'")
    return getattr(self._orig_mod, name)


# Not in the class's body: there it would give a __getattr__, and its cost, to all modules.
OptimizedModule.__getattr__ = _of_the_module  # type: ignore[assignment, method-assign]


def compile(
    model: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] | None = None,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    disable: bool = False,
    recompile_limit: int | None = None,
    isolate_recompiles: bool = False,
    shapes_spec: Any = None,
) -> Any:
    """The function itself, or an `OptimizedModule` that calls the module: nothing is compiled.

    Also a decorator, with or without arguments. The arguments change nothing; an unknown `mode`,
    or `mode` beside `options`, raises RuntimeError, and what cannot be called TypeError.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.compile.html

    >>> @gpunn.compile(mode="max-autotune")
    ... def double(x):
    ...     return 2 * x
    >>> double(gpunn.ones(2))
    tensor([2., 2.])
    """
    if mode is not None and options is not None:
        raise RuntimeError(
            "Either mode or options can be specified, but both can't be specified at the same time."
        )
    if mode is not None and mode not in _MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(_MODES)}")
    if model is None:
        return compile
    if not callable(model):
        raise TypeError(f"compile: a callable function is expected, but {type(model)} is provided.")
    if not isinstance(model, Module) or isinstance(model, OptimizedModule) or disable:
        return model
    return OptimizedModule(model)


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """`fn` itself, or a decorator that gives it back: nothing is compiled anyway.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.compiler.disable.html

    >>> @gpunn.compiler.disable(recursive=False)
    ... def f(x):
    ...     return x + 1
    >>> f(1)
    2
    """
    return (lambda function: function) if fn is None else fn


def allow_in_graph(fn: Any) -> Any:
    """`fn` itself.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.compiler.allow_in_graph.html

    >>> gpunn.compiler.allow_in_graph(abs)(-1)
    1
    """
    return fn


def assume_constant_result(fn: Any) -> Any:
    """`fn` itself, called each time.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.compiler.assume_constant_result.html

    >>> gpunn.compiler.assume_constant_result(abs)(-1)
    1
    """
    return fn


def is_compiling() -> bool:
    """False: no code runs while it is traced.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.compiler.is_compiling.html

    >>> gpunn.compiler.is_compiling()
    False
    """
    return False


is_dynamo_compiling = is_compiling
is_exporting = is_compiling


def list_backends(exclude_tags: Any = ("debug", "experimental")) -> list[str]:
    """The compilers that are here: none.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.compiler.list_backends.html

    >>> gpunn.compiler.list_backends()
    []
    """
    return []


def reset() -> None:
    """Does nothing: there are no compiled functions to forget.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.compiler.reset.html

    >>> gpunn.compiler.reset()
    """


def cudagraph_mark_step_begin() -> None:
    """Does nothing: no CUDA graph is recorded behind a function's back.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.compiler.cudagraph_mark_step_begin.html

    >>> gpunn.compiler.cudagraph_mark_step_begin()
    """


@contextlib.contextmanager
def _unchanged() -> Any:
    yield


def set_stance(stance: Any = "default", **options: Any) -> Any:
    """A call, a context manager or a decorator that changes nothing.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.compiler.set_stance.html

    >>> with gpunn.compiler.set_stance("force_eager"):
    ...     gpunn.compile(abs)(-2)
    2
    """
    return _unchanged()
