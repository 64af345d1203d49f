"""One forward of a model, recorded module by module, that leaves the model as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpunn import autograd
from gpunn.generator import defaults
from gpunn.multiply_adds import multiply_adds
from gpunn.nn.module_members import BUFFER, PARAMETER
from gpunn.nn.parameter import is_lazy
from gpunn.tensor import Tensor

__all__ = ["Calls", "record", "tensors_in"]


@dataclass
class Calls:
    """What the calls of one module came to, those of the modules inside included."""

    times: int = 0
    input: str = ""  # of the first call, as `shapes` shows it, like the output
    output: str = ""
    multiply_adds: int = 0
    memory: int = 0  # bytes of the outputs of the innermost modules
    unknown: bool = False  # it computes with parameters of its own, in a way that is not known


@dataclass
class _Running:
    """A call that has begun."""

    path: str
    multiply_adds: int = 0
    memory: int = 0
    inner: bool = False


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and dictionaries.

    >>> from gpunn.model_recorder import tensors_in
    >>> len(tensors_in({"a": gpunn.ones(1), "b": [gpunn.ones(2), 3]}))
    2
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def shapes(value: Any) -> str:
    """The shapes of a result, as text: `(2, 3)`, `[(2, 3), (1,)]`, `{logits: (2, 3)}`."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shapes(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(shapes, value)) + "]"
    return type(value).__name__


def _memory_of(array: Any) -> int:
    """Which memory an array is a view of."""
    while getattr(array, "base", None) is not None and hasattr(array.base, "shape"):
        array = array.base
    return id(array)


def _new_bytes(args: Any, kwargs: Any, out: Any) -> int:
    """The bytes of the tensors in a result that are no views of the inputs."""
    known = {_memory_of(t.array) for t in tensors_in([args, kwargs])}
    new = [t for t in tensors_in(out) if _memory_of(t.array) not in known]
    return sum(t.array.nbytes for t in new)


class _Recorder:
    """The hooks of one forward."""

    def __init__(self) -> None:
        self.calls: dict[int, Calls] = {}
        self.running: list[_Running] = []
        self.paused = False

    def watch(self, module: Any, path: str) -> list[Any]:
        """Hooks a module; returns the handles."""

        def before(module: Any, args: Any, kwargs: Any) -> None:
            if not self.paused:
                self.running.append(_Running(path))

        def after(module: Any, args: Any, kwargs: Any, out: Any) -> None:
            if not self.paused:
                self.paused = True  # a rule that reads a parametrized weight is no call
                self._finish(module, args, kwargs, out)
                self.paused = False

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        ]

    def _finish(self, module: Any, args: Any, kwargs: Any, out: Any) -> None:
        call = self.running.pop()
        found = self.calls.setdefault(id(module), Calls())
        cost, memory = multiply_adds(module, args, kwargs, out), call.memory
        if cost is not None or not call.inner:
            memory += _new_bytes(args, kwargs, out)
        if cost is None:
            cost = call.multiply_adds
            found.unknown |= bool(list(module.parameters(recurse=False)))
        if not found.times:
            found.input = ", ".join(map(shapes, (*args, *kwargs.values())))
            found.output = shapes(out)
        found.times += 1
        found.multiply_adds += cost
        found.memory += memory
        if self.running:
            outer = self.running[-1]
            outer.multiply_adds += cost
            outer.memory += memory
            outer.inner = True


@contextlib.contextmanager
def restored(model: Any) -> Iterator[None]:
    """Puts everything back that a forward in eval mode can change, except lazy parameters."""
    modules = list(model.modules())
    lazy = {m for m in modules if any(is_lazy(p) for p in m.__dict__.values())}
    states = [(m, dict(m.__dict__), dict(m._roles)) for m in modules if m not in lazy]
    modes = [(m, m.training) for m in lazy]
    copies = [(t, t.array.copy()) for m, _, _ in states for t in _changeable(m)]
    drawn = [(generator, generator.get_state()) for generator in list(defaults.values())]
    try:
        yield
    finally:
        for module, values, roles in states:
            module.__dict__.clear()
            module.__dict__.update(values)
            module._roles.clear()
            module._roles.update(roles)
        for module, mode in modes:
            module.training = mode
        for tensor, before in copies:
            if not bool((tensor.array == before).all()):
                tensor.array[...] = before
                autograd.touch(tensor)
        if not lazy:  # their new weights were drawn
            for generator, state in drawn:
                generator.set_state(state)


def _changeable(module: Any) -> list[Tensor]:
    """The tensors of a module whose values a forward may change: buffers, renormalised weights."""
    roles = {BUFFER, PARAMETER} if getattr(module, "max_norm", None) is not None else {BUFFER}
    values = [module.__dict__[name] for name, role in module._roles.items() if role in roles]
    return [value for value in values if value is not None]


def record(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int, Calls]:
    """The calls of each module, by its id, in one forward of the model, in eval mode.

    Without gradients; modes, hooks, buffers, attributes and random states are as before
    afterwards. Lazy parameters get their shapes, and stay so. Raises RuntimeError where the
    forward does, with the layer.

    >>> from gpunn.model_recorder import record
    >>> layer = nn.Linear(3, 2)
    >>> record(layer, (gpunn.ones(4, 3),), {})[id(layer)].output
    '(4, 2)'
    """
    recorder = _Recorder()
    with restored(model):
        handles: list[Any] = []
        try:
            for path, module in model.named_modules():
                handles += recorder.watch(module, path)
            model.eval()
            with autograd.no_grad():
                model(*args, **kwargs)
        except Exception as error:
            raise _failure(model, args, kwargs, recorder.running, error) from error
        finally:
            for handle in handles:
                handle.remove()
    return recorder.calls


def _failure(
    model: Any, args: Any, kwargs: Any, running: list[_Running], error: Exception
) -> RuntimeError:
    given = ", ".join([shapes(a) for a in args] + [f"{k}={shapes(v)}" for k, v in kwargs.items()])
    where = running[-1].path if running else ""
    advice = "input_size is the whole shape of the input, the batch included"
    asked = any(word in str(error) for word in ("Long", "indices", "integer"))
    if asked and any(t.is_floating_point() for t in tensors_in([args, kwargs])):
        advice += "; indices need dtypes=[gpunn.int64]"
    layer = f", in layer {where}" if where else ""
    return RuntimeError(
        f"summary: the forward of {type(model).__name__} on {given} raised "
        f"{type(error).__name__}{layer}: {error} ({advice})"
    )
