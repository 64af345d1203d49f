"""RAdam: Adam that waits with its adaptive steps until their variance is bounded."""

from __future__ import annotations

from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, number, scalar, zeros_like
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor

__all__ = ["RAdam"]


def _radam(
    xp: Any, p: Any, g: Any, m: Any, v: Any,
    rest1: Any, beta2: Any, rest2: Any, eps: Any, lr: Any, adaptive: Any,
) -> None:  # fmt: skip
    m += (g - m) * rest1
    v *= beta2
    v += g * g * rest2
    p -= m / (xp.sqrt(v) + eps) * lr if adaptive else m * lr


class RAdam(Elementwise):
    """Rectified Adam: plain momentum at first, then Adam's step times a rectification.

    m and v as Adam's; ρ = ρ_∞ - 2 t β₂ᵗ / (1 - β₂ᵗ) with ρ_∞ = 2 / (1 - β₂) - 1. Where ρ > 5,
    θ ← θ - γ r m̂ / (√v + ε) · √(1 - β₂ᵗ), r = √((ρ-4)(ρ-2)ρ_∞ / ((ρ_∞-4)(ρ_∞-2)ρ)); until then
    θ ← θ - γ m̂. `weight_decay` as Adam's; `foreach` and `capturable` are accepted and change
    nothing. Raises ValueError for options out of range, RuntimeError for sparse gradients.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.RAdam.html,
    https://arxiv.org/abs/1908.03265

    >>> p = gpunn.tensor([1.0], requires_grad=True)
    >>> optimizer = gpunn.optim.RAdam([p], lr=0.1)
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.8000], requires_grad=True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_options(lr, eps, betas, weight_decay=weight_decay)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay, "differentiable": differentiable,
        })  # fmt: skip

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        return {"step": scalar(0.0), "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        return _radam, ("exp_avg", "exp_avg_sq")

    def _coefficients(self, group: dict[str, Any], t: float) -> tuple[Any, ...]:
        beta1, beta2 = group["betas"]
        correction2 = 1 - beta2**t
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / correction2
        lr = number(group, "lr") / (1 - beta1**t)
        if rho > 5:
            r = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            lr = lr * (r * correction2) ** 0.5
        return 1 - beta1, beta2, 1 - beta2, group["eps"], lr, rho > 5
