"""`gpunn.summary`: what a model is made of, layer by layer, as a table."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from html import escape
from typing import Any

from gpunn import dtypes as all_dtypes
from gpunn.model_recorder import Calls, record, tensors_in
from gpunn.nn.module import Module
from gpunn.nn.module_members import MODULE
from gpunn.nn.parameter import is_lazy
from gpunn.ops.create import zeros

__all__ = ["Layer", "Summary", "summary"]


@dataclass
class Layer:
    """A row of a summary: a module, with what is inside it, in one place of the model.

    >>> gpunn.summary(nn.Linear(3, 2), (1, 3)).layers[0].multiply_adds
    6
    """

    path: str  # dotted; "" for the model itself
    depth: int
    kind: str
    parameters: int = 0
    trainable: int = 0
    counted_above: int = 0  # so many of the parameters belong to layers above, too
    input: str = ""
    output: str = ""
    multiply_adds: int | None = None  # None: it was not called, or cannot be known
    memory: int | None = None  # bytes
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The last part of the path; the class for the model itself."""
        return self.path.rpartition(".")[2] or self.kind


@dataclass
class Summary:
    """What `gpunn.summary` returns: `layers`, totals, and the table when it is printed.

    Numbers of a layer contain those of the layers inside. Bytes are those of the arrays alone.

    >>> found = gpunn.summary(nn.Linear(3, 2), (1, 3))
    >>> found.total_parameters, found.trainable_parameters, found.multiply_adds
    (8, 8, 6)
    """

    layers: list[Layer]
    depth: int
    total_parameters: int
    trainable_parameters: int
    multiply_adds: int | None  # None: no forward was run
    parameter_bytes: int  # of buffers, too
    activation_bytes: int | None
    input_bytes: int | None
    notes: list[str]
    show_inputs: bool = False

    def __str__(self) -> str:
        kept, rows = self._table()
        rows.insert(0, list(_COLUMNS))
        for row in rows:
            for i in (2, 3):
                row[i] = row[i] if len(row[i]) <= _WIDEST else row[i][: _WIDEST - 3] + "..."
        widths = {i: max(len(row[i]) for row in rows) for i in kept}
        lines = []
        for row in rows:
            cells = [
                row[i].rjust(widths[i]) if i in _NUMBERS else row[i].ljust(widths[i]) for i in kept
            ]
            lines.append("  ".join(cells).rstrip())
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:], rule, *self._totals()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table for notebooks, in the colours of the page: readable in light and dark."""
        kept, rows = self._table()
        head = "".join(_html_cell("th", i, _COLUMNS[i]) for i in kept)
        body = "\n".join(
            "<tr>" + "".join(_html_cell("td", i, row[i]) for i in kept) + "</tr>" for row in rows
        )
        foot = "\n".join(f"<div>{escape(line)}</div>" for line in self._totals())
        return (
            '<div>\n<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
            f"</table>\n{foot}\n</div>"
        )

    def _table(self) -> tuple[list[int], list[list[str]]]:
        """Which columns are not empty, and the cells of the rows down to `depth`."""
        rows = [_cells(layer) for layer in self.layers if layer.depth <= self.depth]
        wanted = [i for i in range(len(_COLUMNS)) if i != 2 or self.show_inputs]
        return [i for i in wanted if any(row[i] for row in rows)], rows

    def _totals(self) -> list[str]:
        fixed = self.total_parameters - self.trainable_parameters
        lines = [
            f"Parameters: {self.total_parameters:,} ({self.trainable_parameters:,} trainable, "
            f"{fixed:,} not), {_bytes(self.parameter_bytes)} with buffers"
        ]
        if self.multiply_adds is not None:
            lines.append(f"Multiply-adds: {self.multiply_adds:,}")
            lines.append(
                f"Memory: inputs {_bytes(self.input_bytes)}, outputs of layers "
                f"{_bytes(self.activation_bytes)}"
            )
        return lines + self.notes


_COLUMNS = (
    "Layer", "Class", "Input", "Output", "Parameters", "Trainable", "Multiply-adds", "Memory",
    "Note",
)  # fmt: skip
_NUMBERS = {4, 5, 6, 7}
_WIDEST = 44  # characters of an input or output


def _html_cell(tag: str, column: int, text: str) -> str:
    """A cell; what indents the layer's name becomes padding."""
    bare = text.lstrip(" ")
    side = "right" if column in _NUMBERS else "left"
    indent = 0.6 + 0.6 * (len(text) - len(bare))
    style = f"text-align:{side};padding:0.2em 0.6em 0.2em {indent:.1f}em"
    if tag == "th":
        style += ";border-bottom:1px solid"
    return f'<{tag} style="{style}">{escape(bare)}</{tag}>'


