"""Adadelta."""

from __future__ import annotations

from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, number, scalar, zeros_like
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor

__all__ = ["Adadelta"]


def _adadelta(
    xp: Any, p: Any, g: Any, v: Any, u: Any, rho: Any, rest: Any, eps: Any, lr: Any
) -> None:
    v *= rho
    v += g * g * rest
    delta = xp.sqrt(u + eps) / xp.sqrt(v + eps) * g
    u *= rho
    u += delta * delta * rest
    p -= delta * lr


class Adadelta(Elementwise):
    """Adadelta: the step's scale is the running root mean square of the past steps.

    v ← ρ v + (1 - ρ) g², Δ = g √(u + ε) / √(v + ε), u ← ρ u + (1 - ρ) Δ², θ ← θ - γ Δ.
    `weight_decay` λ adds λθ to g; `foreach` and `capturable` are accepted and change nothing.
    Raises ValueError for options out of range, RuntimeError for sparse gradients.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adadelta.html,
    https://arxiv.org/abs/1212.5701

    >>> p = gpunn.tensor([1.0], requires_grad=True)
    >>> optimizer = gpunn.optim.Adadelta([p])
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p.item() < 1
    True
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        check_options(lr, eps, weight_decay=weight_decay)
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "capturable": capturable, "foreach": foreach,
            "differentiable": differentiable,
        })  # fmt: skip

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        return {"step": scalar(0.0), "square_avg": zeros_like(p), "acc_delta": zeros_like(p)}

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        return _adadelta, ("square_avg", "acc_delta")

    def _coefficients(self, group: dict[str, Any], t: float) -> tuple[Any, ...]:
        return group["rho"], 1 - group["rho"], group["eps"], number(group, "lr")
