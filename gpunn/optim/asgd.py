"""ASGD: averaged stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, scalar, zeros_like
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor

__all__ = ["ASGD"]


def _asgd(xp: Any, p: Any, g: Any, average: Any, keep: Any, eta: Any, mu: Any) -> None:
    p *= keep
    p -= g * eta
    if mu == 1:
        average[...] = p
    else:
        average += (p - average) * mu


class ASGD(Elementwise):
    """Averaged SGD: plain descent, whose average over the steps past `t0` is kept in the state.

    θ ← (1 - ληₜ) θ - ηₜ g with ηₜ₊₁ = γ / (1 + λγt)^α (λ = `lambd`, α = `alpha`); the state's
    "ax" ← ax + μ (θ - ax), μ = 1 / max(1, t - t0). `weight_decay` adds its multiple of θ to g;
    `foreach` and `capturable` are accepted and change nothing. Raises ValueError for negative
    options, RuntimeError for sparse gradients.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.ASGD.html,
    https://doi.org/10.1137/0330046

    >>> p = gpunn.tensor([1.0], requires_grad=True)
    >>> optimizer = gpunn.optim.ASGD([p], lr=0.1, lambd=0.0)
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.8000], requires_grad=True)
    """

    _scalars = ("step", "eta", "mu")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_options(lr, weight_decay=weight_decay)
        super().__init__(params, {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable,
        })  # fmt: skip

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        lr = float(group["lr"])
        return {"step": scalar(0.0), "eta": scalar(lr), "mu": scalar(1.0), "ax": zeros_like(p)}

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        return _asgd, ("ax",)

    def _tick(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> tuple[Any, ...]:
        """This step's η and μ; the state gets those of the next."""
        (t,) = super()._tick(group, p, state)
        eta, mu = state["eta"].array, state["mu"].array
        now = float(eta), float(mu)
        lr = float(group["lr"])
        eta[...] = scalar(lr / (1 + group["lambd"] * lr * t) ** group["alpha"]).array
        mu[...] = scalar(1 / max(1.0, t - group["t0"])).array
        return now

    def _coefficients(self, group: dict[str, Any], eta: float, mu: float) -> tuple[Any, ...]:
        return 1 - group["lambd"] * eta, eta, mu
