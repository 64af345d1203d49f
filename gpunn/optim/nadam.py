"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, number, scalar, zeros_like
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor

__all__ = ["NAdam"]


def _nadam(
    xp: Any, p: Any, g: Any, m: Any, v: Any,
    rest1: Any, beta2: Any, rest2: Any, correction2: Any, eps: Any, lr_g: Any, lr_m: Any,
) -> None:  # fmt: skip
    m += (g - m) * rest1
    v *= beta2
    v += g * g * rest2
    p -= (g * lr_g + m * lr_m) / (xp.sqrt(v / correction2) + eps)


class NAdam(Elementwise):
    """NAdam: Adam whose step already looks ahead by the next momentum, as Nesterov's does.

    μₜ = β₁ (1 - ½·0.96^(tψ)) with ψ = `momentum_decay`; m and v as Adam's;
    m̂ = μₜ₊₁ m / (1 - Πμ up to t + 1) + (1 - μₜ) g / (1 - Πμ up to t); θ ← θ - γ m̂ / (√v̂ + ε).
    `weight_decay` as Adam's; `foreach` and `capturable` are accepted and change nothing.
    Raises ValueError for options out of range, RuntimeError for sparse gradients.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.NAdam.html

    >>> p = gpunn.tensor([1.0], requires_grad=True)
    >>> optimizer = gpunn.optim.NAdam([p], lr=0.1)
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p.item() < 1
    True
    """

    _scalars = ("step", "mu_product")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_options(lr, eps, betas, weight_decay=weight_decay, momentum_decay=momentum_decay)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "differentiable": differentiable,
        })  # fmt: skip

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        return {
            "step": scalar(0.0), "mu_product": scalar(1.0),
            "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p),
        }  # fmt: skip

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        return _nadam, ("exp_avg", "exp_avg_sq")

    def _tick(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> tuple[Any, ...]:
        """The number of this step, μₜ, μₜ₊₁, and the product of the μ up to t."""
        (t,) = super()._tick(group, p, state)
        beta1, decay = group["betas"][0], group["momentum_decay"]
        mu = beta1 * (1 - 0.5 * 0.96 ** (t * decay))
        mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * decay))
        product = state["mu_product"].array
        product *= mu
        return t, mu, mu_next, float(product)

    def _coefficients(
        self, group: dict[str, Any], t: float, mu: float, mu_next: float, product: float
    ) -> tuple[Any, ...]:
        (beta1, beta2), lr = group["betas"], number(group, "lr")
        lr_g = lr * (1 - mu) / (1 - product)
        lr_m = lr * mu_next / (1 - product * mu_next)
        return 1 - beta1, beta2, 1 - beta2, 1 - beta2**t, group["eps"], lr_g, lr_m
