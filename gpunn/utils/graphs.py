"""`gpunn.utils.draw_graph`: what a tensor was computed from, or what a model does."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from gpunn.nn.module import Module
from gpunn.tensor import Tensor
from gpunn.utils.autograd_graph import autograd_picture
from gpunn.utils.graph_picture import Picture
from gpunn.utils.module_graph import module_picture

__all__ = ["draw_graph"]


def draw_graph(
    tensor_or_model: Tensor | Iterable[Tensor] | Module,
    inputs: Any = None,
    *,
    params: Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | None = None,
    depth: int | None = None,
    max_vertices: int = 100,
) -> Picture:
    """A picture of the autograd graph of a tensor, or of the modules of a model.

    A tensor (or several): the operations with PyTorch's names, shapes where they are known, and
    the bytes that they save for backward; the leaves with shape, dtype and device, and with
    names where `params` (a model, a dictionary, or pairs as `named_parameters()` gives them)
    has them.

    A model with `inputs` (a tensor, a tuple or list of positional arguments, or a dictionary
    of arguments by name): the calls of modules in one forward in eval mode, those inside others
    in their frames, the functions called between them, and the shapes that go from one to
    another. The model and the random states are left as they were. `depth` frames are opened:
    0 draws the model as one box; by default as many as leave at most `max_vertices` boxes.

    A notebook shows the result as SVG; `save("model.svg")` writes SVG, PNG, PDF, DOT or text;
    `str()` is text, which is also what is shown where Graphviz is not installed. What was left
    out is said below the picture.

    Raises TypeError for other things and for inputs of a tensor, ValueError for a model without
    inputs and for negative limits, RuntimeError, with the layer, where the forward raises.
    Source: https://github.com/szagoruyko/pytorchviz, which draws the graph of a PyTorch tensor.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> print(gpunn.utils.draw_graph(model, gpunn.ones(1, 4)))  # doctest: +ELLIPSIS
    input  (1, 4) float32 on cpu
    Sequential  58 parameters
      0: Linear  (1, 4) → (1, 8)  40 parameters  saves 16 bytes
      1: ReLU  (1, 8) → (1, 8)  saves 32 bytes
      2: Linear  (1, 8) → (1, 2)  18 parameters  saves 32 bytes
    output  (1, 2) float32 on cpu...
    >>> loss = model(gpunn.ones(1, 4)).mean()
    >>> print(gpunn.utils.draw_graph(loss, params=model))  # doctest: +ELLIPSIS
    result  () float32 on cpu
    MeanBackward0  () float32
    ...
    """
    if max_vertices < 1 or (depth is not None and operator.index(depth) < 0):
        raise ValueError(
            f"draw_graph: depth must not be negative and max_vertices must be positive, got "
            f"depth={depth}, max_vertices={max_vertices}"
        )
    if isinstance(tensor_or_model, Module):
        if inputs is None:
            raise ValueError(
                "draw_graph: a model is drawn by running it: give inputs=, for example a batch of "
                "one (a tensor, a tuple of arguments, or a dictionary of arguments by name)"
            )
        args, kwargs = _arguments(inputs)
        return module_picture(tensor_or_model, args, kwargs, depth, max_vertices)
    tensors = _tensors(tensor_or_model)
    if inputs is not None:
        raise TypeError(
            "draw_graph: inputs= is for a model; a tensor's graph is there already (params= "
            "gives its leaves names)"
        )
    return autograd_picture(tensors, _names(params), max_vertices)


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    found = list(value) if isinstance(value, (tuple, list)) else []
    if not found or not all(isinstance(t, Tensor) for t in found):
        raise TypeError(
            f"draw_graph: expected a tensor, a list of tensors or a Module, got "
            f"{type(value).__name__}"
        )
    return found


def _names(params: Any) -> dict[int, str]:
    """The names of tensors by their ids."""
    if params is None:
        return {}
    if isinstance(params, Module):
        params = [*params.named_parameters(), *params.named_buffers()]
    pairs = params.items() if isinstance(params, Mapping) else params
    return {id(t): name for name, t in pairs}
