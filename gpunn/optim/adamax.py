"""Adamax: Adam with the maximum norm."""

from __future__ import annotations

from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, number, scalar, zeros_like
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor

__all__ = ["Adamax"]


def _adamax(
    xp: Any, p: Any, g: Any, m: Any, u: Any, rest1: Any, beta2: Any, eps: Any, lr: Any
) -> None:
    m += (g - m) * rest1
    u[...] = xp.maximum(u * beta2, abs(g) + eps)
    p -= m / u * lr


class Adamax(Elementwise):
    """Adamax: Adam with the decaying maximum of |g| in place of the root mean square.

    m ← β₁ m + (1 - β₁) g, u ← max(β₂ u, |g| + ε), θ ← θ - γ m / ((1 - β₁ᵗ) u).
    `weight_decay` λ adds λθ to g; `foreach` and `capturable` are accepted and change nothing.
    Raises ValueError for options out of range, RuntimeError for sparse gradients.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adamax.html,
    https://arxiv.org/abs/1412.6980

    >>> p = gpunn.tensor([1.0], requires_grad=True)
    >>> optimizer = gpunn.optim.Adamax([p], lr=0.1)
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.9000], requires_grad=True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_options(lr, eps, betas, weight_decay=weight_decay)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable,
        })  # fmt: skip

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        return {"step": scalar(0.0), "exp_avg": zeros_like(p), "exp_inf": zeros_like(p)}

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        return _adamax, ("exp_avg", "exp_inf")

    def _coefficients(self, group: dict[str, Any], t: float) -> tuple[Any, ...]:
        beta1, beta2 = group["betas"]
        return 1 - beta1, beta2, group["eps"], number(group, "lr") / (1 - beta1**t)
