"""Checkpointing: what the backward pass needs is computed again instead of being kept.

Without reentrance the graph is recorded as usual, then each of its nodes lets go of its saved
arrays. The first node that the backward walk asks for them runs the function again, and every
node takes the arrays of its twin in the second graph. So parameters in closures, inputs without
gradients, `autograd.grad` and hooks work as they do without a checkpoint.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from gpunn import autograd
from gpunn.amp.casts import as_set, settings
from gpunn.autograd.graph import Node, Output, mode
from gpunn.autograd.graph import _clock as clock
from gpunn.generator import default_for, defaults
from gpunn.random import fork_rng
from gpunn.tensor import ARRAY_TYPES, Tensor


class CheckpointError(RuntimeError):
    """The function did not compute the same the second time."""


def noop_context_fn() -> tuple[Any, Any]:
    """Two contexts that do nothing, for the first and the second run of the function."""
    return contextlib.nullcontext(), contextlib.nullcontext()


def checkpoint(
    function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[Any, Any]] = noop_context_fn,
    determinism_check: str = "default", debug: bool = False, early_stop: bool = True,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """function(*args, **kwargs), whose intermediate results are computed again in backward.

    `use_reentrant=False` is the form to use; without it PyTorch's older one runs, with a
    warning: it takes no keywords, needs an input that requires a gradient, and does not work
    with `autograd.grad`. `preserve_rng_state` (True) repeats random numbers. `context_fn` gives
    a context for each run. `determinism_check="none"` leaves shapes and dtypes unchecked;
    otherwise CheckpointError is raised where the second run differs. `debug` and `early_stop`
    are accepted and change nothing.
    Source: https://docs.pytorch.org/docs/stable/checkpoint.html

    >>> from gpunn.utils.checkpoint import checkpoint
    >>> x = gpunn.tensor([0.0, 1.0], requires_grad=True)
    >>> checkpoint(lambda t: t.exp().sin().sum(), x, use_reentrant=False).backward()
    >>> x.grad
    tensor([ 0.5403, -2.4784])
    """
    if use_reentrant is None:
        _warn_reentrant("checkpoint")
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if not use_reentrant:
        if determinism_check not in ("default", "none"):
            raise ValueError(
                f"determinism_check should be one of ['default', 'none'] but got "
                f"{determinism_check}"
            )
        return _recorded(function, args, kwargs, preserve, context_fn, determinism_check)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    if context_fn is not noop_context_fn or debug is not False:
        raise ValueError(
            "Passing `context_fn` or `debug` is only supported when use_reentrant=False."
        )
    return CheckpointFunction.apply(function, preserve, *args)


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """A Sequential, or a list of functions, in `segments` parts: all but the last checkpointed.

    Source: https://docs.pytorch.org/docs/stable/checkpoint.html

    >>> from gpunn.utils.checkpoint import checkpoint_sequential
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> y = checkpoint_sequential(model, 2, gpunn.ones(3, 2), use_reentrant=False)
    >>> y.sum().backward()
    >>> model[0].weight.grad.shape
    torch.Size([2, 2])
    """
    if use_reentrant is None:
        _warn_reentrant("checkpoint_sequential")
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    layers = list(functions.children()) if hasattr(functions, "children") else list(functions)
    size = len(layers) // segments
    for start in range(0, size * (segments - 1), size):
        input = checkpoint(
            _chain(layers[start : start + size]), input, use_reentrant=use_reentrant,
            preserve_rng_state=preserve,
        )  # fmt: skip
    return _chain(layers[size * (segments - 1) :])(input)


def _chain(layers: list[Any]) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return run


def _warn_reentrant(name: str) -> None:
    warnings.warn(
        f"gpunn.utils.checkpoint.{name}: the use_reentrant parameter should be passed explicitly. "
        "use_reentrant=False is recommended, but if you need to preserve the current default "
        "behavior, you can pass use_reentrant=True.",
        stacklevel=3,
    )


# --- random numbers -----------------------------------------------------------------------


def _generator_states(preserve: bool) -> dict[Any, Any]:
    """The states of the default generators in use, by device."""
    if not preserve:
        return {}
    return {device: generator.get_state() for device, generator in defaults.items()}


@contextlib.contextmanager
def _same_random_numbers(states: dict[Any, Any]) -> Iterator[None]:
    """A block that draws what was drawn from those states, and leaves the generators alone."""
    with fork_rng(enabled=bool(states)):
        for device, state in states.items():
            default_for(device).set_state(state)
        yield


# --- without reentrance -------------------------------------------------------------------


def _recorded(
    function: Any, args: Any, kwargs: Any, preserve: bool, context_fn: Any, determinism: str
) -> Any:
    """Runs the function with a graph whose nodes forget what they saved."""
    first, second = context_fn()
    states = _generator_states(preserve)
    start = clock()
    with first, as_set(settings()):
        made = function(*args, **kwargs)
    if mode.grad:
        nodes = _nodes_since(made, start)
        if nodes:
            _Frame(function, args, kwargs, states, second, determinism).forget(nodes)
    return made


def _tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (tuple, list)):
        for item in x:
            yield from _tensors(item)
    elif isinstance(x, dict):
        for item in x.values():
            yield from _tensors(item)


def _nodes_since(made: Any, start: int) -> list[Node]:
    """The nodes below a function's results that it recorded itself, in order."""
    seen: dict[Node, None] = {}
    stack = [t.node for t in _tensors(made)]
    while stack:
        v = stack.pop()
        node = v.node if type(v) is Output else v
        if isinstance(node, Node) and node.seq > start and node not in seen:
            seen[node] = None
            stack.extend(node.parents)
    return sorted(seen, key=lambda n: n.seq)


