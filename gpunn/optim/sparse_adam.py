"""SparseAdam: Adam for gradients that have only some rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, number, zeros_like
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor

__all__ = ["SparseAdam"]


def _sparse_adam(
    xp: Any, p: Any, g: Any, m: Any, v: Any, rest1: Any, rest2: Any, eps: Any, lr: Any
) -> None:
    m += (g - m) * rest1
    v += (g * g - v) * rest2
    p -= m / (xp.sqrt(v) + eps) * lr


class SparseAdam(Elementwise):
    """Adam on the rows that a sparse gradient has; moments and parameters of the others rest.

    m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², θ ← θ - γ √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε),
    where t counts all steps. For `Embedding(sparse=True)`. Raises ValueError for options out of
    range, complex or sparse parameters, RuntimeError for dense gradients.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SparseAdam.html

    >>> table = nn.Embedding(3, 2, sparse=True)
    >>> before = table.weight.detach().clone()
    >>> optimizer = gpunn.optim.SparseAdam(table.parameters(), lr=0.1)
    >>> table(gpunn.tensor([1])).sum().backward()
    >>> optimizer.step()
    >>> (table.weight != before).tolist()
    [[False, False], [True, True], [False, False]]
    """

    _scalars = ()

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        check_options(lr, eps, betas)
        if lr == 0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if eps == 0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        places = [
            ([i, k], p)
            for i, group in enumerate(self.param_groups)
            for k, p in enumerate(group["params"])
        ]
        sparse = [place for place, p in places if p.is_sparse]
        if sparse:
            raise ValueError(
                f"Sparse params at indices {sparse}: SparseAdam requires dense parameter tensors"
            )
        complex_ = [place for place, p in places if p.dtype.is_complex]
        if complex_:
            raise ValueError(
                f"Complex params at indices {complex_}: SparseAdam does not support complex "
                "parameters"
            )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the rows that have a gradient; returns the closure's loss."""
        loss = self._evaluate(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p._grad is not None and not p._grad.is_sparse:
                    raise RuntimeError(
                        "SparseAdam does not support dense gradients, please consider Adam instead"
                    )
        super().step()
        return loss

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        return {"step": 0, "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        return _sparse_adam, ("exp_avg", "exp_avg_sq")

    def _tick(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> tuple[Any, ...]:
        state["step"] += 1
        return (state["step"],)

    def _coefficients(self, group: dict[str, Any], t: int) -> tuple[Any, ...]:
        beta1, beta2 = group["betas"]
        lr = number(group, "lr") * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        return 1 - beta1, 1 - beta2, group["eps"], lr

    def _accept_sparse(self, group: dict[str, Any], grad: Any) -> Any:
        return grad
