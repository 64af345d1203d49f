"""Normalisation of rows: what layer, RMS, group and instance normalisation share.

The input is seen as rows of n numbers, each brought to mean 0 and variance 1 (RMS: to a mean of
squares of 1), times a weight, plus a bias. `Plan` says which numbers are a row and which weight
belongs to which number. Statistics are in float32 at least; the result is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpunn import dtypes, native
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import needs as recorded
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import norm as kernels
from gpunn.dtypes import F32
from gpunn.ops._rows import cast, half, proper
from gpunn.tensor import Tensor


class Plan(NamedTuple):
    """`rows` rows of n numbers; `groups` of them make an image. Number j of a row has the weight
    j // run of the n / run that belong to the row's group."""

    rows: int
    n: int
    groups: int = 1
    run: int = 1
    rms: bool = False

    def parts(self) -> tuple[int, int, int, int]:
        """The shape with an axis for each: images, groups, weights of a group, run."""
        images = self.rows // self.groups if self.groups else 0
        return images, self.groups, self.n // self.run if self.run else 0, self.run


def row_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, plan: Plan, rule: Any
) -> Tensor:
    """The operation; `rule` is its VJP, made by `row_norm_rule`."""
    x, w, b = input.array, _raw(weight), _raw(bias)
    if x.size == 0:
        y, mean, rstd = x.copy(), None, None
    else:
        y, mean, rstd = _forward(x.reshape(plan.rows, plan.n), _flat(w), _flat(b), eps, plan)
        y = y.reshape(x.shape)
    if not (recorded(input) or recorded(weight) or recorded(bias)):
        return result(y, input)
    return result(y, input, rule, (input, weight, bias), (x, w, b, mean, rstd, eps, plan))


def row_norm_rule(name: str) -> Any:
    """The VJP of `row_norm` under PyTorch's name of an operation."""

    @vjp((0, 1, 2, None, None, None, None), composed=_composed, masked=True, name=name)
    def rule(
        g: Any, x: Any, weight: Any, bias: Any, mean: Any, rstd: Any, eps: float, plan: Plan,
        needs: Any,
    ) -> Any:  # fmt: skip
        if x.size == 0:
            return tuple(None if a is None else ns(x).zeros_like(a) for a in (x, weight, bias))
        shape = plan.rows, plan.n
        gs = _backward(x.reshape(shape), g.reshape(shape), weight, bias, mean, rstd, plan, needs)
        return tuple(
            None if a is None else a.reshape(like.shape).astype(like.dtype, copy=False)
            for a, like in zip(gs, (x, weight, bias), strict=True)
        )

    return rule


def _composed(
    x: Tensor, weight: Any, bias: Any, mean: Any, rstd: Any, eps: float, plan: Plan
) -> Tensor:
    """The same in plain operations."""
    y = cast(x, F32) if half(x.array.dtype) else x
    if x.array.size:
        y = y.reshape(plan.parts())
        if not plan.rms:
            y = y - y.mean((2, 3), keepdim=True)
        y = y * ((y * y).mean((2, 3), keepdim=True) + eps).rsqrt()
        along = (1, plan.groups, -1, 1)
        y = y if weight is None else y * weight.reshape(along)
        y = y if bias is None else y + bias.reshape(along)
    return cast(y.reshape(x.shape), x.array.dtype)


def _forward(
    x: Any, w: Any, b: Any, eps: float, plan: Plan
) -> tuple[Any, Any, Any]:
    """(y, mean, rstd) of raw arrays; without mean for RMS."""
    if type(x) is not np.ndarray:
        found = kernels.row_norm_forward(x, w, b, eps, plan.groups, plan.run, plan.rms)
        return _forward_arrays(x, w, b, eps, plan) if found is None else found
    wide = F32 if half(x.dtype) else x.dtype
    found = native.row_norm_forward(
        _to(x, wide), _to(w, wide), _to(b, wide), eps, plan.groups, plan.run, plan.rms
    )
    y, mean, rstd = _forward_arrays(x, w, b, eps, plan) if found is None else found
    return _to(y, x.dtype), mean, rstd


def _forward_arrays(x: Any, w: Any, b: Any, eps: float, plan: Plan) -> tuple[Any, Any, Any]:
    """The same with array operations."""
    wide = _to(x, F32 if half(x.dtype) else x.dtype).reshape(plan.parts())
    axes, along = (2, 3), (1, plan.groups, -1, 1)
    mean = None if plan.rms else wide.mean(axis=axes, keepdims=True)
    centred = wide if mean is None else wide - mean
    square = (centred * centred).mean(axis=axes, keepdims=True)
    rstd = (1 / ns(x).sqrt(square + eps)).astype(wide.dtype, copy=False)
    y = centred * rstd
    y = y if w is None else y * _to(w, wide.dtype).reshape(along)
    y = y if b is None else y + _to(b, wide.dtype).reshape(along)
    mean = None if mean is None else mean.reshape(plan.rows)
    return _to(y, x.dtype).reshape(x.shape), mean, rstd.reshape(plan.rows)


