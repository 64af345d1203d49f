"""How tensors are written as text: PyTorch's repr and its print options.

A large tensor is cut to its edges first, on its own device, so that only what is shown is
copied to the host and formatted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn import dtypes
from gpunn.device import to_host

if TYPE_CHECKING:
    from gpunn.tensor import Tensor

Write = Callable[[Any], str]


@dataclasses.dataclass
class _Options:
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}
_options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Sets how tensors are printed; what is left out stays, except `sci_mode`.

    `precision` digits after the point (4); more than `threshold` elements (1000) are cut to
    `edgeitems` (3) at each end of a dimension; lines break before `linewidth` characters (80);
    `profile` "default", "short" or "full" sets these four at once; `sci_mode` True or False
    forces or forbids the scientific notation, None chooses by the values.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.set_printoptions.html

    >>> gpunn.set_printoptions(precision=2)
    >>> gpunn.tensor([1.12345])
    tensor([1.12])
    >>> gpunn.set_printoptions(profile="default")
    """
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    chosen = _PROFILES.get(profile, {}) if profile is not None else {}
    changes = {**chosen, **{name: value for name, value in given.items() if value is not None}}
    for name, value in changes.items():
        setattr(_options, name, value)
    _options.sci_mode = sci_mode


def get_printoptions() -> dict[str, Any]:
    """The print options, as keyword arguments for `set_printoptions`.

    >>> gpunn.get_printoptions()["precision"]
    4
    """
    return dataclasses.asdict(_options)


def tensor_repr(t: Tensor, contents: str | None = None) -> str:
    """The repr of a tensor; `contents` stands in for its values where it is given."""
    from gpunn.nn.parameter import Parameter
    from gpunn.tensor import Tensor

    plain = type(t) in (Tensor, Parameter)
    prefix = "tensor(" if plain else f"{type(t).__name__}("
    text = contents if contents is not None else _values(t.array, len(prefix))
    text = _join(prefix + text, _facts(t) + _history(t), len(prefix))
    return f"Parameter({text})" if isinstance(t, Parameter) and not plain else text


def sparse_repr(t: Any, fields: dict[str, Tensor], nnz: int, layout: str) -> str:
    """The repr of a sparse tensor: `fields` are its dense parts, such as indices and values.

    `t` gives shape, dtype, device, requires_grad and grad_fn; `layout` is its PyTorch name.
    """
    prefix = "tensor("
    parts = []
    for name, part in fields.items():
        start = f"{name}=tensor("
        text = start + _values(part.array, len(prefix) + len(start))
        parts.append(text + (")" if part.array.size else f", size={tuple(part.shape)})"))
    facts = _device_fact(t) + [f"size={tuple(t.shape)}", f"nnz={nnz}"]
    if not _is_usual(t.dtype):
        facts.append(f"dtype={t.dtype}")
    facts.append(f"layout={layout}")
    body = (",\n" + " " * len(prefix)).join(parts)
    return _join(prefix + body, facts + _history(t), len(prefix), new_line=True)


# --- what follows the values --------------------------------------------------------------


def _is_usual(dtype: dtypes.dtype) -> bool:
    """Whether the values show the dtype: the default ones, int64 and bool."""
    default = dtypes.get_default_dtype()
    default_complex = dtypes.complex128 if default is dtypes.float64 else dtypes.complex64
    return dtype in (default, default_complex, dtypes.int64, dtypes.bool_)


def _device_fact(t: Any) -> list[str]:
    first_cpu = t.device.type == "cpu" and not t.device.index
    return [] if first_cpu else [f"device='{t.device}'"]


def _facts(t: Tensor) -> list[str]:
    facts = _device_fact(t)
    if t.array.size == 0:
        if t.array.ndim != 1:
            facts.append(f"size={tuple(t.shape)}")
        if t.dtype is not dtypes.get_default_dtype():
            facts.append(f"dtype={t.dtype}")
        return facts
    if not _options.edgeitems:
        facts.append(f"size={tuple(t.shape)}")
    if not _is_usual(t.dtype):
        facts.append(f"dtype={t.dtype}")
    return facts


def _history(t: Any) -> list[str]:
    if t.grad_fn is not None:
        return [f"grad_fn=<{t.grad_fn.name()}>"]
    return ["requires_grad=True"] if t.requires_grad else []


