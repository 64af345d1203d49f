"""How special functions are computed: polynomials, in float64, in pieces that fit the cache."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.dtypes import F64
from gpunn.ops._rows import binary, unary

_BLOCK = 8192  # elements at a time: the temporaries of a function stay in the cache
_SOURCE = "https://docs.pytorch.org/docs/stable/special.html#torch.special.{}"


def horner(t: Any, coefficients: tuple[float, ...]) -> Any:
    """The polynomial in t."""
    y = t * coefficients[-1]
    y += coefficients[-2]
    for c in coefficients[-3::-1]:
        y *= t
        y += c
    return y


def computed(
    body: Callable[..., Any], cupy: str | Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """`forward(*arrays, xp)` of a row from `body(*float64 arrays, xp)`, flat ones on the CPU.

    On a GPU it is CuPy's function of the name `cupy`, where CuPy has one, or what
    `cupy(its special functions, *arrays)` makes of them.
    """

    def forward(*args: Any) -> Any:
        *arrays, xp = args
        if xp is not np:
            if cupy is not None:
                theirs = importlib.import_module("cupyx.scipy.special")
                made = (getattr(theirs, cupy)(*arrays) if isinstance(cupy, str)
                        else cupy(theirs, *arrays))  # fmt: skip
                return made.astype(arrays[0].dtype, copy=False)
            return body(*(a.astype(F64) for a in arrays), xp).astype(arrays[0].dtype)
        shape = arrays[0].shape
        if len(arrays) > 1:
            arrays = list(np.broadcast_arrays(*arrays))
            shape = arrays[0].shape
        flat = [a.reshape(-1) for a in arrays]
        y = np.empty(flat[0].shape, arrays[0].dtype)
        for i in range(0, y.size, _BLOCK):
            part = slice(i, i + _BLOCK)
            y[part] = body(*(a[part].astype(F64) for a in flat), np)
        return y.reshape(shape)

    return forward


def special(
    name: str, body: Callable[..., Any], vjp: Any, saves: Any, summary: str, at: str, gives: str, *,
    cupy: str | Callable[..., Any] | None = None, direct: bool = False, prefix: str = "Special",
    at_top: bool = False, **kw: Any,
) -> Any:  # fmt: skip
    """A row of real floats with its example: name(tensor([at])) is tensor([gives]).

    `body` is as in `computed`, or the row's own forward where `direct`; two arrays where `at`
    has a semicolon in it. `saves` is as in `unary` or `binary`. `at_top`: the name is that of
    gpunn, and gpunn.special has another one.
    """
    forward = body if direct else computed(body, cupy)
    values = ", ".join(f"gpunn.tensor([{v.strip()}])" for v in at.split(";"))
    example = f"gpunn.{'' if at_top else 'special.'}{name}({values})\ntensor([{gives}])"
    node = prefix + "".join(p.capitalize() for p in name.split("_")) + "Backward0"
    make = binary if ";" in at else unary
    kw = {"to_float": True, "refuses": "c", "node_name": node, **kw}
    op = make(name, forward, vjp, saves, summary=summary, example=example, **kw)
    generated = f"https://docs.pytorch.org/docs/stable/generated/torch.{name}.html"
    if not at_top:
        op.__doc__ = op.__doc__.replace(generated, _SOURCE.format(name))
    return op