def _backward(
    x: Any, g: Any, w: Any, b: Any, mean: Any, rstd: Any, plan: Plan, needs: Any
) -> Any:
    """The gradients of x, weight and bias: those that are needed, others None."""
    needs = tuple(needs)
    if type(x) is not np.ndarray:
        like = w if b is None else b
        found = kernels.row_norm_backward(
            x, g, _flat(w), mean, rstd, plan.groups, plan.run, plan.rms, needs,
            None if like is None else like.dtype,
        )  # fmt: skip
    else:
        wide = F32 if half(x.dtype) else x.dtype
        found = native.row_norm_backward(
            _to(x, wide), _to(g, wide), _to(_flat(w), wide), mean, rstd, plan.groups, plan.run,
            plan.rms, needs,
        )  # fmt: skip
    return _backward_arrays(x, g, w, mean, rstd, plan, needs) if found is None else found


def _backward_arrays(
    x: Any, g: Any, w: Any, mean: Any, rstd: Any, plan: Plan, needs: tuple[bool, ...]
) -> tuple[Any, Any, Any]:
    wide = F32 if half(x.dtype) else x.dtype
    x, g = (_to(a, wide).reshape(plan.parts()) for a in (x, g))
    spread = (-1, plan.groups, 1, 1)
    unit = (x if mean is None else x - mean.reshape(spread)) * rstd.reshape(spread)
    gw = (g * unit).sum(axis=(0, 3)) if needs[1] else None
    gb = g.sum(axis=(0, 3)) if needs[2] else None
    if not needs[0]:
        return None, gw, gb
    g = g if w is None else g * _to(w, wide).reshape(1, plan.groups, -1, 1)
    gx = g - unit * (g * unit).mean(axis=(2, 3), keepdims=True)
    if mean is not None:
        gx = gx - g.mean(axis=(2, 3), keepdims=True)
    return gx * rstd.reshape(spread), gw, gb


def check_types(name: str, input: Any, params: dict[str, Tensor | None]) -> None:
    """Parameters have the input's dtype, or all are float32 where the input has 16 bits; all lie on
    the input's device. NotImplementedError for a dtype without this operation, else RuntimeError.
    """
    x = input.array
    if x.dtype.kind not in "fV":
        raise NotImplementedError(f"\"{name}\" not implemented for '{proper(input.dtype)}'")
    given = {k: t for k, t in params.items() if t is not None}
    first = None
    for key, t in given.items():
        first = t if first is None else first
        if t.device is not input.device:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, "
                f"{input.device} and {t.device}! ({name}: input and {key}) Use .to() to move one."
            )
        if t.dtype is not first.dtype:
            raise RuntimeError(
                f"expected scalar type {proper(first.dtype)} but found {proper(t.dtype)}: {name} "
                f"got {key} of {t.dtype}, and others of {first.dtype}"
            )
    if first is None or first.dtype is input.dtype:
        return
    if not (half(x.dtype) and first.array.dtype == F32):
        core = "all inputs must share same datatype."
        if x.dtype != np.float64 or first.array.dtype != F32:
            core = "expect parameter to have scalar type of Float"
        raise RuntimeError(
            f"mixed dtype ({input.device.type.upper()}): {core} ({name} got {input.dtype} and "
            f"parameters of {first.dtype}; a 16-bit input also takes float32 ones)"
        )


def check_channels(
    name: str, channels: int, params: dict[str, Tensor | None], message: Callable[..., str]
) -> None:
    """Each given parameter is a vector of the channels; `message(key, tensor)` says what is not."""
    for key, t in params.items():
        if t is not None and t.array.shape != (channels,):
            raise RuntimeError(f"{message(key, t)} ({name})")


def finfo_eps(x: Any) -> float:
    """The smallest step from 1 in the dtype in which statistics of x are computed."""
    return float(dtypes.finfo(dtypes.of(F32 if half(x.dtype) else x.dtype)).eps)


def _raw(t: Tensor | None) -> Any:
    return None if t is None else t.array


def _flat(a: Any) -> Any:
    return None if a is None else a.reshape(-1)


def _to(a: Any, dtype: Any) -> Any:
    return None if a is None else a.astype(dtype, copy=False)
