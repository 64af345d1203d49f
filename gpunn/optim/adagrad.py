"""Adagrad."""

from __future__ import annotations

from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, number, scalar
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor, wrap

__all__ = ["Adagrad"]


def _adagrad(xp: Any, p: Any, g: Any, total: Any, eps: Any, lr: Any) -> None:
    total += g * g
    p -= g / (xp.sqrt(total) + eps) * lr


class Adagrad(Elementwise):
    """Adagrad: steps shrink with the root of the sum of all squared gradients.

    s ← s + g², θ ← θ - γ / (1 + (t - 1) η) · g / (√s + ε) with η = `lr_decay`; s starts at
    `initial_accumulator_value`. `weight_decay` λ adds λθ to g. Row-sparse gradients change only
    their rows. `foreach` and `fused` are accepted and change nothing. Raises ValueError for
    negative options, RuntimeError for weight decay with sparse gradients.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adagrad.html,
    https://jmlr.org/papers/v12/duchi11a.html

    >>> p = gpunn.tensor([1.0], requires_grad=True)
    >>> optimizer = gpunn.optim.Adagrad([p], lr=0.1)
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.9000], requires_grad=True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_options(
            lr, eps, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
        )  # fmt: skip
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "fused": fused,
        })  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = self._new_state(group, p)

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        start = self.defaults["initial_accumulator_value"]
        value = complex(start, start) if p.dtype.is_complex else start
        return {
            "step": scalar(0.0), "sum": wrap(p.device.xp.full_like(p.array, value), p.device),
        }  # fmt: skip

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        return _adagrad, ("sum",)

    def _coefficients(self, group: dict[str, Any], t: float) -> tuple[Any, ...]:
        return group["eps"], number(group, "lr") / (1 + (t - 1) * group["lr_decay"])

    def _accept_sparse(self, group: dict[str, Any], grad: Any) -> Any:
        if group["weight_decay"] != 0:
            raise RuntimeError("weight_decay option is not compatible with sparse gradients")
        return grad