def _cells(layer: Layer) -> list[str]:
    parameters, trainable = f"{layer.parameters:,}", f"{layer.trainable:,}"
    if layer.parameters and layer.counted_above == layer.parameters:
        parameters, trainable = f"({parameters})", f"({trainable})"
    return [
        "  " * layer.depth + layer.name, layer.kind, layer.input, layer.output, parameters,
        trainable, "" if layer.multiply_adds is None else f"{layer.multiply_adds:,}",
        "" if layer.memory is None else _bytes(layer.memory), ", ".join(layer.notes),
    ]  # fmt: skip


def _bytes(count: int | None) -> str:
    size, unit = float(count or 0), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def summary(
    model: Module, input_size: Any = None, input_data: Any = None, *, dtypes: Any = None,
    device: Any = None, depth: int = 3, show_inputs: bool = False,
) -> Summary:  # fmt: skip
    """A table of a model's layers: outputs, parameters, multiply-adds, memory.

    It runs one forward, in eval mode without gradients, and leaves the model, its hooks, buffers
    and the random states as they were; only lazy layers keep the shapes that they learn.

    - `input_size`: the shape of the input, the batch included, or a list of shapes; the inputs
      are zeros of `dtypes` (one, or one for each; by default the model's own) on `device` (by
      default the model's).
    - `input_data`: inputs instead: a tensor, a tuple or list of positional arguments, or a
      dictionary of arguments by name.
    - `depth`: how deep the table goes; `layers` of the result has all.
    - `show_inputs`: whether there is a column of the inputs' shapes.

    With neither, nothing is run, and only parameters are shown. A row contains what is inside it.
    A layer that has several places has all its calls in its first row and is mentioned in others;
    `(12)` are parameters that were counted above. Multiply-adds are those of layers: linear,
    convolution (transposed, grouped), recurrent, attention; norms count one for each element;
    embeddings, activations and pooling nothing, and neither do functions called in a `forward`.
    Memory is that of what the innermost layers put out.

    Raises TypeError for what is no model or no shape, ValueError for both kinds of inputs and
    for a number of dtypes that fits no inputs, RuntimeError, with the layer, where the forward
    raises.
    Asked for in https://github.com/pytorch/pytorch/issues/2001; PyTorch has none.

    >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    >>> gpunn.summary(model, (1, 1, 8, 8))
    Layer       Class       Output        Parameters  Trainable  Multiply-adds   Memory
    -----------------------------------------------------------------------------------
    Sequential  Sequential  (1, 10)            2,970      2,970          5,472  2.3 KiB
      0         Conv2d      (1, 8, 6, 6)          80         80          2,592  1.1 KiB
      1         ReLU        (1, 8, 6, 6)           0          0              0  1.1 KiB
      2         Flatten     (1, 288)               0          0              0      0 B
      3         Linear      (1, 10)            2,890      2,890          2,880     40 B
    -----------------------------------------------------------------------------------
    Parameters: 2,970 (2,970 trainable, 0 not), 11.6 KiB with buffers
    Multiply-adds: 5,472
    Memory: inputs 256 B, outputs of layers 2.3 KiB
    """
    if not isinstance(model, Module):
        raise TypeError(f"summary: expected a Module, got {type(model).__name__}")
    if input_size is not None and input_data is not None:
        raise ValueError("summary: give input_size or input_data, not both")
    depth = operator.index(depth)
    if depth < 0:
        raise ValueError(f"summary: depth must not be negative, got {depth}")
    lazy = [path for path, module in model.named_modules() if _has_lazy(module)]
    args, kwargs = _inputs(model, input_size, input_data, dtypes, device)
    runs = input_size is not None or input_data is not None
    calls = record(model, args, kwargs) if runs else None
    layers = _layers(model, calls)
    whole = calls.get(id(model)) if calls is not None else None
    tensors = [t for t in (*model.parameters(), *model.buffers()) if not is_lazy(t)]
    parameters = [p for p in model.parameters() if not is_lazy(p)]
    return Summary(
        layers=layers,
        depth=depth,
        total_parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        multiply_adds=whole.multiply_adds if whole else None,
        parameter_bytes=sum(t.array.nbytes for t in tensors),
        activation_bytes=whole.memory if whole else None,
        input_bytes=sum(t.array.nbytes for t in tensors_in([args, kwargs])) if whole else None,
        notes=_notes(layers, lazy, runs),
        show_inputs=show_inputs,
    )


