"""Reductions: sums, means, extremes and norms over dimensions.

float16 and bfloat16 are summed in float32 and rounded once; integers and bools sum to int64.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import AUTOCAST, autocasts, casts_one
from gpunn.autograd.graph import Node, mode, result, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.device import CPU
from gpunn.dtypes import F32, F64
from gpunn.ops._rows import cast, half, inplace, write_out
from gpunn.tensor import Tensor, dim_error, normal_dim, wrap

_add: Any = np.add.reduce

# --- dimensions ---------------------------------------------------------------------------


def axes_of(dim: Any, ndim: int) -> tuple[int, ...] | None:
    """The axes of a `dim` argument: None (or an empty list) for all of them."""
    if dim is None:
        return None
    if isinstance(dim, (int, np.integer)):
        n = int(dim)
        if -ndim <= n < ndim:
            return (n,)
        if ndim == 0 and n in (0, -1):
            return ()
        raise dim_error(n, ndim)
    axes = tuple(normal_dim(int(d), ndim) for d in dim)
    if len(set(axes)) != len(axes):
        repeated = next(a for a in axes if axes.count(a) > 1)
        raise RuntimeError(f"dim {repeated} appears multiple times in the list of dims")
    if not axes or ndim == 0:
        return None
    return axes


def restore(g: Any, shape: tuple[int, ...], axes: tuple[int, ...] | None, keepdim: bool) -> Any:
    """A reduced gradient with its dimensions of length 1 back in place."""
    if keepdim or not shape:
        return g.reshape((1,) * len(shape)) if axes is None and not keepdim else g
    if axes is None:
        return g.reshape((1,) * len(shape))
    gone = {a % len(shape) for a in axes}
    return g.reshape(tuple(1 if i in gone else n for i, n in enumerate(shape)))


def broadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """g repeated to a shape."""
    return g.expand(shape) if isinstance(g, Tensor) else ns(g).broadcast_to(g, shape)


# --- sum and mean -------------------------------------------------------------------------


@vjp((None,) * 3)
def _sum_vjp(g: Any, shape: Any, axes: Any, keepdim: bool) -> Any:
    return broadcast(restore(g, shape, axes, keepdim), shape)


def sum(  # noqa: A001
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
    out: Tensor | None = None, axis: Any = None, keepdims: bool = False,
) -> Tensor:  # fmt: skip
    """The sum over all elements, or over `dim` (an int or several).

    dtypes: integers and bool sum to int64 unless `dtype` is given.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.sum.html

    >>> gpunn.sum(gpunn.tensor([[1, 2], [3, 4]]), dim=0)
    tensor([4, 6])
    """
    if AUTOCAST and dtype is None and out is None:
        input = casts_one("sum", input)
    if dtype is None and out is None and axis is None and not keepdims:
        y = quick_sum(input, dim, keepdim)
        if y is not None:
            t = wrap(y)
            if input._requires_grad and mode.grad:
                axes: Any = None if dim is None else (dim,)
                t._requires_grad = True
                saved = (input.array.shape, axes, keepdim)
                t.node = Node(_sum_vjp, (input.node or input,), saved, CPU)
            return t
    if dim is None:
        dim = axis
    keepdim = keepdim or keepdims
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype).numpy)
    x = input.array
    axes = axes_of(dim, x.ndim)
    y = sum_array(x, axes, keepdim)
    if dtype is not None and y.dtype != dtypes.as_dtype(dtype).numpy:
        y = y.astype(dtypes.as_dtype(dtype).numpy)
    made = result(y, input, _sum_vjp, (input,), (x.shape, axes, keepdim))
    return made if out is None else write_out(out, made, "sum")


Tensor.sum = sum  # type: ignore[attr-defined]


def quick_sum(input: Tensor, dim: Any, keepdim: bool) -> Any:
    """The sum of the usual case, float32 or float64 on the CPU, as a raw array; else None."""
    x = input.array
    d = x.dtype
    if not (d is F32 or d is F64) or input.device is not CPU:
        return None
    if dim is None and not keepdim:
        return _add(x, None, None, np.empty((), d))
    if type(dim) is not int or not x.ndim:
        return None
    try:
        y = _add(x, dim, None, None, keepdim)
    except ValueError:  # no such dimension
        return None
    return y if type(y) is np.ndarray else np.asarray(y)


def sum_array(x: Any, axes: Any = None, keepdim: bool = False) -> Any:
    """The sum of a raw array, in PyTorch's dtypes."""
    kind = x.dtype.kind
    if kind in "biu":
        return x.sum(axis=axes, dtype=np.int64, keepdims=keepdim)
    if half(x.dtype):
        return x.sum(axis=axes, dtype=F32, keepdims=keepdim).astype(x.dtype)
    if type(x) is np.ndarray:
        return _add(x, axis=axes, keepdims=keepdim)  # x.sum without its Python wrapper
    return x.sum(axis=axes, keepdims=keepdim)