def _join(text: str, facts: list[str], indent: int, new_line: bool = False) -> str:
    """Appends the facts and the closing bracket, breaking lines that would be too long."""
    used = len(text) - text.rfind("\n") + 1
    for fact in facts:
        if new_line or used + len(fact) + 2 > _options.linewidth:
            text += ",\n" + " " * indent + fact
            used = indent + len(fact)
            new_line = False
        else:
            text += ", " + fact
            used += len(fact) + 2
    return text + ")"


# --- the values ---------------------------------------------------------------------------


def _values(array: Any, indent: int) -> str:
    """The nested brackets with the numbers; `indent` is the column they start in."""
    if array.size == 0:
        return "[]"
    cut = array.size > _options.threshold and array.ndim > 0
    if cut and not _options.edgeitems:
        return "[...]"
    host = to_host(_edges(array) if cut else array)
    width, write = _formatter(host)
    edges = _options.edgeitems if cut else array.size
    values = _plain(host).tolist()
    return _nested(values, array.shape, indent, edges, width, write)


def _edges(array: Any) -> Any:
    """The first and last items of every dimension that is cut."""
    edges = _options.edgeitems
    for axis, n in enumerate(array.shape):
        if n > 2 * edges:
            array = array.take([*range(edges), *range(n - edges, n)], axis)
    return array


def _nested(
    values: Any, shape: tuple[int, ...], indent: int, edges: int, width: int, write: Write
) -> str:
    if not shape:
        return write(values)
    cut = shape[0] > 2 * edges
    if len(shape) == 1:
        texts = [write(value) for value in values]
        if cut:
            texts.insert(edges, " ...")
        per_line = max(1, math.floor((_options.linewidth - indent) / (width + 2)))
        texts = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    else:
        texts = [_nested(v, shape[1:], indent + 1, edges, width, write) for v in values]
        if cut:
            texts.insert(edges, "...")
    gap = "," + "\n" * max(1, len(shape) - 1) + " " * (indent + 1)
    return "[" + gap.join(texts) + "]"


def _plain(host: np.ndarray) -> np.ndarray:
    """The values in a type whose `tolist` gives exact Python numbers."""
    category = dtypes.of(host.dtype).category
    if category == dtypes.FLOATING:
        with np.errstate(invalid="ignore"):  # a signalling NaN is still a NaN
            return host.astype(np.float64)
    return host.astype(np.complex128) if category == dtypes.COMPLEX else host


def _formatter(host: np.ndarray) -> tuple[int, Write]:
    """The width of an element and the function that writes one, padded to it."""
    if host.dtype.kind == "c":
        return _complex_formatter(host)
    if dtypes.of(host.dtype).is_floating_point:
        return _float_formatter(_plain(host))
    width = max(len(str(host.min())), len(str(host.max())))
    return width, lambda value: str(value).rjust(width)


def _complex_formatter(host: np.ndarray) -> tuple[int, Write]:
    values = _plain(host)
    real_width, real = _float_formatter(values.real)
    imag_width, imag = _float_formatter(values.imag)

    def write(value: complex) -> str:
        tail = (imag(value.imag) + "j").lstrip()
        return real(value.real) + ("" if tail[0] in "+-" else "+") + tail

    return real_width + imag_width + 1, write


def _float_formatter(values: np.ndarray) -> tuple[int, Write]:
    """All integers: "1."; a wide range: "1.0000e-05"; else "1.0000". Zeros do not decide."""
    shown = values[np.isfinite(values) & (values != 0)]
    if shown.size == 0:
        return 1, _whole(1)
    positive, negative = shown[shown > 0], shown[shown < 0]
    # Texts grow towards the ends of the values of one sign: these hold the longest.
    ends = [float(f(half)) for half in (positive, negative) if half.size for f in (np.min, np.max)]
    precision = _options.precision
    if _is_scientific([abs(end) for end in ends]):
        form = f".{precision}e"
    elif (shown == np.ceil(shown)).all():
        width = max(len(f"{end:.0f}") + 1 for end in ends)
        return width, _whole(width)
    else:
        form = f".{precision}f"
    width = max(len(format(end, form)) for end in ends)
    return width, lambda value: format(value, form).rjust(width)


def _is_scientific(sizes: list[float]) -> bool:
    if _options.sci_mode is not None:
        return _options.sci_mode
    return max(sizes) / min(sizes) > 1000.0 or max(sizes) > 1.0e8 or min(sizes) < 1.0e-4


def _whole(width: int) -> Write:
    def write(value: float) -> str:
        return (f"{value:.0f}" + ("." if math.isfinite(value) else "")).rjust(width)

    return write
