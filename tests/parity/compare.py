"""Comparing what PyTorch returned with what the package under test returned."""

from __future__ import annotations

from typing import Any

import torch

from .convert import Package

#: dtype of the result -> (relative, absolute) tolerance; every other dtype must be equal.
TOLERANCE = {
    torch.float16: (2e-3, 1e-3),
    torch.bfloat16: (1.6e-2, 1e-2),
    torch.float32: (1e-5, 1e-5),
    torch.float64: (1e-7, 1e-8),
    torch.complex64: (1e-5, 1e-5),
    torch.complex128: (1e-7, 1e-8),
}


def difference(
    want: Any, got: Any, package: Package, factor: float = 1.0, values: bool = True
) -> str | None:
    """What differs between PyTorch's result and the other, or None.

    Compares the structure, the shapes, the dtypes and, where `values` holds, the values, with
    `factor` times the tolerance of the dtype.
    """
    if isinstance(want, torch.Tensor):
        return _tensor_difference(want, got, package, factor, values)
    if isinstance(want, torch.Size):
        return None if tuple(want) == tuple(got) else f"{tuple(got)}, PyTorch {tuple(want)}"
    if isinstance(want, list | tuple):
        return _sequence_difference(want, got, package, factor, values)
    if isinstance(want, dict):
        return _dict_difference(want, got, package, factor, values)
    if isinstance(want, torch.dtype):
        return None if str(want) == str(got) else f"{got}, PyTorch {want}"
    if isinstance(want, bool | int | float | complex):
        return _scalar_difference(want, got, factor, values)
    if type(want).__module__.split(".")[0] == "torch":
        return None if str(want) == str(got) else f"{got}, PyTorch {want}"
    return None if want == got else f"{got!r}, PyTorch {want!r}"


def _tensor_difference(
    want: torch.Tensor, got: Any, package: Package, factor: float, values: bool
) -> str | None:
    if not package.is_tensor(got):
        return f"a {type(got).__name__} {str(got)[:60]}, PyTorch a tensor"
    if str(got.dtype) != str(want.dtype):
        return f"dtype {got.dtype}, PyTorch {want.dtype}"
    if tuple(got.shape) != tuple(want.shape):
        return f"shape {tuple(got.shape)}, PyTorch {tuple(want.shape)}"
    if not package.well_placed(got, want):
        return f"device {got.device}, PyTorch {want.device}"
    mine, theirs = package.to_torch(got), want.detach().resolve_conj().resolve_neg()
    if mine.dtype != theirs.dtype or mine.shape != theirs.shape:
        return f"array {mine.dtype} {tuple(mine.shape)} in a tensor that says {got.dtype}"
    return values_difference(theirs, mine, factor) if values else None


def values_difference(want: torch.Tensor, got: torch.Tensor, factor: float = 1.0) -> str | None:
    """Where two PyTorch tensors of one dtype and shape differ, or None."""
    rtol, atol = TOLERANCE.get(want.dtype, (0.0, 0.0))
    if want.dtype.is_floating_point or want.dtype.is_complex:
        close = torch.isclose(got, want, rtol * factor, atol * factor, equal_nan=True)
    else:
        close = got == want
    if close.all():
        return None
    bad = (~close).nonzero()
    where = tuple(bad[0].tolist())
    return (
        f"{len(bad)} of {close.numel()} values differ, first at {where}: "
        f"{got[where].item():.9g}, PyTorch {want[where].item():.9g}"
    )


def _sequence_difference(
    want: Any, got: Any, package: Package, factor: float, values: bool
) -> str | None:
    kind = list if isinstance(want, list) else tuple
    if not isinstance(got, kind):
        return f"a {type(got).__name__}, PyTorch a {kind.__name__}"
    if len(got) != len(want):
        return f"{len(got)} items, PyTorch {len(want)}"
    names = getattr(type(want), "__match_args__", None) or getattr(want, "_fields", ())
    for name in names:
        if not hasattr(got, name):
            return f"no field {name!r}, PyTorch's {type(want).__name__} has {tuple(names)}"
    for i, (w, g) in enumerate(zip(want, got, strict=True)):
        if text := difference(w, g, package, factor, values):
            return f"item {i}: {text}"
    return None


def _dict_difference(
    want: dict, got: Any, package: Package, factor: float, values: bool
) -> str | None:
    if not isinstance(got, dict):
        return f"a {type(got).__name__}, PyTorch a dict"
    if list(want) != list(got):
        return f"keys {list(got)}, PyTorch {list(want)}"
    for key in want:
        if text := difference(want[key], got[key], package, factor, values):
            return f"{key!r}: {text}"
    return None


def _scalar_difference(want: Any, got: Any, factor: float, values: bool) -> str | None:
    if type(want) is not type(got):
        return f"{type(got).__name__} {str(got)[:60]}, PyTorch {type(want).__name__} {want}"
    if not values or want == got or (want != want and got != got):
        return None
    if isinstance(want, float | complex) and abs(want - got) <= factor * 1e-6 * (1 + abs(want)):
        return None
    return f"{got!r}, PyTorch {want!r}"