@vjp((None, None, None, None))
def _mean_vjp(g: Any, shape: Any, axes: Any, keepdim: bool, count: int) -> Any:
    return broadcast(restore(g / count, shape, axes, keepdim), shape)


def mean(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
    out: Tensor | None = None, axis: Any = None, keepdims: bool = False,
) -> Tensor:  # fmt: skip
    """The mean over all elements, or over `dim`; RuntimeError for integers without `dtype`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.mean.html

    >>> gpunn.mean(gpunn.tensor([1.0, 2.0, 6.0]))
    tensor(3.)
    """
    if dtype is None and out is None and axis is None and not keepdims:
        y = quick_sum(input, dim, keepdim)
        if y is not None:
            x = input.array
            count = x.size if dim is None else x.shape[dim]
            y /= count
            t = wrap(y)
            if input._requires_grad and mode.grad:
                axes: Any = None if dim is None else (dim,)
                t._requires_grad = True
                saved = (x.shape, axes, keepdim, count)
                t.node = Node(_mean_vjp, (input.node or input,), saved, CPU)
            return t
    if dim is None:
        dim = axis
    keepdim = keepdim or keepdims
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype).numpy)
    x = input.array
    if x.dtype.kind in "biu":
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or "
            f"complex dtype. Got: {_PROPER_NAME.get(input.dtype.name, input.dtype.name)}"
        )
    axes = axes_of(dim, x.ndim)
    count = count_along(x, axes)
    if half(x.dtype):
        y = (x.sum(axis=axes, dtype=F32, keepdims=keepdim) / count).astype(x.dtype)
    else:
        y = sum_array(x, axes, keepdim) / x.dtype.type(count)
    made = result(y, input, _mean_vjp, (input,), (x.shape, axes, keepdim, count))
    return made if out is None else write_out(out, made, "mean")


Tensor.mean = mean  # type: ignore[attr-defined]
_PROPER_NAME = {"int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char",
                "uint8": "Byte", "bool": "Bool"}  # fmt: skip


def _numpy_names(dim: Any, keepdim: bool, axis: Any, keepdims: Any) -> tuple[Any, bool]:
    """NumPy's argument names are accepted, too."""
    return axis if dim is None else dim, bool(keepdim or keepdims)


