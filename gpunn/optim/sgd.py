"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, number, zeros_like
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor

__all__ = ["SGD"]


def _plain(xp: Any, p: Any, g: Any, lr: Any) -> None:
    p -= g * lr


def _momentum(xp: Any, p: Any, g: Any, b: Any, lr: Any, mu: Any, rest: Any) -> None:
    b *= mu
    b += g * rest
    p -= b * lr


def _nesterov(xp: Any, p: Any, g: Any, b: Any, lr: Any, mu: Any, rest: Any) -> None:
    b *= mu
    b += g * rest
    p -= (g + b * mu) * lr


class SGD(Elementwise):
    """Stochastic gradient descent: θ ← θ - γ g.

    With momentum μ and dampening τ, b ← μ b + (1 - τ) g replaces g (b ← g at the first step);
    with Nesterov's momentum, g + μ b does. `weight_decay` λ adds λθ to g. Row-sparse gradients
    change only their rows, without momentum. `foreach` and `fused` are accepted and change
    nothing. Raises ValueError for negative options and for Nesterov without momentum or with
    dampening.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html

    >>> p = gpunn.tensor([1.0], requires_grad=True)
    >>> optimizer = gpunn.optim.SGD([p], lr=0.1, momentum=0.9)
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.8000], requires_grad=True)
    """

    _scalars = ()
    _has_fused = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_options(lr, momentum=momentum, weight_decay=weight_decay)  # type: ignore[arg-type]
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening,
            "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
            "foreach": foreach, "differentiable": differentiable, "fused": fused,
        })  # fmt: skip

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        return {} if group["momentum"] == 0 else {"momentum_buffer": None}

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        if group["momentum"] == 0:
            return _plain, ()
        return _nesterov if group["nesterov"] else _momentum, ("momentum_buffer",)

    def _tick(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> tuple[Any, ...]:
        """Whether this is the first step with momentum."""
        if group["momentum"] == 0 or state.get("momentum_buffer") is not None:
            return (False,)
        state["momentum_buffer"] = zeros_like(p)
        return (True,)

    def _coefficients(self, group: dict[str, Any], first: bool) -> tuple[Any, ...]:
        lr, momentum = number(group, "lr"), group["momentum"]
        if momentum == 0:
            return (lr,)
        return lr, momentum, 1.0 if first else 1 - group["dampening"]

    def _fused(self, library: Any, group: dict[str, Any], ticks: Any, *columns: list[Any]) -> bool:
        params, grads, *buffers = columns
        return library.sgd_step(
            params, grads, buffers[0] if buffers else None, lr=number(group, "lr"),
            momentum=group["momentum"], dampening=group["dampening"],
            weight_decay=number(group, "weight_decay"), nesterov=group["nesterov"],
            maximize=group["maximize"], first=ticks[0],
        )  # fmt: skip

    def _accept_sparse(self, group: dict[str, Any], grad: Any) -> Any:
        if number(group, "weight_decay") != 0:
            raise RuntimeError(
                "SGD: weight_decay option is not compatible with sparse gradients: "
                "add(sparse, dense) is not supported. Use weight_decay=0 for this parameter group."
            )
        return grad.to_dense() if group["momentum"] != 0 else grad
