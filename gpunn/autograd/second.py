"""Second order: the VJP of a node as recorded operations, for `create_graph=True`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.autograd.graph import Node, Output, broadcast_vjp, result, vjp
from gpunn.tensor import ARRAY_TYPES, Tensor, wrap


def differentiable_vjp(node: Node, g: Any) -> Any:
    """The VJP on Tensors, recorded, so that it can be differentiated again.

    Inside of autocast, too, it runs in the dtypes of the forward operation.
    """
    from gpunn.amp.casts import AUTOCAST, uncast

    return uncast(_recorded_vjp, node, g) if AUTOCAST else _recorded_vjp(node, g)


def _recorded_vjp(node: Node, g: Any) -> Any:
    function = node.vjp
    kept = tuple(node.saved)
    saves = getattr(function, "saves", (None,) * len(kept))
    saved = [_relink(node, what, value) for what, value in zip(saves, kept, strict=True)]
    composed = getattr(function, "composed", None)
    if composed is not None:
        return _through_composed(node, g, saves, saved, composed)
    if hasattr(function, "masked"):
        return function(g, *saved, needs=tuple(p is not None for p in node.parents))
    return function(g, *saved)


def _relink(node: Node, what: int | None, array: Any) -> Any:
    """A saved array as the Tensor that it came from."""
    if what is not None and isinstance(array, np.generic):  # NumPy's 0-dim result
        array = np.asarray(array)
    if what is None or type(array) not in ARRAY_TYPES:
        return array
    if what < 0:
        source: Any = node if node.outputs == 1 else Output(node, -1 - what)
    else:
        source = node.parents[what]
        while (  # the operand was saved as it was before it was broadcast
            type(source) is Node and source.vjp is broadcast_vjp
            and tuple(source.saved[0]) == array.shape
        ):  # fmt: skip
            source = source.parents[0]
    if isinstance(source, Tensor) and source.array.shape == array.shape:
        return source
    out = wrap(array, node.device)
    if source is not None:
        out.node, out._requires_grad = source, True
    return out


def _through_composed(
    node: Node, g: Any, saves: Any, saved: list[Any], composed: Callable[..., Any]
) -> tuple[Any, ...]:
    """The gradient of a fused operation through the same operation in plain ones."""
    inputs: dict[int, Tensor] = {}
    for k, what in enumerate(saves):
        if what is not None and what >= 0 and node.parents[what] is not None:
            inputs[what] = saved[k] = _alias(saved[k])
    from gpunn.autograd.walk import grad

    outs = composed(*saved)
    outs, gs = ((outs,), (g,)) if isinstance(outs, Tensor) else (tuple(outs), tuple(g))
    pairs = [(o, x) for o, x in zip(outs, gs, strict=False) if x is not None and o._requires_grad]
    found = grad(
        [o for o, _ in pairs], list(inputs.values()), [x for _, x in pairs],
        create_graph=True, allow_unused=True,
    )  # fmt: skip
    by_parent = dict(zip(inputs, found, strict=True))
    return tuple(by_parent.get(i) for i in range(len(node.parents)))


@vjp()
def _alias_vjp(g: Any) -> Any:
    return g


def _alias(x: Tensor) -> Tensor:
    """x with a vertex of its own, so that only the uses after it count."""
    return result(x.array, x, _alias_vjp, (x,))