def _kinds(saved: Any) -> list[Any]:
    return [(a.shape, a.dtype) for a in saved if type(a) in ARRAY_TYPES]


class _Frame:
    """One checkpointed call: how to run it again, and the nodes that wait for it."""

    def __init__(
        self, function: Any, args: Any, kwargs: Any, states: Any, context: Any, check: str
    ):
        self.call = function, args, kwargs
        self.states, self.context, self.check = states, context, check
        self.autocast = settings()
        self.waiting: list[weakref.ref[_Forgotten]] = []
        self.kinds: list[Any] = []

    def forget(self, nodes: list[Node]) -> None:
        for node in nodes:
            self.kinds.append(_kinds(node.saved) if self.check == "default" else None)
            node.saved = waits = _Forgotten(self)  # type: ignore[assignment]
            self.waiting.append(weakref.ref(waits))

    def run_again(self) -> None:
        """Fills what every waiting node had saved."""
        function, args, kwargs = self.call
        start = clock()
        same = _same_random_numbers(self.states), as_set(self.autocast)
        with autograd.enable_grad(), same[0], same[1], self.context:
            made = function(*args, **kwargs)
        nodes = _nodes_since(made, start)
        if len(nodes) != len(self.waiting):
            raise CheckpointError(
                "gpunn.utils.checkpoint: A different number of tensors was saved during the "
                "original forward and recomputation.\nNumber of operations recorded during "
                f"forward: {len(self.waiting)}\nNumber of operations recorded during "
                f"recomputation: {len(nodes)}."
            )
        for node, kinds, waiting in zip(nodes, self.kinds, self.waiting, strict=True):
            saved = tuple(node.saved)
            if kinds is not None and _kinds(saved) != kinds:
                raise CheckpointError(
                    "gpunn.utils.checkpoint: Recomputed values for the following tensors have "
                    f"different metadata than during the forward pass: {node.name()} saved "
                    f"{kinds}, and now {_kinds(saved)}."
                )
            waits = waiting()
            if waits is not None:
                waits.found = saved, node


class _Forgotten:
    """Stands for what a node saved: computed when the backward walk unpacks it."""

    __slots__ = ("frame", "found", "__weakref__")

    def __init__(self, frame: _Frame):
        self.frame = frame
        self.found: tuple[tuple[Any, ...], Node] | None = None  # and the twin, which lives on

    def __iter__(self) -> Iterator[Any]:
        if self.found is None:
            self.frame.run_again()
        return iter(self.found[0])  # type: ignore[index]


# --- with reentrance ----------------------------------------------------------------------


class CheckpointFunction(autograd.Function):
    """The older form: one operation, whose backward runs the function and a backward in it."""

    @staticmethod
    def forward(ctx: Any, function: Any, preserve: bool, *args: Any) -> Any:
        """Runs the function without recording."""
        if not any(a.requires_grad for a in args if isinstance(a, Tensor)):
            warnings.warn(
                "None of the inputs have requires_grad=True. Gradients will be None", stacklevel=4
            )
        ctx.function, ctx.states = function, _generator_states(preserve)
        ctx.autocast = settings()
        ctx.places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        ctx.args = [None if isinstance(a, Tensor) else a for a in args]
        ctx.save_for_backward(*(args[i] for i in ctx.places))
        return function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Runs the function on detached inputs, and the backward pass of that."""
        if mode.partial:
            raise RuntimeError(
                "When use_reentrant=True, gpunn.utils.checkpoint is incompatible with .grad() or "
                "passing an `inputs` parameter to .backward(). To resolve this error, you can "
                "either set use_reentrant=False, or call .backward() without passing the "
                "`inputs` argument."
            )
        args = list(ctx.args)
        for i, t in zip(ctx.places, ctx.saved_tensors, strict=True):
            args[i] = t.detach().requires_grad_(t.requires_grad)
        with autograd.enable_grad(), _same_random_numbers(ctx.states), as_set(ctx.autocast):
            made = ctx.function(*args)
        outputs = [made] if isinstance(made, Tensor) else list(made)
        pairs = [
            (o, g) for o, g in zip(outputs, grads, strict=True)
            if isinstance(o, Tensor) and o.requires_grad
        ]  # fmt: skip
        if not pairs:
            raise RuntimeError(
                "none of output has requires_grad=True, this checkpoint() is not necessary"
            )
        autograd.backward([o for o, _ in pairs], [g for _, g in pairs])
        return (None, None, *(a.grad if isinstance(a, Tensor) else None for a in args))
