"""Tensors by formula: ranges, the identity, windows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.dtypes import as_dtype
from gpunn.ops.create import finish, place
from gpunn.tensor import Tensor


def _plain(*values: Any) -> list[Any]:
    """The numbers of 0-dim tensors."""
    return [v.item() if isinstance(v, Tensor) else v for v in values]


def _check_bounds(name: str, start: Any, end: Any, step: Any) -> None:
    for v, what in ((start, "start"), (end, "end"), (step, "step")):
        if not isinstance(v, (int, float, np.number)) or isinstance(v, complex):
            raise TypeError(f"{name}(): argument '{what}' must be Number, not {type(v).__name__}")
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if not math.isfinite(start) or not math.isfinite(end):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise RuntimeError(
            f"upper bound and lower bound inconsistent with step sign: start {start}, end {end}, "
            f"step {step}"
        )


_MISSING: Any = object()


def arange(
    start: Any = 0, end: Any = _MISSING, step: Any = 1, *, out: Tensor | None = None,
    dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """start, start + step, ... below end: int64 for integers, else the default float.

    `arange(end)` starts at 0. With an integer dtype the three numbers are cut to integers first.
    RuntimeError for step 0 or bounds that step does not join.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.arange.html

    >>> gpunn.arange(1, 7, 2)
    tensor([1, 3, 5])
    """
    if end is _MISSING or end is None:
        if type(start) is int and start >= 0 and step == 1 and dtype is None and out is None:
            where, _ = place("arange", None, layout, device)  # the usual case: arange(n)
            return finish(where.xp.arange(start, dtype=np.int64), where, requires_grad)
        start, end = 0, start
    start, end, step = _plain(start, end, step)
    _check_bounds("arange", start, end, step)
    whole = all(isinstance(v, (int, np.integer)) for v in (start, end, step))
    if dtype is None:
        dtype = out.dtype if out is not None else dtypes.int64 if whole else None
    where, d = place("arange", dtype, layout, device)
    if d == np.int64 and not whole:  # counted in integers, as PyTorch does
        start, end, step, whole = int(start), int(end), int(step), True
        if step == 0:
            raise ValueError("step must be nonzero")
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    if d.kind in "iu" and not whole:
        start, step = int(start), int(step)
        whole = True
    array = where.xp.arange(count, dtype=np.int64 if whole else np.float64) * step + start
    return finish(array.astype(d), where, requires_grad, out)


def range(  # noqa: A001
    start: Any, end: Any = None, step: Any = 1, *, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """start, start + step, ... up to and including end, of the default float. Use `arange`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.range.html

    >>> gpunn.range(1, 3)
    tensor([1., 2., 3.])
    """
    if end is None:
        start, end = 0, start
    start, end, step = _plain(start, end, step)
    _check_bounds("range", start, end, step)
    where, d = place("range", dtype, layout, device)
    count = math.floor((end - start) / step) + 1
    array = where.xp.arange(count, dtype=np.float64) * step + start
    return finish(array.astype(d), where, requires_grad, out)


def _between(name: str, start: Any, end: Any, steps: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """(start, end, dtype) of linspace and logspace, checked."""
    for what, v in (("start", start), ("end", end)):
        if isinstance(v, Tensor) and v.array.ndim:
            raise RuntimeError(
                f"{name} only supports 0-dimensional start and end tensors, but got {what} with "
                f"{v.array.ndim} dimension(s)."
            )
    start, end = _plain(start, end)
    if isinstance(steps, Tensor):
        steps = steps.item()
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)):
        raise TypeError(
            f"{name}() received an invalid combination of arguments - steps must be int, got "
            f"{steps!r}"
        )
    if steps < 0:
        raise RuntimeError(f"number of steps must be non-negative, got {steps}")
    imaginary = isinstance(start, complex) or isinstance(end, complex)
    if dtype is None and imaginary:
        dtype = dtypes.get_default_dtype().to_complex()
    if dtype is not None and imaginary and not as_dtype(dtype).is_complex:
        raise RuntimeError(
            f"torch.{name}(): inferred dtype c10::complex<float> can't be safely cast to passed "
            f"dtype {as_dtype(dtype)}"
        )
    return start, end, dtype


def _even_points(xp: Any, start: Any, end: Any, steps: int, d: np.dtype) -> Any:
    """The points, the second half counted from the end, in double precision."""
    kind = np.complex128 if d.kind == "c" else np.float64
    if d.kind in "iu":
        start, end = int(start), int(end)
    if steps == 1:
        return xp.asarray([start], kind)
    i = xp.arange(steps)
    step = (end - start) / (steps - 1) if steps else 0
    return xp.where(i < steps // 2, start + step * i, end - step * (steps - 1 - i)).astype(kind)


def linspace(
    start: Any, end: Any, steps: Any = _MISSING, *, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """`steps` points from start to end, both included, at equal distances.

    Integer dtypes cut the points. RuntimeError for negative steps, TypeError for none.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linspace.html

    >>> gpunn.linspace(0, 1, 5)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    steps = None if steps is _MISSING else steps
    if dtype is None and out is not None:
        dtype = out.dtype
    start, end, dtype = _between("linspace", start, end, steps, dtype)
    where, d = place("linspace", dtype, layout, device)
    array = _even_points(where.xp, start, end, int(steps), d)
    return finish(array.astype(d), where, requires_grad, out)


