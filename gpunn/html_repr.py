"""Tensors and modules as notebooks show them: HTML that reads well on light and dark pages.

Only what is shown is copied from the device. Colours are translucent, so that they lie over
whatever background the page has. Where HTML cannot be made, or a class has a repr of its own,
the answer is None, and the notebook shows the text.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import numpy as np

from gpunn.cuda.memory import human
from gpunn.device import to_host
from gpunn.nn.module import Module
from gpunn.nn.module_members import BUFFER, MODULE, PARAMETER
from gpunn.nn.parameter import Parameter, is_lazy
from gpunn.printing import _formatter, _history, _plain
from gpunn.tensor import Tensor

__all__ = ["module_html", "tensor_html"]

_LARGEST = 50_000  # characters
_PALE = "opacity:.65"


def _or_none(make: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    """`make` that gives None instead of raising: showing a value is never what fails."""

    def tried(value: Any) -> str | None:
        try:
            text = make(value)
        except Exception:
            return None
        return text if text is not None and len(text) < _LARGEST else None

    return tried


# --- tensors ------------------------------------------------------------------------------


def tensor_html(t: Tensor) -> str | None:
    """A tensor's kind, shape, dtype, device, history and values; None: the text says it better.

    A matrix is a table of at most 16 by 16 of its values, shaded by size (blue above zero,
    orange below); of more dimensions the first and the last matrices are shown.

    >>> "(2, 3)" in gpunn.html_repr.tensor_html(gpunn.ones(2, 3))
    True
    """
    return _tensor_html(t)


@_or_none
def _tensor_html(t: Tensor) -> str | None:
    if type(t).__repr__ not in (Tensor.__repr__, Parameter.__repr__):
        return None
    kind = "Parameter" if isinstance(t, Parameter) else "tensor"
    facts = [str(tuple(t.shape)), _name(t.dtype), str(t.device), human(t.nbytes), *_history(t)]
    head = f"<b>{kind}</b> " + " &middot; ".join(escape(fact) for fact in facts)
    for most in (16, 6):  # long numbers: fewer of them
        values = _values(t.array, most)
        if len(values) < _LARGEST - 1000:
            break
    return f'<div style="overflow-x:auto"><div>{head}</div>{values}</div>'


def _name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


def _values(array: Any, most: int) -> str:
    if array.size == 0:
        return "<div>[]</div>"
    if array.ndim == 0:
        host = to_host(array)
        return f"<div><code>{escape(_formatter(host)[1](_plain(host).item()))}</code></div>"
    lead = array.shape[:-2]
    matrices = _some(int(np.prod(lead)), 6)
    if len(matrices) > 1:
        most //= 2
    height, width = (1, *array.shape)[-2:]
    rows, columns = _some(height, most), _some(width, most)
    host = _picked(array, lead, matrices, rows, columns)
    write = _formatter(host)[1]
    shown = zip(_plain(host).tolist(), _shades(host))
    tables = []
    for index in matrices:
        if index is None:
            tables.append('<span style="padding:0 1em">&hellip;</span>')
        else:
            table = _table(*next(shown), write, rows, columns, array.ndim > 1)
            tables.append(_captioned(table, np.unravel_index(index, lead) if lead else ()))
    return "".join(tables)


def _some(count: int, most: int) -> list[int | None]:
    """The indices of what is shown of `count` things; None stands for those left out."""
    if count <= most:
        return list(range(count))
    half = most // 2
    return [*range(half), None, *range(count - half, count)]


def _picked(array: Any, lead: tuple[int, ...], matrices: Any, rows: Any, columns: Any) -> Any:
    """The shown values on the host, (matrices, rows, columns): gathered on the device first."""
    two = array.reshape(1, -1) if array.ndim == 1 else array
    kept = [[i for i in indices if i is not None] for indices in (rows, columns)]
    parts = []
    for index in matrices:
        if index is not None:
            matrix = two[tuple(int(i) for i in np.unravel_index(index, lead))] if lead else two
            parts.append(to_host(matrix.take(kept[0], 0).take(kept[1], 1)))
    return np.stack(parts)


def _shades(host: np.ndarray) -> np.ndarray:
    """Each value as a part of the largest shown one, -1 to 1; nan for what is not finite."""
    values = _plain(host)
    if values.dtype.kind == "c":
        values = np.abs(values)
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    largest = np.abs(values, where=finite, out=np.zeros_like(values)).max()
    return np.where(finite, values / largest if largest else 0.0, np.nan)


def _table(
    values: Any, shades: Any, write: Any, rows: Any, columns: Any, headed: bool
) -> str:
    """One matrix with the indices of its rows and columns; "…" where some are left out."""
    head = "".join(f'<th style="{_HEAD}">{"&hellip;" if c is None else c}</th>' for c in columns)
    lines = [f"<tr><th></th>{head}</tr>"] if headed or len(columns) > 1 else []
    shown = zip(values, shades)
    for row in rows:
        first = f'<th style="{_HEAD}">{row}</th>' if headed else "<th></th>"
        if row is None:
            lines.append(f'<tr><th style="{_HEAD}">&hellip;</th></tr>')
            continue
        cells = zip(*next(shown))
        line = [_CUT if c is None else _cell(*next(cells), write) for c in columns]
        lines.append(f"<tr>{first if lines else ''}{''.join(line)}</tr>")
    return f'<table style="{_TABLE}">{"".join(lines)}</table>'


_TABLE = "display:inline-table;table-layout:auto;border-collapse:collapse;margin:4px 0"
_HEAD = f"padding:1px 6px;text-align:right;font-weight:normal;{_PALE}"
_CUT = '<td style="padding:1px 6px;text-align:center">&hellip;</td>'


def _cell(value: Any, shade: float, write: Any) -> str:
    style = "padding:1px 6px;text-align:right;white-space:nowrap"
    if np.isnan(shade):
        style += ";color:#e5484d;font-weight:bold"
    elif abs(shade) > 0.02:
        colour = "50,120,255" if shade > 0 else "255,130,20"
        style += f";background:rgba({colour},{abs(shade) * 0.5:.2f})"
    return f'<td style="{style}">{escape(write(value).strip())}</td>'


def _captioned(table: str, place: Any) -> str:
    """A matrix below its place in a tensor of more dimensions."""
    if not place:
        return table
    caption = f"[{', '.join(map(str, place))}]"
    return (
        '<div style="display:inline-block;vertical-align:top;margin-right:1em">'
        f'<div style="{_PALE}">{caption}</div>{table}</div>'
    )


# --- modules ------------------------------------------------------------------------------

_MOST_MODULES = 100
_OPEN = 20  # a model of at most so many modules is shown with its containers open


def module_html(module: Module) -> str | None:
    """A module as a tree to fold: its layers, parameters, and which of them are trained.

    Layers of one kind in a row are shown once. None: the text says it better.

    >>> "Linear" in gpunn.html_repr.module_html(nn.Sequential(nn.Linear(2, 3)))
    True
    """
    return _module_html(module)


@_or_none
def _module_html(module: Module) -> str | None:
    if not type(module).__repr__.__module__.startswith("gpunn."):
        return None
    tree = _Tree(module)
    return f"<div>{tree.shown('', module, '')}{tree.rest()}</div>"


class _Tree:
    def __init__(self, module: Module) -> None:
        self.left = _MOST_MODULES
        self.skipped = 0
        self.places: dict[int, str] = {}
        self.open = sum(1 for _ in module.modules()) <= _OPEN
        self.root = module

    def shown(self, name: str, module: Module, path: str) -> str:
        """A module with what is in it."""
        label = f"{escape(name)} " if name.endswith("×") else f"{escape(name)}: " if name else ""
        title = f"{label}<b>{escape(module._get_name())}</b>"
        same = self.places.setdefault(id(module), path)
        if same != path:
            return f"<div>{title} <i>same as {escape(same) or 'the model itself'}</i></div>"
        if self.left <= 0:
            self.skipped += sum(1 for _ in module.modules())
            return ""
        self.left -= 1
        extra = " ".join(module.extra_repr().split())
        if extra:
            title += f"({escape(extra if len(extra) < 200 else extra[:197] + '...')})"
        title += f' <span style="{_PALE}">{self.facts(module)}</span>'
        inside = self.members(module) + "".join(
            self.shown(names, child, f"{path}.{first}" if path else first)
            for names, first, child in _grouped(module)
        )
        if not inside:
            return f'<div style="margin-left:1em">{title}</div>'
        opened = " open" if module is self.root or (self.open and module._modules) else ""
        return (
            f"<details{opened}><summary>{title}</summary>"
            f'<div style="margin-left:1.4em">{inside}</div></details>'
        )

    def facts(self, module: Module) -> str:
        """The parameters in numbers; for the whole model also their dtypes and devices."""
        params = [p for p in module.parameters() if not is_lazy(p)]
        facts = []
        if params:
            total = sum(p.numel() for p in params)
            fixed = sum(p.numel() for p in params if not p.requires_grad)
            facts.append(f"{total:,} parameters")
            if fixed:
                facts.append("frozen" if fixed == total else f"{fixed:,} of them frozen")
        if module is self.root:
            for values in ((_name(p.dtype) for p in params), (str(p.device) for p in params)):
                facts += dict.fromkeys(values)
            facts.append("training" if module.training else "eval")
        return escape(" · ".join(facts))

    def members(self, module: Module) -> str:
        """A module's own parameters and buffers, one a line."""
        lines = []
        for role in (PARAMETER, BUFFER):
            for name, value in module._own(role):
                if value is None:
                    continue
                if is_lazy(value):
                    facts = ["shape not known yet"]
                else:
                    facts = [str(tuple(value.shape)), _name(value.dtype), str(value.device)]
                facts.append(
                    "buffer" if role == BUFFER else "trained" if value.requires_grad else "frozen"
                )
                text = escape(" · ".join(facts))
                lines.append(f'<div>{escape(name)} <span style="{_PALE}">{text}</span></div>')
        return "".join(lines)

    def rest(self) -> str:
        return f"<div>&hellip; {self.skipped:,} more modules</div>" if self.skipped else ""


def _grouped(module: Module) -> Iterator[tuple[str, str, Module]]:
    """The children: a name, or "0-5: 6 ×" for several alike in a row, the path of the first of
    them, and it."""

    def alike(item: tuple[str, Module]) -> Any:
        return repr(item[1]), [p.requires_grad for p in item[1].parameters()]

    children = [(name, child) for name, child in module._own(MODULE) if child is not None]
    for _, group in itertools.groupby(children, key=alike):
        several = list(group)
        if len(several) < 3 or len({id(child) for _, child in several}) < len(several):
            yield from ((name, name, child) for name, child in several)
        else:
            first, last = several[0][0], several[-1][0]
            yield f"{first}-{last}: {len(several)} ×", first, several[0][1]
