"""Gradients clipped in norm or in value, in place."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any

import numpy as np

from gpunn import dtypes, native
from gpunn.amp.grad_scaler import note_clipping
from gpunn.autograd import touch
from gpunn.cuda.kernels import optim as kernels
from gpunn.optim.optimizer import on
from gpunn.tensor import Tensor, wrap

__all__ = [
    "clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_",
    "get_total_norm",
]  # fmt: skip

CHUNK = 1 << 20  # elements whose powers are summed at a time: bounds memory and rounding error
NATIVE_SIZE = 1 << 15  # elements from which on the C++ library is asked
Tensors = Tensor | Iterable[Tensor]


def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales all gradients by one factor so that their norm together is at most `max_norm`.

    Returns the norm that they had, 0-dim. `norm_type` is any order, `math.inf` the largest
    absolute value. Raises RuntimeError for a norm that is not finite, with `error_if_nonfinite`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html

    >>> p = gpunn.zeros(2, requires_grad=True)
    >>> p.grad = gpunn.tensor([3.0, 4.0])
    >>> nn.utils.clip_grad_norm_([p], max_norm=1.0)
    tensor(5.)
    >>> p.grad
    tensor([0.6000, 0.8000])
    """
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    else:
        generator = isinstance(parameters, types.GeneratorType)
        parameters = list(parameters)
        if generator and not parameters:
            warnings.warn(
                "`parameters` is an empty generator, no gradient clipping will occur.",
                stacklevel=2,
            )
    total = get_total_norm(_grads(parameters), norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


def clip_grad_norm(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """`clip_grad_norm_` under its old name; warns.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm.html
    """
    warnings.warn(
        "`nn.utils.clip_grad_norm` is now deprecated in favor of `nn.utils.clip_grad_norm_`.",
        FutureWarning,
        stacklevel=2,
    )
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


def get_total_norm(
    tensors: Tensors,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all elements of several tensors together, 0-dim, on the device of the first.

    Half precision is summed in float32. Raises RuntimeError for a norm that is not finite, with
    `error_if_nonfinite`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.get_total_norm.html

    >>> nn.utils.get_total_norm([gpunn.tensor([3.0]), gpunn.tensor([4.0])])
    tensor(5.)
    """
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    norm_type = float(norm_type)
    if not tensors:
        return wrap(np.zeros((), dtypes.F32))
    device = tensors[0].device
    dtype = reduce(dtypes.promote_types, [t.dtype.to_real() for t in tensors])
    total = on(device, _total, tensors, norm_type, dtype.numpy)
    if error_if_nonfinite and not np.isfinite(float(total)):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, "
            "so it cannot be clipped. To disable this error and scale the gradients by the "
            "non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return wrap(device.xp.asarray(total, dtype=dtype.numpy), device)


def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scales all gradients by `max_norm` / `total_norm` where that is less than 1.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grads_with_norm_.html

    >>> p = gpunn.zeros(1, requires_grad=True)
    >>> p.grad = gpunn.tensor([5.0])
    >>> nn.utils.clip_grads_with_norm_([p], 1.0, gpunn.tensor(10.0))
    >>> round(p.grad.item(), 4)
    0.5
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    note_clipping(parameters)
    device, total, limit = total_norm.device, total_norm.array, float(max_norm)
    grads = list(_grads(parameters))
    if device.xp is np:
        factor = limit / (float(total) + 1e-6)
        if factor >= 1:
            return
    else:  # a GPU is not waited for: it multiplies by 1
        grads = on(device, _scaled_by_kernels, device, grads, total, limit)
        factor = on(device, _factor, device.xp, total, limit) if grads else 1.0
    for grad in grads:
        here = factor if grad.device is device else float(factor)
        on(grad.device, _scale, grad.device.xp, grad.array, here)
        touch(grad)


def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clamps each element of each gradient to [-`clip_value`, `clip_value`].

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html

    >>> p = gpunn.zeros(2, requires_grad=True)
    >>> p.grad = gpunn.tensor([-3.0, 0.5])
    >>> nn.utils.clip_grad_value_([p], 1.0)
    >>> p.grad
    tensor([-1.0000,  0.5000])
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    note_clipping(parameters)
    by_device: dict[Any, list[Tensor]] = {}
    for grad in _grads(parameters):
        touch(grad)
        by_device.setdefault(grad.device, []).append(grad)
    for device, grads in by_device.items():
        on(device, _clamp_all, device.xp, [grad.array for grad in grads], float(clip_value))


def _grads(parameters: Tensors) -> Iterator[Tensor]:
    for p in [parameters] if isinstance(parameters, Tensor) else parameters:
        grad = p._grad
        if grad is not None:
            if grad.is_sparse:
                raise NotImplementedError(
                    "clipping of sparse gradients is not supported, as in PyTorch. Leave the "
                    "parameters of Embedding(sparse=True) out."
                )
            yield grad


def _scaled_by_kernels(device: Any, grads: list[Tensor], total: Any, limit: float) -> list[Tensor]:
    """Scales the gradients on a GPU, which looks at the norm itself; returns those not scaled."""
    here = [g for g in grads if g.device is device]
    if not kernels.scale_by_norm([g.array for g in here], total, limit):
        return grads
    for grad in here:
        touch(grad)
    return [g for g in grads if g.device is not device]


def _factor(xp: Any, total: Any, limit: float) -> Any:
    """The factor as an array on the GPU."""
    return xp.minimum(limit / (total.astype(np.float64) + 1e-6), 1.0)


def _scale(xp: Any, g: Any, factor: Any) -> None:
    wide = dtypes.F64 if g.dtype.char in "dD" else dtypes.F32  # half precision is rounded once
    xp.multiply(g, xp.asarray(factor, dtype=wide), out=g, casting="unsafe")


def _clamp_all(xp: Any, grads: list[Any], limit: float) -> None:
    if xp is not np and kernels.clip_values(grads, limit):
        return
    for g in grads:
        high = g.dtype.type(limit)
        xp.minimum(g, high, out=g)
        xp.maximum(g, -high, out=g)


def _total(tensors: list[Tensor], p: float, dtype: Any) -> Any:
    """The norm of the tensors' norms; on a GPU without waiting for it, where it is but one."""
    device = tensors[0].device
    xp, one_gpu = device.xp, all(t.device is device for t in tensors) and device.xp is not np
    if one_gpu:
        total = kernels.total_norm([t.array for t in tensors], p, dtype)
        if total is not None:
            return total
    if p == 2 and all(t.device.xp is np for t in tensors):
        arrays = [t.array for t in tensors]
        enough = sum(a.size for a in arrays) >= NATIVE_SIZE
        squares = native.square_sum(arrays) if enough else None
        if squares is not None:
            return squares**0.5
    norms = [on(t.device, _norm, t, p) for t in tensors]
    together = xp.stack(norms) if one_gpu else xp.asarray([float(n) for n in norms])
    return _norm_of(xp, together, p)


def _norm(tensor: Tensor, p: float) -> Any:
    """The p-norm of one tensor, of half precision in float32."""
    xp, array = tensor.device.xp, tensor.array.ravel(order="K")
    if array.dtype.kind == "c":
        array = array.view(array.real.dtype) if p == 2 else abs(array)
    if array.dtype.itemsize == 2:
        array = array.astype(np.float32)
    if array.size <= CHUNK:
        return _norm_of(xp, array, p)
    parts = [_norm_of(xp, array[i : i + CHUNK], p) for i in range(0, array.size, CHUNK)]
    if p == 0:
        return sum(parts)
    return _norm_of(xp, xp.stack(parts).astype(np.float64), p)


def _norm_of(xp: Any, x: Any, p: float) -> Any:
    """The p-norm of a real vector."""
    if p == 2:
        return xp.sqrt(x.dot(x))
    if p == 0:
        return (x != 0).sum()
    if abs(p) == np.inf:
        if p > 0:
            return abs(x).max() if x.size else x.sum()  # CuPy's max takes no initial=
        return abs(x).min()
    return (abs(x) ** p).sum() ** (1 / p)
