"""Rprop: resilient backpropagation."""

from __future__ import annotations

from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, scalar, zeros_like
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor, wrap

__all__ = ["Rprop"]


def _rprop(
    xp: Any, p: Any, g: Any, previous: Any, step: Any, down: Any, up: Any, low: Any, high: Any
) -> None:
    agreement = g * previous
    turned = agreement < 0
    step[...] = xp.clip(
        xp.where(turned, step * down, xp.where(agreement > 0, step * up, step)), low, high
    )
    previous[...] = xp.where(turned, xp.zeros_like(g), g)
    p -= xp.sign(previous) * step


class Rprop(Elementwise):
    """Resilient backpropagation: each element has its own step, the gradient gives only the sign.

    The step grows by the factor η₊ while the sign stays, shrinks by η₋ when it turns (that once
    without moving), within `step_sizes`; θ ← θ - step · sign(g). Meant for whole-batch gradients.
    `foreach` and `capturable` are accepted and change nothing. Raises ValueError for `etas` that
    are not 0 < η₋ < 1 < η₊, RuntimeError for sparse gradients.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Rprop.html,
    https://doi.org/10.1109/ICNN.1993.298623

    >>> p = gpunn.tensor([1.0], requires_grad=True)
    >>> optimizer = gpunn.optim.Rprop([p], lr=0.25)
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.7500], requires_grad=True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_options(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(params, {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        })  # fmt: skip

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        lr = float(group["lr"])
        value = complex(lr, lr) if p.dtype.is_complex else lr
        step_size = p.device.xp.full_like(p.array, value)
        return {
            "step": scalar(0.0), "prev": zeros_like(p), "step_size": wrap(step_size, p.device),
        }  # fmt: skip

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        return _rprop, ("prev", "step_size")

    def _coefficients(self, group: dict[str, Any], t: float) -> tuple[Any, ...]:
        return *group["etas"], *group["step_sizes"]