@autocasts("nansum")
def nansum(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The sum with NaN counting as 0.

    >>> gpunn.nansum(gpunn.tensor([1.0, float("nan")]))
    tensor(1.)
    """
    if input.dtype.category < dtypes.FLOATING:
        return sum(input, dim, keepdim, dtype=dtype, out=out)
    clean = input.where(~(input != input), 0.0)  # type: ignore[attr-defined, operator]
    return sum(clean, dim, keepdim, dtype=dtype, out=out)


@autocasts("nanmean")
def nanmean(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The mean of what is not NaN.

    >>> gpunn.nanmean(gpunn.tensor([1.0, float("nan"), 3.0]))
    tensor(2.)
    """
    count = (input == input).sum(dim, keepdim)  # type: ignore[attr-defined]
    made = nansum(input, dim, keepdim, dtype=dtype) / count  # type: ignore[operator]
    return made if out is None else write_out(out, made, "nanmean")


# --- variance -----------------------------------------------------------------------------


def count_along(x: Any, axes: Any) -> int:
    """How many elements of an array go into each result."""
    return x.size if axes is None else int(np.prod([x.shape[a] for a in axes]))


@vjp((0, None, None, None, None), name="VarBackward0")
def _var_vjp(g: Any, x: Any, axes: Any, keepdim: bool, count: int, degrees: float) -> Any:
    g = restore(g, tuple(x.shape), axes, keepdim)
    scale = 2.0 / degrees if degrees > 0 else float("inf")
    return g * scale * (x - x.sum(axis=axes, keepdims=True) / count)


@vjp((0, -1, None, None, None, None), name="StdBackward0")
def _std_vjp(
    g: Any, x: Any, y: Any, axes: Any, keepdim: bool, count: int, degrees: float
) -> Any:
    """Where the deviation is 0, so is the gradient."""
    flat = y == 0
    flat = flat.to(g.dtype) if isinstance(g, Tensor) else flat.astype(g.dtype)
    return _var_vjp(g * (1 - flat) / (y * 2 + flat), x, axes, keepdim, count, degrees)


def _moment_args(args: tuple[Any, ...], kw: dict[str, Any]) -> tuple[Any, Any, bool]:
    """(dim, correction, keepdim) from the overloads of var and std."""
    kw = dict(kw)
    unbiased, dim, keepdim = kw.pop("unbiased", None), kw.pop("dim", None), kw.pop("keepdim", False)
    dim = kw.pop("axis", dim)
    correction = kw.pop("correction", None)
    if kw:
        raise TypeError(f"var() got an unexpected keyword argument '{next(iter(kw))}'")
    rest = list(args)
    if rest and isinstance(rest[0], bool) and dim is None and len(rest) == 1:
        unbiased = rest.pop(0)
    if rest:
        dim = rest.pop(0)
    if rest:
        unbiased = rest.pop(0)
    if rest:
        keepdim = rest.pop(0)
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    return dim, correction, keepdim


def _variance(input: Tensor, dim: Any, correction: Any, keepdim: bool, root: bool) -> Tensor:
    x = input.array
    if x.dtype.kind in "biu":
        raise RuntimeError("std and var only support floating point and complex dtypes")
    if x.dtype.kind == "c":
        parts = [_variance(p, dim, correction, keepdim, False) for p in (input.real, input.imag)]  # type: ignore[attr-defined]
        made = parts[0] + parts[1]  # type: ignore[operator]
        return made.sqrt() if root else made
    axes = axes_of(dim, x.ndim)
    if axes == ():
        axes = None
    wide = x.astype(F32) if half(x.dtype) else x
    count = count_along(x, axes)
    degrees = count - correction
    centred = wide - wide.sum(axis=axes, keepdims=True) / wide.dtype.type(count)
    total = (centred * centred).sum(axis=axes, keepdims=keepdim)
    y = total / wide.dtype.type(degrees if degrees > 0 else 0)
    if degrees <= 0:
        _warn_degrees("std" if root else "var", count, correction)
    if root:
        y = ns(x).sqrt(y)
    y = input.device.xp.asarray(y).astype(x.dtype, copy=False)
    if root:
        return result(y, input, _std_vjp, (input,), (x, y, axes, keepdim, count, degrees))
    return result(y, input, _var_vjp, (input,), (x, axes, keepdim, count, degrees))


def _warn_degrees(name: str, count: int, correction: Any) -> None:
    warnings.warn(
        f"{name}(): degrees of freedom is <= 0. Correction should be strictly less than the "
        f"reduction factor (input numel divided by output numel). {count} values, correction "
        f"{correction}.",
        stacklevel=4,
    )


def var(input: Tensor, *args: Any, out: Tensor | None = None, **kw: Any) -> Tensor:
    """The variance over all elements or over `dim`: var(input, dim=None, *, correction=1,
    keepdim=False); `unbiased` is accepted as in PyTorch.

    RuntimeError for integers. Source:
    https://docs.pytorch.org/docs/stable/generated/torch.var.html

    >>> gpunn.var(gpunn.tensor([1., 2., 3.]))
    tensor(1.)
    """
    made = _variance(input, *_moment_args(args, kw), False)
    return made if out is None else write_out(out, made, "var")


def std(input: Tensor, *args: Any, out: Tensor | None = None, **kw: Any) -> Tensor:
    """The standard deviation: the root of `var`, with its arguments.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.std.html

    >>> gpunn.std(gpunn.tensor([1., 2., 3.]))
    tensor(1.)
    """
    made = _variance(input, *_moment_args(args, kw), True)
    return made if out is None else write_out(out, made, "std")


def var_mean(input: Tensor, *args: Any, **kw: Any) -> tuple[Tensor, Tensor]:
    """(variance, mean), with the arguments of `var`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.var_mean.html

    >>> gpunn.var_mean(gpunn.tensor([1., 2., 3.]))
    (tensor(1.), tensor(2.))
    """
    dim, correction, keepdim = _moment_args(args, kw)
    return _variance(input, dim, correction, keepdim, False), mean(input, dim, keepdim)


def std_mean(input: Tensor, *args: Any, **kw: Any) -> tuple[Tensor, Tensor]:
    """(standard deviation, mean), with the arguments of `var`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.std_mean.html

    >>> gpunn.std_mean(gpunn.tensor([1., 2., 3.]))
    (tensor(1.), tensor(2.))
    """
    dim, correction, keepdim = _moment_args(args, kw)
    return _variance(input, dim, correction, keepdim, True), mean(input, dim, keepdim)


# --- products -----------------------------------------------------------------------------


@vjp((0, None, None))
def _prod_vjp(g: Any, x: Any, axis: Any, keepdim: bool) -> Any:
    """The product of all others, exact where elements are zero: prefixes times suffixes."""
    if axis is None:
        flat = x.reshape((-1,))
        return (_others(flat, 0).conj() * g).reshape(tuple(x.shape))
    if not keepdim:
        g = restore(g, tuple(x.shape), (axis,), False)
    return g * _others(x, axis).conj()


def _others(x: Any, axis: int) -> Any:
    """For each element the product of all others along an axis."""
    xp = ns(x)
    n = x.shape[axis]
    if n == 0:
        return x
    lead = (slice(None),) * (axis % x.ndim)
    ones = xp.ones_like(x[(*lead, slice(0, 1))])
    before = xp.cumprod(xp.concatenate([ones, x[(*lead, slice(0, n - 1))]], axis=axis), axis=axis)
    turned = xp.flip(x, (axis % x.ndim,))
    after = xp.cumprod(
        xp.concatenate([ones, turned[(*lead, slice(0, n - 1))]], axis=axis), axis=axis
    )
    return before * xp.flip(after, (axis % x.ndim,))


@autocasts("prod")
def prod(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The product over all elements, or over one dimension.

    dtypes: integers and bool give int64 unless `dtype` is given.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.prod.html

    >>> gpunn.prod(gpunn.tensor([2, 3]))
    tensor(6)
    """
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype).numpy)
    x = input.array
    axis = None if dim is None else normal_dim(dim, x.ndim)
    if x.ndim == 0:
        return result(sum_array(x), input, _sum_vjp, (input,), ((), None, False))
    wide = x.astype(np.int64) if x.dtype.kind in "biu" and dtype is None else (
        x.astype(F32) if half(x.dtype) else x
    )  # fmt: skip
    y = wide.prod(axis=axis, keepdims=keepdim and axis is not None)
    if half(x.dtype) or dtype is not None:
        y = input.device.xp.asarray(y).astype(x.dtype, copy=False)
    made = result(y, input, _prod_vjp, (input,), (x, axis, keepdim))
    return made if out is None else write_out(out, made, "prod")


# --- any, all, counting -------------------------------------------------------------------


def _truth(name: str, summary: str, gives: str) -> Any:
    def reduce(
        input: Tensor, dim: Any = None, keepdim: bool = False, *, out: Tensor | None = None,
        axis: Any = None, keepdims: bool = False,
    ) -> Tensor:  # fmt: skip
        dim, keepdim = _numpy_names(dim, keepdim, axis, keepdims)
        x = input.array
        y = getattr(x if x.dtype.kind != "V" else x != 0, name)(
            axis=axes_of(dim, x.ndim), keepdims=keepdim
        )
        y = input.device.xp.asarray(y)
        made = result(y.astype(np.uint8) if x.dtype == np.uint8 else y, input)
        return made if out is None else write_out(out, made, name)

    from gpunn.ops._rows import document

    document(reduce, name, summary, f"gpunn.{name}(gpunn.tensor([True, False]))\ntensor({gives})",
             "over all elements or over `dim`", "bool (uint8 for uint8)")  # fmt: skip
    return reduce


any = _truth("any", "Whether any element is true.", "True")  # noqa: A001
all = _truth("all", "Whether all elements are true.", "False")  # noqa: A001


def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements are not zero, over all or over `dim`; int64.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.count_nonzero.html

    >>> gpunn.count_nonzero(gpunn.tensor([0, 2, 3]))
    tensor(2)
    """
    mask = input.array != 0
    found = ns(mask).count_nonzero(mask, axis=axes_of(dim, mask.ndim))
    return result(input.device.xp.asarray(found).astype(np.int64, copy=False), input)


# --- norms --------------------------------------------------------------------------------


@autocasts("logsumexp")
def logsumexp(
    input: Tensor, dim: Any, keepdim: bool = False, *, out: Tensor | None = None
) -> Tensor:
    """log(sum(exp(x))) over `dim`, without overflow.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.logsumexp.html

    >>> gpunn.logsumexp(gpunn.zeros(2), 0)
    tensor(0.6931)
    """
    x = input
    if x.dtype.category < dtypes.FLOATING:
        x = cast(x, dtypes.get_default_dtype().numpy)
    axes = axes_of(dim, x.array.ndim)
    y = _logsumexp_array(x.array, None if axes == () else axes, keepdim)
    made = result(y, x, _logsumexp_vjp, (x,), (x.array, y, axes, keepdim))
    return made if out is None else write_out(out, made, "logsumexp")


def _logsumexp_array(x: Any, axes: Any, keepdim: bool) -> Any:
    xp = ns(x)
    if half(x.dtype):
        return xp.asarray(_logsumexp_array(x.astype(F32), axes, keepdim)).astype(x.dtype)
    real = x.real if x.dtype.kind == "c" else x
    top: Any = 0.0
    if x.size:
        top = real.max(axis=axes, keepdims=True)
        top = xp.where(xp.isfinite(top), top, top.dtype.type(0))
    y = xp.log(xp.exp(x - top).sum(axis=axes, keepdims=True)) + top
    y = y if keepdim else y.reshape(()) if axes is None else y.squeeze(axes)
    return xp.asarray(y)


@vjp((0, -1, None, None))
def _logsumexp_vjp(g: Any, x: Any, y: Any, axes: Any, keepdim: bool) -> Any:
    shape = tuple(x.shape)
    g, y = restore(g, shape, axes, keepdim), restore(y, shape, axes, keepdim)
    share = ns(g).exp(x - y)
    return g * (share.conj() if x.dtype in _COMPLEX else share)


_COMPLEX = (dtypes.complex64, dtypes.complex128, np.complex64, np.complex128)


@autocasts("norm")
def norm(
    input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False,
    out: Tensor | None = None, dtype: Any = None,
) -> Tensor:  # fmt: skip
    """The p-norm over all elements or over `dim`: a number, inf, -inf, "fro" or "nuc".

    Source: https://docs.pytorch.org/docs/stable/generated/torch.norm.html

    >>> gpunn.norm(gpunn.tensor([3., 4.]))
    tensor(5.)
    """
    from gpunn import linalg

    if isinstance(p, str) and p not in ("fro", "nuc"):
        raise RuntimeError(f"only valid string values are 'fro' and 'nuc', found: {p}")
    if p == "nuc":
        made = linalg.matrix_norm(input, "nuc", (-2, -1) if dim is None else dim, keepdim)
    else:
        order = 2 if p == "fro" or p is None else p
        made = linalg.vector_norm(input, order, dim, keepdim, dtype=dtype)
    return made if out is None else write_out(out, made, "norm")


@autocasts("dist")
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input - other.

    >>> gpunn.dist(gpunn.tensor([3., 4.]), gpunn.zeros(2))
    tensor(5.)
    """
    return norm(input - other, p)  # type: ignore[operator]


@autocasts("renorm")
def renorm(
    input: Tensor, p: float, dim: int, maxnorm: float, *, out: Tensor | None = None
) -> Tensor:
    """Scales each slice along `dim` whose p-norm exceeds `maxnorm` down to it.

    RuntimeError for p <= 0, a negative maxnorm, and fewer than two dimensions.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.renorm.html

    >>> gpunn.renorm(gpunn.tensor([[3., 4.], [0.3, 0.4]]), 2, 0, 1.0)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    x = input
    if isinstance(p, complex):
        raise RuntimeError("renorm: p must be real-valued")
    if not p > 0:
        raise RuntimeError(f"renorm: non-positive-norm not supported, got p = {p}")
    if isinstance(maxnorm, complex):
        raise RuntimeError("renorm: maxnorm must be real-valued")
    if not maxnorm >= 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    if x.array.ndim < 2:
        raise RuntimeError(
            f"renorm: input needs at least 2 dimensions, got {x.array.ndim} dimensions"
        )
    from gpunn.ops.choose import where

    axis = normal_dim(dim, x.array.ndim)
    wide = cast(x, F32) if half(x.array.dtype) else x
    size = norm(wide, p, [d for d in range(x.array.ndim) if d != axis], True)
    scale = where(size > maxnorm, maxnorm / (size + 1e-7), 1.0)  # type: ignore[operator]
    made = x * cast(scale, x.array.dtype)  # type: ignore[operator]
    return made if out is None else write_out(out, made, "renorm")


_METHODS = [
    "all", "any", "count_nonzero", "dist", "logsumexp", "mean", "nanmean", "nansum", "norm", "prod",
    "renorm", "std", "sum", "var",
]  # fmt: skip
__all__ = [*_METHODS, "std_mean", "var_mean"]
for _name in _METHODS:
    setattr(Tensor, _name, globals()[_name])
Tensor.renorm_ = inplace(renorm, "renorm")  # type: ignore[attr-defined]