def _notes(layers: list[Layer], lazy: list[str], runs: bool) -> list[str]:
    notes = []
    if lazy:
        names = ", ".join(path or "the model itself" for path in lazy)
        told = "got their shapes in this forward" if runs else "have no shapes before a forward"
        notes.append(f"Lazy layers, which {told}: {names}")
    unknown = [layer.path or "the model itself" for layer in layers if _UNKNOWN in layer.notes]
    if unknown:
        notes.append(
            f"Multiply-adds with parameters of their own are missing for: {', '.join(unknown)}"
        )
    return notes


# --- inputs ------------------------------------------------------------------------------------


def _inputs(
    model: Module, input_size: Any, input_data: Any, dtypes: Any, device: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if input_data is not None:
        if isinstance(input_data, dict):
            return (), input_data
        return (tuple(input_data) if isinstance(input_data, (list, tuple)) else (input_data,)), {}
    if input_size is None:
        return (), {}
    sizes = _sizes(input_size)
    tensors = [t for t in (*model.parameters(), *model.buffers())]
    floating = [t.dtype for t in tensors if t.dtype.is_floating_point]
    default = floating[0] if floating else all_dtypes.get_default_dtype()
    kinds = [default if dtypes is None else dtypes] * len(sizes)
    if isinstance(dtypes, (list, tuple)):
        kinds = list(dtypes)
        if len(kinds) != len(sizes):
            raise ValueError(f"summary: {len(kinds)} dtypes for {len(sizes)} inputs")
    where = device if device is not None or not tensors else tensors[0].device
    made = [
        zeros(*size, dtype=kind, device=where) for size, kind in zip(sizes, kinds, strict=True)
    ]
    return tuple(made), {}


def _sizes(input_size: Any) -> list[tuple[int, ...]]:
    """The shapes that `input_size` gives: one, or a list of them."""
    several = isinstance(input_size, (list, tuple)) and any(
        isinstance(size, (list, tuple)) for size in input_size
    )
    try:
        sizes = [tuple(map(operator.index, s)) for s in (input_size if several else [input_size])]
    except TypeError:
        raise TypeError(
            "summary: input_size is a shape with the batch, such as (1, 3, 224, 224), or a list "
            f"of shapes, got {input_size!r}"
        ) from None
    if any(n < 0 for size in sizes for n in size):
        raise ValueError(f"summary: input_size {input_size!r} has a negative size")
    return sizes


# --- rows --------------------------------------------------------------------------------------

_UNKNOWN = "own multiply-adds unknown"


def _has_lazy(module: Module) -> bool:
    return any(is_lazy(value) for value in module.__dict__.values())


def _layers(model: Module, calls: dict[int, Calls] | None) -> list[Layer]:
    """The rows, in the order of registration, each before those inside it."""
    layers: list[Layer] = []
    places: dict[int, str] = {}  # of modules that have a row
    counted: set[int] = set()  # parameters that a row above has

    def add(module: Module, path: str, depth: int) -> Layer:
        layer = Layer(path, depth, type(module).__name__)
        layers.append(layer)
        params = [p for p in module.parameters() if not is_lazy(p)]
        layer.parameters = sum(p.numel() for p in params)
        layer.trainable = sum(p.numel() for p in params if p.requires_grad)
        layer.counted_above = sum(p.numel() for p in params if id(p) in counted)
        first = places.setdefault(id(module), path)
        if first != path:
            layer.notes.append(f"same as {first or 'the model itself'}")
            return layer
        if 0 < layer.counted_above < layer.parameters:
            layer.notes.append(f"{layer.counted_above:,} counted above")
        inside = [
            add(child, f"{path}.{name}" if path else name, depth + 1)
            for name, child in list(module._own(MODULE))
            if child is not None
        ]
        counted.update(map(id, params))
        _add_calls(layer, module, calls, inside)
        return layer

    add(model, "", 0)
    return layers


def _add_calls(
    layer: Layer, module: Module, calls: dict[int, Calls] | None, inside: list[Layer]
) -> None:
    """What the recorded calls say about a layer."""
    if _has_lazy(module):
        layer.notes.append("lazy")
    if calls is None:
        return
    found = calls.get(id(module))
    if found is None:
        called = [inner for inner in inside if inner.multiply_adds is not None]
        if called:  # a list of layers, which is not called itself
            layer.multiply_adds = sum(inner.multiply_adds or 0 for inner in called)
            layer.memory = sum(inner.memory or 0 for inner in called)
        elif type(module).forward is not Module.forward:
            layer.notes.append("not called")
        return
    layer.input, layer.output, layer.memory = found.input, found.output, found.memory
    layer.multiply_adds = found.multiply_adds
    if found.times > 1:
        layer.notes.append(f"{found.times} calls")
    if found.unknown:
        layer.notes.append(_UNKNOWN)