def logspace(
    start: Any, end: Any, steps: Any = _MISSING, base: float = 10.0, *, out: Tensor | None = None,
    dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """base to the powers of `linspace(start, end, steps)`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.logspace.html

    >>> gpunn.logspace(0, 2, 3)
    tensor([  1.,  10., 100.])
    """
    steps = None if steps is _MISSING else steps
    if dtype is None and out is not None:
        dtype = out.dtype
    start, end, dtype = _between("logspace", start, end, steps, dtype)
    where, d = place("logspace", dtype, layout, device)
    powers = _even_points(where.xp, start, end, int(steps), d)
    return finish((base**powers).astype(d), where, requires_grad, out)


def eye(
    n: int, m: int | None = None, *, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Ones on the diagonal of an n by m matrix (n by n), zeros elsewhere.

    RuntimeError for negative n or m, TypeError where they are no integers.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.eye.html

    >>> gpunn.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    sizes = []
    for name, size in (("n", n), ("m", n if m is None else m)):
        (value,) = _plain(size)
        if not isinstance(value, (int, np.integer)):
            raise TypeError(f"eye(): argument '{name}' must be int, not {type(value).__name__}")
        if value < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {value}")
        sizes.append(int(value))
    if dtype is None and out is not None:
        dtype = out.dtype
    where, d = place("eye", dtype, layout, device)
    return finish(where.xp.eye(*sizes, dtype=d), where, requires_grad, out)


# --- windows ----------------------------------------------------------------------------------


def _window(name: str, length: int, periodic: bool, formula: Any, kw: dict[str, Any]) -> Tensor:
    """formula(n, last) at n = 0 ... length - 1, where `last` is the last n of a full period."""
    if length < 0:
        raise RuntimeError(
            f"{name} requires non-negative window_length, got window_length={length}"
        )
    where, d = place(name, kw.pop("dtype", None), kw.pop("layout", None), kw.pop("device", None))
    if not dtypes.of(d).is_floating_point:
        raise RuntimeError(f"{name} expects floating point dtypes, got: {dtypes.of(d)}")
    requires_grad = kw.pop("requires_grad", False)
    kw.pop("pin_memory", None)
    if kw:
        raise TypeError(f"{name}() got an unexpected keyword argument '{next(iter(kw))}'")
    n = where.xp.arange(length, dtype=np.float64)
    last = length if periodic else length - 1
    array = formula(where.xp, n, last) if length > 1 else where.xp.ones(length)
    return finish(array.astype(d), where, requires_grad)


def _cosines(*weights: float) -> Any:
    """w0 - w1 cos(t) + w2 cos(2t) ... over one period."""

    def formula(xp: Any, n: Any, last: int) -> Any:
        t = 2 * math.pi * n / last
        return sum((-1) ** k * w * xp.cos(k * t) for k, w in enumerate(weights))

    return formula


def hann_window(window_length: int, periodic: bool = True, **kw: Any) -> Tensor:
    """Hann's window, half a wave of 1 - cos; `dtype`, `device`, `requires_grad` as elsewhere.

    periodic: one period of it, else symmetric. RuntimeError for a negative length.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.hann_window.html

    >>> gpunn.hann_window(4)
    tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """
    return _window("hann_window", window_length, periodic, _cosines(0.5, 0.5), kw)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, **kw: Any
) -> Tensor:
    """Hamming's window, alpha - beta cos; arguments as for `hann_window`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.hamming_window.html

    >>> gpunn.hamming_window(4)
    tensor([0.0800, 0.5400, 1.0000, 0.5400])
    """
    return _window("hamming_window", window_length, periodic, _cosines(alpha, beta), kw)


def blackman_window(window_length: int, periodic: bool = True, **kw: Any) -> Tensor:
    """Blackman's window, 0.42 - 0.5 cos + 0.08 cos; arguments as for `hann_window`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.blackman_window.html

    >>> gpunn.blackman_window(3, periodic=False)[1]
    tensor(1.)
    """
    return _window("blackman_window", window_length, periodic, _cosines(0.42, 0.5, 0.08), kw)


def bartlett_window(window_length: int, periodic: bool = True, **kw: Any) -> Tensor:
    """Bartlett's window, a triangle; arguments as for `hann_window`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.bartlett_window.html

    >>> gpunn.bartlett_window(4)
    tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """

    def formula(xp: Any, n: Any, last: int) -> Any:
        return 1 - abs(2 * n / last - 1)

    return _window("bartlett_window", window_length, periodic, formula, kw)


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, **kw: Any
) -> Tensor:
    """Kaiser's window of shape beta; arguments as for `hann_window`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.kaiser_window.html

    >>> gpunn.kaiser_window(3, periodic=False)[1]
    tensor(1.)
    """

    def formula(xp: Any, n: Any, last: int) -> Any:
        inside = xp.sqrt(xp.maximum(1 - (2 * n / last - 1) ** 2, 0))
        return xp.i0(beta * inside) / np.i0(beta)

    return _window("kaiser_window", window_length, periodic, formula, kw)


__all__ = [
    "arange", "bartlett_window", "blackman_window", "eye", "hamming_window", "hann_window",
    "kaiser_window", "linspace", "logspace", "range",
]  # fmt: skip
