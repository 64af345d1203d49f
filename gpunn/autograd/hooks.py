"""Hooks on tensors and on nodes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from gpunn.autograd.graph import Node, Output
from gpunn.device import Device
from gpunn.tensor import ARRAY_TYPES, Tensor, extra, method, wrap


def to_grad(g: Any, device: Device) -> Any:
    """A gradient as users see it, a Tensor. Row-sparse gradients are Tensors already."""
    if isinstance(g, Tensor):
        return g
    return wrap(g if type(g) in ARRAY_TYPES else device.xp.asarray(g), device)


def run_hooks(hooks: dict[int, Any], g: Any, device: Device) -> Any:
    """Passes a gradient through hooks that may replace it."""
    if not hooks:
        return g
    as_array = type(g) in ARRAY_TYPES
    t = wrap(g, device) if as_array else g
    for hook in list(hooks.values()):
        new = hook(t)
        if new is not None:
            _check_hook(hook, t, new)
            t = new
    return t.array if as_array and isinstance(t, Tensor) else t


def _check_hook(hook: Any, old: Any, new: Any) -> None:
    """Raises where a hook returned no gradient for the same tensor."""
    name = getattr(hook, "__name__", type(hook).__name__)
    if not isinstance(new, Tensor):
        raise TypeError(
            f"expected Variable, but hook returned {type(new).__name__!r} ({name})"
        )
    if new.shape != old.shape:
        raise RuntimeError(
            f"hook '{name}' has changed the size of value (was {list(old.shape)} got "
            f"{list(new.shape)})"
        )
    if new.dtype is not old.dtype:
        raise RuntimeError(
            f"hook '{name}' has changed the type of value (was {old.dtype} got {new.dtype})"
        )


def run_node_hooks(node: Node, g: Any, create: bool) -> Any:
    """The hooks of the tensors that a node made, and its prehooks."""
    hooks: dict[str, Any] = node.hooks or {}
    several = type(g) is list
    gs = g if several else [g]
    for index, table in hooks.get("tensor", {}).items():
        if gs[index] is not None:
            gs[index] = run_hooks(table, gs[index], node.device)
    for index, keeper in hooks.get("retain", {}).items():
        tensor = keeper()
        if tensor is not None and gs[index] is not None:
            kept = gs[index] if create else to_grad(gs[index], tensor.device)
            tensor._grad = kept if tensor._grad is None else tensor._grad + kept
    for hook in list(hooks.get("before", {}).values()):
        ts = tuple(to_grad(x, node.device) if x is not None else None for x in gs)
        new = hook(ts)
        if new is not None:
            gs = [x.array if not create and isinstance(x, Tensor) else x for x in new]
    return gs if several else gs[0]


def run_after_hooks(node: Node, gs: Any, g: Any) -> Any:
    """The node's own hooks, on the gradients of its inputs and of its outputs."""
    outs = tuple(
        to_grad(x, node.device) if x is not None else None for x in (g if type(g) is list else [g])
    )
    for hook in list((node.hooks or {}).get("after", {}).values()):
        flat = gs if type(gs) is tuple else (gs,)
        ts = tuple(to_grad(x, node.device) if x is not None else None for x in flat)
        new = hook(ts, outs)
        if new is not None:
            gs = tuple(
                x.array if isinstance(x, Tensor) and type(old) in ARRAY_TYPES else x
                for x, old in zip(new, flat, strict=True)
            )
    return gs


def _add_hook(node: Node, kind: str, hook: Callable[..., Any]) -> Any:
    from gpunn.utils.hooks import RemovableHandle

    table = _tables(node, kind)
    handle = RemovableHandle(table)
    table[handle.id] = hook
    return handle


def _register_hook(node: Node, hook: Callable[..., Any]) -> Any:
    """Calls `hook(grad_inputs, grad_outputs)` after this node's gradient is computed."""
    return _add_hook(node, "after", hook)


def _register_prehook(node: Node, hook: Callable[..., Any]) -> Any:
    """Calls `hook(grad_outputs)` before this node's gradient is computed."""
    return _add_hook(node, "before", hook)


Node.register_hook = _register_hook  # type: ignore[attr-defined]
Node.register_prehook = _register_prehook  # type: ignore[attr-defined]


@method
def register_hook(tensor: Tensor, hook: Callable[..., Any]) -> Any:
    """Calls `hook(grad)` each time a gradient of this tensor is computed; a Tensor that it
    returns replaces the gradient. Returns a handle with `remove()`."""
    from gpunn.utils.hooks import RemovableHandle

    if not tensor._requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    if tensor.node is None:
        table = extra(tensor).hooks
    else:
        node, index = _node_and_index(tensor)
        table = _tables(node, "tensor").setdefault(index, {})
    handle = RemovableHandle(table)
    table[handle.id] = hook
    return handle


@method
def register_post_accumulate_grad_hook(tensor: Tensor, hook: Callable[..., Any]) -> Any:
    """Calls `hook(tensor)` after a gradient was accumulated into this leaf's `grad`."""
    from gpunn.utils.hooks import RemovableHandle

    if not tensor._requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    if tensor.node is not None:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    table = extra(tensor).post_hooks
    handle = RemovableHandle(table)
    table[handle.id] = hook
    return handle


@method
def retain_grad(tensor: Tensor) -> None:
    """Makes `backward` fill the `grad` of this tensor though it is no leaf."""
    if not tensor._requires_grad:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    if tensor.node is None:
        return
    node, index = _node_and_index(tensor)
    _tables(node, "retain")[index] = weakref.ref(tensor)
    extra(tensor).retains = True


Tensor.retains_grad = property(  # type: ignore[assignment]
    lambda self: self._extra is not None and self._extra.retains, doc="Whether retain_grad was set."
)


def _node_and_index(tensor: Tensor) -> tuple[Node, int]:
    v = tensor.node
    return (v.node, v.index) if type(v) is Output else (v, 0)


def _tables(node: Node, kind: str) -> dict[int, Any]:
    if node.hooks is None:
        node.hooks = {}
    return node.hooks.setdefault(kind, {})


Tensor.grad_fn = property(  # type: ignore[assignment]
    lambda self: self.node.node if type(self.node) is Output else self.node,
    doc="The recorded operation that made this tensor; None for a leaf.",
)
Tensor.output_nr = property(  # type: ignore[assignment]
    lambda self: self.node.index if type(self.node) is Output else 0,
    doc="Which output of `grad_fn` this is.",
)


