"""Adafactor: second moments of matrices kept as their row and column means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd import touch
from gpunn.optim.elementwise import apply, scalar
from gpunn.optim.optimizer import Optimizer, ParamsT, on
from gpunn.tensor import Tensor, wrap

__all__ = ["Adafactor"]


def _rms(xp: Any, x: Any) -> float:
    return float(xp.linalg.norm(x)) / x.size**0.5


def _descend(xp: Any, p: Any, g: Any, v: Any, alpha: float, eps1: float, d: float) -> None:
    """θ ← θ - α û with u = g / √v, û = u / max(1, RMS(u) / d). `v` serves as scratch."""
    update = xp.divide(g, xp.sqrt(xp.maximum(v, eps1 * eps1, out=v), out=v), out=v)
    update *= alpha / max(1.0, _rms(xp, update) / d)
    p -= update


def _matrix(
    xp: Any, p: Any, g: Any, row: Any, col: Any,
    rest: float, alpha: float, keep: float, eps1: float, d: float,
) -> None:  # fmt: skip
    if keep != 1:
        p *= keep
    v = g * g
    row += (v.mean(-1, keepdims=True) - row) * rest
    col += (v.mean(-2, keepdims=True) - col) * rest
    xp.matmul(row, col / xp.maximum(row.mean(-2, keepdims=True), eps1), out=v)
    _descend(xp, p, g, v, alpha, eps1, d)


def _vector(
    xp: Any, p: Any, g: Any, variance: Any,
    rest: float, alpha: float, keep: float, eps1: float, d: float,
) -> None:  # fmt: skip
    if keep != 1:
        p *= keep
    variance += (g * g - variance) * rest
    _descend(xp, p, g, variance.copy(), alpha, eps1, d)


class Adafactor(Optimizer):
    """Adafactor: Adam without momentum, in the memory of one row and one column per matrix.

    With ρ = min(γ, 1/√t), α = max(ε₂, RMS(θ)) ρ and 1 - β₂ = t^τ (τ = `beta2_decay`), the means
    R and C of g² over rows and columns are averaged with β₂; V = R C / mean(R), u = g / √V,
    θ ← θ - γλθ - α u / max(1, RMS(u) / d). Vectors keep V itself. `eps` is (ε₁, ε₂), ε₁ by
    default the precision of the dtype. `foreach` is accepted and changes nothing.
    Raises ValueError for options out of range, RuntimeError for sparse gradients and complex
    parameters.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adafactor.html,
    https://arxiv.org/abs/1804.04235

    >>> p = gpunn.ones(2, 2, requires_grad=True)
    >>> optimizer = gpunn.optim.Adafactor([p], lr=0.5)
    >>> p.sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]], requires_grad=True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not lr >= 0.0:  # type: ignore[operator]
            raise ValueError(f"Learning rate should be >= 0 but is: {lr}")
        if not beta2_decay <= 0.0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None and not eps[0] >= 0.0:
            raise ValueError(f"epsilon1 should be >= 0 but is: {eps[0]}")
        if not eps[1] >= 0.0:
            raise ValueError(f"epsilon2 should be >= 0 but is: {eps[1]}")
        if not d >= 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay should be >= 0 but is: {weight_decay}")
        super().__init__(params, {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d,
            "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
        })  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for values in self.state.values():
            if values and not isinstance(values["step"], Tensor):
                values["step"] = scalar(values["step"])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have a gradient; returns the closure's loss."""
        loss = self._evaluate(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p._grad is not None:
                    on(p.device, self._update, group, p, p._grad)
        return loss

    def _update(self, group: dict[str, Any], p: Tensor, grad: Tensor) -> None:
        if p.dtype.is_complex:
            raise RuntimeError("Adafactor does not support complex parameters")
        if grad.is_sparse:
            raise RuntimeError("Adafactor does not support sparse gradients")
        state = self.state[p]
        if not state:
            state.update(_new_state(p))
        xp, lr = p.device.xp, float(group["lr"])
        eps1, eps2 = group["eps"]
        eps1 = dtypes.finfo(p.dtype).eps if eps1 is None else eps1
        count = state["step"].array
        t = float(count) + 1.0
        count.fill(t)
        wide = p.array if p.array.dtype.char in "fd" else p.array.astype(np.float32)
        alpha = max(eps2, _rms(xp, wide)) * min(lr, 1 / t**0.5)
        alpha = -alpha if group["maximize"] else alpha
        numbers = [
            t ** group["beta2_decay"], alpha, 1 - lr * group["weight_decay"], eps1, group["d"],
        ]  # fmt: skip
        g = grad.array
        if g.ndim > 1:
            arrays = [p.array, g, state["row_var"].array, state["col_var"].array]
            apply(_matrix, xp, arrays, numbers)
        else:
            apply(_vector, xp, [p.array, g, state["variance"].array], numbers)
        touch(p)


def _new_state(p: Tensor) -> dict[str, Any]:
    shape, xp = p.array.shape, p.device.xp

    def zeros(*shape: int) -> Tensor:
        return wrap(xp.zeros(shape, p.array.dtype), p.device)

    if len(shape) < 2:
        return {"step": scalar(0.0), "variance": zeros(*shape)}
    return {
        "step": scalar(0.0),
        "row_var": zeros(*shape[:-1], 1),
        "col_var": zeros(*shape[:-2], 1, shape[-1]),
    }
