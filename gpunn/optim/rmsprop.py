"""RMSprop."""

from __future__ import annotations

from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, number, scalar, zeros_like
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor

__all__ = ["RMSprop"]


def _plain(xp: Any, p: Any, g: Any, v: Any, alpha: Any, rest: Any, eps: Any, lr: Any) -> None:
    v *= alpha
    v += g * g * rest
    p -= g / (xp.sqrt(v) + eps) * lr


def _centered(
    xp: Any, p: Any, g: Any, v: Any, mean: Any, alpha: Any, rest: Any, eps: Any, lr: Any
) -> None:
    v *= alpha
    v += g * g * rest
    mean += (g - mean) * rest
    p -= g / (xp.sqrt(v - mean * mean) + eps) * lr


def _momentum(
    xp: Any, p: Any, g: Any, v: Any, b: Any,
    alpha: Any, rest: Any, eps: Any, lr: Any, mu: Any,
) -> None:  # fmt: skip
    v *= alpha
    v += g * g * rest
    b *= mu
    b += g / (xp.sqrt(v) + eps)
    p -= b * lr


def _centered_momentum(
    xp: Any, p: Any, g: Any, v: Any, mean: Any, b: Any,
    alpha: Any, rest: Any, eps: Any, lr: Any, mu: Any,
) -> None:  # fmt: skip
    v *= alpha
    v += g * g * rest
    mean += (g - mean) * rest
    b *= mu
    b += g / (xp.sqrt(v - mean * mean) + eps)
    p -= b * lr


class RMSprop(Elementwise):
    """RMSprop: the gradient over the running root mean square of itself.

    v ← α v + (1 - α) g², θ ← θ - γ g / (√v + ε). `centered` subtracts the square of the running
    mean of g from v under the root; with `momentum` μ, b ← μ b + g / (√v + ε) takes the place of
    the quotient. `weight_decay` λ adds λθ to g; `foreach` and `capturable` are accepted and
    change nothing. Raises ValueError for negative options, RuntimeError for sparse gradients.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.RMSprop.html,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf

    >>> p = gpunn.tensor([1.0], requires_grad=True)
    >>> optimizer = gpunn.optim.RMSprop([p], lr=0.1)
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p.item() < 1
    True
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_options(lr, eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable,
        })  # fmt: skip

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        state = {"step": scalar(0.0), "square_avg": zeros_like(p)}
        if group["momentum"] > 0:
            state["momentum_buffer"] = zeros_like(p)
        if group["centered"]:
            state["grad_avg"] = zeros_like(p)
        return state

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        if group["momentum"] > 0 and group["centered"]:
            return _centered_momentum, ("square_avg", "grad_avg", "momentum_buffer")
        if group["momentum"] > 0:
            return _momentum, ("square_avg", "momentum_buffer")
        if group["centered"]:
            return _centered, ("square_avg", "grad_avg")
        return _plain, ("square_avg",)

    def _coefficients(self, group: dict[str, Any], t: float) -> tuple[Any, ...]:
        numbers = group["alpha"], 1 - group["alpha"], group["eps"], number(group, "lr")
        return (*numbers, group["momentum"]) if group["momentum"] > 0 else numbers
